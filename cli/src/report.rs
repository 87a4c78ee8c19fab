//! Telling people and programs what the compiler found: one diagnostic type, a renderer for each
//! format.

mod github;
mod json;
pub mod junit;
mod place;
mod sarif;
mod short;

use govc_compiler::sources::Source;
use govc_grammar::diagnostic::{Code, Diagnostic};

use crate::{
    arguments::Format,
    commands::plural,
    failure::Failure,
    levels::Levels,
    output::{Style, err, line},
};

/// Diagnostics that people are shown at most, unless they ask for more.
const LIMIT_DEFAULT: usize = 50;

/// How diagnostics are told.
#[derive(Clone, Debug)]
pub struct Reporting {
    /// The renderer.
    pub format: Format,
    /// Codes that count as graver or less grave than they are.
    pub levels: Levels,
    /// As many diagnostics at most, 0 for all of them.
    pub limit: Option<usize>,
}

/// Tells all of it. People are told on standard error, the gravest last, where they look first;
/// programs on standard output.
///
/// # Errors
/// The output cannot be written.
pub fn report(
    diagnostics: &[Diagnostic],
    sources: &[Source],
    reporting: &Reporting,
    style: &Style,
) -> Result<(), Failure> {
    let people = reporting.format.is_for_people();
    let limit = match reporting.limit {
        Some(0) => usize::MAX,
        Some(limit) => limit,
        None if people => LIMIT_DEFAULT,
        None => usize::MAX,
    };
    let (shown, left_out) = select(diagnostics, limit);
    let one = |diagnostic: &Diagnostic| render(diagnostic, sources, reporting.format, style);
    match reporting.format {
        Format::Graphical | Format::Narrated | Format::Short | Format::Junit => {
            let mut text: String = shown.iter().copied().map(one).collect();
            if left_out > 0 {
                text.push_str(&format!("{}; --limit 0 shows all\n", left_out_text(left_out)));
            }
            err(text.as_bytes())?;
        }
        Format::Json => {
            for diagnostic in shown {
                line(&json::render(diagnostic, sources)?)?;
            }
        }
        Format::Sarif => line(&sarif::render(&shown, sources)?)?,
        Format::Github => {
            for diagnostic in shown {
                line(&github::render(diagnostic, sources))?;
            }
        }
    }
    if left_out > 0 && !people {
        // Standard output belongs to the format.
        err(format!("{}\n", left_out_text(left_out)).as_bytes())?;
    }
    Ok(())
}

/// One diagnostic for people.
pub fn render(
    diagnostic: &Diagnostic,
    sources: &[Source],
    format: Format,
    style: &Style,
) -> String {
    match format {
        Format::Narrated => style.narrated(diagnostic, sources),
        Format::Short => short::render(diagnostic, sources),
        _ => style.diagnostic(diagnostic, sources),
    }
}

fn left_out_text(count: usize) -> String {
    format!("{} left out", plural(count, "more diagnostic"))
}

/// As many as the limit allows, the gravest first of all, then the first by place. They come in the
/// order in which they are told.
fn select(diagnostics: &[Diagnostic], limit: usize) -> (Vec<&Diagnostic>, usize) {
    let place = |d: &&Diagnostic| d.span().map(|span| (span.file, span.start));
    let mut ordered: Vec<&Diagnostic> = diagnostics.iter().collect();
    ordered.sort_by_key(|d| (std::cmp::Reverse(d.severity()), place(d)));
    let left_out = ordered.len().saturating_sub(limit);
    ordered.truncate(limit);
    ordered.sort_by_key(|d| (d.severity(), place(d)));
    (ordered, left_out)
}

/// Where the page of a code can be read, when the project says where it lives.
pub fn page_url(code: Code) -> Option<String> {
    let home = env!("CARGO_PKG_REPOSITORY");
    (!home.is_empty()).then(|| format!("{home}/blob/main/docs/diagnostics/{}.md", code.id))
}

#[cfg(test)]
mod tests {
    use govc_compiler::codes;
    use govc_grammar::span::{FileId, Span};

    use super::*;

    #[test]
    fn the_limit_keeps_what_is_grave() {
        let at = |code, start| Diagnostic::new(code, "x", Span::new(FileId(0), start, start), "");
        let all = [
            at(codes::UNUSED, 0),
            at(codes::UNKNOWN_SCOPE, 9),
            at(codes::UNUSED, 4),
            at(codes::UNKNOWN_SCOPE, 7),
        ];
        let starts = |limit| {
            let (shown, left_out) = select(&all, limit);
            (shown.iter().filter_map(|d| d.span()).map(|s| s.start).collect::<Vec<_>>(), left_out)
        };
        assert_eq!(starts(usize::MAX), (vec![0, 4, 7, 9], 0));
        assert_eq!(starts(3), (vec![0, 7, 9], 1));
        assert_eq!(starts(1), (vec![7], 3));
    }
}
