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

use clap::{CommandFactory as _, FromArgMatches as _};

/// The program: reads the command line, runs what it asks for, and tells how that went.
pub fn main() -> std::process::ExitCode {
    let arguments = read_command_line();
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

/// What the command line asks for; ends the process where that is help, or makes no sense.
fn read_command_line() -> arguments::Arguments {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    let mut command = arguments::Arguments::command().color(colour_of_help(&words));
    let mut matches = command.get_matches_mut();
    arguments::Arguments::from_arg_matches_mut(&mut matches)
        .unwrap_or_else(|error| error.format(&mut command).exit())
}

/// Help is printed before the command line is understood, so that its colour is looked for apart.
fn colour_of_help(words: &[std::ffi::OsString]) -> clap::ColorChoice {
    let words = words.iter().map(|word| word.to_str().unwrap_or_default());
    let words: Vec<&str> = words.take_while(|word| *word != "--").collect();
    let mut values = words.iter().enumerate().filter_map(|(at, word)| match *word {
        "--color" => words.get(at + 1).copied(),
        word => word.strip_prefix("--color="),
    });
    match values.next_back() {
        Some("never") => clap::ColorChoice::Never,
        Some("always") => clap::ColorChoice::Always,
        _ => clap::ColorChoice::Auto,
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
