//! `status`: what is in force, and what it did.

use govc_loader::{
    clock, netdev,
    status::{self, GenerationStatus, HeldStatus, Status},
};

use super::{apply::place, columns, keys::duration, plural};
use crate::{
    arguments::StatusArguments,
    failure::Failure,
    output::{Style, json, line},
    times,
};

/// Keys, bundles and grants that end sooner are shown as a warning.
const ENDS_SOON_S: u64 = 24 * 3600;

pub fn run(arguments: &StatusArguments, style: &Style) -> Result<(), Failure> {
    if arguments.interfaces {
        return interfaces(arguments.instance.json);
    }
    let place = place(&arguments.instance.place);
    let status = status::status(&place)?;
    clock::keep(&place)?;
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
    time(generation, style)?;
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
            style.bad(
                "no key for this moment: nothing labelled passes; `govc keys stage` or `import`",
            )
        } else if keys.ends_in_s < ENDS_SOON_S {
            style.paint(
                "33",
                format!("keys end in {}: `govc keys stage` or `import`", duration(keys.ends_in_s)),
            )
        } else {
            format!("keys for {}", duration(keys.ends_in_s))
        };
        line(&format!("{} {}  {text}", style.bold("domain  "), keys.domain))?;
    }
    for grants in &status.grants {
        let stamps = match held(&grants.stamps, style).as_str() {
            "" => "nothing is stamped".into(),
            serials => format!("stamped under {serials}"),
        };
        let translates = match held(&grants.translates, style).as_str() {
            "" => String::new(),
            serials => format!(", translated under {serials}"),
        };
        line(&format!(
            "{} {}  {stamps}{translates}, {} revoked",
            style.bold("grants  "),
            grants.domain,
            plural(grants.revoked as usize, "serial")
        ))?;
    }
    events(status, style)?;
    pending(status, style)
}

/// What became of events.
fn events(status: &Status, style: &Style) -> Result<(), Failure> {
    let events = status.events;
    line(&format!(
        "{} {} delivered, {} lost to the rate limit ({} a second on each CPU), {} lost to a full ring",
        style.bold("events  "),
        events.delivered,
        events.lost_rate,
        events.rate,
        events.lost_full
    ))?;
    if events.permits && !events.reader {
        let text = "permitted packets are reported and nobody reads: an `observe --permits` was killed; \
                    `govc observe --count 0` turns that off";
        line(&format!("         {}", style.paint("33", text)))?;
    }
    if status.answers_withheld != 0 {
        let withheld = plural(status.answers_withheld as usize, "packet");
        line(&format!("{} {withheld} not answered, too many at once", style.bold("answers ")))?;
    }
    Ok(())
}

/// Serials of grants, with what is to be said of those that are over or end soon.
fn held(grants: &[HeldStatus], style: &Style) -> String {
    let now = times::now();
    let told = grants.iter().map(|held| match held.not_after.checked_sub(now) {
        None => style.bad(format!("{} (over)", held.serial)).to_string(),
        Some(left) if left < ENDS_SOON_S => {
            style.paint("33", format!("{} (ends in {})", held.serial, duration(left))).to_string()
        }
        Some(_) => held.serial.to_string(),
    });
    told.collect::<Vec<_>>().join(", ")
}

/// Until when the policy is good, if a bundle says so.
fn time(generation: &GenerationStatus, style: &Style) -> Result<(), Failure> {
    let Some(not_after) = generation.not_after else { return Ok(()) };
    let until = times::tell(not_after);
    let text = match not_after.checked_sub(times::now()) {
        None => style
            .bad(format!("over since {until}: nothing passes; apply a newer bundle"))
            .to_string(),
        Some(left) if left < ENDS_SOON_S => style
            .paint("33", format!("good until {until}, in {}: apply a newer bundle", duration(left)))
            .to_string(),
        Some(_) => format!("good until {until}"),
    };
    line(&format!("{} {text}", style.bold("bundle  ")))
}

/// What is in force for a trial only.
fn pending(status: &Status, style: &Style) -> Result<(), Failure> {
    let Some(pending) = status.pending else { return Ok(()) };
    let before = super::trial::returns(pending.before);
    let text = match u64::try_from(pending.left_s) {
        Ok(left_s) => {
            format!("to be confirmed: {before} in {} without `govc confirm`", duration(left_s))
        }
        Err(_) => {
            "the time to confirm is over, and who should have restored the old policy was killed: \
                   `govc rollback` or `govc confirm`"
                .to_owned()
        }
    };
    line(&format!("{} {}", style.bold("trial   "), style.paint("33", text)))
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
    line(&style.dim("counted for as long as a rule has been there and has meant the same"))?;
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
