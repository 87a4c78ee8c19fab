//! Packets and sets of them in the words of the language.

use std::net::{IpAddr, Ipv6Addr};

use govc_abi::{
    attribute::{self, Attribute, Request, SCOPE_NONE, shape, state},
    event::hook,
    label::{SLOT_NS, radius},
};
use govc_image::{Domain, Names};

use super::networks::networks;
use crate::{
    check::packets::{SOURCE_PORT_DEFAULT, V4_DEFAULTS, V6_DEFAULTS},
    checked::{Hook, Policy},
    table::{IntervalSet, max_of},
};

/// A request as a `packet { .. }` of a test: what such a packet says by default is left out.
#[must_use]
pub fn packet(names: &Names, policy: Option<&Policy>, hook: Hook, request: &Request) -> String {
    let get = |attribute| scalar(request, attribute);
    let mut fields = Vec::new();
    if hook != usize::from(hook::INGRESS) {
        fields.push(format!("on {}", hook_name(hook)));
    }
    match get(attribute::STATE) {
        state::ABSENT => fields.push("from unlabelled".to_owned()),
        state::LEGACY => fields.push("from legacy".to_owned()),
        _ => fields.extend(label(names, policy, request)),
    }
    if get(attribute::OBJECT) != SCOPE_NONE {
        fields.push(format!("to {}", subject(names, get(attribute::OBJECT))));
    }
    fields.extend(transport(request));
    if get(attribute::SHAPE) != shape::WHOLE {
        fields.push(shape_word(get(attribute::SHAPE)).to_owned());
    }
    let [source, destination] = [request.source, request.destination].map(address);
    let icmpv6 = get(attribute::PROTOCOL) == 58;
    let defaults = if source.is_ipv6() { V6_DEFAULTS } else { V4_DEFAULTS };
    let legacy = get(attribute::STATE) == state::LEGACY;
    let family_told = icmpv6 || !source.is_ipv6();
    if [source, destination] != defaults || !family_told || legacy {
        fields.push(format!("source {source}"));
        if destination != defaults[1] {
            fields.push(format!("destination {destination}"));
        }
    }
    for (word, attribute) in
        [("ingress", attribute::INGRESS_ZONE), ("egress", attribute::EGRESS_ZONE)]
    {
        if get(attribute) != 0 {
            fields.push(format!("{word} zone {}", zone(names, get(attribute))));
        }
    }
    let past = get(attribute::TIME) as usize;
    if let Some(slot) = past.checked_sub(1).and_then(|last| names.times.get(last)) {
        fields.push(format!("at \"{}\"", moment(*slot)));
    }
    format!("packet {{ {} }}", fields.join("  "))
}

/// Sender and label, as far as the sender's scope does not imply it.
pub(super) fn label(names: &Names, policy: Option<&Policy>, request: &Request) -> Vec<String> {
    let get = |attribute| scalar(request, attribute);
    let key = get(attribute::SUBJECT);
    let mut fields = vec![format!("from {}", subject(names, key))];
    let Some(domain) = names.domain(key >> 24) else { return fields };
    let scope =
        policy.and_then(|policy| policy.domains().get((key >> 24) as usize)).and_then(|d| {
            let number = key & 0x00ff_ffff;
            d.scopes.iter().find(|s| s.subjects.is_some_and(|(a, b)| a <= number && number <= b))
        });
    for attribute in [
        attribute::OPERATION,
        attribute::LEVEL,
        attribute::COMPARTMENTS,
        attribute::CONSTRAINTS,
        attribute::RESIDENCY,
        attribute::ROUTE,
        attribute::RADIUS,
    ] {
        let value = get(attribute);
        let implied = match (attribute, scope) {
            (attribute::LEVEL, Some(scope)) => scope.level.into(),
            (attribute::COMPARTMENTS, Some(scope)) => scope.compartments.into(),
            (attribute::RADIUS, _) => radius::DOMAIN.into(),
            (attribute::LEVEL | attribute::COMPARTMENTS, None) => u32::MAX,
            _ => 0,
        };
        if value != implied {
            let word = attribute_word(attribute);
            fields.push(format!("{word} {}", label_value(domain, attribute, value)));
        }
    }
    fields
}

fn transport(request: &Request) -> Option<String> {
    let get = |attribute| scalar(request, attribute);
    let protocol = get(attribute::PROTOCOL);
    let name = protocol_name(protocol);
    if get(attribute::SHAPE) & shape::FRAGMENT != 0 {
        return (protocol != 0).then(|| format!("proto {name}"));
    }
    match protocol {
        0 => None,
        6 | 17 | 132 => {
            let (port, source) = (get(attribute::DESTINATION_PORT), get(attribute::SOURCE_PORT));
            let source = if source == u32::from(SOURCE_PORT_DEFAULT) {
                String::new()
            } else {
                format!(" source port {source}")
            };
            Some(format!("proto {name} port {port}{source}"))
        }
        1 | 58 => {
            let (kind, code) = (get(attribute::ICMP) >> 8, get(attribute::ICMP) & 0xff);
            let code = if code == 0 { String::new() } else { format!(" code {code}") };
            Some(format!("proto {name} type {kind}{code}"))
        }
        _ => Some(format!("proto {name}")),
    }
}

/// A set of values of one attribute, in few words.
#[must_use]
pub fn values(
    names: &Names,
    attribute: Attribute,
    domain: Option<u32>,
    set: &IntervalSet,
) -> String {
    let full = max(attribute);
    let intervals = set.intervals();
    if intervals == [(0, full)] {
        return "any".into();
    }
    if matches!(attribute, attribute::COMPARTMENTS | attribute::CONSTRAINTS)
        && let Some(domain) = domain.and_then(|domain| names.domain(domain))
    {
        let text = bits(domain, attribute, set);
        let others = || bits(domain, attribute, &set.complement(16));
        if let Some(text) = text.or_else(|| others().map(|text| format!("not ({text})"))) {
            return text;
        }
    }
    if attribute == attribute::LEVEL
        && let Some(text) = domain.and_then(|domain| levels(names.domain(domain)?, set))
    {
        return text;
    }
    let outside = full.wrapping_add(1).wrapping_sub(intervals.iter().map(|(a, b)| b - a + 1).sum());
    let inverted = outside < INVERTED_MAX && intervals.len() > 1;
    if inverted {
        let bits = 128 - full.leading_zeros();
        let others = set.complement(bits as u8);
        return format!("all but {}", listed(names, attribute, domain, &others));
    }
    listed(names, attribute, domain, set)
}

/// A set of bitmaps by the bits that all of them have, or none has, if that says it all.
fn bits(domain: &Domain, attribute: Attribute, set: &IntervalSet) -> Option<String> {
    let all = || set.intervals().iter().flat_map(|&(first, last)| first..=last);
    let must = all().fold(0xffff, |must, value| must & value);
    let may = all().fold(0, |may, value| may | value);
    let free = (may & !must).count_ones();
    if set.is_empty() || all().count() != 1 << free {
        return None;
    }
    let text = |mask: u128| label_value(domain, attribute, mask as u32);
    let list = if attribute == attribute::COMPARTMENTS {
        &domain.compartments
    } else {
        &domain.constraints
    };
    let named = list.iter().fold(0, |mask, one| mask | 1 << one.number);
    let never = named & !may;
    Some(match (must, never) {
        _ if free == 0 => text(must),
        (0, 0) => "any".into(),
        (must, 0) => format!("with {}", text(must)),
        (0, never) => format!("without {}", text(never)),
        (must, never) => format!("with {} without {}", text(must), text(never)),
    })
}

/// The largest value of an attribute.
#[must_use]
pub fn max(attribute: Attribute) -> u128 {
    max_of(match attribute {
        attribute::SUBJECT | attribute::OBJECT => SCOPE_NONE.count_ones() as u8,
        _ => attribute::BITS.get(usize::from(attribute)).copied().unwrap_or(128),
    })
}

/// Sets that leave out fewer values are told by what they leave out.
const INVERTED_MAX: u128 = 9;
/// Members of a set that are told.
const MEMBERS_MAX: usize = 6;

fn listed(names: &Names, attribute: Attribute, domain: Option<u32>, set: &IntervalSet) -> String {
    let parts: Vec<String> = match attribute {
        attribute::SUBJECT | attribute::OBJECT => scopes(names, set),
        attribute::SOURCE | attribute::DESTINATION => {
            let networks = networks(set);
            if !networks.except.is_empty() {
                return format!("{} except {}", few(networks.within), few(networks.except));
            }
            networks.within
        }
        attribute::TIME => set.intervals().iter().map(|&(a, b)| times(names, a, b)).collect(),
        _ => {
            let domain = domain.and_then(|domain| names.domain(domain));
            let one = |value: u128| value_word(names, domain, attribute, value as u32);
            let each = set.intervals().iter().flat_map(|&(first, last)| {
                let ports =
                    matches!(attribute, attribute::SOURCE_PORT | attribute::DESTINATION_PORT);
                if ports || last - first >= MEMBERS_MAX as u128 {
                    let text = if first == last {
                        one(first)
                    } else {
                        format!("{}..{}", one(first), one(last))
                    };
                    vec![text]
                } else {
                    (first..=last).map(one).collect()
                }
            });
            each.collect()
        }
    };
    few(parts)
}

/// The first of many, and how many more there are.
fn few(mut parts: Vec<String>) -> String {
    let more = parts.len().saturating_sub(MEMBERS_MAX);
    if more > 0 {
        parts.truncate(MEMBERS_MAX);
        parts.push(format!("{more} more"));
    }
    parts.join(", ")
}

/// The levels of a set by their names. Numbers between them are nobody's.
fn levels(domain: &Domain, set: &IntervalSet) -> Option<String> {
    let held = domain.levels.iter().filter(|level| set.contains(level.number.into()));
    let names: Vec<String> = held.map(|level| level.name.clone()).collect();
    (!names.is_empty()).then(|| few(names))
}

/// Scopes that cover a set of subjects: whole subtrees where all of their numbers are in it.
fn scopes(names: &Names, set: &IntervalSet) -> Vec<String> {
    let mut parts = Vec::new();
    let mut left = set.clone();
    let none = IntervalSet::new(vec![(SCOPE_NONE.into(), SCOPE_NONE.into())]);
    for (index, domain) in (0_u32..).zip(&names.domains) {
        let key = |number: u32| u128::from(attribute::scope_key(index, number));
        let whole = IntervalSet::new(vec![(key(0), key(0x00ff_ffff))]);
        if whole.intersect(&left) == whole {
            parts.push(format!("{}.**", domain.name));
            left = left.intersect(&whole.complement(28));
            continue;
        }
        for scope in &domain.scopes {
            let blocks = scope.blocks.iter().map(|&(a, b)| (key(a), key(b)));
            let blocks = IntervalSet::new(blocks.collect());
            if blocks.is_empty() || blocks.intersect(&left).is_empty() {
                continue;
            }
            let own = scope.subjects.map(|(a, b)| IntervalSet::new(vec![(key(a), key(b))]));
            let leaf = own.as_ref().is_some_and(|own| own.intersect(&left) == *own);
            if blocks.intersect(&left) == blocks && scope.subjects.is_none() {
                parts.push(format!("{}.{}.**", domain.name, scope.path));
                left = left.intersect(&blocks.complement(28));
            } else if leaf {
                parts.push(format!("{}.{}", domain.name, scope.path));
                left = left.intersect(&blocks.complement(28));
            } else if let Some(own) = own {
                let some = own.intersect(&left);
                for &(first, last) in some.intervals() {
                    let index = |value: u128| value - own.intervals().first().map_or(0, |i| i.0);
                    parts.push(if first == last {
                        format!("{}.{}[{}]", domain.name, scope.path, index(first))
                    } else {
                        format!("{}.{}[{}..{}]", domain.name, scope.path, index(first), index(last))
                    });
                }
                left = left.intersect(&blocks.complement(28));
            }
        }
    }
    if none.intersect(&left) == none {
        left = left.intersect(&none.complement(28));
        if parts.is_empty() {
            parts.push("nobody".into());
        }
    }
    if parts.is_empty() && !left.is_empty() {
        parts.push("numbers without a name".into());
    }
    parts
}

/// The time from behind so many moments to before the next one.
fn times(names: &Names, first: u128, last: u128) -> String {
    let at = |number: u128| names.times.get(usize::try_from(number).ok()?).copied();
    let since = first.checked_sub(1).and_then(at).map(|slot| format!("since {}", moment(slot)));
    let until = at(last).map(|slot| format!("until {}", moment(slot)));
    match (since, until) {
        (None, None) => "always".into(),
        (since, until) => since.into_iter().chain(until).collect::<Vec<_>>().join(" "),
    }
}

/// The first moment of a slot since the Unix epoch, as the language writes it.
#[must_use]
pub fn moment(slot: u32) -> String {
    let seconds = i64::from(slot) * (SLOT_NS / 1_000_000_000) as i64;
    let time = jiff::Timestamp::from_second(seconds).unwrap_or_default().to_string();
    time.strip_suffix(":00Z").map_or_else(|| time.clone(), |minutes| format!("{minutes}Z"))
}

fn value_word(names: &Names, domain: Option<&Domain>, attribute: Attribute, value: u32) -> String {
    match attribute {
        attribute::STATE => match value {
            state::ABSENT => "unlabelled".into(),
            state::LEGACY => "legacy".into(),
            state::VALID => "labelled".into(),
            _ => value.to_string(),
        },
        attribute::PROTOCOL => protocol_name(value),
        attribute::TIME => times(names, value.into(), value.into()),
        attribute::SHAPE => shape_word(value).into(),
        attribute::ICMP => format!("type {} code {}", value >> 8, value & 0xff),
        attribute::INGRESS_ZONE | attribute::EGRESS_ZONE => zone(names, value),
        attribute::LEVEL..=attribute::ROUTE => match domain {
            Some(domain) => label_value(domain, attribute, value),
            None => value.to_string(),
        },
        _ => value.to_string(),
    }
}

fn shape_word(value: u32) -> &'static str {
    match value {
        shape::WHOLE => "whole",
        shape::FRAGMENT => "fragment",
        shape::OPTIONS => "options",
        _ => "fragment options",
    }
}

/// A value of a label field, as it is written.
fn label_value(domain: &Domain, attribute: Attribute, value: u32) -> String {
    let number = value as u16;
    let named = |name: Option<&str>| name.map_or_else(|| value.to_string(), str::to_owned);
    let set = |names: Vec<String>| format!("{{{}}}", names.join(", "));
    match attribute {
        attribute::LEVEL => named(domain.level(number)),
        attribute::COMPARTMENTS => set(domain.compartments(number)),
        attribute::CONSTRAINTS => set(domain.constraints(number)),
        attribute::OPERATION | attribute::RESIDENCY | attribute::ROUTE if value == 0 => {
            "none".into()
        }
        attribute::OPERATION => named(domain.operation(number)),
        attribute::RESIDENCY => named(domain.residency(number)),
        attribute::ROUTE => named(domain.route(number)),
        attribute::RADIUS => named(radius::NAMES.get(value as usize).copied()),
        _ => value.to_string(),
    }
}

/// The path of a scope key.
#[must_use]
pub fn subject(names: &Names, key: u32) -> String {
    if key == SCOPE_NONE {
        return "nobody".into();
    }
    let (domain, number) = (key >> 24, key & 0x00ff_ffff);
    names.subject(domain, number).unwrap_or_else(|| format!("subject {number}"))
}

fn zone(names: &Names, number: u32) -> String {
    names.zone(number).map_or_else(|| "none".into(), str::to_owned)
}

/// The word of the language for an attribute.
#[must_use]
pub fn attribute_word(attribute: Attribute) -> &'static str {
    match attribute {
        attribute::STATE => "label",
        attribute::SUBJECT => "from",
        attribute::OBJECT => "to",
        attribute::PROTOCOL => "proto",
        attribute::SOURCE_PORT => "source port",
        attribute::DESTINATION_PORT => "port",
        attribute::INGRESS_ZONE => "ingress zone",
        attribute::EGRESS_ZONE => "egress zone",
        attribute::TIME => "time",
        attribute::SHAPE => "packets",
        _ => attribute::NAMES.get(usize::from(attribute)).copied().unwrap_or("?"),
    }
}

/// `ingress`, `egress`, `forward`.
#[must_use]
pub fn hook_name(hook: Hook) -> &'static str {
    hook::NAMES.get(hook).copied().unwrap_or("?")
}

fn protocol_name(number: u32) -> String {
    match number {
        1 => "icmp".into(),
        6 => "tcp".into(),
        17 => "udp".into(),
        58 => "icmpv6".into(),
        132 => "sctp".into(),
        _ => number.to_string(),
    }
}

fn address([upper, lower]: [u64; 2]) -> IpAddr {
    let v6 = Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower));
    v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
}

fn scalar(request: &Request, attribute: Attribute) -> u32 {
    request.scalars.get(usize::from(attribute)).copied().unwrap_or(0)
}
