//! Traffic that no rule speaks of, not even to deny it.

use std::collections::VecDeque;

use govc_abi::attribute::{self, Attribute, state};
use govc_grammar::diagnostic::Diagnostic;
use govc_image::Names;
use rustc_hash::FxHashMap;

use super::{
    field::{Field, Ground, NAMED},
    region::Region,
    words,
};
use crate::{
    checked::{Hook, Policy},
    codes,
    table::{DecisionTable, IntervalSet},
};

/// A region of packets with a label that no enforced rule of a hook matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where.
    pub hook: Hook,
    /// What the packets have in common; attributes that are not named take any value.
    pub cells: Vec<(Attribute, IntervalSet)>,
}

/// The gaps of a policy, largest ones first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gaps {
    /// Some of them, or all.
    pub list: Vec<Gap>,
    /// There are no others.
    pub complete: bool,
}

/// Gaps that are told of one hook.
const GAPS_MAX: usize = 32;
/// Rows that the search may look at.
const BUDGET: u64 = 1 << 26;
/// In this order, people ask who speaks to whom for what.
const ORDER: [Attribute; 17] = [
    attribute::OBJECT,
    attribute::SUBJECT,
    attribute::OPERATION,
    attribute::EGRESS_ZONE,
    attribute::INGRESS_ZONE,
    attribute::SHAPE,
    attribute::PROTOCOL,
    attribute::DESTINATION_PORT,
    attribute::ICMP,
    attribute::LEVEL,
    attribute::COMPARTMENTS,
    attribute::CONSTRAINTS,
    attribute::RESIDENCY,
    attribute::ROUTE,
    attribute::SOURCE,
    attribute::DESTINATION,
    attribute::TIME,
];

/// Finds gaps at the hooks that policies speak about, for packets with a label whose values have
/// names.
#[must_use]
pub fn find(policy: &Policy, table: &DecisionTable) -> Gaps {
    let mut gaps = Gaps { list: Vec::new(), complete: true };
    for hook in (0..3).filter(|&hook| policy.governed().get(hook) == Some(&true)) {
        let ground = Ground::new(policy, table, hook, Vec::new());
        let field = Field::new(&ground, policy.rules().len());
        for region in field.within(None, NAMED) {
            gaps.complete &= of_region(&field, hook, &region, &mut gaps.list);
        }
    }
    merge(&mut gaps.list);
    gaps
}

/// Breadth first, so that what is told by few words is told first. Whether that was all.
fn of_region(field: &Field<'_>, hook: Hook, region: &Region, gaps: &mut Vec<Gap>) -> bool {
    let labelled = region.cell(attribute::STATE).is_some_and(|cell| {
        let valid = field.table.classes(attribute::STATE).class(state::VALID.into());
        cell.iter().any(|&(first, last)| first <= valid && valid <= last)
    });
    if !labelled {
        return true;
    }
    let mut budget = BUDGET;
    let rows = field.meeting(region);
    let mut queue = VecDeque::from([(0, rows, Path::new())]);
    let mut told = 0;
    while let Some((position, rows, path)) = queue.pop_front() {
        let Some(left) = budget.checked_sub(1 + rows.len() as u64) else { return false };
        budget = left;
        if rows.is_empty() {
            if told == GAPS_MAX {
                return false;
            }
            told += 1;
            gaps.push(gap(field, hook, region, &path));
            continue;
        }
        let remaining = ORDER.get(position..).unwrap_or_default();
        let remaining = remaining.iter().fold(0, |mask: u32, attribute| mask | 1 << attribute);
        if rows.iter().any(|&row| complete(field, region, row, remaining)) {
            continue;
        }
        let Some(&attribute) = ORDER.get(position) else { continue };
        for (list, cell) in groups(field, region, attribute, &rows, &mut budget) {
            let mut path = path.clone();
            path.push((attribute, cell));
            queue.push_back((position + 1, list, path));
        }
    }
    true
}

/// Whether a row matches whatever the remaining attributes of the region's packets are.
fn complete(field: &Field<'_>, region: &Region, row: u32, remaining: u32) -> bool {
    (0..attribute::COUNT as Attribute).all(|attribute| {
        if field.table.mask(row) & remaining & 1 << attribute == 0 {
            return true;
        }
        let count = field.table.classes(attribute).count();
        let all = [(0, count - 1)];
        let cell = region.cell(attribute).unwrap_or(&all);
        let mut left: u32 = cell.iter().map(|&(first, last)| last - first + 1).sum();
        field.table.each_interval(row, attribute, |first, last| {
            for &(a, b) in cell {
                left -= (b.min(last) + 1).saturating_sub(a.max(first));
            }
        });
        left == 0
    })
}

type Cell = Vec<(u32, u32)>;

/// What the packets of a gap have in common.
type Path = Vec<(Attribute, Cell)>;

/// The region's classes of an attribute by the rows that may match there.
fn groups(
    field: &Field<'_>,
    region: &Region,
    attribute: Attribute,
    rows: &[u32],
    budget: &mut u64,
) -> Vec<(Vec<u32>, Cell)> {
    let all = [(0, field.table.classes(attribute).count() - 1)];
    let mut starts = Vec::new();
    for &row in rows {
        field.table.each_interval(row, attribute, |first, last| starts.extend([first, last + 1]));
    }
    starts.sort_unstable();
    starts.dedup();
    let mut groups: Vec<(Vec<u32>, Cell)> = Vec::new();
    let mut known: FxHashMap<Vec<u32>, usize> = FxHashMap::default();
    for &(first, last) in region.cell(attribute).unwrap_or(&all) {
        let mut start = first;
        while start <= last {
            let next = starts.partition_point(|&at| at <= start);
            let end = starts.get(next).map_or(last, |&at| last.min(at - 1));
            let inside = |row: &u32| {
                let mut inside = false;
                let asks = field.table.each_interval(*row, attribute, |a, b| {
                    inside |= a <= start && start <= b;
                });
                !asks || inside
            };
            let list: Vec<u32> = rows.iter().copied().filter(inside).collect();
            *budget = budget.saturating_sub(rows.len() as u64);
            let at = *known.entry(list.clone()).or_insert(groups.len());
            match groups.get_mut(at) {
                Some((_, cell)) => cell.push((start, end)),
                None => groups.push((list, vec![(start, end)])),
            }
            start = end + 1;
        }
    }
    groups
}

fn gap(field: &Field<'_>, hook: Hook, region: &Region, path: &[(Attribute, Cell)]) -> Gap {
    let mut cells = Vec::new();
    for attribute in ORDER {
        let all = [(0, field.table.classes(attribute).count() - 1)];
        let whole = region.cell(attribute).unwrap_or(&all);
        let asked = path.iter().find(|(other, _)| *other == attribute);
        let cell = asked.map_or(whole, |(_, cell)| cell.as_slice());
        let size = |cell: &[(u32, u32)]| -> u64 {
            cell.iter().map(|&(first, last)| u64::from(last - first) + 1).sum()
        };
        // Regions are one transport each: which one, is told until all are put together.
        if attribute == attribute::PROTOCOL || size(cell) < size(whole) {
            cells.push((attribute, field.values(attribute, cell)));
        }
    }
    Gap { hook, cells }
}

/// Puts gaps together that differ in one attribute only: the families and protocols of
/// transports are asked about one after the other.
fn merge(gaps: &mut Vec<Gap>) {
    let mut at = 0;
    while at < gaps.len() {
        let Some(gap) = gaps.get(at).cloned() else { break };
        let twin = gaps.iter().take(at).position(|other| {
            let cells = other.cells.iter().zip(&gap.cells);
            other.hook == gap.hook
                && other.cells.len() == gap.cells.len()
                && cells.clone().all(|((a, _), (b, _))| a == b)
                && cells.filter(|((_, a), (_, b))| a != b).count() <= 1
        });
        let Some(twin) = twin.and_then(|twin| gaps.get_mut(twin)) else {
            at += 1;
            continue;
        };
        for ((_, own), (_, other)) in twin.cells.iter_mut().zip(&gap.cells) {
            let both = own.intervals().iter().chain(other.intervals()).copied().collect();
            *own = IntervalSet::new(both);
        }
        gaps.remove(at);
        // What has grown may fit another one now.
        at = 0;
    }
    for gap in gaps.iter_mut() {
        gap.cells.retain(|(_, set)| !matches!(set.intervals(), [(0, 255)]));
    }
    gaps.sort_by_key(|gap| (gap.hook, gap.cells.len()));
    gaps.dedup();
}

/// A gap in words: `to acme.guest  from acme.web.**`.
#[must_use]
pub fn text(names: &Names, gap: &Gap) -> String {
    let domain = gap.cells.iter().find(|(attribute, _)| *attribute == attribute::SUBJECT);
    let domain = domain.and_then(|(_, set)| Some((set.intervals().first()?.0 >> 24) as u32));
    let mut parts = vec![format!("on {}", words::hook_name(gap.hook))];
    parts.extend(gap.cells.iter().map(|(attribute, set)| {
        let word = words::attribute_word(*attribute);
        format!("{word} {}", words::values(names, *attribute, domain.or(Some(0)), set))
    }));
    parts.join("  ")
}

/// The gaps as diagnostics; they belong to no place.
#[must_use]
pub fn diagnose(policy: &Policy, table: &DecisionTable, names: &Names) -> Vec<Diagnostic> {
    let gaps = find(policy, table);
    let told = |gap| {
        let message = format!("no rule speaks of packets {}", text(names, gap));
        Diagnostic::without_place(codes::GAP, message)
            .help("they are denied by default: permit what is wanted, deny what must stay so")
    };
    let mut diagnostics: Vec<Diagnostic> = gaps.list.iter().map(told).collect();
    if !gaps.complete {
        let message = "there are more gaps than are told";
        diagnostics.push(
            Diagnostic::without_place(codes::GAP, message).help("the largest ones come first"),
        );
    }
    diagnostics
}
