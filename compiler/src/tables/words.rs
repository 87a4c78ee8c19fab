//! The words of an image under construction.

use govc_abi::limits::IMAGE_WORDS_MAX;

use super::{Kind, Sizes, TooBig};
use crate::intern::{Slots, hash};

/// An image that grows; pieces that are equal are stored once.
#[derive(Clone, Debug)]
pub(super) struct Words {
    words: Vec<u32>,
    /// Where each piece starts, and its length.
    pieces: Vec<(u32, u32)>,
    slots: Slots,
    sizes: Sizes,
}

impl Words {
    pub(super) fn new(words: Vec<u32>) -> Self {
        Self { words, pieces: Vec::new(), slots: Slots::default(), sizes: Sizes::default() }
    }

    /// The index of a piece with these words. `align` is a power of two of words.
    pub(super) fn place(&mut self, kind: Kind, piece: &[u32], align: usize) -> Result<u32, TooBig> {
        let at = self.words.len().next_multiple_of(align);
        if at + piece.len() > IMAGE_WORDS_MAX {
            return Err(TooBig);
        }
        let number = self.pieces.len() as u32;
        let same = |other: u32| {
            self.pieces.get(other as usize).is_some_and(|&(start, len)| {
                let (start, len) = (start as usize, len as usize);
                start.is_multiple_of(align) && self.words.get(start..start + len) == Some(piece)
            })
        };
        if let Some(known) = self.slots.find_or_insert(hash(piece), number, same) {
            return Ok(self.pieces.get(known as usize).map_or(0, |&(start, _)| start));
        }
        self.words.resize(at, 0);
        self.words.extend_from_slice(piece);
        self.pieces.push((at as u32, piece.len() as u32));
        self.sizes.add(kind, piece.len());
        Ok(at as u32)
    }

    /// Makes room for so many words.
    pub(super) fn reserve(&mut self, words: usize) {
        self.words.reserve(words.min(IMAGE_WORDS_MAX));
    }

    /// All words, and what they are for.
    pub(super) fn finish(self) -> (Vec<u32>, Sizes) {
        (self.words, self.sizes)
    }
}
