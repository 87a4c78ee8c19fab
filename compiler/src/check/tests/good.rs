//! What is right, and the numbers that it gets.

use govc_grammar::ast::Action;

use super::*;
use crate::checked::{Condition, DomainId, From, Match, Policy, Prefix, ScopeRange};

const ACME: DomainId = DomainId(0);

/// `docs/language.md` with the parts that exist.
pub(super) const LEDGER: &str = r#"
//! Who may talk to the ledger, and where its data may go.
package acme.payments
use acme.vocabulary

policy ledger {
    on ingress to acme.payments.ledger
    tier guardrails

    permit read "the API reads balances" {
        from      acme.payments.api
        operation ledger.read
        where     level >= internal, residency within eu, not constraints has no_forward
        proto     tcp port 5432
    }
    permit audit_export {
        from      acme.audit.**
        operation ledger.read, ledger.export
        where     compartments includes {finance, audit}
        log
    }
    deny partners_never_write {
        from      acme.guest
        operation ledger.write
    }
}

observe policy borders {
    on forward
    deny data_leaves_home  { where residency within eu and egress zone is wan }
    deny secrets_in_clear { where constraints has confidential and not egress zone is encrypted }
}

stamp   on pods when cgroup "/kube.slice/api*" {
    subject acme.payments.api  operation ledger.read  residency eu  radius federation  life 3
}
stamp   on pods when address office and from zone vpn { subject acme.payments.batch[2] level public compartments {} }
deliver on pods when address 10.0.0.5 { object acme.payments.ledger }
legacy  from office on wan { subject acme.guest  max level public  constraints {no_forward} }

test "the API reads" {
    packet { from acme.payments.api to acme.payments.ledger operation ledger.read proto tcp port 5432 residency eu level internal }
    expect permit by ledger.read
}
"#;

fn range(first: u32, last: u32) -> ScopeRange {
    ScopeRange { domain: ACME, first, last }
}

fn prefix(text: &str) -> Prefix {
    let (address, length) = text.split_once('/').unwrap();
    Prefix { address: address.parse().unwrap(), length: length.parse().unwrap() }
}

#[test]
fn the_vocabulary_of_the_manual() {
    let policy = assert_good(&[VOCABULARY]);
    let domain = &policy.domains[0];
    assert_eq!((domain.name.as_str(), domain.number), ("acme", 7));
    let numbers: Vec<u8> = domain.levels.iter().map(|level| level.1).collect();
    assert_eq!(numbers, [0, 5, 10, 15]);
    assert_eq!(domain.compartments[2], ("health".into(), 2));
    assert_eq!(domain.constraints[1], ("no_forward".into(), 1));
    assert_eq!(domain.operations[3], ("web.get".into(), 4));
    assert_eq!(domain.routes[1], ("backbone_eu".into(), 2));
    assert_eq!(domain.residencies[3].jurisdictions, None);
    let lines: Vec<String> = domain
        .scopes
        .iter()
        .map(|s| {
            format!("{} {:?} {:?} {} {}", s.path, s.blocks, s.subjects, s.level, s.compartments)
        })
        .collect();
    assert_eq!(
        lines,
        [
            "web [(1, 1)] Some((1, 1)) 5 0",
            "payments [(256, 511)] None 10 1",
            "payments.api [(256, 256)] Some((256, 256)) 10 1",
            "payments.ledger [(257, 257)] Some((257, 257)) 10 1",
            "payments.batch [(320, 383)] Some((320, 383)) 10 1",
            "audit [(2, 2)] Some((2, 2)) 15 3",
            "guest [(3, 3)] Some((3, 3)) 0 0",
            "regions [(64, 127)] None 0 0",
            "regions.eu [(64, 79)] None 0 0",
            "regions.eu.north [(64, 64)] Some((64, 64)) 0 0",
            "regions.eu.south [(65, 65)] Some((65, 65)) 0 0",
            "regions.us [(80, 95)] None 0 0",
            "regions.us.east [(80, 80)] Some((80, 80)) 0 0",
        ]
    );
}

#[test]
fn the_policy_of_the_manual() {
    let policy = assert_good(&[VOCABULARY, LEDGER]);
    assert_eq!(policy.governed, [true, false, true]);
    let tiers: Vec<_> = policy.tiers.iter().map(|t| (t.name.as_str(), t.ordered)).collect();
    assert_eq!(tiers, [("guardrails", false), ("default", false), ("baseline", true)]);
    let [read, export, write, leaves, secrets] = policy.rules.as_slice() else { panic!() };
    assert_eq!(read.description.as_deref(), Some("the API reads balances"));
    assert_eq!((read.tier, read.action, read.observe, read.log), (0, Action::Permit, false, None));
    let hooks: Vec<_> = read.hooks.iter().map(|h| h.as_ref().map(|h| h.objects.clone())).collect();
    assert_eq!(hooks, [Some(Some(vec![range(257, 257)])), None, None]);
    let Match { from, domain, operations, conditions, protocols, to, .. } = &read.matches;
    assert_eq!(from, &[From::Scope(vec![range(256, 256)])]);
    assert_eq!((domain, operations.as_deref(), to), (&Some(ACME), Some(&[1][..]), &None));
    assert_eq!(
        conditions,
        &[
            Condition::Level(5, 15),
            Condition::Residency(vec![1, 2]),
            Condition::Not(Box::new(Condition::ConstraintsInclude(2))),
        ]
    );
    assert_eq!((protocols[0].number, &protocols[0].ports), (6, &Some(vec![(5432, 5432)])));
    assert_eq!(export.log, Some(1));
    assert_eq!(export.matches.operations.as_deref(), Some(&[1, 3][..]));
    assert_eq!(export.matches.conditions, [Condition::CompartmentsInclude(3)]);
    assert_eq!(write.action, Action::Deny);
    assert_eq!((leaves.tier, leaves.observe), (1, true));
    assert_eq!(leaves.matches.from, [From::Anyone]);
    let both = |left, right| vec![Condition::And(Box::new(left), Box::new(right))];
    let wan = Condition::EgressZone(vec![2]);
    assert_eq!(leaves.matches.conditions, both(Condition::Residency(vec![1, 2]), wan));
    let clear = Condition::Not(Box::new(Condition::EgressZone(vec![3])));
    assert_eq!(secrets.matches.conditions, both(Condition::ConstraintsInclude(1), clear));
}

#[test]
fn the_edges_of_the_manual() {
    let policy = assert_good(&[VOCABULARY, LEDGER]);
    assert_eq!(policy.cgroups, ["/kube.slice/api*"]);
    let [api, batch] = policy.stamps.as_slice() else { panic!() };
    assert_eq!((api.zone, api.cgroup, api.from_zone), (1, Some(1), None));
    let label = &api.label;
    assert_eq!((label.subject, label.level, label.compartments), (256, 10, 1));
    assert_eq!((label.operation, label.residency, label.route), (1, 1, 0));
    assert_eq!((label.radius, label.life, label.constraints), (3, 3, 0));
    assert_eq!((batch.cgroup, batch.from_zone), (None, Some(3)));
    assert_eq!(
        batch.addresses.as_deref(),
        Some(&[prefix("10.20.0.0/16"), prefix("2001:db8:20::/48")][..])
    );
    let label = &batch.label;
    assert_eq!((label.subject, label.level, label.compartments), (322, 0, 0));
    assert_eq!((label.radius, label.life), (2, 2));
    assert_eq!(policy.delivers[0].object, (ACME, 257));
    assert_eq!(policy.legacies[0].zone, 2);
    assert_eq!(policy.legacies[0].label.constraints, 2);
}

fn matches(clauses: &str) -> Match {
    let mut policy: Policy = assert_good(&rule(clauses));
    policy.rules.remove(0).matches
}

fn condition(text: &str) -> Condition {
    matches(&format!("where {text}")).conditions.remove(0)
}

#[test]
fn conditions() {
    use Condition::*;
    let not = |condition| Not(Box::new(condition));
    for (text, wanted) in [
        ("level is internal", Level(5, 5)),
        ("level != internal", not(Level(5, 5))),
        ("level < internal", Level(0, 4)),
        ("level <= internal", Level(0, 5)),
        ("level > internal", Level(6, 15)),
        ("level >= acme.internal", Level(5, 15)),
        ("radius <= cluster", Radius(0, 1)),
        ("radius > domain", Radius(3, 15)),
        ("compartments has finance", CompartmentsInclude(1)),
        ("compartments within {finance, health}", CompartmentsWithin(5)),
        ("compartments is {}", CompartmentsAre(0)),
        ("compartments != {audit}", not(CompartmentsAre(2))),
        ("constraints is {no_forward}", ConstraintsAre(2)),
        ("constraints within {no_forward, stay_in_domain}", ConstraintsWithin(6)),
        ("residency within eu", Residency(vec![1, 2])),
        ("residency within home", Residency(vec![2])),
        ("residency within anywhere", Residency(vec![1, 2, 3, 4])),
        ("residency is eu", Residency(vec![1])),
        ("residency != eu", not(Residency(vec![1]))),
        ("route is backbone_eu", Route(2)),
        ("operation is ledger.write", Operation(vec![2])),
        ("operation != web.get", not(Operation(vec![4]))),
        ("ingress zone is vpn", IngressZone(vec![3])),
        ("ingress zone != encrypted", not(IngressZone(vec![3]))),
        ("level is public or route is default", Or(Box::new(Level(0, 0)), Box::new(Route(1)))),
    ] {
        assert_eq!(condition(text), wanted, "{text}");
    }
}

#[test]
fn patterns() {
    for (text, wanted) in [
        ("acme.web", vec![range(1, 1)]),
        ("web", vec![range(1, 1)]),
        ("acme.payments.batch", vec![range(320, 383)]),
        ("acme.payments.batch[3]", vec![range(323, 323)]),
        ("acme.payments.*", vec![range(256, 257), range(320, 383)]),
        ("acme.payments.**", vec![range(256, 511)]),
        ("acme.*", vec![range(1, 3)]),
        ("acme.**", vec![range(0, 0xff_ffff)]),
        ("regions.eu.*, acme.regions.us.east", vec![range(64, 65), range(80, 80)]),
    ] {
        let matches = matches(&format!("from {text}"));
        assert_eq!(matches.from, [From::Scope(wanted)], "{text}");
        assert_eq!(matches.domain, Some(ACME));
    }
    assert_eq!(matches("to acme.web, acme.guest").to, Some(vec![range(1, 1), range(3, 3)]));
    assert_eq!(matches("to acme.web").domain, None);
}

#[test]
fn senders() {
    let from = |action: &str, clauses: &str| {
        let text = format!("{action} r {{ {clauses} }}");
        let texts = with_vocabulary(&format!("policy q {{ on ingress tier guardrails {text} }}"));
        let matches = assert_good(&texts).rules.remove(0).matches;
        (matches.from, matches.domain)
    };
    assert_eq!(from("permit", ""), (vec![From::Identified], None));
    assert_eq!(from("pass", ""), (vec![From::Identified], None));
    assert_eq!(from("deny", ""), (vec![From::Anyone], None));
    assert_eq!(from("deny", "where level is public"), (vec![From::Anyone], Some(ACME)));
    assert_eq!(from("permit", "from anyone"), (vec![From::Anyone], None));
    let (list, domain) = from("permit", "from legacy, acme.web, unlabelled, labelled, legacy");
    let web = From::Scope(vec![range(1, 1)]);
    assert_eq!(list, [web, From::Legacy, From::Unlabelled, From::Labelled]);
    // Labelled packets of any domain are meant, as no name depends on one.
    assert_eq!(domain, None);
    let (_, domain) = from("permit", "from labelled, acme.web where level is public");
    assert_eq!(domain, Some(ACME));
}

#[test]
fn operations() {
    let operations = |text: &str| matches(&format!("operation {text}")).operations.unwrap();
    assert_eq!(operations("web.post, ledger.*, ledger.read"), [1, 2, 3, 5]);
    assert_eq!(operations("acme.ledger.*"), [1, 2, 3]);
    assert_eq!(operations("acme.**"), [1, 2, 3, 4, 5]);
    assert_eq!(operations("ledger.**"), [1, 2, 3]);
    assert_eq!(operations("acme.web.get"), [4]);
}

#[test]
fn protocols() {
    let protocol = |text: &str| matches(&format!("proto {text}")).protocols.remove(0);
    let tcp = protocol("tcp port web_ports source port 1024..65535");
    assert_eq!(tcp.number, 6);
    assert_eq!(tcp.ports, Some(vec![(80, 80), (443, 443), (8000, 8099)]));
    assert_eq!(tcp.source_ports, Some(vec![(1024, 65535)]));
    let icmp = protocol("icmpv6 type 1..4, 128 code 0");
    assert_eq!(icmp.number, 58);
    assert_eq!(icmp.icmp_types, Some(vec![(1, 4), (128, 128)]));
    assert_eq!(icmp.icmp_codes, Some(vec![(0, 0)]));
    assert_eq!(
        (protocol("sctp").number, protocol("udp").number, protocol("47").number),
        (132, 17, 47)
    );
    assert_eq!(matches("proto tcp port 1 proto udp port 1").protocols.len(), 2);
}

#[test]
fn sets() {
    let texts = [
        "package a\nlet all = inner, 192.168.0.0/16, ::1\nlet inner = 10.1.0.0/16, 10.0.0.0/16, 0.0.0.0/8",
        "package b\nuse a\nlet ports = more, 90..99\nlet more = 80, 100, 81\n\
         policy q { on egress deny r { source all destination 10.0.0.1, 10.0.0.0/8, ::/0 proto udp port ports } }",
    ];
    let texts: Vec<&str> = texts.to_vec();
    let checked = run(&texts, &Locks::default());
    // The one warning is about 10.0.0.1 in 10.0.0.0/8.
    assert_one(&texts, &checked, codes::OVERLAP, "10.0.0.1", &[]);
    let matches = checked.policy.unwrap().rules.remove(0).matches;
    let prefixes = |list: &[&str]| Some(list.iter().map(|text| prefix(text)).collect::<Vec<_>>());
    let all = ["0.0.0.0/8", "10.0.0.0/16", "10.1.0.0/16", "192.168.0.0/16", "::1/128"];
    assert_eq!(matches.sources, prefixes(&all));
    assert_eq!(matches.destinations, prefixes(&["10.0.0.0/8", "::/0"]));
    assert_eq!(matches.protocols[0].ports, Some(vec![(80, 81), (90, 100)]));
}

#[test]
fn default_is_a_tier_without_being_declared() {
    let policy = assert_good(&[
        "package p\ntier first\npolicy q { on ingress tier first pass r { } } policy s { on ingress tier default deny t { } } policy u { on ingress deny t { } }",
    ]);
    let names: Vec<&str> = policy.tiers.iter().map(|tier| tier.name.as_str()).collect();
    assert_eq!(names, ["first", "default"]);
    let tiers: Vec<usize> = policy.rules.iter().map(|rule| rule.tier).collect();
    assert_eq!(tiers, [0, 1, 1]);
}

#[test]
fn the_same_input_gives_the_same_output() {
    let print = || format!("{:?}", run(&[VOCABULARY, PARTNER, LEDGER], &Locks::default()));
    assert_eq!(print(), print());
}

#[test]
fn sets_are_narrowed() {
    let texts = [
        "package a\nlet inside = office, ::1, 10.9.0.0/16 within 10.0.0.0/8 except lab, 10.9.128.0/17\n\
         let office = 10.0.0.0/30, 192.168.0.0/16\nlet lab = 10.0.0.1\n\
         let ports = 80..89 except 81, 85..88",
        "package b\nuse a\npolicy q { on egress deny r { source inside except 10.9.0.0/17 \
         proto udp port ports within 80..84, 89 source port 1..65535 except 2..65535 } }",
    ];
    let matches = assert_good(&texts).rules.remove(0).matches;
    let left = ["10.0.0.0/32", "10.0.0.2/31"].map(prefix);
    assert_eq!(matches.sources, Some(left.to_vec()));
    assert_eq!(matches.protocols[0].ports, Some(vec![(80, 80), (82, 84), (89, 89)]));
    assert_eq!(matches.protocols[0].source_ports, Some(vec![(1, 1)]));
}

#[test]
fn exceptions_from_scopes_and_operations() {
    let policy = assert_good(&with_vocabularies(
        "policy q {
            on ingress to acme.** except acme.regions.**
            permit one {
                from acme.** except acme.payments.batch, acme.regions.eu.*
                operation ledger.*, web.get except ledger.write
            }
            deny two { from anyone except partner.**, acme.web }
        }",
    ));
    let scopes = &policy.domains[0].scopes;
    let block = |path: &str| scopes.iter().find(|scope| scope.path == path).unwrap().blocks[0];
    let holds = |ranges: &[ScopeRange], domain: u8, number: u32| {
        let domain = DomainId(domain);
        ranges.iter().any(|r| r.domain == domain && (r.first..=r.last).contains(&number))
    };
    let From::Scope(one) = &policy.rules[0].matches.from[0] else { panic!() };
    for (path, inside) in [("payments.api", true), ("guest", true), ("regions.us.east", true)]
        .into_iter()
        .chain(["payments.batch", "regions.eu.north", "regions.eu.south"].map(|path| (path, false)))
    {
        let (first, last) = block(path);
        // What the scope has room for is in or out as the scope is.
        assert!([first, last].iter().all(|&number| holds(one, 0, number) == inside), "{path}");
    }
    assert_eq!(policy.rules[0].matches.operations, Some(vec![1, 3, 4]));
    let [From::Scope(two), From::Unlabelled] = policy.rules[1].matches.from.as_slice() else {
        panic!()
    };
    assert!(holds(two, 0, block("guest").0) && !holds(two, 0, block("web").0));
    assert!(!two.iter().any(|range| range.domain == DomainId(1)));
    let objects = policy.rules[0].hooks[0].as_ref().unwrap().objects.as_ref().unwrap();
    assert!(holds(objects, 0, block("web").0) && !holds(objects, 0, block("regions").0));
}
