//! What belongs between two tokens.

use govc_grammar::Token;

use crate::pieces::Piece;

/// What stands before a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gap {
    /// Nothing.
    Tight,
    /// A space.
    Space,
    /// A space, or the line break that the author made there; the line goes on, indented.
    Soft,
    /// Likewise, two spaces: an argument of a template.
    Argument,
    /// An item starts: always a new line.
    Item,
    /// A further entry of an item without braces, such as `let`: under the first one, or two
    /// spaces.
    Entry,
    /// A part of a block: a line of its own, or two spaces in a block on one line.
    Part,
    /// A part of a block that reads as a sentence: likewise, with one space.
    Phrase,
    /// Something inside a block that may be a part: the author decides.
    Loose,
    /// The first thing behind an opening brace, or the brace that closes it.
    Edge,
}

/// What a brace opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Context {
    /// No brace is open.
    Top,
    /// `{finance, audit}`: names, tight.
    Set,
    /// Words or names, as in `{ read write }` or `{ public < internal }`.
    Words,
    /// Sections, each with a block of its own.
    Sections,
    /// `{ api  batch[64] }`
    Scopes,
    /// `{ never permit from acme.guest }`
    Sentence,
    /// `{ from acme.guest  log }`, and whatever else there will be.
    Clauses,
    /// Likewise, where `on egress` has no objects of its own.
    Packet,
}

/// The gaps before all pieces.
pub(crate) fn between(pieces: &[Piece<'_>]) -> Vec<Gap> {
    let mut reader = Reader {
        pieces,
        open: Vec::new(),
        item: "",
        wants: false,
        gaps: Vec::with_capacity(pieces.len()),
    };
    (0..pieces.len()).for_each(|at| reader.read(at));
    reader.gaps
}

/// Whether a token opens a set of names, and no block.
pub(crate) fn opens_set(gaps: &[Gap], at: usize) -> bool {
    gaps.get(at + 1) == Some(&Gap::Tight)
}

struct Reader<'p, 's> {
    pieces: &'p [Piece<'s>],
    open: Vec<Context>,
    /// The word that the item starts with.
    item: &'s str,
    /// The token before takes what follows as its value, whatever that is.
    wants: bool,
    gaps: Vec<Gap>,
}

impl Reader<'_, '_> {
    fn read(&mut self, at: usize) {
        let Some(piece) = self.pieces.get(at) else { return };
        let context = self.open.last().copied().unwrap_or(Context::Top);
        if piece.item && context == Context::Top {
            let keyword = at + usize::from(is_modifier(piece.text));
            self.item = self.pieces.get(keyword).map_or("", |keyword| keyword.text);
            self.wants = false;
        }
        self.gaps.push(self.gap(at, piece, context));
        match piece.token {
            Some(Token::LeftBrace) => self.open.push(self.opened(at, context)),
            Some(Token::RightBrace) => drop(self.open.pop()),
            _ => {}
        }
        // What is dropped or added stands in braces, or is all of it.
        let whole = self.is_modified(at) && self.text(at.checked_sub(1)) != "cap";
        self.wants = wants_value(piece, self.wants) && !whole;
    }

    fn token(&self, at: Option<usize>) -> Option<Token> {
        at.and_then(|at| self.pieces.get(at)).and_then(|piece| piece.token)
    }

    fn text(&self, at: Option<usize>) -> &str {
        at.and_then(|at| self.pieces.get(at)).map_or("", |piece| piece.text)
    }

    fn opened(&self, at: usize, context: Context) -> Context {
        if self.is_set(at) {
            return Context::Set;
        }
        match (self.item, context, self.text(at.checked_sub(1))) {
            ("operation", ..) | ("domain", Context::Sections, _) => Context::Words,
            ("domain", ..) => Context::Sections,
            ("scope", ..) => Context::Scopes,
            ("assert", ..) => Context::Sentence,
            (_, _, "packet") => Context::Packet,
            _ => Context::Clauses,
        }
    }

    /// Whether names in braces are a value here, such as `in {finance, audit}`.
    fn is_set(&self, at: usize) -> bool {
        let before = self.text(at.checked_sub(1));
        let value = match self.item {
            "operation" | "domain" => false,
            "scope" => before == "in",
            _ => OPERATORS.contains(&before) || matches!(before, "compartments" | "constraints"),
        };
        let mut inside = self.pieces.iter().skip(at + 1).map_while(|piece| piece.token);
        value
            && inside.find(|token| !token.is_word() && *token != Token::Comma)
                == Some(Token::RightBrace)
    }

    fn gap(&self, at: usize, piece: &Piece<'_>, context: Context) -> Gap {
        use Token as T;
        let (before, token) = (self.token(at.checked_sub(1)), piece.token);
        if token.is_none() || context == Context::Top && (piece.item || token == Some(T::AtSign)) {
            return Gap::Item;
        }
        if before == Some(T::LeftBrace) || token == Some(T::RightBrace) {
            let empty = before == Some(T::LeftBrace) && token == Some(T::RightBrace);
            let tight = empty || context == Context::Set;
            return if tight { Gap::Tight } else { Gap::Edge };
        }
        match (before, token) {
            (_, Some(T::Comma | T::Dot | T::DotStar | T::DotStarStar | T::DotDot))
            | (_, Some(T::LeftBracket | T::RightBracket | T::RightParen))
            | (Some(T::Dot | T::DotDot | T::LeftBracket | T::LeftParen | T::AtSign), _)
            | (Some(T::Word), Some(T::LeftParen)) => Gap::Tight,
            (Some(T::Comma), _) if context == Context::Words => Gap::Loose,
            (Some(T::Comma), _) => Gap::Soft,
            _ => self.between_words(at, piece, context),
        }
    }

    fn between_words(&self, at: usize, piece: &Piece<'_>, context: Context) -> Gap {
        use Token as T;
        let Some(token) = piece.token else { return Gap::Item };
        if token == T::AtSign {
            return Gap::Part;
        }
        let before = self.token(at.checked_sub(1));
        let name = token.is_word() && !self.wants;
        match context {
            Context::Top => self.at_top(at, name),
            Context::Words if name && before.is_some_and(T::is_word) => Gap::Loose,
            Context::Sections if name => Gap::Part,
            Context::Scopes if token.is_word() && !entry_goes_on(before, token) => Gap::Part,
            Context::Sentence if name && OPENINGS.contains(&piece.text) => Gap::Phrase,
            Context::Clauses | Context::Packet | Context::Sentence => {
                self.clause(at, piece, context)
            }
            _ if token == T::Below => Gap::Soft,
            _ => Gap::Space,
        }
    }

    /// Outside of braces: entries of lists, and the heads of all else.
    fn at_top(&self, at: usize, name: bool) -> Gap {
        let follows = self.token(Some(at + 1));
        let starts = |at: usize| self.pieces.get(at).is_some_and(|piece| piece.item);
        let first = starts(at.wrapping_sub(1))
            || starts(at.wrapping_sub(2)) && is_modifier(self.text(at.checked_sub(2)));
        let entry = match self.item {
            "operation" => follows == Some(Token::LeftBrace),
            "residency" => true,
            "zone" | "let" => follows == Some(Token::Equal),
            _ => false,
        };
        if entry && name && !first {
            Gap::Entry
        } else if matches!(self.token(Some(at)), Some(Token::And | Token::Except)) {
            Gap::Soft
        } else {
            Gap::Space
        }
    }

    /// Inside a rule, a packet and the like.
    fn clause(&self, at: usize, piece: &Piece<'_>, context: Context) -> Gap {
        if JOINTS.contains(&piece.text) {
            return Gap::Soft;
        }
        if self.wants || !piece.token.is_some_and(Token::is_word) {
            return Gap::Space;
        }
        if self.item == "translate" {
            return self.translation(at, piece);
        }
        let objects = piece.text == "to"
            && context != Context::Packet
            && self.text(at.checked_sub(2)) == "on";
        let ports = piece.text == "source" && self.text(Some(at + 1)) == "port";
        let moment = piece.text == "at" && context == Context::Packet;
        if self.token(Some(at + 1)) == Some(Token::Equal) {
            Gap::Argument
        } else if moment {
            Gap::Part
        } else if objects || ports || GOING_ON.contains(&piece.text) {
            Gap::Space
        } else if context != Context::Sentence && PARTS.contains(&piece.text) {
            Gap::Part
        } else {
            Gap::Loose
        }
    }
}

impl Reader<'_, '_> {
    /// Whether a word of a translation goes on with `add`, `cap` or `drop` before it.
    fn is_modified(&self, at: usize) -> bool {
        self.item == "translate"
            && matches!(self.text(at.checked_sub(1)), "add" | "cap" | "drop")
            && !matches!(self.text(at.checked_sub(2)), "." | "->")
    }

    /// Inside a translation: scopes that become others are parts without a word of their own.
    fn translation(&self, at: usize, piece: &Piece<'_>) -> Gap {
        let mut path = self.pieces.iter().skip(at).map_while(|piece| piece.token);
        let ends = |token: &Token| !token.is_word() && !is_in_path(*token);
        if self.is_modified(at) {
            Gap::Space
        } else if PARTS.contains(&piece.text) || path.find(ends) == Some(Token::Arrow) {
            Gap::Part
        } else {
            Gap::Loose
        }
    }
}

/// Signs within a path.
fn is_in_path(token: Token) -> bool {
    use Token as T;
    matches!(
        token,
        T::Dot | T::DotStar | T::DotStarStar | T::LeftBracket | T::Int | T::RightBracket
    )
}

/// Whether a word stands before the keyword of an item.
pub(crate) fn is_modifier(word: &str) -> bool {
    matches!(word, "observe" | "private")
}

/// Whether a word belongs to the scope before it.
fn entry_goes_on(before: Option<Token>, token: Token) -> bool {
    let links = |token| matches!(token, Token::At | Token::In);
    links(token) || before.is_some_and(links)
}

/// Words that start a part of a block.
#[rustfmt::skip]
const PARTS: [&str; 40] = [
    "add", "cap", "compartments", "constraints", "deny", "destination", "drop", "egress", "expect", "fragment",
    "fragments", "from", "ingress", "level", "life", "like", "log", "max", "object", "observe", "on",
    "operation", "options", "packet", "pass", "permit", "proto", "quarantine", "radius", "readdress", "reject", "residency", "route", "since", "source",
    "subject", "tier", "to", "until", "where",
];

/// Words that open a phrase of an assertion.
const OPENINGS: [&str; 3] = ["always", "never", "unless"];

/// Words that go on with what stands before them.
const GOING_ON: [&str; 12] = [
    "by",
    "code",
    "encrypted",
    "has",
    "in",
    "includes",
    "is",
    "ordered",
    "port",
    "type",
    "within",
    "zone",
];

/// Words and signs between two values.
const OPERATORS: [&str; 12] =
    ["=", "==", "!=", "<", "<=", ">", ">=", "->", "is", "has", "includes", "within"];

/// Words that join conditions, or a list and its exceptions.
const JOINTS: [&str; 3] = ["and", "except", "or"];

/// Whether what follows a piece is its value, and no new part, whatever word it is.
fn wants_value(piece: &Piece<'_>, is_value: bool) -> bool {
    let Some(token) = piece.token else { return false };
    if JOINTS.contains(&piece.text) || OPERATORS.contains(&piece.text) || token == Token::Not {
        return true;
    }
    if !token.is_word() {
        return matches!(token, Token::Comma | Token::Dot | Token::LeftParen | Token::DotDot);
    }
    let alone = matches!(
        token,
        Token::Log
            | Token::Readdress
            | Token::Reject
            | Token::Add
            | Token::Cap
            | Token::Drop
            | Token::Fragment
            | Token::Fragments
            | Token::Options
    );
    let takes_one = PARTS.contains(&piece.text) && !alone
        || OPENINGS.contains(&piece.text)
        || matches!(piece.text, "at" | "by" | "code" | "in" | "port" | "type" | "zone");
    takes_one && !is_value
}
