//! How far an event ring has been written and read: the first two pages of its mapping.

use std::{
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

use govc_abi::event::Event;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes of an event in the ring: a header of 8 bytes comes before it.
const RECORD_LEN: u64 = 8 + size_of::<Event>().next_multiple_of(8) as u64;

/// The positions of consumer and producer, which count bytes since the ring was made and never
/// wrap. All records are events of one length, so that they count events too.
pub(crate) struct Positions {
    base: NonNull<u8>,
    page: usize,
}

// SAFETY: the mapping belongs to nobody's thread; it is only read, atomically.
unsafe impl Send for Positions {}
// SAFETY: likewise.
unsafe impl Sync for Positions {}

impl Positions {
    /// Maps them.
    ///
    /// # Errors
    /// What mmap(2) says.
    pub(crate) fn map(ring: BorrowedFd<'_>) -> std::io::Result<Self> {
        let page = rustix::param::page_size();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            mmap(std::ptr::null_mut(), 2 * page, ProtFlags::READ, MapFlags::SHARED, ring, 0)?
        };
        let base = NonNull::new(base.cast()).ok_or(std::io::ErrorKind::OutOfMemory)?;
        Ok(Self { base, page })
    }

    /// Events that were published.
    pub(crate) fn published(&self) -> u64 {
        self.at(self.page) / RECORD_LEN
    }

    /// Events that were read.
    pub(crate) fn read(&self) -> u64 {
        self.at(0) / RECORD_LEN
    }

    fn at(&self, offset: usize) -> u64 {
        // SAFETY: each of the two mapped pages begins with an aligned `unsigned long`, which the
        // kernel and readers change atomically.
        let position = unsafe { &*self.base.as_ptr().add(offset).cast::<AtomicU64>() };
        position.load(Ordering::Acquire)
    }
}

impl Drop for Positions {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; nothing refers to it any more.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), 2 * self.page) };
    }
}
