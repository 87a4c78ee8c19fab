//! Hash-consing: slices of words that are stored once, however often they are made.
//!
//! Numbers are given out in the order of first appearance, so that nothing depends on the order
//! of a hash table.

#![expect(
    clippy::indexing_slicing,
    reason = "spans and slots are made here, in one place, and this is the compiler's inner loop"
)]

/// Slot of a [`Slots`] that holds nothing.
const VACANT: (u32, u32) = (0, u32::MAX);

/// Slices by number, each there once.
#[derive(Clone, Debug)]
pub struct Interner {
    words: Vec<u32>,
    /// Where each slice ends in `words`; it starts where the one before ends.
    ends: Vec<u32>,
    slots: Slots,
}

impl Default for Interner {
    fn default() -> Self {
        Self { words: Vec::new(), ends: vec![0], slots: Slots::default() }
    }
}

impl Interner {
    /// The number of a slice, and whether it is new. All slices together must stay below 2^32
    /// words; the callers' budgets see to that.
    pub fn intern(&mut self, slice: &[u32]) -> (u32, bool) {
        let number = self.count() as u32;
        let (words, ends) = (&self.words, &self.ends);
        let same = |other: u32| words_of(words, ends, other) == slice;
        if let Some(known) = self.slots.find_or_insert(hash(slice), number, same) {
            return (known, false);
        }
        self.words.extend_from_slice(slice);
        self.ends.push(self.words.len() as u32);
        (number, true)
    }

    /// The slice with this number, which [`Self::intern`] has given out.
    #[must_use]
    pub fn get(&self, number: u32) -> &[u32] {
        words_of(&self.words, &self.ends, number)
    }

    /// How many slices there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.ends.len() - 1
    }

    /// Words of all slices together.
    #[must_use]
    pub fn word_count(&self) -> usize {
        self.words.len()
    }
}

fn words_of<'a>(words: &'a [u32], ends: &[u32], number: u32) -> &'a [u32] {
    &words[ends[number as usize] as usize..ends[number as usize + 1] as usize]
}

/// An open hash from hash values to numbers; what the numbers stand for lies elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    /// Part of the hash, and the number.
    slots: Vec<(u32, u32)>,
    len: usize,
}

impl Slots {
    /// The number of an entry with this hash that is the same, by `same`; when there is none,
    /// `number` is entered. Numbers are below `u32::MAX`.
    pub fn find_or_insert(
        &mut self,
        hash: u64,
        number: u32,
        same: impl Fn(u32) -> bool,
    ) -> Option<u32> {
        if self.len * 2 >= self.slots.len() {
            self.grow();
        }
        let mask = self.slots.len() - 1;
        let tag = hash as u32;
        let mut at = tag as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == VACANT {
                self.slots[at] = (tag, number);
                self.len += 1;
                return None;
            }
            if slot.0 == tag && same(slot.1) {
                return Some(slot.1);
            }
            at = (at + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let size = (self.slots.len() * 2).max(64);
        let old = std::mem::replace(&mut self.slots, vec![VACANT; size]);
        for slot in old.into_iter().filter(|&slot| slot != VACANT) {
            let mut at = slot.0 as usize & (size - 1);
            while self.slots[at] != VACANT {
                at = (at + 1) & (size - 1);
            }
            self.slots[at] = slot;
        }
    }
}

/// A hash of words; every bit of the result depends on every word.
#[must_use]
pub fn hash(words: &[u32]) -> u64 {
    let mut state = words.len() as u64;
    let mut pairs = words.chunks_exact(2);
    for pair in &mut pairs {
        state = mix(state, u64::from(pair[0]) << 32 | u64::from(pair[1]));
    }
    if let [last] = pairs.remainder() {
        state = mix(state, u64::from(*last));
    }
    mix(state, 0)
}

/// One step of a hash: both halves of a product, folded.
#[must_use]
pub fn mix(state: u64, word: u64) -> u64 {
    let product =
        u128::from(state ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xd1b5_4a32_d192_ed03);
    (product as u64 ^ (product >> 64) as u64).rotate_left(23)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_slices_share_a_number() {
        let mut interner = Interner::default();
        for round in 0..2 {
            for i in 0..10_000_u32 {
                let slice: Vec<u32> = (0..i % 7).map(|j| i / 7 + j).collect();
                let (number, fresh) = interner.intern(&slice);
                assert_eq!(interner.get(number), slice);
                assert!(round == 0 || !fresh);
            }
        }
        // One empty slice, and all the others differ.
        assert_eq!(interner.count(), 1 + 10_000 - 10_000_usize.div_ceil(7));
    }

    #[test]
    fn hashes_of_similar_slices_spread() {
        let mut seen = std::collections::HashSet::new();
        for i in 0..1000_u32 {
            for j in 0..100_u32 {
                seen.insert(hash(&[i, j]) as u32);
            }
        }
        assert!(seen.len() > 99_990, "{}", seen.len());
    }
}
