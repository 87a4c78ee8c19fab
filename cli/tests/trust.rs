//! What a node trusts, when something of it is missing, damaged, late or wrong.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests may panic as tests do"
)]

mod lab;

use std::{fs, path::Path};

use govc_netlab::{Namespace, veth};
use lab::{Lab, json, kernel_is_in_reach, texts};

/// An instance of its own, whose pins go with it.
struct Instance(String);

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(Path::new("/sys/fs/bpf/govc/v3").join(&self.0));
    }
}

/// The trust state's slots, the newest first.
fn slots(lab: &Lab) -> Vec<std::path::PathBuf> {
    let mut slots: Vec<_> =
        ["trust.0", "trust.1"].map(|name| lab.path("state").join(name)).into_iter().collect();
    let sequence =
        |path: &Path| json(&fs::read_to_string(path).unwrap())["content"]["sequence"].as_u64();
    slots.sort_by_key(|path| std::cmp::Reverse(sequence(path)));
    slots
}

#[test]
fn a_trust_state_that_lost_a_slot_takes_nothing_older() {
    let lab = Lab::new();
    lab.bundle("1.bundle", "--root acme.root", &["ann", "bob"]);
    for number in 2..=4 {
        let options = format!("--previous {}.bundle", number - 1);
        lab.bundle(&format!("{number}.bundle"), &options, &["ann", "bob"]);
    }
    lab.bundle("twin.bundle", "--previous 2.bundle --until 80d", &["ann", "bob"]);
    let generation = || json(&lab.ok("trust show --json"))["generation"].clone();
    // Slots are what they were before the last bundle, as a disk that fails or a backup leaves them.
    lab.ok("trust follow 1.bundle 2.bundle");
    let before = slots(&lab).swap_remove(0);
    let kept = fs::read(&before).unwrap();
    lab.ok("trust follow 3.bundle");
    assert_eq!(generation(), 3);
    for slot in slots(&lab) {
        fs::remove_file(slot).unwrap();
    }
    fs::write(&before, kept).unwrap();
    assert_eq!(generation(), 2);
    for line in ["apply 2.bundle --iface none0", "trust follow 2.bundle"] {
        let err = lab.fails(line, 1);
        assert!(err.contains("generation 3 was accepted here before"), "{line}: {err}");
    }
    for line in ["apply twin.bundle --iface none0", "trust follow twin.bundle"] {
        let err = lab.fails(line, 1);
        assert!(err.contains("another bundle of it was accepted here before"), "{line}: {err}");
    }
    lab.ok("trust follow 3.bundle");
    lab.ok("trust follow 4.bundle");
    assert_eq!(generation(), 4);
    // Nor does a root that is set again forget it, as long as the log is there.
    for slot in slots(&lab) {
        fs::remove_file(slot).unwrap();
    }
    lab.ok("trust init acme.root --node node.key.pub");
    assert!(lab.fails("apply 1.bundle --iface none0", 1).contains("generation 4"), "init");
    // One of another domain has an order of its own.
    for slot in ["trust.0", "trust.1"] {
        let _ = fs::remove_file(lab.path("state").join(slot));
    }
    lab.ok("trust new --domain acme --number 7 --signer ann.key.pub --threshold 1 -o new.root");
    lab.ok("trust init new.root");
    lab.ok("trust follow 1.bundle");
}

#[test]
fn a_root_that_is_gone_does_not_mean_that_anything_goes() {
    let lab = Lab::new();
    for slot in slots(&lab) {
        fs::remove_file(slot).unwrap();
    }
    for line in ["apply api.gov --iface none0", "apply api.gov --iface none0 --dry-run", "rollback"]
    {
        let err = lab.fails(line, 1);
        assert!(
            err.contains("`state` has lost its root of trust") && err.contains("node.pub"),
            "{err}"
        );
        assert!(err.contains("--replace-signed"), "{err}");
    }
    for name in ["node.pub", "audit.log"] {
        fs::remove_file(lab.path("state").join(name)).unwrap();
    }
    lab.fails("rollback --instance nobody-has-this", 3);
    assert!(!lab.path("state/audit.log").exists());
}

#[test]
fn what_signers_put_in_force_is_not_replaced_by_what_nobody_signed() {
    if !kernel_is_in_reach() {
        return;
    }
    let lab = Lab::new();
    let (node, peer) = (Namespace::create("node").unwrap(), Namespace::create("peer").unwrap());
    veth(&node, "eth0", &peer, "eth0", None).unwrap();
    let instance = Instance(format!("trust-{}", std::process::id()));
    let run = |line: &str| node.run(|| lab.run(&format!("{line} --instance {}", instance.0)));
    let ends = |line: &str, code: i32| {
        let (output, expected) = (run(line), Some(code));
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), expected, "{line}: {out}{err}");
        format!("{out}{err}")
    };
    lab.bundle("1.bundle", "--root acme.root", &["ann", "bob"]);
    lab.bundle("2.bundle", "--previous 1.bundle", &["ann", "bob"]);
    ends("apply 1.bundle --iface eth0", 0);
    ends("apply 2.bundle", 0);
    for line in ["apply api.gov", "apply api.gov --dry-run", "rollback"] {
        let told = ends(&format!("{line} --state elsewhere"), 1);
        assert!(told.contains("came in a signed bundle"), "{told}");
        assert!(!lab.path("elsewhere").exists());
    }
    // The bundle that the directory has for last can still be told from older ones.
    ends("apply 1.bundle", 1);
    // Whoever means it says so, which is noted.
    ends("apply api.gov --state elsewhere --replace-signed", 0);
    let log = lab.ok("audit show --state elsewhere");
    assert!(log.contains("authority given up") && log.contains("apply: "), "{log}");
    lab.ok("audit verify --state elsewhere");
    ends("detach", 0);
}

/// What the log says, last line first.
fn notes(lab: &Lab) -> Vec<String> {
    let log = lab.ok("audit show --json");
    let notes = log.lines().map(|line| json(line)["record"]["note"].as_str().unwrap().to_owned());
    notes.collect::<Vec<_>>().into_iter().rev().collect()
}

#[test]
fn nothing_happens_that_the_log_could_not_tell() {
    let lab = Lab::new();
    for (name, options) in [("1.bundle", "--root acme.root"), ("2.bundle", "--previous 1.bundle")] {
        lab.bundle(name, options, &["ann", "bob"]);
    }
    lab.ok("trust follow 1.bundle");
    lab.ok("grant new --root acme.root --serial 12 --to node.key.pub --for api.gov --until 90d -o 12.grant");
    lab.sign("12.grant", &["ann", "eve"]);
    let path = lab.path("state/audit.log");
    let whole = fs::read_to_string(&path).unwrap();
    let last = whole.lines().next_back().unwrap();
    // A torn line, a changed one, one that is missing, none at all.
    for (log, told, mended) in [
        (format!("{whole}{{\"x"), "cut off", "3 bytes of a torn line"),
        (
            whole.replace(last, &last.replacen("12.grant", "13.grant", 1)),
            "changed or removed",
            "the last line is not",
        ),
        (whole.replace(&format!("{last}\n"), ""), "changed or removed", "1 of "),
        (String::new(), "changed or removed", "known lines are missing"),
    ] {
        let slots = ["trust.0", "trust.1"].map(|name| lab.path("state").join(name));
        let kept = slots.clone().map(|path| fs::read(path).unwrap());
        fs::write(&path, log).unwrap();
        for line in [
            "apply 2.bundle --iface none0",
            "trust follow 2.bundle",
            "grant accept 12.grant",
            "sign 12.grant --key bob.key --identity id",
        ] {
            let err = lab.fails(line, 1);
            assert!(err.contains(told) && err.to_lowercase().contains("mend"), "{line}: {err}");
        }
        assert!(!lab.path("state/grants/12.grant").exists());
        assert_eq!(json(&lab.ok("trust show --json"))["generation"], 1);
        lab.fails("audit verify", 1);
        lab.ok("audit mend");
        assert!(notes(&lab)[0].contains(mended), "{:?}", notes(&lab));
        lab.ok("audit verify");
        for (path, bytes) in slots.iter().zip(kept) {
            fs::write(path, bytes).unwrap();
        }
    }
    fs::remove_file(&path).unwrap();
    lab.fails("grant accept 12.grant", 1);
    lab.fails("audit verify", 1);
    fs::write(&path, &whole).unwrap();
    lab.ok("audit verify");
    lab.ok("trust follow 2.bundle");
    lab.ok("audit verify");
    // The log has to tell of the bundle that is trusted, which a slot of before does not know.
    let newest = slots(&lab).swap_remove(0);
    let older = slots(&lab).swap_remove(1);
    fs::remove_file(newest).unwrap();
    let trusts = json(&fs::read_to_string(older).unwrap());
    assert_eq!(trusts["content"]["trust"]["last"]["generation"], 1);
    let err = lab.fails("audit verify", 1);
    assert!(err.contains("as the last that was accepted, the trust state"), "{err}");
}

#[test]
fn who_follows_is_not_locked_out() {
    let lab = Lab::bare();
    lab.ok("keys new acme --number 7");
    lab.ok("trust init acme.root --node node.key.pub");
    for serial in [11, 12] {
        lab.ok(&format!("grant new --root acme.root --serial {serial} --to node.key.pub --for api.gov --until 90d -o {serial}.grant"));
        lab.sign(&format!("{serial}.grant"), &["ann", "eve"]);
    }
    lab.ok("grant revoke 11 --revocations revoked.json");
    // The first is over; the second takes a grant back.
    let over = "--from 2020-01-01T00:00:00Z --until 30d";
    lab.bundle("1.bundle", &format!("--root acme.root {over}"), &["ann", "bob"]);
    let second = format!("--previous 1.bundle --revocations revoked.json {over}");
    lab.bundle("2.bundle", &second, &["ann", "bob"]);
    lab.bundle("3.bundle", "--previous 2.bundle", &["ann", "bob"]);
    lab.ok("trust follow 1.bundle 2.bundle");
    let shown = json(&lab.ok("trust show --json"));
    assert_eq!(shown["generation"], 2);
    let err = lab.fails("grant accept 11.grant", 1);
    assert!(err.contains("revoked by its serial 11"), "{err}");
    lab.ok("grant accept 12.grant");
    lab.ok("check api.gov --authority state");
    let err = lab.fails("apply 3.bundle --iface none0", 3);
    assert!(!err.contains("grant"), "{err}");
    // What was kept is gone: the grants are shown and taken all the same, and nothing is said to hold.
    lab.write(
        "state/followed.json",
        &format!("{{\"manifest\":\"{}\",\"revoked\":{{\"serials\":[]}}}}", "0".repeat(64)),
    );
    let output = lab.run("trust show");
    let (out, err) = texts(&output);
    assert!(output.status.success() && err.contains("revocations are not known"), "{out}{err}");
    lab.ok("grant accept 12.grant");
    lab.fails("grant verify 12.grant", 3);
    lab.ok("trust follow 2.bundle");
    lab.ok("grant verify 12.grant");
}

#[test]
fn what_is_not_good_yet_is_not_followed() {
    let lab = Lab::new();
    let later = "--from 2099-01-01T00:00:00Z --until 30d";
    lab.bundle("1.bundle", &format!("--root acme.root {later}"), &["ann", "bob"]);
    lab.bundle("2.bundle", &format!("--previous 1.bundle {later}"), &["ann", "bob"]);
    for line in ["trust follow 1.bundle", "verify 1.bundle 2.bundle"] {
        let err = lab.fails(line, 1);
        assert!(err.contains("good from 2099-01-01T00:00:00Z only"), "{line}: {err}");
    }
    assert!(json(&lab.ok("trust show --json"))["generation"].is_null());
    lab.ok("verify 1.bundle 2.bundle --at 2099-01-02T00:00:00Z");
    // Nor is one whose parts are not those that were signed.
    lab.bundle("now.bundle", "--root acme.root", &["ann", "bob"]);
    let text = fs::read(lab.path("now.bundle")).unwrap();
    let at = text.windows(5).position(|part| part == b"acme.").unwrap();
    let mut wrong = text.clone();
    wrong[at] = b'b';
    fs::write(lab.path("now.bundle"), wrong).unwrap();
    lab.fails("trust follow now.bundle", 1);
    fs::write(lab.path("now.bundle"), text).unwrap();
    lab.ok("trust follow now.bundle");
}

/// A grant whose first block has these signatures besides, as base64 of so many bytes.
fn forge(lab: &Lab, file: &str, ids: impl Iterator<Item = String>) {
    let mut grant = json(&fs::read_to_string(lab.path(file)).unwrap());
    let signatures = grant["blocks"][0]["signatures"].as_array_mut().unwrap();
    let junk = format!("{}==", "A".repeat(86));
    signatures.extend(ids.map(|id| serde_json::json!({ "keyid": id, "sig": junk })));
    signatures.sort_by_key(|one| one["keyid"].as_str().unwrap().to_owned());
    let signatures = signatures
        .iter()
        .map(|one| format!("{{\"keyid\":{},\"sig\":{}}}", one["keyid"], one["sig"]));
    let signatures = signatures.collect::<Vec<_>>().join(",");
    let block = &grant["blocks"][0];
    let (payload, kind) = (&block["payload"], &block["payloadType"]);
    lab.write(
        file,
        &format!("{{\"blocks\":[{{\"payload\":{payload},\"payloadType\":{kind},\"signatures\":[{signatures}]}}]}}"),
    );
}

#[test]
fn what_is_said_to_be_signed_is() {
    let lab = Lab::new();
    lab.ok("grant new --root acme.root --serial 12 --to node.key.pub --for api.gov --until 90d -o 12.grant");
    let bob = json(&lab.ok("signer show bob.key.pub --json"))["id"].as_str().unwrap().to_owned();
    forge(&lab, "12.grant", std::iter::once(bob));
    lab.sign("12.grant", &["ann"]);
    lab.fails("grant verify 12.grant", 1);
    let said = lab.ok("sign 12.grant --key bob.key --identity id");
    assert!(said.contains("in the place of what was no signature of it"), "{said}");
    lab.ok("grant verify 12.grant");
    let before = lab.ok("audit show");
    let said = lab.ok("sign 12.grant --key bob.key --identity id");
    assert!(said.contains("had signed before"), "{said}");
    assert_eq!(lab.ok("audit show"), before, "nobody signed");
}

#[test]
fn signatures_of_nobody_do_not_fill_a_file_up() {
    let lab = Lab::bare();
    lab.ok("grant new --root acme.root --serial 12 --to node.key.pub --for api.gov --until 90d -o 12.grant");
    lab.sign("12.grant", &["ann"]);
    forge(&lab, "12.grant", (0..63).map(|number| format!("{number:064x}")));
    let err = lab.fails("sign 12.grant --key bob.key --identity id", 1);
    assert!(err.contains("--drop-unknown"), "{err}");
    lab.fails("sign 12.grant --key bob.key --identity id --drop-unknown", 2);
    let line = "sign 12.grant --key bob.key --identity id --drop-unknown --root acme.root";
    let said = lab.ok(line);
    assert!(said.contains("63 signatures of unknown keys"), "{said}");
    lab.ok("grant verify 12.grant --root acme.root");
}

#[test]
fn keys_that_grant_in_a_circle_are_told() {
    let lab = Lab::new();
    let rights = "--names api.gov --subjects payments.** --operations ledger.read --residencies eu --until 90d";
    lab.ok(&format!("grant new --root acme.root --serial 20 --serials 21-29 --to node.key.pub --depth 2 {rights} -o 20.grant"));
    lab.sign("20.grant", &["ann", "bob"]);
    let told = |line: &str| {
        let output = lab.run(line);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{line}: {out}{err}");
        err.contains("keys grant themselves in a circle")
    };
    assert!(!told("grant show 20.grant") && !told("grant verify 20.grant"));
    assert!(!told("grant accept 20.grant"));
    lab.ok("grant narrow 20.grant --key node.key --identity id --to node.key.pub --serial 21 -o 21.grant");
    for line in ["grant show 21.grant", "grant verify 21.grant", "grant accept 21.grant"] {
        assert!(told(line), "{line}");
    }
}

#[test]
fn signers_see_which_numbers_a_bundle_is_made_of() {
    let lab = Lab::bare();
    let made = json(&lab.ok("bundle api.gov --root acme.root -o 1.bundle --json"));
    let mut sum = std::process::Command::new("sha256sum");
    let sum = sum.arg(lab.path("acme/vocabulary.lock")).output().unwrap();
    let sum = texts(&sum).0.split(' ').next().unwrap().to_owned();
    assert_eq!(made["locks"], serde_json::json!({ "acme.vocabulary": sum }));
    assert!(lab.ok("sign 1.bundle --key ann.key --identity id").contains(&sum));
}

#[test]
fn grants_of_the_next_signers_are_taken_before_their_bundle() {
    let lab = Lab::new();
    lab.bundle("1.bundle", "--root acme.root", &["ann", "bob"]);
    lab.ok("trust follow 1.bundle");
    let next = "--previous 1.bundle --next-signer team.key.pub --next-threshold 1";
    lab.bundle("2.bundle", next, &["ann", "bob"]);
    let err = lab.fails("apply 2.bundle --iface none0", 1);
    assert!(err.contains("--for-bundle"), "{err}");
    for (serial, file) in [(11, "same"), (12, "other")] {
        lab.ok(&format!("grant new --root acme.root --serial {serial} --to node.key.pub --for api.gov --until 90d -o {file}.grant"));
        lab.sign(&format!("{file}.grant"), &["team"]);
    }
    lab.fails("grant accept other.grant", 1);
    let err = lab.fails("grant accept same.grant --for-bundle 2.bundle", 1);
    assert!(err.contains("grant 11 is held by the present signers"), "{err}");
    lab.ok("grant accept other.grant --for-bundle 2.bundle");
    lab.fails("apply 2.bundle --iface none0", 3);
    // What both sets signed may take the place of what one of them did.
    lab.sign("same.grant", &["ann", "bob"]);
    lab.ok("grant accept same.grant --for-bundle 2.bundle");
    lab.ok("check api.gov --authority state");
    // A bundle that nobody would apply says nothing about who grants.
    lab.bundle("few.bundle", next, &["ann"]);
    lab.fails("grant accept other.grant --for-bundle few.bundle", 1);
}

#[test]
fn bundles_are_written_over_bundles_only() {
    let lab = Lab::bare();
    let key = fs::read(lab.path("ann.key")).unwrap();
    let err = lab.fails("bundle api.gov --root acme.root -o ann.key", 2);
    assert!(err.contains("is no bundle"), "{err}");
    assert_eq!(fs::read(lab.path("ann.key")).unwrap(), key);
    lab.ok("bundle api.gov --root acme.root -o 1.bundle");
    lab.ok("bundle api.gov --root acme.root -o 1.bundle");
}

#[test]
fn generations_stay_within_reach() {
    let lab = Lab::bare();
    lab.fails("bundle api.gov --root acme.root --generation 18446744073709551615 -o 1.bundle", 2);
    lab.fails("bundle api.gov --root acme.root --generation 9007199254740992 -o 1.bundle", 2);
    lab.ok("bundle api.gov --root acme.root -o 1.bundle");
    let err = lab.fails("bundle api.gov --previous 1.bundle --generation 1 -o 2.bundle", 2);
    assert!(err.contains("not behind that of the previous bundle"), "{err}");
    let output =
        lab.run("bundle api.gov --previous 1.bundle --generation 9007199254740991 -o 2.bundle");
    let (_, err) = texts(&output);
    assert!(output.status.success() && err.contains("generations 2 to"), "{err}");
    let err = lab.fails("bundle api.gov --previous 2.bundle -o 3.bundle", 1);
    assert!(err.contains("no generation follows"), "{err}");
    lab.fails("trust new --domain a --number 0 --signer ann.key.pub --threshold 1 -o a.root", 2);
}

#[test]
fn a_state_that_others_may_write_to_is_not_believed() {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = Lab::new();
    fs::set_permissions(lab.path("state"), fs::Permissions::from_mode(0o777)).unwrap();
    for line in ["trust show", "apply api.gov --iface none0", "rollback"] {
        let err = lab.fails(line, 3);
        assert!(err.contains("others may change the trust state"), "{line}: {err}");
    }
    fs::set_permissions(lab.path("state"), fs::Permissions::from_mode(0o700)).unwrap();
    lab.ok("trust show");
}
