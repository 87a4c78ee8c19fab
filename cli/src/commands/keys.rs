//! `keys`: the local key ring.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use govc_abi::limits::SUBJECTS_MAX;
use govc_authority::{
    Domain,
    audit::Event,
    digest::Digest,
    envelope::{ENVELOPE_LEN_MAX, Envelope},
    ring,
    sealed::{Opener, Recipients},
};
use govc_loader::{
    keyring::{DomainKeys, KeyRing, Senders, slot_now},
    publish,
};
use serde::Serialize;

use super::{apply::place, columns, plural, trust};
use crate::{
    arguments::{Export, InstanceArguments, Keys, Signing},
    failure::Failure,
    input,
    output::{Style, json, line},
    rights, secrets,
    state::State,
    times,
};

pub fn run(command: Keys, style: &Style) -> Result<(), Failure> {
    match command {
        Keys::New { domain, number, epoch_shift, staged, per_subject, ring, state, json } => {
            let ring = KeyRing::new(ring.keys);
            if ring.read(number)?.is_some() {
                return Err(Failure::Usage {
                    message: format!("domain {number} has keys already"),
                    help:
                        "Add epochs with `govc keys stage`; to begin anew remove the file, which \
                           makes all labels in flight worthless."
                            .into(),
                });
            }
            let mut keys = DomainKeys::generate(&domain, number, epoch_shift, staged)?;
            if per_subject {
                keys.senders = Senders::Each;
            }
            ring.write(&keys)?;
            noted(&State::new(&state), &keys, "made")?;
            if json {
                return tell_json(&keys);
            }
            line(&format!(
                "{} {} epochs for domain `{domain}` ({number}) in {}",
                style.good("made"),
                keys.epochs().count(),
                ring.dir().display()
            ))
        }
        Keys::Stage { staged, ring, state, instance } => {
            let ring = KeyRing::new(ring.keys);
            let mut reports = Vec::new();
            for mut keys in ring.list()? {
                let added = keys.stage(slot_now(), staged)?;
                ring.write(&keys)?;
                noted(&State::new(&state), &keys, "staged")?;
                if !instance.json {
                    line(&format!("{}: {added} epochs added", keys.domain))?;
                }
                reports.push(report(&keys));
            }
            hand_over(&ring, &instance)?;
            if instance.json { json(&reports) } else { Ok(()) }
        }
        Keys::Rotate { number, staged, ring, state, instance } => {
            let ring = KeyRing::new(ring.keys);
            let mut keys = expect(&ring, number)?;
            if let Senders::One(subject) = keys.senders {
                return Err(Failure::Usage {
                    message: format!("these are the keys of subject {subject} only"),
                    help: "Rotate them where the domain's keys are, and import them again.".into(),
                });
            }
            let replaced = keys.rotate(slot_now(), staged)?;
            ring.write(&keys)?;
            noted(&State::new(&state), &keys, "rotated")?;
            hand_over(&ring, &instance)?;
            if instance.json {
                return tell_json(&keys);
            }
            line(&format!(
                "{} {} of {} have new keys; other nodes need them before the present epoch ends, \
                 in {}",
                style.good("rotated"),
                plural(replaced, "epoch"),
                keys.domain,
                duration(
                    2 * (((slot_now() >> keys.epoch_shift) + 1) << keys.epoch_shift)
                        .saturating_sub(slot_now())
                )
            ))
        }
        Keys::Export(arguments) => export(&arguments, style),
        Keys::Import { file, domain, number, signers, identity, ring, state, instance } => {
            let ring = KeyRing::new(ring.keys);
            let domain = Domain { name: domain, number };
            let keys = import(&file, domain, &signers, &identity)?;
            not_less(&ring, &keys)?;
            ring.write(&keys)?;
            let state = State::new(&state);
            state.record_if_kept(Event::RingImported, tell_epochs(&keys), &[], &[])?;
            hand_over(&ring, &instance)?;
            if instance.json {
                return tell_json(&keys);
            }
            line(&format!("{} {}", style.good("took"), tell_epochs(&keys)))
        }
        Keys::Status { ring, json } => status(&KeyRing::new(ring.keys), json, style),
    }
}

fn expect(ring: &KeyRing, number: u16) -> Result<DomainKeys, Failure> {
    ring.read(number)?.ok_or_else(|| Failure::Usage {
        message: format!("domain {number} has no keys in `{}`", ring.dir().display()),
        help: "Make them with `govc keys new`, or take them with `govc keys import`.".into(),
    })
}

/// Senders that are exported by one command, at most: each has a file of its own.
const SENDERS_MAX: usize = 1024;

/// The subjects that texts mean, ascending; none where there is no text.
fn senders(
    texts: &[String],
    number: u16,
    (names, include): (Option<&Path>, &[PathBuf]),
) -> Result<Vec<u32>, Failure> {
    let image = names.map(|path| rights::names_of(path, include)).transpose()?;
    let domains = image.as_ref().map(|image| image.names().domains.as_slice()).unwrap_or_default();
    let domain = domains.iter().find(|domain| domain.number == number);
    let mut subjects = BTreeSet::new();
    for text in texts {
        let all = rights::senders(text, domain)?;
        // One more than may be is enough to see that it is too much.
        let each = all.iter().flat_map(|(first, last)| first..=last);
        subjects.extend(each.take(SENDERS_MAX + 1));
    }
    if subjects.len() > SENDERS_MAX {
        return Err(Failure::Usage {
            message: format!("more than {SENDERS_MAX} subjects"),
            help: "Export their keys in several steps.".into(),
        });
    }
    if let Some(none) = subjects.iter().find(|subject| **subject >= SUBJECTS_MAX) {
        return Err(Failure::Usage {
            message: format!("there is no subject {none}"),
            help: format!("The last one is {}.", SUBJECTS_MAX - 1),
        });
    }
    Ok(subjects.into_iter().collect())
}

/// What is exported, and where to: to a file, and for several senders to one each in a directory.
fn exports(
    keys: DomainKeys,
    senders: &[u32],
    output: &Path,
) -> Result<Vec<(DomainKeys, PathBuf)>, Failure> {
    match senders {
        [] => Ok(vec![(keys, output.to_path_buf())]),
        [one] => Ok(vec![(for_sender(&keys, *one)?, output.to_path_buf())]),
        all => {
            std::fs::create_dir_all(output).map_err(input::file("make", output))?;
            let each = all.iter().map(|subject| {
                Ok((for_sender(&keys, *subject)?, output.join(format!("{subject}.keys"))))
            });
            each.collect()
        }
    }
}

fn for_sender(keys: &DomainKeys, subject: u32) -> Result<DomainKeys, Failure> {
    keys.for_sender(subject).ok_or_else(|| Failure::Usage {
        message: match keys.senders {
            Senders::One(other) => format!("these are the keys of subject {other} only"),
            _ => format!("all senders of {} share one key", keys.domain),
        },
        help: "Senders have keys of their own in domains whose keys were made with `govc keys new \
               --per-subject`."
            .into(),
    })
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

fn export(arguments: &Export, style: &Style) -> Result<(), Failure> {
    let keys = expect(&KeyRing::new(&arguments.ring.keys), arguments.number)?;
    let names = (arguments.names.as_deref(), arguments.include.as_slice());
    let senders = senders(&arguments.subject, arguments.number, names)?;
    let exports = exports(keys, &senders, &arguments.output)?;
    write(&exports, (&arguments.recipient, &arguments.signing), &State::new(&arguments.state))?;
    if arguments.json {
        return match exports.as_slice() {
            [(keys, _)] => tell_json(keys),
            all => json(&all.iter().map(|(keys, _)| report(keys)).collect::<Vec<_>>()),
        };
    }
    let readers = plural(arguments.recipient.len(), "age key");
    exports.iter().try_for_each(|(_, path)| {
        line(&format!("{} {}, for {readers}", style.good("made"), path.display()))
    })
}

fn write(
    exports: &[(DomainKeys, PathBuf)],
    (recipients, signing): (&[String], &Signing),
    state: &State,
) -> Result<(), Failure> {
    let to = Recipients::keys(recipients.iter().map(String::as_str))?;
    let key = secrets::signing_key(signing)?;
    for (keys, output) in exports {
        let domain = Domain { name: keys.domain.clone(), number: keys.number };
        let text = keys.to_text().map_err(std::io::Error::from)?;
        let bytes = ring::export(&text, &domain, &to, &key)?.to_bytes()?;
        input::write_whole(output, &bytes)?;
        let digests = [("file", Digest::of(&bytes))];
        state.record_if_kept(Event::RingExported, tell_epochs(keys), &digests, &[key.id()])?;
    }
    Ok(())
}

fn import(
    path: &Path,
    domain: Domain,
    signers: &[PathBuf],
    identity: &Path,
) -> Result<DomainKeys, Failure> {
    let refused = |error: &dyn std::fmt::Display| Failure::refused_in(path, error);
    // Whoever may export does so alone.
    let signers = trust::signers(signers, 1)?;
    let envelope = Envelope::read(&secrets::read(path, ENVELOPE_LEN_MAX)?);
    let envelope = envelope.map_err(|error| refused(&error))?;
    let with = Opener::key(&secrets::age_key(identity)?)?;
    let text = ring::import(&envelope, &domain, &signers, &with);
    let text = text.map_err(|error| refused(&error))?;
    let text = std::str::from_utf8(&text).unwrap_or_default();
    DomainKeys::from_text(text).map_err(|why| refused(&why))
}

/// Keys that end before those that are here are an older export: somebody may want keys back
/// that have been replaced. Those of one sender in the place of a domain's would verify nothing.
fn not_less(ring: &KeyRing, new: &DomainKeys) -> Result<(), Failure> {
    let end = |keys: &DomainKeys| keys.epochs().map(|epoch| epoch.not_after_slot).max();
    match ring.read(new.number)? {
        Some(held) if held.senders != new.senders => Err(Failure::Refused {
            message: format!(
                "the {} are of another kind than those that are here",
                tell_epochs(new)
            ),
            help: Some("Remove those that are here first, if they are not needed.".into()),
        }),
        Some(held) if end(&held) > end(new) => Err(Failure::Refused {
            message: format!("the {} end before those that are here", tell_epochs(new)),
            help: Some("Export them again where they were made.".into()),
        }),
        _ => Ok(()),
    }
}

#[derive(Serialize)]
struct DomainReport {
    domain: String,
    number: u16,
    epoch_seconds: u64,
    epochs: usize,
    /// `all`, `each`, or `one` with a subject.
    senders: Senders,
    ends_in_s: u64,
    /// Unix time of the last second that has a key.
    ends: u64,
}

fn report(keys: &DomainKeys) -> DomainReport {
    let now = slot_now();
    let end = keys.epochs().map(|epoch| epoch.not_after_slot).max().unwrap_or(now);
    DomainReport {
        domain: keys.domain.clone(),
        number: keys.number,
        epoch_seconds: 2 << keys.epoch_shift,
        epochs: keys.epochs().count(),
        senders: keys.senders,
        ends_in_s: end.saturating_sub(now) * 2,
        ends: (end * 2).saturating_sub(1),
    }
}

fn tell_json(keys: &DomainKeys) -> Result<(), Failure> {
    json(&report(keys))
}

fn status(ring: &KeyRing, as_json: bool, style: &Style) -> Result<(), Failure> {
    let reports: Vec<DomainReport> = ring.list()?.iter().map(report).collect();
    if as_json {
        return json(&reports);
    }
    let head = ["DOMAIN", "NUMBER", "SENDERS", "EPOCHS", "EPOCH", "KEYS UNTIL"]
        .map(str::to_owned)
        .to_vec();
    let rows = reports.iter().map(|report| {
        vec![
            report.domain.clone(),
            report.number.to_string(),
            match report.senders {
                Senders::All => "all".into(),
                Senders::Each => "each".into(),
                Senders::One(subject) => format!("subject {subject}"),
            },
            report.epochs.to_string(),
            duration(report.epoch_seconds),
            match report.ends_in_s {
                0 => style.bad("ended: all labels are refused; stage or import keys"),
                left => format!("{}, in {}", times::tell(report.ends), duration(left)),
            },
        ]
    });
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
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
