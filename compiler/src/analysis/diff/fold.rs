//! Regions put together as one box without another. A rule that narrows from any traffic to `tcp
//! port 443` denies what is not TCP and, apart from it, the other ports of TCP: two boxes in the
//! diagrams, one change to whoever made it.

use std::{collections::BTreeMap, rc::Rc};

use govc_abi::attribute::Attribute;
use rustc_hash::FxHashMap;

use super::{Answer, Cells, JointValues, Region, merged};

/// All of `cells` that is not in `except`.
#[derive(Clone)]
pub(super) struct Folded {
    pub(super) cells: Cells,
    /// A part of `cells`.
    pub(super) except: Option<Cells>,
    pub(super) answers: [Answer; 2],
}

/// Regions of one change that are compared with each other: beyond, nobody reads them as one.
const REGIONS_COMPARED_MAX: usize = 64;

/// Puts regions that say the same together, two by two, as long as something simple comes of it.
pub(super) fn folded(
    regions: Vec<Region>,
    values: &BTreeMap<Attribute, JointValues>,
) -> Vec<Folded> {
    let mut order: Vec<[Answer; 2]> = Vec::new();
    let mut by_answers: FxHashMap<[Answer; 2], Vec<Folded>> = FxHashMap::default();
    for (cells, answers) in regions {
        let list = by_answers.entry(answers).or_insert_with(|| {
            order.push(answers);
            Vec::new()
        });
        list.push(Folded { cells, except: None, answers });
    }
    let mut all = Vec::new();
    for answers in order {
        let mut list = by_answers.remove(&answers).unwrap_or_default();
        if list.len() <= REGIONS_COMPARED_MAX {
            while fold_two(&mut list, values) {}
        }
        all.append(&mut list);
    }
    all
}

/// Folds the first two that can be; false when there are none.
fn fold_two(list: &mut Vec<Folded>, values: &BTreeMap<Attribute, JointValues>) -> bool {
    for second in 1..list.len() {
        for first in 0..second {
            if let Some(both) = both(&list[first], &list[second], values) {
                list[first] = both;
                list.remove(second);
                return true;
            }
        }
    }
    false
}

fn both(a: &Folded, b: &Folded, values: &BTreeMap<Attribute, JointValues>) -> Option<Folded> {
    let hull = hull(&a.cells, &b.cells, values);
    let mut missing = vec![hull.clone()];
    for one in [a, b] {
        let without = |piece: &Cells| {
            let mut left = minus(piece, &one.cells, values);
            left.extend(one.except.as_ref().and_then(|except| meet(piece, except)));
            left
        };
        missing = missing.iter().flat_map(without).collect();
    }
    let missing = merged(missing.into_iter().map(|cells| (cells, a.answers)).collect());
    let mut missing = missing.into_iter().map(|(cells, _)| cells);
    let (except, None) = (missing.next(), missing.next()) else { return None };
    let simple = except.as_ref().is_none_or(|except| is_simple(&hull, except, values));
    simple.then_some(Folded { cells: hull, except, answers: a.answers })
}

/// Whether people read it faster than two regions: what is narrowed by the exception is open
/// otherwise, or one interval. `tcp port 80` and `udp port 443` corner nothing worth a name.
fn is_simple(hull: &Cells, except: &Cells, values: &BTreeMap<Attribute, JointValues>) -> bool {
    except.iter().all(|(attribute, own)| match hull.get(attribute) {
        None => true,
        Some(whole) if whole == own => true,
        Some(whole) => {
            let mut intervals: Vec<(u128, u128)> =
                whole.iter().flat_map(|&class| values[attribute][class as usize].clone()).collect();
            intervals.sort_unstable();
            intervals.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0)
        }
    })
}

/// The smallest box that holds both.
fn hull(a: &Cells, b: &Cells, values: &BTreeMap<Attribute, JointValues>) -> Cells {
    let mut hull = Cells::new();
    for (attribute, own) in a {
        let Some(other) = b.get(attribute) else { continue };
        let mut classes: Vec<u32> = own.iter().chain(other.iter()).copied().collect();
        classes.sort_unstable();
        classes.dedup();
        if classes.len() < values[attribute].len() {
            hull.insert(*attribute, classes.into());
        }
    }
    hull
}

/// What is in both, unless that is nothing.
fn meet(a: &Cells, b: &Cells) -> Option<Cells> {
    let mut both = a.clone();
    for (attribute, other) in b {
        let cell: Rc<[u32]> = match a.get(attribute) {
            Some(own) => own.iter().filter(|class| other.contains(class)).copied().collect(),
            None => other.clone(),
        };
        if cell.is_empty() {
            return None;
        }
        both.insert(*attribute, cell);
    }
    Some(both)
}

/// What is in one and not in the other, as boxes without overlap.
fn minus(a: &Cells, b: &Cells, values: &BTreeMap<Attribute, JointValues>) -> Vec<Cells> {
    if meet(a, b).is_none() {
        return vec![a.clone()];
    }
    let (mut left, mut inside) = (Vec::new(), a.clone());
    for (attribute, other) in b {
        let all: Rc<[u32]> = (0..values[attribute].len() as u32).collect();
        let own = inside.get(attribute).cloned().unwrap_or(all);
        let (within, outside): (Vec<u32>, Vec<u32>) =
            own.iter().partition(|class| other.contains(class));
        if !outside.is_empty() {
            let mut piece = inside.clone();
            piece.insert(*attribute, outside.into());
            left.push(piece);
        }
        inside.insert(*attribute, within.into());
    }
    left
}

#[cfg(test)]
mod tests {
    use super::*;
    use govc_abi::attribute::{DESTINATION_PORT, PROTOCOL, SOURCE_PORT};

    const ANSWERS: [Answer; 2] =
        [Answer { permit: true, rule: 1 }, Answer { permit: false, rule: 2 }];

    /// Six values of each of three attributes, in a class each.
    fn values() -> BTreeMap<Attribute, JointValues> {
        let each = (0..6_u128).map(|value| vec![(value, value)]).collect::<JointValues>();
        [PROTOCOL, SOURCE_PORT, DESTINATION_PORT].map(|a| (a, each.clone())).into()
    }

    fn cells(list: &[(Attribute, &[u32])]) -> Cells {
        list.iter().map(|&(attribute, classes)| (attribute, classes.into())).collect()
    }

    fn fold(list: &[Cells]) -> Vec<Folded> {
        folded(list.iter().map(|cells| (cells.clone(), ANSWERS)).collect(), &values())
    }

    /// All points, told by whether each of the regions holds them.
    fn holding(holds: impl Fn(&dyn Fn(Attribute) -> u32) -> usize) -> Vec<usize> {
        let points = (0..216_u32).map(|n| {
            move |a: Attribute| match a {
                PROTOCOL => n % 6,
                SOURCE_PORT => n / 6 % 6,
                _ => n / 36,
            }
        });
        points.map(|point| holds(&point)).collect()
    }

    fn is_in(cells: &Cells, point: &dyn Fn(Attribute) -> u32) -> bool {
        cells.iter().all(|(&attribute, cell)| cell.contains(&point(attribute)))
    }

    #[test]
    fn a_box_without_another_is_one_region() {
        let outside: &[u32] = &[0, 3, 4, 5];
        let inside: &[u32] = &[1, 2];
        let three = [
            cells(&[(PROTOCOL, inside), (DESTINATION_PORT, inside), (SOURCE_PORT, outside)]),
            cells(&[(PROTOCOL, inside), (DESTINATION_PORT, outside)]),
            cells(&[(PROTOCOL, outside)]),
        ];
        let [one] = fold(&three).try_into().ok().unwrap();
        assert_eq!(one.cells, Cells::new());
        let hole = [(PROTOCOL, inside), (DESTINATION_PORT, inside), (SOURCE_PORT, inside)];
        assert_eq!(one.except, Some(cells(&hole)));
    }

    #[test]
    fn lists_of_few_values_stay_rows() {
        let web = cells(&[(PROTOCOL, &[1]), (DESTINATION_PORT, &[1, 4])]);
        let other = cells(&[(PROTOCOL, &[3]), (DESTINATION_PORT, &[1])]);
        assert_eq!(fold(&[web, other]).len(), 2);
    }

    #[test]
    fn folding_keeps_every_point() {
        let mut random = crate::sample::Random::new(7);
        let mut fewer = 0;
        for _ in 0..400 {
            // Regions never overlap: each is taken out of what is left.
            let mut free = vec![Cells::new()];
            let mut list = Vec::new();
            for _ in 0..3 {
                let mut one = Cells::new();
                for attribute in [PROTOCOL, SOURCE_PORT, DESTINATION_PORT] {
                    let first = random.below(6) as u32;
                    let last = (first + random.below(3) as u32).min(5);
                    if random.below(3) > 0 && (first, last) != (0, 5) {
                        one.insert(attribute, (first..=last).collect());
                    }
                }
                list.extend(free.iter().filter_map(|piece| meet(piece, &one)));
                free = free.iter().flat_map(|piece| minus(piece, &one, &values())).collect();
            }
            let result = fold(&list);
            let before = holding(|point| list.iter().filter(|one| is_in(one, point)).count());
            let after = holding(|point| {
                let holds = |one: &&Folded| {
                    let out = one.except.as_ref().is_some_and(|except| is_in(except, point));
                    is_in(&one.cells, point) && !out
                };
                result.iter().filter(holds).count()
            });
            assert_eq!(before, after);
            fewer += usize::from(result.len() < list.len());
        }
        assert!(fewer > 100, "{fewer}");
    }
}
