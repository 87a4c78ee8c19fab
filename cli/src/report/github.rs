//! Workflow commands of GitHub Actions, which become annotations of a change.

use govc_compiler::sources::Source;
use govc_grammar::diagnostic::{Diagnostic, Severity};

use super::place;

/// `::error file=..,line=..::message`
pub(super) fn render(diagnostic: &Diagnostic, sources: &[Source]) -> String {
    let command = match diagnostic.severity() {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Advice => "notice",
    };
    let mut properties = Vec::new();
    if let Some(at) = diagnostic.span().and_then(|span| place::region(sources, span)) {
        properties.push(format!("file={}", property(at.file)));
        properties.push(format!("line={}", at.start.line));
        properties.push(format!("endLine={}", at.end.line));
        // Columns only mean something within one line.
        if at.start.line == at.end.line {
            properties.push(format!("col={}", at.start.column));
            properties.push(format!("endColumn={}", at.end.column));
        }
    }
    let title = format!("{}: {}", diagnostic.code.id, diagnostic.code.title);
    properties.push(format!("title={}", property(&title)));
    let help = diagnostic.help.iter().map(|help| format!("\nhelp: {help}"));
    let text = diagnostic.message.clone() + &help.collect::<String>();
    format!("::{command} {}::{}", properties.join(","), data(&text))
}

fn data(text: &str) -> String {
    text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A")
}

fn property(text: &str) -> String {
    data(text).replace(':', "%3A").replace(',', "%2C")
}

#[cfg(test)]
mod tests {
    use govc_compiler::codes;
    use govc_grammar::span::{FileId, Span};

    use super::*;

    #[test]
    fn signs_of_the_command_are_escaped() {
        let source = Source { name: "a,b:c.gov".into(), text: "let\nx".into() };
        let span = Span::new(FileId(0), 0, 3);
        let diagnostic = Diagnostic::new(codes::UNUSED, "100%\r\n::error", span, "").help("a:b,c");
        assert_eq!(
            render(&diagnostic, std::slice::from_ref(&source)),
            "::warning file=a%2Cb%3Ac.gov,line=1,endLine=1,col=1,endColumn=4,\
             title=GOV4101%3A defined and never used::100%25%0D%0A::error%0Ahelp: a:b,c"
        );
        let across = Diagnostic::new(codes::UNUSED, "x", Span::new(FileId(0), 0, 5), "");
        assert!(render(&across, &[source]).contains("line=1,endLine=2,title="));
    }
}
