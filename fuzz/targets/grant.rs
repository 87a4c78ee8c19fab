//! Grants: what is read is written back as it was, and what is verified goes no further than what
//! was signed. Besides edits of a file, blocks with any payload under a signature that fits.
#![no_main]

use std::sync::LazyLock;

use govc_authority::{
    envelope::Envelope,
    grant::{Grant, PAYLOAD_TYPE, Terms},
    intervals::Intervals,
    lattice::Rights,
    revocations::Revocations,
};
use libfuzzer_sys::fuzz_target;

mod signed;

static RIGHTS: LazyLock<Rights> = LazyLock::new(|| Rights {
    subjects: Intervals::span(64, 127),
    level_max: 3,
    compartments: 0b11,
    constraints: 0b1,
    not_after: 9,
    depth: 2,
    ..Rights::all()
});

static GRANT: LazyLock<(Grant, Vec<u8>)> = LazyLock::new(|| {
    let holder = signed::key(4).public();
    let serials = Intervals::span(2, 9);
    let terms = Terms { serial: 1, serials, rights: RIGHTS.clone(), holder };
    let mut grant = Grant::draft(signed::root().domain, terms.clone()).expect("terms");
    for seed in [1, 2] {
        grant.sign(&signed::key(seed)).expect("room");
    }
    let rights = Rights { depth: 1, ..RIGHTS.clone() };
    let narrower = Terms { serial: 2, serials: Intervals::span(3, 9), rights, holder };
    let grant = grant.hand_on(narrower, &signed::key(4)).expect("it narrows");
    let bytes = grant.to_bytes().expect("short");
    (grant, bytes)
});

fuzz_target!(|data: &[u8]| {
    look_at(data);
    look_at(&signed::edited(&GRANT.1, data));
    // A holder who signs whatever there is.
    let blocks = GRANT.1.strip_suffix(b"]}").expect("a list of blocks");
    let inner = Grant::read(&GRANT.1).and_then(|grant| grant.unverified_blocks());
    let last = inner.expect("a grant").pop().expect("a block");
    let payload = serde_json::to_vec(&last).expect("a block");
    let mut envelope = Envelope::unsigned(PAYLOAD_TYPE, signed::edited(&payload, data));
    envelope.sign(&signed::key(4)).expect("room");
    let block = envelope.to_bytes().expect("short");
    look_at(&[blocks, b",", block.as_slice(), b"]}"].concat());
});

fn look_at(bytes: &[u8]) {
    let Ok(grant) = Grant::read(bytes) else { return };
    assert_eq!(grant.to_bytes().expect("it was read"), bytes);
    let _ = grant.unverified_blocks();
    if let Ok(verified) = grant.verify(&signed::root(), &Revocations::default(), 5) {
        assert!(verified.rights().leq(&RIGHTS), "a grant goes further than its root");
    }
}
