//! Texts that nobody would write: parsing ends, does not panic, and tells about what it lost.

use govc_grammar::ast::{File, Item};
use govc_grammar::diagnostic::{Diagnostic, Severity};
use govc_grammar::span::FileId;
use govc_grammar::{DIAGNOSTICS_MAX, parse, tokens};

const EVERYTHING: &str = include_str!("data/everything.gov");

/// Parses and checks what holds for every text.
fn survive(source: &str) -> (File, Vec<Diagnostic>) {
    let (file, diagnostics) = parse(FileId(0), source);
    assert!(diagnostics.len() <= DIAGNOSTICS_MAX + 1);
    let has_error = diagnostics.iter().any(|d| d.severity() == Severity::Error);
    let lost = file.package.is_none() || file.items.iter().any(|i| matches!(i, Item::Error(_)));
    assert!(has_error || !lost, "lost without a word");
    for label in diagnostics.iter().flat_map(|diagnostic| &diagnostic.labels) {
        let range = label.span.start as usize..label.span.end as usize;
        assert!(source.get(range).is_some(), "{label:?}");
    }
    (file, diagnostics)
}

/// A small generator of numbers that are the same in every run.
struct XorShift(u64);

impl XorShift {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap_or(1)).unwrap_or(0)
    }
}

#[test]
fn every_prefix_of_a_correct_text() {
    for (end, _) in EVERYTHING.char_indices() {
        survive(&EVERYTHING[..end]);
    }
}

#[test]
fn every_suffix_of_a_correct_text() {
    for (start, _) in EVERYTHING.char_indices().step_by(7) {
        survive(&EVERYTHING[start..]);
    }
}

/// One token too few must cost few diagnostics and few items.
#[test]
fn every_text_without_one_token() {
    let items = survive(EVERYTHING).0.items.len();
    let mut faulty = 0;
    for (_, range) in tokens(EVERYTHING) {
        let source = format!("{} {}", &EVERYTHING[..range.start], &EVERYTHING[range.end..]);
        let (file, diagnostics) = survive(&source);
        let place = &EVERYTHING[range.start.saturating_sub(30)..range.end];
        let messages: Vec<_> = diagnostics.iter().map(|d| &d.message).collect();
        assert!(diagnostics.len() <= 4, "{messages:#?} without the end of {place}");
        let good = file.items.iter().filter(|item| !matches!(item, Item::Error(_))).count();
        assert!(good + 3 >= items, "{good} items are left without the end of {place}");
        faulty += usize::from(!diagnostics.is_empty());
    }
    assert!(faulty > 400);
}

#[test]
fn every_text_with_one_token_twice() {
    for (_, range) in tokens(EVERYTHING) {
        let token = &EVERYTHING[range.clone()];
        let source = format!("{} {token} {}", &EVERYTHING[..range.end], &EVERYTHING[range.end..]);
        let (_, diagnostics) = survive(&source);
        let messages: Vec<_> = diagnostics.iter().map(|d| &d.message).collect();
        assert!(diagnostics.len() <= 3, "{messages:#?} with {token} twice at {}", range.start);
    }
}

#[test]
fn token_soup() {
    let mut words: Vec<&str> = tokens(EVERYTHING).map(|(_, range)| &EVERYTHING[range]).collect();
    words.extend([
        "\n",
        "\n",
        "\n  ",
        ";",
        "&&",
        "'x'",
        "\"x",
        "€",
        "é",
        "#",
        "/*",
        "->",
        "10.0.0.256",
    ]);
    let mut random = XorShift(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2000 {
        let length = random.below(60);
        let soup: String = (0..length)
            .flat_map(|_| [words[random.below(words.len())], [" ", "\n", ""][random.below(3)]])
            .collect();
        survive(&soup);
        survive(&format!("package p\npolicy a {{\n permit b {{ {soup}"));
    }
}

#[test]
fn character_soup() {
    let characters: Vec<char> =
        "{}()[]<>=.,:;*/\\\"'#!&|-_ \n\t0x9aé€\u{feff}\u{200b}\0on".chars().collect();
    let mut random = XorShift(42);
    for _ in 0..2000 {
        let length = random.below(80);
        let soup: String =
            (0..length).map(|_| characters[random.below(characters.len())]).collect();
        survive(&soup);
        survive(&format!("package p\nlet a = {soup}\npolicy b {{}}"));
    }
}

/// Twice the rules are twice the rules: nothing is lost in large policies.
#[test]
fn sizes_are_linear() {
    for count in [1, 10, 1000, 2000, 20_000] {
        let rules: String = (0..count)
            .map(|n| format!("  permit r{n} {{ from a.s{n} proto tcp port 443 }}\n"))
            .collect();
        let source = format!("package p\npolicy large {{\n{rules}}}\n");
        let (file, diagnostics) = survive(&source);
        assert!(diagnostics.is_empty());
        let Some(Item::Policy(policy)) = file.items.first() else { panic!("no policy") };
        assert_eq!(policy.rules.len(), count);
        assert_eq!(tokens(&source).count(), 6 + 12 * count);
    }
}
