//! Sets of prefixes and of ports: `let` items, and lists in rules.

use std::net::IpAddr;

use govc_grammar::ast::{self, SetMember};
use govc_grammar::diagnostic::{Code, Diagnostic};
use govc_grammar::span::Span;
use petgraph::graph::{DiGraph, NodeIndex};
use smol_str::SmolStr;

use super::cycles::{self, Circle};
use super::kind::Kind;
use super::ranges::{self, blocks, common, meets, without};
use super::sink::Sink;
use super::well_known;
use crate::checked::Prefix;
use crate::codes;
use crate::resolve::{Lookup, World};

/// What a set contains, sorted, without overlaps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SetValue {
    Prefixes(Vec<Prefix>),
    /// Inclusive ranges.
    Ports(Vec<(u16, u16)>),
    /// An error was reported.
    Broken,
}

/// Members that a description lists.
const DESCRIBED_MAX: usize = 8;

impl SetValue {
    /// Its kind and its members, in words.
    pub(crate) fn describe(&self) -> (Kind, String) {
        let (kind, count, members): (_, _, Vec<String>) = match self {
            Self::Broken => return (Kind::Prefixes, "has errors".to_owned()),
            Self::Prefixes(list) => {
                let member = |prefix: &Prefix| format!("{}/{}", prefix.address, prefix.length);
                (Kind::Prefixes, list.len(), list.iter().take(DESCRIBED_MAX).map(member).collect())
            }
            Self::Ports(list) => {
                let member = |&(first, last): &(u16, u16)| match first == last {
                    true => first.to_string(),
                    false => format!("{first}..{last}"),
                };
                (Kind::Ports, list.len(), list.iter().take(DESCRIBED_MAX).map(member).collect())
            }
        };
        let more = if count > DESCRIBED_MAX { ", .." } else { "" };
        (kind, format!("{}{more}", members.join(", ")))
    }
}

/// What the numbers of a list mean, and how large they may be.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    /// The word before the list: `port`.
    pub(crate) word: &'static str,
    max: u16,
    code: Code,
    reason: &'static str,
    /// What some of them are called elsewhere.
    names: well_known::Names,
    /// One of them.
    example: u16,
}

impl Numbers {
    /// What to do about a name that stands where one of these belongs; nothing for ports that nobody
    /// knows, which a set is meant for.
    pub(crate) fn advice(self, name: &str) -> Option<String> {
        let word = self.word;
        match well_known::number(self.names, name) {
            Some(number) => Some(format!(
                "write its number, `{word} {number}`, or declare it with `let {name} = {number}`"
            )),
            None if self.max == PORTS.max => None,
            None => Some(format!(
                "write its number, such as `{word} {example}`, or declare it with `let {name} = {example}`",
                example = self.example
            )),
        }
    }
}

/// Ports of TCP, UDP and SCTP.
pub(crate) const PORTS: Numbers = Numbers {
    word: "port",
    max: u16::MAX,
    code: codes::PORT_TOO_LARGE,
    reason: "ports have 16 bits: write a number up to 65535",
    names: well_known::PORTS,
    example: 80,
};
/// Source ports.
pub(crate) const SOURCE_PORTS: Numbers = Numbers { word: "source port", ..PORTS };
/// ICMP types.
pub(crate) const ICMP_TYPES: Numbers = Numbers {
    word: "type",
    max: 255,
    code: codes::ICMP_TOO_LARGE,
    reason: "ICMP types and codes have 8 bits: write a number up to 255",
    names: well_known::ICMP_TYPES,
    example: 8,
};
/// ICMPv6 types.
pub(crate) const ICMPV6_TYPES: Numbers =
    Numbers { names: well_known::ICMPV6_TYPES, example: 128, ..ICMP_TYPES };
/// ICMP codes.
pub(crate) const ICMP_CODES: Numbers =
    Numbers { word: "code", names: &[], example: 0, ..ICMP_TYPES };

/// Evaluates every `let`, those that others refer to first.
pub(crate) fn evaluate_all(world: &mut World<'_>, sink: &mut Sink) {
    world.set_values = vec![SetValue::Broken; world.sets.len()];
    let mut graph: DiGraph<(), Span> = DiGraph::new();
    let nodes: Vec<NodeIndex> = world.sets.iter().map(|_| graph.add_node(())).collect();
    for (set, &node) in world.sets.iter().zip(&nodes) {
        let Some(lookup) = world.lookup(set.file) else { continue };
        for member in set.source.set.all() {
            let SetMember::Name(name) = member else { continue };
            // What cannot be found is reported here, and only here: places have one diagnostic.
            if let Some(&other) = lookup.set(name, sink).and_then(|at| nodes.get(at)) {
                graph.add_edge(node, other, name.span);
            }
        }
    }
    for (component, circle) in cycles::components(&graph) {
        if let Some(first) = circle {
            let diagnostic = circle_of_sets(world).diagnostic(&graph, &component, first);
            sink.push(diagnostic);
            continue;
        }
        let Some(at) = component.first().map(|only| only.index()) else { continue };
        let value = world
            .sets
            .get(at)
            .and_then(|set| evaluate(world.lookup(set.file)?, &set.source.set, sink));
        if let (Some(slot), Some(value)) = (world.set_values.get_mut(at), value) {
            *slot = value;
        }
    }
}

fn circle_of_sets(world: &World<'_>) -> Circle<impl Fn(NodeIndex) -> SmolStr> {
    let set = |node: NodeIndex| world.sets.get(node.index());
    Circle {
        code: codes::SET_CYCLE,
        noun: "set",
        does: "contains itself",
        refers: "refers to",
        help: "write the members of one of these sets out",
        name: move |node| set(node).map(|set| set.source.name.text.clone()).unwrap_or_default(),
    }
}

/// The value of a `let`: all members must be of the first one's type.
fn evaluate(lookup: Lookup<'_, '_>, set: &ast::Set, sink: &mut Sink) -> Option<SetValue> {
    let (kind, ranges) = whole_set(lookup, set, Wanted::Anything, PORTS, sink)?;
    Some(match kind {
        Kind::Prefixes => SetValue::Prefixes(ranges.prefixes()),
        _ => SetValue::Ports(ranges.ports()),
    })
}

/// A set where only prefixes make sense, after `word`.
pub(crate) fn prefixes(
    lookup: Lookup<'_, '_>,
    set: &ast::Set,
    word: &str,
    sink: &mut Sink,
) -> Option<Vec<Prefix>> {
    if let ([SetMember::Prefix(written)], None) = (set.members.as_slice(), &set.narrowed) {
        return prefix(written, sink).map(|prefix| vec![prefix]);
    }
    let wanted = Wanted::Only(Kind::Prefixes, word);
    whole_set(lookup, set, wanted, PORTS, sink).map(|(_, ranges)| ranges.prefixes())
}

/// A set where only numbers make sense.
pub(crate) fn numbers(
    lookup: Lookup<'_, '_>,
    set: &ast::Set,
    numbers: Numbers,
    sink: &mut Sink,
) -> Option<Vec<(u16, u16)>> {
    if let Some(ranges) = plain_numbers(&set.members, numbers).filter(|_| set.narrowed.is_none()) {
        return Some(ranges);
    }
    let wanted = Wanted::Only(Kind::Ports, numbers.word);
    whole_set(lookup, set, wanted, numbers, sink).map(|(_, ranges)| ranges.ports())
}

/// What the members of a set have to be.
#[derive(Clone, Copy)]
enum Wanted<'w> {
    Anything,
    /// What the first one was, which stands there.
    Same(Kind, Span),
    /// What makes sense after a word.
    Only(Kind, &'w str),
}

impl Wanted<'_> {
    /// Why a member of another type does not belong here.
    fn mismatch(self, member: &SetMember, found: Kind) -> Option<Diagnostic> {
        match self {
            Self::Same(wanted, first) if wanted != found => {
                let (found, wanted) = (value_noun(found), value_noun(wanted));
                let message = format!("the set mixes {wanted} and {found}");
                let diagnostic =
                    Diagnostic::new(codes::MIXED_SET, message, member_span(member), found);
                Some(diagnostic.and(first, wanted).help("make two sets of it"))
            }
            Self::Only(wanted, word) if wanted != found => {
                Some(mismatch(member, word, wanted, found))
            }
            _ => None,
        }
    }
}

/// Members, and what `within` and `except` leave of them.
fn whole_set(
    lookup: Lookup<'_, '_>,
    set: &ast::Set,
    mut wanted: Wanted<'_>,
    numbers: Numbers,
    sink: &mut Sink,
) -> Option<(Kind, Ranges)> {
    let members = collect(lookup, &set.members, &mut wanted, numbers, sink);
    let Some(narrowed) = &set.narrowed else { return members };
    let within = collect(lookup, &narrowed.within, &mut wanted, numbers, sink);
    let except = collect(lookup, &narrowed.except, &mut wanted, numbers, sink);
    let (kind, members) = members?;
    let mut left = members.united();
    if let Some(list) = span_of(&narrowed.within) {
        left = common(&left, &within?.1.united());
        if left.is_empty() {
            return sink.fail(nothing_left(list, "nothing of it lies in these"));
        }
    }
    if let Some(list) = span_of(&narrowed.except) {
        let except = except?.1;
        warn_no_exception(&left, &except, &narrowed.except, sink);
        left = without(&left, &except.united());
        if left.is_empty() {
            return sink.fail(nothing_left(list, "all of it is taken out"));
        }
    }
    Some((kind, Ranges::of(&left, kind)))
}

/// From the first member of a list to the last.
pub(crate) fn span_of(members: &[SetMember]) -> Option<Span> {
    let (first, last) = (members.first()?, members.last()?);
    Some(member_span(first).to(member_span(last)))
}

fn nothing_left(span: Span, label: &str) -> Diagnostic {
    Diagnostic::new(codes::NOTHING_LEFT, "nothing is left of the set", span, label)
        .help("a rule about an empty set matches nothing: remove the rule, or take less away")
}

fn warn_no_exception(from: &[Range], except: &Ranges, members: &[SetMember], sink: &mut Sink) {
    let mut effective = vec![false; members.len()];
    for &(range, at) in &except.0 {
        if let Some(effective) = effective.get_mut(at) {
            *effective |= meets(from, range);
        }
    }
    for (member, _) in members.iter().zip(effective).filter(|(_, effective)| !effective) {
        let message = format!("`{}` takes nothing out", member_text(member));
        sink.push(
            Diagnostic::new(codes::NO_EXCEPTION, message, member_span(member), "not in the set")
                .help("remove it, or mend it: what it stands for is not in the set anyway"),
        );
    }
}

/// All members of a list, unless an error was reported.
fn collect(
    lookup: Lookup<'_, '_>,
    members: &[SetMember],
    wanted: &mut Wanted<'_>,
    numbers: Numbers,
    sink: &mut Sink,
) -> Option<(Kind, Ranges)> {
    let mut ranges = Ranges::default();
    let mut whole = true;
    for (at, member) in members.iter().enumerate() {
        let before = ranges.0.len();
        let Some(kind) = ranges.add(lookup, (member, at), *wanted, numbers, sink) else {
            whole = false;
            continue;
        };
        if let Some(diagnostic) = wanted.mismatch(member, kind) {
            whole = false;
            ranges.0.truncate(before);
            sink.push(diagnostic);
        } else if matches!(wanted, Wanted::Anything) {
            *wanted = Wanted::Same(kind, member_span(member));
        }
    }
    ranges.sort(members, sink);
    match *wanted {
        Wanted::Same(kind, _) | Wanted::Only(kind, _) if whole => Some((kind, ranges)),
        _ => None,
    }
}

/// Numbers and ranges in ascending order, as almost all lists are.
fn plain_numbers(members: &[SetMember], numbers: Numbers) -> Option<Vec<(u16, u16)>> {
    let mut ranges: Vec<(u16, u16)> = Vec::with_capacity(members.len());
    for member in members {
        let (first, last) = match member {
            SetMember::Int(int) => (int.value, int.value),
            SetMember::Range(first, last) if first.value <= last.value => (first.value, last.value),
            _ => return None,
        };
        let range = (u16::try_from(first).ok()?, u16::try_from(last).ok()?);
        // Adjacent ranges are put together by the long way.
        let apart = ranges.last().is_none_or(|&(_, end)| u64::from(end) + 1 < first);
        if !apart || last > numbers.max.into() {
            return None;
        }
        ranges.push(range);
    }
    Some(ranges)
}

fn mismatch(member: &SetMember, word: &str, wanted: Kind, found: Kind) -> Diagnostic {
    let (wanted, found) = (value_noun(wanted), value_noun(found));
    let text = member_text(member);
    let message = match member {
        SetMember::Name(_) => {
            format!("`{word}` takes {wanted}, and `{text}` is a set of {found}")
        }
        SetMember::Prefix(_) => format!("`{word}` takes {wanted}, and `{text}` is a prefix"),
        _ => format!("`{word}` takes {wanted}, and `{text}` is a number"),
    };
    let help = if wanted == "prefixes" {
        "write addresses, such as 10.0.0.0/8, or the name of a set of prefixes"
    } else {
        "write numbers, such as 80 or 8000..8099, or the name of a set of ports"
    };
    Diagnostic::new(codes::SET_MISMATCH, message, member_span(member), found).help(help)
}

fn value_noun(kind: Kind) -> &'static str {
    if kind == Kind::Ports { "ports" } else { "prefixes" }
}

/// A prefix whose host bits are zero.
pub(crate) fn prefix(written: &ast::Prefix, sink: &mut Sink) -> Option<Prefix> {
    let bits: u8 = if written.address.is_ipv4() { 32 } else { 128 };
    let length = written.length.unwrap_or(bits);
    if length > bits {
        let message = format!("prefix length {length} is more than the {bits} bits of the address");
        return sink.fail(
            Diagnostic::new(codes::PREFIX_LENGTH, message, written.span, "too long")
                .help(format!("write a length up to {bits}")),
        );
    }
    let address = masked(written.address, length);
    if address != written.address {
        let message = format!("`{}/{length}` has host bits", written.address);
        return sink.fail(
            Diagnostic::new(codes::HOST_BITS, message, written.span, "host bits are not zero")
                .help(format!(
                    "write {address}/{length} for the network, or {}/{bits} for the host",
                    written.address
                )),
        );
    }
    Some(Prefix { address, length })
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    let host_bits = |bits: u32| bits.saturating_sub(length.into());
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(host_bits(32)).unwrap_or(0);
            IpAddr::V4((v4.to_bits() & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(host_bits(128)).unwrap_or(0);
            IpAddr::V6((v6.to_bits() & mask).into())
        }
    }
}

fn number(int: &ast::Int, numbers: Numbers, sink: &mut Sink) -> Option<u16> {
    match u16::try_from(int.value) {
        Ok(number) if number <= numbers.max => Some(number),
        _ => sink.fail(too_large(int.value, int.span, numbers)),
    }
}

fn too_large(value: u64, span: Span, numbers: Numbers) -> Diagnostic {
    let message = format!("{} {value} is above {}", numbers.word, numbers.max);
    Diagnostic::new(numbers.code, message, span, "too large").help(numbers.reason)
}

fn range(
    first: &ast::Int,
    last: &ast::Int,
    numbers: Numbers,
    sink: &mut Sink,
) -> Option<(u16, u16)> {
    let ends = (number(first, numbers, sink), number(last, numbers, sink));
    let (Some(low), Some(high)) = ends else { return None };
    if low > high {
        let message = format!("the range {low}..{high} ends before it begins");
        let span = first.span.to(last.span);
        return sink.fail(
            Diagnostic::new(codes::REVERSED_RANGE, message, span, "reversed")
                .help(format!("write {high}..{low}")),
        );
    }
    Some((low, high))
}

pub(crate) fn member_span(member: &SetMember) -> Span {
    match member {
        SetMember::Prefix(prefix) => prefix.span,
        SetMember::Int(int) => int.span,
        SetMember::Range(first, last) => first.span.to(last.span),
        SetMember::Name(name) => name.span,
    }
}

fn member_text(member: &SetMember) -> String {
    match member {
        SetMember::Prefix(ast::Prefix { address, length: Some(length), .. }) => {
            format!("{address}/{length}")
        }
        SetMember::Prefix(prefix) => prefix.address.to_string(),
        SetMember::Int(int) => int.value.to_string(),
        SetMember::Range(first, last) => format!("{}..{}", first.value, last.value),
        SetMember::Name(name) => name.text.to_string(),
    }
}

/// A set member as numbers, by whether it is IPv6.
type Range = ranges::Range<bool>;

fn prefix_range(prefix: &Prefix) -> Range {
    let hosts = |bits: u32| {
        let host_bits = bits.saturating_sub(prefix.length.into());
        1_u128.checked_shl(host_bits).unwrap_or(0).wrapping_sub(1)
    };
    match prefix.address {
        IpAddr::V4(v4) => {
            let first = u128::from(v4.to_bits());
            (false, first, first | hosts(32))
        }
        IpAddr::V6(v6) => (true, v6.to_bits(), v6.to_bits() | hosts(128)),
    }
}

fn port_range(&(first, last): &(u16, u16)) -> Range {
    (false, first.into(), last.into())
}

/// Ranges with the position of the member that each comes from.
#[derive(Default)]
struct Ranges(Vec<(Range, usize)>);

impl Ranges {
    /// Adds what a member contains; answers with its type unless an error was reported.
    fn add(
        &mut self,
        lookup: Lookup<'_, '_>,
        (member, at): (&SetMember, usize),
        wanted: Wanted<'_>,
        numbers: Numbers,
        sink: &mut Sink,
    ) -> Option<Kind> {
        match member {
            SetMember::Prefix(written) => {
                self.0.push((prefix_range(&prefix(written, sink)?), at));
                Some(Kind::Prefixes)
            }
            SetMember::Int(int) => {
                let number = number(int, numbers, sink)?;
                self.0.push((port_range(&(number, number)), at));
                Some(Kind::Ports)
            }
            SetMember::Range(first, last) => {
                self.0.push((port_range(&range(first, last, numbers, sink)?), at));
                Some(Kind::Ports)
            }
            SetMember::Name(name) => {
                let set = match wanted {
                    Wanted::Only(Kind::Ports, _) => lookup.set_of_numbers(name, numbers, sink)?,
                    _ => lookup.set(name, sink)?,
                };
                match lookup.world.set_values.get(set)? {
                    SetValue::Prefixes(list) => {
                        self.0.extend(list.iter().map(|prefix| (prefix_range(prefix), at)));
                        Some(Kind::Prefixes)
                    }
                    SetValue::Ports(list) => match list.last() {
                        Some(&(_, last)) if last > numbers.max => {
                            sink.fail(too_large(last.into(), name.span, numbers))
                        }
                        _ => {
                            self.0.extend(list.iter().map(|range| (port_range(range), at)));
                            Some(Kind::Ports)
                        }
                    },
                    SetValue::Broken => None,
                }
            }
        }
    }

    /// Sorts, and warns about members that overlap.
    fn sort(&mut self, members: &[SetMember], sink: &mut Sink) {
        // Larger ranges first where two begin together, so that the smaller one is reported.
        self.0.sort_unstable_by_key(|&((v6, first, last), member)| {
            (v6, first, std::cmp::Reverse(last), member)
        });
        let mut widest: Option<(Range, usize)> = None;
        for &(range, member) in &self.0 {
            if let Some(((v6, _, last), owner)) = widest
                && v6 == range.0
                && range.1 <= last
            {
                if owner != member {
                    warn_overlap(members, member, owner, range.2 <= last, sink);
                }
                if range.2 <= last {
                    continue;
                }
            }
            widest = Some((range, member));
        }
    }

    /// Disjoint ranges, each as one member; those of prefixes begin and end where prefixes do.
    fn of(disjoint: &[Range], kind: Kind) -> Self {
        let blocks = disjoint.iter().flat_map(|&range| match kind {
            Kind::Prefixes => blocks(range),
            _ => vec![range],
        });
        Self(blocks.enumerate().map(|(at, range)| (range, at)).collect())
    }

    /// Sorted, without overlaps, and with a gap between each two.
    fn united(&self) -> Vec<Range> {
        let mut united: Vec<Range> = Vec::with_capacity(self.0.len());
        for &((v6, first, last), _) in &self.0 {
            match united.last_mut() {
                Some((known_v6, _, end)) if *known_v6 == v6 && first <= end.saturating_add(1) => {
                    *end = last.max(*end);
                }
                _ => united.push((v6, first, last)),
            }
        }
        united
    }

    /// Without what others contain. Prefixes that overlap contain each other.
    fn prefixes(self) -> Vec<Prefix> {
        let mut prefixes: Vec<Prefix> = Vec::with_capacity(self.0.len());
        let mut widest: Option<Range> = None;
        for ((v6, first, last), _) in self.0 {
            if widest.is_some_and(|(wide_v6, _, end)| wide_v6 == v6 && last <= end) {
                continue;
            }
            widest = Some((v6, first, last));
            let host_bits = 128 - (first ^ last).leading_zeros();
            let bits = if v6 { 128 } else { 32 };
            let address = if v6 {
                IpAddr::V6(first.into())
            } else {
                IpAddr::V4(u32::try_from(first).unwrap_or(0).into())
            };
            let length = u8::try_from(bits - host_bits.min(bits)).unwrap_or(0);
            prefixes.push(Prefix { address, length });
        }
        prefixes
    }

    /// With overlapping and adjacent ranges put together.
    fn ports(self) -> Vec<(u16, u16)> {
        let mut ports: Vec<(u16, u16)> = Vec::with_capacity(self.0.len());
        for ((_, first, last), _) in self.0 {
            let port = |value| u16::try_from(value).unwrap_or(u16::MAX);
            let (first, last) = (port(first), port(last));
            match ports.last_mut() {
                Some(previous) if first <= previous.1.saturating_add(1) => {
                    previous.1 = previous.1.max(last);
                }
                _ => ports.push((first, last)),
            }
        }
        ports
    }
}

fn warn_overlap(
    members: &[SetMember],
    member: usize,
    owner: usize,
    contained: bool,
    sink: &mut Sink,
) {
    let (Some(inner), Some(outer)) = (members.get(member), members.get(owner)) else { return };
    let (inner_text, outer_text) = (member_text(inner), member_text(outer));
    let message = if inner_text == outer_text {
        format!("`{inner_text}` is named twice")
    } else if contained && !matches!(inner, SetMember::Name(_)) {
        format!("`{inner_text}` lies within `{outer_text}`")
    } else {
        format!("`{inner_text}` overlaps `{outer_text}`")
    };
    sink.push(
        Diagnostic::new(codes::OVERLAP, message, member_span(inner), "overlaps")
            .and(member_span(outer), "this member")
            .help("remove what is there twice"),
    );
}
