//! The decision table: rows are alternatives of rules, columns are attributes, cells are sets
//! of values. Made by [`crate::lower`], taken by [`crate::forest`].

use std::sync::Arc;

use govc_abi::attribute::Attribute;

/// A set of values: disjoint inclusive intervals, ascending, not adjacent. Cheap to clone: a set
/// such as "all bitmaps with bit 0" has 32,768 intervals, and thousands of rules may share it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntervalSet(Arc<[(u128, u128)]>);

impl IntervalSet {
    /// The set of all values in any of the inclusive intervals, which may overlap.
    #[must_use]
    pub fn new(mut intervals: Vec<(u128, u128)>) -> Self {
        intervals.retain(|(first, last)| first <= last);
        intervals.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(intervals.len());
        for (first, last) in intervals {
            match merged.last_mut() {
                Some(previous) if first <= previous.1 || first - previous.1 == 1 => {
                    previous.1 = previous.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged.into())
    }

    /// All values of `bits` bits.
    #[must_use]
    pub fn full(bits: u8) -> Self {
        Self(Arc::new([(0, max_of(bits))]))
    }

    /// The intervals.
    #[must_use]
    pub fn intervals(&self) -> &[(u128, u128)] {
        &self.0
    }

    /// Nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `value` is in it.
    #[must_use]
    pub fn contains(&self, value: u128) -> bool {
        let after = self.0.partition_point(|&(first, _)| first <= value);
        after.checked_sub(1).and_then(|i| self.0.get(i)).is_some_and(|&(_, last)| value <= last)
    }

    /// What is in both.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Self {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some(&&(a, b)), Some(&&(c, d))) = (left.peek(), right.peek()) {
            if a.max(c) <= b.min(d) {
                both.push((a.max(c), b.min(d)));
            }
            if b < d {
                left.next();
            } else {
                right.next();
            }
        }
        Self(both.into())
    }

    /// The values of `bits` bits that are not in it.
    #[must_use]
    pub fn complement(&self, bits: u8) -> Self {
        let max = max_of(bits);
        let mut outside = Vec::with_capacity(self.0.len() + 1);
        let mut next = Some(0);
        for &(first, last) in self.0.iter() {
            if let Some(start) = next
                && start < first
            {
                outside.push((start, first - 1));
            }
            next = if last < max { Some(last + 1) } else { None };
        }
        if let Some(start) = next {
            outside.push((start, max));
        }
        Self(outside.into())
    }
}

/// Largest value of `bits` bits.
#[must_use]
pub fn max_of(bits: u8) -> u128 {
    if bits >= 128 { u128::MAX } else { (1 << bits) - 1 }
}

/// One alternative of a rule: matches when every cell contains the request's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What the program answers; of all rows that match, the smallest value wins.
    pub value: u32,
    /// Cells by ascending attribute; attributes that are not named take any value. No cell is
    /// empty, and none is full.
    pub cells: Vec<(Attribute, IntervalSet)>,
}

/// Rows that are decided together, ascending by value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Rows of rules in force.
    pub enforced: Vec<Row>,
    /// Rows of rules in observe mode.
    pub observed: Vec<Row>,
}

/// One decision program: groups are tried in order, see [`govc_abi::walk`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// The groups.
    pub groups: Vec<Group>,
    /// See [`govc_abi::image::PROGRAM_GOVERNED`].
    pub governed: bool,
}

/// The whole decision table, with everything else that the kernel needs to know.
#[derive(Clone, Debug, Default)]
pub struct DecisionTable {
    /// Programs by [`govc_abi::image::program`].
    pub programs: [Program; govc_abi::image::program::COUNT],
    /// Rule records by rule number; see [`govc_abi::image::rule`].
    pub rules: Vec<u32>,
    /// For each rule number, the rule's position in the checked policy.
    pub rule_positions: Vec<u32>,
    /// Label templates by number: head and mid of a label, and the domain index.
    pub templates: Vec<(u64, u64, u32)>,
    /// Objects by number, as scope keys.
    pub objects: Vec<u32>,
    /// Domain numbers by index, with the mask of constraints that the vocabulary names.
    pub domains: Vec<(u16, u16)>,
}
