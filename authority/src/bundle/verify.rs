//! From a bundle that somebody sent to a policy that may be enforced.

use govc_image::Image;
use thiserror::Error;

use super::{Bundle, BundleError, Manifest};
use crate::{
    key::KeyId,
    revocations::Revocations,
    trust::{Accepted, Root, Trust, TrustError},
};

/// A bundle that the trust state took: signed by those who may, in order, in time, and whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    root: Root,
    manifest: Manifest,
    accepted: Accepted,
    signed_by: Vec<KeyId>,
    image: Image,
    revocations: Revocations,
}

/// Why a bundle is not to be enforced.
#[derive(Debug, Error)]
pub enum VerifyError {
    /// Not signed by those who may, or not the next one.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// Not what its manifest says.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// From the future.
    #[error(
        "the bundle is good from second {not_before}, it is {now}; wait, or set the clock right"
    )]
    NotYet {
        /// First second in which it may be taken.
        not_before: u64,
        /// The present one.
        now: u64,
    },
    /// Too old.
    #[error(
        "the bundle was good until second {not_after}, it is {now}; get a newer one, or set the \
         clock right"
    )]
    Expired {
        /// Last second in which it might be taken.
        not_after: u64,
        /// The present one.
        now: u64,
    },
}

/// Whether a bundle may be enforced by who trusts `trust` at Unix time `now`: signed by enough
/// keys of the set that signs next, of a larger generation than the last, made upon that one,
/// within its time, and with the members that its manifest names. The bundle that was accepted
/// last may be taken again as long as it is in its time.
///
/// # Errors
/// The first of these that does not hold.
pub fn verify(bundle: &Bundle, trust: &Trust, now: u64) -> Result<Verified, VerifyError> {
    let (manifest, accepted, signed_by) = trust.check(&bundle.manifest)?;
    let Manifest { not_before, not_after, .. } = manifest;
    if now < not_before {
        return Err(VerifyError::NotYet { not_before, now });
    }
    if now > not_after {
        return Err(VerifyError::Expired { not_after, now });
    }
    bundle.check_members(&manifest)?;
    // Nothing here needs it, but a bundle is whole or it is none.
    bundle.unverified_vocabulary()?;
    Ok(Verified {
        root: trust.root().clone(),
        image: bundle.unverified_image()?,
        revocations: bundle.unverified_revocations()?,
        manifest,
        accepted,
        signed_by,
    })
}

impl Verified {
    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The root of the trust that it was verified with.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// What a trust state that takes the bundle remembers.
    #[must_use]
    pub fn accepted(&self) -> &Accepted {
        &self.accepted
    }

    /// The trusted keys that signed.
    #[must_use]
    pub fn signed_by(&self) -> &[KeyId] {
        &self.signed_by
    }

    /// The policy with its names.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Grants that no longer hold.
    #[must_use]
    pub fn revocations(&self) -> &Revocations {
        &self.revocations
    }
}
