//! What operators do to nodes under traffic: several interfaces, detach, rollback, applies that are
//! refused.

use std::{ffi::OsStr, net::SocketAddr};

use aya::programs::links::PinnedLink;
use clap::Parser as _;
use govc::{
    arguments::{Arguments, Color},
    failure::Failure,
    output::Style,
};
use govc_abi::names;
use govc_image::Image;
use govc_loader::{
    attach::HookChoice,
    error::LoadError,
    keyring::{DomainKeys, EPOCH_SHIFT_DEFAULT, KeyRing},
    object, publish,
};
use govc_netlab::{DontFragment, Flow, Namespace, Outcome};
use govc_tests::{
    domains, kernel_available,
    lab::{
        BOTH_VERSIONS, Lab, MTU, RULES, UNNAMED, api, delivered, denied, flows_again, headers,
        ledger, transfer,
    },
    node::{
        DENIED_WAIT, How, Keys, Node, PATIENCE, address, connect, drain, image, receive_within,
        udp_socket, wait_until, workload,
    },
    replay::Recording,
    wireshark::Scratch,
};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// A policy that tells two interfaces apart.
const ZONES: &str = "
zone left = interface \"eth0\"
     right = interface \"eth1\"
stamp on left { subject acme.payments.api  operation ledger.read }
stamp on right { subject acme.payments.api  operation ledger.write }
deliver on left { object acme.payments.ledger }
deliver on right { object acme.payments.ledger }
policy sides {
    on ingress to acme.payments.ledger
    permit left_reads { operation ledger.read  where ingress zone is left  proto udp port 1000 }
    permit right_writes { operation ledger.write  where ingress zone is right  proto udp port 2000 }
}
";

#[test]
fn one_instance_enforces_on_two_interfaces() {
    if !kernel_available() {
        return;
    }
    let keys = Keys::new();
    let (a, b) = (Node::new("a", &keys), Node::new("b", &keys));
    connect(1, [(&a.namespace, "eth0"), (&b.namespace, "eth0")]);
    connect(2, [(&a.namespace, "eth1"), (&b.namespace, "eth1")]);
    let policy = image(&[ZONES]);
    for node in [&a, &b] {
        // The second interface joins later; the first is enforced on from then on unasked.
        node.apply(&policy, &["eth0"]);
        let applied = node.apply(&policy, &["eth1"]);
        let zones: Vec<_> =
            applied.interfaces.iter().map(|i| (i.name.as_str(), i.zone.as_deref())).collect();
        assert_eq!(zones.len(), 2, "{zones:?}");
        assert!(zones.contains(&("eth0", Some("left"))), "{zones:?}");
        assert!(zones.contains(&("eth1", Some("right"))), "{zones:?}");
    }
    let flow = |net, port, v6, timeout| {
        let to = SocketAddr::new(address(net, 2, v6), port);
        Flow::new(&b.namespace, to, &a.namespace, timeout)
    };
    let exchange = |net, port, v6, timeout| {
        flow(net, port, v6, timeout).udp_exchange(64, DontFragment::Want).unwrap()
    };
    let both = |left: u16, right: u16| {
        for v6 in BOTH_VERSIONS {
            delivered(exchange(1, left, v6, PATIENCE), "left");
            denied(exchange(1, right, v6, DENIED_WAIT));
            delivered(exchange(2, right, v6, PATIENCE), "right");
            denied(exchange(2, left, v6, DENIED_WAIT));
        }
    };
    let recording = Recording::start(&b, "eth0", (&a.namespace, "eth0"));
    both(1000, 2000);
    // A request and its reply over each IP version.
    assert_eq!(b.decided("sides.left_reads"), 4);
    assert_eq!(b.decided("sides.right_writes"), 4);
    assert_eq!(b.count("ingress", "no_rule"), 4);

    // A new policy reaches both without naming either.
    let swapped = ZONES.replace("port 1000", "port X").replace("port 2000", "port 1000");
    b.apply(&image(&[&swapped.replace("port X", "port 2000")]), &[]);
    both(2000, 1000);
    // Each packet was decided by the policy and for the zone of then.
    assert!(recording.replay(GOVC, &[]).len() >= 8);

    // Leaving one keeps the other.
    assert_eq!(b.detach(&["eth0"]), ["eth0"]);
    let names: Vec<_> = b.status().interfaces.into_iter().map(|i| i.attached.interface).collect();
    assert_eq!(names, ["eth1"]);
    denied(exchange(2, 2000, false, DENIED_WAIT));
    delivered(exchange(2, 1000, false, PATIENCE), "right");
    assert_eq!(a.detach(&["eth0"]), ["eth0"]);
    // Nobody enforces on the left any more.
    flows_again(flow(1, 9, false, PATIENCE));
}

#[test]
fn detaching_restores_mtus_and_unlabelled_traffic() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let full_size = |flow: Flow<'_>| {
        let payload = MTU - headers(flow.bind.is_ipv6());
        flow.udp_exchange(payload, DontFragment::Do).unwrap()
    };
    let v6_mtu = |node: &Node| {
        let path = "/proc/sys/net/ipv6/conf/eth0/mtu";
        node.namespace.run(|| std::fs::read_to_string(path)).unwrap().trim().to_owned()
    };
    let untouched = || {
        lab.permitted().into_iter().for_each(flows_again);
        for flow in lab.permitted() {
            delivered(full_size(flow), &format!("{flow}: a datagram as large as the MTU"));
        }
        assert_eq!([&lab.a, &lab.b].map(v6_mtu), ["1500", "1500"]);
    };
    for round in 0..2 {
        untouched();
        lab.a.apply(&api(), &["eth0"]);
        lab.b.apply(&ledger(), &["eth0"]);
        for flow in lab.permitted() {
            assert_eq!(full_size(flow), Outcome::TooBig, "{round}: {flow}");
        }
        assert_eq!([&lab.a, &lab.b].map(v6_mtu), ["1468", "1468"]);
        for node in [&lab.a, &lab.b] {
            assert_eq!(node.detach(&[]), ["eth0"]);
            assert!(!node.place.exists() && !node.place.dir().exists());
        }
    }
    let watches = lab.watch();
    untouched();
    transfer(lab.to_b(false, UNNAMED), 1_000_000);
    for watch in watches {
        let seen = watch.finish();
        assert!(seen.bare > 0 && seen.labelled == 0, "{seen:?}");
    }
}

#[test]
fn detaching_works_while_others_look_at_the_links() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    lab.b.apply(&ledger(), &["eth0"]);
    let pins = std::fs::read_dir(lab.b.place.dir()).unwrap().map(|entry| entry.unwrap().path());
    let links: Vec<PinnedLink> = pins
        .filter(|pin| pin.file_name().unwrap().to_string_lossy().starts_with("link-"))
        .map(|pin| PinnedLink::from_pin(pin).unwrap())
        .collect();
    assert_eq!(links.len(), 2);
    let server = udp_socket(&lab.b.namespace, address(2, 2, false), 9);
    let socket = udp_socket(&lab.a.namespace, address(1, 2, false), 0);
    let arrives = |limit| {
        socket.send_to(b"unlabelled", server.local_addr().unwrap()).unwrap();
        receive_within(limit, &server, 1).len() == 1
    };
    assert!(!arrives(DENIED_WAIT));
    lab.b.detach(&[]);
    // At once: not when the last of the links' descriptors is closed.
    assert!(arrives(DENIED_WAIT));
    drop(links);
}

/// A policy for B that permits one UDP port.
fn one_port(port: u16) -> Image {
    let rules = format!("policy only {{ on ingress  permit port {{ proto udp port {port} }} }}");
    image(&[&workload("acme.payments.ledger", "read"), &rules])
}

/// B serves this port and not the other.
fn serves(lab: &Lab, port: u16, not: u16) {
    for v6 in BOTH_VERSIONS {
        let exchange = |port, timeout| {
            let flow = Flow { timeout, ..lab.to_b(v6, port) };
            flow.udp_exchange(64, DontFragment::Want).unwrap()
        };
        denied(exchange(not, DENIED_WAIT));
        delivered(exchange(port, PATIENCE), &format!("port {port}"));
    }
}

#[test]
fn rollback_returns_to_the_policy_before() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    lab.a.apply(&api(), &["eth0"]);
    assert_eq!(lab.b.apply(&one_port(1000), &["eth0"]).generation, 1);
    let none = publish::rollback(&lab.b.place);
    assert!(matches!(none, Err(LoadError::NoEarlierGeneration(_))), "{none:?}");
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    serves(&lab, 1000, 2000);
    assert_eq!(lab.b.apply(&one_port(2000), &["eth0"]).generation, 2);
    serves(&lab, 2000, 1000);
    assert_eq!(lab.b.rollback(), 1);
    assert_eq!(lab.b.generation(), 1);
    assert_eq!(lab.b.status().earlier.map(|earlier| earlier.number), Some(2));
    serves(&lab, 1000, 2000);
    // What was left is the earlier one now.
    assert_eq!(lab.b.rollback(), 2);
    serves(&lab, 2000, 1000);
    assert_eq!(lab.b.rollback(), 1);
    // A number is never given twice.
    assert_eq!(lab.b.apply(&one_port(3000), &["eth0"]).generation, 3);
    serves(&lab, 3000, 1000);
    assert_eq!(lab.b.rollback(), 1);
    serves(&lab, 1000, 3000);
    assert!(recording.replay(GOVC, &[]).len() >= 24);
}

#[test]
fn rollback_keeps_interfaces_that_came_since_in_their_zones() {
    if !kernel_available() {
        return;
    }
    let keys = Keys::new();
    let (a, b) = (Node::new("a", &keys), Node::new("b", &keys));
    for (net, device) in [(1, "eth0"), (2, "eth1")] {
        connect(net, [(&a.namespace, device), (&b.namespace, device)]);
    }
    let policy = image(&[ZONES]);
    a.apply(&policy, &["eth0", "eth1"]);
    b.apply(&policy, &["eth0"]);
    b.apply(&policy, &["eth1"]);
    let right = |v6| {
        let to = SocketAddr::new(address(2, 2, v6), 2000);
        let flow = Flow::new(&b.namespace, to, &a.namespace, PATIENCE);
        delivered(flow.udp_exchange(64, DontFragment::Want).unwrap(), "right");
    };
    BOTH_VERSIONS.into_iter().for_each(right);
    assert_eq!(b.rollback(), 1);
    BOTH_VERSIONS.into_iter().for_each(right);
    assert_eq!(b.count("egress", "no_subject"), 0);
}

#[test]
fn keys_of_the_policy_in_force_are_renewed_whatever_the_earlier_one_wants() {
    if !kernel_available() {
        return;
    }
    let rings = [domains::keys("acme", 7), domains::keys("partner", 9)];
    let keys = Keys::holding(&[&rings[0], &rings[1]]);
    let node = Node::new("node", &keys);
    let peer = Namespace::create("peer").unwrap();
    connect(1, [(&node.namespace, "eth0"), (&peer, "eth0")]);
    let both = domains::image(&["use partner.vocabulary\nuse acme.vocabulary\n", ZONES]);
    node.apply(&both, &["eth0"]);
    node.apply(&image(&[ZONES]), &[]);
    let ends = |node: &Node| {
        let status = node.status();
        status.keys.iter().map(|one| (one.domain.clone(), one.ends_in_s)).collect::<Vec<_>>()
    };
    // The partner's keys have gone with the policy that spoke of it.
    let ring = KeyRing::new(keys.ring().dir().join("fewer"));
    let longer = DomainKeys::generate("acme", 7, EPOCH_SHIFT_DEFAULT, 6).unwrap();
    ring.write(&longer).unwrap();
    let before = ends(&node);
    publish::refresh_keys(&node.place, &ring).unwrap();
    let after = ends(&node);
    assert!(before.len() == 1 && after[0].1 > before[0].1, "{before:?} {after:?}");
    // The earlier generation has those that there are.
    assert_eq!(node.rollback(), 1);
    assert_eq!(ends(&node), [("partner".to_owned(), 0), after[0].clone()]);
    // For what is in force all of them are wanted.
    let refused = publish::refresh_keys(&node.place, &ring);
    assert!(
        matches!(&refused, Err(LoadError::NoKey(domain)) if domain == "partner"),
        "{refused:?}"
    );
}

#[test]
fn an_instance_is_for_one_network_namespace() {
    if !kernel_available() {
        return;
    }
    let lab = lab_to_refuse_in();
    let mut elsewhere = Node::within(lab.a.namespace.clone(), &lab.keys);
    elsewhere.place = lab.b.place.clone();
    for interfaces in [&["eth0"][..], &[]] {
        let error = elsewhere.try_apply(&one_port(2000), interfaces, How::default()).unwrap_err();
        assert!(matches!(error, LoadError::Elsewhere { .. }), "{error:?}");
        assert!(error.help().unwrap().contains("--instance NAME"));
    }
    serves(&lab, 1000, 2000);
    assert_eq!(lab.b.generation(), 1);
}

#[test]
fn flows_of_another_layout_are_forgotten_and_enforcement_goes_on() {
    if !kernel_available() {
        return;
    }
    let lab = lab_to_refuse_in();
    // As an earlier version would have left them.
    for (name, value_len) in [(names::map::FLOWS, 136), (names::map::CPU, 64)] {
        let pin = lab.b.place.pin(name);
        std::fs::remove_file(&pin).unwrap();
        object::create_array(&pin, name, value_len, 8).unwrap();
    }
    lab.b.forget_object();
    assert!(lab.b.apply(&one_port(2000), &[]).programs_loaded);
    serves(&lab, 2000, 1000);
}

/// A lab whose B serves port 1000 in generation 1, with a spare interface.
fn lab_to_refuse_in() -> Lab {
    let lab = Lab::bare();
    lab.a.apply(&api(), &["eth0"]);
    lab.b.apply(&one_port(1000), &["eth0"]);
    connect(9, [(&lab.router, "spare"), (&lab.b.namespace, "eth1")]);
    lab
}

/// Applies port 2000 to B, which must be refused, and changes nothing.
fn refused(lab: &Lab, interfaces: &[&str], how: How<'_>) -> LoadError {
    let error = lab.b.try_apply(&one_port(2000), interfaces, how).expect_err("it is refused");
    let attached: Vec<_> = lab.b.status().interfaces.into_iter().map(|i| i.attached).collect();
    assert_eq!(attached.len(), 1, "{error}: {attached:?}");
    serves(lab, 1000, 2000);
    assert_eq!(lab.b.generation(), 1, "{error}");
    error
}

#[test]
fn an_interface_without_room_is_refused() {
    if !kernel_available() {
        return;
    }
    let lab = lab_to_refuse_in();
    lab.b.namespace.set_mtu("eth1", 1311).unwrap();
    let error = refused(&lab, &["eth0", "eth1"], How::default());
    assert!(
        matches!(&error, LoadError::MtuTooSmall { interface, mtu: 1311, overhead: 32 } if interface == "eth1"),
        "{error:?}"
    );
    lab.b.namespace.set_mtu("eth1", 1312).unwrap();
    assert_eq!(lab.b.apply(&one_port(2000), &["eth1"]).generation, 2);
}

#[test]
fn an_interface_that_lost_its_room_keeps_the_policy_it_has() {
    if !kernel_available() {
        return;
    }
    let lab = lab_to_refuse_in();
    lab.b.namespace.set_mtu("eth0", 1300).unwrap();
    let error = refused(&lab, &[], How::default());
    assert!(matches!(error, LoadError::MtuTooSmall { mtu: 1300, .. }), "{error:?}");
}

#[test]
fn an_unknown_interface_is_refused() {
    if !kernel_available() {
        return;
    }
    let lab = lab_to_refuse_in();
    let error = refused(&lab, &["eth0", "eth7"], How::default());
    assert!(matches!(&error, LoadError::NoInterface(name) if name == "eth7"), "{error:?}");
}

#[test]
fn a_policy_without_keys_is_refused() {
    if !kernel_available() {
        return;
    }
    let lab = lab_to_refuse_in();
    let empty = KeyRing::new(lab.keys.ring().dir().join("empty"));
    let error = refused(&lab, &["eth0"], How { keys: Some(&empty), ..How::default() });
    assert!(matches!(&error, LoadError::NoKey(domain) if domain == "acme"), "{error:?}");
}

#[test]
fn an_apply_beside_another_is_refused() {
    if !kernel_available() {
        return;
    }
    let lab = lab_to_refuse_in();
    let lock = lab.b.place.lock().unwrap();
    let error = refused(&lab, &["eth0"], How::default());
    assert!(matches!(error, LoadError::Locked(_)), "{error:?}");
    drop(lock);
    assert_eq!(lab.b.apply(&one_port(2000), &[]).generation, 2);
    serves(&lab, 2000, 1000);
}

#[test]
fn an_xdp_hook_that_is_taken_is_refused() {
    if !kernel_available() {
        return;
    }
    let lab = lab_to_refuse_in();
    let how = How { hook: HookChoice::Xdp, ..How::default() };
    // The other program: that of another instance.
    let other = Node::within(lab.b.namespace.clone(), &lab.keys);
    other.try_apply(&one_port(1), &["eth1"], how).unwrap();
    let error = refused(&lab, &["eth1"], how);
    assert!(matches!(&error, LoadError::XdpBusy { interface } if interface == "eth1"), "{error:?}");
    // The first policy of an instance: nothing stays behind on the interface.
    let third = Node::within(lab.b.namespace.clone(), &lab.keys);
    let error = third.try_apply(&one_port(1), &["eth1"], how).expect_err("the hook is taken");
    assert!(matches!(error, LoadError::XdpBusy { .. }), "{error:?}");
    drop(third);
    other.detach(&[]);
    assert_eq!(lab.b.try_apply(&one_port(2000), &["eth1"], how).unwrap().generation, 2);
    serves(&lab, 2000, 1000);
}

#[test]
fn an_instance_whose_interface_was_replaced_enforces_on_the_new_one() {
    if !kernel_available() {
        return;
    }
    let keys = Keys::new();
    let joined = || {
        let [peer, own] = ["peer", "own"].map(|name| Namespace::create(name).unwrap());
        connect(1, [(&peer, "eth0"), (&own, "eth0")]);
        (peer, own)
    };
    // As when a container starts anew: the pins have outlived its namespace, and the interface
    // of the new one has the name and the index of the old one.
    let (first_peer, first) = joined();
    let mut node = Node::within(first, &keys);
    node.apply(&one_port(1000), &["eth0"]);
    let index = node.namespace.ifindex("eth0").unwrap();
    let (peer, second) = joined();
    assert_eq!(second.ifindex("eth0").unwrap(), index);
    node.namespace = second;
    drop(first_peer);
    node.apply(&one_port(1000), &["eth0"]);
    let server = udp_socket(&node.namespace, address(1, 2, false), 9);
    let socket = udp_socket(&peer, address(1, 1, false), 0);
    socket.send_to(b"unlabelled", server.local_addr().unwrap()).unwrap();
    assert!(
        wait_until(|| node.count("ingress", "label_missing") > 0 || !drain(&server).is_empty())
    );
    assert_eq!(node.count("ingress", "label_missing"), 1, "enforced on the new interface");
}

#[test]
fn what_is_in_force_is_compared_with_what_shall_be() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    lab.b.apply(&ledger(), &["eth0"]);
    let scratch = Scratch::new();
    let diff = |image: &Image| {
        let path = scratch.write("new.img", image.bytes());
        let instance = lab.b.place.name();
        let words = ["govc", "diff", "--running", "--instance", instance, "--json"];
        let arguments =
            Arguments::parse_from(words.map(OsStr::new).into_iter().chain([path.as_os_str()]));
        match govc::commands::run(arguments, &Style::new(Color::Never)) {
            Ok(()) => 0,
            Err(Failure::Different(code)) => code,
            Err(other) => panic!("{other}"),
        }
    };
    let changed = |from: &str, to: &str| {
        image(&[&workload("acme.payments.ledger", "read"), &RULES.replacen(from, to, 1)])
    };
    assert_eq!(diff(&ledger()), 0);
    assert_eq!(diff(&changed("tcp port 5432", "tcp port 5432, 5433")), 12);
    assert_eq!(diff(&changed("permit read {", "deny read {")), 11);
    assert_eq!(diff(&changed("permit read {", "permit reads {")), 10);
    // What is in force afterwards is what is compared.
    let wider = changed("tcp port 5432", "tcp port 5432, 5433");
    lab.b.apply(&wider, &[]);
    assert_eq!([diff(&wider), diff(&ledger())], [0, 11]);
}
