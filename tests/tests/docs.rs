//! Pages that are made from the code: `GOVC_UPDATE_DOCS=1 cargo test -p govc-tests --test docs`
//! writes them anew.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use govc_abi::{
    label::{FLAG_REPLY, Label},
    mac,
};
use govc_grammar::diagnostic::Severity;
use govc_tests::{
    frame::{Spec, Transport},
    reference,
};
use serde_json::json;

fn compare(path: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    if std::env::var_os("GOVC_UPDATE_DOCS").is_some() {
        fs::write(&path, text).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, text, "{} is out of date", path.display());
}

#[test]
fn the_index_of_diagnostics_lists_every_code() {
    let mut text = String::from(
        "# Diagnostics\n\nEvery message of the compiler has a stable code; `govc explain CODE` shows its page. \
         GOV00xx is syntax, GOV01xx analysis, GOV1xxx names, GOV2xxx types, GOV3xxx vocabulary and lock, GOV4xxx what is \
         probably not meant, GOV5xxx limits, GOV6xxx tests, GOV7xxx authority.\n\nEach page says what the message means and why govc insists, \
         with a faulty example and a corrected one; `cargo test` compiles both. Behind `…` on a line of its own, an example goes \
         on counting.\n\n| code | severity | what is wrong |\n| --- | --- | --- |\n",
    );
    let mut last = String::new();
    for code in govc_compiler::pages::codes() {
        assert!(code.id > last.as_str(), "{} comes after {last}", code.id);
        last = code.id.to_owned();
        let severity = match code.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Advice => "advice",
        };
        let title = code.title.replace('|', "\\|");
        let _ = writeln!(text, "| [{0}]({0}.md) | {severity} | {title} |", code.id);
    }
    compare("docs/diagnostics/README.md", &text);
}

/// Texts of all files below a directory whose names end so.
fn texts(dir: &Path, ending: &str, found: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') && name != "node_modules" {
            texts(&path, ending, found);
        } else if name.ends_with(ending) {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = Vec::new();
    texts(&root, ".md", &mut pages);
    let mut links = 0;
    for (page, text) in &pages {
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if link.is_empty() || link.contains("://") || link.contains([' ', '\n']) {
                continue;
            }
            links += 1;
            let to = page.parent().unwrap().join(link);
            assert!(to.exists(), "{} leads to {link}", page.display());
        }
    }
    assert!(links > 200, "{links}");
}

#[test]
fn every_promise_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    texts(&root, ".rs", &mut sources);
    let model = fs::read_to_string(root.join("docs/threat-model.md")).unwrap();
    let mut named = 0;
    for row in model.lines().filter(|line| line.starts_with("| ")) {
        let tests = row.rsplit('|').nth(1).unwrap_or_default();
        for test in tests.split('`').skip(1).step_by(2).filter(|name| name.contains('_')) {
            named += 1;
            let written = format!("fn {test}(");
            assert!(sources.iter().any(|(_, text)| text.contains(&written)), "no test {test}");
        }
    }
    assert!(named > 30, "{named}");
}

#[test]
fn vectors_of_label_and_mac() {
    let key = (0x0706_0504_0302_0100_u64, 0x0f0e_0d0c_0b0a_0908_u64);
    let plain = Label::default().with_version(1).with_domain(7).with_subject(0x102).with_life(2);
    let full = Label::default()
        .with_version(1)
        .with_flags(FLAG_REPLY)
        .with_epoch(0xb)
        .with_life(4)
        .with_domain(0xfedc)
        .with_subject(0x00ab_cdef)
        .with_level(10)
        .with_radius(3)
        .with_compartments(0x8001)
        .with_constraints(0x4002)
        .with_operation(0x1234)
        .with_residency(0x56)
        .with_route(0x78)
        .with_slot(0x9abc)
        .with_grant(0xdef0);
    let spec = |source: &str, destination: &str, transport| Spec {
        source: source.parse::<SocketAddr>().unwrap(),
        destination: destination.parse::<SocketAddr>().unwrap(),
        transport,
        payload: 4,
    };
    let syn = Transport::Tcp { syn: true, ack: false, sequence: 0x1122_3344 };
    let ack = Transport::Tcp { syn: false, ack: true, sequence: 0x1122_3344 };
    let cases = [
        ("TCP SYN, IPv4", plain, spec("10.0.0.1:40000", "10.0.0.2:443", syn)),
        ("TCP with ACK, IPv4", plain, spec("10.0.0.1:40000", "10.0.0.2:443", ack)),
        (
            "UDP, IPv4, every field set",
            full,
            spec("192.0.2.1:1", "198.51.100.2:65535", Transport::Udp),
        ),
        ("ICMP echo request, IPv4", plain, spec("10.0.0.1:7", "10.0.0.2:0", Transport::Icmp(8, 0))),
        ("TCP SYN, IPv6", full, spec("[2001:db8::1]:40000", "[2001:db8::2]:443", syn)),
        (
            "ICMPv6 echo reply",
            full,
            spec("[2001:db8::1]:7", "[2001:db8::2]:0", Transport::Icmp(129, 0)),
        ),
        ("GRE, IPv6: no ports", plain, spec("[fd00::1]:0", "[fd00::2]:0", Transport::Other(47))),
    ];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let vectors: Vec<_> = cases
        .iter()
        .map(|(name, label, spec)| {
            let frame = spec.labelled(label, key);
            let (found, tag) = govc_tests::frame::label_of(&frame);
            assert_eq!(found, *label);
            // The reference computes the MAC with other code from the frame alone.
            let parsed = reference::parse(&frame).unwrap();
            let (_, body, written) = parsed.label.unwrap();
            assert_eq!(reference::mac(&parsed, &body, key), written);
            let input: Vec<u8> = mac::input(label, &spec.flow())
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect();
            let own = mac::sender_key(key.0, key.1, label);
            assert_eq!(reference::sender_key(&body, key), (own[0], own[1]));
            json!({
                "name": name,
                "key": hex(&[key.0.to_le_bytes(), key.1.to_le_bytes()].concat()),
                "sender_key": hex(&[own[0].to_le_bytes(), own[1].to_le_bytes()].concat()),
                "mac_input": hex(&input),
                "mac": hex(&tag.to_le_bytes()),
                "body": hex(&label.encode(tag)),
                "unlabelled_frame": hex(&spec.frame()),
                "labelled_frame": hex(&frame),
            })
        })
        .collect();
    compare("docs/label-vectors.json", &(serde_json::to_string_pretty(&vectors).unwrap() + "\n"));
}
