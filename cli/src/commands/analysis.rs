//! What `check` tells beyond mistakes: findings of the analysis, and gaps when asked for.

use std::{io::IsTerminal as _, time::Duration};

use govc_compiler::analysis;
use govc_grammar::diagnostic::{Diagnostic, Severity};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    arguments::Check,
    failure::Failure,
    input::{self, Compiled, Input},
    output::Style,
};

/// From so many rules on, people are told how far it is.
const RULES_MANY: usize = 2_000;

/// Analyses and reports.
///
/// # Errors
/// An assertion does not hold, which has been reported.
pub fn report(
    input: &Input,
    compiled: &Compiled,
    arguments: &Check,
    style: &Style,
) -> Result<Vec<Diagnostic>, Failure> {
    let policy = input.checked()?;
    let (table, image) = (&compiled.table, &compiled.image);
    let bar = progress(policy.rules().len());
    let found = analysis::findings(policy, table, image, &|rules| bar.inc(rules as u64));
    bar.finish_and_clear();
    let mut diagnostics = found.diagnostics;
    if found.undecided > 0 {
        tracing::warn!(
            "{} rules overlap with too many others to be judged in reasonable time",
            found.undecided
        );
    }
    if arguments.conflicts {
        diagnostics.extend(analysis::conflicts::diagnose(policy, table, image.names()));
    }
    if arguments.gaps {
        diagnostics.extend(analysis::gaps::diagnose(policy, table, image.names()));
    }
    diagnostics.sort_by_key(Diagnostic::severity);
    for diagnostic in &diagnostics {
        input::tell(diagnostic, &input.sources, arguments.sources.format, style)?;
    }
    let failed = diagnostics.iter().any(|d| d.severity() == Severity::Error);
    if failed { Err(Failure::Told) } else { Ok(diagnostics) }
}

/// A bar on a terminal that appears when it is worth it; nothing in pipes.
fn progress(rules: usize) -> ProgressBar {
    if rules < RULES_MANY || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(rules as u64);
    if let Ok(style) = ProgressStyle::with_template("analysing {bar:40} {pos}/{len} rules, {eta}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
