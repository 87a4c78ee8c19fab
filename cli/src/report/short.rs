//! One line for each diagnostic, as editors and `grep` like it.

use govc_compiler::sources::Source;
use govc_grammar::diagnostic::Diagnostic;

use super::place;
use crate::output::severity_word;

/// `file:line:column: severity[CODE]: message`
pub(super) fn render(diagnostic: &Diagnostic, sources: &[Source]) -> String {
    let what = format!(
        "{}[{}]: {}",
        severity_word(diagnostic.severity()),
        diagnostic.code.id,
        diagnostic.message
    );
    match diagnostic.span().and_then(|span| place::region(sources, span)) {
        Some(at) => format!("{}:{}:{}: {what}\n", at.file, at.start.line, at.start.column),
        None => format!("{what}\n"),
    }
}
