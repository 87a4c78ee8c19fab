//! Translations between domains: every name in the vocabulary that it belongs to, and the proof that
//! none of them widens.
//!
//! A translation is a finite table for each field, so that all labels are covered by looking at every
//! entry: what is told as a mistake is a label that shows it.

use govc_abi::label::radius;
use govc_abi::limits;
use govc_grammar::ast::{self, Becomes, TranslateKind, TranslatePart};
use govc_grammar::diagnostic::Diagnostic;
use govc_grammar::span::Span;
use rustc_hash::FxHashMap;
use smol_str::SmolStr;

use super::kind::{Flat, Kind};
use super::labels::{as_path, life, said_twice};
use super::names::unknown_among;
use super::owned::{Owned, Use};
use super::scopes::{Sense, Subject};
use super::sink::Sink;
use crate::checked::{Transform, TranslatedScope, Translation};
use crate::codes;
use crate::index::Meant;
use crate::resolve::{Lookup, World};
use crate::suggest;
use crate::vocabulary::DomainNames;

/// Largest life that the field can say, as a power of two of slots.
const LIFE_FIELD_MAX: u8 = 15;

/// Checks all translations.
pub(crate) fn check_all(world: &World<'_>, sink: &mut Sink) -> Vec<Translation> {
    let mut translations = Vec::new();
    for (file, (_, source)) in world.files.iter().enumerate() {
        let Some(lookup) = world.lookup(file) else { continue };
        for item in &source.items {
            if let ast::Item::Translate(translate) = item {
                translations.extend(check(lookup, translate, sink));
            }
        }
    }
    translations
}

/// A translation while its parts are read.
struct Reader<'w, 'a, 's> {
    lookup: Lookup<'w, 'a>,
    from: &'w DomainNames,
    to: &'w DomainNames,
    sink: &'s mut Sink,
    /// What was said, and where.
    said: FxHashMap<(&'static str, SmolStr), Span>,
    scopes: Vec<TranslatedScope>,
    subjects: Vec<(Subject<'w>, Span)>,
    cap: Option<(u8, Span)>,
    /// Number of the level that comes in, of the one that it becomes, and where.
    levels: Vec<(u8, u8, Span)>,
    transform: Transform,
    drops_compartments: bool,
}

fn check(
    lookup: Lookup<'_, '_>,
    translate: &ast::Translate,
    sink: &mut Sink,
) -> Option<Translation> {
    let zone = lookup.zone(&translate.zone, sink);
    let from = domain(lookup, &translate.from, sink);
    let to = domain(lookup, &translate.to, sink);
    let (zone, from, to) = (zone?, from?, to?);
    let mut reader = Reader {
        lookup,
        from,
        to,
        sink,
        said: FxHashMap::default(),
        scopes: Vec::new(),
        subjects: Vec::new(),
        cap: None,
        levels: Vec::new(),
        transform: nothing(),
        drops_compartments: false,
    };
    let mut whole = true;
    for part in &translate.parts {
        whole &= reader.part(part).is_some();
    }
    let head = Span::new(translate.span.file, translate.span.start, translate.zone.span.end);
    let levels = if from.id == to.id { reader.same_levels() } else { reader.levels(head) };
    reader.transform.levels = levels?;
    reader.complete();
    if !whole || !reader.within_subjects() {
        return None;
    }
    let Reader { scopes, transform, .. } = reader;
    let (from, to) = (from.id, to.id);
    Some(Translation { from, to, zone, scopes, transform, span: translate.span, head })
}

/// A transform that says nothing yet.
fn nothing() -> Transform {
    Transform {
        levels: [0; limits::LEVELS_MAX],
        compartments: Vec::new(),
        constraints: Vec::new(),
        added: 0,
        operations: Vec::new(),
        residencies: Vec::new(),
        routes: Vec::new(),
        radius: radius::DOMAIN,
        life: limits::LIFE_DEFAULT,
        readdress: false,
    }
}

fn domain<'w>(
    lookup: Lookup<'w, '_>,
    name: &ast::Name,
    sink: &mut Sink,
) -> Option<&'w DomainNames> {
    if let Some(id) = lookup.domain_named(&name.text) {
        lookup.note(name.span, || Meant::Domain(id));
        return lookup.world.domain(id);
    }
    lookup.unknown(Kind::Domain, &name.text, name.span, sink)
}

impl Reader<'_, '_, '_> {
    fn is_same(&self) -> bool {
        self.from.id == self.to.id
    }

    fn part(&mut self, part: &TranslatePart) -> Option<()> {
        if self.is_same() {
            self.stays(part)?;
        }
        match &part.kind {
            TranslateKind::Scope { from, to } => self.scope(from, to),
            TranslateKind::Cap(name) => {
                self.once("cap level", "", name.span)?;
                let level = self.byte(self.to, Flat::Level, name)?;
                self.cap = Some((level, name.span));
                Some(())
            }
            TranslateKind::Level(pairs) => self.each(pairs, |reader, pair| {
                let (came, goes) = reader.pair(Flat::Level, pair)?;
                reader.levels.push((came, goes, pair.from.span.to(pair.to.span)));
                Some(())
            }),
            TranslateKind::Compartments(pairs) => self.each(pairs, |reader, pair| {
                let (came, goes) = reader.pair(Flat::Compartment, pair)?;
                reader.transform.compartments.push((came, Some(goes)));
                Some(())
            }),
            TranslateKind::Constraints(pairs) => self.each(pairs, |reader, pair| {
                let (came, goes) = reader.pair(Flat::Constraint, pair)?;
                reader.transform.constraints.push((came, Some(goes)));
                Some(())
            }),
            TranslateKind::Residency(pairs) => self.each(pairs, |reader, pair| {
                let (came, goes) = reader.pair(Flat::Residency, pair)?;
                reader.transform.residencies.push((came.into(), goes.into()));
                reader.within_residency(came, goes, pair)
            }),
            TranslateKind::Route(pairs) => self.each(pairs, |reader, pair| {
                let (came, goes) = reader.pair(Flat::Route, pair)?;
                reader.transform.routes.push((came.into(), goes.into()));
                Some(())
            }),
            TranslateKind::Operation(pairs) => self.each(pairs, |reader, pair| {
                let came = reader.operation(reader.from, &pair.from);
                let goes = reader.operation(reader.to, &pair.to);
                let (came, goes) = (came?, goes?);
                reader.once("operation", &pair.from.text(), pair.from.span)?;
                reader.transform.operations.push((came, goes));
                Some(())
            }),
            TranslateKind::DropCompartments(None) => {
                self.once("drop compartments", "", part.span)?;
                self.drops_compartments = true;
                Some(())
            }
            TranslateKind::DropCompartments(Some(names)) => self.each(names, |reader, name| {
                let bit = reader.dropped(Flat::Compartment, name)?;
                reader.transform.compartments.push((bit, None));
                Some(())
            }),
            TranslateKind::DropConstraints(names) => self.each(names, |reader, name| {
                let bit = reader.dropped(Flat::Constraint, name)?;
                reader.transform.constraints.push((bit, None));
                Some(())
            }),
            TranslateKind::AddConstraints(names) => self.each(names, |reader, name| {
                let bit = reader.byte(reader.to, Flat::Constraint, name)?;
                reader.transform.added |= 1_u16.checked_shl(bit.into()).unwrap_or(0);
                Some(())
            }),
            TranslateKind::Radius(name) => {
                self.once("radius", "", name.span)?;
                self.transform.radius = self.lookup.radius(&as_path(name), None, self.sink)?;
                Some(())
            }
            TranslateKind::Readdress => {
                self.once("readdress", "", part.span)?;
                self.transform.readdress = true;
                Some(())
            }
            TranslateKind::Life(int) => {
                self.once("life", "", int.span)?;
                self.transform.life = life(int, self.sink)?;
                Some(())
            }
        }
    }

    /// All of a list, so that every mistake in it is told.
    fn each<T>(
        &mut self,
        list: &[T],
        mut read: impl FnMut(&mut Self, &T) -> Option<()>,
    ) -> Option<()> {
        let mut whole = Some(());
        for one in list {
            if read(self, one).is_none() {
                whole = None;
            }
        }
        whole
    }

    /// Within one domain names mean what they meant: only what narrows can be said.
    fn stays(&mut self, part: &TranslatePart) -> Option<()> {
        let what = match &part.kind {
            TranslateKind::Scope { .. } => "subjects",
            TranslateKind::Level(_) => "levels",
            TranslateKind::Compartments(_) => "compartments",
            TranslateKind::Constraints(_) => "constraints",
            TranslateKind::Operation(_) => "operations",
            TranslateKind::Residency(_) => "residency sets",
            TranslateKind::Route(_) => "route classes",
            TranslateKind::DropConstraints(_) => "constraints",
            TranslateKind::Cap(_)
            | TranslateKind::DropCompartments(_)
            | TranslateKind::AddConstraints(_)
            | TranslateKind::Radius(_)
            | TranslateKind::Readdress
            | TranslateKind::Life(_) => return Some(()),
        };
        let domain = self.from.name();
        let message = format!("{what} of `{domain}` stay what they are within `{domain}`");
        self.sink.fail(
            Diagnostic::new(codes::TRANSLATION_RENAMES, message, part.span, "changes them").help(
                "remove it; within a domain a translation can `cap level`, `drop compartments`, `add \
                 constraints`, and limit `radius` and `life`",
            ),
        )
    }

    fn scope(&mut self, from: &ast::Pattern, to: &ast::Pattern) -> Option<()> {
        let mut ranges = Vec::new();
        let came = self.lookup.add_scopes(from, Sense::Meant, &mut ranges, self.sink);
        let subject = self.lookup.subject(to, false, self.sink);
        let (came, subject) = (came?, subject?);
        for (found, wanted, span) in
            [(came, self.from, from.span), (subject.domain.id, self.to, to.span)]
        {
            if found != wanted.id {
                let name = self.lookup.world.domain(found).map_or("", |domain| domain.name());
                let message =
                    format!("a scope of domain `{name}` where one of `{}` belongs", wanted.name());
                let label = format!("of domain `{name}`");
                return self.sink.fail(
                    Diagnostic::new(codes::MIXED_DOMAINS, message, span, label)
                        .help(format!("write a scope of domain `{}` here", wanted.name())),
                );
            }
        }
        let mut ranges: Vec<_> = ranges.iter().map(|range| (range.first, range.last)).collect();
        ranges.sort_unstable();
        self.scopes.push(TranslatedScope { ranges, subject: subject.number });
        self.subjects.push((subject, to.span));
        Some(())
    }

    /// Reports what is said a second time.
    fn once(&mut self, word: &'static str, name: &str, span: Span) -> Option<()> {
        let key = (word, SmolStr::from(name));
        if let Some(&first) = self.said.get(&key) {
            let text = if name.is_empty() { word } else { name };
            return self.sink.fail(said_twice(text, span, first));
        }
        self.said.insert(key, span);
        Some(())
    }

    /// Number of a name in one of the two domains.
    fn byte(&mut self, domain: &DomainNames, flat: Flat, name: &ast::Name) -> Option<u8> {
        let Some(number) = domain.flat(flat, &name.text) else {
            if self.lookup.world.packages.broken(domain.package) {
                self.sink.poison();
                return None;
            }
            return self.sink.fail(unknown_among(domain, flat, name));
        };
        let noted = Use {
            name: Owned::Flat(flat, &name.text),
            segments: std::slice::from_ref(name),
            span: name.span,
            domain: None,
            compared: None,
        };
        self.lookup.note_use(&noted, Some(domain));
        u8::try_from(number).ok()
    }

    /// Both numbers of a pair whose first name is said once.
    fn pair(&mut self, flat: Flat, pair: &Becomes<ast::Name>) -> Option<(u8, u8)> {
        let (from, to) = (self.from, self.to);
        let came = self.byte(from, flat, &pair.from);
        let goes = self.byte(to, flat, &pair.to);
        let (came, goes) = (came?, goes?);
        self.once(flat.kind().noun(), &pair.from.text, pair.from.span)?;
        Some((came, goes))
    }

    /// Number of a name that is dropped, and nothing else.
    fn dropped(&mut self, flat: Flat, name: &ast::Name) -> Option<u8> {
        let number = self.byte(self.from, flat, name)?;
        self.once(flat.kind().noun(), &name.text, name.span)?;
        Some(number)
    }

    fn operation(&mut self, domain: &DomainNames, path: &ast::Path) -> Option<u16> {
        let segments = path.segments.as_slice();
        let inner = match segments {
            [first, rest @ ..] if rest.len() == 2 && first.text == *domain.name() => rest,
            all => all,
        };
        let found = match inner {
            [group, name] => domain.operation(&group.text, &name.text).map(|n| (n, group, name)),
            _ => None,
        };
        let Some((number, group, name)) = found else {
            if self.lookup.world.packages.broken(domain.package) {
                self.sink.poison();
                return None;
            }
            return self.sink.fail(unknown_operation(domain, path));
        };
        let name = Owned::Operation(&group.text, &name.text);
        let noted = Use { name, segments, span: path.span, domain: None, compared: None };
        self.lookup.note_use(&noted, Some(domain));
        Some(number)
    }
}

// ---- What is proven.

impl Reader<'_, '_, '_> {
    /// What each level becomes where both domains have levels of their own.
    fn levels(&mut self, head: Span) -> Option<[u8; limits::LEVELS_MAX]> {
        let (from, to) = (self.from.name(), self.to.name());
        let lowest = self.to.checked.levels.iter().map(|(_, number)| *number).min().unwrap_or(0);
        let Some((cap, cap_span)) = self.cap else {
            if self.said.contains_key(&("cap level", SmolStr::default())) {
                return None;
            }
            let message = format!("nothing says how high labels of `{from}` may get in `{to}`");
            let example = self.to.level_name(lowest);
            return self.sink.fail(
                Diagnostic::new(codes::TRANSLATION_UNCAPPED, message, head, "no `cap level`").help(
                    format!(
                        "levels of two domains do not compare by themselves: add `cap level \
                         {example}`, and `level NAME -> NAME` for what is to become more"
                    ),
                ),
            );
        };
        let mut whole = true;
        for &(came, goes, span) in &self.levels {
            if goes > cap {
                let (came, goes) = (self.from.level_name(came), self.to.level_name(goes));
                let cap = self.to.level_name(cap);
                let message = format!(
                    "a label of `{from}` at level `{came}` would leave at `{goes}`, above `{cap}`"
                );
                let help = format!("write `{cap}` or lower, or raise the cap");
                self.sink.push(
                    Diagnostic::new(codes::TRANSLATION_WIDENS, message, span, "above the cap")
                        .and(cap_span, "the cap")
                        .help(help),
                );
                whole = false;
            }
        }
        whole &= self.in_order();
        if cap > lowest && self.levels.iter().all(|&(_, goes, _)| goes < cap) {
            let (cap, lowest) = (self.to.level_name(cap), self.to.level_name(lowest));
            let message = format!("no level of `{from}` becomes `{cap}`");
            let help = format!(
                "what no `level` line names becomes `{lowest}`: add `level NAME -> {cap}`, or lower the cap"
            );
            let label = "nothing gets so high";
            self.sink
                .push(Diagnostic::new(codes::CAP_UNREACHED, message, cap_span, label).help(help));
        }
        let mut levels = [lowest; limits::LEVELS_MAX];
        for &(came, goes, _) in &self.levels {
            if let Some(place) = levels.get_mut(usize::from(came)) {
                *place = goes;
            }
        }
        whole.then_some(levels)
    }

    /// Whether no lower level becomes a higher one than a higher level does.
    fn in_order(&mut self) -> bool {
        let mut levels = self.levels.clone();
        levels.sort_unstable_by_key(|&(came, ..)| came);
        let mut ordered = true;
        for pair in levels.windows(2) {
            let [(below, high, first), (above, low, second)] = *pair else { continue };
            if high > low {
                let name = |level| self.from.level_name(level);
                let goes = |level| self.to.level_name(level);
                let message = format!(
                    "a label of `{}` at level `{}` would leave at `{}`, and one at `{}` only at `{}`",
                    self.from.name(),
                    name(below),
                    goes(high),
                    name(above),
                    goes(low)
                );
                let (below, above) = (name(below), name(above));
                let diagnostic = Diagnostic::new(
                    codes::TRANSLATION_WIDENS,
                    message,
                    first,
                    "higher than what is above it",
                )
                .and(second, format!("`{above}` is above `{below}`"))
                .help("let levels keep their order");
                self.sink.push(diagnostic);
                ordered = false;
            }
        }
        ordered
    }

    /// Levels within one domain: the same, or the cap.
    fn same_levels(&mut self) -> Option<[u8; limits::LEVELS_MAX]> {
        let cap = self.cap.map_or(u8::MAX, |(cap, _)| cap);
        let mut levels = [0; limits::LEVELS_MAX];
        for (number, place) in (0..).zip(&mut levels) {
            *place = cap.min(number);
        }
        Some(levels)
    }

    /// Says what is left unsaid.
    fn complete(&mut self) {
        let same = self.is_same();
        let bits = |list: &mut Vec<(u8, Option<u8>)>, becomes: fn(u8) -> Option<u8>| {
            for bit in 0..limits::COMPARTMENTS_MAX as u8 {
                if list.iter().all(|&(known, _)| known != bit) {
                    list.push((bit, becomes(bit)));
                }
            }
        };
        let Transform { compartments, constraints, .. } = &mut self.transform;
        if self.drops_compartments {
            bits(compartments, |_| None);
        } else if same {
            bits(compartments, Some);
        }
        if same {
            bits(constraints, Some);
            if !self.said.contains_key(&("radius", SmolStr::default())) {
                self.transform.radius = radius::ANY;
            }
            if !self.said.contains_key(&("life", SmolStr::default())) {
                self.transform.life = LIFE_FIELD_MAX;
            }
        }
        self.transform.compartments.sort_unstable();
        self.transform.constraints.sort_unstable();
        self.transform.operations.sort_unstable();
        self.transform.residencies.sort_unstable();
        self.transform.routes.sort_unstable();
    }

    /// No data gets into a jurisdiction that its label kept it out of.
    fn within_residency(&mut self, came: u8, goes: u8, pair: &Becomes<ast::Name>) -> Option<()> {
        let find = |domain: &DomainNames, number| {
            let sets = domain.checked.residencies.iter();
            let found = sets.clone().find(|set| set.number == number);
            found.and_then(|set| set.jurisdictions.clone())
        };
        let Some(allowed) = find(self.from, came) else { return Some(()) };
        let (from, to) = (self.from.name(), self.to.name());
        let beyond = match find(self.to, goes) {
            None => format!("`{}` of `{to}` is everywhere", pair.to.text),
            Some(set) => {
                let beyond: Vec<_> = set.iter().filter(|one| !allowed.contains(one)).collect();
                let Some(first) = beyond.first() else { return Some(()) };
                format!("`{}` of `{to}` holds `{first}`", pair.to.text)
            }
        };
        let message = format!(
            "data of `{from}` that has to stay in `{}` could go further: {beyond}",
            pair.from.text
        );
        let span = pair.from.span.to(pair.to.span);
        self.sink.fail(
            Diagnostic::new(codes::TRANSLATION_WIDENS, message, span, "a larger set")
                .help(format!("name a set of `{to}` that lies within it")),
        )
    }

    /// No subject gets more than it has in its own vocabulary.
    fn within_subjects(&mut self) -> bool {
        let mut whole = true;
        for (subject, span) in &self.subjects {
            let scope = subject.scope;
            let high = self.levels.iter().find(|&&(_, goes, _)| goes > scope.level);
            if let Some(&(came, goes, said)) = high {
                let message = format!(
                    "a label of `{}` at level `{}` would leave at `{}`, above `{}` of `{}.{}`",
                    self.from.name(),
                    self.from.level_name(came),
                    self.to.level_name(goes),
                    self.to.level_name(scope.level),
                    self.to.name(),
                    scope.path
                );
                self.sink.push(
                    Diagnostic::new(codes::TRANSLATION_WIDENS, message, *span, "below that")
                        .and(said, "raises it")
                        .help("lower that level, or translate this scope in an item of its own"),
                );
                whole = false;
            }
            let bits =
                self.transform.compartments.iter().filter_map(|&(came, goes)| Some((came, goes?)));
            let lacks =
                |bit: u8| scope.compartments & 1_u16.checked_shl(bit.into()).unwrap_or(0) == 0;
            if let Some((came, goes)) = bits.clone().find(|&(_, goes)| lacks(goes)) {
                let name = |domain: &DomainNames, bit: u8| {
                    let known =
                        domain.checked.compartments.iter().find(|(_, number)| *number == bit);
                    known.map_or_else(SmolStr::default, |(name, _)| name.clone())
                };
                let (came, goes) = (name(self.from, came), name(self.to, goes));
                let message = format!(
                    "a label of `{}` in compartment `{came}` would leave in `{goes}`, which `{}.{}` lacks",
                    self.from.name(),
                    self.to.name(),
                    scope.path
                );
                self.sink.push(
                    Diagnostic::new(codes::TRANSLATION_WIDENS, message, *span, "lacks it").help(
                        format!("write `drop compartments {{{came}}}`, or translate this scope in an item of its own"),
                    ),
                );
                whole = false;
            }
        }
        whole
    }
}

fn unknown_operation(domain: &DomainNames, path: &ast::Path) -> Diagnostic {
    let text = path.text();
    let message = format!("domain `{}` has no operation `{text}`", domain.name());
    let diagnostic = Diagnostic::new(codes::UNKNOWN_OPERATION, message, path.span, "not found");
    let names = domain.checked.operations.iter().map(|(name, _)| name.as_str());
    match suggest::near(&text, names) {
        Some(near) => {
            near.offer(diagnostic.help(format!("did you mean `{}`?", near.name)), path.span)
        }
        None => diagnostic.help(Kind::Operation.declaration()),
    }
}
