//! Random policies that nobody chose, and packets aimed at the ends of their intervals.

use std::{
    fmt::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use govc_abi::label::Label;
use govc_compiler::checked::Policy;

use crate::{
    frame::{Spec, Transport},
    random::Random,
};

/// Vocabulary of the random policies.
pub const VOCABULARY: &str = include_str!("../../examples/policies/acme/vocabulary.gov");

const SCOPES: &[&str] = &[
    "acme.web.front",
    "acme.web.*",
    "acme.payments.api",
    "acme.payments.**",
    "acme.audit.**",
    "acme.payments.batch",
    "acme.payments.batch[63]",
    "acme.clinic.records",
    "acme.guest",
    "acme.**",
    "acme.ops.monitor",
];
const OBJECTS: &[&str] =
    &["acme.payments.ledger", "acme.web.front", "acme.clinic.booking", "acme.guest"];
const OPERATIONS: &[&str] = &["ledger.read", "ledger.*", "web.get", "records.append", "ops.*"];
const CONDITIONS: &[&str] = &[
    "level >= internal",
    "level < secret",
    "level is confidential",
    "level != public",
    "compartments includes {finance}",
    "compartments within {finance, audit}",
    "compartments is {health}",
    "constraints has no_forward",
    "not constraints has {confidential, audited}",
    "residency within eu",
    "not residency within anywhere",
    "route is backbone_eu",
    "radius <= domain",
    "level >= confidential or compartments includes {audit}",
    "not (level >= internal and residency within us)",
    "ingress zone is lan",
    "not ingress zone is encrypted",
    "operation is ledger.write",
];
const PROTOCOLS: &[&str] = &[
    "proto tcp port 443",
    "proto tcp port 8000..8099",
    "proto udp port 53, 123",
    "proto tcp source port 1024..65535",
    "proto icmp type 8",
    "proto icmpv6 type 128",
    "proto icmp type 3 code 0..4",
    "proto tcp",
    "proto 47",
    "proto sctp port 9000",
];
const SETS: &[&str] = &[
    "10.20.0.0/16",
    "10.20.9.0/24",
    "10.0.0.0/8",
    "10.20.1.7",
    "2001:db8:20::/48",
    "2001:db8:20:9::/64",
    "::/0",
    "0.0.0.0/0",
    "10.20.0.0/16, 2001:db8:20::/48",
    "10.20.9.128/25, 10.20.1.0/30",
];
const ZONES: &[&str] = &["lan", "lo"];
const FROM: &[&str] = &["anyone", "labelled", "legacy", "unlabelled"];

/// A policy with about `rules` rules, each at one of these hooks.
pub fn random_policy_at(random: &mut Random, rules: usize, hooks: &[&str]) -> String {
    let mut text = String::from(
        "package acme.random\nuse acme.vocabulary\n\
         zone lan = interface \"eth0\"  lo = interface \"lo\" encrypted\n\
         deliver on lan when address 10.20.1.0/24 { object acme.payments.ledger }\n\
         deliver on lan when address 10.20.0.0/16, 2001:db8:20::/48 { object acme.web.front }\n\
         deliver on lan { object acme.guest }\n\
         legacy from 10.20.9.0/24, 2001:db8:20:9::/64 on lan { subject acme.guest  max level public }\n\
         stamp on lan when address 10.20.1.0/24, 2001:db8:20:9::/64 { \
             subject acme.payments.api  operation ledger.read  residency eu  radius domain  fragments }\n\
         stamp on lan when address 10.20.0.0/16, 2001:db8:20::/48 { \
             subject acme.web.front  level public  operation web.get  route backbone_eu  life 1 }\n",
    );
    if rules > 3 {
        text.push_str(
            "carriage option to 10.20.1.4, 10.20.10.0/24 on lan\n\
             carriage tunnel to 10.20.0.0/16, 10.21.0.0/16, 2001:db8:20::/47, ::/64 on lan\n",
        );
    }
    let tiers = ["", "tier guardrails\n", "tier baseline\n"];
    let mut left = rules;
    let mut policy = 0;
    while left > 0 {
        let count = 1 + random.below(left.min(12));
        left -= count;
        let observe = if random.one_in(8) { "observe " } else { "" };
        let hook = *random.pick::<&str>(hooks);
        // Nobody knows which workload a leaving packet is for.
        let to = if hook == "ingress" { object(random) } else { String::new() };
        let _ = writeln!(text, "{observe}policy p{policy} {{\n  on {hook}{to}");
        text.push_str(random.pick::<&str>(&tiers));
        for rule in 0..count {
            text.push_str(&random_rule(random, rule, observe.is_empty()));
        }
        text.push_str("}\n");
        policy += 1;
    }
    text
}

/// Carriage rules for a zone of their own: exceptions come first.
fn random_carriages(random: &mut Random) -> String {
    let mut text = String::from("zone far = interface \"eth9\"\n");
    for chain in [
        &["10.20.1.7", "10.20.0.0/16", "10.0.0.0/8", "0.0.0.0/0"][..],
        &["2001:db8:20:9::/64", "2001:db8:20::/48, 2001:db8:23::/48", "::/0"],
    ] {
        for set in chain {
            if random.one_in(2) {
                let kind = random.pick::<&str>(&["tunnel", "option"]);
                let _ = writeln!(text, "carriage {kind} to {set} on far");
            }
        }
    }
    text
}

/// Stamp, deliver, legacy and carriage rules with all their conditions, to stand behind a random policy,
/// whose zones they use.
pub fn random_edges(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..1 + random.below(12) {
        let mut conditions = Vec::new();
        if random.one_in(2) {
            conditions.push(format!(
                "cgroup \"/kube.slice/{}*\"",
                random.pick::<&str>(&["api", "web", ""])
            ));
        }
        if random.one_in(2) {
            conditions.push(format!("address {}", random.pick(SETS)));
        }
        if random.one_in(3) {
            conditions.push(format!("from zone {}", random.pick(ZONES)));
        }
        let when = if conditions.is_empty() { "" } else { " when " };
        let _ = writeln!(
            text,
            "stamp on {}{when}{} {{ subject {}  level public }}",
            random.pick(ZONES),
            conditions.join(" and "),
            random.pick(OBJECTS)
        );
        let (zone, set) = (random.pick(ZONES), random.pick(SETS));
        let _ = writeln!(text, "legacy from {set} on {zone} {{ subject acme.guest }}");
        let (zone, set) = (random.pick(ZONES), random.pick(SETS));
        let object = random.pick(OBJECTS);
        let _ = writeln!(text, "deliver on {zone} when address {set} {{ object {object} }}");
    }
    text + &random_carriages(random)
}

/// Legacy rules with labels of their own, to stand behind a random policy, whose zones they use. They
/// overlap: the first that matches counts.
pub fn random_legacies(random: &mut Random) -> String {
    let mut text = String::new();
    for _ in 0..random.below(5) {
        let (zone, set) = (random.pick(ZONES), random.pick(SETS));
        let (who, level) = (random.pick(OBJECTS), random.pick::<&str>(&["", "  max level public"]));
        let fields = random.pick::<&str>(&[
            "",
            "  constraints {no_forward}",
            "  constraints {confidential, audited}  residency eu",
            "  operation ledger.read",
            "  route backbone_eu  radius any",
        ]);
        let _ = writeln!(text, "legacy from {set} on {zone} {{ subject {who}{level}{fields} }}");
    }
    text
}

fn object(random: &mut Random) -> String {
    if random.one_in(3) { format!(" to {}", random.pick(OBJECTS)) } else { String::new() }
}

fn random_rule(random: &mut Random, number: usize, may_pass: bool) -> String {
    let action = match random.below(8) {
        0..4 => "permit",
        4 | 5 => "deny",
        6 if may_pass => "pass",
        _ => "observe deny",
    };
    let action = if may_pass { action } else { action.trim_start_matches("observe ") };
    let mut text = format!("  {action} r{number} {{\n");
    let clauses = random_clauses(random, true);
    text.push_str(&clauses);
    if action == "permit" || action == "pass" {
        let shows_none = !clauses.contains(" port ") && !clauses.contains(" type ");
        if shows_none && random.one_in(8) {
            text.push_str("    fragments\n");
        }
        if random.one_in(10) {
            text.push_str("    options\n");
        }
    }
    if random.one_in(6) {
        text.push_str(random.pick::<&str>(&["    log\n", "    log 1 in 3\n"]));
    }
    text.push_str("  }\n");
    text
}

/// Clauses that a rule or an assertion may have.
pub fn random_clauses(random: &mut Random, to_objects: bool) -> String {
    let mut text = String::new();
    match random.below(4) {
        0 => {}
        1 => {
            let _ = writeln!(text, "    from {}", random.pick(FROM));
        }
        _ => {
            let _ = writeln!(text, "    from {}, {}", random.pick(SCOPES), random.pick(SCOPES));
        }
    }
    for (chance, word, pool) in [
        (4, "to", OBJECTS),
        (3, "operation", OPERATIONS),
        (3, "where", CONDITIONS),
        (5, "where", CONDITIONS),
        (6, "source", SETS),
        (6, "destination", SETS),
    ] {
        if random.one_in(chance) && (to_objects || word != "to") {
            let _ = writeln!(text, "    {word} {}", random.pick(pool));
        }
    }
    for _ in 0..random.below(3) {
        let _ = writeln!(text, "    {}", random.pick(PROTOCOLS));
    }
    // Some are past, some are far away: it does not matter when the test runs.
    if random.one_in(6) {
        let (since, until) =
            *random.pick(&[(2020, 0), (0, 2022), (2021, 2121), (2120, 0), (2120, 2122)]);
        for (word, year) in [("since", since), ("until", until)] {
            if year != 0 {
                let _ = writeln!(text, "    {word} \"{year}-06-01T12:00Z\"");
            }
        }
    }
    text
}

/// A packet near the places where some policy changes its mind.
pub fn random_spec(random: &mut Random, v6: bool) -> Spec {
    let address = |random: &mut Random| -> IpAddr {
        if v6 {
            let network = random.pick(&[
                0x2001_0db8_0020_0000_u64,
                0x2001_0db8_0020_0009,
                0x2001_0db8_0021_0000,
                0,
            ]);
            Ipv6Addr::from_bits(u128::from(*network) << 64 | u128::from(random.bits() % 3 + 1))
                .into()
        } else {
            let v4 = random.pick(&[
                [10, 20, 0, 1],
                [10, 20, 1, 7],
                [10, 20, 1, 4],
                [10, 20, 9, 127],
                [10, 20, 9, 128],
                [10, 21, 0, 0],
                [10, 19, 255, 255],
                [11, 0, 0, 1],
                [10, 20, 10, 0],
            ]);
            Ipv4Addr::from(*v4).into()
        }
    };
    let ports = [442, 443, 444, 7999, 8000, 8099, 8100, 53, 123, 1023, 1024, 65535, 9000];
    let transport = match random.below(8) {
        0..3 => Transport::Tcp {
            syn: random.one_in(2),
            ack: random.one_in(2),
            sequence: random.bits() as u32,
        },
        3 | 4 => Transport::Udp,
        5 => Transport::Icmp(*random.pick(&[8, 0, 3, 128, 129, 11]), random.below(6) as u8),
        6 => Transport::Other(47),
        _ => Transport::Tcp { syn: true, ack: false, sequence: random.bits() as u32 },
    };
    let source = SocketAddr::new(address(random), *random.pick(&ports));
    let destination = SocketAddr::new(address(random), *random.pick(&ports));
    Spec { source, destination, transport, payload: random.below(40) }
}

/// A label near the places where some policy changes its mind.
pub fn random_label(random: &mut Random, policy: &Policy, slot: u64, epoch: u8) -> Label {
    let domain = &policy.domains()[0];
    let scope = random.pick(&domain.scopes);
    let (first, last) = *random.pick(&scope.blocks);
    let subject = *random.pick(&[first, last, first.wrapping_sub(1), last + 1]) & 0x00ff_ffff;
    Label::default()
        .with_version(1)
        .with_domain(domain.number)
        .with_epoch(epoch)
        .with_life(2)
        .with_slot(slot as u16)
        .with_subject(subject)
        .with_level(*random.pick(&[0, 4, 5, 6, 9, 10, 11, 14, 15]))
        .with_radius(random.below(6) as u8)
        .with_compartments(random.below(9) as u16)
        .with_constraints(random.below(32) as u16)
        .with_operation(random.below(domain.operations.len() + 2) as u16)
        .with_residency(random.below(6) as u8)
        .with_route(random.below(4) as u8)
        .with_grant(random.bits() as u16)
}
