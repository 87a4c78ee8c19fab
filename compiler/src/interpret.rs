//! The reference interpreter: what a policy means, written to be obvious.
//!
//! It reads the checked policy and nothing else, and shares no code with lowering, diagrams,
//! tables or the walk: it is what they are compared with.

use std::net::{IpAddr, Ipv6Addr};

use govc_abi::attribute::{self, Request, shape, state};
use govc_abi::label::{Label, radius};
use govc_abi::reason;

use crate::checked::{
    Action, Condition, DomainId, From, Hook, Match, Policy, Prefix, Protocol, Rule, ScopeRange,
    TranslatedScope, Translation,
};

/// What the policy says about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Let it through.
    pub permit: bool,
    /// Position of the rule that decided; `None` for the default.
    pub rule: Option<usize>,
    /// Position of the rule in observe mode that would have decided.
    pub pending: Option<usize>,
}

/// Decides a request at a hook.
#[must_use]
pub fn decide(policy: &Policy, hook: Hook, request: &Request) -> Decision {
    let shape = scalar(request, attribute::SHAPE);
    if shape & !policy.shapes() != 0 {
        return Decision { permit: false, rule: None, pending: None };
    }
    let rule = winner(policy, hook, request, false);
    let everything = winner(policy, hook, request, true);
    let pending =
        everything.filter(|&position| policy.rules.get(position).is_some_and(|r| r.observe));
    let permit = match rule.and_then(|position| policy.rules.get(position)) {
        Some(rule) => rule.action == Action::Permit,
        None => {
            let governed = policy.governed.get(hook).copied().unwrap_or(false);
            let known = scalar(request, attribute::STATE) != state::ABSENT;
            !governed && known && shape == shape::WHOLE
        }
    };
    Decision { permit, rule, pending }
}

/// The rule that decides: the first tier in which a rule matches that does not pass.
fn winner(policy: &Policy, hook: Hook, request: &Request, with_observed: bool) -> Option<usize> {
    for tier in 0..policy.tiers.len() {
        let ordered = policy.tiers.get(tier).is_some_and(|tier| tier.ordered);
        let mut best: Option<(usize, &Rule)> = None;
        for (position, rule) in policy.rules.iter().enumerate() {
            let counts = rule.tier == tier && (with_observed || !rule.observe);
            if !counts || !applies(policy, rule, hook, request) {
                continue;
            }
            let better = match best {
                None => true,
                Some(_) if ordered => false,
                Some((_, other)) => strength(rule.action) > strength(other.action),
            };
            if better {
                best = Some((position, rule));
            }
        }
        match best {
            Some((_, rule)) if rule.action == Action::Pass => {}
            Some((position, _)) => return Some(position),
            None => {}
        }
    }
    None
}

fn strength(action: Action) -> u8 {
    match action {
        Action::Deny => 3,
        Action::Pass => 2,
        Action::Permit => 1,
    }
}

/// Whether a rule matches a request at a hook.
#[must_use]
pub fn applies(policy: &Policy, rule: &Rule, hook: Hook, request: &Request) -> bool {
    let Some(Some(scope)) = rule.hooks.get(hook) else { return false };
    let object = scalar(request, attribute::OBJECT);
    scope.objects.as_ref().is_none_or(|objects| in_scopes(objects, object))
        && matches(policy, &rule.matches, request)
}

/// Whether a packet is what a rule or an assertion asks for.
#[must_use]
pub fn matches(policy: &Policy, wanted: &Match, request: &Request) -> bool {
    let protocol = scalar(request, attribute::PROTOCOL);
    wanted.from.iter().any(|from| is_from(from, request))
        && wanted.domain.is_none_or(|domain| is_of_domain(domain, request))
        && wanted.to.as_ref().is_none_or(|to| in_scopes(to, scalar(request, attribute::OBJECT)))
        && wanted.operations.as_ref().is_none_or(|all| {
            all.iter().any(|&o| u32::from(o) == scalar(request, attribute::OPERATION))
        })
        && wanted.conditions.iter().all(|condition| holds(condition, request))
        && (wanted.protocols.is_empty()
            || wanted.protocols.iter().any(|p| u32::from(p.number) == protocol && fits(p, request)))
        && scalar(request, attribute::SHAPE) & !wanted.shapes == 0
        && wanted.sources.as_ref().is_none_or(|p| in_prefixes(p, address(request.source)))
        && wanted.destinations.as_ref().is_none_or(|p| in_prefixes(p, address(request.destination)))
        && is_in_time(policy, wanted, request)
}

/// Whether a rule has begun and not ended. A request says how many of the policy's moments are
/// past: a rule has begun when its own is among them.
pub(crate) fn is_in_time(policy: &Policy, wanted: &Match, request: &Request) -> bool {
    let past = scalar(request, attribute::TIME) as usize;
    let is_past = |slot: u32| policy.times.iter().take(past).any(|time| *time == slot);
    wanted.since.is_none_or(|since| is_past(since.slot))
        && wanted.until.is_none_or(|until| !is_past(until.slot))
}

pub(crate) fn is_from(from: &From, request: &Request) -> bool {
    let state = scalar(request, attribute::STATE);
    match from {
        From::Anyone => true,
        From::Identified => state != state::ABSENT,
        From::Labelled => state == state::VALID,
        From::Legacy => state == state::LEGACY,
        From::Unlabelled => state == state::ABSENT,
        From::Scope(scopes) => {
            state != state::ABSENT && in_scopes(scopes, scalar(request, attribute::SUBJECT))
        }
    }
}

/// A rule that speaks the vocabulary of one domain says nothing about labels of another.
pub(crate) fn is_of_domain(domain: DomainId, request: &Request) -> bool {
    let labelled = scalar(request, attribute::STATE) != state::ABSENT;
    !labelled || scalar(request, attribute::SUBJECT) >> 24 == u32::from(domain.0)
}

pub(crate) fn in_scopes(scopes: &[ScopeRange], key: u32) -> bool {
    let (domain, number) = (key >> 24, key & 0x00ff_ffff);
    scopes.iter().any(|scope| {
        u32::from(scope.domain.0) == domain && scope.first <= number && number <= scope.last
    })
}

pub(crate) fn holds(condition: &Condition, request: &Request) -> bool {
    let bitmap = |attribute| scalar(request, attribute);
    let number = |attribute| scalar(request, attribute);
    match condition {
        Condition::And(a, b) => holds(a, request) && holds(b, request),
        Condition::Or(a, b) => holds(a, request) || holds(b, request),
        Condition::Not(inner) => !holds(inner, request),
        Condition::Level(first, last) => {
            (u32::from(*first)..=u32::from(*last)).contains(&number(attribute::LEVEL))
        }
        Condition::Radius(first, last) => {
            (u32::from(*first)..=u32::from(*last)).contains(&number(attribute::RADIUS))
        }
        Condition::CompartmentsInclude(mask) => includes(bitmap(attribute::COMPARTMENTS), *mask),
        Condition::CompartmentsWithin(mask) => within(bitmap(attribute::COMPARTMENTS), *mask),
        Condition::CompartmentsAre(mask) => bitmap(attribute::COMPARTMENTS) == u32::from(*mask),
        Condition::ConstraintsInclude(mask) => includes(bitmap(attribute::CONSTRAINTS), *mask),
        Condition::ConstraintsWithin(mask) => within(bitmap(attribute::CONSTRAINTS), *mask),
        Condition::ConstraintsAre(mask) => bitmap(attribute::CONSTRAINTS) == u32::from(*mask),
        Condition::Residency(indices) => {
            indices.iter().any(|&index| u32::from(index) == number(attribute::RESIDENCY))
        }
        Condition::Route(index) => number(attribute::ROUTE) == u32::from(*index),
        Condition::Operation(operations) => {
            operations.iter().any(|&o| u32::from(o) == number(attribute::OPERATION))
        }
        Condition::IngressZone(zones) => {
            zones.iter().any(|&zone| u32::from(zone) == number(attribute::INGRESS_ZONE))
        }
        Condition::EgressZone(zones) => {
            zones.iter().any(|&zone| u32::from(zone) == number(attribute::EGRESS_ZONE))
        }
    }
}

fn includes(value: u32, mask: u16) -> bool {
    (0..16).all(|bit| mask >> bit & 1 == 0 || value >> bit & 1 == 1)
}

fn within(value: u32, mask: u16) -> bool {
    (0..16).all(|bit| value >> bit & 1 == 0 || mask >> bit & 1 == 1)
}

pub(crate) fn fits(protocol: &Protocol, request: &Request) -> bool {
    // A fragment shows neither ports nor types.
    if scalar(request, attribute::SHAPE) & shape::FRAGMENT != 0 {
        return true;
    }
    let port = |ranges: &Option<Vec<(u16, u16)>>, attribute| {
        let port = scalar(request, attribute);
        ranges.as_ref().is_none_or(|ranges| {
            ranges.iter().any(|&(a, b)| u32::from(a) <= port && port <= u32::from(b))
        })
    };
    let icmp = scalar(request, attribute::ICMP);
    let byte = |ranges: &Option<Vec<(u8, u8)>>, byte: u32| {
        ranges.as_ref().is_none_or(|ranges| {
            ranges.iter().any(|&(a, b)| u32::from(a) <= byte && byte <= u32::from(b))
        })
    };
    port(&protocol.ports, attribute::DESTINATION_PORT)
        && port(&protocol.source_ports, attribute::SOURCE_PORT)
        && byte(&protocol.icmp_types, icmp >> 8)
        && byte(&protocol.icmp_codes, icmp & 0xff)
}

pub(crate) fn in_prefixes(prefixes: &[Prefix], address: IpAddr) -> bool {
    prefixes.iter().any(|prefix| in_prefix(prefix, address))
}

fn in_prefix(prefix: &Prefix, address: IpAddr) -> bool {
    match (prefix.address, address) {
        (IpAddr::V4(network), IpAddr::V4(host)) => {
            let shift = 32 - u32::from(prefix.length);
            u64::from(network.to_bits()) >> shift == u64::from(host.to_bits()) >> shift
        }
        (IpAddr::V6(network), IpAddr::V6(host)) => {
            prefix.length == 0
                || network.to_bits() >> (128 - u32::from(prefix.length))
                    == host.to_bits() >> (128 - u32::from(prefix.length))
        }
        (IpAddr::V6(_), IpAddr::V4(_)) | (IpAddr::V4(_), IpAddr::V6(_)) => false,
    }
}

/// The address that two halves spell.
pub(crate) fn address(halves: [u64; 2]) -> IpAddr {
    let [upper, lower] = halves;
    let v6 = Ipv6Addr::from_bits(u128::from(upper) << 64 | u128::from(lower));
    match v6.to_ipv4_mapped() {
        Some(v4) => IpAddr::V4(v4),
        None => IpAddr::V6(v6),
    }
}

/// The stamp rule for a leaving packet, by position.
#[must_use]
pub fn stamp(policy: &Policy, request: &Request) -> Option<usize> {
    policy.stamps.iter().position(|stamp| {
        u32::from(stamp.zone) == scalar(request, attribute::EGRESS_ZONE)
            && stamp.cgroup.is_none_or(|c| u32::from(c) == scalar(request, attribute::CGROUP))
            && u32::from(stamp.from_zone.unwrap_or(0)) == scalar(request, attribute::INGRESS_ZONE)
            && stamp.addresses.as_ref().is_none_or(|p| in_prefixes(p, address(request.source)))
    })
}

/// The deliver rule for an arriving packet, by position.
#[must_use]
pub fn deliver(policy: &Policy, request: &Request) -> Option<usize> {
    policy.delivers.iter().position(|deliver| {
        u32::from(deliver.zone) == scalar(request, attribute::INGRESS_ZONE)
            && deliver
                .addresses
                .as_ref()
                .is_none_or(|p| in_prefixes(p, address(request.destination)))
    })
}

/// The legacy rule for an unlabelled arriving packet, by position.
#[must_use]
pub fn legacy(policy: &Policy, request: &Request) -> Option<usize> {
    policy.legacies.iter().position(|legacy| {
        u32::from(legacy.zone) == scalar(request, attribute::INGRESS_ZONE)
            && in_prefixes(&legacy.addresses, address(request.source))
    })
}

/// What becomes of a label of `domain` that passes through and leaves by `zone`: the label with its
/// domain, as the numbers in it say. [`None`] when nothing does.
///
/// # Errors
/// It is refused; why is one of [`govc_abi::reason`].
#[must_use]
pub fn translate(
    policy: &Policy,
    zone: u8,
    domain: DomainId,
    label: Label,
) -> Option<Result<(DomainId, Label), u8>> {
    let here = |one: &&Translation| one.from == domain && one.zone == zone;
    let subject = label.subject();
    let speaks = |scope: &&TranslatedScope| {
        scope.ranges.iter().any(|&(first, last)| first <= subject && subject <= last)
    };
    let items: Vec<&Translation> = policy.translations.iter().filter(here).collect();
    for item in &items {
        if item.to == domain {
            return Some(transform(policy, item, label, subject));
        }
        if let Some(scope) = item.scopes.iter().find(speaks) {
            return Some(transform(policy, item, label, scope.subject));
        }
    }
    (!items.is_empty()).then_some(Err(reason::UNTRANSLATED))
}

fn transform(
    policy: &Policy,
    item: &Translation,
    label: Label,
    subject: u32,
) -> Result<(DomainId, Label), u8> {
    let same = item.from == item.to;
    let says = &item.transform;
    if !same && !["federation", "any"].contains(&radius_name(label.radius())) {
        return Err(reason::RADIUS_EXCEEDED);
    }
    let bits = |bits: u16, list: &[(u8, Option<u8>)]| {
        let mut becomes = 0;
        for bit in (0..16).filter(|bit| bits >> bit & 1 == 1) {
            let (_, goes) = list.iter().find(|(came, _)| *came == bit)?;
            becomes |= goes.map_or(0, |goes| 1_u16 << (goes & 15));
        }
        Some(becomes)
    };
    let number = |number: u16, list: &[(u16, u16)]| {
        if number == 0 || same {
            return Some(number);
        }
        list.iter().find(|(came, _)| *came == number).map(|&(_, goes)| goes)
    };
    let compartments = bits(label.compartments(), &says.compartments);
    let compartments = compartments.ok_or(reason::COMPARTMENTS_UNTRANSLATED)?;
    let constraints = bits(label.constraints(), &says.constraints);
    let constraints = constraints.ok_or(reason::CONSTRAINTS_UNTRANSLATED)?;
    let operation = number(label.operation(), &says.operations);
    let operation = operation.ok_or(reason::OPERATION_UNTRANSLATED)?;
    let residency = number(label.residency().into(), &says.residencies);
    let residency = residency.ok_or(reason::RESIDENCY_UNTRANSLATED)?;
    let route = number(label.route().into(), &says.routes).ok_or(reason::ROUTE_UNTRANSLATED)?;
    let goes = label
        .with_domain(policy.domains.get(usize::from(item.to.0)).map_or(0, |domain| domain.number))
        .with_subject(subject)
        .with_level(says.levels.get(usize::from(label.level())).copied().unwrap_or(0))
        .with_radius(label.radius().min(says.radius))
        .with_life(label.life().min(says.life))
        .with_compartments(compartments)
        .with_constraints(constraints | says.added)
        .with_operation(operation)
        .with_residency(residency as u8)
        .with_route(route as u8);
    Ok((item.to, goes))
}

fn radius_name(number: u8) -> &'static str {
    radius::NAMES.get(usize::from(number)).copied().unwrap_or("any")
}

/// The carriage rule for a leaving packet, by position.
#[must_use]
pub fn carriage(policy: &Policy, request: &Request) -> Option<usize> {
    policy.carriages.iter().position(|carriage| {
        u32::from(carriage.zone) == scalar(request, attribute::EGRESS_ZONE)
            && in_prefixes(&carriage.addresses, address(request.destination))
    })
}

fn scalar(request: &Request, attribute: attribute::Attribute) -> u32 {
    request.scalars.get(usize::from(attribute)).copied().unwrap_or(0)
}
