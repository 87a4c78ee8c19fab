//! Counting and telling: exact counters for every packet, events for those worth one.

use aya_ebpf::{
    bindings::__sk_buff,
    helpers::generated::{bpf_get_prandom_u32, bpf_ktime_get_boot_ns, bpf_skb_cgroup_id},
};
use govc_abi::{
    attribute,
    event::{Event, flag, hook, verdict},
    flow::{Control, control_flag, reason_counter, rule_counter},
    image::rule,
    label::FLAG_TRACE,
    limits::EVENT_SHARES,
    node::LEAF_NONE,
    reason,
};

use crate::{
    decide::{Verdict, rule_record},
    maps::{self, Active, Cpu, EVENTS, LIFETIME, Table, count},
    packet::{has_ports, icmp},
    shape,
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
    /// The packet, where its socket can be told; null elsewhere.
    pub leaving: *mut __sk_buff,
}

impl Place<'_> {
    /// What passes through is told as such, wherever it is decided.
    #[inline(always)]
    pub fn of(&self, verdict: &Verdict) -> Self {
        let hook = if verdict.transit { hook::FORWARD } else { self.hook };
        Self { hook, ..*self }
    }
}

/// Counts the packet, and publishes an event when its rule, its verdict or its label asks for
/// one.
#[inline(always)]
pub fn report(place: &Place, table: Table, verdict: &Verdict, cpu: Cpu) {
    count_verdict(place, verdict);
    let all = place.control.flags & control_flag::REPORT_PERMITS != 0;
    if all || reports(table, verdict, cpu) {
        publish(place, verdict, cpu);
    }
}

/// Counts a packet by reason, rule and pending rule.
#[inline(always)]
pub fn count_verdict(place: &Place<'_>, verdict: &Verdict) {
    let (buffer, len) = (place.active.buffer, place.len);
    count(LIFETIME, reason_counter(place.hook, verdict.reason), len);
    if verdict.rule != LEAF_NONE {
        count(buffer, rule_counter(verdict.rule), len);
    }
    if verdict.pending != LEAF_NONE {
        count(buffer, rule_counter(verdict.pending).wrapping_add(1), len);
    }
}

/// Whether rule, verdict or label ask for an event, now and then at least.
#[inline(always)]
pub fn may_report(table: Table, verdict: &Verdict, cpu: Cpu) -> bool {
    let log = verdict.rule != LEAF_NONE && rule_record(table, verdict.rule) & rule::LOG != 0;
    !verdict.permit || log || is_asked_for(verdict, cpu)
}

/// Whether the label asks for an event, or a rule that only observes would say otherwise.
#[inline(always)]
fn is_asked_for(verdict: &Verdict, cpu: Cpu) -> bool {
    verdict.pending != LEAF_NONE || is_traced(cpu)
}

/// Whether the label asks for an event.
#[inline(always)]
pub fn is_traced(cpu: Cpu) -> bool {
    cpu.packet.labelled != 0 && cpu.label.flags() & FLAG_TRACE != 0
}

/// Whether a packet, of those that its rule reports now and then, is one that is to be reported.
#[inline(always)]
fn is_sampled(table: Table, rule: u32) -> bool {
    let of = rule_record(table, rule) >> rule::SAMPLING_SHIFT;
    // SAFETY: no arguments, no side effects but on the generator.
    of < 2 || unsafe { bpf_get_prandom_u32() } % of == 0
}

/// Counts the event that a remembered packet, which may be reported, would have been.
#[inline(always)]
pub fn lose(verdict: &Verdict, active: Active, mut cpu: Cpu) {
    let Some(table) = Table::of(active) else { return };
    if verdict.rule == LEAF_NONE || verdict.pending != LEAF_NONE || is_sampled(table, verdict.rule)
    {
        cpu.events_lost_rate += 1;
    }
}

/// Whether this packet is to be reported. A rule that is sampled says so of denials too.
#[inline(always)]
fn reports(table: Table, verdict: &Verdict, cpu: Cpu) -> bool {
    if !may_report(table, verdict, cpu) {
        return false;
    }
    if verdict.rule == LEAF_NONE || is_asked_for(verdict, cpu) {
        return true;
    }
    is_sampled(table, verdict.rule)
}

/// The cgroup of the socket that has sent a packet: asked only for packets that are told of.
#[inline(always)]
fn cgroup(place: &Place) -> u64 {
    // SAFETY: the context is valid.
    if place.leaving.is_null() { 0 } else { unsafe { bpf_skb_cgroup_id(place.leaving) } }
}

/// How often the budget for events is filled up, nanoseconds.
const REFILL_NS: u64 = 100_000_000;
/// Of fewer events a second, a tenth is none, or leaves too many out: they are for a whole second.
const RATE_OF_TENTHS: u64 = 1000;

/// Whether no event is left for a verdict: neither of what all share, nor of what its rule is sure of,
/// whatever others do.
#[inline(always)]
pub fn is_spent(rule: u32, reason: u8) -> bool {
    govc_event_left(kind(rule, reason), 0) == 0
}

/// What the number of a share comes from: the rule that decided, or the reason where none did.
#[inline(always)]
fn kind(rule: u32, reason: u8) -> u32 {
    let ruled = rule.wrapping_add(reason::COUNT as u32);
    if rule == LEAF_NONE { reason as u32 } else { ruled }
}

/// Fills this CPU's budget for events up when it is time, and takes `take` events of one `kind` out of it, 1 or none;
/// 0 when none is left.
///
/// A global function, as [`crate::decide::govc_walk`] is one: how much is left is nothing that the verifier has to
/// follow through the rest of a hook.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_event_left(kind: u32, take: u32) -> u32 {
    let Some(mut cpu) = maps::cpu() else { return 0 };
    let Some((control, _)) = maps::control() else { return 0 };
    let cpu = &mut *cpu;
    let rate = control.event_rate as u64;
    let every_ns = if rate < RATE_OF_TENTHS { 10 * REFILL_NS } else { REFILL_NS };
    if cpu.coarse_ns.wrapping_sub(cpu.refilled_ns) >= every_ns {
        let budget = if rate < RATE_OF_TENTHS { rate } else { rate / 10 };
        cpu.refilled_ns = cpu.coarse_ns;
        cpu.event_budget = budget;
        cpu.event_share = budget / EVENT_SHARES as u64;
        maps::clear(&raw mut cpu.event_shares);
    }
    if cpu.event_budget != 0 {
        cpu.event_budget -= take as u64;
        return 1;
    }
    // SAFETY: the index is below the length.
    let published = unsafe { cpu.event_shares.get_unchecked_mut(kind as usize % EVENT_SHARES) };
    if *published as u64 >= cpu.event_share {
        cpu.events_lost_rate += take as u64;
        return 0;
    }
    *published += take;
    1
}

/// Publishes an event, or counts it as lost.
#[inline(always)]
fn publish(place: &Place, verdict: &Verdict, mut cpu: Cpu) {
    if govc_event_left(kind(verdict.rule, verdict.reason), 1) == 0 {
        return;
    }
    let Some(mut entry) = EVENTS.reserve(0) else {
        cpu.events_lost_full += 1;
        return;
    };
    let scalars = &cpu.request.scalars;
    let state = scalars[attribute::STATE as usize];
    let mut flags = cpu.packet.shape << flag::SHAPE_SHIFT;
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
    let cgroup = cgroup(place);
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
        protocol: shape::protocol(&cpu.packet),
        from_zone: scalars[attribute::INGRESS_ZONE as usize] as u8,
        icmp: icmp(&cpu.packet) as u16,
        source_port: if ports { u16::from_be(cpu.packet.flow.source_port) } else { 0 },
        destination_port: if ports { u16::from_be(cpu.packet.flow.destination_port) } else { 0 },
        object: scalars[attribute::OBJECT as usize],
        source: cpu.packet.flow.source,
        destination: cpu.packet.flow.destination,
        label: cpu.label,
        cgroup_low: cgroup as u32,
        cgroup_high: (cgroup >> 32) as u16,
        to_zone: scalars[attribute::EGRESS_ZONE as usize] as u8,
        pad: 0,
    });
    cpu.events_delivered += 1;
    entry.submit(0);
}
