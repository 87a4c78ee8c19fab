//! Definitions that nothing names.

use govc_grammar::ast;
use govc_grammar::diagnostic::Diagnostic;

use super::kind::Kind;
use super::sink::Sink;
use crate::codes;
use crate::resolve::{Defined, World};

/// Warns about unused sets, zones, tiers and templates of files that have a policy. Vocabularies are made
/// for others to use, so their names are never unused.
pub(crate) fn warn(world: &World<'_>, sink: &mut Sink) {
    let has_policy: Vec<bool> = world
        .files
        .iter()
        .map(|(_, file)| file.items.iter().any(|item| matches!(item, ast::Item::Policy(_))))
        .collect();
    let private = |file: usize| has_policy.get(file).copied().unwrap_or(false);
    warn_each(&world.sets, Kind::Prefixes, |set| &set.name, private, sink);
    // An encrypted zone is named by every `is encrypted`.
    let zones = world.zones.iter().filter(|zone| !zone.source.encrypted);
    warn_each(zones, Kind::Zone, |zone| &zone.name, private, sink);
    warn_each(&world.tiers, Kind::Tier, |tier| &tier.name, private, sink);
    warn_each(&world.templates, Kind::Template, |one| &one.name, private, sink);
}

fn warn_each<'w, 'a: 'w, T: 'a>(
    defined: impl IntoIterator<Item = &'w Defined<'a, T>>,
    kind: Kind,
    name: impl Fn(&'a T) -> &'a ast::Name,
    private: impl Fn(usize) -> bool,
    sink: &mut Sink,
) {
    for one in defined.into_iter().filter(|one| !one.used.get() && private(one.file)) {
        let name = name(one.source);
        let message = format!("{} `{}` is never used", kind.noun(), name.text);
        sink.push(
            Diagnostic::new(codes::UNUSED, message, name.span, "never used")
                .help("use it, or remove it"),
        );
    }
}
