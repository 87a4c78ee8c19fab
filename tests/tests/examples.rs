//! Every example policy compiles without a warning, and its tests hold, by the interpreter and by
//! the image. What `explain` says about the packets of these tests is kept in `tests/snapshots/`.

use std::{collections::BTreeSet, fmt::Write as _, fs, path::Path, process::Command};

use govc_compiler::testing;

const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

fn read(path: &Path) -> (String, String) {
    (path.display().to_string(), fs::read_to_string(path).unwrap())
}

fn run(paths: &[&str]) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies");
    let mut texts: Vec<_> = paths.iter().map(|path| read(&root.join(path))).collect();
    texts.push(read(&root.join("acme/vocabulary.gov")));
    if texts.iter().any(|(_, text)| text.contains("use partner.vocabulary")) {
        texts.push(read(&root.join("partner/vocabulary.gov")));
    }
    let texts: Vec<_> = texts.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let checked = govc_tests::check(&texts);
    assert!(checked.diagnostics.is_empty(), "{paths:?}: {:#?}", checked.diagnostics);
    let compiled = govc_tests::compile(&texts);
    let results = testing::run(&compiled.policy, &compiled.table, &compiled.image);
    for result in &results {
        assert!(result.passed && result.image_agrees, "{paths:?}: {result:?}");
    }
    results.len()
}

#[test]
fn examples_hold() {
    let single =
        ["ledger.gov", "borders.gov", "office.gov", "tiers.gov", "trial.gov", "gateway.gov"];
    let mut cases: usize = single.iter().map(|path| run(&[path])).sum();
    for node in ["demo/api.gov", "demo/ledger.gov", "demo/guest.gov"] {
        cases += run(&["demo/rules.gov", node]);
    }
    assert!(cases >= 30, "{cases}");
}

/// The packets of a policy's tests, each with what it must get.
fn packets(text: &str) -> Vec<(&str, &str)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let packets: Vec<_> = lines
        .windows(2)
        .filter(|pair| pair[0].starts_with("packet {"))
        .map(|pair| (pair[0], pair[1].strip_prefix("expect ").unwrap()))
        .collect();
    assert_eq!(packets.len(), text.matches("packet {").count(), "a packet and what it gets");
    packets
}

#[test]
fn examples_are_explained() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let policies = root.join("../examples/policies");
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root.join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut kinds = BTreeSet::new();
    for (name, files) in [
        ("ledger", &["ledger.gov"][..]),
        ("borders", &["borders.gov"]),
        ("office", &["office.gov"]),
        ("tiers", &["tiers.gov"]),
        ("trial", &["trial.gov"]),
        ("gateway", &["gateway.gov"]),
        ("demo", &["demo/rules.gov", "demo/ledger.gov"]),
    ] {
        let text = fs::read_to_string(policies.join(files[0])).unwrap();
        let mut told = String::new();
        for (packet, expected) in packets(&text) {
            let output = Command::new(GOVC)
                .current_dir(&policies)
                .args(["explain", "--color", "never"])
                .args(files)
                .arg(packet)
                .output()
                .unwrap();
            assert!(output.status.success(), "{packet}: {output:?}");
            let answer = String::from_utf8(output.stdout).unwrap();
            assert!(answer.starts_with(expected), "{packet}: {expected}, but {answer}");
            kinds.insert(match expected.split_once(" by ") {
                Some((_, "default")) => "default",
                _ if expected.starts_with("deny") => "deny",
                _ => "permit",
            });
            writeln!(told, "{packet}\n{answer}").unwrap();
        }
        settings.bind(|| insta::assert_snapshot!(format!("explain-{name}"), told.trim_end()));
    }
    assert_eq!(kinds, BTreeSet::from(["default", "deny", "permit"]));
}
