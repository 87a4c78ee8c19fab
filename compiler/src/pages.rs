//! The manual page of each diagnostic code, for `govc explain`.

use govc_grammar::diagnostic::{Code, Severity};

/// All codes of all stages, ascending.
pub fn codes() -> impl Iterator<Item = Code> {
    govc_grammar::codes::ALL.iter().chain(crate::codes::ALL).copied()
}

/// The page of a code, in Markdown.
#[must_use]
pub fn page(id: &str) -> Option<String> {
    let code = codes().find(|code| code.id == id)?;
    let severity = match code.severity {
        Severity::Error => "an error: the policy is not compiled",
        Severity::Warning => {
            "a warning: the policy is compiled, but it probably says something else than you meant"
        }
        Severity::Advice => "advice: nothing is wrong",
    };
    Some(format!("# {}: {}\n\nThis is {severity}.\n", code.id, code.title))
}
