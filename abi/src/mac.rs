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

/// The MAC of `label` on `flow` under the key `k0`, `k1`; its little-endian bytes are what
/// travels.
#[inline(always)]
#[must_use]
pub const fn mac(k0: u64, k1: u64, label: &Label, flow: &Flow) -> u64 {
    siphash24_64(k0, k1, input(label, flow))
}

const _: () = assert!(size_of::<Flow>() == 48);
