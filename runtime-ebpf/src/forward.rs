//! A packet passes through this node: where it leaves by belongs to the question. It is asked where
//! the packet arrives, with the route of that moment, and again where it leaves: routes change, and
//! not every interface has a hook.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{
        BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        BPF_FIB_LKUP_RET_UNSUPP_LWT, BPF_FIB_LOOKUP_SKIP_NEIGH, bpf_fib_lookup as Route,
    },
    helpers::generated::bpf_fib_lookup,
};
use govc_abi::{attribute, event::hook, image::program};

use crate::{
    decide::{self, Verdict},
    flows,
    maps::{self, Active, Cpu, Table},
    shape,
};

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Zone of the interface that the packet in `cpu.packet` will leave by, 0 for one in no zone;
/// [`None`] when it is for this node.
#[inline(always)]
pub fn route(context: *mut c_void, ifindex: u32, active: Active, cpu: Cpu) -> Option<u32> {
    match leaves_by_zone(context, ifindex, active, cpu) {
        HERE => None,
        zone => Some(zone as u32),
    }
}

/// What [`route`] says, or [`HERE`].
#[inline(never)]
fn leaves_by_zone(context: *mut c_void, ifindex: u32, active: Active, mut cpu: Cpu) -> u64 {
    let leaves_by = leaves_by(context, ifindex, cpu);
    if leaves_by == HERE {
        return HERE;
    }
    cpu.way.leaves = leaves_by as u32;
    maps::interface(leaves_by as u32).map_or(0, |leaves| maps::zone(leaves, active) as u64)
}

/// Whether the packet in `cpu.packet`, which came in by an interface, will leave by another one. What turns
/// round in its own link could have stayed there.
#[inline(always)]
pub fn passes_on(context: *mut c_void, ifindex: u32, cpu: Cpu) -> bool {
    let leaves_by = leaves_by(context, ifindex, cpu);
    leaves_by != HERE && leaves_by != ifindex as u64
}

/// In the place of where a packet for this node leaves by.
const HERE: u64 = u64::MAX;

/// Index of the interface that the packet in `cpu.packet` will leave by, 0 where the kernel does not tell, or
/// [`HERE`]: one number, as what is returned by way of the stack may stand where the verifier refuses it.
#[inline(never)]
fn leaves_by(context: *mut c_void, ifindex: u32, mut cpu: Cpu) -> u64 {
    let at = (&raw mut cpu.route).cast::<Route>();
    maps::clear(at);
    let flow = &cpu.packet.flow;
    // SAFETY: integers and arrays of them, of that size; nobody else refers to them.
    let route = unsafe { &mut *at };
    route.ifindex = ifindex;
    route.l4_protocol = shape::protocol(&cpu.packet);
    if cpu.packet.version == 4 {
        route.family = AF_INET;
        route.__bindgen_anon_3.ipv4_src = (flow.source[1] >> 32) as u32;
        route.__bindgen_anon_4.ipv4_dst = (flow.destination[1] >> 32) as u32;
    } else {
        route.family = AF_INET6;
        route.__bindgen_anon_3.ipv6_src = words(flow.source);
        route.__bindgen_anon_4.ipv6_dst = words(flow.destination);
    }
    // SAFETY: context and structure are valid for the call.
    let result = unsafe {
        bpf_fib_lookup(context, at, size_of::<Route>() as i32, BPF_FIB_LOOKUP_SKIP_NEIGH)
    } as u32;
    match result {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH | BPF_FIB_LKUP_RET_FRAG_NEEDED => {
            route.ifindex as u64
        }
        // A tunnel that the kernel does not tell the interface of.
        BPF_FIB_LKUP_RET_UNSUPP_LWT => 0,
        _ => HERE,
    }
}

#[inline(always)]
fn words([upper, lower]: [u64; 2]) -> [u32; 4] {
    [upper as u32, (upper >> 32) as u32, lower as u32, (lower >> 32) as u32]
}

const _: () = assert!(size_of::<Route>() == 64);

/// Decides the request in `cpu` for a packet that leaves by `zone`.
#[inline(always)]
pub fn decide(zone: u32, answers: bool, active: Active, table: Table, mut cpu: Cpu) -> Verdict {
    cpu.request.scalars[attribute::EGRESS_ZONE as usize] = zone;
    let bare = cpu.packet.labelled == 0 && cpu.packet.vouched == 0;
    if (answers || cpu.packet.labelled == 0)
        && let Some(verdict) = flows::reply(hook::FORWARD, bare, active, cpu)
    {
        return Verdict { transit: true, ..verdict };
    }
    let verdict = decide::decide(table, program::FORWARD, cpu);
    if verdict.permit {
        flows::remember(hook::FORWARD, active, verdict.rule, bare, cpu);
    }
    verdict
}
