//! Enforcement points with generated policies, whose pins and keys go with them.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use aya::programs::{SchedClassifier, Xdp};
use govc_abi::names;
use govc_image::Image;
use govc_loader::{
    attach::HookChoice,
    instance::{BPFFS, Place},
    keyring::{DomainKeys, KeyRing},
    publish::{self, Applied},
    status,
};
use govc_netlab::Namespace;

use crate::{error::BenchError, interrupt, policy::DOMAIN};

/// Instances are called so, with the process and a number behind it.
const PREFIX: &str = "bench-";
/// So many events in a second come to none in any tenth of it. None would mean the default.
const EVENT_RATE: u32 = 1;
/// A publication this soon after another one waits for readers of the buffer that it fills.
const SETTLED: Duration = Duration::from_millis(1050);

static COUNTER: AtomicU32 = AtomicU32::new(0);

fn unique() -> String {
    format!("{PREFIX}{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Keys of the benchmark's domain, in files that go with them.
pub struct Keys {
    /// The keys.
    pub domain: DomainKeys,
    ring: KeyRing,
}

impl Keys {
    /// New ones, for all instances whose labels each other is to believe.
    pub fn new() -> Result<Arc<Self>, BenchError> {
        let ring = KeyRing::new(std::env::temp_dir().join(format!("govc-{}", unique())));
        let domain = DomainKeys::generate("bench", DOMAIN, 14, 2)?;
        let keys = Self { domain, ring };
        keys.ring.write(&keys.domain)?;
        Ok(Arc::new(keys))
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.ring.dir());
    }
}

/// A policy in force in a namespace.
pub struct Instance {
    /// The namespace.
    pub namespace: Namespace,
    /// Keys of its domain.
    pub keys: Arc<Keys>,
    /// The tcx program for arriving packets.
    pub tc: SchedClassifier,
    /// The XDP program.
    pub xdp: Xdp,
    pins: Pins,
}

/// What is to be removed whatever happens.
struct Pins(Place);

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.0.dir());
    }
}

/// Where a policy is enforced, and how packets get there.
#[derive(Clone, Copy)]
pub struct Site<'a> {
    /// Namespace of the interfaces.
    pub namespace: &'a Namespace,
    /// The interfaces.
    pub interfaces: &'a [&'a str],
    /// The hook for arriving packets.
    pub hook: HookChoice,
}

impl Instance {
    /// Puts an image in force on the loopback device of a new namespace.
    pub fn new(image: &Image) -> Result<Self, BenchError> {
        let namespace = &Namespace::create("bench")?;
        let site = Site { namespace, interfaces: &["lo"], hook: HookChoice::Tcx };
        Self::at(site, image, &Keys::new()?)
    }

    /// Puts an image in force; where routes lead over the interfaces, they leave room for labels.
    pub fn at(site: Site<'_>, image: &Image, keys: &Arc<Keys>) -> Result<Self, BenchError> {
        let pins = Pins(Place::new(Path::new(BPFFS), &unique()));
        let interfaces: Vec<String> = site.interfaces.iter().map(|&name| name.to_owned()).collect();
        apply(site.namespace, &pins.0, keys, image, (&interfaces, site.hook))?;
        let set = pins.0.set()?;
        Ok(Self {
            tc: set.classifier(names::program::TC_INGRESS)?,
            xdp: set.xdp()?,
            namespace: Namespace::clone(site.namespace),
            keys: Arc::clone(keys),
            pins,
        })
    }

    /// Its pins.
    pub fn place(&self) -> &Place {
        &self.pins.0
    }

    /// Puts an image in force again: nothing is loaded, the idle buffer is filled and the
    /// generation flipped.
    pub fn publish(&self, image: &Image) -> Result<Applied, BenchError> {
        apply(&self.namespace, &self.pins.0, &self.keys, image, (&[], HookChoice::Tcx))
    }

    /// Packets by reason since it began, without events.
    pub fn reasons(&self) -> Result<Vec<status::ReasonCount>, BenchError> {
        // The interfaces belong to the namespace.
        Ok(self.namespace.try_run(|| status::status(&self.pins.0))??.reasons)
    }

    /// Packets at one hook for one reason since it began.
    pub fn count(&self, hook: &str, reason: &str) -> Result<u64, BenchError> {
        let reasons = self.reasons()?;
        let wanted = reasons.iter().filter(|one| one.hook == hook && one.reason == reason);
        Ok(wanted.map(|one| one.packets).sum())
    }
}

fn apply(
    namespace: &Namespace,
    place: &Place,
    keys: &Keys,
    image: &Image,
    (interfaces, hook): (&[String], HookChoice),
) -> Result<Applied, BenchError> {
    let request = publish::Apply {
        place,
        image,
        interfaces,
        hook,
        keys: &keys.ring,
        authority: None,
        set_mtu: interfaces.iter().any(|name| name != "lo"),
        dry_run: false,
    };
    let applied = namespace.try_run(|| publish::apply(&request))??;
    status::set_event_rate(place, EVENT_RATE)?;
    Ok(applied)
}

/// Waits until nothing of an earlier publication is in the way of the next one.
pub fn settle() -> Result<(), BenchError> {
    std::thread::sleep(SETTLED);
    interrupt::check()
}

/// Removes what benchmarks have left that were killed.
pub fn remove_leftovers() {
    let root = Place::new(Path::new(BPFFS), PREFIX);
    let pins = root.dir().parent().map(Path::to_path_buf);
    for dir in [pins, Some(std::env::temp_dir())].into_iter().flatten() {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_str().unwrap_or_default();
            let id = name.strip_prefix("govc-").unwrap_or(name);
            let process = id.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            let number: Option<u32> = process.and_then(|process| process.parse().ok());
            if number.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}
