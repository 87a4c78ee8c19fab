//! Class numbers: all values of an attribute that no row tells apart share one.
//!
//! A class is named by the set of cells that its values lie in. One sweep over the ends of all
//! intervals keeps a running hash of that set, so that values far apart, as those of bitmaps
//! are, meet in one class without anyone comparing sets.
//!
//! Classes are numbered by their first value. A class that lies in an interval has its first
//! value there, and the other way round, so that **an interval of values is an interval of
//! classes**, whatever the classes in it look like; a cell of many intervals becomes at most as
//! many.

use govc_abi::{
    attribute::{self, Attribute, Request},
    walk,
};

use crate::{
    intern::{Slots, mix},
    table::{DecisionTable, Group, IntervalSet, Row, max_of},
};

/// The decision table in class numbers.
#[derive(Clone, Debug)]
pub struct Classification {
    attributes: Vec<AttributeClasses>,
    programs: Vec<Vec<ClassGroup>>,
}

/// The classes of one attribute.
#[derive(Clone, Debug, Default)]
pub struct AttributeClasses {
    /// Where the class changes, ascending from 0, and to which.
    starts: Vec<u128>,
    classes: Vec<u32>,
    count: u32,
    /// Sets of classes, by cell number: disjoint inclusive intervals, ascending, not adjacent.
    cells: Vec<(u32, u32)>,
    cell_ends: Vec<u32>,
}

/// A group of the decision table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassGroup {
    /// Rows of rules in force.
    pub enforced: ClassRows,
    /// Rows of rules in observe mode.
    pub observed: ClassRows,
}

/// Rows in class numbers, ascending by value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassRows {
    values: Vec<u32>,
    cell_ends: Vec<u32>,
    cells: Vec<Cell>,
}

/// What one attribute must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The attribute.
    pub attribute: Attribute,
    /// Cell number: [`AttributeClasses::cell`].
    pub number: u32,
}

impl Classification {
    /// Numbers the classes of all attributes over all rows of the table.
    #[must_use]
    pub fn new(table: &DecisionTable) -> Self {
        let mut collector = Collector::default();
        let programs = table
            .programs
            .iter()
            .map(|program| program.groups.iter().map(|group| collector.group(group)).collect())
            .collect();
        let attributes = collector
            .cells
            .iter()
            .zip(attribute::BITS)
            .map(|(cells, bits)| AttributeClasses::sweep(&cells.list, bits))
            .collect();
        Self { attributes, programs }
    }

    /// The classes of one attribute.
    #[must_use]
    pub fn attribute(&self, attribute: Attribute) -> &AttributeClasses {
        static ONE: AttributeClasses = AttributeClasses {
            starts: Vec::new(),
            classes: Vec::new(),
            count: 1,
            cells: Vec::new(),
            cell_ends: Vec::new(),
        };
        self.attributes.get(usize::from(attribute)).unwrap_or(&ONE)
    }

    /// The groups of a program, one of [`govc_abi::image::program`].
    #[must_use]
    pub fn groups(&self, program: usize) -> &[ClassGroup] {
        self.programs.get(program).map_or(&[], Vec::as_slice)
    }

    /// The classes of a request's attributes.
    #[must_use]
    pub fn classify(&self, request: &Request) -> walk::Classes {
        let mut classes = walk::Classes::default();
        for (number, (class, attribute)) in classes.iter_mut().zip(&self.attributes).enumerate() {
            *class = attribute.class(value_of(request, number as Attribute));
        }
        classes
    }
}

/// The value of a request's attribute, cut to the bits that the walk looks at.
#[must_use]
pub fn value_of(request: &Request, attribute: Attribute) -> u128 {
    let scalar = || request.scalars.get(usize::from(attribute)).copied().unwrap_or(0);
    let double = |[upper, lower]: [u64; 2]| u128::from(upper) << 64 | u128::from(lower);
    match attribute {
        attribute::SOURCE => double(request.source),
        attribute::DESTINATION => double(request.destination),
        attribute::SUBJECT | attribute::OBJECT => u128::from(scalar() & attribute::SCOPE_NONE),
        _ => {
            let bits = attribute::BITS.get(usize::from(attribute)).copied().unwrap_or(0);
            u128::from(scalar()) & max_of(bits)
        }
    }
}

impl AttributeClasses {
    /// How many classes there are; at least one.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The class of a value.
    #[must_use]
    pub fn class(&self, value: u128) -> u32 {
        let after = self.starts.partition_point(|&start| start <= value);
        after.checked_sub(1).and_then(|at| self.classes.get(at)).copied().unwrap_or(0)
    }

    /// The classes in a cell: disjoint inclusive intervals, ascending, not adjacent.
    #[must_use]
    pub fn cell(&self, number: u32) -> &[(u32, u32)] {
        let number = number as usize;
        let start = number.checked_sub(1).and_then(|n| self.cell_ends.get(n)).copied();
        let end = self.cell_ends.get(number).copied().unwrap_or(0);
        self.cells.get(start.unwrap_or(0) as usize..end as usize).unwrap_or(&[])
    }

    /// How many different cells the rows have.
    #[must_use]
    pub fn cell_count(&self) -> usize {
        self.cell_ends.len()
    }

    /// All values, as stretches of one class each: first value, last value, class.
    pub fn stretches(&self, bits: u8) -> impl Iterator<Item = (u128, u128, u32)> {
        let lasts = self.starts.iter().skip(1).map(|start| start - 1).chain([max_of(bits)]);
        self.starts.iter().zip(lasts).zip(&self.classes).map(|((&a, b), &class)| (a, b, class))
    }

    /// Walks the ends of all intervals of all cells in ascending order.
    fn sweep(sets: &[&IntervalSet], bits: u8) -> Self {
        let (mut ends, seed) = Ends::collect(sets, bits);
        // Classes known before the sweep reaches each end: what the ends become.
        let total: usize = sets.iter().map(|set| set.intervals().len()).sum();
        let mut bounds = vec![u32::MAX; 2 * total];
        let mut cursors = Vec::with_capacity(sets.len());
        let mut offset = 0;
        for set in sets {
            cursors.push(offset);
            offset += 2 * set.intervals().len();
        }
        let mut this = Self { starts: vec![0], classes: vec![0], ..Self::default() };
        let mut known = Signatures::default();
        let mut signature = 0_u128;
        let mut next = ends.next();
        if next.is_none_or(|(position, _)| position != 0) {
            known.class(signature);
        }
        while let Some((position, _)) = next {
            let before = known.list.len() as u32;
            while let Some((at, cell)) = next
                && at == position
            {
                signature ^= token(seed, cell);
                if let Some(cursor) = cursors.get_mut(cell as usize) {
                    if let Some(bound) = bounds.get_mut(*cursor) {
                        *bound = before;
                    }
                    *cursor += 1;
                }
                next = ends.next();
            }
            this.enter(position, known.class(signature));
        }
        this.count = known.list.len() as u32;
        this.set_cells(sets, &bounds);
        this
    }

    /// From `position` on, the class is `class`.
    fn enter(&mut self, position: u128, class: u32) {
        if position == 0 {
            self.classes = vec![class];
        } else if self.classes.last() != Some(&class) {
            self.starts.push(position);
            self.classes.push(class);
        }
    }

    /// Makes cells of bounds: for each interval the first class, and the first class behind.
    fn set_cells(&mut self, sets: &[&IntervalSet], bounds: &[u32]) {
        let mut bounds = bounds.chunks_exact(2);
        for set in sets {
            let first = self.cells.len();
            for bound in bounds.by_ref().take(set.intervals().len()) {
                let &[from, until] = bound else { continue };
                let until = until.min(self.count);
                // Nothing new: all classes of this interval began in one before.
                if from >= until {
                    continue;
                }
                match self.cells.get_mut(first..).and_then(<[_]>::last_mut) {
                    Some((_, last)) if *last + 1 == from => *last = until - 1,
                    _ => self.cells.push((from, until - 1)),
                }
            }
            self.cell_ends.push(self.cells.len() as u32);
        }
    }
}

impl ClassRows {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// All rows: value and cells by ascending attribute.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &[Cell])> {
        let starts = std::iter::once(0).chain(self.cell_ends.iter().copied());
        self.values.iter().zip(starts).zip(&self.cell_ends).map(|((&value, start), &end)| {
            (value, self.cells.get(start as usize..end as usize).unwrap_or(&[]))
        })
    }
}

/// Gives numbers to the different cells of each attribute, in order of appearance.
struct Collector<'a> {
    cells: Vec<CellNumbers<'a>>,
}

#[derive(Default)]
struct CellNumbers<'a> {
    list: Vec<&'a IntervalSet>,
    /// First and last value of each, which is what is hashed, and all there is to most cells;
    /// the other way round for cells of several intervals.
    outlines: Vec<(u128, u128)>,
    slots: Slots,
}

impl<'a> CellNumbers<'a> {
    fn number(&mut self, set: &'a IntervalSet) -> u32 {
        let intervals = set.intervals();
        let outline = match *intervals {
            [] => (1, 0),
            [interval] => interval,
            [(first, _), .., (_, last)] => (last, first),
        };
        let next = self.list.len() as u32;
        let hash = mix(
            mix(outline.0 as u64 ^ intervals.len() as u64, outline.1 as u64),
            (outline.0 >> 64) as u64 ^ (outline.1 >> 64) as u64,
        );
        let same = |number: u32| {
            self.outlines.get(number as usize) == Some(&outline)
                && (outline.0 <= outline.1 || self.list.get(number as usize) == Some(&set))
        };
        self.slots.find_or_insert(hash, next, same).unwrap_or_else(|| {
            self.list.push(set);
            self.outlines.push(outline);
            next
        })
    }
}

impl Default for Collector<'_> {
    fn default() -> Self {
        Self { cells: (0..attribute::COUNT).map(|_| CellNumbers::default()).collect() }
    }
}

impl<'a> Collector<'a> {
    fn group(&mut self, group: &'a Group) -> ClassGroup {
        ClassGroup { enforced: self.rows(&group.enforced), observed: self.rows(&group.observed) }
    }

    fn rows(&mut self, rows: &'a [Row]) -> ClassRows {
        let mut class_rows = ClassRows::default();
        class_rows.values.reserve(rows.len());
        class_rows.cell_ends.reserve(rows.len());
        class_rows.cells.reserve(rows.iter().map(|row| row.cells.len()).sum());
        for row in rows {
            class_rows.values.push(row.value);
            for (attribute, set) in &row.cells {
                let Some(cells) = self.cells.get_mut(usize::from(*attribute)) else { continue };
                let number = cells.number(set);
                class_rows.cells.push(Cell { attribute: *attribute, number });
            }
            class_rows.cell_ends.push(class_rows.cells.len() as u32);
        }
        class_rows
    }
}

/// Both ends of all intervals of all cells, ascending: where a cell begins, or where it has
/// just ended, and the cell.
struct Ends {
    /// Positions in the window, relative to it, in the upper bits, and the cell below.
    window: std::vec::IntoIter<u64>,
    /// Before the window, last one first; and behind it.
    before: std::vec::IntoIter<(u128, u32)>,
    behind: std::vec::IntoIter<(u128, u32)>,
    base: u128,
}

impl Ends {
    /// Bits of a cell number: rows are fewer, see [`govc_abi::limits::ROWS_MAX`].
    const CELL_BITS: u32 = 30;

    /// Collects and sorts; the second result depends on all of the contents.
    ///
    /// Ends in a window of 2^32 values, which holds all values of all attributes but the IPv6
    /// addresses, are packed into one number each: sorting is most of the work here.
    fn collect(sets: &[&IntervalSet], bits: u8) -> (Self, u64) {
        let max = max_of(bits);
        let base = if bits > 32 { 0xffff_0000_0000 } else { 0 };
        let mut window = Vec::new();
        let (mut before, mut behind) = (Vec::new(), Vec::new());
        let mut seed = 0;
        let mut push = |position: u128, cell: u32| {
            if position < base {
                before.push((position, cell));
            } else if position - base <= 1 << 32 {
                window.push(((position - base) as u64) << Self::CELL_BITS | u64::from(cell));
            } else {
                behind.push((position, cell));
            }
        };
        for (cell, set) in sets.iter().enumerate() {
            for &(first, last) in set.intervals() {
                push(first, cell as u32);
                if last < max {
                    push(last + 1, cell as u32);
                }
                seed = mix(seed ^ (first >> 64) as u64, first as u64);
                seed = mix(seed ^ (last >> 64) as u64, last as u64);
            }
        }
        window.sort_unstable();
        before.sort_unstable();
        behind.sort_unstable();
        let (window, before) = (window.into_iter(), before.into_iter());
        (Self { window, before, behind: behind.into_iter(), base }, seed)
    }

    fn next(&mut self) -> Option<(u128, u32)> {
        if let Some(end) = self.before.next() {
            return Some(end);
        }
        if let Some(packed) = self.window.next() {
            let cell = packed & ((1 << Self::CELL_BITS) - 1);
            return Some((self.base + u128::from(packed >> Self::CELL_BITS), cell as u32));
        }
        self.behind.next()
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
/// Sets are taken as equal when the sums of their tokens are. The tokens hang on all interval
/// ends of the table, so that nobody can look for rows whose tokens cancel out: any change that
/// would use such rows changes the tokens.
fn token(seed: u64, cell: u32) -> u128 {
    let upper = mix(seed, u64::from(cell) << 1);
    let lower = mix(seed ^ upper, u64::from(cell) << 1 | 1);
    u128::from(upper) << 64 | u128::from(lower)
}
