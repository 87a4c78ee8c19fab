//! The XDP hook: verifies and strips on hardware devices, before GRO, which skips IPv4 packets
//! with options.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len},
    macros::xdp,
    programs::XdpContext,
};
use govc_abi::{attribute, event::hook, label::BLOCK_LEN, reason};

use crate::{
    clock,
    decide::Verdict,
    header, ingress, maps,
    maps::{Cpu, Table},
    packet::{self, ETH_LEN},
    report::{Place, report},
    tc::refuse,
};

/// Verifies, decides and strips arriving packets.
#[xdp(frags)]
pub fn govc_xdp(ctx: XdpContext) -> u32 {
    let xdp = ctx.ctx;
    let Some(mut cpu) = maps::cpu() else { return xdp_action::XDP_DROP };
    // SAFETY: the context is valid.
    let (ifindex, len) = unsafe { ((*xdp).ingress_ifindex, bpf_xdp_get_buff_len(xdp) as u32) };
    let Some((control, active)) = maps::control() else {
        let counter = govc_abi::flow::reason_counter(hook::INGRESS, reason::GENERATION_UNKNOWN);
        maps::count(2, counter, len);
        return xdp_action::XDP_DROP;
    };
    maps::clear(&raw mut cpu.label);
    cpu.request.scalars[attribute::STATE as usize] = attribute::state::ABSENT;
    cpu.request.scalars[attribute::OBJECT as usize] = attribute::SCOPE_NONE;
    let place =
        Place { control, active, coarse_ns: clock::coarse_ns(), ifindex, len, hook: hook::INGRESS };
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*xdp).data as usize, (*xdp).data_end as usize) };
    let parsed = match (maps::interface(ifindex), Table::of(active)) {
        (Some(interface), Some(table)) if interface.l2_len as usize == ETH_LEN => {
            packet::parse_into(data, end, ETH_LEN, len, cpu).map(|()| (interface, table))
        }
        _ => Err(reason::INTERFACE_UNKNOWN),
    };
    let verdict = match parsed {
        Err(reason) => refuse(reason),
        Ok((interface, table)) => {
            let slot = clock::slot(place.coarse_ns, control, cpu);
            let verdict = if slot < control.slot_floor {
                Verdict::deny(reason::CLOCK_STALE)
            } else {
                let zone = maps::zone(interface, active);
                ingress::decide(zone, control, active, slot, table, cpu)
            };
            if verdict.permit && cpu.packet.labelled != 0 && !strip(xdp, cpu) {
                Verdict::deny(reason::HELPER_FAILED)
            } else {
                verdict
            }
        }
    };
    report(&place, Table::of(active), &verdict, cpu);
    if verdict.permit { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
}

/// Moves the headers over the label and cuts the front off.
#[inline(always)]
fn strip(xdp: *mut xdp_md, cpu: Cpu) -> bool {
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*xdp).data as usize, (*xdp).data_end as usize) };
    let moved = if cpu.packet.version == 4 {
        move_headers::<{ ETH_LEN + packet::V4_LEN }>(data, end)
            && header::strip_v4(data + BLOCK_LEN + ETH_LEN, end)
    } else {
        move_headers::<{ ETH_LEN + packet::V6_LEN }>(data, end)
            && header::strip_v6(data + BLOCK_LEN + ETH_LEN, end, cpu.packet.flow.protocol)
    };
    // SAFETY: the context is valid; no pointer into the packet is used afterwards.
    moved && unsafe { bpf_xdp_adjust_head(xdp, BLOCK_LEN as i32) } == 0
}

/// Copies the first `N` bytes of the packet over to where the label ends.
#[inline(always)]
fn move_headers<const N: usize>(data: usize, end: usize) -> bool {
    if data + BLOCK_LEN + N > end {
        return false;
    }
    // SAFETY: `BLOCK_LEN + N` bytes are there; the copy goes through registers and the stack.
    unsafe {
        let headers = core::ptr::read_unaligned(data as *const [u8; N]);
        core::ptr::write_unaligned((data + BLOCK_LEN) as *mut [u8; N], headers);
    }
    true
}
