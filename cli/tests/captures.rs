//! `explain` of packets that were captured.

#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    borrow::Cow,
    fs,
    path::Path,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use etherparse::PacketBuilder;
use govc_abi::{
    label::{FLAG_REPLY, Label, SLOT_NS},
    mac::{self, Flow, v4_mapped},
};
use govc_loader::keyring::{DomainKeys, KeyRing};
use pcap_file::{
    DataLink,
    pcap::{PcapHeader, PcapPacket, PcapWriter},
    pcapng::{
        PcapNgWriter,
        blocks::{
            enhanced_packet::EnhancedPacketBlock, interface_description::InterfaceDescriptionBlock,
        },
    },
};
use serde_json::Value;
use tempfile::TempDir;

const VOCABULARY: &str = include_str!("../../examples/policies/acme/vocabulary.gov");
const POLICY: &str = "package p\nuse acme.vocabulary\n\
    zone lan = interface \"eth0\"\n\
    deliver on lan { object acme.payments.ledger }\n\
    policy ledger {\n\
    on ingress to acme.payments.ledger\n\
    permit read { from acme.payments.api  operation ledger.read  proto udp port 5432 }\n\
    deny guests { from acme.guest }\n\
    }\n";

struct Case {
    directory: TempDir,
    /// Of acme.payments.api, with operation ledger.read.
    label: Label,
    guest: Label,
}

impl Case {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("acme")).unwrap();
        fs::write(directory.path().join("acme/vocabulary.gov"), VOCABULARY).unwrap();
        fs::write(directory.path().join("p.gov"), POLICY).unwrap();
        let case = Self { directory, label: Label::default(), guest: Label::default() };
        case.govc(&["build", "p.gov", "-o", "p.img"]);
        let names: Value =
            serde_json::from_str(&case.govc(&["inspect", "p.img", "--json"])).unwrap();
        let domain = &names["domains"][0];
        let number = |value: &Value| u32::try_from(value.as_u64().unwrap()).unwrap();
        let named = |list: &str, name: &str| {
            let list = domain[list].as_array().unwrap();
            number(&list.iter().find(|one| one["name"] == name).unwrap()["number"])
        };
        let subject = |path: &str| {
            let scopes = domain["scopes"].as_array().unwrap();
            let scope = scopes.iter().find(|one| one["path"] == path).unwrap();
            number(&scope["subjects"][0])
        };
        let label = Label::default()
            .with_version(1)
            .with_life(2)
            .with_domain(u16::try_from(number(&domain["number"])).unwrap())
            .with_operation(u16::try_from(named("operations", "ledger.read")).unwrap());
        let guest = label.with_subject(subject("guest"));
        Self { label: label.with_subject(subject("payments.api")), guest, ..case }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.directory.path().join(name)
    }

    fn govc(&self, arguments: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_govc"))
            .current_dir(self.directory.path())
            .args(arguments)
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Verdict and what it is by, packet by packet.
    fn verdicts(&self, more: &[&str]) -> Vec<(String, String)> {
        let arguments = [&["explain", "p.gov", "c.pcap", "--json"], more].concat();
        let rows: Value = serde_json::from_str(&self.govc(&arguments)).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        rows.as_array()
            .unwrap()
            .iter()
            .map(|row| (text(&row["verdict"]), text(&row["by"])))
            .collect()
    }
}

/// A datagram to port 5432, with this label if any.
fn frame(label: Option<(Label, u64)>) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6]);
    let builder = match label {
        None => builder.ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64),
        Some((label, mac)) => {
            let mut options = vec![1, 1, 0x9e, 30];
            options.extend(label.encode(mac));
            let mut header = etherparse::Ipv4Header::new(
                0,
                64,
                etherparse::IpNumber::UDP,
                [10, 0, 0, 1],
                [10, 0, 0, 2],
            )
            .unwrap();
            header.options = options.as_slice().try_into().unwrap();
            builder.ip(etherparse::IpHeaders::Ipv4(header, etherparse::Ipv4Extensions::default()))
        }
    };
    builder.udp(40_000, 5432).write(&mut frame, b"data").unwrap();
    frame
}

fn write(path: &Path, frames: &[Vec<u8>], time: Duration) {
    let file = fs::File::create(path).unwrap();
    let header = PcapHeader { datalink: DataLink::ETHERNET, ..PcapHeader::default() };
    let mut writer = PcapWriter::with_header(file, header).unwrap();
    for frame in frames {
        let length = u32::try_from(frame.len()).unwrap();
        writer.write_packet(&PcapPacket::new(time, length, frame)).unwrap();
    }
}

fn expected(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(verdict, by)| ((*verdict).to_owned(), (*by).to_owned())).collect()
}

#[test]
fn each_packet_of_a_capture_gets_its_verdict() {
    let case = Case::new();
    let mut vlan = frame(Some((case.label, 0)));
    vlan.splice(12..12, [0x81, 0, 0, 7]);
    let mut odd = frame(Some((case.label, 0)));
    odd[14 + 20] = 0;
    let mut arp = frame(None);
    arp[12..14].copy_from_slice(&[8, 6]);
    let mut fragment = frame(None);
    fragment[14 + 6] |= 0x20;
    let frames = [
        frame(Some((case.label, 0))),
        frame(Some((case.guest, 0))),
        frame(None),
        vlan,
        odd,
        arp,
        fragment,
        frame(Some((case.label.with_domain(9), 0))),
        frame(Some((case.label.with_constraints(1 << 15), 0))),
        frame(Some((case.label.with_version(2), 0))),
        frame(None)[..20].to_vec(),
    ];
    write(&case.path("c.pcap"), &frames, Duration::ZERO);
    let verdicts = expected(&[
        ("permit", "ledger.read"),
        ("deny", "ledger.guests"),
        ("deny", "default"),
        ("permit", "ledger.read"),
        ("deny", "options"),
        ("permit", "link_control"),
        ("deny", "fragment"),
        ("deny", "domain_unknown"),
        ("deny", "constraint_unknown"),
        ("deny", "version"),
        ("deny", "truncated"),
    ]);
    assert_eq!(case.verdicts(&[]), verdicts);
    let table = case.govc(&["explain", "p.gov", "c.pcap"]);
    let first = table.lines().nth(1).unwrap();
    for part in ["permit", "ledger.read", "p.gov:7", "from acme.payments.api", "udp port 5432"] {
        assert!(first.contains(part), "{part} in {first}");
    }

    // One of them, in full.
    let one = case.govc(&["explain", "p.gov", "c.pcap", "--packet", "2"]);
    for part in ["deny by ledger.guests", "p.gov:8", "packet { from acme.guest"] {
        assert!(one.contains(part), "{part} in {one}");
    }
    let bare = case.govc(&["explain", "p.gov", "c.pcap", "--packet", "3"]);
    for part in ["deny by default", "not ledger.read", "`from` wants acme.payments.api"] {
        assert!(bare.contains(part), "{part} in {bare}");
    }
    let odd = case.govc(&["explain", "p.gov", "c.pcap", "--packet", "5"]);
    assert!(odd.contains("deny by options: IP options"), "{odd}");

    // The same packets as pcapng.
    let mut writer = PcapNgWriter::new(fs::File::create(case.path("c.pcap")).unwrap()).unwrap();
    let mut interface = InterfaceDescriptionBlock::new(DataLink::ETHERNET, 0);
    interface.options.clear();
    writer.write_pcapng_block(interface).unwrap();
    for frame in &frames {
        let block = EnhancedPacketBlock {
            interface_id: 0,
            timestamp: Duration::ZERO,
            original_len: u32::try_from(frame.len()).unwrap(),
            data: Cow::Borrowed(frame),
            options: Vec::new(),
        };
        writer.write_pcapng_block(block).unwrap();
    }
    drop(writer);
    assert_eq!(case.verdicts(&[]), verdicts);
}

#[test]
fn labels_are_verified_with_keys_and_by_the_clock_of_the_capture() {
    let case = Case::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let slot = u64::try_from(now.as_nanos()).unwrap() / SLOT_NS;
    let ring = KeyRing::new(case.path("keys"));
    let keys = DomainKeys::generate("acme", case.label.domain(), 14, 2).unwrap();
    ring.write(&keys).unwrap();
    let (epoch, key) = keys.entries(slot).find(|(_, key)| key.covers(slot)).unwrap();
    let label = case.label.with_slot(slot as u16).with_epoch(epoch as u8 & 15);
    let flow = Flow {
        source: v4_mapped(u32::from_ne_bytes([10, 0, 0, 1])),
        destination: v4_mapped(u32::from_ne_bytes([10, 0, 0, 2])),
        source_port: 40_000_u16.to_be(),
        destination_port: 5432_u16.to_be(),
        protocol: 17,
        ..Flow::default()
    };
    let good = mac::mac(key.k0, key.k1, &label, &flow);
    let old = label.with_slot((slot - 40) as u16);
    let early = label.with_slot((slot + 7) as u16);
    let frames = [(label, good), (label, good ^ 1), (old, good), (early, good)];
    let frames: Vec<_> = frames.into_iter().map(|one| frame(Some(one))).collect();
    write(&case.path("c.pcap"), &frames, now);
    let permit = ("permit", "ledger.read");
    let times = [("deny", "slot_expired"), ("deny", "slot_future")];
    assert_eq!(case.verdicts(&[]), expected(&[permit, permit, times[0], times[1]]));
    let verified = expected(&[permit, ("deny", "bad_mac"), times[0], times[1]]);
    assert_eq!(case.verdicts(&["--keys", "keys"]), verified);
}

#[test]
fn replies_are_known_by_what_came_before() {
    let case = Case::new();
    let reply = frame(Some((case.guest.with_flags(FLAG_REPLY), 0)));
    let mut request = frame(Some((case.label, 0)));
    // The other way round.
    request[26..34].copy_from_slice(&[10, 0, 0, 2, 10, 0, 0, 1]);
    let ports = 14 + 20 + 32;
    request[ports..ports + 4]
        .copy_from_slice(&[5432_u16.to_be_bytes(), 40_000_u16.to_be_bytes()].concat());
    write(&case.path("c.pcap"), &[reply.clone(), request, reply], Duration::ZERO);
    let verdicts = [("deny", "ledger.guests"), ("deny", "default"), ("permit", "reply")];
    assert_eq!(case.verdicts(&["--complete"]), expected(&verdicts));
    // Its flow may be older than the capture.
    let verdicts = [("unknown", "ledger.guests"), ("deny", "default"), ("permit", "reply")];
    assert_eq!(case.verdicts(&[]), expected(&verdicts));
    let rows: Value =
        serde_json::from_str(&case.govc(&["explain", "p.gov", "c.pcap", "--json"])).unwrap();
    assert_eq!(rows[0]["assumes"], serde_json::json!(["mac", "flow"]));
    assert_eq!(rows[1]["assumes"], serde_json::json!(["mac"]));
    let table = case.govc(&["explain", "p.gov", "c.pcap"]);
    assert!(table.contains("--keys verifies") && table.contains("--complete"), "{table}");

    // Each alone has the verdict that it has among the others, and a reason that is no rule in words.
    for more in [&[][..], &["--complete"]] {
        for (at, (verdict, by)) in (1..).zip(case.verdicts(more)) {
            let number = at.to_string();
            let one = ["explain", "p.gov", "c.pcap", "--packet", &number];
            let told: Value =
                serde_json::from_str(&case.govc(&[&one[..], &["--json"], more].concat())).unwrap();
            assert_eq!(told["verdict"], verdict, "{number}: {told:#}");
            if by == "reply" {
                assert_eq!(told["reason"], "reply", "{told:#}");
                assert_eq!(told["text"], "reply of a permitted flow", "{told:#}");
            }
            let told = case.govc(&[&one[..], more].concat());
            let word = if verdict == "unknown" { "unknown: " } else { verdict.as_str() };
            assert!(told.contains(word), "{number}: {told}");
        }
    }
    let told = case.govc(&["explain", "p.gov", "c.pcap", "--packet", "3"]);
    assert!(told.contains("permit by reply: ") && !told.contains("deny"), "{told}");
}

#[test]
fn what_a_rule_would_do_stands_beside_what_is_enforced() {
    let case = Case::new();
    write(&case.path("c.pcap"), &[frame(Some((case.label, 0))), frame(None)], Duration::ZERO);
    assert!(!case.govc(&["explain", "p.gov", "c.pcap"]).contains("PENDING"));
    let observing = POLICY.replace("deny guests", "observe deny later { proto udp }\ndeny guests");
    fs::write(case.path("p.gov"), observing).unwrap();
    let rows: Value =
        serde_json::from_str(&case.govc(&["explain", "p.gov", "c.pcap", "--json"])).unwrap();
    let first = &rows[0];
    assert_eq!((&first["verdict"], &first["by"]), (&"permit".into(), &"ledger.read".into()));
    assert_eq!((&first["would"], &first["would_rule"]), (&"deny".into(), &"ledger.later".into()));
    // It would also decide what is denied as it is.
    assert_eq!((&rows[1]["verdict"], &rows[1]["by"]), (&"deny".into(), &"default".into()));
    assert_eq!(rows[1]["would_rule"], "ledger.later");
    let table = case.govc(&["explain", "p.gov", "c.pcap"]);
    assert!(table.lines().next().unwrap().contains("PENDING"), "{table}");
    assert!(table.lines().nth(1).unwrap().contains("deny by ledger.later"), "{table}");
}

#[test]
fn fragments_and_packets_with_options_are_explained_in_words() {
    let case = Case::new();
    let policy = POLICY.replace(
        "deny guests { from acme.guest }",
        "permit large { from acme.payments.api  proto udp  fragments }\n\
         deny guests { from acme.guest }\n\
         permit odd { from unlabelled  proto udp port 5432  options }",
    );
    fs::write(case.path("p.gov"), policy).unwrap();
    let fragment = |mut frame: Vec<u8>| {
        frame[14 + 6] |= 0x20;
        frame
    };
    let mut odd = frame(None);
    odd.splice(14 + 20..14 + 20, [1; 4]);
    odd[14] += 1;
    odd[14 + 3] += 4;
    let frames = [
        fragment(frame(Some((case.label, 0)))),
        fragment(frame(Some((case.guest, 0)))),
        fragment(frame(None)),
        odd.clone(),
        fragment(odd),
        frame(Some((case.label, 0))),
    ];
    write(&case.path("c.pcap"), &frames, Duration::ZERO);
    let verdicts = [
        ("permit", "ledger.large"),
        ("deny", "ledger.guests"),
        ("deny", "fragment"),
        ("permit", "ledger.odd"),
        ("deny", "fragment"),
        ("permit", "ledger.read"),
    ];
    assert_eq!(case.verdicts(&[]), expected(&verdicts));
    for (number, parts) in [
        ("1", ["permit by ledger.large", "proto udp  fragment"]),
        ("2", ["deny by ledger.guests", "proto udp  fragment"]),
        ("3", ["deny by default", "`from` wants acme.payments.api"]),
        ("4", ["permit by ledger.odd", "udp port 5432  options"]),
        ("5", ["deny by default", "fragment options"]),
    ] {
        let told = case.govc(&["explain", "p.gov", "c.pcap", "--packet", number]);
        for part in parts {
            assert!(told.contains(part), "{part} in {told}");
        }
    }
}

#[test]
fn captures_that_cannot_be_read_are_told() {
    let case = Case::new();
    let whole = frame(None);
    write(&case.path("c.pcap"), &[whole.clone(), whole], Duration::ZERO);
    let bytes = fs::read(case.path("c.pcap")).unwrap();
    fs::write(case.path("cut.pcap"), &bytes[..bytes.len() - 3]).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_govc"))
            .current_dir(case.directory.path())
            .args(arguments)
            .output()
            .unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    // One that is cut off has what is whole.
    let (code, told) = run(&["explain", "p.gov", "cut.pcap", "--json"]);
    assert!(code == 0 && told.contains("the 1 before it are whole"), "{told}");
    assert!(!told.contains('\u{1b}'), "{told:?}");
    let rows = case.govc(&["explain", "p.gov", "cut.pcap", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&rows).unwrap().as_array().unwrap().len(), 1);
    let mut damaged = bytes.clone();
    // A packet of which more was captured than there was.
    let second = 24 + 16 + frame(None).len();
    damaged[second + 12..second + 16].fill(0);
    fs::write(case.path("damaged.pcap"), damaged).unwrap();
    let (code, told) = run(&["explain", "p.gov", "damaged.pcap"]);
    assert!(code == 1 && told.contains("no capture that can be read to its end"), "{told}");
    let (code, told) = run(&["explain", "p.gov", "c.pcap", "--packet", "3"]);
    assert!(code == 2 && told.contains("has 2 packets"), "{told}");
    let (code, told) = run(&["explain", "p.gov", "c.pcap", "--zone", "wan"]);
    assert!(code == 2 && told.contains("It has lan"), "{told}");
    for length in 0..60 {
        let _ = fs::write(case.path("c.pcap"), &bytes[..length]);
        let (code, told) = run(&["explain", "p.gov", "c.pcap"]);
        assert!(!told.contains("panicked") && code < 4, "{length}: {told}");
    }
}
