//! What names mean, as the checker notes it.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::path::Path;

use govc_compiler::check::check_parsed_indexed;
use govc_compiler::index::{Index, Kind};
use govc_compiler::lock::Locks;
use govc_grammar::Token;
use govc_grammar::span::{FileId, Span};

fn index(texts: &[&str]) -> Index {
    let parsed = texts.iter().zip(0..).map(|(text, id)| {
        let (file, diagnostics) = govc_grammar::parse(FileId(id), text);
        ((FileId(id), file), diagnostics)
    });
    let (files, syntax): (Vec<_>, Vec<_>) = parsed.unzip();
    check_parsed_indexed(&files, syntax.concat(), &Locks::default()).1
}

/// What the `nth` occurrence of a word in a text is.
fn meant(index: &Index, file: u32, text: &str, word: &str, nth: usize) -> Option<(Kind, String)> {
    let at = text.match_indices(word).nth(nth).unwrap().0 as u32;
    let (span, definition) = index.at(Span::new(FileId(file), at, at))?;
    assert_eq!((span.start, span.end), (at, at + word.len() as u32), "{word} {nth}");
    Some((definition.kind, definition.full.to_string()))
}

const WORDS: &str = "package words\ndomain d = 7 { level { low < high }  compartments { f, g } }\n\
    scope d { a at high in {f} { b  c[4] }  e }\nconstraint k\noperation o { r w }\n\
    residency eu = {de}\nroute fast\ntier first, default\n";

const RULES: &str = "package rules\nuse words\nzone z = interface \"eth0\"\nlet s = 10.0.0.0/8\n    t = s\n\
    stamp on z when from zone z and address t { subject d.a.b  level low  compartments {f}  operation o.w }\n\
    policy p {\n    on ingress to d.a.c[2]\n    tier first\n\
    permit x { from a.**, d.e  operation o.*, d.o.r  where residency within eu and not route is fast and ingress zone is z }\n}\n\
    test \"y\" { packet { from d.a.b  constraints {k} } expect permit by p.x }\n";

#[test]
fn every_name_has_its_meaning() {
    let index = index(&[WORDS, RULES]);
    for (word, nth, kind, full) in [
        ("words", 0, Kind::Package, "words"),
        ("z", 1, Kind::Zone, "z"),
        ("z", 2, Kind::Zone, "z"),
        ("t {", 0, Kind::Prefixes, "t"),
        ("s\n", 2, Kind::Prefixes, "s"),
        ("d.a", 0, Kind::Domain, "d"),
        ("a.b", 0, Kind::Scope, "d.a"),
        ("b  level", 0, Kind::Scope, "d.a.b"),
        ("low", 0, Kind::Level, "low"),
        ("f}", 0, Kind::Compartment, "f"),
        ("w }", 0, Kind::Operation, "o.w"),
        ("c[2]", 0, Kind::Scope, "d.a.c"),
        ("first", 0, Kind::Tier, "first"),
        ("a.**", 0, Kind::Scope, "d.a"),
        ("o.*", 0, Kind::OperationGroup, "o"),
        ("d.o", 0, Kind::Domain, "d"),
        ("o.r", 0, Kind::OperationGroup, "o"),
        ("r  where", 0, Kind::Operation, "o.r"),
        ("eu", 0, Kind::Residency, "eu"),
        ("fast", 0, Kind::Route, "fast"),
        ("k}", 0, Kind::Constraint, "k"),
        ("p.x", 0, Kind::Policy, "p"),
        ("x }", 0, Kind::Rule, "p.x"),
    ] {
        let at = RULES.match_indices(word).nth(nth).unwrap_or_else(|| panic!("{word} {nth}")).0;
        let found = index.at(Span::new(FileId(1), at as u32, at as u32));
        let found = found.map(|(_, definition)| (definition.kind, definition.full.as_str()));
        assert_eq!(found, Some((kind, full)), "{word} {nth}");
    }
    assert_eq!(meant(&index, 0, WORDS, "high", 1), Some((Kind::Level, "high".into())));
    assert_eq!(meant(&index, 0, WORDS, "de", 0), None, "jurisdictions are nobody's names");
    let level = index.definitions.iter().find(|one| one.full == "high").unwrap();
    assert_eq!(index.places(level.span).count(), 2);
    let batch = index.definitions.iter().find(|one| one.full == "d.a.c").unwrap();
    assert!(batch.facts.contains(&"level high".to_owned()), "{:?}", batch.facts);
    assert!(batch.facts.iter().any(|fact| fact.starts_with("4 subjects")), "{:?}", batch.facts);
    assert!(index.visible_from(0).all(|one| one.kind != Kind::Policy));
    assert!(index.visible_from(1).any(|one| one.full == "d.a.b"));
}

#[test]
fn mistakes_elsewhere_cost_no_meaning() {
    let rules =
        RULES.replace("permit x", "permit q { from d.a.nobody }\n    permit x") + "let = \n";
    let index = index(&[WORDS, &rules]);
    assert_eq!(meant(&index, 1, &rules, "eu", 0), Some((Kind::Residency, "eu".into())));
    assert_eq!(meant(&index, 1, &rules, "nobody", 0), None);
}

/// The names of the examples, but for jurisdictions and `by default`, which nobody defines.
#[test]
fn no_name_of_the_examples_is_left_out() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let vocabulary = read("acme/vocabulary.gov");
    for name in ["ledger", "office", "borders", "tiers", "trial", "demo/rules"] {
        let text = read(&format!("{name}.gov"));
        let index = index(&[&text, &vocabulary]);
        for (file, text) in [&text, &vocabulary].into_iter().enumerate() {
            for (token, range) in govc_grammar::tokens(text) {
                let word = &text[range.clone()];
                if token != Token::Word || ["de", "fr", "nl", "us", "default"].contains(&word) {
                    continue;
                }
                let place = Span::new(FileId(file as u32), range.start as u32, range.start as u32);
                assert!(index.at(place).is_some(), "{word} at {range:?} of {name}");
            }
        }
    }
}

#[test]
fn documentation_and_deprecation_are_known() {
    let words = "//! Words.\npackage words\n/// The whole domain.\ndomain d = 7 { level {\n/// Lowest.\nlow < high } }\n\
                 /// Not about each scope.\nscope d { a  @deprecated \"use a\" b }\n/// Sets.\nprivate let s = 1\n    t = s\n";
    let index = index(&[words]);
    let said = |name: &str| {
        let one = index.definitions.iter().find(|one| one.full == name).unwrap();
        (one.documentation.as_deref(), one.deprecated.as_deref(), one.private)
    };
    assert_eq!(said("words"), (Some("Words."), None, false));
    assert_eq!(said("d"), (Some("The whole domain."), None, false));
    assert_eq!(said("low"), (Some("Lowest."), None, false));
    assert_eq!(said("high"), (None, None, false));
    assert_eq!(said("d.a"), (None, None, false));
    assert_eq!(said("d.b"), (None, Some("use a"), false));
    assert_eq!(said("t"), (Some("Sets."), None, true));
}
