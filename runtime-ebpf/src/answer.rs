//! What becomes of packets that are denied and not simply gone: they leave by another interface, or
//! their sender is told, by a rule's wish or because they leave no room for a label. Only the tcx hooks answer; the loader does not put a policy
//! that asks for answers onto XDP.

use core::ptr::{read_unaligned, write_unaligned};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_INGRESS, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC, tcx_action_base},
    helpers::generated::{bpf_csum_diff, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail},
};
use govc_abi::{
    event::hook,
    flow::{Interface, labelled},
    image::rule,
    label::BLOCK_LEN,
    limits::ANSWER_RATE,
    node::LEAF_NONE,
};

use crate::{
    decide::{Verdict, rule_record},
    flows::{self, Role},
    header::{self, V4},
    maps::{self, Cpu, Table},
    packet::{ACK, ETH_LEN, ICMP, ICMPV6, RST, SYN, TCP, UDP, V4_LEN, V6_LEN, load},
    report::Place,
    tc, tunnel,
};

const DROP: i32 = tcx_action_base::TCX_DROP;
const REDIRECT: i32 = tcx_action_base::TCX_REDIRECT;

const FIN: u8 = 0x01;
const TCP_LEN: usize = 20;
const ICMP_LEN: usize = 8;
/// TTL and hop limit of answers.
const HOPS: u8 = 64;
/// Destination unreachable, communication administratively prohibited (RFC 1812).
const PROHIBITED_V4: [u8; 2] = [3, 13];
/// Likewise (RFC 4443).
const PROHIBITED_V6: [u8; 2] = [1, 1];
/// Fragmentation needed (RFC 1191).
const TOO_BIG_V4: [u8; 2] = [3, 4];
/// Packet too big (RFC 4443).
const TOO_BIG_V6: [u8; 2] = [2, 0];

/// Tells the sender of a packet which leaves no room for a label, that takes `overhead` bytes, what
/// would; the hook's return value.
#[inline(always)]
pub fn too_big(
    skb: *mut __sk_buff,
    interface: &Interface,
    overhead: u32,
    place: &Place<'_>,
    cpu: Cpu,
) -> i32 {
    let mtu = interface.mtu.wrapping_sub(overhead);
    if !turn(skb, interface.l2_len as u32, mtu) {
        return DROP;
    }
    flows::expect_answer(place.hook, place.active, LEAF_NONE, true, cpu);
    back(place)
}

/// Carries out what the deciding rule says about packets that it denies; the hook's return value.
#[inline(always)]
pub fn denied(
    skb: *mut __sk_buff,
    l2_len: u16,
    place: &Place<'_>,
    table: Table,
    verdict: &Verdict,
    mut cpu: Cpu,
) -> i32 {
    if verdict.rule == LEAF_NONE {
        return DROP;
    }
    let record = rule_record(table, verdict.rule);
    if record & rule::QUARANTINE != 0 {
        let ifindex = maps::detour(place.active, record >> rule::ZONE_SHIFT & 0xff);
        // SAFETY: no pointers.
        return if ifindex == 0 { DROP } else { unsafe { bpf_redirect(ifindex, 0) as i32 } };
    }
    if record & rule::REJECT == 0 {
        return DROP;
    }
    let bare = cpu.packet.labelled == 0;
    if cpu.packet.labelled == labelled::TUNNEL {
        if !tunnel::unwrap(skb, l2_len as u32) {
            return DROP;
        }
        // The answer quotes the packet as its sender knows it.
        cpu.packet.labelled = 0;
    }
    if !turn(skb, l2_len as u32, 0) {
        return DROP;
    }
    flows::expect_answer(place.hook, place.active, verdict.rule, bare, cpu);
    back(place)
}

/// Sends an answer to where the packet came from; the hook's return value.
#[inline(always)]
fn back(place: &Place<'_>) -> i32 {
    // What came in goes out where it came from; what was about to leave comes in there.
    let direction = if place.hook == hook::EGRESS { BPF_F_INGRESS as u64 } else { 0 };
    // SAFETY: no pointers.
    if unsafe { bpf_redirect(place.ifindex, direction) as i32 } == REDIRECT {
        REDIRECT
    } else {
        DROP
    }
}

/// Makes the packet that `cpu.packet` describes the answer to it: that it is larger than `mtu`, or
/// with 0 that a rule rejects it. `false` where none is due, or there is no room.
#[inline(never)]
fn turn(skb: *mut __sk_buff, l2_len: u32, mtu: u32) -> bool {
    let Some(cpu) = maps::cpu() else { return false };
    // Answers are made in the place of headers that stand where they usually do.
    if cpu.packet.shape != 0 {
        return false;
    }
    if l2_len != 0 && l2_len != ETH_LEN as u32 {
        return false;
    }
    let l2_len = l2_len as usize;
    if is_between_many(skb, l2_len) || is_to_many(cpu) || is_from_none(cpu) {
        return false;
    }
    let resets = mtu == 0 && cpu.packet.flow.protocol == TCP;
    let is_due = match flows::role(&cpu.packet) {
        _ if resets => cpu.packet.reset == 0,
        Role::Either | Role::Opens => true,
        // Not even a large one is an error that somebody reads.
        Role::Answers => mtu != 0,
        // Errors are not told about errors (RFC 1122).
        Role::Error | Role::None => false,
    };
    if !is_due || !take_budget(cpu) {
        return false;
    }
    if resets { reset(skb, l2_len, cpu) } else { unreachable(skb, l2_len, mtu, cpu) }
}

/// How often the budget for answers is filled up, nanoseconds: ten times a second.
const REFILL_NS: u64 = 100_000_000;

/// Takes one answer out of this CPU's budget: whoever makes a node answer chooses to whom (RFC 4443, 2.4).
#[inline(always)]
fn take_budget(mut cpu: Cpu) -> bool {
    if cpu.coarse_ns.wrapping_sub(cpu.answers_refilled_ns) >= REFILL_NS {
        cpu.answers_refilled_ns = cpu.coarse_ns;
        cpu.answer_budget = ANSWER_RATE / 10;
    }
    if cpu.answer_budget == 0 {
        cpu.answers_withheld += 1;
        return false;
    }
    cpu.answer_budget -= 1;
    true
}

/// Whether a frame was sent to many on its link, as to the broadcast address of a network, which only its
/// own routers know, or claims to come from many.
#[inline(always)]
fn is_between_many(skb: *mut __sk_buff, l2_len: usize) -> bool {
    /// `PACKET_BROADCAST` and `PACKET_MULTICAST`.
    const MANY: [u32; 2] = [1, 2];
    // SAFETY: the context is valid.
    let pkt_type = unsafe { (*skb).pkt_type };
    if pkt_type == MANY[0] || pkt_type == MANY[1] {
        return true;
    }
    let (data, end) = bytes(skb);
    if l2_len == 0 || data + ETH_LEN > end {
        return false;
    }
    // SAFETY: 14 bytes are there.
    let (to, from): (u8, u8) = unsafe { (load(data), load(data + 6)) };
    (to | from) & 1 != 0
}

/// Nobody answers what was sent to many.
#[inline(always)]
fn is_to_many(cpu: Cpu) -> bool {
    let [upper, lower] = cpu.packet.flow.destination;
    if cpu.packet.version == 4 {
        let first = (lower >> 32) as u8;
        first >= 224 || first == 0
    } else {
        upper as u8 == 0xff
    }
}

/// Nor what does not come from one host (RFC 1122, 3.2.2; RFC 4443, 2.4): from nobody, from whoever reads it,
/// from many, or from an address of no use.
#[inline(always)]
fn is_from_none(cpu: Cpu) -> bool {
    const LOOPBACK: u64 = 1_u64.to_be();
    let [upper, lower] = cpu.packet.flow.source;
    if cpu.packet.version == 4 {
        let first = (lower >> 32) as u8;
        first >= 224 || first == 0 || first == 127
    } else {
        upper as u8 == 0xff || upper | lower & !LOOPBACK == 0
    }
}

/// Bytes behind the IP header and a label, `headers` in all, as the header tells: short frames are filled up
/// behind that (RFC 894). Super-packets of more than 64 KiB say 0.
#[inline(always)]
fn payload_len(skb: *mut __sk_buff, l2_len: usize, headers: usize, cpu: Cpu) -> Option<u32> {
    let v4 = cpu.packet.version == 4;
    let (data, end) = bytes(skb);
    let ip = data + l2_len;
    if ip + V4_LEN > end {
        return None;
    }
    // SAFETY: 20 bytes are there.
    let told = u16::from_be(unsafe { if v4 { load(ip + 2) } else { load(ip + 4) } }) as usize;
    // SAFETY: the context is valid.
    let whole = unsafe { (*skb).len }.wrapping_sub(l2_len as u32);
    let told = match (told, v4) {
        (0, _) => whole,
        (told, true) => told as u32,
        (told, false) => (told + V6_LEN) as u32,
    };
    Some(told.wrapping_sub(headers as u32))
}

/// Start and end of the linear part.
#[inline(always)]
fn bytes(skb: *mut __sk_buff) -> (usize, usize) {
    // SAFETY: the context is valid.
    unsafe { ((*skb).data as usize, (*skb).data_end as usize) }
}

/// A reset for the segment (RFC 9293, 3.10.7.1).
#[inline(always)]
fn reset(skb: *mut __sk_buff, l2_len: usize, cpu: Cpu) -> bool {
    let version = cpu.packet.version;
    let labelled = cpu.packet.labelled != 0;
    if labelled && !tc::strip(skb, l2_len as u16, version, TCP) {
        return false;
    }
    let ip_len = if version == 4 { V4_LEN } else { V6_LEN };
    let (data, end) = bytes(skb);
    let l4 = data + l2_len + ip_len;
    if l4 + TCP_LEN > end {
        return false;
    }
    // SAFETY: 20 bytes are there.
    let (ports, sequence, acknowledged, offset, flags, checksum): (
        [u16; 2],
        u32,
        u32,
        u8,
        u8,
        u16,
    ) = unsafe {
        (load(l4), load(l4 + 4), load(l4 + 8), load(l4 + 12), load(l4 + 13), load(l4 + 16))
    };
    let Some(len) = payload_len(skb, l2_len, ip_len, cpu) else { return false };
    let partial = checksum == header::fold(pseudo(cpu, TCP, len));
    let payload = len.wrapping_sub((offset >> 4) as u32 * 4);
    let spoken = payload + (flags & SYN != 0) as u32 + (flags & FIN != 0) as u32;
    let words: [u32; 5] = if flags & ACK != 0 {
        [0, acknowledged, 0, u32::from_ne_bytes([0x50, RST, 0, 0]), 0]
    } else {
        let next = u32::from_be(sequence).wrapping_add(spoken).to_be();
        [0, 0, next, u32::from_ne_bytes([0x50, RST | ACK, 0, 0]), 0]
    };
    let mut words = words;
    words[0] = ports[1] as u32 | (ports[0] as u32) << 16;
    // SAFETY: the context is valid; all pointers into the packet are read again.
    if unsafe { bpf_skb_change_tail(skb, (l2_len + ip_len + TCP_LEN) as u32, 0) } != 0 {
        return false;
    }
    let ends = pseudo(cpu, TCP, TCP_LEN as u32);
    let sum = words.iter().fold(ends, |sum, word| sum + *word as u64);
    // The kernel completes a checksum that it has begun.
    words[4] = if partial { header::fold(ends) } else { !header::fold(sum) } as u32;
    let (data, end) = bytes(skb);
    let l4 = data + l2_len + ip_len;
    if l4 + TCP_LEN > end || !turn_round(data, end, l2_len, TCP, TCP_LEN as u16, cpu) {
        return false;
    }
    // SAFETY: 20 bytes are there.
    unsafe { write_unaligned(l4 as *mut [u32; 5], words) }
    true
}

/// An ICMP error that quotes the packet as it came, with its label.
#[inline(always)]
fn unreachable(skb: *mut __sk_buff, l2_len: usize, mtu: u32, cpu: Cpu) -> bool {
    let v4 = cpu.packet.version == 4;
    let labelled = cpu.packet.labelled != 0;
    let tcp = cpu.packet.flow.protocol == TCP;
    if tcp && labelled {
        return false;
    }
    let ip_len = if v4 { V4_LEN } else { V6_LEN };
    // The kernel does not cut off a checksum that it has begun.
    let l4_len = if tcp { TCP_LEN } else { 8 };
    let quote_len = ip_len + if labelled { BLOCK_LEN } else { 0 } + l4_len;
    let (data, end) = bytes(skb);
    let l4 = data + l2_len + quote_len - l4_len;
    if l4 + 8 > end {
        return false;
    }
    // SAFETY: 8 bytes are there.
    let mut checksum = (unsafe { load::<u32>(l4 + 4) } >> 16) as u16;
    let mut l4_sum = sum_of::<8>(l4, end);
    if tcp {
        if l4 + TCP_LEN > end {
            return false;
        }
        // SAFETY: 20 bytes are there.
        checksum = unsafe { load(l4 + 16) };
        l4_sum = sum_of::<TCP_LEN>(l4, end);
    }
    let Some(len) = payload_len(skb, l2_len, quote_len - l4_len, cpu) else { return false };
    // The kernel completes the checksum that it has begun, also in the quote: ours has to hold
    // afterwards.
    let protocol = cpu.packet.flow.protocol;
    let begun = (tcp || protocol == UDP) && checksum == header::fold(pseudo(cpu, protocol, len));
    let correction = if begun { !header::fold(l4_sum) as u64 + !checksum as u64 } else { 0 };
    let grow = (ip_len + ICMP_LEN) as i32;
    // SAFETY: the context is valid; all pointers into the packet are read again.
    unsafe {
        if bpf_skb_change_tail(skb, (l2_len + quote_len) as u32, 0) != 0
            || bpf_skb_adjust_room(skb, grow, BPF_ADJ_ROOM_MAC, 0) != 0
        {
            return false;
        }
    }
    let (data, end) = bytes(skb);
    let icmp = data + l2_len + ip_len;
    let quote = icmp + ICMP_LEN;
    let quote_sum = match (v4, labelled, tcp) {
        (true, false, false) => sum_of::<28>(quote, end),
        (true, false, true) => sum_of::<40>(quote, end),
        (true, true, _) => sum_of::<60>(quote, end),
        (false, false, false) => sum_of::<48>(quote, end),
        (false, false, true) => sum_of::<60>(quote, end),
        (false, true, _) => sum_of::<80>(quote, end),
    };
    let protocol = if v4 { ICMP } else { ICMPV6 };
    let icmp_len = (ICMP_LEN + quote_len) as u16;
    if icmp + ICMP_LEN > end
        || quote_sum == 0
        || !turn_round(data, end, l2_len, protocol, icmp_len, cpu)
    {
        return false;
    }
    let [kind, code] = match (v4, mtu) {
        (true, 0) => PROHIBITED_V4,
        (false, 0) => PROHIBITED_V6,
        (true, _) => TOO_BIG_V4,
        (false, _) => TOO_BIG_V6,
    };
    let head = u16::from_ne_bytes([kind, code]);
    let mtu = mtu.to_be();
    let ends = if v4 { 0 } else { pseudo(cpu, ICMPV6, icmp_len as u32) };
    let checksum = !header::fold(quote_sum + head as u64 + mtu as u64 + ends + correction);
    // SAFETY: 8 bytes are there.
    unsafe { write_unaligned(icmp as *mut [u32; 2], [head as u32 | (checksum as u32) << 16, mtu]) }
    true
}

/// Sum of `N` bytes of the packet; 0 when they are not there.
#[inline(always)]
fn sum_of<const N: usize>(at: usize, end: usize) -> u64 {
    if at + N > end {
        return 0;
    }
    // SAFETY: `N` bytes are there.
    let sum = unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, at as *mut u32, N as u32, 0) };
    if sum < 0 { 0 } else { sum as u64 }
}

/// Sum of the pseudo header between the packet's ends (RFC 9293, RFC 8200).
#[inline(always)]
fn pseudo(cpu: Cpu, protocol: u8, len: u32) -> u64 {
    let flow = &cpu.packet.flow;
    let halves = |word: u64| (word & 0xffff_ffff) + (word >> 32);
    let ends = if cpu.packet.version == 4 {
        (flow.source[1] >> 32) + (flow.destination[1] >> 32)
    } else {
        let [a, b] = flow.source;
        let [c, d] = flow.destination;
        halves(a) + halves(b) + halves(c) + halves(d)
    };
    ends + (protocol as u16).to_be() as u64 + len.to_be() as u64
}

/// Writes headers that go back to where the packet came from.
#[inline(always)]
fn turn_round(
    data: usize,
    end: usize,
    l2_len: usize,
    protocol: u8,
    payload: u16,
    cpu: Cpu,
) -> bool {
    let ip = data + l2_len;
    if ip + V6_LEN > end {
        return false;
    }
    if l2_len == ETH_LEN {
        // SAFETY: 14 bytes are there.
        unsafe {
            let destination = read_unaligned(data as *const [u16; 3]);
            let source = read_unaligned((data + 6) as *const [u16; 3]);
            write_unaligned(data as *mut [u16; 3], source);
            write_unaligned((data + 6) as *mut [u16; 3], destination);
        }
    }
    let flow = &cpu.packet.flow;
    // SAFETY: 40 bytes are there, 20 of which an IPv4 header takes.
    unsafe {
        if cpu.packet.version == 4 {
            let (source, destination) =
                ((flow.destination[1] >> 32) as u32, (flow.source[1] >> 32) as u32);
            V4::new(source, destination, protocol, HOPS, payload).store(ip);
        } else {
            let first = u32::from_ne_bytes([0x60, 0, 0, 0]);
            let length = payload.to_be() as u32 | (protocol as u32) << 16 | (HOPS as u32) << 24;
            write_unaligned(ip as *mut [u32; 2], [first, length]);
            let [a, b] = flow.destination;
            let [c, d] = flow.source;
            write_unaligned((ip + 8) as *mut [u64; 4], [a, b, c, d]);
        }
    }
    true
}
