//! What a CPU remembers never says anything else than what it would compute.

use std::{collections::BTreeMap, net::SocketAddr, thread, time::Duration};

use govc_abi::{label::FLAG_REPLY, limits::OPENINGS_MAX, memory::MEMO_WAYS, names};
use govc_compiler::analysis::words;
use govc_loader::{keyring::slot_now, status};
use govc_tests::{
    Compiled, compile,
    frame::{self, Spec, Transport},
    kernel::{Answer, Hook, Kernel, stay_on_one_cpu, sure_slot},
    kernel_available,
    ledger::{self, ACK, LEDGER, SYN, api_label, spec},
    policies::{VOCABULARY, random_label, random_policy_at, random_spec},
    random::Random,
    reference::{self, Verifier},
    remembered::{Memory, ask_both, await_slot, counts},
};

fn ledger() -> (Compiled, Kernel) {
    quiet(ledger::compiled())
}

/// On one CPU, and without events, which remembered packets would be computed for.
fn quiet(compiled: Compiled) -> (Compiled, Kernel) {
    let kernel = Kernel::new(&compiled.image);
    stay_on_one_cpu();
    kernel.silence();
    (compiled, kernel)
}

/// A packet that is permitted and remembered, and the verifier of then.
fn remembered(
    compiled: &Compiled,
    kernel: &mut Kernel,
    (hook, v6, transport): (Hook, bool, Transport),
) -> (Vec<u8>, Verifier) {
    let verifier = kernel.verifier(7);
    let label = api_label(compiled, &verifier, 4);
    let frame = spec(v6, transport).labelled(&label, verifier.key);
    assert!(kernel.ask(hook, &frame).permit, "{hook:?} v6 {v6} {transport:?}");
    (frame, verifier)
}

/// Every hook with every kind of packet that is remembered.
fn cases() -> impl Iterator<Item = (Hook, bool, Transport)> {
    let hooks = [Hook::Ingress, Hook::Xdp].into_iter();
    let versions = hooks.flat_map(|hook| [(hook, false), (hook, true)]);
    versions.flat_map(|(hook, v6)| [(hook, v6, ACK), (hook, v6, Transport::Udp)])
}

#[test]
fn decisions_are_remembered() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = ledger();
    let memory = Memory::of(&kernel, names::map::MEMO);
    for (hook, v6, transport) in cases() {
        let (frame, _) = remembered(&compiled, &mut kernel, (hook, v6, transport));
        // Whoever can write into the memory decides: so it is asked.
        for permit in [false, true] {
            assert!(memory.decide(frame::label_of(&frame).1, permit));
            let answer = kernel.ask(hook, &frame);
            assert_eq!(answer.permit, permit, "{hook:?} v6 {v6} {transport:?}");
        }
    }
}

#[test]
fn no_bit_of_a_remembered_packet_can_be_changed_unnoticed() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = ledger();
    let mut permits = 0;
    for (hook, v6, transport) in cases() {
        let (good, verifier) = remembered(&compiled, &mut kernel, (hook, v6, transport));
        let headers = if v6 { 14 + 40 + 32 + 20 } else { 14 + 20 + 32 + 20 };
        for bit in 0..headers * 8 {
            let mut frame = good.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            let answer = ask_both(&mut kernel, hook, &frame);
            let wanted = reference::decide_ingress(&compiled.policy, &frame, &verifier);
            let allowed = wanted.is_some_and(|decision| decision.permit);
            assert!(!answer.permit || allowed, "{hook:?} v6 {v6} {transport:?} bit {bit}");
            permits += u32::from(answer.permit);
        }
        assert!(kernel.ask(hook, &good).permit, "{hook:?} {transport:?}");
    }
    // Addresses of the link, TTL and checksums may change.
    assert!(permits > 1000, "{permits}");
}

#[test]
fn truncated_packets_are_not_remembered_ones() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = ledger();
    for (hook, v6, transport) in cases() {
        let (good, _) = remembered(&compiled, &mut kernel, (hook, v6, transport));
        for len in 54..good.len() {
            let answer = ask_both(&mut kernel, hook, &good[..len]);
            assert!(!answer.permit, "{hook:?} v6 {v6} {transport:?} {len} bytes");
        }
    }
}

/// Datagrams whose decisions have their places among the same entries.
fn sharing(
    memory: &Memory,
    v6: bool,
    count: usize,
    labelled: impl Fn(&Spec) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    let mut sharing = BTreeMap::<u32, Vec<Vec<u8>>>::new();
    let from_port = |port| {
        let spec = spec(v6, Transport::Udp);
        labelled(&Spec { source: SocketAddr::new(spec.source.ip(), port), ..spec })
    };
    let found = (1024..=u16::MAX).map(from_port).find_map(|frame| {
        let set = memory.slot(0, frame::label_of(&frame).1) / MEMO_WAYS;
        let those = sharing.entry(set).or_default();
        those.push(frame);
        (those.len() == count).then(|| those.clone())
    });
    found.expect("60,000 packets in 16,384 sets")
}

#[test]
fn four_that_share_a_place_are_remembered_and_not_a_fifth() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = ledger();
    let memory = Memory::of(&kernel, names::map::MEMO);
    for (hook, v6) in [Hook::Ingress, Hook::Xdp].map(|hook| [(hook, false), (hook, true)]).concat()
    {
        // Nothing is remembered of what was made up before.
        kernel.apply(&compiled.image);
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let five = sharing(&memory, v6, 5, |spec| spec.labelled(&label, verifier.key));
        let (four, fifth) = (&five[..4], &five[4]);
        let deny = |frame: &[u8]| memory.decide(frame::label_of(frame).1, false);
        assert!(four.iter().all(|frame| kernel.ask(hook, frame).permit));
        assert!(four.iter().all(|frame| deny(frame)), "{hook:?} v6 {v6}");
        // Each is told by what it was, although they have moved.
        assert!(!four.iter().any(|frame| kernel.ask(hook, frame).permit), "{hook:?} v6 {v6}");
        // Another one takes the place of one of them, which is permitted again.
        assert!(kernel.ask(hook, fifth).permit);
        assert!(deny(fifth) && !kernel.ask(hook, fifth).permit);
        assert_eq!(four.iter().filter(|frame| deny(frame)).count(), 3, "{hook:?} v6 {v6}");
    }
}

#[test]
fn what_is_not_good_any_more_makes_room() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = ledger();
    let memory = Memory::of(&kernel, names::map::MEMO);
    let verifier = kernel.verifier(7);
    let label = api_label(&compiled, &verifier, 4);
    let nine = sharing(&memory, false, 9, |spec| spec.labelled(&label, verifier.key));
    let (four, others) = nine.split_at(4);
    assert!(four.iter().all(|frame| kernel.ask(Hook::Ingress, frame).permit));
    // Of another generation all are lost, and those of this one keep their places.
    kernel.apply(&compiled.image);
    for frame in &others[..4] {
        assert!(kernel.ask(Hook::Ingress, frame).permit);
    }
    let is_known = |frame: &Vec<u8>| memory.decide(frame::label_of(frame).1, true);
    assert!(others[..4].iter().all(is_known));
    assert!(!four.iter().any(is_known));
    assert!(kernel.ask(Hook::Ingress, &others[4]).permit);
    assert_eq!(others.iter().filter(|frame| is_known(frame)).count(), 4);
}

#[test]
fn what_nobody_asks_for_makes_room() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = ledger();
    let memory = Memory::of(&kernel, names::map::MEMO);
    for v6 in [false, true] {
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let eight = sharing(&memory, v6, 8, |spec| spec.labelled(&label, verifier.key));
        let is_known = |frame: &Vec<u8>| memory.decide(frame::label_of(frame).1, true);
        // All of them are good for as long; those that came last stay.
        assert!(eight.iter().all(|frame| kernel.ask(Hook::Ingress, frame).permit));
        assert!(eight[4..].iter().all(is_known), "v6 {v6}");
        assert!(!eight[..4].iter().any(is_known), "v6 {v6}");
        // Two that are asked for again are known after new ones have come.
        let [first, second] = [&eight[6], &eight[7]];
        for new in &eight[..2] {
            for known in [first, second] {
                assert!(kernel.ask(Hook::Ingress, known).permit);
            }
            assert!(kernel.ask(Hook::Ingress, new).permit);
        }
        assert!([first, second, &eight[1]].into_iter().all(is_known), "v6 {v6}");
    }
}

#[test]
fn a_remembered_label_grows_old() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = ledger();
    let verifier = kernel.verifier(7);
    let label = api_label(&compiled, &verifier, 0);
    let frames: Vec<_> = cases()
        .map(|(hook, v6, transport)| (hook, spec(v6, transport).labelled(&label, verifier.key)))
        .collect();
    let permits = |kernel: &mut Kernel| {
        frames.iter().filter(|(hook, frame)| kernel.ask(*hook, frame).permit).count()
    };
    assert_eq!([permits(&mut kernel), permits(&mut kernel)], [frames.len(); 2]);
    while slot_now() < verifier.slot + 2 {
        thread::sleep(Duration::from_millis(20));
    }
    thread::sleep(Duration::from_millis(50));
    assert_eq!(permits(&mut kernel), 0);
}

#[test]
fn a_key_that_is_gone_is_not_remembered() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = ledger();
    for (hook, v6, transport) in cases() {
        let (frame, _) = remembered(&compiled, &mut kernel, (hook, v6, transport));
        assert!(kernel.ask(hook, &frame).permit, "{hook:?} v6 {v6} {transport:?}");
        kernel.change_keys();
        assert!(!kernel.ask(hook, &frame).permit, "{hook:?} v6 {v6} {transport:?}");
    }
}

#[test]
fn a_policy_that_is_gone_is_not_remembered() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = ledger();
    let text = LEDGER.replace("permit read", "deny read");
    let other = compile(&[("ledger.gov", &text), ("vocabulary.gov", VOCABULARY)]);
    for (hook, v6, transport) in cases() {
        let (frame, _) = remembered(&compiled, &mut kernel, (hook, v6, transport));
        for (image, permit) in [(&other.image, false), (&compiled.image, true)] {
            kernel.apply(image);
            assert_eq!(kernel.ask(hook, &frame).permit, permit, "{hook:?} {transport:?}");
            assert_eq!(kernel.ask(hook, &frame).permit, permit, "{hook:?} {transport:?}");
        }
    }
}

#[test]
fn a_rule_that_ends_is_not_remembered() {
    if !kernel_available() {
        return;
    }
    let ending = |end: u32| {
        let until = format!("permit read {{ until \"{}\" ", words::moment(end));
        let text = LEDGER.replace("permit read {", &until)
            + "stamp on lan { subject acme.payments.ledger }\npolicy q { on egress deny it { } }\n";
        compile(&[("ledger.gov", &text), ("vocabulary.gov", VOCABULARY)])
    };
    let mut kernel = Kernel::new(&ending(u32::MAX - 1).image);
    stay_on_one_cpu();
    kernel.silence();
    let end = u32::try_from(slot_now()).unwrap() + 4;
    let compiled = ending(end);
    kernel.apply(&compiled.image);
    let mut frames: Vec<_> =
        cases().map(|case| (case.0, remembered(&compiled, &mut kernel, case).0)).collect();
    // Replies are let through by the rule that let their flow through.
    for v6 in [false, true] {
        let flow = spec(v6, ACK);
        let answer = Spec { source: flow.destination, destination: flow.source, ..flow };
        frames.push((Hook::Egress, answer.frame()));
    }
    let mut asked = [0, 0];
    while slot_now() < u64::from(end) + 2 || asked[0] <= 10 {
        let slot = sure_slot();
        let permits: Vec<bool> =
            frames.iter().map(|(hook, frame)| kernel.ask(*hook, frame).permit).collect();
        if let Some(slot) = slot
            && sure_slot() == Some(slot)
        {
            let in_time = slot < u64::from(end);
            assert_eq!(permits, vec![in_time; frames.len()], "{slot}, ends at {end}");
            asked[usize::from(in_time)] += 1;
        }
        thread::sleep(Duration::from_millis(30));
    }
    assert!(asked.iter().all(|count| *count > 10), "{asked:?}");
}

#[test]
fn openers_are_told_apart_by_their_sequence_numbers() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = ledger();
    let verifier = kernel.verifier(7);
    let label = api_label(&compiled, &verifier, 4);
    for hook in [Hook::Ingress, Hook::Xdp] {
        let good = spec(false, SYN).labelled(&label, verifier.key);
        assert!(kernel.ask(hook, &good).permit && kernel.ask(hook, &good).permit);
        let (_, mac) = frame::label_of(&good);
        let other = Transport::Tcp { syn: true, ack: false, sequence: 78 };
        for other in [other, ACK] {
            let frame = frame::insert(&spec(false, other).frame(), &label, mac);
            assert!(!kernel.ask(hook, &frame).permit, "{hook:?} {other:?}");
        }
    }
}

#[test]
fn random_packets_are_decided_and_counted_alike_from_memory() {
    if !kernel_available() {
        return;
    }
    stay_on_one_cpu();
    let (mut permits, mut denies) = (0, 0);
    for seed in 0..16 {
        let random = &mut Random::new(seed);
        let rules = *random.pick(&[1, 3, 10, 40]);
        let text = random_policy_at(random, rules, &["ingress"]);
        let compiled = compile(&[("random.gov", &text), ("vocabulary.gov", VOCABULARY)]);
        let mut kernel = Kernel::new(&compiled.image);
        kernel.silence();
        let verifier = kernel.verifier(7);
        let frames: Vec<Vec<u8>> = (0..120)
            .map(|packet| {
                let spec = random_spec(random, packet % 2 == 1);
                // Old and young labels alike, but none that grows too old meanwhile.
                let label = random_label(random, &compiled.policy, verifier.slot, verifier.epoch)
                    .with_life(8);
                spec.labelled(&label, verifier.key)
            })
            .collect();
        let mut run = |memo| {
            status::use_memo(&kernel.place, memo).unwrap();
            let before = counts(&kernel);
            let answers: Vec<(bool, Vec<u8>)> = frames
                .iter()
                .chain(&frames)
                .map(|frame| kernel.ask(Hook::Ingress, frame))
                .map(|answer| (answer.permit, answer.frame))
                .collect();
            let counted: Vec<u64> =
                counts(&kernel).iter().zip(before).map(|(now, before)| now - before).collect();
            (answers, counted)
        };
        let (computed, remembered) = (run(false), run(true));
        assert_eq!(computed, remembered, "seed {seed}\n{text}");
        permits += computed.0.iter().filter(|(permit, _)| *permit).count();
        denies += computed.0.iter().filter(|(permit, _)| !permit).count();
    }
    assert!(permits > 300 && denies > 300, "{permits} {denies}");
}

/// The API may be answered by the ledger, and the ledger may ask it.
const BOTH_WAYS: &str = "stamp on lan { subject acme.payments.ledger }\n\
    policy q { on egress permit ask { proto tcp port 8443  proto udp port 8443 } }\n";

fn both_ways(rules: &str) -> Compiled {
    let text = format!("{LEDGER}{rules}");
    compile(&[("ledger.gov", &text), ("vocabulary.gov", VOCABULARY)])
}

/// A packet that arrives and one that leaves, of the same connection.
struct Exchange {
    arrives: Vec<u8>,
    leaves: Vec<u8>,
}

/// Connections of both directions over both IP versions, which both ends speak in.
fn exchanges(compiled: &Compiled, kernel: &mut Kernel) -> Vec<Exchange> {
    let verifier = kernel.verifier(7);
    let label = api_label(compiled, &verifier, 4);
    let mut exchanges = Vec::new();
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let carried = |tcp| if udp { Transport::Udp } else { tcp };
        let answer = Transport::Tcp { syn: true, ack: true, sequence: 5 };
        let turned = |of: Spec| Spec { source: of.destination, destination: of.source, ..of };
        let arrives = |of: Spec, flags| of.labelled(&label.with_flags(flags), verifier.key);
        // The API asks the ledger.
        let of = |tcp| spec(v6, carried(tcp));
        assert!(kernel.ask(Hook::Ingress, &arrives(of(SYN), 0)).permit);
        assert!(kernel.ask(Hook::Egress, &turned(of(answer)).frame()).permit);
        assert!(kernel.ask(Hook::Ingress, &arrives(of(ACK), 0)).permit);
        exchanges.push(Exchange { arrives: arrives(of(ACK), 0), leaves: turned(of(ACK)).frame() });
        // The ledger asks the API.
        let of = |tcp| {
            let asks = turned(spec(v6, carried(tcp)));
            let destination = SocketAddr::new(asks.destination.ip(), 8443);
            Spec { source: SocketAddr::new(asks.source.ip(), 41_000), destination, ..asks }
        };
        assert!(kernel.ask(Hook::Egress, &of(SYN).frame()).permit);
        assert!(kernel.ask(Hook::Ingress, &arrives(turned(of(answer)), FLAG_REPLY)).permit);
        assert!(kernel.ask(Hook::Egress, &of(ACK).frame()).permit);
        exchanges.push(Exchange {
            arrives: arrives(turned(of(ACK)), FLAG_REPLY),
            leaves: of(ACK).frame(),
        });
    }
    exchanges
}

#[test]
fn labels_of_flows_are_remembered() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = quiet(both_ways(BOTH_WAYS));
    let memory = Memory::of(&kernel, names::map::STAMPED);
    for Exchange { leaves, .. } in exchanges(&compiled, &mut kernel) {
        await_slot();
        let answers: Vec<_> = (0..3).map(|_| kernel.ask(Hook::Egress, &leaves).frame).collect();
        assert!(answers.iter().all(|frame| *frame == answers[0]));
        let (label, mac) = frame::label_of(&answers[0]);
        assert_eq!(label.slot(), slot_now() as u16);
        // Whoever can write into the memory chooses the MAC: so it is asked.
        assert_eq!(memory.replace(mac, !mac), 1);
        let answer = kernel.ask(Hook::Egress, &leaves);
        assert_eq!(frame::label_of(&answer.frame).1, !mac);
        status::use_memo(&kernel.place, false).unwrap();
        assert_eq!(frame::label_of(&kernel.ask(Hook::Egress, &leaves).frame).1, mac);
        status::use_memo(&kernel.place, true).unwrap();
    }
}

/// Longer than a moment of [`govc_abi::memory::moment`], and not so long that two of them leave a slot.
const A_MOMENT: Duration = Duration::from_millis(150);

/// A flow of the ledger's own over a protocol, from one port: what opens it, what follows, and what answers.
fn asking(v6: bool, transport: [Transport; 3], port: u16) -> [Spec; 3] {
    let of_api = spec(v6, ACK);
    let source = SocketAddr::new(of_api.destination.ip(), port);
    let destination = SocketAddr::new(of_api.source.ip(), 8443);
    let [opens, follows, answers] = transport;
    let asks = |transport| Spec { source, destination, transport, ..spec(v6, transport) };
    let answer = Spec { source: destination, destination: source, ..asks(answers) };
    [asks(opens), asks(follows), answer]
}

#[test]
fn labels_of_unanswered_flows_are_remembered_for_a_moment() {
    if !kernel_available() {
        return;
    }
    let (_, mut kernel) = quiet(both_ways(BOTH_WAYS));
    let memory = Memory::of(&kernel, names::map::STAMPED);
    for v6 in [false, true] {
        let [datagram, ..] = asking(v6, [Transport::Udp; 3], 41_000).map(|each| each.frame());
        let mac_of = |answer: Answer| frame::label_of(&answer.frame).1;
        await_slot();
        let slot = sure_slot();
        let mac = mac_of(kernel.ask(Hook::Egress, &datagram));
        // A moment may end at any time, but not each time.
        let remembered = (0..20).any(|_| {
            assert_eq!(mac_of(kernel.ask(Hook::Egress, &datagram)), mac);
            assert_eq!(memory.replace(mac, !mac), 1);
            mac_of(kernel.ask(Hook::Egress, &datagram)) == !mac
        });
        assert!(remembered, "v6 {v6}");
        thread::sleep(A_MOMENT);
        assert_eq!(mac_of(kernel.ask(Hook::Egress, &datagram)), mac, "v6 {v6}");
        assert_eq!(sure_slot(), slot, "too slow to tell");

        // The table has to hear of all that a connection says until it is answered.
        let [opens, follows, _] = asking(v6, [SYN, ACK, ACK], 41_001).map(|each| each.frame());
        assert!(kernel.ask(Hook::Egress, &opens).permit);
        let mac = mac_of(kernel.ask(Hook::Egress, &follows));
        assert_eq!(memory.replace(mac, !mac), 0, "v6 {v6}");
    }
}

#[test]
fn what_the_other_end_opens_is_answered_at_once() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = quiet(both_ways(BOTH_WAYS));
    let verifier = kernel.verifier(7);
    let label = api_label(&compiled, &verifier, 4);
    for v6 in [false, true] {
        let [asks, _, theirs] = asking(v6, [Transport::Udp; 3], 443);
        let [asks, theirs] = [asks.frame(), theirs.labelled(&label, verifier.key)];
        let is_reply = |kernel: &mut Kernel| {
            let answer = kernel.ask(Hook::Egress, &asks);
            frame::label_of(&answer.frame).0.flags() & FLAG_REPLY != 0
        };
        await_slot();
        // However fast: the last of these finds what the one before it left behind.
        assert!((0..3).all(|_| !is_reply(&mut kernel)), "v6 {v6}");
        assert!(kernel.ask(Hook::Ingress, &theirs).permit, "v6 {v6}");
        assert!((0..3).all(|_| is_reply(&mut kernel)), "v6 {v6}");
    }
}

#[test]
fn an_unanswered_flow_that_others_pushed_out_is_back_in_a_moment() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = quiet(both_ways(BOTH_WAYS));
    let verifier = kernel.verifier(7);
    let label = api_label(&compiled, &verifier, 4).with_flags(FLAG_REPLY);
    let [datagram, _, answer] = asking(false, [Transport::Udp; 3], 41_000);
    let answer = answer.labelled(&label, verifier.key);
    assert!(kernel.ask(Hook::Egress, &datagram.frame()).permit);
    for number in 0..2 * OPENINGS_MAX as u32 {
        let [other, ..] = asking(number % 2 == 0, [Transport::Udp; 3], 1024 + (number / 2) as u16);
        assert!(kernel.ask(Hook::Egress, &other.frame()).permit);
    }
    assert!(!kernel.ask(Hook::Ingress, &answer).permit, "nothing was pushed out");
    thread::sleep(A_MOMENT);
    assert!(kernel.ask(Hook::Egress, &datagram.frame()).permit);
    assert!(kernel.ask(Hook::Ingress, &answer).permit);
}

#[test]
fn replies_are_remembered_within_a_slot() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = quiet(both_ways(BOTH_WAYS));
    let memory = Memory::of(&kernel, names::map::MEMO);
    for hook in [Hook::Ingress, Hook::Xdp] {
        await_slot();
        let exchanges = exchanges(&compiled, &mut kernel);
        for Exchange { arrives, .. } in &exchanges {
            assert!(kernel.ask(hook, arrives).permit);
            assert!(memory.decide(frame::label_of(arrives).1, false));
            assert!(!kernel.ask(hook, arrives).permit, "{hook:?}");
        }
        await_slot();
        // Requests are good for as long as their labels are, replies are asked about again.
        let permits: Vec<_> =
            exchanges.iter().map(|each| kernel.ask(hook, &each.arrives).permit).collect();
        assert_eq!(permits, [false, true].repeat(exchanges.len() / 2), "{hook:?}");
    }
}

#[test]
fn no_bit_of_a_packet_that_leaves_can_be_changed_unnoticed() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = quiet(both_ways(BOTH_WAYS));
    let (mut permits, mut denies) = (0, 0);
    for Exchange { leaves, .. } in exchanges(&compiled, &mut kernel) {
        for bit in 0..(leaves.len() - 100) * 8 {
            // What ends a connection would change what is known about it.
            assert!(kernel.ask(Hook::Egress, &leaves).permit);
            assert!(kernel.ask(Hook::Egress, &leaves).permit);
            let mut frame = leaves.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            let answer = ask_both(&mut kernel, Hook::Egress, &frame);
            *if answer.permit { &mut permits } else { &mut denies } += 1;
        }
    }
    assert!(permits > 500 && denies > 500, "{permits} {denies}");
}

#[test]
fn labels_of_another_time_key_or_policy_are_not_remembered() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = quiet(both_ways(BOTH_WAYS));
    let exchanges = exchanges(&compiled, &mut kernel);
    let ask = |kernel: &mut Kernel| -> Vec<_> {
        let both = exchanges.iter().map(|each| ask_both(kernel, Hook::Egress, &each.leaves));
        both.map(|answer| answer.permit.then(|| frame::label_of(&answer.frame))).collect()
    };
    await_slot();
    let before = [ask(&mut kernel), ask(&mut kernel)];
    assert_eq!(before[0], before[1]);
    await_slot();
    let later = ask(&mut kernel);
    for (one, other) in before[0].iter().zip(&later) {
        assert_eq!(other.unwrap().0.slot(), one.unwrap().0.slot().wrapping_add(1));
    }
    kernel.change_keys();
    let rekeyed = ask(&mut kernel);
    assert!(rekeyed.iter().all(Option::is_some));
    assert!(rekeyed.iter().zip(&later).all(|(one, other)| one != other));
    let denied = BOTH_WAYS.replace("permit ask", "deny ask");
    let denied = both_ways(&denied).image;
    for (image, asks) in [(&denied, false), (&compiled.image, true)] {
        kernel.apply(image);
        for _ in 0..2 {
            let permits: Vec<_> = ask(&mut kernel).iter().map(Option::is_some).collect();
            assert_eq!(permits, [true, asks].repeat(exchanges.len() / 2));
        }
    }
}
