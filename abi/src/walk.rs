//! The walk: from a request to a rule, through the tables of an image.
//!
//! One source for the kernel and the simulator, generic over how a word is read. The number of
//! steps depends on how many attributes and parts a policy uses, never on how many rules.

#![expect(
    clippy::indexing_slicing,
    reason = "indices are constants or taken modulo the length; the eBPF verifier checks again"
)]

use crate::{
    attribute::{self, Attribute, Request},
    image::{self, part, program, rule},
    limits::{ATTRIBUTES_MAX, PARTS_MAX, TIMES_MAX},
    node,
};

/// The words of an image. An index out of range reads some word of the table, never elsewhere.
pub trait Tables {
    /// The word at `index`.
    fn word(&self, index: u32) -> u32;

    /// The word at an index below [`image::HEADER_WORDS`], which every image has.
    #[inline(always)]
    fn header(&self, index: u32) -> u32 {
        self.word(index)
    }

    /// [`descend`], unless there is a better way to call it: the kernel's verifier explores a
    /// function of its own once, and inlined code anew for every part.
    #[inline(always)]
    fn descend(&self, entry: u32, classes: &Classes) -> u32
    where
        Self: Sized,
    {
        descend(self, entry, classes)
    }

    /// What becomes of a bitmap by the eight words from `at` on; see [`crate::translate`]. Likewise.
    #[inline(always)]
    fn becomes(&self, at: u32, bits: u32) -> u32
    where
        Self: Sized,
    {
        crate::translate::becomes(self, at, bits)
    }
}

/// Class numbers by attribute: the walk's working memory, 128 bytes.
pub type Classes = [u32; ATTRIBUTES_MAX];

/// What a decision program says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The rule, label or object that the program names; [`node::LEAF_NONE`] for none.
    pub winner: u32,
    /// A rule in observe mode that would have decided otherwise than `winner` does, had it been
    /// enforced; [`node::LEAF_NONE`] for none.
    pub pending: u32,
}

/// Finds the class of each attribute that the program tests.
#[inline(always)]
fn classify<T: Tables>(tables: &T, mask: u32, request: &Request, classes: &mut Classes) {
    macro_rules! narrow {
        ($($attribute:expr),*) => { $(
            if mask & 1 << $attribute != 0 {
                let root = tables.header(image::AT_CLASSES + $attribute as u32);
                let value = request.scalars[$attribute as usize] & 0xff;
                classes[$attribute as usize] = tables.word(root.wrapping_add(value));
            }
        )* };
    }
    macro_rules! medium {
        ($($attribute:expr),*) => { $(
            if mask & 1 << $attribute != 0 {
                let root = tables.header(image::AT_CLASSES + $attribute as u32);
                let value = request.scalars[$attribute as usize] & 0xffff;
                let page = tables.word(root.wrapping_add(value >> 8));
                classes[$attribute as usize] = tables.word(page.wrapping_add(value & 0xff));
            }
        )* };
    }
    macro_rules! scope {
        ($($attribute:expr),*) => { $(
            if mask & 1 << $attribute != 0 {
                let root = tables.header(image::AT_CLASSES + $attribute as u32);
                let value = request.scalars[$attribute as usize] & 0x0fff_ffff;
                let upper = tables.word(root.wrapping_add(value >> 16));
                let page = tables.word(upper.wrapping_add(value >> 8 & 0xff));
                classes[$attribute as usize] = tables.word(page.wrapping_add(value & 0xff));
            }
        )* };
    }
    scope!(attribute::SUBJECT, attribute::OBJECT);
    medium!(
        attribute::COMPARTMENTS,
        attribute::CONSTRAINTS,
        attribute::OPERATION,
        attribute::SOURCE_PORT,
        attribute::DESTINATION_PORT,
        attribute::ICMP,
        attribute::CGROUP
    );
    narrow!(
        attribute::STATE,
        attribute::LEVEL,
        attribute::RADIUS,
        attribute::RESIDENCY,
        attribute::ROUTE,
        attribute::PROTOCOL,
        attribute::INGRESS_ZONE,
        attribute::EGRESS_ZONE,
        attribute::SHAPE,
        attribute::TIME
    );
    if mask & 1 << attribute::SOURCE != 0 {
        classes[attribute::SOURCE as usize] = address_class(tables, 0, request.source);
    }
    if mask & 1 << attribute::DESTINATION != 0 {
        classes[attribute::DESTINATION as usize] = address_class(tables, 1, request.destination);
    }
}

/// The class of an address: `which` is 0 for sources, 1 for destinations.
#[inline(always)]
fn address_class<T: Tables>(tables: &T, which: u32, address: [u64; 2]) -> u32 {
    let v4 = address[0] == 0 && address[1] >> 32 == 0xffff;
    let (mut upper, mut lower, mut entry) = if v4 {
        (address[1] << 32, 0, tables.header(image::AT_TRIES_V4 + which))
    } else {
        (address[0], address[1], tables.header(image::AT_TRIES_V6 + which))
    };
    let mut step = 0;
    while step < 16 {
        if entry & node::LEAF != 0 {
            break;
        }
        let kind = tables.word(entry);
        // What is shifted in two steps may be shifted by 64.
        let bits =
            if kind == node::trie::KIND_CHAIN { tables.word(entry.wrapping_add(1)) } else { 8 };
        let (less, rest) = (bits.wrapping_sub(1) & 63, 0_u32.wrapping_sub(bits) & 63);
        let seen = upper;
        upper = upper << less << 1 | lower >> rest;
        lower = lower << less << 1;
        let index = if kind == node::trie::KIND_CHAIN {
            let differs = (seen ^ double(tables, entry.wrapping_add(2))) >> rest;
            node::trie::CHAIN_ENTRIES_AT + (differs != 0) as u32
        } else {
            let byte = (seen >> 56) as u32;
            node::trie::ENTRIES_AT
                + if kind == node::trie::KIND_SPARSE {
                    let lanes = [
                        double(tables, entry.wrapping_add(2)),
                        double(tables, entry.wrapping_add(4)),
                    ];
                    node::trie::rank(lanes, byte)
                } else {
                    byte
                }
        };
        entry = tables.word(entry.wrapping_add(index));
        step += 1;
    }
    entry & node::LEAF_NONE
}

/// How many of the image's moments are past in a slot: the value of [`attribute::TIME`].
#[inline(always)]
pub fn times_past<T: Tables>(tables: &T, slot: u64) -> u32 {
    if tables.header(image::AT_TIME_COUNT) == 0 {
        return 0;
    }
    let mut past = 0;
    let mut at = 0;
    while at < TIMES_MAX as u32 {
        past += (tables.header(image::AT_TIMES + at) as u64 <= slot) as u32;
        at += 1;
    }
    past
}

/// The first slot in which [`times_past`] says more than `past`; far away when there is none.
#[inline(always)]
pub fn next_time<T: Tables>(tables: &T, past: u32) -> u64 {
    let last = TIMES_MAX as u32;
    if tables.header(image::AT_TIME_COUNT) == 0 || past >= last {
        return u32::MAX as u64;
    }
    tables.header(image::AT_TIMES + past) as u64
}

/// Two words as one number, low word first.
#[inline(always)]
pub fn double<T: Tables>(tables: &T, index: u32) -> u64 {
    tables.word(index) as u64 | (tables.word(index.wrapping_add(1)) as u64) << 32
}

/// 1 when `class` lies above `end`, else 0; without a branch, which would double the states that
/// the eBPF verifier has to look at.
#[inline(always)]
fn above(class: u32, end: u32) -> u32 {
    ((end as u64).wrapping_sub(class as u64) >> 63) as u32
}

/// Follows one diagram from its root entry to a leaf.
#[inline(always)]
pub fn descend<T: Tables>(tables: &T, mut entry: u32, classes: &Classes) -> u32 {
    let mut step = 0;
    while step < attribute::COUNT {
        if entry & node::LEAF != 0 {
            return entry & node::LEAF_NONE;
        }
        let class = classes[(entry >> 24) as usize % ATTRIBUTES_MAX];
        let base = (entry & 0x00ff_ffff) * node::BASE_UNIT;
        let kind = entry >> 29;
        entry = if kind == node::KIND_DENSE {
            tables.word(base.wrapping_add(class))
        } else if kind == node::KIND_SPARSE4 {
            let index = above(class, tables.word(base))
                + above(class, tables.word(base + 1))
                + above(class, tables.word(base + 2));
            tables.word(base + 3 + index)
        } else if kind == node::KIND_SPARSE8 {
            let index = above(class, tables.word(base))
                + above(class, tables.word(base + 1))
                + above(class, tables.word(base + 2))
                + above(class, tables.word(base + 3))
                + above(class, tables.word(base + 4))
                + above(class, tables.word(base + 5))
                + above(class, tables.word(base + 6));
            tables.word(base + 7 + index)
        } else {
            let page = tables.word(base.wrapping_add(class >> node::PAGE_SHIFT));
            tables.word(page.wrapping_add(class & ((1 << node::PAGE_SHIFT) - 1)))
        };
        step += 1;
    }
    if entry & node::LEAF != 0 { entry & node::LEAF_NONE } else { node::LEAF_NONE }
}

/// Runs decision program `which` (one of [`program`]) on a request.
#[inline(always)]
pub fn walk<T: Tables>(
    tables: &T,
    which: u32,
    request: &Request,
    classes: &mut Classes,
) -> Outcome {
    let at = image::AT_PROGRAMS + which * image::PROGRAM_WORDS;
    let none = node::LEAF_NONE;
    let parts = tables.word(at + image::PROGRAM_PARTS);
    if parts == 0 {
        return Outcome { winner: none, pending: none };
    }
    classify(tables, tables.word(at + image::PROGRAM_ATTRIBUTES), request, classes);
    let decides = which >= program::INGRESS;
    let rules = tables.header(image::AT_RULES);
    let mut best = none;
    let mut pending = none;
    let mut group = 0;
    let mut index = 0;
    while index < PARTS_MAX as u32 {
        if index >= parts {
            break;
        }
        let part_at = at + image::PROGRAM_PART + 2 * index;
        let flags = tables.word(part_at + 1);
        if flags & part::GROUP_MASK != group {
            if best != none {
                if tables.word(rules.wrapping_add(best)) & rule::ACTION_MASK != rule::PASS {
                    break;
                }
                if pending > best {
                    pending = none;
                }
                best = none;
            }
            group = flags & part::GROUP_MASK;
        }
        let root = tables.word(part_at);
        let found = if root & node::LEAF != 0 {
            root & node::LEAF_NONE
        } else {
            tables.descend(root, classes)
        };
        if flags & part::OBSERVE != 0 {
            if found < pending {
                pending = found;
            }
        } else if found < best {
            best = found;
        }
        index += 1;
    }
    if decides && best != none {
        if pending > best {
            pending = none;
        }
        if tables.word(rules.wrapping_add(best)) & rule::ACTION_MASK == rule::PASS {
            best = none;
        }
    }
    Outcome { winner: best, pending }
}

/// The index of a domain number, or [`None`] when the image does not know it.
#[inline(always)]
pub fn domain_index<T: Tables>(tables: &T, number: u16) -> Option<u32> {
    let count = tables.header(image::AT_DOMAIN_COUNT);
    let mut index = 0;
    while index < crate::limits::DOMAINS_NAMED_MAX as u32 {
        if index >= count {
            break;
        }
        if tables.header(image::AT_DOMAINS + index) == number as u32 {
            return Some(index);
        }
        index += 1;
    }
    None
}

/// Fills the label attributes of a request.
#[inline(always)]
pub fn set_label(
    request: &mut Request,
    state: u32,
    domain_index: u32,
    label: &crate::label::Label,
) {
    let set = |request: &mut Request, attribute: Attribute, value: u32| {
        request.scalars[attribute as usize] = value;
    };
    set(request, attribute::STATE, state);
    set(request, attribute::SUBJECT, attribute::scope_key(domain_index, label.subject()));
    set(request, attribute::LEVEL, label.level() as u32);
    set(request, attribute::RADIUS, label.radius() as u32);
    set(request, attribute::COMPARTMENTS, label.compartments() as u32);
    set(request, attribute::CONSTRAINTS, label.constraints() as u32);
    set(request, attribute::OPERATION, label.operation() as u32);
    set(request, attribute::RESIDENCY, label.residency() as u32);
    set(request, attribute::ROUTE, label.route() as u32);
}
