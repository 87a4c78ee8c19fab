//! Every diagnostic code has a page; its faulty example gets this very diagnostic, and its
//! corrected one none. What people see for the faulty examples is kept in `tests/snapshots/`.

use std::{collections::BTreeSet, fs, path::Path};

use govc::output::render;
use govc_compiler::{codes, lock::Locks, pages, testing};
use govc_grammar::diagnostic::{Code, Diagnostic, Severity};
use govc_tests::{Checked, check_with, findings, findings_on_demand};
use miette::GraphicalTheme;

const VOCABULARY: &str = include_str!("../../examples/policies/acme/vocabulary.gov");

/// Codes whose pages show no example, and why. Each is held by a unit test of its crate.
const WITHOUT_EXAMPLE: &[(&str, &str)] = &[
    ("GOV0026", "a file of 64 MiB"),
    ("GOV0107", "rules that overlap beyond measure"),
    ("GOV3014", "`--locked`, which no policy holds"),
    ("GOV5012", "a million rules"),
    ("GOV5014", "rules that fill 256 MiB of tables"),
    ("GOV5016", "templates that write out 64 MiB"),
    ("GOV7001", "grants, which no policy holds; cli/tests/authority.rs"),
    ("GOV7002", "mappings, likewise; cli/tests/mappings.rs"),
];

/// The text of a code block with this info string.
fn block<'p>(page: &'p str, info: &str) -> Option<&'p str> {
    let open = format!("\n```{info}\n");
    let start = page.find(&open)? + open.len();
    let end = page[start..].find("\n```").unwrap() + start + 1;
    Some(&page[start..end])
}

/// Writes out what `…` on a line of its own stands for: the line above it again and again, its
/// last number counting up to the one of the line below.
fn write_out(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let last_number = |line: &str| -> Option<u64> {
        let end = line.rfind(|c: char| c.is_ascii_digit())? + 1;
        let start = line[..end].rfind(|c: char| !c.is_ascii_digit()).map_or(0, |at| at + 1);
        line[start..end].parse().ok()
    };
    let mut all = String::new();
    for (at, line) in lines.iter().enumerate() {
        if line.trim() != "…" {
            all.push_str(&format!("{line}\n"));
            continue;
        }
        let (above, below) = (lines[at - 1], lines[at + 1]);
        let (first, last) = (last_number(above).unwrap(), last_number(below).unwrap());
        assert!(first + 1 < last, "nothing is left out in `{text}`");
        for number in first + 1..last {
            let line = above.replace(&first.to_string(), &number.to_string());
            all.push_str(&format!("{line}\n"));
        }
    }
    all
}

/// The files of an example: one, unless every line is one. Those that do not define the domain
/// `acme` themselves have the vocabulary of the examples.
fn files(example: &str) -> Vec<(String, String)> {
    let text = write_out(example);
    let mut files: Vec<(String, String)> =
        if text.lines().all(|line| line.starts_with("package ")) && text.lines().count() > 1 {
            (1..)
                .zip(text.lines())
                .map(|(number, line)| (format!("example{number}.gov"), line.to_owned()))
                .collect()
        } else {
            vec![("example.gov".to_owned(), text.clone())]
        };
    if !text.contains("domain acme") {
        files.push(("vocabulary.gov".to_owned(), VOCABULARY.to_owned()));
    }
    files
}

/// Everything that govc says about an example, its tests included.
fn say(example: &str, lock: Option<&str>, code: Code) -> Checked {
    let files = files(example);
    let texts: Vec<(&str, &str)> =
        files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let mut locks = Locks::default();
    if let Some(lock) = lock {
        let package = example.split_whitespace().nth(1).unwrap();
        locks.insert_text(package, lock);
    }
    let mut checked = check_with(&texts, &locks);
    if let Some(policy) = &checked.policy {
        match govc_compiler::compile(policy, &checked.sources, "example") {
            Ok((table, image)) => {
                for result in testing::run(policy, &table, &image) {
                    assert!(result.image_agrees);
                    let case = &policy.tests()[result.test].cases[result.case];
                    let failed =
                        (!result.passed).then(|| testing::diagnose(policy, case, result.decision));
                    checked.diagnostics.extend(failed);
                }
            }
            Err(diagnostic) => checked.diagnostics.push(*diagnostic),
        }
    }
    if checked.policy.is_some() && codes::is_analysis(code.id) {
        let found = match code {
            codes::CONFLICT | codes::GAP => findings_on_demand(&checked),
            codes::UNUSED_HERE => checked.unused.clone(),
            _ => findings(&checked),
        };
        // A gap is normal: an example has many, and no page would be right without one.
        let told = found.into_iter().filter(|one| one.code == code || code != codes::CONFLICT);
        checked.diagnostics.extend(told);
    }
    checked
}

fn ids(diagnostics: &[Diagnostic]) -> BTreeSet<&'static str> {
    diagnostics.iter().map(|diagnostic| diagnostic.code.id).collect()
}

fn page(code: Code) -> &'static str {
    pages::page(code.id).unwrap_or_else(|| panic!("{} has no page", code.id))
}

fn with_examples() -> impl Iterator<Item = (Code, &'static str)> {
    let without = |id| WITHOUT_EXAMPLE.iter().any(|(other, _)| *other == id);
    pages::codes().filter(move |code| !without(code.id)).map(|code| (code, page(code)))
}

#[test]
fn pages_have_their_parts() {
    for code in pages::codes() {
        let page = page(code);
        let id = code.id;
        let severity = match code.severity {
            Severity::Error => "*Error: the policy is not compiled.*",
            Severity::Warning => "*Warning: the policy is compiled.*",
            Severity::Advice => "*Advice: nothing is wrong by itself.*",
        };
        let head = format!("# {id}: {}\n\n{severity}\n\n", code.title);
        assert!(page.starts_with(&head), "{id} has to start with\n{head}");
        assert!(page.contains("\n\n## Why\n\n"), "{id} does not say why");
        assert!(page.ends_with('\n') && !page.contains("\n\n\n"), "{id}: blank lines");
        for line in page.lines().filter(|line| !line.starts_with('|')) {
            assert!(line.chars().count() <= 150, "{id}: `{line}` is long");
        }
    }
}

#[test]
fn links_lead_to_pages() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/diagnostics");
    for code in pages::codes() {
        let text = page(code);
        for (at, _) in text.match_indices("](") {
            let target = text[at + 2..].split(')').next().unwrap();
            assert!(root.join(target).is_file(), "{}: no file `{target}`", code.id);
            let own = format!("{}.md", code.id);
            assert!(target != own, "{} links to itself", code.id);
        }
        // A line below "See also" names the other page as its code does.
        for line in text.lines().filter(|line| line.starts_with("- [GOV")) {
            let other = pages::find(&line[3..10]).unwrap();
            assert_eq!(line, format!("- [{0}]({0}.md): {1}", other.id, other.title));
        }
    }
}

#[test]
fn only_pages_lie_beside_the_pages() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/diagnostics");
    for entry in fs::read_dir(root).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let id = name.strip_suffix(".md").unwrap();
        assert!(id == "README" || pages::codes().any(|code| code.id == id), "{name}");
    }
}

#[test]
fn codes_without_example_are_those_listed() {
    for (id, why) in WITHOUT_EXAMPLE {
        let code = pages::find(id).unwrap();
        assert!(block(page(code), "gov,fails").is_none(), "{id} has an example now: {why}");
    }
}

#[test]
fn faulty_examples_get_their_diagnostic_and_no_other() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(Path::new(env!("CARGO_MANIFEST_DIR")).join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut wrong = Vec::new();
    settings.bind(|| {
        for (code, page) in with_examples() {
            let faulty =
                block(page, "gov,fails").unwrap_or_else(|| panic!("{} has no example", code.id));
            let said = say(faulty, block(page, "toml,lock"), code);
            let mut expected = BTreeSet::from([code.id]);
            if code == govc_grammar::codes::MORE_ERRORS {
                // It only ever comes behind others.
                expected.insert(govc_grammar::codes::UNEXPECTED.id);
            } else if code == govc_compiler::codes::UNKNOWN_CODE {
                // The warning that was to be expected comes with it.
                expected.insert(govc_compiler::codes::OVERLAP.id);
            }
            if ids(&said.diagnostics) != expected {
                wrong.push(format!("{}: {:?}", code.id, ids(&said.diagnostics)));
                continue;
            }
            let shown = said.diagnostics.iter().find(|one| one.code == code).unwrap();
            assert!(shown.help.is_some(), "{} without help", code.id);
            let theme = GraphicalTheme::unicode_nocolor();
            let rendered = render(shown, &said.sources, theme, 100);
            insta::assert_snapshot!(format!("page-{}", code.id), rendered);
        }
    });
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn corrected_examples_are_correct() {
    let mut wrong = Vec::new();
    for (code, page) in with_examples() {
        let good = block(page, "gov").unwrap_or_else(|| panic!("{}: no correction", code.id));
        let said = say(good, block(page, "toml,lock").filter(|_| code.id != "GOV3009"), code);
        if let Some(first) = said.diagnostics.first() {
            wrong.push(format!("{}: {} {}", code.id, first.code.id, first.message));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_left_out_is_written_out() {
    assert_eq!(write_out("a1,\na2,\n…\na5\n"), "a1,\na2,\na3,\na4,\na5\n");
    assert_eq!(write_out("b1 = \"b1\"\n…\nb3 = \"b3\""), "b1 = \"b1\"\nb2 = \"b2\"\nb3 = \"b3\"\n");
}
