//! Ed25519 keys.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ed25519_dalek::{Signer as _, VerifyingKey};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::digest::Digest;

/// How a public key's text starts.
const ALGORITHM: &str = "ed25519";

/// Which key: the SHA-256 digest of its 32 public bytes.
pub type KeyId = Digest;

/// Why there is no key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    /// The text does not read as a public key.
    #[error("a public key is written `ed25519 <44 characters of base64>`")]
    Text,
    /// The 32 bytes are no point of the curve, or one for which everybody can forge signatures.
    #[error("the 32 bytes are not a safe Ed25519 public key; ask its owner for the right one")]
    Unsafe,
    /// The kernel gives no randomness.
    #[error("cannot read randomness: {0}; try again once the system has started up")]
    Randomness(String),
}

/// A public key. Its text is `ed25519 <base64>`, which is also how it stands in JSON.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PublicKey(VerifyingKey);

impl PublicKey {
    /// From its 32 bytes.
    ///
    /// # Errors
    /// They are no point of the curve or one of small order.
    pub fn from_bytes(bytes: &[u8; 32]) -> Result<Self, KeyError> {
        let key = VerifyingKey::from_bytes(bytes).map_err(|_| KeyError::Unsafe)?;
        if key.is_weak() { Err(KeyError::Unsafe) } else { Ok(Self(key)) }
    }

    /// Its 32 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }

    /// What names it.
    #[must_use]
    pub fn id(&self) -> KeyId {
        Digest::of(self.as_bytes())
    }

    /// Whether this is the key's signature over the message, by the strict rules: keys and
    /// commitments of small order and unreduced numbers count as wrong.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(signature);
        self.0.verify_strict(message, &signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{ALGORITHM} {}", STANDARD.encode(self.as_bytes()))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let coded = text.strip_prefix(ALGORITHM).and_then(|text| text.strip_prefix(' '));
        let coded = coded.filter(|coded| coded.len() == 44).ok_or(KeyError::Text)?;
        let bytes = STANDARD.decode(coded).map_err(|_| KeyError::Text)?;
        Self::from_bytes(&bytes.try_into().map_err(|_| KeyError::Text)?)
    }
}

impl TryFrom<String> for PublicKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// A private key. Its memory is wiped when it goes; it is never printed.
pub struct SigningKey(ed25519_dalek::SigningKey);

impl SigningKey {
    /// A new one.
    ///
    /// # Errors
    /// The kernel gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        let failed = |why: String| KeyError::Randomness(why);
        let got = rustix::rand::getrandom(&mut *seed, rustix::rand::GetRandomFlags::empty())
            .map_err(|error| failed(error.to_string()))?;
        if got != seed.len() {
            return Err(failed(format!("{got} bytes instead of {}", seed.len())));
        }
        Ok(Self::from_seed(&seed))
    }

    /// The key of a seed, 32 secret random bytes.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(seed))
    }

    /// Its seed, for storing it sealed.
    pub(crate) fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// What names it.
    #[must_use]
    pub fn id(&self) -> KeyId {
        self.public().id()
    }

    /// Signs a message. Envelopes say what a signature is for; nothing else may be signed.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032, section 7.1, test 2.
    #[test]
    fn the_vector_of_the_rfc() {
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        let bytes = |text: &str| *text.parse::<Digest>().unwrap().as_bytes();
        let key = SigningKey::from_seed(&bytes(seed));
        assert_eq!(key.public().as_bytes(), &bytes(public));
        let signature = key.sign(&[0x72]);
        assert_eq!(signature[..4], [0x92, 0xa0, 0x09, 0xa9]);
        assert_eq!(signature[60..], [0x12, 0xbb, 0x0c, 0x00]);
    }

    #[test]
    fn public_keys_have_one_text() {
        let key = SigningKey::from_seed(&[7; 32]).public();
        let text = key.to_string();
        assert_eq!(text.parse(), Ok(key));
        assert_eq!(key.id(), Digest::of(key.as_bytes()));
        let coded = text.strip_prefix("ed25519 ").unwrap();
        for wrong in [
            coded.to_owned(),
            format!("ed25519  {coded}"),
            format!("ed25519 {coded}\n"),
            format!("Ed25519 {coded}"),
            format!("rsa {coded}"),
            format!("ed25519 {}", coded.trim_end_matches('=')),
            // The last character before the padding holds two bits that must be zero.
            format!("ed25519 {}B=", &coded[..42]),
        ] {
            assert_eq!(wrong.parse::<PublicKey>(), Err(KeyError::Text), "{wrong}");
        }
    }

    #[test]
    fn keys_that_everybody_can_sign_for_are_refused() {
        // The neutral element: every signature (R, 0) with R neutral would verify loosely.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        assert_eq!(PublicKey::from_bytes(&neutral), Err(KeyError::Unsafe));
        assert_eq!(PublicKey::from_bytes(&[0; 32]), Err(KeyError::Unsafe));
    }

    #[test]
    fn another_message_or_signature_does_not_verify() {
        let key = SigningKey::generate().unwrap();
        let signature = key.sign(b"message");
        assert!(key.public().verifies(b"message", &signature));
        assert!(!key.public().verifies(b"messagf", &signature));
        for at in 0..64 {
            let mut wrong = signature;
            wrong[at] ^= 1;
            assert!(!key.public().verifies(b"message", &wrong), "byte {at}");
        }
        assert!(!SigningKey::generate().unwrap().public().verifies(b"message", &signature));
    }

    #[test]
    fn a_private_key_is_not_printed() {
        let key = SigningKey::from_seed(&[0xa5; 32]);
        let text = format!("{key:?}");
        assert!(text.contains(&key.public().to_string()));
        assert!(!text.contains("a5a5") && !text.contains("165, 165"));
    }
}
