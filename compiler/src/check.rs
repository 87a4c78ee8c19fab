//! Checking: from syntax trees and locks to a policy whose every name is a number.
//!
//! The order is that of knowledge: packages and what each file sees of them (`resolve`),
//! vocabularies with their numbers (`vocabulary`), sets, the rules of the edges, policies, tests.
//! Every step reports all it finds and goes on with what is left; a name that was reported once
//! says nothing further. No step reads a file or a clock.

mod assertions;
pub(crate) mod blocks;
mod carriages;
mod conditions;
pub(crate) mod cycles;
pub(crate) mod kind;
mod labels;
mod marks;
pub(crate) mod names;
mod owned;
pub(crate) mod packets;
mod policies;
pub(crate) mod private;
mod proto;
mod ranges;
mod rules;
pub(crate) mod scope_tree;
mod scopes;
pub(crate) mod sets;
mod shapes;
pub(crate) mod sink;
mod templates;
mod times;
mod translations;
mod unused;
mod well_known;
mod written;

#[cfg(test)]
mod tests;

use std::cell::{OnceCell, RefCell};

use govc_grammar::ast;
use govc_grammar::diagnostic::{Diagnostic, Severity};
use govc_grammar::span::{FileId, Span};

use crate::checked::{Policy, Zone};
use crate::codes;
use crate::index::{self, Index};
use crate::lock::Locks;
use crate::resolve::{Packages, World};
use crate::vocabulary;
use policies::Outline;
use sink::Sink;

/// What checking found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The policy; `None` when there is any error, or when a file has a part that could not be
    /// parsed.
    pub policy: Option<Policy>,
    /// The locks with the numbers of all new names. Without a policy they are as they were: a
    /// misspelt name never gets a number.
    pub locks: Locks,
    /// Packages whose lock differs from the one that was handed in, by name.
    pub locks_changed: Vec<smol_str::SmolStr>,
    /// Errors, warnings and advice by file and place, at most one for each place.
    pub diagnostics: Vec<Diagnostic>,
}

/// Checks files that were parsed with these diagnostics, and tells everything together: what is a
/// consequence of a syntax error is left out, and nothing with an error in it is a policy.
#[must_use]
pub fn check_parsed(
    files: &[(FileId, ast::File)],
    syntax: Vec<Diagnostic>,
    locks: &Locks,
) -> Checked {
    with_syntax(check(files, locks), syntax)
}

/// Likewise, with what every name means, right or wrong as the files are: for editors.
#[must_use]
pub fn check_parsed_indexed(
    files: &[(FileId, ast::File)],
    syntax: Vec<Diagnostic>,
    locks: &Locks,
) -> (Checked, Index) {
    let (checked, index) = check_all(files, locks, true);
    (with_syntax(checked, syntax), index)
}

fn with_syntax(mut checked: Checked, mut syntax: Vec<Diagnostic>) -> Checked {
    // What could not be parsed may be the use of a name, or the item that another one hides; and
    // what is ill-formed in itself has a value of no meaning in the tree.
    let parsed = syntax.iter().all(|told| told.severity() != Severity::Error);
    let ill_formed = |place: Span| {
        let places = syntax.iter().filter_map(Diagnostic::span);
        places.into_iter().any(|syntax| syntax.overlaps(place))
    };
    checked.diagnostics.retain(|diagnostic| {
        let grave = parsed || diagnostic.severity() == Severity::Error;
        grave && !diagnostic.span().is_some_and(ill_formed)
    });
    syntax.append(&mut checked.diagnostics);
    let sound = syntax.iter().all(|one| one.severity() != Severity::Error);
    Checked { policy: checked.policy.filter(|_| sound), diagnostics: syntax, ..checked }
}

/// What there is to say where lock files must not change: those of `changed`
/// ([`Checked::locks_changed`]) would have to.
#[must_use]
pub fn stale_locks(
    files: &[(FileId, ast::File)],
    changed: &[smol_str::SmolStr],
) -> Vec<Diagnostic> {
    let mut told = Vec::new();
    for (_, file) in files {
        let package = file.package.as_ref().map(ast::Path::text).unwrap_or_default();
        let domain = file.items.iter().find_map(|item| match item {
            ast::Item::Domain(domain) => Some(domain),
            _ => None,
        });
        if let Some(domain) = domain.filter(|_| changed.contains(&package)) {
            let message = format!("the lock file of package `{package}` would have to change");
            let label = "has names whose numbers are not in it";
            told.push(
                Diagnostic::new(codes::STALE_LOCK, message, domain.name.span, label).help(
                    "run `govc check` without `--locked`, review the lock file and commit it",
                ),
            );
        }
    }
    told
}

/// Checks all files together. Never fails: whatever is wrong is a diagnostic.
#[must_use]
pub fn check(files: &[(FileId, ast::File)], locks: &Locks) -> Checked {
    check_all(files, locks, false).0
}

fn check_all(files: &[(FileId, ast::File)], locks: &Locks, indexed: bool) -> (Checked, Index) {
    let mut sink = Sink::default();
    let packages = Packages::new(files, &mut sink);
    let mut updated = locks.clone();
    let domains = vocabulary::domains(files, &packages, &mut updated, &mut sink);
    let mut world = World::new(files, packages, domains, &mut sink);
    let marked = marks::any(files);
    world.noted = (indexed || marked).then(RefCell::default);
    sets::evaluate_all(&mut world, &mut sink);
    // Made before the sets had values, it may call a set by the wrong kind.
    world.catalogue = OnceCell::new();
    let outline = Outline::new(&world, &mut sink);
    let edges = labels::check_all(&world, &mut sink);
    let translations = translations::check_all(&world, &mut sink);
    let tiers = policies::tiers(&world);
    let expanded = templates::expand_all(&world, &mut sink);
    let (rules, governed) = policies::check_all(&world, &outline, &expanded, &mut sink);
    let assertions = assertions::check_all(&world, &expanded, &mut sink);
    let times = times::all(&rules, &assertions, &mut sink);
    let tests = packets::check_all(&world, &outline, &edges, &times, &mut sink);
    unused::warn(&world, &mut sink);
    let index = world.noted.take().map(|noted| index::build(&world, noted.into_inner()));
    let index = index.unwrap_or_default();
    if marked {
        marks::check(&world, &index, &mut sink);
    }
    crate::expectations::check(files, &mut sink);
    if sink.failed() {
        let diagnostics = sink.finish();
        let locks = locks.clone();
        let checked = Checked { policy: None, locks, locks_changed: Vec::new(), diagnostics };
        return (checked, index);
    }
    let policy = Policy {
        zones: zones(&world),
        domains: world.domains.into_iter().map(|domain| domain.checked).collect(),
        cgroups: edges.cgroups,
        stamps: edges.stamps,
        delivers: edges.delivers,
        legacies: edges.legacies,
        translations,
        carriages: edges.carriages,
        tiers,
        rules,
        governed,
        tests,
        assertions,
        times,
    };
    let changed = updated.iter().filter(|(package, lock)| locks.get(package) != Some(lock));
    let locks_changed = changed.map(|(package, _)| package.into()).collect();
    let diagnostics = sink.finish();
    (Checked { policy: Some(policy), locks: updated, locks_changed, diagnostics }, index)
}

fn zones(world: &World<'_>) -> Vec<Zone> {
    let zone = |zone: &ast::Zone| Zone {
        name: zone.name.text.clone(),
        interfaces: zone.interfaces.iter().map(|interface| interface.text.clone()).collect(),
        encrypted: zone.encrypted,
    };
    world.zones.iter().map(|defined| zone(defined.source)).collect()
}
