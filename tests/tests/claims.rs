//! Trust is in the packet, not in a table of addresses.

use std::net::{IpAddr, SocketAddr};

use govc_compiler::lock::Locks;
use govc_image::Image;
use govc_netlab::{DontFragment, Flow, IpPrefix};
use govc_tests::{
    check_with, kernel_available,
    lab::{BOTH_VERSIONS, Lab, READ, RULES, api, ledger},
    node::{DENIED_WAIT, Node, PATIENCE, address, connect, image, prefix, set_gateway, workload},
    policies::VOCABULARY,
    replay::Recording,
};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// A network that workloads move to.
const ELSEWHERE: u8 = 9;

/// Whether a datagram from `from` at A's side to the ledger's port gets an answer.
fn reads(node: &Node, from: IpAddr, lab: &Lab, patience: std::time::Duration) -> bool {
    let to = SocketAddr::new(address(2, 2, from.is_ipv6()), READ);
    let flow = Flow::new(&lab.b.namespace, to, &node.namespace, patience);
    let flow = flow.from(SocketAddr::new(from, 0));
    flow.udp_exchange(64, DontFragment::Want).unwrap().is_delivered()
}

/// Everything that B was told: what it enforces, and whom it knows.
fn told(node: &Node) -> (u64, String, usize) {
    let status = node.status();
    let (_, image) = govc_loader::instance::Instance::open(&node.place)
        .and_then(|instance| instance.active_image())
        .unwrap();
    (status.generation.number, govc_loader::publish::hex(&image.digest()), node.known_cgroups())
}

#[test]
fn a_workload_that_moves_keeps_its_verdict_and_leaves_its_address_worthless() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    // Somebody else, who will get A's address.
    let other = Node::new("c", &lab.keys);
    connect(4, [(&lab.router, "to_c"), (&other.namespace, "eth0")]);
    set_gateway(&other.namespace, "eth0", 4);
    other.apply(&image(&[&workload("acme.guest", "read"), RULES]), &["eth0"]);
    let before = told(&lab.b);
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    for v6 in BOTH_VERSIONS {
        let (old, new) = (address(1, 2, v6), address(ELSEWHERE, 2, v6));
        assert!(reads(&lab.a, old, &lab, PATIENCE), "positive control");
        // A moves to a network that B has never seen.
        lab.a.namespace.add_address("eth0", prefix(ELSEWHERE, 2, v6)).unwrap();
        lab.router.add_address("to_a", prefix(ELSEWHERE, 1, v6)).unwrap();
        lab.a.namespace.remove_address("eth0", prefix(1, 2, v6)).unwrap();
        let everywhere = if v6 { IpPrefix::DEFAULT_V6 } else { IpPrefix::DEFAULT_V4 };
        lab.a.namespace.set_route(everywhere, Some(address(ELSEWHERE, 1, v6)), "eth0").unwrap();
        lab.a.apply(&api(), &[]);
        assert!(reads(&lab.a, new, &lab, PATIENCE), "v6 {v6}");
        // Its old address goes to a guest, at once.
        let own = IpPrefix::new(old, if v6 { 128 } else { 32 }).unwrap();
        other.namespace.add_address("eth0", own).unwrap();
        lab.router.set_route(own, Some(address(4, 2, v6)), "to_c").unwrap();
        let denied = lab.b.count("ingress", "no_rule");
        assert!(!reads(&other, old, &lab, DENIED_WAIT), "v6 {v6}");
        assert!(lab.b.count("ingress", "no_rule") > denied, "it arrived, as what it is");
        assert!(reads(&lab.a, new, &lab, PATIENCE));
    }
    assert_eq!(told(&lab.b), before, "nobody told B anything");
    recording.replay(GOVC, &[]);
}

/// A node's policy over a vocabulary that is perhaps newer, with the numbers that the lock file
/// keeps.
fn with_vocabulary(vocabulary: &str, parts: &[&str]) -> Image {
    let mut locks = Locks::default();
    let lock = include_str!("../../examples/policies/acme/vocabulary.lock");
    locks.insert_text("acme.vocabulary", lock);
    let text = format!("package acme.e2e\nuse acme.vocabulary\n{}", parts.join("\n"));
    let checked = check_with(&[("e2e.gov", &text), ("vocabulary.gov", vocabulary)], &locks);
    let policy = checked.policy.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics));
    govc_compiler::compile(&policy, &checked.sources, "test").unwrap().1
}

#[test]
fn workloads_that_a_policy_has_never_heard_of_belong_to_the_scopes_that_it_names() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let rules = "policy ledger {
        on ingress to acme.payments.ledger
        permit payments { from acme.payments.**  proto udp port 5432 }
    }";
    lab.b.apply(
        &with_vocabulary(VOCABULARY, &[&workload("acme.payments.ledger", "read"), rules]),
        &["eth0"],
    );
    let before = told(&lab.b);
    // Later, elsewhere, two workloads come into being.
    let newer = VOCABULARY
        .replace("{ api  ledger  batch[64] }", "{ api  ledger  batch[64]  refunds }")
        .replace("{ front  checkout }", "{ front  checkout  refunds }");
    assert_eq!(newer.matches("refunds").count(), 2);
    for (subject, belongs) in [("acme.payments.refunds", true), ("acme.web.refunds", false)] {
        lab.a.apply(&with_vocabulary(&newer, &[&workload(subject, "read")]), &["eth0"]);
        for v6 in BOTH_VERSIONS {
            let patience = if belongs { PATIENCE } else { DENIED_WAIT };
            let denied = lab.b.count("ingress", "no_rule");
            assert_eq!(reads(&lab.a, address(1, 2, v6), &lab, patience), belongs, "{subject}");
            assert_eq!(lab.b.count("ingress", "no_rule") > denied, !belongs);
        }
    }
    assert_eq!(told(&lab.b), before);
    // The policy of the other tests, which names the API alone, lets neither in.
    lab.b.apply(&ledger(), &[]);
    assert!(!reads(&lab.a, address(1, 2, false), &lab, DENIED_WAIT));
}
