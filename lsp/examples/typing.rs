//! Measures how long an editor waits for diagnostics after one letter was typed into a policy of
//! many rules: `cargo run --release -p govc-lsp --example typing [RULES..]`.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use govc_grammar::diagnostic::Code;
use govc_lsp::{Host, Workspace};
use lsp_types::Uri;

const RUNS: usize = 5;

fn main() {
    let counts: Vec<usize> =
        std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![100, 1_000, 10_000, 100_000] } else { counts };
    for count in counts {
        for files in [1, 10] {
            let runs = (0..RUNS).filter_map(|_| measure(count, files));
            if let Some((first, typed, laid_out)) = runs.min_by_key(|(_, typed, _)| *typed) {
                println!(
                    "{count} rules, files: {files}: read and checked in {first:.1?}, a letter in \
                     {typed:.1?}, its file laid out in {laid_out:.1?}"
                );
            }
        }
    }
}

/// Files that are nowhere but here.
struct Memory(BTreeMap<PathBuf, String>);

impl Host for Memory {
    fn read(&self, path: &Path) -> Option<String> {
        self.0.get(path).cloned()
    }

    fn policies_below(&self, _: &Path) -> Vec<PathBuf> {
        self.0.keys().cloned().collect()
    }

    fn page_url(&self, _: Code) -> Option<String> {
        None
    }
}

/// Time until everything was checked first, until diagnostics are there after an edit, and of the
/// layout of the edited file.
fn measure(count: usize, in_files: usize) -> Option<(Duration, Duration, Duration)> {
    let mut files = BTreeMap::from([("/w/words.gov".into(), vocabulary())]);
    for file in 0..in_files {
        files.insert(format!("/w/p{file}.gov").into(), policy(file, count / in_files));
    }
    let host = Memory(files);
    let path = Path::new("/w/p0.gov");
    let started = Instant::now();
    let mut workspace = Workspace::new(&host, &["/w".into()], &[]);
    let diagnostics = workspace.checked(path)?.len();
    let first = started.elapsed();
    let text = host.0.get(path)?.replacen("from", "fro", 1);
    let uri: Uri = "file:///w/p0.gov".parse().ok()?;
    let started = Instant::now();
    workspace.edit(&uri, 2, text);
    let faulty = workspace.checked(path)?.len();
    let typed = started.elapsed();
    assert!(faulty > diagnostics, "the mistake is told");
    let started = Instant::now();
    let laid_out = govc_format::format(host.0.get(path)?).ok()?;
    let formatted = started.elapsed();
    assert!(!laid_out.is_empty());
    Some((first, typed, formatted))
}

fn vocabulary() -> String {
    let mut text = "package words\ndomain d = 7 { level { public < secret } }\n\
                    scope d { client[5000]  server[256] }\noperation call {"
        .to_owned();
    for number in 0..64 {
        let _ = write!(text, " c{number}");
    }
    text.push_str(" }\n");
    text
}

fn policy(file: usize, count: usize) -> String {
    let mut text =
        format!("package load\nuse words\npolicy p{file} {{\n    on ingress to d.server[{file}]\n");
    for number in 0..count {
        let (client, operation, port) = (number * 7 % 5000, number % 64, 1024 + number);
        let _ = writeln!(
            text,
            "    permit r{number} {{ from d.client[{client}]  operation call.c{operation}  \
             where level >= public  proto tcp port {port} }}"
        );
    }
    text.push_str("}\n");
    text
}
