//! Labels in tunnels: over paths that drop the options which labels ride in otherwise.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use etherparse::PacketBuilder;
use govc_abi::{label::Label, reason};
use govc_image::Image;
use govc_loader::{attach::HookChoice, error::LoadError};
use govc_netlab::{DontFragment, Flow, Namespace, Outcome, PacketSocket, ping, udp_send_gso};
use govc_tests::{
    compile,
    frame::{self, ETH, Spec, Transport},
    kernel::{Hook, Kernel},
    kernel_available,
    lab::{
        BOTH_VERSIONS, CALL_BACK, Lab, MTU, READ, RULES, delivered, denied, headers, replayed,
        transfer,
    },
    ledger::{ACK, LEDGER, SYN, api_label, spec},
    node::{DENIED_WAIT, How, Node, PATIENCE, address, image, udp_socket, wait_until, workload},
    policies::VOCABULARY,
    random::Random,
    reference,
    replay::Recording,
    router::{DROPS_OPTIONS, nft_available, passed, set_rules},
};
use rustix::net::sockopt;

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// What sends labels to the other network through tunnels.
fn carriage(net: u8) -> String {
    format!("carriage tunnel to 10.77.{net}.0/24, fd77:{net}::/64 on lan\n")
}

fn api(carriage: &str) -> Image {
    image(&[&workload("acme.payments.api", "read"), carriage, RULES])
}

fn ledger(carriage: &str) -> Image {
    image(&[&workload("acme.payments.ledger", "read"), carriage, RULES])
}

/// The lab, where labels ride in tunnels, with a router that drops options.
fn hostile() -> Lab {
    let lab = Lab::bare();
    set_rules(&lab.router, DROPS_OPTIONS);
    lab.a.apply(&api(&carriage(2)), &["eth0"]);
    lab.b.apply(&ledger(&carriage(1)), &["eth0"]);
    lab
}

fn available() -> bool {
    kernel_available() && nft_available()
}

fn brief(flow: Flow<'_>) -> Flow<'_> {
    Flow { timeout: DENIED_WAIT, ..flow }
}

/// Bytes that a tunnel takes.
fn overhead(v6: bool) -> usize {
    if v6 { 88 } else { 68 }
}

#[test]
fn tunnels_pass_where_options_do_not() {
    if !available() {
        return;
    }
    // The control: options do not get through.
    let lab = Lab::bare();
    set_rules(&lab.router, DROPS_OPTIONS);
    lab.a.apply(&api(""), &["eth0"]);
    lab.b.apply(&ledger(""), &["eth0"]);
    for flow in lab.permitted() {
        denied(brief(flow).udp_exchange(64, DontFragment::Want).unwrap());
    }
    assert_eq!(passed(&lab.router), (0, 0));
    // With nothing but a line of policy at either end they do.
    lab.a.apply(&api(&carriage(2)), &[]);
    lab.b.apply(&ledger(&carriage(1)), &[]);
    for flow in lab.permitted() {
        delivered(flow.udp_exchange(64, DontFragment::Want).unwrap(), "a small datagram");
        let full = MTU - overhead(flow.bind.is_ipv6()) - headers(flow.bind.is_ipv6());
        delivered(flow.udp_exchange(full, DontFragment::Do).unwrap(), "a full datagram");
        let outcome = flow.udp_exchange(full + 1, DontFragment::Do).unwrap();
        assert_eq!(outcome, Outcome::TooBig, "{flow}");
    }
    for v6 in BOTH_VERSIONS {
        transfer(lab.to_b(v6, READ), 100_000_000);
        transfer(lab.to_a(v6, CALL_BACK), 20_000_000);
        let (a, b) = (&lab.a.namespace, address(2, 2, v6));
        assert!(ping(a, None, b, 56, PATIENCE).unwrap().is_delivered(), "v6 {v6}");
    }
    // With somebody looking, who has it explained.
    let recordings = lab.record();
    for flow in lab.permitted() {
        delivered(flow.udp_exchange(64, DontFragment::Want).unwrap(), "a small datagram");
        transfer(flow, 500_000);
    }
    replayed(recordings, GOVC);
    let (tunnels, others) = passed(&lab.router);
    assert!(tunnels > 1_000 && others == 0, "{tunnels} in tunnels, {others} others");
    for node in [&lab.a, &lab.b] {
        for (reason, count) in node.reasons("ingress") {
            assert!(count == 0 || ["rule", "reply", "link_control"].contains(&reason), "{reason}");
        }
    }
}

#[test]
fn segmented_datagrams_come_out_one_by_one() {
    if !available() {
        return;
    }
    let lab = hostile();
    let recordings = lab.record();
    for v6 in BOTH_VERSIONS {
        let full = MTU - overhead(v6) - headers(v6);
        for (len, count) in [(full, 40), (1000, 60), (1, 3), (full, 1)] {
            let to = SocketAddr::new(address(2, 2, v6), READ);
            let server = udp_socket(&lab.b.namespace, to.ip(), to.port());
            let from = SocketAddr::new(address(1, 2, v6), 0);
            udp_send_gso(&lab.a.namespace, from, to, len as u16, count as u16).unwrap();
            let received = govc_tests::node::receive(&server, count);
            assert_eq!(received.len(), count, "v6 {v6}: {count} times {len} bytes");
            assert!(received.iter().all(|datagram| datagram.len() == len));
        }
    }
    replayed(recordings, GOVC);
}

#[test]
fn bare_packets_are_not_accepted_instead() {
    if !available() {
        return;
    }
    let lab = hostile();
    lab.a.detach(&[]);
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    for v6 in BOTH_VERSIONS {
        denied(brief(lab.to_b(v6, READ)).udp_exchange(64, DontFragment::Want).unwrap());
        // Nor what looks like another tunnel.
        let socket = udp_socket(&lab.a.namespace, address(1, 2, v6), 0);
        socket.send_to(&[0; 64], (address(2, 2, v6), 6081)).unwrap();
    }
    assert!(wait_until(|| lab.b.count("ingress", "label_missing") == 4));
    recording.replay(GOVC, &[]);
}

#[test]
fn labels_in_options_stay_good() {
    if !available() {
        return;
    }
    // A sender that has not got the new line of policy yet: its packets and the answers ride
    // differently.
    let lab = hostile();
    set_rules(&lab.router, "");
    lab.a.apply(&api("carriage tunnel to 192.0.2.0/24 on lan"), &[]);
    for v6 in BOTH_VERSIONS {
        delivered(lab.to_b(v6, READ).udp_exchange(64, DontFragment::Want).unwrap(), "an option");
    }
}

/// The policy of one node, with a tunnel.
fn kernel() -> (govc_tests::Compiled, Kernel) {
    let text = format!("{LEDGER}carriage tunnel to 10.1.0.0/24, 2001:db8::/64 on lan\n");
    let compiled = compile(&[("ledger.gov", &text), ("vocabulary.gov", VOCABULARY)]);
    let kernel = Kernel::new(&compiled.image);
    (compiled, kernel)
}

#[test]
fn a_verified_packet_is_what_it_was_before() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = kernel();
    for v6 in BOTH_VERSIONS {
        for transport in [SYN, ACK, Transport::Udp] {
            let verifier = kernel.verifier(7);
            let spec = spec(v6, transport);
            let frame = spec.tunnelled(&api_label(&compiled, &verifier, 2), verifier.key);
            let answer = kernel.ask(Hook::Ingress, &frame);
            assert!(answer.permit, "{spec:?}: {answer:?}");
            assert_eq!(answer.frame, spec.frame(), "{spec:?}");
        }
    }
}

#[test]
fn every_single_bit_of_a_label_in_a_tunnel_counts() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = kernel();
    for v6 in BOTH_VERSIONS {
        let verifier = kernel.verifier(7);
        let spec = spec(v6, Transport::Udp);
        let good = spec.tunnelled(&api_label(&compiled, &verifier, 4), verifier.key);
        let body = frame::tunnel_body_at(&good);
        // Geneve header, option and label.
        for bit in (body - 12) * 8..(body + 28) * 8 {
            let mut frame = good.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            let answer = kernel.ask(Hook::Ingress, &frame);
            assert!(!answer.permit, "v6 {v6} bit {bit}: {answer:?}");
        }
        assert!(kernel.ask(Hook::Ingress, &good).permit, "positive control");
    }
}

#[test]
fn no_mutation_of_a_tunnel_gets_through_that_the_reference_would_not_let_through() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = kernel();
    let mut permitted = 0;
    for seed in 0..2_500 {
        let random = &mut Random::new(seed);
        let verifier = kernel.verifier(7);
        let transport = *random.pick(&[SYN, ACK, Transport::Udp, Transport::Other(47)]);
        let label = api_label(&compiled, &verifier, 2);
        let mut frame = spec(random.one_in(2), transport).tunnelled(&label, verifier.key);
        for _ in 0..random.below(4) {
            let at = random.below(frame.len().min(170));
            frame[at] ^= 1 << random.below(8);
        }
        match random.below(4) {
            // The kernel runs no shorter ones than Ethernet and IP headers.
            0 => frame.truncate(54.max(random.below(frame.len()))),
            1 => frame.extend(std::iter::repeat_n(0xee, random.below(1400))),
            _ => {}
        }
        let answer = kernel.ask(Hook::Ingress, &frame);
        let link_control = answer.event.is_some_and(|e| e.reason == reason::LINK_CONTROL);
        let wanted = reference::decide_ingress(&compiled.policy, &frame, &verifier);
        let allowed = wanted.is_some_and(|decision| decision.permit);
        assert!(
            !answer.permit || allowed || link_control,
            "seed {seed}: permitted {frame:02x?}\n{answer:?}"
        );
        permitted += u32::from(answer.permit);
    }
    // The test is worth something only when some get through.
    assert!(permitted > 200, "{permitted}");
}

#[test]
fn a_tunnel_between_other_addresses_is_none() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = kernel();
    for v6 in BOTH_VERSIONS {
        let verifier = kernel.verifier(7);
        let spec = spec(v6, Transport::Udp);
        let good = spec.tunnelled(&api_label(&compiled, &verifier, 4), verifier.key);
        let addresses = if v6 { 8..40 } else { 12..20 };
        for at in addresses {
            let mut frame = good.clone();
            frame[ETH + at] ^= 1;
            frame::fix_if_v4(&mut frame);
            let answer = kernel.ask(Hook::Ingress, &frame);
            assert!(!answer.permit, "v6 {v6} byte {at}");
            assert_eq!(answer.event.unwrap().reason, reason::TUNNEL_ENDS);
        }
    }
}

#[test]
fn what_a_tunnel_must_not_hold() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = kernel();
    let verifier = kernel.verifier(7);
    let label = api_label(&compiled, &verifier, 4);
    for v6 in BOTH_VERSIONS {
        let spec = spec(v6, Transport::Udp);
        let mac = frame::label_of(&spec.labelled(&label, verifier.key)).1;
        let reason_of = |kernel: &mut Kernel, frame: &[u8]| {
            let answer = kernel.ask(Hook::Ingress, frame);
            assert!(!answer.permit);
            answer.event.unwrap().reason
        };
        // A packet that has a label already.
        let twice = frame::wrap(&spec.labelled(&label, verifier.key), &label, mac);
        assert_eq!(reason_of(&mut kernel, &twice), reason::MALFORMED, "v6 {v6}");
        // Bytes behind the packet.
        let mut longer = spec.tunnelled(&label, verifier.key);
        let inner = frame::tunnel_body_at(&longer) + 28;
        let length = if v6 { inner + 5 } else { inner + 3 };
        longer[length] -= 1;
        assert_eq!(reason_of(&mut kernel, &longer), reason::MALFORMED, "v6 {v6}");
        // What has met congestion, of a sender that is not told about it.
        let mut marked = spec.tunnelled(&label, verifier.key);
        marked[ETH + 1] |= if v6 { 0x30 } else { 3 };
        frame::fix_if_v4(&mut marked);
        assert_eq!(reason_of(&mut kernel, &marked), reason::MALFORMED, "v6 {v6}");
    }
}

#[test]
fn hops_and_congestion_on_the_way_happen_to_the_packet() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = kernel();
    let verifier = kernel.verifier(7);
    let label = api_label(&compiled, &verifier, 4);
    for v6 in BOTH_VERSIONS {
        let spec = spec(v6, ACK);
        let capable = |frame: &mut Vec<u8>, bits: u8| {
            frame[ETH + 1] |= if v6 { bits << 4 } else { bits };
            frame::fix_if_v4(frame);
        };
        let mut plain = spec.frame();
        capable(&mut plain, 2);
        let mac = frame::label_of(&spec.labelled(&label, verifier.key)).1;
        let mut frame = frame::wrap(&plain, &label, mac);
        capable(&mut frame, 3);
        let hops = if v6 { ETH + 7 } else { ETH + 8 };
        frame[hops] = 60;
        frame::fix_if_v4(&mut frame);
        let answer = kernel.ask(Hook::Ingress, &frame);
        assert!(answer.permit, "v6 {v6}: {answer:?}");
        let mut wanted = plain.clone();
        capable(&mut wanted, 3);
        wanted[hops] = 60;
        frame::fix_if_v4(&mut wanted);
        assert_eq!(answer.frame, wanted, "v6 {v6}");
    }
}

/// The MTU of a link on the way.
const NARROW: usize = 1400;

fn udp_socket_to(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind(if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" }).unwrap();
    socket.connect(to).unwrap();
    if to.is_ipv6() {
        sockopt::set_ipv6_mtu_discover(&socket, sockopt::Ipv6PathMtuDiscovery::DO).unwrap();
    } else {
        sockopt::set_ip_mtu_discover(&socket, sockopt::Ipv4PathMtuDiscovery::DO).unwrap();
    }
    socket
}

fn path_mtu(socket: &UdpSocket, v6: bool) -> usize {
    let known = if v6 { sockopt::ipv6_mtu(socket) } else { sockopt::ip_mtu(socket) };
    known.unwrap() as usize
}

#[test]
fn senders_in_tunnels_learn_what_a_narrow_link_takes() {
    if !available() {
        return;
    }
    let lab = hostile();
    lab.router.set_mtu("to_b", NARROW as u32).unwrap();
    for v6 in BOTH_VERSIONS {
        let to = SocketAddr::new(address(2, 2, v6), READ);
        let socket = lab.a.namespace.run(|| udp_socket_to(to));
        let _ = socket.send(&vec![7; MTU - overhead(v6) - headers(v6)]);
        // For IPv6 never below what every path takes.
        let room = (NARROW - overhead(v6)).max(if v6 { 1280 } else { 0 });
        assert!(wait_until(|| path_mtu(&socket, v6) == room), "{}", path_mtu(&socket, v6));
        let fits = room - headers(v6);
        let outcome = lab.to_b(v6, READ).udp_exchange(fits, DontFragment::Do).unwrap();
        delivered(outcome, &format!("v6 {v6}"));
    }
    lab.router.set_mtu("to_a", NARROW as u32).unwrap();
    for v6 in BOTH_VERSIONS {
        transfer(lab.to_b(v6, READ), 3_000_000);
        transfer(lab.to_a(v6, CALL_BACK), 3_000_000);
    }
    assert!(lab.a.count("ingress", "reply") > 0);
    assert_eq!(lab.a.count("ingress", "label_missing"), 0);
}

#[test]
fn errors_about_tunnels_prove_themselves() {
    if !available() {
        return;
    }
    let lab = hostile();
    for v6 in BOTH_VERSIONS {
        let to = SocketAddr::new(address(2, 2, v6), READ);
        delivered(lab.to_b(v6, READ).udp_exchange(64, DontFragment::Do).unwrap(), "before");
        let socket = lab.a.namespace.run(|| udp_socket_to(to));
        let wire = PacketSocket::open_incoming(&lab.router, "to_a").unwrap();
        socket.send(b"quote me").unwrap();
        let sent = wire.capture(PATIENCE, |frame| frame.bytes.ends_with(b"quote me"));
        let sent = sent.unwrap().unwrap().bytes;
        let router = PacketSocket::open(&lab.router, "to_a").unwrap();
        let before = lab.a.count("ingress", "label_missing");
        let body = frame::tunnel_body_at(&sent) - ETH;
        let mut forged = 0;
        for at in body..body + 28 {
            let mut quoted = sent[ETH..].to_vec();
            quoted[at] ^= 0x10;
            router.send(&too_big(&sent, &quoted, v6)).unwrap();
            forged += 1;
        }
        // Not enough of it: what some routers quote over IPv4.
        router.send(&too_big(&sent, &sent[ETH..ETH + 48], v6)).unwrap();
        forged += 1;
        let counted = || lab.a.count("ingress", "label_missing") == before + forged;
        assert!(wait_until(counted), "v6 {v6} {:?}", lab.a.reasons("ingress"));
        assert_eq!(path_mtu(&socket, v6), MTU - overhead(v6), "v6 {v6}");
        router.send(&too_big(&sent, &sent[ETH..], v6)).unwrap();
        let told = TOLD - overhead(v6);
        assert!(wait_until(|| path_mtu(&socket, v6) == told), "{}", path_mtu(&socket, v6));
    }
}

/// What the errors in these frames say.
const TOLD: usize = 1390;

/// The error that B would send about a packet, from the frame that A sent.
fn too_big(sent: &[u8], quoted: &[u8], v6: bool) -> Vec<u8> {
    let mac = |at: usize| -> [u8; 6] { sent[at..at + 6].try_into().unwrap() };
    let eth = PacketBuilder::ethernet2(mac(0), mac(6));
    let told = (TOLD as u32).to_be_bytes();
    let mut frame = Vec::new();
    match (address(2, 2, v6), address(1, 2, v6)) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = eth.ipv6(from.octets(), to.octets(), 64);
            ip.icmpv6_raw(2, 0, told).write(&mut frame, quoted).unwrap();
        }
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ip = eth.ipv4(from.octets(), to.octets(), 64);
            ip.icmpv4_raw(3, 4, told).write(&mut frame, quoted).unwrap();
        }
        _ => unreachable!(),
    }
    frame
}

#[test]
fn fragments_of_tunnels_are_denied() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = kernel();
    let verifier = kernel.verifier(7);
    let spec = spec(false, Transport::Udp);
    let mut frame = spec.tunnelled(&api_label(&compiled, &verifier, 2), verifier.key);
    frame[ETH + 6] = 0x20;
    frame::fix_checksum(&mut frame);
    let answer = kernel.ask(Hook::Ingress, &frame);
    assert!(!answer.permit);
    assert_eq!(answer.event.unwrap().reason, reason::FRAGMENT);
}

#[test]
fn tunnels_pass_a_router_that_decides() {
    if !available() {
        return;
    }
    let transit = "
        zone left = interface \"to_a\"
             right = interface \"to_b\"
        carriage tunnel to 10.77.2.0/24, fd77:2::/64 on right
        policy transit {
            on forward
            permit reads { from acme.payments.api  where egress zone is right  proto tcp port 5432  proto udp port 5432 }
        }";
    let lab = hostile();
    let router = Node::within(Namespace::clone(&lab.router), &lab.keys);
    router.apply(&image(&[transit]), &["to_a", "to_b"]);
    for v6 in BOTH_VERSIONS {
        delivered(lab.to_b(v6, READ).udp_exchange(64, DontFragment::Want).unwrap(), "a read");
        transfer(lab.to_b(v6, READ), 3_000_000);
        denied(brief(lab.to_a(v6, CALL_BACK)).udp_exchange(64, DontFragment::Want).unwrap());
    }
    assert!(router.decided("transit.reads") > 4);
    assert!(router.count("forward", "reply") > 4);
    assert_eq!(router.count("forward", "no_rule"), 2);
}

#[test]
fn who_is_rejected_in_a_tunnel_is_told_in_a_tunnel() {
    if !available() {
        return;
    }
    let lab = hostile();
    let rejecting = RULES.replace("proto udp port 23 }", "proto udp port 23  reject }");
    assert_ne!(rejecting, RULES);
    let parts = [workload("acme.payments.ledger", "read"), carriage(1), rejecting];
    lab.b.apply(&image(&[&parts[0], &parts[1], &parts[2]]), &[]);
    let (key, epoch, slot) = lab.keys.now();
    let label = Label::default()
        .with_version(1)
        .with_domain(7)
        .with_life(4)
        .with_epoch(epoch)
        .with_slot(slot as u16);
    // As from a wire: what comes from this machine itself keeps a mark, and is not answered.
    let wire = PacketSocket::open_incoming(&lab.router, "to_b").unwrap();
    for v6 in BOTH_VERSIONS {
        let spec = Spec {
            source: SocketAddr::new(address(1, 2, v6), 4000),
            destination: SocketAddr::new(address(2, 2, v6), 23),
            transport: SYN,
            payload: 20,
        };
        let mut frame = spec.tunnelled(&label, key);
        frame[..6].copy_from_slice(&lab.b.namespace.mac("eth0").unwrap());
        frame[6..12].copy_from_slice(&lab.router.mac("to_b").unwrap());
        wire.send(&frame).unwrap();
        let is_reset = |bytes: &[u8]| {
            let read = reference::parse_through(bytes);
            read.is_some_and(|read| {
                let rst = bytes[frame::tunnel_body_at(bytes) + 28 + if v6 { 40 } else { 20 } + 13];
                read.label.is_some() && read.ports == (23, 4000) && rst & 4 != 0
            })
        };
        let told = wire.capture(PATIENCE, |frame| is_reset(&frame.bytes)).unwrap();
        assert!(told.is_some(), "v6 {v6} {:?}", lab.b.reasons("egress"));
    }
}

#[test]
fn what_is_rejected_becomes_its_answer_in_place() {
    if !kernel_available() {
        return;
    }
    let text = format!(
        "{}carriage tunnel to 10.1.0.0/24, 2001:db8::/64 on lan\n",
        LEDGER.replace("permit read {", "deny read { reject ")
    );
    let compiled = compile(&[("ledger.gov", &text), ("vocabulary.gov", VOCABULARY)]);
    let mut kernel = Kernel::new(&compiled.image);
    for v6 in BOTH_VERSIONS {
        let verifier = kernel.verifier(7);
        let spec = Spec { payload: 20, ..spec(v6, SYN) };
        let label = api_label(&compiled, &verifier, 2);
        let answers = [spec.labelled(&label, verifier.key), spec.tunnelled(&label, verifier.key)]
            .map(|frame| kernel.ask(Hook::Ingress, &frame).frame);
        let ip_len = if v6 { 40 } else { 20 };
        assert_eq!(answers[0].len(), ETH + ip_len + 20, "v6 {v6}: {answers:02x?}");
        assert_eq!(answers[0], answers[1], "v6 {v6}");
    }
}

#[test]
fn a_workload_cannot_build_its_own_tunnel() {
    if !available() {
        return;
    }
    let lab = hostile();
    let (key, epoch, slot) = lab.keys.now();
    let label = Label::default()
        .with_version(1)
        .with_domain(7)
        .with_life(2)
        .with_epoch(epoch)
        .with_slot(slot as u16);
    for v6 in BOTH_VERSIONS {
        let spec = Spec {
            source: SocketAddr::new(address(1, 2, v6), 4000),
            destination: SocketAddr::new(address(2, 2, v6), READ),
            transport: Transport::Udp,
            payload: 10,
        };
        let frame = spec.tunnelled(&label, key);
        let udp = frame::tunnel_body_at(&frame) - 12;
        let socket = udp_socket(&lab.a.namespace, address(1, 2, v6), 0);
        // What the hook has dropped is no mistake of the call's, or is one.
        let _ = socket.send_to(&frame[udp..], (address(2, 2, v6), 6081));
    }
    // A checksum is wrong in a tunnel, and without one it is what it looks like.
    let count = |reason| lab.a.count("egress", reason);
    assert!(wait_until(|| count("label_forged") + count("malformed") == 2));
}

#[test]
fn tunnels_want_the_tcx_hook() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let how = How { hook: HookChoice::Xdp, ..How::default() };
    let error = lab.a.try_apply(&api(&carriage(2)), &["eth0"], how).unwrap_err();
    assert!(matches!(error, LoadError::TunnelsOnXdp { .. }), "{error}");
    assert!(!lab.a.place.exists());
}
