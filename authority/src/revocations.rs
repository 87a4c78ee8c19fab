//! Grants that no longer hold.

use serde::{Deserialize, Serialize};

use crate::intervals::{Intervals, IntervalsError};

/// Words of a revocation bitmap: a bit for each serial that a label can carry.
pub const BITMAP_WORDS: usize = 1 << 10;

/// Serials of grants that were taken back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocations {
    /// From 1 to 65535; others mean nothing.
    serials: Intervals,
}

impl Revocations {
    /// These serials, in any order.
    ///
    /// # Errors
    /// They lie so scattered that a set of intervals cannot hold them.
    pub fn new(serials: impl IntoIterator<Item = u16>) -> Result<Self, IntervalsError> {
        let serials = serials.into_iter().map(|serial| (serial.into(), serial.into()));
        Ok(Self { serials: Intervals::new(serials)? })
    }

    /// The grants that either set takes back.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn union(&self, other: &Self) -> Result<Self, IntervalsError> {
        let serials = self.serials.iter().chain(other.serials.iter());
        Ok(Self { serials: Intervals::new(serials)? })
    }

    /// Whether the grant with this serial was taken back.
    #[must_use]
    pub fn contains(&self, serial: u16) -> bool {
        self.serials.contains(serial.into())
    }

    /// The serials as intervals.
    #[must_use]
    pub fn serials(&self) -> &Intervals {
        &self.serials
    }

    /// Bit `serial % 64` of word `serial / 64` is set for those that were taken back.
    #[must_use]
    pub fn bitmap(&self) -> Vec<u64> {
        let mut words = vec![0; BITMAP_WORDS];
        for (at, word) in (0..).step_by(64).zip(&mut words) {
            for bit in (0..64).filter(|bit| self.serials.contains(at + bit)) {
                *word |= 1 << bit;
            }
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bitmap_says_the_same() {
        let serials = [1_u16, 63, 64, 65, 500, 65_535];
        let revoked = Revocations::new(serials).unwrap();
        let bitmap = revoked.bitmap();
        for serial in 0..=u16::MAX {
            let bit = bitmap[usize::from(serial) / 64] >> (serial % 64) & 1 == 1;
            assert_eq!(bit, serials.contains(&serial));
            assert_eq!(bit, revoked.contains(serial));
        }
    }
}
