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

/// A label that a stamp or legacy rule writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// See [`govc_abi::label::Label`].
    pub head: u64,
    /// Likewise.
    pub mid: u64,
    /// Index of its domain.
    pub domain_index: u32,
    /// What a socket declares to get it, see [`govc_abi::declare::hash`]; 0 for nothing.
    pub declared: u64,
    /// Number of the first label that sockets get by declaring another operation of the rule, and
    /// how many there are.
    pub further: (u32, u32),
    /// Fragments get it too.
    pub fragments: bool,
}

/// Whose labels become whose: [`govc_abi::image::TRANSLATION_WORDS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// First subject, a scope key; behind the last one where nobody is meant.
    pub first: u32,
    /// Last subject likewise.
    pub last: u32,
    /// The subject that they become; [`None`] when they stay who they are.
    pub subject: Option<u32>,
    /// Number of the transform.
    pub transform: u32,
}

/// What becomes of the other fields: [`govc_abi::image::TRANSFORM_WORDS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transform {
    /// Index of the domain that it leads to.
    pub domain_index: u32,
    /// The domain stays the same.
    pub same: bool,
    /// Addresses and ports may have changed.
    pub readdress: bool,
    /// Largest radius.
    pub radius: u8,
    /// Longest life.
    pub life: u8,
    /// The level that each becomes.
    pub levels: [u8; govc_abi::limits::LEVELS_MAX],
    /// Constraints that are added.
    pub added: u16,
    /// What each constraint becomes; [`None`] where it is refused.
    pub constraints: [Option<u16>; govc_abi::limits::CONSTRAINTS_MAX],
    /// What each compartment becomes likewise.
    pub compartments: [Option<u16>; govc_abi::limits::COMPARTMENTS_MAX],
    /// What numbers of operations, residency sets and route classes become, ascending; [`None`] when
    /// they stay.
    pub numbers: [Option<Vec<(u16, u16)>>; 3],
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
    /// Labels by number: of stamp rules, of legacy rules, then the further ones of stamp rules.
    pub labels: Vec<Label>,
    /// Translations by number.
    pub translations: Vec<Translation>,
    /// Transforms by number.
    pub transforms: Vec<Transform>,
    /// Number of carriage rules.
    pub carriages: u32,
    /// Objects by number, as scope keys.
    pub objects: Vec<u32>,
    /// Domain numbers by index, with the mask of constraints that the vocabulary names.
    pub domains: Vec<(u16, u16)>,
    /// Moments at which rules begin or end, as slots since the Unix epoch, ascending.
    pub times: Vec<u32>,
    /// Set of [`govc_abi::attribute::shape`] that rules let through.
    pub shapes: u32,
}
