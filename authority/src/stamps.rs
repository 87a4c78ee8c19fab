//! The stamp rules of a policy, held to the grants of the node that runs them.

use govc_abi::label::Label;
use govc_image::{Image, LabelKind};
use thiserror::Error;

use crate::{
    grant::Verified,
    lattice::{Outside, Stamp, covers},
};

/// A stamp rule that a grant covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Number of its label in the image.
    pub number: u32,
    /// Serial of the grant: what its labels carry.
    pub serial: u16,
    /// Last second of the grant, Unix time.
    pub not_after: u64,
}

/// A stamp rule that no grant covers.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no grant allows to stamp `{name}`{}", self.reasons())]
pub struct Uncovered {
    /// Number of its label in the image.
    pub number: u32,
    /// Whose label it writes: `acme.payments.api`; empty if the image does not say.
    pub name: String,
    /// Number of the domain.
    pub domain: u16,
    /// The label.
    pub stamp: Stamp,
    /// For each grant of the domain, by serial, why not.
    pub why: Vec<(u16, Outside)>,
}

/// Which grant covers each stamp rule of a policy: the first of `held` that does. Legacy rules do
/// not count, for they put no label on a packet.
///
/// # Errors
/// The rules that none covers.
pub fn cover(image: &Image, held: &[Verified]) -> Result<Vec<Covered>, Vec<Uncovered>> {
    let (mut covered, mut uncovered) = (Vec::new(), Vec::new());
    let labels = (0..).map_while(|number| Some((number, image.label(number)?)));
    for (number, found) in labels {
        let name = image.names().labels.get(number as usize);
        // What has no name is not known to be harmless.
        if name.is_some_and(|name| name.kind == LabelKind::Legacy) {
            continue;
        }
        let (domain, stamp) = (found.label.domain(), Stamp::from(found.label));
        let mut why = Vec::new();
        let grants = held.iter().filter(|grant| grant.domain().number == domain);
        let grant = grants.clone().find(|grant| match covers(grant.rights(), &stamp) {
            Ok(()) => true,
            Err(outside) => {
                why.push((grant.serial(), outside));
                false
            }
        });
        match grant {
            Some(grant) => {
                let not_after = grant.rights().not_after;
                covered.push(Covered { number, serial: grant.serial(), not_after });
            }
            None => {
                let name = name.map(|name| name.text.clone()).unwrap_or_default();
                uncovered.push(Uncovered { number, name, domain, stamp, why });
            }
        }
    }
    if uncovered.is_empty() { Ok(covered) } else { Err(uncovered) }
}

impl Uncovered {
    fn reasons(&self) -> String {
        if self.why.is_empty() {
            return format!(": there is none for domain {}; ask its root for one", self.domain);
        }
        let reasons = self.why.iter().map(|(serial, why)| format!("; grant {serial}: {why}"));
        reasons.collect()
    }
}

impl From<Label> for Stamp {
    fn from(label: Label) -> Self {
        Self {
            subject: label.subject(),
            level: label.level(),
            compartments: label.compartments(),
            constraints: label.constraints(),
            residency: label.residency(),
            route: label.route(),
            operation: label.operation(),
            radius: label.radius(),
            life: label.life(),
        }
    }
}

#[cfg(test)]
mod tests {
    use govc_abi::{ABI_VERSION, image as layout};
    use govc_image::{LabelName, Names};

    use super::*;
    use crate::{
        Domain,
        grant::{Grant, Terms},
        intervals::Intervals,
        lattice::{Excess, Rights},
        revocations::Revocations,
        testing::{acme, key, root},
        trust::Root,
    };

    /// An image with these labels of rules.
    fn image(labels: &[(LabelKind, Label)]) -> Image {
        let name = |(kind, label): &(LabelKind, Label)| LabelName {
            kind: *kind,
            text: format!("s{}", label.subject()),
            file: 0,
            line: 1,
        };
        let names = Names { labels: labels.iter().map(name).collect(), ..Names::default() };
        let section = names.encode().unwrap();
        let mut words = vec![0_u32; layout::HEADER_WORDS];
        words[layout::AT_MAGIC as usize] = layout::MAGIC;
        words[layout::AT_ABI_VERSION as usize] = ABI_VERSION;
        words[layout::AT_DOMAIN_COUNT as usize] = 1;
        words[layout::AT_DOMAINS as usize] = 7;
        words[layout::AT_LABEL_COUNT as usize] = labels.len() as u32;
        words[layout::AT_LABELS as usize] = words.len() as u32;
        for (_, label) in labels {
            let (head, mid) = (label.head, label.mid);
            words.extend([head as u32, (head >> 32) as u32, mid as u32, (mid >> 32) as u32]);
            words.extend([0; 4]);
        }
        words[layout::AT_NAMES as usize] = words.len() as u32;
        words[layout::AT_NAMES_LEN as usize] = section.len() as u32;
        words[layout::AT_WORDS as usize] = (words.len() + section.len().div_ceil(4)) as u32;
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bytes.extend(&section);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Image::seal(bytes, names).unwrap()
    }

    fn label(subject: u32, level: u8) -> Label {
        Label::default().with_domain(7).with_subject(subject).with_level(level)
    }

    fn held(root: &Root, serial: u16, last: u32, level_max: u8) -> Verified {
        let subjects = Intervals::span(1, last);
        let terms = Terms {
            serial,
            serials: Intervals::EMPTY,
            rights: Rights { subjects, level_max, ..Rights::all() },
            holder: key(9).public(),
        };
        let mut grant = Grant::draft(root.domain.clone(), terms).unwrap();
        grant.sign(&key(1)).unwrap();
        grant.sign(&key(2)).unwrap();
        grant.verify(root, &Revocations::default(), 0).unwrap()
    }

    #[test]
    fn a_label_is_read_field_by_field() {
        let label = label(0xab_cdef, 3)
            .with_compartments(1)
            .with_constraints(2)
            .with_residency(4)
            .with_route(5)
            .with_operation(6)
            .with_radius(1)
            .with_life(7);
        let stamp = Stamp {
            subject: 0xab_cdef,
            level: 3,
            compartments: 1,
            constraints: 2,
            residency: 4,
            route: 5,
            operation: 6,
            radius: 1,
            life: 7,
        };
        assert_eq!(Stamp::from(label), stamp);
    }

    #[test]
    fn the_first_grant_that_covers_is_taken() {
        let stamps = [
            (LabelKind::Stamp, label(5, 0)),
            (LabelKind::Legacy, label(999, 9)),
            (LabelKind::Stamp, label(50, 3)),
        ];
        let grants = [held(&root(), 1, 10, 1), held(&root(), 2, 100, 3)];
        let covered = |number, serial| Covered { number, serial, not_after: u64::MAX };
        assert_eq!(cover(&image(&stamps), &grants), Ok(vec![covered(0, 1), covered(2, 2)]));
        assert_eq!(cover(&image(&[]), &[]), Ok(vec![]));
    }

    #[test]
    fn what_is_not_covered_is_told_for_each_grant() {
        let stamps = [(LabelKind::Stamp, label(5, 0)), (LabelKind::Stamp, label(50, 4))];
        let grants = [held(&root(), 1, 10, 1), held(&root(), 2, 100, 3)];
        let uncovered = cover(&image(&stamps), &grants).unwrap_err();
        assert_eq!(uncovered.len(), 1);
        let why = vec![(1, Outside(Excess::Subject(50))), (2, Outside(Excess::Level(4, 3)))];
        assert_eq!((uncovered[0].number, &uncovered[0].why), (1, &why));
        assert!(uncovered[0].to_string().starts_with(
            "no grant allows to stamp `s50`; grant 1: subject 50 may be stamped by the rule but \
             not by the grant; "
        ));
        // The grants of another domain say nothing about this one.
        let other = Root { domain: Domain { number: 8, ..acme() }, ..root() };
        let uncovered = cover(&image(&stamps), &[held(&other, 1, 100, 9)]).unwrap_err();
        assert!(uncovered[0].to_string().contains("there is none for domain 7"));
    }
}
