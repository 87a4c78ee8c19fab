//! Every faulty policy in `tests/ui/` with the message that people see.

use std::{fs, path::Path};

use govc::output::render;
use miette::GraphicalTheme;

const VOCABULARY: &str = include_str!("../../examples/policies/acme/vocabulary.gov");

#[test]
fn faulty_policies() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths: Vec<_> =
        fs::read_dir(root.join("ui")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "gov"));
    paths.sort();
    assert!(paths.len() >= 40);
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root.join("snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for path in &paths {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let text = fs::read_to_string(path).unwrap();
            let file = format!("{name}.gov");
            // Some mistakes take two packages.
            let beside = root.join("ui").join(format!("{name}.used"));
            let beside = fs::read_to_string(beside).unwrap_or_default();
            let mut files = vec![(file.as_str(), text.as_str()), ("vocabulary.gov", VOCABULARY)];
            if !beside.is_empty() {
                files.push(("used.gov", &beside));
            }
            let mut checked = govc_tests::check(&files);
            let mut findings = govc_tests::findings(&checked);
            if name.contains("gap") || name.contains("conflict") {
                findings = govc_tests::findings_on_demand(&checked);
            }
            if name.contains("unused") {
                findings = checked.unused.clone();
            }
            checked.diagnostics.extend(findings);
            assert!(!checked.diagnostics.is_empty(), "{name}: nothing to report");
            let rendered: Vec<String> = checked
                .diagnostics
                .iter()
                .map(|d| render(d, &checked.sources, GraphicalTheme::unicode_nocolor(), 100))
                .collect();
            insta::assert_snapshot!(format!("ui-{name}"), rendered.join("\n"));
        }
    });
}
