//! Packets that find out what a path lets through, and what comes back about them. They carry bytes
//! where a label would be, never a label.

use std::net::IpAddr;

use govc_abi::{
    label::{BODY_LEN, PREFIX_V4, V6_HDR_EXT_LEN, V6_OPTION_LEN, V6_OPTION_SKIP},
    tunnel::{ETHERTYPE_V4, ETHERTYPE_V6, HEADER, OPTION},
};
use govc_netlab::checksum;

pub const ICMP: u8 = 1;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;
const DESTINATION_OPTIONS: u8 = 60;
const HOPS: u8 = 64;

/// Both ends, of one IP version.
#[derive(Clone, Copy)]
pub struct Ends {
    pub source: IpAddr,
    pub destination: IpAddr,
}

impl Ends {
    pub fn is_v6(self) -> bool {
        self.destination.is_ipv6()
    }

    /// Bytes of an IP header.
    pub fn header_len(self) -> usize {
        if self.is_v6() { 40 } else { 20 }
    }

    /// The protocol of echoes.
    pub fn icmp(self) -> u8 {
        if self.is_v6() { ICMPV6 } else { ICMP }
    }
}

/// An echo request of so many bytes in all, bare or with the option that labels ride in.
pub fn echo(ends: Ends, (id, sequence): (u16, u16), with_option: bool, len: usize) -> Vec<u8> {
    let room = ends.header_len() + if with_option { 4 + BODY_LEN } else { 0 };
    let kind = if ends.is_v6() { 128 } else { 8 };
    let mut message = vec![kind, 0, 0, 0];
    message.extend(id.to_be_bytes());
    message.extend(sequence.to_be_bytes());
    message.resize(len.saturating_sub(room).max(message.len()), 0);
    let pseudo = if ends.is_v6() { pseudo_header(ends, message.len(), ICMPV6) } else { Vec::new() };
    let sum = checksum(&[&pseudo, &message].map(Vec::as_slice).concat());
    if let Some(place) = message.get_mut(2..4) {
        place.copy_from_slice(&sum.to_be_bytes());
    }
    packet(ends, ends.icmp(), with_option, &message)
}

/// A datagram.
pub fn datagram(ends: Ends, (from, to): (u16, u16), payload: &[u8]) -> Vec<u8> {
    let len = 8 + payload.len();
    let mut message = Vec::with_capacity(len);
    for word in [from, to, len as u16, 0] {
        message.extend(word.to_be_bytes());
    }
    message.extend(payload);
    // Tunnels have none, but a host that knows nothing of them would drop that unanswered (RFC 8200).
    if ends.is_v6() {
        let pseudo = pseudo_header(ends, len, UDP);
        let sum = checksum(&[&pseudo, &message].map(Vec::as_slice).concat());
        if let Some(place) = message.get_mut(6..8) {
            place.copy_from_slice(&(if sum == 0 { 0xffff } else { sum }).to_be_bytes());
        }
    }
    packet(ends, UDP, false, &message)
}

/// What stands behind the UDP header of a tunnel, with a datagram inside.
pub fn tunnel(ends: Ends, ports: (u16, u16)) -> Vec<u8> {
    let ethertype = if ends.is_v6() { ETHERTYPE_V6 } else { ETHERTYPE_V4 };
    let head = [&HEADER[..], &ethertype.to_be_bytes(), &[0; 4], &OPTION, &[0; BODY_LEN]];
    let mut payload = head.concat();
    payload.extend(datagram(ends, ports, b"govc probe"));
    payload
}

fn packet(ends: Ends, protocol: u8, with_option: bool, message: &[u8]) -> Vec<u8> {
    let option = if with_option { 4 + BODY_LEN } else { 0 };
    let mut out = Vec::new();
    match (ends.source, ends.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let words = (20 + option) / 4;
            let total = (20 + option + message.len()) as u16;
            out.extend([0x40 | words as u8, 0]);
            out.extend(total.to_be_bytes());
            // Never to be fragmented. The kernel fills the checksum in.
            out.extend([0, 0, 0x40, 0, HOPS, protocol, 0, 0]);
            out.extend(source.octets());
            out.extend(destination.octets());
            if with_option {
                out.extend(PREFIX_V4);
                out.extend([0; BODY_LEN]);
            }
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let next = if with_option { DESTINATION_OPTIONS } else { protocol };
            out.extend([0x60, 0, 0, 0]);
            out.extend(((option + message.len()) as u16).to_be_bytes());
            out.extend([next, HOPS]);
            out.extend(source.octets());
            out.extend(destination.octets());
            if with_option {
                out.extend([protocol, V6_HDR_EXT_LEN, V6_OPTION_SKIP, V6_OPTION_LEN]);
                out.extend([0; BODY_LEN]);
            }
        }
        _ => {}
    }
    out.extend(message);
    out
}

fn pseudo_header(ends: Ends, len: usize, protocol: u8) -> Vec<u8> {
    let mut out = Vec::new();
    for address in [ends.source, ends.destination] {
        if let IpAddr::V6(v6) = address {
            out.extend(v6.octets());
        }
    }
    out.extend((len as u32).to_be_bytes());
    out.extend([0, 0, 0, protocol]);
    out
}

/// What an ICMP message says about what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// An echo, with identifier and sequence number.
    Echo(u16, u16),
    /// Nobody listens at the port: what was sent from this port has arrived.
    PortClosed(u16),
    /// A packet to the destination was longer than this.
    TooBig(u32),
}

/// Reads an ICMP message from its own header on.
pub fn read(ends: Ends, message: &[u8]) -> Option<Told> {
    let [kind, code, _, _, a, b, c, d, quote @ ..] = message else { return None };
    let v6 = ends.is_v6();
    let word =
        |bytes: &[u8], at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    if *kind == if v6 { 129 } else { 0 } {
        return Some(Told::Echo(u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])));
    }
    let (closed, too_big, at) = if v6 { ([1, 4], [2, 0], 24) } else { ([3, 3], [3, 4], 16) };
    let to = quote.get(at..at + if v6 { 16 } else { 4 })?;
    let ours = match ends.destination {
        IpAddr::V4(v4) => v4.octets() == to,
        IpAddr::V6(v6) => v6.octets() == to,
    };
    if !ours {
        return None;
    }
    if [*kind, *code] == too_big {
        let mtu =
            if v6 { u32::from_be_bytes([*a, *b, *c, *d]) } else { u32::from(word(&[*c, *d], 0)?) };
        return Some(Told::TooBig(mtu));
    }
    let udp = quote.get(ends.header_len()..)?;
    let protocol = *quote.get(if v6 { 6 } else { 9 })?;
    ([*kind, *code] == closed && protocol == UDP).then_some(Told::PortClosed(word(udp, 0)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(v6: bool) -> Ends {
        let [source, destination] =
            if v6 { ["2001:db8::1", "2001:db8::2"] } else { ["192.0.2.1", "192.0.2.2"] };
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn probes_have_the_shape_of_what_they_stand_for() {
        for (v6, bare, labelled) in [(false, 28, 60), (true, 48, 80)] {
            let ends = ends(v6);
            assert_eq!(echo(ends, (7, 8), false, 0).len(), bare);
            assert_eq!(echo(ends, (7, 8), true, 0).len(), labelled);
            assert_eq!(echo(ends, (7, 8), true, 1400).len(), 1400);
            let inner = datagram(ends, (1, 2), b"govc probe").len();
            let overhead = if v6 { 88 } else { 68 };
            let whole = datagram(ends, (50_000, 6081), &tunnel(ends, (1, 2)));
            assert_eq!(whole.len(), inner + overhead);
        }
    }

    #[test]
    fn answers_are_read() {
        for v6 in [false, true] {
            let ends = ends(v6);
            let quote = datagram(ends, (50_000, 6081), b"x");
            let error = |head: [u8; 8]| [&head[..], &quote].concat();
            let (closed, big) = if v6 { ([1, 4], [2, 0]) } else { ([3, 3], [3, 4]) };
            let message = error([closed[0], closed[1], 0, 0, 0, 0, 0, 0]);
            assert_eq!(read(ends, &message), Some(Told::PortClosed(50_000)));
            let message = error([big[0], big[1], 0, 0, 0, 0, 5, 0x14]);
            assert_eq!(read(ends, &message), Some(Told::TooBig(1300)));
            let message = [if v6 { 129 } else { 0 }, 0, 0, 0, 0, 7, 0, 8];
            assert_eq!(read(ends, &message), Some(Told::Echo(7, 8)));
            for len in 0..quote.len() {
                let _ = read(ends, &quote[..len]);
            }
        }
    }
}
