//! How long `govc check` takes to say which rules decide nothing.

use std::time::{Duration, Instant};

use govc_compiler::{analysis, check, lock::Locks, lower};
use govc_grammar::span::FileId;

use crate::{entangled, error::BenchError, interrupt};

/// Rules of the policies.
pub const SIZES: [usize; 3] = [1_000, 10_000, 100_000];

/// What one policy came to.
pub struct Judged {
    /// For all rules.
    pub time: Duration,
    /// Rules that overlap with too many others.
    pub undecided: usize,
}

/// Analyses an entangled policy of so many rules.
pub fn measure(rules: usize) -> Result<Judged, BenchError> {
    interrupt::check()?;
    let refused = |message: String| BenchError::Policy { rules, message };
    let (file, _) = govc_grammar::parse(FileId(0), &entangled::generate(rules));
    let checked = check::check(&[(FileId(0), file)], &Locks::default());
    let policy = checked.policy.ok_or_else(|| refused("to be analysed, with mistakes".into()))?;
    let table = lower::lower(&policy).map_err(|error| refused(error.to_string()))?;
    let started = Instant::now();
    let report = analysis::analyse(&policy, &table, &|_| {});
    Ok(Judged { time: started.elapsed(), undecided: report.undecided() })
}
