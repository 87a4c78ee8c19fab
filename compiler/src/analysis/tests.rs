//! What is said about small policies, word by word.

use govc_grammar::span::FileId;
use govc_image::Image;

use super::assertions::{self, Counterexample, Outcome};
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
