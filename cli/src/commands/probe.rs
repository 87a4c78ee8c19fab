//! `probe`: what a path lets through, and which carriage it wants.

use std::{io, net::IpAddr, time::Duration};

use govc_abi::{label::BLOCK_LEN, tunnel};
use govc_loader::{attach, netdev};
use serde::Serialize;

use super::apply::place;
use crate::{
    arguments::Probe as Arguments,
    failure::Failure,
    output::{Style, json, line},
    probe::{self, Found},
};

/// Exit codes beside 0 and those of all commands; see the help of the command.
const WANTS_TUNNEL: u8 = 10;
const NOTHING_PASSES: u8 = 11;
const CANNOT_TELL: u8 = 12;

/// What to do about a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Advice {
    /// Options pass: nothing has to be said.
    Option,
    /// Tunnels pass, options do not.
    Tunnel,
    /// Neither does.
    Neither,
    /// Too little came back to tell.
    Unknown,
}

#[derive(Serialize)]
struct Report<'f> {
    address: IpAddr,
    #[serde(flatten)]
    found: &'f Found,
    carriage: Advice,
    /// The line to write into the policy.
    policy: Option<String>,
    /// Bytes that are left for packets.
    inner_mtu: Option<u32>,
}

/// Probes; how it ends tells what was found.
pub fn run(arguments: &Arguments, style: &Style) -> Result<(), Failure> {
    if let Some(interface) = &arguments.interface {
        netdev::find(interface)?;
    }
    refuse_governed(arguments)?;
    let timeout = Duration::from_millis(arguments.timeout);
    let found = probe::probe(arguments.address, arguments.interface.as_deref(), timeout);
    let found = found.map_err(failure)?;
    let carriage = advice(&found);
    let report = Report {
        address: arguments.address,
        found: &found,
        carriage,
        policy: (carriage == Advice::Tunnel)
            .then(|| format!("carriage tunnel to {} on ZONE", arguments.address)),
        inner_mtu: inner_mtu(arguments.address, &found, carriage),
    };
    if arguments.instance.json {
        json(&report)?;
    } else {
        tell(&report, style)?;
    }
    match carriage {
        Advice::Option => Ok(()),
        Advice::Tunnel => Err(Failure::Different(WANTS_TUNNEL)),
        Advice::Neither => Err(Failure::Different(NOTHING_PASSES)),
        Advice::Unknown => Err(Failure::Different(CANNOT_TELL)),
    }
}

/// A policy in force would decide about probes too, and bare answers would not come in.
fn refuse_governed(arguments: &Arguments) -> Result<(), Failure> {
    let attached = attach::attached(&place(&arguments.instance.place)).unwrap_or_default();
    let chosen = |name: &str| arguments.interface.as_deref().is_none_or(|one| one == name);
    let Some(one) = attached.iter().find(|one| !one.interface.is_empty() && chosen(&one.interface))
    else {
        return Ok(());
    };
    Err(Failure::Refused {
        message: format!("a policy is in force on `{}`, and would decide about probes", one.interface),
        help: Some("Probe before the first apply, after `govc detach`, or through another interface: --iface IFACE.".into()),
    })
}

fn failure(error: io::Error) -> Failure {
    let help = match error.kind() {
        io::ErrorKind::PermissionDenied => "Run as root, or with CAP_NET_RAW.",
        io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable => {
            "There is no route to the address."
        }
        _ => "See whether `ping` reaches the address.",
    };
    Failure::Machine { message: format!("cannot probe: {error}"), help: Some(help.into()) }
}

fn advice(found: &Found) -> Advice {
    match (found.option, found.tunnel) {
        (true, _) => Advice::Option,
        // Where no echo is answered at all, options may pass or not; tunnels do.
        (false, true) => Advice::Tunnel,
        (false, false) if found.bare && found.datagram => Advice::Neither,
        (false, false) => Advice::Unknown,
    }
}

fn inner_mtu(address: IpAddr, found: &Found, carriage: Advice) -> Option<u32> {
    let overhead = match carriage {
        Advice::Option => BLOCK_LEN,
        Advice::Tunnel if address.is_ipv4() => tunnel::OVERHEAD_V4,
        Advice::Tunnel => tunnel::OVERHEAD_V6,
        Advice::Neither | Advice::Unknown => return None,
    };
    Some(found.path_mtu?.saturating_sub(overhead as u32))
}

fn tell(report: &Report<'_>, style: &Style) -> Result<(), Failure> {
    let found = report.found;
    let option = if report.address.is_ipv4() { "IPv4 option" } else { "destination option" };
    line(&format!("{} from {}", report.address, found.source))?;
    for (what, passes) in [
        ("echo", found.bare),
        (option, found.option),
        ("UDP", found.datagram),
        ("tunnel, UDP 6081", found.tunnel),
    ] {
        let word = if passes { style.good("passes") } else { style.bad("no answer") };
        line(&format!("  {what:<20} {word}"))?;
    }
    if let Some(mtu) = found.path_mtu {
        line(&format!("  {:<20} {mtu} bytes", "path MTU"))?;
    }
    let room = report
        .inner_mtu
        .map_or_else(String::new, |mtu| format!("; packets up to {mtu} bytes leave room for them"));
    match report.carriage {
        Advice::Option => {
            line(&format!("labels can ride in options, as they do unless told otherwise{room}"))
        }
        Advice::Tunnel => {
            line(&format!("labels have to ride in a tunnel{room}:"))?;
            line(&format!("    {}", report.policy.as_deref().unwrap_or_default()))?;
            line(
                "where ZONE is the zone of the interface; the other end wants a line for this one's address",
            )
        }
        Advice::Neither => line("nothing that labels ride in gets through"),
        Advice::Unknown => line(
            "cannot tell: a host that answers neither echoes nor says that its ports are closed tells nothing",
        ),
    }
}
