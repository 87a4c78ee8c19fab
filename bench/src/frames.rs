//! Frames, prepared so that an eBPF program only has to copy them.

use std::net::{Ipv4Addr, Ipv6Addr};

use govc_abi::{
    label::{
        BODY_LEN, IHL_LABELLED, Label, PREFIX_V4, V6_HDR_EXT_LEN, V6_OPTION_LEN, V6_OPTION_SKIP,
        VERSION,
    },
    limits::LIFE_MAX_DEFAULT,
    mac::{self, Flow, v4_mapped},
};
use govc_loader::keyring::{DomainKeys, slot_now};

use crate::{
    policy::{DOMAIN, Numbers, Rule, object_v4, object_v6},
    random::Random,
    shared::{FRAME_LEN, FRAMES_MAX},
};

/// A whole frame.
pub type Bytes = [u8; FRAME_LEN];

const TCP: u8 = 6;
const UDP: u8 = 17;
const DESTINATION_OPTIONS: u8 = 60;
/// Ethernet header, IPv4 header, prefix of the option.
const BODY_AT_V4: usize = 14 + 20 + 4;
/// Ethernet header, IPv6 header, prefix of the option.
const BODY_AT_V6: usize = 14 + 40 + 4;

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Frames that take turns.
pub struct FrameSet {
    frames: Vec<Bytes>,
    /// What each frame's label says besides the time, and the flow that it is bound to; none
    /// for frames without labels.
    labels: Vec<(Label, Flow)>,
    body_at: usize,
}

impl FrameSet {
    /// Labelled TCP packets that these rules decide, of as many flows as there are frames.
    pub fn labelled(version: Version, numbers: Numbers, rules: &[Rule]) -> Self {
        let random = &mut Random::new(rules.len() as u64);
        let draw = |_| {
            let rule = rules.get(random.below(rules.len() as u32) as usize)?;
            let port = 32_768 + random.below(28_000) as u16;
            let label = Label::default()
                .with_version(VERSION)
                .with_life(LIFE_MAX_DEFAULT)
                .with_domain(DOMAIN)
                .with_subject(numbers.subject(rule))
                .with_operation(numbers.operation(rule));
            Some((label, labelled_frame(version, rule, port)))
        };
        let drawn: Vec<(Label, (Bytes, Flow))> = (0..FRAMES_MAX).filter_map(draw).collect();
        Self {
            frames: drawn.iter().map(|&(_, (frame, _))| frame).collect(),
            labels: drawn.iter().map(|&(label, (_, flow))| (label, flow)).collect(),
            body_at: if version == Version::V4 { BODY_AT_V4 } else { BODY_AT_V6 },
        }
    }

    /// UDP packets without labels, one for each tuple of source and ports.
    pub fn udp(tuples: impl Iterator<Item = (Ipv4Addr, u16, Ipv4Addr, u16)>) -> Self {
        let frame = |(source, source_port, destination, destination_port)| {
            let mut bytes = v4_headers(5, UDP, source, destination);
            push_ports(&mut bytes, source_port, destination_port);
            bytes.extend(((FRAME_LEN - 34) as u16).to_be_bytes());
            bytes.extend([0, 0]);
            set_checksum(&mut bytes, 20);
            padded(&bytes)
        };
        Self { frames: tuples.map(frame).collect(), labels: Vec::new(), body_at: 0 }
    }

    /// TCP packets without labels to one port.
    pub fn tcp(port: u16, sources: impl Iterator<Item = Ipv4Addr>) -> Self {
        let frame = |source| {
            let mut bytes = v4_headers(5, TCP, source, object_v4(0));
            push_tcp(&mut bytes, 32_768, port);
            set_checksum(&mut bytes, 20);
            padded(&bytes)
        };
        Self { frames: sources.map(frame).collect(), labels: Vec::new(), body_at: 0 }
    }

    /// The first `count` frames, labelled as of now.
    pub fn stamped(&mut self, keys: Option<&DomainKeys>, count: usize) -> &[Bytes] {
        let slot = slot_now();
        let entry = keys.and_then(|keys| keys.entries(slot).find(|(_, key)| key.covers(slot)));
        if let Some((epoch, key)) = entry {
            self.stamp(slot, epoch as u8, (key.k0, key.k1), count);
        }
        self.frames.get(..count).unwrap_or(&self.frames)
    }

    /// Labels the first `count` frames under a key.
    pub fn stamp(&mut self, slot: u64, epoch: u8, key: (u64, u64), count: usize) {
        for (frame, (label, flow)) in self.frames.iter_mut().zip(&self.labels).take(count) {
            let label = label.with_slot(slot as u16).with_epoch(epoch);
            let body = label.encode(mac::mac(key.0, key.1, &label, flow));
            if let Some(place) = frame.get_mut(self.body_at..self.body_at + BODY_LEN) {
                place.copy_from_slice(&body);
            }
            if self.body_at == BODY_AT_V4 {
                set_checksum(frame, 4 * usize::from(IHL_LABELLED));
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// The first one.
    pub fn first(&self) -> Bytes {
        self.frames.first().copied().unwrap_or([0; FRAME_LEN])
    }
}

/// A frame with room for a label, and its flow. The label's own bytes come with the time.
fn labelled_frame(version: Version, rule: &Rule, source_port: u16) -> (Bytes, Flow) {
    let (bytes, source, destination) = match version {
        Version::V4 => {
            let source = Ipv4Addr::from_bits(0x0a80_0000 + rule.subject);
            let destination = object_v4(rule.object);
            let mut bytes = v4_headers(IHL_LABELLED, TCP, source, destination);
            bytes.extend(PREFIX_V4);
            (bytes, words_v4(source), words_v4(destination))
        }
        Version::V6 => {
            let source = Ipv6Addr::from_bits(0xfd80 << 112 | u128::from(rule.subject));
            let destination = object_v6(rule.object);
            let mut bytes = v6_headers(source, destination);
            bytes.extend([TCP, V6_HDR_EXT_LEN, V6_OPTION_SKIP, V6_OPTION_LEN]);
            (bytes, words_v6(source), words_v6(destination))
        }
    };
    let mut bytes = bytes;
    bytes.extend([0; BODY_LEN]);
    push_tcp(&mut bytes, source_port, rule.port);
    let flow = Flow {
        source,
        destination,
        source_port: source_port.to_be(),
        destination_port: rule.port.to_be(),
        opener: 0,
        protocol: TCP,
        pad: [0; 7],
    };
    (padded(&bytes), flow)
}

/// Ethernet to the loopback device, which has no address, and an IPv4 header without checksum.
fn v4_headers(ihl: u8, protocol: u8, source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x08, 0x00, 0x40 | ihl, 0];
    bytes.extend(((FRAME_LEN - 14) as u16).to_be_bytes());
    bytes.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes
}

fn v6_headers(source: Ipv6Addr, destination: Ipv6Addr) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x86, 0xdd, 0x60, 0, 0, 0];
    bytes.extend(((FRAME_LEN - 54) as u16).to_be_bytes());
    bytes.extend([DESTINATION_OPTIONS, 64]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    bytes
}

fn push_ports(bytes: &mut Vec<u8>, source: u16, destination: u16) {
    bytes.extend(source.to_be_bytes());
    bytes.extend(destination.to_be_bytes());
}

/// A TCP header with nothing but ACK set.
fn push_tcp(bytes: &mut Vec<u8>, source: u16, destination: u16) {
    push_ports(bytes, source, destination);
    bytes.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
}

/// Checksum of an IPv4 header of so many bytes, which the stack looks at.
fn set_checksum(bytes: &mut [u8], header_len: usize) {
    if let Some(place) = bytes.get_mut(24..26) {
        place.copy_from_slice(&[0, 0]);
    }
    let header = bytes.get(14..14 + header_len).unwrap_or_default();
    let (pairs, _) = header.as_chunks::<2>();
    let sum: u32 = pairs.iter().map(|&pair| u32::from(u16::from_be_bytes(pair))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    if let Some(place) = bytes.get_mut(24..26) {
        place.copy_from_slice(&(!(folded as u16)).to_be_bytes());
    }
}

fn padded(headers: &[u8]) -> Bytes {
    let mut frame = [0; FRAME_LEN];
    for (to, from) in frame.iter_mut().zip(headers) {
        *to = *from;
    }
    frame
}

fn words_v4(address: Ipv4Addr) -> [u64; 2] {
    v4_mapped(u32::from_ne_bytes(address.octets()))
}

fn words_v6(address: Ipv6Addr) -> [u64; 2] {
    let bits = address.to_bits();
    [((bits >> 64) as u64).to_be(), (bits as u64).to_be()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_words_in_memory_order() {
        let words = words_v6("fd79::1".parse().unwrap());
        assert_eq!(words[0].to_ne_bytes(), [0xfd, 0x79, 0, 0, 0, 0, 0, 0]);
        assert_eq!(words[1].to_ne_bytes(), [0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn checksums_are_right() {
        let source = Ipv4Addr::new(10, 1, 2, 3);
        let set = FrameSet::udp([(source, 1024, object_v4(7), 4433)].into_iter());
        let frame = set.first();
        let sum: u32 =
            frame[14..34].chunks(2).map(|p| u32::from(u16::from_be_bytes([p[0], p[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn labels_travel_where_the_parser_looks() {
        let rule = Rule { subject: 3, object: 1, operation: 2, port: 443, permits: true };
        let (frame, flow) = labelled_frame(Version::V4, &rule, 40_000);
        assert_eq!(frame[14], 0x4d);
        assert_eq!(frame[34..38], PREFIX_V4);
        assert_eq!(frame[66..70], [0x9c, 0x40, 0x01, 0xbb]);
        assert_eq!(flow.source_port, u16::from_ne_bytes([0x9c, 0x40]));
        let (frame, _) = labelled_frame(Version::V6, &rule, 40_000);
        assert_eq!(frame[54..58], [6, 3, 0x1e, 28]);
        assert_eq!(frame[86..90], [0x9c, 0x40, 0x01, 0xbb]);
    }
}
