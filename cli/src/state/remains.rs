//! What tells of bundles that were accepted when the trust state does not: files go, disks fail, and
//! directories are not mounted.

use std::path::PathBuf;

use govc_authority::{
    audit::{Entry, Event, KNOWN, LINE_LEN_MAX, Record},
    bundle::{BUNDLE_LEN_MAX, Bundle},
    digest::Digest,
    files, form,
    trust::{Root, Trust},
};

use super::State;
use crate::{failure::Failure, input};

/// A bundle that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    generation: u64,
    manifest: Option<Digest>,
}

impl State {
    /// A file that only a node with a root of trust writes, if there is one: where there is no root beside it,
    /// that was lost.
    pub fn remains(&self) -> Option<PathBuf> {
        let paths = ["node.pub", "audit.log", "policy.bundle"].map(|name| self.dir.join(name));
        paths.into_iter().find(|path| path.exists())
    }

    /// Whether a bundle is at least as new as any that was accepted here before. As a rule the trust state
    /// knows that; but one that has lost a slot may be the one before the last.
    ///
    /// # Errors
    /// A newer bundle was accepted, or another one of that generation.
    pub fn check_not_older(&self, trust: &Trust, accepted: (u64, &Digest)) -> Result<(), Failure> {
        let (found, manifest) = accepted;
        let Some(newest) = self.newest(trust.root())? else { return Ok(()) };
        let other = newest.manifest.is_some_and(|newest| newest != *manifest);
        if found > newest.generation || (found == newest.generation && !other) {
            return Ok(());
        }
        let generation = newest.generation;
        let what = if found == generation { "another bundle of it" } else { "generation" };
        let which = if found == generation { String::new() } else { format!(" {generation}") };
        Err(Failure::Refused {
            message: format!(
                "generation {found} is not the newest: {what}{which} was accepted here before, which the trust \
                 state in `{}` has lost",
                self.dir.display()
            ),
            help: Some(format!(
                "Apply the bundle of generation {generation} that was accepted, or follow it and apply a later \
                 one; what lies in the directory is damaged or was changed."
            )),
        })
    }

    /// The newest of the bundle that lies here and those that the log tells of.
    fn newest(&self, root: &Root) -> Result<Option<Known>, Failure> {
        let kept = self.kept_bundle()?.and_then(|bundle| bundle.unverified_manifest().ok());
        let kept = kept.filter(|manifest| manifest.domain == root.domain).map(|manifest| Known {
            generation: manifest.generation,
            manifest: manifest.digest().ok(),
        });
        let logged = self.logged(&Digest::of(&root.to_bytes()?))?;
        Ok(kept.into_iter().chain(logged).max_by_key(|known| known.generation))
    }

    /// The bundle that lies here, if it is one.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn kept_bundle(&self) -> Result<Option<Bundle>, Failure> {
        let path = self.bundle_path();
        let bytes = files::read(&path, BUNDLE_LEN_MAX).map_err(input::file("read", &path))?;
        Ok(bytes.and_then(|bytes| Bundle::read(&bytes).ok()))
    }

    /// Whether the log, which is whole, tells of the bundle that the trust state has for last.
    ///
    /// # Errors
    /// It tells of another, of none, or of nothing at all.
    pub fn check_log_tells(&self, trust: &Trust) -> Result<(), Failure> {
        let records = self.records()?;
        let mut last = None;
        let mut known = true;
        for record in &records {
            match record.event {
                Event::RootSet => (last, known) = (None, true),
                Event::BundleAccepted => {
                    (last, known) = (record.digests.get("manifest"), true);
                }
                // Lines were missing before it, and any of them may have told of a bundle.
                Event::LogMended if record.digests.contains_key(KNOWN) => known = false,
                _ => {}
            }
        }
        let wanted = trust.last().map(|last| last.manifest());
        let message = match (records.is_empty(), last == wanted || !known) {
            (false, true) => return Ok(()),
            (true, _) => "the log is empty, and this node was given a root of trust".to_owned(),
            (false, false) => {
                let tell = |manifest: Option<&Digest>| {
                    manifest.map_or_else(|| "no bundle".to_owned(), |digest| digest.to_string())
                };
                let (logged, held) = (tell(last), tell(wanted));
                format!(
                    "the log has {logged} as the last that was accepted, the trust state {held}"
                )
            }
        };
        let help = "Apply the last bundle again; if that does not help, find out who changed the log or the \
                    trust state.";
        Err(Failure::Refused {
            message: format!("`{}`: {message}", self.log().display()),
            help: Some(help.into()),
        })
    }

    /// What the log says. Lines that cannot be read are left out: whether the log is whole, others look.
    fn records(&self) -> Result<Vec<Record>, Failure> {
        let path = self.log();
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read.map_err(input::file("read", &path))?,
        };
        let lines = bytes.split(|byte| *byte == b'\n');
        let entries = lines.filter_map(|line| form::read::<Entry>(line, LINE_LEN_MAX).ok());
        Ok(entries.map(|entry| entry.record).collect())
    }

    /// The newest bundle of the log that was accepted under this root.
    fn logged(&self, root: &Digest) -> Result<Option<Known>, Failure> {
        let mut newest: Option<Known> = None;
        for record in self.records()? {
            match record.event {
                // What was accepted under another root has no order with this one's.
                Event::RootSet if record.digests.get("root") != Some(root) => newest = None,
                Event::BundleAccepted => {
                    let Some(generation) = generation_of(&record.note) else { continue };
                    let manifest = record.digests.get("manifest").copied();
                    if newest.is_none_or(|newest| generation >= newest.generation) {
                        newest = Some(Known { generation, manifest });
                    }
                }
                _ => {}
            }
        }
        Ok(newest)
    }
}

/// What the log says of a bundle that was accepted begins like this; [`generation_of`] reads it.
pub fn note_of(generation: u64, rest: &dyn std::fmt::Display) -> String {
    format!("bundle {generation} {rest}")
}

fn generation_of(note: &str) -> Option<u64> {
    note.strip_prefix("bundle ")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_are_read_from_notes() {
        for rest in ["of acme (7)", "followed, not enforced"] {
            assert_eq!(generation_of(&note_of(12, &rest)), Some(12));
        }
        assert_eq!(generation_of("root 12"), None);
    }
}
