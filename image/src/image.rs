//! The checked image.

use govc_abi::{
    ABI_VERSION,
    attribute::{self, Request},
    image::{self as layout, program},
    label::Label,
    limits::{
        DECLARABLE_MAX, DOMAINS_NAMED_MAX, IMAGE_WORDS_MAX, LABELS_MAX, PARTS_MAX, RULES_MAX,
        TIMES_MAX, TRANSLATIONS_MAX,
    },
    node::LEAF_NONE,
    translate,
    walk::{self, Outcome},
};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::{ImageTables, Names, Translation};

/// Bytes of a word.
const WORD_LEN: usize = 4;
/// Bytes of the digest and where they stand.
const DIGEST: std::ops::Range<usize> =
    layout::AT_DIGEST as usize * WORD_LEN..(layout::AT_DIGEST as usize + 8) * WORD_LEN;

/// A compiled policy: all tables and the names, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    bytes: Box<[u8]>,
    names: Names,
}

/// Why bytes are not an image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ImageError {
    /// Too short for a header, not whole words, or beyond the limit.
    #[error("an image of {0} bytes: not whole words between the header's and the limit's size")]
    Length(usize),
    /// Some other kind of file.
    #[error("no image: it does not start with `GOVI`")]
    Magic,
    /// Made by or for another version.
    #[error("image of ABI version {0}, this is version {ABI_VERSION}")]
    AbiVersion(u32),
    /// Cut off or grown.
    #[error("the header says {stated} words, there are {found}")]
    Words {
        /// By the header.
        stated: u32,
        /// By the length.
        found: u32,
    },
    /// Changed since it was made.
    #[error("the digest does not fit the contents")]
    Digest,
    /// A section does not lie between the header and the end of the tables.
    #[error("the {0} do not lie inside the image")]
    Outside(&'static str),
    /// More of something than the limit allows.
    #[error("{count} {what}, the limit is {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: u32,
        /// How many there may be.
        max: usize,
    },
    /// The names section does not decode or does not fit the tables.
    #[error("the names do not decode: {0}")]
    Names(String),
}

/// One decision program, as the header describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Mask of the attributes that its diagrams test.
    pub attributes: u32,
    /// See [`layout::PROGRAM_GOVERNED`].
    pub governed: bool,
    /// In the order in which the walk takes them.
    pub parts: Vec<Part>,
}

/// One part of a program: a diagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Root, see [`govc_abi::node`].
    pub entry: u32,
    /// Number of its group.
    pub group: u32,
    /// It holds rules that only tell what they would do.
    pub observe: bool,
}

/// What a stamped or legacy packet's label says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrittenLabel {
    /// Head and mid; the tail is zero.
    pub label: Label,
    /// Index of its domain.
    pub domain_index: u32,
}

impl Image {
    /// Checks bytes and takes them.
    pub fn parse(bytes: impl Into<Box<[u8]>>) -> Result<Self, ImageError> {
        let bytes = bytes.into();
        check_header(&bytes)?;
        if digest_of(&bytes).as_slice() != bytes.get(DIGEST).unwrap_or_default() {
            return Err(ImageError::Digest);
        }
        check_sections(&bytes)?;
        let names = Names::decode(names_section(&bytes))?;
        Ok(Self { bytes, names })
    }

    /// Writes the digest into bytes that are otherwise an image with these names in its names
    /// section. For the encoder, which has just made both.
    pub fn seal(bytes: impl Into<Box<[u8]>>, names: Names) -> Result<Self, ImageError> {
        let mut bytes = bytes.into();
        check_header(&bytes)?;
        check_sections(&bytes)?;
        let digest = digest_of(&bytes);
        if let Some(place) = bytes.get_mut(DIGEST) {
            place.copy_from_slice(&digest);
        }
        Ok(Self { bytes, names })
    }

    /// The file's contents, little-endian words.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// All words.
    pub fn words(&self) -> impl ExactSizeIterator<Item = u32> {
        self.bytes.chunks_exact(WORD_LEN).map(to_word)
    }

    /// The word at `index`; 0 beyond the end.
    #[must_use]
    pub fn word(&self, index: u32) -> u32 {
        word(&self.bytes, index)
    }

    /// SHA-256 over the bytes with the digest's own words zero.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.bytes.get(DIGEST).and_then(|bytes| bytes.try_into().ok()).unwrap_or_default()
    }

    /// What the numbers mean.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Rule records by rule number, see [`layout::rule`].
    pub fn rules(&self) -> impl ExactSizeIterator<Item = u32> {
        let at = self.word(layout::AT_RULES);
        (0..self.word(layout::AT_RULE_COUNT)).map(move |rule| self.word(at + rule))
    }

    /// One rule record.
    #[must_use]
    pub fn rule(&self, number: u32) -> Option<u32> {
        (number < self.word(layout::AT_RULE_COUNT))
            .then(|| self.word(self.word(layout::AT_RULES) + number))
    }

    /// The label of one stamp or legacy rule.
    #[must_use]
    pub fn label(&self, number: u32) -> Option<WrittenLabel> {
        if number >= self.word(layout::AT_LABEL_COUNT) {
            return None;
        }
        let at = self.word(layout::AT_LABELS) + number * layout::LABEL_WORDS;
        let tables = ImageTables::new(self);
        let label = Label {
            head: walk::double(&tables, at + layout::LABEL_HEAD),
            mid: walk::double(&tables, at + layout::LABEL_MID),
            tail: 0,
            pad: 0,
        };
        Some(WrittenLabel { label, domain_index: self.word(at + layout::LABEL_DOMAIN) })
    }

    /// What becomes of a label of the domain with index `domain` that leaves by `zone`: the label, and
    /// the index of its domain. [`None`] when nothing does.
    ///
    /// # Errors
    /// The reason why it is refused.
    #[must_use]
    pub fn translate(
        &self,
        zone: u8,
        domain: u32,
        label: Label,
    ) -> Option<Result<(u32, Label), u8>> {
        let number = self.translation_of(zone, domain, label)?;
        let mut label = label;
        let becomes = translate::translate(&ImageTables::new(self), number, domain, &mut label);
        Some(becomes.map(|domain| (domain, label)))
    }

    /// Number of the translation for a label of the domain with index `domain` that leaves by `zone`, be it
    /// one that refuses it.
    #[must_use]
    pub fn translation_of(&self, zone: u8, domain: u32, label: Label) -> Option<u32> {
        let mut request = Request::EMPTY;
        walk::set_label(&mut request, attribute::state::VALID, domain, &label);
        if let Some(place) = request.scalars.get_mut(usize::from(attribute::EGRESS_ZONE)) {
            *place = zone.into();
        }
        let number = self.decide(program::TRANSLATE, &request).winner;
        (number != LEAF_NONE).then_some(number)
    }

    /// Index of the domain that a translation leads into.
    #[must_use]
    pub fn translation_target(&self, number: u32) -> Option<u32> {
        let at = translate::transform_at(&ImageTables::new(self), number);
        (number < self.word(layout::AT_TRANSLATION_COUNT))
            .then(|| self.word(at.wrapping_add(layout::TRANSFORM_LIMITS)) & 15)
    }

    /// All translations with what they do, by number.
    pub fn translations(&self) -> impl ExactSizeIterator<Item = Translation> {
        (0..self.word(layout::AT_TRANSLATION_COUNT)).map(|number| Translation::read(self, number))
    }

    /// One object, as a [`govc_abi::attribute::scope_key`].
    #[must_use]
    pub fn object(&self, number: u32) -> Option<u32> {
        (number < self.word(layout::AT_OBJECT_COUNT))
            .then(|| self.word(self.word(layout::AT_OBJECTS) + number))
    }

    /// Domain numbers by domain index, with the mask of constraints that each knows.
    pub fn domains(&self) -> impl Iterator<Item = (u32, u32)> {
        (0..self.word(layout::AT_DOMAIN_COUNT)).map(|index| {
            (self.word(layout::AT_DOMAINS + index), self.word(layout::AT_CONSTRAINTS + index))
        })
    }

    /// A decision program, one of [`program`].
    #[must_use]
    pub fn program(&self, which: u32) -> Option<Program> {
        if which >= program::COUNT as u32 {
            return None;
        }
        let at = layout::AT_PROGRAMS + which * layout::PROGRAM_WORDS;
        let parts = (0..self.word(at + layout::PROGRAM_PARTS))
            .map(|part| {
                let at = at + layout::PROGRAM_PART + 2 * part;
                let flags = self.word(at + 1);
                Part {
                    entry: self.word(at),
                    group: flags & layout::part::GROUP_MASK,
                    observe: flags & layout::part::OBSERVE != 0,
                }
            })
            .collect();
        Some(Program {
            attributes: self.word(at + layout::PROGRAM_ATTRIBUTES),
            governed: self.word(at + layout::PROGRAM_FLAGS) & layout::PROGRAM_GOVERNED != 0,
            parts,
        })
    }

    /// What decision program `which` (one of [`program`]) says about a request.
    #[must_use]
    pub fn decide(&self, which: u32, request: &Request) -> Outcome {
        walk::walk(&ImageTables::new(self), which, request, &mut walk::Classes::default())
    }
}

/// The word at `index`; 0 beyond the end.
pub(crate) fn word(bytes: &[u8], index: u32) -> u32 {
    let at = index as usize * WORD_LEN;
    bytes.get(at..at + WORD_LEN).map_or(0, to_word)
}

fn to_word(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

fn check_header(bytes: &[u8]) -> Result<(), ImageError> {
    let words = bytes.len() / WORD_LEN;
    if !bytes.len().is_multiple_of(WORD_LEN)
        || !(layout::HEADER_WORDS..=IMAGE_WORDS_MAX).contains(&words)
    {
        return Err(ImageError::Length(bytes.len()));
    }
    if word(bytes, layout::AT_MAGIC) != layout::MAGIC {
        return Err(ImageError::Magic);
    }
    let version = word(bytes, layout::AT_ABI_VERSION);
    if version != ABI_VERSION {
        return Err(ImageError::AbiVersion(version));
    }
    let stated = word(bytes, layout::AT_WORDS);
    if stated as usize != words {
        return Err(ImageError::Words { stated, found: words as u32 });
    }
    Ok(())
}

/// Offsets and counts. Diagrams are not followed: the walk cannot leave the table anyway.
fn check_sections(bytes: &[u8]) -> Result<(), ImageError> {
    let word = |index| word(bytes, index);
    let at_most = |what, count: u32, max: usize| {
        if count as usize <= max { Ok(()) } else { Err(ImageError::TooMany { what, count, max }) }
    };
    let tables_end = word(layout::AT_NAMES) as usize;
    let section = |what, at: u32, words: usize| {
        let inside = at as usize >= layout::HEADER_WORDS && at as usize + words <= tables_end;
        if inside || words == 0 { Ok(()) } else { Err(ImageError::Outside(what)) }
    };
    let names_end = tables_end * WORD_LEN + word(layout::AT_NAMES_LEN) as usize;
    if tables_end < layout::HEADER_WORDS || names_end > bytes.len() {
        return Err(ImageError::Outside("names"));
    }
    let rules = word(layout::AT_RULE_COUNT);
    at_most("rules", rules, RULES_MAX)?;
    section("rules", word(layout::AT_RULES), rules as usize)?;
    let labels = word(layout::AT_LABEL_COUNT);
    at_most("labels", labels, LABELS_MAX)?;
    let label_words = labels as usize * layout::LABEL_WORDS as usize;
    section("labels", word(layout::AT_LABELS), label_words)?;
    section("objects", word(layout::AT_OBJECTS), word(layout::AT_OBJECT_COUNT) as usize)?;
    let domains = word(layout::AT_DOMAIN_COUNT);
    at_most("domains", domains, DOMAINS_NAMED_MAX)?;
    let (translations, transforms) =
        (word(layout::AT_TRANSLATION_COUNT), word(layout::AT_TRANSFORM_COUNT));
    at_most("translations", translations, TRANSLATIONS_MAX)?;
    at_most("transforms", transforms, TRANSLATIONS_MAX)?;
    let each = |count: u32, words: u32| count as usize * words as usize;
    let translation_words = each(translations, layout::TRANSLATION_WORDS);
    section("translations", word(layout::AT_TRANSLATIONS), translation_words)?;
    let transform_words = each(transforms, layout::TRANSFORM_WORDS);
    section("transforms", word(layout::AT_TRANSFORMS), transform_words)?;
    for translation in 0..translations {
        let at = word(layout::AT_TRANSLATIONS) + translation * layout::TRANSLATION_WORDS;
        if word(at + layout::TRANSLATION_TRANSFORM) >= transforms {
            return Err(ImageError::Outside("transforms of translations"));
        }
    }
    for transform in 0..transforms {
        let at = word(layout::AT_TRANSFORMS) + transform * layout::TRANSFORM_WORDS;
        if word(at + layout::TRANSFORM_LIMITS) & 15 >= domains {
            return Err(ImageError::Outside("domains of transforms"));
        }
        for table in
            [layout::TRANSFORM_OPERATIONS, layout::TRANSFORM_RESIDENCIES, layout::TRANSFORM_ROUTES]
        {
            let table = word(at + table);
            let entries = if table == 0 { 0 } else { word(table) as usize + 1 };
            section("numbers of transforms", table, entries)?;
        }
    }
    at_most("moments", word(layout::AT_TIME_COUNT), TIMES_MAX)?;
    for label in 0..labels {
        let at = word(layout::AT_LABELS) + label * layout::LABEL_WORDS;
        if word(at + layout::LABEL_DOMAIN) >= domains {
            return Err(ImageError::Outside("domains of labels"));
        }
        let further = word(at + layout::LABEL_FURTHER);
        let (first, count) = layout::further(further);
        if first + count > labels || count as usize >= DECLARABLE_MAX {
            return Err(ImageError::Outside("further labels"));
        }
    }
    for which in 0..program::COUNT as u32 {
        let at = layout::AT_PROGRAMS + which * layout::PROGRAM_WORDS;
        at_most("parts", word(at + layout::PROGRAM_PARTS), PARTS_MAX)?;
    }
    Ok(())
}

fn names_section(bytes: &[u8]) -> &[u8] {
    let start = word(bytes, layout::AT_NAMES) as usize * WORD_LEN;
    let len = word(bytes, layout::AT_NAMES_LEN) as usize;
    bytes.get(start..start + len).unwrap_or_default()
}

/// SHA-256 of the bytes of an image, its digest words taken as zero.
#[must_use]
pub fn digest_of(bytes: &[u8]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(bytes.get(..DIGEST.start).unwrap_or_default());
    hasher.update([0; DIGEST.end - DIGEST.start]);
    hasher.update(bytes.get(DIGEST.end..).unwrap_or_default());
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest image: a header, one rule, names.
    fn small() -> Image {
        let names = Names { policy_name: "test".into(), ..Names::default() };
        let section = names.encode().unwrap();
        let mut words = vec![0_u32; layout::HEADER_WORDS + 1];
        words[layout::AT_MAGIC as usize] = layout::MAGIC;
        words[layout::AT_ABI_VERSION as usize] = ABI_VERSION;
        words[layout::AT_RULE_COUNT as usize] = 1;
        words[layout::AT_RULES as usize] = layout::HEADER_WORDS as u32;
        words[layout::HEADER_WORDS] = layout::rule::PERMIT;
        words[layout::AT_NAMES as usize] = words.len() as u32;
        words[layout::AT_NAMES_LEN as usize] = section.len() as u32;
        words[layout::AT_WORDS as usize] = (words.len() + section.len().div_ceil(4)) as u32;
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(&section);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Image::seal(bytes, names).unwrap()
    }

    /// Writes a word and the digest that then fits.
    fn with_word(image: &Image, index: u32, value: u32) -> Vec<u8> {
        let mut bytes = image.bytes().to_vec();
        bytes[index as usize * 4..index as usize * 4 + 4].copy_from_slice(&value.to_le_bytes());
        let digest = digest_of(&bytes);
        bytes[DIGEST].copy_from_slice(&digest);
        bytes
    }

    #[test]
    fn parses_what_it_sealed() {
        let image = small();
        assert_eq!(Image::parse(image.bytes()), Ok(image.clone()));
        assert_eq!(image.rule(0), Some(layout::rule::PERMIT));
        assert_eq!(image.rule(1), None);
        assert_eq!(image.words().count() * 4, image.bytes().len());
        assert_eq!(image.names().policy_name, "test");
        assert_ne!(image.digest(), [0; 32]);
    }

    #[test]
    fn a_flipped_bit_is_noticed_everywhere() {
        let image = small();
        for at in 0..image.bytes().len() {
            let mut bytes = image.bytes().to_vec();
            bytes[at] ^= 1 << (at % 7);
            assert!(Image::parse(bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_cut_is_noticed() {
        let image = small();
        for len in 0..image.bytes().len() {
            assert!(Image::parse(&image.bytes()[..len]).is_err(), "{len} bytes");
        }
        let mut longer = image.bytes().to_vec();
        longer.extend([0; 4]);
        assert!(matches!(Image::parse(longer), Err(ImageError::Words { .. })));
    }

    #[test]
    fn wrong_headers_with_a_right_digest_are_refused() {
        let image = small();
        for (index, value) in [
            (layout::AT_RULES, 3),
            (layout::AT_RULES, u32::MAX),
            (layout::AT_RULE_COUNT, u32::MAX),
            (layout::AT_RULE_COUNT, 2),
            (layout::AT_LABEL_COUNT, 1),
            (layout::AT_LABEL_COUNT, u32::MAX),
            (layout::AT_OBJECT_COUNT, u32::MAX),
            (layout::AT_DOMAIN_COUNT, 16),
            (layout::AT_NAMES, 0),
            (layout::AT_NAMES, u32::MAX),
            (layout::AT_NAMES_LEN, u32::MAX),
            (layout::AT_NAMES_LEN, 1),
            (layout::AT_PROGRAMS + layout::PROGRAM_PARTS, 17),
            (layout::AT_ABI_VERSION, ABI_VERSION + 1),
            (layout::AT_MAGIC, 0),
        ] {
            assert!(Image::parse(with_word(&image, index, value)).is_err(), "{index}: {value}");
        }
        // A root that points nowhere is no reason to refuse: the walk masks what it reads.
        let at = layout::AT_PROGRAMS + program::INGRESS * layout::PROGRAM_WORDS;
        let bytes = with_word(&image, at + layout::PROGRAM_PARTS, 3);
        let wild = Image::parse(bytes).unwrap();
        let _ = wild.decide(program::INGRESS, &Request::EMPTY);
    }
}
