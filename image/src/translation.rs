//! Translations of an image, read back.

use govc_abi::{image as layout, translate, walk};

use crate::{Image, ImageTables};

/// Whose labels become whose, and what becomes of the rest of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Its number.
    pub number: u32,
    /// Index of the domain whose labels come in.
    pub from: u32,
    /// Index of the domain whose labels go out.
    pub to: u32,
    /// First and last subject; [`None`] for one that refuses whoever is left.
    pub subjects: Option<(u32, u32)>,
    /// The subject that they become; [`None`] when they stay who they are.
    pub subject: Option<u32>,
    /// The level that each level becomes.
    pub levels: [u8; 16],
    /// What each compartment becomes; [`None`] where it is refused.
    pub compartments: [Option<u16>; 16],
    /// What each constraint becomes likewise.
    pub constraints: [Option<u16>; 16],
    /// Bitmap of the constraints that are added.
    pub added: u16,
    /// Numbers that operations become; [`None`] when they stay.
    pub operations: Option<Vec<u32>>,
    /// Numbers that residency sets become likewise.
    pub residencies: Option<Vec<u32>>,
    /// Numbers that route classes become likewise.
    pub routes: Option<Vec<u32>>,
    /// Largest radius.
    pub radius_max: u8,
    /// Longest life.
    pub life_max: u8,
}

impl Translation {
    pub(crate) fn read(image: &Image, number: u32) -> Self {
        let tables = ImageTables::new(image);
        let row = translate::translation_at(&tables, number);
        let at = translate::transform_at(&tables, number);
        let (first, last) = (
            image.word(row + layout::TRANSLATION_FIRST),
            image.word(row + layout::TRANSLATION_LAST),
        );
        let subject = image.word(row + layout::TRANSLATION_SUBJECT);
        let limits = image.word(at + layout::TRANSFORM_LIMITS);
        let levels = walk::double(&tables, at + layout::TRANSFORM_LEVELS);
        let added = image.word(at + layout::TRANSFORM_ADDED);
        let known = image.word(at + layout::TRANSFORM_KNOWN);
        let bits = |at: u32, known: u32| {
            std::array::from_fn(|bit| {
                let pair = image.word(at + bit as u32 / 2);
                (known >> bit & 1 == 1).then_some((pair >> (16 * (bit % 2))) as u16)
            })
        };
        let numbers = |word: u32| {
            let table = image.word(at + word);
            let entries = (1..=image.word(table)).map(|entry| image.word(table + entry));
            (table != 0).then(|| entries.filter(|n| *n != layout::TRANSFORM_REFUSED).collect())
        };
        Self {
            number,
            from: first >> 24,
            to: limits & 15,
            subjects: (first <= last).then_some((first & 0x00ff_ffff, last & 0x00ff_ffff)),
            subject: (subject & layout::TRANSLATION_KEEPS == 0).then_some(subject),
            levels: std::array::from_fn(|level| (levels >> (4 * level)) as u8 & 15),
            compartments: bits(at + layout::TRANSFORM_COMPARTMENTS, known),
            constraints: bits(at + layout::TRANSFORM_CONSTRAINTS, added >> 16),
            added: added as u16,
            operations: numbers(layout::TRANSFORM_OPERATIONS),
            residencies: numbers(layout::TRANSFORM_RESIDENCIES),
            routes: numbers(layout::TRANSFORM_ROUTES),
            radius_max: (limits >> layout::TRANSFORM_RADIUS_SHIFT & 15) as u8,
            life_max: (limits >> layout::TRANSFORM_LIFE_SHIFT & 15) as u8,
        }
    }
}
