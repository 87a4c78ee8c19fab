//! `govc`: governance that travels in the packet. The command line; the library exists for the
//! program and its tests.

#[expect(missing_docs, reason = "the help texts are the documentation")]
pub mod arguments;
mod capture;
pub mod commands;
mod demo;
pub mod events;
mod excerpt;
pub mod failure;
pub mod input;
pub mod levels;
mod markdown;
pub mod output;
mod probe;
mod progress;
pub mod report;
pub mod rights;
mod ring;
pub mod secrets;
pub mod state;
pub mod times;
mod translated;

use clap::Parser as _;

/// The program: reads the command line, runs what it asks for, and tells how that went.
pub fn main() -> std::process::ExitCode {
    let arguments = arguments::Arguments::parse();
    let style = output::Style::new(arguments.color);
    start_tracing(arguments.verbose, style.is_coloured_err());
    match commands::run(arguments, &style) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(failure) => {
            use failure::Failure;
            if !matches!(
                failure,
                Failure::Told | Failure::Different(_) | Failure::Ended(_) | Failure::Pipe
            ) {
                style.error(&failure);
            }
            failure.exit_code()
        }
    }
}

/// Diagnostics of the tool itself go to standard error; `-v` says more, `GOVC_LOG` chooses.
fn start_tracing(verbose: u8, coloured: bool) {
    use tracing_subscriber::EnvFilter;
    let level = ["warn", "info", "debug", "trace"].get(usize::from(verbose)).copied();
    let filter = EnvFilter::try_from_env("GOVC_LOG")
        .unwrap_or_else(|_| EnvFilter::new(level.unwrap_or("trace")));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(coloured)
        .without_time()
        .init();
}
