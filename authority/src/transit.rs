//! The translations of a policy, held to the mappings and transit grants of the gateway that runs them.
//!
//! A mapping is what the receiving domain signed about labels of the other; a transit grant is what it
//! lets the gateway write. A translation has to lie within both. One within a domain writes what it has
//! verified, and needs neither.

use std::fmt;

use govc_image::{Image, Translation};

use crate::{
    Domain,
    grant::Verified,
    intervals::Intervals,
    lattice::{Excess, Rights},
    mapping::{Mapping, Rules, Scope},
    revocations::Revocations,
};

/// A translation that a mapping and a grant cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Its number in the image.
    pub number: u32,
    /// Serial of the transit grant.
    pub serial: u16,
    /// Last second of the grant and of the mapping, whichever ends earlier, Unix time.
    pub not_after: u64,
}

/// A translation that goes further.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uncovered {
    /// Its number in the image.
    pub number: u32,
    /// `partner -> acme.guest`; empty if the image does not say.
    pub name: String,
    /// Number of the domain that it leads into.
    pub domain: u16,
    /// How.
    pub why: Why,
}

/// How a translation goes further than it may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// No mapping is between these two domains.
    NoMapping,
    /// The mapping makes something else of this subject, or nothing.
    Subject(u32),
    /// This level, and the highest of the mapping.
    Level(u8, u8),
    /// The mapping drops the compartment of this bit.
    Compartment(u8),
    /// The mapping adds the constraint of this bit.
    Added(u8),
    /// The mapping does not drop the constraint of this bit.
    Dropped(u8),
    /// For each transit grant of the domain, by serial, what it does not allow.
    Grants(Vec<(u16, Excess)>),
}

/// Which grant covers each translation into another domain, all of which lie within `mappings`.
///
/// # Errors
/// The translations that go further.
pub fn cover(
    image: &Image,
    mappings: &[Mapping],
    held: &[Verified],
) -> Result<Vec<Covered>, Vec<Uncovered>> {
    let domains: Vec<u16> = image.domains().map(|(number, _)| number as u16).collect();
    let number = |index: u32| domains.get(index as usize).copied().unwrap_or_default();
    let (mut covered, mut uncovered) = (Vec::new(), Vec::new());
    for translation in image.translations() {
        let Some(subjects) = translation.subjects else { continue };
        let (from, to) = (number(translation.from), number(translation.to));
        if translation.from == translation.to {
            continue;
        }
        let mapping = mappings.iter().map(Mapping::rules);
        let mapping =
            mapping.clone().find(|rules| (rules.from.number, rules.to.number) == (from, to));
        let mapped = match mapping {
            None => Err(Why::NoMapping),
            Some(rules) => match within(&translation, subjects, rules) {
                None => Ok(rules.not_after),
                Some(why) => Err(why),
            },
        };
        let granted = |mapped: u64| {
            let grant = granted(&translation, to, held)?;
            // It takes both: what is left of one is worth nothing without the other.
            let not_after = mapped.min(grant.rights().not_after);
            Ok(Covered { number: translation.number, serial: grant.serial(), not_after })
        };
        match mapped.and_then(granted) {
            Ok(one) => covered.push(one),
            Err(why) => {
                let name = image.names().translations.get(translation.number as usize);
                let name = name.map(|name| name.text.clone()).unwrap_or_default();
                uncovered.push(Uncovered { number: translation.number, name, domain: to, why });
            }
        }
    }
    if uncovered.is_empty() { Ok(covered) } else { Err(uncovered) }
}

/// All labels that a translation can write.
#[must_use]
pub fn image_of(translation: &Translation) -> Rights {
    let numbers = |list: &Option<Vec<u32>>, all: Intervals| match list {
        None => all,
        // Labels that say nothing of it pass too.
        Some(list) => {
            let each = list.iter().map(|&number| (number, number));
            Intervals::new(each.chain([(0, 0)])).unwrap_or(all)
        }
    };
    let all = Rights::all();
    let bits = translation.compartments.iter().flatten();
    Rights {
        subjects: match translation.subject {
            Some(subject) => Intervals::span(subject, subject),
            None => all.subjects,
        },
        level_max: translation.levels.iter().copied().max().unwrap_or_default(),
        compartments: bits.fold(0, |all, bits| all | bits),
        constraints: translation.added,
        residencies: numbers(&translation.residencies, all.residencies),
        routes: numbers(&translation.routes, all.routes),
        operations: numbers(&translation.operations, all.operations),
        radius_max: translation.radius_max,
        life_max: translation.life_max,
        not_after: 0,
        depth: 0,
    }
}

/// The least mapping between two domains that the translations of an image need; [`None`] when they
/// need none. It has no sequence, which its maker knows.
#[must_use]
pub fn needed(image: &Image, from: Domain, to: Domain, not_after: u64) -> Option<Rules> {
    let domains: Vec<u16> = image.domains().map(|(number, _)| number as u16).collect();
    let number = |index: u32| domains.get(index as usize).copied();
    let between = |translation: &Translation| {
        number(translation.from) == Some(from.number) && number(translation.to) == Some(to.number)
    };
    let all: Vec<Translation> = image
        .translations()
        .filter(|translation| translation.subjects.is_some() && between(translation))
        .collect();
    let mut scopes: Vec<Scope> = Vec::new();
    for translation in &all {
        let (Some(span), Some(subject)) = (translation.subjects, translation.subject) else {
            continue;
        };
        scopes.extend(left(span, &scopes).map(|(first, last)| Scope { first, last, subject }));
        scopes.sort_unstable_by_key(|scope| scope.first);
    }
    let bits = |holds: &dyn Fn(&Translation, usize) -> bool| {
        (0..16)
            .fold(0_u16, |bits, bit| bits | u16::from(all.iter().any(|one| holds(one, bit))) << bit)
    };
    let kept =
        bits(&|one, bit| one.compartments.get(bit).is_some_and(|to| to.is_some_and(|to| to != 0)));
    let dropped = bits(&|one, bit| one.constraints.get(bit).is_some_and(|to| *to == Some(0)));
    (!all.is_empty()).then(|| Rules {
        from,
        to,
        sequence: 0,
        scopes,
        drop_compartments: !kept,
        level_max: all.iter().flat_map(|one| one.levels).max().unwrap_or_default(),
        add_constraints: all.iter().fold(u16::MAX, |bits, one| bits & one.added),
        drop_constraints: dropped,
        not_after,
        revoked: Revocations::default(),
        granted: false,
    })
}

/// What of a span lies in none of the scopes, which ascend.
fn left((first, last): (u32, u32), scopes: &[Scope]) -> std::vec::IntoIter<(u32, u32)> {
    let (mut parts, mut next) = (Vec::new(), first);
    for scope in scopes.iter().filter(|scope| scope.last >= first && scope.first <= last) {
        if scope.first > next {
            parts.push((next, scope.first - 1));
        }
        next = next.max(scope.last.saturating_add(1));
    }
    if next <= last {
        parts.push((next, last));
    }
    parts.into_iter()
}

fn granted<'a>(
    translation: &Translation,
    domain: u16,
    held: &'a [Verified],
) -> Result<&'a Verified, Why> {
    let writes = image_of(translation);
    let mut why = Vec::new();
    for grant in held.iter().filter(|grant| grant.domain().number == domain) {
        match writes.excess(grant.rights()) {
            None => return Ok(grant),
            Some(excess) => why.push((grant.serial(), excess)),
        }
    }
    Err(Why::Grants(why))
}

/// The first way in which a translation goes further than a mapping.
fn within(translation: &Translation, (first, last): (u32, u32), rules: &Rules) -> Option<Why> {
    if let Some(subject) = unmapped(rules, first, last, translation.subject) {
        return Some(Why::Subject(subject));
    }
    let level = translation.levels.iter().copied().max().unwrap_or_default();
    if level > rules.level_max {
        return Some(Why::Level(level, rules.level_max));
    }
    let set = |bits: u16, bit: u8| bits.checked_shr(bit.into()).unwrap_or(0) & 1 == 1;
    for (bit, goes) in (0..).zip(&translation.compartments) {
        if set(rules.drop_compartments, bit) && goes.is_some_and(|goes| goes != 0) {
            return Some(Why::Compartment(bit));
        }
    }
    for (bit, goes) in (0..).zip(&translation.constraints) {
        if *goes == Some(0) && !set(rules.drop_constraints, bit) {
            return Some(Why::Dropped(bit));
        }
    }
    let lacking = rules.add_constraints & !translation.added;
    (lacking != 0).then(|| Why::Added(lacking.trailing_zeros() as u8))
}

/// The first subject of a span that the mapping does not make into `subject`.
fn unmapped(rules: &Rules, first: u32, last: u32, subject: Option<u32>) -> Option<u32> {
    let mut next = first;
    for scope in &rules.scopes {
        if scope.last < next {
            continue;
        }
        if scope.first > next || Some(scope.subject) != subject {
            return Some(next);
        }
        if scope.last >= last {
            return None;
        }
        next = scope.last.saturating_add(1);
    }
    Some(next)
}

impl fmt::Display for Uncovered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` goes further than it may: {}", self.name, self.why.tell(self.domain))
    }
}

impl Why {
    /// In words; `domain` is the one that the translation leads into.
    #[must_use]
    pub fn tell(&self, domain: u16) -> String {
        match self {
            Self::NoMapping => format!("no signed mapping leads from there into domain {domain}"),
            Self::Subject(subject) => {
                format!("the signed mapping makes something else of subject {subject}, or nothing")
            }
            Self::Level(level, max) => {
                format!(
                    "level {level} is written, {max} is the most that the signed mapping allows"
                )
            }
            Self::Compartment(bit) => {
                format!("the signed mapping drops compartment bit {bit}, which is kept here")
            }
            Self::Added(bit) => {
                format!("the signed mapping adds constraint bit {bit}, which is not added here")
            }
            Self::Dropped(bit) => {
                format!("constraint bit {bit} is dropped, which the signed mapping does not allow")
            }
            Self::Grants(why) if why.is_empty() => {
                format!("no grant for domain {domain} is held")
            }
            Self::Grants(why) => {
                let reasons = why.iter().map(|(serial, excess)| {
                    excess.tell("by the translation", &format!("by grant {serial}"))
                });
                reasons.collect::<Vec<_>>().join("; ")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::acme;

    fn translation() -> Translation {
        Translation {
            number: 0,
            from: 1,
            to: 0,
            subjects: Some((10, 19)),
            subject: Some(300),
            levels: [0; 16],
            compartments: [Some(0); 16],
            constraints: [None; 16],
            added: 0b1,
            operations: Some(vec![3]),
            residencies: Some(vec![]),
            routes: Some(vec![]),
            radius_max: 2,
            life_max: 2,
        }
    }

    fn rules() -> Rules {
        let scope = |first, last| Scope { first, last, subject: 300 };
        Rules {
            from: Domain { name: "partner".into(), number: 9 },
            to: acme(),
            sequence: 0,
            scopes: vec![scope(8, 14), scope(15, 40)],
            drop_compartments: u16::MAX,
            level_max: 0,
            add_constraints: 0b1,
            drop_constraints: 0,
            not_after: 2000,
            revoked: Revocations::default(),
            granted: false,
        }
    }

    #[test]
    fn what_goes_further_than_the_mapping_is_told() {
        let told = |change: fn(&mut Translation)| {
            let mut translation = translation();
            change(&mut translation);
            within(&translation, translation.subjects.unwrap(), &rules())
        };
        assert_eq!(told(|_| {}), None);
        assert_eq!(told(|t| t.subjects = Some((8, 40))), None);
        assert_eq!(told(|t| t.subjects = Some((7, 9))), Some(Why::Subject(7)));
        assert_eq!(told(|t| t.subjects = Some((30, 41))), Some(Why::Subject(41)));
        assert_eq!(told(|t| t.subject = Some(301)), Some(Why::Subject(10)));
        assert_eq!(told(|t| t.levels[5] = 1), Some(Why::Level(1, 0)));
        assert_eq!(told(|t| t.compartments[2] = Some(4)), Some(Why::Compartment(2)));
        assert_eq!(told(|t| t.constraints[3] = Some(0)), Some(Why::Dropped(3)));
        assert_eq!(told(|t| t.constraints[3] = Some(8)), None);
        assert_eq!(told(|t| t.added = 0b10), Some(Why::Added(0)));
    }

    #[test]
    fn earlier_scopes_go_first() {
        let scope = |first, last| Scope { first, last, subject: 1 };
        let left = |span| left(span, &[scope(4, 6), scope(9, 9)]).collect::<Vec<_>>();
        assert_eq!(left((0, 20)), [(0, 3), (7, 8), (10, 20)]);
        assert_eq!(left((5, 9)), [(7, 8)]);
        assert_eq!(left((4, 6)), []);
        assert_eq!(left((6, 7)), [(7, 7)]);
    }

    #[test]
    fn what_a_translation_writes_is_all_of_it() {
        let mut translation = translation();
        translation.levels[3] = 2;
        translation.compartments[1] = Some(0b100);
        let rights = image_of(&translation);
        assert_eq!((rights.level_max, rights.compartments, rights.constraints), (2, 0b100, 1));
        assert_eq!(rights.subjects, Intervals::span(300, 300));
        assert_eq!(rights.operations, Intervals::new([(0, 0), (3, 3)]).unwrap());
        assert_eq!(rights.routes, Intervals::span(0, 0));
        assert_eq!((rights.radius_max, rights.life_max), (2, 2));
    }
}
