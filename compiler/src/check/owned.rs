//! Names that belong to a domain, and the one domain whose vocabulary a rule speaks.
//!
//! Numbers of levels, operations and so on mean nothing without their domain. So a rule, a
//! label and a test packet each speak about one domain, which follows from the scopes that they
//! name, or else from the names themselves.

use govc_grammar::ast::{self, Reach};
use govc_grammar::diagnostic::{Applicability, Diagnostic};
use govc_grammar::span::Span;
use smol_str::{SmolStr, format_smolstr};

use super::kind::{Flat, Kind};
use super::sink::Sink;
use crate::checked::DomainId;
use crate::codes;
use crate::index::Meant;
use crate::resolve::Lookup;
use crate::suggest::{self, Near};
use crate::vocabulary::DomainNames;

/// A name that only means something in a domain.
#[derive(Clone, Copy)]
pub(crate) enum Owned<'a> {
    Flat(Flat, &'a SmolStr),
    /// `ledger.read`
    Operation(&'a SmolStr, &'a SmolStr),
    /// `ledger.*`
    Group(&'a SmolStr),
    /// `acme.**`
    AllOperations,
}

/// A place that names something of a domain.
#[derive(Clone, Copy)]
pub(crate) struct Use<'a> {
    pub(crate) name: Owned<'a>,
    /// As it is written.
    pub(crate) segments: &'a [ast::Name],
    pub(crate) span: Span,
    /// The domain in front of the name: `acme.internal`.
    pub(crate) domain: Option<DomainId>,
    /// The attribute that the name is compared with.
    pub(crate) compared: Option<(&'static str, Span)>,
}

/// Domains of the scopes that a rule is from.
#[derive(Clone, Copy, Default)]
pub(crate) struct Senders {
    /// The first, and where it is named.
    pub(crate) first: Option<(DomainId, Span)>,
    /// Another one.
    pub(crate) second: Option<(DomainId, Span)>,
    /// Some could not be found, which was reported.
    pub(crate) unresolved: bool,
}

impl Senders {
    pub(crate) fn add(&mut self, domain: DomainId, span: Span) {
        match self.first {
            None => self.first = Some((domain, span)),
            Some((first, _)) if first != domain && self.second.is_none() => {
                self.second = Some((domain, span));
            }
            Some(_) => {}
        }
    }
}

impl Owned<'_> {
    fn kind(self) -> Kind {
        match self {
            Self::Flat(flat, _) => flat.kind(),
            Self::Operation(..) | Self::AllOperations => Kind::Operation,
            Self::Group(_) => Kind::OperationGroup,
        }
    }

    fn text(self) -> SmolStr {
        match self {
            Self::Flat(_, name) | Self::Group(name) => name.clone(),
            Self::Operation(group, name) => format_smolstr!("{group}.{name}"),
            Self::AllOperations => SmolStr::new_static("**"),
        }
    }

    fn known_in(self, domain: &DomainNames) -> bool {
        match self {
            Self::Flat(flat, name) => domain.flat(flat, name).is_some(),
            Self::Operation(group, name) => domain.operation(group, name).is_some(),
            Self::Group(group) => domain.group(group).is_some(),
            Self::AllOperations => true,
        }
    }

    /// Numbers of the operations that this names in a domain.
    pub(crate) fn add_operations(self, domain: &DomainNames, numbers: &mut Vec<u16>) {
        match self {
            Self::Flat(..) => {}
            Self::Operation(group, name) => numbers.extend(domain.operation(group, name)),
            Self::Group(group) => numbers.extend(domain.group(group).unwrap_or(&[])),
            Self::AllOperations => {
                numbers.extend(domain.checked.operations.iter().map(|(_, number)| number));
            }
        }
    }
}

impl Use<'_> {
    fn known_in(&self, domain: &DomainNames) -> bool {
        self.domain.is_none_or(|id| id == domain.id) && self.name.known_in(domain)
    }
}

impl<'w> Lookup<'w, '_> {
    /// A one-word name of a kind, or one with its domain in front.
    pub(crate) fn flat_use<'n>(
        &self,
        flat: Flat,
        path: &'n ast::Path,
        compared: Option<(&'static str, Span)>,
    ) -> Option<Use<'n>> {
        let (name, domain) = match path.segments.as_slice() {
            [name] => (name, None),
            [domain, name] => (name, Some(self.at(path.span).domain_named(&domain.text)?)),
            _ => return None,
        };
        let (name, segments) = (Owned::Flat(flat, &name.text), path.segments.as_slice());
        Some(Use { name, segments, span: path.span, domain, compared })
    }

    /// An operation, a group of them, or all of a domain, when the path has the shape of one.
    pub(crate) fn operation_use<'n>(&self, path: &'n ast::Path, reach: Reach) -> Option<Use<'n>> {
        let here = self.at(path.span);
        let (name, domain) = match (path.segments.as_slice(), reach) {
            ([group, name], Reach::Exact) => (Owned::Operation(&group.text, &name.text), None),
            ([domain, group, name], Reach::Exact) => {
                let domain = here.domain_named(&domain.text)?;
                (Owned::Operation(&group.text, &name.text), Some(domain))
            }
            ([name], Reach::Children | Reach::Tree) => {
                let grouped = here.domains().any(|domain| domain.group(&name.text).is_some());
                match here.domain_named(&name.text) {
                    Some(domain) if !grouped && reach == Reach::Tree => {
                        (Owned::AllOperations, Some(domain))
                    }
                    _ => (Owned::Group(&name.text), None),
                }
            }
            ([domain, group], Reach::Children | Reach::Tree) => {
                (Owned::Group(&group.text), Some(here.domain_named(&domain.text)?))
            }
            _ => return None,
        };
        Some(Use { name, segments: &path.segments, span: path.span, domain, compared: None })
    }

    /// Reports a path that cannot name an operation, where groups of them are no help either
    /// when `one_only`.
    pub(crate) fn no_operation<T>(
        &self,
        path: &ast::Path,
        reach: Reach,
        one_only: bool,
        compared: Option<(&'static str, Span)>,
        sink: &mut Sink,
    ) -> Option<T> {
        let text = path.text();
        let last = path.segments.last().map(|name| &name.text);
        let group = self.at(path.span).domains().find_map(|domain| {
            let group = last.filter(|name| domain.group(name).is_some())?;
            let prefix = format_smolstr!("{group}.");
            let mut names = domain.checked.operations.iter().map(|(name, _)| name);
            names.find(|name| name.starts_with(prefix.as_str())).cloned()
        });
        if reach == Reach::Exact
            && let Some(example) = group
        {
            let help = if one_only {
                format!("write one operation, such as `{example}`")
            } else {
                format!("write `{text}.*` for all of it, or one operation, such as `{example}`")
            };
            let message = format!("`{text}` is a group of operations");
            let diagnostic =
                Diagnostic::new(codes::OPERATION_GROUP, message, path.span, "a whole group")
                    .help(help);
            return sink.fail(if one_only {
                diagnostic
            } else {
                // It permits what the group will hold one day.
                diagnostic.replace(path.span.behind(), ".*", Applicability::MaybeIncorrect)
            });
        }
        self.unknown_with(Kind::Operation, &text, path.span, compared, sink)
    }

    /// The domain that all these names belong to. `Ok(None)` when there are no names; errors
    /// were reported.
    pub(crate) fn domain_of(
        &self,
        uses: &[Use<'_>],
        senders: Senders,
        sink: &mut Sink,
    ) -> Result<Option<&'w DomainNames>, ()> {
        let domain = self.common_domain(uses, senders, sink);
        if self.world.noted.is_some() {
            let known = domain.as_ref().ok().copied().flatten();
            uses.iter().for_each(|name| self.note_use(name, known));
        }
        domain
    }

    /// Whether a domain has a name, and is visible where the name stands.
    fn knows(&self, name: &Use<'_>, domain: &DomainNames) -> bool {
        self.at(name.span).view.domains.contains(&domain.id) && name.known_in(domain)
    }

    /// The first domain visible where a name stands that has it.
    fn owner(&self, name: &Use<'_>) -> Option<&'w DomainNames> {
        self.at(name.span).domains().find(|domain| name.known_in(domain))
    }

    /// Remembers what the parts of a name mean, in the domain of all names or else in the first
    /// that knows it.
    pub(crate) fn note_use(&self, name: &Use<'_>, domain: Option<&DomainNames>) {
        let Some(domain) = domain.or_else(|| self.owner(name)) else {
            return;
        };
        let id = domain.id;
        match name.name {
            Owned::Group(group) => {
                self.note(name.span, || Meant::Operations(id, Some(group.clone())));
            }
            Owned::AllOperations => self.note(name.span, || Meant::Operations(id, None)),
            Owned::Flat(..) | Owned::Operation(..) => {}
        }
        let mut segments = name.segments.iter().rev();
        let mut next = |meant: Meant| {
            if let Some(segment) = segments.next() {
                self.note(segment.span, || meant);
            }
        };
        match name.name {
            Owned::Flat(flat, text) => next(Meant::Flat(id, flat, text.clone())),
            Owned::Operation(group, text) => {
                next(Meant::Operation(id, group.clone(), text.clone()));
                next(Meant::Group(id, group.clone()));
            }
            Owned::Group(group) => next(Meant::Group(id, group.clone())),
            Owned::AllOperations => {}
        }
        next(Meant::Domain(id));
    }

    fn common_domain(
        &self,
        uses: &[Use<'_>],
        senders: Senders,
        sink: &mut Sink,
    ) -> Result<Option<&'w DomainNames>, ()> {
        let Some(first) = uses.first() else { return Ok(None) };
        let whole = senders.second.is_none() && !senders.unresolved;
        let knows_all = |domain: &&DomainNames| uses.iter().all(|name| self.knows(name, domain));
        let sender = senders.first.and_then(|(id, _)| self.world.domain(id));
        if let Some(domain) = sender.filter(knows_all)
            && whole
        {
            return Ok(Some(domain));
        }
        let mut fitting = self.at(first.span).domains().filter(knows_all);
        if let (None, Some(only), None) = (senders.first, fitting.next(), fitting.next())
            && whole
        {
            return Ok(Some(only));
        }
        self.report_no_domain(uses, senders, sink);
        Err(())
    }

    /// Says why names do not belong to one domain.
    fn report_no_domain(&self, uses: &[Use<'_>], senders: Senders, sink: &mut Sink) {
        let Some(first_use) = uses.first() else { return };
        let mut missing = false;
        for name in uses {
            if self.owner(name).is_none() {
                missing = true;
                self.report_unknown(name, sink);
            }
        }
        // Without all senders, who knows which domain was meant.
        if missing || senders.unresolved {
            return;
        }
        match (senders.first, senders.second) {
            (Some(one), Some(other)) => sink.push(self.two_senders(first_use, one, other)),
            (Some((sender, span)), None) => {
                let Some(domain) = self.world.domain(sender) else { return };
                for name in uses.iter().filter(|name| !self.knows(name, domain)) {
                    sink.push(self.mixed(name, span, domain));
                }
            }
            (None, _) => {
                let knows_all =
                    |domain: &&DomainNames| uses.iter().all(|name| self.knows(name, domain));
                let mut fitting = self.at(first_use.span).domains().filter(knows_all);
                match (fitting.next(), fitting.next()) {
                    (Some(one), Some(other)) => sink.push(ambiguous(first_use, one, other)),
                    _ => self.report_mixture(uses, sink),
                }
            }
        }
    }

    fn report_unknown(&self, name: &Use<'_>, sink: &mut Sink) {
        let text = name.name.text();
        let owner = name.domain.and_then(|id| self.world.domain(id));
        let Some(owner) = owner.filter(|_| !self.at(name.span).view.broken) else {
            let _: Option<()> =
                self.unknown_with(name.name.kind(), &text, name.span, name.compared, sink);
            return;
        };
        let kind = name.name.kind();
        let message = format!("domain `{}` has no {} `{text}`", owner.name(), kind.noun());
        let near = self.at(name.span).near_in(owner, name.name);
        let diagnostic = Diagnostic::new(kind.unknown(), message, name.span, "not found");
        sink.push(match near {
            Some(near) => {
                let full = format_smolstr!("{}.{}", owner.name(), near.name);
                let near = Near { name: full, ..near };
                let help = format!("did you mean `{}`?", near.name);
                near.offer(diagnostic.help(help), name.span)
            }
            None => diagnostic.help(kind.declaration()),
        });
    }

    fn near_in(&self, domain: &DomainNames, name: Owned<'_>) -> Option<Near> {
        if !self.catalogue().may_look_at(domain.checked.operations.len()) {
            return None;
        }
        let (text, kind) = (name.text(), name.kind());
        let mut names: Vec<&SmolStr> = match name {
            Owned::Flat(flat, _) => domain.flat_names(flat),
            Owned::Group(_) => domain.group_names(),
            Owned::Operation(..) | Owned::AllOperations => {
                domain.checked.operations.iter().map(|(name, _)| name).collect()
            }
        };
        names.retain(|name| self.may_name(domain.package, kind, name));
        suggest::near(&text, names.iter().map(|name| name.as_str()))
    }

    fn mixed(&self, name: &Use<'_>, sender_span: Span, sender: &DomainNames) -> Diagnostic {
        let owner = self.owner(name).map_or("another", |domain| domain.name());
        let message = format!(
            "{} `{}` belongs to domain `{owner}`, and the sender to domain `{}`",
            name.name.kind().noun(),
            name.name.text(),
            sender.name()
        );
        Diagnostic::new(codes::MIXED_DOMAINS, message, name.span, format!("of domain `{owner}`"))
            .and(sender_span, format!("of domain `{}`", sender.name()))
            .help(format!("use the names of domain `{}` here", sender.name()))
    }

    fn two_senders(
        &self,
        name: &Use<'_>,
        one: (DomainId, Span),
        other: (DomainId, Span),
    ) -> Diagnostic {
        let called = |id| self.world.domain(id).map_or("", |domain| domain.name().as_str());
        let (first, second) = (called(one.0), called(other.0));
        let kind = name.name.kind().noun();
        let message = format!(
            "{kind} `{}` is asked of senders of two domains, `{first}` and `{second}`",
            name.name.text()
        );
        Diagnostic::new(codes::MIXED_DOMAINS, message, name.span, "of one domain only")
            .and(one.1, format!("of domain `{first}`"))
            .and(other.1, format!("of domain `{second}`"))
            .help("write one rule for each domain")
    }

    /// No domain has all the names: two of them have no domain in common, or several have not.
    fn report_mixture(&self, uses: &[Use<'_>], sink: &mut Sink) {
        let Some((first, rest)) = uses.split_first() else { return };
        let together = |name: &&Use<'_>| {
            let mut domains = self.at(first.span).domains();
            domains.any(|domain| first.known_in(domain) && self.knows(name, domain))
        };
        let apart = rest.iter().find(|name| !together(name)).or(rest.last());
        let (Some(apart), Some(one)) = (apart, self.owner(first)) else { return };
        let Some(other) = self.owner(apart) else { return };
        let (one, other) = (one.name(), other.name());
        let message = format!(
            "{} `{}` of domain `{other}` and {} `{}` of domain `{one}` in one rule",
            apart.name.kind().noun(),
            apart.name.text(),
            first.name.kind().noun(),
            first.name.text()
        );
        sink.push(
            Diagnostic::new(
                codes::MIXED_DOMAINS,
                message,
                apart.span,
                format!("of domain `{other}`"),
            )
            .and(first.span, format!("of domain `{one}`"))
            .help("a packet's label belongs to one domain: write one rule for each domain"),
        );
    }
}

fn ambiguous(name: &Use<'_>, one: &DomainNames, other: &DomainNames) -> Diagnostic {
    let (text, kind) = (name.name.text(), name.name.kind());
    let (one, other) = (one.name(), other.name());
    let message =
        format!("`{text}` is {} of domain `{one}` and of domain `{other}`", kind.with_article());
    let star = if matches!(name.name, Owned::Group(_)) { ".*" } else { "" };
    let help = format!("write `{one}.{text}{star}`, or say whose with `from {one}.**`");
    Diagnostic::new(codes::AMBIGUOUS, message, name.span, "which of them?").help(help)
}
