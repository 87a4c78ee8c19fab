//! What every name in a set of files means, for editors: definitions, and the places that name
//! them. It is noted while names are resolved, so that nobody resolves them a second time.

use govc_abi::limits;
use govc_grammar::ast::{self, Covered, MarkKind};
use govc_grammar::span::Span;
use rustc_hash::{FxHashMap, FxHashSet};
use smol_str::{SmolStr, format_smolstr};

use crate::check::kind::Flat;
pub use crate::check::kind::Kind;
use crate::checked::DomainId;
use crate::resolve::World;
use crate::vocabulary::DomainNames;

/// Definitions, uses, and which file sees what.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Everything that has a name, in no order.
    pub definitions: Vec<Definition>,
    /// Places of names with positions in `definitions`, by place; a definition is a use of itself.
    pub uses: Vec<(Span, usize)>,
    /// Packages that each file sees, by its position, as positions in `packages`; its own first.
    pub visible: Vec<Vec<usize>>,
    /// Paths of all packages.
    pub packages: Vec<SmolStr>,
    /// Names, where they are defined, that something needs without writing them: operations of a
    /// group that is named whole, zones that are meant by `is encrypted`.
    pub(crate) implied: FxHashSet<Span>,
}

/// Something that has a name.
#[derive(Clone, Debug)]
pub struct Definition {
    /// What it is.
    pub kind: Kind,
    /// How it is written where nothing else is visible: `internal`, `ledger.read`,
    /// `acme.payments.api`.
    pub full: SmolStr,
    /// The package that it belongs to.
    pub package: usize,
    /// Its name, where it is defined.
    pub span: Span,
    /// What is known about it, in words: numbers, level, compartments, members.
    pub facts: Vec<String>,
    /// What its author says about it.
    pub documentation: Option<SmolStr>,
    /// What to use instead of it.
    pub deprecated: Option<SmolStr>,
    /// Other packages do not see it.
    pub private: bool,
}

impl Definition {
    fn new(kind: Kind, full: SmolStr, package: usize, span: Span, facts: Vec<String>) -> Self {
        let (documentation, deprecated, private) = (None, None, false);
        Self { kind, full, package, span, facts, documentation, deprecated, private }
    }

    /// Whether a mark that covers its name is about it. What is said before a whole policy is not
    /// about each rule, and what is said before a whole vocabulary explains no single name in it. Nobody
    /// can name a parameter but who uses its template, which is marked itself.
    fn is_meant_by(&self, mark: &ast::Mark) -> bool {
        let inner = matches!(
            self.kind,
            Kind::Level | Kind::Compartment | Kind::Scope | Kind::Operation | Kind::Rule
        );
        mark.covers.contains(self.span)
            && match (mark.covered, &mark.kind) {
                (Covered::Entry, _) => mark.covers == self.span,
                (Covered::Rule, _) => self.kind == Kind::Rule,
                (Covered::Item, MarkKind::Documentation(_)) => !inner,
                (Covered::Item, _) => !matches!(self.kind, Kind::Rule | Kind::Parameter),
            }
    }

    fn mark(&mut self, mark: &ast::Mark) {
        match &mark.kind {
            MarkKind::Private => self.private = true,
            MarkKind::Deprecated(text) => self.deprecated = Some(text.text.clone()),
            MarkKind::Documentation(text) => self.documentation = Some(text.clone()),
        }
    }
}

impl Index {
    /// What stands at a byte of a file, or ends there.
    #[must_use]
    pub fn at(&self, place: Span) -> Option<(Span, &Definition)> {
        let key = |span: &Span| (span.file, span.start);
        let behind = self.uses.partition_point(|(span, _)| key(span) <= key(&place));
        let (span, definition) = self.uses.get(behind.checked_sub(1)?)?;
        let touches = span.file == place.file && place.start <= span.end;
        Some((*span, self.definitions.get(*definition).filter(|_| touches)?))
    }

    /// All places that name what is defined at `definition`, itself among them.
    pub fn places(&self, definition: Span) -> impl Iterator<Item = Span> + '_ {
        let named = self.definitions.iter().position(move |one| one.span == definition);
        self.uses.iter().filter(move |(_, at)| Some(*at) == named).map(|(span, _)| *span)
    }

    /// What a file can name, by its position: not what other packages keep to themselves.
    pub fn visible_from(&self, file: usize) -> impl Iterator<Item = &Definition> {
        let packages = self.visible.get(file).map_or(&[][..], Vec::as_slice);
        let own = packages.first().copied();
        self.definitions.iter().filter(move |definition| {
            packages.contains(&definition.package)
                && (!definition.private || Some(definition.package) == own)
        })
    }
}

/// What a name was found to mean.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Meant {
    Package(SmolStr),
    Domain(DomainId),
    Scope(DomainId, u32),
    Flat(DomainId, Flat, SmolStr),
    Group(DomainId, SmolStr),
    /// All operations of a group, or of the domain.
    Operations(DomainId, Option<SmolStr>),
    Operation(DomainId, SmolStr, SmolStr),
    Zone(usize),
    Tier(usize),
    Set(usize),
    Template(usize),
    /// A parameter of the template whose name stands there.
    Parameter(Span, SmolStr),
    Policy(SmolStr),
    Rule(SmolStr, SmolStr),
}

/// A place with what the name there means.
pub(crate) type Noted = (Span, Meant);

/// Puts together what was noted and what is defined.
pub(crate) fn build(world: &World<'_>, noted: Vec<Noted>) -> Index {
    let mut builder = Builder { world, by_meaning: FxHashMap::default(), index: Index::default() };
    builder.index.packages =
        (0..world.packages.count()).map(|at| world.packages.text(at)).collect();
    builder.index.visible = world.packages.views.iter().map(|view| view.packages.clone()).collect();
    builder.world_names();
    for ((_, file), view) in world.files.iter().zip(&world.packages.views) {
        builder.file(file, view.package);
    }
    let (uses, definitions) = (&mut builder.index.uses, &builder.by_meaning);
    uses.extend(noted.iter().filter_map(|(span, meant)| Some((*span, *definitions.get(meant)?))));
    builder.names_in_vocabularies();
    builder.implied(&noted);
    let mut index = builder.index;
    mark(world, &mut index.definitions);
    index.uses.sort_unstable();
    index.uses.dedup_by_key(|(span, _)| *span);
    index
}

/// Hands marks to what they are about; what is said about an entry counts before what is said
/// about its item.
fn mark(world: &World<'_>, definitions: &mut [Definition]) {
    let mut marks: Vec<&ast::Mark> = world.files.iter().flat_map(|(_, file)| &file.marks).collect();
    marks.sort_by_key(|mark| mark.covered == Covered::Entry);
    if marks.is_empty() {
        return;
    }
    let mut by_place: Vec<(Span, usize)> =
        definitions.iter().enumerate().map(|(at, one)| (one.span, at)).collect();
    by_place.sort_unstable();
    for mark in marks {
        let key = |span: &Span| (span.file, span.start);
        let first = by_place.partition_point(|(span, _)| key(span) < key(&mark.covers));
        let inside = by_place.iter().skip(first);
        for (_, at) in inside.take_while(|(span, _)| mark.covers.contains(*span)) {
            let definition = definitions.get_mut(*at).filter(|one| one.is_meant_by(mark));
            definition.into_iter().for_each(|one| one.mark(mark));
        }
    }
}

struct Builder<'w, 'a> {
    world: &'w World<'a>,
    by_meaning: FxHashMap<Meant, usize>,
    index: Index,
}

impl Builder<'_, '_> {
    /// Of two definitions of a name the first one counts.
    fn define(&mut self, meant: Meant, definition: Definition) {
        let at = self.index.definitions.len();
        if let std::collections::hash_map::Entry::Vacant(entry) = self.by_meaning.entry(meant) {
            entry.insert(at);
            self.index.uses.push((definition.span, at));
            self.index.definitions.push(definition);
        }
    }

    fn implied(&mut self, noted: &[Noted]) {
        let world = self.world;
        let mut implied = FxHashSet::default();
        let zones = world.zones.iter().filter(|zone| zone.source.encrypted || zone.used.get());
        implied.extend(zones.map(|zone| zone.source.name.span));
        let tiers = world.tiers.iter().filter(|tier| tier.used.get());
        implied.extend(tiers.map(|tier| tier.source.name.span));
        for (_, meant) in noted {
            let Meant::Operations(id, wanted) = meant else { continue };
            let all = world.domain(*id).map_or(&[][..], |domain| &domain.checked.operations);
            for (full, _) in all {
                let Some((group, name)) = full.split_once('.') else { continue };
                if wanted.as_ref().is_none_or(|wanted| wanted == group) {
                    let operation = Meant::Operation(*id, group.into(), name.into());
                    let at = self.by_meaning.get(&operation);
                    let definition = at.and_then(|&at| self.index.definitions.get(at));
                    implied.extend(definition.map(|one| one.span));
                }
            }
        }
        self.index.implied = implied;
    }

    fn note(&mut self, place: Span, meant: &Meant) {
        self.index.uses.extend(self.by_meaning.get(meant).map(|&at| (place, at)));
    }

    fn plain(
        &mut self,
        meant: Meant,
        kind: Kind,
        name: &ast::Name,
        package: usize,
        facts: Vec<String>,
    ) {
        let (full, span) = (name.text.clone(), name.span);
        self.define(meant, Definition::new(kind, full, package, span, facts));
    }

    /// Zones, tiers, sets and templates, and the scopes of all domains.
    fn world_names(&mut self) {
        let world = self.world;
        for (at, zone) in world.zones.iter().enumerate() {
            let names = zone.source.interfaces.iter().map(|one| format!("`\"{}\"`", one.text));
            let interfaces = names.collect::<Vec<_>>().join(", ");
            let encrypted = if zone.source.encrypted { ", encrypted" } else { "" };
            let facts =
                vec![format!("number {}", at + 1), format!("interface {interfaces}{encrypted}")];
            self.plain(Meant::Zone(at), Kind::Zone, &zone.source.name, zone.package, facts);
        }
        for (at, tier) in world.tiers.iter().enumerate() {
            let ordered = if tier.source.ordered { ", ordered: the first rule counts" } else { "" };
            let facts = vec![format!("tried as number {}{ordered}", at + 1)];
            self.plain(Meant::Tier(at), Kind::Tier, &tier.source.name, tier.package, facts);
        }
        for (at, (set, value)) in world.sets.iter().zip(&world.set_values).enumerate() {
            let (kind, facts) = value.describe();
            self.plain(Meant::Set(at), kind, &set.source.name, set.package, vec![facts]);
        }
        for (at, template) in world.templates.iter().enumerate() {
            let (source, package) = (template.source, template.package);
            let parameters = source.parameters.iter().map(|one| one.text.as_str());
            let parameters = parameters.collect::<Vec<_>>().join(", ");
            let facts = match source.clauses.len() {
                1 => "1 clause".to_owned(),
                count => format!("{count} clauses"),
            };
            let facts = vec![format!("`{}({parameters})`, {facts}", source.name.text)];
            self.plain(Meant::Template(at), Kind::Template, &source.name, package, facts);
            for parameter in &source.parameters {
                let meant = Meant::Parameter(source.name.span, parameter.text.clone());
                let facts = vec![format!("of template `{}`", source.name.text)];
                self.plain(meant, Kind::Parameter, parameter, package, facts);
            }
        }
        for domain in &world.domains {
            let name = domain.name();
            for ((at, scope), source) in
                (0..).zip(&domain.checked.scopes).zip(&domain.scope_sources)
            {
                let full = format_smolstr!("{name}.{}", scope.path);
                let facts = scope_facts(domain, scope);
                let definition =
                    Definition::new(Kind::Scope, full, domain.package, source.span, facts);
                self.define(Meant::Scope(domain.id, at), definition);
            }
        }
    }

    /// The names that a file defines, but for those of [`Builder::world_names`].
    fn file(&mut self, file: &ast::File, package: usize) {
        if let Some(path) = &file.package {
            let full = path.text();
            let mut definition =
                Definition::new(Kind::Package, full.clone(), package, path.span, Vec::new());
            definition.documentation = file.documentation.clone();
            self.define(Meant::Package(full), definition);
        }
        let world = self.world;
        let domain = world.domains.iter().find(|domain| domain.package == package);
        for item in &file.items {
            if let Some(domain) = domain {
                self.vocabulary(item, domain);
            }
            let ast::Item::Policy(policy) = item else { continue };
            let name = &policy.name.text;
            let count = match policy.rules.len() {
                1 => "1 rule".to_owned(),
                count => format!("{count} rules"),
            };
            let observed = policy.observe.then(|| "only observes".to_owned());
            let facts = std::iter::once(count).chain(observed).collect();
            self.plain(Meant::Policy(name.clone()), Kind::Policy, &policy.name, package, facts);
            for rule in &policy.rules {
                let action = match rule.action {
                    ast::Action::Permit => "permits",
                    ast::Action::Deny => "denies",
                    ast::Action::Pass => "passes to the next tier",
                };
                let observed = if rule.observe { ", only observes" } else { "" };
                let described = rule.description.as_ref().map(|text| text.text.to_string());
                let facts = described.into_iter().chain([format!("{action}{observed}")]).collect();
                let full = format_smolstr!("{name}.{}", rule.name.text);
                let definition = Definition::new(Kind::Rule, full, package, rule.name.span, facts);
                self.define(Meant::Rule(name.clone(), rule.name.text.clone()), definition);
            }
        }
    }

    fn vocabulary(&mut self, item: &ast::Item, domain: &DomainNames) {
        match item {
            ast::Item::Domain(source) => {
                let facts = vec![format!("number {} in labels", domain.checked.number)];
                let (package, meant) = (domain.package, Meant::Domain(domain.id));
                self.plain(meant, Kind::Domain, &source.name, package, facts);
                self.flat(Flat::Level, &source.levels, domain);
                self.flat(Flat::Compartment, &source.compartments, domain);
            }
            ast::Item::Constraint(names) => self.flat(Flat::Constraint, names, domain),
            ast::Item::Route(names) => self.flat(Flat::Route, names, domain),
            ast::Item::Residency(list) => {
                for one in list {
                    let within = match &one.jurisdictions {
                        None => "everywhere".to_owned(),
                        Some(names) => {
                            let names = names.iter().map(|name| name.text.as_str());
                            format!("within {}", names.collect::<Vec<_>>().join(", "))
                        }
                    };
                    self.one_flat(Flat::Residency, &one.name, domain, Some(within));
                }
            }
            ast::Item::Operation(groups) => {
                groups.iter().for_each(|group| self.group(group, domain));
            }
            _ => {}
        }
    }

    fn group(&mut self, group: &ast::OperationGroup, domain: &DomainNames) {
        let id = domain.id;
        let name = &group.name.text;
        let names = group.operations.iter().map(|operation| operation.text.as_str());
        let facts = vec![names.collect::<Vec<_>>().join(", ")];
        let (meant, package) = (Meant::Group(id, name.clone()), domain.package);
        self.plain(meant, Kind::OperationGroup, &group.name, package, facts);
        // A group may go on at another place.
        self.note(group.name.span, &Meant::Group(id, name.clone()));
        for operation in &group.operations {
            let number = domain.operation(name, &operation.text);
            let full = format_smolstr!("{name}.{}", operation.text);
            let facts = number.iter().map(|number| format!("number {number} in labels")).collect();
            let definition = Definition::new(Kind::Operation, full, package, operation.span, facts);
            self.define(Meant::Operation(id, name.clone(), operation.text.clone()), definition);
        }
    }

    fn flat(&mut self, flat: Flat, names: &[ast::Name], domain: &DomainNames) {
        names.iter().for_each(|name| self.one_flat(flat, name, domain, None));
    }

    fn one_flat(
        &mut self,
        flat: Flat,
        name: &ast::Name,
        domain: &DomainNames,
        fact: Option<String>,
    ) {
        let bit = matches!(flat, Flat::Compartment | Flat::Constraint);
        let what = if bit { "bit" } else { "number" };
        let number = domain.flat(flat, &name.text).map(|n| format!("{what} {n} in labels"));
        let facts = number.into_iter().chain(fact).collect();
        let meant = Meant::Flat(domain.id, flat, name.text.clone());
        self.plain(meant, flat.kind(), name, domain.package, facts);
    }

    /// Names that vocabularies and `use` lines mention; they are found without a lookup.
    fn names_in_vocabularies(&mut self) {
        let world = self.world;
        for ((_, file), view) in world.files.iter().zip(&world.packages.views) {
            file.package.iter().for_each(|path| self.note_package(path));
            let domain = world.domains.iter().find(|domain| domain.package == view.package);
            for item in &file.items {
                match item {
                    ast::Item::Use(path) => self.note_package(path),
                    ast::Item::Scope(root) => {
                        let Some(id) = domain.map(|domain| domain.id) else { continue };
                        self.note(root.domain.span, &Meant::Domain(id));
                        root.entries.iter().for_each(|scope| self.scope(scope, id));
                    }
                    _ => {}
                }
            }
        }
    }

    fn note_package(&mut self, path: &ast::Path) {
        self.note(path.span, &Meant::Package(path.text()));
    }

    fn scope(&mut self, scope: &ast::Scope, id: DomainId) {
        if let Some(level) = &scope.level {
            self.note(level.span, &Meant::Flat(id, Flat::Level, level.text.clone()));
        }
        for name in scope.compartments.iter().flatten() {
            self.note(name.span, &Meant::Flat(id, Flat::Compartment, name.text.clone()));
        }
        scope.children.iter().for_each(|child| self.scope(child, id));
    }
}

fn scope_facts(domain: &DomainNames, scope: &crate::checked::Scope) -> Vec<String> {
    let mut facts = Vec::new();
    match scope.subjects {
        Some((first, last)) if first == last => facts.push(format!("subject {first}")),
        Some((first, last)) => {
            facts.push(format!("{} subjects, {first} to {last}", last - first + 1))
        }
        None => {}
    }
    let blocks = scope.blocks.iter().map(|(first, last)| format!("{first} to {last}"));
    let blocks = blocks.collect::<Vec<_>>().join(", ");
    if scope.subjects.is_none() && !blocks.is_empty() {
        facts.push(format!("subjects {blocks}"));
    }
    facts.push(format!("level {}", domain.level_name(scope.level)));
    let named = domain.checked.compartments.iter();
    let held = named.filter(|(_, bit)| scope.compartments >> u32::from(*bit) & 1 == 1);
    let names: Vec<&str> =
        held.map(|(name, _)| name.as_str()).take(limits::COMPARTMENTS_MAX).collect();
    if !names.is_empty() {
        facts.push(format!("compartments {}", names.join(", ")));
    }
    facts
}
