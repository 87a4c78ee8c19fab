//! Counters of rules go on while the policy around them changes, and no packet is counted twice or
//! not at all.

use std::{
    net::UdpSocket,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
};

use aya::maps::{Array, Map, MapData};
use govc_abi::names;
use govc_image::Image;
use govc_tests::{
    kernel_available,
    node::{Keys, Node, OnDrop, address, connect, image, udp_socket, wait_until, workload},
    random::Random,
};

const RULE: &str = "permit read { from acme.payments.api  proto udp port 5432 }";
const POLICY: &str = "policy ledger";
const TO: &str = "on ingress to acme.payments.ledger";

/// The meaning of `ledger.read` in a policy of these parts.
fn meaning(parts: &[&str]) -> [u8; 8] {
    let image = image(parts);
    let rules = &image.names().rules;
    let rule = rules.iter().find(|rule| rule.name == "read").expect("a rule `read`");
    rule.meaning
}

fn policy(rules: &str) -> String {
    format!("{POLICY} {{ {TO}\n{rules} }}")
}

#[test]
fn a_rule_stays_the_same_wherever_and_however_it_is_written() {
    let wanted = meaning(&[&policy(RULE)]);
    let zones = "zone before = interface \"dummy0\"";
    for parts in [
        vec![policy(&format!("// A comment.\n\n  {}", RULE.replace("  ", "\n\t")))],
        vec![policy(&format!("deny first {{ proto tcp }}\n{RULE}\ndeny last {{ proto tcp }}"))],
        vec!["policy another {\n on ingress\ndeny all { proto tcp } }".into(), policy(RULE)],
        vec![zones.into(), policy(RULE)],
        vec![policy(
            "permit read \"in words\" { from acme.payments.api  proto udp port 5432  log }",
        )],
        vec![
            "template t(ports) { from acme.payments.api  proto udp port ports }".into(),
            policy("permit read { like t(ports = 5432) }"),
        ],
        vec![policy(&RULE.replace("5432", "5432..5432"))],
    ] {
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        assert_eq!(meaning(&parts), wanted, "{parts:?}");
    }
}

#[test]
fn a_rule_that_says_something_else_is_another_one() {
    let with = |from: &str, to: &str| {
        let text = policy(RULE).replace(from, to);
        assert_ne!(text, policy(RULE));
        text
    };
    let others = [
        with("5432", "5433"),
        with("udp", "tcp"),
        with("permit", "deny"),
        with("permit read", "observe permit read"),
        with("acme.payments.api", "acme.payments.ledger"),
        with("from acme.payments.api", "from anyone"),
        with("from acme.payments.api", "from acme.payments.api  where level >= internal"),
        with("from acme.payments.api", "from acme.payments.api  where level <= internal"),
        with("from acme.payments.api", "from acme.payments.api  operation ledger.read"),
        with("from acme.payments.api", "from acme.payments.api  source 10.0.0.0/8"),
        with("from acme.payments.api", "from acme.payments.api  destination 10.0.0.0/8"),
        with("from acme.payments.api", "from acme.payments.api  until \"2030-01-01T00:00Z\""),
        with("from acme.payments.api", "from acme.payments.api  since \"2030-01-01T00:00Z\""),
        with("on ingress to", "on ingress on egress to"),
        with("acme.payments.ledger", "acme.payments.api"),
        with("policy ledger", "policy other"),
    ];
    let mut meanings: Vec<[u8; 8]> = others.iter().map(|text| meaning(&[text])).collect();
    meanings.push(meaning(&[&policy(RULE)]));
    meanings.sort_unstable();
    meanings.dedup();
    assert_eq!(meanings.len(), others.len() + 1);
}

/// A workload that sends datagrams, and one whose policy changes.
struct Rig {
    sender: Node,
    receiver: Node,
}

/// The port of the rule that all policies have.
const KEPT: u16 = 5432;
/// Datagrams that may be under way at a time.
const WINDOW: u64 = 64;

impl Rig {
    fn new() -> Self {
        let keys = Keys::new();
        let (sender, receiver) = (Node::new("sender", &keys), Node::new("receiver", &keys));
        connect(1, [(&sender.namespace, "eth0"), (&receiver.namespace, "eth0")]);
        sender.apply(&image(&[&workload("acme.payments.api", "read")]), &["eth0"]);
        Self { sender, receiver }
    }

    fn server(&self, port: u16) -> UdpSocket {
        udp_socket(&self.receiver.namespace, address(1, 2, false), port)
    }

    /// Sends datagrams to a port, one by one.
    fn send(&self, port: u16, count: u64) {
        let client = udp_socket(&self.sender.namespace, address(1, 1, false), 0);
        for _ in 0..count {
            client.send_to(b"count me", (address(1, 2, false), port)).unwrap();
        }
    }

    fn apply(&self, rules: &str) {
        self.receiver.apply(&receiver(rules), &["eth0"]);
    }

    /// What a rule has decided, once that does not change any more.
    fn counted(&self, rule: &str) -> u64 {
        let mut last = self.receiver.decided(rule);
        assert!(wait_until(|| {
            let now = self.receiver.decided(rule);
            std::mem::replace(&mut last, now) == now
        }));
        last
    }
}

fn receiver(rules: &str) -> Image {
    image(&[&workload("acme.payments.ledger", "read"), &policy(rules)])
}

#[test]
fn counts_belong_to_a_name_and_a_meaning() {
    if !kernel_available() {
        return;
    }
    let rig = Rig::new();
    let sockets = [KEPT, 7000, 7001].map(|port| rig.server(port));
    let other =
        |port: u16| format!("permit other {{ from acme.payments.api  proto udp port {port} }}");
    let first = format!("{RULE}\n{}", other(7000));
    rig.apply(&first);
    rig.send(KEPT, 3);
    rig.send(7000, 5);
    assert_eq!([rig.counted("ledger.read"), rig.counted("ledger.other")], [3, 5]);
    // Another text under the old name, and the old one goes on at another place.
    rig.apply(&format!("{}\n{RULE}", other(7001)));
    assert_eq!([rig.counted("ledger.read"), rig.counted("ledger.other")], [3, 0]);
    rig.send(KEPT, 2);
    rig.send(7001, 4);
    assert_eq!([rig.counted("ledger.read"), rig.counted("ledger.other")], [5, 4]);
    // Back to the first text, whose counts are still there.
    rig.receiver.rollback();
    assert_eq!([rig.counted("ledger.read"), rig.counted("ledger.other")], [5, 5]);
    rig.send(KEPT, 1);
    rig.send(7000, 1);
    assert_eq!([rig.counted("ledger.read"), rig.counted("ledger.other")], [6, 6]);
    // What was rolled back from is overwritten now; the old text under a new name is a new rule.
    rig.apply(&format!("{RULE}\n{}", other(7000).replace("other", "renamed")));
    assert_eq!([rig.counted("ledger.read"), rig.counted("ledger.renamed")], [6, 0]);
    // A rule that is away for one generation finds its counts again.
    rig.apply(&first);
    assert_eq!([rig.counted("ledger.read"), rig.counted("ledger.other")], [6, 6]);
    // Larger maps, and maps that are made anew.
    let pads: String = (0..900)
        .map(|pad| format!("permit pad_{pad} {{ proto tcp port {} }}\n", 1000 + pad))
        .collect();
    rig.send(KEPT, 1);
    rig.apply(&format!("{pads}{first}"));
    rig.send(KEPT, 1);
    rig.receiver.forget_object();
    rig.apply(&format!("{pads}{first}"));
    rig.send(KEPT, 1);
    assert_eq!([rig.counted("ledger.read"), rig.counted("ledger.other")], [9, 6]);
    drop(sockets);
}

#[test]
fn rules_that_only_observe_go_on_counting_what_they_would_decide() {
    if !kernel_available() {
        return;
    }
    let rig = Rig::new();
    let _server = rig.server(KEPT);
    let soon = "observe deny soon { proto udp port 5432 }";
    let would = || {
        let rules = rig.receiver.status().rules;
        rules.into_iter().find(|rule| rule.rule == "ledger.soon").unwrap().would
    };
    for round in 1..=5 {
        rig.apply(&format!("deny at_{round} {{ proto tcp port {round} }}\n{soon}\n{RULE}"));
        rig.send(KEPT, 2);
        assert!(wait_until(|| would() == 2 * round), "{} in round {round}", would());
    }
    // Enforced, it is another rule.
    rig.apply(&format!("{}\n{RULE}", soon.replace("observe ", "")));
    assert_eq!((would(), rig.counted("ledger.soon")), (0, 0));
}

/// A policy with the rule, others around it, and one whose text is different every time.
fn changing(random: &mut Random, number: usize) -> Image {
    let pads = |random: &mut Random, name: &str| -> String {
        let count = *random.pick(&[0, 1, 2, 30, 300, 700]);
        (0..count)
            .map(|pad| format!("permit {name}_{pad} {{ proto tcp port {} }}\n", 1000 + pad))
            .collect()
    };
    let (before, after) = (pads(random, "before"), pads(random, "after"));
    let port = 8000 + number;
    receiver(&format!("{before}{RULE}\n{after}permit changing {{ proto udp port {port} }}"))
}

#[test]
fn a_kept_rule_has_counted_every_packet_after_many_swaps() {
    if !kernel_available() {
        return;
    }
    const SWAPS: usize = 150;
    let rig = Rig::new();
    let mut random = Random::new(5);
    let images: Vec<Image> = (0..12).map(|number| changing(&mut random, number)).collect();
    rig.receiver.apply(&images[0], &["eth0"]);
    let server = rig.server(KEPT);
    let (done, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let traffic = || {
        let client = udp_socket(&rig.sender.namespace, address(1, 1, false), 0);
        let mut arrived = 0;
        while !done.load(Ordering::SeqCst) {
            client.send_to(b"count me", (address(1, 2, false), KEPT)).unwrap();
            let sent = sent.fetch_add(1, Ordering::SeqCst) + 1;
            while sent - arrived >= WINDOW {
                arrived += govc_tests::node::drain(&server).len() as u64;
            }
        }
    };
    let (mut last, mut readings) = (0, 0);
    thread::scope(|scope| {
        let _end = OnDrop(|| done.store(true, Ordering::SeqCst));
        scope.spawn(traffic);
        for swap in 0..SWAPS {
            match random.below(10) {
                0..3 => {
                    let _ = govc_loader::publish::rollback(&rig.receiver.place);
                }
                3 => {
                    rig.receiver.forget_object();
                    rig.receiver.apply(random.pick(&images), &[]);
                }
                _ => {
                    rig.receiver.apply(random.pick(&images), &[]);
                }
            }
            // Read between the packets, it never goes backwards, nor beyond what was sent.
            let now = rig.receiver.decided("ledger.read");
            assert!(now >= last, "swap {swap}: {now} after {last}");
            assert!(now <= sent.load(Ordering::SeqCst) + 1, "swap {swap}");
            readings += u64::from(now > last);
            last = now;
        }
    });
    let sent = sent.load(Ordering::SeqCst);
    assert_eq!(rig.counted("ledger.read"), sent);
    assert!(readings > SWAPS as u64 / 2 && sent > 1000, "{readings} {sent}");
    println!("{sent} datagrams over {SWAPS} swaps");
}

#[test]
fn counts_are_read_steadily_while_policies_change() {
    if !kernel_available() {
        return;
    }
    let rig = Rig::new();
    let mut random = Random::new(6);
    let images: Vec<Image> = (0..6).map(|number| changing(&mut random, number)).collect();
    rig.receiver.apply(&images[0], &["eth0"]);
    let _server = rig.server(KEPT);
    rig.send(KEPT, 77);
    assert_eq!(rig.counted("ledger.read"), 77);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _end = OnDrop(|| done.store(true, Ordering::SeqCst));
        let reader = scope.spawn(|| {
            let mut readings = 0;
            while !done.load(Ordering::SeqCst) {
                assert_eq!(rig.receiver.decided("ledger.read"), 77, "reading {readings}");
                readings += 1;
            }
            readings
        });
        for _ in 0..200 {
            rig.receiver.apply(random.pick(&images), &[]);
        }
        drop(_end);
        assert!(reader.join().unwrap() > 50);
    });
}

/// Leaves things as a tool does that dies right after it has handed on what a generation has
/// counted, and before it fills the buffer: only the word that decides is written.
fn hand_on(node: &Node, generation: u64) {
    let set = node.place.set().unwrap();
    let map = Map::Array(MapData::from_pin(set.pin(names::map::LEDGER)).unwrap());
    let mut ledger: Array<_, u64> = map.try_into().unwrap();
    let entries = ledger.get(&0, 0).unwrap() & 0xf;
    ledger.set(0, generation << 4 | entries, 0).unwrap();
}

#[test]
fn what_was_handed_on_is_not_counted_again() {
    if !kernel_available() {
        return;
    }
    let rig = Rig::new();
    let _server = rig.server(KEPT);
    for packets in [3, 2] {
        rig.apply(RULE);
        rig.send(KEPT, packets);
    }
    assert_eq!(rig.counted("ledger.read"), 5);
    // Here nobody has added the three packets of the first generation to the second one.
    hand_on(&rig.receiver, 1);
    assert_eq!(rig.counted("ledger.read"), 2);
    // Whoever returns to that generation counts in its buffer again, from nothing.
    assert_eq!(rig.receiver.rollback(), 1);
    assert_eq!(rig.counted("ledger.read"), 2);
    rig.send(KEPT, 4);
    assert_eq!(rig.counted("ledger.read"), 6);
    for swap in 0..4 {
        rig.apply(RULE);
        assert_eq!(rig.counted("ledger.read"), 6, "swap {swap}");
    }
}
