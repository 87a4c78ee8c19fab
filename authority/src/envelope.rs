//! The signed envelope: DSSE protocol and JSON envelope, v1.0.2 (secure-systems-lab/dsse).
//!
//! The protocol is small, and the crates that speak it come with an attestation format or are
//! young; so it is written here, by the specification, for Ed25519 alone. Where the specification
//! leaves a choice, or is more lenient than a network policy should be:
//!
//! - `keyid` is always there and is the [`KeyId`] of the key. It only chooses which key of the
//!   verifier's own set is tried; it creates no trust.
//! - Signatures by keys that are not in the verifier's set are ignored, as DSSE says: different
//!   verifiers may trust different sets.
//! - A key counts once. Signatures ascend by `keyid`, and one that comes twice is refused already
//!   when the envelope is read.
//! - A signature by a key of the set that does not verify refuses the whole envelope, where DSSE
//!   would skip it: somebody changed it.
//! - The JSON is canonical ([`form`]) and base64 is the standard alphabet with padding, where DSSE
//!   readers take others too. So every changed byte is noticed, but for those by which a signature
//!   that is not needed becomes one of an unknown key; that is no more than taking it away.
//!
//! An envelope without signatures can be read and written, so that it can travel from signer to
//! signer; no signer set takes it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    form::{self, FormError},
    key::{KeyId, SigningKey},
    signers::{SIGNERS_MAX, SignerSet},
};

/// Bytes of an envelope's JSON: room for the largest payload.
pub const ENVELOPE_LEN_MAX: usize = 1 << 20;
/// Bytes of a payload type.
pub const PAYLOAD_TYPE_LEN_MAX: usize = 128;

/// A payload, what it is, and signatures over both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "Written", try_from = "Written")]
pub struct Envelope {
    payload_type: String,
    payload: Vec<u8>,
    /// Ascending by key id, each once.
    signatures: Vec<(KeyId, [u8; 64])>,
}

/// What became of an envelope that a key was to sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signed {
    /// It has a signature more.
    Added,
    /// Nothing: it had the signature of the key.
    Before,
    /// What stood there in the name of the key was no signature of it, and now is one.
    Replaced,
}

/// Why an envelope is not taken.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EnvelopeError {
    /// The file is not an envelope in canonical form.
    #[error("no signed envelope: {0}")]
    Form(#[from] FormError),
    /// Signed, but as something else.
    #[error("this is `{found}`, wanted `{wanted}`; look whether the files were mixed up")]
    PayloadType {
        /// What the envelope says that it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// A key of the set did not make the signature that bears its name.
    #[error("the signature of key {0} does not fit; fetch the file again, it was changed")]
    BadSignature(KeyId),
    /// Too few keys of the set signed.
    #[error(
        "{good} of the trusted keys signed it, {threshold} have to; get it signed by {} more of them",
        threshold.saturating_sub(*good)
    )]
    TooFew {
        /// Keys of the set whose signature is good.
        good: usize,
        /// How many there have to be.
        threshold: usize,
    },
    /// The envelope is full.
    #[error(
        "an envelope holds {SIGNERS_MAX} signatures; take away those of keys that nobody knows with \
         `govc sign --drop-unknown --root ROOT`"
    )]
    Full,
}

/// Why a JSON envelope is none of ours, for the reader's message.
#[derive(Debug, Error)]
enum WrittenError {
    #[error("the payload type is longer than {PAYLOAD_TYPE_LEN_MAX} bytes")]
    PayloadType,
    #[error("base64 with padding is wanted")]
    Base64,
    #[error("a signature has 64 bytes")]
    Signature,
    #[error("signatures do not ascend by `keyid`, each once, at most {SIGNERS_MAX}")]
    Order,
}

/// As it stands in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    payload: String,
    payload_type: String,
    signatures: Vec<WrittenSignature>,
}

/// One signature in JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenSignature {
    keyid: KeyId,
    sig: String,
}

impl Envelope {
    /// An envelope that nobody has signed yet.
    #[must_use]
    pub fn unsigned(payload_type: &str, payload: Vec<u8>) -> Self {
        Self { payload_type: payload_type.into(), payload, signatures: Vec::new() }
    }

    /// Adds the signature of a key. One that bears its name and is none is replaced: its owner knows best.
    ///
    /// # Errors
    /// [`SIGNERS_MAX`] others have signed.
    pub fn sign(&mut self, key: &SigningKey) -> Result<Signed, EnvelopeError> {
        let id = key.id();
        let message = encode(&self.payload_type, &self.payload);
        match self.signatures.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => {
                let Some((_, signature)) = self.signatures.get_mut(at) else {
                    return Ok(Signed::Before);
                };
                if key.public().verifies(&message, signature) {
                    return Ok(Signed::Before);
                }
                *signature = key.sign(&message);
                Ok(Signed::Replaced)
            }
            Err(_) if self.signatures.len() >= SIGNERS_MAX => Err(EnvelopeError::Full),
            Err(at) => {
                self.signatures.insert(at, (id, key.sign(&message)));
                Ok(Signed::Added)
            }
        }
    }

    /// Takes signatures away that no key of these sets made, which count for nobody who trusts those; how many.
    pub fn drop_unknown(&mut self, sets: &[SignerSet]) -> usize {
        let message = encode(&self.payload_type, &self.payload);
        let before = self.signatures.len();
        self.signatures.retain(|(id, signature)| {
            let mut keys = sets.iter().filter_map(|set| set.get(id));
            keys.any(|key| key.verifies(&message, signature))
        });
        before.saturating_sub(self.signatures.len())
    }

    /// The payload, and the keys whose signatures are good, if it is of this type and enough keys
    /// of the set signed it.
    ///
    /// # Errors
    /// It is of another type, a signature by a key of the set does not fit, or too few signed.
    pub fn verify(
        &self,
        payload_type: &str,
        signers: &SignerSet,
    ) -> Result<(&[u8], Vec<KeyId>), EnvelopeError> {
        if self.payload_type != payload_type {
            // It may be anything, and goes to terminals.
            let found = self.payload_type.escape_debug().to_string();
            return Err(EnvelopeError::PayloadType { found, wanted: payload_type.into() });
        }
        let message = encode(&self.payload_type, &self.payload);
        let mut good = Vec::new();
        for (id, signature) in &self.signatures {
            match signers.get(id) {
                None => {}
                Some(key) if key.verifies(&message, signature) => good.push(*id),
                Some(_) => return Err(EnvelopeError::BadSignature(*id)),
            }
        }
        let threshold = signers.threshold();
        if good.len() < threshold {
            return Err(EnvelopeError::TooFew { good: good.len(), threshold });
        }
        Ok((&self.payload, good))
    }

    /// The payload, which nobody may have signed: for showing it, and before it is verified.
    #[must_use]
    pub fn unverified_payload(&self) -> &[u8] {
        &self.payload
    }

    /// Which keys are said to have signed.
    pub fn key_ids(&self) -> impl ExactSizeIterator<Item = KeyId> + '_ {
        self.signatures.iter().map(|(id, _)| *id)
    }

    /// Reads an envelope in canonical form.
    ///
    /// # Errors
    /// The text is longer than [`ENVELOPE_LEN_MAX`], no envelope, or written in another way.
    pub fn read(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        Ok(form::read(bytes, ENVELOPE_LEN_MAX)?)
    }

    /// Its canonical form.
    ///
    /// # Errors
    /// It would be longer than [`ENVELOPE_LEN_MAX`], so that nobody would read it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, EnvelopeError> {
        let bytes = form::write(self)?;
        if bytes.len() > ENVELOPE_LEN_MAX {
            return Err(FormError::TooLong { len: bytes.len(), max: ENVELOPE_LEN_MAX }.into());
        }
        Ok(bytes)
    }
}

/// What is signed: DSSE's pre-authentication encoding.
fn encode(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

impl From<Envelope> for Written {
    fn from(envelope: Envelope) -> Self {
        let signatures = envelope
            .signatures
            .iter()
            .map(|(id, sig)| WrittenSignature { keyid: *id, sig: STANDARD.encode(sig) })
            .collect();
        Self {
            payload: STANDARD.encode(&envelope.payload),
            payload_type: envelope.payload_type,
            signatures,
        }
    }
}

impl TryFrom<Written> for Envelope {
    type Error = WrittenError;

    fn try_from(written: Written) -> Result<Self, WrittenError> {
        if written.payload_type.len() > PAYLOAD_TYPE_LEN_MAX {
            return Err(WrittenError::PayloadType);
        }
        let payload = STANDARD.decode(&written.payload).map_err(|_| WrittenError::Base64)?;
        let mut signatures: Vec<(KeyId, [u8; 64])> = Vec::new();
        for WrittenSignature { keyid, sig } in &written.signatures {
            if signatures.last().is_some_and(|(last, _)| last >= keyid)
                || signatures.len() >= SIGNERS_MAX
            {
                return Err(WrittenError::Order);
            }
            let sig = STANDARD.decode(sig).map_err(|_| WrittenError::Base64)?;
            signatures.push((*keyid, sig.try_into().map_err(|_| WrittenError::Signature)?));
        }
        Ok(Self { payload_type: written.payload_type, payload, signatures })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/vnd.govc.test+json";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn set(seeds: &[u8], threshold: usize) -> SignerSet {
        SignerSet::new(seeds.iter().map(|seed| key(*seed).public()), threshold).unwrap()
    }

    fn signed(seeds: &[u8]) -> Envelope {
        let mut envelope = Envelope::unsigned(TYPE, b"{\"a\":1}".to_vec());
        for seed in seeds {
            envelope.sign(&key(*seed)).unwrap();
        }
        envelope
    }

    /// The example of the specification.
    #[test]
    fn encodes_as_the_specification_does() {
        assert_eq!(
            encode("http://example.com/HelloWorld", b"hello world"),
            b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        );
        assert_eq!(encode("", b""), b"DSSEv1 0  0 ");
    }

    #[test]
    fn what_is_signed_by_enough_is_taken() {
        let envelope = signed(&[1, 2, 3]);
        for threshold in 1..=3 {
            let (payload, good) = envelope.verify(TYPE, &set(&[1, 2, 3], threshold)).unwrap();
            assert_eq!((payload, good.len()), (b"{\"a\":1}".as_slice(), 3));
        }
        let bytes = envelope.to_bytes().unwrap();
        assert_eq!(Envelope::read(&bytes), Ok(envelope));
    }

    #[test]
    fn one_too_few_is_refused() {
        let too_few = |good, threshold| Err(EnvelopeError::TooFew { good, threshold });
        assert_eq!(signed(&[]).verify(TYPE, &set(&[1], 1)), too_few(0, 1));
        assert_eq!(signed(&[1]).verify(TYPE, &set(&[1, 2, 3], 2)), too_few(1, 2));
        assert_eq!(signed(&[1, 2]).verify(TYPE, &set(&[1, 2, 3], 3)), too_few(2, 3));
    }

    #[test]
    fn strangers_do_not_count() {
        assert!(signed(&[1, 2, 8, 9]).verify(TYPE, &set(&[1, 2, 3], 2)).is_ok());
        let envelope = signed(&[7, 8, 9]);
        let wrong_set = envelope.verify(TYPE, &set(&[1, 2, 3], 1));
        assert_eq!(wrong_set, Err(EnvelopeError::TooFew { good: 0, threshold: 1 }));
    }

    #[test]
    fn who_signs_twice_counts_once() {
        let mut envelope = signed(&[1, 1, 1]);
        assert_eq!(envelope.key_ids().len(), 1);
        let twice = *envelope.signatures.first().unwrap();
        envelope.signatures.push(twice);
        assert!(Envelope::read(&envelope.to_bytes().unwrap()).is_err());
    }

    #[test]
    fn the_signature_of_another_key_is_refused() {
        let mut envelope = signed(&[1, 2]);
        let (first, second) = (envelope.signatures[0].1, envelope.signatures[1].1);
        envelope.signatures[0].1 = second;
        envelope.signatures[1].1 = first;
        let error = envelope.verify(TYPE, &set(&[1, 2], 1)).unwrap_err();
        assert_eq!(error, EnvelopeError::BadSignature(envelope.signatures[0].0));
    }

    #[test]
    fn the_type_is_signed_too() {
        let mut envelope = signed(&[1]);
        let other = "application/vnd.govc.other+json";
        assert!(matches!(
            envelope.verify(other, &set(&[1], 1)),
            Err(EnvelopeError::PayloadType { .. })
        ));
        envelope.payload_type = other.into();
        assert!(matches!(
            envelope.verify(other, &set(&[1], 1)),
            Err(EnvelopeError::BadSignature(_))
        ));
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let bytes = signed(&[1, 2]).to_bytes().unwrap();
        let signers = set(&[1, 2], 2);
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut wrong = bytes.clone();
                wrong[at] ^= 1 << bit;
                let taken = Envelope::read(&wrong)
                    .is_ok_and(|envelope| envelope.verify(TYPE, &signers).is_ok());
                assert!(!taken, "byte {at}, bit {bit}");
            }
        }
    }

    #[test]
    fn white_space_other_alphabets_and_long_texts_are_refused() {
        let envelope = Envelope::unsigned(TYPE, vec![0xff; 3]);
        let text = String::from_utf8(envelope.to_bytes().unwrap()).unwrap();
        assert!(text.contains("////"));
        for wrong in [text.replace("////", "____"), format!("{text}\n"), text.replace(':', ": ")] {
            assert!(matches!(Envelope::read(wrong.as_bytes()), Err(EnvelopeError::Form(_))));
        }
        let long = Envelope::unsigned(TYPE, vec![0; ENVELOPE_LEN_MAX]);
        assert!(long.to_bytes().is_err());
        assert!(Envelope::read(&vec![b' '; ENVELOPE_LEN_MAX + 1]).is_err());
    }

    #[test]
    fn there_is_an_end_to_signatures() {
        let mut envelope = signed(&(0..64).collect::<Vec<_>>());
        assert_eq!(envelope.sign(&key(64)), Err(EnvelopeError::Full));
        assert_eq!(envelope.sign(&key(63)), Ok(Signed::Before));
        // Those of keys that nobody knows go.
        let sets = [set(&[1, 2], 1), set(&[2, 3], 1)];
        envelope
            .signatures
            .iter_mut()
            .filter(|(id, _)| *id == key(3).id())
            .for_each(|(_, sig)| *sig = [7; 64]);
        assert_eq!(envelope.drop_unknown(&sets), 62);
        assert_eq!(envelope.sign(&key(64)), Ok(Signed::Added));
        let (_, good) = envelope.verify(TYPE, &set(&[1, 2], 2)).unwrap();
        assert_eq!(good.len(), 2);
    }

    #[test]
    fn what_bears_the_name_of_a_key_and_is_no_signature_is_replaced() {
        let mut envelope = signed(&[1]);
        envelope.signatures.push((key(2).id(), [7; 64]));
        envelope.signatures.sort();
        assert!(envelope.verify(TYPE, &set(&[1, 2], 1)).is_err());
        assert_eq!(envelope.sign(&key(2)), Ok(Signed::Replaced));
        assert_eq!(envelope, signed(&[1, 2]));
        assert_eq!(envelope.sign(&key(2)), Ok(Signed::Before));
    }
}
