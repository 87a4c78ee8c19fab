//! Inputs that nobody chose: no panic, no contradiction, no number that changes.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use govc_grammar::ast::File;

use super::*;
use crate::lock::Lock;

/// What must hold for every outcome.
fn assert_consistent(files: &[(FileId, File)], locks: &Locks) -> Checked {
    let checked = check(files, locks);
    let told = &checked.diagnostics;
    if told.iter().any(|one| one.severity() == Severity::Error) {
        assert!(checked.policy.is_none());
    }
    if checked.policy.is_none() {
        assert_eq!(&checked.locks, locks);
    }
    let spans: std::collections::HashSet<_> = told.iter().map(|one| one.labels[0].span).collect();
    assert_eq!(spans.len(), told.len(), "{told:#?}");
    assert!(told.windows(2).all(|pair| pair[0].labels[0].span <= pair[1].labels[0].span));
    told.iter().for_each(assert_style);
    checked
}

fn parse(texts: &[&str]) -> Vec<(FileId, File)> {
    let files = texts.iter().zip(0..);
    files.map(|(text, id)| (FileId(id), govc_grammar::parse(FileId(id), text).0)).collect()
}

/// Every word of a good policy is left out, doubled, and put swapped with some others.
#[test]
fn mutilated_policies() {
    let all = format!("{}\n//----\n{}", good::LEDGER, VOCABULARY);
    let words: Vec<&str> = all.split_inclusive(char::is_whitespace).collect();
    let try_words = |words: &[&str]| {
        let text = words.concat();
        let (policy, vocabulary) = text.split_once("//----").unwrap_or((&text, VOCABULARY));
        assert_consistent(&parse(&[policy, vocabulary, PARTNER]), &Locks::default());
    };
    for at in 0..words.len() {
        let mut fewer = words.clone();
        fewer.remove(at);
        try_words(&fewer);
        let mut more = words.clone();
        more.insert(at, words[at]);
        try_words(&more);
        for other in (at % 97..words.len()).step_by(97) {
            let mut swapped = words.clone();
            swapped.swap(at, other);
            try_words(&swapped);
        }
    }
}

/// A reproducible source of choices (Knuth's MMIX generator).
struct Choices(u64);

impl Choices {
    fn below(&mut self, end: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn scopes(&mut self, depth: u64, text: &mut String) {
        for name in 0..12 {
            if self.below(3) > 0 {
                continue;
            }
            let _ = write!(text, "n{name}");
            match self.below(4) {
                0 if depth > 0 => {
                    text.push_str(" { x ");
                    self.scopes(depth - 1, text);
                    text.push('}');
                }
                1 => {
                    let _ = write!(text, "[{}]", 1 + self.below(40));
                }
                _ => {}
            }
            text.push(' ');
        }
    }
}

/// Vocabularies that change at random: whatever had a number keeps it, and no two scopes share
/// one (reading a lock back proves that).
#[test]
fn evolving_scopes() {
    for seed in 0..20 {
        let mut choices = Choices(seed);
        let mut locks = Locks::default();
        let mut first_of: BTreeMap<String, u32> = BTreeMap::new();
        for _ in 0..30 {
            let mut text = "package v\ndomain d = 7\nscope d { ".to_owned();
            choices.scopes(3, &mut text);
            text.push('}');
            let checked = assert_consistent(&parse(&[&text]), &locks);
            // Batches that cannot grow are the only error; the lock stays as it was then.
            let Some(policy) = checked.policy else {
                let told = &checked.diagnostics;
                assert!(told.iter().all(|one| one.code == codes::BATCH_CANNOT_GROW), "{told:#?}");
                continue;
            };
            locks = checked.locks;
            let lock = locks.get("v").unwrap();
            assert_eq!(Lock::parse(&lock.to_text()).as_ref(), Ok(lock), "seed {seed}");
            for scope in &policy.domains()[0].scopes {
                let Some((first, last)) = scope.subjects else { continue };
                assert!(scope.blocks.iter().any(|block| block.0 <= first && last <= block.1));
                let before = *first_of.entry(scope.path.to_string()).or_insert(first);
                assert_eq!(before, first, "seed {seed}: {}", scope.path);
            }
        }
        assert!(first_of.len() > 50, "seed {seed}: {}", first_of.len());
    }
}
