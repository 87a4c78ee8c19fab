//! What govc set out to reach.

use crate::{cells::strings, report::Section};

/// A goal and what came of it.
pub struct Target {
    /// Of what.
    pub what: String,
    /// The goal.
    pub wanted: String,
    /// The measurement.
    pub found: String,
    /// Whether the one meets the other.
    pub met: bool,
}

/// All of them; [`None`] when nothing was set.
pub fn section(targets: &[Target]) -> Option<Section> {
    if targets.is_empty() {
        return None;
    }
    let row = |target: &Target| {
        let Target { what, wanted, found, met } = target;
        let verdict = if *met { "met" } else { "missed" };
        vec![what.clone(), wanted.clone(), found.clone(), verdict.to_owned()]
    };
    Some(Section {
        title: "Targets",
        notes: vec![
            "Times of packets at 100,000 rules, the worst of tcx and XDP, IPv4 and IPv6, over an \
             empty program."
                .to_owned(),
        ],
        head: strings(["target", "wanted", "measured", ""]),
        rows: targets.iter().map(row).collect(),
    })
}
