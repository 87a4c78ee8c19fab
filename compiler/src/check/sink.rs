//! Where diagnostics are collected: at most one for each place, ordered by place.

use govc_grammar::diagnostic::{Diagnostic, Severity};
use govc_grammar::span::Span;
use rustc_hash::FxHashMap;

/// Collects diagnostics.
#[derive(Default)]
pub(crate) struct Sink {
    diagnostics: Vec<Diagnostic>,
    by_span: FxHashMap<Span, usize>,
    failed: bool,
}

impl Sink {
    /// Takes a diagnostic unless its place has one that is at least as grave.
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        self.failed |= diagnostic.severity() == Severity::Error;
        let Some(span) = diagnostic.span() else {
            self.diagnostics.push(diagnostic);
            return;
        };
        match self.by_span.get(&span).and_then(|&at| self.diagnostics.get_mut(at)) {
            Some(known) if known.severity() < diagnostic.severity() => *known = diagnostic,
            Some(_) => {}
            None => {
                self.by_span.insert(span, self.diagnostics.len());
                self.diagnostics.push(diagnostic);
            }
        }
    }

    /// Takes a diagnostic and answers with nothing, for `return sink.fail(..)`.
    pub(crate) fn fail<T>(&mut self, diagnostic: Diagnostic) -> Option<T> {
        self.push(diagnostic);
        None
    }

    /// No policy may come out, although there is nothing to say: a syntax error was told before.
    pub(crate) fn poison(&mut self) {
        self.failed = true;
    }

    /// Whether anything forbids a policy.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// All diagnostics by file and place.
    pub(crate) fn finish(mut self) -> Vec<Diagnostic> {
        self.diagnostics.sort_by_key(|diagnostic| {
            diagnostic.span().map(|span| (span.file, span.start, span.end))
        });
        self.diagnostics
    }
}
