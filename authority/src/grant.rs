//! Grants: signed rights to stamp.
//!
//! A grant is a chain of blocks, each in an [`Envelope`] of type [`PAYLOAD_TYPE`]. The first one is
//! signed by the root of the domain, every other one by the key that the block before it names,
//! and each can only narrow. The key of the last block is its holder's, as a rule a node's: the
//! chain alone is worth nothing to whoever copies it.
//!
//! A block names the digest of the one before it, so that a key that holds two grants cannot be
//! made to narrow the wrong one. Each has a serial, by which it is revoked, and the serials that
//! it may hand on: a delegate can neither reuse the serial of another grant nor escape from its
//! own revocation.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Domain,
    digest::Digest,
    envelope::{Envelope, EnvelopeError, Signed},
    form::{self, FormError},
    intervals::Intervals,
    key::{KeyId, PublicKey, SigningKey},
    lattice::{DEPTH_MAX, NoSuch, Rights, Widening, narrows},
    revocations::Revocations,
    signers::SignerSet,
    trust::Root,
};

/// What a block's envelope says that it holds.
pub const PAYLOAD_TYPE: &str = "application/vnd.govc.grant+json";
/// Blocks of a grant.
pub const BLOCKS_MAX: usize = DEPTH_MAX as usize + 1;
/// Bytes of a grant's file.
pub const GRANT_LEN_MAX: usize = 1 << 20;
/// The only version of the format.
const VERSION: u32 = 1;

/// A chain of blocks. Nothing in it has been verified, but for its form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    blocks: Vec<Envelope>,
}

/// What a block says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Block {
    version: u32,
    /// Whose labels.
    domain: Domain,
    /// Digest of the block before; [`None`] in the first one.
    previous: Option<Digest>,
    terms: Terms,
}

/// What is granted, and to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    /// Names the grant in labels and in the revocations; from 1.
    pub serial: u16,
    /// Serials that blocks behind this one may take; not its own.
    pub serials: Intervals,
    /// What may be stamped.
    pub rights: Rights,
    /// Who may: the key that signs the next block, or the node's.
    pub holder: PublicKey,
}

/// A grant that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    domain: Domain,
    /// From the root on; never empty.
    links: Vec<Terms>,
    last: Terms,
}

/// Why a grant does not hold, or cannot be made. Blocks count from 1.
#[derive(Debug, Error)]
pub enum GrantError {
    /// The file is no grant in canonical form.
    #[error("no grant: {0}")]
    Form(#[from] FormError),
    /// None, or more than anybody reads.
    #[error("a grant has from 1 to {BLOCKS_MAX} blocks, this one has {0}; hand it on less often")]
    Blocks(usize),
    /// Not signed by the root or by the key that the block before names.
    #[error("block {block}: {why}")]
    Envelope {
        /// Which.
        block: usize,
        /// What is wrong.
        why: EnvelopeError,
    },
    /// Signed, but no block.
    #[error("block {block} is not one that this version knows: {why}")]
    Block {
        /// Which.
        block: usize,
        /// What is wrong.
        why: FormError,
    },
    /// Another version.
    #[error("block {block} is of version {version}; take the govc that its signer uses")]
    Version {
        /// Which.
        block: usize,
        /// Its version.
        version: u32,
    },
    /// For the labels of another domain.
    #[error("block {block} is about domain {found}, the root is that of {wanted}; use that one's")]
    Domain {
        /// Which.
        block: usize,
        /// The block's.
        found: Domain,
        /// The root's.
        wanted: Domain,
    },
    /// Moved from another grant.
    #[error(
        "block {0} does not belong behind the one before it; ask its signer for the whole grant"
    )]
    Chain(usize),
    /// Values beyond what labels carry.
    #[error("block {block}: {why}")]
    NoSuch {
        /// Which.
        block: usize,
        /// What does not exist.
        why: NoSuch,
    },
    /// Allows more than the block before it.
    #[error("block {block} widens the one before it: {why}")]
    Widens {
        /// Which.
        block: usize,
        /// By what.
        why: Widening,
    },
    /// The block before may not be handed on.
    #[error("block {0} hands on more often than the one before it allows; ask for a deeper grant")]
    Depth(usize),
    /// The serial is 0, not one that may be taken, or could be taken twice.
    #[error(
        "block {block} takes serial {serial}, which is not among those that the block before hands \
         on, or is to hand on what it does not have; take another"
    )]
    Serial {
        /// Which.
        block: usize,
        /// Its serial, or the one that it may not hand on.
        serial: u32,
    },
    /// Taken back.
    #[error("block {block} was revoked by its serial {serial}; ask for a new grant")]
    Revoked {
        /// Which.
        block: usize,
        /// Its serial.
        serial: u16,
    },
    /// Over.
    #[error("the grant ended with second {not_after}, it is {now}; ask for a new one")]
    Expired {
        /// Its last second.
        not_after: u64,
        /// The present one.
        now: u64,
    },
    /// Somebody else's.
    #[error("the grant is for key {wanted}, this is {found}; ask for a grant to this key")]
    Holder {
        /// The key that it names.
        wanted: KeyId,
        /// The key that was shown.
        found: KeyId,
    },
    /// Only the root's keys sign side by side.
    #[error("the grant has been handed on already; the root signs before that")]
    HandedOn,
}

impl Grant {
    /// A grant of the root that nobody has signed yet.
    ///
    /// # Errors
    /// The terms contradict themselves.
    pub fn draft(domain: Domain, terms: Terms) -> Result<Self, GrantError> {
        let block = Block { version: VERSION, domain, previous: None, terms };
        block.check(1, None)?;
        Ok(Self { blocks: vec![block.unsigned()?] })
    }

    /// Adds the signature of one of the root's keys.
    ///
    /// # Errors
    /// The grant was handed on already, or the envelope is full.
    pub fn sign(&mut self, key: &SigningKey) -> Result<Signed, GrantError> {
        let [first] = self.blocks.as_mut_slice() else { return Err(GrantError::HandedOn) };
        first.sign(key).map_err(|why| GrantError::Envelope { block: 1, why })
    }

    /// As [`Envelope::drop_unknown`], of the root's block.
    ///
    /// # Errors
    /// The grant was handed on already.
    pub fn drop_unknown(&mut self, sets: &[SignerSet]) -> Result<usize, GrantError> {
        let [first] = self.blocks.as_mut_slice() else { return Err(GrantError::HandedOn) };
        Ok(first.drop_unknown(sets))
    }

    /// The grant handed on by its holder, whose key this is.
    ///
    /// # Errors
    /// The key is not the holder's, or the terms do not narrow.
    pub fn hand_on(&self, terms: Terms, key: &SigningKey) -> Result<Self, GrantError> {
        let block = self.blocks.len() + 1;
        let Some(last) = self.blocks.last() else { return Err(GrantError::Blocks(0)) };
        let parent = Block::read(last.unverified_payload(), self.blocks.len())?;
        parent.terms.check_holder(&key.public())?;
        if block > BLOCKS_MAX {
            return Err(GrantError::Blocks(block));
        }
        let child = Block {
            version: VERSION,
            domain: parent.domain,
            previous: Some(Digest::of(last.unverified_payload())),
            terms,
        };
        child.check(block, Some(&parent.terms))?;
        let mut envelope = child.unsigned()?;
        envelope.sign(key).map_err(|why| GrantError::Envelope { block, why })?;
        let mut blocks = self.blocks.clone();
        blocks.push(envelope);
        Ok(Self { blocks })
    }

    /// What the grant allows at Unix time `now`, if it follows from this root.
    ///
    /// # Errors
    /// The first block that does not follow from the one before it, or no longer holds.
    pub fn verify(
        &self,
        root: &Root,
        revoked: &Revocations,
        now: u64,
    ) -> Result<Verified, GrantError> {
        if self.blocks.len() > BLOCKS_MAX {
            return Err(GrantError::Blocks(self.blocks.len()));
        }
        let mut signers = root.signers.clone();
        let mut previous = None;
        let mut links: Vec<Terms> = Vec::new();
        for (envelope, block) in self.blocks.iter().zip(1..) {
            let (payload, _) = envelope
                .verify(PAYLOAD_TYPE, &signers)
                .map_err(|why| GrantError::Envelope { block, why })?;
            let digest = Digest::of(payload);
            let read = Block::read(payload, block)?;
            if read.domain != root.domain {
                let (found, wanted) = (read.domain, root.domain.clone());
                return Err(GrantError::Domain { block, found, wanted });
            }
            if read.previous != previous {
                return Err(GrantError::Chain(block));
            }
            read.check(block, links.last())?;
            let terms = read.terms;
            if revoked.contains(terms.serial) {
                return Err(GrantError::Revoked { block, serial: terms.serial });
            }
            if now > terms.rights.not_after {
                return Err(GrantError::Expired { not_after: terms.rights.not_after, now });
            }
            signers = SignerSet::one(terms.holder);
            previous = Some(digest);
            links.push(terms);
        }
        let Some(last) = links.last().cloned() else { return Err(GrantError::Blocks(0)) };
        Ok(Verified { domain: root.domain.clone(), links, last })
    }

    /// What the blocks say, which nobody may have signed: for showing it.
    ///
    /// # Errors
    /// One of them is no block.
    pub fn unverified_blocks(&self) -> Result<Vec<Block>, GrantError> {
        let blocks = self.blocks.iter().zip(1..);
        blocks.map(|(envelope, at)| Block::read(envelope.unverified_payload(), at)).collect()
    }

    /// Reads a grant in canonical form.
    ///
    /// # Errors
    /// The text is longer than [`GRANT_LEN_MAX`], no grant, written in another way, or has no
    /// blocks or more than [`BLOCKS_MAX`].
    pub fn read(bytes: &[u8]) -> Result<Self, GrantError> {
        let grant: Self = form::read(bytes, GRANT_LEN_MAX)?;
        if grant.blocks.is_empty() || grant.blocks.len() > BLOCKS_MAX {
            return Err(GrantError::Blocks(grant.blocks.len()));
        }
        Ok(grant)
    }

    /// Its canonical form.
    ///
    /// # Errors
    /// It would be longer than [`GRANT_LEN_MAX`], so that nobody would read it.
    pub fn to_bytes(&self) -> Result<Vec<u8>, GrantError> {
        let bytes = form::write(self)?;
        if bytes.len() > GRANT_LEN_MAX {
            return Err(FormError::TooLong { len: bytes.len(), max: GRANT_LEN_MAX }.into());
        }
        Ok(bytes)
    }
}

impl Block {
    fn read(payload: &[u8], block: usize) -> Result<Self, GrantError> {
        let read: Self =
            form::read(payload, GRANT_LEN_MAX).map_err(|why| GrantError::Block { block, why })?;
        if read.version != VERSION {
            return Err(GrantError::Version { block, version: read.version });
        }
        Ok(read)
    }

    fn unsigned(&self) -> Result<Envelope, GrantError> {
        Ok(Envelope::unsigned(PAYLOAD_TYPE, form::write(self)?))
    }

    /// Whether it says something that can be, and narrows its parent.
    fn check(&self, block: usize, parent: Option<&Terms>) -> Result<(), GrantError> {
        let Terms { serial, serials, rights, .. } = &self.terms;
        rights.check().map_err(|why| GrantError::NoSuch { block, why })?;
        let own = u32::from(*serial);
        let refused = |serial| Err(GrantError::Serial { block, serial });
        if own == 0 || serials.contains(own) {
            return refused(own);
        }
        let all = Intervals::span(1, u16::MAX.into());
        let free = parent.map_or(&all, |parent| &parent.serials);
        if !free.contains(own) {
            return refused(own);
        }
        if let Some(serial) = serials.first_outside(free) {
            return refused(serial);
        }
        let Some(parent) = parent else { return Ok(()) };
        narrows(&parent.rights, rights).map_err(|why| GrantError::Widens { block, why })?;
        if rights.depth >= parent.rights.depth { Err(GrantError::Depth(block)) } else { Ok(()) }
    }

    /// Whose labels.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// What is granted, and to whom.
    #[must_use]
    pub fn terms(&self) -> &Terms {
        &self.terms
    }
}

impl Terms {
    fn check_holder(&self, key: &PublicKey) -> Result<(), GrantError> {
        if self.holder == *key {
            return Ok(());
        }
        Err(GrantError::Holder { wanted: self.holder.id(), found: key.id() })
    }
}

impl Verified {
    /// Whose labels.
    #[must_use]
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// What may be stamped: the last block narrows all others.
    #[must_use]
    pub fn rights(&self) -> &Rights {
        &self.last.rights
    }

    /// Who may.
    #[must_use]
    pub fn holder(&self) -> &PublicKey {
        &self.last.holder
    }

    /// What names the grant in labels.
    #[must_use]
    pub fn serial(&self) -> u16 {
        self.last.serial
    }

    /// All blocks from the root on: revoking any of their serials ends the grant.
    #[must_use]
    pub fn links(&self) -> &[Terms] {
        &self.links
    }

    /// Whether the grant is for this key. A node asks with its own, which it has the private half
    /// of.
    ///
    /// # Errors
    /// It is for another.
    pub fn check_holder(&self, key: &PublicKey) -> Result<(), GrantError> {
        self.last.check_holder(key)
    }
}

#[cfg(test)]
mod tests;
