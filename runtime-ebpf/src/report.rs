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
    maps::{Active, Cpu, EVENTS, Table, count},
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

/// Buffer number of the counters that outlive generations.
const LIFETIME: u32 = 2;

/// Counts the packet, and publishes an event when its rule, its verdict or its label asks for
/// one.
#[inline(always)]
pub fn report(place: &Place, table: Option<Table>, verdict: &Verdict, cpu: Cpu) {
    let reason = reason_counter(place.hook, verdict.reason);
    count(LIFETIME, reason, place.len);
    let mut log = false;
    if let Some(table) = table {
        if verdict.rule != LEAF_NONE {
            count(place.active.buffer, rule_counter(verdict.rule), place.len);
            log = rule_record(table, verdict.rule) & rule::LOG != 0;
        }
        if verdict.pending != LEAF_NONE {
            count(place.active.buffer, rule_counter(verdict.pending).wrapping_add(1), place.len);
            log = true;
        }
    }
    let trace = cpu.packet.labelled != 0 && cpu.label.flags() & FLAG_TRACE != 0;
    let all = place.control.flags & control_flag::REPORT_PERMITS != 0;
    if !verdict.permit || log || trace || all {
        publish(place, verdict, cpu);
    }
}

/// Takes one event out of this CPU's budget.
#[inline(always)]
fn take_budget(place: &Place, mut cpu: Cpu) -> bool {
    const REFILL_NS: u64 = 100_000_000;
    if place.coarse_ns.wrapping_sub(cpu.refilled_ns) >= REFILL_NS {
        cpu.refilled_ns = place.coarse_ns;
        cpu.event_budget = place.control.event_rate as u64 / 10;
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
