//! Interpreter, decision diagrams and the walk over the image say the same, for every program.

use govc_abi::{
    image::{program, rule},
    node::LEAF_NONE,
};
use govc_compiler::{
    checked::Policy,
    encode::{self, Stages},
    forest::Budgets,
    interpret::{self, Decision},
    names,
    sources::Source,
    testing,
};
use govc_image::Names;
use govc_tests::{
    compile,
    policies::{VOCABULARY, random_edges, random_policy_at},
    random::Random,
    requests::Aim,
};

/// What the diagrams of one program answer, group by group; see [`govc_abi::walk`].
fn by_diagrams(
    stages: &Stages,
    rules: &[u32],
    which: u32,
    request: &govc_abi::attribute::Request,
) -> (u32, u32) {
    let classes = stages.classification.classify(request);
    let parts = &stages.forest.programs[which as usize];
    let mut groups: Vec<u32> = parts.iter().map(|part| part.group).collect();
    groups.dedup();
    let mut pending = LEAF_NONE;
    for group in groups {
        let best = |observe: bool| {
            let of_group =
                parts.iter().filter(|part| part.group == group && part.observe == observe);
            of_group.filter_map(|part| part.diagram.evaluate(&classes)).min().unwrap_or(LEAF_NONE)
        };
        let winner = best(false);
        pending = pending.min(best(true));
        if winner != LEAF_NONE {
            if which < program::INGRESS {
                return (winner, pending);
            }
            pending = if pending > winner { LEAF_NONE } else { pending };
            if rules[winner as usize] & rule::ACTION_MASK != rule::PASS {
                return (winner, pending);
            }
        }
    }
    (LEAF_NONE, pending)
}

fn position(positions: &[u32], number: u32) -> Option<usize> {
    (number != LEAF_NONE).then(|| positions[number as usize] as usize)
}

/// Whether a budget splits whatever can be split.
const BUDGETS: [Budgets; 2] = [
    Budgets { edges_free: 1 << 16, edges_per_row: 24, edges_max: 1 << 22, work_per_edge: 4 },
    Budgets { edges_free: 4, edges_per_row: 1, edges_max: 1 << 20, work_per_edge: 1 << 10 },
];

#[test]
fn interpreter_diagrams_and_walk_agree_at_every_hook() {
    let (mut permits, mut denies, mut pending) = ([0; 3], [0; 3], 0);
    for seed in 0..60 {
        let random = &mut Random::new(7_000 + seed);
        let rules = *random.pick(&[1, 3, 10, 30, 60]);
        let text = random_policy_at(random, rules, &["ingress", "egress", "forward"]);
        let compiled = compile(&[("random.gov", &text), ("vocabulary.gov", VOCABULARY)]);
        let budgets = BUDGETS[seed as usize % 2];
        let stages = encode::encode_stages(&compiled.table, Names::default, budgets).unwrap();
        for hook in 0..3 {
            let which = program::INGRESS + hook as u32;
            let aim = Aim::new(&compiled.table, which);
            for number in 0..200 {
                let request = aim.next(hook, random);
                let wanted = interpret::decide(&compiled.policy, hook, &request);
                let (winner, next) = by_diagrams(&stages, &compiled.table.rules, which, &request);
                let positions = &compiled.table.rule_positions;
                let found = (position(positions, winner), position(positions, next));
                let place =
                    format!("seed {seed}, hook {hook}, request {number}: {request:?}\n{text}");
                assert_eq!(found, (wanted.rule, wanted.pending), "diagrams, {place}");
                for image in [&stages.image, &compiled.image] {
                    let walked = testing::decision_of_image(&compiled.table, image, hook, &request);
                    assert_eq!(walked, wanted, "walk, {place}");
                }
                let Decision { permit, .. } = wanted;
                permits[hook] += u32::from(permit);
                denies[hook] += u32::from(!permit);
                pending += u32::from(wanted.pending.is_some());
            }
        }
    }
    assert!(permits.iter().chain(&denies).all(|&count| count > 1_000), "{permits:?} {denies:?}");
    assert!(pending > 100, "{pending}");
}

/// The rule of an edge that speaks for a request, as the number that the image has for it.
fn edge(policy: &Policy, which: u32, request: &govc_abi::attribute::Request) -> u32 {
    let number = match which {
        program::STAMP => interpret::stamp(policy, request),
        program::DELIVER => interpret::deliver(policy, request),
        program::CARRIAGE => {
            let rules = policy.carriages();
            let tunnels = rules.iter().any(|rule| rule.tunnel);
            let found = interpret::carriage(policy, request).filter(|_| tunnels);
            found.map(|at| at * 2 + usize::from(rules[at].tunnel))
        }
        _ => interpret::legacy(policy, request).map(|at| policy.stamps().len() + at),
    };
    number.map_or(LEAF_NONE, |number| number as u32)
}

#[test]
fn interpreter_diagrams_and_walk_agree_at_the_edges() {
    let mut found = [0; 4];
    for seed in 0..60 {
        let random = &mut Random::new(9_000 + seed);
        let text = random_policy_at(random, 1, &["ingress"]) + &random_edges(random);
        let compiled = compile(&[("random.gov", &text), ("vocabulary.gov", VOCABULARY)]);
        let sources = [Source { name: "random.gov".into(), text: text.clone() }];
        let names = names::names(&compiled.policy, &compiled.table, &sources, "t");
        let budgets = BUDGETS[seed as usize % 2];
        let stages = encode::encode_stages(&compiled.table, || names, budgets).unwrap();
        for (at, which) in [program::STAMP, program::DELIVER, program::LEGACY, program::CARRIAGE]
            .into_iter()
            .enumerate()
        {
            let aim = Aim::new(&compiled.table, which);
            for number in 0..200 {
                let request = aim.any(random);
                let wanted = edge(&compiled.policy, which, &request);
                let (winner, _) = by_diagrams(&stages, &[], which, &request);
                let place =
                    format!("seed {seed}, program {which}, request {number}: {request:?}\n{text}");
                assert_eq!(winner, wanted, "diagrams, {place}");
                assert_eq!(stages.image.decide(which, &request).winner, wanted, "walk, {place}");
                found[at] += u32::from(wanted != LEAF_NONE);
            }
        }
    }
    assert!(found.iter().all(|&count| count > 1_000), "{found:?}");
}

/// All networks but one are cut in the same way, and those below that one again: nodes of two levels are the
/// same piece of the image.
#[test]
fn levels_of_addresses_that_are_alike_are_told_apart() {
    let mut prefixes = vec!["10.2.128.0/17".to_owned()];
    for at in (0..=255).filter(|at| *at != 10) {
        prefixes.extend(["1.0.0/16", "2.0.0/15", "7.0.0/16"].map(|rest| format!("{at}.{rest}")));
    }
    for at in (0..=255).filter(|at| *at != 2) {
        prefixes.extend(["1.0/24", "2.0/23", "7.0/24"].map(|rest| format!("10.{at}.{rest}")));
    }
    let text = format!(
        "package acme.t\nuse acme.vocabulary\npolicy p {{ on ingress permit a {{ from anyone  source {} }} }}",
        prefixes.join(", ")
    );
    let compiled = compile(&[("t.gov", &text), ("vocabulary.gov", VOCABULARY)]);
    let random = &mut Random::new(3);
    let aim = Aim::new(&compiled.table, program::INGRESS);
    let mut told = [0, 0];
    for _ in 0..20_000 {
        let bytes = [(); 4].map(|()| *random.pick(&[0, 1, 2, 3, 4, 7, 8, 10, 11, 128, 255]));
        let mut request = aim.next(0, random);
        request.source = [0, 0xffff << 32 | u64::from(u32::from_be_bytes(bytes))];
        let permit = interpret::decide(&compiled.policy, 0, &request).permit;
        let winner = compiled.image.decide(program::INGRESS, &request).winner;
        assert_eq!(winner != LEAF_NONE, permit, "{bytes:?}");
        told[usize::from(permit)] += 1;
    }
    assert!(told.iter().all(|count| *count > 1000), "{told:?}");
}
