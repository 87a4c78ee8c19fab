//! Developer commands of govc: `cargo xtask --help`.

mod ebpf;
mod fuzz;

use clap::{Parser, Subcommand, builder::PossibleValuesParser};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of govc")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the eBPF object from source into runtime-ebpf/prebuilt/
    Ebpf {
        /// Compare with the committed object instead: equal bytes where the recorded compilers
        /// are installed; otherwise leave the fresh build at target/govc.bpf.o for the tests
        #[arg(long)]
        check: bool,
    },
    /// Feed the readers of outside bytes with inputs that reach ever more of their code
    Fuzz {
        /// Only this target
        #[arg(value_parser = PossibleValuesParser::new(fuzz::names()))]
        target: Option<String>,
        /// How long to run each target
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Ebpf(#[from] ebpf::EbpfError),
    #[error(transparent)]
    Fuzz(#[from] fuzz::FuzzError),
}

fn main() -> std::process::ExitCode {
    let result = match Arguments::parse().command {
        Command::Ebpf { check: false } => ebpf::build().map_err(Error::from),
        Command::Ebpf { check: true } => ebpf::check().map_err(Error::from),
        Command::Fuzz { target, seconds } => {
            fuzz::run(target.as_deref(), seconds).map_err(Error::from)
        }
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
