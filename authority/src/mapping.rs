//! Mappings: what labels of one domain become in another.
//!
//! A gateway between domains writes labels of its own. What it may write is its transit grant;
//! the mapping says what it makes of what it gets. [`Mapping::check`] holds the one to the other:
//! whatever label comes in, what goes out lies within the transit grant. By its form a mapping can
//! besides only lower the level, take compartments away, add constraints, and drop those that it names.
//!
//! Operation, residency set, route class, radius and life pass as they are. Their numbers, and those
//! of the compartments and constraints that stay, are those of the receiving domain only if both
//! use one vocabulary for them; a transit grant says which of them may come in. A policy's translations
//! say it by name, and are held to both: see [`crate::transit`].
//!
//! Whoever signs a mapping signs for the labels of its own domain that come the other way, too: those
//! under grants that it took back. Nothing else of a domain crosses its border but keys.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    Domain,
    envelope::{Envelope, EnvelopeError},
    form::{self, FormError},
    intervals::{INTERVALS_MAX, Intervals},
    lattice::{Excess, NoSuch, Rights, Stamp},
    revocations::Revocations,
    trust::Root,
};

/// What a mapping's envelope says that it holds.
pub const PAYLOAD_TYPE: &str = "application/vnd.govc.mapping+json";
/// Bytes of a mapping.
pub const MAPPING_LEN_MAX: usize = 1 << 19;
/// The only version of the format.
const VERSION: u32 = 4;

/// What labels of one domain become in another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    version: u32,
    rules: Rules,
}

/// What a mapping does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Whose labels come in.
    pub from: Domain,
    /// Whose labels go out.
    pub to: Domain,
    /// Larger than that of every mapping between the two that it takes the place of. Its maker counts, or takes
    /// the time.
    pub sequence: u64,
    /// Ascending and apart; subjects that none names do not pass.
    pub scopes: Vec<Scope>,
    /// Bitmap of the compartments that are taken away.
    pub drop_compartments: u16,
    /// Higher levels are lowered to this one, 0 to 15.
    pub level_max: u8,
    /// Bitmap of the constraints that are added.
    pub add_constraints: u16,
    /// Bitmap of the constraints of the one domain that may be dropped.
    pub drop_constraints: u16,
    /// Last second in which it holds, Unix time.
    pub not_after: u64,
    /// Grants of the domain that the labels go into, which took them back: gateways refuse labels of that
    /// domain under these. They stay taken back when the mapping has ended.
    pub revoked: Revocations,
    /// All labels of that domain bear a grant: gateways refuse those that bear none.
    pub granted: bool,
}

/// Subjects that become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// First subject of the domain whose labels come in.
    pub first: u32,
    /// Last one.
    pub last: u32,
    /// The subject that they become.
    pub subject: u32,
}

/// Why a mapping is none, or does not hold.
#[derive(Debug, Error)]
pub enum MappingError {
    /// Not signed by those who may.
    #[error("the mapping: {0}")]
    Envelope(#[from] EnvelopeError),
    /// Signed, but no mapping in canonical form.
    #[error("no mapping: {0}")]
    Form(#[from] FormError),
    /// Another version.
    #[error("the mapping is of version {0}; take the govc that its signer uses")]
    Version(u32),
    /// Into another domain.
    #[error("the mapping is into domain {found}, the root is that of {wanted}; use that one's")]
    Domain {
        /// The mapping's.
        found: Domain,
        /// The root's.
        wanted: Domain,
    },
    /// Scopes overlap, descend, are empty or too many.
    #[error(
        "the scope from subject {0} is empty, too much or not behind the one before it; let at most \
         {INTERVALS_MAX} scopes ascend without a common subject"
    )]
    Scopes(u32),
    /// Values beyond what labels carry.
    #[error(transparent)]
    NoSuch(#[from] NoSuch),
    /// Over.
    #[error("the mapping ended with second {not_after}, it is {now}; ask for a new one")]
    Expired {
        /// Its last second.
        not_after: u64,
        /// The present one.
        now: u64,
    },
    /// Older than what is known.
    #[error(
        "the mapping has sequence {found}, and the one that is here has {held}; ask for the newest, or have one \
         signed with a larger sequence"
    )]
    Older {
        /// The mapping's.
        found: u64,
        /// Of the one that it would take the place of.
        held: u64,
    },
    /// Two mappings of one sequence.
    #[error(
        "another mapping with sequence {0} is here; find out who signed two of them, and have the right one \
         signed with a larger sequence"
    )]
    Other(u64),
    /// Takes back less than what is known.
    #[error(
        "the mapping does not take grant {0} back, and the one that is here does; ask for the newest"
    )]
    Forgets(u32),
    /// Likewise.
    #[error(
        "the mapping lets labels without a grant pass, and the one that is here does not; ask for the \
         newest"
    )]
    Ungranted,
}

/// A label that a mapping takes and makes into one beyond the transit grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "subject {} of the one domain becomes subject {} of the other, and {}; narrow the mapping, or \
     ask for a wider transit grant", .came.subject, .goes.subject,
    .excess.tell("by the mapping", "by the transit grant")
)]
pub struct Widens {
    /// How it goes beyond.
    pub excess: Excess,
    /// The label that comes in.
    pub came: Stamp,
    /// What it becomes.
    pub goes: Stamp,
}

impl Mapping {
    /// A mapping by these rules.
    ///
    /// # Errors
    /// Scopes overlap, descend or are empty, or a value is beyond what labels carry.
    pub fn new(rules: Rules) -> Result<Self, MappingError> {
        let mapping = Self { version: VERSION, rules };
        mapping.checked()
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// What this label becomes; [`None`] when it does not pass.
    #[must_use]
    pub fn apply(&self, stamp: &Stamp) -> Option<Stamp> {
        let scopes = &self.rules.scopes;
        let at = scopes.partition_point(|scope| scope.last < stamp.subject);
        let scope = scopes.get(at).filter(|scope| scope.first <= stamp.subject)?;
        Some(Stamp {
            subject: scope.subject,
            level: stamp.level.min(self.rules.level_max),
            compartments: stamp.compartments & !self.rules.drop_compartments,
            constraints: stamp.constraints & !self.rules.drop_constraints
                | self.rules.add_constraints,
            ..*stamp
        })
    }

    /// What labels of these rights become: exactly the labels of the result.
    #[must_use]
    pub fn image(&self, source: &Rights) -> Rights {
        let becomes = |scope: &Scope| {
            let met = source.subjects.meet(&Intervals::span(scope.first, scope.last));
            (!met.is_empty()).then_some((scope.subject, scope.subject))
        };
        let subjects = Intervals::new(self.rules.scopes.iter().filter_map(becomes));
        Rights {
            // Not more intervals than scopes, which are few enough.
            subjects: subjects.unwrap_or_default(),
            level_max: source.level_max.min(self.rules.level_max),
            compartments: source.compartments & !self.rules.drop_compartments,
            constraints: source.constraints & !self.rules.drop_constraints
                | self.rules.add_constraints,
            not_after: self.rules.not_after,
            depth: 0,
            ..source.clone()
        }
    }

    /// Whether every label of `source` becomes one within the transit grant. `source` is what the
    /// other domain may send: [`Rights::all`], unless it is held to less.
    ///
    /// # Errors
    /// A label that does not, and what becomes of it.
    pub fn check(&self, source: &Rights, transit: &Rights) -> Result<(), Widens> {
        let image = self.image(source);
        let Some(excess) = image.excess(transit) else { return Ok(()) };
        // Without a label that passes there is nothing that could be too much.
        let Some(mut came) = self.example(source, excess) else { return Ok(()) };
        let first = |set: &Intervals| set.first().unwrap_or_default();
        came.residency = first(&source.residencies) as u8;
        came.route = first(&source.routes) as u8;
        came.operation = first(&source.operations) as u16;
        match excess {
            Excess::Level(level, _) => came.level = level,
            Excess::Compartment(bit) => came.compartments = 1 << bit,
            Excess::Residency(number) => came.residency = number as u8,
            Excess::Route(number) => came.route = number as u8,
            Excess::Operation(number) => came.operation = number as u16,
            Excess::Radius(radius, _) => came.radius = radius,
            Excess::Life(life, _) => came.life = life,
            // The subject was chosen for it; the least of the others shows the rest.
            Excess::Subject(_)
            | Excess::Constraint(_)
            | Excess::NotAfter(..)
            | Excess::Depth(..) => {}
        }
        self.apply(&came).map_or(Ok(()), |goes| Err(Widens { excess, came, goes }))
    }

    /// The least label of `source` that passes, with a subject that shows the excess.
    fn example(&self, source: &Rights, excess: Excess) -> Option<Stamp> {
        let sets = [&source.residencies, &source.routes, &source.operations];
        if sets.iter().any(|set| set.is_empty()) {
            return None;
        }
        let subject = self.rules.scopes.iter().find_map(|scope| {
            let wanted = !matches!(excess, Excess::Subject(subject) if subject != scope.subject);
            let met = source.subjects.meet(&Intervals::span(scope.first, scope.last));
            met.first().filter(|_| wanted)
        })?;
        Some(Stamp {
            subject,
            level: 0,
            compartments: 0,
            constraints: source.constraints,
            residency: 0,
            route: 0,
            operation: 0,
            radius: 0,
            life: 0,
        })
    }

    /// The mapping in an envelope, for the keys of the receiving domain to sign.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn unsigned(&self) -> Result<Envelope, MappingError> {
        let payload = form::write(self)?;
        if payload.len() > MAPPING_LEN_MAX {
            return Err(FormError::TooLong { len: payload.len(), max: MAPPING_LEN_MAX }.into());
        }
        Ok(Envelope::unsigned(PAYLOAD_TYPE, payload))
    }

    /// What a mapping says, whoever signed it.
    ///
    /// # Errors
    /// The envelope holds no mapping.
    pub fn unverified(envelope: &Envelope) -> Result<Self, MappingError> {
        form::read::<Self>(envelope.unverified_payload(), MAPPING_LEN_MAX)?.checked()
    }

    /// The mapping in an envelope, if the root of the domain that it leads into signed it and it
    /// holds at Unix time `now`.
    ///
    /// # Errors
    /// Not signed by enough keys, no mapping, into another domain, or over.
    pub fn verify(envelope: &Envelope, root: &Root, now: u64) -> Result<Self, MappingError> {
        let mapping = Self::signed(envelope, root)?;
        let not_after = mapping.rules.not_after;
        if now > not_after { Err(MappingError::Expired { not_after, now }) } else { Ok(mapping) }
    }

    /// As [`Self::verify`], whether it is over or not: what was taken back stays so.
    ///
    /// # Errors
    /// Not signed by enough keys, no mapping, or into another domain.
    pub fn signed(envelope: &Envelope, root: &Root) -> Result<Self, MappingError> {
        let (payload, _) = envelope.verify(PAYLOAD_TYPE, &root.signers)?;
        let mapping = form::read::<Self>(payload, MAPPING_LEN_MAX)?.checked()?;
        if mapping.rules.to != root.domain {
            let (found, wanted) = (mapping.rules.to, root.domain.clone());
            return Err(MappingError::Domain { found, wanted });
        }
        Ok(mapping)
    }

    /// Whether it may take the place of an earlier one: it is that one or a later one, takes back whatever that one
    /// did and asks for grants where that one did. Nobody brings revoked grants or a wider mapping back with an old
    /// file, whoever has kept it.
    ///
    /// # Errors
    /// It asks for no grants any more, the first grant that it does not take back, or it is older or another of the
    /// same sequence.
    pub fn check_follows(&self, before: &Self) -> Result<(), MappingError> {
        if before.rules.granted && !self.rules.granted {
            return Err(MappingError::Ungranted);
        }
        let serials = before.rules.revoked.serials().iter();
        // Labels have no serials beyond these.
        let serials = serials.flat_map(|(first, last)| first..=last.min(u16::MAX.into()));
        let mut forgotten =
            serials.filter(|serial| !self.rules.revoked.serials().contains(*serial));
        if let Some(serial) = forgotten.next() {
            return Err(MappingError::Forgets(serial));
        }
        match (self.rules.sequence, before.rules.sequence) {
            (found, held) if found < held => Err(MappingError::Older { found, held }),
            (found, held) if found == held && self != before => Err(MappingError::Other(found)),
            _ => Ok(()),
        }
    }

    fn checked(self) -> Result<Self, MappingError> {
        if self.version != VERSION {
            return Err(MappingError::Version(self.version));
        }
        let Rules { scopes, level_max, .. } = &self.rules;
        let mut free = 0;
        for (scope, count) in scopes.iter().zip(1..) {
            if scope.first < free || scope.first > scope.last || count > INTERVALS_MAX {
                return Err(MappingError::Scopes(scope.first));
            }
            let ends = [(scope.last, scope.last), (scope.subject, scope.subject)];
            let subjects = Intervals::new(ends).unwrap_or_default();
            Rights { subjects, ..Rights::all() }.check()?;
            free = scope.last.saturating_add(1);
        }
        Rights { level_max: *level_max, ..Rights::all() }.check()?;
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        lattice::covers,
        testing::{acme, key, root, stamps, wide},
    };

    fn partner() -> Domain {
        Domain { name: "partner".into(), number: 9 }
    }

    fn rules(scopes: &[(u32, u32, u32)]) -> Rules {
        Rules {
            from: partner(),
            to: acme(),
            sequence: 5,
            scopes: scopes
                .iter()
                .map(|&(first, last, subject)| Scope { first, last, subject })
                .collect(),
            drop_compartments: u16::MAX,
            level_max: 0,
            add_constraints: 0b1,
            drop_constraints: 0,
            not_after: 2000,
            revoked: Revocations::default(),
            granted: false,
        }
    }

    fn mapping() -> Mapping {
        Mapping::new(rules(&[(1, 64, 300), (70, 99, 301)])).unwrap()
    }

    /// What the gateway may write.
    fn transit() -> Rights {
        Rights {
            subjects: Intervals::span(300, 301),
            level_max: 0,
            compartments: 0,
            constraints: 0b1,
            not_after: 2000,
            ..Rights::all()
        }
    }

    /// A change here makes every mapping of before unreadable: count the version up.
    #[test]
    fn the_form_of_a_mapping_is_fixed() {
        let text = r#"{"version":4,"rules":{"from":{"name":"partner","number":9},"to":{"name":"acme","number":7},"sequence":5,"scopes":[{"first":1,"last":64,"subject":300},{"first":70,"last":99,"subject":301}],"drop_compartments":65535,"level_max":0,"add_constraints":1,"drop_constraints":0,"not_after":2000,"revoked":{"serials":[]},"granted":false}}"#;
        assert_eq!(form::write(&mapping()).unwrap(), text.as_bytes());
    }

    #[test]
    fn a_label_is_narrowed() {
        let came = Stamp {
            subject: 64,
            level: 3,
            compartments: 0b11,
            constraints: 0b10,
            residency: 1,
            route: 2,
            operation: 3,
            radius: 1,
            life: 2,
        };
        let goes = Stamp { subject: 300, level: 0, compartments: 0, constraints: 0b11, ..came };
        assert_eq!(mapping().apply(&came), Some(goes));
        for (subject, becomes) in
            [(0, None), (1, Some(300)), (65, None), (70, Some(301)), (100, None)]
        {
            let goes = mapping().apply(&Stamp { subject, ..came });
            assert_eq!(goes.map(|goes| goes.subject), becomes);
        }
    }

    #[test]
    fn what_exceeds_the_transit_grant_is_shown() {
        let all = Rights::all();
        assert_eq!(mapping().check(&all, &transit()), Ok(()));
        let told = |change: fn(&mut Rules)| {
            let mut rules = rules(&[(1, 64, 300), (70, 99, 301)]);
            change(&mut rules);
            let widens = Mapping::new(rules).unwrap().check(&all, &transit()).unwrap_err();
            (widens.excess, widens.to_string())
        };
        let (excess, text) = told(|rules| rules.scopes[1].subject = 5);
        assert_eq!(excess, Excess::Subject(5));
        assert_eq!(
            text,
            "subject 70 of the one domain becomes subject 5 of the other, and subject 5 may be \
             stamped by the mapping but not by the transit grant; narrow the mapping, or ask for a \
             wider transit grant"
        );
        assert_eq!(told(|rules| rules.level_max = 3).0, Excess::Level(3, 0));
        assert_eq!(told(|rules| rules.drop_compartments = 0xfff7).0, Excess::Compartment(3));
        assert_eq!(told(|rules| rules.add_constraints = 0b10).0, Excess::Constraint(0));
        assert_eq!(told(|rules| rules.not_after = 2001).0, Excess::NotAfter(2001, 2000));
        let narrow = Rights { operations: Intervals::span(1, 3), ..transit() };
        let widens = mapping().check(&all, &narrow).unwrap_err();
        assert_eq!((widens.excess, widens.goes.operation), (Excess::Operation(0), 0));
        // The other domain may be held to less than everything.
        assert_eq!(mapping().check(&narrow, &narrow), Ok(()), "no subject of it passes");
        let source = Rights { subjects: Intervals::span(1, 3), ..narrow.clone() };
        assert_eq!(mapping().check(&source, &narrow), Ok(()));
    }

    #[test]
    fn what_the_other_domain_insists_on_counts() {
        // The transit grant wants both constraints: one comes with the label, one is added.
        let transit = Rights { constraints: 0b11, ..transit() };
        let source = Rights { constraints: 0b10, ..Rights::all() };
        assert_eq!(mapping().check(&source, &transit), Ok(()));
        let widens = mapping().check(&Rights::all(), &transit).unwrap_err();
        assert_eq!((widens.excess, widens.goes.constraints), (Excess::Constraint(1), 0b01));
    }

    #[test]
    fn scopes_ascend() {
        for wrong in [
            &[(1, 64, 300), (64, 99, 301)][..],
            &[(70, 99, 301), (1, 64, 300)],
            &[(2, 1, 300)],
            &[(1, 1 << 24, 300)],
            &[(1, 1, 1 << 24)],
        ] {
            assert!(Mapping::new(rules(wrong)).is_err(), "{wrong:?}");
        }
        assert!(Mapping::new(rules(&[])).is_ok());
        assert!(Mapping::new(rules(&[(1, 64, 300), (65, 99, 300)])).is_ok());
        assert!(Mapping::new(Rules { level_max: 16, ..rules(&[]) }).is_err());
        let many: Vec<_> = (0..4097).map(|n| (n, n, 1)).collect();
        assert!(Mapping::new(rules(&many)).is_err());
    }

    fn signed(mapping: &Mapping) -> Envelope {
        let mut envelope = mapping.unsigned().unwrap();
        envelope.sign(&key(1)).unwrap();
        envelope.sign(&key(3)).unwrap();
        envelope
    }

    #[test]
    fn the_receiving_domain_signs() {
        let envelope = signed(&mapping());
        assert_eq!(Mapping::verify(&envelope, &root(), 2000).unwrap(), mapping());
        assert!(matches!(
            Mapping::verify(&envelope, &root(), 2001),
            Err(MappingError::Expired { .. })
        ));
        let other = Root { domain: partner(), ..root() };
        assert!(matches!(Mapping::verify(&envelope, &other, 0), Err(MappingError::Domain { .. })));
        let largest: Vec<_> = (0..4096_u32).map(|n| (n << 12, n << 12 | 0xfff, n)).collect();
        let largest = Mapping::new(rules(&largest)).unwrap();
        let bytes = signed(&largest).to_bytes().unwrap();
        assert!(Mapping::verify(&Envelope::read(&bytes).unwrap(), &root(), 0).is_ok());
    }

    #[test]
    fn what_was_taken_back_stays_so() {
        let with = |sequence: u64, serials: &[u16]| {
            let revoked = Revocations::new(serials.iter().copied()).unwrap();
            Mapping::new(Rules { sequence, revoked, ..rules(&[]) }).unwrap()
        };
        assert!(with(6, &[3, 9]).check_follows(&with(5, &[])).is_ok());
        assert!(with(6, &[3, 9]).check_follows(&with(5, &[9])).is_ok());
        let refused = with(6, &[9]).check_follows(&with(5, &[3, 9]));
        assert!(matches!(refused, Err(MappingError::Forgets(3))), "{refused:?}");
        let granted = |sequence: u64, granted: bool| {
            Mapping::new(Rules { sequence, granted, ..rules(&[]) }).unwrap()
        };
        assert!(granted(6, true).check_follows(&granted(5, false)).is_ok());
        assert!(granted(6, true).check_follows(&granted(5, true)).is_ok());
        let refused = granted(6, false).check_follows(&granted(5, true));
        assert!(matches!(refused, Err(MappingError::Ungranted)), "{refused:?}");
        let with = |serials: &[u16]| with(6, serials);
        // Its end is that of what may be translated.
        let envelope = signed(&with(&[3]));
        assert!(Mapping::verify(&envelope, &root(), 2001).is_err());
        assert!(Mapping::signed(&envelope, &root()).unwrap().rules().revoked.contains(3));
        let other = Root { domain: partner(), ..root() };
        assert!(Mapping::signed(&envelope, &other).is_err());
    }

    #[test]
    fn an_older_mapping_does_not_come_back() {
        let of = |sequence: u64, last: u32| {
            Mapping::new(Rules { sequence, ..rules(&[(1, last, 300)]) }).unwrap()
        };
        let (wide, narrow) = (of(5, 64), of(6, 8));
        narrow.check_follows(&wide).unwrap();
        narrow.check_follows(&narrow).unwrap();
        let refused = wide.check_follows(&narrow);
        assert!(matches!(refused, Err(MappingError::Older { found: 5, held: 6 })), "{refused:?}");
        let refused = of(6, 64).check_follows(&narrow);
        assert!(matches!(refused, Err(MappingError::Other(6))), "{refused:?}");
        of(7, 64).check_follows(&narrow).unwrap();
    }

    #[test]
    fn every_flipped_byte_is_refused() {
        let bytes = signed(
            &Mapping::new(Rules {
                revoked: Revocations::new([7]).unwrap(),
                ..mapping().rules().clone()
            })
            .unwrap(),
        )
        .to_bytes()
        .unwrap();
        for at in 0..bytes.len() {
            for flip in [1, 0x20, 0x80] {
                let mut wrong = bytes.clone();
                wrong[at] ^= flip;
                let taken = Envelope::read(&wrong)
                    .is_ok_and(|envelope| Mapping::verify(&envelope, &root(), 0).is_ok());
                assert!(!taken, "byte {at} ^ {flip}");
            }
        }
    }

    /// Mappings over the subjects that [`wide`] knows.
    fn mappings() -> impl Strategy<Value = Mapping> {
        let scopes = prop::collection::vec((0_u32..4, 0_u32..3, 0_u32..12), 0..4);
        (scopes, 0_u16..4, 0_u8..3, (0_u16..4, 0_u16..4), 0_u64..3).prop_map(
            |(scopes, drop_compartments, level_max, constraints, not_after)| {
                let (add_constraints, drop_constraints) = constraints;
                let mut free = 0;
                let scopes = scopes.into_iter().map(|(gap, more, subject)| {
                    let first = free + gap;
                    free = first + more + 1;
                    Scope { first, last: first + more, subject }
                });
                let scopes = scopes.collect();
                Mapping::new(Rules {
                    scopes,
                    drop_compartments,
                    level_max,
                    add_constraints,
                    drop_constraints,
                    not_after,
                    ..rules(&[])
                })
                .unwrap()
            },
        )
    }

    proptest! {
        #[test]
        fn no_mapping_widens(
            mapping in mappings(), source in wide(), transit in wide(),
            labels in prop::collection::vec(stamps(), 16),
        ) {
            let checked = mapping.check(&source, &transit);
            let labels = labels.iter().filter(|label| covers(&source, label).is_ok());
            for (label, goes) in labels.filter_map(|label| Some((label, mapping.apply(label)?))) {
                prop_assert!(goes.level <= label.level);
                prop_assert_eq!(goes.compartments & !label.compartments, 0);
                let kept = !mapping.rules().drop_constraints;
                prop_assert_eq!(label.constraints & kept & !goes.constraints, 0);
                prop_assert_eq!(covers(&mapping.image(&source), &goes), Ok(()));
                prop_assert!(checked.is_err() || covers(&transit, &goes).is_ok());
            }
        }

        #[test]
        fn a_counterexample_is_one(mapping in mappings(), source in wide(), transit in wide()) {
            if let Err(Widens { excess, came, goes }) = mapping.check(&source, &transit) {
                prop_assert_eq!(covers(&source, &came), Ok(()));
                prop_assert_eq!(mapping.apply(&came), Some(goes));
                let time = matches!(excess, Excess::NotAfter(..) | Excess::Depth(..));
                prop_assert!(time || covers(&transit, &goes).is_err());
            }
        }

        #[test]
        fn less_in_is_less_out(mapping in mappings(), a in wide(), b in wide()) {
            let both = a.meet(&b);
            prop_assert!(mapping.image(&both).leq(&mapping.image(&a)));
        }
    }
}
