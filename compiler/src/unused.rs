//! Names that nothing uses, among all files that were read.
//!
//! A vocabulary is shared: what one policy leaves unused, another one needs. So this is told only
//! to who asks, about the files that they name, and is no warning. What a file with policies
//! defines for itself, and what is private, is warned about without being asked (GOV4101).

use govc_grammar::diagnostic::Diagnostic;
use govc_grammar::span::{FileId, Span};
use rustc_hash::FxHashSet;

use crate::codes;
use crate::index::{Index, Kind};

/// Advice about names that are defined in files that `asked` answers for, and used in no file.
/// Nothing is said again about places that were told of.
#[must_use]
pub fn unused(
    index: &Index,
    told: &[Diagnostic],
    asked: impl Fn(FileId) -> bool,
) -> Vec<Diagnostic> {
    let told: FxHashSet<Span> = told.iter().filter_map(Diagnostic::span).collect();
    let mut used = vec![false; index.definitions.len()];
    for &(place, at) in &index.uses {
        let other = index.definitions.get(at).is_some_and(|definition| definition.span != place);
        if let Some(used) = used.get_mut(at) {
            *used |= other;
        }
    }
    let unused = index.definitions.iter().zip(used).filter(|(definition, used)| {
        let span = definition.span;
        let known = *used || index.implied.contains(&span) || told.contains(&span);
        !known && asked(span.file) && says_nothing_alone(definition.kind)
    });
    let mut found: Vec<Diagnostic> = unused
        .map(|(definition, _)| {
            let (noun, full) = (definition.kind.noun(), &definition.full);
            let message = format!("nothing here uses {noun} `{full}`");
            Diagnostic::new(codes::UNUSED_HERE, message, definition.span, "not used")
                .help(help(definition.kind))
        })
        .collect();
    found.sort_by_key(Diagnostic::span);
    found
}

/// Whether a name of this kind has no effect as long as nothing uses it. Scopes are workloads, and
/// levels have others above and below them.
fn says_nothing_alone(kind: Kind) -> bool {
    match kind {
        Kind::Compartment
        | Kind::Constraint
        | Kind::Residency
        | Kind::Route
        | Kind::Operation
        | Kind::Zone
        | Kind::Tier
        | Kind::Prefixes
        | Kind::Ports
        | Kind::Template => true,
        Kind::Level
        | Kind::OperationGroup
        | Kind::Domain
        | Kind::Scope
        | Kind::Policy
        | Kind::Rule
        | Kind::Package
        | Kind::Parameter => false,
    }
}

fn help(kind: Kind) -> &'static str {
    match kind {
        Kind::Zone | Kind::Tier | Kind::Prefixes | Kind::Ports | Kind::Template => {
            "name all policies that use this vocabulary, or remove it"
        }
        _ => "name all policies that use this vocabulary, or remove it: its number stays reserved",
    }
}
