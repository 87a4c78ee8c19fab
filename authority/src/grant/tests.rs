use proptest::prelude::*;

use super::*;
use crate::{
    lattice::Excess,
    testing::{acme, key, narrow, root, set, wide},
};

const NOW: u64 = 1500;

fn none() -> Revocations {
    Revocations::default()
}

/// To the key of a seed: subjects 1 to `last`, and serials behind `serial`.
fn terms(seed: u8, last: u32, depth: u8, serial: u16) -> Terms {
    Terms {
        serial,
        serials: Intervals::span(u32::from(serial) + 1, 100),
        rights: Rights {
            subjects: Intervals::span(1, last),
            not_after: 2000,
            depth,
            ..Rights::all()
        },
        holder: key(seed).public(),
    }
}

/// From the root to key 10, signed by the keys 1 and 2 of the root.
fn first() -> Grant {
    let mut grant = Grant::draft(acme(), terms(10, 100, 2, 1)).unwrap();
    grant.sign(&key(1)).unwrap();
    grant.sign(&key(2)).unwrap();
    grant
}

/// From the root by way of key 10 and key 11 to node 12.
fn chain() -> Grant {
    let second = first().hand_on(terms(11, 50, 1, 2), &key(10)).unwrap();
    second.hand_on(terms(12, 7, 0, 3), &key(11)).unwrap()
}

/// A chain of blocks that nobody checked before they were signed.
fn forged(blocks: &[(Terms, u8)]) -> Grant {
    let mut grant = Grant { blocks: Vec::new() };
    for (terms, seed) in blocks {
        let previous = grant.blocks.last().map(|last| Digest::of(last.unverified_payload()));
        let block = Block { version: VERSION, domain: acme(), previous, terms: terms.clone() };
        let mut envelope = block.unsigned().unwrap();
        envelope.sign(&key(*seed)).unwrap();
        if grant.blocks.is_empty() {
            envelope.sign(&key(2)).unwrap();
        }
        grant.blocks.push(envelope);
    }
    grant
}

fn refused(grant: &Grant) -> GrantError {
    grant.verify(&root(), &none(), NOW).unwrap_err()
}

#[test]
fn a_chain_comes_back_and_holds() {
    let grant = chain();
    let bytes = grant.to_bytes().unwrap();
    assert_eq!(Grant::read(&bytes).unwrap(), grant);
    let verified = grant.verify(&root(), &none(), NOW).unwrap();
    assert_eq!(verified.rights().subjects, Intervals::span(1, 7));
    assert_eq!((verified.serial(), verified.links().len()), (3, 3));
    assert!(verified.check_holder(&key(12).public()).is_ok());
    assert!(matches!(verified.check_holder(&key(11).public()), Err(GrantError::Holder { .. })));
    assert_eq!(grant.unverified_blocks().unwrap()[2].terms(), &verified.links()[2]);
}

/// A change here makes every grant of before unreadable: count the version up.
#[test]
fn the_form_of_a_block_is_fixed() {
    let holder = key(1).public();
    let text = format!(
        r#"{{"version":1,"domain":{{"name":"acme","number":7}},"previous":null,"terms":{{"serial":1,"serials":[[2,9]],"rights":{{"subjects":[[64,127]],"level_max":2,"compartments":1,"constraints":2,"residencies":[[0,3]],"routes":[[0,0]],"operations":[[1,4],[9,9]],"radius_max":2,"life_max":4,"not_after":2000,"depth":1}},"holder":"{holder}"}}}}"#
    );
    assert_eq!(Block::read(text.as_bytes(), 1).unwrap().terms().rights.life_max, 4);
}

#[test]
fn every_flipped_byte_is_refused() {
    let grant = first().hand_on(terms(11, 50, 1, 2), &key(10)).unwrap();
    let bytes = grant.to_bytes().unwrap();
    for at in 0..bytes.len() {
        for flip in [1, 0x20, 0x80] {
            let mut wrong = bytes.clone();
            wrong[at] ^= flip;
            let taken =
                Grant::read(&wrong).is_ok_and(|grant| grant.verify(&root(), &none(), NOW).is_ok());
            assert!(!taken, "byte {at} ^ {flip}");
        }
    }
    for len in 0..bytes.len() {
        assert!(Grant::read(&bytes[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn the_root_grants_with_its_threshold() {
    let mut grant = Grant::draft(acme(), terms(10, 100, 2, 1)).unwrap();
    for (seed, good) in [(1, false), (1, false), (9, false), (3, true)] {
        grant.sign(&key(seed)).unwrap();
        assert_eq!(grant.verify(&root(), &none(), NOW).is_ok(), good);
    }
    assert!(matches!(chain().sign(&key(3)), Err(GrantError::HandedOn)));
    let other = Root { signers: set(&[7, 8, 9], 2), ..root() };
    assert!(matches!(
        chain().verify(&other, &none(), NOW),
        Err(GrantError::Envelope { block: 1, why: EnvelopeError::TooFew { good: 0, .. } })
    ));
    let other = Root { domain: Domain { number: 8, ..acme() }, ..root() };
    assert!(matches!(
        chain().verify(&other, &none(), NOW),
        Err(GrantError::Domain { block: 1, .. })
    ));
}

#[test]
fn only_the_holder_hands_on() {
    assert!(matches!(
        first().hand_on(terms(11, 50, 1, 2), &key(11)),
        Err(GrantError::Holder { .. })
    ));
    let stolen = forged(&[(terms(10, 100, 2, 1), 1), (terms(11, 50, 1, 2), 11)]);
    assert!(matches!(
        refused(&stolen),
        GrantError::Envelope { block: 2, why: EnvelopeError::TooFew { good: 0, threshold: 1 } }
    ));
    // Nor does a key of the root in the middle of a chain.
    let over = forged(&[(terms(10, 100, 2, 1), 1), (terms(11, 50, 1, 2), 1)]);
    assert!(matches!(refused(&over), GrantError::Envelope { block: 2, .. }));
}

#[test]
fn widening_is_refused_with_a_counterexample() {
    let error = first().hand_on(terms(11, 177, 1, 2), &key(10)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "block 2 widens the one before it: subject 101 may be stamped by the child but not by the \
         parent; take that away, or ask for a wider grant"
    );
    let wide = forged(&[(terms(10, 100, 2, 1), 1), (terms(11, 177, 1, 2), 10)]);
    assert!(matches!(
        refused(&wide),
        GrantError::Widens { block: 2, why: Widening(Excess::Subject(101)) }
    ));
    // Not even if the grandparent had it.
    let back =
        forged(&[(terms(10, 100, 2, 1), 1), (terms(11, 50, 1, 2), 10), (terms(12, 51, 0, 3), 11)]);
    assert!(matches!(refused(&back), GrantError::Widens { block: 3, .. }));
}

#[test]
fn depth_runs_out() {
    let last = chain();
    assert!(matches!(last.hand_on(terms(13, 7, 0, 4), &key(12)), Err(GrantError::Depth(4))));
    let same = forged(&[(terms(10, 100, 2, 1), 1), (terms(11, 50, 2, 2), 10)]);
    assert!(matches!(refused(&same), GrantError::Depth(2)));
    let deep = Terms { rights: Rights { depth: 16, ..Rights::all() }, ..terms(10, 1, 0, 1) };
    assert!(matches!(Grant::draft(acme(), deep), Err(GrantError::NoSuch { block: 1, .. })));
}

#[test]
fn the_longest_chain_is_16_blocks() {
    let mut grant = Grant::draft(acme(), terms(10, 100, 15, 1)).unwrap();
    grant.sign(&key(1)).unwrap();
    grant.sign(&key(2)).unwrap();
    for step in 1..16_u8 {
        let next = terms(10 + step, 100, 15 - step, u16::from(step) + 1);
        grant = grant.hand_on(next, &key(9 + step)).unwrap();
    }
    assert!(grant.verify(&root(), &none(), NOW).is_ok());
    assert!(grant.hand_on(terms(30, 100, 0, 20), &key(25)).is_err());
    let bytes = grant.to_bytes().unwrap();
    assert_eq!(Grant::read(&bytes).unwrap(), grant);
    grant.blocks.push(grant.blocks[0].clone());
    assert!(matches!(refused(&grant), GrantError::Blocks(17)));
    assert!(matches!(Grant::read(&form::write(&grant).unwrap()), Err(GrantError::Blocks(17))));
    grant.blocks.clear();
    assert!(matches!(Grant::read(&form::write(&grant).unwrap()), Err(GrantError::Blocks(0))));
    assert!(matches!(refused(&grant), GrantError::Blocks(0)));
}

#[test]
fn serials_are_handed_on_too() {
    let hand_on = |serial, serials| {
        let terms = Terms { serials, ..terms(11, 50, 1, serial) };
        first().hand_on(terms, &key(10))
    };
    let span = Intervals::span;
    assert!(hand_on(2, span(3, 100)).is_ok());
    assert!(hand_on(2, Intervals::EMPTY).is_ok());
    for (serial, serials) in [
        (1, Intervals::EMPTY),
        (0, Intervals::EMPTY),
        (101, Intervals::EMPTY),
        (2, span(2, 3)),
        (2, span(3, 101)),
        (2, span(1, 1)),
    ] {
        assert!(matches!(hand_on(serial, serials), Err(GrantError::Serial { block: 2, .. })));
    }
    let draft =
        |serial, serials| Grant::draft(acme(), Terms { serials, ..terms(10, 1, 1, serial) });
    assert!(draft(u16::MAX, span(1, 65_534)).is_ok());
    assert!(draft(1, span(2, 65_536)).is_err() && draft(1, span(0, 0)).is_err());
    assert!(draft(0, Intervals::EMPTY).is_err());
}

#[test]
fn a_block_revoked_anywhere_ends_the_grant() {
    for serial in 1..=3 {
        let revoked = Revocations::new([serial, 99]).unwrap();
        assert!(matches!(
            chain().verify(&root(), &revoked, NOW),
            Err(GrantError::Revoked { serial: found, .. }) if found == serial
        ));
    }
    assert!(chain().verify(&root(), &Revocations::new([4]).unwrap(), NOW).is_ok());
}

#[test]
fn grants_end() {
    let at = |now| chain().verify(&root(), &none(), now);
    assert!(at(0).is_ok() && at(2000).is_ok());
    assert!(matches!(at(2001), Err(GrantError::Expired { not_after: 2000, now: 2001 })));
}

#[test]
fn blocks_do_not_move_between_grants() {
    // Key 10 holds two grants; what it handed on of one is no part of the other.
    let mut other = Grant::draft(acme(), terms(10, 99, 2, 1)).unwrap();
    other.sign(&key(1)).unwrap();
    other.sign(&key(2)).unwrap();
    other.blocks.push(chain().blocks[1].clone());
    assert!(matches!(refused(&other), GrantError::Chain(2)));
    let mut cut = chain();
    cut.blocks.remove(1);
    assert!(matches!(refused(&cut), GrantError::Envelope { block: 2, .. }));
    let mut cut = chain();
    cut.blocks.remove(0);
    assert!(matches!(refused(&cut), GrantError::Envelope { block: 1, .. }));
    // Its end can be left away: that is the grant of the one before, who has no use of it here.
    let mut cut = chain();
    cut.blocks.pop();
    let verified = cut.verify(&root(), &none(), NOW).unwrap();
    assert!(verified.check_holder(&key(12).public()).is_err());
}

#[test]
fn a_bundle_is_no_grant() {
    let mut grant = first();
    let payload = grant.blocks[0].unverified_payload().to_vec();
    let mut envelope = Envelope::unsigned(crate::bundle::PAYLOAD_TYPE, payload);
    envelope.sign(&key(1)).unwrap();
    envelope.sign(&key(2)).unwrap();
    grant.blocks[0] = envelope;
    assert!(matches!(
        refused(&grant),
        GrantError::Envelope { why: EnvelopeError::PayloadType { .. }, .. }
    ));
    let mut unknown = first();
    unknown.blocks[0] = Envelope::unsigned(PAYLOAD_TYPE, b"{\"version\":2}".to_vec());
    unknown.sign(&key(1)).unwrap();
    unknown.sign(&key(2)).unwrap();
    assert!(matches!(refused(&unknown), GrantError::Block { block: 1, .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever three blocks say and whoever signed them: if the chain holds, no block widens
    /// any before it, and the result is the meet of all.
    #[test]
    fn no_chain_widens(
        rights in wide().prop_flat_map(|a| narrow(a.clone()).prop_flat_map(move |b| {
            let a = a.clone();
            // Half of the last blocks narrow, the others say anything.
            prop_oneof![narrow(b.clone()), wide()]
                .prop_map(move |c| [a.clone(), b.clone(), c])
        })),
        serials in prop::array::uniform3(1_u16..6),
    ) {
        let mut blocks = Vec::new();
        for (at, rights) in rights.iter().enumerate() {
            let seed = 10 + at as u8;
            let terms = Terms {
                serial: serials[at],
                serials: Intervals::span(serials[at] as u32 + 1, 9),
                rights: rights.clone(),
                holder: key(seed).public(),
            };
            blocks.push((terms, if at == 0 { 1 } else { seed - 1 }));
        }
        let grant = forged(&blocks);
        if let Ok(verified) = grant.verify(&root(), &none(), 0) {
            let [a, b, c] = &rights;
            prop_assert!(c.leq(b) && b.leq(a) && c.leq(a));
            prop_assert_eq!(verified.rights(), &a.meet(b).meet(c));
            prop_assert!(a.depth > b.depth && b.depth > c.depth);
            prop_assert!(serials[0] < serials[1] && serials[1] < serials[2]);
        } else {
            let [a, b, c] = &rights;
            let narrow = b.leq(a) && c.leq(b) && a.depth > b.depth && b.depth > c.depth;
            let ordered = serials[0] < serials[1] && serials[1] < serials[2];
            prop_assert!(!(narrow && ordered), "a chain that narrows was refused");
        }
    }
}
