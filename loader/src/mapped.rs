//! Arrays of the kernel mapped into this process: one `BPF_F_MMAPABLE` map each.

use std::{
    os::fd::{AsFd, BorrowedFd},
    ptr::NonNull,
};

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// The values of a mapped array: `entries` of `value_len` bytes each.
pub struct MappedArray {
    base: NonNull<u8>,
    len: usize,
    value_len: usize,
    entries: usize,
}

// SAFETY: the mapping belongs to nobody's thread; all access goes through volatile copies.
unsafe impl Send for MappedArray {}
// SAFETY: as above.
unsafe impl Sync for MappedArray {}

impl MappedArray {
    /// Maps the array behind `fd`.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub fn new(fd: BorrowedFd<'_>, value_len: usize, entries: usize) -> std::io::Result<Self> {
        let value_len = value_len.next_multiple_of(8);
        let len = (value_len * entries).next_multiple_of(rustix::param::page_size());
        let flags = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base =
            unsafe { mmap(std::ptr::null_mut(), len, flags, MapFlags::SHARED, fd.as_fd(), 0)? };
        let base = NonNull::new(base.cast()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, len, value_len, entries })
    }

    /// Bytes of one value.
    #[must_use]
    pub fn value_len(&self) -> usize {
        self.value_len
    }

    /// Start of value `entry`, or `None` when `len` bytes at `offset` do not fit into it.
    fn at(&self, entry: usize, offset: usize, len: usize) -> Option<*mut u8> {
        let end = offset.checked_add(len)?;
        if entry >= self.entries || end > self.value_len {
            return None;
        }
        // SAFETY: inside the mapping.
        Some(unsafe { self.base.as_ptr().add(entry * self.value_len + offset) })
    }

    /// Copies bytes out. Empty when they are out of range.
    #[must_use]
    pub fn read_bytes(&self, entry: usize, offset: usize, len: usize) -> Vec<u8> {
        let Some(at) = self.at(entry, offset, len) else { return Vec::new() };
        let mut bytes = vec![0; len];
        // SAFETY: `len` bytes at `at` are mapped; the kernel may change them while they are
        // copied, which yields some bytes, never undefined references.
        unsafe { std::ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), len) };
        bytes
    }

    /// Copies bytes in. `false` when they do not fit.
    #[must_use]
    pub fn write_bytes(&self, entry: usize, offset: usize, bytes: &[u8]) -> bool {
        let Some(at) = self.at(entry, offset, bytes.len()) else { return false };
        // SAFETY: the bytes at `at` are mapped and writable.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len()) };
        true
    }

    /// Sets all bytes of a value to zero from `offset` on.
    pub fn zero(&self, entry: usize, offset: usize) {
        let len = self.value_len.saturating_sub(offset);
        if let Some(at) = self.at(entry, offset, len) {
            // SAFETY: as above.
            unsafe { std::ptr::write_bytes(at, 0, len) };
        }
    }

    /// Reads a plain value. `None` when it does not fit.
    #[must_use]
    pub fn read<T: Plain>(&self, entry: usize, offset: usize) -> Option<T> {
        let at = self.at(entry, offset, size_of::<T>())?;
        // SAFETY: mapped, and every bit pattern is a `T`.
        Some(unsafe { std::ptr::read_volatile(at.cast()) })
    }

    /// Writes a plain value. [`crate::instance::Instance::open`] has compared the sizes of maps
    /// and values; what lies outside all the same is not written.
    pub fn write<T: Plain>(&self, entry: usize, offset: usize, value: T) {
        if let Some(at) = self.at(entry, offset, size_of::<T>()) {
            // SAFETY: mapped and writable; callers keep to offsets that `T`'s alignment divides.
            unsafe { std::ptr::write_volatile(at.cast(), value) };
        }
    }

    /// As [`Self::write`], for what shall leave no copy of itself elsewhere.
    pub fn copy<T: Plain>(&self, entry: usize, offset: usize, value: &T) {
        if let Some(at) = self.at(entry, offset, size_of::<T>()) {
            // SAFETY: as above, and a value of the caller's does not lie in the map.
            unsafe { std::ptr::copy_nonoverlapping(value, at.cast(), 1) };
        }
    }
}

impl Drop for MappedArray {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` and nothing refers to it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// Types of which every bit pattern is a value and which hold no pointer.
///
/// # Safety
/// Implement it for `repr(C)` structures of integers only.
pub unsafe trait Plain: Copy {}

macro_rules! plain {
    ($($type:ty),*) => { $(
        // SAFETY: integers and `repr(C)` structures of integers without padding.
        unsafe impl Plain for $type {}
    )* };
}

plain!(
    u16,
    u32,
    u64,
    govc_abi::flow::Control,
    govc_abi::flow::Counter,
    govc_abi::flow::Detours,
    govc_abi::flow::Generation,
    govc_abi::flow::Interface,
    govc_abi::flow::Patterns,
    govc_abi::grant::Held,
    govc_abi::key::KeyEntry,
    govc_abi::key::KeyTable
);
