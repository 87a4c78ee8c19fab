//! Collects what is wrong with one file: several errors, one per place, never without end.

use crate::DIAGNOSTICS_MAX;
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::span::{FileId, Span};

/// The diagnostics of one file.
#[derive(Debug)]
pub(crate) struct Problems {
    file: FileId,
    list: Vec<Diagnostic>,
    left_out: Option<Span>,
}

impl Problems {
    pub(crate) fn new(file: FileId) -> Self {
        Self { file, list: Vec::new(), left_out: None }
    }

    /// Adds a diagnostic unless one at the same place says enough.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        let start = |d: &Diagnostic| d.span().map(|span| span.start);
        if self.list.iter().any(|other| start(other) == start(&diagnostic)) {
            return;
        }
        if self.is_full() {
            self.left_out = self.left_out.or(diagnostic.span());
            return;
        }
        self.list.push(diagnostic);
    }

    /// Adds a diagnostic if there is one.
    pub(crate) fn push_all(&mut self, diagnostics: impl IntoIterator<Item = Diagnostic>) {
        diagnostics.into_iter().for_each(|diagnostic| self.push(diagnostic));
    }

    /// Further errors would be left out, so looking for them is a waste of time.
    pub(crate) fn is_full(&self) -> bool {
        self.list.len() >= DIAGNOSTICS_MAX
    }

    /// Notes that the search for errors ended early.
    pub(crate) fn leave_out(&mut self, span: Span) {
        self.left_out = self.left_out.or(Some(span));
    }

    /// A mark for [`Self::rewind`] and [`Self::grew_since`].
    pub(crate) fn mark(&self) -> usize {
        self.list.len()
    }

    /// Forgets what was added since the mark.
    pub(crate) fn rewind(&mut self, mark: usize) {
        self.list.truncate(mark);
    }

    /// Whether something was said since the mark, or nothing can be said any more.
    pub(crate) fn grew_since(&self, mark: usize) -> bool {
        self.list.len() > mark || self.is_full()
    }

    pub(crate) fn span(&self, start: u32, end: u32) -> Span {
        Span::new(self.file, start, end)
    }

    /// The diagnostics in the order of the text.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.list.sort_by_key(Diagnostic::span);
        if let Some(span) = self.left_out {
            let message =
                format!("more than {DIAGNOSTICS_MAX} syntax errors, the rest is left out");
            self.list.push(
                Diagnostic::new(codes::MORE_ERRORS, message, span, "the first one left out")
                    .help("mend the errors above and try again"),
            );
        }
        self.list
    }
}

/// User text for a message, cut when it is long.
pub(crate) fn shorten(text: &str) -> String {
    const CHARS_MAX: usize = 40;
    match text.char_indices().nth(CHARS_MAX) {
        Some((cut, _)) => format!("{}...", text.get(..cut).unwrap_or_default()),
        None => text.to_owned(),
    }
}
