//! What is going on, for people who watch.

use std::io::{IsTerminal as _, Write as _};

/// Tells on standard error when that is a terminal.
pub struct Progress {
    shown: bool,
}

impl Progress {
    /// Looks whether anybody can see it.
    pub fn new() -> Self {
        Self { shown: std::io::stderr().is_terminal() }
    }

    /// Replaces what was said before.
    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", text());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.say(String::new);
    }
}
