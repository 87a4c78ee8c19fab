//! From diagrams to the words that the kernel walks.
//!
//! Layout: [`govc_abi::node`] and [`govc_abi::walk`]. Whatever is equal is stored once. How a
//! node is stored is chosen by size, as what a core touches must fit its caches: an array over
//! all classes where that is short or well filled, a few compares within one cache line where
//! edges are few, compares over several rows of the same attribute where edges are many but
//! classes many more, and an array in pages for the rest.

use std::fmt;
use std::sync::Arc;

use govc_abi::{
    attribute::{self, Attribute},
    image::program,
    limits::IMAGE_WORDS_MAX,
};
use thiserror::Error;

use crate::{
    class::Classification,
    diagram::{Diagram, Entry},
    forest::Forest,
};

mod classes;
mod rows;
mod words;

use rows::RowWriter;
use words::Words;

/// The tables of all programs, in place.
#[derive(Clone, Debug)]
pub struct MatchTables {
    /// The image from its first word to the end of the tables.
    pub words: Vec<u32>,
    /// Index of each attribute's class table, by attribute; 0 where there is none.
    pub classes: [u32; attribute::COUNT],
    /// Trie entries for IPv4 addresses, of source and destination; 0 where not tested.
    pub tries_v4: [u32; 2],
    /// Trie entries for IPv6 addresses, likewise.
    pub tries_v6: [u32; 2],
    /// By [`program`].
    pub programs: Vec<ProgramTables>,
    /// What takes how much room.
    pub sizes: Sizes,
}

/// The roots of a program.
#[derive(Clone, Debug, Default)]
pub struct ProgramTables {
    /// Mask of the attributes that its diagrams test.
    pub attributes: u32,
    /// In the order in which the walk takes them.
    pub parts: Vec<PartTables>,
}

/// The root of a part.
#[derive(Clone, Copy, Debug)]
pub struct PartTables {
    /// See [`govc_abi::node`].
    pub entry: u32,
    /// Number of its group.
    pub group: u32,
    /// It holds rules that only tell what they would do.
    pub observe: bool,
    /// Entries that the walk follows at most.
    pub steps: u32,
}

/// How many pieces of each kind there are, and of how many words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sizes {
    /// By [`Kind`].
    by_kind: [(u32, u32); Kind::NAMES.len()],
}

/// What words are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Class table of an attribute of 8 or 16 bits.
    ClassTable,
    /// Class table of a scope attribute.
    ScopeTable,
    /// Trie node.
    TrieDense,
    /// Trie node.
    TrieSparse,
    /// Trie node.
    TrieChain,
    /// Row with an entry for each class.
    Dense,
    /// Row of up to four edges.
    Sparse4,
    /// Row of up to eight edges.
    Sparse8,
    /// Row of page indices.
    Paged,
    /// Page of a row.
    Page,
}

impl Kind {
    const NAMES: [&str; 10] = [
        "class tables",
        "scope tables",
        "dense trie nodes",
        "sparse trie nodes",
        "trie chains",
        "dense rows",
        "sparse rows of 4",
        "sparse rows of 8",
        "paged rows",
        "pages",
    ];
}

impl Sizes {
    /// Pieces of this kind, and their words.
    #[must_use]
    pub fn of(&self, kind: Kind) -> (u32, u32) {
        self.by_kind.get(kind as usize).copied().unwrap_or_default()
    }

    fn add(&mut self, kind: Kind, words: usize) {
        if let Some((pieces, sum)) = self.by_kind.get_mut(kind as usize) {
            *pieces += 1;
            *sum += words as u32;
        }
    }
}

/// The tables do not fit an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the tables take more than {} MiB", IMAGE_WORDS_MAX / (1 << 18))]
pub struct TooBig;

/// The class tables of attributes, in place: they hang on no diagram, and can be laid out while
/// diagrams are made.
#[derive(Clone, Debug)]
pub struct ClassTables {
    words: Words,
    /// The words before the tables.
    beginning: Vec<u32>,
    /// Mask of the attributes.
    attributes: u32,
    classes: [u32; attribute::COUNT],
    tries_v4: [u32; 2],
    tries_v6: [u32; 2],
}

impl ClassTables {
    /// Tables for a mask of attributes, behind the words of an image's beginning.
    pub fn new(
        classification: &Classification,
        attributes: u32,
        beginning: Vec<u32>,
    ) -> Result<Self, TooBig> {
        let words = Words::new(beginning.clone());
        let mut this = Self {
            words,
            beginning,
            attributes,
            classes: [0; attribute::COUNT],
            tries_v4: [0; 2],
            tries_v6: [0; 2],
        };
        for attribute in (0..attribute::COUNT as Attribute).filter(|a| attributes & 1 << a != 0) {
            this.place(attribute, classification)?;
        }
        Ok(this)
    }

    fn place(
        &mut self,
        attribute: Attribute,
        classification: &Classification,
    ) -> Result<(), TooBig> {
        let classes = classification.attribute(attribute);
        let words = &mut self.words;
        if matches!(attribute, attribute::SOURCE | attribute::DESTINATION) {
            let which = usize::from(attribute - attribute::SOURCE);
            let (v4, v6) = classes::tries(classes, words)?;
            if let (Some(place_v4), Some(place_v6)) =
                (self.tries_v4.get_mut(which), self.tries_v6.get_mut(which))
            {
                (*place_v4, *place_v6) = (v4, v6);
            }
        } else if let Some(place) = self.classes.get_mut(usize::from(attribute)) {
            *place = match attribute {
                attribute::SUBJECT | attribute::OBJECT => classes::scope(classes, words)?,
                _ if attribute::BITS.get(usize::from(attribute)) == Some(&8) => {
                    classes::narrow(classes, words)?
                }
                _ => classes::medium(classes, words)?,
            };
        }
        Ok(())
    }
}

impl MatchTables {
    /// Lays out the rows of all diagrams behind the class tables.
    pub fn new(
        classification: &Classification,
        forest: &Forest,
        class_tables: ClassTables,
    ) -> Result<Self, TooBig> {
        let tested = (0..program::COUNT).fold(0, |mask, which| mask | forest.tested(which));
        let class_tables = if class_tables.attributes == tested {
            class_tables
        } else {
            ClassTables::new(classification, tested, class_tables.beginning)?
        };
        let mut words = class_tables.words;
        let mut this = Self {
            words: Vec::new(),
            classes: class_tables.classes,
            tries_v4: class_tables.tries_v4,
            tries_v6: class_tables.tries_v6,
            programs: Vec::with_capacity(program::COUNT),
            sizes: Sizes::default(),
        };
        this.place_rows(classification, forest, &mut words)?;
        (this.words, this.sizes) = words.finish();
        Ok(this)
    }

    fn place_rows(
        &mut self,
        classification: &Classification,
        forest: &Forest,
        words: &mut Words,
    ) -> Result<(), TooBig> {
        let diagrams = || forest.programs.iter().flatten().map(|part| &part.diagram);
        let mut writer = RowWriter::new(classification, diagrams().map(Arc::as_ref), words);
        let mut placed: Vec<(&Arc<Diagram>, (u32, u32))> = Vec::new();
        for (which, parts) in forest.programs.iter().enumerate() {
            let mut tables =
                ProgramTables { attributes: forest.tested(which), ..ProgramTables::default() };
            for part in parts {
                let known = placed.iter().find(|(other, _)| Arc::ptr_eq(other, &part.diagram));
                let (entry, steps) = match known {
                    Some(&(_, root)) => root,
                    None => writer.place(&part.diagram)?,
                };
                placed.push((&part.diagram, (entry, steps)));
                let (group, observe) = (part.group, part.observe);
                tables.parts.push(PartTables { entry, group, observe, steps });
            }
            self.programs.push(tables);
        }
        Ok(())
    }
}

/// The word for a diagram's entry, given the words for its nodes.
fn word_of(entry: Entry, nodes: &[u32]) -> u32 {
    match entry.leaf_word() {
        Ok(leaf) => leaf,
        Err(node) => nodes.get(node as usize).copied().unwrap_or(Entry::NONE_WORD),
    }
}

impl fmt::Display for MatchTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} words", self.words.len())?;
        for (name, (pieces, words)) in Kind::NAMES.iter().zip(self.sizes.by_kind) {
            if pieces > 0 {
                writeln!(f, "  {name}: {pieces}, {words} words")?;
            }
        }
        for (attribute, name) in attribute::NAMES.iter().enumerate() {
            if let Some(&root) = self.classes.get(attribute).filter(|&&root| root > 0) {
                writeln!(f, "classes of {name} at {root}")?;
            }
            let which = attribute.wrapping_sub(usize::from(attribute::SOURCE));
            if let (Some(&v4), Some(&v6)) = (self.tries_v4.get(which), self.tries_v6.get(which))
                && v4 | v6 != 0
            {
                writeln!(f, "classes of {name}: v4 entry {v4:#x}, v6 entry {v6:#x}")?;
            }
        }
        for (name, program) in program::NAMES.iter().zip(&self.programs) {
            if program.parts.is_empty() {
                continue;
            }
            let tested = (0..attribute::COUNT).filter(|a| program.attributes & 1 << a != 0);
            let tested: Vec<&str> =
                tested.filter_map(|a| attribute::NAMES.get(a).copied()).collect();
            writeln!(f, "{name}: tests {}", tested.join(" "))?;
            for part in &program.parts {
                let observed = if part.observe { ", observed" } else { "" };
                let PartTables { entry, group, steps, .. } = part;
                writeln!(f, "  group {group}{observed}: root {entry:#x}, {steps} steps at most")?;
            }
        }
        Ok(())
    }
}
