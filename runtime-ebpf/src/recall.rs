//! What this CPU has decided before: a labelled packet whose bytes, zone, key and generation are
//! those of an earlier one, and whose label is still young enough, gets the same verdict.
//!
//! This is the way of nearly all packets, so it reads the packet in place, compares everything
//! before it branches, and leaves whatever is unusual to [`crate::ingress::decide`].

use govc_abi::{
    flow::{Control, Interface, Packet, control_flag},
    image::rule,
    label::{
        BLOCK_LEN, IHL_LABELLED, PREFIX_V4, V6_HDR_EXT_LEN, V6_OPTION_DISCARD, V6_OPTION_LEN,
        V6_OPTION_SKIP,
    },
    memory::{Memo, memo_flag},
    node::LEAF_NONE,
};

use crate::{
    decide::{self, Verdict},
    maps::{self, Cpu, Table},
    packet::{
        ETH_LEN, ETHERTYPE_V4, ETHERTYPE_V6, FIN, RST, SYN, TCP, V4_LEN, V6_LEN, has_ports, load,
    },
    report::{self, Place},
};

/// Whether what was decided about a packet is remembered: [`recall`] and [`crate::restamp`] look for
/// whole packets that neither open nor end a connection. What is more than let through or dropped takes the long way.
#[inline(always)]
pub fn is_kept(control: &Control, table: Table, verdict: &Verdict, packet: &Packet) -> bool {
    control.flags & control_flag::NO_MEMO == 0
        && packet.syn | packet.fin | packet.reset | packet.shape == 0
        && has_ports(packet.flow.protocol)
        && (verdict.rule == LEAF_NONE
            || decide::rule_record(table, verdict.rule) & (rule::REJECT | rule::QUARANTINE) == 0)
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
        Verdict {
            permit: self.memo.flags() & memo_flag::PERMIT != 0,
            reason: self.memo.reason(),
            rule: self.memo.rule(),
            pending: self.memo.pending(),
            transit: false,
        }
    }

    /// Not 0 when packets decided so are reported while there is budget for events.
    #[inline(always)]
    pub fn reports(&self) -> u8 {
        self.memo.flags() & memo_flag::REPORTS
    }
}

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
    const NOT_NOW: u32 = control_flag::NO_MEMO | control_flag::REPORT_PERMITS;
    let (control, active) = (place.control, place.active);
    let l2_len = interface.l2_len as usize;
    if control.flags & NOT_NOW != 0
        || slot < control.slot_floor
        || l2_len > ETH_LEN
        || data + ETH_LEN > end
    {
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
    let Found { memo, differs, version, protocol } = found;
    let key = maps::key(maps::keys(active)?, memo.key_index);
    let zone = maps::zone(interface, active);
    let differs = differs
        | memo.protocol as u64 ^ protocol as u64
        | (memo.generation ^ active.generation as u32) as u64
        | memo.zone as u64 ^ zone as u64
        | (memo.key ^ key.fingerprint()) as u64;
    // The slot whole again, of which the entry has the lower half.
    let age = (slot as u32).wrapping_sub(memo.slot) as i32;
    let labelled_slot = slot.wrapping_sub(age as i64 as u64);
    if differs != 0 || !memo.is_young(slot) || !key.covers(labelled_slot) {
        return None;
    }
    if memo.flags() & memo_flag::REPORTS != 0 && !report::is_spent(memo.rule(), memo.reason()) {
        return None;
    }
    memo.set_used(true);
    Some(Recalled { memo, version, protocol })
}

/// Counts a packet and, where `reports` is not 0 and it would have been reported, the lost event.
#[inline(always)]
pub fn tell(reports: u8, verdict: &Verdict, place: &Place<'_>, mut cpu: Cpu) {
    report::count_verdict(place, verdict);
    if reports != 0 {
        cpu.events_lost_rate += 1;
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
    let is_v6 = memo.flags() & memo_flag::V6;
    let differs = differs | memo.addresses ^ addresses | is_v6 as u64;
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
    let is_v6 = memo.flags() & memo_flag::V6;
    let differs = differs
        | known[0] ^ addresses[0]
        | known[1] ^ addresses[1]
        | known[2] ^ addresses[2]
        | known[3] ^ addresses[3]
        | (is_v6 ^ memo_flag::V6) as u64;
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
