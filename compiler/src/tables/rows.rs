//! Rows: the nodes of diagrams, flattened.

use govc_abi::{
    attribute::{self, Attribute},
    node,
};
use rustc_hash::FxHashMap;

use super::{Kind, TooBig, word_of, words::Words};
use crate::{class::Classification, diagram::Diagram};

/// Classes of a page.
const PAGE: usize = 1 << node::PAGE_SHIFT;
/// Edges of the widest sparse row.
const SPARSE_EDGES: usize = 8;
/// Edges that sparse rows find in two steps: as fast as a paged row, and smaller.
const TREE_EDGES: usize = SPARSE_EDGES * SPARSE_EDGES;
/// Up to this many classes a row is an array, whatever is in it.
const DENSE_CLASSES: usize = 64;
/// An array that has this many classes for each edge is well filled.
const DENSE_CLASSES_PER_EDGE: usize = 4;
/// Words that all rows of more than [`TREE_EDGES`] edges together may take beyond what sparse
/// rows would: 16 MiB. Sparse rows take a step more for every eight times as many edges.
const WIDE_WORDS: usize = 1 << 22;

/// Words that rows take for each edge, roughly; a guess for how much room to ask for.
const WORDS_PER_EDGE: usize = 4;

/// Last class, and entry.
type Edge = (u32, u32);

/// Places rows.
pub(super) struct RowWriter<'a> {
    classification: &'a Classification,
    words: &'a mut Words,
    /// Words that a row of many edges may take for each of them.
    words_per_edge: usize,
    /// Pages of one entry only.
    constant_pages: FxHashMap<u32, u32>,
    row: Vec<u32>,
}

impl<'a> RowWriter<'a> {
    /// A writer for these diagrams.
    pub(super) fn new<'d>(
        classification: &'a Classification,
        diagrams: impl Iterator<Item = &'d Diagram>,
        words: &'a mut Words,
    ) -> Self {
        let (mut all, mut many) = (0, 0);
        for diagram in diagrams {
            let nodes = 0..diagram.node_count() as u32;
            let edges = nodes.map(|node| diagram.edges(node).len());
            all += diagram.edge_count();
            many += edges.filter(|&edges| edges > TREE_EDGES).sum::<usize>();
        }
        words.reserve(all * WORDS_PER_EDGE);
        let words_per_edge = WIDE_WORDS / many.max(1);
        let constant_pages = FxHashMap::default();
        Self { classification, words, words_per_edge, constant_pages, row: Vec::new() }
    }

    /// The entry of a diagram's root, and how many entries the walk follows at most.
    pub(super) fn place(&mut self, diagram: &Diagram) -> Result<(u32, u32), TooBig> {
        let mut position = [0; attribute::COUNT];
        for (at, &attribute) in diagram.order().iter().enumerate() {
            if let Some(place) = position.get_mut(usize::from(attribute)) {
                *place = at as u32;
            }
        }
        let mut entries: Vec<u32> = Vec::with_capacity(diagram.node_count());
        let mut steps: Vec<u32> = Vec::with_capacity(diagram.node_count());
        let mut edges: Vec<Edge> = Vec::new();
        for node in 0..diagram.node_count() as u32 {
            edges.clear();
            let mut below = 0;
            for (last, entry) in diagram.edges(node) {
                if let Err(child) = entry.leaf_word() {
                    below = below.max(steps.get(child as usize).copied().unwrap_or(0));
                }
                edges.push((last, word_of(entry, &entries)));
            }
            let attribute = diagram.attribute(node);
            // Each attribute before this one may take a step of the walk's.
            let above = position.get(usize::from(attribute)).copied().unwrap_or(0);
            let spare = (attribute::COUNT as u32).saturating_sub(above + below);
            let (entry, taken) = self.node(attribute, &edges, spare)?;
            entries.push(entry);
            steps.push(below + taken);
        }
        let root_steps = match diagram.root().leaf_word() {
            Ok(_) => 0,
            Err(root) => steps.get(root as usize).copied().unwrap_or(0),
        };
        Ok((word_of(diagram.root(), &entries), root_steps))
    }

    /// The entry of a node, and how many steps of the walk it takes: at most `spare`, which is
    /// at least 1.
    fn node(
        &mut self,
        attribute: Attribute,
        edges: &[Edge],
        spare: u32,
    ) -> Result<(u32, u32), TooBig> {
        let classes = self.classification.attribute(attribute).count() as usize;
        let sparse = tree_words(edges.len());
        if classes <= 2 * sparse.min(DENSE_CLASSES / 2)
            || edges.len() > SPARSE_EDGES
                && classes <= DENSE_CLASSES.max(edges.len() * DENSE_CLASSES_PER_EDGE)
        {
            return Ok((self.dense(attribute, edges)?, 1));
        }
        if edges.len() <= SPARSE_EDGES {
            return Ok((self.sparse(attribute, edges)?, 1));
        }
        let paged = paged_words(edges, classes);
        let wide = paged.min(classes);
        let limit = if edges.len() <= TREE_EDGES {
            sparse
        } else {
            sparse.max(self.words_per_edge.saturating_mul(edges.len()))
        };
        if wide > limit && tree_steps(edges.len()) <= spare {
            return Ok((self.tree(attribute, edges)?, tree_steps(edges.len())));
        }
        let entry = if paged < classes {
            self.paged(attribute, edges, classes)?
        } else {
            self.dense(attribute, edges)?
        };
        Ok((entry, 1))
    }

    fn dense(&mut self, attribute: Attribute, edges: &[Edge]) -> Result<u32, TooBig> {
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        for &(last, entry) in edges {
            row.resize(last as usize + 1, entry);
        }
        let at = self.words.place(Kind::Dense, &row, node::BASE_UNIT as usize);
        self.row = row;
        Ok(node::node(node::KIND_DENSE, attribute, at? / node::BASE_UNIT))
    }

    /// A row for up to eight edges. Rows lie within cache lines.
    fn sparse(&mut self, attribute: Attribute, edges: &[Edge]) -> Result<u32, TooBig> {
        let (kind, node_kind, ends, len) = if edges.len() <= SPARSE_EDGES / 2 {
            (Kind::Sparse4, node::KIND_SPARSE4, 3, node::SPARSE4_WORDS)
        } else {
            (Kind::Sparse8, node::KIND_SPARSE8, 7, node::SPARSE8_WORDS)
        };
        let mut row = std::mem::take(&mut self.row);
        row.clear();
        row.extend(edges.iter().take(edges.len() - 1).map(|&(last, _)| last));
        row.resize(ends, u32::MAX);
        row.extend(edges.iter().map(|&(_, entry)| entry));
        row.resize(len, 0);
        let at = self.words.place(kind, &row, len);
        self.row = row;
        Ok(node::node(node_kind, attribute, at? / node::BASE_UNIT))
    }

    /// Sparse rows that lead to sparse rows of the same attribute.
    fn tree(&mut self, attribute: Attribute, edges: &[Edge]) -> Result<u32, TooBig> {
        if edges.len() <= SPARSE_EDGES {
            return self.sparse(attribute, edges);
        }
        let lots = edges.len().div_ceil(SPARSE_EDGES);
        let mut upper = Vec::with_capacity(lots);
        let mut rest = edges;
        for lot in 0..lots {
            let (edges, behind) = rest.split_at(rest.len().div_ceil(lots - lot));
            if let Some(&(last, _)) = edges.last() {
                upper.push((last, self.sparse(attribute, edges)?));
            }
            rest = behind;
        }
        self.tree(attribute, &upper)
    }

    fn paged(
        &mut self,
        attribute: Attribute,
        edges: &[Edge],
        classes: usize,
    ) -> Result<u32, TooBig> {
        let mut pages = Vec::with_capacity(classes.div_ceil(PAGE));
        let mut rest = edges;
        for first in (0..classes).step_by(PAGE) {
            let end = first + PAGE;
            // The edge that ends in or behind the page's last class serves the next page, too.
            let ended = rest.iter().take_while(|&&(last, _)| (last as usize) < end - 1).count();
            if let (0, Some(&(_, entry))) = (ended, rest.first()) {
                pages.push(self.constant_page(entry)?);
                continue;
            }
            let mut page = Vec::with_capacity(PAGE);
            for &(last, entry) in rest.iter().take(ended + 1) {
                page.resize((last as usize + 1).min(end) - first, entry);
            }
            let filler = page.last().copied().unwrap_or(node::ENTRY_NONE);
            page.resize(PAGE, filler);
            pages.push(self.words.place(Kind::Page, &page, 16)?);
            rest = rest.get(ended..).unwrap_or_default();
        }
        let at = self.words.place(Kind::Paged, &pages, node::BASE_UNIT as usize)?;
        Ok(node::node(node::KIND_PAGED, attribute, at / node::BASE_UNIT))
    }

    fn constant_page(&mut self, entry: u32) -> Result<u32, TooBig> {
        if let Some(&page) = self.constant_pages.get(&entry) {
            return Ok(page);
        }
        let page = self.words.place(Kind::Page, &[entry; PAGE], 16)?;
        self.constant_pages.insert(entry, page);
        Ok(page)
    }
}

/// Words of sparse rows for so many edges.
fn tree_words(edges: usize) -> usize {
    match edges {
        0..=4 => node::SPARSE4_WORDS,
        5..=8 => node::SPARSE8_WORDS,
        _ => {
            let lots = edges.div_ceil(SPARSE_EDGES);
            lots * node::SPARSE8_WORDS + tree_words(lots)
        }
    }
}

/// Steps that sparse rows take for so many edges.
fn tree_steps(edges: usize) -> u32 {
    if edges <= SPARSE_EDGES { 1 } else { 1 + tree_steps(edges.div_ceil(SPARSE_EDGES)) }
}

/// Words of a paged row at most, not counting pages of one entry.
fn paged_words(edges: &[Edge], classes: usize) -> usize {
    let mut mixed = 0;
    let mut counted = usize::MAX;
    for &(last, _) in edges.iter().take(edges.len() - 1) {
        let page = last as usize / PAGE;
        let splits = !(last as usize + 1).is_multiple_of(PAGE);
        if splits && page != counted {
            mixed += 1;
            counted = page;
        }
    }
    classes.div_ceil(PAGE) + mixed * PAGE
}
