//! Which packets there can be: what is said about others matters to nobody.

use std::collections::BTreeMap;

use govc_abi::{
    attribute::{self, Attribute, Request, SCOPE_NONE, scope_key, shape, state},
    event::hook,
    label::radius,
    limits::SUBJECTS_MAX,
};

use smol_str::SmolStr;

use crate::{
    checked::{Domain, Hook, Legacy, Policy},
    class::value_of,
    interpret,
    lower::prefixes,
    table::{IntervalSet, Row, max_of},
};

/// ICMP, TCP, UDP, ICMPv6, SCTP.
const ICMP: u128 = 1;
const TCP: u128 = 6;
const UDP: u128 = 17;
const ICMPV6: u128 = 58;
const SCTP: u128 = 132;
/// Largest level and radius that a label has room for.
const NIBBLE_MAX: u128 = 15;
/// Labels of legacy neighbours that are told apart, and rules that are read for them.
const LEGACIES_TOLD: usize = 64;
const LEGACIES_READ: usize = 1 << 10;
const ADDRESS_BITS: u8 = 128;

type Cells = Vec<(Attribute, IntervalSet)>;

/// Whoever has a label or a legacy rule.
pub(super) fn identified() -> Row {
    row(vec![
        (attribute::STATE, between(state::LEGACY.into(), state::VALID.into())),
        (attribute::SHAPE, one(shape::WHOLE.into())),
    ])
}

/// All packets that there can be at a hook, whatever the vocabulary becomes.
pub(super) fn possible(policy: &Policy, hook: Hook) -> Vec<Row> {
    let valid = one(state::VALID.into());
    let mut origins = vec![unlabelled()];
    for (index, domain) in (0..).zip(policy.domains()) {
        origins.push(any_label(index, bits(&domain.constraints), valid.clone()));
    }
    origins.extend(legacies(policy, hook));
    at_hook(origins, (policy.times().len(), policy.shapes()), hook)
}

/// All packets that there can be by the vocabulary alone, whoever the legacy neighbours are: given the
/// constraints that each domain names, how many moments there are, and what is let through besides
/// whole packets.
pub(super) fn possible_with(
    domains: impl Iterator<Item = u16>,
    limits: (usize, u32),
    hook: Hook,
) -> Vec<Row> {
    let states = between(state::LEGACY.into(), state::VALID.into());
    let labels = (0..).zip(domains).map(|(index, bits)| any_label(index, bits, states.clone()));
    at_hook(std::iter::once(unlabelled()).chain(labels).collect(), limits, hook)
}

/// Whether a packet can be, as far as legacy rules decide about it.
pub(super) fn is_real(policy: &Policy, request: &Request) -> bool {
    let get = |attribute| value_of(request, attribute);
    if get(attribute::STATE) != u128::from(state::LEGACY) {
        return true;
    }
    let speaks = interpret::legacy(policy, request).and_then(|at| policy.legacies().get(at));
    speaks.is_some_and(|rule| said(rule).iter().all(|&(attribute, value)| get(attribute) == value))
}

/// Packets that can be written down: every value has a name.
pub(super) fn named(policy: &Policy, hook: Hook) -> Vec<Row> {
    let mut origins = vec![unlabelled()];
    for (index, domain) in (0..).zip(policy.domains()) {
        origins.push(labelled(index, domain));
    }
    origins.extend(legacies(policy, hook));
    let zones = between(0, policy.zones().len() as u128);
    let objects = policy.domains().iter().zip(0..).flat_map(|(domain, index)| {
        subjects(index, domain).into_iter().chain([(SCOPE_NONE.into(), SCOPE_NONE.into())])
    });
    let objects = IntervalSet::new(objects.collect());
    for origin in &mut origins {
        if !origin.iter().any(|(attribute, _)| *attribute == attribute::INGRESS_ZONE) {
            origin.push((attribute::INGRESS_ZONE, zones.clone()));
        }
        if hook == 0 {
            origin.push((attribute::OBJECT, objects.clone()));
        } else {
            origin.push((attribute::EGRESS_ZONE, zones.clone()));
        }
    }
    at_hook(origins, (policy.times().len(), policy.shapes()), hook)
}

fn at_hook(origins: Vec<Cells>, (times, shapes): (usize, u32), hook: Hook) -> Vec<Row> {
    let unknown = if hook == 0 {
        (attribute::EGRESS_ZONE, one(0))
    } else {
        (attribute::OBJECT, one(SCOPE_NONE.into()))
    };
    let transports = transports(shapes);
    let each = origins.iter().flat_map(|origin| {
        let unknown = &unknown;
        transports.iter().filter_map(move |transport| {
            let mut cells = origin.clone();
            cells.push((attribute::CGROUP, one(0)));
            cells.push((attribute::TIME, between(0, times as u128)));
            cells.push(unknown.clone());
            for (attribute, set) in transport {
                match cells.iter_mut().find(|(other, _)| other == attribute) {
                    Some((_, own)) => *own = own.intersect(set),
                    None => cells.push((*attribute, set.clone())),
                }
            }
            let exists = cells.iter().all(|(_, set)| !set.is_empty());
            exists.then(|| row(cells))
        })
    });
    each.collect()
}

/// Ports belong to TCP, UDP and SCTP, types to ICMP, which has a number for each family. Fragments show
/// neither.
fn transports(shapes: u32) -> Vec<Cells> {
    let (first, last) = (0xffff << 32, 0xffff_ffff_ffff);
    let v4 = between(first, last);
    let v6 = v4.complement(128);
    let with_ports = IntervalSet::new([TCP, UDP, SCTP].map(|p| (p, p)).into());
    let mut plain = with_ports.intervals().to_vec();
    plain.extend([(ICMP, ICMP), (ICMPV6, ICMPV6)]);
    let plain = IntervalSet::new(plain).complement(8);
    let no_ports = [(attribute::SOURCE_PORT, one(0)), (attribute::DESTINATION_PORT, one(0))];
    let all = (0..=shape::ALL).filter(|value| value & !shapes == 0);
    let (fragments, others): (Vec<u32>, Vec<u32>) =
        all.partition(|value| value & shape::FRAGMENT != 0);
    let values = |list: Vec<u32>| {
        let each = list.into_iter().map(|value| (value.into(), value.into()));
        (attribute::SHAPE, IntervalSet::new(each.collect()))
    };
    let (fragments, others) = (values(fragments), values(others));
    let mut list = Vec::new();
    for (family, icmp) in [(v4, ICMP), (v6, ICMPV6)] {
        let ends = [(attribute::SOURCE, family.clone()), (attribute::DESTINATION, family)];
        let with = |protocol: IntervalSet, ports: bool, types: bool| {
            let mut cells: Cells = ends.to_vec();
            cells.extend([(attribute::PROTOCOL, protocol), others.clone()]);
            if !ports {
                cells.extend(no_ports.clone());
            }
            if !types {
                cells.push((attribute::ICMP, one(0)));
            }
            cells
        };
        list.push(with(plain.clone(), false, false));
        list.push(with(with_ports.clone(), true, false));
        list.push(with(one(icmp), false, true));
        if !fragments.1.is_empty() {
            let mut cells = with(other_family(icmp), false, false);
            cells.retain(|(attribute, _)| *attribute != attribute::SHAPE);
            cells.push(fragments.clone());
            list.push(cells);
        }
    }
    list
}

/// All protocols but the ICMP of the family that this one is not of.
fn other_family(icmp: u128) -> IntervalSet {
    one(if icmp == ICMP { ICMPV6 } else { ICMP }).complement(8)
}

/// On a packet without label all label attributes are zero.
fn unlabelled() -> Cells {
    let mut cells: Cells = vec![
        (attribute::STATE, one(state::ABSENT.into())),
        (attribute::SUBJECT, one(SCOPE_NONE.into())),
    ];
    cells.extend((attribute::LEVEL..=attribute::ROUTE).map(|attribute| (attribute, one(0))));
    cells
}

fn subjects(index: u32, domain: &Domain) -> Vec<(u128, u128)> {
    let named = domain.scopes.iter().filter_map(|scope| scope.subjects);
    let key = |number| u128::from(scope_key(index, number));
    named.map(|(first, last)| (key(first), key(last))).collect()
}

fn labelled(index: u32, domain: &Domain) -> Cells {
    let numbers = |list: Vec<u128>| {
        IntervalSet::new(list.into_iter().chain([0]).map(|number| (number, number)).collect())
    };
    let levels = domain.levels.iter().map(|&(_, level)| (level.into(), level.into()));
    vec![
        (attribute::STATE, one(state::VALID.into())),
        (attribute::SUBJECT, IntervalSet::new(subjects(index, domain))),
        (attribute::LEVEL, IntervalSet::new(levels.collect())),
        (attribute::RADIUS, between(0, radius::ANY.into())),
        (attribute::COMPARTMENTS, within(bits(&domain.compartments))),
        (attribute::CONSTRAINTS, within(bits(&domain.constraints))),
        (
            attribute::OPERATION,
            numbers(domain.operations.iter().map(|(_, number)| (*number).into()).collect()),
        ),
        (
            attribute::RESIDENCY,
            numbers(domain.residencies.iter().map(|residency| residency.number.into()).collect()),
        ),
        (
            attribute::ROUTE,
            numbers(domain.routes.iter().map(|(_, number)| (*number).into()).collect()),
        ),
    ]
}

/// A label of a domain with any values in it.
fn any_label(index: u32, constraints: u16, states: IntervalSet) -> Cells {
    let last = scope_key(index, SUBJECTS_MAX - 1);
    vec![
        (attribute::STATE, states),
        (attribute::SUBJECT, between(scope_key(index, 0).into(), last.into())),
        (attribute::LEVEL, between(0, NIBBLE_MAX)),
        (attribute::RADIUS, between(0, NIBBLE_MAX)),
        // A label with others is dropped before any rule.
        (attribute::CONSTRAINTS, within(constraints)),
    ]
}

/// What a legacy rule says of its neighbours' packets: their zone, and the label that they count as.
type Said = [(Attribute, u128); 9];

/// Packets of legacy neighbours. They arrive: what leaves has a label, or does not leave. The first rule
/// that matches counts, so that each speaks for what is left by those before it. Where there are very many,
/// the last ones are put together, to more packets than there are.
fn legacies(policy: &Policy, hook: Hook) -> Vec<Cells> {
    if hook == usize::from(hook::EGRESS) {
        return Vec::new();
    }
    let mut told: Vec<(Said, IntervalSet)> = Vec::new();
    let mut taken: BTreeMap<u8, IntervalSet> = BTreeMap::new();
    let mut rules = policy.legacies().iter();
    for rule in rules.by_ref().take(LEGACIES_READ) {
        let all = prefixes(&rule.addresses);
        let before = taken.entry(rule.zone).or_insert_with(|| IntervalSet::new(Vec::new()));
        let own = all.intersect(&before.complement(ADDRESS_BITS));
        *before = union(before, &all);
        if own.is_empty() {
            continue;
        }
        let said = said(rule);
        match told.iter_mut().find(|(other, _)| *other == said) {
            Some((_, addresses)) => *addresses = union(addresses, &own),
            None => told.push((said, own)),
        }
        if told.len() == LEGACIES_TOLD {
            break;
        }
    }
    let each = told.into_iter().map(|(said, addresses)| {
        let label = said.iter().map(|&(attribute, value)| (attribute, one(value)));
        legacy(label.collect(), addresses)
    });
    each.chain(together(rules.as_slice())).collect()
}

/// One box around all packets that these rules speak for.
fn together(rules: &[Legacy]) -> Option<Cells> {
    let mut label: BTreeMap<Attribute, Vec<(u128, u128)>> = BTreeMap::new();
    for (attribute, value) in rules.iter().flat_map(said) {
        label.entry(attribute).or_default().push((value, value));
    }
    let label = label.into_iter().map(|(attribute, values)| (attribute, IntervalSet::new(values)));
    let addresses = rules.iter().flat_map(|rule| prefixes(&rule.addresses).intervals().to_vec());
    let addresses = IntervalSet::new(addresses.collect());
    (!rules.is_empty()).then(|| legacy(label.collect(), addresses))
}

fn legacy(mut label: Cells, addresses: IntervalSet) -> Cells {
    label.extend([(attribute::STATE, one(state::LEGACY.into())), (attribute::SOURCE, addresses)]);
    label
}

fn said(legacy: &Legacy) -> Said {
    let label = &legacy.label;
    [
        (attribute::INGRESS_ZONE, legacy.zone.into()),
        (attribute::SUBJECT, scope_key(label.domain.0.into(), label.subject).into()),
        (attribute::LEVEL, label.level.into()),
        (attribute::RADIUS, label.radius.into()),
        (attribute::COMPARTMENTS, label.compartments.into()),
        (attribute::CONSTRAINTS, label.constraints.into()),
        (attribute::OPERATION, label.operation.into()),
        (attribute::RESIDENCY, label.residency.into()),
        (attribute::ROUTE, label.route.into()),
    ]
}

fn union(one: &IntervalSet, other: &IntervalSet) -> IntervalSet {
    IntervalSet::new(one.intervals().iter().chain(other.intervals()).copied().collect())
}

fn bits(names: &[(SmolStr, u8)]) -> u16 {
    names.iter().fold(0, |mask, (_, bit)| mask | 1 << bit)
}

/// All values of 16 bits with no bit outside the mask.
fn within(mask: u16) -> IntervalSet {
    let values = (0..=u16::MAX).filter(|value| value & !mask == 0);
    IntervalSet::new(values.map(|value| (value.into(), value.into())).collect())
}

fn one(value: u128) -> IntervalSet {
    between(value, value)
}

fn between(first: u128, last: u128) -> IntervalSet {
    IntervalSet::new(vec![(first, last)])
}

fn row(mut cells: Cells) -> Row {
    cells.retain(|(attribute, set)| {
        let bits = attribute::BITS.get(usize::from(*attribute)).copied().unwrap_or(128);
        set.intervals() != [(0, max_of(bits))]
    });
    cells.sort_unstable_by_key(|(attribute, _)| *attribute);
    Row { value: 0, cells }
}
