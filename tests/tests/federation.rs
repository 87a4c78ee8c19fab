//! Gateways between domains: labels become those of another domain where they leave, narrower and
//! under its key, and nothing passes that the policy does not translate.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use govc_abi::label::{FLAG_REPLY, Label};
use govc_image::Image;
use govc_loader::{
    attach::HookChoice,
    authority::{Authority, Held},
    keyring::{DomainKeys, slot_now},
    publish,
};
use govc_netlab::{Flow, Namespace};
use govc_tests::{
    domains::{brief, exchange, image, keys, labels, subject},
    kernel::sure_slot,
    kernel_available,
    lab::{BOTH_VERSIONS, delivered, denied, transfer},
    node::{
        How, Keys, Node, PATIENCE, address, connect, drain, fragmenting_socket, receive,
        set_gateway, udp_socket, wait_until,
    },
    replay::Recording,
    router::{self, nft_available},
};

/// Port that the ledger serves and the shop may use.
const ORDERS: u16 = 5432;
/// Port that the shop serves and the ledger may use.
const QUESTIONS: u16 = 6000;

/// What the gateway lets pass, and what it makes of it.
const GATEWAY: &str = "
zone lan = interface \"to_l\"
     neighbours = interface \"to_s\"
     others = interface \"to_t\"
policy transit {
    on forward
    permit orders { from partner.**, third.**  where egress zone is lan  proto tcp port 5432  proto udp port 5432 }
    permit questions { from acme.payments.ledger  where egress zone is neighbours  proto udp port 6000 }
}
translate partner -> acme on lan {
    partner.shop -> acme.guest
    partner.billing.invoices -> acme.web.front
    cap level public
    drop compartments
    constraints sealed -> confidential
    add constraints {no_forward}
    operation shop.order -> ledger.read
    residency europe -> eu
}
translate acme -> partner on neighbours {
    acme.payments.ledger -> partner.visitor
    cap level outer
    drop compartments
    operation ledger.read -> shop.browse
    residency eu -> europe
}
";

/// Where the ledger lives, in the receiving domain: it knows no other.
const LEDGER: &str = "
zone lan = interface \"eth0\"
stamp on lan { subject acme.payments.ledger  operation ledger.read  residency eu  radius federation }
deliver on lan { object acme.payments.ledger }
policy ledger {
    on ingress to acme.payments.ledger
    permit orders {
        from acme.guest, acme.web.front
        operation ledger.read
        where level is public, compartments is {}, constraints is {no_forward}, residency within eu, radius is domain
        proto tcp port 5432
        proto udp port 5432
    }
}
";

/// Where the shop lives, in the other domain.
fn shop(label: &str) -> Image {
    shop_with(label, "")
}

/// Likewise, with something besides.
fn shop_with(label: &str, more: &str) -> Image {
    image(&[&format!(
        "use partner.vocabulary
{more}zone lan = interface \"eth0\"
stamp on lan {{ {label} }}
deliver on lan {{ object partner.shop }}
policy shop {{
    on ingress to partner.shop
    permit questions {{
        from partner.visitor
        operation shop.browse
        where level is outer, compartments is {{}}, residency within europe
        proto udp port 6000
    }}
}}"
    )])
}

/// What the shop's labels say unless a test asks for others.
const ORDER: &str =
    "subject partner.shop  operation shop.order  residency europe  radius federation";

fn gateway(policy: &str) -> Image {
    image(&["use acme.vocabulary\nuse partner.vocabulary\nuse third.vocabulary", policy])
}

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");
/// How what comes from the shop passes the gateway, and what comes from the ledger.
const IN: [&str; 4] = ["--on", "forward", "--to-zone", "lan"];
const OUT: [&str; 4] = ["--on", "forward", "--to-zone", "neighbours"];

/// A shop of one domain, a ledger of another, a robot of a third, and the gateway between them. Each
/// domain's nodes hold its keys and no others; only the gateway holds those of all.
struct Federation {
    shop: Node,
    ledger: Node,
    robot: Node,
    gateway: Node,
    acme: DomainKeys,
}

impl Federation {
    fn new(policy: &str, hook: HookChoice) -> Self {
        let (acme, partner) = (keys("acme", 7), keys("partner", 9));
        let third = keys("third", 11);
        let node = |name, keys: &[&DomainKeys]| Node::new(name, &Keys::holding(keys));
        let federation = Self {
            shop: node("shop", &[&partner]),
            ledger: node("ledger", &[&acme]),
            robot: node("robot", &[&third]),
            gateway: node("gateway", &[&acme, &partner, &third]),
            acme,
        };
        federation.gateway.namespace.enable_forwarding().unwrap();
        for (net, device, node) in federation.links() {
            connect(net, [(&federation.gateway.namespace, device), (&node.namespace, "eth0")]);
            set_gateway(&node.namespace, "eth0", net);
        }
        federation.shop.apply(&shop(ORDER), &["eth0"]);
        federation.ledger.apply(&image(&["use acme.vocabulary", LEDGER]), &["eth0"]);
        federation.open(policy, hook);
        federation
    }

    fn links(&self) -> [(u8, &'static str, &Node); 3] {
        [(1, "to_s", &self.shop), (2, "to_l", &self.ledger), (3, "to_t", &self.robot)]
    }

    /// Puts a policy of the gateway in force.
    fn open(&self, policy: &str, hook: HookChoice) {
        let how = How { hook, ..How::default() };
        self.gateway.try_apply(&gateway(policy), &["to_s", "to_l", "to_t"], how).unwrap();
    }

    fn orders(&self, v6: bool) -> Flow<'_> {
        let to = SocketAddr::new(address(2, 2, v6), ORDERS);
        Flow::new(&self.ledger.namespace, to, &self.shop.namespace, PATIENCE)
    }

    fn questions(&self, v6: bool) -> Flow<'_> {
        let to = SocketAddr::new(address(1, 2, v6), QUESTIONS);
        Flow::new(&self.shop.namespace, to, &self.ledger.namespace, PATIENCE)
    }

    /// Records what comes to the gateway from the shop, or from the ledger, which leaves by the other zone.
    fn record(&self, from_shop: bool) -> Recording<'_> {
        let [(_, shops, shop), (_, ledgers, ledger), _] = self.links();
        let (device, node) = if from_shop { (shops, shop) } else { (ledgers, ledger) };
        Recording::start(&self.gateway, device, (&node.namespace, "eth0"))
    }

    /// Sends one order that must not arrive, and waits for the gateway to say why.
    fn refused(&self, hook: &str, reason: &str, v6: bool) {
        let before = self.gateway.count(hook, reason);
        let sender = udp_socket(&self.shop.namespace, address(1, 2, v6), 0);
        sender.send_to(b"order", SocketAddr::new(address(2, 2, v6), ORDERS)).unwrap();
        assert!(
            wait_until(|| self.gateway.count(hook, reason) == before + 1),
            "{reason}: {:?} {:?}",
            self.gateway.reasons(hook),
            self.gateway.reasons("forward")
        );
    }
}

#[test]
fn labels_become_those_of_the_other_domain_and_replies_come_back() {
    if !kernel_available() {
        return;
    }
    let names = gateway(GATEWAY);
    for hook in [HookChoice::Tcx, HookChoice::Xdp] {
        let lab = Federation::new(GATEWAY, hook);
        for v6 in BOTH_VERSIONS {
            let what = format!("{hook:?} {v6}");
            let came = labels(&lab.gateway.namespace, "to_s", || {
                let goes = labels(&lab.gateway.namespace, "to_l", || {
                    delivered(exchange(lab.orders(v6)), &what);
                });
                let [order, answer] = goes[..] else { panic!("{what}: {goes:?}") };
                assert_eq!((order.domain(), answer.domain()), (7, 7), "{what}");
                assert_eq!(order.subject(), subject(&names, "acme", "guest"), "{what}");
                assert_eq!((order.level(), order.compartments(), order.radius()), (0, 0, 2));
                assert_eq!((order.constraints(), order.flags()), (0b10, 0), "{what}");
                assert_eq!(answer.flags(), FLAG_REPLY, "{what}");
            });
            let [order, answer] = came[..] else { panic!("{what}: {came:?}") };
            assert_eq!((order.domain(), answer.domain()), (9, 9), "{what}");
            assert_eq!(order.subject(), subject(&names, "partner", "shop"), "{what}");
            assert_eq!(answer.subject(), subject(&names, "partner", "visitor"), "{what}");
            assert_eq!((answer.flags(), answer.level()), (FLAG_REPLY, 0), "{what}");
            for (from_shop, way) in [(true, &IN), (false, &OUT)] {
                let recording = lab.record(from_shop);
                delivered(exchange(lab.orders(v6)), &what);
                delivered(exchange(lab.questions(v6)), &what);
                transfer(lab.orders(v6), 500_000);
                assert!(!recording.replay(GOVC, way).is_empty());
            }
            transfer(lab.orders(v6), 5_000_000);
        }
        assert!(lab.ledger.decided("ledger.orders") > 2 && lab.shop.decided("shop.questions") > 0);
        assert!(lab.gateway.count("forward", "reply") > 4, "{hook:?}");
    }
}

#[test]
fn what_is_not_translated_is_refused_and_says_why() {
    if !kernel_available() {
        return;
    }
    let lab = Federation::new(GATEWAY, HookChoice::Auto);
    let recording = lab.record(true);
    for (label, reason) in [
        (
            "subject partner.billing.dunning  operation shop.order  radius federation",
            "untranslated",
        ),
        (
            "subject partner.shop  operation shop.browse  radius federation",
            "operation_untranslated",
        ),
        ("subject partner.shop  route fast  radius federation", "route_untranslated"),
        ("subject partner.shop  constraints {counted}  radius any", "constraints_untranslated"),
        ("subject partner.shop  operation shop.order  radius domain", "radius_exceeded"),
    ] {
        lab.shop.apply(&shop(label), &[]);
        for v6 in BOTH_VERSIONS {
            lab.refused("forward", reason, v6);
        }
    }
    lab.shop.apply(&shop(ORDER), &[]);
    lab.open(
        &GATEWAY.replace("    drop compartments\n    constraints", "    constraints"),
        HookChoice::Auto,
    );
    lab.refused("forward", "compartments_untranslated", false);
    lab.open(&GATEWAY.replace("    residency europe -> eu\n", ""), HookChoice::Auto);
    lab.refused("forward", "residency_untranslated", true);
    assert_eq!(lab.ledger.decided("ledger.orders"), 0);
    // All of it passes that the policy speaks of.
    lab.open(GATEWAY, HookChoice::Auto);
    for v6 in BOTH_VERSIONS {
        delivered(exchange(lab.orders(v6)), "translated");
    }
    assert!(!recording.replay(GOVC, &IN).is_empty());
}

#[test]
fn nobody_abroad_speaks_for_the_own_domain() {
    if !kernel_available() {
        return;
    }
    let lab = Federation::new(GATEWAY, HookChoice::Auto);
    lab.shop.detach(&[]);
    let forger = |keys: &DomainKeys| {
        let node = Node::within(Namespace::clone(&lab.shop.namespace), &Keys::holding(&[keys]));
        let text = "use acme.vocabulary\nzone lan = interface \"eth0\"\nstamp on lan { subject acme.guest  operation ledger.read  constraints {no_forward}  residency eu }";
        node.apply(&image(&[text]), &["eth0"]);
        node
    };
    let recording = lab.record(true);
    for v6 in BOTH_VERSIONS {
        // With keys that it made itself, and with those of the domain, should they ever get out.
        let invented = forger(&keys("acme", 7));
        lab.refused("ingress", "bad_mac", v6);
        invented.detach(&[]);
        let stolen = forger(&lab.acme);
        lab.refused("ingress", "domain_foreign", v6);
        stolen.detach(&[]);
    }
    assert_eq!(lab.ledger.decided("ledger.orders"), 0);
    assert!(!recording.replay(GOVC, &IN).is_empty());
}

#[test]
fn a_third_domain_is_not_known_behind_the_gateway() {
    if !kernel_available() {
        return;
    }
    let lab = Federation::new(GATEWAY, HookChoice::Auto);
    let text = "use third.vocabulary\nzone lan = interface \"eth0\"\nstamp on lan { subject third.robot  operation third.poll  residency home  radius any }";
    lab.robot.apply(&image(&[text]), &["eth0"]);
    let send = |v6: bool| {
        let sender = udp_socket(&lab.robot.namespace, address(3, 2, v6), 0);
        sender.send_to(b"poll", SocketAddr::new(address(2, 2, v6), ORDERS)).unwrap();
    };
    // The gateway lets it pass as it is, since nothing is said about its domain.
    for (v6, count) in [(false, 1), (true, 2)] {
        send(v6);
        assert!(wait_until(|| lab.ledger.count("ingress", "domain_unknown") == count));
    }
    // Once something is, it becomes what that says.
    let third = "translate third -> acme on lan { third.robot -> acme.guest  cap level public  add constraints {no_forward}  operation third.poll -> web.get  residency home -> de }";
    lab.open(&format!("{GATEWAY}\n{third}"), HookChoice::Auto);
    for (v6, count) in [(false, 1), (true, 2)] {
        send(v6);
        assert!(wait_until(|| lab.ledger.count("ingress", "no_rule") == count));
    }
    let poll = third.replace("web.get", "ledger.read").replace("acme.guest", "acme.web.front");
    lab.open(&format!("{GATEWAY}\n{poll}"), HookChoice::Auto);
    for (v6, count) in [(false, 1), (true, 2)] {
        send(v6);
        assert!(
            wait_until(|| lab.ledger.decided("ledger.orders") >= count),
            "{:?}",
            lab.ledger.reasons("ingress")
        );
    }
}

#[test]
fn an_answer_is_one_only_to_what_has_passed() {
    if !kernel_available() {
        return;
    }
    let lab = Federation::new(GATEWAY, HookChoice::Auto);
    let asked = udp_socket(&lab.shop.namespace, address(1, 2, false), 0);
    let asks = asked.local_addr().unwrap();
    let ledger = udp_socket(&lab.ledger.namespace, address(2, 2, false), ORDERS);
    asked.send_to(b"order", ledger.local_addr().unwrap()).unwrap();
    assert_eq!(receive(&ledger, 1).len(), 1);
    ledger.send_to(b"taken", asks).unwrap();
    assert_eq!(receive(&asked, 1).len(), 1);
    // Another gateway has the same policy and keys, and has seen nothing.
    lab.gateway.detach(&[]);
    let other = Node::within(Namespace::clone(&lab.gateway.namespace), lab.gateway.keys());
    other.apply(&gateway(GATEWAY), &["to_s", "to_l", "to_t"]);
    ledger.send_to(b"again", asks).unwrap();
    assert!(
        wait_until(|| other.count("forward", "no_rule") == 1),
        "{:?}",
        other.reasons("forward")
    );
    assert!(drain(&asked).is_empty());
}

#[test]
fn keys_that_were_staged_last_without_anybody_and_then_it_is_closed() {
    if !kernel_available() {
        return;
    }
    let lab = Federation::new(GATEWAY, HookChoice::Auto);
    // Epochs of four seconds; the gateway gets the present one and the next three.
    const EPOCH_SHIFT: u32 = 1;
    let imported = DomainKeys::generate("partner", 9, EPOCH_SHIFT, 3).unwrap();
    let text = imported.to_text().unwrap();
    let mut partner = DomainKeys::from_text(std::str::from_utf8(&text).unwrap()).unwrap();
    partner.stage(slot_now(), 12).unwrap();
    let end = imported.epochs().map(|epoch| epoch.not_after_slot).max().unwrap();
    for (node, keys) in [(&lab.shop, &partner), (&lab.gateway, &imported)] {
        node.keys().ring().write(keys).unwrap();
        publish::refresh_keys(&node.place, node.keys().ring()).unwrap();
    }
    // No file of any ring is left, and no process of govc ever lived here.
    for node in [&lab.shop, &lab.ledger, &lab.robot, &lab.gateway] {
        std::fs::remove_dir_all(node.keys().ring().dir()).unwrap();
    }
    let old = udp_socket(&lab.shop.namespace, address(1, 2, false), 0);
    let ledger = udp_socket(&lab.ledger.namespace, address(2, 2, false), ORDERS);
    let to = ledger.local_addr().unwrap();
    let mut epochs = std::collections::BTreeSet::new();
    let start = Instant::now();
    while slot_now() + 1 < end {
        assert!(start.elapsed() < PATIENCE, "epochs end");
        epochs.insert(slot_now() >> EPOCH_SHIFT);
        let new = udp_socket(&lab.shop.namespace, address(1, 2, false), 0);
        for socket in [&old, &new] {
            socket.send_to(b"order", to).unwrap();
            assert_eq!(receive(&ledger, 1).len(), 1, "{:?}", lab.gateway.reasons("ingress"));
        }
        thread::sleep(Duration::from_millis(200));
    }
    assert!(epochs.len() >= 2, "{epochs:?}");
    // For hooks as well, whose clock moves by ticks.
    while sure_slot().is_none_or(|slot| slot < end) {
        thread::sleep(Duration::from_millis(50));
    }
    drain(&ledger);
    let before = lab.gateway.count("ingress", "epoch_expired");
    for (socket, count) in
        [(&old, 1), (&udp_socket(&lab.shop.namespace, address(1, 2, false), 0), 2)]
    {
        socket.send_to(b"order", to).unwrap();
        assert!(wait_until(|| lab.gateway.count("ingress", "epoch_expired") == before + count));
    }
    assert!(drain(&ledger).is_empty());
    denied(exchange(brief(lab.orders(true))));
}

#[test]
fn labels_of_fragments_become_those_of_the_other_domain_too() {
    if !kernel_available() {
        return;
    }
    let gateway = GATEWAY.replace(
        "    permit questions {",
        "    permit large { from partner.**  where egress zone is lan  proto udp  fragments }\n    permit questions {",
    );
    let ledger = LEDGER.replace(
        "    permit orders {",
        "    permit large { from acme.guest  where level is public  proto udp  fragments }\n    permit orders {",
    );
    let sends =
        "policy out { on egress  permit all { from partner.shop  proto udp  fragments } }\n";
    let datagram: Vec<u8> = (0..4000).map(|at: u32| at as u8).collect();
    for (hook, tunnels) in
        [(HookChoice::Tcx, false), (HookChoice::Xdp, false), (HookChoice::Tcx, true)]
    {
        let carriage = |net: u8, zone: &str| match tunnels {
            true => format!("carriage tunnel to 10.77.{net}.0/24, fd77:{net}::/64 on {zone}\n"),
            false => String::new(),
        };
        let tunnel = [carriage(2, "lan"), carriage(1, "neighbours")].concat();
        let lab = Federation::new(&format!("{gateway}{tunnel}"), hook);
        let more = format!("{sends}{}", carriage(2, "lan"));
        lab.shop.apply(&shop_with(&format!("{ORDER}  fragments"), &more), &[]);
        let ledger = format!("{ledger}{}", carriage(1, "lan"));
        lab.ledger.apply(&image(&["use acme.vocabulary", &ledger]), &[]);
        for v6 in BOTH_VERSIONS {
            let what = format!("{hook:?} {v6} {tunnels}");
            let receiver = udp_socket(&lab.ledger.namespace, address(2, 2, v6), ORDERS);
            let sender = fragmenting_socket(&lab.shop.namespace, address(1, 2, v6));
            let goes = labels(&lab.gateway.namespace, "to_l", || {
                sender.send_to(&datagram, SocketAddr::new(address(2, 2, v6), ORDERS)).unwrap();
                let received = receive(&receiver, 1);
                assert!(received == [&datagram[..]], "{what} {:?}", lab.ledger.reasons("ingress"));
            });
            let own: Vec<u16> = goes.iter().map(Label::domain).collect();
            assert_eq!(own, if tunnels { vec![] } else { vec![7; 3] }, "{what}");
        }
        assert_eq!(lab.ledger.decided("ledger.large"), 6, "{hook:?} {tunnels}");
    }
}

#[test]
fn labels_in_tunnels_become_those_of_the_other_domain_too() {
    if !kernel_available() {
        return;
    }
    let carriage = |net: u8, zone: &str| {
        format!("carriage tunnel to 10.77.{net}.0/24, fd77:{net}::/64 on {zone}\n")
    };
    let policy = format!("{GATEWAY}{}{}", carriage(2, "lan"), carriage(1, "neighbours"));
    let lab = Federation::new(&policy, HookChoice::Tcx);
    lab.shop.apply(&shop_with(ORDER, &carriage(2, "lan")), &[]);
    let ledger = format!("{LEDGER}{}", carriage(1, "lan"));
    lab.ledger.apply(&image(&["use acme.vocabulary", &ledger]), &[]);
    for v6 in BOTH_VERSIONS {
        let options = labels(&lab.gateway.namespace, "to_l", || {
            delivered(exchange(lab.orders(v6)), "an order");
            delivered(exchange(lab.questions(v6)), "a question");
            transfer(lab.orders(v6), 2_000_000);
        });
        assert_eq!(options, [], "labels ride in tunnels alone");
    }
    // What nobody translates does not pass in a tunnel either.
    lab.shop.apply(
        &shop_with(&ORDER.replace("partner.shop", "partner.visitor"), &carriage(2, "lan")),
        &[],
    );
    for v6 in BOTH_VERSIONS {
        lab.refused("forward", "untranslated", v6);
    }
}

#[test]
fn translated_labels_name_the_transit_grant() {
    if !kernel_available() {
        return;
    }
    const LEDGERS: u16 = 11;
    const FOR_SHOP: u16 = 12;
    const FOR_BILLING: u16 = 13;
    let signed = |stamps, transit: Vec<(u32, Held)>| Authority {
        domain: 7,
        stamps,
        transit,
        revoked: Vec::new(),
        abroad: Vec::new(),
        not_before: slot_now() * 2 - 100,
        not_after: u64::MAX,
    };
    let lab = Federation::new(GATEWAY, HookChoice::Tcx);
    // The ledger's domain asks for a grant in every label now.
    let held = vec![(0, Held { serial: LEDGERS, not_after: u64::MAX })];
    let authority = signed(held, Vec::new());
    let how = How { authority: Some(&authority), ..How::default() };
    lab.ledger.try_apply(&image(&["use acme.vocabulary", LEDGER]), &[], how).unwrap();
    for v6 in BOTH_VERSIONS {
        denied(exchange(brief(lab.orders(v6))));
        assert!(lab.ledger.count("ingress", "ungranted") > 0);
    }
    // And the gateway holds one for each of the two senders that it lets through.
    let policy = gateway(GATEWAY);
    let granted = ["shop", "billing.invoices"].map(|sender| {
        let subject = subject(&policy, "partner", sender);
        let partner = policy.names().domains.iter().position(|domain| domain.name == "partner");
        let mut all = policy.translations().filter(|one| Some(one.from as usize) == partner);
        let of = all.find(|one| one.subjects.is_some_and(|(first, _)| first == subject));
        of.unwrap().number
    });
    let granted = granted.into_iter().zip([FOR_SHOP, FOR_BILLING]);
    let granted = granted.map(|(number, serial)| (number, Held { serial, not_after: u64::MAX }));
    let authority = signed(Vec::new(), granted.collect());
    let how = How { authority: Some(&authority), ..How::default() };
    lab.gateway.try_apply(&policy, &[], how).unwrap();
    for v6 in BOTH_VERSIONS {
        let goes = labels(&lab.gateway.namespace, "to_l", || {
            delivered(exchange(lab.orders(v6)), "under a grant");
        });
        let serials: Vec<u16> = goes.iter().map(Label::grant).collect();
        assert_eq!(serials, [FOR_SHOP, LEDGERS]);
        // A serial of the one domain's means nothing in the other.
        let back = labels(&lab.gateway.namespace, "to_s", || {
            delivered(exchange(lab.orders(v6)), "and back");
        });
        assert_eq!(back.iter().map(Label::grant).collect::<Vec<_>>(), [0, 0]);
    }
    lab.shop.apply(&shop(&ORDER.replace("partner.shop", "partner.billing.invoices")), &[]);
    for v6 in BOTH_VERSIONS {
        let goes = labels(&lab.gateway.namespace, "to_l", || {
            delivered(exchange(lab.orders(v6)), "under another grant");
        });
        assert_eq!(goes.iter().map(Label::grant).collect::<Vec<_>>(), [FOR_BILLING, LEDGERS]);
    }
}

/// Two workloads of one domain, and between them a node that gives packets other addresses.
mod readdressed {
    use super::*;
    use govc_netlab::IpPrefix;
    use govc_tests::{
        lab::{Lab, READ, UNNAMED},
        node::address,
    };

    const TRANSIT: &str = "
zone left = interface \"to_a\"
     right = interface \"to_b\"
policy transit {
    on forward
    permit reads { from acme.payments.api  where egress zone is right  proto tcp port 5432  proto udp port 5432 }
}
";
    const READDRESS: &str = "
translate acme -> acme on right { readdress }
translate acme -> acme on left { readdress }
";

    fn policy(parts: &[&str]) -> Image {
        govc_tests::node::image(parts)
    }

    fn lab(rules: &str) -> (Lab, Node) {
        let lab = Lab::governed();
        router::load(&lab.router, &format!("table inet nat {{\n{rules}\n}}\n"));
        let router = Node::within(Namespace::clone(&lab.router), &lab.keys);
        (lab, router)
    }

    fn open(router: &Node, parts: &[&str], hook: HookChoice) {
        let how = How { hook, ..How::default() };
        router.try_apply(&policy(parts), &["to_a", "to_b"], how).unwrap();
    }

    /// A flow from A to an address that is somebody else's.
    fn to(lab: &Lab, at: SocketAddr, v6: bool) -> (std::net::UdpSocket, std::net::UdpSocket) {
        let server = udp_socket(&lab.b.namespace, address(2, 2, v6), READ);
        let client = udp_socket(&lab.a.namespace, address(1, 2, v6), 0);
        client.send_to(b"read", at).unwrap();
        (server, client)
    }

    fn answered(
        server: &std::net::UdpSocket,
        client: &std::net::UdpSocket,
        seen_from: std::net::IpAddr,
        from: SocketAddr,
    ) {
        let mut buffer = [0; 64];
        assert!(wait_until(|| server.peek(&mut buffer).is_ok()), "nothing came");
        let (len, peer) = server.recv_from(&mut buffer).unwrap();
        assert_eq!((&buffer[..len], peer.ip()), (&b"read"[..], seen_from));
        server.send_to(b"there", peer).unwrap();
        assert!(wait_until(|| client.peek(&mut buffer).is_ok()), "no answer");
        assert_eq!(client.recv_from(&mut buffer).unwrap(), (5, from));
    }

    #[test]
    fn labels_outlive_other_addresses_where_a_policy_says_so() {
        if !kernel_available() || !nft_available() {
            return;
        }
        // A service that nobody has: what is sent to it gets to B, and the other way from an address that A
        // does not have.
        let rules = "
            chain before { type nat hook prerouting priority -100;
                ip daddr 10.77.9.9 udp dport 9999 dnat ip to 10.77.2.2:5432
                ip6 daddr fd77:9::9 udp dport 9999 dnat ip6 to [fd77:2::2]:5432
            }
            chain behind { type nat hook postrouting priority 100;
                oifname to_b ip saddr 10.77.1.2 masquerade
                oifname to_b ip6 saddr fd77:1::2 masquerade
            }";
        for hook in [HookChoice::Tcx, HookChoice::Xdp] {
            let (lab, router) = lab(rules);
            for v6 in BOTH_VERSIONS {
                let host = IpPrefix::new(address(9, 9, v6), if v6 { 128 } else { 32 }).unwrap();
                lab.router.set_route(host, Some(address(2, 2, v6)), "to_b").unwrap();
                let service = SocketAddr::new(address(9, 9, v6), 9999);
                let service_rule = "policy transit {\n    on forward\n    permit service { from acme.payments.api  proto udp port 9999 }\n    permit reads";
                let served = TRANSIT
                    .replace("policy transit {\n    on forward\n    permit reads", service_rule);
                // Without a policy the label is worth nothing with other addresses.
                open(&router, &[&served], hook);
                let before = router.count("egress", "bad_mac");
                let (server, client) = to(&lab, service, v6);
                assert!(
                    wait_until(|| router.count("egress", "bad_mac") == before + 1),
                    "{hook:?} {v6}"
                );
                assert!(drain(&server).is_empty());
                drop((server, client));
                open(&router, &[&served, READDRESS], hook);
                let (server, client) = to(&lab, service, v6);
                answered(&server, &client, address(2, 1, v6), service);
                drop((server, client));
                // Only the own address changes.
                let direct = SocketAddr::new(address(2, 2, v6), READ);
                let (server, client) = to(&lab, direct, v6);
                answered(&server, &client, address(2, 1, v6), direct);
                drop((server, client));
                transfer(lab.to_b(v6, READ), 2_000_000);
            }
            assert!(lab.b.decided("ledger.read") > 4, "{hook:?}");
            // Rules decide as ever.
            denied(exchange(brief(lab.to_b(false, UNNAMED))));
        }
    }

    #[test]
    fn a_label_that_was_never_verified_here_is_worth_nothing_with_other_addresses() {
        if !kernel_available() || !nft_available() {
            return;
        }
        let (lab, router) = lab(
            "chain behind { type nat hook postrouting priority 100; oifname to_b masquerade\n }\n",
        );
        // It comes in where nobody looks: that is no proof, whatever else is known of the label.
        let how = How { hook: HookChoice::Tcx, ..How::default() };
        router.try_apply(&policy(&[TRANSIT, READDRESS]), &["to_b"], how).unwrap();
        let client = udp_socket(&lab.a.namespace, address(1, 2, false), 0);
        client.send_to(b"read", SocketAddr::new(address(2, 2, false), READ)).unwrap();
        assert!(
            wait_until(|| router.count("egress", "bad_mac") == 1),
            "{:?}",
            router.reasons("egress")
        );
    }
}
