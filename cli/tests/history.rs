//! `observe --read`: events of a file, by the time that they happened at.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use govc::events::history::Writer;
use govc_abi::{event::Event, label::Label, node::LEAF_NONE, reason};
use serde_json::Value;
use tempfile::TempDir;

/// 2023-11-14, 22:13:20.
const BEGUN_S: u64 = 1_700_000_000;

fn event(port: u16) -> Event {
    Event {
        time_ns: 1,
        generation: 1,
        rule: LEAF_NONE,
        pending: LEAF_NONE,
        ifindex: 3,
        len: 100,
        reason: reason::NO_RULE,
        verdict: 2,
        hook: 0,
        flags: 0,
        protocol: 17,
        from_zone: 0,
        icmp: 0,
        source_port: port,
        destination_port: 53,
        object: 0,
        source: [0, 1],
        destination: [0, 2],
        label: Label::default(),
        cgroup_low: 0,
        cgroup_high: 0,
        to_zone: 0,
        pad: 0,
    }
}

/// A file of events that happened so many milliseconds after the beginning.
fn file(directory: &TempDir, times_ms: &[u64]) -> PathBuf {
    let path = directory.path().join("kept.events");
    let mut writer = Writer::create(&path).unwrap();
    for time in times_ms {
        let at = BEGUN_S * 1_000_000_000 + time * 1_000_000;
        writer.event(&event(7), at, || None, || Some("eth0".into()), || None).unwrap();
    }
    writer.flush().unwrap();
    path
}

fn read(path: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_govc"));
    command.args(["observe", "--read"]).arg(path).args(arguments);
    command.output().unwrap()
}

#[test]
fn seconds_are_those_in_which_events_happened() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, &[100, 200, 999, 1000, 7500, 7600]);
    let output = read(&path, &["--aggregate", "--json"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let seconds: Vec<(u64, &str)> = lines
        .iter()
        .map(|line| &line["second"])
        .filter(|second| second.is_object())
        .map(|second| (second["events"].as_u64().unwrap(), second["time"].as_str().unwrap()))
        .collect();
    let wanted =
        [(3, "2023-11-14T22:13:20Z"), (1, "2023-11-14T22:13:21Z"), (2, "2023-11-14T22:13:27Z")];
    assert_eq!(seconds, wanted);
    assert_eq!(lines.last().unwrap()["summary"]["ended"], Value::Null);
}

#[test]
fn names_that_nothing_in_a_file_knows_are_mistakes() {
    let directory = tempfile::tempdir().unwrap();
    let path = file(&directory, &[100]);
    for (arguments, what) in [
        (["--from", "nosuch.scope"], "scope `nosuch.scope`"),
        (["--operation", "ledger.read"], "operation `ledger.read`"),
        (["--rule", "foo.bar"], "rule `foo.bar`"),
        (["--iface", "nope"], "interface `nope`"),
        (["--iface", "4"], "interface `4`"),
    ] {
        let output = read(&path, &arguments);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{told}");
        assert!(told.contains(what) && told.contains("help: "), "{told}");
    }
    for arguments in [["--iface", "eth0"], ["--iface", "3"], ["--from", "unlabelled"]] {
        let output = read(&path, &arguments);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8(output.stdout).unwrap().lines().count(), 1);
    }
    // Nothing to choose from is no mistake.
    let empty = tempfile::tempdir().unwrap();
    assert!(read(&file(&empty, &[]), &["--from", "nosuch.scope"]).status.success());
}
