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
    let (domain, key) = match check(active, slot, table, cpu) {
        Ok(found) => found,
        Err(reason) => return Verdict::deny(reason),
    };
    let input = mac::input(&cpu.label, &cpu.packet.flow);
    let answers = cpu.label.flags() & FLAG_REPLY != 0;
    let memo = if answers || control.flags & control_flag::NO_MEMO != 0 {
        None
    } else {
        maps::memo(cpu.packet.mac)
    };
    if let Some(memo) = &memo
        && remembers(memo, &input, cpu.packet.mac, key, zone, active)
    {
        let scalars = &mut cpu.request.scalars;
        scalars[attribute::STATE as usize] = state::VALID;
        scalars[attribute::OBJECT as usize] = memo.object;
        return Verdict {
            permit: memo.permit != 0,
            reason: memo.reason,
            rule: memo.rule,
            pending: memo.pending,
        };
    }
    if siphash24_64(key.k0, key.k1, input) != cpu.packet.mac {
        return Verdict::deny(reason::BAD_MAC);
    }
    maps::clear_request(cpu);
    let label = cpu.label;
    walk::set_label(&mut cpu.request, state::VALID, domain, &label);
    decide::set_packet(cpu);
    cpu.request.scalars[attribute::INGRESS_ZONE as usize] = zone;
    if answers && let Some(verdict) = reply(active, table, cpu) {
        return verdict;
    }
    let verdict = decide_request(active, table, false, cpu);
    if let Some(memo) = memo {
        // What follows from the packet is computed again: it would not survive the walk in
        // registers.
        memo.input = mac::input(&cpu.label, &cpu.packet.flow);
        memo.mac = cpu.packet.mac;
        memo.key = [key.k0, key.k1];
        memo.generation = active.generation;
        memo.zone = zone;
        memo.object = cpu.request.scalars[attribute::OBJECT as usize];
        memo.rule = verdict.rule;
        memo.pending = verdict.pending;
        memo.permit = verdict.permit as u8;
        memo.reason = verdict.reason;
    }
    verdict
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

/// Whether a memory is about this very packet. All words are compared before the one branch.
#[inline(always)]
fn remembers(
    memo: &Memo,
    input: &[u64; 8],
    mac: u64,
    key: &KeyEntry,
    zone: u32,
    active: Active,
) -> bool {
    let mut differs = memo.mac ^ mac;
    differs |= memo.generation ^ active.generation;
    differs |= (memo.zone ^ zone) as u64;
    differs |= memo.key[0] ^ key.k0;
    differs |= memo.key[1] ^ key.k1;
    differs |= memo.input[0] ^ input[0];
    differs |= memo.input[1] ^ input[1];
    differs |= memo.input[2] ^ input[2];
    differs |= memo.input[3] ^ input[3];
    differs |= memo.input[4] ^ input[4];
    differs |= memo.input[5] ^ input[5];
    differs |= memo.input[6] ^ input[6];
    differs |= memo.input[7] ^ input[7];
    differs == 0
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

/// Checks of a label before its MAC, and the key that the MAC must be made with, with the index of
/// its domain.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
fn check(active: Active, now: u64, table: Table, cpu: Cpu) -> Result<(u32, &'static KeyEntry), u8> {
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
    let life = label.life() as u32;
    let most = table.header(image::AT_LIFE_MAX) & 15;
    if age > 1 << (if life < most { life } else { most }) {
        return Err(reason::SLOT_EXPIRED);
    }
    let slot = now.wrapping_sub(age as i64 as u64);
    let Some(keys) = maps::keys(active) else { return Err(reason::KEY_MISSING) };
    let epoch = slot >> (maps::epoch_shift(keys, domain) & 15);
    if epoch as u8 & 15 != label.epoch() {
        return Err(reason::EPOCH_MISMATCH);
    }
    let key = maps::key(keys, domain, epoch);
    if !key.covers(slot) {
        return Err(reason::KEY_MISSING);
    }
    Ok((domain, key))
}
