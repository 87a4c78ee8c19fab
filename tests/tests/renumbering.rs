//! Policies that change while flows live on, and in which the same things have other numbers or other
//! names: replies are judged by what the new policy says of the flow that they answer.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use govc_image::Image;
use govc_netlab::Namespace;
use govc_tests::{
    domains::{self, keys},
    kernel_available,
    lab::{BOTH_VERSIONS, Lab, READ, RULES},
    live::Live,
    node::{Keys, Node, connect, image, wait_until, workload},
};

/// A sender and a receiver on one link; both know two domains.
struct Pair {
    sender: Node,
    receiver: Node,
}

impl Pair {
    fn new() -> Self {
        let keys = Keys::holding(&[&keys("acme", 7), &keys("partner", 9)]);
        let (sender, receiver) = (Node::new("sender", &keys), Node::new("receiver", &keys));
        connect(1, [(&sender.namespace, "eth0"), (&receiver.namespace, "eth0")]);
        Self { sender, receiver }
    }

    /// Datagrams to the receiver, which has address 2; the sender has address 1.
    fn flow(&self, v6: bool) -> Live {
        Live::between((&self.sender.namespace, 1, 1), (&self.receiver.namespace, 1, 2), READ, v6)
    }
}

/// An answer does not pass a hook of this node any more.
fn is_refused(flow: &Live, node: &Node, hook: &str) {
    let count = || node.count(hook, "no_rule") + node.count(hook, "rule");
    let before = count();
    flow.answer();
    assert!(wait_until(|| count() > before), "{:?}", node.reasons(hook));
    flow.is_silent();
}

const LAN: &str = "zone lan = interface \"eth0\"\n";
/// A zone of an interface that is not there takes the number that the other one had.
const SPARE_AND_LAN: &str = "zone spare = interface \"eth7\"\n     lan = interface \"eth0\"\n";
const ACME_FIRST: &str = "use acme.vocabulary\nuse partner.vocabulary\n";
const PARTNER_FIRST: &str = "use partner.vocabulary\nuse acme.vocabulary\n";

/// A node that stamps and delivers as the ledger, and permits nothing that leaves.
fn ledger(before: &str, zones: &str, rules: &str) -> Image {
    domains::image(&[
        before,
        zones,
        "stamp on lan { subject acme.payments.ledger  operation ledger.read }
         deliver on lan { object acme.payments.ledger }
         policy out { on egress  permit nothing { proto 47 } }
         policy ledger { on ingress to acme.payments.ledger",
        rules,
        "}",
    ])
}

/// A node that stamps as somebody, and permits to leave what rules say, and nothing to come in.
fn client(before: &str, zones: &str, subject: &str, rules: &str) -> Image {
    domains::image(&[
        before,
        zones,
        &format!("stamp on lan {{ subject {subject}  operation ledger.read }}"),
        "policy in { on ingress  permit nothing { proto 47 } }
         policy out { on egress",
        rules,
        "}",
    ])
}

const BY_ACME: &str = "permit read { from acme.payments.api  proto udp port 5432 }";
const BY_PARTNER: &str = "permit read { from partner.**  proto udp port 5432 }";

/// Domains by index.
fn order(image: &Image) -> Vec<u32> {
    image.domains().map(|(number, _)| number).collect()
}

#[test]
fn a_domain_with_another_index_is_still_the_same_one_where_flows_arrive() {
    if !kernel_available() {
        return;
    }
    let pair = Pair::new();
    pair.sender.apply(&image(&[&workload("acme.payments.api", "read")]), &["eth0"]);
    let [before, swapped] = [ACME_FIRST, PARTNER_FIRST].map(|uses| ledger(uses, LAN, BY_ACME));
    let to_partner = ledger(PARTNER_FIRST, LAN, BY_PARTNER);
    assert_eq!((order(&before), order(&swapped)), (vec![7, 9], vec![9, 7]));
    pair.receiver.apply(&before, &["eth0"]);
    for v6 in BOTH_VERSIONS {
        pair.receiver.apply(&before, &[]);
        let flow = pair.flow(v6);
        pair.receiver.apply(&swapped, &[]);
        flow.is_answered();
        // Now the partner has the index that the sender's domain had.
        pair.receiver.apply(&before, &[]);
        flow.is_answered();
        pair.receiver.apply(&to_partner, &[]);
        is_refused(&flow, &pair.receiver, "egress");
        // What a policy refused another may permit.
        pair.receiver.apply(&swapped, &[]);
        flow.is_answered();
        // A policy that knows nothing of the domain cannot know who is answered.
        let without = without_acme();
        pair.receiver.apply(&without, &[]);
        is_refused(&flow, &pair.receiver, "egress");
        pair.receiver.apply(&before, &[]);
        flow.goes_on();
    }
}

/// A receiver of one domain, whose words are the partner's.
fn without_acme() -> Image {
    domains::image(&[
        "use partner.vocabulary\n",
        LAN,
        "stamp on lan { subject partner.shop  operation shop.order }
         deliver on lan { object partner.shop }
         policy out { on egress  permit nothing { proto 47 } }
         policy shop { on ingress to partner.shop  permit read { from partner.**  proto udp port 5432 } }",
    ])
}

#[test]
fn a_domain_with_another_index_is_still_the_same_one_where_flows_leave() {
    if !kernel_available() {
        return;
    }
    let pair = Pair::new();
    pair.receiver.apply(&image(&[&workload("acme.payments.ledger", "read")]), &["eth0"]);
    let policy = |uses: &str, rules: &str| client(uses, LAN, "acme.payments.api", rules);
    let before = policy(ACME_FIRST, BY_ACME);
    pair.sender.apply(&before, &["eth0"]);
    for v6 in BOTH_VERSIONS {
        pair.sender.apply(&before, &[]);
        let flow = pair.flow(v6);
        pair.sender.apply(&policy(PARTNER_FIRST, BY_ACME), &[]);
        flow.is_answered();
        pair.sender.apply(&before, &[]);
        pair.sender.apply(&policy(PARTNER_FIRST, BY_PARTNER), &[]);
        is_refused(&flow, &pair.sender, "ingress");
    }
}

#[test]
fn replies_are_judged_by_whom_the_new_policy_takes_their_flow_for() {
    if !kernel_available() {
        return;
    }
    let pair = Pair::new();
    pair.receiver.apply(&image(&[&workload("acme.payments.ledger", "read")]), &["eth0"]);
    let policy = |subject: &str, rules: &str| client("use acme.vocabulary\n", LAN, subject, rules);
    let api = policy("acme.payments.api", BY_ACME);
    pair.sender.apply(&api, &["eth0"]);
    let flow = pair.flow(false);
    // Another sender, whom a rule permits, is answered; one whom none does is not.
    let by_front = "permit read { from acme.web.front  proto udp port 5432 }";
    pair.sender.apply(&policy("acme.web.front", by_front), &[]);
    flow.is_answered();
    pair.sender.apply(&policy("acme.web.front", BY_ACME), &[]);
    is_refused(&flow, &pair.sender, "ingress");
    // One without a name neither.
    let nobody = "use acme.vocabulary\n";
    let nobody = domains::image(&[
        nobody,
        LAN,
        "policy in { on ingress  permit nothing { proto 47 } }
         policy out { on egress  permit all { proto udp } }",
    ]);
    pair.sender.apply(&nobody, &[]);
    is_refused(&flow, &pair.sender, "ingress");
    pair.sender.apply(&api, &[]);
    flow.is_answered();
    // A neighbour that gets no labels any more does not answer with one.
    let bare = "legacy from 10.77.1.0/24 on lan { subject acme.guest }\n";
    let bare =
        policy("acme.payments.api", &format!("{BY_ACME} }}\n{bare} policy more {{ on egress"));
    pair.sender.apply(&bare, &[]);
    is_refused(&flow, &pair.sender, "ingress");
}

#[test]
fn replies_are_judged_by_whom_the_new_policy_delivers_their_flow_to() {
    if !kernel_available() {
        return;
    }
    let pair = Pair::new();
    pair.sender.apply(&image(&[&workload("acme.payments.api", "read")]), &["eth0"]);
    let before = ledger("use acme.vocabulary\n", LAN, BY_ACME);
    pair.receiver.apply(&before, &["eth0"]);
    let flow = pair.flow(true);
    let another = |rules: &str| {
        domains::image(&[
            "use acme.vocabulary\n",
            SPARE_AND_LAN,
            "stamp on lan { subject acme.payments.ledger  operation ledger.read }
             deliver on lan { object acme.clinic.records }
             policy out { on egress  permit nothing { proto 47 } }
             policy ledger { on ingress to acme.payments.ledger",
            rules,
            "}",
            "policy records { on ingress to acme.clinic.records
                permit probe { from acme.ops.monitor } }",
        ])
    };
    pair.receiver.apply(&another(BY_ACME), &[]);
    is_refused(&flow, &pair.receiver, "egress");
    pair.receiver.apply(&before, &[]);
    flow.is_answered();
}

#[test]
fn a_zone_with_another_number_is_still_the_same_one() {
    if !kernel_available() {
        return;
    }
    let pair = Pair::new();
    let rule = |side: &str, zone: &str| {
        format!("permit read {{ where {side} zone is {zone}  proto udp port 5432 }}")
    };
    let arrives =
        |zones: &str, zone: &str| ledger("use acme.vocabulary\n", zones, &rule("ingress", zone));
    let leaves = |zones: &str, zone: &str| {
        client("use acme.vocabulary\n", zones, "acme.payments.api", &rule("egress", zone))
    };
    let apply = |zones: &str, [receiver, sender]: [&str; 2], interfaces: &[&str]| {
        pair.receiver.apply(&arrives(zones, receiver), interfaces);
        pair.sender.apply(&leaves(zones, sender), interfaces);
    };
    apply(LAN, ["lan"; 2], &["eth0"]);
    for v6 in BOTH_VERSIONS {
        apply(LAN, ["lan"; 2], &[]);
        let flow = pair.flow(v6);
        apply(SPARE_AND_LAN, ["lan"; 2], &[]);
        flow.is_answered();
        apply(LAN, ["lan"; 2], &[]);
        apply(SPARE_AND_LAN, ["spare", "lan"], &[]);
        is_refused(&flow, &pair.receiver, "egress");
        apply(LAN, ["lan"; 2], &[]);
        apply(SPARE_AND_LAN, ["lan", "spare"], &[]);
        is_refused(&flow, &pair.sender, "ingress");
    }
}

#[test]
fn a_router_finds_domains_and_zones_again() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let both = Keys::holding(&[&lab.keys.ring().read(7).unwrap().unwrap(), &keys("partner", 9)]);
    let router = Node::within(Namespace::clone(&lab.router), &both);
    for (node, who) in [(&lab.a, "acme.payments.api"), (&lab.b, "acme.payments.ledger")] {
        node.apply(&image(&[&workload(who, "read"), RULES]), &["eth0"]);
    }
    let transit = |uses: &str, zones: &str, from: &str, [enters, leaves]: [&str; 2]| {
        domains::image(&[
            uses,
            zones,
            &format!(
                "policy transit {{ on forward
                 permit reads {{ from {from}  where ingress zone is {enters}, egress zone is {leaves}  proto udp port 5432 }} }}"
            ),
        ])
    };
    let zones = "zone left = interface \"to_a\"\n     right = interface \"to_b\"\n";
    let more = "zone spare = interface \"eth7\"\n     left = interface \"to_a\"\n     right = interface \"to_b\"\n";
    let (api, ways) = ("acme.payments.api", ["left", "right"]);
    let before = transit(ACME_FIRST, zones, api, ways);
    router.apply(&before, &["to_a", "to_b"]);
    for v6 in BOTH_VERSIONS {
        router.apply(&before, &[]);
        let flow = Live::begin((&lab.a.namespace, 1), (&lab.b.namespace, 2), READ, v6);
        router.apply(&transit(PARTNER_FIRST, more, api, ways), &[]);
        flow.is_answered();
        for (from, ways) in
            [("partner.**", ways), (api, ["spare", "right"]), (api, ["spare", "left"])]
        {
            router.apply(&before, &[]);
            router.apply(&transit(PARTNER_FIRST, more, from, ways), &[]);
            is_refused(&flow, &router, "forward");
        }
    }
}

#[test]
fn a_neighbour_without_labels_is_who_the_new_policy_says() {
    if !kernel_available() {
        return;
    }
    let pair = Pair::new();
    let policy = |legacy: &str, rules: &str| {
        let legacy = format!("{rules} }}\n{legacy} policy more {{ on ingress");
        ledger("use acme.vocabulary\n", LAN, &legacy)
    };
    let guest = "legacy from 10.77.1.0/24, fd77:1::/64 on lan { subject acme.guest }\n";
    let front = "legacy from 10.77.1.0/24, fd77:1::/64 on lan { subject acme.web.front }\n";
    let by = |who: &str| format!("permit read {{ from {who}  proto udp port 5432 }}");
    let before = policy(guest, &by("acme.guest"));
    pair.receiver.apply(&before, &["eth0"]);
    for v6 in BOTH_VERSIONS {
        pair.receiver.apply(&before, &[]);
        let flow = pair.flow(v6);
        pair.receiver.apply(&policy(front, &by("acme.web.front")), &[]);
        flow.is_answered();
        pair.receiver.apply(&policy(front, &by("acme.guest")), &[]);
        is_refused(&flow, &pair.receiver, "egress");
    }
}

/// A cgroup that this process lives in until it is dropped.
struct Cgroup {
    dir: PathBuf,
    before: PathBuf,
}

impl Cgroup {
    fn enter() -> Self {
        let root = govc_loader::cgroup::root().expect("a cgroup2 hierarchy");
        let known = fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = known.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let dir = root.join(format!("govc-renumbering-{}", process::id()));
        fs::create_dir(&dir).unwrap();
        move_to(&dir);
        Self { before: root.join(path), dir }
    }

    fn path(&self) -> String {
        format!("/{}", self.dir.file_name().unwrap().to_string_lossy())
    }
}

fn move_to(dir: &Path) {
    fs::write(dir.join("cgroup.procs"), process::id().to_string()).unwrap();
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        move_to(&self.before);
        let _ = fs::remove_dir(&self.dir);
    }
}

#[test]
fn the_cgroup_of_a_sender_counts_that_the_earlier_policy_did_not_ask_for() {
    if !kernel_available() {
        return;
    }
    let pair = Pair::new();
    pair.receiver.apply(&image(&[&workload("acme.payments.ledger", "read")]), &["eth0"]);
    let policy = |when: &str| {
        domains::image(&[
            "use acme.vocabulary\n",
            LAN,
            &format!("stamp on lan {when} {{ subject acme.payments.api  operation ledger.read }}"),
            "policy in { on ingress  permit nothing { proto 47 } }
             policy out { on egress ",
            BY_ACME,
            "}",
        ])
    };
    pair.sender.apply(&policy(""), &["eth0"]);
    let cgroup = Cgroup::enter();
    let flow = pair.flow(false);
    let path = cgroup.path();
    pair.sender.apply(&policy(&format!("when cgroup \"{path}\"")), &[]);
    flow.is_answered();
    pair.sender.apply(&policy(&format!("when cgroup \"{path}/below\"")), &[]);
    is_refused(&flow, &pair.sender, "ingress");
    // Patterns are numbers too.
    let front = "stamp on lan when cgroup \"/other\" { subject acme.web.front }\n";
    let moved = domains::image(&[
        "use acme.vocabulary\n",
        LAN,
        front,
        &format!(
            "stamp on lan when cgroup \"{path}\" {{ subject acme.payments.api  operation ledger.read }}"
        ),
        "policy in { on ingress  permit nothing { proto 47 } }
         policy out { on egress ",
        BY_ACME,
        "}",
    ]);
    pair.sender.apply(&moved, &[]);
    flow.is_answered();
}
