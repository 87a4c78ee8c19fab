//! The tunnel carriage: packets whose label stands in front of them, between their own addresses.
//! One shape at fixed places, as in [`crate::packet`]; whatever else goes to that port is an ordinary
//! packet. Nothing of this runs under a policy without tunnels.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_DECAP_L3_IPV4, BPF_F_ADJ_ROOM_DECAP_L3_IPV6,
        BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET,
        bpf_adj_room_mode::{BPF_ADJ_ROOM_MAC, BPF_ADJ_ROOM_NET},
    },
    helpers::generated::{bpf_csum_diff, bpf_skb_adjust_room, bpf_skb_pull_data},
};
use govc_abi::{
    attribute,
    flow::{Interface, Packet, labelled, quote},
    image::{self, program},
    label::{BLOCK_LEN, Label},
    mac::Flow,
    reason,
    tunnel::{
        BODY_AT, CLASS, ETHERTYPE_V4, ETHERTYPE_V6, FRAME_LEN, HEADER, OPTION, OVERHEAD_V4,
        OVERHEAD_V6, PORT, UDP_LEN, ecn, source_port,
    },
    walk::Tables,
};

use crate::{
    header::{self, Block, V4, fold, halves},
    maps::{self, Cpu, Table},
    packet::{self, ETH_LEN, ICMP, ICMPV6, TCP, UDP, V4_LEN, V6_LEN, load},
    shape, tc,
};

const ICMP_LEN: usize = 8;
/// What a length field of 16 bits can say.
const LENGTH_MAX: u32 = 0xffff;
/// Bytes of TCP that an error has to quote.
const QUOTED_LEN: usize = 14;

/// Bytes that a tunnel adds to a packet.
#[inline(always)]
pub fn overhead(version: u8) -> u32 {
    if version == 4 { OVERHEAD_V4 as u32 } else { OVERHEAD_V6 as u32 }
}

/// Whether some labels ride in tunnels here.
#[inline(always)]
pub fn are_due(table: Table) -> bool {
    let at = image::AT_PROGRAMS + program::CARRIAGE * image::PROGRAM_WORDS + image::PROGRAM_FLAGS;
    table.header(at) & image::PROGRAM_GOVERNED != 0
}

/// Reads on in a packet that was parsed, if it carries its label in a tunnel or quotes a packet that
/// does: `cpu.packet` is the packet inside afterwards.
///
/// # Errors
/// A reason to drop it.
#[inline(always)]
pub fn open(skb: *mut __sk_buff, l2_len: u16, table: Table, cpu: Cpu) -> Result<(), u8> {
    let Packet { labelled, error, .. } = cpu.packet;
    if labelled != 0 && error == 0 || !are_due(table) {
        return Ok(());
    }
    if labelled == 0 && leads_here(&cpu.packet.flow) {
        let version = cpu.packet.version;
        let mut reason = look_inside(skb, l2_len as u32);
        if shape::is_asked_about(table, reason as u8) {
            let place = l2_len as u32 | (version as u32) << 16;
            reason = look_again(skb, place, table.buffer(), reason);
        }
        if reason != 0 {
            return Err(reason as u8);
        }
    }
    if cpu.packet.error == quote::BARE && leads_here(&cpu.packet.quoted) {
        look_into_quote(skb, l2_len as u32);
    }
    Ok(())
}

/// Whether a packet of this flow may carry its label in a tunnel: it is looked into each time.
#[inline(always)]
pub fn leads_here(flow: &Flow) -> bool {
    flow.protocol == UDP && flow.destination_port == PORT.to_be()
}

/// Start and end of the linear part, of which `want` bytes are there if the packet has them.
#[inline(always)]
fn linear(skb: *mut __sk_buff, want: usize) -> Option<(usize, usize)> {
    // SAFETY: the context is valid.
    let (data, end, len) = unsafe { ((*skb).data as usize, (*skb).data_end as usize, (*skb).len) };
    let want = if len < want as u32 { len } else { want as u32 };
    if data + want as usize <= end {
        return Some((data, end));
    }
    // SAFETY: the context is valid; both pointers are read again.
    unsafe {
        if bpf_skb_pull_data(skb, want) != 0 {
            return None;
        }
        Some(((*skb).data as usize, (*skb).data_end as usize))
    }
}

/// What stands behind an IP header whose protocol and port are those of a tunnel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Frame {
    /// A label, and a packet between the same addresses.
    Ours,
    /// Something else.
    Other,
    /// A tunnel with our option that must not be.
    Wrong(u8),
}

/// Looks at the tunnel whose IP header starts at `ip` and ends at `end` or later.
#[inline(always)]
fn frame(ip: usize, end: usize, v4: bool) -> Frame {
    let ip_len = if v4 { V4_LEN } else { V6_LEN };
    let udp = ip + ip_len;
    if udp + BODY_AT > end {
        return Frame::Other;
    }
    // SAFETY: 20 bytes behind the IP header are there.
    let (lengths, head, option): (u32, u64, u32) =
        unsafe { (load(udp + 4), load(udp + UDP_LEN), load(udp + 16)) };
    // Version 0, and an option of our class in front.
    let geneve = head as u8 >> 6 == 0 && head as u8 & 0x3f != 0;
    if !geneve || option as u16 != u16::from_ne_bytes(CLASS) {
        return Frame::Other;
    }
    let ethertype = if v4 { ETHERTYPE_V4 } else { ETHERTYPE_V6 };
    let wanted = u16::from_ne_bytes(HEADER) as u64 | (ethertype.to_be() as u64) << 16;
    if head != wanted || option != u32::from_ne_bytes(OPTION) || lengths >> 16 != 0 {
        return Frame::Wrong(reason::MALFORMED);
    }
    let inner = udp + FRAME_LEN;
    if inner + ip_len > end {
        return Frame::Wrong(reason::TRUNCATED);
    }
    let udp_len = u16::from_be(lengths as u16);
    let (whole, within, other_ends, mark, inner_mark) = if v4 {
        // SAFETY: both headers are there.
        unsafe {
            let (ours, theirs): (u64, u64) = (load(ip + 12), load(inner + 12));
            let (whole, within): (u16, u16) = (load(ip + 2), load(inner + 2));
            let (mark, inner_mark): (u8, u8) = (load(ip + 1), load(inner + 1));
            // From here on without the header.
            let [whole, within] = [whole, within].map(|len| match u16::from_be(len) {
                0 => 0,
                len => len.wrapping_sub(V4_LEN as u16),
            });
            (whole, within, ours ^ theirs, mark, inner_mark)
        }
    } else {
        // SAFETY: likewise.
        unsafe {
            let (ours, theirs): ([u64; 4], [u64; 4]) = (load(ip + 8), load(inner + 8));
            let other = ours[0] ^ theirs[0]
                | ours[1] ^ theirs[1]
                | ours[2] ^ theirs[2]
                | ours[3] ^ theirs[3];
            let (whole, within): (u16, u16) = (load(ip + 4), load(inner + 4));
            let (mark, inner_mark): (u16, u16) = (load(ip), load(inner));
            let [mark, inner_mark] = [mark, inner_mark].map(|mark| (u16::from_be(mark) >> 4) as u8);
            (u16::from_be(whole), u16::from_be(within), other, mark, inner_mark)
        }
    };
    if other_ends != 0 {
        return Frame::Wrong(reason::TUNNEL_ENDS);
    }
    // A super-packet of more than 64 KiB says 0.
    let added = if whole == 0 { 0 } else { (FRAME_LEN + ip_len) as u16 };
    let fits = whole == udp_len && whole.wrapping_sub(added) == within && whole >= added;
    if !fits || ecn(inner_mark, mark).is_none() {
        return Frame::Wrong(reason::MALFORMED);
    }
    Frame::Ours
}

/// Makes `cpu.packet` what is inside of the tunnel that it is; 0, or a reason to drop it.
#[inline(never)]
fn look_inside(skb: *mut __sk_buff, l2_len: u32) -> u32 {
    const MOST: usize = ETH_LEN + OVERHEAD_V6 + V6_LEN + 20;
    const MOST_ICMP: usize = MOST + OVERHEAD_V6 + V6_LEN + QUOTED_LEN;
    let Some(mut cpu) = maps::cpu() else { return reason::HELPER_FAILED as u32 };
    let v4 = cpu.packet.version == 4;
    let (version, ip_len) = if v4 { (4, V4_LEN) } else { (6, V6_LEN) };
    let l2_len = l2_len as usize;
    if l2_len > ETH_LEN {
        return reason::MALFORMED as u32;
    }
    let Some((mut data, mut end)) = linear(skb, MOST) else { return reason::TRUNCATED as u32 };
    match frame(data + l2_len, end, v4) {
        Frame::Ours => {}
        Frame::Other => return 0,
        Frame::Wrong(reason) => return reason as u32,
    }
    if v4 {
        if data + l2_len + V4_LEN > end {
            return reason::TRUNCATED as u32;
        }
        // The stack never sees this header, of which hops and marks of congestion become the packet's.
        // SAFETY: 20 bytes are there.
        if !unsafe { V4::load(data + l2_len) }.is_sound() {
            return reason::MALFORMED as u32;
        }
    }
    let protocol_at = data + l2_len + ip_len + FRAME_LEN + if v4 { 9 } else { 6 };
    if protocol_at + 1 > end {
        return reason::TRUNCATED as u32;
    }
    // SAFETY: the byte is there.
    let protocol: u8 = unsafe { load(protocol_at) };
    if protocol == ICMP || protocol == ICMPV6 {
        let Some(pulled) = linear(skb, MOST_ICMP) else { return reason::TRUNCATED as u32 };
        (data, end) = pulled;
    }
    maps::clear(&raw mut cpu.packet);
    maps::clear(&raw mut cpu.label);
    // SAFETY: the context is valid.
    let len = unsafe { (*skb).len };
    let body = data + l2_len + ip_len + BODY_AT;
    let inner = data + l2_len + ip_len + FRAME_LEN;
    let inner_len = len.wrapping_sub((l2_len + ip_len + FRAME_LEN) as u32);
    match packet::parse_into(inner, end, 0, inner_len, cpu) {
        Ok(())
            if cpu.packet.version == version && cpu.packet.labelled | cpu.packet.neighbour == 0 => {
        }
        // Nothing that passes without a label passes with one.
        Ok(()) | Err(reason::LINK_CONTROL) => return reason::MALFORMED as u32,
        Err(reason) => return reason as u32,
    }
    if body + (BLOCK_LEN - 4) > end {
        return reason::TRUNCATED as u32;
    }
    let memory = &mut *cpu;
    // SAFETY: 28 bytes are there.
    unsafe { packet::read_label(body, &mut memory.packet, &mut memory.label) };
    memory.packet.labelled = labelled::TUNNEL;
    0
}

/// Goes on where [`look_inside`] has refused a packet that is no whole one inside of its tunnel. `place` has
/// the length of the link layer's header, and from bit 16 on the version of the tunnel.
#[inline(never)]
fn look_again(skb: *mut __sk_buff, place: u32, buffer: u32, refused: u32) -> u32 {
    let Some(mut cpu) = maps::cpu() else { return refused };
    let Some(table) = Table::of_buffer(buffer) else { return refused };
    let (l2_len, version) = ((place & 0xffff) as usize, (place >> 16) as u8);
    let ip_len = if version == 4 { V4_LEN } else { V6_LEN };
    if l2_len > ETH_LEN || cpu.packet.version != version {
        return reason::MALFORMED as u32;
    }
    let inner_at = (l2_len + ip_len + FRAME_LEN) as u32;
    if tc::read_again(skb, inner_at, table, refused as u8).is_err() {
        return refused;
    }
    if cpu.packet.labelled != 0 {
        return reason::MALFORMED as u32;
    }
    // Nothing with other options has a label.
    if cpu.packet.shape as u32 & attribute::shape::OPTIONS != 0 {
        return reason::OPTIONS as u32;
    }
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let body = data + l2_len + ip_len + BODY_AT;
    if body + (BLOCK_LEN - 4) > end {
        return reason::TRUNCATED as u32;
    }
    let memory = &mut *cpu;
    // SAFETY: 28 bytes are there.
    unsafe { packet::read_label(body, &mut memory.packet, &mut memory.label) };
    memory.packet.labelled = labelled::TUNNEL;
    0
}

/// Reads on in the packet that an ICMP error quotes: the flow is that inside of the tunnel then.
#[inline(never)]
fn look_into_quote(skb: *mut __sk_buff, l2_len: u32) -> u32 {
    const MOST: usize = OVERHEAD_V6 + V6_LEN + QUOTED_LEN;
    let Some(mut cpu) = maps::cpu() else { return 0 };
    let v4 = cpu.packet.version == 4;
    let (ip_len, over) = if v4 { (V4_LEN, OVERHEAD_V4) } else { (V6_LEN, OVERHEAD_V6) };
    let front = match cpu.packet.labelled {
        0 => 0,
        labelled::TUNNEL => over,
        _ => BLOCK_LEN,
    };
    let l2_len = l2_len as usize;
    if l2_len > ETH_LEN {
        return 0;
    }
    let at = l2_len + front + ip_len + ICMP_LEN;
    let Some((data, end)) = linear(skb, at + MOST) else { return 0 };
    let outer = data + at;
    if frame(outer, end, v4) != Frame::Ours {
        return 0;
    }
    let inner = outer + ip_len + FRAME_LEN;
    let body = outer + ip_len + BODY_AT;
    let memory = &mut *cpu;
    memory.packet.error = 0;
    let mut none = Label::default();
    let own = memory.packet.mac;
    packet::read_quote(inner, end, &mut memory.packet, &mut none);
    memory.packet.mac = own;
    if memory.packet.error != quote::BARE || body + (BLOCK_LEN - 4) > end {
        memory.packet.error = 0;
        return 0;
    }
    memory.packet.error = quote::TUNNEL;
    if memory.packet.labelled == 0 {
        // SAFETY: 28 bytes are there.
        unsafe { packet::read_label(body, &mut memory.packet, &mut memory.label) };
    }
    0
}

/// Puts a permitted packet into a tunnel, with the label in `cpu.label` and this MAC.
///
/// # Errors
/// The reason to drop it.
#[inline(always)]
pub fn carry(skb: *mut __sk_buff, interface: &Interface, mac: u64, cpu: Cpu) -> Result<(), u8> {
    let over = overhead(cpu.packet.version);
    if cpu.packet.syn != 0 {
        // The loader leaves room for tunnels on all interfaces of their zones.
        tc::clamp_mss(skb, interface, cpu);
    }
    // SAFETY: the context is valid.
    let len = unsafe { (*skb).len }.wrapping_sub(interface.l2_len as u32);
    // Longer super-packets than that do not say how long they are.
    let fits = len > LENGTH_MAX || len.wrapping_add(over) <= LENGTH_MAX;
    let is_tcp = cpu.packet.flow.protocol == TCP;
    let (l2_len, room) = (interface.l2_len as u32, interface.mtu.saturating_sub(over));
    let cut = tc::Cut::with(skb, l2_len, room, is_tcp, tc::headers_len(cpu));
    let cut = cut.filter(|_| fits);
    let Some(cut) = cut else { return Err(reason::NO_ROOM) };
    match wrap(skb, interface.l2_len as u32, mac, cut.flag()) {
        0 => Ok(()),
        reason => Err(reason as u8),
    }
}

/// 0, or a reason to drop the packet; without room it is as it was.
#[inline(never)]
fn wrap(skb: *mut __sk_buff, l2_len: u32, mac: u64, fixed: u32) -> u32 {
    const FAILED: u32 = reason::HELPER_FAILED as u32;
    let Some(cpu) = maps::cpu() else { return FAILED };
    let v4 = cpu.packet.version == 4;
    let over = overhead(cpu.packet.version) as usize;
    let l3 = if v4 { BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 } else { BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 };
    let flags = (l3 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP | fixed) as u64;
    let l2_len = l2_len as usize;
    if l2_len > ETH_LEN {
        return FAILED;
    }
    // SAFETY: the context is valid; all pointers into the packet are read again.
    let (data, end) = unsafe {
        // What came out of a tunnel uncut, from this machine, still counts as being in one, with all
        // its headers where they will be again.
        if bpf_skb_adjust_room(skb, over as i32, BPF_ADJ_ROOM_MAC, flags) != 0
            && bpf_skb_adjust_room(skb, over as i32, BPF_ADJ_ROOM_MAC, fixed as u64) != 0
        {
            return reason::NO_ROOM as u32;
        }
        ((*skb).data as usize, (*skb).data_end as usize)
    };
    let ip = data + l2_len;
    let (ethertype, udp, udp_len) = if v4 {
        if ip + OVERHEAD_V4 + V4_LEN > end {
            return FAILED;
        }
        // SAFETY: 88 bytes are there.
        let len = unsafe {
            let inner = V4::load(ip + OVERHEAD_V4);
            inner.around(UDP, OVERHEAD_V4 as i32).store(ip);
            inner.told().0
        };
        (ETHERTYPE_V4, ip + V4_LEN, grown(len, FRAME_LEN))
    } else {
        if ip + OVERHEAD_V6 + V6_LEN > end {
            return FAILED;
        }
        // SAFETY: 128 bytes are there.
        let len = unsafe {
            let header: [u64; 5] = load(ip + OVERHEAD_V6);
            core::ptr::write_unaligned(ip as *mut [u64; 5], header);
            header::resize_v6(ip, UDP, OVERHEAD_V6 as i32);
            u16::from_be((header[0] >> 32) as u16)
        };
        (ETHERTYPE_V6, ip + V6_LEN, grown(len, OVERHEAD_V6))
    };
    let Some(udp_len) = udp_len else { return FAILED };
    if udp + FRAME_LEN > end {
        return FAILED;
    }
    let ports = source_port(&cpu.packet.flow).to_be() as u64 | (PORT.to_be() as u64) << 16;
    let head = u16::from_ne_bytes(HEADER) as u64 | (ethertype.to_be() as u64) << 16;
    let label = cpu.label;
    // SAFETY: 48 bytes are there.
    unsafe {
        let words = [ports | (udp_len.to_be() as u64) << 32, head];
        core::ptr::write_unaligned(udp as *mut [u64; 2], words);
        Block::tunnel(&label, mac).store(udp + 16);
    }
    0
}

/// Writes the label in `cpu.translated` with this MAC over the one of the tunnel whose IP header stands
/// at `ip`. `false` when the packet is too short. No checksum covers it.
#[inline(always)]
pub fn stamp_again(ip: usize, end: usize, mac: u64, cpu: Cpu) -> bool {
    let block = ip + packet::ip_len(&cpu.packet) + BODY_AT - 4;
    if block + BLOCK_LEN > end {
        return false;
    }
    // SAFETY: 32 bytes are there.
    unsafe { Block::tunnel(&cpu.translated, mac).store(block) };
    true
}

/// A length that gets longer, which 0 does not; [`None`] for what is too long.
#[inline(always)]
fn grown(len: u16, by: usize) -> Option<u16> {
    if len == 0 { Some(0) } else { len.checked_add(by as u16) }
}

/// Takes a verified packet out of its tunnel. What the way has changed of the outer header, the hops
/// that are left and marks of congestion, is what happened to the packet.
#[inline(never)]
pub fn unwrap(skb: *mut __sk_buff, l2_len: u32) -> bool {
    let Some(cpu) = maps::cpu() else { return false };
    let v4 = cpu.packet.version == 4;
    let over = overhead(cpu.packet.version) as usize;
    let ip_len = if v4 { V4_LEN } else { V6_LEN };
    let l2_len = l2_len as usize;
    if l2_len > ETH_LEN {
        return false;
    }
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    if data + l2_len + ip_len > end {
        return false;
    }
    // SAFETY: the header is there.
    let (mark, hops) = unsafe { marks(data + l2_len, v4) };
    let l3 = if v4 { BPF_F_ADJ_ROOM_DECAP_L3_IPV4 } else { BPF_F_ADJ_ROOM_DECAP_L3_IPV6 };
    // What a device has said of checksums was about the outer ones.
    let flags = (l3 | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
    // SAFETY: the context is valid; all pointers into the packet are read again.
    let (data, end) = unsafe {
        if bpf_skb_adjust_room(skb, -(over as i32), BPF_ADJ_ROOM_MAC, flags) != 0 {
            return false;
        }
        ((*skb).data as usize, (*skb).data_end as usize)
    };
    let ip = data + l2_len;
    if ip + ip_len > end {
        return false;
    }
    // SAFETY: the header is there.
    unsafe {
        let (own, left) = marks(ip, v4);
        let Some(ecn) = ecn(own, mark) else { return false };
        let [first, second]: [u32; 2] = load(ip);
        remark(ip, v4, mark & !3 | ecn, if hops < left { hops } else { left });
        if !v4 {
            // A header of IPv4 keeps its sum.
            let [mark, hops]: [u32; 2] = load(ip);
            tc::tell_sum(skb, halves(!first) + halves(mark) + halves(!second) + halves(hops));
        }
    }
    true
}

/// Type of service or traffic class, and TTL or hop limit.
///
/// # Safety
/// The caller has compared the end of the header with the end of the packet.
#[inline(always)]
unsafe fn marks(ip: usize, v4: bool) -> (u8, u8) {
    // SAFETY: by the caller.
    unsafe {
        if v4 {
            let (_, service, ttl) = V4::load(ip).told();
            return (service, ttl);
        }
        let (first, hops): (u16, u8) = (load(ip), load(ip + 7));
        ((u16::from_be(first) >> 4) as u8, hops)
    }
}

/// Writes them.
///
/// # Safety
/// As [`marks`].
#[inline(always)]
unsafe fn remark(ip: usize, v4: bool, mark: u8, hops: u8) {
    // SAFETY: by the caller.
    unsafe {
        if v4 {
            V4::load(ip).remarked(mark, hops).store(ip);
            return;
        }
        let first = u16::from_be(load(ip)) & 0xf00f | (mark as u16) << 4;
        core::ptr::write_unaligned(ip as *mut u16, first.to_be());
        core::ptr::write((ip + 7) as *mut u8, hops);
    }
}

/// Makes an ICMP error that quotes a packet in a tunnel one that quotes it as its sender knows it,
/// with the MTU that is left for it.
#[inline(never)]
pub fn unquote(skb: *mut __sk_buff, l2_len: u32) -> bool {
    let Some(cpu) = maps::cpu() else { return false };
    let version = cpu.packet.version;
    let v4 = version == 4;
    let over = overhead(version) as usize;
    let ip_len = if v4 { V4_LEN } else { V6_LEN };
    let l2_len = l2_len as usize;
    if l2_len > ETH_LEN {
        return false;
    }
    let Some((data, end)) = linear(skb, ETH_LEN + V6_LEN + ICMP_LEN + OVERHEAD_V6) else {
        return false;
    };
    let icmp = data + l2_len + ip_len;
    let quoted = icmp + ICMP_LEN;
    let removed =
        if v4 { sum::<OVERHEAD_V4>(quoted, end) } else { sum::<OVERHEAD_V6>(quoted, end) };
    let Some(removed) = removed else { return false };
    if icmp + ICMP_LEN > end {
        return false;
    }
    // SAFETY: 8 bytes are there.
    let [head, mtu]: [u32; 2] = unsafe { load(icmp) };
    let announced = if v4 { u32::from_be(mtu) & 0xffff } else { u32::from_be(mtu) };
    let told = packet::tells_mtu(&cpu.packet);
    let fits = if told { header::lowered(announced, over as u32, version) } else { announced };
    let lowered = (u32::from_be(mtu) - announced + fits).to_be();
    // RFC 1624, equation 3. An ICMPv6 checksum covers the length too.
    let length = if v4 { 0 } else { !(over as u16).to_be() as u64 };
    let sum = !(head >> 16) as u16 as u64
        + !fold(removed) as u64
        + halves(!mtu)
        + halves(lowered)
        + length;
    let head = head & 0xffff | (!fold(sum) as u32) << 16;
    let flags = (BPF_F_ADJ_ROOM_NO_CSUM_RESET | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
    // SAFETY: the context is valid; all pointers into the packet are read again.
    let (data, end) = unsafe {
        if bpf_skb_adjust_room(skb, -(over as i32), BPF_ADJ_ROOM_NET, flags) != 0 {
            return false;
        }
        ((*skb).data as usize, (*skb).data_end as usize)
    };
    let ip = data + l2_len;
    let icmp = ip + ip_len;
    if icmp + ICMP_LEN > end {
        return false;
    }
    // SAFETY: both headers are there.
    unsafe {
        if v4 {
            V4::load(ip).shortened(over as u16, 0).store(ip);
        } else {
            header::resize_v6(ip, ICMPV6, -(over as i32));
        }
        core::ptr::write_unaligned(icmp as *mut [u32; 2], [head, lowered]);
    }
    // The checksum of the message makes up for what was cut out.
    tc::tell_sum(skb, removed);
    true
}

/// Sum of `N` bytes of the packet.
#[inline(always)]
fn sum<const N: usize>(at: usize, end: usize) -> Option<u64> {
    if at + N > end {
        return None;
    }
    // SAFETY: `N` bytes are there.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, at as *mut u32, N as u32, 0) };
    if sum < 0 { None } else { Some(sum as u64) }
}
