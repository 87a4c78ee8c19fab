//! A packet leaves: choose its subject and label, decide, compute the MAC.

use govc_abi::{
    attribute::{self, state},
    event::hook,
    image::program,
    label::{FLAG_REPLY, VERSION},
    mac,
    node::LEAF_NONE,
    reason,
    walk::Tables,
};

use crate::{
    decide::{self, Verdict},
    flows,
    maps::{self, Active, Cpu, Table},
};

/// What is known about a leaving packet besides its bytes.
pub struct Origin {
    /// Zone of the interface that it leaves by.
    pub zone: u32,
    /// Zone of the interface that it came in by; 0 for local traffic.
    pub from_zone: u32,
    /// Cgroup id of the sending socket; 0 for none.
    pub cgroup: u64,
}

/// How a permitted packet leaves.
#[derive(Clone, Copy)]
pub enum Carriage {
    /// Without a label: the destination is a legacy neighbour.
    Bare,
    /// With the label in `cpu.label` and this MAC.
    Label(u64),
}

/// Decides a parsed packet.
#[inline(always)]
pub fn decide(
    origin: &Origin,
    active: Active,
    slot: u64,
    table: Table,
    mut cpu: Cpu,
) -> (Verdict, Carriage) {
    maps::clear_request(cpu);
    decide::set_packet(cpu);
    if cpu.packet.labelled != 0 {
        return (Verdict::deny(reason::LABEL_FORGED), Carriage::Bare);
    }
    let bare = is_legacy_neighbour(origin, table, cpu);
    let scalars = &mut cpu.request.scalars;
    scalars[attribute::EGRESS_ZONE as usize] = origin.zone;
    scalars[attribute::INGRESS_ZONE as usize] = origin.from_zone;
    if origin.cgroup != 0 {
        scalars[attribute::CGROUP as usize] = maps::cgroup_pattern(origin.cgroup, active);
    }
    let stamp = decide::outcome(table, program::STAMP).winner;
    if stamp == LEAF_NONE {
        return (Verdict::deny(reason::NO_SUBJECT), Carriage::Bare);
    }
    let domain = decide::set_template(table, stamp, state::VALID, cpu);
    let (verdict, flags) = match reply(active, table, bare, cpu) {
        Some(verdict) => (verdict, FLAG_REPLY),
        None => (decide::decide(table, program::EGRESS, cpu), 0),
    };
    if !verdict.permit || bare {
        if verdict.permit && flags == 0 {
            flows::remember(hook::EGRESS, active, verdict.rule, true, cpu);
        }
        return (verdict, Carriage::Bare);
    }
    match seal(active, slot, domain, flags, cpu) {
        Ok(mac) => {
            if flags == 0 {
                flows::remember(hook::EGRESS, active, verdict.rule, false, cpu);
            }
            (verdict, Carriage::Label(mac))
        }
        Err(reason) => (Verdict::deny(reason), Carriage::Bare),
    }
}

/// Whether a legacy rule speaks for the destination: such neighbours get no labels either.
#[inline(always)]
fn is_legacy_neighbour(origin: &Origin, table: Table, mut cpu: Cpu) -> bool {
    let source = cpu.request.source;
    cpu.request.source = cpu.request.destination;
    cpu.request.scalars[attribute::INGRESS_ZONE as usize] = origin.zone;
    let winner = decide::outcome(table, program::LEGACY).winner;
    cpu.request.source = source;
    winner != LEAF_NONE
}

/// Permits the reply of a flow that was permitted on its way in; see [`crate::ingress`].
#[inline(always)]
fn reply(active: Active, table: Table, bare: bool, cpu: Cpu) -> Option<Verdict> {
    let flow = flows::answered(hook::EGRESS, cpu)?;
    if (flow.bare != 0) != bare {
        return None;
    }
    if flow.generation == active.generation {
        return Some(Verdict::permit(reason::REPLY, flow.rule));
    }
    let verdict = flows::decide_again(flow, table, program::INGRESS, cpu);
    if !verdict.permit {
        return None;
    }
    flow.rule = verdict.rule;
    flow.generation = active.generation;
    Some(Verdict::permit(reason::REPLY, verdict.rule))
}

/// Completes `cpu.label` for this slot and computes its MAC.
///
/// # Errors
/// The reason to drop the packet: without a key nothing leaves.
#[inline(always)]
fn seal(active: Active, slot: u64, domain: u32, flags: u8, mut cpu: Cpu) -> Result<u64, u8> {
    let Some(keys) = maps::keys(active) else { return Err(reason::KEY_MISSING) };
    let epoch = slot >> (maps::epoch_shift(keys, domain) & 15);
    let key = maps::key(keys, maps::key_index(domain, epoch));
    if !key.covers(slot) {
        return Err(reason::KEY_MISSING);
    }
    let label = cpu
        .label
        .with_version(VERSION)
        .with_flags(flags)
        .with_epoch(epoch as u8)
        .with_slot(slot as u16);
    cpu.label = label;
    Ok(mac::mac(key.k0, key.k1, &label, &cpu.packet.flow))
}

/// Whether the STAMP program looks at cgroups: the lookup is saved when it does not.
#[inline(always)]
pub fn wants_cgroup(table: Table) -> bool {
    let at = govc_abi::image::AT_PROGRAMS
        + program::STAMP * govc_abi::image::PROGRAM_WORDS
        + govc_abi::image::PROGRAM_ATTRIBUTES;
    table.word(at) & 1 << attribute::CGROUP != 0
}
