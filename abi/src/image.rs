//! The image: one array of 32-bit words that holds all tables of a policy.
//!
//! The first [`HEADER_WORDS`] words are the header; everything else is found through it. The
//! walk masks every index with the size of the table that holds the image, a power of two, so
//! that no image, however wrong, makes it read elsewhere. Behind the tables lies the names
//! section, which the kernel never reads.

use crate::limits::{DOMAINS_MAX, PARTS_MAX};

/// `GOVI` in memory order.
pub const MAGIC: u32 = u32::from_le_bytes(*b"GOVI");
/// Words of the header.
pub const HEADER_WORDS: usize = 512;

/// Word of the magic.
pub const AT_MAGIC: u32 = 0;
/// Word of the ABI version.
pub const AT_ABI_VERSION: u32 = 1;
/// Word of the image's length in words.
pub const AT_WORDS: u32 = 2;
/// Word of the number of rules.
pub const AT_RULE_COUNT: u32 = 3;
/// Word of the index of the rule records; one word each.
pub const AT_RULES: u32 = 4;
/// Word of the number of label templates.
pub const AT_TEMPLATE_COUNT: u32 = 5;
/// Word of the index of the label templates; [`TEMPLATE_WORDS`] each.
pub const AT_TEMPLATES: u32 = 6;
/// Word of the number of domains.
pub const AT_DOMAIN_COUNT: u32 = 7;
/// Word of the longest life that is accepted, as a power of two of slots.
pub const AT_LIFE_MAX: u32 = 8;
/// Word of the index of the names section.
pub const AT_NAMES: u32 = 9;
/// Word of the names section's length in bytes.
pub const AT_NAMES_LEN: u32 = 10;
/// Word of the number of objects.
pub const AT_OBJECT_COUNT: u32 = 11;
/// Word of the index of the objects; one word each, a [`crate::attribute::scope_key`].
pub const AT_OBJECTS: u32 = 12;
/// Words of the SHA-256 over the image with these eight words zero.
pub const AT_DIGEST: u32 = 16;
/// Words with a domain number each.
pub const AT_DOMAINS: u32 = 32;
/// Words with a mask of known constraints each, by domain index.
pub const AT_CONSTRAINTS: u32 = AT_DOMAINS + DOMAINS_MAX as u32;
/// Words with the index of each attribute's class table, by attribute; 0 when unused.
pub const AT_CLASSES: u32 = 64;
/// Words with the trie entry for IPv4 addresses, for source and destination.
pub const AT_TRIES_V4: u32 = 96;
/// Words with the trie entry for IPv6 addresses, for source and destination.
pub const AT_TRIES_V6: u32 = 98;
/// Words of the programs; [`PROGRAM_WORDS`] each.
pub const AT_PROGRAMS: u32 = 128;

/// Words of a program: attribute mask, flags, number of parts, zero, then a root entry and a
/// word of [`part`] flags for each part.
pub const PROGRAM_WORDS: u32 = 64;
/// Word of the mask of attributes that the program's diagrams test.
pub const PROGRAM_ATTRIBUTES: u32 = 0;
/// Word of [`PROGRAM_GOVERNED`].
pub const PROGRAM_FLAGS: u32 = 1;
/// Word of the number of parts.
pub const PROGRAM_PARTS: u32 = 2;
/// First part; two words each.
pub const PROGRAM_PART: u32 = 4;

/// Some policy speaks about this hook, so that what no rule permits is denied.
pub const PROGRAM_GOVERNED: u32 = 1;

/// The decision programs of an image.
pub mod program {
    /// Which label template an outgoing packet gets.
    pub const STAMP: u32 = 0;
    /// Which object an incoming packet is for.
    pub const DELIVER: u32 = 1;
    /// Which label template an unlabelled neighbour's traffic counts as.
    pub const LEGACY: u32 = 2;
    /// The policy for arriving packets.
    pub const INGRESS: u32 = 3;
    /// The policy for leaving packets.
    pub const EGRESS: u32 = 4;
    /// The policy for packets that pass through.
    pub const FORWARD: u32 = 5;
    /// How many there are.
    pub const COUNT: usize = 6;
    /// Their names in dumps.
    pub const NAMES: [&str; COUNT] = ["stamp", "deliver", "legacy", "ingress", "egress", "forward"];
}

/// Flags of a part: its group in the low bits.
pub mod part {
    /// Groups are decided one after the other: a `pass` in one leads to the next.
    pub const GROUP_MASK: u32 = 0xff;
    /// The part holds rules that only tell what they would do.
    pub const OBSERVE: u32 = 1 << 8;
}

/// A rule record: the action in the low bits, then flags.
pub mod rule {
    /// Mask of the action.
    pub const ACTION_MASK: u32 = 0xf;
    /// Let through.
    pub const PERMIT: u32 = 1;
    /// Drop.
    pub const DENY: u32 = 2;
    /// Leave it to the next tier.
    pub const PASS: u32 = 3;
    /// Report every packet.
    pub const LOG: u32 = 1 << 4;
    /// Only tells what it would do.
    pub const OBSERVE: u32 = 1 << 5;
}

/// Words of a label template: head and mid of a [`crate::label::Label`], low word first, then
/// the domain index, then three zero words.
pub const TEMPLATE_WORDS: u32 = 8;
/// Word of the head's low half.
pub const TEMPLATE_HEAD: u32 = 0;
/// Word of the mid's low half.
pub const TEMPLATE_MID: u32 = 2;
/// Word of the domain index.
pub const TEMPLATE_DOMAIN: u32 = 4;

const _: () = assert!(PROGRAM_PART as usize + 2 * PARTS_MAX <= PROGRAM_WORDS as usize);
const _: () = assert!(
    AT_PROGRAMS as usize + program::COUNT * PROGRAM_WORDS as usize <= HEADER_WORDS,
    "the programs end inside the header"
);
