//! Stopping early, with everything cleaned up.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{BenchError, io};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP are heeded at the next [`check`].
pub fn listen() -> Result<(), BenchError> {
    ctrlc::set_handler(|| INTERRUPTED.store(true, Ordering::Relaxed))
        .map_err(|error| io("listen for signals")(std::io::Error::other(error)))
}

/// Fails once somebody wants it to stop; on the way out everything is dropped.
pub fn check() -> Result<(), BenchError> {
    if INTERRUPTED.load(Ordering::Relaxed) { Err(BenchError::Interrupted) } else { Ok(()) }
}
