//! Fragments, and packets with other people's options: denied unless a rule speaks of them, and
//! believed only where the label can be verified.

use std::net::{SocketAddr, UdpSocket};

use govc_abi::{node::LEAF_NONE, reason};
use govc_image::Image;
use govc_loader::attach::HookChoice;
use govc_netlab::{Frame, Namespace, PacketSocket};
use govc_tests::{
    Compiled, compile,
    frame::{self, ETH, Spec, Transport},
    kernel::{Answer, Hook, Kernel, sure_slot},
    kernel_available,
    lab::{BOTH_VERSIONS, Lab, READ, RULES},
    ledger::{SYN, api_label, spec},
    node::{
        DENIED_WAIT, How, Node, PATIENCE, Watch, address, fragmenting_socket, image, receive,
        receive_within, set_own_options, udp_socket, workload,
    },
    policies::VOCABULARY,
    random::Random,
    reference,
    replay::Recording,
};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// Who may send fragments, and who options.
const POLICY: &str = "package acme.k\nuse acme.vocabulary\n\
    zone lan = interface \"eth0\", \"lo\"\n\
    legacy from 10.1.0.0/16, 2001:db8::/32 on lan { subject acme.guest  max level public }\n\
    stamp on lan { subject acme.payments.api  operation ledger.read  fragments }\n\
    policy p { on ingress  on egress\n\
      permit read { from acme.payments.api  proto udp  fragments }\n\
      permit large { from acme.payments.api  proto tcp port 443 }\n\
      permit old { from legacy  proto udp port 443  options }\n\
      permit pings { from legacy  proto icmp  proto icmpv6  fragments  options }\n\
      deny other { from legacy  proto sctp port 9 } }\n";

/// Where their labels ride in front of them.
const TUNNEL: &str = "carriage tunnel to 10.2.0.0/16, 2001:db9::/32 on lan\n";

fn compiled(text: &str) -> Compiled {
    compile(&[("fragments.gov", text), ("vocabulary.gov", VOCABULARY)])
}

/// A frame of some shape, without a label.
fn shaped(random: &mut Random, v6: bool) -> Vec<u8> {
    let echo = if v6 { 128 } else { 8 };
    let transport =
        *random.pick(&[SYN, Transport::Udp, Transport::Icmp(echo, 0), Transport::Other(132)]);
    let mut spec = spec(v6, transport);
    spec.payload = random.below(60);
    let mut frame = spec.frame();
    if random.one_in(2) {
        let (offset, more) = (random.below(100) as u16, random.one_in(2));
        frame = frame::fragment(&frame, random.bits() as u32, offset, more);
    }
    let extensions = if random.one_in(2) { 0 } else { 1 + random.below(5) };
    for _ in 0..extensions.min(if v6 { 5 } else { 10 }) {
        let number = *random.pick(&[0, 43, 51, 60, 135]);
        frame = frame::with_options(&frame, number, 1 + random.below(4));
    }
    frame
}

fn told(compiled: &Compiled, answer: &Answer) -> (bool, Option<usize>) {
    let rule = answer.event.map_or(LEAF_NONE, |event| event.rule);
    let position =
        (rule != LEAF_NONE).then(|| compiled.table.rule_positions[rule as usize] as usize);
    (answer.permit, position)
}

#[test]
fn kernel_and_reference_agree_about_packets_of_every_shape() {
    if kernel_available() {
        agree(POLICY, &[Hook::Ingress, Hook::Xdp]);
    }
}

#[test]
fn kernel_and_reference_agree_about_packets_of_every_shape_in_tunnels() {
    if kernel_available() {
        agree(&format!("{POLICY}{TUNNEL}"), &[Hook::Ingress]);
    }
}

/// Asks both about thousands of packets.
fn agree(policy: &str, hooks: &[Hook]) {
    let compiled = compiled(policy);
    let tunnels = policy.contains("tunnel");
    let mut kernel = Kernel::new(&compiled.image);
    let (mut permits, mut denials, mut refused) = (0, 0, 0);
    for seed in 0..3_000 {
        let random = &mut Random::new(seed);
        let verifier = kernel.verifier(7);
        let v6 = random.one_in(2);
        let mut bare = shaped(random, v6);
        if tunnels && random.one_in(8) {
            to_tunnel(&mut bare);
        }
        let label = api_label(&compiled, &verifier, 2);
        let mut frame = match random.below(3) {
            0 => None,
            1 if tunnels => reference::tunnelled(&bare, &label, verifier.key),
            _ => reference::labelled(&bare, &label, verifier.key),
        }
        .unwrap_or(bare);
        let mutated = random.one_in(4);
        if mutated {
            let at = random.below(frame.len().min(if tunnels { 190 } else { 120 }));
            frame[at] ^= 1 << random.below(8);
        }
        if random.one_in(4) {
            frame.truncate(54.max(random.below(frame.len())));
        }
        let wanted = reference::decide_ingress(&compiled.policy, &frame, &verifier);
        for &hook in hooks {
            let answer = kernel.ask(hook, &frame);
            let why = answer.event.map(|event| event.reason);
            if why == Some(reason::LINK_CONTROL) || sure_slot() != Some(verifier.slot) {
                continue;
            }
            let wanted = wanted.map_or((false, None), |decision| (decision.permit, decision.rule));
            let found = told(&compiled, &answer);
            if mutated {
                // The kernel is the stricter of the two about lengths.
                assert!(!found.0 || wanted.0, "seed {seed} {hook:?} {frame:02x?}\n{answer:?}");
                continue;
            }
            assert_eq!(found, wanted, "seed {seed} {hook:?} {frame:02x?}\n{answer:?}");
        }
        match wanted {
            Some(decision) if decision.permit => permits += 1,
            Some(_) => denials += 1,
            None => refused += 1,
        }
    }
    assert!(permits > 200 && denials > 200 && refused > 200, "{permits} {denials} {refused}");
}

/// Makes its port that of tunnels, if it shows one where it usually stands.
fn to_tunnel(frame: &mut [u8]) {
    let (protocol, port) = if frame[12] == 0x08 {
        (frame[ETH + 9], ETH + usize::from(frame[ETH] & 0xf) * 4 + 2)
    } else {
        (frame[ETH + 6], ETH + 42)
    };
    if protocol == 17 {
        frame[port..port + 2].copy_from_slice(&6081_u16.to_be_bytes());
    }
}

#[test]
fn verified_fragments_arrive_as_they_were_before_they_were_stamped() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled(POLICY);
    let mut kernel = Kernel::new(&compiled.image);
    let mut labelled = 0;
    for seed in 0..400 {
        let random = &mut Random::new(seed);
        let v6 = random.one_in(2);
        let to_others = if v6 { "2001:db9::2" } else { "10.2.0.2" };
        let mut spec = spec(v6, Transport::Udp);
        spec.destination = SocketAddr::new(to_others.parse().unwrap(), 443);
        let offset = random.below(100) as u16;
        let bare = frame::fragment(&spec.frame(), random.bits() as u32, offset, true);
        let verifier = kernel.verifier(7);
        let left = kernel.ask(Hook::Egress, &bare);
        let told = format!("seed {seed} {bare:02x?}\n{left:?}");
        assert!(left.permit, "{told}");
        let (wanted, label) = reference::decide_egress(&compiled.policy, &bare, 1).unwrap();
        let label = label.unwrap().with_epoch(verifier.epoch).with_slot(verifier.slot as u16);
        assert!(wanted.permit);
        if sure_slot() != Some(verifier.slot) {
            continue;
        }
        // Built from the same fragment by other code, bit for bit.
        let built = reference::labelled(&bare, &label, verifier.key).unwrap();
        assert_eq!(left.frame, built, "{told}");
        for hook in [Hook::Ingress, Hook::Xdp] {
            let came = kernel.ask(hook, &left.frame);
            assert!(came.permit, "{told}\n{came:?}");
            assert_eq!(came.frame, bare, "{hook:?} {told}");
        }
        labelled += 1;
    }
    assert!(labelled > 200, "{labelled}");
}

#[test]
fn labels_of_fragments_ride_in_tunnels_too() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled(&format!("{POLICY}{TUNNEL}"));
    let mut kernel = Kernel::new(&compiled.image);
    let mut carried = 0;
    for seed in 0..200 {
        let random = &mut Random::new(seed);
        let v6 = random.one_in(2);
        let mut spec = spec(v6, Transport::Udp);
        let to = if v6 { "2001:db9::2" } else { "10.2.0.2" };
        spec.destination = SocketAddr::new(to.parse().unwrap(), 443);
        let offset = random.below(100) as u16;
        let bare = frame::fragment(&spec.frame(), random.bits() as u32, offset, true);
        let verifier = kernel.verifier(7);
        let left = kernel.ask(Hook::Egress, &bare);
        let told = format!("seed {seed} {bare:02x?}\n{left:?}");
        assert!(left.permit, "{told}");
        let (_, label) = reference::decide_egress(&compiled.policy, &bare, 1).unwrap();
        let label = label.unwrap().with_epoch(verifier.epoch).with_slot(verifier.slot as u16);
        if sure_slot() != Some(verifier.slot) {
            continue;
        }
        let mut built = reference::tunnelled(&bare, &label, verifier.key).unwrap();
        // Which source port it is is up to the sender.
        let port = ETH + if v6 { 40 } else { 20 };
        built[port..port + 2].copy_from_slice(&left.frame[port..port + 2]);
        assert_eq!(left.frame, built, "{told}");
        let came = kernel.ask(Hook::Ingress, &left.frame);
        assert!(came.permit, "{told}\n{came:?}");
        assert_eq!(came.frame, bare, "{told}");
        carried += 1;
    }
    assert!(carried > 100, "{carried}");
}

#[test]
fn nobody_looks_into_a_tunnel_that_is_cut_or_has_options() {
    if !kernel_available() {
        return;
    }
    let policy = POLICY.replace("proto udp port 443  options", "proto udp  fragments  options");
    assert_ne!(policy, POLICY);
    let policy = policy.replace("proto udp  fragments }", "proto udp  fragments  options }");
    let mut without = Kernel::new(&compiled(&policy).image);
    let compiled = compiled(&format!("{policy}{TUNNEL}"));
    let mut with = Kernel::new(&compiled.image);
    for v6 in BOTH_VERSIONS {
        let mut spec = spec(v6, Transport::Udp);
        let other = spec.frame();
        spec.destination.set_port(6081);
        let tunnel = spec.frame();
        let cut = |frame: &[u8], offset| frame::fragment(frame, 7, offset, true);
        let options = |frame: &[u8]| frame::with_options(frame, 60, 1);
        for (frame, refused) in [
            (cut(&tunnel, 0), reason::FRAGMENT),
            (options(&tunnel), reason::OPTIONS),
            (options(&cut(&tunnel, 0)), if v6 { reason::OPTIONS } else { reason::FRAGMENT }),
        ] {
            let answer = with.ask(Hook::Ingress, &frame);
            assert!(!answer.permit, "v6 {v6} {frame:02x?}");
            assert_eq!(answer.event.unwrap().reason, refused, "v6 {v6} {frame:02x?}");
            // Elsewhere the port means nothing.
            assert!(without.ask(Hook::Ingress, &frame).permit, "v6 {v6} {frame:02x?}");
        }
        // Nothing with options has a label, not even in front of it.
        let verifier = with.verifier(7);
        let label = api_label(&compiled, &verifier, 2);
        let inside = reference::tunnelled(&other, &label, verifier.key).unwrap();
        assert!(with.ask(Hook::Ingress, &inside).permit, "positive control");
        let inside = reference::tunnelled(&options(&other), &label, verifier.key).unwrap();
        let answer = with.ask(Hook::Ingress, &inside);
        assert_eq!((answer.permit, answer.event.unwrap().reason), (false, reason::OPTIONS));
        for frame in [cut(&tunnel, 1), cut(&other, 0), options(&other), options(&cut(&other, 0))] {
            let answer = with.ask(Hook::Ingress, &frame);
            assert!(answer.permit, "v6 {v6} {frame:02x?}\n{answer:?}");
        }
    }
}

#[test]
fn the_label_of_a_fragment_is_good_for_its_datagram_alone() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled(POLICY);
    let mut kernel = Kernel::new(&compiled.image);
    for v6 in BOTH_VERSIONS {
        let whole = spec(v6, Transport::Udp).frame();
        let one = frame::fragment(&whole, 77, 0, true);
        for hook in [Hook::Ingress, Hook::Xdp] {
            let verifier = kernel.verifier(7);
            let label = api_label(&compiled, &verifier, 2);
            let good = reference::labelled(&one, &label, verifier.key).unwrap();
            let (_, mac) = frame::label_of(&good);
            assert!(kernel.ask(hook, &good).permit, "positive control");
            // Its other fragments have the same label.
            let next = frame::insert(&frame::fragment(&whole, 77, 9, false), &label, mac);
            assert!(kernel.ask(hook, &next).permit);
            for other in [
                whole.clone(),
                frame::fragment(&whole, 78, 0, true),
                frame::fragment(&spec(v6, SYN).frame(), 77, 0, true),
            ] {
                let answer = kernel.ask(hook, &frame::insert(&other, &label, mac));
                assert!(!answer.permit, "{hook:?} v6 {v6} {answer:?}");
                assert_eq!(answer.event.unwrap().reason, reason::BAD_MAC);
            }
            // Nor is that of a whole packet for a fragment.
            let of_whole = spec(v6, Transport::Udp).labelled(&label, verifier.key);
            let (_, mac) = frame::label_of(&of_whole);
            assert!(!kernel.ask(hook, &frame::insert(&one, &label, mac)).permit);
            let body = frame::body_at(&good);
            for bit in 0..28 * 8 {
                let mut wrong = good.clone();
                wrong[body + bit / 8] ^= 1 << (bit % 8);
                assert!(!kernel.ask(hook, &wrong).permit, "{hook:?} v6 {v6} bit {bit}");
            }
        }
    }
}

/// The lab with rules for fragments at both ends, or without.
fn lab(fragments: bool) -> Lab {
    lab_with(fragments, &RULES.replace("proto udp port 23", ""))
}

fn lab_with(fragments: bool, rules: &str) -> Lab {
    lab_on(HookChoice::Auto, fragments, rules)
}

/// Likewise, with another hook at B.
fn lab_on(hook: HookChoice, fragments: bool, rules: &str) -> Lab {
    let lab = Lab::bare();
    let word = if fragments { "fragments" } else { "" };
    let rules = format!(
        "{rules}
        policy large {{
            on ingress to acme.payments.ledger
            on egress
            permit datagrams {{ from acme.payments.api  proto udp  {word} }}
            permit answers {{ from acme.payments.ledger }}
        }}"
    );
    let node = |subject: &str| -> Image {
        let own =
            workload(subject, "read").replace("residency eu", &format!("residency eu {word}"));
        image(&[&own, &rules])
    };
    lab.a.apply(&node("acme.payments.api"), &["eth0"]);
    let how = How { hook, ..How::default() };
    lab.b.try_apply(&node("acme.payments.ledger"), &["eth0"], how).unwrap();
    lab
}

/// A socket of A whose datagrams may be fragmented.
fn sender(lab: &Lab, v6: bool) -> UdpSocket {
    fragmenting_socket(&lab.a.namespace, address(1, 2, v6))
}

/// Longer than two links take.
fn datagram() -> Vec<u8> {
    (0..4000).map(|at: u32| at as u8).collect()
}

#[test]
fn fragments_are_denied_unless_a_rule_says_otherwise() {
    if !kernel_available() {
        return;
    }
    let lab = lab(false);
    for v6 in BOTH_VERSIONS {
        let before = lab.a.count("egress", "fragment");
        let receiver = udp_socket(&lab.b.namespace, address(2, 2, v6), READ);
        let socket = sender(&lab, v6);
        let to = SocketAddr::new(address(2, 2, v6), READ);
        // Small ones pass.
        socket.send_to(b"small", to).unwrap();
        assert_eq!(receive(&receiver, 1), [b"small"]);
        let _ = socket.send_to(&datagram(), to);
        assert!(receive_within(DENIED_WAIT, &receiver, 1).is_empty());
        // The stack does not try the others.
        assert_eq!(lab.a.count("egress", "fragment") - before, 1, "v6 {v6}");
    }
}

#[test]
fn fragments_arrive_where_both_ends_speak_of_them() {
    if !kernel_available() {
        return;
    }
    let lab = lab(true);
    for v6 in BOTH_VERSIONS {
        let receiver = udp_socket(&lab.b.namespace, address(2, 2, v6), READ);
        let socket = sender(&lab, v6);
        let to = SocketAddr::new(address(2, 2, v6), READ);
        let wire = PacketSocket::open_incoming(&lab.router, "to_a").unwrap();
        let watch = Watch::start(&lab.router, "to_a");
        socket.send_to(&datagram(), to).unwrap();
        let came = receive_within(DENIED_WAIT * 10, &receiver, 1);
        let reasons = [lab.a.reasons("egress"), lab.b.reasons("ingress")];
        assert!(came == [datagram()], "v6 {v6} {reasons:?}");
        let seen = watch.finish();
        assert_eq!((seen.labelled, seen.bare), (3, 0), "v6 {v6} {seen:?}");
        // One of them once more, as somebody else's.
        let is_last = |frame: &Frame| frame.bytes.ends_with(&datagram()[3900..]);
        let last = wire.capture(PATIENCE, is_last).unwrap().unwrap().bytes;
        assert_eq!(frame::label_of(&last).0.domain(), 7);
    }
    assert_eq!(lab.b.count("ingress", "bad_mac"), 0);
    assert_eq!(lab.b.decided("large.datagrams"), 6);
}

#[test]
fn a_fragment_is_no_way_around_a_denial() {
    if !kernel_available() {
        return;
    }
    // One of them denies a port, which fragments do not show.
    let lab = lab_with(true, RULES);
    for v6 in BOTH_VERSIONS {
        let receiver = udp_socket(&lab.b.namespace, address(2, 2, v6), READ);
        let to = SocketAddr::new(address(2, 2, v6), READ);
        sender(&lab, v6).send_to(&datagram(), to).unwrap();
        assert!(receive_within(DENIED_WAIT, &receiver, 1).is_empty());
    }
    assert_eq!(lab.b.decided("ledger.telnet"), 6);
}

#[test]
fn what_a_router_fragments_on_the_way_is_denied() {
    if !kernel_available() {
        return;
    }
    let lab = lab(true);
    let receiver = udp_socket(&lab.b.namespace, address(2, 2, false), READ);
    let socket = sender(&lab, false);
    let to = SocketAddr::new(address(2, 2, false), READ);
    lab.router.set_mtu("to_b", 1000).unwrap();
    socket.send_to(&[7; 1300], to).unwrap();
    assert!(receive_within(DENIED_WAIT, &receiver, 1).is_empty());
    // The label was made for the whole packet.
    assert_eq!(lab.b.count("ingress", "bad_mac"), 2);
}

#[test]
fn options_of_neighbours_pass_by_a_rule_that_says_so() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let policy = |word: &str| {
        let text = format!(
            "legacy from 10.77.2.0/24, fd77:2::/64 on lan {{ subject acme.guest  max level public }}
            policy old {{ on ingress  permit guests {{ from acme.guest  proto udp port 6000  {word} }} }}"
        );
        image(&[&workload("acme.payments.api", "read"), &text])
    };
    lab.a.apply(&policy(""), &["eth0"]);
    for (word, passes) in [("", false), ("options", true)] {
        lab.a.apply(&policy(word), &[]);
        for v6 in BOTH_VERSIONS {
            let receiver = udp_socket(&lab.a.namespace, address(1, 2, v6), 6000);
            let socket = udp_socket(&lab.b.namespace, address(2, 2, v6), 0);
            let to = SocketAddr::new(address(1, 2, v6), 6000);
            socket.send_to(b"plain", to).unwrap();
            assert_eq!(receive(&receiver, 1), [b"plain"], "v6 {v6}");
            let before = lab.a.count("ingress", "options");
            set_own_options(&socket, if v6 { &[0, 0, 1, 4, 0, 0, 0, 0] } else { &[1; 4] }).unwrap();
            socket.send_to(b"odd", to).unwrap();
            if passes {
                assert_eq!(receive(&receiver, 1), [b"odd"], "v6 {v6}");
            } else {
                assert!(receive_within(DENIED_WAIT, &receiver, 1).is_empty());
                let reasons = lab.a.reasons("ingress");
                assert_eq!(lab.a.count("ingress", "options"), before + 1, "v6 {v6} {reasons:?}");
            }
        }
    }
}

/// What a router lets pass.
const TRANSIT: &str = "
zone left = interface \"to_a\"
     right = interface \"to_b\"
policy transit {
    on forward
    permit datagrams { from acme.payments.api  where egress zone is right  proto udp  fragments }
}
";

#[test]
fn routers_pass_fragments_where_they_speak_of_them() {
    if !kernel_available() {
        return;
    }
    for hook in [HookChoice::Tcx, HookChoice::Xdp] {
        let lab = lab(true);
        let router = Node::within(Namespace::clone(&lab.router), &lab.keys);
        let how = How { hook, ..How::default() };
        router.try_apply(&image(&[TRANSIT]), &["to_a", "to_b"], how).unwrap();
        let recording = Recording::start(&router, "to_a", (&lab.a.namespace, "eth0"));
        let transfer = |v6: bool, wait| {
            let receiver = udp_socket(&lab.b.namespace, address(2, 2, v6), READ);
            let to = SocketAddr::new(address(2, 2, v6), READ);
            sender(&lab, v6).send_to(&datagram(), to).unwrap();
            receive_within(wait, &receiver, 1)
        };
        for v6 in BOTH_VERSIONS {
            let watch = Watch::start(&lab.b.namespace, "eth0");
            let reasons = || [router.reasons("ingress"), router.reasons("forward")];
            assert!(transfer(v6, PATIENCE) == [datagram()], "{hook:?} v6 {v6} {:?}", reasons());
            let seen = watch.finish();
            assert_eq!((seen.labelled, seen.bare), (3, 0), "{hook:?} v6 {v6} {seen:?}");
        }
        let to_right = ["--on", "forward", "--to-zone", "right"];
        let events = recording.replay(GOVC, &to_right);
        assert_eq!(events.iter().filter(|event| event.protocol == 17).count(), 6);
        router.apply(&image(&[&TRANSIT.replace("fragments", "")]), &[]);
        for v6 in BOTH_VERSIONS {
            assert!(transfer(v6, DENIED_WAIT).is_empty(), "{hook:?} v6 {v6}");
        }
        assert_eq!(
            router.count("ingress", "fragment"),
            6,
            "{hook:?} {:?}",
            router.reasons("ingress")
        );
    }
}

/// A neighbour without labels, and what it may.
const LEGACY: &str = "
legacy from 10.77.3.0/24, fd77:3::/64 on lan { subject acme.guest  max level public }
policy front {
    on ingress to acme.payments.ledger
    permit odd { from acme.guest  proto udp port 80  options }
    permit pieces { from acme.guest  proto icmp  proto icmpv6  fragments  options }
}
";

/// Frames of the neighbour, and of whoever has seen a labelled fragment.
fn odd_frames(labelled: &[u8], v6: bool) -> Vec<Vec<u8>> {
    let at = |net, port| SocketAddr::new(address(net, 2, v6), port);
    let bare = |port, transport| {
        let (source, destination) = (at(3, 40_000), at(2, port));
        Spec { source, destination, transport, payload: 20 }.frame()
    };
    let echo = bare(0, Transport::Icmp(if v6 { 128 } else { 8 }, 0));
    let cut = |frame: &[u8]| frame::fragment(frame, 9, 2, true);
    let options = |frame: &[u8]| frame::with_options(frame, 60, 1);
    let many = (0..6).fold(bare(80, Transport::Udp), |frame, _| options(&frame));
    let body = frame::body_at(labelled);
    let flipped = |at: usize| {
        let mut frame = labelled.to_vec();
        frame[at] ^= 1;
        frame
    };
    vec![
        bare(80, Transport::Udp),
        options(&bare(80, Transport::Udp)),
        options(&bare(81, Transport::Udp)),
        cut(&bare(80, Transport::Udp)),
        cut(&options(&bare(80, Transport::Udp))),
        cut(&echo),
        options(&cut(&echo)),
        options(&echo),
        many,
        flipped(body + 20),
        flipped(body + 5),
        flipped(body - 1),
        labelled.to_vec(),
    ]
}

#[test]
fn explain_says_of_packets_of_every_shape_what_the_node_has_decided() {
    if !kernel_available() {
        return;
    }
    let rules = RULES.replace("proto udp port 23", "");
    for hook in [HookChoice::Tcx, HookChoice::Xdp] {
        let lab = lab_on(hook, true, &format!("{rules}{LEGACY}"));
        let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
        for v6 in BOTH_VERSIONS {
            let wire = PacketSocket::open(&lab.router, "to_b").unwrap();
            let receiver = udp_socket(&lab.b.namespace, address(2, 2, v6), READ);
            let to = SocketAddr::new(address(2, 2, v6), READ);
            sender(&lab, v6).send_to(&datagram(), to).unwrap();
            assert!(receive_within(PATIENCE, &receiver, 1) == [datagram()], "{hook:?} v6 {v6}");
            let is_last = |frame: &Frame| frame.bytes.ends_with(&datagram()[3900..]);
            let last = wire.capture(PATIENCE, is_last).unwrap().unwrap().bytes;
            for mut frame in odd_frames(&last, v6) {
                frame[..6].copy_from_slice(&lab.b.namespace.mac("eth0").unwrap());
                wire.send(&frame).unwrap();
            }
        }
        let events = recording.replay(GOVC, &[]);
        let count = |why| events.iter().filter(|event| event.reason == why).count();
        let why = [reason::FRAGMENT, reason::OPTIONS, reason::BAD_MAC, reason::RULE];
        // Eight labelled fragments, and what the neighbour may.
        assert_eq!(why.map(count), [6, 3, 4, 8 + 5 + 6], "{hook:?}");
    }
}
