//! The image: one array of 32-bit words that holds all tables of a policy.
//!
//! The first [`HEADER_WORDS`] words are the header; everything else is found through it. The
//! walk masks every index with the size of the table that holds the image, a power of two, so
//! that no image, however wrong, makes it read elsewhere. Behind the tables lies the names
//! section, which the kernel never reads.

use crate::limits::{DOMAINS_MAX, PARTS_MAX, TIMES_MAX};

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
/// Word of the number of labels that are written.
pub const AT_LABEL_COUNT: u32 = 5;
/// Word of the index of the labels that are written; [`LABEL_WORDS`] each.
pub const AT_LABELS: u32 = 6;
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
/// Word of the number of moments in [`AT_TIMES`].
pub const AT_TIME_COUNT: u32 = 13;
/// Word of the set of [`crate::attribute::shape`] that rules speak of: all others are refused unread.
pub const AT_SHAPES: u32 = 15;
/// Word of the number of translations.
pub const AT_TRANSLATION_COUNT: u32 = 24;
/// Word of the index of the translations; [`TRANSLATION_WORDS`] each.
pub const AT_TRANSLATIONS: u32 = 25;
/// Word of the number of transforms.
pub const AT_TRANSFORM_COUNT: u32 = 26;
/// Word of the index of the transforms; [`TRANSFORM_WORDS`] each.
pub const AT_TRANSFORMS: u32 = 27;
/// Word that is 1 when some transform has [`TRANSFORM_READDRESSES`].
pub const AT_READDRESSES: u32 = 28;
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
/// Words with the moments at which rules begin or end, as slots since the Unix epoch, ascending;
/// behind them all bits are set.
pub const AT_TIMES: u32 = 104;
/// Words of the programs; [`PROGRAM_WORDS`] each.
pub const AT_PROGRAMS: u32 = 128;

/// Words of a program: attribute mask, flags, number of parts, zero, then a root entry and a
/// word of [`part`] flags for each part.
pub const PROGRAM_WORDS: u32 = 48;
/// Word of the mask of attributes that the program's diagrams test.
pub const PROGRAM_ATTRIBUTES: u32 = 0;
/// Word of [`PROGRAM_GOVERNED`].
pub const PROGRAM_FLAGS: u32 = 1;
/// Word of the number of parts.
pub const PROGRAM_PARTS: u32 = 2;
/// First part; two words each.
pub const PROGRAM_PART: u32 = 4;

/// Some policy speaks about this hook, so that what no rule permits is denied. For
/// [`program::CARRIAGE`]: some labels ride in tunnels.
pub const PROGRAM_GOVERNED: u32 = 1;

/// The decision programs of an image.
pub mod program {
    /// Which label an outgoing packet gets.
    pub const STAMP: u32 = 0;
    /// Which object an incoming packet is for.
    pub const DELIVER: u32 = 1;
    /// Which label an unlabelled neighbour's traffic counts as.
    pub const LEGACY: u32 = 2;
    /// Which translation a packet that passes through gets where it leaves.
    pub const TRANSLATE: u32 = 3;
    /// How the label of a leaving packet rides: see [`super::carriage`].
    pub const CARRIAGE: u32 = 4;
    /// The policy for arriving packets.
    pub const INGRESS: u32 = 5;
    /// The policy for leaving packets.
    pub const EGRESS: u32 = 6;
    /// The policy for packets that pass through.
    pub const FORWARD: u32 = 7;
    /// How many there are.
    pub const COUNT: usize = 8;
    /// Their names in dumps.
    pub const NAMES: [&str; COUNT] =
        ["stamp", "deliver", "legacy", "translate", "carriage", "ingress", "egress", "forward"];
}

/// What [`program::CARRIAGE`] answers: the position of a carriage rule among all of them, of which
/// the first that matches counts, in the upper bits, and one of these in the lowest.
pub mod carriage {
    /// An IPv4 option or an IPv6 destination option; also where no rule speaks.
    pub const OPTION: u32 = 0;
    /// A UDP tunnel: [`crate::tunnel`].
    pub const TUNNEL: u32 = 1;
    /// Mask of the kind.
    pub const KIND_MASK: u32 = 1;
    /// First bit of the position.
    pub const RULE_SHIFT: u32 = 1;
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
    /// Tell the sender of what is dropped.
    pub const REJECT: u32 = 1 << 6;
    /// Send what is dropped to the zone at [`ZONE_SHIFT`] instead.
    pub const QUARANTINE: u32 = 1 << 7;
    /// First bit of the zone, 8 bits.
    pub const ZONE_SHIFT: u32 = 8;
    /// First bit of `N`, 16 bits: one of `N` packets is reported; 0 and 1 report each.
    pub const SAMPLING_SHIFT: u32 = 16;
}

/// Words of a label: head and mid of a [`crate::label::Label`], low word first, then the domain
/// index, what a socket declares to get it, and where further labels of its rule are.
pub const LABEL_WORDS: u32 = 8;
/// Word of the head's low half.
pub const LABEL_HEAD: u32 = 0;
/// Word of the mid's low half.
pub const LABEL_MID: u32 = 2;
/// Word of the domain index.
pub const LABEL_DOMAIN: u32 = 4;
/// Word of the low half of the [`crate::declare::hash`] of its operation; 0 for none.
pub const LABEL_DECLARED: u32 = 5;
/// Word of the number of the first further label, and from [`LABEL_FURTHER_SHIFT`] on how many there
/// are. A socket that declares their operation gets one of them instead.
pub const LABEL_FURTHER: u32 = 7;
/// See [`LABEL_FURTHER`].
pub const LABEL_FURTHER_SHIFT: u32 = 24;
const LABEL_FURTHER_MASK: u32 = 0x1f;
/// The number of the first further label in [`LABEL_FURTHER`], and how many there are.
#[inline(always)]
#[must_use]
pub const fn further(word: u32) -> (u32, u32) {
    (word & 0x00ff_ffff, word >> LABEL_FURTHER_SHIFT & LABEL_FURTHER_MASK)
}

/// Words of a translation: which subjects it is about, the subject that they become, and what
/// becomes of everything else.
pub const TRANSLATION_WORDS: u32 = 4;
/// Word of the first subject, a [`crate::attribute::scope_key`]. A translation whose first subject
/// lies behind its last is about nobody: its labels are refused.
pub const TRANSLATION_FIRST: u32 = 0;
/// Word of the last subject.
pub const TRANSLATION_LAST: u32 = 1;
/// Word of the subject that they become, or of [`TRANSLATION_KEEPS`].
pub const TRANSLATION_SUBJECT: u32 = 2;
/// Word of the number of the transform.
pub const TRANSLATION_TRANSFORM: u32 = 3;
/// Subjects stay what they are.
pub const TRANSLATION_KEEPS: u32 = 1 << 31;

/// Words of a transform: what becomes of the fields of a label but its subject.
pub const TRANSFORM_WORDS: u32 = 24;
/// Word of the index of the domain that it leads to in the low bits, and of the limits.
pub const TRANSFORM_LIMITS: u32 = 0;
/// First bit of the largest radius in that word, 4 bits.
pub const TRANSFORM_RADIUS_SHIFT: u32 = 8;
/// First bit of the longest life, 4 bits.
pub const TRANSFORM_LIFE_SHIFT: u32 = 12;
/// Set when the domain stays the same.
pub const TRANSFORM_SAME: u32 = 1 << 16;
/// Set when addresses and ports may be others than those that the label came with.
pub const TRANSFORM_READDRESSES: u32 = 1 << 17;
/// Word of the low half of the levels: 4 bits for each level that comes in.
pub const TRANSFORM_LEVELS: u32 = 1;
/// Word of the constraints that are added, and in the upper half those that it knows.
pub const TRANSFORM_ADDED: u32 = 3;
/// First of eight words of two bitmaps each: what becomes of each constraint.
pub const TRANSFORM_CONSTRAINTS: u32 = 4;
/// Word of the compartments that it knows.
pub const TRANSFORM_KNOWN: u32 = 12;
/// First of eight words of two bitmaps each: what becomes of each compartment.
pub const TRANSFORM_COMPARTMENTS: u32 = 13;
/// Word of the index of what becomes of operations: how many entries there are, then one for each
/// number from 1. 0 when they stay what they are.
pub const TRANSFORM_OPERATIONS: u32 = 21;
/// Likewise of residency sets.
pub const TRANSFORM_RESIDENCIES: u32 = 22;
/// Likewise of route classes.
pub const TRANSFORM_ROUTES: u32 = 23;
/// The entry of a number that becomes nothing.
pub const TRANSFORM_REFUSED: u32 = u32::MAX;

/// Bit of [`LABEL_FURTHER`]: fragments get this label too, each by itself.
pub const LABEL_FRAGMENTS: u32 = 1 << 31;

const _: () = assert!(crate::limits::DECLARABLE_MAX <= LABEL_FURTHER_MASK as usize);
const _: () = assert!(PROGRAM_PART as usize + 2 * PARTS_MAX <= PROGRAM_WORDS as usize);
const _: () = assert!(AT_TIMES as usize + TIMES_MAX <= AT_PROGRAMS as usize);
const _: () = assert!(
    AT_PROGRAMS as usize + program::COUNT * PROGRAM_WORDS as usize <= HEADER_WORDS,
    "the programs end inside the header"
);
