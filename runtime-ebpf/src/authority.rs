//! What a generation may still do: its time, the grants of labels, the keys of a slot.

use govc_abi::{
    flow::Control,
    grant::{Held, flag},
    key::{KeyTable, sender},
    label::Label,
    mac, reason,
};

use crate::maps::{self, Active};

/// The reason to drop whatever comes in this slot, if there is one.
#[inline(always)]
pub fn untimely(control: &Control, active: Active, slot: u64) -> Option<u8> {
    if slot < control.slot_floor {
        Some(reason::CLOCK_STALE)
    } else if slot >= ends_slot(control, active) {
        Some(reason::POLICY_EXPIRED)
    } else {
        None
    }
}

/// First slot in which the generation is no longer good.
#[inline(always)]
pub fn ends_slot(control: &Control, active: Active) -> u64 {
    let [even, odd] = &control.generations;
    if active.buffer == 0 { even.not_after_slot } else { odd.not_after_slot }
}

/// Whether labels under a grant are still good.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
pub fn granted(buffer: u32, domain: u32, serial: u16) -> Result<(), u8> {
    let Some(grants) = maps::grants(buffer) else { return Err(reason::HELPER_FAILED) };
    let flags = grants.flags(domain);
    if flags & flag::REQUIRED != 0 && serial == 0 {
        return Err(reason::UNGRANTED);
    }
    if flags & flag::REVOKES != 0 && grants.revokes(domain, serial) {
        return Err(reason::REVOKED);
    }
    Ok(())
}

/// Serial of the grant that a label of the image is stamped under, 0 for none; and whether it has ended.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
pub fn grant(buffer: u32, label: u32, slot: u64) -> Result<(u16, bool), u8> {
    let Some(grants) = maps::grants(buffer) else { return Err(reason::HELPER_FAILED) };
    Ok(serial(grants.stamp(label), slot))
}

/// Likewise of the one under which this node speaks for itself in a domain.
///
/// # Errors
/// The reason to drop the packet.
#[inline(always)]
pub fn own(buffer: u32, domain: u32, slot: u64) -> Result<(u16, bool), u8> {
    let Some(grants) = maps::grants(buffer) else { return Err(reason::HELPER_FAILED) };
    Ok(serial(grants.own(domain), slot))
}

/// Serial of the grant that translation `number`, into `domain`, lies in; 0 for none.
///
/// # Errors
/// The domain asks for one, or it was revoked or has ended.
#[inline(always)]
pub fn transit(buffer: u32, number: u32, domain: u32, slot: u64) -> Result<u16, u8> {
    let Some(grants) = maps::grants(buffer) else { return Err(reason::HELPER_FAILED) };
    let (serial, ended) = serial(grants.transit(number), slot);
    if ended {
        return Err(reason::GRANT_EXPIRED);
    }
    granted(buffer, domain, serial).map(|()| serial)
}

#[inline(always)]
fn serial(held: Option<&Held>, slot: u64) -> (u16, bool) {
    held.map_or((0, false), |held| (held.serial, slot >= held.ends_slot))
}

/// The key of a domain for a slot.
pub struct EpochKey {
    /// Where it stands in the table.
    pub index: u8,
    /// The key, as it was when it was looked up: another one may take its place at any time.
    pub words: [u64; 2],
    /// One of [`sender`].
    pub sender: u32,
}

/// Finds the key of a domain for a slot of this epoch.
///
/// # Errors
/// There is none, never was one, or the last one has ended.
#[inline(always)]
pub fn epoch_key(
    keys: &'static KeyTable,
    domain: u32,
    epoch: u64,
    slot: u64,
) -> Result<EpochKey, u8> {
    let index = maps::key_index(domain, epoch);
    let entry = maps::key(keys, index);
    if !entry.covers(slot) {
        let ends = maps::ends_slot(keys, domain);
        let ended = ends != 0 && slot >= ends;
        return Err(if ended { reason::EPOCH_EXPIRED } else { reason::KEY_MISSING });
    }
    Ok(EpochKey { index, words: [entry.k0, entry.k1], sender: maps::sender(keys, domain) })
}

impl EpochKey {
    /// The key that MACs of a label's sender are made with.
    ///
    /// # Errors
    /// The key is that of another sender.
    #[inline(always)]
    pub fn of_sender(&self, label: &Label) -> Result<[u64; 2], u8> {
        let [k0, k1] = self.words;
        if self.sender == sender::ALL {
            return Ok([k0, k1]);
        }
        if self.sender == sender::DERIVED {
            let who = mac::sender(label);
            return Ok([govc_sender_key(k0, k1, who, 0), govc_sender_key(k0, k1, who, 1)]);
        }
        if self.sender == sender::ONE | label.subject() {
            Ok([k0, k1])
        } else {
            Err(reason::SENDER_KEY)
        }
    }
}

/// One half of the key of a sender; a global function, as [`crate::decide::govc_walk`] is one.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn govc_sender_key(k0: u64, k1: u64, who: u64, half: u32) -> u64 {
    mac::sender_key_half(k0, k1, who, half)
}
