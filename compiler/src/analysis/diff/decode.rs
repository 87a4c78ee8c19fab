//! From an image back to diagrams: what the kernel walks, read by people's tools.

use std::collections::BTreeMap;

use govc_abi::{
    attribute::{self, Attribute},
    image::AT_CLASSES,
    image::{AT_TRIES_V4, AT_TRIES_V6},
    node,
    walk::{Tables, double},
};
use govc_image::{Image, ImageTables};
use rustc_hash::FxHashMap;

/// The tables of an image that no compiler made lead in circles, or to where nothing is.
#[derive(Debug)]
pub(super) struct Damaged;

/// A stretch of values of one class: first value, last value, class.
pub(super) type Stretch = (u128, u128, u32);

/// The diagrams of an image's programs.
pub(super) struct Decoded<'i> {
    tables: ImageTables<'i>,
    /// By attribute, as far as asked for.
    pub(super) stretches: BTreeMap<Attribute, Vec<Stretch>>,
    class_counts: [u32; attribute::COUNT],
    pub(super) nodes: Vec<Node>,
    known: FxHashMap<u32, u32>,
}

/// A node: every attribute is tested once on a path.
pub(super) struct Node {
    pub(super) attribute: Attribute,
    /// Last class, and where it leads: a leaf as in [`node`], or the number of a node. Children
    /// have smaller numbers.
    pub(super) runs: Vec<(u32, u32)>,
}

impl<'i> Decoded<'i> {
    /// # Errors
    /// No compiler made such tables.
    pub(super) fn new(image: &'i Image, attributes: u32) -> Result<Self, Damaged> {
        let tables = ImageTables::new(image);
        let mut stretches = BTreeMap::new();
        let mut class_counts = [1; attribute::COUNT];
        let words = image.bytes().len() / 4;
        let most = STRETCHES_MAX.max(4 * words);
        for attribute in (0..attribute::COUNT as Attribute).filter(|a| attributes & 1 << a != 0) {
            let list = stretches_of(&tables, attribute, most)?;
            let last = list.iter().map(|&(.., class)| class).max().unwrap_or(0);
            if last as usize >= words {
                return Err(Damaged);
            }
            let count = last + 1;
            if let Some(place) = class_counts.get_mut(usize::from(attribute)) {
                *place = count;
            }
            stretches.insert(attribute, list);
        }
        let (nodes, known) = (Vec::new(), FxHashMap::default());
        Ok(Self { tables, stretches, class_counts, nodes, known })
    }

    /// The diagram below an entry of the image: a leaf, or the number of a node.
    ///
    /// # Errors
    /// It is deeper than a walk goes.
    pub(super) fn entry(&mut self, entry: u32) -> Result<u32, Damaged> {
        self.below(entry, attribute::COUNT)
    }

    fn below(&mut self, entry: u32, depth: usize) -> Result<u32, Damaged> {
        if entry & node::LEAF != 0 {
            return Ok(entry);
        }
        if let Some(&known) = self.known.get(&entry) {
            return Ok(known);
        }
        let depth = depth.checked_sub(1).ok_or(Damaged)?;
        let attribute = (entry >> 24 & 0x1f) as Attribute;
        if !self.stretches.contains_key(&attribute) {
            return Err(Damaged);
        }
        let count = self.class_counts.get(usize::from(attribute)).copied().unwrap_or(1);
        let mut runs: Vec<(u32, u32)> = Vec::new();
        for (last, target) in self.row(entry, attribute, (0, count - 1), attribute::COUNT)? {
            let target = self.below(target, depth)?;
            match runs.last_mut() {
                Some((end, before)) if *before == target => *end = last,
                _ => runs.push((last, target)),
            }
        }
        let number = match runs.as_slice() {
            &[(_, only)] => only,
            _ => {
                self.nodes.push(Node { attribute, runs });
                self.nodes.len() as u32 - 1
            }
        };
        self.known.insert(entry, number);
        Ok(number)
    }

    /// The entries of a row for some classes. A row of many edges may be a tree of small rows.
    fn row(
        &self,
        entry: u32,
        attribute: Attribute,
        (first, last): (u32, u32),
        depth: usize,
    ) -> Result<Vec<(u32, u32)>, Damaged> {
        let depth = depth.checked_sub(1).ok_or(Damaged)?;
        let word = |index: u32| self.tables.word(index);
        let base = (entry & 0x00ff_ffff) * node::BASE_UNIT;
        let sparse = |ends: u32| -> Vec<(u32, u32)> {
            let mut runs = Vec::new();
            let mut from = first;
            for at in 0..=ends {
                let end = if at < ends { word(base.wrapping_add(at)).min(last) } else { last };
                if from <= end {
                    runs.push((end, word(base.wrapping_add(ends + at))));
                    from = end + 1;
                }
            }
            runs
        };
        let runs = match entry >> 29 {
            node::KIND_DENSE => {
                (first..=last).map(|class| (class, word(base.wrapping_add(class)))).collect()
            }
            node::KIND_SPARSE4 => sparse(3),
            node::KIND_SPARSE8 => sparse(7),
            _ => {
                let in_page = (1 << node::PAGE_SHIFT) - 1;
                let read = |class: u32| {
                    word(
                        word(base.wrapping_add(class >> node::PAGE_SHIFT))
                            .wrapping_add(class & in_page),
                    )
                };
                (first..=last).map(|class| (class, read(class))).collect::<Vec<_>>()
            }
        };
        let mut flat = Vec::with_capacity(runs.len());
        let mut from = first;
        for (end, target) in runs {
            let again = target & node::LEAF == 0 && (target >> 24 & 0x1f) as Attribute == attribute;
            if again {
                flat.extend(self.row(target, attribute, (from, end), depth)?);
            } else {
                flat.push((end, target));
            }
            from = end + 1;
        }
        Ok(flat)
    }
}

fn stretches_of(
    tables: &ImageTables<'_>,
    attribute: Attribute,
    most: usize,
) -> Result<Vec<Stretch>, Damaged> {
    let word = |index: u32| tables.word(index);
    let root = word(AT_CLASSES + u32::from(attribute));
    let mut list = List::default();
    match attribute {
        attribute::SOURCE | attribute::DESTINATION => {
            let which = u32::from(attribute - attribute::SOURCE);
            const MAPPED: u128 = 0xffff << 32;
            let mut v4 = List::default();
            trie(tables, word(AT_TRIES_V4 + which), (MAPPED, 32), (&mut v4, most))?;
            let mut v6 = List::default();
            trie(tables, word(AT_TRIES_V6 + which), (0, 128), (&mut v6, most))?;
            let (before, after) = (MAPPED - 1, MAPPED + (1 << 32));
            for &(first, last, class) in v6.0.iter().filter(|s| s.0 <= before) {
                list.push(first, last.min(before), class);
            }
            v4.0.into_iter().for_each(|(first, last, class)| list.push(first, last, class));
            for &(first, last, class) in v6.0.iter().filter(|s| s.1 >= after) {
                list.push(first.max(after), last, class);
            }
        }
        attribute::SUBJECT | attribute::OBJECT => {
            // Most upper entries lead to the same few pages.
            let mut pages: FxHashMap<u32, Vec<Stretch>> = FxHashMap::default();
            let mut uppers: FxHashMap<u32, Vec<Stretch>> = FxHashMap::default();
            for high in 0..1_u32 << 12 {
                let upper = word(root.wrapping_add(high));
                let within = uppers.entry(upper).or_insert_with(|| {
                    let mut within = List::default();
                    for middle in 0..256_u32 {
                        let page = word(upper.wrapping_add(middle));
                        let lowest = pages.entry(page).or_insert_with(|| {
                            let mut low = List::default();
                            (0..256).for_each(|at| {
                                low.push(at.into(), at.into(), word(page.wrapping_add(at)))
                            });
                            low.0
                        });
                        let base = u128::from(middle) << 8;
                        lowest.iter().for_each(|&(a, b, c)| within.push(base + a, base + b, c));
                    }
                    within.0
                });
                let base = u128::from(high) << 16;
                within.iter().for_each(|&(a, b, c)| list.push(base + a, base + b, c));
            }
        }
        _ => match attribute::BITS.get(usize::from(attribute)) {
            Some(8) => {
                (0..256).for_each(|at| list.push(at.into(), at.into(), word(root.wrapping_add(at))))
            }
            _ => (0..1 << 16).for_each(|at: u32| {
                let class = word(word(root.wrapping_add(at >> 8)).wrapping_add(at & 0xff));
                list.push(at.into(), at.into(), class);
            }),
        },
    }
    Ok(list.0)
}

/// Stretches in ascending order; neighbours of one class are one.
#[derive(Default)]
pub(super) struct List(pub(super) Vec<Stretch>);

impl List {
    pub(super) fn push(&mut self, first: u128, last: u128, class: u32) {
        match self.0.last_mut() {
            Some((_, end, before)) if *before == class && *end + 1 == first => *end = last,
            _ => self.0.push((first, last, class)),
        }
    }
}

/// Stretches of addresses that a small image's trie may have: nodes that are the same are stored once.
const STRETCHES_MAX: usize = 1 << 18;

/// The stretches below an entry of a trie, from `base` on for so many bits.
fn trie(
    tables: &ImageTables<'_>,
    entry: u32,
    (base, bits): (u128, u32),
    (list, most): (&mut List, usize),
) -> Result<(), Damaged> {
    if entry & node::LEAF != 0 || bits == 0 {
        list.push(base, last_of(base, bits), entry & node::LEAF_NONE);
        return if list.0.len() > most { Err(Damaged) } else { Ok(()) };
    }
    let word = |at: u32| tables.word(entry.wrapping_add(at));
    // What a node leads to is written before it.
    let child = |at: u32| {
        let child = word(at);
        let is_before = child & node::LEAF != 0 || child < entry;
        if is_before { Ok(child) } else { Err(Damaged) }
    };
    let lanes = [double(tables, entry.wrapping_add(2)), double(tables, entry.wrapping_add(4))];
    match word(0) {
        node::trie::KIND_CHAIN => {
            let taken = word(1);
            if !(8..=bits.min(node::trie::CHAIN_BITS_MAX)).contains(&taken) || taken % 8 != 0 {
                return Err(Damaged);
            }
            let rest = bits - taken;
            let prefix = u128::from(lanes[0] >> (node::trie::CHAIN_BITS_MAX - taken));
            let equal = base | prefix << rest;
            // All others are told nothing more of.
            let otherwise = word(node::trie::CHAIN_ENTRIES_AT + 1);
            if otherwise & node::LEAF == 0 {
                return Err(Damaged);
            }
            let class = otherwise & node::LEAF_NONE;
            if equal > base {
                list.push(base, equal - 1, class);
            }
            let next = child(node::trie::CHAIN_ENTRIES_AT)?;
            trie(tables, next, (equal, rest), (&mut *list, most))?;
            let behind = last_of(equal, rest);
            if behind < last_of(base, bits) {
                list.push(behind + 1, last_of(base, bits), class);
            }
            Ok(())
        }
        kind @ (node::trie::KIND_SPARSE | node::trie::KIND_DENSE) => {
            let bits = bits - 8;
            for byte in 0..256_u32 {
                let index = if kind == node::trie::KIND_SPARSE {
                    node::trie::rank(lanes, byte)
                } else {
                    byte
                };
                let next = child(node::trie::ENTRIES_AT + index)?;
                trie(tables, next, (base | u128::from(byte) << bits, bits), (&mut *list, most))?;
            }
            Ok(())
        }
        _ => Err(Damaged),
    }
}

/// The last of so many bits' addresses from `base` on.
fn last_of(base: u128, bits: u32) -> u128 {
    if bits == 128 { u128::MAX } else { base | ((1 << bits) - 1) }
}
