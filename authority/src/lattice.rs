//! Rights, and how they compare: the lattice that grants, stamp rules and mappings are held to.
//!
//! Every attribute is a partial order of its own; rights are their product. `a ≤ b` means that
//! whatever `a` allows, `b` allows: sets are contained, limits are at most as large, and the
//! constraints that `a` insists on are at least those of `b`. [`Rights::meet`] is the most that
//! both allow.

use std::fmt;

use govc_abi::{
    label::radius,
    limits::{
        COMPARTMENTS_MAX, LEVELS_MAX, OPERATIONS_MAX, RESIDENCIES_MAX, ROUTES_MAX, SUBJECTS_MAX,
    },
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::intervals::Intervals;

/// Blocks that may follow the first one of a grant.
pub const DEPTH_MAX: u8 = 15;
/// Largest life of a label, as a power of two of slots: 4 bits.
pub const LIFE_MAX: u8 = 15;

/// What labels somebody may stamp in one domain, how long, and how often it may be handed on.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rights {
    /// Sending workloads, 24 bits each.
    pub subjects: Intervals,
    /// Highest trust level, 0 to 15.
    pub level_max: u8,
    /// Bitmap of the compartments that may be set.
    pub compartments: u16,
    /// Bitmap of the constraints that have to be set.
    pub constraints: u16,
    /// Residency sets, 8 bits each; 0 stands for labels that name none.
    pub residencies: Intervals,
    /// Route classes, 8 bits each; 0 stands for labels that name none.
    pub routes: Intervals,
    /// Operations, 16 bits each; 0 stands for labels that name none.
    pub operations: Intervals,
    /// Farthest that a packet may travel, one of [`govc_abi::label::radius`].
    pub radius_max: u8,
    /// Longest life, as a power of two of slots, 0 to 15.
    pub life_max: u8,
    /// Last second in which labels may be stamped, Unix time.
    pub not_after: u64,
    /// How many more blocks may follow in a grant, 0 to 15.
    pub depth: u8,
}

/// The label that a stamp rule asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The sending workload, 24 bits.
    pub subject: u32,
    /// Trust level, 0 to 15.
    pub level: u8,
    /// Bitmap.
    pub compartments: u16,
    /// Bitmap.
    pub constraints: u16,
    /// Index, 0 for none.
    pub residency: u8,
    /// Index, 0 for none.
    pub route: u8,
    /// Number, 0 for none.
    pub operation: u16,
    /// One of [`govc_abi::label::radius`].
    pub radius: u8,
    /// Good for 2^life slots, 0 to 15.
    pub life: u8,
}

/// One value by which rights go beyond others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Excess {
    /// This subject.
    Subject(u32),
    /// This level, and the highest that there may be.
    Level(u8, u8),
    /// The compartment of this bit.
    Compartment(u8),
    /// Labels without the constraint of this bit.
    Constraint(u8),
    /// This residency set.
    Residency(u32),
    /// This route class.
    Route(u32),
    /// This operation.
    Operation(u32),
    /// This radius, and the farthest that there may be.
    Radius(u8, u8),
    /// This life, and the longest that there may be.
    Life(u8, u8),
    /// This second, and the last that there may be.
    NotAfter(u64, u64),
    /// This many blocks, and the most that there may be.
    Depth(u8, u8),
}

/// The first attribute in which a child allows more than its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{}; take that away, or ask for a wider grant", .0.tell("by the child", "by the parent"))]
pub struct Widening(pub Excess);

/// The first attribute in which a stamp lies outside of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{}; change the stamp rule, or ask for a wider grant", .0.tell("by the rule", "by the grant"))]
pub struct Outside(pub Excess);

/// An attribute beyond what labels can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{attribute} {value} does not exist, the largest is {max}; grant less")]
pub struct NoSuch {
    /// Which.
    pub attribute: &'static str,
    /// The value.
    pub value: u64,
    /// The largest that there is.
    pub max: u64,
}

impl Rights {
    /// All labels for ever, handed on as often as possible: the largest element.
    #[must_use]
    pub fn all() -> Self {
        Self {
            subjects: Intervals::span(0, SUBJECTS_MAX - 1),
            level_max: LEVELS_MAX as u8 - 1,
            compartments: u16::MAX,
            constraints: 0,
            residencies: Intervals::span(0, RESIDENCIES_MAX as u32),
            routes: Intervals::span(0, ROUTES_MAX as u32),
            operations: Intervals::span(0, OPERATIONS_MAX as u32),
            radius_max: radius::ANY,
            life_max: LIFE_MAX,
            not_after: u64::MAX,
            depth: DEPTH_MAX,
        }
    }

    /// The rights that hold this label and no other, for ever: stamps compare like rights.
    #[must_use]
    pub fn only(stamp: &Stamp) -> Self {
        let one = |number: u32| Intervals::span(number, number);
        Self {
            subjects: one(stamp.subject),
            level_max: stamp.level,
            compartments: stamp.compartments,
            constraints: stamp.constraints,
            residencies: one(stamp.residency.into()),
            routes: one(stamp.route.into()),
            operations: one(stamp.operation.into()),
            radius_max: stamp.radius,
            life_max: stamp.life,
            not_after: 0,
            depth: 0,
        }
    }

    /// The most that both allow.
    #[must_use]
    pub fn meet(&self, other: &Self) -> Self {
        Self {
            subjects: self.subjects.meet(&other.subjects),
            level_max: self.level_max.min(other.level_max),
            compartments: self.compartments & other.compartments,
            constraints: self.constraints | other.constraints,
            residencies: self.residencies.meet(&other.residencies),
            routes: self.routes.meet(&other.routes),
            operations: self.operations.meet(&other.operations),
            radius_max: self.radius_max.min(other.radius_max),
            life_max: self.life_max.min(other.life_max),
            not_after: self.not_after.min(other.not_after),
            depth: self.depth.min(other.depth),
        }
    }

    /// Whether `outer` allows everything that these rights allow.
    #[must_use]
    pub fn leq(&self, outer: &Self) -> bool {
        self.excess(outer).is_none()
    }

    /// The first value, in the order of the fields, by which these rights go beyond `outer`.
    #[must_use]
    pub fn excess(&self, outer: &Self) -> Option<Excess> {
        let beyond = |inner: u8, outer: u8, excess: fn(u8, u8) -> Excess| {
            (inner > outer).then(|| excess(inner, outer))
        };
        let outside = |inner: &Intervals, outer: &Intervals, excess: fn(u32) -> Excess| {
            inner.first_outside(outer).map(excess)
        };
        let bit = |bits: u16, excess: fn(u8) -> Excess| {
            (bits != 0).then(|| excess(bits.trailing_zeros() as u8))
        };
        outside(&self.subjects, &outer.subjects, Excess::Subject)
            .or_else(|| beyond(self.level_max, outer.level_max, Excess::Level))
            .or_else(|| bit(self.compartments & !outer.compartments, Excess::Compartment))
            .or_else(|| bit(outer.constraints & !self.constraints, Excess::Constraint))
            .or_else(|| outside(&self.residencies, &outer.residencies, Excess::Residency))
            .or_else(|| outside(&self.routes, &outer.routes, Excess::Route))
            .or_else(|| outside(&self.operations, &outer.operations, Excess::Operation))
            .or_else(|| beyond(self.radius_max, outer.radius_max, Excess::Radius))
            .or_else(|| beyond(self.life_max, outer.life_max, Excess::Life))
            .or_else(|| {
                let later = self.not_after > outer.not_after;
                later.then_some(Excess::NotAfter(self.not_after, outer.not_after))
            })
            .or_else(|| beyond(self.depth, outer.depth, Excess::Depth))
    }

    /// Whether every attribute is one that labels can carry.
    ///
    /// # Errors
    /// The first that is not.
    pub fn check(&self) -> Result<(), NoSuch> {
        let all = Self::all();
        let at_most = |attribute, value: u64, max: u64| {
            if value <= max { Ok(()) } else { Err(NoSuch { attribute, value, max }) }
        };
        for (attribute, set, full) in [
            ("subject", &self.subjects, &all.subjects),
            ("residency set", &self.residencies, &all.residencies),
            ("route class", &self.routes, &all.routes),
            ("operation", &self.operations, &all.operations),
        ] {
            let last = |set: &Intervals| set.last().unwrap_or_default().into();
            at_most(attribute, last(set), last(full))?;
        }
        at_most("level", self.level_max.into(), all.level_max.into())?;
        at_most("radius", self.radius_max.into(), all.radius_max.into())?;
        at_most("life", self.life_max.into(), all.life_max.into())?;
        at_most("depth", self.depth.into(), all.depth.into())
    }
}

/// Whether a child's rights lie within its parent's.
///
/// # Errors
/// The first attribute that widens, with a value that the child allows and the parent does not.
pub fn narrows(parent: &Rights, child: &Rights) -> Result<(), Widening> {
    child.excess(parent).map_or(Ok(()), |excess| Err(Widening(excess)))
}

/// Whether somebody with these rights may stamp this label.
///
/// # Errors
/// The first attribute that lies outside.
pub fn covers(rights: &Rights, stamp: &Stamp) -> Result<(), Outside> {
    Rights::only(stamp).excess(rights).map_or(Ok(()), |excess| Err(Outside(excess)))
}

impl Excess {
    /// In words; `inner` and `outer` say whose rights are compared: `by the child`.
    #[must_use]
    pub fn tell(self, inner: &str, outer: &str) -> String {
        let may =
            |what: fmt::Arguments<'_>| format!("{what} may be stamped {inner} but not {outer}");
        let limit = |what: &str, value: u64, max: u64| {
            format!("{what} {value} is allowed {inner}, {max} is the most that is allowed {outer}")
        };
        match self {
            Self::Subject(number) => may(format_args!("subject {number}")),
            Self::Level(level, max) => limit("level", level.into(), max.into()),
            Self::Compartment(bit) => may(format_args!("compartment bit {bit}")),
            Self::Constraint(bit) => may(format_args!("a label without constraint bit {bit}")),
            Self::Residency(0) => may(format_args!("a label without a residency set")),
            Self::Residency(number) => may(format_args!("residency set {number}")),
            Self::Route(0) => may(format_args!("a label without a route class")),
            Self::Route(number) => may(format_args!("route class {number}")),
            Self::Operation(0) => may(format_args!("a label without an operation")),
            Self::Operation(number) => may(format_args!("operation {number}")),
            Self::Radius(radius, max) => limit("radius", radius.into(), max.into()),
            Self::Life(life, max) => limit("life", life.into(), max.into()),
            Self::NotAfter(second, max) => limit("stamping until second", second, max),
            Self::Depth(depth, max) => limit("a depth of", depth.into(), max.into()),
        }
    }
}

const _: () = assert!(COMPARTMENTS_MAX == u16::BITS as usize);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{narrow, stamps, wide};

    #[test]
    fn a_widening_names_its_first_value() {
        let parent = Rights {
            subjects: Intervals::new([(10, 19), (30, 39)]).unwrap(),
            level_max: 3,
            compartments: 0b110,
            constraints: 0b1,
            residencies: Intervals::span(1, 2),
            routes: Intervals::span(0, 3),
            operations: Intervals::span(5, 9),
            radius_max: radius::DOMAIN,
            life_max: 2,
            not_after: 1000,
            depth: 1,
        };
        let told = |change: fn(&mut Rights)| {
            let mut child = parent.clone();
            change(&mut child);
            narrows(&parent, &child).map_err(|widening| widening.to_string())
        };
        assert_eq!(told(|_| {}), Ok(()));
        assert_eq!(told(|child| child.subjects = Intervals::span(12, 14)), Ok(()));
        assert_eq!(told(|child| child.constraints = 0b11), Ok(()));
        for (change, start) in [
            (
                (|child| child.subjects = Intervals::span(15, 77)) as fn(&mut Rights),
                "subject 20 may be stamped by the child but not by the parent; ",
            ),
            (
                |child| child.level_max = 4,
                "level 4 is allowed by the child, 3 is the most that is allowed by the parent; ",
            ),
            (|child| child.compartments = 0b1010, "compartment bit 3 may be stamped by the child"),
            (|child| child.constraints = 0b10, "a label without constraint bit 0 may be stamped"),
            (|child| child.residencies = Intervals::span(0, 1), "a label without a residency set"),
            (|child| child.routes = Intervals::span(0, 255), "route class 4 may be stamped"),
            (|child| child.operations = Intervals::span(9, 10), "operation 10 may be stamped"),
            (|child| child.radius_max = 4, "radius 4 is allowed by the child, 2 is the most"),
            (|child| child.life_max = 15, "life 15 is allowed by the child, 2 is the most"),
            (|child| child.not_after = 1001, "stamping until second 1001 is allowed by the child"),
            (|child| child.depth = 2, "a depth of 2 is allowed by the child, 1 is the most"),
        ] {
            let text = told(change).unwrap_err();
            assert!(text.starts_with(start), "{text}");
        }
    }

    #[test]
    fn rights_are_numbers_that_exist() {
        assert_eq!(Rights::all().check(), Ok(()));
        for change in [
            (|rights| rights.subjects = Intervals::span(0, 1 << 24)) as fn(&mut Rights),
            |rights| rights.level_max = 16,
            |rights| rights.residencies = Intervals::span(256, 256),
            |rights| rights.routes = Intervals::span(0, 256),
            |rights| rights.operations = Intervals::span(0, 65_536),
            |rights| rights.radius_max = 5,
            |rights| rights.life_max = 16,
            |rights| rights.depth = 16,
        ] {
            let mut rights = Rights::all();
            change(&mut rights);
            assert!(rights.check().is_err(), "{rights:?}");
        }
    }

    proptest! {
        #[test]
        fn leq_is_a_partial_order(a in wide(), b in wide(), c in wide()) {
            prop_assert!(a.leq(&a));
            prop_assert!(!(a.leq(&b) && b.leq(&a)) || a == b);
            prop_assert!(!(a.leq(&b) && b.leq(&c)) || a.leq(&c));
            prop_assert!(a.leq(&Rights::all()));
        }

        #[test]
        fn meet_is_the_most_that_both_allow(a in wide(), b in wide(), c in wide()) {
            let both = a.meet(&b);
            prop_assert!(both.leq(&a) && both.leq(&b));
            prop_assert_eq!(&both, &b.meet(&a));
            prop_assert_eq!(&a.meet(&a), &a);
            prop_assert_eq!(both.meet(&c), a.meet(&b.meet(&c)));
            prop_assert_eq!(a.leq(&b), both == a);
            prop_assert!(!(c.leq(&a) && c.leq(&b)) || c.leq(&both));
        }

        #[test]
        fn narrowed_rights_are_less((parent, child) in wide().prop_flat_map(|parent| {
            narrow(parent.clone()).prop_map(move |child| (parent.clone(), child))
        })) {
            prop_assert_eq!(narrows(&parent, &child), Ok(()));
        }

        #[test]
        fn what_the_smaller_covers_the_larger_covers(a in wide(), b in wide(), stamp in stamps()) {
            let (in_a, in_b) = (covers(&a, &stamp).is_ok(), covers(&b, &stamp).is_ok());
            prop_assert_eq!(covers(&a.meet(&b), &stamp).is_ok(), in_a && in_b);
            prop_assert!(!(a.leq(&b) && in_a) || in_b);
        }

        #[test]
        fn a_counterexample_is_one(parent in wide(), child in wide(), stamp in stamps()) {
            // A stamp of the child, changed to have the value by which the child widens.
            let Err(Widening(excess)) = narrows(&parent, &child) else { return Ok(()) };
            let first = |set: &Intervals| set.first();
            let (Some(subject), Some(residency), Some(route), Some(operation)) = (
                first(&child.subjects), first(&child.residencies),
                first(&child.routes), first(&child.operations),
            ) else { return Ok(()) };
            let mut stamp = Stamp {
                subject,
                residency: residency as u8,
                route: route as u8,
                operation: operation as u16,
                level: stamp.level.min(child.level_max),
                compartments: stamp.compartments & child.compartments,
                constraints: stamp.constraints | child.constraints,
                radius: stamp.radius.min(child.radius_max),
                life: stamp.life.min(child.life_max),
            };
            match excess {
                Excess::Subject(number) => stamp.subject = number,
                Excess::Level(level, _) => stamp.level = level,
                Excess::Compartment(bit) => stamp.compartments |= 1 << bit,
                Excess::Constraint(bit) => stamp.constraints = child.constraints & !(1 << bit),
                Excess::Residency(number) => stamp.residency = number as u8,
                Excess::Route(number) => stamp.route = number as u8,
                Excess::Operation(number) => stamp.operation = number as u16,
                Excess::Radius(radius, _) => stamp.radius = radius,
                Excess::Life(life, _) => stamp.life = life,
                Excess::NotAfter(..) | Excess::Depth(..) => return Ok(()),
            }
            prop_assert_eq!(covers(&child, &stamp), Ok(()));
            prop_assert!(covers(&parent, &stamp).is_err());
        }
    }
}
