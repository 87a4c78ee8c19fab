//! Rows as the sweep wants them: cells by position, in one array.

#![expect(
    clippy::indexing_slicing,
    reason = "positions of rows and columns are made here; this is the compiler's inner loop"
)]

use govc_abi::attribute::{self, Attribute};

use crate::class::{AttributeClasses, Cell, Classification};

/// First class of a [`Span`] that is no single interval.
const SPECIAL: u32 = u32::MAX;
/// The row takes any class.
pub(super) const OPEN: Span = (SPECIAL, SPECIAL);
/// A cell as one interval of classes; or [`SPECIAL`] and the number of the cell.
pub(super) type Span = (u32, u32);

/// A row as a diagram takes it.
#[derive(Clone, Copy, Debug)]
pub struct DiagramRow<'a> {
    /// What the leaf says. Below [`govc_abi::node::LEAF_NONE`].
    pub value: u32,
    /// When the row matches, what is decided is the best of the rows from this position on,
    /// which lies behind the row: how a `pass` leads to the next group. Without rows there, the
    /// row decides.
    pub resume: Option<u32>,
    /// What the row asks for.
    pub cells: &'a [Cell],
}

/// Rows from which diagrams are made; a row's number is its position. Rows that decide together
/// ascend by value.
#[derive(Clone, Debug)]
pub struct RowTable<'a> {
    classification: &'a Classification,
    values: Vec<u32>,
    /// 0 for none.
    resumes: Vec<u32>,
    /// By row: the attributes that it asks for.
    masks: Vec<u32>,
    /// By attribute: its column.
    columns: [usize; attribute::COUNT],
    width: usize,
    /// By row and column.
    spans: Vec<Span>,
}

impl<'a> RowTable<'a> {
    /// Lays out rows.
    #[must_use]
    pub fn new(rows: &[DiagramRow<'_>], classification: &'a Classification) -> Self {
        let mask_of = |row: &DiagramRow<'_>| {
            row.cells.iter().fold(0_u32, |mask, cell| mask | 1 << cell.attribute)
        };
        let masks: Vec<u32> = rows.iter().map(mask_of).collect();
        let asked = masks.iter().fold(0, |all, mask| all | mask);
        let width = asked.count_ones() as usize;
        let mut columns = [0; attribute::COUNT];
        let used = (0..attribute::COUNT).filter(|attribute| asked & 1 << attribute != 0);
        used.enumerate().for_each(|(column, attribute)| columns[attribute] = column);
        let mut spans = vec![OPEN; rows.len() * width];
        for (row, cells) in rows.iter().map(|row| row.cells).enumerate() {
            for cell in cells {
                let classes = classification.attribute(cell.attribute);
                let column = columns[usize::from(cell.attribute)];
                spans[row * width + column] = match classes.cell(cell.number) {
                    &[interval] => interval,
                    _ => (SPECIAL, cell.number),
                };
            }
        }
        let values = rows.iter().map(|row| row.value).collect();
        let resumes = rows.iter().map(|row| row.resume.unwrap_or(0)).collect();
        Self { classification, values, resumes, masks, columns, width, spans }
    }

    /// How many rows there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The classes of an attribute.
    #[must_use]
    pub fn classes(&self, attribute: Attribute) -> &'a AttributeClasses {
        self.classification.attribute(attribute)
    }

    /// What a row says.
    #[must_use]
    pub fn value(&self, row: u32) -> u32 {
        self.values[row as usize]
    }

    /// Mask of the attributes that a row asks for.
    #[must_use]
    pub fn mask(&self, row: u32) -> u32 {
        self.masks[row as usize]
    }

    /// Calls `each` with the intervals of a row's cell, unless the row takes any class: then the
    /// result is false.
    pub fn each_interval(
        &self,
        row: u32,
        attribute: Attribute,
        mut each: impl FnMut(u32, u32),
    ) -> bool {
        if self.mask(row) & 1 << attribute == 0 {
            return false;
        }
        let column = self.columns[usize::from(attribute)];
        match self.spans[row as usize * self.width + column] {
            (SPECIAL, cell) => {
                let cell = self.classes(attribute).cell(cell);
                cell.iter().for_each(|&(first, last)| each(first, last));
            }
            (first, last) => each(first, last),
        }
        true
    }

    /// Where a matching row sends the decision on to; 0 when it decides itself.
    pub(super) fn resume(&self, row: u32) -> u32 {
        self.resumes[row as usize]
    }
}
