//! Class tables: from values to class numbers, see `classify` in [`govc_abi::walk`].

use std::ops::RangeInclusive;

use govc_abi::node::{self, trie};

use super::{Kind, TooBig, words::Words};
use crate::class::AttributeClasses;

/// Values of a page, and entries of a root or middle page.
const PAGE: usize = 256;
/// Addresses that are IPv4 mapped.
const MAPPED: RangeInclusive<u128> = 0xffff_0000_0000..=0xffff_ffff_ffff;

/// Values with one class: first, last, class.
type Stretch = (u128, u128, u32);

/// A table of 256 classes.
pub(super) fn narrow(classes: &AttributeClasses, words: &mut Words) -> Result<u32, TooBig> {
    words.place(Kind::ClassTable, &class_by_value(classes, 8), 16)
}

/// A table of 256 pages of 256 classes.
pub(super) fn medium(classes: &AttributeClasses, words: &mut Words) -> Result<u32, TooBig> {
    let table = class_by_value(classes, 16);
    let pages: Result<Vec<u32>, TooBig> =
        table.chunks(PAGE).map(|page| words.place(Kind::ClassTable, page, 16)).collect();
    words.place(Kind::ClassTable, &pages?, 16)
}

fn class_by_value(classes: &AttributeClasses, bits: u8) -> Vec<u32> {
    let mut table = Vec::with_capacity(1 << bits);
    for (_, last, class) in classes.stretches(bits) {
        // Rows may name values that the attribute cannot have.
        let end = (last as usize + 1).min(1 << bits);
        table.resize(end.max(table.len()), class);
    }
    table
}

/// A table of 4096 pages of 256 pages of 256 classes.
pub(super) fn scope(classes: &AttributeClasses, words: &mut Words) -> Result<u32, TooBig> {
    let stretches: Vec<Stretch> = classes.stretches(28).collect();
    let mut rest = stretches.as_slice();
    let mut root = Vec::with_capacity(4096);
    let mut pages = ConstantPages::default();
    for block in 0..4096_u128 {
        let here = stretches_in(&mut rest, block << 16..=(block << 16 | 0xffff));
        root.push(scope_block(block << 16, here, &mut pages, words)?);
    }
    words.place(Kind::ScopeTable, &root, 16)
}

fn scope_block(
    first: u128,
    stretches: &[Stretch],
    constant: &mut ConstantPages,
    words: &mut Words,
) -> Result<u32, TooBig> {
    if let &[(.., class)] = stretches {
        let page = constant.page(class, words)?;
        return constant.page(page, words);
    }
    let mut rest = stretches;
    let mut pages = Vec::with_capacity(PAGE);
    for page in 0..PAGE as u128 {
        let page_first = first | page << 8;
        let page_last = page_first | 0xff;
        let here = stretches_in(&mut rest, page_first..=page_last);
        pages.push(if let &[(.., class)] = here {
            constant.page(class, words)?
        } else {
            let mut classes = Vec::with_capacity(PAGE);
            for &(_, last, class) in here {
                let end = last.min(page_last) - page_first + 1;
                classes.resize(end as usize, class);
            }
            words.place(Kind::ScopeTable, &classes, 16)?
        });
    }
    words.place(Kind::ScopeTable, &pages, 16)
}

/// Pages that hold one word 256 times; the last one asked for is kept.
#[derive(Default)]
struct ConstantPages {
    last: [Option<(u32, u32)>; 2],
}

impl ConstantPages {
    fn page(&mut self, word: u32, words: &mut Words) -> Result<u32, TooBig> {
        let known = self.last.iter().flatten().find(|&&(other, _)| other == word);
        if let Some(&(_, page)) = known {
            return Ok(page);
        }
        let page = words.place(Kind::ScopeTable, &[word; PAGE], 16)?;
        self.last.rotate_left(1);
        if let Some(last) = self.last.last_mut() {
            *last = Some((word, page));
        }
        Ok(page)
    }
}

/// Those of `rest` that meet the values; what lies before them is dropped from `rest`.
fn stretches_in<'a>(rest: &mut &'a [Stretch], values: RangeInclusive<u128>) -> &'a [Stretch] {
    let before = rest.iter().take_while(|(_, last, _)| last < values.start()).count();
    *rest = rest.get(before..).unwrap_or_default();
    let count = rest.iter().take_while(|(first, ..)| first <= values.end()).count();
    rest.get(..count).unwrap_or_default()
}

/// Trie entries for v4 and v6 addresses.
pub(super) fn tries(classes: &AttributeClasses, words: &mut Words) -> Result<(u32, u32), TooBig> {
    let (mapped_first, mapped_last) = (*MAPPED.start(), *MAPPED.end());
    let mut v4: Vec<Stretch> = Vec::new();
    let mut v6: Vec<Stretch> = Vec::new();
    for (first, last, class) in classes.stretches(128) {
        if first <= mapped_last && last >= mapped_first {
            v4.push((first.max(mapped_first), last.min(mapped_last), class));
        }
        let last_before = last.min(mapped_first - 1);
        if first <= last_before {
            v6.push((first, last_before, class));
        }
        let first_behind = first.max(mapped_last + 1);
        if first_behind <= last {
            // No v6 packet has a mapped address: the gap takes the class before it, so that
            // most tries need no node for it.
            match v6.last_mut() {
                Some((_, end, before)) if *before == class => *end = last,
                Some((_, end, _)) => {
                    *end = first_behind - 1;
                    v6.push((first_behind, last, class));
                }
                None => v6.push((first_behind, last, class)),
            }
        }
    }
    let mut trie = TrieWriter { words };
    let v4 = trie.entry(mapped_first, 32, &v4)?;
    Ok((v4, trie.entry(0, 128, &v6)?))
}

struct TrieWriter<'a> {
    words: &'a mut Words,
}

/// Where a walk goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// By this entry.
    Entry(u32),
    /// By a chain that is not written yet: it may become part of a longer one.
    Chain(Chain),
}

/// Addresses that begin with some bytes are told from all others.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Chain {
    bits: u32,
    /// The bytes, from the top.
    value: u64,
    equal: u32,
    otherwise: u32,
}

/// The byte that some edges tell from all others, where it leads, and the leaf of those: a node that they
/// went on by would come after one byte, and after as many as the chain grows to have.
fn only_way(edges: &[(u32, Next)]) -> Option<(u32, Next, u32)> {
    let (byte, equal, otherwise) = match *edges {
        [(0, equal), (_, otherwise)] => (0, equal, otherwise),
        [(254, otherwise), (_, equal)] => (255, equal, otherwise),
        [(before, otherwise), (byte, equal), (_, also)]
            if byte == before + 1 && also == otherwise =>
        {
            (byte, equal, otherwise)
        }
        _ => return None,
    };
    match otherwise {
        Next::Entry(leaf) if leaf & node::LEAF != 0 => Some((byte, equal, leaf)),
        _ => None,
    }
}

impl TrieWriter<'_> {
    /// The entry for `bits` bits of addresses from `base` on, which the stretches cover.
    fn entry(&mut self, base: u128, bits: u32, stretches: &[Stretch]) -> Result<u32, TooBig> {
        let next = self.node(base, bits, stretches)?;
        self.write(next)
    }

    fn node(&mut self, base: u128, bits: u32, stretches: &[Stretch]) -> Result<Next, TooBig> {
        if let &[(.., class)] = stretches {
            return Ok(Next::Entry(node::leaf(class)));
        }
        let shift = bits.saturating_sub(8);
        let mut rest = stretches;
        let mut edges: Vec<(u32, Next)> = Vec::with_capacity(16);
        let mut byte = 0;
        while byte < 256 {
            let child = base + ((byte as u128) << shift);
            let child_last = child | ((1 << shift) - 1);
            let here = stretches_in(&mut rest, child..=child_last);
            let next = self.node(child, shift, here)?;
            // As many bytes as one stretch covers.
            let covered = match *here {
                [(_, last, _)] => ((last - base).saturating_add(1) >> shift) as usize,
                _ => byte + 1,
            };
            byte = covered.clamp(byte + 1, 256);
            match edges.last_mut() {
                Some((end, before)) if *before == next => *end = byte as u32 - 1,
                _ => edges.push((byte as u32 - 1, next)),
            }
        }
        if let &[(_, next)] = edges.as_slice() {
            return Ok(next);
        }
        if let Some((byte, equal, otherwise)) = only_way(&edges) {
            return self.chain(byte.into(), equal, otherwise).map(Next::Chain);
        }
        let edges: Result<Vec<(u32, u32)>, TooBig> =
            edges.into_iter().map(|(end, next)| Ok((end, self.write(next)?))).collect();
        let edges = edges?;
        let entry = if edges.len() <= trie::ENDS_MAX + 1 {
            self.sparse(&edges)
        } else {
            self.dense(&edges)
        };
        entry.map(Next::Entry)
    }

    /// The chain that begins with a byte.
    fn chain(&mut self, byte: u64, equal: Next, otherwise: u32) -> Result<Chain, TooBig> {
        match equal {
            Next::Chain(chain)
                if chain.otherwise == otherwise && chain.bits < trie::CHAIN_BITS_MAX =>
            {
                let (bits, value) = (chain.bits + 8, byte << 56 | chain.value >> 8);
                Ok(Chain { bits, value, ..chain })
            }
            _ => Ok(Chain { bits: 8, value: byte << 56, equal: self.write(equal)?, otherwise }),
        }
    }

    fn write(&mut self, next: Next) -> Result<u32, TooBig> {
        let Chain { bits, value, equal, otherwise } = match next {
            Next::Entry(entry) => return Ok(entry),
            Next::Chain(chain) => chain,
        };
        let (low, high) = (value as u32, (value >> 32) as u32);
        let mut piece = vec![trie::KIND_CHAIN, bits, low, high, equal, otherwise];
        piece.resize(trie::CHAIN_WORDS, 0);
        self.words.place(Kind::TrieChain, &piece, 4)
    }

    fn sparse(&mut self, edges: &[(u32, u32)]) -> Result<u32, TooBig> {
        let mut piece = vec![trie::KIND_SPARSE, 0];
        let mut ends = [255_u32; trie::ENDS_MAX];
        for (place, &(end, _)) in ends.iter_mut().zip(edges) {
            *place = end;
        }
        let (pairs, _) = ends.as_chunks::<2>();
        piece.extend(pairs.iter().map(|[low, high]| low | high << 16));
        piece.resize(trie::ENTRIES_AT as usize, 0);
        piece.extend(edges.iter().map(|&(_, entry)| entry));
        // Entries behind the last are never read.
        piece.resize(piece.len().next_multiple_of(4), 0);
        self.words.place(Kind::TrieSparse, &piece, 4)
    }

    fn dense(&mut self, edges: &[(u32, u32)]) -> Result<u32, TooBig> {
        let mut piece = vec![trie::KIND_DENSE];
        piece.resize(trie::ENTRIES_AT as usize, 0);
        for &(end, entry) in edges {
            piece.resize(trie::ENTRIES_AT as usize + end as usize + 1, entry);
        }
        self.words.place(Kind::TrieDense, &piece, 4)
    }
}
