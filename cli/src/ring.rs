//! The node's key ring, and the identity that its files are sealed for while they lie.
//!
//! The identity is an age key. It is read only when a file is opened or sealed: whoever looks at a
//! ring that lies open needs none.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use govc_authority::sealed::{self, Kind, Opener, Recipients, SealError};
use govc_loader::keyring::{AtRest, KeyRing};
use zeroize::Zeroizing;

use crate::{arguments::RingArguments, failure::Failure, secrets};

/// The name in the key directory under which the identity is found, best a link to where it lies.
pub const IDENTITY: &str = "identity";

/// The ring that the command line names, with what opens it.
pub fn open(arguments: &RingArguments) -> KeyRing {
    open_at(&arguments.keys, arguments.ring_identity.as_deref())
}

/// As [`open`], for commands that have these arguments otherwise.
pub fn open_at(dir: &Path, identity: Option<&Path>) -> KeyRing {
    match identity_of(dir, identity) {
        Some(path) => sealed_by(dir, path, None),
        None => KeyRing::new(dir),
    }
}

/// A ring that is sealed for one identity and may have been for another.
pub fn sealed_by(dir: &Path, identity: PathBuf, before: Option<PathBuf>) -> KeyRing {
    KeyRing::new(dir).sealed_by(Arc::new(Identity { path: identity, before }))
}

/// Where the identity lies: where somebody says, or the key directory does. A link that leads
/// nowhere counts: what was to be sealed must not come to lie open because a disk is missing.
pub fn identity_of(dir: &Path, said: Option<&Path>) -> Option<PathBuf> {
    let there = || Some(dir.join(IDENTITY)).filter(|path| fs::symlink_metadata(path).is_ok());
    said.map(Path::to_path_buf).or_else(there)
}

/// Makes sure that a file holds an age key before anything is done for it.
///
/// # Errors
/// It cannot be read, others may read it, or it holds something else.
pub fn prove(identity: &Path) -> Result<(), Failure> {
    Opener::key(&secrets::age_key(identity)?)
        .map_err(|error| Failure::refused_in(identity, &error))?;
    Ok(())
}

struct Identity {
    path: PathBuf,
    /// Opens what was sealed before.
    before: Option<PathBuf>,
}

impl AtRest for Identity {
    fn seal(&self, text: &[u8]) -> Result<Vec<u8>, String> {
        let to = Recipients::of(&opener(&self.path)?);
        sealed::seal(Kind::KeyRing, text, &to).map_err(|error| short(&error))
    }

    fn open(&self, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, String> {
        let by = |path: &Path| {
            sealed::open(Kind::KeyRing, sealed, &opener(path)?).map_err(|error| match error {
                SealError::Closed => {
                    format!("the age key in `{}` does not open it", path.display())
                }
                error => short(&error),
            })
        };
        by(&self.path).or_else(|why| self.before.as_deref().map_or(Err(why), by))
    }
}

fn opener(path: &Path) -> Result<Opener, String> {
    let key = secrets::age_key(path).map_err(|failure| match &failure {
        Failure::File { source, .. } => format!("{failure}: {source}"),
        _ => failure.to_string(),
    })?;
    Opener::key(&key).map_err(|_| format!("`{}` holds no age key", path.display()))
}

/// The message without the advice behind it: what to do follows from the file's name.
fn short(error: &SealError) -> String {
    Failure::refused(error).to_string()
}
