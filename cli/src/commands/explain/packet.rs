//! Why a packet gets its verdict.

use std::{fs, path::PathBuf};

use govc_compiler::{
    analysis::{
        explain::{self, Explanation, Nearer},
        rule_name,
    },
    checked::Policy,
    names::place_of,
};
use serde::Serialize;

use crate::{
    arguments::{Explain, Sources},
    failure::Failure,
    input::{self, Compiled, Input},
    output::{Style, json, line},
};

/// Nearer rules that are told unless all are asked for.
const NEARER_MAX: usize = 5;

#[derive(Serialize)]
struct Report {
    verdict: &'static str,
    rule: Option<String>,
    place: Option<String>,
    would: Option<String>,
    passed: Vec<String>,
    nearer: Vec<Nearer>,
    overruled: Vec<String>,
}

/// Decides a packet that is given in words or in a file, and tells why.
pub fn tell(
    arguments: &Explain,
    files: &[String],
    packet: &str,
    style: &Style,
) -> Result<(), Failure> {
    let files = files.iter().map(PathBuf::from).collect();
    let sources = Sources::plain(files, arguments.include.clone());
    let path = PathBuf::from(packet);
    let packet = if path.is_file() {
        fs::read_to_string(&path).map_err(input::file("read", &path))?
    } else {
        packet.to_owned()
    };
    let packet = packet.trim();
    let packet = if packet.starts_with("packet") {
        packet.to_owned()
    } else {
        format!("packet {{ {packet} }}")
    };
    let item = format!("test \"explain\" {{ {packet} expect deny }}");
    let input = input::read_with_item(&sources, &item)?;
    input.report(style)?;
    let Compiled { policy, image, .. } = input.compiled()?;
    let case = policy.tests().last().and_then(|test| test.cases.first()).ok_or(Failure::Told)?;
    let names = image.names();
    let mut found = explain::explain(policy, names, case.hook, &case.request);
    let left = found.nearer.len().saturating_sub(NEARER_MAX);
    if !arguments.all {
        found.nearer.truncate(NEARER_MAX);
    }
    let left = if arguments.all { 0 } else { left };
    if arguments.json {
        return json(&report(&input, policy, found));
    }
    show(&input, policy, &found, left, style)
}

fn place(input: &Input, policy: &Policy, position: usize) -> String {
    let span = policy.rules().get(position).map(|rule| rule.head);
    let place = span.and_then(|span| place_of(&input.sources, span));
    place.map(|(file, row, _)| format!("{file}:{row}")).unwrap_or_default()
}

fn report(input: &Input, policy: &Policy, found: Explanation) -> Report {
    let name = |position: &usize| rule_name(policy, *position);
    Report {
        verdict: if found.decision.permit { "permit" } else { "deny" },
        rule: found.decision.rule.as_ref().map(name),
        place: found.decision.rule.map(|position| place(input, policy, position)),
        would: found.decision.pending.as_ref().map(name),
        passed: found.passed.iter().map(name).collect(),
        overruled: found.overruled.iter().map(name).collect(),
        nearer: found.nearer,
    }
}

fn show(
    input: &Input,
    policy: &Policy,
    found: &Explanation,
    left: usize,
    style: &Style,
) -> Result<(), Failure> {
    let named = |position: usize| {
        format!("{}  {}", rule_name(policy, position), style.dim(place(input, policy, position)))
    };
    let verdict = if found.decision.permit { style.good("permit") } else { style.bad("deny") };
    match found.decision.rule {
        Some(rule) => line(&format!("{verdict} by {}", named(rule)))?,
        None => line(&format!("{verdict} by default: no rule that decides matches the packet"))?,
    }
    if let Some(pending) = found.decision.pending {
        line(&format!("  would be decided by {}, which only observes", named(pending)))?;
    }
    for &position in &found.passed {
        line(&format!("  passed on by {}", named(position)))?;
    }
    for nearer in &found.nearer {
        line(&format!("  not {}", named(nearer.position)))?;
        let more = if nearer.failing > 1 {
            format!(" (and {} more)", nearer.failing - 1)
        } else {
            String::new()
        };
        line(&format!("      {}{more}", nearer.because))?;
    }
    if left > 0 {
        line(&style.dim(format!("  and {left} more that come before; --all tells them")))?;
    }
    for &position in &found.overruled {
        line(&format!("  matches too, but comes later: {}", named(position)))?;
    }
    Ok(())
}
