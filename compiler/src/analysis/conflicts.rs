//! Permits and denials of one tier that contradict each other.
//!
//! A denial that speaks of less than a permit is an exception from it, and a permit of less than
//! a denial is found as shadowed. What is left are rules that meet without one holding the other:
//! the order of actions decides there, and perhaps neither author has thought of it.

use govc_grammar::diagnostic::Diagnostic;
use govc_image::Names;
use rustc_hash::FxHashSet;

use super::{
    field::{Field, Ground, NAMED},
    hooks_with_rows, rule_name,
    search::region_point,
    universe, witness, words,
};
use crate::{
    checked::{Action, Policy},
    codes,
    table::{DecisionTable, Row},
};

/// Conflicts that are told, and that are counted.
const CONFLICTS_MAX: usize = 50;
const CONFLICTS_COUNTED: usize = 10_000;

/// All conflicts, up to a limit, each with a packet that both rules match; then how many there are
/// besides.
#[must_use]
pub fn diagnose(policy: &Policy, table: &DecisionTable, names: &Names) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut told = FxHashSet::default();
    'hooks: for hook in hooks_with_rows(table) {
        let ground = Ground::new(policy, table, hook, Vec::new());
        let field = Field::new(&ground, policy.rules().len());
        let which = govc_abi::image::program::INGRESS as usize + hook;
        let groups = table.programs.get(which).map_or(&[][..], |program| &program.groups);
        let rows: Vec<&Row> = groups.iter().flat_map(|group| &group.enforced).collect();
        for (permit, permitted) in (0_u32..).zip(&rows) {
            let permits = field.meta(permit);
            if permits.action != Action::Permit {
                continue;
            }
            for region in field.within(Some(permit), NAMED) {
                for deny in field.meeting(&region) {
                    let denies = field.meta(deny);
                    let pair = (permits.rule, denies.rule);
                    let clash = denies.action == Action::Deny && denies.tier == permits.tier;
                    let Some(denied) = rows.get(deny as usize).filter(|_| clash) else { continue };
                    if told.contains(&pair) || holds(permitted, denied) || holds(denied, permitted)
                    {
                        continue;
                    }
                    let Some(both) = region.narrowed(&field.table, deny) else { continue };
                    if told.len() >= CONFLICTS_MAX {
                        told.insert(pair);
                        if told.len() > CONFLICTS_MAX + CONFLICTS_COUNTED {
                            break 'hooks;
                        }
                        continue;
                    }
                    let point = region_point(&field, &both);
                    let (_, request) = witness::smallest(policy, &field, &both, point, |_| true);
                    if !universe::is_real(policy, &request) {
                        continue;
                    }
                    told.insert(pair);
                    let packet = words::packet(names, Some(policy), hook, &request);
                    diagnostics.extend(conflict(policy, pair, &packet));
                }
            }
        }
    }
    diagnostics.extend(left_out(told.len().saturating_sub(CONFLICTS_MAX)));
    diagnostics
}

/// How many conflicts are not told.
fn left_out(count: usize) -> Option<Diagnostic> {
    let many = match count {
        0 => return None,
        1 => "1 more conflict is".to_owned(),
        count if count > CONFLICTS_COUNTED => {
            format!("more than {CONFLICTS_COUNTED} more conflicts are")
        }
        count => format!("{count} more conflicts are"),
    };
    let message = format!("{many} not told");
    Some(
        Diagnostic::without_place(codes::CONFLICT, message)
            .help(format!("the first {CONFLICTS_MAX} are: settle those, and ask again")),
    )
}

/// Whether a row matches all that another one does, attribute by attribute.
fn holds(outer: &Row, inner: &Row) -> bool {
    outer.cells.iter().all(|(attribute, set)| {
        let own = inner.cells.iter().find(|(other, _)| other == attribute);
        own.is_some_and(|(_, own)| own.intersect(set) == *own)
    })
}

fn conflict(policy: &Policy, (permit, deny): (u32, u32), packet: &str) -> Option<Diagnostic> {
    let (permit, deny) = (permit as usize, deny as usize);
    let (permits, denies) = (policy.rules().get(permit)?, policy.rules().get(deny)?);
    let (permit, deny) = (rule_name(policy, permit), rule_name(policy, deny));
    let message = format!("`{permit}` and `{deny}` contradict each other");
    let diagnostic = Diagnostic::new(codes::CONFLICT, message, permits.head, "permits")
        .and(denies.head, "denies")
        .help(format!("both match this packet:\n    {packet}"));
    Some(diagnostic)
}
