//! `observe`: verdicts as they happen, each with the rule that gave it and where that stands.

use std::{
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use govc_abi::{
    attribute::SCOPE_NONE,
    event::{Event, flag, hook, verdict},
    node::LEAF_NONE,
    reason,
};
use govc_image::Image;
use govc_loader::{events::Events, status};
use serde::Serialize;

use super::apply::place;
use crate::{
    arguments::Observe,
    failure::Failure,
    output::{Style, line},
};

/// An event with its names.
#[derive(Clone, Debug, Serialize)]
pub struct Described {
    /// Boot time of the decision, nanoseconds.
    pub time_ns: u64,
    /// Generation that decided.
    pub generation: u64,
    /// `permit` or `deny`.
    pub verdict: &'static str,
    /// `ingress`, `egress`, `forward`.
    pub hook: &'static str,
    /// Interface index.
    pub ifindex: u32,
    /// Source address and port.
    pub source: String,
    /// Destination address and port.
    pub destination: String,
    /// `tcp`, `udp`, or a number.
    pub protocol: String,
    /// Bytes with headers.
    pub len: u32,
    /// The sender; `None` without a label or legacy rule.
    pub subject: Option<String>,
    /// `verified`, `legacy`, `claimed` (not verified: do not believe it), or `absent`.
    pub label: &'static str,
    /// The local workload.
    pub object: Option<String>,
    /// The operation class.
    pub operation: Option<String>,
    /// One word.
    pub reason: &'static str,
    /// What that means.
    pub because: &'static str,
    /// `policy.rule` that decided.
    pub rule: Option<String>,
    /// Its `file:line:column`.
    pub place: Option<String>,
    /// `policy.rule` in observe mode that would have decided.
    pub would_rule: Option<String>,
    /// Its place.
    pub would_place: Option<String>,
}

/// Finds the names of everything in an event.
pub fn describe(event: &Event, image: Option<&Image>) -> Described {
    let names = image.map(Image::names);
    let rule = |number: u32| names?.rule(number).filter(|_| number != LEAF_NONE);
    let rule_place = |number: u32| names?.rule_place(number).filter(|_| number != LEAF_NONE);
    let known = event.flags & (flag::LABELLED | flag::LEGACY | flag::CLAIMED) != 0;
    let index = names.and_then(|names| {
        let domain = |d: &govc_image::Domain| d.number == event.label.domain();
        names.domains.iter().position(domain).filter(|_| known)
    });
    let subject = index.and_then(|index| names?.subject(index as u32, event.label.subject()));
    let operation = index.and_then(|index| {
        Some(names?.domain(index as u32)?.operation(event.label.operation())?.to_owned())
    });
    let object = (event.object != SCOPE_NONE)
        .then(|| names?.subject(event.object >> 24, event.object & 0x00ff_ffff))
        .flatten();
    let name =
        |names: &[&'static str], index: u8| names.get(usize::from(index)).copied().unwrap_or("?");
    Described {
        time_ns: event.time_ns,
        generation: event.generation,
        verdict: if event.verdict == verdict::PERMIT { "permit" } else { "deny" },
        hook: name(&hook::NAMES, event.hook),
        ifindex: event.ifindex,
        source: endpoint(event.source, event.source_port),
        destination: endpoint(event.destination, event.destination_port),
        protocol: protocol(event),
        len: event.len,
        subject,
        label: match event.flags {
            flags if flags & flag::LABELLED != 0 => "verified",
            flags if flags & flag::LEGACY != 0 => "legacy",
            flags if flags & flag::CLAIMED != 0 => "claimed",
            _ => "absent",
        },
        object,
        operation,
        reason: name(&reason::NAMES, event.reason),
        because: name(&reason::TEXTS, event.reason),
        rule: rule(event.rule),
        place: rule_place(event.rule),
        would_rule: rule(event.pending),
        would_place: rule_place(event.pending),
    }
}

/// An address in memory order, with its port unless that is 0.
fn endpoint(address: [u64; 2], port: u16) -> String {
    let [upper, lower] = address.map(u64::from_be);
    let v6 = Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower));
    match (v6.to_ipv4_mapped(), port) {
        (Some(v4), 0) => v4.to_string(),
        (Some(v4), port) => format!("{v4}:{port}"),
        (None, 0) => IpAddr::V6(v6).to_string(),
        (None, port) => format!("[{v6}]:{port}"),
    }
}

fn protocol(event: &Event) -> String {
    match event.protocol {
        6 => "tcp".into(),
        17 => "udp".into(),
        132 => "sctp".into(),
        1 => format!("icmp {}/{}", event.icmp >> 8, event.icmp & 0xff),
        58 => format!("icmpv6 {}/{}", event.icmp >> 8, event.icmp & 0xff),
        other => format!("proto {other}"),
    }
}

impl Described {
    /// One line for people.
    pub fn line(&self, style: &Style) -> String {
        let verdict = if self.verdict == "permit" {
            style.good(format!("{:<6}", self.verdict))
        } else {
            style.bad(format!("{:<6}", self.verdict))
        };
        let who = match (self.label, &self.subject) {
            ("claimed", Some(subject)) => format!("claims {subject}"),
            ("legacy", Some(subject)) => format!("{subject} (legacy)"),
            (_, Some(subject)) => subject.clone(),
            (_, None) => "unlabelled".to_owned(),
        };
        let what = self.operation.as_deref().map(|o| format!(" {o}")).unwrap_or_default();
        let why = match (&self.rule, &self.place) {
            (Some(rule), Some(place)) if self.reason == "rule" => {
                format!("{} {}", style.bold(rule), style.dim(place))
            }
            (Some(rule), Some(place)) => {
                format!("{} of {} {}", style.bold(self.reason), style.bold(rule), style.dim(place))
            }
            _ => format!("{} {}", style.bold(self.reason), style.dim(self.because)),
        };
        let would = match (&self.would_rule, &self.would_place) {
            (Some(rule), Some(place)) => {
                format!("  would: {} {}", style.bold(rule), style.dim(place))
            }
            _ => String::new(),
        };
        format!(
            "{verdict} {:<7} {} {} -> {}  {who}{what}  {why}{would}",
            self.hook, self.protocol, self.source, self.destination
        )
    }
}

pub fn run(arguments: &Observe, style: &Style) -> Result<(), Failure> {
    let place = place(&arguments.instance);
    let mut events = Events::open(&place)?;
    if arguments.permits {
        status::report_permits(&place, true)?;
    }
    let result = follow(arguments, &mut events, style);
    if arguments.permits {
        status::report_permits(&place, false)?;
    }
    result
}

fn follow(arguments: &Observe, events: &mut Events, style: &Style) -> Result<(), Failure> {
    let end = arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut seen = 0;
    while arguments.count.is_none_or(|count| seen < count) {
        let left = end.map_or(Duration::from_millis(500), |end| {
            end.saturating_duration_since(Instant::now())
        });
        if left.is_zero() {
            break;
        }
        let Some(event) = events.next(left.min(Duration::from_millis(500)))? else { continue };
        let described = describe(&event, events.image(event.generation));
        if arguments.instance.json {
            line(&serde_json::to_string(&described).map_err(std::io::Error::other)?)?;
        } else {
            line(&described.line(style))?;
        }
        seen += 1;
    }
    Ok(())
}
