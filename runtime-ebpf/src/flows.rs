//! Flows that were permitted, so that their replies need no rule.

use aya_ebpf::bindings::BPF_ANY;
use govc_abi::{
    attribute::{self, OBJECT, SUBJECT, TIME},
    event::hook,
    flow::{FlowKey, FlowState, Packet, flow_slots, phase},
    mac::Flow,
    node::LEAF_NONE,
    reason,
};

use crate::{
    again,
    decide::{self, Verdict},
    maps::{self, Active, Cpu, FLOWS, OPENINGS},
    packet::{ICMP, ICMPV6, TCP, has_ports},
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
    /// An ICMP error about a flow.
    Error,
    /// Neither: ICMP other than echo.
    None,
}

/// What `packet` is to flows.
#[inline(always)]
pub fn role(packet: &Packet) -> Role {
    if packet.shape != 0 {
        return shaped_role(packet);
    }
    whole_role(packet)
}

/// Fragments show no flow. What has options answers nothing without a rule of its own.
#[inline(always)]
fn shaped_role(packet: &Packet) -> Role {
    let fragment = packet.shape as u32 & attribute::shape::FRAGMENT != 0;
    match whole_role(packet) {
        Role::Either | Role::Opens if !fragment => Role::Opens,
        _ => Role::None,
    }
}

#[inline(always)]
fn whole_role(packet: &Packet) -> Role {
    match (packet.flow.protocol, packet.icmp_type) {
        (ICMP, 8) | (ICMPV6, 128) => Role::Opens,
        (ICMP, 0) | (ICMPV6, 129) => Role::Answers,
        (ICMP | ICMPV6, _) if packet.error != 0 => Role::Error,
        (ICMP | ICMPV6, _) => Role::None,
        // A SYN that acknowledges nothing answers nothing, whatever the ports: it would be a connection
        // that no rule permits.
        _ if packet.opens != 0 => Role::Opens,
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
        ticket: 0,
    }
}

/// What was found out about the flow that a packet answers.
mod answered {
    /// There is one.
    pub const FOUND: u64 = 1 << 63;
    /// Its packets travel without a label.
    pub const BARE: u64 = 1 << 62;
    /// Its packet went nowhere, and its sender is told.
    pub const TOLD: u64 = 1 << 61;
    /// It was decided in this era.
    pub const CURRENT: u64 = 1 << 60;
    /// The packet is an error about a reply of the flow, not about the flow itself.
    pub const REVERSED: u64 = 1 << 59;
    /// Its entry has to hear of this packet.
    pub const NEWS: u64 = 1 << 58;
    /// Mask of the rule that decided it.
    pub const RULE: u64 = 0x7fff_ffff;
}

/// The hook where the flow's own direction was permitted, if its replies pass `hook`.
#[inline(always)]
fn opposite(hook: u8) -> u8 {
    match hook {
        hook::INGRESS => hook::EGRESS,
        hook::EGRESS => hook::INGRESS,
        // A router remembers what passed it in either direction.
        _ => hook::FORWARD,
    }
}

/// The key of the flow that the packet in `cpu.packet` answers at `hook`.
#[inline(always)]
fn answered_key(packet: &Packet, hook: u8, reversed: bool) -> FlowKey {
    if role(packet) != Role::Error {
        key(packet, opposite(hook), true)
    } else if reversed {
        quoted_key(packet, hook, true)
    } else {
        quoted_key(packet, opposite(hook), false)
    }
}

/// Looks up the flow that the packet in `cpu.packet` answers at a hook: see [`answered`]. Unless nothing but its rule is
/// wanted, it goes to `cpu.flow`. A ticket is only good for an answer with or without a label, as
/// `bare` says.
///
/// A global function, as [`crate::decide::govc_walk`] is one: verified once, with a stack of its
/// own.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_flow_answered(hook: u32, era: u64, bare: u32) -> u64 {
    let Some(mut cpu) = maps::cpu() else { return 0 };
    let role = role(&cpu.packet);
    if matches!(role, Role::Opens | Role::None) {
        return 0;
    }
    let mut key = answered_key(&cpu.packet, hook as u8, false);
    let mut found = answered::FOUND;
    let mut state = None;
    if role == Role::Error || cpu.packet.reset != 0 {
        key.ticket = 1;
        state = opening(&key).filter(|state| state.bare as u32 == bare && state.generation == era);
        key.ticket = 0;
    }
    if state.is_some() {
        found |= answered::TOLD;
    } else {
        state = fresh(&key, cpu);
        if state.is_none() && role == Role::Error {
            key = answered_key(&cpu.packet, hook as u8, true);
            found |= answered::REVERSED;
            state = fresh(&key, cpu);
        }
    }
    let Some(state) = state else { return 0 };
    found |= state.rule as u64 & answered::RULE;
    if state.bare != 0 {
        found |= answered::BARE;
    }
    if state.generation == era {
        found |= answered::CURRENT;
    }
    if role != Role::Error && (state.seen != cpu.slot as u32 || !is_settled(state, &cpu.packet)) {
        found |= answered::NEWS;
    }
    if found & (answered::CURRENT | answered::TOLD) != answered::CURRENT {
        cpu.flow = *state;
    }
    found
}

/// A flow of which both ends speak.
#[inline(always)]
fn established(key: &FlowKey) -> Option<&'static mut FlowState> {
    // SAFETY: entries of an LRU map may be reused at any time; a torn read can only make the
    // generation or the request wrong, and then the flow is decided again or not found.
    FLOWS.get_ptr_mut(key).map(|state| unsafe { &mut *state })
}

/// A flow that nothing has answered yet, or a ticket.
#[inline(always)]
fn opening(key: &FlowKey) -> Option<&'static mut FlowState> {
    // SAFETY: as above.
    OPENINGS.get_ptr_mut(key).map(|state| unsafe { &mut *state })
}

/// A flow of which something was seen not too long ago.
#[inline(always)]
fn fresh(key: &FlowKey, cpu: Cpu) -> Option<&'static mut FlowState> {
    let state = match established(key) {
        Some(state) => Some(state),
        // Another CPU may have moved it in between.
        None => match opening(key) {
            Some(state) => Some(state),
            None => established(key),
        },
    };
    state.filter(|state| is_fresh(state, key, cpu))
}

#[inline(always)]
fn is_fresh(state: &FlowState, key: &FlowKey, cpu: Cpu) -> bool {
    // A clock that steps back makes nothing old.
    let age = (cpu.slot as u32).wrapping_sub(state.seen) as i32;
    age <= flow_slots(key.protocol, state.phase) as i32
}

/// Whether an answering packet tells nothing new about how far a flow has come.
#[inline(always)]
fn is_settled(state: &FlowState, packet: &Packet) -> bool {
    match state.phase {
        phase::ESTABLISHED => packet.fin | packet.reset == 0,
        phase::CLOSING => true,
        // Refusals are no answer.
        _ => packet.reset != 0,
    }
}

/// Notes that the flow that the packet answers has been answered; a global function likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_flow_continue(hook: u32) -> u32 {
    let Some(mut cpu) = maps::cpu() else { return 0 };
    let key = answered_key(&cpu.packet, hook as u8, false);
    let ends = cpu.packet.fin | cpu.packet.reset != 0;
    if let Some(state) = established(&key) {
        state.seen = cpu.slot as u32;
        if ends {
            state.phase = phase::CLOSING;
        } else if state.phase == phase::OPENED {
            // Opened again over the same ports. What its sender says next may be remembered.
            state.phase = phase::ESTABLISHED;
        }
        return 0;
    }
    let Some(state) = opening(&key) else { return 0 };
    state.seen = cpu.slot as u32;
    if cpu.packet.reset != 0 {
        return 0;
    }
    if key.protocol == TCP {
        // The sender of the flow has to say that it heard the answer: whoever forges addresses of
        // others cannot.
        state.phase = phase::ANSWERED;
        return 0;
    }
    cpu.flow = *state;
    cpu.flow.phase = phase::ESTABLISHED;
    establish(&key, cpu);
    0
}

/// Moves the flow in `cpu.flow` to those of which both ends speak.
#[inline(always)]
fn establish(key: &FlowKey, cpu: Cpu) {
    // A full map drops the flow that nothing asked for the longest time; the reply of that one then
    // needs a rule.
    let _ = FLOWS.insert(key, &cpu.flow, BPF_ANY as u64);
    let _ = OPENINGS.remove(key);
}

/// Takes the ticket of the packet in `cpu.packet`, which is good for one answer; a global function
/// likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_flow_told(hook: u32) -> u32 {
    let Some(cpu) = maps::cpu() else { return 0 };
    let mut key = answered_key(&cpu.packet, hook as u8, false);
    key.ticket = 1;
    let _ = OPENINGS.remove(&key);
    0
}

/// Notes that the flow that the packet answers was decided again; a global function likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_flow_confirm(hook: u32, era: u64, rule: u32, reversed: u32) -> u32 {
    let Some(cpu) = maps::cpu() else { return 0 };
    let key = answered_key(&cpu.packet, hook as u8, reversed != 0);
    let state = match established(&key) {
        Some(state) => Some(state),
        None => opening(&key),
    };
    if let Some(state) = state {
        state.rule = rule;
        state.generation = era;
    }
    0
}

/// Permits the packet when it answers a flow that was permitted in the other direction, and whose
/// packets travel `bare` or not as this one does. A flow of another era is decided again: the policy
/// of today decides its own direction. An error may also be about a reply.
#[inline(always)]
pub fn reply(hook: u8, bare: bool, active: Active, cpu: Cpu) -> Option<Verdict> {
    let era = decide::era(active, cpu);
    let found = govc_reply(hook as u32, era, bare as u32, active.buffer);
    if found == NO_REPLY {
        return None;
    }
    Some(Verdict::permit(reason::REPLY, found as u32))
}

/// Answer of [`govc_reply`] for what answers nothing; no rule has such a number.
const NO_REPLY: u64 = u64::MAX;

/// [`reply`]: the rule that permitted the flow, or [`NO_REPLY`].
///
/// A global function, as [`crate::decide::govc_walk`] is one: hooks ask it in several places.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_reply(hook: u32, era: u64, bare: u32, buffer: u32) -> u64 {
    let found = govc_flow_answered(hook, era, bare);
    if found & answered::FOUND == 0 || (found & answered::BARE != 0) != (bare != 0) {
        return NO_REPLY;
    }
    if found & answered::TOLD != 0 {
        govc_flow_told(hook);
        // Counted for the rule was the packet that went nowhere.
        return LEAF_NONE as u64;
    }
    let mut rule = (found & answered::RULE) as u32;
    if found & answered::CURRENT == 0 {
        let reversed = found & answered::REVERSED != 0;
        let permitted_at = if reversed { hook as u8 } else { opposite(hook as u8) };
        let Some(permits) = again::decide_again(permitted_at, buffer) else { return NO_REPLY };
        rule = permits;
        govc_flow_confirm(hook, era, rule, reversed as u32);
    }
    if found & answered::NEWS != 0 {
        govc_flow_continue(hook);
    }
    rule as u64
}

/// The request of the flow that this node is about to tell that it is denied, if the packet does.
#[inline(always)]
pub fn told(hook: u8, bare: bool, active: Active, cpu: Cpu) -> Option<(u32, u32)> {
    let found = govc_flow_answered(hook as u32, decide::era(active, cpu), bare as u32);
    if found & answered::TOLD == 0 {
        return None;
    }
    let scalars = &cpu.flow.request.scalars;
    Some((scalars[SUBJECT as usize], scalars[OBJECT as usize]))
}

/// The key of the flow that an ICMP error is about, or whose reply it is about.
#[inline(always)]
fn quoted_key(packet: &Packet, hook: u8, reversed: bool) -> FlowKey {
    let quoted = &packet.quoted;
    let ports = if has_ports(quoted.protocol) {
        (quoted.source_port, quoted.destination_port)
    } else {
        (quoted.source_port, 0)
    };
    let turned = reversed && has_ports(quoted.protocol);
    let (source_port, destination_port) = if turned { (ports.1, ports.0) } else { ports };
    let (source, destination) = if reversed {
        (quoted.destination, quoted.source)
    } else {
        (quoted.source, quoted.destination)
    };
    FlowKey {
        source,
        destination,
        source_port,
        destination_port,
        protocol: quoted.protocol,
        hook,
        ticket: 0,
    }
}

/// Attributes that are scalars.
const ATTRIBUTES: usize = TIME as usize + 1;

/// Kinds of [`govc_flow_remember`].
const KIND_BARE: u32 = 1;
const KIND_TICKET: u32 = 2;

/// Writes the flow of the packet in `cpu.packet`, with the request under decision; a global function
/// likewise. The [`News`] of further packets like it.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_flow_remember(hook: u32, era: u64, rule: u32, kind: u32) -> u32 {
    let Some(mut cpu) = maps::cpu() else { return 0 };
    let mut key = key(&cpu.packet, hook as u8, false);
    key.ticket = (kind & KIND_TICKET != 0) as u16;
    let bare = (kind & KIND_BARE != 0) as u8;
    let (packet, seen) = (&cpu.packet, cpu.slot as u32);
    let ends = packet.fin | packet.reset != 0;
    let held = established(&key);
    let lasting = held.is_some();
    let held = match held {
        Some(state) => Some(state),
        None => opening(&key).filter(|state| is_fresh(state, &key, cpu)),
    };
    let mut next = phase::OPENED;
    if let Some(state) = held {
        next = match state.phase {
            _ if packet.syn != 0 => phase::OPENED,
            // Whoever was told of a connection that it did not open refuses.
            _ if packet.reset != 0 && !lasting => phase::OPENED,
            phase::OPENED if !lasting => phase::OPENED,
            _ if ends => phase::CLOSING,
            phase::CLOSING => phase::CLOSING,
            _ => phase::ESTABLISHED,
        };
        let same = state.generation == era && state.rule == rule && state.bare == bare;
        let same = same && state.grant == cpu.label.grant() && asks_the_same(state, cpu);
        if same && (lasting || next == phase::OPENED) {
            let was_fresh = is_fresh(state, &key, cpu);
            if state.seen != seen {
                state.seen = seen;
            }
            if state.phase != next {
                state.phase = next;
            }
            if !was_fresh {
                note_arrival(hook, cpu);
            }
            let news = if next == phase::ESTABLISHED { News::NextSlot } else { unanswered(&key) };
            return news as u32;
        }
    }
    cpu.flow.generation = era;
    cpu.flow.rule = rule;
    cpu.flow.seen = seen;
    cpu.flow.bare = bare;
    cpu.flow.phase = next;
    cpu.flow.grant = cpu.label.grant();
    cpu.flow.domain = cpu.label.domain();
    // What another packet has declared before is still there where one arrives.
    cpu.flow.declared = if key.hook == hook::EGRESS { cpu.declared } else { 0 };
    cpu.flow.way = cpu.way;
    cpu.flow.request = cpu.request;
    let mut news = News::Always;
    if lasting || next != phase::OPENED {
        establish(&key, cpu);
    } else {
        // Likewise.
        let _ = OPENINGS.insert(&key, &cpu.flow, BPF_ANY as u64);
        news = unanswered(&key);
    }
    note_arrival(hook, cpu);
    news as u32
}

/// Tells whoever remembers packets of the other direction that these may be replies from now on.
#[inline(always)]
fn note_arrival(hook: u32, cpu: Cpu) {
    if hook as u8 == hook::INGRESS {
        let flow = &cpu.packet.flow;
        let (addresses, ports) = ends(flow);
        maps::note_arrival(addresses, ports, flow.protocol, cpu);
    }
}

/// The last flow that came in of what may be this flow, or the one that it answers.
#[inline(always)]
pub fn last_arrival(flow: &Flow) -> u64 {
    let (addresses, ports) = ends(flow);
    maps::last_arrival(addresses, ports, flow.protocol)
}

/// Addresses and ports, the source's first.
#[inline(always)]
pub fn ends(flow: &Flow) -> ([u64; 4], u32) {
    let addresses = [flow.source[0], flow.source[1], flow.destination[0], flow.destination[1]];
    (addresses, flow.source_port as u32 | (flow.destination_port as u32) << 16)
}

/// The news of further packets of a flow that nothing has answered yet.
#[inline(always)]
fn unanswered(key: &FlowKey) -> News {
    if key.protocol == TCP { News::Always } else { News::NextMoment }
}

/// Whether a flow is remembered with what the packet under decision says: the attributes, and how it passes. In
/// one era the same declaration gives the same operation, and addresses are those of the flow.
#[inline(always)]
fn asks_the_same(state: &FlowState, cpu: Cpu) -> bool {
    let (held, asked) = (&state.request.scalars, &cpu.request.scalars);
    let mut differs = state.way.entered ^ cpu.way.entered | state.way.leaves ^ cpu.way.leaves;
    let mut index = 0;
    while index < ATTRIBUTES {
        differs |= held[index] ^ asked[index];
        index += 1;
    }
    differs == 0 && state.way.cgroup == cpu.way.cgroup && state.domain == cpu.label.domain()
}

/// Which of further packets of a flow the table has to hear of.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum News {
    /// Each.
    Always = 0,
    /// The first one of the next [`govc_abi::memory::moment`]: meanwhile others may have pushed the flow out.
    NextMoment = 1,
    /// The first one of the next slot.
    NextSlot = 2,
}

/// Remembers the flow of a packet that a rule has permitted.
#[inline(always)]
pub fn remember(hook: u8, active: Active, rule: u32, bare: bool, cpu: Cpu) -> News {
    if !matches!(role(&cpu.packet), Role::Either | Role::Opens) {
        return News::Always;
    }
    let era = decide::era(active, cpu);
    match govc_flow_remember(hook as u32, era, rule, bare as u32 * KIND_BARE) {
        1 => News::NextMoment,
        2 => News::NextSlot,
        _ => News::Always,
    }
}

/// Writes a ticket for the answer to a packet that goes nowhere.
#[inline(always)]
pub fn expect_answer(hook: u8, active: Active, rule: u32, bare: bool, cpu: Cpu) {
    let kind = bare as u32 * KIND_BARE | KIND_TICKET;
    govc_flow_remember(hook as u32, decide::era(active, cpu), rule, kind);
}
