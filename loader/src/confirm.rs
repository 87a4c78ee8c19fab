//! Policies that go back unless somebody confirms them.
//!
//! What waits to be confirmed is noted in a directory among the pins, so that it outlives the
//! process that applied: `confirm/<generation before>-<deadline>`, and `confirm/had-<index>` for each
//! interface that was enforced on before. Confirming and going back both begin by renaming that
//! directory, so that one of them wins.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::{
    attach,
    error::{LoadError, file},
    instance::{Instance, Place},
    publish, set, status,
};

const MARK: &str = "confirm";
const CONFIRMED: &str = "confirmed";
const RESTORING: &str = "restoring";
const HAD: &str = "had-";

/// What is in force for a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pending {
    /// The generation that returns; 0 when nothing was enforced before.
    pub before: u64,
    /// Seconds until it does; negative when it should have.
    pub left_s: i64,
}

/// How a trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody confirmed, or went back already.
    Ended,
    /// The time was over: what was before is back.
    Restored,
}

/// Seconds since boot: a clock that nobody sets.
fn now_s() -> i64 {
    clock_gettime(ClockId::Boottime).tv_sec
}

/// What waits to be confirmed, if anything does.
#[must_use]
pub fn pending(place: &Place) -> Option<Pending> {
    [MARK, RESTORING].iter().find_map(|name| {
        let entries = fs::read_dir(place.pin(name)).ok()?;
        entries.flatten().find_map(|entry| {
            let name = entry.file_name();
            let (before, deadline) = name.to_str()?.split_once('-')?;
            let deadline: i64 = deadline.parse().ok()?;
            Some(Pending { before: before.parse().ok()?, left_s: deadline - now_s() })
        })
    })
}

/// Whether something unconfirmed is in force: an apply on top of it would leave nothing to return
/// to.
pub(crate) fn refuse_apply(place: &Place) -> Result<(), LoadError> {
    let Some(pending) = pending(place) else { return Ok(()) };
    if active(place) == pending.before {
        return Ok(());
    }
    Err(LoadError::Unconfirmed { instance: place.name().into() })
}

fn active(place: &Place) -> u64 {
    Instance::open(place).map_or(0, |instance| instance.control().active >> 1)
}

/// Notes what is in force now as what to return to, before an apply changes it.
///
/// # Errors
/// Something waits already, or the note cannot be made.
pub fn arm(place: &Place, timeout: Duration) -> Result<Pending, LoadError> {
    let _lock = place.lock()?;
    if pending(place).is_some() {
        return Err(LoadError::Unconfirmed { instance: place.name().into() });
    }
    disarm(place)?;
    let mark = place.pin(MARK);
    let make = |path: PathBuf| fs::create_dir(&path).map_err(file("cannot note", path));
    make(mark.clone())?;
    for one in attach::attached(place)? {
        make(mark.join(format!("{HAD}{}", one.index)))?;
    }
    let left_s = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX / 2);
    let before = active(place);
    // Last: a note without it is none.
    make(mark.join(format!("{before}-{}", now_s() + left_s)))?;
    Ok(Pending { before, left_s })
}

/// Begins to count the time of a trial: what was applied is in force.
///
/// # Errors
/// The trial has been ended while it was applied.
pub fn start(place: &Place, timeout: Duration) -> Result<Pending, LoadError> {
    let nothing = || LoadError::NothingToConfirm(place.name().into());
    let Pending { before, .. } = pending(place).ok_or_else(nothing)?;
    let left_s = i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX / 2);
    let mark = place.pin(MARK);
    let entry = format!("{before}-{}", now_s() + left_s);
    let earlier: Vec<PathBuf> = fs::read_dir(&mark)
        .map_err(|_| nothing())?
        .flatten()
        .filter(|known| {
            let name = known.file_name();
            let name = name.to_string_lossy();
            name != entry.as_str() && !name.starts_with(HAD)
        })
        .map(|known| known.path())
        .collect();
    match fs::create_dir(mark.join(&entry)) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(nothing()),
        _ => {}
    }
    for path in earlier {
        remove(path)?;
    }
    Ok(Pending { before, left_s })
}

/// Takes the note of [`arm`] back: the apply did not happen.
///
/// # Errors
/// It cannot be removed.
pub fn disarm(place: &Place) -> Result<(), LoadError> {
    for name in [MARK, CONFIRMED, RESTORING] {
        remove(place.pin(name))?;
    }
    Ok(())
}

fn remove(path: PathBuf) -> Result<(), LoadError> {
    match fs::remove_dir_all(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(file("cannot remove", path)(error))
        }
        _ => Ok(()),
    }
}

/// What this process may not see it must not take for not there.
fn may_look(place: &Place) -> Result<(), LoadError> {
    set::list(place).map(drop)
}

/// Keeps what is in force.
///
/// # Errors
/// Nothing waits, or it is not in force yet.
pub fn confirm(place: &Place) -> Result<(), LoadError> {
    may_look(place)?;
    let nothing = || LoadError::NothingToConfirm(place.name().into());
    if pending(place).is_none_or(|pending| pending.before == active(place)) {
        return Err(nothing());
    }
    let confirmed = place.pin(CONFIRMED);
    fs::rename(place.pin(MARK), &confirmed).map_err(|_| nothing())?;
    remove(confirmed)
}

/// Returns to what was in force before: the generation, and the interfaces.
///
/// # Errors
/// Nothing waits, or the kernel refuses.
pub fn restore(place: &Place) -> Result<Pending, LoadError> {
    may_look(place)?;
    let nothing = || LoadError::NothingToConfirm(place.name().into());
    let pending = pending(place).ok_or_else(nothing)?;
    let restoring = place.pin(RESTORING);
    // Whoever restored before may have been killed on the way.
    if !restoring.exists() {
        fs::rename(place.pin(MARK), &restoring).map_err(|_| nothing())?;
    }
    if pending.before == 0 {
        undo(place, 0)?;
        disarm(place)?;
        return Ok(pending);
    }
    undo(place, pending.before)?;
    let new: Vec<String> = attach::attached(place)?
        .into_iter()
        .filter(|one| !restoring.join(format!("{HAD}{}", one.index)).exists())
        .map(|one| one.interface)
        .filter(|name| !name.is_empty())
        .collect();
    if !new.is_empty() {
        status::detach(place, &new)?;
    }
    disarm(place)?;
    Ok(pending)
}

/// Puts a generation in force again, or ends enforcement when that is 0.
///
/// # Errors
/// As [`restore`].
pub fn undo(place: &Place, before: u64) -> Result<(), LoadError> {
    if before != 0 {
        return publish::return_to(place, before).map(drop);
    }
    if place.exists() { status::detach(place, &[]).map(drop) } else { Ok(()) }
}

/// Waits until a trial ends, and restores when its time is over, or at once when `hurry` is set.
/// What the kernel refuses now is tried again: it may give in, and nobody else would try.
#[must_use]
pub fn watch(place: &Place, hurry: &AtomicBool) -> Outcome {
    const LOOK_EVERY: Duration = Duration::from_millis(200);
    loop {
        let Some(pending) = pending(place) else { return Outcome::Ended };
        if pending.left_s <= 0 || hurry.load(Ordering::SeqCst) {
            match restore(place) {
                Ok(_) => return Outcome::Restored,
                // Confirmed in this very moment.
                Err(LoadError::NothingToConfirm(_)) => return Outcome::Ended,
                Err(error) => tracing::warn!(%error, "cannot restore yet"),
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
