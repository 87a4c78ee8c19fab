//! Flows that were permitted, so that their replies need no rule.

use aya_ebpf::bindings::BPF_ANY;
use govc_abi::{
    event::hook,
    flow::{FlowKey, FlowState, Packet},
};

use crate::{
    decide::{self, Verdict},
    maps::{Active, Cpu, FLOWS, Table},
    packet::{ICMP, ICMPV6, has_ports},
};

/// What a packet is to flows.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It may open a flow, and it may answer one.
    Either,
    /// It may only open a flow.
    Opens,
    /// It may only answer a flow.
    Answers,
    /// Neither: ICMP other than echo.
    None,
}

/// What `packet` is to flows.
#[inline(always)]
pub fn role(packet: &Packet) -> Role {
    match (packet.flow.protocol, packet.icmp_type) {
        (ICMP, 8) | (ICMPV6, 128) => Role::Opens,
        (ICMP, 0) | (ICMPV6, 129) => Role::Answers,
        (ICMP | ICMPV6, _) => Role::None,
        _ => Role::Either,
    }
}

/// The key of the flow that `packet` belongs to, or that it answers.
#[inline(always)]
fn key(packet: &Packet, hook: u8, answered: bool) -> FlowKey {
    let flow = &packet.flow;
    let echo = !has_ports(packet.flow.protocol);
    // Echo requests and replies share the identifier; the type is not part of the flow.
    let ports =
        if echo { (flow.source_port, 0) } else { (flow.source_port, flow.destination_port) };
    let (source_port, destination_port) =
        if answered && !echo { (ports.1, ports.0) } else { ports };
    let (source, destination) =
        if answered { (flow.destination, flow.source) } else { (flow.source, flow.destination) };
    FlowKey {
        source,
        destination,
        source_port,
        destination_port,
        protocol: flow.protocol,
        hook,
        pad: 0,
    }
}

/// The flow that a packet at `hook` answers: one that was permitted in the other direction.
#[inline(always)]
pub fn answered(hook: u8, cpu: Cpu) -> Option<&'static mut FlowState> {
    if !matches!(role(&cpu.packet), Role::Either | Role::Answers) {
        return None;
    }
    let forward = if hook == hook::INGRESS { hook::EGRESS } else { hook::INGRESS };
    let key = key(&cpu.packet, forward, true);
    // SAFETY: entries of an LRU map may be reused at any time; a torn read can only make the
    // generation or the request wrong, and then the flow is decided again or not found.
    FLOWS.get_ptr_mut(&key).map(|state| unsafe { &mut *state })
}

/// Remembers the flow of a packet that a rule has permitted.
#[inline(always)]
pub fn remember(hook: u8, active: Active, rule: u32, bare: bool, mut cpu: Cpu) {
    if !matches!(role(&cpu.packet), Role::Either | Role::Opens) {
        return;
    }
    let key = key(&cpu.packet, hook, false);
    if let Some(state) = FLOWS.get_ptr(&key) {
        // SAFETY: as above.
        let state = unsafe { &*state };
        if state.generation == active.generation && state.rule == rule {
            return;
        }
    }
    cpu.flow.generation = active.generation;
    cpu.flow.rule = rule;
    cpu.flow.bare = bare as u32;
    cpu.flow.request = cpu.request;
    // A full map drops its oldest flow; the reply of that one then needs a rule.
    let _ = FLOWS.insert(&key, &cpu.flow, BPF_ANY as u64);
}

/// Decides a remembered flow by the policy of today. The request under decision is put aside in
/// `cpu.flow` meanwhile: the stack is too small for a second one.
#[inline(always)]
pub fn decide_again(flow: &FlowState, table: Table, which: u32, mut cpu: Cpu) -> Verdict {
    let memory = &mut *cpu;
    memory.flow.request = memory.request;
    memory.request = flow.request;
    let verdict = decide::decide(table, which, cpu);
    let memory = &mut *cpu;
    memory.request = memory.flow.request;
    verdict
}
