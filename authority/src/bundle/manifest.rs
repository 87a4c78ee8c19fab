//! What the signers of a bundle sign.

use serde::{Deserialize, Serialize};

use super::BundleError;
use crate::{
    Domain,
    digest::Digest,
    envelope::ENVELOPE_LEN_MAX,
    form::{self, FormError},
    signers::SignerSet,
};

/// The only version of the format.
pub const MANIFEST_VERSION: u32 = 2;
/// The largest generation: the largest number that every reader of JSON keeps as it is. Nothing follows the largest
/// one, so that it has to be out of reach by counting.
pub const GENERATION_MAX: u64 = (1 << 53) - 1;

/// What its makers say about a bundle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Whose policy it is.
    pub domain: Domain,
    /// Larger than that of every bundle before; from 1.
    pub generation: u64,
    /// [`Manifest::digest`] of the bundle before; [`None`] for the first one.
    pub previous: Option<Digest>,
    /// First second in which it may be taken, Unix time.
    pub not_before: u64,
    /// Last second in which it may be taken, Unix time.
    pub not_after: u64,
    /// Who signs the next one.
    pub next: SignerSet,
}

/// The signed part of a bundle: [`Terms`] and what the members are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    /// Whose policy it is.
    pub domain: Domain,
    /// Larger than that of every bundle before; from 1.
    pub generation: u64,
    /// Digest of the manifest before; [`None`] for the first one.
    pub previous: Option<Digest>,
    /// First second in which it may be taken, Unix time.
    pub not_before: u64,
    /// Last second in which it may be taken, Unix time.
    pub not_after: u64,
    /// All members but the manifest, in the order of the file.
    pub members: Vec<Member>,
    /// Who signs the next one.
    pub next: SignerSet,
}

/// A member of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Name in the archive.
    pub name: String,
    /// Bytes.
    pub len: u64,
    /// Of its bytes.
    pub sha256: Digest,
}

impl Manifest {
    /// # Errors
    /// The terms contradict themselves.
    pub(super) fn new(terms: Terms, members: Vec<Member>) -> Result<Self, BundleError> {
        let Terms { domain, generation, previous, not_before, not_after, next } = terms;
        let version = MANIFEST_VERSION;
        let manifest =
            Self { version, domain, generation, previous, not_before, not_after, members, next };
        manifest.checked()
    }

    /// Reads a manifest from the payload of its envelope.
    ///
    /// # Errors
    /// It is none, of another version, or contradicts itself.
    pub(crate) fn read(payload: &[u8]) -> Result<Self, BundleError> {
        let manifest: Self = form::read(payload, ENVELOPE_LEN_MAX)
            .map_err(|why| BundleError::Form { member: super::MANIFEST, why })?;
        manifest.checked()
    }

    fn checked(self) -> Result<Self, BundleError> {
        if self.version != MANIFEST_VERSION {
            return Err(BundleError::Terms(
                "the manifest is of another version; take the govc that its makers use",
            ));
        }
        if self.generation == 0 {
            return Err(BundleError::Terms("generations count from 1; choose a larger one"));
        }
        if self.generation > GENERATION_MAX {
            return Err(BundleError::Terms(
                "no generation follows one that is larger than 2^53 - 1; count on from the bundle before",
            ));
        }
        if self.not_before > self.not_after {
            return Err(BundleError::Terms("the bundle ends before it begins; swap the times"));
        }
        Ok(self)
    }

    /// What names this manifest in the next one, whoever signed it.
    ///
    /// # Errors
    /// It cannot be written, which a manifest that was read always can.
    pub fn digest(&self) -> Result<Digest, FormError> {
        Ok(Digest::of(&form::write(self)?))
    }
}
