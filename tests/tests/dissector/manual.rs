//! What the manual says, and what programs read.

use std::collections::BTreeSet;

use govc_abi::label::FLAG_REPLY;
use govc_netlab::PacketSocket;
use govc_tests::{
    frame::{insert, label_of},
    kernel_available,
    lab::{Lab, READ, api},
    node::{PATIENCE, address, look, udp_socket},
    wireshark::{
        CAPTURED, EXPERTS, FIELDS, NAMES, OTHERS, SCRIPT, Scratch, dissect_capture, printed,
        tshark, tshark_available, whole, without_settings,
    },
};
use serde_json::Value;

use crate::{names::names_file, names::vocabulary, plain, quoting, udp};

const MANUAL: &str = include_str!("../../../docs/wireshark.md");

#[test]
fn the_manual_has_every_field() {
    if !tshark_available() {
        return;
    }
    // Where `-G` is not the first argument, no script is read.
    let mut command = without_settings(&Scratch::new());
    let output = command.args(["-G", "fields", "-X", SCRIPT]).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    let registered: BTreeSet<&str> = printed
        .lines()
        .filter_map(|line| line.split('\t').nth(2))
        .filter(|field| field.starts_with("govc."))
        .collect();
    let asked = FIELDS.iter().map(|(name, _)| name).chain(OTHERS).chain(EXPERTS).chain(NAMES);
    assert_eq!(registered, asked.copied().collect());
    for field in registered {
        assert!(MANUAL.contains(&format!("`{field}`")), "{field}");
    }
}

#[test]
fn the_filters_of_the_manual_find_packets() {
    if !tshark_available() {
        return;
    }
    let names = vocabulary();
    let domain = &names.domains[0];
    let number = |list: &[govc_image::Numbered], name: &str| {
        list.iter().find(|entry| entry.name == name).unwrap().number
    };
    let api = domain.scopes.iter().find(|scope| scope.path == "payments.api").unwrap();
    let base = plain().with_domain(domain.number).with_subject(api.subjects.unwrap().0);
    let now = (CAPTURED / 2) as u16;
    let labels = [
        plain(),
        base.with_slot(now - 17).with_operation(1).with_flags(FLAG_REPLY),
        base.with_slot(now + 2),
        base.with_slot(now).with_constraints(1 << number(&domain.constraints, "no_forward")),
        base.with_slot(now).with_version(2),
    ];
    let mut frames: Vec<_> = labels.iter().map(|label| insert(&udp(false), label, 1)).collect();
    frames.extend([udp(false), quoting(&frames[3], false)]);
    let scratch = Scratch::new();
    let file = names_file(&scratch, &names);
    let section = MANUAL.split("## Filters").nth(1).unwrap();
    let filters: Vec<&str> =
        section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    let found: Vec<String> = filters
        .iter()
        .map(|filter| {
            let arguments = ["-Y", filter, "-T", "fields", "-e", "frame.number"];
            let output = tshark(&scratch, &whole(&frames), Some(&file), &arguments);
            format!("{filter}: {}", printed(output).lines().collect::<Vec<_>>().join(" "))
        })
        .collect();
    // Packets are numbered from 1; the sixth has no label, the seventh quotes the fourth.
    assert_eq!(
        found,
        [
            "govc: 1 2 3 4 5 7",
            "ip && !govc: 6",
            "govc && !govc.quoted: 1 2 3 4 5",
            "govc.subject.name == \"acme.payments.api\": 2 3 4 5 7",
            "govc.subject.name contains \"payments.\": 2 3 4 5 7",
            "govc.domain == 7 && govc.subject == 258: 1",
            "govc.operation == 0: 1 3 4 5 7",
            "govc.flags.reply == 1: 2",
            "govc.constraints.name == \"no_forward\": 4 7",
            "govc.age > 16 or govc.age < -1: 1 2 3",
            "govc.refused: 5",
        ]
    );
}

#[test]
fn programs_read_the_tree_as_json() {
    if !tshark_available() {
        return;
    }
    let frame = insert(&udp(true), &plain().with_flags(FLAG_REPLY), 1);
    let scratch = Scratch::new();
    let printed = printed(tshark(&scratch, &whole(&[frame]), None, &["-T", "json"]));
    let packets: Value = serde_json::from_str(&printed).unwrap();
    let tree = &packets[0]["_source"]["layers"]["govc"];
    assert_eq!(tree["govc.subject"], "258");
    assert!(tree["govc.flags_tree"]["govc.flags.reply"].is_string(), "{tree:#}");
    assert!(tree["govc.slot_tree"]["govc.age"].is_string(), "{tree:#}");

    let text = tshark(&scratch, &whole(&[insert(&udp(false), &plain(), 1)]), None, &["-V"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(text.contains("\ngovc label: 7:258\n"), "{text}");
}

#[test]
fn labels_of_a_real_hook_carry_the_names_of_its_policy() {
    if !tshark_available() || !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let image = api();
    lab.a.apply(&image, &["eth0"]);
    let wire = PacketSocket::open(&lab.router, "to_a").unwrap();
    let mut frames = Vec::new();
    for v6 in [false, true] {
        let socket = udp_socket(&lab.a.namespace, address(1, 2, v6), 0);
        socket.send_to(b"labelled", (address(2, 2, v6), READ)).unwrap();
        // Nobody listens: errors come back that quote the datagram.
        let sent = |bytes: &[u8]| {
            bytes.ends_with(b"labelled") && look(bytes).is_some_and(|ip| ip.labelled)
        };
        let found = wire.capture(PATIENCE, |frame| sent(&frame.bytes)).unwrap();
        frames.push(found.expect("the datagram passes the router").bytes);
    }
    let scratch = Scratch::new();
    let file = names_file(&scratch, image.names());
    let shown = dissect_capture(&whole(&frames), Some(&file), frames.len());
    for (shown, frame) in shown.iter().zip(&frames) {
        let (label, mac) = label_of(frame);
        shown.compare(&label, mac, frame);
        assert_eq!(shown.experts(), BTreeSet::new());
        assert_eq!(shown.names("govc.subject.name"), ["acme.payments.api"]);
        assert_eq!(shown.names("govc.operation.name"), ["ledger.read"]);
    }
}
