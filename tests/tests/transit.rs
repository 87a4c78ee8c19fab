//! Two gateways in a row: labels of one domain pass through a second one into a third. Each gateway
//! knows its two neighbours, each node its own domain, and nobody knows both ends.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use govc_abi::{event::hook, label::Label};
use govc_image::Image;
use govc_loader::{attach::HookChoice, events::Events, keyring::DomainKeys, status};
use govc_netlab::{Flow, IpPrefix, Namespace};
use govc_tests::{
    domains::{brief, exchange, image, keys, labels, subject},
    kernel_available,
    lab::{BOTH_VERSIONS, delivered, denied, transfer},
    node::{
        How, Keys, Node, PATIENCE, address, connect, protocol, set_gateway, udp_socket, wait_until,
    },
    replay::{self, Recording},
};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");
/// How packets from the first gateway pass the second.
const IN: [&str; 4] = ["--on", "forward", "--to-zone", "lan"];
/// Port that the ledger serves and the shop may use.
const ORDERS: u16 = 5432;
/// Port that the shop serves and the ledger may use.
const QUESTIONS: u16 = 6000;

const FIRST: &str = "
zone neighbours = interface \"back\"
     middle = interface \"on\"
policy transit {
    on forward
    permit orders { from partner.**  where egress zone is middle  proto tcp port 5432  proto udp port 5432 }
    permit questions { from third.peer  where egress zone is neighbours  proto tcp port 6000  proto udp port 6000 }
}
translate partner -> third on middle {
    partner.shop -> third.guest
    partner.billing.** -> third.stranger
    cap level low
    drop compartments
    operation shop.order -> third.carry
    residency europe -> union
    radius federation
}
translate third -> partner on neighbours {
    third.peer -> partner.visitor
    cap level outer
    operation third.ask -> shop.browse
    residency union -> europe
}
";

/// Between the gateways: it knows its own domain only.
const CARRIER: &str = "
zone before = interface \"back\"
     behind = interface \"on\"
policy carrier {
    on forward
    permit out { from third.guest, third.stranger  operation third.carry  where egress zone is behind  proto tcp port 5432  proto udp port 5432 }
    permit back { from third.peer  operation third.ask  where egress zone is before  proto tcp port 6000  proto udp port 6000 }
}
";

const SECOND: &str = "
zone middle = interface \"back\"
     lan = interface \"on\"
policy transit {
    on forward
    permit orders { from third.guest, third.stranger  where egress zone is lan  proto tcp port 5432  proto udp port 5432 }
    permit questions { from acme.payments.ledger  where egress zone is middle  proto tcp port 6000  proto udp port 6000 }
}
translate third -> acme on lan {
    third.guest -> acme.guest
    cap level public
    add constraints {no_forward}
    operation third.carry -> ledger.read
    residency union -> eu
}
translate acme -> third on middle {
    acme.payments.ledger -> third.peer
    cap level low
    drop compartments
    operation ledger.read -> third.ask
    residency eu -> union
    radius federation
}
";

const LEDGER: &str = "
zone lan = interface \"eth0\"
stamp on lan { subject acme.payments.ledger  operation ledger.read  residency eu  radius federation }
deliver on lan { object acme.payments.ledger }
policy ledger {
    on ingress to acme.payments.ledger
    permit orders {
        from acme.guest
        operation ledger.read
        where level is public, compartments is {}, constraints is {no_forward}, residency within eu, radius is domain
        proto tcp port 5432
        proto udp port 5432
    }
}
";

fn shop(sender: &str) -> Image {
    image(&[
        "use partner.vocabulary\nzone lan = interface \"eth0\"\n",
        &format!(
            "stamp on lan {{ subject {sender}  operation shop.order  residency europe  radius federation }}\n"
        ),
        "deliver on lan { object partner.shop }
policy shop {
    on ingress to partner.shop
    permit questions {
        from partner.visitor
        operation shop.browse
        where level is outer, compartments is {}, residency within europe
        proto tcp port 6000
        proto udp port 6000
    }
}",
    ])
}

fn first(policy: &str) -> Image {
    image(&["use partner.vocabulary\nuse third.vocabulary", policy])
}

fn second(policy: &str) -> Image {
    image(&["use third.vocabulary\nuse acme.vocabulary", policy])
}

/// Shop, first gateway, carrier, second gateway, ledger, in a row.
struct Row {
    shop: Node,
    first: Node,
    carrier: Node,
    second: Node,
    ledger: Node,
}

impl Row {
    fn new(choice: HookChoice) -> Self {
        let (partner, third, acme) = (keys("partner", 9), keys("third", 11), keys("acme", 7));
        let node = |name, keys: &[&DomainKeys]| Node::new(name, &Keys::holding(keys));
        let row = Self {
            shop: node("shop", &[&partner]),
            first: node("first", &[&partner, &third]),
            carrier: node("carrier", &[&third]),
            second: node("second", &[&third, &acme]),
            ledger: node("ledger", &[&acme]),
        };
        let [shop, first, carrier, second, ledger] = row.nodes().map(|node| &node.namespace);
        connect(1, [(first, "back"), (shop, "eth0")]);
        connect(2, [(first, "on"), (carrier, "back")]);
        connect(3, [(carrier, "on"), (second, "back")]);
        connect(4, [(second, "on"), (ledger, "eth0")]);
        set_gateway(shop, "eth0", 1);
        set_gateway(ledger, "eth0", 4);
        for (from, to, device, net, host) in [
            (first, 4, "on", 2, 2),
            (carrier, 1, "back", 2, 1),
            (carrier, 4, "on", 3, 2),
            (second, 1, "back", 3, 1),
        ] {
            from.enable_forwarding().unwrap();
            for v6 in BOTH_VERSIONS {
                let there = IpPrefix::new(address(to, 0, v6), if v6 { 64 } else { 24 }).unwrap();
                from.set_route(there, Some(address(net, host, v6)), device).unwrap();
            }
        }
        row.shop.apply(&self::shop("partner.shop"), &["eth0"]);
        row.ledger.apply(&image(&["use acme.vocabulary", LEDGER]), &["eth0"]);
        let how = How { hook: choice, ..How::default() };
        for (node, policy) in [
            (&row.first, self::first(FIRST)),
            (&row.carrier, image(&["use third.vocabulary", CARRIER])),
            (&row.second, self::second(SECOND)),
        ] {
            node.try_apply(&policy, &["back", "on"], how).unwrap();
        }
        row
    }

    fn nodes(&self) -> [&Node; 5] {
        [&self.shop, &self.first, &self.carrier, &self.second, &self.ledger]
    }

    fn orders(&self, v6: bool) -> Flow<'_> {
        let to = SocketAddr::new(address(4, 2, v6), ORDERS);
        Flow::new(&self.ledger.namespace, to, &self.shop.namespace, PATIENCE)
    }

    /// Records what comes to the second gateway from the first.
    fn record(&self) -> Recording<'_> {
        Recording::start(&self.second, "back", (&self.carrier.namespace, "on"))
    }

    fn questions(&self, v6: bool) -> Flow<'_> {
        let to = SocketAddr::new(address(1, 2, v6), QUESTIONS);
        Flow::new(&self.shop.namespace, to, &self.ledger.namespace, PATIENCE)
    }
}

/// What a node has decided about datagrams that came in or passed: verdict, rule or reason, and whose
/// label it was.
type Verdicts = BTreeSet<(&'static str, String, String)>;

fn verdicts(mut events: Events) -> Verdicts {
    // All of them are in the ring once the traffic has come through.
    const QUIET: Duration = Duration::from_millis(50);
    let mut seen = Verdicts::new();
    while let Some(event) = events.next(QUIET).unwrap() {
        if event.protocol != protocol::UDP || event.hook == hook::EGRESS {
            continue;
        }
        let (_, verdict, by) = replay::decided(&event, &mut events);
        let image = events.image(event.generation).unwrap();
        let known = &image.names().domains;
        let index = known.iter().position(|domain| domain.number == event.label.domain()).unwrap();
        let who = image.names().subject(index as u32, event.label.subject()).unwrap();
        seen.insert((verdict, by, who));
    }
    seen
}

/// What all nodes decide while `traffic` runs.
fn decided(row: &Row, traffic: impl FnOnce()) -> [Verdicts; 5] {
    let events = row.nodes().map(Node::report_everything);
    traffic();
    let seen = events.map(verdicts);
    // Or what comes next fills the rings, which nobody reads.
    for node in row.nodes() {
        status::report_permits(&node.place, false).unwrap();
    }
    seen
}

fn permits(each: &[(&str, &str)]) -> Verdicts {
    let each = each.iter();
    each.map(|(by, who)| ("permit", (*by).to_owned(), (*who).to_owned())).collect()
}

#[test]
fn labels_pass_through_a_second_domain_into_a_third_and_back() {
    if !kernel_available() {
        return;
    }
    for choice in [HookChoice::Tcx, HookChoice::Xdp] {
        let row = Row::new(choice);
        for v6 in BOTH_VERSIONS {
            let orders = decided(&row, || delivered(exchange(row.orders(v6)), "an order"));
            assert_eq!(
                orders,
                [
                    permits(&[("reply", "partner.visitor")]),
                    permits(&[("transit.orders", "partner.shop"), ("reply", "third.peer")]),
                    permits(&[("carrier.out", "third.guest"), ("reply", "third.peer")]),
                    permits(&[
                        ("transit.orders", "third.guest"),
                        ("reply", "acme.payments.ledger")
                    ]),
                    permits(&[("ledger.orders", "acme.guest")]),
                ],
                "{choice:?} {v6}"
            );
            let questions = decided(&row, || delivered(exchange(row.questions(v6)), "a question"));
            assert_eq!(
                questions,
                [
                    permits(&[("shop.questions", "partner.visitor")]),
                    permits(&[("transit.questions", "third.peer"), ("reply", "partner.shop")]),
                    permits(&[("carrier.back", "third.peer"), ("reply", "third.guest")]),
                    permits(&[
                        ("transit.questions", "acme.payments.ledger"),
                        ("reply", "third.guest")
                    ]),
                    permits(&[("reply", "acme.guest")]),
                ],
                "{choice:?} {v6}"
            );
            transfer(row.orders(v6), 5_000_000);
            transfer(row.questions(v6), 5_000_000);
            let recording = row.record();
            delivered(exchange(row.orders(v6)), "an order");
            transfer(row.questions(v6), 500_000);
            assert!(!recording.replay(GOVC, &IN).is_empty());
        }
        let denied = row.nodes().map(|node| node.status().reasons);
        let denied = denied.iter().flatten().filter(|count| count.permitted == Some(false));
        let denied: Vec<_> = denied.collect();
        assert!(denied.is_empty(), "{choice:?} {denied:?}");
        wires(&row);
    }
}

/// On each wire are labels of its own domain only, none of which says more than the one before.
fn wires(row: &Row) {
    let ends: [(&Namespace, u16); 4] = [
        (&row.first.namespace, 9),
        (&row.carrier.namespace, 11),
        (&row.second.namespace, 11),
        (&row.ledger.namespace, 7),
    ];
    let on = |at: &Namespace, device: &str| {
        labels(at, device, || delivered(exchange(row.orders(true)), "an order"))
    };
    let mut before: Option<Label> = None;
    for (number, (at, domain)) in ends.into_iter().enumerate() {
        let seen = on(at, if number == 3 { "eth0" } else { "back" });
        let [order, answer] = seen[..] else { panic!("{seen:?}") };
        assert_eq!((order.domain(), answer.domain()), (domain, domain));
        if let Some(before) = before {
            assert!(order.level() <= before.level() && order.radius() <= before.radius());
            assert!(order.life() <= before.life());
        }
        before = Some(order);
    }
    let last = before.unwrap();
    assert_eq!(last.subject(), subject(&second(SECOND), "acme", "guest"));
}

#[test]
fn what_the_second_gateway_has_no_mapping_for_ends_there() {
    if !kernel_available() {
        return;
    }
    let row = Row::new(HookChoice::Auto);
    // The first gateway knows the sender, and makes it somebody whom the second does not translate.
    row.shop.apply(&shop("partner.billing.dunning"), &[]);
    for v6 in BOTH_VERSIONS {
        let before = row.second.count("forward", "untranslated");
        let sent = decided(&row, || {
            let sender = udp_socket(&row.shop.namespace, address(1, 2, v6), 0);
            let to = SocketAddr::new(address(4, 2, v6), ORDERS);
            sender.send_to(b"order", to).unwrap();
            assert!(wait_until(|| row.second.count("forward", "untranslated") == before + 1));
        });
        // Its rule lets the packet in; where it would leave, there is no label for it.
        let mut ends = permits(&[("transit.orders", "third.stranger")]);
        ends.insert(("deny", "untranslated".to_owned(), "third.stranger".to_owned()));
        let nothing = Verdicts::new();
        let [_, first, carrier, second, ledger] = sent;
        assert_eq!(first, permits(&[("transit.orders", "partner.billing.dunning")]));
        assert_eq!(carrier, permits(&[("carrier.out", "third.stranger")]));
        assert_eq!((second, ledger), (ends, nothing), "{v6}");
        denied(exchange(brief(row.orders(v6))));
    }
    let recording = row.record();
    for v6 in BOTH_VERSIONS {
        denied(exchange(brief(row.orders(v6))));
    }
    // So does what the first one lets no further than its own neighbour.
    row.shop.apply(&shop("partner.shop"), &[]);
    let near = FIRST.replacen("radius federation", "radius domain", 1);
    row.first.apply(&first(&near), &[]);
    for v6 in BOTH_VERSIONS {
        denied(exchange(brief(row.orders(v6))));
    }
    assert!(row.second.count("forward", "radius_exceeded") >= 2);
    assert_eq!(recording.replay(GOVC, &IN).len(), 4);
    // The others go on.
    row.first.apply(&first(FIRST), &[]);
    for v6 in BOTH_VERSIONS {
        delivered(exchange(row.orders(v6)), "an order");
    }
    assert_eq!(row.ledger.count("ingress", "rule"), 2);
}
