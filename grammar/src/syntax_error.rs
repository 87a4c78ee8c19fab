//! Turns what the generated parser did not expect into advice.

use crate::chunk::{in_list, is_action, is_clause_word, is_operator, token};
use crate::codes;
use crate::diagnostic::{Applicability, Code, Diagnostic};
use crate::expected::Expected;
use crate::lexer::{Lexeme, Token};
use crate::problems::shorten;
use crate::span::Span;
use crate::suggest;
use crate::tree::{Session, Start};

/// Where the generated parser could not go on.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The token that was not expected; `None` if it is the end that was not.
    pub(crate) at: Option<usize>,
    /// The terminals that would have been.
    pub(crate) expected: Vec<String>,
}

/// Says what is wrong; nothing if a lexical error beside it was the probable cause.
///
/// `may_end` tells that the piece would be complete without the unexpected token.
pub(crate) fn explain(
    session: &Session<'_>,
    start: Start,
    lexemes: &[Lexeme],
    failure: &Failure,
    may_end: bool,
) -> Option<Diagnostic> {
    let at = failure.at.unwrap_or(lexemes.len());
    let written = |lexeme: &Lexeme| lexeme.start < lexeme.end;
    let scene = Scene {
        session,
        start,
        lexemes,
        at,
        found: lexemes.get(at).copied().filter(written),
        before: at.checked_sub(1).and_then(|at| lexemes.get(at)).copied(),
        expected: Expected::new(&failure.expected, start, may_end),
        may_end,
    };
    if scene.found.or(scene.before).is_some_and(|lexeme| lexeme.damaged) {
        return None;
    }
    let special = [
        Scene::clause_taken_as_name,
        Scene::dangling_comma,
        Scene::keyword_as_name,
        Scene::port_without_proto,
        Scene::unnamed_rule,
        Scene::misplaced_rule,
        Scene::foreign_action,
        Scene::misspelt,
        Scene::unclosed_paren,
        Scene::condition_word_in_list,
        Scene::missing_comma,
        Scene::missing_comma_before_name,
    ];
    Some(special.iter().find_map(|case| case(&scene)).unwrap_or_else(|| scene.plain()))
}

/// Says what is wrong with tokens that do not start like an item.
pub(crate) fn no_item(session: &Session<'_>, lexemes: &[Lexeme]) -> Option<Diagnostic> {
    let first = lexemes.first().filter(|first| !first.damaged)?;
    let span = session.span(first.start, first.end);
    let word = session.text_of(first.start, first.end);
    if first.token == Token::RightBrace {
        let message = "this brace closes nothing";
        let help = "remove it, or look for an opening brace that is missing above";
        return Some(Diagnostic::new(codes::UNOPENED, message, span, "nothing is open").help(help));
    }
    let at = usize::from(first.token == Token::Observe);
    let action = lexemes.get(at).unwrap_or(first);
    let rule_word = is_action(action.token)
        || suggest::foreign_action(session.text_of(action.start, action.end)).is_some();
    if rule_word && token(lexemes, at + 1).is_some_and(|next| next.is_word() || next == Token::Text)
    {
        return Some(rule_outside_policy(session.span(action.start, action.end)));
    }
    let found = describe(session, *first);
    let message = format!("expected an item, found {found}");
    let label = "items start with a keyword such as `policy`, `scope` or `let`";
    let diagnostic = Diagnostic::new(codes::UNEXPECTED, message, span, label);
    Some(match suggest::item(word) {
        Some((meant, _)) => diagnostic.help(format!("did you mean `{meant}`?")),
        None => diagnostic.help(
            "the items are `use`, `domain`, `scope`, `constraint`, `operation`, `residency`, \
             `route`, `zone`, `tier`, `let`, `stamp`, `deliver`, `legacy`, `carriage`, `policy` \
             and `test`",
        ),
    })
}

fn rule_outside_policy(span: Span) -> Diagnostic {
    let message = "a rule stands outside a policy";
    Diagnostic::new(codes::RULE_OUTSIDE_POLICY, message, span, "this rule belongs to no policy")
        .help("put it into the braces of a `policy name { .. }`")
}

/// The place of an error and what is around it.
struct Scene<'e> {
    session: &'e Session<'e>,
    start: Start,
    lexemes: &'e [Lexeme],
    at: usize,
    found: Option<Lexeme>,
    before: Option<Lexeme>,
    expected: Expected<'e>,
    may_end: bool,
}

impl Scene<'_> {
    /// `from a,` and the next line starts with `to`: the word was read as a name.
    fn clause_taken_as_name(&self) -> Option<Diagnostic> {
        let word = self.before.filter(|_| self.start == Start::Clause && self.at > 1)?;
        let link = *self.lexemes.get(self.at - 2)?;
        let found = self.found?;
        let goes_on = found.token.is_word() || found.token.is_value();
        if !is_clause_word(word.token) || !goes_on {
            return None;
        }
        if link.token == Token::Comma && !word.first {
            return Some(self.comma_between_clauses(link, word));
        }
        let incomplete = link.token == Token::Comma
            || is_clause_word(link.token)
            || is_operator(link.token)
            || matches!(link.token, Token::And | Token::Or | Token::Not);
        (word.first && incomplete).then(|| self.incomplete(link, word))
    }

    /// A comma, and then no further member.
    fn dangling_comma(&self) -> Option<Diagnostic> {
        let comma = self.before.filter(|before| before.token == Token::Comma)?;
        let Some(found) = self.found else {
            let message = format!("expected {} after `,`", self.expected);
            let help = "remove the comma, or go on with the list";
            return Some(self.diagnostic(codes::UNEXPECTED, message, comma, "ends here", help));
        };
        if self.start == Start::Clause && is_clause_word(found.token) && !found.first {
            return Some(self.comma_between_clauses(comma, found));
        }
        let ends = found.token == Token::RightBrace
            || (found.first && (is_clause_word(found.token) || found.token.is_keyword()));
        ends.then(|| self.incomplete(comma, found))
    }

    fn keyword_as_name(&self) -> Option<Diagnostic> {
        let found = self.found.filter(|found| found.token.is_keyword())?;
        if !self.expected.name() {
            return None;
        }
        let word = self.text(found);
        let message = format!("`{word}` is a keyword and cannot be a name here");
        let from_zone =
            found.token == Token::Zone && self.before.is_some_and(|b| b.token == Token::From);
        let help = if from_zone {
            "the zone of a packet is a condition: `where ingress zone is pods`"
        } else {
            "choose another name; keywords can be names inside braces and behind a dot only"
        };
        Some(self.diagnostic(codes::KEYWORD_AS_NAME, message, found, "a keyword", help))
    }

    fn port_without_proto(&self) -> Option<Diagnostic> {
        use Token as T;
        let found = self.found.filter(|_| self.expected.has("proto"))?;
        let (message, help) = match found.token {
            T::Tcp | T::Udp | T::Sctp | T::Icmp | T::Icmpv6 => {
                let word = self.text(found);
                (format!("`{word}` stands without `proto`"), format!("write `proto {word}`"))
            }
            T::Port | T::Source if found.token == T::Port || self.next_is(T::Port) => (
                "ports belong to a protocol".to_owned(),
                "write `proto tcp port 443`, or another protocol".to_owned(),
            ),
            T::Type | T::Code => (
                format!("`{}` belongs to a protocol", self.text(found)),
                "write `proto icmp type 8`, or another protocol".to_owned(),
            ),
            _ => return None,
        };
        let code = codes::PORT_WITHOUT_PROTO;
        let diagnostic = self.diagnostic(code, message, found, "no `proto` before this", &help);
        let protocol = matches!(found.token, T::Tcp | T::Udp | T::Sctp | T::Icmp | T::Icmpv6);
        Some(if protocol {
            let place = self.span(found).before();
            diagnostic.replace(place, "proto ", Applicability::MachineApplicable)
        } else {
            diagnostic
        })
    }

    fn unnamed_rule(&self) -> Option<Diagnostic> {
        let found = self.found?;
        let action = self.before.filter(|before| is_action(before.token))?;
        let in_head = matches!(self.start, Start::RuleHead | Start::PolicyPart);
        if !in_head || !matches!(found.token, Token::LeftBrace | Token::Text) {
            return None;
        }
        let word = self.text(action);
        let message = "this rule has no name".to_owned();
        let label = "a name belongs behind this";
        let help = format!("name it, for reports and tests: `{word} some_name {{`");
        Some(self.diagnostic(codes::UNNAMED_RULE, message, action, label, &help))
    }

    /// A rule where none can be.
    fn misplaced_rule(&self) -> Option<Diagnostic> {
        let like_action = |lexeme: &Lexeme| {
            is_action(lexeme.token) || suggest::foreign_action(self.text(*lexeme)).is_some()
        };
        if self.start == Start::Item
            && (self.expected.has("=") || self.expected.has("{"))
            && self.found.is_some_and(|found| found.token.is_word())
            && let Some(action) = self.before.filter(|before| before.first && like_action(before))
        {
            // The action was read as the next name of the item.
            return Some(rule_outside_policy(self.span(action)));
        }
        let found = self.found.filter(|found| is_action(found.token))?;
        if self.start == Start::Item && self.may_end {
            return Some(rule_outside_policy(self.span(found)));
        }
        if self.start != Start::Clause {
            return None;
        }
        let message = "a rule stands inside a rule".to_owned();
        let help = "close the rule above with a `}` first";
        Some(self.diagnostic(codes::UNEXPECTED, message, found, "another rule", help))
    }

    fn foreign_action(&self) -> Option<Diagnostic> {
        let found = self.found.filter(|_| self.expected.has("permit"))?;
        let word = self.text(found);
        let (meant, _) = suggest::foreign_action(word)?;
        Some(suggest::foreign_action_diagnostic(word, meant, self.span(found)))
    }

    fn misspelt(&self) -> Option<Diagnostic> {
        let found = self.found.filter(|found| found.token == Token::Word)?;
        let word = self.text(found);
        let meant = suggest::similar(word, self.expected.words())?;
        Some(suggest::unknown_keyword(word, meant, self.span(found), self.expected.words()))
    }

    fn unclosed_paren(&self) -> Option<Diagnostic> {
        let goes_on = |found: Lexeme| !found.first && !is_clause_word(found.token);
        if !self.expected.has(")") || self.found.is_some_and(goes_on) {
            return None;
        }
        let mut open = Vec::new();
        for lexeme in self.lexemes.iter().take(self.at) {
            match lexeme.token {
                Token::LeftParen => open.push(*lexeme),
                Token::RightParen => drop(open.pop()),
                _ => {}
            }
        }
        let message = "this parenthesis is never closed".to_owned();
        Some(self.diagnostic(codes::UNCLOSED, message, open.pop()?, "never closed", "add a `)`"))
    }

    /// `from a and b`, `from not a`: words of conditions, which lists do not have.
    fn condition_word_in_list(&self) -> Option<Diagnostic> {
        let (found, before) = self.found.zip(self.before)?;
        let message = |word: Lexeme| {
            format!("`{}` belongs to conditions, and this is a list", self.text(word))
        };
        let member = !is_clause_word(before.token) && before.token != Token::Comma;
        if matches!(found.token, Token::And | Token::Or) && member {
            in_list(self.lexemes.get(..self.at)?).then_some(())?;
            let help = format!("write `,` instead of `{}`", self.text(found));
            let code = codes::UNEXPECTED;
            let told = self.diagnostic(code, message(found), found, "not expected", &help);
            let place = self.span(before).behind().to(self.span(found));
            return Some(told.replace(place, ",", Applicability::MaybeIncorrect));
        }
        // It was read as the name of a member.
        let at = self.at.checked_sub(1).filter(|_| before.token == Token::Not && !found.first)?;
        let goes_on = found.token.is_word() || found.token.is_value();
        (goes_on && in_list(self.lexemes.get(..at)?)).then_some(())?;
        let help = "name what is meant, and behind `except` what is not: \
                    `from anyone except acme.guest`";
        let told =
            self.diagnostic(codes::UNEXPECTED, message(before), before, "not expected", help);
        let from = at.checked_sub(1).and_then(|at| token(self.lexemes, at)) == Some(Token::From);
        Some(if from {
            told.replace(self.span(before), "anyone except", Applicability::MaybeIncorrect)
        } else {
            told
        })
    }

    /// Two members of a list side by side.
    fn missing_comma(&self) -> Option<Diagnostic> {
        let found = self.found.filter(|_| self.expected.has(","))?;
        let before = self.before?;
        let member = found.token.is_word() || found.token.is_value();
        let next_line = found.first && self.may_end;
        let not_a_member = is_operator(found.token) || is_action(found.token);
        if !member || next_line || not_a_member {
            return None;
        }
        Some(self.comma_between(before, found))
    }

    /// `let a = b c`: the second name was read as the start of the next set.
    fn missing_comma_before_name(&self) -> Option<Diagnostic> {
        let in_let = self.start == Start::Item && token(self.lexemes, 0) == Some(Token::Let);
        let name = self.before.filter(|_| in_let && self.expected.has("="))?;
        let member = self.lexemes.get(self.at.checked_sub(2)?)?;
        let equal = self.found.is_some_and(|found| found.token == Token::EqualEqual);
        if name.first || equal || !(member.token.is_value() || member.token == Token::Word) {
            return None;
        }
        Some(self.comma_between(*member, name))
    }

    fn comma_between(&self, left: Lexeme, right: Lexeme) -> Diagnostic {
        let left_end = self.span(left).behind();
        let (left, right_text) = (shorten(self.text(left)), shorten(self.text(right)));
        let message = format!("missing `,` between `{left}` and `{right_text}`");
        let help = format!("separate them: `{left}, {right_text}`");
        let label = "a `,` belongs before this";
        // Between members a comma widens a rule, and a clause may be what was forgotten.
        self.diagnostic(codes::MISSING_COMMA, message, right, label, &help).replace(
            self.span_between(left_end, right),
            ", ",
            Applicability::MaybeIncorrect,
        )
    }

    fn plain(&self) -> Diagnostic {
        let (place, message, label) = match (self.found, self.before) {
            (Some(found), _) => {
                let found_text = describe(self.session, found);
                (found, format!("expected {}, found {found_text}", self.expected), "not expected")
            }
            (None, Some(before)) => {
                let text = describe(self.session, before);
                (before, format!("expected {} after {text}", self.expected), "ends here")
            }
            (None, None) => {
                let message = format!("expected {}", self.expected);
                let span = self.session.span(0, 0);
                return Diagnostic::new(codes::UNEXPECTED, message, span, "");
            }
        };
        let diagnostic = Diagnostic::new(codes::UNEXPECTED, message, self.span(place), label);
        let first = self.lexemes.first().map(|first| first.token);
        let doubled = self.expected.has("=")
            && self.found.is_some_and(|found| found.token == Token::EqualEqual);
        let diagnostic = if doubled {
            diagnostic.replace(self.span(place), "=", Applicability::MachineApplicable)
        } else {
            diagnostic
        };
        diagnostic.help(match (self.advice(), first.and_then(|first| example(self.start, first))) {
            (Some(help), _) => help.to_owned(),
            (None, Some(example)) => format!("for example: `{example}`"),
            (None, None) => "mend or remove this".to_owned(),
        })
    }

    /// What to do about mistakes that have no message of their own.
    fn advice(&self) -> Option<&'static str> {
        use Token as T;
        let at_line_start = self.found.is_some_and(|found| found.first);
        let found = self.found.map(|found| found.token)?;
        let before = self.before.map(|before| before.token);
        match found {
            T::Comma if matches!(before, Some(T::Ingress | T::Egress | T::Forward)) => {
                Some("a policy may have several `on` clauses, one for each place")
            }
            T::Comma if self.expected.name() => Some("remove the comma"),
            T::Dot if matches!(before, Some(T::DotStar | T::DotStarStar)) => {
                Some("a star stands at the end of a path only")
            }
            T::EqualEqual if self.expected.has("=") => Some("write `=`"),
            T::Not if before == Some(T::Is) => Some("write `!=`"),
            T::DotDot if before == Some(T::Prefix) => {
                Some("addresses have no ranges; write prefixes such as `10.0.0.0/8`")
            }
            T::Text if self.expected.name() => Some("names are written without quotes"),
            T::DotStar | T::DotStarStar if self.start == Start::Item => {
                Some("stars stand for scopes and operations in rules only")
            }
            T::Zone if self.expected.has("ingress") => {
                Some("write `ingress zone` or `egress zone`")
            }
            T::RightBrace => Some("go on, or remove what is incomplete"),
            keyword if keyword.is_keyword() && at_line_start && self.start != Start::Item => {
                Some("if the next item starts here, a `}` is missing before it")
            }
            _ => None,
        }
    }

    fn comma_between_clauses(&self, comma: Lexeme, clause: Lexeme) -> Diagnostic {
        let message = format!("no `,` stands before the clause `{}`", self.text(clause));
        let help = "remove the comma; clauses stand side by side or below each other";
        self.diagnostic(codes::UNEXPECTED, message, comma, "not expected", help).replace(
            self.span(comma),
            "",
            Applicability::MachineApplicable,
        )
    }

    fn incomplete(&self, link: Lexeme, next: Lexeme) -> Diagnostic {
        let (link_text, next_text) = (self.text(link), self.text(next));
        let message = format!("nothing stands between `{link_text}` and `{next_text}`");
        let help = match link.token {
            Token::Comma => "remove the comma, or go on with the list",
            _ => "say what belongs here, or remove it",
        };
        self.diagnostic(codes::UNEXPECTED, message, link, "something belongs behind this", help)
    }

    fn diagnostic(
        &self,
        code: Code,
        message: String,
        place: Lexeme,
        label: &str,
        help: &str,
    ) -> Diagnostic {
        Diagnostic::new(code, message, self.span(place), label).help(help)
    }

    fn span_between(&self, left_end: Span, right: Lexeme) -> Span {
        Span::new(left_end.file, left_end.end, right.start)
    }

    fn next_is(&self, next: Token) -> bool {
        token(self.lexemes, self.at + 1) == Some(next)
    }

    fn text(&self, lexeme: Lexeme) -> &str {
        self.session.text_of(lexeme.start, lexeme.end)
    }

    fn span(&self, lexeme: Lexeme) -> Span {
        self.session.span(lexeme.start, lexeme.end)
    }
}

/// A correct text that starts with a keyword.
fn example(start: Start, keyword: Token) -> Option<&'static str> {
    use Token as T;
    Some(match keyword {
        T::Operation if start == Start::Item => "operation ledger { read write }  web { get }",
        T::Tier if start == Start::PolicyPart => "tier baseline",
        T::AtSign => "@expect GOV4104 \"copied from the contract\"",
        T::Package => "package acme.payments",
        T::Use => "use acme.vocabulary",
        T::Domain => "domain acme = 7 { level { public < secret }  compartments { finance } }",
        T::Scope => "scope acme { web at public  payments at secret in {finance} { api } }",
        T::Constraint => "constraint confidential, no_forward",
        T::Operation => "operation ledger.read",
        T::Residency => "residency eu = {de, fr}",
        T::Route => "route default, backbone_eu",
        T::Zone => "zone pods = interface \"veth*\"",
        T::Tier => "tier guardrails, baseline ordered",
        T::Let => "let office = 10.20.0.0/16, 2001:db8:20::/48",
        T::Template => "template web(who) { from who  proto tcp port 443 }",
        T::Stamp => "stamp on pods when cgroup \"/api*\" { subject acme.payments.api }",
        T::Deliver => "deliver on pods when address 10.0.0.5 { object acme.payments.ledger }",
        T::Legacy => "legacy from office on wan { subject acme.guest  max level public }",
        T::Carriage => "carriage tunnel to office on wan",
        T::Policy => "policy ledger { on ingress  permit read { from acme.payments.api } }",
        T::Test => "test \"api\" { packet { from acme.api } expect permit by ledger.read }",
        T::Packet => "packet { from acme.api to acme.ledger } expect permit by ledger.read",
        T::Permit | T::Deny | T::Pass => "permit read \"why\" { from acme.payments.api }",
        T::On => "on ingress to acme.payments.ledger",
        T::From => "from acme.payments.api, partner.**",
        T::To => "to acme.payments.ledger",
        T::Where => "where level >= internal, residency within eu",
        T::Proto => "proto tcp port 443, 8000..8099",
        T::Source => "source office, 10.0.0.0/8",
        T::Destination => "destination 10.0.0.0/8",
        T::Log => "log 1 in 100",
        T::Since => "since \"2026-12-01T00:00Z\"",
        T::Until => "until \"2026-12-31T18:00Z\"",
        T::Quarantine => "quarantine decoys",
        T::Like => "like web(who = acme.api  ports = 443)",
        _ => return None,
    })
}

/// A token of the text, for a message.
fn describe(session: &Session<'_>, lexeme: Lexeme) -> String {
    let text = shorten(session.text_of(lexeme.start, lexeme.end));
    match lexeme.token {
        Token::Text => format!("the text `{text}`"),
        Token::Int => format!("the number `{text}`"),
        Token::Prefix => format!("the address `{text}`"),
        _ => format!("`{text}`"),
    }
}
