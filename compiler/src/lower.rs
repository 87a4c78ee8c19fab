//! From the checked policy to the decision table: rules get their numbers, conditions become
//! sets of values.

mod translations;

use std::{collections::BTreeMap, net::IpAddr};

use govc_abi::{
    attribute::{self, Attribute, scope_key, shape, state},
    declare,
    image::{carriage, program, rule as record},
    limits::{ALTERNATIVES_MAX, ROWS_MAX},
};
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::{
    checked::{
        Action, Answer, Condition, DomainId, From, Hook, Match, Moment, Policy, Prefix, Protocol,
        Rule, ScopeRange, WrittenLabel,
    },
    table::{self, DecisionTable, Group, IntervalSet, Program, Row},
};

/// A policy that does not become a table.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum LowerError {
    /// One rule has too many alternatives.
    #[error("the rule has more than {ALTERNATIVES_MAX} alternatives")]
    TooManyAlternatives {
        /// Position of the rule in the policy.
        rule: usize,
    },
    /// All rules together have too many alternatives.
    #[error("the rules have more than {ROWS_MAX} alternatives together")]
    TooManyRows {
        /// Position of the rule that was one too many.
        rule: usize,
    },
}

/// One alternative under construction; absent attributes take any value.
type Cells = BTreeMap<Attribute, IntervalSet>;

/// Makes the decision table of a policy.
///
/// # Errors
/// A limit is passed.
pub fn lower(policy: &Policy) -> Result<DecisionTable, LowerError> {
    let mut lowering = Lowering::new(policy);
    let order = rule_order(policy);
    let translated = translations::lower(policy);
    let mut table = DecisionTable {
        rules: order.iter().filter_map(|&p| policy.rules.get(p)).map(rule_record).collect(),
        rule_positions: order.iter().map(|&position| position as u32).collect(),
        labels: labels(policy),
        translations: translated.records,
        transforms: policy.translations.iter().map(translations::transform).collect(),
        carriages: policy.carriages.len() as u32,
        objects: policy.delivers.iter().map(|d| key(d.object.0, d.object.1)).collect(),
        domains: policy
            .domains
            .iter()
            .map(|d| (d.number, constraint_mask(&d.constraints)))
            .collect(),
        times: policy.times.clone(),
        shapes: policy.shapes(),
        ..DecisionTable::default()
    };
    let hooks = [program::INGRESS, program::EGRESS, program::FORWARD];
    for (hook, which) in hooks.into_iter().enumerate() {
        let lowered = lowering.hook(hook, &order)?;
        if let Some(place) = table.programs.get_mut(which as usize) {
            *place = lowered;
        }
    }
    let single = |rows| Program {
        groups: vec![Group { enforced: rows, observed: Vec::new() }],
        governed: false,
    };
    for (which, rows) in [
        (program::STAMP, stamp_rows(policy)),
        (program::DELIVER, deliver_rows(policy)),
        (program::LEGACY, legacy_rows(policy)),
        (program::TRANSLATE, translated.rows),
        (program::CARRIAGE, carriage_rows(policy)),
    ] {
        if let Some(place) = table.programs.get_mut(which as usize) {
            // What says whether there are tunnels at all.
            let governed = which == program::CARRIAGE && !rows.is_empty();
            *place = Program { governed, ..single(rows) };
        }
    }
    Ok(table)
}

/// The rows that match what a rule with this match would, at any hook.
pub(crate) fn rows_of(policy: &Policy, matches: &Match) -> Result<Vec<Row>, LowerError> {
    Lowering::new(policy).rule(0, matches, None, 0)
}

/// Positions of the rules by rule number: of all rules that match, the one with the smallest
/// number decides. Tiers come in order; within a tier deny comes before pass and pass before
/// permit, unless the tier is ordered.
pub(crate) fn rule_order(policy: &Policy) -> Vec<usize> {
    let mut order: Vec<usize> = (0..policy.rules.len()).collect();
    order.sort_by_key(|&position| {
        let Some(rule) = policy.rules.get(position) else { return (usize::MAX, 0, position) };
        let ordered = policy.tiers.get(rule.tier).is_some_and(|tier| tier.ordered);
        let class = match rule.action {
            _ if ordered => 0,
            Action::Deny => 0,
            Action::Pass => 1,
            Action::Permit => 2,
        };
        (rule.tier, class, position)
    });
    order
}

fn rule_record(rule: &Rule) -> u32 {
    let action = match rule.action {
        Action::Permit => record::PERMIT,
        Action::Deny => record::DENY,
        Action::Pass => record::PASS,
    };
    let log = rule.log.map_or(0, |of| record::LOG | u32::from(of) << record::SAMPLING_SHIFT);
    let answer = match rule.answer {
        Answer::Silence => 0,
        Answer::Reject => record::REJECT,
        Answer::Quarantine(zone) => record::QUARANTINE | u32::from(zone) << record::ZONE_SHIFT,
    };
    action | log | answer | if rule.observe { record::OBSERVE } else { 0 }
}

fn constraint_mask(constraints: &[(smol_str::SmolStr, u8)]) -> u16 {
    constraints.iter().fold(0, |mask, (_, bit)| mask | 1 << bit)
}

fn labels(policy: &Policy) -> Vec<table::Label> {
    let stamps = policy.stamps.iter().map(|stamp| &stamp.label);
    let legacies = policy.legacies.iter().map(|legacy| &legacy.label);
    let mut labels: Vec<table::Label> =
        stamps.chain(legacies).map(|written| label(policy, written)).collect();
    for (label, stamp) in labels.iter_mut().zip(&policy.stamps) {
        label.fragments = stamp.fragments;
    }
    for (number, stamp) in policy.stamps.iter().enumerate() {
        let first = labels.len() as u32;
        let further = stamp.label.operations.get(1..).unwrap_or_default();
        for (name, operation) in further {
            let one = WrittenLabel { operation: *operation, ..stamp.label.clone() };
            let declared = declare::hash(name.as_bytes());
            let fragments = stamp.fragments;
            labels.push(table::Label { declared, fragments, ..label(policy, &one) });
        }
        if let Some(label) = labels.get_mut(number) {
            label.further = (first, further.len() as u32);
        }
    }
    labels
}

fn label(policy: &Policy, written: &WrittenLabel) -> table::Label {
    let index = usize::from(written.domain.0);
    let number = policy.domains.get(index).map_or(0, |domain| domain.number);
    let label = govc_abi::label::Label::default()
        .with_version(govc_abi::label::VERSION)
        .with_life(written.life)
        .with_domain(number)
        .with_subject(written.subject)
        .with_level(written.level)
        .with_radius(written.radius)
        .with_compartments(written.compartments)
        .with_constraints(written.constraints)
        .with_operation(written.operation)
        .with_residency(written.residency)
        .with_route(written.route);
    table::Label {
        head: label.head,
        mid: label.mid,
        domain_index: u32::from(written.domain.0),
        declared: written.operations.first().map_or(0, |(name, _)| declare::hash(name.as_bytes())),
        further: (0, 0),
        fragments: false,
    }
}

fn stamp_rows(policy: &Policy) -> Vec<Row> {
    let rows = policy.stamps.iter().enumerate().map(|(number, stamp)| {
        // A rule that names no zone speaks for what this node sends, never for what came in by one.
        let from_zone = stamp.from_zone.unwrap_or(0);
        let mut cells = Cells::from([
            (attribute::EGRESS_ZONE, one(u128::from(stamp.zone))),
            (attribute::INGRESS_ZONE, one(u128::from(from_zone))),
        ]);
        if let Some(cgroup) = stamp.cgroup {
            cells.insert(attribute::CGROUP, one(u128::from(cgroup)));
        }
        if let Some(addresses) = &stamp.addresses {
            cells.insert(attribute::SOURCE, prefixes(addresses));
        }
        row(number as u32, cells)
    });
    rows.flatten().collect()
}

fn deliver_rows(policy: &Policy) -> Vec<Row> {
    let rows = policy.delivers.iter().enumerate().map(|(number, deliver)| {
        let mut cells = Cells::from([(attribute::INGRESS_ZONE, one(u128::from(deliver.zone)))]);
        if let Some(addresses) = &deliver.addresses {
            cells.insert(attribute::DESTINATION, prefixes(addresses));
        }
        row(number as u32, cells)
    });
    rows.flatten().collect()
}

fn legacy_rows(policy: &Policy) -> Vec<Row> {
    let rows = policy.legacies.iter().enumerate().map(|(number, legacy)| {
        let cells = Cells::from([
            (attribute::INGRESS_ZONE, one(u128::from(legacy.zone))),
            (attribute::SOURCE, prefixes(&legacy.addresses)),
        ]);
        row((policy.stamps.len() + number) as u32, cells)
    });
    rows.flatten().collect()
}

/// None where labels ride in options only: the kernel does not ask then.
fn carriage_rows(policy: &Policy) -> Vec<Row> {
    if !policy.carriages.iter().any(|carriage| carriage.tunnel) {
        return Vec::new();
    }
    let rows = policy.carriages.iter().enumerate().map(|(number, rule)| {
        let cells = Cells::from([
            (attribute::EGRESS_ZONE, one(u128::from(rule.zone))),
            (attribute::DESTINATION, prefixes(&rule.addresses)),
        ]);
        let kind = if rule.tunnel { carriage::TUNNEL } else { carriage::OPTION };
        row((number as u32) << carriage::RULE_SHIFT | kind, cells)
    });
    rows.flatten().collect()
}

/// The row of an alternative, or `None` when nothing can match it.
fn row(value: u32, cells: Cells) -> Option<Row> {
    if cells.values().any(IntervalSet::is_empty) {
        return None;
    }
    let full = |attribute: Attribute, set: &IntervalSet| {
        let bits = bits_of(attribute);
        matches!(set.intervals(), [(0, last)] if *last == table::max_of(bits))
    };
    Some(Row { value, cells: cells.into_iter().filter(|(a, set)| !full(*a, set)).collect() })
}

fn bits_of(attribute: Attribute) -> u8 {
    attribute::BITS.get(usize::from(attribute)).copied().unwrap_or(128)
}

fn one(value: u128) -> IntervalSet {
    IntervalSet::new(vec![(value, value)])
}

fn key(domain: DomainId, number: u32) -> u32 {
    scope_key(u32::from(domain.0), number)
}

pub(crate) fn scopes(ranges: &[ScopeRange]) -> IntervalSet {
    let interval =
        |r: &ScopeRange| (u128::from(key(r.domain, r.first)), u128::from(key(r.domain, r.last)));
    IntervalSet::new(ranges.iter().map(interval).collect())
}

fn whole_domain(domain: DomainId) -> IntervalSet {
    scopes(&[ScopeRange { domain, first: 0, last: govc_abi::limits::SUBJECTS_MAX - 1 }])
}

pub(crate) fn prefixes(prefixes: &[Prefix]) -> IntervalSet {
    IntervalSet::new(prefixes.iter().flat_map(prefix_intervals).collect())
}

/// First and last addresses of a prefix. IPv4 is mapped into IPv6; no IPv6 prefix, however
/// short, covers the addresses that IPv4 is mapped to.
fn prefix_intervals(prefix: &Prefix) -> Vec<(u128, u128)> {
    const MAPPED_FIRST: u128 = 0xffff << 32;
    const MAPPED_LAST: u128 = MAPPED_FIRST | 0xffff_ffff;
    match prefix.address {
        IpAddr::V4(v4) => {
            let host_bits = 32 - u32::from(prefix.length.min(32));
            let hosts = (1_u128 << host_bits) - 1;
            let address = v4.to_ipv6_mapped().to_bits();
            vec![(address & !hosts, address | hosts)]
        }
        IpAddr::V6(v6) => {
            let host_bits = 128 - u32::from(prefix.length.min(128));
            let hosts = if host_bits == 128 { u128::MAX } else { (1 << host_bits) - 1 };
            let (first, last) = (v6.to_bits() & !hosts, v6.to_bits() | hosts);
            if last < MAPPED_FIRST || first > MAPPED_LAST {
                return vec![(first, last)];
            }
            let mut parts = Vec::new();
            if first < MAPPED_FIRST {
                parts.push((first, MAPPED_FIRST - 1));
            }
            if last > MAPPED_LAST {
                parts.push((MAPPED_LAST + 1, last));
            }
            parts
        }
    }
}

/// A condition on one bitmap attribute.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Bitmap {
    Include(u16),
    Within(u16),
    Are(u16),
}

impl Bitmap {
    fn holds(self, value: u16) -> bool {
        match self {
            Self::Include(mask) => value & mask == mask,
            Self::Within(mask) => value & !mask == 0,
            Self::Are(mask) => value == mask,
        }
    }
}

struct Lowering<'a> {
    policy: &'a Policy,
    /// [`Policy::shapes`].
    shapes: u32,
    bitmaps: FxHashMap<Bitmap, IntervalSet>,
    rows: usize,
}

impl<'a> Lowering<'a> {
    fn new(policy: &'a Policy) -> Self {
        Self { policy, shapes: policy.shapes(), bitmaps: FxHashMap::default(), rows: 0 }
    }

    /// The program of one hook.
    fn hook(&mut self, hook: Hook, order: &[usize]) -> Result<Program, LowerError> {
        let governed = self.policy.governed.get(hook).copied().unwrap_or(false);
        let mut groups = vec![Group::default()];
        let mut tier = None;
        let mut passes = false;
        for (number, &position) in order.iter().enumerate() {
            let Some(rule) = self.policy.rules.get(position) else { continue };
            let Some(Some(scope)) = rule.hooks.get(hook) else { continue };
            if tier != Some(rule.tier) {
                if passes {
                    groups.push(Group::default());
                }
                passes = false;
                tier = Some(rule.tier);
            }
            passes |= rule.action == Action::Pass && !rule.observe;
            let objects = scope.objects.as_deref().map(scopes);
            let rows = self.rule(number as u32, &rule.matches, objects, position)?;
            if let Some(group) = groups.last_mut() {
                let to = if rule.observe { &mut group.observed } else { &mut group.enforced };
                to.extend(rows);
            }
        }
        groups.retain(|group| !group.enforced.is_empty() || !group.observed.is_empty());
        Ok(Program { groups, governed })
    }

    fn rule(
        &mut self,
        number: u32,
        matches: &Match,
        objects: Option<IntervalSet>,
        position: usize,
    ) -> Result<Vec<Row>, LowerError> {
        let mut common = Cells::new();
        for (attribute, set) in [
            (attribute::OBJECT, objects),
            (attribute::OBJECT, matches.to.as_deref().map(scopes)),
            (attribute::OPERATION, matches.operations.as_deref().map(numbers)),
            (attribute::SOURCE, matches.sources.as_deref().map(prefixes)),
            (attribute::DESTINATION, matches.destinations.as_deref().map(prefixes)),
            (attribute::TIME, self.time(matches)),
            (attribute::SHAPE, self.shapes(matches)),
        ] {
            if let Some(set) = set {
                narrow(&mut common, attribute, &set);
            }
        }
        let mut alternatives = vec![common];
        let too_many = || LowerError::TooManyAlternatives { rule: position };
        for condition in &matches.conditions {
            let other = self.condition(condition, true).ok_or_else(too_many)?;
            alternatives = product(alternatives, &other).ok_or_else(too_many)?;
        }
        if !matches.protocols.is_empty() {
            let alternatives_of = |one| protocol(one, self.shapes & matches.shapes);
            let other: Vec<Cells> = matches.protocols.iter().flat_map(alternatives_of).collect();
            alternatives = product(alternatives, &other).ok_or_else(too_many)?;
        }
        alternatives = product(alternatives, &origins(matches)).ok_or_else(too_many)?;
        self.rows += alternatives.len();
        if self.rows > ROWS_MAX {
            return Err(LowerError::TooManyRows { rule: position });
        }
        Ok(alternatives.into_iter().filter_map(|cells| row(number, cells)).collect())
    }

    /// The shapes that a rule is about; nothing where no rule of the policy lets any but whole packets
    /// through, and then no others are asked about.
    fn shapes(&self, matches: &Match) -> Option<IntervalSet> {
        let any = (0..=u128::from(shape::ALL)).filter(|s| s & !u128::from(matches.shapes) == 0);
        let asked = self.shapes & !matches.shapes != 0;
        asked.then(|| IntervalSet::new(any.map(|shape| (shape, shape)).collect()))
    }

    /// How many of the policy's moments are past while a rule is in time.
    fn time(&self, matches: &Match) -> Option<IntervalSet> {
        if matches.since.is_none() && matches.until.is_none() {
            return None;
        }
        let past =
            |moment: Moment| self.policy.times.partition_point(|time| *time <= moment.slot) as u128;
        let first = matches.since.map_or(0, past);
        let end = matches.until.map_or(table::max_of(8) + 1, past);
        Some(IntervalSet::new(end.checked_sub(1).map(|last| (first, last)).into_iter().collect()))
    }

    /// Alternatives under which a condition holds, or does not; `None` when they are too many.
    fn condition(&mut self, condition: &Condition, holds: bool) -> Option<Vec<Cells>> {
        let (attribute, set) = match condition {
            Condition::Not(inner) => return self.condition(inner, !holds),
            Condition::And(a, b) | Condition::Or(a, b) => {
                let conjunction = matches!(condition, Condition::And(..)) == holds;
                let (a, b) = (self.condition(a, holds)?, self.condition(b, holds)?);
                return if conjunction { product(a, &b) } else { union(a, b) };
            }
            Condition::Level(first, last) => (attribute::LEVEL, between(*first, *last)),
            Condition::Radius(first, last) => (attribute::RADIUS, between(*first, *last)),
            Condition::CompartmentsInclude(m) => {
                (attribute::COMPARTMENTS, self.bitmap(Bitmap::Include(*m)))
            }
            Condition::CompartmentsWithin(m) => {
                (attribute::COMPARTMENTS, self.bitmap(Bitmap::Within(*m)))
            }
            Condition::CompartmentsAre(m) => {
                (attribute::COMPARTMENTS, self.bitmap(Bitmap::Are(*m)))
            }
            Condition::ConstraintsInclude(m) => {
                (attribute::CONSTRAINTS, self.bitmap(Bitmap::Include(*m)))
            }
            Condition::ConstraintsWithin(m) => {
                (attribute::CONSTRAINTS, self.bitmap(Bitmap::Within(*m)))
            }
            Condition::ConstraintsAre(m) => (attribute::CONSTRAINTS, self.bitmap(Bitmap::Are(*m))),
            Condition::Residency(indices) => (attribute::RESIDENCY, numbers(indices)),
            Condition::Route(index) => (attribute::ROUTE, one(u128::from(*index))),
            Condition::Operation(operations) => (attribute::OPERATION, numbers(operations)),
            Condition::IngressZone(zones) => (attribute::INGRESS_ZONE, numbers(zones)),
            Condition::EgressZone(zones) => (attribute::EGRESS_ZONE, numbers(zones)),
        };
        let set = if holds { set } else { set.complement(bits_of(attribute)) };
        Some(vec![Cells::from([(attribute, set)])])
    }

    /// All bitmaps for which a condition holds.
    fn bitmap(&mut self, condition: Bitmap) -> IntervalSet {
        let all = || {
            let values = (0..=u16::MAX).filter(|&value| condition.holds(value));
            IntervalSet::new(values.map(|value| (u128::from(value), u128::from(value))).collect())
        };
        self.bitmaps.entry(condition).or_insert_with(all).clone()
    }
}

fn numbers<T: Copy + Into<u128>>(numbers: &[T]) -> IntervalSet {
    IntervalSet::new(numbers.iter().map(|&number| (number.into(), number.into())).collect())
}

fn between(first: u8, last: u8) -> IntervalSet {
    IntervalSet::new(vec![(u128::from(first), u128::from(last))])
}

fn narrow(cells: &mut Cells, attribute: Attribute, set: &IntervalSet) {
    cells
        .entry(attribute)
        .and_modify(|old| *old = old.intersect(set))
        .or_insert_with(|| set.clone());
}

/// Alternatives that satisfy one of each, each once; `None` when they are too many.
fn product(mut left: Vec<Cells>, right: &[Cells]) -> Option<Vec<Cells>> {
    if left.len().saturating_mul(right.len()) > ALTERNATIVES_MAX {
        return None;
    }
    // Nearly all rules: one alternative that is narrowed in place.
    if let ([cells], [narrower]) = (left.as_mut_slice(), right) {
        for (attribute, set) in narrower {
            narrow(cells, *attribute, set);
        }
        left.retain(|cells| !cells.values().any(IntervalSet::is_empty));
        return Some(left);
    }
    let mut both = Vec::with_capacity(left.len() * right.len());
    for a in &left {
        for b in right {
            let mut cells = a.clone();
            for (attribute, set) in b {
                narrow(&mut cells, *attribute, set);
            }
            if !cells.values().any(IntervalSet::is_empty) {
                both.push(cells);
            }
        }
    }
    // Twins are common: `level >= a` and `level >= b` leave the higher one twice.
    both.sort_unstable();
    both.dedup();
    Some(both)
}

/// Alternatives that satisfy any of both; two conditions on one attribute become one.
fn union(left: Vec<Cells>, right: Vec<Cells>) -> Option<Vec<Cells>> {
    if let ([a], [b]) = (left.as_slice(), right.as_slice())
        && a.len() == 1
        && b.len() == 1
        && let (Some((attribute, x)), Some((other, y))) = (a.iter().next(), b.iter().next())
        && attribute == other
    {
        let intervals = x.intervals().iter().chain(y.intervals()).copied().collect();
        return Some(vec![Cells::from([(*attribute, IntervalSet::new(intervals))])]);
    }
    let mut either: Vec<Cells> = left.into_iter().chain(right).collect();
    either.sort_unstable();
    either.dedup();
    (either.len() <= ALTERNATIVES_MAX).then_some(either)
}

/// A protocol for packets of these shapes. Fragments show neither ports nor types.
fn protocol(protocol: &Protocol, shapes: u32) -> Vec<Cells> {
    let number = Cells::from([(attribute::PROTOCOL, one(u128::from(protocol.number)))]);
    let mut whole = transport(protocol);
    if whole == number || shapes & shape::FRAGMENT == 0 {
        return vec![whole];
    }
    let values = |of: &dyn Fn(u32) -> bool| {
        let list = (0..=shape::ALL).filter(|&value| of(value));
        IntervalSet::new(list.map(|value| (value.into(), value.into())).collect())
    };
    let mut fragment = number;
    fragment.insert(attribute::SHAPE, values(&|value| value & shape::FRAGMENT != 0));
    whole.insert(attribute::SHAPE, values(&|value| value & shape::FRAGMENT == 0));
    vec![whole, fragment]
}

fn transport(protocol: &Protocol) -> Cells {
    let mut cells = Cells::from([(attribute::PROTOCOL, one(u128::from(protocol.number)))]);
    let ranges = |ranges: &[(u16, u16)]| {
        IntervalSet::new(ranges.iter().map(|&(a, b)| (u128::from(a), u128::from(b))).collect())
    };
    if let Some(ports) = &protocol.ports {
        cells.insert(attribute::DESTINATION_PORT, ranges(ports));
    }
    if let Some(ports) = &protocol.source_ports {
        cells.insert(attribute::SOURCE_PORT, ranges(ports));
    }
    if protocol.icmp_types.is_some() || protocol.icmp_codes.is_some() {
        let all = vec![(0, u8::MAX)];
        let codes = protocol.icmp_codes.as_ref().unwrap_or(&all);
        let types = protocol.icmp_types.as_ref().unwrap_or(&all);
        let pairs = types.iter().flat_map(|&(first, last)| first..=last).flat_map(|kind| {
            codes.iter().map(move |&(a, b)| {
                (u128::from(kind) << 8 | u128::from(a), u128::from(kind) << 8 | u128::from(b))
            })
        });
        cells.insert(attribute::ICMP, IntervalSet::new(pairs.collect()));
    }
    cells
}

/// Alternatives for who a packet is from.
fn origins(matches: &Match) -> Vec<Cells> {
    let identified = IntervalSet::new(vec![(u128::from(state::LEGACY), u128::from(state::VALID))]);
    let mut ranges = Vec::new();
    let mut alternatives = Vec::new();
    for from in &matches.from {
        let states = match from {
            From::Scope(scopes) => {
                ranges.extend_from_slice(scopes);
                continue;
            }
            From::Anyone => None,
            From::Identified => Some(identified.clone()),
            From::Labelled => Some(one(u128::from(state::VALID))),
            From::Legacy => Some(one(u128::from(state::LEGACY))),
            From::Unlabelled => Some(one(u128::from(state::ABSENT))),
        };
        alternatives.push(states);
    }
    let mut rows = Vec::new();
    if !ranges.is_empty() {
        rows.push(Cells::from([
            (attribute::STATE, identified.clone()),
            (attribute::SUBJECT, scopes(&ranges)),
        ]));
    }
    for states in alternatives {
        rows.extend(in_domain(states, matches.domain));
    }
    if let Some(domain) = matches.domain {
        for cells in rows.iter_mut().filter(|cells| cells.contains_key(&attribute::SUBJECT)) {
            narrow(cells, attribute::SUBJECT, &whole_domain(domain));
        }
    }
    rows
}

/// Whoever has a label must be of the rule's domain; who has none is of no domain.
fn in_domain(states: Option<IntervalSet>, domain: Option<DomainId>) -> Vec<Cells> {
    let states = states.unwrap_or_else(|| {
        IntervalSet::new(vec![(u128::from(state::ABSENT), u128::from(state::VALID))])
    });
    let Some(domain) = domain else {
        return vec![Cells::from([(attribute::STATE, states)])];
    };
    let absent = states.intersect(&one(u128::from(state::ABSENT)));
    let present = states
        .intersect(&IntervalSet::new(vec![(u128::from(state::LEGACY), u128::from(state::VALID))]));
    let mut rows = Vec::new();
    if !absent.is_empty() {
        rows.push(Cells::from([(attribute::STATE, absent)]));
    }
    if !present.is_empty() {
        rows.push(Cells::from([
            (attribute::STATE, present),
            (attribute::SUBJECT, whole_domain(domain)),
        ]));
    }
    rows
}
