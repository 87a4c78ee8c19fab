//! The local key ring: one file for each domain with the keys of its epochs, readable by its
//! owner only.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use govc_abi::{
    key::{EPOCH_SHIFT_MAX, KeyEntry, sender},
    label::{Label, SLOT_NS},
    limits::{EPOCHS, SUBJECTS_MAX},
    mac,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{LoadError, file};

/// Where key rings live unless told otherwise.
pub const DEFAULT_DIR: &str = "/etc/govc/keys";
/// Length of an epoch unless told otherwise: 2^14 slots, 9.1 hours.
pub const EPOCH_SHIFT_DEFAULT: u32 = 14;
/// Epochs that a ring holds ahead: the past one and the present one take two of the 16 that a
/// label can tell apart.
pub const EPOCHS_STAGED_MAX: u64 = EPOCHS as u64 - 2;

/// Bytes of a domain's keys: room enough that no part of them stays behind when a buffer grows.
const TEXT_LEN_MAX: usize = 1 << 13;

/// The slot that it is now.
#[must_use]
pub fn slot_now() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_nanos() / u128::from(SLOT_NS)).unwrap_or(u64::MAX)
}

/// Keys of one domain.
#[derive(Serialize, Deserialize)]
pub struct DomainKeys {
    /// Format version, 1.
    version: u32,
    /// The domain's name, for people.
    pub domain: String,
    /// The domain's number in labels.
    pub number: u16,
    /// An epoch is `2^epoch_shift` slots of two seconds long.
    pub epoch_shift: u32,
    /// Whom all of these keys belong to.
    #[serde(default, skip_serializing_if = "Senders::is_all")]
    pub senders: Senders,
    /// Keys by ascending epoch.
    epochs: Vec<EpochKey>,
}

/// Whom the keys of a ring belong to. A domain's rings are all of one kind, which labels do not
/// choose: either of the first, or of the other two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Senders {
    /// To everybody: MACs are made with the keys themselves.
    #[default]
    All,
    /// Each sender has its own, which follows from these.
    Each,
    /// To the sender with this subject: the keys were made from those of a ring for each.
    One(u32),
}

impl Senders {
    fn is_all(&self) -> bool {
        *self == Self::All
    }

    /// As the kernel knows it: one of [`sender`].
    #[must_use]
    pub fn word(self) -> u32 {
        match self {
            Self::All => sender::ALL,
            Self::Each => sender::DERIVED,
            Self::One(subject) => sender::ONE | subject,
        }
    }
}

/// The key of one epoch.
#[derive(Serialize, Deserialize)]
struct EpochKey {
    epoch: u64,
    /// 32 hexadecimal digits.
    key: String,
}

impl Drop for EpochKey {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

/// What may be told about an epoch: everything but the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EpochInfo {
    /// Number, counted from the Unix epoch.
    pub epoch: u64,
    /// First slot.
    pub not_before_slot: u64,
    /// First slot behind it.
    pub not_after_slot: u64,
}

impl std::fmt::Debug for DomainKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DomainKeys")
            .field("domain", &self.domain)
            .field("number", &self.number)
            .field("epochs", &self.epochs().collect::<Vec<_>>())
            .finish()
    }
}

impl DomainKeys {
    /// A ring with random keys for the present epoch and `staged` ones after it.
    ///
    /// # Errors
    /// The kernel gives no randomness.
    pub fn generate(
        domain: &str,
        number: u16,
        epoch_shift: u32,
        staged: u64,
    ) -> Result<Self, LoadError> {
        let mut keys = Self {
            version: 1,
            domain: domain.into(),
            number,
            epoch_shift: epoch_shift.min(EPOCH_SHIFT_MAX),
            senders: Senders::All,
            epochs: Vec::new(),
        };
        keys.stage(slot_now(), staged)?;
        Ok(keys)
    }

    /// The keys of one sender, for a node that only stamps as that one; [`None`] unless each
    /// sender has keys of its own.
    #[must_use]
    pub fn for_sender(&self, subject: u32) -> Option<Self> {
        if self.senders != Senders::Each || subject >= SUBJECTS_MAX {
            return None;
        }
        let label = Label::default().with_domain(self.number).with_subject(subject);
        let epochs = self.epochs.iter().map(|key| {
            let (k0, k1) = parse_key(&key.key)?;
            let mut own = mac::sender_key(k0, k1, &label);
            let text = own.iter().flat_map(|half| half.to_le_bytes());
            let text = text.map(|byte| format!("{byte:02x}")).collect();
            own.zeroize();
            Some(EpochKey { epoch: key.epoch, key: text })
        });
        Some(Self {
            version: self.version,
            domain: self.domain.clone(),
            number: self.number,
            epoch_shift: self.epoch_shift,
            senders: Senders::One(subject),
            epochs: epochs.collect::<Option<_>>()?,
        })
    }

    /// Adds keys until `staged` epochs after the present one have one, and forgets those that no
    /// verifier accepts any more. Tells how many were added: none to the keys of one sender, which
    /// are made elsewhere.
    ///
    /// # Errors
    /// The kernel gives no randomness.
    pub fn stage(&mut self, slot: u64, staged: u64) -> Result<usize, LoadError> {
        let present = slot >> self.epoch_shift;
        self.epochs.retain(|key| key.epoch + 1 >= present);
        if matches!(self.senders, Senders::One(_)) {
            return Ok(0);
        }
        let mut added = 0;
        for epoch in present..=present + staged.min(EPOCHS_STAGED_MAX) {
            if self.epochs.iter().all(|key| key.epoch != epoch) {
                self.epochs.push(EpochKey { epoch, key: random_key()? });
                added += 1;
            }
        }
        self.epochs.sort_by_key(|key| key.epoch);
        Ok(added)
    }

    /// Replaces the keys of all epochs behind the present one, so that what is known of them is
    /// worth nothing. Labels in flight stay good: they bear the keys of the present epoch. Tells
    /// how many were replaced or added; the keys of one sender stay as they are.
    ///
    /// # Errors
    /// The kernel gives no randomness.
    pub fn rotate(&mut self, slot: u64, staged: u64) -> Result<usize, LoadError> {
        let present = slot >> self.epoch_shift;
        if !matches!(self.senders, Senders::One(_)) {
            self.epochs.retain(|key| key.epoch <= present);
        }
        self.stage(slot, staged)
    }

    /// The keys as they stand in a file.
    ///
    /// # Errors
    /// They cannot be written as JSON, which keys always can.
    pub fn to_text(&self) -> Result<Zeroizing<Vec<u8>>, serde_json::Error> {
        let mut text = Zeroizing::new(Vec::with_capacity(TEXT_LEN_MAX));
        serde_json::to_writer_pretty(&mut *text, self)?;
        Ok(text)
    }

    /// Keys from the text of a file. Why it is not taken tells nothing of what stands in it.
    ///
    /// # Errors
    /// It is no key ring of this version.
    pub fn from_text(text: &str) -> Result<Self, String> {
        let keys: Self = serde_json::from_str(text).map_err(|e| {
            // The text holds secrets; only the place of the mistake may be told.
            format!("line {}, column {} is not what a key file holds", e.line(), e.column())
        })?;
        if keys.version != 1 || keys.epoch_shift > EPOCH_SHIFT_MAX {
            return Err("version or epoch length are wrong".into());
        }
        if matches!(keys.senders, Senders::One(subject) if subject >= SUBJECTS_MAX) {
            return Err("its sender is no subject".into());
        }
        if keys.epochs.iter().any(|key| parse_key(&key.key).is_none() || key.epoch > u64::MAX >> 17)
        {
            return Err("a key is not 32 hexadecimal digits".into());
        }
        Ok(keys)
    }

    /// The epochs that have a key.
    pub fn epochs(&self) -> impl Iterator<Item = EpochInfo> + '_ {
        self.epochs.iter().map(|key| EpochInfo {
            epoch: key.epoch,
            not_before_slot: key.epoch << self.epoch_shift,
            not_after_slot: (key.epoch + 1) << self.epoch_shift,
        })
    }

    /// First slot behind the last epoch that has a key; 0 when none has.
    #[must_use]
    pub fn ends_slot(&self) -> u64 {
        self.epochs().map(|epoch| epoch.not_after_slot).max().unwrap_or(0)
    }

    /// Entries for the kernel with their epoch modulo 16: those of the past epoch, the present
    /// one and all that can be told apart from them.
    pub fn entries(&self, slot: u64) -> impl Iterator<Item = (usize, KeyEntry)> + '_ {
        let present = slot >> self.epoch_shift;
        self.epochs.iter().filter_map(move |key| {
            let wanted = key.epoch + 1 >= present && key.epoch <= present + EPOCHS_STAGED_MAX;
            let (k0, k1) = parse_key(&key.key).filter(|_| wanted)?;
            let entry = KeyEntry {
                k0,
                k1,
                not_before_slot: key.epoch << self.epoch_shift,
                not_after_slot: (key.epoch + 1) << self.epoch_shift,
            };
            Some(((key.epoch % EPOCHS as u64) as usize, entry))
        })
    }
}

fn random_key() -> Result<String, LoadError> {
    let mut bytes = [0_u8; 16];
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| file("cannot read randomness", "getrandom")(e.into()))?;
    if got != bytes.len() {
        return Err(file("cannot read randomness", "getrandom")(
            std::io::ErrorKind::UnexpectedEof.into(),
        ));
    }
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn parse_key(text: &str) -> Option<(u64, u64)> {
    let number = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok())??;
    let bytes = number.to_be_bytes();
    let (first, second) = bytes.split_at(8);
    Some((u64::from_le_bytes(first.try_into().ok()?), u64::from_le_bytes(second.try_into().ok()?)))
}

/// A directory of key files, `<domain number>.keys` each.
#[derive(Clone, Debug)]
pub struct KeyRing {
    dir: PathBuf,
}

impl KeyRing {
    /// The ring in `dir`, which need not exist.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn path(&self, number: u16) -> PathBuf {
        self.dir.join(format!("{number}.keys"))
    }

    /// The keys of a domain, if there are any.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or it holds something else.
    pub fn read(&self, number: u16) -> Result<Option<DomainKeys>, LoadError> {
        let path = self.path(number);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("cannot read key file", path)(error)),
        };
        let bad = |why: String| LoadError::KeyFile { path: path.clone(), why };
        let mode =
            fs::metadata(&path).map_err(file("cannot read key file", &path))?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(bad(format!(
                "its mode is {:04o}, so that others may read it; wanted 0600",
                mode & 0o7777
            )));
        }
        let keys = DomainKeys::from_text(&text).map_err(bad)?;
        if keys.number != number {
            return Err(bad("it is about another domain".into()));
        }
        Ok(Some(keys))
    }

    /// All domains with keys, by number.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn list(&self) -> Result<Vec<DomainKeys>, LoadError> {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(file("cannot list key files", &self.dir)(error)),
        };
        let mut numbers: Vec<u16> = entries
            .filter_map(|entry| {
                entry.ok()?.file_name().to_str()?.strip_suffix(".keys")?.parse().ok()
            })
            .collect();
        numbers.sort_unstable();
        let rings = numbers.into_iter().map(|number| self.read(number));
        rings.filter_map(Result::transpose).collect()
    }

    /// Writes a domain's keys: whole or not at all, mode 0600.
    ///
    /// # Errors
    /// The directory cannot be made or the file not be written.
    pub fn write(&self, keys: &DomainKeys) -> Result<(), LoadError> {
        let dir = &self.dir;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(file("cannot make key directory", dir))?;
        let path = self.path(keys.number);
        let mut temporary = path.clone();
        temporary.set_extension(format!("tmp{}", std::process::id()));
        let text = keys.to_text().map_err(|e| file("cannot write key file", &path)(e.into()))?;
        let written = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut f| f.write_all(&text).and_then(|()| f.sync_all()))
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| fs::File::open(dir)?.sync_all());
        if written.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        written.map_err(file("cannot write key file", path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> KeyRing {
        let dir = std::env::temp_dir().join(format!("govc-keyring-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        KeyRing::new(dir)
    }

    #[test]
    fn a_ring_comes_back_as_it_was_written() {
        let ring = scratch("round-trip");
        let keys = DomainKeys::generate("acme", 7, 14, 5).unwrap();
        ring.write(&keys).unwrap();
        let mode = fs::metadata(ring.path(7)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let again = ring.read(7).unwrap().unwrap();
        assert!(again.epochs().eq(keys.epochs()));
        assert_eq!(again.epochs().count(), 6);
        let slot = slot_now();
        let (a, b): (Vec<_>, Vec<_>) =
            (keys.entries(slot).collect(), again.entries(slot).collect());
        assert!(a.iter().zip(&b).all(|(x, y)| x.0 == y.0 && x.1.k0 == y.1.k0 && x.1.k1 == y.1.k1));
        assert!(!format!("{keys:?}").contains(&keys.epochs[0].key));
        fs::remove_dir_all(ring.dir()).unwrap();
    }

    #[test]
    fn a_readable_file_is_refused() {
        let ring = scratch("mode");
        ring.write(&DomainKeys::generate("acme", 7, 14, 0).unwrap()).unwrap();
        fs::set_permissions(ring.path(7), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(ring.read(7), Err(LoadError::KeyFile { .. })));
        fs::remove_dir_all(ring.dir()).unwrap();
    }

    #[test]
    fn rotation_replaces_what_nobody_used_yet() {
        let mut keys = DomainKeys::generate("acme", 7, 4, 3).unwrap();
        let slot = keys.epochs[0].epoch << 4;
        let before: Vec<String> = keys.epochs.iter().map(|key| key.key.clone()).collect();
        assert_eq!(keys.rotate(slot + 16, 3).unwrap(), 3);
        let after: Vec<&String> = keys.epochs.iter().map(|key| &key.key).collect();
        assert_eq!((after.len(), &before[..2]), (5, &[after[0].clone(), after[1].clone()][..]));
        assert!(after[2..].iter().all(|key| !before.contains(key)));
    }

    #[test]
    fn a_text_comes_back_and_mistakes_tell_no_key() {
        let keys = DomainKeys::generate("acme", 7, 14, 2).unwrap();
        let text = String::from_utf8(keys.to_text().unwrap().to_vec()).unwrap();
        assert!(text.len() < TEXT_LEN_MAX);
        assert!(DomainKeys::from_text(&text).unwrap().epochs().eq(keys.epochs()));
        let key = &keys.epochs[1].key;
        for wrong in [
            text.replace("\"version\": 1", "\"version\": 2"),
            text.replace(key, &key[1..]),
            text.replace(&format!("\"{key}\""), key),
            text.replace("\"epoch_shift\": 14", "\"epoch_shift\": 99"),
        ] {
            let why = DomainKeys::from_text(&wrong).unwrap_err();
            assert!(!why.contains(&key[1..]), "{why}");
        }
    }

    #[test]
    fn the_keys_of_one_sender_follow_from_those_of_the_domain() {
        let mut keys = DomainKeys::generate("acme", 7, 14, 2).unwrap();
        assert!(keys.for_sender(5).is_none(), "all senders share these");
        keys.senders = Senders::Each;
        assert!(keys.for_sender(SUBJECTS_MAX).is_none());
        let mut one = keys.for_sender(5).unwrap();
        let text = String::from_utf8(one.to_text().unwrap().to_vec()).unwrap();
        assert_eq!(DomainKeys::from_text(&text).unwrap().senders, Senders::One(5));
        assert!(one.epochs().eq(keys.epochs()));
        let slot = slot_now();
        let label = Label::default().with_domain(7).with_subject(5).with_level(9);
        for ((_, all), (_, own)) in keys.entries(slot).zip(one.entries(slot)) {
            let derived = all.of_sender(keys.senders.word(), &label).unwrap();
            assert_eq!(own.of_sender(one.senders.word(), &label), Some(derived));
            assert_ne!(derived, [all.k0, all.k1]);
            for other in [label.with_subject(6), label.with_domain(8)] {
                let theirs = all.of_sender(keys.senders.word(), &other).unwrap();
                assert_ne!(theirs, derived);
            }
            assert_eq!(own.of_sender(one.senders.word(), &label.with_subject(6)), None);
        }
        // Nobody can make more of them out of these.
        let before: Vec<String> = one.epochs.iter().map(|key| key.key.clone()).collect();
        assert_eq!((one.stage(slot, 9).unwrap(), one.rotate(slot, 9).unwrap()), (0, 0));
        assert!(one.epochs.iter().map(|key| &key.key).eq(&before));
    }

    #[test]
    fn staging_keeps_what_is_accepted_and_adds_the_rest() {
        let mut keys = DomainKeys::generate("acme", 7, 4, 3).unwrap();
        let slot = slot_now();
        let before: Vec<_> = keys.epochs().collect();
        assert_eq!(keys.stage(slot + 32, 3).unwrap(), 2);
        let after: Vec<_> = keys.epochs().collect();
        assert_eq!(after.first(), before.get(1));
        assert_eq!(after.len(), 5);
    }
}
