//! Building frames, labelling and reading them, independently of the enforcement point.

use std::net::{IpAddr, SocketAddr};

use etherparse::PacketBuilder;
use govc_abi::{
    label::{BLOCK_LEN, Label},
    mac::{self, Flow},
};

/// Bytes of an Ethernet header.
pub const ETH: usize = 14;

/// What a test packet is.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// Source address and port; the identifier for ICMP echo.
    pub source: SocketAddr,
    /// Destination address and port.
    pub destination: SocketAddr,
    /// What it carries.
    pub transport: Transport,
    /// Bytes of payload.
    pub payload: usize,
}

/// The transports that tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// SYN, ACK, sequence number.
    Tcp {
        /// The SYN flag.
        syn: bool,
        /// The ACK flag.
        ack: bool,
        /// The sequence number.
        sequence: u32,
    },
    /// UDP.
    Udp,
    /// ICMP or ICMPv6 by the addresses' version: type and code; echo types carry an identifier.
    Icmp(u8, u8),
    /// Another protocol, with eight bytes of nothing in particular.
    Other(u8),
}

impl Spec {
    /// The frame without a label.
    pub fn frame(&self) -> Vec<u8> {
        let eth = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]);
        let ip = match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => eth.ipv4(a.octets(), b.octets(), 64),
            (IpAddr::V6(a), IpAddr::V6(b)) => eth.ipv6(a.octets(), b.octets(), 64),
            mixed => panic!("addresses of two versions: {mixed:?}"),
        };
        let v6 = self.source.is_ipv6();
        let payload: Vec<u8> = (0..self.payload).map(|i| i as u8).collect();
        let (from, to) = (self.source.port(), self.destination.port());
        let mut bytes = Vec::new();
        let written = match self.transport {
            Transport::Tcp { syn, ack, sequence } => {
                let mut tcp = ip.tcp(from, to, sequence, 1000);
                if syn {
                    tcp = tcp.syn();
                }
                if ack {
                    tcp = tcp.ack(7);
                }
                tcp.write(&mut bytes, &payload)
            }
            Transport::Udp => ip.udp(from, to).write(&mut bytes, &payload),
            Transport::Icmp(kind, code) => {
                let [a, b] = from.to_be_bytes();
                let rest = [a, b, 0, 1];
                if v6 {
                    ip.icmpv6_raw(kind, code, rest).write(&mut bytes, &payload)
                } else {
                    ip.icmpv4_raw(kind, code, rest).write(&mut bytes, &payload)
                }
            }
            Transport::Other(protocol) => {
                ip.write(&mut bytes, etherparse::IpNumber(protocol), &[0; 8])
            }
        };
        written.expect("a frame fits into memory");
        bytes
    }

    /// IP protocol number.
    pub fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp { .. } => 6,
            Transport::Udp => 17,
            Transport::Icmp(..) if self.source.is_ipv6() => 58,
            Transport::Icmp(..) => 1,
            Transport::Other(protocol) => protocol,
        }
    }

    /// The flow as the MAC covers it, written from docs/label.md.
    pub fn flow(&self) -> Flow {
        let address = |ip: IpAddr| {
            let octets = match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            let half = |range: std::ops::Range<usize>| {
                u64::from_ne_bytes(octets[range].try_into().expect("eight bytes"))
            };
            [half(0..8), half(8..16)]
        };
        let (source_port, destination_port, opener) = match self.transport {
            Transport::Tcp { syn, ack, sequence } => {
                let opener = if syn && !ack { sequence.to_be() } else { 0 };
                (self.source.port().to_be(), self.destination.port().to_be(), opener)
            }
            Transport::Udp => (self.source.port().to_be(), self.destination.port().to_be(), 0),
            Transport::Icmp(kind, code) => {
                let echo = if self.source.is_ipv6() { [128, 129] } else { [8, 0] };
                let identifier = if echo.contains(&kind) { self.source.port().to_be() } else { 0 };
                (identifier, u16::from_ne_bytes([kind, code]), 0)
            }
            Transport::Other(132) => (0, 0, 0),
            Transport::Other(_) => (0, 0, 0),
        };
        Flow {
            source: address(self.source.ip()),
            destination: address(self.destination.ip()),
            source_port,
            destination_port,
            opener,
            protocol: self.protocol(),
            pad: [0; 7],
        }
    }

    /// The frame in a tunnel, with a label under a key.
    pub fn tunnelled(&self, label: &Label, key: (u64, u64)) -> Vec<u8> {
        let mac = mac::mac(key.0, key.1, label, &self.flow());
        wrap(&self.frame(), label, mac)
    }

    /// The frame with a label under a key.
    pub fn labelled(&self, label: &Label, key: (u64, u64)) -> Vec<u8> {
        let mac = mac::mac(key.0, key.1, label, &self.flow());
        insert(&self.frame(), label, mac)
    }
}

/// Puts a label into a frame that has none.
pub fn insert(frame: &[u8], label: &Label, mac: u64) -> Vec<u8> {
    let body = label.encode(mac);
    let mut out = frame.to_vec();
    if frame[12] == 0x08 {
        let at = ETH + 20;
        out.splice(at..at, [1, 1, 0x9e, 30].into_iter().chain(body));
        out[ETH] = 0x4d;
        let total = u16::from_be_bytes([out[ETH + 2], out[ETH + 3]]) + BLOCK_LEN as u16;
        out[ETH + 2..ETH + 4].copy_from_slice(&total.to_be_bytes());
        fix_checksum(&mut out);
    } else {
        let at = ETH + 40;
        let next = out[ETH + 6];
        out.splice(at..at, [next, 3, 0x1e, 28].into_iter().chain(body));
        out[ETH + 6] = 60;
        let payload = u16::from_be_bytes([out[ETH + 4], out[ETH + 5]]) + BLOCK_LEN as u16;
        out[ETH + 4..ETH + 6].copy_from_slice(&payload.to_be_bytes());
    }
    out
}

/// UDP header, Geneve header and the option's own header of a tunnel.
const TUNNEL: usize = 8 + 8 + 4;

/// Puts a frame that has no label into a tunnel with one.
pub fn wrap(frame: &[u8], label: &Label, mac: u64) -> Vec<u8> {
    let v4 = frame[12] == 0x08;
    let ip_len = if v4 { 20 } else { 40 };
    let (ethernet, inner) = frame.split_at(ETH);
    let udp_len = (inner.len() + TUNNEL + 28) as u16;
    let mut out = ethernet.to_vec();
    out.extend(&inner[..ip_len]);
    if v4 {
        out[ETH] = 0x45;
        out[ETH + 2..ETH + 4].copy_from_slice(&(udp_len + 20).to_be_bytes());
        out[ETH + 4..ETH + 8].copy_from_slice(&[0, 0, 0x40, 0]);
        out[ETH + 9] = 17;
        fix_checksum(&mut out);
    } else {
        out[ETH + 4..ETH + 6].copy_from_slice(&udp_len.to_be_bytes());
        out[ETH + 6] = 17;
    }
    out.extend([0xc0, 0x01]);
    out.extend(6081_u16.to_be_bytes());
    out.extend(udp_len.to_be_bytes());
    out.extend([0, 0, 0x08, 0x40, frame[12], frame[13], 0, 0, 0, 0]);
    out.extend([0xff, 0x9e, 0x9e, 7]);
    out.extend(label.encode(mac));
    out.extend(inner);
    out
}

/// Where the label's body starts in a frame in a tunnel.
pub fn tunnel_body_at(frame: &[u8]) -> usize {
    ETH + TUNNEL + if frame[12] == 0x08 { 20 } else { 40 }
}

/// Likewise, where the frame has an IPv4 header.
pub fn fix_if_v4(frame: &mut [u8]) {
    if frame[12] == 0x08 {
        fix_checksum(frame);
    }
}

/// Makes a frame without a label a fragment: an offset in units of eight bytes, and whether more follow.
pub fn fragment(frame: &[u8], identification: u32, offset: u16, more: bool) -> Vec<u8> {
    let mut out = frame.to_vec();
    if frame[12] == 0x08 {
        let word = offset & 0x1fff | if more { 0x2000 } else { 0 };
        out[ETH + 4..ETH + 6].copy_from_slice(&(identification as u16).to_be_bytes());
        out[ETH + 6..ETH + 8].copy_from_slice(&word.to_be_bytes());
        fix_checksum(&mut out);
        return out;
    }
    let [a, b] = (offset << 3 | u16::from(more)).to_be_bytes();
    let mut header = vec![44, 0, a, b];
    header.extend(identification.to_be_bytes());
    put_extension(&mut out, header);
    out
}

/// Gives a frame without a label options that mean nothing: four bytes of an IPv4 header, or an
/// IPv6 extension header of this number and so many times eight bytes.
pub fn with_options(frame: &[u8], number: u8, units: usize) -> Vec<u8> {
    let mut out = frame.to_vec();
    if frame[12] == 0x08 {
        let at = ETH + 20;
        out.splice(at..at, [1; 4]);
        out[ETH] += 1;
        let total = u16::from_be_bytes([out[ETH + 2], out[ETH + 3]]) + 4;
        out[ETH + 2..ETH + 4].copy_from_slice(&total.to_be_bytes());
        fix_checksum(&mut out);
        return out;
    }
    // RFC 4302 counts words of four bytes.
    let told = if number == 51 { units * 2 - 2 } else { units - 1 };
    let mut header = vec![0; units * 8];
    header[..2].copy_from_slice(&[number, told as u8]);
    put_extension(&mut out, header);
    out
}

/// Puts an extension header behind the IPv6 header; its first byte is its own number.
fn put_extension(frame: &mut Vec<u8>, mut header: Vec<u8>) {
    let payload = u16::from_be_bytes([frame[ETH + 4], frame[ETH + 5]]) + header.len() as u16;
    frame[ETH + 4..ETH + 6].copy_from_slice(&payload.to_be_bytes());
    std::mem::swap(&mut frame[ETH + 6], &mut header[0]);
    frame.splice(ETH + 40..ETH + 40, header);
}

/// Computes the IPv4 header checksum anew.
pub fn fix_checksum(frame: &mut [u8]) {
    let len = usize::from(frame[ETH] & 0xf) * 4;
    frame[ETH + 10..ETH + 12].copy_from_slice(&[0, 0]);
    let sum: u32 = frame[ETH..ETH + len]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    frame[ETH + 10..ETH + 12].copy_from_slice(&checksum.to_be_bytes());
}

/// Where the label's body starts in a labelled frame.
pub fn body_at(frame: &[u8]) -> usize {
    if frame[12] == 0x08 { ETH + 24 } else { ETH + 44 }
}

/// The label and MAC in a labelled frame.
pub fn label_of(frame: &[u8]) -> (Label, u64) {
    let at = body_at(frame);
    Label::decode(frame[at..at + 28].try_into().expect("28 bytes"))
}
