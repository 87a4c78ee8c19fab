//! How rows use attributes: what to test first, and where to split.

use govc_abi::attribute::{self, Attribute};

use crate::diagram::RowTable;

/// Attributes with fewer runs multiply nothing: they come first, and are no reason to split.
const RUNS_FEW: u32 = 8;
/// Up to so many rows, many orders are tried.
const ROWS_FEW: usize = 128;
/// How often a row may stand in the sublists of the attribute that leads a part, on average.
const LEAD_COPIES: u64 = 6;
/// Cells that hold more than this share of an attribute's runs are wide.
const WIDE_SHARE: u32 = 16;

/// Statistics about rows.
pub(super) struct Profile {
    rows: usize,
    /// Of the attributes that the rows ask for.
    attributes: Vec<AttributeProfile>,
}

struct AttributeProfile {
    attribute: Attribute,
    /// Into how many runs the rows' cells cut the attribute.
    runs: u32,
    /// By row: how many of the runs its cell holds; 1 for rows that ask for nothing else.
    widths: Vec<u32>,
    /// Sum of the widths: how often rows stand in sublists, if this is tested first.
    copies: u64,
}

impl Profile {
    pub(super) fn new(table: &RowTable<'_>, rows: &[u32]) -> Self {
        let asked = rows.iter().fold(0, |mask, &row| mask | table.mask(row));
        let mut attributes: Vec<_> = (0..attribute::COUNT as Attribute)
            .filter(|attribute| asked & 1 << attribute != 0)
            .map(|attribute| AttributeProfile::new(attribute, table, rows))
            .collect();
        let few = attributes.iter().filter(|profile| profile.runs <= RUNS_FEW);
        let few = few.fold(0_u32, |mask, profile| mask | 1 << profile.attribute);
        for profile in &mut attributes {
            profile.forgive(few, table, rows);
        }
        Self { rows: rows.len(), attributes }
    }

    /// A rough bound for the smallest diagram: how often rows stand in the sublists of the
    /// attribute that copies them least.
    pub(super) fn copies(&self) -> u64 {
        let many = self.attributes.iter().filter(|profile| profile.runs > RUNS_FEW);
        many.map(|profile| profile.copies).min().unwrap_or(0)
    }

    /// Attribute orders that are worth a try. All test those attributes first that leave the
    /// shortest sublists; attributes with few runs come first where they copy no rows, or always.
    /// Where there are but few rows, any attribute may come first.
    pub(super) fn orders(&self) -> Vec<Vec<Attribute>> {
        let order = |few_first: bool| {
            let key = |profile: &AttributeProfile| {
                let few = profile.runs <= RUNS_FEW;
                let first = few && (few_first || profile.copies <= self.rows as u64 * 3 / 2);
                let length = profile.copies / u64::from(profile.runs);
                (!first, if first { profile.runs.into() } else { length }, profile.attribute)
            };
            let mut sorted: Vec<_> = self.attributes.iter().map(key).collect();
            sorted.sort_unstable();
            sorted.into_iter().map(|(.., attribute)| attribute).collect()
        };
        let mut orders: Vec<Vec<Attribute>> = vec![order(false), order(true)];
        if let (true, Some(base)) = (self.rows <= ROWS_FEW, orders.first().cloned()) {
            orders.extend((0..base.len()).map(|at| {
                let mut order = base.clone();
                order.get_mut(..=at).unwrap_or_default().rotate_right(1);
                order
            }));
        }
        orders.dedup();
        orders
    }

    /// By row, whether it goes to the second of two parts. [`None`] when splitting is no use.
    ///
    /// First, rows are parted by whether they are narrow in an attribute that can lead: one that
    /// copies them but a few times. Then by whether they are wide in one that is tested later.
    pub(super) fn split(&self) -> Option<Vec<bool>> {
        let many = || self.attributes.iter().filter(|profile| profile.runs > RUNS_FEW);
        let narrow = |profile: &&AttributeProfile| {
            let limit = profile.lead_width();
            profile.widths.iter().filter(|&&width| width <= limit).count()
        };
        let lead = many().max_by_key(|profile| (narrow(profile), profile.runs))?;
        let (limit, leads) = (lead.lead_width(), narrow(&lead));
        if 0 < leads && leads < self.rows {
            return Some(lead.widths.iter().map(|&width| width > limit).collect());
        }
        let shortest = |profile: &&AttributeProfile| {
            let wide = profile.widths.iter().filter(|&&width| profile.is_wide(width)).count();
            let mixed = 0 < wide && wide < self.rows;
            let tested_later = leads == 0 || profile.attribute != lead.attribute;
            (mixed && tested_later).then_some(profile.copies / u64::from(profile.runs))
        };
        let second = many().filter(|p| shortest(p).is_some()).min_by_key(shortest)?;
        Some(second.widths.iter().map(|&width| second.is_wide(width)).collect())
    }
}

impl AttributeProfile {
    fn new(attribute: Attribute, table: &RowTable<'_>, rows: &[u32]) -> Self {
        // Marks where runs begin, then counts: the number of the run that each class is in.
        let mut runs = vec![0_u32; table.classes(attribute).count() as usize + 1];
        let mut mark = |class: u32| {
            if let Some(begins) = runs.get_mut(class as usize) {
                *begins = 1;
            }
        };
        mark(0);
        for &row in rows {
            table.each_interval(row, attribute, |first, last| {
                mark(first);
                mark(last + 1);
            });
        }
        runs.pop();
        let mut total = 0;
        for begins in &mut runs {
            total += *begins;
            *begins = total;
        }
        let run = |class: u32| runs.get(class as usize).copied().unwrap_or(total);
        let width = |&row: &u32| {
            let mut width = 0;
            let add = |first, last| width += run(last) - run(first) + 1;
            if table.each_interval(row, attribute, add) { width } else { total }
        };
        let widths: Vec<u32> = rows.iter().map(width).collect();
        Self { attribute, runs: total, widths, copies: 0 }
    }

    /// Takes rows as narrow that ask for nothing but this attribute and those of the mask: such
    /// a row ends the sublists that it stands in, and multiplies with nothing.
    fn forgive(&mut self, mask: u32, table: &RowTable<'_>, rows: &[u32]) {
        let mask = mask | 1 << self.attribute;
        for (width, &row) in self.widths.iter_mut().zip(rows) {
            if table.mask(row) & !mask == 0 {
                *width = 1;
            }
        }
        self.copies = self.widths.iter().map(|&width| u64::from(width)).sum();
    }

    /// The greatest width, a power of two, up to which rows are copied but a few times.
    fn lead_width(&self) -> u32 {
        let mut sums = [(0_u64, 0_u64); 33];
        for &width in &self.widths {
            let log = if width <= 1 { 0 } else { (width - 1).ilog2() as usize + 1 };
            if let Some((rows, copies)) = sums.get_mut(log) {
                *rows += 1;
                *copies += u64::from(width);
            }
        }
        let (mut rows, mut copies, mut limit) = (0, 0, 0);
        for (log, sum) in sums.into_iter().enumerate() {
            rows += sum.0;
            copies += sum.1;
            if copies <= rows * LEAD_COPIES {
                limit = 1_u64 << log;
            }
        }
        u32::try_from(limit).unwrap_or(u32::MAX)
    }

    fn is_wide(&self, width: u32) -> bool {
        width > (self.runs / WIDE_SHARE).max(2)
    }
}
