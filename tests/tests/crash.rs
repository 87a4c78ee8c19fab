//! The tool dies at any moment of an apply: what was in force, or what was to be, is in force.
//!
//! This program starts itself as a child that applies policies, and kills it: at random moments,
//! and in front of each call that changes what is pinned or attached.

use std::{
    env, fs,
    io::{BufRead as _, BufReader},
    net::UdpSocket,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use govc_image::Image;
use govc_loader::{
    attach::HookChoice,
    instance::{BPFFS, Place},
    keyring::KeyRing,
    publish,
};
use govc_tests::{
    kernel_available,
    node::{
        Keys, Node, OnDrop, PATIENCE, address, connect, drain, explain, image, receive, udp_socket,
        workload,
    },
    random::Random,
};

/// Tells the child what to do: the instance, the key ring with the images beside it, and the
/// numbers of the policies to apply. A `+` behind them says: over and over.
const CHILD: &str = "GOVC_TESTS_CRASH_CHILD";
/// The child ends by itself, should nobody be left to kill it.
const CHILD_LIFE: Duration = Duration::from_secs(60);
/// The number that all delays follow from.
const SEED: &str = "GOVC_TESTS_SEED";

/// Permitted by all policies: a port for [`Rig::under_traffic`], and one for [`Rig::enforces`].
const ALWAYS: [u16; 2] = [1000, 1001];
/// Permitted by the first of each pair of policies.
const SOMETIMES: u16 = 2000;
/// Permitted by none.
const NEVER: [u16; 2] = [3000, 3001];

/// The policies of the tests by number: even ones permit [`SOMETIMES`], and from 2 on they are
/// too large for the buffers of the first two.
const POLICIES: usize = 4;

fn permits_sometimes(policy: usize) -> bool {
    policy.is_multiple_of(2)
}

fn policy(number: usize) -> Image {
    let mut rules = String::new();
    for pad in 0..[0, 9, 800, 809][number] {
        let port = 4000 + pad;
        rules += &format!("permit pad_{pad} {{ from acme.web.front  proto tcp port {port} }}\n");
    }
    rules += &format!("permit always {{ proto udp port {}, {} }}\n", ALWAYS[0], ALWAYS[1]);
    let action = if permits_sometimes(number) { "permit" } else { "deny" };
    rules += &format!("{action} sometimes {{ proto udp port {SOMETIMES} }}\n");
    let rules = format!("policy crash {{ on ingress\n{rules} }}");
    image(&[&workload("acme.payments.ledger", "read"), &rules])
}

#[test]
fn the_child_applies_until_it_is_killed() {
    let Ok(order) = env::var(CHILD) else { return };
    let [place, dir, numbers] = order.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let place = Place::new(Path::new(BPFFS), place);
    let keys = KeyRing::new(dir);
    let (numbers, rounds) = match numbers.strip_suffix('+') {
        Some(numbers) => (numbers, usize::MAX),
        None => (numbers, 1),
    };
    let images: Vec<Image> = numbers
        .bytes()
        .map(|digit| image_path(dir, usize::from(digit - b'0')))
        .map(|path| Image::parse(fs::read(path).unwrap()).unwrap())
        .collect();
    println!("ready");
    let start = Instant::now();
    for _ in (0..rounds).take_while(|_| start.elapsed() < CHILD_LIFE) {
        for image in &images {
            publish::apply(&publish::Apply {
                place: &place,
                image,
                interfaces: &["eth0".to_owned()],
                hook: HookChoice::Auto,
                keys: &keys,
                authority: None,
                set_mtu: true,
                dry_run: false,
            })
            .unwrap_or_else(|error| explain(&error));
        }
    }
}

fn image_path(dir: impl AsRef<Path>, number: usize) -> PathBuf {
    dir.as_ref().join(format!("{number}.image"))
}

/// A running child, killed at the latest when this goes.
struct Victim(Child);

impl Victim {
    /// Waits until it begins to apply.
    fn wait_until_ready(&mut self) {
        let stdout = self.0.stdout.take().unwrap();
        let ready = BufReader::new(stdout).lines().any(|line| line.unwrap().ends_with("ready"));
        assert!(ready, "the child has failed");
    }

    /// SIGKILL. Everything that it held is released when this returns.
    fn kill(mut self) {
        assert_eq!(self.0.try_wait().unwrap(), None, "the child ended by itself");
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Following a child from system call to system call.
mod trace {
    use std::{
        ffi::{c_int, c_long, c_uint, c_void},
        fs::File,
        io,
        os::unix::{fs::FileExt as _, process::CommandExt as _},
        process::{Child, Command},
        ptr::null_mut,
    };

    unsafe extern "C" {
        fn ptrace(request: c_uint, ...) -> c_long;
        fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
    }

    const TRACEME: c_uint = 0;
    const SYSCALL: c_uint = 24;
    const SETOPTIONS: c_uint = 0x4200;
    const GET_SYSCALL_INFO: c_uint = 0x420e;
    /// System calls stop apart from signals; new threads are followed; nothing survives us.
    const OPTIONS: usize = 1 | 1 << 3 | 1 << 20;
    /// All threads, of children of this thread only: other tests have children too.
    const WAIT_OPTIONS: c_int = 0x4000_0000 | 0x2000_0000;
    const SIGTRAP: c_int = 5;
    const SIGSTOP: c_int = 19;
    const SYSCALL_STOP: c_int = SIGTRAP | 0x80;

    /// The beginning of `struct ptrace_syscall_info`.
    #[repr(C)]
    #[derive(Default)]
    struct SyscallInfo {
        op: u8,
        pad: [u8; 3],
        arch: u32,
        ip: u64,
        sp: u64,
        number: u64,
        arguments: [u64; 6],
    }

    /// `bpf`, and what makes, renames and removes files: number, name, position of the path.
    #[cfg(target_arch = "x86_64")]
    const BPF: u64 = 321;
    #[cfg(target_arch = "x86_64")]
    const CALLS: [(u64, &str, usize); 8] = [
        (82, "rename", 0),
        (83, "mkdir", 0),
        (84, "rmdir", 0),
        (87, "unlink", 0),
        (258, "mkdirat", 1),
        (263, "unlinkat", 1),
        (264, "renameat", 1),
        (316, "renameat2", 1),
    ];
    #[cfg(target_arch = "aarch64")]
    const BPF: u64 = 280;
    #[cfg(target_arch = "aarch64")]
    const CALLS: [(u64, &str, usize); 4] =
        [(34, "mkdirat", 1), (35, "unlinkat", 1), (38, "renameat", 1), (276, "renameat2", 1)];

    /// Commands of `bpf`.
    const OBJ_PIN: u64 = 6;
    const COMMANDS: [(u64, &str); 3] =
        [(28, "BPF_LINK_CREATE"), (29, "BPF_LINK_UPDATE"), (34, "BPF_LINK_DETACH")];

    /// Names a call that changes what is pinned or attached.
    fn change(thread: c_int, info: &SyscallInfo) -> Option<String> {
        const ENTRY: u8 = 1;
        if info.op != ENTRY {
            return None;
        }
        let [first, second, ..] = info.arguments;
        if info.number == BPF && first == OBJ_PIN {
            // The attributes begin with the address of the path.
            let mut address = [0; 8];
            memory(thread, second, &mut address);
            return Some(format!("pin {}", file_name(thread, u64::from_ne_bytes(address))));
        }
        if info.number == BPF {
            let command = COMMANDS.iter().find(|(number, _)| *number == first);
            return command.map(|(_, name)| (*name).to_owned());
        }
        let (_, name, at) = CALLS.iter().find(|(number, ..)| *number == info.number)?;
        Some(format!("{name} {}", file_name(thread, info.arguments[*at])))
    }

    /// Reads the memory of a thread; zeros where there is none.
    fn memory(thread: c_int, address: u64, bytes: &mut [u8]) {
        if let Ok(memory) = File::open(format!("/proc/{thread}/mem")) {
            let _ = memory.read_at(bytes, address);
        }
    }

    /// The last component of a path in a thread's memory.
    fn file_name(thread: c_int, address: u64) -> String {
        let mut path = [0; 256];
        memory(thread, address, &mut path);
        let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
        let path = String::from_utf8_lossy(&path[..end]);
        path.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// Starts a program that stops before its first instruction.
    pub fn spawn(command: &mut Command) -> io::Result<Child> {
        let trace_me = || {
            // SAFETY: asks to be traced by the parent; no memory is passed.
            let failed = unsafe { ptrace(TRACEME, 0, null_mut::<c_void>(), null_mut::<c_void>()) };
            if failed < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
        };
        // SAFETY: one system call, which allocates nothing.
        unsafe { command.pre_exec(trace_me) }.spawn()
    }

    /// Lets a child that was [`spawn`]ed by this thread run, and kills it in front of the call
    /// number `nth`, from 0, whose name begins with one of `wanted`. Names that call; `None` when
    /// the child has ended before.
    pub fn kill_in_front_of(nth: usize, wanted: &[&str], child: &mut Child) -> Option<String> {
        let leader = child.id() as c_int;
        let (mut started, mut calls, mut killed) = (false, 0, None);
        loop {
            let mut status = 0;
            // SAFETY: `status` lives through the call.
            let thread = unsafe { waitpid(-1, &raw mut status, WAIT_OPTIONS) };
            assert!(thread > 0, "waiting for the child: {}", io::Error::last_os_error());
            let stopped = status & 0xff == 0x7f;
            if !stopped && thread == leader {
                assert!(killed.is_some() || status == 0, "the child has failed");
                return killed;
            }
            if !stopped || killed.is_some() {
                continue;
            }
            if !started {
                set_options(leader);
                started = true;
            }
            let signal = status >> 8 & 0xff;
            if signal == SYSCALL_STOP
                && let Some(change) = change(thread, &syscall_info(thread))
                && wanted.iter().any(|wanted| change.starts_with(wanted))
            {
                if calls == nth {
                    child.kill().unwrap();
                    killed = Some(change);
                    continue;
                }
                calls += 1;
            }
            let own = [SYSCALL_STOP, SIGTRAP, SIGSTOP].contains(&signal);
            go_on(thread, if own { 0 } else { signal });
        }
    }

    fn set_options(thread: c_int) {
        // SAFETY: no memory is passed.
        let result = unsafe { ptrace(SETOPTIONS, thread, null_mut::<c_void>(), OPTIONS) };
        assert_eq!(result, 0, "{}", io::Error::last_os_error());
    }

    /// Until the next system call. A thread that was killed meanwhile has nothing to go on with.
    fn go_on(thread: c_int, signal: c_int) {
        // SAFETY: no memory is passed.
        unsafe { ptrace(SYSCALL, thread, null_mut::<c_void>(), signal as usize) };
    }

    fn syscall_info(thread: c_int) -> SyscallInfo {
        let mut info = SyscallInfo::default();
        // SAFETY: the kernel writes at most as many bytes as it is told that `info` has.
        unsafe { ptrace(GET_SYSCALL_INFO, thread, size_of::<SyscallInfo>(), &raw mut info) };
        info
    }
}

/// A sender with a policy of its own and a receiver whose tool dies.
struct Rig {
    sender: Node,
    receiver: Node,
    keys: Arc<Keys>,
    policies: [Image; POLICIES],
    /// Datagrams to [`ALWAYS`] since the receiver has its instance.
    permitted: AtomicU64,
}

impl Rig {
    fn new() -> Self {
        let keys = Keys::new();
        let (sender, receiver) = (Node::new("sender", &keys), Node::new("receiver", &keys));
        connect(1, [(&sender.namespace, "eth0"), (&receiver.namespace, "eth0")]);
        sender.apply(&image(&[&workload("acme.payments.api", "read")]), &["eth0"]);
        let policies = [0, 1, 2, 3].map(policy);
        for (number, policy) in policies.iter().enumerate() {
            fs::write(image_path(keys.ring().dir(), number), policy.bytes()).unwrap();
        }
        Self { sender, receiver, keys, policies, permitted: AtomicU64::new(0) }
    }

    /// Forgets the receiver's instance for a new one.
    fn start_over(&mut self) {
        self.receiver = Node::within(self.receiver.namespace.clone(), &self.keys);
        self.permitted = AtomicU64::new(0);
    }

    /// The command that applies policies in the receiver's namespace.
    fn child(&self, numbers: &str) -> Command {
        let (name, dir) = (self.receiver.place.name(), self.keys.ring().dir().display());
        let mut command = Command::new(env::current_exe().unwrap());
        command
            .args(["--exact", "the_child_applies_until_it_is_killed", "--nocapture"])
            .env(CHILD, format!("{name} {dir} {numbers}"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// A child that is about to apply policies over and over.
    fn start(&self, numbers: &str) -> Victim {
        let mut child = self.child(&format!("{numbers}+"));
        let mut victim = Victim(self.receiver.namespace.run(|| child.spawn()).unwrap());
        victim.wait_until_ready();
        victim
    }

    /// Kills a child that applies a policy in front of call number `nth` among those that `wanted`
    /// names, and tells its name. `None` when there are fewer.
    fn kill_in_front_of(&self, nth: usize, wanted: &[&str], policy: usize) -> Option<String> {
        let mut child = self.child(&policy.to_string());
        child.stdout(Stdio::null());
        // One thread does it all: only the thread that has started a child can follow it.
        self.receiver.namespace.run(|| {
            let mut victim = Victim(trace::spawn(&mut child).unwrap());
            trace::kill_in_front_of(nth, wanted, &mut victim.0)
        })
    }

    fn client(&self, v6: bool) -> UdpSocket {
        udp_socket(&self.sender.namespace, address(1, 1, v6), 0)
    }

    fn server(&self, v6: bool, port: u16) -> UdpSocket {
        udp_socket(&self.receiver.namespace, address(1, 2, v6), port)
    }

    /// The policy that the pins say is in force.
    fn in_force(&self) -> usize {
        let digest = self.receiver.status().generation.digest;
        let same = |policy: &Image| publish::hex(&policy.digest()) == digest;
        self.policies.iter().position(same).expect("one of the policies")
    }

    /// What the hooks do agrees with a policy, over both IP versions.
    fn enforces(&self, policy: usize, when: &str) {
        for v6 in [false, true] {
            let to = address(1, 2, v6);
            let [sometimes, never, always] =
                [SOMETIMES, NEVER[1], ALWAYS[1]].map(|port| self.server(v6, port));
            let client = self.client(v6);
            for port in [NEVER[1], SOMETIMES, ALWAYS[1]] {
                client.send_to(b"which policy?", (to, port)).unwrap();
            }
            assert_eq!(receive(&always, 1).len(), 1, "{when}: permitted by all policies");
            self.permitted.fetch_add(1, Ordering::SeqCst);
            let wanted = usize::from(permits_sometimes(policy));
            let arrived =
                if wanted == 1 { receive(&sometimes, 1) } else { drain(&sometimes) }.len();
            assert_eq!(arrived, wanted, "{when}: policy {policy} is in force");
            assert_eq!(drain(&never).len(), 0, "{when}: permitted by none");
        }
    }

    /// Applies a policy, which must succeed and be what the hooks do.
    fn recovers(&self, policy: usize, when: &str) {
        self.receiver.apply(&self.policies[policy], &["eth0"]);
        assert_eq!(self.in_force(), policy);
        self.enforces(policy, &format!("{when}, after a later apply"));
    }

    /// The rule that all policies have in common has counted every datagram, once.
    fn counted(&self, when: &str) {
        let sent = self.permitted.load(Ordering::SeqCst);
        assert_eq!(self.receiver.decided("crash.always"), sent, "{when}");
    }

    /// Sends while `work` goes on: one datagram that must not arrive, and one that must, before
    /// the next.
    fn under_traffic(&self, work: impl FnOnce()) {
        let done = AtomicBool::new(false);
        let rounds = AtomicUsize::new(0);
        let traffic = || {
            let to = address(1, 2, false);
            let (client, forbidden) = (self.client(false), self.server(false, NEVER[0]));
            let permitted = self.server(false, ALWAYS[0]);
            while !done.load(Ordering::Relaxed) {
                client.send_to(b"forbidden", (to, NEVER[0])).unwrap();
                client.send_to(b"permitted", (to, ALWAYS[0])).unwrap();
                let start = Instant::now();
                while drain(&permitted).is_empty() {
                    assert!(start.elapsed() < PATIENCE, "a permitted datagram was lost");
                }
                self.permitted.fetch_add(1, Ordering::SeqCst);
                assert!(drain(&forbidden).is_empty(), "a forbidden datagram got through");
                rounds.fetch_add(1, Ordering::Relaxed);
                // A core is left for others.
                thread::sleep(Duration::from_micros(50));
            }
        };
        thread::scope(|scope| {
            let _end = OnDrop(|| done.store(true, Ordering::Relaxed));
            let traffic = scope.spawn(traffic);
            work();
            assert!(!traffic.is_finished(), "the traffic has stopped");
        });
        self.counted("after the traffic");
        println!("{} rounds of traffic", rounds.load(Ordering::Relaxed));
    }
}

/// Random numbers from the seed that the environment names; it is printed.
fn seeded() -> Random {
    let seed = env::var(SEED).ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("{SEED}={seed}");
    Random::new(seed)
}

#[test]
fn a_tool_that_is_killed_while_it_swaps_leaves_old_or_new_in_force() {
    if !kernel_available() {
        return;
    }
    const KILLS: usize = 40;
    let mut random = seeded();
    let rig = Rig::new();
    rig.recovers(0, "before all");
    rig.under_traffic(|| {
        for kill in 0..KILLS {
            let victim = rig.start("10");
            // From before the first apply to some way into the following ones.
            thread::sleep(Duration::from_micros(random.below(60_000) as u64));
            victim.kill();
            let when = format!("kill {kill}");
            rig.enforces(rig.in_force(), &when);
            rig.recovers(random.below(2), &when);
        }
    });
}

#[test]
fn a_tool_that_is_killed_while_buffers_grow_leaves_old_or_new_in_force() {
    if !kernel_available() {
        return;
    }
    /// What is pinned under names of its own changes nothing yet.
    const CALLS: [&str; 4] = ["mkdir", "BPF_LINK", "unlinkat TABLES", "unlinkat set-"];
    let mut rig = Rig::new();
    for nth in 0.. {
        rig.start_over();
        rig.recovers(0, "before all");
        let mut call = None;
        rig.under_traffic(|| {
            call = rig.kill_in_front_of(nth, &CALLS, 3);
            let Some(call) = &call else { return };
            println!("{call}");
            let when = format!("killed in front of call {nth}, {call}");
            rig.enforces(rig.in_force(), &when);
            // Both buffers are filled anew.
            for policy in [2, 1] {
                rig.recovers(policy, &when);
            }
        });
        if call.is_none() {
            assert!(nth > 5, "only {nth} calls");
            assert_eq!(rig.in_force(), 3);
            break;
        }
    }
}

#[test]
fn a_tool_that_is_killed_during_the_first_apply_can_start_over() {
    if !kernel_available() {
        return;
    }
    const CALLS: [&str; 5] = ["rename", "mkdir", "rmdir", "pin", "BPF_LINK"];
    const STEP: usize = 3;
    let mut rig = Rig::new();
    for nth in (seeded().below(STEP)..).step_by(STEP) {
        rig.start_over();
        let Some(call) = rig.kill_in_front_of(nth, &CALLS, 0) else {
            assert!(nth > 20, "only {nth} calls");
            rig.enforces(0, "not killed");
            break;
        };
        let when = format!("killed in front of call {nth}, {call}");
        rig.recovers(1, &when);
        rig.counted(&when);
    }
}
