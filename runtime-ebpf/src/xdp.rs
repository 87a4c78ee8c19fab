//! The XDP hook: verifies and strips on hardware devices, before GRO, which skips IPv4 packets
//! with options.

use aya_ebpf::{
    bindings::{xdp_action, xdp_md},
    helpers::generated::{bpf_xdp_adjust_head, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    macros::xdp,
    programs::XdpContext,
};
use govc_abi::{event::hook, label::BLOCK_LEN, reason};

use crate::{
    authority, clock,
    decide::{Verdict, begin},
    forward::passes_on,
    header,
    ingress::{self, Arrival},
    maps::{self, Cpu, LIFETIME, Table},
    packet::{self, ETH_LEN},
    recall::{self, recall},
    report::{Place, report},
    shape,
    tc::refuse,
};

/// Bytes of a VLAN tag.
const TAG_LEN: usize = 4;

/// Verifies, decides and strips arriving packets.
#[xdp(frags)]
#[inline(always)]
pub fn govc_xdp(ctx: XdpContext) -> u32 {
    let xdp = ctx.ctx;
    let Some(cpu) = maps::cpu() else { return xdp_action::XDP_DROP };
    // SAFETY: the context is valid.
    let (ifindex, len) = unsafe { ((*xdp).ingress_ifindex, bpf_xdp_get_buff_len(xdp) as u32) };
    let in_force = maps::control()
        .and_then(|(control, active)| Table::of(active).map(|table| (control, active, table)));
    let Some((control, active, table)) = in_force else {
        let counter = govc_abi::flow::reason_counter(hook::INGRESS, reason::GENERATION_UNKNOWN);
        maps::count(LIFETIME, counter, len);
        return xdp_action::XDP_DROP;
    };
    let coarse_ns = clock::coarse_ns(cpu);
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*xdp).data as usize, (*xdp).data_end as usize) };
    let tag_len = tag_len(data, end, cpu);
    // From where the Ethernet header of the same frame without the tag would begin. On the tcx hook
    // tags are not part of the packet either.
    let (data, len) = (data + tag_len, len.wrapping_sub(tag_len as u32));
    let leaving = core::ptr::null_mut();
    let place = Place { control, active, coarse_ns, ifindex, len, hook: hook::INGRESS, leaving };
    let slot = clock::slot(coarse_ns, control, cpu);
    let interface =
        maps::interface(ifindex).filter(|interface| interface.l2_len as usize == ETH_LEN);
    if let Some(interface) = interface {
        if let Some(recalled) = recall(data, end, interface, slot, &place) {
            let verdict = recalled.verdict();
            let done = !verdict.permit || strip(xdp, tag_len, recalled.version, recalled.protocol);
            let verdict = verdict.carried_out(done);
            recall::tell(recalled.reports(), &verdict, &place, cpu);
            return if verdict.permit { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP };
        }
    }
    let zone = interface.map_or(0, |interface| maps::zone(interface, active));
    begin((zone, 0), cpu);
    let parsed = match interface {
        Some(_) => match packet::parse_into(data, end, ETH_LEN, len, cpu) {
            Err(refused) if shape::is_asked_about(table, refused) => {
                read_again(xdp, tag_len, len, table, refused)
            }
            parsed => parsed,
        },
        None => Err(reason::INTERFACE_UNKNOWN),
    };
    let verdict = match parsed {
        Err(reason) => refuse(reason),
        Ok(()) => {
            let on_link = cpu.packet.neighbour != 0 && !passes_on(xdp.cast(), ifindex, cpu);
            let verdict = if on_link {
                refuse(reason::LINK_CONTROL)
            } else if let Some(reason) = authority::untimely(control, active, slot) {
                Verdict::deny(reason)
            } else {
                let arrival = Arrival { context: xdp.cast(), ifindex, zone, slot };
                ingress::decide(&arrival, active, table, cpu)
            };
            let (version, protocol) = (cpu.packet.version, cpu.packet.flow.protocol);
            let bare = !verdict.permit || verdict.transit || cpu.packet.labelled == 0;
            let done = bare || strip(xdp, tag_len, version, protocol);
            verdict.carried_out(done && learn_mtu(xdp, tag_len, &verdict, cpu))
        }
    };
    report(&place.of(&verdict), table, &verdict, cpu);
    if verdict.permit { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
}

/// Bytes of an 802.1Q or 802.1ad tag that the device has left in the frame: 4, or 0.
#[inline(always)]
fn tag_len(data: usize, end: usize, mut cpu: Cpu) -> usize {
    const TAGS: [u16; 2] = [0x8100_u16.to_be(), 0x88a8_u16.to_be()];
    if data + ETH_LEN > end {
        return 0;
    }
    // SAFETY: 14 bytes are there.
    let ethertype: u16 = unsafe { packet::load(data + 12) };
    let len = if ethertype == TAGS[0] || ethertype == TAGS[1] { TAG_LEN as u8 } else { 0 };
    // By way of memory, where the verifier does not track it: it would go through everything that
    // follows once for each.
    let at = &raw mut cpu.packet.version;
    // SAFETY: the field is this CPU's; parsing sets it anew.
    unsafe {
        at.write_volatile(len);
        at.read_volatile() as usize & TAG_LEN
    }
}

/// As on the tcx hook; `len` is without the tag.
#[inline(always)]
fn read_again(
    xdp: *mut xdp_md,
    tag_len: usize,
    len: u32,
    table: Table,
    refused: u8,
) -> Result<(), u8> {
    let Some(mut cpu) = maps::cpu() else { return Err(refused) };
    let (at, len) = ((tag_len + ETH_LEN) as u32, len.wrapping_sub(ETH_LEN as u32));
    let wanted = shape::wanted(len);
    let to = cpu.headers.as_mut_ptr();
    // SAFETY: the context is valid, and at most as much is written as there is room for.
    if wanted == 0 || unsafe { bpf_xdp_load_bytes(xdp, at, to.cast(), wanted) } != 0 {
        return Err(refused);
    }
    shape::read(table, len, refused)
}

/// As on the tcx hook.
#[inline(always)]
fn learn_mtu(xdp: *mut xdp_md, tag_len: usize, verdict: &Verdict, cpu: Cpu) -> bool {
    if !verdict.permit || verdict.transit || !packet::tells_mtu(&cpu.packet) {
        return true;
    }
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*xdp).data as usize, (*xdp).data_end as usize) };
    header::lower_mtu(data + tag_len + ETH_LEN, packet::ip_len(&cpu.packet), end)
}

/// Moves the headers over the label and cuts the front off.
#[inline(always)]
fn strip(xdp: *mut xdp_md, tag_len: usize, version: u8, protocol: u8) -> bool {
    const V4: usize = ETH_LEN + packet::V4_LEN;
    const V6: usize = ETH_LEN + packet::V6_LEN;
    // SAFETY: the context is valid.
    let (data, end) = unsafe { ((*xdp).data as usize, (*xdp).data_end as usize) };
    let mut removed = 0;
    if version == 4 {
        let Some(sum) = header::block_sum(data + tag_len + V4, end) else { return false };
        removed = sum;
    }
    let moved = match (version, tag_len) {
        (4, 0) => move_headers::<V4>(data, end),
        (4, _) => move_headers::<{ V4 + TAG_LEN }>(data, end),
        (_, 0) => move_headers::<V6>(data, end),
        _ => move_headers::<{ V6 + TAG_LEN }>(data, end),
    };
    let ip = data + BLOCK_LEN + tag_len + ETH_LEN;
    let written = moved
        && if version == 4 {
            header::strip_v4(ip, end, removed).is_some()
        } else {
            header::strip_v6(ip, end, protocol).is_some()
        };
    // SAFETY: the context is valid; no pointer into the packet is used afterwards.
    written && unsafe { bpf_xdp_adjust_head(xdp, BLOCK_LEN as i32) } == 0
}

/// Copies the first `N` bytes of the packet over to where the label ends. A function for each length: of all of
/// them together the compiler makes a copy of so many bytes, which goes byte by byte.
#[inline(never)]
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
