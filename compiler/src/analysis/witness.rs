//! From the classes of a packet's values to a packet that says as little as possible.

use govc_abi::{
    attribute::{self, Attribute, Request, shape, state},
    label::radius,
    walk::Classes,
};

use super::{field::Field, region::Region};
use crate::{
    check::packets::{SOURCE_PORT_DEFAULT, V4_DEFAULTS, V6_DEFAULTS, halves},
    checked::Policy,
};

/// The order in which attributes get their values: what others depend on comes first.
const ORDER: [Attribute; attribute::COUNT] = [
    attribute::STATE,
    attribute::SUBJECT,
    attribute::OBJECT,
    attribute::SHAPE,
    attribute::PROTOCOL,
    attribute::OPERATION,
    attribute::LEVEL,
    attribute::COMPARTMENTS,
    attribute::CONSTRAINTS,
    attribute::RESIDENCY,
    attribute::ROUTE,
    attribute::RADIUS,
    attribute::DESTINATION_PORT,
    attribute::SOURCE_PORT,
    attribute::ICMP,
    attribute::INGRESS_ZONE,
    attribute::EGRESS_ZONE,
    attribute::CGROUP,
    attribute::SOURCE,
    attribute::DESTINATION,
    attribute::TIME,
];

/// The packet, with what it would say by default wherever it still serves.
pub(super) fn smallest(
    policy: &Policy,
    field: &Field<'_>,
    region: &Region,
    point: Classes,
    serves: impl Fn(&Classes) -> bool,
) -> (Classes, Request) {
    let mut point = point;
    let mut request = Request::EMPTY;
    for attribute in ORDER {
        let usual = usual(policy, &request, attribute, &point, field);
        let class = field.table.classes(attribute).class(usual);
        let mut trial = point;
        if let Some(place) = trial.get_mut(usize::from(attribute)) {
            *place = class;
        }
        if trial == point || region.holds(&trial) && serves(&trial) {
            point = trial;
            set(&mut request, attribute, usual);
        } else {
            let class = point.get(usize::from(attribute)).copied().unwrap_or(0);
            let values = field.values(attribute, &[(class, class)]);
            set(&mut request, attribute, values.intervals().first().map_or(0, |i| i.0));
        }
    }
    (point, request)
}

/// What a packet says when it says nothing, given what it says so far.
fn usual(
    policy: &Policy,
    request: &Request,
    attribute: Attribute,
    point: &Classes,
    field: &Field<'_>,
) -> u128 {
    let get =
        |attribute: Attribute| request.scalars.get(usize::from(attribute)).copied().unwrap_or(0);
    let labelled = get(attribute::STATE) != state::ABSENT;
    let subject = get(attribute::SUBJECT);
    let scope = || {
        let domain = policy.domains().get((subject >> 24) as usize)?;
        let number = subject & 0x00ff_ffff;
        let own = |scope: &&crate::checked::Scope| {
            scope.subjects.is_some_and(|(first, last)| first <= number && number <= last)
        };
        domain.scopes.iter().find(own)
    };
    let protocol = get(attribute::PROTOCOL);
    let v6 = || {
        let class = point.get(usize::from(attribute::SOURCE)).copied().unwrap_or(0);
        let v4 = field.table.classes(attribute::SOURCE).class(bits(V4_DEFAULTS[0]));
        let mapped = field.values(attribute::SOURCE, &[(class, class)]);
        class != v4 && mapped.intervals().first().is_some_and(|&(first, _)| first >> 32 != 0xffff)
    };
    match attribute {
        attribute::STATE if point_class(point, attribute) != 0 => state::VALID.into(),
        attribute::SUBJECT | attribute::OBJECT => attribute::SCOPE_NONE.into(),
        attribute::LEVEL if labelled => scope().map_or(0, |scope| scope.level.into()),
        attribute::COMPARTMENTS if labelled => scope().map_or(0, |scope| scope.compartments.into()),
        attribute::RADIUS if labelled => radius::DOMAIN.into(),
        _ if get(attribute::SHAPE) & shape::FRAGMENT != 0 && SHOWN.contains(&attribute) => 0,
        attribute::SOURCE_PORT if matches!(protocol, 6 | 17 | 132) => SOURCE_PORT_DEFAULT.into(),
        attribute::DESTINATION_PORT if matches!(protocol, 6 | 17 | 132) => PORT_USUAL,
        attribute::ICMP if protocol == 1 => 8 << 8,
        attribute::ICMP if protocol == 58 => 128 << 8,
        attribute::SOURCE => bits(if v6() { V6_DEFAULTS[0] } else { V4_DEFAULTS[0] }),
        attribute::DESTINATION => bits(if v6() { V6_DEFAULTS[1] } else { V4_DEFAULTS[1] }),
        _ => 0,
    }
}

/// What fragments do not show.
const SHOWN: [Attribute; 3] =
    [attribute::SOURCE_PORT, attribute::DESTINATION_PORT, attribute::ICMP];

/// A port that everybody has seen.
const PORT_USUAL: u128 = 443;

fn point_class(point: &Classes, attribute: Attribute) -> u32 {
    point.get(usize::from(attribute)).copied().unwrap_or(0)
}

fn bits(address: std::net::IpAddr) -> u128 {
    let [upper, lower] = halves(address);
    u128::from(upper) << 64 | u128::from(lower)
}

fn set(request: &mut Request, attribute: Attribute, value: u128) {
    let halves = [(value >> 64) as u64, value as u64];
    match attribute {
        attribute::SOURCE => request.source = halves,
        attribute::DESTINATION => request.destination = halves,
        _ => {
            if let Some(place) = request.scalars.get_mut(usize::from(attribute)) {
                *place = value as u32;
            }
        }
    }
}
