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

use crate::table::{DecisionTable, Group, IntervalSet, Row, max_of};

pub(crate) mod parallel;
mod sweep;

use parallel::join;

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
        let groups = || table.programs.iter().flat_map(|program| &program.groups);
        let mut sets: Vec<Vec<&IntervalSet>> = vec![Vec::new(); attribute::COUNT];
        for row in groups().flat_map(|group| group.enforced.iter().chain(&group.observed)) {
            for (attribute, set) in &row.cells {
                if let Some(sets) = sets.get_mut(usize::from(*attribute)) {
                    sets.push(set);
                }
            }
        }
        let sets: Vec<_> = sets.iter().map(Vec::as_slice).zip(attribute::BITS).collect();
        let numbered = number_all(&sets);
        let mut rest: Vec<&[u32]> = numbered.iter().map(|(_, cells)| cells.as_slice()).collect();
        let mut group_of = |group: &Group| ClassGroup {
            enforced: ClassRows::new(&group.enforced, &mut rest),
            observed: ClassRows::new(&group.observed, &mut rest),
        };
        let programs = (table.programs.iter())
            .map(|program| program.groups.iter().map(&mut group_of).collect())
            .collect();
        let attributes = numbered.into_iter().map(|(classes, _)| classes).collect();
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

    /// Mask of the attributes that some row asks for.
    #[must_use]
    pub fn asked(&self) -> u32 {
        let asked = (0..).zip(&self.attributes).filter(|(_, classes)| classes.count > 1);
        asked.fold(0, |mask, (attribute, _): (u32, _)| mask | 1 << attribute)
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
}

impl ClassRows {
    /// Takes the rows' cell numbers, by attribute, from the beginnings of lists.
    fn new(rows: &[Row], numbers: &mut [&[u32]]) -> Self {
        let mut class_rows = Self {
            values: rows.iter().map(|row| row.value).collect(),
            cell_ends: Vec::with_capacity(rows.len()),
            cells: Vec::with_capacity(rows.iter().map(|row| row.cells.len()).sum()),
        };
        for row in rows {
            for &(attribute, _) in &row.cells {
                if let Some(list) = numbers.get_mut(usize::from(attribute))
                    && let Some(number) = list.split_off_first()
                {
                    class_rows.cells.push(Cell { attribute, number: *number });
                }
            }
            class_rows.cell_ends.push(class_rows.cells.len() as u32);
        }
        class_rows
    }

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

/// The classes of each attribute, and the number of each of its rows' cells.
///
/// Attributes do not depend on each other: long lists are done at the same time.
fn number_all(sets: &[(&[&IntervalSet], u8)]) -> Vec<(AttributeClasses, Vec<u32>)> {
    const SETS_MANY: usize = 1 << 14;
    let total: usize = sets.iter().map(|(sets, _)| sets.len()).sum();
    if sets.len() < 2 || total < SETS_MANY {
        return sets.iter().map(|&(sets, bits)| sweep::number(sets, bits)).collect();
    }
    let mut sum = 0;
    let half = sets.iter().take_while(|(sets, _)| {
        sum += sets.len();
        2 * sum <= total
    });
    let (left, right) = sets.split_at(half.count().clamp(1, sets.len() - 1));
    let (mut left, mut right) = join(|| number_all(left), || number_all(right));
    left.append(&mut right);
    left
}

#[cfg(test)]
mod tests {
    use govc_abi::image::program;

    use super::*;
    use crate::sample::{self, Random, Requests};

    fn in_cell(cell: &[(u32, u32)], class: u32) -> bool {
        cell.iter().any(|&(first, last)| (first..=last).contains(&class))
    }

    #[test]
    fn a_class_is_in_a_cell_when_its_values_are() {
        for seed in 0..60 {
            let random = &mut Random::new(seed);
            let table = sample::anything(60, random);
            let classification = Classification::new(&table);
            for which in 0..program::COUNT {
                let samples = Requests::new(&table, which as u32);
                let groups = table.programs[which].groups.iter();
                let rows = groups.flat_map(|group| group.enforced.iter().chain(&group.observed));
                let class_groups = classification.groups(which).iter();
                let class_rows = class_groups
                    .flat_map(|group| group.enforced.iter().chain(group.observed.iter()));
                for (row, (value, cells)) in rows.zip(class_rows) {
                    assert_eq!((row.value, row.cells.len()), (value, cells.len()));
                    let request = samples.next(random);
                    let classes = classification.classify(&request);
                    for ((attribute, set), cell) in row.cells.iter().zip(cells) {
                        assert_eq!(*attribute, cell.attribute);
                        let class = classes[usize::from(*attribute)];
                        let cell = classification.attribute(*attribute).cell(cell.number);
                        let value = value_of(&request, *attribute);
                        assert_eq!(
                            set.contains(value),
                            in_cell(cell, class),
                            "seed {seed}: {value:#x}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn bit_tests_make_few_classes_and_intervals_stay_whole() {
        let with_bit = |bit: u32| {
            let values = (0..1_u128 << 16).filter(|value| value & 1 << bit != 0);
            IntervalSet::new(values.map(|value| (value, value)).collect())
        };
        let bits = [0, 5, 15].map(|bit| vec![(attribute::CONSTRAINTS, with_bit(bit))]);
        let nested = [(10, 99), (20, 29), (25, 25), (50, 59), (90, 120)]
            .map(|interval| vec![(attribute::OPERATION, IntervalSet::new(vec![interval]))]);
        let table = sample::table_of(bits.into_iter().chain(nested).collect());
        let classification = Classification::new(&table);
        assert_eq!(classification.attribute(attribute::CONSTRAINTS).count(), 8);
        let operations = classification.attribute(attribute::OPERATION);
        // Outside, each interval alone, and what the last one shares with the first.
        assert_eq!(operations.count(), 7);
        assert!((0..5).all(|cell| operations.cell(cell).len() == 1));
        assert_eq!(operations.class(15), operations.class(80));
        assert_eq!(operations.class(0), operations.class(60_000));
        assert_eq!(classification.attribute(attribute::LEVEL).count(), 1);
    }
}
