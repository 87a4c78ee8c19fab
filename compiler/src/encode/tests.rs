//! Rows, diagrams and the walk over the image say the same, whatever the table.

use std::sync::Arc;

use govc_abi::{
    attribute,
    image::rule,
    limits::PARTS_MAX,
    node::LEAF_NONE,
    walk::{self, Outcome},
};
use govc_image::ImageTables;

use super::*;
use crate::{
    diagram::{Budget, Diagram, DiagramRow, RowTable},
    forest::Part,
    sample::{self, Mixture, Random, Requests},
    table::{Group, IntervalSet, Label, Program, Row},
    tables::Kind,
};

/// Splits whatever can be split.
const TINY: Budgets =
    Budgets { edges_free: 4, edges_per_row: 1, edges_max: 1 << 20, work_per_edge: 1 << 10 };

/// What the forest's diagrams say, put together as the walk does.
fn by_diagrams(stages: &Stages, rules: &[u32], which: u32, classes: &walk::Classes) -> Outcome {
    let parts = &stages.forest.programs[which as usize];
    let found = |group, observe| {
        let of_group = parts.iter().filter(|part| part.group == group && part.observe == observe);
        of_group.filter_map(|part| part.diagram.evaluate(classes)).min().unwrap_or(LEAF_NONE)
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

/// Compares on random requests; how many of them a rule matched. Tables of more groups than
/// parts are left out.
fn compare(table: &DecisionTable, budgets: Budgets, requests: u32, seed: u64) -> usize {
    let random = &mut Random::new(seed);
    let stages = match encode_stages(table, Names::default, budgets) {
        Err(EncodeError::Forest(ForestError::Groups { .. })) => return 0,
        result => result.unwrap(),
    };
    let image = Image::parse(stages.image.bytes()).unwrap();
    let mut matched = 0;
    for which in 0..program::COUNT as u32 {
        assert!(stages.forest.programs[which as usize].len() <= PARTS_MAX);
        let samples = Requests::new(table, which);
        for _ in 0..requests {
            let request = samples.next(random);
            let naive = sample::naive(table, which, &request);
            let classes = stages.classification.classify(&request);
            let diagrams = by_diagrams(&stages, &table.rules, which, &classes);
            assert_eq!(naive, diagrams, "seed {seed}, diagrams of {which}: {request:?}");
            assert_eq!(
                naive,
                image.decide(which, &request),
                "seed {seed}, walk of {which}: {request:?}"
            );
            matched += usize::from(naive.winner != LEAF_NONE);
        }
    }
    matched
}

#[test]
fn rows_diagrams_and_walk_agree() {
    let mut matched = 0;
    for seed in 0..60 {
        let random = &mut Random::new(seed);
        let rows_max = *random.pick(&[0, 1, 3, 10, 30, 100, 300]);
        let table = sample::anything(rows_max, random);
        let budgets = if seed % 2 == 0 { Budgets::default() } else { TINY };
        matched += compare(&table, budgets, 60, seed);
    }
    assert!(matched > 3_000, "{matched} of the requests matched");
}

#[test]
#[ignore = "takes minutes; run by hand after changes to the back end"]
fn rows_diagrams_and_walk_agree_on_many_tables() {
    for seed in 1_000..11_000 {
        let random = &mut Random::new(seed);
        let rows_max = *random.pick(&[3, 10, 30, 100, 300]);
        let table = sample::anything(rows_max, random);
        let budgets = if seed % 2 == 0 { Budgets::default() } else { TINY };
        compare(&table, budgets, 100, seed);
    }
}

#[test]
fn large_tables_agree() {
    for (seed, count) in [(1, 10), (2, 300), (3, 2000)] {
        let random = &mut Random::new(seed);
        compare(&sample::identities(count, random), Budgets::default(), 100, seed);
        for mixture in [Mixture::Access, Mixture::Chain, Mixture::Firewall] {
            let table = sample::addresses(count, mixture, random);
            compare(&table, Budgets::default(), 100, seed);
            compare(&table, TINY, 100, seed);
        }
    }
}

/// Many subjects with few or many objects each: with this order, tables hold rows of all kinds.
#[test]
fn rows_of_all_kinds_agree() {
    let random = &mut Random::new(5);
    let exact = |value: u64| IntervalSet::new(vec![(value.into(), value.into())]);
    let mut rows = Vec::new();
    for subject in 0..60 {
        let base = random.below(4_000);
        for number in 0..[1, 3, 30, 100][subject as usize % 4] {
            let spread = if subject % 4 == 3 { number } else { random.below(1_000) };
            rows.push(vec![
                (attribute::SUBJECT, exact(subject)),
                (attribute::OBJECT, exact(base + spread)),
            ]);
        }
    }
    let table = sample::table_of(rows);
    let classification = Classification::new(&table);
    let class_rows = &classification.groups(program::INGRESS as usize)[0].enforced;
    let rows: Vec<_> = (class_rows.iter())
        .map(|(value, cells)| DiagramRow { value, resume: None, cells })
        .collect();
    let numbers: Vec<u32> = (0..rows.len() as u32).collect();
    let order = [attribute::SUBJECT, attribute::OBJECT];
    let budget = Budget { edges: 1 << 20, work: 1 << 20 };
    let diagram = Diagram::build(&RowTable::new(&rows, &classification), &numbers, &order, budget);
    let diagram = Arc::new(diagram.unwrap());
    let mut forest = Forest { programs: vec![Vec::new(); program::COUNT] };
    let part = Part { group: 0, observe: false, rows: rows.len(), diagram };
    forest.programs[program::INGRESS as usize].push(part);
    let (beginning, places) = beginning(&table);
    let class_tables = ClassTables::new(&classification, classification.asked(), beginning);
    let tables = MatchTables::new(&classification, &forest, class_tables.unwrap()).unwrap();
    for kind in [Kind::Dense, Kind::Sparse4, Kind::Sparse8, Kind::Paged, Kind::Page] {
        assert!(tables.sizes.of(kind).0 > 0, "no {kind:?}: {tables}");
    }
    // Rows of sparse rows take a step more than the order has attributes.
    assert_eq!(tables.programs[program::INGRESS as usize].parts[0].steps, 3);
    let image =
        assemble(&table, &tables, places, Names::default(), &Names::default().encode().unwrap())
            .unwrap();
    let samples = Requests::new(&table, program::INGRESS);
    for _ in 0..2_000 {
        let request = samples.next(random);
        let naive = sample::naive(&table, program::INGRESS, &request);
        assert_eq!(naive, image.decide(program::INGRESS, &request));
    }
}

#[test]
fn the_same_table_gives_the_same_bytes() {
    let random = &mut Random::new(4);
    for table in [
        sample::anything(100, random),
        sample::identities(5_000, random),
        sample::addresses(20_000, Mixture::Chain, random),
    ] {
        let bytes = || encode(&table, &Names::default()).unwrap().bytes().to_vec();
        assert!(bytes() == bytes());
    }
}

#[test]
fn damaged_images_are_refused() {
    let random = &mut Random::new(6);
    let table = sample::anything(30, random);
    let image = encode(&table, &Names::default()).unwrap();
    for _ in 0..200 {
        let mut bytes = image.bytes().to_vec();
        if random.chance(50) {
            let at = random.below(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << random.below(8);
        } else {
            bytes.truncate(random.below(bytes.len() as u64) as usize);
        }
        assert!(Image::parse(bytes).is_err());
    }
}

#[test]
fn records_lie_where_the_header_says() {
    let table = DecisionTable {
        rules: vec![rule::DENY, rule::PERMIT | rule::LOG],
        labels: vec![Label {
            head: 0x1234_5678_9abc_def0,
            mid: 0x0fed_cba9_8765_4321,
            domain_index: 1,
            declared: 0x1122_3344_5566_7788,
            further: (0, 1),
            fragments: false,
        }],
        objects: vec![5, attribute::scope_key(1, 77)],
        domains: vec![(7, 0x00ff), (9, 0xffff)],
        ..DecisionTable::default()
    };
    let image = encode(&table, &Names::default()).unwrap();
    assert_eq!(image.rules().collect::<Vec<_>>(), table.rules);
    let written = image.label(0).unwrap();
    assert_eq!(
        (written.label.head, written.label.mid),
        (table.labels[0].head, table.labels[0].mid)
    );
    assert_eq!(written.domain_index, 1);
    assert_eq!(image.object(1), Some(attribute::scope_key(1, 77)));
    assert_eq!(image.object(2), None);
    assert_eq!(image.domains().collect::<Vec<_>>(), [(7, 0x00ff), (9, 0xffff)]);
    assert_eq!(walk::domain_index(&ImageTables::new(&image), 9), Some(1));
    // Nobody finds a label by declaring that is not there.
    for further in [(1, 1), (0, 2), (0, 16)] {
        let mut wrong = table.clone();
        wrong.labels[0].further = further;
        let told = encode(&wrong, &Names::default());
        assert!(
            matches!(told, Err(EncodeError::Image(ImageError::Outside("further labels")))),
            "{told:?}"
        );
    }
}

fn row(value: u32, attribute: u8, first: u128, last: u128) -> Row {
    Row { value, cells: vec![(attribute, IntervalSet::new(vec![(first, last)]))] }
}

#[test]
fn more_tiers_than_parts_are_an_error_only_if_they_must_be_told_apart() {
    // Each tier observes and passes, so that none can share a diagram with the next.
    let group = |number: u32, observes: bool| Group {
        enforced: vec![row(2 * number, attribute::LEVEL, number.into(), 255)],
        observed: Vec::from_iter(observes.then(|| row(2 * number + 1, attribute::LEVEL, 3, 4))),
    };
    let table_of = |observes: bool| {
        let mut table = DecisionTable { rules: vec![rule::PASS; 40], ..DecisionTable::default() };
        let groups = (0..20).map(|number| group(number, observes)).collect();
        table.programs[program::EGRESS as usize] = Program { groups, governed: true };
        table
    };
    assert_eq!(
        encode(&table_of(true), &Names::default()),
        Err(EncodeError::Forest(ForestError::Groups { program: program::EGRESS, parts: 40 }))
    );
    let stages = encode_stages(&table_of(false), Names::default, TINY).unwrap();
    assert_eq!(stages.forest.programs[program::EGRESS as usize].len(), 1);
}

#[test]
fn rows_beyond_all_budgets_are_named() {
    let random = &mut Random::new(7);
    let mut rows = Vec::new();
    for _ in 0..40 {
        rows.push(Vec::from_iter([attribute::LEVEL, attribute::OPERATION, attribute::ICMP].map(
            |attribute| {
                let (one, other) = (random.below(256), random.below(256));
                (attribute, IntervalSet::new(vec![(one.min(other).into(), one.max(other).into())]))
            },
        )));
    }
    let budgets = Budgets { edges_max: 8, ..TINY };
    match encode_stages(&sample::table_of(rows), Names::default, budgets) {
        Err(EncodeError::Forest(ForestError::TooBig { program, values })) => {
            assert_eq!(program, program::INGRESS);
            assert!(!values.is_empty() && values.len() < 40 && values.is_sorted(), "{values:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_that_do_not_exist_are_an_error() {
    let mut table = DecisionTable { rules: vec![rule::DENY], ..DecisionTable::default() };
    let enforced = vec![row(1, attribute::LEVEL, 1, 2)];
    let groups = vec![Group { enforced, observed: Vec::new() }];
    table.programs[program::FORWARD as usize] = Program { groups, governed: true };
    assert_eq!(
        encode(&table, &Names::default()),
        Err(EncodeError::Value { program: program::FORWARD as usize, value: 1 })
    );
}
