//! From a decision table to an image.

use govc_abi::{
    ABI_VERSION,
    image::{self as layout, part, program},
    limits::{DOMAINS_NAMED_MAX, IMAGE_WORDS_MAX, LIFE_MAX_DEFAULT, RULES_MAX, TEMPLATES_MAX},
};
use govc_image::{Image, ImageError, Names};
use thiserror::Error;

use crate::{
    class::Classification,
    forest::{Budgets, Forest, ForestError},
    table::DecisionTable,
    tables::{MatchTables, TooBig},
};

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
    /// A row names a rule, template or object that the table does not have.
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
    Ok(encode_stages(table, names, Budgets::default())?.image)
}

/// The image of a decision table, and everything on the way.
pub fn encode_stages(
    table: &DecisionTable,
    names: &Names,
    budgets: Budgets,
) -> Result<Stages, EncodeError> {
    check(table)?;
    let classification = Classification::new(table);
    let forest = Forest::new(table, &classification, budgets)?;
    let (beginning, places) = beginning(table);
    let tables = MatchTables::new(&classification, &forest, beginning)?;
    let image = assemble(table, &tables, places, names)?;
    Ok(Stages { classification, forest, tables, image })
}

fn check(table: &DecisionTable) -> Result<(), EncodeError> {
    for (what, count, max) in [
        ("rules", table.rules.len(), RULES_MAX),
        ("templates", table.templates.len(), TEMPLATES_MAX),
        ("domains", table.domains.len(), DOMAINS_NAMED_MAX),
    ] {
        if count > max {
            return Err(EncodeError::TooMany { what, count, max });
        }
    }
    for (number, program) in table.programs.iter().enumerate() {
        let count = match number as u32 {
            program::STAMP | program::LEGACY => table.templates.len(),
            program::DELIVER => table.objects.len(),
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
    templates: u32,
    objects: u32,
}

/// A header of zeros, and the records behind it.
fn beginning(table: &DecisionTable) -> (Vec<u32>, Places) {
    let mut words = vec![0; layout::HEADER_WORDS];
    let rules = words.len() as u32;
    words.extend(&table.rules);
    words.resize(words.len().next_multiple_of(layout::TEMPLATE_WORDS as usize), 0);
    let templates = words.len() as u32;
    for &(head, mid, domain_index) in &table.templates {
        let halves = |word: u64| [word as u32, (word >> 32) as u32];
        words.extend(halves(head));
        words.extend(halves(mid));
        words.extend([domain_index, 0, 0, 0]);
    }
    let objects = words.len() as u32;
    words.extend(&table.objects);
    (words, Places { rules, templates, objects })
}

fn assemble(
    table: &DecisionTable,
    tables: &MatchTables,
    places: Places,
    names: &Names,
) -> Result<Image, EncodeError> {
    let section = names.encode()?;
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
        *place = byte;
    }
    Ok(Image::seal(bytes, names.clone())?)
}

/// Everything in the header but the sizes of what follows the tables.
fn header(table: &DecisionTable, tables: &MatchTables, places: &Places) -> Vec<u32> {
    let mut header = vec![0; layout::HEADER_WORDS];
    for (at, word) in [
        (layout::AT_MAGIC, layout::MAGIC),
        (layout::AT_ABI_VERSION, ABI_VERSION),
        (layout::AT_RULE_COUNT, table.rules.len() as u32),
        (layout::AT_RULES, places.rules),
        (layout::AT_TEMPLATE_COUNT, table.templates.len() as u32),
        (layout::AT_TEMPLATES, places.templates),
        (layout::AT_DOMAIN_COUNT, table.domains.len() as u32),
        (layout::AT_LIFE_MAX, LIFE_MAX_DEFAULT.into()),
        (layout::AT_OBJECT_COUNT, table.objects.len() as u32),
        (layout::AT_OBJECTS, places.objects),
    ] {
        put(&mut header, at, word);
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
mod tests {
    use govc_abi::{
        image::rule,
        node::LEAF_NONE,
        walk::{self, Outcome},
    };

    use super::*;
    use crate::sample::{self, Random, Requests};

    /// What the forest's diagrams say, put together as the walk does.
    fn by_diagrams(stages: &Stages, rules: &[u32], which: u32, classes: &walk::Classes) -> Outcome {
        let parts = &stages.forest.programs[which as usize];
        let found = |group, observe| {
            let of_group = parts.iter().filter(|p| p.group == group && p.observe == observe);
            let values = of_group.filter_map(|part| part.diagram.evaluate(classes));
            values.min().unwrap_or(LEAF_NONE)
        };
        let mut groups: Vec<u32> = parts.iter().map(|part| part.group).collect();
        groups.dedup();
        let mut pending = LEAF_NONE;
        for group in groups {
            let winner = found(group, false);
            pending = pending.min(found(group, true));
            if winner == LEAF_NONE {
                continue;
            }
            if which < program::INGRESS {
                return Outcome { winner, pending };
            }
            pending = if pending > winner { LEAF_NONE } else { pending };
            if rules[winner as usize] & rule::ACTION_MASK != rule::PASS {
                return Outcome { winner, pending };
            }
        }
        Outcome { winner: LEAF_NONE, pending }
    }

    fn compare(
        table: &DecisionTable,
        budgets: Budgets,
        requests: u32,
        random: &mut Random,
    ) -> usize {
        let stages = match encode_stages(table, &Names::default(), budgets) {
            Err(EncodeError::Forest(ForestError::Groups { .. })) => return 0,
            result => result.unwrap(),
        };
        let image = Image::parse(stages.image.bytes()).unwrap();
        let mut matched = 0;
        for which in 0..program::COUNT as u32 {
            let samples = Requests::new(table, which);
            for _ in 0..requests {
                let request = samples.next(random);
                let naive = sample::naive(table, which, &request);
                let classes = stages.classification.classify(&request);
                let diagrams = by_diagrams(&stages, &table.rules, which, &classes);
                assert_eq!(naive, diagrams, "diagrams of {which}: {request:?}");
                assert_eq!(naive, image.decide(which, &request), "walk of {which}: {request:?}");
                matched += usize::from(naive.winner != LEAF_NONE);
            }
        }
        matched
    }

    /// Splits whatever can be split.
    const TINY: Budgets =
        Budgets { edges_free: 4, edges_per_row: 1, edges_max: 1 << 20, work_per_edge: 1 << 10 };

    #[test]
    fn rows_diagrams_and_walk_agree() {
        let mut matched = 0;
        for seed in 0..150 {
            eprintln!("seed {seed}");
            let random = &mut Random::new(seed);
            let rows_max = *random.pick(&[0, 1, 3, 10, 30, 100, 300]);
            let table = sample::anything(rows_max, random);
            let budgets = if seed % 2 == 0 { Budgets::default() } else { TINY };
            matched += compare(&table, budgets, 100, random);
        }
        assert!(matched > 20_000, "{matched} of the requests matched");
    }

    #[test]
    fn large_tables_agree() {
        for (seed, count) in [(1, 10), (2, 300), (3, 3000)] {
            eprintln!("seed {seed}");
            let random = &mut Random::new(seed);
            compare(&sample::identities(count, random), Budgets::default(), 300, random);
            for mixture in [sample::Mixture::Access, sample::Mixture::Firewall] {
                let table = sample::addresses(count, mixture, random);
                compare(&table, Budgets::default(), 300, random);
                compare(&table, TINY, 300, random);
            }
        }
    }
}
