//! `test --coverage`: which rules no test speaks about.

use govc_compiler::{
    analysis::rule_name,
    checked::Policy,
    names::place_of,
    testing::{self, CaseResult},
};

use super::plural;
use crate::{
    arguments::Test,
    failure::Failure,
    input::Input,
    output::{Style, line},
};

/// Tells what was asked for; whether the coverage is sufficient.
pub fn report(
    input: &Input,
    policy: &Policy,
    results: &[CaseResult],
    arguments: &Test,
    style: &Style,
) -> Result<bool, Failure> {
    if !arguments.coverage && arguments.coverage_min.is_none() {
        return Ok(true);
    }
    let covered = testing::covered(policy, results);
    let all = covered.len();
    let count = covered.iter().filter(|covered| **covered).count();
    let wanted = usize::from(arguments.coverage_min.unwrap_or(0));
    // Compared without rounding.
    let enough = count * 100 >= wanted * all;
    if !input.format().is_chatty() {
        return Ok(enough);
    }
    let missing = covered.iter().enumerate().filter(|(_, covered)| !**covered);
    for (position, _) in missing.filter(|_| arguments.coverage) {
        let span = policy.rules().get(position).map(|rule| rule.head);
        let place = span.and_then(|span| place_of(&input.sources, span));
        let place = place.map(|(file, row, _)| format!("{file}:{row}")).unwrap_or_default();
        line(&format!(
            "{} {}  {}",
            style.bad("untested"),
            rule_name(policy, position),
            style.dim(place)
        ))?;
    }
    // No rules: nothing is left untested.
    let percent = (count * 100).checked_div(all).unwrap_or(100);
    line(&format!("{count} of {} covered, {percent} %", plural(all, "rule")))?;
    if !enough {
        line(&style.bad(format!("at least {wanted} % are asked for")))?;
    }
    Ok(enough)
}
