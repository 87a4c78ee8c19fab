//! Looking for a packet in a region: the sweep that makes decision diagrams, which stops at the
//! first packet that answers the question.
//!
//! At an attribute, the rows' cells cut the region's classes into runs with the same sublist of
//! rows. A sublist that led nowhere once leads nowhere again. Where rows are few, there are
//! fewest that can be in the way: such runs come first.

#![expect(
    clippy::indexing_slicing,
    reason = "positions of rows and attributes are made here and are the analysis's inner loop"
)]

use govc_abi::{
    attribute::{self, Attribute, Request},
    walk::Classes,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    field::{Field, NO_RULE},
    region::Region,
};
use crate::{checked::Action, intern::Interner};

/// What is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    /// A packet that this rule decides, or passes on.
    Reaches(u32),
    /// A packet that gets another verdict, or is not logged, or is left to the default, when
    /// this rule is not there.
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

/// Which rules stood in the way of a question that found nothing.
pub(crate) type Rules = FxHashSet<u32>;

/// Looks for a packet in a region among deciding rows that meet it, given ascending, with rows
/// of regions behind them that leave their packets out.
pub(crate) fn search(
    field: &Field<'_>,
    region: &Region,
    rows: &[u32],
    question: Question,
    budget: &mut u64,
    deciders: &mut Rules,
) -> Found {
    let attributes = cut_attributes(field, region, rows);
    let bits = attributes.iter().map(|attribute| 1 << attribute);
    let remaining: Vec<u32> =
        (0..=attributes.len()).map(|from| bits.clone().skip(from).sum()).collect();
    let mut search = Search {
        field,
        region,
        question,
        attributes,
        remaining,
        dead: Interner::default(),
        budget,
        deciders,
        point: region_point(field, region),
    };
    match search.descend(0, rows) {
        Ok(true) => Found::Packet(Box::new(search.point)),
        Ok(false) => Found::Nothing,
        Err(OutOfBudget) => Found::Undecided,
    }
}

/// The attributes by which rows tell packets of the region apart, those with the fewest cuts
/// first.
fn cut_attributes(field: &Field<'_>, region: &Region, rows: &[u32]) -> Vec<Attribute> {
    let asked = rows.iter().fold(0, |mask, &row| mask | field.table.mask(row));
    let mut cuts: Vec<(usize, Attribute)> = Vec::new();
    for attribute in (0..attribute::COUNT as Attribute).filter(|a| asked & 1 << a != 0) {
        let cell = region_cell(field, region, attribute);
        let cutting = rows.iter().filter(|&&row| !holds(field, row, attribute, &cell)).count();
        if cutting > 0 {
            cuts.push((cutting, attribute));
        }
    }
    cuts.sort_unstable();
    cuts.into_iter().map(|(_, attribute)| attribute).collect()
}

fn region_cell(field: &Field<'_>, region: &Region, attribute: Attribute) -> Vec<(u32, u32)> {
    let all = || vec![(0, field.table.classes(attribute).count() - 1)];
    region.cell(attribute).map_or_else(all, <[_]>::to_vec)
}

/// Whether a row takes all classes of a cell.
fn holds(field: &Field<'_>, row: u32, attribute: Attribute, cell: &[(u32, u32)]) -> bool {
    let mut left: u32 = cell.iter().map(|&(first, last)| last - first + 1).sum();
    let asks = field.table.each_interval(row, attribute, |first, last| {
        for &(a, b) in cell {
            left -= (b.min(last) + 1).saturating_sub(a.max(first));
        }
    });
    !asks || left == 0
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
    region: &'s Region,
    question: Question,
    attributes: Vec<Attribute>,
    /// By position: the attributes that are left.
    remaining: Vec<u32>,
    /// Positions and lists that lead nowhere.
    dead: Interner,
    budget: &'s mut u64,
    deciders: &'s mut Rules,
    point: Classes,
}

struct OutOfBudget;

impl Search<'_, '_> {
    /// Whether there is a packet, given the rows that have matched so far.
    fn descend(&mut self, position: usize, rows: &[u32]) -> Result<bool, OutOfBudget> {
        *self.budget = self.budget.checked_sub(1 + rows.len() as u64).ok_or(OutOfBudget)?;
        let mut list = vec![position as u32];
        if !self.trim(position, rows, &mut list) {
            return Ok(false);
        }
        let rows = &list[1..];
        // Attributes that no row asks for any more tell nothing apart.
        let asked = rows.iter().fold(0, |mask, &row| mask | self.field.table.mask(row));
        if asked & self.remaining[position] == 0 {
            return Ok(self.answers(rows));
        }
        let attribute = self.attributes[position];
        if asked & 1 << attribute == 0 {
            return self.descend(position + 1, rows);
        }
        let (_, fresh) = self.dead.intern(&list);
        if !fresh {
            return Ok(false);
        }
        for (first, last) in self.runs(attribute, rows) {
            let inside: Vec<u32> = rows
                .iter()
                .copied()
                .filter(|&row| {
                    let mut inside = false;
                    let asks = self.field.table.each_interval(row, attribute, |a, b| {
                        inside |= a <= first && first <= b;
                    });
                    !asks || inside
                })
                .collect();
            *self.budget = self.budget.checked_sub(rows.len() as u64).ok_or(OutOfBudget)?;
            if self.descend(position + 1, &inside)? {
                let class = &mut self.point[usize::from(attribute)];
                if *class < first || last < *class {
                    *class = first;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Appends the rows that still say something; false when there is no packet here.
    fn trim(&mut self, position: usize, rows: &[u32], list: &mut Vec<u32>) -> bool {
        let remaining = self.remaining[position];
        let asked_about = self.question.rule();
        let (mut decided, mut over, mut may_pass) = (false, None, None);
        for &row in rows {
            let complete = self.field.table.mask(row) & remaining == 0;
            if row >= self.field.deciding() {
                if complete {
                    return false;
                }
                list.push(row);
                continue;
            }
            let meta = self.field.meta(row);
            if decided || over == Some(meta.tier) {
                continue;
            }
            list.push(row);
            let passes = meta.action == Action::Pass;
            if !complete || meta.rule == asked_about {
                may_pass = if passes { Some(meta.tier) } else { may_pass };
                continue;
            }
            // The rest of the tier says nothing more; nor does what follows, unless a row that
            // may yet match leads there.
            over = Some(meta.tier);
            decided = !passes && may_pass != Some(meta.tier);
        }
        let possible = match self.question {
            Question::Reaches(rule) | Question::Matters(rule) => {
                list[1..].iter().any(|&row| self.field.meta(row).rule == rule)
            }
            Question::Permitted => list[1..].iter().any(|&row| {
                row < self.field.deciding() && self.field.meta(row).action == Action::Permit
            }),
            Question::Denied => true,
        };
        if !possible && matches!(self.question, Question::Reaches(_)) {
            let field = self.field;
            let complete = list[1..].iter().copied();
            let complete = complete.filter(|&row| field.table.mask(row) & remaining == 0);
            let found = field.decide(complete, NO_RULE, |_| {});
            self.deciders.extend(found.map(|row| field.meta(row).rule));
        }
        possible
    }

    /// Whether the question is answered where just these rows match.
    fn answers(&mut self, rows: &[u32]) -> bool {
        let field = self.field;
        let matching = || rows.iter().copied();
        let permits =
            |row: Option<u32>| row.is_some_and(|row| field.meta(row).action == Action::Permit);
        match self.question {
            Question::Permitted => permits(field.decide(matching(), NO_RULE, |_| {})),
            Question::Denied => !permits(field.decide(matching(), NO_RULE, |_| {})),
            Question::Reaches(rule) => {
                let mut reached = false;
                let visit = |row: u32| reached |= field.meta(row).rule == rule;
                let winner = field.decide(matching(), NO_RULE, visit);
                if !reached {
                    self.deciders.extend(winner.map(|row| field.meta(row).rule));
                }
                reached
            }
            Question::Matters(rule) => {
                let (with, without) = (
                    field.decide(matching(), NO_RULE, |_| {}),
                    field.decide(matching(), rule, |_| {}),
                );
                if with == without {
                    return false;
                }
                let said =
                    |row: Option<u32>| row.map(|row| (field.meta(row).action, field.meta(row).log));
                if said(with) == said(without) {
                    self.deciders.extend(without.map(|row| field.meta(row).rule));
                    return false;
                }
                true
            }
        }
    }

    /// The runs of the region's classes at an attribute, best ones first.
    fn runs(&self, attribute: Attribute, rows: &[u32]) -> Vec<(u32, u32)> {
        // Where the number of rows changes: in the way, and of use.
        let mut changes: FxHashMap<u32, [i32; 2]> = FxHashMap::default();
        let cell = region_cell(self.field, self.region, attribute);
        let mut open_help = self.question == Question::Denied;
        for &row in rows {
            let helps = self.helps(row);
            let asks = self.field.table.each_interval(row, attribute, |first, last| {
                changes.entry(first).or_default()[usize::from(helps)] += 1;
                changes.entry(last + 1).or_default()[usize::from(helps)] -= 1;
            });
            open_help |= helps && !asks;
        }
        let mut changes: Vec<(u32, [i32; 2])> = changes.into_iter().collect();
        changes.sort_unstable();
        let mut runs = Vec::new();
        let (mut sums, mut next) = ([0; 2], 0);
        for (first, last) in cell {
            let mut start = first;
            while start <= last {
                while changes.get(next).is_some_and(|&(at, _)| at <= start) {
                    sums[0] += changes[next].1[0];
                    sums[1] += changes[next].1[1];
                    next += 1;
                }
                let end = changes.get(next).map_or(last, |&(at, _)| last.min(at - 1));
                if open_help || sums[1] > 0 {
                    runs.push((sums[0], -sums[1], start, end));
                }
                start = end + 1;
            }
        }
        runs.sort_unstable();
        runs.into_iter().map(|(.., first, last)| (first, last)).collect()
    }

    fn helps(&self, row: u32) -> bool {
        let meta = self.field.meta(row);
        match self.question {
            Question::Reaches(rule) | Question::Matters(rule) => meta.rule == rule,
            Question::Permitted => row < self.field.deciding() && meta.action == Action::Permit,
            Question::Denied => meta.action == Action::Deny,
        }
    }
}

impl Question {
    fn rule(self) -> u32 {
        match self {
            Self::Reaches(rule) | Self::Matters(rule) => rule,
            Self::Permitted | Self::Denied => NO_RULE,
        }
    }
}
