//! Keys, bundles, grants and trust, from the command line: who may say what, end to end.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the helpers of tests may panic as tests do"
)]

mod lab;

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use govc_netlab::{Namespace, veth};
use lab::{Lab, PASSPHRASE, json, kernel_is_in_reach, policy, texts};
use serde_json::Value;

#[test]
fn one_signature_too_few_is_refused() {
    let lab = Lab::bare();
    lab.bundle("1.bundle", "--root acme.root", &["ann"]);
    let err = lab.fails("verify 1.bundle --root acme.root", 1);
    assert!(err.contains("1 of the trusted keys signed it, 2 have to"), "{err}");
    // Who signs twice counts once, and so do strangers not at all.
    lab.sign("1.bundle", &["ann", "team"]);
    lab.fails("verify 1.bundle --root acme.root", 1);
    lab.sign("1.bundle", &["bob"]);
    let out = lab.ok("verify 1.bundle --root acme.root");
    assert!(out.contains("bundle 1 of acme (7), signed by 2 of 3 keys"), "{out}");
    let report = json(&lab.ok("verify 1.bundle --root acme.root --json"));
    assert_eq!(report["generation"], 1);
    assert_eq!(report["signatures"].as_array().unwrap().len(), 2, "{report}");
}

#[test]
fn the_wrong_set_is_refused() {
    let lab = Lab::bare();
    lab.ok("trust new --domain acme --number 7 --signer team.key.pub --threshold 1 -o other.root");
    lab.bundle("1.bundle", "--root acme.root", &["ann", "bob"]);
    let err = lab.fails("verify 1.bundle --root other.root", 1);
    assert!(err.contains("0 of the trusted keys"), "{err}");
    lab.ok("trust new --domain shop --number 8 --signer ann.key.pub --threshold 1 -o shop.root");
    let err = lab.fails("verify 1.bundle --root shop.root", 1);
    assert!(err.contains("is for domain acme (7), this node belongs to shop (8)"), "{err}");
}

#[test]
fn generations_only_rise() {
    let lab = Lab::bare();
    lab.bundle("1.bundle", "--root acme.root", &["ann", "bob"]);
    lab.bundle("2.bundle", "--previous 1.bundle", &["bob", "eve"]);
    lab.bundle("3.bundle", "--previous 2.bundle", &["ann", "eve"]);
    lab.ok("verify 1.bundle 2.bundle 3.bundle --root acme.root");
    let err = lab.fails("verify 1.bundle 2.bundle 1.bundle --root acme.root", 1);
    assert!(err.contains("generation 1 is older than 2"), "{err}");
    let err = lab.fails("verify 1.bundle 3.bundle --root acme.root", 1);
    assert!(
        err.contains("was made upon manifest") && err.contains("Apply the bundles between"),
        "{err}"
    );
    lab.bundle("other.bundle", "--previous 1.bundle --from 2020-01-01T00:00:00Z", &["ann", "bob"]);
    let err = lab.fails("verify 1.bundle 2.bundle other.bundle --root acme.root", 1);
    assert!(err.contains("another bundle of generation 2"), "{err}");
}

#[test]
fn bundles_hold_for_a_time() {
    let lab = Lab::bare();
    let window = "--from 2030-01-01T00:00:00Z --until 30d";
    lab.bundle("1.bundle", &format!("--root acme.root {window}"), &["ann", "bob"]);
    let at = |time: &str| format!("verify 1.bundle --root acme.root --at {time}");
    let err = lab.fails(&at("2029-12-31T23:59:59Z"), 1);
    assert!(err.contains("good from 2030-01-01T00:00:00Z only"), "{err}");
    lab.ok(&at("2030-01-01T00:00:00Z"));
    lab.ok(&at("2030-01-31T00:00:00Z"));
    let err = lab.fails(&at("2030-01-31T00:00:01Z"), 1);
    assert!(err.contains("good until 2030-01-31T00:00:00Z"), "{err}");
    lab.fails("verify 1.bundle --root acme.root --at soon", 2);
}

#[test]
fn the_same_bundle_has_the_same_bytes() {
    let lab = Lab::bare();
    let options = "--root acme.root --from 2030-01-01T00:00:00Z";
    lab.bundle("a.bundle", options, &["ann", "bob"]);
    lab.bundle("b.bundle", options, &["bob", "ann"]);
    assert_eq!(fs::read(lab.path("a.bundle")).unwrap(), fs::read(lab.path("b.bundle")).unwrap());
}

#[test]
fn flipped_bytes_are_refused() {
    let lab = Lab::bare();
    lab.bundle("1.bundle", "--root acme.root", &["ann", "bob"]);
    let bytes = fs::read(lab.path("1.bundle")).unwrap();
    // The library flips every byte; here one in each part of the file has to end well.
    let places: Vec<usize> = (0..bytes.len()).step_by(bytes.len() / 23).collect();
    for at in places.into_iter().chain([bytes.len() - 1]) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 1;
        fs::write(lab.path("wrong.bundle"), wrong).unwrap();
        lab.fails("verify wrong.bundle --root acme.root", 1);
    }
    fs::write(lab.path("wrong.bundle"), &bytes[..bytes.len() / 2]).unwrap();
    lab.fails("verify wrong.bundle --root acme.root", 1);
}

#[test]
fn a_node_with_a_root_takes_no_plain_policy() {
    let lab = Lab::new();
    let err = lab.fails("apply api.gov --iface lo", 1);
    assert!(err.contains("is no signed bundle"), "{err}");
    assert!(err.contains("govc bundle") && err.contains("govc sign"), "{err}");
    lab.ok("build api.gov -o api.image");
    lab.fails("apply --image api.image --iface lo", 1);
    let err = lab.fails("rollback", 1);
    assert!(err.contains("by a new bundle only"), "{err}");
    // And one without says whose bundles it would take.
    lab.bundle("1.bundle", "--root acme.root", &["ann", "bob"]);
    let err = lab.fails("apply 1.bundle --iface lo --state elsewhere", 2);
    assert!(err.contains("govc trust init"), "{err}");
    assert!(!lab.path("elsewhere").exists());
}

#[test]
fn a_root_is_set_once() {
    let lab = Lab::new();
    lab.ok("trust init acme.root --node node.key.pub");
    let err = lab.fails("trust init acme.root --node team.key.pub", 2);
    assert!(err.contains("has key"), "{err}");
    lab.ok("trust new --domain shop --number 8 --signer ann.key.pub --threshold 1 -o shop.root");
    lab.fails("trust init shop.root", 2);
    let shown = json(&lab.ok("trust show --json"));
    assert_eq!(shown["root"]["domain"]["name"], "acme");
    assert_eq!(shown["root"]["signers"]["threshold"], 2);
    assert_eq!(shown["grants"][0]["serial"], 11);
    assert_eq!(shown["generation"], Value::Null);
    let line = "trust new --domain a --number 1 --signer ann.key.pub --threshold 2 -o x.root";
    lab.fails(line, 2);
    lab.fails("trust new --domain a --number 1 --signer id --threshold 1 -o x.root", 1);
}

#[test]
fn grants_narrow_and_never_widen() {
    let lab = Lab::bare();
    let rights = "--names api.gov --subjects payments.** --level confidential --compartments finance \
                  --operations ledger.read,ledger.write --residencies eu,de --until 90d";
    lab.ok(&format!(
        "grant new --root acme.root --serial 20 --serials 21-29 --to team.key.pub --depth 1 {rights} -o team.grant"
    ));
    lab.sign("team.grant", &["ann", "bob"]);
    lab.ok("grant verify team.grant --root acme.root");
    let narrow = "grant narrow team.grant --key team.key --identity id --to node.key.pub";
    lab.ok(&format!("{narrow} --serial 21 --for api.gov -o node.grant"));
    lab.ok("grant verify node.grant --root acme.root --holder node.key.pub");
    let err = lab.fails("grant verify node.grant --root acme.root --holder team.key.pub", 1);
    assert!(err.contains("the grant is for key"), "{err}");
    let shown = lab.ok("grant show node.grant --names api.gov");
    assert!(shown.contains("acme.payments.api") && shown.contains("ledger.read"), "{shown}");
    let shown = json(&lab.ok("grant show node.grant --json"));
    assert_eq!(shown["blocks"][1]["serial"], 21);

    // What goes further is refused with a value that shows it.
    for (options, counterexample) in [
        ("--names api.gov --subjects web.**", "subject 0 "),
        ("--names api.gov --level secret", "level 15 (`secret`)"),
        ("--names api.gov --compartments all", "compartment bit 1 "),
        ("--names api.gov --operations web.get", "(`web.get`)"),
        ("--names api.gov --residencies us", "(`us`)"),
        ("--radius any", "radius 4"),
        ("--life 5", "life 5"),
        ("--until 91d", "stamping until"),
    ] {
        let err = lab.fails(&format!("{narrow} --serial 22 {options} -o wide.grant"), 1);
        assert!(err.contains("would widen"), "{options}: {err}");
        let words: Vec<&str> = counterexample.split(' ').filter(|word| !word.is_empty()).collect();
        assert!(
            words.iter().all(|word| err.contains(word)) || err.contains("subject"),
            "{options}: {err}"
        );
        assert!(!lab.path("wide.grant").exists());
    }
    lab.fails(&format!("{narrow} --serial 20 -o again.grant"), 1);
    lab.fails("grant narrow node.grant --key node.key --identity id --to ann.key.pub --serial 23 -o deep.grant", 1);
    lab.fails("grant narrow team.grant --key bob.key --identity id --to node.key.pub --serial 24 -o x.grant", 1);

    // Who holds the first block can take back all that follows from it.
    lab.ok("grant revoke 20 --revocations revoked.json");
    let err = lab.fails("grant verify node.grant --root acme.root --revocations revoked.json", 1);
    assert!(err.contains("revoked by its serial 20"), "{err}");
    let err = lab.fails("grant verify node.grant --root acme.root --at 2099-01-01T00:00:00Z", 1);
    assert!(err.contains("the grant ended"), "{err}");
}

#[test]
fn nodes_take_only_their_own_grants() {
    let lab = Lab::bare();
    lab.ok("grant new --root acme.root --serial 5 --to team.key.pub --for api.gov --until 1d -o 5.grant");
    lab.sign("5.grant", &["ann", "bob"]);
    lab.fails("grant accept 5.grant", 2);
    lab.ok("trust init acme.root");
    let err = lab.fails("grant accept 5.grant", 1);
    assert!(err.contains("no key of this node"), "{err}");
    lab.ok("trust init acme.root --node node.key.pub");
    let err = lab.fails("grant accept 5.grant", 1);
    assert!(err.contains("the grant is for key"), "{err}");
    let log = lab.ok("audit show");
    assert!(log.contains("grant refused"), "{log}");
    // One that is put there by hand counts as little.
    fs::create_dir(lab.path("state/grants")).unwrap();
    fs::copy(lab.path("5.grant"), lab.path("state/grants/5.grant")).unwrap();
    let shown = json(&lab.ok("trust show --json"));
    assert!(shown["grants"][0]["refused"].is_string(), "{shown}");
}

#[test]
fn check_tells_stamp_rules_outside_of_grants() {
    let lab = Lab::new();
    lab.ok("check api.gov --root acme.root --grants 11.grant");
    lab.ok("check api.gov --authority state");
    lab.write("write.gov", &policy("ledger.write"));
    for line in [
        "check write.gov --format short --root acme.root --grants 11.grant",
        "check write.gov --format short --authority state",
    ] {
        let err = lab.fails(line, 1);
        assert!(err.contains("write.gov:4:1: error[GOV7001]"), "{err}");
    }
    let err = lab.fails("check write.gov --authority state", 1);
    assert!(err.contains("no grant allows to stamp the label of `acme.payments.api`"), "{err}");
    assert!(err.contains("by grant 11 (`ledger.write`)"), "{err}");
    // Grants of somebody else are none.
    lab.ok("trust new --domain acme --number 7 --signer team.key.pub --threshold 1 -o other.root");
    lab.fails("check api.gov --root other.root --grants 11.grant", 1);
    lab.fails("check api.gov --grants 11.grant", 2);
}

#[test]
fn a_dry_run_changes_nothing() {
    if !kernel_is_in_reach() {
        return;
    }
    let lab = Lab::new();
    lab.write("api.gov", &policy("ledger.read").replace("eth0", "lo"));
    lab.bundle("1.bundle", "--root acme.root", &["ann", "bob"]);
    lab.bundle("few.bundle", "--root acme.root", &["ann"]);
    let instance = format!("dry-{}", std::process::id());
    let before = (lab.ok("trust show --json"), lab.ok("audit show --json"));
    let out = lab.ok(&format!("apply 1.bundle --iface lo --dry-run --instance {instance}"));
    assert!(out.contains("bundle 1 of acme (7), signed by 2 of 3 keys"), "{out}");
    assert!(out.contains("would apply"), "{out}");
    lab.fails(&format!("apply few.bundle --iface lo --dry-run --instance {instance}"), 1);
    assert_eq!(before, (lab.ok("trust show --json"), lab.ok("audit show --json")));
    assert!(!lab.path("state/policy.bundle").exists());
}

/// An instance of its own, whose pins go with it.
struct Instance(String);

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Path::new("/sys/fs/bpf/govc/v3").join(&self.0));
    }
}

#[test]
fn bundles_come_into_force_in_their_order() {
    if !kernel_is_in_reach() {
        return;
    }
    let lab = Lab::new();
    let (node, peer) = (Namespace::create("node").unwrap(), Namespace::create("peer").unwrap());
    veth(&node, "eth0", &peer, "eth0", None).unwrap();
    let instance = Instance(format!("authority-{}", std::process::id()));
    let run = |line: &str| node.run(|| lab.run(&format!("{line} --instance {}", instance.0)));
    let succeeds = |line: &str| {
        let output = run(line);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{line}: {out}{err}");
        out
    };
    let refused = |line: &str, code: i32| {
        let output = run(line);
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{line}: {out}{err}");
        err
    };
    let generation = || json(&lab.ok("trust show --json"))["generation"].clone();
    let in_force = || json(&succeeds("status --json"))["generation"]["digest"].clone();
    lab.bundle("1.bundle", "--root acme.root", &["ann", "bob"]);
    lab.bundle("2.bundle", "--previous 1.bundle", &["ann", "eve"]);

    // What the kernel does not take is not accepted.
    refused("apply 1.bundle --iface none0", 3);
    assert_eq!(generation(), Value::Null);
    let report = json(&succeeds("apply 1.bundle --iface eth0 --json"));
    assert_eq!(report["bundle"]["generation"], 1);
    assert_eq!(report["bundle"]["grants"][0], 11);
    assert_eq!(generation(), 1);
    let status = json(&succeeds("status --json"));
    let grants = &status["grants"][0];
    assert_eq!((&grants["domain"], &grants["revoked"]), (&"acme".into(), &0.into()));
    assert_eq!(grants["stamps"][0]["serial"], 11);
    let manifest = json(&lab.ok("verify 1.bundle --root acme.root --json"));
    let [first, last] = ["not_before", "not_after"].map(|at| manifest[at].as_u64().unwrap());
    assert_eq!(status["generation"]["not_before"], first / 2 * 2);
    assert_eq!(status["generation"]["not_after"], last / 2 * 2 + 1);
    assert!(succeeds("status").contains("stamped under 11, 0 serials revoked"));
    assert!(succeeds("metrics").contains("govc_policy_expiry_timestamp_seconds"));
    // Once more is as good as once.
    succeeds("apply 1.bundle");
    assert_eq!(generation(), 1);
    succeeds("apply 2.bundle");
    assert_eq!(generation(), 2);
    let second = in_force();
    let err = refused("apply 1.bundle", 1);
    assert!(err.contains("generation 1 is older than 2"), "{err}");
    refused("apply api.gov", 1);
    refused("rollback", 1);

    // A stamp rule that nobody granted.
    lab.write("api.gov", &policy("ledger.write"));
    lab.bundle("3.bundle", "--previous 2.bundle", &["ann", "bob"]);
    let err = refused("apply 3.bundle", 1);
    assert!(err.contains("api.gov:4: stamp `acme.payments.api`: operation"), "{err}");
    assert!(err.contains("(`ledger.write`)"), "{err}");
    assert_eq!((generation(), in_force()), (2.into(), second.clone()));

    // The grant is taken back: nothing that stamps comes into force any more.
    lab.write("api.gov", &policy("ledger.read"));
    lab.ok("grant revoke 11 --revocations revoked.json");
    lab.bundle("3.bundle", "--previous 2.bundle --revocations revoked.json", &["ann", "bob"]);
    let err = refused("apply 3.bundle", 1);
    assert!(err.contains("revoked by its serial 11"), "{err}");
    lab.ok("grant new --root acme.root --serial 12 --to node.key.pub --for api.gov --until 90d -o 12.grant");
    lab.sign("12.grant", &["bob", "eve"]);
    lab.ok("grant accept 12.grant");
    let report = json(&succeeds("apply 3.bundle --json"));
    assert_eq!(report["bundle"]["grants"][0], 12);
    let grants = &json(&succeeds("status --json"))["grants"][0];
    assert_eq!((&grants["stamps"][0]["serial"], &grants["revoked"]), (&12.into(), &1.into()));
    let err = lab.fails("grant verify 11.grant", 1);
    assert!(err.contains("revoked"), "{err}");

    // The whole set changes; what the old one signs counts no more, its grants neither.
    lab.bundle(
        "4.bundle",
        "--previous 3.bundle --next-signer team.key.pub --next-threshold 1",
        &["ann", "bob"],
    );
    let err = refused("apply 4.bundle", 1);
    assert!(err.contains("12.grant"), "{err}");
    lab.sign("12.grant", &["team"]);
    lab.ok("grant accept 12.grant");
    succeeds("apply 4.bundle");
    succeeds("apply 4.bundle");
    lab.bundle("5.bundle", "--previous 4.bundle", &["ann", "bob", "eve"]);
    let err = refused("apply 5.bundle", 1);
    assert!(err.contains("0 of the trusted keys"), "{err}");
    lab.sign("5.bundle", &["team"]);
    succeeds("apply 5.bundle");
    assert_eq!(generation(), 5);

    // All of it stands in the log, with those who signed.
    let log = lab.ok("audit show --json");
    let entries: Vec<Value> = log.lines().map(json).collect();
    let mut accepted = entries.iter().filter(|entry| entry["record"]["event"] == "bundle_accepted");
    assert_eq!(accepted.clone().count(), 7);
    let team = json(&lab.ok("signer show team.key.pub --json"))["id"].clone();
    assert_eq!(accepted.next_back().unwrap()["record"]["keys"], Value::from(vec![team]));
    lab.ok("audit verify");
    succeeds("detach");
}

#[test]
fn a_changed_log_is_found_out() {
    let lab = Lab::new();
    let head = lab.ok("audit verify").lines().last().unwrap().trim().to_owned();
    lab.ok("grant accept 11.grant");
    lab.ok(&format!("audit verify --known {head}"));
    let path = lab.path("state/audit.log");
    let log = fs::read_to_string(&path).unwrap();
    for wrong in [
        log.replacen("acme (7)", "acme (8)", 1),
        log.lines().skip(1).map(|line| format!("{line}\n")).collect(),
        log.replacen('\n', "\n\n", 1),
    ] {
        fs::write(&path, wrong).unwrap();
        let err = lab.fails("audit verify", 1);
        assert!(err.contains("line "), "{err}");
    }
    // Lines that are missing at the end are found out by who knows the head.
    let whole = lab.path("whole.log");
    fs::write(&whole, &log).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    let shorter: String = lines[..lines.len() - 2].iter().map(|line| format!("{line}\n")).collect();
    fs::write(&path, shorter).unwrap();
    lab.fails("audit verify", 1);
    lab.fails(&format!("audit verify --known {head}"), 1);
    lab.fails("audit verify --known nonsense", 2);
    // A line that a power loss tore off can be taken away, which is said.
    fs::write(&path, &log[..log.len() - 10]).unwrap();
    lab.fails("audit verify", 1);
    lab.ok("audit mend");
    lab.ok("audit verify");
    assert!(lab.ok("audit show --last 1").contains("log mended"));
}

#[test]
fn label_keys_travel_sealed_and_signed() {
    let lab = Lab::bare();
    lab.ok("keys new acme --number 7 --staged 3");
    let recipient = &lab.recipient;
    let export =
        format!("keys export --number 7 --recipient {recipient} --key ann.key --identity id");
    lab.ok(&format!("{export} -o acme.ring"));
    let import = "keys import acme.ring --domain acme --number 7 --identity id --keys there";
    lab.fails(&format!("{import} --signer bob.key.pub"), 1);
    let err = lab
        .fails(&import.replace("7", "8").replace("id --keys", "id --signer ann.key.pub --keys"), 1);
    assert!(err.contains("wanted acme (8)"), "{err}");
    lab.ok(&format!("{import} --signer ann.key.pub"));
    let keys = |dir: &str| fs::read_to_string(lab.path(dir).join("7.keys")).unwrap();
    let epochs = |dir: &str| json(&keys(dir))["epochs"].clone();
    assert_eq!(epochs("keys"), epochs("there"));
    let mode = fs::metadata(lab.path("there/7.keys")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // Rotation leaves the present epoch alone, and what is older does not come back.
    lab.ok("keys rotate --number 7 --staged 5");
    assert_eq!(epochs("keys")[0], epochs("there")[0]);
    assert_ne!(epochs("keys")[1]["key"], epochs("there")[1]["key"]);
    lab.ok(&format!("{export} -o new.ring"));
    lab.ok(&format!("{} --signer ann.key.pub", import.replace("acme.ring", "new.ring")));
    let err = lab.fails(&format!("{import} --signer ann.key.pub"), 1);
    assert!(err.contains("made before those that are here"), "{err}");
    let status = json(&lab.ok("keys status --keys there --json"));
    assert_eq!(status[0]["epochs"], 6);
    assert!(status[0]["ends"].as_u64().unwrap() > 1_700_000_000);
    assert!(lab.ok("keys list --keys there").contains("KEYS UNTIL"));
}

#[test]
fn a_node_that_only_stamps_gets_the_keys_of_its_subject() {
    let lab = Lab::bare();
    lab.ok("keys new acme --number 7 --staged 3 --per-subject");
    let to = format!("--recipient {} --key ann.key --identity id", lab.recipient);
    lab.ok(&format!("keys export --number 7 --subject 17 {to} -o node.ring"));
    let import =
        "keys import node.ring --domain acme --number 7 --identity id --signer ann.key.pub";
    // Who has the domain's keys does not lose them by taking those of one sender.
    let err = lab.fails(import, 1);
    assert!(err.contains("of another kind"), "{err}");
    lab.ok(&format!("{import} --keys there"));
    let kinds = |dir: &str| json(&lab.ok(&format!("keys status --json --keys {dir}")))[0].clone();
    assert_eq!(
        (&kinds("keys")["senders"], &kinds("there")["senders"]),
        (&json("\"each\""), &json("{\"one\":17}"))
    );
    assert_eq!(kinds("there")["epochs"], 4);
    let keys = |dir: &str| fs::read_to_string(lab.path(dir).join("7.keys")).unwrap();
    let ring = json(&keys("keys"));
    for epoch in ring["epochs"].as_array().unwrap() {
        assert!(!keys("there").contains(epoch["key"].as_str().unwrap()), "a key of the domain");
    }
    assert!(lab.ok("keys list --keys there").contains("subject 17"));
    // Nothing more can be made of them, nor of keys that all share.
    let err = lab.fails("keys rotate --number 7 --keys there", 2);
    assert!(err.contains("subject 17 only"), "{err}");
    lab.fails(&format!("keys export --number 7 --subject 18 {to} --keys there -o no.ring"), 2);
    // Several senders get a file each, by their names too.
    let several =
        "keys export --number 7 --subject 18-19 --subject acme.payments.api,17 --names api.gov";
    let made = lab.ok(&format!("{several} {to} -o nodes --json"));
    let mut subjects: Vec<u64> = json(&made)
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["senders"]["one"].as_u64().unwrap())
        .collect();
    subjects.retain(|subject| lab.path("nodes").join(format!("{subject}.keys")).exists());
    assert_eq!(subjects.len(), 4, "{made}");
    assert!([17, 18, 19].iter().all(|subject| subjects.contains(subject)), "{made}");
    let import = import.replace("node.ring", "nodes/19.keys");
    lab.ok(&format!("{import} --keys elsewhere"));
    assert_eq!(kinds("elsewhere")["senders"], json("{\"one\":19}"));
    let unknown =
        format!("keys export --number 7 --subject acme.nobody --names api.gov {to} -o no");
    assert!(lab.fails(&unknown, 2).contains("no subject `acme.nobody`"));
    let many = format!("keys export --number 7 --subject 1-2000 {to} -o no");
    assert!(lab.fails(&many, 2).contains("more than 1024"));
    lab.fails(&format!("keys export --number 7 --subject 16777216 {to} -o no"), 2);
    lab.ok("keys new other --number 8");
    let err = lab.fails(&format!("keys export --number 8 --subject 17 {to} -o no.ring"), 2);
    assert!(err.contains("share one key"), "{err}");
}

#[test]
fn passphrases_come_by_file_or_environment() {
    let lab = Lab::bare();
    lab.write("words", &format!("{PASSPHRASE}\n"));
    let err = lab.fails("signer new p.key --passphrase-file words", 3);
    assert!(err.contains("others may read the secret"), "{err}");
    fs::set_permissions(lab.path("words"), fs::Permissions::from_mode(0o600)).unwrap();
    lab.ok("signer new p.key --passphrase-file words");
    let mode = fs::metadata(lab.path("p.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let output =
        lab.command(&["signer", "show", "p.key"]).env("GOVC_PASSPHRASE", PASSPHRASE).output();
    let (out, err) = texts(&output.unwrap());
    assert!(out.contains(fs::read_to_string(lab.path("p.key.pub")).unwrap().trim()), "{out}{err}");
    let wrong = lab.command(&["signer", "show", "p.key"]).env("GOVC_PASSPHRASE", "wrong").output();
    assert_eq!(wrong.unwrap().status.code(), Some(1));
    lab.fails("signer new p.key --passphrase-file words", 2);
    lab.fails("signer show p.key --identity words", 1);
}

#[test]
fn nothing_secret_is_said() {
    let lab = Lab::new();
    let identity = fs::read_to_string(lab.path("id")).unwrap();
    let identity = identity.lines().last().unwrap();
    lab.write("words", &format!("{PASSPHRASE}\n"));
    fs::set_permissions(lab.path("words"), fs::Permissions::from_mode(0o600)).unwrap();
    let ring = json(&fs::read_to_string(lab.path("keys/7.keys")).unwrap());
    let label_key = ring["epochs"][0]["key"].as_str().unwrap();
    fs::copy(lab.path("keys/7.keys"), lab.path("ring")).unwrap();
    lab.ok("bundle api.gov --root acme.root -o 1.bundle");
    let recipient = &lab.recipient;
    let mut said = String::new();
    let export = format!(
        "keys export --number 7 --recipient {recipient} --key ann.key --identity id -o out.ring"
    );
    for line in [
        "signer new q.key --passphrase-file words",
        "signer show q.key --passphrase-file words",
        "signer show q.key --passphrase-file id",
        "sign 1.bundle --key ann.key --identity id",
        "sign 1.bundle --key ann.key --identity words",
        "sign 1.bundle --key id --identity id",
        "sign id --key ann.key --identity id",
        &export,
        "keys import out.ring --domain acme --number 7 --signer ann.key.pub --identity id --keys there",
        "keys import out.ring --domain acme --number 7 --signer ann.key.pub --identity words --keys there",
        "keys import ring --domain acme --number 7 --signer ann.key.pub --identity id",
        "keys status",
        "keys rotate --number 7 --keys there",
        // Secrets where something else is wanted.
        "signer show id",
        "signer show words",
        "signer show ring",
        "trust init id",
        "trust init ring --state other",
        "trust init acme.root --node id",
        "grant accept ring",
        "grant show id",
        "grant verify words --root acme.root",
        "verify ring --root acme.root",
        "bundle api.gov --previous ring -o x.bundle",
        "bundle api.gov --root acme.root --revocations ring -o x.bundle",
        "trust show",
        "audit show",
    ] {
        let mut command = lab.command(&line.split_whitespace().collect::<Vec<_>>());
        let output = command.arg("-vvv").output().unwrap();
        let (out, err) = texts(&output);
        said.push_str(&format!("{line}\n{out}{err}"));
    }
    for file in ["state/audit.log", "1.bundle", "out.ring", "q.key", "11.grant"] {
        said.push_str(&String::from_utf8_lossy(&fs::read(lab.path(file)).unwrap()));
    }
    let part_of_key =
        label_key.as_bytes().windows(10).map(|part| std::str::from_utf8(part).unwrap());
    for secret in [PASSPHRASE, identity, "horse"].into_iter().chain(part_of_key) {
        assert!(!said.contains(secret), "`{secret}` was said");
    }
    // No option takes one.
    for command in
        ["signer new", "signer show", "sign", "grant narrow", "keys export", "keys import"]
    {
        let help = lab.ok(&format!("{command} --help"));
        assert!(!help.contains("--passphrase <"), "{help}");
    }
}

#[test]
fn revocations_are_handed_on() {
    let lab = Lab::bare();
    lab.ok("grant revoke 3 4 --revocations revoked.json");
    lab.ok("grant revoke 9 --revocations revoked.json");
    lab.ok("bundle api.gov --root acme.root --revocations revoked.json -o 1.bundle");
    let made = json(&lab.ok("bundle api.gov --previous 1.bundle -o 2.bundle --json"));
    assert_eq!(made["revoked"], serde_json::json!([[3, 4], [9, 9]]));
    assert_eq!(made["generation"], 2);
    lab.fails("grant revoke 0 --revocations revoked.json", 2);
    lab.fails("grant revoke --revocations revoked.json", 2);
    // Labels under what was handed on bear its serials, not that of the grant which is taken back.
    lab.ok("grant new --root acme.root --serial 20 --serials 30-39 --to team.key.pub --depth 1 --for api.gov --until 90d -o team.grant");
    let all = lab.ok("grant revoke 5 --grant team.grant --revocations revoked.json --json");
    assert_eq!(json(&all), serde_json::json!({ "serials": [[3, 5], [9, 9], [20, 20], [30, 39]] }));
}

#[test]
fn missed_bundles_are_followed() {
    let lab = Lab::new();
    lab.bundle("1.bundle", "--root acme.root", &["ann", "bob"]);
    lab.bundle("2.bundle", "--previous 1.bundle", &["ann", "bob"]);
    lab.bundle("3.bundle", "--previous 2.bundle", &["ann", "bob"]);
    lab.fails("trust follow 2.bundle 1.bundle", 1);
    lab.ok("trust follow 1.bundle 2.bundle");
    lab.ok("verify 3.bundle");
    let err = lab.fails("verify 1.bundle", 1);
    assert!(err.contains("older"), "{err}");
}

#[test]
fn manual_and_completions_know_the_commands() {
    let lab = Lab { dir: tempfile::tempdir().unwrap(), recipient: String::new() };
    let man = lab.ok("man");
    for command in ["signer", "trust", "bundle", "sign", "verify", "grant", "audit", "keys"] {
        assert!(man.contains(&format!("govc\\-{command}(1)")), "{command}");
    }
    let man = lab.ok("man grant narrow");
    assert!(man.contains("govc\\-grant\\-narrow") || man.contains("govc-grant-narrow"), "{man}");
    assert!(man.contains("serials") && man.contains("identity"), "{man}");
    lab.fails("man nonsense", 2);
    let bash = lab.ok("completions bash");
    assert!(bash.contains("govc__grant__narrow") || bash.contains("narrow"), "no narrow");
}
