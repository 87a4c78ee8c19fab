//! How long an editor waits for diagnostics after something was typed.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use govc_grammar::diagnostic::Code;
use govc_lsp::{Host, Workspace};

use crate::{error::BenchError, interrupt};

/// Rules of the workspaces.
pub const SIZES: [usize; 3] = [1_000, 10_000, 100_000];
/// How many files they are in.
pub const FILES: [usize; 2] = [10, 1];
const RUNS: usize = 5;
const EDITED: &str = "/w/p0.gov";

/// Medians of what one workspace takes.
pub struct Waits {
    /// A letter goes: a mistake.
    pub mistake: Duration,
    /// A number changes: the rules stay right.
    pub change: Duration,
    /// The layout of the edited file.
    pub layout: Duration,
}

/// Measures a workspace of so many rules in so many files.
pub fn measure(rules: usize, files: usize) -> Result<Waits, BenchError> {
    let host = Memory::new(rules, files);
    let text = host.0.get(Path::new(EDITED)).cloned().unwrap_or_default();
    let refused =
        |message: &str| BenchError::Policy { rules, message: format!("in an editor: {message}") };
    let mut times: [Vec<Duration>; 3] = Default::default();
    for _ in 0..RUNS {
        interrupt::check()?;
        let mut workspace = Workspace::new(&host, &["/w".into()], &[]);
        let mut edit = |edited: String| {
            let uri = "file:///w/p0.gov".parse().map_err(|_| refused("no URI"))?;
            let started = Instant::now();
            workspace.edit(&uri, 2, edited);
            let found = workspace.checked(Path::new(EDITED)).ok_or_else(|| refused("no answer"))?;
            Ok::<_, BenchError>((found.len(), started.elapsed()))
        };
        let (told, _) = edit(text.clone())?;
        let (told_of_mistake, mistake) = edit(text.replacen("from", "fro", 1))?;
        let (told_of_change, change) = edit(text.replacen("port 1024", "port 99", 1))?;
        if told != 0 || told_of_mistake == 0 || told_of_change != 0 {
            return Err(refused("wrong diagnostics"));
        }
        let started = Instant::now();
        govc_format::format(&text).map_err(|_| refused("no layout"))?;
        for (times, time) in times.iter_mut().zip([mistake, change, started.elapsed()]) {
            times.push(time);
        }
    }
    let [mistake, change, layout] = times.map(|mut times| {
        times.sort_unstable();
        times.get(RUNS / 2).copied().unwrap_or_default()
    });
    Ok(Waits { mistake, change, layout })
}

/// Files that are nowhere but here.
struct Memory(BTreeMap<PathBuf, String>);

impl Memory {
    fn new(rules: usize, files: usize) -> Self {
        let mut texts = BTreeMap::from([("/w/words.gov".into(), vocabulary())]);
        for file in 0..files {
            texts.insert(format!("/w/p{file}.gov").into(), policy(file, rules / files));
        }
        Self(texts)
    }
}

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
        let (client, operation, port) = (number * 7 % 5000, number % 64, 1024 + number % 60_000);
        let _ = writeln!(
            text,
            "    permit r{number} {{ from d.client[{client}]  operation call.c{operation}  \
             where level >= public  proto tcp port {port} }}"
        );
    }
    text.push_str("}\n");
    text
}
