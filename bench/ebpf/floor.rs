//! Floors: what nobody can do for less.

use aya_ebpf::{
    bindings::{
        tcx_action_base::{TCX_DROP, TCX_NEXT},
        xdp_action::{XDP_DROP, XDP_PASS},
    },
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use govc_abi::mac;

use crate::{
    maps,
    packet::{Labelled, parse},
};

/// Does nothing.
#[xdp(frags)]
pub fn bench_xdp_empty(_: XdpContext) -> u32 {
    XDP_PASS
}

/// Does nothing.
#[classifier]
pub fn bench_tc_empty(_: TcContext) -> i32 {
    TCX_NEXT
}

/// Parses.
#[xdp(frags)]
pub fn bench_xdp_parse(ctx: XdpContext) -> u32 {
    if reads_all(ctx.data(), ctx.data_end()) { XDP_PASS } else { XDP_DROP }
}

/// Parses.
#[classifier]
pub fn bench_tc_parse(ctx: TcContext) -> i32 {
    if reads_all(ctx.data(), ctx.data_end()) { TCX_NEXT } else { TCX_DROP }
}

/// Parses and verifies the MAC.
#[xdp(frags)]
pub fn bench_xdp_mac(ctx: XdpContext) -> u32 {
    if has_good_mac(ctx.data(), ctx.data_end()) { XDP_PASS } else { XDP_DROP }
}

/// Parses and verifies the MAC.
#[classifier]
pub fn bench_tc_mac(ctx: TcContext) -> i32 {
    if has_good_mac(ctx.data(), ctx.data_end()) { TCX_NEXT } else { TCX_DROP }
}

/// Ends the live path: counts the packet and drops it.
#[classifier]
pub fn bench_tc_end(_: TcContext) -> i32 {
    if let Some(cursor) = maps::cursor() {
        cursor.seen += 1;
    }
    TCX_DROP
}

/// Parses, and lets no field go unused.
#[inline(always)]
fn reads_all(data: usize, end: usize) -> bool {
    let Some(Labelled { label, flow, mac }) = parse(data, end) else { return false };
    let words = mac::input(&label, &flow);
    let mut sum = mac;
    for word in words {
        sum ^= word;
    }
    sum != u64::MAX
}

#[inline(always)]
fn has_good_mac(data: usize, end: usize) -> bool {
    let Some(packet) = parse(data, end) else { return false };
    let Some(cursor) = maps::cursor() else { return false };
    mac::mac(cursor.k0, cursor.k1, &packet.label, &packet.flow) == packet.mac
}
