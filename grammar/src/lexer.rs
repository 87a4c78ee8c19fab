//! Text to tokens. [`tokens`] is the raw view; [`lex`] is what the parser reads: every lexical
//! error is reported once and mended, so that it costs no syntax error as well.

use std::fmt;
use std::ops::Range;

use logos::Logos;

use crate::lexical_error;
use crate::problems::Problems;

/// A token of the language. Words that mean something in some places are tokens of their own,
/// and names everywhere else.
#[derive(Logos, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[logos(skip(r"[ \t\r\n\f\u{feff}]+"))]
#[logos(skip(r"//[^\n]*", allow_greedy = true))]
#[rustfmt::skip]
#[expect(missing_docs, reason = "a word or a sign says itself what it is")]
pub enum Token {
    // Words that start an item; no names.
    #[token("package")] Package,
    #[token("use")] Use,
    #[token("domain")] Domain,
    #[token("scope")] Scope,
    #[token("constraint")] Constraint,
    #[token("operation")] Operation,
    #[token("residency")] Residency,
    #[token("route")] Route,
    #[token("zone")] Zone,
    #[token("tier")] Tier,
    #[token("let")] Let,
    #[token("template")] Template,
    #[token("stamp")] Stamp,
    #[token("deliver")] Deliver,
    #[token("legacy")] Legacy,
    #[token("policy")] Policy,
    #[token("test")] Test,
    #[token("assert")] Assert,
    #[token("translate")] Translate,
    // Words that will start items of later versions.
    #[token("authority")] Authority,
    #[token("carriage")] Carriage,
    // Words that mean something in their place.
    #[token("add")] Add,
    #[token("address")] Address,
    #[token("always")] Always,
    #[token("and")] And,
    #[token("anyone")] Anyone,
    #[token("at")] At,
    #[token("by")] By,
    #[token("cap")] Cap,
    #[token("cgroup")] Cgroup,
    #[token("code")] Code,
    #[token("compartments")] Compartments,
    #[token("constraints")] Constraints,
    #[token("deny")] Deny,
    #[token("destination")] Destination,
    #[token("drop")] Drop,
    #[token("egress")] Egress,
    #[token("encrypted")] Encrypted,
    #[token("except")] Except,
    #[token("expect")] Expect,
    #[token("forward")] Forward,
    #[token("fragment")] Fragment,
    #[token("fragments")] Fragments,
    #[token("from")] From,
    #[token("has")] Has,
    #[token("icmp")] Icmp,
    #[token("icmpv6")] Icmpv6,
    #[token("in")] In,
    #[token("includes")] Includes,
    #[token("ingress")] Ingress,
    #[token("interface")] Interface,
    #[token("is")] Is,
    #[token("labelled")] Labelled,
    #[token("level")] Level,
    #[token("life")] Life,
    #[token("like")] Like,
    #[token("log")] Log,
    #[token("max")] Max,
    #[token("never")] Never,
    #[token("not")] Not,
    #[token("object")] Object,
    #[token("observe")] Observe,
    #[token("on")] On,
    #[token("options")] Options,
    #[token("or")] Or,
    #[token("ordered")] Ordered,
    #[token("packet")] Packet,
    #[token("pass")] Pass,
    #[token("permit")] Permit,
    #[token("port")] Port,
    #[token("private")] Private,
    #[token("proto")] Proto,
    #[token("quarantine")] Quarantine,
    #[token("radius")] Radius,
    #[token("readdress")] Readdress,
    #[token("reject")] Reject,
    #[token("sctp")] Sctp,
    #[token("since")] Since,
    #[token("source")] Source,
    #[token("subject")] Subject,
    #[token("tcp")] Tcp,
    #[token("to")] To,
    #[token("type")] Type,
    #[token("udp")] Udp,
    #[token("unless")] Unless,
    #[token("unlabelled")] Unlabelled,
    #[token("until")] Until,
    #[token("when")] When,
    #[token("where")] Where,
    #[token("within")] Within,
    /// Any other word.
    #[regex(r"[A-Za-z_][A-Za-z0-9_]*(-[A-Za-z0-9_]+)*", priority = 3)] Word,

    /// `42`, `1_000`, `0xff`
    #[regex(r"[0-9][0-9_]*|0x[0-9A-Fa-f][0-9A-Fa-f_]*", priority = 5)] Int,
    /// `10.0.0.0/8`, `2001:db8::1`, well-formed or nearly so.
    #[regex(r"[0-9]+(\.[0-9A-Za-z_]+)+(/[0-9A-Za-z_]*)?", priority = 6)]
    #[regex(r"[0-9]+/[0-9A-Za-z_]*", priority = 6)]
    #[regex(r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Za-z_:.%]*(/[0-9A-Za-z_]*)?", priority = 6)]
    #[regex(r"[0-9A-Fa-f]+:[0-9A-Fa-f]+(/[0-9A-Za-z_]*)?", priority = 6)] Prefix,
    /// `"text"`
    #[regex(r#""([^"\\\r\n]|\\[^\r\n])*""#, priority = 6)] Text,

    #[token("@")] AtSign,
    #[token("{")] LeftBrace,
    #[token("}")] RightBrace,
    #[token("(")] LeftParen,
    #[token(")")] RightParen,
    #[token("[")] LeftBracket,
    #[token("]")] RightBracket,
    #[token(",")] Comma,
    #[token(".")] Dot,
    #[token("..")] DotDot,
    #[token(".*")] DotStar,
    #[token(".**")] DotStarStar,
    #[token("=")] Equal,
    #[token("==")] EqualEqual,
    #[token("!=")] NotEqual,
    #[token("<")] Below,
    #[token("<=")] AtMost,
    #[token(">")] Above,
    #[token(">=")] AtLeast,
    #[token("->")] Arrow,

    // What other languages write.
    #[token(";")] Semicolon,
    #[token("&")]
    #[token("&&")] AndAnd,
    #[token("|")]
    #[token("||")] OrOr,
    #[token("!")] Bang,
    #[token("=<")] EqualBelow,
    #[token("=>")] EqualAbove,
    #[token("<>")] BelowAbove,
    /// `'text'`, `“text”`
    #[regex(r"'[^'\r\n]*'")]
    #[regex(r"[“”„][^“”\r\n]*[“”]")] WrongText,
    /// `# text`
    #[regex(r"#[^\n]*", allow_greedy = true)] HashComment,
    /// `/* text */`
    #[regex(r"/\*([^*]|\*+[^*/])*\**/?", allow_greedy = true)] BlockComment,

    // Errors.
    /// `"text`
    #[regex(r#""([^"\\\r\n]|\\[^\r\n]?)*"#, priority = 5)] UnterminatedText,
    /// `3com`, `0xfg`
    #[regex(r"[0-9][0-9A-Za-z_]*(-+[0-9A-Za-z_]+)*", priority = 1)] BadNumber,
    /// `zürich`, `a--b`
    #[regex(
        "[A-Za-z_\u{c0}-\u{1fff}\u{2c00}-\u{d7ff}\u{10000}-\u{10ffff}]\
         [0-9A-Za-z_\u{c0}-\u{1fff}\u{2c00}-\u{d7ff}\u{10000}-\u{10ffff}]*\
         (-+[0-9A-Za-z_\u{c0}-\u{1fff}\u{2c00}-\u{d7ff}\u{10000}-\u{10ffff}]+)*",
        priority = 1
    )] BadName,
    /// A character that no token starts with.
    #[regex(r".|\n", priority = 0)] Unknown,
}

impl Token {
    /// A word that starts an item, in this version or in a later one, and is no name.
    #[must_use]
    #[rustfmt::skip]
    pub const fn is_keyword(self) -> bool {
        matches!(
            self,
            Self::Package | Self::Use | Self::Domain | Self::Scope | Self::Constraint
                | Self::Operation | Self::Residency | Self::Route | Self::Zone | Self::Tier
                | Self::Let | Self::Template | Self::Stamp | Self::Deliver | Self::Legacy | Self::Policy
                | Self::Test | Self::Assert | Self::Translate | Self::Carriage
        ) || self.is_reserved()
    }

    /// A word that will start an item in a later version.
    #[must_use]
    pub const fn is_reserved(self) -> bool {
        matches!(self, Self::Authority)
    }

    /// A word of any kind: name or keyword.
    #[must_use]
    #[rustfmt::skip]
    pub const fn is_word(self) -> bool {
        !self.is_value() && !matches!(
            self,
            Self::AtSign
                | Self::LeftBrace | Self::RightBrace | Self::LeftParen | Self::RightParen
                | Self::LeftBracket | Self::RightBracket | Self::Comma | Self::Dot | Self::DotDot
                | Self::DotStar | Self::DotStarStar | Self::Equal | Self::EqualEqual
                | Self::NotEqual | Self::Below | Self::AtMost | Self::Above | Self::AtLeast
                | Self::Arrow | Self::Semicolon | Self::AndAnd | Self::OrOr | Self::Bang
                | Self::EqualBelow | Self::EqualAbove | Self::BelowAbove | Self::WrongText
                | Self::HashComment | Self::BlockComment | Self::UnterminatedText
                | Self::BadNumber | Self::BadName | Self::Unknown
        )
    }

    /// A token that can have no mistake inside.
    const fn is_sound(self) -> bool {
        self.is_word()
            || matches!(
                self,
                Self::LeftBrace | Self::RightBrace | Self::Comma | Self::Dot | Self::DotStarStar
            )
    }

    /// A number, an address or a text.
    #[must_use]
    pub const fn is_value(self) -> bool {
        matches!(self, Self::Int | Self::Prefix | Self::Text)
    }
}

impl fmt::Display for Token {
    /// The kind of the token, for `--emit tokens`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Word => "name",
            Self::Int => "number",
            Self::Prefix => "address",
            Self::Text => "text",
            Self::HashComment | Self::BlockComment => "comment",
            Self::Unknown | Self::UnterminatedText | Self::BadNumber | Self::BadName => "error",
            token if token.is_word() => "word",
            _ => "sign",
        };
        f.pad(kind)
    }
}

/// The tokens of a source with their bytes; comments and white space are left out, and what is
/// no token is there as such.
pub fn tokens(source: &str) -> impl Iterator<Item = (Token, Range<usize>)> + '_ {
    Token::lexer(source).spanned().map(|(token, range)| (token.unwrap_or(Token::Unknown), range))
}

/// A token as the parser reads it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lexeme {
    pub(crate) token: Token,
    /// It is the first of its line.
    pub(crate) first: bool,
    /// A lexical error beside it was reported and may be the cause of a syntax error here.
    pub(crate) damaged: bool,
    /// How far its line is indented, in bytes.
    pub(crate) indent: u16,
    pub(crate) start: u32,
    pub(crate) end: u32,
}

impl Lexeme {
    /// The first of its line, and the line is not indented.
    pub(crate) fn in_column_one(&self) -> bool {
        self.first && self.indent == 0
    }

    /// A closing brace that was not written, right behind this token.
    pub(crate) fn virtual_close(&self) -> Self {
        let token = Token::RightBrace;
        Self { token, first: false, damaged: false, start: self.end, ..*self }
    }
}

/// The tokens of a source that is shorter than 4 GiB, lexical errors reported and mended.
pub(crate) fn lex(source: &str, problems: &mut Problems) -> Vec<Lexeme> {
    let mut lexemes: Vec<Lexeme> = Vec::with_capacity(source.len() / 5);
    let mut line = Line::new(source);
    let mut damaged = false;
    let mut lost_until = None;
    for (token, range) in tokens(source) {
        let (start, end) = (offset(range.start), offset(range.end));
        let mended = if token.is_sound() {
            Mended::Good(token)
        } else {
            lexical_error::mend(source, token, start..end, &lexemes, problems)
        };
        let (token, guess) = match mended {
            Mended::Good(token) => (token, false),
            Mended::Guess(token) => (token, true),
            Mended::Drop => continue,
            Mended::Lost => {
                if lost_until != Some(start) {
                    lexical_error::unknown_character(source, start..end, problems);
                }
                lost_until = Some(end);
                damaged = true;
                lexemes.last_mut().into_iter().for_each(|before| before.damaged = true);
                continue;
            }
        };
        let first = line.reach(source, range);
        let damaged = std::mem::take(&mut damaged) || guess;
        lexemes.push(Lexeme { token, first, damaged, indent: line.indent, start, end });
    }
    lexemes
}

/// What becomes of a token that may be a lexical error.
pub(crate) enum Mended {
    /// It is this token, for sure.
    Good(Token),
    /// It is probably this token; a syntax error here would not be worth telling.
    Guess(Token),
    /// It can be left out.
    Drop,
    /// It is no token, and what belongs there is unknown.
    Lost,
}

/// Follows the lines of a source.
struct Line {
    start: usize,
    reached: usize,
    indent: u16,
    fresh: bool,
}

impl Line {
    fn new(source: &str) -> Self {
        let start = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { start, reached: start, indent: 0, fresh: true }
    }

    /// Goes on to a token; whether it is the first of its line.
    fn reach(&mut self, source: &str, token: Range<usize>) -> bool {
        let gap = source.as_bytes().get(self.reached..token.start).unwrap_or_default();
        if let Some(newline) = gap.iter().rposition(|byte| *byte == b'\n') {
            self.start = self.reached + newline + 1;
            self.fresh = true;
        }
        self.reached = token.end;
        if self.fresh {
            self.indent = u16::try_from(token.start - self.start).unwrap_or(u16::MAX);
        }
        std::mem::take(&mut self.fresh)
    }
}

/// Offsets fit, since larger files are refused.
fn offset(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}
