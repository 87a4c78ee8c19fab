//! Tests of what comes after checking: limits of the tables, tests of the language.

use std::fmt::Write as _;

use govc_grammar::{diagnostic::Code, span::FileId};

use crate::{
    analysis, check::check, checked::Policy, codes, compile, encode::EncodeError, explain_encode,
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

/// The codes of all that the analysis tells about the body of a policy and what follows.
fn analysed(text: &str) -> Vec<Code> {
    let (policy, sources) =
        checked(&format!("package t\nuse acme.vocabulary\npolicy p {{ on ingress\n{text}"));
    let (table, image) = compile(&policy, &sources, "t").unwrap();
    let mut found = analysis::findings(&policy, &table, &image, &|_| {}).diagnostics;
    found.extend(analysis::conflicts::diagnose(&policy, &table, image.names()));
    found.extend(analysis::gaps::diagnose(&policy, &table, image.names()));
    found.into_iter().map(|diagnostic| diagnostic.code).collect()
}

#[test]
fn the_analysis_tells_its_codes_and_stays_silent_otherwise() {
    let sound = "permit a { from acme.web.** } }\n\
        policy rest { on ingress tier baseline deny others { from anyone } }";
    assert_eq!(analysed(sound), []);
    let never = "permit a { source 10.0.0.0/8 destination ::/0 } deny rest { from anyone } }";
    let shadowed = "permit a { from acme.web.** } permit b { from acme.web.** log }\n\
        deny c { from acme.web.** } }";
    let alternatives: Vec<String> = (0..250).map(|number| format!("proto {number}")).collect();
    let any = |level: &str, radius: &str, residency: &str| {
        format!(
            "where level is {level} or radius is {radius} or operation is web.get or \
             residency is {residency} or route is default or compartments has audit"
        )
    };
    let open = format!(
        "permit a {{ from acme.web.** }} }} assert a {{ never permit {} {} {} {} }}",
        any("public", "node", "eu"),
        any("internal", "any", "de"),
        any("secret", "domain", "us"),
        alternatives.join(" ")
    );
    for (code, text) in [
        (codes::NEVER_MATCHES, never),
        (codes::SHADOWED, shadowed),
        (codes::REDUNDANT, "permit a { from acme.web.** } permit b { from acme.web.front } }"),
        (codes::CONFLICT, "permit a { operation web.get } deny b { from acme.guest } }"),
        (codes::GAP, "permit a { from acme.web.** } }"),
        (
            codes::UNDECIDED_TEST,
            "permit a { from acme.web.** } }\n\
             test \"t\" { packet { from acme.guest } expect deny }",
        ),
        (
            codes::ASSERTION_FAILS,
            "permit a { from acme.** } } assert a { never permit from acme.guest }",
        ),
        (codes::ASSERTION_OPEN, open.as_str()),
    ] {
        assert!(analysed(text).contains(&code), "{}: {:?}\n{text}", code.id, analysed(text));
    }
}

#[test]
fn an_assertion_logs_nothing() {
    let source = "package t\nuse acme.vocabulary\n\
        policy p { on ingress permit a { from acme.web.** } }\n\
        assert a { never permit from acme.guest log }";
    let files = [source, VOCABULARY];
    let files: Vec<_> = (0..)
        .zip(files)
        .map(|(id, text)| (FileId(id), govc_grammar::parse(FileId(id), text).0))
        .collect();
    let diagnostics = check(&files, &Locks::default()).diagnostics;
    let code = codes::ASSERTION_LOGS;
    assert_eq!(diagnostics.iter().map(|d| d.code).collect::<Vec<_>>(), [code]);
}
