//! `keys`: the local key ring.

use govc_authority::{
    Domain,
    audit::Event,
    envelope::{ENVELOPE_LEN_MAX, Envelope},
    ring as exports,
    sealed::Opener,
};
use govc_loader::{
    keyring::{DomainKeys, KeyRing, Locked, Origin, Senders, Standing, slot_now},
    publish,
};

use self::status::{report, tell_json};
use super::{apply::place, plural, trust};
use crate::{
    arguments::{Import, InstanceArguments, Keys, New, Rotate, Staging},
    failure::Failure,
    output::{Style, json, line},
    ring, secrets,
    state::State,
};

mod export;
mod seal;
mod status;

pub fn run(command: Keys, style: &Style) -> Result<(), Failure> {
    match command {
        Keys::New(arguments) => new(&arguments, style),
        Keys::Stage(arguments) => stage(&arguments),
        Keys::Rotate(arguments) => rotate(&arguments, style),
        Keys::Export(arguments) => export::run(&arguments, style),
        Keys::Import(arguments) => import(&arguments, style),
        Keys::Seal(arguments) => seal::run(&arguments, style),
        Keys::Status { ring: arguments, json } => status::run(&ring::open(&arguments), json, style),
    }
}

fn new(arguments: &New, style: &Style) -> Result<(), Failure> {
    let New { domain, number, .. } = arguments;
    let ring = ring::open(&arguments.ring);
    let held = ring.lock()?;
    if held.read(*number)?.is_some() {
        return Err(Failure::Usage {
            message: format!("domain {number} has keys already"),
            help: "Add epochs with `govc keys stage`; to begin anew remove the file, which makes \
                   all labels in flight worthless."
                .into(),
        });
    }
    let mut keys = DomainKeys::generate(domain, *number, arguments.epoch_shift, arguments.staged)?;
    if arguments.per_subject {
        keys.senders = Senders::Each;
    }
    keep(&held, &mut keys)?;
    noted(&State::new(&arguments.state), &keys, "made")?;
    if arguments.json {
        return tell_json(&keys);
    }
    line(&format!(
        "{} {} epochs for domain `{domain}` ({number}) in {}",
        style.good("made"),
        keys.epochs().count(),
        ring.dir().display()
    ))
}

fn stage(arguments: &Staging) -> Result<(), Failure> {
    let Staging { number, instance, .. } = arguments;
    let ring = ring::open(&arguments.ring);
    // Asked before anything is locked, which makes the directory.
    match number {
        Some(number) => made_here(&expect(&ring, *number)?)?,
        None if ring.list()?.is_empty() => {
            hand_over(&ring, instance)?;
            return if instance.json { json(&[(); 0]) } else { Ok(()) };
        }
        None => {}
    }
    let lock = ring.lock()?;
    let rings = match number {
        Some(number) => vec![expect(&lock, *number)?],
        None => lock.list()?,
    };
    let mut reports = Vec::new();
    for mut keys in rings {
        if number.is_some() {
            made_here(&keys)?;
        }
        // Those that come from elsewhere forget what is over, and get nothing.
        let added = keys.stage(slot_now(), arguments.staged)?;
        keep(&lock, &mut keys)?;
        let domain = &keys.domain;
        let told = if keys.are_made_here() {
            noted(&State::new(&arguments.state), &keys, "staged")?;
            format!("{domain}: {added} epochs added")
        } else {
            format!("{domain}: left alone, its keys are made elsewhere; import the next export")
        };
        if !instance.json {
            line(&told)?;
        }
        reports.push(report(&keys));
    }
    hand_over(&ring, instance)?;
    if instance.json { json(&reports) } else { Ok(()) }
}

fn rotate(arguments: &Rotate, style: &Style) -> Result<(), Failure> {
    let ring = ring::open(&arguments.ring);
    made_here(&expect(&ring, arguments.number)?)?;
    let held = ring.lock()?;
    let mut keys = expect(&held, arguments.number)?;
    made_here(&keys)?;
    let replaced = keys.rotate(slot_now(), arguments.staged)?;
    keep(&held, &mut keys)?;
    noted(&State::new(&arguments.state), &keys, "rotated")?;
    hand_over(&ring, &arguments.instance)?;
    if arguments.instance.json {
        return tell_json(&keys);
    }
    line(&format!(
        "{} {} of {} have new keys; other nodes need them before the present epoch ends, in {}",
        style.good("rotated"),
        plural(replaced, "epoch"),
        keys.domain,
        duration(
            2 * (((slot_now() >> keys.epoch_shift) + 1) << keys.epoch_shift)
                .saturating_sub(slot_now())
        )
    ))
}

fn import(arguments: &Import, style: &Style) -> Result<(), Failure> {
    let ring = ring::open(&arguments.ring);
    let mut keys = exported(arguments)?;
    let lock = ring.lock()?;
    let held = lock.read(arguments.number)?;
    let ours = held.as_ref().is_some_and(DomainKeys::are_made_here);
    keys.origin = if arguments.own { Origin::Made } else { Origin::Imported };
    match held {
        Some(mut held) if no_older(&held, &keys)? == Standing::Same => {
            // They count as what they are here, but for who says that he makes them from now on.
            if arguments.own && held.origin != Origin::Made {
                held.origin = Origin::Made;
                keep(&lock, &mut held)?;
            }
            keys = held;
        }
        _ => keep(&lock, &mut keys)?,
    }
    let state = State::new(&arguments.state);
    state.record_if_kept(Event::RingImported, tell_epochs(&keys), &[], &[])?;
    hand_over(&ring, &arguments.instance)?;
    if arguments.instance.json {
        return tell_json(&keys);
    }
    line(&format!("{} {}", style.good("took"), tell_epochs(&keys)))?;
    if ours && !keys.are_made_here() {
        line("   they are made elsewhere from now on: `govc keys stage` adds none here")?;
    }
    Ok(())
}

/// Writes keys that were changed, and notes how they lie there.
fn keep(ring: &Locked<'_>, keys: &mut DomainKeys) -> Result<(), Failure> {
    ring.write(keys)?;
    keys.sealed = ring.is_sealed();
    Ok(())
}

/// The keys of a domain, which there have to be.
fn expect(ring: &KeyRing, number: u16) -> Result<DomainKeys, Failure> {
    ring.read(number)?.ok_or_else(|| Failure::Usage {
        message: format!("domain {number} has no keys in `{}`", ring.dir().display()),
        help: "Make them with `govc keys new`, or take them with `govc keys import`.".into(),
    })
}

/// Keys that are made elsewhere cannot be made here: nobody else would know them, and labels
/// between those who do not know the same keys are worth nothing.
fn made_here(keys: &DomainKeys) -> Result<(), Failure> {
    let help = "Do it where the domain's keys are made, and import the next export of it.";
    let message = match keys.senders {
        Senders::One(subject) => format!("these are the keys of subject {subject} only"),
        _ if keys.are_made_here() => return Ok(()),
        _ => format!("the keys of {} were imported: they are made elsewhere", keys.domain),
    };
    Err(Failure::Usage { message, help: help.into() })
}

/// Gives the ring's keys to the instance, if it runs.
fn hand_over(ring: &KeyRing, instance: &InstanceArguments) -> Result<(), Failure> {
    let place = place(&instance.place);
    if place.exists() {
        publish::refresh_keys(&place, ring)?;
        if !instance.json {
            line(&format!("instance `{}` has them", place.name()))?;
        }
    }
    Ok(())
}

/// Which epochs there are keys for: never the keys.
fn tell_epochs(keys: &DomainKeys) -> String {
    let (mut first, mut last) = (u64::MAX, 0);
    for epoch in keys.epochs() {
        (first, last) = (first.min(epoch.epoch), last.max(epoch.epoch));
    }
    let domain = Domain { name: keys.domain.clone(), number: keys.number };
    let whose = match keys.senders {
        Senders::All => String::new(),
        Senders::Each => ", each sender its own,".into(),
        Senders::One(subject) => format!(", subject {subject} only,"),
    };
    format!("keys of {domain}{whose} for epochs {first} to {last}")
}

fn noted(state: &State, keys: &DomainKeys, what: &str) -> Result<(), Failure> {
    let note = format!("{what}: {}", tell_epochs(keys));
    state.record_if_kept(Event::EpochsStaged, note, &[], &[])
}

/// The keys in a file that somebody exported.
fn exported(arguments: &Import) -> Result<DomainKeys, Failure> {
    let path = arguments.file.as_path();
    let domain = Domain { name: arguments.domain.clone(), number: arguments.number };
    let refused = |error: &dyn std::fmt::Display| Failure::refused_in(path, error);
    // Whoever may export does so alone.
    let signers = trust::signers(&arguments.signers, 1)?;
    let envelope = Envelope::read(&secrets::read(path, ENVELOPE_LEN_MAX)?);
    let envelope = envelope.map_err(|error| refused(&error))?;
    let said = arguments.identity.clone();
    let rings = &arguments.ring;
    let identity = said.or_else(|| ring::identity_of(&rings.keys, rings.ring_identity.as_deref()));
    let identity = identity.ok_or_else(|| Failure::Usage {
        message: "nobody said which age key opens the file".into(),
        help: "Name the file with the one that it was sealed for: --identity FILE".into(),
    })?;
    let with = Opener::key(&secrets::age_key(&identity)?)?;
    let text = exports::import(&envelope, &domain, &signers, &with);
    let text = text.map_err(|error| refused(&error))?;
    let text = std::str::from_utf8(&text).unwrap_or_default();
    DomainKeys::from_text(text).map_err(|why| refused(&why))
}

/// Keys that were made before those that are here are an older export: somebody may want keys
/// back that have been replaced. Those of one sender in the place of a domain's would verify
/// nothing.
fn no_older(held: &DomainKeys, new: &DomainKeys) -> Result<Standing, Failure> {
    let refused = |why: &str, help: &str| {
        Err(Failure::Refused {
            message: format!("the {} {why}", tell_epochs(new)),
            help: Some(help.into()),
        })
    };
    let remove = "Remove those that are here first, if they are not needed.";
    if held.domain != new.domain {
        return refused(&format!("have the number of domain `{}` here", held.domain), remove);
    }
    if held.senders != new.senders {
        return refused("are of another kind than those that are here", remove);
    }
    match new.standing(held, slot_now()) {
        Standing::Older => refused(
            "were made before those that are here",
            "Export them again where they are made. If that node has just been set up anew, stage \
             them there first: `govc keys stage`.",
        ),
        standing => Ok(standing),
    }
}

/// `9h 6m`, `5d 7h`, `42s`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
