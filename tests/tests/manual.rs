//! The examples of docs/language.md are policies, and it names every word of the language.

use std::collections::BTreeSet;

use govc_compiler::testing;
use govc_grammar::diagnostic::Severity;
use govc_tests::policies::VOCABULARY;

const MANUAL: &str = include_str!("../../docs/language.md");
const LEXER: &str = include_str!("../../grammar/src/lexer.rs");

/// The examples, in order: fenced blocks that are not said to be of another language.
fn examples() -> Vec<&'static str> {
    let mut blocks = MANUAL.split("\n```");
    let mut examples = Vec::new();
    blocks.next();
    while let Some(block) = blocks.next() {
        let (language, text) = block.split_once('\n').unwrap();
        if language.is_empty() {
            examples.push(text);
        }
        blocks.next();
    }
    examples
}

#[test]
fn examples_compile_and_their_tests_pass() {
    let examples = examples();
    assert!(examples.len() >= 7, "{}", examples.len());
    let (vocabulary, rest) = examples.split_first().unwrap();
    assert!(vocabulary.starts_with("package acme.vocabulary"), "{vocabulary}");
    // All of them together are one package: later ones use what earlier ones define.
    let files: Vec<(String, String)> = (1..)
        .zip(rest)
        .map(|(number, text)| {
            let name = format!("example{number}.gov");
            (name, format!("package manual\nuse acme.vocabulary\n{text}\n"))
        })
        .chain([("vocabulary.gov".to_owned(), (*vocabulary).to_owned())])
        .collect();
    let texts: Vec<(&str, &str)> = files.iter().map(|(n, t)| (n.as_str(), t.as_str())).collect();
    let checked = govc_tests::check(&texts);
    let wrong: Vec<_> = checked
        .diagnostics
        .iter()
        .filter(|one| one.severity() == Severity::Error || one.code.id == "GOV4109")
        .map(|one| (one.code.id, &one.message, one.span()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let compiled = govc_tests::compile(&texts);
    let results = testing::run(&compiled.policy, &compiled.table, &compiled.image);
    assert!(results.len() >= 2, "{}", results.len());
    assert!(results.iter().all(|one| one.passed && one.image_agrees), "{results:?}");
}

#[test]
fn whole_files_in_other_pages_compile() {
    let pages = [include_str!("../../docs/sockets.md")];
    for page in pages {
        let blocks: Vec<&str> = page.split("\n```gov\n").skip(1).collect();
        assert!(!blocks.is_empty());
        for block in blocks {
            let (text, _) = block.split_once("\n```").unwrap();
            govc_tests::compile(&[("example.gov", text), ("vocabulary.gov", VOCABULARY)]);
        }
    }
}

#[test]
fn every_word_is_in_the_grammar() {
    let (_, grammar) = MANUAL.split_once("```ebnf").unwrap();
    let (grammar, _) = grammar.split_once("```").unwrap();
    let named: BTreeSet<&str> = grammar.split('"').skip(1).step_by(2).collect();
    let reserved = ["authority"];
    let tokens = LEXER.split("#[token(\"").filter_map(|text| text.split_once("\")]"));
    let words: BTreeSet<&str> = tokens
        .map(|(word, _)| word)
        .filter(|word| word.chars().all(|c| c.is_ascii_alphanumeric()))
        .collect();
    assert!(words.len() > 70, "{words:?}");
    let missing: Vec<_> =
        words.iter().filter(|word| !named.contains(*word) && !reserved.contains(word)).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(reserved.iter().all(|word| MANUAL.contains(&format!("`{word}`"))));
    let unknown: Vec<_> = named
        .iter()
        .filter(|word| word.chars().all(|c| c.is_ascii_alphabetic()) && !words.contains(*word))
        .collect();
    assert!(unknown.is_empty(), "{unknown:?}");
}
