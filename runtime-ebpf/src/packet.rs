//! From bytes to a [`Packet`]: headers at fixed places, no loop, no payload.

use govc_abi::{
    flow::{Packet, labelled, quote},
    label::{
        BLOCK_LEN, IHL_LABELLED, Label, PREFIX_V4, V6_HDR_EXT_LEN, V6_OPTION_DISCARD,
        V6_OPTION_LEN, V6_OPTION_SKIP,
    },
    mac::{is_v4_mapped, v4_mapped},
    reason,
};

use crate::maps::Cpu;

pub const ETH_LEN: usize = 14;
pub const V4_LEN: usize = 20;
pub const V6_LEN: usize = 40;
pub const ETHERTYPE_V4: u16 = 0x0800_u16.to_be();
pub const ETHERTYPE_V6: u16 = 0x86dd_u16.to_be();
const ETHERTYPE_ARP: u16 = 0x0806_u16.to_be();

pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const SCTP: u8 = 132;
pub const ICMP: u8 = 1;
pub const ICMPV6: u8 = 58;
const IGMP: u8 = 2;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
pub const AUTHENTICATION: u8 = 51;
pub const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HIP: u8 = 139;
const SHIM6: u8 = 140;

/// TCP flag.
pub const SYN: u8 = 0x02;
/// Likewise.
pub const FIN: u8 = 0x01;
/// Likewise.
pub const RST: u8 = 0x04;
/// Likewise.
pub const ACK: u8 = 0x10;

/// ICMP type and code as the attribute.
#[inline(always)]
pub fn icmp(packet: &Packet) -> u32 {
    (packet.icmp_type as u32) << 8 | packet.icmp_code as u32
}

/// TCP, UDP or SCTP.
#[inline(always)]
pub fn has_ports(protocol: u8) -> bool {
    protocol == TCP || protocol == UDP || protocol == SCTP
}

/// Reads a value of the packet.
///
/// # Safety
/// The caller has compared its end with the end of the packet.
#[inline(always)]
pub unsafe fn load<T: Copy>(at: usize) -> T {
    // SAFETY: the caller has compared `at` with the end of the packet.
    unsafe { core::ptr::read_unaligned(at as *const T) }
}

/// Reads the headers of the packet between `data` and `end`, `len` bytes long with what is not
/// linear, into `cpu.packet` and `cpu.label`, which are empty.
///
/// # Errors
/// A reason to drop it, or [`reason::LINK_CONTROL`] to let it through as it is.
#[inline(always)]
pub fn parse_into(
    data: usize,
    end: usize,
    l2_len: usize,
    len: u32,
    mut cpu: Cpu,
) -> Result<(), u8> {
    let cpu = &mut *cpu;
    let parsed = parse(data, end, l2_len, len, &mut cpu.packet, &mut cpu.label);
    // What was parsed is read back from memory, where the verifier does not track it: without
    // this the compiler carries constants of each way through the parser along in registers.
    core::sync::atomic::compiler_fence(core::sync::atomic::Ordering::SeqCst);
    parsed
}

#[inline(always)]
fn parse(
    data: usize,
    end: usize,
    l2_len: usize,
    len: u32,
    packet: &mut Packet,
    label: &mut Label,
) -> Result<(), u8> {
    let version = ip_version(data, end, l2_len)?;
    if l2_len > ETH_LEN {
        return Err(reason::MALFORMED);
    }
    let ip = data + l2_len;
    packet.version = version;
    if version == 4 {
        parse_v4(ip, end, len.wrapping_sub(l2_len as u32), packet, label)
    } else {
        parse_v6(ip, end, len.wrapping_sub(l2_len as u32), packet, label)
    }
}

/// The IP version, from the Ethernet header or the first nibble.
#[inline(always)]
fn ip_version(data: usize, end: usize, l2_len: usize) -> Result<u8, u8> {
    if data + ETH_LEN > end {
        return Err(reason::TRUNCATED);
    }
    if l2_len == 0 {
        // SAFETY: 14 bytes are there.
        let first: u8 = unsafe { load(data) };
        return match first >> 4 {
            version @ (4 | 6) => Ok(version),
            _ => Err(reason::NOT_IP),
        };
    }
    // SAFETY: 14 bytes are there.
    let ethertype: u16 = unsafe { load(data + 12) };
    if ethertype == ETHERTYPE_V4 {
        Ok(4)
    } else if ethertype == ETHERTYPE_V6 {
        Ok(6)
    } else if ethertype == ETHERTYPE_ARP {
        Err(reason::LINK_CONTROL)
    } else {
        Err(reason::NOT_IP)
    }
}

#[inline(always)]
fn parse_v4(
    ip: usize,
    end: usize,
    len: u32,
    packet: &mut Packet,
    label: &mut Label,
) -> Result<(), u8> {
    if ip + V4_LEN > end {
        return Err(reason::TRUNCATED);
    }
    // SAFETY: 20 bytes are there.
    let (first, total, fragment, ttl, protocol, source, destination): (
        u8,
        u16,
        u16,
        u8,
        u8,
        u32,
        u32,
    ) = unsafe {
        (
            load(ip),
            load(ip + 2),
            load(ip + 6),
            load(ip + 8),
            load(ip + 9),
            load(ip + 12),
            load(ip + 16),
        )
    };
    packet.flow.source = v4_mapped(source);
    packet.flow.destination = v4_mapped(destination);
    packet.flow.protocol = protocol;
    if first >> 4 != 4 {
        return Err(reason::MALFORMED);
    }
    let total = u16::from_be(total) as u32;
    let header_len = (first as u32 & 0xf) * 4;
    // A super-packet of more than 64 KiB says 0.
    if total > len || header_len < V4_LEN as u32 || (total != 0 && total < header_len) {
        return Err(reason::TRUNCATED);
    }
    // With a router alert at most (RFC 2236, RFC 3376): in a longer header there is room for a label that
    // nobody would look at.
    let may_alert = header_len <= V4_LEN as u32 + 4;
    if protocol == IGMP && ttl == 1 && destination & 0xf0 == 0xe0 && may_alert {
        return Err(reason::LINK_CONTROL);
    }
    // More fragments, or an offset.
    if fragment & 0x3fff_u16.to_be() != 0 {
        return Err(reason::FRAGMENT);
    }
    if first & 0xf == IHL_LABELLED {
        if ip + 52 > end {
            return Err(reason::TRUNCATED);
        }
        // SAFETY: 52 bytes are there.
        let prefix: u32 = unsafe { load(ip + 20) };
        if prefix != u32::from_ne_bytes(PREFIX_V4) {
            return Err(reason::OPTIONS);
        }
        // SAFETY: likewise.
        unsafe { read_label(ip + 24, packet, label) };
        packet.labelled = labelled::OPTION;
        return parse_l4(ip + 52, end, protocol, packet, label);
    }
    if first & 0xf != 5 {
        return Err(reason::OPTIONS);
    }
    parse_l4(ip + V4_LEN, end, protocol, packet, label)?;
    let dhcp = protocol == UDP
        && (packet.flow.source_port == 68_u16.to_be()
            && packet.flow.destination_port == 67_u16.to_be()
            || packet.flow.source_port == 67_u16.to_be()
                && packet.flow.destination_port == 68_u16.to_be());
    if dhcp && (source == 0 || destination == u32::MAX) {
        return Err(reason::LINK_CONTROL);
    }
    Ok(())
}

#[inline(always)]
fn parse_v6(
    ip: usize,
    end: usize,
    len: u32,
    packet: &mut Packet,
    label: &mut Label,
) -> Result<(), u8> {
    if ip + V6_LEN > end {
        return Err(reason::TRUNCATED);
    }
    // SAFETY: 40 bytes are there.
    let (first, payload, next, hop_limit): (u8, u16, u8, u8) =
        unsafe { (load(ip), load(ip + 4), load(ip + 6), load(ip + 7)) };
    // SAFETY: likewise.
    unsafe {
        packet.flow.source = [load(ip + 8), load(ip + 16)];
        packet.flow.destination = [load(ip + 24), load(ip + 32)];
    }
    packet.flow.protocol = next;
    if first >> 4 != 6 || is_v4_mapped(packet.flow.source) || is_v4_mapped(packet.flow.destination)
    {
        return Err(reason::MALFORMED);
    }
    let payload = u16::from_be(payload) as u32;
    if payload + V6_LEN as u32 > len {
        return Err(reason::TRUNCATED);
    }
    if next == DESTINATION_OPTIONS {
        // A super-packet of more than 64 KiB says 0.
        if ip + 72 > end || payload != 0 && payload < BLOCK_LEN as u32 {
            return Err(no_room_for_label(ip, end));
        }
        // SAFETY: 72 bytes are there.
        let [protocol, ext_len, option, option_len]: [u8; 4] = unsafe { load(ip + 40) };
        if ext_len != V6_HDR_EXT_LEN
            || (option != V6_OPTION_SKIP && option != V6_OPTION_DISCARD)
            || option_len != V6_OPTION_LEN
        {
            return Err(reason::OPTIONS);
        }
        if is_extension(protocol) {
            return Err(if protocol == FRAGMENT { reason::FRAGMENT } else { reason::MALFORMED });
        }
        packet.flow.protocol = protocol;
        // SAFETY: likewise.
        unsafe { read_label(ip + 44, packet, label) };
        packet.labelled = labelled::OPTION;
        return parse_l4(ip + 72, end, protocol, packet, label);
    }
    if next == HOP_BY_HOP {
        return Err(multicast_listener(ip, end, hop_limit));
    }
    if is_extension(next) {
        return Err(if next == FRAGMENT { reason::FRAGMENT } else { reason::OPTIONS });
    }
    parse_l4(ip + V6_LEN, end, next, packet, label)?;
    // Neighbour discovery; a hop limit of 255 proves that no router has passed it on (RFC 4861).
    if next == ICMPV6 && packet.icmp_type >= 133 && packet.icmp_type <= 137 && hop_limit == 255 {
        let upper = packet.flow.destination[0];
        // Multicast, and link-local.
        if upper as u8 == 0xff || upper & 0xc0ff == 0x80fe {
            return Err(reason::LINK_CONTROL);
        }
        // Whether a neighbour is still there is asked at whatever address it has.
        packet.neighbour = 1;
    }
    let dhcp = next == UDP
        && (packet.flow.source_port == 546_u16.to_be()
            && packet.flow.destination_port == 547_u16.to_be()
            || packet.flow.source_port == 547_u16.to_be()
                && packet.flow.destination_port == 546_u16.to_be());
    // Link-local sources only.
    if dhcp && packet.flow.source[0] & 0xc0ff == 0x80fe {
        return Err(reason::LINK_CONTROL);
    }
    Ok(())
}

/// Why a packet with a destination options header is not read that is too short for a label.
#[inline(always)]
fn no_room_for_label(ip: usize, end: usize) -> u8 {
    if ip + 44 > end {
        return reason::TRUNCATED;
    }
    // SAFETY: 44 bytes are there.
    let [_, ext_len, option, option_len]: [u8; 4] = unsafe { load(ip + V6_LEN) };
    let is_label = ext_len == V6_HDR_EXT_LEN
        && (option == V6_OPTION_SKIP || option == V6_OPTION_DISCARD)
        && option_len == V6_OPTION_LEN;
    if is_label { reason::TRUNCATED } else { reason::OPTIONS }
}

/// MLD travels behind a hop-by-hop header with a router alert (RFC 2710, RFC 3810).
#[inline(always)]
fn multicast_listener(ip: usize, end: usize, hop_limit: u8) -> u8 {
    if ip + V6_LEN + 9 > end {
        return reason::TRUNCATED;
    }
    // SAFETY: 49 bytes are there.
    let ([next, ext_len], kind): ([u8; 2], u8) = unsafe { (load(ip + 40), load(ip + 48)) };
    let listener = (kind >= 130 && kind <= 132) || kind == 143;
    if next == ICMPV6 && ext_len == 0 && hop_limit == 1 && listener {
        reason::LINK_CONTROL
    } else {
        reason::OPTIONS
    }
}

#[inline(always)]
pub fn is_extension(next: u8) -> bool {
    next == HOP_BY_HOP
        || next == ROUTING
        || next == FRAGMENT
        || next == AUTHENTICATION
        || next == DESTINATION_OPTIONS
        || next == MOBILITY
        || next == HIP
        || next == SHIM6
        || next >= 253
}

/// Reads the 28 bytes of a label.
#[inline(always)]
pub unsafe fn read_label(at: usize, packet: &mut Packet, label: &mut Label) {
    // SAFETY: the caller has compared `at + 28` with the end of the packet.
    unsafe {
        *label = Label::from_wire_words(load(at), load(at + 8), load(at + 16));
        packet.mac = load(at + 20);
    }
}

#[inline(always)]
fn parse_l4(
    l4: usize,
    end: usize,
    protocol: u8,
    packet: &mut Packet,
    label: &mut Label,
) -> Result<(), u8> {
    packet.flow.source_port = 0;
    packet.flow.destination_port = 0;
    packet.flow.opener = 0;
    if protocol == TCP {
        if l4 + 20 > end {
            return Err(reason::TRUNCATED);
        }
        // SAFETY: 20 bytes are there.
        let (source, destination, sequence, [offset, flags]): (u16, u16, u32, [u8; 2]) =
            unsafe { (load(l4), load(l4 + 2), load(l4 + 4), load(l4 + 12)) };
        packet.flow.source_port = source;
        packet.flow.destination_port = destination;
        packet.syn = (flags & SYN != 0) as u8;
        packet.reset = (flags & RST != 0) as u8;
        packet.fin = (flags & FIN != 0) as u8;
        packet.tcp_words = offset >> 4;
        if flags & (SYN | ACK) == SYN {
            packet.opens = 1;
            packet.flow.opener = sequence;
        }
    } else if has_ports(protocol) {
        if l4 + 8 > end {
            return Err(reason::TRUNCATED);
        }
        // SAFETY: 8 bytes are there.
        let (source, destination): (u16, u16) = unsafe { (load(l4), load(l4 + 2)) };
        packet.flow.source_port = source;
        packet.flow.destination_port = destination;
    } else if protocol == ICMP || protocol == ICMPV6 {
        if l4 + 8 > end {
            return Err(reason::TRUNCATED);
        }
        // SAFETY: 8 bytes are there.
        let (kind, code, identifier): (u8, u8, u16) =
            unsafe { (load(l4), load(l4 + 1), load(l4 + 4)) };
        packet.icmp_type = kind;
        packet.icmp_code = code;
        packet.flow.destination_port = u16::from_ne_bytes([kind, code]);
        if is_echo(protocol, kind) {
            packet.flow.source_port = identifier;
        } else if is_error(protocol, kind) {
            read_quote(l4 + 8, end, packet, label);
        }
    }
    Ok(())
}

/// Echo request or reply.
#[inline(always)]
pub fn is_echo(protocol: u8, kind: u8) -> bool {
    if protocol == ICMP { kind == 8 || kind == 0 } else { kind == 128 || kind == 129 }
}

/// An error that quotes the packet that it is about.
#[inline(always)]
fn is_error(protocol: u8, kind: u8) -> bool {
    if protocol == ICMP { kind == 3 || kind == 11 || kind == 12 } else { kind >= 1 && kind <= 4 }
}

/// An ICMP error about a labelled packet that was too big for the path (RFC 1191, RFC 4443).
#[inline(always)]
pub fn tells_mtu(packet: &Packet) -> bool {
    let told = match packet.flow.protocol {
        ICMP => packet.icmp_type == 3 && packet.icmp_code == 4,
        ICMPV6 => packet.icmp_type == 2,
        _ => false,
    };
    told && packet.error >= quote::LABELLED
}

/// Bytes of the header that a label follows.
#[inline(always)]
pub fn ip_len(packet: &Packet) -> usize {
    if packet.version == 4 { V4_LEN } else { V6_LEN }
}

/// Reads which flow a quoted packet belongs to, as far as it is there; `packet.error` stays 0
/// otherwise. The label in it is read for a packet that has none of its own.
#[inline(always)]
pub fn read_quote(ip: usize, end: usize, packet: &mut Packet, label: &mut Label) {
    if ip + V6_LEN > end {
        // Of an IPv4 packet at least a header and eight bytes are quoted, 28 bytes.
        if packet.version != 4 || ip + V4_LEN + 8 > end {
            return;
        }
    }
    // SAFETY: 28 bytes are there, of IPv6 40.
    let first: u8 = unsafe { load(ip) };
    let mut error = quote::BARE;
    let l4 = if packet.version == 4 {
        let quoted = &mut packet.quoted;
        // SAFETY: likewise.
        let fragment: u16 = unsafe {
            quoted.source = v4_mapped(load(ip + 12));
            quoted.destination = v4_mapped(load(ip + 16));
            quoted.protocol = load(ip + 9);
            load(ip + 6)
        };
        // Fragments belong to no flow.
        if fragment & 0x3fff_u16.to_be() != 0 {
            return;
        }
        if first == 0x45 {
            ip + V4_LEN
        } else if first == 0x40 | IHL_LABELLED {
            if ip + 52 > end {
                return;
            }
            // SAFETY: 52 bytes are there.
            let prefix: u32 = unsafe { load(ip + 20) };
            if prefix != u32::from_ne_bytes(PREFIX_V4) {
                return;
            }
            if packet.labelled == 0 {
                // SAFETY: likewise.
                unsafe { read_label(ip + 24, packet, label) };
            }
            error = quote::LABELLED;
            ip + 52
        } else {
            return;
        }
    } else {
        let quoted = &mut packet.quoted;
        // SAFETY: likewise.
        let next: u8 = unsafe {
            quoted.source = [load(ip + 8), load(ip + 16)];
            quoted.destination = [load(ip + 24), load(ip + 32)];
            load(ip + 6)
        };
        if first >> 4 != 6 || is_v4_mapped(quoted.source) || is_v4_mapped(quoted.destination) {
            return;
        }
        quoted.protocol = next;
        if next == DESTINATION_OPTIONS {
            if ip + 72 > end {
                return;
            }
            // SAFETY: 72 bytes are there.
            let [protocol, ext_len, option, option_len]: [u8; 4] = unsafe { load(ip + V6_LEN) };
            if ext_len != V6_HDR_EXT_LEN
                || (option != V6_OPTION_SKIP && option != V6_OPTION_DISCARD)
                || option_len != V6_OPTION_LEN
            {
                return;
            }
            quoted.protocol = protocol;
            if packet.labelled == 0 {
                // SAFETY: likewise.
                unsafe { read_label(ip + 44, packet, label) };
            }
            error = quote::LABELLED;
            ip + 72
        } else {
            ip + V6_LEN
        }
    };
    if l4 + 8 > end {
        return;
    }
    // SAFETY: 8 bytes are there.
    let (source, destination, identifier): (u16, u16, u16) =
        unsafe { (load(l4), load(l4 + 2), load(l4 + 4)) };
    let quoted = &mut packet.quoted;
    if has_ports(quoted.protocol) {
        quoted.source_port = source;
        quoted.destination_port = destination;
        // The least that may be quoted ends before the flags: errors about openers that quote no
        // more do not hold.
        if quoted.protocol == TCP && l4 + 14 <= end {
            // SAFETY: 14 bytes are there.
            let (sequence, flags): (u32, u8) = unsafe { (load(l4 + 4), load(l4 + 13)) };
            if flags & (SYN | ACK) == SYN {
                quoted.opener = sequence;
            }
        }
    } else if quoted.protocol == ICMP || quoted.protocol == ICMPV6 {
        quoted.source_port = identifier;
        quoted.destination_port = source;
    }
    packet.error = error;
}

/// How many bytes of the packet must be linear for [`parse`]: more than that only when a header
/// is not whole.
#[inline(always)]
pub fn linear_len(data: usize, end: usize, l2_len: usize, len: u32) -> u32 {
    const MOST: u32 = (ETH_LEN + 72 + 20) as u32;
    /// An ICMP error with the headers that it quotes.
    const MOST_ICMP: u32 = (ETH_LEN + 72 + 8 + 72 + 14) as u32;
    let at_most = |most: u32| if len < most { len } else { most };
    let most = at_most(MOST);
    let ip = data + l2_len;
    // Nobody looks a second time: where it does not show what the packet is, it may be the longest.
    if l2_len > ETH_LEN || data + ETH_LEN > end || ip + V4_LEN > end {
        return at_most(MOST_ICMP);
    }
    // SAFETY: 20 bytes are there.
    let (first, protocol, next): (u8, u8, u8) = unsafe { (load(ip), load(ip + 9), load(ip + 6)) };
    let options = first >> 4 == 6 && next == DESTINATION_OPTIONS;
    if options && ip + V6_LEN + 1 > end {
        return at_most(MOST_ICMP);
    }
    // SAFETY: the byte is there.
    let next = if options { unsafe { load(ip + V6_LEN) } } else { next };
    if first >> 4 == 4 && protocol == ICMP || first >> 4 == 6 && next == ICMPV6 {
        return at_most(MOST_ICMP);
    }
    let l4_len = if first >> 4 == 4 && protocol == UDP { 8 } else { 20 };
    let want = if first == 0x45 {
        l2_len as u32 + V4_LEN as u32 + l4_len
    } else if first >> 4 == 4 {
        l2_len as u32 + 52 + l4_len
    } else {
        most
    };
    if want < most { want } else { most }
}
