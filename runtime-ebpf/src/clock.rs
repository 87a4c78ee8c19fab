//! Wall-clock time without a daemon: the coarse clock is nearly free but counts from boot, the
//! TAI clock follows the wall but costs six times as much. Each CPU takes the difference now and
//! then, so that steps and slews of the wall clock arrive within a quarter of a second.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns, bpf_ktime_get_tai_ns};
use govc_abi::{flow::Control, label::SLOT_NS};

use crate::maps::Cpu;

/// Age at which the difference is taken anew, nanoseconds.
const RESYNC_NS: u64 = 250_000_000;

/// The slot since the Unix epoch that it is now.
#[inline(always)]
pub fn slot(coarse_ns: u64, control: &Control, mut cpu: Cpu) -> u64 {
    if coarse_ns.wrapping_sub(cpu.synced_ns) > RESYNC_NS || cpu.synced_ns == 0 {
        // SAFETY: no arguments, no side effects.
        let tai_ns = unsafe { bpf_ktime_get_tai_ns() };
        cpu.offset_ns = tai_ns.wrapping_sub(coarse_ns) as i64;
        cpu.synced_ns = coarse_ns;
    }
    let unix_ns =
        coarse_ns.wrapping_add(cpu.offset_ns as u64).wrapping_add(control.tai_offset_ns as u64);
    // A division costs more than all of the above, and hardly ever gives another slot.
    if unix_ns.wrapping_sub(cpu.slot_began_ns) >= SLOT_NS {
        cpu.slot = unix_ns / SLOT_NS;
        cpu.slot_began_ns = cpu.slot * SLOT_NS;
    }
    cpu.slot
}

/// The coarse clock since boot, nanoseconds.
///
/// It moves once for each tick of the kernel, and the tick count is one load where the clock is
/// three calls. A CPU that reads the new count before the timekeeper has set the clock is one tick
/// behind for one tick.
#[inline(always)]
pub fn coarse_ns(mut cpu: Cpu) -> u64 {
    // SAFETY: no arguments, no side effects.
    let tick = unsafe { bpf_jiffies64() };
    if tick != cpu.tick {
        // SAFETY: likewise.
        cpu.coarse_ns = unsafe { bpf_ktime_get_coarse_ns() };
        cpu.tick = tick;
    }
    cpu.coarse_ns
}
