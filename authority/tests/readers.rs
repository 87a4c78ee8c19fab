//! Readers end with a value or an error whatever they are given, and what they take they write
//! back as it was.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use govc_authority::bundle::Bundle;
use govc_authority::{
    Domain,
    envelope::Envelope,
    form,
    grant::{self, Grant},
    intervals::Intervals,
    key::{PublicKey, SigningKey},
    lattice::Rights,
    mapping::{Mapping, Rules, Scope},
    revocations::Revocations,
    sealed::{Opener, Recipients},
    signers::SignerSet,
    trust::{Root, Trust},
};
use proptest::prelude::*;
use zeroize::Zeroizing;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn acme() -> Domain {
    Domain { name: "acme".into(), number: 7 }
}

fn words() -> Zeroizing<String> {
    Zeroizing::new("words".into())
}

/// A file of each kind.
fn files() -> Vec<Vec<u8>> {
    let mut envelope = Envelope::unsigned("application/x-test", b"{}".to_vec());
    envelope.sign(&key(1)).unwrap();
    let terms = grant::Terms {
        serial: 1,
        serials: Intervals::span(2, 9),
        rights: Rights { depth: 1, ..Rights::all() },
        holder: key(2).public(),
    };
    let mut grant = Grant::draft(acme(), terms.clone()).unwrap();
    grant.sign(&key(1)).unwrap();
    let rights = Rights { depth: 0, ..terms.rights.clone() };
    let narrower = grant::Terms { serial: 2, serials: Intervals::EMPTY, rights, ..terms };
    let grant = grant.hand_on(narrower, &key(2)).unwrap();
    let mapping = Mapping::new(Rules {
        from: acme(),
        to: acme(),
        sequence: 1,
        scopes: vec![Scope { first: 1, last: 2, subject: 3 }],
        drop_compartments: 0,
        level_max: 1,
        add_constraints: 0,
        drop_constraints: 0,
        not_after: 9,
        revoked: Revocations::new([3, 4, 9]).unwrap(),
        granted: true,
    });
    let to = Recipients::passphrase_with_work(&words(), 1).unwrap();
    let mut archive = tar::Builder::new(Vec::new());
    for name in ["manifest.json", "policy.image", "vocabulary.json"] {
        let mut header = tar::Header::new_ustar();
        header.set_size(2);
        archive.append_data(&mut header, name, &b"{}"[..]).unwrap();
    }
    vec![
        envelope.to_bytes().unwrap(),
        grant.to_bytes().unwrap(),
        mapping.unwrap().unsigned().unwrap().to_bytes().unwrap(),
        key(1).seal(&to).unwrap(),
        archive.into_inner().unwrap(),
        form::write(&SignerSet::one(key(1).public())).unwrap(),
    ]
}

/// Every reader on these bytes.
fn read_all(bytes: &[u8]) {
    let root = Root { domain: acme(), signers: SignerSet::one(key(1).public()) };
    if let Ok(envelope) = Envelope::read(bytes) {
        assert_eq!(envelope.to_bytes().unwrap(), bytes);
        let _ = Mapping::verify(&envelope, &root, 0);
        let _ = Trust::new(root.clone()).follow(&envelope, 0);
    }
    if let Ok(grant) = Grant::read(bytes) {
        assert_eq!(grant.to_bytes().unwrap(), bytes);
        let _ = grant.unverified_blocks();
        let _ = grant.verify(&root, &Revocations::default(), 0);
    }
    if let Ok(bundle) = Bundle::read(bytes) {
        assert_eq!(bundle.to_bytes().unwrap(), bytes);
    }
    if let Ok(set) = form::read::<SignerSet>(bytes, 1 << 16) {
        assert_eq!(form::write(&set).unwrap(), bytes);
    }
    let _ = SigningKey::open(bytes, &Opener::passphrase(&words()).unwrap());
    let _ = std::str::from_utf8(bytes).map(str::parse::<PublicKey>);
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        read_all(&bytes);
    }

    /// Changes of good files come farther than any bytes.
    #[test]
    fn changed_files_are_read_to_an_end(
        which in 0_usize..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4_u8), 1..4),
    ) {
        let mut bytes = files().swap_remove(which);
        for (at, byte, how) in changes {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => bytes.insert(at, byte),
                2 => bytes.truncate(at.max(1)),
                _ => bytes.extend_from_within(at..),
            }
        }
        read_all(&bytes);
    }
}
