//! Key rings on their way to another node or domain.
//!
//! A ring holds the epoch keys by which labels are made and checked, as the loader keeps them:
//! JSON with the domain's number and its keys. It travels sealed for its recipients
//! ([`crate::sealed`]) and, because age does not say who sealed it, in a signed [`Envelope`].

use serde::Deserialize;
use thiserror::Error;
use zeroize::Zeroizing;

use crate::{
    Domain,
    envelope::{Envelope, EnvelopeError},
    key::SigningKey,
    sealed::{self, Kind, Opener, Recipients, SealError},
    signers::SignerSet,
};

/// What a ring's envelope says that it holds.
pub const PAYLOAD_TYPE: &str = "application/vnd.govc.keys+age";

/// Why a ring cannot be exported or imported.
#[derive(Debug, Error)]
pub enum RingError {
    /// It cannot be sealed or opened.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// Not signed by those who may.
    #[error("the key ring: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Something else was sealed. Nothing of it is told: it may hold secrets.
    #[error("no key ring of version 1; export it with `govc keys` of the same version")]
    Form,
    /// The keys of another domain.
    #[error("the key ring is that of domain {found}, wanted {wanted}; ask for the right one")]
    Domain {
        /// Whose it is.
        found: Domain,
        /// Whose it should be.
        wanted: Domain,
    },
}

/// The part of a ring that is no secret.
#[derive(Deserialize)]
struct Head {
    version: u32,
    domain: String,
    number: u16,
}

/// A domain's ring, sealed for these recipients and signed.
///
/// # Errors
/// The bytes are no ring of the domain, or cannot be sealed.
pub fn export(
    ring: &[u8],
    domain: &Domain,
    to: &Recipients,
    key: &SigningKey,
) -> Result<Envelope, RingError> {
    check(ring, domain)?;
    let mut envelope = Envelope::unsigned(PAYLOAD_TYPE, sealed::seal(Kind::KeyRing, ring, to)?);
    envelope.sign(key)?;
    Ok(envelope)
}

/// The ring of a domain that these signers exported for whom `with` belongs to. Which domain is
/// for the importer to say: a partner must not replace the keys of anybody else.
///
/// # Errors
/// Not signed by enough of them, sealed for somebody else, or no ring of the domain.
pub fn import(
    envelope: &Envelope,
    domain: &Domain,
    signers: &SignerSet,
    with: &Opener,
) -> Result<Zeroizing<Vec<u8>>, RingError> {
    let (sealed, _) = envelope.verify(PAYLOAD_TYPE, signers)?;
    let ring = sealed::open(Kind::KeyRing, sealed, with)?;
    check(&ring, domain)?;
    Ok(ring)
}

/// Whether a file says that it is an exported ring, whoever signed it.
#[must_use]
pub fn is_export(bytes: &[u8]) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        payload_type: String,
    }
    let typed = || serde_json::from_slice::<Typed>(bytes);
    Envelope::read(bytes).is_ok() && typed().is_ok_and(|typed| typed.payload_type == PAYLOAD_TYPE)
}

fn check(ring: &[u8], domain: &Domain) -> Result<(), RingError> {
    let Head { version: 1, domain: name, number } =
        serde_json::from_slice(ring).map_err(|_| RingError::Form)?
    else {
        return Err(RingError::Form);
    };
    let found = Domain { name, number };
    if found == *domain {
        return Ok(());
    }
    Err(RingError::Domain { found, wanted: domain.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{acme, key, set};

    const RING: &[u8] = br#"{
  "version": 1,
  "domain": "acme",
  "number": 7,
  "epoch_shift": 14,
  "epochs": [{"epoch": 54321, "key": "00112233445566778899aabbccddeeff"}]
}"#;

    fn to() -> Recipients {
        Recipients::passphrase_with_work(&Zeroizing::new("words".into()), 2).unwrap()
    }

    fn with() -> Opener {
        Opener::passphrase(&Zeroizing::new("words".into())).unwrap()
    }

    #[test]
    fn a_ring_travels() {
        let envelope = export(RING, &acme(), &to(), &key(1)).unwrap();
        let bytes = envelope.to_bytes().unwrap();
        assert!(!bytes.windows(8).any(|window| window == b"00112233"));
        assert!(is_export(&bytes) && !is_export(RING) && !is_export(&bytes[1..]));
        let other = Envelope::unsigned("application/json", b"{}".to_vec()).to_bytes().unwrap();
        assert!(!is_export(&other));
        let read = Envelope::read(&bytes).unwrap();
        let ring = import(&read, &acme(), &set(&[1, 2], 1), &with()).unwrap();
        assert_eq!(ring.as_slice(), RING);
    }

    #[test]
    fn it_comes_from_the_right_signer_about_the_right_domain() {
        let envelope = export(RING, &acme(), &to(), &key(1)).unwrap();
        assert!(matches!(
            import(&envelope, &acme(), &set(&[2], 1), &with()),
            Err(RingError::Envelope(EnvelopeError::TooFew { .. }))
        ));
        for wanted in [Domain { number: 8, ..acme() }, Domain { name: "other".into(), number: 7 }] {
            assert!(matches!(
                import(&envelope, &wanted, &set(&[1], 1), &with()),
                Err(RingError::Domain { .. })
            ));
            assert!(export(RING, &wanted, &to(), &key(1)).is_err());
        }
        let wrong = Opener::passphrase(&Zeroizing::new("other".into())).unwrap();
        assert!(matches!(
            import(&envelope, &acme(), &set(&[1], 1), &wrong),
            Err(RingError::Seal(SealError::Closed))
        ));
        for wrong in [&b"{}"[..], b"", br#"{"version":2,"domain":"acme","number":7}"#] {
            assert!(matches!(export(wrong, &acme(), &to(), &key(1)), Err(RingError::Form)));
        }
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let bytes = export(RING, &acme(), &to(), &key(1)).unwrap().to_bytes().unwrap();
        for at in 0..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            let taken = Envelope::read(&wrong)
                .is_ok_and(|envelope| import(&envelope, &acme(), &set(&[1], 1), &with()).is_ok());
            assert!(!taken, "byte {at}");
        }
    }

    #[test]
    fn the_largest_ring_fits_an_envelope() {
        let mut ring = RING.to_vec();
        ring.resize(sealed::SECRET_LEN_MAX, b' ');
        let envelope = export(&ring, &acme(), &to(), &key(1)).unwrap();
        let bytes = envelope.to_bytes().unwrap();
        let read = Envelope::read(&bytes).unwrap();
        assert!(import(&read, &acme(), &set(&[1], 1), &with()).is_ok());
    }
}
