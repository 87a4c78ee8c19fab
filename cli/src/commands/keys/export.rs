//! `keys export`: keys that go to other nodes.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use govc_abi::limits::SUBJECTS_MAX;
use govc_authority::{
    Domain, audit::Event, digest::Digest, envelope::ENVELOPE_LEN_MAX, ring, sealed::Recipients,
};
use govc_loader::keyring::{DomainKeys, Senders};

use super::{
    super::plural,
    expect,
    status::{report, tell_json},
    tell_epochs,
};
use crate::{
    arguments::{Export, Signing},
    failure::Failure,
    input,
    output::{Style, json, line},
    rights, secrets,
    state::State,
};

pub fn run(arguments: &Export, style: &Style) -> Result<(), Failure> {
    let keys = expect(&crate::ring::open(&arguments.ring), arguments.number)?;
    let names = (arguments.names.as_deref(), arguments.include.as_slice());
    let senders = senders(&arguments.subject, arguments.number, names)?;
    let exports = exports(keys, &senders, &arguments.output)?;
    exports.iter().try_for_each(|(_, path)| replaceable(path))?;
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

/// An export takes the place of an earlier one and of nothing else: what is sealed here may be a
/// private key there, which nobody has twice.
fn replaceable(path: &Path) -> Result<(), Failure> {
    let metadata = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(input::file("read", path))?,
    };
    // What is no file is not read: a pipe would never end.
    let bytes = metadata.is_file().then(|| secrets::read(path, ENVELOPE_LEN_MAX).ok()).flatten();
    if bytes.is_some_and(|bytes| ring::is_export(&bytes)) {
        return Ok(());
    }
    Err(Failure::Usage {
        message: format!("`{}` is there already, and is no export of keys", path.display()),
        help: "Choose another name, or remove it.".into(),
    })
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
