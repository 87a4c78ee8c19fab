//! `keys`: the local key ring.

use govc_loader::{
    instance::Place,
    keyring::{DomainKeys, KeyRing, slot_now},
    publish,
};
use serde::Serialize;

use super::columns;
use crate::{
    arguments::Keys,
    failure::Failure,
    output::{Style, json, line},
};

pub fn run(command: Keys, style: &Style) -> Result<(), Failure> {
    match command {
        Keys::New { domain, number, epoch_shift, staged, ring } => {
            let ring = KeyRing::new(ring.keys);
            if ring.read(number)?.is_some() {
                return Err(Failure::Usage {
                    message: format!("domain {number} has keys already"),
                    help:
                        "Add epochs with `govc keys stage`; to begin anew remove the file, which \
                           makes all labels in flight worthless."
                            .into(),
                });
            }
            let keys = DomainKeys::generate(&domain, number, epoch_shift, staged)?;
            ring.write(&keys)?;
            line(&format!(
                "{} {} epochs for domain `{domain}` ({number}) in {}",
                style.good("made"),
                keys.epochs().count(),
                ring.dir().display()
            ))
        }
        Keys::Stage { staged, ring, instance } => {
            let ring = KeyRing::new(ring.keys);
            for mut keys in ring.list()? {
                let added = keys.stage(slot_now(), staged)?;
                ring.write(&keys)?;
                line(&format!("{}: {added} epochs added", keys.domain))?;
            }
            let place = Place::new(&instance.bpffs, &instance.instance);
            if place.exists() {
                publish::refresh_keys(&place, &ring)?;
                line(&format!("instance `{}` has them", place.name()))?;
            }
            Ok(())
        }
        Keys::List { ring, json: as_json } => list(&KeyRing::new(ring.keys), as_json),
    }
}

#[derive(Serialize)]
struct DomainReport {
    domain: String,
    number: u16,
    epoch_seconds: u64,
    epochs: usize,
    ends_in_s: u64,
}

fn list(ring: &KeyRing, as_json: bool) -> Result<(), Failure> {
    let now = slot_now();
    let reports: Vec<DomainReport> = ring
        .list()?
        .iter()
        .map(|keys| {
            let end = keys.epochs().map(|epoch| epoch.not_after_slot).max().unwrap_or(now);
            DomainReport {
                domain: keys.domain.clone(),
                number: keys.number,
                epoch_seconds: 2 << keys.epoch_shift,
                epochs: keys.epochs().count(),
                ends_in_s: end.saturating_sub(now) * 2,
            }
        })
        .collect();
    if as_json {
        return json(&reports);
    }
    let head = ["DOMAIN", "NUMBER", "EPOCHS", "EPOCH", "KEYS UNTIL"].map(str::to_owned).to_vec();
    let rows = reports.iter().map(|report| {
        vec![
            report.domain.clone(),
            report.number.to_string(),
            report.epochs.to_string(),
            duration(report.epoch_seconds),
            format!("in {}", duration(report.ends_in_s)),
        ]
    });
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// `9h 6m`, `5d 7h`, `42s`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}
