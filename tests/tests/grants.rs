//! What a bundle says about a generation, packet by packet: grants, revocations, its time; and the
//! keys that end or belong to one sender.

use govc_abi::{
    key::KeyTable,
    label::{FLAG_REPLY, Label},
    limits::EPOCHS,
    mac, names, reason,
};
use govc_loader::{
    authority::{Authority, Held},
    keyring::{DomainKeys, Senders, slot_now},
    object,
};
use govc_tests::{
    Compiled, compile,
    frame::{self, Spec, Transport},
    kernel::{Answer, Hook, Kernel, stay_on_one_cpu, sure_slot},
    kernel_available,
    ledger::{ACK, LEDGER, api_label, spec},
    policies::VOCABULARY,
    random::Random,
    reference::Verifier,
};

/// The ledger, which answers and stamps.
fn compiled() -> Compiled {
    let text = format!(
        "{LEDGER}stamp on lan {{ subject acme.payments.ledger }}\n\
         legacy from 10.9.0.0/16 on lan {{ subject acme.guest }}\n\
         policy q {{ on egress permit ask {{ proto udp port 53 }} }}\n"
    );
    compile(&[("ledger.gov", &text), ("vocabulary.gov", VOCABULARY)])
}

/// What the ledger's labels are stamped under.
const OWN: u16 = 900;
/// What its callers' are.
const CALLER: u16 = 11;

/// A bundle's word on a policy: good now, with these serials revoked.
fn authority(revoked: impl IntoIterator<Item = u16>) -> Authority {
    let mut bitmap = vec![0_u64; 1024];
    for serial in revoked {
        bitmap[usize::from(serial) / 64] |= 1 << (serial % 64);
    }
    let now = slot_now() * 2;
    Authority {
        domain: 7,
        stamps: vec![(0, Held { serial: OWN, not_after: now + 100_000 })],
        transit: Vec::new(),
        revoked: bitmap,
        abroad: Vec::new(),
        not_before: now - 100,
        not_after: now + 100_000,
    }
}

/// Every hook with both versions of IP.
fn arrivals() -> impl Iterator<Item = (Hook, bool)> {
    [Hook::Ingress, Hook::Xdp].into_iter().flat_map(|hook| [(hook, false), (hook, true)])
}

/// A call with a label that was stamped under a grant.
fn call(compiled: &Compiled, verifier: &Verifier, v6: bool, serial: u16) -> Vec<u8> {
    let label = api_label(compiled, verifier, 4).with_grant(serial);
    spec(v6, ACK).labelled(&label, verifier.key)
}

/// What the ledger sends to whoever calls it.
fn reply(v6: bool) -> Vec<u8> {
    let call = spec(v6, ACK);
    Spec { source: call.destination, destination: call.source, ..call }.frame()
}

fn why(answer: &Answer) -> (bool, u8) {
    (answer.permit, answer.event.expect("an event").reason)
}

const PERMIT: (bool, u8) = (true, reason::RULE);
const REVOKED: (bool, u8) = (false, reason::REVOKED);

#[test]
fn labels_under_a_revoked_grant_are_denied_by_that_reason() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    kernel.apply_signed(&compiled.image, &authority([12, 64, 65_535]));
    for (hook, v6) in arrivals() {
        let verifier = kernel.verifier(7);
        for (serial, wanted) in [
            (11, PERMIT),
            (12, REVOKED),
            (13, PERMIT),
            (63, PERMIT),
            (64, REVOKED),
            (65_534, PERMIT),
            (65_535, REVOKED),
            (0, (false, reason::UNGRANTED)),
        ] {
            let frame = call(&compiled, &verifier, v6, serial);
            for _ in 0..2 {
                assert_eq!(why(&kernel.ask(hook, &frame)), wanted, "{hook:?} {v6} {serial}");
            }
            // Before the MAC: what is revoked costs nothing more.
            let mut forged = frame.clone();
            forged[frame::body_at(&frame) + 27] ^= 1;
            let wanted = if wanted == PERMIT { (false, reason::BAD_MAC) } else { wanted };
            assert_eq!(why(&kernel.ask(hook, &forged)), wanted, "{hook:?} {v6} {serial}");
        }
    }
    let counted = kernel.counted("ingress", "revoked");
    assert_eq!(counted, 4 * 3 * 3, "each is counted by its reason");
}

#[test]
fn the_kernel_knows_of_every_serial_what_the_bundle_says() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    for seed in 0..4 {
        let random = &mut Random::new(seed);
        let revoked: Vec<u16> = (0..600).map(|_| random.below(65_536) as u16).collect();
        kernel.apply_signed(&compiled.image, &authority(revoked.iter().copied()));
        let verifier = kernel.verifier(7);
        let near = revoked.iter().flat_map(|serial| [*serial, serial ^ 1, serial ^ 64]);
        for serial in near.filter(|serial| *serial != 0) {
            let answer = kernel.ask(Hook::Ingress, &call(&compiled, &verifier, false, serial));
            assert_eq!(answer.permit, !revoked.contains(&serial), "seed {seed} {serial}");
        }
    }
}

#[test]
fn without_a_bundle_labels_need_no_grant() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    let verifier = kernel.verifier(7);
    for serial in [0, 12] {
        let frame = call(&compiled, &verifier, false, serial);
        assert_eq!(why(&kernel.ask(Hook::Ingress, &frame)), PERMIT);
    }
    // What the buffer held before is forgotten.
    for _ in 0..2 {
        kernel.apply_signed(&compiled.image, &authority([12]));
    }
    for _ in 0..2 {
        kernel.apply(&compiled.image);
        let frame = call(&compiled, &verifier, false, 12);
        assert_eq!(why(&kernel.ask(Hook::Ingress, &frame)), PERMIT);
    }
}

#[test]
fn a_revocation_stops_what_is_remembered_and_its_replies() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    stay_on_one_cpu();
    kernel.silence();
    for (hook, v6) in arrivals() {
        kernel.apply_signed(&compiled.image, &authority([]));
        let verifier = kernel.verifier(7);
        let frame = call(&compiled, &verifier, v6, CALLER);
        for _ in 0..3 {
            assert!(kernel.ask(hook, &frame).permit, "{hook:?} {v6}");
        }
        let answer = kernel.ask(Hook::Egress, &reply(v6));
        let (label, _) = frame::label_of(&answer.frame);
        assert_eq!((answer.permit, label.grant(), label.flags()), (true, OWN, FLAG_REPLY));
        // The end of another grant changes nothing: the flow goes on in a new generation.
        kernel.apply_signed(&compiled.image, &authority([CALLER + 1]));
        assert!(kernel.ask(Hook::Egress, &reply(v6)).permit, "{hook:?} {v6}");
        assert!(kernel.ask(hook, &frame).permit);
        kernel.apply_signed(&compiled.image, &authority([CALLER]));
        // The reply first: it must not live on what the flow was permitted by.
        assert!(!kernel.ask(Hook::Egress, &reply(v6)).permit, "{hook:?} {v6}");
        let before = kernel.counted("ingress", "revoked");
        for _ in 0..2 {
            assert!(!kernel.ask(hook, &frame).permit, "{hook:?} {v6}");
        }
        assert_eq!(kernel.counted("ingress", "revoked"), before + 2, "{hook:?} {v6}");
    }
}

#[test]
fn nothing_is_stamped_under_a_revoked_grant() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    let to_dns = |v6| Spec {
        destination: (spec(v6, ACK).destination.ip(), 53).into(),
        ..spec(v6, Transport::Udp)
    };
    for v6 in [false, true] {
        let frame = to_dns(v6).frame();
        for (revoked, serial) in [(vec![], OWN), (vec![OWN - 1], OWN)] {
            kernel.apply_signed(&compiled.image, &authority(revoked));
            let answer = kernel.ask(Hook::Egress, &frame);
            assert_eq!(why(&answer), PERMIT);
            assert_eq!(frame::label_of(&answer.frame).0.grant(), serial);
        }
        kernel.apply_signed(&compiled.image, &authority([OWN]));
        assert_eq!(why(&kernel.ask(Hook::Egress, &frame)), REVOKED);
        // A stamp rule that nobody granted cannot be in a bundle; if it is all the same, it fails.
        let ungranted = Authority { stamps: Vec::new(), ..authority([]) };
        kernel.apply_signed(&compiled.image, &ungranted);
        assert_eq!(why(&kernel.ask(Hook::Egress, &frame)), (false, reason::UNGRANTED));
        kernel.apply(&compiled.image);
        let answer = kernel.ask(Hook::Egress, &frame);
        assert_eq!(frame::label_of(&answer.frame).0.grant(), 0);
    }
}

/// Packets by the clock of an instance for which it is this slot now.
fn at(kernel: &Kernel, slot: u64) -> Verifier {
    let now = kernel.verifier(7);
    kernel.shift_clock(slot.cast_signed() - now.slot.cast_signed());
    let (key, epoch) = kernel.key_of(7, slot);
    Verifier { slot, key, epoch, ..now }
}

/// Keys of the domain for these epochs of `2^shift` slots.
fn keys(shift: u32, epochs: impl IntoIterator<Item = u64>) -> DomainKeys {
    let key = |epoch| format!("{{\"epoch\": {epoch}, \"key\": \"{epoch:032x}\"}}");
    let epochs: Vec<String> = epochs.into_iter().map(key).collect();
    let text = format!(
        "{{\"version\": 1, \"domain\": \"acme\", \"number\": 7, \"epoch_shift\": {shift}, \"epochs\": [{}]}}",
        epochs.join(", ")
    );
    DomainKeys::from_text(&text).unwrap()
}

#[test]
fn a_policy_that_has_ended_lets_nothing_through() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    stay_on_one_cpu();
    for silent in [false, true] {
        if silent {
            kernel.silence();
        }
        for (hook, v6) in arrivals() {
            kernel.shift_clock(0);
            let verifier = kernel.verifier(7);
            let ends = Authority { not_after: verifier.slot * 2 + 5, ..authority([]) };
            kernel.apply_signed(&compiled.image, &ends);
            // The policy is good in this slot and two more.
            let frame = call(&compiled, &verifier, v6, CALLER);
            for (slots, permit) in [(0, true), (1, true), (2, true), (3, false), (9, false)] {
                let label = at(&kernel, verifier.slot + slots);
                let fresh = call(&compiled, &label, v6, CALLER);
                for frame in [&frame, &frame, &fresh, &fresh] {
                    let answer = kernel.ask(hook, frame);
                    assert_eq!(answer.permit, permit, "{hook:?} {v6} {slots}");
                    if !silent && !permit {
                        assert_eq!(why(&answer), (false, reason::POLICY_EXPIRED));
                    }
                }
                let answer = kernel.ask(Hook::Egress, &reply(v6));
                assert_eq!(answer.permit, permit, "{hook:?} {v6} {slots}: the reply");
            }
            // A bundle that is good again brings it back at once.
            kernel.apply_signed(&compiled.image, &authority([]));
            at(&kernel, verifier.slot + 3);
            assert!(kernel.ask(hook, &frame).permit, "{hook:?} {v6}");
        }
    }
    let [arrived, left] = ["ingress", "egress"].map(|hook| kernel.counted(hook, "policy_expired"));
    assert_eq!((arrived, left), (2 * 4 * 2 * 4, 2 * 4 * 2), "each is counted by its reason");
}

#[test]
fn a_grant_that_has_ended_stamps_nothing() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    let sent = spec(false, Transport::Udp);
    let frame = Spec { destination: (sent.destination.ip(), 53).into(), ..sent }.frame();
    let now = kernel.verifier(7).slot;
    let short = Held { serial: OWN, not_after: now * 2 + 5 };
    let long = Held { serial: OWN + 1, ..short };
    let stamped = |kernel: &mut Kernel, held: Held| {
        let stamps = vec![(0, held)];
        kernel.apply_signed(&compiled.image, &Authority { stamps, ..authority([]) });
        [0, 2, 3, 9].map(|slots| {
            let verifier = kernel.verifier(7);
            kernel.shift_clock((now + slots).cast_signed() - verifier.slot.cast_signed());
            let answer = kernel.ask(Hook::Egress, &frame);
            assert_eq!(answer.event.unwrap().label.grant(), held.serial, "it is told which");
            why(&answer)
        })
    };
    let ended = (false, reason::GRANT_EXPIRED);
    assert_eq!(stamped(&mut kernel, short), [PERMIT, PERMIT, ended, ended]);
    // Where no label is written, no grant is used.
    let legacy = Spec { destination: "10.9.0.1:53".parse().unwrap(), ..sent }.frame();
    let answer = kernel.ask(Hook::Egress, &legacy);
    assert_eq!((why(&answer), answer.frame), (PERMIT, legacy));
    let long = Held { not_after: now * 2 + 1000, ..long };
    assert_eq!(stamped(&mut kernel, long), [PERMIT; 4]);
}

#[test]
fn a_clock_that_is_set_back_lets_nothing_through() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    let present = slot_now() >> 14;
    kernel.set_keys(keys(14, present - 1..present + 2));
    // Without a bundle an hour is forgiven, with one nothing before it.
    let not_before = slot_now() * 2 - 60;
    for (authority, slots) in [(None, 1800), (Some(not_before), 30)] {
        match authority {
            Some(not_before) => {
                let authority = Authority { not_before, ..self::authority([]) };
                kernel.apply_signed(&compiled.image, &authority)
            }
            None => kernel.apply(&compiled.image),
        };
        for (back, permit) in [(slots - 5, true), (slots + 5, false)] {
            let verifier = at(&kernel, slot_now() - back);
            let answer = kernel.ask(Hook::Ingress, &call(&compiled, &verifier, false, CALLER));
            let wanted = if permit { PERMIT } else { (false, reason::CLOCK_STALE) };
            assert_eq!(why(&answer), wanted, "{back} slots back");
            let answer = kernel.ask(Hook::Egress, &reply(false));
            assert_eq!(answer.permit, permit, "{back} slots back: the reply");
        }
        kernel.shift_clock(0);
    }
}

const KEY_MISSING: (bool, u8) = (false, reason::KEY_MISSING);
const EPOCH_EXPIRED: (bool, u8) = (false, reason::EPOCH_EXPIRED);

#[test]
fn after_the_last_staged_epoch_nothing_labelled_passes() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    for (hook, v6) in arrivals() {
        kernel.shift_clock(0);
        let first = slot_now() >> 4;
        // Epochs of 16 slots: this one and the next but one.
        kernel.set_keys(keys(4, [first, first + 2]));
        let sent = spec(v6, Transport::Udp);
        let to_dns = Spec { destination: (sent.destination.ip(), 53).into(), ..sent }.frame();
        let begin = |epoch: u64| epoch << 4;
        for (slot, wanted) in [
            (begin(first) + 2, PERMIT),
            (begin(first + 1) + 2, KEY_MISSING),
            (begin(first + 2) + 2, PERMIT),
            (begin(first + 3) - 1, PERMIT),
            (begin(first + 3), EPOCH_EXPIRED),
            (begin(first + 9), EPOCH_EXPIRED),
            // The epoch whose number is that of the first one modulo 16.
            (begin(first + 16), EPOCH_EXPIRED),
        ] {
            let epoch = slot >> 4;
            let (came, left) = loop {
                let verifier = kernel.verifier(7);
                kernel.shift_clock(slot.cast_signed() - verifier.slot.cast_signed());
                let label = api_label(&compiled, &verifier, 4)
                    .with_slot(slot as u16)
                    .with_epoch((epoch % EPOCHS as u64) as u8);
                let frame = spec(v6, ACK).labelled(&label, (0, epoch.swap_bytes()));
                let answers = (kernel.ask(hook, &frame), kernel.ask(Hook::Egress, &to_dns));
                if sure_slot() == Some(verifier.slot) {
                    break answers;
                }
            };
            assert_eq!(why(&came), wanted, "{hook:?} {v6} {slot}");
            assert_eq!(why(&left), wanted, "{hook:?} {v6} {slot}: stamping");
        }
    }
}

#[test]
fn old_epochs_leave_the_kernel() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    let slot = kernel.verifier(7).slot;
    let present = slot >> 10;
    let held = |kernel: &Kernel| {
        let map = object::map_array(&kernel.place.pin(names::map::KEYS)).unwrap();
        let tables = [0, 1].map(|buffer| map.read::<KeyTable>(buffer, 0).unwrap());
        tables.map(|table| {
            let held = table.entries.iter().filter(|entry| entry.k0 | entry.k1 != 0);
            let mut epochs: Vec<u64> = held.map(|entry| entry.not_before_slot >> 10).collect();
            epochs.sort_unstable();
            epochs
        })
    };
    // A second generation, so that both buffers hold keys.
    kernel.apply(&compiled.image);
    let mut keys = keys(10, present - 9..present + 3);
    kernel.set_keys(keys);
    let wanted: Vec<u64> = (present - 1..present + 3).collect();
    assert_eq!(held(&kernel), [wanted.clone(), wanted]);
    keys = kernel.ring().read(7).unwrap().unwrap();
    keys.rotate(slot + 2048, 4).unwrap();
    assert_eq!(keys.epochs().next().unwrap().epoch, present + 1, "the file forgets too");
    kernel.set_keys(keys);
    // The kernel has what the present needs of it.
    let wanted: Vec<u64> = (present + 1..present + 7).collect();
    assert_eq!(held(&kernel), [wanted.clone(), wanted]);
}

/// Keys of which each sender has its own, and the verifier of now.
fn each(kernel: &mut Kernel) -> DomainKeys {
    let present = slot_now() >> 14;
    let mut keys = keys(14, present..present + 3);
    keys.senders = Senders::Each;
    let text = String::from_utf8(keys.to_text().unwrap().to_vec()).unwrap();
    kernel.set_keys(keys);
    DomainKeys::from_text(&text).unwrap()
}

/// The key that a ring gives to the sender of a label.
fn key_of(keys: &DomainKeys, label: &Label, slot: u64) -> (u64, u64) {
    let mut entries = keys.entries(slot);
    let (_, entry) = entries.find(|(_, entry)| entry.covers(slot)).unwrap();
    let [k0, k1] = entry.of_sender(keys.senders.word(), label).unwrap();
    (k0, k1)
}

#[test]
fn each_sender_has_a_key_of_its_own() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    let ring = each(&mut kernel);
    for (hook, v6) in arrivals() {
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let own = key_of(&ring, &label, verifier.slot);
        let frame = spec(v6, ACK);
        let bad_mac = (false, reason::BAD_MAC);
        let another = key_of(&ring, &label.with_subject(label.subject() ^ 1), verifier.slot);
        for (key, wanted) in [(own, PERMIT), (verifier.key, bad_mac), (another, bad_mac)] {
            for _ in 0..2 {
                let answer = kernel.ask(hook, &frame.labelled(&label, key));
                assert_eq!(why(&answer), wanted, "{hook:?} {v6}");
            }
        }
    }
    // Where all senders share a key, nobody's own is believed.
    let verifier = kernel.verifier(7);
    let label = api_label(&compiled, &verifier, 4);
    let frame = spec(false, ACK);
    let own = key_of(&each(&mut kernel), &label, verifier.slot);
    let mut shared = keys(14, [slot_now() >> 14]);
    shared.senders = Senders::All;
    kernel.set_keys(shared);
    for (key, wanted) in [(verifier.key, PERMIT), (own, (false, reason::BAD_MAC))] {
        assert_eq!(why(&kernel.ask(Hook::Ingress, &frame.labelled(&label, key))), wanted);
    }
}

#[test]
fn a_node_with_the_key_of_one_sender_stamps_as_that_one_only() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let mut kernel = Kernel::new(&compiled.image);
    let all = each(&mut kernel);
    let sends = |v6| {
        let spec = spec(v6, Transport::Udp);
        Spec { destination: (spec.destination.ip(), 53).into(), ..spec }
    };
    let stamped = |kernel: &mut Kernel, v6: bool| {
        let answer = kernel.ask(Hook::Egress, &sends(v6).frame());
        assert_eq!(why(&answer), PERMIT);
        frame::label_of(&answer.frame)
    };
    let ledger = stamped(&mut kernel, false).0.subject();
    for v6 in [false, true] {
        for keys in [None, all.for_sender(ledger)] {
            let verifier = kernel.verifier(7);
            if let Some(keys) = keys {
                kernel.set_keys(keys);
            }
            let (label, mac) = stamped(&mut kernel, v6);
            let (k0, k1) = key_of(&all, &label, verifier.slot);
            assert_eq!(mac, mac::mac(k0, k1, &label, &sends(v6).flow()), "{v6}");
        }
        // It cannot be used for anybody else: neither to stamp, nor to believe.
        kernel.set_keys(all.for_sender(ledger + 1000).unwrap());
        let sender_key = (false, reason::SENDER_KEY);
        assert_eq!(why(&kernel.ask(Hook::Egress, &sends(v6).frame())), sender_key);
        let verifier = kernel.verifier(7);
        let label = api_label(&compiled, &verifier, 4);
        let own = key_of(&all, &label, verifier.slot);
        let answer = kernel.ask(Hook::Ingress, &spec(v6, ACK).labelled(&label, own));
        assert_eq!(why(&answer), sender_key);
        let text = String::from_utf8(all.to_text().unwrap().to_vec()).unwrap();
        kernel.set_keys(DomainKeys::from_text(&text).unwrap());
    }
}
