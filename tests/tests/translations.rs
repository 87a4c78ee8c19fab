//! Translations between domains, by the reference interpreter and by the image: both agree on labels
//! that nobody chose, and what goes out is never more than what came in, beyond what is said.

use govc_abi::label::Label;
use govc_compiler::{
    checked::{Domain, DomainId, Policy},
    interpret,
};
use govc_image::Image;
use govc_tests::{check, compile, policies::VOCABULARY, random::Random};

const PARTNER: &str = include_str!("../../examples/policies/partner/vocabulary.gov");

const SUBJECTS: [&str; 6] = [
    "partner.shop",
    "partner.billing.**",
    "partner.billing.dunning",
    "partner.**",
    "partner.visitor",
    "partner.billing.*",
];
const TARGETS: [&str; 5] =
    ["acme.guest", "acme.web.front", "acme.payments.api", "acme.audit.exporter", "acme.ops.node"];
const LEVELS: [&str; 4] = ["public", "internal", "confidential", "secret"];
const OTHERS: [&str; 15] = [
    "drop compartments",
    "drop compartments {trade}",
    "compartments trade -> finance",
    "compartments trade -> audit",
    "constraints sealed -> confidential, counted -> audited",
    "constraints counted -> confidential",
    "drop constraints {sealed}",
    "add constraints {no_forward, audited}",
    "operation shop.order -> ledger.read",
    "residency europe -> eu",
    "residency europe -> de",
    "residency europe -> anywhere",
    "route fast -> backbone_eu",
    "radius federation",
    "life 1",
];

fn translation(random: &mut Random) -> String {
    let mut parts = vec![format!("cap level {}", random.pick(&LEVELS))];
    for _ in 0..random.below(4) {
        parts.push(format!("{} -> {}", random.pick(&SUBJECTS), random.pick(&TARGETS)));
    }
    for level in ["outer", "inner"] {
        if random.one_in(2) {
            parts.push(format!("level {level} -> {}", random.pick(&LEVELS)));
        }
    }
    for part in OTHERS {
        if !random.one_in(if part.ends_with("anywhere") { 1 } else { 2 }) || random.one_in(9) {
            parts.push(part.to_owned());
        }
    }
    format!("translate partner -> acme on lan {{ {} }}\n", parts.join("  "))
}

fn label(random: &mut Random, policy: &Policy) -> Label {
    let from = &policy.domains()[1];
    let scopes: Vec<_> = from.scopes.iter().filter_map(|scope| scope.subjects).collect();
    let &(first, last) = random.pick(&scopes);
    let bits = |random: &mut Random| random.bits() as u16 & 0b11 & random.bits() as u16;
    Label::default()
        .with_domain(9)
        .with_subject(if random.one_in(8) {
            random.bits() as u32
        } else {
            random.pick(&[first, last]).to_owned()
        })
        .with_level(random.below(16) as u8)
        .with_radius(2 + random.below(3) as u8)
        .with_life(random.below(16) as u8)
        .with_compartments(bits(random) & 1)
        .with_constraints(bits(random))
        .with_operation(random.below(3) as u16)
        .with_residency(random.below(3) as u8)
        .with_route(random.below(3) as u8)
}

fn jurisdictions(domain: &Domain, number: u8) -> Option<Vec<String>> {
    let found = domain.residencies.iter().find(|set| set.number == number)?;
    Some(found.jurisdictions.as_ref()?.iter().map(ToString::to_string).collect())
}

/// What holds for every translation that the checker takes, whatever else it says.
fn narrows(policy: &Policy, came: Label, goes: Label) {
    let item = &policy.translations()[0];
    let (from, to) = (&policy.domains()[1], &policy.domains()[0]);
    let scope = to.scopes.iter().find(|scope| {
        scope.subjects.is_some_and(|(first, last)| (first..=last).contains(&goes.subject()))
    });
    let scope = scope.unwrap();
    assert!(goes.level() <= scope.level, "{came:?} {goes:?}");
    assert_eq!(goes.compartments() & !scope.compartments, 0, "{came:?} {goes:?}");
    assert!(came.compartments() != 0 || goes.compartments() == 0, "{came:?} {goes:?}");
    assert_eq!(item.transform.added & !goes.constraints(), 0);
    for bit in (0..16).filter(|bit| came.constraints() >> bit & 1 == 1) {
        let says = item.transform.constraints.iter().find(|(known, _)| *known == bit);
        match says.unwrap().1 {
            Some(becomes) => assert_eq!(goes.constraints() >> becomes & 1, 1),
            None => assert!(from.constraints.iter().any(|(_, known)| *known == bit)),
        }
    }
    assert!(goes.radius() <= came.radius() && goes.life() <= came.life());
    assert!(came.radius() >= 3, "nothing leaves its domain that may not");
    if let Some(allowed) = jurisdictions(from, came.residency()) {
        let further = jurisdictions(to, goes.residency()).unwrap();
        assert!(further.iter().all(|one| allowed.contains(one)));
    }
}

#[test]
fn interpreter_and_image_agree_and_nothing_widens() {
    let (mut taken, mut widening, mut refused, mut passed) = (0, 0, 0, 0);
    for seed in 0..1000 {
        let random = &mut Random::new(70_000 + seed);
        let text = "package acme.random\nuse acme.vocabulary\nuse partner.vocabulary\nzone lan = interface \"eth0\"\n".to_owned()
            + &translation(random)
            + &if random.one_in(3) { translation(random) } else { String::new() };
        let files = [
            ("random.gov", text.as_str()),
            ("vocabulary.gov", VOCABULARY),
            ("partner.gov", PARTNER),
        ];
        let checked = check(&files);
        if checked.policy.is_none() {
            let known = ["GOV2033", "GOV1020"];
            let codes: Vec<_> = checked.diagnostics.iter().map(|one| one.code.id).collect();
            assert!(codes.iter().any(|code| known.contains(code)), "{text}{codes:?}");
            widening += u32::from(codes.contains(&"GOV2033"));
            continue;
        }
        let compiled = compile(&files);
        taken += 1;
        for _ in 0..200 {
            let came = label(random, &compiled.policy);
            match agreed(&compiled.policy, &compiled.image, came, &text) {
                Ok((domain, goes)) => {
                    assert_eq!((domain, goes.domain()), (DomainId(0), 7));
                    if compiled.policy.translations().len() == 1 {
                        narrows(&compiled.policy, came, goes);
                    }
                    passed += 1;
                }
                Err(_) => refused += 1,
            }
        }
    }
    assert!(
        taken > 25 && widening > 100 && refused > 1000 && passed > 100,
        "{taken} {widening} {refused} {passed}"
    );
}

fn agreed(
    policy: &Policy,
    image: &Image,
    came: Label,
    text: &str,
) -> Result<(DomainId, Label), u8> {
    let wanted = interpret::translate(policy, 1, DomainId(1), came).unwrap();
    let found = image.translate(1, 1, came).unwrap();
    assert_eq!(
        found.map(|(domain, label)| (DomainId(domain as u8), label)),
        wanted,
        "{came:?}\n{text}"
    );
    // Nothing is said about labels of another domain, or that leave elsewhere.
    assert_eq!(image.translate(0, 1, came), None);
    assert_eq!(image.translate(1, 0, came), None);
    wanted
}

#[test]
fn within_a_domain_subjects_stay_and_the_rest_narrows() {
    let text = "package acme.nat\nuse acme.vocabulary\nzone lan = interface \"eth0\"\ntranslate acme -> acme on lan { cap level internal  drop compartments {finance}  add constraints {no_forward}  radius domain }";
    let compiled = compile(&[("nat.gov", text), ("vocabulary.gov", VOCABULARY)]);
    let random = &mut Random::new(5);
    for _ in 0..2000 {
        let came =
            Label { head: random.bits(), mid: random.bits(), tail: 0, pad: 0 }.with_domain(7);
        let (_, goes) = compiled.image.translate(1, 0, came).unwrap().unwrap();
        let wanted = interpret::translate(&compiled.policy, 1, DomainId(0), came).unwrap().unwrap();
        assert_eq!(goes, wanted.1);
        assert_eq!((goes.subject(), goes.operation()), (came.subject(), came.operation()));
        assert!(goes.level() <= came.level() && goes.radius() <= came.radius());
        assert_eq!(goes.compartments(), came.compartments() & !1);
        assert_eq!(goes.constraints(), came.constraints() | 0b10);
    }
}
