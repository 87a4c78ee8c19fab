//! What policies look like.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::path::{Path, PathBuf};

use govc_format::{FormatError, format};

/// All policies of a folder of the repository, below it as well.
fn policies(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut found);
    assert!(!found.is_empty(), "no policies in {folder}");
    found
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "gov") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

#[test]
fn examples_are_laid_out_already() {
    for (path, text) in policies("examples/policies") {
        assert_eq!(format(&text).unwrap(), text, "{}", path.display());
    }
}
