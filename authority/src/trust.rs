//! What a node trusts: the root of its domain and the bundle that it took last.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Domain,
    bundle::{BundleError, Manifest, PAYLOAD_TYPE, Verified},
    digest::Digest,
    envelope::{Envelope, EnvelopeError},
    form::{self, FormError},
    key::KeyId,
    signers::SignerSet,
};

/// Bytes of a root's file.
pub const ROOT_LEN_MAX: usize = 1 << 14;

/// The root of trust: whose policies a node takes, and who signs the first one that it sees and
/// the grants of the domain. It comes from the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Whose policies and grants.
    pub domain: Domain,
    /// Who signs.
    pub signers: SignerSet,
}

/// The bundle that was accepted last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accepted {
    generation: u64,
    manifest: Digest,
    /// The set that it was verified against, so that it can be verified again.
    signers: SignerSet,
    next: SignerSet,
}

/// A root and what followed from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    root: Root,
    last: Option<Accepted>,
}

/// Why a manifest is not the next one.
#[derive(Debug, Error)]
pub enum TrustError {
    /// Not signed by enough keys that may sign.
    #[error("the manifest: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Signed, but no manifest.
    #[error(transparent)]
    Manifest(Box<BundleError>),
    /// Verified by the rules of somebody else.
    #[error("the bundle was verified with another root of trust; verify it with this one")]
    Root,
    /// The policy of somebody else.
    #[error("the bundle is for domain {found}, this node belongs to {wanted}; take that one's")]
    Domain {
        /// Of the bundle.
        found: Domain,
        /// Of the root.
        wanted: Domain,
    },
    /// Older than what was accepted.
    #[error(
        "generation {found} is older than {last}, which was accepted last; to return to an older \
         policy, sign it as generation {} or later",
        last.saturating_add(1)
    )]
    Older {
        /// Of the bundle.
        found: u64,
        /// That was accepted last.
        last: u64,
    },
    /// Two bundles of one generation.
    #[error(
        "another bundle of generation {0} was accepted before; find out who signed two of them, \
         and sign the right one as a later generation"
    )]
    Other(u64),
    /// Nobody can have missed it.
    #[error(
        "the bundle is good from second {not_before}, it is {now}; wait, or set the clock right"
    )]
    NotYet {
        /// First second in which it may be taken.
        not_before: u64,
        /// The present one.
        now: u64,
    },
    /// Not made upon the last one.
    #[error(
        "the bundle was made upon manifest {found}, the last one accepted here is {last}; apply \
         the bundles between them first, or follow their manifests"
    )]
    Chain {
        /// The one before by the manifest, or `none`.
        found: String,
        /// That was accepted last.
        last: Digest,
    },
}

impl Root {
    /// Reads a root in canonical form, as it is given to nodes.
    ///
    /// # Errors
    /// The text is longer than [`ROOT_LEN_MAX`], no root, or written in another way.
    pub fn read(bytes: &[u8]) -> Result<Self, FormError> {
        form::read(bytes, ROOT_LEN_MAX)
    }

    /// Its canonical form.
    ///
    /// # Errors
    /// It would be longer than [`ROOT_LEN_MAX`], so that nobody would read it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, FormError> {
        let bytes = form::write(self)?;
        let len = bytes.len();
        if len > ROOT_LEN_MAX {
            Err(FormError::TooLong { len, max: ROOT_LEN_MAX })
        } else {
            Ok(bytes)
        }
    }
}

impl Trust {
    /// Trust in nothing but a root. The first bundle that the root's signers signed is taken
    /// whatever its generation: there is nothing yet that it could be older than.
    #[must_use]
    pub fn new(root: Root) -> Self {
        Self { root, last: None }
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// What was accepted last.
    #[must_use]
    pub fn last(&self) -> Option<&Accepted> {
        self.last.as_ref()
    }

    /// The set of which enough have to sign the next bundle.
    #[must_use]
    pub fn signers(&self) -> &SignerSet {
        self.last.as_ref().map_or(&self.root.signers, |last| &last.next)
    }

    /// The root with the signers that count now: whoever may sign the next bundle may grant and
    /// map. When a bundle takes a key out of the set, what the old set signed has to be signed
    /// again, so that a stolen key does not live on in grants.
    #[must_use]
    pub fn authority(&self) -> Root {
        Root { domain: self.root.domain.clone(), signers: self.signers().clone() }
    }

    /// The trust after a bundle was accepted.
    ///
    /// # Errors
    /// It was verified with another root, or another one was accepted since.
    pub fn after(&self, verified: &Verified) -> Result<Self, TrustError> {
        if *verified.root() != self.root {
            return Err(TrustError::Root);
        }
        let accepted = verified.accepted();
        self.check_order(verified.manifest(), &accepted.manifest)?;
        Ok(Self { root: self.root.clone(), last: Some(accepted.clone()) })
    }

    /// The trust after a manifest between the last bundle and the one to be applied, for nodes
    /// that missed some. Its time may be over at Unix time `now` and its members are not needed:
    /// nothing is enforced by it, but it says who signs next. What is not good yet was missed by
    /// nobody, and would stand in the way of the bundle that is.
    ///
    /// # Errors
    /// It is not the next manifest, or from the future.
    pub fn follow(&self, envelope: &Envelope, now: u64) -> Result<Self, TrustError> {
        let (manifest, accepted, _) = self.check(envelope)?;
        let not_before = manifest.not_before;
        if now < not_before {
            return Err(TrustError::NotYet { not_before, now });
        }
        Ok(Self { root: self.root.clone(), last: Some(accepted) })
    }

    /// The manifest, what accepting it would leave, and the trusted keys that signed it.
    pub(crate) fn check(
        &self,
        envelope: &Envelope,
    ) -> Result<(Manifest, Accepted, Vec<KeyId>), TrustError> {
        let digest = Digest::of(envelope.unverified_payload());
        let again = self.last.as_ref().filter(|last| last.manifest == digest);
        let signers = again.map_or(self.signers(), |last| &last.signers);
        let (payload, signed_by) = envelope.verify(PAYLOAD_TYPE, signers)?;
        let manifest =
            Manifest::read(payload).map_err(|error| TrustError::Manifest(Box::new(error)))?;
        if manifest.domain != self.root.domain {
            let (found, wanted) = (manifest.domain, self.root.domain.clone());
            return Err(TrustError::Domain { found, wanted });
        }
        self.check_order(&manifest, &digest)?;
        let accepted = Accepted {
            generation: manifest.generation,
            manifest: digest,
            signers: signers.clone(),
            next: manifest.next.clone(),
        };
        Ok((manifest, accepted, signed_by))
    }

    /// Whether the manifest is the next one, or the last one once more.
    fn check_order(&self, manifest: &Manifest, digest: &Digest) -> Result<(), TrustError> {
        let Some(last) = &self.last else { return Ok(()) };
        let found = manifest.generation;
        if *digest == last.manifest {
            Ok(())
        } else if found < last.generation {
            Err(TrustError::Older { found, last: last.generation })
        } else if found == last.generation {
            Err(TrustError::Other(found))
        } else if manifest.previous != Some(last.manifest) {
            let found =
                manifest.previous.map_or_else(|| "none".into(), |digest| digest.to_string());
            Err(TrustError::Chain { found, last: last.manifest })
        } else {
            Ok(())
        }
    }
}

impl Accepted {
    /// The bundle's generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The digest of its manifest.
    #[must_use]
    pub fn manifest(&self) -> &Digest {
        &self.manifest
    }

    /// Who signs the next one.
    #[must_use]
    pub fn next(&self) -> &SignerSet {
        &self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{root, set};

    #[test]
    fn a_root_has_one_text() {
        let bytes = root().to_bytes().unwrap();
        assert!(
            bytes.starts_with(br#"{"domain":{"name":"acme","number":7},"signers":{"keys":["ed"#)
        );
        assert_eq!(Root::read(&bytes), Ok(root()));
        assert!(Root::read(&[bytes.as_slice(), b"\n"].concat()).is_err());
        let all: Vec<u8> = (0..64).collect();
        assert!(Root { signers: set(&all, 64), ..root() }.to_bytes().is_ok());
        let domain = Domain { name: "x".repeat(ROOT_LEN_MAX), number: 7 };
        assert!(Root { domain, ..root() }.to_bytes().is_err());
    }
}
