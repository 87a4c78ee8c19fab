//! Drives the generated parser over the pieces of a file.
//!
//! A correct item costs one run of the parser. Where a run fails, the item is mended and cut into
//! smaller pieces (see [`crate::repair`] and [`crate::chunk`]), and each is parsed on its own, so
//! that one mistake costs one diagnostic and leaves its neighbours alone.

use lalrpop_util::ParseError;
use smol_str::SmolStr;

use crate::ast::{
    Clause, Covered, Expectation, File, Item, Mark, MarkKind, Path, Rule, Test, TestCase,
};
use crate::chunk::{self, Chunk, is_action, item_kind, token};
use crate::codes;
use crate::diagnostic::{Code, Diagnostic};
use crate::lexer::{self, Lexeme, Token};
use crate::marks::{self, Documentation, Places, Taken};
use crate::problems::Problems;
use crate::repair::repair;
use crate::span::{FileId, Span};
use crate::suggest;
use crate::syntax_error::{self, Failure};
use crate::tree::{Parsed, PolicyPart, Session, Start, Terminal, fill_policy};
use crate::{FILE_BYTES_MAX, NESTING_MAX, gov};

/// Reads a source file. What cannot be understood is an [`Item::Error`] or left out, and at least
/// one diagnostic is an error then.
///
/// Tokens that are ill-formed in themselves are in the tree with a value of no meaning.
#[must_use]
pub fn parse(file: FileId, source: &str) -> (File, Vec<Diagnostic>) {
    let mut problems = Problems::new(file);
    if source.len() > FILE_BYTES_MAX {
        let message =
            format!("the file has {} bytes, and at most {FILE_BYTES_MAX} are read", source.len());
        let diagnostic =
            Diagnostic::new(codes::FILE_TOO_LARGE, message, Span::new(file, 0, 0), "too large");
        problems.push(diagnostic.help("split it into several files of one package"));
        return (File::default(), problems.finish());
    }
    let mut lexemes = lexer::lex(source, &mut problems);
    let taken = marks::take(&mut lexemes);
    let documentation = marks::documentation(source, &lexemes);
    let mut driver = Driver {
        session: Session { source, problems },
        parser: gov::PieceParser::new(),
        package: Package::Missing,
        items: Vec::new(),
        expectations: Vec::new(),
        marks: Vec::new(),
        documentation: None,
        last: Last::Good,
        untold: 0,
    };
    let marked = !taken.is_empty() || !documentation.is_empty();
    let places = marked.then(|| Places::new(&lexemes));
    for taken in &taken {
        places.iter().for_each(|places| driver.mark(taken, places));
    }
    for chunk in chunk::items(&lexemes) {
        driver.chunk(chunk);
    }
    // Behind syntax errors, what belongs where is not known.
    let sound = !driver.session.problems.grew_since(0);
    for found in documentation {
        let misplaced = places.as_ref().and_then(|places| driver.documentation(&found, places));
        driver.session.problems.push_all(misplaced.filter(|_| sound));
    }
    driver.finish(&lexemes)
}

/// Where the items of a source start, for tools that lay text out: the parser cuts it at the same
/// places. `private` belongs to its item; other marks stand before the items that they speak about.
#[must_use]
pub fn item_starts(source: &str) -> Vec<usize> {
    let mut problems = Problems::new(FileId(0));
    let mut lexemes = lexer::lex(source, &mut problems);
    let taken = marks::take(&mut lexemes);
    let chunks = chunk::items(&lexemes);
    let private = |start: u32| {
        let words = taken.iter().filter(|taken| taken.next == Some(start));
        words.flat_map(|taken| taken.lexemes.first()).find(|word| word.token == Token::Private)
    };
    let first = |chunk: &Chunk<'_>| {
        let start = chunk.lexemes.first()?.start;
        Some(private(start).map_or(start, |word| word.start) as usize)
    };
    chunks.iter().filter(|chunk| chunk.kind.is_some()).filter_map(first).collect()
}

struct Driver<'s> {
    session: Session<'s>,
    parser: gov::PieceParser,
    package: Package,
    items: Vec<Item>,
    expectations: Vec<Expectation>,
    marks: Vec<Mark>,
    documentation: Option<SmolStr>,
    last: Last,
    /// Faulty items since there is no room for further diagnostics.
    untold: usize,
}

/// Faulty items that are tried although nothing can be said about them any more; to find an
/// error takes far longer than to read a correct item.
const UNTOLD_MAX: usize = 1000;

/// What is known of the package line.
enum Package {
    Missing,
    /// It is there and wrong.
    Faulty,
    Named(Path),
}

/// How the item before went.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Good,
    Faulty,
    /// It was no item at all.
    Junk,
}

impl Driver<'_> {
    fn finish(mut self, lexemes: &[Lexeme]) -> (File, Vec<Diagnostic>) {
        if matches!(self.package, Package::Missing) {
            let (start, end) = lexemes.first().map_or((0, 0), |first| (first.start, first.end));
            let span = self.session.span(start, end);
            let message = "the file does not say which package it belongs to";
            let label = "a `package` line belongs before this";
            let help = "begin the file with a line such as `package acme.payments`";
            let diagnostic = Diagnostic::new(codes::MISSING_PACKAGE, message, span, label);
            self.session.problems.push(diagnostic.help(help));
        }
        let package = match self.package {
            Package::Named(path) => Some(path),
            Package::Missing | Package::Faulty => None,
        };
        let Self { items, expectations, mut marks, documentation, .. } = self;
        marks.sort_by_key(|mark| mark.span.start);
        let file = File { package, items, expectations, marks, documentation };
        (file, self.session.problems.finish())
    }

    /// Reads what was taken out, and finds what it speaks about.
    fn mark(&mut self, taken: &Taken, places: &Places<'_>) {
        let [first, rest @ ..] = taken.lexemes.as_slice() else { return };
        let next = taken.next;
        if first.token == Token::Private {
            let kind = next.and_then(|next| places.item(next));
            if kind.is_some_and(has_names) {
                let place = next.and_then(|next| Some((next, places.whole(next)?)));
                return self.add_mark(MarkKind::Private, self.span_of(&taken.lexemes), place);
            }
            let message = "`private` hides names from other packages, and this item has none";
            return self.misplaced(codes::USELESS_PRIVATE, message, taken, "hides nothing");
        }
        let word = rest.first().map(|word| self.session.text_of(word.start, word.end));
        if word != Some("deprecated") {
            return self.expectation(taken, places);
        }
        let [_, text] = rest else {
            let message = "a deprecation says what to use instead";
            return self.misplaced(codes::UNEXPECTED, message, taken, "a text belongs behind it");
        };
        let place = next.and_then(|next| Some((next, places.any(next)?)));
        match place {
            Some((_, (_, Covered::Item | Covered::Entry))) => {
                let kind = MarkKind::Deprecated(self.session.quoted(text.start, text.end));
                self.add_mark(kind, self.span_of(&taken.lexemes), place);
            }
            _ => {
                let message = "this deprecation speaks about no name that others could use";
                let label = "no item or entry with names starts behind it";
                self.misplaced(codes::MISPLACED_DEPRECATION, message, taken, label);
            }
        }
    }

    fn add_mark(&mut self, kind: MarkKind, span: Span, place: Option<(u32, (u32, Covered))>) {
        if let Some((start, (end, covered))) = place {
            let covers = self.session.span(start, end);
            self.marks.push(Mark { kind, span, covered, covers });
        }
    }

    fn misplaced(&mut self, code: Code, message: &str, taken: &Taken, label: &str) {
        let help = match code {
            codes::USELESS_PRIVATE => "remove `private`",
            codes::MISPLACED_DEPRECATION => "put it before what is deprecated, or remove it",
            _ => "write it in quotes, such as `@deprecated \"use acme.payments.api instead\"`",
        };
        let span = self.span_of(&taken.lexemes);
        self.session.problems.push(Diagnostic::new(code, message, span, label).help(help));
    }

    fn expectation(&mut self, taken: &Taken, places: &Places<'_>) {
        let parsed = self.run_or_explain(Start::Expectation, &taken.lexemes);
        let Some(Parsed::Expectation(mut expectation)) = parsed else { return };
        match taken.next.and_then(|next| Some((next, places.whole(next)?))) {
            Some((start, (end, _))) => {
                expectation.covers = self.session.span(start, end);
                self.expectations.push(expectation);
            }
            None => {
                let message = "this expectation speaks about nothing";
                let label = "no item or rule starts behind it";
                let help = "put it before the item or rule that the warning is about";
                let code = codes::MISPLACED_EXPECTATION;
                self.session
                    .problems
                    .push(Diagnostic::new(code, message, expectation.span, label).help(help));
            }
        }
    }

    /// Keeps documentation, or says that it documents nothing.
    fn documentation(&mut self, found: &Documentation, places: &Places<'_>) -> Option<Diagnostic> {
        let span = self.session.span(found.start, found.end);
        if found.about_file && found.leads {
            self.documentation = Some(found.text.as_str().into());
            return None;
        }
        let place = found.next.and_then(|next| Some((next, places.any(next)?)));
        if place.is_some() && !found.about_file && !found.trailing {
            self.add_mark(MarkKind::Documentation(found.text.as_str().into()), span, place);
            return None;
        }
        let (message, help) = if found.about_file {
            (
                "documentation of a file stands at its top",
                "move it above the `package` line, or write `//`",
            )
        } else {
            (
                "this documents nothing",
                "put it on lines of its own before an item, a rule or an entry of a vocabulary, or \
                 write `//`",
            )
        };
        let label = if found.about_file { "not at the top" } else { "nothing starts behind it" };
        let code = codes::MISPLACED_DOCUMENTATION;
        Some(Diagnostic::new(code, message, span, label).help(help))
    }

    /// Parses one item, mends it if it is wrong.
    fn chunk(&mut self, chunk: Chunk<'_>) {
        let lexemes = chunk.lexemes;
        let mut failure = None;
        if chunk.closed {
            match self.item(chunk) {
                Ok(()) => return,
                Err(why) => failure = Some(why),
            }
        }
        let Some(mended) = repair(lexemes, &mut self.session) else {
            return self.recover(chunk, failure.unwrap_or(Fault::NoItem));
        };
        self.last = Last::Faulty;
        for part in chunk::items(&mended) {
            if let Err(failure) = self.item(part) {
                self.recover(part, failure);
            }
        }
    }

    /// Parses the tokens as one item without mistakes.
    fn item(&mut self, chunk: Chunk<'_>) -> Result<(), Fault> {
        let lexemes = chunk.lexemes;
        let Some(kind) = chunk.kind.filter(|_| self.untold < UNTOLD_MAX) else {
            return Err(Fault::NoItem);
        };
        if kind.is_reserved() {
            return Err(Fault::Reserved);
        }
        if let Some(deep) = too_deep(lexemes) {
            return Err(Fault::TooDeep(deep));
        }
        match self.run(Start::Item, lexemes).map_err(Fault::Syntax)? {
            Parsed::Package(path) => self.package_line(path),
            Parsed::Item(item) => self.items.push(*item),
            _ => return Err(Fault::NoItem),
        }
        self.last = Last::Good;
        Ok(())
    }

    /// Reports what is wrong with the tokens of one item and saves what can be saved.
    fn recover(&mut self, chunk: Chunk<'_>, fault: Fault) {
        let lexemes = chunk.lexemes;
        let Some(first) = lexemes.first() else { return };
        if self.session.problems.is_full() {
            self.untold += 1;
            self.session.problems.leave_out(self.span_of(lexemes));
            return self.error_item(lexemes);
        }
        let span = self.session.span(first.start, first.end);
        match fault {
            Fault::NoItem => return self.junk(lexemes),
            Fault::Reserved => {
                let word = self.session.text_of(first.start, first.end);
                let message = format!("`{word}` is reserved for a later version");
                let diagnostic =
                    Diagnostic::new(codes::RESERVED_KEYWORD, message, span, "not yet known");
                self.session.problems.push(diagnostic.help("remove this item"));
                self.error_item(lexemes);
            }
            Fault::TooDeep(deep) => {
                let span = self.session.span(deep.start, deep.end);
                let message = format!(
                    "braces, parentheses and `not` are nested more than {NESTING_MAX} deep"
                );
                let diagnostic =
                    Diagnostic::new(codes::NESTED_TOO_DEEP, message, span, "too deep here");
                self.session
                    .problems
                    .push(diagnostic.help("split the text, or leave out what is not needed"));
                self.error_item(lexemes);
            }
            Fault::Syntax(failure) => {
                let mark = self.session.problems.mark();
                let item = match chunk.kind {
                    Some(Token::Policy) => self.recover_policy(lexemes),
                    Some(Token::Test) => self.recover_test(lexemes),
                    _ => None,
                };
                if !self.session.problems.grew_since(mark) {
                    self.explain(Start::Item, lexemes, &failure);
                }
                if chunk.kind == Some(Token::Package) {
                    self.package = Package::Faulty;
                }
                match item {
                    Some(item) => self.items.push(item),
                    None => self.error_item(lexemes),
                }
            }
        }
        self.last = Last::Faulty;
    }

    fn package_line(&mut self, path: Path) {
        let span = path.span;
        let before = match &self.package {
            Package::Named(first) => Some(
                Diagnostic::new(
                    codes::MISPLACED_PACKAGE,
                    "a file belongs to one package only",
                    span,
                    "the second `package` line",
                )
                .and(first.span, "the first one")
                .help("remove one of the lines, or split the file"),
            ),
            _ if !self.items.is_empty() => Some(
                Diagnostic::new(
                    codes::MISPLACED_PACKAGE,
                    "the `package` line does not come first",
                    span,
                    "items stand before it",
                )
                .help("move the `package` line to the top of the file"),
            ),
            _ => None,
        };
        self.session.problems.push_all(before);
        if !matches!(self.package, Package::Named(_)) {
            self.package = Package::Named(path);
        }
    }

    /// Tokens that do not start like an item.
    fn junk(&mut self, lexemes: &[Lexeme]) {
        let Some(first) = lexemes.first() else { return };
        let after_error = self.last != Last::Good;
        let stray_brace = first.token == Token::RightBrace;
        let told = match self.last {
            Last::Good => false,
            Last::Faulty => stray_brace,
            Last::Junk => true,
        };
        if !told {
            let diagnostic = syntax_error::no_item(&self.session, lexemes);
            self.session.problems.push_all(diagnostic);
        }
        if stray_brace {
            self.last = if after_error { self.last } else { Last::Faulty };
        } else {
            self.last = Last::Junk;
            self.error_item(lexemes);
        }
    }

    fn recover_policy(&mut self, lexemes: &[Lexeme]) -> Option<Item> {
        let (head, body) = split_braces(lexemes)?;
        let policy = match self.run_or_explain(Start::PolicyHead, head) {
            Some(Parsed::PolicyHead(policy)) => Some(policy),
            _ => None,
        };
        let mut parts = Vec::new();
        let mut whole = true;
        for part in chunk::policy_parts(body) {
            if self.session.problems.is_full() {
                self.session.problems.leave_out(self.span_of(part));
                whole = false;
                break;
            }
            let read = self.policy_part(part);
            whole &= read.is_some();
            parts.extend(read);
        }
        let mut policy = policy?;
        policy.whole = whole;
        policy.span = self.span_of(lexemes);
        fill_policy(&mut policy, parts);
        Some(Item::Policy(*policy))
    }

    fn policy_part(&mut self, part: &[Lexeme]) -> Option<PolicyPart> {
        let mended = self.mend_action(part);
        let part = mended.as_deref().unwrap_or(part);
        match self.run(Start::PolicyPart, part) {
            Ok(Parsed::PolicyPart(part)) => Some(part),
            Ok(_) => None,
            Err(failure) => {
                let at = usize::from(token(part, 0) == Some(Token::Observe));
                if !token(part, at).is_some_and(is_action) || split_braces(part).is_none() {
                    self.explain(Start::PolicyPart, part, &failure);
                    return None;
                }
                let mark = self.session.problems.mark();
                let rule = self.recover_rule(part);
                if !self.session.problems.grew_since(mark) {
                    self.explain(Start::PolicyPart, part, &failure);
                }
                rule.map(PolicyPart::Rule)
            }
        }
    }

    /// Puts in an action where a word like one stands, and reports the word.
    fn mend_action(&mut self, part: &[Lexeme]) -> Option<Vec<Lexeme>> {
        let at = usize::from(token(part, 0) == Some(Token::Observe));
        let lexeme = part.get(at)?;
        if !matches!(lexeme.token, Token::Word | Token::Reject) {
            return None;
        }
        let word = self.session.text_of(lexeme.start, lexeme.end);
        let span = self.session.span(lexeme.start, lexeme.end);
        let (action, diagnostic) = if lexeme.token == Token::Reject {
            let open = part.iter().find(|lexeme| lexeme.token == Token::LeftBrace);
            let open = open.map(|open| self.session.span(open.start, open.end));
            (Token::Deny, suggest::reject_as_action(span, open))
        } else if let Some((meant, action)) = suggest::foreign_action(word) {
            (action, suggest::foreign_action_diagnostic(word, meant, span))
        } else {
            let (meant, action) = suggest::action(word)?;
            (action, suggest::unknown_action(word, meant, span))
        };
        self.session.problems.push(diagnostic);
        let mut mended = part.to_vec();
        mended.get_mut(at)?.token = action;
        Some(mended)
    }

    fn recover_rule(&mut self, part: &[Lexeme]) -> Option<Box<Rule>> {
        let (head, body) = split_braces(part)?;
        let rule = match self.run_or_explain(Start::RuleHead, head) {
            Some(Parsed::RuleHead(rule)) => Some(rule),
            _ => None,
        };
        let mut clauses: Vec<Clause> = Vec::new();
        for clause in chunk::clauses(body) {
            if let Some(Parsed::Clause(clause)) = self.run_or_explain(Start::Clause, clause) {
                clauses.push(*clause);
            }
        }
        let mut rule = rule?;
        rule.span = rule.span.to(self.span_of(part));
        rule.span.start = rule.span.start.max(self.action_start(part));
        rule.clauses = clauses;
        Some(rule)
    }

    /// Where the action of a rule stands, behind `observe`.
    fn action_start(&self, part: &[Lexeme]) -> u32 {
        part.iter().find(|lexeme| is_action(lexeme.token)).map_or(0, |action| action.start)
    }

    fn recover_test(&mut self, lexemes: &[Lexeme]) -> Option<Item> {
        let (head, body) = split_braces(lexemes)?;
        let test: Option<Test> = match self.run_or_explain(Start::TestHead, head) {
            Some(Parsed::TestHead(test)) => Some(test),
            _ => None,
        };
        let mut cases: Vec<TestCase> = Vec::new();
        for case in chunk::test_cases(body) {
            if let Some(Parsed::TestCase(case)) = self.run_or_explain(Start::TestCase, case) {
                cases.push(case);
            }
        }
        let span = self.span_of(lexemes);
        test.map(|test| Item::Test(Test { cases, span, ..test }))
    }

    fn run_or_explain(&mut self, start: Start, lexemes: &[Lexeme]) -> Option<Parsed> {
        match self.run(start, lexemes) {
            Ok(parsed) => Some(parsed),
            Err(failure) => {
                self.explain(start, lexemes, &failure);
                None
            }
        }
    }

    /// One run of the generated parser; reports nothing if it fails.
    fn run(&mut self, start: Start, lexemes: &[Lexeme]) -> Result<Parsed, Failure> {
        let merge = start != Start::Item
            || matches!(item_kind(lexemes, 0), Some(Token::Policy | Token::Test | Token::Assert));
        let mut feed = Feed { start: Some(start), lexemes, next: 0, last: 0, merge };
        let mark = self.session.problems.mark();
        let result = self.parser.parse(&mut self.session, feed.by_ref());
        let at = feed.last;
        result.map_err(|error| {
            self.session.problems.rewind(mark);
            match error {
                ParseError::UnrecognizedEof { expected, .. } => Failure { at: None, expected },
                ParseError::UnrecognizedToken { expected, .. } => {
                    Failure { at: Some(at), expected }
                }
                _ => Failure { at: Some(at), expected: Vec::new() },
            }
        })
    }

    fn explain(&mut self, start: Start, lexemes: &[Lexeme], failure: &Failure) {
        if self.session.problems.is_full() {
            return self.session.problems.leave_out(self.span_of(lexemes));
        }
        let before = lexemes.get(..failure.at.unwrap_or(lexemes.len())).unwrap_or_default();
        let mark = self.session.problems.mark();
        let may_end = self.run(start, before).is_ok();
        self.session.problems.rewind(mark);
        let diagnostic = syntax_error::explain(&self.session, start, lexemes, failure, may_end);
        self.session.problems.push_all(diagnostic);
    }

    fn error_item(&mut self, lexemes: &[Lexeme]) {
        self.items.push(Item::Error(self.span_of(lexemes)));
    }

    fn span_of(&self, lexemes: &[Lexeme]) -> Span {
        let start = lexemes.first().map_or(0, |first| first.start);
        let end = lexemes.last().map_or(0, |last| last.end);
        self.session.span(start, end)
    }
}

/// Whether items of a kind have names that other packages could use.
fn has_names(kind: Token) -> bool {
    matches!(
        kind,
        Token::Constraint
            | Token::Operation
            | Token::Residency
            | Token::Route
            | Token::Zone
            | Token::Tier
            | Token::Let
            | Token::Template
    )
}

/// Why tokens are not an item.
enum Fault {
    /// They do not start like one.
    NoItem,
    /// The item is not part of this version.
    Reserved,
    /// The place where the nesting is too deep.
    TooDeep(Lexeme),
    /// The parser found something else.
    Syntax(Failure),
}

/// Hands tokens to the generated parser and remembers which was the last.
struct Feed<'l> {
    start: Option<Start>,
    lexemes: &'l [Lexeme],
    next: usize,
    last: usize,
    /// `source port` is one terminal here.
    merge: bool,
}

impl Iterator for Feed<'_> {
    type Item = (u32, Terminal, u32);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(start) = self.start.take() {
            let at = self.lexemes.first().map_or(0, |first| first.start);
            return Some((at, Terminal::Start(start), at));
        }
        let lexeme = self.lexemes.get(self.next)?;
        self.last = self.next;
        self.next += 1;
        if self.merge
            && lexeme.token == Token::Source
            && let Some(port) = self.lexemes.get(self.next)
            && port.token == Token::Port
        {
            self.next += 1;
            return Some((lexeme.start, Terminal::SourcePort, port.end));
        }
        // A set of this name starts here; the set before ends.
        if matches!(lexeme.token, Token::Except | Token::Within)
            && token(self.lexemes, self.next) == Some(Token::Equal)
        {
            return Some((lexeme.start, Terminal::Token(Token::Word), lexeme.end));
        }
        Some((lexeme.start, Terminal::Token(lexeme.token), lexeme.end))
    }
}

/// What stands up to the first opening brace, and what between it and the last token, which
/// closes it.
pub(crate) fn split_braces(lexemes: &[Lexeme]) -> Option<(&[Lexeme], &[Lexeme])> {
    let open = lexemes.iter().position(|lexeme| lexeme.token == Token::LeftBrace)?;
    let close = lexemes.len().checked_sub(1).filter(|close| *close > open)?;
    Some((lexemes.get(..=open)?, lexemes.get(open + 1..close)?))
}

/// The first token that is nested too deep. The tree is dropped by recursion, so depth is bounded
/// before it is built.
fn too_deep(lexemes: &[Lexeme]) -> Option<Lexeme> {
    let mut nots_outside = Vec::new();
    let (mut depth, mut nots) = (0, 0);
    for lexeme in lexemes {
        match lexeme.token {
            Token::LeftBrace | Token::LeftParen => {
                depth += 1 + nots;
                nots_outside.push(nots);
                nots = 0;
            }
            Token::RightBrace | Token::RightParen => {
                depth -= nots_outside.pop().map_or(0, |nots| 1 + nots);
                nots = 0;
            }
            Token::Not => nots += 1,
            _ => nots = 0,
        }
        if depth + nots > NESTING_MAX {
            return Some(*lexeme);
        }
    }
    None
}
