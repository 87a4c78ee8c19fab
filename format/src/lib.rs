//! The one layout of `.gov` policies.
//!
//! The author decides where lines break, within rules; everything else follows from the tokens.
//! [`pieces`] reads tokens and comments, [`gaps`] says what belongs between each two of them, and
//! [`lines`] writes them down. None of them knows the grammar as a whole, so that syntax which is
//! added to the language is laid out sensibly before anybody teaches it here.

mod gaps;
mod lines;
mod pieces;

use govc_grammar::ast;
use govc_grammar::diagnostic::{Diagnostic, Severity};
use govc_grammar::span::FileId;
use serde_json::Value;
use thiserror::Error;

/// Columns of a line; a block that was written on one line stays there if it fits.
pub const COLUMNS_MAX: usize = 150;

/// Columns that a block is indented by.
pub const INDENT: usize = 4;

/// Why a text was not laid out.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// It cannot be parsed. Places are those of [`FileId`] 0.
    #[error("the file has syntax errors")]
    Syntax(Vec<Diagnostic>),
    /// The result would mean something else, or lose a comment.
    #[error("the layout would change what the file says")]
    Changed,
}

/// Lays a source out.
///
/// # Errors
/// It has syntax errors; or the result would not say the same, which is a mistake in this crate.
pub fn format(source: &str) -> Result<String, FormatError> {
    let (before, diagnostics) = govc_grammar::parse(FileId(0), source);
    if diagnostics.iter().any(|diagnostic| diagnostic.severity() == Severity::Error) {
        return Err(FormatError::Syntax(diagnostics));
    }
    let pieces = pieces::read(source);
    let laid_out = lines::write(&pieces, &gaps::between(&pieces));
    if laid_out == source {
        return Ok(laid_out);
    }
    let (after, diagnostics) = govc_grammar::parse(FileId(0), &laid_out);
    let sound = diagnostics.iter().all(|diagnostic| diagnostic.severity() != Severity::Error);
    let comments_kept = pieces::comments(&pieces).eq(pieces::comments(&pieces::read(&laid_out)));
    if sound && comments_kept && meaning(&before)? == meaning(&after)? {
        Ok(laid_out)
    } else {
        Err(FormatError::Changed)
    }
}

/// The tree without its places.
fn meaning(file: &ast::File) -> Result<Value, FormatError> {
    let mut tree = serde_json::to_value(file).map_err(|_| FormatError::Changed)?;
    strip_places(&mut tree);
    Ok(tree)
}

fn strip_places(value: &mut Value) {
    match value {
        Value::Object(fields) if is_place(fields) => *value = Value::Null,
        Value::Object(fields) => fields.values_mut().for_each(strip_places),
        Value::Array(values) => values.iter_mut().for_each(strip_places),
        _ => {}
    }
}

/// Only a span has just these fields.
fn is_place(fields: &serde_json::Map<String, Value>) -> bool {
    fields.len() == 3 && ["file", "start", "end"].iter().all(|name| fields.contains_key(*name))
}
