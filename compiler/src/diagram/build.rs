//! The recursive sweep from rows to a diagram.

#![expect(
    clippy::indexing_slicing,
    reason = "positions of rows and attributes are made here and are the compiler's inner loop"
)]

use govc_abi::{attribute::Attribute, node};

use super::{Budget, Diagram, Entry, OverBudget, RowTable};
use crate::intern::{Interner, mix};

/// Of how many runs an estimate looks at one.
const SAMPLE_SHARE: usize = 16;
/// Fewer ends than this are not sampled.
const SAMPLE_ENDS_MIN: usize = 1024;

pub(super) fn build(
    table: &RowTable,
    rows: &[u32],
    order: &[Attribute],
    budget: Budget,
) -> Result<Diagram, OverBudget> {
    let mut builder = Builder::new(table, rows, order, budget);
    let root = Entry(builder.root(rows)?);
    Ok(Diagram { nodes: builder.nodes, root, order: order.to_vec() })
}

pub(super) fn estimate(
    table: &RowTable,
    rows: &[u32],
    order: &[Attribute],
    budget: Budget,
) -> Result<usize, OverBudget> {
    let mut builder = Builder::new(table, rows, order, budget);
    builder.sampling = true;
    builder.root(rows)?;
    Ok(budget.edges - builder.budget.edges)
}

struct Builder<'a> {
    table: &'a RowTable<'a>,
    order: &'a [Attribute],
    /// By position in `order`: the attributes that are left to test.
    remaining: Vec<u32>,
    first_row: u32,
    /// Rows that send the decision on behind the last row decide.
    last_row: u32,
    /// By row, from the first one, and position: the entry of the row alone, if known.
    single: Vec<u32>,
    /// Position and sublist, and the entry that each became.
    lists: Interner,
    entries: Vec<u32>,
    nodes: Interner,
    /// By position.
    scratch: Vec<Scratch>,
    budget: Budget,
    /// The next big node is only sampled.
    sampling: bool,
    /// What an edge counts against the budget.
    weight: usize,
}

/// What one sweep needs; kept so that sweeps do not allocate.
#[derive(Default)]
struct Scratch {
    /// Rows without a cell here.
    open: Vec<u32>,
    /// First class of a cell, or first class behind it, above the row.
    ends: Vec<u64>,
    /// Rows whose cell holds the current class.
    active: Vec<u32>,
    /// Room for the next `active`.
    next_active: Vec<u32>,
    /// Room for the position, then the sublist of the current run.
    list: Vec<u32>,
    /// The node that is being made.
    edges: Vec<u32>,
}

impl<'a> Builder<'a> {
    fn new(table: &'a RowTable<'a>, rows: &[u32], order: &'a [Attribute], budget: Budget) -> Self {
        let bits = order.iter().map(|attribute| 1 << attribute);
        let remaining = (0..=order.len()).map(|from| bits.clone().skip(from).sum()).collect();
        let first_row = rows.first().copied().unwrap_or(0);
        let last_row = rows.last().copied().unwrap_or(0);
        let singles = (last_row - first_row + 1) as usize * order.len();
        Self {
            table,
            order,
            remaining,
            first_row,
            last_row,
            single: vec![node::ENTRY_NONE; singles],
            lists: Interner::default(),
            entries: Vec::new(),
            nodes: Interner::default(),
            scratch: order.iter().map(|_| Scratch::default()).collect(),
            budget,
            sampling: false,
            weight: 1,
        }
    }

    fn root(&mut self, rows: &[u32]) -> Result<u32, OverBudget> {
        let mut list = vec![0];
        self.normalise(rows.iter().copied(), 0, &mut list);
        self.resolve(0, &mut list)
    }

    /// Whether a row has no cells from `position` on.
    fn complete(&self, row: u32, position: usize) -> bool {
        self.table.mask(row) & self.remaining[position] == 0
    }

    /// Whether the decision goes on behind a row when it matches.
    fn sends_on(&self, row: u32) -> bool {
        (1..=self.last_row).contains(&self.table.resume(row))
    }

    /// Appends to a list the rows that can still decide at `position`.
    fn normalise(&self, rows: impl Iterator<Item = u32>, position: usize, list: &mut Vec<u32>) {
        let mut from = 0;
        // Where the last row that sends on, and may yet match, sends to.
        let mut escape = 0;
        for row in rows {
            if row < from {
                continue;
            }
            let sends_on = self.sends_on(row);
            if !self.complete(row, position) {
                list.push(row);
                escape = if sends_on { self.table.resume(row) } else { escape };
            } else if sends_on {
                from = self.table.resume(row);
            } else {
                list.push(row);
                if escape <= row {
                    return;
                }
                from = escape;
            }
        }
    }

    fn charge(&mut self, work: usize) -> Result<(), OverBudget> {
        self.budget.work = self.budget.work.checked_sub(work * self.weight).ok_or(OverBudget)?;
        Ok(())
    }

    /// The entry for a normalised list: room for one number, then rows.
    fn resolve(&mut self, position: usize, list: &mut [u32]) -> Result<u32, OverBudget> {
        let Some(&first) = list.get(1) else { return Ok(node::ENTRY_NONE) };
        if self.complete(first, position) {
            return Ok(node::leaf(self.table.value(first)));
        }
        // Attributes that none of the rows asks for are not tested.
        let asked = list[1..].iter().fold(0, |mask, &row| mask | self.table.mask(row));
        let mut position = position;
        while asked & 1 << self.order[position] == 0 {
            position += 1;
        }
        if let &[_, row] = &*list {
            return self.resolve_one(position, row);
        }
        list[0] = position as u32;
        let (number, fresh) = self.lists.intern(list);
        let number = number as usize;
        if !fresh {
            return Ok(self.entries[number]);
        }
        self.charge(list.len())?;
        self.entries.push(node::ENTRY_NONE);
        let mut scratch = std::mem::take(&mut self.scratch[position]);
        let entry = self.sweep(position, &list[1..], &mut scratch);
        self.scratch[position] = scratch;
        self.entries[number] = entry?;
        entry
    }

    /// The entry for a single row that asks for something at `position`: most lists are such.
    fn resolve_one(&mut self, position: usize, row: u32) -> Result<u32, OverBudget> {
        let at = (row - self.first_row) as usize * self.order.len() + position;
        let known = self.single[at];
        if known != node::ENTRY_NONE {
            return Ok(known);
        }
        let entry = match self.complete(row, position + 1) {
            true if self.sends_on(row) => node::ENTRY_NONE,
            true => node::leaf(self.table.value(row)),
            false => self.resolve(position + 1, &mut [0, row])?,
        };
        if entry == node::ENTRY_NONE {
            return Ok(entry);
        }
        let attribute = self.order[position];
        let last_class = self.table.classes(attribute).count() - 1;
        let mut scratch = std::mem::take(&mut self.scratch[position]);
        let edges = &mut scratch.edges;
        edges.clear();
        edges.push(u32::from(attribute));
        let mut next = 0;
        self.table.each_interval(row, attribute, |first, last| {
            if first > next {
                edges.extend([first - 1, node::ENTRY_NONE]);
            }
            edges.extend([last, entry]);
            next = last + 1;
        });
        if next <= last_class {
            edges.extend([last_class, node::ENTRY_NONE]);
        }
        self.charge(edges.len() / 2)?;
        let entry = self.node(edges);
        self.scratch[position] = scratch;
        self.single[at] = entry?;
        entry
    }

    /// Cuts the classes at `position` into runs and makes a node of them.
    fn sweep(
        &mut self,
        position: usize,
        rows: &[u32],
        scratch: &mut Scratch,
    ) -> Result<u32, OverBudget> {
        self.collect(self.order[position], rows, scratch);
        let Scratch { open, ends, active, next_active, list, edges } = scratch;
        let last_class = self.table.classes(self.order[position]).count() - 1;
        active.clear();
        edges.clear();
        edges.push(u32::from(self.order[position]));
        let sampled = self.sampling && ends.len() >= SAMPLE_ENDS_MIN;
        if sampled {
            self.sampling = false;
            self.weight = SAMPLE_SHARE;
        }
        // What classes lead to that are in no row's cell; they alternate with the others.
        let mut gap = None;
        let mut ends = ends.as_slice();
        let mut class = 0;
        loop {
            let here = ends.iter().take_while(|&&end| class_of(end) == class).count();
            let (here, behind) = ends.split_at(here);
            toggle(active, here, next_active);
            ends = behind;
            let entry = match gap {
                Some(entry) if active.is_empty() => entry,
                _ if sampled && skipped(class) => node::LEAF | class,
                _ => {
                    list.clear();
                    list.push(0);
                    if open.is_empty() {
                        self.normalise(active.iter().copied(), position + 1, list);
                    } else {
                        self.normalise(merge(open, active), position + 1, list);
                    }
                    self.charge(1 + (list.len() + active.len()) / 4)?;
                    self.resolve(position + 1, list)?
                }
            };
            if active.is_empty() {
                gap = Some(entry);
            }
            let next = ends.first().map(|&end| class_of(end));
            let last = next.map_or(last_class, |next| next - 1);
            match edges.last() {
                Some(&previous) if edges.len() > 1 && previous == entry => {
                    let at = edges.len() - 2;
                    edges[at] = last;
                }
                _ => edges.extend([last, entry]),
            }
            let Some(next) = next else { break };
            class = next;
        }
        if sampled {
            self.sampling = true;
            self.weight = 1;
        }
        self.node(edges)
    }

    /// Sorts rows into open ones and those with cells, and the ends of the cells.
    fn collect(&self, attribute: Attribute, rows: &[u32], scratch: &mut Scratch) {
        let count = self.table.classes(attribute).count();
        let Scratch { open, ends, .. } = scratch;
        open.clear();
        ends.clear();
        for &row in rows {
            let asks = self.table.each_interval(row, attribute, |first, last| {
                ends.push(u64::from(first) << 32 | u64::from(row));
                if last + 1 < count {
                    ends.push(u64::from(last + 1) << 32 | u64::from(row));
                }
            });
            if !asks {
                open.push(row);
            }
        }
        ends.sort_unstable();
    }

    /// The entry of a node with these edges.
    fn node(&mut self, edges: &[u32]) -> Result<u32, OverBudget> {
        if let &[_, _, entry] = edges {
            return Ok(entry);
        }
        let (node, fresh) = self.nodes.intern(edges);
        if fresh {
            let edges = edges.len() / 2 * self.weight;
            self.budget.edges = self.budget.edges.checked_sub(edges).ok_or(OverBudget)?;
        }
        Ok(node)
    }
}

/// Whether an estimate leaves out the run that begins with this class.
fn skipped(class: u32) -> bool {
    let lot = mix(0, u64::from(class) / SAMPLE_SHARE as u64) as usize;
    !(lot ^ class as usize).is_multiple_of(SAMPLE_SHARE)
}

/// The class at which a cell begins, or has just ended.
fn class_of(end: u64) -> u32 {
    (end >> 32) as u32
}

/// Enters rows into an ascending list, or takes them out when they are there.
fn toggle(active: &mut Vec<u32>, rows: &[u64], room: &mut Vec<u32>) {
    if let &[end] = rows {
        match active.binary_search(&(end as u32)) {
            Ok(at) => {
                active.remove(at);
            }
            Err(at) => active.insert(at, end as u32),
        }
        return;
    }
    room.clear();
    let mut old = active.iter().copied().peekable();
    for row in rows.iter().map(|&end| end as u32) {
        while let Some(before) = old.next_if(|&other| other < row) {
            room.push(before);
        }
        if old.next_if_eq(&row).is_none() {
            room.push(row);
        }
    }
    room.extend(old);
    std::mem::swap(active, room);
}

/// Two ascending lists as one.
fn merge<'a>(left: &'a [u32], right: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
    let (mut left, mut right) = (left.iter().copied().peekable(), right.iter().copied().peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(l), Some(r)) if l < r => left.next(),
        (_, Some(_)) => right.next(),
        _ => left.next(),
    })
}
