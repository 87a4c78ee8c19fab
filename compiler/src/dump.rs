//! Readable forms of stages, for `govc check --emit` and for comparing in tests.

use std::fmt::Write as _;

use govc_abi::{attribute, image::program};

use crate::table::{DecisionTable, IntervalSet, Row};

impl DecisionTable {
    /// The table as text: programs, groups, rows.
    #[must_use]
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for (name, decision) in program::NAMES.iter().zip(&self.programs) {
            let governed = if decision.governed { ", governed" } else { "" };
            let _ = writeln!(text, "program {name}{governed}");
            for (number, group) in decision.groups.iter().enumerate() {
                for (kind, rows) in [("", &group.enforced), (", observed", &group.observed)] {
                    if !rows.is_empty() {
                        let _ = writeln!(text, "  group {number}{kind}");
                    }
                    for row in rows {
                        let _ = writeln!(text, "    {}", dump_row(row));
                    }
                }
            }
        }
        text
    }
}

fn dump_row(row: &Row) -> String {
    let cells = row.cells.iter().map(|(attribute, set)| {
        let name = attribute::NAMES.get(usize::from(*attribute)).copied().unwrap_or("?");
        format!("{name} {}", dump_set(set))
    });
    let cells: Vec<String> = cells.collect();
    if cells.is_empty() {
        format!("{}: anything", row.value)
    } else {
        format!("{}: {}", row.value, cells.join(", "))
    }
}

/// Intervals that a dump shows of one set.
const INTERVALS_SHOWN: usize = 8;

fn dump_set(set: &IntervalSet) -> String {
    let shown = set.intervals().iter().take(INTERVALS_SHOWN).map(|&(first, last)| {
        if first == last { format!("{first:#x}") } else { format!("{first:#x}..{last:#x}") }
    });
    let mut parts: Vec<String> = shown.collect();
    let left = set.intervals().len().saturating_sub(INTERVALS_SHOWN);
    if left > 0 {
        parts.push(format!("{left} more"));
    }
    format!("{{{}}}", parts.join(" "))
}
