//! GOV5xxx: one more than each limit.

use std::fmt::Write as _;

use govc_abi::limits as max;

use super::*;

/// `first` to `last` as names with commas.
fn names(first: usize, last: usize) -> String {
    (first..=last).map(|n| format!("n{n}")).collect::<Vec<_>>().join(", ")
}

fn domain(body: &str, items: &str) -> [String; 1] {
    [format!("package a\ndomain d = 1 {{ {body} }}\n{items}")]
}

#[test]
fn vocabularies() {
    let levels = |last| names(1, last).replace(',', " <");
    assert_good(&domain(&format!("level {{ {} }}", levels(16)), ""));
    let texts = domain(&format!("level {{ {} }}", levels(17)), "");
    assert_told(&texts, codes::TOO_MANY_LEVELS, "n17", &["more than 16 levels", "4 bits"]);
    let compartments = |last| format!("compartments {{ {} }}", names(1, last));
    assert_good(&domain(&compartments(16), ""));
    let code = codes::TOO_MANY_COMPARTMENTS;
    assert_told(&domain(&compartments(17), ""), code, "n17", &["more than 16 compartments"]);
    assert_good(&domain("", &format!("constraint {}", names(1, 16))));
    let texts = domain("", &format!("constraint {}", names(1, 18)));
    assert_told(&texts, codes::TOO_MANY_CONSTRAINTS, "n17", &["more than 16 constraints"]);
    let residencies = |last| format!("residency {}", names(1, last));
    assert_good(&domain("", &residencies(255)));
    let texts = domain("", &residencies(256));
    assert_told(&texts, codes::TOO_MANY_RESIDENCIES, "n256", &["more than 255 residencies"]);
    assert_good(&domain("", &format!("route {}", names(1, 255))));
    let texts = domain("", &format!("route {}", names(1, 256)));
    assert_told(&texts, codes::TOO_MANY_ROUTES, "n256", &["more than 255 route classes"]);
    let operations = |last| format!("operation g {{ {} }}", names(1, last));
    let policy = assert_good(&domain("", &operations(65_535)));
    assert_eq!(policy.domains[0].operations.last(), Some(&("g.n65535".into(), 65_535)));
    let code = codes::TOO_MANY_OPERATIONS;
    assert_told(&domain("", &operations(65_536)), code, "n65536", &["more than 65535 operations"]);
}

#[test]
fn domains() {
    let texts = |count| -> Vec<String> {
        (1..=count).map(|n| format!("package p{n}\ndomain d{n} = {n}")).collect()
    };
    assert_good(&texts(max::DOMAINS_NAMED_MAX));
    let code = codes::TOO_MANY_DOMAINS;
    assert_told(&texts(16), code, "d16", &["more than 15 domains"]);
    assert_told(&texts(17), code, "d16", &["more than 15 domains"]);
}

#[test]
fn subjects() {
    let code = codes::TOO_MANY_SUBJECTS;
    let scopes = |entries: &str| domain("", &format!("scope d {{ {entries} }}"));
    let texts = scopes("a[16777216]");
    assert_told(&texts, code, "16777216", &["more than 16777215 subjects"]);
    let policy = assert_good(&scopes("a[8388608] b { c[4000000] }"));
    assert_eq!(policy.domains[0].scopes[0].subjects, Some((8_388_608, 16_777_215)));
    assert_eq!(policy.domains[0].scopes[2].subjects, Some((4_194_304, 8_194_303)));
    let texts = scopes("a[8388608] b[4194304] c[4194304] d");
    assert_told(&texts, code, "c", &["no subject numbers left for `c`"]);
}

#[test]
fn zones() {
    let zones = |last| {
        let zones = (1..=last).map(|n| format!("z{n} = interface \"e{n}\"\n")).collect::<String>();
        [format!("package a\nzone {zones}")]
    };
    assert_eq!(assert_good(&zones(max::ZONES_MAX)).zones.len(), 254);
    assert_told(&zones(255), codes::TOO_MANY_ZONES, "z255", &["more than 254 zones"]);
}

fn stamps(count: usize, condition: impl Fn(usize) -> String) -> [String; 2] {
    let mut body = String::new();
    for n in 1..=count {
        let _ = writeln!(body, "stamp on pods when {} {{ subject acme.web }}", condition(n));
    }
    with_vocabulary(&body)
}

#[test]
fn edges() {
    let texts = stamps(65_535, |n| format!("cgroup \"/c{n}\""));
    assert_told(&texts, codes::TOO_MANY_CGROUPS, "\"/c65535\"", &["more than 65534 cgroup"]);
    let address = |n: usize| format!("address 10.{}.{}.{}", n >> 16, n >> 8 & 255, n & 255);
    let texts = stamps(max::LABELS_MAX + 1, address);
    let words = ["more than 65536 stamp and legacy rules"];
    assert_told(&texts, codes::TOO_MANY_LABELS, "pods", &words);
}

#[test]
fn declarable_operations() {
    let names = |count: usize| (0..count).map(|n| format!("o.a{n}")).collect::<Vec<_>>();
    let text = |count| {
        let operations = names(17).join(" ").replace("o.", "");
        let granted = names(count).join(" or ");
        [format!(
            "package p\ndomain acme = 7 {{ level {{ public }} }}\nscope acme {{ api at public }}\n\
             operation o {{ {operations} }}\nzone pods = interface \"veth*\"\n\
             stamp on pods {{ subject acme.api  operation {granted} }}"
        )]
    };
    let policy = assert_good(&text(max::DECLARABLE_MAX));
    let label = &policy.stamps[0].label;
    assert_eq!((label.operation, label.operations.len()), (1, 16));
    assert_eq!(label.operations[15], ("o.a15".into(), 16));
    assert_told(&text(17), codes::TOO_MANY_DECLARABLE, "o.a16", &["more than 16 operations"]);
}

#[test]
fn rules() {
    let text = "package p\npolicy q { on ingress deny a { } deny b { } deny c { } }";
    let (file, _) = govc_grammar::parse(FileId(0), text);
    let files = [(FileId(0), file)];
    for (rules_max, at) in [(3, None), (2, Some("c")), (0, Some("a"))] {
        let mut sink = crate::check::sink::Sink::default();
        let packages = crate::resolve::Packages::new(&files, &mut sink);
        let world = crate::resolve::World::new(&files, packages, Vec::new(), &mut sink);
        let outline = crate::check::policies::Outline::new(&world, &mut sink);
        outline.check_count(rules_max, &mut sink);
        let told = sink.finish();
        assert_eq!(told.first().map(|one| text_at(&[text], one, 0)), at);
        if let Some(one) = told.first() {
            assert_eq!((one.code, told.len()), (codes::TOO_MANY_RULES, 1));
            assert_style(one);
        }
    }
}
