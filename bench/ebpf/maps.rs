//! Maps. The benchmark maps `FRAMES` and `CURSOR` and fills the rest through the kernel.

use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array, LpmTrie, ProgramArray},
    macros::btf_map,
};

use crate::shared::{
    ADDRESSES_MAX, AddressKey, AddressValue, Cursor, FRAMES_MAX, Frame, POLICIES_MAX, PolicyKey,
    PolicyValue,
};

const MMAPABLE: usize = BPF_F_MMAPABLE as usize;

#[btf_map]
static FRAMES: Array<Frame, FRAMES_MAX, MMAPABLE> = Array::new();
#[btf_map]
static CURSOR: Array<Cursor, 1, MMAPABLE> = Array::new();
/// Slot 0: the tcx program that [`crate::rewrite`] leads to.
#[btf_map]
pub static TARGET_TC: ProgramArray<1> = ProgramArray::new();
/// Slot 0: the XDP program that [`crate::rewrite`] leads to.
#[btf_map]
pub static TARGET_XDP: ProgramArray<1> = ProgramArray::new();
#[btf_map]
pub static ADDRESSES: LpmTrie<AddressKey, AddressValue, ADDRESSES_MAX> = LpmTrie::new();
#[btf_map]
pub static POLICIES: LpmTrie<PolicyKey, PolicyValue, POLICIES_MAX> = LpmTrie::new();

/// The cursor, which only one CPU uses at a time.
#[inline(always)]
pub fn cursor() -> Option<&'static mut Cursor> {
    // SAFETY: array values live as long as the program; the benchmark runs one program at a
    // time, and the reference ends with the program.
    CURSOR.get_ptr_mut(0).map(|cursor| unsafe { &mut *cursor })
}

/// The frame whose turn it is.
#[inline(always)]
pub fn next_frame() -> Option<&'static Frame> {
    let cursor = cursor()?;
    let index = cursor.next & cursor.mask;
    cursor.next = cursor.next.wrapping_add(1);
    FRAMES.get(index)
}
