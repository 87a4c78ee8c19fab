//! The dissector for Wireshark, held field by field against the labels that were put into captures.

mod manual;
mod names;
mod shapes;

use std::collections::BTreeSet;

use govc_abi::label::{self, FLAG_RESERVED, FLAG_SEQ, Label};
use govc_tests::{
    frame::{ETH, Spec, Transport, fix_checksum, insert, tunnel_body_at, wrap},
    ledger::{ACK, SYN},
    random::Random,
    wireshark::{CAPTURED, Scratch, dissect, info, printed, tshark, tshark_available, whole},
};
use serde_json::Value;

/// The frame within so many VLANs.
fn tagged(frame: &[u8], vlans: usize) -> Vec<u8> {
    let mut out = frame.to_vec();
    for vlan in 0..vlans {
        out.splice(12..12, [0x81, 0, 0, 5 + vlan as u8]);
    }
    out
}

fn spec(v6: bool, transport: Transport, payload: usize) -> Spec {
    let (source, destination) = if v6 {
        ("[2001:db8::1]:40000", "[2001:db8::2]:40001")
    } else {
        ("192.0.2.1:40000", "192.0.2.2:40001")
    };
    Spec {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        transport,
        payload,
    }
}

fn udp(v6: bool) -> Vec<u8> {
    spec(v6, Transport::Udp, 80).frame()
}

fn plain() -> Label {
    Label::default().with_version(1).with_domain(7).with_subject(258).with_life(2)
}

fn any_label(random: &mut Random) -> Label {
    let words = [random.bits(), random.bits(), random.bits()];
    let label = Label { head: words[0], mid: words[1], tail: words[2] as u32, pad: 0 };
    if random.one_in(4) { label } else { label.with_version(1) }
}

#[test]
fn the_vectors_of_the_manual() {
    if !tshark_available() {
        return;
    }
    let vectors: Vec<Value> =
        serde_json::from_str(include_str!("../../../docs/label-vectors.json")).unwrap();
    let bytes = |vector: &Value, field: &str| -> Vec<u8> {
        let hex = vector[field].as_str().unwrap().as_bytes();
        hex.chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    };
    let (mut frames, mut bodies) = (Vec::new(), Vec::new());
    for vector in &vectors {
        for vlans in 0..3 {
            frames.push(tagged(&bytes(vector, "labelled_frame"), vlans));
            bodies.push(Some(bytes(vector, "body")));
            frames.push(tagged(&bytes(vector, "unlabelled_frame"), vlans));
            bodies.push(None);
        }
    }
    for ((shown, frame), body) in dissect(&frames).iter().zip(&frames).zip(bodies) {
        assert_eq!(shown.experts(), BTreeSet::new(), "{frame:02x?}");
        match body {
            Some(body) => {
                let (label, mac) = Label::decode(body.as_slice().try_into().unwrap());
                shown.compare(&label, mac, frame);
            }
            None => assert!(!shown.has_fields() && shown.text("govc.carriage").is_empty()),
        }
    }
}

#[test]
fn hundreds_of_labels_that_nobody_chose() {
    if !tshark_available() {
        return;
    }
    const SEED: u64 = 1;
    let mut random = Random::new(SEED);
    let mut cases = Vec::new();
    for _ in 0..500 {
        let v6 = random.one_in(2);
        let transports = [
            Transport::Tcp { syn: random.one_in(2), ack: random.one_in(2), sequence: 5 },
            Transport::Udp,
            Transport::Icmp(if v6 { 128 } else { 8 }, 0),
            Transport::Other(47),
            Transport::Other(132),
        ];
        let (mut label, mac) = (any_label(&mut random), random.bits());
        if random.one_in(4) {
            // As far from the capture's clock as slots go, and hardly at all.
            let aside = *random.pick(&[0, 1, 0x7fff, 0x8000, 0x8001, 0xffff]);
            label = label.with_slot(((CAPTURED / 2) as u16).wrapping_add(aside));
        }
        let payload = random.below(60);
        let mut frame = insert(&spec(v6, *random.pick(&transports), payload).frame(), &label, mac);
        if v6 && random.one_in(2) {
            frame[ETH + 42] = label::V6_OPTION_DISCARD;
        }
        cases.push((v6, label, mac, tagged(&frame, random.below(3))));
    }
    let frames: Vec<_> = cases.iter().map(|(.., frame)| frame.clone()).collect();
    for (shown, (v6, label, mac, frame)) in dissect(&frames).iter().zip(&cases) {
        shown.compare(label, *mac, frame);
        assert_eq!(shown.number("govc.carriage"), Some(if *v6 { 6 } else { 4 }));
        let expected = [
            ("govc.version.unknown", label.version() != 1),
            ("govc.flags.reserved.set", label.flags() & FLAG_RESERVED != 0),
            ("govc.flags.seq.set", label.flags() & FLAG_SEQ != 0),
        ];
        let expected = expected.iter().filter(|(_, holds)| *holds).map(|(name, _)| *name);
        assert_eq!(shown.experts(), expected.collect(), "{label:x?}");
    }
}

#[test]
fn labels_in_tunnels() {
    if !tshark_available() {
        return;
    }
    let mut random = Random::new(2);
    let mut cases = Vec::new();
    for case in 0..100 {
        let v6 = case % 2 == 0;
        let transports = [Transport::Udp, Transport::Icmp(if v6 { 128 } else { 8 }, 0), ACK, SYN];
        let (label, mac) = (any_label(&mut random).with_version(1), random.bits());
        let frame = wrap(&spec(v6, *random.pick(&transports), 60).frame(), &label, mac);
        cases.push((label, mac, tagged(&frame, random.below(3))));
    }
    let frames: Vec<_> = cases.iter().map(|(.., frame)| frame.clone()).collect();
    for (shown, (label, mac, frame)) in dissect(&frames).iter().zip(&cases) {
        shown.compare(label, *mac, frame);
        assert_eq!(shown.number("govc.carriage"), Some(17));
    }
    // Every single bit in front of the label: it is another packet, or one that is refused.
    let good = wrap(&udp(false), &plain(), 5);
    let body = tunnel_body_at(&good);
    let flipped: Vec<_> = ((body - 12) * 8..body * 8)
        .map(|bit| {
            let mut frame = good.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            frame
        })
        .collect();
    for (shown, frame) in dissect(&flipped).iter().zip(&flipped) {
        let shows = !shown.text("govc.carriage").is_empty();
        assert_eq!(shows, !shown.text("govc.refused").is_empty(), "{frame:02x?}");
    }
    // Wireshark itself reads the frame as Geneve with one option, and the packet inside.
    let scratch = Scratch::new();
    let fields = ["-e", "geneve.option.class", "-e", "geneve.proto_type", "-e", "udp.dstport"];
    let arguments = [&["-T", "fields", "-E", "aggregator=,"], &fields[..]].concat();
    let text = printed(tshark(&scratch, &whole(&[good]), None, &arguments));
    assert!(text.contains("0xff9e") && text.contains("0x0800"), "{text}");
    assert!(text.contains("6081,40001"), "{text}");
}

/// An ICMP error with this frame's IP packet in it.
fn quoting(frame: &[u8], v6: bool) -> Vec<u8> {
    let kind = if v6 { 1 } else { 3 };
    let mut error = spec(v6, Transport::Icmp(kind, 1), 0).frame();
    let from = error.len();
    // Both kinds have four bytes that are not used.
    error[from - 4..].fill(0);
    error.extend(&frame[ETH..]);
    let len = (error.len() - ETH) as u16;
    if v6 {
        error[ETH + 4..ETH + 6].copy_from_slice(&(len - 40).to_be_bytes());
    } else {
        error[ETH + 2..ETH + 4].copy_from_slice(&len.to_be_bytes());
        fix_checksum(&mut error);
    }
    error
}

#[test]
fn labels_in_quotes_and_tunnels_are_shown_too() {
    if !tshark_available() {
        return;
    }
    let inner = plain().with_subject(300);
    let mut frames = Vec::new();
    for v6 in [false, true] {
        let labelled = insert(&udp(v6), &inner, 1);
        let quote = quoting(&labelled, v6);
        frames.push(insert(&quote, &plain(), 2));
        frames.push(quote);
    }
    // IPv4 in IPv4: two labels, none of them a quote.
    let mut tunnel = spec(false, Transport::Other(4), 0).frame();
    tunnel.truncate(ETH + 20);
    tunnel.extend(&insert(&udp(false), &inner, 1)[ETH..]);
    let len = (tunnel.len() - ETH) as u16;
    tunnel[ETH + 2..ETH + 4].copy_from_slice(&len.to_be_bytes());
    frames.push(insert(&tunnel, &plain(), 2));

    let shown = dissect(&frames);
    let told: Vec<_> = shown
        .iter()
        .map(|shown| (shown.numbers("govc.subject"), shown.numbers("govc.quoted")))
        .collect();
    let wanted = [
        (vec![258, 300], vec![1]),
        (vec![300], vec![1]),
        (vec![258, 300], vec![1]),
        (vec![300], vec![1]),
        (vec![258, 300], vec![]),
    ];
    assert_eq!(told, wanted);
    let info = info(&frames, None);
    assert!(info[0].ends_with(" [govc 7:258] [govc quoted 7:300]"), "{}", info[0]);
    assert!(info[4].ends_with(" [govc 7:258] [govc 7:300]"), "{}", info[4]);
}
