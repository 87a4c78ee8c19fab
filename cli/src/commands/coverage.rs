//! `test --coverage`: which rules no test speaks about.

use govc_compiler::{
    analysis::rule_name,
    checked::Policy,
    names::place_of,
    testing::{self, CaseResult},
};
use serde::Serialize;

use super::plural;
use crate::{
    arguments::{Format, Test},
    failure::Failure,
    input::Input,
    output::{Style, err, out},
    report::junit,
};

/// How much of a policy its tests put to use.
#[derive(Serialize)]
pub struct Coverage {
    rules: usize,
    covered: usize,
    /// Rounded down.
    percent: usize,
    /// What was asked for at least, in percent.
    wanted: Option<u8>,
    untested: Vec<Untested>,
    #[serde(skip)]
    listed: bool,
}

#[derive(Serialize)]
struct Untested {
    rule: String,
    place: String,
}

/// The only field of a line of JSON, so that nobody takes it for a diagnostic.
#[derive(Serialize)]
struct Line<'c> {
    coverage: &'c Coverage,
}

/// The coverage, if it is asked for.
pub fn measure(
    input: &Input,
    policy: &Policy,
    results: &[CaseResult],
    arguments: &Test,
) -> Option<Coverage> {
    let wanted = arguments.coverage_min;
    if !arguments.coverage && wanted.is_none() {
        return None;
    }
    let covered = testing::covered(policy, results);
    let (rules, count) = (covered.len(), covered.iter().filter(|covered| **covered).count());
    let missing = covered.iter().enumerate().filter(|(_, covered)| !**covered);
    let untested = missing.map(|(position, _)| {
        let span = policy.rules().get(position).map(|rule| rule.head);
        let place = span.and_then(|span| place_of(&input.sources, span));
        let place = place.map(|(file, row, _)| format!("{file}:{row}")).unwrap_or_default();
        Untested { rule: rule_name(policy, position), place }
    });
    let mut coverage = Coverage {
        rules,
        covered: count,
        // No rules: nothing is left untested.
        percent: (count * 100).checked_div(rules).unwrap_or(100),
        wanted,
        untested: untested.collect(),
        listed: true,
    };
    coverage.listed = arguments.coverage || !coverage.is_enough();
    Some(coverage)
}

impl Coverage {
    /// Whether it is what was asked for; compared without rounding.
    pub fn is_enough(&self) -> bool {
        self.covered * 100 >= usize::from(self.wanted.unwrap_or(0)) * self.rules
    }

    /// Tells it to people: on standard error where standard output belongs to a format.
    ///
    /// # Errors
    /// The output cannot be written.
    pub fn tell(&self, format: Format, style: &Style) -> Result<(), Failure> {
        if format.is_chatty() {
            return out(self.text(style).as_bytes());
        }
        err(self.text(&Style::plain_text()).as_bytes())
    }

    fn text(&self, style: &Style) -> String {
        let mut text = String::new();
        for Untested { rule, place } in self.untested.iter().filter(|_| self.listed) {
            text.push_str(&format!("{} {rule}  {}\n", style.bad("untested"), style.dim(place)));
        }
        let rules = plural(self.rules, "rule");
        text.push_str(&format!("{} of {rules} covered, {} %\n", self.covered, self.percent));
        if let Some(wanted) = self.wanted.filter(|_| !self.is_enough()) {
            let told = format!("at least {wanted} % are asked for");
            text.push_str(&format!("{}\n", style.bad(told)));
        }
        text
    }

    /// A line of JSON.
    ///
    /// # Errors
    /// It cannot be written as JSON.
    pub fn json(&self) -> Result<String, Failure> {
        Ok(serde_json::to_string(&Line { coverage: self }).map_err(std::io::Error::other)?)
    }

    /// As a test of its own, where so much is asked for.
    pub fn outcome(&self) -> Option<junit::Outcome> {
        let wanted = self.wanted?;
        let message = format!("{} % of the rules are covered, not {wanted} %", self.percent);
        let shown = self.text(&Style::plain_text());
        Some(junit::Outcome {
            title: format!("coverage of at least {wanted} %"),
            file: "coverage".to_owned(),
            kind: "coverage",
            failures: if self.is_enough() { Vec::new() } else { vec![(message, shown)] },
        })
    }
}
