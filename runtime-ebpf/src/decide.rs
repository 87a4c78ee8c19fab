//! From a request to a verdict.

use govc_abi::{
    attribute,
    image::{self, program, rule},
    node::{LEAF, LEAF_NONE},
    reason,
    walk::{self, Outcome, Tables},
};

use crate::{
    maps::{self, Active, Cpu, Table},
    packet::{has_ports, icmp},
    shape,
};

/// What becomes of a packet, and why.
#[derive(Clone, Copy)]
pub struct Verdict {
    /// Let it through.
    pub permit: bool,
    /// One of [`reason`].
    pub reason: u8,
    /// The rule that decided; [`LEAF_NONE`] for none.
    pub rule: u32,
    /// The rule in observe mode that would have decided; [`LEAF_NONE`] for none.
    pub pending: u32,
    /// The packet passes through this node: its label stays.
    pub transit: bool,
}

impl Verdict {
    /// Dropped before any rule was asked.
    #[inline(always)]
    pub const fn deny(reason: u8) -> Self {
        Self { permit: false, reason, rule: LEAF_NONE, pending: LEAF_NONE, transit: false }
    }

    /// The verdict, if what it asks for was done; a packet that cannot be stripped is dropped.
    #[inline(always)]
    pub fn carried_out(self, done: bool) -> Self {
        if done { self } else { Self::deny(reason::HELPER_FAILED) }
    }

    /// Notes it, for [`Self::noted`].
    #[inline(always)]
    pub fn note(self, mut cpu: Cpu) {
        let flags = self.permit as u64 | (self.transit as u64) << 1 | (self.reason as u64) << 8;
        let rules = self.rule as u64 | (self.pending as u64) << 32;
        cpu.verdict = [flags, rules];
    }

    /// What was noted last.
    #[inline(always)]
    pub fn noted(cpu: Cpu) -> Self {
        let [flags, rules] = cpu.verdict;
        Self {
            permit: flags & 1 != 0,
            reason: (flags >> 8) as u8,
            rule: rules as u32,
            pending: (rules >> 32) as u32,
            transit: flags & 2 != 0,
        }
    }

    /// Let through without asking a rule.
    #[inline(always)]
    pub const fn permit(reason: u8, rule: u32) -> Self {
        Self { permit: true, reason, rule, pending: LEAF_NONE, transit: false }
    }
}

/// Forgets the packet before. What is known of this one before it is read are the zones that it comes in by
/// and leaves by, 0 for none: they are told of those that are refused too.
#[inline(always)]
pub fn begin((from_zone, zone): (u32, u32), mut cpu: Cpu) {
    maps::clear(&raw mut cpu.label);
    maps::clear(&raw mut cpu.packet);
    let scalars = &mut cpu.request.scalars;
    scalars[attribute::STATE as usize] = attribute::state::ABSENT;
    scalars[attribute::OBJECT as usize] = attribute::SCOPE_NONE;
    scalars[attribute::INGRESS_ZONE as usize] = from_zone;
    scalars[attribute::EGRESS_ZONE as usize] = zone;
}

/// Walks one program over this CPU's request: the winner, and the pending rule in the upper half.
///
/// A global function: the kernel's verifier looks at it once by itself, with unknown arguments,
/// instead of once for every state in which a hook may call it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_walk(buffer: u32, which: u32) -> u64 {
    let none = (LEAF_NONE as u64) << 32 | LEAF_NONE as u64;
    let Some(table) = Table::of_buffer(buffer) else { return none };
    let Some(mut cpu) = maps::cpu() else { return none };
    let cpu = &mut *cpu;
    if which >= program::COUNT as u32 {
        return none;
    }
    let outcome = walk::walk(&table, which, &cpu.request, &mut cpu.classes);
    (outcome.pending as u64) << 32 | outcome.winner as u64
}

/// Follows one diagram with this CPU's class numbers; a global function for the same reason.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_descend(buffer: u32, entry: u32) -> u32 {
    let Some(table) = Table::of_buffer(buffer) else { return LEAF_NONE };
    let Some(cpu) = maps::cpu() else { return LEAF_NONE };
    walk::descend(&table, entry, &cpu.classes)
}

/// [`govc_walk`] with its answer unpacked. Programs that say the same for every packet, as many
/// policies' DELIVER and LEGACY do, are not worth a call.
#[inline(always)]
pub fn outcome(table: Table, which: u32) -> Outcome {
    let at = image::AT_PROGRAMS + which * image::PROGRAM_WORDS;
    let parts = table.word(at + image::PROGRAM_PARTS);
    let root = table.word(at + image::PROGRAM_PART);
    if which < program::INGRESS && (parts == 0 || parts == 1 && root & LEAF != 0) {
        let winner = if parts == 0 { LEAF_NONE } else { root & LEAF_NONE };
        return Outcome { winner, pending: LEAF_NONE };
    }
    let packed = govc_walk(table.buffer(), which);
    Outcome { winner: packed as u32, pending: (packed >> 32) as u32 }
}

/// Decides the request in `cpu` by the policy of a hook.
#[inline(always)]
pub fn decide(table: Table, which: u32, cpu: Cpu) -> Verdict {
    verdict(table, which, outcome(table, which), cpu)
}

/// What follows from the outcome of a hook's policy for the request in `cpu`.
#[inline(always)]
pub fn verdict(table: Table, which: u32, outcome: Outcome, cpu: Cpu) -> Verdict {
    let (permit, reason) = if outcome.winner != LEAF_NONE {
        let record = rule_record(table, outcome.winner);
        (record & rule::ACTION_MASK == rule::PERMIT, reason::RULE)
    } else if cpu.request.scalars[attribute::SHAPE as usize] != 0 {
        (false, shape::reason(cpu.request.scalars[attribute::SHAPE as usize]))
    } else if cpu.request.scalars[attribute::STATE as usize] == attribute::state::ABSENT {
        (false, reason::LABEL_MISSING)
    } else {
        let at = image::AT_PROGRAMS + which * image::PROGRAM_WORDS + image::PROGRAM_FLAGS;
        let governed = table.word(at) & image::PROGRAM_GOVERNED != 0;
        (!governed, if governed { reason::NO_RULE } else { reason::UNGOVERNED })
    };
    let transit = which == program::FORWARD;
    Verdict { permit, reason, rule: outcome.winner, pending: outcome.pending, transit }
}

/// Whether a policy speaks about what passes through this node.
#[inline(always)]
pub fn forwards(table: Table) -> bool {
    let at = image::AT_PROGRAMS + program::FORWARD * image::PROGRAM_WORDS + image::PROGRAM_FLAGS;
    table.header(at) & image::PROGRAM_GOVERNED != 0
}

/// The record of a rule.
#[inline(always)]
pub fn rule_record(table: Table, rule: u32) -> u32 {
    table.word(table.header(image::AT_RULES).wrapping_add(rule))
}

/// What a remembered flow was decided by: the generation, and how many of its moments were past.
#[inline(always)]
pub fn era(active: Active, cpu: Cpu) -> u64 {
    active.generation ^ (cpu.request.scalars[attribute::TIME as usize] as u64) << 56
}

/// Fills the attributes that every packet has.
#[inline(always)]
pub fn set_packet(table: Table, slot: u64, mut cpu: Cpu) {
    let memory = &mut *cpu;
    memory.request.scalars[attribute::TIME as usize] = walk::times_past(&table, slot);
    let (packet, request) = (&memory.packet, &mut memory.request);
    request.source = [u64::from_be(packet.flow.source[0]), u64::from_be(packet.flow.source[1])];
    request.destination =
        [u64::from_be(packet.flow.destination[0]), u64::from_be(packet.flow.destination[1])];
    request.scalars[attribute::PROTOCOL as usize] = packet.flow.protocol as u32;
    let ports = has_ports(packet.flow.protocol);
    request.scalars[attribute::SOURCE_PORT as usize] =
        if ports { u16::from_be(packet.flow.source_port) as u32 } else { 0 };
    request.scalars[attribute::DESTINATION_PORT as usize] =
        if ports { u16::from_be(packet.flow.destination_port) as u32 } else { 0 };
    request.scalars[attribute::ICMP as usize] = icmp(packet);
    if packet.shape != 0 {
        shape::set(packet, &mut request.scalars);
    }
}

/// Label `index` of the image and its domain index; into the request and `cpu.label`.
#[inline(always)]
pub fn write_label(table: Table, index: u32, state: u32, mut cpu: Cpu) -> u32 {
    let at = table.header(image::AT_LABELS).wrapping_add(index.wrapping_mul(image::LABEL_WORDS));
    cpu.label.head = walk::double(&table, at.wrapping_add(image::LABEL_HEAD));
    cpu.label.mid = walk::double(&table, at.wrapping_add(image::LABEL_MID));
    cpu.label.tail = 0;
    let domain = table.word(at.wrapping_add(image::LABEL_DOMAIN));
    let label = cpu.label;
    walk::set_label(&mut cpu.request, state, domain, &label);
    domain
}
