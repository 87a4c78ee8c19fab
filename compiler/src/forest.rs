//! From rows to a small forest of decision diagrams.
//!
//! One diagram for all rows of a program is what the kernel walks fastest, but rows that leave
//! different attributes open multiply with each other. So rows are parted by what they leave
//! open, each part gets a diagram with its own attribute order, and the walk takes the best of
//! the parts' answers. Every part costs a descent for each packet: parts are split only when
//! their diagram passes a budget, and groups that need not be told apart share one.

use std::{ops::Range, sync::Arc};

use govc_abi::{
    attribute::Attribute,
    image::{program, rule},
    limits::PARTS_MAX,
};
use thiserror::Error;

use crate::{
    class::{ClassGroup, ClassRows, Classification},
    diagram::{Budget, Diagram, DiagramRow, RowTable},
    table::DecisionTable,
};

mod dump;
mod profile;

use profile::Profile;

/// Diagrams of fewer rows are made, not estimated.
const ESTIMATE_ROWS_MIN: usize = 4096;

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
    /// What fits the second-level cache is not worth a second descent: 2^15 edges are some
    /// 300 KB. Beyond, well-split sets of ClassBench have 1 to 12 edges a row, so that 24
    /// tell a part that multiplies. At most, a part takes a quarter of an image.
    fn default() -> Self {
        Self { edges_free: 1 << 15, edges_per_row: 24, edges_max: 1 << 22, work_per_edge: 4 }
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
        /// The values of the rows: rules, templates or objects. Ascending, each once.
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
                    Planter::new(table, classification, budgets, which as u32).plant(&sections)?
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
        Self { rows, spans: [enforced, observed], budgets, program }
    }

    /// Chooses parts for sections, which are groups that may share diagrams.
    fn plant(&self, sections: &[Range<usize>]) -> Result<Vec<Part>, ForestError> {
        let plans_of = |section: &Range<usize>| {
            [self.plan(section.clone(), false), self.plan(section.clone(), true)]
        };
        // Last one first, so that the next one can be popped, and its pieces pushed.
        let mut plans: Vec<Plan> = sections.iter().flat_map(plans_of).flatten().collect();
        plans.reverse();
        if plans.len() > PARTS_MAX {
            return Err(ForestError::Groups { program: self.program, parts: plans.len() });
        }
        let mut parts = Vec::with_capacity(plans.len());
        while let Some(plan) = plans.pop() {
            let spare = PARTS_MAX - parts.len() - plans.len() - 1;
            let profile = Profile::new(&self.rows, &plan.rows);
            let orders = profile.orders();
            let t = std::time::Instant::now(); let b = if profile.copies() > 2 * self.budgets.wanted(&plan).edges as u64 {None} else {self.build_within(&plan, &orders, self.budgets.wanted(&plan)) }; eprintln!("         try {} rows {orders:?} {:?} {:?} {}", plan.rows.len(), t.elapsed(), b.is_some(), profile.debug());
            if let Some(diagram) = b {
                parts.push(plan.part(diagram));
            } else if let Some(pieces) = self.split(&plan, &profile, spare) {
                plans.extend(pieces.into_iter().rev());
            } else if let Some(diagram) = self.build_within(&plan, &orders, self.budgets.most()) {
                parts.push(plan.part(diagram));
            } else {
                return Err(self.too_big(&plan));
            }
        }
        // Parts of a group stay together, and groups in order: splitting keeps places.
        Ok(parts)
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
            let diagrams = orders.iter().filter_map(|order| build(order, budget));
            return diagrams.min_by_key(Diagram::edge_count);
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

    /// Smaller plans that say the same together, when there are any with so many more parts.
    fn split(&self, plan: &Plan, profile: &Profile, spare: usize) -> Option<Vec<Plan>> {
        if plan.groups.len() > 1 {
            let plan_of = |group| self.plan(group..group + 1, plan.observe);
            let pieces: Vec<Plan> = plan.groups.clone().filter_map(plan_of).collect();
            return (pieces.len() <= 1 + spare).then_some(pieces);
        }
        if spare == 0 {
            return None;
        }
        let sides = profile.split()?;
        let piece = |side| {
            let rows = plan.rows.iter().zip(&sides).filter(|&(_, &of)| of == side);
            let rows = rows.map(|(&row, _)| row).collect();
            Plan { observe: plan.observe, rows, groups: plan.groups.clone() }
        };
        Some(vec![piece(false), piece(true)])
    }

    fn too_big(&self, plan: &Plan) -> ForestError {
        let mut values: Vec<u32> = plan.rows.iter().map(|&row| self.rows.value(row)).collect();
        values.dedup();
        ForestError::TooBig { program: self.program, values }
    }
}

impl Plan {
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
/// of the same group, and a diagram cannot.
fn sections(table: &DecisionTable, groups: &[ClassGroup], program: u32) -> Vec<Range<usize>> {
    let values = |group: &ClassGroup| -> Option<(u32, u32)> {
        let all = || group.enforced.iter().chain(group.observed.iter()).map(|(value, _)| value);
        Some((all().min()?, all().max()?))
    };
    let mut sections: Vec<Range<usize>> = Vec::new();
    let mut last = None;
    let mut forgets = false;
    for (number, group) in groups.iter().enumerate() {
        let Some((smallest, greatest)) = values(group) else { continue };
        match sections.last_mut() {
            Some(section) if !forgets && last < Some(smallest) => section.end = number + 1,
            _ => sections.push(number..number + 1),
        }
        last = last.max(Some(greatest));
        forgets = !group.observed.is_empty()
            && group.enforced.iter().any(|(value, _)| passes(table, program, value));
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

#[cfg(test)]
mod tests {
    use std::time::Instant;
    use super::*;
    use crate::sample::*;
    use govc_abi::attribute;

    #[test]
    #[ignore]
    fn forestquick() {
        for n in [10, 1000, 10_000, 100_000] {
            let table = identities(n, &mut Random::new(1));
            report(n, "identities", table);
        }
        for mixture in [Mixture::Access, Mixture::Chain, Mixture::Firewall] {
        for n in [1000, 10_000, 100_000] {
            let table = addresses(n, mixture, &mut Random::new(1));
            report(n, &format!("{mixture:?}"), table);
        }}
    }
    #[test]
    #[ignore]
    fn forestperf() {
        let table = addresses(100_000, Mixture::Chain, &mut Random::new(1));
            let c = Classification::new(&table);
        for _ in 0..8 {
            let t1 = Instant::now();
            let _ = std::hint::black_box(Forest::new(&table, &c, Budgets::default()));
            println!("{:?}", t1.elapsed());
        }
    }
    fn report(n: usize, what: &str, table: DecisionTable) {
            let t0 = Instant::now();
            let c = Classification::new(&table);
            let t1 = Instant::now();
            let counts: Vec<_> = (0..19).map(|a| c.attribute(a).count()).filter(|&c| c > 1).collect();
            println!("{what} {n} class {:?} {counts:?}", t1 - t0);
            let f = Forest::new(&table, &c, Budgets::default());
            let t2 = t1.elapsed();
            match f {
            Ok(f) => {
            println!("   forest {t2:?} parts {} edges {}", f.programs[3].len(), f.programs[3].iter().map(|p| p.diagram.edge_count()).sum::<usize>());
            for p in &f.programs[3] { println!("      rows {} edges {} nodes {} {:?}", p.rows, p.diagram.edge_count(), p.diagram.node_count(), p.diagram.order().iter().map(|&a| attribute::NAMES[a as usize]).collect::<Vec<_>>()); }
            }
            Err(e) => println!("   {t2:?} {e}"),
            }
    }
}
