//! The whole run, part by part.

use clap::ValueEnum;

use crate::{
    analysis, collector, editor, egress,
    error::BenchError,
    http, loaded,
    machine::Machine,
    measure::Effort,
    packets,
    progress::Progress,
    report::Report,
    report::Section,
    tables,
    targets::{self, Target},
    tcp, transit,
};

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How long and how often.
    pub effort: Effort,
    /// How often each policy is published.
    pub publications: usize,
}

/// What can be measured alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The cost of a packet, beside floors, nftables, ipset and iptables; compiling
    Packets,
    /// Packets that leave and that pass through
    Egress,
    /// Bulk TCP with labels and without
    Tcp,
    /// A service with declared operations, behind a proxy, and bare
    Http,
    /// `govc observe` under load
    Collector,
    /// What the verifier and the kernel make of the programs
    Programs,
    /// What `govc check` adds to compiling
    Analysis,
    /// How long an editor waits
    Editor,
}

/// What a part has found.
#[derive(Default)]
pub struct Found {
    /// Goals with what came of them.
    pub targets: Vec<Target>,
    /// Tables.
    pub sections: Vec<Section>,
}

impl From<Section> for Found {
    fn from(section: Section) -> Self {
        Self { targets: Vec::new(), sections: vec![section] }
    }
}

/// What a run is about.
pub enum Choice<'a> {
    /// These parts, in this order.
    Parts(&'a [Part]),
    /// Cases of packets whose name contains this.
    Cases(&'a str),
}

/// Measures what is chosen. A part that fails does not take the others along.
///
/// # Errors
/// Somebody wants it to stop.
pub fn run(plan: Plan, choice: Choice<'_>) -> Result<(Report, Vec<BenchError>), BenchError> {
    let progress = &Progress::new();
    let mut failures = Vec::new();
    let sections = match choice {
        Choice::Cases(text) => packets::measure_only(plan, text, progress)?,
        Choice::Parts(parts) => {
            let mut all = Found::default();
            for part in parts {
                match part.measure(plan, progress) {
                    Ok(found) => {
                        all.targets.extend(found.targets);
                        all.sections.extend(found.sections);
                    }
                    Err(BenchError::Interrupted) => return Err(BenchError::Interrupted),
                    Err(error) => failures.push(error),
                }
            }
            let mut sections = vec![tables::method(plan)];
            sections.extend(targets::section(&all.targets));
            sections.extend(all.sections);
            sections
        }
    };
    Ok((Report { machine: Machine::find().to_string(), sections }, failures))
}

impl Part {
    fn measure(self, plan: Plan, progress: &Progress) -> Result<Found, BenchError> {
        match self {
            Self::Packets => packets::measure(plan, progress),
            Self::Egress => {
                let mut sections = vec![egress::measure(plan, progress)?];
                sections.extend(transit::measure(plan, progress)?);
                Ok(Found { targets: Vec::new(), sections })
            }
            Self::Tcp => tcp::measure(plan, progress),
            Self::Http => http::measure(plan, progress),
            Self::Collector => collector::measure(plan, progress),
            Self::Programs => loaded::measure(progress).map(Found::from),
            Self::Analysis => measure_analysis(progress).map(Found::from),
            Self::Editor => measure_editor(progress).map(Found::from),
        }
    }
}

/// By size, then by number of files.
fn measure_editor(progress: &Progress) -> Result<Section, BenchError> {
    let of_size = |rules: usize| {
        progress.say(|| format!("an editor with {rules} rules"));
        editor::FILES.iter().map(|&files| editor::measure(rules, files)).collect()
    };
    let waits: Result<Vec<_>, _> = editor::SIZES.iter().map(|&rules| of_size(rules)).collect();
    Ok(tables::in_an_editor(&waits?))
}

fn measure_analysis(progress: &Progress) -> Result<Section, BenchError> {
    let of_size = |rules: usize| {
        progress.say(|| format!("the analysis of {rules} rules"));
        analysis::measure(rules)
    };
    let judged: Result<Vec<_>, _> = analysis::SIZES.into_iter().map(of_size).collect();
    Ok(tables::analysis(&judged?))
}
