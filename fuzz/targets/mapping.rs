//! Mappings: any payload under signatures that fit. Whatever is taken raises no label.
#![no_main]

use std::sync::LazyLock;

use govc_authority::{
    Domain,
    envelope::Envelope,
    lattice::{Rights, Stamp, covers},
    mapping::{Mapping, PAYLOAD_TYPE, Rules, Scope},
    revocations::Revocations,
};
use libfuzzer_sys::fuzz_target;

mod signed;

static PAYLOAD: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let rules = Rules {
        from: Domain { name: "partner".into(), number: 9 },
        to: signed::root().domain,
        sequence: 1,
        scopes: vec![
            Scope { first: 1, last: 64, subject: 300 },
            Scope { first: 70, last: 99, subject: 301 },
        ],
        drop_compartments: 0b100,
        level_max: 2,
        add_constraints: 0b1,
        drop_constraints: 0b10,
        not_after: 9,
        revoked: Revocations::new([3, 4, 9]).expect("few"),
        granted: true,
    };
    let mapping = Mapping::new(rules).expect("rules");
    mapping.unsigned().expect("short").unverified_payload().to_vec()
});

fuzz_target!(|data: &[u8]| {
    look_at(data.to_vec(), data);
    look_at(signed::edited(&PAYLOAD, data), data);
});

fn look_at(payload: Vec<u8>, data: &[u8]) {
    let mut envelope = Envelope::unsigned(PAYLOAD_TYPE, payload);
    for seed in [1, 2] {
        envelope.sign(&signed::key(seed)).expect("room");
    }
    let Ok(mapping) = Mapping::verify(&envelope, &signed::root(), 5) else { return };
    let rights = Rights { level_max: 2, constraints: 1, not_after: 9, ..Rights::all() };
    let checked = mapping.check(&Rights::all(), &rights);
    for label in data.chunks_exact(8) {
        let [a, b, level, compartments, constraints, residency, route, radius] = *label else {
            continue;
        };
        let came = Stamp {
            subject: u32::from(a) << 4 | u32::from(b),
            level: level & 15,
            compartments: compartments.into(),
            constraints: constraints.into(),
            residency,
            route,
            operation: 0,
            radius: radius % 5,
            life: 2,
        };
        let Some(goes) = mapping.apply(&came) else { continue };
        assert!(goes.level <= came.level && goes.compartments & !came.compartments == 0);
        // Those that the mapping names may go; the transit grant says of them what that takes.
        let kept = came.constraints & !mapping.rules().drop_constraints;
        assert!(kept & !goes.constraints == 0);
        assert!(checked.is_err() || covers(&rights, &goes).is_ok(), "a mapping widens");
    }
}
