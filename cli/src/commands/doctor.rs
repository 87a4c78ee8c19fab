//! `doctor`: whether this machine is fit for enforcement, and what to do where it is not.

use govc_loader::{
    LoadError, attach, cgroup,
    instance::{Bpffs, Instance, Place},
    kernel,
    keyring::{KeyRing, slot_now},
    netdev::{self, Netdev, Overhead},
    status::{self, GenerationStatus, GrantStatus},
};
use govc_netlab::Namespace;
use serde::Serialize;

use super::{apply::place, keys::duration, plural};
use crate::{
    arguments::{Doctor, RingArguments},
    failure::Failure,
    output::{Style, json, line},
    ring, times,
};

/// Keys, bundles and grants that end sooner deserve a look.
const ENDS_SOON_S: u64 = 24 * 3600;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    Warn,
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    message: String,
    /// What to do.
    help: Option<String>,
}

/// What was found so far.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, check: &'static str, message: impl Into<String>) {
        self.0.push(Finding { check, state: State::Ok, message: message.into(), help: None });
    }

    fn warn(&mut self, check: &'static str, message: impl Into<String>, help: impl Into<String>) {
        let (message, help) = (message.into(), Some(help.into()));
        self.0.push(Finding { check, state: State::Warn, message, help });
    }

    fn fail(&mut self, check: &'static str, message: impl Into<String>, help: impl Into<String>) {
        let (message, help) = (message.into(), Some(help.into()));
        self.0.push(Finding { check, state: State::Fail, message, help });
    }

    /// What a kernel or file error means: often that somebody else may not look.
    fn error(&mut self, check: &'static str, error: &LoadError) {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            message = format!("{message}: {error}");
            cause = error.source();
        }
        let help = error.help().unwrap_or_else(|| "Run `govc doctor` as root to see more.".into());
        self.warn(check, message, help);
    }
}

pub fn run(arguments: &Doctor, style: &Style) -> Result<(), Failure> {
    let mut findings = Findings::default();
    let place = place(&arguments.instance.place);
    let privileged = machine(&mut findings);
    cgroups(&mut findings, privileged);
    bpffs(&mut findings, &place, &arguments.instance.place.bpffs, privileged);
    interfaces(&mut findings, &arguments.interfaces);
    clock(&mut findings, &place, privileged);
    keys(&mut findings, &ring::open(&arguments.ring), slot_now());
    at_rest(&mut findings, &arguments.ring);
    instance(&mut findings, &place, privileged);
    let worst = findings.0.iter().map(|finding| finding.state).max().unwrap_or(State::Ok);
    if arguments.instance.json {
        json(&findings.0)?;
    } else {
        tell(&findings.0, style)?;
    }
    match worst {
        State::Ok => Ok(()),
        State::Warn => Err(Failure::Different(1)),
        State::Fail => Err(Failure::Different(3)),
    }
}

fn tell(findings: &[Finding], style: &Style) -> Result<(), Failure> {
    for finding in findings {
        let state = match finding.state {
            State::Ok => style.good("ok  "),
            State::Warn => style.paint("33", "warn"),
            State::Fail => style.bad("fail"),
        };
        line(&format!("{state} {:<10} {}", finding.check, finding.message))?;
        if let Some(help) = &finding.help {
            line(&style.dim(format!("                {help}")))?;
        }
    }
    Ok(())
}

/// Kernel and privileges. Whether there are all that it takes.
fn machine(findings: &mut Findings) -> bool {
    let (release, recent) = kernel::release();
    if recent {
        findings.ok("kernel", format!("Linux {release}"));
    } else {
        findings.fail(
            "kernel",
            format!("Linux {release} is too old"),
            "govc needs tcx and BPF links: Linux 6.6 or newer.",
        );
    }
    if std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        findings.ok("btf", "the kernel tells its types");
    } else {
        findings.fail(
            "btf",
            "the kernel does not tell its types (no /sys/kernel/btf/vmlinux)",
            "Use a kernel that was built with CONFIG_DEBUG_INFO_BTF; those of distributions are.",
        );
    }
    let missing = kernel::missing_capabilities();
    if missing.is_empty() {
        findings.ok("privileges", "all that `apply` needs");
        match kernel::query_tcx() {
            Ok(()) => findings.ok("tcx", "programs can be attached"),
            Err(error) => {
                let why = std::error::Error::source(&error).map(ToString::to_string);
                findings.fail(
                    "tcx",
                    format!("no tcx hooks: {}", why.unwrap_or_default()),
                    "govc needs Linux 6.6 or newer with CONFIG_NET_XGRESS.",
                );
            }
        }
        return true;
    }
    findings.warn(
        "privileges",
        format!("missing {}", missing.join(", ")),
        "Run as root to apply policies; here it would also tell about tcx, keys and the instance.",
    );
    false
}

/// Whether the kernel can tell of cgroups that come and go.
fn cgroups(findings: &mut Findings, privileged: bool) {
    if cgroup::root().is_none() {
        findings.warn(
            "cgroups",
            "no cgroup2 hierarchy is mounted: stamp rules for cgroups match nobody",
            "Mount it: mount -t cgroup2 none /sys/fs/cgroup",
        );
    } else if cgroup::is_told_of() {
        findings.ok("cgroups", "new ones are found as they are made");
    } else if privileged && std::path::Path::new(cgroup::TRACING).exists() {
        let tracing = cgroup::TRACING;
        findings
            .ok("cgroups", format!("tracefs is not mounted at {tracing}; `apply` will mount it"));
    } else {
        findings.warn(
            "cgroups",
            "the kernel does not tell of new ones, which the next apply finds",
            format!("As root: mount -t tracefs tracefs {}", cgroup::TRACING),
        );
    }
}

fn bpffs(findings: &mut Findings, place: &Place, path: &std::path::Path, privileged: bool) {
    let shown = path.display();
    match place.find_bpffs() {
        Ok(Bpffs::Mounted) => findings.ok("bpffs", format!("mounted at {shown}")),
        Ok(Bpffs::ToMount) if privileged => {
            findings.ok("bpffs", format!("not mounted at {shown}; `apply` will mount it"));
        }
        Err(error @ (LoadError::NotBpffs(_) | LoadError::PrivateMounts(_))) if privileged => {
            findings.fail("bpffs", error.to_string(), error.help().unwrap_or_default());
        }
        _ => findings.warn(
            "bpffs",
            format!("not mounted at {shown}"),
            format!("`govc apply` mounts it as root, or: mount -t bpf bpf {shown}"),
        ),
    }
}

fn interfaces(findings: &mut Findings, wanted: &[String]) {
    let devices = match netdev::list() {
        Ok(devices) => devices,
        Err(error) => return findings.error("interface", &error),
    };
    for name in wanted {
        if devices.iter().all(|device| device.name != *name) {
            findings.error("interface", &LoadError::NoInterface(name.clone()));
        }
    }
    for device in devices.iter().filter(|device| wanted.is_empty() || wanted.contains(&device.name))
    {
        interface(findings, device);
    }
}

fn interface(findings: &mut Findings, device: &Netdev) {
    let name = &device.name;
    let kind = match (&device.kind, driver(name)) {
        (Some(kind), _) => kind.clone(),
        (None, Some(driver)) => format!("hardware, driver {driver}"),
        (None, None) => "hardware".to_owned(),
    };
    let hook = match device.kind {
        Some(_) => "tcx",
        None => "native XDP if the driver has it, else tcx",
    };
    if let Err(error) = netdev::inner_mtu(device, Overhead::OPTION) {
        return findings.warn(
            "interface",
            format!("{name}: {error}"),
            error.help().unwrap_or_default(),
        );
    }
    let offloads = Namespace::current().and_then(|here| here.offloads(name));
    let offloads = offloads.map_or_else(
        |_| "offloads unknown".to_owned(),
        |found| {
            let list = [
                ("tso", found.tso),
                ("gso", found.gso),
                ("gro", found.gro),
                ("tx checksums", found.tx_checksum),
            ];
            let on: Vec<&str> = list.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
            if on.is_empty() { "no offloads".to_owned() } else { on.join(", ") }
        },
    );
    findings.ok(
        "interface",
        format!("{name}: {kind}, MTU {}, {offloads}; `auto` takes {hook}", device.mtu),
    );
}

/// The driver of an interface that is hardware.
fn driver(name: &str) -> Option<String> {
    let link = std::fs::read_link(format!("/sys/class/net/{name}/device/driver")).ok()?;
    Some(link.file_name()?.to_str()?.to_owned())
}

fn clock(findings: &mut Findings, place: &Place, privileged: bool) {
    match kernel::is_clock_kept() {
        Some(true) => findings.ok("clock", "kept by a time service"),
        Some(false) => findings.warn(
            "clock",
            "no time service keeps it right",
            "Labels live for seconds: run chrony, systemd-timesyncd or the like on all nodes.",
        ),
        None => findings.warn(
            "clock",
            "the kernel does not tell whether it is right",
            "Look at `timedatectl`.",
        ),
    }
    let offset_s = kernel::tai_offset_s();
    let applied = Instance::open(place).ok().filter(|_| privileged);
    match applied.map(|instance| instance.control().tai_offset_ns / 1_000_000_000) {
        Some(then_s) if then_s != offset_s => findings.fail(
            "clock",
            format!("the TAI clock's offset is {offset_s} s, and was {then_s} s at the last apply"),
            "Labels are stamped and verified with the wrong time: `govc status` puts that right, and so does \
             whatever of `observe`, `top`, `serve` and `metrics` runs.",
        ),
        _ => findings.ok("clock", format!("the TAI clock's offset is {offset_s} s")),
    }
}

fn keys(findings: &mut Findings, ring: &KeyRing, slot: u64) {
    let domains = match ring.list() {
        Ok(domains) => domains,
        Err(error) => return findings.error("keys", &error),
    };
    if domains.is_empty() {
        return findings.warn(
            "keys",
            format!("no keys in {}", ring.dir().display()),
            "Make some with `govc keys new`, or bring those of the other nodes; root may read them.",
        );
    }
    for keys in domains {
        let domain = &keys.domain;
        let covers =
            |at: u64| keys.epochs().find(|e| (e.not_before_slot..e.not_after_slot).contains(&at));
        let mut end = slot;
        while let Some(epoch) = covers(end) {
            end = epoch.not_after_slot;
        }
        let ends_in_s = (end - slot) * 2;
        let stage = if keys.are_made_here() {
            "Add epochs with `govc keys stage`."
        } else {
            "They are made elsewhere: have them exported there, and take them with `govc keys import`."
        };
        if ends_in_s == 0 {
            findings.fail("keys", format!("{domain}: no key for this moment"), stage);
        } else if ends_in_s < ENDS_SOON_S {
            findings.warn("keys", format!("{domain}: keys end in {}", duration(ends_in_s)), stage);
        } else {
            findings.ok("keys", format!("{domain}: keys for {}", duration(ends_in_s)));
        }
    }
}

/// Whether who gets hold of the key directory, but of nothing else of the node, has the keys.
fn at_rest(findings: &mut Findings, arguments: &RingArguments) {
    let Ok(domains) = ring::open(arguments).list() else { return };
    let open: Vec<&str> =
        domains.iter().filter(|keys| !keys.sealed).map(|keys| keys.domain.as_str()).collect();
    let beside = std::fs::symlink_metadata(arguments.keys.join(ring::IDENTITY))
        .is_ok_and(|metadata| metadata.is_file());
    if !open.is_empty() {
        findings.warn(
            "keys",
            format!("{}: the files lie open at rest", open.join(", ")),
            "Seal them for an age key of this node: govc keys seal --identity FILE",
        );
    } else if beside {
        findings.warn(
            "keys",
            "the identity that opens the sealed files lies beside them",
            "Put it where backups and images do not reach, and a link to it in its place.",
        );
    } else if !domains.is_empty() {
        findings.ok("keys", "the files are sealed at rest");
    }
}

fn instance(findings: &mut Findings, place: &Place, privileged: bool) {
    if !privileged {
        return;
    }
    let status = match status::status(place) {
        Ok(status) => status,
        Err(LoadError::NoInstance(name)) => {
            return findings.ok("instance", format!("`{name}` holds no policy"));
        }
        Err(error) => return findings.error("instance", &error),
    };
    findings.ok(
        "instance",
        format!(
            "`{}`: generation {} of {}, {}",
            status.instance,
            status.generation.number,
            status.generation.policy,
            plural(status.generation.rules as usize, "rule")
        ),
    );
    ending(findings, &status.generation);
    status.grants.iter().for_each(|grants| grants_ending(findings, grants));
    if status.pending.is_some_and(|pending| pending.left_s < 0) {
        findings.fail(
            "instance",
            "a trial is over, and the process that should have ended it was killed",
            "`govc rollback` returns to what was before, `govc confirm` keeps what is in force.",
        );
    }
    if status.events.permits && !status.events.reader {
        findings.warn(
            "instance",
            "permitted packets are reported and nobody reads: an `observe --permits` was killed",
            "`govc observe --count 0` turns that off.",
        );
    }
    for keys in status.keys.iter().filter(|keys| keys.ends_in_s < ENDS_SOON_S) {
        let message =
            format!("the kernel's keys of {} end in {}", keys.domain, duration(keys.ends_in_s));
        let help = "`govc keys stage` adds epochs and hands them over.";
        if keys.valid_now {
            findings.warn("instance", message, help);
        } else {
            findings.fail("instance", message, help);
        }
    }
    match attach::attached(place) {
        Ok(attached) => routes(findings, place, &attached),
        Err(error) => findings.error("instance", &error),
    }
}

/// Whether the policy in force is good for some time.
fn ending(findings: &mut Findings, generation: &GenerationStatus) {
    let Some(not_after) = generation.not_after else { return };
    let help = "Apply a newer bundle: `govc bundle --previous`, `govc sign`, `govc apply`.";
    match not_after.checked_sub(times::now()) {
        None => findings.fail(
            "instance",
            format!(
                "the bundle in force was good until {}: nothing passes",
                times::tell(not_after)
            ),
            help,
        ),
        Some(left) if left < ENDS_SOON_S => {
            let message = format!("the bundle in force is good for {} more", duration(left));
            findings.warn("instance", message, help);
        }
        Some(_) => findings.ok(
            "instance",
            format!("the bundle in force is good until {}", times::tell(not_after)),
        ),
    }
}

/// Whether labels of a domain can be stamped and translated for some time.
fn grants_ending(findings: &mut Findings, grants: &GrantStatus) {
    const RENEW: &str = "Ask its owners for a new one, `govc grant accept`, then `govc apply`.";
    const RENEW_TRANSIT: &str = "Ask its owners for a new grant and a new mapping, `govc grant accept`, `govc \
                                 mapping accept`, then `govc apply`.";
    let domain = &grants.domain;
    let stamps = grants.stamps.iter().map(|held| ("stamped", RENEW, held));
    let translates = grants.translates.iter().map(|held| ("translated", RENEW_TRANSIT, held));
    for (what, help, held) in stamps.chain(translates) {
        let serial = held.serial;
        match held.not_after.checked_sub(times::now()) {
            None => {
                let until = times::tell(held.not_after);
                let message =
                    format!("nothing is {what} under grant {serial} of {domain} since {until}");
                findings.fail("instance", message, help);
            }
            Some(left) if left < ENDS_SOON_S => {
                let left = duration(left);
                let message =
                    format!("labels are {what} under grant {serial} of {domain} for {left} more");
                findings.warn("instance", message, help);
            }
            Some(_) => {}
        }
    }
}

/// Whether packets leave room for labels where the instance enforces.
fn routes(findings: &mut Findings, place: &Place, attached: &[attach::Attached]) {
    let image = Instance::open(place).and_then(|instance| instance.active_image());
    let overhead = |device| match &image {
        Ok((_, image)) => Overhead::of(image.names(), device),
        Err(_) => Overhead::OPTION,
    };
    let devices = netdev::list().unwrap_or_default();
    let local = |one: &&attach::Attached| !one.interface.is_empty();
    for one in attached.iter().filter(local) {
        let Some(device) = devices.iter().find(|device| device.index == one.index) else {
            continue;
        };
        let name = &device.name;
        let again =
            "Apply the policy again, without --keep-mtu: routes that came later have no MTU yet.";
        let roomless = match netdev::roomless_routes(device, overhead(device)) {
            Ok(count) => count,
            Err(error) => {
                findings.error("routes", &error);
                continue;
            }
        };
        let inner = netdev::inner_mtu(device, overhead(device)).unwrap_or(device.mtu);
        let inner_v6 = device.mtu.saturating_sub(overhead(device).v6);
        let v6_mtu = netdev::v6_mtu(device).filter(|&mtu| mtu > inner_v6);
        if roomless > 0 {
            let routes = plural(roomless, "IPv4 route");
            findings.warn("routes", format!("{name}: {routes} without room for a label"), again);
        }
        if let Some(mtu) = v6_mtu {
            let message = format!("{name}: an IPv6 MTU of {mtu} leaves no room for a label");
            findings.warn("routes", message, again);
        }
        if roomless == 0 && v6_mtu.is_none() {
            findings.ok("routes", format!("{name}: room for labels, packets up to {inner} bytes"));
        }
    }
}
