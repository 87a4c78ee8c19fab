//! Tests on source text: what is right gets the right numbers, what is wrong one diagnostic.

mod evolution;
mod good;
mod limits;
mod names;
mod packets;
mod robust;
mod templates;
mod translations;
mod types;
mod vocabularies;
mod warnings;

use govc_grammar::diagnostic::{Code, Diagnostic, Severity};
use govc_grammar::span::FileId;

use super::{Checked, check};
use crate::codes;
use crate::lock::Locks;

/// The vocabulary that most tests use.
const VOCABULARY: &str = r#"
package acme.vocabulary
domain acme = 7 {
    level { public < internal < confidential < secret }
    compartments { finance, audit, health }
}
scope acme {
    web        at internal
    payments   at confidential in {finance} { api  ledger  batch[64] }
    audit      at secret in {finance, audit}
    guest      at public
    regions { eu { north south }  us { east } }
}
constraint confidential, no_forward, stay_in_domain
operation  ledger { read write export }   web { get post }
residency  eu = {de, fr, nl}   home = {de}   us = {us}   anywhere
route      default, backbone_eu
zone       pods = interface "veth*"   wan = interface "eth1"   vpn = interface "wg0" encrypted
tier       guardrails, default, baseline ordered
let        office = 10.20.0.0/16, 2001:db8:20::/48
let        web_ports = 80, 443, 8000..8099
"#;

/// A second domain with some names in common with the first.
const PARTNER: &str = "
package partner.vocabulary
domain partner = 9 { level { outer < internal }  compartments { trade } }
scope partner { shop  web  till[4] }
operation shop { buy }  ledger { read }
constraint sealed
residency eu = {de}
";

/// Parses and checks; file `i` is text `i`. Syntax errors fail the test.
fn run(texts: &[&str], locks: &Locks) -> Checked {
    let files: Vec<_> = texts
        .iter()
        .zip(0..)
        .map(|(text, id)| {
            let (file, errors) = govc_grammar::parse(FileId(id), text);
            assert!(errors.is_empty(), "{errors:#?} in {text}");
            (FileId(id), file)
        })
        .collect();
    check(&files, locks)
}

/// A file of package `p` that uses both vocabularies, put behind them.
fn with_vocabularies(body: &str) -> [String; 3] {
    let file = format!("package p\nuse acme.vocabulary\nuse partner.vocabulary\n{body}");
    [VOCABULARY.to_owned(), PARTNER.to_owned(), file]
}

/// A file of package `p` that uses the first vocabulary, put behind it.
fn with_vocabulary(body: &str) -> [String; 2] {
    [VOCABULARY.to_owned(), format!("package p\nuse acme.vocabulary\n{body}")]
}

/// A policy on ingress with these rules.
fn rules(rules: &str) -> [String; 2] {
    with_vocabulary(&format!("policy q {{ on ingress\n{rules}\n}}"))
}

/// One rule with these clauses.
fn rule(clauses: &str) -> [String; 2] {
    rules(&format!("permit r {{ {clauses} }}"))
}

fn text_at<'t>(texts: &[&'t str], diagnostic: &Diagnostic, label: usize) -> &'t str {
    let span = diagnostic.labels[label].span;
    &texts[span.file.0 as usize][span.start as usize..span.end as usize]
}

/// There is exactly one diagnostic, with this code, at this text, with these words in its
/// message or help.
fn assert_told(texts: &[impl AsRef<str>], code: Code, at: &str, words: &[&str]) -> Diagnostic {
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    let checked = run(&texts, &Locks::default());
    assert_one(&texts, &checked, code, at, words)
}

fn assert_one(
    texts: &[&str],
    checked: &Checked,
    code: Code,
    at: &str,
    words: &[&str],
) -> Diagnostic {
    let told = &checked.diagnostics;
    assert_eq!(told.len(), 1, "{}: {told:#?}", code.id);
    let one = told[0].clone();
    assert_eq!(one.code, code, "{one:#?}");
    assert_eq!(text_at(texts, &one, 0), at, "{one:#?}");
    let help = one.help.clone().unwrap_or_default();
    for word in words {
        assert!(one.message.contains(word) || help.contains(word), "no `{word}`: {one:#?}");
    }
    assert_eq!(checked.policy.is_none(), code.severity == Severity::Error);
    assert_style(&one);
    one
}

/// What holds for the text of every diagnostic.
fn assert_style(diagnostic: &Diagnostic) {
    let Diagnostic { message, labels, help, .. } = diagnostic;
    let first = message.chars().next().unwrap();
    assert!(!first.is_uppercase(), "{message}");
    assert!(!message.ends_with('.'), "{message}");
    assert_eq!(message.matches('`').count() % 2, 0, "{message}");
    assert!(help.is_some(), "{message}");
    assert!(labels.iter().all(|label| !label.text.is_empty()), "{message}");
    let spans: std::collections::HashSet<_> = labels.iter().map(|label| label.span).collect();
    assert_eq!(spans.len(), labels.len(), "{diagnostic:#?}");
}

/// No diagnostic at all, and a policy.
fn assert_good(texts: &[impl AsRef<str>]) -> crate::checked::Policy {
    let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
    let checked = run(&texts, &Locks::default());
    assert!(checked.diagnostics.is_empty(), "{:#?}", checked.diagnostics);
    checked.policy.unwrap()
}

#[test]
fn every_code_is_told_by_a_test() {
    let tests = [
        include_str!("tests/evolution.rs"),
        include_str!("tests/limits.rs"),
        include_str!("tests/names.rs"),
        include_str!("tests/packets.rs"),
        include_str!("tests/templates.rs"),
        include_str!("tests/translations.rs"),
        include_str!("tests/types.rs"),
        include_str!("tests/vocabularies.rs"),
        include_str!("tests/warnings.rs"),
        include_str!("../stage_tests.rs"),
    ];
    let declared = include_str!("../codes.rs");
    // What needs grants is told where they are read, and tested there.
    let grants = concat!(
        include_str!("../../../cli/tests/authority.rs"),
        include_str!("../../../cli/tests/mappings.rs")
    );
    for code in codes::ALL {
        if code.id.starts_with("GOV7") {
            assert!(grants.contains(code.id), "no test for {}", code.id);
            continue;
        }
        let line = declared.lines().find(|line| line.contains(code.id)).unwrap();
        let name = line.trim().split(' ').next().unwrap();
        let used = [format!("codes::{name},"), format!("codes::{name};")];
        let told = |test: &&'static str| used.iter().any(|used| test.contains(used));
        assert!(tests.iter().any(told), "no test for {} {name}", code.id);
    }
}

#[test]
fn codes_are_unique_and_ascending() {
    assert!(codes::ALL.windows(2).all(|pair| pair[0].id < pair[1].id));
}
