//! The commands, a file each where they are more than a few lines.

mod apply;
mod changes;
mod check;
mod coverage;
mod diff;
mod explain;
mod fix;
mod fmt;
mod inspect;
mod keys;
mod lsp;
mod observe;
mod query;
mod status;

use clap::CommandFactory as _;

use crate::{
    arguments::{Arguments, Command},
    demo,
    failure::Failure,
    output::{Style, line},
};

pub use observe::{Described, describe as describe_event};

/// Runs the command that was asked for.
pub fn run(arguments: Arguments, style: &Style) -> Result<(), Failure> {
    match arguments.command {
        Command::Check(check) => check::check(&check, style),
        Command::Test(test) => check::test(&test, style),
        Command::Fmt(fmt) => fmt::run(&fmt, style),
        Command::Build(build) => check::build(&build, style),
        Command::Inspect(inspect) => inspect::run(&inspect, style),
        Command::Apply(apply) => apply::apply(&apply, style),
        Command::Rollback(instance) => apply::rollback(&instance, style),
        Command::Detach(detach) => apply::detach(&detach, style),
        Command::Status(status) => status::run(&status, style),
        Command::Observe(observe) => observe::run(&observe, style),
        Command::Keys(keys) => keys::run(keys, style),
        Command::Diff(diff) => diff::run(&diff, style),
        Command::Query(query) => query::run(&query, style),
        Command::Explain(explain) => explain::run(&explain, style),
        Command::Demo(demo) => demo::run(&demo, style),
        Command::Lsp(_) => lsp::run(),
        Command::Completions { shell } => {
            clap_complete::generate(
                shell,
                &mut Arguments::command(),
                "govc",
                &mut std::io::stdout(),
            );
            Ok(())
        }
        Command::Man => {
            clap_mangen::Man::new(Arguments::command()).render(&mut std::io::stdout())?;
            Ok(())
        }
    }
}

/// `1 rule`, `2 rules`, `2 policies`.
pub fn plural(count: usize, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        _ => format!("{count} {noun}s"),
    }
}

/// A list as text columns: numbers to the right, all else to the left.
fn columns(rows: &[Vec<String>]) -> Result<(), Failure> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| {
            let number = !cell.is_empty() && cell.chars().all(|c| c.is_ascii_digit());
            if number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
