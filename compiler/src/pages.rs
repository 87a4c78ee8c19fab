//! The manual page of each diagnostic code, for `govc explain`. The pages are the files of
//! `docs/diagnostics/`, embedded as they are.

use govc_grammar::diagnostic::Code;

use crate::suggest;

/// Ids with their pages, ascending.
const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// All codes of all stages, ascending.
pub fn codes() -> impl Iterator<Item = Code> {
    govc_grammar::codes::ALL.iter().chain(crate::codes::ALL).copied()
}

/// The page of a code, in Markdown.
#[must_use]
pub fn page(id: &str) -> Option<&'static str> {
    let at = PAGES.binary_search_by_key(&id, |(id, _)| id).ok()?;
    PAGES.get(at).map(|(_, text)| *text)
}

/// The code that somebody means by `GOV1001`, `gov1001` or `1001`.
///
/// # Errors
/// There is no such code; the one that is written most alike, when one is.
pub fn find(text: &str) -> Result<Code, Option<Code>> {
    let upper = text.trim().to_ascii_uppercase();
    if upper.is_empty() {
        return Err(None);
    }
    let digits = upper.strip_prefix("GOV").unwrap_or(&upper);
    let id = format!("GOV{digits:0>4}");
    let found = |id: &str| codes().find(|code| code.id == id);
    found(&id).ok_or_else(|| suggest::nearest(&id, codes().map(|code| code.id)).and_then(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_however_they_are_written() {
        for text in ["GOV1001", "gov1001", "1001", " Gov1001 "] {
            assert_eq!(find(text), Ok(crate::codes::UNKNOWN_PACKAGE), "{text}");
        }
        assert_eq!(find("27"), Ok(govc_grammar::codes::MORE_ERRORS));
        assert_eq!(find("GOV10O1"), Err(Some(crate::codes::UNKNOWN_PACKAGE)));
        assert_eq!(find("policy"), Err(None));
        assert_eq!(find(""), Err(None));
    }

    #[test]
    fn codes_and_pages_belong_together() {
        assert!(codes().is_sorted_by(|one, other| one.id < other.id));
        assert!(PAGES.is_sorted());
        let ids: Vec<&str> = PAGES.iter().map(|(id, _)| *id).collect();
        assert_eq!(ids, codes().map(|code| code.id).collect::<Vec<_>>());
    }
}
