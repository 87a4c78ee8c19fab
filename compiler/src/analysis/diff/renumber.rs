//! From the numbers of one image to those of another, by name.

use std::collections::BTreeMap;

use govc_abi::attribute::{self, Attribute, SCOPE_NONE, scope_key};
use govc_image::{Domain, Names, Numbered};

use super::{
    DiffError,
    decode::{List, Stretch},
};

/// For numbers of the new image, what they are in the old one.
pub(super) struct Map {
    /// By attribute of 8 or 16 bits, by new number; attributes that keep their numbers are left
    /// out.
    numbers: BTreeMap<Attribute, Vec<u32>>,
    /// First and last new scope key, and the old key of the first; what is not named here keeps
    /// its number.
    scopes: Vec<(u32, u32, u32)>,
}

impl Map {
    pub(super) fn new(old: &Names, new: &Names) -> Result<Self, DiffError> {
        let mut map = Self { numbers: BTreeMap::new(), scopes: Vec::new() };
        map.zones(old, new);
        if old.domains == new.domains {
            return Ok(map);
        }
        for (index, domain) in (0_u32..).zip(&new.domains) {
            let before = (0_u32..).zip(&old.domains).find(|(_, other)| other.name == domain.name);
            let Some((old_index, before)) = before else { continue };
            map.subjects((old_index, before), (index, domain));
            let single = old.domains.len() == 1 && new.domains.len() == 1;
            if !single && !same_numbers(before, domain) {
                return Err(DiffError::Renumbered(domain.name.clone()));
            }
            for (attribute, old, new) in [
                (attribute::LEVEL, &before.levels, &domain.levels),
                (attribute::OPERATION, &before.operations, &domain.operations),
                (attribute::RESIDENCY, &before.residencies, &domain.residencies),
                (attribute::ROUTE, &before.routes, &domain.routes),
            ] {
                map.enumeration(attribute, old, new);
            }
            map.bitmap(attribute::COMPARTMENTS, &before.compartments, &domain.compartments);
            map.bitmap(attribute::CONSTRAINTS, &before.constraints, &domain.constraints);
        }
        Ok(map)
    }

    fn zones(&mut self, old: &Names, new: &Names) {
        let numbered = |names: &Names| -> Vec<Numbered> {
            let zones = (1..).zip(&names.zones);
            zones.map(|(number, zone)| Numbered { name: zone.name.clone(), number }).collect()
        };
        for attribute in [attribute::INGRESS_ZONE, attribute::EGRESS_ZONE] {
            self.enumeration(attribute, &numbered(old), &numbered(new));
        }
    }

    /// Numbers whose names the old image does not have become one that it has no name for.
    fn enumeration(&mut self, attribute: Attribute, old: &[Numbered], new: &[Numbered]) {
        let bits = attribute::BITS.get(usize::from(attribute)).copied().unwrap_or(8);
        let free = (1..1_u32 << bits).rev().find(|number| {
            let named = |one: &Numbered| u32::from(one.number) == *number;
            !old.iter().any(named) && !new.iter().any(named)
        });
        let mut numbers: Vec<u32> = (0..1 << bits).collect();
        for one in new {
            let before = old.iter().find(|other| other.name == one.name);
            let before = before.map(|other| u32::from(other.number)).or(free);
            if let (Some(place), Some(before)) = (numbers.get_mut(usize::from(one.number)), before)
            {
                *place = before;
            }
        }
        self.numbers.insert(attribute, numbers);
    }

    fn bitmap(&mut self, attribute: Attribute, old: &[Numbered], new: &[Numbered]) {
        let moved = |value: u32| {
            (0..16).filter(|bit| value >> bit & 1 == 1).fold(0, |mask, bit| {
                let name = new.iter().find(|one| u32::from(one.number) == bit);
                let before = name.and_then(|one| old.iter().find(|other| other.name == one.name));
                mask | 1 << before.map_or(bit, |one| u32::from(one.number))
            })
        };
        self.numbers.insert(attribute, (0..1 << 16).map(moved).collect());
    }

    fn subjects(&mut self, (old_index, old): (u32, &Domain), (index, domain): (u32, &Domain)) {
        for scope in &domain.scopes {
            let before = old.scopes.iter().find(|other| other.path == scope.path);
            let (Some((first, last)), Some(before)) = (scope.subjects, before) else { continue };
            let Some((old_first, old_last)) = before.subjects else { continue };
            let last = last.min(first + (old_last - old_first));
            let keys = [scope_key(index, first), scope_key(index, last)];
            self.scopes.push((keys[0], keys[1], scope_key(old_index, old_first)));
        }
        self.scopes.sort_unstable();
    }

    /// The old image's classes by the new image's values.
    pub(super) fn stretches(&self, attribute: Attribute, old: Vec<Stretch>) -> Vec<Stretch> {
        let class = |value: u128| {
            let at = old.partition_point(|&(first, ..)| first <= value).saturating_sub(1);
            old.get(at).map_or(0, |&(.., class)| class)
        };
        let mut list = List::default();
        if let Some(numbers) = self.numbers.get(&attribute) {
            for (number, &before) in (0_u128..).zip(numbers) {
                list.push(number, number, class(before.into()));
            }
            return list.0;
        }
        if !matches!(attribute, attribute::SUBJECT | attribute::OBJECT) || self.scopes.is_empty() {
            return old;
        }
        let keep = |list: &mut List, first: u128, last: u128| {
            for &(a, b, class) in &old {
                let (a, b) = (a.max(first), b.min(last));
                if a <= b {
                    list.push(a, b, class);
                }
            }
        };
        let mut next = 0;
        for &(first, last, before) in &self.scopes {
            let (first, last, before) = (u128::from(first), u128::from(last), u128::from(before));
            if next < first {
                keep(&mut list, next, first - 1);
            }
            for &(a, b, class) in &old {
                let (a, b) = (a.max(before), b.min(before + (last - first)));
                if a <= b {
                    list.push(first + (a - before), first + (b - before), class);
                }
            }
            next = last + 1;
        }
        keep(&mut list, next, SCOPE_NONE.into());
        list.0
    }
}

/// Classes by how many of one image's moments are past, as classes by how many of both images'.
pub(super) fn times(own: &[u32], both: &[u32], old: &[Stretch]) -> Vec<Stretch> {
    let class = |past: usize| {
        let at = old.partition_point(|&(first, ..)| first <= past as u128).saturating_sub(1);
        old.get(at).map_or(0, |&(.., class)| class)
    };
    let mut list = List::default();
    for number in 0..=u8::MAX {
        let slot = usize::from(number).checked_sub(1).map(|last| both.get(last).copied());
        let past = match slot {
            None => 0,
            Some(Some(slot)) => own.partition_point(|time| *time <= slot),
            Some(None) => own.len(),
        };
        list.push(number.into(), number.into(), class(past));
    }
    list.0
}

/// Whether all names that both know have the same numbers, those of scopes aside.
fn same_numbers(old: &Domain, new: &Domain) -> bool {
    let lists = |domain: &Domain| {
        [
            domain.levels.clone(),
            domain.compartments.clone(),
            domain.constraints.clone(),
            domain.operations.clone(),
            domain.residencies.clone(),
            domain.routes.clone(),
        ]
    };
    lists(old).iter().zip(&lists(new)).all(|(old, new)| {
        old.iter().all(|one| new.iter().find(|o| o.name == one.name).is_none_or(|o| o == one))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_follow_names() {
        let names = |levels: &[(&str, u16)], scope: (u32, u32), zones: &[&str]| Names {
            domains: vec![Domain {
                name: "acme".into(),
                number: 7,
                levels: levels
                    .iter()
                    .map(|&(name, number)| Numbered { name: name.into(), number })
                    .collect(),
                scopes: vec![govc_image::Scope {
                    path: "web".into(),
                    blocks: vec![scope],
                    subjects: Some(scope),
                }],
                ..Domain::default()
            }],
            zones: zones
                .iter()
                .map(|&name| govc_image::Zone {
                    name: name.into(),
                    interfaces: Vec::new(),
                    encrypted: false,
                })
                .collect(),
            ..Names::default()
        };
        let old = names(&[("low", 0), ("high", 10)], (256, 259), &["lan", "wan"]);
        let new = names(&[("low", 0), ("mid", 5), ("high", 12)], (512, 513), &["wan", "lan"]);
        let map = Map::new(&old, &new).unwrap();
        let levels = map.stretches(attribute::LEVEL, vec![(0, 9, 0), (10, 10, 1), (11, 255, 2)]);
        let class = |list: &[Stretch], value: u128| {
            list.iter().find(|s| s.0 <= value && value <= s.1).unwrap().2
        };
        assert_eq!(class(&levels, 12), 1);
        assert_eq!(class(&levels, 10), 1);
        assert_eq!(class(&levels, 5), 2);
        let zones = map.stretches(attribute::INGRESS_ZONE, vec![(0, 0, 0), (1, 1, 1), (2, 255, 2)]);
        assert_eq!([class(&zones, 1), class(&zones, 2), class(&zones, 0)], [2, 1, 0]);
        let subjects = map.stretches(
            attribute::SUBJECT,
            vec![(0, 255, 0), (256, 257, 1), (258, u128::from(SCOPE_NONE), 2)],
        );
        assert_eq!(
            [class(&subjects, 512), class(&subjects, 513), class(&subjects, 514)],
            [1, 1, 2]
        );
        assert_eq!(class(&subjects, 256), 1);
        assert_eq!(subjects.last().unwrap().1, u128::from(SCOPE_NONE));
    }
}
