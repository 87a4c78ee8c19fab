//! What translations make of labels, as `diff`, `explain` and `test` tell it.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};
use tempfile::TempDir;

const ACME: &str = include_str!("../../examples/policies/acme/vocabulary.gov");
const PARTNER: &str = include_str!("../../examples/policies/partner/vocabulary.gov");
const GATEWAY: &str = "package acme.gateway
use acme.vocabulary
use partner.vocabulary
zone lan = interface \"eth0\"  neighbours = interface \"eth1\"
policy transit { on forward  permit orders { from partner.**  proto udp port 5432 } }
translate partner -> acme on lan {
    partner.billing.dunning -> acme.guest
    partner.** -> acme.web.front
    cap level public
    drop compartments
    constraints sealed -> confidential
    add constraints {no_forward}
    operation shop.order -> ledger.read
    residency europe -> eu
}
test \"orders\" {
    packet { on forward  from partner.shop  operation shop.order  radius federation  ingress zone neighbours  egress zone lan  proto udp port 5432 }
    expect permit by transit.orders
    packet { on forward  from partner.shop  operation shop.browse  radius any  egress zone lan  proto udp port 5432 }
    expect permit
    packet { on forward  from partner.shop  egress zone neighbours  proto udp port 5432 }
    expect permit
    packet { on forward  from partner.shop  egress zone lan  proto udp port 1 }
    expect deny
}
";

/// A directory with both vocabularies and a gateway's policy.
fn desk() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    for (name, text) in [("acme", ACME), ("partner", PARTNER)] {
        fs::create_dir(at.join(name)).unwrap();
        fs::write(at.join(name).join("vocabulary.gov"), text).unwrap();
    }
    fs::write(at.join("gateway.gov"), GATEWAY).unwrap();
    directory
}

/// How a command ends, and what it says.
fn govc(at: &Path, arguments: &[&str]) -> (i32, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_govc")).current_dir(at).args(arguments).output().unwrap();
    let text = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn diff_tells_what_translations_say_otherwise() {
    let directory = desk();
    let at = directory.path();
    let other = |from: &str, to: &str| {
        assert!(GATEWAY.contains(from), "{from}");
        fs::write(at.join("other.gov"), GATEWAY.replacen(from, to, 1)).unwrap();
        govc(at, &["diff", "gateway.gov", "other.gov"])
    };
    assert_eq!(other("transit", "transit").0, 0);
    let head = "translate partner -> acme on lan:";
    for (from, to, told) in [
        (
            "    residency",
            "    drop constraints {counted}\n    residency",
            &["+ {head} drop constraints {counted}"][..],
        ),
        ("    residency europe -> eu\n", "", &["- {head} residency europe -> eu"]),
        (
            "europe -> eu",
            "europe -> de",
            &["- {head} residency europe -> eu", "+ {head} residency europe -> de"],
        ),
        (
            "add constraints {no_forward}",
            "radius federation",
            &[
                "- {head} add constraints {no_forward}",
                "+ {head} radius federation",
                "- {head} radius domain",
            ],
        ),
        ("add constraints", "life 1  add constraints", &["+ {head} life 1", "- {head} life 2"]),
        (
            "order -> ledger.read",
            "order -> ledger.write",
            &[
                "- {head} operation shop.order -> ledger.read",
                "+ {head} operation shop.order -> ledger.write",
            ],
        ),
        (
            "dunning -> acme.guest",
            "dunning -> acme.web.front",
            &[
                "- {head} partner.billing.dunning -> acme.guest",
                "+ {head} partner.** -> acme.web.front",
            ],
        ),
        // The first one that matches counts.
        (
            "    partner.billing.dunning -> acme.guest\n    partner.** -> acme.web.front\n",
            "    partner.** -> acme.web.front\n    partner.billing.dunning -> acme.guest\n",
            &["- {head} partner.billing.dunning -> acme.guest"],
        ),
        (
            "partner -> acme on lan",
            "partner -> acme on neighbours",
            &["+ translate partner -> acme on neighbours: cap"],
        ),
    ] {
        let (code, text) = other(from, to);
        assert_eq!(code, 13, "{to}: {text}");
        for line in told {
            let line = line.replace("{head}", head);
            let line = line.strip_suffix(": cap").unwrap_or(&line);
            assert!(text.contains(line), "{line}: {text}");
        }
    }
    // Whatever is permitted besides counts for more, and what is denied for less.
    let (code, text) = other(
        "port 5432 } }",
        "port 5432  proto udp port 9 } }\ntranslate acme -> partner on neighbours { acme.guest -> partner.visitor  cap level outer  drop compartments }",
    );
    assert_eq!(code, 12, "{text}");
    assert!(
        text.contains("+ translate acme -> partner on neighbours: acme.guest -> partner.visitor"),
        "{text}"
    );
    let (code, text) = other(
        "port 5432 } }",
        "port 5431 } }\ntranslate acme -> acme on neighbours { radius cluster }",
    );
    assert_eq!(code, 12, "{text}");
    assert!(text.contains("+ translate acme -> acme on neighbours: radius cluster"), "{text}");
    assert!(!text.contains("ledger.read -> ledger.read"), "within a domain, names stay: {text}");
    // Images say the same as sources, and programs read it.
    other("europe -> eu", "europe -> de");
    for name in ["gateway", "other"] {
        govc(at, &["build", &format!("{name}.gov"), "-o", &format!("{name}.image")]);
    }
    let (code, text) = govc(at, &["diff", "--json", "gateway.image", "other.image"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(code, 13);
    assert_eq!(
        report["translations"],
        json!({
            "removed": [format!("{head} residency europe -> eu")],
            "added": [format!("{head} residency europe -> de")],
        })
    );
    assert_eq!(report["changes"], json!([]));
}

#[test]
fn explain_and_test_tell_what_a_label_becomes() {
    let directory = desk();
    let at = directory.path();
    let packet = |more: &str| {
        format!(
            "packet {{ on forward  from partner.shop  operation shop.order  {more}  ingress zone neighbours  egress zone lan  proto udp port 5432 }}"
        )
    };
    let becomes = "from acme.web.front  operation ledger.read  level public  compartments {}  constraints {confidential, no_forward}";
    let (code, text) =
        govc(at, &["explain", "gateway.gov", &packet("radius federation  constraints {sealed}")]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&format!("  leaves as {becomes}\n")), "{text}");
    let (_, text) = govc(
        at,
        &["explain", "--json", "gateway.gov", &packet("radius any  constraints {sealed}")],
    );
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["becomes"], json!({ "label": becomes, "grant": null, "refused": null }));
    let (_, text) = govc(at, &["explain", "gateway.gov", &packet("")]);
    assert!(
        text.contains("permit by transit.orders")
            && text.contains("is refused where it leaves: radius_exceeded"),
        "{text}"
    );
    // What is denied becomes nothing, and what is not translated stays.
    for stays in [
        packet("radius any").replace("5432", "1"),
        packet("").replace("zone lan", "zone neighbours"),
    ] {
        let (_, text) = govc(at, &["explain", "--json", "gateway.gov", &stays]);
        let report: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(report["becomes"], Value::Null, "{text}");
    }
    let (code, text) = govc(at, &["test", "gateway.gov"]);
    assert_eq!(code, 0, "{text}");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let leaves = lines.iter().position(|line| line.ends_with("orders")).unwrap();
    assert_eq!(
        lines[leaves + 1],
        "leaves as from acme.web.front  operation ledger.read  level public  compartments {}  constraints {no_forward}",
        "{text}"
    );
    assert_eq!(lines[leaves + 2], "is refused where it leaves: operation_untranslated", "{text}");
    assert_eq!(text.matches("leaves").count(), 2, "{text}");
}
