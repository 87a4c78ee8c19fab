//! A packet arrives: verify its label, decide.

use govc_abi::{
    attribute::{self, Request, state},
    event::hook,
    image::{self, program},
    label::{self, FLAG_REPLY, FLAG_RESERVED, FLAG_SEQ, Label},
    mac,
    node::LEAF_NONE,
    reason,
    walk::{self, Tables},
};

use crate::{
    decide::{self, Verdict},
    flows,
    maps::{self, Active, Cpu, Table},
};

/// Decides a parsed packet that arrived in `zone`. The label, if any, is in `cpu.label`.
#[inline(always)]
pub fn decide(zone: u32, active: Active, slot: u64, table: Table, mut cpu: Cpu) -> Verdict {
    cpu.request = Request::EMPTY;
    decide::set_packet(cpu);
    cpu.request.scalars[attribute::INGRESS_ZONE as usize] = zone;
    let flags = if cpu.packet.labelled != 0 {
        match verify(active, slot, table, cpu) {
            Ok(domain) => {
                let label = cpu.label;
                walk::set_label(&mut cpu.request, state::VALID, domain, &label);
            }
            Err(reason) => return Verdict::deny(reason),
        }
        cpu.label.flags()
    } else {
        let legacy = decide::outcome(table, program::LEGACY).winner;
        cpu.label = Label::default();
        if legacy != LEAF_NONE {
            decide::set_template(table, legacy, state::LEGACY, cpu);
        }
        0
    };
    if (cpu.packet.labelled == 0 || flags & FLAG_REPLY != 0)
        && let Some(verdict) = reply(active, table, cpu)
    {
        return verdict;
    }
    let object = decide::outcome(table, program::DELIVER).winner;
    if object != LEAF_NONE {
        let at = table.word(image::AT_OBJECTS).wrapping_add(object);
        cpu.request.scalars[attribute::OBJECT as usize] = table.word(at);
    }
    let verdict = decide::decide(table, program::INGRESS, cpu);
    if verdict.permit {
        flows::remember(hook::INGRESS, active, verdict.rule, cpu.packet.labelled == 0, cpu);
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

/// Verifies a label: cheap checks first, the MAC last.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
fn verify(active: Active, now: u64, table: Table, cpu: Cpu) -> Result<u32, u8> {
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
    let most = table.word(image::AT_LIFE_MAX) & 15;
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
    if mac::mac(key.k0, key.k1, label, &cpu.packet.flow) != cpu.packet.mac {
        return Err(reason::BAD_MAC);
    }
    Ok(domain)
}
