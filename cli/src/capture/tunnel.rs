//! Packets whose label stands in front of them, in a tunnel: see docs/label.md.

use etherparse::IpNumber;
use govc_abi::{
    attribute::shape,
    label::{self, Label},
    reason,
    tunnel::{CLASS, ETHERTYPE_V4, ETHERTYPE_V6, HEADER, OPTION, OVERHEAD_V4, PORT, ecn},
};

use super::{Headers, word};

/// What is inside, for a packet that begins at `ip`; the packet itself where it is no tunnel.
///
/// # Errors
/// The reason to drop it.
pub(super) fn inside<'p>(outer: Headers<'p>, ip: &'p [u8]) -> Result<Headers<'p>, u8> {
    if is_unreadable(&outer) {
        return Err(outer.shaped.refused);
    }
    let to_tunnel = IpNumber(outer.protocol) == IpNumber::UDP && outer.ports.1 == PORT;
    if !to_tunnel || outer.label.is_some() {
        return Ok(outer);
    }
    let Some((udp, geneve)) = outer.rest.split_at_checked(8) else { return Ok(outer) };
    let Some((head, rest)) = geneve.split_at_checked(12) else { return Ok(outer) };
    let is_ours = |first: u8| first >> 6 == 0 && first & 0x3f != 0;
    if !head.first().copied().is_some_and(is_ours) || head.get(8..10) != Some(&CLASS) {
        return Ok(outer);
    }
    let v4 = outer.source.is_ipv4();
    let ethertype = if v4 { ETHERTYPE_V4 } else { ETHERTYPE_V6 };
    let wanted = [&HEADER[..], &ethertype.to_be_bytes(), &[0; 4], &OPTION].concat();
    if head != wanted || word(udp, 6) != Some(0) {
        return Err(reason::MALFORMED);
    }
    let (body, packet) = rest.split_at_checked(label::BODY_LEN).ok_or(reason::TRUNCATED)?;
    let around = Marks::read(ip, v4).ok_or(reason::TRUNCATED)?;
    let within = Marks::read(packet, v4).ok_or(reason::TRUNCATED)?;
    if around.ends != within.ends {
        return Err(reason::TUNNEL_ENDS);
    }
    let lengths = (around.payload, word(udp, 4).unwrap_or_default(), within.payload);
    let fits = match lengths {
        // Super-packets of more than 64 KiB.
        (0, udp, within) => udp == 0 && within == 0,
        (around, udp, within) => {
            let added = OVERHEAD_V4 as u16 + if v4 { 0 } else { 20 };
            around == udp && around.checked_sub(added) == Some(within)
        }
    };
    if !fits || ecn(within.service, around.service).is_none() {
        return Err(reason::MALFORMED);
    }
    match Headers::read(packet) {
        Ok(inner) if is_unreadable(&inner) => Err(inner.shaped.refused),
        Ok(inner) if inner.label.is_none() && inner.source.is_ipv4() == v4 => {
            let body = body.try_into().map_err(|_| reason::TRUNCATED)?;
            Ok(Headers { label: Some(Label::decode(body)), ..inner })
        }
        // Nothing that passes without a label passes with one.
        Ok(_) | Err(reason::LINK_CONTROL) => Err(reason::MALFORMED),
        Err(reason) => Err(reason),
    }
}

/// Whether a packet goes to the port of tunnels and nobody looks into it, as it is cut or has options.
fn is_unreadable(headers: &Headers<'_>) -> bool {
    let shaped = headers.shaped;
    let may_be_one = match shaped.is_fragment() {
        // What cannot be seen may be.
        true if shaped.fragment.is_first => word(headers.rest, 2).is_none_or(|to| to == PORT),
        true => false,
        false => headers.ports.1 == PORT,
    };
    shaped.shape != shape::WHOLE && IpNumber(headers.protocol) == IpNumber::UDP && may_be_one
}

/// What two headers have to agree on.
struct Marks<'p> {
    /// Both addresses.
    ends: &'p [u8],
    /// Bytes behind the header.
    payload: u16,
    /// Type of service, or traffic class.
    service: u8,
}

impl<'p> Marks<'p> {
    fn read(ip: &'p [u8], v4: bool) -> Option<Self> {
        if v4 {
            let header = ip.get(..20)?;
            let payload = word(header, 2)?.saturating_sub(20);
            return Some(Self { ends: header.get(12..)?, payload, service: *header.get(1)? });
        }
        let header = ip.get(..40)?;
        let service = (word(header, 0)? >> 4) as u8;
        Some(Self { ends: header.get(8..)?, payload: word(header, 4)?, service })
    }
}
