//! `grant`: rights to stamp.

use std::path::{Path, PathBuf};

use govc_authority::{
    audit::Event,
    digest::Digest,
    form,
    grant::{Grant, GrantError, Terms, Verified},
    graph,
    intervals::Intervals,
    key::KeyId,
    lattice::{Excess, Rights},
    revocations::Revocations,
    trust::{Root, Trust},
};
use govc_image::Image;
use serde::Serialize;

use super::{mapping, signature, trust};
use crate::{
    arguments::{self, Signing, StateArguments},
    failure::Failure,
    input,
    output::{Style, json, line},
    rights, secrets,
    state::{self, Foreign, State},
    times,
};

/// Bytes of a file with revocations.
const REVOCATIONS_LEN_MAX: usize = 1 << 20;

/// A grant for programs.
#[derive(Serialize)]
struct Report {
    grant: String,
    domain: String,
    number: u16,
    sha256: Digest,
    blocks: Vec<BlockReport>,
}

#[derive(Serialize)]
struct BlockReport {
    serial: u16,
    /// Serials that it may hand on, as intervals.
    serials: Intervals,
    holder: KeyId,
    rights: Rights,
}

pub fn run(command: &arguments::Grant, style: &Style) -> Result<(), Failure> {
    use arguments::Grant;
    match command {
        Grant::New { authority, terms, output, json } => {
            new(&trust::authority(authority)?, terms, output, (*json, style))
        }
        Grant::Narrow { grant, signing, terms, state, output, json } => {
            narrow(grant, (signing, terms, state), output, (*json, style))
        }
        Grant::Show { grant, names, json } => {
            let image = names.as_deref().map(|path| rights::names_of(path, &[])).transpose()?;
            let (unverified, _) = state::read_grant(grant)?;
            let blocks = unverified.unverified_blocks()?;
            let chain: Vec<_> = blocks.iter().map(|block| block.terms().clone()).collect();
            warn_of_circles([chain.as_slice()]);
            tell(grant, image.as_ref(), (*json, style))
        }
        Grant::Verify { grant, authority, holder, revocations, at, json } => {
            let revoked = match (revocations, &authority.root) {
                (Some(path), _) => read_revocations(path)?,
                (None, Some(_)) => Revocations::default(),
                (None, None) => {
                    let state = State::new(&authority.state);
                    state.revocations(&state.expect_trust()?)?
                }
            };
            let now = at.as_deref().map_or_else(|| Ok(times::now()), times::moment)?;
            let root = trust::authority(authority)?;
            let (_, verified) = verify(grant, &root, &revoked, now)?;
            if let Some(holder) = holder {
                let key = secrets::public_key(holder)?;
                verified.check_holder(&key).map_err(|error| Failure::refused_in(grant, &error))?;
            }
            warn_of_circles([verified.links()]);
            if !json {
                let until = times::tell(verified.rights().not_after);
                line(&format!(
                    "{} grant {} holds until {until}",
                    style.good("ok"),
                    verified.serial()
                ))?;
            }
            tell(grant, None, (*json, style))
        }
        Grant::Revoke { serials, grants, revocations, json } => {
            revoke((serials, grants), revocations, (*json, style))
        }
        Grant::Accept { grant, root, for_bundle, state, json } => {
            let from = Granting { root: root.as_deref(), for_bundle: for_bundle.as_deref() };
            accept((grant, from), &State::new(state), (*json, style))
        }
    }
}

fn new(
    root: &Root,
    options: &arguments::Terms,
    output: &Path,
    (as_json, style): (bool, &Style),
) -> Result<(), Failure> {
    let image = image(options)?;
    let start = match (&options.for_policy, &image) {
        (Some(_), Some(image)) => rights::needed(image, root.domain.number)?,
        _ => rights::nothing(),
    };
    for (given, option) in [
        (options.until.is_some(), "--until"),
        (options.for_policy.is_some() || options.subjects.is_some(), "--subjects or --for"),
    ] {
        if !given {
            return Err(Failure::Usage {
                message: format!("a grant needs {option}"),
                help: "What is not named is not granted.".into(),
            });
        }
    }
    let terms = terms(options, start, image.as_ref(), root.domain.number)?;
    let grant = Grant::draft(root.domain.clone(), terms)?;
    write_new(output, &grant.to_bytes()?)?;
    if !as_json {
        line(&format!(
            "{} {}: it holds once {} of the root's keys have signed it with `govc sign`",
            style.good("made"),
            output.display(),
            root.signers.threshold()
        ))?;
    }
    tell(output, image.as_ref(), (as_json, style))
}

fn narrow(
    path: &Path,
    (signing, options, state): (&Signing, &arguments::Terms, &StateArguments),
    output: &Path,
    (as_json, style): (bool, &Style),
) -> Result<(), Failure> {
    let (grant, _) = state::read_grant(path)?;
    let blocks = grant.unverified_blocks()?;
    let Some(last) = blocks.last() else { return Err(GrantError::Blocks(0).into()) };
    let image = image(options)?;
    let number = last.domain().number;
    let start = match (&options.for_policy, &image) {
        (Some(_), Some(image)) => {
            Rights { not_after: last.terms().rights.not_after, ..rights::needed(image, number)? }
        }
        _ => last.terms().rights.clone(),
    };
    let terms = terms(options, start, image.as_ref(), number)?;
    // What widens is told before anybody is asked for a passphrase.
    if let Some(excess) = terms.rights.excess(&last.terms().rights) {
        return Err(widens(excess, image.as_ref(), number));
    }
    let state = State::new(state);
    state.check_log()?;
    let key = secrets::signing_key(signing)?;
    let narrower = grant.hand_on(terms, &key)?;
    let bytes = narrower.to_bytes()?;
    write_new(output, &bytes)?;
    let serial = options.serial;
    let note = format!("grant {serial} narrows {}", last.terms().serial);
    let digests = [("grant", Digest::of(&bytes))];
    state.record_if_kept(Event::GrantSigned, note, &digests, &[key.id()])?;
    if !as_json {
        line(&format!("{} {}", style.good("made"), output.display()))?;
    }
    tell(output, image.as_ref(), (as_json, style))
}

fn widens(excess: Excess, names: Option<&Image>, number: u16) -> Failure {
    Failure::Refused {
        message: format!(
            "the new grant would widen the one before it: {}{}",
            excess.tell("by the new one", "by the one before"),
            named(excess, names, number)
        ),
        help: Some("Take that away, or ask for a wider grant.".into()),
    }
}

/// ` (acme.payments.api)`, if the names are known.
pub fn named(excess: Excess, image: Option<&Image>, number: u16) -> String {
    let domains = image.map(|image| image.names().domains.as_slice()).unwrap_or_default();
    let domain = domains.iter().find(|domain| domain.number == number);
    let name = domain.and_then(|domain| rights::name_of(excess, domain));
    name.map(|name| format!(" (`{name}`)")).unwrap_or_default()
}

fn image(options: &arguments::Terms) -> Result<Option<Image>, Failure> {
    let path = options.for_policy.as_deref().or(options.names.as_deref());
    path.map(|path| rights::names_of(path, &options.include)).transpose()
}

fn terms(
    options: &arguments::Terms,
    start: Rights,
    image: Option<&Image>,
    number: u16,
) -> Result<Terms, Failure> {
    let domains = image.map(|image| image.names().domains.as_slice()).unwrap_or_default();
    let names = domains.iter().find(|domain| domain.number == number);
    Ok(Terms {
        serial: options.serial,
        serials: rights::serials(&options.serials)?,
        rights: rights::from_options(options, start, names, times::now())?,
        holder: secrets::public_key(&options.to)?,
    })
}

/// Adds the signature of one of the root's keys.
pub fn sign(signing: &signature::Signing<'_>, style: &Style) -> Result<(), Failure> {
    let path = signing.path;
    let refused = |error: GrantError| Failure::refused_in(path, &error);
    let (mut grant, _) = state::read_grant(path)?;
    let dropped = signing.drops().map(|sets| grant.drop_unknown(sets)).transpose();
    let dropped = dropped.map_err(refused)?;
    let signed = grant.sign(signing.key).map_err(refused)?;
    let bytes = grant.to_bytes()?;
    let entry = signing.entry(Event::GrantSigned, "grant", &bytes);
    signature::keep(signing, &bytes, (signed, dropped), (entry, style))?;
    tell(path, None, (signing.as_json, style))
}

/// Who has to have made a grant that is to be accepted; this node's present signers unless something is named.
#[derive(Clone, Copy)]
struct Granting<'a> {
    /// Root of another domain.
    root: Option<&'a Path>,
    /// The bundle that is to come into force next.
    for_bundle: Option<&'a Path>,
}

/// Who grants, and which grants they took back, once a bundle is in force: whoever rotates signers needs the grants of
/// the new ones before the bundle that names them can be applied.
fn of_bundle(path: &Path, trust: &Trust) -> Result<(Root, Revocations), Failure> {
    let (bundle, _) = state::read_bundle(path)?;
    // It may be from tomorrow: the grants have to be there before.
    let now = times::now().max(bundle.unverified_manifest()?.not_before);
    let verified = super::bundle::verified(path, &bundle, trust, now)?;
    let signers = verified.manifest().next.clone();
    Ok((Root { domain: trust.root().domain.clone(), signers }, verified.revocations().clone()))
}

/// A grant for a bundle that is yet to come must not take the place of one that holds by those who grant now: until
/// then the bundle in force could not be applied again.
fn check_place(
    state: &State,
    verified: &Verified,
    (path, trust): (&Path, &Trust),
) -> Result<(), Failure> {
    let now = times::now();
    let (authority, revoked) = (trust.authority(), state.last_revocations(trust)?);
    if verify(path, &authority, &revoked, now).is_ok() {
        return Ok(());
    }
    let held = state.grants(&authority, &revoked, now)?;
    let mut held = held.into_iter().filter_map(|kept| kept.verified.ok());
    if held.all(|one| one.serial() != verified.serial()) {
        return Ok(());
    }
    let serial = verified.serial();
    Err(Failure::Refused {
        message: format!(
            "`{}`: grant {serial} is held by the present signers, who did not sign this one",
            path.display()
        ),
        help: Some("Have it signed by enough of both sets, or made with another serial.".into()),
    })
}

fn accept(
    (path, from): (&Path, Granting<'_>),
    state: &State,
    (as_json, style): (bool, &Style),
) -> Result<(), Failure> {
    let _lock = state.lock()?;
    let trust = state.expect_trust()?;
    state.check_log()?;
    let node = state.node()?.ok_or_else(|| state.nobody())?;
    // What another domain grants is kept apart; which grants it takes back, its mappings say.
    let foreign = from.root.map(|root| state.root_abroad(&trust, root)).transpose()?;
    let (authority, revoked) = match (&foreign, from.for_bundle) {
        (Some(foreign), _) => {
            let said = mapping::abroad_of(state, &trust)?;
            let number = foreign.root.domain.number;
            let revoked = said.get(&number).cloned().unwrap_or_default().revoked;
            (foreign.root.clone(), revoked)
        }
        (None, Some(bundle)) => of_bundle(bundle, &trust)?,
        (None, None) => (trust.authority(), state.last_revocations(&trust)?),
    };
    let verified = verify(path, &authority, &revoked, times::now());
    let verified = verified.and_then(|(bytes, verified)| {
        verified.check_holder(&node).map_err(|error| Failure::refused_in(path, &error))?;
        if from.for_bundle.is_some() {
            check_place(state, &verified, (path, &trust))?;
        }
        Ok((bytes, verified))
    });
    let (bytes, verified) = match verified {
        Ok(verified) => verified,
        Err(failure @ Failure::Refused { .. }) => {
            state.record(Event::GrantRefused, failure.to_string(), &[], &[])?;
            return Err(failure);
        }
        Err(failure) => return Err(failure),
    };
    let others = foreign.as_ref().map_or(state, Foreign::state);
    let others = others.grants(&authority, &revoked, times::now())?;
    let others: Vec<_> = others.into_iter().filter_map(|kept| kept.verified.ok()).collect();
    warn_of_circles(others.iter().chain([&verified]).map(Verified::links));
    let keeper = foreign.map_or_else(|| Ok(state.clone()), |foreign| foreign.keep(state))?;
    let digests = [("grant", Digest::of(&bytes))];
    let note = format!("grant {}", verified.serial());
    state.record(Event::GrantAccepted, note, &digests, &[verified.holder().id()])?;
    keeper.keep_grant(verified.serial(), &bytes)?;
    if !as_json {
        line(&format!("{} this node holds grant {}", style.good("ok"), verified.serial()))?;
    }
    tell(path, None, (as_json, style))
}

/// Tells keys that grant themselves in a circle. It widens nothing, so that no grant falls with it; but nobody means
/// it, and whoever is to be taken back stands in more than one place.
fn warn_of_circles<'a>(chains: impl IntoIterator<Item = &'a [Terms]>) {
    for circle in graph::circles(chains) {
        let keys: Vec<_> = circle.iter().map(ToString::to_string).collect();
        tracing::warn!("keys grant themselves in a circle: {}", keys.join(", "));
    }
}

/// The bytes of a grant and what it allows.
fn verify(
    path: &Path,
    root: &Root,
    revoked: &Revocations,
    now: u64,
) -> Result<(Vec<u8>, Verified), Failure> {
    let (grant, bytes) = state::read_grant(path)?;
    let verified =
        grant.verify(root, revoked, now).map_err(|error| Failure::refused_in(path, &error))?;
    Ok((bytes, verified))
}

fn revoke(
    (serials, grants): (&[u16], &[PathBuf]),
    path: &Path,
    (as_json, style): (bool, &Style),
) -> Result<(), Failure> {
    let mut revoked = Revocations::new(serials.iter().copied())?;
    for grant in grants {
        revoked = revoked.union(&of_grant(grant)?)?;
    }
    let old = match path.exists() {
        true => read_revocations(path)?,
        false => Revocations::default(),
    };
    let all = old.union(&revoked)?;
    input::write_whole(path, &form::write(&all)?)?;
    if as_json {
        return json(&all);
    }
    let noted = revoked.serials().iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    let noted = noted.collect::<Vec<_>>().join(", ");
    line(&format!("{} {noted} in {}", style.good("noted"), path.display()))?;
    line("   it takes effect with the next bundle: govc bundle .. --revocations FILE")?;
    line("   and abroad with the next mapping: govc mapping new .. --revocations FILE")
}

/// The serials that labels under a grant may bear: its own, and those that it may hand on.
fn of_grant(path: &Path) -> Result<Revocations, Failure> {
    let (grant, _) = state::read_grant(path)?;
    let blocks = grant.unverified_blocks()?;
    let Some(last) = blocks.last() else { return Err(GrantError::Blocks(0).into()) };
    let terms = last.terms();
    let handed_on = terms.serials.iter().flat_map(|(first, last)| first..=last);
    let serials = std::iter::once(u32::from(terms.serial)).chain(handed_on);
    Ok(Revocations::new(serials.filter_map(|serial| u16::try_from(serial).ok()))?)
}

/// Revocations in a file.
pub fn read_revocations(path: &Path) -> Result<Revocations, Failure> {
    let bytes = secrets::read(path, REVOCATIONS_LEN_MAX)?;
    form::read(&bytes, REVOCATIONS_LEN_MAX).map_err(|error| Failure::refused_in(path, &error))
}

/// A grant or mapping is not written over another file: it may be the one that it came from.
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if path.exists() {
        return Err(Failure::Usage {
            message: format!("there is a `{}` already", path.display()),
            help: "Choose another name.".into(),
        });
    }
    input::write_whole(path, bytes)
}

fn tell(
    path: &Path,
    image: Option<&Image>,
    (as_json, style): (bool, &Style),
) -> Result<(), Failure> {
    let (grant, bytes) = state::read_grant(path)?;
    let blocks = grant.unverified_blocks()?;
    let Some(first) = blocks.first() else { return Err(GrantError::Blocks(0).into()) };
    let domain = first.domain();
    if as_json {
        let blocks = blocks.iter().map(|block| BlockReport {
            serial: block.terms().serial,
            serials: block.terms().serials.clone(),
            holder: block.terms().holder.id(),
            rights: block.terms().rights.clone(),
        });
        return json(&Report {
            grant: path.display().to_string(),
            domain: domain.name.clone(),
            number: domain.number,
            sha256: Digest::of(&bytes),
            blocks: blocks.collect(),
        });
    }
    let domains = image.map(|image| image.names().domains.as_slice()).unwrap_or_default();
    let names = domains.iter().find(|known| known.number == domain.number);
    for (number, block) in blocks.iter().enumerate() {
        let terms = block.terms();
        let from = if number == 0 { "the root" } else { "the holder before" };
        let head = format!("grant {} for {}", terms.serial, block.domain());
        line(&format!("{}, by {from}", style.bold(head)))?;
        line(&format!("   {:<12} key {}", "holder", terms.holder.id()))?;
        for [what, value] in rights::rows(&terms.rights, names) {
            line(&format!("   {what:<12} {value}"))?;
        }
        if !terms.serials.is_empty() {
            let spans = terms.serials.iter().map(|(first, last)| format!("{first}-{last}"));
            let spans: Vec<_> = spans.collect();
            line(&format!("   {:<12} {}", "serials", spans.join(", ")))?;
        }
    }
    Ok(())
}
