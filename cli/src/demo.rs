//! `demo`: the whole thing on real packets, in network namespaces of its own.
//!
//! A router joins four networks: an API, a ledger, a guest, and a stranger who has no govc. The
//! three workloads enforce `examples/policies/demo/`; the router knows nothing of labels.

mod network;
mod story;

use std::{path::PathBuf, sync::OnceLock};

use govc_loader::instance::{BPFFS, Place};

use crate::{arguments::Demo, failure::Failure, output::Style};

/// What has to be removed when the process ends in any way: namespaces go by themselves.
struct Leftovers {
    places: Vec<Place>,
    keys: PathBuf,
}

static LEFTOVERS: OnceLock<Leftovers> = OnceLock::new();

/// Prefix of the demonstration's instances; the process id follows.
const INSTANCE_PREFIX: &str = "demo-";

impl Leftovers {
    fn remove(&self) {
        for place in &self.places {
            let _ = std::fs::remove_dir_all(place.dir());
        }
        let _ = std::fs::remove_dir_all(&self.keys);
    }
}

/// Removes what is left when the demonstration ends well or fails.
struct Cleanup;

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Some(leftovers) = LEFTOVERS.get() {
            leftovers.remove();
        }
    }
}

pub fn run(arguments: &Demo, style: &Style) -> Result<(), Failure> {
    govc_netlab::require_root()?;
    govc_loader::kernel::check()?;
    remove_orphans();
    let id = std::process::id();
    let place = |who: &str| Place::new(BPFFS.as_ref(), &format!("{INSTANCE_PREFIX}{id}-{who}"));
    let leftovers = LEFTOVERS.get_or_init(|| Leftovers {
        places: network::WORKLOADS.iter().map(|who| place(who)).collect(),
        keys: std::env::temp_dir().join(format!("govc-demo-{id}")),
    });
    let _cleanup = Cleanup;
    ctrlc::set_handler(|| {
        if let Some(leftovers) = LEFTOVERS.get() {
            leftovers.remove();
        }
        std::process::exit(130);
    })
    .map_err(|e| Failure::Machine {
        message: format!("cannot watch for signals: {e}"),
        help: None,
    })?;
    let network = network::Network::build(&leftovers.places, &leftovers.keys)?;
    story::tell(&network, arguments.quiet, style)
}

/// Removes the pins of demonstrations that were killed.
fn remove_orphans() {
    let root = PathBuf::from(BPFFS).join(govc_abi::names::PIN_ROOT);
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| {
            name.strip_prefix(INSTANCE_PREFIX)?.split('-').next()?.parse::<u32>().ok()
        });
        if process.is_some_and(|id| !PathBuf::from(format!("/proc/{id}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
