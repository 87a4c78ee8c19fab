//! The kernel's view of an image.

use govc_abi::{limits::TABLE_WORDS_MIN, walk::Tables};

use crate::{Image, image};

/// The words of an image in a table like the kernel's: its size is a power of two, every index
/// is taken modulo the size, and what the image does not fill is zero.
#[derive(Clone, Copy, Debug)]
pub struct ImageTables<'a> {
    bytes: &'a [u8],
    mask: u32,
}

impl<'a> ImageTables<'a> {
    /// The smallest table that holds the image.
    #[must_use]
    pub fn new(image: &'a Image) -> Self {
        let bytes = image.bytes();
        let words = (bytes.len() / 4).next_power_of_two().max(TABLE_WORDS_MIN);
        Self { bytes, mask: words as u32 - 1 }
    }
}

impl Tables for ImageTables<'_> {
    fn word(&self, index: u32) -> u32 {
        image::word(self.bytes, index & self.mask)
    }
}
