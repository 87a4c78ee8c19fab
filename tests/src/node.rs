//! Nodes on links: namespaces with an instance each, and what passes on the wires between them.

use std::{
    collections::BTreeMap,
    ffi::{c_int, c_void},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    path::Path,
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use govc_abi::{flow::Control, names};
use govc_image::Image;
use govc_loader::{
    attach::HookChoice,
    authority::Authority,
    error::LoadError,
    events::Events,
    instance::{BPFFS, Place},
    keyring::{DomainKeys, EPOCH_SHIFT_DEFAULT, KeyRing, slot_now},
    object,
    publish::{self, Applied},
    status::{self, Status},
};
use govc_netlab::{IpPrefix, Namespace, PacketSocket, veth, when_free};
use rustix::net::sockopt;

use crate::{compile, lab::MTU, policies::VOCABULARY};

/// How long to wait for what must come. Only a test that fails waits that long.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait for what must not come. Packets between namespaces pass within the call that
/// sends them; counters tell that they were dropped, and not late.
pub const DENIED_WAIT: Duration = Duration::from_millis(300);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A name that no other test uses, here or in another process.
fn unique() -> String {
    format!("test-{}-node-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Compiles a policy over the vocabulary of `examples/policies/acme`.
pub fn image(parts: &[&str]) -> Image {
    let text = format!("package acme.e2e\nuse acme.vocabulary\n{}", parts.join("\n"));
    let image = compile(&[("e2e.gov", &text), ("vocabulary.gov", VOCABULARY)]).image;
    remember_source(&image, &text);
    image
}

/// The texts of policies, by the digests of their images.
static SOURCES: Mutex<BTreeMap<[u8; 32], String>> = Mutex::new(BTreeMap::new());

/// Notes what an image was made of, for whoever explains what it decided.
pub fn remember_source(image: &Image, text: &str) {
    SOURCES.lock().expect("nobody panics with it").insert(image.digest(), text.to_owned());
}

/// The text that an image was made of, where [`remember_source`] was told.
pub fn source_of(digest: &[u8; 32]) -> Option<String> {
    SOURCES.lock().expect("nobody panics with it").get(digest).cloned()
}

/// The lines that put a workload on a node, which stamps with a ledger operation.
pub fn workload(subject: &str, operation: &str) -> String {
    format!(
        "zone lan = interface \"eth0\"\n\
         stamp on lan {{ subject {subject}  operation ledger.{operation}  residency eu }}\n\
         deliver on lan {{ object {subject} }}\n"
    )
}

/// A ring with keys for the vocabulary's domain; its files go with it.
pub struct Keys(KeyRing);

impl Keys {
    /// New keys, shared by the nodes of one test.
    pub fn new() -> Arc<Self> {
        let ring = KeyRing::new(std::env::temp_dir().join(format!("govc-{}", unique())));
        let keys = DomainKeys::generate("acme", 7, EPOCH_SHIFT_DEFAULT, 2).expect("randomness");
        let keys_of_test = Self(ring);
        keys_of_test.0.write(&keys).expect("keys are written");
        Arc::new(keys_of_test)
    }

    /// A ring that holds the keys of these domains, as after an import of each.
    pub fn holding(domains: &[&DomainKeys]) -> Arc<Self> {
        let ring = KeyRing::new(std::env::temp_dir().join(format!("govc-{}", unique())));
        let keys_of_test = Self(ring);
        for keys in domains {
            keys_of_test.0.write(keys).expect("keys are written");
        }
        Arc::new(keys_of_test)
    }

    /// The ring.
    pub fn ring(&self) -> &KeyRing {
        &self.0
    }

    /// The key for labels of this moment, its epoch modulo 16, and the slot.
    pub fn now(&self) -> ((u64, u64), u8, u64) {
        let slot = slot_now();
        let keys = self.0.read(7).expect("key file").expect("keys");
        let (epoch, entry) = keys.entries(slot).find(|(_, e)| e.covers(slot)).expect("a key");
        ((entry.k0, entry.k1), epoch as u8, slot)
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.dir());
    }
}

/// A namespace with an instance, whose pins go with it however the test ends.
pub struct Node {
    /// Where it lives.
    pub namespace: Namespace,
    /// Its pins.
    pub place: Place,
    keys: Arc<Keys>,
}

/// How to apply, besides the policy and the interfaces.
#[derive(Clone, Copy)]
pub struct How<'a> {
    /// Hook for interfaces that are new.
    pub hook: HookChoice,
    /// Whether routes leave room for labels.
    pub set_mtu: bool,
    /// Another ring than the node's.
    pub keys: Option<&'a KeyRing>,
    /// What a bundle would say.
    pub authority: Option<&'a Authority>,
}

impl Default for How<'_> {
    fn default() -> Self {
        Self { hook: HookChoice::Auto, set_mtu: true, keys: None, authority: None }
    }
}

impl Node {
    /// A node in a new namespace, without links or policy.
    pub fn new(name: &str, keys: &Arc<Keys>) -> Self {
        Self::within(Namespace::create(name).expect("namespace"), keys)
    }

    /// A node in a namespace that exists.
    pub fn within(namespace: Namespace, keys: &Arc<Keys>) -> Self {
        let place = Place::new(Path::new(BPFFS), &unique());
        Self { namespace, place, keys: keys.clone() }
    }

    /// Its keys.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Puts a policy in force, which must succeed.
    pub fn apply(&self, image: &Image, interfaces: &[&str]) -> Applied {
        self.try_apply(image, interfaces, How::default()).unwrap_or_else(|error| explain(&error))
    }

    /// Puts a policy in force or tells why not.
    pub fn try_apply(
        &self,
        image: &Image,
        interfaces: &[&str],
        how: How<'_>,
    ) -> Result<Applied, LoadError> {
        let interfaces: Vec<String> = interfaces.iter().map(|&name| name.to_owned()).collect();
        self.namespace.run(|| {
            publish::apply(&publish::Apply {
                place: &self.place,
                image,
                interfaces: &interfaces,
                hook: how.hook,
                keys: how.keys.unwrap_or(self.keys.ring()),
                authority: how.authority,
                set_mtu: how.set_mtu,
                dry_run: false,
            })
        })
    }

    /// Returns to the earlier policy, which must succeed; tells its generation.
    pub fn rollback(&self) -> u64 {
        self.namespace
            .run(|| publish::rollback(&self.place))
            .unwrap_or_else(|error| explain(&error))
    }

    /// Stops enforcing on some interfaces, or on all.
    pub fn detach(&self, interfaces: &[&str]) -> Vec<String> {
        let interfaces: Vec<String> = interfaces.iter().map(|&name| name.to_owned()).collect();
        self.namespace
            .run(|| status::detach(&self.place, &interfaces))
            .unwrap_or_else(|error| explain(&error))
    }

    /// Makes the next apply replace maps and programs, as if another version had made them.
    pub fn forget_object(&self) {
        forget_object(&self.place);
    }

    /// The instance's state.
    pub fn status(&self) -> Status {
        self.namespace.run(|| status::status(&self.place)).unwrap_or_else(|error| explain(&error))
    }

    /// The generation in force.
    pub fn generation(&self) -> u64 {
        self.status().generation.number
    }

    /// Packets by reason at one hook since the instance began.
    pub fn reasons(&self, hook: &str) -> BTreeMap<&'static str, u64> {
        let reasons = self.status().reasons.into_iter().filter(|count| count.hook == hook);
        reasons.map(|count| (count.reason, count.packets)).collect()
    }

    /// Packets at one hook for one reason since the instance began.
    pub fn count(&self, hook: &str, reason: &str) -> u64 {
        self.reasons(hook).get(reason).copied().unwrap_or(0)
    }

    /// Packets that a rule of the generation in force has decided.
    pub fn decided(&self, rule: &str) -> u64 {
        let rules = self.status().rules;
        let found = rules.iter().find(|count| count.rule == rule);
        found.unwrap_or_else(|| panic!("no rule {rule} in {rules:?}")).packets
    }

    /// Moves the clock of this node's enforcement point on.
    pub fn wait_as_if(&self, time: Duration) {
        let control = object::map_array(&self.place.pin(names::map::CONTROL)).expect("map");
        let at = std::mem::offset_of!(Control, tai_offset_ns);
        let offset: u64 = control.read(0, at).expect("offset");
        control.write(0, at, offset.wrapping_add(time.as_nanos() as u64));
    }

    /// Cgroups that the kernel has numbers for, over both buffers.
    pub fn known_cgroups(&self) -> usize {
        let data = MapData::from_pin(self.place.pin(names::map::CGROUPS)).expect("pinned map");
        let map = Map::from_map_data(data).expect("map");
        let map: HashMap<_, u64, u32> = map.try_into().expect("hash map");
        map.keys().count()
    }

    /// A govc that is to run here; `program` is the path of this crate's.
    pub fn govc(&self, program: &str, arguments: &[&str]) -> process::Command {
        let mut command = process::Command::new(program);
        let (command_name, rest) = arguments.split_first().expect("a command");
        command.arg(command_name).args(["--instance", self.place.name()]).args(rest);
        command.env("GOVC_KEYS", self.keys.ring().dir()).env_remove("GOVC_LOG");
        command.stdin(process::Stdio::null());
        command.stdout(process::Stdio::piped()).stderr(process::Stdio::piped());
        command
    }

    /// Starts it.
    pub fn start_govc(&self, program: &str, arguments: &[&str]) -> process::Child {
        let mut command = self.govc(program, arguments);
        self.namespace.run(|| command.spawn()).expect("govc starts")
    }

    /// Runs it to its end.
    pub fn run_govc(&self, program: &str, arguments: &[&str]) -> process::Output {
        self.start_govc(program, arguments).wait_with_output().expect("govc ends")
    }

    /// Reports every packet, none left out to spare the reader.
    pub fn report_everything(&self) -> Events {
        status::report_permits(&self.place, true).expect("flag");
        status::set_event_rate(&self.place, u32::MAX).expect("rate");
        Events::open(&self.place).expect("events")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.place.dir());
    }
}

/// Changes the mark that tells which object an instance's programs were loaded from.
pub fn forget_object(place: &Place) {
    let set = place.set().expect("a set").pin("");
    for entry in std::fs::read_dir(set).expect("pins") {
        let entry = entry.expect("a pin");
        if entry.file_name().to_string_lossy().starts_with("ready-") {
            let other = entry.path().with_file_name("ready-other");
            std::fs::rename(entry.path(), other).expect("the mark is renamed");
        }
    }
}

/// Panics with an error and everything underneath it.
pub fn explain(error: &LoadError) -> ! {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    panic!("{text}");
}

/// Address number `host` of network `net`.
pub fn address(net: u8, host: u8, v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0xfd77, net.into(), 0, 0, 0, 0, 0, host.into()).into()
    } else {
        Ipv4Addr::new(10, 77, net, host).into()
    }
}

/// That address with the length of its network's prefix.
pub fn prefix(net: u8, host: u8, v6: bool) -> IpPrefix {
    IpPrefix::new(address(net, host, v6), if v6 { 64 } else { 24 }).expect("a prefix")
}

/// Joins two namespaces by network `net`: the first end gets address 1, the second address 2.
pub fn connect(net: u8, ends: [(&Namespace, &str); 2]) {
    let [(left, left_device), (right, right_device)] = ends;
    veth(left, left_device, right, right_device, None).expect("veth");
    for v6 in [false, true] {
        left.add_address(left_device, prefix(net, 1, v6)).expect("address");
        right.add_address(right_device, prefix(net, 2, v6)).expect("address");
    }
}

/// Makes address 1 of network `net` the way to everywhere.
pub fn set_gateway(namespace: &Namespace, device: &str, net: u8) {
    for (v6, everywhere) in [(false, IpPrefix::DEFAULT_V4), (true, IpPrefix::DEFAULT_V6)] {
        namespace.set_route(everywhere, Some(address(net, 1, v6)), device).expect("default route");
    }
}

/// IP protocol numbers.
pub mod protocol {
    /// ICMP.
    pub const ICMP: u8 = 1;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// ICMPv6.
    pub const ICMPV6: u8 = 58;
    /// The IPv6 header that a label travels in.
    pub const DESTINATION_OPTIONS: u8 = 60;
}

/// A packet on a wire, as far as these tests look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Whether it carries a label.
    pub labelled: bool,
    /// Protocol behind the label.
    pub protocol: u8,
    /// Bytes from the IP header on.
    pub len: usize,
}

/// Reads a frame; `None` when it is not IP or is link control, which travels without labels.
pub fn look(frame: &[u8]) -> Option<Sighting> {
    let ip = frame.get(14..)?;
    let (labelled, protocol, rest) = match frame.get(12..14)? {
        [0x08, 0x00] => {
            let header_len = usize::from(ip.first()? & 0xf) * 4;
            let labelled = header_len == 52 && ip.get(20..24)? == [1, 1, 0x9e, 30];
            (labelled, *ip.get(9)?, ip.get(header_len..)?)
        }
        [0x86, 0xdd] => match ip.get(40..)? {
            [next, 3, 0x1e | 0x5e, 28, ..] if ip.get(6) == Some(&60) => {
                (true, *next, ip.get(72..)?)
            }
            rest => (false, *ip.get(6)?, rest),
        },
        _ => return None,
    };
    let governed = match protocol {
        protocol::TCP | protocol::UDP | protocol::ICMP => true,
        protocol::ICMPV6 => !(133..=137).contains(rest.first()?),
        // Multicast listeners report behind a hop-by-hop header; IGMP.
        0 | 2 => false,
        _ => true,
    };
    governed.then_some(Sighting { labelled, protocol, len: ip.len() })
}

/// What a [`Watch`] has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Packets with a label.
    pub labelled: u64,
    /// Packets without one; link control does not count.
    pub bare: u64,
    /// Bytes of the longest packet from its IP header on.
    pub longest: usize,
    /// Packets that fill the MTU of the links.
    pub full: u64,
}

/// Looks at every packet that passes a device, in both directions, on a thread of its own.
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

impl Watch {
    /// Begins to watch; packets from now on are seen.
    pub fn start(namespace: &Namespace, device: &str) -> Self {
        const ROUND: Duration = Duration::from_millis(20);
        let wire = PacketSocket::open(namespace, device).expect("packet socket");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            loop {
                // Asked first: what was sent before the stop is in the socket by then.
                let last = stopped.load(Ordering::SeqCst);
                let mut frames = 0;
                wire.capture(ROUND, |frame| {
                    frames += 1;
                    seen.note(&frame.bytes);
                    false
                })
                .expect("capture");
                if last && frames == 0 {
                    return seen;
                }
            }
        });
        Self { stop, thread }
    }

    /// Ends when the wire is quiet.
    pub fn finish(self) -> Seen {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().expect("the watch does not panic")
    }
}

impl Seen {
    fn note(&mut self, frame: &[u8]) {
        let Some(sighting) = look(frame) else { return };
        if sighting.labelled {
            self.labelled += 1;
        } else {
            self.bare += 1;
        }
        self.longest = self.longest.max(sighting.len);
        self.full += u64::from(sighting.len == MTU);
    }
}

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: u32) -> c_int;
}

/// A raw socket: it gets copies of packets as the stack has received them, behind the hooks.
///
/// IPv4 packets come with their IP header; IPv6 packets come without, but a socket for
/// [`protocol::DESTINATION_OPTIONS`] gets all that still carry such a header.
pub struct Tap(UdpSocket);

impl Tap {
    /// Opens a socket for one protocol.
    pub fn open(namespace: &Namespace, v6: bool, protocol: u8) -> Self {
        const SOCK_RAW_CLOEXEC: c_int = 3 | 0o2_000_000;
        let family = if v6 { 10 } else { 2 };
        let fd = namespace.run(|| {
            // SAFETY: no memory is passed.
            let fd = unsafe { socket(family, SOCK_RAW_CLOEXEC, protocol.into()) };
            // SAFETY: a new descriptor that nobody else owns.
            if fd < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(unsafe { OwnedFd::from_raw_fd(fd) })
            }
        });
        let socket = UdpSocket::from(fd.expect("raw socket"));
        socket.set_nonblocking(true).expect("non-blocking");
        Self(socket)
    }

    /// Sends a packet without its IP header, which the stack writes.
    pub fn send_to(&self, packet: &[u8], to: IpAddr) -> io::Result<usize> {
        self.0.send_to(packet, SocketAddr::new(to, 0))
    }

    /// Everything that has come by now.
    pub fn packets(&self) -> Vec<Vec<u8>> {
        drain(&self.0)
    }
}

/// Makes a socket put options of its own into its packets.
pub fn set_own_options(socket: &UdpSocket, options: &[u8]) -> io::Result<()> {
    let v6 = socket.local_addr()?.is_ipv6();
    // IPPROTO_IPV6, IPV6_DSTOPTS; IPPROTO_IP, IP_OPTIONS.
    let (level, name) = if v6 { (41, 59) } else { (0, 4) };
    let len = options.len() as u32;
    // SAFETY: pointer and length describe `options`, which lives through the call.
    let result =
        unsafe { setsockopt(socket.as_raw_fd(), level, name, options.as_ptr().cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// A TCP socket in a namespace that listens.
pub fn tcp_listener(namespace: &Namespace, at: SocketAddr) -> TcpListener {
    namespace.run(|| when_free(|| TcpListener::bind(at))).expect("TCP listener")
}

/// A UDP socket in a namespace, non-blocking; port 0 is any.
pub fn udp_socket(namespace: &Namespace, at: IpAddr, port: u16) -> UdpSocket {
    let socket = namespace.run(|| when_free(|| UdpSocket::bind((at, port)))).expect("UDP socket");
    socket.set_nonblocking(true).expect("non-blocking");
    socket
}

/// Likewise at any port, for datagrams that may be fragmented.
pub fn fragmenting_socket(namespace: &Namespace, at: IpAddr) -> UdpSocket {
    let socket = udp_socket(namespace, at, 0);
    let set = match at {
        IpAddr::V4(_) => sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::DONT),
        IpAddr::V6(_) => {
            sockopt::set_ipv6_mtu_discover(&socket, sockopt::Ipv6PathMtuDiscovery::DONT)
        }
    };
    set.expect("a socket option");
    socket
}

/// All datagrams that wait in a socket.
pub fn drain(socket: &UdpSocket) -> Vec<Vec<u8>> {
    let mut buffer = vec![0; 70_000];
    let mut datagrams = Vec::new();
    loop {
        match socket.recv(&mut buffer) {
            Ok(len) => datagrams.push(buffer[..len].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return datagrams,
            Err(error) => panic!("cannot receive: {error}"),
        }
    }
}

/// Waits for `count` datagrams, and gives all that have come when patience ends.
pub fn receive(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    receive_within(PATIENCE, socket, count)
}

/// Likewise with another limit.
pub fn receive_within(limit: Duration, socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    wait_within(limit, || {
        datagrams.extend(drain(socket));
        datagrams.len() >= count
    });
    datagrams
}

/// Waits until something holds. `false` when it never did.
pub fn wait_until(holds: impl FnMut() -> bool) -> bool {
    wait_within(PATIENCE, holds)
}

fn wait_within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !holds() {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Calls a function when dropped.
pub struct OnDrop<F: Fn()>(pub F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
