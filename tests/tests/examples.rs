//! Every example policy compiles without a warning, and its tests hold, by the interpreter and by
//! the image.

use std::{fs, path::Path};

use govc_compiler::testing;

fn read(path: &Path) -> (String, String) {
    (path.display().to_string(), fs::read_to_string(path).unwrap())
}

fn run(paths: &[&str]) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policies");
    let mut texts: Vec<_> = paths.iter().map(|path| read(&root.join(path))).collect();
    texts.push(read(&root.join("acme/vocabulary.gov")));
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
    let single = ["ledger.gov", "borders.gov", "office.gov", "tiers.gov", "trial.gov"];
    let mut cases: usize = single.iter().map(|path| run(&[path])).sum();
    for node in ["demo/api.gov", "demo/ledger.gov", "demo/guest.gov"] {
        cases += run(&["demo/rules.gov", node]);
    }
    assert!(cases >= 30, "{cases}");
}
