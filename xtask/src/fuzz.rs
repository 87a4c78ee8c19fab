//! Coverage-guided fuzzing with libFuzzer, on the stable compiler: the flags that put counters into
//! the code are stable, only the sanitizers are not.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use thiserror::Error;

/// Targets with the directories that their first inputs come from.
const TARGETS: [(&str, &[&str]); 11] = [
    ("parse", POLICIES),
    ("check", POLICIES),
    ("format", POLICIES),
    ("image", &[]),
    ("lock", &["examples/policies"]),
    ("envelope", &[]),
    ("bundle", &[]),
    ("grant", &[]),
    ("mapping", &[]),
    ("root", &[]),
    ("sealed", &[]),
];
const POLICIES: &[&str] = &["examples/policies", "tests/ui", "grammar/tests/data"];

const COUNTERS: &str = "-Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares \
    --cfg fuzzing";

/// The names of the targets.
pub fn names() -> [&'static str; TARGETS.len()] {
    TARGETS.map(|(name, _)| name)
}

/// Why fuzzing ended early.
#[derive(Debug, Error)]
pub enum FuzzError {
    /// A program cannot be started.
    #[error("cannot start {0}: {1}")]
    Start(String, io::Error),
    /// The compiler does not say for what it compiles.
    #[error("`rustc -vV` names no host")]
    Host,
    /// The targets do not build; the compiler has said why.
    #[error("the fuzz targets do not build; libFuzzer needs a C++ compiler")]
    Build,
    /// Something was found.
    #[error("{0}: found an input that breaks it, in fuzz/artifacts/{0}/")]
    Found(String),
    /// A directory cannot be made.
    #[error("{0}: {1}")]
    Directory(PathBuf, io::Error),
}

/// Builds the targets and runs one or all of them for so many seconds each.
pub fn run(target: Option<&str>, seconds: u32) -> Result<(), FuzzError> {
    let host = host()?;
    build(&host)?;
    for (name, seeds) in TARGETS {
        if target.is_some_and(|wanted| wanted != name) {
            continue;
        }
        println!("{name}: {seconds} s");
        let corpus = directory("fuzz/corpus", name)?;
        let artifacts = directory("fuzz/artifacts", name)?;
        let program = format!("target/fuzz/{host}/release/{name}");
        let mut command = Command::new(&program);
        command
            .arg(format!("-max_total_time={seconds}"))
            .args(["-timeout=20", "-rss_limit_mb=4096", "-print_final_stats=1", "-verbosity=0"])
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .arg(&corpus);
        // What once broke something is tried first, for ever.
        let found = format!("fuzz/seeds/{name}");
        if Path::new(&found).is_dir() {
            command.arg(found);
        }
        command.args(seeds);
        let status = command.status().map_err(|error| FuzzError::Start(program, error))?;
        if !status.success() {
            return Err(FuzzError::Found(name.to_owned()));
        }
    }
    Ok(())
}

fn host() -> Result<String, FuzzError> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .map_err(|error| FuzzError::Start("rustc".to_owned(), error))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let host = text.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or(FuzzError::Host)
}

fn build(host: &str) -> Result<(), FuzzError> {
    let cargo = env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    // With a target named, build scripts and macros are built without the counters.
    let status = Command::new(&cargo)
        .args(["build", "--release", "--locked", "--manifest-path", "fuzz/Cargo.toml"])
        .args(["--target", host, "--target-dir", "target/fuzz"])
        .env("RUSTFLAGS", COUNTERS)
        .status()
        .map_err(|error| FuzzError::Start(cargo, error))?;
    if status.success() { Ok(()) } else { Err(FuzzError::Build) }
}

fn directory(parent: &str, name: &str) -> Result<PathBuf, FuzzError> {
    let path = Path::new(parent).join(name);
    fs::create_dir_all(&path).map_err(|error| FuzzError::Directory(path.clone(), error))?;
    Ok(path)
}
