//! The tcx hooks: ingress verifies and strips, egress stamps. On veth they see super-packets
//! whole; on hardware [`crate::xdp`] takes the ingress side.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_FIXED_GSO, BPF_F_ADJ_ROOM_NO_CSUM_RESET,
        bpf_adj_room_mode::BPF_ADJ_ROOM_NET,
        tcx_action_base::{TCX_DROP, TCX_NEXT},
    },
    helpers::generated::{
        bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_cgroup_id, bpf_skb_pull_data,
        bpf_skb_store_bytes,
    },
    macros::classifier,
    programs::TcContext,
};
use govc_abi::{event::hook, flow::Interface, label::BLOCK_LEN, reason};

use crate::{
    clock,
    decide::{Verdict, begin},
    egress::{self, Carriage, Origin},
    header, ingress,
    maps::{self, Active, Cpu, Table},
    packet::{self, TCP, UDP},
    recall::{self, Now, recall},
    report::{Place, report},
};

/// Let the packet go on to the next program or the stack.
const NEXT: i32 = TCX_NEXT;
const DROP: i32 = TCX_DROP;

/// Verifies, decides and strips arriving packets.
#[classifier]
pub fn govc_ingress(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(cpu) = maps::cpu() else { return DROP };
    let Some((control, active)) = maps::control() else { return no_generation(skb, hook::INGRESS) };
    let place = place(skb, control, active, hook::INGRESS, cpu);
    let Some(interface) = maps::interface(place.ifindex) else {
        return unknown_interface(&place, cpu);
    };
    let slot = clock::slot(place.coarse_ns, control, cpu);
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let now = Now { control, active, coarse_ns: place.coarse_ns, slot, interface };
    if let Some(recalled) = recall(data, end, place.len, &now, cpu) {
        let mut verdict = recalled.verdict();
        if verdict.permit && !strip(skb, interface.l2_len, recalled.version, recalled.protocol) {
            verdict = Verdict::deny(reason::HELPER_FAILED);
        }
        recall::tell(&recalled, &verdict, active, place.len, cpu);
        return if verdict.permit { NEXT } else { DROP };
    }
    begin(cpu);
    let verdict = match prepare(skb, active, interface, cpu) {
        Err(reason) => refuse(reason),
        Ok(table) => {
            let verdict = if slot < control.slot_floor {
                Verdict::deny(reason::CLOCK_STALE)
            } else {
                let zone = maps::zone(interface, active);
                ingress::decide(zone, control, active, slot, table, cpu)
            };
            let (version, protocol) = (cpu.packet.version, cpu.packet.flow.protocol);
            if verdict.permit
                && cpu.packet.labelled != 0
                && !strip(skb, interface.l2_len, version, protocol)
            {
                Verdict::deny(reason::HELPER_FAILED)
            } else {
                verdict
            }
        }
    };
    report(&place, Table::of(active), &verdict, cpu);
    if verdict.permit { NEXT } else { DROP }
}

/// Labels leaving packets, or drops them.
#[classifier]
pub fn govc_egress(ctx: TcContext) -> i32 {
    let skb = ctx.skb.skb;
    let Some(cpu) = maps::cpu() else { return DROP };
    let Some((control, active)) = maps::control() else { return no_generation(skb, hook::EGRESS) };
    let place = place(skb, control, active, hook::EGRESS, cpu);
    let Some(interface) = maps::interface(place.ifindex) else {
        return unknown_interface(&place, cpu);
    };
    begin(cpu);
    let verdict = match prepare(skb, active, interface, cpu) {
        Err(reason) => refuse(reason),
        Ok(table) => {
            let slot = clock::slot(place.coarse_ns, control, cpu);
            if slot < control.slot_floor {
                Verdict::deny(reason::CLOCK_STALE)
            } else {
                let origin = origin(skb, interface, active, table);
                let (verdict, carriage) = egress::decide(&origin, active, slot, table, cpu);
                carry(skb, interface, verdict, carriage, cpu)
            }
        }
    };
    report(&place, Table::of(active), &verdict, cpu);
    if verdict.permit { NEXT } else { DROP }
}

/// The verdict for a packet that never became a request.
#[inline(always)]
pub fn refuse(reason: u8) -> Verdict {
    if reason == reason::LINK_CONTROL {
        Verdict::permit(reason, govc_abi::node::LEAF_NONE)
    } else {
        Verdict::deny(reason)
    }
}

/// No policy is in force: fail closed, and count.
#[inline(always)]
fn no_generation(skb: *mut __sk_buff, hook: u8) -> i32 {
    let counter = govc_abi::flow::reason_counter(hook, reason::GENERATION_UNKNOWN);
    // SAFETY: the context is valid.
    maps::count(2, counter, unsafe { (*skb).len });
    DROP
}

/// The hook is attached to an interface that the loader has said nothing about.
#[inline(always)]
fn unknown_interface(place: &Place, cpu: Cpu) -> i32 {
    begin(cpu);
    let verdict = Verdict::deny(reason::INTERFACE_UNKNOWN);
    report(place, Table::of(place.active), &verdict, cpu);
    DROP
}

#[inline(always)]
fn place<'a>(
    skb: *mut __sk_buff,
    control: &'a govc_abi::flow::Control,
    active: Active,
    hook: u8,
    cpu: Cpu,
) -> Place<'a> {
    // SAFETY: the context is valid.
    let (ifindex, len) = unsafe { ((*skb).ifindex, (*skb).len) };
    Place { control, active, coarse_ns: clock::coarse_ns(cpu), ifindex, len, hook }
}

/// Finds the table, makes the headers linear and parses them.
#[inline(always)]
fn prepare(
    skb: *mut __sk_buff,
    active: Active,
    interface: &Interface,
    cpu: Cpu,
) -> Result<Table, u8> {
    let table = Table::of(active).ok_or(reason::GENERATION_UNKNOWN)?;
    let l2_len = interface.l2_len as usize;
    // SAFETY: the context is valid.
    let (mut data, mut end, len) =
        unsafe { ((*skb).data as usize, (*skb).data_end as usize, (*skb).len) };
    let want = packet::linear_len(data, end, l2_len, len);
    if data + want as usize > end {
        // SAFETY: the context is valid; both pointers are read again.
        unsafe {
            if bpf_skb_pull_data(skb, want) != 0 {
                return Err(reason::TRUNCATED);
            }
            data = (*skb).data as usize;
            end = (*skb).data_end as usize;
        }
    }
    packet::parse_into(data, end, l2_len, len, cpu)?;
    Ok(table)
}

/// Cuts the label out of a verified packet.
#[inline(always)]
fn strip(skb: *mut __sk_buff, l2_len: u16, version: u8, protocol: u8) -> bool {
    let flags = (BPF_F_ADJ_ROOM_NO_CSUM_RESET | BPF_F_ADJ_ROOM_FIXED_GSO) as u64;
    // SAFETY: the context is valid; all pointers into the packet are read again.
    let (data, end) = unsafe {
        if bpf_skb_adjust_room(skb, -(BLOCK_LEN as i32), BPF_ADJ_ROOM_NET, flags) != 0 {
            return false;
        }
        ((*skb).data as usize, (*skb).data_end as usize)
    };
    let l2_len = l2_len as usize;
    if l2_len > packet::ETH_LEN {
        return false;
    }
    let ip = data + l2_len;
    if version == 4 { header::strip_v4(ip, end) } else { header::strip_v6(ip, end, protocol) }
}

/// Where a leaving packet comes from.
#[inline(always)]
fn origin(skb: *mut __sk_buff, interface: &Interface, active: Active, table: Table) -> Origin {
    // SAFETY: the context is valid.
    let ingress_ifindex = unsafe { (*skb).ingress_ifindex };
    let from_zone = if ingress_ifindex == 0 {
        0
    } else {
        maps::interface(ingress_ifindex).map_or(0, |from| maps::zone(from, active))
    };
    // SAFETY: likewise.
    let cgroup = if egress::wants_cgroup(table) { unsafe { bpf_skb_cgroup_id(skb) } } else { 0 };
    Origin { zone: maps::zone(interface, active), from_zone, cgroup }
}

/// Puts the label into a permitted packet.
#[inline(always)]
fn carry(
    skb: *mut __sk_buff,
    interface: &Interface,
    verdict: Verdict,
    carriage: Carriage,
    cpu: Cpu,
) -> Verdict {
    let Carriage::Label(mac) = carriage else { return verdict };
    if cpu.packet.syn != 0 {
        clamp_mss(skb, interface, cpu);
    }
    let l2_len = interface.l2_len as usize;
    // SAFETY: the context is valid.
    let (gso_size, len) = unsafe { ((*skb).gso_size, (*skb).len) };
    // TCP: the kernel makes the segments of a super-packet smaller by the block. UDP: datagrams
    // keep their size, and the sender has to leave room.
    let udp_gso = gso_size != 0 && cpu.packet.flow.protocol == UDP;
    let longest = if udp_gso {
        let headers = if cpu.packet.version == 4 { 20 + 8 } else { 40 + 8 };
        gso_size.wrapping_add(headers)
    } else if gso_size == 0 {
        len.wrapping_sub(l2_len as u32)
    } else {
        0
    };
    if longest.wrapping_add(BLOCK_LEN as u32) > interface.mtu {
        return Verdict { permit: false, reason: reason::NO_ROOM, ..verdict };
    }
    let flags = if udp_gso { BPF_F_ADJ_ROOM_FIXED_GSO as u64 } else { 0 };
    // SAFETY: the context is valid; all pointers into the packet are read again.
    let (data, end) = unsafe {
        if bpf_skb_adjust_room(skb, BLOCK_LEN as i32, BPF_ADJ_ROOM_NET, flags) != 0 {
            return Verdict { permit: false, reason: reason::NO_ROOM, ..verdict };
        }
        ((*skb).data as usize, (*skb).data_end as usize)
    };
    if l2_len > packet::ETH_LEN {
        return Verdict { permit: false, reason: reason::HELPER_FAILED, ..verdict };
    }
    let ip = data + l2_len;
    let done = if cpu.packet.version == 4 {
        header::stamp_v4(ip, end, &cpu.label, mac)
    } else {
        header::stamp_v6(ip, end, &cpu.label, mac)
    };
    if done { verdict } else { Verdict { permit: false, reason: reason::HELPER_FAILED, ..verdict } }
}

/// Lowers the MSS that a SYN announces, so that what comes back leaves room for a label.
///
/// Only an MSS option that stands first is looked at: every TCP in use puts it there.
#[inline(always)]
fn clamp_mss(skb: *mut __sk_buff, interface: &Interface, cpu: Cpu) {
    const CHECKSUM_AT: u32 = 16;
    const MSS_AT: u32 = 22;
    const MSS_OPTION: u16 = u16::from_ne_bytes([2, 4]);
    let most = if cpu.packet.version == 4 { interface.mss_v4 } else { interface.mss_v6 };
    if most == 0 || cpu.packet.flow.protocol != TCP {
        return;
    }
    let tcp_at = interface.l2_len as u32 + if cpu.packet.version == 4 { 20 } else { 40 };
    if tcp_at > 54 {
        return;
    }
    // SAFETY: the context is valid; the bytes are compared with the end.
    let (data, end) = unsafe { ((*skb).data as usize, (*skb).data_end as usize) };
    let tcp = data + tcp_at as usize;
    if tcp + 24 > end {
        return;
    }
    // SAFETY: 24 bytes are there.
    let (option, announced) = unsafe {
        (
            core::ptr::read_unaligned((tcp + 20) as *const u16),
            core::ptr::read_unaligned((tcp + 22) as *const u16),
        )
    };
    if option != MSS_OPTION || u16::from_be(announced) <= most {
        return;
    }
    let clamped = most.to_be();
    // SAFETY: the context is valid, `clamped` lives on the stack. A failure leaves the packet as
    // it was; the route's MTU is the second line.
    unsafe {
        bpf_l4_csum_replace(skb, tcp_at + CHECKSUM_AT, announced as u64, clamped as u64, 2);
        bpf_skb_store_bytes(skb, tcp_at + MSS_AT, (&raw const clamped).cast(), 2, 0);
    }
}
