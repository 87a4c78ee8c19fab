//! Finds the word that was meant.

use crate::codes;
use crate::diagnostic::{Applicability, Diagnostic, Edit};
use crate::lexer::Token;
use crate::problems::shorten;
use crate::span::Span;

/// The words that start items.
pub(crate) const ITEMS: [(&str, Token); 20] = [
    ("package", Token::Package),
    ("use", Token::Use),
    ("domain", Token::Domain),
    ("scope", Token::Scope),
    ("constraint", Token::Constraint),
    ("operation", Token::Operation),
    ("residency", Token::Residency),
    ("route", Token::Route),
    ("zone", Token::Zone),
    ("tier", Token::Tier),
    ("let", Token::Let),
    ("stamp", Token::Stamp),
    ("deliver", Token::Deliver),
    ("legacy", Token::Legacy),
    ("carriage", Token::Carriage),
    ("policy", Token::Policy),
    ("template", Token::Template),
    ("test", Token::Test),
    ("assert", Token::Assert),
    ("translate", Token::Translate),
];

/// What other languages call items.
const FOREIGN_ITEMS: [(&str, Token); 8] = [
    ("import", Token::Use),
    ("include", Token::Use),
    ("module", Token::Package),
    ("namespace", Token::Package),
    ("const", Token::Let),
    ("macro", Token::Template),
    ("var", Token::Let),
    ("define", Token::Let),
];

/// What other languages call actions.
const FOREIGN_ACTIONS: [(&str, Token); 12] = [
    ("allow", Token::Permit),
    ("accept", Token::Permit),
    ("grant", Token::Permit),
    ("drop", Token::Deny),
    ("block", Token::Deny),
    ("reject", Token::Deny),
    ("refuse", Token::Deny),
    ("forbid", Token::Deny),
    ("prohibit", Token::Deny),
    ("disallow", Token::Deny),
    ("skip", Token::Pass),
    ("next", Token::Pass),
];

/// The item keyword that a word was meant to be.
pub(crate) fn item(word: &str) -> Option<(&'static str, Token)> {
    if let Some((_, token)) = FOREIGN_ITEMS.iter().find(|(foreign, _)| *foreign == word) {
        return ITEMS.iter().find(|(_, keyword)| keyword == token).copied();
    }
    let meant = similar(word, ITEMS.iter().map(|(keyword, _)| *keyword))?;
    ITEMS.iter().find(|(keyword, _)| *keyword == meant).copied()
}

/// The action that a word of another language stands for.
pub(crate) fn foreign_action(word: &str) -> Option<(&'static str, Token)> {
    let (_, token) = FOREIGN_ACTIONS.iter().find(|(foreign, _)| *foreign == word)?;
    ACTIONS.iter().find(|(_, action)| action == token).copied()
}

/// The action that a word was meant to be.
pub(crate) fn action(word: &str) -> Option<(&'static str, Token)> {
    let meant = similar(word, ACTIONS.iter().map(|(action, _)| *action))?;
    ACTIONS.iter().find(|(action, _)| *action == meant).copied()
}

const ACTIONS: [(&str, Token); 3] =
    [("permit", Token::Permit), ("deny", Token::Deny), ("pass", Token::Pass)];

/// The nearest candidate, if it is near enough to be what was meant.
pub(crate) fn similar<'c>(
    word: &str,
    candidates: impl Iterator<Item = &'c str>,
) -> Option<&'c str> {
    const WORD_BYTES_MAX: usize = 32;
    const SHORT_BYTES_MAX: usize = 5;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let distance_max = if word.len() > SHORT_BYTES_MAX { 2 } else { 1 };
    candidates
        .map(|candidate| (strsim::osa_distance(&word, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= distance_max && distance * 2 < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// A word stands where an item begins, and is not one that begins items.
pub(crate) fn unknown_item(word: &str, meant: &str, span: Span) -> Diagnostic {
    if FOREIGN_ITEMS.iter().any(|(foreign, _)| *foreign == word) {
        return unknown_keyword(word, meant, span, std::iter::empty());
    }
    unknown_keyword(word, meant, span, ITEMS.iter().map(|(keyword, _)| *keyword))
}

/// A word stands where an action belongs, and one is near.
pub(crate) fn unknown_action(word: &str, meant: &str, span: Span) -> Diagnostic {
    unknown_keyword(word, meant, span, ACTIONS.iter().map(|(action, _)| *action))
}

/// A word stands where a keyword belongs, and one is near. Of two that are equally near, either may
/// be meant.
pub(crate) fn unknown_keyword<'c>(
    word: &str,
    meant: &str,
    span: Span,
    candidates: impl Iterator<Item = &'c str>,
) -> Diagnostic {
    let written = word.to_lowercase();
    let distance = |other: &str| strsim::osa_distance(&written, other);
    let nearest = distance(meant);
    let mut rivals = candidates.filter(|other| *other != meant);
    let applicability = if rivals.any(|other| distance(other) <= nearest) {
        Applicability::MaybeIncorrect
    } else {
        Applicability::MachineApplicable
    };
    let message = format!("unknown keyword `{}`", shorten(word));
    let label = format!("did you mean `{meant}`?");
    Diagnostic::new(codes::UNKNOWN_KEYWORD, message, span, label)
        .help(format!("write `{meant}`"))
        .replace(span, meant, applicability)
}

/// A word of another language stands where an action belongs.
pub(crate) fn foreign_action_diagnostic(word: &str, meant: &str, span: Span) -> Diagnostic {
    let message = format!("`{word}` is no action, `{meant}` is");
    let label = "the actions are `permit`, `deny` and `pass`";
    // These do something in other languages that no action does here.
    let applicability = if matches!(word, "reject" | "skip" | "next") {
        Applicability::MaybeIncorrect
    } else {
        Applicability::MachineApplicable
    };
    Diagnostic::new(codes::FOREIGN_ACTION, message, span, label)
        .help(format!("write `{meant}`"))
        .replace(span, meant, applicability)
}

/// `reject name {` stands where a rule belongs: it is a clause of rules that deny. `open` is the
/// brace.
pub(crate) fn reject_as_action(span: Span, open: Option<Span>) -> Diagnostic {
    let message = "`reject` is no action, it is a clause of rules that deny";
    let label = "the actions are `permit`, `deny` and `pass`";
    let told = Diagnostic::new(codes::FOREIGN_ACTION, message, span, label)
        .help("write `deny NAME { reject .. }`");
    let Some(open) = open else { return told };
    let edits = vec![
        Edit { span, replacement: "deny".to_owned() },
        Edit { span: open.behind(), replacement: " reject".to_owned() },
    ];
    told.fix("write `deny`, and `reject` in its braces", Applicability::MaybeIncorrect, edits)
}
