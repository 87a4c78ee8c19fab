//! Lexer and parser: whatever the text, diagnostics point into it, and a tree without errors is
//! whole.
#![no_main]

use govc_grammar::{ast::Item, diagnostic::Severity, span::FileId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, diagnostics) = govc_grammar::parse(FileId(0), text);
    for diagnostic in &diagnostics {
        for label in &diagnostic.labels {
            let (start, end) = (label.span.start as usize, label.span.end as usize);
            assert!(text.get(start..end).is_some(), "{diagnostic:?}");
        }
    }
    let wrong = diagnostics.iter().any(|diagnostic| diagnostic.severity() == Severity::Error);
    let gaps = file.items.iter().any(|item| matches!(item, Item::Error(_)));
    assert!(wrong || !gaps, "an item is missing, and nothing is said");
});
