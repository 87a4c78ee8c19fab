//! Tests of what comes after checking: limits of the tables, tests of the language.

use std::fmt::Write as _;

use govc_grammar::span::FileId;

use crate::{
    check::check, checked::Policy, codes, compile, encode::EncodeError, explain_encode,
    lock::Locks, lower::lower, sources::Source, testing,
};

const VOCABULARY: &str = include_str!("../../examples/policies/acme/vocabulary.gov");

fn checked(text: &str) -> (Policy, Vec<Source>) {
    let source = |name: &str, text: &str| Source { name: name.into(), text: text.into() };
    let sources = vec![source("test.gov", text), source("vocabulary.gov", VOCABULARY)];
    let files: Vec<_> = (0..)
        .zip(&sources)
        .map(|(id, source)| (FileId(id), govc_grammar::parse(FileId(id), &source.text).0))
        .collect();
    let checked = check(&files, &Locks::default());
    (checked.policy.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics)), sources)
}

#[test]
fn alternatives_that_multiply_are_told_by_rule() {
    let mut text =
        String::from("package t\nuse acme.vocabulary\npolicy p { on ingress permit a {\n");
    for (level, radius, operation, residency, route) in [
        ("public", "node", "ledger.read", "eu", "default"),
        ("internal", "cluster", "ledger.write", "de", "backbone_eu"),
        ("secret", "domain", "web.get", "us", "default"),
        ("confidential", "any", "web.post", "anywhere", "backbone_eu"),
    ] {
        let _ = writeln!(
            text,
            "where level is {level} or radius is {radius} or operation is {operation} or \
             residency is {residency} or route is {route}"
        );
    }
    for protocol in 0..250 {
        let _ = writeln!(text, "proto {protocol}");
    }
    text.push_str("} }\n");
    let (policy, sources) = checked(&text);
    let diagnostic = compile(&policy, &sources, "t").err().unwrap();
    assert_eq!(diagnostic.code, codes::TOO_MANY_ALTERNATIVES, "{diagnostic:#?}");
    assert_eq!(diagnostic.labels.len(), 1);
}

#[test]
fn tables_that_are_too_big_are_told_by_rule() {
    let text =
        "package t\nuse acme.vocabulary\npolicy p { on ingress permit a { from acme.guest } }";
    let (policy, _) = checked(text);
    let table = lower(&policy).unwrap();
    let error = crate::forest::ForestError::TooBig { program: 3, values: vec![0] };
    let diagnostic = explain_encode(&policy, &table, &EncodeError::Forest(error));
    let code = codes::TABLES_TOO_BIG;
    assert_eq!(diagnostic.code, code);
    assert_eq!(diagnostic.labels.len(), 1);
}

#[test]
fn a_failed_test_shows_what_decided() {
    let text = "package t\nuse acme.vocabulary\n\
        policy p { on ingress permit a { from acme.guest } }\n\
        test \"t\" { packet { from acme.guest proto tcp port 1 } expect deny }";
    let (policy, sources) = checked(text);
    let (table, image) = compile(&policy, &sources, "t").unwrap();
    let results = testing::run(&policy, &table, &image);
    assert!(!results[0].passed && results[0].image_agrees);
    let case = &policy.tests()[0].cases[0];
    let diagnostic = testing::diagnose(&policy, case, results[0].decision);
    let code = codes::TEST_FAILED;
    assert_eq!(diagnostic.code, code);
    assert!(diagnostic.message.contains("permit by p.a"), "{}", diagnostic.message);
}
