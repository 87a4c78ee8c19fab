//! Mends the coarse structure of a text that is known to be wrong: puts missing closing braces
//! where keywords and indentation say that they belong, and turns misspelt item keywords into
//! what was meant. Each is reported once.

use crate::chunk::{is_action, item_kind, looks_like_item, token};
use crate::codes;
use crate::diagnostic::Diagnostic;
use crate::lexer::{Lexeme, Token};
use crate::suggest;
use crate::tree::Session;

/// The tokens with their structure mended, all braces closed; `None` if nothing is to mend.
pub(crate) fn repair(lexemes: &[Lexeme], session: &mut Session<'_>) -> Option<Vec<Lexeme>> {
    let mut repair = Repair {
        lexemes,
        session,
        mended: Vec::with_capacity(lexemes.len()),
        open: Vec::new(),
        missing: unclosed(lexemes),
        kind: None,
        changed: false,
    };
    for at in 0..lexemes.len() {
        repair.step(at);
    }
    repair.close_down_to(0, None);
    repair.changed.then_some(repair.mended)
}

/// How many braces are open at the end.
fn unclosed(lexemes: &[Lexeme]) -> usize {
    lexemes.iter().fold(0, |depth, lexeme| match lexeme.token {
        Token::LeftBrace => depth + 1,
        Token::RightBrace => usize::saturating_sub(depth, 1),
        _ => depth,
    })
}

struct Repair<'r, 's> {
    lexemes: &'r [Lexeme],
    session: &'r mut Session<'s>,
    mended: Vec<Lexeme>,
    /// The braces that are open.
    open: Vec<Lexeme>,
    /// How many closing braces are still to be put in.
    missing: usize,
    /// The item that goes on.
    kind: Option<Token>,
    changed: bool,
}

impl Repair<'_, '_> {
    fn step(&mut self, at: usize) {
        let Some(&(mut lexeme)) = self.lexemes.get(at) else { return };
        if lexeme.first && !self.open.is_empty() {
            if self.item_in_braces(at) {
                self.close_down_to(0, Some((lexeme, "the next item starts here")));
            } else if self.open.len() > 1 && self.part_in_part(at, lexeme.indent) {
                self.close_down_to(1, Some((lexeme, "the next part starts here")));
            }
        }
        if self.open.is_empty() {
            if let Some(keyword) = self.misspelt_item(at) {
                lexeme.token = keyword;
                self.changed = true;
            }
            self.kind =
                item_kind(&[lexeme], 0).or_else(|| item_kind(self.lexemes, at)).or(self.kind);
        }
        match lexeme.token {
            Token::LeftBrace => self.open.push(lexeme),
            Token::RightBrace => {
                self.close_what_is_deeper(lexeme);
                self.open.pop();
            }
            _ => {}
        }
        self.mended.push(lexeme);
    }

    /// Whether an item starts at a token inside braces, which must be unclosed then.
    fn item_in_braces(&self, at: usize) -> bool {
        let Some(lexeme) = self.lexemes.get(at) else { return false };
        let before = at.checked_sub(1).and_then(|at| token(self.lexemes, at));
        if item_kind(self.lexemes, at).is_none()
            || matches!(before, Some(Token::Dot | Token::Comma))
        {
            return false;
        }
        let unclosed = self.missing > 0;
        let in_column_one = lexeme.in_column_one();
        let looks_like_item = looks_like_item(self.lexemes, at);
        (looks_like_item && (in_column_one || unclosed)) || (in_column_one && unclosed)
    }

    /// Whether a rule starts inside a rule, or a case of a test inside a packet.
    fn part_in_part(&self, at: usize, indent: u16) -> bool {
        use Token as T;
        let beside = self.open.last().is_some_and(|open| open.indent == indent);
        if self.missing == 0 && !beside {
            return false;
        }
        let here = token(self.lexemes, at);
        let behind = |offset| token(self.lexemes, at + offset);
        match (self.kind, here) {
            (Some(T::Policy), Some(T::Observe)) => behind(1).is_some_and(is_action),
            (Some(T::Policy), Some(action)) if is_action(action) => {
                behind(1).is_some_and(T::is_word)
                    && matches!(behind(2), Some(T::LeftBrace | T::Text))
            }
            (Some(T::Test), Some(T::Packet)) => behind(1) == Some(T::LeftBrace),
            (Some(T::Test), Some(T::Expect)) => behind(1).is_some_and(is_action),
            _ => false,
        }
    }

    /// A closing brace that is less indented than the line of the brace that it would close
    /// belongs to a brace farther out.
    fn close_what_is_deeper(&mut self, close: Lexeme) {
        let deeper = |open: &&Lexeme| open.indent > close.indent;
        let count = self.open.iter().rev().take_while(deeper).count();
        let count = count.min(self.missing).min(self.open.len().saturating_sub(1));
        if close.first && count > 0 {
            let reason = (close, "this closes a brace farther out, as its indentation says");
            self.close_down_to(self.open.len() - count, Some(reason));
        }
    }

    /// Puts closing braces in front of the present token and reports what they close.
    fn close_down_to(&mut self, depth: usize, reason: Option<(Lexeme, &str)>) {
        const LABELS_MAX: usize = 3;
        if self.open.len() <= depth {
            return;
        }
        let unclosed = self.open.split_off(depth);
        self.missing = self.missing.saturating_sub(unclosed.len());
        self.changed = true;
        if let Some(close) = self.mended.last().map(Lexeme::virtual_close) {
            self.mended.extend(unclosed.iter().map(|_| close));
        }
        let mut innermost_first = unclosed.iter().rev().take(LABELS_MAX);
        let Some(first) = innermost_first.next() else { return };
        let span = |lexeme: &Lexeme| self.session.span(lexeme.start, lexeme.end);
        let message = match unclosed.len() {
            1 => "this brace is never closed".to_owned(),
            count => format!("{count} braces are never closed"),
        };
        let mut diagnostic = Diagnostic::new(codes::UNCLOSED, message, span(first), "never closed")
            .help(match unclosed.len() {
                1 => "add a `}`".to_owned(),
                count => format!("add {count} `}}`"),
            });
        for other in innermost_first {
            diagnostic = diagnostic.and(span(other), "never closed");
        }
        if let Some((lexeme, text)) = reason {
            diagnostic = diagnostic.and(span(&lexeme), text);
        }
        self.session.problems.push(diagnostic);
    }

    /// The keyword that a word outside braces was meant to be, reported.
    fn misspelt_item(&mut self, at: usize) -> Option<Token> {
        let lexeme = self.lexemes.get(at).filter(|lexeme| lexeme.token == Token::Word)?;
        let next = token(self.lexemes, at + 1);
        if !next.is_some_and(|next| next.is_word() || next == Token::Text) {
            return None;
        }
        let before = at.checked_sub(1).and_then(|at| token(self.lexemes, at));
        let goes_on = matches!(before, Some(Token::Comma | Token::Dot | Token::Equal));
        if at > 0 && (goes_on || !lexeme.in_column_one()) {
            return None;
        }
        let word = self.session.text_of(lexeme.start, lexeme.end);
        let (meant, keyword) = suggest::item(word)?;
        let span = self.session.span(lexeme.start, lexeme.end);
        self.session.problems.push(suggest::unknown_item(word, meant, span));
        Some(keyword)
    }
}
