//! `status`: what is in force, and what it did.

use govc_loader::{
    netdev,
    status::{self, Status},
};

use super::{apply::place, columns, keys::duration, plural};
use crate::{
    arguments::StatusArguments,
    failure::Failure,
    output::{Style, json, line},
};

/// A domain whose keys end sooner is shown as a warning.
const KEYS_END_SOON_S: u64 = 24 * 3600;

pub fn run(arguments: &StatusArguments, style: &Style) -> Result<(), Failure> {
    if arguments.interfaces {
        return interfaces(arguments.instance.json);
    }
    let status = status::status(&place(&arguments.instance))?;
    if arguments.instance.json {
        return json(&status);
    }
    generation(&status, style)?;
    line("")?;
    rules(&status, style)?;
    reasons(&status, style)
}

fn generation(status: &Status, style: &Style) -> Result<(), Failure> {
    let generation = &status.generation;
    line(&format!(
        "{} {}  {} generation {}, {}, {} KiB, {}",
        style.bold("instance"),
        status.instance,
        style.bold(&generation.policy),
        generation.number,
        plural(generation.rules as usize, "rule"),
        generation.image_len.div_ceil(1024),
        age(generation.published_ns),
    ))?;
    if let Some(earlier) = &status.earlier {
        line(&style.dim(format!(
            "         rollback leads to generation {} of {}",
            earlier.number, earlier.policy
        )))?;
    }
    for interface in &status.interfaces {
        let attached = &interface.attached;
        line(&format!(
            "{} {}  zone {}, {} ({})",
            style.bold("iface   "),
            if attached.interface.is_empty() { "?" } else { &attached.interface },
            interface.zone.as_deref().unwrap_or("none"),
            attached.ingress,
            attached.why,
        ))?;
    }
    for keys in &status.keys {
        let text = if !keys.valid_now {
            style.bad("no key for this moment: nothing passes; run `govc keys stage`")
        } else if keys.ends_in_s < KEYS_END_SOON_S {
            style.paint(
                "33",
                format!("keys end in {}: run `govc keys stage`", duration(keys.ends_in_s)),
            )
        } else {
            format!("keys for {}", duration(keys.ends_in_s))
        };
        line(&format!("{} {}  {text}", style.bold("domain  "), keys.domain))?;
    }
    let events = status.events;
    line(&format!(
        "{} {} delivered, {} lost to the rate limit, {} lost to a full ring",
        style.bold("events  "),
        events.delivered,
        events.lost_rate,
        events.lost_full
    ))
}

fn age(published_ns: u64) -> String {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    format!("in force since {}", duration(now.saturating_sub(published_ns / 1_000_000_000)))
}

fn rules(status: &Status, style: &Style) -> Result<(), Failure> {
    let rows = status.rules.iter().map(|rule| {
        let would =
            if rule.would == 0 { String::new() } else { format!("would decide {}", rule.would) };
        vec![
            rule.packets.to_string(),
            rule.bytes.to_string(),
            rule.action.to_owned(),
            rule.rule.clone(),
            rule.place.clone(),
            would,
        ]
    });
    let head = ["PACKETS", "BYTES", "ACTION", "RULE", "PLACE", ""].map(str::to_owned).to_vec();
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())?;
    line(&style.dim("counted since this generation came into force"))?;
    line("")
}

fn reasons(status: &Status, style: &Style) -> Result<(), Failure> {
    let rows = status.reasons.iter().map(|count| {
        let verdict = match count.permitted {
            Some(true) => "permit",
            Some(false) => "deny",
            None => "",
        };
        vec![
            count.packets.to_string(),
            count.bytes.to_string(),
            verdict.to_owned(),
            format!("{} {}", count.hook, count.reason),
        ]
    });
    let head = ["PACKETS", "BYTES", "VERDICT", "HOOK AND REASON"].map(str::to_owned).to_vec();
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())?;
    line(&style.dim("counted since the instance began"))
}

fn interfaces(as_json: bool) -> Result<(), Failure> {
    let devices = netdev::list()?;
    if as_json {
        return json(&devices);
    }
    let rows = devices.iter().map(|device| {
        vec![
            device.name.clone(),
            device.mtu.to_string(),
            device.kind.clone().unwrap_or_else(|| "hardware".into()),
        ]
    });
    let head = ["INTERFACE", "MTU", "KIND"].map(str::to_owned).to_vec();
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
