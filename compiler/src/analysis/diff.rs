//! What changes from one image to another: regions of packets that become permitted, denied, denied in
//! another way, or decided by other rules.
//!
//! Both images are read back into diagrams, the values of the old one are numbered as those of the
//! new one by their names, and the diagrams are walked together. Each diagram has a fingerprint
//! that hangs on what it says and not on how it is made, so that all that says the same on both
//! sides is left out at once.

#![expect(
    clippy::indexing_slicing,
    reason = "numbers of nodes, classes and parts are made here and are the inner loop"
)]

mod decode;
mod fold;
mod renumber;

use std::{collections::BTreeMap, rc::Rc};

use govc_abi::{
    attribute::{self, Attribute, state},
    image::{self as layout, program, rule},
    node,
};
use govc_image::{Image, Names};
use rustc_hash::FxHashMap;
use serde::Serialize;
use thiserror::Error;

use super::{universe, words};
use crate::{
    checked::Hook,
    intern::mix,
    table::{IntervalSet, Row},
};
use decode::{Damaged, Decoded, Stretch};
use fold::Folded;

/// Images that cannot be compared.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DiffError {
    /// Labels of several domains, whose numbers differ.
    #[error("the numbers of domain `{0}` differ, and the images know several domains")]
    Renumbered(String),
    /// The old or the new image is of a kind that no compiler makes: it could not be told in full.
    #[error("the tables of the {0} image lead nowhere")]
    Damaged(&'static str),
}

/// What an image says about a region.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Verdict {
    /// Let through.
    pub permit: bool,
    /// `policy.rule`; `None` for the default.
    pub rule: Option<String>,
    /// How a denial is carried out: `reject`, or `quarantine` with the zone; `None` where the packet is
    /// dropped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// How a region changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Denied before, permitted now.
    Permitted,
    /// Permitted before, denied now.
    Denied,
    /// Denied before and now, and the sender is told, or the packet kept, otherwise.
    Answered,
    /// The same verdict by another rule.
    Attributed,
}

/// A region of packets that changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// How.
    pub kind: Kind,
    /// Where.
    pub hook: Hook,
    /// What the packets have in common, in the new image's numbers; attributes that are not
    /// named take any value.
    pub cells: Vec<(Attribute, IntervalSet)>,
    /// Packets of the region that do not change have all this in common; empty when all change.
    pub except: Vec<(Attribute, IntervalSet)>,
    /// Before.
    pub old: Verdict,
    /// Now.
    pub new: Verdict,
}

/// All that changes.
#[derive(Clone, Debug, Default)]
pub struct Diff {
    /// Regions, by hook and kind.
    pub changes: Vec<Change>,
    /// There is more than is told.
    pub incomplete: bool,
    /// The moments that [`attribute::TIME`] counts: those of both images, as slots.
    pub times: Vec<u32>,
}

/// Regions that are told, before those that fit are put together.
const REGIONS_MAX: usize = 1 << 16;
/// Nodes that are looked at for one hook.
const STEPS_MAX: u64 = 1 << 26;

/// Compares two images.
///
/// # Errors
/// Their numbers cannot be matched.
pub fn diff(old: &Image, new: &Image) -> Result<Diff, DiffError> {
    let mut diff = Diff::default();
    if old.bytes() == new.bytes() {
        return Ok(diff);
    }
    let map = renumber::Map::new(old.names(), new.names())?;
    // What only one of the two asks its rules about is not compared.
    let [shapes_old, shapes_new] = [old, new].map(|image| image.word(layout::AT_SHAPES));
    let shapes = shapes_old & shapes_new;
    diff.incomplete = shapes_old != shapes_new;
    diff.times = [old, new].iter().flat_map(|image| image.names().times.iter().copied()).collect();
    diff.times.sort_unstable();
    diff.times.dedup();
    for hook in 0..3 {
        let mut pair = Pair::new(old, new, hook, (&map, &diff.times))?;
        diff.incomplete |= !pair.run();
        // An image that no compiler made may name bits that labels do not have.
        let bit = |number: u16| 1_u16.checked_shl(number.into()).unwrap_or(0);
        let constraints =
            new.names().domains.iter().map(|domain| {
                domain.constraints.iter().fold(0, |mask, one| mask | bit(one.number))
            });
        let possible = universe::possible_with(constraints, (diff.times.len(), shapes), hook);
        diff.changes.extend(pair.changes(hook, &possible));
    }
    diff.changes
        .sort_by(|a, b| (a.hook, a.kind, &a.new, &a.old).cmp(&(b.hook, b.kind, &b.new, &b.old)));
    Ok(diff)
}

/// One image's program.
struct Side<'i> {
    image: &'i Image,
    decoded: Decoded<'i>,
    governed: bool,
    /// Group and root of each enforced part.
    roots: Vec<(u32, u32)>,
    /// By node: [`Pair::fingerprint`].
    prints: Vec<u64>,
    /// By attribute and own class: joint classes.
    joint: BTreeMap<Attribute, Vec<Vec<u32>>>,
}

struct Pair<'i> {
    sides: [Side<'i>; 2],
    /// By attribute and joint class: the values.
    values: BTreeMap<Attribute, JointValues>,
    /// By attribute and joint class: the class on each side.
    classes: BTreeMap<Attribute, Vec<[u32; 2]>>,
    regions: Vec<Region>,
    steps: u64,
}

/// A region: joint classes by attribute.
type Cells = BTreeMap<Attribute, Rc<[u32]>>;

/// A region with what both sides say about it.
type Region = (Cells, [Answer; 2]);

/// By joint class: intervals of values.
type JointValues = Vec<Vec<(u128, u128)>>;

/// What one side says: whether it permits, and which rule decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Answer {
    permit: bool,
    rule: u32,
}

impl<'i> Side<'i> {
    fn new(image: &'i Image, hook: Hook) -> Result<Self, Damaged> {
        let which = program::INGRESS + hook as u32;
        let program = image.program(which);
        let attributes = program.as_ref().map_or(0, |program| program.attributes);
        let mut decoded = Decoded::new(image, attributes)?;
        let parts = program.iter().flat_map(|program| &program.parts);
        let enforced = parts.filter(|part| !part.observe);
        let roots: Result<_, Damaged> =
            enforced.map(|part| Ok((part.group, decoded.entry(part.entry)?))).collect();
        let roots = roots?;
        let governed = program.is_some_and(|program| program.governed);
        let (prints, joint) = (Vec::new(), BTreeMap::new());
        Ok(Self { image, decoded, governed, roots, prints, joint })
    }

    fn action(&self, number: u32) -> u32 {
        self.image.rule(number).unwrap_or(0) & rule::ACTION_MASK
    }

    /// What the leaves of all parts say together; see [`govc_abi::walk`].
    fn answer(&self, leaves: &[u32], absent: bool) -> Answer {
        let mut at = 0;
        while let Some(&(group, _)) = self.roots.get(at) {
            let parts = self.roots[at..].iter().take_while(|(other, _)| *other == group).count();
            let best = leaves[at..at + parts].iter().map(|leaf| leaf & node::LEAF_NONE).min();
            let best = best.unwrap_or(node::LEAF_NONE);
            at += parts;
            if best != node::LEAF_NONE && self.action(best) != rule::PASS {
                return Answer { permit: self.action(best) == rule::PERMIT, rule: best };
            }
        }
        Answer { permit: !self.governed && !absent, rule: node::LEAF_NONE }
    }

    fn rule_name(&self, number: u32) -> Option<String> {
        if number == node::LEAF_NONE { None } else { self.image.names().rule(number) }
    }

    /// What becomes of packets that a rule denies, if more than nothing. Zones have numbers of their own
    /// on each side, and the same names.
    fn carried_out(&self, number: u32) -> Option<String> {
        let record = self.image.rule(number).filter(|_| number != node::LEAF_NONE)?;
        if record & rule::QUARANTINE != 0 {
            let zone = record >> rule::ZONE_SHIFT & 0xff;
            return Some(format!("quarantine {}", self.image.names().zone(zone).unwrap_or("?")));
        }
        (record & rule::REJECT != 0).then(|| "reject".to_owned())
    }

    fn verdict(&self, answer: Answer) -> Verdict {
        Verdict {
            permit: answer.permit,
            rule: self.rule_name(answer.rule),
            answer: self.carried_out(answer.rule),
        }
    }
}

impl<'i> Pair<'i> {
    fn new(
        old: &'i Image,
        new: &'i Image,
        hook: Hook,
        (map, times): (&renumber::Map, &[u32]),
    ) -> Result<Self, DiffError> {
        let side =
            |image, which| Side::new(image, hook).map_err(|Damaged| DiffError::Damaged(which));
        let mut sides = [side(old, "old")?, side(new, "new")?];
        let mut attributes: Vec<Attribute> = Vec::new();
        for side in &sides {
            attributes.extend(side.decoded.stretches.keys());
        }
        // Without a rule, whoever has no label is treated on its own.
        attributes.push(attribute::STATE);
        attributes.sort_unstable();
        attributes.dedup();
        let (mut values, mut classes) = (BTreeMap::new(), BTreeMap::new());
        for attribute in attributes {
            let own = |side: &Side<'_>| match side.decoded.stretches.get(&attribute) {
                Some(stretches) if attribute == attribute::TIME => {
                    renumber::times(&side.image.names().times, times, stretches)
                }
                Some(stretches) => stretches.clone(),
                None => vec![(0, words::max(attribute), 0)],
            };
            let old = map.stretches(attribute, own(&sides[0]));
            let (joint_values, joint_classes) = join(attribute, &old, &own(&sides[1]));
            for (at, side) in sides.iter_mut().enumerate() {
                let mut own: Vec<Vec<u32>> = Vec::new();
                for (joint, pair) in (0_u32..).zip(&joint_classes) {
                    let class = pair[at] as usize;
                    own.resize_with(own.len().max(class + 1), Vec::new);
                    own[class].push(joint);
                }
                side.joint.insert(attribute, own);
            }
            values.insert(attribute, joint_values);
            classes.insert(attribute, joint_classes);
        }
        let mut pair = Self { sides, values, classes, regions: Vec::new(), steps: STEPS_MAX };
        for at in 0..2 {
            pair.sides[at].prints = pair.fingerprints(&pair.sides[at]);
        }
        Ok(pair)
    }

    /// A number for each node that is equal where nodes say the same: the value of a polynomial
    /// at a random point, in which each attribute's classes have shares that sum up to one. It
    /// does not matter in which order attributes are tested, nor whether needlessly.
    fn fingerprints(&self, side: &Side<'_>) -> Vec<u64> {
        let shares: BTreeMap<Attribute, Vec<u64>> =
            self.classes.iter().map(|(&a, classes)| (a, shares(a, classes.len()))).collect();
        let mut weights: BTreeMap<Attribute, Vec<u64>> = BTreeMap::new();
        for (attribute, own) in &side.joint {
            let of = |class: &Vec<u32>| {
                class.iter().fold(0, |sum, &joint| add(sum, shares[attribute][joint as usize]))
            };
            let mut sum = 0;
            let sums = own.iter().map(|class| {
                sum = add(sum, of(class));
                sum
            });
            weights.insert(*attribute, sums.collect());
        }
        let mut prints: Vec<u64> = Vec::with_capacity(side.decoded.nodes.len());
        for node in &side.decoded.nodes {
            let (mut print, mut before) = (0, 0);
            for &(last, target) in &node.runs {
                let until = weights[&node.attribute].get(last as usize).copied().unwrap_or(1);
                let weight = add(until, PRIME - before);
                before = until;
                print = add(print, times(weight, print_of(side, &prints, target)));
            }
            prints.push(print);
        }
        prints
    }

    /// Finds all regions; false when it gave up.
    fn run(&mut self) -> bool {
        let roots = |side: &Side<'_>| side.roots.iter().map(|&(_, root)| root).collect::<Vec<_>>();
        let state = [roots(&self.sides[0]), roots(&self.sides[1])];
        self.descend(state, Cells::new())
    }

    fn descend(&mut self, state: [Vec<u32>; 2], cells: Cells) -> bool {
        let Some(left) = self.steps.checked_sub(1) else { return false };
        self.steps = left;
        if self.says_the_same(&state) {
            return true;
        }
        let open = |entry: &u32| entry & node::LEAF == 0;
        let next = (0..2).find_map(|at| {
            let entry = state[at].iter().find(|entry| open(entry))?;
            Some(self.sides[at].decoded.nodes[*entry as usize].attribute)
        });
        let Some(attribute) = next else { return self.leaf(&state, cells) };
        // Classes that lead to the same entries everywhere stay together.
        let all: Rc<[u32]> = (0..self.classes[&attribute].len() as u32).collect();
        let here = cells.get(&attribute).cloned().unwrap_or(all);
        let mut groups: Vec<([Vec<u32>; 2], Vec<u32>)> = Vec::new();
        let mut known: FxHashMap<[Vec<u32>; 2], usize> = FxHashMap::default();
        for &joint in here.iter() {
            let follow = |at: usize| -> Vec<u32> {
                let class = self.classes[&attribute][joint as usize][at];
                let nodes = &self.sides[at].decoded.nodes;
                state[at].iter().map(|&entry| follow(nodes, entry, attribute, class)).collect()
            };
            let next = [follow(0), follow(1)];
            let at = *known.entry(next.clone()).or_insert(groups.len());
            match groups.get_mut(at) {
                Some((_, classes)) => classes.push(joint),
                None => groups.push((next, vec![joint])),
            }
        }
        self.steps = self.steps.saturating_sub(here.len() as u64 / 8);
        for (next, classes) in groups {
            let mut cells = cells.clone();
            if classes.len() < self.classes[&attribute].len() {
                cells.insert(attribute, classes.into());
            }
            if !self.descend(next, cells) {
                return false;
            }
        }
        true
    }

    /// Whether both sides have the same diagrams left, whatever comes.
    fn says_the_same(&self, state: &[Vec<u32>; 2]) -> bool {
        if self.sides[0].governed != self.sides[1].governed {
            return false;
        }
        let prints = |at: usize| {
            let side = &self.sides[at];
            let mut group = 0;
            let mut before = None;
            let parts = side.roots.iter().zip(&state[at]).map(|(&(number, _), &entry)| {
                // Groups are counted anew: an image may have put some together.
                group += u32::from(before.is_some_and(|before| before != number));
                before = Some(number);
                (group, print_of(side, &side.prints, entry))
            });
            let mut parts: Vec<(u32, u64)> = parts.collect();
            parts.sort_unstable();
            parts
        };
        prints(0) == prints(1)
    }

    fn leaf(&mut self, state: &[Vec<u32>; 2], cells: Cells) -> bool {
        let all = 0..self.classes[&attribute::STATE].len() as u32;
        let states = cells.get(&attribute::STATE).cloned().unwrap_or_else(|| all.collect());
        let is_absent = |joint: &u32| {
            let values = &self.values[&attribute::STATE][*joint as usize];
            values.iter().any(|&(first, _)| first == u128::from(state::ABSENT))
        };
        let (absent, others): (Vec<u32>, Vec<u32>) = states.iter().partition(|j| is_absent(j));
        let mut found = Vec::new();
        for (absent, classes) in [(true, absent), (false, others)] {
            let answers = [0, 1].map(|at: usize| self.sides[at].answer(&state[at], absent));
            let [old, new] = [0, 1].map(|at: usize| self.sides[at].verdict(answers[at]));
            if old != new && !classes.is_empty() {
                let mut cells = cells.clone();
                cells.insert(attribute::STATE, classes.into());
                found.push((cells, answers));
            }
        }
        self.regions.append(&mut found);
        self.regions.len() <= REGIONS_MAX
    }

    /// The regions with values for classes, put together where they fit.
    fn changes(self, hook: Hook, possible: &[Row]) -> Vec<Change> {
        let (sides, values) = (self.sides, self.values);
        let exists = |cells: &[(Attribute, IntervalSet)]| {
            possible.iter().any(|row| {
                cells.iter().all(|(attribute, set)| {
                    let own = row.cells.iter().find(|(other, _)| other == attribute);
                    own.is_none_or(|(_, own)| !own.intersect(set).is_empty())
                })
            })
        };
        let named = |cells: &Cells, differ: Option<&Cells>| -> Vec<(Attribute, IntervalSet)> {
            let each = cells.iter().filter(|(attribute, classes)| match differ {
                Some(other) => other.get(attribute) != Some(classes),
                None => classes.len() < values[attribute].len(),
            });
            let set = |(&attribute, classes): (&Attribute, &Rc<[u32]>)| {
                let of = |&joint: &u32| values[&attribute][joint as usize].iter().copied();
                (attribute, IntervalSet::new(classes.iter().flat_map(of).collect()))
            };
            each.map(set).collect()
        };
        let mut regions = merged(self.regions);
        for (cells, _) in &mut regions {
            cells.retain(|attribute, classes| classes.len() < values[attribute].len());
        }
        regions.retain(|(cells, _)| exists(&named(cells, None)));
        let mut changes = Vec::new();
        for Folded { cells, except, answers } in fold::folded(regions, &values) {
            let [old, new] = [0, 1].map(|at: usize| sides[at].verdict(answers[at]));
            let kind = match (old.permit, new.permit) {
                (false, true) => Kind::Permitted,
                (true, false) => Kind::Denied,
                _ if old.answer != new.answer => Kind::Answered,
                _ => Kind::Attributed,
            };
            let except = except.map_or(Vec::new(), |except| named(&except, Some(&cells)));
            changes.push(Change { kind, hook, cells: named(&cells, None), except, old, new });
        }
        changes
    }
}

fn follow(nodes: &[decode::Node], entry: u32, attribute: Attribute, class: u32) -> u32 {
    if entry & node::LEAF != 0 || nodes[entry as usize].attribute != attribute {
        return entry;
    }
    let runs = &nodes[entry as usize].runs;
    let at = runs.partition_point(|&(last, _)| last < class);
    runs.get(at).map_or(node::ENTRY_NONE, |&(_, target)| target)
}

/// Puts regions together that say the same and differ in one attribute.
fn merged(mut regions: Vec<Region>) -> Vec<Region> {
    let attributes: Vec<Attribute> = (0..attribute::COUNT as Attribute).collect();
    loop {
        let before = regions.len();
        for attribute in &attributes {
            let mut known: FxHashMap<(Cells, [Answer; 2]), usize> = FxHashMap::default();
            let mut list: Vec<(Cells, Option<Vec<u32>>, [Answer; 2])> = Vec::new();
            for (mut cells, answers) in regions {
                let own = cells.remove(attribute).map(|classes| classes.to_vec());
                let at = *known.entry((cells.clone(), answers)).or_insert(list.len());
                match list.get_mut(at) {
                    Some((_, classes, _)) => match (classes.as_mut(), own) {
                        (Some(classes), Some(own)) => classes.extend(own),
                        _ => *classes = None,
                    },
                    None => list.push((cells, own, answers)),
                }
            }
            let whole = |(mut cells, own, answers): (Cells, Option<Vec<u32>>, [Answer; 2])| {
                if let Some(mut own) = own {
                    own.sort_unstable();
                    own.dedup();
                    cells.insert(*attribute, own.into());
                }
                (cells, answers)
            };
            regions = list.into_iter().map(whole).collect();
        }
        if regions.len() == before {
            return regions;
        }
    }
}

/// The joint classes of both sides' stretches: their values, and the class on each side.
fn join(attribute: Attribute, old: &[Stretch], new: &[Stretch]) -> (JointValues, Vec<[u32; 2]>) {
    let mut starts: Vec<u128> = old.iter().chain(new).map(|&(first, ..)| first).collect();
    if attribute == attribute::STATE {
        starts.extend([u128::from(state::LEGACY)]);
    }
    starts.sort_unstable();
    starts.dedup();
    let class = |list: &[Stretch], value: u128| {
        let at = list.partition_point(|&(first, ..)| first <= value).saturating_sub(1);
        list.get(at).map_or(0, |&(.., class)| class)
    };
    let (mut values, mut classes) = (JointValues::new(), Vec::new());
    // Whoever has no label is a class of its own.
    let absent = |value: u128| attribute == attribute::STATE && value == 0;
    let mut known: FxHashMap<([u32; 2], bool), usize> = FxHashMap::default();
    let ends = starts.iter().skip(1).map(|next| next - 1).chain([words::max(attribute)]);
    for (&first, last) in starts.iter().zip(ends) {
        let pair = [class(old, first), class(new, first)];
        let at = *known.entry((pair, absent(first))).or_insert(values.len());
        match values.get_mut(at) {
            Some(list) => list.push((first, last)),
            None => {
                values.push(vec![(first, last)]);
                classes.push(pair);
            }
        }
    }
    (values, classes)
}

/// The field in which fingerprints live: numbers modulo 2^61 - 1.
const PRIME: u64 = (1 << 61) - 1;

fn add(a: u64, b: u64) -> u64 {
    (a + b) % PRIME
}

fn times(a: u64, b: u64) -> u64 {
    (u128::from(a) * u128::from(b) % u128::from(PRIME)) as u64
}

/// Random shares of an attribute's classes that sum up to one.
fn shares(attribute: Attribute, count: usize) -> Vec<u64> {
    let share = |class: usize| mix(0x5ea5 + u64::from(attribute), class as u64 + 1) % PRIME;
    let mut shares: Vec<u64> = (1..count).map(share).collect();
    let sum = shares.iter().fold(0, |sum, &share| add(sum, share));
    shares.push(add(1, PRIME - sum));
    shares
}

/// The fingerprint of a leaf or a node. Leaves are told apart by name, action and how that is carried
/// out, as their numbers are the image's own.
fn print_of(side: &Side<'_>, prints: &[u64], entry: u32) -> u64 {
    if entry & node::LEAF == 0 {
        return prints[entry as usize];
    }
    let number = entry & node::LEAF_NONE;
    if number == node::LEAF_NONE {
        return 0;
    }
    let names: &Names = side.image.names();
    let Some(rule) = names.rules.get(number as usize) else { return 0 };
    let answer = side.carried_out(number).unwrap_or_default();
    let bytes = rule.policy.bytes().chain([0]).chain(rule.name.bytes());
    let bytes = bytes.chain([0]).chain(answer.bytes());
    let start = u64::from(side.action(number));
    bytes.fold(mix(1, start), |print, byte| mix(print, u64::from(byte))) % PRIME
}
