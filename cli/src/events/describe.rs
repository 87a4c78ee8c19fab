//! An event in words.

use std::net::Ipv6Addr;

use govc_abi::{
    attribute::{self, SCOPE_NONE},
    event::{Event, flag, hook, verdict},
    image::rule,
    node::LEAF_NONE,
    reason,
};
use govc_image::Image;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::history::encode;
use crate::output::Style;

/// An event with its names.
#[derive(Clone, Debug, Serialize)]
pub struct Described {
    /// What it is called by; the same live and in a file.
    pub id: String,
    /// When it was decided, RFC 3339.
    pub time: Option<String>,
    /// Boot time of the decision, nanoseconds.
    pub time_ns: u64,
    /// Generation that decided.
    pub generation: u64,
    /// Whether the names are those of that generation. Otherwise it is gone, and there are numbers
    /// instead of names.
    pub named: bool,
    /// `permit` or `deny`.
    pub verdict: &'static str,
    /// What a rule that only observes would have done: `permit` or `deny`.
    pub would: Option<&'static str>,
    /// `ingress`, `egress`, `forward`.
    pub hook: &'static str,
    /// Interface index.
    pub ifindex: u32,
    /// The interface's name, unless it is in another network namespace or gone.
    pub interface: Option<String>,
    /// The zone that it came in by; `None` for none, and for what this node has sent.
    pub from_zone: Option<String>,
    /// The zone that it leaves by; `None` for none, and for what is for this node.
    pub to_zone: Option<String>,
    /// Path of the cgroup of the socket that has sent it, or its id where nobody knows the path; `None` for
    /// what was not sent by a socket of this node.
    pub cgroup: Option<String>,
    /// Source address and port.
    pub source: String,
    /// Destination address and port.
    pub destination: String,
    /// `tcp`, `udp`, or a number; `arp`, and `unread` for what was decided before it was known.
    pub protocol: String,
    /// What it is besides one header and what it carries: `fragment`, `options` or `fragment options`;
    /// `None` for a whole packet, and where no rule speaks of any but such.
    pub shape: Option<&'static str>,
    /// Bytes with headers.
    pub len: u32,
    /// The sender; `None` without a label or legacy rule.
    pub subject: Option<String>,
    /// `verified`, `legacy`, `claimed` (not verified: do not believe it), or `absent`.
    pub label: &'static str,
    /// Serial of the grant that the label names; `None` where it names none.
    pub grant: Option<u16>,
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

/// Finds the names of everything in an event, in the image of the generation that decided.
pub fn describe(event: &Event, image: Option<&Image>) -> Described {
    let rule = |number: u32| rule_name(number, image);
    let place = |number: u32| {
        image.filter(|_| number != LEAF_NONE).and_then(|image| image.names().rule_place(number))
    };
    Described {
        id: id(event),
        time: None,
        time_ns: event.time_ns,
        generation: event.generation,
        named: image.is_some(),
        verdict: if event.verdict == verdict::PERMIT { "permit" } else { "deny" },
        would: would(event.pending, image),
        hook: name(&hook::NAMES, event.hook),
        ifindex: event.ifindex,
        interface: None,
        from_zone: zone(event.from_zone, image),
        to_zone: zone(event.to_zone, image),
        cgroup: (event.cgroup() != 0).then(|| format!("cgroup {}", event.cgroup())),
        source: if is_unread(event) {
            UNREAD.into()
        } else {
            endpoint(event.source, event.source_port)
        },
        destination: if is_unread(event) {
            UNREAD.into()
        } else {
            endpoint(event.destination, event.destination_port)
        },
        protocol: protocol(event),
        shape: shape(event.flags),
        len: event.len,
        subject: subject(event, image),
        label: label(event.flags),
        grant: grant(event),
        object: object(event.object, image),
        operation: operation(event, image),
        reason: name(&reason::NAMES, event.reason),
        because: name(&reason::TEXTS, event.reason),
        rule: rule(event.rule),
        place: place(event.rule),
        would_rule: rule(event.pending),
        would_place: place(event.pending),
    }
}

/// What an event is called by: the first 12 hexadecimal digits of the SHA-256 of all that it tells.
pub fn id(event: &Event) -> String {
    let digest = Sha256::digest(encode(event));
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
}

fn name(names: &[&'static str], index: u8) -> &'static str {
    names.get(usize::from(index)).copied().unwrap_or("?")
}

/// Whether the fields of the event's label mean anything.
pub fn has_label(flags: u8) -> bool {
    flags & (flag::LABELLED | flag::LEGACY | flag::CLAIMED) != 0
}

/// Whether the label is one that nobody has verified.
pub fn is_claimed(flags: u8) -> bool {
    label(flags) == "claimed"
}

/// How much the fields of the label are worth.
pub fn label(flags: u8) -> &'static str {
    match flags {
        flags if flags & flag::LABELLED != 0 => "verified",
        flags if flags & flag::LEGACY != 0 => "legacy",
        flags if flags & flag::CLAIMED != 0 => "claimed",
        _ => "absent",
    }
}

/// `policy.rule`, or its number when the image is gone.
pub fn rule_name(number: u32, image: Option<&Image>) -> Option<String> {
    match image {
        _ if number == LEAF_NONE => None,
        Some(image) => image.names().rule(number),
        None => Some(format!("rule {number}")),
    }
}

/// What an observing rule would have done.
pub fn would(pending: u32, image: Option<&Image>) -> Option<&'static str> {
    let record = image.filter(|_| pending != LEAF_NONE)?.rule(pending)?;
    match record & rule::ACTION_MASK {
        rule::PERMIT => Some("permit"),
        rule::DENY => Some("deny"),
        _ => None,
    }
}

/// The name of a zone; zone 0 is none. No zone can be called as what lies in none is.
fn zone(number: u8, image: Option<&Image>) -> Option<String> {
    if u32::from(number) == attribute::ZONE_UNNAMED {
        return Some("(no zone)".to_owned());
    }
    let known = image.and_then(|image| image.names().zone(number.into()).map(str::to_owned));
    (number != 0).then(|| known.unwrap_or_else(|| format!("zone {number}")))
}

/// Index of the label's domain in the image.
fn domain_index(event: &Event, image: Option<&Image>) -> Option<u32> {
    let domains = &image?.names().domains;
    let index = domains.iter().position(|domain| domain.number == event.label.domain())?;
    Some(index as u32)
}

/// The sender; numbers where nobody knows its name.
pub fn subject(event: &Event, image: Option<&Image>) -> Option<String> {
    if !has_label(event.flags) {
        return None;
    }
    let (domain, subject) = (event.label.domain(), event.label.subject());
    let found = domain_index(event, image).and_then(|index| image?.names().subject(index, subject));
    found.or_else(|| Some(format!("domain {domain} subject {subject}")))
}

/// Serial of the grant that the label names; serial 0 is none.
pub fn grant(event: &Event) -> Option<u16> {
    let named = event.flags & (flag::LABELLED | flag::CLAIMED) != 0;
    Some(event.label.grant()).filter(|serial| named && *serial != 0)
}

/// The local workload, from the domain index and number of [`Event::object`].
pub fn object(object: u32, image: Option<&Image>) -> Option<String> {
    if object == SCOPE_NONE {
        return None;
    }
    let (index, subject) = (object >> 24, object & 0x00ff_ffff);
    match image {
        Some(image) => image.names().subject(index, subject),
        None => Some(format!("object {subject}")),
    }
}

/// The operation class; operation 0 is none.
pub fn operation(event: &Event, image: Option<&Image>) -> Option<String> {
    let number = event.label.operation();
    if !has_label(event.flags) || number == 0 {
        return None;
    }
    let known = domain_index(event, image)
        .and_then(|index| Some(image?.names().domain(index)?.operation(number)?.to_owned()));
    known.or_else(|| Some(format!("operation {number}")))
}

/// An address in memory order.
pub fn address(address: [u64; 2]) -> Ipv6Addr {
    let [upper, lower] = address.map(u64::from_be);
    Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower))
}

/// An address in memory order, with its port unless that is 0.
fn endpoint(at: [u64; 2], port: u16) -> String {
    let v6 = address(at);
    match (v6.to_ipv4_mapped(), port) {
        (Some(v4), 0) => v4.to_string(),
        (Some(v4), port) => format!("{v4}:{port}"),
        (None, 0) => v6.to_string(),
        (None, port) => format!("[{v6}]:{port}"),
    }
}

/// Whether an event is about a fragment that rules were asked about.
pub fn is_fragment(event: &Event) -> bool {
    u32::from(event.flags >> flag::SHAPE_SHIFT) & attribute::shape::FRAGMENT != 0
}

/// What stands for an address of a packet that was decided before its addresses were read.
const UNREAD: &str = "-";

/// Whether a packet was decided before its addresses were read: it is no IP, or was cut short. IPv4 has
/// mapped addresses, and the unspecified ones of IPv6 never stand at both ends.
pub fn is_unread(event: &Event) -> bool {
    (event.source, event.destination) == ([0; 2], [0; 2])
}

/// Whether it is what neighbours find each other with where there is no IP yet.
pub fn is_arp(event: &Event) -> bool {
    is_unread(event) && event.reason == reason::LINK_CONTROL
}

fn protocol(event: &Event) -> String {
    match event.protocol {
        _ if is_arp(event) => "arp".into(),
        0 if is_unread(event) => "unread".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        132 => "sctp".into(),
        // Fragments show no types.
        1 if is_fragment(event) => "icmp".into(),
        58 if is_fragment(event) => "icmpv6".into(),
        1 => format!("icmp {}/{}", event.icmp >> 8, event.icmp & 0xff),
        58 => format!("icmpv6 {}/{}", event.icmp >> 8, event.icmp & 0xff),
        other => format!("proto {other}"),
    }
}

/// A set of [`attribute::shape`] in words.
fn shape(flags: u8) -> Option<&'static str> {
    match u32::from(flags >> flag::SHAPE_SHIFT) & attribute::shape::ALL {
        attribute::shape::WHOLE => None,
        attribute::shape::FRAGMENT => Some("fragment"),
        attribute::shape::OPTIONS => Some("options"),
        _ => Some("fragment options"),
    }
}

/// Who sent it, with what that is worth.
pub fn who(label: &str, subject: Option<&str>) -> String {
    match (label, subject) {
        ("claimed", Some(subject)) => format!("claims {subject}"),
        ("legacy", Some(subject)) => format!("{subject} (legacy)"),
        (_, Some(subject)) => subject.to_owned(),
        (_, None) => "unlabelled".to_owned(),
    }
}

impl Described {
    /// The verdict, or that an observing rule would have denied.
    pub fn verdict_word(&self) -> &'static str {
        if self.is_would_deny() { "would-deny" } else { self.verdict }
    }

    /// Let through, but a rule that only observes would have denied it.
    pub fn is_would_deny(&self) -> bool {
        self.verdict == "permit" && self.would == Some("deny")
    }

    /// One line for people.
    pub fn line(&self, style: &Style) -> String {
        let word = format!("{:<10}", self.verdict_word());
        let verdict = match (self.verdict, self.is_would_deny()) {
            (_, true) => style.paint("33", word),
            ("permit", _) => style.good(word),
            _ => style.bad(word),
        };
        let time = self.clock().map(|time| format!("{} ", style.dim(time))).unwrap_or_default();
        let at = match &self.interface {
            Some(interface) => format!("{} {interface}", self.hook),
            None => self.hook.to_owned(),
        };
        let at = format!("{at}{}", self.way());
        let mut who = who(self.label, self.subject.as_deref());
        // Lines are long: the serial stands where it is what decided. Of what passes through that is the one
        // of the translation, and the label names another.
        if ["revoked", "grant_expired"].contains(&self.reason) && self.hook != "forward" {
            who.push_str(&self.under());
        }
        let sender = self.cgroup.as_deref().map(|path| format!(" in {path}")).unwrap_or_default();
        let whom = self.object.as_deref().map(|o| format!(" to {o}")).unwrap_or_default();
        let what = self.operation.as_deref().map(|o| format!(" {o}")).unwrap_or_default();
        let shape = self.shape.map(|shape| format!(" {shape}")).unwrap_or_default();
        format!(
            "{time}{verdict} {at:<12} {}{shape}{}  {who}{sender}{whom}{what}  {}",
            self.protocol,
            self.ends(),
            self.why(style)
        )
    }

    /// ` from -> to`, as far as the packet was read.
    pub fn ends(&self) -> String {
        match (self.source.as_str(), self.destination.as_str()) {
            (UNREAD, UNREAD) => String::new(),
            (source, destination) => format!(" {source} -> {destination}"),
        }
    }

    /// ` under grant 11`, where the label names one.
    pub fn under(&self) -> String {
        self.grant.map(|serial| format!(" under grant {serial}")).unwrap_or_default()
    }

    /// From which zone to which a packet passes through.
    fn way(&self) -> String {
        let unknown = || "?".to_owned();
        match (&self.from_zone, &self.to_zone) {
            (Some(from), to) if self.hook != "ingress" => {
                format!(" {from}>{}", to.clone().unwrap_or_else(unknown))
            }
            _ => String::new(),
        }
    }

    /// Rule and place, or the reason.
    pub fn why(&self, style: &Style) -> String {
        let rule = |rule: &str, place: &Option<String>| {
            let place = place.as_deref().map_or_else(String::new, |p| format!(" {}", style.dim(p)));
            format!("{}{place}", style.bold(rule))
        };
        let why = match &self.rule {
            Some(name) if self.reason == "rule" => rule(name, &self.place),
            Some(name) => format!("{} of {}", style.bold(self.reason), rule(name, &self.place)),
            None => format!("{} {}", style.bold(self.reason), style.dim(self.because)),
        };
        let would = self.would_rule.as_deref().map_or_else(String::new, |name| {
            let verb = self.would.unwrap_or("decide");
            format!("  would {verb}: {}", rule(name, &self.would_place))
        });
        let gone = if self.named {
            String::new()
        } else {
            style.dim(format!("  generation {} is gone, so are its names", self.generation))
        };
        format!("{why}{would}{gone}")
    }

    /// Time of day, milliseconds.
    fn clock(&self) -> Option<String> {
        let time: jiff::Timestamp = self.time.as_deref()?.parse().ok()?;
        let zoned = time.to_zoned(jiff::tz::TimeZone::system());
        Some(zoned.strftime("%H:%M:%S%.3f").to_string())
    }

    /// What a packet in a capture is annotated with.
    pub fn comment(&self) -> String {
        let style = Style::plain_text();
        let who = who(self.label, self.subject.as_deref());
        let whom = self.object.as_deref().map(|o| format!(" to {o}")).unwrap_or_default();
        let what = self.operation.as_deref().map(|o| format!(" {o}")).unwrap_or_default();
        format!(
            "{} at {}, generation {}: {}; {who}{}{whom}{what}",
            self.verdict_word(),
            self.hook,
            self.generation,
            self.why(&style),
            self.under()
        )
    }
}
