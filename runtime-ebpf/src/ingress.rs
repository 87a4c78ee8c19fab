//! A packet arrives: verify its label, decide.

use core::ffi::c_void;

use govc_abi::{
    attribute::{self, state},
    event::hook,
    flow::{self, Way, quote},
    image::{self, program},
    key::fingerprint,
    label::{self, FLAG_REPLY, FLAG_RESERVED, FLAG_SEQ},
    mac,
    memory::{Memo, memo_flag},
    node::LEAF_NONE,
    reason,
    siphash::siphash24_64,
    walk::{self, Tables},
};

use crate::{
    authority::{self, EpochKey},
    decide::{self, Verdict},
    egress::Carriage,
    flows, forward,
    maps::{self, Active, Cpu, Table},
    recall,
    report::may_report,
    translate::{self, Flow},
};

/// Where a packet has arrived.
pub struct Arrival {
    /// The hook's context.
    pub context: *mut c_void,
    /// Index of the interface.
    pub ifindex: u32,
    /// Its zone.
    pub zone: u32,
    /// The slot that it is.
    pub slot: u64,
}

/// Decides a parsed packet that arrived. The label, if any, is in `cpu.label`.
#[inline(always)]
pub fn decide(arrival: &Arrival, active: Active, table: Table, mut cpu: Cpu) -> Verdict {
    cpu.way = Way { entered: arrival.ifindex, leaves: 0, cgroup: 0 };
    if cpu.packet.labelled == 0 {
        return decide_bare(arrival, active, table, cpu);
    }
    let forwards = decide::forwards(table);
    if forwards
        && let Some((verdict, zone)) = recall::transit(arrival.zone, active, cpu)
        && forward::route(arrival.context, arrival.ifindex, active, cpu) == Some(zone)
    {
        return verdict;
    }
    if let Err(reason) = verified(arrival.zone, false, active, arrival.slot, table, cpu) {
        return Verdict::deny(reason);
    }
    let answers = cpu.label.flags() & FLAG_REPLY != 0;
    // Where routes decide that it is for this node, they are asked each time.
    let lead = if forwards { lead(arrival, active, table, cpu) } else { Lead::Delivered };
    let lasts = !matches!(lead, Lead::Here);
    if let Lead::On(zone) = lead {
        let verdict = forward::decide(zone, answers, active, table, cpu);
        if verdict.permit && translate::readdresses(table) {
            translate::govc_note_label(active.generation);
        }
        remember_transit(arrival.zone, active, table, &verdict, cpu);
        return verdict;
    }
    // Addresses of this node may stand for those of others, whose replies come to it.
    if answers
        && translate::readdresses(table)
        && let Some(verdict) = flows::reply(hook::FORWARD, false, active, cpu)
    {
        translate::govc_note_label(active.generation);
        return Verdict { transit: true, ..verdict };
    }
    if answers && let Some(verdict) = flows::reply(hook::INGRESS, false, active, cpu) {
        if lasts {
            remember(arrival.zone, active, &verdict);
        }
        return verdict;
    }
    let verdict = decide_request(active, table, false, cpu);
    if lasts && !answers {
        remember(arrival.zone, active, &verdict);
    }
    verdict
}

/// Checks label and MAC, and makes the packet a request that came in by `zone`.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
fn verified(
    zone: u32,
    leaves: bool,
    active: Active,
    slot: u64,
    table: Table,
    mut cpu: Cpu,
) -> Result<Flow, u8> {
    let checked = check(active, slot, table, cpu)?;
    cpu.checked = flow::Checked {
        slot: checked.slot,
        key: fingerprint(checked.key.words),
        life: checked.life as u16,
        key_index: checked.key.index as u16,
    };
    let [k0, k1] = checked.key.of_sender(&cpu.label)?;
    let input = mac::input(&cpu.label, &cpu.packet.flow);
    let mut flow = Flow::Same;
    if siphash24_64(k0, k1, input) != cpu.packet.mac {
        // What leaves was verified where it came in, if that is an interface that is enforced on.
        let noted = leaves
            && zone != 0
            && translate::readdresses(table)
            && translate::govc_is_noted(active.generation) != 0;
        if !noted {
            return Err(reason::BAD_MAC);
        }
        flow = Flow::Other;
    }
    maps::clear_request(cpu);
    let label = cpu.label;
    walk::set_label(&mut cpu.request, state::VALID, checked.domain, &label);
    decide::set_packet(table, slot, cpu);
    cpu.request.scalars[attribute::INGRESS_ZONE as usize] = zone;
    if translate::translates(table) && translate::is_foreign(zone, table, cpu) {
        return Err(reason::DOMAIN_FOREIGN);
    }
    Ok(flow)
}

/// Decides a labelled packet that leaves by a zone after it came in by another, and how it leaves.
#[inline(always)]
pub fn decide_transit(
    (from_zone, zone): (u32, u32),
    active: Active,
    slot: u64,
    table: Table,
    cpu: Cpu,
) -> (Verdict, Carriage) {
    if let Some((verdict, known)) = recall::transit(from_zone, active, cpu)
        && known == zone
    {
        return (verdict, Carriage::Bare);
    }
    let flow = match verified(from_zone, true, active, slot, table, cpu) {
        Ok(verified) => verified,
        Err(reason) => return (Verdict::deny(reason), Carriage::Bare),
    };
    let answers = cpu.label.flags() & FLAG_REPLY != 0;
    let verdict = forward::decide(zone, answers, active, table, cpu);
    if verdict.permit && translate::translates(table) {
        return translate::leave(verdict, flow, cpu.checked.slot, table, cpu);
    }
    remember_transit(from_zone, active, table, &verdict, cpu);
    (verdict, Carriage::Bare)
}

/// Where a packet that arrives goes.
enum Lead {
    /// Through this node: it leaves by this zone.
    On(u32),
    /// To a workload that this node delivers to, or anywhere, where no policy asks.
    Delivered,
    /// To this node itself, by the routes of now.
    Here,
}

#[inline(always)]
fn lead(arrival: &Arrival, active: Active, table: Table, cpu: Cpu) -> Lead {
    if decide::outcome(table, program::DELIVER).winner != LEAF_NONE {
        return Lead::Delivered;
    }
    match forward::route(arrival.context, arrival.ifindex, active, cpu) {
        Some(zone) => Lead::On(zone),
        None => Lead::Here,
    }
}

/// Keeps a decision about a packet that passes through, for the hook where it comes in and for the one where it
/// leaves: both decide alike. What happens to labels and addresses on the way is found out for each packet.
#[inline(always)]
fn remember_transit(zone: u32, active: Active, table: Table, verdict: &Verdict, cpu: Cpu) {
    let translated = translate::translates(table) || translate::readdresses(table);
    // What is marked as an answer, and answers nothing yet, may do so with the next packet.
    let answers = cpu.label.flags() & FLAG_REPLY != 0;
    // The hook where it leaves does not ask for whom it is, should nobody have asked before; the other one would.
    let delivered = decide::outcome(table, program::DELIVER).winner != LEAF_NONE;
    if !translated && !delivered && (!answers || verdict.reason == reason::REPLY) {
        remember(zone, active, verdict);
    }
}

/// Keeps a decision about a packet that came in by `zone` for [`crate::recall`], which looks for established flows
/// only.
#[inline(always)]
fn remember(zone: u32, active: Active, verdict: &Verdict) {
    let permit = verdict.permit as u32 | (verdict.transit as u32) << 1;
    let how = zone & 0xff | (verdict.reason as u32) << 8 | permit << 16;
    let active = active.generation << 1 | active.buffer as u64;
    govc_keep(active, verdict.rule, verdict.pending, how);
}

/// [`remember`]; a global function, as [`decide::govc_walk`] is one: hooks keep decisions in several places.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_keep(active: u64, rule: u32, pending: u32, how: u32) -> u32 {
    let active = Active { generation: active >> 1, buffer: active as u32 & 1 };
    let [zone, reason, permit, _] = how.to_le_bytes();
    let verdict =
        Verdict { permit: permit & 1 != 0, reason, rule, pending, transit: permit & 2 != 0 };
    keep(active, &verdict, zone).is_some() as u32
}

#[inline(always)]
fn keep(active: Active, verdict: &Verdict, zone: u8) -> Option<()> {
    let cpu = maps::cpu()?;
    let (control, _) = maps::control()?;
    let table = Table::of(active)?;
    if !recall::is_kept(control, table, verdict, cpu) {
        return None;
    }
    let (key_index, key) = (cpu.checked.key_index as u8, cpu.checked.key);
    let (slot, memo) = maps::memo_to_write(cpu.packet.mac, active, cpu.slot)?;
    // The flow that a reply answers has been heard of in this slot, and is asked for again in the next.
    let ends_slot = if verdict.reason == reason::REPLY {
        cpu.slot + 1
    } else {
        authority::ends_slot(control, active)
    };
    // Not beyond the next moment at which a rule begins or ends, nor the end of the generation.
    let past = cpu.request.scalars[attribute::TIME as usize];
    let next = walk::next_time(&table, past);
    let next = if ends_slot < next { ends_slot } else { next };
    let left = next.wrapping_sub(cpu.checked.slot).wrapping_add(1);
    let life = cpu.checked.life as u64 + 2;
    let slots = if left < life { left } else { life };
    let (w0, w1, tail) = cpu.label.wire_words();
    let flow = &cpu.packet.flow;
    let mut flags = memo_flag::USED;
    if verdict.permit {
        flags |= memo_flag::PERMIT;
    }
    if may_report(table, verdict, cpu) {
        flags |= memo_flag::REPORTS;
    }
    let mut leaves_by = 0;
    if verdict.transit {
        flags |= memo_flag::TRANSIT;
        leaves_by = cpu.request.scalars[attribute::EGRESS_ZONE as usize] & 0xff;
    }
    let mut addresses = flow.source[1] >> 32 | flow.destination[1] & 0xffff_ffff_0000_0000;
    if cpu.packet.version == 6 {
        let whole = maps::memo_v6_to_write(slot)?;
        [whole[0], whole[1]] = flow.source;
        [whole[2], whole[3]] = flow.destination;
        flags |= memo_flag::V6;
        addresses = 0;
    }
    *memo = Memo {
        body: [w0, w1],
        mac: cpu.packet.mac,
        addresses,
        tail,
        ports: flow.source_port as u32 | (flow.destination_port as u32) << 16,
        decided: Memo::decided(active.generation, leaves_by),
        key,
        slot: cpu.checked.slot as u32,
        rule: Memo::numbered(verdict.rule, verdict.reason),
        pending: Memo::numbered(verdict.pending, flags),
        slots: if slots < u8::MAX as u64 { slots as u8 } else { u8::MAX },
        key_index,
        zone,
        protocol: cpu.packet.flow.protocol,
    };
    Some(())
}

/// Decides a packet without a label.
#[inline(always)]
fn decide_bare(arrival: &Arrival, active: Active, table: Table, mut cpu: Cpu) -> Verdict {
    vouch(active, arrival.slot, cpu);
    maps::clear_request(cpu);
    decide::set_packet(table, arrival.slot, cpu);
    cpu.request.scalars[attribute::INGRESS_ZONE as usize] = arrival.zone;
    let legacy = decide::outcome(table, program::LEGACY).winner;
    if legacy != LEAF_NONE {
        decide::write_label(table, legacy, state::LEGACY, cpu);
    }
    if decide::forwards(table)
        && let Lead::On(zone) = lead(arrival, active, table, cpu)
    {
        return forward::decide(zone, false, active, table, cpu);
    }
    let bare = cpu.packet.vouched == 0;
    match flows::reply(hook::INGRESS, bare, active, cpu) {
        Some(verdict) => verdict,
        None => decide_request(active, table, true, cpu),
    }
}

/// Notes whether a bare ICMP error quotes a label that holds: routers that know nothing of labels
/// tell senders of labelled packets what is wrong with these.
#[inline(always)]
pub fn vouch(active: Active, slot: u64, mut cpu: Cpu) {
    if cpu.packet.error >= quote::LABELLED && cpu.packet.labelled == 0 {
        cpu.packet.vouched = govc_quote_holds(active.buffer, slot) as u8;
        maps::clear(&raw mut cpu.label);
    }
}

/// Whether the label that the ICMP error in `cpu` quotes was made for the packet that it quotes, and
/// whether it was sent to the sender of that.
///
/// A global function, as [`decide::govc_walk`] is one: verified once, with a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_quote_holds(buffer: u32, slot: u64) -> u32 {
    let Some(cpu) = maps::cpu() else { return 0 };
    let Some(table) = Table::of_buffer(buffer) else { return 0 };
    if cpu.packet.quoted.source != cpu.packet.flow.destination {
        return 0;
    }
    let active = Active { generation: 0, buffer };
    let Ok(checked) = check(active, slot, table, cpu) else { return 0 };
    let Ok([k0, k1]) = checked.key.of_sender(&cpu.label) else { return 0 };
    let input = mac::input(&cpu.label, &cpu.packet.quoted);
    (siphash24_64(k0, k1, input) == cpu.packet.mac) as u32
}

/// Finds the object and asks the policy.
#[inline(always)]
fn decide_request(active: Active, table: Table, bare: bool, mut cpu: Cpu) -> Verdict {
    let object = decide::outcome(table, program::DELIVER).winner;
    if object != LEAF_NONE {
        let at = table.header(image::AT_OBJECTS).wrapping_add(object);
        cpu.request.scalars[attribute::OBJECT as usize] = table.word(at);
    }
    let verdict = decide::decide(table, program::INGRESS, cpu);
    if verdict.permit {
        flows::remember(hook::INGRESS, active, verdict.rule, bare, cpu);
    }
    verdict
}

/// What is known about a label before its MAC is.
struct Checked {
    /// Index of its domain.
    domain: u32,
    /// Its slot, counted from the Unix epoch.
    slot: u64,
    /// Slots that it is good for after its own.
    life: u32,
    /// The key that the MAC must be made with, or that gives it.
    key: EpochKey,
}

/// Checks of a label before its MAC.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
fn check(active: Active, now: u64, table: Table, cpu: Cpu) -> Result<Checked, u8> {
    let label = &cpu.label;
    if label.version() != label::VERSION || label.flags() & (FLAG_RESERVED | FLAG_SEQ) != 0 {
        return Err(reason::VERSION);
    }
    let Some(domain) = walk::domain_index(&table, label.domain()) else {
        return Err(reason::DOMAIN_UNKNOWN);
    };
    let known = table.word(image::AT_CONSTRAINTS + domain);
    if label.constraints() as u32 & !known != 0 {
        return Err(reason::CONSTRAINT_UNKNOWN);
    }
    let age = label::age(now, label.slot());
    if age < -1 {
        return Err(reason::SLOT_FUTURE);
    }
    let wanted = label.life() as u32;
    let most = table.header(image::AT_LIFE_MAX) & 15;
    let life = 1 << (if wanted < most { wanted } else { most });
    if age > life {
        return Err(reason::SLOT_EXPIRED);
    }
    let slot = now.wrapping_sub(age as i64 as u64);
    authority::granted(active.buffer, domain, label.grant())?;
    let Some(keys) = maps::keys(active) else { return Err(reason::KEY_MISSING) };
    let epoch = slot >> (maps::epoch_shift(keys, domain) & 15);
    if epoch as u8 & 15 != label.epoch() {
        return Err(reason::EPOCH_MISMATCH);
    }
    let key = authority::epoch_key(keys, domain, epoch, slot)?;
    Ok(Checked { domain, slot, life: life as u32, key })
}
