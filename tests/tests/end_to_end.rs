//! The whole of it on real links: what workloads notice, what is on the wire, what is let through.

use std::net::SocketAddr;

use govc_abi::{
    event::{Event, flag, hook, verdict},
    label::Label,
    node::LEAF_NONE,
    reason,
};
use govc_image::Image;
use govc_loader::attach::HookChoice;
use govc_netlab::{
    DontFragment, Flow, Namespace, Offloads, Outcome, PacketSocket, ping, udp_send_gso,
};
use govc_tests::{
    frame::{Spec, Transport, label_of},
    kernel_available,
    lab::{
        BOTH_VERSIONS, CALL_BACK, LABEL, Lab, MTU, READ, TELNET, UNNAMED, all_labelled, api,
        delivered, denied, full_payload, headers, ledger, nothing_was_denied, replayed, transfer,
    },
    node::{
        DENIED_WAIT, How, Keys, Node, PATIENCE, Seen, Tap, Watch, address, connect, drain, image,
        look, prefix, protocol, receive, set_gateway, set_own_options, udp_socket, wait_until,
        workload,
    },
    replay::Recording,
};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// Bytes of the part of a transfer that is recorded and explained: what is reported takes another way through
/// the hooks than what is not, so that the rest goes unseen.
const RECORDED: u64 = 2_000_000;

/// Transfers once more with somebody looking: each packet of these is explained as it was decided.
fn recorded(lab: &Lab, flows: &[Flow<'_>]) {
    let recordings = lab.record();
    flows.iter().for_each(|flow| transfer(*flow, RECORDED));
    replayed(recordings, GOVC);
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
    recorded(&lab, &[lab.to_b(v6, READ), lab.to_a(v6, CALL_BACK)]);
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

/// 20 MB one way and 5 MB the other over both versions with some offloads off; packets fill the MTU and
/// none exceeds it.
fn segments_fit(change: impl Fn(Offloads) -> Offloads) {
    let lab = Lab::governed();
    lab.set_offloads(change);
    let watches = lab.watch();
    let mut bytes = 0;
    for flow in lab.permitted() {
        let most = if flow.bind.port() == READ { 20_000_000 } else { 5_000_000 };
        transfer(flow, most);
        bytes += most;
    }
    for seen in all_labelled(watches) {
        assert_eq!(seen.longest, MTU, "full segments fill the MTU and no more: {seen:?}");
        // A few are shorter: where what was written ends, and where a window does.
        assert!(seen.full > bytes / MTU as u64 * 9 / 10, "segments are full: {seen:?}");
    }
    recorded(&lab, &lab.permitted());
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
    let recordings = lab.record();
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
    replayed(recordings, GOVC);
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
    let recordings = lab.record();
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
    replayed(recordings, GOVC);
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
    let recordings = with.record();
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
    replayed(recordings, GOVC);
}

#[test]
fn segmented_datagrams_without_room_for_a_label_do_not_leave() {
    if !kernel_available() {
        return;
    }
    // The first makes the sender learn, who sends no second.
    for alone in [true, false] {
        let lab = Lab::bare();
        lab.b.apply(&ledger(), &["eth0"]);
        lab.a.try_apply(&api(), &["eth0"], How { set_mtu: false, ..How::default() }).unwrap();
        for v6 in BOTH_VERSIONS {
            let full = full_payload(v6);
            assert_eq!(segments(&lab, v6, full, 20).len(), 20, "what fits leaves");
            let watches = lab.watch();
            let to = SocketAddr::new(address(2, 2, v6), READ);
            if alone {
                let socket = udp_socket(&lab.a.namespace, address(1, 2, v6), 0);
                socket.send_to(&vec![0; full + 1], to).unwrap();
            } else {
                let from = SocketAddr::new(address(1, 2, v6), 0);
                udp_send_gso(&lab.a.namespace, from, to, full as u16 + 1, 20).unwrap();
            }
            for watch in watches {
                assert_eq!(watch.finish(), Seen::default(), "alone {alone} v6 {v6}");
            }
        }
        assert_eq!(lab.a.count("egress", "no_room"), 2, "alone {alone}");
    }
}

#[test]
fn echo_works_both_ways_over_both_versions() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let recordings = [(&lab.a, "to_a"), (&lab.b, "to_b")]
        .map(|(node, wire)| Recording::start(node, "eth0", (&lab.router, wire)));
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
        assert_eq!(seen, Seen { labelled: 24, bare: 0, longest: MTU, full: 8 });
    }
    // Requests and replies: both count for the rule.
    assert_eq!(lab.b.decided("ledger.ping"), 12);
    assert_eq!(lab.b.count("egress", "reply"), 6);
    nothing_was_denied(&lab.a);
    nothing_was_denied(&lab.b);
    for recording in recordings {
        recording.replay(GOVC, &[]);
    }
}

#[test]
fn neighbours_find_each_other_again() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let recordings = lab.record();
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
    replayed(recordings, GOVC);
}

#[test]
fn what_no_rule_permits_does_not_get_through() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
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
    recording.replay(GOVC, &[]);
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
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    let watches = [("to_old"), ("to_b")].map(|device| Watch::start(&lab.router, device));
    for v6 in BOTH_VERSIONS {
        let to_b = |port| {
            let to = SocketAddr::new(address(2, 2, v6), port);
            Flow::new(&lab.b.namespace, to, &old, PATIENCE)
        };
        transfer(to_b(80), 500_000);
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
        transfer(Flow::new(&old, to_old, &lab.b.namespace, PATIENCE), 500_000);
    }
    for watch in watches {
        let seen = watch.finish();
        assert!(seen.bare > 0 && seen.labelled == 0, "{seen:?}");
    }
    let about_neighbour = |event: &Event| event.hook == hook::INGRESS && event.rule != LEAF_NONE;
    let all = recording.replay(GOVC, &[]);
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
    let recordings = lab.record();
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
    replayed(recordings, GOVC);
}

/// Verdict, reason and rule of one packet.
type Verdict = (u8, &'static str, Option<String>);

/// What B says to frames that arrive from the router, one by one, and `explain` after it.
fn verdicts(lab: &Lab, frames: &[Vec<u8>]) -> Vec<Verdict> {
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    let wire = PacketSocket::open(&lab.router, "to_b").unwrap();
    let to = lab.b.namespace.mac("eth0").unwrap();
    for frame in frames {
        let mut frame = frame.clone();
        frame[..6].copy_from_slice(&to);
        wire.send(&frame).unwrap();
    }
    let image = ledger();
    let events = recording.replay(GOVC, &[]).into_iter();
    let events = events.filter(|event| event.reason != reason::LINK_CONTROL);
    let verdict = |event: Event| {
        let reason = reason::NAMES[usize::from(event.reason)];
        (event.verdict, reason, image.names().rule(event.rule))
    };
    events.map(verdict).collect()
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
        recorded(&lab, &lab.permitted());
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
