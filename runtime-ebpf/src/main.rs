//! The enforcement point: one generic program for every policy.
//!
//! A hook turns its context into a [`packet::Packet`], a step decides it, the hook carries the
//! verdict out. Nothing here panics, allocates or loops without a constant bound; every way out
//! is a verdict with a counted reason.
#![no_std]
#![no_main]

mod again;
mod answer;
mod authority;
mod cgroups;
mod clock;
mod decide;
mod declare;
mod egress;
mod flows;
mod forward;
mod header;
mod ingress;
mod maps;
mod packet;
mod recall;
mod report;
mod restamp;
mod shape;
mod tc;
mod translate;
mod tunnel;
mod xdp;

/// Helpers that touch packets are for GPL programs only; the source is MIT or Apache-2.0 too.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}
