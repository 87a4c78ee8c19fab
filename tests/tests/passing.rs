//! What a router remembers of packets that pass through never says anything else than what it would compute.

use std::net::IpAddr;

use govc_abi::{
    label::{BLOCK_LEN, FLAG_REPLY},
    names,
};
use govc_loader::status;
use govc_netlab::IpPrefix;
use govc_tests::{
    Compiled, compile,
    frame::{self, Spec, Transport},
    kernel::{Hook, Kernel, stay_on_one_cpu},
    kernel_available,
    ledger::{ACK, SYN, api_label, spec},
    policies::VOCABULARY,
    random::Random,
    remembered::{Memory, ask_both, await_slot, counts},
};

/// What passes from the left, where XDP takes everything to come in, to the right.
const ROUTER: &str = "package acme.router
use acme.vocabulary
zone left = interface \"eth0\", \"lo\"
     right = interface \"eth1\"
     dark = interface \"eth2\"
policy transit {
    on forward
    permit read { from acme.payments.api  where ingress zone is left and egress zone is right  operation ledger.read  proto tcp port 443  proto udp port 443 }
}
";

/// A device that has a route to where packets of [`spec`] go.
fn lead(kernel: &Kernel, device: &str) {
    for v6 in [false, true] {
        let host = host(spec(v6, ACK).destination.ip());
        kernel.namespace.set_route(host, None, device).unwrap();
    }
}

fn host(address: IpAddr) -> IpPrefix {
    IpPrefix::new(address, if address.is_ipv6() { 128 } else { 32 }).unwrap()
}

fn router() -> (Compiled, Kernel) {
    let compiled = compile(&[("router.gov", ROUTER), ("vocabulary.gov", VOCABULARY)]);
    let mut kernel = Kernel::routing(&compiled.image);
    stay_on_one_cpu();
    kernel.silence();
    kernel.from("eth0");
    lead(&kernel, "eth1");
    (compiled, kernel)
}

/// A hook that packets of the left meet, on the device where they do.
fn at(kernel: &mut Kernel, hook: Hook) -> Hook {
    kernel.at(if hook == Hook::Egress { "eth1" } else { "eth0" });
    hook
}

const HOOKS: [Hook; 3] = [Hook::Ingress, Hook::Xdp, Hook::Egress];

/// Packets that are let through and remembered.
fn passing(compiled: &Compiled, kernel: &Kernel) -> Vec<Vec<u8>> {
    let verifier = kernel.verifier(7);
    let label = api_label(compiled, &verifier, 4);
    let kinds = [(false, ACK), (true, ACK), (false, Transport::Udp), (true, Transport::Udp)];
    kinds.map(|(v6, transport)| spec(v6, transport).labelled(&label, verifier.key)).to_vec()
}

#[test]
fn what_passes_through_is_remembered_for_both_ends_of_its_way() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = router();
    let memory = Memory::of(&kernel, names::map::MEMO);
    for first in HOOKS {
        // Another slot: other labels.
        await_slot();
        for frame in passing(&compiled, &kernel) {
            let mac = frame::label_of(&frame).1;
            let hook = at(&mut kernel, first);
            let answer = kernel.ask(hook, &frame);
            assert!(answer.permit && answer.frame == frame, "{hook:?}");
            // XDP takes it to come in elsewhere, by the same zone.
            for hook in HOOKS {
                let hook = at(&mut kernel, hook);
                for permit in [false, true] {
                    assert!(memory.decide(mac, permit), "{hook:?} after {first:?}");
                    let answer = kernel.ask(hook, &frame);
                    assert_eq!(answer.permit, permit, "{hook:?} after {first:?}");
                    assert_eq!(answer.frame, frame, "its label stays");
                }
            }
        }
    }
}

#[test]
fn routes_and_zones_are_asked_about_each_time() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = router();
    let frames = passing(&compiled, &kernel);
    let ask = |kernel: &mut Kernel, hook| -> Vec<bool> {
        let hook = at(kernel, hook);
        frames.iter().map(|frame| kernel.ask(hook, frame).permit).collect()
    };
    for hook in HOOKS {
        assert_eq!(ask(&mut kernel, hook), [true; 4]);
    }
    for hook in [Hook::Ingress, Hook::Xdp] {
        for (device, permit) in [("eth2", false), ("eth1", true), ("eth2", false), ("eth1", true)] {
            lead(&kernel, device);
            assert_eq!(ask(&mut kernel, hook), [permit; 4], "{hook:?} {device}");
        }
    }
    // What is for the router itself is stripped: no rule speaks of it.
    for v6 in [false, true] {
        kernel.namespace.add_address("eth2", host(spec(v6, ACK).destination.ip())).unwrap();
    }
    for hook in [Hook::Ingress, Hook::Xdp] {
        let hook = at(&mut kernel, hook);
        for frame in &frames {
            let answer = kernel.ask(hook, frame);
            assert!(answer.permit && answer.frame.len() == frame.len() - BLOCK_LEN, "{hook:?}");
        }
    }
    for v6 in [false, true] {
        kernel.namespace.remove_address("eth2", host(spec(v6, ACK).destination.ip())).unwrap();
    }
    lead(&kernel, "eth1");
    for frame in &frames {
        let hook = at(&mut kernel, Hook::Ingress);
        assert_eq!(kernel.ask(hook, frame).frame, *frame, "its label stays");
    }
    // Where it leaves, it has come in elsewhere, or leaves elsewhere.
    let mut leaving = |from: &str, by: &str| {
        kernel.from(from);
        kernel.at(by);
        frames.iter().map(|frame| kernel.ask(Hook::Egress, frame).permit).collect::<Vec<_>>()
    };
    for _ in 0..2 {
        assert_eq!(leaving("eth0", "eth1"), [true; 4]);
        assert_eq!(leaving("eth2", "eth1"), [false; 4]);
        assert_eq!(leaving("eth0", "eth2"), [false; 4]);
        assert_eq!(leaving("eth1", "eth0"), [false; 4]);
    }
}

#[test]
fn a_packet_that_is_sent_here_is_not_one_that_passed() {
    if !kernel_available() {
        return;
    }
    let (compiled, kernel) = router();
    let frames = passing(&compiled, &kernel);
    // Nobody has come in: the label is forged, whatever it says.
    let mut local = kernel;
    for frame in &frames {
        let hook = at(&mut local, Hook::Egress);
        local.from("eth0");
        assert!(local.ask(hook, frame).permit && local.ask(hook, frame).permit);
        local.from_here();
        assert!(!local.ask(hook, frame).permit);
    }
}

#[test]
fn no_bit_of_a_packet_that_passes_can_be_changed_unnoticed() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = router();
    let mut permits = 0;
    for hook in HOOKS {
        await_slot();
        for good in passing(&compiled, &kernel) {
            let hook = at(&mut kernel, hook);
            for bit in 0..(good.len() - 100) * 8 {
                assert!(kernel.ask(hook, &good).permit && kernel.ask(hook, &good).permit);
                let mut frame = good.clone();
                frame[bit / 8] ^= 1 << (bit % 8);
                permits += usize::from(ask_both(&mut kernel, hook, &frame).permit);
            }
        }
    }
    assert!(permits > 1000, "{permits}");
}

#[test]
fn replies_that_pass_are_remembered_within_a_slot() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = router();
    let memory = Memory::of(&kernel, names::map::MEMO);
    let turned = |of: Spec| Spec { source: of.destination, destination: of.source, ..of };
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        await_slot();
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let carried = |tcp| if udp { Transport::Udp } else { tcp };
        let source = spec(v6, ACK).source.ip();
        kernel.namespace.set_route(host(source), None, "eth0").unwrap();
        let request = |tcp| spec(v6, carried(tcp)).labelled(&label, verifier.key);
        let answer = |tcp| {
            let label = label.with_flags(FLAG_REPLY);
            turned(spec(v6, carried(tcp))).labelled(&label, verifier.key)
        };
        let reply = answer(ACK);
        kernel.at("eth1");
        assert!(!kernel.ask(Hook::Ingress, &reply).permit, "it answers nothing");
        kernel.at("eth0");
        assert!(kernel.ask(Hook::Ingress, &request(SYN)).permit);
        kernel.at("eth1");
        let answered = Transport::Tcp { syn: true, ack: true, sequence: 5 };
        assert!(kernel.ask(Hook::Ingress, &answer(answered)).permit);
        kernel.at("eth0");
        assert!(kernel.ask(Hook::Ingress, &request(ACK)).permit);
        kernel.at("eth1");
        assert!(kernel.ask(Hook::Ingress, &reply).permit);
        assert!(memory.decide(frame::label_of(&reply).1, false));
        assert!(!kernel.ask(Hook::Ingress, &reply).permit);
        await_slot();
        assert!(kernel.ask(Hook::Ingress, &reply).permit, "asked about again");
    }
}

#[test]
fn what_passes_is_decided_and_counted_alike_from_memory() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = router();
    let (mut permits, mut denies) = (0, 0);
    for seed in 0..8 {
        await_slot();
        let random = &mut Random::new(seed);
        let verifier = kernel.verifier(7);
        let frames: Vec<_> = (0..60)
            .map(|number| {
                let transport = if random.one_in(2) { ACK } else { Transport::Udp };
                let mut spec = spec(number % 2 == 0, transport);
                spec.source.set_port(1024 + random.below(3) as u16);
                spec.destination.set_port(443 + u16::from(random.one_in(4)));
                let operation = if random.one_in(4) { 2 } else { 1 };
                let label = api_label(&compiled, &verifier, 4).with_operation(operation);
                let hook = *random.pick(&HOOKS);
                let devices = *random.pick(&[["eth0", "eth1"], ["eth0", "eth2"], ["eth2", "eth1"]]);
                (hook, devices, spec.labelled(&label, verifier.key))
            })
            .collect();
        let mut run = |memo| {
            status::use_memo(&kernel.place, memo).unwrap();
            let before = counts(&kernel);
            let verdicts: Vec<bool> = frames
                .iter()
                .chain(&frames)
                .map(|(hook, [from, by], frame)| {
                    kernel.from(from);
                    kernel.at(if *hook == Hook::Egress { by } else { from });
                    lead(&kernel, by);
                    kernel.ask(*hook, frame).permit
                })
                .collect();
            let counted: Vec<u64> =
                counts(&kernel).iter().zip(before).map(|(now, before)| now - before).collect();
            (verdicts, counted)
        };
        let (computed, remembered) = (run(false), run(true));
        assert_eq!(computed, remembered, "seed {seed}");
        permits += computed.0.iter().filter(|permit| **permit).count();
        denies += computed.0.iter().filter(|permit| !**permit).count();
    }
    assert!(permits > 100 && denies > 100, "{permits} {denies}");
}
