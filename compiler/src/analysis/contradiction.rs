//! Which clauses of a rule that no packet matches contradict each other.

use super::universe;
use crate::{
    checked::{From, Match, Policy, Rule, ScopeRange},
    lower::{rows_of, scopes},
    table::Row,
};
use govc_abi::attribute;

/// Rules with more alternatives are not looked into.
const ROWS_MAX: usize = 1 << 10;

/// A clause, and the rule without it.
type Clause = (&'static str, fn(&mut Match));

/// All conditions together are one: which of them, their author sees.
const CLAUSES: [Clause; 9] = [
    ("from", |rule| rule.from = vec![From::Anyone]),
    ("to", |rule| rule.to = None),
    ("operation", |rule| rule.operations = None),
    ("proto", |rule| rule.protocols.clear()),
    ("source", |rule| rule.sources = None),
    ("destination", |rule| rule.destinations = None),
    ("since", |rule| rule.since = None),
    ("until", |rule| rule.until = None),
    ("where", |rule| rule.conditions.clear()),
];

/// The words of a smallest set of clauses that no packet fits, in the order in which they are listed here;
/// nothing where that would take too long.
pub(super) fn contradiction(policy: &Policy, rule: &Rule) -> Vec<&'static str> {
    let hooks = (0..).zip(rule.hooks.iter());
    let places: Vec<Place> = hooks
        .filter_map(|(hook, scope)| {
            let objects = scope.as_ref()?.objects.as_deref();
            Some((universe::possible(policy, hook), objects))
        })
        .collect();
    let mut left = rule.matches.clone();
    let mut words = Vec::new();
    for (word, leave_out) in CLAUSES {
        let mut without = left.clone();
        leave_out(&mut without);
        match exists(policy, &without, &places) {
            Some(false) => left = without,
            Some(true) => words.push(word),
            None => return Vec::new(),
        }
    }
    words
}

/// The packets of a hook, and the objects that the policy is about there.
type Place<'p> = (Vec<Row>, Option<&'p [ScopeRange]>);

/// Whether some packet fits; nothing where that would take too long.
fn exists(policy: &Policy, wanted: &Match, places: &[Place<'_>]) -> Option<bool> {
    let rows = rows_of(policy, wanted).ok().filter(|rows| rows.len() <= ROWS_MAX)?;
    let fits = |objects: Option<&[ScopeRange]>, row: &Row, packets: &Row| {
        let about = objects
            .map(|objects| Row { value: 0, cells: vec![(attribute::OBJECT, scopes(objects))] });
        let both = about.iter().chain([row]);
        let cells = both.flat_map(|row| &row.cells).cloned().collect::<Vec<_>>();
        (0..attribute::COUNT as attribute::Attribute).all(|attribute| {
            let mut own =
                cells.iter().chain(&packets.cells).filter(|(other, _)| *other == attribute);
            let Some((_, first)) = own.next() else { return true };
            !own.fold(first.clone(), |left, (_, set)| left.intersect(set)).is_empty()
        })
    };
    Some(places.iter().any(|(possible, objects)| {
        rows.iter().any(|row| possible.iter().any(|packets| fits(*objects, row, packets)))
    }))
}
