//! `mapping`: what labels of one domain become in another, and translations held to that.

use std::{collections::BTreeMap, path::Path};

use govc_authority::{
    Domain,
    audit::Event,
    digest::Digest,
    envelope::Envelope,
    grant,
    lattice::Rights,
    mapping::{Mapping, Rules},
    revocations::Revocations,
    transit::{self, Covered, Uncovered, Why},
    trust::{Root, Trust},
};
use govc_image::Image;

use super::{
    grant as grants,
    signature::{self, Signing},
    trust,
};
use crate::{
    arguments,
    failure::Failure,
    output::{Style, json, line},
    rights,
    state::{self, Foreign, State},
    times,
};

pub fn run(command: &arguments::Mapping, style: &Style) -> Result<(), Failure> {
    use arguments::Mapping as Command;
    match command {
        Command::New {
            authority,
            from,
            for_policy,
            until,
            sequence,
            include,
            revocations,
            require_grants,
            output,
            json,
        } => {
            let image = rights::names_of(for_policy, include)?;
            let root = trust::authority(authority)?;
            let until = times::moment_or_duration(until, times::now())?;
            let revoked = revocations.as_deref().map(grants::read_revocations).transpose()?;
            let ours = Ours { revoked, granted: *require_grants };
            let rules = rules((&root, from), &image, until, ours)?;
            let sequence = match *sequence {
                Some(sequence) => sequence,
                None => next_sequence(&State::new(&authority.state), &rules)?,
            };
            let rules = Rules { sequence, ..rules };
            new(&root, rules, output, (*json, style))
        }
        Command::Show { mapping, json } => tell(mapping, (*json, style)),
        Command::Accept { mapping, root, state, json } => {
            accept(mapping, root.as_deref(), &State::new(state), (*json, style))
        }
    }
}

/// What gateways of others shall know of the root's own labels.
struct Ours {
    /// Grants that were taken back.
    revoked: Option<Revocations>,
    /// All bear a grant.
    granted: bool,
}

/// What translations of a policy need, and what the root's domain says about its own labels.
fn rules(
    (root, from): (&Root, &str),
    image: &Image,
    not_after: u64,
    ours: Ours,
) -> Result<Rules, Failure> {
    let refused = |message: String, help: &str| {
        Err(Failure::Refused { message, help: Some(help.to_owned()) })
    };
    let Some(known) = image.names().domains.iter().find(|domain| domain.name == from) else {
        let message = format!("the policy knows no domain `{from}`");
        return refused(message, "Name a domain whose vocabulary it uses.");
    };
    let from = Domain { name: known.name.clone(), number: known.number };
    let needed = transit::needed(image, from.clone(), root.domain.clone(), not_after);
    let says_something = ours.granted || ours.revoked.is_some();
    let (revoked, granted) = (ours.revoked.unwrap_or_default(), ours.granted);
    match needed {
        Some(rules) => Ok(Rules { revoked, granted, ..rules }),
        // Nothing comes in; what was taken back has to get out all the same.
        None if says_something => Ok(Rules {
            from,
            to: root.domain.clone(),
            sequence: 0,
            scopes: Vec::new(),
            drop_compartments: u16::MAX,
            level_max: 0,
            add_constraints: 0,
            drop_constraints: 0,
            not_after,
            revoked,
            granted,
        }),
        None => refused(
            format!("no translation leads from `{}` into {}", from.name, root.domain),
            "A mapping says what translations of a policy need: write those first.",
        ),
    }
}

/// A sequence that no mapping between two domains had yet: the time, as far as clocks go forward, and in any case more
/// than that of the one that this node holds.
fn next_sequence(state: &State, rules: &Rules) -> Result<u64, Failure> {
    let kept = state.mapping_path((rules.from.number, rules.to.number));
    let held = if kept.exists() {
        let (held, _) = state::read_mapping(&kept)?;
        Mapping::unverified(&held)?.rules().sequence
    } else {
        0
    };
    Ok(times::now_ms().max(held.saturating_add(1)))
}

fn new(
    root: &Root,
    rules: Rules,
    output: &Path,
    (as_json, style): (bool, &Style),
) -> Result<(), Failure> {
    grants::write_new(output, &Mapping::new(rules)?.unsigned()?.to_bytes()?)?;
    if !as_json {
        line(&format!(
            "{} {}: it holds once {} of the root's keys have signed it with `govc sign`",
            style.good("made"),
            output.display(),
            root.signers.threshold()
        ))?;
    }
    tell(output, (as_json, style))
}

/// Adds the signature of one of the root's keys.
pub fn sign(signing: &Signing<'_>, style: &Style) -> Result<(), Failure> {
    let path = signing.path;
    let (mut envelope, _) = state::read_mapping(path)?;
    let dropped = signing.drops().map(|sets| envelope.drop_unknown(sets));
    let signed = envelope.sign(signing.key).map_err(|error| Failure::refused_in(path, &error))?;
    let bytes = envelope.to_bytes()?;
    let entry = signing.entry(Event::MappingSigned, "mapping", &bytes);
    signature::keep(signing, &bytes, (signed, dropped), (entry, style))?;
    tell(path, (signing.as_json, style))
}

fn accept(
    path: &Path,
    root: Option<&Path>,
    state: &State,
    (as_json, style): (bool, &Style),
) -> Result<(), Failure> {
    let _lock = state.lock()?;
    let trust = state.expect_trust()?;
    state.check_log()?;
    let (envelope, bytes) = state::read_mapping(path)?;
    let foreign = root.map(|root| state.root_abroad(&trust, root)).transpose()?;
    let authority = foreign.as_ref().map_or_else(|| trust.authority(), |one| one.root.clone());
    let verified = Mapping::verify(&envelope, &authority, times::now())
        .map_err(|error| Failure::refused_in(path, &error))
        .and_then(|mapping| acceptable(&mapping, path, state, root.is_some()).map(|()| mapping));
    let mapping = match verified {
        Ok(mapping) => mapping,
        Err(failure @ Failure::Refused { .. }) => {
            state.record(Event::MappingRefused, failure.to_string(), &[], &[])?;
            return Err(failure);
        }
        Err(failure) => return Err(failure),
    };
    let revoked = match &foreign {
        Some(_) => mapping.rules().revoked.clone(),
        None => state.last_revocations(&trust)?,
    };
    let keeper = foreign.as_ref().map_or(state, Foreign::state);
    let held = keeper.grants(&authority, &revoked, times::now())?;
    let held: Vec<_> = held.into_iter().filter_map(|kept| kept.verified.ok()).collect();
    warn_beyond(&mapping, &held);
    if let Some(foreign) = foreign {
        foreign.keep(state)?;
    }
    let rules = mapping.rules();
    let digests = [("mapping", Digest::of(&bytes))];
    let note = format!("{} -> {}", rules.from, rules.to);
    state.record(Event::MappingAccepted, note.clone(), &digests, &[])?;
    state.keep_mapping((rules.from.number, rules.to.number), &bytes)?;
    if !as_json {
        line(&format!("{} this node may translate {note}", style.good("ok")))?;
        if says_of_labels(rules) {
            line("   what it takes back or asks for holds from the next `govc apply` on")?;
        }
    }
    tell(path, (as_json, style))
}

/// Tells a subject or level that a mapping makes of a label and that none of the transit grants here allows. It is no
/// fault, for translations are held to both; but the one may have been forgotten when the other was made.
fn warn_beyond(mapping: &Mapping, held: &[grant::Verified]) {
    let all = Rights::all();
    let image = mapping.image(&all);
    let mut beyond = None;
    for grant in held {
        let Rights { subjects, level_max, .. } = grant.rights();
        // Grants of other subjects are there for other things.
        if subjects.meet(&image.subjects).is_empty() {
            continue;
        }
        // What else passes is counted by the numbers of the other domain here, and by those of this one there.
        let transit = Rights { subjects: subjects.clone(), level_max: *level_max, ..Rights::all() };
        match mapping.check(&all, &Rights { not_after: u64::MAX, ..transit }) {
            Ok(()) => return,
            Err(widens) => beyond = Some((grant.serial(), widens)),
        }
    }
    if let Some((serial, widens)) = beyond {
        tracing::warn!("by grant {serial}: {widens}");
    }
}

/// Whether a mapping says what labels of the domain that it leads into have to be like.
fn says_of_labels(rules: &Rules) -> bool {
    rules.granted || !rules.revoked.serials().is_empty()
}

/// What a mapping takes back is of another domain, and it follows from the one that it replaces.
fn acceptable(mapping: &Mapping, path: &Path, state: &State, abroad: bool) -> Result<(), Failure> {
    let rules = mapping.rules();
    if !abroad && says_of_labels(rules) {
        return Err(Failure::Refused {
            message: format!(
                "`{}` takes back or asks for grants of this node's own domain",
                path.display()
            ),
            help: Some(
                "Bundles say that: each asks for grants, and govc bundle .. --revocations FILE takes \
                 some back"
                    .into(),
            ),
        });
    }
    let kept = state.mapping_path((rules.from.number, rules.to.number));
    if !kept.exists() {
        return Ok(());
    }
    let (before, _) = state::read_mapping(&kept)?;
    let follows = Mapping::unverified(&before).and_then(|before| mapping.check_follows(&before));
    follows.map_err(|error| Failure::refused_in(path, &error))
}

fn tell(path: &Path, (as_json, style): (bool, &Style)) -> Result<(), Failure> {
    let (envelope, _) = state::read_mapping(path)?;
    let mapping = Mapping::unverified(&envelope);
    let mapping = mapping.map_err(|error| Failure::refused_in(path, &error))?;
    let rules = mapping.rules();
    if as_json {
        return json(rules);
    }
    line(&style.bold(format!("{} -> {}", rules.from, rules.to)).to_string())?;
    for scope in &rules.scopes {
        line(&format!(
            "   {:<12} {}-{} -> {}",
            "subjects", scope.first, scope.last, scope.subject
        ))?;
    }
    for [what, value] in rows(rules) {
        line(&format!("   {what:<12} {value}"))?;
    }
    Ok(())
}

fn rows(rules: &Rules) -> [[String; 2]; 8] {
    let bits = |bits: u16| {
        let named = (0..16).filter(|bit| bits >> bit & 1 == 1).map(|bit| format!("bit {bit}"));
        match bits {
            0 => "none".to_owned(),
            u16::MAX => "all".to_owned(),
            _ => named.collect::<Vec<_>>().join(", "),
        }
    };
    [
        ["sequence".into(), rules.sequence.to_string()],
        ["level".into(), format!("up to {}", rules.level_max)],
        ["compartments".into(), format!("without {}", bits(rules.drop_compartments))],
        ["constraints".into(), format!("with {}", bits(rules.add_constraints))],
        ["dropped".into(), bits(rules.drop_constraints)],
        ["until".into(), times::tell(rules.not_after)],
        ["taken back".into(), taken_back(&rules.revoked)],
        [
            "labels".into(),
            if rules.granted { "only under grants" } else { "with or without grants" }.into(),
        ],
    ]
}

fn taken_back(revoked: &Revocations) -> String {
    let spans = revoked.serials().iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    match spans.collect::<Vec<_>>() {
        none if none.is_empty() => "no grant".into(),
        spans => format!("grants {}", spans.join(", ")),
    }
}

/// Grants and translations of a bundle's policy: all lie within what this node accepted. Of the node's own
/// grants come those that hold, and why the others do not.
///
/// # Errors
/// Some do not.
pub fn hold(
    state: &State,
    trust: &Trust,
    (authority, held, refused): (&Root, &[grant::Verified], Vec<String>),
    image: &Image,
) -> Result<Vec<Covered>, Failure> {
    if image.translations().len() == 0 {
        return Ok(Vec::new());
    }
    let (mappings, abroad, refused_abroad) = accepted(state, trust, authority)?;
    let held: Vec<grant::Verified> = held.iter().cloned().chain(abroad).collect();
    transit::cover(image, &mappings, &held).map_err(|uncovered| {
        let mut message = String::from("the policy translates what this node may not");
        for one in &uncovered {
            message.push_str(&format!("\n  - {}", outside(one, image)));
        }
        for why in refused_abroad.into_iter().chain(refused) {
            message.push_str(&format!("\n  - a mapping or grant does not hold: {why}"));
        }
        let help = "Ask the receiving domain for a mapping and a transit grant, take them with \
                    `govc mapping accept` and `govc grant accept`, or translate less.";
        Failure::Refused { message, help: Some(help.into()) }
    })
}

/// Mappings that hold, grants of other domains that do, and why the others do not.
type Accepted = (Vec<Mapping>, Vec<grant::Verified>, Vec<String>);

/// What this node accepted about other domains.
///
/// # Errors
/// It cannot be read.
pub fn accepted(state: &State, trust: &Trust, authority: &Root) -> Result<Accepted, Failure> {
    let (mut mappings, mut grants, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    let now = times::now();
    let abroad = state.abroad()?;
    for path in state.mapping_paths()? {
        let (envelope, _) = state::read_mapping(&path)?;
        let roots = abroad.iter().map(|(root, _)| root).chain([authority]);
        let to = Mapping::unverified(&envelope).map(|mapping| mapping.rules().to.clone());
        let root = roots.clone().find(|root| to.as_ref().is_ok_and(|to| *to == root.domain));
        match Mapping::verify(&envelope, root.unwrap_or(trust.root()), now) {
            Ok(mapping) => mappings.push(mapping),
            Err(error) => refused.push(format!("`{}`: {error}", path.display())),
        }
    }
    let said = abroad_of(state, trust)?;
    for (root, state) in &abroad {
        let revoked = said.get(&root.domain.number).cloned().unwrap_or_default().revoked;
        for kept in state.grants(root, &revoked, now)? {
            match kept.verified {
                Ok(verified) => grants.push(verified),
                Err(error) => refused.push(error.to_string()),
            }
        }
    }
    Ok((mappings, grants, refused))
}

/// What another domain says of its labels.
#[derive(Clone, Default)]
pub struct Abroad {
    /// Grants that it took back.
    pub revoked: Revocations,
    /// Each bears a grant.
    pub granted: bool,
}

/// What other domains say of their labels, by their numbers: all that any of their mappings here says, whether
/// it is over or not.
///
/// # Errors
/// A mapping cannot be read, was not signed, or the root of its domain is gone: without it nobody knows.
pub fn abroad_of(state: &State, trust: &Trust) -> Result<BTreeMap<u16, Abroad>, Failure> {
    let abroad = state.abroad()?;
    let mut all: BTreeMap<u16, Abroad> = BTreeMap::new();
    for path in state.mapping_paths()? {
        let (envelope, _) = state::read_mapping(&path)?;
        let refused = |error| Failure::refused_in(&path, &error);
        let to = Mapping::unverified(&envelope).map_err(refused)?.rules().to.clone();
        // Those of the own domain come in its bundles.
        if to == trust.root().domain {
            continue;
        }
        let Some((root, _)) = abroad.iter().find(|(root, _)| root.domain == to) else {
            return Err(rootless(&path, &to));
        };
        let mapping = Mapping::signed(&envelope, root).map_err(refused)?;
        let said = all.entry(to.number).or_default();
        said.revoked = said.revoked.union(&mapping.rules().revoked)?;
        said.granted |= mapping.rules().granted;
    }
    Ok(all)
}

/// Why a mapping into another domain counts for nothing, and with it what that domain took back.
fn rootless(path: &Path, to: &Domain) -> Failure {
    Failure::Refused {
        message: format!(
            "`{}` leads into {to}, and this node knows no root of it: what that domain took back is not known",
            path.display()
        ),
        help: Some(format!(
            "Take its newest mapping with `govc mapping accept MAPPING --root ROOT`; remove `{}` only if nothing of \
             the domain counts any more.",
            path.display()
        )),
    }
}

/// Why a translation goes further than it may, with its place.
fn outside(one: &Uncovered, image: &Image) -> String {
    let names = image.names();
    let place = names.translations.get(one.number as usize).and_then(|translation| {
        let file = names.files.get(translation.file as usize)?;
        Some(format!("{}:{}: ", file.name, translation.line))
    });
    format!("{}translate `{}`: {}", place.unwrap_or_default(), one.name, why(one, image))
}

/// How, with the names of what grants do not allow.
pub fn why(one: &Uncovered, image: &Image) -> String {
    let Why::Grants(reasons) = &one.why else { return one.why.tell(one.domain) };
    if reasons.is_empty() {
        return one.why.tell(one.domain);
    }
    let reasons = reasons.iter().map(|(serial, excess)| {
        let named = grants::named(*excess, Some(image), one.domain);
        format!("{}{named}", excess.tell("by the translation", &format!("by grant {serial}")))
    });
    reasons.collect::<Vec<_>>().join("; ")
}

/// A mapping of a file, held to a root.
///
/// # Errors
/// It cannot be read or does not hold.
pub fn verified(path: &Path, root: &Root) -> Result<Mapping, Failure> {
    let (envelope, _): (Envelope, _) = state::read_mapping(path)?;
    let mapping = Mapping::verify(&envelope, root, times::now());
    mapping.map_err(|error| Failure::refused_in(path, &error))
}
