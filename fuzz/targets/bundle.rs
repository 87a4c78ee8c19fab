//! Bundles: what is read is written back as it was, and only what was signed is verified.
#![no_main]

use std::sync::LazyLock;

use govc_authority::{
    bundle::{Bundle, Contents, Terms, Vocabulary, verify},
    revocations::Revocations,
    trust::Trust,
};
use govc_tests::compile;
use libfuzzer_sys::fuzz_target;

mod signed;

static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let text =
        "package fuzz\nuse acme.vocabulary\npolicy p { on ingress\n permit a { from anyone } }\n";
    let vocabulary = include_str!("../../examples/policies/acme/vocabulary.gov");
    let compiled = compile(&[("fuzz.gov", text), ("vocabulary.gov", vocabulary)]);
    let contents = Contents {
        image: &compiled.image,
        vocabulary: &Vocabulary::default(),
        revocations: &Revocations::new([3, 4, 9]).expect("few"),
    };
    let root = signed::root();
    let terms = Terms {
        domain: root.domain,
        generation: 1,
        previous: None,
        not_before: 0,
        not_after: 9,
        next: root.signers,
    };
    let mut bundle = Bundle::draft(&contents, terms).expect("terms");
    for seed in [1, 2] {
        bundle.sign(&signed::key(seed)).expect("room");
    }
    bundle.to_bytes().expect("short")
});

fuzz_target!(|data: &[u8]| {
    look_at(data);
    look_at(&signed::edited(&FILE, data));
});

fn look_at(bytes: &[u8]) {
    let Ok(bundle) = Bundle::read(bytes) else { return };
    assert_eq!(bundle.to_bytes().expect("it was read"), bytes);
    let _ = (bundle.unverified_manifest(), bundle.unverified_image());
    let _ = bundle.unverified_revocations();
    if verify(&bundle, &Trust::new(signed::root()), 5).is_ok() {
        assert_eq!(bytes, FILE.as_slice(), "a changed bundle was verified");
    }
}
