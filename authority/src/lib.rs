//! Who may say what: signing keys, signed policy bundles, what a node trusts, grants and mappings,
//! and the audit log.
//!
//! Everything here is a function of the bytes, keys and times that it is handed; only
//! [`store`], [`audit`] and [`files`] touch files, and only those that they are told. Signed objects are
//! canonical JSON ([`form`]) in a DSSE [`envelope`], so that no two files mean the same and no
//! byte of one can be changed without being noticed.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`key`], [`signers`], [`sealed`], [`ring`] | keys, sets of keys with a threshold, secrets at rest |
//! | [`digest`], [`form`], [`envelope`] | SHA-256, canonical JSON, DSSE |
//! | [`bundle`], [`trust`], [`store`] | policy bundles, and what a node accepts |
//! | [`lattice`], [`grant`], [`graph`] | rights, who holds them, keys that grant in circles |
//! | [`stamps`], [`mapping`], [`transit`] | stamp rules and translations, held to rights |
//! | [`intervals`], [`revocations`] | sets of numbers, and of grants that were taken back |
//! | [`audit`], [`files`] | the log, and files within bounds |

pub mod audit;
pub mod bundle;
pub mod digest;
pub mod envelope;
pub mod files;
pub mod form;
pub mod grant;
pub mod graph;
pub mod intervals;
pub mod key;
pub mod lattice;
pub mod mapping;
pub mod revocations;
pub mod ring;
pub mod sealed;
pub mod signers;
pub mod stamps;
pub mod store;
pub mod transit;
pub mod trust;

#[cfg(test)]
mod testing;

use serde::{Deserialize, Serialize};

/// The owner of a vocabulary and of the keys of its labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// For people.
    pub name: String,
    /// In labels.
    pub number: u16,
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // It may come from a file that nobody verified, and goes to terminals.
        write!(f, "{} ({})", self.name.escape_debug(), self.number)
    }
}
