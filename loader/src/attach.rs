//! Hooks: which one an interface gets, and the pinned links that hold the programs there.

use std::{fs, path::PathBuf};

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType, Xdp, XdpMode,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
    xdp::XdpLink,
};
use govc_abi::names;
use serde::Serialize;

use crate::{
    error::{LoadError, bpf, file},
    instance::{Instance, Place},
    netdev::{self, Netdev},
};

/// Which hook takes the ingress side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum HookChoice {
    /// Native XDP on hardware, tcx on virtual devices.
    #[default]
    Auto,
    /// Native XDP.
    Xdp,
    /// tcx.
    Tcx,
}

/// An interface that an instance enforces on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// Its name; empty when it has gone.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// The hook on the ingress side: `xdp` or `tcx`.
    pub ingress: String,
    /// Why that one.
    pub why: String,
}

fn link_pin(place: &Place, kind: &str, index: u32) -> PathBuf {
    place.pin(&format!("link-{kind}-{index}"))
}

const KIND_INGRESS: &str = "ingress";
const KIND_EGRESS: &str = "egress";
const KIND_XDP: &str = "xdp";

/// Attaches the pinned programs to an interface, unless they are attached already.
///
/// # Errors
/// The kernel refuses; nothing stays attached halfway on this interface.
pub fn attach(instance: &Instance, device: &Netdev, choice: HookChoice) -> Result<(), LoadError> {
    let place = &instance.place;
    // Egress first: a label that is due must be there before the other side insists on it.
    if !link_pin(place, KIND_EGRESS, device.index).exists() {
        attach_tcx(place, device, KIND_EGRESS)?;
    }
    let has_ingress =
        [KIND_INGRESS, KIND_XDP].iter().any(|k| link_pin(place, k, device.index).exists());
    if has_ingress {
        return Ok(());
    }
    let result = match choice {
        HookChoice::Tcx => attach_tcx(place, device, KIND_INGRESS),
        HookChoice::Xdp => attach_xdp(place, device),
        HookChoice::Auto if device.kind.is_some() => attach_tcx(place, device, KIND_INGRESS),
        HookChoice::Auto => match attach_xdp(place, device) {
            Err(LoadError::XdpUnsupported { .. }) => attach_tcx(place, device, KIND_INGRESS),
            other => other,
        },
    };
    if result.is_err() {
        let _ = fs::remove_file(link_pin(place, KIND_EGRESS, device.index));
    }
    result
}

fn attach_tcx(place: &Place, device: &Netdev, kind: &str) -> Result<(), LoadError> {
    let (name, hook, order) = if kind == KIND_EGRESS {
        (names::program::TC_EGRESS, TcAttachType::Egress, LinkOrder::last())
    } else {
        (names::program::TC_INGRESS, TcAttachType::Ingress, LinkOrder::first())
    };
    let what = format!("cannot attach to the tcx {kind} hook of `{}`", device.name);
    let mut program = SchedClassifier::from_pin(place.pin(name)).map_err(bpf(what.clone()))?;
    let id = program
        .attach_with_options(&device.name, hook, TcAttachOptions::TcxOrder(order))
        .map_err(bpf(what.clone()))?;
    let link: FdLink =
        program.take_link(id).map_err(bpf(what.clone()))?.try_into().map_err(bpf(what.clone()))?;
    pin_link(link, place, kind, device.index)
}

fn attach_xdp(place: &Place, device: &Netdev) -> Result<(), LoadError> {
    let what = format!("cannot attach to the XDP hook of `{}`", device.name);
    let path = place.pin(names::program::XDP_INGRESS);
    let mut program = Xdp::from_pin(path, aya_obj::programs::XdpAttachType::Interface)
        .map_err(bpf(what.clone()))?;
    let id = match program.attach_to_if_index(device.index, XdpMode::Driver) {
        Ok(id) => id,
        Err(error) => return Err(explain_xdp(error, device, what)),
    };
    let link: FdLink =
        program.take_link(id).map_err(bpf(what.clone()))?.try_into().map_err(bpf(what))?;
    pin_link(link, place, KIND_XDP, device.index)
}

fn explain_xdp(error: aya::programs::ProgramError, device: &Netdev, what: String) -> LoadError {
    let errno = match &error {
        aya::programs::ProgramError::SyscallError(syscall) => syscall.io_error.raw_os_error(),
        _ => None,
    };
    let interface = device.name.clone();
    match errno {
        Some(libc::EBUSY | libc::EEXIST) => LoadError::XdpBusy { interface },
        Some(libc::EOPNOTSUPP) => LoadError::XdpUnsupported { interface },
        _ => bpf(what)(error),
    }
}

fn pin_link(link: FdLink, place: &Place, kind: &str, index: u32) -> Result<(), LoadError> {
    let path = link_pin(place, kind, index);
    link.pin(&path).map(drop).map_err(bpf(format!("cannot pin link `{}`", path.display())))
}

/// Moves all links to the programs that are pinned now.
///
/// # Errors
/// A link cannot be updated; those before it have been.
pub fn refresh(place: &Place) -> Result<(), LoadError> {
    for (kind, index) in pinned_links(place)? {
        let path = link_pin(place, &kind, index);
        let what = format!("cannot update link `{}`", path.display());
        let link = FdLink::from(PinnedLink::from_pin(&path).map_err(bpf(what.clone()))?);
        if kind == KIND_XDP {
            let program = place.pin(names::program::XDP_INGRESS);
            let mut program = Xdp::from_pin(program, aya_obj::programs::XdpAttachType::Interface)
                .map_err(bpf(what.clone()))?;
            let link: XdpLink = link.try_into().map_err(bpf(what.clone()))?;
            program.attach_to_link(link).map_err(bpf(what))?;
        } else {
            let name = if kind == KIND_EGRESS {
                names::program::TC_EGRESS
            } else {
                names::program::TC_INGRESS
            };
            let mut program =
                SchedClassifier::from_pin(place.pin(name)).map_err(bpf(what.clone()))?;
            let link: SchedClassifierLink = link.try_into().map_err(bpf(what.clone()))?;
            program.attach_to_link(link).map_err(bpf(what))?;
        }
    }
    Ok(())
}

/// Detaches from an interface.
///
/// # Errors
/// A pin cannot be removed.
pub fn detach(place: &Place, index: u32) -> Result<(), LoadError> {
    for kind in [KIND_INGRESS, KIND_XDP, KIND_EGRESS] {
        crate::instance::remove_pin(&link_pin(place, kind, index))?;
    }
    Ok(())
}

fn pinned_links(place: &Place) -> Result<Vec<(String, u32)>, LoadError> {
    let entries = fs::read_dir(place.dir()).map_err(file("cannot list pins", place.dir()))?;
    let mut links: Vec<(String, u32)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let (kind, index) = name.to_str()?.strip_prefix("link-")?.rsplit_once('-')?;
            Some((kind.to_owned(), index.parse().ok()?))
        })
        .collect();
    links.sort_unstable();
    Ok(links)
}

/// The interfaces that an instance enforces on, by index.
///
/// # Errors
/// Pins or interfaces cannot be listed.
pub fn attached(place: &Place) -> Result<Vec<Attached>, LoadError> {
    let devices = netdev::list()?;
    let links = pinned_links(place)?;
    let mut indices: Vec<u32> = links.iter().map(|(_, index)| *index).collect();
    indices.sort_unstable();
    indices.dedup();
    Ok(indices
        .into_iter()
        .map(|index| {
            let device = devices.iter().find(|device| device.index == index);
            let xdp = links.iter().any(|(kind, i)| kind == KIND_XDP && *i == index);
            let why = match device.and_then(|device| device.kind.as_deref()) {
                None if device.is_none() => "the interface has gone".to_owned(),
                Some(kind) if !xdp => format!("{kind}: XDP would turn segmentation offload off"),
                _ if xdp => "native XDP, before GRO".to_owned(),
                _ => "the driver has no native XDP".to_owned(),
            };
            Attached {
                interface: device.map(|device| device.name.clone()).unwrap_or_default(),
                index,
                ingress: if xdp { "xdp" } else { "tcx" }.to_owned(),
                why,
            }
        })
        .collect())
}
