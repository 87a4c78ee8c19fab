//! From cells to classes: one sweep over the ends of all their intervals.

use rustc_hash::FxHashMap;

use super::AttributeClasses;
use crate::{
    intern::{Slots, mix},
    table::{IntervalSet, max_of},
};

/// The classes of an attribute and the numbers of its cells. Equal cells get equal numbers, in
/// the order of first appearance.
pub(super) fn number(sets: &[&IntervalSet], bits: u8) -> (AttributeClasses, Vec<u32>) {
    let window = Window::of(bits);
    let mut numbers = CellNumbers::default();
    let cells = sets.iter().map(|set| numbers.number(set, window)).collect();
    (sweep(&numbers.list, bits, window), cells)
}

/// 2^32 values that hold nearly all there are: of attributes that are not addresses all, of
/// addresses the IPv4 mapped ones.
#[derive(Clone, Copy)]
struct Window {
    base: u128,
}

impl Window {
    fn of(bits: u8) -> Self {
        Self { base: if bits > 32 { 0xffff_0000_0000 } else { 0 } }
    }

    /// The position of a value, if it lies in the window or just behind it.
    fn position(self, value: u128) -> Option<u64> {
        let position = value.checked_sub(self.base)?;
        (position <= 1 << 32).then_some(position as u64)
    }
}

/// Numbers of the different cells.
#[derive(Default)]
struct CellNumbers<'a> {
    list: Vec<&'a IntervalSet>,
    /// Cells of one interval in the window, by its ends: nearly all there are.
    plain: FxHashMap<u64, u32>,
    others: FxHashMap<Key<'a>, u32>,
}

/// A cell that is hashed by its outline only: bitmap tests have up to 32,768 intervals.
#[derive(PartialEq, Eq)]
struct Key<'a>(&'a IntervalSet);

impl std::hash::Hash for Key<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        let intervals = self.0.intervals();
        intervals.len().hash(state);
        intervals.first().hash(state);
        intervals.last().hash(state);
    }
}

impl<'a> CellNumbers<'a> {
    fn number(&mut self, set: &'a IntervalSet, window: Window) -> u32 {
        let next = self.list.len() as u32;
        let plain = match *set.intervals() {
            [(first, last)] => window.position(first).zip(window.position(last)),
            _ => None,
        };
        let number = match plain {
            Some((first, last)) if last < 1 << 32 => {
                *self.plain.entry(first << 32 | last).or_insert(next)
            }
            _ => *self.others.entry(Key(set)).or_insert(next),
        };
        if number == next {
            self.list.push(set);
        }
        number
    }
}

/// The classes of cells.
fn sweep(sets: &[&IntervalSet], bits: u8, window: Window) -> AttributeClasses {
    let mut ends = Ends::collect(sets, bits, window);
    // For each interval, the classes known before the sweep reaches its first value and the one
    // behind its last: the interval in class numbers.
    let mut bounds = vec![[u32::MAX; 2]; ends.cells.len()];
    let (mut starts, mut classes) = (vec![0], vec![0]);
    let mut known = Signatures::default();
    let mut signature = 0_u128;
    let mut next = ends.next();
    if next.is_none_or(|end| end.position != 0) {
        known.class(signature);
    }
    while let Some(End { position, .. }) = next {
        let before = known.list.len() as u32;
        while let Some(end) = next.filter(|end| end.position == position) {
            let interval = end.interval as usize;
            let cell = ends.cells.get(interval).copied().unwrap_or(0);
            signature ^= token(ends.seed, cell);
            if let Some([first, behind]) = bounds.get_mut(interval) {
                *(if end.behind { behind } else { first }) = before;
            }
            next = ends.next();
        }
        let class = known.class(signature);
        if position == 0 {
            classes = vec![class];
        } else if classes.last() != Some(&class) {
            starts.push(position);
            classes.push(class);
        }
    }
    let count = known.list.len() as u32;
    let (cells, cell_ends) = cells(sets, &bounds, count);
    AttributeClasses { starts, classes, count, cells, cell_ends }
}

/// Cells as intervals of classes, one after the other, and where each cell ends.
fn cells(sets: &[&IntervalSet], bounds: &[[u32; 2]], count: u32) -> (Vec<(u32, u32)>, Vec<u32>) {
    let mut cells: Vec<(u32, u32)> = Vec::with_capacity(sets.len());
    let mut cell_ends = Vec::with_capacity(sets.len());
    let mut bounds = bounds.iter();
    for set in sets {
        let start = cells.len();
        for &[first, behind] in bounds.by_ref().take(set.intervals().len()) {
            let behind = behind.min(count);
            // All classes of this interval began in one before.
            if first >= behind {
                continue;
            }
            match cells.get_mut(start..).and_then(<[_]>::last_mut) {
                Some((_, last)) if *last + 1 == first => *last = behind - 1,
                _ => cells.push((first, behind - 1)),
            }
        }
        cell_ends.push(cells.len() as u32);
    }
    (cells, cell_ends)
}

/// An end of an interval.
#[derive(Clone, Copy)]
struct End {
    /// Its first value, or the value behind its last.
    position: u128,
    /// Which of the two.
    behind: bool,
    /// Number of the interval, counted through all cells.
    interval: u32,
}

/// The ends of all intervals of all cells, ascending.
struct Ends {
    /// Position, interval and kind in one number: sorting is most of the work here.
    window: std::vec::IntoIter<u64>,
    before: std::vec::IntoIter<(u128, u32, bool)>,
    after: std::vec::IntoIter<(u128, u32, bool)>,
    base: u128,
    /// By interval: the cell.
    cells: Vec<u32>,
    /// A number that depends on all of them.
    seed: u64,
}

impl Ends {
    /// Bits for the interval and the kind of the end. Tables of 2^30 intervals do not fit memory.
    const INTERVAL_BITS: u32 = 31;

    fn collect(sets: &[&IntervalSet], bits: u8, window: Window) -> Self {
        let max = max_of(bits);
        let mut packed = Vec::with_capacity(2 * sets.len());
        let (mut before, mut after) = (Vec::new(), Vec::new());
        let mut cells = Vec::with_capacity(sets.len());
        let mut seed = 0;
        for (cell, set) in (0..).zip(sets) {
            for &(first, last) in set.intervals() {
                let interval = cells.len() as u32;
                cells.push(cell);
                let behind = (last < max).then(|| (last + 1, true));
                for (value, behind) in [(first, false)].into_iter().chain(behind) {
                    let code = u64::from(interval) << 1 | u64::from(behind);
                    match window.position(value) {
                        Some(position) => packed.push(position << Self::INTERVAL_BITS | code),
                        None if value < window.base => before.push((value, interval, behind)),
                        None => after.push((value, interval, behind)),
                    }
                }
                seed = mix(seed ^ (first >> 64) as u64, first as u64);
                seed = mix(seed ^ (last >> 64) as u64, last as u64);
            }
        }
        packed.sort_unstable();
        before.sort_unstable();
        after.sort_unstable();
        Self {
            window: packed.into_iter(),
            before: before.into_iter(),
            after: after.into_iter(),
            base: window.base,
            cells,
            seed,
        }
    }

    fn next(&mut self) -> Option<End> {
        let unpacked = |(position, interval, behind)| End { position, behind, interval };
        if let Some(end) = self.before.next() {
            return Some(unpacked(end));
        }
        if let Some(packed) = self.window.next() {
            let code = packed & ((1 << Self::INTERVAL_BITS) - 1);
            return Some(End {
                position: self.base + u128::from(packed >> Self::INTERVAL_BITS),
                behind: code & 1 != 0,
                interval: (code >> 1) as u32,
            });
        }
        self.after.next().map(unpacked)
    }
}

/// Classes by signature.
#[derive(Default)]
struct Signatures {
    list: Vec<u128>,
    slots: Slots,
}

impl Signatures {
    /// The class with this signature, which may be a new one.
    fn class(&mut self, signature: u128) -> u32 {
        let next = self.list.len() as u32;
        let same = |class: u32| self.list.get(class as usize) == Some(&signature);
        self.slots.find_or_insert(signature as u64, next, same).unwrap_or_else(|| {
            self.list.push(signature);
            next
        })
    }
}

/// What a cell adds to the signature of the sets that hold it.
///
/// Sets are taken as equal when their tokens sum up to the same. The tokens hang on all interval
/// ends of the table, so that nobody can look for rows whose tokens cancel out: any change that
/// would use such rows changes the tokens.
fn token(seed: u64, cell: u32) -> u128 {
    let upper = mix(seed, u64::from(cell) << 1);
    let lower = mix(seed ^ upper, u64::from(cell) << 1 | 1);
    u128::from(upper) << 64 | u128::from(lower)
}
