//! Interval decision diagrams over class numbers: ordered, reduced, hash-consed, many leaves.
//!
//! Rows become a diagram by a recursive sweep. At an attribute, the rows' cells cut the classes
//! into runs with the same sublist of rows, each of which is a child at the next attribute. A
//! sublist ends with its first row that has no further cells, for that row matches all that is
//! left. A sublist that was seen before at this attribute is the same node, and so are nodes
//! with equal edges; a node with a single edge is its child.

use govc_abi::{attribute::Attribute, node, walk};
use thiserror::Error;

use crate::intern::Interner;

mod build;
mod rows;

pub use rows::{DiagramRow, RowTable};

/// A decision diagram.
#[derive(Clone, Debug)]
pub struct Diagram {
    /// Attribute, then last class and entry of each edge. Children come before their parents.
    nodes: Interner,
    root: Entry,
    order: Vec<Attribute>,
}

/// Where an edge leads: a leaf, or a node of the same diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry(u32);

/// Number of a node; children have smaller numbers than their parents.
pub type NodeId = u32;

/// What an [`Entry`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The value of the row that matches, if any does.
    Leaf(Option<u32>),
    /// More to ask.
    Node(NodeId),
}

/// How big a diagram may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Edges of all nodes together.
    pub edges: usize,
    /// Rows in all sublists together: bounds the time.
    pub work: usize,
}

/// The diagram would pass its [`Budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the decision diagram is too big")]
pub struct OverBudget;

impl Diagram {
    /// The diagram of these rows, given by ascending position, that tests attributes in this
    /// order. Cells of attributes that are not in the order are ignored.
    pub fn build(
        table: &RowTable,
        rows: &[u32],
        order: &[Attribute],
        budget: Budget,
    ) -> Result<Self, OverBudget> {
        build::build(table, rows, order, budget)
    }

    /// About how many edges [`Self::build`] would make, from a sample. Takes a fraction of the
    /// time when there are many rows; the budget counts what the whole diagram would take.
    pub fn estimate(
        table: &RowTable,
        rows: &[u32],
        order: &[Attribute],
        budget: Budget,
    ) -> Result<usize, OverBudget> {
        build::estimate(table, rows, order, budget)
    }

    /// Where evaluation begins.
    #[must_use]
    pub fn root(&self) -> Entry {
        self.root
    }

    /// The attributes in the order in which they are tested.
    #[must_use]
    pub fn order(&self) -> &[Attribute] {
        &self.order
    }

    /// How many nodes there are; their ids count from 0.
    #[must_use]
    pub fn node_count(&self) -> usize {
        self.nodes.count()
    }

    /// How many edges all nodes have together.
    #[must_use]
    pub fn edge_count(&self) -> usize {
        (self.nodes.word_count() - self.nodes.count()) / 2
    }

    /// The attribute that a node tests.
    #[must_use]
    pub fn attribute(&self, node: NodeId) -> Attribute {
        self.nodes.get(node).first().map_or(0, |&attribute| attribute as Attribute)
    }

    /// The edges of a node: last class of each, ascending, and where it leads. The last one ends
    /// with the attribute's last class.
    pub fn edges(&self, node: NodeId) -> impl ExactSizeIterator<Item = (u32, Entry)> + Clone {
        let edges = self.nodes.get(node).get(1..).unwrap_or_default();
        edges.chunks_exact(2).map(|edge| match edge {
            &[last, entry] => (last, Entry(entry)),
            _ => (u32::MAX, Entry::NONE),
        })
    }

    /// Mask of the attributes that some node tests.
    #[must_use]
    pub fn tested(&self) -> u32 {
        (0..self.node_count() as u32).fold(0, |mask, node| mask | 1 << self.attribute(node))
    }

    /// The value of the first row that matches, given the class of each attribute.
    #[must_use]
    pub fn evaluate(&self, classes: &walk::Classes) -> Option<u32> {
        let mut entry = self.root;
        loop {
            match entry.target() {
                Target::Leaf(value) => return value,
                Target::Node(node) => {
                    let attribute = usize::from(self.attribute(node));
                    entry = self.follow(node, classes.get(attribute).copied().unwrap_or(0));
                }
            }
        }
    }

    /// Where a class leads from a node.
    #[must_use]
    pub fn follow(&self, node: NodeId, class: u32) -> Entry {
        let (edges, _) = self.nodes.get(node).get(1..).unwrap_or_default().as_chunks::<2>();
        let at = edges.partition_point(|&[last, _]| last < class);
        edges.get(at).map_or(Entry::NONE, |&[_, entry]| Entry(entry))
    }
}

impl Entry {
    /// The leaf of requests that no row matches.
    pub const NONE: Self = Self(node::ENTRY_NONE);

    /// The word of that leaf.
    pub(crate) const NONE_WORD: u32 = node::ENTRY_NONE;

    /// What the entry says.
    #[must_use]
    pub fn target(self) -> Target {
        if self.0 & node::LEAF == 0 {
            return Target::Node(self.0);
        }
        let value = self.0 & node::LEAF_NONE;
        Target::Leaf((value != node::LEAF_NONE).then_some(value))
    }

    /// The word in an image for a leaf; or the number of the node.
    pub(crate) fn leaf_word(self) -> Result<u32, NodeId> {
        if self.0 & node::LEAF != 0 { Ok(self.0) } else { Err(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use govc_abi::{attribute, image::program};

    use super::*;
    use crate::{class::Classification, sample, table::IntervalSet};

    const ORDER: [Attribute; 3] = [attribute::LEVEL, attribute::ROUTE, attribute::PROTOCOL];
    const PLENTY: Budget = Budget { edges: 1 << 20, work: 1 << 20 };

    /// What rows say, by looking at all of them.
    fn naive(rows: &[DiagramRow<'_>], of: &Classification, classes: &walk::Classes) -> Option<u32> {
        let mut from = 0;
        for (number, row) in rows.iter().enumerate() {
            let matches = row.cells.iter().all(|cell| {
                let class = classes[usize::from(cell.attribute)];
                let cell = of.attribute(cell.attribute).cell(cell.number);
                cell.iter().any(|&(first, last)| (first..=last).contains(&class))
            });
            if number < from || !matches {
                continue;
            }
            match row.resume {
                Some(resume) if (resume as usize) < rows.len() => from = resume as usize,
                _ => return Some(row.value),
            }
        }
        None
    }

    #[test]
    fn diagrams_agree_with_their_rows_everywhere() {
        for seed in 0..200 {
            let random = &mut sample::Random::new(seed);
            let count = random.below(12) as usize;
            let cells = (0..count).map(|_| {
                let cell = |attribute| {
                    let (one, other) = (random.below(6).into(), random.below(6).into());
                    let interval = (u128::min(one, other), u128::max(one, other));
                    (attribute, IntervalSet::new(vec![interval, (one + 7, one + 7)]))
                };
                let mut cells: Vec<_> = ORDER.map(cell).into();
                cells.retain(|_| random.chance(60));
                cells
            });
            let table = sample::table_of(cells.collect());
            let classification = Classification::new(&table);
            let class_rows = &classification.groups(program::INGRESS as usize)[0].enforced;
            let mut rows: Vec<_> = class_rows
                .iter()
                .map(|(value, cells)| DiagramRow { value, resume: None, cells })
                .collect();
            // Some rows send on to the second half, which begins a group.
            for row in &mut rows[..count / 2] {
                row.resume = random.chance(30).then_some(count as u32 / 2);
            }
            let row_table = RowTable::new(&rows, &classification);
            let numbers: Vec<u32> = (0..count as u32).collect();
            let diagram = Diagram::build(&row_table, &numbers, &ORDER, PLENTY).unwrap();
            let mut classes = walk::Classes::default();
            let counts = ORDER.map(|attribute| classification.attribute(attribute).count());
            for number in 0..counts.iter().product() {
                let digits = [number, number / counts[0], number / counts[0] / counts[1]];
                for at in 0..3 {
                    classes[usize::from(ORDER[at])] = digits[at] % counts[at];
                }
                let expected = naive(&rows, &classification, &classes);
                assert_eq!(diagram.evaluate(&classes), expected, "seed {seed}: {classes:?}");
            }
            check_shape(&diagram, &counts);
        }
    }

    /// Ordered, reduced, hash-consed.
    fn check_shape(diagram: &Diagram, counts: &[u32; 3]) {
        let mut seen = std::collections::HashSet::new();
        for node in 0..diagram.node_count() as NodeId {
            let edges: Vec<_> = diagram.edges(node).collect();
            let position = |node| ORDER.iter().position(|&a| a == diagram.attribute(node)).unwrap();
            assert!(edges.len() > 1);
            assert!(edges.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 != two[1].1));
            assert_eq!(edges.last().unwrap().0, counts[position(node)] - 1);
            for &(_, entry) in &edges {
                if let Target::Node(child) = entry.target() {
                    assert!(child < node && position(child) > position(node));
                }
            }
            assert!(seen.insert((position(node), format!("{edges:?}"))));
        }
        let edges: usize =
            (0..diagram.node_count() as NodeId).map(|n| diagram.edges(n).len()).sum();
        assert_eq!(edges, diagram.edge_count());
    }

    #[test]
    fn budgets_hold() {
        let table = sample::identities(300, &mut sample::Random::new(1));
        let classification = Classification::new(&table);
        let class_rows = &classification.groups(program::INGRESS as usize)[0].enforced;
        let rows: Vec<_> = class_rows
            .iter()
            .map(|(value, cells)| DiagramRow { value, resume: None, cells })
            .collect();
        let row_table = RowTable::new(&rows, &classification);
        let numbers: Vec<u32> = (0..300).collect();
        let order = [attribute::SUBJECT, attribute::OBJECT, attribute::OPERATION];
        let build = |budget| Diagram::build(&row_table, &numbers, &order, budget);
        let diagram = build(PLENTY).unwrap();
        let edges = diagram.edge_count();
        assert!(build(Budget { edges, ..PLENTY }).is_ok());
        assert_eq!(build(Budget { edges: edges - 1, ..PLENTY }).unwrap_err(), OverBudget);
        assert_eq!(build(Budget { work: 300, ..PLENTY }).unwrap_err(), OverBudget);
        assert_eq!(diagram.tested(), order.iter().fold(0, |mask, a| mask | 1 << a));
        assert_eq!(Diagram::estimate(&row_table, &numbers, &order, PLENTY), Ok(edges));
    }
}
