//! What a rule means, as a digest: rules of two policies with one name and one meaning are the same
//! rule, and the counts of one are those of the other.
//!
//! It is taken of the checked rule, so that layout, comments, templates and the names of sets do not
//! matter, and not of the table, whose rows say how a rule is told apart from those around it. Where
//! the rule stands, in which tier, and what it reports are left out: they do not change what it says
//! about a packet. Numbers that depend on other declarations (zones, domains) are replaced by what
//! stays.

use govc_grammar::ast::Action;
use sha2::{Digest as _, Sha256};

use crate::checked::{
    Answer, Condition, DomainId, From, Match, Moment, Policy, Prefix, Protocol, Rule, ScopeRange,
};

/// The meaning of a rule of `policy`, with its name.
#[must_use]
pub fn meaning(policy: &Policy, rule: &Rule) -> [u8; 8] {
    let mut digest = Digest { policy, hash: Sha256::new() };
    digest.rule(rule);
    let mut meaning = [0; 8];
    meaning.iter_mut().zip(digest.hash.finalize()).for_each(|(to, from)| *to = from);
    meaning
}

struct Digest<'p> {
    policy: &'p Policy,
    hash: Sha256,
}

impl Digest<'_> {
    fn rule(&mut self, rule: &Rule) {
        self.text(&rule.policy);
        self.text(&rule.name);
        self.number(match rule.action {
            Action::Permit => 1,
            Action::Deny => 2,
            Action::Pass => 3,
        });
        self.number(u64::from(rule.observe));
        match rule.answer {
            Answer::Silence => self.number(0),
            Answer::Reject => self.number(1),
            Answer::Quarantine(zone) => {
                self.number(2);
                self.zone(zone);
            }
        }
        for scope in rule.hooks.iter() {
            self.optional(scope.as_ref(), |digest, scope| {
                digest.optional(scope.objects.as_deref(), Self::scopes);
            });
        }
        self.matches(&rule.matches);
    }

    fn matches(&mut self, matches: &Match) {
        // Every field is named here, so that a new one is not forgotten.
        let Match {
            from,
            domain,
            to,
            operations,
            conditions,
            protocols,
            sources,
            destinations,
            since,
            until,
            shapes,
        } = matches;
        self.list(from, Self::sender);
        self.optional(domain.as_ref(), |digest, domain| digest.domain(*domain));
        self.optional(to.as_deref(), Self::scopes);
        self.optional(operations.as_deref(), Self::numbers);
        self.list(conditions, Self::condition);
        self.list(protocols, Self::protocol);
        for prefixes in [sources, destinations] {
            self.optional(prefixes.as_deref(), |digest, list| digest.list(list, Self::prefix));
        }
        self.number(u64::from(*shapes));
        for moment in [since, until] {
            let slot = |digest: &mut Self, moment: &Moment| digest.number(moment.slot.into());
            self.optional(moment.as_ref(), slot);
        }
    }

    fn sender(&mut self, from: &From) {
        match from {
            From::Scope(scopes) => {
                self.number(1);
                self.scopes(scopes);
            }
            From::Anyone => self.number(2),
            From::Identified => self.number(3),
            From::Labelled => self.number(4),
            From::Legacy => self.number(5),
            From::Unlabelled => self.number(6),
        }
    }

    fn condition(&mut self, condition: &Condition) {
        match condition {
            Condition::And(a, b) => {
                self.number(1);
                self.condition(a);
                self.condition(b);
            }
            Condition::Or(a, b) => {
                self.number(2);
                self.condition(a);
                self.condition(b);
            }
            Condition::Not(inner) => {
                self.number(3);
                self.condition(inner);
            }
            Condition::Level(first, last) => self.numbered(4, &[*first, *last]),
            Condition::Radius(first, last) => self.numbered(5, &[*first, *last]),
            Condition::CompartmentsInclude(mask) => self.numbered(6, &[*mask]),
            Condition::CompartmentsWithin(mask) => self.numbered(7, &[*mask]),
            Condition::CompartmentsAre(mask) => self.numbered(8, &[*mask]),
            Condition::ConstraintsInclude(mask) => self.numbered(9, &[*mask]),
            Condition::ConstraintsWithin(mask) => self.numbered(10, &[*mask]),
            Condition::ConstraintsAre(mask) => self.numbered(11, &[*mask]),
            Condition::Residency(indices) => self.numbered(12, indices),
            Condition::Route(index) => self.numbered(13, &[*index]),
            Condition::Operation(numbers) => self.numbered(14, numbers),
            Condition::IngressZone(zones) => {
                self.number(15);
                self.list(zones, |digest, zone| digest.zone(*zone));
            }
            Condition::EgressZone(zones) => {
                self.number(16);
                self.list(zones, |digest, zone| digest.zone(*zone));
            }
        }
    }

    fn numbered<T: Copy + Into<u64>>(&mut self, kind: u64, numbers: &[T]) {
        self.number(kind);
        self.numbers(numbers);
    }

    fn protocol(&mut self, protocol: &Protocol) {
        let Protocol { number, ports, source_ports, icmp_types, icmp_codes } = protocol;
        self.number((*number).into());
        for ranges in [ports, source_ports] {
            self.optional(ranges.as_deref(), Self::ranges);
        }
        for ranges in [icmp_types, icmp_codes] {
            self.optional(ranges.as_deref(), Self::ranges);
        }
    }

    fn prefix(&mut self, prefix: &Prefix) {
        self.text(&prefix.address.to_string());
        self.number(prefix.length.into());
    }

    fn scopes(&mut self, scopes: &[ScopeRange]) {
        self.list(scopes, |digest, range| {
            digest.domain(range.domain);
            digest.number(range.first.into());
            digest.number(range.last.into());
        });
    }

    /// A domain is what labels call it.
    fn domain(&mut self, domain: DomainId) {
        let number = self.policy.domains().get(usize::from(domain.0)).map(|domain| domain.number);
        self.number(number.map_or(u64::MAX, u64::from));
    }

    /// A zone is its name: its number counts those declared before it.
    fn zone(&mut self, number: u8) {
        let at = usize::from(number).checked_sub(1);
        let zone = at.and_then(|at| self.policy.zones().get(at));
        self.optional(zone, |digest, zone| digest.text(&zone.name));
    }

    fn ranges<T: Copy + Into<u64>>(&mut self, ranges: &[(T, T)]) {
        self.list(ranges, |digest, (first, last)| {
            digest.number((*first).into());
            digest.number((*last).into());
        });
    }

    fn numbers<T: Copy + Into<u64>>(&mut self, numbers: &[T]) {
        self.list(numbers, |digest, number| digest.number((*number).into()));
    }

    fn list<T>(&mut self, list: &[T], each: impl Fn(&mut Self, &T)) {
        self.number(list.len() as u64);
        list.iter().for_each(|one| each(self, one));
    }

    fn optional<T: ?Sized>(&mut self, value: Option<&T>, some: impl FnOnce(&mut Self, &T)) {
        self.number(u64::from(value.is_some()));
        if let Some(value) = value {
            some(self, value);
        }
    }

    /// With its length, so that no two texts in a row read like two others.
    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.hash.update(text);
    }

    fn number(&mut self, number: u64) {
        self.hash.update(number.to_le_bytes());
    }
}
