//! Shapes of labels: what enforcement points refuse is marked, and nothing else.

use std::collections::BTreeSet;

use govc_abi::label::{FLAG_REPLY, FLAG_RESERVED, FLAG_SEQ, FLAG_TRACE, Label};
use govc_tests::{
    frame::{ETH, body_at, fix_checksum, fragment, insert, wrap},
    random::Random,
    reference,
    wireshark::{EXPERTS, dissect, dissect_capture, info, pcap, tshark_available},
};

use crate::{any_label, plain, tagged, udp};

/// A frame with these bytes as its IPv4 options, a multiple of four.
fn with_options(options: &[u8]) -> Vec<u8> {
    let mut frame = udp(false);
    let at = ETH + 20;
    frame.splice(at..at, options.iter().copied());
    frame[ETH] = 0x45 + (options.len() / 4) as u8;
    let total = (frame.len() - ETH) as u16;
    frame[ETH + 2..ETH + 4].copy_from_slice(&total.to_be_bytes());
    fix_checksum(&mut frame);
    frame
}

/// A frame with these extension headers: the number of the first, and all their bytes, where the
/// last one's next header is to be UDP.
fn with_extensions(first: u8, headers: &[&[u8]]) -> Vec<u8> {
    let mut frame = udp(true);
    let at = ETH + 40;
    frame.splice(at..at, headers.concat());
    frame[ETH + 6] = first;
    let payload = (frame.len() - at) as u16;
    frame[ETH + 4..ETH + 6].copy_from_slice(&payload.to_be_bytes());
    frame
}

const UDP: u8 = 17;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const OPTIONS: u8 = 60;

/// A frame, the experts that it calls for, and whether the label's fields can be read.
type Case = (&'static str, Vec<u8>, &'static [&'static str], bool);

const LENGTH: &str = "govc.shape.length";
const POSITION: &str = "govc.shape.position";
const OTHER_OPTIONS: &str = "govc.shape.others";
const EXTENSION: &str = "govc.shape.extension";
const FRAGMENTED: &str = "govc.shape.fragment";
const TRUNCATED: &str = "govc.shape.truncated";

fn content_cases() -> Vec<Case> {
    let with = |label: Label| insert(&udp(false), &label, 1);
    vec![
        ("as it should be", with(plain()), &[], true),
        ("version 0", with(plain().with_version(0)), &["govc.version.unknown"], true),
        ("version 2", with(plain().with_version(2)), &["govc.version.unknown"], true),
        ("reply, trace", with(plain().with_flags(FLAG_REPLY | FLAG_TRACE)), &[], true),
        ("seq", with(plain().with_flags(FLAG_SEQ)), &["govc.flags.seq.set"], true),
        ("reserved", with(plain().with_flags(FLAG_RESERVED)), &["govc.flags.reserved.set"], true),
    ]
}

fn v4_cases() -> Vec<Case> {
    let body = plain().encode(1);
    let option = |len: u8| [&[0x9e, len], &body[..]].concat();
    let around = |before: &[u8], len: u8, after: &[u8]| {
        with_options(&[before, &option(len), after].concat())
    };
    let fragment = |bits: u16| {
        let mut frame = around(&[1, 1], 30, &[]);
        frame[ETH + 6..ETH + 8].copy_from_slice(&bits.to_be_bytes());
        fix_checksum(&mut frame);
        frame
    };
    let mut short = around(&[1, 1], 30, &[]);
    short[ETH + 2..ETH + 4].copy_from_slice(&51_u16.to_be_bytes());
    let mut words = around(&[1, 1], 30, &[]);
    words[ETH] = 0x4c;
    vec![
        ("unlabelled", udp(false), &[], false),
        ("built byte by byte", around(&[1, 1], 30, &[]), &[], true),
        ("NOPs behind it", around(&[], 30, &[1, 1]), &[POSITION], true),
        ("a longer header", around(&[1, 1], 30, &[1; 4]), &[POSITION], true),
        ("a later place", around(&[1; 6], 30, &[]), &[POSITION], true),
        ("a router alert", around(&[0x94, 4, 0, 0], 30, &[1, 1]), &[POSITION, OTHER_OPTIONS], true),
        ("an option instead of NOPs", around(&[0x19, 2], 30, &[]), &[OTHER_OPTIONS], true),
        (
            "an option behind it",
            around(&[1, 1], 30, &[0x94, 4, 0, 0]),
            &[POSITION, OTHER_OPTIONS],
            true,
        ),
        ("length 0", around(&[1, 1], 0, &[]), &[LENGTH], false),
        ("length 29", around(&[1, 1], 29, &[]), &[LENGTH], false),
        ("length 32", around(&[1, 1], 32, &[]), &[LENGTH], false),
        ("a header of 12 words", words, &[LENGTH, POSITION], false),
        ("behind the end of options", around(&[0, 0], 30, &[]), &[], false),
        ("another option", with_options(&[7, 7, 4, 0, 0, 0, 0, 0]), &[], false),
        ("do not fragment", fragment(0x4000), &[], true),
        ("more fragments", fragment(0x2000), &[FRAGMENTED], true),
        ("a later fragment", fragment(0x0010), &[FRAGMENTED], true),
        ("the packet ends", short, &[TRUNCATED], false),
    ]
}

fn v6_cases() -> Vec<Case> {
    // The MAC's last byte is read as an option where the length is one too few.
    let body = plain().encode(1);
    let option = |kind: u8, len: u8| [&[kind, len], &body[..]].concat();
    let block =
        |next: u8, units: u8, kind: u8, len: u8| [&[next, units], &option(kind, len)[..]].concat();
    let right = |next: u8| block(next, 3, 0x1e, 28);
    let one = |header: &[u8]| with_extensions(OPTIONS, &[header]);
    let pad = |next: u8| [next, 0, 1, 4, 0, 0, 0, 0];
    let two = [&block(UDP, 7, 0x1e, 28), &option(0x5e, 28)[..], &[1, 0]].concat();
    let padded_before = [&[UDP, 4, 1, 2, 0, 0], &option(0x1e, 28)[..], &[1, 2, 0, 0]].concat();
    let padded_behind = [&block(UDP, 4, 0x1e, 28)[..], &[1, 6, 0, 0, 0, 0, 0, 0]].concat();
    let fragment = [UDP, 0, 0, 0, 0, 0, 0, 9];
    let mut short = one(&right(UDP));
    short[ETH + 4..ETH + 6].copy_from_slice(&31_u16.to_be_bytes());
    let mut cases: Vec<Case> = vec![
        ("unlabelled", udp(true), &[], false),
        ("skip", one(&right(UDP)), &[], true),
        ("discard", one(&block(UDP, 3, 0x5e, 28)), &[], true),
        ("another type", one(&block(UDP, 3, 0x3e, 28)), &[], false),
        ("padding only", one(&pad(UDP)), &[], false),
        ("length 27", one(&block(UDP, 3, 0x1e, 27)), &[LENGTH, OTHER_OPTIONS], false),
        ("length 29", one(&block(UDP, 3, 0x1e, 29)), &[LENGTH], false),
        ("a shorter header", one(&block(UDP, 2, 0x1e, 28)), &[LENGTH], false),
        ("padding before it", one(&padded_before), &[POSITION, OTHER_OPTIONS], true),
        ("padding behind it", one(&padded_behind), &[OTHER_OPTIONS], true),
        ("two labels", one(&two), &[POSITION, OTHER_OPTIONS], true),
        (
            "among hop-by-hop options",
            with_extensions(HOP_BY_HOP, &[&right(UDP)]),
            &[POSITION],
            true,
        ),
        (
            "behind hop-by-hop options",
            with_extensions(HOP_BY_HOP, &[&pad(OPTIONS), &right(UDP)]),
            &[POSITION],
            true,
        ),
        (
            "behind a fragment header",
            with_extensions(FRAGMENT, &[&[OPTIONS, 0, 0, 0, 0, 0, 0, 9], &right(UDP)]),
            &[POSITION],
            true,
        ),
        (
            "before destination options",
            with_extensions(OPTIONS, &[&right(OPTIONS), &pad(UDP)]),
            &[EXTENSION],
            true,
        ),
        (
            "before a routing header",
            with_extensions(OPTIONS, &[&right(ROUTING), &[UDP, 0, 253, 0, 0, 0, 0, 0]]),
            &[EXTENSION],
            true,
        ),
        (
            "before an experimental header",
            with_extensions(OPTIONS, &[&right(253), &pad(UDP)]),
            &[EXTENSION],
            true,
        ),
        (
            "before a fragment header",
            with_extensions(OPTIONS, &[&right(FRAGMENT), &fragment]),
            &[FRAGMENTED],
            true,
        ),
        ("the packet ends", short, &[TRUNCATED], false),
    ];
    for next in [51, 135, 139, 140, 254, 255] {
        let frame = with_extensions(OPTIONS, &[&right(next), &pad(UDP)]);
        cases.push(("before any extension header", frame, &[EXTENSION], true));
    }
    cases
}

#[test]
fn labels_of_fragments() {
    if !tshark_available() {
        return;
    }
    let mut random = Random::new(3);
    let mut cases = Vec::new();
    for case in 0..100 {
        let v6 = case % 2 == 0;
        let (label, mac) = (any_label(&mut random).with_version(1).with_flags(0), random.bits());
        let (offset, more) = (random.below(100) as u16, random.one_in(2));
        let offset = if more { offset } else { offset + 1 };
        let cut = fragment(&udp(v6), random.bits() as u32, offset, more);
        let in_tunnel = random.one_in(3);
        let frame = if in_tunnel { wrap(&cut, &label, mac) } else { insert(&cut, &label, mac) };
        cases.push((label, mac, in_tunnel, tagged(&frame, random.below(3))));
    }
    let frames: Vec<_> = cases.iter().map(|(.., frame)| frame.clone()).collect();
    let infos = info(&frames, None);
    for ((shown, (label, mac, in_tunnel, frame)), info) in
        dissect(&frames).iter().zip(&cases).zip(infos)
    {
        shown.compare(label, *mac, frame);
        assert_eq!(shown.experts(), if *in_tunnel { [].into() } else { [FRAGMENTED].into() });
        assert_eq!(info.contains(", fragment]"), !in_tunnel, "{info}");
    }
    // Nobody looks into a tunnel that is cut.
    let cut = fragment(&wrap(&udp(false), &plain(), 5), 7, 0, true);
    assert_eq!(dissect(&[cut])[0].experts(), [OTHER_OPTIONS].into());
    // Nor at what stands behind a fragment header and is one more.
    let twice = with_extensions(
        OPTIONS,
        &[
            &[&[FRAGMENT, 3, 0x1e, 28], &plain().encode(1)[..]].concat(),
            &[OPTIONS, 0, 0, 1, 0, 0, 0, 9],
            &[UDP, 0, 1, 4, 0, 0, 0, 0],
        ],
    );
    assert_eq!(dissect(&[twice])[0].experts(), [FRAGMENTED, EXTENSION].into());
}

#[test]
fn whatever_enforcement_points_refuse_is_marked_and_nothing_else() {
    if !tshark_available() {
        return;
    }
    let cases: Vec<Case> =
        [content_cases(), v4_cases(), v6_cases()].into_iter().flatten().collect();
    let frames: Vec<_> = cases.iter().map(|(_, frame, ..)| frame.clone()).collect();
    let mut seen = BTreeSet::new();
    for (shown, (what, frame, experts, readable)) in dissect(&frames).iter().zip(&cases) {
        let wanted: BTreeSet<&str> = experts.iter().copied().collect();
        assert_eq!(shown.experts(), wanted, "{what}: {frame:02x?}");
        assert_eq!(shown.has_fields(), *readable, "{what}: {frame:02x?}");
        seen.extend(wanted);
    }
    // The one that is left needs names.
    let all: BTreeSet<&str> = EXPERTS.iter().copied().collect();
    assert_eq!(all.difference(&seen).collect::<Vec<_>>(), [&"govc.constraints.unknown"]);
}

#[test]
fn the_reference_agrees_on_which_shapes_are_right() {
    if !tshark_available() {
        return;
    }
    const SEED: u64 = 2;
    let mut random = Random::new(SEED);
    let mut frames = Vec::new();
    for _ in 0..600 {
        let v6 = random.one_in(2);
        let mut frame = insert(&udp(v6), &any_label(&mut random).with_version(1), random.bits());
        for _ in 0..1 + random.below(2) {
            // Header length, fragments, options; next headers, lengths, options.
            let places: &[usize] =
                if v6 { &[6, 40, 41, 42, 43] } else { &[0, 6, 7, 20, 21, 22, 23] };
            let at = ETH + random.pick(places);
            let value = *random.pick(&[0, 1, 2, 3, 4, 17, 28, 30, 43, 44, 58, 60, 0x5e, 0x9e, 253]);
            frame[at] = if at == ETH { 0x45 + value % 11 } else { value };
        }
        frames.push(frame);
    }
    let mut right = 0;
    for (shown, frame) in dissect(&frames).iter().zip(&frames) {
        let shape_is_right = shown.has_fields()
            && shown
                .experts()
                .iter()
                .all(|expert| *expert == FRAGMENTED || !expert.starts_with("govc.shape."));
        let parsed = reference::parse(frame).and_then(|parsed| parsed.label);
        assert_eq!(shape_is_right, parsed.is_some(), "{frame:02x?} {:?}", shown.experts());
        if let Some((label, _, mac)) = parsed {
            shown.compare(&label, u64::from_le_bytes(mac), frame);
            right += 1;
        }
    }
    assert!((10..590).contains(&right), "{right}");
}

#[test]
fn a_capture_may_end_anywhere() {
    if !tshark_available() {
        return;
    }
    for v6 in [false, true] {
        let frame = insert(&udp(v6), &plain(), 1);
        let cuts: Vec<usize> = (0..=frame.len()).collect();
        let capture = pcap(cuts.iter().map(|&cut| (frame.as_slice(), cut)));
        // The body follows type and length of its option.
        let body = body_at(&frame);
        for (shown, cut) in dissect_capture(&capture, None, cuts.len()).iter().zip(cuts) {
            assert_eq!(shown.has_fields(), cut >= body + 28, "{cut}");
            let told = shown.experts().into_iter().collect::<Vec<_>>();
            let wanted: &[&str] = if (body..body + 28).contains(&cut) { &[TRUNCATED] } else { &[] };
            assert_eq!(told, wanted, "{cut}");
        }
    }
}

#[test]
fn bytes_that_make_no_sense_break_nothing() {
    if !tshark_available() {
        return;
    }
    const SEED: u64 = 3;
    let mut random = Random::new(SEED);
    let mut frames = Vec::new();
    for _ in 0..1000 {
        let v6 = random.one_in(2);
        let mut frame = insert(&udp(v6), &plain(), 1);
        for _ in 0..1 + random.below(12) {
            let at = ETH + random.below(80);
            frame[at] = random.bits() as u8;
        }
        frames.push(frame);
    }
    // An error of the script would show.
    dissect(&frames);
}
