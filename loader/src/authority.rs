//! What a signed bundle says about the generation that it becomes: under which grants it stamps,
//! which grants hold no more, and for how long it is good.

use std::mem::offset_of;

use govc_abi::{
    grant::{self, GrantTable, REVOKED_WORDS, flag},
    label::SLOT_NS,
    limits::{GRANTS_HELD_MAX, LABELS_MAX},
};
use govc_image::Image;

use crate::{
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
    /// Numbers of domains with the serials of grants under which labels are translated into them.
    pub transit: Vec<(u16, u16)>,
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

/// A grant that labels are stamped under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Names it in labels.
    pub serial: u16,
    /// Last second, Unix time; the slot of two seconds that it lies in counts as a whole.
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
    for (number, grant) in
        authority.stamps.iter().filter(|(number, _)| (*number as usize) < LABELS_MAX)
    {
        // What finds no place is stamped under no grant, which is refused.
        let index = held.iter().position(|one| one == grant).map_or(0, |index| index as u16 + 1);
        grants.write(
            buffer,
            offset_of!(GrantTable, stamps) + *number as usize * size_of::<u16>(),
            index,
        );
    }
    for (position, domain) in image.names().domains.iter().enumerate() {
        let serials = authority.transit.iter().filter(|(number, _)| *number == domain.number);
        let serial = serials.map(|&(_, serial)| serial).min().unwrap_or_default();
        // What this node itself says to workloads of another domain is said under it too.
        for table in [offset_of!(GrantTable, transit), offset_of!(GrantTable, own)] {
            grants.write(buffer, table + position * size_of::<u16>(), serial);
        }
    }
    let Some(index) = index_of(authority.domain) else { return };
    if let Some(own) = held.first() {
        grants.write(buffer, offset_of!(GrantTable, own) + index * size_of::<u16>(), own.serial);
    }
    let flags = flag::REQUIRED | revoke(grants, (buffer, index), &authority.revoked);
    write_flags(grants, (buffer, index), flags);
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

/// The grants of an authority, each once, ascending; as many as the kernel holds.
fn held(authority: &Authority) -> Vec<Held> {
    let mut held: Vec<Held> = authority.stamps.iter().map(|(_, grant)| *grant).collect();
    held.sort_unstable();
    held.dedup();
    held.truncate(GRANTS_HELD_MAX);
    held
}

/// The grants of the domains whose labels need one, and of those that took some back.
pub(crate) fn status(instance: &Instance, image: &Image, buffer: usize) -> Vec<GrantStatus> {
    let grants = &instance.grants;
    let concerned = |index: usize| {
        let at = offset_of!(GrantTable, flags) + index * size_of::<u32>();
        grants.read::<u32>(buffer, at).unwrap_or_default() & (flag::REQUIRED | flag::REVOKES) != 0
    };
    let domains = image.names().domains.iter().enumerate();
    let domains = domains.filter(|(index, _)| concerned(*index));
    domains
        .map(|(index, domain)| GrantStatus {
            domain: domain.name.clone(),
            stamps: stamps(grants, buffer, image, domain.number),
            revoked: revoked(grants, buffer, index),
        })
        .collect()
}

/// Grants that the labels of a domain are stamped under.
fn stamps(grants: &MappedArray, buffer: usize, image: &Image, domain: u16) -> Vec<HeldStatus> {
    let labels = (0..).map_while(|number| Some((number, image.label(number)?)));
    let labels = labels.filter(|(_, found)| found.label.domain() == domain);
    let held = labels.filter_map(|(number, _)| {
        let at = offset_of!(GrantTable, stamps) + number as usize * size_of::<u16>();
        let index = grants.read::<u16>(buffer, at)?.checked_sub(1)?;
        let at = offset_of!(GrantTable, held) + usize::from(index) * size_of::<grant::Held>();
        grants.read::<grant::Held>(buffer, at)
    });
    let mut held: Vec<HeldStatus> = held
        .map(|held| HeldStatus {
            serial: held.serial,
            not_after: held.ends_slot.saturating_mul(SLOT_S).saturating_sub(1),
        })
        .collect();
    held.sort_unstable();
    held.dedup();
    held
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

    #[test]
    fn the_last_second_counts() {
        let authority = |not_before, not_after| Authority {
            domain: 7,
            stamps: Vec::new(),
            transit: Vec::new(),
            revoked: Vec::new(),
            abroad: Vec::new(),
            not_before,
            not_after,
        };
        assert_eq!(authority(1000, 2000).slots(), (500, 1001));
        assert_eq!(authority(1001, 2001).slots(), (500, 1001));
        assert_eq!(seconds(authority(1000, 2000).slots()), Some((1000, 2001)));
        assert_eq!(seconds(slots(None)), None);
        // Nobody lives to see it, and nothing overflows.
        assert_eq!(authority(0, u64::MAX).slots().1, u64::MAX / 2 + 1);
    }
}
