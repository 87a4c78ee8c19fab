//! What a signed bundle says about the generation that it becomes: under which grants it stamps and
//! translates, which grants hold no more, and for how long it is good.

use std::{cmp::Reverse, collections::BTreeSet, mem::offset_of};

use govc_abi::{
    grant::{self, GrantTable, REVOKED_WORDS, flag},
    label::SLOT_NS,
    limits::{GRANTS_HELD_MAX, LABELS_MAX, TRANSLATIONS_MAX},
};
use govc_image::Image;

use crate::{
    error::LoadError,
    instance::Instance,
    mapped::MappedArray,
    status::{GrantStatus, HeldStatus},
};

/// Seconds of a slot.
const SLOT_S: u64 = SLOT_NS / 1_000_000_000;
/// What stands for a generation without an end.
pub(crate) const ENDLESS_SLOT: u64 = u64::MAX;

/// The authority of a generation. Policies that nobody signed have none: their labels name no
/// grant, and they do not end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Number of the domain that it is about. Its labels need a grant.
    pub domain: u16,
    /// Numbers of the image's labels with the grant that each lies in.
    pub stamps: Vec<(u32, Held)>,
    /// Numbers of the image's translations with the transit grant that each lies in.
    pub transit: Vec<(u32, Held)>,
    /// Bit `serial % 64` of word `serial / 64` is set for grants of the domain that were taken back.
    pub revoked: Vec<u64>,
    /// What other domains say of their labels.
    pub abroad: Vec<Abroad>,
    /// First second in which it is good, Unix time.
    pub not_before: u64,
    /// Last second, Unix time; the slot of two seconds that it lies in counts as a whole.
    pub not_after: u64,
}

/// What another domain says of its labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Abroad {
    /// Its number.
    pub domain: u16,
    /// Grants that it took back, as those of an authority.
    pub revoked: Vec<u64>,
    /// Its labels need a grant too.
    pub granted: bool,
}

/// A grant that labels are stamped or translated under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Names it in labels.
    pub serial: u16,
    /// Last second, Unix time; the slot of two seconds that it lies in counts as a whole. Of a transit grant
    /// the mapping's that the translation lies in, if that ends earlier.
    pub not_after: u64,
}

impl Held {
    /// The first slot in which it is no longer good.
    fn ends_slot(&self) -> u64 {
        (self.not_after / SLOT_S).saturating_add(1)
    }
}

impl Authority {
    /// The slots in which the generation is good: the first one, and the first one behind them.
    #[must_use]
    pub fn slots(&self) -> (u64, u64) {
        (self.not_before / SLOT_S, (self.not_after / SLOT_S).saturating_add(1))
    }
}

/// The slots in which a generation is good.
pub(crate) fn slots(authority: Option<&Authority>) -> (u64, u64) {
    authority.map_or((0, ENDLESS_SLOT), Authority::slots)
}

/// The seconds in which a generation is good, if anybody has said so.
pub(crate) fn seconds(slots: (u64, u64)) -> Option<(u64, u64)> {
    let (first, behind) = slots;
    (behind != ENDLESS_SLOT)
        .then(|| (first.saturating_mul(SLOT_S), behind.saturating_mul(SLOT_S).saturating_sub(1)))
}

/// Fills a buffer of `GRANTS`.
pub(crate) fn fill(
    grants: &MappedArray,
    buffer: usize,
    image: &Image,
    authority: Option<&Authority>,
) {
    grants.zero(buffer, 0);
    let Some(authority) = authority else { return };
    let index_of =
        |number: u16| image.names().domains.iter().position(|domain| domain.number == number);
    for Abroad { domain, revoked, granted } in &authority.abroad {
        if let Some(index) = index_of(*domain) {
            let flags = revoke(grants, (buffer, index), revoked);
            let required = if *granted { flag::REQUIRED } else { 0 };
            write_flags(grants, (buffer, index), flags | required);
        }
    }
    let held = held(authority);
    for (index, grant) in held.iter().enumerate() {
        let at = offset_of!(GrantTable, held) + index * size_of::<grant::Held>();
        let ends_slot = grant.ends_slot();
        let entry = grant::Held { ends_slot, serial: grant.serial, pad: [0; 3] };
        grants.write(buffer, at, entry);
    }
    let name = |table: usize, number: usize, grant: &Held| {
        // What finds no place is under no grant, which is refused.
        let index = held.binary_search(grant).map_or(0, |index| index as u16 + 1);
        grants.write(buffer, table + number * size_of::<u16>(), index);
    };
    for (table, max, numbered) in [
        (offset_of!(GrantTable, stamps), LABELS_MAX, &authority.stamps),
        (offset_of!(GrantTable, transits), TRANSLATIONS_MAX, &authority.transit),
    ] {
        for (number, grant) in numbered.iter().filter(|(number, _)| (*number as usize) < max) {
            name(table, *number as usize, grant);
        }
    }
    for index in 0..image.names().domains.len() {
        if let Some(own) = own(authority, image, index) {
            name(offset_of!(GrantTable, own), index, &own);
        }
    }
    let Some(index) = index_of(authority.domain) else { return };
    let flags = flag::REQUIRED | revoke(grants, (buffer, index), &authority.revoked);
    write_flags(grants, (buffer, index), flags);
}

/// What this node itself says to workloads of a domain is said under the grant, of those that it stamps or
/// translates under there, that is good for longest.
fn own(authority: &Authority, image: &Image, domain_index: usize) -> Option<Held> {
    let there = Some(domain_index as u32);
    let stamps = authority.stamps.iter();
    let stamps =
        stamps.filter(|(number, _)| image.label(*number).map(|label| label.domain_index) == there);
    let transit = authority.transit.iter();
    let transit = transit.filter(|(number, _)| image.translation_target(*number) == there);
    let held = stamps.chain(transit).map(|(_, grant)| *grant);
    held.max_by_key(|grant| (grant.not_after, Reverse(grant.serial)))
}

/// Writes down what a domain took back; the flag of the domain that says whether it did.
fn revoke(grants: &MappedArray, (buffer, index): (usize, usize), serials: &[u64]) -> u32 {
    let at = offset_of!(GrantTable, revoked) + index * REVOKED_WORDS * size_of::<u64>();
    let mut flags = 0;
    for (number, &word) in serials.iter().take(REVOKED_WORDS).enumerate() {
        if word != 0 {
            flags = flag::REVOKES;
            grants.write(buffer, at + number * size_of::<u64>(), word);
        }
    }
    flags
}

fn write_flags(grants: &MappedArray, (buffer, index): (usize, usize), flags: u32) {
    grants.write(buffer, offset_of!(GrantTable, flags) + index * size_of::<u32>(), flags);
}

/// Whether the kernel holds the grants of an authority.
///
/// # Errors
/// There are too many.
pub(crate) fn check(authority: Option<&Authority>) -> Result<(), LoadError> {
    let count = authority.map_or(0, |authority| held(authority).len());
    if count > GRANTS_HELD_MAX { Err(LoadError::TooManyGrants(count)) } else { Ok(()) }
}

/// The grants of an authority, each once, ascending.
fn held(authority: &Authority) -> Vec<Held> {
    let all = authority.stamps.iter().chain(&authority.transit);
    let mut held: Vec<Held> = all.map(|(_, grant)| *grant).collect();
    held.sort_unstable();
    held.dedup();
    held
}

/// The grants of the domains whose labels need one, of those that took some back, and of those into which
/// labels are translated under one.
pub(crate) fn status(instance: &Instance, image: &Image, buffer: usize) -> Vec<GrantStatus> {
    let grants = &instance.grants;
    let asks = |index: usize| {
        let at = offset_of!(GrantTable, flags) + index * size_of::<u32>();
        grants.read::<u32>(buffer, at).unwrap_or_default() & (flag::REQUIRED | flag::REVOKES) != 0
    };
    let labels = (0..).map_while(|number| Some((number, image.label(number)?.domain_index)));
    let stamps = named(grants, buffer, offset_of!(GrantTable, stamps), labels);
    let translations = (0..).map_while(|number| Some((number, image.translation_target(number)?)));
    let transits = named(grants, buffer, offset_of!(GrantTable, transits), translations);
    let of = |all: &BTreeSet<(u32, HeldStatus)>, index: usize| -> Vec<HeldStatus> {
        let there = all.iter().filter(|(domain, _)| *domain as usize == index);
        there.map(|(_, held)| *held).collect()
    };
    let domains = image.names().domains.iter().enumerate();
    let grants = domains.map(|(index, domain)| {
        let status = GrantStatus {
            domain: domain.name.clone(),
            stamps: of(&stamps, index),
            translates: of(&transits, index),
            revoked: revoked(grants, buffer, index),
        };
        (asks(index) || !status.translates.is_empty()).then_some(status)
    });
    grants.flatten().collect()
}

/// The grants that a table of [`GrantTable`] names for labels or translations of which the domain's index is
/// known, with that.
fn named(
    grants: &MappedArray,
    buffer: usize,
    table: usize,
    numbers: impl Iterator<Item = (u32, u32)>,
) -> BTreeSet<(u32, HeldStatus)> {
    let held = numbers.filter_map(|(number, domain)| {
        let at = table + number as usize * size_of::<u16>();
        let index = grants.read::<u16>(buffer, at)?.checked_sub(1)?;
        let at = offset_of!(GrantTable, held) + usize::from(index) * size_of::<grant::Held>();
        let held = grants.read::<grant::Held>(buffer, at)?;
        let not_after = held.ends_slot.saturating_mul(SLOT_S).saturating_sub(1);
        Some((domain, HeldStatus { serial: held.serial, not_after }))
    });
    held.collect()
}

/// How many serials of a domain a buffer holds as revoked.
fn revoked(grants: &MappedArray, buffer: usize, domain_index: usize) -> u32 {
    let at = offset_of!(GrantTable, revoked) + domain_index * REVOKED_WORDS * size_of::<u64>();
    let words = (0..REVOKED_WORDS).filter_map(|word| grants.read::<u64>(buffer, at + word * 8));
    words.map(u64::count_ones).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority(not_before: u64, not_after: u64) -> Authority {
        Authority {
            domain: 7,
            stamps: Vec::new(),
            transit: Vec::new(),
            revoked: Vec::new(),
            abroad: Vec::new(),
            not_before,
            not_after,
        }
    }

    #[test]
    fn more_grants_than_the_kernel_holds_are_refused() {
        let held = |number: u32| Held { serial: number as u16, not_after: 2000 };
        let transit = |count| (0..count).map(|number| (number, held(number / 2))).collect();
        let count = GRANTS_HELD_MAX as u32 * 2;
        let with = |transit| Authority { transit, ..authority(0, 2000) };
        assert!(check(Some(&with(transit(count)))).is_ok());
        // One that is stamped under too counts once, another end is another one.
        let mut both = with(transit(count));
        both.stamps.push((0, held(0)));
        assert!(check(Some(&both)).is_ok());
        both.stamps.push((1, Held { not_after: 1000, ..held(0) }));
        let refused = check(Some(&both)).unwrap_err();
        assert!(matches!(refused, LoadError::TooManyGrants(1025)), "{refused}");
        assert!(check(None).is_ok());
    }

    #[test]
    fn the_last_second_counts() {
        assert_eq!(authority(1000, 2000).slots(), (500, 1001));
        assert_eq!(authority(1001, 2001).slots(), (500, 1001));
        assert_eq!(seconds(authority(1000, 2000).slots()), Some((1000, 2001)));
        assert_eq!(seconds(slots(None)), None);
        // Nobody lives to see it, and nothing overflows.
        assert_eq!(authority(0, u64::MAX).slots().1, u64::MAX / 2 + 1);
    }
}
