//! What this CPU has decided before: a labelled packet whose bytes, zone, key and generation are
//! those of an earlier one, and whose label is still young enough, gets the same verdict.
//!
//! This is the way of nearly all packets, so it reads the packet in place, compares everything
//! before it branches, and leaves whatever is unusual to [`crate::ingress::decide`].

use govc_abi::{
    flow::{Control, Interface, Packet, control_flag},
    image::rule,
    key::KeyEntry,
    label::{
        BLOCK_LEN, IHL_LABELLED, Label, PREFIX_V4, V6_HDR_EXT_LEN, V6_OPTION_DISCARD,
        V6_OPTION_LEN, V6_OPTION_SKIP,
    },
    memory::{Memo, memo_flag},
    node::LEAF_NONE,
    reason,
};

use crate::{
    decide::{self, Verdict},
    maps::{self, Active, Cpu, Table},
    packet::{
        ETH_LEN, ETHERTYPE_V4, ETHERTYPE_V6, FIN, RST, SYN, TCP, V4_LEN, V6_LEN, has_ports, load,
    },
    report::{self, Place},
};

/// Whether what was decided about a packet is remembered: [`recall`] and [`crate::restamp`] look for
/// whole packets that neither open nor end a connection. What is more than let through or dropped takes the long way.
#[inline(always)]
pub fn is_kept(control: &Control, table: Table, verdict: &Verdict, cpu: Cpu) -> bool {
    if control.flags & control_flag::NO_MEMO != 0 || !is_established(&cpu.packet) {
        return false;
    }
    if verdict.rule == LEAF_NONE {
        return true;
    }
    let record = decide::rule_record(table, verdict.rule);
    // An entry does not tell those that are reported now and then from those whose label asks for each.
    let samples = record >> rule::SAMPLING_SHIFT > 1;
    record & (rule::REJECT | rule::QUARANTINE) == 0 && !(samples && report::is_traced(cpu))
}

/// Whether a packet is a whole one that neither opens nor ends a connection, of a protocol that has ports.
#[inline(always)]
fn is_established(packet: &Packet) -> bool {
    packet.syn | packet.fin | packet.reset | packet.shape == 0 && has_ports(packet.flow.protocol)
}

/// What was decided before about the packet in `cpu`, which came in by `zone` and passes through, and the zone that
/// it left by: both hooks ask that it meets. [`None`] for whatever has to be verified and decided.
#[inline(always)]
pub fn transit(zone: u32, active: Active, cpu: Cpu) -> Option<(Verdict, u32)> {
    let found = govc_recall_transit(active.generation << 1 | active.buffer as u64, zone);
    if found & FOUND == 0 { None } else { Some((Verdict::noted(cpu), found & 0xff)) }
}

/// Set in what [`govc_recall_transit`] answers when something is known; the zone is in the lower byte.
const FOUND: u32 = 1 << 8;

/// [`transit`], with the verdict in [`govc_abi::flow::CpuState::verdict`]; a global function, as
/// [`decide::govc_walk`] is one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_recall_transit(active: u64, zone: u32) -> u32 {
    let active = Active { generation: active >> 1, buffer: active as u32 & 1 };
    recall_transit(zone, active).map_or(0, |leaves_by| FOUND | leaves_by)
}

#[inline(always)]
fn recall_transit(zone: u32, active: Active) -> Option<u32> {
    let cpu = maps::cpu()?;
    let (control, _) = maps::control()?;
    let (packet, slot) = (&cpu.packet, cpu.slot);
    if !is_now(control, slot) || !is_established(packet) {
        return None;
    }
    let (at, memo) = maps::memo(packet.mac)?;
    // One after the other: all at once take more of the stack than there is.
    if !is_of_flow(memo, at, packet)? || !is_of_label(memo, packet.mac, &cpu.label) {
        return None;
    }
    let key = maps::key(maps::keys(active)?, memo.key_index);
    if differs(memo, packet.flow.protocol, zone, active, key) != 0 || !is_good(memo, slot, key) {
        return None;
    }
    memo.set_used(true);
    decided(memo).note(cpu);
    Some(memo.leaves_by())
}

/// Whether an entry is about a packet of this flow that passes through; its place is `at`.
#[inline(always)]
fn is_of_flow(memo: &Memo, at: u32, packet: &Packet) -> Option<bool> {
    let flow = &packet.flow;
    let ports = flow.source_port as u32 | (flow.destination_port as u32) << 16;
    let kind = memo.flags() & KIND ^ memo_flag::TRANSIT;
    let differs = if packet.version == 6 {
        let known = maps::memo_v6(at)?;
        known[0] ^ flow.source[0]
            | known[1] ^ flow.source[1]
            | known[2] ^ flow.destination[0]
            | known[3] ^ flow.destination[1]
            | (kind ^ memo_flag::V6) as u64
    } else {
        memo.addresses ^ (flow.source[1] >> 32 | flow.destination[1] & !0xffff_ffff) | kind as u64
    };
    Some(differs | (memo.ports ^ ports) as u64 == 0)
}

/// Whether an entry is about this label with this MAC.
#[inline(always)]
fn is_of_label(memo: &Memo, mac: u64, label: &Label) -> bool {
    let (w0, w1, tail) = label.wire_words();
    let differs = memo.body[0] ^ w0 | memo.body[1] ^ w1 | memo.mac ^ mac;
    differs | (memo.tail ^ tail) as u64 == 0
}

/// Whether anything is remembered at all.
#[inline(always)]
fn is_now(control: &Control, slot: u64) -> bool {
    const NOT_NOW: u32 = control_flag::NO_MEMO | control_flag::REPORT_PERMITS;
    control.flags & NOT_NOW == 0 && slot >= control.slot_floor
}

/// Not 0 when an entry is about another protocol, zone, generation or key.
#[inline(always)]
fn differs(memo: &Memo, protocol: u8, zone: u32, active: Active, key: &KeyEntry) -> u64 {
    memo.protocol as u64 ^ protocol as u64
        | memo.other_generation(Memo::decided(active.generation, 0)) as u64
        | memo.zone as u64 ^ zone as u64
        | (memo.key ^ key.fingerprint()) as u64
}

/// Whether the label of an entry is good in a slot, as is the key that it was verified with, and nothing is to be
/// reported.
#[inline(always)]
fn is_good(memo: &Memo, slot: u64, key: &KeyEntry) -> bool {
    // The slot whole again, of which the entry has the lower half.
    let age = (slot as u32).wrapping_sub(memo.slot) as i32;
    let labelled_slot = slot.wrapping_sub(age as i64 as u64);
    memo.is_young(slot)
        && key.covers(labelled_slot)
        && (memo.flags() & memo_flag::REPORTS == 0 || report::is_spent(memo.rule(), memo.reason()))
}

/// What an entry says.
#[inline(always)]
fn decided(memo: &Memo) -> Verdict {
    Verdict {
        permit: memo.flags() & memo_flag::PERMIT != 0,
        reason: memo.reason(),
        rule: memo.rule(),
        pending: memo.pending(),
        transit: memo.flags() & memo_flag::TRANSIT != 0,
    }
}

/// A packet that was decided before.
pub struct Recalled {
    memo: &'static Memo,
    /// IP version.
    pub version: u8,
    /// What follows the label.
    pub protocol: u8,
}

impl Recalled {
    /// What was decided.
    #[inline(always)]
    pub fn verdict(&self) -> Verdict {
        Verdict { transit: false, ..decided(self.memo) }
    }

    /// Not 0 when packets decided so are reported while there is budget for events.
    #[inline(always)]
    pub fn reports(&self) -> u8 {
        self.memo.flags() & memo_flag::REPORTS
    }
}

/// Flags that tell entries apart which are about other packets.
const KIND: u8 = memo_flag::V6 | memo_flag::TRANSIT;

/// What there is about a packet that is like one of before.
struct Found {
    memo: &'static mut Memo,
    /// Not 0 when it is about another one.
    differs: u64,
    version: u8,
    protocol: u8,
}

/// Looks a packet up that arrived at `interface` in this slot, and of which the bytes from `data`
/// to `end` are linear. [`None`] for whatever has to be parsed, verified and decided.
#[inline(always)]
pub fn recall(
    data: usize,
    end: usize,
    interface: &Interface,
    slot: u64,
    place: &Place<'_>,
) -> Option<Recalled> {
    let active = place.active;
    let l2_len = interface.l2_len as usize;
    if !is_now(place.control, slot) || l2_len > ETH_LEN || data + ETH_LEN > end {
        return None;
    }
    // SAFETY: 14 bytes are there.
    let ethertype: u16 = unsafe { load(data + 12) };
    let ip = data + l2_len;
    let len = place.len.wrapping_sub(l2_len as u32);
    if ip + V4_LEN > end {
        return None;
    }
    // SAFETY: 20 bytes are there.
    let first: u8 = unsafe { load(ip) };
    let found = if first == 0x40 | IHL_LABELLED {
        if l2_len != 0 && ethertype != ETHERTYPE_V4 {
            return None;
        }
        recall_v4(ip, end, len)?
    } else if first >> 4 == 6 {
        if l2_len != 0 && ethertype != ETHERTYPE_V6 {
            return None;
        }
        recall_v6(ip, end, len)?
    } else {
        return None;
    };
    let Found { memo, differs: found_differs, version, protocol } = found;
    let key = maps::key(maps::keys(active)?, memo.key_index);
    let zone = maps::zone(interface, active);
    let differs = found_differs | differs(memo, protocol, zone, active, key);
    if differs != 0 || !is_good(memo, slot, key) {
        return None;
    }
    memo.set_used(true);
    Some(Recalled { memo, version, protocol })
}

/// Counts a packet and, where `reports` is not 0 or nothing could be done with it, the lost event that it would
/// have been.
#[inline(always)]
pub fn tell(reports: u8, verdict: &Verdict, place: &Place<'_>, cpu: Cpu) {
    report::count_verdict(place, verdict);
    if reports != 0 || verdict.reason == reason::HELPER_FAILED {
        report::lose(verdict, place.active, cpu);
    }
}

/// The entry for a labelled IPv4 packet.
#[inline(always)]
fn recall_v4(ip: usize, end: usize, len: u32) -> Option<Found> {
    const HEADER_LEN: usize = V4_LEN + BLOCK_LEN;
    if ip + HEADER_LEN + 4 > end {
        return None;
    }
    // SAFETY: 56 bytes are there.
    let (total, fragment, protocol, addresses, prefix): (u16, u16, u8, u64, u32) =
        unsafe { (load(ip + 2), load(ip + 6), load(ip + 9), load(ip + 12), load(ip + 20)) };
    let total = u16::from_be(total) as u32;
    if total < HEADER_LEN as u32
        || total > len
        || fragment & 0x3fff_u16.to_be() != 0
        || prefix != u32::from_ne_bytes(PREFIX_V4)
    {
        return None;
    }
    let ports = established(ip + HEADER_LEN, end, protocol)?;
    // SAFETY: 56 bytes are there.
    let (_, memo, differs) = unsafe { compare(ip + V4_LEN + 4, ports)? };
    let flags = memo.flags() & KIND;
    let differs = differs | memo.addresses ^ addresses | flags as u64;
    Some(Found { memo, differs, version: 4, protocol })
}

/// Likewise for IPv6.
#[inline(always)]
fn recall_v6(ip: usize, end: usize, len: u32) -> Option<Found> {
    const HEADER_LEN: usize = V6_LEN + BLOCK_LEN;
    // The two option types differ in one bit.
    const EITHER: u8 = V6_OPTION_SKIP ^ V6_OPTION_DISCARD;
    const SHAPE: u32 = u32::from_ne_bytes([0, V6_HDR_EXT_LEN, V6_OPTION_SKIP, V6_OPTION_LEN]);
    const MASK: u32 = u32::from_ne_bytes([0, 0xff, !EITHER, 0xff]);
    if ip + HEADER_LEN + 4 > end {
        return None;
    }
    // SAFETY: 76 bytes are there.
    let (payload, next, shape, protocol): (u16, u8, u32, u8) =
        unsafe { (load(ip + 4), load(ip + 6), load(ip + 40), load(ip + 40)) };
    let payload = u16::from_be(payload) as u32;
    if next != crate::packet::DESTINATION_OPTIONS
        || shape & MASK != SHAPE & MASK
        || payload < BLOCK_LEN as u32
        || payload + V6_LEN as u32 > len
    {
        return None;
    }
    let ports = established(ip + HEADER_LEN, end, protocol)?;
    // SAFETY: 76 bytes are there.
    let addresses: [u64; 4] = unsafe { load(ip + 8) };
    // SAFETY: likewise.
    let (slot, memo, differs) = unsafe { compare(ip + V6_LEN + 4, ports)? };
    let known = maps::memo_v6(slot)?;
    let flags = memo.flags() & KIND;
    let differs = differs
        | known[0] ^ addresses[0]
        | known[1] ^ addresses[1]
        | known[2] ^ addresses[2]
        | known[3] ^ addresses[3]
        | (flags ^ memo_flag::V6) as u64;
    Some(Found { memo, differs, version: 6, protocol })
}

/// The ports at `l4`, of which 4 bytes are there, if such packets are remembered: those of a
/// protocol that has ports, whole, and nothing that opens or ends a connection: the MAC of a SYN covers its sequence number
/// too, and the flow table has to hear of ends.
#[inline(always)]
pub fn established(l4: usize, end: usize, protocol: u8) -> Option<u32> {
    if protocol == TCP {
        if l4 + 20 > end {
            return None;
        }
        // SAFETY: 20 bytes are there.
        let flags: u8 = unsafe { load(l4 + 13) };
        if flags & (SYN | FIN | RST) != 0 {
            return None;
        }
    } else if !has_ports(protocol) || l4 + 8 > end {
        return None;
    }
    // SAFETY: 8 bytes are there.
    Some(unsafe { load(l4) })
}

/// The entry for the label at `label` and its place, and non-zero when the label or the ports are others.
///
/// # Safety
/// The caller has compared `label + 28` with the end of the packet.
#[inline(always)]
unsafe fn compare(label: usize, ports: u32) -> Option<(u32, &'static mut Memo, u64)> {
    // SAFETY: by the caller.
    let (w0, w1, w2, mac): (u64, u64, u32, u64) =
        unsafe { (load(label), load(label + 8), load(label + 16), load(label + 20)) };
    let (slot, memo) = maps::memo(mac)?;
    let differs = memo.body[0] ^ w0
        | memo.body[1] ^ w1
        | memo.mac ^ mac
        | ((memo.tail ^ w2) | (memo.ports ^ ports)) as u64;
    Some((slot, memo, differs))
}
