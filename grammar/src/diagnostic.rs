//! The one diagnostic type: what the tool has to say about a place in a source, whatever stage
//! found it. Renderers live with the caller.

use serde::Serialize;

use crate::span::Span;

/// How grave a diagnostic is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; changes nothing.
    Advice,
    /// Probably a mistake; the policy can still be used.
    Warning,
    /// The policy cannot be used.
    Error,
}

/// A stable code with its short title. All codes stand in [`crate::codes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    /// `GOV0001`
    pub id: &'static str,
    /// A few words, lower case, that name the mistake.
    pub title: &'static str,
    /// How grave it is unless told otherwise.
    pub severity: Severity,
}

/// A span with what to say there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Label {
    /// The place.
    pub span: Span,
    /// Lower case, no full stop; may be empty.
    pub text: String,
}

/// Something to say about the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its stable code.
    pub code: Code,
    /// One sentence, lower case, no full stop, user text in backticks.
    pub message: String,
    /// The first label is the place of the mistake.
    pub labels: Vec<Label>,
    /// What to do, as a sentence.
    pub help: Option<String>,
}

impl Diagnostic {
    /// A diagnostic at `span`, with `text` written under it.
    #[must_use]
    pub fn new(
        code: Code,
        message: impl Into<String>,
        span: Span,
        text: impl Into<String>,
    ) -> Self {
        let label = Label { span, text: text.into() };
        Self { code, message: message.into(), labels: vec![label], help: None }
    }

    /// Points at another place as well.
    #[must_use]
    pub fn and(mut self, span: Span, text: impl Into<String>) -> Self {
        self.labels.push(Label { span, text: text.into() });
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }

    /// How grave it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.code.severity
    }

    /// The place of the mistake.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.labels.first().map(|label| label.span)
    }
}
