//! Grants in the kernel: which serial a label is stamped or translated under, until when, and which
//! serials hold no more.

use crate::limits::{DOMAINS_MAX, GRANTS_HELD_MAX, LABELS_MAX, SERIALS, TRANSLATIONS_MAX};

/// Words of one domain's revocations: a bit for each serial that a label can carry.
pub const REVOKED_WORDS: usize = SERIALS / 64;

/// Flags of a domain in [`GrantTable::flags`].
pub mod flag {
    /// Some serial is revoked: the others need not be looked for.
    pub const REVOKES: u32 = 1;
    /// Labels without a serial are refused.
    pub const REQUIRED: u32 = 2;
}

/// A grant that this node stamps or translates under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Held {
    /// First slot in which it is no longer good, counted from the Unix epoch.
    pub ends_slot: u64,
    /// Its serial; 0 in an empty entry.
    pub serial: u16,
    /// Zero.
    pub pad: [u16; 3],
}

/// The grants of one generation.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct GrantTable {
    /// Set of [`flag`] by domain index.
    pub flags: [u32; DOMAINS_MAX],
    /// By domain index the index in `held` of the grant under which this node speaks for itself, plus 1;
    /// 0 for none.
    pub own: [u16; DOMAINS_MAX],
    /// By domain index: bit `serial % 64` of word `serial / 64` is set for what was revoked.
    pub revoked: [[u64; REVOKED_WORDS]; DOMAINS_MAX],
    /// Grants that this node stamps or translates under.
    pub held: [Held; GRANTS_HELD_MAX],
    /// By number of a label of the image the index in `held` of the grant that it lies in, plus 1; 0
    /// for none.
    pub stamps: [u16; LABELS_MAX],
    /// By number of a translation of the image likewise.
    pub transits: [u16; TRANSLATIONS_MAX],
}

impl GrantTable {
    /// Set of [`flag`] of a domain.
    #[inline(always)]
    #[must_use]
    pub fn flags(&self, domain_index: u32) -> u32 {
        self.flags.get(domain_index as usize % DOMAINS_MAX).copied().unwrap_or_default()
    }

    /// The grant under which this node speaks for itself in a domain.
    #[inline(always)]
    #[must_use]
    pub fn own(&self, domain_index: u32) -> Option<&Held> {
        self.named(self.own.get(domain_index as usize % DOMAINS_MAX))
    }

    /// Whether a serial of a domain was revoked.
    #[inline(always)]
    #[must_use]
    pub fn revokes(&self, domain_index: u32, serial: u16) -> bool {
        let words = self.revoked.get(domain_index as usize % DOMAINS_MAX);
        let word = words.and_then(|words| words.get(serial as usize / 64));
        word.is_none_or(|word| word >> (serial % 64) & 1 != 0)
    }

    /// The grant that a label of the image lies in.
    #[inline(always)]
    #[must_use]
    pub fn stamp(&self, label: u32) -> Option<&Held> {
        self.named(self.stamps.get(label as usize % LABELS_MAX))
    }

    /// The grant that a translation of the image lies in.
    #[inline(always)]
    #[must_use]
    pub fn transit(&self, translation: u32) -> Option<&Held> {
        self.named(self.transits.get(translation as usize % TRANSLATIONS_MAX))
    }

    #[inline(always)]
    fn named(&self, number: Option<&u16>) -> Option<&Held> {
        match number {
            Some(0) | None => None,
            Some(number) => self.held.get((*number as usize - 1) % GRANTS_HELD_MAX),
        }
    }
}

const _: () = {
    let tables = 2 * LABELS_MAX + 2 * TRANSLATIONS_MAX;
    assert!(size_of::<GrantTable>() == 64 + 32 + (8 << 10) * 16 + 16 * 1024 + tables);
};
