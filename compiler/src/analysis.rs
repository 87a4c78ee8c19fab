//! What a policy means, asked of its rows: rules that decide nothing, gaps, assertions, who may
//! reach whom, and what changes from one policy to another.
//!
//! Questions are answered over the rows that meet a region of packets ([`search`]); differences,
//! which images must answer too, by the diagrams of both ([`diff`]). All answers are exact, or
//! `undecided`, and the same input gives the same findings.

pub mod assertions;
#[cfg(test)]
mod brute;
pub mod conflicts;
mod contradiction;
pub mod diff;
mod escape;
pub mod explain;
mod field;
pub mod gaps;
mod index;
mod networks;
pub mod query;
mod region;
pub mod rules;
mod search;
#[cfg(test)]
mod tests;
pub mod translations;
mod universe;
mod witness;
pub mod words;

use govc_abi::image::program;
use govc_grammar::diagnostic::Diagnostic;
use govc_image::Image;

use crate::{
    checked::{Hook, Policy, Rule},
    codes,
    table::DecisionTable,
    testing::{self, CaseResult},
};

use field::{Field, Ground};
use rules::Finding;

/// Is told how many more rules are done, from several threads.
pub type Progress<'p> = &'p (dyn Fn(usize) + Sync);

/// Everything that is found without being asked for.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Assertions that do not hold, rules that decide nothing, tests that no rule decides.
    pub diagnostics: Vec<Diagnostic>,
    /// Rules that could not be judged.
    pub undecided: usize,
}

/// Analyses a policy and its image.
#[must_use]
pub fn findings(
    policy: &Policy,
    table: &DecisionTable,
    image: &Image,
    progress: Progress<'_>,
) -> Findings {
    let mut diagnostics = assertions::diagnose(policy, table, image.names());
    let report = analyse(policy, table, progress);
    diagnostics.extend(report.diagnostics(policy));
    diagnostics.extend(undecided_tests(policy, &testing::run(policy, table, image)));
    Findings { diagnostics, undecided: report.undecided() }
}

/// What the rules of a policy amount to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Rules with findings by position, ascending.
    pub rules: Vec<(usize, Finding)>,
}

/// Judges all rules of a policy that are enforced.
#[must_use]
pub fn analyse(policy: &Policy, table: &DecisionTable, progress: Progress<'_>) -> Report {
    let grounds: Vec<Ground> =
        hooks_with_rows(table).map(|hook| Ground::new(policy, table, hook, Vec::new())).collect();
    let fields: Vec<Field<'_>> =
        grounds.iter().map(|ground| Field::new(ground, policy.rules().len())).collect();
    let mut findings = rules::judge(&fields, policy, progress);
    // A rule none of whose alternatives can hold has no rows anywhere.
    let mut has_rows = vec![false; policy.rules().len()];
    for rows in table.programs.iter().skip(program::INGRESS as usize) {
        for row in rows.groups.iter().flat_map(|g| g.enforced.iter().chain(&g.observed)) {
            let position = table.rule_positions.get(row.value as usize).copied();
            if let Some(place) = position.and_then(|at| has_rows.get_mut(at as usize)) {
                *place = true;
            }
        }
    }
    let empty = has_rows.iter().enumerate().filter(|(_, has_rows)| !**has_rows);
    findings.extend(empty.map(|(rule, _)| (rule, Finding::NeverMatches)));
    findings.sort_by_key(|(rule, _)| *rule);
    Report { rules: findings }
}

fn hooks_with_rows(table: &DecisionTable) -> impl Iterator<Item = Hook> {
    let programs = table.programs.iter().skip(program::INGRESS as usize).enumerate();
    programs.filter(|(_, program)| !program.groups.is_empty()).map(|(hook, _)| hook)
}

/// `policy.rule`.
#[must_use]
pub fn rule_name(policy: &Policy, position: usize) -> String {
    let rule = policy.rules().get(position);
    rule.map_or_else(|| "default".into(), |rule| format!("{}.{}", rule.policy, rule.name))
}

/// Rules that a diagnostic points at.
const RULES_SHOWN: usize = 4;

impl Report {
    /// How many rules could not be judged.
    #[must_use]
    pub fn undecided(&self) -> usize {
        self.rules.iter().filter(|(_, finding)| *finding == Finding::Undecided).count()
    }

    /// The findings as diagnostics at their rules.
    pub fn diagnostics<'r>(&'r self, policy: &'r Policy) -> impl Iterator<Item = Diagnostic> + 'r {
        self.rules.iter().filter_map(|(position, finding)| diagnose(policy, *position, finding))
    }
}

fn diagnose(policy: &Policy, position: usize, finding: &Finding) -> Option<Diagnostic> {
    let rule = policy.rules().get(position)?;
    let name = rule_name(policy, position);
    let list = |by: &[usize]| {
        let shown = by.iter().take(RULES_SHOWN).map(|&p| format!("`{}`", rule_name(policy, p)));
        let more = by.len().saturating_sub(RULES_SHOWN);
        let more = (more > 0).then(|| format!("{more} more"));
        let parts: Vec<String> = shown.chain(more).collect();
        match parts.split_last() {
            Some((last, before)) if !before.is_empty() => {
                format!("{} and {last}", before.join(", "))
            }
            _ => parts.concat(),
        }
    };
    let with_rules = |mut diagnostic: Diagnostic, by: &[usize], text: &str| {
        for other in by.iter().take(RULES_SHOWN).filter_map(|&p| policy.rules().get(p)) {
            diagnostic = diagnostic.and(other.head, text);
        }
        diagnostic
    };
    Some(match finding {
        Finding::NeverMatches => Diagnostic::new(
            codes::NEVER_MATCHES,
            format!("no packet matches `{name}`"),
            rule.head,
            "never matches",
        )
        .help(why_never(policy, rule)),
        Finding::Shadowed(by) => with_rules(
            Diagnostic::new(
                codes::SHADOWED,
                format!("`{name}` never decides: {} decide all of its packets otherwise", list(by)),
                rule.head,
                "never decides",
            )
            .help(
                "narrow the rules that come first, put this one into an earlier tier, or remove it",
            ),
            by,
            "decides first",
        ),
        Finding::Idle(others) => with_rules(
            Diagnostic::new(
                codes::REDUNDANT,
                format!("`{name}` passes on what goes on anyway"),
                rule.head,
                "changes nothing",
            )
            .help(if others.is_empty() {
                "no other rule of its tier decides these packets: remove it".to_owned()
            } else {
                let leave = if others.len() == 1 { "leaves" } else { "leave" };
                let others = list(others);
                format!("what {others} {leave} of these packets goes on without it: remove it")
            }),
            others,
            "comes first",
        ),
        Finding::Redundant(by) => with_rules(
            Diagnostic::new(
                codes::REDUNDANT,
                format!("without `{name}` every verdict stays the same, by {}", list(by)),
                rule.head,
                "changes nothing",
            )
            .help(if is_silenced(policy, rule, by) {
                "these come first and report nothing: put it before them, or remove it"
            } else {
                "remove it, or make it say something of its own"
            }),
            by,
            "says the same",
        ),
        Finding::Undecided => return None,
    })
}

/// Whether a rule would log packets if rules that do not did not decide them before.
fn is_silenced(policy: &Policy, rule: &Rule, by: &[usize]) -> bool {
    let mut by = by.iter().filter_map(|&position| policy.rules().get(position));
    rule.log.is_some() && by.any(|other| other.log.is_none())
}

/// What to do about a rule that no packet matches.
fn why_never(policy: &Policy, rule: &Rule) -> String {
    let words = contradiction::contradiction(policy, rule);
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        None => "its clauses contradict each other, or ask for what this hook never knows: change or remove it"
            .to_owned(),
        Some((one, [])) => format!("its {one} asks for what is never there: change it, or remove the rule"),
        Some((last, others)) => format!(
            "its {} and {last} contradict each other: change one, or remove the rule",
            others.join(", ")
        ),
    }
}

/// Tests whose packet no rule decides, although they do not say `by default`: they would pass
/// as well if their packet were not what was meant.
#[must_use]
pub fn undecided_tests(policy: &Policy, results: &[CaseResult]) -> Vec<Diagnostic> {
    let undecided = results.iter().filter(|result| result.passed && result.decision.rule.is_none());
    let cases = undecided
        .filter_map(|result| policy.tests().get(result.test)?.cases.get(result.case))
        .filter(|case| case.by.is_none());
    let told = cases.map(|case| {
        Diagnostic::new(
            codes::UNDECIDED_TEST,
            "no rule decides this packet",
            case.packet_span,
            "left to the default",
        )
        .and(case.expect_span, "holds by default")
        .help("write `by default` when no rule shall match it, or `by POLICY.RULE`")
    });
    told.collect()
}
