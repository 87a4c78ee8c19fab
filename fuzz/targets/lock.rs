//! Lock files: whatever stands in one, the vocabulary is checked, and what is written back is read
//! again.
#![no_main]

use govc_compiler::lock::Locks;
use govc_tests::check_with;
use libfuzzer_sys::fuzz_target;

const VOCABULARY: &str = include_str!("../../examples/policies/acme/vocabulary.gov");

fuzz_target!(|text: &str| {
    let mut locks = Locks::default();
    locks.insert_text("acme.vocabulary", text);
    let checked = check_with(&[("vocabulary.gov", VOCABULARY)], &locks);
    assert!(checked.policy.is_some() || !checked.diagnostics.is_empty());
});
