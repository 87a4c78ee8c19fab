//! Sets of numbers as ascending intervals.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Intervals of one set.
pub const INTERVALS_MAX: usize = 4096;

/// A set of numbers: inclusive intervals, ascending, with gaps between them, so that equal sets
/// are equal values. In JSON `[[first,last],..]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "Vec<(u32, u32)>", try_from = "Vec<(u32, u32)>")]
pub struct Intervals(Vec<(u32, u32)>);

/// Why intervals are no set in its only form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IntervalsError {
    /// An interval ends before it starts.
    #[error("the interval from {0} to {1} is empty; write the smaller end first")]
    Backwards(u32, u32),
    /// They overlap, touch or descend.
    #[error("intervals ascend with gaps between them, {0} comes too late or touches; merge them")]
    Order(u32),
    /// More than anybody reads.
    #[error("a set has at most {INTERVALS_MAX} intervals; number its members side by side")]
    TooMany,
}

impl Intervals {
    /// The empty set.
    pub const EMPTY: Self = Self(Vec::new());

    /// The union of these inclusive intervals, in any order.
    ///
    /// # Errors
    /// One ends before it starts, or [`INTERVALS_MAX`] do not suffice.
    pub fn new(intervals: impl IntoIterator<Item = (u32, u32)>) -> Result<Self, IntervalsError> {
        let mut sorted: Vec<_> = intervals.into_iter().collect();
        if let Some((first, last)) = sorted.iter().find(|(first, last)| first > last) {
            return Err(IntervalsError::Backwards(*first, *last));
        }
        sorted.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::new();
        for (first, last) in sorted {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        if merged.len() > INTERVALS_MAX { Err(IntervalsError::TooMany) } else { Ok(Self(merged)) }
    }

    /// All numbers from `first` to `last`; none when `last` is smaller.
    #[must_use]
    pub fn span(first: u32, last: u32) -> Self {
        Self(if first <= last { vec![(first, last)] } else { Vec::new() })
    }

    /// The intervals, ascending.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, u32)> + '_ {
        self.0.iter().copied()
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the number is in it.
    #[must_use]
    pub fn contains(&self, number: u32) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(at).is_some_and(|(first, _)| *first <= number)
    }

    /// The largest number in it.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.0.last().map(|(_, last)| *last)
    }

    /// The smallest number in it.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.0.first().map(|(first, _)| *first)
    }

    /// What is in both. It has at most as many intervals as both together, and where that is
    /// more than [`INTERVALS_MAX`] it is still right, but cannot be written and read again.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.iter().peekable(), other.iter().peekable());
        let mut both = Vec::new();
        while let (Some(a), Some(b)) = (left.peek().copied(), right.peek().copied()) {
            let (first, last) = (a.0.max(b.0), a.1.min(b.1));
            if first <= last {
                both.push((first, last));
            }
            if a.1 < b.1 {
                left.next();
            } else {
                right.next();
            }
        }
        Self(both)
    }

    /// The smallest number that is in it but not in `outer`; [`None`] when it is a subset.
    #[must_use]
    pub fn first_outside(&self, outer: &Self) -> Option<u32> {
        self.iter().find_map(|(first, last)| {
            let at = outer.0.partition_point(|(_, end)| *end < first);
            match outer.0.get(at) {
                // Intervals of `outer` have gaps between them: what follows one is outside.
                Some((start, end)) if *start <= first => (*end < last).then(|| end + 1),
                _ => Some(first),
            }
        })
    }
}

impl From<Intervals> for Vec<(u32, u32)> {
    fn from(set: Intervals) -> Self {
        set.0
    }
}

impl TryFrom<Vec<(u32, u32)>> for Intervals {
    type Error = IntervalsError;

    fn try_from(intervals: Vec<(u32, u32)>) -> Result<Self, IntervalsError> {
        if intervals.len() > INTERVALS_MAX {
            return Err(IntervalsError::TooMany);
        }
        let mut free = Some(0);
        for (first, last) in &intervals {
            if first > last {
                return Err(IntervalsError::Backwards(*first, *last));
            }
            if free.is_none_or(|free| *first < free) {
                return Err(IntervalsError::Order(*first));
            }
            // The next one starts behind the gap; there is none behind the last number.
            free = last.checked_add(2);
        }
        Ok(Self(intervals))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn there_is_one_value_for_a_set() {
        let set = Intervals::new([(5, 7), (1, 2), (3, 4), (9, 9), (6, 6)]).unwrap();
        assert_eq!(set, Intervals::new([(1, 7), (9, 9)]).unwrap());
        assert_eq!(Intervals::new([(2, 1)]), Err(IntervalsError::Backwards(2, 1)));
        assert_eq!(Intervals::new([(0, u32::MAX), (4, 9)]), Ok(Intervals::span(0, u32::MAX)));
        for wrong in [vec![(1, 2), (3, 4)], vec![(5, 6), (1, 2)], vec![(1, u32::MAX), (0, 0)]] {
            assert!(matches!(Intervals::try_from(wrong), Err(IntervalsError::Order(_))));
        }
        let many: Vec<_> = (0..4097).map(|n| (3 * n, 3 * n)).collect();
        assert_eq!(Intervals::new(many.clone()), Err(IntervalsError::TooMany));
        assert_eq!(Intervals::try_from(many), Err(IntervalsError::TooMany));
    }

    /// Sets over 0..128 and the same as a bitmap.
    fn sets() -> impl Strategy<Value = (Intervals, u128)> {
        prop::collection::vec((0_u32..128, 0_u32..8), 0..8).prop_map(|spans| {
            let spans = spans.into_iter().map(|(first, more)| (first, (first + more).min(127)));
            let set = Intervals::new(spans).unwrap();
            let bits = (0..128).filter(|n| set.contains(*n)).fold(0, |bits, n| bits | 1 << n);
            (set, bits)
        })
    }

    proptest! {
        #[test]
        fn meets_and_differences_are_those_of_bitmaps((a, x) in sets(), (b, y) in sets()) {
            let both = a.meet(&b);
            let bits = (0..128).filter(|n| both.contains(*n)).fold(0, |bits, n| bits | 1_u128 << n);
            prop_assert_eq!(bits, x & y);
            prop_assert_eq!(Intervals::try_from(Vec::from(both.clone())), Ok(both));
            let outside = x & !y;
            let first = (outside != 0).then(|| outside.trailing_zeros());
            prop_assert_eq!(a.first_outside(&b), first);
            prop_assert_eq!(a == b, x == y);
        }
    }
}
