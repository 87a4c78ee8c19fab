//! Scope patterns in rules and labels: from paths to subject numbers.

use govc_grammar::ast::{self, Reach};
use govc_grammar::diagnostic::{Applicability, Diagnostic};
use smol_str::SmolStr;

use super::kind::Kind;
use super::ranges::{Range, meets, without};
use super::sink::Sink;
use crate::checked::{DomainId, Scope, ScopeRange};
use crate::codes;
use crate::index::Meant;
use crate::lock::SUBJECT_LAST;
use crate::resolve::Lookup;
use crate::suggest;
use crate::vocabulary::{DomainNames, ScopeSource};

/// What a path names: a scope of a domain, or the domain itself.
#[derive(Clone, Copy)]
struct Target<'w> {
    domain: &'w DomainNames,
    /// Position in the domain's scopes.
    scope: Option<u32>,
}

/// What scopes are named for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sense {
    /// They are meant: their subjects are.
    Meant,
    /// They are taken out: with the subjects that they will have one day, since those must not be
    /// permitted by what is meant to leave them out.
    TakenOut,
}

impl Sense {
    /// Numbers of a scope that has subjects of its own.
    fn numbers(self, scope: &Scope) -> impl Iterator<Item = (u32, u32)> + '_ {
        let blocks = scope.blocks.iter().copied().filter(move |_| self == Self::TakenOut);
        let subjects = scope.subjects.filter(|_| self == Self::Meant);
        subjects.into_iter().chain(blocks)
    }
}

/// One workload.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'w> {
    pub(crate) domain: &'w DomainNames,
    /// The scope that it belongs to.
    pub(crate) scope: &'w Scope,
    pub(crate) number: u32,
}

impl<'w> Lookup<'w, '_> {
    /// Numbers that all patterns together name, ascending by domain and number, merged.
    pub(crate) fn scope_set(
        &self,
        selection: &ast::Selection<ast::Pattern>,
        sink: &mut Sink,
    ) -> Option<Vec<ScopeRange>> {
        let mut ranges = Vec::with_capacity(selection.list.len());
        let mut whole = true;
        for pattern in &selection.list {
            whole &= self.add_scopes(pattern, Sense::Meant, &mut ranges, sink).is_some();
        }
        let left = self.scopes_without(merged(ranges), &selection.except, false, sink);
        left.filter(|_| whole)
    }

    /// What exceptions leave of merged ranges; `others` are meant as well, who are in no scope, so
    /// that nothing may be left of the ranges.
    pub(crate) fn scopes_without(
        &self,
        ranges: Vec<ScopeRange>,
        except: &[ast::Pattern],
        others: bool,
        sink: &mut Sink,
    ) -> Option<Vec<ScopeRange>> {
        let (Some(first), Some(last)) = (except.first(), except.last()) else {
            return Some(ranges);
        };
        let numbers = |range: &ScopeRange| (range.domain, range.first.into(), range.last.into());
        let mut left: Vec<Range<DomainId>> = ranges.iter().map(numbers).collect();
        let from = left.clone();
        let mut whole = true;
        for pattern in except {
            let mut taken = Vec::new();
            if self.add_scopes(pattern, Sense::TakenOut, &mut taken, sink).is_none() {
                whole = false;
                continue;
            }
            let taken: Vec<_> = merged(taken).iter().map(numbers).collect();
            if !from.is_empty() && !taken.iter().any(|&range| meets(&from, range)) {
                sink.push(takes_nothing_out(pattern));
            }
            left = without(&left, &taken);
        }
        if !whole {
            return None;
        }
        if left.is_empty() && !from.is_empty() && !others {
            let span = first.span.to(last.span);
            let message = "nobody is left";
            return sink.fail(
                Diagnostic::new(codes::NOTHING_LEFT, message, span, "all of it is taken out")
                    .help("a rule about nobody matches nothing: remove it, or take less away"),
            );
        }
        let number = |number: u128| u32::try_from(number).unwrap_or(SUBJECT_LAST);
        let range =
            |(domain, first, last)| ScopeRange { domain, first: number(first), last: number(last) };
        Some(left.into_iter().map(range).collect())
    }

    /// Adds the numbers of one pattern; answers with its domain.
    pub(crate) fn add_scopes(
        &self,
        pattern: &ast::Pattern,
        sense: Sense,
        ranges: &mut Vec<ScopeRange>,
        sink: &mut Sink,
    ) -> Option<DomainId> {
        let target = self.target(&pattern.path, sink)?;
        let domain = target.domain.id;
        let mut add = |first, last| ranges.push(ScopeRange { domain, first, last });
        if let Some(index) = &pattern.index {
            let number = target.indexed(pattern, index, sink)?;
            add(number, number);
            return Some(domain);
        }
        match (pattern.reach, target.parts()) {
            (Reach::Tree, None) => add(0, SUBJECT_LAST),
            (Reach::Tree, Some((scope, _))) => {
                scope.blocks.iter().for_each(|&(first, last)| add(first, last));
            }
            (Reach::Children, _) => {
                let children = target.domain.children(target.scope);
                let mut any = false;
                for child in children {
                    let scope = target.domain.checked.scopes.get(child as usize);
                    if let Some(scope) = scope.filter(|scope| scope.subjects.is_some()) {
                        any = true;
                        sense.numbers(scope).for_each(|(first, last)| add(first, last));
                    }
                }
                if !any {
                    return sink.fail(no_child_subjects(pattern, target));
                }
            }
            (Reach::Exact, Some((scope, source))) if !source.groups => {
                // No subjects: handing out numbers failed and was reported.
                scope.subjects?;
                sense.numbers(scope).for_each(|(first, last)| add(first, last));
            }
            (Reach::Exact, _) => return sink.fail(grouping(pattern, target)),
        }
        Some(domain)
    }

    /// Exactly one subject. A batch needs an index unless `first_of_batch`.
    pub(crate) fn subject(
        &self,
        pattern: &ast::Pattern,
        first_of_batch: bool,
        sink: &mut Sink,
    ) -> Option<Subject<'w>> {
        let target = self.target(&pattern.path, sink)?;
        let domain = target.domain;
        let text = pattern.path.text();
        if pattern.reach != Reach::Exact {
            let message = "one subject is wanted here, and a star names many".to_owned();
            return sink.fail(
                Diagnostic::new(codes::NOT_ONE_SUBJECT, message, pattern.span, "many subjects")
                    .help("write the path of one workload, or `batch[3]` for one of a batch"),
            );
        }
        let (scope, source) = match target.parts() {
            Some((scope, source)) if !source.groups => (scope, source),
            _ => return sink.fail(not_a_workload(pattern, target)),
        };
        if let Some(index) = &pattern.index {
            let number = target.indexed(pattern, index, sink)?;
            return Some(Subject { domain, scope, number });
        }
        let (first, last) = scope.subjects?;
        if first != last && !first_of_batch {
            let count = last - first + 1;
            let message = format!("`{text}` names {count} subjects, and one is wanted here");
            return sink.fail(
                Diagnostic::new(codes::NOT_ONE_SUBJECT, message, pattern.span, "a whole batch")
                    .and(source.span, format!("{count} subjects"))
                    .help(format!("write `{text}[0]` to `{text}[{}]`", count - 1)),
            );
        }
        Some(Subject { domain, scope, number: first })
    }

    /// Follows a path: from a visible domain, or from a top-level scope of the only visible
    /// domain that has it.
    fn target(&self, path: &ast::Path, sink: &mut Sink) -> Option<Target<'w>> {
        let (first, rest) = path.segments.split_first()?;
        let here = self.at(first.span);
        let (domain, mut segments) = match here.domain_named(&first.text) {
            Some(id) => {
                self.note(first.span, || Meant::Domain(id));
                (self.world.domain(id)?, rest)
            }
            None => (here.domain_of_top(first, path, sink)?, path.segments.as_slice()),
        };
        let mut scope = None;
        while let Some((segment, rest)) = segments.split_first() {
            let Some(next) = domain.scope(scope, &segment.text) else {
                return here.unknown_scope(Target { domain, scope }, path, segment, sink);
            };
            self.note(segment.span, || Meant::Scope(domain.id, next));
            (scope, segments) = (Some(next), rest);
        }
        Some(Target { domain, scope })
    }

    fn domain_of_top(
        &self,
        first: &ast::Name,
        path: &ast::Path,
        sink: &mut Sink,
    ) -> Option<&'w DomainNames> {
        let mut owners = self.domains().filter(|domain| domain.scope(None, &first.text).is_some());
        match (owners.next(), owners.next()) {
            (Some(only), None) => Some(only),
            (Some(one), Some(other)) => {
                let text = path.text();
                let message = format!(
                    "`{}` is a scope of domain `{}` and of domain `{}`",
                    first.text,
                    one.name(),
                    other.name()
                );
                sink.fail(
                    Diagnostic::new(codes::AMBIGUOUS, message, first.span, "which of them?").help(
                        format!("write `{}.{text}` or `{}.{text}`", one.name(), other.name()),
                    ),
                )
            }
            (None, _) => {
                let hidden = self.world.domain_named(&first.text);
                if let Some(domain) = hidden.and_then(|id| self.world.domain(id))
                    && !self.view.broken
                {
                    return sink.fail(self.not_used(
                        Kind::Domain,
                        &first.text,
                        first.span,
                        domain.package,
                    ));
                }
                // The whole path may be known under another kind, or in another package.
                let whole = path.text();
                self.unknown(Kind::Scope, &whole, path.span, sink)
            }
        }
    }

    fn unknown_scope<T>(
        &self,
        above: Target<'_>,
        path: &ast::Path,
        segment: &ast::Name,
        sink: &mut Sink,
    ) -> Option<T> {
        if self.view.broken || self.world.packages.broken(above.domain.package) {
            sink.poison();
            return None;
        }
        let message = format!("{} has no scope `{}`", above.describe(), segment.text);
        let diagnostic = Diagnostic::new(codes::UNKNOWN_SCOPE, message, segment.span, "not found");
        if !self.catalogue().may_look_at(above.domain.checked.scopes.len()) {
            return sink.fail(diagnostic.help(Kind::Scope.declaration()));
        }
        let siblings: Vec<SmolStr> = above.child_names();
        let siblings = || siblings.iter().map(SmolStr::as_str);
        if let Some(near) = suggest::near(&segment.text, siblings()) {
            let renamed = path.segments.iter().map(|known| {
                if known.span == segment.span { near.name.as_str() } else { known.text.as_str() }
            });
            let help = format!("did you mean `{}`?", renamed.collect::<Vec<_>>().join("."));
            return sink.fail(near.offer(diagnostic.help(help), segment.span));
        }
        let elsewhere =
            siblings().next().and_then(|_| self.catalogue().near_scope(*self, &path.text()));
        sink.fail(match elsewhere {
            Some(near) => {
                near.offer(diagnostic.help(format!("did you mean `{}`?", near.name)), path.span)
            }
            None => diagnostic.help(Self::scope_advice(&above, siblings())),
        })
    }

    fn scope_advice<'n>(above: &Target<'_>, siblings: impl Iterator<Item = &'n str>) -> String {
        match suggest::list(siblings, 8) {
            list if list.is_empty() => {
                format!(
                    "{} has no scopes below it; {}",
                    above.describe(),
                    Kind::Scope.declaration()
                )
            }
            list => format!("below it are {list}"),
        }
    }
}

impl<'w> Target<'w> {
    fn parts(self) -> Option<(&'w Scope, &'w ScopeSource)> {
        let at = self.scope? as usize;
        Some((self.domain.checked.scopes.get(at)?, self.domain.scope_sources.get(at)?))
    }

    /// How messages call it.
    fn describe(self) -> String {
        match self.parts() {
            Some((scope, _)) => format!("`{}.{}`", self.domain.name(), scope.path),
            None => format!("domain `{}`", self.domain.name()),
        }
    }

    fn child_names(self) -> Vec<SmolStr> {
        let scopes = &self.domain.checked.scopes;
        let last = |path: &SmolStr| path.rsplit('.').next().map(SmolStr::from);
        let children = self.domain.children(self.scope);
        children.iter().filter_map(|&at| last(&scopes.get(at as usize)?.path)).collect()
    }

    /// Number of `batch[index]`.
    fn indexed(self, pattern: &ast::Pattern, index: &ast::Int, sink: &mut Sink) -> Option<u32> {
        let leaf = self.parts().filter(|(_, source)| !source.groups);
        let Some((scope, source)) = leaf.filter(|_| pattern.reach == Reach::Exact) else {
            return sink.fail(self.no_batch(pattern, index));
        };
        let (first, last) = scope.subjects?;
        let number = u32::try_from(index.value).ok().and_then(|index| first.checked_add(index));
        if let Some(number) = number.filter(|&number| number <= last) {
            return Some(number);
        }
        let text = pattern.path.text();
        let count = last - first + 1;
        let message = format!("`{text}[{}]` is outside the batch", index.value);
        let (help, subjects) = match count {
            1 => (format!("write `{text}`: it is one subject"), "1 subject".to_owned()),
            _ => (
                format!("indices of `{text}` go from 0 to {}", count - 1),
                format!("{count} subjects"),
            ),
        };
        sink.fail(
            Diagnostic::new(codes::BAD_INDEX, message, index.span, "outside")
                .and(source.span, subjects)
                .help(help),
        )
    }

    fn no_batch(self, pattern: &ast::Pattern, index: &ast::Int) -> Diagnostic {
        let text = pattern.path.text();
        let what = if self.scope.is_some() { "no batch" } else { "a domain" };
        let message = format!("`{text}` is {what}, and has no subject number {}", index.value);
        let diagnostic = Diagnostic::new(codes::BAD_INDEX, message, index.span, "no batch")
            .help("only scopes like `batch[64]` have indices");
        match self.parts() {
            Some((_, source)) if source.groups => {
                diagnostic.and(source.span, "groups other scopes")
            }
            _ => diagnostic,
        }
    }
}

fn grouping(pattern: &ast::Pattern, target: Target<'_>) -> Diagnostic {
    let text = pattern.path.text();
    let message = match target.parts() {
        Some(_) => format!("`{text}` only groups other scopes"),
        None => format!("`{text}` is a domain"),
    };
    let diagnostic =
        Diagnostic::new(codes::GROUPING_SCOPE, message, pattern.span, "no subjects of its own")
            .help(format!("write `{text}.**` for everything below it"))
            .replace(pattern.span.behind(), ".**", Applicability::MaybeIncorrect);
    match target.parts() {
        Some((_, source)) => diagnostic.and(source.span, "groups others"),
        None => diagnostic,
    }
}

fn not_a_workload(pattern: &ast::Pattern, target: Target<'_>) -> Diagnostic {
    let text = pattern.path.text();
    let children = target.child_names();
    let help = match children.first() {
        Some(child) => format!("write the path of one workload below it, such as `{text}.{child}`"),
        None => "write the path of one workload".to_owned(),
    };
    let message = format!("`{text}` only groups other scopes, and one subject is wanted here");
    Diagnostic::new(codes::NOT_ONE_SUBJECT, message, pattern.span, "no subject of its own")
        .help(help)
}

fn no_child_subjects(pattern: &ast::Pattern, target: Target<'_>) -> Diagnostic {
    let text = pattern.path.text();
    let leaf = target.parts().is_some_and(|(_, source)| !source.groups);
    let (message, help) = if leaf {
        (format!("nothing lies below `{text}`"), format!("write `{text}` for its own subjects"))
    } else {
        (
            format!("no scope directly below `{text}` has subjects of its own"),
            format!("write `{text}.**` for everything below it"),
        )
    };
    Diagnostic::new(codes::NO_CHILD_SUBJECTS, message, pattern.span, "names nobody").help(help)
}

pub(crate) fn takes_nothing_out(pattern: &ast::Pattern) -> Diagnostic {
    let message = format!("`{}` takes nothing out", pattern_text(pattern));
    Diagnostic::new(codes::NO_EXCEPTION, message, pattern.span, "not among what is meant")
        .help("remove it, or mend it: what it stands for is not meant anyway")
}

fn pattern_text(pattern: &ast::Pattern) -> String {
    let path = pattern.path.text();
    match (&pattern.index, pattern.reach) {
        (Some(index), _) => format!("{path}[{}]", index.value),
        (None, Reach::Exact) => path.into(),
        (None, Reach::Children) => format!("{path}.*"),
        (None, Reach::Tree) => format!("{path}.**"),
    }
}

/// Ranges in order, overlapping and adjacent ones of a domain put together.
pub(crate) fn merged(mut ranges: Vec<ScopeRange>) -> Vec<ScopeRange> {
    ranges.sort_unstable_by_key(|range| (range.domain, range.first, range.last));
    ranges.dedup_by(|next, previous| {
        let together =
            next.domain == previous.domain && next.first <= previous.last.saturating_add(1);
        if together {
            previous.last = previous.last.max(next.last);
        }
        together
    });
    ranges
}
