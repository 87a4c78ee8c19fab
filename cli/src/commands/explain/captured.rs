//! The packets of a capture: what becomes of them, and why.

use std::path::{Path, PathBuf};

use govc_abi::{
    attribute::{self, Request, state},
    event::hook,
    image::program,
    node::LEAF_NONE,
    reason,
};
use govc_compiler::{
    analysis::{rule_name, words},
    checked::{Action, Policy},
    interpret, testing,
};
use govc_image::Image;
use govc_loader::keyring::KeyRing;
use serde::Serialize;

use super::packet;
use crate::{
    arguments::{Explain, PolicyHook, Sources},
    capture::{self, Captured, Flows, Place},
    commands::columns,
    failure::Failure,
    input::{self, Analysis, Compiled, Input, Overlay},
    output::{Style, json, line},
    ring,
    translated::{Becomes, Grants},
};

const EGRESS: usize = hook::EGRESS as usize;

/// What becomes of a packet.
#[derive(Serialize)]
struct Row {
    number: usize,
    /// In the words of the language, as far as it got that far.
    packet: Option<String>,
    /// `permit`, `deny`, or `unknown` where that depends on what the capture does not hold.
    verdict: &'static str,
    /// What a rule that only observes would do.
    would: Option<&'static str>,
    /// That rule.
    would_rule: Option<String>,
    /// A rule, `default`, or a reason that is none of the policy's.
    by: String,
    place: Option<String>,
    /// The reason, where it is no rule that decides.
    #[serde(skip)]
    reason: Option<u8>,
    /// What its label becomes where it leaves; null where it stays what it is.
    becomes: Option<Becomes>,
    /// What the capture does not tell, and is taken to be so: `mac`, that labels are genuine; `flow`, that
    /// the node does not know the flow that the packet answers.
    assumes: Vec<&'static str>,
}

/// Tells about all packets of a capture, or explains one.
pub fn tell(
    arguments: &Explain,
    sources: &Sources,
    path: &Path,
    style: &Style,
) -> Result<(), Failure> {
    let input = input::read(sources, false, &Overlay::new(), Analysis::None)?;
    input.report(style)?;
    let Compiled { policy, image, .. } = input.compiled()?;
    let captured = capture::read(path)?;
    let open = |dir: &PathBuf| ring::open_at(dir, arguments.ring_identity.as_deref());
    let ring = arguments.keys.as_ref().map(open);
    // A ring that cannot be read is no ring without keys.
    ring.as_ref().map(KeyRing::list).transpose()?;
    let only = u32::from(image.names().zones.len() == 1);
    let own = zone(arguments.zone.as_ref(), image)?.unwrap_or(only);
    let other = zone(arguments.to_zone.as_ref(), image)?.unwrap_or(0);
    let (hook, from_zone, to_zone) = match arguments.on {
        PolicyHook::Ingress => (0, own, 0),
        PolicyHook::Egress => (1, 0, own),
        PolicyHook::Forward => (2, own, other),
    };
    let place = Place { image, hook, from_zone, to_zone, keys: ring.as_ref() };
    if let Some(number) = arguments.packet.filter(|number| !(1..=captured.len()).contains(number)) {
        return Err(Failure::Usage {
            message: format!("there is no packet {number}"),
            help: format!("The capture has {} packets, counted from 1.", captured.len()),
        });
    }
    // What a packet is may depend on those before it.
    let looked_at = captured.get(..arguments.packet.unwrap_or(captured.len())).unwrap_or_default();
    let mut flows = Flows::default();
    let grants = Grants::new(&arguments.transit, image)?;
    let mut rows: Vec<Row> = (1..)
        .zip(looked_at)
        .map(|(number, one)| {
            let mut row = row(&input, (arguments, policy), number, (one, &place), &mut flows)?;
            row.leave(&grants, (policy, &place), one)?;
            Ok::<_, Failure>(row)
        })
        .collect::<Result<_, _>>()?;
    match (arguments.packet, looked_at.last(), rows.pop()) {
        (Some(_), Some(one), Some(row)) => {
            explain_one(arguments, &input, (one, &place), row, style)
        }
        (_, _, last) => {
            rows.extend(last);
            list(arguments, rows, style)
        }
    }
}

/// Tells what becomes of each packet.
fn list(arguments: &Explain, rows: Vec<Row>, style: &Style) -> Result<(), Failure> {
    if arguments.json {
        return json(&rows);
    }
    // Most policies have no rule that only observes.
    let pending = rows.iter().any(|row| row.would.is_some());
    let head = ["#", "VERDICT", "PENDING", "BY", "AT", "PACKET"].into_iter();
    let head = head.filter(|title| pending || *title != "PENDING").map(str::to_owned);
    let mut table = vec![head.collect::<Vec<_>>()];
    let assumed = |what: &str| rows.iter().any(|row| row.assumes.contains(&what));
    let notes = [
        ("mac", "labels are taken to be genuine: --keys verifies them"),
        (
            "flow",
            "unknown: these answer flows that the capture does not have, and pass where the node knew them; \
             with --complete there is none such",
        ),
    ];
    let notes: Vec<&str> = notes.iter().filter(|(what, _)| assumed(what)).map(|n| n.1).collect();
    for row in rows {
        let verdict = match row.verdict {
            "permit" => style.good("permit").to_string(),
            "unknown" => style.paint("33", "unknown").to_string(),
            _ => style.bad("deny").to_string(),
        };
        let place = row.place.unwrap_or_default();
        let packet = row.packet.unwrap_or_default();
        let becomes = row.becomes.filter(|becomes| becomes.refused().is_none());
        let becomes = becomes.map(|becomes| format!(", {}", becomes.tell()));
        let packet = format!("{packet}{}", becomes.unwrap_or_default());
        let mut cells = vec![row.number.to_string(), verdict];
        if pending {
            let rule = row.would_rule.map(|rule| format!(" by {rule}")).unwrap_or_default();
            cells.push(row.would.map(|would| format!("{would}{rule}")).unwrap_or_default());
        }
        cells.extend([row.by, place, packet]);
        table.push(cells);
    }
    columns(&table)?;
    notes.into_iter().try_for_each(|note| line(&style.dim(note).to_string()))
}

fn zone(wanted: Option<&String>, image: &Image) -> Result<Option<u32>, Failure> {
    let zones = &image.names().zones;
    let Some(wanted) = wanted else { return Ok(None) };
    let found = zones.iter().position(|zone| zone.name == *wanted);
    found.map(|at| Some(at as u32 + 1)).ok_or_else(|| Failure::Usage {
        message: format!("the policy has no zone `{wanted}`"),
        help: match zones.iter().map(|zone| zone.name.as_str()).collect::<Vec<_>>() {
            names if names.is_empty() => "It has none.".into(),
            names => format!("It has {}.", names.join(", ")),
        },
    })
}

fn row(
    input: &Input,
    (arguments, policy): (&Explain, &Policy),
    number: usize,
    (one, place): (&Captured, &Place<'_>),
    flows: &mut Flows,
) -> Result<Row, Failure> {
    let of_reason = |packet, number_of: u8, verdict| Row {
        number,
        packet,
        verdict,
        would: None,
        would_rule: None,
        by: capture::reason_name(number_of).into_owned(),
        place: None,
        reason: Some(number_of),
        becomes: None,
        assumes: Vec::new(),
    };
    let asked = match one.asked(place) {
        Ok(asked) => asked,
        Err(reason::LINK_CONTROL) => {
            return Ok(of_reason(None, reason::LINK_CONTROL, "permit"));
        }
        Err(reason) => return Ok(of_reason(None, reason, "deny")),
    };
    let words = words::packet(place.image.names(), Some(policy), asked.hook, &asked.request);
    if place.hook != EGRESS && is_foreign(place, &asked.request) {
        return Ok(of_reason(Some(words), reason::DOMAIN_FOREIGN, "deny"));
    }
    let mut assumes = Vec::new();
    if place.keys.is_none() && asked.trusts_a_mac() {
        assumes.push("mac");
    }
    if flows.answered(&asked, place.image) {
        return Ok(Row { assumes, ..of_reason(Some(words), reason::REPLY, "permit") });
    }
    let decision = decide(input, asked.hook, &asked.request)?;
    let may_be_known = asked.may_answer(place.image) && !arguments.complete;
    if may_be_known {
        assumes.push("flow");
    }
    let rule = decision.rule;
    // Why a packet that is no whole one is denied where no rule permits it.
    let default = asked.refused.map_or("default".into(), capture::reason_name);
    Ok(Row {
        number,
        packet: Some(words),
        verdict: match decision.permit {
            true => "permit",
            false if may_be_known => "unknown",
            false => "deny",
        },
        would: decision.pending.and_then(|position| would(policy, position)),
        would_rule: decision.pending.map(|position| rule_name(policy, position)),
        reason: None,
        becomes: None,
        assumes,
        by: rule.map_or_else(|| default.into_owned(), |rule| rule_name(policy, rule)),
        place: rule.map(|rule| packet::place(input, policy, rule)),
    })
}

/// What a rule that only observes would do.
fn would(policy: &Policy, position: usize) -> Option<&'static str> {
    match policy.rules().get(position)?.action {
        Action::Permit => Some("permit"),
        Action::Deny => Some("deny"),
        _ => None,
    }
}

/// Whether labels of this domain leave translated by the zone that this one came in by: none comes in there.
fn is_foreign(place: &Place<'_>, request: &Request) -> bool {
    if request.scalars.get(usize::from(attribute::STATE)) != Some(&state::VALID) {
        return false;
    }
    let mut leaving = *request;
    if let Some(zone) = leaving.scalars.get_mut(usize::from(attribute::EGRESS_ZONE)) {
        *zone = place.from_zone;
    }
    let winner = place.image.decide(program::TRANSLATE, &leaving).winner;
    let mut translations = place.image.translations();
    winner != LEAF_NONE
        && translations.nth(winner as usize).is_some_and(|found| found.from != found.to)
}

impl Row {
    /// What becomes of a packet that passes through where it leaves: its label may be refused there.
    fn leave(
        &mut self,
        grants: &Grants,
        (policy, place): (&Policy, &Place<'_>),
        one: &Captured,
    ) -> Result<(), Failure> {
        // Nothing is translated unless the policy does.
        if place.image.translations().len() == 0 || self.verdict == "deny" {
            return Ok(());
        }
        let Ok(asked) = one.asked(place) else { return Ok(()) };
        self.becomes = grants.becomes((policy, place.image), asked.hook, &asked.request)?;
        if let Some(refused) = self.becomes.as_ref().and_then(Becomes::refused) {
            self.verdict = "deny";
            refused.clone_into(&mut self.by);
            self.place = None;
            (self.would, self.would_rule) = (None, None);
        }
        Ok(())
    }
}

/// By the interpreter and by the image, which have to agree.
fn decide(input: &Input, hook: usize, request: &Request) -> Result<interpret::Decision, Failure> {
    let Compiled { policy, table, image } = input.compiled()?;
    let decision = interpret::decide(policy, hook, request);
    if testing::decision_of_image(table, image, hook, request) != decision {
        return Err(Failure::Refused {
            message: "the image decides otherwise than the reference interpreter".into(),
            help: Some(
                "This is a mistake in govc: please report it with policy and capture.".into(),
            ),
        });
    }
    Ok(decision)
}

/// Tells why a packet gets the verdict that the list has.
fn explain_one(
    arguments: &Explain,
    input: &Input,
    (one, place): (&Captured, &Place<'_>),
    row: Row,
    style: &Style,
) -> Result<(), Failure> {
    let Compiled { policy, image, .. } = input.compiled()?;
    let refused = row.becomes.as_ref().filter(|becomes| becomes.refused().is_some());
    let text = match (row.reason, refused) {
        (Some(number), _) => {
            Some(reason::TEXTS.get(usize::from(number)).copied().unwrap_or_default().to_owned())
        }
        (None, Some(becomes)) => Some(becomes.tell()),
        (None, None) => None,
    };
    if let (false, Some(words)) = (arguments.json, &row.packet) {
        line(&style.dim(words).to_string())?;
    }
    // No rule is asked: the packet is not read so far, or something else speaks for it or against it.
    let asked = match (text, one.asked(place)) {
        (None, Ok(asked)) => asked,
        (text, _) => {
            let (verdict, by, text) = (row.verdict, row.by, text.unwrap_or_default());
            if arguments.json {
                return json(
                    &serde_json::json!({ "verdict": verdict, "reason": by, "text": text }),
                );
            }
            let word = if verdict == "permit" { style.good(verdict) } else { style.bad(verdict) };
            return line(&format!("{word} by {by}: {text}"));
        }
    };
    if !arguments.json && asked.may_answer(image) {
        let text = if row.verdict == "unknown" {
            "unknown: where the node knows the flow that it answers, it passes without a rule; otherwise:"
        } else {
            "it may answer: where the node knows its flow, it passes without a rule"
        };
        line(&style.dim(text).to_string())?;
    }
    let mut found = packet::find(arguments, (policy, image), asked.hook, &asked.request)?;
    found.unknown = row.verdict == "unknown";
    packet::show_or_json(arguments, input, policy, found, style)
}
