//! Mappings and transit grants from the command line: what gateways may translate.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "the helpers of tests may panic as tests do"
)]

mod lab;

use std::fs;

use lab::{Lab, json, texts};

/// A gateway's policy, with further parts of its translation.
fn gateway(parts: &str) -> String {
    format!(
        "package acme.gateway\nuse acme.vocabulary\nuse partner.vocabulary\n\
         zone lan = interface \"eth0\"  neighbours = interface \"eth1\"\n\
         policy transit {{ on forward  permit orders {{ from partner.shop, partner.billing.** }} }}\n\
         translate partner -> acme on lan {{\n    partner.shop -> acme.guest\n    cap level public\n    \
         drop compartments\n    add constraints {{no_forward}}\n    operation shop.order -> ledger.read\n    {parts}\n}}\n\
         translate acme -> partner on neighbours {{ acme.payments.ledger -> partner.visitor  cap level outer  drop compartments }}\n"
    )
}

const PARTNER: &str = include_str!("../../examples/policies/partner/vocabulary.gov");

#[test]
fn translations_lie_within_what_the_receiving_domain_signed() {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("partner")).unwrap();
    lab.write("partner/vocabulary.gov", PARTNER);
    lab.write("gateway.gov", &gateway(""));
    lab.ok(
        "trust new --domain partner --number 9 --signer team.key.pub --threshold 1 -o partner.root",
    );
    // Nobody signed anything: neither who checks nor who applies takes it.
    let told = |line: &str| {
        let output = lab.run(line);
        assert!(!output.status.success(), "{line}");
        let (out, err) = texts(&output);
        format!("{out}{err}")
    };
    let both = told("check gateway.gov --authority state");
    assert_eq!(both.matches("GOV7002").count(), 2, "{both}");
    assert!(both.contains("no signed mapping leads from there into domain 7"), "{both}");
    lab.ok("bundle gateway.gov --root acme.root -o 1.bundle");
    lab.sign("1.bundle", &["ann", "eve"]);
    let refused = lab.fails("apply 1.bundle --iface eth0", 1);
    assert!(refused.contains("translates what this node may not"), "{refused}");
    assert!(refused.contains("gateway.gov:6: translate `partner -> acme.guest`"), "{refused}");
    // Both domains sign what may come to them, and grant the gateway to write it.
    lab.ok(
        "mapping new --root acme.root --from partner --for gateway.gov --until 90d -o in.mapping",
    );
    lab.ok(
        "mapping new --root partner.root --from acme --for gateway.gov --until 90d -o out.mapping",
    );
    lab.ok("grant new --root acme.root --serial 12 --to node.key.pub --for gateway.gov --until 90d -o in.grant");
    lab.ok("grant new --root partner.root --serial 3 --to node.key.pub --for gateway.gov --until 90d -o out.grant");
    assert!(lab.fails("mapping accept in.mapping", 1).contains("the mapping"), "not signed");
    for file in ["in.mapping", "in.grant"] {
        lab.sign(file, &["ann", "bob"]);
    }
    for file in ["out.mapping", "out.grant"] {
        lab.sign(file, &["team"]);
    }
    let report = json(&lab.ok("mapping show in.mapping --json"));
    assert_eq!(report["level_max"], 0);
    assert_eq!((&report["add_constraints"], &report["drop_constraints"]), (&2.into(), &0.into()));
    let one = told("check gateway.gov --root acme.root --grants in.grant --mapping in.mapping");
    assert_eq!(one.matches("GOV7002").count(), 1, "the other way is not granted: {one}");
    for file in ["in", "out"] {
        let root = if file == "out" { "--root partner.root" } else { "" };
        if file == "out" {
            lab.fails("mapping accept out.mapping", 1);
            lab.fails("grant accept out.grant", 1);
        }
        lab.ok(&format!("mapping accept {file}.mapping {root}"));
        lab.ok(&format!("grant accept {file}.grant {root}"));
    }
    lab.ok("check gateway.gov --authority state");
    // Whoever asks what becomes of a label is told under which grant.
    let packet = "packet { on forward  from partner.shop  operation shop.order  radius any  egress zone lan }";
    let explain = |more: &[&str]| {
        let output = lab.command(&[&["explain", "gateway.gov", packet], more].concat()).output();
        texts(&output.unwrap()).0
    };
    let text = explain(&["--authority", "state"]);
    assert!(
        text.contains("leaves as from acme.guest") && text.contains(", under transit grant 12\n"),
        "{text}"
    );
    let report = json(&explain(&["--authority", "state", "--json"]));
    assert_eq!(report["becomes"]["grant"], 12);
    assert!(!explain(&[]).contains("grant"));
    narrowed(&lab, packet);
    lab.write(
        "tested.gov",
        &format!("{}\ntest \"orders\" {{ {packet} expect permit }}\n", gateway("")),
    );
    assert!(lab.ok("test tested.gov --authority state").contains("under transit grant 12"));
    // Whatever goes further is told: an obligation that is dropped, one that is not added, a level, a subject.
    for (from, to, why) in [
        (
            "    operation",
            "    drop constraints {sealed}\n    operation",
            "constraint bit 0 is dropped",
        ),
        (
            "    add constraints {no_forward}\n",
            "",
            "adds constraint bit 1, which is not added here",
        ),
        (
            "cap level public",
            "cap level internal\n    level inner -> internal",
            "is the most that the signed mapping allows",
        ),
        (
            "partner.shop -> acme.guest",
            "partner.shop -> acme.ops.node",
            "something else of subject",
        ),
        (
            "partner.shop -> acme.guest",
            "partner.visitor -> acme.guest",
            "something else of subject",
        ),
        ("shop.order -> ledger.read", "shop.order -> ledger.write", "(`ledger.write`)"),
    ] {
        let wider = gateway("").replacen(from, to, 1);
        let wider = if to.contains("internal") {
            wider.replace("acme.guest", "acme.web.front")
        } else {
            wider
        };
        lab.write("wider.gov", &wider);
        let told = told("check wider.gov --authority state");
        assert!(told.contains("GOV7002"), "{told}");
        let told = told.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(why) || to.contains("internal"), "{why}: {told}");
    }
    ended(&lab);
    let other =
        "trust new --domain partner --number 9 --signer eve.key.pub --threshold 1 -o other.root";
    lab.ok(other);
    assert!(lab.fails("mapping accept out.mapping --root other.root", 1).contains("another root"));
}

/// A gateway that was given mappings and grants of both domains, and their roots.
fn lab_of_two() -> Lab {
    let lab = Lab::new();
    fs::create_dir_all(lab.path("partner")).unwrap();
    lab.write("partner/vocabulary.gov", PARTNER);
    lab.write("gateway.gov", &gateway(""));
    for (file, signer) in [("partner", "team"), ("evil", "eve")] {
        lab.ok(&format!(
            "trust new --domain partner --number 9 --signer {signer}.key.pub --threshold 1 -o {file}.root"
        ));
    }
    lab.ok("grant revoke 40 --revocations revoked.json");
    lab.ok("mapping new --root partner.root --from acme --for gateway.gov --until 90d --revocations revoked.json --require-grants -o out.mapping");
    lab.ok("grant new --root partner.root --serial 3 --to node.key.pub --for gateway.gov --until 90d -o out.grant");
    for file in ["out.mapping", "out.grant"] {
        lab.sign(file, &["team"]);
    }
    lab
}

#[test]
fn a_root_abroad_comes_with_what_it_signed_only() {
    let lab = lab_of_two();
    for line in ["mapping accept out.mapping", "grant accept out.grant"] {
        lab.fails(&format!("{line} --root evil.root"), 1);
        assert!(!lab.path("state/abroad").exists(), "{line}");
    }
    assert!(!lab.ok("audit show").contains("foreign root set"));
    lab.ok("mapping accept out.mapping --root partner.root");
    lab.ok("grant accept out.grant --root partner.root");
    let log = lab.ok("audit show");
    assert_eq!(log.matches("foreign root set  partner (9)").count(), 1, "{log}");
    // Whatever else lies there is no domain.
    fs::create_dir_all(lab.path("state/abroad/12")).unwrap();
    lab.write("state/abroad/notes", "");
    lab.ok("grant accept out.grant --root partner.root");
}

#[test]
fn a_root_abroad_that_is_gone_forgets_nothing() {
    let lab = lab_of_two();
    lab.ok("mapping accept out.mapping --root partner.root");
    lab.ok("bundle api.gov --root acme.root -o 1.bundle");
    lab.sign("1.bundle", &["ann", "eve"]);
    // The domain has other signers from now on.
    lab.ok("trust new --domain partner --number 9 --signer bob.key.pub --threshold 1 -o partner-2.root");
    let err = lab.fails("mapping accept out.mapping --root partner-2.root", 1);
    assert!(err.contains("another root") && err.contains("state/abroad/9/root"), "{err}");
    fs::remove_file(lab.path("state/abroad/9/root")).unwrap();
    for line in ["apply 1.bundle --iface none0", "grant accept out.grant --root partner.root"] {
        let err = lab.fails(line, 1);
        assert!(err.contains("what that domain took back is not known"), "{line}: {err}");
        assert!(err.contains("mapping accept MAPPING --root ROOT"), "{line}: {err}");
    }
    // What the old ones took back, the new ones have to take back as well.
    let new = "mapping new --root partner-2.root --from acme --for gateway.gov --until 90d";
    lab.ok(&format!("{new} --require-grants -o few.mapping"));
    lab.ok(&format!("{new} --revocations revoked.json --require-grants -o new.mapping"));
    for file in ["few.mapping", "new.mapping"] {
        lab.sign(file, &["bob"]);
    }
    let err = lab.fails("mapping accept few.mapping --root partner-2.root", 1);
    assert!(err.contains("does not take grant 40 back"), "{err}");
    lab.ok("mapping accept new.mapping --root partner-2.root");
    lab.fails("apply 1.bundle --iface none0", 3);
}

#[test]
fn an_older_and_wider_mapping_does_not_come_back() {
    let lab = lab_of_two();
    let new = "mapping new --root acme.root --from partner --for gateway.gov";
    for (file, until) in [("wide", "90d"), ("narrow", "30d"), ("later", "10d")] {
        lab.ok(&format!("{new} --until {until} -o {file}.mapping"));
        lab.sign(&format!("{file}.mapping"), &["ann", "bob"]);
    }
    let sequence = |file: &str| {
        let rules = json(&lab.ok(&format!("mapping show {file}.mapping --json")));
        rules["sequence"].as_u64().unwrap()
    };
    assert!(sequence("wide") < sequence("narrow") && sequence("narrow") < sequence("later"));
    lab.ok("mapping accept wide.mapping");
    lab.ok("mapping accept narrow.mapping");
    let err = lab.fails("mapping accept wide.mapping", 1);
    assert!(err.contains("the mapping has sequence") && err.contains("newest"), "{err}");
    lab.ok("mapping accept narrow.mapping");
    lab.ok("mapping accept later.mapping");
    // Who counts by hand goes on from there; who has one that is here counts on from that.
    lab.ok(&format!("{new} --until 90d --sequence 7 -o low.mapping"));
    lab.sign("low.mapping", &["ann", "bob"]);
    assert!(lab.fails("mapping accept low.mapping", 1).contains("has sequence 7"));
    lab.ok(&format!("{new} --until 90d --sequence 9000000000000000 -o high.mapping"));
    lab.sign("high.mapping", &["ann", "bob"]);
    lab.ok("mapping accept high.mapping");
    lab.ok(&format!("{new} --until 90d -o next.mapping"));
    assert_eq!(sequence("next"), 9_000_000_000_000_001);
}

#[test]
fn a_mapping_beyond_the_transit_grant_is_told() {
    let lab = lab_of_two();
    lab.ok("grant new --root acme.root --serial 12 --to node.key.pub --for gateway.gov --until 90d -o in.grant");
    lab.ok(
        "mapping new --root acme.root --from partner --for gateway.gov --until 90d -o in.mapping",
    );
    lab.write("wider.gov", &gateway("partner.visitor -> acme.ops.node"));
    lab.ok(
        "mapping new --root acme.root --from partner --for wider.gov --until 90d -o wider.mapping",
    );
    for file in ["in.grant", "in.mapping", "wider.mapping"] {
        lab.sign(file, &["ann", "bob"]);
    }
    let told = |file: &str| {
        let output = lab.run(&format!("mapping accept {file}"));
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{file}: {out}{err}");
        err
    };
    // The grant to stamp that the node holds is not about these subjects.
    assert_eq!(told("in.mapping"), "");
    lab.ok("grant accept in.grant");
    assert_eq!(told("in.mapping"), "");
    let err = told("wider.mapping");
    assert!(err.contains("by grant 12: subject") && err.contains("becomes subject"), "{err}");
}

/// Of two grants it is the one that covers the translation, whatever its serial.
fn narrowed(lab: &Lab, packet: &str) {
    lab.write("two.gov", &gateway("partner.billing.invoices -> acme.web.front"));
    lab.ok("mapping new --root acme.root --from partner --for two.gov --until 90d -o two.mapping");
    lab.sign("two.mapping", &["ann", "bob"]);
    lab.ok("mapping accept two.mapping");
    fs::remove_file(lab.path("state/grants/12.grant")).unwrap();
    for (serial, subject) in [(9, "acme.web.front"), (14, "acme.guest")] {
        lab.ok(&format!(
            "grant new --root acme.root --serial {serial} --to node.key.pub --for two.gov --subjects {subject} --until 90d -o {serial}.grant"
        ));
        lab.sign(&format!("{serial}.grant"), &["ann", "bob"]);
        lab.ok(&format!("grant accept {serial}.grant"));
    }
    for (sender, serial) in [("partner.shop", 14), ("partner.billing.invoices", 9)] {
        let packet = packet.replace("partner.shop", sender);
        let asked = ["explain", "two.gov", &packet, "--authority", "state", "--json"];
        let report = json(&texts(&lab.command(&asked).output().unwrap()).0);
        assert_eq!(report["becomes"]["grant"], serial, "{report}");
    }
    for serial in [9, 14] {
        fs::remove_file(lab.path(&format!("state/grants/{serial}.grant"))).unwrap();
    }
    // The one of before, signed anew.
    lab.ok("mapping new --root acme.root --from partner --for gateway.gov --until 90d -o again.mapping");
    lab.sign("again.mapping", &["ann", "bob"]);
    lab.ok("mapping accept again.mapping");
    lab.ok("grant accept in.grant");
}

/// Who applies after the node's own transit grant has ended is told that it has.
fn ended(lab: &Lab) {
    lab.ok("grant new --root acme.root --serial 12 --to node.key.pub --for gateway.gov --until 12s -o brief.grant");
    lab.sign("brief.grant", &["ann", "bob"]);
    lab.ok("grant accept brief.grant");
    let holds = || {
        let state = json(&lab.ok("trust show --json"));
        let mut grants = state["grants"].as_array().unwrap().iter();
        grants.find(|one| one["file"].as_str().unwrap().ends_with("12.grant")).unwrap()["refused"]
            .is_null()
    };
    while holds() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let refused = lab.fails("apply 1.bundle --iface eth0", 1);
    let refused = refused.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(refused.contains("but not by grant 11"), "{refused}");
    assert!(refused.contains("12.grant"), "{refused}");
    assert!(refused.contains("the grant ended with second"), "{refused}");
}
