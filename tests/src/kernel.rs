//! An instance in a network namespace of its own, asked packet by packet through
//! `BPF_PROG_TEST_RUN`.

use std::{
    ffi::c_long,
    io,
    mem::offset_of,
    os::fd::{AsFd as _, AsRawFd as _},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aya::{
    TestRun as _, TestRunOptions,
    programs::{SchedClassifier, Xdp},
};
use govc_abi::{event::Event, flow::Control, label::SLOT_NS, names};
use govc_image::Image;
use govc_loader::{
    attach::HookChoice,
    authority::Authority,
    events::Events,
    instance::{BPFFS, Place},
    kernel,
    keyring::{DomainKeys, KeyRing, slot_now},
    object,
    publish::{self, Applied},
    status,
};
use govc_netlab::{Namespace, veth};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::reference::Verifier;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
const SYS_BPF: c_long = 321;
#[cfg(not(target_arch = "x86_64"))]
const SYS_BPF: c_long = 280;
const EINVAL: i32 = 22;
const EBADMSG: i32 = 74;

/// A pointer as an attribute of the bpf call: 64 bits.
fn put_pointer(place: &mut [u32], pointer: *const u8) {
    let address = pointer as u64;
    place.copy_from_slice(&[address as u32, (address >> 32) as u32]);
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// How far the clock of hooks may be from ours.
const TICKS_NS: u64 = 30_000_000;

/// The enforcement point with a policy, on the loopback interface and one end of a veth pair,
/// `eth0`.
pub struct Kernel {
    /// The namespace that it lives in.
    pub namespace: Namespace,
    _peer: Namespace,
    /// Its pins.
    pub place: Place,
    ring: KeyRing,
    keys: Vec<DomainKeys>,
    ifindex: u32,
    /// Where leaving packets have come in; 0 for those that were sent here.
    entered: u32,
    programs: Programs,
    events: Events,
}

struct Programs {
    ingress: SchedClassifier,
    egress: SchedClassifier,
    xdp: Xdp,
}

/// What became of one packet.
#[derive(Debug)]
pub struct Answer {
    /// Let through.
    pub permit: bool,
    /// The packet afterwards.
    pub frame: Vec<u8>,
    /// The event that told about it, if any.
    pub event: Option<Event>,
}

impl Answer {
    /// Everything that it says, but for the time.
    pub fn told(&self) -> (bool, &[u8], Option<Event>) {
        (self.permit, &self.frame, self.event.map(|event| Event { time_ns: 0, ..event }))
    }
}

/// Which program to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// tcx ingress.
    Ingress,
    /// tcx egress.
    Egress,
    /// XDP.
    Xdp,
}

/// Every CPU has a memory of its own, so a test of it stays on one. Threads that it starts stay too.
pub fn stay_on_one_cpu() {
    let allowed = sched_getaffinity(None).expect("CPUs");
    let first = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).expect("a CPU");
    let mut one = CpuSet::new();
    one.set(first);
    sched_setaffinity(None, &one).expect("a CPU");
}

impl Kernel {
    /// Puts an image in force.
    pub fn new(image: &Image) -> Self {
        Self::at_devices(image, &["eth0"])
    }

    /// Puts an image in force on a router with the devices `eth0` to `eth2`, and the loopback interface.
    pub fn routing(image: &Image) -> Self {
        let kernel = Self::at_devices(image, &["eth0", "eth1", "eth2"]);
        kernel.namespace.enable_forwarding().expect("forwarding");
        kernel
    }

    fn at_devices(image: &Image, devices: &[&str]) -> Self {
        let id = format!("test-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let place = Place::new(Path::new(BPFFS), &id);
        let ring = KeyRing::new(std::env::temp_dir().join(format!("govc-{id}")));
        for domain in &image.names().domains {
            let keys = DomainKeys::generate(&domain.name, domain.number, 14, 2).expect("keys");
            ring.write(&keys).expect("keys are written");
        }
        let namespace = Namespace::create("subject").expect("namespace");
        let peer = Namespace::create("peer").expect("namespace");
        for quiet in [&namespace, &peer].into_iter().filter(|_| devices.len() == 1) {
            // Events are to tell about the packets of the test, not about the stack's own.
            let off = || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            quiet.run(off).expect("IPv6 is turned off");
        }
        for device in devices {
            veth(&namespace, device, &peer, device, None).expect("veth");
        }
        let ifindex = namespace.ifindex("eth0").expect("ifindex");
        apply(&namespace, &place, &ring, (image, None), &[devices, &["lo"]].concat());
        status::report_permits(&place, true).expect("flag");
        status::set_event_rate(&place, u32::MAX).expect("rate");
        let programs = Programs::open(&place);
        let events = Events::open(&place).expect("events");
        let keys = ring.list().expect("keys");
        let entered = 0;
        Self { namespace, _peer: peer, place, ring, keys, ifindex, entered, programs, events }
    }

    /// Puts another image in force.
    pub fn apply(&self, image: &Image) -> Applied {
        apply(&self.namespace, &self.place, &self.ring, (image, None), &[])
    }

    /// Puts another image in force, as a bundle would.
    pub fn apply_signed(&self, image: &Image, authority: &Authority) -> Applied {
        apply(&self.namespace, &self.place, &self.ring, (image, Some(authority)), &[])
    }

    /// The key for labels of a domain in this slot, with the epoch modulo 16.
    pub fn key(&self, domain: u16) -> ((u64, u64), u8) {
        self.key_of(domain, slot_now())
    }

    /// Likewise for another slot.
    pub fn key_of(&self, domain: u16, slot: u64) -> ((u64, u64), u8) {
        let keys = self.keys.iter().find(|keys| keys.number == domain).expect("keys");
        let mut entries = keys.entries(slot);
        let (epoch, entry) = entries.find(|(_, entry)| entry.covers(slot)).expect("a key");
        ((entry.k0, entry.k1), epoch as u8)
    }

    /// What verifies labels of a domain now. The kernel's clock may be a tick off ours, so a slot
    /// that begins is waited for: labels at the ends of the window would tell the two apart. So is one that
    /// ends, so that there is time to ask.
    pub fn verifier(&self, domain: u16) -> Verifier {
        const ENDS_NS: u64 = 300_000_000;
        while !(TICKS_NS..SLOT_NS - ENDS_NS).contains(&(unix_ns() % SLOT_NS)) {
            thread::sleep(Duration::from_millis(1));
        }
        let (key, epoch) = self.key(domain);
        Verifier { slot: slot_now(), key, epoch, zone: 1 }
    }

    /// Publishes no events any more: what a CPU remembers is used only where there is nothing to
    /// tell.
    pub fn silence(&self) {
        status::report_permits(&self.place, false).expect("flag");
        status::set_event_rate(&self.place, 0).expect("rate");
        // What was left to be published is forgotten at the next filling of the budget.
        thread::sleep(Duration::from_millis(150));
    }

    /// Puts other keys in force under the same policy.
    pub fn change_keys(&mut self) {
        for keys in &mut self.keys {
            *keys = DomainKeys::generate(&keys.domain, keys.number, 14, 2).expect("keys");
            self.ring.write(keys).expect("keys are written");
        }
        publish::refresh_keys(&self.place, &self.ring).expect("keys");
    }

    /// Puts a domain's keys in force in the place of those that it has.
    pub fn set_keys(&mut self, keys: DomainKeys) {
        self.ring.write(&keys).expect("keys are written");
        publish::refresh_keys(&self.place, &self.ring).expect("keys");
        self.keys = self.ring.list().expect("keys");
    }

    /// The keys that it was given.
    pub fn ring(&self) -> &KeyRing {
        &self.ring
    }

    /// Packets that were counted at a hook for a reason, by name.
    pub fn counted(&self, hook: &str, reason: &str) -> u64 {
        let status = self.namespace.run(|| status::status(&self.place)).expect("a status");
        let mut counts = status.reasons.iter();
        let found = counts.find(|count| count.hook == hook && count.reason == reason);
        found.map_or(0, |count| count.packets)
    }

    /// Moves the instance's clock by so many slots, from where it is without that.
    pub fn shift_clock(&self, slots: i64) {
        shift_clock(&self.place, slots);
    }

    /// Sends one packet through the ingress program so often, as fast as it goes; whoever reads
    /// events gets all of them.
    pub fn repeat(&self, frame: &[u8], times: u32) {
        let mut context = [0_u8; 192];
        // `ifindex` of struct __sk_buff.
        context[40..44].copy_from_slice(&self.ifindex.to_ne_bytes());
        let result = self.namespace.run(|| {
            let mut options = TestRunOptions::new();
            options.data_in = Some(frame);
            options.ctx_in = Some(&context);
            options.repeat = times;
            self.programs.ingress.test_run(options)
        });
        result.unwrap_or_else(|error| panic!("{frame:02x?}: {error:?}"));
    }

    /// Packets are on another device from now on, for the tcx hooks.
    pub fn at(&mut self, device: &str) {
        self.ifindex = self.namespace.ifindex(device).expect("ifindex");
    }

    /// Packets that leave have come in at another device from now on.
    pub fn from(&mut self, device: &str) {
        self.entered = self.namespace.ifindex(device).expect("ifindex");
    }

    /// Packets that leave were sent here from now on.
    pub fn from_here(&mut self) {
        self.entered = 0;
    }

    /// Whether the sum of a whole packet that a device has made is right for what the tcx hook lets arrive of
    /// it, as the kernel finds; [`None`] for kernels that do not look (before 6.11).
    pub fn sum_holds(&self, frame: &[u8]) -> Option<bool> {
        const BPF_PROG_TEST_RUN: c_long = 10;
        const BPF_F_TEST_SKB_CHECKSUM_COMPLETE: u32 = 1 << 2;
        let mut context = [0_u8; 192];
        context[40..44].copy_from_slice(&self.ifindex.to_ne_bytes());
        let program = self.programs.ingress.fd().expect("a program").as_fd().as_raw_fd();
        let mut attributes = [0_u32; 20];
        attributes[0] = program as u32;
        attributes[2] = frame.len() as u32;
        put_pointer(&mut attributes[4..6], frame.as_ptr());
        attributes[10] = context.len() as u32;
        put_pointer(&mut attributes[12..14], context.as_ptr());
        attributes[16] = BPF_F_TEST_SKB_CHECKSUM_COMPLETE;
        let len = size_of_val(&attributes) as c_long;
        self.namespace.run(|| {
            // SAFETY: the attributes are those of the command; what they point to is only read, and outlives the call.
            let done = unsafe { syscall(SYS_BPF, BPF_PROG_TEST_RUN, attributes.as_mut_ptr(), len) };
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                _ if done == 0 => Some(attributes[1] as i32 == -1),
                Some(EINVAL) => None,
                Some(EBADMSG) => Some(false),
                _ => panic!("{frame:02x?}: {error}"),
            }
        })
    }

    /// Runs one packet through a program.
    pub fn ask(&mut self, hook: Hook, frame: &[u8]) -> Answer {
        while self.events.next(Duration::ZERO).expect("events").is_some() {}
        let (permit, frame) = self.run(hook, frame);
        Answer { permit, frame, event: self.events.next(Duration::ZERO).expect("events") }
    }

    /// How many of these packets are let through, where nobody wants to know more.
    pub fn passing(&self, hook: Hook, frames: &[Vec<u8>]) -> usize {
        // One way into the namespace for all of them: it costs more than the program.
        let permits = |frame: &&Vec<u8>| self.test_run(hook, frame).0;
        self.namespace.run(|| frames.iter().filter(permits).count())
    }

    fn run(&self, hook: Hook, frame: &[u8]) -> (bool, Vec<u8>) {
        self.namespace.run(|| self.test_run(hook, frame))
    }

    /// What becomes of a packet; to be called within the namespace.
    fn test_run(&self, hook: Hook, frame: &[u8]) -> (bool, Vec<u8>) {
        let mut out = vec![0; frame.len() + 256];
        let mut context = [0_u8; 192];
        // `ifindex` of struct __sk_buff.
        context[40..44].copy_from_slice(&self.ifindex.to_ne_bytes());
        if hook == Hook::Egress {
            // `ingress_ifindex`.
            context[36..40].copy_from_slice(&self.entered.to_ne_bytes());
        }
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        if hook != Hook::Xdp {
            options.ctx_in = Some(&context);
        }
        let result = match hook {
            Hook::Ingress => self.programs.ingress.test_run(options),
            Hook::Egress => self.programs.egress.test_run(options),
            Hook::Xdp => self.programs.xdp.test_run(options),
        };
        let result = result.unwrap_or_else(|error| panic!("{hook:?} {frame:02x?}: {error:?}"));
        let permit = match hook {
            Hook::Ingress | Hook::Egress => result.return_value as i32 == -1,
            Hook::Xdp => result.return_value == 2,
        };
        out.truncate(result.data_size_out as usize);
        (permit, out)
    }
}

impl Programs {
    fn open(place: &Place) -> Self {
        let set = place.set().expect("a set");
        let classifier = |name| set.classifier(name).expect("pinned program");
        Self {
            ingress: classifier(names::program::TC_INGRESS),
            egress: classifier(names::program::TC_EGRESS),
            xdp: set.xdp().expect("pinned program"),
        }
    }
}

/// The slot that it surely is for hooks: their clock moves by ticks, and may be some behind or ahead.
#[must_use]
pub fn sure_slot() -> Option<u64> {
    let now_ns = unix_ns();
    let slots = [now_ns - TICKS_NS, now_ns + TICKS_NS].map(|ns| ns / SLOT_NS);
    (slots[0] == slots[1]).then_some(slots[0])
}

fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_nanos() as u64
}

/// Moves the clock of an instance by so many slots from where the machine's is.
pub fn shift_clock(place: &Place, slots: i64) {
    let control = object::map_array(&place.pin(names::map::CONTROL)).expect("a map");
    let at = offset_of!(Control, tai_offset_ns);
    let offset_ns = kernel::tai_offset_s() * 1_000_000_000 + slots * SLOT_NS as i64;
    control.write(0, at, offset_ns as u64);
}

fn apply(
    namespace: &Namespace,
    place: &Place,
    ring: &KeyRing,
    (image, authority): (&Image, Option<&Authority>),
    interfaces: &[&str],
) -> Applied {
    let interfaces: Vec<String> = interfaces.iter().map(|&name| name.to_owned()).collect();
    namespace
        .run(|| {
            publish::apply(&publish::Apply {
                place,
                image,
                interfaces: &interfaces,
                hook: HookChoice::Tcx,
                keys: ring,
                authority,
                set_mtu: false,
                dry_run: false,
            })
        })
        .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

impl Drop for Kernel {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.place.dir());
        let _ = std::fs::remove_dir_all(self.ring.dir());
    }
}
