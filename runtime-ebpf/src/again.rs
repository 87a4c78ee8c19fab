//! A flow that was permitted under another image, or before a rule began or ended: what the policy of
//! now says of its own direction.
//!
//! A request is made of numbers of the image that decided it: its domains, zones and cgroup patterns, and
//! what its stamp, legacy and deliver rules said. Another image counts otherwise and may say otherwise, so
//! all of that is found anew, as it would be for the flow's next packet, by what the flow has shown:
//! interfaces, cgroup, declaration, the number of the domain. What the label itself says, and the
//! packet's headers, stay what they were.

use govc_abi::{
    attribute::{self, Request, SCOPE_NONE, SHAPE, SUBJECT, TIME, state},
    event::hook,
    image::{AT_CONSTRAINTS, AT_OBJECTS, AT_SHAPES, program},
    node::LEAF_NONE,
    translate::leads_elsewhere,
    walk::{self, Outcome, Tables},
};

use crate::{
    authority, decide, egress,
    maps::{self, Active, Cpu, Table},
    translate,
};

/// Decides the flow in `cpu.flow`, which was permitted at `hook`, by the generation in force: the rule that
/// permits it. The packet under decision, which answers it, stays what it is.
///
/// The caller walks, and a global function says what to walk next and what follows from it: below that there is no stack
/// left for a walk.
#[inline(always)]
pub fn decide_again(hook: u8, buffer: u32) -> Option<u32> {
    let mut step = govc_again(buffer, hook as u32, BEGIN, LEAF_NONE);
    let mut walks = 0;
    while walks < WALKS_MAX {
        if step & (PERMITTED | DENIED) != 0 {
            break;
        }
        let winner = decide::govc_walk(buffer, step as u32) as u32;
        step = govc_again(buffer, hook as u32, step as u32, winner);
        walks += 1;
    }
    (step & PERMITTED != 0).then_some(step as u32)
}

/// Programs that a flow is asked about: who it is from, whom it is for, whether it passes.
const WALKS_MAX: u32 = 3;
/// In the place of a program that was walked: nothing was yet.
const BEGIN: u32 = program::COUNT as u32;
/// Set in what [`govc_again`] answers when the flow is permitted; the rule is in the lower half.
const PERMITTED: u64 = 1 << 32;
/// Set when it is not.
const DENIED: u64 = 1 << 33;

/// What to walk next for the flow in `cpu.flow` after program `which` has named `winner`, or what became of
/// it. Meanwhile its request is the one under decision.
///
/// A global function, as [`decide::govc_walk`] is one: verified once, with a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_again(buffer: u32, hook: u32, which: u32, winner: u32) -> u64 {
    let Some(mut cpu) = maps::cpu() else { return DENIED };
    let active = Active { generation: 0, buffer };
    let Some(table) = Table::of(active) else { return DENIED };
    if which == BEGIN {
        cpu.flow.request.scalars[TIME as usize] = cpu.request.scalars[TIME as usize];
        exchange(cpu);
    }
    // Rules write labels where that of the answer is.
    let label = cpu.label;
    let next = if hook as u8 == hook::EGRESS {
        leaves(which, winner, active, table, cpu)
    } else {
        arrives(hook as u8, (which, winner), active, table, cpu)
    };
    cpu.label = label;
    let answer = match next {
        Some(program) if program != which => return program as u64,
        // It was the last one.
        Some(_) => {
            let outcome = Outcome { winner, pending: LEAF_NONE };
            let verdict = decide::verdict(table, which, outcome, cpu);
            if verdict.permit { PERMITTED | verdict.rule as u64 } else { DENIED }
        }
        None => DENIED,
    };
    exchange(cpu);
    answer
}

/// What comes after program `which` for a flow that arrives here, or that passes through; the same one when
/// nothing does, and [`None`] when the flow is no longer what it was.
#[inline(always)]
fn arrives(
    hook: u8,
    (which, winner): (u32, u32),
    active: Active,
    table: Table,
    mut cpu: Cpu,
) -> Option<u32> {
    let way = cpu.flow.way;
    match which {
        BEGIN => {
            let zone = zone(way.entered, active);
            begin(zone, 0, table, cpu)?;
            if cpu.flow.bare != 0 {
                forget_label(cpu);
                return Some(program::LEGACY);
            }
            is_known(active, table, cpu)?;
            if !translate::translates(table) {
                return Some(program::DELIVER);
            }
            cpu.request.scalars[attribute::EGRESS_ZONE as usize] = zone;
            Some(program::TRANSLATE)
        }
        program::LEGACY => {
            if winner != LEAF_NONE {
                decide::write_label(table, winner, state::LEGACY, cpu);
            }
            Some(program::DELIVER)
        }
        program::TRANSLATE => {
            cpu.request.scalars[attribute::EGRESS_ZONE as usize] = 0;
            // No label of its domain can come in by its zone.
            let is_foreign = winner != LEAF_NONE && leads_elsewhere(&table, winner);
            if is_foreign { None } else { Some(program::DELIVER) }
        }
        program::DELIVER if hook == hook::FORWARD => {
            let zone = zone(way.leaves, active);
            cpu.request.scalars[attribute::EGRESS_ZONE as usize] = zone;
            // What is for a workload here does not pass through.
            if winner == LEAF_NONE { Some(program::FORWARD) } else { None }
        }
        program::DELIVER => {
            if winner != LEAF_NONE {
                let at = table.header(AT_OBJECTS).wrapping_add(winner);
                cpu.request.scalars[attribute::OBJECT as usize] = table.word(at);
            }
            Some(program::INGRESS)
        }
        which => Some(which),
    }
}

/// Likewise for a flow that leaves from here.
#[inline(always)]
fn leaves(which: u32, winner: u32, active: Active, table: Table, mut cpu: Cpu) -> Option<u32> {
    let way = cpu.flow.way;
    let bare = cpu.flow.bare != 0;
    match which {
        BEGIN => {
            begin(zone(way.leaves, active), 0, table, cpu)?;
            forget_label(cpu);
            turn(cpu);
            Some(program::LEGACY)
        }
        program::LEGACY => {
            turn(cpu);
            // The answer came in the way that packets of the flow used to travel.
            if bare != (winner != LEAF_NONE) {
                return None;
            }
            let cgroup = if egress::wants_cgroup(table) { way.cgroup } else { 0 };
            let pattern = if cgroup != 0 { maps::cgroup_pattern(cgroup, active) } else { 0 };
            begin(maps::zone_entered(way.entered, active), zone(way.leaves, active), table, cpu)?;
            cpu.request.scalars[attribute::CGROUP as usize] = pattern;
            Some(program::STAMP)
        }
        program::STAMP => {
            let how = egress::Stamping { declared: cpu.flow.declared, bare, slot: cpu.slot };
            let (domain, _) = egress::stamp(winner, how, active, table, cpu).ok()?;
            if !bare {
                authority::granted(active.buffer, domain, cpu.label.grant()).ok()?;
            }
            Some(program::EGRESS)
        }
        which => Some(which),
    }
}

/// Puts the flow between two zones; [`None`] for packets of a shape that the policy does not speak of, which it
/// would not look at.
#[inline(always)]
fn begin(from_zone: u32, zone: u32, table: Table, mut cpu: Cpu) -> Option<()> {
    let scalars = &mut cpu.request.scalars;
    scalars[attribute::INGRESS_ZONE as usize] = from_zone;
    scalars[attribute::EGRESS_ZONE as usize] = zone;
    scalars[attribute::CGROUP as usize] = 0;
    scalars[attribute::OBJECT as usize] = SCOPE_NONE;
    if scalars[SHAPE as usize] & !table.header(AT_SHAPES) == 0 { Some(()) } else { None }
}

/// Exchanges source and destination: legacy rules speak of neighbours, whichever way packets go.
#[inline(always)]
fn turn(mut cpu: Cpu) {
    let request = &mut cpu.request;
    core::mem::swap(&mut request.source, &mut request.destination);
}

/// The label of the flow still means something. Its MAC was verified when the flow was remembered; its domain may
/// have another index by now.
#[inline(always)]
fn is_known(active: Active, table: Table, mut cpu: Cpu) -> Option<()> {
    let domain = walk::domain_index(&table, cpu.flow.domain)?;
    let scalars = &mut cpu.request.scalars;
    scalars[SUBJECT as usize] = attribute::scope_key(domain, scalars[SUBJECT as usize]);
    let known = table.word(AT_CONSTRAINTS + domain);
    if scalars[attribute::CONSTRAINTS as usize] & !known != 0 {
        return None;
    }
    // Its grant may have been taken back in this generation: then there is nothing to answer.
    authority::granted(active.buffer, domain, cpu.flow.grant).ok()
}

/// Makes the request one about nobody, before a rule says whom it is about.
#[inline(always)]
fn forget_label(mut cpu: Cpu) {
    let scalars = &mut cpu.request.scalars;
    let mut attribute = attribute::STATE;
    while attribute <= attribute::OBJECT {
        scalars[attribute as usize] = 0;
        attribute += 1;
    }
    scalars[SUBJECT as usize] = SCOPE_NONE;
    scalars[attribute::OBJECT as usize] = SCOPE_NONE;
}

/// Zone of the interface with an index.
#[inline(always)]
fn zone(ifindex: u32, active: Active) -> u32 {
    if ifindex == 0 {
        return 0;
    }
    maps::interface(ifindex).map_or(0, |interface| maps::zone(interface, active))
}

/// Exchanges the two requests of this CPU word by word: the compiler would put one on the stack, which is too
/// small for it.
#[inline(always)]
fn exchange(mut cpu: Cpu) {
    let memory = &mut *cpu;
    let (one, other) = (&raw mut memory.request, &raw mut memory.flow.request);
    let (one, other) = (one.cast::<u64>(), other.cast::<u64>());
    let mut index = 0;
    while index < size_of::<Request>() / 8 {
        // SAFETY: inside the values, which are aligned to 8 bytes.
        unsafe {
            let (a, b) = (one.add(index), other.add(index));
            let word = core::ptr::read_volatile(a);
            core::ptr::write_volatile(a, core::ptr::read_volatile(b));
            core::ptr::write_volatile(b, word);
        }
        index += 1;
    }
}
