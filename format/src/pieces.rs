//! Tokens with the comments and line breaks before them.

use govc_grammar::Token;

/// A token, with what stands between it and the one before.
pub(crate) struct Piece<'s> {
    /// `None` at the end of the file.
    pub(crate) token: Option<Token>,
    pub(crate) text: &'s str,
    pub(crate) comments: Vec<Comment<'s>>,
    /// Its line is not the line of the token before.
    pub(crate) breaks: bool,
    /// An empty line stands before it, behind all comments.
    pub(crate) blank: bool,
    /// An item starts here.
    pub(crate) item: bool,
}

/// A comment to the end of its line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Comment<'s> {
    pub(crate) text: &'s str,
    /// It does not share its line with the token before.
    pub(crate) own_line: bool,
    /// An empty line stands before it.
    pub(crate) blank: bool,
}

/// Reads a source that has no syntax errors. The last piece is the end of the file.
pub(crate) fn read(source: &str) -> Vec<Piece<'_>> {
    let mut starts = govc_grammar::item_starts(source).into_iter().peekable();
    let mut pieces: Vec<Piece<'_>> = Vec::new();
    let (mut comments, mut from) = (Vec::new(), 0);
    let end = std::iter::once((None, source.len()..source.len()));
    let tokens = govc_grammar::tokens(source).map(|(token, range)| (Some(token), range));
    for (token, range) in tokens.chain(end) {
        let text = source.get(range.clone()).unwrap_or_default();
        let gap = source.get(from..range.start).unwrap_or_default();
        let rest = take_comments(gap, &mut comments);
        from = range.end;
        if text.starts_with("//") {
            // Documentation that the lexer keeps is laid out like any other comment.
            let own_line = pieces.is_empty() || !comments.is_empty() || rest.contains('\n');
            let text = text.trim_end();
            comments.push(Comment { text, own_line, blank: is_blank(rest) });
            continue;
        }
        pieces.push(Piece {
            token,
            text,
            breaks: !comments.is_empty() || rest.contains('\n'),
            blank: is_blank(rest),
            comments: std::mem::take(&mut comments),
            item: starts.next_if_eq(&range.start).is_some(),
        });
    }
    pieces
}

/// All comments in order.
pub(crate) fn comments<'p>(pieces: &'p [Piece<'_>]) -> impl Iterator<Item = &'p str> {
    pieces.iter().flat_map(|piece| &piece.comments).map(|comment| comment.text)
}

/// Takes the comments out of what stands between two tokens; what is left stands behind them.
fn take_comments<'s>(gap: &'s str, comments: &mut Vec<Comment<'s>>) -> &'s str {
    let mut rest = gap;
    while let Some((before, comment)) = rest.split_once("//") {
        let end = comment.find('\n').unwrap_or(comment.len());
        let at = rest.len() - comment.len() - "//".len();
        let text = rest.get(at..at + "//".len() + end).unwrap_or_default().trim_end();
        let own_line = before.contains('\n') || !comments.is_empty();
        comments.push(Comment { text, own_line, blank: is_blank(before) });
        rest = comment.get(end..).unwrap_or_default();
    }
    rest
}

fn is_blank(space: &str) -> bool {
    space.bytes().filter(|byte| *byte == b'\n').count() > 1
}
