//! What grants and mappings have in common when a key has signed them.

use std::path::Path;

use govc_authority::{audit::Event, digest::Digest, key::SigningKey};

use crate::{
    failure::Failure,
    input,
    output::{Style, line},
    state::State,
};

/// Writes a file back with its new signature, and notes who signed it. `what` is what the file holds, with
/// the event of signing one.
///
/// # Errors
/// A file cannot be written.
pub fn keep(
    (path, bytes): (&Path, &[u8]),
    (what, event): (&str, Event),
    key: &SigningKey,
    state: &State,
    (as_json, style): (bool, &Style),
) -> Result<(), Failure> {
    input::write_whole(path, bytes)?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let digests = [(what, Digest::of(bytes))];
    state.record_if_kept(event, name.unwrap_or_default(), &digests, &[key.id()])?;
    if as_json {
        return Ok(());
    }
    line(&format!("{} by key {}", style.good("signed"), key.id()))
}
