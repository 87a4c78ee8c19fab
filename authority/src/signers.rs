//! Sets of keys of which some number has to sign.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::key::{KeyId, PublicKey};

/// Keys in one set.
pub const SIGNERS_MAX: usize = 64;

/// Keys and how many of them have to sign, at least one and at most all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct SignerSet {
    /// Ascending by key id, each once.
    keys: Vec<(KeyId, PublicKey)>,
    threshold: usize,
}

/// Why keys and a threshold are no signer set.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SignersError {
    /// None would have to sign, or more than there are.
    #[error("{threshold} of {keys} keys cannot sign; the threshold is from 1 to {keys}")]
    Threshold {
        /// How many have to sign.
        threshold: usize,
        /// How many there are.
        keys: usize,
    },
    /// No keys, or too many.
    #[error("{0} keys; a set has from 1 to {SIGNERS_MAX}")]
    Count(usize),
    /// A key would count more than once.
    #[error("key {0} stands in the set twice; name it once")]
    Twice(KeyId),
    /// In JSON keys ascend by their ids.
    #[error("the keys do not ascend by their ids; write the set with this tool")]
    Order,
}

/// As it stands in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    keys: Vec<PublicKey>,
    threshold: usize,
}

impl SignerSet {
    /// These keys, in any order.
    ///
    /// # Errors
    /// The threshold is 0 or more than there are keys, a key comes twice, or there are more than
    /// [`SIGNERS_MAX`] of them.
    pub fn new(
        keys: impl IntoIterator<Item = PublicKey>,
        threshold: usize,
    ) -> Result<Self, SignersError> {
        // One more than the limit is enough to know that there are too many.
        let mut keys: Vec<_> =
            keys.into_iter().take(SIGNERS_MAX + 1).map(|key| (key.id(), key)).collect();
        if keys.is_empty() || keys.len() > SIGNERS_MAX {
            return Err(SignersError::Count(keys.len()));
        }
        keys.sort_by_key(|(id, _)| *id);
        let twice = keys.iter().zip(keys.iter().skip(1)).find(|(a, b)| a.0 == b.0);
        if let Some(((id, _), _)) = twice {
            return Err(SignersError::Twice(*id));
        }
        if threshold == 0 || threshold > keys.len() {
            return Err(SignersError::Threshold { threshold, keys: keys.len() });
        }
        Ok(Self { keys, threshold })
    }

    /// One key that has to sign.
    #[must_use]
    pub fn one(key: PublicKey) -> Self {
        Self { keys: vec![(key.id(), key)], threshold: 1 }
    }

    /// The key with this id.
    #[must_use]
    pub fn get(&self, id: &KeyId) -> Option<&PublicKey> {
        let at = self.keys.binary_search_by_key(id, |(id, _)| *id).ok()?;
        self.keys.get(at).map(|(_, key)| key)
    }

    /// All keys, ascending by their ids.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = &PublicKey> {
        self.keys.iter().map(|(_, key)| key)
    }

    /// How many of them have to sign.
    #[must_use]
    pub fn threshold(&self) -> usize {
        self.threshold
    }
}

impl From<SignerSet> for Written {
    fn from(set: SignerSet) -> Self {
        Self { keys: set.keys().copied().collect(), threshold: set.threshold }
    }
}

impl TryFrom<Written> for SignerSet {
    type Error = SignersError;

    fn try_from(written: Written) -> Result<Self, SignersError> {
        let set = Self::new(written.keys.iter().copied(), written.threshold)?;
        if set.keys().eq(&written.keys) { Ok(set) } else { Err(SignersError::Order) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{form, key::SigningKey};

    fn keys(count: u8) -> Vec<PublicKey> {
        (0..count).map(|seed| SigningKey::from_seed(&[seed; 32]).public()).collect()
    }

    #[test]
    fn thresholds_lie_between_one_and_all() {
        for (count, threshold, good) in
            [(1, 1, true), (3, 3, true), (3, 0, false), (3, 4, false), (0, 0, false)]
        {
            assert_eq!(SignerSet::new(keys(count), threshold).is_ok(), good, "{threshold}/{count}");
        }
        assert!(SignerSet::new(keys(64), 64).is_ok());
        assert_eq!(SignerSet::new(keys(65), 1), Err(SignersError::Count(65)));
    }

    #[test]
    fn a_key_counts_once() {
        let twice = [keys(2), keys(1)].concat();
        assert!(matches!(SignerSet::new(twice, 2), Err(SignersError::Twice(_))));
    }

    #[test]
    fn order_does_not_matter_but_in_json() {
        let (mut forward, mut back) = (keys(3), keys(3));
        back.reverse();
        let set = SignerSet::new(forward.clone(), 2).unwrap();
        assert_eq!(set, SignerSet::new(back, 2).unwrap());
        let text = form::write(&set).unwrap();
        assert_eq!(form::read::<SignerSet>(&text, 1000), Ok(set));
        forward.sort_by_key(|key| std::cmp::Reverse(key.id()));
        let other = form::write(&Written { keys: forward, threshold: 2 }).unwrap();
        assert!(form::read::<SignerSet>(&other, 1000).is_err());
    }
}
