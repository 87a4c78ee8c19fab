//! Rules: clauses put together into what a packet must be.

use std::sync::Arc;

use govc_abi::limits::SAMPLING_MAX;
use govc_grammar::ast::{self, Action, ClauseKind, FromItem};
use govc_grammar::diagnostic::{Applicability, Diagnostic};
use govc_grammar::span::Span;

use super::conditions::Asked;
use super::owned::{Senders, Use};
use super::policies::PolicyFrame;
use super::proto;
use super::scopes::{Sense, merged, takes_nothing_out};
use super::sets;
use super::shapes;
use super::sink::Sink;
use super::times;
use super::written::{Said, Written, said_again};
use crate::checked::{Answer, From, Match, Protocol, Rule, ScopeRange};
use crate::codes;
use crate::lock::SUBJECT_LAST;
use crate::resolve::Lookup;
use crate::vocabulary::DomainNames;

/// The clauses of a rule by kind.
struct Clauses<'a> {
    from: Option<(&'a ast::Selection<FromItem>, Said)>,
    to: Option<(&'a ast::Selection<ast::Pattern>, Said)>,
    operation: Option<(&'a ast::Selection<ast::Pattern>, Said)>,
    source: Option<(&'a ast::Set, Said)>,
    destination: Option<(&'a ast::Set, Said)>,
    log: Option<(Option<ast::Sampling>, Said)>,
    since: Option<(&'a ast::Text, Said)>,
    until: Option<(&'a ast::Text, Said)>,
    reject: Option<Said>,
    quarantine: Option<(&'a ast::Name, Said)>,
    fragments: Option<Said>,
    options: Option<Said>,
    /// All of them: `where` and `proto` may stand several times.
    all: Written<'a>,
}

impl<'a> Clauses<'a> {
    fn new(all: Written<'a>) -> Self {
        Self {
            from: None,
            to: None,
            operation: None,
            source: None,
            destination: None,
            log: None,
            since: None,
            until: None,
            reject: None,
            quarantine: None,
            fragments: None,
            options: None,
            all,
        }
    }

    fn conditions(&self) -> impl Iterator<Item = &'a ast::Condition> + use<'a> {
        let list = self.all.list.iter().filter_map(|clause| match &clause.kind {
            ClauseKind::Where(conditions) => Some(conditions),
            _ => None,
        });
        list.flatten()
    }

    fn protos(&self) -> impl Iterator<Item = (&'a ast::Proto, Said)> + use<'a> {
        self.all.iter().filter_map(|(clause, said)| match &clause.kind {
            ClauseKind::Proto(proto) => Some((proto, said)),
            _ => None,
        })
    }
}

/// Adds the checked rule, unless errors are reported. `asked` is working memory.
pub(crate) fn check<'a>(
    lookup: Lookup<'_, '_>,
    frame: &PolicyFrame<'_>,
    rule: &ast::Rule,
    clauses: Written<'a>,
    asked: &mut Asked<'a>,
    rules: &mut Vec<Rule>,
    sink: &mut Sink,
) {
    check_action(frame, rule, sink);
    let clauses = sort_clauses(clauses, sink);
    let log = clauses.log.map(|(sampling, _)| one_in(sampling, sink));
    let answer = answer(lookup, rule, &clauses, sink);
    let Some(matches) = matches(lookup, frame, rule.action, &clauses, asked, sink) else { return };
    rules.push(Rule {
        policy: frame.policy.name.text.clone(),
        name: rule.name.text.clone(),
        description: rule.description.as_ref().map(|text| text.text.clone()),
        tier: frame.tier,
        action: rule.action,
        observe: rule.observe || frame.policy.observe,
        log,
        answer,
        hooks: Arc::clone(&frame.hooks),
        matches,
        head: head(rule),
        span: rule.span,
    });
}

/// The action and the name: what a message points at that is about the whole rule.
fn head(rule: &ast::Rule) -> Span {
    Span::new(rule.span.file, rule.span.start, rule.name.span.end)
}

/// What packets must be that an assertion is about; without `from` they are those of a rule
/// with this action.
pub(crate) fn check_match<'a>(
    lookup: Lookup<'_, '_>,
    frame: &PolicyFrame<'_>,
    action: Action,
    list: Written<'a>,
    asked: &mut Asked<'a>,
    sink: &mut Sink,
) -> Option<Match> {
    let clauses = sort_clauses(list, sink);
    let answers = [
        ("log", clauses.log.map(|(_, said)| said)),
        ("reject", clauses.reject),
        ("quarantine", clauses.quarantine.map(|(_, said)| said)),
    ];
    for (word, said) in answers {
        let Some(Said { span, .. }) = said else { continue };
        let message = format!("an assertion sees no packets, so there is nothing to {word}");
        sink.push(
            Diagnostic::new(codes::ASSERTION_LOGS, message, span, "does nothing")
                .help(format!("remove `{word}`")),
        );
    }
    matches(lookup, frame, action, &clauses, asked, sink)
}

fn check_action(frame: &PolicyFrame<'_>, rule: &ast::Rule, sink: &mut Sink) {
    if rule.action != Action::Pass {
        return;
    }
    let name = &rule.name;
    if rule.observe || frame.policy.observe {
        let message = format!("`{}` passes and only observes", name.text);
        let diagnostic =
            Diagnostic::new(codes::OBSERVED_PASS, message, name.span, "observes nothing");
        let diagnostic = if rule.observe {
            diagnostic
        } else {
            diagnostic.and(frame.policy.name.span, "all of this policy only observes")
        };
        sink.push(diagnostic.help(
            "an observed rule tells what it would permit or deny: write `observe permit` or \
             `observe deny`, or let the rule pass for good",
        ));
    } else if frame.last_tier {
        let message = format!("`{}` passes in the last tier", name.text);
        sink.push(
            Diagnostic::new(codes::PASS_IN_LAST_TIER, message, name.span, "no tier follows")
                .help("packets that pass here are denied: write `deny`, or put the policy into an earlier tier"),
        );
    }
}

fn sort_clauses<'a>(list: Written<'a>, sink: &mut Sink) -> Clauses<'a> {
    let mut clauses = Clauses::new(list);
    for (clause, said) in list.iter() {
        let repeated = match &clause.kind {
            ClauseKind::From(items) => say(&mut clauses.from, items, said, "from"),
            ClauseKind::To(patterns) => say(&mut clauses.to, patterns, said, "to"),
            ClauseKind::Operation(list) => say(&mut clauses.operation, list, said, "operation"),
            ClauseKind::Source(members) => say(&mut clauses.source, members, said, "source"),
            ClauseKind::Destination(members) => {
                say(&mut clauses.destination, members, said, "destination")
            }
            ClauseKind::Since(time) => say(&mut clauses.since, time, said, "since"),
            ClauseKind::Until(time) => say(&mut clauses.until, time, said, "until"),
            ClauseKind::Quarantine(zone) => say(&mut clauses.quarantine, zone, said, "quarantine"),
            // Written out before, but for those that could not be.
            ClauseKind::Where(_) | ClauseKind::Proto(_) | ClauseKind::Like(_) => None,
            ClauseKind::Reject => {
                let first = clauses.reject.replace(said);
                first.map(|first| repeated_word("reject", said, first))
            }
            ClauseKind::Shape(shape) => {
                let (slot, word) = match shape {
                    ast::Shape::Fragments => (&mut clauses.fragments, "fragments"),
                    ast::Shape::Options => (&mut clauses.options, "options"),
                };
                slot.replace(said).map(|first| repeated_word(word, said, first))
            }
            ClauseKind::Log(sampling) => {
                let first = clauses.log.replace((*sampling, said));
                first.map(|(_, first)| repeated_word("log", said, first))
            }
        };
        if let Some(diagnostic) = repeated {
            sink.push(diagnostic);
        }
    }
    clauses
}

fn repeated_word(word: &str, second: Said, first: Said) -> Diagnostic {
    let help = "remove one of the two".to_owned();
    let message = format!("`{word}` is said twice");
    without_second(said_again(codes::REPEATED, message, second, first, help), second)
}

/// Offers to remove what is said again; not from a template, where others rely on it.
fn without_second(told: Diagnostic, second: Said) -> Diagnostic {
    match second.like {
        None => told.replace(second.span, "", Applicability::MachineApplicable),
        Some(_) => told,
    }
}

/// `N` of `log 1 in N`.
fn one_in(sampling: Option<ast::Sampling>, sink: &mut Sink) -> u16 {
    let Some(ast::Sampling { taken, of }) = sampling else { return 1 };
    let number = u16::try_from(of.value).ok().filter(|number| *number > 0 && taken.value == 1);
    number.unwrap_or_else(|| {
        let span = taken.span.to(of.span);
        let message = format!("`{} in {}` cannot be sampled", taken.value, of.value);
        let help = format!("write `log 1 in N` with a number from 1 to {SAMPLING_MAX}");
        sink.push(Diagnostic::new(codes::BAD_SAMPLING, message, span, "not 1 in N").help(help));
        1
    })
}

/// What becomes of packets that the rule denies.
fn answer(
    lookup: Lookup<'_, '_>,
    rule: &ast::Rule,
    clauses: &Clauses<'_>,
    sink: &mut Sink,
) -> Answer {
    let quarantine = clauses.quarantine.map(|(_, said)| ("quarantine", said));
    let reject = clauses.reject.map(|said| ("reject", said));
    if let Some((word, Said { span, .. })) =
        reject.or(quarantine).filter(|_| rule.action != Action::Deny)
    {
        let message = format!("`{word}` says what becomes of packets that are denied");
        sink.push(
            Diagnostic::new(codes::ANSWER_WITHOUT_DENIAL, message, span, "nothing is denied")
                .and(head(rule), "this rule does not deny")
                .help(format!("remove `{word}`, or let the rule `deny`")),
        );
    } else if let (Some((_, first)), Some((_, second))) = (reject, quarantine) {
        let message = "a packet is either rejected or put into quarantine".to_owned();
        let help = "remove one of the two".to_owned();
        sink.push(said_again(codes::SAID_TWICE, message, second, first, help));
    }
    let zone = clauses.quarantine.and_then(|(zone, _)| lookup.zone(zone, sink));
    match (reject, zone) {
        (Some(_), _) => Answer::Reject,
        (None, Some(zone)) => Answer::Quarantine(zone),
        (None, None) => Answer::Silence,
    }
}

/// Fills the place of a clause that may stand once.
fn say<'a, T>(
    slot: &mut Option<(&'a T, Said)>,
    list: &'a T,
    said: Said,
    word: &str,
) -> Option<Diagnostic> {
    let Some((_, first)) = slot else {
        *slot = Some((list, said));
        return None;
    };
    let message = format!("`{word}` is said twice in one rule");
    let help = format!("put everything behind one `{word}`, with commas between");
    Some(said_again(codes::SAID_TWICE, message, said, *first, help))
}

fn matches<'a>(
    lookup: Lookup<'_, '_>,
    frame: &PolicyFrame<'_>,
    action: Action,
    clauses: &Clauses<'a>,
    asked: &mut Asked<'a>,
    sink: &mut Sink,
) -> Option<Match> {
    // Everything is looked at before anything gives up, so that one run tells all errors.
    let from = match clauses.from {
        Some((selection, _)) => senders(lookup, selection, sink),
        None => default_senders(action),
    };
    let to = optional(clauses.to, |patterns| lookup.scope_set(patterns, sink));
    warn_unknown_object(frame, clauses, sink);
    asked.clear();
    let mut condition_count = 0;
    for condition in clauses.conditions() {
        condition_count += 1;
        lookup.ask(condition, asked, sink);
    }
    warn_unknown_zone(frame, asked, sink);
    let operations_at = asked.uses.len();
    let mut exceptions_at = operations_at;
    if let Some((selection, _)) = clauses.operation {
        ask_operations(lookup, &selection.list, asked, sink);
        exceptions_at = asked.uses.len();
        ask_operations(lookup, &selection.except, asked, sink);
    }
    let protocols = protocols(lookup, clauses, sink);
    let [fragments, options] =
        [clauses.fragments, clauses.options].map(|shape| shape.map(|said| said.span));
    let protos = clauses.protos().map(|(proto, said)| (proto, said.span));
    let shapes = shapes::allowed(action, fragments, options, protos, sink);
    let sources = optional(clauses.source, |m| sets::prefixes(lookup, m, "source", sink));
    let destinations =
        optional(clauses.destination, |m| sets::prefixes(lookup, m, "destination", sink));
    let since = optional(clauses.since, |time| times::moment(time, sink));
    let until = optional(clauses.until, |time| times::moment(time, sink));
    let in_order = times::ordered(since.flatten(), until.flatten(), sink);
    let spoken = lookup.domain_of(&asked.uses, from.named, sink).ok()?;
    if asked.failed || from.failed || from.named.unresolved || !in_order {
        return None;
    }
    let mut conditions = Vec::with_capacity(condition_count);
    for condition in clauses.conditions() {
        conditions.push(lookup.condition(condition, spoken, sink)?);
    }
    let named = asked.uses.get(operations_at..exceptions_at).unwrap_or_default();
    let exceptions = asked.uses.get(exceptions_at..).unwrap_or_default();
    let operations = optional(clauses.operation, |selection| {
        operation_numbers(named, exceptions, selection, spoken, sink)
    });
    Some(Match {
        domain: spoken.map(|domain| domain.id).or(from.only_domain()),
        from: from.list,
        to: to?,
        operations: operations?,
        conditions,
        protocols: protocols?,
        shapes: shapes?,
        sources: sources?,
        destinations: destinations?,
        since: since?,
        until: until?,
    })
}

/// The value of a clause that may be missing; `None` after an error.
fn optional<'a, T, R>(
    clause: Option<(&'a T, Said)>,
    check: impl FnOnce(&'a T) -> Option<R>,
) -> Option<Option<R>> {
    match clause {
        Some((list, _)) => check(list).map(Some),
        None => Some(None),
    }
}

/// Who a rule is about.
struct Origin {
    list: Vec<From>,
    named: Senders,
    /// An error was reported.
    failed: bool,
}

impl Origin {
    /// The domain, when the rule is about scopes of one domain and nobody else.
    fn only_domain(&self) -> Option<crate::checked::DomainId> {
        let scopes_only = self.list.iter().all(|from| matches!(from, From::Scope(_)));
        let one = self.named.first.filter(|_| scopes_only && self.named.second.is_none());
        one.map(|(domain, _)| domain)
    }
}

/// A rule that lets through must know the sender; a rule that denies is about everyone.
fn default_senders(action: Action) -> Origin {
    let who = match action {
        Action::Permit | Action::Pass => From::Identified,
        Action::Deny => From::Anyone,
    };
    Origin { list: vec![who], named: Senders::default(), failed: false }
}

fn senders(
    lookup: Lookup<'_, '_>,
    selection: &ast::Selection<FromItem>,
    sink: &mut Sink,
) -> Origin {
    let mut ranges: Vec<ScopeRange> = Vec::with_capacity(selection.list.len());
    let mut failed = false;
    let mut others: Vec<From> = Vec::new();
    let mut named = Senders::default();
    for item in &selection.list {
        let other = match item {
            FromItem::Scope(pattern) => {
                match lookup.add_scopes(pattern, Sense::Meant, &mut ranges, sink) {
                    Some(domain) => named.add(domain, pattern.path.span),
                    None => named.unresolved = true,
                }
                continue;
            }
            // Anyone but some: everybody else who has a label, and whoever has none.
            FromItem::Anyone(_) if !selection.except.is_empty() => {
                let all = |domain: &DomainNames| ScopeRange {
                    domain: domain.id,
                    first: 0,
                    last: SUBJECT_LAST,
                };
                ranges.extend(lookup.world.domains.iter().map(all));
                From::Unlabelled
            }
            FromItem::Anyone(_) => From::Anyone,
            FromItem::Labelled(_) => From::Labelled,
            FromItem::Legacy(_) => From::Legacy,
            FromItem::Unlabelled(_) => From::Unlabelled,
        };
        if let (Some(except), Some((word, span))) = (selection.except.first(), no_scope(item)) {
            failed = true;
            let message = format!("nothing can be taken out of `{word}`");
            sink.push(
                Diagnostic::new(codes::EXCEPTION_OF_ALL, message, span, "names no scopes")
                    .and(except.span, "a scope to be taken out")
                    .help("write scopes or `anyone` before `except`, such as `acme.** except acme.guest`"),
            );
        }
        if !others.contains(&other) {
            others.push(other);
        }
    }
    let mut list = Vec::with_capacity(others.len() + 1);
    let somebody = !others.is_empty();
    match lookup.scopes_without(merged(ranges), &selection.except, somebody, sink) {
        Some(ranges) if !ranges.is_empty() => list.push(From::Scope(ranges)),
        Some(_) => {}
        None => failed = true,
    }
    list.append(&mut others);
    Origin { list, named, failed }
}

/// The word for senders that nothing can be taken out of.
fn no_scope(item: &FromItem) -> Option<(&'static str, Span)> {
    match item {
        FromItem::Scope(_) | FromItem::Anyone(_) => None,
        FromItem::Labelled(span) => Some(("labelled", *span)),
        FromItem::Legacy(span) => Some(("legacy", *span)),
        FromItem::Unlabelled(span) => Some(("unlabelled", *span)),
    }
}

fn ask_operations<'a>(
    lookup: Lookup<'_, '_>,
    patterns: &'a [ast::Pattern],
    asked: &mut Asked<'a>,
    sink: &mut Sink,
) {
    for pattern in patterns {
        if let Some(index) = &pattern.index {
            let message = "operations have no index".to_owned();
            sink.push(
                Diagnostic::new(codes::BAD_INDEX, message, index.span, "no batch")
                    .help("only scopes like `batch[64]` have indices"),
            );
            asked.failed = true;
            continue;
        }
        match lookup.operation_use(&pattern.path, pattern.reach) {
            Some(name) => asked.uses.push(name),
            None => {
                asked.failed = true;
                let (path, reach) = (&pattern.path, pattern.reach);
                let _: Option<()> = lookup.no_operation(path, reach, false, None, sink);
            }
        }
    }
}

/// Numbers of the operations that are named and not taken out.
fn operation_numbers(
    named: &[Use<'_>],
    exceptions: &[Use<'_>],
    selection: &ast::Selection<ast::Pattern>,
    domain: Option<&DomainNames>,
    sink: &mut Sink,
) -> Option<Vec<u16>> {
    let Some(domain) = domain else { return Some(Vec::new()) };
    let mut numbers = Vec::with_capacity(named.len());
    named.iter().for_each(|name| name.name.add_operations(domain, &mut numbers));
    numbers.sort_unstable();
    numbers.dedup();
    let mut taken = Vec::new();
    for (name, pattern) in exceptions.iter().zip(&selection.except) {
        let before = taken.len();
        name.name.add_operations(domain, &mut taken);
        let these = taken.get(before..).unwrap_or_default();
        if !these.iter().any(|number| numbers.binary_search(number).is_ok()) {
            sink.push(takes_nothing_out(pattern));
        }
    }
    let some = !numbers.is_empty();
    numbers.retain(|number| !taken.contains(number));
    match (selection.except.first(), selection.except.last()) {
        (Some(first), Some(last)) if some && numbers.is_empty() => {
            let message = "no operation is left";
            let span = first.span.to(last.span);
            sink.fail(
                Diagnostic::new(codes::NOTHING_LEFT, message, span, "all of it is taken out")
                    .help("the rule would match nothing: remove it, or take less away"),
            )
        }
        _ => Some(numbers),
    }
}

fn protocols(
    lookup: Lookup<'_, '_>,
    clauses: &Clauses<'_>,
    sink: &mut Sink,
) -> Option<Vec<Protocol>> {
    /// More alternatives than this are not compared with each other.
    const COMPARED_MAX: usize = 64;
    let mut protocols: Vec<Protocol> = Vec::with_capacity(clauses.protos().count());
    let mut whole = true;
    for (proto, said) in clauses.protos() {
        let Some(protocol) = proto::protocol(lookup, proto, sink) else {
            whole = false;
            continue;
        };
        let earlier = protocols.iter().take(COMPARED_MAX).position(|known| *known == protocol);
        if let Some((_, first)) = earlier.and_then(|at| clauses.protos().nth(at))
            && whole
        {
            let message = "the same `proto` is said twice".to_owned();
            let help = "remove one of the two: several `proto` are alternatives".to_owned();
            let told = said_again(codes::REPEATED, message, said, first, help);
            sink.push(without_second(told, said));
        }
        protocols.push(protocol);
    }
    whole.then_some(protocols)
}

fn warn_unknown_object(frame: &PolicyFrame<'_>, clauses: &Clauses<'_>, sink: &mut Sink) {
    let [ingress, egress, forward] = frame.hooks.as_ref();
    if let Some((_, Said { span, .. })) = clauses.to
        && ingress.is_none()
        && (egress.is_some() || forward.is_some())
    {
        let message = "the object is not known at this policy's hooks, so the rule never matches";
        sink.push(
            Diagnostic::new(codes::NEVER_KNOWN, message, span, "never known here")
                .and(frame.policy.name.span, "not `on ingress`")
                .help(
                    "the object is only known on ingress, where the workload is: say \
                     `destination` here, or move the rule to a policy `on ingress`",
                ),
        );
    }
}

fn warn_unknown_zone(frame: &PolicyFrame<'_>, asked: &Asked<'_>, sink: &mut Sink) {
    let [ingress, egress, forward] = frame.hooks.as_ref();
    if let Some(span) = asked.egress_zone
        && ingress.is_some()
        && egress.is_none()
        && forward.is_none()
    {
        let message = "on ingress the egress zone is not known, so it is never any zone";
        sink.push(
            Diagnostic::new(codes::NEVER_KNOWN, message, span, "never known here")
                .and(frame.policy.name.span, "only `on ingress`")
                .help(
                    "the egress zone is only known on egress and forward: move the rule to a \
                     policy there",
                ),
        );
    }
}
