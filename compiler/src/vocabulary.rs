//! Vocabularies: every name of a domain with its number, taken from the lock or handed out.

use govc_abi::limits;
use govc_grammar::ast;
use govc_grammar::diagnostic::{Code, Diagnostic};
use govc_grammar::span::{FileId, Span};
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use crate::check::kind::{Flat, Kind};
use crate::check::scope_tree;
use crate::check::sink::Sink;
use crate::checked::{self, DomainId};
use crate::codes;
use crate::lock::{Lock, Locked, Locks, Numbers};
use crate::resolve::Packages;

/// A domain with its names by kind.
pub(crate) struct DomainNames {
    pub(crate) id: DomainId,
    /// Position of the package that owns it.
    pub(crate) package: usize,
    pub(crate) checked: checked::Domain,
    /// Numbers by [`Flat`] and name.
    flat: [FxHashMap<SmolStr, u16>; 5],
    groups: FxHashMap<SmolStr, Group>,
    /// For each residency number, the numbers of all sets that lie within it.
    within: FxHashMap<u16, Vec<u8>>,
    /// Scopes by parent (0 for the domain, else position + 1) and name.
    scopes: FxHashMap<(u32, SmolStr), u32>,
    /// Beside [`checked::Domain::scopes`].
    pub(crate) scope_sources: Vec<ScopeSource>,
}

/// A group of operations.
#[derive(Default)]
struct Group {
    numbers: Vec<u16>,
    by_name: FxHashMap<SmolStr, u16>,
}

/// Where a scope comes from and where its subtree ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ScopeSource {
    /// Its name in the source.
    pub(crate) span: Span,
    /// Position behind its last descendant.
    pub(crate) end: usize,
    /// It has scopes below.
    pub(crate) groups: bool,
}

impl DomainNames {
    pub(crate) fn name(&self) -> &SmolStr {
        &self.checked.name
    }

    /// Number of a one-word name.
    pub(crate) fn flat(&self, kind: Flat, name: &SmolStr) -> Option<u16> {
        self.flat.get(kind as usize)?.get(name).copied()
    }

    /// Names of one kind in the order of their declaration.
    pub(crate) fn flat_names(&self, kind: Flat) -> Vec<&SmolStr> {
        let domain = &self.checked;
        match kind {
            Flat::Level => domain.levels.iter().map(|(name, _)| name).collect(),
            Flat::Compartment => domain.compartments.iter().map(|(name, _)| name).collect(),
            Flat::Constraint => domain.constraints.iter().map(|(name, _)| name).collect(),
            Flat::Residency => domain.residencies.iter().map(|residency| &residency.name).collect(),
            Flat::Route => domain.routes.iter().map(|(name, _)| name).collect(),
        }
    }

    /// The name of a level number; the number itself for a level that is retired.
    pub(crate) fn level_name(&self, level: u8) -> SmolStr {
        let named = self.checked.levels.iter().find(|(_, number)| *number == level);
        named.map_or_else(|| smol_str::format_smolstr!("{level}"), |(name, _)| name.clone())
    }

    pub(crate) fn operation(&self, group: &SmolStr, name: &SmolStr) -> Option<u16> {
        self.groups.get(group)?.by_name.get(name).copied()
    }

    /// Numbers of all operations of a group.
    pub(crate) fn group(&self, group: &SmolStr) -> Option<&[u16]> {
        self.groups.get(group).map(|group| group.numbers.as_slice())
    }

    pub(crate) fn group_names(&self) -> Vec<&SmolStr> {
        let mut names: Vec<_> = self.groups.keys().collect();
        names.sort_unstable();
        names
    }

    /// Numbers of all residency sets that lie within the one with this number.
    pub(crate) fn residencies_within(&self, number: u16) -> &[u8] {
        self.within.get(&number).map_or(&[], Vec::as_slice)
    }

    /// The scope `name` below `parent`, or at the top.
    pub(crate) fn scope(&self, parent: Option<u32>, name: &SmolStr) -> Option<u32> {
        self.scopes.get(&(parent.map_or(0, |parent| parent + 1), name.clone())).copied()
    }

    /// Positions of the scopes directly below `parent`, or at the top.
    pub(crate) fn children(&self, parent: Option<u32>) -> Vec<u32> {
        let sources = &self.scope_sources;
        let (first, end) = match parent {
            Some(parent) => {
                let source = sources.get(parent as usize);
                (parent as usize + 1, source.map_or(0, |source| source.end))
            }
            None => (0, sources.len()),
        };
        let next = |&at: &usize| sources.get(at).map(|source| source.end);
        std::iter::successors((first < end).then_some(first), next)
            .take_while(|&at| at < end)
            .filter_map(|at| u32::try_from(at).ok())
            .collect()
    }
}

/// All domains by [`DomainId`]; `locks` are brought up to date.
pub(crate) fn domains(
    files: &[(FileId, ast::File)],
    packages: &Packages,
    locks: &mut Locks,
    sink: &mut Sink,
) -> Vec<DomainNames> {
    let mut names: FxHashMap<SmolStr, Span> = FxHashMap::default();
    let mut numbers: FxHashMap<u64, Span> = FxHashMap::default();
    let mut domains = Vec::new();
    for parts in gather(files, packages, sink) {
        let ast::Domain { name, number, .. } = parts.domain;
        define(&mut names, name, Kind::Domain, sink);
        if let Some(&first) = numbers.get(&number.value) {
            let message = format!("domain number {} is used twice", number.value);
            sink.push(
                Diagnostic::new(codes::DOMAIN_NUMBER_TAKEN, message, number.span, "taken")
                    .and(first, "first used here")
                    .help("give this domain a number that no other domain has"),
            );
        }
        numbers.entry(number.value).or_insert(number.span);
        let Some(id) = u8::try_from(domains.len()).ok().map(DomainId) else { break };
        if domains.len() == limits::DOMAINS_NAMED_MAX {
            let message = format!("more than {} domains", limits::DOMAINS_NAMED_MAX);
            sink.push(
                Diagnostic::new(codes::TOO_MANY_DOMAINS, message, name.span, "one too many").help(
                    "an image names domains with 4 bits: leave out packages that are not used",
                ),
            );
        }
        let package = packages.text(parts.package);
        let mut lock = trusted_lock(locks, &package, name, sink);
        domains.push(number_domain(id, &parts, &mut lock, sink));
        locks.insert(package, lock);
    }
    domains
}

/// The package's lock; an empty one when there is none, or none that can be trusted.
fn trusted_lock(locks: &Locks, package: &SmolStr, domain: &ast::Name, sink: &mut Sink) -> Lock {
    if let Some(error) = locks.error(package) {
        let message =
            format!("the lock file of domain `{}` cannot be trusted: {error}", domain.text);
        sink.push(
            Diagnostic::new(codes::BAD_LOCK, message, domain.span, "the numbers of this domain")
                .help("restore the lock file from version control; packets carry its numbers"),
        );
    }
    locks.get(package).cloned().unwrap_or_default()
}

/// What the files of one package say about its domain.
pub(crate) struct Parts<'a> {
    package: usize,
    pub(crate) domain: &'a ast::Domain,
    pub(crate) roots: Vec<&'a ast::ScopeRoot>,
    constraints: Vec<&'a ast::Name>,
    groups: Vec<&'a ast::OperationGroup>,
    residencies: Vec<&'a ast::Residency>,
    routes: Vec<&'a ast::Name>,
}

fn gather<'a>(
    files: &'a [(FileId, ast::File)],
    packages: &Packages,
    sink: &mut Sink,
) -> Vec<Parts<'a>> {
    let mut owned: Vec<Parts<'a>> = Vec::new();
    let mut by_package: FxHashMap<usize, usize> = FxHashMap::default();
    let items = || {
        files
            .iter()
            .zip(&packages.views)
            .flat_map(|((_, file), view)| file.items.iter().map(move |item| (view.package, item)))
    };
    for (package, item) in items() {
        let ast::Item::Domain(domain) = item else { continue };
        if let Some(first) = by_package.get(&package).and_then(|&at| owned.get(at)) {
            let message = format!("package `{}` has a second domain", packages.text(package));
            sink.push(
                Diagnostic::new(codes::SECOND_DOMAIN, message, domain.name.span, "second domain")
                    .and(first.domain.name.span, "first domain")
                    .help("move it to a package of its own"),
            );
            continue;
        }
        by_package.insert(package, owned.len());
        let (roots, constraints, groups) = (Vec::new(), Vec::new(), Vec::new());
        let (residencies, routes) = (Vec::new(), Vec::new());
        owned.push(Parts { package, domain, roots, constraints, groups, residencies, routes });
    }
    for (package, item) in items() {
        match by_package.get(&package).and_then(|&at| owned.get_mut(at)) {
            Some(parts) => parts.add(item, sink),
            None if packages.broken(package) => {}
            None => report_orphan(item, &packages.text(package), sink),
        }
    }
    owned
}

impl<'a> Parts<'a> {
    fn add(&mut self, item: &'a ast::Item, sink: &mut Sink) {
        match item {
            ast::Item::Scope(root) => {
                check_root(root, self.domain, sink);
                self.roots.push(root);
            }
            ast::Item::Constraint(names) => self.constraints.extend(names),
            ast::Item::Operation(groups) => self.groups.extend(groups),
            ast::Item::Residency(residencies) => self.residencies.extend(residencies),
            ast::Item::Route(names) => self.routes.extend(names),
            _ => {}
        }
    }
}

/// Reports an item of a vocabulary in a package without domain.
fn report_orphan(item: &ast::Item, package: &str, sink: &mut Sink) {
    let orphan = match item {
        ast::Item::Scope(root) => Some(("scope", root.domain.span)),
        ast::Item::Constraint(names) => names.first().map(|name| ("constraint", name.span)),
        ast::Item::Operation(groups) => groups.first().map(|group| ("operation", group.name.span)),
        ast::Item::Residency(list) => list.first().map(|one| ("residency", one.name.span)),
        ast::Item::Route(names) => names.first().map(|name| ("route", name.span)),
        _ => None,
    };
    if let Some((word, span)) = orphan {
        let message = format!("`{word}` belongs to a domain, and package `{package}` has none");
        sink.push(Diagnostic::new(codes::NO_DOMAIN, message, span, "of no domain").help(
            "move it to the package that declares the domain, \
             or declare one here with `domain NAME = NUMBER {}`",
        ));
    }
}

fn check_root(root: &ast::ScopeRoot, domain: &ast::Domain, sink: &mut Sink) {
    if root.domain.text != domain.name.text {
        let (named, owned) = (&root.domain.text, &domain.name.text);
        let message = format!("scopes of `{named}` in the package of domain `{owned}`");
        sink.push(
            Diagnostic::new(codes::FOREIGN_SCOPES, message, root.domain.span, "another domain")
                .and(domain.name.span, "the domain of this package")
                .help(format!(
                    "write `scope {owned} {{}}`, or move it to the package of `{named}`"
                )),
        );
    }
}

/// Remembers a definition; answers `false` after reporting that the name has one already.
pub(crate) fn define(
    defined: &mut FxHashMap<SmolStr, Span>,
    name: &ast::Name,
    kind: Kind,
    sink: &mut Sink,
) -> bool {
    let Some(&first) = defined.get(&name.text) else {
        defined.insert(name.text.clone(), name.span);
        return true;
    };
    sink.push(defined_twice(&name.text, kind, name.span, first));
    false
}

/// The diagnostic for a name with two definitions.
pub(crate) fn defined_twice(name: &str, kind: Kind, second: Span, first: Span) -> Diagnostic {
    let message = format!("{} `{name}` is defined twice", kind.noun());
    Diagnostic::new(codes::DEFINED_TWICE, message, second, "defined again")
        .and(first, "first defined here")
        .help("remove one of the two, or give it another name")
}

fn number_domain(id: DomainId, parts: &Parts<'_>, lock: &mut Lock, sink: &mut Sink) -> DomainNames {
    let ast::Domain { name, number, .. } = parts.domain;
    let number = domain_number(name, number, lock, sink);
    lock.domain = name.text.clone();
    lock.number = number;
    let domain = &name.text;
    let levels =
        number_levels(domain, &unique(&parts.domain.levels, Kind::Level, sink), lock, sink);
    let compartments = unique(&parts.domain.compartments, Kind::Compartment, sink);
    let compartments = COMPARTMENTS.number(domain, &compartments, &mut lock.compartments, sink);
    let constraints = unique(parts.constraints.iter().copied(), Kind::Constraint, sink);
    let constraints = CONSTRAINTS.number(domain, &constraints, &mut lock.constraints, sink);
    let routes = unique(parts.routes.iter().copied(), Kind::Route, sink);
    let routes = ROUTES.number(domain, &routes, &mut lock.routes, sink);
    let residency_names = parts.residencies.iter().map(|residency| &residency.name);
    let residency_names = unique(residency_names, Kind::Residency, sink);
    let residencies = RESIDENCIES.number(domain, &residency_names, &mut lock.residencies, sink);
    let flat = [&levels, &compartments, &constraints, &residencies, &routes]
        .map(|list| list.iter().cloned().collect::<FxHashMap<SmolStr, u16>>());
    let residencies = checked_residencies(&residencies, &parts.residencies);
    let mut names = DomainNames {
        id,
        package: parts.package,
        checked: checked::Domain {
            name: domain.clone(),
            number,
            levels: bytes(levels),
            compartments: bytes(compartments),
            constraints: bytes(constraints),
            operations: Vec::new(),
            residencies: Vec::new(),
            routes: bytes(routes),
            scopes: Vec::new(),
        },
        flat,
        groups: FxHashMap::default(),
        within: within(&residencies),
        scopes: FxHashMap::default(),
        scope_sources: Vec::new(),
    };
    names.checked.residencies = residencies;
    number_operations(&mut names, &parts.groups, &mut lock.operations, sink);
    let tree = scope_tree::number(&names, &parts.roots, lock, sink);
    names.checked.scopes = tree.scopes;
    names.scope_sources = tree.sources;
    names.scopes = tree.by_name;
    names
}

fn domain_number(name: &ast::Name, written: &ast::Int, lock: &Lock, sink: &mut Sink) -> u16 {
    let Some(number) = u16::try_from(written.value).ok().filter(|&number| number > 0) else {
        let message = format!("domain number {} is not between 1 and 65535", written.value);
        sink.push(
            Diagnostic::new(codes::BAD_DOMAIN_NUMBER, message, written.span, "out of range")
                .help("labels have 16 bits for the domain, and 0 means none"),
        );
        return lock.number;
    };
    if lock.number != 0 && lock.number != number {
        let message = format!(
            "domain `{}` has number {number}, but its lock file says {}",
            name.text, lock.number
        );
        let help = format!(
            "write `domain {} = {}`; packets carry the number, so it never changes",
            name.text, lock.number
        );
        sink.push(
            Diagnostic::new(codes::DOMAIN_RENUMBERED, message, written.span, "another number")
                .help(help),
        );
    }
    number
}

/// The names without those that are defined a second time, which are reported.
fn unique<'a>(
    names: impl IntoIterator<Item = &'a ast::Name>,
    kind: Kind,
    sink: &mut Sink,
) -> Vec<&'a ast::Name> {
    let mut defined = FxHashMap::default();
    names.into_iter().filter(|name| define(&mut defined, name, kind, sink)).collect()
}

/// A kind of names whose numbers are handed out one after the other.
struct Counted {
    kind: Kind,
    code: Code,
    first: u16,
    last: u16,
    reason: &'static str,
}

const COMPARTMENTS: Counted = Counted {
    kind: Kind::Compartment,
    code: codes::TOO_MANY_COMPARTMENTS,
    first: 0,
    last: limits::COMPARTMENTS_MAX as u16 - 1,
    reason: "a label has 16 bits for compartments",
};
const CONSTRAINTS: Counted = Counted {
    kind: Kind::Constraint,
    code: codes::TOO_MANY_CONSTRAINTS,
    first: 0,
    last: limits::CONSTRAINTS_MAX as u16 - 1,
    reason: "a label has 16 bits for constraints",
};
const RESIDENCIES: Counted = Counted {
    kind: Kind::Residency,
    code: codes::TOO_MANY_RESIDENCIES,
    first: 1,
    last: limits::RESIDENCIES_MAX as u16,
    reason: "a label has 8 bits for the residency",
};
const ROUTES: Counted = Counted {
    kind: Kind::Route,
    code: codes::TOO_MANY_ROUTES,
    first: 1,
    last: limits::ROUTES_MAX as u16,
    reason: "a label has 8 bits for the route class",
};
const OPERATIONS: Counted = Counted {
    kind: Kind::Operation,
    code: codes::TOO_MANY_OPERATIONS,
    first: 1,
    last: limits::OPERATIONS_MAX as u16,
    reason: "a label has 16 bits for the operation",
};

impl Counted {
    /// Numbers by name in the order of the names; those that find no number left are left out
    /// and the first of them is reported.
    fn number(
        &self,
        domain: &str,
        names: &[&ast::Name],
        locked: &mut Numbers,
        sink: &mut Sink,
    ) -> Vec<(SmolStr, u16)> {
        let names: Vec<_> = names.iter().map(|name| (name.text.clone(), name.span)).collect();
        self.number_texts(domain, &names, locked, sink)
    }

    fn number_texts(
        &self,
        domain: &str,
        names: &[(SmolStr, Span)],
        locked: &mut Numbers,
        sink: &mut Sink,
    ) -> Vec<(SmolStr, u16)> {
        retire_all(locked);
        let mut taken: Vec<u16> = locked.values().map(|locked| locked.number).collect();
        taken.sort_unstable();
        let mut free =
            (self.first..=self.last).filter(|number| taken.binary_search(number).is_err());
        let mut numbered = Vec::with_capacity(names.len());
        let mut full = None;
        for (name, span) in names {
            let entry = match locked.get(name) {
                Some(known) => Some(known.number),
                None => free.next(),
            };
            let Some(number) = entry else {
                full = full.or(Some(*span));
                continue;
            };
            locked.insert(name.clone(), Locked { number, retired: false });
            numbered.push((name.clone(), number));
        }
        if let Some(span) = full {
            let max = self.last - self.first + 1;
            let message = format!("domain `{domain}` has more than {max} {}", self.kind.plural());
            let retired = locked.values().filter(|locked| locked.retired).count();
            let kept = match retired {
                0 => String::new(),
                _ => format!("; {retired} retired names keep their numbers"),
            };
            sink.push(
                Diagnostic::new(self.code, message, span, "one too many")
                    .help(format!("{}{kept}", self.reason)),
            );
        }
        numbered
    }
}

fn retire_all(locked: &mut Numbers) {
    locked.values_mut().for_each(|locked| locked.retired = true);
}

fn number_levels(
    domain: &str,
    names: &[&ast::Name],
    lock: &mut Lock,
    sink: &mut Sink,
) -> Vec<(SmolStr, u16)> {
    let locked = &mut lock.levels;
    if let Some(extra) = names.get(limits::LEVELS_MAX) {
        let message = format!("domain `{domain}` has more than {} levels", limits::LEVELS_MAX);
        sink.push(
            Diagnostic::new(codes::TOO_MANY_LEVELS, message, extra.span, "one too many")
                .help("a label has 4 bits for the level"),
        );
        return names.iter().map(|name| (name.text.clone(), 0)).collect();
    }
    if locked.is_empty() {
        // Spread out, so that later levels find gaps.
        let steps = names.len().saturating_sub(1).max(1);
        for (at, name) in names.iter().enumerate() {
            let number = u16::try_from(at * (limits::LEVELS_MAX - 1) / steps).unwrap_or(0);
            locked.insert(name.text.clone(), Locked { number, retired: false });
        }
    } else {
        retire_all(locked);
        for name in names {
            if let Some(known) = locked.get_mut(&name.text) {
                known.retired = false;
            }
        }
        if level_order_kept(names, locked, sink) {
            insert_levels(domain, names, locked, sink);
        }
    }
    let number = |name: &&ast::Name| locked.get(&name.text).map_or(0, |known| known.number);
    names.iter().map(|name| (name.text.clone(), number(name))).collect()
}

/// Whether the levels that had numbers before stand in the order of their numbers.
fn level_order_kept(names: &[&ast::Name], locked: &Numbers, sink: &mut Sink) -> bool {
    let mut kept = true;
    let known: Vec<_> =
        names.iter().filter_map(|name| Some((name, locked.get(&name.text)?.number))).collect();
    for ((below, low), (above, high)) in known.iter().zip(known.iter().skip(1)) {
        if low > high {
            kept = false;
            let message = format!("level `{}` was below `{}` until now", above.text, below.text);
            sink.push(
                Diagnostic::new(codes::LEVELS_REORDERED, message, above.span, "now above")
                    .and(below.span, "now below")
                    .help("keep the order: packets carry the numbers of the lock file"),
            );
        }
    }
    kept
}

/// Gives every new level a number between its neighbours', in the middle of what is free.
fn insert_levels(domain: &str, names: &[&ast::Name], locked: &mut Numbers, sink: &mut Sink) {
    let is_new = |locked: &Numbers, name: &ast::Name| !locked.contains_key(&name.text);
    let mut at = 0;
    while let Some(name) = names.get(at) {
        if !is_new(locked, name) {
            at += 1;
            continue;
        }
        let run: Vec<_> =
            names.iter().skip(at).take_while(|name| is_new(locked, name)).copied().collect();
        let below = at.checked_sub(1).and_then(|below| names.get(below));
        let above = names.get(at + run.len());
        let number = |name: &&ast::Name| locked.get(&name.text).map(|known| known.number);
        let low = below.and_then(number).map_or(0, |number| number + 1);
        let high = above.and_then(number).unwrap_or(limits::LEVELS_MAX as u16);
        let taken: Vec<u16> = locked.values().map(|known| known.number).collect();
        let free: Vec<u16> = (low..high).filter(|number| !taken.contains(number)).collect();
        if free.len() < run.len() {
            sink.push(no_level_gap(domain, name, below.copied(), above.copied()));
        }
        for (nth, name) in run.iter().enumerate() {
            let middle = (2 * nth + 1) * free.len() / (2 * run.len());
            let number = free.get(middle).copied().unwrap_or(0);
            locked.insert(name.text.clone(), Locked { number, retired: false });
        }
        at += run.len();
    }
}

fn no_level_gap(
    domain: &str,
    level: &ast::Name,
    below: Option<&ast::Name>,
    above: Option<&ast::Name>,
) -> Diagnostic {
    let place = match (below, above) {
        (Some(below), Some(above)) => format!("between `{}` and `{}`", below.text, above.text),
        (Some(below), None) => format!("above `{}`", below.text),
        (None, Some(above)) => format!("below `{}`", above.text),
        (None, None) => "in this domain".to_owned(),
    };
    let message = format!("no number is left {place} for level `{}`", level.text);
    let help = format!(
        "the lock file keeps the numbers of all levels of `{domain}`, since packets carry them, \
         and a label has room for 16: reuse a retired name, or place the level where a gap is"
    );
    let diagnostic = Diagnostic::new(codes::NO_LEVEL_GAP, message, level.span, "no number left");
    let neighbour = below.or(above);
    match neighbour {
        Some(neighbour) => diagnostic.and(neighbour.span, "next to this level").help(help),
        None => diagnostic.help(help),
    }
}

fn number_operations(
    names: &mut DomainNames,
    groups: &[&ast::OperationGroup],
    locked: &mut Numbers,
    sink: &mut Sink,
) {
    let mut defined = FxHashMap::default();
    let mut listed = Vec::new();
    for group in groups {
        for operation in &group.operations {
            let text = smol_str::format_smolstr!("{}.{}", group.name.text, operation.text);
            let full = ast::Name { text: text.clone(), span: operation.span };
            if define(&mut defined, &full, Kind::Operation, sink) {
                listed.push((text, operation.span));
            }
        }
    }
    let numbered = OPERATIONS.number_texts(names.name(), &listed, locked, sink);
    for (text, number) in &numbered {
        let Some((group, operation)) = text.split_once('.') else { continue };
        let group = names.groups.entry(group.into()).or_default();
        group.numbers.push(*number);
        group.by_name.insert(operation.into(), *number);
    }
    names.checked.operations = numbered;
}

fn checked_residencies(
    numbered: &[(SmolStr, u16)],
    sources: &[&ast::Residency],
) -> Vec<checked::Residency> {
    let mut by_name: FxHashMap<&SmolStr, &ast::Residency> = FxHashMap::default();
    for source in sources {
        by_name.entry(&source.name.text).or_insert(source);
    }
    let checked = |(name, number): &(SmolStr, u16)| {
        let jurisdictions = by_name.get(name)?.jurisdictions.as_ref().map(|names| {
            let mut names: Vec<_> = names.iter().map(|name| name.text.clone()).collect();
            names.sort_unstable();
            names.dedup();
            names
        });
        let number = u8::try_from(*number).ok()?;
        Some(checked::Residency { name: name.clone(), number, jurisdictions })
    };
    numbered.iter().filter_map(checked).collect()
}

/// For each residency set, all sets whose jurisdictions it contains. Everywhere lies within
/// everywhere only.
fn within(residencies: &[checked::Residency]) -> FxHashMap<u16, Vec<u8>> {
    let lies_within = |inner: &checked::Residency, outer: &checked::Residency| match (
        &inner.jurisdictions,
        &outer.jurisdictions,
    ) {
        (_, None) => true,
        (None, Some(_)) => false,
        (Some(inner), Some(outer)) => inner.iter().all(|name| outer.binary_search(name).is_ok()),
    };
    let all_within = |outer: &checked::Residency| {
        let mut inner: Vec<u8> = residencies
            .iter()
            .filter(|inner| lies_within(inner, outer))
            .map(|inner| inner.number)
            .collect();
        inner.sort_unstable();
        (u16::from(outer.number), inner)
    };
    residencies.iter().map(all_within).collect()
}

/// Numbers that were kept below 256 by their limits.
fn bytes(numbered: Vec<(SmolStr, u16)>) -> Vec<(SmolStr, u8)> {
    let byte = |(name, number)| Some((name, u8::try_from(number).ok()?));
    numbered.into_iter().filter_map(byte).collect()
}
