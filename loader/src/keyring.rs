//! Keys of domains: those of each epoch, made and forgotten in time, and the files that hold them.

use std::time::{SystemTime, UNIX_EPOCH};

use govc_abi::{
    key::{EPOCH_SHIFT_MAX, KeyEntry, sender},
    label::{Label, SLOT_NS},
    limits::{EPOCHS, SUBJECTS_MAX},
    mac,
};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize as _, Zeroizing};

use crate::error::{LoadError, file};

mod files;

pub use files::{AtRest, KeyRing, Locked, SEALED_BEGINS};

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
    /// Raised whenever keys are made, never lowered: of two texts about a domain the one with the
    /// greater number is newer. Files from before there was one have 0.
    #[serde(default)]
    sequence: u64,
    /// Whether further keys are made here.
    #[serde(default, skip_serializing_if = "Origin::is_made")]
    pub origin: Origin,
    /// Whom all of these keys belong to.
    #[serde(default, skip_serializing_if = "Senders::is_all")]
    pub senders: Senders,
    /// Whether the file that they were read from was sealed.
    #[serde(skip)]
    pub sealed: bool,
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

/// Where a ring's keys come from. Keys that a node invents for the ring of somebody else are known
/// to nobody else, so that only rings that were made here get further ones here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// From here, as those of files that do not say.
    #[default]
    Made,
    /// From whoever exported them, and so will the next ones.
    Imported,
}

impl Origin {
    fn is_made(&self) -> bool {
        *self == Self::Made
    }
}

/// How keys that somebody sent compare with those that are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// They were made later.
    Newer,
    /// They are those that are here.
    Same,
    /// They are not those that are here, and were not made later.
    Older,
}

/// The key of one epoch.
#[derive(PartialEq, Serialize, Deserialize)]
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
            sequence: 0,
            origin: Origin::Made,
            senders: Senders::All,
            sealed: false,
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
            let own = Zeroizing::new(mac::sender_key(k0, k1, &label));
            let bytes = Zeroizing::new(own.map(u64::to_le_bytes));
            Some(EpochKey { epoch: key.epoch, key: digits(bytes.as_flattened()) })
        });
        Some(Self {
            version: self.version,
            domain: self.domain.clone(),
            number: self.number,
            epoch_shift: self.epoch_shift,
            sequence: self.sequence,
            origin: self.origin,
            senders: Senders::One(subject),
            sealed: self.sealed,
            epochs: epochs.collect::<Option<_>>()?,
        })
    }

    /// Whether further keys of this ring are made here: not those of one sender, which follow from
    /// others, and not those that were imported.
    #[must_use]
    pub fn are_made_here(&self) -> bool {
        self.origin == Origin::Made && !matches!(self.senders, Senders::One(_))
    }

    /// How these keys compare with those that are here, at this slot: what is over by then does
    /// not count.
    #[must_use]
    pub fn standing(&self, held: &Self, slot: u64) -> Standing {
        let same = self.domain == held.domain
            && (self.number, self.epoch_shift, self.senders)
                == (held.number, held.epoch_shift, held.senders)
            && self.lasting(slot).eq(held.lasting(slot));
        if self.sequence > held.sequence {
            Standing::Newer
        } else if same {
            Standing::Same
        } else {
            Standing::Older
        }
    }

    /// The keys that a verifier still accepts at this slot, or will.
    fn lasting(&self, slot: u64) -> impl Iterator<Item = &EpochKey> {
        let present = slot >> self.epoch_shift;
        self.epochs.iter().filter(move |key| key.epoch + 1 >= present)
    }

    /// A number that is greater whenever keys were made since: see [`Standing`].
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Adds keys until `staged` epochs after the present one have one, and forgets those that no
    /// verifier accepts any more. Tells how many were added: none where they are made elsewhere.
    ///
    /// # Errors
    /// The kernel gives no randomness.
    pub fn stage(&mut self, slot: u64, staged: u64) -> Result<usize, LoadError> {
        let present = slot >> self.epoch_shift;
        self.epochs.retain(|key| key.epoch + 1 >= present);
        if !self.are_made_here() {
            return Ok(0);
        }
        // A ring that is begun anew, or comes back from a backup, is then newer than what was
        // exported before: a plain count would begin below that.
        self.sequence = self.sequence.saturating_add(1).max(slot);
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
    /// how many were replaced or added; keys that are made elsewhere stay as they are.
    ///
    /// # Errors
    /// The kernel gives no randomness.
    pub fn rotate(&mut self, slot: u64, staged: u64) -> Result<usize, LoadError> {
        let present = slot >> self.epoch_shift;
        if self.are_made_here() {
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
    let mut bytes = Zeroizing::new([0_u8; 16]);
    let got = rustix::rand::getrandom(&mut *bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| file("cannot read randomness", "getrandom")(e.into()))?;
    if got != bytes.len() {
        return Err(file("cannot read randomness", "getrandom")(
            std::io::ErrorKind::UnexpectedEof.into(),
        ));
    }
    Ok(digits(bytes.as_slice()))
}

/// Bytes as hexadecimal digits, in one buffer: no digit of a key stays behind elsewhere.
fn digits(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        for half in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(half.into(), 16));
        }
    }
    text
}

fn parse_key(text: &str) -> Option<(u64, u64)> {
    let number = (text.len() == 32).then(|| u128::from_str_radix(text, 16).ok())??;
    let bytes = number.to_be_bytes();
    let (first, second) = bytes.split_at(8);
    Some((u64::from_le_bytes(first.try_into().ok()?), u64::from_le_bytes(second.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

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

    /// The same keys, as they come out of a file.
    fn copy(keys: &DomainKeys) -> DomainKeys {
        DomainKeys::from_text(std::str::from_utf8(&keys.to_text().unwrap()).unwrap()).unwrap()
    }

    #[test]
    fn what_was_made_before_a_rotation_is_older() {
        let slot = slot_now();
        let mut keys = DomainKeys::generate("acme", 7, 14, 14).unwrap();
        let old = copy(&keys);
        keys.rotate(slot, 14).unwrap();
        // The end is the same: only the count tells which is which.
        assert_eq!(keys.ends_slot(), old.ends_slot());
        assert_eq!(keys.standing(&old, slot), Standing::Newer);
        assert_eq!(old.standing(&keys, slot), Standing::Older);
        assert_eq!(copy(&keys).standing(&keys, slot), Standing::Same);
        // So does staging, in the files of single senders too.
        keys.senders = Senders::Each;
        let before = keys.for_sender(5).unwrap();
        keys.stage(slot + (1 << 14), 14).unwrap();
        assert_eq!(before.standing(&keys.for_sender(5).unwrap(), slot), Standing::Older);
        // And a ring that is begun anew.
        let anew = DomainKeys::generate("acme", 7, 14, 14).unwrap();
        assert_eq!(anew.standing(&old, slot), Standing::Older, "within one slot nobody can tell");
        let mut anew = DomainKeys::generate("acme", 7, 14, 14).unwrap();
        anew.stage(slot + 10, 14).unwrap();
        assert_eq!(anew.standing(&old, slot), Standing::Newer);
    }

    #[test]
    fn another_key_for_the_present_epoch_wants_a_greater_count() {
        let slot = slot_now();
        let keys = DomainKeys::generate("acme", 7, 14, 2).unwrap();
        let mut other = copy(&keys);
        other.epochs[0].key = "00112233445566778899aabbccddeeff".into();
        assert_eq!(other.standing(&keys, slot), Standing::Older);
        other.sequence += 1;
        assert_eq!(other.standing(&keys, slot), Standing::Newer);
        // What is over does not count, and neither does a count that is lower for the same keys.
        let mut same = copy(&keys);
        same.sequence -= 1;
        same.epochs.remove(0);
        assert_eq!(same.standing(&keys, slot), Standing::Older);
        assert_eq!(same.standing(&keys, slot + (2 << 14)), Standing::Same);
    }

    #[test]
    fn files_from_before_the_count_are_older_than_all_others() {
        let keys = DomainKeys::generate("acme", 7, 14, 2).unwrap();
        let mut value: serde_json::Value =
            serde_json::from_slice(&keys.to_text().unwrap()).unwrap();
        value.as_object_mut().unwrap().remove("sequence").unwrap();
        let mut plain = DomainKeys::from_text(&value.to_string()).unwrap();
        assert_eq!((plain.sequence(), plain.origin), (0, Origin::Made));
        assert_eq!(keys.standing(&plain, slot_now()), Standing::Newer);
        plain.stage(slot_now(), 2).unwrap();
        assert!(plain.sequence() >= keys.sequence());
    }

    #[test]
    fn nobody_makes_keys_for_the_ring_of_somebody_else() {
        let mut keys = DomainKeys::generate("partner", 9, 4, 3).unwrap();
        keys.origin = Origin::Imported;
        let mut keys = copy(&keys);
        assert_eq!(keys.origin, Origin::Imported);
        let (slot, sequence) = (slot_now() + 32, keys.sequence());
        let before: Vec<String> = keys.epochs.iter().skip(1).map(|key| key.key.clone()).collect();
        assert_eq!((keys.stage(slot, 9).unwrap(), keys.rotate(slot, 9).unwrap()), (0, 0));
        // It only forgets.
        assert!(keys.epochs.iter().map(|key| &key.key).eq(&before));
        assert_eq!(keys.sequence(), sequence);
    }
}
