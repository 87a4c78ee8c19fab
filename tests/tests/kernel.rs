//! The kernel against the reference: the same packets, the same policies, the same answers.

use govc_abi::{node::LEAF_NONE, reason};
use govc_compiler::{interpret::Decision, testing};
use govc_loader::status;
use govc_tests::{
    Compiled, compile,
    frame::{self, Spec, Transport},
    kernel::{Answer, Hook, Kernel, sure_slot},
    kernel_available,
    ledger::{self, SYN, api_label, spec},
    policies::{VOCABULARY, random_label, random_policy_at, random_spec},
    random::Random,
    reference::{self, Verifier},
};

#[test]
fn a_verified_packet_leaves_the_hook_as_it_was_before_it_was_stamped() {
    if !kernel_available() {
        return;
    }
    let compiled = ledger::compiled();
    let mut kernel = Kernel::new(&compiled.image);
    for hook in [Hook::Ingress, Hook::Xdp] {
        for v6 in [false, true] {
            for transport in [SYN, Transport::Udp] {
                let verifier = kernel.verifier(7);
                let spec = spec(v6, transport);
                let labelled = spec.labelled(&api_label(&compiled, &verifier, 2), verifier.key);
                let answer = kernel.ask(hook, &labelled);
                assert!(answer.permit, "{hook:?} {spec:?}: {answer:?}");
                assert_eq!(answer.frame, spec.frame(), "{hook:?} {spec:?}");
            }
        }
    }
}

/// A frame with a VLAN tag.
fn tagged(frame: &[u8], ethertype: u16) -> Vec<u8> {
    const VLAN_10: [u8; 2] = [0, 10];
    let [at_start, rest] = [&frame[..12], &frame[12..]];
    [at_start, &ethertype.to_be_bytes(), &VLAN_10, rest].concat()
}

#[test]
fn frames_with_a_vlan_tag_are_those_without() {
    if !kernel_available() {
        return;
    }
    let compiled = ledger::compiled();
    let mut kernel = Kernel::new(&compiled.image);
    for hook in [Hook::Ingress, Hook::Xdp] {
        for v6 in [false, true] {
            for (transport, ethertype) in
                [(SYN, 0x8100), (Transport::Udp, 0x8100), (Transport::Udp, 0x88a8)]
            {
                let verifier = kernel.verifier(7);
                let spec = spec(v6, transport);
                let frame = spec.labelled(&api_label(&compiled, &verifier, 2), verifier.key);
                // Computed, and remembered.
                for _ in 0..2 {
                    let answer = kernel.ask(hook, &tagged(&frame, ethertype));
                    if hook == Hook::Ingress {
                        // The stack takes the tag out of the frame before that hook; what is there
                        // yet is a second one.
                        assert!(!answer.permit, "{spec:?}: {answer:?}");
                        continue;
                    }
                    assert!(answer.permit, "{spec:?}: {answer:?}");
                    assert_eq!(answer.frame, tagged(&spec.frame(), ethertype), "{spec:?}");
                }
                let mut wrong = tagged(&frame, ethertype);
                let body = frame::body_at(&frame) + 4;
                wrong[body + 20] ^= 1;
                assert!(!kernel.ask(hook, &wrong).permit);
                assert!(!kernel.ask(hook, &tagged(&tagged(&frame, ethertype), 0x8100)).permit);
                assert!(!kernel.ask(hook, &tagged(&spec.frame(), ethertype)).permit);
                for len in 14..60 {
                    assert!(!kernel.ask(hook, &tagged(&frame, ethertype)[..len]).permit, "{len}");
                }
            }
        }
    }
}

#[test]
fn every_single_bit_flip_of_a_label_is_denied() {
    if !kernel_available() {
        return;
    }
    let compiled = ledger::compiled();
    let mut kernel = Kernel::new(&compiled.image);
    for hook in [Hook::Ingress, Hook::Xdp] {
        for v6 in [false, true] {
            for bit in 0..28 * 8 {
                let verifier = kernel.verifier(7);
                let spec = spec(v6, Transport::Udp);
                let mut frame = spec.labelled(&api_label(&compiled, &verifier, 2), verifier.key);
                let body = frame::body_at(&frame);
                assert!(kernel.ask(hook, &frame).permit, "positive control");
                frame[body + bit / 8] ^= 1 << (bit % 8);
                let answer = kernel.ask(hook, &frame);
                assert!(!answer.permit, "{hook:?} v6 {v6} bit {bit}: {answer:?}");
            }
        }
    }
}

#[test]
fn a_label_is_worth_nothing_on_another_flow() {
    if !kernel_available() {
        return;
    }
    let compiled = ledger::compiled();
    let mut kernel = Kernel::new(&compiled.image);
    for v6 in [false, true] {
        let verifier = kernel.verifier(7);
        let own = spec(v6, SYN);
        let label = api_label(&compiled, &verifier, 2);
        let good = own.labelled(&label, verifier.key);
        assert!(kernel.ask(Hook::Ingress, &good).permit, "positive control");
        let (_, mac) = frame::label_of(&good);
        let others = [
            Spec { source: spec(v6, SYN).destination, ..own },
            Spec { source: (own.source.ip(), 40001).into(), ..own },
            Spec { transport: Transport::Udp, ..own },
            Spec { transport: Transport::Tcp { syn: true, ack: false, sequence: 78 }, ..own },
            Spec { transport: Transport::Tcp { syn: false, ack: true, sequence: 77 }, ..own },
        ];
        for other in others {
            let answer = kernel.ask(Hook::Ingress, &frame::insert(&other.frame(), &label, mac));
            assert_eq!(answer.event.unwrap().reason, reason::BAD_MAC, "{other:?}");
            assert!(!answer.permit);
        }
    }
}

#[test]
fn no_mutation_gets_through_that_the_reference_would_not_let_through() {
    if !kernel_available() {
        return;
    }
    let compiled = ledger::compiled();
    let mut kernel = Kernel::new(&compiled.image);
    for seed in 0..6_000 {
        let random = &mut Random::new(seed);
        let verifier = kernel.verifier(7);
        let transport =
            *random.pick(&[SYN, Transport::Udp, Transport::Icmp(8, 0), Transport::Other(47)]);
        let label = api_label(&compiled, &verifier, 2);
        let mut frame = spec(random.one_in(2), transport).labelled(&label, verifier.key);
        for _ in 0..random.below(4) {
            let at = random.below(frame.len().min(100));
            frame[at] ^= 1 << random.below(8);
        }
        match random.below(4) {
            // The kernel runs no shorter ones than Ethernet and IP headers.
            0 => frame.truncate(54.max(random.below(frame.len()))),
            1 => frame.extend(std::iter::repeat_n(0xee, random.below(1400))),
            _ => {}
        }
        for hook in [Hook::Ingress, Hook::Xdp] {
            let answer = kernel.ask(hook, &frame);
            let link_control = answer.event.is_some_and(|e| e.reason == reason::LINK_CONTROL);
            let wanted = reference::decide_ingress(&compiled.policy, &frame, &verifier);
            let allowed = wanted.is_some_and(|decision| decision.permit);
            assert!(
                !answer.permit || allowed || link_control,
                "seed {seed} {hook:?}: permitted {frame:02x?}\n{answer:?}"
            );
        }
    }
}

#[test]
fn kernel_walk_and_interpreter_agree_on_random_policies_and_packets() {
    if !kernel_available() {
        return;
    }
    let mut permits = 0;
    let mut denies = 0;
    let mut by_rule = 0;
    for seed in 0..24 {
        let random = &mut Random::new(seed);
        let rules = *random.pick(&[1, 3, 10, 40]);
        let text = random_policy_at(random, rules, &["ingress"]);
        let compiled = compile(&[("random.gov", &text), ("vocabulary.gov", VOCABULARY)]);
        let mut kernel = Kernel::new(&compiled.image);
        for packet in 0..250 {
            let spec = random_spec(random, packet % 2 == 1);
            let verifier = kernel.verifier(7);
            let frame = if random.one_in(5) {
                spec.frame()
            } else {
                let label = random_label(random, &compiled.policy, verifier.slot, verifier.epoch);
                let tunnels = !compiled.policy.carriages().is_empty();
                if tunnels && packet % 3 == 0 {
                    spec.tunnelled(&label, verifier.key)
                } else {
                    spec.labelled(&label, verifier.key)
                }
            };
            let Some(wanted) = reference::decide_ingress(&compiled.policy, &frame, &verifier)
            else {
                continue;
            };
            let answer = kernel.ask(Hook::Ingress, &frame);
            // The same packet again is decided from memory, or not, as the flag says.
            let [remembered, computed] = [true, false].map(|memo| {
                status::use_memo(&kernel.place, memo).unwrap();
                kernel.ask(Hook::Ingress, &frame)
            });
            status::use_memo(&kernel.place, true).unwrap();
            if sure_slot() != Some(verifier.slot) {
                // The machine took a while: the kernel may have judged by the next slot.
                continue;
            }
            for other in [&remembered, &computed] {
                assert_eq!(other.told(), answer.told(), "seed {seed} packet {packet}");
            }
            let found = decision(&compiled, &answer);
            assert_eq!(
                found,
                Some(wanted),
                "seed {seed} packet {packet} {spec:?} {:?}\n{answer:?}\n{text}",
                frame::label_of(&frame)
            );
            permits += u32::from(wanted.permit);
            denies += u32::from(!wanted.permit);
            by_rule += u32::from(wanted.rule.is_some());
        }
    }
    // The test is worth something only when both verdicts and rules occur.
    assert!(permits > 300 && denies > 300 && by_rule > 600, "{permits} {denies} {by_rule}");
}

#[test]
fn kernel_and_interpreter_agree_about_what_leaves_and_how() {
    if !kernel_available() {
        return;
    }
    let (mut labelled, mut tunnels, mut bare, mut denies, mut refused) = (0, 0, 0, 0, 0);
    for seed in 2000..2024 {
        let random = &mut Random::new(seed);
        let rules = *random.pick(&[1, 3, 10, 40]);
        let text = random_policy_at(random, rules, &["egress"]);
        let compiled = compile(&[("random.gov", &text), ("vocabulary.gov", VOCABULARY)]);
        let mut kernel = Kernel::new(&compiled.image);
        for packet in 0..250 {
            let spec = random_spec(random, packet % 2 == 1);
            let frame = spec.frame();
            let verifier = kernel.verifier(7);
            let answer = kernel.ask(Hook::Egress, &frame);
            let told = || format!("seed {seed} packet {packet} {spec:?}\n{answer:?}\n{text}");
            let Some((wanted, label)) = reference::decide_egress(&compiled.policy, &frame, 1)
            else {
                assert!(!answer.permit, "{}", told());
                refused += 1;
                continue;
            };
            assert_eq!(decision(&compiled, &answer), Some(wanted), "{}", told());
            if !wanted.permit {
                denies += 1;
                continue;
            }
            let Some(label) = label else {
                assert_eq!(answer.frame, frame, "{}", told());
                bare += 1;
                continue;
            };
            if sure_slot() != Some(verifier.slot) {
                continue;
            }
            // Built from the same packet by other code, bit for bit.
            let label = label.with_epoch(verifier.epoch).with_slot(verifier.slot as u16);
            if reference::rides_in_tunnel(&compiled.policy, &frame, 1) {
                let wanted = spec.tunnelled(&label, verifier.key);
                let port = frame::tunnel_body_at(&wanted) - 20;
                let mut found = answer.frame.clone();
                assert!(found[port] >= 0xc0, "{}", told());
                found[port..port + 2].copy_from_slice(&wanted[port..port + 2]);
                assert_eq!(found, wanted, "{}", told());
                tunnels += 1;
                continue;
            }
            assert_eq!(answer.frame, spec.labelled(&label, verifier.key), "{}", told());
            labelled += 1;
        }
    }
    let counts = [labelled, tunnels, bare, denies, refused];
    assert!(counts.iter().all(|count| *count > 100), "{counts:?}");
}

/// The decision that an answer's event tells, in positions of the policy.
fn decision(compiled: &Compiled, answer: &Answer) -> Option<Decision> {
    let event = answer.event.as_ref()?;
    let position = |number: u32| {
        (number != LEAF_NONE).then(|| compiled.table.rule_positions[number as usize] as usize)
    };
    Some(Decision {
        permit: answer.permit,
        rule: position(event.rule),
        pending: position(event.pending),
    })
}

#[test]
fn image_and_interpreter_agree_without_a_kernel() {
    for seed in 1000..1060 {
        let random = &mut Random::new(seed);
        let rules = *random.pick(&[1, 5, 20, 80]);
        let text = random_policy_at(random, rules, &["ingress"]);
        let compiled = compile(&[("random.gov", &text), ("vocabulary.gov", VOCABULARY)]);
        let verifier = Verifier { slot: 1000, key: (1, 2), epoch: 3, zone: 1 };
        for packet in 0..400 {
            let spec = random_spec(random, packet % 2 == 1);
            let label = random_label(random, &compiled.policy, verifier.slot, verifier.epoch);
            let frame = spec.labelled(&label, verifier.key);
            let Some(request) = reference::request(&compiled.policy, &frame, &verifier) else {
                continue;
            };
            let wanted = govc_compiler::interpret::decide(&compiled.policy, 0, &request);
            let found = testing::decision_of_image(&compiled.table, &compiled.image, 0, &request);
            assert_eq!(found, wanted, "seed {seed} packet {packet} {spec:?} {label:?}\n{text}");
        }
    }
}
