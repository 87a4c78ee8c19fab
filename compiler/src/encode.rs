//! From a decision table to an image.

mod translations;

use govc_abi::{
    ABI_VERSION,
    image::{self as layout, part, program},
    limits::{
        DOMAINS_NAMED_MAX, IMAGE_WORDS_MAX, LABELS_MAX, LIFE_MAX_DEFAULT, ROWS_MAX, RULES_MAX,
        TIMES_MAX, TRANSLATIONS_MAX,
    },
};
use govc_image::{Image, ImageError, Names};
use thiserror::Error;

use crate::{
    class::{Classification, parallel::join},
    forest::{Budgets, Forest, ForestError},
    table::DecisionTable,
    tables::{ClassTables, MatchTables, TooBig},
};

/// From so many rows on, what can be done at the same time is.
const ROWS_MANY: usize = 1 << 12;

/// All stages from the decision table to the image.
#[derive(Clone, Debug)]
pub struct Stages {
    /// Values as class numbers.
    pub classification: Classification,
    /// Decision diagrams.
    pub forest: Forest,
    /// The diagrams, flattened.
    pub tables: MatchTables,
    /// The image.
    pub image: Image,
}

/// Why there is no image.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// More of something than the limit allows.
    #[error("{count} {what}, the limit is {max}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        max: usize,
    },
    /// A row names a rule, label, object or carriage that the table does not have.
    #[error("program `{}` names {value}, which does not exist", name(*.program))]
    Value {
        /// Which program.
        program: usize,
        /// The value.
        value: u32,
    },
    /// No forest.
    #[error(transparent)]
    Forest(#[from] ForestError),
    /// No room.
    #[error(transparent)]
    TooBig(#[from] TooBig),
    /// The image is not one.
    #[error(transparent)]
    Image(#[from] ImageError),
}

fn name(program: usize) -> &'static str {
    program::NAMES.get(program).copied().unwrap_or("?")
}

/// The image of a decision table.
pub fn encode(table: &DecisionTable, names: &Names) -> Result<Image, EncodeError> {
    Ok(encode_stages(table, || names.clone(), Budgets::default())?.image)
}

/// The image of a decision table, and everything on the way. `names` makes the names; large
/// tables are laid out meanwhile.
pub fn encode_stages(
    table: &DecisionTable,
    names: impl FnOnce() -> Names,
    budgets: Budgets,
) -> Result<Stages, EncodeError> {
    check(table)?;
    let lay_out = || lay_out(table, budgets);
    let names = || {
        let names = names();
        (names.encode(), names)
    };
    let ((section, names), laid_out) =
        if row_count(table) < ROWS_MANY { (names(), lay_out()) } else { join(names, lay_out) };
    let (classification, forest, tables, places) = laid_out?;
    let image = assemble(table, &tables, places, names, &section?)?;
    Ok(Stages { classification, forest, tables, image })
}

fn lay_out(
    table: &DecisionTable,
    budgets: Budgets,
) -> Result<(Classification, Forest, MatchTables, Places), EncodeError> {
    let classification = Classification::new(table);
    let (beginning, places) = beginning(table);
    let plant = || Forest::new(table, &classification, budgets);
    let lay_out = || ClassTables::new(&classification, classification.asked(), beginning.clone());
    let (forest, class_tables) =
        if row_count(table) < ROWS_MANY { (plant(), lay_out()) } else { join(plant, lay_out) };
    let forest = forest?;
    let tables = MatchTables::new(&classification, &forest, class_tables?)?;
    Ok((classification, forest, tables, places))
}

fn row_count(table: &DecisionTable) -> usize {
    let groups = table.programs.iter().flat_map(|program| &program.groups);
    groups.map(|group| group.enforced.len() + group.observed.len()).sum()
}

fn check(table: &DecisionTable) -> Result<(), EncodeError> {
    let groups = table.programs.iter().map(|program| program.groups.len()).max();
    for (what, count, max) in [
        ("rows", row_count(table), ROWS_MAX),
        ("tiers", groups.unwrap_or(0), part::GROUP_MASK as usize + 1),
        ("rules", table.rules.len(), RULES_MAX),
        ("labels", table.labels.len(), LABELS_MAX),
        ("translations", table.translations.len(), TRANSLATIONS_MAX),
        ("domains", table.domains.len(), DOMAINS_NAMED_MAX),
        ("moments", table.times.len(), TIMES_MAX),
    ] {
        if count > max {
            return Err(EncodeError::TooMany { what, count, max });
        }
    }
    for (number, program) in table.programs.iter().enumerate() {
        let count = match number as u32 {
            program::STAMP | program::LEGACY => table.labels.len(),
            program::DELIVER => table.objects.len(),
            program::TRANSLATE => table.translations.len(),
            program::CARRIAGE => (table.carriages as usize) << layout::carriage::RULE_SHIFT,
            _ => table.rules.len(),
        };
        let groups = program.groups.iter();
        let mut rows = groups.flat_map(|group| group.enforced.iter().chain(&group.observed));
        if let Some(row) = rows.find(|row| row.value as usize >= count) {
            return Err(EncodeError::Value { program: number, value: row.value });
        }
    }
    Ok(())
}

/// Where the records lie.
struct Places {
    rules: u32,
    labels: u32,
    objects: u32,
    translations: u32,
    transforms: u32,
}

/// A header of zeros, and the records behind it.
fn beginning(table: &DecisionTable) -> (Vec<u32>, Places) {
    let mut words = vec![0; layout::HEADER_WORDS];
    let rules = words.len() as u32;
    words.extend(&table.rules);
    words.resize(words.len().next_multiple_of(layout::LABEL_WORDS as usize), 0);
    let labels = words.len() as u32;
    for label in &table.labels {
        let halves = |word: u64| [word as u32, (word >> 32) as u32];
        words.extend(halves(label.head));
        words.extend(halves(label.mid));
        words.push(label.domain_index);
        words.extend(halves(label.declared));
        let fragments = if label.fragments { layout::LABEL_FRAGMENTS } else { 0 };
        words.push(label.further.0 | label.further.1 << layout::LABEL_FURTHER_SHIFT | fragments);
    }
    let objects = words.len() as u32;
    words.extend(&table.objects);
    let (translations, transforms) = translations::write(table, &mut words);
    (words, Places { rules, labels, objects, translations, transforms })
}

fn assemble(
    table: &DecisionTable,
    tables: &MatchTables,
    places: Places,
    names: Names,
    section: &[u8],
) -> Result<Image, EncodeError> {
    let names_at = tables.words.len();
    let words = names_at + section.len().div_ceil(4);
    if words > IMAGE_WORDS_MAX {
        return Err(TooBig.into());
    }
    let mut bytes = vec![0; words * 4];
    let mut header = header(table, tables, &places);
    put(&mut header, layout::AT_WORDS, words as u32);
    put(&mut header, layout::AT_NAMES, names_at as u32);
    put(&mut header, layout::AT_NAMES_LEN, section.len() as u32);
    let behind = tables.words.get(layout::HEADER_WORDS..).unwrap_or_default();
    let (places, _) = bytes.as_chunks_mut::<4>();
    for (place, word) in places.iter_mut().zip(header.iter().chain(behind)) {
        *place = word.to_le_bytes();
    }
    for (place, byte) in bytes.iter_mut().skip(names_at * 4).zip(section) {
        *place = *byte;
    }
    Ok(Image::seal(bytes, names)?)
}

/// Everything in the header but the sizes of what follows the tables.
fn header(table: &DecisionTable, tables: &MatchTables, places: &Places) -> Vec<u32> {
    let mut header = vec![0; layout::HEADER_WORDS];
    for (at, word) in [
        (layout::AT_MAGIC, layout::MAGIC),
        (layout::AT_ABI_VERSION, ABI_VERSION),
        (layout::AT_RULE_COUNT, table.rules.len() as u32),
        (layout::AT_RULES, places.rules),
        (layout::AT_LABEL_COUNT, table.labels.len() as u32),
        (layout::AT_LABELS, places.labels),
        (layout::AT_DOMAIN_COUNT, table.domains.len() as u32),
        (layout::AT_LIFE_MAX, LIFE_MAX_DEFAULT.into()),
        (layout::AT_OBJECT_COUNT, table.objects.len() as u32),
        (layout::AT_OBJECTS, places.objects),
        (layout::AT_TRANSLATION_COUNT, table.translations.len() as u32),
        (layout::AT_TRANSLATIONS, places.translations),
        (layout::AT_TRANSFORM_COUNT, table.transforms.len() as u32),
        (layout::AT_TRANSFORMS, places.transforms),
        (layout::AT_READDRESSES, table.transforms.iter().any(|one| one.readdress).into()),
        (layout::AT_TIME_COUNT, table.times.len() as u32),
        (layout::AT_SHAPES, table.shapes),
    ] {
        put(&mut header, at, word);
    }
    let times = table.times.iter().copied().chain(std::iter::repeat(u32::MAX));
    for (at, time) in (layout::AT_TIMES..).zip(times.take(TIMES_MAX)) {
        put(&mut header, at, time);
    }
    for (index, &(number, constraints)) in (0..).zip(&table.domains) {
        put(&mut header, layout::AT_DOMAINS + index, number.into());
        put(&mut header, layout::AT_CONSTRAINTS + index, constraints.into());
    }
    for (at, list) in [
        (layout::AT_CLASSES, tables.classes.as_slice()),
        (layout::AT_TRIES_V4, &tables.tries_v4),
        (layout::AT_TRIES_V6, &tables.tries_v6),
    ] {
        (at..).zip(list).for_each(|(at, &word)| put(&mut header, at, word));
    }
    for (which, (program, source)) in (0..).zip(tables.programs.iter().zip(&table.programs)) {
        let at = layout::AT_PROGRAMS + which * layout::PROGRAM_WORDS;
        let flags = if source.governed { layout::PROGRAM_GOVERNED } else { 0 };
        put(&mut header, at + layout::PROGRAM_ATTRIBUTES, program.attributes);
        put(&mut header, at + layout::PROGRAM_FLAGS, flags);
        put(&mut header, at + layout::PROGRAM_PARTS, program.parts.len() as u32);
        for (number, root) in (0..).zip(&program.parts) {
            let at = at + layout::PROGRAM_PART + 2 * number;
            let observe = if root.observe { part::OBSERVE } else { 0 };
            put(&mut header, at, root.entry);
            put(&mut header, at + 1, root.group & part::GROUP_MASK | observe);
        }
    }
    header
}

fn put(header: &mut [u32], at: u32, word: u32) {
    if let Some(place) = header.get_mut(at as usize) {
        *place = word;
    }
}

#[cfg(test)]
mod tests;
