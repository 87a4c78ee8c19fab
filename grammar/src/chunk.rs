//! Cuts tokens into pieces before the grammar sees them, so that an error in one piece cannot
//! reach the next.
//!
//! Texts without errors are cut by braces and by keywords outside braces alone, however they are
//! laid out. Lines and columns count only where a text is wrong anyway; see [`crate::repair`].

use crate::lexer::{Lexeme, Token};

/// The tokens of one item, or tokens that are none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Chunk<'l> {
    pub(crate) lexemes: &'l [Lexeme],
    /// The keyword of the item; `None` if the tokens are no item.
    pub(crate) kind: Option<Token>,
    /// Every brace in it is closed.
    pub(crate) closed: bool,
}

/// Cuts a file into its items. A closing brace that closes nothing is a chunk of its own.
pub(crate) fn items(lexemes: &[Lexeme]) -> Vec<Chunk<'_>> {
    let mut chunks: Vec<Chunk<'_>> = Vec::new();
    let mut push = |begin: usize, end: usize, kind: Option<Token>, closed: bool| {
        if let Some(lexemes) = lexemes.get(begin..end).filter(|lexemes| !lexemes.is_empty()) {
            chunks.push(Chunk { lexemes, kind, closed });
        }
    };
    let (mut begin, mut depth) = (0, 0_usize);
    let mut kind = None;
    let mut after_junk = false;
    for (at, lexeme) in lexemes.iter().enumerate() {
        if depth == 0 && at > begin && starts_item(lexemes, at, kind) {
            push(begin, at, kind, true);
            (begin, after_junk) = (at, kind.is_none());
        }
        if at == begin {
            // Behind tokens that are no item, not every keyword is to be trusted.
            let trusted = !after_junk || lexeme.in_column_one() || looks_like_item(lexemes, at);
            kind = item_kind(lexemes, at).filter(|_| trusted);
        }
        match lexeme.token {
            Token::LeftBrace => depth += 1,
            Token::RightBrace if depth == 0 => {
                push(begin, at, kind, true);
                push(at, at + 1, None, true);
                (begin, after_junk) = (at + 1, false);
            }
            Token::RightBrace => {
                depth -= 1;
                if depth == 0 && ends_with_brace(kind) {
                    push(begin, at + 1, kind, true);
                    (begin, after_junk) = (at + 1, kind.is_none());
                }
            }
            _ => {}
        }
    }
    push(begin, lexemes.len(), kind, depth == 0);
    chunks
}

/// The keyword of the item that starts at a token, if one does.
pub(crate) fn item_kind(lexemes: &[Lexeme], at: usize) -> Option<Token> {
    match token(lexemes, at) {
        Some(Token::Observe) if token(lexemes, at + 1) == Some(Token::Policy) => {
            Some(Token::Policy)
        }
        Some(keyword) if keyword.is_keyword() => Some(keyword),
        _ => None,
    }
}

/// Whether the tokens behind a keyword fit to an item and to nothing inside an item.
pub(crate) fn looks_like_item(lexemes: &[Lexeme], at: usize) -> bool {
    use Token as T;
    let behind = |offset| token(lexemes, at + offset);
    let name = behind(1).is_some_and(T::is_word);
    match token(lexemes, at) {
        Some(T::Policy | T::Scope | T::Operation) => name && behind(2) == Some(T::LeftBrace),
        Some(T::Observe) => behind(2).is_some_and(T::is_word) && behind(3) == Some(T::LeftBrace),
        Some(T::Domain | T::Let | T::Zone | T::Residency) => name && behind(2) == Some(T::Equal),
        Some(T::Test) => behind(1) == Some(T::Text),
        Some(T::Template) => name && matches!(behind(2), Some(T::LeftBrace | T::LeftParen)),
        Some(T::Assert) => name && matches!(behind(2), Some(T::LeftBrace | T::Text)),
        Some(T::Use | T::Package | T::Constraint) => name,
        Some(T::Stamp | T::Deliver) => behind(1) == Some(T::On),
        Some(T::Legacy) => behind(1) == Some(T::From),
        Some(T::Translate) => name && behind(2) == Some(T::Arrow),
        Some(T::Carriage) => name && behind(2) == Some(T::To),
        Some(T::Tier | T::Route) => name && behind(2) == Some(T::Comma),
        _ => false,
    }
}

/// Whether the tokens before a place go on with a name, whatever stands there.
pub(crate) fn wants_name(lexemes: &[Lexeme], at: usize) -> bool {
    use Token as T;
    let before = |back: usize| at.checked_sub(back).and_then(|at| token(lexemes, at));
    match before(1) {
        Some(T::Dot | T::Comma | T::Equal) => true,
        Some(keyword) => keyword.is_keyword() && before(2) != Some(T::Dot),
        None => false,
    }
}

/// Whether `observe` at a token belongs to the policy behind it and is no name.
fn is_observe_policy(lexemes: &[Lexeme], at: usize) -> bool {
    use Token as T;
    !wants_name(lexemes, at)
        && token(lexemes, at) == Some(T::Observe)
        && token(lexemes, at + 1) == Some(T::Policy)
}

/// Whether the item goes on behind its first closing brace.
fn ends_with_brace(kind: Option<Token>) -> bool {
    use Token as T;
    !matches!(
        kind,
        Some(
            T::Package
                | T::Use
                | T::Constraint
                | T::Operation
                | T::Residency
                | T::Route
                | T::Zone
                | T::Tier
                | T::Let
                | T::Authority
                | T::Carriage
        )
    )
}

/// Whether an item starts at a token outside braces, while an item of a kind goes on.
fn starts_item(lexemes: &[Lexeme], at: usize, kind: Option<Token>) -> bool {
    use Token as T;
    let Some(keyword) = item_kind(lexemes, at) else { return false };
    if token(lexemes, at) == Some(T::Observe) {
        return is_observe_policy(lexemes, at);
    }
    let before = |back: usize| at.checked_sub(back).and_then(|at| token(lexemes, at));
    let in_label = matches!(kind, Some(T::Stamp | T::Deliver | T::Legacy | T::Carriage));
    match before(1) {
        Some(T::Dot) => return false,
        Some(T::Observe) if is_observe_policy(lexemes, at - 1) => return false,
        Some(T::From) if keyword == T::Zone && in_label => return false,
        _ => {}
    }
    // What follows leaves correct texts alone: here a keyword stands where a name belongs.
    let Some(lexeme) = lexemes.get(at) else { return false };
    if lexeme.in_column_one() {
        return true;
    }
    let next = token(lexemes, at + 1);
    if kind.is_none() {
        // Behind tokens that are no item anyway.
        return lexeme.first && looks_like_item(lexemes, at);
    }
    let names_group = kind == Some(T::Operation) && next == Some(T::LeftBrace);
    let after_keyword =
        before(1).is_some_and(T::is_keyword) && before(2) != Some(T::Dot) && !lexeme.first;
    let after_link =
        in_label && matches!(before(1), Some(T::On | T::From | T::To | T::And | T::When));
    let in_list = matches!(before(1), Some(T::Comma | T::Equal));
    let gives_names = matches!(kind, Some(T::Domain | T::Residency | T::Zone | T::Let));
    let is_named = gives_names && next == Some(T::Equal);
    !(names_group || after_keyword || after_link || in_list || is_named)
}

/// Cuts the body of a policy into rules and what else stands there.
pub(crate) fn policy_parts(body: &[Lexeme]) -> Vec<&[Lexeme]> {
    use Token as T;
    cut(body, true, |at, lexeme| {
        let before = at.checked_sub(1).and_then(|at| token(body, at));
        let starts = match lexeme.token {
            T::On | T::Tier | T::Permit | T::Deny | T::Pass | T::Observe => true,
            // No action, though other languages have it as one.
            T::Reject => {
                let name = token(body, at + 1).is_some_and(T::is_word);
                name && matches!(token(body, at + 2), Some(T::LeftBrace | T::Text))
            }
            other => lexeme.first && other.is_word() && !is_clause_word(other),
        };
        let after_head = matches!(
            before,
            Some(T::To | T::On | T::Tier | T::Permit | T::Deny | T::Pass | T::Observe)
        );
        let known = lexeme.token != T::Word && lexeme.first && before != Some(T::Observe);
        starts && !matches!(before, Some(T::Dot | T::Comma)) && (!after_head || known)
    })
}

/// Cuts the body of a rule into clauses.
pub(crate) fn clauses(body: &[Lexeme]) -> Vec<&[Lexeme]> {
    use Token as T;
    let mut begin = 0;
    cut(body, false, |at, lexeme| {
        let word = token(body, begin);
        // A word that is a clause by itself is no name that the next word goes on with.
        let whole = begin + 1 == at
            && matches!(word, Some(T::Log | T::Reject | T::Fragments | T::Options))
            && is_clause_word(lexeme.token);
        let starts = whole || starts_clause(body, at, lexeme, word == Some(T::Proto));
        if starts {
            begin = at;
        }
        starts
    })
}

fn starts_clause(body: &[Lexeme], at: usize, lexeme: &Lexeme, in_proto: bool) -> bool {
    use Token as T;
    let before = at.checked_sub(1).and_then(|at| token(body, at));
    let next = token(body, at + 1);
    if before.is_some_and(links_conditions) {
        // A clause word that is followed by a value is no name, even behind a comma.
        let next = body.get(at + 1).filter(|next| !next.first).map(|next| next.token);
        return lexeme.first
            && before != Some(T::Dot)
            && is_clause_word(lexeme.token)
            && next.is_some_and(|next| {
                (next.is_word() || next.is_value()) && !links_conditions(next)
            });
    }
    let of_proto = matches!(lexeme.token, T::Port | T::Type | T::Code)
        || (lexeme.token == T::Source && next == Some(T::Port));
    if in_proto && of_proto {
        return false;
    }
    if is_clause_word(lexeme.token) {
        return lexeme.first || !before.is_some_and(is_clause_word);
    }
    let goes_on = links_conditions(lexeme.token) || before.is_some_and(is_clause_word);
    lexeme.first && lexeme.token.is_word() && !goes_on
}

/// Cuts the body of a test into its cases.
pub(crate) fn test_cases(body: &[Lexeme]) -> Vec<&[Lexeme]> {
    cut(body, false, |at, lexeme| {
        let before = at.checked_sub(1).and_then(|at| token(body, at));
        lexeme.token == Token::Packet && before != Some(Token::Dot)
    })
}

/// Cuts at the tokens outside inner braces that start a piece, and behind inner braces if told.
fn cut(
    lexemes: &[Lexeme],
    behind_braces: bool,
    mut starts: impl FnMut(usize, &Lexeme) -> bool,
) -> Vec<&[Lexeme]> {
    let mut pieces = Vec::new();
    let (mut begin, mut depth) = (0, 0_usize);
    let mut end_at = |begin: &mut usize, end: usize| {
        pieces.extend(lexemes.get(*begin..end).filter(|piece| !piece.is_empty()));
        *begin = end;
    };
    for (at, lexeme) in lexemes.iter().enumerate() {
        match lexeme.token {
            Token::LeftBrace => depth += 1,
            Token::RightBrace => {
                depth = depth.saturating_sub(1);
                if depth == 0 && behind_braces {
                    end_at(&mut begin, at + 1);
                }
            }
            _ if depth == 0 && at > begin && starts(at, lexeme) => end_at(&mut begin, at),
            _ => {}
        }
    }
    end_at(&mut begin, lexemes.len());
    pieces
}

/// Whether what stands behind tokens belongs to a list of senders, objects, operations, addresses
/// or numbers, and to no condition.
pub(crate) fn in_list(before: &[Lexeme]) -> bool {
    use Token as T;
    /// Lists that are longer are written by programs, which do not mistake the language.
    const TOKENS_MAX: usize = 1024;
    let mut depth = 0_usize;
    for (at, lexeme) in before.iter().enumerate().rev().take(TOKENS_MAX) {
        match lexeme.token {
            T::RightBrace => depth += 1,
            T::LeftBrace if depth == 0 => return false,
            T::LeftBrace => depth -= 1,
            _ if depth > 0 => {}
            T::Where | T::When => return false,
            // Sets have `within` as well, and `=` where they are defined.
            token if is_operator(token) && !matches!(token, T::Within | T::Equal) => return false,
            T::From
            | T::To
            | T::Operation
            | T::Source
            | T::Destination
            | T::Port
            | T::Type
            | T::Code
            | T::Let => {
                // `.from` is a name.
                let dot = at.checked_sub(1).and_then(|at| token(before, at)) == Some(T::Dot);
                if !dot {
                    return true;
                }
            }
            _ => {}
        }
    }
    false
}

/// A word that starts a clause of a rule.
pub(crate) const fn is_clause_word(token: Token) -> bool {
    use Token as T;
    matches!(
        token,
        T::From
            | T::To
            | T::Operation
            | T::Where
            | T::Proto
            | T::Source
            | T::Destination
            | T::Log
            | T::Since
            | T::Until
            | T::Reject
            | T::Quarantine
            | T::Fragments
            | T::Options
            | T::Like
    )
}

/// A token behind which a clause goes on, whatever comes.
pub(crate) const fn links_conditions(token: Token) -> bool {
    use Token as T;
    matches!(token, T::Comma | T::Dot | T::LeftParen | T::LeftBracket | T::And | T::Or | T::Not)
        || is_operator(token)
}

/// A comparison.
pub(crate) const fn is_operator(token: Token) -> bool {
    use Token as T;
    matches!(
        token,
        T::Is
            | T::Equal
            | T::EqualEqual
            | T::NotEqual
            | T::Below
            | T::AtMost
            | T::Above
            | T::AtLeast
            | T::Within
            | T::Includes
            | T::Has
    )
}

/// What a rule says.
pub(crate) const fn is_action(token: Token) -> bool {
    matches!(token, Token::Permit | Token::Deny | Token::Pass)
}

/// The token at a place, if there is one.
pub(crate) fn token(lexemes: &[Lexeme], at: usize) -> Option<Token> {
    lexemes.get(at).map(|lexeme| lexeme.token)
}
