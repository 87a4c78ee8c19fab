//! Translations: a row for each run of subjects, and behind all of them one for each domain and zone
//! that refuses whoever is left.

use govc_abi::{attribute, limits::SUBJECTS_MAX};
use rustc_hash::FxHashSet;

use super::{Cells, key, one, row, whole_domain};
use crate::{
    checked::{Policy, Translation},
    table::{self, IntervalSet, Row},
};

/// Translations by number, and the rows that choose one.
#[derive(Default)]
pub(super) struct Lowered {
    pub(super) rows: Vec<Row>,
    pub(super) records: Vec<table::Translation>,
}

pub(super) fn lower(policy: &Policy) -> Lowered {
    let mut lowered = Lowered::default();
    for (transform, translation) in (0..).zip(&policy.translations) {
        if is_same(translation) {
            let span = (0, SUBJECTS_MAX - 1);
            lowered.add(translation, span, None, transform);
        }
        for scope in &translation.scopes {
            for &span in &scope.ranges {
                lowered.add(translation, span, Some(scope.subject), transform);
            }
        }
    }
    let mut closed = FxHashSet::default();
    for (transform, translation) in (0..).zip(&policy.translations) {
        if !is_same(translation) && closed.insert((translation.from, translation.zone)) {
            let nobody = table::Translation { first: 1, last: 0, subject: None, transform };
            let cells = Cells::from([
                (attribute::EGRESS_ZONE, one(translation.zone.into())),
                (attribute::SUBJECT, whole_domain(translation.from)),
            ]);
            lowered.rows.extend(row(lowered.records.len() as u32, cells));
            lowered.records.push(nobody);
        }
    }
    lowered
}

fn is_same(translation: &Translation) -> bool {
    translation.from == translation.to
}

impl Lowered {
    fn add(
        &mut self,
        translation: &Translation,
        (first, last): (u32, u32),
        subject: Option<u32>,
        transform: u32,
    ) {
        let (first, last) = (key(translation.from, first), key(translation.from, last));
        let cells = Cells::from([
            (attribute::EGRESS_ZONE, one(translation.zone.into())),
            (attribute::SUBJECT, IntervalSet::new(vec![(first.into(), last.into())])),
        ]);
        self.rows.extend(row(self.records.len() as u32, cells));
        self.records.push(table::Translation { first, last, subject, transform });
    }
}

pub(super) fn transform(translation: &Translation) -> table::Transform {
    let checked = &translation.transform;
    let same = is_same(translation);
    let bits = |list: &[(u8, Option<u8>)]| {
        let mut becomes = [None; 16];
        for &(came, goes) in list {
            if let Some(place) = becomes.get_mut(usize::from(came)) {
                *place = Some(goes.map_or(0, |bit| 1_u16.checked_shl(bit.into()).unwrap_or(0)));
            }
        }
        becomes
    };
    let numbers = |list: &Vec<(u16, u16)>| (!same).then(|| list.clone());
    table::Transform {
        domain_index: translation.to.0.into(),
        same,
        readdress: checked.readdress,
        radius: checked.radius,
        life: checked.life,
        levels: checked.levels,
        added: checked.added,
        constraints: bits(&checked.constraints),
        compartments: bits(&checked.compartments),
        numbers: [
            numbers(&checked.operations),
            numbers(&checked.residencies),
            numbers(&checked.routes),
        ],
    }
}
