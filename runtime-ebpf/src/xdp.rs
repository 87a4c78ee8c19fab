//! The XDP hook: verifies and strips on hardware devices, before GRO, which skips IPv4 packets
//! with options.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len},
    macros::xdp,
    programs::XdpContext,
};
use govc_abi::{event::hook, label::BLOCK_LEN, reason};

use crate::{
    clock,
    decide::{Verdict, begin},
    header, ingress,
    maps::{self, Table},
    packet::{self, ETH_LEN},
    recall::{self, Now, recall},
    report::{Place, report},
    tc::refuse,
};

/// Verifies, decides and strips arriving packets.
#[xdp(frags)]
pub fn govc_xdp(ctx: XdpContext) -> u32 {
    let xdp = ctx.ctx;
    let Some(cpu) = maps::cpu() else { return xdp_action::XDP_DROP };
    // SAFETY: the context is valid.
    let (ifindex, len) = unsafe { ((*xdp).ingress_ifindex, bpf_xdp_get_buff_len(xdp) as u32) };
    let Some((control, active)) = maps::control() else {
        let counter = govc_abi::flow::reason_counter(hook::INGRESS, reason::GENERATION_UNKNOWN);
        maps::count(2, counter, len);
        return xdp_action::XDP_DROP;
    };
    let coarse_ns = clock::coarse_ns(cpu);
    let place = Place { control, active, coarse_ns, ifindex, len, hook: hook::INGRESS };
    let slot = clock::slot(coarse_ns, control, cpu);
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*xdp).data as usize, (*xdp).data_end as usize) };
    let interface =
        maps::interface(ifindex).filter(|interface| interface.l2_len as usize == ETH_LEN);
    if let Some(interface) = interface {
        let now = Now { control, active, coarse_ns, slot, interface };
        if let Some(recalled) = recall(data, end, len, &now, cpu) {
            let mut verdict = recalled.verdict();
            if verdict.permit && !strip(xdp, recalled.version, recalled.protocol) {
                verdict = Verdict::deny(reason::HELPER_FAILED);
            }
            recall::tell(&recalled, &verdict, active, len, cpu);
            return if verdict.permit { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP };
        }
    }
    begin(cpu);
    let parsed = match (interface, Table::of(active)) {
        (Some(interface), Some(table)) => {
            packet::parse_into(data, end, ETH_LEN, len, cpu).map(|()| (interface, table))
        }
        _ => Err(reason::INTERFACE_UNKNOWN),
    };
    let verdict = match parsed {
        Err(reason) => refuse(reason),
        Ok((interface, table)) => {
            let verdict = if slot < control.slot_floor {
                Verdict::deny(reason::CLOCK_STALE)
            } else {
                let zone = maps::zone(interface, active);
                ingress::decide(zone, control, active, slot, table, cpu)
            };
            let (version, protocol) = (cpu.packet.version, cpu.packet.flow.protocol);
            if verdict.permit && cpu.packet.labelled != 0 && !strip(xdp, version, protocol) {
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
fn strip(xdp: *mut xdp_md, version: u8, protocol: u8) -> bool {
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*xdp).data as usize, (*xdp).data_end as usize) };
    let moved = if version == 4 {
        move_headers::<{ ETH_LEN + packet::V4_LEN }>(data, end)
            && header::strip_v4(data + BLOCK_LEN + ETH_LEN, end)
    } else {
        move_headers::<{ ETH_LEN + packet::V6_LEN }>(data, end)
            && header::strip_v6(data + BLOCK_LEN + ETH_LEN, end, protocol)
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
