//! Tests of the language: packets as requests, and which rule is expected to decide.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use govc_abi::attribute::{self, Request, scope_key, state};
use govc_abi::label::radius;
use govc_grammar::ast::{self, Action, FromItem, LabelField, PacketField, ProtoKind};
use govc_grammar::diagnostic::Diagnostic;
use govc_grammar::span::Span;
use rustc_hash::FxHashMap;

use super::labels::{self, Edges, Fields, field_place, said_twice};
use super::policies::{Outline, hook_index};
use super::proto::{self, number};
use super::sets;
use super::shapes;
use super::sink::Sink;
use super::times;
use crate::checked::{DomainId, ExpectedRule, Hook, Legacy, Prefix, Test, TestCase};
use crate::codes;
use crate::index::Meant;
use crate::resolve::{Lookup, World};
use crate::suggest;

/// Source port of packets that say none.
pub(crate) const SOURCE_PORT_DEFAULT: u16 = 40_000;
/// Addresses of packets that say none: documentation networks (RFC 5737, RFC 3849).
pub(crate) const V4_DEFAULTS: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2))];
pub(crate) const V6_DEFAULTS: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2)),
];
/// ICMP echo requests.
const ECHO_V4: u16 = 8;
const ECHO_V6: u16 = 128;

/// Checks all tests.
pub(crate) fn check_all(
    world: &World<'_>,
    outline: &Outline<'_>,
    edges: &Edges,
    times: &[u32],
    sink: &mut Sink,
) -> Vec<Test> {
    let mut tests = Vec::new();
    for (file, (_, source)) in world.files.iter().enumerate() {
        let Some(lookup) = world.lookup(file) else { continue };
        for item in &source.items {
            let ast::Item::Test(test) = item else { continue };
            if test.cases.is_empty() {
                sink.push(empty(test));
            }
            let cases = test.cases.iter().filter_map(|case| {
                let packet = packet(lookup, case, edges, times, sink);
                let by = expected(lookup, outline, case, sink);
                let (hook, request) = packet?;
                Some(TestCase {
                    hook,
                    request,
                    permit: case.permit,
                    by: by?,
                    packet_span: case.packet_span,
                    expect_span: case.expect_span,
                })
            });
            let cases = cases.collect();
            tests.push(Test { title: test.title.text.clone(), cases, span: test.span });
        }
    }
    tests
}

/// A test that succeeds whatever the policy says.
fn empty(test: &ast::Test) -> Diagnostic {
    let message = format!("test `{}` has no packets", test.title.text);
    Diagnostic::new(codes::EMPTY_TEST, message, test.title.span, "tries nothing")
        .help("write `packet { .. } expect permit` or `deny` in it, or remove the test")
}

/// The rule that is expected to decide, when one is; `None` after an error.
fn expected(
    lookup: Lookup<'_, '_>,
    outline: &Outline<'_>,
    case: &ast::TestCase,
    sink: &mut Sink,
) -> Option<Option<ExpectedRule>> {
    let Some(path) = &case.by else { return Some(None) };
    let (policy, rule) = match path.segments.as_slice() {
        [name] if name.text == "default" => return Some(Some(ExpectedRule::Default)),
        [policy, rule] => (policy, rule),
        names => {
            let last = names.last().map_or("", |name| name.text.as_str());
            let full = outline.rules_named(last);
            let help = match suggest::list(full.iter().map(String::as_str), 4) {
                list if list.is_empty() => {
                    "write `by POLICY.RULE`, or `by default` when no rule shall match".to_owned()
                }
                list => format!("write the policy and the rule: {list}"),
            };
            let message = format!("`{}` is no rule", path.text());
            return sink.fail(
                Diagnostic::new(codes::UNKNOWN_RULE, message, path.span, "not found").help(help),
            );
        }
    };
    lookup.note(policy.span, || Meant::Policy(policy.text.clone()));
    let (position, found) = outline.rule(policy, rule, sink)?;
    lookup.note(rule.span, || Meant::Rule(policy.text.clone(), rule.text.clone()));
    let gives = match found.action {
        Action::Permit if case.permit => return Some(Some(ExpectedRule::Rule(position))),
        Action::Deny if !case.permit => return Some(Some(ExpectedRule::Rule(position))),
        Action::Permit => "permits",
        Action::Deny => "denies",
        Action::Pass => "passes to the next tier",
    };
    let wanted = if case.permit { "permit" } else { "deny" };
    let message = format!("`{}.{}` {gives}, so it never gives `{wanted}`", policy.text, rule.text);
    sink.fail(
        Diagnostic::new(codes::IMPOSSIBLE_VERDICT, message, path.span, gives)
            .and(found.name.span, "this rule")
            .help("expect the verdict that the rule gives, or name another rule"),
    )
}

/// The fields of a packet by kind.
#[derive(Default)]
struct Packet<'a> {
    hook: Option<ast::Hook>,
    from: Option<&'a FromItem>,
    to: Option<&'a ast::Pattern>,
    proto: Option<&'a ast::Proto>,
    source: Option<&'a ast::Prefix>,
    destination: Option<&'a ast::Prefix>,
    ingress_zone: Option<&'a ast::Name>,
    egress_zone: Option<&'a ast::Name>,
    at: Option<&'a ast::Text>,
    fragment: Option<Span>,
    /// Set of [`attribute::shape`].
    shape: u32,
    label: Vec<&'a LabelField>,
}

fn sort_fields<'a>(case: &'a ast::TestCase, sink: &mut Sink) -> Packet<'a> {
    let mut packet = Packet::default();
    let mut seen: FxHashMap<&str, Span> = FxHashMap::default();
    for field in &case.fields {
        let (word, span) = match field {
            PacketField::On(hook, span) => {
                packet.hook.get_or_insert(*hook);
                ("on", *span)
            }
            PacketField::From(item) => {
                packet.from.get_or_insert(item);
                ("from", sender_span(item))
            }
            PacketField::To(pattern) => {
                packet.to.get_or_insert(pattern);
                ("to", pattern.span)
            }
            PacketField::Proto(proto) => {
                packet.proto.get_or_insert(proto);
                ("proto", proto.span)
            }
            PacketField::Source(prefix) => {
                packet.source.get_or_insert(prefix);
                ("source", prefix.span)
            }
            PacketField::Destination(prefix) => {
                packet.destination.get_or_insert(prefix);
                ("destination", prefix.span)
            }
            PacketField::IngressZone(name) => {
                packet.ingress_zone.get_or_insert(name);
                ("ingress zone", name.span)
            }
            PacketField::EgressZone(name) => {
                packet.egress_zone.get_or_insert(name);
                ("egress zone", name.span)
            }
            PacketField::At(time) => {
                packet.at.get_or_insert(time);
                ("at", time.span)
            }
            PacketField::Shape(shape, span) => match shape {
                ast::Shape::Fragments => {
                    packet.shape |= attribute::shape::FRAGMENT;
                    packet.fragment = Some(*span);
                    ("fragment", *span)
                }
                ast::Shape::Options => {
                    packet.shape |= attribute::shape::OPTIONS;
                    ("options", *span)
                }
            },
            PacketField::Label(field) => {
                packet.label.push(field);
                continue;
            }
        };
        if let Some(&first) = seen.get(word) {
            sink.push(said_twice(word, span, first));
        }
        seen.entry(word).or_insert(span);
    }
    packet
}

fn sender_span(item: &FromItem) -> Span {
    match item {
        FromItem::Scope(pattern) => pattern.span,
        FromItem::Anyone(span)
        | FromItem::Labelled(span)
        | FromItem::Legacy(span)
        | FromItem::Unlabelled(span) => *span,
    }
}

/// Sets one attribute of a request.
fn set(request: &mut Request, attribute: attribute::Attribute, value: impl Into<u32>) {
    if let Some(slot) = request.scalars.get_mut(usize::from(attribute)) {
        *slot = value.into();
    }
}

fn packet(
    lookup: Lookup<'_, '_>,
    case: &ast::TestCase,
    edges: &Edges,
    times: &[u32],
    sink: &mut Sink,
) -> Option<(Hook, Request)> {
    let packet = sort_fields(case, sink);
    for field in &packet.label {
        if let LabelField::Life(int) = field {
            sink.push(
                Diagnostic::new(
                    codes::FIELD_NOT_DECIDED,
                    "no rule looks at `life`",
                    int.span,
                    "decides nothing",
                )
                .help("remove it: verifiers check the life of a label before any rule"),
            );
        }
    }
    let mut request = Request::EMPTY;
    set(&mut request, attribute::SHAPE, packet.shape);
    let object = packet.to.map(|to| lookup.subject(to, true, sink));
    let protocol = packet.proto.map(|proto| transport(lookup, proto, &packet, &mut request, sink));
    let ingress = packet.ingress_zone.map(|name| lookup.zone(name, sink));
    let egress = packet.egress_zone.map(|name| lookup.zone(name, sink));
    let written = [packet.source, packet.destination]
        .map(|address| address.map(|address| host(address, sink)));
    let [source, destination] = written;
    let at = Entry {
        zone: ingress.flatten(),
        source: source.flatten(),
        v6: family(destination.flatten(), protocol.flatten()),
    };
    let sender = sender(lookup, &packet, case, (edges, at), &mut request, sink);
    if let Some(time) = packet.at.map(|text| times::moment(text, sink)) {
        let slot = time?.slot;
        let past = times.partition_point(|moment| *moment <= slot);
        set(&mut request, attribute::TIME, u32::try_from(past).ok()?);
    }
    if let Some(object) = object {
        let object = object?;
        set(&mut request, attribute::OBJECT, key(object.domain.id, object.number));
    }
    if let Some(zone) = ingress {
        set(&mut request, attribute::INGRESS_ZONE, zone?);
    }
    if let Some(zone) = egress {
        set(&mut request, attribute::EGRESS_ZONE, zone?);
    }
    let protocol = match protocol {
        Some(protocol) => Some(protocol?),
        None => None,
    };
    let legacy_source = sender?;
    let source = match source {
        Some(source) => Some(source?),
        None => legacy_source,
    };
    let destination = match destination {
        Some(destination) => Some(destination?),
        None => None,
    };
    let ends = addresses(source, destination, protocol, &packet, sink)?;
    [request.source, request.destination] = ends.map(halves);
    Some((packet.hook.map_or(0, hook_index), request))
}

fn key(domain: DomainId, number: u32) -> u32 {
    scope_key(domain.0.into(), number)
}

/// Where a packet comes in, as far as it is said.
#[derive(Clone, Copy)]
struct Entry {
    zone: Option<u8>,
    source: Option<IpAddr>,
    /// The family that the rest of the packet asks for.
    v6: Option<bool>,
}

/// Whether a packet is IPv6, as far as its destination or its protocol tell.
fn family(destination: Option<IpAddr>, protocol: Option<u8>) -> Option<bool> {
    match (destination, protocol) {
        (Some(address), _) => Some(address.is_ipv6()),
        (None, Some(number::ICMP)) => Some(false),
        (None, Some(number::ICMPV6)) => Some(true),
        _ => None,
    }
}

/// Fills in who a packet is from; answers with the source address that a legacy rule implies.
fn sender(
    lookup: Lookup<'_, '_>,
    packet: &Packet<'_>,
    case: &ast::TestCase,
    (edges, entry): (&Edges, Entry),
    request: &mut Request,
    sink: &mut Sink,
) -> Option<Option<IpAddr>> {
    match packet.from {
        None => {
            let span = case.packet_span;
            let word = Span::new(span.file, span.start, span.start + 6);
            sink.fail(
                Diagnostic::new(
                    codes::SENDER_MISSING,
                    "the packet does not say who it is from",
                    word,
                    "no `from`",
                )
                .help("add `from SCOPE`, or `from unlabelled` for a packet without label"),
            )
        }
        Some(FromItem::Scope(pattern)) => {
            let subject = lookup.subject(pattern, true, sink)?;
            let domain = subject.domain.id;
            let fields = labels::fields(lookup, &packet.label, (domain, pattern.path.span), sink)?;
            set(request, attribute::STATE, state::VALID);
            set(request, attribute::SUBJECT, key(domain, subject.number));
            set(request, attribute::LEVEL, subject.scope.level);
            set(request, attribute::COMPARTMENTS, subject.scope.compartments);
            set(request, attribute::RADIUS, radius::DOMAIN);
            set_fields(request, &fields);
            Some(None)
        }
        Some(FromItem::Legacy(span)) => {
            legacy_sender(lookup, &packet.label, *span, (edges, entry), request, sink)
        }
        Some(FromItem::Unlabelled(from)) => {
            let mut fine = Some(None);
            for field in &packet.label {
                let (word, span) = field_place(field);
                let message = format!("an unlabelled packet has no {word}");
                fine = sink.fail(
                    Diagnostic::new(codes::FIELD_WITHOUT_LABEL, message, span, "of a label")
                        .and(*from, "no label")
                        .help("remove the field, or say which scope the packet is from"),
                );
            }
            fine
        }
        Some(FromItem::Anyone(span) | FromItem::Labelled(span)) => sink.fail(
            Diagnostic::new(
                codes::NOT_ONE_SENDER,
                "a packet has one sender",
                *span,
                "many senders",
            )
            .help("write one scope, `legacy` or `unlabelled`"),
        ),
    }
}

fn set_fields(request: &mut Request, fields: &Fields) {
    let level = fields.level.map(|(level, _)| level.into());
    let compartments = fields.compartments.map(|(mask, _)| mask.into());
    let values: [(attribute::Attribute, Option<u32>); 7] = [
        (attribute::LEVEL, level),
        (attribute::COMPARTMENTS, compartments),
        (attribute::CONSTRAINTS, fields.constraints.map(u32::from)),
        (attribute::OPERATION, fields.operations.first().map(|(_, number)| u32::from(*number))),
        (attribute::RESIDENCY, fields.residency.map(u32::from)),
        (attribute::ROUTE, fields.route.map(u32::from)),
        (attribute::RADIUS, fields.radius.map(u32::from)),
    ];
    for (attribute, value) in values {
        if let Some(value) = value {
            set(request, attribute, value);
        }
    }
}

/// A packet of a legacy neighbour counts as what the first legacy rule for its source and its
/// zone says; what is not said comes from that rule.
fn legacy_sender(
    lookup: Lookup<'_, '_>,
    label: &[&LabelField],
    span: Span,
    (edges, entry): (&Edges, Entry),
    request: &mut Request,
    sink: &mut Sink,
) -> Option<Option<IpAddr>> {
    let speaks = |legacy: &&Legacy| {
        let contains = |address: IpAddr| legacy.addresses.iter().any(|p| contains(p, address));
        entry.zone.is_none_or(|zone| zone == legacy.zone) && entry.source.is_none_or(contains)
    };
    let Some(legacy) = edges.legacies.iter().find(speaks) else {
        if edges.legacies_missing {
            return None;
        }
        let help = match (entry.source, entry.zone) {
            (None, None) => "declare one with `legacy from ADDRESSES on ZONE { subject PATH }`",
            _ => "give the packet the `source` and the `ingress zone` of a legacy rule",
        };
        return sink.fail(
            Diagnostic::new(
                codes::NO_LEGACY_RULE,
                "no legacy rule speaks for this packet",
                span,
                "counts as unlabelled",
            )
            .help(help),
        );
    };
    let written = &legacy.label;
    let fields = labels::fields(lookup, label, (written.domain, span), sink)?;
    set(request, attribute::STATE, state::LEGACY);
    set(request, attribute::SUBJECT, key(written.domain, written.subject));
    set(request, attribute::LEVEL, written.level);
    set(request, attribute::COMPARTMENTS, written.compartments);
    set(request, attribute::CONSTRAINTS, written.constraints);
    set(request, attribute::OPERATION, written.operation);
    set(request, attribute::RESIDENCY, written.residency);
    set(request, attribute::ROUTE, written.route);
    set(request, attribute::RADIUS, written.radius);
    set(request, attribute::INGRESS_ZONE, legacy.zone);
    set_fields(request, &fields);
    let of_family = |p: &&Prefix| entry.v6.is_none_or(|v6| v6 == p.address.is_ipv6());
    let prefix = legacy.addresses.iter().find(of_family).or(legacy.addresses.first());
    Some(prefix.map(|prefix| prefix.address))
}

fn contains(prefix: &Prefix, address: IpAddr) -> bool {
    let same_network = |prefix_bits: u128, bits: u128, width: u32| {
        let host_bits = width - u32::from(prefix.length).min(width);
        (prefix_bits ^ bits).checked_shr(host_bits).unwrap_or(0) == 0
    };
    match (prefix.address, address) {
        (IpAddr::V4(network), IpAddr::V4(host)) => {
            same_network(network.to_bits().into(), host.to_bits().into(), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(host)) => {
            same_network(network.to_bits(), host.to_bits(), 128)
        }
        _ => false,
    }
}

/// Fills in protocol, ports and ICMP type; answers with the protocol.
fn transport(
    lookup: Lookup<'_, '_>,
    written: &ast::Proto,
    packet: &Packet<'_>,
    request: &mut Request,
    sink: &mut Sink,
) -> Option<u8> {
    let protocol = proto::protocol(lookup, written, sink)?;
    if let Some(fragment) = packet.fragment {
        set(request, attribute::PROTOCOL, protocol.number);
        shapes::hidden(fragment, [(written, written.span)].into_iter(), sink)?;
        return Some(protocol.number);
    }
    let wide = |ranges: Option<Vec<(u8, u8)>>| {
        ranges.map(|ranges| ranges.iter().map(|&(a, b)| (a.into(), b.into())).collect())
    };
    let port = one_value(protocol.ports, &written.ports, "port", sink);
    let source_port = one_value(protocol.source_ports, &written.source_ports, "source port", sink);
    let icmp_type = one_value(wide(protocol.icmp_types), &written.icmp_types, "type", sink);
    let icmp_code = one_value(wide(protocol.icmp_codes), &written.icmp_codes, "code", sink);
    set(request, attribute::PROTOCOL, protocol.number);
    match written.kind {
        ProtoKind::Tcp | ProtoKind::Udp | ProtoKind::Sctp => {
            let (port, source_port) = (port?, source_port?);
            let Some(port) = port else {
                let name = proto::name(written.kind);
                let message = format!("a {name} packet has a destination port");
                return sink.fail(
                    Diagnostic::new(codes::PORT_MISSING, message, proto::place(written), "no port")
                        .help("add `port NUMBER`"),
                );
            };
            set(request, attribute::DESTINATION_PORT, port);
            set(request, attribute::SOURCE_PORT, source_port.unwrap_or(SOURCE_PORT_DEFAULT));
        }
        ProtoKind::Icmp | ProtoKind::Icmpv6 => {
            let echo = if written.kind == ProtoKind::Icmp { ECHO_V4 } else { ECHO_V6 };
            let (icmp_type, icmp_code) = (icmp_type?.unwrap_or(echo), icmp_code?.unwrap_or(0));
            set(request, attribute::ICMP, icmp_type << 8 | icmp_code);
        }
        ProtoKind::Number(_) => {}
    }
    Some(protocol.number)
}

/// The only value of a list, when there is a list; `None` after an error.
fn one_value(
    ranges: Option<Vec<(u16, u16)>>,
    written: &Option<ast::Set>,
    word: &str,
    sink: &mut Sink,
) -> Option<Option<u16>> {
    match ranges.as_deref() {
        None => Some(None),
        Some(&[(first, last)]) if first == last => Some(Some(first)),
        Some(_) => {
            let span = written.as_ref().and_then(|set| set.members.first()).map(sets::member_span);
            sink.fail(
                Diagnostic::new(
                    codes::NOT_ONE_VALUE,
                    format!("a packet has one {word}, and several are said"),
                    span?,
                    "several values",
                )
                .help("write one number; add a second packet for another one"),
            )
        }
    }
}

/// The one address that a prefix without host part is.
fn host(written: &ast::Prefix, sink: &mut Sink) -> Option<IpAddr> {
    let bits: u8 = if written.address.is_ipv4() { 32 } else { 128 };
    match written.length {
        Some(length) if length < bits => {
            let message = format!(
                "`{}/{length}` is a network, and a packet has one address",
                written.address
            );
            sink.fail(
                Diagnostic::new(codes::NOT_A_HOST, message, written.span, "many addresses")
                    .help(format!("write one address, such as {}", written.address)),
            )
        }
        _ => sets::prefix(written, sink).map(|prefix| prefix.address),
    }
}

/// Both addresses, with defaults of the right family.
fn addresses(
    source: Option<IpAddr>,
    destination: Option<IpAddr>,
    protocol: Option<u8>,
    packet: &Packet<'_>,
    sink: &mut Sink,
) -> Option<[IpAddr; 2]> {
    let v6_protocol = protocol == Some(number::ICMPV6);
    let v6 = source.or(destination).map_or(v6_protocol, |address| address.is_ipv6());
    let family = |v6: bool| if v6 { "IPv6" } else { "IPv4" };
    let written = [packet.source, packet.destination];
    if let (Some(source), Some(destination)) = (source, destination)
        && source.is_ipv6() != destination.is_ipv6()
    {
        let [first, second] = written.map(|address| address.map(|address| address.span));
        let span = second.or(first)?;
        let message = format!(
            "the source is {}, the destination {}",
            family(source.is_ipv6()),
            family(destination.is_ipv6())
        );
        let diagnostic = Diagnostic::new(codes::MIXED_FAMILIES, message, span, "another family");
        let diagnostic = match first.filter(|_| second.is_some()) {
            Some(first) => diagnostic.and(first, family(source.is_ipv6())),
            None => diagnostic,
        };
        return sink.fail(diagnostic.help("write both addresses in one family"));
    }
    if let (Some(protocol), Some(proto)) = (protocol, packet.proto)
        && (v6_protocol != v6 && (v6_protocol || protocol == number::ICMP))
    {
        let name = proto::name(proto.kind);
        let (own, other) = (family(v6_protocol), family(v6));
        let message = format!("{name} runs over {own}, and the addresses are {other}");
        return sink.fail(
            Diagnostic::new(codes::MIXED_FAMILIES, message, proto::place(proto), own)
                .help("write `icmp` with IPv4 addresses, and `icmpv6` with IPv6 addresses"),
        );
    }
    let [from, to] = if v6 { V6_DEFAULTS } else { V4_DEFAULTS };
    Some([source.unwrap_or(from), destination.unwrap_or(to)])
}

/// Upper and lower half of an address as a big-endian number, IPv4 mapped.
pub(crate) fn halves(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    // The upper half fits by its shift; the lower one is cut off on purpose.
    [u64::try_from(bits >> 64).unwrap_or(0), bits as u64]
}
