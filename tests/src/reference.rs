//! What must become of a frame, written from docs/label.md and docs/language.md with
//! other tools than the enforcement point uses: etherparse reads headers, siphasher computes
//! MACs, the reference interpreter decides.

use std::{
    hash::Hasher as _,
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use etherparse::{EtherType, Ipv4HeaderSlice, Ipv6HeaderSlice};
use govc_abi::{
    attribute::{self, Request, scope_key, shape, state},
    label::Label,
};
use govc_compiler::{
    checked::{Policy, WrittenLabel},
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
    /// Set of `attribute::shape`.
    pub shape: u32,
    /// The datagram that a fragment is of.
    pub identification: u32,
    /// It is cut or has options, and goes to the port of tunnels.
    pub hides_a_tunnel: bool,
    /// The label with its MAC's bytes.
    pub label: Option<(Label, [u8; 20], [u8; 8])>,
}

/// The packet that starts at an IP header, up to its transport header.
struct Beginning<'f> {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    label: Option<&'f [u8]>,
    options: bool,
    /// The identification of a fragment.
    fragment: Option<u32>,
    /// It is none, or the first.
    is_first: bool,
    rest: &'f [u8],
}

fn begin_v4(ip: &[u8]) -> Option<Beginning<'_>> {
    let header = Ipv4HeaderSlice::from_slice(ip).ok()?;
    if usize::from(header.total_len()) > ip.len() {
        return None;
    }
    let (label, options) = match header.options() {
        [] => (None, false),
        [1, 1, 0x9e, 30, body @ ..] if body.len() == 28 => (Some(body), false),
        _ => (None, true),
    };
    Some(Beginning {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        protocol: header.protocol().0,
        label,
        options,
        fragment: header.is_fragmenting_payload().then(|| header.identification().into()),
        is_first: header.fragments_offset().value() == 0,
        rest: ip.get(header.slice().len()..)?,
    })
}

fn begin_v6(ip: &[u8]) -> Option<Beginning<'_>> {
    let header = Ipv6HeaderSlice::from_slice(ip).ok()?;
    let rest = ip.get(40..)?;
    if usize::from(header.payload_length()) > rest.len() {
        return None;
    }
    let mut begun = Beginning {
        source: header.source_addr().into(),
        destination: header.destination_addr().into(),
        protocol: header.next_header().0,
        label: None,
        options: false,
        fragment: None,
        is_first: true,
        rest,
    };
    // Addresses of IPv4 in IPv6 packets: those are not what they claim.
    if [header.source_addr(), header.destination_addr()]
        .iter()
        .any(|a| a.to_ipv4_mapped().is_some())
    {
        return None;
    }
    if let (60, [next, 3, 0x1e | 0x5e, 28, more @ ..]) = (begun.protocol, rest) {
        // The label ends behind the packet; super-packets say 0.
        if (1..32).contains(&header.payload_length()) {
            return None;
        }
        (begun.protocol, begun.label, begun.rest) = (*next, Some(more.get(..28)?), more.get(28..)?);
    }
    for _ in 0..4 {
        let [next, units, ..] = *begun.rest else { break };
        let len = match begun.protocol {
            0 | 43 | 60 | 135 | 139 | 140 | 253..=255 => usize::from(units) * 8 + 8,
            51 => usize::from(units) * 4 + 8,
            _ => break,
        };
        begun.rest.get(..8)?;
        (begun.protocol, begun.options, begun.rest) = (next, true, begun.rest.get(len..)?);
    }
    if begun.protocol == 44 {
        let [next, _, high, low, a, b, c, d, ..] = *begun.rest else { return None };
        begun.is_first = u16::from_be_bytes([high, low]) >> 3 == 0;
        begun.fragment = Some(u32::from_be_bytes([a, b, c, d]));
        (begun.protocol, begun.rest) = (next, begun.rest.get(8..)?);
    }
    let extension = [0, 43, 44, 51, 60, 135, 139, 140, 253, 254, 255].contains(&begun.protocol);
    (!extension).then_some(begun)
}

/// Reads a frame; `None` for everything that must be dropped unread.
pub fn parse(frame: &[u8]) -> Option<Parsed> {
    let ethertype = EtherType(u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]));
    let ip = frame.get(ETH..)?;
    // Headers that stand elsewhere than usual are looked for in the first bytes.
    let begun = match ethertype {
        EtherType::IPV4 => begin_v4(ip)?,
        EtherType::IPV6 => begin_v6(ip)?,
        _ => return None,
    };
    let mut shape = if begun.options { shape::OPTIONS } else { shape::WHOLE };
    if begun.fragment.is_some() {
        shape |= shape::FRAGMENT;
    }
    // What has other options than a label has no label.
    if begun.label.is_some() && begun.options {
        return None;
    }
    let Beginning { source, destination, protocol, label, .. } = begun;
    let headers_end = if shape == shape::WHOLE { ip.len() } else { ip.len().min(256) };
    let start = ip.len() - begun.rest.len();
    if start > headers_end {
        return None;
    }
    let rest = ip.get(start..headers_end)?;
    let word = |at: usize| Some(u16::from_be_bytes([*rest.get(at)?, *rest.get(at + 1)?]));
    let mut parsed = Parsed {
        source,
        destination,
        protocol,
        ports: (0, 0),
        icmp: (0, 0),
        opener: 0,
        shape,
        identification: begun.fragment.unwrap_or(0),
        // What cannot be seen may be one.
        hides_a_tunnel: shape != shape::WHOLE
            && (protocol, begun.is_first) == (17, true)
            && word(2).is_none_or(|port| port == 6081),
        label: None,
    };
    match protocol {
        // The first fragment alone would show them.
        _ if begun.fragment.is_some() => {}
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

/// Reads a frame as a node does that looks into tunnels; `None` for everything that must be dropped
/// unread.
pub fn parse_through(frame: &[u8]) -> Option<Parsed> {
    let outer = parse(frame)?;
    if outer.hides_a_tunnel {
        return None;
    }
    if outer.shape != shape::WHOLE {
        return Some(outer);
    }
    let ip = frame.get(ETH..)?;
    let v4 = outer.source.is_ipv4();
    let udp = ip.get(if v4 { 20 } else { 40 }..)?;
    let geneve = udp.get(8..)?;
    let ours = match geneve {
        [version, _, _, _, _, _, _, _, 0xff, 0x9e, _, _, ..] => *version < 0x40 && *version != 0,
        _ => false,
    };
    if outer.label.is_some() || outer.protocol != 17 || outer.ports.1 != 6081 || !ours {
        return Some(outer);
    }
    let [high, low] = if v4 { [0x08, 0x00] } else { [0x86, 0xdd] };
    let head = [0x08, 0x40, high, low, 0, 0, 0, 0, 0xff, 0x9e, 0x9e, 7];
    let packet = geneve.get(40..)?;
    if geneve.get(..12)? != head || udp.get(6..8)? != [0, 0] {
        return None;
    }
    // Length of an IP packet and its traffic class.
    let told = |ip: &[u8]| {
        if v4 {
            let header = etherparse::Ipv4HeaderSlice::from_slice(ip).ok()?;
            return Some((header.total_len(), header.ecn().value()));
        }
        let header = etherparse::Ipv6HeaderSlice::from_slice(ip).ok()?;
        Some((header.payload_length() + 40, header.traffic_class() & 3))
    };
    let (whole, mark) = told(ip)?;
    let (within, inner_mark) = told(packet)?;
    let udp_len = u16::from_be_bytes([*udp.get(4)?, *udp.get(5)?]);
    let headers = if v4 { 20 } else { 40 };
    if whole != udp_len + headers || whole != within + headers + 48 {
        return None;
    }
    if mark == 3 && inner_mark == 0 {
        return None;
    }
    let mut inner_frame = frame.get(..ETH)?.to_vec();
    inner_frame.extend(packet);
    let inner = parse(&inner_frame)?;
    if inner.label.is_some()
        || inner.hides_a_tunnel
        || inner.shape & shape::OPTIONS != 0
        || (inner.source, inner.destination) != (outer.source, outer.destination)
    {
        return None;
    }
    let body: [u8; 28] = geneve.get(12..40)?.try_into().ok()?;
    let (label, _) = Label::decode(&body);
    let label = Some((label, body[..20].try_into().ok()?, body[20..].try_into().ok()?));
    Some(Parsed { label, ..inner })
}

/// Whether labels to where a frame goes ride in a tunnel, if it leaves by a zone.
pub fn rides_in_tunnel(policy: &Policy, frame: &[u8], zone: u8) -> bool {
    let Some(parsed) = parse(frame) else { return false };
    let Some(mut request) = packet_request(policy, &parsed) else { return false };
    request.scalars[usize::from(attribute::EGRESS_ZONE)] = zone.into();
    interpret::carriage(policy, &request).is_some_and(|at| policy.carriages()[at].tunnel)
}

/// Reads a frame as a node under a policy does.
fn read(policy: &Policy, frame: &[u8]) -> Option<Parsed> {
    let tunnels = policy.carriages().iter().any(|carriage| carriage.tunnel);
    if tunnels { parse_through(frame) } else { parse(frame) }
}

/// The MAC that the label of a parsed frame must have.
pub fn mac(parsed: &Parsed, body: &[u8; 20], key: (u64, u64)) -> [u8; 8] {
    let mut hasher = siphasher::sip::SipHasher24::new_with_keys(key.0, key.1);
    let mut input = body.to_vec();
    let fragment = parsed.shape & shape::FRAGMENT != 0;
    input.extend([if fragment { 44 } else { parsed.protocol }, 1, 0, 0]);
    for address in [parsed.source, parsed.destination] {
        input.extend(match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        });
    }
    if fragment {
        input.extend([0, parsed.protocol, 0, 1]);
        input.extend(parsed.identification.to_be_bytes());
        hasher.write(&input);
        return hasher.finish().to_le_bytes();
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

/// The key of a label's sender, from the beginning of the label and the key of its epoch.
pub fn sender_key(body: &[u8; 20], key: (u64, u64)) -> (u64, u64) {
    let half = |number: u8| {
        let mut block = [0_u8; 64];
        block[2..7].copy_from_slice(&body[2..7]);
        block[21..23].copy_from_slice(&[2, number]);
        let mut hasher = siphasher::sip::SipHasher24::new_with_keys(key.0, key.1);
        hasher.write(&block);
        hasher.finish()
    };
    (half(0), half(1))
}

/// A frame with a label, whatever shape it has.
pub fn labelled(frame: &[u8], label: &Label, key: (u64, u64)) -> Option<Vec<u8>> {
    let parsed = parse(&crate::frame::insert(frame, label, 0))?;
    let (_, body, _) = parsed.label.as_ref()?;
    let mac = u64::from_le_bytes(mac(&parsed, body, key));
    Some(crate::frame::insert(frame, label, mac))
}

/// Likewise in a tunnel.
pub fn tunnelled(frame: &[u8], label: &Label, key: (u64, u64)) -> Option<Vec<u8>> {
    let parsed = parse(frame)?;
    let body = label.encode(0);
    let mac = u64::from_le_bytes(mac(&parsed, body.first_chunk()?, key));
    Some(crate::frame::wrap(frame, label, mac))
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
    let parsed = read(policy, frame)?;
    if parsed.label.is_some() {
        return None;
    }
    let mut request = packet_request(policy, &parsed)?;
    request.scalars[usize::from(attribute::EGRESS_ZONE)] = zone.into();
    // A neighbour is a legacy one when it would count as one, were it the sender.
    let mut answer = Request { source: request.destination, ..Request::EMPTY };
    answer.scalars[usize::from(attribute::INGRESS_ZONE)] = zone.into();
    let bare = interpret::legacy(policy, &answer).is_some();
    let stamp = &policy.stamps()[interpret::stamp(policy, &request)?];
    let written = &stamp.label;
    let label = label_from(written);
    set_label(&mut request, state::VALID, &label);
    let decision = interpret::decide(policy, 1, &request);
    let labelled = match parsed.shape {
        shape::WHOLE => true,
        shape::FRAGMENT => stamp.fragments,
        _ => false,
    };
    if decision.permit && !bare && !labelled {
        return None;
    }
    let label = label
        .with_version(1)
        .with_domain(policy.domains()[usize::from(written.domain.0)].number)
        .with_life(written.life);
    Some((decision, (!bare).then_some(label)))
}

/// The attributes that a packet has by itself; `None` where no rule speaks of such packets.
fn packet_request(policy: &Policy, parsed: &Parsed) -> Option<Request> {
    if parsed.shape & !policy.shapes() != 0 {
        return None;
    }
    let mut request = Request::EMPTY;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() / 2;
    let past = policy.times().iter().filter(|time| u64::from(**time) <= now).count();
    request.scalars[usize::from(attribute::TIME)] = past as u32;
    request.source = halves(parsed.source);
    request.destination = halves(parsed.destination);
    let mut set = |attribute: attribute::Attribute, value: u32| {
        request.scalars[usize::from(attribute)] = value;
    };
    set(attribute::PROTOCOL, parsed.protocol.into());
    set(attribute::SHAPE, parsed.shape);
    if matches!(parsed.protocol, 6 | 17 | 132) {
        set(attribute::SOURCE_PORT, parsed.ports.0.into());
        set(attribute::DESTINATION_PORT, parsed.ports.1.into());
    }
    if matches!(parsed.protocol, 1 | 58) {
        set(attribute::ICMP, u32::from(parsed.icmp.0) << 8 | u32::from(parsed.icmp.1));
    }
    Some(request)
}

/// The request that an arriving frame is, if it is one.
pub fn request(policy: &Policy, frame: &[u8], verifier: &Verifier) -> Option<Request> {
    let parsed = read(policy, frame)?;
    let mut request = packet_request(policy, &parsed)?;
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
                let label = label_from(&policy.legacies()[legacy].label);
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

/// What a stamp or legacy rule writes that rules can ask for.
fn label_from(written: &WrittenLabel) -> Label {
    Label::default()
        .with_subject(written.subject)
        .with_level(written.level)
        .with_radius(written.radius)
        .with_compartments(written.compartments)
        .with_constraints(written.constraints)
        .with_operation(written.operation)
        .with_residency(written.residency)
        .with_route(written.route)
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
