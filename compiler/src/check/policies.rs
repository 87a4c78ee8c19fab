//! Policies: their hooks, their tier, and the list of their rules.

use std::cell::OnceCell;
use std::sync::Arc;

use govc_abi::limits;
use govc_grammar::ast;
use govc_grammar::diagnostic::Diagnostic;
use govc_grammar::span::Span;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use super::conditions::Asked;
use super::kind::Kind;
use super::labels::said_twice;
use super::rules;
use super::sink::Sink;
use super::templates::Expanded;
use crate::checked::{Hook, HookScope, Rule, Tier};
use crate::codes;
use crate::resolve::{DEFAULT_TIER, Lookup, World};
use crate::suggest;
use crate::vocabulary::define;

/// All policies before their rules are checked.
pub(crate) struct Outline<'a> {
    pub(crate) policies: Vec<PolicySource<'a>>,
    by_name: FxHashMap<SmolStr, usize>,
    /// Positions of rules in their policies, by policy and name; made for the first test.
    rules: OnceCell<FxHashMap<(usize, &'a SmolStr), usize>>,
}

/// A policy and where its rules begin among all rules.
pub(crate) struct PolicySource<'a> {
    pub(crate) policy: &'a ast::Policy,
    /// Position of its file.
    file: usize,
    first_rule: usize,
}

/// What a policy says for all of its rules.
pub(crate) struct PolicyFrame<'a> {
    pub(crate) policy: &'a ast::Policy,
    pub(crate) tier: usize,
    pub(crate) hooks: Arc<[Option<HookScope>; 3]>,
    /// `pass` leads nowhere.
    pub(crate) last_tier: bool,
}

/// Index of a hook in arrays of three.
pub(crate) fn hook_index(hook: ast::Hook) -> Hook {
    match hook {
        ast::Hook::Ingress => usize::from(govc_abi::event::hook::INGRESS),
        ast::Hook::Egress => usize::from(govc_abi::event::hook::EGRESS),
        ast::Hook::Forward => usize::from(govc_abi::event::hook::FORWARD),
    }
}

fn hook_word(hook: ast::Hook) -> &'static str {
    govc_abi::event::hook::NAMES.get(hook_index(hook)).copied().unwrap_or("")
}

impl<'a> Outline<'a> {
    /// Lists all policies; names must be unique in the whole set.
    pub(crate) fn new(world: &World<'a>, sink: &mut Sink) -> Self {
        let mut policies = Vec::new();
        let mut by_name = FxHashMap::default();
        let mut defined = FxHashMap::default();
        let mut first_rule = 0;
        for (file, (_, source)) in world.files.iter().enumerate() {
            for item in &source.items {
                let ast::Item::Policy(policy) = item else { continue };
                if define(&mut defined, &policy.name, Kind::Policy, sink) {
                    by_name.insert(policy.name.text.clone(), policies.len());
                }
                policies.push(PolicySource { policy, file, first_rule });
                first_rule += policy.rules.len();
            }
        }
        Self { policies, by_name, rules: OnceCell::new() }
    }

    /// Reports the first rule beyond `rules_max`.
    pub(crate) fn check_count(&self, rules_max: usize, sink: &mut Sink) {
        let beyond = self
            .policies
            .iter()
            .find_map(|source| source.policy.rules.get(rules_max.checked_sub(source.first_rule)?));
        if let Some(rule) = beyond {
            let message = format!("more than {rules_max} rules");
            sink.push(
                Diagnostic::new(codes::TOO_MANY_RULES, message, rule.name.span, "one too many")
                    .help("every rule has counters of its own: put several into one with lists"),
            );
        }
    }

    /// The rule that `by policy.rule` means, with its position among all rules.
    pub(crate) fn rule(
        &self,
        policy: &ast::Name,
        rule: &ast::Name,
        sink: &mut Sink,
    ) -> Option<(usize, &'a ast::Rule)> {
        let named = self.by_name.get(&policy.text);
        let Some((index, source)) = named.and_then(|&at| Some((at, self.policies.get(at)?))) else {
            let message = format!("unknown policy `{}`", policy.text);
            let names = self.policies.iter().map(|source| source.policy.name.text.as_str());
            return sink.fail(unknown(message, policy, names, ("policy", "policies")));
        };
        let rules = &source.policy.rules;
        let found = self.rule_positions().get(&(index, &rule.text)).copied();
        let Some((at, found)) = found.and_then(|at| Some((at, rules.get(at)?))) else {
            let message = format!("policy `{}` has no rule `{}`", policy.text, rule.text);
            let names = rules.iter().map(|known| known.name.text.as_str());
            return sink.fail(unknown(message, rule, names, ("rule", "rules")));
        };
        Some((source.first_rule + at, found))
    }

    fn rule_positions(&self) -> &FxHashMap<(usize, &'a SmolStr), usize> {
        self.rules.get_or_init(|| {
            let mut positions = FxHashMap::default();
            for (index, source) in self.policies.iter().enumerate() {
                for (at, rule) in source.policy.rules.iter().enumerate() {
                    positions.entry((index, &rule.name.text)).or_insert(at);
                }
            }
            positions
        })
    }

    /// Full names of rules with this name, for advice.
    pub(crate) fn rules_named(&self, rule: &str) -> Vec<String> {
        let mut full = Vec::new();
        for PolicySource { policy, .. } in &self.policies {
            if policy.rules.iter().any(|known| known.name.text == rule) {
                full.push(format!("{}.{rule}", policy.name.text));
            }
        }
        full
    }
}

fn unknown<'n>(
    message: String,
    name: &ast::Name,
    names: impl Iterator<Item = &'n str> + Clone,
    nouns: (&str, &str),
) -> Diagnostic {
    let diagnostic = Diagnostic::new(codes::UNKNOWN_RULE, message, name.span, "not found");
    match suggest::near(&name.text, names.clone()) {
        Some(near) => {
            near.offer(diagnostic.help(format!("did you mean `{}`?", near.name)), name.span)
        }
        None => diagnostic.help(
            suggest::there_are(nouns, "", names, 8)
                .unwrap_or_else(|| format!("there are no {}", nouns.1)),
        ),
    }
}

/// Tiers in the order in which they are tried; `default` comes last unless it is declared.
pub(crate) fn tiers(world: &World<'_>) -> Vec<Tier> {
    let declared = world
        .tiers
        .iter()
        .map(|tier| Tier { name: tier.source.name.text.clone(), ordered: tier.source.ordered });
    let mut tiers: Vec<Tier> = declared.collect();
    if world.tier_position(DEFAULT_TIER).is_none() {
        tiers.push(Tier { name: SmolStr::new_static(DEFAULT_TIER), ordered: false });
    }
    tiers
}

/// All rules as written, and which hooks they speak about.
pub(crate) fn check_all(
    world: &World<'_>,
    outline: &Outline<'_>,
    expanded: &Expanded,
    sink: &mut Sink,
) -> (Vec<Rule>, [bool; 3]) {
    outline.check_count(limits::RULES_MAX, sink);
    let tier_count = tiers(world).len();
    let mut rules = Vec::with_capacity(outline.policies.iter().map(|p| p.policy.rules.len()).sum());
    let mut governed = [false; 3];
    let mut names: FxHashMap<&SmolStr, Span> = FxHashMap::default();
    let mut asked = Asked::default();
    for source in &outline.policies {
        let Some(lookup) = world.lookup(source.file) else { continue };
        let frame = frame(lookup, source.policy, tier_count, sink);
        for (governed, hook) in governed.iter_mut().zip(frame.hooks.iter()) {
            *governed |= hook.is_some();
        }
        names.clear();
        for rule in &source.policy.rules {
            if let Some(first) = names.insert(&rule.name.text, rule.name.span) {
                let message = format!(
                    "policy `{}` has two rules named `{}`",
                    source.policy.name.text, rule.name.text
                );
                let span = rule.name.span;
                sink.push(
                    Diagnostic::new(codes::DEFINED_TWICE, message, span, "defined again")
                        .and(first, "first defined here")
                        .help("give every rule its own name: verdicts and counters are told by it"),
                );
            }
            let clauses = expanded.clauses(&rule.clauses);
            rules::check(lookup, &frame, rule, clauses, &mut asked, &mut rules, sink);
        }
    }
    (rules, governed)
}

fn frame<'a>(
    lookup: Lookup<'_, '_>,
    policy: &'a ast::Policy,
    tier_count: usize,
    sink: &mut Sink,
) -> PolicyFrame<'a> {
    let name = &policy.name;
    if policy.rules.is_empty() {
        let message = format!("policy `{}` has no rules", name.text);
        sink.push(
            Diagnostic::new(codes::EMPTY_POLICY, message, name.span, "denies all that it governs")
                .help("add rules, or remove the policy"),
        );
    }
    for repeated in &policy.repeated {
        sink.push(said_twice(repeated.word, repeated.second, repeated.first));
    }
    let tier = match &policy.tier {
        Some(tier) => lookup.tier(tier, sink),
        None => Some(default_tier(lookup.world)),
    };
    let tier = tier.unwrap_or(0);
    PolicyFrame {
        policy,
        tier,
        hooks: Arc::new(hooks(lookup, policy, sink)),
        last_tier: tier + 1 == tier_count,
    }
}

/// Position of the tier of policies that name none.
fn default_tier(world: &World<'_>) -> usize {
    let declared = world.tier_position(DEFAULT_TIER);
    if let Some(tier) = declared.and_then(|at| world.tiers.get(at)) {
        tier.used.set(true);
    }
    declared.unwrap_or(world.tiers.len())
}

fn hooks(lookup: Lookup<'_, '_>, policy: &ast::Policy, sink: &mut Sink) -> [Option<HookScope>; 3] {
    let mut hooks = [None, None, None];
    let mut seen: [Option<Span>; 3] = [None; 3];
    // What could not be read may have said it.
    if policy.hooks.is_empty() && policy.whole {
        let message = format!("policy `{}` does not say where it holds", policy.name.text);
        sink.push(
            Diagnostic::new(codes::NO_HOOK, message, policy.name.span, "no `on`")
                .help("add `on ingress`, `on egress` or `on forward` as the policy's first line"),
        );
    }
    for clause in &policy.hooks {
        let index = hook_index(clause.hook);
        let word = hook_word(clause.hook);
        let Some(slot) = seen.get_mut(index) else { continue };
        if let Some(first) = *slot {
            let message = format!("`on {word}` is said twice");
            sink.push(
                Diagnostic::new(codes::SAID_TWICE, message, clause.span, "already said")
                    .and(first, "first said here")
                    .help(format!("put all objects behind one `on {word} to`")),
            );
            continue;
        }
        *slot = Some(clause.span);
        if clause.hook != ast::Hook::Ingress
            && let Some(object) = clause.to.list.first()
        {
            let message = format!("on {word} the object is not known, so this never matches");
            sink.push(
                Diagnostic::new(codes::NEVER_KNOWN, message, object.span, "never known here").help(
                    format!(
                        "the object is only known on ingress, where the workload is: write \
                         `on {word}`, or say `destination`"
                    ),
                ),
            );
        }
        let objects = if clause.to.list.is_empty() {
            None
        } else {
            lookup.scope_set(&clause.to, sink).or(Some(Vec::new()))
        };
        if let Some(hook) = hooks.get_mut(index) {
            *hook = Some(HookScope { objects });
        }
    }
    hooks
}
