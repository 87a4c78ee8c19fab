//! From rows to a small forest of decision diagrams.
//!
//! One diagram for all rows of a program is what the kernel walks fastest, but rows that leave
//! different attributes open multiply with each other. So rows are parted by what they leave
//! open, each part gets a diagram with its own attribute order, and the walk takes the best of
//! the parts' answers. Every part costs a descent for each packet: parts are split only when
//! their diagram passes a budget, and groups that need not be told apart share one.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use govc_abi::{
    attribute::Attribute,
    image::{program, rule},
    limits::PARTS_MAX,
};
use thiserror::Error;

use crate::{
    class::{ClassGroup, ClassRows, Classification, parallel::join},
    diagram::{Budget, Diagram, DiagramRow, RowTable},
    table::DecisionTable,
};

mod dump;
mod profile;

pub use dump::ForestDump;
use profile::Profile;

/// Diagrams of fewer rows are made, not estimated.
const ESTIMATE_ROWS_MIN: usize = 4096;
/// After so many orders that came to nothing, no others are tried.
const ORDERS_HOPELESS: usize = 2;
/// From so many rows on, parts are made at the same time.
const ROWS_MANY: usize = 1 << 13;
/// A diagram is not tried when rows would stand in sublists more often than this, for each
/// edge of its budget.
const HOPELESS: u64 = 2;

/// The diagrams of all programs.
#[derive(Clone, Debug)]
pub struct Forest {
    /// By [`govc_abi::image::program`].
    pub programs: Vec<Vec<Part>>,
}

/// One diagram of a program.
#[derive(Clone, Debug)]
pub struct Part {
    /// Number of its group: parts with the same number are decided together. Ascending.
    pub group: u32,
    /// It holds rules that only tell what they would do.
    pub observe: bool,
    /// How many rows it was made of.
    pub rows: usize,
    /// The diagram; programs that say the same share it.
    pub diagram: Arc<Diagram>,
}

/// How big diagrams may become before their rows are split, and at all.
#[derive(Clone, Copy, Debug)]
pub struct Budgets {
    /// Edges that any part may have.
    pub edges_free: usize,
    /// Edges that a part may have for each of its rows before it is split.
    pub edges_per_row: usize,
    /// Edges of a part that cannot be split any more.
    pub edges_max: usize,
    /// Work for each edge of a budget, see [`Budget::work`].
    pub work_per_edge: usize,
}

impl Default for Budgets {
    /// What fits the second-level cache is not worth a second descent: 2^16 edges take some
    /// 700 KiB. Beyond, rules over five-tuples that are well split have 8 to 14 edges a row, so
    /// that 24 tell a part that multiplies. At most, a part takes some 60 MiB.
    fn default() -> Self {
        Self { edges_free: 1 << 16, edges_per_row: 24, edges_max: 1 << 22, work_per_edge: 4 }
    }
}

/// Why there is no forest.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ForestError {
    /// More groups with rows than parts.
    #[error("the groups of program `{}` need {parts} parts, the limit is {PARTS_MAX}", name(*.program))]
    Groups {
        /// Which program.
        program: u32,
        /// How many parts it takes.
        parts: usize,
    },
    /// A program that does not decide has more than one group.
    #[error("program `{}` has several groups", name(*.program))]
    GroupsUnordered {
        /// Which program.
        program: u32,
    },
    /// Rows multiply beyond all budgets, and no split is left.
    #[error("the decision diagram of {} rules of program `{}` is too big", .values.len(), name(*.program))]
    TooBig {
        /// Which program.
        program: u32,
        /// The values of the rows: rules, labels or objects. Ascending, each once.
        values: Vec<u32>,
    },
}

fn name(program: u32) -> &'static str {
    program::NAMES.get(program as usize).copied().unwrap_or("?")
}

impl Forest {
    /// Chooses parts for all programs and makes their diagrams.
    pub fn new(
        table: &DecisionTable,
        classification: &Classification,
        budgets: Budgets,
    ) -> Result<Self, ForestError> {
        let mut programs: Vec<Vec<Part>> = Vec::with_capacity(program::COUNT);
        for which in 0..program::COUNT {
            let groups = classification.groups(which);
            if which < program::INGRESS as usize && groups.len() > 1 {
                return Err(ForestError::GroupsUnordered { program: which as u32 });
            }
            let decides = which as u32 >= program::INGRESS;
            // The hooks of a policy often have the same rules.
            let twin = (0..which).find(|&other| {
                decides == (other as u32 >= program::INGRESS)
                    && classification.groups(other) == groups
            });
            let parts = match twin.and_then(|twin| programs.get(twin)) {
                Some(parts) => parts.clone(),
                None => {
                    let sections = sections(table, groups, which as u32);
                    let mut planter = Planter::new(table, classification, budgets, which as u32);
                    planter.plant(&sections)?
                }
            };
            programs.push(parts);
        }
        Ok(Self { programs })
    }

    /// Mask of the attributes that a program's diagrams test.
    #[must_use]
    pub fn tested(&self, program: usize) -> u32 {
        let parts = self.programs.get(program).map_or(&[][..], Vec::as_slice);
        parts.iter().fold(0, |mask, part| mask | part.diagram.tested())
    }
}

/// Makes the parts of one program.
struct Planter<'a> {
    rows: RowTable<'a>,
    /// Of each group, the enforced rows, and of each group, the observed rows.
    spans: [Vec<Range<u32>>; 2],
    budgets: Budgets,
    /// The budgets are not raised any more.
    last_try: bool,
    program: u32,
}

/// Rows that shall become one part.
struct Plan {
    observe: bool,
    rows: Vec<u32>,
    /// The groups that were put together here.
    groups: Range<usize>,
}

impl<'a> Planter<'a> {
    fn new(
        table: &DecisionTable,
        classification: &'a Classification,
        budgets: Budgets,
        program: u32,
    ) -> Self {
        let groups = classification.groups(program as usize);
        let mut rows = Vec::new();
        let mut add = |group_rows: &'a ClassRows, leads_on: bool| {
            let first = rows.len() as u32;
            let behind = first + group_rows.len() as u32;
            rows.extend(group_rows.iter().map(|(value, cells)| {
                let resume = (leads_on && passes(table, program, value)).then_some(behind);
                DiagramRow { value, resume, cells }
            }));
            first..behind
        };
        let enforced = groups.iter().map(|group| add(&group.enforced, true)).collect();
        let observed = groups.iter().map(|group| add(&group.observed, false)).collect();
        let rows = RowTable::new(&rows, classification);
        Self { rows, spans: [enforced, observed], budgets, last_try: false, program }
    }

    /// Chooses parts for sections, which are groups that may share diagrams. Where the parts do
    /// not suffice, all may grow bigger.
    fn plant(&mut self, sections: &[Range<usize>]) -> Result<Vec<Part>, ForestError> {
        let parts = self.plan_count(sections);
        if parts > PARTS_MAX {
            return Err(ForestError::Groups { program: self.program, parts });
        }
        loop {
            self.last_try = self.budgets.edges_free >= self.budgets.edges_max;
            match self.plant_all(sections) {
                Ok(parts) => return Ok(parts),
                Err(failure) if self.last_try => return Err(self.too_big(&failure.rows)),
                Err(_) => {
                    self.budgets.edges_free *= 4;
                    self.budgets.edges_per_row *= 4;
                }
            }
        }
    }

    fn plant_all(&self, sections: &[Range<usize>]) -> Result<Vec<Part>, Failure> {
        let mut needed = self.plan_count(sections);
        let mut parts = Vec::with_capacity(needed);
        for section in sections {
            let plans = self.plans(section.clone());
            needed -= plans.len();
            let allowed = PARTS_MAX - parts.len() - needed;
            if section.len() == 1 {
                parts.append(&mut self.grow(plans, allowed)?);
            } else {
                parts.append(&mut self.grow_together(plans, section.clone(), allowed)?);
            }
        }
        Ok(parts)
    }

    /// One part for each plan of groups that share diagrams, or parts for each group.
    fn grow_together(
        &self,
        plans: Vec<Plan>,
        section: Range<usize>,
        allowed: usize,
    ) -> Result<Vec<Part>, Failure> {
        let build = |plan: &Plan| {
            let profile = Profile::new(&self.rows, &plan.rows);
            Some(plan.part(self.build_wanted(plan, &profile)?))
        };
        if let Some(parts) = plans.iter().map(build).collect() {
            return Ok(parts);
        }
        let groups: Vec<Range<usize>> = section.map(|group| group..group + 1).collect();
        let mut needed = self.plan_count(&groups);
        if needed > allowed {
            let build = |plan: &Plan| self.build_at_most(plan).ok_or_else(|| plan.failure());
            return plans.iter().map(build).collect();
        }
        let mut parts = Vec::with_capacity(needed);
        for group in groups {
            let plans = self.plans(group);
            needed -= plans.len();
            let allowed = allowed - parts.len() - needed;
            parts.append(&mut self.grow(plans, allowed)?);
        }
        Ok(parts)
    }

    /// Parts for plans of one group: at most so many, which is at least one for each plan.
    fn grow(&self, plans: Vec<Plan>, allowed: usize) -> Result<Vec<Part>, Failure> {
        let spare = AtomicUsize::new(allowed - plans.len());
        let mut parts = Vec::with_capacity(plans.len());
        for plan in plans {
            parts.append(&mut self.grow_plan(&plan, &spare)?);
        }
        Ok(parts)
    }

    /// One part, or the parts of two halves.
    ///
    /// Halves grow at the same time. All of them are tried, whatever becomes of one, so that
    /// failing does not depend on who comes first; the last try, whose failure is told, takes
    /// one after the other.
    fn grow_plan(&self, plan: &Plan, spare: &AtomicUsize) -> Result<Vec<Part>, Failure> {
        let profile = Profile::new(&self.rows, &plan.rows);
        if let Some(diagram) = self.build_wanted(plan, &profile) {
            return Ok(vec![plan.part(diagram)]);
        }
        let sides = match profile.split() {
            Some(sides) => sides,
            None => match self.build_at_most(plan) {
                Some(part) => return Ok(vec![part]),
                None if plan.rows.len() == 1 => return Err(plan.failure()),
                // Any rows can be parted: it takes long, but it may help.
                None => (0..plan.rows.len()).map(|at| 2 * at >= plan.rows.len()).collect(),
            },
        };
        let take = |spare: usize| spare.checked_sub(1);
        if spare.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            return Err(plan.failure());
        }
        let [one, other] = plan.split(&sides);
        let (one, other) = if self.last_try || plan.rows.len() < ROWS_MANY {
            (self.grow_plan(&one, spare), self.grow_plan(&other, spare))
        } else {
            join(|| self.grow_plan(&one, spare), || self.grow_plan(&other, spare))
        };
        let mut parts = one?;
        parts.append(&mut other?);
        Ok(parts)
    }

    fn plan_count(&self, sections: &[Range<usize>]) -> usize {
        let has_rows = |groups: &Range<usize>, of_kind: &Vec<Range<u32>>| {
            let spans = of_kind.get(groups.clone()).unwrap_or_default();
            spans.iter().any(|span| !span.is_empty())
        };
        let count = |of_kind| sections.iter().filter(|groups| has_rows(groups, of_kind)).count();
        self.spans.iter().map(count).sum()
    }

    /// What some groups need at least: a part for their enforced rows, and one for the others.
    fn plans(&self, groups: Range<usize>) -> Vec<Plan> {
        [false, true].into_iter().filter_map(|observe| self.plan(groups.clone(), observe)).collect()
    }

    /// The plan of the rows of one kind in some groups, if there are any.
    fn plan(&self, groups: Range<usize>, observe: bool) -> Option<Plan> {
        let spans = self.spans.get(usize::from(observe))?.get(groups.clone())?;
        let rows: Vec<u32> = spans.iter().cloned().flatten().collect();
        (!rows.is_empty()).then_some(Plan { observe, rows, groups })
    }

    /// The smallest diagram with one of the orders, if one keeps to the budget.
    fn build_within(
        &self,
        plan: &Plan,
        orders: &[Vec<Attribute>],
        budget: Budget,
    ) -> Option<Diagram> {
        let build = |order, budget| Diagram::build(&self.rows, &plan.rows, order, budget).ok();
        if plan.rows.len() < ESTIMATE_ROWS_MIN {
            let mut best: Option<Diagram> = None;
            for (tried, order) in orders.iter().enumerate() {
                let edges =
                    best.as_ref().map_or(budget.edges, |best| best.edge_count().saturating_sub(1));
                best = build(order, Budget { edges, ..budget }).or(best);
                if best.is_none() && tried + 1 == ORDERS_HOPELESS {
                    break;
                }
            }
            return best;
        }
        if let [order] = orders {
            return build(order, budget);
        }
        let estimate = |order: &&Vec<Attribute>| {
            Diagram::estimate(&self.rows, &plan.rows, order, budget).unwrap_or(usize::MAX)
        };
        let (edges, order) = orders.iter().map(|order| (estimate(&order), order)).min()?;
        // A sample may err; a diagram that is begun is finished unless it is far too big.
        let slack = Budget { edges: budget.edges * 3 / 2, work: budget.work * 3 / 2 };
        if edges < usize::MAX { build(order, slack) } else { None }
    }

    fn build_wanted(&self, plan: &Plan, profile: &Profile) -> Option<Diagram> {
        let wanted = self.budgets.wanted(plan);
        let hopeless = profile.copies() > HOPELESS * wanted.edges as u64;
        if hopeless { None } else { self.build_within(plan, &profile.orders(), wanted) }
    }

    fn build_at_most(&self, plan: &Plan) -> Option<Part> {
        let orders = Profile::new(&self.rows, &plan.rows).orders();
        Some(plan.part(self.build_within(plan, &orders, self.budgets.most())?))
    }

    fn too_big(&self, rows: &[u32]) -> ForestError {
        let mut values: Vec<u32> = rows.iter().map(|&row| self.rows.value(row)).collect();
        values.dedup();
        ForestError::TooBig { program: self.program, values }
    }
}

/// Rows did not become parts: no parts are left, or their diagram passes all budgets.
struct Failure {
    rows: Vec<u32>,
}

impl Plan {
    /// Two plans that say the same together.
    fn split(&self, sides: &[bool]) -> [Self; 2] {
        [false, true].map(|side| {
            let rows = self.rows.iter().zip(sides).filter(|&(_, &of)| of == side);
            let rows = rows.map(|(&row, _)| row).collect();
            Self { observe: self.observe, rows, groups: self.groups.clone() }
        })
    }

    fn failure(&self) -> Failure {
        Failure { rows: self.rows.clone() }
    }

    fn part(&self, diagram: Diagram) -> Part {
        Part {
            group: self.groups.start as u32,
            observe: self.observe,
            rows: self.rows.len(),
            diagram: Arc::new(diagram),
        }
    }
}

/// Puts groups together where one diagram can say the same as the walk over several.
///
/// Their values must ascend from group to group, as the smallest value wins. A `pass` inside a
/// diagram leads on to the rows of the next group; but the walk then also forgets observed rules
/// of the same group, and a diagram cannot. In the last group of a section that has enforced
/// rows, a `pass` remains one for the walk; so only observed rows of that group may follow.
fn sections(table: &DecisionTable, groups: &[ClassGroup], program: u32) -> Vec<Range<usize>> {
    let values = |group: &ClassGroup| -> Option<(u32, u32)> {
        let all = || group.enforced.iter().chain(group.observed.iter()).map(|(value, _)| value);
        Some((all().min()?, all().max()?))
    };
    let mut sections: Vec<Range<usize>> = Vec::new();
    // Of the last section: its greatest value, and whether groups of either kind may follow.
    let (mut last, mut takes_any, mut takes_observed) = (0, false, false);
    for (number, group) in groups.iter().enumerate() {
        let Some((smallest, greatest)) = values(group) else { continue };
        let passes = group.enforced.iter().any(|(value, _)| passes(table, program, value));
        let takes = takes_any && (takes_observed || !group.enforced.is_empty());
        match sections.last_mut() {
            Some(section) if takes && last < smallest => section.end = number + 1,
            _ => {
                sections.push(number..number + 1);
                takes_observed = true;
            }
        }
        last = greatest;
        takes_any = !passes || group.observed.is_empty();
        takes_observed &= !passes;
    }
    sections
}

/// Whether a rule leaves the decision to the next group.
fn passes(table: &DecisionTable, program: u32, value: u32) -> bool {
    let record = table.rules.get(value as usize);
    program >= program::INGRESS
        && record.is_some_and(|record| record & rule::ACTION_MASK == rule::PASS)
}

impl Budgets {
    /// What a part may cost while it can still be split.
    fn wanted(&self, plan: &Plan) -> Budget {
        let edges = self.edges_free + self.edges_per_row * plan.rows.len();
        let edges = edges.min(self.edges_max);
        Budget { edges, work: edges * self.work_per_edge }
    }

    /// What a part may cost at all.
    fn most(&self) -> Budget {
        Budget { edges: self.edges_max, work: self.edges_max * self.work_per_edge }
    }
}
