//! What must become of a frame, written from docs/label.md and docs/language.md with
//! other tools than the enforcement point uses: etherparse reads headers, siphasher computes
//! MACs, the reference interpreter decides.

use std::{hash::Hasher as _, net::IpAddr};

use etherparse::{EtherType, IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice};
use govc_abi::{
    attribute::{self, Request, scope_key, state},
    label::Label,
};
use govc_compiler::{
    checked::{Policy, Template},
    interpret::{self, Decision},
};

use crate::frame::ETH;

/// A frame as the reference reads it.
#[derive(Debug)]
pub struct Parsed {
    /// Source address.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// IP protocol number behind the label.
    pub protocol: u8,
    /// Ports in host order; the identifier and 0 for ICMP echo.
    pub ports: (u16, u16),
    /// ICMP type and code.
    pub icmp: (u8, u8),
    /// Sequence number of a TCP opener, else 0.
    pub opener: u32,
    /// The label with its MAC's bytes.
    pub label: Option<(Label, [u8; 20], [u8; 8])>,
}

/// Reads a frame; `None` for everything that must be dropped unread.
pub fn parse(frame: &[u8]) -> Option<Parsed> {
    let ethertype = EtherType(u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]));
    let ip = frame.get(ETH..)?;
    let (source, destination, protocol, label, rest): (IpAddr, IpAddr, u8, Option<&[u8]>, &[u8]) =
        match ethertype {
            EtherType::IPV4 => {
                let header = Ipv4HeaderSlice::from_slice(ip).ok()?;
                if header.is_fragmenting_payload() || usize::from(header.total_len()) > ip.len() {
                    return None;
                }
                let label = match header.options() {
                    [] => None,
                    [1, 1, 0x9e, 30, body @ ..] if body.len() == 28 => Some(body),
                    _ => return None,
                };
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    header.protocol().0,
                    label,
                    ip.get(header.slice().len()..)?,
                )
            }
            EtherType::IPV6 => {
                let header = Ipv6HeaderSlice::from_slice(ip).ok()?;
                let rest = ip.get(40..)?;
                if usize::from(header.payload_length()) > rest.len() {
                    return None;
                }
                let (protocol, label, rest) = match (header.next_header(), rest) {
                    (IpNumber::IPV6_DESTINATION_OPTIONS, [next, 3, 0x1e | 0x5e, 28, more @ ..]) => {
                        (*next, Some(more.get(..28)?), more.get(28..)?)
                    }
                    (next, rest) => (next.0, None, rest),
                };
                if [0, 43, 44, 51, 60, 135, 139, 140, 253, 254, 255].contains(&protocol) {
                    return None;
                }
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    protocol,
                    label,
                    rest,
                )
            }
            _ => return None,
        };
    let word = |at: usize| Some(u16::from_be_bytes([*rest.get(at)?, *rest.get(at + 1)?]));
    let mut parsed = Parsed {
        source,
        destination,
        protocol,
        ports: (0, 0),
        icmp: (0, 0),
        opener: 0,
        label: None,
    };
    match protocol {
        6 => {
            let flags = *rest.get(13)?;
            rest.get(..20)?;
            parsed.ports = (word(0)?, word(2)?);
            if flags & 0x12 == 0x02 {
                parsed.opener = u32::from(word(4)?) << 16 | u32::from(word(6)?);
            }
        }
        17 | 132 => {
            rest.get(..8)?;
            parsed.ports = (word(0)?, word(2)?);
        }
        1 | 58 => {
            rest.get(..8)?;
            parsed.icmp = (*rest.first()?, *rest.get(1)?);
            let echo = if protocol == 1 { [0, 8] } else { [128, 129] };
            if echo.contains(&parsed.icmp.0) {
                parsed.ports.0 = word(4)?;
            }
        }
        _ => {}
    }
    if let Some(body) = label {
        let whole: [u8; 28] = body.try_into().ok()?;
        let (label, _) = Label::decode(&whole);
        parsed.label = Some((label, whole[..20].try_into().ok()?, whole[20..].try_into().ok()?));
    }
    Some(parsed)
}

/// The MAC that the label of a parsed frame must have.
pub fn mac(parsed: &Parsed, body: &[u8; 20], key: (u64, u64)) -> [u8; 8] {
    let mut hasher = siphasher::sip::SipHasher24::new_with_keys(key.0, key.1);
    let mut input = body.to_vec();
    input.extend([parsed.protocol, 1, 0, 0]);
    for address in [parsed.source, parsed.destination] {
        input.extend(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        });
    }
    input.extend(parsed.ports.0.to_be_bytes());
    if matches!(parsed.protocol, 1 | 58) {
        input.extend([parsed.icmp.0, parsed.icmp.1]);
    } else {
        input.extend(parsed.ports.1.to_be_bytes());
    }
    input.extend(parsed.opener.to_be_bytes());
    assert_eq!(input.len(), 64);
    hasher.write(&input);
    hasher.finish().to_le_bytes()
}

/// Time and keys that a verifier goes by.
#[derive(Clone, Copy, Debug)]
pub struct Verifier {
    /// The slot that it is now.
    pub slot: u64,
    /// The key of the only domain in this epoch.
    pub key: (u64, u64),
    /// The epoch modulo 16.
    pub epoch: u8,
    /// Number of the zone that frames arrive by.
    pub zone: u8,
}

/// What must become of an arriving frame: `None` when it must be dropped before any rule.
pub fn decide_ingress(policy: &Policy, frame: &[u8], verifier: &Verifier) -> Option<Decision> {
    Some(interpret::decide(policy, 0, &request(policy, frame, verifier)?))
}

/// What must become of a frame that leaves by a zone: the decision and the label without slot and
/// epoch, `None` for a legacy neighbour. `None` when it must be dropped before any rule.
pub fn decide_egress(policy: &Policy, frame: &[u8], zone: u8) -> Option<(Decision, Option<Label>)> {
    let parsed = parse(frame)?;
    if parsed.label.is_some() {
        return None;
    }
    let mut request = packet_request(&parsed);
    request.scalars[usize::from(attribute::EGRESS_ZONE)] = zone.into();
    // A neighbour is a legacy one when it would count as one, were it the sender.
    let mut answer = Request { source: request.destination, ..Request::EMPTY };
    answer.scalars[usize::from(attribute::INGRESS_ZONE)] = zone.into();
    let bare = interpret::legacy(policy, &answer).is_some();
    let template = &policy.stamps()[interpret::stamp(policy, &request)?].template;
    let label = label_from(template);
    set_label(&mut request, state::VALID, &label);
    let decision = interpret::decide(policy, 1, &request);
    let label = label
        .with_version(1)
        .with_domain(policy.domains()[usize::from(template.domain.0)].number)
        .with_life(template.life);
    Some((decision, (!bare).then_some(label)))
}

/// The attributes that a packet has by itself.
fn packet_request(parsed: &Parsed) -> Request {
    let mut request = Request::EMPTY;
    request.source = halves(parsed.source);
    request.destination = halves(parsed.destination);
    let mut set = |attribute: attribute::Attribute, value: u32| {
        request.scalars[usize::from(attribute)] = value;
    };
    set(attribute::PROTOCOL, parsed.protocol.into());
    if matches!(parsed.protocol, 6 | 17 | 132) {
        set(attribute::SOURCE_PORT, parsed.ports.0.into());
        set(attribute::DESTINATION_PORT, parsed.ports.1.into());
    }
    if matches!(parsed.protocol, 1 | 58) {
        set(attribute::ICMP, u32::from(parsed.icmp.0) << 8 | u32::from(parsed.icmp.1));
    }
    request
}

/// The request that an arriving frame is, if it is one.
pub fn request(policy: &Policy, frame: &[u8], verifier: &Verifier) -> Option<Request> {
    let parsed = parse(frame)?;
    let mut request = packet_request(&parsed);
    request.scalars[usize::from(attribute::INGRESS_ZONE)] = verifier.zone.into();
    match &parsed.label {
        Some((label, body, found)) => {
            verify(policy, label, verifier)?;
            if mac(&parsed, body, verifier.key) != *found {
                return None;
            }
            set_label(&mut request, state::VALID, label);
        }
        None => {
            if let Some(legacy) = interpret::legacy(policy, &request) {
                let label = label_from(&policy.legacies()[legacy].template);
                set_label(&mut request, state::LEGACY, &label);
            }
        }
    }
    if let Some(deliver) = interpret::deliver(policy, &request) {
        let (domain, number) = policy.delivers()[deliver].object;
        request.scalars[usize::from(attribute::OBJECT)] = scope_key(domain.0.into(), number);
    }
    Some(request)
}

/// The checks before the MAC, for a policy of one domain.
fn verify(policy: &Policy, label: &Label, verifier: &Verifier) -> Option<()> {
    let domain = policy.domains().first()?;
    let known = domain.constraints.iter().fold(0_u16, |mask, (_, bit)| mask | 1 << bit);
    let age = i32::from((verifier.slot as u16).wrapping_sub(label.slot()) as i16);
    let fresh = age >= -1 && age <= 1 << label.life().min(4);
    let sound = label.version() == 1
        && label.flags() & 0b1010 == 0
        && label.domain() == domain.number
        && label.constraints() & !known == 0
        && label.epoch() == verifier.epoch;
    (fresh && sound).then_some(())
}

/// What a template says that rules can ask for.
fn label_from(template: &Template) -> Label {
    Label::default()
        .with_subject(template.subject)
        .with_level(template.level)
        .with_radius(template.radius)
        .with_compartments(template.compartments)
        .with_constraints(template.constraints)
        .with_operation(template.operation)
        .with_residency(template.residency)
        .with_route(template.route)
}

fn set_label(request: &mut Request, state: u32, label: &Label) {
    for (attribute, value) in [
        (attribute::STATE, state),
        (attribute::SUBJECT, scope_key(0, label.subject())),
        (attribute::LEVEL, label.level().into()),
        (attribute::RADIUS, label.radius().into()),
        (attribute::COMPARTMENTS, label.compartments().into()),
        (attribute::CONSTRAINTS, label.constraints().into()),
        (attribute::OPERATION, label.operation().into()),
        (attribute::RESIDENCY, label.residency().into()),
        (attribute::ROUTE, label.route().into()),
    ] {
        request.scalars[usize::from(attribute)] = value;
    }
}

fn halves(address: IpAddr) -> [u64; 2] {
    let bits = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    [(bits >> 64) as u64, bits as u64]
}
