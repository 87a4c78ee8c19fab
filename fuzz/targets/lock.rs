//! Lock files: whatever stands in one, the vocabulary is checked, and what is written back says the
//! same when it is read again.
#![no_main]

use std::sync::LazyLock;

use govc_compiler::{check::check, lock::Locks};
use govc_grammar::{ast, span::FileId};
use libfuzzer_sys::fuzz_target;

const PACKAGE: &str = "acme.vocabulary";

static VOCABULARY: LazyLock<[(FileId, ast::File); 1]> = LazyLock::new(|| {
    let text = include_str!("../../examples/policies/acme/vocabulary.gov");
    [(FileId(0), govc_grammar::parse(FileId(0), text).0)]
});

fuzz_target!(|text: &str| {
    let mut locks = Locks::default();
    locks.insert_text(PACKAGE, text);
    let checked = check(VOCABULARY.as_slice(), &locks);
    assert!(checked.policy.is_some() || !checked.diagnostics.is_empty(), "refused without a word");
    if let Some(lock) = checked.locks.get(PACKAGE) {
        let mut again = Locks::default();
        again.insert_text(PACKAGE, &lock.to_text());
        assert_eq!(again.get(PACKAGE), Some(lock));
    }
});
