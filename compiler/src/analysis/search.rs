//! Looking for a packet in a region that answers a question.
//!
//! The rows are gone through in the order in which they decide. What a row decides otherwise
//! than the question wants is to be escaped; where a row decides as it wants, a packet is looked
//! for that it matches and that has escaped so far ([`escape`]). The packets that a row passes
//! on go their own way through the tiers behind.

#![expect(
    clippy::indexing_slicing,
    reason = "positions of rows and attributes are made here and are the analysis's inner loop"
)]

use govc_abi::{attribute::Request, walk::Classes};
use rustc_hash::FxHashSet;

use super::{
    escape::escape,
    field::{Field, Meta, NO_RULE, Said},
    region::{Region, Share},
};
use crate::checked::Action;

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// A packet that this rule decides, or passes on.
    Reaches(u32),
    /// A packet that gets another verdict, or is reported or answered otherwise, or is left to the
    /// default, when this rule is not there. The region is within a row of the rule.
    Matters(u32),
    /// A packet that is permitted.
    Permitted,
    /// A packet that is not.
    Denied,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Found {
    /// A packet, by the classes of its values.
    Packet(Box<Classes>),
    /// There is none.
    Nothing,
    /// It would take too long to find out.
    Undecided,
}

pub(crate) type Rules = FxHashSet<u32>;

/// Which rules stood in the way of a question that found nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reasons {
    /// Rules that decide instead.
    pub(crate) deciders: Rules,
    /// All rules that have to be there for the answer to be true.
    pub(crate) needed: Rules,
}

/// The budget is used up.
pub(super) struct OutOfBudget;

/// Looks for a packet in a region among deciding rows that meet it, given ascending, with rows
/// of regions behind them that leave their packets out.
pub(crate) fn search(
    field: &Field<'_>,
    region: &Region,
    rows: &[u32],
    question: Question,
    budget: &mut u64,
    reasons: &mut Reasons,
) -> Found {
    let deciding = rows.partition_point(|&row| row < field.deciding());
    let (rows, left_out) = rows.split_at(deciding);
    let mut search = Search { field, rows, budget, reasons, point: Classes::default() };
    let aim = match question {
        Question::Reaches(rule) => Aim::Rule { rule, matters: false },
        Question::Matters(rule) => Aim::Rule { rule, matters: true },
        Question::Permitted => Aim::Permitted,
        Question::Denied => Aim::Denied,
    };
    match search.walk(region.clone(), left_out.to_vec(), 0, None, aim) {
        Ok(true) => {
            debug_assert!(answers(field, rows, question, &search.point), "{question:?}");
            Found::Packet(Box::new(search.point))
        }
        Ok(false) => Found::Nothing,
        Err(OutOfBudget) => Found::Undecided,
    }
}

/// Whether a point answers a question, by the rows that match it.
fn answers(field: &Field<'_>, rows: &[u32], question: Question, point: &Classes) -> bool {
    let matching = || rows.iter().copied().filter(|&row| field.matches(row, point));
    let mut reached = false;
    let rule = match question {
        Question::Reaches(rule) | Question::Matters(rule) => Some(rule),
        Question::Permitted | Question::Denied => None,
    };
    let with = field.decide(matching(), None, |row| reached |= rule == Some(field.meta(row).rule));
    let permits = with.is_some_and(|row| field.meta(row).action == Action::Permit);
    match question {
        Question::Reaches(_) => reached,
        Question::Matters(_) => {
            field.said(with) != field.said(field.decide(matching(), rule, |_| {}))
        }
        Question::Permitted => permits,
        Question::Denied => !permits,
    }
}

/// Some packet of a region.
pub(crate) fn region_point(field: &Field<'_>, region: &Region) -> Classes {
    let mut point = field.point(&Request::EMPTY);
    for (attribute, cell) in region.cells() {
        let class = &mut point[usize::from(attribute)];
        if !cell.iter().any(|&(first, last)| first <= *class && *class <= last) {
            *class = cell[0].0;
        }
    }
    point
}

struct Search<'s, 'f> {
    field: &'s Field<'f>,
    /// Deciding rows, ascending.
    rows: &'s [u32],
    budget: &'s mut u64,
    reasons: &'s mut Reasons,
    point: Classes,
}

/// What the packets that are still on their way are to come to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// A row of this rule; and another verdict without it if it matters.
    Rule {
        rule: u32,
        matters: bool,
    },
    /// Another verdict than that of this rule, which is behind.
    Unlike(u32, Said),
    /// Another verdict in the rest of this tier than behind it.
    Here {
        rule: u32,
        tier: u32,
    },
    Permitted,
    Denied,
}

/// What a row does about an aim.
enum Step {
    /// Nothing.
    Ignored,
    /// What it matches is what is looked for.
    Reached,
    /// What it matches is not.
    Lost,
    /// What it matches leaves the tier.
    Passed,
    /// What it matches is looked for in the tiers behind, with another aim.
    Compared(Aim),
    /// All that is left goes on with another aim.
    Turned(Aim),
    /// Nothing that is left is what is looked for.
    Over,
}

fn said(meta: Meta) -> Said {
    (meta.action, meta.besides)
}

impl Aim {
    fn step(self, meta: Meta) -> Step {
        let passes = meta.action == Action::Pass;
        let reached = |reached: bool| if reached { Step::Reached } else { Step::Lost };
        match self {
            Self::Rule { rule, matters: false } if meta.rule == rule => Step::Reached,
            Self::Rule { rule, .. } if meta.rule == rule && passes => {
                Step::Turned(Self::Here { rule, tier: meta.tier })
            }
            Self::Rule { rule, .. } if meta.rule == rule => {
                Step::Turned(Self::Unlike(rule, said(meta)))
            }
            Self::Unlike(rule, _) | Self::Here { rule, .. } if meta.rule == rule => Step::Ignored,
            Self::Here { tier, .. } if meta.tier != tier => Step::Over,
            Self::Here { .. } if passes => Step::Lost,
            Self::Here { rule, .. } => Step::Compared(Self::Unlike(rule, said(meta))),
            _ if passes => Step::Passed,
            Self::Rule { .. } => Step::Lost,
            Self::Unlike(_, other) => reached(said(meta) != other),
            Self::Permitted => reached(meta.action == Action::Permit),
            Self::Denied => reached(meta.action == Action::Deny),
        }
    }

    /// Whether what no row decides is what is looked for.
    fn reached_by_default(self) -> bool {
        matches!(self, Self::Unlike(..) | Self::Denied)
    }

    /// Whether a row that stands in the way is told.
    fn tells(self, meta: Meta) -> bool {
        match self {
            Self::Rule { matters, .. } => !matters && meta.action != Action::Pass,
            Self::Unlike(_, other) => said(meta) == other,
            _ => false,
        }
    }
}

impl Search<'_, '_> {
    /// Whether there is a packet in the region that has escaped the rows in the way, comes to
    /// the row at a position, and from there, but for a tier that is skipped, to the aim.
    fn walk(
        &mut self,
        region: Region,
        mut in_the_way: Vec<u32>,
        mut at: usize,
        mut skipped: Option<u32>,
        mut aim: Aim,
    ) -> Result<bool, OutOfBudget> {
        let field = self.field;
        while let Some(&row) = self.rows.get(at) {
            at += 1;
            *self.budget = self.budget.checked_sub(1).ok_or(OutOfBudget)?;
            let meta = field.meta(row);
            if skipped == Some(meta.tier) {
                continue;
            }
            skipped = None;
            let step = aim.step(meta);
            match step {
                Step::Ignored => continue,
                Step::Over => return Ok(false),
                Step::Turned(next) => {
                    aim = next;
                    continue;
                }
                _ => {}
            }
            let share = region.share(&field.table, row);
            if share == Share::Nothing {
                continue;
            }
            match step {
                Step::Reached => {
                    if let Some(part) = region.narrowed(&field.table, row)
                        && self.escapes(&part, &in_the_way, aim)?
                    {
                        return Ok(true);
                    }
                }
                Step::Passed | Step::Compared(_) => {
                    if let Some(part) = region.narrowed(&field.table, row)
                        && self.escapes(&part, &in_the_way, aim)?
                    {
                        let next = if let Step::Compared(next) = step { next } else { aim };
                        if self.walk(part, in_the_way.clone(), at, Some(meta.tier), next)? {
                            return Ok(true);
                        }
                        if let Step::Compared(_) = step {
                            self.reasons.deciders.insert(meta.rule);
                        }
                    }
                    in_the_way.push(row);
                }
                _ => in_the_way.push(row),
            }
            // Whatever comes behind a row that takes all never decides.
            if share == Share::All {
                self.reasons.add(aim, meta);
                return Ok(false);
            }
        }
        Ok(aim.reached_by_default() && self.escapes(&region, &in_the_way, aim)?)
    }

    fn escapes(
        &mut self,
        region: &Region,
        in_the_way: &[u32],
        aim: Aim,
    ) -> Result<bool, OutOfBudget> {
        let (field, reasons) = (self.field, &mut *self.reasons);
        let mut point = region_point(field, region);
        let used = |row: u32| reasons.add(aim, field.meta(row));
        let escaped = escape(field, region, in_the_way, self.budget, &mut point, used)?;
        if escaped {
            self.point = point;
        }
        Ok(escaped)
    }
}

impl Reasons {
    fn add(&mut self, aim: Aim, meta: Meta) {
        self.needed.insert(meta.rule);
        if meta.rule != NO_RULE && aim.tells(meta) {
            self.deciders.insert(meta.rule);
        }
    }

    /// Adds those of another answer.
    pub(crate) fn extend(&mut self, other: Self) {
        self.deciders.extend(other.deciders);
        self.needed.extend(other.needed);
    }
}
