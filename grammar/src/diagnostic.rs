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

/// How sure a fix is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Applicability {
    /// It says what was meant; a program may apply it without asking.
    MachineApplicable,
    /// It is likely, and somebody has to look at it.
    MaybeIncorrect,
}

/// A piece of text in place of another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Edit {
    /// What is replaced; an empty span is where text is put in.
    pub span: Span,
    /// The new text; empty to remove.
    pub replacement: String,
}

/// A change of the source that answers a diagnostic. All of its edits belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fix {
    /// What it does, lower case, no full stop.
    pub title: String,
    /// Whether it may be applied without asking.
    pub applicability: Applicability,
    /// What changes, without overlaps.
    pub edits: Vec<Edit>,
}

/// Something to say about the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Its stable code.
    pub code: Code,
    /// How grave it is here: the code's own severity unless the caller was told otherwise.
    pub severity: Severity,
    /// One sentence, lower case, no full stop, user text in backticks.
    pub message: String,
    /// The first label is the place of the mistake.
    pub labels: Vec<Label>,
    /// What to do, as a sentence.
    pub help: Option<String>,
    /// Changes that answer it, the likeliest first.
    pub fixes: Vec<Fix>,
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
        Self::without_place(code, message).and(span, text)
    }

    /// A diagnostic that has no place yet, or none at all.
    #[must_use]
    pub fn without_place(code: Code, message: impl Into<String>) -> Self {
        let severity = code.severity;
        let message = message.into();
        Self { code, severity, message, labels: Vec::new(), help: None, fixes: Vec::new() }
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

    /// Offers a text in place of what stands at `span`; an empty one removes it.
    #[must_use]
    pub fn replace(
        self,
        span: Span,
        replacement: impl Into<String>,
        applicability: Applicability,
    ) -> Self {
        let replacement = replacement.into();
        let title = if replacement.is_empty() {
            "remove it".to_owned()
        } else {
            format!("write `{}`", replacement.trim())
        };
        self.fix(title, applicability, vec![Edit { span, replacement }])
    }

    /// Offers a change of several places.
    #[must_use]
    pub fn fix(
        mut self,
        title: impl Into<String>,
        applicability: Applicability,
        edits: Vec<Edit>,
    ) -> Self {
        self.fixes.push(Fix { title: title.into(), applicability, edits });
        self
    }

    /// How grave it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// The place of the mistake.
    #[must_use]
    pub fn span(&self) -> Option<Span> {
        self.labels.first().map(|label| label.span)
    }
}
