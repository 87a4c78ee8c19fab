//! Labels between domains: what passes through gets, where it leaves, the label that the policy's
//! translation makes of its own, under the key of the domain that it leads into.

use aya_ebpf::bindings::BPF_ANY;
use govc_abi::{
    attribute,
    event::hook,
    flow::{FlowKey, TICKET_LABEL},
    image::{self, program},
    label::FLAG_REPLY,
    mac,
    node::LEAF_NONE,
    reason,
    translate::{self, becomes, leads_elsewhere},
    walk::Tables,
};

use crate::{
    authority,
    decide::{self, Verdict},
    egress::Carriage,
    maps::{self, Active, Cpu, OPENINGS, Table},
};

/// What [`govc_translate`] answers when the label has become another; reasons are smaller.
const BECOMES: u32 = 1 << 8;

/// Whether a policy translates at all: nodes that do not pay nothing else.
#[inline(always)]
pub fn translates(table: Table) -> bool {
    table.header(image::AT_TRANSLATION_COUNT) != 0
}

/// Whether labels of the domain under decision are translated where they leave by `zone`, into
/// another domain: none of them can come in there.
#[inline(always)]
pub fn is_foreign(zone: u32, table: Table, mut cpu: Cpu) -> bool {
    cpu.request.scalars[attribute::EGRESS_ZONE as usize] = zone;
    let winner = decide::outcome(table, program::TRANSLATE).winner;
    cpu.request.scalars[attribute::EGRESS_ZONE as usize] = 0;
    winner != LEAF_NONE && leads_elsewhere(&table, winner)
}

/// Whether labels are noted where they come in, for packets whose addresses change on their way through.
#[inline(always)]
pub fn readdresses(table: Table) -> bool {
    table.header(image::AT_READDRESSES) != 0
}

/// What [`leave`] asks of the translation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// The MAC is that of the flow that leaves.
    Same,
    /// Addresses or ports have changed since the label was verified.
    Other,
}

/// What a packet that passes through leaves with: `slot` is that of its label, and of the new one,
/// which lives no longer.
#[inline(always)]
pub fn leave(
    verdict: Verdict,
    flow: Flow,
    slot: u64,
    table: Table,
    cpu: Cpu,
) -> (Verdict, Carriage) {
    // An answer is one only to a flow that this node has seen pass.
    let answers = (verdict.reason == reason::REPLY) as u32;
    let winner = decide::outcome(table, program::TRANSLATE).winner;
    if flow == Flow::Other && (winner == LEAF_NONE || !translate::readdresses(&table, winner)) {
        return (Verdict { transit: true, ..Verdict::deny(reason::BAD_MAC) }, Carriage::Bare);
    }
    if winner == LEAF_NONE {
        return (verdict, Carriage::Bare);
    }
    match govc_translate(table.buffer(), winner, slot, answers) {
        BECOMES => (verdict, Carriage::Again(cpu.packet.mac)),
        refused => {
            let verdict = Verdict { transit: true, ..Verdict::deny(refused as u8) };
            (verdict, Carriage::Bare)
        }
    }
}

/// Writes the label that the one under decision becomes by translation `number` to `cpu.translated`, and its
/// MAC to `cpu.packet`: [`BECOMES`], or the reason why it is refused.
///
/// A global function, as [`decide::govc_walk`] is one: verified once, with a stack of its own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_translate(buffer: u32, number: u32, slot: u64, answers: u32) -> u32 {
    let unknown = reason::UNTRANSLATED as u32;
    let Some(mut cpu) = maps::cpu() else { return unknown };
    let Some(table) = Table::of_buffer(buffer) else { return unknown };
    let domain = cpu.request.scalars[attribute::SUBJECT as usize] >> 24 & 15;
    // In map memory and not on the stack, of which the hook leaves little.
    cpu.translated = cpu.label;
    let from = domain;
    let domain = match translate::translate(&table, number, domain, &mut cpu.translated) {
        Ok(domain) => domain & 15,
        Err(reason) => return reason as u32,
    };
    // A serial of another domain's names another grant.
    let grant = if domain == from {
        cpu.label.grant()
    } else {
        // The label keeps its slot, which may be one in which the grant was still good: what counts is
        // the present one.
        match authority::transit(buffer, number, domain, cpu.slot) {
            Ok(serial) => serial,
            Err(reason) => return reason as u32,
        }
    };
    let active = Active { generation: 0, buffer };
    let Some(keys) = maps::keys(active) else { return reason::KEY_MISSING as u32 };
    let epoch = slot >> (maps::epoch_shift(keys, domain) & 15);
    let flags = if answers != 0 { cpu.label.flags() & FLAG_REPLY } else { 0 };
    let label = cpu.translated.with_flags(flags).with_epoch(epoch as u8).with_slot(slot as u16);
    let label = label.with_grant(grant);
    cpu.translated = label;
    let key = authority::epoch_key(keys, domain, epoch, slot);
    match key.and_then(|key| key.of_sender(&cpu.translated)) {
        Ok([k0, k1]) => {
            cpu.packet.mac = mac::mac(k0, k1, &cpu.translated, &cpu.packet.flow);
            BECOMES
        }
        Err(reason) => reason as u32,
    }
}

/// A key that no flow has: the label under decision with its MAC.
#[inline(always)]
fn label_key(cpu: Cpu) -> FlowKey {
    let (first, second, third) = cpu.label.wire_words();
    FlowKey {
        source: [first, second],
        destination: [third as u64, cpu.packet.mac],
        source_port: 0,
        destination_port: 0,
        protocol: cpu.packet.flow.protocol,
        hook: hook::FORWARD,
        ticket: TICKET_LABEL,
    }
}

/// Notes a label that was verified where its packet came in, and that may leave with other addresses; a
/// global function likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_note_label(generation: u64) -> u32 {
    let Some(mut cpu) = maps::cpu() else { return 0 };
    if govc_is_noted(generation) != 0 {
        return 1;
    }
    cpu.flow.generation = generation;
    cpu.flow.rule = LEAF_NONE;
    cpu.flow.bare = 0;
    OPENINGS.insert(&label_key(cpu), &cpu.flow, BPF_ANY as u64).is_ok() as u32
}

/// Whether the label under decision was noted under this generation; a global function likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_is_noted(generation: u64) -> u32 {
    let Some(cpu) = maps::cpu() else { return 0 };
    // SAFETY: entries of an LRU map may be reused at any time; then the generation is another one.
    OPENINGS
        .get_ptr(&label_key(cpu))
        .is_some_and(|state| unsafe { (*state).generation } == generation) as u32
}

/// What becomes of a bitmap by the words from `at` on; a global function likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_becomes(buffer: u32, at: u32, bits: u32) -> u32 {
    let Some(table) = Table::of_buffer(buffer) else { return 0 };
    becomes(&table, at, bits)
}
