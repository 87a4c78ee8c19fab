//! Routers that hold routing authority: what passes through is decided by where it came in and
//! where it leaves, and keeps its label.

use std::net::SocketAddr;

use govc_image::Image;
use govc_loader::attach::HookChoice;
use govc_netlab::{DontFragment, Flow, IpPrefix, Namespace, Outcome};
use govc_tests::{
    kernel_available,
    lab::{
        BOTH_VERSIONS, CALL_BACK, Lab, READ, RULES, UNNAMED, api, delivered, denied, ledger,
        transfer,
    },
    node::{
        DENIED_WAIT, How, Keys, Node, address, connect, image, udp_socket, wait_until, workload,
    },
    replay::Recording,
};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// What the router lets pass.
const TRANSIT: &str = "
zone left = interface \"to_a\"
     right = interface \"to_b\"
     tunnel = interface \"wg*\" encrypted
policy transit {
    on forward
    permit reads { from acme.payments.api  where egress zone is right, residency within eu  proto tcp port 5432  proto udp port 5432 }
    permit call_backs { from acme.payments.ledger  where ingress zone is right and egress zone is left  proto tcp port 6000  proto udp port 6000 }
    deny secrets { where constraints has confidential and not egress zone is encrypted }
}
";

/// What passes from A to B.
const LEFT_TO_RIGHT: [&str; 4] = ["--on", "forward", "--to-zone", "right"];

/// The lab, with a router that is a node.
fn lab(policy: &Image, hook: HookChoice) -> (Lab, Node) {
    let lab = Lab::governed();
    let router = Node::within(Namespace::clone(&lab.router), &lab.keys);
    let how = How { hook, ..How::default() };
    router.try_apply(policy, &["to_a", "to_b"], how).unwrap();
    (lab, router)
}

fn exchange(flow: Flow<'_>) -> Outcome {
    flow.udp_exchange(64, DontFragment::Want).unwrap()
}

fn brief(flow: Flow<'_>) -> Flow<'_> {
    Flow { timeout: DENIED_WAIT, ..flow }
}

#[test]
fn labels_pass_through_and_replies_come_back() {
    if !kernel_available() {
        return;
    }
    for hook in [HookChoice::Tcx, HookChoice::Xdp] {
        let (lab, router) = lab(&image(&[TRANSIT]), hook);
        let watches = lab.watch();
        let recording = Recording::start(&router, "to_a", (&lab.a.namespace, "eth0"));
        for flow in lab.permitted() {
            delivered(exchange(flow), &format!("{hook:?} {flow}"));
        }
        recording.replay(GOVC, &LEFT_TO_RIGHT);
        for (v6, port) in [(false, READ), (true, READ)] {
            transfer(lab.to_b(v6, port), 20_000_000);
        }
        for watch in watches {
            let seen = watch.finish();
            assert!(seen.labelled > 0 && seen.bare == 0, "{hook:?} {seen:?}");
        }
        assert!(router.decided("transit.reads") > 4 && router.decided("transit.call_backs") > 1);
        assert!(router.count("forward", "reply") > 4, "{hook:?}");
        for node in [&lab.a, &lab.b] {
            assert_eq!(node.count("ingress", "label_missing"), 0, "{hook:?}");
        }
        // What B would let in does not get through here.
        for v6 in BOTH_VERSIONS {
            denied(exchange(brief(lab.to_b(v6, UNNAMED))));
        }
        assert_eq!(router.count("forward", "no_rule"), 2, "{hook:?}");
        assert_eq!(lab.b.count("ingress", "no_rule"), 0, "{hook:?}");
    }
}

#[test]
fn nobody_gets_a_routers_name_by_passing_through_it() {
    if !kernel_available() {
        return;
    }
    // A router without a policy `on forward`, which lets A in as the workload itself.
    let policy = |zones: &str, when: &str| {
        image(&[&format!(
            "{zones}stamp on right {when}{{ subject acme.payments.api  operation ledger.read  residency eu }}\n\
             policy arriving {{ on ingress permit api {{ from acme.payments.api }} }}\n\
             policy leaving {{ on egress permit all {{ from acme.** }} }}\n"
        )])
    };
    const RIGHT: &str = "zone right = interface \"to_b\"\n";
    const BOTH: &str = "zone left = interface \"to_a\"  right = interface \"to_b\"\n";
    let (lab, router) = lab(&policy(BOTH, "when from zone left "), HookChoice::Auto);
    // Where a rule says that the router speaks for the zone, it does.
    for v6 in BOTH_VERSIONS {
        let flow = lab.to_b(v6, READ);
        flow.udp_exchange(64, DontFragment::Want).unwrap();
        assert!(lab.b.decided("ledger.read") > 0, "{flow}");
    }
    for zones in [BOTH, RIGHT] {
        router.apply(&policy(zones, ""), &[]);
        let before = (lab.b.decided("ledger.read"), router.count("egress", "no_subject"));
        for v6 in BOTH_VERSIONS {
            denied(exchange(brief(lab.to_b(v6, READ))));
        }
        assert_eq!(lab.b.decided("ledger.read"), before.0, "{zones}");
        assert_eq!(router.count("egress", "no_subject"), before.1 + 2, "{zones}");
    }
}

#[test]
fn where_it_leaves_by_decides() {
    if !kernel_available() {
        return;
    }
    let (lab, router) = lab(&image(&[TRANSIT]), HookChoice::Auto);
    let recording = Recording::start(&router, "to_a", (&lab.a.namespace, "eth0"));
    // Confidential traffic only leaves by an encrypted zone.
    let secret = |encrypted: &str| {
        image(&[&TRANSIT
            .replace("interface \"to_b\"", &format!("interface \"to_b\"{encrypted}"))
            .replace(
                "permit reads { from acme.payments.api  where egress zone is right, ",
                "permit reads { from acme.payments.api  where ",
            )])
    };
    let stamps = api_with("constraints {confidential}");
    lab.a.apply(&stamps, &[]);
    router.apply(&secret(""), &[]);
    for v6 in BOTH_VERSIONS {
        denied(exchange(brief(lab.to_b(v6, READ))));
    }
    assert_eq!(router.decided("transit.secrets"), 2);
    // The very next packet of the same flows, once the way is encrypted.
    router.apply(&secret(" encrypted"), &[]);
    for v6 in BOTH_VERSIONS {
        delivered(exchange(lab.to_b(v6, READ)), "over an encrypted zone");
    }
    // Where the data may be is asked of the label: what B would accept does not get there.
    lab.a.apply(&api_with("residency us"), &[]);
    for v6 in BOTH_VERSIONS {
        denied(exchange(brief(lab.to_b(v6, READ))));
    }
    assert_eq!(router.count("forward", "no_rule"), 2);
    let events = recording.replay(GOVC, &LEFT_TO_RIGHT);
    let datagrams = events.iter().filter(|event| event.protocol == 17);
    let ways: Vec<_> = datagrams.map(|event| (event.from_zone, event.to_zone)).collect();
    assert!(ways.len() >= 6 && ways.iter().all(|way| *way == (1, 2)), "{ways:?}");
}

/// A's policy, with another label.
fn api_with(field: &str) -> Image {
    let text = workload("acme.payments.api", "read");
    let text = if field.starts_with("residency") {
        text.replace("residency eu", field)
    } else {
        text.replace("residency eu", &format!("residency eu  {field}"))
    };
    image(&[&text, RULES])
}

#[test]
fn a_route_that_changes_takes_the_verdict_along() {
    if !kernel_available() {
        return;
    }
    let (lab, router) = lab(&image(&[TRANSIT]), HookChoice::Auto);
    // A second way to B, by an interface that no policy names and no hook is on.
    connect(3, [(&lab.router, "dark0"), (&lab.b.namespace, "eth1")]);
    lab.b.apply(&ledger(), &["eth1"]);
    for v6 in BOTH_VERSIONS {
        delivered(exchange(lab.to_b(v6, READ)), "by the known way");
    }
    for v6 in BOTH_VERSIONS {
        let host = IpPrefix::new(address(2, 2, v6), if v6 { 128 } else { 32 }).unwrap();
        lab.router.set_route(host, Some(address(3, 2, v6)), "dark0").unwrap();
        denied(exchange(brief(lab.to_b(v6, READ))));
    }
    assert_eq!(router.count("forward", "no_rule"), 2);
}

#[test]
fn what_proves_nothing_does_not_pass() {
    if !kernel_available() {
        return;
    }
    let (lab, router) = lab(&image(&[TRANSIT]), HookChoice::Auto);
    let recording = Recording::start(&router, "to_a", (&lab.a.namespace, "eth0"));
    // Bare packets of a node that nobody governs.
    lab.a.detach(&[]);
    let sender = udp_socket(&lab.a.namespace, address(1, 2, false), 0);
    sender.send_to(b"bare", SocketAddr::new(address(2, 2, false), READ)).unwrap();
    assert!(wait_until(|| router.count("forward", "label_missing") == 1));
    // Labels of another domain's keys.
    let foreign = Keys::new();
    let stranger = Node::within(Namespace::clone(&lab.a.namespace), &foreign);
    stranger.apply(&api(), &["eth0"]);
    let sender = udp_socket(&lab.a.namespace, address(1, 2, false), 0);
    sender.send_to(b"forged", SocketAddr::new(address(2, 2, false), CALL_BACK)).unwrap();
    assert!(
        wait_until(|| router.count("ingress", "bad_mac") == 1),
        "{:?}",
        router.reasons("ingress")
    );
    assert_eq!(lab.b.reasons("ingress").values().sum::<u64>(), 0);
    let events = recording.replay(GOVC, &LEFT_TO_RIGHT);
    assert!(events.len() >= 2, "{events:?}");
}
