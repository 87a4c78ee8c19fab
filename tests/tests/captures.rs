//! What `explain` says about a capture is what the node that received the packets has decided.

use std::{io::ErrorKind, net::SocketAddr};

use govc_abi::{event::hook, label::Label};
use govc_loader::{attach::HookChoice, events::Events};
use govc_netlab::{DontFragment, Flow, PacketSocket, ping};
use govc_tests::{
    frame::{ETH, Spec, Transport, body_at, fix_checksum, tunnel_body_at},
    kernel_available,
    lab::{BOTH_VERSIONS, CALL_BACK, Lab, READ, RULES, TELNET, UNNAMED, delivered, denied},
    node::{
        DENIED_WAIT, How, PATIENCE, address, image, look, protocol, udp_socket, wait_until,
        workload,
    },
    replay::{self, Capture, Decided, Taken},
};
use rustix::net::sockopt;

const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// Neighbours that do not speak labels, and what they may.
const LEGACY: &str = "
legacy from 10.77.3.0/24, fd77:3::/64 on lan { subject acme.guest  max level public }
policy front {
    on ingress to acme.payments.ledger
    permit browse { from acme.guest  proto udp port 80 }
}
";

/// What B has decided about all that came in.
fn decided(events: &mut Events) -> Vec<Decided> {
    let mut all = Vec::new();
    while let Some(event) = events.next(DENIED_WAIT).unwrap() {
        if event.hook == hook::INGRESS {
            all.push(replay::decided(&event, events));
        }
    }
    all
}

/// What `explain` says about the packets of a capture that B gets.
fn explained(lab: &Lab, taken: &[Taken], carriage: &str) -> Vec<Decided> {
    let workload = workload("acme.payments.ledger", "read");
    let policy =
        format!("package acme.e2e\nuse acme.vocabulary\n{workload}{RULES}{LEGACY}{carriage}");
    let rows = replay::explained(GOVC, (&policy, lab.keys.ring().dir()), taken, &[]);
    rows.into_iter().zip(taken).filter(|(_, one)| one.outgoing).map(|(row, _)| row).collect()
}

/// Flows that rules permit, each way, and those that they do not.
fn flows(lab: &Lab, v6: bool) {
    for flow in [lab.to_b(v6, READ), lab.to_a(v6, CALL_BACK)] {
        delivered(flow.tcp_exchange().unwrap(), "a connection");
        delivered(flow.udp_exchange(64, DontFragment::Want).unwrap(), "a datagram");
    }
    for (from, to) in [(&lab.a, address(2, 2, v6)), (&lab.b, address(1, 2, v6))] {
        delivered(ping(&from.namespace, None, to, 56, PATIENCE).unwrap(), "an echo");
    }
    for port in [TELNET, UNNAMED] {
        let flow = Flow { timeout: DENIED_WAIT, ..lab.to_b(v6, port) };
        denied(flow.tcp_exchange().unwrap());
        denied(flow.udp_exchange(64, DontFragment::Want).unwrap());
    }
}

/// Datagrams of B that come to nothing: A has nobody at the port, and the router tells that the
/// other has gone too far.
fn errors(lab: &Lab, v6: bool) {
    let to = SocketAddr::new(address(1, 2, v6), CALL_BACK);
    for hops in [64, 1] {
        let socket = udp_socket(&lab.b.namespace, address(2, 2, v6), 0);
        if v6 {
            sockopt::set_ipv6_unicast_hops(&socket, Some(hops)).unwrap();
        } else {
            socket.set_ttl(hops.into()).unwrap();
        }
        socket.connect(to).unwrap();
        socket.send(b"anybody there?").unwrap();
        let told = || socket.recv(&mut [0; 9]).is_err_and(|e| e.kind() != ErrorKind::WouldBlock);
        assert!(hops == 1 || wait_until(told), "v6 {v6}");
    }
}

/// A labelled datagram to B, as B gets it.
fn labelled(lab: &Lab, v6: bool) -> Vec<u8> {
    let wire = PacketSocket::open(&lab.router, "to_b").unwrap();
    let socket = udp_socket(&lab.a.namespace, address(1, 2, v6), 0);
    socket.send_to(b"a datagram", (address(2, 2, v6), READ)).unwrap();
    let is_ours = |bytes: &[u8]| look(bytes).is_some_and(|seen| seen.protocol == protocol::UDP);
    wire.capture(PATIENCE, |frame| is_ours(&frame.bytes)).unwrap().unwrap().bytes
}

/// Where the body of a label starts, in either carriage.
fn body_of(frame: &[u8]) -> usize {
    let at = body_at(frame);
    let option = [[0x9e, 30], [0x1e, 28]].iter().any(|option| frame[at - 2..at] == *option);
    if option { at } else { tunnel_body_at(frame) }
}

/// Frames that no node of ours would send: without a label, with a label that is not theirs, and
/// link control that does not come by itself.
fn forged(lab: &Lab, v6: bool) -> Vec<Vec<u8>> {
    let good = labelled(lab, v6);
    let flipped = |at: usize| {
        let mut frame = good.clone();
        frame[at] ^= 1;
        frame
    };
    let body = body_of(&good);
    let bare = |source: SocketAddr, destination, transport| {
        Spec { source, destination, transport, payload: 20 }.frame()
    };
    let at = |net, port| SocketAddr::new(address(net, 2, v6), port);
    let syn = Transport::Tcp { syn: true, ack: false, sequence: 7 };
    let (label, _) = Label::decode(good[body..body + 28].try_into().unwrap());
    let (key, _, slot) = lab.keys.now();
    let signed = |label: Label| {
        let (source, destination) = (at(1, 40_000), at(2, READ));
        Spec { source, destination, transport: syn, payload: 0 }.labelled(&label, key)
    };
    let mut frames = vec![
        good.clone(),
        signed(label),
        signed(label.with_slot((slot - 40) as u16)),
        signed(label.with_slot((slot + 7) as u16)),
        signed(label.with_epoch(label.epoch() ^ 1)),
        signed(label.with_version(2)),
        signed(label.with_domain(8)),
        signed(label.with_constraints(1 << 15)),
        bare(at(3, 40_000), at(2, 80), Transport::Udp),
        bare(at(3, 40_000), at(2, READ), Transport::Udp),
        // The MAC, the label under it, and what says that it is a label.
        flipped(body + 20),
        flipped(body + 5),
        flipped(body - 1),
        bare(at(1, 40_000), at(2, READ), Transport::Udp),
        bare(at(1, 40_000), at(2, READ), syn),
        bare(at(1, 40_000), at(2, TELNET), Transport::Udp),
        bare(at(1, 40_000), at(2, READ), Transport::Icmp(if v6 { 128 } else { 8 }, 0)),
        // An error about nothing that B has sent.
        bare(at(1, 0), at(2, 0), Transport::Icmp(if v6 { 1 } else { 3 }, 0)),
    ];
    let to = |text: &str| text.parse().unwrap();
    if v6 {
        frames.push(bare(to("[fe80::9]:547"), to("[fe80::8]:546"), Transport::Udp));
        frames.push(bare(to("[fd77:2::9]:547"), to("[fe80::8]:546"), Transport::Udp));
        // A report of multicast listeners, behind a router alert; from a hop too far away, too.
        let mut report = bare(to("[fe80::9]:0"), to("[ff02::16]:0"), Transport::Icmp(143, 0));
        report[ETH + 6] = 0;
        report[ETH + 7] = 1;
        report.splice(ETH + 40..ETH + 40, [58, 0, 5, 2, 0, 0, 1, 0]);
        report[ETH + 5] += 8;
        frames.push(report.clone());
        report[ETH + 7] = 64;
        frames.push(report);
    } else {
        frames.push(bare(to("10.77.2.1:67"), to("255.255.255.255:68"), Transport::Udp));
        frames.push(bare(to("10.77.2.1:67"), to("10.77.2.2:68"), Transport::Udp));
        let mut report = bare(to("10.77.2.1:0"), to("224.0.0.22:0"), Transport::Other(2));
        report[ETH + 8] = 1;
        fix_checksum(&mut report);
        frames.push(report.clone());
        report[ETH + 8] = 64;
        fix_checksum(&mut report);
        frames.push(report);
    }
    let mac = lab.b.namespace.mac("eth0").unwrap();
    for frame in &mut frames {
        frame[..6].copy_from_slice(&mac);
    }
    frames
}

#[test]
fn a_capture_is_explained_as_it_was_decided() {
    if !kernel_available() {
        return;
    }
    for hook in [HookChoice::Tcx, HookChoice::Xdp] {
        explained_as_decided(hook, ["", ""], "options");
    }
}

#[test]
fn a_capture_of_tunnels_is_explained_as_it_was_decided() {
    if !kernel_available() {
        return;
    }
    let carriages =
        [2, 1].map(|net| format!("carriage tunnel to 10.77.{net}.0/24, fd77:{net}::/64 on lan\n"));
    explained_as_decided(HookChoice::Tcx, [&carriages[0], &carriages[1]], "malformed");
}

/// How labels ride from A and from B, and what a label in a wrong place is there.
fn explained_as_decided(hook: HookChoice, [from_a, from_b]: [&str; 2], misplaced: &str) {
    let lab = Lab::bare();
    lab.a.apply(&image(&[&workload("acme.payments.api", "read"), RULES, from_a]), &["eth0"]);
    let policy = image(&[&workload("acme.payments.ledger", "read"), RULES, LEGACY, from_b]);
    lab.b.try_apply(&policy, &["eth0"], How { hook, ..How::default() }).unwrap();
    let mut events = lab.b.report_everything();
    let capture = Capture::start(&lab.router, "to_b");
    let wire = PacketSocket::open(&lab.router, "to_b").unwrap();
    for v6 in BOTH_VERSIONS {
        flows(&lab, v6);
        errors(&lab, v6);
        for frame in forged(&lab, v6) {
            wire.send(&frame).unwrap();
        }
    }
    let (taken, _) = capture.finish();
    let mut decided = decided(&mut events);
    let explained = explained(&lab, &taken, from_b);
    // Some of everything that there is to see.
    for wanted in [
        ("permit", "ledger.read"),
        ("permit", "ledger.ping"),
        ("permit", "reply"),
        ("permit", "link_control"),
        ("deny", "ledger.telnet"),
        ("deny", "default"),
        ("deny", "bad_mac"),
        ("deny", misplaced),
        ("permit", "front.browse"),
        ("deny", "slot_expired"),
        ("deny", "slot_future"),
        ("deny", "epoch_mismatch"),
        ("deny", "version"),
        ("deny", "domain_unknown"),
        ("deny", "constraint_unknown"),
    ] {
        for v6 in BOTH_VERSIONS {
            let is_it = |(packet, verdict, by): &Decided| {
                (packet.0.to_ipv4_mapped().is_none(), *verdict, by.as_str())
                    == (v6, wanted.0, wanted.1)
            };
            assert!(decided.iter().any(is_it), "{wanted:?} v6 {v6} in {decided:#?}");
        }
    }
    // Nobody is there; too many hops.
    for (protocol, kind) in [(1, 3), (1, 11), (58, 1), (58, 3)] {
        let is_it = |(packet, verdict, by): &Decided| {
            (packet.2, packet.3.0, *verdict, by.as_str()) == (protocol, kind, "permit", "reply")
        };
        assert!(decided.iter().any(is_it), "{protocol} {kind} in {decided:#?}");
    }
    replay::agree(explained, &mut decided);
    // Before the capture began, neighbours may have looked for each other.
    decided.retain(|(_, _, by)| by != "link_control");
    assert!(decided.is_empty(), "{decided:#?}");
}
