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
        self.share(table, row) != Share::Nothing
    }

    /// How much of it a row matches.
    pub(crate) fn share(&self, table: &RowTable<'_>, row: u32) -> Share {
        let mut left = table.mask(row);
        let mut share = Share::All;
        for (attribute, cell) in &self.cells {
            let shared = shared(table, row, *attribute, cell);
            left &= !(1 << attribute);
            if shared == Share::Nothing {
                return Share::Nothing;
            }
            share = share.min(shared);
        }
        // A row that asks for an attribute leaves some class of it out.
        if left == 0 { share } else { Share::Part }
    }
}

/// How much of a region, or of one cell, a row matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Share {
    Nothing,
    Part,
    All,
}

fn shared(table: &RowTable<'_>, row: u32, attribute: Attribute, cell: &[(u32, u32)]) -> Share {
    let (mut taken, mut all) = (0, 0);
    let asks = table.each_interval(row, attribute, |first, last| {
        let from = cell.partition_point(|&(_, end)| end < first);
        let inside = cell.iter().skip(from).take_while(|&&(start, _)| start <= last);
        taken += inside.map(|&(a, b)| b.min(last) + 1 - a.max(first)).sum::<u32>();
    });
    if asks && taken > 0 {
        all = cell.iter().map(|&(first, last)| last - first + 1).sum();
    }
    match taken {
        _ if !asks => Share::All,
        0 => Share::Nothing,
        _ if taken == all => Share::All,
        _ => Share::Part,
    }
}
