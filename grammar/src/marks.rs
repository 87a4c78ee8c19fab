//! What stands before items, rules and entries and belongs to none of them: `@expect`,
//! `@deprecated`, `private` and documentation. It is taken out of the tokens before those are cut
//! into items.

use std::collections::BTreeMap;

use crate::ast::Covered;
use crate::chunk::{self, token, wants_name};
use crate::lexer::{Lexeme, Token};
use crate::parse::split_braces;

/// The tokens of one mark.
pub(crate) struct Taken {
    pub(crate) lexemes: Vec<Lexeme>,
    /// Where the token behind it starts, unless it is the last.
    pub(crate) next: Option<u32>,
}

/// Takes out every `@` with what belongs to it, as far as it is written, and every `private`
/// before the keyword of an item.
pub(crate) fn take(lexemes: &mut Vec<Lexeme>) -> Vec<Taken> {
    let is_mark = |lexeme: &Lexeme| matches!(lexeme.token, Token::AtSign | Token::Private);
    if !lexemes.iter().any(is_mark) {
        return Vec::new();
    }
    let all = std::mem::take(lexemes);
    let mut taken: Vec<Taken> = Vec::new();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(lexeme) = all.get(at) {
        let length = match lexeme.token {
            Token::AtSign => length_behind_sign(&all, at),
            Token::Private if depth == 0 && is_private(&all, at, lexemes) => 1,
            _ => 0,
        };
        if length > 0 {
            let lexemes = all.get(at..at + length).unwrap_or_default().to_vec();
            taken.push(Taken { lexemes, next: None });
            at += length;
            continue;
        }
        match lexeme.token {
            Token::LeftBrace => depth += 1,
            Token::RightBrace => depth = depth.saturating_sub(1),
            _ => {}
        }
        for one in taken.iter_mut().rev().take_while(|one| one.next.is_none()) {
            one.next = Some(lexeme.start);
        }
        lexemes.push(*lexeme);
        at += 1;
    }
    taken
}

/// How many tokens belong to the `@` at a place: `@expect CODE "why"`, `@deprecated "what else"`.
/// A misspelt keyword is part of it as well, so that the grammar can tell.
fn length_behind_sign(lexemes: &[Lexeme], at: usize) -> usize {
    let is = |offset: usize, wanted: Token| token(lexemes, at + offset) == Some(wanted);
    match () {
        () if !is(1, Token::Expect) && !is(1, Token::Word) => 1,
        () if is(2, Token::Text) => 3,
        () if !is(2, Token::Word) => 2,
        () if is(3, Token::Text) => 4,
        () => 3,
    }
}

/// Whether `private` at a place belongs to the item behind it and is no name. `before` is what
/// was left of the tokens before it.
fn is_private(lexemes: &[Lexeme], at: usize, before: &[Lexeme]) -> bool {
    chunk::item_kind(lexemes, at + 1).is_some() && !wants_name(before, before.len())
}

/// The kinds of items that have entries with names of their own.
const WITH_ENTRIES: [Token; 3] = [Token::Domain, Token::Scope, Token::Operation];

/// What a mark may stand before.
pub(crate) struct Places<'l> {
    items: Vec<chunk::Chunk<'l>>,
    /// Items and parts of policies by where they start, with where they end.
    whole: BTreeMap<u32, (u32, Covered)>,
}

impl<'l> Places<'l> {
    pub(crate) fn new(lexemes: &'l [Lexeme]) -> Self {
        let items: Vec<_> =
            chunk::items(lexemes).into_iter().filter(|item| item.kind.is_some()).collect();
        let mut whole = BTreeMap::new();
        let mut add = |piece: &[Lexeme], covered: Covered| {
            if let (Some(first), Some(last)) = (piece.first(), piece.last()) {
                whole.insert(first.start, (last.end, covered));
            }
        };
        for item in &items {
            if item.kind == Some(Token::Policy)
                && let Some((_, body)) = split_braces(item.lexemes)
            {
                chunk::policy_parts(body).into_iter().for_each(|part| add(part, Covered::Rule));
            }
            add(item.lexemes, Covered::Item);
        }
        Self { items, whole }
    }

    /// The item or rule that starts at a byte: where it ends, and which it is.
    pub(crate) fn whole(&self, start: u32) -> Option<(u32, Covered)> {
        self.whole.get(&start).copied()
    }

    /// The item that starts at a byte.
    pub(crate) fn item(&self, start: u32) -> Option<Token> {
        let item = |item: &&chunk::Chunk<'_>| {
            item.lexemes.first().is_some_and(|first| first.start == start)
        };
        self.items.iter().find(item).and_then(|item| item.kind)
    }

    /// Likewise, or the name of an entry of a vocabulary that starts there.
    pub(crate) fn any(&self, start: u32) -> Option<(u32, Covered)> {
        self.whole(start).or_else(|| {
            let behind = self.items.partition_point(|item| {
                item.lexemes.first().is_some_and(|first| first.start <= start)
            });
            let item = self.items.get(behind.checked_sub(1)?)?;
            let at = item.lexemes.binary_search_by_key(&start, |lexeme| lexeme.start).ok()?;
            let name = item.lexemes.get(at).filter(|lexeme| lexeme.token.is_word())?;
            let kind = item.kind.filter(|kind| WITH_ENTRIES.contains(kind));
            kind.map(|_| (name.end, Covered::Entry))
        })
    }
}

/// Lines of documentation that belong together.
pub(crate) struct Documentation {
    pub(crate) text: String,
    pub(crate) start: u32,
    pub(crate) end: u32,
    /// `//!`: about the file.
    pub(crate) about_file: bool,
    /// It shares its first line with the token before.
    pub(crate) trailing: bool,
    /// Where the token behind it starts, unless it is the last.
    pub(crate) next: Option<u32>,
    /// It is the first in the file.
    pub(crate) leads: bool,
}

/// All documentation of a source: it stands between the tokens.
pub(crate) fn documentation(source: &str, lexemes: &[Lexeme]) -> Vec<Documentation> {
    let mut found = Vec::new();
    if !source.contains("///") && !source.contains("//!") {
        return found;
    }
    let mut from = 0;
    let ends = lexemes.iter().map(|lexeme| (lexeme.start, lexeme.end, Some(lexeme.start)));
    let length = u32::try_from(source.len()).unwrap_or(u32::MAX);
    for (start, end, next) in ends.chain([(length, length, None)]) {
        let gap = source.get(from as usize..start as usize).unwrap_or_default();
        if gap.contains("//") {
            in_gap(gap, from, next, &mut found);
        }
        from = end;
    }
    found
}

/// What stands between two tokens, line by line.
fn in_gap(gap: &str, from: u32, next: Option<u32>, found: &mut Vec<Documentation>) {
    let mut at = from;
    let mut goes_on = false;
    for (number, line) in gap.split_inclusive('\n').enumerate() {
        let text = line.trim();
        let indent = u32::try_from(line.len() - line.trim_start().len()).unwrap_or(0);
        let start = at + indent;
        let end = start + u32::try_from(text.len()).unwrap_or(0);
        at += u32::try_from(line.len()).unwrap_or(0);
        let about_file = text.starts_with("//!");
        if !about_file && (!text.starts_with("///") || text.starts_with("////")) {
            goes_on = false;
            continue;
        }
        let words = text.get(3..).unwrap_or_default();
        let words = words.strip_prefix(' ').unwrap_or(words);
        match found.last_mut().filter(|last| goes_on && last.about_file == about_file) {
            Some(last) => {
                last.text.push('\n');
                last.text.push_str(words);
                last.end = end;
            }
            None => found.push(Documentation {
                text: words.to_owned(),
                start,
                end,
                about_file,
                trailing: number == 0 && from > 0,
                next,
                leads: from == 0,
            }),
        }
        goes_on = true;
    }
}
