//! Why a packet gets its verdict.

use std::path::{Path, PathBuf};

use govc_abi::attribute::Request;
use govc_compiler::{
    analysis::{
        explain::{self, Explanation, Nearer},
        rule_name,
    },
    checked::{Action, Policy},
    names::place_of,
};
use govc_grammar::Token;
use govc_image::Image;
use serde::Serialize;

use super::captured;
use crate::{
    arguments::{Explain, Sources},
    capture,
    failure::Failure,
    input::{self, Compiled, Input},
    output::{Style, json, line},
    translated::{Becomes, Grants},
};

/// Nearer rules that are told unless all are asked for.
const NEARER_MAX: usize = 5;

/// What was found, for programs.
#[derive(Serialize)]
pub struct Report {
    verdict: &'static str,
    rule: Option<String>,
    /// Some policy speaks about the hook: what no rule decides is denied.
    governed: bool,
    place: Option<String>,
    would: Option<String>,
    passed: Vec<String>,
    nearer: Vec<Nearer>,
    overruled: Vec<String>,
    /// What its label becomes where it leaves; null where it stays what it is.
    becomes: Option<Becomes>,
}

/// Why a packet gets its verdict, and what its label becomes.
pub struct Found {
    pub explanation: Explanation,
    pub becomes: Option<Becomes>,
    /// It passes all the same where the node knows the flow that it answers.
    pub unknown: bool,
}

/// Explains, with what becomes of the label where that is let through.
pub fn find(
    arguments: &Explain,
    (policy, image): (&Policy, &Image),
    at: usize,
    request: &Request,
) -> Result<Found, Failure> {
    let explanation = explain::explain(policy, image.names(), at, request);
    let becomes = if explanation.decision.permit {
        Grants::new(&arguments.transit, image)?.becomes((policy, image), at, request)?
    } else {
        None
    };
    Ok(Found { explanation, becomes, unknown: false })
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
    if capture::is_capture(&path) {
        return captured::tell(arguments, &sources, &path, style);
    }
    let packet =
        if path.is_file() { input::read_source(&path)? } else { in_words(packet)?.to_owned() };
    let packet = packet.trim();
    let (before, behind) = if packet.starts_with("packet") {
        ("test \"explain\" { ", " expect deny }")
    } else {
        ("test \"explain\" { packet { ", " } expect deny }")
    };
    braces_match(packet)?;
    let input = input::read_with_part(&sources, (before, packet, behind))?;
    input.report(style)?;
    let Compiled { policy, image, .. } = input.compiled()?;
    let case = policy.tests().last().and_then(|test| test.cases.first()).ok_or(Failure::Told)?;
    let found = find(arguments, (policy, image), case.hook, &case.request)?;
    show_or_json(arguments, &input, policy, found, style)
}

/// A packet in words; a single word can only have been meant as the name of a file.
fn in_words(packet: &str) -> Result<&str, Failure> {
    let named = Path::new(packet).extension().and_then(|suffix| suffix.to_str());
    let is_name = matches!(named, Some("pcap" | "pcapng" | "cap"));
    if is_name || !packet.trim().contains(char::is_whitespace) {
        return Err(Failure::Usage {
            message: format!("`{packet}` is neither a file nor a packet"),
            help: "Name a capture or a file with a packet, or write `packet { from .. }`.".into(),
        });
    }
    Ok(packet)
}

/// Whether a packet can stand among other text: a brace that it leaves open would be looked for
/// there.
fn braces_match(packet: &str) -> Result<(), Failure> {
    let mut open = 0_usize;
    for (token, _) in govc_grammar::tokens(packet) {
        match token {
            Token::LeftBrace => open += 1,
            Token::RightBrace if open == 0 => {
                return Err(Failure::Usage {
                    message: "the packet closes a brace that it does not open".into(),
                    help: "Write `packet { .. }`.".into(),
                });
            }
            Token::RightBrace => open -= 1,
            _ => {}
        }
    }
    match open {
        0 => Ok(()),
        _ => Err(Failure::Usage {
            message: "the packet does not close its brace".into(),
            help: "Write `packet { .. }`, in quotes for the shell.".into(),
        }),
    }
}

/// Tells what was found, as far as it is asked for.
pub fn show_or_json(
    arguments: &Explain,
    input: &Input,
    policy: &Policy,
    mut found: Found,
    style: &Style,
) -> Result<(), Failure> {
    let nearer = &mut found.explanation.nearer;
    let left = nearer.len().saturating_sub(NEARER_MAX);
    if !arguments.all {
        nearer.truncate(NEARER_MAX);
    }
    let left = if arguments.all { 0 } else { left };
    if arguments.json {
        return json(&report(input, policy, found));
    }
    show(input, policy, &found, left, style)
}

pub fn place(input: &Input, policy: &Policy, position: usize) -> String {
    let span = policy.rules().get(position).map(|rule| rule.head);
    let place = span.and_then(|span| place_of(&input.sources, span));
    place.map(|(file, row, _)| format!("{file}:{row}")).unwrap_or_default()
}

/// What was found, for programs.
pub fn report(input: &Input, policy: &Policy, found: Found) -> Report {
    let name = |position: &usize| rule_name(policy, *position);
    let Found { explanation: found, becomes, unknown } = found;
    Report {
        becomes,
        verdict: match found.decision.permit {
            _ if unknown => "unknown",
            true => "permit",
            false => "deny",
        },
        rule: found.decision.rule.as_ref().map(name),
        governed: found.governed,
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
    Found { explanation: found, becomes, .. }: &Found,
    left: usize,
    style: &Style,
) -> Result<(), Failure> {
    let named = |position: usize| {
        format!("{}  {}", rule_name(policy, position), style.dim(place(input, policy, position)))
    };
    let verdict = if found.decision.permit { style.good("permit") } else { style.bad("deny") };
    match found.decision.rule {
        Some(rule) => line(&format!("{verdict} by {}", named(rule)))?,
        None => line(&format!("{verdict} by default: {}", found.why_default()))?,
    }
    if let Some(becomes) = becomes {
        line(&format!("  {}", becomes.tell()))?;
    }
    if let Some(pending) = found.decision.pending {
        let permits = policy.rules().get(pending).is_some_and(|rule| rule.action == Action::Permit);
        let would = if permits { "permitted" } else { "denied" };
        line(&format!("  would be {would} by this rule, which only observes: {}", named(pending)))?;
    }
    for &position in &found.passed {
        line(&format!("  passed on by {}", named(position)))?;
    }
    for nearer in &found.nearer {
        line(&format!("  not {}", named(nearer.position)))?;
        let more = match nearer.failing {
            0 | 1 => String::new(),
            2 => "; 1 more clause fails".to_owned(),
            failing => format!("; {} more clauses fail", failing - 1),
        };
        line(&format!("      {}{more}", nearer.because))?;
    }
    if left > 0 {
        let text = if left == 1 {
            "1 more rule that comes before does not match; --all tells it".to_owned()
        } else {
            format!("{left} more rules that come before do not match; --all tells them")
        };
        line(&style.dim(format!("  {text}")))?;
    }
    for &position in &found.overruled {
        line(&format!("  matches too, but is overruled: {}", named(position)))?;
    }
    Ok(())
}
