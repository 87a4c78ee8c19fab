//! Our own JSON: one object a line. `docs/output.md` describes it.

use govc_compiler::sources::Source;
use govc_grammar::diagnostic::{Applicability, Diagnostic, Severity};
use govc_grammar::span::Span;
use serde::Serialize;

use super::place;

#[derive(Serialize)]
struct JsonDiagnostic<'a> {
    code: &'a str,
    title: &'a str,
    severity: Severity,
    message: &'a str,
    help: Option<&'a str>,
    labels: Vec<JsonLabel<'a>>,
    fixes: Vec<JsonFix<'a>>,
}

#[derive(Serialize)]
struct JsonLabel<'a> {
    #[serde(flatten)]
    place: JsonPlace<'a>,
    text: &'a str,
}

#[derive(Serialize)]
struct JsonPlace<'a> {
    file: &'a str,
    line: usize,
    column: usize,
    end_line: usize,
    end_column: usize,
    start: u32,
    end: u32,
}

#[derive(Serialize)]
struct JsonFix<'a> {
    title: &'a str,
    applicability: Applicability,
    edits: Vec<JsonEdit<'a>>,
}

#[derive(Serialize)]
struct JsonEdit<'a> {
    #[serde(flatten)]
    place: JsonPlace<'a>,
    replacement: &'a str,
}

/// The diagnostic on one line.
pub(super) fn render(
    diagnostic: &Diagnostic,
    sources: &[Source],
) -> Result<String, std::io::Error> {
    let label = |label: &'_ govc_grammar::diagnostic::Label| json_place(sources, label.span);
    let labels = diagnostic
        .labels
        .iter()
        .filter_map(|one| Some(JsonLabel { place: label(one)?, text: &one.text }))
        .collect();
    let fixes = diagnostic.fixes.iter().map(|fix| JsonFix {
        title: &fix.title,
        applicability: fix.applicability,
        edits: fix
            .edits
            .iter()
            .filter_map(|edit| {
                let place = json_place(sources, edit.span)?;
                Some(JsonEdit { place, replacement: &edit.replacement })
            })
            .collect(),
    });
    let shown = JsonDiagnostic {
        code: diagnostic.code.id,
        title: diagnostic.code.title,
        severity: diagnostic.severity(),
        message: &diagnostic.message,
        help: diagnostic.help.as_deref(),
        labels,
        fixes: fixes.collect(),
    };
    serde_json::to_string(&shown).map_err(std::io::Error::other)
}

fn json_place(sources: &[Source], span: Span) -> Option<JsonPlace<'_>> {
    let region = place::region(sources, span)?;
    Some(JsonPlace {
        file: region.file,
        line: region.start.line,
        column: region.start.column,
        end_line: region.end.line,
        end_column: region.end.column,
        start: span.start,
        end: span.end,
    })
}
