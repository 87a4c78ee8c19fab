//! `govc`: governance that travels in the packet.

use clap::Parser as _;
use govc::{arguments::Arguments, commands, failure::Failure, output::Style};

fn main() -> std::process::ExitCode {
    let arguments = Arguments::parse();
    start_tracing(arguments.verbose);
    let style = Style::new(arguments.color);
    match commands::run(arguments, &style) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Told | Failure::Different(_) | Failure::Pipe) {
                style.error(&failure);
            }
            failure.exit_code()
        }
    }
}

/// Diagnostics of the tool itself go to standard error; `-v` says more, `GOVC_LOG` chooses.
fn start_tracing(verbose: u8) {
    use tracing_subscriber::EnvFilter;
    let level = ["warn", "info", "debug", "trace"].get(usize::from(verbose)).copied();
    let filter = EnvFilter::try_from_env("GOVC_LOG")
        .unwrap_or_else(|_| EnvFilter::new(level.unwrap_or("trace")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .without_time()
        .init();
}
