//! The OpenMetrics text: read by a parser of another hand, and held against the dashboard.

use std::collections::BTreeSet;

use govc::commands::metrics::{Snapshot, text};
use govc_loader::{
    attach::Attached,
    confirm::Pending,
    status::{
        EventCount, GenerationStatus, GrantStatus, HeldStatus, InterfaceStatus, KeyStatus,
        ReasonCount, RuleCount, Status,
    },
};
use openmetrics_parser::openmetrics::parse_openmetrics;
use serde_json::Value;

/// A status with one of everything, and names that have to be escaped.
fn status() -> Status {
    let rule = |rule: &str, place: &str, action| RuleCount {
        rule: rule.into(),
        place: place.into(),
        action,
        packets: 11,
        bytes: 1100,
        would: 5,
        meaning: [0; 8],
    };
    Status {
        instance: "default".into(),
        generation: GenerationStatus {
            number: 3,
            policy: "acme.payments".into(),
            published_ns: 1_700_000_000_500_000_000,
            rules: 2,
            image_len: 65_536,
            digest: "ab".repeat(32),
            not_before: Some(1_700_000_000),
            not_after: Some(1_800_000_001),
        },
        earlier: None,
        interfaces: vec![InterfaceStatus {
            attached: Attached {
                interface: "eth0".into(),
                index: 2,
                ingress: "tcx".into(),
                why: "veth".into(),
            },
            zone: Some("pods".into()),
        }],
        keys: vec![KeyStatus { domain: "acme".into(), valid_now: true, ends_in_s: 3600 }],
        grants: vec![GrantStatus {
            domain: "acme".into(),
            stamps: vec![HeldStatus { serial: 11, not_after: 1_800_000_001 }],
            translates: vec![HeldStatus { serial: 12, not_after: 1_700_000_001 }],
            revoked: 4,
        }],
        reasons: vec![
            ReasonCount {
                hook: "ingress",
                reason: "rule",
                permitted: None,
                packets: 22,
                bytes: 2200,
            },
            ReasonCount {
                hook: "egress",
                reason: "bad_mac",
                permitted: Some(false),
                packets: u64::from(u32::MAX) + 1,
                bytes: 7,
            },
        ],
        rules: vec![
            rule("ledger.read", "a \"b\"\\c\nd.gov:10:5", "permit"),
            rule("ledger.soon", "b.gov:1:1", "observe deny"),
        ],
        events: EventCount {
            delivered: 100,
            lost_full: 1,
            lost_rate: 2,
            rate: 10_000,
            permits: false,
            reader: true,
        },
        answers_withheld: 3,
        pending: Some(Pending { before: 2, left_s: 30 }),
    }
}

/// Names of all families.
fn names(text: &str) -> Result<BTreeSet<String>, String> {
    let parsed = parse_openmetrics(text).map_err(|error| format!("{error:?}\n{text}"))?;
    Ok(parsed.families.keys().cloned().collect())
}

#[test]
fn everything_that_is_counted_is_there() {
    let text = text(&Snapshot(Some(status()))).unwrap();
    assert!(text.ends_with("\n# EOF\n"), "{text}");
    let names = names(&text).unwrap();
    for line in [
        r#"govc_build_info{version="#,
        "govc_up 1",
        r#"govc_policy_info{name="default",policy="acme.payments",digest="abab"#,
        "govc_generation 3",
        "govc_generation_published_timestamp_seconds 1700000000.5",
        "govc_rules 2",
        "govc_image_bytes 65536",
        "govc_confirm_pending 1",
        "govc_policy_expiry_timestamp_seconds 1800000001",
        r#"govc_grants_revoked{domain="acme"} 4"#,
        r#"govc_grant_expiry_timestamp_seconds{domain="acme",serial="11",use="stamp"} 1800000001"#,
        r#"govc_grant_expiry_timestamp_seconds{domain="acme",serial="12",use="translate"} 1700000001"#,
        r#"govc_packets_total{hook="ingress",reason="rule",verdict="rule"} 22"#,
        r#"govc_packets_total{hook="egress",reason="bad_mac",verdict="deny"} 4294967296"#,
        r#"govc_packet_bytes_total{hook="egress",reason="bad_mac",verdict="deny"} 7"#,
        r#"govc_events_total{outcome="delivered"} 100"#,
        r#"govc_events_total{outcome="lost_rate"} 2"#,
        r#"govc_events_total{outcome="lost_full"} 1"#,
        "govc_permits_reported 0",
        r#"govc_rule_packets_total{policy="ledger",rule="read",action="permit"} 11"#,
        r#"govc_rule_info{policy="ledger",rule="read",action="permit",place="a \"b\"\\c\nd.gov:10:5"} 1"#,
        r#"govc_rule_bytes_total{policy="ledger",rule="soon",action="observe deny"} 1100"#,
        r#"govc_rule_would_packets_total{policy="ledger",rule="soon",action="observe deny"} 5"#,
        r#"govc_interface_info{interface="eth0",index="2",hook="tcx",zone="pods"} 1"#,
        r#"govc_key_valid{domain="acme"} 1"#,
        r#"govc_key_expiry_seconds{domain="acme"} 3600"#,
    ] {
        assert!(text.lines().any(|l| l.starts_with(line)), "{line} is not in\n{text}");
    }
    // One family each, and one description.
    assert_eq!(text.matches("# TYPE").count(), names.len(), "{text}");
    assert_eq!(text.matches("# HELP").count(), names.len(), "{text}");
}

#[test]
fn no_instance_is_a_metric_too() {
    let text = text(&Snapshot(None)).unwrap();
    assert!(text.contains("\ngovc_up 0") && text.ends_with("\n# EOF\n"), "{text}");
    assert_eq!(names(&text).unwrap().len(), 2);
}

#[test]
fn the_dashboard_asks_for_metrics_that_there_are() {
    let text = text(&Snapshot(Some(status()))).unwrap();
    let known: BTreeSet<&str> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(['{', ' ']).next().unwrap())
        .collect();
    let dashboard: Value = serde_json::from_str(include_str!("../../docs/grafana.json")).unwrap();
    let mut asked = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(panel["title"].is_string() && panel["gridPos"].is_object(), "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let query = target["expr"].as_str().unwrap();
            let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let words = query.split(|c| !is_part(c)).filter(|word| word.starts_with("govc_"));
            let words: Vec<&str> = words.collect();
            assert!(!words.is_empty(), "{query}");
            asked.extend(words.into_iter().map(str::to_owned));
        }
    }
    for name in &asked {
        assert!(known.contains(name.as_str()), "{name} is none of {known:?}");
    }
    assert!(asked.len() > 8, "{asked:?}");
}
