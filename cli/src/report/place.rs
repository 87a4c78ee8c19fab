//! Places in texts, counted as each format counts them.

use govc_compiler::sources::Source;
use govc_grammar::span::Span;
use serde::Serialize;

/// A place; lines and columns start at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Position {
    pub(crate) line: usize,
    /// In characters.
    pub(crate) column: usize,
    /// In UTF-16 code units.
    #[serde(skip)]
    pub(crate) column_utf16: usize,
}

/// A span with its file and both of its ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Region<'s> {
    pub(crate) file: &'s str,
    pub(crate) start: Position,
    pub(crate) end: Position,
}

/// Finds lines and columns; `None` when there is no such file.
pub(crate) fn region(sources: &[Source], span: Span) -> Option<Region<'_>> {
    let source = sources.get(span.file.0 as usize)?;
    let start = position(&source.text, span.start as usize);
    let end = position(&source.text, span.end as usize);
    Some(Region { file: &source.name, start, end })
}

/// A place behind the end counts as the end.
fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..text.floor_char_boundary(offset)).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.get(line_start..).unwrap_or_default();
    Position {
        line: before.bytes().filter(|&byte| byte == b'\n').count() + 1,
        column: line.chars().count() + 1,
        column_utf16: line.encode_utf16().count() + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_what_they_say() {
        let at = |offset| {
            let place = position("a\n😀é x", offset);
            (place.line, place.column, place.column_utf16)
        };
        assert_eq!(at(0), (1, 1, 1));
        assert_eq!(at(2), (2, 1, 1));
        assert_eq!(at(6), (2, 2, 3));
        assert_eq!(at(9), (2, 4, 5));
        assert_eq!(at(99), (2, 5, 6));
    }
}
