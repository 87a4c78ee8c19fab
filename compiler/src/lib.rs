//! The compiler of the `.gov` policy language.
//!
//! Stages, one type each: texts, tokens and trees (`govc-grammar`), checked policy ([`checked`]),
//! decision table ([`table`]), decision diagrams ([`forest`]), match tables ([`tables`]), image
//! ([`encode`]). It reads no file, clock or environment: the same input gives the same bytes.

pub mod analysis;
pub mod check;
pub mod checked;
pub mod class;
pub mod codes;
pub mod diagram;
pub mod encode;
pub mod expectations;
pub mod fixes;
pub mod forest;
pub mod index;
pub mod interpret;
pub mod lock;
pub mod lower;
pub mod meaning;
pub mod names;
pub mod packages;
pub mod pages;
pub mod sources;
pub mod table;
pub mod tables;
pub mod testing;
pub mod unused;

pub mod dump;
mod intern;
mod resolve;
#[cfg(test)]
mod sample;
#[cfg(test)]
mod stage_tests;
mod suggest;
mod vocabulary;

use govc_grammar::diagnostic::Diagnostic;
use govc_image::Image;

use crate::{
    checked::Policy,
    encode::{EncodeError, Stages},
    forest::{Budgets, ForestError},
    lower::LowerError,
    sources::Source,
    table::DecisionTable,
};

/// Compiles a checked policy.
///
/// # Errors
/// It passes a limit; the diagnostic names the rules that are too much.
pub fn compile(
    policy: &Policy,
    sources: &[Source],
    title: &str,
) -> Result<(DecisionTable, Image), Box<Diagnostic>> {
    let (table, stages) = stages(policy, sources, title)?;
    Ok((table, stages.image))
}

/// Compiles a checked policy and keeps what it became on the way.
///
/// # Errors
/// As [`compile`].
pub fn stages(
    policy: &Policy,
    sources: &[Source],
    title: &str,
) -> Result<(DecisionTable, Stages), Box<Diagnostic>> {
    let table = lower::lower(policy).map_err(|error| Box::new(explain_lower(policy, &error)))?;
    let names = || names::names(policy, &table, sources, title);
    let stages = encode::encode_stages(&table, names, Budgets::default())
        .map_err(|error| Box::new(explain_encode(policy, &table, &error)))?;
    Ok((table, stages))
}

fn explain_lower(policy: &Policy, error: &LowerError) -> Diagnostic {
    let (LowerError::TooManyAlternatives { rule } | LowerError::TooManyRows { rule }) = error;
    let diagnostic = Diagnostic::without_place(codes::TOO_MANY_ALTERNATIVES, error.to_string())
        .help("Each combination of alternatives becomes a row: split the rule, or use fewer `or`.");
    match policy.rules().get(*rule) {
        Some(rule) => diagnostic.and(rule.head, "this rule is too much"),
        None => diagnostic,
    }
}

/// Rules that a diagnostic about too big tables points at.
const RULES_SHOWN: usize = 3;

fn explain_encode(policy: &Policy, table: &DecisionTable, error: &EncodeError) -> Diagnostic {
    let mut diagnostic = Diagnostic::without_place(codes::TABLES_TOO_BIG, error.to_string())
        .help("Rules that leave different attributes open multiply: narrow some of them.");
    if let EncodeError::Forest(ForestError::TooBig { values, .. }) = error {
        for &value in values.iter().take(RULES_SHOWN) {
            let position = table.rule_positions.get(value as usize);
            if let Some(rule) = position.and_then(|&position| policy.rules().get(position as usize))
            {
                diagnostic = diagnostic.and(rule.head, "among the rules that multiply");
            }
        }
    }
    diagnostic
}
