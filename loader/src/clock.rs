//! What the kernel's clock does not tell hooks: by how many seconds TAI is ahead of Unix time.
//!
//! Hooks read the TAI clock, which follows every step and slew of the wall clock. Time services tell the
//! kernel about leap seconds some time after boot, and then TAI leaps where Unix time does not: an
//! offset of before is wrong by 37 seconds from there on, and no hook can know. So it is written anew
//! whenever somebody looks.

use std::mem::offset_of;

use govc_abi::flow::Control;

use crate::{
    error::LoadError,
    instance::{Instance, Place},
    kernel,
};

/// Nanoseconds of a second.
const SECOND_NS: i64 = 1_000_000_000;

/// Writes the offset down if it is another one than at the last apply; the seconds by which Unix time was
/// taken to be ahead of what it is.
///
/// # Errors
/// There is no such instance.
pub fn keep(place: &Place) -> Result<Option<i64>, LoadError> {
    let instance = Instance::open(place)?;
    let before_ns = instance.control().tai_offset_ns;
    let now_ns = kernel::tai_offset_s().saturating_mul(SECOND_NS);
    // Whoever sets the wall clock between two readings makes them differ; the next one says the same.
    if now_ns == before_ns || now_ns != kernel::tai_offset_s().saturating_mul(SECOND_NS) {
        return Ok(None);
    }
    write(&instance, now_ns);
    Ok(Some((before_ns - now_ns) / SECOND_NS))
}

/// Writes the offset of this moment down.
pub(crate) fn set(instance: &Instance) {
    write(instance, kernel::tai_offset_s().saturating_mul(SECOND_NS));
}

fn write(instance: &Instance, offset_ns: i64) {
    // One aligned store, which hooks read as one.
    instance.control.write(0, offset_of!(Control, tai_offset_ns), offset_ns as u64);
}
