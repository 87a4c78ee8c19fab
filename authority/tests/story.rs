//! One domain from its first key to a revoked grant, by the public interface alone.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "the helpers of tests may panic as tests do"
)]

use std::path::Path;

use govc_abi::{ABI_VERSION, image as layout};
use govc_authority::{
    Domain,
    audit::{self, Event, Record},
    bundle::{Bundle, Contents, Terms, Verified, VerifyError, Vocabulary, verify},
    digest::Digest,
    grant::{self, Grant, GrantError},
    graph::circles,
    intervals::Intervals,
    key::SigningKey,
    lattice::{Excess, Outside, Rights, Stamp, covers},
    mapping::{Mapping, Rules, Scope},
    revocations::Revocations,
    sealed::{Opener, Recipients},
    signers::SignerSet,
    store::Store,
    trust::{Root, Trust, TrustError},
};
use govc_image::{Image, Names};
use zeroize::Zeroizing;

const NOW: u64 = 1_800_000_000;

/// An image with a name in it, the smallest that there is.
fn image(name: &str) -> Image {
    let names = Names { policy_name: name.into(), ..Names::default() };
    let section = names.encode().unwrap();
    let mut words = vec![0_u32; layout::HEADER_WORDS];
    words[layout::AT_MAGIC as usize] = layout::MAGIC;
    words[layout::AT_ABI_VERSION as usize] = ABI_VERSION;
    words[layout::AT_NAMES as usize] = words.len() as u32;
    words[layout::AT_NAMES_LEN as usize] = section.len() as u32;
    words[layout::AT_WORDS as usize] = (words.len() + section.len().div_ceil(4)) as u32;
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    bytes.extend(&section);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    Image::seal(bytes, names).unwrap()
}

fn log(path: &Path, event: Event, digest: Digest) {
    let digests = [("manifest".to_owned(), digest)].into();
    let note = String::new();
    audit::append(path, Record { time: NOW, event, note, digests, keys: Vec::new() }).unwrap();
}

/// The bundle's file, signed by these keys.
fn publish(
    name: &str,
    generation: u64,
    previous: Option<Digest>,
    revoked: &[u16],
    next: &SignerSet,
    keys: &[&SigningKey],
) -> (Vec<u8>, Digest) {
    let contents = Contents {
        image: &image(name),
        vocabulary: &Vocabulary::default(),
        revocations: &Revocations::new(revoked.iter().copied()).unwrap(),
    };
    let domain = Domain { name: "acme".into(), number: 7 };
    let (not_before, not_after) = (NOW - 60, NOW + 3600);
    let next = next.clone();
    let terms = Terms { domain, generation, previous, not_before, not_after, next };
    let mut bundle = Bundle::draft(&contents, terms).unwrap();
    for key in keys {
        // Each signer works on the file that the one before made.
        bundle = Bundle::read(&bundle.to_bytes().unwrap()).unwrap();
        bundle.sign(key).unwrap();
    }
    let digest = bundle.unverified_manifest().unwrap().digest().unwrap();
    (bundle.to_bytes().unwrap(), digest)
}

/// What a node does with a file.
fn apply(store: &Store, log_path: &Path, bytes: &[u8]) -> Result<Verified, VerifyError> {
    let trust = store.read().unwrap().unwrap().trust;
    match verify(&Bundle::read(bytes)?, &trust, NOW) {
        Ok(verified) => {
            store.replace(&trust, &trust.after(&verified).unwrap()).unwrap();
            log(log_path, Event::BundleAccepted, *verified.accepted().manifest());
            Ok(verified)
        }
        Err(error) => {
            log(log_path, Event::BundleRefused, Digest::of(bytes));
            Err(error)
        }
    }
}

#[test]
fn a_domain_lives() {
    let dir = tempfile::tempdir().unwrap();
    let log_path = dir.path().join("audit.log");
    let domain = Domain { name: "acme".into(), number: 7 };

    // Three people make keys, and keep them sealed.
    let words = Zeroizing::new("correct horse battery staple".to_owned());
    let keys: Vec<_> = (0..3)
        .map(|_| {
            let to = Recipients::passphrase_with_work(&words, 2).unwrap();
            let sealed = SigningKey::generate().unwrap().seal(&to).unwrap();
            SigningKey::open(&sealed, &Opener::passphrase(&words).unwrap()).unwrap()
        })
        .collect();
    let all = SignerSet::new(keys.iter().map(SigningKey::public), 2).unwrap();
    let root = Root { domain: domain.clone(), signers: all.clone() };

    // A node takes the first two bundles, and refuses the first one afterwards.
    let store = Store::new(dir.path().join("trust"));
    store.create(root.clone()).unwrap();
    let (first, one) = publish("first", 1, None, &[], &all, &[&keys[0], &keys[1]]);
    let (second, two) = publish("second", 2, Some(one), &[], &all, &[&keys[2], &keys[1]]);
    assert!(matches!(apply(&store, &log_path, &second[..1024]), Err(VerifyError::Bundle(_))));
    apply(&store, &log_path, &first).unwrap();
    let verified = apply(&store, &log_path, &second).unwrap();
    assert_eq!(verified.image().names().policy_name, "second");
    apply(&store, &log_path, &second).unwrap();
    assert!(matches!(
        apply(&store, &log_path, &first),
        Err(VerifyError::Trust(TrustError::Older { found: 1, last: 2 }))
    ));

    // A team gets the right to stamp, and hands a part of it to a node.
    let (team, node) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let rights = Rights {
        subjects: Intervals::span(64, 127),
        level_max: 2,
        compartments: 0b1,
        constraints: 0b10,
        not_after: NOW + 86_400,
        depth: 1,
        ..Rights::all()
    };
    let serials = Intervals::span(11, 20);
    let holder = team.public();
    let terms = grant::Terms { serial: 10, serials, rights: rights.clone(), holder };
    let mut granted = Grant::draft(domain.clone(), terms).unwrap();
    granted.sign(&keys[0]).unwrap();
    granted.sign(&keys[2]).unwrap();
    let node_rights = Rights { subjects: Intervals::span(64, 71), depth: 0, ..rights };
    let terms = grant::Terms {
        serial: 11,
        serials: Intervals::EMPTY,
        rights: node_rights,
        holder: node.public(),
    };
    let granted = granted.hand_on(terms, &team).unwrap();
    let granted = Grant::read(&granted.to_bytes().unwrap()).unwrap();
    let held = granted.verify(&root, verified.revocations(), NOW).unwrap();
    held.check_holder(&node.public()).unwrap();

    // The node may run stamp rules within it, and no others.
    let stamp = Stamp {
        subject: 70,
        level: 2,
        compartments: 0b1,
        constraints: 0b110,
        residency: 1,
        route: 0,
        operation: 5,
        radius: 2,
        life: 2,
    };
    assert_eq!(covers(held.rights(), &stamp), Ok(()));
    let beyond = Stamp { subject: 72, ..stamp };
    assert_eq!(covers(held.rights(), &beyond), Err(Outside(Excess::Subject(72))));
    let plain = Stamp { constraints: 0b100, ..stamp };
    assert_eq!(covers(held.rights(), &plain), Err(Outside(Excess::Constraint(1))));
    assert!(circles([held.links()]).is_empty());

    // A partner's labels come in by a gateway, which may write what the node may.
    let rules = Rules {
        from: Domain { name: "partner".into(), number: 9 },
        to: domain,
        sequence: 1,
        scopes: vec![Scope { first: 1, last: 4096, subject: 71 }],
        drop_compartments: u16::MAX,
        level_max: 0,
        add_constraints: 0b10,
        drop_constraints: 0,
        not_after: NOW + 3600,
        revoked: Revocations::default(),
        granted: false,
    };
    let mut envelope = Mapping::new(rules).unwrap().unsigned().unwrap();
    envelope.sign(&keys[0]).unwrap();
    envelope.sign(&keys[1]).unwrap();
    let mapping = Mapping::verify(&envelope, &root, NOW).unwrap();
    assert_eq!(mapping.check(&Rights::all(), held.rights()), Ok(()));

    // The third bundle takes the grant back, and hands the domain to one new key.
    let heir = SigningKey::generate().unwrap();
    let next = SignerSet::one(heir.public());
    let (third, three) = publish("third", 3, Some(two), &[10], &next, &[&keys[0], &keys[1]]);
    let verified = apply(&store, &log_path, &third).unwrap();
    assert!(matches!(
        granted.verify(&root, verified.revocations(), NOW),
        Err(GrantError::Revoked { block: 1, serial: 10 })
    ));
    let old = publish("fourth", 4, Some(three), &[10], &next, &[&keys[0], &keys[1], &keys[2]]);
    assert!(matches!(
        apply(&store, &log_path, &old.0),
        Err(VerifyError::Trust(TrustError::Envelope(_)))
    ));
    let new = publish("fourth", 4, Some(three), &[10], &next, &[&heir]);
    apply(&store, &log_path, &new.0).unwrap();

    // What the old keys granted is not the new one's word.
    let authority = store.read().unwrap().unwrap().trust.authority();
    assert!(matches!(
        granted.verify(&authority, &Revocations::default(), NOW),
        Err(GrantError::Envelope { block: 1, .. })
    ));

    // A node that was away follows the manifests.
    let mut trust = Trust::new(root);
    for bytes in [&first, &second, &third] {
        trust = trust.follow(Bundle::read(bytes).unwrap().envelope(), NOW).unwrap();
    }
    assert!(verify(&Bundle::read(&new.0).unwrap(), &trust, NOW).is_ok());

    // All of it stands in the log.
    assert_eq!(audit::verify(&log_path, None).unwrap().count, 7);
}
