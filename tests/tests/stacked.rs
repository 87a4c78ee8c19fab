//! Devices on top of an interface: what they send and get passes the hooks of that interface.

use std::net::SocketAddr;

use govc_loader::attach::HookChoice;
use govc_netlab::{DontFragment, Flow, PacketSocket, macvlan};
use govc_tests::{
    kernel_available,
    lab::{BOTH_VERSIONS, LABEL, Lab, MTU, READ, TELNET, api, ledger},
    node::{
        DENIED_WAIT, How, Keys, Node, PATIENCE, address, connect, prefix, udp_socket, wait_until,
    },
    replay::Recording,
};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// The network of the devices on top.
const NET: u8 = 3;

/// Two nodes on one link, with a device on top of each end.
fn stacked(hook: HookChoice) -> [Node; 2] {
    let keys = Keys::new();
    let nodes = [Node::new("a", &keys), Node::new("b", &keys)];
    connect(1, [(&nodes[0].namespace, "eth0"), (&nodes[1].namespace, "eth0")]);
    for (node, host) in nodes.iter().zip([1, 2]) {
        macvlan(&node.namespace, "eth0", "top").unwrap();
        for v6 in BOTH_VERSIONS {
            node.namespace.add_address("top", prefix(NET, host, v6)).unwrap();
        }
    }
    let how = How { hook, ..How::default() };
    nodes[0].try_apply(&api(), &["eth0"], how).unwrap();
    nodes[1].try_apply(&ledger(), &["eth0"], how).unwrap();
    nodes
}

#[test]
fn packets_of_devices_on_top_are_labelled_and_have_room() {
    if !kernel_available() {
        return;
    }
    for (hook, name) in [(HookChoice::Tcx, "tcx"), (HookChoice::Xdp, "xdp")] {
        let [a, b] = stacked(hook);
        assert_eq!(b.status().interfaces[0].attached.ingress, name);
        for v6 in BOTH_VERSIONS {
            let what = format!("{name}, v6 {v6}");
            let flow = |port, timeout| {
                let to = SocketAddr::new(address(NET, 2, v6), port);
                Flow { timeout, ..Flow::new(&b.namespace, to, &a.namespace, PATIENCE) }
            };
            let report = flow(READ, PATIENCE).tcp_transfer(5_000_000).expect(&what);
            assert_eq!(report.bytes, 5_000_000);
            let recording = Recording::start(&b, "eth0", (&a.namespace, "eth0"));
            // As long as it gets, and nobody has lowered an MTU by hand.
            let full = MTU - LABEL - if v6 { 48 } else { 28 };
            let outcome = flow(READ, PATIENCE).udp_exchange(full, DontFragment::Do).unwrap();
            assert!(outcome.is_delivered(), "{what}");
            let longer = flow(READ, DENIED_WAIT).udp_exchange(full + 1, DontFragment::Do);
            assert!(longer.is_err() || !longer.unwrap().is_delivered(), "{what}");
            let denied = b.decided("ledger.telnet");
            let outcome = flow(TELNET, DENIED_WAIT).udp_exchange(8, DontFragment::Want).unwrap();
            assert!(!outcome.is_delivered(), "{what}");
            assert!(b.decided("ledger.telnet") > denied, "{what}");
            assert!(recording.replay(GOVC, &[]).len() >= 2, "{what}");
        }
        assert_eq!(b.count("ingress", "label_missing"), 0, "{name}");
        assert_eq!(a.count("egress", "no_room"), 0, "{name}");
    }
}

#[test]
fn tags_in_frames_are_no_way_around() {
    if !kernel_available() {
        return;
    }
    for hook in [HookChoice::Tcx, HookChoice::Xdp] {
        let lab = Lab::bare();
        let how = How { hook, ..How::default() };
        lab.a.apply(&api(), &["eth0"]);
        lab.b.try_apply(&ledger(), &["eth0"], how).unwrap();
        let wire = PacketSocket::open(&lab.router, "to_a").unwrap();
        let out = PacketSocket::open(&lab.router, "to_b").unwrap();
        let to = lab.b.namespace.mac("eth0").unwrap();
        let socket = udp_socket(&lab.a.namespace, address(1, 2, false), 0);
        socket.send_to(b"read", SocketAddr::new(address(2, 2, false), READ)).unwrap();
        let mut sent = None;
        wire.capture(PATIENCE, |frame| {
            let labelled = frame.bytes.get(14) == Some(&0x4d);
            sent = labelled.then(|| frame.bytes.clone());
            labelled
        })
        .unwrap();
        let labelled = sent.unwrap();
        // Labelled, with a tag in the frame: decided like any other.
        let tag = |frame: &[u8]| [&to[..], &frame[6..12], &[0x81, 0, 0, 10], &frame[12..]].concat();
        let before = lab.b.decided("ledger.read");
        out.send(&tag(&labelled)).unwrap();
        assert!(wait_until(|| lab.b.decided("ledger.read") == before + 1));
        // Bare: missing its label.
        let bare = [&labelled[..14], &[0x45], &labelled[15..34], &labelled[66..]].concat();
        let mut bare = bare;
        let len = u16::from_be_bytes([bare[16], bare[17]]) - LABEL as u16;
        bare[16..18].copy_from_slice(&len.to_be_bytes());
        let before = lab.b.count("ingress", "label_missing");
        out.send(&tag(&bare)).unwrap();
        assert!(wait_until(|| lab.b.count("ingress", "label_missing") == before + 1));
    }
}
