//! What packets may not pretend to be: replies, packets of the other IP version, talk between neighbours,
//! tunnels of this node's, packets without an error in their header.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use etherparse::PacketBuilder;
use govc_abi::{attribute::shape, label::FLAG_REPLY, reason};
use govc_loader::status;
use govc_netlab::{Namespace, PacketSocket};
use govc_tests::{
    Compiled, compile,
    frame::{self, ETH, Spec, Transport},
    kernel::{Hook, Kernel, stay_on_one_cpu},
    kernel_available,
    lab::{BOTH_VERSIONS, Lab},
    ledger::{ACK, LEDGER, SYN, api_label, spec},
    node::{Node, PATIENCE, address, image, wait_until},
    policies::VOCABULARY,
    reference,
};

fn compiled(rules: &str) -> Compiled {
    let text = format!("{LEDGER}{rules}");
    compile(&[("ledger.gov", &text), ("vocabulary.gov", VOCABULARY)])
}

/// The ledger stamps too, and may ask the API on port 8443.
const BOTH_WAYS: &str = "stamp on lan { subject acme.payments.ledger }\n\
    policy q { on egress permit ask { proto tcp port 8443  proto udp port 8443, 6081 } }\n";

const SYN_ACK: Transport = Transport::Tcp { syn: true, ack: true, sequence: 5 };

fn turned(of: Spec) -> Spec {
    Spec { source: of.destination, destination: of.source, ..of }
}

/// What the ledger asks the API.
fn asks(v6: bool, port: u16, transport: Transport) -> Spec {
    let asks = turned(spec(v6, transport));
    let to = SocketAddr::new(asks.destination.ip(), port);
    Spec { source: SocketAddr::new(asks.source.ip(), 0xc001), destination: to, ..asks }
}

#[test]
fn a_connection_back_is_no_reply() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled(BOTH_WAYS);
    let mut kernel = Kernel::new(&compiled.image);
    for v6 in BOTH_VERSIONS {
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let reply = label.with_flags(FLAG_REPLY);
        // A sequence number may be 0 too.
        let openers = [0, 5].map(|sequence| Transport::Tcp { syn: true, ack: false, sequence });
        let refused = |kernel: &mut Kernel, hook, frame: &[u8]| {
            let answer = kernel.ask(hook, frame);
            let reason = answer.event.expect("an event").reason;
            assert!(!answer.permit && reason == reason::NO_RULE, "v6 {v6} {hook:?} {answer:?}");
        };
        // The API connects to the ledger, whose node sees the ledger connect back.
        let of = |transport| spec(v6, transport);
        assert!(kernel.ask(Hook::Ingress, &of(SYN).labelled(&label, verifier.key)).permit);
        assert!(kernel.ask(Hook::Egress, &turned(of(SYN_ACK)).frame()).permit);
        assert!(kernel.ask(Hook::Ingress, &of(ACK).labelled(&label, verifier.key)).permit);
        for opener in openers {
            refused(&mut kernel, Hook::Egress, &turned(of(opener)).frame());
        }
        assert!(kernel.ask(Hook::Egress, &turned(of(ACK)).frame()).permit, "v6 {v6}");
        // The ledger connects to the API, which connects back and says that it answers.
        let of = |transport| asks(v6, 8443, transport);
        let arrives = |of: Spec| turned(of).labelled(&reply, verifier.key);
        assert!(kernel.ask(Hook::Egress, &of(SYN).frame()).permit);
        assert!(kernel.ask(Hook::Ingress, &arrives(of(SYN_ACK))).permit);
        assert!(kernel.ask(Hook::Egress, &of(ACK).frame()).permit);
        for opener in openers {
            refused(&mut kernel, Hook::Ingress, &arrives(of(opener)));
            refused(&mut kernel, Hook::Xdp, &arrives(of(opener)));
        }
        assert!(kernel.ask(Hook::Ingress, &arrives(of(ACK))).permit, "v6 {v6}");
    }
}

/// The same packet over IPv6, between the same addresses as they are written there.
fn mapped(of: Spec) -> Spec {
    let map = |at: SocketAddr| match at.ip() {
        IpAddr::V4(v4) => SocketAddr::new(v4.to_ipv6_mapped().into(), at.port()),
        IpAddr::V6(_) => at,
    };
    Spec { source: map(of.source), destination: map(of.destination), ..of }
}

#[test]
fn ipv6_between_addresses_of_ipv4_is_malformed() {
    if !kernel_available() {
        return;
    }
    let legacy = "legacy from 10.1.0.0/24 on lan { subject acme.guest  max level public }\n\
        policy old { on ingress permit old { from legacy  proto udp port 443 } }\n";
    let compiled = compiled(legacy);
    let mut kernel = Kernel::new(&compiled.image);
    for transport in [ACK, Transport::Udp] {
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let v4 = spec(false, transport);
        let half = Spec { destination: "[2001:db8::2]:443".parse().unwrap(), ..mapped(v4) };
        for other in [mapped(v4), half, turned(half)] {
            for frame in [other.frame(), other.labelled(&label, verifier.key)] {
                assert!(reference::parse(&frame).is_none(), "{other:?}");
                for hook in [Hook::Ingress, Hook::Xdp, Hook::Egress] {
                    let answer = kernel.ask(hook, &frame);
                    let reason = answer.event.expect("an event").reason;
                    assert!(!answer.permit, "{hook:?} {other:?}");
                    assert_eq!(reason, reason::MALFORMED, "{hook:?} {other:?}");
                }
            }
        }
        assert!(kernel.ask(Hook::Ingress, &v4.labelled(&label, verifier.key)).permit);
    }
    assert!(kernel.ask(Hook::Ingress, &spec(false, Transport::Udp).frame()).permit);
}

#[test]
fn ipv6_between_addresses_of_ipv4_is_not_remembered_as_ipv4() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled("");
    let mut kernel = Kernel::new(&compiled.image);
    stay_on_one_cpu();
    kernel.silence();
    for hook in [Hook::Ingress, Hook::Xdp] {
        for transport in [ACK, Transport::Udp] {
            let verifier = kernel.verifier(7);
            let label = api_label(&compiled, &verifier, 4);
            let v4 = spec(false, transport).labelled(&label, verifier.key);
            let v6 = mapped(spec(false, transport)).labelled(&label, verifier.key);
            // The same label with the same MAC.
            assert_eq!(frame::label_of(&v4), frame::label_of(&v6));
            for _ in 0..2 {
                assert!(kernel.ask(hook, &v4).permit, "{hook:?} {transport:?}");
                assert!(!kernel.ask(hook, &v6).permit, "{hook:?} {transport:?}");
            }
        }
    }
}

#[test]
fn events_of_refused_packets_name_their_own_zones() {
    if !kernel_available() {
        return;
    }
    let text = LEDGER.replace("\"eth0\", \"lo\"", "\"eth0\"  other = interface \"lo\"");
    let text = format!("{text}{BOTH_WAYS}deliver on other {{ object acme.payments.ledger }}\n");
    let compiled = compile(&[("ledger.gov", &text), ("vocabulary.gov", VOCABULARY)]);
    let mut kernel = Kernel::new(&compiled.image);
    stay_on_one_cpu();
    let (lan, other) = (1, 2);
    let verifier = kernel.verifier(7);
    let label = api_label(&compiled, &verifier, 4);
    let good = spec(false, Transport::Udp).labelled(&label, verifier.key);
    let mut forged = good.clone();
    forged[frame::body_at(&good) + 20] ^= 1;
    let mut malformed = good.clone();
    malformed[ETH] = 0x6d;
    let mut arp = good.clone();
    arp[12..14].copy_from_slice(&[0x08, 0x06]);
    let refused = [
        (&forged, reason::BAD_MAC, reason::LABEL_FORGED),
        (&malformed, reason::MALFORMED, reason::MALFORMED),
        (&arp, reason::LINK_CONTROL, reason::LINK_CONTROL),
    ];
    for (frame, arriving, leaving) in refused {
        kernel.at("eth0");
        assert!(kernel.ask(Hook::Ingress, &good).permit);
        kernel.at("lo");
        let told = kernel.ask(Hook::Ingress, frame).event.expect("an event");
        assert_eq!((told.reason, told.from_zone, told.to_zone), (arriving, other, 0));
        kernel.at("eth0");
        let told = kernel.ask(Hook::Egress, frame).event.expect("an event");
        assert_eq!((told.reason, told.from_zone, told.to_zone), (leaving, 0, lan));
    }
}

#[test]
fn a_tunnel_of_a_workload_does_not_leave_as_what_is_remembered() {
    if !kernel_available() {
        return;
    }
    let tunnel = "carriage tunnel to 10.99.0.0/24 on lan\n";
    let compiled = compiled(&format!("{BOTH_WAYS}{tunnel}"));
    let mut kernel = Kernel::new(&compiled.image);
    stay_on_one_cpu();
    kernel.silence();
    for v6 in BOTH_VERSIONS {
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let of = asks(v6, 6081, Transport::Udp);
        // What looks like no tunnel of ours is an ordinary flow, of which both ends speak.
        assert!(kernel.ask(Hook::Egress, &of.frame()).permit);
        let reply = turned(of).labelled(&label.with_flags(FLAG_REPLY), verifier.key);
        assert!(kernel.ask(Hook::Ingress, &reply).permit);
        let built = Spec { source: (of.source.ip(), 4000).into(), ..of };
        let built = built.tunnelled(&label, verifier.key);
        let before = kernel.counted("egress", "label_forged");
        for _ in 0..3 {
            assert!(kernel.ask(Hook::Egress, &of.frame()).permit, "v6 {v6}");
            assert!(!kernel.ask(Hook::Egress, &built).permit, "v6 {v6}");
        }
        assert_eq!(kernel.counted("egress", "label_forged"), before + 3, "v6 {v6}");
    }
}

/// Whether the checksum of a frame's IPv4 header is right.
fn is_sound(frame: &[u8]) -> bool {
    let mut right = frame.to_vec();
    frame::fix_checksum(&mut right);
    right == frame
}

#[test]
fn what_is_wrong_with_a_header_stays_wrong() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled("carriage tunnel to 10.99.0.0/24 on lan\n");
    let mut kernel = Kernel::new(&compiled.image);
    stay_on_one_cpu();
    kernel.silence();
    for hook in [Hook::Ingress, Hook::Xdp] {
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let good = spec(false, Transport::Udp).labelled(&label, verifier.key);
        // Type of service, identification, hops, the checksum itself.
        for at in [1, 4, 5, 8, 10, 11] {
            for bit in 0..8 {
                let mut frame = good.clone();
                frame[ETH + at] ^= 1 << bit;
                for memo in [false, true] {
                    status::use_memo(&kernel.place, memo).unwrap();
                    let answer = kernel.ask(hook, &frame);
                    let is_wrong = !answer.permit || !is_sound(&answer.frame);
                    assert!(is_wrong, "{hook:?} byte {at} bit {bit} memo {memo}");
                }
            }
        }
        let answer = kernel.ask(hook, &good);
        assert!(answer.permit && is_sound(&answer.frame), "{hook:?}");
    }
    let verifier = kernel.verifier(7);
    let label = api_label(&compiled, &verifier, 4);
    let good = spec(false, Transport::Udp).tunnelled(&label, verifier.key);
    assert!(kernel.ask(Hook::Ingress, &good).permit, "positive control");
    for at in [1, 4, 8, 10] {
        let mut frame = good.clone();
        frame[ETH + at] ^= 4;
        assert!(!kernel.ask(Hook::Ingress, &frame).permit, "byte {at}");
    }
}

#[test]
fn payload_is_not_taken_for_an_option() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled(BOTH_WAYS);
    let mut kernel = Kernel::new(&compiled.image);
    for v6 in BOTH_VERSIONS {
        let tcp = ETH + if v6 { 40 } else { 20 };
        let mut frame = asks(v6, 8443, SYN).frame();
        frame[tcp + 20..tcp + 24].copy_from_slice(&[2, 4, 0xff, 0xff]);
        for (words, clamped) in [(5, false), (6, true)] {
            frame[tcp + 12] = words << 4;
            let answer = kernel.ask(Hook::Egress, &frame);
            assert!(answer.permit, "v6 {v6} {answer:?}");
            let left = &answer.frame[tcp + 32..];
            assert_eq!(left[20..24] != [2, 4, 0xff, 0xff], clamped, "v6 {v6} {words}");
            assert_eq!(left[..20] != frame[tcp..tcp + 20], clamped, "v6 {v6} {words}");
            assert_eq!(left[24..], frame[tcp + 24..], "v6 {v6} {words}");
        }
    }
}

#[test]
fn a_tunnel_whose_header_is_out_of_sight_does_not_pass() {
    if !kernel_available() {
        return;
    }
    let text = "package acme.k\nuse acme.vocabulary\n\
        zone lan = interface \"eth0\", \"lo\"\n\
        legacy from 2001:db8::/32 on lan { subject acme.guest  max level public }\n\
        carriage tunnel to 10.99.0.0/24 on lan\n\
        policy p { on ingress permit old { from legacy  proto udp  fragments  options } }\n";
    let compiled = compile(&[("p.gov", text), ("vocabulary.gov", VOCABULARY)]);
    let mut kernel = Kernel::new(&compiled.image);
    let verifier = kernel.verifier(7);
    let datagram = spec(true, Transport::Udp).frame();
    // Before the header of the fragment, as many bytes as are looked at, but for so many times eight.
    for (units, first, passes) in
        [(25, true, true), (26, true, false), (26, false, true), (24, true, true)]
    {
        let cut = frame::fragment(&datagram, 7, if first { 0 } else { 9 }, true);
        let frame = frame::with_options(&cut, 60, units);
        let wanted = reference::decide_ingress(&compiled.policy, &frame, &verifier);
        assert_eq!(wanted.is_some_and(|decision| decision.permit), passes, "{units} {first}");
        let answer = kernel.ask(Hook::Ingress, &frame);
        assert_eq!(answer.permit, passes, "{units} {first} {answer:?}");
        let shown = answer.event.expect("an event");
        assert_eq!(u32::from(shown.flags >> govc_abi::event::flag::SHAPE_SHIFT), shape::ALL);
    }
}

/// A report of a multicast listener, with this many words of options.
fn igmp(options: &[u8]) -> Vec<u8> {
    let source = SocketAddr::new(address(1, 2, false), 0);
    let destination = "224.0.0.22:0".parse().unwrap();
    let of = Spec { source, destination, transport: Transport::Other(2), payload: 0 };
    let mut frame = of.frame();
    frame[ETH + 8] = 1;
    frame.splice(ETH + 20..ETH + 20, options.iter().copied());
    frame[ETH] += (options.len() / 4) as u8;
    frame[ETH + 3] += options.len() as u8;
    frame::fix_checksum(&mut frame);
    frame
}

#[test]
fn reports_of_listeners_carry_no_labels() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled("");
    let mut kernel = Kernel::new(&compiled.image);
    let verifier = kernel.verifier(7);
    let body = api_label(&compiled, &verifier, 4).encode(0);
    let written = [&[1, 1, 0x9e, 30], &body[..]].concat();
    let behind = [&[0x94, 4, 0, 0], &written[..]].concat();
    for hook in [Hook::Ingress, Hook::Xdp, Hook::Egress] {
        for options in [&[][..], &[0x94, 4, 0, 0]] {
            let answer = kernel.ask(hook, &igmp(options));
            assert!(answer.permit, "{hook:?} {answer:?}");
            assert_eq!(answer.event.expect("an event").reason, reason::LINK_CONTROL);
        }
        for options in [&written, &behind] {
            let answer = kernel.ask(hook, &igmp(options));
            assert!(!answer.permit, "{hook:?} {answer:?}");
        }
    }
}

/// Asks at the address of a neighbour whether it is still there.
fn probe((from, to): (&Namespace, &str), of: [IpAddr; 2], mac: [[u8; 6]; 2]) {
    let [IpAddr::V6(source), IpAddr::V6(target)] = of else { panic!("addresses of IPv6") };
    let mut asked = target.octets().to_vec();
    asked.extend([1, 1]);
    asked.extend(mac[0]);
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(mac[0], mac[1])
        .ipv6(source.octets(), target.octets(), 255)
        .icmpv6_raw(135, 0, [0; 4])
        .write(&mut frame, &asked)
        .unwrap();
    PacketSocket::open(from, to).unwrap().send(&frame).unwrap();
}

/// Whether a neighbour says that it is there.
fn is_advertised(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[0x86, 0xdd]) && frame.get(ETH + 40) == Some(&136)
}

#[test]
fn neighbours_are_asked_at_any_of_their_addresses_and_not_over_a_router() {
    if !kernel_available() {
        return;
    }
    let transit = "zone left = interface \"to_a\"  right = interface \"to_b\"\n\
        policy transit { on forward permit reads { from acme.payments.api  proto tcp port 5432 } }";
    let lab = Lab::governed();
    let router = Node::within(Namespace::clone(&lab.router), &lab.keys);
    router.apply(&image(&[transit]), &["to_a", "to_b"]);
    let mac = [("to_a", &lab.router), ("eth0", &lab.a.namespace), ("eth0", &lab.b.namespace)]
        .map(|(device, namespace)| namespace.mac(device).unwrap());
    let a = (&lab.a.namespace, "eth0");
    // The router at its own address, and a host.
    let wire = PacketSocket::open_incoming(a.0, "eth0").unwrap();
    probe(a, [address(1, 2, true), address(1, 1, true)], [mac[1], mac[0]]);
    let told = wire.capture(PATIENCE, |frame| is_advertised(&frame.bytes)).unwrap();
    assert!(told.is_some(), "{:?}", router.reasons("ingress"));
    let wire = PacketSocket::open_incoming(&lab.router, "to_b").unwrap();
    let to_b = lab.router.mac("to_b").unwrap();
    probe((&lab.router, "to_b"), [address(2, 1, true), address(2, 2, true)], [to_b, mac[2]]);
    let told = wire.capture(PATIENCE, |frame| is_advertised(&frame.bytes)).unwrap();
    assert!(told.is_some(), "{:?}", lab.b.reasons("ingress"));
    // Who is not on the link.
    let (missing, arrived) = (router.count("forward", "label_missing"), lab.b.reasons("ingress"));
    probe(a, [address(1, 2, true), address(2, 2, true)], [mac[1], mac[0]]);
    assert!(wait_until(|| router.count("forward", "label_missing") == missing + 1));
    std::thread::sleep(Duration::from_millis(50));
    let bare =
        |reasons: &std::collections::BTreeMap<&str, u64>| reasons.get("label_missing").copied();
    assert_eq!(bare(&lab.b.reasons("ingress")), bare(&arrived));
}

#[test]
fn sums_of_devices_hold_without_the_label() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled("carriage tunnel to 10.99.0.0/24 on lan\n");
    let kernel = Kernel::new(&compiled.image);
    for v6 in BOTH_VERSIONS {
        for transport in [SYN, ACK, Transport::Udp] {
            let verifier = kernel.verifier(7);
            let label = api_label(&compiled, &verifier, 4);
            let of = spec(v6, transport);
            let mut tunnelled = of.tunnelled(&label, verifier.key);
            // Hops that are left become those of the packet.
            tunnelled[ETH + if v6 { 7 } else { 8 }] = 9;
            frame::fix_if_v4(&mut tunnelled);
            for frame in [of.labelled(&label, verifier.key), tunnelled] {
                // Where the kernel compares nothing yet, there is nothing to see.
                if let Some(holds) = kernel.sum_holds(&frame) {
                    assert!(holds, "v6 {v6} {transport:?} {frame:02x?}");
                }
            }
        }
    }
}
