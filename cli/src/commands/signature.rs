//! What bundles, grants and mappings have in common when a key signs them.

use std::path::Path;

use govc_authority::{
    audit::Event, digest::Digest, envelope::Signed, key::SigningKey, signers::SignerSet,
};

use super::plural;
use crate::{
    failure::Failure,
    input,
    output::{Style, line},
    state::State,
};

/// What is to be signed, and by whom.
pub struct Signing<'a> {
    /// The file.
    pub path: &'a Path,
    /// The key.
    pub key: &'a SigningKey,
    /// Signatures of keys in none of these are taken away first; none where there are no sets.
    pub roots: &'a [SignerSet],
    /// Whose log tells.
    pub state: &'a State,
    /// For programs: nothing is said.
    pub as_json: bool,
}

/// What the log says of it.
pub struct Entry {
    /// What was signed.
    pub event: Event,
    /// Which.
    pub note: String,
    /// The digest of it, and what it is.
    pub digest: (&'static str, Digest),
}

impl Signing<'_> {
    /// The sets whose keys' signatures stay, if any are to go.
    pub fn drops(&self) -> Option<&[SignerSet]> {
        (!self.roots.is_empty()).then_some(self.roots)
    }

    /// What the log says of a file that is known by its name.
    pub fn entry(&self, event: Event, what: &'static str, bytes: &[u8]) -> Entry {
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        Entry { event, note: name.unwrap_or_default(), digest: (what, Digest::of(bytes)) }
    }
}

/// Writes a file back with its new signature, and notes and tells who signed it: only if somebody did. `done` is
/// what became of the signature, and how many others were taken away.
///
/// # Errors
/// A file cannot be written.
pub fn keep(
    signing: &Signing<'_>,
    bytes: &[u8],
    (signed, dropped): (Signed, Option<usize>),
    (entry, style): (Entry, &Style),
) -> Result<(), Failure> {
    let dropped = dropped.unwrap_or_default();
    let key = signing.key.id();
    if signed != Signed::Before || dropped != 0 {
        input::write_whole(signing.path, bytes)?;
    }
    if signed != Signed::Before {
        signing.state.record_if_kept(entry.event, entry.note, &[entry.digest], &[key])?;
    }
    if signing.as_json {
        return Ok(());
    }
    if dropped != 0 {
        let what = plural(dropped, "signature");
        line(&format!("{} {what} of unknown keys", style.good("took away")))?;
    }
    match signed {
        Signed::Added => line(&format!("{} by key {key}", style.good("signed"))),
        Signed::Before => line(&format!("{} key {key} had signed before", style.good("ok"))),
        Signed::Replaced => line(&format!(
            "{} by key {key}, in the place of what was no signature of it",
            style.good("signed")
        )),
    }
}
