//! Questions about policies as people and CI ask them: `diff`, `query`, `explain`, coverage.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::{Value, json};
use tempfile::TempDir;

const VOCABULARY: &str = include_str!("../../examples/policies/acme/vocabulary.gov");
const LEDGER: &str = "package p\nuse acme.vocabulary\n\
    policy ledger {\n\
    on ingress to acme.payments.ledger\n\
    permit read { from acme.payments.api  operation ledger.read  proto tcp port 5432 }\n\
    permit audit { from acme.audit.**  operation ledger.read }\n\
    deny guests { from acme.guest }\n\
    }\n\
    test \"reads\" {\n\
    packet { from acme.payments.api  to acme.payments.ledger  operation ledger.read  proto tcp port 5432 }\n\
    expect permit\n\
    }\n";

/// A directory with the vocabulary and the policy, changed in these ways.
fn directory(changes: &[(&str, &str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("acme")).unwrap();
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("acme/vocabulary.gov", VOCABULARY);
    write("a.gov", LEDGER);
    for (name, from, to) in changes {
        assert!(LEDGER.contains(from));
        write(name, &LEDGER.replacen(from, to, 1));
    }
    directory
}

/// Exit code, standard output and standard error.
fn govc(directory: &Path, arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_govc"))
        .current_dir(directory)
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn diff_tells_widening_from_narrowing_by_its_exit_code() {
    let directory = directory(&[
        ("wide.gov", "port 5432 }\npermit", "port 5432..5433 }\npermit"),
        ("narrow.gov", "permit audit { from acme.audit.**  operation ledger.read }\n", ""),
        ("renamed.gov", "permit read ", "permit reads "),
    ]);
    let at = directory.path();
    let diff = |old: &str, new: &str| govc(at, &["diff", old, new]);
    let (code, out, _) = diff("a.gov", "a.gov");
    assert_eq!((code, out.trim()), (0, "ok every packet gets the same verdict by the same rule"));
    let (code, out, _) = diff("a.gov", "wide.gov");
    assert_eq!(
        (code, out.contains("+ permitted") && out.contains("port 5433")),
        (12, true),
        "{out}"
    );
    let (code, out, _) = diff("wide.gov", "a.gov");
    assert_eq!((code, out.contains("- denied") && out.contains("port 5433")), (11, true), "{out}");
    let (code, out, _) = diff("a.gov", "narrow.gov");
    assert_eq!((code, out.contains("permit by ledger.audit")), (11, true), "{out}");
    let (code, out, _) = diff("a.gov", "renamed.gov");
    assert_eq!((code, out.contains("permit by ledger.reads")), (10, true), "{out}");
}

#[test]
fn diff_compares_sources_and_images_alike() {
    let directory = directory(&[("wide.gov", "port 5432 }\npermit", "port 5432..5433 }\npermit")]);
    let at = directory.path();
    for name in ["a", "wide"] {
        let image = format!("{name}.img");
        assert_eq!(govc(at, &["build", &format!("{name}.gov"), "-o", &image]).0, 0);
    }
    let sources = govc(at, &["diff", "--json", "a.gov", "wide.gov"]);
    assert_eq!(sources.0, 12);
    for (old, new) in [("a.img", "wide.img"), ("a.gov", "wide.img"), ("a.img", "wide.gov")] {
        assert_eq!(govc(at, &["diff", "--json", old, new]), sources, "{old} {new}");
    }
    let told: Value = serde_json::from_str(&sources.1).unwrap();
    assert_eq!(told["complete"], json!(true));
    let [change] = told["changes"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!(change["change"], json!("permitted"));
    assert_eq!(change["old"], json!({ "permit": false, "rule": null }));
    assert_eq!(change["new"], json!({ "permit": true, "rule": "ledger.read" }));
}

#[test]
fn one_change_is_one_row() {
    // In the diagrams this is other ports of TCP, and whatever is not TCP.
    let only = "from acme.audit.**  proto tcp port 5000..6000  operation";
    let changes = [
        ("narrow.gov", "from acme.audit.**  operation", only),
        (
            "both.gov",
            "from acme.audit.**  operation",
            &only.replace("6000", "6000 proto udp port 5000..6000"),
        ),
    ];
    let directory = directory(&changes);
    let at = directory.path();
    let rows = |old: &str, new: &str| {
        let out = govc(at, &["diff", old, new]).1;
        let rows = out.lines().skip(1).map(|row| {
            let columns = row.split("  ").map(str::trim).filter(|column| !column.is_empty());
            columns.skip(2).take(1).collect::<String>()
        });
        rows.collect::<Vec<_>>()
    };
    let common = "from acme.audit.**; operation ledger.read; to acme.payments.ledger";
    let tcp = format!("{common}; except (proto tcp; port 5000..6000)");
    assert_eq!(rows("a.gov", "narrow.gov"), [tcp.as_str()]);
    assert_eq!(rows("narrow.gov", "a.gov"), [tcp]);
    let both = format!("{common}; except (proto tcp, udp; port 5000..6000)");
    assert_eq!(rows("a.gov", "both.gov"), [both]);
    let udp = format!("{common}; proto udp; port 5000..6000");
    assert_eq!(rows("narrow.gov", "both.gov"), [udp]);

    let told = govc(at, &["diff", "--json", "a.gov", "narrow.gov"]).1;
    let told: Value = serde_json::from_str(&told).unwrap();
    let [change] = told["changes"].as_array().unwrap().as_slice() else { panic!("{told}") };
    let cell = |attribute: &str, values: &str| json!({ "attribute": attribute, "values": values });
    assert_eq!(change["except"], json!([cell("proto", "tcp"), cell("port", "5000..6000")]));
}

#[test]
fn diff_tells_how_denials_are_carried_out_and_what_is_logged() {
    let zone = "policy ledger {";
    let pen = "zone pen = interface \"pen0\"  cell = interface \"cell0\"\npolicy ledger {";
    let rule = "{ from acme.guest }";
    let directory = directory(&[("pen.gov", zone, pen)]);
    let at = directory.path();
    let base = fs::read_to_string(at.join("pen.gov")).unwrap();
    for (name, answer) in [
        ("reject", "{ from acme.guest  reject }"),
        ("keep", "{ from acme.guest  quarantine pen }"),
        ("elsewhere", "{ from acme.guest  quarantine cell }"),
        ("logs", "{ from acme.guest  log 1 in 7 }"),
    ] {
        fs::write(at.join(format!("{name}.gov")), base.replacen(rule, answer, 1)).unwrap();
    }
    let diff = |old: &str, new: &str, more: &[&str]| {
        let (code, out, _) = govc(at, &[&["diff", old, new], more].concat());
        (code, out)
    };
    for (old, new, before, now) in [
        ("pen.gov", "reject.gov", "deny by ledger.guests", "deny by ledger.guests (reject)"),
        ("reject.gov", "keep.gov", "(reject)", "deny by ledger.guests (quarantine pen)"),
        ("keep.gov", "elsewhere.gov", "(quarantine pen)", "(quarantine cell)"),
    ] {
        let (code, out) = diff(old, new, &[]);
        let told = out.contains("~ denied otherwise") && out.contains(before) && out.contains(now);
        assert_eq!((code, told), (14, true), "{old} {new}\n{out}");
    }
    let (code, out) = diff("pen.gov", "reject.gov", &["--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    let [change] = told["changes"].as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!((code, &change["change"]), (14, &json!("answered")));
    assert_eq!(change["old"], json!({ "permit": false, "rule": "ledger.guests" }));
    assert_eq!(
        change["new"],
        json!({ "permit": false, "rule": "ledger.guests", "answer": "reject" })
    );

    let (code, out) = diff("pen.gov", "logs.gov", &[]);
    assert!(!out.starts_with("ok"), "{out}");
    let line = out.lines().last().unwrap_or_default();
    assert_eq!((code, line), (10, "+ log 1 in 7 by ledger.guests"), "{out}");
    let (_, out) = diff("logs.gov", "pen.gov", &["--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["logs"], json!({ "removed": ["log 1 in 7 by ledger.guests"], "added": [] }));
}

#[test]
fn diff_writes_levels_and_addresses_as_the_language_does() {
    let change =
        |clause: &str| format!("{{ from acme.audit.**  operation ledger.read  {clause} }}");
    let rule = "{ from acme.audit.**  operation ledger.read }";
    let (levels, source) = (change("where level <= internal"), change("source 10.0.0.0/15"));
    let directory = directory(&[
        ("levels.gov", rule, levels.as_str()),
        ("wide.gov", rule, &change("source 10.0.0.0/8")),
        ("source.gov", rule, source.as_str()),
    ]);
    let at = directory.path();
    let told = |old: &str, new: &str, attribute: &str| {
        let (_, out, _) = govc(at, &["diff", "--json", old, new]);
        let told: Value = serde_json::from_str(&out).unwrap();
        let change = &told["changes"][0];
        let cells = [&change["traffic"], &change["except"]].map(|cells| cells.as_array().unwrap());
        let found = cells.into_iter().flatten().find(|cell| cell["attribute"] == attribute);
        found.unwrap_or_else(|| panic!("{out}"))["values"].clone()
    };
    let level = told("a.gov", "levels.gov", "level");
    assert!([json!("public, internal"), json!("confidential, secret")].contains(&level), "{level}");
    assert_eq!(told("wide.gov", "source.gov", "source"), json!("10.0.0.0/8 except 10.0.0.0/15"));
}

#[test]
fn diff_of_what_is_wrong_says_why_and_never_equal() {
    let directory = directory(&[("faulty.gov", "acme.guest", "acme.gest")]);
    let (code, _, err) = govc(directory.path(), &["diff", "a.gov", "faulty.gov"]);
    assert_eq!((code, err.contains("did you mean `acme.guest`?")), (1, true), "{err}");
    let (code, _, err) = govc(directory.path(), &["diff", "a.gov", "missing.gov"]);
    assert_eq!((code, err.contains("missing.gov")), (3, true), "{err}");
}

#[test]
fn query_tells_who_reaches_whom() {
    let directory = directory(&[]);
    let at = directory.path();
    let (code, out, _) = govc(at, &["query", "a.gov", "--on", "ingress"]);
    assert_eq!(code, 0);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(lines[1].contains("acme.payments.api") && lines[1].contains("a.gov:5"), "{out}");
    assert!(lines[2].contains("acme.audit.**") && lines[2].contains("a.gov:6"), "{out}");

    let asked = ["query", "a.gov", "--on", "ingress", "--from", "acme.audit.exporter", "--json"];
    let (code, out, _) = govc(at, &asked);
    assert_eq!(code, 0);
    let told: Value = serde_json::from_str(&out).unwrap();
    let [answer] = told.as_array().unwrap().as_slice() else { panic!("{told}") };
    assert_eq!(answer["from"], json!("acme.audit.exporter"));
    assert_eq!(answer["rule"], json!("ledger.audit"));

    let (code, out, _) = govc(at, &["query", "a.gov", "--dot"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("digraph {") && out.contains("acme.payments.ledger"), "{out}");

    let asked = ["query", "a.gov", "--on", "ingress", "--from", "acme.guest"];
    let (_, out, _) = govc(at, &[&asked[..], &["--json"]].concat());
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), json!([]));
    let (_, out, _) = govc(at, &asked);
    assert_eq!(out.trim(), "nobody: no rule permits such traffic");
}

#[test]
fn hooks_that_no_policy_governs_are_told_as_open() {
    let directory = directory(&[]);
    let at = directory.path();
    let asked = ["query", "a.gov", "--on", "egress", "--from", "acme.guest"];
    let (code, out, _) = govc(at, &asked);
    let row = out.lines().nth(1).unwrap_or_default();
    let columns: Vec<&str> = row.split("  ").map(str::trim).filter(|one| !one.is_empty()).collect();
    assert_eq!(code, 0);
    assert_eq!(
        columns,
        ["egress", "acme.guest", "any", "any", "any", "default", "no policy on egress"],
        "{out}"
    );
    let told = |more: &[&str]| {
        let asked = [&["query", "a.gov", "--on", "egress", "--on", "ingress"], more].concat();
        govc(at, &asked).1
    };
    let list: Value = serde_json::from_str(&told(&["--json"])).unwrap();
    let default: Vec<&Value> =
        list.as_array().unwrap().iter().filter(|way| way["governed"] == json!(false)).collect();
    let [way] = default.as_slice() else { panic!("{list}") };
    assert_eq!((&way["from"], &way["rule"]), (&json!("labelled, legacy"), &json!("default")));
    assert_eq!(way["hook"], json!("egress"));
    let dot = told(&["--dot"]);
    assert!(dot.contains("default: no policy on egress"), "{dot}");
    // Whoever has no label passes nowhere, and no object is known on egress.
    for more in [["--from", "unlabelled"], ["--to", "acme.payments.ledger"]] {
        let out = govc(at, &[&["query", "a.gov", "--on", "egress"][..], &more].concat()).1;
        assert_eq!(out.trim(), "nobody: no rule permits such traffic", "{more:?}");
    }

    let explain = |packet: &str| govc(at, &["explain", "a.gov", packet]).1;
    let out = explain("on egress from acme.guest");
    assert!(out.starts_with("permit by default: no policy governs egress\n"), "{out}");
    let out = explain("on egress from unlabelled");
    assert!(out.starts_with("deny by default: no policy governs egress, and only"), "{out}");
    let out = explain("from acme.ops.monitor");
    assert!(out.starts_with("deny by default: no rule that decides matches the packet"), "{out}");
}

#[test]
fn query_tells_by_what_senders_come_and_what_is_taken_out() {
    let directory = directory(&[]);
    let at = directory.path();
    let text = "package p\nuse acme.vocabulary\n\
        zone lan = interface \"eth0\"\n\
        legacy from 10.31.0.0/16 on lan { subject acme.guest }\n\
        policy early { on ingress tier guardrails\n\
        pass web { from acme.web.** } pass guests { from acme.guest } }\n\
        policy late { on ingress\n\
        pass front { from acme.web.front }\n\
        permit old { from legacy source 10.31.0.0/16 proto tcp port 82 }\n\
        permit web { from acme.web.** } }\n\
        policy last { on ingress tier baseline deny front { from acme.web.front } }\n";
    fs::write(at.join("b.gov"), text).unwrap();
    let ways = |from: &str| -> Vec<(Value, Value, Value)> {
        let (code, out, err) =
            govc(at, &["query", "b.gov", "--on", "ingress", "--from", from, "--json"]);
        assert_eq!(code, 0, "{err}");
        let list: Value = serde_json::from_str(&out).unwrap();
        let each = list.as_array().unwrap().iter();
        each.map(|way| (way["from"].clone(), way["rule"].clone(), way["except"].clone())).collect()
    };
    assert_eq!(ways("acme.guest"), [(json!("acme.guest (legacy)"), json!("late.old"), json!([]))]);
    assert_eq!(ways("legacy"), [(json!("legacy"), json!("late.old"), json!([]))]);
    assert_eq!(
        ways("acme.web.**"),
        [(json!("acme.web.**"), json!("late.web"), json!(["late.front"]))]
    );
}

#[test]
fn explain_tells_the_rule_and_why_no_other() {
    let directory = directory(&[]);
    let explain = |packet: &str, more: &[&str]| {
        govc(directory.path(), &[&["explain", "a.gov", packet], more].concat())
    };
    let denied = "packet { from acme.guest to acme.payments.ledger operation ledger.read }";
    let (code, out, _) = explain(denied, &[]);
    assert_eq!((code, out.contains("deny by ledger.guests  a.gov:7")), (0, true), "{out}");
    let (_, out, _) = explain(denied, &["--json"]);
    let told: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(told["rule"], json!("ledger.guests"));
    assert_eq!(told["place"], json!("a.gov:7"));
    let (_, out, _) = explain(
        "packet { from acme.payments.api to acme.payments.ledger operation ledger.read \
         proto tcp port 5432 }",
        &["--all"],
    );
    assert!(out.contains("permit by ledger.read  a.gov:5"), "{out}");
    assert!(out.contains("not ledger.guests") && out.contains("`from` wants acme.guest"), "{out}");
    let (code, _, err) = explain("packet { from acme.gest }", &[]);
    assert_eq!((code, err.contains("did you mean `acme.guest`?")), (1, true), "{err}");
}

#[test]
fn explain_tells_of_fragments_what_rules_say_of_them() {
    let directory = directory(&[(
        "large.gov",
        "permit audit { from acme.audit.**  operation ledger.read }",
        "permit audit { from acme.audit.**  operation ledger.read  fragments }",
    )]);
    let explain = |file: &str, packet: &str| {
        let packet =
            format!("packet {{ {packet}  operation ledger.read  to acme.payments.ledger }}");
        govc(directory.path(), &["explain", file, &packet])
    };
    let auditor = "from acme.audit.exporter  proto udp  fragment";
    let (code, out, err) = explain("large.gov", auditor);
    assert_eq!((code, out.contains("permit by ledger.audit")), (0, true), "{out}{err}");
    let (_, out, _) = explain("large.gov", "from acme.payments.api  proto tcp  fragment");
    assert!(out.contains("deny by default") && out.contains("not ledger.read"), "{out}");
    assert!(out.contains("it does not say `fragments`, and the packet is one"), "{out}");
    let (_, out, _) = explain("large.gov", &format!("{auditor}  options"));
    assert!(out.contains("deny by default") && out.contains("not ledger.audit"), "{out}");
    assert!(out.contains("it does not say `options`, and the packet has some"), "{out}");
    // Where nothing lets them through, no rule is asked.
    for sender in ["acme.audit.exporter", "acme.guest"] {
        let (_, out, _) = explain("a.gov", &format!("from {sender}  fragment"));
        assert!(out.contains("deny by default") && !out.contains("passed on"), "{out}");
    }
}

#[test]
fn coverage_lists_what_no_test_needs_and_can_be_demanded() {
    let directory = directory(&[]);
    let at = directory.path();
    let (code, out, _) = govc(at, &["test", "a.gov", "--coverage"]);
    assert_eq!(code, 0);
    assert!(out.contains("untested ledger.audit  a.gov:6"), "{out}");
    assert!(out.contains("1 of 3 rules covered, 33 %"), "{out}");
    let (code, ..) = govc(at, &["test", "a.gov", "--coverage-min", "33"]);
    assert_eq!(code, 0);
    let (code, out, err) = govc(at, &["test", "a.gov", "--coverage-min", "34"]);
    assert_eq!((code, format!("{out}{err}").contains("at least 34 %")), (1, true), "{out}{err}");
    assert!(out.contains("untested ledger.audit  a.gov:6"), "whoever asks for more is told: {out}");
}

#[test]
fn too_little_coverage_is_told_in_every_format() {
    let directory = directory(&[]);
    let at = directory.path();
    let govc = |format: &str, more: &[&str]| {
        govc(at, &[&["test", "a.gov", "--format", format, "--coverage-min", "34"], more].concat())
    };
    for format in ["json", "sarif", "github", "junit"] {
        let (code, out, err) = govc(format, &[]);
        assert_eq!(code, 1, "{out}{err}");
        for told in
            ["untested ledger.audit  a.gov:6", "1 of 3 rules covered, 33 %", "at least 34 %"]
        {
            assert!(err.contains(told), "{format}: {err}");
        }
    }
    let (_, out, _) = govc("json", &["--coverage"]);
    let told: Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let coverage = &told["coverage"];
    assert_eq!((&coverage["rules"], &coverage["covered"]), (&json!(3), &json!(1)));
    assert_eq!((&coverage["percent"], &coverage["wanted"]), (&json!(33), &json!(34)));
    let untested = &coverage["untested"];
    assert_eq!(untested[0], json!({ "rule": "ledger.audit", "place": "a.gov:6" }));
    let (_, out, _) = govc("junit", &[]);
    assert!(out.contains("tests=\"2\"") && out.contains("failures=\"1\""), "{out}");
    assert!(out.contains("type=\"coverage\"") && out.contains("untested ledger.audit"), "{out}");
}

#[test]
fn queries_have_no_name_that_policies_have() {
    let directory = directory(&[(
        "named.gov",
        "test \"reads\"",
        "assert query { never permit from acme.guest }\ntest \"reads\"",
    )]);
    let ask = |file: &str| {
        govc(directory.path(), &["query", file, "--json", "--from", "acme.payments.api"])
    };
    let (code, out, err) = ask("named.gov");
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out, ask("a.gov").1);
    // What was asked is not told as something that the policy has.
    let (code, _, err) = govc(directory.path(), &["query", "a.gov", "--from", "acme.gest"]);
    assert_eq!((code, err.contains("did you mean `acme.guest`?")), (1, true), "{err}");
}

#[test]
fn explain_blames_what_was_typed() {
    let directory = directory(&[]);
    let explain = |packet: &str| govc(directory.path(), &["explain", "a.gov", packet]);
    let (code, _, err) = explain("packet { from acme.guest");
    assert_eq!((code, err.contains("the packet does not close its brace")), (2, true), "{err}");
    let (code, _, err) = explain("from acme.guest }");
    assert_eq!((code, err.contains("closes a brace")), (2, true), "{err}");
    let (code, _, err) = explain("typo.pcap");
    assert_eq!(
        (code, err.contains("`typo.pcap` is neither a file nor a packet")),
        (2, true),
        "{err}"
    );
    for packet in
        ["from acme.gest  proto tcp port 80", "packet { from acme.guest  proot tcp port 80 }"]
    {
        let (code, _, err) = explain(packet);
        assert!(code == 1 && err.contains(packet), "{err}");
        assert!(!err.contains("test ") && !err.contains("package p"), "no wrapper: {err}");
    }
}

#[test]
fn unused_names_are_told_to_who_asks() {
    let directory = directory(&[]);
    let at = directory.path();
    let told = |arguments: &[&str]| {
        let (code, out, err) = govc(at, &[&["check", "--format", "short"], arguments].concat());
        (code, (out + &err).lines().filter(|line| line.contains("GOV0108")).count())
    };
    let vocabulary = "acme/vocabulary.gov";
    assert_eq!(told(&["a.gov", vocabulary]), (0, 0));
    // Only the files that are named have to give account of their names.
    assert_eq!(told(&["--unused", "a.gov"]), (0, 0));
    let (code, alone) = told(&["--unused", vocabulary]);
    let (_, together) = told(&["--unused", "a.gov", vocabulary]);
    assert_eq!(code, 0);
    assert!(0 < together && together < alone, "{together} {alone}");
    assert_eq!(told(&["--warn", "GOV0108", "a.gov", vocabulary]), (0, together));
    assert_eq!(told(&["--deny", "GOV0108", "a.gov", vocabulary]), (1, together));
}
