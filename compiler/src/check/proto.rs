//! `proto` clauses: protocols with their ports or ICMP types.

use govc_grammar::ast::{self, ProtoKind};
use govc_grammar::diagnostic::{Applicability, Diagnostic};
use govc_grammar::span::Span;

use super::labels::said_twice;
use super::sets::{
    ICMP_CODES, ICMP_TYPES, ICMPV6_TYPES, Numbers, PORTS, SOURCE_PORTS, numbers, span_of,
};
use super::sink::Sink;
use crate::checked::Protocol;
use crate::codes;
use crate::resolve::Lookup;

/// IANA numbers of the protocols with a name.
pub(crate) mod number {
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const SCTP: u8 = 132;
}

/// The protocol with its ranges of ports, types and codes.
pub(crate) fn protocol(
    lookup: Lookup<'_, '_>,
    proto: &ast::Proto,
    sink: &mut Sink,
) -> Option<Protocol> {
    let number = protocol_number(proto.kind, sink);
    for repeated in &proto.repeated {
        let diagnostic = said_twice(repeated.word, repeated.second, repeated.first);
        sink.push(diagnostic.help(format!(
            "put all of them behind one `{}`, with commas between, or write a second `proto`",
            repeated.word
        )));
    }
    let has_ports = matches!(proto.kind, ProtoKind::Tcp | ProtoKind::Udp | ProtoKind::Sctp);
    let has_types = matches!(proto.kind, ProtoKind::Icmp | ProtoKind::Icmpv6);
    let mut list = |set: Option<&ast::Set>, meaning: Numbers, allowed: bool| {
        let Some(set) = set else { return Some(None) };
        if !allowed {
            let span = span_of(&set.members).unwrap_or(proto.span);
            return sink.fail(not_for(proto.kind, meaning, span));
        }
        numbers(lookup, set, meaning, sink).map(Some)
    };
    let [(ports, of_ports), (source_ports, of_source_ports), (types, of_types), (codes, of_codes)] =
        sets(proto);
    let ports = list(ports, of_ports, has_ports);
    let source_ports = list(source_ports, of_source_ports, has_ports);
    let icmp_types = list(types, of_types, has_types);
    let icmp_codes = list(codes, of_codes, has_types);
    Some(Protocol {
        number: number?,
        ports: ports?,
        source_ports: source_ports?,
        icmp_types: icmp_types?.map(bytes),
        icmp_codes: icmp_codes?.map(bytes),
    })
}

/// Destination ports, source ports, types and codes, each with what its numbers mean.
pub(crate) fn sets(proto: &ast::Proto) -> [(Option<&ast::Set>, Numbers); 4] {
    let types = match proto.kind {
        ProtoKind::Icmpv6 => ICMPV6_TYPES,
        _ => ICMP_TYPES,
    };
    [
        (proto.ports.as_ref(), PORTS),
        (proto.source_ports.as_ref(), SOURCE_PORTS),
        (proto.icmp_types.as_ref(), types),
        (proto.icmp_codes.as_ref(), ICMP_CODES),
    ]
}

fn protocol_number(kind: ProtoKind, sink: &mut Sink) -> Option<u8> {
    match kind {
        ProtoKind::Tcp => Some(number::TCP),
        ProtoKind::Udp => Some(number::UDP),
        ProtoKind::Sctp => Some(number::SCTP),
        ProtoKind::Icmp => Some(number::ICMP),
        ProtoKind::Icmpv6 => Some(number::ICMPV6),
        ProtoKind::Number(int) => match u8::try_from(int.value) {
            Ok(number) => Some(number),
            Err(_) => {
                let message = format!("protocol number {} is above 255", int.value);
                sink.fail(
                    Diagnostic::new(codes::PROTO_TOO_LARGE, message, int.span, "too large")
                        .help("protocols have 8 bits: write a number of the IANA registry"),
                )
            }
        },
    }
}

fn not_for(kind: ProtoKind, meaning: Numbers, span: Span) -> Diagnostic {
    let protocol = name(kind);
    let word = meaning.word;
    let ports = word == PORTS.word || word == SOURCE_PORTS.word;
    let (code, owners) = if ports {
        (codes::PROTO_WITHOUT_PORTS, "`tcp`, `udp` and `sctp`")
    } else {
        (codes::PROTO_WITHOUT_TYPES, "`icmp` and `icmpv6`")
    };
    let by_name = match kind {
        ProtoKind::Number(int) => named(int.value, ports),
        _ => None,
    };
    let help = match by_name {
        Some(better) => format!("write `proto {better} {word} ..`"),
        None => format!("only {owners} have a {word}"),
    };
    let message = format!("{protocol} has no {word}");
    let diagnostic = Diagnostic::new(code, message, span, format!("a {word}")).help(help);
    match (kind, by_name) {
        (ProtoKind::Number(int), Some(better)) => {
            diagnostic.replace(int.span, better, Applicability::MachineApplicable)
        }
        _ => diagnostic,
    }
}

/// The name of a protocol that was written as a number and has what was asked of it.
fn named(value: u64, ports: bool) -> Option<&'static str> {
    match (u8::try_from(value).ok()?, ports) {
        (number::TCP, true) => Some("tcp"),
        (number::UDP, true) => Some("udp"),
        (number::SCTP, true) => Some("sctp"),
        (number::ICMP, false) => Some("icmp"),
        (number::ICMPV6, false) => Some("icmpv6"),
        _ => None,
    }
}

/// How messages call a protocol.
pub(crate) fn name(kind: ProtoKind) -> String {
    match kind {
        ProtoKind::Tcp => "`tcp`".to_owned(),
        ProtoKind::Udp => "`udp`".to_owned(),
        ProtoKind::Sctp => "`sctp`".to_owned(),
        ProtoKind::Icmp => "`icmp`".to_owned(),
        ProtoKind::Icmpv6 => "`icmpv6`".to_owned(),
        ProtoKind::Number(int) => format!("protocol {}", int.value),
    }
}

/// Where the protocol itself stands, without what follows it.
pub(crate) fn place(proto: &ast::Proto) -> Span {
    let length = match proto.kind {
        ProtoKind::Tcp | ProtoKind::Udp => 3,
        ProtoKind::Sctp | ProtoKind::Icmp => 4,
        ProtoKind::Icmpv6 => 6,
        ProtoKind::Number(int) => return int.span,
    };
    Span::new(proto.span.file, proto.span.start, proto.span.start + length)
}

/// Ranges that were kept below 256.
fn bytes(ranges: Vec<(u16, u16)>) -> Vec<(u8, u8)> {
    let byte = |value| u8::try_from(value).unwrap_or(u8::MAX);
    ranges.into_iter().map(|(first, last)| (byte(first), byte(last))).collect()
}
