//! Looking for a point of a region that no row of a list matches.
//!
//! A row that takes all of the region ends the search. One that leaves out classes of a single
//! attribute takes the others away: the region shrinks. When no row does either, a point is
//! chosen by lot; a row that matches it is likely a large one, and cuts the region in two, of
//! which the part outside is searched first. The lots are the same each time, and answers do
//! not depend on them.

#![expect(
    clippy::indexing_slicing,
    reason = "attributes and classes are made here and are the analysis's inner loop"
)]

use std::rc::Rc;

use govc_abi::{
    attribute::{self, Attribute},
    walk::Classes,
};

use super::{field::Field, region::Region, search::OutOfBudget};
use crate::diagram::RowTable;

/// Points that are tried before a region is cut.
const LOTS: usize = 4;

/// Disjoint intervals of classes, ascending.
type Cell = Vec<(u32, u32)>;

/// A row that meets the space, and the attributes by which it leaves part of it out.
type Cut = (u32, u32);

/// Looks for a point of a region, which becomes `point`, that none of the rows matches.
/// Otherwise `used` is called with rows that together match all points.
pub(super) fn escape(
    field: &Field<'_>,
    region: &Region,
    rows: &[u32],
    budget: &mut u64,
    point: &mut Classes,
    mut used: impl FnMut(u32),
) -> Result<bool, OutOfBudget> {
    let table = &field.table;
    let asked = rows.iter().fold(0, |mask, &row| mask | table.mask(row));
    let mut lots = Lots::new();
    let all: Rc<[Cut]> = rows.iter().map(|&row| (row, table.mask(row))).collect();
    let mut pending = vec![(Space::new(table, region, asked), all, asked)];
    while let Some((mut space, rows, changed)) = pending.pop() {
        let cuts = space.shrink(table, rows.to_vec(), changed, budget, &mut used)?;
        let Some(cuts) = cuts else { continue };
        let mut hit: Option<Cut> = None;
        for _ in 0..LOTS {
            space.choose(field, point, &mut lots);
            let mut looked = 0;
            let matching = cuts.iter().find(|&&(row, cuts)| {
                looked += 1;
                each_bit(cuts).all(|attribute| {
                    let class = point[usize::from(attribute)];
                    let mut inside = false;
                    table.each_interval(row, attribute, |a, b| inside |= a <= class && class <= b);
                    inside
                })
            });
            *budget = budget.checked_sub(1 + looked / 8).ok_or(OutOfBudget)?;
            let Some(&matching) = matching else { return Ok(true) };
            if hit.is_none_or(|hit| matching.1.count_ones() < hit.1.count_ones()) {
                hit = Some(matching);
            }
        }
        let Some((row, cuts_of_row)) = hit else { return Ok(true) };
        let attribute = space.best_cut(table, row, cuts_of_row);
        let (inside, outside) = space.split(table, row, attribute);
        let rows: Rc<[Cut]> = cuts.into();
        let mut within = space.clone();
        within.put(attribute, inside);
        pending.push((within, Rc::clone(&rows), 1 << attribute));
        space.put(attribute, outside);
        pending.push((space, rows, 1 << attribute));
    }
    Ok(false)
}

/// What is left of a region, by attribute; empty where no row asks.
#[derive(Clone)]
struct Space {
    cells: [Cell; attribute::COUNT],
    /// How many classes each cell holds.
    sizes: [u32; attribute::COUNT],
}

impl Space {
    fn new(table: &RowTable<'_>, region: &Region, asked: u32) -> Self {
        let mut space = Self { cells: Default::default(), sizes: [0; attribute::COUNT] };
        for attribute in each_bit(asked) {
            let all = || vec![(0, table.classes(attribute).count() - 1)];
            space.put(attribute, region.cell(attribute).map_or_else(all, <[_]>::to_vec));
        }
        space
    }

    fn put(&mut self, attribute: Attribute, cell: Cell) {
        let at = usize::from(attribute);
        self.sizes[at] = cell.iter().map(|&(first, last)| last - first + 1).sum();
        self.cells[at] = cell;
    }

    /// Takes away what rows match that leave out classes of one attribute only, until there are
    /// none. The rows that are left, unless nothing is left of the space. What rows cut is known
    /// but for attributes that have `changed`.
    fn shrink(
        &mut self,
        table: &RowTable<'_>,
        mut rows: Vec<Cut>,
        mut changed: u32,
        budget: &mut u64,
        used: &mut impl FnMut(u32),
    ) -> Result<Option<Vec<Cut>>, OutOfBudget> {
        while changed != 0 {
            let (mut looks, mut all) = (1, None);
            rows.retain_mut(|(row, cuts)| {
                // A row that takes all of a cell takes all of what is left of it.
                if *cuts & changed == 0 || all.is_some() {
                    return true;
                }
                looks += 1;
                let Some(still) = self.cuts(table, *row, *cuts & changed) else { return false };
                *cuts = *cuts & !changed | still;
                all = (*cuts == 0).then_some(*row);
                true
            });
            *budget = budget.checked_sub(looks).ok_or(OutOfBudget)?;
            if let Some(row) = all {
                used(row);
                return Ok(None);
            }
            changed = 0;
            let mut empty = false;
            rows.retain(|&(row, cuts)| {
                if empty || !cuts.is_power_of_two() {
                    return true;
                }
                let attribute = cuts.trailing_zeros() as Attribute;
                let (_, outside) = self.split(table, row, attribute);
                used(row);
                empty = outside.is_empty();
                self.put(attribute, outside);
                changed |= cuts;
                false
            });
            if empty {
                return Ok(None);
            }
        }
        Ok(Some(rows))
    }

    /// By which of these attributes a row leaves out part of the space; `None` if it leaves out
    /// all.
    fn cuts(&self, table: &RowTable<'_>, row: u32, attributes: u32) -> Option<u32> {
        let mut cuts = 0;
        for attribute in each_bit(attributes) {
            let shared = self.shared(table, row, attribute);
            if shared == 0 {
                return None;
            }
            if shared < self.sizes[usize::from(attribute)] {
                cuts |= 1 << attribute;
            }
        }
        Some(cuts)
    }

    /// How many classes of the space's cell a row takes.
    fn shared(&self, table: &RowTable<'_>, row: u32, attribute: Attribute) -> u32 {
        let cell = &self.cells[usize::from(attribute)];
        let mut shared = 0;
        table.each_interval(row, attribute, |first, last| {
            let from = cell.partition_point(|&(_, end)| end < first);
            for &(a, b) in cell[from..].iter().take_while(|&&(a, _)| a <= last) {
                shared += b.min(last) + 1 - a.max(first);
            }
        });
        shared
    }

    /// The classes of a cell that a row takes, and the others.
    fn split(&self, table: &RowTable<'_>, row: u32, attribute: Attribute) -> (Cell, Cell) {
        let cell = &self.cells[usize::from(attribute)];
        let mut taken = Vec::new();
        table.each_interval(row, attribute, |first, last| taken.push((first, last)));
        taken.sort_unstable();
        let (mut inside, mut outside) = (Cell::new(), Cell::new());
        for &(first, last) in cell {
            let mut next = first;
            let from = taken.partition_point(|&(_, end)| end < first);
            for &(a, b) in taken[from..].iter().take_while(|&&(a, _)| a <= last) {
                let (a, b) = (a.max(first), b.min(last));
                if next < a {
                    outside.push((next, a - 1));
                }
                inside.push((a, b));
                next = b + 1;
            }
            if next <= last {
                outside.push((next, last));
            }
        }
        (inside, outside)
    }

    /// The attribute by which a row takes the smallest share of the space.
    fn best_cut(&self, table: &RowTable<'_>, row: u32, cuts: u32) -> Attribute {
        let share = |attribute: &Attribute| {
            let shared = u64::from(self.shared(table, row, *attribute)) << 32;
            shared / u64::from(self.sizes[usize::from(*attribute)].max(1))
        };
        each_bit(cuts).min_by_key(share).unwrap_or_default()
    }

    /// Puts a point somewhere into the space.
    fn choose(&self, field: &Field<'_>, point: &mut Classes, lots: &mut Lots) {
        for (attribute, cell) in (0..).zip(&self.cells) {
            field.choose(point, attribute, cell, lots);
        }
    }
}

fn each_bit(mut mask: u32) -> impl Iterator<Item = Attribute> {
    std::iter::from_fn(move || {
        let bit = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        (bit < u32::BITS).then_some(bit as Attribute)
    })
}

/// Numbers that nobody chose, the same ones each time.
pub(super) struct Lots(u64);

impl Lots {
    pub(super) fn new() -> Self {
        Self(0x9e37_79b9_7f4a_7c15)
    }

    /// A number below a limit.
    pub(super) fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (((self.0 >> 32) * u64::from(limit)) >> 32) as u32
    }
}
