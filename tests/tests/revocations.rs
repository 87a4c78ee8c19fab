//! Grants that are taken back or end while their labels are under way: at a router of the own domain, and at
//! a gateway, which another domain tells with the mapping that it signed.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::Duration,
};

use age::secrecy::ExposeSecret as _;
use govc_abi::label::Label;
use govc_image::Image;
use govc_loader::{
    authority::{Authority, Held},
    keyring::slot_now,
};
use govc_netlab::Namespace;
use govc_tests::{
    domains::{self, PARTNER, keys},
    kernel_available,
    lab::{BOTH_VERSIONS, CALL_BACK, Lab, READ, RULES},
    live::Live,
    node::{How, Keys, Node, connect, image, receive, set_gateway, wait_until, workload},
    policies::VOCABULARY,
    wireshark::Scratch,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// What a bundle would say: labels are stamped under one grant, and these no longer hold.
fn signed(domain: u16, serial: u16, revoked: &[u16]) -> Authority {
    let mut bitmap = vec![0_u64; 1024];
    for serial in revoked {
        bitmap[usize::from(*serial) / 64] |= 1 << (serial % 64);
    }
    Authority {
        domain,
        stamps: vec![(0, Held { serial, not_after: u64::MAX })],
        transit: Vec::new(),
        revoked: bitmap,
        abroad: Vec::new(),
        not_before: slot_now() * 2 - 100,
        not_after: u64::MAX,
    }
}

fn apply(node: &Node, image: &Image, interfaces: &[&str], authority: &Authority) {
    let how = How { authority: Some(authority), ..How::default() };
    node.try_apply(image, interfaces, how).unwrap();
}

const TRANSIT: &str = "
zone left = interface \"to_a\"
     right = interface \"to_b\"
policy transit {
    on forward
    permit reads { from acme.payments.api  where egress zone is right  proto udp port 5432 }
    permit calls { from acme.payments.ledger  where egress zone is left  proto udp port 6000 }
}
";

#[test]
fn a_router_stops_labels_that_were_taken_back_at_their_next_packet() {
    if !kernel_available() {
        return;
    }
    const GRANTS: [u16; 3] = [11, 12, 13];
    let lab = Lab::bare();
    let router = Node::within(Namespace::clone(&lab.router), &lab.keys);
    for (node, who, serial) in
        [(&lab.a, "acme.payments.api", GRANTS[0]), (&lab.b, "acme.payments.ledger", GRANTS[1])]
    {
        let image = image(&[&workload(who, "read"), RULES]);
        apply(node, &image, &["eth0"], &signed(7, serial, &[]));
    }
    let transit = image(&[TRANSIT]);
    for v6 in BOTH_VERSIONS {
        apply(&router, &transit, &["to_a", "to_b"], &signed(7, GRANTS[2], &[]));
        let [a, b] = [&lab.a, &lab.b].map(|node| &node.namespace);
        let reads = Live::begin((a, 1), (b, 2), READ, v6);
        let calls = Live::begin((b, 2), (a, 1), CALL_BACK, v6);
        // Somebody else's grant is taken back: nothing changes.
        apply(&router, &transit, &[], &signed(7, GRANTS[2], &[500]));
        reads.goes_on();
        calls.goes_on();
        let count = || router.count("ingress", "revoked");
        let before = count();
        apply(&router, &transit, &[], &signed(7, GRANTS[2], &[GRANTS[0]]));
        reads.send();
        assert!(wait_until(|| count() == before + 1), "{:?}", router.reasons("ingress"));
        // Nor does what answers it pass, for there is nothing left to answer.
        reads.answer();
        assert!(
            wait_until(|| router.count("forward", "no_rule") + count() >= before + 2),
            "{:?} {:?}",
            router.reasons("ingress"),
            router.reasons("forward")
        );
        reads.is_silent();
        // Of the other flow only what bears the serial is stopped.
        calls.send();
        assert_eq!(receive(&calls.far, 1).len(), 1, "another grant");
        let before = count();
        calls.answer();
        assert!(wait_until(|| count() == before + 1), "{:?}", router.reasons("ingress"));
        calls.is_silent();
        router.detach(&[]);
    }
}

/// A directory with the files that two domains hold, and the gateway's own.
struct Desk {
    scratch: Scratch,
    recipient: String,
}

impl Desk {
    fn new() -> Self {
        let scratch = Scratch::new();
        let identity = age::x25519::Identity::generate();
        let desk = Self { scratch, recipient: identity.to_public().to_string() };
        for domain in ["acme", "partner"] {
            fs::create_dir(desk.path(domain)).unwrap();
        }
        let id = format!("{}\n", identity.to_string().expose_secret());
        for (name, text) in [
            ("id", id.as_str()),
            ("acme/vocabulary.gov", VOCABULARY),
            ("partner/vocabulary.gov", PARTNER),
            ("gateway.gov", GATEWAY),
        ] {
            desk.scratch.write(name, text);
        }
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(desk.path("id"), fs::Permissions::from_mode(0o600)).unwrap();
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.0.join(name)
    }

    fn start(&self, node: &Node, line: &str) -> Child {
        let mut command = Command::new(GOVC);
        command.args(line.split_whitespace()).current_dir(&self.scratch.0).env_remove("GOVC_LOG");
        let of_instance = ["apply", "doctor", "metrics", "observe", "status"];
        if of_instance.iter().any(|name| line.starts_with(name)) {
            command.args(["--instance", node.place.name()]);
        }
        command.env("GOVC_KEYS", node.keys().ring().dir()).env("GOVC_STATE", "state");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        node.namespace.run(|| command.spawn()).unwrap()
    }

    fn run(&self, node: &Node, line: &str) -> Output {
        self.start(node, line).wait_with_output().unwrap()
    }

    fn ok(&self, node: &Node, line: &str) -> String {
        let output = self.run(node, line);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {err}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn refused(&self, node: &Node, line: &str) -> String {
        let output = self.run(node, line);
        assert_eq!(output.status.code(), Some(1), "{line}: {output:?}");
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        err.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn sign(&self, node: &Node, file: &str, who: &str) {
        self.ok(node, &format!("sign {file} --key {who}.key --identity id"));
    }
}

const GATEWAY: &str = "package acme.gateway
use acme.vocabulary
use partner.vocabulary
zone lan = interface \"to_l\"
     neighbours = interface \"to_s\"
policy transit {
    on forward
    permit orders { from partner.**  where egress zone is lan  proto udp port 5432 }
}
translate partner -> acme on lan {
    partner.shop -> acme.guest
    partner.visitor -> acme.web.front
    cap level public
    drop compartments
    operation shop.order -> ledger.read
}
translate acme -> partner on neighbours {
    acme.payments.ledger -> partner.visitor
    cap level outer
    drop compartments
    operation ledger.read -> shop.browse
}
";
const SHOP: &str = "
zone lan = interface \"eth0\"
stamp on lan { subject partner.shop  operation shop.order  radius federation }
deliver on lan { object partner.shop }
";
const LEDGER: &str = "
zone lan = interface \"eth0\"
stamp on lan { subject acme.payments.ledger  operation ledger.read  radius federation }
deliver on lan { object acme.payments.ledger }
policy ledger {
    on ingress to acme.payments.ledger
    permit orders { from acme.guest, acme.web.front  operation ledger.read  proto udp port 5432 }
}
";

/// A shop abroad, a ledger at home, and a gateway between them that takes signed bundles only.
struct Border {
    desk: Desk,
    shop: Node,
    ledger: Node,
    gateway: Node,
}

/// Serials of the shop's labels, the gateway's and the ledger's.
const ABROAD: u16 = 5;
const AT_HOME: u16 = 11;

impl Border {
    fn new() -> Self {
        let (acme, partner) = (keys("acme", 7), keys("partner", 9));
        let border = Self {
            desk: Desk::new(),
            shop: Node::new("shop", &Keys::holding(&[&partner])),
            ledger: Node::new("ledger", &Keys::holding(&[&acme])),
            gateway: Node::new("gateway", &Keys::holding(&[&acme, &partner])),
        };
        border.gateway.namespace.enable_forwarding().unwrap();
        for (net, device, node) in [(1, "to_s", &border.shop), (2, "to_l", &border.ledger)] {
            connect(net, [(&border.gateway.namespace, device), (&node.namespace, "eth0")]);
            set_gateway(&node.namespace, "eth0", net);
        }
        border.shop_under(ABROAD);
        border.ledger_refuses(&[]);
        border.found();
        border
    }

    /// The ledger's domain has taken these serials back.
    fn ledger_refuses(&self, revoked: &[u16]) {
        let ledger = domains::image(&["use acme.vocabulary", LEDGER]);
        let interfaces: &[&str] = if self.ledger.place.exists() { &[] } else { &["eth0"] };
        apply(&self.ledger, &ledger, interfaces, &signed(7, AT_HOME, revoked));
    }

    /// The shop stamps under another grant from now on.
    fn shop_under(&self, serial: u16) {
        self.shop_as("partner.shop", serial);
    }

    /// Likewise, as somebody else.
    fn shop_as(&self, subject: &str, serial: u16) {
        let shop = SHOP.replace("subject partner.shop", &format!("subject {subject}"));
        let shop = domains::image(&["use partner.vocabulary", &shop]);
        let interfaces: &[&str] = if self.shop.place.exists() { &[] } else { &["eth0"] };
        apply(&self.shop, &shop, interfaces, &signed(9, serial, &[]));
    }

    /// Both domains have a root, and the gateway has what either signed for it.
    fn found(&self) {
        let (desk, gateway) = (&self.desk, &self.gateway);
        for name in ["ann", "pat", "node"] {
            desk.ok(gateway, &format!("signer new {name}.key --recipient {}", desk.recipient));
        }
        for (domain, number, who) in [("acme", 7, "ann"), ("partner", 9, "pat")] {
            desk.ok(gateway, &format!(
                "trust new --domain {domain} --number {number} --signer {who}.key.pub --threshold 1 -o {domain}.root"
            ));
        }
        desk.ok(gateway, "trust init acme.root --node node.key.pub");
        for (domain, from, serial, who) in
            [("acme", "partner", 12, "ann"), ("partner", "acme", 3, "pat")]
        {
            desk.ok(gateway, &format!(
                "grant new --root {domain}.root --serial {serial} --to node.key.pub --for gateway.gov --until 90d -o {domain}.grant"
            ));
            desk.ok(gateway, &format!(
                "mapping new --root {domain}.root --from {from} --for gateway.gov --until 90d -o {domain}.mapping"
            ));
            for kind in ["mapping", "grant"] {
                self.take(&format!("{domain}.{kind}"), who);
            }
        }
        desk.ok(gateway, "bundle gateway.gov --root acme.root -o 1.bundle");
        desk.sign(gateway, "1.bundle", "ann");
        desk.ok(gateway, "apply 1.bundle --iface to_s --iface to_l");
    }

    /// A mapping or grant of the domain that `who` signs for is signed and accepted.
    fn take(&self, file: &str, who: &str) {
        self.desk.sign(&self.gateway, file, who);
        let kind = file.rsplit('.').next().unwrap();
        let root = if who == "ann" { "" } else { "--root partner.root" };
        self.desk.ok(&self.gateway, &format!("{kind} accept {file} {root}"));
    }

    /// The gateway gets a grant of its own domain for these subjects.
    fn grant(&self, serial: u16, subjects: &str, until: &str) {
        let file = format!("{serial}-{until}.grant");
        self.desk.ok(&self.gateway, &format!(
            "grant new --root acme.root --serial {serial} --to node.key.pub --for gateway.gov --subjects {subjects} --until {until} -o {file}"
        ));
        self.take(&file, "ann");
    }

    /// The neighbour takes grants back, and hands over its mapping with that.
    fn take_back(&self, what: &str, file: &str) {
        let (desk, gateway) = (&self.desk, &self.gateway);
        desk.ok(gateway, &format!("grant revoke {what} --revocations abroad.json"));
        desk.ok(gateway, &format!(
            "mapping new --root partner.root --from acme --for gateway.gov --until 90d --revocations abroad.json -o {file}"
        ));
        desk.sign(gateway, file, "pat");
    }

    fn orders(&self, v6: bool) -> Live {
        Live::begin((&self.shop.namespace, 1), (&self.ledger.namespace, 2), READ, v6)
    }
}

#[test]
fn a_gateway_stops_labels_that_another_domain_took_back_at_their_next_packet() {
    if !kernel_available() {
        return;
    }
    let border = Border::new();
    let (desk, gateway) = (&border.desk, &border.gateway);
    let flows = BOTH_VERSIONS.map(|v6| border.orders(v6));
    desk.ok(gateway, "grant revoke 400 --revocations abroad.json");
    border.take_back(&ABROAD.to_string(), "newer.mapping");
    // What its own root has not signed, and what says less than before, is not taken.
    let other = "mapping accept newer.mapping";
    desk.refused(gateway, other);
    desk.ok(gateway, "mapping accept newer.mapping --root partner.root");
    let older = desk.refused(gateway, "mapping accept partner.mapping --root partner.root");
    assert!(older.contains("does not take grant 5 back"), "{older}");
    // It is the next apply that puts it in force: of the very same bundle.
    flows.iter().for_each(Live::goes_on);
    assert_eq!(gateway.count("ingress", "revoked"), 0);
    desk.ok(gateway, "apply 1.bundle");
    let observer = observe(desk, gateway, "observe --json --grant 5 --write events");
    for (flow, count) in flows.iter().zip(1..) {
        flow.send();
        assert!(wait_until(|| gateway.count("ingress", "revoked") == count));
        flow.is_silent();
    }
    told(desk, gateway, observer);
    let status: Value = serde_json::from_str(&desk.ok(gateway, "status --json")).unwrap();
    let partner =
        status["grants"].as_array().unwrap().iter().find(|one| one["domain"] == "partner");
    assert_eq!(partner.unwrap()["revoked"], 2, "{status}");
    // Whoever has another grant goes on.
    border.shop_under(ABROAD + 1);
    flows.iter().for_each(Live::goes_on);
    // A transit grant that is taken back is one no more: the policy is refused where it is applied.
    border.take_back("3", "newest.mapping");
    desk.ok(gateway, "mapping accept newest.mapping --root partner.root");
    let refused = desk.refused(gateway, "apply 1.bundle");
    assert!(refused.contains("translates what this node may not"), "{refused}");
    assert!(refused.contains("was revoked") || refused.contains("revoked"), "{refused}");
    desk.refused(gateway, "grant accept partner.grant --root partner.root");
}

#[test]
fn a_gateway_asks_for_grants_where_the_other_domain_says_that_all_of_its_labels_bear_one() {
    if !kernel_available() {
        return;
    }
    let border = Border::new();
    let (desk, gateway) = (&border.desk, &border.gateway);
    let flows = BOTH_VERSIONS.map(|v6| border.orders(v6));
    // Nobody has signed what the shop stamps by.
    border.shop.apply(&domains::image(&["use partner.vocabulary", SHOP]), &[]);
    flows.iter().for_each(Live::goes_on);
    desk.ok(gateway, "mapping new --root partner.root --from acme --for gateway.gov --until 90d --require-grants -o strict.mapping");
    desk.sign(gateway, "strict.mapping", "pat");
    assert!(desk.ok(gateway, "mapping show strict.mapping").contains("only under grants"));
    desk.ok(gateway, "mapping accept strict.mapping --root partner.root");
    flows.iter().for_each(Live::goes_on);
    desk.ok(gateway, "apply 1.bundle");
    for (flow, count) in flows.iter().zip(1..) {
        flow.send();
        assert!(wait_until(|| gateway.count("ingress", "ungranted") == count));
        flow.is_silent();
    }
    let older = desk.refused(gateway, "mapping accept partner.mapping --root partner.root");
    assert!(older.contains("lets labels without a grant pass"), "{older}");
    border.shop_under(ABROAD);
    flows.iter().for_each(Live::goes_on);
}

fn observe(desk: &Desk, node: &Node, line: &str) -> Child {
    let child = desk.start(node, line);
    assert!(wait_until(|| node.status().events.reader));
    child
}

/// Events name the grant, in every form.
fn told(desk: &Desk, node: &Node, observer: Child) {
    kill_process(Pid::from_child(&observer), Signal::INT).unwrap();
    let output = observer.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let events: Vec<_> = lines.iter().filter(|line| line["verdict"].is_string()).collect();
    assert_eq!(events.len(), 2, "{text}");
    for event in &events {
        assert_eq!(
            (&event["reason"], &event["grant"]),
            (&"revoked".into(), &ABROAD.into()),
            "{text}"
        );
        assert_eq!(event["subject"], "partner.shop");
    }
    let id = events[0]["id"].as_str().unwrap();
    let explained = desk.ok(node, &format!("explain --events events {id}"));
    assert!(explained.contains("claims partner.shop under grant 5"), "{explained}");
    assert!(explained.contains("its label names grant 5"), "{explained}");
    let none = desk.run(node, "observe --read events --grant 6 --json");
    let none = String::from_utf8(none.stdout).unwrap();
    assert!(!none.contains("\"verdict\""), "{none}");
    desk.ok(node, "observe --read events -o events.pcapng");
    let capture = fs::read(desk.path("events.pcapng")).unwrap();
    let comment = String::from_utf8_lossy(&capture).into_owned();
    assert!(comment.contains("claims partner.shop under grant 5"), "{comment}");
}

/// What the gateway says that labels of a domain are translated under: serials with their last seconds.
fn translates(status: &Value, domain: &str) -> Vec<(u64, u64)> {
    let grants = status["grants"].as_array().unwrap().iter().find(|one| one["domain"] == domain);
    let held = grants.unwrap()["translates"].as_array().unwrap().iter();
    held.map(|one| (one["serial"].as_u64().unwrap(), one["not_after"].as_u64().unwrap())).collect()
}

/// Waits until a second is over for hooks too, whose clock moves by ticks.
fn outlive(second: u64) {
    while slot_now() * 2 <= second {
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(Duration::from_millis(50));
}

#[test]
fn a_transit_grant_and_a_mapping_that_end_stop_what_they_let_pass() {
    if !kernel_available() {
        return;
    }
    const SHORT: &str = "25s";
    let border = Border::new();
    let (desk, gateway) = (&border.desk, &border.gateway);
    let flows = BOTH_VERSIONS.map(|v6| border.orders(v6));
    // Orders pass by a mapping that ends, answers under a grant that does. All else is good for long.
    desk.ok(gateway, &format!(
        "mapping new --root acme.root --from partner --for gateway.gov --until {SHORT} -o short.mapping"
    ));
    desk.ok(gateway, &format!(
        "grant new --root partner.root --serial 3 --to node.key.pub --for gateway.gov --until {SHORT} -o short.grant"
    ));
    border.take("short.mapping", "ann");
    border.take("short.grant", "pat");
    desk.ok(gateway, "apply 1.bundle");
    flows.iter().for_each(Live::goes_on);
    assert_eq!(gateway.count("forward", "grant_expired"), 0, "until then it goes on");
    let show = |line: &str| -> Value { serde_json::from_str(&desk.ok(gateway, line)).unwrap() };
    let status = show("status --json");
    let [(12, ends)] = translates(&status, "acme")[..] else { panic!("{status}") };
    let [(3, grant_ends)] = translates(&status, "partner")[..] else { panic!("{status}") };
    let mapping_ends = show("mapping show short.mapping --json")["not_after"].as_u64().unwrap();
    assert_eq!(ends / 2, mapping_ends / 2, "the grant is good for longer");
    // That of the neighbour was made later, and its mapping is good for longer.
    assert!((ends..ends + 25).contains(&grant_ends), "{status}");
    outlive(grant_ends);
    for (flow, count) in flows.iter().zip(0..) {
        for (step, send) in (1..).zip([Live::send, Live::answer]) {
            send(flow);
            let counted = || gateway.count("forward", "grant_expired");
            assert!(
                wait_until(|| counted() == 2 * count + step),
                "{:?}",
                gateway.reasons("forward")
            );
        }
        flow.is_silent();
    }
    over(desk, gateway, ends);
    ended_is_told(&border);
    flows.iter().for_each(Live::goes_on);
}

/// Everybody who looks is told that what labels are translated under is over.
fn over(desk: &Desk, gateway: &Node, ends: u64) {
    let status = desk.ok(gateway, "status");
    assert!(status.contains("translated under 12 (over)"), "{status}");
    assert!(status.contains("translated under 3 (over)"), "{status}");
    let doctor = desk.run(gateway, "doctor");
    assert_eq!(doctor.status.code(), Some(3), "{doctor:?}");
    let doctor = String::from_utf8(doctor.stdout).unwrap();
    assert!(doctor.contains("nothing is translated under grant 12 of acme"), "{doctor}");
    let metrics = desk.ok(gateway, "metrics");
    let line = format!(
        "govc_grant_expiry_timestamp_seconds{{domain=\"acme\",serial=\"12\",use=\"translate\"}} {ends}"
    );
    assert!(metrics.lines().any(|one| one.starts_with(&line)), "{line}: {metrics}");
}

/// Who applies under what has ended is told what that is, the node's own grant too; what is renewed goes on.
fn ended_is_told(border: &Border) {
    let (desk, gateway) = (&border.desk, &border.gateway);
    let refused = desk.refused(gateway, "apply 1.bundle");
    assert!(refused.contains("7.mapping") && refused.contains("the mapping ended"), "{refused}");
    // The one of before would be an older one now.
    desk.ok(
        gateway,
        "mapping new --root acme.root --from partner --for gateway.gov --until 90d -o renewed.mapping",
    );
    border.take("renewed.mapping", "ann");
    desk.ok(gateway, "grant accept partner.grant --root partner.root");
    border.grant(12, "all", "12s");
    let state = desk.ok(gateway, "trust show --json");
    let state: Value = serde_json::from_str(&state).unwrap();
    outlive(state["grants"][0]["until"].as_u64().unwrap_or_else(|| slot_now() * 2 + 14));
    let refused = desk.refused(gateway, "apply 1.bundle");
    assert!(refused.contains("translates what this node may not"), "{refused}");
    assert!(refused.contains("12.grant") && refused.contains("ended"), "{refused}");
    desk.ok(gateway, "grant accept acme.grant");
    desk.ok(gateway, "apply 1.bundle");
}

#[test]
fn each_translation_is_under_the_grant_that_covers_it() {
    if !kernel_available() {
        return;
    }
    let border = Border::new();
    let (desk, gateway) = (&border.desk, &border.gateway);
    border.grant(12, "acme.guest", "90d");
    border.grant(13, "acme.web.front", "91d");
    desk.ok(gateway, "apply 1.bundle");
    let flows = BOTH_VERSIONS.map(|v6| border.orders(v6));
    let senders = [("partner.shop", 12), ("partner.visitor", 13)];
    for (subject, serial) in senders {
        border.shop_as(subject, ABROAD);
        let goes =
            domains::labels(&gateway.namespace, "to_l", || flows.iter().for_each(Live::goes_on));
        let serials: Vec<u16> = goes.iter().map(Label::grant).collect();
        assert_eq!(serials, [serial, AT_HOME, serial, AT_HOME], "{subject}");
    }
    // So what is taken back is what stops, and nothing else.
    for revoked in senders.map(|(_, serial)| serial) {
        border.ledger_refuses(&[revoked]);
        for (subject, serial) in senders {
            border.shop_as(subject, ABROAD);
            for flow in &flows {
                if serial != revoked {
                    flow.goes_on();
                    continue;
                }
                let before = border.ledger.count("ingress", "revoked");
                flow.send();
                assert!(wait_until(|| border.ledger.count("ingress", "revoked") == before + 1));
                flow.is_silent();
            }
        }
    }
}
