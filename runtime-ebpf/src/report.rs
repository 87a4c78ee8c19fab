//! Counting and telling: exact counters for every packet, events for those worth one.

use aya_ebpf::helpers::generated::bpf_ktime_get_boot_ns;
use govc_abi::{
    attribute,
    event::{Event, flag, verdict},
    flow::{Control, control_flag, reason_counter, rule_counter},
    image::rule,
    label::FLAG_TRACE,
    node::LEAF_NONE,
};

use crate::{
    decide::{Verdict, rule_record},
    maps::{Active, Cpu, EVENTS, LIFETIME, Table, count},
    packet::{has_ports, icmp},
};

/// Where and when a packet was decided.
pub struct Place<'a> {
    /// The control record.
    pub control: &'a Control,
    /// The generation that decided.
    pub active: Active,
    /// Coarse clock, nanoseconds.
    pub coarse_ns: u64,
    /// Interface.
    pub ifindex: u32,
    /// Length of the packet, bytes.
    pub len: u32,
    /// One of [`govc_abi::event::hook`].
    pub hook: u8,
}

/// Counts the packet, and publishes an event when its rule, its verdict or its label asks for
/// one.
#[inline(always)]
pub fn report(place: &Place, table: Option<Table>, verdict: &Verdict, cpu: Cpu) {
    count_verdict(place.hook, place.active, verdict, place.len);
    let all = place.control.flags & control_flag::REPORT_PERMITS != 0;
    if all || table.is_none_or(|table| reports(table, verdict, cpu)) {
        publish(place, verdict, cpu);
    }
}

/// Counts a packet by reason, rule and pending rule.
#[inline(always)]
pub fn count_verdict(hook: u8, active: Active, verdict: &Verdict, len: u32) {
    count(LIFETIME, reason_counter(hook, verdict.reason), len);
    if verdict.rule != LEAF_NONE {
        count(active.buffer, rule_counter(verdict.rule), len);
    }
    if verdict.pending != LEAF_NONE {
        count(active.buffer, rule_counter(verdict.pending).wrapping_add(1), len);
    }
}

/// Whether rule, verdict or label ask for an event.
#[inline(always)]
pub fn reports(table: Table, verdict: &Verdict, cpu: Cpu) -> bool {
    let trace = cpu.packet.labelled != 0 && cpu.label.flags() & FLAG_TRACE != 0;
    let log = verdict.rule != LEAF_NONE && rule_record(table, verdict.rule) & rule::LOG != 0;
    !verdict.permit || verdict.pending != LEAF_NONE || log || trace
}

/// How often the budget for events is filled up, nanoseconds.
const REFILL_NS: u64 = 100_000_000;

/// What a CPU may publish between two fillings.
#[inline(always)]
fn budget(control: &Control) -> u64 {
    control.event_rate as u64 / 10
}

/// Whether an event would be lost to the rate limit.
#[inline(always)]
pub fn is_spent(control: &Control, coarse_ns: u64, cpu: Cpu) -> bool {
    let full = coarse_ns.wrapping_sub(cpu.refilled_ns) >= REFILL_NS;
    (if full { budget(control) } else { cpu.event_budget }) == 0
}

/// Takes one event out of this CPU's budget.
#[inline(always)]
fn take_budget(place: &Place, mut cpu: Cpu) -> bool {
    if place.coarse_ns.wrapping_sub(cpu.refilled_ns) >= REFILL_NS {
        cpu.refilled_ns = place.coarse_ns;
        cpu.event_budget = budget(place.control);
    }
    if cpu.event_budget == 0 {
        cpu.events_lost_rate += 1;
        return false;
    }
    cpu.event_budget -= 1;
    true
}

/// Publishes an event, or counts it as lost.
#[inline(always)]
fn publish(place: &Place, verdict: &Verdict, mut cpu: Cpu) {
    if !take_budget(place, cpu) {
        return;
    }
    let Some(mut entry) = EVENTS.reserve(0) else {
        cpu.events_lost_full += 1;
        return;
    };
    let scalars = &cpu.request.scalars;
    let state = scalars[attribute::STATE as usize];
    let mut flags = 0;
    if cpu.packet.version == 6 {
        flags |= flag::V6;
    }
    if state == attribute::state::VALID {
        flags |= flag::LABELLED;
    } else if state == attribute::state::LEGACY {
        flags |= flag::LEGACY;
    } else if cpu.packet.labelled != 0 {
        flags |= flag::CLAIMED;
    }
    let ports = has_ports(cpu.packet.flow.protocol);
    entry.write(Event {
        // SAFETY: no arguments, no side effects.
        time_ns: unsafe { bpf_ktime_get_boot_ns() },
        generation: place.active.generation,
        rule: verdict.rule,
        pending: verdict.pending,
        ifindex: place.ifindex,
        len: place.len,
        reason: verdict.reason,
        verdict: if verdict.permit { verdict::PERMIT } else { verdict::DENY },
        hook: place.hook,
        flags,
        protocol: cpu.packet.flow.protocol,
        pad: 0,
        icmp: icmp(&cpu.packet) as u16,
        source_port: if ports { u16::from_be(cpu.packet.flow.source_port) } else { 0 },
        destination_port: if ports { u16::from_be(cpu.packet.flow.destination_port) } else { 0 },
        object: scalars[attribute::OBJECT as usize],
        source: cpu.packet.flow.source,
        destination: cpu.packet.flow.destination,
        label: cpu.label,
        reserved: 0,
    });
    cpu.events_delivered += 1;
    entry.submit(0);
}
