//! `cargo run --release -p govc-bench`: what govc costs, beside floors and peers, in one run.

mod editor;
mod error;
mod frames;
mod instance;
mod interrupt;
mod machine;
mod measure;
mod nft;
mod peers;
mod policy;
mod programs;
mod progress;
mod random;
mod report;
#[path = "../ebpf/shared.rs"]
mod shared;
mod standin;
mod subject;
mod suite;
mod tables;

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;

use crate::{
    error::{BenchError, io},
    measure::Effort,
    suite::Plan,
};

/// Measures govc's ingress path, floors and peers in one run.
#[derive(Parser)]
#[command(name = "govc-bench")]
struct Arguments {
    /// Fewer and shorter samples: figures to a tenth or so
    #[arg(long)]
    quick: bool,
    /// How often each case is run
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// How long each time, in milliseconds
    #[arg(long, value_name = "N")]
    sample_ms: Option<u64>,
    /// Measure only cases whose name contains this, and list them
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
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), BenchError> {
    govc_netlab::require_root()?;
    govc_loader::kernel::check()?;
    interrupt::listen()?;
    machine::stay_on_one_core()?;
    instance::remove_leftovers();
    let mut plan = if arguments.quick { QUICK } else { THOROUGH };
    plan.effort.rounds = arguments.rounds.unwrap_or(plan.effort.rounds).max(1);
    if let Some(ms) = arguments.sample_ms {
        // A sample has to end long before the labels that it is about.
        plan.effort.sample_ns = ms.clamp(1, 5000) * 1_000_000;
    }
    let report = suite::run(plan, arguments.only.as_deref())?;
    print!("{}", report.text());
    if let Some(path) = &arguments.write {
        std::fs::write(path, report.markdown()).map_err(io(format!("write {}", path.display())))?;
    }
    Ok(())
}
