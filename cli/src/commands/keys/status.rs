//! `keys status`: what may be told about keys.

use govc_loader::keyring::{DomainKeys, KeyRing, Origin, Senders, slot_now};
use serde::Serialize;

use super::{super::columns, duration};
use crate::{
    failure::Failure,
    output::{Style, json},
    times,
};

#[derive(Serialize)]
pub struct DomainReport {
    domain: String,
    number: u16,
    epoch_seconds: u64,
    epochs: usize,
    /// `all`, `each`, or `one` with a subject.
    senders: Senders,
    /// `made` here, or `imported`.
    origin: Origin,
    sequence: u64,
    /// Whether the file is sealed at rest.
    sealed: bool,
    ends_in_s: u64,
    /// Unix time of the last second that has a key.
    ends: u64,
}

pub fn report(keys: &DomainKeys) -> DomainReport {
    let now = slot_now();
    let end = keys.epochs().map(|epoch| epoch.not_after_slot).max().unwrap_or(now);
    DomainReport {
        domain: keys.domain.clone(),
        number: keys.number,
        epoch_seconds: 2 << keys.epoch_shift,
        epochs: keys.epochs().count(),
        senders: keys.senders,
        origin: keys.origin,
        sequence: keys.sequence(),
        sealed: keys.sealed,
        ends_in_s: end.saturating_sub(now) * 2,
        ends: (end * 2).saturating_sub(1),
    }
}

pub fn tell_json(keys: &DomainKeys) -> Result<(), Failure> {
    json(&report(keys))
}

pub fn run(ring: &KeyRing, as_json: bool, style: &Style) -> Result<(), Failure> {
    let reports: Vec<DomainReport> = ring.list()?.iter().map(report).collect();
    if as_json {
        return json(&reports);
    }
    let head = ["DOMAIN", "NUMBER", "SENDERS", "MADE", "EPOCHS", "EPOCH", "AT REST", "KEYS UNTIL"]
        .map(str::to_owned)
        .to_vec();
    let rows = reports.iter().map(|report| {
        vec![
            report.domain.clone(),
            report.number.to_string(),
            match report.senders {
                Senders::All => "all".into(),
                Senders::Each => "each".into(),
                Senders::One(subject) => format!("subject {subject}"),
            },
            match report.origin {
                Origin::Made => "here".into(),
                Origin::Imported => "elsewhere".into(),
            },
            report.epochs.to_string(),
            duration(report.epoch_seconds),
            if report.sealed { "sealed".into() } else { style.paint("33", "open") },
            match report.ends_in_s {
                0 => style.bad("ended: all labels are refused; stage or import keys"),
                left => format!("{}, in {}", times::tell(report.ends), duration(left)),
            },
        ]
    });
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
