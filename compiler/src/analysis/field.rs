//! The rows of one hook with everything that questions about them need: which packets there can
//! be, which rows meet a region, and what decides where several match.

#![expect(
    clippy::indexing_slicing,
    reason = "numbers of rows and classes are made here and are the analysis's inner loop"
)]

use std::ops::Range;

use govc_abi::{
    attribute::{self, Attribute, Request},
    image::program,
    walk::Classes,
};

use super::{
    escape::Lots,
    index::Index,
    region::{Region, Share},
    universe,
};
use crate::{
    checked::{Action, Answer, Hook, Policy},
    class::{Classification, value_of},
    diagram::{DiagramRow, RowTable},
    table::{DecisionTable, Group, IntervalSet, Program, Row, max_of},
};

/// The classes of one hook's rows and of the regions that are asked about.
pub(crate) struct Ground {
    classification: Classification,
    metas: Vec<Meta>,
    /// Those that decide, as values.
    deciding: Vec<Row>,
    /// Rows that make up each region.
    regions: Vec<Range<u32>>,
}

/// What a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Position of its rule in the policy; [`NO_RULE`] for regions and the default.
    pub(crate) rule: u32,
    pub(crate) tier: u32,
    /// What the rule says; regions say nothing.
    pub(crate) action: Action,
    /// What it does besides.
    pub(crate) besides: Besides,
}

/// What a rule does besides deciding: of how many packets it reports one, and what becomes of denied
/// ones.
pub(crate) type Besides = (Option<u16>, Answer);

/// What a rule does to a packet.
pub(crate) type Said = (Action, Besides);

/// No rule of the policy. What stands under it may decide all the same: the default of a hook that no
/// policy governs is a row.
pub(crate) const NO_RULE: u32 = u32::MAX;

/// Region of all packets that there can be.
pub(crate) const POSSIBLE: usize = 0;
/// Region of those whose every value has a name in the policy.
pub(crate) const NAMED: usize = 1;
/// Number of the first region that a caller adds.
pub(crate) const REGIONS_FIRST: usize = 2;

impl Ground {
    /// Takes the enforced rows of a hook, and rows of regions, whose values do not matter.
    pub(crate) fn new(
        policy: &Policy,
        table: &DecisionTable,
        hook: Hook,
        regions: Vec<Vec<Row>>,
    ) -> Self {
        let which = program::INGRESS as usize + hook;
        let source = table.programs.get(which).cloned().unwrap_or_default();
        let mut rows: Vec<Row> = Vec::new();
        let mut metas = Vec::new();
        for row in source.groups.into_iter().flat_map(|group| group.enforced) {
            let position = table.rule_positions.get(row.value as usize).copied();
            let rule = position.and_then(|at| policy.rules().get(at as usize));
            let (Some(position), Some(rule)) = (position, rule) else { continue };
            let (tier, action) = (rule.tier as u32, rule.action);
            // One of none and one of one are all.
            let besides = (rule.log.map(|one_in| one_in.max(1)), rule.answer);
            metas.push(Meta { rule: position, tier, action, besides });
            rows.push(row);
        }
        let beyond = Meta {
            rule: NO_RULE,
            tier: u32::MAX,
            action: Action::Permit,
            besides: (None, Answer::Silence),
        };
        if !source.governed {
            // Where no policy speaks, whoever is known passes.
            rows.push(universe::identified());
            metas.push(beyond);
        }
        let deciding = rows.clone();
        let decided = Group { enforced: rows, observed: Vec::new() };
        let lists = [universe::possible(policy, hook), universe::named(policy, hook)];
        let mut asked = Group::default();
        let mut ranges = Vec::new();
        for list in lists.into_iter().chain(regions) {
            let first = metas.len() as u32;
            metas.extend(list.iter().map(|_| beyond));
            asked.enforced.extend(list);
            ranges.push(first..metas.len() as u32);
        }
        let mut only = DecisionTable::default();
        if let Some(place) = only.programs.get_mut(which) {
            *place = Program { groups: vec![decided, asked], governed: true };
        }
        Self { classification: Classification::new(&only), metas, deciding, regions: ranges }
    }

    /// What a deciding row asks for.
    pub(crate) fn row(&self, number: u32) -> Option<&Row> {
        self.deciding.get(number as usize)
    }

    fn rows(&self) -> Vec<DiagramRow<'_>> {
        let groups = (0..program::COUNT).flat_map(|which| self.classification.groups(which));
        let rows = groups.flat_map(|group| group.enforced.iter());
        rows.map(|(value, cells)| DiagramRow { value, resume: None, cells }).collect()
    }
}

/// The rows of one hook, ready for questions.
pub(crate) struct Field<'g> {
    pub(crate) table: RowTable<'g>,
    ground: &'g Ground,
    /// How many rows decide; regions follow.
    deciding: u32,
    /// Rows of each rule, by position in the policy.
    rules: Vec<Range<u32>>,
    index: Index,
    /// By attribute and class: how many rows ask for it.
    asked: Vec<Vec<u32>>,
}

/// So many classes are looked at to choose one that few rows ask for.
const CLASSES_TRIED: usize = 4;

impl<'g> Field<'g> {
    pub(crate) fn new(ground: &'g Ground, rule_count: usize) -> Self {
        let rows = ground.rows();
        let table = RowTable::new(&rows, &ground.classification);
        let deciding = ground.regions.first().map_or(rows.len() as u32, |region| region.start);
        let mut rules = vec![0..0; rule_count];
        for (row, meta) in (0..deciding).zip(&ground.metas) {
            if let Some(range) = rules.get_mut(meta.rule as usize) {
                let start = if range.start == range.end { row } else { range.start };
                *range = start..row + 1;
            }
        }
        let index = Index::new(&table, deciding);
        let asked = (0..attribute::COUNT as Attribute).map(|a| asked(&table, deciding, a));
        let asked = asked.collect();
        Self { table, ground, deciding, rules, index, asked }
    }

    pub(crate) fn meta(&self, row: u32) -> Meta {
        self.ground.metas[row as usize]
    }

    /// The rows of a rule, by its position in the policy.
    pub(crate) fn rows_of(&self, rule: u32) -> Range<u32> {
        self.rules.get(rule as usize).cloned().unwrap_or(0..0)
    }

    /// The rows of a region.
    pub(crate) fn region_rows(&self, region: usize) -> Range<u32> {
        self.ground.regions.get(region).cloned().unwrap_or(0..0)
    }

    /// The parts of a row's region, or of all packets, in which there can be packets, or named
    /// ones.
    pub(crate) fn within(
        &self,
        row: Option<u32>,
        universe: usize,
    ) -> impl Iterator<Item = Region> + '_ {
        let whole = row.map_or_else(Region::default, |row| Region::of(&self.table, row));
        let parts = self.region_rows(universe);
        parts.filter_map(move |part| whole.narrowed(&self.table, part))
    }

    /// The deciding rows that meet a region, ascending.
    pub(crate) fn meeting(&self, region: &Region) -> Vec<u32> {
        let mut rows = Vec::new();
        self.each_meeting(region, |row, _| {
            rows.push(row);
            true
        });
        rows
    }

    /// The deciding rows that meet a region, ascending, and how much of it they match, until
    /// `each` returns false.
    pub(crate) fn each_meeting(&self, region: &Region, mut each: impl FnMut(u32, Share) -> bool) {
        self.index.may_meet(region, |row| match region.share(&self.table, row) {
            Share::Nothing => true,
            share => each(row, share),
        });
    }

    /// The deciding rows that match a point, ascending, until `each` returns false.
    pub(crate) fn matching(&self, point: &Classes, mut each: impl FnMut(u32) -> bool) {
        self.index.may_match(point, |row| !self.matches(row, point) || each(row));
    }

    /// Gives a point some class of a cell; those that few rows ask for are likely ones.
    pub(super) fn choose(
        &self,
        point: &mut Classes,
        attribute: Attribute,
        cell: &[(u32, u32)],
        lots: &mut Lots,
    ) {
        let size: u32 = cell.iter().map(|&(first, last)| last - first + 1).sum();
        let tries = CLASSES_TRIED.min(size as usize);
        let classes = (0..tries).map(|_| {
            let mut at = lots.below(size);
            let holds = |&&(first, last): &&(u32, u32)| {
                let inside = at <= last - first;
                at -= if inside { 0 } else { last - first + 1 };
                inside
            };
            let interval = cell.iter().find(holds);
            interval.map_or(0, |&(first, _)| first + at)
        });
        let asked = &self.asked[usize::from(attribute)];
        if let Some(class) = classes.min_by_key(|&class| asked.get(class as usize).copied()) {
            point[usize::from(attribute)] = class;
        }
    }

    /// What decides where these rows match, as if a rule were not there: the row, unless none does.
    /// `visit` is called with each row that passes or decides.
    pub(crate) fn decide(
        &self,
        matching: impl IntoIterator<Item = u32>,
        without: Option<u32>,
        mut visit: impl FnMut(u32),
    ) -> Option<u32> {
        let mut passed = None;
        for row in matching {
            let meta = self.meta(row);
            if row >= self.deciding || without == Some(meta.rule) || passed == Some(meta.tier) {
                continue;
            }
            visit(row);
            if meta.action != Action::Pass {
                return Some(row);
            }
            passed = Some(meta.tier);
        }
        None
    }

    /// What a row that decides does; nothing when none decides.
    pub(crate) fn said(&self, row: Option<u32>) -> Option<Said> {
        row.map(|row| (self.meta(row).action, self.meta(row).besides))
    }

    /// Whether a row matches a point.
    pub(crate) fn matches(&self, row: u32, point: &Classes) -> bool {
        (0..attribute::COUNT as Attribute).all(|attribute| {
            let class = point[usize::from(attribute)];
            let mut inside = false;
            let asks = self.table.each_interval(row, attribute, |first, last| {
                inside |= first <= class && class <= last;
            });
            !asks || inside
        })
    }

    /// The classes of a request's values.
    pub(crate) fn point(&self, request: &Request) -> Classes {
        let mut point = Classes::default();
        for attribute in 0..attribute::COUNT as Attribute {
            let value = value_of(request, attribute);
            point[usize::from(attribute)] = self.table.classes(attribute).class(value);
        }
        point
    }

    /// Number of the first row that is a region's.
    pub(crate) fn deciding(&self) -> u32 {
        self.deciding
    }

    /// The values of some classes of an attribute.
    pub(crate) fn values(&self, attribute: Attribute, cell: &[(u32, u32)]) -> IntervalSet {
        let bits = match attribute {
            attribute::SUBJECT | attribute::OBJECT => attribute::SCOPE_NONE.count_ones() as u8,
            _ => attribute::BITS[usize::from(attribute)],
        };
        let held = |class: u32| cell.iter().any(|&(first, last)| first <= class && class <= last);
        let classes = self.table.classes(attribute);
        if classes.count() <= 1 {
            return IntervalSet::new(vec![(0, max_of(bits))]);
        }
        let stretches = classes.stretches(bits).filter(|&(.., class)| held(class));
        IntervalSet::new(stretches.map(|(first, last, _)| (first, last)).collect())
    }
}

/// How many of the first rows ask for each class of an attribute.
fn asked(table: &RowTable<'_>, rows: u32, attribute: Attribute) -> Vec<u32> {
    let mut changes = vec![0_u32; table.classes(attribute).count() as usize + 1];
    for row in 0..rows {
        table.each_interval(row, attribute, |first, last| {
            changes[first as usize] = changes[first as usize].wrapping_add(1);
            changes[last as usize + 1] = changes[last as usize + 1].wrapping_sub(1);
        });
    }
    let mut sum = 0_u32;
    for change in &mut changes {
        sum = sum.wrapping_add(*change);
        *change = sum;
    }
    changes
}
