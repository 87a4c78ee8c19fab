//! Assertions: which packets they are about, and where.

use std::sync::Arc;

use govc_grammar::ast::{self, Action};
use govc_grammar::diagnostic::Diagnostic;
use govc_grammar::span::Span;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use super::conditions::Asked;
use super::policies::{PolicyFrame, hook_index};
use super::rules;
use super::sink::Sink;
use super::templates::Expanded;
use crate::checked::{Assertion, HookScope, Match};
use crate::codes;
use crate::resolve::World;

/// Checks all assertions.
pub(crate) fn check_all(world: &World<'_>, expanded: &Expanded, sink: &mut Sink) -> Vec<Assertion> {
    let mut assertions = Vec::new();
    let mut names: FxHashMap<&SmolStr, Span> = FxHashMap::default();
    for (file, (_, source)) in world.files.iter().enumerate() {
        let Some(lookup) = world.lookup(file) else { continue };
        for item in &source.items {
            let ast::Item::Assert(assertion) = item else { continue };
            let name = &assertion.name;
            if let Some(first) = names.insert(&name.text, name.span) {
                let message = format!("two assertions are named `{}`", name.text);
                sink.push(
                    Diagnostic::new(codes::DEFINED_TWICE, message, name.span, "defined again")
                        .and(first, "first defined here")
                        .help("give every assertion its own name"),
                );
            }
            let policy = frame_source(assertion);
            let frame = frame(assertion, &policy);
            let mut check = |action, clauses| -> Option<Match> {
                let clauses = expanded.clauses(clauses);
                rules::check_match(lookup, &frame, action, clauses, &mut Asked::default(), sink)
            };
            let action = if assertion.always { Action::Permit } else { Action::Deny };
            let matches = check(action, &assertion.clauses);
            let unless: Vec<Option<Match>> =
                assertion.unless.iter().map(|clauses| check(Action::Deny, clauses)).collect();
            let (Some(matches), Some(unless)) = (matches, unless.into_iter().collect()) else {
                continue;
            };
            let hooks = (0..3).filter(|&hook| frame.hooks.get(hook).is_some_and(Option::is_some));
            assertions.push(Assertion {
                name: name.text.clone(),
                description: assertion.description.as_ref().map(|text| text.text.clone()),
                hooks: hooks.collect(),
                always: assertion.always,
                matches,
                unless,
                span: assertion.span,
                head: Span::new(assertion.span.file, assertion.span.start, name.span.end),
            });
        }
    }
    assertions
}

/// An assertion as a policy without rules: what it knows of packets hangs on its hooks alike.
fn frame_source(assertion: &ast::Assertion) -> ast::Policy {
    ast::Policy {
        name: assertion.name.clone(),
        observe: false,
        hooks: Vec::new(),
        tier: None,
        rules: Vec::new(),
        repeated: Vec::new(),
        whole: true,
        span: assertion.span,
    }
}

fn frame<'p>(assertion: &ast::Assertion, policy: &'p ast::Policy) -> PolicyFrame<'p> {
    let mut hooks = [None, None, None];
    let said = assertion.hooks.iter().map(|(hook, _)| *hook);
    let default = assertion.hooks.is_empty().then_some(ast::Hook::Ingress);
    for hook in said.chain(default) {
        if let Some(place) = hooks.get_mut(hook_index(hook)) {
            *place = Some(HookScope { objects: None });
        }
    }
    PolicyFrame { policy, tier: 0, hooks: Arc::new(hooks), last_tier: false }
}
