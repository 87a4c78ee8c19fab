//! Templates: clauses that rules share, written out where a rule is `like` one.
//!
//! It is done on the tree, before any clause is checked, so that what follows knows nothing of
//! templates. What a rule hands over keeps its place in the rule, everything else its place in the
//! template: a mistake is told where it is written, once.

use std::cell::Cell;

use govc_abi::limits::EXPANSION_MAX;
use govc_grammar::ast::{
    self, Argument, ArgumentValue, Clause, ClauseKind, Condition, ConditionKind, FromItem, Like,
    Name, Path, Pattern, Reach, Selection, Set, SetMember,
};
use govc_grammar::diagnostic::Diagnostic;
use govc_grammar::span::Span;
use petgraph::graph::{DiGraph, NodeIndex};
use rustc_hash::{FxHashMap, FxHashSet};
use smol_str::SmolStr;

use super::conditions::Asked;
use super::cycles::{self, Circle};
use super::kind::Kind;
use super::proto;
use super::sets::Numbers;
use super::sink::Sink;
use super::written::Written;
use crate::codes;
use crate::index::Meant;
use crate::resolve::{Lookup, World};
use crate::suggest;

/// The clauses of all that is `like` a template, by the place of the first clause as written.
#[derive(Default)]
pub(crate) struct Expanded(FxHashMap<Span, List>);

/// Clauses with the `like` that each comes from.
struct List {
    clauses: Vec<Clause>,
    likes: Vec<Option<Span>>,
}

impl Expanded {
    /// The clauses of a rule or an assertion, written out.
    pub(crate) fn clauses<'e>(&'e self, written: &'e [Clause]) -> Written<'e> {
        let first = written.first().filter(|_| !self.0.is_empty());
        match first.and_then(|first| self.0.get(&first.span)) {
            Some(list) => Written::new(&list.clauses, &list.likes),
            None => Written::new(written, &[]),
        }
    }
}

/// Writes out whatever is `like` a template.
pub(crate) fn expand_all(world: &World<'_>, sink: &mut Sink) -> Expanded {
    let mut expanded = Expanded::default();
    let lists = || world.files.iter().enumerate().flat_map(|(at, (_, file))| lists(at, file));
    if world.templates.is_empty() && !lists().any(|(_, list)| likes(list).next().is_some()) {
        return expanded;
    }
    let mut expander = Expander {
        world,
        bodies: vec![Vec::new(); world.templates.len()],
        grown: 0,
        told: FxHashSet::default(),
    };
    expander.templates(sink);
    for (file, list) in lists().filter(|(_, list)| likes(list).next().is_some()) {
        let Some((lookup, first)) = world.lookup(file).zip(list.first()) else { continue };
        let clauses = expander.list(lookup, list, sink);
        expanded.0.insert(first.span, clauses);
    }
    expanded
}

/// All lists of clauses in a file that are no template.
fn lists(at: usize, file: &ast::File) -> impl Iterator<Item = (usize, &[Clause])> {
    let lists = file.items.iter().flat_map(|item| -> Vec<&[Clause]> {
        match item {
            ast::Item::Policy(policy) => {
                policy.rules.iter().map(|rule| rule.clauses.as_slice()).collect()
            }
            ast::Item::Assert(assertion) => {
                let unless = assertion.unless.iter().map(Vec::as_slice);
                std::iter::once(assertion.clauses.as_slice()).chain(unless).collect()
            }
            _ => Vec::new(),
        }
    });
    lists.map(move |list| (at, list))
}

fn likes(list: &[Clause]) -> impl Iterator<Item = &Like> {
    list.iter().filter_map(|clause| match &clause.kind {
        ClauseKind::Like(like) => Some(like),
        _ => None,
    })
}

struct Expander<'w, 'a> {
    world: &'w World<'a>,
    /// Clauses of the templates, others that they are like written out, parameters left.
    bodies: Vec<Vec<Clause>>,
    /// Bytes of source that were written out.
    grown: usize,
    /// Templates of which it was told that they grow too large.
    told: FxHashSet<Span>,
}

impl Expander<'_, '_> {
    /// Fills `bodies`, those first that others are like.
    fn templates(&mut self, sink: &mut Sink) {
        let world = self.world;
        let mut graph: DiGraph<(), Span> = DiGraph::new();
        let nodes: Vec<NodeIndex> = world.templates.iter().map(|_| graph.add_node(())).collect();
        for (template, &own) in world.templates.iter().zip(&nodes) {
            repeated_parameters(template.source, sink);
            let Some(lookup) = world.lookup(template.file) else { continue };
            for like in likes(&template.source.clauses) {
                let other = lookup.template(&like.template, sink);
                if let Some(&other) = other.and_then(|at| nodes.get(at)) {
                    graph.add_edge(own, other, like.template.span);
                }
            }
        }
        let circle = Circle {
            code: codes::TEMPLATE_CYCLE,
            noun: "template",
            does: "is like itself",
            refers: "like",
            help: "write the clauses out in one of them",
            name: |node: NodeIndex| {
                let template = world.templates.get(node.index());
                template.map(|one| one.source.name.text.clone()).unwrap_or_default()
            },
        };
        for (component, first) in cycles::components(&graph) {
            if let Some(first) = first {
                sink.push(circle.diagnostic(&graph, &component, first));
                continue;
            }
            for node in component {
                self.template(node.index(), sink);
            }
        }
    }

    fn template(&mut self, at: usize, sink: &mut Sink) {
        let Some(template) = self.world.templates.get(at) else { return };
        let Some(lookup) = self.world.lookup(template.file) else { return };
        let List { clauses, .. } = self.list(lookup, &template.source.clauses, sink);
        unused_parameters(template.source, &clauses, sink);
        self.note_parameters(template.source, &clauses);
        find_names(lookup, template.source, sink);
        if let Some(body) = self.bodies.get_mut(at) {
            *body = clauses;
        }
    }

    /// A list of clauses with all that it is like written out.
    fn list(&mut self, lookup: Lookup<'_, '_>, list: &[Clause], sink: &mut Sink) -> List {
        let mut clauses = Vec::with_capacity(list.len() + 4);
        let mut likes = Vec::with_capacity(list.len() + 4);
        for clause in list {
            let mut from = None;
            match &clause.kind {
                ClauseKind::Like(like) => {
                    self.like(lookup, like, &mut clauses, sink);
                    from = Some(clause.span);
                }
                _ => clauses.push(clause.clone()),
            }
            likes.resize(clauses.len(), from);
        }
        List { clauses, likes }
    }

    fn like(
        &mut self,
        lookup: Lookup<'_, '_>,
        like: &Like,
        clauses: &mut Vec<Clause>,
        sink: &mut Sink,
    ) {
        let at = lookup.template(&like.template, sink);
        let Some((at, template)) = at.and_then(|at| Some((at, self.world.templates.get(at)?)))
        else {
            return;
        };
        let template = template.source;
        for argument in &like.arguments {
            let parameter = || Meant::Parameter(template.name.span, argument.name.text.clone());
            lookup.note(argument.name.span, parameter);
        }
        if !arguments_fit(template, like, sink) {
            return;
        }
        let values = like.arguments.iter().map(|one| (one.name.text.clone(), one)).collect();
        let mut body = self.bodies.get(at).cloned().unwrap_or_default();
        let filling = Filling { template, values, grown: Cell::new(0) };
        for clause in &mut body {
            filling.clause(clause, sink);
            self.grown += length(clause.span);
        }
        self.grown += filling.grown.get();
        if self.grown > EXPANSION_MAX {
            if self.told.insert(template.name.span) {
                let message = "templates write out more than a policy can hold";
                let span = like.template.span;
                sink.push(
                    Diagnostic::new(codes::EXPANSION_TOO_LARGE, message, span, "one too many")
                        .help("put long lists into sets with `let`: a set is written out nowhere"),
                );
            }
            return;
        }
        clauses.append(&mut body);
    }

    /// Remembers where parameters are named, for editors.
    fn note_parameters(&self, template: &ast::Template, clauses: &[Clause]) {
        let Some(noted) = &self.world.noted else { return };
        let owner = template.name.span;
        each_name(clauses, &mut |name| {
            if template.span.contains(name.span) && is_parameter(template, &name.text) {
                noted.borrow_mut().push((name.span, Meant::Parameter(owner, name.text.clone())));
            }
        });
    }
}

/// Looks up the names of a template that are no parameters, so that they are known and count as
/// used whether or not a rule is like it.
fn find_names(lookup: Lookup<'_, '_>, template: &ast::Template, sink: &mut Sink) {
    let mut asked = Asked::default();
    let own = |name: &Name| !is_parameter(template, &name.text);
    for clause in &template.clauses {
        match &clause.kind {
            ClauseKind::Operation(selection) => {
                for Pattern { path, reach, .. } in selection.list.iter().chain(&selection.except) {
                    if path.segments.first().is_some_and(own) {
                        asked.uses.extend(lookup.operation_use(path, *reach));
                    }
                }
            }
            ClauseKind::Where(conditions) => {
                for condition in conditions {
                    let mut filled = false;
                    each_name_of(condition, &mut |name| filled |= !own(name));
                    if !filled {
                        lookup.ask(condition, &mut asked, sink);
                    }
                }
            }
            ClauseKind::Quarantine(zone) if own(zone) => {
                lookup.zone(zone, sink);
            }
            _ => {}
        }
        for (set, numbers) in sets_of(clause) {
            let names = set.all().filter_map(|member| match member {
                SetMember::Name(name) if own(name) => Some(name),
                _ => None,
            });
            for name in names {
                match numbers {
                    Some(numbers) => lookup.set_of_numbers(name, numbers, sink),
                    None => lookup.set(name, sink),
                };
            }
        }
    }
    asked.uses.iter().for_each(|name| lookup.note_use(name, None));
}

/// The sets of prefixes and numbers in a clause, and what the numbers mean.
fn sets_of(clause: &Clause) -> impl Iterator<Item = (&Set, Option<Numbers>)> {
    let sets = match &clause.kind {
        ClauseKind::Proto(proto) => {
            proto::sets(proto).map(|(set, numbers)| set.map(|set| (set, Some(numbers))))
        }
        ClauseKind::Source(set) | ClauseKind::Destination(set) => {
            [Some((set, None)), None, None, None]
        }
        _ => [None; 4],
    };
    sets.into_iter().flatten()
}

fn is_parameter(template: &ast::Template, text: &SmolStr) -> bool {
    template.parameters.iter().any(|parameter| parameter.text == *text)
}

fn length(span: Span) -> usize {
    span.end.saturating_sub(span.start) as usize
}

fn repeated_parameters(template: &ast::Template, sink: &mut Sink) {
    for (at, parameter) in template.parameters.iter().enumerate() {
        let mut before = template.parameters.iter().take(at);
        if let Some(first) = before.find(|first| first.text == parameter.text) {
            let message = format!("parameter `{}` is named twice", parameter.text);
            let span = parameter.span;
            sink.push(
                Diagnostic::new(codes::DEFINED_TWICE, message, span, "defined again")
                    .and(first.span, "first defined here")
                    .help("give one of the two another name"),
            );
        }
    }
}

fn unused_parameters(template: &ast::Template, clauses: &[Clause], sink: &mut Sink) {
    let mut named = FxHashSet::default();
    each_name(clauses, &mut |name| {
        if template.span.contains(name.span) {
            named.insert(name.text.clone());
        }
    });
    for parameter in template.parameters.iter().filter(|one| !named.contains(&one.text)) {
        let message = format!("parameter `{}` is never used", parameter.text);
        sink.push(
            Diagnostic::new(codes::UNUSED, message, parameter.span, "never used")
                .help("use it, or remove it here and where rules are like this template"),
        );
    }
}

/// Whether each parameter has its argument, and each argument its parameter.
fn arguments_fit(template: &ast::Template, like: &Like, sink: &mut Sink) -> bool {
    let text = &template.name.text;
    let known = || template.parameters.iter().map(|one| one.text.as_str());
    let mut fits = true;
    let mut seen: FxHashMap<&SmolStr, Span> = FxHashMap::default();
    for Argument { name, .. } in &like.arguments {
        if !is_parameter(template, &name.text) {
            fits = false;
            let message = format!("template `{text}` has no parameter `{}`", name.text);
            let told = Diagnostic::new(codes::WRONG_ARGUMENTS, message, name.span, "not found")
                .and(template.name.span, "the template");
            let near = suggest::near(&name.text, known());
            sink.push(match near {
                Some(near) => {
                    near.offer(told.help(format!("did you mean `{}`?", near.name)), name.span)
                }
                None => told.help(
                    suggest::there_are(("parameter", "parameters"), "", known(), 8)
                        .unwrap_or_else(|| format!("write `like {text}`")),
                ),
            });
        } else if let Some(first) = seen.insert(&name.text, name.span) {
            fits = false;
            let message = format!("`{}` is said twice", name.text);
            sink.push(
                Diagnostic::new(codes::SAID_TWICE, message, name.span, "already said")
                    .and(first, "first said here")
                    .help("put everything behind one of them, with commas between"),
            );
        }
    }
    let missing = template.parameters.iter().filter(|one| !seen.contains_key(&one.text));
    let missing: Vec<&str> = missing.map(|one| one.text.as_str()).collect();
    if fits && !missing.is_empty() {
        fits = false;
        let names = suggest::list(missing.iter().copied(), 8);
        let message = format!("`like {text}` does not say {names}");
        let span = like.template.span;
        let example = missing.iter().map(|name| format!("{name} = ..")).collect::<Vec<_>>();
        sink.push(
            Diagnostic::new(codes::WRONG_ARGUMENTS, message, span, "arguments are missing")
                .and(template.name.span, "the template")
                .help(format!("write `like {text}({})`", example.join("  "))),
        );
    }
    fits
}

/// Arguments on their way into the clauses of a template.
struct Filling<'f> {
    template: &'f ast::Template,
    values: FxHashMap<SmolStr, &'f Argument>,
    /// Bytes of source that were put in.
    grown: Cell<usize>,
}

impl<'f> Filling<'f> {
    /// The argument that a name stands for. Names that came from templates which this one is like,
    /// or out of arguments, are no parameters, whatever they are called.
    fn argument(&self, name: &Name) -> Option<&'f Argument> {
        let argument = *self.values.get(&name.text)?;
        if !self.template.span.contains(name.span) {
            return None;
        }
        let last = argument.values.last().map_or(argument.name.span, value_span);
        self.grown.set(self.grown.get() + length(argument.name.span.to(last)));
        Some(argument)
    }

    /// The argument that the first name of a pattern stands for, unless it goes on with an index.
    fn pattern_argument(&self, pattern: &Pattern) -> Option<&'f Argument> {
        let first = pattern.path.segments.first().filter(|_| pattern.index.is_none())?;
        self.argument(first)
    }

    fn clause(&self, clause: &mut Clause, sink: &mut Sink) {
        match &mut clause.kind {
            ClauseKind::From(selection) => self.senders(selection, sink),
            ClauseKind::To(selection) => self.selection(selection, Kind::Scope, sink),
            ClauseKind::Operation(selection) => self.selection(selection, Kind::Operation, sink),
            ClauseKind::Where(conditions) => {
                conditions.iter_mut().for_each(|condition| self.condition(condition, sink));
            }
            ClauseKind::Proto(proto) => {
                let sets = [&mut proto.ports, &mut proto.source_ports];
                let more = [&mut proto.icmp_types, &mut proto.icmp_codes];
                let sets = sets.into_iter().chain(more).flatten();
                sets.for_each(|set| self.set(set, sink));
            }
            ClauseKind::Source(set) | ClauseKind::Destination(set) => self.set(set, sink),
            ClauseKind::Quarantine(zone) => {
                let Some(argument) = self.argument(zone) else { return };
                clause.kind = match self.one_name(argument, zone.span, Kind::Zone, sink) {
                    Some(name) => ClauseKind::Quarantine(name),
                    None => ClauseKind::Where(Vec::new()),
                };
            }
            ClauseKind::Log(_)
            | ClauseKind::Since(_)
            | ClauseKind::Until(_)
            | ClauseKind::Reject
            | ClauseKind::Shape(_)
            | ClauseKind::Like(_) => {}
        }
    }

    fn senders(&self, selection: &mut Selection<FromItem>, sink: &mut Sink) {
        let mut list = Vec::with_capacity(selection.list.len());
        for item in selection.list.drain(..) {
            let pattern = match &item {
                FromItem::Scope(pattern) => Some(pattern),
                _ => None,
            };
            match pattern.and_then(|pattern| Some((pattern, self.pattern_argument(pattern)?))) {
                Some((pattern, argument)) => {
                    let mut patterns = Vec::new();
                    self.patterns(pattern, argument, Kind::Scope, &mut patterns, sink);
                    list.extend(patterns.into_iter().map(sender));
                }
                None => list.push(item),
            }
        }
        selection.list = list;
        self.patterns_of(&mut selection.except, Kind::Scope, sink);
    }

    fn selection(&self, selection: &mut Selection<Pattern>, kind: Kind, sink: &mut Sink) {
        self.patterns_of(&mut selection.list, kind, sink);
        self.patterns_of(&mut selection.except, kind, sink);
    }

    fn patterns_of(&self, list: &mut Vec<Pattern>, kind: Kind, sink: &mut Sink) {
        let mut filled = Vec::with_capacity(list.len());
        for pattern in list.drain(..) {
            match self.pattern_argument(&pattern) {
                Some(argument) => self.patterns(&pattern, argument, kind, &mut filled, sink),
                None => filled.push(pattern),
            }
        }
        *list = filled;
    }

    /// What `who` or `who.**` stands for.
    fn patterns(
        &self,
        pattern: &Pattern,
        argument: &Argument,
        kind: Kind,
        filled: &mut Vec<Pattern>,
        sink: &mut Sink,
    ) {
        let rest = pattern.path.segments.get(1..).unwrap_or_default();
        let goes_on = !rest.is_empty() || pattern.reach != Reach::Exact;
        for value in &argument.values {
            let ArgumentValue::Pattern(given) = value else {
                sink.push(self.wrong(value, pattern.span, kind.plural()));
                continue;
            };
            if !goes_on {
                filled.push(given.clone());
                continue;
            }
            if given.reach != Reach::Exact || given.index.is_some() {
                let wanted = format!("{}, as the path goes on behind it", kind.with_article());
                sink.push(self.wrong(value, pattern.span, &wanted));
                continue;
            }
            let segments = given.path.segments.iter().chain(rest).cloned().collect();
            let path = Path { segments, span: given.path.span };
            filled.push(Pattern { path, index: None, reach: pattern.reach, span: given.span });
        }
    }

    fn set(&self, set: &mut Set, sink: &mut Sink) {
        self.members(&mut set.members, sink);
        if let Some(narrowed) = &mut set.narrowed {
            self.members(&mut narrowed.within, sink);
            self.members(&mut narrowed.except, sink);
        }
    }

    fn members(&self, list: &mut Vec<SetMember>, sink: &mut Sink) {
        let mut filled = Vec::with_capacity(list.len());
        for member in list.drain(..) {
            let argument = match &member {
                SetMember::Name(name) => Some(name).zip(self.argument(name)),
                _ => None,
            };
            let Some((name, argument)) = argument else {
                filled.push(member);
                continue;
            };
            for value in &argument.values {
                match (value, bare_name(value)) {
                    (ArgumentValue::Member(member), _) => filled.push(member.clone()),
                    (_, Some(given)) => filled.push(SetMember::Name(given.clone())),
                    _ => sink.push(self.wrong(value, name.span, "addresses, numbers or sets")),
                }
            }
        }
        *list = filled;
    }

    fn condition(&self, condition: &mut Condition, sink: &mut Sink) {
        match &mut condition.kind {
            ConditionKind::And(a, b) | ConditionKind::Or(a, b) => {
                self.condition(a, sink);
                self.condition(b, sink);
            }
            ConditionKind::Not(inner) => self.condition(inner, sink),
            ConditionKind::Test { value: ast::Value::Path(path), .. } => {
                let name = match path.segments.as_slice() {
                    [name] => name,
                    _ => return,
                };
                let Some(argument) = self.argument(name) else { return };
                match argument.values.as_slice() {
                    [ArgumentValue::Pattern(given)]
                        if given.reach == Reach::Exact && given.index.is_none() =>
                    {
                        *path = given.path.clone();
                    }
                    values => {
                        self.not_one(values, name.span, "one name", sink);
                        condition.kind = ConditionKind::Error;
                    }
                }
            }
            ConditionKind::Test { value: ast::Value::Set(names, _), .. } => {
                let mut filled = Vec::with_capacity(names.len());
                for name in names.drain(..) {
                    let Some(argument) = self.argument(&name) else {
                        filled.push(name);
                        continue;
                    };
                    for value in &argument.values {
                        match bare_name(value) {
                            Some(given) => filled.push(given.clone()),
                            None => sink.push(self.wrong(value, name.span, "names")),
                        }
                    }
                }
                *names = filled;
            }
            ConditionKind::Error => {}
        }
    }

    fn one_name(
        &self,
        argument: &Argument,
        place: Span,
        kind: Kind,
        sink: &mut Sink,
    ) -> Option<Name> {
        if let [value] = argument.values.as_slice()
            && let Some(name) = bare_name(value)
        {
            return Some(name.clone());
        }
        self.not_one(&argument.values, place, kind.with_article(), sink);
        None
    }

    fn not_one(&self, values: &[ArgumentValue], place: Span, wanted: &str, sink: &mut Sink) {
        if let Some(wrong) = values.get(1).or(values.first()) {
            sink.push(self.wrong(wrong, place, wanted));
        }
    }

    /// A value that cannot stand where its parameter does.
    fn wrong(&self, value: &ArgumentValue, place: Span, wanted: &str) -> Diagnostic {
        let message = format!("template `{}` wants {wanted} here", self.template.name.text);
        let span = value_span(value);
        Diagnostic::new(codes::WRONG_ARGUMENT, message, span, "does not fit")
            .and(place, "this is where it goes")
            .help(format!("write {wanted}"))
    }
}

fn sender(pattern: Pattern) -> FromItem {
    let word = match pattern.path.segments.as_slice() {
        [name] if pattern.reach == Reach::Exact && pattern.index.is_none() => name.text.as_str(),
        _ => "",
    };
    match word {
        "anyone" => FromItem::Anyone(pattern.span),
        "labelled" => FromItem::Labelled(pattern.span),
        "unlabelled" => FromItem::Unlabelled(pattern.span),
        _ => FromItem::Scope(pattern),
    }
}

/// The name that a value is, when it is nothing more.
fn bare_name(value: &ArgumentValue) -> Option<&Name> {
    match value {
        ArgumentValue::Pattern(Pattern { path, index: None, reach: Reach::Exact, .. }) => {
            match path.segments.as_slice() {
                [name] => Some(name),
                _ => None,
            }
        }
        _ => None,
    }
}

fn value_span(value: &ArgumentValue) -> Span {
    match value {
        ArgumentValue::Pattern(pattern) => pattern.span,
        ArgumentValue::Member(member) => super::sets::member_span(member),
    }
}

/// Visits every name in clauses that a parameter could be.
fn each_name(clauses: &[Clause], visit: &mut impl FnMut(&Name)) {
    fn first<'p>(patterns: impl IntoIterator<Item = &'p Pattern>, visit: &mut impl FnMut(&Name)) {
        let names = patterns.into_iter().filter_map(|pattern| pattern.path.segments.first());
        names.for_each(visit);
    }
    for clause in clauses {
        for member in sets_of(clause).flat_map(|(set, _)| set.all()) {
            if let SetMember::Name(name) = member {
                visit(name);
            }
        }
        match &clause.kind {
            ClauseKind::From(selection) => {
                let scopes = selection.list.iter().filter_map(|item| match item {
                    FromItem::Scope(pattern) => Some(pattern),
                    _ => None,
                });
                first(scopes.chain(&selection.except), visit);
            }
            ClauseKind::To(selection) | ClauseKind::Operation(selection) => {
                first(selection.list.iter().chain(&selection.except), visit);
            }
            ClauseKind::Where(conditions) => {
                conditions.iter().for_each(|one| each_name_of(one, visit));
            }
            ClauseKind::Quarantine(zone) => visit(zone),
            ClauseKind::Proto(_)
            | ClauseKind::Source(_)
            | ClauseKind::Destination(_)
            | ClauseKind::Log(_)
            | ClauseKind::Since(_)
            | ClauseKind::Until(_)
            | ClauseKind::Reject
            | ClauseKind::Shape(_)
            | ClauseKind::Like(_) => {}
        }
    }
}

/// Likewise in a condition.
fn each_name_of(one: &Condition, visit: &mut impl FnMut(&Name)) {
    match &one.kind {
        ConditionKind::And(a, b) | ConditionKind::Or(a, b) => {
            each_name_of(a, visit);
            each_name_of(b, visit);
        }
        ConditionKind::Not(inner) => each_name_of(inner, visit),
        ConditionKind::Test { value: ast::Value::Path(path), .. } => {
            path.segments.first().into_iter().for_each(visit);
        }
        ConditionKind::Test { value: ast::Value::Set(names, _), .. } => {
            names.iter().for_each(visit);
        }
        ConditionKind::Error => {}
    }
}
