//! Hooks: which one an interface gets, and the pinned links that hold the programs there.

use std::{fs, path::PathBuf, time::Duration};

use aya::programs::{
    LinkOrder, TcAttachType, XdpMode,
    links::{FdLink, PinnedLink},
    tc::{SchedClassifierLink, TcAttachOptions},
    xdp::XdpLink,
};
use govc_abi::names;
use serde::Serialize;

use crate::{
    error::{LoadError, bpf, file},
    instance::{Instance, Place},
    link::Link,
    netdev::{self, Netdev},
    set::Set,
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
    /// Its name; empty when it is in another network namespace.
    pub interface: String,
    /// Its index.
    pub index: u32,
    /// The hook on the ingress side: `xdp` or `tcx`.
    pub ingress: String,
    /// Why that one.
    pub why: String,
}

const KIND_INGRESS: &str = "ingress";
const KIND_EGRESS: &str = "egress";
const KIND_XDP: &str = "xdp";

/// Where a link is pinned. The namespace is part of it: indices are unique in one only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LinkPin {
    kind: String,
    /// Inode of the network namespace.
    namespace: u64,
    index: u32,
}

impl LinkPin {
    fn new(kind: &str, index: u32) -> Result<Self, LoadError> {
        Ok(Self { kind: kind.into(), namespace: netdev::namespace()?, index })
    }

    fn path(&self, place: &Place) -> PathBuf {
        place.pin(&format!("link-{}-{}-{}", self.kind, self.namespace, self.index))
    }

    fn parse(name: &str) -> Option<Self> {
        let (rest, index) = name.strip_prefix("link-")?.rsplit_once('-')?;
        let (kind, namespace) = rest.rsplit_once('-')?;
        let (namespace, index) = (namespace.parse().ok()?, index.parse().ok()?);
        Some(Self { kind: kind.into(), namespace, index })
    }

    /// Whether it holds a program at an interface. A pin may outlive the interface, and its name
    /// may fit another interface by then.
    fn is_attached(&self, place: &Place) -> bool {
        Link::open(&self.path(place)).and_then(|link| link.ifindex()).is_ok_and(|index| index != 0)
    }

    fn detach(&self, place: &Place) -> Result<(), LoadError> {
        let path = self.path(place);
        if let Ok(link) = Link::open(&path)
            && let Err(error) = link.detach()
        {
            // The interface may have gone, and the program with it.
            tracing::debug!(path = %path.display(), %error, "link was not attached");
        }
        crate::instance::remove_pin(&path)
    }
}

/// Attaches the programs to an interface, unless they are attached already. Tells whether they
/// were not.
///
/// # Errors
/// The kernel refuses; nothing stays attached halfway on this interface.
pub fn attach(instance: &Instance, device: &Netdev, choice: HookChoice) -> Result<bool, LoadError> {
    let place = &instance.place;
    let missing = |kind: &str| -> Result<bool, LoadError> {
        let pin = LinkPin::new(kind, device.index)?;
        if pin.is_attached(place) {
            return Ok(false);
        }
        crate::instance::remove_pin(&pin.path(place))?;
        Ok(true)
    };
    // Egress first: a label that is due must be there before the other side insists on it.
    let new_egress = missing(KIND_EGRESS)?;
    if new_egress {
        attach_tcx(instance, device, KIND_EGRESS)?;
    }
    if !(missing(KIND_INGRESS)? && missing(KIND_XDP)?) {
        return Ok(new_egress);
    }
    let result = match choice {
        HookChoice::Tcx => attach_tcx(instance, device, KIND_INGRESS),
        HookChoice::Xdp => attach_xdp(instance, device),
        HookChoice::Auto if device.kind.is_some() => attach_tcx(instance, device, KIND_INGRESS),
        HookChoice::Auto => match attach_xdp(instance, device) {
            Err(LoadError::XdpUnsupported { .. }) => attach_tcx(instance, device, KIND_INGRESS),
            other => other,
        },
    };
    if result.is_err() && new_egress {
        LinkPin::new(KIND_EGRESS, device.index)?.detach(place)?;
    }
    result.map(|()| true)
}

fn attach_tcx(instance: &Instance, device: &Netdev, kind: &str) -> Result<(), LoadError> {
    let (name, hook, order) = if kind == KIND_EGRESS {
        (names::program::TC_EGRESS, TcAttachType::Egress, LinkOrder::last())
    } else {
        (names::program::TC_INGRESS, TcAttachType::Ingress, LinkOrder::first())
    };
    let what = format!("cannot attach to the tcx {kind} hook of `{}`", device.name);
    let mut program = instance.set.classifier(name)?;
    let id = program
        .attach_with_options(&device.name, hook, TcAttachOptions::TcxOrder(order))
        .map_err(bpf(what.clone()))?;
    let link: FdLink =
        program.take_link(id).map_err(bpf(what.clone()))?.try_into().map_err(bpf(what))?;
    pin_link(link, &instance.place, kind, device.index)
}

fn attach_xdp(instance: &Instance, device: &Netdev) -> Result<(), LoadError> {
    let what = format!("cannot attach to the XDP hook of `{}`", device.name);
    let mut program = instance.set.xdp()?;
    let id = match program.attach_to_if_index(device.index, XdpMode::Driver) {
        Ok(id) => id,
        Err(error) => return Err(explain_xdp(error, device, what)),
    };
    let link: FdLink =
        program.take_link(id).map_err(bpf(what.clone()))?.try_into().map_err(bpf(what))?;
    pin_link(link, &instance.place, KIND_XDP, device.index)
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
    let path = LinkPin::new(kind, index)?.path(place);
    link.pin(&path).map(drop).map_err(bpf(format!("cannot pin link `{}`", path.display())))
}

/// Moves all links to the programs of a set.
///
/// # Errors
/// A link cannot be updated; those before it have been.
pub(crate) fn refresh(place: &Place, set: &Set) -> Result<(), LoadError> {
    for pin in pinned_links(place)? {
        if !pin.is_attached(place) {
            continue;
        }
        let path = pin.path(place);
        let what = format!("cannot update link `{}`", path.display());
        let link = FdLink::from(PinnedLink::from_pin(&path).map_err(bpf(what.clone()))?);
        if pin.kind == KIND_XDP {
            let link: XdpLink = link.try_into().map_err(bpf(what.clone()))?;
            set.xdp()?.attach_to_link(link).map_err(bpf(what))?;
        } else {
            let name = if pin.kind == KIND_EGRESS {
                names::program::TC_EGRESS
            } else {
                names::program::TC_INGRESS
            };
            let link: SchedClassifierLink = link.try_into().map_err(bpf(what.clone()))?;
            set.classifier(name)?.attach_to_link(link).map_err(bpf(what))?;
        }
    }
    Ok(())
}

/// Detaches from an interface of this network namespace.
///
/// # Errors
/// A pin cannot be removed.
pub fn detach(place: &Place, index: u32) -> Result<(), LoadError> {
    for kind in [KIND_INGRESS, KIND_XDP, KIND_EGRESS] {
        LinkPin::new(kind, index)?.detach(place)?;
    }
    Ok(())
}

/// Detaches from all interfaces, those of other network namespaces as well.
///
/// # Errors
/// A pin cannot be removed.
pub fn detach_all(place: &Place) -> Result<(), LoadError> {
    pinned_links(place)?.iter().try_for_each(|pin| pin.detach(place))
}

fn pinned_links(place: &Place) -> Result<Vec<LinkPin>, LoadError> {
    let entries = fs::read_dir(place.dir()).map_err(file("cannot list pins", place.dir()))?;
    let mut links: Vec<LinkPin> =
        entries.flatten().filter_map(|entry| LinkPin::parse(entry.file_name().to_str()?)).collect();
    links.sort_unstable();
    Ok(links)
}

/// How long to wait for a network namespace that is about to go, in looks.
const LOOKS: u32 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Makes sure that an instance enforces in no other network namespace than this one: what hooks know about
/// interfaces is found by index, which is unique in one only. A container that starts anew leaves pins behind and a
/// namespace that the kernel is still taking down, which is waited for.
///
/// # Errors
/// It does; pins cannot be listed.
pub(crate) fn refuse_elsewhere(place: &Place) -> Result<(), LoadError> {
    if !place.dir().exists() {
        return Ok(());
    }
    let here = netdev::namespace()?;
    for _ in 0..LOOKS {
        let elsewhere = |pin: &LinkPin| pin.namespace != here && pin.is_attached(place);
        if !pinned_links(place)?.iter().any(elsewhere) {
            return Ok(());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(LoadError::Elsewhere { instance: place.name().into() })
}

/// The interfaces that an instance enforces on, by index.
///
/// # Errors
/// Pins or interfaces cannot be listed.
pub fn attached(place: &Place) -> Result<Vec<Attached>, LoadError> {
    let devices = netdev::list()?;
    let here = netdev::namespace()?;
    let mut links = pinned_links(place)?;
    links.retain(|link| link.is_attached(place));
    let mut ends: Vec<(u64, u32)> = links.iter().map(|link| (link.namespace, link.index)).collect();
    ends.sort_unstable();
    ends.dedup();
    let describe = |(namespace, index)| {
        let local = devices.iter().find(|device| device.index == index && namespace == here);
        let xdp = links.iter().any(|link| {
            link.kind == KIND_XDP && link.index == index && link.namespace == namespace
        });
        let why = match local.map(|device| device.kind.as_deref()) {
            None => "in another network namespace".to_owned(),
            Some(_) if xdp => "native XDP, before GRO".to_owned(),
            Some(Some(kind)) => format!("{kind}: XDP would turn segmentation offload off"),
            Some(None) => "the driver has no native XDP".to_owned(),
        };
        Attached {
            interface: local.map(|device| device.name.clone()).unwrap_or_default(),
            index,
            ingress: if xdp { "xdp" } else { "tcx" }.to_owned(),
            why,
        }
    };
    Ok(ends.into_iter().map(describe).collect())
}
