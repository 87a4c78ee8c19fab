//! Programs that make the packet what it was, or another one, before each repetition.
//!
//! `BPF_PROG_TEST_RUN` repeats a program on one and the same packet: what a repetition cuts out
//! is gone for the next one. These programs give the packet its length back, copy the next
//! prepared frame over it and tail-call the program under test. With the empty program under
//! test the same work is done, so that the difference is the program's own.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_NO_CSUM_RESET,
        bpf_adj_room_mode::BPF_ADJ_ROOM_NET,
        xdp_action::{XDP_ABORTED, XDP_PASS},
        xdp_md,
    },
    helpers::generated::{bpf_skb_adjust_room, bpf_xdp_adjust_head},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};

use crate::{maps, shared::FRAME_LEN};

/// An answer that no program under test gives.
const FAILED: i32 = 99;

/// Restores the packet and leads on to `TARGET_TC`.
#[classifier]
pub fn bench_tc_rewrite(ctx: TcContext) -> i32 {
    if restore_tc(ctx.skb.skb).is_some() {
        // SAFETY: nothing of this program is needed afterwards.
        unsafe { maps::TARGET_TC.tail_call(&ctx, 0) };
    }
    FAILED
}

/// Restores the packet and leads on to `TARGET_XDP`.
#[xdp(frags)]
pub fn bench_xdp_rewrite(ctx: XdpContext) -> u32 {
    if restore_xdp(ctx.ctx).is_some() {
        // SAFETY: nothing of this program is needed afterwards.
        unsafe { maps::TARGET_XDP.tail_call(&ctx, 0) };
    }
    XDP_ABORTED
}

/// Makes live frames and hands them to the stack. The kernel gives each its length back, not
/// its bytes.
#[xdp(frags)]
pub fn bench_xdp_generate(ctx: XdpContext) -> u32 {
    match write(ctx.data(), ctx.data_end()) {
        Some(()) => XDP_PASS,
        None => XDP_ABORTED,
    }
}

#[inline(always)]
fn restore_tc(skb: *mut __sk_buff) -> Option<()> {
    // SAFETY: the context is valid; pointers into the packet are read afterwards. The helper is
    // called even when the length is right, so that it costs the same behind every program.
    let (data, end) = unsafe {
        let missing = FRAME_LEN as i32 - (*skb).len as i32;
        let flags = BPF_F_ADJ_ROOM_NO_CSUM_RESET as u64;
        if bpf_skb_adjust_room(skb, missing, BPF_ADJ_ROOM_NET, flags) != 0 {
            return None;
        }
        ((*skb).data as usize, (*skb).data_end as usize)
    };
    write(data, end)
}

#[inline(always)]
fn restore_xdp(xdp: *mut xdp_md) -> Option<()> {
    // SAFETY: as above.
    let (data, end) = unsafe {
        let len = ((*xdp).data_end as usize).wrapping_sub((*xdp).data as usize) as i32;
        if bpf_xdp_adjust_head(xdp, len - FRAME_LEN as i32) != 0 {
            return None;
        }
        ((*xdp).data as usize, (*xdp).data_end as usize)
    };
    write(data, end)
}

/// Copies the next frame over the packet.
#[inline(always)]
fn write(data: usize, end: usize) -> Option<()> {
    let frame = maps::next_frame()?;
    if data + FRAME_LEN > end {
        return None;
    }
    let mut at = data;
    for word in frame {
        // SAFETY: `FRAME_LEN` bytes are there. Volatile: as a copy of memory that the compiler
        // recognises it would become a loop over bytes.
        unsafe { core::ptr::write_unaligned(at as *mut u64, core::ptr::read_volatile(word)) };
        at += 8;
    }
    Some(())
}
