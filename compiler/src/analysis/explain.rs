//! Why a packet gets its verdict: the rule that decides, and why nearer ones do not.

use govc_abi::attribute::{self, Attribute, Request, shape, state};
use govc_image::Names;
use serde::Serialize;

use super::{rule_name, words};
use crate::{
    checked::{From, Hook, Match, Moment, Policy, Protocol, Rule, ScopeRange},
    interpret::{self, Decision},
    table::IntervalSet,
};

/// What becomes of a packet, and why.
#[derive(Clone, Debug)]
pub struct Explanation {
    /// What decides.
    pub decision: Decision,
    /// Where.
    pub hook: Hook,
    /// Some policy speaks about the hook: what no rule decides is denied.
    pub governed: bool,
    /// Rules that match the packet and pass it on, by position, in the order of tiers.
    pub passed: Vec<usize>,
    /// Rules that come before the one that decides, or before the default, and do not match:
    /// those first of which the fewest clauses fail.
    pub nearer: Vec<Nearer>,
    /// Matching rules that come later: those that would decide otherwise.
    pub overruled: Vec<usize>,
}

impl Explanation {
    /// Why the default decides, where it does.
    #[must_use]
    pub fn why_default(&self) -> String {
        if self.governed {
            return "no rule that decides matches the packet".into();
        }
        let open = format!("no policy governs {}", words::hook_name(self.hook));
        if self.decision.permit {
            return open;
        }
        format!("{open}, and only whole packets with a label or a legacy rule pass there")
    }
}

/// A rule that does not match.
#[derive(Clone, Debug, Serialize)]
pub struct Nearer {
    /// Position in the policy.
    #[serde(skip)]
    pub position: usize,
    /// `policy.rule`.
    pub rule: String,
    /// How many of its clauses fail.
    pub failing: usize,
    /// The first of them, in words.
    pub because: String,
}

/// Explains a packet.
#[must_use]
pub fn explain(policy: &Policy, names: &Names, hook: Hook, request: &Request) -> Explanation {
    let decision = interpret::decide(policy, hook, request);
    let order = crate::lower::rule_order(policy);
    let (mut nearer, mut passed, mut overruled) = (Vec::new(), Vec::new(), Vec::new());
    let mut decided = false;
    let mut over = None;
    // Packets of shapes that nothing lets through are denied before any rule.
    let unread = scalar(request, attribute::SHAPE) & !policy.shapes() != 0;
    for position in order {
        let Some(rule) = policy.rules().get(position) else { continue };
        if rule.hooks.get(hook).is_none_or(Option::is_none) || rule.observe {
            continue;
        }
        if interpret::applies(policy, rule, hook, request) {
            if unread {
                continue;
            }
            if decision.rule == Some(position) {
                decided = true;
            } else if decided || over == Some(rule.tier) {
                overruled.push(position);
            } else {
                passed.push(position);
                over = Some(rule.tier);
            }
        } else if !decided {
            let failures = failures(policy, names, rule, hook, request);
            if let Some(because) = failures.first().cloned() {
                let (rule, failing) = (rule_name(policy, position), failures.len());
                nearer.push(Nearer { position, rule, failing, because });
            }
        }
    }
    nearer.sort_by_key(|one| one.failing);
    let governed = policy.governed().get(hook).copied().unwrap_or(false);
    Explanation { decision, hook, governed, passed, nearer, overruled }
}

/// What a rule asks for and the packet does not have, in the order in which rules are read.
fn failures(
    policy: &Policy,
    names: &Names,
    rule: &Rule,
    hook: Hook,
    request: &Request,
) -> Vec<String> {
    let wanted = &rule.matches;
    let mut failures = Vec::new();
    let object = scalar(request, attribute::OBJECT);
    let objects = rule.hooks.get(hook).and_then(Option::as_ref).and_then(|s| s.objects.as_ref());
    if let Some(objects) = objects
        && !interpret::in_scopes(objects, object)
    {
        failures.push(format!(
            "its policy is about packets to {}, and this one is to {}",
            scopes(names, objects),
            words::subject(names, object)
        ));
    }
    if !wanted.from.iter().any(|from| interpret::is_from(from, request)) {
        let list: Vec<String> = wanted.from.iter().map(|from| sender(names, from)).collect();
        // Traffic of one subject comes with a label or without: where that decides, it is said.
        let by_label = |from: &From| matches!(from, From::Legacy | From::Unlabelled);
        let labelled = wanted.from.iter().any(by_label)
            && ![state::ABSENT, state::LEGACY].contains(&scalar(request, attribute::STATE));
        let word = if labelled { "labelled, " } else { "" };
        failures.push(format!(
            "`from` wants {}, and it is {word}{}",
            list.join(" or "),
            origin(names, request)
        ));
    }
    if let Some(domain) = wanted.domain
        && !interpret::is_of_domain(domain, request)
    {
        let name = names.domain(domain.0.into()).map_or("", |domain| &domain.name);
        failures
            .push(format!("it speaks of labels of `{name}`, and it is {}", origin(names, request)));
    }
    if let Some(to) = &wanted.to
        && !interpret::in_scopes(to, object)
    {
        failures.push(format!(
            "`to` wants {}, and it is to {}",
            scopes(names, to),
            words::subject(names, object)
        ));
    }
    let domain = wanted.domain.map(|domain| u32::from(domain.0));
    let domain = domain.or(Some(scalar(request, attribute::SUBJECT) >> 24));
    if let Some(operations) = &wanted.operations {
        let operation = scalar(request, attribute::OPERATION);
        if !operations.iter().any(|&wanted| u32::from(wanted) == operation) {
            let set = operations.iter().map(|&o| (u128::from(o), u128::from(o))).collect();
            failures.push(format!(
                "`operation` wants {}, and it is {}",
                words::values(names, attribute::OPERATION, domain, &IntervalSet::new(set)),
                value(names, domain, attribute::OPERATION, request)
            ));
        }
    }
    for condition in &wanted.conditions {
        if !interpret::holds(condition, request) {
            failures
                .push(format!("`where`: {}", conditions::why(names, domain, condition, request)));
        }
    }
    failures.extend(transport(names, wanted, request));
    let missing = scalar(request, attribute::SHAPE) & !wanted.shapes;
    for (bit, text) in [
        (shape::FRAGMENT, "it does not say `fragments`, and the packet is one"),
        (shape::OPTIONS, "it does not say `options`, and the packet has some"),
    ] {
        if missing & bit != 0 {
            failures.push(text.to_owned());
        }
    }
    for (word, prefixes, halves) in [
        ("source", &wanted.sources, request.source),
        ("destination", &wanted.destinations, request.destination),
    ] {
        if let Some(prefixes) = prefixes
            && !interpret::in_prefixes(prefixes, interpret::address(halves))
        {
            let set = crate::lower::prefixes(prefixes);
            failures.push(format!(
                "`{word}` wants {}, and it is {}",
                words::values(names, attribute::SOURCE, None, &set),
                interpret::address(halves)
            ));
        }
    }
    if !interpret::is_in_time(policy, wanted, request) {
        let times = |moment: &Option<Moment>| moment.map(|one| words::moment(one.slot));
        let since = times(&wanted.since).map(|time| format!("since {time}"));
        let until = times(&wanted.until).map(|time| format!("until {time}"));
        let wanted = since.into_iter().chain(until).collect::<Vec<_>>().join(" ");
        let now = value(names, domain, attribute::TIME, request);
        failures.push(format!("it holds {wanted}, and it is the time {now}"));
    }
    failures
}

fn transport(names: &Names, wanted: &Match, request: &Request) -> Option<String> {
    let number = scalar(request, attribute::PROTOCOL);
    let fits = |p: &Protocol| u32::from(p.number) == number && interpret::fits(p, request);
    if wanted.protocols.is_empty() || wanted.protocols.iter().any(fits) {
        return None;
    }
    let word = |attribute, set: &IntervalSet| words::values(names, attribute, None, set);
    let one = |value: u32| IntervalSet::new(vec![(value.into(), value.into())]);
    let each = wanted.protocols.iter().map(|protocol| {
        let mut text = word(attribute::PROTOCOL, &one(protocol.number.into()));
        let ports = [("port", &protocol.ports), ("source port", &protocol.source_ports)];
        for (name, ranges) in ports {
            if let Some(ranges) = ranges {
                let set = ranges.iter().map(|&(a, b)| (a.into(), b.into())).collect();
                let set = word(attribute::DESTINATION_PORT, &IntervalSet::new(set));
                text = format!("{text} {name} {set}");
            }
        }
        for (name, ranges) in [("type", &protocol.icmp_types), ("code", &protocol.icmp_codes)] {
            if let Some(ranges) = ranges {
                let list = ranges
                    .iter()
                    .map(|&(a, b)| if a == b { a.to_string() } else { format!("{a}..{b}") });
                text = format!("{text} {name} {}", list.collect::<Vec<_>>().join(", "));
            }
        }
        text
    });
    let each: Vec<String> = each.collect();
    let protocol = word(attribute::PROTOCOL, &one(number));
    // Of what the packet has, as much as the rule looks at.
    let by_source = wanted.protocols.iter().any(|protocol| protocol.source_ports.is_some());
    let by_code = wanted.protocols.iter().any(|protocol| protocol.icmp_codes.is_some());
    let icmp = scalar(request, attribute::ICMP);
    let mut found = match number {
        // Which it does not show.
        _ if scalar(request, attribute::SHAPE) & shape::FRAGMENT != 0 => {
            return Some(format!("`proto` wants {}, and it is {protocol}", each.join(" or ")));
        }
        6 | 17 | 132 => {
            format!("{protocol} port {}", scalar(request, attribute::DESTINATION_PORT))
        }
        1 | 58 => format!("{protocol} type {}", icmp >> 8),
        _ => protocol,
    };
    match number {
        6 | 17 | 132 if by_source => {
            found = format!("{found} source port {}", scalar(request, attribute::SOURCE_PORT));
        }
        1 | 58 if by_code => found = format!("{found} code {}", icmp & 0xff),
        _ => {}
    }
    Some(format!("`proto` wants {}, and it is {found}", each.join(" or ")))
}

/// Why conditions do not hold.
mod conditions {
    use super::*;
    use crate::checked::Condition;

    pub(super) fn why(
        names: &Names,
        domain: Option<u32>,
        condition: &Condition,
        request: &Request,
    ) -> String {
        match condition {
            Condition::And(a, b) => {
                let failing = if interpret::holds(a, request) { b } else { a };
                why(names, domain, failing, request)
            }
            Condition::Or(..) => {
                let each = alternatives(condition).into_iter();
                let each = each.map(|one| why(names, domain, one, request));
                format!("no alternative holds: {}", each.collect::<Vec<_>>().join("; "))
            }
            Condition::Not(inner) => {
                let facts = facts(inner, request).into_iter();
                let facts = facts.map(|attribute| fact(names, domain, attribute, request));
                format!("{}, which `not` leaves out", facts.collect::<Vec<_>>().join(" and "))
            }
            _ => {
                let attribute = looked_at(condition);
                let wanted = wanted(names, domain, condition);
                let found = fact(names, domain, attribute, request);
                format!("{found}, and {wanted} {} wanted", verb(attribute))
            }
        }
    }

    /// The conditions of which one has to hold.
    fn alternatives(condition: &Condition) -> Vec<&Condition> {
        match condition {
            Condition::Or(a, b) => [alternatives(a), alternatives(b)].concat(),
            _ => vec![condition],
        }
    }

    /// What of a packet makes a condition hold, or fail.
    fn facts(condition: &Condition, request: &Request) -> Vec<Attribute> {
        let both = |a: &Condition, b: &Condition| {
            let mut facts = facts(a, request);
            facts.extend(self::facts(b, request));
            facts
        };
        let mut facts = match condition {
            Condition::And(a, b) | Condition::Or(a, b) => {
                let needs_both = matches!(condition, Condition::And(..));
                // Where one part suffices, it is the first that does.
                match [a, b].map(|part| interpret::holds(part, request) == needs_both) {
                    [true, true] => both(a, b),
                    [false, _] => facts(a, request),
                    [true, false] => facts(b, request),
                }
            }
            Condition::Not(inner) => facts(inner, request),
            _ => vec![looked_at(condition)],
        };
        facts.dedup();
        facts
    }

    /// `residency is eu`, `constraints are {audited}`.
    fn fact(names: &Names, domain: Option<u32>, attribute: Attribute, request: &Request) -> String {
        let value = value(names, domain, attribute, request);
        format!("{} {} {value}", words::attribute_word(attribute), verb(attribute))
    }

    fn verb(attribute: Attribute) -> &'static str {
        match attribute {
            attribute::COMPARTMENTS | attribute::CONSTRAINTS => "are",
            _ => "is",
        }
    }

    /// The attribute that a condition looks at; the first of those of its parts.
    fn looked_at(condition: &Condition) -> Attribute {
        match condition {
            Condition::And(a, _) | Condition::Or(a, _) | Condition::Not(a) => looked_at(a),
            Condition::Level(..) => attribute::LEVEL,
            Condition::Radius(..) => attribute::RADIUS,
            Condition::CompartmentsInclude(_)
            | Condition::CompartmentsWithin(_)
            | Condition::CompartmentsAre(_) => attribute::COMPARTMENTS,
            Condition::ConstraintsInclude(_)
            | Condition::ConstraintsWithin(_)
            | Condition::ConstraintsAre(_) => attribute::CONSTRAINTS,
            Condition::Residency(_) => attribute::RESIDENCY,
            Condition::Route(_) => attribute::ROUTE,
            Condition::Operation(_) => attribute::OPERATION,
            Condition::IngressZone(_) => attribute::INGRESS_ZONE,
            Condition::EgressZone(_) => attribute::EGRESS_ZONE,
        }
    }

    fn wanted(names: &Names, domain: Option<u32>, condition: &Condition) -> String {
        let attribute = looked_at(condition);
        let set = |list: Vec<(u128, u128)>| {
            words::values(names, attribute, domain, &IntervalSet::new(list))
        };
        let each = |list: Vec<u128>| set(list.into_iter().map(|value| (value, value)).collect());
        // A packet has one of these.
        let any = |list: String| list.replace(", ", " or ");
        match condition {
            // What lies between the lowest and the highest is one name where it has one.
            Condition::Level(first, last) => any(set(named_levels(names, domain, *first, *last))),
            Condition::Radius(first, last) => set(vec![((*first).into(), (*last).into())]),
            Condition::CompartmentsInclude(mask) | Condition::ConstraintsInclude(mask) => {
                format!("all of {}", each(vec![(*mask).into()]))
            }
            Condition::CompartmentsWithin(mask) | Condition::ConstraintsWithin(mask) => {
                format!("nothing outside {}", each(vec![(*mask).into()]))
            }
            Condition::CompartmentsAre(mask) | Condition::ConstraintsAre(mask) => {
                format!("just {}", each(vec![(*mask).into()]))
            }
            Condition::Residency(list) => any(each(list.iter().map(|&v| v.into()).collect())),
            Condition::IngressZone(list) | Condition::EgressZone(list) => {
                any(each(list.iter().map(|&v| v.into()).collect()))
            }
            Condition::Route(index) => each(vec![(*index).into()]),
            Condition::Operation(list) => any(each(list.iter().map(|&v| v.into()).collect())),
            Condition::And(..) | Condition::Or(..) | Condition::Not(_) => String::new(),
        }
    }

    fn named_levels(names: &Names, domain: Option<u32>, first: u8, last: u8) -> Vec<(u128, u128)> {
        let levels = domain.and_then(|domain| names.domain(domain)).map(|domain| &domain.levels);
        let inside = levels.into_iter().flatten().map(|level| u128::from(level.number));
        let range = u128::from(first)..=u128::from(last);
        inside.filter(|level| range.contains(level)).map(|level| (level, level)).collect()
    }
}

fn value(names: &Names, domain: Option<u32>, attribute: Attribute, request: &Request) -> String {
    let value = u128::from(scalar(request, attribute));
    words::values(names, attribute, domain, &IntervalSet::new(vec![(value, value)]))
}

/// Who a packet is from.
fn origin(names: &Names, request: &Request) -> String {
    let subject = || words::subject(names, scalar(request, attribute::SUBJECT));
    match scalar(request, attribute::STATE) {
        state::ABSENT => "unlabelled".into(),
        state::LEGACY => format!("legacy traffic that counts as {}", subject()),
        _ => format!("from {}", subject()),
    }
}

fn sender(names: &Names, from: &From) -> String {
    match from {
        From::Scope(ranges) => scopes(names, ranges),
        From::Anyone => "anyone".into(),
        From::Identified => "labelled or legacy traffic".into(),
        From::Labelled => "labelled traffic".into(),
        From::Legacy => "legacy traffic".into(),
        From::Unlabelled => "unlabelled traffic".into(),
    }
}

fn scopes(names: &Names, ranges: &[ScopeRange]) -> String {
    words::values(names, attribute::SUBJECT, None, &crate::lower::scopes(ranges))
}

fn scalar(request: &Request, attribute: Attribute) -> u32 {
    request.scalars.get(usize::from(attribute)).copied().unwrap_or(0)
}
