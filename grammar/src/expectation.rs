//! Expectations stand before items and rules, and belong to neither: they are taken out of the
//! tokens before those are cut into items.

use std::collections::BTreeMap;

use crate::chunk;
use crate::lexer::{Lexeme, Token};
use crate::parse::split_braces;

/// The tokens of one expectation.
pub(crate) struct Taken {
    pub(crate) lexemes: Vec<Lexeme>,
    /// Where the token behind it starts, unless it is the last.
    pub(crate) next: Option<u32>,
}

/// The tokens of an expectation behind the `@`.
const SHAPE: [Token; 3] = [Token::Expect, Token::Word, Token::Text];

/// Takes out every `@` with what belongs to it, as far as it is written.
pub(crate) fn take(lexemes: &mut Vec<Lexeme>) -> Vec<Taken> {
    if !lexemes.iter().any(|lexeme| lexeme.token == Token::AtSign) {
        return Vec::new();
    }
    let mut taken: Vec<Taken> = Vec::new();
    let mut kept = Vec::with_capacity(lexemes.len());
    let mut rest = lexemes.drain(..).peekable();
    while let Some(lexeme) = rest.next() {
        if lexeme.token != Token::AtSign {
            taken.iter_mut().rev().take_while(|one| one.next.is_none()).for_each(|one| {
                one.next = Some(lexeme.start);
            });
            kept.push(lexeme);
            continue;
        }
        let mut lexemes = vec![lexeme];
        for token in SHAPE {
            // A misspelt keyword is part of it as well, so that the grammar can tell.
            let fits = |next: &Lexeme| {
                next.token == token || token == Token::Expect && next.token == Token::Word
            };
            match rest.next_if(fits) {
                Some(next) => lexemes.push(next),
                None => break,
            }
        }
        taken.push(Taken { lexemes, next: None });
    }
    drop(rest);
    *lexemes = kept;
    taken
}

/// All items and parts of policies by where they start, as start and end.
pub(crate) fn places(lexemes: &[Lexeme]) -> BTreeMap<u32, (u32, u32)> {
    let mut places = BTreeMap::new();
    let mut add = |piece: &[Lexeme]| {
        if let (Some(first), Some(last)) = (piece.first(), piece.last()) {
            places.insert(first.start, (first.start, last.end));
        }
    };
    for item in chunk::items(lexemes) {
        if item.kind == Some(Token::Policy)
            && let Some((_, body)) = split_braces(item.lexemes)
        {
            chunk::policy_parts(body).into_iter().for_each(&mut add);
        }
        if item.kind.is_some() {
            add(item.lexemes);
        }
    }
    places
}
