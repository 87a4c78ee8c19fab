//! Conditions of `where` clauses: first their types, then, when the domain is known, their
//! numbers.

use govc_abi::label::radius;
use govc_grammar::ast::{self, Attribute, ConditionKind, Operator, Reach, Value};
use govc_grammar::diagnostic::{Applicability, Diagnostic};
use govc_grammar::span::Span;

use super::kind::{Flat, Kind};
use super::owned::{Owned, Use};
use super::sink::Sink;
use crate::checked::Condition;
use crate::codes;
use crate::resolve::Lookup;
use crate::suggest;
use crate::vocabulary::DomainNames;

/// Largest value of the 4-bit fields level and radius.
const NIBBLE_MAX: u8 = 15;

/// What the conditions of a rule ask for.
#[derive(Default)]
pub(crate) struct Asked<'a> {
    /// Names that belong to a domain.
    pub(crate) uses: Vec<Use<'a>>,
    /// Where the egress zone is first asked for.
    pub(crate) egress_zone: Option<Span>,
    /// Errors were reported.
    pub(crate) failed: bool,
}

impl Asked<'_> {
    /// Forgets everything but its memory.
    pub(crate) fn clear(&mut self) {
        self.uses.clear();
        (self.egress_zone, self.failed) = (None, false);
    }
}

/// A comparison as written.
#[derive(Clone, Copy)]
struct Test<'a> {
    attribute: Attribute,
    attribute_span: Span,
    operator: Operator,
    operator_span: Span,
    value: &'a Value,
    span: Span,
}

fn test_of(condition: &ast::Condition) -> Option<Test<'_>> {
    match &condition.kind {
        &ConditionKind::Test { attribute, attribute_span, operator, operator_span, ref value } => {
            Some(Test {
                attribute,
                attribute_span,
                operator,
                operator_span,
                value,
                span: condition.span,
            })
        }
        _ => None,
    }
}

impl Lookup<'_, '_> {
    /// Checks the types of a condition and collects what it names.
    pub(crate) fn ask<'n>(
        &self,
        condition: &'n ast::Condition,
        asked: &mut Asked<'n>,
        sink: &mut Sink,
    ) {
        match &condition.kind {
            ConditionKind::And(left, right) | ConditionKind::Or(left, right) => {
                self.ask(left, asked, sink);
                self.ask(right, asked, sink);
            }
            ConditionKind::Not(inner) => self.ask(inner, asked, sink),
            ConditionKind::Error => {
                asked.failed = true;
                sink.poison();
            }
            ConditionKind::Test { .. } => {
                let done = test_of(condition).and_then(|test| self.ask_test(test, asked, sink));
                asked.failed |= done.is_none();
            }
        }
    }

    fn ask_test<'n>(&self, test: Test<'n>, asked: &mut Asked<'n>, sink: &mut Sink) -> Option<()> {
        check_operator(test, sink)?;
        let compared = Some((word(test.attribute), test.attribute_span));
        match (test.attribute, test.value) {
            (Attribute::Radius, Value::Path(path)) => self.radius(path, compared, sink).map(|_| ()),
            (Attribute::IngressZone | Attribute::EgressZone, Value::Path(path)) => {
                if test.attribute == Attribute::EgressZone {
                    asked.egress_zone.get_or_insert(test.attribute_span);
                }
                self.zones(path, sink).map(|_| ())
            }
            (Attribute::Operation, Value::Path(path)) => {
                match self.operation_use(path, Reach::Exact) {
                    Some(name) => asked.uses.push(Use { compared, ..name }),
                    None => return self.no_operation(path, Reach::Exact, true, compared, sink),
                }
                Some(())
            }
            (attribute, Value::Path(path)) => {
                let flat = flat_of(attribute)?;
                match self.flat_use(flat, path, compared) {
                    Some(name) => asked.uses.push(name),
                    None => {
                        let text = path.text();
                        return self.unknown_with(flat.kind(), &text, path.span, compared, sink);
                    }
                }
                Some(())
            }
            (Attribute::Compartments | Attribute::Constraints, Value::Set(names, _)) => {
                let flat = flat_of(test.attribute)?;
                asked.uses.extend(names.iter().map(|name| Use {
                    name: Owned::Flat(flat, &name.text),
                    segments: std::slice::from_ref(name),
                    span: name.span,
                    domain: None,
                    compared,
                }));
                Some(())
            }
            (_, Value::Set(names, span)) => sink.fail(one_name_wanted(test, names, *span)),
        }
    }

    /// The checked condition; everything in it was asked for without an error. Whatever is
    /// found wrong only here is a warning.
    pub(crate) fn condition(
        &self,
        condition: &ast::Condition,
        domain: Option<&DomainNames>,
        sink: &mut Sink,
    ) -> Option<Condition> {
        match &condition.kind {
            ConditionKind::And(left, right) => Some(Condition::And(
                Box::new(self.condition(left, domain, sink)?),
                Box::new(self.condition(right, domain, sink)?),
            )),
            ConditionKind::Or(left, right) => Some(Condition::Or(
                Box::new(self.condition(left, domain, sink)?),
                Box::new(self.condition(right, domain, sink)?),
            )),
            ConditionKind::Not(inner) => {
                Some(Condition::Not(Box::new(self.condition(inner, domain, sink)?)))
            }
            ConditionKind::Error => None,
            ConditionKind::Test { .. } => self.test(test_of(condition)?, domain, sink),
        }
    }

    fn test(
        &self,
        test: Test<'_>,
        domain: Option<&DomainNames>,
        sink: &mut Sink,
    ) -> Option<Condition> {
        let condition = match (test.attribute, test.value) {
            (Attribute::Radius, Value::Path(path)) => {
                interval(test, self.radius(path, None, sink)?, Condition::Radius, sink)
            }
            (Attribute::IngressZone, Value::Path(path)) => {
                Condition::IngressZone(self.zones(path, sink)?)
            }
            (Attribute::EgressZone, Value::Path(path)) => {
                Condition::EgressZone(self.zones(path, sink)?)
            }
            (Attribute::Operation, Value::Path(path)) => {
                let mut numbers = Vec::new();
                self.operation_use(path, Reach::Exact)?.name.add_operations(domain?, &mut numbers);
                Condition::Operation(numbers)
            }
            (Attribute::Compartments, value) => {
                let mask = mask(value, Flat::Compartment, domain)?;
                match test.operator {
                    Operator::Includes => Condition::CompartmentsInclude(mask),
                    Operator::Within => Condition::CompartmentsWithin(mask),
                    _ => Condition::CompartmentsAre(mask),
                }
            }
            (Attribute::Constraints, value) => {
                let mask = mask(value, Flat::Constraint, domain)?;
                match test.operator {
                    Operator::Includes => Condition::ConstraintsInclude(mask),
                    Operator::Within => Condition::ConstraintsWithin(mask),
                    _ => Condition::ConstraintsAre(mask),
                }
            }
            (Attribute::Level, Value::Path(path)) => {
                let number = u8::try_from(number(path, Flat::Level, domain?)?).ok()?;
                interval(test, number, Condition::Level, sink)
            }
            (Attribute::Residency, Value::Path(path)) => {
                let domain = domain?;
                let number = number(path, Flat::Residency, domain)?;
                Condition::Residency(match test.operator {
                    Operator::Within => domain.residencies_within(number).to_vec(),
                    _ => vec![u8::try_from(number).ok()?],
                })
            }
            (Attribute::Route, Value::Path(path)) => {
                Condition::Route(u8::try_from(number(path, Flat::Route, domain?)?).ok()?)
            }
            (_, Value::Set(..)) => return None,
        };
        Some(match test.operator {
            Operator::IsNot => Condition::Not(Box::new(condition)),
            _ => condition,
        })
    }

    /// Number of a radius by name.
    pub(crate) fn radius(
        &self,
        path: &ast::Path,
        compared: Option<(&'static str, Span)>,
        sink: &mut Sink,
    ) -> Option<u8> {
        if let [name] = path.segments.as_slice()
            && let Some(number) = radius::NAMES.iter().position(|radius| *radius == name.text)
        {
            return u8::try_from(number).ok();
        }
        let text = path.text();
        let all = suggest::list(radius::NAMES, radius::NAMES.len());
        let message = format!("unknown radius `{text}`");
        let diagnostic = Diagnostic::new(codes::UNKNOWN_RADIUS, message, path.span, "not found");
        let diagnostic = match suggest::near_word(&text, radius::NAMES) {
            Some(near) => {
                near.offer(diagnostic.help(format!("did you mean `{}`?", near.name)), path.span)
            }
            None => diagnostic.help(format!("the radii are {all}")),
        };
        sink.fail(match compared {
            Some((_, attribute_span)) => diagnostic.and(attribute_span, "compares with a radius"),
            None => diagnostic,
        })
    }

    /// Numbers of the zones that a name means; `encrypted` means all that are declared so.
    fn zones(&self, path: &ast::Path, sink: &mut Sink) -> Option<Vec<u8>> {
        match path.segments.as_slice() {
            [name] if name.text == "encrypted" => {
                let zones = self.world.zones.iter().enumerate();
                let encrypted = zones.filter(|(_, zone)| zone.source.encrypted);
                Some(encrypted.filter_map(|(at, _)| u8::try_from(at + 1).ok()).collect())
            }
            [name] => self.zone(name, sink).map(|zone| vec![zone]),
            _ => self.unknown(Kind::Zone, &path.text(), path.span, sink),
        }
    }
}

/// The kind of the names that an attribute is compared with.
fn flat_of(attribute: Attribute) -> Option<Flat> {
    match attribute {
        Attribute::Level => Some(Flat::Level),
        Attribute::Compartments => Some(Flat::Compartment),
        Attribute::Constraints => Some(Flat::Constraint),
        Attribute::Residency => Some(Flat::Residency),
        Attribute::Route => Some(Flat::Route),
        _ => None,
    }
}

/// The attribute as written.
fn word(attribute: Attribute) -> &'static str {
    match attribute {
        Attribute::Level => "level",
        Attribute::Compartments => "compartments",
        Attribute::Constraints => "constraints",
        Attribute::Residency => "residency",
        Attribute::Route => "route",
        Attribute::Radius => "radius",
        Attribute::Operation => "operation",
        Attribute::IngressZone => "ingress zone",
        Attribute::EgressZone => "egress zone",
    }
}

/// Operators of an attribute, with what they are called in help texts.
fn operators(attribute: Attribute) -> (&'static [Operator], &'static str) {
    use Operator::{Above, AtLeast, AtMost, Below, Includes, Is, IsNot, Within};
    match attribute {
        Attribute::Level | Attribute::Radius => {
            (&[Is, IsNot, Below, AtMost, Above, AtLeast], "`is`, `!=`, `<`, `<=`, `>` and `>=`")
        }
        Attribute::Compartments | Attribute::Constraints => {
            (&[Is, IsNot, Includes, Within], "`has`, `includes`, `within`, `is` and `!=`")
        }
        Attribute::Residency => (&[Is, IsNot, Within], "`within`, `is` and `!=`"),
        Attribute::Route
        | Attribute::Operation
        | Attribute::IngressZone
        | Attribute::EgressZone => (&[Is, IsNot], "`is` and `!=`"),
    }
}

/// The operator as written.
fn operator_word(test: Test<'_>) -> &'static str {
    let length = test.operator_span.end - test.operator_span.start;
    match test.operator {
        Operator::Includes if length == 3 => "has",
        Operator::Is => "is",
        Operator::IsNot => "!=",
        Operator::Below => "<",
        Operator::AtMost => "<=",
        Operator::Above => ">",
        Operator::AtLeast => ">=",
        Operator::Within => "within",
        Operator::Includes => "includes",
    }
}

fn check_operator(test: Test<'_>, sink: &mut Sink) -> Option<()> {
    let (allowed, listed) = operators(test.attribute);
    if allowed.contains(&test.operator) {
        return Some(());
    }
    let (attribute, operator) = (word(test.attribute), operator_word(test));
    let message = format!("`{operator}` does not go with `{attribute}`");
    sink.fail(
        Diagnostic::new(codes::OPERATOR_MISMATCH, message, test.operator_span, "wrong operator")
            .and(test.attribute_span, what(test.attribute))
            .help(format!("`{attribute}` takes {listed}")),
    )
}

/// What an attribute is, for a label under it.
fn what(attribute: Attribute) -> &'static str {
    match attribute {
        Attribute::Level => "an ordered level",
        Attribute::Radius => "an ordered radius",
        Attribute::Compartments => "a set of compartments",
        Attribute::Constraints => "a set of constraints",
        Attribute::Residency => "a residency",
        Attribute::Route => "a route class",
        Attribute::Operation => "an operation",
        Attribute::IngressZone | Attribute::EgressZone => "a zone",
    }
}

fn one_name_wanted(test: Test<'_>, names: &[ast::Name], span: Span) -> Diagnostic {
    let attribute = word(test.attribute);
    let message =
        format!("`{attribute}` is compared with a set, and it is {}", what(test.attribute));
    let operator = operator_word(test);
    let diagnostic = Diagnostic::new(codes::VALUE_SHAPE, message, span, "a set")
        .and(test.attribute_span, what(test.attribute));
    let each = names.iter().map(|name| format!("{attribute} {operator} {}", name.text));
    // Not to be one of several is to be none of them. What `<` of several means is not sure.
    let (link, applicability) = match test.operator {
        Operator::IsNot => (" and ", Applicability::MachineApplicable),
        Operator::Is => (" or ", Applicability::MachineApplicable),
        _ => (" or ", Applicability::MaybeIncorrect),
    };
    let text = match each.collect::<Vec<_>>().as_slice() {
        [] => {
            return diagnostic.help(format!("write one name: `{attribute} {operator} NAME`"));
        }
        [one] => one.clone(),
        several => format!("({})", several.join(link)),
    };
    diagnostic.help(format!("write `{text}`")).replace(test.span, text, applicability)
}

/// The values that an order comparison allows, as an interval.
fn interval(
    test: Test<'_>,
    number: u8,
    make: fn(u8, u8) -> Condition,
    sink: &mut Sink,
) -> Condition {
    let ends = match test.operator {
        Operator::Below => number.checked_sub(1).map(|last| (0, last)),
        Operator::AtMost => Some((0, number)),
        Operator::Above => (number < NIBBLE_MAX).then_some((number + 1, NIBBLE_MAX)),
        Operator::AtLeast => Some((number, NIBBLE_MAX)),
        _ => Some((number, number)),
    };
    let Some((first, last)) = ends else {
        let side = if test.operator == Operator::Below { "lowest" } else { "highest" };
        let attribute = word(test.attribute);
        let message = format!("no packet has a {attribute} beyond the {side} one");
        sink.push(
            Diagnostic::new(codes::NEVER_HOLDS, message, test.span, "never holds")
                .help(format!("compare with another {attribute}, or remove the condition")),
        );
        // The complement of everything: intervals are never empty.
        return Condition::Not(Box::new(make(0, NIBBLE_MAX)));
    };
    make(first, last)
}

fn number(path: &ast::Path, flat: Flat, domain: &DomainNames) -> Option<u16> {
    domain.flat(flat, &path.segments.last()?.text)
}

fn mask(value: &Value, flat: Flat, domain: Option<&DomainNames>) -> Option<u16> {
    match value {
        Value::Path(path) => bit(number(path, flat, domain?)?),
        Value::Set(names, _) => names
            .iter()
            .try_fold(0, |mask, name| Some(mask | bit(domain?.flat(flat, &name.text)?)?)),
    }
}

/// The bit with this number.
pub(crate) fn bit(number: u16) -> Option<u16> {
    1_u16.checked_shl(number.into())
}
