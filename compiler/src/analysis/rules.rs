//! Rules that decide nothing, or nothing that others would not decide likewise.

use rustc_hash::FxHashSet;

use super::{
    Progress,
    field::{Field, POSSIBLE},
    search::{Found, Question, Rules, search},
};
use crate::{
    checked::{Action, Policy},
    class::parallel::join,
};

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// No packet matches it.
    NeverMatches,
    /// These rules decide all of its packets, some of them otherwise; it never decides. By
    /// position, a smallest set: none of them can be left out.
    Shadowed(Vec<usize>),
    /// Without it, these rules give all of its packets the same verdict. By position.
    Redundant(Vec<usize>),
    /// It would take too long to find out.
    Undecided,
}

/// Rows that one search may look at, and so many more for each row that it begins with.
const BUDGET: u64 = 1 << 18;
const BUDGET_PER_ROW: u64 = 32;
/// Sets of rules up to this size are made as small as possible.
const MINIMISED_MAX: usize = 12;
/// Fewer rules than this are judged one after the other, and reported as progress together.
const RULES_MANY: usize = 256;
/// Halves of more rules than this are judged at the same time.
const THREAD_RULES: usize = 1 << 11;

/// What a first look at a rule says.
enum Look {
    Fine,
    NeverMatches,
    Covered(Vec<u32>),
    Replaceable,
    Undecided,
}

/// Judges all rules that are enforced at some hook. Together, the rules that are found wanting
/// can be removed without changing a verdict.
pub(super) fn judge(
    fields: &[Field<'_>],
    policy: &Policy,
    progress: Progress<'_>,
) -> Vec<(usize, Finding)> {
    let actions: Vec<Action> = policy.rules().iter().map(|rule| rule.action).collect();
    let present = |rule: &u32| fields.iter().any(|field| !field.rows_of(*rule).is_empty());
    let rules: Vec<u32> = (0..actions.len() as u32).filter(present).collect();
    let looks = look_at_all(fields, &rules, progress);
    let covered = rules.iter().zip(&looks).filter(|(_, look)| matches!(look, Look::Covered(_)));
    let mut gone: Rules = covered.map(|(&rule, _)| rule).collect();
    let mut findings = Vec::new();
    for (&rule, look) in rules.iter().zip(looks) {
        let action = actions.get(rule as usize).copied();
        let finding = match look {
            Look::Fine => continue,
            Look::NeverMatches => Finding::NeverMatches,
            Look::Undecided => Finding::Undecided,
            Look::Covered(by) => {
                let same = |other: &u32| actions.get(*other as usize).copied() == action;
                let alike = action != Some(Action::Pass) && by.iter().all(same);
                let by = by.iter().map(|&rule| rule as usize).collect();
                if alike { Finding::Redundant(by) } else { Finding::Shadowed(by) }
            }
            // Of twins only one can go: what was found before is taken as gone.
            Look::Replaceable => match replaced_by(fields, rule, &gone) {
                Some(by) => {
                    gone.insert(rule);
                    Finding::Redundant(by)
                }
                None => continue,
            },
        };
        findings.push((rule as usize, finding));
    }
    findings
}

fn look_at_all(fields: &[Field<'_>], rules: &[u32], progress: Progress<'_>) -> Vec<Look> {
    if rules.len() < RULES_MANY {
        let looks = rules.iter().map(|&rule| look_at(fields, rule)).collect();
        progress(rules.len());
        return looks;
    }
    let (left, right) = rules.split_at(rules.len() / 2);
    let look = |half| look_at_all(fields, half, progress);
    let (mut left, mut right) = if rules.len() > THREAD_RULES {
        join(|| look(left), || look(right))
    } else {
        (look(left), look(right))
    };
    left.append(&mut right);
    left
}

fn look_at(fields: &[Field<'_>], rule: u32) -> Look {
    let mut deciders = Rules::default();
    let mut exists = false;
    let mut reached = false;
    for field in fields.iter().filter(|field| !field.rows_of(rule).is_empty()) {
        match ask(field, rule, Question::Reaches(rule), &mut deciders, |_| true) {
            Answer::Packet => {
                reached = true;
                break;
            }
            Answer::Nothing => exists = true,
            Answer::Impossible => {}
            Answer::Undecided => return Look::Undecided,
        }
    }
    if reached {
        return match replaced_by(fields, rule, &Rules::default()) {
            Some(_) => Look::Replaceable,
            None => Look::Fine,
        };
    }
    if !exists {
        return Look::NeverMatches;
    }
    Look::Covered(smallest(fields, rule, deciders))
}

/// The rules that take over when a rule goes after those that are gone, if that surely changes
/// no verdict.
fn replaced_by(fields: &[Field<'_>], rule: u32, gone: &Rules) -> Option<Vec<usize>> {
    let mut by = Rules::default();
    for field in fields {
        let keep = |row: u32| !gone.contains(&field.meta(row).rule);
        match ask(field, rule, Question::Matters(rule), &mut by, keep) {
            Answer::Packet | Answer::Undecided => return None,
            Answer::Nothing | Answer::Impossible => {}
        }
    }
    let mut by: Vec<usize> = by.into_iter().map(|rule| rule as usize).collect();
    by.sort_unstable();
    Some(by)
}

/// Leaves out rules as long as the others still decide all packets of the rule.
fn smallest(fields: &[Field<'_>], rule: u32, deciders: Rules) -> Vec<u32> {
    let mut by: Vec<u32> = deciders.into_iter().collect();
    by.sort_unstable();
    if by.len() > MINIMISED_MAX {
        return by;
    }
    let mut at = by.len();
    while at > 0 && by.len() > 1 {
        at -= 1;
        let left_out = by.remove(at);
        let kept: FxHashSet<u32> = by.iter().copied().collect();
        let covers = fields.iter().all(|field| {
            let keep = |row: u32| {
                let meta = field.meta(row);
                meta.rule == rule || meta.action == Action::Pass || kept.contains(&meta.rule)
            };
            let question = Question::Reaches(rule);
            let answer = ask(field, rule, question, &mut Rules::default(), keep);
            matches!(answer, Answer::Nothing | Answer::Impossible)
        });
        if !covers {
            by.insert(at, left_out);
        }
    }
    by
}

/// What a question about a rule comes to at one hook.
enum Answer {
    Packet,
    Nothing,
    /// The rule has no packets here.
    Impossible,
    Undecided,
}

/// Asks about all packets of a rule, among the rows to keep.
fn ask(
    field: &Field<'_>,
    rule: u32,
    question: Question,
    deciders: &mut Rules,
    keep: impl Fn(u32) -> bool,
) -> Answer {
    let mut answer = Answer::Impossible;
    let behind = field.rows_of(rule).end;
    for row in field.rows_of(rule) {
        let mut near = None;
        for region in field.within(Some(row), POSSIBLE) {
            let near = near.get_or_insert_with(|| {
                let mut rows = field.meeting(&super::region::Region::of(&field.table, row));
                rows.retain(|&row| keep(row));
                if matches!(question, Question::Reaches(_)) {
                    rows.retain(|&row| row < behind);
                }
                rows
            });
            let rows = near.iter().copied().filter(|&row| region.meets(&field.table, row));
            let rows: Vec<u32> = rows.collect();
            let mut budget = BUDGET + BUDGET_PER_ROW * rows.len() as u64;
            match search(field, &region, &rows, question, &mut budget, deciders) {
                Found::Packet(_) => return Answer::Packet,
                Found::Nothing if matches!(answer, Answer::Impossible) => answer = Answer::Nothing,
                Found::Nothing => {}
                // What may matter is not told as redundant, wherever it does.
                Found::Undecided if matches!(question, Question::Matters(_)) => {
                    return Answer::Undecided;
                }
                Found::Undecided => answer = Answer::Undecided,
            }
        }
    }
    answer
}
