//! `diff`: what changes from one policy to another.

use std::path::Path;

use govc_compiler::analysis::{
    diff::{self, Change, Diff, Kind, Verdict},
    words,
};
use govc_image::{Image, Names};
use govc_loader::instance::Instance;
use serde::Serialize;

use super::{apply::place, columns, inspect::read_image};
use crate::{
    arguments::{Diff as Arguments, Sources},
    failure::Failure,
    input::{self, Analysis, Overlay},
    output::{Style, json, line},
};

/// Exit codes beside 0 for no change; see the help of the command.
const ATTRIBUTED: u8 = 10;
const NARROWED: u8 = 11;
const WIDENED: u8 = 12;

#[derive(Serialize)]
struct Report<'d> {
    changes: Vec<ChangeReport<'d>>,
    complete: bool,
}

#[derive(Serialize)]
struct ChangeReport<'d> {
    change: Kind,
    hook: &'static str,
    traffic: Vec<Cell>,
    old: &'d Verdict,
    new: &'d Verdict,
}

#[derive(Serialize)]
struct Cell {
    attribute: &'static str,
    values: String,
}

/// Compares; how it ends tells whether something widens.
pub fn run(arguments: &Arguments, style: &Style) -> Result<(), Failure> {
    let (old, new) = match (arguments.running, arguments.files.as_slice()) {
        (false, [old, new]) => (read(old, arguments, style)?, read(new, arguments, style)?),
        (true, [new]) => {
            let (_, running) = Instance::open(&place(&arguments.instance))?.active_image()?;
            (running, read(new, arguments, style)?)
        }
        (false, _) => return Err(usage("a comparison takes two files")),
        (true, _) => return Err(usage("with --running, a comparison takes the new file only")),
    };
    let diff = diff::diff(&old, &new).map_err(|error| Failure::Machine {
        message: error.to_string(),
        help: Some("Build both images from the same lock file.".into()),
    })?;
    if arguments.instance.json {
        json(&report(&diff, new.names()))?;
    } else {
        tell(&diff, new.names(), style)?;
    }
    let has = |kind| diff.changes.iter().any(|change| change.kind == kind);
    match () {
        () if has(Kind::Permitted) => Err(Failure::Different(WIDENED)),
        () if diff.incomplete => Err(Failure::Machine {
            message: "the policies differ too much to be compared to the end".into(),
            help: Some("Compare smaller steps.".into()),
        }),
        () if has(Kind::Denied) => Err(Failure::Different(NARROWED)),
        () if has(Kind::Attributed) => Err(Failure::Different(ATTRIBUTED)),
        () => Ok(()),
    }
}

fn usage(message: &str) -> Failure {
    Failure::Usage {
        message: message.into(),
        help: "Write `govc diff OLD NEW`, or `govc diff --running NEW`.".into(),
    }
}

/// Reads an image, or makes one of a source.
fn read(path: &Path, arguments: &Arguments, style: &Style) -> Result<Image, Failure> {
    let is_source = path.extension().is_some_and(|extension| extension == "gov");
    if !is_source {
        return read_image(path);
    }
    let sources = Sources::plain(vec![path.to_path_buf()], arguments.include.clone());
    let mut input = input::read(&sources, false, &Overlay::new(), Analysis::None)?;
    input.report(style)?;
    input.compiled.take().map(|compiled| compiled.image).ok_or(Failure::Told)
}

/// The words for what packets have in common.
fn traffic(change: &Change, names: &Names) -> Vec<Cell> {
    use govc_abi::attribute::{STATE, SUBJECT};
    let subjects = change.cells.iter().find(|(attribute, _)| *attribute == SUBJECT);
    let domain = subjects.and_then(|(_, set)| Some((set.intervals().first()?.0 >> 24) as u32));
    let domain = domain.filter(|domain| names.domain(*domain).is_some()).or(Some(0));
    // Who is named has a label, or a rule that speaks for it.
    let told = |cell: &&(u8, _)| cell.0 != STATE || subjects.is_none();
    let cells = change.cells.iter().filter(told).map(|(attribute, set)| Cell {
        attribute: words::attribute_word(*attribute),
        values: words::values(names, *attribute, domain, set),
    });
    cells.collect()
}

fn report<'d>(diff: &'d Diff, names: &Names) -> Report<'d> {
    let changes = diff.changes.iter().map(|change| ChangeReport {
        change: change.kind,
        hook: words::hook_name(change.hook),
        traffic: traffic(change, names),
        old: &change.old,
        new: &change.new,
    });
    Report { changes: changes.collect(), complete: !diff.incomplete }
}

fn tell(diff: &Diff, names: &Names, style: &Style) -> Result<(), Failure> {
    if diff.changes.is_empty() && !diff.incomplete {
        return line(&format!(
            "{} every packet gets the same verdict by the same rule",
            style.good("ok")
        ));
    }
    let verdict = |verdict: &Verdict| {
        let word = if verdict.permit { "permit" } else { "deny" };
        format!("{word} by {}", verdict.rule.as_deref().unwrap_or("default"))
    };
    let mut rows = vec![["CHANGE", "HOOK", "TRAFFIC", "OLD", "NEW"].map(str::to_owned).to_vec()];
    for change in &diff.changes {
        let word = match change.kind {
            Kind::Permitted => "+ permitted",
            Kind::Denied => "- denied",
            Kind::Attributed => "~ attributed",
        };
        let cells = traffic(change, names);
        let cells = cells.iter().map(|cell| format!("{} {}", cell.attribute, cell.values));
        let text = cells.collect::<Vec<_>>().join("; ");
        rows.push(vec![
            word.to_owned(),
            words::hook_name(change.hook).to_owned(),
            if text.is_empty() { "everything".to_owned() } else { text },
            verdict(&change.old),
            verdict(&change.new),
        ]);
    }
    columns(&rows)
}
