//! Each part of the benchmark that sets up a network of its own works, and says what it has done.

use std::process::Command;

/// Parts with a heading of each.
const PARTS: [(&str, &[&str]); 5] = [
    ("programs", &["The programs in the kernel"]),
    (
        "egress",
        &["Packets that leave", "Packets that pass through", "Arriving where packets pass through"],
    ),
    ("tcp", &["Targets", "Labelled beside unlabelled TCP"]),
    ("http", &["Targets", "A service with declared operations"]),
    ("collector", &["The collector"]),
];

#[test]
fn parts_can_be_run_alone() {
    if govc_netlab::require_root().is_err() || govc_loader::kernel::check().is_err() {
        assert!(std::env::var_os("GOVC_REQUIRE_KERNEL").is_none(), "the kernel is out of reach");
        println!("skipped: needs root and Linux 6.6 or newer");
        return;
    }
    for (part, headings) in PARTS {
        let output = Command::new(env!("CARGO_BIN_EXE_govc-bench"))
            .args([part, "--rounds", "1", "--sample-ms", "1"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{part}: {output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for heading in ["How it was measured"].iter().chain(headings) {
            assert!(lines.contains(heading), "{part}, {heading}: {text}");
        }
    }
}
