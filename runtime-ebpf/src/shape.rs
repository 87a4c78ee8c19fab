//! Packets that are more than one header and what it carries: fragments, and those with other IPv4
//! options or IPv6 extension headers than a label. The parser refuses them. Where a rule speaks of
//! such packets they are read a second time, from a copy of their first bytes, in which headers may
//! stand anywhere.

use govc_abi::{
    attribute::{self, shape},
    flow::{Packet, labelled},
    image,
    label::{
        BLOCK_LEN, IHL_LABELLED, Label, PREFIX_V4, V6_HDR_EXT_LEN, V6_OPTION_DISCARD,
        V6_OPTION_LEN, V6_OPTION_SKIP,
    },
    limits::{EXTENSIONS_MAX, HEADERS_LEN},
    mac::{FRAGMENT, is_v4_mapped, v4_mapped},
    node::LEAF_NONE,
    reason,
    tunnel::PORT,
    walk::Tables,
};

use crate::{
    maps::{self, Cpu, Table},
    packet::{
        ACK, AUTHENTICATION, DESTINATION_OPTIONS, FIN, ICMP, ICMPV6, RST, SYN, TCP, UDP, V4_LEN,
        V6_LEN, has_ports, is_echo, is_extension,
    },
    tunnel,
};

/// Bytes of a fragment header (RFC 8200, 4.5).
const FRAGMENT_LEN: u32 = 8;

/// Whether a packet that the parser has refused for this reason is read again.
#[inline(always)]
pub fn is_asked_about(table: Table, refused: u8) -> bool {
    (refused == reason::FRAGMENT || refused == reason::OPTIONS)
        && table.header(image::AT_SHAPES) & shape::ALL != 0
}

/// Reads the packet, of whose `len` bytes from the IP header on `cpu.headers` holds the first.
///
/// # Errors
/// The reason to drop it: why it was refused before.
#[inline(always)]
pub fn read(table: Table, len: u32, refused: u8) -> Result<(), u8> {
    if govc_shape(table.buffer(), len) != 0 { Ok(()) } else { Err(refused) }
}

/// How many bytes of a packet [`read`] wants, at most as many as there are.
#[inline(always)]
pub fn wanted(len: u32) -> u32 {
    if len < HEADERS_LEN as u32 { len } else { HEADERS_LEN as u32 }
}

/// Fills the attributes of such a packet that [`crate::decide::set_packet`] cannot know.
#[inline(always)]
pub fn set(packet: &Packet, scalars: &mut [u32; 20]) {
    scalars[attribute::SHAPE as usize] = packet.shape as u32;
    if packet.shape as u32 & shape::FRAGMENT != 0 {
        scalars[attribute::PROTOCOL as usize] = protocol(packet) as u32;
    }
}

/// The protocol of the datagram that a packet is, or is a part of.
#[inline(always)]
pub fn protocol(packet: &Packet) -> u8 {
    if packet.shape as u32 & shape::FRAGMENT != 0 {
        u16::from_be(packet.flow.source_port) as u8
    } else {
        packet.flow.protocol
    }
}

/// Why a packet of such a shape is denied that no rule permits.
#[inline(always)]
pub fn reason(shape: u32) -> u8 {
    if shape & shape::FRAGMENT != 0 { reason::FRAGMENT } else { reason::OPTIONS }
}

/// Whether a fragment is to get the label `index`.
#[inline(always)]
pub fn is_labelled(table: Table, index: u32, packet: &Packet) -> bool {
    let record =
        table.header(image::AT_LABELS).wrapping_add(index.wrapping_mul(image::LABEL_WORDS));
    packet.shape as u32 == shape::FRAGMENT
        && index != LEAF_NONE
        && table.word(record.wrapping_add(image::LABEL_FURTHER)) & image::LABEL_FRAGMENTS != 0
}

/// Reads `cpu.headers` into `cpu.packet` and `cpu.label`: 1, or 0 for a packet that is to be dropped.
///
/// A global function, as [`crate::decide::govc_walk`] is one: verified once, with a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_shape(buffer: u32, len: u32) -> u32 {
    let Some(mut cpu) = maps::cpu() else { return 0 };
    let Some(table) = Table::of_buffer(buffer) else { return 0 };
    let headers = Headers { cpu, len: wanted(len) };
    let memory = &mut *cpu;
    memory.packet.labelled = 0;
    let parsed = if headers.byte(0) >> 4 == 4 {
        parse_v4(headers, &mut memory.packet, &mut memory.label)
    } else {
        parse_v6(headers, &mut memory.packet, &mut memory.label)
    };
    let shape = memory.packet.shape as u32;
    // A label stands in the one place that it has.
    let placed = memory.packet.labelled == 0 || shape == shape::FRAGMENT;
    match parsed {
        Some(at) if placed && shape & !table.header(image::AT_SHAPES) == 0 => {
            !(leads_to_tunnel(headers, at, &memory.packet) && tunnel::are_due(table)) as u32
        }
        _ => 0,
    }
}

/// Whether the transport header at `at` is that of a tunnel, or may be one as it is out of sight: nobody
/// looks into such that are cut or have options. What is no first fragment leads nowhere by itself.
#[inline(always)]
fn leads_to_tunnel(headers: Headers, at: u32, packet: &Packet) -> bool {
    protocol(packet) == UDP
        && at != NOT_SHOWN
        && (headers.has(at.wrapping_add(4)).is_none()
            || headers.half(at.wrapping_add(2)) == PORT.to_be())
}

/// In the place of the transport header of a fragment that shows none.
const NOT_SHOWN: u32 = u32::MAX;

/// The copied bytes. Reading beyond them gives zeros or what an earlier packet left there; whoever
/// reads compares with `len` first.
#[derive(Clone, Copy)]
struct Headers {
    cpu: Cpu,
    len: u32,
}

impl Headers {
    #[inline(always)]
    fn byte(self, at: u32) -> u8 {
        self.cpu.headers[at as usize & (HEADERS_LEN - 1)]
    }

    /// In memory order.
    #[inline(always)]
    fn half(self, at: u32) -> u16 {
        u16::from_ne_bytes([self.byte(at), self.byte(at.wrapping_add(1))])
    }

    /// In memory order.
    #[inline(always)]
    fn word(self, at: u32) -> u32 {
        self.half(at) as u32 | (self.half(at.wrapping_add(2)) as u32) << 16
    }

    /// In memory order.
    #[inline(always)]
    fn double(self, at: u32) -> u64 {
        self.word(at) as u64 | (self.word(at.wrapping_add(4)) as u64) << 32
    }

    #[inline(always)]
    fn has(self, len: u32) -> Option<()> {
        if self.len < len { None } else { Some(()) }
    }
}

/// Where the transport header stands.
#[inline(always)]
fn parse_v4(headers: Headers, packet: &mut Packet, label: &mut Label) -> Option<u32> {
    let header_len = (headers.byte(0) as u32 & 0xf) * 4;
    headers.has(header_len)?;
    let protocol = headers.byte(9);
    packet.flow.source = v4_mapped(headers.word(12));
    packet.flow.destination = v4_mapped(headers.word(16));
    packet.flow.protocol = protocol;
    let mut shape = shape::WHOLE;
    if header_len != V4_LEN as u32 {
        let labelled = header_len == IHL_LABELLED as u32 * 4
            && headers.word(V4_LEN as u32) == u32::from_ne_bytes(PREFIX_V4);
        if labelled {
            read_label(headers, V4_LEN as u32 + 4, packet, label);
        } else {
            shape = shape::OPTIONS;
        }
    }
    if headers.half(6) & 0x3fff_u16.to_be() != 0 {
        packet.shape = (shape | shape::FRAGMENT) as u8;
        let identification = u16::from_be(headers.half(4)) as u32;
        packet.flow = packet.flow.fragment(protocol, identification.to_be());
        let is_first = headers.half(6) & 0x1fff_u16.to_be() == 0;
        return Some(if is_first { header_len } else { NOT_SHOWN });
    }
    packet.shape = shape as u8;
    parse_l4(headers, header_len, protocol, packet)
}

/// Likewise.
#[inline(always)]
fn parse_v6(headers: Headers, packet: &mut Packet, label: &mut Label) -> Option<u32> {
    headers.has(V6_LEN as u32)?;
    packet.flow.source = [headers.double(8), headers.double(16)];
    packet.flow.destination = [headers.double(24), headers.double(32)];
    if is_v4_mapped(packet.flow.source) || is_v4_mapped(packet.flow.destination) {
        return None;
    }
    let mut next = headers.byte(6);
    let mut at = V6_LEN as u32;
    let mut shape = shape::WHOLE;
    let block = [headers.byte(41), headers.byte(42), headers.byte(43)];
    let is_label = block == [V6_HDR_EXT_LEN, V6_OPTION_SKIP, V6_OPTION_LEN]
        || block == [V6_HDR_EXT_LEN, V6_OPTION_DISCARD, V6_OPTION_LEN];
    if next == DESTINATION_OPTIONS && is_label {
        headers.has(at + BLOCK_LEN as u32)?;
        read_label(headers, at + 4, packet, label);
        next = headers.byte(at);
        at += BLOCK_LEN as u32;
    }
    let mut index = 0;
    while index < EXTENSIONS_MAX {
        if next == FRAGMENT || !is_extension(next) {
            break;
        }
        headers.has(at + 8)?;
        let (behind, units) = (headers.byte(at), headers.byte(at + 1) as u32);
        // RFC 8200, and RFC 4302 for the one that counts words of four bytes.
        at += if next == AUTHENTICATION { units * 4 + 8 } else { units * 8 + 8 };
        next = behind;
        headers.has(at)?;
        shape = shape::OPTIONS;
        index += 1;
    }
    if next == FRAGMENT {
        headers.has(at + FRAGMENT_LEN)?;
        let protocol = headers.byte(at);
        if is_extension(protocol) {
            return None;
        }
        packet.shape = (shape | shape::FRAGMENT) as u8;
        packet.flow = packet.flow.fragment(protocol, headers.word(at + 4));
        let is_first = headers.half(at + 2) & 0xfff8_u16.to_be() == 0;
        return Some(if is_first { at + FRAGMENT_LEN } else { NOT_SHOWN });
    }
    if is_extension(next) {
        return None;
    }
    packet.shape = shape as u8;
    packet.flow.protocol = next;
    parse_l4(headers, at, next, packet)
}

/// Reads the 28 bytes of a label.
#[inline(always)]
fn read_label(headers: Headers, at: u32, packet: &mut Packet, label: &mut Label) {
    *label =
        Label::from_wire_words(headers.double(at), headers.double(at + 8), headers.word(at + 16));
    packet.mac = headers.double(at + 20);
    packet.labelled = labelled::OPTION;
}

/// The transport header of a whole packet. Errors about others are not followed.
#[inline(always)]
fn parse_l4(headers: Headers, at: u32, protocol: u8, packet: &mut Packet) -> Option<u32> {
    if protocol == TCP {
        headers.has(at + 20)?;
        let flags = headers.byte(at + 13);
        packet.syn = (flags & SYN != 0) as u8;
        packet.reset = (flags & RST != 0) as u8;
        packet.fin = (flags & FIN != 0) as u8;
        packet.tcp_words = headers.byte(at + 12) >> 4;
        if flags & (SYN | ACK) == SYN {
            packet.opens = 1;
            packet.flow.opener = headers.word(at + 4);
        }
    }
    if has_ports(protocol) {
        headers.has(at + 8)?;
        packet.flow.source_port = headers.half(at);
        packet.flow.destination_port = headers.half(at + 2);
    } else if protocol == ICMP || protocol == ICMPV6 {
        headers.has(at + 8)?;
        packet.icmp_type = headers.byte(at);
        packet.icmp_code = headers.byte(at + 1);
        packet.flow.destination_port = headers.half(at);
        if is_echo(protocol, packet.icmp_type) {
            packet.flow.source_port = headers.half(at + 4);
        }
    }
    Some(at)
}
