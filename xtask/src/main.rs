//! Developer commands of govc: `cargo xtask --help`.

mod ebpf;

use clap::{Parser, Subcommand};

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
}

fn main() -> std::process::ExitCode {
    let result = match Arguments::parse().command {
        Command::Ebpf { check: false } => ebpf::build(),
        Command::Ebpf { check: true } => ebpf::check(),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
