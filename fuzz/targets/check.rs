//! Checker, back end and analysis: a policy that is accepted compiles or says why not, and
//! interpreter and image decide alike.
#![no_main]

use govc_abi::image::program;
use govc_compiler::{interpret, testing};
use govc_tests::{check, random::Random, requests::Aim};
use libfuzzer_sys::fuzz_target;

const VOCABULARY: &str = include_str!("../../examples/policies/acme/vocabulary.gov");
/// What takes long is not looked for here.
const TEXT_MAX: usize = 4096;

fuzz_target!(|text: &str| {
    if text.len() > TEXT_MAX {
        return;
    }
    // Texts that bring a vocabulary of their own stand alone.
    let with_vocabulary = [("fuzz.gov", text), ("vocabulary.gov", VOCABULARY)];
    let alone = text.contains("domain");
    let checked = check(if alone { &with_vocabulary[..1] } else { &with_vocabulary });
    let Some(policy) = &checked.policy else {
        assert!(!checked.diagnostics.is_empty(), "refused without a word");
        return;
    };
    let Ok((table, image)) = govc_compiler::compile(policy, &checked.sources, "fuzz") else {
        return;
    };
    let random = &mut Random::new(text.len() as u64);
    for hook in 0..3 {
        let aim = Aim::new(&table, program::INGRESS + hook as u32);
        for _ in 0..20 {
            let request = aim.next(hook, random);
            let wanted = interpret::decide(policy, hook, &request);
            let found = testing::decision_of_image(&table, &image, hook, &request);
            assert_eq!(found, wanted, "hook {hook} {request:?}");
        }
    }
    for result in testing::run(policy, &table, &image) {
        assert!(result.image_agrees);
    }
    govc_tests::findings(&checked);
});
