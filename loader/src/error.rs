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
    /// What would be mounted would go with the process that mounts it.
    #[error(
        "there is no BPF file system at `{0}`, and one that is mounted here ends with this mount namespace"
    )]
    PrivateMounts(PathBuf),
    /// Something else is where a BPF file system should be.
    #[error("`{0}` is no BPF file system, and no empty directory to mount one on")]
    NotBpffs(PathBuf),
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
    /// The instance enforces in another network namespace.
    #[error("instance `{instance}` enforces on interfaces of another network namespace")]
    Elsewhere {
        /// The instance.
        instance: String,
    },
    /// Nothing is pinned for the instance.
    #[error("instance `{0}` holds no policy")]
    NoInstance(String),
    /// The instance went away while somebody looked.
    #[error("instance `{0}` was detached meanwhile")]
    Detached(String),
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
    /// The kernel does not take a program.
    #[error("the kernel refuses program `{program}`")]
    Refused {
        /// Which one.
        program: String,
        /// What the kernel says.
        source: Refusal,
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
    /// A key file that is sealed, and stays so, or cannot be sealed.
    #[error("key file `{path}` is sealed for the node's identity: {why}")]
    KeyFileSealed {
        /// The file.
        path: PathBuf,
        /// What is in the way.
        why: String,
    },
    /// Others may write to the key directory.
    #[error("others may put files into key directory `{path}`: its mode is {mode:04o}")]
    KeyDirectory {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
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
            Self::KernelTooOld { .. } => {
                "govc needs tcx and BPF links: Linux 6.6 or newer.".into()
            }
            Self::Locked(_) => "Wait for it, or look for a govc that hangs.".into(),
            Self::EventsTaken(_) => {
                "Two readers would share the events. Wait for the other `observe` or `top`, or end it.".into()
            }
            Self::Unconfirmed { .. } => {
                "Say `govc confirm` to keep it, or `govc rollback` to return to what was before.".into()
            }
            Self::Elsewhere { instance } => format!(
                "Each network namespace wants an instance of its own: add --instance NAME. If the other one is not wanted any more: govc detach --instance {instance}"
            ),
            Self::NothingToConfirm(_) => {
                "Either it was confirmed, or the time was over and the old policy is back: see `govc status`.".into()
            }
            Self::NoInstance(name) => {
                format!("Put a policy in force first: govc apply POLICY --iface IFACE --instance {name}")
            }
            Self::Detached(_) => "What was read until then is complete. Begin again once a policy is in force.".into(),
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
            Self::KeyFileSealed { .. } => "Name the file with the node's age key: --ring-identity FILE, GOVC_IDENTITY, or a link `identity` in the key directory.".into(),
            Self::KeyDirectory { path, .. } => format!("Take that away, and look whose the rings in it are: chmod go-w {}", path.display()),
            Self::Layout { .. } => {
                "Something else is pinned there: detach the instance with the govc that made it, or use another --instance.".into()
            }
            Self::Netlink { .. } | Self::Image(_) => return None,
            _ => return self.machine_help(),
        })
    }

    /// Likewise, of what the machine and its kernel offer and let this process do.
    fn machine_help(&self) -> Option<String> {
        Some(match self {
            Self::Privileges(_) => PRIVILEGES_HELP.into(),
            Self::NoBpffs { path, .. } => format!("Mount one: mount -t bpf bpf {}", path.display()),
            Self::PrivateMounts(_) => {
                "What is in force would end with this command. Enter the network namespace alone: nsenter \
                 --net=/run/netns/NAME govc ..; or mount a BPF file system outside, mount -t bpf bpf DIR, and say \
                 --bpffs DIR."
                    .into()
            }
            Self::NotBpffs(_) => format!(
                "--bpffs names where the BPF file system is, which is {} mostly.",
                crate::instance::BPFFS
            ),
            Self::Refused { source, .. } => {
                let help = source.error.raw_os_error().and_then(kernel_help).unwrap_or_else(|| {
                    "That is a mistake in govc, or a kernel that it does not know yet: please report both.".into()
                });
                format!("{help} `govc -v` shows all that the verifier says.")
            }
            Self::Bpf { source, .. } => return errno(&**source).and_then(kernel_help),
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                PRIVILEGES_HELP.into()
            }
            _ => return None,
        })
    }
}

/// What the kernel says of a program that it refuses: the last line of its verifier, if that was asked.
#[derive(Debug, Error)]
#[error("{}{error}", .last.as_ref().map(|last| format!("{last}: ")).unwrap_or_default())]
pub struct Refusal {
    last: Option<String>,
    error: io::Error,
}

/// Names what the kernel says of a program; everything that its verifier told is for who wants to hear more.
pub(crate) fn refused(
    program: impl Into<String>,
) -> impl FnOnce(aya::programs::ProgramError) -> LoadError {
    let program = program.into();
    move |error| match error {
        aya::programs::ProgramError::LoadError { io_error: error, verifier_log } => {
            let log = verifier_log.to_string();
            if !log.trim().is_empty() {
                tracing::info!("the verifier about `{program}`:\n{}", log.trim_end());
            }
            LoadError::Refused { program, source: Refusal { last: last_words(&log), error } }
        }
        other => bpf(format!("cannot load program `{program}`"))(other),
    }
}

/// The line of a verifier's log that says why: the last one, but for statistics.
fn last_words(log: &str) -> Option<String> {
    let statistics = ["processed ", "verification time ", "stack depth "];
    let mut lines = log.lines().map(str::trim).filter(|line| !line.is_empty()).rev();
    lines.find(|line| statistics.iter().all(|start| !line.starts_with(start))).map(str::to_owned)
}

/// The number of a kernel's error underneath others.
fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(number) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(number);
        }
        next = error.source();
    }
    None
}

/// What to do about an error of bpf(2).
fn kernel_help(number: i32) -> Option<String> {
    let locked = "/sys/kernel/security/lockdown";
    let locked =
        || std::fs::read_to_string(locked).is_ok_and(|mode| mode.contains("[confidentiality]"));
    Some(match number {
        libc::EPERM | libc::EACCES if locked() => {
            "The kernel is locked down, which keeps programs from reading its memory: start it with \
             lockdown=integrity, or without lockdown."
                .into()
        }
        libc::EPERM | libc::EACCES => format!(
            "{PRIVILEGES_HELP} In a container they have to be those of the machine, not of a user namespace, and its \
             seccomp filter has to let bpf(2) pass."
        ),
        libc::E2BIG => "That is more than fits: use a smaller policy, or a newer kernel, which takes longer programs.".into(),
        libc::ENOMEM => "The kernel has no memory for it: make some free, or raise the limit of this cgroup \
                         (memory.max)."
            .into(),
        _ => return None,
    })
}

/// What it takes to change what is in force.
const PRIVILEGES_HELP: &str = "Run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON.";

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

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "0: R1=ctx() R10=fp0\n; let a = b;\n1: (1f) r2 -= r3\nR2 pointer -= pointer prohibited\n\
                       processed 332 insns (limit 1000000) max_states_per_insn 1 total_states 10\n\n";

    #[test]
    fn a_refusal_is_told_in_a_line() {
        let log = aya_obj::VerifierLog::new(LOG.into());
        let error = io::Error::from_raw_os_error(libc::EACCES);
        let error = aya::programs::ProgramError::LoadError { io_error: error, verifier_log: log };
        let error = refused("govc_tc_ingress")(error);
        assert_eq!(error.to_string(), "the kernel refuses program `govc_tc_ingress`");
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.starts_with("R2 pointer -= pointer prohibited: "), "{source}");
        assert_eq!(source.lines().count(), 1, "{source}");
        let help = error.help().unwrap();
        assert!(help.contains("CAP_PERFMON") && help.contains("govc -v"), "{help}");
        assert_eq!(last_words("processed 1 insns\n"), None);
    }

    #[test]
    fn what_the_kernel_refuses_comes_with_advice() {
        for (number, wanted) in
            [(libc::EPERM, "CAP_BPF"), (libc::E2BIG, "newer kernel"), (libc::ENOMEM, "memory.max")]
        {
            let error = aya::maps::MapError::CreateError {
                name: "TABLES".into(),
                io_error: io::Error::from_raw_os_error(number),
            };
            let help = bpf("cannot make map")(error).help().unwrap();
            assert!(help.contains(wanted), "{help}");
        }
        let other = bpf("cannot")(io::Error::from_raw_os_error(libc::EINVAL));
        assert_eq!(other.help(), None);
        let help = LoadError::Privileges("CAP_BPF").help().unwrap();
        assert!(help.starts_with("Run as root"), "{help}");
    }
}
