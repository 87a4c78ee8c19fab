//! Writes pieces down, line by line.

use govc_grammar::Token;

use crate::gaps::{self, Gap};
use crate::pieces::{Comment, Piece};
use crate::{COLUMNS_MAX, INDENT};

/// The whole text.
pub(crate) fn write(pieces: &[Piece<'_>], gaps: &[Gap]) -> String {
    let blocks = Blocks::new(pieces, gaps);
    let mut writer = Writer {
        lines: vec![Line::default()],
        open: Vec::new(),
        fresh: false,
        base: 0,
        continuation: INDENT,
        entries: 0,
    };
    for (at, (piece, gap)) in pieces.iter().zip(gaps).enumerate() {
        if *gap == Gap::Item {
            let mut rest = gaps.iter().skip(at + 1).take_while(|gap| **gap != Gap::Item);
            let several = rest.any(|gap| *gap == Gap::Entry);
            let keyword = pieces.get(at + 1).filter(|_| gaps::is_modifier(piece.text));
            writer.start_item(piece.text, keyword.map(|keyword| keyword.text), several);
        }
        writer.piece(piece, *gap);
        match piece.token {
            Some(Token::LeftBrace) if !gaps::opens_set(gaps, at) => {
                let fits = blocks.fits(at, writer.column());
                writer.open_block(fits);
            }
            Some(Token::RightBrace) if *gap == Gap::Edge => writer.close_block(),
            _ => {}
        }
    }
    writer.finish()
}

/// Which blocks can be written on one line, and how wide they are then.
struct Blocks {
    /// Columns from the start of the file to behind each piece, were it all one line.
    reach: Vec<usize>,
    /// Where the block that a piece opens ends, if it can be on one line.
    end: Vec<Option<usize>>,
}

impl Blocks {
    fn new(pieces: &[Piece<'_>], gaps: &[Gap]) -> Self {
        let mut blocks = Self { reach: Vec::new(), end: vec![None; pieces.len()] };
        let mut open: Vec<(usize, bool)> = Vec::new();
        let mut reach = 0;
        for (at, (piece, gap)) in pieces.iter().zip(gaps).enumerate() {
            let first = at > 0 && open.last().is_some_and(|(brace, _)| *brace == at - 1);
            let breaks = !piece.comments.is_empty() || first && *gap == Gap::Edge && piece.breaks;
            if breaks && let Some((_, flat)) = open.last_mut() {
                *flat = false;
            }
            reach += flat_width(*gap) + piece.text.chars().count();
            blocks.reach.push(reach);
            match piece.token {
                Some(Token::LeftBrace) => open.push((at, true)),
                Some(Token::RightBrace) => {
                    let Some((brace, flat)) = open.pop() else { continue };
                    if let Some(end) = blocks.end.get_mut(brace) {
                        *end = flat.then_some(at);
                    }
                    if let Some((_, outer)) = open.last_mut() {
                        *outer &= flat;
                    }
                }
                _ => {}
            }
        }
        blocks
    }

    /// Whether the block that a piece opens fits on the line that the piece ends at a column of.
    fn fits(&self, at: usize, column: usize) -> bool {
        let reach = |at: usize| self.reach.get(at).copied().unwrap_or(usize::MAX);
        let end = self.end.get(at).copied().flatten();
        end.is_some_and(|end| column + (reach(end) - reach(at)) <= COLUMNS_MAX)
    }
}

/// Columns of a gap on one line.
fn flat_width(gap: Gap) -> usize {
    match gap {
        Gap::Tight => 0,
        Gap::Space | Gap::Soft | Gap::Phrase | Gap::Loose | Gap::Edge | Gap::Item => 1,
        Gap::Entry | Gap::Part | Gap::Argument => 2,
    }
}

/// A line of the result.
#[derive(Default)]
struct Line<'s> {
    code: String,
    /// What stands behind the code.
    comment: Option<&'s str>,
}

/// A block that is open.
#[derive(Clone, Copy)]
struct Open {
    one_line: bool,
    /// Indentation of what it is part of.
    base: usize,
    continuation: usize,
}

struct Writer<'s> {
    lines: Vec<Line<'s>>,
    open: Vec<Open>,
    /// Nothing stands in the block yet.
    fresh: bool,
    /// Indentation of the part that is being written.
    base: usize,
    /// Indentation of its further lines.
    continuation: usize,
    /// Column of the entries of the item.
    entries: usize,
}

impl<'s> Writer<'s> {
    /// How the further lines of an item are indented.
    fn start_item(&mut self, first: &str, second: Option<&str>, several: bool) {
        let keyword = second.unwrap_or(first);
        let columns = |word: &str| word.chars().count() + 1;
        self.entries = columns(first) + second.map_or(0, columns);
        self.base = if several { self.entries } else { 0 };
        self.continuation = match keyword {
            "constraint" | "route" | "tier" => self.entries,
            _ => self.base + INDENT,
        };
    }

    fn piece(&mut self, piece: &Piece<'s>, gap: Gap) {
        let one_line = self.open.last().is_some_and(|open| open.one_line);
        let inside = self.open.last().map_or(0, |open| open.base + INDENT);
        let (starts_line, indent) = match gap {
            Gap::Item => (true, 0),
            Gap::Entry => (piece.breaks, self.entries),
            Gap::Part | Gap::Phrase | Gap::Edge => (!one_line, inside),
            Gap::Loose => (piece.breaks && !one_line, inside),
            Gap::Tight | Gap::Space | Gap::Soft | Gap::Argument => (false, self.continuation),
        };
        let goes_on = matches!(gap, Gap::Soft | Gap::Argument) && piece.breaks && !one_line;
        self.comments(&piece.comments, indent);
        let closes = piece.token == Some(Token::RightBrace) && gap == Gap::Edge;
        if starts_line || goes_on || !piece.comments.is_empty() {
            self.break_line(piece.blank && starts_line && !closes);
        }
        let indent = match self.open.last() {
            Some(open) if closes => open.base,
            _ => indent,
        };
        if starts_line && !closes && gap != Gap::Item {
            self.base = indent;
            self.continuation = indent + INDENT;
        }
        self.put(piece.text, indent, gap);
    }

    fn put(&mut self, text: &str, indent: usize, gap: Gap) {
        let Some(line) = self.lines.last_mut().filter(|_| !text.is_empty()) else { return };
        let columns = if line.code.is_empty() { indent } else { flat_width(gap) };
        line.code.extend(std::iter::repeat_n(' ', columns));
        line.code.push_str(text);
        self.fresh = false;
    }

    /// Comments stand behind the code of their line, or on lines of their own.
    fn comments(&mut self, comments: &[Comment<'s>], indent: usize) {
        for comment in comments {
            match self.lines.last_mut() {
                Some(line) if !comment.own_line && !line.code.is_empty() => {
                    line.comment = Some(comment.text);
                }
                _ => {
                    self.break_line(comment.blank);
                    self.put(comment.text, indent, Gap::Tight);
                }
            }
        }
    }

    /// Goes on to a new line; `blank` leaves one out, unless a block or the file starts here.
    fn break_line(&mut self, blank: bool) {
        if self.lines.last().is_some_and(|line| line.code.is_empty()) {
            return;
        }
        if blank && !self.fresh {
            self.lines.push(Line::default());
        }
        self.lines.push(Line::default());
    }

    fn open_block(&mut self, one_line: bool) {
        let Self { base, continuation, .. } = *self;
        self.open.push(Open { one_line, base, continuation });
        self.fresh = true;
    }

    fn close_block(&mut self) {
        if let Some(open) = self.open.pop() {
            (self.base, self.continuation) = (open.base, open.continuation);
        }
    }

    fn column(&self) -> usize {
        self.lines.last().map_or(0, |line| line.code.chars().count())
    }

    /// Comments behind the code of lines that follow each other stand under each other.
    fn finish(self) -> String {
        let mut text = String::new();
        for run in self.lines.chunk_by(|one, next| one.comment.is_some() && next.comment.is_some())
        {
            let width = run.iter().map(|line| line.code.chars().count()).max().unwrap_or(0);
            for Line { code, comment } in run {
                text.push_str(code);
                if let Some(comment) = comment {
                    let columns = width - code.chars().count() + 2;
                    text.extend(std::iter::repeat_n(' ', columns));
                    text.push_str(comment);
                }
                text.push('\n');
            }
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
        text
    }
}
