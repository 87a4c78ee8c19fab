//! What is said about small policies, word by word.

use govc_abi::attribute::{self, state};
use govc_grammar::span::FileId;
use govc_image::Image;

use super::{
    analyse,
    assertions::{self, Counterexample, Outcome},
    conflicts, explain,
};
use crate::{
    check::check,
    checked::{Hook, Policy},
    interpret,
    lock::Locks,
    table::DecisionTable,
};

const VOCABULARY: &str = "package v\ndomain d = 3 { level { low < mid < high } }\n\
    scope d { a { x at mid  y at low }  b at high  c at low }\ntier first ordered, second\n\
    zone lan = interface \"eth0\"  wan = interface \"eth1\"\n\
    constraint c0, c1, c2, c3, c4, c5, c6\n";

fn compiled(text: &str) -> (Policy, DecisionTable, Image) {
    let text = format!("package p\nuse v\n{text}");
    let files: Vec<_> = (0..)
        .zip([text.as_str(), VOCABULARY])
        .map(|(id, text)| (FileId(id), govc_grammar::parse(FileId(id), text).0))
        .collect();
    let checked = check(&files, &Locks::default());
    let policy = checked.policy.unwrap_or_else(|| panic!("{:#?}\n{text}", checked.diagnostics));
    let (table, image) = crate::compile(&policy, &[], "t").unwrap();
    (policy, table, image)
}

/// What becomes of the assertions of a policy.
fn outcomes(text: &str) -> Vec<Outcome> {
    let (policy, table, _) = compiled(text);
    assertions::check(&policy, &table).unwrap()
}

fn refuted(outcome: &Outcome) -> &Counterexample {
    let Outcome::Refuted(found) = outcome else { panic!("{outcome:?}") };
    found
}

const FORWARD: Hook = 2;

#[test]
fn where_no_policy_governs_assertions_are_about_the_default() {
    let text = "policy p { on egress permit a { from d.c } }
        assert never { never permit from d.a.** }
        assert forward { on forward never permit from labelled }
        assert bare { on ingress on forward never permit from unlabelled }
        assert always { always permit from labelled }
        assert governed { on egress never permit from d.a.** }";
    let (policy, ..) = compiled(text);
    let found = outcomes(text);
    for (outcome, hook) in [(&found[0], 0), (&found[1], FORWARD)] {
        let found = refuted(outcome);
        assert_eq!((found.hook, found.rule, found.named), (hook, None, true));
        assert!(interpret::decide(&policy, hook, &found.request).permit);
    }
    assert_eq!(found[2..], [const { Outcome::Proven }; 3]);
}

#[test]
fn legacy_packets_are_those_that_a_legacy_rule_speaks_for() {
    let rules = "permit a { from d.a.**, d.c proto tcp port 443 }";
    let claim = "assert q { never permit from legacy proto tcp port 443 }";
    let ingress = |edges: &str, claim: &str| {
        outcomes(&format!("{edges}\npolicy p {{ on ingress {rules} }}\n{claim}"))
    };
    assert_eq!(ingress("", claim), [Outcome::Proven]);
    assert_eq!(
        ingress("legacy from 10.20.0.0/16 on lan { subject d.b }", claim),
        [Outcome::Proven]
    );
    // The first rule speaks for all of the second one's.
    let two = "legacy from 10.0.0.0/8 on lan { subject d.b }
        legacy from 10.20.0.0/16 on lan { subject d.c }";
    assert_eq!(ingress(two, claim), [Outcome::Proven]);
    let found = ingress("legacy from 10.20.0.0/16 on lan { subject d.c }", claim);
    let request = refuted(&found[0]).request;
    assert_eq!(request.scalars[usize::from(attribute::STATE)], state::LEGACY);
    assert_eq!(request.source, [0, 0xffff_0a14_0000]);
    // What leaves has a label.
    let egress = "legacy from 10.20.0.0/16 on lan { subject d.c }
        policy p { on egress permit a { from d.c } }
        assert q { on egress never permit from legacy }";
    assert_eq!(outcomes(egress), [Outcome::Proven]);
}

#[test]
fn of_many_legacy_rules_none_that_is_not_there_refutes() {
    // More labels than are told apart.
    let bits = |number: u32| {
        let names = (0..7).filter(|bit| number >> bit & 1 == 1).map(|bit| format!("c{bit}"));
        names.collect::<Vec<_>>().join(", ")
    };
    let edges: String = (0..100)
        .map(|number| {
            let bits = bits(number);
            format!(
                "legacy from 10.2.{number}.0/24 on lan {{ subject d.b constraints {{{bits}}} }}\n"
            )
        })
        .collect();
    let claim = |label: u32, network: u32| {
        let rule =
            format!("from d.b source 10.2.{network}.0/24 where constraints is {{{}}}", bits(label));
        let found = outcomes(&format!(
            "{edges}policy p {{ on ingress permit a {{ {rule} }} }}
             assert q {{ never permit from legacy }}"
        ));
        found.into_iter().next()
    };
    for number in [3, 99] {
        let found = claim(number, number);
        let found = refuted(found.as_ref().unwrap());
        assert_eq!((found.named, found.request.source[1] & 0xffff), (true, u64::from(number) << 8));
    }
    assert_eq!(claim(3, 4), Some(Outcome::Proven));
    // Among those that are put together, it stays open rather than wrong.
    assert_eq!(claim(98, 99), Some(Outcome::Undecided));
}

/// What the analysis tells of rules, with its help.
fn told(text: &str) -> Vec<(&'static str, String, String)> {
    let (policy, table, _) = compiled(text);
    let report = analyse(&policy, &table, &|_| {});
    let each = report.diagnostics(&policy);
    each.map(|one| (one.code.id, one.message, one.help.unwrap_or_default())).collect()
}

fn one(text: &str) -> (&'static str, String, String) {
    let told = told(&format!("policy p {{ on ingress {text} }}"));
    let [one] = told.as_slice() else { panic!("{told:?}\n{text}") };
    one.clone()
}

#[test]
fn a_rule_that_never_matches_tells_which_clauses_contradict_each_other() {
    let help = |text: &str| one(text).2;
    let contradict =
        |words: &str| format!("its {words} contradict each other: change one, or remove the rule");
    assert_eq!(
        help("permit a { from d.c source 10.0.0.0/8 destination ::/0 proto tcp port 1 }"),
        contradict("`source` and `destination`")
    );
    assert_eq!(
        help("permit a { from d.c proto icmp source ::/0 where level is low }"),
        contradict("`proto` and `source`")
    );
    assert_eq!(
        help("permit a { from d.a.** where level is low, level is high }"),
        "its `where` asks for what is never there: change it, or remove the rule"
    );
    assert_eq!(
        help("deny a { from legacy }"),
        "its `from` asks for what is never there: change it, or remove the rule"
    );
    let objects = told("policy p { on ingress to d.b permit a { from d.c to d.a.x } }");
    assert_eq!(
        objects[0].2,
        "its `to` asks for what is never there: change it, or remove the rule"
    );
}

#[test]
fn what_a_pass_leaves_to_others_is_told() {
    let found = one("deny d { from d.** except d.a.x, d.b } pass p { from d.a.** }");
    assert_eq!(found.1, "`p.p` passes on what goes on anyway");
    assert_eq!(found.2, "what `p.d` leaves of these packets goes on without it: remove it");
    let found = one("pass p { from d.a.** }");
    assert_eq!(found.2, "no other rule of its tier decides these packets: remove it");
}

#[test]
fn what_a_rule_does_besides_deciding_keeps_it() {
    let fine = |rules: &str| told(&format!("policy p {{ on ingress {rules} }}"));
    // What comes first decides: the second never logs.
    let found = one("permit all { from d.** } permit watched { from d.c log }");
    assert_eq!(found.1, "without `p.watched` every verdict stays the same, by `p.all`");
    assert_eq!(found.2, "these come first and report nothing: put it before them, or remove it");
    assert_eq!(fine("permit watched { from d.c log } permit all { from d.** }"), []);
    assert_eq!(fine("permit watched { from d.c log 1 in 9 } permit all { from d.** log }"), []);
    assert_eq!(fine("deny a { from d.c reject } deny b { from d.** log }"), []);
    assert_eq!(fine("deny a { from d.c reject } deny b { from d.** quarantine wan }"), []);
    assert_eq!(fine("deny a { from d.c reject } deny b { from d.** reject }").len(), 1);
}

#[test]
fn conflicts_that_are_not_told_are_counted() {
    let rules = |permits: usize| -> String {
        let permits =
            (0..permits).map(|at| format!("permit a{at} {{ from d.** proto tcp port {at} }}\n"));
        let denials =
            (0..10).map(|at| format!("deny b{at} {{ from d.c source 10.{at}.0.0/16 }}\n"));
        permits.chain(denials).collect()
    };
    let found = |permits: usize| {
        let (policy, table, image) =
            compiled(&format!("policy p {{ on ingress {} }}", rules(permits)));
        let told = conflicts::diagnose(&policy, &table, image.names());
        (told.len(), told.last().map(|last| last.message.clone()).unwrap_or_default())
    };
    assert_eq!(found(5).0, 50);
    assert_eq!(found(7), (51, "20 more conflicts are not told".to_owned()));
}

/// Why the only rule of a policy does not match a packet.
fn because(clauses: &str, packet: &str) -> String {
    let (policy, _, image) = compiled(&format!(
        "policy p {{ on ingress permit a {{ {clauses} }} }}
         test \"t\" {{ packet {{ {packet} }} expect deny }}"
    ));
    let case = &policy.tests()[0].cases[0];
    let found = explain::explain(&policy, image.names(), case.hook, &case.request);
    found.nearer.into_iter().map(|nearer| nearer.because).collect()
}

#[test]
fn conditions_are_explained_by_the_part_that_decides() {
    let not = |inner: &str, packet: &str| because(&format!("where not ({inner})"), packet);
    let packet = "from d.a.x constraints {c0}";
    assert_eq!(
        not("level is low or constraints has c0", packet),
        "`where`: constraints are {c0}, which `not` leaves out"
    );
    assert_eq!(
        not("level is mid and constraints has c0", packet),
        "`where`: level is mid and constraints are {c0}, which `not` leaves out"
    );
    assert_eq!(not("not level is low", packet), "`where`: level is mid, which `not` leaves out");
    assert_eq!(
        not("not (level is low or constraints has c1)", packet),
        "`where`: level is mid and constraints are {c0}, which `not` leaves out"
    );
    assert_eq!(
        because("where level is high or constraints has c1 or radius is any", packet),
        "`where`: no alternative holds: level is mid, and high is wanted; \
         constraints are {c0}, and all of {c1} are wanted; radius is domain, and any is wanted"
    );
}
