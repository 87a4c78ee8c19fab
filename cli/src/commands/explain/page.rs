//! The manual page of a diagnostic code.

use govc_compiler::pages;
use govc_grammar::diagnostic::Code;
use serde::Serialize;

use crate::{
    failure::Failure,
    markdown,
    output::{self, Style, line},
};

/// A code for programs.
#[derive(Serialize)]
struct JsonCode {
    code: &'static str,
    title: &'static str,
    severity: govc_grammar::diagnostic::Severity,
    /// The page in Markdown; not in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<&'static str>,
}

impl JsonCode {
    fn new(code: Code, page: Option<&'static str>) -> Self {
        Self { code: code.id, title: code.title, severity: code.severity, page }
    }
}

/// Tells about one code.
pub fn tell(text: &str, json: bool, style: &Style) -> Result<(), Failure> {
    let code = pages::find(text).map_err(|near| Failure::Usage {
        message: format!("there is no diagnostic code `{text}`"),
        help: match near {
            Some(near) => format!("Did you mean {} ({})?", near.id, near.title),
            None => "Codes look like GOV1001; `govc explain --list` shows them all. For a packet, write \
                     `govc explain POLICY 'packet { .. }'`."
                .into(),
        },
    })?;
    let page = pages::page(code.id).unwrap_or_default();
    if json {
        return output::json(&JsonCode::new(code, Some(page)));
    }
    line(markdown::render(page, style).trim_end())
}

/// Lists all codes.
pub fn list(json: bool, style: &Style) -> Result<(), Failure> {
    if json {
        let codes: Vec<JsonCode> = pages::codes().map(|code| JsonCode::new(code, None)).collect();
        return output::json(&codes);
    }
    for code in pages::codes() {
        let severity = output::severity_word(code.severity);
        line(&format!("{}  {severity:<7}  {}", style.bold(code.id), code.title))?;
    }
    Ok(())
}
