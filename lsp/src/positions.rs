//! Places in the editor's terms: lines from 0, and columns in units that were agreed on.

use govc_grammar::span::{FileId, Span};
use lsp_types::{Position, PositionEncodingKind, Range};

/// What columns count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Bytes.
    Utf8,
    /// What the protocol counts unless agreed otherwise.
    Utf16,
}

impl Encoding {
    /// Bytes if the editor takes them, as they cost nothing.
    pub(crate) fn choose(offered: Option<&[PositionEncodingKind]>) -> Self {
        let utf8 = offered.is_some_and(|kinds| kinds.contains(&PositionEncodingKind::UTF8));
        if utf8 { Self::Utf8 } else { Self::Utf16 }
    }

    pub(crate) fn kind(self) -> PositionEncodingKind {
        match self {
            Self::Utf8 => PositionEncodingKind::UTF8,
            Self::Utf16 => PositionEncodingKind::UTF16,
        }
    }

    /// Columns that a text takes.
    pub(crate) fn width(self, text: &str) -> u32 {
        let width = match self {
            Self::Utf8 => text.len(),
            Self::Utf16 if text.is_ascii() => text.len(),
            Self::Utf16 => text.chars().map(char::len_utf16).sum(),
        };
        u32::try_from(width).unwrap_or(u32::MAX)
    }

    /// The byte at a column of a line; the line's end for columns behind it.
    fn byte(self, line: &str, column: u32) -> usize {
        let mut left = column;
        for (at, char) in line.char_indices() {
            let width = match self {
                Self::Utf8 => char.len_utf8(),
                Self::Utf16 => char.len_utf16(),
            };
            match left.checked_sub(u32::try_from(width).unwrap_or(u32::MAX)) {
                // A column inside a character means its start.
                None => return at,
                Some(_) if left == 0 => return at,
                Some(rest) => left = rest,
            }
        }
        line.len()
    }
}

/// Where the lines of a text start.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    starts: Vec<u32>,
}

impl Lines {
    pub(crate) fn new(text: &str) -> Self {
        let breaks = text.bytes().zip(1_u32..).filter(|(byte, _)| *byte == b'\n');
        Self { starts: std::iter::once(0).chain(breaks.map(|(_, behind)| behind)).collect() }
    }

    /// A line without its end.
    fn line<'t>(&self, text: &'t str, line: usize) -> Option<(usize, &'t str)> {
        let start = *self.starts.get(line)? as usize;
        let end = self.starts.get(line + 1).map_or(text.len(), |next| *next as usize);
        let line = text.get(start..end)?;
        Some((start, line.trim_end_matches('\n').trim_end_matches('\r')))
    }

    pub(crate) fn position(&self, text: &str, byte: u32, encoding: Encoding) -> Position {
        let line = self.starts.partition_point(|start| *start <= byte).saturating_sub(1);
        let start = self.starts.get(line).copied().unwrap_or(0) as usize;
        let end = text.floor_char_boundary((byte as usize).min(text.len()));
        let before = text.get(start..end).unwrap_or_default();
        Position::new(u32::try_from(line).unwrap_or(u32::MAX), encoding.width(before))
    }

    pub(crate) fn range(&self, text: &str, span: Span, encoding: Encoding) -> Range {
        let position = |byte| self.position(text, byte, encoding);
        Range::new(position(span.start), position(span.end))
    }

    /// The byte of a position; the text's end for lines behind it.
    pub(crate) fn byte(&self, text: &str, position: Position, encoding: Encoding) -> usize {
        match self.line(text, position.line as usize) {
            Some((start, line)) => start + encoding.byte(line, position.character),
            None => text.len(),
        }
    }

    pub(crate) fn span(&self, text: &str, file: FileId, range: Range, encoding: Encoding) -> Span {
        let byte =
            |position| u32::try_from(self.byte(text, position, encoding)).unwrap_or(u32::MAX);
        Span::new(file, byte(range.start), byte(range.end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_come_back_in_both_encodings() {
        let text = "a é 😀 b\r\n\nüx\n";
        let lines = Lines::new(text);
        for encoding in [Encoding::Utf8, Encoding::Utf16] {
            for (at, char) in text.char_indices().filter(|(_, char)| !char.is_control()) {
                let position = lines.position(text, at as u32, encoding);
                assert_eq!(lines.byte(text, position, encoding), at, "{char} {position:?}");
            }
        }
        let smile = lines.position(text, 7, Encoding::Utf16);
        assert_eq!((smile.line, smile.character), (0, 4), "{smile:?}");
        assert_eq!(lines.position(text, 10, Encoding::Utf16).character, 7);
        assert_eq!(lines.position(text, 10, Encoding::Utf8).character, 10);
        // Inside a character, behind a line, behind the text.
        assert_eq!(lines.byte(text, Position::new(0, 5), Encoding::Utf16), 5);
        assert_eq!(lines.byte(text, Position::new(0, 99), Encoding::Utf16), 11);
        assert_eq!(lines.byte(text, Position::new(99, 0), Encoding::Utf16), text.len());
        assert_eq!(lines.position(text, 999, Encoding::Utf16), Position::new(3, 0));
    }
}
