//! An instance in a network namespace of its own, asked packet by packet through
//! `BPF_PROG_TEST_RUN`.

use std::{
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aya::{
    TestRun as _, TestRunOptions,
    programs::{SchedClassifier, Xdp},
};
use govc_abi::{event::Event, label::SLOT_NS, names};
use govc_image::Image;
use govc_loader::{
    attach::HookChoice,
    events::Events,
    instance::{BPFFS, Place},
    keyring::{DomainKeys, KeyRing, slot_now},
    publish::{self, Applied},
    status,
};
use govc_netlab::{Namespace, veth};

use crate::reference::Verifier;

static COUNTER: AtomicU32 = AtomicU32::new(0);

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

impl Kernel {
    /// Puts an image in force.
    pub fn new(image: &Image) -> Self {
        let id = format!("test-{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        let place = Place::new(Path::new(BPFFS), &id);
        let ring = KeyRing::new(std::env::temp_dir().join(format!("govc-{id}")));
        for domain in &image.names().domains {
            let keys = DomainKeys::generate(&domain.name, domain.number, 14, 2).expect("keys");
            ring.write(&keys).expect("keys are written");
        }
        let namespace = Namespace::create("subject").expect("namespace");
        let peer = Namespace::create("peer").expect("namespace");
        for quiet in [&namespace, &peer] {
            // Events are to tell about the packets of the test, not about the stack's own.
            let off = || std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
            quiet.run(off).expect("IPv6 is turned off");
        }
        veth(&namespace, "eth0", &peer, "eth0", None).expect("veth");
        let ifindex = namespace.ifindex("eth0").expect("ifindex");
        apply(&namespace, &place, &ring, image, &["eth0", "lo"]);
        status::report_permits(&place, true).expect("flag");
        status::set_event_rate(&place, u32::MAX).expect("rate");
        let programs = Programs::open(&place);
        let events = Events::open(&place).expect("events");
        let keys = ring.list().expect("keys");
        Self { namespace, _peer: peer, place, ring, keys, ifindex, programs, events }
    }

    /// Puts another image in force.
    pub fn apply(&self, image: &Image) -> Applied {
        apply(&self.namespace, &self.place, &self.ring, image, &[])
    }

    /// The key for labels of a domain in this slot, with the epoch modulo 16.
    pub fn key(&self, domain: u16) -> ((u64, u64), u8) {
        let keys = self.keys.iter().find(|keys| keys.number == domain).expect("keys");
        let slot = slot_now();
        let (epoch, entry) =
            keys.entries(slot).find(|(_, entry)| entry.covers(slot)).expect("a key");
        ((entry.k0, entry.k1), epoch as u8)
    }

    /// What verifies labels of a domain now. The kernel's clock may be a tick off ours, so a slot
    /// that begins or ends is waited for: labels at the ends of the window would tell the two
    /// apart.
    pub fn verifier(&self, domain: u16) -> Verifier {
        const MARGIN_NS: u64 = 30_000_000;
        let phase = || {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
            now.as_nanos() as u64 % SLOT_NS
        };
        while !(MARGIN_NS..SLOT_NS - MARGIN_NS).contains(&phase()) {
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

    /// Runs one packet through a program.
    pub fn ask(&mut self, hook: Hook, frame: &[u8]) -> Answer {
        while self.events.next(Duration::ZERO).expect("events").is_some() {}
        let mut out = vec![0; frame.len() + 256];
        let mut context = [0_u8; 192];
        // `ifindex` of struct __sk_buff.
        context[40..44].copy_from_slice(&self.ifindex.to_ne_bytes());
        let programs = &self.programs;
        let result = self.namespace.run(|| {
            let mut options = TestRunOptions::new();
            options.data_in = Some(frame);
            options.data_out = Some(&mut out);
            match hook {
                Hook::Ingress => {
                    options.ctx_in = Some(&context);
                    programs.ingress.test_run(options)
                }
                Hook::Egress => {
                    options.ctx_in = Some(&context);
                    programs.egress.test_run(options)
                }
                Hook::Xdp => programs.xdp.test_run(options),
            }
        });
        let result = result.unwrap_or_else(|error| panic!("{hook:?} {frame:02x?}: {error:?}"));
        let permit = match hook {
            Hook::Ingress | Hook::Egress => result.return_value as i32 == -1,
            Hook::Xdp => result.return_value == 2,
        };
        out.truncate(result.data_size_out as usize);
        Answer { permit, frame: out, event: self.events.next(Duration::ZERO).expect("events") }
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

fn apply(
    namespace: &Namespace,
    place: &Place,
    ring: &KeyRing,
    image: &Image,
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
