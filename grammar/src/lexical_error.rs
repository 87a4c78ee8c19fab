//! What is wrong inside a token or between tokens, and which token was probably meant.

use std::ops::Range;

use crate::chunk::in_list;
use crate::codes;
use crate::diagnostic::{Applicability, Code, Diagnostic};
use crate::lexer::{Lexeme, Mended, Token};
use crate::literal;
use crate::problems::{Problems, shorten};
use crate::span::Span;

/// Looks into one token and reports what is wrong with it; `before` are the tokens before it.
pub(crate) fn mend(
    source: &str,
    token: Token,
    range: Range<u32>,
    before: &[Lexeme],
    problems: &mut Problems,
) -> Mended {
    use Token as T;
    let text = source.get(range.start as usize..range.end as usize).unwrap_or_default();
    let span = problems.span(range.start, range.end);
    if matches!(token, T::AndAnd | T::OrOr | T::Bang) && in_list(before) {
        let from = before.last().is_some_and(|last| last.token == T::From);
        problems.push(operator_in_list(text, token, span, from));
        return if token == T::Bang { Mended::Drop } else { Mended::Guess(T::Comma) };
    }
    let fix = sure_fix(source, token, range.clone());
    let mut report = |code, message: String, label: &str, help: &str| {
        let diagnostic = Diagnostic::new(code, message, span, label).help(help);
        problems.push(match &fix {
            Some(text) => diagnostic.replace(span, text, Applicability::MachineApplicable),
            None => diagnostic,
        });
    };
    match token {
        T::Int => match literal::number(text) {
            Ok(_) => Mended::Good(T::Int),
            Err(why) => {
                let message = format!("the number `{}` is too large", shorten(text));
                report(codes::BAD_NUMBER, message, "does not fit into 64 bits", why);
                Mended::Good(T::Int)
            }
        },
        T::Prefix => {
            if let Err(why) = literal::prefix(text) {
                bad_address(text, &why, &mut report);
            }
            Mended::Good(T::Prefix)
        }
        T::Text => {
            bad_escape(text, range.start, problems);
            Mended::Good(T::Text)
        }
        T::UnterminatedText | T::WrongText => {
            bad_quotes(token, &mut report);
            Mended::Guess(T::Text)
        }
        T::HashComment | T::BlockComment => {
            let sign = if token == T::HashComment { "#" } else { "/*" };
            let message = format!("`{sign}` does not start a comment");
            let help = "a comment starts with `//` and ends with its line";
            report(codes::FOREIGN_COMMENT, message, "left out", help);
            Mended::Drop
        }
        T::Semicolon => {
            let help = "remove it; nothing has to stand between rules, clauses or items";
            report(codes::SEMICOLON, "`;` is not needed".to_owned(), "not needed", help);
            Mended::Drop
        }
        T::AndAnd | T::OrOr | T::Bang | T::EqualBelow | T::EqualAbove | T::BelowAbove => {
            let (meant, word) = meant_operator(token);
            let message = format!("`{text}` is written `{word}` here");
            let help = format!("write `{word}`");
            report(codes::FOREIGN_OPERATOR, message, "not an operator", &help);
            Mended::Guess(meant)
        }
        T::BadNumber => bad_number(text, &mut report),
        T::BadName => {
            let help = "a name consists of the letters `a` to `z` and `A` to `Z`, digits, `_`, \
                        and single `-` in its midst";
            let message = format!("`{}` cannot be a name", shorten(text));
            report(codes::BAD_NAME, message, "ill-formed name", help);
            Mended::Guess(T::Word)
        }
        T::Unknown => Mended::Lost,
        good => Mended::Good(good),
    }
}

/// Lists have no operators: what is meant stands side by side, and what is not, behind `except`.
fn operator_in_list(text: &str, token: Token, span: Span, from: bool) -> Diagnostic {
    let (word, help) = if token == Token::Bang {
        ("except", "name what is meant first: `from anyone except acme.guest`")
    } else {
        (",", "separate what stands in a list by `,`")
    };
    let message = format!("`{text}` is written `{word}` in a list");
    let told = Diagnostic::new(codes::FOREIGN_OPERATOR, message, span, "not an operator");
    let told = told.help(help);
    match token {
        Token::Bang if from => told.replace(span, "anyone except ", Applicability::MaybeIncorrect),
        Token::Bang => told,
        _ => told.replace(span, ",", Applicability::MaybeIncorrect),
    }
}

/// What to write instead of a token, where there is only one thing that it can have meant.
fn sure_fix(source: &str, token: Token, range: Range<u32>) -> Option<String> {
    use Token as T;
    let (start, end) = (range.start as usize, range.end as usize);
    let text = source.get(start..end)?;
    match token {
        T::Semicolon => Some(String::new()),
        T::AndAnd | T::OrOr | T::Bang | T::EqualBelow | T::EqualAbove | T::BelowAbove => {
            let word = meant_operator(token).1;
            let glued = |char: Option<char>| char.is_some_and(|c| c.is_alphanumeric() || c == '(');
            let before = if glued(source.get(..start)?.chars().next_back()) { " " } else { "" };
            let behind = if glued(source.get(end..)?.chars().next()) { " " } else { "" };
            Some(format!("{before}{word}{behind}"))
        }
        T::HashComment => Some(format!("//{}", text.strip_prefix('#')?)),
        T::BlockComment => {
            let rest_of_line = source.get(end..)?.lines().next().unwrap_or_default();
            let inner = text.strip_prefix("/*")?.strip_suffix("*/")?;
            let alone = rest_of_line.trim().is_empty() && !inner.contains('\n');
            alone.then(|| format!("//{}", inner.trim_end()))
        }
        T::WrongText => {
            let mut inner = text.chars();
            inner.next();
            inner.next_back();
            let inner = inner.as_str();
            (!inner.contains(['"', '\\'])).then(|| format!("\"{inner}\""))
        }
        T::BadNumber => {
            let (low, high) = text.split_once('-')?;
            let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            (digits(low) && digits(high)).then(|| format!("{low}..{high}"))
        }
        _ => None,
    }
}

/// Reports a character that no token starts with.
pub(crate) fn unknown_character(source: &str, range: Range<u32>, problems: &mut Problems) {
    let text = source.get(range.start as usize..range.end as usize).unwrap_or_default();
    let span = problems.span(range.start, range.end);
    let Some(char) = text.chars().next() else { return };
    if matches!(char, '\'' | '`' | '“' | '”' | '„') {
        let message = "texts are written in double quotes".to_owned();
        let diagnostic = Diagnostic::new(codes::WRONG_QUOTES, message, span, "another quote");
        return problems.push(diagnostic.help("write `\"..\"`"));
    }
    let name = if is_invisible(char) {
        format!("U+{:04X}, which cannot be seen", u32::from(char))
    } else {
        format!("`{char}`")
    };
    let message = format!("unknown character {name}");
    let diagnostic =
        Diagnostic::new(codes::UNKNOWN_CHARACTER, message, span, "means nothing in a policy");
    problems.push(match char {
        ':' => {
            diagnostic.help("remove it; a field and its value stand side by side: `level public`")
        }
        '*' => diagnostic
            .help("a star follows a dot: `acme.*`, `acme.**`; for everybody write `from anyone`"),
        '-' => diagnostic.help("ranges are written `8000..8099`, and prefixes `10.0.0.0/8`"),
        _ if is_invisible(char) => {
            // What only looks like a space is one; the others separate nothing.
            let meant = if char.is_whitespace() { " " } else { "" };
            diagnostic.help("remove it").replace(span, meant, Applicability::MachineApplicable)
        }
        _ => diagnostic.help("remove it"),
    });
}

/// Characters that get into files by copying from elsewhere, and that nobody sees.
fn is_invisible(char: char) -> bool {
    let without_width = ['\u{ad}'..='\u{ad}', '\u{200b}'..='\u{200f}', '\u{202a}'..='\u{206f}'];
    char.is_control()
        || char.is_whitespace()
        || without_width.iter().any(|range| range.contains(&char))
}

type Report<'r> = dyn FnMut(Code, String, &str, &str) + 'r;

fn bad_address(text: &str, why: &str, report: &mut Report<'_>) {
    let kind = if text.contains(':') { "IPv6" } else { "IPv4" };
    let message = format!("`{}` is not an {kind} address: {why}", shorten(text));
    let help = if text.contains(':') {
        "an IPv6 prefix looks like `2001:db8::/32`"
    } else {
        "an IPv4 prefix looks like `10.0.0.0/8`"
    };
    report(codes::BAD_ADDRESS, message, "ill-formed", help);
}

fn bad_quotes(token: Token, report: &mut Report<'_>) {
    if token == Token::WrongText {
        let message = "texts are written in double quotes".to_owned();
        return report(codes::WRONG_QUOTES, message, "other quotes", "write `\"..\"`");
    }
    let message = "this text has no closing quote".to_owned();
    let label = "starts here, and the line ends before it does";
    let help = "end it with `\"`; a text cannot go on in the next line, but `\\n` stands for one";
    report(codes::UNTERMINATED_TEXT, message, label, help);
}

fn bad_escape(text: &str, start: u32, problems: &mut Problems) {
    let Some((at, length)) = literal::bad_escape(text) else { return };
    let escape = text.get(at..at + length).unwrap_or_default();
    let at = start + u32::try_from(at).unwrap_or_default();
    let span = problems.span(at, at + u32::try_from(length).unwrap_or_default());
    let message = format!("`{escape}` means nothing in a text");
    let help = "the escapes are `\\\"`, `\\\\`, `\\n` and `\\t`; write `\\\\` for a backslash";
    problems.push(Diagnostic::new(codes::BAD_ESCAPE, message, span, "unknown escape").help(help));
}

fn bad_number(text: &str, report: &mut Report<'_>) -> Mended {
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let text_short = shorten(text);
    if let Some((low, high)) = text.split_once('-')
        && digits(low)
        && digits(high)
    {
        let message = format!("`{text_short}` is not a range");
        let help = format!("write `{}..{}`", shorten(low), shorten(high));
        report(codes::BAD_NUMBER, message, "ill-formed range", &help);
        return Mended::Guess(Token::Int);
    }
    if text.starts_with("0x") {
        let message = format!("`{text_short}` is not a number");
        let help = "after `0x` stand the digits `0` to `9` and `a` to `f`";
        report(codes::BAD_NUMBER, message, "ill-formed number", help);
        return Mended::Guess(Token::Int);
    }
    let message = format!("`{text_short}` is neither a number nor a name");
    let help = "a name starts with a letter or `_`; a number has digits only";
    report(codes::BAD_NAME, message, "starts like a number and goes on like a name", help);
    Mended::Guess(Token::Word)
}

const fn meant_operator(token: Token) -> (Token, &'static str) {
    match token {
        Token::AndAnd => (Token::And, "and"),
        Token::OrOr => (Token::Or, "or"),
        Token::Bang => (Token::Not, "not"),
        Token::EqualBelow => (Token::AtMost, "<="),
        Token::EqualAbove => (Token::AtLeast, ">="),
        _ => (Token::NotEqual, "!="),
    }
}
