//! `govc fmt` as people and programs meet it.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

const WILD: &str = "package a\nlet   x=1  // one\n";
const TIDY: &str = "package a\nlet x = 1  // one\n";
const FAULTY: &str = "package a\nlet   x 1\n";

/// Exit code, standard output and standard error.
fn fmt(directory: &Path, arguments: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_govc"))
        .current_dir(directory)
        .env_remove("NO_COLOR")
        .arg("fmt")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = directory.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    directory
}

fn ok(out: &str) -> (i32, String, String) {
    (0, out.to_owned(), String::new())
}

#[test]
fn files_and_directories_are_laid_out() {
    let directory = directory(&[
        ("a.gov", WILD),
        ("b/c/d.gov", WILD),
        ("b/e.gov", TIDY),
        ("b/.git/f.gov", WILD),
        ("b/notes.md", WILD),
    ]);
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let file = directory.path().join("a.gov");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(fmt(directory.path(), &["a.gov"], ""), ok("1 file laid out\n"));
    assert_eq!((read("a.gov").as_str(), read("b/c/d.gov").as_str()), (TIDY, WILD));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fmt(directory.path(), &[], ""), ok("1 file laid out\n"));
    assert_eq!(read("b/c/d.gov"), TIDY);
    assert_eq!((read("b/.git/f.gov").as_str(), read("b/notes.md").as_str()), (WILD, WILD));
    assert_eq!(fmt(directory.path(), &["."], ""), ok(""));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2, "no temporary file is left");
    assert_eq!(fmt(directory.path(), &["missing.gov"], "").0, 3);
}

#[test]
fn check_lists_and_changes_nothing() {
    let directory = directory(&[("a.gov", WILD), ("b/c.gov", WILD), ("b/d.gov", TIDY)]);
    let told = (1, "a.gov\nb/c.gov\n".to_owned(), String::new());
    assert_eq!(fmt(directory.path(), &["--check"], ""), told);
    assert_eq!(fmt(directory.path(), &["--check", "b/d.gov"], ""), ok(""));
    assert_eq!(fs::read_to_string(directory.path().join("a.gov")).unwrap(), WILD);
}

#[test]
fn diff_shows_and_changes_nothing() {
    let directory = directory(&[("a.gov", WILD)]);
    let (code, out, err) = fmt(directory.path(), &["--diff", "a.gov"], "");
    assert_eq!((code, err.as_str()), (1, ""));
    let wanted = "--- a/a.gov\n+++ b/a.gov\n@@ -1,2 +1,2 @@\n package a\n\
                  -let   x=1  // one\n+let x = 1  // one\n";
    assert_eq!(out, wanted);
    let (_, out, _) = fmt(directory.path(), &["--diff", "a.gov", "--color", "always"], "");
    assert!(out.contains("\u{1b}[32m+let x = 1"), "{out:?}");
    assert_eq!(fs::read_to_string(directory.path().join("a.gov")).unwrap(), WILD);
}

#[test]
fn standard_input_goes_to_standard_output() {
    let directory = directory(&[]);
    assert_eq!(fmt(directory.path(), &["-"], WILD), ok(TIDY));
    assert_eq!(fmt(directory.path(), &["-", "--check"], TIDY), ok(""));
    assert_eq!(fmt(directory.path(), &["-", "--check"], WILD).0, 1);
    assert_eq!(fmt(directory.path(), &["-", "a.gov"], WILD).0, 2);
    let (code, out, err) = fmt(directory.path(), &["-"], FAULTY);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("standard input:2:9"), "{err}");
}

#[test]
fn syntax_errors_are_told_and_the_file_is_left_alone() {
    let directory = directory(&[("a.gov", FAULTY), ("b.gov", WILD)]);
    let (code, out, err) = fmt(directory.path(), &[], "");
    assert_eq!((code, out.as_str()), (1, "1 file laid out\n"));
    assert!(err.contains("a.gov:2:9") && err.contains("GOV0001"), "{err}");
    assert_eq!(fs::read_to_string(directory.path().join("a.gov")).unwrap(), FAULTY);
    assert_eq!(fs::read_to_string(directory.path().join("b.gov")).unwrap(), TIDY);
}
