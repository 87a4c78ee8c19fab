//! SARIF 2.1.0, for code scanning: one document with one run.

use std::collections::BTreeMap;

use govc_compiler::{pages, sources::Source};
use govc_grammar::diagnostic::{Code, Diagnostic, Fix, Label, Severity};
use govc_grammar::span::Span;
use serde_json::{Value, json};

use super::{page_url, place};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The whole document.
pub(super) fn render(
    diagnostics: &[&Diagnostic],
    sources: &[Source],
) -> Result<String, std::io::Error> {
    let codes: BTreeMap<&str, Code> =
        diagnostics.iter().map(|diagnostic| (diagnostic.code.id, diagnostic.code)).collect();
    let rules: Vec<Value> = codes.values().map(|&code| rule(code)).collect();
    let index: BTreeMap<&str, usize> = codes.keys().copied().zip(0..).collect();
    let results: Vec<Value> = diagnostics
        .iter()
        .map(|diagnostic| result(diagnostic, index.get(diagnostic.code.id), sources))
        .collect();
    let document = json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "govc",
                "semanticVersion": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "columnKind": "utf16CodeUnits",
            "results": results,
        }],
    });
    serde_json::to_string_pretty(&document).map_err(std::io::Error::other)
}

fn rule(code: Code) -> Value {
    let page = pages::page(code.id).unwrap_or_default();
    let mut rule = json!({
        "id": code.id,
        "shortDescription": { "text": code.title },
        "help": { "text": page, "markdown": page },
        "defaultConfiguration": { "level": level(code.severity) },
    });
    if let (Some(url), Some(rule)) = (page_url(code), rule.as_object_mut()) {
        rule.insert("helpUri".into(), url.into());
    }
    rule
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Advice => "note",
    }
}

fn result(diagnostic: &Diagnostic, rule: Option<&usize>, sources: &[Source]) -> Value {
    let help = diagnostic.help.iter().map(|help| format!("\nhelp: {help}"));
    let text = diagnostic.message.clone() + &help.collect::<String>();
    let mut labels = diagnostic.labels.iter();
    let first: Vec<Value> =
        labels.next().and_then(|label| location(label, sources, None)).into_iter().collect();
    let related: Vec<Value> =
        (1..).zip(labels).filter_map(|(id, label)| location(label, sources, Some(id))).collect();
    let fixes: Vec<Value> = diagnostic.fixes.iter().map(|fix| json_fix(fix, sources)).collect();
    let mut result = json!({
        "ruleId": diagnostic.code.id,
        "ruleIndex": rule,
        "level": level(diagnostic.severity()),
        "message": { "text": text },
        "locations": first,
        "relatedLocations": related,
    });
    // A list of fixes must not be empty.
    if let (false, Some(result)) = (fixes.is_empty(), result.as_object_mut()) {
        result.insert("fixes".into(), fixes.into());
    }
    result
}

fn location(label: &Label, sources: &[Source], id: Option<usize>) -> Option<Value> {
    let (artifact, region) = place_of(label.span, sources)?;
    let mut location = json!({
        "physicalLocation": { "artifactLocation": artifact, "region": region },
    });
    let fields = location.as_object_mut()?;
    if !label.text.is_empty() {
        fields.insert("message".into(), json!({ "text": label.text }));
    }
    if let Some(id) = id {
        fields.insert("id".into(), id.into());
    }
    Some(location)
}

fn json_fix(fix: &Fix, sources: &[Source]) -> Value {
    let changes: Vec<Value> = fix
        .edits
        .iter()
        .filter_map(|edit| {
            let (artifact, region) = place_of(edit.span, sources)?;
            Some(json!({
                "artifactLocation": artifact,
                "replacements": [{
                    "deletedRegion": region,
                    "insertedContent": { "text": edit.replacement },
                }],
            }))
        })
        .collect();
    json!({
        "description": { "text": fix.title },
        "artifactChanges": changes,
        "properties": { "applicability": fix.applicability },
    })
}

/// The file and the region in it.
fn place_of(span: Span, sources: &[Source]) -> Option<(Value, Value)> {
    let at = place::region(sources, span)?;
    let region = json!({
        "startLine": at.start.line,
        "startColumn": at.start.column_utf16,
        "endLine": at.end.line,
        "endColumn": at.end.column_utf16,
    });
    Some((json!({ "uri": uri(at.file) }), region))
}

/// A path as a URI reference.
fn uri(path: &str) -> String {
    let mut uri = String::new();
    if path.starts_with('/') {
        uri.push_str("file://");
    }
    for byte in path.trim_start_matches("./").bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

#[cfg(test)]
mod tests {
    use super::uri;

    #[test]
    fn paths_become_uris() {
        assert_eq!(uri("./a b/é.gov"), "a%20b/%C3%A9.gov");
        assert_eq!(uri("/etc/a:b.gov"), "file:///etc/a%3Ab.gov");
    }
}
