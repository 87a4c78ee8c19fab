//! What the grammar's actions need to build the tree.

use std::net::{IpAddr, Ipv4Addr};

use smol_str::SmolStr;

use crate::ast::{
    Clause, ClauseKind, Condition, ConditionKind, Domain, Expectation, HookClause, Int, Item, Name,
    Path, Policy, Prefix, Proto, ProtoKind, Repeated, Rule, Set, Test, TestCase, Text,
};
use crate::codes;
use crate::diagnostic::{Applicability, Diagnostic};
use crate::lexer::Token;
use crate::literal;
use crate::problems::Problems;
use crate::span::Span;

/// What the generated parser reads: a token, or a sign for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Terminal {
    /// What the tokens behind it are to be read as; always the first.
    Start(Start),
    /// A token of the text.
    Token(Token),
    /// The words `source port`, which would need a second token of lookahead.
    SourcePort,
}

/// The pieces of text that can be parsed on their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// A whole item.
    Item,
    /// `observe policy name {`
    PolicyHead,
    /// What stands directly in the braces of a policy.
    PolicyPart,
    /// `permit name "text" {`
    RuleHead,
    /// A clause of a rule.
    Clause,
    /// `test "title" {`
    TestHead,
    /// `packet { .. } expect permit`
    TestCase,
    /// `@expect GOV4104 "why"`
    Expectation,
}

/// What comes out of a piece of text.
#[derive(Debug)]
pub(crate) enum Parsed {
    Package(Path),
    Item(Box<Item>),
    PolicyHead(Box<Policy>),
    PolicyPart(PolicyPart),
    RuleHead(Box<Rule>),
    Clause(Box<Clause>),
    TestHead(Test),
    TestCase(TestCase),
    Expectation(Expectation),
}

/// What stands directly in the braces of a policy.
#[derive(Debug)]
pub(crate) enum PolicyPart {
    Hook(HookClause),
    Tier(Name),
    Rule(Box<Rule>),
}

/// A section of a domain.
#[derive(Debug)]
pub(crate) enum DomainPart {
    Levels(Vec<Name>),
    Compartments(Vec<Name>),
}

/// A further word of a `proto` clause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProtoWord {
    Port,
    SourcePort,
    Type,
    Code,
}

impl ProtoWord {
    fn text(self) -> &'static str {
        match self {
            Self::Port => "port",
            Self::SourcePort => "source port",
            Self::Type => "type",
            Self::Code => "code",
        }
    }
}

/// A word of a `proto` clause with its list.
#[derive(Debug)]
pub(crate) struct ProtoPart {
    pub(crate) word: ProtoWord,
    pub(crate) members: Set,
    pub(crate) span: Span,
}

/// The source, and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Session<'s> {
    pub(crate) source: &'s str,
    pub(crate) problems: Problems,
}

impl Session<'_> {
    pub(crate) fn text_of(&self, start: u32, end: u32) -> &str {
        self.source.get(start as usize..end as usize).unwrap_or_default()
    }

    pub(crate) fn span(&self, start: u32, end: u32) -> Span {
        self.problems.span(start, end)
    }

    pub(crate) fn name(&self, start: u32, end: u32) -> Name {
        Name { text: SmolStr::new(self.text_of(start, end)), span: self.span(start, end) }
    }

    /// A number; the lexer reported it if it is too large.
    pub(crate) fn int(&self, start: u32, end: u32) -> Int {
        let value = literal::number(self.text_of(start, end)).unwrap_or(u64::MAX);
        Int { value, span: self.span(start, end) }
    }

    /// An address; the lexer reported it if it is ill-formed.
    pub(crate) fn prefix(&self, start: u32, end: u32) -> Prefix {
        let unknown = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), None);
        let (address, length) = literal::prefix(self.text_of(start, end)).unwrap_or(unknown);
        Prefix { address, length, span: self.span(start, end) }
    }

    pub(crate) fn quoted(&self, start: u32, end: u32) -> Text {
        let text = SmolStr::from(literal::text(self.text_of(start, end)));
        Text { text, span: self.span(start, end) }
    }

    /// `=` stands where a comparison is wanted; the meaning is clear.
    pub(crate) fn assignment_in_condition(&mut self, start: u32, end: u32) {
        let span = self.span(start, end);
        let message = "a condition compares with `==` or `is`, not with `=`";
        let label = "`=` only gives names in `let`, `zone` and the like";
        self.problems.push(
            Diagnostic::new(codes::ASSIGNMENT_IN_CONDITION, message, span, label)
                .help("write `==` or `is`")
                .replace(span, "==", Applicability::MachineApplicable),
        );
    }

    pub(crate) fn domain(
        &self,
        name: Name,
        number: Int,
        parts: Vec<DomainPart>,
        span: Span,
    ) -> Box<Domain> {
        let mut domain =
            Domain { name, number, levels: Vec::new(), compartments: Vec::new(), span };
        for part in parts {
            match part {
                DomainPart::Levels(names) => domain.levels.extend(names),
                DomainPart::Compartments(names) => domain.compartments.extend(names),
            }
        }
        Box::new(domain)
    }

    pub(crate) fn clause(&self, start: u32, kind: ClauseKind, end: u32) -> Box<Clause> {
        Box::new(Clause { kind, span: self.span(start, end) })
    }
}

/// Joins conditions by `and` or `or`, as a balanced tree: a chain of any length stays shallow.
pub(crate) fn join(
    mut conditions: Vec<Condition>,
    kind: fn(Box<Condition>, Box<Condition>) -> ConditionKind,
) -> Option<Condition> {
    while conditions.len() > 1 {
        let mut joined = Vec::with_capacity(conditions.len().div_ceil(2));
        let mut rest = conditions.into_iter();
        while let Some(left) = rest.next() {
            joined.push(match rest.next() {
                Some(right) => {
                    let span = left.span.to(right.span);
                    Condition { kind: kind(Box::new(left), Box::new(right)), span }
                }
                None => left,
            });
        }
        conditions = joined;
    }
    conditions.pop()
}

/// The start of a list that will probably have some more members.
pub(crate) fn list_of<T>(first: T) -> Vec<T> {
    const LENGTH_USUAL: usize = 4;
    let mut list = Vec::with_capacity(LENGTH_USUAL);
    list.push(first);
    list
}

/// A `proto` clause; of several lists of the same kind, the first one counts.
pub(crate) fn proto(kind: ProtoKind, parts: Vec<ProtoPart>, span: Span) -> Proto {
    let mut proto = Proto {
        kind,
        ports: None,
        source_ports: None,
        icmp_types: None,
        icmp_codes: None,
        repeated: Vec::new(),
        span,
    };
    let mut seen: Vec<(ProtoWord, Span)> = Vec::new();
    for part in parts {
        if let Some(&(_, first)) = seen.iter().find(|(word, _)| *word == part.word) {
            let (word, second) = (part.word.text(), part.span);
            proto.repeated.push(Repeated { word, first, second });
            continue;
        }
        seen.push((part.word, part.span));
        *match part.word {
            ProtoWord::Port => &mut proto.ports,
            ProtoWord::SourcePort => &mut proto.source_ports,
            ProtoWord::Type => &mut proto.icmp_types,
            ProtoWord::Code => &mut proto.icmp_codes,
        } = Some(part.members);
    }
    proto
}

/// Sorts the parts of a policy into it.
pub(crate) fn fill_policy(policy: &mut Policy, parts: Vec<PolicyPart>) {
    for part in parts {
        match part {
            PolicyPart::Hook(hook) => policy.hooks.push(hook),
            PolicyPart::Tier(tier) => match &policy.tier {
                Some(first) => policy.repeated.push(Repeated {
                    word: "tier",
                    first: first.span,
                    second: tier.span,
                }),
                None => policy.tier = Some(tier),
            },
            PolicyPart::Rule(rule) => policy.rules.push(*rule),
        }
    }
}
