//! What becomes of denied packets: their senders are told, or they go into quarantine.

use std::{
    io::{self, Read as _, Write as _},
    iter,
    net::{IpAddr, SocketAddr, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use govc_abi::{
    event::{Event, hook},
    limits::ANSWER_RATE,
    reason,
};
use govc_loader::{
    attach::HookChoice,
    authority::{Authority, Held},
    error::LoadError,
    keyring::slot_now,
    status,
};
use govc_netlab::{Frame, Namespace, Offloads, PacketSocket, veth};
use govc_tests::{
    compile,
    frame::{Spec, Transport},
    kernel::{Hook, Kernel, stay_on_one_cpu, sure_slot},
    kernel_available,
    lab::{BOTH_VERSIONS, Lab, READ, RULES, TELNET, UNNAMED, api, ledger, replayed},
    ledger::{SYN, spec},
    node::{How, PATIENCE, address, drain, image, tcp_listener, udp_socket, wait_until, workload},
    policies::VOCABULARY,
    reference,
    replay::Recording,
};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// As long as nobody who was told would wait.
const SOON: Duration = Duration::from_millis(900);
/// What a sender learns of an ICMP error, on Linux.
const EACCES: i32 = 13;
const EHOSTUNREACH: i32 = 113;

/// The rules of the lab, where B tells those whom it denies.
fn telling() -> govc_image::Image {
    let rules = RULES.replace("deny telnet { ", "deny telnet { reject  ");
    image(&[&workload("acme.payments.ledger", "read"), &rules])
}

/// How long a connection took to fail, and how it did.
fn connect(from: &Namespace, to: SocketAddr) -> (io::ErrorKind, Duration) {
    from.run(|| {
        let started = Instant::now();
        let error = TcpStream::connect_timeout(&to, SOON).expect_err("it is denied");
        (error.kind(), started.elapsed())
    })
}

/// What a sender of a datagram is told.
fn send(from: &Namespace, to: SocketAddr) -> Option<i32> {
    from.run(|| {
        let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let socket = UdpSocket::bind(any).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.connect(to).unwrap();
        socket.send(b"is anybody there").unwrap();
        let error = socket.recv(&mut [0; 16]).expect_err("nobody answers");
        error.raw_os_error().filter(|_| error.kind() != io::ErrorKind::WouldBlock)
    })
}

#[test]
fn who_is_rejected_is_told_at_once() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let recordings = [(&lab.a, "to_a"), (&lab.b, "to_b")]
        .map(|(node, wire)| Recording::start(node, "eth0", (&lab.router, wire)));
    let at = |v6, port| SocketAddr::new(address(2, 2, v6), port);
    let a = &lab.a.namespace;
    // Without it, they wait.
    for v6 in BOTH_VERSIONS {
        assert_eq!(connect(a, at(v6, TELNET)).0, io::ErrorKind::TimedOut);
        assert_eq!(send(a, at(v6, TELNET)), None);
    }
    lab.b.apply(&telling(), &[]);
    for offloads in [true, false] {
        let none = Offloads { tso: false, gso: false, gro: false, tx_checksum: false };
        lab.set_offloads(|known| if offloads { known } else { none });
        for v6 in BOTH_VERSIONS {
            let (kind, took) = connect(a, at(v6, TELNET));
            assert_eq!(kind, io::ErrorKind::ConnectionRefused, "v6 {v6} {took:?}");
            let unreachable = if v6 { EACCES } else { EHOSTUNREACH };
            assert_eq!(send(a, at(v6, TELNET)), Some(unreachable), "v6 {v6}");
            // Those whom no rule names are not told.
            assert_eq!(connect(a, at(v6, UNNAMED)).0, io::ErrorKind::TimedOut);
            assert_eq!(send(a, at(v6, UNNAMED)), None);
        }
    }
    assert_eq!(lab.b.count("egress", "reply"), 8);
    assert_eq!(lab.a.count("ingress", "reply"), 8);
    assert_eq!(lab.a.count("ingress", "label_missing"), 0);
    for recording in recordings {
        recording.replay(GOVC, &[]);
    }
}

#[test]
fn a_node_that_stamps_nothing_still_speaks_for_its_workload() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let recordings = lab.record();
    let silent = workload("acme.payments.ledger", "read")
        .replace("stamp on lan", "stamp on lan when cgroup \"/nobody\"");
    assert!(silent.contains("nobody"));
    let rules = RULES.replace("deny telnet { ", "deny telnet { reject  ");
    lab.b.apply(&image(&[&silent, &rules]), &[]);
    for v6 in BOTH_VERSIONS {
        let to = SocketAddr::new(address(2, 2, v6), TELNET);
        assert_eq!(connect(&lab.a.namespace, to).0, io::ErrorKind::ConnectionRefused, "v6 {v6}");
        let unreachable = if v6 { EACCES } else { EHOSTUNREACH };
        assert_eq!(send(&lab.a.namespace, to), Some(unreachable), "v6 {v6}");
    }
    assert_eq!(lab.a.count("ingress", "reply"), 4);
    replayed(recordings, GOVC);
}

#[test]
fn what_a_node_says_itself_ends_with_the_last_of_its_grants() {
    if !kernel_available() {
        return;
    }
    let signed = |stamps| Authority {
        domain: 7,
        stamps,
        transit: Vec::new(),
        revoked: Vec::new(),
        abroad: Vec::new(),
        not_before: slot_now() * 2 - 100,
        not_after: u64::MAX,
    };
    let held = |serial, not_after| Held { serial, not_after };
    let lab = Lab::governed();
    let authority = signed(vec![(0, held(11, u64::MAX))]);
    let how = How { authority: Some(&authority), ..How::default() };
    lab.a.try_apply(&api(), &[], how).unwrap();
    // Two stamp rules for nobody who sends anything, under two grants.
    let silent = workload("acme.payments.ledger", "read")
        .replace("stamp on lan", "stamp on lan when cgroup \"/nobody\"");
    let other = "stamp on lan when cgroup \"/neither\" { subject acme.payments.ledger  operation ledger.write }\n";
    let rules = RULES.replace("deny telnet { ", "deny telnet { reject  ");
    let silent = image(&[&silent, other, &rules]);
    let told = |v6| {
        let to = SocketAddr::new(address(2, 2, v6), TELNET);
        connect(&lab.a.namespace, to).0 == io::ErrorKind::ConnectionRefused
    };
    let ended = || lab.b.count("egress", "grant_expired");
    let ends = slot_now() * 2 + 5;
    for (last, is_told) in [(u64::MAX, true), (ends, false)] {
        let authority = signed(vec![(0, held(900, ends)), (1, held(901, last))]);
        let how = How { authority: Some(&authority), ..How::default() };
        lab.b.try_apply(&silent, &[], how).unwrap();
        // For hooks as well, whose clock moves by ticks.
        while sure_slot().is_none_or(|slot| slot * 2 <= ends) {
            thread::sleep(Duration::from_millis(50));
        }
        let before = ended();
        for v6 in BOTH_VERSIONS {
            assert_eq!(told(v6), is_told, "v6 {v6} {:?}", lab.b.reasons("egress"));
        }
        assert_eq!(ended() == before, is_told, "{:?}", lab.b.reasons("egress"));
    }
}

#[test]
fn a_connection_that_becomes_forbidden_is_reset() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let recordings = lab.record();
    for v6 in BOTH_VERSIONS {
        lab.b.apply(&ledger(), &[]);
        let to = SocketAddr::new(address(2, 2, v6), READ);
        let listener = tcp_listener(&lab.b.namespace, to);
        let mut stream = lab.a.namespace.run(|| TcpStream::connect(to).unwrap());
        let (mut served, _) = listener.accept().unwrap();
        stream.write_all(b"before").unwrap();
        served.read_exact(&mut [0; 6]).unwrap();
        let rules = RULES.replace("permit read {", "deny read { reject");
        lab.b.apply(&image(&[&workload("acme.payments.ledger", "read"), &rules]), &[]);
        // Who is not told waits until this, and fails otherwise.
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let bytes = vec![7; 1 << 16];
        let error = loop {
            if let Err(error) = stream.write_all(&bytes) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "v6 {v6}");
    }
    replayed(recordings, GOVC);
}

#[test]
fn a_local_sender_is_told_too() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let out = "policy out {\n    on egress\n    deny telnet { proto tcp port 23  proto udp port 23  reject }\n    permit others { }\n}\n";
    lab.a.apply(&image(&[&workload("acme.payments.api", "read"), RULES, out]), &[]);
    for v6 in BOTH_VERSIONS {
        let to = SocketAddr::new(address(2, 2, v6), TELNET);
        assert_eq!(connect(&lab.a.namespace, to).0, io::ErrorKind::ConnectionRefused, "v6 {v6}");
        let unreachable = if v6 { EACCES } else { EHOSTUNREACH };
        assert_eq!(send(&lab.a.namespace, to), Some(unreachable), "v6 {v6}");
    }
    // It never left.
    assert_eq!(lab.b.decided("ledger.telnet"), 0);
    assert_eq!(lab.a.decided("out.telnet"), 4);
}

#[test]
fn a_rejected_flow_carries_nothing_but_the_rejection() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    lab.b.apply(&telling(), &[]);
    let recordings = lab.record();
    // B's policy says nothing about what leaves, so its own node would let it pass; A knows of no
    // flow that such a datagram answers.
    let (here, there) = (address(2, 2, false), address(1, 2, false));
    let asker = udp_socket(&lab.a.namespace, there, 4000);
    let server = udp_socket(&lab.b.namespace, here, TELNET);
    let out = "policy out {\n    on egress\n    deny all { }\n}\n";
    let rules = RULES.replace("deny telnet { ", "deny telnet { reject  ");
    lab.b.apply(&image(&[&workload("acme.payments.ledger", "read"), &rules, out]), &[]);
    asker.send_to(b"question", SocketAddr::new(here, TELNET)).unwrap();
    assert!(wait_until(|| lab.b.decided("ledger.telnet") == 1));
    assert!(wait_until(|| lab.b.count("egress", "reply") == 1));
    server.send_to(b"data", SocketAddr::new(there, 4000)).unwrap();
    assert!(wait_until(|| lab.b.decided("out.all") == 1));
    assert_eq!(lab.b.count("egress", "reply"), 1);
    replayed(recordings, GOVC);
}

#[test]
fn packets_in_quarantine_arrive_there_as_they_came() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let recordings = lab.record();
    let ward = Namespace::create("ward").unwrap();
    veth(&lab.b.namespace, "trap0", &ward, "eth0", None).unwrap();
    let zone = "zone decoys = interface \"trap*\"\n";
    let rules = RULES.replace("deny telnet { ", "deny telnet { quarantine decoys  ");
    let policy = image(&[&workload("acme.payments.ledger", "read"), zone, &rules]);
    let applied = lab.b.apply(&policy, &[]);
    assert_eq!(applied.quarantine[0].interface.as_deref(), Some("trap0"));
    for v6 in BOTH_VERSIONS {
        let tap = PacketSocket::open_incoming(&ward, "eth0").unwrap();
        let to = SocketAddr::new(address(2, 2, v6), TELNET);
        let server = udp_socket(&lab.b.namespace, to.ip(), TELNET);
        let sender = udp_socket(&lab.a.namespace, address(1, 2, v6), 4000);
        sender.send_to(b"suspicious", to).unwrap();
        let whole = |frame: &Frame| frame.bytes.windows(10).any(|part| part == b"suspicious");
        let caught = tap.capture(PATIENCE, whole).unwrap().expect("it goes into quarantine");
        assert!(reference::parse(&caught.bytes).unwrap().label.is_some(), "{caught:02x?}");
        assert!(drain(&server).is_empty());
    }
    assert_eq!(lab.b.decided("ledger.telnet"), 2);

    // What is enforced on cannot be a ward, and a zone without interface keeps what it gets.
    let error = lab.b.try_apply(&policy, &["trap0"], Default::default()).unwrap_err();
    assert!(matches!(error, LoadError::QuarantineEnforced { .. }), "{error}");
    let nowhere = image(&[
        &workload("acme.payments.ledger", "read"),
        &zone.replace("trap*", "nowhere0"),
        &rules,
    ]);
    assert_eq!(lab.b.apply(&nowhere, &[]).quarantine[0].interface, None);
    let to = SocketAddr::new(address(2, 2, false), TELNET);
    assert_eq!(send(&lab.a.namespace, to), None);
    // It is the same rule, and goes on counting.
    assert_eq!(lab.b.decided("ledger.telnet"), 3);
    replayed(recordings, GOVC);
}

/// Rules that tell bare and labelled senders that they are denied.
const REJECTING: &str = "package acme.k\nuse acme.vocabulary\n\
    zone lan = interface \"eth0\", \"lo\"\n\
    legacy from 0.0.0.0/0, ::/0 on lan { subject acme.guest  max level public }\n\
    policy p { on ingress  deny all { reject } }\n";

fn rejecting() -> Kernel {
    let compiled = compile(&[("p.gov", REJECTING), ("vocabulary.gov", VOCABULARY)]);
    let kernel = Kernel::new(&compiled.image);
    stay_on_one_cpu();
    kernel
}

/// Whether a frame has become its answer: an ICMP error, or a reset.
fn is_answered(kernel: &mut Kernel, frame: &[u8]) -> bool {
    let answer = kernel.ask(Hook::Ingress, frame);
    assert!(!answer.permit, "{answer:?}");
    answer.frame != frame
}

#[test]
fn what_comes_from_no_host_or_went_to_many_is_not_answered() {
    if !kernel_available() {
        return;
    }
    let mut kernel = rejecting();
    for transport in [SYN, Transport::Udp] {
        for v6 in BOTH_VERSIONS {
            let frame = spec(v6, transport).frame();
            assert!(is_answered(&mut kernel, &frame), "v6 {v6} {transport:?}");
            // Broadcast and multicast on the link, to an address that may be a network's broadcast, and from there.
            for (at, mac) in [(0, [0xff; 6]), (0, [1, 0, 0x5e, 0, 0, 1]), (6, [0xff; 6])] {
                let mut frame = frame.clone();
                frame[at..at + 6].copy_from_slice(&mac);
                assert!(!is_answered(&mut kernel, &frame), "v6 {v6} {transport:?} {mac:02x?}");
            }
        }
        let none = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"];
        for source in none.into_iter().chain(["::", "::1", "ff02::1"]) {
            let source: IpAddr = source.parse().unwrap();
            let of = spec(source.is_ipv6(), transport);
            let frame = Spec { source: SocketAddr::new(source, 4000), ..of }.frame();
            assert!(!is_answered(&mut kernel, &frame), "{source} {transport:?}");
        }
    }
}

#[test]
fn a_flood_of_rejected_packets_is_answered_no_faster_than_it_may() {
    const FLOOD: u64 = 10_000;
    if !kernel_available() {
        return;
    }
    let mut kernel = rejecting();
    kernel.silence();
    let frames = vec![spec(false, Transport::Udp).frame(); FLOOD as usize];
    let started = Instant::now();
    let withheld = || status::answers_withheld(&kernel.place).unwrap();
    assert_eq!(kernel.passing(Hook::Ingress, &frames), 0);
    let answered = FLOOD - withheld();
    // A tenth of a second's at a time.
    let tenths = started.elapsed().as_millis() as u64 / 100 + 2;
    assert!(answered <= tenths * ANSWER_RATE / 10, "{answered} in {tenths} tenths");
    assert!(answered >= ANSWER_RATE / 10);
    // It goes on when there was time.
    std::thread::sleep(Duration::from_millis(150));
    let frame = spec(true, SYN).frame();
    assert!(is_answered(&mut kernel, &frame));
}

#[test]
fn what_fills_a_frame_up_is_not_acknowledged() {
    if !kernel_available() {
        return;
    }
    let mut kernel = rejecting();
    for v6 in BOTH_VERSIONS {
        for payload in [0, 3] {
            let of = Spec { payload, ..spec(v6, SYN) };
            for filling in [0, 6, 40] {
                let frame = [of.frame(), vec![0; filling]].concat();
                let answer = kernel.ask(Hook::Ingress, &frame).frame;
                let tcp = 14 + if v6 { 40 } else { 20 };
                assert_eq!(answer.len(), tcp + 20, "v6 {v6} {filling}");
                let acknowledged = answer[tcp + 8..tcp + 12].try_into().unwrap();
                let next = 77 + 1 + payload as u32;
                assert_eq!(u32::from_be_bytes(acknowledged), next, "v6 {v6} {filling}");
            }
        }
    }
}

#[test]
fn an_answer_of_a_node_has_come_in_nowhere() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    lab.b.apply(&telling(), &[]);
    for v6 in BOTH_VERSIONS {
        let mut events = lab.b.report_everything();
        let to = SocketAddr::new(address(2, 2, v6), TELNET);
        assert_eq!(connect(&lab.a.namespace, to).0, io::ErrorKind::ConnectionRefused);
        let is_answer = |event: &Event| event.hook == hook::EGRESS && event.protocol == 6;
        let told = iter::from_fn(|| events.next(SOON).unwrap()).find(is_answer).unwrap();
        assert_eq!((told.reason, told.from_zone, told.to_zone), (reason::REPLY, 0, 1), "v6 {v6}");
    }
}

#[test]
fn xdp_does_not_answer() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let how = How { hook: HookChoice::Xdp, ..Default::default() };
    let error = lab.b.try_apply(&telling(), &["eth0"], how).unwrap_err();
    assert!(matches!(error, LoadError::AnswersOnXdp { .. }), "{error}");
    assert!(!lab.b.place.exists());
    lab.a.apply(&api(), &["eth0"]);
}
