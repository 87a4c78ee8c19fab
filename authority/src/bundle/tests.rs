use super::*;
use crate::{
    testing::{bundle, digest, image, key, new_node, root, set, terms},
    trust::{Trust, TrustError},
};

/// Within the time of [`terms`].
const NOW: u64 = 1500;

fn refused(bundle: &Bundle, trust: &Trust) -> VerifyError {
    verify(bundle, trust, NOW).unwrap_err()
}

/// The trust after this bundle.
fn after(trust: &Trust, bundle: &Bundle) -> Trust {
    trust.after(&verify(bundle, trust, NOW).unwrap()).unwrap()
}

/// A tar archive of these members, as `tar` with fixed metadata would write it.
fn tar_of(members: &[(&str, &[u8])], change: impl Fn(&mut tar::Header)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_path(name).unwrap();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        change(&mut header);
        header.set_cksum();
        builder.append(&header, *bytes).unwrap();
    }
    builder.into_inner().unwrap()
}

fn members_of(bundle: &Bundle) -> Vec<(&'static str, Vec<u8>)> {
    let names = std::iter::once(MANIFEST).chain(MEMBERS.map(|(name, _)| name));
    let manifest = bundle.manifest.to_bytes().unwrap();
    names.zip(std::iter::once(manifest).chain(bundle.members.clone())).collect()
}

#[test]
fn a_bundle_comes_back_and_verifies() {
    let made = bundle(terms(1, None), &[1, 3]);
    let bytes = made.to_bytes().unwrap();
    let read = Bundle::read(&bytes).unwrap();
    assert_eq!(read, made);
    let verified = verify(&read, &new_node(), NOW).unwrap();
    assert_eq!(*verified.image(), image());
    assert_eq!(read.unverified_vocabulary().unwrap().locks.len(), 1);
    assert!(verified.revocations().contains(500));
    assert_eq!(verified.manifest().generation, 1);
    let mut signed_by = [key(1).id(), key(3).id()];
    signed_by.sort();
    assert_eq!(verified.signed_by(), signed_by);
}

#[test]
fn the_same_contents_make_the_same_bytes() {
    let bytes = bundle(terms(1, None), &[1, 3]).to_bytes().unwrap();
    assert_eq!(bundle(terms(1, None), &[3, 1]).to_bytes().unwrap(), bytes);
    // Any tar reader understands it.
    let mut archive = tar::Archive::new(bytes.as_slice());
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().display().to_string())
        .collect();
    assert_eq!(names[..2], ["manifest.json", "policy.image"]);
    assert_eq!(names.len(), 4);
}

/// A change here makes every bundle of before unreadable: count the version up.
#[test]
fn the_form_of_a_manifest_is_fixed() {
    let key = key(1).public();
    let zero = "00".repeat(32);
    let text = format!(
        r#"{{"version":2,"domain":{{"name":"acme","number":7}},"generation":2,"previous":"{zero}","not_before":1000,"not_after":2000,"members":[{{"name":"policy.image","len":2048,"sha256":"{zero}"}}],"next":{{"keys":["{key}"],"threshold":1}}}}"#
    );
    let manifest = Manifest::read(text.as_bytes()).unwrap();
    assert_eq!((manifest.generation, manifest.not_after), (2, 2000));
    assert_eq!(
        form::write(&Revocations::new([3, 4, 9]).unwrap()).unwrap(),
        br#"{"serials":[[3,4],[9,9]]}"#
    );
    let vocabulary = Vocabulary { locks: [("a.b".into(), Digest::from_bytes([0; 32]))].into() };
    assert_eq!(
        form::write(&vocabulary).unwrap(),
        format!(r#"{{"locks":{{"a.b":"{zero}"}}}}"#).as_bytes()
    );
}

#[test]
fn every_flipped_byte_is_refused() {
    let bytes = bundle(terms(1, None), &[1, 2]).to_bytes().unwrap();
    let trust = new_node();
    let taken =
        |bytes: &[u8]| Bundle::read(bytes).is_ok_and(|bundle| verify(&bundle, &trust, NOW).is_ok());
    assert!(taken(&bytes));
    for at in 0..bytes.len() {
        let mut wrong = bytes.clone();
        wrong[at] ^= [1, 0x20, 0x80][at % 3];
        assert!(!taken(&wrong), "byte {at}");
    }
}

#[test]
fn every_cut_and_everything_behind_the_end_is_refused() {
    let bytes = bundle(terms(1, None), &[1, 2]).to_bytes().unwrap();
    for len in 0..bytes.len() {
        assert!(Bundle::read(&bytes[..len]).is_err(), "{len} bytes");
    }
    for more in [vec![0], vec![0; 512], vec![1; 512], bytes.clone()] {
        let longer = [bytes.clone(), more].concat();
        assert!(matches!(Bundle::read(&longer), Err(BundleError::NotCanonical)));
    }
}

#[test]
fn unknown_repeated_missing_and_reordered_members_are_refused() {
    let members = members_of(&bundle(terms(1, None), &[1, 2]));
    let view = |order: &[usize]| -> Vec<(&str, &[u8])> {
        order.iter().map(|at| (members[*at].0, members[*at].1.as_slice())).collect()
    };
    assert!(Bundle::read(&tar_of(&view(&[0, 1, 2, 3]), |_| {})).is_ok());
    for order in [
        &[][..],
        &[0, 1, 2],
        &[1, 2, 3],
        &[1, 0, 2, 3],
        &[0, 1, 3, 2],
        &[0, 0, 1, 2, 3],
        &[0, 1, 2, 3, 3],
        &[0, 1, 1, 2, 3],
    ] {
        assert!(Bundle::read(&tar_of(&view(order), |_| {})).is_err(), "{order:?}");
    }
    let mut more = view(&[0, 1, 2, 3]);
    more.push(("notes.txt", b"hello"));
    assert!(matches!(Bundle::read(&tar_of(&more, |_| {})), Err(BundleError::NotCanonical)));
    more.swap(1, 4);
    assert!(matches!(Bundle::read(&tar_of(&more, |_| {})), Err(BundleError::Member { .. })));
}

#[test]
fn other_metadata_is_refused() {
    let members = members_of(&bundle(terms(1, None), &[1, 2]));
    let members: Vec<_> = members.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    let changes: [fn(&mut tar::Header); 6] = [
        |header| header.set_mtime(1),
        |header| header.set_uid(1000),
        |header| header.set_mode(0o600),
        |header| header.set_username("root").unwrap(),
        |header| header.set_entry_type(tar::EntryType::Link),
        |header| header.set_entry_type(tar::EntryType::GNUSparse),
    ];
    for (at, change) in changes.into_iter().enumerate() {
        assert!(Bundle::read(&tar_of(&members, change)).is_err(), "change {at}");
    }
}

#[test]
fn sizes_that_a_header_only_claims_cost_nothing() {
    let mut bytes = tar_of(&[("manifest.json", b"")], |header| header.set_size(1 << 40));
    assert!(matches!(Bundle::read(&bytes), Err(BundleError::TooLong { .. })));
    bytes = tar_of(&[("manifest.json", b"")], |header| header.set_size(1 << 19));
    assert!(matches!(Bundle::read(&bytes), Err(BundleError::Container(_))));
}

#[test]
fn members_are_the_ones_that_were_signed() {
    let good = bundle(terms(1, None), &[1, 2]);
    for (at, (member, _)) in MEMBERS.into_iter().enumerate() {
        let mut wrong = good.clone();
        wrong.members[at].push(b' ');
        assert!(matches!(
            refused(&wrong, &new_node()),
            VerifyError::Bundle(BundleError::Digest(name)) if name == member
        ));
        assert!(matches!(wrong.sign(&key(3)), Err(BundleError::Digest(_))));
    }
}

#[test]
fn members_must_be_what_they_are_called() {
    let mut wrong = bundle(terms(1, None), &[]);
    let manifest = wrong.unverified_manifest().unwrap();
    for at in [0, 1, 2] {
        wrong.members[at] = b"{}".to_vec();
        let mut manifest = manifest.clone();
        manifest.members = named(&wrong.members);
        wrong.manifest = Envelope::unsigned(PAYLOAD_TYPE, form::write(&manifest).unwrap());
        wrong.sign(&key(1)).unwrap();
        wrong.sign(&key(2)).unwrap();
        assert!(matches!(
            refused(&wrong, &new_node()),
            VerifyError::Bundle(BundleError::Image(_) | BundleError::Form { .. })
        ));
        wrong.members = bundle(terms(1, None), &[]).members;
    }
}

#[test]
fn a_manifest_names_all_members_and_no_others() {
    let mut wrong = bundle(terms(1, None), &[]);
    let manifest = wrong.unverified_manifest().unwrap();
    let mut fewer = manifest.clone();
    fewer.members.pop();
    let mut more = manifest.clone();
    more.members.extend(manifest.members.last().cloned());
    for manifest in [fewer, more] {
        let payload = form::write(&manifest).unwrap();
        wrong.manifest = Envelope::unsigned(PAYLOAD_TYPE, payload);
        assert!(matches!(wrong.sign(&key(1)), Err(BundleError::Digest(_))));
        wrong.manifest.sign(&key(1)).unwrap();
        wrong.manifest.sign(&key(2)).unwrap();
        assert!(matches!(
            refused(&wrong, &new_node()),
            VerifyError::Bundle(BundleError::Digest(_))
        ));
    }
}

#[test]
fn terms_that_contradict_themselves_are_refused() {
    let draft = |terms| {
        Bundle::draft(
            &Contents {
                image: &image(),
                vocabulary: &Vocabulary::default(),
                revocations: &Revocations::default(),
            },
            terms,
        )
    };
    assert!(matches!(draft(terms(0, None)), Err(BundleError::Terms(_))));
    assert!(draft(terms(GENERATION_MAX, None)).is_ok());
    assert!(matches!(draft(terms(GENERATION_MAX + 1, None)), Err(BundleError::Terms(_))));
    let backwards = Terms { not_before: 2001, ..terms(1, None) };
    assert!(matches!(draft(backwards), Err(BundleError::Terms(_))));
    let moment = Terms { not_before: 2000, ..terms(1, None) };
    assert!(draft(moment).is_ok());
    let mut text =
        form::write(&bundle(terms(1, None), &[]).unverified_manifest().unwrap()).unwrap();
    assert!(text.starts_with(b"{\"version\":2,"));
    text[11] = b'1';
    assert!(matches!(Manifest::read(&text), Err(BundleError::Terms(_))));
}

#[test]
fn enough_of_the_right_keys_have_to_sign() {
    let too_few = |seeds: &[u8]| match refused(&bundle(terms(1, None), seeds), &new_node()) {
        VerifyError::Trust(TrustError::Envelope(EnvelopeError::TooFew { good, .. })) => good,
        other => panic!("{other}"),
    };
    assert_eq!(too_few(&[]), 0);
    assert_eq!(too_few(&[2]), 1);
    assert_eq!(too_few(&[2, 2]), 1);
    assert_eq!(too_few(&[2, 8, 9]), 1);
    assert_eq!(too_few(&[7, 8, 9]), 0);
    for seeds in [&[1, 2][..], &[2, 3], &[1, 3], &[1, 2, 3], &[1, 2, 9]] {
        assert!(verify(&bundle(terms(1, None), seeds), &new_node(), NOW).is_ok());
    }
}

#[test]
fn a_bundle_holds_in_its_time_only() {
    let made = bundle(terms(1, None), &[1, 2]);
    let at = |now| verify(&made, &new_node(), now);
    assert!(matches!(at(0), Err(VerifyError::NotYet { .. })));
    assert!(matches!(at(999), Err(VerifyError::NotYet { .. })));
    assert!(at(1000).is_ok() && at(2000).is_ok());
    assert!(matches!(at(2001), Err(VerifyError::Expired { .. })));
    assert!(matches!(at(u64::MAX), Err(VerifyError::Expired { .. })));
}

#[test]
fn generations_follow_each_other() {
    let one = bundle(terms(1, None), &[1, 2]);
    let two = bundle(terms(2, Some(digest(&one))), &[1, 2]);
    let start = new_node();
    let first = after(&start, &one);
    let second = after(&first, &two);
    assert_eq!(second.last().unwrap().generation(), 2);
    // The same once more changes nothing.
    assert_eq!(after(&second, &two), second);
    // Whoever signed the same manifest besides.
    let mut again = two.clone();
    again.sign(&key(3)).unwrap();
    assert_eq!(after(&second, &again), second);
    // Back is refused.
    assert!(matches!(
        refused(&one, &second),
        VerifyError::Trust(TrustError::Older { found: 1, last: 2 })
    ));
    // So is another bundle of the same generation,
    let twin = Terms { not_after: 1999, ..terms(2, Some(digest(&one))) };
    assert!(matches!(
        refused(&bundle(twin, &[1, 2]), &second),
        VerifyError::Trust(TrustError::Other(2))
    ));
    // and one that was made upon another.
    for previous in [None, Some(digest(&one)), Some(Digest::of(b""))] {
        assert!(matches!(
            refused(&bundle(terms(3, previous), &[1, 2]), &second),
            VerifyError::Trust(TrustError::Chain { .. })
        ));
    }
    // Numbers may be left out, bundles may not.
    assert!(verify(&bundle(terms(9, Some(digest(&two))), &[1, 2]), &second, NOW).is_ok());
}

#[test]
fn a_new_node_takes_any_generation_of_its_root() {
    let made = bundle(terms(57, Some(Digest::of(b"56"))), &[1, 2]);
    assert_eq!(after(&new_node(), &made).last().unwrap().generation(), 57);
}

#[test]
fn each_bundle_says_who_signs_the_next() {
    let one = bundle(Terms { next: set(&[4, 5], 2), ..terms(1, None) }, &[1, 2]);
    let trust = after(&new_node(), &one);
    let previous = Some(digest(&one));
    assert!(matches!(
        refused(&bundle(terms(2, previous), &[1, 2, 3, 4]), &trust),
        VerifyError::Trust(TrustError::Envelope(EnvelopeError::TooFew { good: 1, threshold: 2 }))
    ));
    let two = bundle(terms(2, previous), &[4, 5]);
    assert!(verify(&two, &trust, NOW).is_ok());
    // The last one can be taken again although its signers sign no more.
    assert_eq!(after(&trust, &one), trust);
    let mut forged = one.clone();
    forged.manifest = Envelope::unsigned(PAYLOAD_TYPE, one.manifest.unverified_payload().to_vec());
    assert!(verify(&forged, &trust, NOW).is_err(), "unsigned, although known");
}

#[test]
fn another_domain_is_refused() {
    for domain in [
        crate::Domain { name: "acme".into(), number: 8 },
        crate::Domain { name: "acme.eu".into(), number: 7 },
    ] {
        let other = bundle(Terms { domain, ..terms(1, None) }, &[1, 2]);
        assert!(matches!(
            refused(&other, &new_node()),
            VerifyError::Trust(TrustError::Domain { .. })
        ));
    }
}

#[test]
fn missed_generations_are_followed_by_their_manifests() {
    let one = bundle(terms(1, None), &[1, 2]);
    // Its time was over before the node came back.
    let two =
        Terms { not_before: 1, not_after: 2, next: set(&[4], 1), ..terms(2, Some(digest(&one))) };
    let two = bundle(two, &[1, 2]);
    let three = bundle(terms(3, Some(digest(&two))), &[4]);
    let trust = after(&new_node(), &one);
    assert!(verify(&three, &trust, NOW).is_err());
    assert!(matches!(
        trust.follow(two.envelope(), 0),
        Err(TrustError::NotYet { not_before: 1, .. })
    ));
    let trust = trust.follow(two.envelope(), 1).unwrap();
    assert_eq!(after(&trust, &three).last().unwrap().generation(), 3);
    assert!(trust.follow(one.envelope(), NOW).is_err());
}

#[test]
fn what_was_verified_elsewhere_is_not_taken() {
    let one = bundle(terms(1, None), &[1, 2]);
    let verified = verify(&one, &new_node(), NOW).unwrap();
    let other = Trust::new(crate::trust::Root { signers: set(&[1, 2], 2), ..root() });
    assert!(matches!(other.after(&verified), Err(TrustError::Root)));
    let two = bundle(terms(2, Some(digest(&one))), &[1, 2]);
    let later = after(&after(&new_node(), &one), &two);
    assert!(matches!(later.after(&verified), Err(TrustError::Older { .. })));
}

#[test]
fn mistakes_quote_nothing_of_the_file() {
    let text = "swordfish ".repeat(200);
    let error = Bundle::read(text.as_bytes()).unwrap_err().to_string();
    assert!(!error.contains("sword"), "{error}");
}
