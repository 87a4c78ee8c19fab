//! Assertions, proven for all packets or refuted by one.

use govc_abi::{attribute::Request, walk::Classes};
use govc_grammar::{diagnostic::Diagnostic, span::Span};
use govc_image::Names;

use super::{
    field::{Field, Ground, NAMED, NO_RULE, POSSIBLE, REGIONS_FIRST},
    rule_name,
    search::{Found, Question, Reasons, search},
    universe, witness, words,
};
use crate::{
    checked::{Action, Assertion, Hook, Policy},
    codes,
    lower::{LowerError, rows_of},
    table::{DecisionTable, Row},
};

/// What becomes of an assertion.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It holds for every packet that there can be.
    Proven,
    /// It does not hold for this packet.
    Refuted(Box<Counterexample>),
    /// It would take too long to find out.
    Undecided,
}

/// A packet for which an assertion does not hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Counterexample {
    /// Where.
    pub hook: Hook,
    /// The packet.
    pub request: Request,
    /// Position of the rule that decides it; `None` for the default.
    pub rule: Option<usize>,
    /// Every value has a name, so that the packet can be written down.
    pub named: bool,
}

/// Rows that one assertion may look at.
const BUDGET: u64 = 1 << 29;

/// Decides all assertions, in their order.
///
/// # Errors
/// An assertion has too many alternatives; with its position.
pub fn check(policy: &Policy, table: &DecisionTable) -> Result<Vec<Outcome>, (usize, LowerError)> {
    let mut outcomes = vec![Outcome::Proven; policy.assertions().len()];
    for hook in 0..3 {
        let mut asked = Vec::new();
        let mut regions: Vec<Vec<Row>> = Vec::new();
        for (position, assertion) in policy.assertions().iter().enumerate() {
            if !assertion.hooks.contains(&hook) {
                continue;
            }
            let rows = |matches| rows_of(policy, matches).map_err(|error| (position, error));
            let about = regions.len() + REGIONS_FIRST;
            regions.push(rows(&assertion.matches)?);
            for matches in &assertion.unless {
                regions.push(rows(matches)?);
            }
            asked.push((position, assertion, about..regions.len() + REGIONS_FIRST));
        }
        if asked.is_empty() {
            continue;
        }
        let ground = Ground::new(policy, table, hook, regions);
        let field = Field::new(&ground, policy.rules().len());
        for (position, assertion, regions) in asked {
            let outcome = decide(policy, &field, hook, assertion, regions);
            if let Some(place) = outcomes.get_mut(position)
                && (*place == Outcome::Proven || matches!(outcome, Outcome::Refuted(_)))
            {
                *place = outcome;
            }
        }
    }
    Ok(outcomes)
}

fn decide(
    policy: &Policy,
    field: &Field<'_>,
    hook: Hook,
    assertion: &Assertion,
    regions: std::ops::Range<usize>,
) -> Outcome {
    let question = if assertion.always { Question::Denied } else { Question::Permitted };
    let unless: Vec<u32> =
        regions.clone().skip(1).flat_map(|region| field.region_rows(region)).collect();
    let mut budget = BUDGET;
    let mut outcome = Outcome::Proven;
    // A packet that can be written down is worth more than one that cannot.
    for (universe, named) in [(NAMED, true), (POSSIBLE, false)] {
        for row in field.region_rows(regions.start) {
            for region in field.within(Some(row), universe) {
                let mut rows = field.meeting(&region);
                rows.extend(unless.iter().filter(|&&row| region.meets(&field.table, row)));
                let mut reasons = Reasons::default();
                match search(field, &region, &rows, question, &mut budget, &mut reasons) {
                    Found::Packet(point) => {
                        let fails = |point: &Classes| fails(field, &rows, question, point);
                        let (point, request) =
                            witness::smallest(policy, field, &region, *point, fails);
                        if !universe::is_real(policy, &request) {
                            outcome = Outcome::Undecided;
                            continue;
                        }
                        let rule = winner(field, &rows, &point);
                        let found = Counterexample { hook, request, rule, named };
                        return Outcome::Refuted(Box::new(found));
                    }
                    Found::Undecided => outcome = Outcome::Undecided,
                    Found::Nothing => {}
                }
            }
        }
    }
    outcome
}

/// The rule that decides a point among these rows.
fn winner(field: &Field<'_>, rows: &[u32], point: &Classes) -> Option<usize> {
    let matching = rows.iter().copied().filter(|&row| field.matches(row, point));
    let row = field.decide(matching, None, |_| {})?;
    Some(field.meta(row).rule).filter(|&rule| rule != NO_RULE).map(|rule| rule as usize)
}

/// Whether a point is a counterexample.
fn fails(field: &Field<'_>, rows: &[u32], question: Question, point: &Classes) -> bool {
    let matching: Vec<u32> = rows.iter().copied().filter(|&r| field.matches(r, point)).collect();
    if matching.iter().any(|&row| row >= field.deciding()) {
        return false;
    }
    let row = field.decide(matching, None, |_| {});
    let permits = row.is_some_and(|row| field.meta(row).action == Action::Permit);
    permits == (question == Question::Permitted)
}

/// What is wrong with assertions, in their order.
#[must_use]
pub fn diagnose(policy: &Policy, table: &DecisionTable, names: &Names) -> Vec<Diagnostic> {
    let outcomes = match check(policy, table) {
        Ok(outcomes) => outcomes,
        Err((position, error)) => {
            let span = policy.assertions().get(position).map(|assertion| assertion.head);
            return span.map(|span| open(span, &error.to_string())).into_iter().collect();
        }
    };
    let told =
        policy.assertions().iter().zip(&outcomes).filter_map(
            |(assertion, outcome)| match outcome {
                Outcome::Proven => None,
                Outcome::Undecided => Some(open(assertion.head, "it takes too long")),
                Outcome::Refuted(found) => Some(refuted(policy, names, assertion, found)),
            },
        );
    told.collect()
}

fn open(span: Span, why: &str) -> Diagnostic {
    let message = format!("whether this assertion holds could not be found out: {why}");
    Diagnostic::new(codes::ASSERTION_OPEN, message, span, "neither proven nor refuted")
        .help("narrow it with `from`, `to` or `operation`, or split it into several")
}

fn refuted(
    policy: &Policy,
    names: &Names,
    assertion: &Assertion,
    found: &Counterexample,
) -> Diagnostic {
    let verdict = if assertion.always { "denied" } else { "permitted" };
    let by = found.rule.map_or_else(|| "default".to_owned(), |rule| rule_name(policy, rule));
    let message =
        format!("assertion `{}` does not hold: a packet is {verdict} by `{by}`", assertion.name);
    let packet = words::packet(names, Some(policy), found.hook, &found.request);
    let help = if found.named {
        let expected = if assertion.always { "deny" } else { "permit" };
        format!("this packet shows it:\n    {packet}\n    expect {expected} by {by}")
    } else {
        format!("this packet shows it, with numbers that no name stands for yet:\n    {packet}")
    };
    let diagnostic =
        Diagnostic::new(codes::ASSERTION_FAILS, message, assertion.head, "does not hold");
    let rule = found.rule.and_then(|rule| policy.rules().get(rule));
    let diagnostic = match rule {
        Some(rule) => diagnostic.and(rule.head, "decides the packet"),
        None => diagnostic,
    };
    diagnostic.help(help)
}
