//! Expectations: warnings that the author of a policy knows of, with the reason why they are fine.

use govc_grammar::ast;
use govc_grammar::diagnostic::{Applicability, Diagnostic, Severity};
use govc_grammar::span::FileId;

use crate::check::sink::Sink;
use crate::{codes, pages};

/// Leaves out the warnings that are expected, and warns about expectations that nothing fulfils.
///
/// `diagnostics` is everything that there is to say about the files: what comes later cannot be
/// expected. Where errors kept a stage from running, its warnings are missing, so that nothing is
/// said about expectations then. Nor is anything said about those of the analysis when it was not
/// asked, and about those of what is told on demand.
#[must_use]
pub fn settle(
    files: &[(FileId, ast::File)],
    diagnostics: Vec<Diagnostic>,
    analysed: bool,
) -> Vec<Diagnostic> {
    let expectations: Vec<&ast::Expectation> =
        files.iter().flat_map(|(_, file)| &file.expectations).collect();
    if expectations.is_empty() {
        return diagnostics;
    }
    let mut fulfilled = vec![false; expectations.len()];
    let mut failed = false;
    let mut kept = Vec::with_capacity(diagnostics.len());
    for diagnostic in diagnostics {
        failed |= diagnostic.severity() == Severity::Error;
        let mut expected = false;
        for (expectation, fulfilled) in expectations.iter().zip(&mut fulfilled) {
            if meets(expectation, &diagnostic) {
                (expected, *fulfilled) = (true, true);
            }
        }
        if !expected {
            kept.push(diagnostic);
        }
    }
    if !failed {
        let looked_for = |expectation: &ast::Expectation| {
            let code = &expectation.code.text;
            !codes::is_on_demand(code) && (analysed || !codes::is_analysis(code))
        };
        let missed = expectations.iter().zip(fulfilled);
        let missed =
            missed.filter(|(expectation, fulfilled)| !fulfilled && looked_for(expectation));
        kept.extend(missed.map(|(expectation, _)| unfulfilled(expectation)));
    }
    kept
}

fn meets(expectation: &ast::Expectation, diagnostic: &Diagnostic) -> bool {
    diagnostic.severity() != Severity::Error
        && diagnostic.code.id == expectation.code.text
        && diagnostic.span().is_some_and(|place| expectation.covers.contains(place))
}

fn unfulfilled(expectation: &ast::Expectation) -> Diagnostic {
    let message = format!("no {} is reported here", expectation.code.text);
    let label = "expected and not found";
    Diagnostic::new(codes::UNFULFILLED, message, expectation.span, label)
        .help("remove the expectation: what it was for is mended")
        .replace(expectation.span, "", Applicability::MachineApplicable)
}

/// Reports expectations that can never be fulfilled.
pub(crate) fn check(files: &[(FileId, ast::File)], sink: &mut Sink) {
    for expectation in files.iter().flat_map(|(_, file)| &file.expectations) {
        let (id, span) = (&expectation.code.text, expectation.code.span);
        let found = pages::find(id);
        match found {
            Ok(code) if code.id == id && code.severity == Severity::Error => {
                let message = format!("errors such as {id} cannot be expected");
                sink.push(
                    Diagnostic::new(codes::EXPECTED_ERROR, message, span, "an error")
                        .help("remove the expectation, and mend what is reported"),
                );
            }
            Ok(code) if code.id == id => {}
            _ => {
                let message = format!("unknown diagnostic code `{id}`");
                let diagnostic = Diagnostic::new(codes::UNKNOWN_CODE, message, span, "not a code");
                sink.push(match found.ok().or(found.err().flatten()) {
                    Some(near) => diagnostic
                        .help(format!("did you mean `{}`, {}?", near.id, near.title))
                        .replace(span, near.id, Applicability::MaybeIncorrect),
                    None => diagnostic
                        .help("codes look like `GOV4104`; `govc explain --list` shows them"),
                });
            }
        }
    }
}
