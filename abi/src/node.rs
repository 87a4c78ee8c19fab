//! Entries of flattened decision diagrams and of address tries: one 32-bit word each.
//!
//! A diagram entry says what comes next: a leaf with a value, or a node with the attribute that
//! it tests, how its row is stored, and where. The row is indexed by the class number of the
//! attribute.
//!
//! | bits | leaf | node |
//! | --- | --- | --- |
//! | 31 | 1 | 0 |
//! | 30..29 | value | kind |
//! | 28..24 | value | attribute |
//! | 23..0 | value | base, in units of 4 words |

/// Set in leaves.
pub const LEAF: u32 = 1 << 31;
/// Value of the leaf that says nothing.
pub const LEAF_NONE: u32 = 0x7fff_ffff;
/// The entry of that leaf.
pub const ENTRY_NONE: u32 = LEAF | LEAF_NONE;

/// Row with an entry for each class.
pub const KIND_DENSE: u32 = 0;
/// Three inclusive upper ends, then four entries.
pub const KIND_SPARSE4: u32 = 1;
/// Seven inclusive upper ends, then eight entries.
pub const KIND_SPARSE8: u32 = 2;
/// Row of word indices of pages of 64 entries; pages may be shared.
pub const KIND_PAGED: u32 = 3;

/// Words of a row by kind where that is fixed.
pub const SPARSE4_WORDS: usize = 8;
/// Likewise.
pub const SPARSE8_WORDS: usize = 16;
/// Classes of one page, as a power of two.
pub const PAGE_SHIFT: u32 = 6;
/// Bases count in units of this many words.
pub const BASE_UNIT: u32 = 4;

/// The entry of a leaf.
#[must_use]
pub const fn leaf(value: u32) -> u32 {
    LEAF | value
}

/// The entry of a node whose row starts at word `base_units * 4`.
#[must_use]
pub const fn node(kind: u32, attribute: u8, base_units: u32) -> u32 {
    kind << 29 | (attribute as u32) << 24 | base_units
}

/// An address trie consumes one byte a level, or several where only one way leads on. An entry is a leaf
/// with a class number, or the word index of the next node.
pub mod trie {
    /// First word of a node: an entry for each of 256 byte values follows, at word 8.
    pub const KIND_DENSE: u32 = 0;
    /// First word of a node: words 2 to 5 hold up to eight inclusive upper ends as 16-bit
    /// lanes, ascending and filled up with 255; nine entries follow, at word 8.
    pub const KIND_SPARSE: u32 = 1;
    /// First word of a node that compares up to eight bytes at once: word 1 holds how many bits that
    /// is, words 2 and 3 what they are to be, from the top of 64; the entry if they are stands
    /// at word 4, and behind it the leaf of all others.
    pub const KIND_CHAIN: u32 = 2;
    /// Where the two entries of a chain start.
    pub const CHAIN_ENTRIES_AT: u32 = 4;
    /// Words of a chain, rounded up to a multiple of 4.
    pub const CHAIN_WORDS: usize = 8;
    /// Bits that one chain compares at most.
    pub const CHAIN_BITS_MAX: u32 = 64;
    /// Where the entries start.
    pub const ENTRIES_AT: u32 = 8;
    /// Upper ends of a sparse node.
    pub const ENDS_MAX: usize = 8;

    /// How many of the upper ends in `lanes` lie below `byte`: the index of its entry.
    ///
    /// Four 16-bit lanes a word; bit 8 of `0x100 + byte - 1 - end` is set where `end < byte`.
    #[inline(always)]
    #[must_use]
    pub const fn rank(lanes: [u64; 2], byte: u32) -> u32 {
        const ONES: u64 = 0x0001_0001_0001_0001;
        let x = (0xff + byte as u64) * ONES;
        // Ends that are no bytes give some index; in an image that somebody else has sealed.
        let a = (x.wrapping_sub(lanes[0]) >> 8) & ONES;
        let b = (x.wrapping_sub(lanes[1]) >> 8) & ONES;
        ((a + b).wrapping_mul(ONES) >> 48) as u32
    }

    #[cfg(test)]
    mod tests {
        #[test]
        fn rank_counts_ends_below() {
            let ends = [0_u64, 3, 7, 100, 101, 254, 255, 255];
            let pack = |e: &[u64]| e.iter().rev().fold(0, |w, &end| w << 16 | end);
            let lanes = [pack(&ends[..4]), pack(&ends[4..])];
            for byte in 0..256_u32 {
                let want = ends.iter().filter(|&&end| end < byte as u64).count();
                assert_eq!(super::rank(lanes, byte), want as u32, "{byte}");
            }
        }
    }
}
