//! What the compiler, the loader, the simulator and the eBPF program agree on, byte for byte.
//!
//! Nothing here allocates, panics or depends on another crate, so that the same source
//! compiles for `bpfel-unknown-none` and for the host. All shared structures are `repr(C)`
//! without implicit padding; their sizes are asserted below. Hosts are little-endian.
#![no_std]

pub mod attribute;
pub mod declare;
pub mod event;
pub mod flow;
pub mod grant;
pub mod image;
pub mod key;
pub mod label;
pub mod limits;
pub mod mac;
pub mod memory;
pub mod names;
pub mod node;
pub mod reason;
pub mod siphash;
pub mod translate;
pub mod tunnel;
pub mod walk;

/// Raised whenever a shared layout or its meaning changes; kernel state of another version is
/// never touched.
pub const ABI_VERSION: u32 = 4;

#[cfg(target_endian = "big")]
compile_error!("govc supports little-endian hosts only");
