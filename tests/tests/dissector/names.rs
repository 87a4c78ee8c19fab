//! Names of the policy in the place of numbers.

use std::{collections::BTreeSet, path::PathBuf};

use govc_abi::label::{FLAG_REPLY, Label};
use govc_image::{Domain, Names};
use govc_tests::{
    compile,
    frame::{ETH, insert},
    policies,
    random::Random,
    wireshark::{NAMES, Scratch, dissect_capture, info, printed, tshark, tshark_available, whole},
};
use serde_json::json;

use crate::{plain, udp};

/// Names as `govc inspect --json` prints them, as far as the dissector reads them.
pub fn names_file(scratch: &Scratch, names: &Names) -> PathBuf {
    let report = json!({ "policy": "a \"b\" \u{e9}\n", "domains": names.domains });
    scratch.write("names.json", serde_json::to_string_pretty(&report).unwrap())
}

pub fn vocabulary() -> Names {
    compile(&[("vocabulary.gov", policies::VOCABULARY)]).image.names().clone()
}

#[test]
fn the_info_column_says_who_and_what_for() {
    if !tshark_available() {
        return;
    }
    let names = vocabulary();
    let domain = &names.domains[0];
    let scope = domain.scopes.iter().find(|scope| scope.path == "payments.api").unwrap();
    let read = domain.operations.iter().find(|op| op.name == "ledger.read").unwrap().number;
    let base = plain().with_domain(domain.number).with_subject(scope.subjects.unwrap().0);
    let labels = [
        base,
        base.with_operation(read),
        base.with_operation(read).with_flags(FLAG_REPLY),
        base.with_operation(999).with_version(3),
        base.with_subject(0),
        base.with_domain(999).with_operation(read),
    ];
    let mut frames: Vec<_> = labels.iter().map(|label| insert(&udp(false), label, 1)).collect();
    let mut cut = frames[0].clone();
    cut[ETH + 23] = 29;
    frames.extend([cut, udp(false)]);
    let (number, subject) = (base.domain(), base.subject());
    let bare = info(&frames, None);
    let wanted = [
        format!(" [govc {number}:{subject}]"),
        format!(" [govc {number}:{subject} → op {read}]"),
        format!(" [govc {number}:{subject} → op {read}, reply]"),
        format!(" [govc {number}:{subject} → op 999, refused]"),
        format!(" [govc {number}:0]"),
        format!(" [govc 999:{subject} → op {read}]"),
        " [govc refused]".to_owned(),
    ];
    for (line, end) in bare.iter().zip(&wanted) {
        assert!(line.ends_with(end), "{line}: {end}");
    }
    assert!(!bare[7].contains("govc"), "{}", bare[7]);

    let scratch = Scratch::new();
    let file = names_file(&scratch, &names);
    let named = info(&frames, Some(&file));
    let wanted = [
        " [govc acme.payments.api]".to_owned(),
        " [govc acme.payments.api → ledger.read]".to_owned(),
        " [govc acme.payments.api → ledger.read, reply]".to_owned(),
        " [govc acme.payments.api → op 999, refused]".to_owned(),
        " [govc acme:0]".to_owned(),
        format!(" [govc 999:{subject} → op {read}]"),
        " [govc refused]".to_owned(),
    ];
    for (line, end) in named.iter().zip(&wanted) {
        assert!(line.ends_with(end), "{line}: {end}");
    }
}

/// Numbers with and without names, at the ends of all intervals.
pub fn named_labels(domain: &Domain, random: &mut Random) -> Vec<Label> {
    let ends = domain.scopes.iter().flat_map(|scope| scope.blocks.iter().chain(&scope.subjects));
    let subjects: BTreeSet<u32> = ends
        .flat_map(|&(first, last)| [first.saturating_sub(1), first, first + 1, last, last + 1])
        .collect();
    let subjects: Vec<u32> = subjects.into_iter().filter(|&subject| subject < 1 << 24).collect();
    let known = domain.constraints.iter().fold(0_u16, |bits, name| bits | 1 << name.number);
    let mut labels = Vec::new();
    for &subject in &subjects {
        let constraints = if random.one_in(3) { u16::MAX } else { known };
        let domain = if random.one_in(10) { 999 } else { domain.number };
        let below = |random: &mut Random, end| random.below(end) as u16;
        labels.push(
            plain()
                .with_domain(domain)
                .with_subject(subject)
                .with_level(below(random, 16) as u8)
                .with_compartments(random.bits() as u16)
                .with_constraints(random.bits() as u16 & constraints)
                .with_operation(below(random, 12))
                .with_residency(below(random, 6) as u8)
                .with_route(below(random, 6) as u8),
        );
    }
    labels
}

#[test]
fn numbers_get_the_names_of_the_image() {
    if !tshark_available() {
        return;
    }
    let names = vocabulary();
    let domain = &names.domains[0];
    let labels = named_labels(domain, &mut Random::new(4));
    let frames: Vec<_> = labels.iter().map(|label| insert(&udp(true), label, 1)).collect();
    let scratch = Scratch::new();
    let file = names_file(&scratch, &names);
    let shown = dissect_capture(&whole(&frames), Some(&file), frames.len());
    let (mut without, mut unnamed) = (0, 0);
    for (shown, label) in shown.iter().zip(&labels) {
        shown.compare(label, 1, &[]);
        let mut expected: Vec<Vec<String>> = vec![Vec::new(); NAMES.len()];
        if label.domain() == domain.number {
            let known =
                |bits: Vec<String>| bits.into_iter().filter(|name| !name.starts_with("bit "));
            let maybe = |name: Option<&str>| name.map(str::to_owned).into_iter().collect();
            expected = vec![
                vec![domain.name.clone()],
                names.subject(0, label.subject()).into_iter().collect(),
                maybe(domain.level(label.level().into())),
                known(domain.compartments(label.compartments())).collect(),
                known(domain.constraints(label.constraints())).collect(),
                maybe(domain.operation(label.operation())),
                maybe(domain.residency(label.residency().into())),
                maybe(domain.route(label.route().into())),
            ];
        } else {
            without += 1;
        }
        for (field, expected) in NAMES.iter().zip(&expected) {
            assert_eq!(shown.names(field), *expected, "{field} {label:x?}");
        }
        let vocabulary = domain.constraints.iter().fold(0, |bits, name| bits | 1 << name.number);
        let strange = label.domain() == domain.number && label.constraints() & !vocabulary != 0;
        unnamed += usize::from(strange);
        assert_eq!(shown.experts().contains("govc.constraints.unknown"), strange, "{label:x?}");
    }
    assert!(without > 0 && unnamed > 0 && unnamed + without < labels.len());
}

#[test]
fn names_come_from_the_preference_before_the_environment() {
    if !tshark_available() {
        return;
    }
    let names = vocabulary();
    let frames = [insert(&udp(false), &plain().with_domain(names.domains[0].number), 1)];
    let scratch = Scratch::new();
    let file = names_file(&scratch, &names);
    let preference = format!("govc.names:{}", file.display());
    let missing = scratch.0.join("missing.json");
    let output = tshark(
        &scratch,
        &whole(&frames),
        Some(&missing),
        &["-o", &preference, "-T", "fields", "-e", "govc.domain.name"],
    );
    assert_eq!(printed(output).trim(), "acme");
}

#[test]
fn names_that_cannot_be_read_are_told_once_and_labels_are_shown() {
    if !tshark_available() {
        return;
    }
    let frames = vec![insert(&udp(false), &plain(), 1); 3];
    let scratch = Scratch::new();
    let deep = "[".repeat(100_000);
    let texts = [
        "",
        "{",
        "{}",
        "[1, 2",
        "null",
        "\"domains",
        "{\"domains\": 3}",
        "{\"domains\": [3]}",
        "{\"domains\": [{}]}",
        "{\"domains\": [{\"number\": 7, \"name\": \"a\"}]}",
        "{\"domains\": [{\"number\": \"7\", \"name\": \"a\"}]}",
        "{\"domains\": []} x",
        "{\"domains\" []}",
        "\"\\u00",
        &deep,
    ];
    let mut files: Vec<PathBuf> = (0..)
        .zip(texts)
        .map(|(number, text)| scratch.write(&format!("{number}.json"), text))
        .collect();
    files.push(scratch.0.join("missing.json"));
    files.push(scratch.0.clone());
    for file in files {
        let fields = ["-T", "fields", "-e", "govc.subject", "-e", "_ws.lua.error"];
        let output = tshark(&scratch, &whole(&frames), Some(&file), &fields);
        let told = String::from_utf8(output.stderr).unwrap();
        let count = told.matches("govc: labels are shown without names: ").count();
        assert_eq!(count, 1, "{}: {told}", file.display());
        assert!(!told.contains("Lua"), "{told}");
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "258\t\n".repeat(3));
    }
}
