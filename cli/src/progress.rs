//! Telling people how far long work is, on a terminal; nothing in pipes.

use std::{io::IsTerminal as _, time::Duration};

use indicatif::{ProgressBar, ProgressStyle};

/// From so many rules on it is worth it.
const RULES_MANY: usize = 2_000;

/// A bar over rules.
pub fn rules(what: &'static str, rules: usize) -> ProgressBar {
    if rules < RULES_MANY || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(rules as u64);
    let template = "{msg} {bar:40} {pos}/{len} rules, {eta}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
