//! Policy bundles: everything that a node needs for one generation of policy, in one signed file.
//!
//! The file is a tar archive in ustar format with these members in this order, nothing else:
//!
//! | member | contents |
//! | --- | --- |
//! | `manifest.json` | [`Manifest`] in an [`Envelope`] of type [`PAYLOAD_TYPE`] |
//! | `policy.image` | the compiled policy ([`govc_image::Image`]), which carries its names |
//! | `vocabulary.json` | [`Vocabulary`]: digests of the lock files of its vocabularies |
//! | `revocations.json` | [`Revocations`] |
//!
//! Owners, times and modes are constants, so that the same contents make the same bytes. A reader
//! writes what it read once more and compares: nothing can hide in headers, padding or behind the
//! end.

mod container;
mod manifest;
mod verify;

use std::collections::BTreeMap;

use govc_image::{Image, ImageError};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    digest::Digest,
    envelope::{ENVELOPE_LEN_MAX, Envelope, EnvelopeError, Signed},
    form::{self, FormError},
    key::{KeyId, SigningKey},
    revocations::Revocations,
    signers::SignerSet,
};

pub use manifest::{GENERATION_MAX, MANIFEST_VERSION, Manifest, Member, Terms};
pub use verify::{Verified, VerifyError, verify};

/// What a manifest's envelope says that it holds.
pub const PAYLOAD_TYPE: &str = "application/vnd.govc.bundle+json";
/// Name of the manifest's member.
const MANIFEST: &str = "manifest.json";
/// The other members and the bytes that each may have, in their order.
const MEMBERS: [(&str, usize); 3] = [
    ("policy.image", govc_abi::limits::IMAGE_WORDS_MAX * 4),
    ("vocabulary.json", 1 << 20),
    ("revocations.json", 1 << 20),
];
/// Bytes of a bundle's file: its members, a header and padding for each, and the end.
pub const BUNDLE_LEN_MAX: usize = (1 << 28) + (1 << 25);

const _: () = {
    let members = MEMBERS[0].1 + MEMBERS[1].1 + MEMBERS[2].1 + ENVELOPE_LEN_MAX;
    assert!(members + 4 * 1024 + 1024 <= BUNDLE_LEN_MAX);
};

/// A bundle as it was read or made. Nothing in it has been verified, but for its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    manifest: Envelope,
    /// In the order of [`MEMBERS`].
    members: [Vec<u8>; 3],
}

/// What a bundle is made of.
#[derive(Clone, Copy, Debug)]
pub struct Contents<'a> {
    /// The compiled policy.
    pub image: &'a Image,
    /// Digests of the lock files that its numbers come from.
    pub vocabulary: &'a Vocabulary,
    /// Grants that no longer hold.
    pub revocations: &'a Revocations,
}

/// Digests of lock files by the package that owns the domain, as `a.b`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vocabulary {
    /// SHA-256 of each file's text.
    pub locks: BTreeMap<String, Digest>,
}

/// Why bytes are no bundle, or none can be made.
#[derive(Debug, Error)]
pub enum BundleError {
    /// No tar archive, or one that ends too early.
    #[error("no bundle, or only the beginning of one: {0}; fetch the file again")]
    Container(String),
    /// Something else in the place of a member.
    #[error("`{found}` stands where `{wanted}` should; make the bundle with this tool")]
    Member {
        /// Name in the archive.
        found: String,
        /// Name that this place has.
        wanted: String,
    },
    /// Beyond the limit of the whole file or of one member.
    #[error("{what} has {len} bytes, more than the {max} that are read; make the policy smaller")]
    TooLong {
        /// The file, or the name of the member.
        what: &'static str,
        /// Its length.
        len: u64,
        /// The limit.
        max: usize,
    },
    /// Other metadata, padding that is not zero, or something behind the end.
    #[error("the archive holds more than its members' bytes; make it with this tool, not with tar")]
    NotCanonical,
    /// The manifest is in no envelope.
    #[error("the manifest: {0}")]
    Envelope(#[from] EnvelopeError),
    /// The manifest or another member is not in canonical form.
    #[error("`{member}`: {why}")]
    Form {
        /// Its name.
        member: &'static str,
        /// What is wrong.
        why: FormError,
    },
    /// The terms contradict themselves.
    #[error("{0}")]
    Terms(&'static str),
    /// A member is not the one that the manifest names.
    #[error("`{0}` is not the one that the manifest names; fetch the bundle again")]
    Digest(&'static str),
    /// The policy is none.
    #[error("the policy: {0}; compile it with the version that made the bundle")]
    Image(#[from] ImageError),
}

impl Bundle {
    /// A bundle that nobody has signed yet.
    ///
    /// # Errors
    /// The terms contradict themselves, or a member is too long.
    pub fn draft(contents: &Contents<'_>, terms: Terms) -> Result<Self, BundleError> {
        let write = |member, written: Result<_, FormError>| {
            written.map_err(|why| BundleError::Form { member, why })
        };
        let members = [
            contents.image.bytes().to_vec(),
            write("vocabulary.json", form::write(contents.vocabulary))?,
            write("revocations.json", form::write(contents.revocations))?,
        ];
        for ((name, max), bytes) in MEMBERS.iter().zip(&members) {
            if bytes.len() > *max {
                return Err(BundleError::TooLong {
                    what: name,
                    len: bytes.len() as u64,
                    max: *max,
                });
            }
        }
        let manifest = Manifest::new(terms, named(&members))?;
        let manifest = write(MANIFEST, form::write(&manifest))?;
        Ok(Self { manifest: Envelope::unsigned(PAYLOAD_TYPE, manifest), members })
    }

    /// Adds the signature of a key. Who signs a bundle that came from elsewhere has read
    /// [`Self::unverified_manifest`] before.
    ///
    /// # Errors
    /// The manifest is none or names other members, or the envelope is full.
    pub fn sign(&mut self, key: &SigningKey) -> Result<Signed, BundleError> {
        self.check_members(&self.unverified_manifest()?)?;
        Ok(self.manifest.sign(key)?)
    }

    /// As [`Envelope::drop_unknown`].
    pub fn drop_unknown(&mut self, sets: &[SignerSet]) -> usize {
        self.manifest.drop_unknown(sets)
    }

    /// The manifest, which nobody may have signed: for showing it.
    ///
    /// # Errors
    /// It is none.
    pub fn unverified_manifest(&self) -> Result<Manifest, BundleError> {
        Manifest::read(self.manifest.unverified_payload())
    }

    /// The policy, which nobody may have signed: for showing and comparing it.
    ///
    /// # Errors
    /// It is none.
    pub fn unverified_image(&self) -> Result<Image, BundleError> {
        let [image, ..] = &self.members;
        Ok(Image::parse(image.as_slice())?)
    }

    /// Digests of the lock files that the policy's numbers come from, which nobody may have signed: for whoever signs,
    /// to compare with the files that they know.
    ///
    /// # Errors
    /// The member is not in canonical form.
    pub fn unverified_vocabulary(&self) -> Result<Vocabulary, BundleError> {
        let ([_, vocabulary, _], [_, (member, len_max), _]) = (&self.members, MEMBERS);
        form::read(vocabulary, len_max).map_err(|why| BundleError::Form { member, why })
    }

    /// Grants that no longer hold, which nobody may have signed: for whoever makes the next
    /// bundle.
    ///
    /// # Errors
    /// The member is not in canonical form.
    pub fn unverified_revocations(&self) -> Result<Revocations, BundleError> {
        let [.., revocations] = &self.members;
        let [.., (member, len_max)] = MEMBERS;
        form::read(revocations, len_max).map_err(|why| BundleError::Form { member, why })
    }

    /// Grants that no longer hold, by the manifest, whoever signed that: for whoever has verified it.
    ///
    /// # Errors
    /// The members are not those that the manifest names, or one is not in canonical form.
    pub fn revocations_of_manifest(&self) -> Result<Revocations, BundleError> {
        self.check_members(&self.unverified_manifest()?)?;
        self.unverified_revocations()
    }

    /// Which keys are said to have signed.
    pub fn key_ids(&self) -> impl ExactSizeIterator<Item = KeyId> + '_ {
        self.manifest.key_ids()
    }

    /// The manifest's envelope, which suffices for [`crate::trust::Trust::follow`].
    #[must_use]
    pub fn envelope(&self) -> &Envelope {
        &self.manifest
    }

    /// Reads a bundle's form. Its memory is at most twice the length of the bytes.
    ///
    /// # Errors
    /// The bytes are too many or not what [`Self::to_bytes`] writes for any bundle.
    pub fn read(bytes: &[u8]) -> Result<Self, BundleError> {
        let (manifest, members) = container::read(bytes)?;
        Ok(Self { manifest: Envelope::read(manifest)?, members: members.map(<[u8]>::to_vec) })
    }

    /// The file's contents: the same for the same bundle.
    ///
    /// # Errors
    /// The manifest with its signatures is too long.
    pub fn to_bytes(&self) -> Result<Vec<u8>, BundleError> {
        let manifest = self.manifest.to_bytes()?;
        let mut bytes = Vec::new();
        container::write(&manifest, self.members.each_ref().map(Vec::as_slice), &mut bytes)
            .map_err(|error| BundleError::Container(error.to_string()))?;
        Ok(bytes)
    }

    /// Whether the members are the ones that the manifest names.
    fn check_members(&self, manifest: &Manifest) -> Result<(), BundleError> {
        let mut stated = manifest.members.iter();
        for (actual, (name, _)) in named(&self.members).iter().zip(MEMBERS) {
            if stated.next() != Some(actual) {
                return Err(BundleError::Digest(name));
            }
        }
        // One more than there are is as wrong as a missing one.
        if stated.next().is_some() { Err(BundleError::Digest(MANIFEST)) } else { Ok(()) }
    }
}

/// The members as a manifest names them.
fn named(members: &[Vec<u8>; 3]) -> Vec<Member> {
    let member = |((name, _), bytes): (&(&str, usize), &Vec<u8>)| Member {
        name: (*name).into(),
        len: bytes.len() as u64,
        sha256: Digest::of(bytes),
    };
    MEMBERS.iter().zip(members).map(member).collect()
}

#[cfg(test)]
mod tests;
