//! The commands, a file each where they are more than a few lines.

mod apply;
mod audit;
mod bundle;
mod changes;
mod check;
mod coverage;
mod diff;
mod doctor;
mod explain;
mod fix;
mod fmt;
mod grant;
mod granted;
mod inspect;
mod keys;
mod lsp;
mod mapping;
pub mod metrics;
mod observe;
mod probe;
mod query;
mod run;
mod serve;
mod signature;
mod signer;
mod status;
mod top;
mod trial;
mod trust;
mod unsigned;

use clap::CommandFactory as _;

use crate::{
    arguments::{Arguments, Command},
    demo,
    failure::Failure,
    output::{Style, line, out},
};

pub use granted::held_by;
pub use inspect::read_image;

/// Runs the command that was asked for.
pub fn run(arguments: Arguments, style: &Style) -> Result<(), Failure> {
    match arguments.command {
        Command::Check(check) => check::check(&check, style),
        Command::Test(test) => check::test(&test, style),
        Command::Fmt(fmt) => fmt::run(&fmt, style),
        Command::Build(build) => check::build(&build, style),
        Command::Inspect(inspect) => inspect::run(&inspect, style),
        Command::Apply(apply) => apply::apply(&apply, style),
        Command::Rollback(rollback) => apply::rollback(&rollback, style),
        Command::Confirm(instance) => trial::confirm(&instance, style),
        Command::EndTrial(place) => trial::end(&place),
        Command::Detach(detach) => apply::detach(&detach, style),
        Command::Status(status) => status::run(&status, style),
        Command::Run(run) => run::run(&run),
        Command::Observe(observe) => observe::run(&observe, style),
        Command::Top(top) => top::run(&top, style),
        Command::Serve(serve) => serve::run(&serve),
        Command::Doctor(doctor) => doctor::run(&doctor, style),
        Command::Probe(probe) => probe::run(&probe, style),
        Command::Metrics(metrics) => metrics::run(&metrics),
        Command::Keys(keys) => keys::run(keys, style),
        Command::Signer(signer) => signer::run(&signer, style),
        Command::Trust(trust) => trust::run(&trust, style),
        Command::Bundle(bundle) => bundle::make(&bundle, style),
        Command::Sign(sign) => bundle::sign(&sign, style),
        Command::Verify(verify) => bundle::verify(&verify, style),
        Command::Grant(grant) => grant::run(&grant, style),
        Command::Mapping(mapping) => mapping::run(&mapping, style),
        Command::Audit(audit) => audit::run(&audit, style),
        Command::Diff(diff) => diff::run(&diff, style),
        Command::Query(query) => query::run(&query, style),
        Command::Explain(explain) => explain::run(&explain, style),
        Command::Demo(demo) => demo::run(&demo, style),
        Command::Lsp(_) => lsp::run(),
        Command::Completions { shell } => {
            // Into memory: whoever reads may have had enough before the end.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "govc", &mut script);
            out(&script)
        }
        Command::Man { path } => man(&path),
    }
}

/// The manual page of the tool, or of the command that a path of names leads to.
fn man(path: &[String]) -> Result<(), Failure> {
    let mut command = Arguments::command();
    // Names of commands below, and options that all share, are filled in.
    command.build();
    let mut shown = &command;
    for name in path {
        shown = shown.find_subcommand(name).ok_or_else(|| Failure::Usage {
            message: format!("there is no command `{}`", path.join(" ")),
            help: "`govc --help` lists them.".into(),
        })?;
    }
    let name = std::iter::once("govc").chain(path.iter().map(String::as_str));
    let name = name.collect::<Vec<_>>().join("-");
    // The header wants a text that lives for ever; there is one for each run.
    let shown = shown.clone().display_name(name.clone()).name(name.leak() as &'static str);
    let mut text = Vec::new();
    clap_mangen::Man::new(shown).render(&mut text)?;
    out(&text)
}

/// `1 rule`, `2 rules`, `2 policies`, `2 keys`.
pub fn plural(count: usize, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) if !stem.ends_with(['a', 'e', 'i', 'o', 'u']) => {
            format!("{count} {stem}ies")
        }
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
