//! Regions of packets: for each attribute the classes that its value may be of.

use govc_abi::{
    attribute::{self, Attribute},
    walk::Classes,
};

use crate::diagram::RowTable;

/// A box of packets. Attributes without a cell may have any value; no cell is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Region {
    /// By ascending attribute; intervals of classes, ascending.
    cells: Vec<(Attribute, Vec<(u32, u32)>)>,
}

impl Region {
    /// The packets that a row matches.
    pub(crate) fn of(table: &RowTable<'_>, row: u32) -> Self {
        Self::default().narrowed(table, row).unwrap_or_default()
    }

    /// What a row matches of it, unless that is nothing.
    pub(crate) fn narrowed(&self, table: &RowTable<'_>, row: u32) -> Option<Self> {
        let mut cells = Vec::with_capacity(self.cells.len());
        for attribute in 0..attribute::COUNT as Attribute {
            let own = self.cell(attribute);
            let mut cell = Vec::new();
            let asks = table.each_interval(row, attribute, |first, last| match own {
                None => cell.push((first, last)),
                Some(own) => cell.extend(own.iter().filter_map(|&(a, b)| {
                    let both = (a.max(first), b.min(last));
                    (both.0 <= both.1).then_some(both)
                })),
            });
            match (asks, own) {
                (true, _) if cell.is_empty() => return None,
                (true, _) => {
                    cell.sort_unstable();
                    cells.push((attribute, cell));
                }
                (false, Some(own)) => cells.push((attribute, own.to_vec())),
                (false, None) => {}
            }
        }
        Some(Self { cells })
    }

    /// The classes that an attribute may be of; `None` for all.
    pub(crate) fn cell(&self, attribute: Attribute) -> Option<&[(u32, u32)]> {
        let at = self.cells.iter().find(|(other, _)| *other == attribute);
        at.map(|(_, cell)| cell.as_slice())
    }

    /// The cells that are not open.
    pub(crate) fn cells(&self) -> impl Iterator<Item = (Attribute, &[(u32, u32)])> {
        self.cells.iter().map(|(attribute, cell)| (*attribute, cell.as_slice()))
    }

    /// Whether a packet is in it, by the classes of its values.
    pub(crate) fn holds(&self, point: &Classes) -> bool {
        self.cells.iter().all(|(attribute, cell)| {
            let class = point.get(usize::from(*attribute)).copied().unwrap_or(0);
            cell.iter().any(|&(first, last)| first <= class && class <= last)
        })
    }

    /// Whether a row matches some packet of it.
    pub(crate) fn meets(&self, table: &RowTable<'_>, row: u32) -> bool {
        self.cells.iter().all(|(attribute, cell)| {
            let mut meets = false;
            let asks = table.each_interval(row, *attribute, |first, last| {
                meets |= cell.iter().any(|&(a, b)| a <= last && first <= b);
            });
            !asks || meets
        })
    }
}
