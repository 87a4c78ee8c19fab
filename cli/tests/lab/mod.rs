//! A directory with signers, a root of trust, policies, and a program that works in it.

#![allow(dead_code, reason = "each of the tests that share it uses a part")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    process::{Command, Output},
};

use age::secrecy::ExposeSecret as _;
use govc_netlab::require_root;
use serde_json::Value;
use tempfile::TempDir;

pub const VOCABULARY: &str = include_str!("../../../examples/policies/acme/vocabulary.gov");
pub const PASSPHRASE: &str = "correct horse battery staple";

/// The policy of a node that stamps with an operation.
pub fn policy(operation: &str) -> String {
    format!(
        "package acme.api\nuse acme.vocabulary\nzone lan = interface \"eth0\"\n\
         stamp on lan {{ subject acme.payments.api  operation {operation}  residency eu }}\n\
         policy calls {{\n    on egress\n    permit read {{ from acme.payments.api  operation {operation} }}\n}}\n"
    )
}

/// A directory with signers, a root of trust of two of them, and a node that trusts it.
pub struct Lab {
    pub dir: TempDir,
    /// The public half of the age key in `id`.
    pub recipient: String,
}

impl Lab {
    /// Keys of ann, bob, eve, team and node; nobody trusts anybody yet.
    pub fn bare() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let identity = age::x25519::Identity::generate();
        let text = format!("# a comment\n{}\n", identity.to_string().expose_secret());
        fs::write(dir.path().join("id"), text).unwrap();
        fs::set_permissions(dir.path().join("id"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir_all(dir.path().join("acme")).unwrap();
        let lab = Self { dir, recipient: identity.to_public().to_string() };
        lab.write("acme/vocabulary.gov", VOCABULARY);
        lab.write("api.gov", &policy("ledger.read"));
        for name in ["ann", "bob", "eve", "team", "node"] {
            lab.ok(&format!("signer new {name}.key --recipient {}", lab.recipient));
        }
        lab.ok("trust new --domain acme --number 7 --signer ann.key.pub --signer bob.key.pub \
             --signer eve.key.pub --threshold 2 -o acme.root");
        lab
    }

    /// The same, with a node that trusts 2 of the 3, has label keys and may stamp.
    pub fn new() -> Self {
        let lab = Self::bare();
        lab.ok("trust init acme.root --node node.key.pub");
        lab.ok("keys new acme --number 7");
        lab.ok("grant new --root acme.root --serial 11 --to node.key.pub --for api.gov --until 90d -o 11.grant");
        lab.sign("11.grant", &["ann", "eve"]);
        lab.ok("grant accept 11.grant");
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_govc"));
        command
            .current_dir(self.dir.path())
            .env_remove("GOVC_PASSPHRASE")
            .env_remove("GOVC_IDENTITY")
            .env("GOVC_STATE", "state")
            .env("GOVC_KEYS", "keys")
            .args(arguments);
        command
    }

    pub fn run(&self, line: &str) -> Output {
        self.command(&line.split_whitespace().collect::<Vec<_>>()).output().unwrap()
    }

    /// What a command says that succeeds.
    pub fn ok(&self, line: &str) -> String {
        let output = self.run(line);
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{line}: {out}{err}");
        out
    }

    /// What a command says on standard error that ends with this code.
    pub fn fails(&self, line: &str, code: i32) -> String {
        let output = self.run(line);
        let (out, err) = texts(&output);
        assert_eq!(output.status.code(), Some(code), "{line}: {out}{err}");
        assert!(!err.contains("panicked"), "{err}");
        err
    }

    pub fn sign(&self, file: &str, names: &[&str]) {
        for name in names {
            self.ok(&format!("sign {file} --key {name}.key --identity id"));
        }
    }

    /// A bundle of `api.gov`, signed.
    pub fn bundle(&self, name: &str, options: &str, signers: &[&str]) {
        self.ok(&format!("bundle api.gov {options} -o {name}"));
        self.sign(name, signers);
    }
}

pub fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Whether tests of the kernel can run; they have to where `GOVC_REQUIRE_KERNEL` is set.
pub fn kernel_is_in_reach() -> bool {
    let reached = require_root().is_ok();
    assert!(reached || std::env::var_os("GOVC_REQUIRE_KERNEL").is_none(), "run as root");
    reached
}
