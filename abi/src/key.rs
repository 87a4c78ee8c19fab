//! Keys and time: which key a slot belongs to, and whose it is.

use crate::{
    label::Label,
    limits::{DOMAINS_MAX, EPOCHS},
    mac,
};

/// The key of one domain in one epoch. All zero means that there is none.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct KeyEntry {
    /// First half of the SipHash key.
    pub k0: u64,
    /// Second half.
    pub k1: u64,
    /// First slot that the key is good for, counted from the Unix epoch.
    pub not_before_slot: u64,
    /// First slot that it is no longer good for; 0 means that there is no key.
    pub not_after_slot: u64,
}

/// Tells keys apart in most cases: two in 2^32 that are different have the same.
#[inline(always)]
#[must_use]
pub const fn fingerprint([k0, k1]: [u64; 2]) -> u32 {
    k0 as u32 ^ (k1 >> 32) as u32
}

impl KeyEntry {
    /// Whether labels of this slot may be stamped and verified with the key.
    #[inline(always)]
    #[must_use]
    pub const fn covers(&self, slot: u64) -> bool {
        slot >= self.not_before_slot && slot < self.not_after_slot
    }

    /// [`fingerprint`] of the key.
    #[inline(always)]
    #[must_use]
    pub const fn fingerprint(&self) -> u32 {
        fingerprint([self.k0, self.k1])
    }

    /// The key that MACs of a label's sender are made with, where the domain's keys are of kind
    /// `sender`, one of [`sender`]; [`None`] where this is the key of another sender.
    #[must_use]
    pub const fn of_sender(&self, sender: u32, label: &Label) -> Option<[u64; 2]> {
        match sender {
            sender::ALL => Some([self.k0, self.k1]),
            sender::DERIVED => Some(mac::sender_key(self.k0, self.k1, label)),
            one if one == sender::ONE | label.subject() => Some([self.k0, self.k1]),
            _ => None,
        }
    }
}

/// The keys of one generation: an entry for each domain index and epoch modulo 16.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct KeyTable {
    /// An epoch of the domain is `2^epoch_shift` slots long; at most 15, so that slot and epoch
    /// name one moment although a label carries only 16 and 4 bits of them.
    pub epoch_shift: [u32; DOMAINS_MAX],
    /// Entries by `domain_index * 16 + epoch % 16`.
    pub entries: [KeyEntry; DOMAINS_MAX * EPOCHS],
    /// First slot behind the last staged epoch, by domain index; 0 for a domain without keys.
    pub ends_slot: [u64; DOMAINS_MAX],
    /// What a domain's keys are, by domain index: one of [`sender`].
    pub senders: [u32; DOMAINS_MAX],
}

/// Whom the keys of a domain belong to. All of a domain's keys are of one kind, so that a verifier
/// never tries two of them.
pub mod sender {
    /// MACs are made with the keys themselves.
    pub const ALL: u32 = 0;
    /// Each sender has a key of its own, which follows from the domain's: see
    /// [`crate::mac::sender_key`].
    pub const DERIVED: u32 = 1 << 24;
    /// These are the keys of one sender, whose subject stands in the lower 24 bits.
    pub const ONE: u32 = 2 << 24;
}

impl KeyTable {
    /// A table without a key.
    pub const EMPTY: Self = Self {
        epoch_shift: [0; DOMAINS_MAX],
        entries: [KeyEntry { k0: 0, k1: 0, not_before_slot: 0, not_after_slot: 0 };
            DOMAINS_MAX * EPOCHS],
        ends_slot: [0; DOMAINS_MAX],
        senders: [sender::ALL; DOMAINS_MAX],
    };
}

/// Longest epoch: 2^15 slots, 18.2 hours.
pub const EPOCH_SHIFT_MAX: u32 = 15;

const _: () = assert!(size_of::<KeyTable>() == 64 + 32 * 256 + 128 + 64);
