//! What the analysis finds, against all packets of a small world: every one of them is decided as
//! the manual says, and each finding is held to its definition.

use std::fmt::Write as _;

use govc_abi::{
    attribute::{self, Attribute, Request},
    walk::Classes,
};
use govc_grammar::span::FileId;
use rustc_hash::FxHashSet;

use super::{
    Finding, analyse, conflicts,
    escape::escape,
    field::{Field, Ground, NAMED, POSSIBLE},
    region::Region,
    rule_name, universe, words,
};
use crate::{
    check::check,
    checked::{Action, Policy},
    class::value_of,
    interpret,
    lock::Locks,
    lower::lower,
    sample::Random,
    table::{DecisionTable, Row},
};

const VOCABULARY: &str = "package v\ndomain d = 3 { level { low < mid < high } }\n\
    scope d { a { x at mid  y at low }  b at high  c at low }\ntier first ordered, second\n";
const HOOK: usize = 0;

/// A few rules about senders, levels, protocols and ports, in two tiers, one of them ordered.
fn policy(random: &mut Random) -> String {
    let mut text = String::from("package p\nuse v\n");
    for tier in ["first", "second"] {
        let _ = writeln!(text, "policy {tier} {{ on ingress tier {tier}");
        for number in 0..random.below(5) + 1 {
            let _ =
                write!(text, "{} r{number} {{", random.pick(&["permit", "deny", "deny", "permit"]));
            if random.chance(60) {
                let who = [
                    "d.a.**",
                    "d.a.x",
                    "d.a.y",
                    "d.b",
                    "d.b, d.a.x",
                    "d.**",
                    "unlabelled",
                    "anyone",
                    "labelled",
                ];
                let _ = write!(text, " from {}", random.pick(&who));
            }
            if random.chance(40) {
                let level = random.pick(&["low", "mid", "high"]);
                let _ = write!(
                    text,
                    " where level {} {level}",
                    random.pick(&["<", "<=", ">=", ">", "is"])
                );
            }
            if random.chance(60) {
                let proto = random.pick(&["tcp", "udp"]);
                let first = random.below(3) + 1;
                let _ = write!(text, " proto {proto} port {first}..{}", first + random.below(3));
            }
            text.push_str(if random.chance(15) { " log }\n" } else { " }\n" });
        }
        text.push_str("}\n");
    }
    text
}

fn checked(text: &str) -> Policy {
    let files: Vec<_> = (0..)
        .zip([text, VOCABULARY])
        .map(|(id, text)| (FileId(id), govc_grammar::parse(FileId(id), text).0))
        .collect();
    let checked = check(&files, &Locks::default());
    checked.policy.unwrap_or_else(|| panic!("{:#?}\n{text}", checked.diagnostics))
}

/// Attributes that the rules ask for; all others have one value.
const ASKED: [Attribute; 5] = [
    attribute::STATE,
    attribute::SUBJECT,
    attribute::LEVEL,
    attribute::PROTOCOL,
    attribute::DESTINATION_PORT,
];

/// One packet for each way in which rows and universes tell packets apart: values at which some
/// interval begins, or behind which one ends.
fn packets(policy: &Policy, table: &DecisionTable) -> Vec<Request> {
    let rows: Vec<&Row> = enforced(table).collect();
    let (possible, named) = (universe::possible(policy, HOOK), universe::named(policy, HOOK));
    let mut all = vec![Request::EMPTY];
    for asked in ASKED {
        let cells = rows.iter().copied().chain(&possible).chain(&named).flat_map(|row| &row.cells);
        let ends = cells.filter(|(attribute, _)| *attribute == asked).flat_map(|(_, set)| {
            set.intervals().iter().flat_map(|&(first, last)| [first, last + 1])
        });
        let mut values: Vec<u32> = ends.chain([0]).map(|value| value as u32).collect();
        values.retain(|&value| u128::from(value) <= words::max(asked));
        values.sort_unstable();
        values.dedup();
        all = all
            .iter()
            .flat_map(|packet| {
                values.iter().map(|&value| {
                    let mut packet = *packet;
                    packet.scalars[usize::from(asked)] = value;
                    packet
                })
            })
            .collect();
        // What is impossible already stays so.
        all.retain(|packet| possible.iter().any(|row| fits_so_far(row, packet, asked)));
    }
    all
}

fn enforced(table: &DecisionTable) -> impl Iterator<Item = &Row> {
    let program = &table.programs[govc_abi::image::program::INGRESS as usize + HOOK];
    program.groups.iter().flat_map(|group| &group.enforced)
}

fn fits_so_far(row: &Row, packet: &Request, last: Attribute) -> bool {
    let later = ASKED.iter().skip_while(|&&one| one != last).skip(1);
    let later: Vec<Attribute> = later.copied().collect();
    let mut cells = row.cells.iter().filter(|(attribute, _)| !later.contains(attribute));
    cells.all(|(attribute, set)| set.contains(value_of(packet, *attribute)))
}

fn is_in(rows: &[Row], packet: &Request) -> bool {
    let fits = |row: &Row| row.cells.iter().all(|(a, set)| set.contains(value_of(packet, *a)));
    rows.iter().any(fits)
}

/// Which of all rules match each packet, as one bit each.
fn matching(policy: &Policy, packets: &[Request]) -> Vec<u32> {
    let mask = |packet: &Request| {
        let matches = |rule| interpret::applies(policy, rule, HOOK, packet);
        let bits = policy.rules().iter().enumerate().filter(|(_, rule)| matches(rule));
        bits.fold(0, |mask, (at, _)| mask | 1 << at)
    };
    packets.iter().map(mask).collect()
}

/// The rule that decides among these: tiers in order, the first in an ordered one, denials first
/// elsewhere.
fn decides(policy: &Policy, mask: u32) -> Option<usize> {
    let rules = policy.rules().iter().enumerate().filter(|(at, _)| mask >> at & 1 == 1);
    let rank = |(at, rule): &(usize, &crate::checked::Rule)| {
        let ordered = policy.tiers()[rule.tier].ordered;
        let late = if ordered { 0 } else { u8::from(rule.action == Action::Permit) };
        (rule.tier, late, *at)
    };
    rules.min_by_key(rank).map(|(at, _)| at)
}

fn says(policy: &Policy, mask: u32) -> Option<(Action, bool)> {
    let rule = policy.rules().get(decides(policy, mask)?)?;
    Some((rule.action, rule.log.is_some()))
}

#[test]
fn findings_are_what_their_definitions_say() {
    let (mut never, mut shadowed, mut redundant, mut fine, mut joint) = (0, 0, 0, 0, 0);
    for seed in 0..150 {
        let text = policy(&mut Random::new(seed));
        let policy = checked(&text);
        let table = lower(&policy).unwrap();
        let packets = packets(&policy, &table);
        let masks: FxHashSet<u32> = matching(&policy, &packets).into_iter().collect();
        for (packet, mask) in packets.iter().zip(matching(&policy, &packets)) {
            let decision = interpret::decide(&policy, HOOK, packet);
            assert_eq!(decision.rule, decides(&policy, mask), "{packet:?}\n{text}");
        }
        let any = |holds: &dyn Fn(u32) -> bool| masks.iter().any(|&mask| holds(mask));
        let report = analyse(&policy, &table, &|_| {});
        let bits = |list: &[usize]| list.iter().fold(0_u32, |mask, at| mask | 1 << at);
        // What decides nothing counts as gone before any rule is found to have a substitute.
        let reaches = |rule: usize| any(&|mask| decides(&policy, mask) == Some(rule));
        let mut gone = 0_u32;
        let count = policy.rules().len();
        for rule in 0..count {
            let exists = any(&|mask| mask >> rule & 1 == 1);
            gone |= u32::from(exists && !reaches(rule)) << rule;
        }
        for rule in 0..count {
            let place = || format!("seed {seed}, {}\n{text}", rule_name(&policy, rule));
            let own = 1_u32 << rule;
            let exists = any(&|mask| mask & own != 0);
            let matters_without = |gone: u32| {
                any(&|mask| says(&policy, mask & !gone) != says(&policy, mask & !gone & !own))
            };
            let found = report.rules.iter().find(|(at, _)| *at == rule).map(|(_, found)| found);
            let covers = |by: u32| !any(&|mask| decides(&policy, mask & (by | own)) == Some(rule));
            match found {
                Some(Finding::NeverMatches) => {
                    assert!(!exists, "{}", place());
                    never += 1;
                }
                Some(Finding::Shadowed(by) | Finding::Redundant(by)) if !reaches(rule) => {
                    assert!(exists && covers(bits(by)), "{by:?} {}", place());
                    let needless = by.iter().find(|&&one| covers(bits(by) & !(1 << one)));
                    assert_eq!(needless, None, "{by:?} {}", place());
                    let action = policy.rules()[rule].action;
                    let alike = by.iter().all(|&one| policy.rules()[one].action == action);
                    assert_eq!(matches!(found, Some(Finding::Redundant(_))), alike, "{}", place());
                    shadowed += usize::from(!alike);
                    joint += usize::from(by.len() > 1);
                }
                Some(Finding::Redundant(_)) => {
                    assert!(!matters_without(gone), "{}", place());
                    gone |= own;
                    redundant += 1;
                }
                None => {
                    assert!(exists && reaches(rule), "{}", place());
                    assert!(matters_without(0) || matters_without(gone), "{}", place());
                    fine += 1;
                }
                Some(other) => panic!("{other:?} {}", place()),
            }
        }
    }
    assert!(
        never > 20 && shadowed > 50 && redundant > 30 && fine > 200 && joint > 2,
        "{never} {shadowed} {redundant} {fine} {joint}"
    );
}

#[test]
fn conflicts_are_what_their_definition_says() {
    let (mut told, mut none) = (0, 0);
    for seed in 0..100 {
        let text = policy(&mut Random::new(9_000 + seed));
        let policy = checked(&text);
        let (table, image) = crate::compile(&policy, &[], "t").unwrap();
        let named = universe::named(&policy, HOOK);
        let packets = packets(&policy, &table);
        let possible: Vec<Request> =
            packets.into_iter().filter(|packet| is_in(&named, packet)).collect();
        let masks = matching(&policy, &possible);
        let found = conflicts::diagnose(&policy, &table, image.names());
        let pairs: FxHashSet<&str> = found.iter().map(|one| one.message.as_str()).collect();
        assert_eq!(pairs.len(), found.len());
        let mut expected = 0;
        for (a, permit) in policy.rules().iter().enumerate() {
            for (b, deny) in policy.rules().iter().enumerate() {
                let clash = permit.action == Action::Permit && deny.action == Action::Deny;
                let both = masks.iter().any(|mask| mask >> a & mask >> b & 1 == 1);
                let meet = clash && permit.tier == deny.tier && both;
                let rows = |at: usize| {
                    let number = table.rule_positions.iter().position(|&p| p as usize == at);
                    let rows =
                        enforced(&table).filter(move |row| Some(row.value as usize) == number);
                    rows.collect::<Vec<_>>()
                };
                let holds = |outer: &Row, inner: &Row| {
                    outer.cells.iter().all(|(attribute, set)| {
                        let own = inner.cells.iter().find(|(other, _)| other == attribute);
                        own.is_some_and(|(_, own)| own.intersect(set) == *own)
                    })
                };
                let apart = |one: &Row, other: &Row| !holds(one, other) && !holds(other, one);
                let meets_apart = rows(a).iter().any(|one| {
                    rows(b).iter().any(|other| {
                        apart(one, other)
                            && possible.iter().any(|packet| {
                                let fits = |row: &Row| is_in(std::slice::from_ref(row), packet);
                                fits(one) && fits(other)
                            })
                    })
                });
                let message = format!(
                    "`{}` and `{}` contradict each other",
                    rule_name(&policy, a),
                    rule_name(&policy, b)
                );
                assert_eq!(
                    pairs.contains(message.as_str()),
                    meet && meets_apart,
                    "seed {seed} {message}\n{text}"
                );
                expected += usize::from(meet && meets_apart);
                none += usize::from(clash && !(meet && meets_apart));
            }
        }
        assert_eq!(expected, found.len());
        told += expected;
    }
    assert!(told > 30 && none > 100, "{told} {none}");
}

/// All points that differ from one in what the rules ask for.
fn points(field: &Field<'_>, start: Classes) -> Vec<Classes> {
    let mut all = vec![start];
    for asked in ASKED {
        let count = field.table.classes(asked).count();
        let put = |point: &Classes, class: u32| {
            let mut point = *point;
            point[usize::from(asked)] = class;
            point
        };
        all = all.iter().flat_map(|point| (0..count).map(move |class| put(point, class))).collect();
    }
    all
}

#[test]
fn escapes_and_meetings_are_found_by_looking_everywhere() {
    let (mut escaped, mut caught, mut met) = (0, 0, 0);
    for seed in 0..80 {
        let random = &mut Random::new(50_000 + seed);
        let policy = checked(&policy(random));
        let table = lower(&policy).unwrap();
        let ground = Ground::new(&policy, &table, HOOK, Vec::new());
        let field = Field::new(&ground, policy.rules().len());
        let rows: Vec<u32> = (0..field.deciding()).collect();
        let regions: Vec<Region> = rows
            .iter()
            .flat_map(|&row| [POSSIBLE, NAMED].map(|which| field.within(Some(row), which)))
            .flatten()
            .collect();
        for region in regions.iter().take(30) {
            let points = points(&field, super::search::region_point(&field, region));
            let inside: Vec<&Classes> = points.iter().filter(|p| region.holds(p)).collect();
            let matches = |row: u32| inside.iter().any(|point| field.matches(row, point));
            let meeting: Vec<u32> = rows.iter().copied().filter(|&row| matches(row)).collect();
            assert_eq!(field.meeting(region), meeting, "seed {seed}");
            met += meeting.len();
            let some: Vec<u32> = rows.iter().copied().filter(|_| random.chance(60)).collect();
            let free = |point: &Classes| !some.iter().any(|&row| field.matches(row, point));
            let mut point = super::search::region_point(&field, region);
            let (mut budget, mut used) = (1 << 20, Vec::new());
            let Ok(found) =
                escape(&field, region, &some, &mut budget, &mut point, |row| used.push(row))
            else {
                panic!("seed {seed}: out of budget");
            };
            assert_eq!(found, inside.iter().any(|point| free(point)), "seed {seed} {region:?}");
            if found {
                assert!(region.holds(&point) && free(&point), "seed {seed}: {point:?}");
                escaped += 1;
            } else {
                let all = |point: &&Classes| used.iter().any(|&row| field.matches(row, point));
                assert!(inside.iter().all(all), "seed {seed}: {used:?} do not match all");
                caught += 1;
            }
        }
        for point in &points(&field, field.point(&Request::EMPTY)) {
            let mut found = Vec::new();
            field.matching(point, |row| {
                found.push(row);
                true
            });
            let wanted: Vec<u32> =
                rows.iter().copied().filter(|&row| field.matches(row, point)).collect();
            assert_eq!(found, wanted);
        }
    }
    assert!(escaped > 100 && caught > 100 && met > 1000, "{escaped} {caught} {met}");
}
