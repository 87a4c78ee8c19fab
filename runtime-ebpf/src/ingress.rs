//! A packet arrives: verify its label, decide.

use govc_abi::{
    attribute::{self, state},
    event::hook,
    flow::{Control, Memo, control_flag},
    image::{self, program},
    key::KeyEntry,
    label::{self, FLAG_REPLY, FLAG_RESERVED, FLAG_SEQ},
    mac,
    node::LEAF_NONE,
    reason,
    siphash::siphash24_64,
    walk::{self, Tables},
};

use crate::{
    decide::{self, Verdict},
    flows,
    maps::{self, Active, Cpu, Table},
    packet::has_ports,
    report::reports,
};

/// Decides a parsed packet that arrived in `zone`. The label, if any, is in `cpu.label`.
#[inline(always)]
pub fn decide(
    zone: u32,
    control: &Control,
    active: Active,
    slot: u64,
    table: Table,
    mut cpu: Cpu,
) -> Verdict {
    if cpu.packet.labelled == 0 {
        return decide_bare(zone, active, table, cpu);
    }
    let checked = match check(active, slot, table, cpu) {
        Ok(checked) => checked,
        Err(reason) => return Verdict::deny(reason),
    };
    let input = mac::input(&cpu.label, &cpu.packet.flow);
    if siphash24_64(checked.key.k0, checked.key.k1, input) != cpu.packet.mac {
        return Verdict::deny(reason::BAD_MAC);
    }
    let answers = cpu.label.flags() & FLAG_REPLY != 0;
    maps::clear_request(cpu);
    let label = cpu.label;
    walk::set_label(&mut cpu.request, state::VALID, checked.domain, &label);
    decide::set_packet(cpu);
    cpu.request.scalars[attribute::INGRESS_ZONE as usize] = zone;
    if answers && let Some(verdict) = reply(active, table, cpu) {
        return verdict;
    }
    let verdict = decide_request(active, table, false, cpu);
    if !answers && control.flags & control_flag::NO_MEMO == 0 {
        remember(&checked, zone, active, table, &verdict, cpu);
    }
    verdict
}

/// Keeps a decision for [`crate::recall`], which looks for established flows only.
#[inline(always)]
fn remember(
    checked: &Checked,
    zone: u32,
    active: Active,
    table: Table,
    verdict: &Verdict,
    cpu: Cpu,
) {
    if cpu.packet.syn != 0 || !has_ports(cpu.packet.flow.protocol) {
        return;
    }
    let Some(memo) = maps::memo(cpu.packet.mac) else { return };
    *memo = Memo {
        input: mac::input(&cpu.label, &cpu.packet.flow),
        mac: cpu.packet.mac,
        key: [checked.key.k0, checked.key.k1],
        generation: active.generation,
        zone,
        rule: verdict.rule,
        pending: verdict.pending,
        slots: checked.life + 2,
        slot: checked.slot,
        permit: verdict.permit as u8,
        reason: verdict.reason,
        key_index: checked.key_index,
        reports: reports(table, verdict, cpu) as u8,
        pad: [0; 4],
    };
}

/// Decides a packet without a label.
#[inline(always)]
fn decide_bare(zone: u32, active: Active, table: Table, mut cpu: Cpu) -> Verdict {
    maps::clear_request(cpu);
    decide::set_packet(cpu);
    cpu.request.scalars[attribute::INGRESS_ZONE as usize] = zone;
    let legacy = decide::outcome(table, program::LEGACY).winner;
    if legacy != LEAF_NONE {
        decide::set_template(table, legacy, state::LEGACY, cpu);
    }
    match reply(active, table, cpu) {
        Some(verdict) => verdict,
        None => decide_request(active, table, true, cpu),
    }
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

/// Permits the reply of a flow that this node has sent. A flow of an older generation is decided
/// again, as the policy of today decides its own direction.
#[inline(always)]
fn reply(active: Active, table: Table, cpu: Cpu) -> Option<Verdict> {
    let flow = flows::answered(hook::INGRESS, cpu)?;
    if (flow.bare != 0) == (cpu.packet.labelled != 0) {
        return None;
    }
    if flow.generation == active.generation {
        return Some(Verdict::permit(reason::REPLY, flow.rule));
    }
    let verdict = flows::decide_again(flow, table, program::EGRESS, cpu);
    if !verdict.permit {
        return None;
    }
    flow.rule = verdict.rule;
    flow.generation = active.generation;
    Some(Verdict::permit(reason::REPLY, verdict.rule))
}

/// What is known about a label before its MAC is.
struct Checked {
    /// Index of its domain.
    domain: u32,
    /// Its slot, counted from the Unix epoch.
    slot: u64,
    /// Slots that it is good for after its own.
    life: u32,
    /// Where the key stands that the MAC must be made with.
    key_index: u8,
    /// That key.
    key: &'static KeyEntry,
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
    let Some(keys) = maps::keys(active) else { return Err(reason::KEY_MISSING) };
    let epoch = slot >> (maps::epoch_shift(keys, domain) & 15);
    if epoch as u8 & 15 != label.epoch() {
        return Err(reason::EPOCH_MISMATCH);
    }
    let key_index = maps::key_index(domain, epoch);
    let key = maps::key(keys, key_index);
    if !key.covers(slot) {
        return Err(reason::KEY_MISSING);
    }
    Ok(Checked { domain, slot, life: life as u32, key_index, key })
}
