//! Which rows meet a region, or match a point: one bit for each row, attribute by attribute.
//!
//! The classes of an attribute are cut into blocks. For each block there are two sets of rows:
//! those that begin in it or before it, and those that end in it or behind it. What meets a
//! stretch of classes has begun when the stretch ends, and has not ended when it begins; so that
//! two sets for each attribute answer for a stretch of any length. That is too many rows where
//! rows have holes, or share a block: each row that is left is looked at.

#![expect(
    clippy::indexing_slicing,
    reason = "numbers of rows and blocks are made here and are the analysis's inner loop"
)]

use govc_abi::{
    attribute::{self, Attribute},
    walk::Classes,
};

use super::region::Region;
use crate::diagram::RowTable;

/// Into so many blocks the classes of an attribute are cut, at most.
const BLOCKS_MAX: u32 = 128;
const WORD_BITS: usize = 64;

/// The rows of a table up to some number, by what they ask for.
pub(super) struct Index {
    /// Those that leave out most rows first.
    attributes: Vec<Blocks>,
    words: usize,
}

struct Blocks {
    attribute: Attribute,
    /// Classes of a block.
    size: u32,
    words: usize,
    /// By block: rows that begin in it or before it.
    begun: Vec<u64>,
    /// By block: rows that end in it or behind it.
    lasting: Vec<u64>,
}

impl Index {
    pub(super) fn new(table: &RowTable<'_>, rows: u32) -> Self {
        let words = (rows as usize).div_ceil(WORD_BITS);
        let asked = (0..rows).fold(0, |mask, row| mask | table.mask(row));
        let attributes = (0..attribute::COUNT as Attribute).filter(|a| asked & 1 << a != 0);
        let blocks = attributes.map(|attribute| Blocks::new(table, rows, attribute, words));
        let mut attributes: Vec<Blocks> = blocks.collect();
        attributes.sort_by_cached_key(Blocks::density);
        Self { attributes, words }
    }

    /// Calls `each` with every row that may meet the region, and with others, ascending, until
    /// it returns false.
    pub(super) fn may_meet(&self, region: &Region, each: impl FnMut(u32) -> bool) {
        let sets = self.attributes.iter().filter_map(|blocks| {
            let cell = region.cell(blocks.attribute)?;
            let (first, last) = (cell.first()?.0, cell.last()?.1);
            Some(blocks.sets(first, last))
        });
        self.each(&sets.collect::<Vec<_>>(), each);
    }

    /// The same for one point.
    pub(super) fn may_match(&self, point: &Classes, each: impl FnMut(u32) -> bool) {
        let sets = self.attributes.iter().map(|blocks| {
            let class = point[usize::from(blocks.attribute)];
            blocks.sets(class, class)
        });
        self.each(&sets.collect::<Vec<_>>(), each);
    }

    fn each(&self, sets: &[(&[u64], &[u64])], mut each: impl FnMut(u32) -> bool) {
        for word in 0..self.words {
            let mut bits = u64::MAX;
            for (begun, lasting) in sets {
                bits &= begun[word] & lasting[word];
                if bits == 0 {
                    break;
                }
            }
            while bits != 0 {
                if !each((word * WORD_BITS) as u32 + bits.trailing_zeros()) {
                    return;
                }
                bits &= bits - 1;
            }
        }
    }
}

impl Blocks {
    fn new(table: &RowTable<'_>, rows: u32, attribute: Attribute, words: usize) -> Self {
        let classes = table.classes(attribute).count();
        let size = classes.div_ceil(BLOCKS_MAX).max(1);
        let count = classes.div_ceil(size) as usize;
        let (mut begun, mut lasting) = (vec![0_u64; count * words], vec![0_u64; count * words]);
        for row in 0..rows {
            let (mut first, mut last) = (u32::MAX, 0);
            let asks = table.each_interval(row, attribute, |a, b| {
                first = first.min(a);
                last = last.max(b);
            });
            if !asks {
                (first, last) = (0, classes - 1);
            }
            let (word, bit) = (row as usize / WORD_BITS, 1 << (row as usize % WORD_BITS));
            begun[(first / size) as usize * words + word] |= bit;
            lasting[(last / size) as usize * words + word] |= bit;
        }
        for at in words..count * words {
            begun[at] |= begun[at - words];
        }
        for at in (words..count * words).rev() {
            lasting[at - words] |= lasting[at];
        }
        Self { attribute, size, words, begun, lasting }
    }

    fn sets(&self, first: u32, last: u32) -> (&[u64], &[u64]) {
        let range = |class: u32| {
            let start = (class / self.size) as usize * self.words;
            start..start + self.words
        };
        (&self.begun[range(last)], &self.lasting[range(first)])
    }

    /// How many rows are found in a block, by the block.
    fn density(&self) -> u64 {
        let found = self.begun.iter().zip(&self.lasting);
        let sum: u64 = found.map(|(a, b)| u64::from((a & b).count_ones())).sum();
        sum / (self.begun.len() / self.words.max(1)).max(1) as u64
    }
}
