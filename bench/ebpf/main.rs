//! The benchmark's eBPF programs: floors to compare with, programs that put a packet back into
//! shape before each repetition, and a stand-in for a peer.
#![no_std]
#![no_main]

mod floor;
mod maps;
mod packet;
mod rewrite;
mod shared;
mod standin;

/// As the enforcement point has it, so that both may call the same helpers.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
