//! Measures each stage on policies of many rules: `cargo run --release -p govc-compiler --example
//! speed [analysis|changes] [SHAPES..] [RULES..]`; with `analysis`, what comes after the table, with
//! `changes`, what comes after the image.

#[path = "../../bench/src/entangled.rs"]
mod entangled;

use std::{
    fmt::Write,
    time::{Duration, Instant},
};

use govc_compiler::{
    analysis, check, checked::Policy, encode, forest::Budgets, lock::Locks, lower, names,
    sources::Source, table::DecisionTable,
};
use govc_grammar::span::FileId;

const RUNS: usize = 3;

fn main() {
    let named = |word: &str| std::env::args().any(|argument| argument == word);
    let counts: Vec<usize> =
        std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let counts = if counts.is_empty() { vec![10, 1_000, 10_000, 100_000] } else { counts };
    let any_named = SHAPES.iter().any(|(shape, _)| named(shape));
    for (shape, generate) in SHAPES.into_iter().filter(|(shape, _)| !any_named || named(shape)) {
        for &count in &counts {
            if named("analysis") {
                analyse(shape, count, &generate(count));
                continue;
            }
            if named("changes") {
                compare(shape, count, &generate(count));
                continue;
            }
            let best = (0..RUNS).map(|_| measure(&generate(count))).min_by_key(|run| run.total);
            if let Some(run) = best {
                println!("{shape}, {count} rules: {run:?}");
            }
        }
    }
}

/// What one run took.
#[derive(Debug)]
#[expect(dead_code, reason = "printed as a whole")]
struct Run {
    total: Duration,
    parse: Duration,
    check: Duration,
    lower: Duration,
    encode: Duration,
    image_kib: usize,
}

/// Time of the analysis.
fn analyse(shape: &str, count: usize, text: &str) {
    let Some((policy, table)) = lowered(text) else { unreachable!("the policy is right") };
    let started = Instant::now();
    let report = analysis::analyse(&policy, &table, &|_| {});
    println!(
        "{shape}, {count} rules: judged in {:.1?}, {} found, {} undecided",
        started.elapsed(),
        report.rules.len() - report.undecided(),
        report.undecided(),
    );
}

/// Time that it takes to compare the policy with one that lacks its last rule.
fn compare(shape: &str, count: usize, text: &str) {
    let image = |text: &str| {
        let (policy, table) = lowered(text)?;
        let sources = [Source { name: "speed.gov".into(), text: text.into() }];
        let names = || names::names(&policy, &table, &sources, "speed");
        Some(encode::encode_stages(&table, names, Budgets::default()).ok()?.image)
    };
    let shorter = text.rsplit_once("\n    ").map(|(before, _)| format!("{before}\n}}\n"));
    let (Some(shorter), Some(whole)) = (shorter.and_then(|text| image(&text)), image(text)) else {
        println!("{shape}, {count} rules: no image");
        return;
    };
    let started = Instant::now();
    let diff = analysis::diff::diff(&shorter, &whole);
    let (changes, whole) = diff.map_or((0, false), |d| (d.changes.len(), !d.incomplete));
    println!(
        "{shape}, {count} rules: compared in {:.1?}, {changes} changes, whole: {whole}",
        started.elapsed()
    );
}

fn lowered(text: &str) -> Option<(Policy, DecisionTable)> {
    let (file, _) = govc_grammar::parse(FileId(0), text);
    let policy = check::check(&[(FileId(0), file)], &Locks::default()).policy?;
    let table = lower::lower(&policy).ok()?;
    Some((policy, table))
}

type Shape = (&'static str, fn(usize) -> String);

const SHAPES: [Shape; 3] = [("pairs", pairs), ("mixed", mixed), ("entangled", entangled::generate)];

fn measure(text: &str) -> Run {
    let started = Instant::now();
    let mut last = started;
    let mut lap = || std::mem::replace(&mut last, Instant::now()).elapsed();
    let (file, diagnostics) = govc_grammar::parse(FileId(0), text);
    let parse = lap();
    let files = [(FileId(0), file)];
    let checked = check::check(&files, &Locks::default());
    let check = lap();
    let Some(policy) = checked.policy else {
        unreachable!("{diagnostics:?} {:?}", checked.diagnostics);
    };
    let Ok(table) = lower::lower(&policy) else { unreachable!("too many alternatives") };
    let lower = lap();
    let sources = [Source { name: "speed.gov".into(), text: text.into() }];
    let names = || names::names(&policy, &table, &sources, "speed");
    let stages = match encode::encode_stages(&table, names, Budgets::default()) {
        Ok(stages) => stages,
        Err(error) => unreachable!("{error}"),
    };
    let encode = lap();
    let image_kib = stages.image.bytes().len() >> 10;
    Run { total: started.elapsed(), parse, check, lower, encode, image_kib }
}

/// Each rule names one subject, one object, one operation and one port.
fn pairs(count: usize) -> String {
    let subjects = count.clamp(4, 50_000);
    let mut text = vocabulary(subjects);
    let mut lot = lots();
    for number in 0..count {
        let action = if number % 8 == 7 { "deny" } else { "permit" };
        let _ = writeln!(
            text,
            "    {action} r{number} {{ from bench.client[{}] to bench.server[{}] \
             operation call.c{} proto tcp port {} }}",
            lot(subjects),
            lot(256),
            lot(64),
            1024 + lot(2000)
        );
    }
    text.push_str("}\n");
    text
}

/// Rules that leave different attributes open, with prefixes, ranges and levels.
fn mixed(count: usize) -> String {
    let subjects = count.clamp(4, 50_000);
    let mut text = vocabulary(subjects);
    let mut lot = lots();
    for number in 0..count {
        let action = if lot(4) == 0 { "deny" } else { "permit" };
        let _ = write!(text, "    {action} r{number} {{");
        match lot(10) {
            0 => text.push_str(" from bench.client"),
            1..8 => {
                let _ = write!(text, " from bench.client[{}]", lot(subjects));
            }
            _ => {
                let _ = write!(text, " source 10.{}.{}.0/24", lot(250), lot(250));
            }
        }
        if lot(20) > 0 {
            let _ = write!(text, " to bench.server[{}]", lot(256));
        }
        match lot(4) {
            0 => {}
            1 => {
                let first = 1024 + lot(2000);
                let last = first + 50 + lot(50);
                let _ = write!(text, " proto udp port {first}..{last}");
            }
            _ => {
                let _ = write!(text, " proto tcp port {}", 1024 + lot(2000));
            }
        }
        if lot(2) > 0 {
            let _ = write!(text, " operation call.c{}", lot(64));
        }
        if lot(8) == 0 {
            text.push_str(" where level >= internal");
        }
        text.push_str(" }\n");
    }
    text.push_str("}\n");
    text
}

fn vocabulary(subjects: usize) -> String {
    let mut text = format!(
        "package bench.load\n\ndomain bench = 77 {{ level {{ public < internal < secret }} }}\n\
         scope bench {{ client[{subjects}] at internal server[256] at secret }}\noperation call {{"
    );
    for number in 0..64 {
        let _ = write!(text, " c{number}");
    }
    text.push_str(" }\n\npolicy load {\n    on ingress\n");
    text
}

/// Numbers below a limit, always the same ones.
fn lots() -> impl FnMut(usize) -> usize {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    move |limit| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit
    }
}
