//! Where a node keeps what it trusts.
//!
//! A directory with two slots. A new state is written beside them, made durable, and renamed over
//! the slot of the older one, so that a power loss at any point leaves the old state or the new
//! one, and what is damaged later costs one of them. A slot's number is its sequence number
//! modulo 2; the higher sequence counts.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    audit::Head,
    digest::Digest,
    files,
    form::{self, FormError},
    trust::{Root, Trust},
};

/// Bytes of a slot: two signer sets of the largest size and the root's fit easily.
const SLOT_LEN_MAX: usize = 1 << 16;
/// The only version of the format.
const VERSION: u32 = 1;
/// File names of the slots.
const SLOTS: [&str; 2] = ["trust.0", "trust.1"];
/// Where the next slot is written before it takes its place.
const NEXT: &str = "trust.next";
/// Locked by who changes the state.
const LOCK: &str = "trust.lock";

/// A directory with a trust state.
#[derive(Clone, Debug)]
pub struct Store {
    dir: PathBuf,
}

/// What a store holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// The state that counts.
    pub trust: Trust,
    /// How far the audit log went when it was last written to.
    pub log: Option<Head>,
    /// What is wrong with the other slot. No power loss does that: the disk fails, or somebody
    /// changed the file, and the state may be the one before the last.
    pub damage: Option<String>,
}

/// Why a trust state cannot be read or changed; the one that was there still is.
#[derive(Debug, Error)]
pub enum StoreError {
    /// A file operation failed.
    #[error("cannot use the trust state in `{dir}`: {source}")]
    File {
        /// The directory.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Somebody else could put a state there.
    #[error(
        "others may change the trust state in `{dir}`, for {why}; give the directory to who runs govc, and let \
         nobody else write to it"
    )]
    Exposed {
        /// The directory.
        dir: PathBuf,
        /// How.
        why: String,
    },
    /// Neither slot can be used.
    #[error(
        "the trust state in `{dir}` is damaged: {why}; restore the directory from a backup, or \
         remove it and set the root of trust again, which forgets what was accepted"
    )]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A root is there already.
    #[error(
        "`{dir}` holds the root of trust of domain {domain}; remove the directory to set another, \
         which forgets what was accepted"
    )]
    Exists {
        /// The directory.
        dir: PathBuf,
        /// Whose root it holds.
        domain: String,
    },
    /// No root yet.
    #[error("there is no trust state in `{dir}`; set the root of trust first")]
    Empty {
        /// The directory.
        dir: PathBuf,
    },
    /// Another process changed it meanwhile.
    #[error("the trust state changed meanwhile; verify the bundle again")]
    Changed,
    /// The new state is older than the old one, or has another root.
    #[error("the new trust state does not follow from the old one; verify with what is stored")]
    Rollback,
    /// The state cannot be written down.
    #[error("the trust state cannot be written: {0}")]
    Form(#[from] FormError),
}

/// A slot's file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Slot {
    content: Content,
    /// Of the content's canonical form: tells damage from an honest file.
    sha256: Digest,
}

/// What a slot says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    version: u32,
    sequence: u64,
    trust: Trust,
    /// States of before it was kept have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<Head>,
}

/// The file operations of a store, by file name; a test replaces them by a disk without power.
trait Disk {
    /// [`None`] if there is no such file.
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self, name: &str) -> io::Result<()>;
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;
    fn sync_directory(&mut self) -> io::Result<()>;
}

impl Store {
    /// The store in a directory, which need not exist.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The state, if there is one.
    ///
    /// # Errors
    /// The files cannot be read, or no slot is whole although there are some.
    pub fn read(&self) -> Result<Option<State>, StoreError> {
        let state = |(content, damage)| {
            let Content { trust, log, .. } = content;
            State { trust, log, damage }
        };
        Ok(self.load()?.map(state))
    }

    /// Sets the root of trust in an empty store.
    ///
    /// # Errors
    /// There is a state already, or it cannot be written.
    pub fn create(&self, root: Root) -> Result<Trust, StoreError> {
        let _lock = self.lock()?;
        if let Some((held, _)) = self.load()? {
            let domain = held.trust.root().domain.to_string();
            return Err(StoreError::Exists { dir: self.dir.clone(), domain });
        }
        let trust = Trust::new(root);
        self.save(1, &trust, None)?;
        Ok(trust)
    }

    /// Puts `new` in the place of `old`, from which it followed by [`Trust::after`] or
    /// [`Trust::follow`]. When it returns, the new state outlives a power loss.
    ///
    /// # Errors
    /// The store holds another state than `old`, the new one is older or of another root, or it
    /// cannot be written.
    pub fn replace(&self, old: &Trust, new: &Trust) -> Result<(), StoreError> {
        let _lock = self.lock()?;
        let Some((held, _)) = self.load()? else {
            return Err(StoreError::Empty { dir: self.dir.clone() });
        };
        if held.trust != *old {
            return Err(StoreError::Changed);
        }
        let generation = |trust: &Trust| trust.last().map_or(0, |last| last.generation());
        let rollback = new.root() != old.root()
            || generation(new) < generation(old)
            || (generation(new) == generation(old) && new != old);
        if rollback {
            return Err(StoreError::Rollback);
        }
        // The same bundle once more: nothing to write.
        if new == old {
            return Ok(());
        }
        self.save(held.sequence.saturating_add(1), new, held.log)
    }

    /// Notes how far the audit log goes, so that lines which are taken away from its end are missed. A head that
    /// is not further than the one that is held changes nothing, for two may append at once, unless it comes
    /// `instead` of it. Does nothing in an empty store.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub fn note_log(&self, head: &Head, instead: bool) -> Result<(), StoreError> {
        if self.load()?.is_none() {
            return Ok(());
        }
        let _lock = self.lock()?;
        let Some((held, _)) = self.load()? else { return Ok(()) };
        if !instead && held.log.is_some_and(|log| log.count >= head.count) {
            return Ok(());
        }
        self.save(held.sequence.saturating_add(1), &held.trust, Some(*head))
    }

    fn lock(&self) -> Result<File, StoreError> {
        let failed = |source| StoreError::File { dir: self.dir.clone(), source };
        files::make_directory(&self.dir).map_err(failed)?;
        let mut options = File::options();
        // Whoever can open the file can hold the lock.
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(self.dir.join(LOCK));
        let file = file.map_err(failed)?;
        file.lock().map_err(failed)?;
        Ok(file)
    }

    fn load(&self) -> Result<Option<(Content, Option<String>)>, StoreError> {
        let failed = |source| StoreError::File { dir: self.dir.clone(), source };
        if let Some(why) = files::exposed(&self.dir).map_err(failed)? {
            return Err(StoreError::Exposed { dir: self.dir.clone(), why });
        }
        let loaded = load(&Directory(&self.dir)).map_err(failed)?;
        loaded.map_err(|why| StoreError::Damaged { dir: self.dir.clone(), why })
    }

    fn save(&self, sequence: u64, trust: &Trust, log: Option<Head>) -> Result<(), StoreError> {
        let (slot, bytes) = encode(sequence, trust, log)?;
        save(&mut Directory(&self.dir), slot, &bytes)
            .map_err(|source| StoreError::File { dir: self.dir.clone(), source })
    }
}

/// What a slot holds.
enum Found {
    Nothing,
    Whole(Box<Content>),
    Damage(String),
}

/// What the slots hold together: a state and what is wrong besides, or why there is none.
type Loaded = Result<Option<(Content, Option<String>)>, String>;

fn load(disk: &impl Disk) -> io::Result<Loaded> {
    let [first, second] = SLOTS;
    Ok(choose(look(disk, first, 0)?, look(disk, second, 1)?))
}

fn look(disk: &impl Disk, name: &str, parity: u64) -> io::Result<Found> {
    let Some(bytes) = disk.read(name)? else { return Ok(Found::Nothing) };
    let damage = |why: &dyn std::fmt::Display| Ok(Found::Damage(format!("`{name}`: {why}")));
    let slot: Slot = match form::read(&bytes, SLOT_LEN_MAX) {
        Ok(slot) => slot,
        Err(error) => return damage(&error),
    };
    match form::write(&slot.content) {
        Ok(text) if Digest::of(&text) == slot.sha256 => {}
        Ok(_) => return damage(&"its digest does not fit"),
        Err(error) => return damage(&error),
    }
    if slot.content.version != VERSION {
        return damage(&format_args!("version {} is not known", slot.content.version));
    }
    if slot.content.sequence % 2 != parity {
        return damage(&"it belongs into the other slot");
    }
    Ok(Found::Whole(Box::new(slot.content)))
}

fn choose(first: Found, second: Found) -> Loaded {
    match (first, second) {
        (Found::Nothing, Found::Nothing) => Ok(None),
        // Sequences of different parity are never equal.
        (Found::Whole(a), Found::Whole(b)) => {
            Ok(Some((if a.sequence > b.sequence { *a } else { *b }, None)))
        }
        (Found::Whole(one), Found::Damage(why)) | (Found::Damage(why), Found::Whole(one)) => {
            Ok(Some((*one, Some(why))))
        }
        (Found::Whole(one), Found::Nothing) | (Found::Nothing, Found::Whole(one)) => {
            let missing = one.sequence > 1;
            Ok(Some((*one, missing.then(|| "one of the two slots is missing".into()))))
        }
        (Found::Damage(why), _) | (_, Found::Damage(why)) => Err(why),
    }
}

/// A slot's file name and contents.
fn encode(
    sequence: u64,
    trust: &Trust,
    log: Option<Head>,
) -> Result<(&'static str, Vec<u8>), FormError> {
    let content = Content { version: VERSION, sequence, trust: trust.clone(), log };
    let sha256 = Digest::of(&form::write(&content)?);
    let bytes = form::write(&Slot { content, sha256 })?;
    if bytes.len() > SLOT_LEN_MAX {
        return Err(FormError::TooLong { len: bytes.len(), max: SLOT_LEN_MAX });
    }
    let [even, odd] = SLOTS;
    Ok((if sequence.is_multiple_of(2) { even } else { odd }, bytes))
}

/// Writes a slot. The order is what keeps a state through a power loss: the contents are durable
/// before they have the slot's name, and the name is durable before anybody relies on it.
fn save(disk: &mut impl Disk, slot: &str, bytes: &[u8]) -> io::Result<()> {
    disk.write(NEXT, bytes)?;
    disk.sync(NEXT)?;
    disk.rename(NEXT, slot)?;
    disk.sync_directory()
}

/// The disk that there is.
struct Directory<'a>(&'a Path);

impl Disk for Directory<'_> {
    fn read(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        files::read(&self.0.join(name), SLOT_LEN_MAX)
    }

    fn write(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        files::write(&self.0.join(name), bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        files::sync(&self.0.join(name))
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.0.join(from), self.0.join(to))
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        files::sync(self.0)
    }
}

#[cfg(test)]
mod tests;
