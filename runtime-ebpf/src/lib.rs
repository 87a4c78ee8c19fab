//! The enforcement point's eBPF object, prebuilt: nobody needs an eBPF toolchain to use govc.
//!
//! `cargo xtask ebpf` makes it from `src/main.rs` and records the digest of its source and the
//! versions of the compilers beside it.
#![no_std]

/// Keeps the object on a boundary that ELF readers accept.
#[repr(C, align(64))]
struct Aligned<T: ?Sized>(T);

static ALIGNED: &Aligned<[u8]> = &Aligned(*include_bytes!("../prebuilt/govc.bpf.o"));

/// The object: an ELF file for `bpfel-unknown-none` with BTF.
pub static OBJECT: &[u8] = &ALIGNED.0;

/// What it was built from and by: TOML with `source_sha256`, `object_sha256`, `rustc` and
/// `bpf_linker`.
pub static BUILD_RECORD: &str = include_str!("../prebuilt/build.toml");
