//! What the translations of an image do, in the words of the language: a line for each thing that is said, so
//! that those of two images compare. Works on images alone, as [`super::diff`] does.

use std::collections::BTreeMap;

use govc_abi::{
    attribute::{self, Request, scope_key, state},
    image::program,
    label::{Label, radius},
    limits::SUBJECTS_MAX,
    node::LEAF_NONE,
    translate, walk,
};
use govc_image::{Domain, Image, ImageTables, Numbered};

/// The last number of a subject.
const SUBJECT_MAX: u32 = SUBJECTS_MAX - 1;
/// Lives of labels are powers of two of slots below this one.
const LIFE_MAX: u8 = 15;

/// All that the translations of an image say: `translate partner -> acme on lan: cap level public`.
#[must_use]
pub fn lines(image: &Image) -> Vec<String> {
    let names = image.names();
    let mut lines = Vec::new();
    for (zone, named) in (1..).zip(&names.zones) {
        for (index, from) in (0..).zip(&names.domains) {
            for (to, parts) in said(image, zone, index) {
                let to = names.domain(to).map_or("?", |domain| domain.name.as_str());
                let head = format!("translate {} -> {to} on {}", from.name, named.name);
                lines.extend(parts.into_iter().map(|part| format!("{head}: {part}")));
            }
        }
    }
    lines
}

/// Subjects that become one, or stay who they are.
struct Group {
    /// Inclusive spans, ascending, that do not touch.
    spans: Vec<(u32, u32)>,
    /// Number of the translation of the first of them.
    number: u32,
    to: u32,
    subject: Option<u32>,
}

/// Index of the domain that labels go into, and what becomes of them.
fn said(image: &Image, zone: u8, from: u32) -> Vec<(u32, Vec<String>)> {
    let groups = groups(image, zone, from);
    let mut said: BTreeMap<u32, (u32, Vec<String>)> = BTreeMap::new();
    for (transform, group) in groups {
        let (_, parts) = said.entry(transform).or_insert_with(|| {
            let first = group.spans.first().map_or(0, |span| span.0);
            (group.to, rest(image, (zone, from, group.to), group.number, first))
        });
        let names = image.names();
        let (Some(domain), Some(subject)) = (names.domain(from), group.subject) else { continue };
        let becomes = names.subject(group.to, subject);
        let becomes = becomes.unwrap_or_else(|| format!("subject {subject}"));
        let who = spans(domain, &group.spans).into_iter();
        parts.extend(who.map(|who| format!("{who} -> {becomes}")));
    }
    said.into_values().collect()
}

/// Who becomes whom, by the word where the rest of the translation stands: between any two ends of spans that
/// a translation names, all subjects fare alike.
fn groups(image: &Image, zone: u8, from: u32) -> Vec<(u32, Group)> {
    let all: Vec<_> = image.translations().collect();
    let spans = all.iter().filter(|one| one.from == from).filter_map(|one| one.subjects);
    let mut starts: Vec<u32> = spans.flat_map(|(first, last)| [first, last + 1]).collect();
    starts.push(0);
    starts.sort_unstable();
    starts.dedup();
    starts.retain(|start| *start <= SUBJECT_MAX);
    let ends = starts.iter().skip(1).map(|start| start - 1).chain([SUBJECT_MAX]);
    let mut groups: BTreeMap<(u32, Option<u32>), Group> = BTreeMap::new();
    for (&first, last) in starts.iter().zip(ends) {
        let number = winner(image, zone, (from, first));
        let known = all.get(number as usize).filter(|one| one.subjects.is_some());
        let Some(known) = known.filter(|_| number != LEAF_NONE) else { continue };
        let transform = translate::transform_at(&ImageTables::new(image), number);
        let group = groups.entry((transform, known.subject)).or_insert_with(|| Group {
            spans: Vec::new(),
            number,
            to: known.to,
            subject: known.subject,
        });
        match group.spans.last_mut() {
            Some(before) if before.1 + 1 == first => before.1 = last,
            _ => group.spans.push((first, last)),
        }
    }
    groups.into_iter().map(|((transform, _), group)| (transform, group)).collect()
}

/// The translation of a sender's labels that leave by a zone.
fn winner(image: &Image, zone: u8, (from, subject): (u32, u32)) -> u32 {
    let mut request = Request::EMPTY;
    let values = [
        (attribute::STATE, state::VALID),
        (attribute::SUBJECT, scope_key(from, subject)),
        (attribute::EGRESS_ZONE, zone.into()),
    ];
    for (attribute, value) in values {
        if let Some(place) = request.scalars.get_mut(usize::from(attribute)) {
            *place = value;
        }
    }
    image.decide(program::TRANSLATE, &request).winner
}

/// Spans of subjects as scopes: with `.**` where all that is in one belongs to them.
fn spans(domain: &Domain, spans: &[(u32, u32)]) -> Vec<String> {
    let holds = |&(first, last): &(u32, u32)| spans.iter().any(|&(a, b)| a <= first && last <= b);
    if holds(&(0, SUBJECT_MAX)) {
        return vec![format!("{}.**", domain.name)];
    }
    let mut parts = Vec::new();
    let mut whole: Option<&str> = None;
    for scope in &domain.scopes {
        let inside =
            |above: &str| scope.path.strip_prefix(above).is_some_and(|rest| rest.starts_with('.'));
        if whole.is_some_and(inside) {
            continue;
        }
        whole = None;
        let path = format!("{}.{}", domain.name, scope.path);
        if !scope.blocks.is_empty() && scope.blocks.iter().all(holds) {
            let leaf = scope.subjects.is_some_and(|own| scope.blocks == [own]);
            parts.push(if leaf { path } else { format!("{path}.**") });
            whole = Some(&scope.path);
            continue;
        }
        let Some((first, last)) = scope.subjects else { continue };
        for &(a, b) in spans {
            let (a, b) = (a.max(first), b.min(last));
            match (a - first.min(a), b) {
                _ if a > b => {}
                _ if (a, b) == (first, last) => parts.push(path.clone()),
                (from, _) if a == b => parts.push(format!("{path}[{from}]")),
                (from, _) => parts.push(format!("{path}[{from}..{}]", b - first)),
            }
        }
    }
    parts
}

/// What becomes of all but the subject, asked one thing after the other.
fn rest(
    image: &Image,
    (zone, from_index, to_index): (u8, u32, u32),
    number: u32,
    subject: u32,
) -> Vec<String> {
    let names = image.names();
    let (Some(from), Some(to)) = (names.domain(from_index), names.domain(to_index)) else {
        return Vec::new();
    };
    let plain = Label::default()
        .with_domain(from.number)
        .with_subject(subject)
        .with_radius(radius::ANY)
        .with_life(LIFE_MAX);
    let becomes = |label| image.translate(zone, from_index, label)?.ok().map(|(_, goes)| goes);
    let Some(least) = becomes(plain) else { return vec!["nothing passes".into()] };
    let added = least.constraints();
    let mut parts = Vec::new();
    let mut each = |what: &str,
                    known: &[Numbered],
                    write: &dyn Fn(Label, u16) -> Label,
                    read: &dyn Fn(Label) -> Option<String>| {
        for one in known {
            let Some(goes) = becomes(write(plain, one.number)) else { continue };
            match read(goes) {
                // Within a domain, what stays is not written.
                Some(goes) if from_index == to_index && goes == one.name => {}
                Some(goes) => parts.push(format!("{what} {} -> {goes}", one.name)),
                None => parts.push(format!("drop {what} {{{}}}", one.name)),
            }
        }
    };
    let name = |name: Option<&str>, number: u16| {
        Some(name.map_or_else(|| number.to_string(), str::to_owned))
    };
    let bits = |names: Vec<String>| (!names.is_empty()).then(|| names.join(", "));
    each("level", &from.levels, &|label, n| label.with_level(n as u8), &|goes| {
        name(to.level(goes.level().into()), goes.level().into())
    });
    each(
        "compartments",
        &from.compartments,
        &|label, n| label.with_compartments(1 << n),
        &|goes| bits(to.compartments(goes.compartments())),
    );
    each("constraints", &from.constraints, &|label, n| label.with_constraints(1 << n), &|goes| {
        bits(to.constraints(goes.constraints() & !added))
    });
    each("operation", &from.operations, &|label, n| label.with_operation(n), &|goes| {
        name(to.operation(goes.operation()), goes.operation())
    });
    each("residency", &from.residencies, &|label, n| label.with_residency(n as u8), &|goes| {
        name(to.residency(goes.residency().into()), goes.residency().into())
    });
    each("route", &from.routes, &|label, n| label.with_route(n as u8), &|goes| {
        name(to.route(goes.route().into()), goes.route().into())
    });
    parts.extend(bits(to.constraints(added)).map(|names| format!("add constraints {{{names}}}")));
    let radius = radius::NAMES.get(usize::from(least.radius())).copied().unwrap_or("?");
    parts.push(format!("radius {radius}"));
    parts.push(format!("life {}", least.life()));
    if translate::readdresses(&ImageTables::new(image), number) {
        parts.push("readdress".into());
    }
    parts
}

/// Index of the domain of the label that a request has, and the label, as far as a request says: with no
/// time and no grant.
#[must_use]
pub fn label_of(request: &Request) -> (u32, Label) {
    let get = |attribute| request.scalars.get(usize::from(attribute)).copied().unwrap_or(0);
    let key = get(attribute::SUBJECT);
    let label = Label::default()
        .with_subject(key & SUBJECT_MAX)
        .with_level(get(attribute::LEVEL) as u8)
        .with_radius(get(attribute::RADIUS) as u8)
        .with_compartments(get(attribute::COMPARTMENTS) as u16)
        .with_constraints(get(attribute::CONSTRAINTS) as u16)
        .with_operation(get(attribute::OPERATION) as u16)
        .with_residency(get(attribute::RESIDENCY) as u8)
        .with_route(get(attribute::ROUTE) as u8);
    (key >> 24, label)
}

/// A label in words: `from acme.guest  level public  radius domain`.
#[must_use]
pub fn words(image: &Image, domain: u32, label: &Label) -> String {
    let mut request = Request::EMPTY;
    walk::set_label(&mut request, state::VALID, domain, label);
    super::words::label(image.names(), None, &request).join("  ")
}
