//! Rules that decide nothing, or nothing that others would not decide likewise.

use govc_abi::attribute::{self, Attribute};
use rustc_hash::FxHashSet;

use super::{
    Progress,
    escape::Lots,
    field::{Field, POSSIBLE},
    region::{Region, Share},
    search::{Found, Question, Reasons, Rules, region_point, search},
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
    /// It passes on what no other rule of its tier decides. By position, those of its tier that decide
    /// others of the packets that it matches.
    Idle(Vec<usize>),
    /// It would take too long to find out.
    Undecided,
}

/// Looks at rows that all rules together may take, in equal shares within these limits.
const BUDGET_ALL: u64 = 1 << 32;
const BUDGET_MIN: u64 = 1 << 16;
const BUDGET_MAX: u64 = 1 << 22;
/// So many more for each row that meets one of a rule.
const BUDGET_PER_ROW: u64 = 32;
/// What may be spent on a row as a whole, for each row that meets it, before it is asked about in
/// parts.
const BUDGET_OF_WHOLE_PER_ROW: u64 = 4;
/// Packets of a rule that are tried before it is asked about all of them.
const LOTS: usize = 12;
/// Packets of one part of a rule's row among them.
const LOTS_OF_PART: usize = 3;
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
    /// By these rules, as long as those are there that the answer needs.
    Replaceable(Vec<usize>, Rules),
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
    let budget = BUDGET_ALL / (rules.len() as u64).max(1);
    let budget = budget.clamp(BUDGET_MIN, BUDGET_MAX);
    let looks = look_at_all(fields, &rules, budget, progress);
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
            Look::Replaceable(by, needed) => {
                let replaced = if needed.is_disjoint(&gone) {
                    Replaced::By(by, needed)
                } else {
                    replaced_by(fields, rule, &gone, budget)
                };
                match replaced {
                    Replaced::By(by, _) => {
                        gone.insert(rule);
                        if by.is_empty() && action == Some(Action::Pass) {
                            Finding::Idle(before(fields, rule))
                        } else {
                            Finding::Redundant(by)
                        }
                    }
                    Replaced::No => continue,
                    Replaced::Undecided => Finding::Undecided,
                }
            }
        };
        findings.push((rule as usize, finding));
    }
    findings
}

/// Rules that decide some of the packets that a rule matches before it does, in its own tier.
fn before(fields: &[Field<'_>], rule: u32) -> Vec<usize> {
    let mut before = Vec::new();
    for field in fields {
        for row in field.rows_of(rule) {
            let own = field.meta(row);
            for region in field.within(Some(row), POSSIBLE) {
                field.each_meeting(&region, |other, _| {
                    let meta = field.meta(other);
                    if meta.tier == own.tier && meta.action != Action::Pass && other < row {
                        before.push(meta.rule as usize);
                    }
                    other < row
                });
            }
        }
    }
    before.sort_unstable();
    before.dedup();
    before
}

fn look_at_all(
    fields: &[Field<'_>],
    rules: &[u32],
    budget: u64,
    progress: Progress<'_>,
) -> Vec<Look> {
    if rules.len() < RULES_MANY {
        let looks = rules.iter().map(|&rule| look_at(fields, rule, budget)).collect();
        progress(rules.len());
        return looks;
    }
    let (left, right) = rules.split_at(rules.len() / 2);
    let look = |half| look_at_all(fields, half, budget, progress);
    let (mut left, mut right) = if rules.len() > THREAD_RULES {
        join(|| look(left), || look(right))
    } else {
        (look(left), look(right))
    };
    left.append(&mut right);
    left
}

fn look_at(fields: &[Field<'_>], rule: u32, budget: u64) -> Look {
    let here = || fields.iter().filter(|field| !field.rows_of(rule).is_empty());
    if here().all(|field| covered_by_single_rows(field, rule)) {
        return reached(fields, rule, budget).unwrap_or(Look::Fine);
    }
    let tried = here().map(|field| try_lots(field, rule)).max();
    if tried == Some(Tried::Matters) {
        return Look::Fine;
    }
    // What matters is reached: it is asked first, because it is what most rules do.
    match replaced_by(fields, rule, &Rules::default(), budget) {
        Replaced::No => Look::Fine,
        Replaced::Undecided => Look::Undecided,
        Replaced::By(by, needed) if tried == Some(Tried::Reached) => Look::Replaceable(by, needed),
        Replaced::By(by, needed) => {
            reached(fields, rule, budget).unwrap_or(Look::Replaceable(by, needed))
        }
    }
}

/// What is wrong with a rule if it decides nothing.
fn reached(fields: &[Field<'_>], rule: u32, budget: u64) -> Option<Look> {
    let mut reasons = Reasons::default();
    let mut exists = false;
    let mut left = budget;
    for field in fields.iter().filter(|field| !field.rows_of(rule).is_empty()) {
        match ask(field, rule, Question::Reaches(rule), &mut left, &mut reasons, |_| true) {
            Answer::Packet => return None,
            Answer::Nothing => exists = true,
            Answer::Impossible => {}
            Answer::Undecided => return Some(Look::Undecided),
        }
    }
    if !exists {
        return Some(Look::NeverMatches);
    }
    Some(Look::Covered(smallest(fields, rule, reasons.deciders, budget)))
}

/// Whether for each row of a rule there is another row that comes before and takes all of it.
fn covered_by_single_rows(field: &Field<'_>, rule: u32) -> bool {
    field.rows_of(rule).all(|row| {
        let whole = Region::of(&field.table, row);
        let near = near(field, &whole, rule, Question::Reaches(rule), |_| true);
        near.last().is_some_and(|last| !field.rows_of(rule).contains(last))
    })
}

/// What a few packets of a rule show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Tried {
    Nothing,
    /// It decides one of them, or passes it on.
    Reached,
    /// One of them gets another verdict without it.
    Matters,
}

/// Tries packets of a rule. Most rules matter to almost all of theirs.
fn try_lots(field: &Field<'_>, rule: u32) -> Tried {
    let mut lots = Lots::new();
    let mut best = Tried::Nothing;
    let parts = field.rows_of(rule).flat_map(|row| field.within(Some(row), POSSIBLE));
    let parts = parts.flat_map(|part| std::iter::repeat_n(part, LOTS_OF_PART));
    for part in parts.take(LOTS) {
        let mut point = region_point(field, &part);
        for attribute in 0..attribute::COUNT as Attribute {
            let all = [(0, field.table.classes(attribute).count() - 1)];
            let cell = part.cell(attribute).unwrap_or(&all);
            field.choose(&mut point, attribute, cell, &mut lots);
        }
        let own = field.rows_of(rule);
        let (mut rows, mut passed) = (Vec::new(), false);
        field.matching(&point, |row| {
            rows.push(row);
            let passes = field.meta(row).action == Action::Pass;
            passed |= passes;
            // What comes behind the first that decides, but for the rule itself, decides nothing.
            passed || own.contains(&row)
        });
        let mut reached = false;
        let visit = |row: u32| reached |= own.contains(&row);
        let with = field.decide(rows.iter().copied(), None, visit);
        if !reached {
            continue;
        }
        best = Tried::Reached;
        let without = field.decide(rows.iter().copied(), Some(rule), |_| {});
        if field.said(with) != field.said(without) {
            return Tried::Matters;
        }
    }
    best
}

/// What becomes of a rule's packets without it.
enum Replaced {
    /// These rules say the same about them, as long as those are there that the answer needs.
    By(Vec<usize>, Rules),
    No,
    Undecided,
}

/// Who takes over when a rule goes after those that are gone.
fn replaced_by(fields: &[Field<'_>], rule: u32, gone: &Rules, budget: u64) -> Replaced {
    let mut reasons = Reasons::default();
    let mut left = budget;
    for field in fields {
        let keep = |row: u32| !gone.contains(&field.meta(row).rule);
        match ask(field, rule, Question::Matters(rule), &mut left, &mut reasons, keep) {
            Answer::Packet => return Replaced::No,
            Answer::Undecided => return Replaced::Undecided,
            Answer::Nothing | Answer::Impossible => {}
        }
    }
    let mut by: Vec<usize> = reasons.deciders.into_iter().map(|rule| rule as usize).collect();
    by.sort_unstable();
    Replaced::By(by, reasons.needed)
}

/// Leaves out rules as long as the others still decide all packets of the rule.
fn smallest(fields: &[Field<'_>], rule: u32, deciders: Rules, budget: u64) -> Vec<u32> {
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
            let (mut left, mut reasons) = (budget, Reasons::default());
            let answer = ask(field, rule, question, &mut left, &mut reasons, keep);
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
    budget: &mut u64,
    reasons: &mut Reasons,
    keep: impl Fn(u32) -> bool,
) -> Answer {
    let mut answer = Answer::Impossible;
    for row in field.rows_of(rule) {
        let mut parts = field.within(Some(row), POSSIBLE).peekable();
        if parts.peek().is_none() {
            continue;
        }
        let whole = Region::of(&field.table, row);
        let near = near(field, &whole, rule, question, &keep);
        *budget += BUDGET_PER_ROW * near.len() as u64;
        // Where a single row takes all packets of this one, there is nothing to tell apart.
        let last = near.last().filter(|last| !field.rows_of(rule).contains(last));
        if last.is_some_and(|&last| whole.share(&field.table, last) == Share::All) {
            let mut share = BUDGET_OF_WHOLE_PER_ROW * near.len() as u64;
            let mut reasons_of_whole = Reasons::default();
            let found = search(field, &whole, &near, question, &mut share, &mut reasons_of_whole);
            if found == Found::Nothing {
                reasons.extend(reasons_of_whole);
                answer = answer.and_nothing();
                continue;
            }
        }
        for region in parts {
            match search(field, &region, &near, question, budget, reasons) {
                Found::Packet(_) => return Answer::Packet,
                Found::Nothing => answer = answer.and_nothing(),
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

/// The rows to keep that meet a row of a rule, as far as they have to do with the question: where
/// no rule passes anything on, nothing comes behind one that takes all.
fn near(
    field: &Field<'_>,
    row: &Region,
    rule: u32,
    question: Question,
    keep: impl Fn(u32) -> bool,
) -> Vec<u32> {
    let own = field.rows_of(rule);
    let reaches = matches!(question, Question::Reaches(_));
    let (mut rows, mut passed) = (Vec::new(), false);
    field.each_meeting(row, |row, share| {
        if reaches && row >= own.end {
            return false;
        }
        if !keep(row) {
            return true;
        }
        rows.push(row);
        passed |= field.meta(row).action == Action::Pass;
        passed || share != Share::All || own.contains(&row)
    });
    rows
}

impl Answer {
    /// With a part of the packets about which there is nothing to say.
    fn and_nothing(self) -> Self {
        if matches!(self, Self::Impossible) { Self::Nothing } else { self }
    }
}
