//! GOV6xxx, and what test packets become.

use govc_abi::attribute;

use super::*;
use crate::checked::{ExpectedRule, TestCase};

const POLICY: &str = "policy q { on ingress permit r { from acme.web } deny s { from acme.guest } \
                      pass t { from acme.audit } }\npolicy o { on ingress tier guardrails permit u { from acme.web } }";

fn test(fields: &str, expect: &str) -> [String; 2] {
    let body = POLICY.replace("q { on ingress", "q { on ingress tier guardrails");
    with_vocabulary(&format!(
        "{body}\nlegacy from office on wan {{ subject acme.guest operation web.get }}\n\
         test \"t\" {{ packet {{ {fields} }} expect {expect} }}"
    ))
}

fn case(fields: &str, expect: &str) -> TestCase {
    assert_good(&test(fields, expect)).tests.remove(0).cases.remove(0)
}

fn scalars(case: &TestCase, attributes: &[attribute::Attribute]) -> Vec<u32> {
    attributes.iter().map(|&at| case.request.scalars[usize::from(at)]).collect()
}

#[test]
fn labelled_packets() {
    use attribute::*;
    let label =
        [STATE, SUBJECT, LEVEL, RADIUS, COMPARTMENTS, CONSTRAINTS, OPERATION, RESIDENCY, ROUTE];
    let packet = case("from acme.payments.batch", "deny by default");
    assert_eq!(scalars(&packet, &label), [state::VALID, 320, 10, 2, 1, 0, 0, 0, 0]);
    assert_eq!(packet.hook, 0);
    assert_eq!(packet.by, Some(ExpectedRule::Default));
    let fields = "on egress from acme.payments.batch[63] level secret radius any compartments {health} \
                  constraints {no_forward} operation web.post residency us route backbone_eu";
    let packet = case(fields, "permit");
    assert_eq!(scalars(&packet, &label), [state::VALID, 383, 15, 4, 4, 2, 5, 3, 2]);
    assert_eq!((packet.hook, packet.permit, packet.by), (1, true, None));
}

#[test]
fn other_packets() {
    use attribute::*;
    let packet = case("from unlabelled", "deny by q.s");
    assert_eq!(scalars(&packet, &[STATE, SUBJECT, LEVEL, OBJECT]), [0, SCOPE_NONE, 0, SCOPE_NONE]);
    assert_eq!(packet.by, Some(ExpectedRule::Rule(1)));
    let packet = case("from legacy to acme.payments.ledger egress zone vpn", "permit by o.u");
    let attributes = [STATE, SUBJECT, OPERATION, OBJECT, INGRESS_ZONE, EGRESS_ZONE];
    assert_eq!(scalars(&packet, &attributes), [state::LEGACY, 3, 4, 257, 2, 3]);
    assert_eq!(packet.request.source, [0, 0xffff_0a14_0000]);
    assert_eq!(packet.by, Some(ExpectedRule::Rule(3)));
    let packet = case("from legacy source 2001:db8:20::7 ingress zone wan proto icmpv6", "deny");
    assert_eq!(packet.request.source, [0x2001_0db8_0020_0000, 7]);
    assert_eq!(packet.request.destination, [0x2001_0db8_0000_0000, 2]);
    let packet = case("from legacy proto icmpv6", "deny");
    assert_eq!(packet.request.source, [0x2001_0db8_0020_0000, 0]);
}

#[test]
fn transports() {
    use attribute::*;
    let ports = [PROTOCOL, SOURCE_PORT, DESTINATION_PORT, ICMP];
    let packet = case("from unlabelled proto tcp port 443", "deny");
    assert_eq!(scalars(&packet, &ports), [6, 40_000, 443, 0]);
    assert_eq!(packet.request.source, [0, 0xffff_c000_0201]);
    assert_eq!(packet.request.destination, [0, 0xffff_c000_0202]);
    let packet = case("from unlabelled proto udp port 53 source port 5353", "deny");
    assert_eq!(scalars(&packet, &ports), [17, 5353, 53, 0]);
    let packet = case("from unlabelled proto icmp", "deny");
    assert_eq!(scalars(&packet, &ports), [1, 0, 0, 8 << 8]);
    let packet = case("from unlabelled proto icmp type 3 code 4", "deny");
    assert_eq!(scalars(&packet, &ports), [1, 0, 0, 3 << 8 | 4]);
    let packet = case("from unlabelled proto icmpv6", "deny");
    assert_eq!(scalars(&packet, &ports), [58, 0, 0, 128 << 8]);
    assert_eq!(packet.request.source, [0x2001_0db8_0000_0000, 1]);
    let packet = case("from unlabelled proto 89", "deny");
    assert_eq!(scalars(&packet, &ports), [89, 0, 0, 0]);
}

#[test]
fn senders() {
    let texts = test("to acme.web", "deny");
    assert_told(&texts, codes::SENDER_MISSING, "packet", &["add `from SCOPE`"]);
    let code = codes::NOT_ONE_SENDER;
    assert_told(&test("from anyone", "deny"), code, "anyone", &["a packet has one sender"]);
    assert_told(&test("from labelled", "deny"), code, "labelled", &[]);
    let code = codes::NOT_ONE_SUBJECT;
    assert_told(&test("from acme.**", "deny"), code, "acme.**", &[]);
    let texts = test("from unlabelled level secret", "deny");
    assert_told(&texts, codes::FIELD_WITHOUT_LABEL, "secret", &["has no level"]);
    let code = codes::NO_LEGACY_RULE;
    assert_told(&test("from legacy source 10.0.0.1", "deny"), code, "legacy", &["`ingress zone`"]);
    assert_told(&test("from legacy ingress zone vpn", "deny"), code, "legacy", &[]);
    let texts = ["package p\ntest \"t\" { packet { from legacy } expect deny }"];
    assert_told(&texts, code, "legacy", &["legacy from ADDRESSES on ZONE"]);
    let texts = test("from acme.web life 2", "deny");
    assert_told(&texts, codes::FIELD_NOT_DECIDED, "2", &["no rule looks at `life`"]);
}

#[test]
fn values() {
    let texts = test("from unlabelled proto tcp", "deny");
    assert_told(&texts, codes::PORT_MISSING, "tcp", &["add `port NUMBER`"]);
    let code = codes::NOT_ONE_VALUE;
    let texts = test("from unlabelled proto tcp port web_ports", "deny");
    assert_told(&texts, code, "web_ports", &["one port, and several are said"]);
    let texts = test("from unlabelled proto icmp type 3..4", "deny");
    assert_told(&texts, code, "3..4", &["one type"]);
    let texts = test("from unlabelled source 10.0.0.0/8", "deny");
    assert_told(&texts, codes::NOT_A_HOST, "10.0.0.0/8", &["one address"]);
    let code = codes::MIXED_FAMILIES;
    let texts = test("from unlabelled source 10.0.0.1 destination ::1", "deny");
    assert_told(&texts, code, "::1", &["the source is IPv4, the destination IPv6"]);
    let texts = test("from unlabelled source 10.0.0.1 proto icmpv6", "deny");
    assert_told(&texts, code, "icmpv6", &["`icmpv6` runs over IPv6"]);
    let texts = test("from legacy source 10.20.0.1 destination ::1", "deny");
    assert_told(&texts, code, "::1", &[]);
}

#[test]
fn expectations() {
    let code = codes::UNKNOWN_RULE;
    let fields = "from acme.web";
    assert_told(&test(fields, "deny by q.x"), code, "x", &["policy `q` has no rule `x`", "`r`"]);
    assert_told(&test(fields, "deny by qq.r"), code, "qq", &["the policies are `q` and `o`"]);
    assert_told(&test(fields, "permit by r"), code, "r", &["`q.r`"]);
    assert_told(&test(fields, "permit by a.b.c"), code, "a.b.c", &["by default"]);
    let code = codes::IMPOSSIBLE_VERDICT;
    let words = ["`q.r` permits, so it never gives `deny`"];
    assert_told(&test(fields, "deny by q.r"), code, "q.r", &words);
    assert_told(&test(fields, "permit by q.s"), code, "q.s", &["denies"]);
    assert_told(&test(fields, "deny by q.t"), code, "q.t", &["passes"]);
}
