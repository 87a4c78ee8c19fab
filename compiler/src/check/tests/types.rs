//! GOV2xxx.

use super::*;
use crate::checked::From;

#[test]
fn values_of_another_type() {
    let code = codes::TYPE_MISMATCH;
    for (condition, at, words) in [
        ("level >= eu", "eu", "`level` is compared with `eu`, which is a residency"),
        (
            "compartments has secret",
            "secret",
            "`compartments` is compared with `secret`, which is a level",
        ),
        ("constraints has {finance}", "finance", "which is a compartment"),
        ("residency within wan", "wan", "`residency` is compared with `wan`, which is a zone"),
        ("route is office", "office", "which is a set of prefixes"),
        ("operation is finance", "finance", "`operation` is compared with `finance`"),
        (
            "operation is acme.web",
            "acme.web",
            "`operation` is compared with `acme.web`, which is a scope",
        ),
    ] {
        let told = assert_told(&rule(&format!("where {condition}")), code, at, &[words]);
        assert_eq!(told.labels.len(), 2);
    }
    let told = assert_told(&rule("where level >= eu"), code, "eu", &["`public`, `internal`"]);
    assert_eq!(told.labels[1].text, "compares with a level");
}

#[test]
fn zones_of_another_type() {
    let texts = rule("where ingress zone is secret");
    assert_told(&texts, codes::WRONG_KIND, "secret", &["`secret` is a level, not a zone"]);
}

#[test]
fn operators() {
    let code = codes::OPERATOR_MISMATCH;
    for (condition, at, words) in [
        ("level within secret", "within", "`level` takes `is`, `!=`, `<`"),
        ("compartments >= finance", ">=", "`compartments` takes `has`"),
        ("constraints < no_forward", "<", "`constraints` takes"),
        ("residency has eu", "has", "`residency` takes `within`, `is` and `!=`"),
        ("route <= default", "<=", "`route` takes `is` and `!=`"),
        ("operation within web.get", "within", "`operation` takes `is` and `!=`"),
        ("radius has node", "has", "`radius` takes"),
        ("ingress zone > pods", ">", "`ingress zone` takes `is` and `!=`"),
    ] {
        let told = assert_told(&rule(&format!("where {condition}")), code, at, &[words]);
        assert_eq!(told.labels.len(), 2);
    }
}

#[test]
fn sets_for_one_name() {
    let code = codes::VALUE_SHAPE;
    let words = ["`level` is compared with a set", "(level is public or level is secret)"];
    assert_told(&rule("where level is {public, secret}"), code, "{public, secret}", &words);
    assert_told(
        &rule("where route is {default}"),
        code,
        "{default}",
        &["write `route is default`"],
    );
}

#[test]
fn sets() {
    let set = |members: &str| [format!("package p\nlet s = {members}")];
    let told =
        assert_told(&set("10.0.0.0/8, 80"), codes::MIXED_SET, "80", &["mixes prefixes and ports"]);
    assert_eq!(told.labels[1].text, "prefixes");
    let words =
        ["`10.0.0.1/8` has host bits", "10.0.0.0/8 for the network", "10.0.0.1/32 for the host"];
    assert_told(&set("10.0.0.1/8"), codes::HOST_BITS, "10.0.0.1/8", &words);
    let words = ["2001:db8::/32 for the network"];
    assert_told(&set("2001:db8::1/32"), codes::HOST_BITS, "2001:db8::1/32", &words);
    assert_told(&set("90..80"), codes::REVERSED_RANGE, "90..80", &["write 80..90"]);
    assert_told(&set("65536"), codes::PORT_TOO_LARGE, "65536", &["port 65536 is above 65535"]);
    assert_told(&set("1..70000"), codes::PORT_TOO_LARGE, "70000", &[]);
    let texts = [
        "package p\nlet a = 80\nlet b = 10.0.0.0/8, a",
        "package q\nuse p\npolicy q { on ingress deny r { source b } }",
    ];
    assert_told(&texts, codes::MIXED_SET, "a", &[]);
}

#[test]
fn prefix_lengths() {
    for (prefix, words) in [("10.0.0.0/33", "up to 32"), ("2001:db8::/129", "up to 128")] {
        let texts = [format!("package p\nlet s = {prefix}")];
        assert_told(&texts, codes::PREFIX_LENGTH, prefix, &[words]);
    }
}

#[test]
fn sets_of_another_type() {
    let code = codes::SET_MISMATCH;
    let words = ["`source` takes prefixes, and `web_ports` is a set of ports"];
    assert_told(&rule("from anyone source web_ports"), code, "web_ports", &words);
    assert_told(&rule("destination 80"), code, "80", &["`80` is a number"]);
    let words = ["`port` takes ports, and `office` is a set of prefixes"];
    assert_told(&rule("proto tcp port office"), code, "office", &words);
    let words = ["`source port` takes ports, and `10.0.0.0/8` is a prefix"];
    assert_told(&rule("proto tcp source port 80, 10.0.0.0/8"), code, "10.0.0.0/8", &words);
    let texts = with_vocabulary("legacy from web_ports on wan { subject acme.guest }");
    assert_told(&texts, code, "web_ports", &["`from` takes prefixes"]);
    let texts = with_vocabulary("stamp on pods when address 80 { subject acme.guest }");
    assert_told(&texts, code, "80", &["`address` takes prefixes"]);
}

#[test]
fn protocols() {
    let code = codes::PROTO_WITHOUT_PORTS;
    assert_told(&rule("proto icmp port 80"), code, "80", &["`icmp` has no port"]);
    assert_told(&rule("proto 47 port 80, 81"), code, "80, 81", &["protocol 47 has no port"]);
    assert_told(&rule("proto 6 source port 80"), code, "80", &["write `proto tcp source port ..`"]);
    let code = codes::PROTO_WITHOUT_TYPES;
    assert_told(
        &rule("proto udp type 8"),
        code,
        "8",
        &["`udp` has no type", "`icmp` and `icmpv6`"],
    );
    assert_told(&rule("proto 58 code 1"), code, "1", &["write `proto icmpv6 code ..`"]);
    let code = codes::ICMP_TOO_LARGE;
    assert_told(&rule("proto icmp type 256"), code, "256", &["type 256 is above 255"]);
    assert_told(&rule("proto icmp code 3..300"), code, "300", &["code 300 is above 255"]);
    let texts = rule("proto icmp type web_ports");
    assert_told(&texts, code, "web_ports", &["type 8099 is above 255"]);
    assert_told(&rule("proto 256"), codes::PROTO_TOO_LARGE, "256", &["8 bits"]);
}

#[test]
fn policies() {
    let words = ["policy `q` does not say where it holds", "add `on ingress`"];
    let texts = with_vocabulary("policy q { permit r { from acme.web } }");
    assert_told(&texts, codes::NO_HOOK, "q", &words);
    let body = |observe: &str, rule: &str| {
        with_vocabulary(&format!(
            "{observe} policy q {{ on ingress tier guardrails {rule} r {{ from acme.web }} }}"
        ))
    };
    let code = codes::OBSERVED_PASS;
    assert_told(&body("", "observe pass"), code, "r", &["passes and only observes"]);
    let told = assert_told(&body("observe", "pass"), code, "r", &["let the rule pass for good"]);
    assert_eq!(told.labels[1].text, "all of this policy only observes");
    assert_good(&body("observe", "permit"));
    assert_good(&body("", "pass"));
}

#[test]
fn labels() {
    let stamp = |fields: &str| with_vocabulary(&format!("stamp on pods {{ {fields} }}"));
    let words = ["level `secret` is above `confidential`, the level of `acme.payments.api`"];
    let texts = stamp("subject acme.payments.api level secret");
    let told = assert_told(&texts, codes::LEVEL_RAISED, "secret", &words);
    assert_eq!(told.labels[1].text, "at `confidential`");
    let words = ["`audit` and `health` are no compartments of `acme.payments.api`"];
    let texts = stamp("subject acme.payments.api compartments {finance, audit, health}");
    let at = "compartments {finance, audit, health}";
    let told = assert_told(&texts, codes::COMPARTMENTS_ADDED, at, &words);
    assert_eq!(told.labels[1].text, "in `finance`");
    let words = ["this stamp rule has no subject", "add `subject PATH`"];
    assert_told(&stamp("level public"), codes::SUBJECT_MISSING, "stamp", &words);
    let texts = with_vocabulary("legacy from office on wan { level public }");
    assert_told(&texts, codes::SUBJECT_MISSING, "legacy", &["this legacy rule"]);
    let words = ["life 5 is refused everywhere", "up to 4, that is 16 slots"];
    assert_told(&stamp("subject acme.web life 5"), codes::LIFE_TOO_LONG, "5", &words);
    let words = ["life 16 is above 15"];
    assert_told(&stamp("subject acme.web life 16"), codes::LIFE_TOO_LONG, "16", &words);
    let texts = stamp("subject acme.web operation ledger");
    assert_told(&texts, codes::OPERATION_GROUP, "ledger", &["`ledger.read`"]);
    assert_told(&stamp("subject acme.web radius far"), codes::UNKNOWN_RADIUS, "far", &[]);
    assert_told(&stamp("subject acme.web residency uk"), codes::UNKNOWN_NAME, "uk", &[]);
}

#[test]
fn carriages_that_contradict() {
    let two = |first: &str, second: &str| {
        with_vocabulary(&format!("carriage {first}\ncarriage {second}"))
    };
    let code = codes::CARRIAGES_CONTRADICT;
    for (first, second) in [
        ("tunnel to 10.0.0.0/8 on wan", "option to 10.1.0.0/16 on wan"),
        ("option to 10.0.0.0/8 on wan", "tunnel to 10.0.0.0/8 on wan"),
        ("tunnel to 10.0.0.0/8, 11.0.0.0/8 on wan", "option to 11.0.0.0/8, 12.0.0.0/8 on wan"),
    ] {
        let kind = second.split(' ').next().unwrap();
        assert_told(&two(first, second), code, kind, &["exceptions first"]);
    }
    let covered = two("tunnel to 10.0.0.0/8 on wan", "tunnel to 10.1.0.0/16 on wan");
    let found = run(&covered.each_ref().map(String::as_str), &Locks::default());
    assert!(found.diagnostics.iter().any(|told| told.code == codes::UNREACHABLE_ITEM));
    for (first, second) in [
        ("option to 10.1.0.0/16 on wan", "tunnel to 10.0.0.0/8 on wan"),
        ("tunnel to 10.0.0.0/8 on wan", "option to 10.1.0.0/16 on vpn"),
        ("tunnel to 10.0.0.0/8 on wan", "option to 11.0.0.0/8 on wan"),
    ] {
        let found = run(&two(first, second).each_ref().map(String::as_str), &Locks::default());
        assert!(found.diagnostics.is_empty(), "{first} {second} {:#?}", found.diagnostics);
    }
    let texts = with_vocabulary(
        "legacy from office on wan { subject acme.guest }\ncarriage tunnel to 10.20.1.0/24 on wan",
    );
    assert_told(&texts, codes::CARRIAGE_OF_NOTHING, "tunnel", &["10.20.1.0/24", "legacy"]);
}

#[test]
fn exceptions_that_leave_nothing() {
    let code = codes::NOTHING_LEFT;
    let texts = ["package p\nlet a = 10.0.0.0/9 except 10.0.0.0/10, 10.0.0.0/8"];
    let overlap = run(&texts, &Locks::default());
    assert!(overlap.diagnostics.iter().any(|told| told.code == code), "{overlap:#?}");
    let texts = ["package p\nlet a = 80, 81 within 90..99 except 95"];
    assert_told(&texts, code, "90..99", &["nothing is left of the set"]);
    for (clause, at) in [
        ("from acme.guest except acme.**", "acme.**"),
        ("to acme.payments.* except acme.payments.**", "acme.payments.**"),
        ("operation ledger.read except ledger.write, ledger.*", "ledger.write, ledger.*"),
        ("source office except 0.0.0.0/0, ::/0", "0.0.0.0/0, ::/0"),
    ] {
        let texts = rule(clause);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let told = run(&texts, &Locks::default()).diagnostics;
        let places: Vec<_> = told.iter().filter(|told| told.code == code).collect();
        assert_eq!(places.len(), 1, "{clause}: {told:#?}");
        assert_eq!(text_at(&texts, places[0], 0), at);
        assert_style(places[0]);
    }
}

#[test]
fn whoever_has_no_label_is_left_of_anyone() {
    // As many domains as there may be: none of them is left, and those without a label are.
    let only = with_vocabulary("policy q { on ingress deny r { from anyone except acme.** } }");
    let both = with_vocabularies(
        "policy q { on ingress deny r { from anyone except acme.**, partner.** } }",
    );
    for texts in [only.as_slice(), both.as_slice()] {
        assert_eq!(assert_good(texts).rules()[0].matches.from, [From::Unlabelled]);
    }
}

#[test]
fn exceptions_from_kinds_of_labels() {
    let code = codes::EXCEPTION_OF_ALL;
    let told =
        assert_told(&rule("from labelled except acme.guest"), code, "labelled", &["`labelled`"]);
    assert_eq!(told.labels.len(), 2);
}
