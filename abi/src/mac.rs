//! What the MAC of a label covers: the label, the flow that it travels with, nothing that
//! changes on the way.

use crate::{label::Label, siphash::siphash24_64};

/// The flow that a label is bound to.
///
/// Addresses are 16 bytes in memory order as two words, IPv4 as `::ffff:a.b.c.d`; ports are in
/// memory order, as loaded from the packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Flow {
    /// Source address.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// Source port; the identifier for an ICMP echo; 0 for protocols without ports.
    pub source_port: u16,
    /// Destination port; type and code for ICMP.
    pub destination_port: u16,
    /// The TCP sequence number of a SYN without ACK in memory order, else 0.
    pub opener: u32,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: [u8; 7],
}

/// Second half of an IPv4-mapped IPv6 address: `00 00 ff ff a b c d` in memory order.
#[inline(always)]
#[must_use]
pub const fn v4_mapped(address: u32) -> [u64; 2] {
    [0, 0xffff_0000 | (address as u64) << 32]
}

/// Whether an address of an IPv6 packet is one that [`v4_mapped`] gives: no packet on a link has such (RFC
/// 4291, 2.5.5.2), and whoever reads only these words would take it for one of IPv4.
#[inline(always)]
#[must_use]
pub const fn is_v4_mapped(address: [u64; 2]) -> bool {
    address[0] | (address[1] ^ v4_mapped(0)[1]) & 0xffff_ffff == 0
}

/// The 64 bytes under the MAC as eight words in memory order: body bytes 0 to 19, protocol, 1,
/// two zero bytes, source and destination as 16 bytes each, source port, destination port, and
/// the opener's sequence number.
#[inline(always)]
#[must_use]
pub const fn input(label: &Label, flow: &Flow) -> [u64; 8] {
    let (w0, w1, w2) = label.wire_words();
    let ports = flow.source_port as u32 | (flow.destination_port as u32) << 16;
    [
        w0,
        w1,
        word_2(w2, flow.protocol),
        flow.source[0],
        flow.source[1],
        flow.destination[0],
        flow.destination[1],
        word_7(ports, flow.opener),
    ]
}

/// Word 2 of [`input`], from the label's last word and the protocol.
#[inline(always)]
#[must_use]
pub const fn word_2(label_tail: u32, protocol: u8) -> u64 {
    label_tail as u64 | (protocol as u64) << 32 | 1 << 40
}

/// Word 7 of [`input`], from source and destination port and the opener, all in memory order.
#[inline(always)]
#[must_use]
pub const fn word_7(ports: u32, opener: u32) -> u64 {
    ports as u64 | (opener as u64) << 32
}

/// Domain and subject of a label, where they stand in its first word, in memory order.
#[inline(always)]
#[must_use]
pub const fn sender(label: &Label) -> u64 {
    (label.head & 0x0000_ffff_ffff_ff00).to_be()
}

/// One half of the key that a domain's key gives to a [`sender`]: the MAC of a block that is no label's
/// input, for its byte 21 is 2, with the number of the half in byte 22.
#[inline(always)]
#[must_use]
pub const fn sender_key_half(k0: u64, k1: u64, who: u64, half: u32) -> u64 {
    siphash24_64(k0, k1, [who, 0, 2 << 40 | (half as u64) << 48, 0, 0, 0, 0, 0])
}

/// The key that a domain's key gives to the sender of a label.
#[must_use]
pub const fn sender_key(k0: u64, k1: u64, label: &Label) -> [u64; 2] {
    let who = sender(label);
    [sender_key_half(k0, k1, who, 0), sender_key_half(k0, k1, who, 1)]
}

/// The MAC of `label` on `flow` under the key `k0`, `k1`; its little-endian bytes are what
/// travels.
#[inline(always)]
#[must_use]
pub const fn mac(k0: u64, k1: u64, label: &Label, flow: &Flow) -> u64 {
    siphash24_64(k0, k1, input(label, flow))
}

impl Flow {
    /// What the label of a fragment is bound to. Only the first fragment shows ports, so all of them
    /// are bound to the datagram instead: [`FRAGMENT`] in the place of the protocol, the protocol and 1
    /// in the places of the ports, and the datagram's identification, a number of 32 bits in memory
    /// order, in the place of the opener. No whole packet of that protocol has ports.
    #[inline(always)]
    #[must_use]
    pub const fn fragment(self, protocol: u8, identification: u32) -> Self {
        Self {
            source_port: (protocol as u16).to_be(),
            destination_port: 1_u16.to_be(),
            opener: identification,
            protocol: FRAGMENT,
            ..self
        }
    }
}

/// Number of IPv6's fragment header, for both versions.
pub const FRAGMENT: u8 = 44;

const _: () = assert!(size_of::<Flow>() == 48);
