//! Rights as people write and read them: numbers, or names of a vocabulary.

use std::path::Path;

use govc_abi::label::radius;
use govc_authority::{
    intervals::Intervals,
    lattice::{Excess, Rights, Stamp},
    transit,
};
use govc_image::{Domain, Image, LabelKind, Numbered};

use crate::{
    arguments::{Sources, Terms},
    failure::Failure,
    input::{self, Analysis, Overlay},
    state, times,
};

/// The image of a policy, an image file or a bundle, from which names are taken.
///
/// # Errors
/// It cannot be read, or there are mistakes in it.
pub fn names_of(path: &Path, include: &[std::path::PathBuf]) -> Result<Image, Failure> {
    if state::is_bundle(path)? {
        return Ok(state::read_bundle(path)?.0.unverified_image()?);
    }
    if path.extension().is_none_or(|suffix| suffix != "gov") {
        return crate::commands::read_image(path);
    }
    let sources = Sources::plain(vec![path.into()], include.to_vec());
    let input = input::read(&sources, false, &Overlay::new(), Analysis::None)?;
    match input.compiled {
        Some(compiled) => Ok(compiled.image),
        None => Err(Failure::Refused {
            message: format!("there are mistakes in `{}`", path.display()),
            help: Some("`govc check` tells them.".into()),
        }),
    }
}

/// The rights that options ask for, starting from `start`.
///
/// # Errors
/// A name or number is none.
pub fn from_options(
    terms: &Terms,
    start: Rights,
    names: Option<&Domain>,
    now: u64,
) -> Result<Rights, Failure> {
    let none = &[][..];
    let list = |pick: fn(&Domain) -> &Vec<Numbered>| names.map_or(none, |domain| pick(domain));
    let mut rights = Rights { depth: terms.depth, ..start };
    if let Some(text) = &terms.subjects {
        rights.subjects = senders(text, names)?;
    }
    let level = terms.level.as_deref().map(|text| one(text, "level", list(|d| &d.levels)));
    if let Some(level) = level {
        rights.level_max = level?;
    }
    for (text, bits, what, known) in [
        (&terms.compartments, &mut rights.compartments, "compartment", list(|d| &d.compartments)),
        (&terms.constraints, &mut rights.constraints, "constraint", list(|d| &d.constraints)),
    ] {
        if let Some(text) = text {
            *bits = bitmap(text, what, known)?;
        }
    }
    let all = Rights::all();
    for (text, values, full, what, known) in [
        (
            &terms.residencies,
            &mut rights.residencies,
            &all.residencies,
            "residency set",
            list(|d| &d.residencies),
        ),
        (&terms.routes, &mut rights.routes, &all.routes, "route class", list(|d| &d.routes)),
        (
            &terms.operations,
            &mut rights.operations,
            &all.operations,
            "operation",
            list(|d| &d.operations),
        ),
    ] {
        if let Some(text) = text {
            let number = |name: &str| numbered(name, known).map(|n| vec![(n.into(), n.into())]);
            *values = set(text, full, what, number)?;
        }
    }
    if let Some(text) = &terms.radius {
        let known = radius::NAMES.iter().position(|name| name == text);
        let known = known.and_then(|at| u8::try_from(at).ok());
        rights.radius_max = known.ok_or_else(|| unknown("radius", text))?;
    }
    if let Some(life) = terms.life {
        rights.life_max = life;
    }
    if let Some(until) = &terms.until {
        rights.not_after = times::moment_or_duration(until, now)?;
    }
    Ok(rights)
}

/// Nothing: what a grant starts from.
pub fn nothing() -> Rights {
    let unlabelled = Intervals::span(0, 0);
    Rights {
        subjects: Intervals::EMPTY,
        level_max: 0,
        compartments: 0,
        constraints: 0,
        residencies: unlabelled.clone(),
        routes: unlabelled.clone(),
        operations: unlabelled,
        radius_max: radius::DOMAIN,
        life_max: govc_abi::limits::LIFE_DEFAULT,
        not_after: 0,
        depth: 0,
    }
}

/// The least rights that cover all stamp rules of an image, and translations into the domain, for one domain.
///
/// # Errors
/// There is no such rule, or they are too scattered.
pub fn needed(image: &Image, domain: u16) -> Result<Rights, Failure> {
    let labels = (0..).map_while(|number| Some((number, image.label(number)?)));
    let number = |index: u32| image.domains().nth(index as usize).map(|(number, _)| number);
    let translations = image.translations().filter(|one| {
        one.subjects.is_some() && one.from != one.to && number(one.to) == Some(domain.into())
    });
    let stamps: Vec<Rights> = labels
        .filter(|(number, written)| {
            let name = image.names().labels.get(*number as usize);
            let legacy = name.is_some_and(|name| name.kind == LabelKind::Legacy);
            !legacy && written.label.domain() == domain
        })
        .map(|(_, written)| Rights::only(&Stamp::from(written.label)))
        .chain(translations.map(|one| transit::image_of(&one)))
        .collect();
    let union = |pick: fn(&Rights) -> &Intervals| {
        Intervals::new(stamps.iter().flat_map(|stamp| pick(stamp).iter()))
    };
    let most = |pick: fn(&Rights) -> u8| stamps.iter().map(pick).max().unwrap_or_default();
    if stamps.is_empty() {
        return Err(Failure::Refused {
            message: format!("no stamp rule or translation writes labels of domain {domain}"),
            help: Some("Name what is granted with --subjects and the other options.".into()),
        });
    }
    Ok(Rights {
        subjects: union(|stamp| &stamp.subjects)?,
        level_max: most(|stamp| stamp.level_max),
        compartments: stamps.iter().fold(0, |bits, stamp| bits | stamp.compartments),
        constraints: stamps.iter().fold(u16::MAX, |bits, stamp| bits & stamp.constraints),
        residencies: union(|stamp| &stamp.residencies)?,
        routes: union(|stamp| &stamp.routes)?,
        operations: union(|stamp| &stamp.operations)?,
        radius_max: most(|stamp| stamp.radius_max),
        life_max: most(|stamp| stamp.life_max),
        ..nothing()
    })
}

/// Serials: numbers only.
///
/// # Errors
/// A text is no number.
pub fn serials(text: &str) -> Result<Intervals, Failure> {
    if text.trim() == "none" {
        return Ok(Intervals::EMPTY);
    }
    set(text, &Intervals::span(1, u16::MAX.into()), "serial", |_| None)
}

/// Subjects of a domain by number or name.
///
/// # Errors
/// A text is neither.
pub fn senders(text: &str, names: Option<&Domain>) -> Result<Intervals, Failure> {
    set(text, &Rights::all().subjects, "subject", |name| subjects(name, names?))
}

/// Comma-separated numbers, spans and names; `all`; `none` stands for number 0.
fn set(
    text: &str,
    all: &Intervals,
    what: &str,
    named: impl Fn(&str) -> Option<Vec<(u32, u32)>>,
) -> Result<Intervals, Failure> {
    let mut spans = Vec::new();
    for item in text.split(',').map(str::trim) {
        let span = match item.split_once('-') {
            Some((first, last)) => first.parse().ok().zip(last.parse().ok()),
            None => item.parse().ok().map(|number| (number, number)),
        };
        match (item, span) {
            ("all", _) => spans.extend(all.iter()),
            ("none", _) => spans.push((0, 0)),
            (_, Some(span)) => spans.push(span),
            _ => spans.extend(named(item).ok_or_else(|| unknown(what, item))?),
        }
    }
    Ok(Intervals::new(spans)?)
}

/// `payments.api` for its own subjects, `payments.**` for all below, with or without the domain.
fn subjects(name: &str, domain: &Domain) -> Option<Vec<(u32, u32)>> {
    let inner = name.strip_prefix(&domain.name).and_then(|rest| rest.strip_prefix('.'));
    let name = inner.unwrap_or(name);
    let find = |path: &str| domain.scopes.iter().find(|scope| scope.path == path);
    match name.strip_suffix("**") {
        Some("") => Some(domain.scopes.iter().flat_map(|scope| scope.blocks.clone()).collect()),
        Some(below) => Some(find(below.strip_suffix('.')?)?.blocks.clone()),
        None => Some(vec![find(name)?.subjects?]),
    }
}

fn numbered(name: &str, known: &[Numbered]) -> Option<u16> {
    known.iter().find(|entry| entry.name == name).map(|entry| entry.number)
}

fn one(text: &str, what: &str, known: &[Numbered]) -> Result<u8, Failure> {
    let number = text.parse().ok().or_else(|| u8::try_from(numbered(text, known)?).ok());
    number.ok_or_else(|| unknown(what, text))
}

/// Comma-separated bits by number or name; `all`, `none`.
fn bitmap(text: &str, what: &str, known: &[Numbered]) -> Result<u16, Failure> {
    let mut bits = 0;
    for item in text.split(',').map(str::trim) {
        bits |= match item {
            "all" => u16::MAX,
            "none" => 0,
            _ => {
                let bit = item.parse().ok().or_else(|| numbered(item, known));
                let bit = bit.and_then(|bit| 1_u16.checked_shl(bit.into()));
                bit.ok_or_else(|| unknown(what, item))?
            }
        };
    }
    Ok(bits)
}

fn unknown(what: &str, text: &str) -> Failure {
    Failure::Usage {
        message: format!("there is no {what} `{text}`"),
        help:
            "Write numbers, `all`, `none`, or names of the policy or image that --for or --names \
               names."
                .into(),
    }
}

/// Rights in lines of attribute and value.
pub fn rows(rights: &Rights, names: Option<&Domain>) -> Vec<[String; 2]> {
    let bits = |bits: u16, known: fn(&Domain, u16) -> Vec<String>| {
        let named = names.map(|domain| known(domain, bits));
        let plain = || (0..16).filter(|bit| bits >> bit & 1 == 1).map(|bit| format!("bit {bit}"));
        let all = named.unwrap_or_else(|| plain().collect());
        if all.is_empty() { "none".into() } else { all.join(", ") }
    };
    let sets = |set: &Intervals, full: &Intervals, known: fn(&Domain) -> &Vec<Numbered>| {
        tell_set(set, full, |number| {
            let known = known(names?);
            Some(known.iter().find(|entry| u32::from(entry.number) == number)?.name.clone())
        })
    };
    let all = Rights::all();
    let level = names.and_then(|domain| domain.level(rights.level_max.into()));
    let farthest = radius::NAMES.get(usize::from(rights.radius_max)).copied();
    let row = |attribute: &str, value: String| [attribute.to_owned(), value];
    vec![
        row("subjects", tell_subjects(&rights.subjects, &all.subjects, names)),
        row(
            "level",
            format!("up to {}", level.map_or(rights.level_max.to_string(), str::to_owned)),
        ),
        row("compartments", bits(rights.compartments, Domain::compartments)),
        row("constraints", bits(rights.constraints, Domain::constraints)),
        row("residencies", sets(&rights.residencies, &all.residencies, |d| &d.residencies)),
        row("routes", sets(&rights.routes, &all.routes, |d| &d.routes)),
        row("operations", sets(&rights.operations, &all.operations, |d| &d.operations)),
        row("radius", format!("up to {}", farthest.unwrap_or("?"))),
        row("life", format!("up to 2^{} slots", rights.life_max)),
        row("until", times::tell(rights.not_after)),
        row("depth", rights.depth.to_string()),
    ]
}

fn tell_subjects(set: &Intervals, full: &Intervals, names: Option<&Domain>) -> String {
    tell_set(set, full, |number| {
        let domain = names?;
        let scope = domain.scope(number)?;
        Some(format!("{}.{}", domain.name, scope.path))
    })
}

/// `none` for number 0, names where one number stands alone.
fn tell_set(set: &Intervals, full: &Intervals, name: impl Fn(u32) -> Option<String>) -> String {
    if set == full {
        return "all".into();
    }
    let one = |number| match name(number) {
        Some(name) => name,
        None if number == 0 => "none".into(),
        None => number.to_string(),
    };
    let spans = set.iter().map(|(first, last)| match last - first {
        0 => one(first),
        1 => format!("{}, {}", one(first), one(last)),
        _ => format!("{first}-{last}"),
    });
    let all: Vec<String> = spans.collect();
    if all.is_empty() { "nobody".into() } else { all.join(", ") }
}

/// The name behind the number by which rights go beyond others.
pub fn name_of(excess: Excess, domain: &Domain) -> Option<String> {
    let bit = |known: &[Numbered], bit: u8| {
        known.iter().find(|entry| entry.number == u16::from(bit)).map(|entry| entry.name.clone())
    };
    let short = |number: u32| u16::try_from(number).ok();
    match excess {
        Excess::Subject(number) => Some(format!("{}.{}", domain.name, domain.scope(number)?.path)),
        Excess::Level(level, _) => domain.level(level.into()).map(str::to_owned),
        Excess::Compartment(number) => bit(&domain.compartments, number),
        Excess::Constraint(number) => bit(&domain.constraints, number),
        Excess::Residency(number) => domain.residency(short(number)?).map(str::to_owned),
        Excess::Route(number) => domain.route(short(number)?).map(str::to_owned),
        Excess::Operation(number) => domain.operation(short(number)?).map(str::to_owned),
        Excess::Radius(number, _) => {
            radius::NAMES.get(usize::from(number)).map(|name| (*name).to_owned())
        }
        Excess::Life(..) | Excess::NotAfter(..) | Excess::Depth(..) => None,
    }
}
