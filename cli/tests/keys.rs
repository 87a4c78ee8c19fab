//! The key ring: who makes its keys, which of two is newer, and how its files lie.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    process::{Child, Stdio},
};

use age::secrecy::ExposeSecret as _;
use serde_json::Value;

use lab::{Lab, json, texts};

mod lab;

impl Lab {
    /// An export of the domain's keys that a ring holds.
    fn export(&self, dir: &str, output: &str) {
        let to = format!("--recipient {} --key ann.key --identity id", self.recipient);
        self.ok(&format!("keys export --number 7 {to} --keys {dir} -o {output}"));
    }

    /// The command that takes it.
    fn import(file: &str, dir: &str) -> String {
        let from = "--domain acme --number 7 --signer ann.key.pub --identity id";
        format!("keys import {file} {from} --keys {dir}")
    }

    /// A ring as it lies open.
    fn ring(&self, dir: &str) -> Value {
        json(&fs::read_to_string(self.path(dir).join("7.keys")).unwrap())
    }

    fn status(&self, options: &str) -> Value {
        json(&self.ok(&format!("keys status --json {options}")))
    }

    fn start(&self, line: &str) -> Child {
        let mut command = self.command(&line.split_whitespace().collect::<Vec<_>>());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// A file with another age key.
    fn identity(&self, name: &str) {
        let identity = age::x25519::Identity::generate();
        self.write(name, identity.to_string().expose_secret());
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
}

#[test]
fn an_export_from_before_a_rotation_brings_nothing_back() {
    let lab = Lab::bare();
    lab.ok("keys new acme --number 7");
    lab.export("keys", "old");
    lab.ok("keys rotate --number 7");
    lab.export("keys", "new");
    lab.ok(&Lab::import("new", "there"));
    let held = lab.ring("there");
    assert_eq!(held["epochs"], lab.ring("keys")["epochs"]);
    let err = lab.fails(&Lab::import("old", "there"), 1);
    assert!(err.contains("made before those that are here"), "{err}");
    // Nor at the node that made them, and what is there already may come once more.
    lab.fails(&Lab::import("old", "keys"), 1);
    lab.ok(&Lab::import("new", "there"));
    assert_eq!(lab.ring("there"), held);
    // Another domain of the same number is no newer one.
    lab.ok("keys new other --number 7 --keys elsewhere");
    let err = lab.fails(&Lab::import("new", "elsewhere"), 1);
    assert!(err.contains("have the number of domain `other` here"), "{err}");
}

#[test]
fn nobody_makes_keys_for_the_domain_of_somebody_else() {
    let lab = Lab::bare();
    lab.ok("keys new acme --number 7 --staged 3");
    lab.export("keys", "first");
    lab.ok(&Lab::import("first", "there"));
    lab.ok("keys new other --number 8 --staged 2 --keys there");
    let before = lab.ring("there")["epochs"].clone();
    // All rings: the own one, and the other is left alone, which is said.
    let told = lab.ok("keys stage --keys there");
    assert!(told.contains("other: 12 epochs added"), "{told}");
    assert!(told.contains("acme: left alone, its keys are made elsewhere"), "{told}");
    for line in ["keys stage --number 7 --keys there", "keys rotate --number 7 --keys there"] {
        let err = lab.fails(line, 2);
        assert!(err.contains("were imported") && err.contains("import the next export"), "{err}");
    }
    assert_eq!(lab.ring("there")["epochs"], before);
    let status = lab.status("--keys there");
    assert_eq!(
        (&status[0]["origin"], &status[1]["origin"]),
        (&json("\"imported\""), &json("\"made\""))
    );
    assert!(lab.ok("keys list --keys there").contains("elsewhere"));
    // The owner's next export is taken, also through a node in between.
    lab.ok("keys stage --number 7");
    lab.export("keys", "next");
    lab.ok(&Lab::import("next", "there"));
    assert_eq!(lab.ring("there")["epochs"], lab.ring("keys")["epochs"]);
    lab.export("there", "next");
    lab.ok(&Lab::import("next", "third"));
    // A node can take the owner's place, and the old owner its exports.
    lab.ok(&format!("{} --own", Lab::import("next", "third")));
    lab.ok("keys rotate --number 7 --keys third");
    lab.export("third", "next");
    let told = lab.ok(&Lab::import("next", "keys"));
    assert!(told.contains("made elsewhere from now on"), "{told}");
    lab.fails("keys rotate --number 7", 2);
}

#[test]
fn changes_of_a_ring_wait_for_each_other() {
    let lab = Lab::bare();
    for _ in 0..8 {
        let _ = fs::remove_dir_all(lab.path("keys"));
        let both = [lab.start("keys new acme --number 7"), lab.start("keys new acme --number 7")];
        let codes = both.map(|mut child| child.wait().unwrap().code().unwrap());
        assert!(codes == [0, 2] || codes == [2, 0], "{codes:?}");
        let before = lab.ring("keys");
        let line = "keys stage";
        let all = [lab.start(line), lab.start("keys rotate --number 7"), lab.start(line)];
        assert!(all.into_iter().all(|mut child| child.wait().unwrap().success()));
        let after = lab.ring("keys");
        let keys = |ring: &Value| {
            let epochs = ring["epochs"].as_array().unwrap().iter();
            epochs.map(|epoch| epoch["key"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let (before, after) = (keys(&before), keys(&after));
        // An epoch may have ended in between.
        assert!(after[2..].iter().all(|key| !before.contains(key)), "old keys are back");
    }
}

#[test]
fn rings_are_sealed_for_the_node_at_rest() {
    let lab = Lab::bare();
    lab.ok("keys new acme --number 7 --staged 3");
    let key = lab.ring("keys")["epochs"][1]["key"].as_str().unwrap().to_owned();
    let file = |dir: &str| fs::read_to_string(lab.path(dir).join("7.keys")).unwrap();
    assert_eq!(lab.status("")[0]["sealed"], false);
    assert!(lab.ok("keys status").contains("open"));
    lab.fails("keys seal", 2);
    lab.fails("keys seal --identity ann.key.pub", 3);
    assert!(file("keys").contains(&key), "what fails changes nothing");
    lab.ok("keys seal --identity id");
    assert!(file("keys").starts_with("-----BEGIN AGE") && !file("keys").contains(&key));
    let mode = fs::metadata(lab.path("keys/7.keys")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(fs::symlink_metadata(lab.path("keys/identity")).unwrap().is_symlink());
    // Everything goes on without a word about it, and what is written is sealed.
    assert_eq!(lab.status("")[0]["sealed"], true);
    lab.ok("keys rotate --number 7 --staged 4");
    lab.ok("keys new other --number 8");
    lab.export("keys", "acme.ring");
    assert!(file("keys").starts_with("-----BEGIN AGE"));
    assert!(fs::read_to_string(lab.path("keys/8.keys")).unwrap().starts_with("-----BEGIN AGE"));
    // A node that has an identity before it has keys, named in each of the three ways.
    let import = Lab::import("acme.ring", "there").replace(" --identity id", "");
    let err = lab.fails(&import, 2);
    assert!(err.contains("which age key opens"), "{err}");
    lab.ok(&format!("{import} --ring-identity id"));
    assert!(file("there").starts_with("-----BEGIN AGE"));
    let err = lab.fails("keys status --keys there", 3);
    assert!(err.contains("is sealed for the node's identity"), "{err}");
    assert!(err.contains("GOVC_IDENTITY"), "{err}");
    let mut command = lab.command(&["keys", "status", "--keys", "there"]);
    let (out, err) = texts(&command.env("GOVC_IDENTITY", "id").output().unwrap());
    assert!(out.contains("sealed"), "{out}{err}");
}

#[test]
fn an_identity_can_be_changed_and_its_loss_opens_nothing() {
    let lab = Lab::bare();
    lab.identity("new.id");
    lab.ok("keys new acme --number 7 --staged 3");
    lab.ok("keys seal --identity id");
    let ends = lab.status("")[0]["ends"].clone();
    lab.ok("keys seal --identity new.id");
    assert_eq!(lab.status("--ring-identity new.id")[0]["ends"], ends);
    assert_eq!(lab.status("")[0]["ends"], ends, "the link leads to the new one");
    let err = lab.fails("keys status --ring-identity id", 3);
    assert!(err.contains("the age key in `id` does not open it"), "{err}");
    // A disk that is missing: nothing is written in the open in the meantime.
    fs::rename(lab.path("new.id"), lab.path("away.id")).unwrap();
    let before = fs::read(lab.path("keys/7.keys")).unwrap();
    for line in ["keys rotate --number 7", "keys stage", "keys new other --number 8"] {
        lab.fails(line, 3);
    }
    assert_eq!(fs::read(lab.path("keys/7.keys")).unwrap(), before);
    assert!(!lab.path("keys/8.keys").exists());
    lab.ok("keys rotate --number 7 --ring-identity away.id");
    // A key that lies in the directory itself is not replaced by a link.
    fs::remove_file(lab.path("keys/identity")).unwrap();
    fs::copy(lab.path("away.id"), lab.path("keys/identity")).unwrap();
    let err = lab.fails("keys seal --identity id", 2);
    assert!(err.contains("is an identity of its own"), "{err}");
    assert_eq!(lab.status("")[0]["sealed"], true);
}

#[test]
fn doctor_says_how_keys_lie() {
    let lab = Lab::bare();
    lab.ok("keys new acme --number 7");
    let said = || {
        let found = json(&texts(&lab.run("doctor --json")).0);
        let keys = found.as_array().unwrap().iter().filter(|one| one["check"] == "keys");
        keys.map(|one| format!("{} {}\n", one["state"], one["message"])).collect::<String>()
    };
    assert!(said().contains("\"warn\" \"acme: the files lie open at rest\""), "{}", said());
    lab.ok("keys seal --identity id");
    assert!(said().contains("\"ok\" \"the files are sealed at rest\""), "{}", said());
    fs::remove_file(lab.path("keys/identity")).unwrap();
    fs::copy(lab.path("id"), lab.path("keys/identity")).unwrap();
    assert!(said().contains("\"warn\" \"the identity that opens"), "{}", said());
}

#[test]
fn an_export_overwrites_nothing_but_an_export() {
    let lab = Lab::bare();
    lab.ok("keys new acme --number 7");
    lab.export("keys", "acme.ring");
    lab.export("keys", "acme.ring");
    let before = fs::read(lab.path("bob.key")).unwrap();
    let to = format!("--recipient {} --key ann.key --identity id", lab.recipient);
    for there in ["bob.key", "id", "keys/7.keys", "acme.root", "acme"] {
        let err = lab.fails(&format!("keys export --number 7 {to} -o {there}"), 2);
        assert!(err.contains("is there already"), "{err}");
    }
    assert_eq!(fs::read(lab.path("bob.key")).unwrap(), before);
    // Of several files none is written where one must not be.
    lab.ok("keys new each --number 9 --per-subject");
    fs::create_dir(lab.path("nodes")).unwrap();
    fs::copy(lab.path("bob.key"), lab.path("nodes/19.keys")).unwrap();
    lab.fails(&format!("keys export --number 9 --subject 17-19 {to} -o nodes"), 2);
    assert!(!lab.path("nodes/17.keys").exists());
}

#[test]
fn a_key_directory_is_its_owners_alone() {
    let lab = Lab::bare();
    lab.ok("keys new acme --number 7");
    fs::copy(lab.path("keys/7.keys"), lab.path("keys/07.keys")).unwrap();
    assert_eq!(lab.status("").as_array().unwrap().len(), 1);
    fs::set_permissions(lab.path("keys"), fs::Permissions::from_mode(0o775)).unwrap();
    for line in ["keys status", "keys stage", "keys rotate --number 7", "keys new b --number 8"] {
        let err = lab.fails(line, 3);
        assert!(err.contains("others may put files into key directory"), "{err}");
    }
}

#[test]
fn keys_that_are_taken_for_policies_are_not_quoted() {
    let lab = Lab::bare();
    lab.ok("keys new acme --number 7");
    let key = lab.ring("keys")["epochs"][0]["key"].as_str().unwrap().to_owned();
    let identity = fs::read_to_string(lab.path("id")).unwrap();
    let secret = identity.lines().last().unwrap().to_owned();
    // With something before it, as in a file of notes.
    lab.write(
        "notes.gov",
        &format!("package acme.notes\n// {}\nnonsense {{", secret.to_lowercase()),
    );
    lab.write("space.gov", &format!("\u{feff}\n\n {}", lab.ring("keys")));
    let mut said = String::new();
    for file in ["keys/7.keys", "id", "ann.key", "notes.gov", "space.gov"] {
        for line in [
            format!("check {file}"),
            format!("check --format json {file}"),
            format!("check --emit tokens {file}"),
            format!("fmt --diff {file}"),
            format!("test {file}"),
            format!("build {file} -o image"),
            format!("query {file}"),
            format!("diff api.gov {file}"),
            format!("explain {file} packet"),
            format!("explain api.gov {file}"),
            format!("bundle {file} --root acme.root -o 1.bundle"),
            format!("apply {file} --iface lo --dry-run"),
        ] {
            let output = lab.run(&line);
            let (out, err) = texts(&output);
            assert!(!output.status.success(), "{line}: {out}{err}");
            said.push_str(&format!("{line}: {out}{err}"));
        }
    }
    let piece = |text: &str| text.to_lowercase()[..text.len().min(40)].to_owned();
    let sealed = fs::read_to_string(lab.path("ann.key")).unwrap();
    let sealed = sealed.lines().nth(1).unwrap();
    for secret in [&key, &piece(&secret)[16..].to_owned(), &piece(sealed)] {
        assert!(!said.to_lowercase().contains(secret), "{said}");
    }
    assert!(said.contains("`keys/7.keys` is no policy, and may hold keys"), "{said}");
}
