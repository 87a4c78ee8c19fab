//! Packets that are too big for a link on their way, or for a label: their senders are told, by
//! routers that know nothing of labels too, and learn what fits with one.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
};

use etherparse::PacketBuilder;
use govc_image::Image;
use govc_loader::attach::HookChoice;
use govc_netlab::{DontFragment, Frame, Namespace, PacketSocket};
use govc_tests::{
    kernel_available,
    lab::{
        BOTH_VERSIONS, CALL_BACK, LABEL, Lab, MTU, READ, RULES, api, delivered, full_payload,
        headers, ledger, nothing_was_denied, transfer,
    },
    node::{How, Node, PATIENCE, address, image, tcp_listener, wait_until, workload},
    replay::Recording,
};
use rustix::net::sockopt::{self, Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// The MTU of a link on the way.
const NARROW: usize = 1400;

/// The lab with a narrow link to B. B itself does not know of it.
fn narrow(hook: HookChoice) -> Lab {
    let lab = Lab::bare();
    let how = How { hook, ..How::default() };
    lab.a.try_apply(&api(), &["eth0"], how).unwrap();
    lab.b.try_apply(&ledger(), &["eth0"], how).unwrap();
    lab.router.set_mtu("to_b", NARROW as u32).unwrap();
    lab
}

/// Largest payload of a datagram that passes the narrow link with a label.
fn narrow_payload(v6: bool) -> usize {
    NARROW - LABEL - headers(v6)
}

/// Sends as much as the sender's own link takes, which becomes less: `mtu`.
fn learns(from: &Namespace, to: SocketAddr, payload: usize, mtu: usize) -> UdpSocket {
    let socket = from.run(|| udp_socket_to(to));
    let _ = socket.send(&vec![7; payload]);
    let known = || path_mtu(&socket, to.is_ipv6());
    wait_until(|| known() < payload + headers(to.is_ipv6()));
    assert_eq!(known(), mtu, "{to}");
    socket
}

/// A datagram of `socket`, as it passes the router.
fn on_the_wire(router: &Namespace, socket: &UdpSocket) -> Vec<u8> {
    let wire = PacketSocket::open_incoming(router, "to_a").unwrap();
    // What it was told before.
    let _ = socket.take_error();
    socket.send(b"quote me").unwrap();
    let is_it = |frame: &Frame| frame.bytes.ends_with(b"quote me");
    wire.capture(PATIENCE, is_it).unwrap().unwrap().bytes
}

/// A connected socket that never fragments.
fn udp_socket_to(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
    socket.connect(to).unwrap();
    if to.is_ipv6() {
        sockopt::set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::DO).unwrap();
    } else {
        sockopt::set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::DO).unwrap();
    }
    socket
}

/// What the kernel knows of the path of a connected socket.
fn path_mtu(socket: &UdpSocket, v6: bool) -> usize {
    let known = if v6 { sockopt::ipv6_mtu(socket) } else { sockopt::ip_mtu(socket) };
    known.unwrap() as usize
}

#[test]
fn senders_learn_what_a_narrow_link_takes() {
    if !kernel_available() {
        return;
    }
    for hook in [HookChoice::Tcx, HookChoice::Xdp] {
        let lab = narrow(hook);
        for v6 in BOTH_VERSIONS {
            let to = SocketAddr::new(address(2, 2, v6), READ);
            learns(&lab.a.namespace, to, full_payload(v6), NARROW - LABEL);
            // That is exactly what passes.
            let full = lab.to_b(v6, READ).udp_exchange(narrow_payload(v6), DontFragment::Do);
            delivered(full.unwrap(), &format!("{hook:?} v6 {v6}"));
        }
        nothing_was_denied(&lab.a);
        nothing_was_denied(&lab.b);
    }
}

#[test]
fn streams_find_their_way_through_in_both_directions() {
    if !kernel_available() {
        return;
    }
    for hook in [HookChoice::Tcx, HookChoice::Xdp] {
        let lab = narrow(hook);
        // The other way, B learns by its replies.
        lab.router.set_mtu("to_a", NARROW as u32).unwrap();
        for v6 in BOTH_VERSIONS {
            transfer(lab.to_b(v6, READ), 3_000_000);
            download(&lab, v6, 3_000_000);
        }
        assert!(lab.a.count("ingress", "reply") > 0);
        nothing_was_denied(&lab.a);
        nothing_was_denied(&lab.b);
    }
}

/// A opens a connection, and B sends.
fn download(lab: &Lab, v6: bool, bytes: usize) {
    let to = SocketAddr::new(address(2, 2, v6), READ);
    let listener = tcp_listener(&lab.b.namespace, to);
    let mut client = lab.a.namespace.run(|| TcpStream::connect(to).unwrap());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    server.set_write_timeout(Some(PATIENCE)).unwrap();
    let sender = std::thread::spawn(move || server.write_all(&vec![5; bytes]));
    let mut received = vec![0; bytes];
    client.read_exact(&mut received).unwrap();
    sender.join().unwrap().unwrap();
    assert!(received.iter().all(|byte| *byte == 5));
}

/// What the router lets pass.
const TRANSIT: &str = "
zone left = interface \"to_a\"
     right = interface \"to_b\"
policy transit {
    on forward
    permit reads { from acme.payments.api  proto tcp port 5432  proto udp port 5432 }
    permit call_backs { from acme.payments.ledger  proto tcp port 6000  proto udp port 6000 }
}
";

#[test]
fn a_governed_router_tells_what_its_links_take() {
    if !kernel_available() {
        return;
    }
    for hook in [HookChoice::Tcx, HookChoice::Xdp] {
        let lab = narrow(hook);
        let router = Node::within(Namespace::clone(&lab.router), &lab.keys);
        let how = How { hook, ..How::default() };
        router.try_apply(&image(&[TRANSIT]), &["to_a", "to_b"], how).unwrap();
        for v6 in BOTH_VERSIONS {
            let to = SocketAddr::new(address(2, 2, v6), READ);
            learns(&lab.a.namespace, to, full_payload(v6), NARROW - LABEL);
            transfer(lab.to_b(v6, READ), 3_000_000);
            transfer(lab.to_a(v6, CALL_BACK), 3_000_000);
        }
        nothing_was_denied(&lab.a);
    }
}

/// A's policy on a node that also passes packets on: its routes do not leave room.
fn passing_on() -> Image {
    image(&[
        &workload("acme.payments.api", "read"),
        RULES,
        "policy transit { on forward  permit all { from acme.** } }",
    ])
}

#[test]
fn a_sender_whose_packets_leave_no_room_is_told() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    lab.a.apply(&passing_on(), &["eth0"]);
    lab.b.apply(&ledger(), &["eth0"]);
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    for v6 in BOTH_VERSIONS {
        let to = SocketAddr::new(address(2, 2, v6), READ);
        let socket = learns(&lab.a.namespace, to, MTU - headers(v6), MTU - LABEL);
        // One answer, and no more: the next that looks like one is not believed.
        let sent = on_the_wire(&lab.router, &socket);
        let mut quoted = sent[14..].to_vec();
        remove_label(&mut quoted, v6);
        let router = PacketSocket::open(&lab.router, "to_a").unwrap();
        let before = lab.a.count("ingress", "label_missing");
        router.send(&too_big(&sent, &quoted, v6)).unwrap();
        assert!(wait_until(|| lab.a.count("ingress", "label_missing") == before + 1));
        assert_eq!(path_mtu(&socket, v6), MTU - LABEL);
        delivered(
            lab.to_b(v6, READ).udp_exchange(full_payload(v6), DontFragment::Do).unwrap(),
            &format!("v6 {v6}"),
        );
        transfer(lab.to_b(v6, READ), 3_000_000);
    }
    assert_eq!(lab.a.count("egress", "no_room"), 2);
    recording.replay(GOVC, &[]);
}

#[test]
fn connections_from_before_a_policy_go_on() {
    if !kernel_available() {
        return;
    }
    // Their segments were agreed on without labels.
    for v6 in BOTH_VERSIONS {
        let lab = Lab::bare();
        let to = SocketAddr::new(address(2, 2, v6), READ);
        let listener = tcp_listener(&lab.b.namespace, to);
        let mut client = lab.a.namespace.run(|| TcpStream::connect(to).unwrap());
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"before").unwrap();
        server.read_exact(&mut [0; 6]).unwrap();
        lab.a.apply(&passing_on(), &["eth0"]);
        lab.b.apply(&ledger(), &["eth0"]);
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let sender =
            std::thread::spawn(move || client.write_all(&vec![5; 300_000]).map(|()| client));
        server.read_exact(&mut vec![0; 300_000]).unwrap();
        sender.join().unwrap().unwrap();
    }
}

#[test]
fn errors_that_prove_nothing_are_not_believed() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let recording = Recording::start(&lab.a, "eth0", (&lab.router, "to_a"));
    for v6 in BOTH_VERSIONS {
        let to = SocketAddr::new(address(2, 2, v6), READ);
        let small = || lab.to_b(v6, READ).udp_exchange(64, DontFragment::Do).unwrap();
        delivered(small(), "before");
        let socket = lab.a.namespace.run(|| udp_socket_to(to));
        let sent = on_the_wire(&lab.router, &socket);
        let error = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut quoted = sent[14..].to_vec();
            change(&mut quoted);
            too_big(&sent, &quoted, v6)
        };
        let router = PacketSocket::open(&lab.router, "to_a").unwrap();
        let before = lab.a.count("ingress", "label_missing");
        let label_at = if v6 { 44 } else { 24 };
        // A bit of each byte of label and MAC, of the addresses, of the ports, and no label at all.
        let (from, ports) = if v6 { (8, 72) } else { (12, 52) };
        let addresses = from..from + if v6 { 32 } else { 8 };
        let mut forged = 0;
        for at in (label_at..label_at + 28).chain(addresses).chain(ports..ports + 4) {
            router.send(&error(&|quoted| quoted[at] ^= 0x10)).unwrap();
            forged += 1;
        }
        router.send(&error(&|quoted| remove_label(quoted, v6))).unwrap();
        forged += 1;
        assert!(
            wait_until(|| lab.a.count("ingress", "label_missing") == before + forged),
            "v6 {v6} {:?}",
            lab.a.reasons("ingress")
        );
        assert_eq!(lab.a.namespace.run(|| path_mtu(&socket, v6)), MTU - LABEL, "v6 {v6}");
        // The control: the same frame as it was is believed.
        router.send(&error(&|_| {})).unwrap();
        let lowered = wait_until(|| path_mtu(&socket, v6) == TOLD - LABEL);
        assert!(lowered, "v6 {v6} {}", path_mtu(&socket, v6));
    }
    recording.replay(GOVC, &[]);
}

/// What the errors in these frames say.
const TOLD: usize = 1350;

/// The error that B would send about a packet, from the frame that A sent.
fn too_big(sent: &[u8], quoted: &[u8], v6: bool) -> Vec<u8> {
    let mac = |at: usize| -> [u8; 6] { sent[at..at + 6].try_into().unwrap() };
    let eth = PacketBuilder::ethernet2(mac(0), mac(6));
    let (IpAddr::V4(to), IpAddr::V4(from)) = (address(1, 2, false), address(2, 2, false)) else {
        unreachable!()
    };
    let (IpAddr::V6(to_v6), IpAddr::V6(from_v6)) = (address(1, 2, true), address(2, 2, true))
    else {
        unreachable!()
    };
    let told = (TOLD as u32).to_be_bytes();
    let mut frame = Vec::new();
    if v6 {
        let ip = eth.ipv6(from_v6.octets(), to_v6.octets(), 64);
        ip.icmpv6_raw(2, 0, told).write(&mut frame, quoted).unwrap();
    } else {
        let ip = eth.ipv4(from.octets(), to.octets(), 64);
        ip.icmpv4_raw(3, 4, told).write(&mut frame, quoted).unwrap();
    }
    frame
}

/// Makes the quoted packet one that never had a label.
fn remove_label(quoted: &mut Vec<u8>, v6: bool) {
    if v6 {
        quoted[6] = quoted[40];
        quoted.drain(40..72);
    } else {
        quoted[0] = 0x45;
        quoted.drain(20..52);
    }
}
