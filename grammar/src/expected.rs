//! The terminals that the parser would have accepted, in words for people.

use std::fmt;

use crate::suggest;
use crate::tree::Start;

/// What would have been right at a place.
pub(crate) struct Expected<'e> {
    /// Terminals as the grammar spells them, without quotes.
    terminals: Vec<&'e str>,
    /// What may follow the piece, if it may end here.
    next: Option<&'static str>,
}

const CLAUSES: [&str; 15] = [
    "from",
    "to",
    "operation",
    "where",
    "proto",
    "source",
    "destination",
    "log",
    "since",
    "until",
    "reject",
    "quarantine",
    "fragments",
    "options",
    "like",
];

/// Terminals that are told as one; a group is told if all of it would be right.
const GROUPS: [(&[&str], &str); 10] = [
    (
        &["on", "from", "to", "proto", "source", "destination", "level", "operation"],
        "a packet field (`from`, `to`, `operation`, `proto`, `level` and so on)",
    ),
    (
        &CLAUSES,
        "a clause (`from`, `to`, `operation`, `where`, `proto`, `source`, `destination`, `log` and so on)",
    ),
    (
        &["level", "compartments", "constraints", "radius", "ingress", "egress"],
        "a condition (such as `level >= internal`)",
    ),
    (
        &["level", "max", "compartments", "constraints", "residency", "route", "radius", "life"],
        "a label field (`subject`, `level`, `operation`, `residency` and so on)",
    ),
    (&["permit", "deny", "pass"], "a rule (`permit`, `deny` or `pass`)"),
    (&["permit", "deny"], "`permit` or `deny`"),
    (
        &["is", "==", "!=", "<", "<=", ">", ">=", "within", "includes", "has"],
        "a comparison (`is`, `!=`, `<`, `<=`, `>`, `>=`, `within` or `includes`)",
    ),
    (&["ingress", "egress", "forward"], "`ingress`, `egress` or `forward`"),
    (&["tcp", "udp", "sctp", "icmp", "icmpv6", "INT"], "a protocol (such as `tcp`, or a number)"),
    (&["port", "source port", "type", "code"], "`port`, `source port`, `type` or `code`"),
];

/// Terminals that come with a group and need no words of their own.
const WITH_GROUP: [&str; 19] = [
    "observe",
    "subject",
    "max",
    "compartments",
    "constraints",
    "residency",
    "route",
    "radius",
    "life",
    "fragment",
    "fragments",
    "options",
    "ingress",
    "egress",
    "operation",
    "level",
    "not",
    "(",
    "=",
];

/// Terminals that go on with a path or a list, which is rarely what was forgotten.
const GOES_ON: [&str; 6] = [".", "[", ".*", ".**", "within", "except"];

impl<'e> Expected<'e> {
    pub(crate) fn new(terminals: &'e [String], start: Start, may_end: bool) -> Self {
        let next = match start {
            Start::Clause => Some("the next clause"),
            Start::Item => Some("the next item"),
            Start::PolicyPart => Some("the next rule"),
            Start::TestCase => Some("the next `packet`"),
            Start::PolicyHead | Start::RuleHead | Start::TestHead | Start::Expectation => None,
        };
        Self {
            terminals: terminals.iter().map(|terminal| terminal.trim_matches('"')).collect(),
            next: next.filter(|_| may_end),
        }
    }

    /// Whether a terminal would have been right.
    pub(crate) fn has(&self, terminal: &str) -> bool {
        self.terminals.contains(&terminal)
            || (self.next == Some("the next clause") && CLAUSES.contains(&terminal))
    }

    /// Whether a name would have been right.
    pub(crate) fn name(&self) -> bool {
        self.terminals.contains(&"WORD")
    }

    /// The words that would have been right, names aside.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        let next: &[&str] = match self.next {
            Some("the next clause") => &CLAUSES,
            _ => &[],
        };
        let items = suggest::ITEMS.iter().map(|(keyword, _)| *keyword);
        let items = items.filter(|_| self.next == Some("the next item"));
        let words = self.terminals.iter().copied().filter(|terminal| is_word(terminal));
        words.chain(next.iter().copied()).chain(items)
    }

    fn phrases(&self) -> Vec<String> {
        let mut rest = self.terminals.clone();
        let mut phrases = Vec::new();
        let mut take = |rest: &mut Vec<&str>, terminals: &[&str], phrase: &str| {
            if terminals.iter().all(|terminal| rest.contains(terminal)) {
                rest.retain(|terminal| !terminals.contains(terminal));
                phrases.push(phrase.to_owned());
            }
        };
        if self.name() {
            // Every word could be the name.
            take(&mut rest, &["PREFIX"], "an address");
            take(&mut rest, &["INT"], "a number");
            take(&mut rest, &["WORD"], "a name");
            rest.retain(|terminal| !is_word(terminal));
        }
        let count = rest.len();
        for (terminals, phrase) in GROUPS {
            take(&mut rest, terminals, phrase);
        }
        if rest.len() < count {
            rest.retain(|terminal| !WITH_GROUP.contains(terminal));
        }
        take(&mut rest, &["TEXT"], "a text in double quotes");
        take(&mut rest, &["PREFIX"], "an address");
        take(&mut rest, &["INT"], "a number");
        let goes_on = rest.iter().any(|terminal| GOES_ON.contains(terminal));
        if goes_on && (rest.len() > 1 || !phrases.is_empty() || self.next.is_some()) {
            rest.retain(|terminal| !GOES_ON.contains(terminal));
        }
        phrases.extend(rest.iter().map(|terminal| format!("`{terminal}`")));
        phrases.extend(self.next.map(str::to_owned));
        phrases
    }
}

impl fmt::Display for Expected<'_> {
    /// `a, b or c`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phrases = self.phrases();
        match phrases.split_last() {
            None => f.write_str("nothing more"),
            Some((only, [])) => f.write_str(only),
            Some((last, others)) => write!(f, "{} or {last}", others.join(", ")),
        }
    }
}

/// Words are spelt in lower case in the grammar, kinds of tokens in upper case.
fn is_word(terminal: &str) -> bool {
    terminal.starts_with(|first: char| first.is_ascii_lowercase())
}
