//! An event that was kept: what was decided, by which rule, and why nearer rules did not apply.

use std::path::{Path, PathBuf};

use govc_abi::{
    attribute::{self, Request, state},
    event::{Event, flag, verdict},
    image::{self as layout, program},
    label::SLOT_NS,
    node::LEAF_NONE,
    reason, walk,
};
use govc_compiler::analysis::words;
use govc_image::Image;
use serde::Serialize;

use super::packet::{self, Found, Report};
use crate::{
    arguments::{Explain, Sources},
    events::{
        describe::{self, Described},
        history::Reader,
        source::{Next, Source},
    },
    excerpt::{Excerpt, excerpt, path_of},
    failure::Failure,
    input::{self, Analysis, Compiled, Input, Overlay},
    output::{Style, json, line},
};

/// Events that are told of when several begin alike.
const ALIKE_MAX: usize = 5;

#[derive(Serialize)]
struct Told {
    event: Described,
    /// The packet in the words of the language; null when it was decided unread, or the image is
    /// not in the file.
    packet: Option<String>,
    /// The rule that decided, as it is written.
    source: Option<Excerpt>,
    /// Why there is no source, or no explanation.
    notes: Vec<String>,
    /// Whether deciding again gives what was decided; null when that cannot be.
    again: Option<bool>,
    explanation: Option<Report>,
}

/// Explains the event of a file whose id begins so.
pub fn tell(
    arguments: &Explain,
    path: &Path,
    files: &[String],
    id: &str,
    style: &Style,
) -> Result<(), Failure> {
    let mut source = Source::File(Box::new(Reader::open(path)?));
    let (event, unix_ns) = find(&mut source, path, id)?;
    let described = source.describe(&event, unix_ns);
    let image = source.image(event.generation);
    let mut told = Told {
        packet: None,
        source: None,
        notes: Vec::new(),
        again: None,
        explanation: None,
        event: described,
    };
    let mut explained = None;
    match image.as_deref() {
        None => told.notes.push(format!(
            "the file does not hold generation {}: it was gone when the event was read",
            event.generation
        )),
        Some(image) => explained = explain(arguments, (&event, unix_ns), image, files, &mut told)?,
    }
    if arguments.json {
        told.explanation = explained
            .map(|(input, found)| {
                Ok::<_, Failure>(packet::report(&input, &input.compiled()?.policy, found))
            })
            .transpose()?;
        return json(&told);
    }
    show(arguments, &told, explained, style)
}

/// The one event whose id begins so.
fn find(source: &mut Source, path: &Path, id: &str) -> Result<(Event, u64), Failure> {
    let (mut found, mut alike): (Option<(Event, u64)>, Vec<String>) = (None, Vec::new());
    while let Next::Event(event, unix_ns) = source.next(std::time::Duration::ZERO)? {
        let known = describe::id(&event);
        if known.starts_with(id) && alike.len() < ALIKE_MAX && !alike.contains(&known) {
            alike.push(known);
            found = Some((event, unix_ns));
        }
    }
    match (found, alike.len()) {
        (Some(found), 1) => Ok(found),
        (None, _) => Err(Failure::Refused {
            message: format!("no event in `{}` has the id `{id}`", path.display()),
            help: Some(format!("List them: govc observe --read {}", path.display())),
        }),
        (Some(_), _) => Err(Failure::Usage {
            message: format!("the ids of several events begin with `{id}`"),
            help: format!("Say more of it: {}", alike.join(", ")),
        }),
    }
}

/// Decides again what the event tells, by the image and, where the sources are at hand, by the
/// interpreter.
fn explain(
    arguments: &Explain,
    (event, unix_ns): (&Event, u64),
    image: &Image,
    files: &[String],
    told: &mut Told,
) -> Result<Option<(Input, Found)>, Failure> {
    if event.rule != LEAF_NONE {
        match excerpt(image.names(), event.rule, &arguments.sources.sources) {
            Ok(found) => told.source = Some(found),
            Err(why) => told.notes.push(format!("no source is shown: {why}")),
        }
    }
    let by_rules = [reason::RULE, reason::NO_RULE, reason::LABEL_MISSING, reason::UNGOVERNED];
    if !by_rules.contains(&event.reason) {
        return Ok(None);
    }
    let request = request((event, unix_ns), image);
    let at = usize::from(event.hook);
    told.packet = Some(words::packet(image.names(), None, at, &request));
    let outcome = image.decide(program::INGRESS + u32::from(event.hook), &request);
    let agrees = (outcome.winner, outcome.pending) == (event.rule, event.pending);
    told.again = Some(agrees);
    if !agrees {
        told.notes.push(
            "deciding again gives another verdict, which is a mistake in govc: please report it with the file".into(),
        );
        return Ok(None);
    }
    nearer(arguments, (event, image, &request), files, told)
}

/// Why nearer rules did not apply, which takes the sources that decided.
fn nearer(
    arguments: &Explain,
    (event, image, request): (&Event, &Image, &Request),
    files: &[String],
    told: &mut Told,
) -> Result<Option<(Input, Found)>, Failure> {
    let given = !files.is_empty();
    let paths = if given {
        files.iter().map(PathBuf::from).collect()
    } else {
        recorded(image, &arguments.sources.sources)
    };
    if paths.is_empty() {
        told.notes.push(
            "why nearer rules did not apply takes the policy: govc explain POLICY.. ID --events FILE"
                .into(),
        );
        return Ok(None);
    }
    let sources = Sources::plain(paths, arguments.include.clone());
    let input = input::read(&sources, false, &Overlay::new(), Analysis::None)?;
    let alike = |compiled: &Compiled| decides_alike(&compiled.image, image);
    if !input.compiled.as_ref().is_some_and(alike) {
        if given && input.compiled.is_none() {
            return Err(Failure::Refused {
                message: "the policy does not compile".into(),
                help: Some("`govc check` tells why.".into()),
            });
        }
        if given {
            return Err(Failure::Refused {
                message: "this is not the policy that decided the event".into(),
                help: Some(format!(
                    "Generation {} of {} had other rules. Name its sources as they were then.",
                    event.generation,
                    image.names().policy_name
                )),
            });
        }
        told.notes.push("the sources that lie here are not those that decided".into());
        return Ok(None);
    }
    let Compiled { policy, image, .. } = input.compiled()?;
    let at = usize::from(event.hook);
    let found = packet::find(arguments, (policy, image), at, request)?;
    if found.explanation.decision.permit != (event.verdict == verdict::PERMIT) {
        return Err(Failure::Refused {
            message: "the interpreter decides otherwise than the enforcement point did".into(),
            help: Some(
                "This is a mistake in govc: please report it with policy and events.".into(),
            ),
        });
    }
    Ok(Some((input, found)))
}

/// The files that an image was compiled from, when all of them are where they were.
fn recorded(image: &Image, below: &Path) -> Vec<PathBuf> {
    let files = image.names().files.iter();
    let paths: Vec<PathBuf> = files.map(|file| path_of(&file.name, below)).collect();
    if paths.iter().all(|path| path.is_file()) { paths } else { Vec::new() }
}

/// Whether two images are the same but for names: everything that decides, decides alike, and
/// rules have the same numbers.
fn decides_alike(a: &Image, b: &Image) -> bool {
    let names = a.word(layout::AT_NAMES);
    let is_name = |at: u32| {
        at == layout::AT_WORDS
            || at == layout::AT_NAMES_LEN
            || (layout::AT_DIGEST..layout::AT_DIGEST + 8).contains(&at)
    };
    let rules = |image: &Image| {
        let all = image.names().rules.iter();
        all.map(|rule| (rule.policy.clone(), rule.name.clone())).collect::<Vec<_>>()
    };
    names == b.word(layout::AT_NAMES)
        && (0..names).filter(|at| !is_name(*at)).all(|at| a.word(at) == b.word(at))
        && rules(a) == rules(b)
}

/// What the enforcement point was asked. Only what labels a packet gets depends on its sender's cgroup.
fn request((event, unix_ns): (&Event, u64), image: &Image) -> Request {
    let mut request = Request::EMPTY;
    request.source = event.source.map(u64::from_be);
    request.destination = event.destination.map(u64::from_be);
    let names = image.names();
    let slot = unix_ns / SLOT_NS;
    let past = names.times.iter().filter(|time| u64::from(**time) <= slot).count();
    let values = [
        (attribute::PROTOCOL, event.protocol.into()),
        (attribute::SOURCE_PORT, event.source_port.into()),
        (attribute::DESTINATION_PORT, event.destination_port.into()),
        (attribute::ICMP, event.icmp.into()),
        (attribute::OBJECT, event.object),
        (attribute::SHAPE, u32::from(event.flags >> flag::SHAPE_SHIFT) & attribute::shape::ALL),
        (attribute::TIME, past as u32),
        (attribute::INGRESS_ZONE, event.from_zone.into()),
        (attribute::EGRESS_ZONE, event.to_zone.into()),
    ];
    for (attribute, value) in values {
        if let Some(place) = request.scalars.get_mut(usize::from(attribute)) {
            *place = value;
        }
    }
    let state = match event.flags {
        flags if flags & flag::LABELLED != 0 => state::VALID,
        flags if flags & flag::LEGACY != 0 => state::LEGACY,
        _ => return request,
    };
    let is_its = |domain: &govc_image::Domain| domain.number == event.label.domain();
    if let Some(domain) = names.domains.iter().position(is_its) {
        walk::set_label(&mut request, state, domain as u32, &event.label);
    }
    request
}

fn show(
    arguments: &Explain,
    told: &Told,
    explained: Option<(Input, Found)>,
    style: &Style,
) -> Result<(), Failure> {
    line(&format!("{} {}", style.dim(&told.event.id), told.event.line(style)))?;
    if let Some(source) = &told.source {
        line(source.text(style).trim_end())?;
    }
    if told.event.rule.is_none() {
        line(&format!("  {}", told.event.because))?;
    }
    if let Some(words) = &told.packet {
        line(&style.dim(words))?;
    }
    if let Some(serial) = told.event.grant {
        line(&style.dim(format!("its label names grant {serial}")))?;
    }
    if let Some((input, found)) = explained {
        let policy = &input.compiled()?.policy;
        packet::show_or_json(arguments, &input, policy, found, style)?;
    }
    for note in &told.notes {
        line(&style.dim(format!("  {note}")))?;
    }
    Ok(())
}
