//! How this CPU has labelled a flow before: further packets of it get the same label and MAC within
//! the slot.
//!
//! As [`crate::recall`] does, this reads the packet in place, compares everything before it branches,
//! and leaves whatever is unusual to [`crate::egress::decide`].

use aya_ebpf::{bindings::__sk_buff, helpers::generated::bpf_skb_cgroup_id};
use govc_abi::{
    event::hook,
    flow::{Control, Interface, control_flag},
    label::{BLOCK_LEN, Label},
    mac::{is_v4_mapped, v4_mapped},
    memory::{Stamped, moment, stamped_ends, stamped_origin},
    reason,
};

use crate::{
    authority::EpochKey,
    decide::Verdict,
    declare, egress,
    flows::{self, News},
    maps::{self, Active, Cpu, Table},
    packet::{ETH_LEN, ETHERTYPE_V4, ETHERTYPE_V6, TCP, V4_LEN, V6_LEN, load},
    recall,
    report::{self, Place, may_report},
    tc::{Cut, put_in},
    tunnel,
};

/// What became of a packet.
pub mod done {
    /// Nothing: it has to be parsed, decided and sealed.
    pub const NOTHING: u32 = 0;
    /// It was labelled and counted.
    pub const LABELLED: u32 = 1;
    /// It was counted as dropped.
    pub const DROPPED: u32 = 2;
}

/// Set in what [`stamped_origin`] gives for packets that were sent on this node.
const LOCAL: u64 = stamped_origin(0, 0, 0, true);

/// Finds out where a packet comes from, for [`egress::Origin::of`], and labels it as this CPU has labelled its
/// flow before in this slot: one of [`done`].
#[inline(always)]
pub fn restamp(skb: *mut __sk_buff, interface: &Interface, place: &Place<'_>, slot: u64) -> u32 {
    const NOT_NOW: u32 = control_flag::NO_MEMO | control_flag::REPORT_PERMITS;
    let (control, active) = (place.control, place.active);
    let may = control.flags & NOT_NOW == 0 && slot >= control.slot_floor;
    let link = interface.l2_len as u64 | (may as u64) << 16 | (interface.mtu as u64) << 32;
    let zone = maps::zone(interface, active);
    govc_restamp(skb, active.generation << 1 | active.buffer as u64, zone, link)
}

/// [`restamp`] of a packet that leaves by `zone` over a link with headers of `link & 0xffff` bytes and
/// the MTU `link >> 32`, in the slot of [`govc_abi::flow::CpuState`].
///
/// A global function, as [`crate::decide::govc_walk`] is one: verified once, with a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_restamp(skb: *mut __sk_buff, active: u64, zone: u32, link: u64) -> u32 {
    let Some(mut cpu) = maps::cpu() else { return done::NOTHING };
    let Some((control, _)) = maps::control() else { return done::NOTHING };
    let active = Active { generation: active >> 1, buffer: active as u32 & 1 };
    let Some(table) = Table::of(active) else { return done::NOTHING };
    cpu.origin = origin(skb, zone, active, table);
    cpu.declared = if cpu.origin & LOCAL != 0 { declare::declared(skb) } else { 0 };
    if link & 1 << 16 == 0 {
        return done::NOTHING;
    }
    // SAFETY: the context is valid.
    let (data, end, len) = unsafe { ((*skb).data as usize, (*skb).data_end as usize, (*skb).len) };
    let (l2_len, mtu) = (link as usize & 0xffff, (link >> 32) as u32);
    let Some(seen) = read(data, end, l2_len, len) else { return done::NOTHING };
    let Some(stamped) = maps::stamped(seen.addresses, seen.ends) else { return done::NOTHING };
    let Some(keys) = maps::keys(active) else { return done::NOTHING };
    let key = maps::key(keys, stamped.key_index);
    let differs = stamped.addresses[0] ^ seen.addresses[0]
        | stamped.addresses[1] ^ seen.addresses[1]
        | stamped.addresses[2] ^ seen.addresses[2]
        | stamped.addresses[3] ^ seen.addresses[3]
        | stamped.ends ^ seen.ends
        | stamped.arrival ^ seen.last_arrival()
        | (stamped.generation ^ active.generation as u32 | stamped.slot ^ cpu.slot as u32) as u64
        | stamped.declared ^ cpu.declared
        | stamped.origin ^ cpu.origin
        | stamped.key[0] ^ key.k0
        | stamped.key[1] ^ key.k1;
    let is_over = stamped.moment != 0 && stamped.moment != moment(cpu.coarse_ns);
    if differs != 0 || is_over || !key.covers(cpu.slot) {
        return done::NOTHING;
    }
    let coarse_ns = cpu.coarse_ns;
    let place =
        Place { control, active, coarse_ns, ifindex: 0, len, hook: hook::EGRESS, leaving: skb };
    if stamped.reports != 0 && !report::is_spent(stamped.rule, stamped.reason) {
        return done::NOTHING;
    }
    let is_tcp = (stamped.ends >> 32) as u8 == TCP;
    let room = mtu.saturating_sub(BLOCK_LEN as u32);
    let Some(cut) = Cut::with(skb, l2_len as u32, room, is_tcp, seen.headers_len) else {
        return done::NOTHING;
    };
    let Stamped { head, mid, tail, mac, rule, pending, reason: why, reports, .. } = *stamped;
    let label = Label { head, mid, tail, pad: 0 };
    let put_in = put_in(skb, l2_len, seen.version, cut, &label, mac);
    if put_in == Err(reason::NO_ROOM) {
        // It is as it was, and its sender may have to be told.
        return done::NOTHING;
    }
    let verdict = Verdict { pending, ..Verdict::permit(why, rule) }.carried_out(put_in.is_ok());
    recall::tell(reports, &verdict, &place, cpu);
    if verdict.permit { done::LABELLED } else { done::DROPPED }
}

/// What a packet says of itself.
struct Seen {
    addresses: [u64; 4],
    ends: u64,
    version: u8,
    /// Length of the headers up to the payload, bytes.
    headers_len: u32,
}

impl Seen {
    #[inline(always)]
    fn last_arrival(&self) -> u64 {
        maps::last_arrival(self.addresses, self.ends as u32, (self.ends >> 32) as u8)
    }
}

/// Reads what identifies a flow that may have been labelled.
#[inline(always)]
fn read(data: usize, end: usize, l2_len: usize, len: u32) -> Option<Seen> {
    if l2_len > ETH_LEN || data + ETH_LEN > end {
        return None;
    }
    // SAFETY: 14 bytes are there.
    let ethertype: u16 = unsafe { load(data + 12) };
    let ip = data + l2_len;
    let len = len.wrapping_sub(l2_len as u32);
    if ip + V4_LEN > end {
        return None;
    }
    // SAFETY: 20 bytes are there.
    let first: u8 = unsafe { load(ip) };
    let (addresses, protocol, version, l4) = if first == 0x45 {
        if l2_len != 0 && ethertype != ETHERTYPE_V4 {
            return None;
        }
        // SAFETY: 20 bytes are there.
        let (total, fragment, protocol, addresses): (u16, u16, u8, [u32; 2]) =
            unsafe { (load(ip + 2), load(ip + 6), load(ip + 9), load(ip + 12)) };
        let total = u16::from_be(total) as u32;
        if total < V4_LEN as u32 || total > len || fragment & 0x3fff_u16.to_be() != 0 {
            return None;
        }
        let [source, destination] = addresses.map(v4_mapped);
        let flow = [source[0], source[1], destination[0], destination[1]];
        (flow, protocol, 4, ip + V4_LEN)
    } else if first >> 4 == 6 {
        if l2_len != 0 && ethertype != ETHERTYPE_V6 || ip + V6_LEN > end {
            return None;
        }
        // SAFETY: 40 bytes are there.
        let (payload, protocol, flow): (u16, u8, [u64; 4]) =
            unsafe { (load(ip + 4), load(ip + 6), load(ip + 8)) };
        if u16::from_be(payload) as u32 + V6_LEN as u32 > len
            || is_v4_mapped([flow[0], flow[1]])
            || is_v4_mapped([flow[2], flow[3]])
        {
            return None;
        }
        (flow, protocol, 6, ip + V6_LEN)
    } else {
        return None;
    };
    let ports = recall::established(l4, end, protocol)?;
    let mut l4_len = 8;
    if protocol == TCP {
        if l4 + 20 > end {
            return None;
        }
        // SAFETY: 20 bytes are there.
        let offset: u8 = unsafe { load(l4 + 12) };
        l4_len = (offset >> 4) as u32 * 4;
    }
    let ip_len = if version == 4 { V4_LEN } else { V6_LEN };
    let ends = stamped_ends(ports, protocol, version);
    Some(Seen { addresses, ends, version, headers_len: ip_len as u32 + l4_len })
}

/// Where a leaving packet comes from.
#[inline(always)]
fn origin(skb: *mut __sk_buff, zone: u32, active: Active, table: Table) -> u64 {
    // SAFETY: the context is valid.
    let ingress_ifindex = unsafe { (*skb).ingress_ifindex };
    let from_zone = maps::zone_entered(ingress_ifindex, active);
    // SAFETY: likewise.
    let cgroup = if egress::wants_cgroup(table) { unsafe { bpf_skb_cgroup_id(skb) } } else { 0 };
    let pattern = if cgroup != 0 { maps::cgroup_pattern(cgroup, active) } else { 0 };
    stamped_origin(pattern, from_zone, zone, ingress_ifindex == 0)
}

/// Keeps the label in `cpu.label` with this MAC for further packets of the flow, as long as `news` says
/// that these tell the flow table nothing.
#[inline(always)]
pub fn remember(
    key: &EpochKey,
    mac: u64,
    (control, active, slot): (&Control, Active, u64),
    table: Table,
    (verdict, news): (&Verdict, News),
    cpu: Cpu,
) {
    let moment = match news {
        News::Always => return,
        News::NextMoment => moment(cpu.coarse_ns),
        News::NextSlot => 0,
    };
    let flow = &cpu.packet.flow;
    // Another packet of the flow may be a tunnel that a workload has built, which only who computes sees.
    let hides = tunnel::are_due(table) && tunnel::leads_here(flow);
    if hides || !recall::is_kept(control, table, verdict, cpu) {
        return;
    }
    let (addresses, ports) = flows::ends(flow);
    let ends = stamped_ends(ports, flow.protocol, cpu.packet.version);
    let Some(stamped) = maps::stamped(addresses, ends) else { return };
    *stamped = Stamped {
        addresses,
        ends,
        arrival: cpu.arrival,
        generation: active.generation as u32,
        slot: slot as u32,
        declared: cpu.declared,
        origin: cpu.origin,
        key: key.words,
        head: cpu.label.head,
        mid: cpu.label.mid,
        tail: cpu.label.tail,
        rule: verdict.rule,
        mac,
        pending: verdict.pending,
        reason: verdict.reason,
        key_index: key.index,
        reports: may_report(table, verdict, cpu) as u8,
        moment,
    };
}
