//! Translations between domains: what they say, and that none widens.

use super::*;
use crate::checked::Transform;

/// The parts of a translation from the second domain into the first.
fn parts(parts: &str) -> [String; 3] {
    with_vocabularies(&format!("translate partner -> acme on wan {{ {parts} }}"))
}

fn transform(text: &str) -> Transform {
    let [translation] = &assert_good(&parts(text)).translations[..] else { panic!("{text}") };
    translation.transform.clone()
}

#[test]
fn every_field_is_of_its_domain() {
    let text = "partner.shop -> acme.web  partner.till[2] -> payments.api  cap level internal  \
                level outer -> public, internal -> internal  compartments trade -> finance";
    let refused = "a label of `partner` in compartment `trade` would leave in `finance`";
    assert_told(&parts(text), codes::TRANSLATION_WIDENS, "acme.web", &[refused]);
    let text = "partner.till.** -> payments.api  cap level internal  level internal -> internal  \
                compartments trade -> finance  constraints sealed -> confidential  add constraints \
                {no_forward}  operation shop.buy -> ledger.read, partner.ledger.read -> web.get  \
                residency eu -> home  radius federation  life 1";
    let policy = assert_good(&parts(text));
    let [translation] = &policy.translations[..] else { panic!() };
    let (acme, partner) = (&policy.domains[0], &policy.domains[1]);
    assert_eq!((translation.from.0, translation.to.0, translation.zone), (1, 0, 2));
    assert_eq!(translation.scopes.len(), 1);
    let says = &translation.transform;
    let level = |domain: &crate::checked::Domain, at: usize| domain.levels[at].1;
    assert_eq!(says.levels[usize::from(level(partner, 1))], level(acme, 1));
    assert_eq!(says.levels[usize::from(level(partner, 0))], level(acme, 0));
    assert_eq!(
        (says.compartments.as_slice(), says.constraints.as_slice()),
        (&[(0, Some(0))][..], &[(0, Some(0))][..])
    );
    assert_eq!((says.added, says.radius, says.life), (0b10, 3, 1));
    assert_eq!((says.operations.len(), says.residencies.as_slice()), (2, &[(1, 2)][..]));
    assert!(says.routes.is_empty());
}

#[test]
fn what_is_dropped_becomes_nothing() {
    let says = transform("cap level public  drop compartments  drop constraints {sealed}");
    assert!(says.compartments.len() == 16 && says.compartments.iter().all(|(_, to)| to.is_none()));
    assert_eq!(says.constraints, [(0, None)]);
    assert_eq!((says.radius, says.life, says.levels), (2, 2, [0; 16]));
    let says = transform("cap level public  drop compartments {trade}");
    assert_eq!(says.compartments, [(0, None)]);
}

#[test]
fn a_highest_level_is_said() {
    let told = assert_told(
        &parts("partner.shop -> acme.guest"),
        codes::TRANSLATION_UNCAPPED,
        "translate partner -> acme on wan",
        &["how high labels of `partner` may get in `acme`", "add `cap level public`"],
    );
    assert_eq!(told.labels.len(), 1);
    let told = assert_told(
        &parts("cap level secret  level internal -> internal"),
        codes::CAP_UNREACHED,
        "secret",
        &["no level of `partner` becomes `secret`", "becomes `public`"],
    );
    assert_eq!(told.labels.len(), 1);
}

#[test]
fn no_translation_widens() {
    for (text, at, words) in [
        (
            "cap level public  level internal -> secret",
            "internal -> secret",
            "a label of `partner` at level `internal` would leave at `secret`, above `public`",
        ),
        (
            "cap level internal  level internal -> public, outer -> internal",
            "outer -> internal",
            "at level `outer` would leave at `internal`, and one at `internal` only at `public`",
        ),
        (
            "partner.shop -> acme.guest  cap level internal  level internal -> internal",
            "acme.guest",
            "would leave at `internal`, above `public` of `acme.guest`",
        ),
        (
            "cap level public  residency eu -> eu",
            "eu -> eu",
            "that has to stay in `eu` could go further: `eu` of `acme` holds `fr`",
        ),
        (
            "cap level public  residency eu -> anywhere",
            "eu -> anywhere",
            "`anywhere` of `acme` is everywhere",
        ),
    ] {
        assert_told(&parts(text), codes::TRANSLATION_WIDENS, at, &[words]);
    }
}

#[test]
fn names_are_of_the_side_where_they_stand() {
    for (text, code, at, words) in [
        ("cap level outer", codes::UNKNOWN_NAME, "outer", "unknown level `outer`"),
        (
            "level public -> public  cap level public",
            codes::UNKNOWN_NAME,
            "public",
            "unknown level `public`",
        ),
        (
            "cap level public  operation web.get -> web.get",
            codes::UNKNOWN_OPERATION,
            "web.get",
            "`partner` has no operation",
        ),
        (
            "cap level public  acme.guest -> acme.guest",
            codes::MIXED_DOMAINS,
            "acme.guest",
            "one of `partner` belongs",
        ),
        (
            "cap level public  partner.shop -> partner.web",
            codes::MIXED_DOMAINS,
            "partner.web",
            "one of `acme` belongs",
        ),
        (
            "cap level public  partner.shop -> acme.regions",
            codes::NOT_ONE_SUBJECT,
            "acme.regions",
            "",
        ),
        (
            "cap level public  cap level public",
            codes::SAID_TWICE,
            "public",
            "`cap level` is said twice",
        ),
        (
            "cap level public  constraints sealed -> confidential  drop constraints {sealed}",
            codes::SAID_TWICE,
            "sealed",
            "`sealed` is said twice",
        ),
        ("cap level public  life 9", codes::LIFE_TOO_LONG, "9", ""),
    ] {
        assert_told(&parts(text), code, at, &[words]);
    }
    let texts = with_vocabularies("translate nobody -> acme on wan { cap level public }");
    assert_told(&texts, codes::UNKNOWN_SCOPE, "nobody", &["unknown domain `nobody`"]);
}

#[test]
fn within_a_domain_names_stay() {
    assert!(
        !transform("cap level public").readdress
            && transform("cap level public  readdress").readdress
    );
    let text = "translate acme -> acme on wan { cap level internal  readdress  drop compartments {finance}  add constraints {no_forward} }";
    let policy = assert_good(&with_vocabulary(text));
    let says = &policy.translations[0].transform;
    let internal = usize::from(policy.domains[0].levels[1].1);
    assert_eq!(says.levels[15], says.levels[internal]);
    assert_eq!((says.compartments[0], says.compartments[1]), ((0, None), (1, Some(1))));
    assert_eq!((says.constraints.len(), says.radius, says.life), (16, 4, 15));
    for (part, what) in [
        ("acme.web -> acme.guest", "subjects"),
        ("level public -> internal", "levels"),
        ("drop constraints {confidential}", "constraints"),
        ("operation web.get -> web.post", "operations"),
    ] {
        let texts = with_vocabulary(&format!("translate acme -> acme on wan {{ {part} }}"));
        assert_told(&texts, codes::TRANSLATION_RENAMES, part, &[&format!("{what} of `acme` stay")]);
    }
}
