//! The whole of it on real links: what workloads notice, what is on the wire, what is let through.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use aya::programs::links::PinnedLink;
use govc_abi::{
    event::{Event, flag, hook, verdict},
    label::Label,
    node::LEAF_NONE,
    reason,
};
use govc_image::Image;
use govc_loader::{
    attach::HookChoice, error::LoadError, events::Events, keyring::KeyRing, publish,
};
use govc_netlab::{
    DontFragment, Flow, Namespace, Offloads, Outcome, PacketSocket, ping, udp_send_gso,
};
use govc_tests::{
    frame::{Spec, Transport, label_of},
    kernel_available,
    node::{
        DENIED_WAIT, How, Keys, Node, PATIENCE, Seen, Tap, Watch, address, connect, drain, image,
        look, prefix, protocol, receive, receive_within, set_gateway, set_own_options, udp_socket,
        wait_until, workload,
    },
};

const MTU: usize = 1500;
const LABEL: usize = 32;
/// Port that B serves and A may use.
const READ: u16 = 5432;
/// Port that A serves and B may use.
const CALL_BACK: u16 = 6000;
/// Port that no rule names.
const UNNAMED: u16 = 5433;
/// Port that a rule denies.
const TELNET: u16 = 23;
const BOTH_VERSIONS: [bool; 2] = [false, true];

const RULES: &str = "
policy ledger {
    on ingress to acme.payments.ledger
    permit read {
        from acme.payments.api
        operation ledger.read
        proto tcp port 5432
        proto udp port 5432
    }
    permit ping { from acme.payments.api  proto icmp type 8  proto icmpv6 type 128 }
    deny telnet { proto tcp port 23  proto udp port 23 }
}
policy api {
    on ingress to acme.payments.api
    permit call_back {
        from acme.payments.ledger
        proto tcp port 6000
        proto udp port 6000
    }
    permit ping { from acme.payments.ledger  proto icmp type 8  proto icmpv6 type 128 }
}
";

/// Workload A (network 1) and workload B (network 2) with a router between them that knows
/// nothing of labels.
struct Lab {
    a: Node,
    b: Node,
    router: Namespace,
    keys: Arc<Keys>,
}

/// The policy of the node where the API lives: A.
fn api() -> Image {
    image(&[&workload("acme.payments.api", "read"), RULES])
}

/// The policy of the node where the ledger lives: B.
fn ledger() -> Image {
    image(&[&workload("acme.payments.ledger", "read"), RULES])
}

impl Lab {
    /// The links, without any policy.
    fn bare() -> Self {
        let keys = Keys::new();
        let (a, b) = (Node::new("a", &keys), Node::new("b", &keys));
        let router = Namespace::create("router").unwrap();
        router.enable_forwarding().unwrap();
        for (net, device, node) in [(1, "to_a", &a), (2, "to_b", &b)] {
            connect(net, [(&router, device), (&node.namespace, "eth0")]);
            set_gateway(&node.namespace, "eth0", net);
        }
        Self { a, b, router, keys }
    }

    /// The links with A's and B's policies in force.
    fn governed() -> Self {
        let lab = Self::bare();
        lab.a.apply(&api(), &["eth0"]);
        lab.b.apply(&ledger(), &["eth0"]);
        lab
    }

    fn to_b(&self, v6: bool, port: u16) -> Flow<'_> {
        let to = SocketAddr::new(address(2, 2, v6), port);
        Flow::new(&self.b.namespace, to, &self.a.namespace, PATIENCE)
    }

    fn to_a(&self, v6: bool, port: u16) -> Flow<'_> {
        let to = SocketAddr::new(address(1, 2, v6), port);
        Flow::new(&self.a.namespace, to, &self.b.namespace, PATIENCE)
    }

    /// The four flows that rules permit: each way over each IP version.
    fn permitted(&self) -> [Flow<'_>; 4] {
        [
            self.to_b(false, READ),
            self.to_b(true, READ),
            self.to_a(false, CALL_BACK),
            self.to_a(true, CALL_BACK),
        ]
    }

    fn watch(&self) -> [Watch; 2] {
        ["to_a", "to_b"].map(|device| Watch::start(&self.router, device))
    }

    fn set_offloads(&self, change: impl Fn(Offloads) -> Offloads) {
        let ends = [
            (&self.a.namespace, "eth0"),
            (&self.b.namespace, "eth0"),
            (&self.router, "to_a"),
            (&self.router, "to_b"),
        ];
        for (namespace, device) in ends {
            let wanted = change(namespace.offloads(device).unwrap());
            namespace.set_offloads(device, wanted).unwrap();
            assert_eq!(namespace.offloads(device).unwrap(), wanted);
        }
    }
}

/// Headers of a UDP datagram.
fn headers(v6: bool) -> usize {
    if v6 { 48 } else { 28 }
}

/// Largest payload of a datagram that leaves room for a label.
fn full_payload(v6: bool) -> usize {
    MTU - LABEL - headers(v6)
}

/// Waits until unlabelled traffic gets through after a detach.
fn flows_again(flow: Flow<'_>) {
    let flow = Flow { timeout: DENIED_WAIT, ..flow };
    let small = || flow.udp_exchange(0, DontFragment::Want).unwrap();
    assert!(wait_until(|| small().is_delivered()), "{flow}");
}

fn denied(outcome: Outcome) {
    assert_eq!(outcome, Outcome::TimedOut);
}

fn delivered(outcome: Outcome, what: &str) {
    assert!(outcome.is_delivered(), "{what}: {outcome}");
}

/// No packet was denied on the way in or out, for whatever reason: none arrived bare either.
fn nothing_was_denied(node: &Node) {
    let status = node.status();
    let unwanted: Vec<_> =
        status.reasons.iter().filter(|count| count.permitted == Some(false)).collect();
    assert!(unwanted.is_empty(), "{unwanted:?}");
    let unwanted: Vec<_> =
        status.rules.iter().filter(|count| count.action == "deny" && count.packets != 0).collect();
    assert!(unwanted.is_empty(), "{unwanted:?}");
}

/// Everything on these wires was labelled.
fn all_labelled(watches: [Watch; 2]) -> [Seen; 2] {
    watches.map(|watch| {
        let seen = watch.finish();
        assert!(seen.labelled > 0 && seen.bare == 0, "{seen:?}");
        seen
    })
}

fn transfer(flow: Flow<'_>, bytes: u64) {
    // The rules of patience are for packets; this many take a while on a busy machine.
    let flow = Flow { timeout: PATIENCE * 4, ..flow };
    let report = flow.tcp_transfer(bytes).unwrap_or_else(|error| panic!("{flow}: {error}"));
    assert_eq!(report.bytes, bytes);
}

/// 100 MB each way; every packet on the wires is labelled and none is dropped.
fn large_transfers(v6: bool) {
    let lab = Lab::governed();
    let watches = lab.watch();
    transfer(lab.to_b(v6, READ), 100_000_000);
    transfer(lab.to_a(v6, CALL_BACK), 100_000_000);
    for seen in all_labelled(watches) {
        assert!(seen.longest > MTU, "no super-packet was seen: {seen:?}");
    }
    nothing_was_denied(&lab.a);
    nothing_was_denied(&lab.b);
}

#[test]
fn tcp_over_ipv4_carries_100_megabytes_each_way_under_labels() {
    if kernel_available() {
        large_transfers(false);
    }
}

#[test]
fn tcp_over_ipv6_carries_100_megabytes_each_way_under_labels() {
    if kernel_available() {
        large_transfers(true);
    }
}

/// 20 MB each way over both versions with some offloads off; no packet exceeds the MTU.
fn segments_fit(change: impl Fn(Offloads) -> Offloads) {
    let lab = Lab::governed();
    lab.set_offloads(change);
    let watches = lab.watch();
    for flow in lab.permitted() {
        transfer(flow, if flow.bind.port() == READ { 20_000_000 } else { 5_000_000 });
    }
    for seen in all_labelled(watches) {
        assert_eq!(seen.longest, MTU, "full segments fill the MTU and no more: {seen:?}");
    }
    nothing_was_denied(&lab.a);
    nothing_was_denied(&lab.b);
}

#[test]
fn without_offloads_each_segment_is_labelled_within_the_mtu() {
    if kernel_available() {
        segments_fit(|offloads| Offloads { tso: false, gso: false, gro: false, ..offloads });
    }
}

#[test]
fn super_packets_that_are_cut_after_stamping_give_labelled_segments_within_the_mtu() {
    if kernel_available() {
        segments_fit(|offloads| Offloads { tso: false, gso: true, ..offloads });
    }
}

#[test]
fn no_label_reaches_the_receivers_stack() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    for v6 in BOTH_VERSIONS {
        let tcp = Tap::open(&lab.b.namespace, v6, protocol::TCP);
        let udp = Tap::open(&lab.b.namespace, v6, protocol::UDP);
        let options = Tap::open(&lab.b.namespace, v6, protocol::DESTINATION_OPTIONS);
        delivered(lab.to_b(v6, READ).tcp_exchange().unwrap(), "TCP");
        let outcome = lab.to_b(v6, READ).udp_exchange(full_payload(v6), DontFragment::Do).unwrap();
        delivered(outcome, "UDP");
        for packets in [tcp.packets(), udp.packets()] {
            assert!(!packets.is_empty());
            // Over IPv4 the header comes along: five words, no option.
            assert!(v6 || packets.iter().all(|packet| packet[0] == 0x45), "{packets:02x?}");
        }
        assert_eq!(options.packets(), Vec::<Vec<u8>>::new());
    }
}

#[test]
fn a_tap_sees_labels_where_nothing_strips_them() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    lab.a.apply(&api(), &["eth0"]);
    for (v6, seen_by) in [(false, protocol::UDP), (true, protocol::DESTINATION_OPTIONS)] {
        let tap = Tap::open(&lab.b.namespace, v6, seen_by);
        let socket = udp_socket(&lab.a.namespace, address(1, 2, v6), 0);
        socket.send_to(b"labelled", (address(2, 2, v6), READ)).unwrap();
        let mut packets = Vec::new();
        assert!(wait_until(|| {
            packets.extend(tap.packets());
            !packets.is_empty()
        }));
        assert!(v6 || packets[0][0] == 0x4d, "{packets:02x?}");
    }
}

#[test]
fn datagrams_fill_the_mtu_that_routes_leave() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let watches = lab.watch();
    for flow in lab.permitted() {
        let full = full_payload(flow.bind.is_ipv6());
        for fragment in [DontFragment::Do, DontFragment::Want, DontFragment::Dont] {
            for payload in [0, 1, full - 1, full] {
                let outcome = flow.udp_exchange(payload, fragment).unwrap();
                delivered(outcome, &format!("{flow}: {payload} bytes, {fragment:?}"));
            }
        }
        let outcome = flow.udp_exchange(full + 1, DontFragment::Do).unwrap();
        assert_eq!(outcome, Outcome::TooBig, "{flow}");
    }
    for seen in all_labelled(watches) {
        assert_eq!(seen.longest, MTU);
    }
    nothing_was_denied(&lab.a);
    nothing_was_denied(&lab.b);
}

/// Sends segments from A to B in one call, and gives the datagrams that arrive.
fn segments(lab: &Lab, v6: bool, len: usize, count: usize) -> Vec<Vec<u8>> {
    let to = SocketAddr::new(address(2, 2, v6), READ);
    let server = udp_socket(&lab.b.namespace, to.ip(), to.port());
    let from = SocketAddr::new(address(1, 2, v6), 0);
    let sent = udp_send_gso(&lab.a.namespace, from, to, len as u16, count as u16).unwrap();
    assert_eq!(sent, len * count);
    receive(&server, count)
}

#[test]
fn segmented_datagrams_arrive_one_by_one() {
    if !kernel_available() {
        return;
    }
    let (without, with) = (Lab::bare(), Lab::governed());
    for cut_on_the_way in [false, true] {
        if cut_on_the_way {
            // A device without checksums does not cut datagrams either: the kernel does, in
            // front of it.
            let offloads = with.router.offloads("to_b").unwrap();
            let offloads = Offloads { tx_checksum: false, tso: false, ..offloads };
            with.router.set_offloads("to_b", offloads).unwrap();
        }
        let watches = with.watch();
        for v6 in BOTH_VERSIONS {
            for (len, count) in [(full_payload(v6), 40), (1000, 60), (1, 3), (full_payload(v6), 1)]
            {
                let plain = segments(&without, v6, len, count);
                assert_eq!(plain.len(), count);
                assert!(plain.iter().all(|datagram| datagram.len() == len));
                assert!(segments(&with, v6, len, count) == plain, "{count} times {len} bytes");
            }
        }
        let [before, behind] = all_labelled(watches);
        assert!(before.longest > MTU, "no super-packet was seen: {before:?}");
        assert_eq!(behind.longest, if cut_on_the_way { MTU } else { before.longest });
    }
    nothing_was_denied(&with.a);
    nothing_was_denied(&with.b);
}

#[test]
fn segmented_datagrams_without_room_for_a_label_do_not_leave() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    lab.b.apply(&ledger(), &["eth0"]);
    lab.a.try_apply(&api(), &["eth0"], How { set_mtu: false, ..How::default() }).unwrap();
    for v6 in BOTH_VERSIONS {
        let full = full_payload(v6);
        assert_eq!(segments(&lab, v6, full, 20).len(), 20, "what fits leaves");
        let watches = lab.watch();
        let socket = udp_socket(&lab.a.namespace, address(1, 2, v6), 0);
        let to = SocketAddr::new(address(2, 2, v6), READ);
        socket.send_to(&vec![0; full + 1], to).unwrap();
        let from = SocketAddr::new(address(1, 2, v6), 0);
        // Whether the sender is told depends on its socket's options.
        let _ = udp_send_gso(&lab.a.namespace, from, to, full as u16 + 1, 20);
        for watch in watches {
            assert_eq!(watch.finish(), Seen::default(), "a single datagram and a super-packet");
        }
    }
    assert_eq!(lab.a.count("egress", "no_room"), 4);
}

#[test]
fn echo_works_both_ways_over_both_versions() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let watches = lab.watch();
    for v6 in BOTH_VERSIONS {
        let most = full_payload(v6);
        for (from, to) in [(&lab.a, address(2, 2, v6)), (&lab.b, address(1, 2, v6))] {
            for payload in [0, 56, most] {
                let outcome = ping(&from.namespace, None, to, payload, PATIENCE).unwrap();
                delivered(outcome, &format!("{payload} bytes to {to}"));
            }
        }
    }
    for seen in all_labelled(watches) {
        assert_eq!(seen, Seen { labelled: 24, bare: 0, longest: MTU });
    }
    // Requests and replies: both count for the rule.
    assert_eq!(lab.b.decided("ledger.ping"), 12);
    assert_eq!(lab.b.count("egress", "reply"), 6);
    nothing_was_denied(&lab.a);
    nothing_was_denied(&lab.b);
}

#[test]
fn neighbours_find_each_other_again() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let wire = PacketSocket::open_incoming(&lab.router, "to_a").unwrap();
    for v6 in BOTH_VERSIONS {
        let exchange = || lab.to_b(v6, READ).udp_exchange(100, DontFragment::Want).unwrap();
        delivered(exchange(), "before");
        // A new hardware address empties A's neighbour table, and makes the router's wrong.
        let mac = [2, 0, 0, 0, 0x77, u8::from(v6)];
        lab.a.namespace.set_mac("eth0", mac).unwrap();
        delivered(exchange(), "after A's hardware address has changed");
        // So does losing the address and getting it again.
        lab.a.namespace.remove_address("eth0", prefix(1, 2, v6)).unwrap();
        lab.a.namespace.add_address("eth0", prefix(1, 2, v6)).unwrap();
        set_gateway(&lab.a.namespace, "eth0", 1);
        delivered(exchange(), "after A's address has come back");
        let asks = |frame: &[u8]| match frame[12..14] {
            [0x08, 0x06] => !v6 && frame[21] == 1,
            [0x86, 0xdd] => v6 && frame[20] == 58 && frame[54] == 135,
            _ => false,
        };
        let asked = wire.capture(PATIENCE, |frame| asks(&frame.bytes) && frame.bytes[6..12] == mac);
        assert!(asked.unwrap().is_some(), "A has asked for its neighbour");
    }
    assert!(lab.a.count("egress", "link_control") > 0);
    assert!(lab.a.count("ingress", "link_control") > 0);
    nothing_was_denied(&lab.a);
    nothing_was_denied(&lab.b);
}

#[test]
fn what_no_rule_permits_does_not_get_through() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    for v6 in BOTH_VERSIONS {
        let before = lab.b.reasons("ingress");
        let telnet = lab.b.decided("ledger.telnet");
        let short = |port| Flow { timeout: DENIED_WAIT, ..lab.to_b(v6, port) };
        for port in [UNNAMED, TELNET] {
            denied(short(port).tcp_exchange().unwrap());
            denied(short(port).udp_exchange(64, DontFragment::Want).unwrap());
            delivered(lab.to_b(v6, READ).tcp_exchange().unwrap(), "meanwhile, what is permitted");
        }
        let since = |reason: &str| {
            lab.b.count("ingress", reason) - before.get(reason).copied().unwrap_or(0)
        };
        // The port that no rule names saw at least one SYN and one datagram; so did the other.
        assert!(since("no_rule") >= 2);
        assert!(lab.b.decided("ledger.telnet") - telnet >= 2);
        assert_eq!(since("label_missing") + since("bad_mac"), 0);
        // B has no business with A but to call back, and none with itself seen from outside.
        let flow = Flow { timeout: DENIED_WAIT, ..lab.to_a(v6, READ) };
        denied(flow.udp_exchange(64, DontFragment::Want).unwrap());
        delivered(lab.to_a(v6, CALL_BACK).tcp_exchange().unwrap(), "calling back");
    }
}

const LEGACY: &str = "
legacy from 10.77.3.0/24, fd77:3::/64 on lan { subject acme.guest  max level public }
policy front {
    on ingress to acme.payments.ledger
    permit browse { from acme.guest  proto tcp port 80  proto udp port 80 }
    permit inside { where level >= internal  proto tcp port 81  proto udp port 81 }
}
";

#[test]
fn legacy_neighbours_count_as_capped_subjects_and_are_answered_bare() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let old = Namespace::create("legacy").unwrap();
    connect(3, [(&lab.router, "to_old"), (&old, "eth0")]);
    set_gateway(&old, "eth0", 3);
    lab.a.apply(&api(), &["eth0"]);
    lab.b.apply(&image(&[&workload("acme.payments.ledger", "read"), LEGACY]), &["eth0"]);
    let mut events = lab.b.report_everything();
    let watches = [("to_old"), ("to_b")].map(|device| Watch::start(&lab.router, device));
    for v6 in BOTH_VERSIONS {
        let to_b = |port| {
            let to = SocketAddr::new(address(2, 2, v6), port);
            Flow::new(&lab.b.namespace, to, &old, PATIENCE)
        };
        transfer(to_b(80), 5_000_000);
        // Nothing shortens what travels without labels.
        let plain = MTU - headers(v6);
        delivered(to_b(80).udp_exchange(full_payload(v6), DontFragment::Do).unwrap(), "UDP");
        let one_way = udp_socket(&lab.b.namespace, address(2, 2, v6), 80);
        let socket = udp_socket(&old, address(3, 2, v6), 0);
        socket.send_to(&vec![7; plain], (address(2, 2, v6), 80)).unwrap();
        assert_eq!(receive(&one_way, 1), [vec![7; plain]]);
        // The neighbour's level is capped below what this port wants.
        let closed = Flow { timeout: DENIED_WAIT, ..to_b(81) };
        denied(closed.tcp_exchange().unwrap());
        denied(closed.udp_exchange(64, DontFragment::Want).unwrap());
        // B calls the neighbour: bare, too, and what comes back is a reply.
        let to_old = SocketAddr::new(address(3, 2, v6), 8080);
        transfer(Flow::new(&old, to_old, &lab.b.namespace, PATIENCE), 5_000_000);
    }
    for watch in watches {
        let seen = watch.finish();
        assert!(seen.bare > 0 && seen.labelled == 0, "{seen:?}");
    }
    let about_neighbour = |event: &Event| event.hook == hook::INGRESS && event.rule != LEAF_NONE;
    let all = std::iter::from_fn(|| events.next(Duration::ZERO).unwrap());
    let event = all.into_iter().find(about_neighbour).expect("an event about the neighbour");
    assert_eq!(event.flags & (flag::LEGACY | flag::LABELLED), flag::LEGACY);
    assert_eq!(event.label.level(), 0);
    assert!(lab.b.count("ingress", "no_rule") >= 4);

    // Beside it, labels work as ever.
    let watch = Watch::start(&lab.router, "to_b");
    for v6 in BOTH_VERSIONS {
        delivered(lab.to_b(v6, 81).tcp_exchange().unwrap(), "A, whose level is high enough");
        let browse = Flow { timeout: DENIED_WAIT, ..lab.to_b(v6, 80) };
        denied(browse.tcp_exchange().unwrap());
    }
    let seen = watch.finish();
    assert!(seen.labelled > 0 && seen.bare == 0, "{seen:?}");
}

/// A labelled UDP datagram from A to B, as it passed the router.
fn captured(lab: &Lab, v6: bool) -> Vec<u8> {
    let wire = PacketSocket::open_incoming(&lab.router, "to_a").unwrap();
    let socket = udp_socket(&lab.a.namespace, address(1, 2, v6), 0);
    socket.send_to(b"a datagram", (address(2, 2, v6), READ)).unwrap();
    let is_ours = |bytes: &[u8]| look(bytes).is_some_and(|seen| seen.protocol == protocol::UDP);
    let frame = wire.capture(PATIENCE, |frame| is_ours(&frame.bytes)).unwrap().unwrap();
    assert!(look(&frame.bytes).unwrap().labelled);
    frame.bytes
}

/// The same frame without its label.
fn without_label(labelled: &[u8], v6: bool) -> Vec<u8> {
    let mut bytes = labelled.to_vec();
    let len_at = if v6 { 18 } else { 16 };
    let len = u16::from_be_bytes([bytes[len_at], bytes[len_at + 1]]) - LABEL as u16;
    bytes[len_at..len_at + 2].copy_from_slice(&len.to_be_bytes());
    if v6 {
        bytes[20] = bytes[54];
        bytes.drain(54..54 + LABEL);
    } else {
        bytes[14] = 0x45;
        bytes.drain(34..34 + LABEL);
        govc_tests::frame::fix_checksum(&mut bytes);
    }
    bytes
}

#[test]
fn a_workload_that_writes_its_own_label_is_dropped() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    // Checksums are then in what is captured, and right when it is sent again.
    lab.set_offloads(|offloads| Offloads {
        tso: false,
        gso: false,
        tx_checksum: false,
        ..offloads
    });
    for (v6, before) in [(false, 0), (true, 2)] {
        let labelled = captured(&lab, v6);
        let server = udp_socket(&lab.b.namespace, address(2, 2, v6), READ);
        let workload = PacketSocket::open(&lab.a.namespace, "eth0").unwrap();
        let watches = lab.watch();
        // The very label that the node has stamped on the very same flow a moment ago.
        workload.send(&labelled).expect_err("it is dropped");
        assert_eq!(lab.a.count("egress", "label_forged"), before + 1);
        // A label by socket option.
        let socket = udp_socket(&lab.a.namespace, address(1, 2, v6), 0);
        let (label, mac) = label_of(&labelled);
        let prefix = if v6 { [0, 3, 0x1e, 28] } else { [1, 1, 0x9e, 30] };
        set_own_options(&socket, &[&prefix[..], &label.encode(mac)].concat()).unwrap();
        socket.send_to(b"forged", (address(2, 2, v6), READ)).unwrap();
        assert_eq!(lab.a.count("egress", "label_forged"), before + 2);
        // Options that are no label leave no place for one.
        let options = lab.a.count("egress", "options");
        set_own_options(&socket, if v6 { &[0, 0, 1, 4, 0, 0, 0, 0] } else { &[1; 4] }).unwrap();
        socket.send_to(&[0; 100], (address(2, 2, v6), READ)).unwrap();
        assert_eq!(lab.a.count("egress", "options"), options + 1);
        for watch in watches {
            assert_eq!(watch.finish(), Seen::default(), "nothing of that leaves");
        }
        assert!(drain(&server).is_empty());
        workload.send(&without_label(&labelled, v6)).unwrap();
        assert_eq!(receive(&server, 1), [b"a datagram".to_vec()], "without a label it leaves");
    }
}

/// Verdict, reason and rule of one packet.
type Verdict = (u8, &'static str, Option<String>);

/// What B says to frames that arrive from the router, one by one.
fn verdicts(lab: &Lab, frames: &[Vec<u8>]) -> Vec<Verdict> {
    let mut events = lab.b.report_everything();
    let wire = PacketSocket::open(&lab.router, "to_b").unwrap();
    let to = lab.b.namespace.mac("eth0").unwrap();
    let mut answers = Vec::new();
    for frame in frames {
        let mut frame = frame.clone();
        frame[..6].copy_from_slice(&to);
        wire.send(&frame).unwrap();
        answers.push(next_verdict(&mut events));
    }
    answers
}

/// The next verdict about anything that arrives but link control.
fn next_verdict(events: &mut Events) -> Verdict {
    loop {
        let event = events.next(PATIENCE).unwrap().expect("an event");
        if event.hook == hook::INGRESS && event.reason != reason::LINK_CONTROL {
            let names = events.image(event.generation).expect("an image").names();
            return (
                event.verdict,
                reason::NAMES[usize::from(event.reason)],
                names.rule(event.rule),
            );
        }
    }
}

/// Frames of all kinds with what must become of them.
fn frames(keys: &Keys, image: &Image, v6: bool) -> Vec<(Vec<u8>, Verdict)> {
    let (key, epoch, slot) = keys.now();
    let domain = &image.names().domains[0];
    let subject = |path: &str| {
        let scope = domain.scopes.iter().find(|scope| scope.path == path).unwrap();
        scope.subjects.unwrap().0
    };
    let label = Label::default()
        .with_version(1)
        .with_domain(domain.number)
        .with_epoch(epoch)
        .with_life(2)
        .with_slot(slot as u16)
        .with_subject(subject("payments.api"))
        .with_operation(1);
    let spec = |transport, port| Spec {
        source: SocketAddr::new(address(1, 2, v6), 40_000),
        destination: SocketAddr::new(address(2, 2, v6), port),
        transport,
        payload: 100,
    };
    let read = spec(Transport::Udp, READ);
    let syn = Transport::Tcp { syn: true, ack: false, sequence: 7 };
    let good = read.labelled(&label, key);
    let flipped = |at: usize| {
        let mut frame = good.clone();
        frame[at] ^= 1;
        frame
    };
    let body = govc_tests::frame::body_at(&good);
    let (permit, deny) = (verdict::PERMIT, verdict::DENY);
    let rule = |name: &str| Some(name.to_owned());
    let old = label.with_slot((slot - 10) as u16);
    let other_key = (key.0 ^ 1, key.1);
    let mut cut = good.clone();
    cut.truncate(60);
    vec![
        (good.clone(), (permit, "rule", rule("ledger.read"))),
        (spec(syn, READ).labelled(&label, key), (permit, "rule", rule("ledger.read"))),
        (spec(syn, UNNAMED).labelled(&label, key), (deny, "no_rule", None)),
        (spec(syn, TELNET).labelled(&label, key), (deny, "rule", rule("ledger.telnet"))),
        (read.frame(), (deny, "label_missing", None)),
        (read.labelled(&label, other_key), (deny, "bad_mac", None)),
        (flipped(body + 20), (deny, "bad_mac", None)),
        (flipped(body + 5), (deny, "bad_mac", None)),
        (read.labelled(&old, key), (deny, "slot_expired", None)),
        (read.labelled(&label.with_version(2), key), (deny, "version", None)),
        (read.labelled(&label.with_domain(8), key), (deny, "domain_unknown", None)),
        (read.labelled(&label.with_subject(subject("guest")), key), (deny, "no_rule", None)),
        (flipped(body - 1), (deny, "options", None)),
        (cut, (deny, "truncated", None)),
        (good, (permit, "rule", rule("ledger.read"))),
    ]
}

#[test]
fn both_hooks_give_the_same_verdicts_and_leave_tcp_intact() {
    if !kernel_available() {
        return;
    }
    for (hook, name) in [(HookChoice::Tcx, "tcx"), (HookChoice::Xdp, "xdp")] {
        let lab = Lab::bare();
        let how = How { hook, ..How::default() };
        lab.a.try_apply(&api(), &["eth0"], how).unwrap();
        lab.b.try_apply(&ledger(), &["eth0"], how).unwrap();
        assert_eq!(lab.b.status().interfaces[0].attached.ingress, name);
        for v6 in BOTH_VERSIONS {
            let (sent, expected): (Vec<_>, Vec<_>) =
                frames(&lab.keys, &ledger(), v6).into_iter().unzip();
            assert_eq!(verdicts(&lab, &sent), expected, "{name}");
            assert!(lab.b.decided("ledger.read") >= 3);
        }
        let denials = |node: &Node| -> u64 {
            let reasons = node.status().reasons;
            reasons.iter().filter(|c| c.permitted == Some(false)).map(|c| c.packets).sum()
        };
        let before = [&lab.a, &lab.b].map(denials);
        let watches = lab.watch();
        for flow in lab.permitted() {
            transfer(flow, 10_000_000);
            let full = full_payload(flow.bind.is_ipv6());
            delivered(flow.udp_exchange(full, DontFragment::Do).unwrap(), name);
        }
        for v6 in BOTH_VERSIONS {
            let outcome = ping(&lab.a.namespace, None, address(2, 2, v6), 56, PATIENCE).unwrap();
            delivered(outcome, name);
            assert_eq!(segments(&lab, v6, 1000, 30).len(), 30, "{name}");
        }
        all_labelled(watches);
        assert_eq!([&lab.a, &lab.b].map(denials), before, "{name}");
    }
}

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
    both(1000, 2000);
    // A request and its reply over each IP version.
    assert_eq!(b.decided("sides.left_reads"), 4);
    assert_eq!(b.decided("sides.right_writes"), 4);
    assert_eq!(b.count("ingress", "no_rule"), 4);

    // A new policy reaches both without naming either.
    let swapped = ZONES.replace("port 1000", "port X").replace("port 2000", "port 1000");
    b.apply(&image(&[&swapped.replace("port X", "port 2000")]), &[]);
    both(2000, 1000);

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
        matches!(&error, LoadError::MtuTooSmall { interface, mtu: 1311 } if interface == "eth1"),
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

/// Tells the child of [`the_cgroup_of_a_sender_chooses_its_label`] its cgroup's directory, and
/// where to send.
const SENDER: &str = "GOVC_TESTS_SENDER";

#[test]
fn the_child_sends_from_its_cgroup() {
    let Ok(order) = env::var(SENDER) else { return };
    let [dir, ip, port] = order.split(' ').collect::<Vec<_>>().try_into().unwrap();
    if !dir.is_empty() {
        fs::write(Path::new(dir).join("cgroup.procs"), "0").unwrap();
    }
    let to = SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap());
    // A socket belongs to the cgroup in which it was made.
    let local: IpAddr =
        if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    UdpSocket::bind((local, 0)).unwrap().send_to(b"from a cgroup", to).unwrap();
}

/// Cgroups of this test, gone with it.
struct Cgroups(PathBuf);

impl Cgroups {
    fn new() -> Self {
        let root = govc_loader::cgroup::root().expect("a cgroup2 hierarchy");
        Self(root.join(format!("govc-test-{}", std::process::id())))
    }

    fn path(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_string_lossy())
    }

    fn make(&self, below: &str) -> PathBuf {
        let dir = self.0.join(below);
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        for below in ["api-1/inner", "api-1", "web", "other", ""] {
            let _ = fs::remove_dir(self.0.join(below));
        }
    }
}

#[test]
fn the_cgroup_of_a_sender_chooses_its_label() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let cgroups = Cgroups::new();
    let path = cgroups.path();
    let [inner, web, other] = ["api-1/inner", "web", "other"].map(|below| cgroups.make(below));
    lab.a.apply(
        &image(&[&format!(
            "zone lan = interface \"eth0\"\n\
             stamp on lan when cgroup \"{path}/api*\" {{ \
                 subject acme.payments.api  operation ledger.read  residency eu }}\n\
             stamp on lan when cgroup \"{path}/web\" {{ \
                 subject acme.web.front  operation ledger.read  residency eu }}\n"
        )]),
        &["eth0"],
    );
    lab.b.apply(&ledger(), &["eth0"]);
    for v6 in BOTH_VERSIONS {
        let to = address(2, 2, v6);
        let server = udp_socket(&lab.b.namespace, to, READ);
        let send = |dir: &Path| {
            let mut child = Command::new(env::current_exe().unwrap());
            child
                .args(["--exact", "the_child_sends_from_its_cgroup"])
                .env(SENDER, format!("{} {to} {READ}", dir.display()))
                .stdout(Stdio::null());
            assert!(lab.a.namespace.run(|| child.status()).unwrap().success());
        };
        let count = |node: &Node, hook, reason| node.count(hook, reason);
        send(&inner);
        assert_eq!(receive(&server, 1).len(), 1, "below a cgroup that the pattern matches");
        let before = count(&lab.b, "ingress", "no_rule");
        send(&web);
        assert_eq!(count(&lab.b, "ingress", "no_rule"), before + 1, "another subject");
        let before = count(&lab.a, "egress", "no_subject");
        send(&other);
        send(Path::new(""));
        assert_eq!(count(&lab.a, "egress", "no_subject"), before + 2, "no stamp rule speaks");
        assert_eq!(drain(&server).len(), 0);
    }
}
