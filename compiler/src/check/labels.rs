//! Labels as they are written in stamp and legacy rules and in test packets, and the rules of
//! the edges: stamp, deliver, legacy, carriage.

use govc_abi::label::radius;
use govc_abi::limits;
use govc_grammar::ast::{self, LabelField, StampCondition};
use govc_grammar::diagnostic::Diagnostic;
use govc_grammar::span::{FileId, Span};
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use super::carriages;
use super::conditions::bit;
use super::kind::Flat;
use super::owned::{Owned, Senders, Use};
use super::scopes::Subject;
use super::sets;
use super::sink::Sink;
use crate::checked::{Carriage, Deliver, DomainId, Legacy, Prefix, Stamp, WrittenLabel};
use crate::codes;
use crate::resolve::{Lookup, World};
use crate::suggest;
use crate::vocabulary::DomainNames;

/// Longest life that the field can say, as a power of two of slots.
const LIFE_FIELD_MAX: u64 = 15;

/// The fields of a label that were written, each with its place.
#[derive(Default)]
pub(crate) struct Fields {
    pub(crate) level: Option<(u8, Span)>,
    pub(crate) compartments: Option<(u16, Span)>,
    pub(crate) constraints: Option<u16>,
    /// The operations by name and number; the first unless a socket declares another.
    pub(crate) operations: Vec<(SmolStr, u16)>,
    pub(crate) residency: Option<u8>,
    pub(crate) route: Option<u8>,
    pub(crate) radius: Option<u8>,
    pub(crate) life: Option<u8>,
}

/// The word of a field and its place.
pub(crate) fn field_place(field: &LabelField) -> (&'static str, Span) {
    match field {
        LabelField::Subject(pattern) => ("subject", pattern.span),
        LabelField::Level(name) => ("level", name.span),
        LabelField::Compartments(_, span) => ("compartments", *span),
        LabelField::Constraints(_, span) => ("constraints", *span),
        LabelField::Operation(paths) => ("operation", between(paths)),
        LabelField::Residency(name) => ("residency", name.span),
        LabelField::Route(name) => ("route", name.span),
        LabelField::Radius(name) => ("radius", name.span),
        LabelField::Life(int) => ("life", int.span),
        LabelField::Fragments(span) => ("fragments", *span),
    }
}

/// From the first to the last.
fn between(paths: &[ast::Path]) -> Span {
    let whole = |a: Span, b: Span| Span::new(a.file, a.start, b.end);
    let spans = paths.iter().map(|path| path.span);
    spans.reduce(whole).unwrap_or_else(|| Span::new(FileId(0), 0, 0))
}

/// Reports a field that is said twice.
pub(crate) fn said_twice(word: &str, span: Span, first: Span) -> Diagnostic {
    let message = format!("`{word}` is said twice");
    Diagnostic::new(codes::SAID_TWICE, message, span, "already said")
        .and(first, "first said here")
        .help("remove one of the two")
}

fn report_repeated<'f>(fields: impl Iterator<Item = &'f LabelField>, sink: &mut Sink) {
    let mut seen: FxHashMap<&str, Span> = FxHashMap::default();
    for field in fields {
        let (word, span) = field_place(field);
        if let Some(&first) = seen.get(word) {
            sink.push(said_twice(word, span, first));
        }
        seen.entry(word).or_insert(span);
    }
}

/// A one-word name as a path, for lookups that take paths.
pub(crate) fn as_path(name: &ast::Name) -> ast::Path {
    ast::Path { segments: vec![name.clone()], span: name.span }
}

fn flat_uses<'n>(flat: Flat, names: &'n [ast::Name]) -> impl Iterator<Item = Use<'n>> {
    names.iter().map(move |name| Use {
        name: Owned::Flat(flat, &name.text),
        segments: std::slice::from_ref(name),
        span: name.span,
        domain: None,
        compared: None,
    })
}

/// Values of all fields but the subject, in the vocabulary of the sender's domain.
pub(crate) fn fields(
    lookup: Lookup<'_, '_>,
    list: &[&LabelField],
    sender: (DomainId, Span),
    sink: &mut Sink,
) -> Option<Fields> {
    report_repeated(list.iter().copied(), sink);
    let mut uses: Vec<Use<'_>> = Vec::new();
    for field in list {
        match field {
            LabelField::Level(name) => {
                uses.extend(flat_uses(Flat::Level, std::slice::from_ref(name)));
            }
            LabelField::Residency(name) => {
                uses.extend(flat_uses(Flat::Residency, std::slice::from_ref(name)));
            }
            LabelField::Route(name) => {
                uses.extend(flat_uses(Flat::Route, std::slice::from_ref(name)));
            }
            LabelField::Compartments(names, _) => uses.extend(flat_uses(Flat::Compartment, names)),
            LabelField::Constraints(names, _) => uses.extend(flat_uses(Flat::Constraint, names)),
            LabelField::Operation(paths) => {
                for path in paths {
                    match lookup.operation_use(path, ast::Reach::Exact) {
                        Some(name) => uses.push(name),
                        None => lookup.no_operation(path, ast::Reach::Exact, true, None, sink)?,
                    }
                }
            }
            LabelField::Subject(_)
            | LabelField::Radius(_)
            | LabelField::Life(_)
            | LabelField::Fragments(_) => {}
        }
    }
    let senders = Senders { first: Some(sender), ..Senders::default() };
    lookup.domain_of(&uses, senders, sink).ok()?;
    let domain = lookup.world.domain(sender.0)?;
    let number = |flat, name: &ast::Name| domain.flat(flat, &name.text);
    let byte = |flat, name| number(flat, name).and_then(|number| u8::try_from(number).ok());
    let mask = |flat, names: &[ast::Name]| {
        names.iter().try_fold(0, |mask, name| Some(mask | bit(number(flat, name)?)?))
    };
    let mut fields = Fields::default();
    for field in list {
        match field {
            LabelField::Subject(_) | LabelField::Fragments(_) => {}
            LabelField::Level(name) => {
                fields.level = Some((byte(Flat::Level, name)?, name.span));
            }
            LabelField::Compartments(names, span) => {
                fields.compartments = Some((mask(Flat::Compartment, names)?, *span));
            }
            LabelField::Constraints(names, _) => {
                fields.constraints = Some(mask(Flat::Constraint, names)?);
            }
            LabelField::Operation(paths) => {
                for path in paths {
                    fields.operations.push(operation(lookup, path, domain)?);
                }
                said_once(paths, &fields.operations, sink)?;
            }
            LabelField::Residency(name) => fields.residency = Some(byte(Flat::Residency, name)?),
            LabelField::Route(name) => fields.route = Some(byte(Flat::Route, name)?),
            LabelField::Radius(name) => {
                fields.radius = Some(lookup.radius(&as_path(name), None, sink)?);
            }
            LabelField::Life(int) => fields.life = Some(life(int, sink)?),
        }
    }
    Some(fields)
}

/// An operation's name within its domain, as sockets declare it, and its number.
fn operation(
    lookup: Lookup<'_, '_>,
    path: &ast::Path,
    domain: &DomainNames,
) -> Option<(SmolStr, u16)> {
    let mut numbers = Vec::new();
    lookup.operation_use(path, ast::Reach::Exact)?.name.add_operations(domain, &mut numbers);
    let [.., group, name] = path.segments.as_slice() else { return None };
    Some((SmolStr::from(format!("{}.{}", group.text, name.text)), *numbers.first()?))
}

/// No operation stands in a list twice, and the list is not too long.
fn said_once(paths: &[ast::Path], operations: &[(SmolStr, u16)], sink: &mut Sink) -> Option<()> {
    for (at, ((_, number), path)) in operations.iter().zip(paths).enumerate() {
        let before = operations.iter().take(at).position(|(_, earlier)| earlier == number);
        if let Some(first) = before.and_then(|before| paths.get(before)) {
            return sink.fail(said_twice(&path.text(), path.span, first.span));
        }
        if at == limits::DECLARABLE_MAX {
            let message = format!("a stamp rule grants more than {at} operations");
            return sink.fail(
                Diagnostic::new(codes::TOO_MANY_DECLARABLE, message, path.span, "one too many")
                    .help("each packet looks through them: make stamp rules for fewer workloads"),
            );
        }
    }
    Some(())
}

pub(crate) fn life(int: &ast::Int, sink: &mut Sink) -> Option<u8> {
    let max = limits::LIFE_MAX_DEFAULT;
    if let Some(life) = u8::try_from(int.value).ok().filter(|&life| life <= max) {
        return Some(life);
    }
    let (message, reason) = if int.value > LIFE_FIELD_MAX {
        (format!("life {} is above {LIFE_FIELD_MAX}", int.value), "labels have 4 bits for it")
    } else {
        let message = format!("a label with life {} is refused everywhere", int.value);
        (
            message,
            "verifiers accept no longer life, as it is the time in which labels can be replayed",
        )
    };
    let slots = 1_u32 << max;
    sink.fail(
        Diagnostic::new(codes::LIFE_TOO_LONG, message, int.span, "too long")
            .help(format!("write a life up to {max}, that is {slots} slots: {reason}")),
    )
}

/// The label that a stamp or legacy rule writes; `item` is the rule, `word` its first word.
fn written_label(
    lookup: Lookup<'_, '_>,
    list: &[LabelField],
    item: Span,
    word: &str,
    sink: &mut Sink,
) -> Option<WrittenLabel> {
    let pattern = list.iter().find_map(|field| match field {
        LabelField::Subject(pattern) => Some(pattern),
        _ => None,
    });
    let Some(pattern) = pattern else {
        let length = u32::try_from(word.len()).unwrap_or(0);
        let span = Span::new(item.file, item.start, item.start + length);
        report_repeated(list.iter(), sink);
        return sink.fail(
            Diagnostic::new(
                codes::SUBJECT_MISSING,
                format!("the label of this {word} rule has no subject"),
                span,
                "whose traffic is it?",
            )
            .help("add `subject PATH`, such as `subject acme.payments.api`"),
        );
    };
    let subject = lookup.subject(pattern, false, sink)?;
    let domain = subject.domain;
    let sender = (domain.id, pattern.path.span);
    let list: Vec<&LabelField> = list.iter().collect();
    let fields = fields(lookup, &list, sender, sink)?;
    narrowed(&fields, &subject, pattern, sink)?;
    Some(WrittenLabel {
        domain: domain.id,
        subject: subject.number,
        level: fields.level.map_or(subject.scope.level, |(level, _)| level),
        compartments: fields.compartments.map_or(subject.scope.compartments, |(mask, _)| mask),
        constraints: fields.constraints.unwrap_or(0),
        operation: fields.operations.first().map_or(0, |(_, number)| *number),
        operations: fields.operations,
        residency: fields.residency.unwrap_or(0),
        route: fields.route.unwrap_or(0),
        radius: fields.radius.unwrap_or(radius::DOMAIN),
        life: fields.life.unwrap_or(limits::LIFE_DEFAULT),
    })
}

/// A label says no more than its subject may: no higher level, no further compartments.
fn narrowed(
    fields: &Fields,
    subject: &Subject<'_>,
    pattern: &ast::Pattern,
    sink: &mut Sink,
) -> Option<()> {
    let (domain, scope) = (subject.domain, subject.scope);
    let text = pattern.path.text();
    let mut fine = Some(());
    if let Some((level, span)) = fields.level
        && level > scope.level
    {
        let (said, own) = (domain.level_name(level), domain.level_name(scope.level));
        let message = format!("level `{said}` is above `{own}`, the level of `{text}`");
        fine = sink.fail(
            Diagnostic::new(codes::LEVEL_RAISED, message, span, "raises the level")
                .and(pattern.span, format!("at `{own}`"))
                .help(format!("write `{own}` or lower, or raise the scope in its vocabulary")),
        );
    }
    if let Some((mask, span)) = fields.compartments
        && mask & !scope.compartments != 0
    {
        let added_mask = mask & !scope.compartments;
        let added = compartment_list(domain, added_mask);
        let own = match scope.compartments {
            0 => "in no compartment".to_owned(),
            own => format!("in {}", compartment_list(domain, own)),
        };
        let (message, them) = match added_mask.count_ones() {
            1 => (format!("{added} is no compartment of `{text}`"), "it"),
            _ => (format!("{added} are no compartments of `{text}`"), "them"),
        };
        fine = sink.fail(
            Diagnostic::new(codes::COMPARTMENTS_ADDED, message, span, "adds a compartment")
                .and(pattern.span, own)
                .help(format!("leave out {added}, or add {them} to the scope in its vocabulary")),
        );
    }
    fine
}

fn compartment_list(domain: &DomainNames, mask: u16) -> String {
    let set = |number: u8| mask & bit(number.into()).unwrap_or(0) != 0;
    let named = domain.checked.compartments.iter().filter(|(_, number)| set(*number));
    suggest::list(named.map(|(name, _)| name.as_str()), limits::COMPARTMENTS_MAX)
}

/// The rules of the edges.
#[derive(Default)]
pub(crate) struct Edges {
    pub(crate) cgroups: Vec<SmolStr>,
    pub(crate) stamps: Vec<Stamp>,
    pub(crate) delivers: Vec<Deliver>,
    pub(crate) legacies: Vec<Legacy>,
    pub(crate) carriages: Vec<Carriage>,
    /// Some legacy rules are left out, as errors were reported.
    pub(crate) legacies_missing: bool,
}

/// Conditions of an earlier rule in the same zone: cgroup, addresses, zone of entry.
type Key = (u8, Option<u16>, Option<Vec<Prefix>>, Option<u8>);

/// The rules of the edges while they are collected.
#[derive(Default)]
struct Collector {
    edges: Edges,
    labels: usize,
    cgroup_ids: FxHashMap<SmolStr, u16>,
    stamp_keys: FxHashMap<Key, Span>,
    deliver_keys: FxHashMap<Key, Span>,
    legacy_keys: FxHashMap<Key, Span>,
}

/// Checks all stamp, deliver, legacy and carriage rules.
pub(crate) fn check_all(world: &World<'_>, sink: &mut Sink) -> Edges {
    let mut collector = Collector::default();
    for (file, (_, source)) in world.files.iter().enumerate() {
        let Some(lookup) = world.lookup(file) else { continue };
        for item in &source.items {
            match item {
                ast::Item::Stamp(stamp) => collector.stamp(lookup, stamp, sink),
                ast::Item::Deliver(deliver) => collector.deliver(lookup, deliver, sink),
                ast::Item::Legacy(legacy) => collector.legacy(lookup, legacy, sink),
                ast::Item::Carriage(carriage) => {
                    let checked = carriages::check(lookup, carriage, sink);
                    collector.edges.carriages.extend(checked);
                }
                _ => {}
            }
        }
    }
    carriages::compare(&collector.edges, sink);
    collector.edges
}

impl Collector {
    fn stamp(&mut self, lookup: Lookup<'_, '_>, stamp: &ast::Stamp, sink: &mut Sink) {
        let operations = stamp.fields.iter().map(|field| match field {
            LabelField::Operation(operations) => operations.len(),
            _ => 0,
        });
        self.count_labels(operations.max().unwrap_or(0).max(1), stamp.zone.span, sink);
        let checked = check_stamp(lookup, stamp, &mut self.cgroup_ids, &mut self.edges, sink);
        let Some(stamp) = checked else { return };
        let key = (stamp.zone, stamp.cgroup, stamp.addresses.clone(), stamp.from_zone);
        warn_covered(&mut self.stamp_keys, key, stamp.span, "stamp", sink);
        self.edges.stamps.push(stamp);
    }

    fn count_labels(&mut self, more: usize, span: Span, sink: &mut Sink) {
        let before = self.labels;
        self.labels += more;
        if before <= limits::LABELS_MAX && self.labels > limits::LABELS_MAX {
            let message = format!("more than {} stamp and legacy rules", limits::LABELS_MAX);
            let help = "labels are numbered with 16 bits: put neighbours into one rule with a set";
            sink.push(
                Diagnostic::new(codes::TOO_MANY_LABELS, message, span, "one too many").help(help),
            );
        }
    }

    fn deliver(&mut self, lookup: Lookup<'_, '_>, deliver: &ast::Deliver, sink: &mut Sink) {
        let Some(deliver) = check_deliver(lookup, deliver, sink) else { return };
        let key = (deliver.zone, None, deliver.addresses.clone(), None);
        warn_covered(&mut self.deliver_keys, key, deliver.span, "deliver", sink);
        self.edges.delivers.push(deliver);
    }

    fn legacy(&mut self, lookup: Lookup<'_, '_>, legacy: &ast::Legacy, sink: &mut Sink) {
        self.count_labels(1, legacy.zone.span, sink);
        let Some(legacy) = check_legacy(lookup, legacy, sink) else {
            self.edges.legacies_missing = true;
            return;
        };
        let key = (legacy.zone, None, Some(legacy.addresses.clone()), None);
        warn_covered(&mut self.legacy_keys, key, legacy.span, "legacy", sink);
        self.edges.legacies.push(legacy);
    }
}

/// Warns when an earlier rule of the zone asks for nothing that this one does not ask for.
fn warn_covered(
    seen: &mut FxHashMap<Key, Span>,
    key: Key,
    item: Span,
    word: &str,
    sink: &mut Sink,
) {
    let (zone, cgroup, addresses, from_zone) = &key;
    let mut covering: Option<Span> = None;
    for keep in 0..4_u8 {
        let kept = |flag: u8| keep & flag != 0;
        let weaker = (
            *zone,
            cgroup.filter(|_| kept(1)),
            if kept(2) { addresses.clone() } else { None },
            *from_zone,
        );
        if let Some(&span) = seen.get(&weaker)
            && covering.is_none_or(|known| (span.file, span.start) < (known.file, known.start))
        {
            covering = Some(span);
        }
    }
    if let Some(first) = covering {
        let length = u32::try_from(word.len()).unwrap_or(0);
        let start = |span: Span| Span::new(span.file, span.start, span.start + length);
        let message =
            format!("this {word} rule never applies: an earlier one takes all its traffic");
        sink.push(
            Diagnostic::new(codes::UNREACHABLE_ITEM, message, start(item), "never applies")
                .and(start(first), "this one comes first")
                .help(
                    "the first rule that matches wins: put the narrower rule first, or remove it",
                ),
        );
    }
    seen.entry(key).or_insert(item);
}

fn check_stamp(
    lookup: Lookup<'_, '_>,
    stamp: &ast::Stamp,
    cgroup_ids: &mut FxHashMap<SmolStr, u16>,
    edges: &mut Edges,
    sink: &mut Sink,
) -> Option<Stamp> {
    let zone = lookup.zone(&stamp.zone, sink);
    let mut cgroup: Option<(&ast::Text, Span)> = None;
    let mut addresses: Option<(Option<Vec<Prefix>>, Span)> = None;
    let mut from_zone: Option<(Option<u8>, Span)> = None;
    for condition in &stamp.conditions {
        match condition {
            StampCondition::Cgroup(text) => match cgroup {
                Some((_, first)) => sink.push(said_twice("cgroup", text.span, first)),
                None => cgroup = Some((text, text.span)),
            },
            StampCondition::Address(set) => {
                let value = sets::prefixes(lookup, set, "address", sink);
                let Some(span) = sets::span_of(&set.members) else { continue };
                match &addresses {
                    Some((_, first)) => sink.push(said_twice("address", span, *first)),
                    None => addresses = Some((value, span)),
                }
            }
            StampCondition::FromZone(name) => match &from_zone {
                Some((_, first)) => sink.push(said_twice("from zone", name.span, *first)),
                None => from_zone = Some((lookup.zone(name, sink), name.span)),
            },
        }
    }
    let cgroup = cgroup.map(|(text, _)| cgroup_number(text, cgroup_ids, &mut edges.cgroups, sink));
    let label = written_label(lookup, &stamp.fields, stamp.span, "stamp", sink);
    Some(Stamp {
        zone: zone?,
        cgroup: whole(cgroup)?,
        addresses: whole(addresses.map(|(value, _)| value))?,
        from_zone: whole(from_zone.map(|(value, _)| value))?,
        fragments: stamp.fields.iter().any(|field| matches!(field, LabelField::Fragments(_))),
        label: label?,
        span: stamp.span,
    })
}

/// Something optional that may have failed: `None` after an error.
fn whole<T>(value: Option<Option<T>>) -> Option<Option<T>> {
    match value {
        Some(None) => None,
        Some(value) => Some(value),
        None => Some(None),
    }
}

fn cgroup_number(
    pattern: &ast::Text,
    ids: &mut FxHashMap<SmolStr, u16>,
    cgroups: &mut Vec<SmolStr>,
    sink: &mut Sink,
) -> Option<u16> {
    if let Some(&number) = ids.get(&pattern.text) {
        return Some(number);
    }
    if cgroups.len() == limits::CGROUPS_MAX {
        let message = format!("more than {} cgroup patterns", limits::CGROUPS_MAX);
        return sink.fail(
            Diagnostic::new(codes::TOO_MANY_CGROUPS, message, pattern.span, "one too many")
                .help("a node numbers its patterns with 16 bits: use `*` to put several into one"),
        );
    }
    cgroups.push(pattern.text.clone());
    let number = u16::try_from(cgroups.len()).ok()?;
    ids.insert(pattern.text.clone(), number);
    Some(number)
}

fn check_deliver(
    lookup: Lookup<'_, '_>,
    deliver: &ast::Deliver,
    sink: &mut Sink,
) -> Option<Deliver> {
    let zone = lookup.zone(&deliver.zone, sink);
    let addresses = deliver.addresses.as_ref().map(|m| sets::prefixes(lookup, m, "address", sink));
    let object = lookup.subject(&deliver.object, false, sink);
    let object = object.map(|object| (object.domain.id, object.number));
    Some(Deliver { zone: zone?, addresses: whole(addresses)?, object: object?, span: deliver.span })
}

/// Neighbours without labels have no sockets here that could choose.
fn declares_nothing(fields: &[LabelField], sink: &mut Sink) -> Option<()> {
    for field in fields {
        if let LabelField::Operation(paths) = field
            && let [first, further, ..] = paths.as_slice()
        {
            let message = "a neighbour without labels declares no operation";
            let said = format!("its traffic counts as `{}`", first.text());
            return sink.fail(
                Diagnostic::new(codes::UNDECLARABLE, message, further.span, "nobody can say this")
                    .and(first.span, said)
                    .help("name one operation; legacy rules for other addresses may name others"),
            );
        }
    }
    Some(())
}

fn check_legacy(lookup: Lookup<'_, '_>, legacy: &ast::Legacy, sink: &mut Sink) -> Option<Legacy> {
    let addresses = sets::prefixes(lookup, &legacy.addresses, "from", sink);
    let zone = lookup.zone(&legacy.zone, sink);
    let label = written_label(lookup, &legacy.fields, legacy.span, "legacy", sink);
    declares_nothing(&legacy.fields, sink)?;
    Some(Legacy { addresses: addresses?, zone: zone?, label: label?, span: legacy.span })
}
