//! Permits and denials of one tier that contradict each other.
//!
//! A denial that speaks of less than a permit is an exception from it, and a permit of less than
//! a denial is found as shadowed. What is left are rules that meet without one holding the other:
//! the order of actions decides there, and perhaps neither author has thought of it.

use govc_abi::walk::Classes;
use govc_grammar::diagnostic::Diagnostic;
use govc_image::Names;

use super::{
    field::{Field, Ground, NAMED},
    hooks_with_rows, rule_name,
    search::region_point,
    witness, words,
};
use crate::{
    checked::{Action, Hook, Policy},
    codes,
    table::{DecisionTable, Row},
};

/// Conflicts that are told.
const CONFLICTS_MAX: usize = 50;

/// All conflicts, up to a limit, each with a packet that both rules match.
#[must_use]
pub fn diagnose(policy: &Policy, table: &DecisionTable, names: &Names) -> Vec<Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut told: Vec<(u32, u32)> = Vec::new();
    for hook in hooks_with_rows(table) {
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
                    if told.len() == CONFLICTS_MAX {
                        return diagnostics;
                    }
                    told.push(pair);
                    let point = region_point(&field, &both);
                    let packet = packet(policy, names, &field, hook, &both, point);
                    diagnostics.extend(conflict(policy, pair, &packet));
                }
            }
        }
    }
    diagnostics
}

/// Whether a row matches all that another one does, attribute by attribute.
fn holds(outer: &Row, inner: &Row) -> bool {
    outer.cells.iter().all(|(attribute, set)| {
        let own = inner.cells.iter().find(|(other, _)| other == attribute);
        own.is_some_and(|(_, own)| own.intersect(set) == *own)
    })
}

fn packet(
    policy: &Policy,
    names: &Names,
    field: &Field<'_>,
    hook: Hook,
    region: &super::region::Region,
    point: Classes,
) -> String {
    let (_, request) = witness::smallest(policy, field, region, point, |_| true);
    words::packet(names, Some(policy), hook, &request)
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
