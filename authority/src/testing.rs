//! What the tests of several modules make.

use govc_abi::{ABI_VERSION, image as layout};
use govc_image::{Image, Names};
use proptest::prelude::*;

use crate::{
    Domain,
    bundle::{Bundle, Contents, Terms, Vocabulary},
    digest::Digest,
    intervals::Intervals,
    key::SigningKey,
    lattice::{Rights, Stamp},
    revocations::Revocations,
    signers::SignerSet,
    trust::{Root, Trust},
};

/// The key of a seed.
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// `threshold` of the keys of these seeds.
pub fn set(seeds: &[u8], threshold: usize) -> SignerSet {
    SignerSet::new(seeds.iter().map(|seed| key(*seed).public()), threshold).unwrap()
}

/// Domain 7.
pub fn acme() -> Domain {
    Domain { name: "acme".into(), number: 7 }
}

/// The root of domain 7: 2 of the keys 1 to 3.
pub fn root() -> Root {
    Root { domain: acme(), signers: set(&[1, 2, 3], 2) }
}

/// A node that took nothing yet.
pub fn new_node() -> Trust {
    Trust::new(root())
}

/// The smallest image: a header, one rule, names.
pub fn image() -> Image {
    let names = Names { policy_name: "test".into(), ..Names::default() };
    let section = names.encode().unwrap();
    let mut words = vec![0_u32; layout::HEADER_WORDS + 1];
    words[layout::AT_MAGIC as usize] = layout::MAGIC;
    words[layout::AT_ABI_VERSION as usize] = ABI_VERSION;
    words[layout::AT_RULE_COUNT as usize] = 1;
    words[layout::AT_RULES as usize] = layout::HEADER_WORDS as u32;
    words[layout::HEADER_WORDS] = layout::rule::PERMIT;
    words[layout::AT_NAMES as usize] = words.len() as u32;
    words[layout::AT_NAMES_LEN as usize] = section.len() as u32;
    words[layout::AT_WORDS as usize] = (words.len() + section.len().div_ceil(4)) as u32;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(&section);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Image::seal(bytes, names).unwrap()
}

/// Good from second 1000 to 2000; 2 of the keys 1 to 3 sign the next one.
pub fn terms(generation: u64, previous: Option<Digest>) -> Terms {
    Terms {
        domain: acme(),
        generation,
        previous,
        not_before: 1000,
        not_after: 2000,
        next: set(&[1, 2, 3], 2),
    }
}

/// A bundle on these terms, signed by the keys of these seeds.
pub fn bundle(terms: Terms, seeds: &[u8]) -> Bundle {
    let vocabulary = Vocabulary { locks: [("acme.vocabulary".into(), Digest::of(b"lock"))].into() };
    let contents = Contents {
        image: &image(),
        vocabulary: &vocabulary,
        revocations: &Revocations::new([3, 4, 500]).unwrap(),
    };
    let mut bundle = Bundle::draft(&contents, terms).unwrap();
    for seed in seeds {
        bundle.sign(&key(*seed)).unwrap();
    }
    bundle
}

/// The digest that the next bundle names.
pub fn digest(bundle: &Bundle) -> Digest {
    bundle.unverified_manifest().unwrap().digest().unwrap()
}

/// Sets of numbers below `end`, few enough that two of them often compare.
fn sets(end: u32) -> impl Strategy<Value = Intervals> {
    prop::collection::vec((0..end, 0..end), 0..3).prop_map(move |spans| {
        let spans = spans.into_iter().map(|(first, more)| (first, (first + more).min(end - 1)));
        Intervals::new(spans).unwrap()
    })
}

/// Any rights, of few values for each attribute.
pub fn wide() -> impl Strategy<Value = Rights> {
    let sets = (sets(12), sets(3), sets(3), sets(5));
    let limits = (0_u8..3, 0_u8..3, 0_u8..3, 0_u64..3, 0_u8..4);
    (sets, limits, 0_u16..4, 0_u16..4).prop_map(|(sets, limits, compartments, constraints)| {
        let (subjects, residencies, routes, operations) = sets;
        let (level_max, radius_max, life_max, not_after, depth) = limits;
        Rights {
            subjects,
            level_max,
            compartments,
            constraints,
            residencies,
            routes,
            operations,
            radius_max,
            life_max,
            not_after,
            depth,
        }
    })
}

/// Rights that lie within these.
pub fn narrow(parent: Rights) -> impl Strategy<Value = Rights> {
    wide().prop_map(move |other| parent.meet(&other))
}

/// Labels with the values that [`wide`] knows.
pub fn stamps() -> impl Strategy<Value = Stamp> {
    let numbers = (0_u32..12, 0_u8..3, 0_u8..3, 0_u16..5);
    (numbers, (0_u8..3, 0_u8..3, 0_u8..3), 0_u16..4, 0_u16..4).prop_map(
        |((subject, residency, route, operation), (level, radius, life), bits, more)| Stamp {
            subject,
            level,
            compartments: bits,
            constraints: more,
            residency,
            route,
            operation,
            radius,
            life,
        },
    )
}
