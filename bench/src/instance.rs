//! The enforcement point with a generated policy, in a namespace of its own.

use std::{path::Path, time::Duration};

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

/// A policy in force on the loopback device of a namespace.
pub struct Instance {
    /// The namespace.
    pub namespace: Namespace,
    /// Keys of its domain.
    pub keys: DomainKeys,
    /// The tcx program for arriving packets.
    pub tc: SchedClassifier,
    /// The XDP program.
    pub xdp: Xdp,
    pins: Pins,
}

/// What is to be removed whatever happens.
struct Pins {
    place: Place,
    ring: KeyRing,
}

impl Drop for Pins {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(self.place.dir());
        let _ = std::fs::remove_dir_all(self.ring.dir());
    }
}

impl Instance {
    /// Puts an image in force.
    pub fn new(image: &Image, number: usize) -> Result<Self, BenchError> {
        let id = format!("{PREFIX}{}-{number}", std::process::id());
        let place = Place::new(Path::new(BPFFS), &id);
        let ring = KeyRing::new(std::env::temp_dir().join(format!("govc-{id}")));
        let pins = Pins { place, ring };
        let keys = DomainKeys::generate("bench", DOMAIN, 14, 2)?;
        pins.ring.write(&keys)?;
        let namespace = Namespace::create("bench")?;
        apply(&namespace, &pins, image, &["lo".to_owned()])?;
        let set = pins.place.set()?;
        Ok(Self {
            tc: set.classifier(names::program::TC_INGRESS)?,
            xdp: set.xdp()?,
            namespace,
            keys,
            pins,
        })
    }

    /// Its pins.
    pub fn place(&self) -> &Place {
        &self.pins.place
    }

    /// Puts an image in force again: nothing is loaded, the idle buffer is filled and the
    /// generation flipped.
    pub fn publish(&self, image: &Image) -> Result<Applied, BenchError> {
        apply(&self.namespace, &self.pins, image, &[])
    }

    /// Packets by reason since it began, without events.
    pub fn reasons(&self) -> Result<Vec<status::ReasonCount>, BenchError> {
        // The interfaces belong to the namespace.
        Ok(self.namespace.try_run(|| status::status(&self.pins.place))??.reasons)
    }
}

fn apply(
    namespace: &Namespace,
    pins: &Pins,
    image: &Image,
    interfaces: &[String],
) -> Result<Applied, BenchError> {
    let request = publish::Apply {
        place: &pins.place,
        image,
        interfaces,
        hook: HookChoice::Tcx,
        keys: &pins.ring,
        set_mtu: false,
        dry_run: false,
    };
    let applied = namespace.try_run(|| publish::apply(&request))??;
    status::set_event_rate(&pins.place, EVENT_RATE)?;
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
