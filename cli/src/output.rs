//! What people and programs see: diagnostics, tables, colours.

use std::io::{IsTerminal as _, Write as _};

use govc_compiler::sources::Source;
use govc_grammar::diagnostic::{Diagnostic, Severity};
use miette::{GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource};
use serde::Serialize;

use crate::{arguments::Color, failure::Failure, report};

/// How text is dressed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Colour on standard output.
    color_out: bool,
    /// Colour on standard error.
    color_err: bool,
    width: usize,
}

/// Narrowest and widest that diagnostics are wrapped to.
const WIDTH: std::ops::RangeInclusive<usize> = 60..=120;

impl Style {
    /// Follows `--color`, NO_COLOR and whether anybody looks.
    pub fn new(color: Color) -> Self {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let no_color = set("NO_COLOR").is_some() || set("TERM").is_some_and(|term| term == "dumb");
        let choose = |terminal: bool| match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !no_color,
        };
        let width = rustix::termios::tcgetwinsize(std::io::stderr())
            .map_or(100, |size| usize::from(size.ws_col))
            .clamp(*WIDTH.start(), *WIDTH.end());
        Self {
            color_out: choose(std::io::stdout().is_terminal()),
            color_err: choose(std::io::stderr().is_terminal()),
            width,
        }
    }

    /// For text that goes into files.
    pub fn plain_text() -> Self {
        Self { color_out: false, color_err: false, width: *WIDTH.end() }
    }

    /// Less important, on standard error.
    pub fn dim_err(&self, text: impl std::fmt::Display) -> String {
        if self.color_err { format!("\u{1b}[2m{text}\u{1b}[0m") } else { text.to_string() }
    }

    /// Without colour, for tests.
    #[cfg(test)]
    pub(crate) fn plain(width: usize) -> Self {
        Self { color_out: false, color_err: false, width }
    }

    /// With colour, for tests.
    #[cfg(test)]
    pub(crate) fn coloured(width: usize) -> Self {
        Self { color_out: true, color_err: true, width }
    }

    /// Whether standard output takes colour.
    pub fn is_coloured(&self) -> bool {
        self.color_out
    }

    /// Whether standard error takes colour.
    pub fn is_coloured_err(&self) -> bool {
        self.color_err
    }

    /// Columns that text is wrapped to.
    pub fn width(&self) -> usize {
        self.width
    }

    /// A word in an ANSI style; nothing around an empty one.
    pub fn paint_word(&self, ansi: &str, word: &str) -> String {
        if word.is_empty() { String::new() } else { self.paint(ansi, word) }
    }

    /// Text in an ANSI style on standard output, such as `"1"` for bold.
    pub fn paint(&self, ansi: &str, text: impl std::fmt::Display) -> String {
        if self.color_out { format!("\u{1b}[{ansi}m{text}\u{1b}[0m") } else { text.to_string() }
    }

    /// Good news.
    pub fn good(&self, text: impl std::fmt::Display) -> String {
        self.paint("32", text)
    }

    /// Bad news.
    pub fn bad(&self, text: impl std::fmt::Display) -> String {
        self.paint("31", text)
    }

    /// Less important.
    pub fn dim(&self, text: impl std::fmt::Display) -> String {
        self.paint("2", text)
    }

    /// More important.
    pub fn bold(&self, text: impl std::fmt::Display) -> String {
        self.paint("1", text)
    }

    /// Reports why a command failed.
    pub fn error(&self, failure: &Failure) {
        let (open, close) = if self.color_err { ("\u{1b}[31m", "\u{1b}[0m") } else { ("", "") };
        let mut text = format!("{open}error:{close} {failure}\n");
        let mut cause = std::error::Error::source(failure);
        while let Some(error) = cause {
            text.push_str(&format!("  because: {error}\n"));
            cause = error.source();
        }
        if let Some(help) = failure.help() {
            text.push_str(&format!("  help: {help}\n"));
        }
        let _ = std::io::stderr().write_all(text.as_bytes());
    }

    /// Renders a diagnostic for people.
    pub fn diagnostic(&self, diagnostic: &Diagnostic, sources: &[Source]) -> String {
        let theme = if self.color_err {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        render_with(diagnostic, sources, theme, self.width, self.color_err)
    }

    /// Renders a diagnostic for people who are read to: places are told in words.
    pub fn narrated(&self, diagnostic: &Diagnostic, sources: &[Source]) -> String {
        let mut text = String::new();
        let handler = miette::NarratableReportHandler::new();
        if handler.render_report(&mut text, &Shown::new(diagnostic, sources)).is_err() {
            return unrendered(diagnostic);
        }
        text
    }
}

/// What is left to say when a renderer gives up.
fn unrendered(diagnostic: &Diagnostic) -> String {
    format!("{}: {}\n", diagnostic.code.id, diagnostic.message)
}

/// Renders a diagnostic with the source under it.
pub fn render(
    diagnostic: &Diagnostic,
    sources: &[Source],
    theme: GraphicalTheme,
    width: usize,
) -> String {
    render_with(diagnostic, sources, theme, width, false)
}

fn render_with(
    diagnostic: &Diagnostic,
    sources: &[Source],
    theme: GraphicalTheme,
    width: usize,
    links: bool,
) -> String {
    // Links are escapes, and belong where colours do. Lines break at spaces alone: packets and paths
    // are copied out of them, and half a moment or name is none.
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_width(width)
        .with_word_separator(textwrap::WordSeparator::AsciiSpace)
        .with_word_splitter(textwrap::WordSplitter::NoHyphenation)
        .with_break_words(false)
        .with_links(links)
        .without_cause_chain();
    let mut text = String::new();
    if handler.render_report(&mut text, &Shown::new(diagnostic, sources)).is_err() {
        return unrendered(diagnostic);
    }
    text
}

/// A diagnostic as miette wants it: one source each, further files as related diagnostics.
#[derive(Debug)]
struct Shown {
    message: String,
    code: Option<&'static str>,
    url: Option<String>,
    severity: miette::Severity,
    help: Option<String>,
    source: Option<NamedSource<String>>,
    labels: Vec<LabeledSpan>,
    related: Vec<Shown>,
}

impl Shown {
    fn new(diagnostic: &Diagnostic, sources: &[Source]) -> Self {
        let severity = match diagnostic.severity() {
            Severity::Error => miette::Severity::Error,
            Severity::Warning => miette::Severity::Warning,
            Severity::Advice => miette::Severity::Advice,
        };
        let mut shown = Self {
            message: diagnostic.message.clone(),
            code: Some(diagnostic.code.id),
            url: report::page_url(diagnostic.code),
            severity,
            help: diagnostic.help.clone(),
            source: None,
            labels: Vec::new(),
            related: Vec::new(),
        };
        let Some(file) = diagnostic.span().map(|span| span.file) else { return shown };
        for (index, label) in diagnostic.labels.iter().enumerate() {
            let Some(source) = sources.get(label.span.file.0 as usize) else { continue };
            let text = (!label.text.is_empty()).then(|| label.text.clone());
            // A label past the end panics in miette, and one at the end vanishes.
            let len = source.text.len();
            let text_of = &source.text;
            let start = (label.span.start as usize).min(len.saturating_sub(1));
            let start = text_of.floor_char_boundary(start);
            let end = text_of.floor_char_boundary((label.span.end as usize).clamp(start, len));
            let span = (start, end - start);
            let named = || NamedSource::new(&source.name, source.text.clone());
            if label.span.file == file {
                shown.source.get_or_insert_with(named);
                shown.labels.push(if index == 0 {
                    LabeledSpan::new_primary_with_span(text, span)
                } else {
                    LabeledSpan::new_with_span(text, span)
                });
            } else {
                shown.related.push(Self {
                    message: "see also".into(),
                    code: None,
                    url: None,
                    severity: miette::Severity::Advice,
                    help: None,
                    source: Some(named()),
                    labels: vec![LabeledSpan::new_with_span(text, span)],
                    related: Vec::new(),
                });
            }
        }
        shown
    }
}

impl std::fmt::Display for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Shown {}

impl miette::Diagnostic for Shown {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.code.map(|code| Box::new(code) as Box<dyn std::fmt::Display>)
    }
    fn url<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.url.as_ref().map(|url| Box::new(url) as Box<dyn std::fmt::Display>)
    }
    fn severity(&self) -> Option<miette::Severity> {
        Some(self.severity)
    }
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn std::fmt::Display>)
    }
    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as &dyn miette::SourceCode)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        Some(Box::new(self.labels.iter().cloned()))
    }
    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        Some(Box::new(self.related.iter().map(|related| related as &dyn miette::Diagnostic)))
    }
}

/// How grave, in a word.
pub fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Advice => "advice",
    }
}

/// Writes a value as pretty JSON to standard output.
pub fn json(value: &impl Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|e| Failure::Machine { message: format!("cannot write JSON: {e}"), help: None })?;
    line(&text)
}

/// Writes a line to standard output.
pub fn line(text: &str) -> Result<(), Failure> {
    out(format!("{text}\n").as_bytes())
}

/// Writes to standard output. That nobody reads it any more is no failure: the command goes on, and
/// ends with the code that it would have had, which is what scripts decide by.
pub fn out(bytes: &[u8]) -> Result<(), Failure> {
    unless_closed(std::io::stdout().write_all(bytes))
}

/// Likewise to standard error.
pub fn err(bytes: &[u8]) -> Result<(), Failure> {
    unless_closed(std::io::stderr().write_all(bytes))
}

fn unless_closed(written: std::io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

#[cfg(test)]
mod tests {
    use govc_compiler::codes;
    use govc_grammar::span::{FileId, Span};

    use super::*;

    #[test]
    fn what_is_copied_is_whole() {
        let source = Source { name: "a.gov".into(), text: "let a = 1\n".into() };
        let packet = "packet { from acme.payments.api-gateway  source 2001:db8:20::1/128  \
                      at \"2027-01-01T00:00Z\"  to acme.a-very-long-name-of-a-scope.that-goes-on.and-on }";
        let span = Span::new(FileId(0), 0, 3);
        let help = format!("it is let through, for example:\n{packet}\nexpect deny");
        let diagnostic = Diagnostic::new(codes::UNUSED, "here", span, "label").help(help);
        for width in *WIDTH.start()..=*WIDTH.end() {
            let shown = Style::plain(width).diagnostic(&diagnostic, std::slice::from_ref(&source));
            let words: Vec<&str> = shown.split_whitespace().collect();
            for word in packet.split_whitespace() {
                assert!(words.contains(&word), "`{word}` is broken at {width}: {shown}");
            }
        }
    }

    #[test]
    fn labels_anywhere_are_drawn() {
        for text in ["", "x", "let a = 1", "let a = 1\n", "é", "a\n\n😀", "\t\tx\r\n"] {
            let source = Source { name: "a.gov".into(), text: text.into() };
            let len = text.len() as u32;
            for start in 0..len + 3 {
                for end in [start, start + 1, len, len + 9].into_iter().filter(|&end| end >= start)
                {
                    let span = Span::new(FileId(0), start, end);
                    let diagnostic = Diagnostic::new(codes::UNUSED, "here", span, "label");
                    let shown =
                        Style::plain(80).diagnostic(&diagnostic, std::slice::from_ref(&source));
                    assert!(shown.contains("here"), "{text:?} {start}..{end}");
                    assert!(text.is_empty() || shown.contains("label"), "{text:?} {start}..{end}");
                    assert!(!shown.contains('\u{1b}'), "{shown:?}");
                    let told =
                        Style::plain(80).narrated(&diagnostic, std::slice::from_ref(&source));
                    assert!(told.contains("here"), "{text:?} {start}..{end}");
                }
            }
        }
    }
}
