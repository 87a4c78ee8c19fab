//! What a CPU remembers never says anything else than what it would compute.

use std::{mem::offset_of, thread, time::Duration};

use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use govc_abi::{
    flow::{Memo, memo_slot},
    names,
};
use govc_loader::{keyring::slot_now, status};
use govc_tests::{
    Compiled, compile,
    frame::{self, Transport},
    kernel::{Answer, Hook, Kernel},
    kernel_available,
    ledger::{self, ACK, LEDGER, SYN, api_label, spec},
    policies::{VOCABULARY, random_label, random_policy_at, random_spec},
    random::Random,
    reference,
};
use rustix::thread::{CpuSet, sched_setaffinity};

/// Every CPU has a memory of its own, so the test stays on one. Threads that it starts stay too.
fn stay_on_one_cpu() {
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).expect("CPU 0");
}

fn ledger() -> (Compiled, Kernel) {
    let compiled = ledger::compiled();
    let kernel = Kernel::new(&compiled.image);
    stay_on_one_cpu();
    kernel.silence();
    (compiled, kernel)
}

/// Every hook with every kind of packet that is remembered.
fn cases() -> impl Iterator<Item = (Hook, bool, Transport)> {
    let hooks = [Hook::Ingress, Hook::Xdp].into_iter();
    let versions = hooks.flat_map(|hook| [(hook, false), (hook, true)]);
    versions.flat_map(|(hook, v6)| [(hook, v6, ACK), (hook, v6, Transport::Udp)])
}

/// Asks with and without the memory; both have to say the same.
fn ask_both(kernel: &mut Kernel, hook: Hook, frame: &[u8]) -> Answer {
    let remembered = kernel.ask(hook, frame);
    status::use_memo(&kernel.place, false).unwrap();
    let computed = kernel.ask(hook, frame);
    status::use_memo(&kernel.place, true).unwrap();
    assert_eq!(remembered.told(), computed.told(), "{hook:?} {frame:02x?}");
    remembered
}

/// The memory of decisions, as user space may change it.
fn memory(kernel: &Kernel) -> PerCpuArray<MapData, [u8; size_of::<Memo>()]> {
    let map = MapData::from_pin(kernel.place.pin(names::map::MEMO)).expect("a pin");
    Map::PerCpuArray(map).try_into().expect("a map of this type")
}

#[test]
fn decisions_are_remembered() {
    if !kernel_available() {
        return;
    }
    let (compiled, mut kernel) = ledger();
    let mut memory = memory(&kernel);
    for (hook, v6, transport) in cases() {
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let frame = spec(v6, transport).labelled(&label, verifier.key);
        assert!(kernel.ask(hook, &frame).permit, "{hook:?} {transport:?}");
        // Whoever can write into the memory decides: so it is asked.
        let slot = memo_slot(frame::label_of(&frame).1);
        for permit in [false, true] {
            let mut entries: Vec<_> = memory.get(&slot, 0).unwrap().iter().copied().collect();
            for entry in &mut entries {
                entry[offset_of!(Memo, permit)] = u8::from(permit);
            }
            memory.set(slot, PerCpuValues::try_from(entries).unwrap(), 0).unwrap();
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
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let good = spec(v6, transport).labelled(&label, verifier.key);
        assert!(kernel.ask(hook, &good).permit, "{hook:?} {transport:?}");
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
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let good = spec(v6, transport).labelled(&label, verifier.key);
        assert!(kernel.ask(hook, &good).permit, "{hook:?} {transport:?}");
        for len in 54..good.len() {
            let answer = ask_both(&mut kernel, hook, &good[..len]);
            assert!(!answer.permit, "{hook:?} v6 {v6} {transport:?} {len} bytes");
        }
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
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let frame = spec(v6, transport).labelled(&label, verifier.key);
        assert!(kernel.ask(hook, &frame).permit && kernel.ask(hook, &frame).permit);
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
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let frame = spec(v6, transport).labelled(&label, verifier.key);
        for (image, permit) in [(&other.image, false), (&compiled.image, true)] {
            kernel.apply(image);
            assert_eq!(kernel.ask(hook, &frame).permit, permit, "{hook:?} {transport:?}");
            assert_eq!(kernel.ask(hook, &frame).permit, permit, "{hook:?} {transport:?}");
        }
    }
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

/// Packets that each rule has decided, or would have.
fn counts(kernel: &Kernel) -> Vec<u64> {
    let status = kernel.namespace.run(|| status::status(&kernel.place)).unwrap();
    status.rules.iter().flat_map(|rule| [rule.packets, rule.would]).collect()
}
