//! `cargo run --release -p govc-bench`: what govc costs, beside floors and peers, in one run.

mod analysis;
mod cells;
mod collector;
mod editor;
mod egress;
mod entangled;
mod error;
mod filters;
mod frames;
mod http;
mod instance;
mod interrupt;
mod loaded;
mod machine;
mod measure;
mod packets;
mod pair;
mod peers;
mod policy;
mod programs;
mod progress;
mod random;
mod report;
mod rulesets;
#[path = "../ebpf/shared.rs"]
mod shared;
mod standin;
mod subject;
mod suite;
mod tables;
mod targets;
mod tcp;
mod transit;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum as _};

use crate::{
    error::{BenchError, io},
    measure::Effort,
    report::Report,
    suite::{Choice, Part, Plan},
};

/// Measures what govc costs, beside floors and peers, in one run.
#[derive(Parser)]
#[command(name = "govc-bench")]
struct Arguments {
    /// Measure only these parts
    #[arg(value_name = "PART", conflicts_with_all = ["only", "write"])]
    parts: Vec<Part>,
    /// Fewer and shorter samples: figures to a tenth or so
    #[arg(long)]
    quick: bool,
    /// How often each case is run
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// How long each time, in milliseconds
    #[arg(long, value_name = "N")]
    sample_ms: Option<u64>,
    /// Measure only cases of packets whose name contains this, and list them
    #[arg(long, value_name = "TEXT", conflicts_with = "write")]
    only: Option<String>,
    /// Write the tables to this file too
    #[arg(long, value_name = "FILE", num_args = 0..=1,
        default_missing_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/performance.md"))]
    write: Option<PathBuf>,
}

const THOROUGH: Plan =
    Plan { effort: Effort { rounds: 21, sample_ns: 8_000_000 }, publications: 5 };
const QUICK: Plan = Plan { effort: Effort { rounds: 5, sample_ns: 3_000_000 }, publications: 2 };

fn main() -> ExitCode {
    if collector::is_govc() {
        return govc::main();
    }
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            errors.iter().for_each(|error| eprintln!("error: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Vec<BenchError>> {
    let (report, failures) = measure(arguments).map_err(|error| vec![error])?;
    print!("{}", report.text());
    if !failures.is_empty() {
        return Err(failures);
    }
    if let Some(path) = &arguments.write {
        let written = std::fs::write(path, report.markdown());
        written.map_err(|error| vec![io(format!("write {}", path.display()))(error)])?;
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<(Report, Vec<BenchError>), BenchError> {
    govc_netlab::require_root()?;
    govc_loader::kernel::check()?;
    interrupt::listen()?;
    machine::stay_on(machine::Core::Last)?;
    instance::remove_leftovers();
    let mut plan = if arguments.quick { QUICK } else { THOROUGH };
    plan.effort.rounds = arguments.rounds.unwrap_or(plan.effort.rounds).max(1);
    if let Some(ms) = arguments.sample_ms {
        // A sample has to end long before the labels that it is about.
        plan.effort.sample_ns = ms.clamp(1, 5000) * 1_000_000;
    }
    let parts = if arguments.parts.is_empty() { Part::value_variants() } else { &arguments.parts };
    let choice = arguments.only.as_deref().map_or(Choice::Parts(parts), Choice::Cases);
    suite::run(plan, choice)
}
