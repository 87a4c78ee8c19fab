//! Two things at a time. What is computed does not depend on it.

use std::thread;

/// Does both: on two threads, unless the system refuses one.
pub(crate) fn join<A, B: Send>(one: impl FnOnce() -> A, other: impl Fn() -> B + Sync) -> (A, B) {
    thread::scope(|scope| {
        let Ok(thread) = thread::Builder::new().spawn_scoped(scope, &other) else {
            return (one(), other());
        };
        let first = one();
        match thread.join() {
            Ok(second) => (first, second),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
