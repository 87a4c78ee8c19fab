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
