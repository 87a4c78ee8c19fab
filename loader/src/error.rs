//! What can go wrong in the kernel, with what to do about it.

use std::{io, path::PathBuf};

use govc_abi::limits::GRANTS_HELD_MAX;
use thiserror::Error;

/// An operation on the kernel failed; whatever was in force before still is.
#[derive(Debug, Error)]
pub enum LoadError {
    /// Not root, or capabilities dropped.
    #[error("missing privileges: {0}")]
    Privileges(&'static str),
    /// Older than tcx.
    #[error("kernel {found} is too old")]
    KernelTooOld {
        /// `uname -r`
        found: String,
    },
    /// bpffs is neither mounted nor can be.
    #[error("there is no BPF file system at `{path}`")]
    NoBpffs {
        /// Where it was looked for.
        path: PathBuf,
        /// Why mounting failed.
        source: io::Error,
    },
    /// Another process changes the instance.
    #[error("another govc is changing instance `{0}`")]
    Locked(String),
    /// Another process reads the instance's events, of which there is one ring.
    #[error("another govc is reading the events of instance `{0}`")]
    EventsTaken(String),
    /// A policy waits to be confirmed.
    #[error("what was applied to instance `{instance}` waits to be confirmed")]
    Unconfirmed {
        /// The instance.
        instance: String,
    },
    /// Nothing waits to be confirmed.
    #[error("nothing in instance `{0}` waits to be confirmed")]
    NothingToConfirm(String),
    /// Nothing is pinned for the instance.
    #[error("instance `{0}` holds no policy")]
    NoInstance(String),
    /// No cgroup2 hierarchy is mounted.
    #[error("no cgroup2 hierarchy is mounted")]
    NoCgroups,
    /// The policy in force lets nobody be run like that.
    #[error("{what}")]
    NotGranted {
        /// What is missing.
        what: String,
        /// For whom.
        subject: String,
        /// The pattern that a stamp rule would have to name.
        cgroups: String,
    },
    /// Policies change faster than they can be read.
    #[error("instance `{0}` changes faster than it can be read")]
    Restless(String),
    /// The instance has no older generation to return to.
    #[error("instance `{0}` holds no earlier generation")]
    NoEarlierGeneration(String),
    /// The interface does not exist in this network namespace.
    #[error("there is no interface `{0}`")]
    NoInterface(String),
    /// The interface index belongs to more interfaces than the open hash can hold.
    #[error("too many interfaces: `{0}` finds no slot")]
    TooManyInterfaces(String),
    /// More grants than a generation can name.
    #[error("the policy is held to {0} grants, more than {GRANTS_HELD_MAX}")]
    TooManyGrants(usize),
    /// The MTU leaves no room for a label.
    #[error("interface `{interface}` has an MTU of {mtu}, which leaves no room for a label")]
    MtuTooSmall {
        /// The interface.
        interface: String,
        /// Its MTU.
        mtu: u32,
        /// Bytes that a label takes.
        overhead: u32,
    },
    /// Another XDP program sits on the interface.
    #[error("the XDP hook of `{interface}` is taken by another program")]
    XdpBusy {
        /// The interface.
        interface: String,
    },
    /// The driver has no native XDP.
    #[error("the driver of `{interface}` has no native XDP")]
    XdpUnsupported {
        /// The interface.
        interface: String,
    },
    /// The policy tells senders or puts packets into quarantine, which XDP cannot.
    #[error(
        "the policy rejects packets or puts them into quarantine, and `{interface}` has the XDP hook"
    )]
    AnswersOnXdp {
        /// The interface.
        interface: String,
    },
    /// The XDP hook does not look into tunnels.
    #[error(
        "the policy has labels that ride in tunnels, and `{interface}` is on the XDP hook, which does not look into them"
    )]
    TunnelsOnXdp {
        /// The interface.
        interface: String,
    },
    /// Packets in quarantine would be decided again where they leave.
    #[error(
        "zone `{zone}` keeps packets in quarantine, and this instance enforces on its interface `{interface}`"
    )]
    QuarantineEnforced {
        /// The zone.
        zone: String,
        /// Its interface.
        interface: String,
    },
    /// The policy names a domain without keys.
    #[error("there is no key for domain `{0}`")]
    NoKey(String),
    /// What was read back from the kernel is not what was written.
    #[error("the kernel holds other bytes than were written: digest {found}, wanted {wanted}")]
    ReadBack {
        /// Digest of what was read.
        found: String,
        /// Digest of the image.
        wanted: String,
    },
    /// A pinned map of another layout.
    #[error("pinned map `{map}` has another layout than this version's")]
    Layout {
        /// The map.
        map: &'static str,
    },
    /// A bpf(2) operation.
    #[error("{what}")]
    Bpf {
        /// What was tried.
        what: String,
        /// The error underneath.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A netlink operation.
    #[error("{what}")]
    Netlink {
        /// What was tried.
        what: String,
        /// The error underneath.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file operation.
    #[error("{what}: `{path}`")]
    File {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The error underneath.
        source: io::Error,
    },
    /// A key file that is not one.
    #[error("key file `{path}` cannot be read: {why}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An image in the kernel that this tool cannot read.
    #[error("the image in the kernel cannot be read")]
    Image(#[from] govc_image::ImageError),
}

impl LoadError {
    /// A sentence that says what to do.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Privileges(_) => "Run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN.".into(),
            Self::KernelTooOld { .. } => {
                "govc needs tcx and BPF links: Linux 6.6 or newer.".into()
            }
            Self::NoBpffs { path, .. } => format!("Mount one: mount -t bpf bpf {}", path.display()),
            Self::Locked(_) => "Wait for it, or look for a govc that hangs.".into(),
            Self::EventsTaken(_) => {
                "Two readers would share the events. Wait for the other `observe` or `top`, or end it.".into()
            }
            Self::Unconfirmed { .. } => {
                "Say `govc confirm` to keep it, or `govc rollback` to return to what was before.".into()
            }
            Self::NothingToConfirm(_) => {
                "Either it was confirmed, or the time was over and the old policy is back: see `govc status`.".into()
            }
            Self::NoInstance(name) => {
                format!("Put a policy in force first: govc apply POLICY --iface IFACE --instance {name}")
            }
            Self::NoCgroups => "Mount it: mount -t cgroup2 none /sys/fs/cgroup".into(),
            Self::NotGranted { subject, cgroups, .. } => format!(
                "Say so in the node's policy: stamp on ZONE when cgroup \"{cgroups}\" {{ subject {subject}  operation .. }}"
            ),
            Self::Restless(_) => "Try again when fewer policies are being applied.".into(),
            Self::NoEarlierGeneration(_) => {
                "Only the generation before the one in force is kept; apply the policy you want.".into()
            }
            Self::NoInterface(_) => "List interfaces with `govc status --interfaces`; names are those of this network namespace.".into(),
            Self::TooManyInterfaces(_) => format!(
                "One instance enforces on up to {} interfaces; use --instance for a second one.",
                govc_abi::limits::INTERFACES_MAX
            ),
            Self::TooManyGrants(_) => {
                "Ask for fewer grants that cover more, and let mappings end together.".into()
            }
            Self::MtuTooSmall { overhead, .. } => format!(
                "A label takes {overhead} bytes and IPv6 wants 1280 besides: raise the MTU to at least {}.",
                1280 + overhead
            ),
            Self::XdpBusy { interface } => format!(
                "Detach the other program, or take the tcx hook: govc apply --iface {interface} --hook tcx"
            ),
            Self::XdpUnsupported { interface } => {
                format!("Use the tcx hook: govc apply --iface {interface} --hook tcx")
            }
            Self::AnswersOnXdp { interface } | Self::TunnelsOnXdp { interface } => format!(
                "Take the tcx hook: govc detach --iface {interface}, then govc apply --iface {interface} --hook tcx"
            ),
            Self::QuarantineEnforced { .. } => {
                "Quarantine wants an interface of its own, such as one end of a veth pair: give it another zone.".into()
            }
            Self::NoKey(domain) => format!("Make one: govc keys new {domain}"),
            Self::ReadBack { .. } => "The running policy is untouched. Try again; if it happens twice, report it.".into(),
            Self::KeyFile { .. } => "Restore it from where it was made, or make a new ring with `govc keys new`; nodes need the same keys.".into(),
            Self::Layout { .. } => {
                "Something else is pinned there: detach the instance with the govc that made it, or use another --instance.".into()
            }
            Self::Bpf { .. } | Self::Netlink { .. } | Self::File { .. } | Self::Image(_) => return None,
        })
    }
}

/// Shorthand for errors of bpf(2).
pub(crate) fn bpf<E>(what: impl Into<String>) -> impl FnOnce(E) -> LoadError
where
    E: std::error::Error + Send + Sync + 'static,
{
    let what = what.into();
    move |source| LoadError::Bpf { what, source: Box::new(source) }
}

/// Shorthand for errors of netlink.
pub(crate) fn netlink<E>(what: impl Into<String>) -> impl FnOnce(E) -> LoadError
where
    E: std::error::Error + Send + Sync + 'static,
{
    let what = what.into();
    move |source| LoadError::Netlink { what, source: Box::new(source) }
}

/// Shorthand for errors of files.
pub(crate) fn file(
    what: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> LoadError {
    let path = path.into();
    move |source| LoadError::File { what, path, source }
}
