//! Canonical JSON: the one way in which a signed object is written.
//!
//! Objects are written without white space, their fields in the order of their declaration. What
//! is read is written again and compared, so that unknown, repeated and reordered fields, white
//! space, escapes and other spellings of numbers are all refused. What was signed is never
//! ambiguous, and a digest over the text is a digest over the meaning.

use serde::{Serialize, de::DeserializeOwned};
use thiserror::Error;

/// Characters of a reason that are told.
const REASON_CHARS_MAX: usize = 200;

/// Why a text is not the canonical form of an object.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormError {
    /// Beyond the limit of this kind of object.
    #[error("{len} bytes, more than the {max} that are read; split it or take a newer version")]
    TooLong {
        /// Its length.
        len: usize,
        /// The limit.
        max: usize,
    },
    /// Not this kind of object.
    #[error("line {line}, column {column}: {why}; write it with this tool, not by hand")]
    Json {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What was wanted.
        why: String,
    },
    /// The object, but written in another way.
    #[error(
        "the text is not in canonical form; remove white space after it and everything that was \
         added, or write it with this tool again"
    )]
    NotCanonical,
    /// It cannot be written as JSON.
    #[error("cannot be written as JSON: {0}")]
    Unwritable(String),
}

/// The canonical form of an object.
///
/// # Errors
/// The object cannot be written as JSON, such as maps whose keys are no texts.
pub fn write<T: Serialize>(object: &T) -> Result<Vec<u8>, FormError> {
    serde_json::to_vec(object).map_err(|error| FormError::Unwritable(error.to_string()))
}

/// Reads an object of at most `max` bytes from its canonical form.
///
/// # Errors
/// The text is too long, holds something else or is written in another way.
pub fn read<T: Serialize + DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, FormError> {
    if bytes.len() > max {
        return Err(FormError::TooLong { len: bytes.len(), max });
    }
    let object = serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        // The place is told apart from the reason.
        let text = error.to_string();
        let why = text.split(" at line ").next().unwrap_or(&text);
        // Values stand in double quotes. They may be secrets that were named by mistake.
        let why = why.split(" \"").next().unwrap_or(why);
        // Names of fields are quoted as well, however long and whatever they do to terminals.
        let why = why.chars().take(REASON_CHARS_MAX).flat_map(char::escape_debug).collect();
        FormError::Json { line, column, why }
    })?;
    if write(&object)? == bytes { Ok(object) } else { Err(FormError::NotCanonical) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Domain;

    #[test]
    fn only_one_spelling_is_read() {
        let domain = Domain { name: "acme".into(), number: 7 };
        let text = write(&domain).unwrap();
        assert_eq!(text, br#"{"name":"acme","number":7}"#);
        assert_eq!(read::<Domain>(&text, 100), Ok(domain));
        for wrong in [
            r#"{"number":7,"name":"acme"}"#,
            r#"{"name":"acme","number":7} "#,
            r#"{"name": "acme","number":7}"#,
            r#"{"name":"\u0061cme","number":7}"#,
        ] {
            assert_eq!(read::<Domain>(wrong.as_bytes(), 100), Err(FormError::NotCanonical));
        }
        for wrong in [
            "",
            "7",
            r#"{"name":"acme","number":7.0}"#,
            r#"{"name":"acme","number":7,"number":7}"#,
            r#"{"name":"acme","number":7,"more":1}"#,
            r#"{"name":"acme","number":7}{}"#,
            r#"{"name":"acme","number":65536}"#,
        ] {
            assert!(matches!(read::<Domain>(wrong.as_bytes(), 100), Err(FormError::Json { .. })));
        }
        assert_eq!(read::<Domain>(&text, 25), Err(FormError::TooLong { len: 26, max: 25 }));
    }

    #[test]
    fn reasons_are_short_and_harmless() {
        let text = format!("{{\"\\u001b[31m{}\":1}}", "x".repeat(1000));
        let error = read::<Domain>(text.as_bytes(), 2000).unwrap_err().to_string();
        assert!(error.len() < 600 && !error.contains('\u{1b}'), "{error}");
    }

    #[test]
    fn reasons_quote_no_values() {
        let text = br#"{"name":7,"number":"swordfish"}"#;
        let error = read::<Domain>(text, 100).unwrap_err().to_string();
        assert!(error.contains("invalid type"), "{error}");
        let text = br#"{"name":"acme","number":"swordfish"}"#;
        let error = read::<Domain>(text, 100).unwrap_err().to_string();
        assert!(error.contains("invalid type: string") && !error.contains("sword"), "{error}");
    }

    #[test]
    fn deep_nesting_ends_in_an_error() {
        let deep = "[".repeat(100_000);
        assert!(read::<Vec<Vec<u8>>>(deep.as_bytes(), 1 << 20).is_err());
        assert!(read::<serde_json::Value>(deep.as_bytes(), 1 << 20).is_err());
    }
}
