//! Names that are not found: what they are instead, where they are hidden, or what was meant.

use govc_grammar::ast;
use govc_grammar::diagnostic::{Applicability, Diagnostic, Edit};
use govc_grammar::span::Span;
use rustc_hash::FxHashMap;
use smol_str::{SmolStr, format_smolstr};

use std::cell::Cell;

use super::kind::{Flat, Kind};
use super::sets::SetValue;
use super::sink::Sink;
use crate::codes;
use crate::resolve::{Lookup, World};
use crate::suggest::{self, Near};
use crate::vocabulary::DomainNames;

/// Names that help texts list at most.
const LISTED_MAX: usize = 8;
/// Candidates that are looked at for suggestions in one run: a policy with thousands of unknown
/// names gets its diagnostics in bounded time, the later ones without advice.
const CANDIDATES_MAX: usize = 1 << 20;

/// All names of all packages, by text.
pub(crate) struct Catalogue {
    known: Vec<Known>,
    by_key: FxHashMap<SmolStr, Vec<usize>>,
    candidates_left: Cell<usize>,
}

/// A name that exists.
struct Known {
    kind: Kind,
    /// How somebody may write it.
    key: SmolStr,
    /// How it is written in full.
    shown: SmolStr,
    package: usize,
}

impl Known {
    /// Whether its package does not keep it to itself.
    fn offered(&self, lookup: Lookup<'_, '_>) -> bool {
        lookup.may_name(self.package, self.kind, &self.shown)
    }
}

impl Catalogue {
    pub(crate) fn new(world: &World<'_>) -> Self {
        let mut known = Vec::new();
        for domain in &world.domains {
            add_domain(domain, &mut known);
        }
        let mut add = |kind, name: &ast::Name, package| {
            let (key, shown) = (name.text.clone(), name.text.clone());
            known.push(Known { kind, key, shown, package });
        };
        for zone in &world.zones {
            add(Kind::Zone, &zone.source.name, zone.package);
        }
        for tier in &world.tiers {
            add(Kind::Tier, &tier.source.name, tier.package);
        }
        for (set, value) in world.sets.iter().zip(&world.set_values) {
            let kind =
                if matches!(value, SetValue::Ports(_)) { Kind::Ports } else { Kind::Prefixes };
            add(kind, &set.source.name, set.package);
        }
        for template in &world.templates {
            add(Kind::Template, &template.source.name, template.package);
        }
        for ((_, file), view) in world.files.iter().zip(&world.packages.views) {
            for item in &file.items {
                if let ast::Item::Policy(policy) = item {
                    add(Kind::Policy, &policy.name, view.package);
                }
            }
        }
        let mut by_key: FxHashMap<SmolStr, Vec<usize>> = FxHashMap::default();
        for (at, name) in known.iter().enumerate() {
            by_key.entry(name.key.clone()).or_default().push(at);
        }
        Self { known, by_key, candidates_left: Cell::new(CANDIDATES_MAX) }
    }

    /// Whether this many candidates may be looked at; there is a limit for one run.
    pub(crate) fn may_look_at(&self, candidates: usize) -> bool {
        let left = self.candidates_left.get().checked_sub(candidates + 1);
        self.candidates_left.set(left.unwrap_or(0));
        left.is_some()
    }

    fn exactly(&self, text: &str) -> impl Iterator<Item = &Known> {
        let positions = self.by_key.get(text).map_or(&[][..], Vec::as_slice);
        positions.iter().filter_map(|&at| self.known.get(at))
    }

    /// Visible names of a kind.
    fn visible<'c>(
        &'c self,
        lookup: Lookup<'c, '_>,
        kind: Kind,
    ) -> impl Iterator<Item = &'c Known> {
        // Where numbers are wanted, sets of prefixes are no help; elsewhere a set may be of either.
        let fits = move |found| if kind == Kind::Ports { found == kind } else { kind.takes(found) };
        self.known.iter().filter(move |known| {
            fits(known.kind) && lookup.sees_package(known.package) && known.offered(lookup)
        })
    }

    /// Visible names of a kind in full.
    fn listed<'c>(&'c self, lookup: Lookup<'c, '_>, kind: Kind) -> impl Iterator<Item = &'c str> {
        let once = self.visible(lookup, kind).filter(|known| known.key == known.shown);
        once.map(|known| known.shown.as_str())
    }

    /// The visible scope whose path is most like `text`, in full.
    pub(crate) fn near_scope(&self, lookup: Lookup<'_, '_>, text: &str) -> Option<Near> {
        if !self.may_look_at(self.known.len()) {
            return None;
        }
        self.nearest(lookup, Kind::Scope, text)
    }

    /// The visible name of a kind that is most like `text`, in full.
    fn nearest(&self, lookup: Lookup<'_, '_>, kind: Kind, text: &str) -> Option<Near> {
        let keys: Vec<&str> = self.visible(lookup, kind).map(|known| known.key.as_str()).collect();
        if let Some(near) = suggest::near(text, keys) {
            let known = self.visible(lookup, kind).find(|k| k.key == near.name)?;
            return Some(Near { name: known.shown.clone(), ..near });
        }
        // A segment too few or too many: the last one tells, when it is the only such.
        let last = |text: &str| text.rsplit('.').next().map(SmolStr::from);
        let mut same_end = self.visible(lookup, kind).filter(|known| {
            known.key == known.shown && known.key.contains('.') && last(&known.key) == last(text)
        });
        let known = same_end.next().filter(|_| same_end.next().is_none())?;
        Some(Near { name: known.shown.clone(), sure: false })
    }
}

fn add_domain(domain: &DomainNames, known: &mut Vec<Known>) {
    let (package, checked) = (domain.package, &domain.checked);
    let mut add = |kind, key: SmolStr, shown: SmolStr| {
        known.push(Known { kind, key, shown, package });
    };
    add(Kind::Domain, checked.name.clone(), checked.name.clone());
    for kind in Flat::ALL {
        for name in domain.flat_names(kind) {
            add(kind.kind(), name.clone(), name.clone());
        }
    }
    for (name, _) in &checked.operations {
        add(Kind::Operation, name.clone(), name.clone());
        add(Kind::Operation, format_smolstr!("{}.{name}", checked.name), name.clone());
    }
    for name in domain.group_names() {
        add(Kind::OperationGroup, name.clone(), name.clone());
    }
    for scope in &checked.scopes {
        let full = format_smolstr!("{}.{}", checked.name, scope.path);
        add(Kind::Scope, full.clone(), full.clone());
        add(Kind::Scope, scope.path.clone(), full);
    }
}

/// What a name that is not found should have been.
pub(crate) struct Sought {
    pub(crate) kind: Kind,
    /// The attribute that the name is compared with.
    pub(crate) compared: Option<(&'static str, Span)>,
    /// What to do where no name is like it.
    pub(crate) advice: Option<String>,
}

impl From<Kind> for Sought {
    fn from(kind: Kind) -> Self {
        Self { kind, compared: None, advice: None }
    }
}

impl Lookup<'_, '_> {
    pub(crate) fn catalogue(&self) -> &Catalogue {
        self.world.catalogue.get_or_init(|| Catalogue::new(self.world))
    }

    /// Reports a name that no visible package defines as this kind.
    pub(crate) fn unknown<T>(
        &self,
        kind: Kind,
        text: &str,
        span: Span,
        sink: &mut Sink,
    ) -> Option<T> {
        self.not_found(kind.into(), text, span, sink)
    }

    /// Likewise; `compared` is the attribute that the name is compared with.
    pub(crate) fn unknown_with<T>(
        &self,
        kind: Kind,
        text: &str,
        span: Span,
        compared: Option<(&'static str, Span)>,
        sink: &mut Sink,
    ) -> Option<T> {
        self.not_found(Sought { compared, ..kind.into() }, text, span, sink)
    }

    /// Likewise.
    pub(crate) fn not_found<T>(
        &self,
        sought: Sought,
        text: &str,
        span: Span,
        sink: &mut Sink,
    ) -> Option<T> {
        let Sought { kind, compared, advice } = sought;
        let here = self.at(span);
        if here.view.broken {
            sink.poison();
            return None;
        }
        let catalogue = self.catalogue();
        let seen = |known: &&Known| here.sees_package(known.package);
        let other = catalogue.exactly(text).filter(seen).find(|known| !kind.takes(known.kind));
        if let Some(other) = other {
            return sink.fail(here.another_kind(kind, text, span, other.kind, compared));
        }
        let mut hidden = catalogue
            .exactly(text)
            .filter(|known| kind.takes(known.kind) && !seen(known) && known.offered(here));
        if let Some(first) = hidden.next() {
            let sure = hidden.all(|other| other.package == first.package);
            let mut told = here.not_used(first.kind, text, span, first.package);
            told.fixes.retain(|_| sure);
            return sink.fail(told);
        }
        let message = format!("unknown {} `{text}`", kind.noun());
        let diagnostic = Diagnostic::new(kind.unknown(), message, span, "not found");
        sink.fail(here.advise((kind, advice), text, span, diagnostic))
    }

    /// A name of a package that the file does not use.
    pub(crate) fn not_used(
        &self,
        kind: Kind,
        text: &str,
        span: Span,
        package: usize,
    ) -> Diagnostic {
        let circle = self.world.packages.reaches(package, self.view.package);
        let package = self.world.packages.text(package);
        let message = format!(
            "{} `{text}` belongs to package `{package}`, which this file does not use",
            kind.noun()
        );
        let diagnostic =
            Diagnostic::new(codes::PACKAGE_NOT_USED, message, span, "not visible here");
        if circle {
            return diagnostic.help(format!(
                "`{package}` uses this package, so this one cannot use it: move the definition \
                 here, or make it a parameter where this is a template"
            ));
        }
        let diagnostic = diagnostic.help(format!("add `use {package}` at the top of this file"));
        let mut files = self.world.files.iter();
        let file = files.find(|(id, _)| *id == span.file).map(|(_, file)| file);
        match file.and_then(|file| file.package.as_ref()) {
            Some(own) => diagnostic.fix(
                format!("add `use {package}`"),
                Applicability::MachineApplicable,
                vec![Edit { span: own.span.behind(), replacement: format!("\nuse {package}") }],
            ),
            None => diagnostic,
        }
    }

    fn advise(
        &self,
        (kind, advice): (Kind, Option<String>),
        text: &str,
        span: Span,
        diagnostic: Diagnostic,
    ) -> Diagnostic {
        if !self.catalogue().may_look_at(self.catalogue().known.len()) {
            return diagnostic.help(format!("{}, or `use` its package", kind.declaration()));
        }
        if let Some(near) = self.catalogue().nearest(*self, kind, text) {
            let star = if kind == Kind::OperationGroup { ".*" } else { "" };
            return near
                .offer(diagnostic.help(format!("did you mean `{}{star}`?", near.name)), span);
        }
        diagnostic.help(advice.unwrap_or_else(|| self.what_there_is(kind)))
    }

    fn what_there_is(&self, kind: Kind) -> String {
        let (nouns, names) = ((kind.noun(), kind.plural()), self.catalogue().listed(*self, kind));
        suggest::there_are(nouns, " here", names, LISTED_MAX)
            .unwrap_or_else(|| format!("{}, or `use` its package", kind.declaration()))
    }

    fn another_kind(
        &self,
        kind: Kind,
        text: &str,
        span: Span,
        found: Kind,
        compared: Option<(&'static str, Span)>,
    ) -> Diagnostic {
        let (wanted, found) = (kind.wanted(), found.with_article());
        let all = self.catalogue().may_look_at(self.catalogue().known.len());
        let names = self.catalogue().listed(*self, kind);
        let help = match suggest::list(names.take_while(|_| all), LISTED_MAX) {
            list if list.is_empty() => kind.declaration().to_owned(),
            list => format!("write {wanted} here: {list}"),
        };
        match compared {
            Some((attribute, attribute_span)) => {
                let message = format!("`{attribute}` is compared with `{text}`, which is {found}");
                Diagnostic::new(codes::TYPE_MISMATCH, message, span, found)
                    .and(attribute_span, format!("compares with {wanted}"))
                    .help(help)
            }
            None => {
                let message = format!("`{text}` is {found}, not {wanted}");
                Diagnostic::new(codes::WRONG_KIND, message, span, found).help(help)
            }
        }
    }
}

/// A name inside a vocabulary that its own domain does not define as this kind.
pub(crate) fn unknown_among(domain: &DomainNames, kind: Flat, name: &ast::Name) -> Diagnostic {
    let (text, span) = (&name.text, name.span);
    let other = Flat::ALL.into_iter().find(|&other| domain.flat(other, text).is_some());
    if let Some(other) = other {
        let (found, wanted) = (other.kind().with_article(), kind.kind().with_article());
        let message = format!("`{text}` is {found}, not {wanted}");
        return Diagnostic::new(codes::WRONG_KIND, message, span, found)
            .help(format!("write {wanted} of domain `{}` here", domain.name()));
    }
    let names = domain.flat_names(kind);
    let names = || names.iter().map(|name| name.as_str());
    let near = suggest::near(text, names());
    let help = match &near {
        Some(near) => format!("did you mean `{}`?", near.name),
        None => {
            let nouns = (kind.kind().noun(), kind.kind().plural());
            let place = format!(" of `{}`", domain.name());
            suggest::there_are(nouns, &place, names(), LISTED_MAX)
                .unwrap_or_else(|| kind.kind().declaration().to_owned())
        }
    };
    let message = format!("unknown {} `{text}`", kind.kind().noun());
    let diagnostic = Diagnostic::new(codes::UNKNOWN_NAME, message, span, "not found").help(help);
    match near {
        Some(near) => near.offer(diagnostic, span),
        None => diagnostic,
    }
}
