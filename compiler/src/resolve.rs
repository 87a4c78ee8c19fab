//! Which names a file sees: packages and what they define.
//!
//! A file sees the names of its own package and of the packages that it uses, not of those that
//! these use. Levels, compartments, constraints, operations, residencies, routes and scopes
//! belong to the domain of a package; zones, tiers, sets and policies to the package itself.

use std::cell::{Cell, OnceCell, RefCell};

use govc_abi::limits;
use govc_grammar::ast;
use govc_grammar::diagnostic::Diagnostic;
use govc_grammar::span::{FileId, Span};
use petgraph::graph::{DiGraph, NodeIndex};
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use crate::check::cycles::{self, Circle};
use crate::check::kind::Kind;
use crate::check::names::{Catalogue, Sought};
use crate::check::private::Private;
use crate::check::sets::{Numbers, SetValue};
use crate::check::sink::Sink;
use crate::checked::DomainId;
use crate::codes;
use crate::index::{Meant, Noted};
use crate::suggest;
use crate::vocabulary::{DomainNames, define, defined_twice};

/// All packages, and what each file sees of them.
pub(crate) struct Packages {
    list: Vec<Package>,
    /// By position of the file.
    pub(crate) views: Vec<View>,
}

struct Package {
    /// `acme.payments`; empty when the package line is missing.
    text: SmolStr,
    /// A part of it could not be parsed, so that names may be missing.
    broken: bool,
}

/// What one file sees.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// The file's own package.
    pub(crate) package: usize,
    /// Packages whose names are visible, the own one first.
    pub(crate) packages: Vec<usize>,
    /// Domains of these packages.
    pub(crate) domains: Vec<DomainId>,
    /// Names may be missing because of an error that was told before: a name that is not found
    /// is no news.
    pub(crate) broken: bool,
}

impl Packages {
    /// Groups files by package and follows their `use` items.
    pub(crate) fn new(files: &[(FileId, ast::File)], sink: &mut Sink) -> Self {
        let mut packages = Self { list: Vec::new(), views: Vec::with_capacity(files.len()) };
        let mut by_text: FxHashMap<SmolStr, usize> = FxHashMap::default();
        for (_, file) in files {
            let text = file.package.as_ref().map(ast::Path::text);
            let known = text.as_ref().and_then(|text| by_text.get(text)).copied();
            let package = known.unwrap_or(packages.list.len());
            if known.is_none() {
                let text = text.unwrap_or_default();
                packages.list.push(Package { text: text.clone(), broken: false });
                by_text.entry(text).or_insert(package);
            }
            let broken = file.package.is_none()
                || file.items.iter().any(|item| matches!(item, ast::Item::Error(_)));
            if broken && let Some(package) = packages.list.get_mut(package) {
                package.broken = true;
                sink.poison();
            }
            packages.views.push(View { package, ..View::default() });
        }
        packages.report_cycles(files, &by_text, sink);
        for ((_, file), at) in files.iter().zip(0..) {
            let view = packages.view(file, at, &by_text, sink);
            if let Some(slot) = packages.views.get_mut(at) {
                *slot = view;
            }
        }
        packages
    }

    /// A package that is used by what it uses could not be read, changed or handed on alone.
    fn report_cycles(
        &self,
        files: &[(FileId, ast::File)],
        by_text: &FxHashMap<SmolStr, usize>,
        sink: &mut Sink,
    ) {
        let mut graph: DiGraph<(), Span> = DiGraph::new();
        let nodes: Vec<NodeIndex> = self.list.iter().map(|_| graph.add_node(())).collect();
        for ((_, file), view) in files.iter().zip(&self.views) {
            for path in file.uses() {
                let other = by_text.get(&path.text()).and_then(|&at| nodes.get(at));
                if let (Some(&own), Some(&other)) = (nodes.get(view.package), other) {
                    graph.add_edge(own, other, path.span);
                }
            }
        }
        let circle = Circle {
            code: codes::USE_CYCLE,
            noun: "package",
            does: "uses itself",
            refers: "uses",
            help: "put what both need into a package of its own, and remove one of these lines",
            name: |node: NodeIndex| self.text(node.index()),
        };
        for (component, first) in cycles::components(&graph) {
            if let Some(first) = first {
                sink.push(circle.diagnostic(&graph, &component, first));
            }
        }
    }

    fn view(
        &self,
        file: &ast::File,
        at: usize,
        by_text: &FxHashMap<SmolStr, usize>,
        sink: &mut Sink,
    ) -> View {
        let package = self.views.get(at).map_or(0, |view| view.package);
        let mut broken = self.broken(package);
        let mut packages = vec![package];
        let mut used: FxHashMap<usize, Span> = FxHashMap::default();
        for path in file.uses() {
            let text = path.text();
            let Some(&other) = by_text.get(&text) else {
                broken = true;
                self.report_unknown(file, &text, path.span, sink);
                continue;
            };
            if let Some(&first) = used.get(&other) {
                let message = format!("package `{text}` is used twice");
                sink.push(
                    Diagnostic::new(codes::REPEATED, message, path.span, "used again")
                        .and(first, "first used here")
                        .help("remove one of the two lines"),
                );
            }
            used.entry(other).or_insert(path.span);
            broken |= self.broken(other);
            if !packages.contains(&other) {
                packages.push(other);
            }
        }
        View { package, packages, domains: Vec::new(), broken }
    }

    fn report_unknown(&self, file: &ast::File, text: &str, span: Span, sink: &mut Sink) {
        let diagnostic = Diagnostic::new(
            codes::UNKNOWN_PACKAGE,
            format!("unknown package `{text}`"),
            span,
            "not found",
        );
        // A package that the file sees already would be used twice.
        let seen = |other: &str| file.package.iter().chain(file.uses()).any(|p| p.text() == other);
        let others = self.list.iter().map(|package| package.text.as_str());
        let (used, free): (Vec<&str>, Vec<&str>) = others.partition(|other| seen(other));
        sink.push(match (suggest::near(text, free), suggest::nearest(text, used)) {
            (Some(near), _) => {
                near.offer(diagnostic.help(format!("did you mean `{}`?", near.name)), span)
            }
            (None, Some(used)) => diagnostic.help(format!(
                "`{used}` is visible here already: if it is meant, remove this line"
            )),
            (None, None) => diagnostic.help(format!(
                "packages are found by their path: put `{}.gov` on the search path",
                text.replace('.', "/")
            )),
        });
    }

    /// Whether a package uses another one, itself or by what it uses.
    pub(crate) fn reaches(&self, package: usize, other: usize) -> bool {
        let (mut seen, mut at) = (vec![package], 0);
        while let Some(&next) = seen.get(at) {
            at += 1;
            for view in self.views.iter().filter(|view| view.package == next) {
                for &used in &view.packages {
                    if !seen.contains(&used) {
                        seen.push(used);
                    }
                }
            }
        }
        seen.contains(&other)
    }

    /// How many packages there are.
    pub(crate) fn count(&self) -> usize {
        self.list.len()
    }

    /// The package's path.
    pub(crate) fn text(&self, package: usize) -> SmolStr {
        self.list.get(package).map(|package| package.text.clone()).unwrap_or_default()
    }

    /// Whether names of the package may be missing.
    pub(crate) fn broken(&self, package: usize) -> bool {
        self.list.get(package).is_some_and(|package| package.broken)
    }
}

/// A definition outside of vocabularies, with whether anything has named it.
pub(crate) struct Defined<'a, T> {
    pub(crate) source: &'a T,
    pub(crate) package: usize,
    /// Position of its file.
    pub(crate) file: usize,
    pub(crate) used: Cell<bool>,
}

/// Positions of names that belong to packages.
type ByPackage = FxHashMap<(usize, SmolStr), usize>;

/// Everything that has a name.
pub(crate) struct World<'a> {
    pub(crate) files: &'a [(FileId, ast::File)],
    file_positions: FxHashMap<FileId, usize>,
    pub(crate) packages: Packages,
    pub(crate) domains: Vec<DomainNames>,
    domain_ids: FxHashMap<SmolStr, DomainId>,
    /// Zone `i` has number `i + 1`.
    pub(crate) zones: Vec<Defined<'a, ast::Zone>>,
    zone_ids: FxHashMap<SmolStr, usize>,
    pub(crate) tiers: Vec<Defined<'a, ast::TierDecl>>,
    tier_ids: FxHashMap<SmolStr, usize>,
    pub(crate) sets: Vec<Defined<'a, ast::Let>>,
    set_ids: ByPackage,
    /// Templates; as `sets`, they are named by package.
    pub(crate) templates: Vec<Defined<'a, ast::Template>>,
    template_ids: ByPackage,
    pub(crate) private: Private,
    /// Beside `sets`.
    pub(crate) set_values: Vec<SetValue>,
    /// Made when the first name is not found.
    pub(crate) catalogue: OnceCell<Catalogue>,
    /// What names mean, where somebody wants to know.
    pub(crate) noted: Option<RefCell<Vec<Noted>>>,
}

impl<'a> World<'a> {
    /// Puts all definitions into tables; reports names that are defined twice.
    pub(crate) fn new(
        files: &'a [(FileId, ast::File)],
        mut packages: Packages,
        domains: Vec<DomainNames>,
        sink: &mut Sink,
    ) -> Self {
        for view in &mut packages.views {
            let visible = |domain: &&DomainNames| view.packages.contains(&domain.package);
            view.domains = domains.iter().filter(visible).map(|domain| domain.id).collect();
        }
        let mut domain_ids = FxHashMap::default();
        for domain in &domains {
            domain_ids.entry(domain.name().clone()).or_insert(domain.id);
        }
        let mut world = Self {
            files,
            file_positions: files.iter().zip(0..).map(|((id, _), at)| (*id, at)).collect(),
            packages,
            domains,
            domain_ids,
            zones: Vec::new(),
            zone_ids: FxHashMap::default(),
            tiers: Vec::new(),
            tier_ids: FxHashMap::default(),
            sets: Vec::new(),
            set_ids: FxHashMap::default(),
            set_values: Vec::new(),
            templates: Vec::new(),
            template_ids: FxHashMap::default(),
            private: Private::default(),
            catalogue: OnceCell::new(),
            noted: None,
        };
        world.define_all(sink);
        world
    }

    fn define_all(&mut self, sink: &mut Sink) {
        let (mut zones, mut tiers) = (FxHashMap::default(), FxHashMap::default());
        let (mut sets, mut templates) = (FxHashMap::default(), FxHashMap::default());
        let files = self.files;
        for (file, (_, source)) in files.iter().enumerate() {
            let package = self.packages.views.get(file).map_or(0, |view| view.package);
            self.private.add(source, package);
            for item in &source.items {
                match item {
                    ast::Item::Zone(list) => {
                        for zone in list {
                            if define(&mut zones, &zone.name, Kind::Zone, sink) {
                                self.zone_ids.insert(zone.name.text.clone(), self.zones.len());
                                self.zones.push(Defined::new(zone, package, file));
                            }
                        }
                    }
                    ast::Item::Tier(list) => {
                        for tier in list {
                            if define(&mut tiers, &tier.name, Kind::Tier, sink) {
                                self.tier_ids.insert(tier.name.text.clone(), self.tiers.len());
                                self.tiers.push(Defined::new(tier, package, file));
                            }
                        }
                    }
                    ast::Item::Let(list) => {
                        for set in list {
                            let key = (package, set.name.text.clone());
                            if define_in(&mut sets, &key, set.name.span, Kind::Prefixes, sink) {
                                self.set_ids.insert(key, self.sets.len());
                                self.sets.push(Defined::new(set, package, file));
                            }
                        }
                    }
                    ast::Item::Template(template) => {
                        let (name, kind) = (&template.name, Kind::Template);
                        let key = (package, name.text.clone());
                        if define_in(&mut templates, &key, name.span, kind, sink) {
                            self.template_ids.insert(key, self.templates.len());
                            self.templates.push(Defined::new(template, package, file));
                        }
                    }
                    _ => {}
                }
            }
        }
        if let Some(extra) = self.zones.get(limits::ZONES_MAX) {
            let message = format!("more than {} zones", limits::ZONES_MAX);
            let span = extra.source.name.span;
            sink.push(
                Diagnostic::new(codes::TOO_MANY_ZONES, message, span, "one too many")
                    .help("a node numbers its zones with 8 bits: give one zone several interfaces"),
            );
        }
    }

    /// The domain with this number in the image.
    pub(crate) fn domain(&self, id: DomainId) -> Option<&DomainNames> {
        self.domains.get(usize::from(id.0))
    }

    /// The domain with this name, visible or not.
    pub(crate) fn domain_named(&self, name: &SmolStr) -> Option<DomainId> {
        self.domain_ids.get(name).copied()
    }

    /// The view of a file by its position.
    pub(crate) fn lookup(&self, file: usize) -> Option<Lookup<'_, 'a>> {
        let (id, _) = self.files.get(file)?;
        Some(Lookup { world: self, view: self.packages.views.get(file)?, file: *id })
    }

    /// Position of a tier, visible or not.
    pub(crate) fn tier_position(&self, name: &str) -> Option<usize> {
        self.tier_ids.get(name).copied()
    }
}

impl<'a, T> Defined<'a, T> {
    fn new(source: &'a T, package: usize, file: usize) -> Self {
        Self { source, package, file, used: Cell::new(false) }
    }
}

/// Names as one file sees them.
#[derive(Clone, Copy)]
pub(crate) struct Lookup<'w, 'a> {
    pub(crate) world: &'w World<'a>,
    pub(crate) view: &'w View,
    /// The file.
    file: FileId,
}

impl<'w> Lookup<'w, '_> {
    /// Names as the file sees them in which a name stands. It is another one than that of the rule
    /// where a template of another file brought the name along.
    pub(crate) fn at(&self, place: Span) -> Self {
        if place.file == self.file {
            return *self;
        }
        let position = self.world.file_positions.get(&place.file);
        position.and_then(|&at| self.world.lookup(at)).unwrap_or(*self)
    }

    /// Whether it may name what a package defines, as the name is written in full.
    pub(crate) fn may_name(&self, package: usize, kind: Kind, name: &SmolStr) -> bool {
        package == self.view.package || !self.world.private.holds(package, kind, name)
    }

    pub(crate) fn sees_package(&self, package: usize) -> bool {
        self.view.packages.contains(&package)
    }

    /// The visible domain with this name.
    pub(crate) fn domain_named(&self, name: &SmolStr) -> Option<DomainId> {
        // Few domains are visible: comparing beats hashing.
        self.domains().find(|domain| domain.name() == name).map(|domain| domain.id)
    }

    /// Visible domains.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &'w DomainNames> + use<'w> {
        let (world, view) = (self.world, self.view);
        view.domains.iter().filter_map(|&id| world.domain(id))
    }

    /// Number of a zone.
    pub(crate) fn zone(&self, name: &ast::Name, sink: &mut Sink) -> Option<u8> {
        let at = self.world.zone_ids.get(&name.text).copied();
        match at.and_then(|at| Some((at, self.world.zones.get(at)?))) {
            Some((at, zone)) if self.at(name.span).sees_package(zone.package) => {
                zone.used.set(true);
                self.note(name.span, || Meant::Zone(at));
                u8::try_from(at + 1).ok()
            }
            _ => self.unknown(Kind::Zone, &name.text, name.span, sink),
        }
    }

    /// Position of a tier; `default` is visible everywhere.
    pub(crate) fn tier(&self, name: &ast::Name, sink: &mut Sink) -> Option<usize> {
        let at = self.world.tier_position(&name.text);
        match at.and_then(|at| Some((at, self.world.tiers.get(at)?))) {
            Some((at, tier)) if self.sees_package(tier.package) || name.text == DEFAULT_TIER => {
                tier.used.set(true);
                self.note(name.span, || Meant::Tier(at));
                Some(at)
            }
            None if name.text == DEFAULT_TIER => Some(self.world.tiers.len()),
            _ => self.unknown(Kind::Tier, &name.text, name.span, sink),
        }
    }

    /// Position of a set, of prefixes or of anything.
    pub(crate) fn set(&self, name: &ast::Name, sink: &mut Sink) -> Option<usize> {
        self.set_sought(name, Kind::Prefixes.into(), sink)
    }

    /// Position of a set where numbers are wanted.
    pub(crate) fn set_of_numbers(
        &self,
        name: &ast::Name,
        numbers: Numbers,
        sink: &mut Sink,
    ) -> Option<usize> {
        let advice = numbers.advice(&name.text);
        self.set_sought(name, Sought { advice, ..Kind::Ports.into() }, sink)
    }

    fn set_sought(&self, name: &ast::Name, sought: Sought, sink: &mut Sink) -> Option<usize> {
        let world = self.world;
        let known = (world.sets.as_slice(), &world.set_ids);
        let at = self.of_package(known, sought, |set| &set.name, name, sink)?;
        self.note(name.span, || Meant::Set(at));
        Some(at)
    }

    /// Position of a template.
    pub(crate) fn template(&self, name: &ast::Name, sink: &mut Sink) -> Option<usize> {
        let world = self.world;
        let known = (world.templates.as_slice(), &world.template_ids);
        let at =
            self.of_package(known, Kind::Template.into(), |template| &template.name, name, sink)?;
        self.note(name.span, || Meant::Template(at));
        Some(at)
    }

    /// Position of something that several packages may define under one name.
    fn of_package<T>(
        &self,
        (known, ids): (&[Defined<'_, T>], &ByPackage),
        sought: Sought,
        named: impl Fn(&T) -> &ast::Name,
        name: &ast::Name,
        sink: &mut Sink,
    ) -> Option<usize> {
        let kind = sought.kind;
        let find = |package: &usize| {
            let at = *ids.get(&(*package, name.text.clone()))?;
            Some((at, known.get(at)?))
        };
        let here = self.at(name.span);
        let mut found = here.view.packages.iter().filter_map(find);
        // A private name is only meant, and told as such, where no other one can be.
        let offered = |one: &Defined<'_, T>| here.may_name(one.package, kind, &name.text);
        let mut candidates = found.clone().filter(|(_, one)| offered(one));
        let Some((at, one)) = candidates.next().or_else(|| found.next()) else {
            return self.not_found(sought, &name.text, name.span, sink);
        };
        one.used.set(true);
        if let Some((_, other)) = candidates.next() {
            other.used.set(true);
            let (first, second) =
                (self.world.packages.text(one.package), self.world.packages.text(other.package));
            let message = format!("`{}` is defined in `{first}` and in `{second}`", name.text);
            return sink.fail(
                Diagnostic::new(codes::AMBIGUOUS, message, name.span, "which of them?")
                    .and(named(one.source).span, "one definition")
                    .and(named(other.source).span, "the other one")
                    .help(format!("give one of the two {} another name", kind.plural())),
            );
        }
        Some(at)
    }

    /// Remembers what a name means.
    pub(crate) fn note(&self, place: Span, meant: impl FnOnce() -> Meant) {
        if let Some(noted) = &self.world.noted {
            noted.borrow_mut().push((place, meant()));
        }
    }
}

/// Whether a name is new in its package; told when it is not.
fn define_in(
    known: &mut FxHashMap<(usize, SmolStr), Span>,
    key: &(usize, SmolStr),
    span: Span,
    kind: Kind,
    sink: &mut Sink,
) -> bool {
    if let Some(&first) = known.get(key) {
        sink.push(defined_twice(&key.1, kind, span, first));
        return false;
    }
    known.insert(key.clone(), span);
    true
}

/// The tier of policies that name none; the last one unless declared elsewhere.
pub(crate) const DEFAULT_TIER: &str = "default";
