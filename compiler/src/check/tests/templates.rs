//! Templates, times and answers: clauses written out, moments, and what becomes of the denied.

use govc_abi::attribute;

use super::*;
use crate::checked::{Answer, From};
use crate::interpret;

fn rules(items: &str, rules: &str) -> [String; 2] {
    let used = "policy used { on ingress  deny it { source office  proto tcp port web } }";
    with_vocabulary(&format!("let web = 82\n{items}\npolicy p {{ on ingress\n{rules} }}\n{used}"))
}

/// Two rules that mean the same, but for their names and places.
fn assert_same(items: &str, like: &str, written: &str) {
    let texts = rules(items, &format!("permit a {{ {like} }}\npermit b {{ {written} }}"));
    let checked = assert_good(&texts);
    let [a, b, ..] = checked.rules() else { panic!("two rules") };
    assert_eq!(format!("{:?}", a.matches), format!("{:?}", b.matches), "{like}");
    assert_eq!((a.log, a.answer), (b.log, b.answer));
}

#[test]
fn templates_are_written_out() {
    let web =
        "template t(who, ports) { from who  where level >= internal  proto tcp port ports, 22 }";
    assert_same(
        web,
        "like t(who = acme.web, acme.payments.**  ports = 80, 8000..8099, web)",
        "from acme.web, acme.payments.**  where level >= internal  proto tcp port 80, 8000..8099, web, 22",
    );
    assert_same(
        web,
        "like t(who = anyone  ports = 1)",
        "from anyone where level >= internal proto tcp port 1, 22",
    );
    let nested = "template outer(what) { like inner(ports = what  web = acme.guest)  log }\n\
                  template inner(ports, web) { from web  proto tcp port ports }";
    assert_same(nested, "like outer(what = 5)", "from acme.guest  proto tcp port 5  log");
    // A name of the inner template is not taken for a parameter of the outer one, nor is an
    // argument.
    let captured = "template outer(web, x) { like inner  source x }\n\
                    template inner { proto tcp port web }";
    let texts = rules(
        captured,
        "permit a { like outer(web = 1  x = office) }\npermit b { proto tcp port web  source office }",
    );
    let checked = run(&texts.each_ref().map(String::as_str), &Locks::default());
    assert!(checked.policy.is_some(), "{:?}", checked.diagnostics);
    let told: Vec<_> = checked.diagnostics.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(told, ["parameter `web` is never used"]);
    let paths = "template t(team, level, what) { from team.** except team.ledger  operation what\n\
                 where level >= level or constraints has what, compartments within {level, audit} }";
    let texts = rules(
        paths,
        "permit a { like t(team = acme.payments  level = finance  what = ledger.read) }",
    );
    let checked = run(&texts.each_ref().map(String::as_str), &Locks::default());
    let told: Vec<_> = checked.diagnostics.iter().map(|one| one.code).collect();
    assert!(!told.is_empty() && checked.policy.is_none(), "`finance` is no level: {told:?}");
    let paths = "template t(team, floor, what, names) { from team.** except team.ledger  operation what\n\
                 where level >= floor, compartments within {names, audit} }";
    assert_same(
        paths,
        "like t(team = acme.payments  floor = internal  what = ledger.read, web.*  names = finance)",
        "from acme.payments.** except acme.payments.ledger  operation ledger.read, web.*\n\
         where level >= internal, compartments within {finance, audit}",
    );
}

#[test]
fn assertions_are_like_templates_too() {
    let texts = rules(
        "template guests { from acme.guest }",
        "deny a { like guests }\n}\nassert out { never permit like guests unless like guests source office }\npolicy q { on egress deny b { }",
    );
    let checked = assert_good(&texts);
    let assertion = &checked.assertions()[0];
    assert!(matches!(assertion.matches.from.as_slice(), [From::Scope(_)]));
    assert!(assertion.unless[0].sources.is_some());
}

#[test]
fn wrong_templates_and_arguments() {
    let one = "template served(who, ports) { from who  proto tcp port ports }";
    let used = "permit z { like served(who = acme.guest  ports = 9) }";
    let rule = |like: &str| rules(one, &format!("permit a {{ {like} }}\n{used}"));
    let code = codes::UNKNOWN_TEMPLATE;
    assert_told(
        &rule("like serve(who = acme.web  ports = 1)"),
        code,
        "serve",
        &["did you mean `served`?"],
    );
    let code = codes::WRONG_ARGUMENTS;
    assert_told(&rule("like served(who = acme.web)"), code, "served", &["does not say `ports`"]);
    assert_told(
        &rule("like served(whom = acme.web ports = 1)"),
        code,
        "whom",
        &["no parameter `whom`"],
    );
    let code = codes::WRONG_ARGUMENT;
    assert_told(&rule("like served(who = 443 ports = 1)"), code, "443", &["wants scopes"]);
    assert_told(
        &rule("like served(who = acme.web ports = acme.web)"),
        code,
        "acme.web",
        &["wants addresses, numbers or sets"],
    );
    let level = "template t(floor) { where level >= floor }";
    let texts = rules(level, "permit a { like t(floor = internal, public) }");
    assert_told(&texts, code, "public", &["wants one name"]);
    let code = codes::TEMPLATE_CYCLE;
    let texts = rules("template a { like b }\ntemplate b { like a }", "permit a { like a }");
    assert_told(&texts, code, "b", &["`a` -> `b` -> `a`"]);
    let texts = rules("template a(x, x) { source x }", "permit a { like a(x = office) }");
    assert_told(&texts, codes::DEFINED_TWICE, "x", &["parameter `x` is named twice"]);
    let texts = rules("template a { log }\ntemplate a { log }", "permit a { like a }");
    assert_told(&texts, codes::DEFINED_TWICE, "a", &["template `a`"]);
    // A template that others use is of their package; one that nobody uses is told.
    let texts = rules("template t { log }", "permit a { }");
    assert_told(&texts, codes::UNUSED, "t", &["template `t` is never used"]);
}

#[test]
fn templates_do_not_grow_without_end() {
    use std::fmt::Write as _;
    let mut items = String::from("template t0 { where level >= internal, level >= internal }\n");
    for n in 1..40 {
        let _ = writeln!(items, "template t{n} {{ like t{} like t{} }}", n - 1, n - 1);
    }
    let texts = rules(&items, "permit a { like t39 }");
    let told = run(&texts.each_ref().map(String::as_str), &Locks::default()).diagnostics;
    let code = codes::EXPANSION_TOO_LARGE;
    assert!(told.iter().any(|one| one.code == code), "{told:?}");
}

#[test]
fn rules_begin_and_end() {
    let texts = rules(
        "",
        "permit a { from acme.web since \"2026-12-01T00:00Z\" until \"2026-12-31T18:00+01:00\" }\n\
         permit b { from acme.web until \"2026-12-31T17:00:00Z\" }",
    );
    let checked = assert_good(&texts);
    assert_eq!(checked.times(), [1_796_083_200 / 2, 1_798_736_400 / 2]);
    let [a, b, ..] = checked.rules() else { panic!("two rules") };
    let holds = |rule: &crate::checked::Rule, past: u32| {
        let mut request = attribute::Request::EMPTY;
        request.scalars[usize::from(attribute::TIME)] = past;
        interpret::is_in_time(&checked, &rule.matches, &request)
    };
    assert_eq!([0, 1, 2, 3].map(|past| holds(a, past)), [false, true, false, false]);
    assert_eq!([0, 1, 2, 3].map(|past| holds(b, past)), [true, true, false, false]);
    let rule = |clauses: &str| rules("", &format!("permit a {{ from acme.web {clauses} }}"));
    let code = codes::BAD_TIME;
    for wrong in [
        "2026-12-31",
        "tomorrow",
        "",
        "2026-12-31T18:00",
        "2026-13-01T00:00Z",
        "1969-12-31T23:59Z",
        "2300-01-01T00:00Z",
    ] {
        assert_told(&rule(&format!("until \"{wrong}\"")), code, &format!("\"{wrong}\""), &["`"]);
    }
    let code = codes::EMPTY_TIME;
    let never = "since \"2026-12-31T00:00Z\" until \"2026-12-31T00:00:01Z\"";
    assert_good(&rule(never));
    let never = "since \"2026-12-31T00:00Z\" until \"2026-12-31T00:00Z\"";
    assert_told(&rule(never), code, "\"2026-12-31T00:00Z\"", &["ends before it begins"]);
    let many = |count: u32| -> String {
        let rule = |n| format!("permit r{n} {{ from acme.web until \"20{n}-01-01T00:00Z\" }}\n");
        (30..30 + count).map(rule).collect()
    };
    assert_good(&rules("", &many(16)));
    let code = codes::TOO_MANY_TIMES;
    assert_told(&rules("", &many(17)), code, "\"2046-01-01T00:00Z\"", &["more than 16 moments"]);
}

#[test]
fn denials_are_answered() {
    let texts = rules(
        "zone trap = interface \"trap0\"",
        "deny a { reject }\ndeny b { quarantine trap }\ndeny c { log 1 in 50 }\npermit d { from acme.web log }",
    );
    let checked = assert_good(&texts);
    let told: Vec<_> = checked.rules().iter().take(4).map(|one| (one.answer, one.log)).collect();
    let zone = checked.zones().iter().position(|zone| zone.name == "trap").unwrap() + 1;
    let quarantine = Answer::Quarantine(u8::try_from(zone).unwrap());
    let silence = Answer::Silence;
    assert_eq!(
        told,
        [(Answer::Reject, None), (quarantine, None), (silence, Some(50)), (silence, Some(1))]
    );
    let code = codes::ANSWER_WITHOUT_DENIAL;
    assert_told(&rules("", "permit a { from acme.web reject }"), code, "reject", &["denied"]);
    for (rule, code, at, told) in [
        (
            "permit a { proto udp port 53 fragments }",
            codes::FRAGMENT_PORTS,
            "proto udp port 53",
            "ports",
        ),
        (
            "permit a { proto icmp type 8 fragments }",
            codes::FRAGMENT_PORTS,
            "proto icmp type 8",
            "types",
        ),
        ("deny a { from acme.web options }", codes::SHAPE_OF_DENIAL, "options", "in any case"),
    ] {
        assert_told(&rules("", rule), code, at, &[told]);
    }
    let edge = "zone z = interface \"z\"\n\
                legacy from 10.0.0.0/8 on z { subject acme.guest  operation web.get or web.post }";
    assert_told(
        &rules(edge, "permit a { from acme.web }"),
        codes::UNDECLARABLE,
        "web.post",
        &["declares no operation"],
    );
    let code = codes::BAD_SAMPLING;
    for wrong in ["2 in 100", "1 in 0", "1 in 65536"] {
        assert_told(&rules("", &format!("deny a {{ log {wrong} }}")), code, wrong, &["sampled"]);
    }
    let texts = rules("zone z = interface \"z\"", "deny a { reject quarantine z }");
    assert_told(&texts, codes::SAID_TWICE, "quarantine z", &["either rejected or put"]);
    let texts = rules("", "deny a { quarantine nowhere }");
    assert_told(&texts, codes::UNKNOWN_ZONE, "nowhere", &["unknown zone"]);
    let texts = rules(
        "",
        "deny b { } }\nassert a { never permit from acme.guest reject }\npolicy q { on egress deny c { }",
    );
    assert_told(&texts, codes::ASSERTION_LOGS, "reject", &["nothing to reject"]);
}

#[test]
fn what_templates_say_again_names_the_rule() {
    let template = "template t(who) { from who  reject }\ntemplate u { proto tcp port 80 }\n\
                    template v { from acme.web  from acme.guest }";
    let told = |clauses: &str, code: Code, places: &[&str]| {
        let texts = rules(template, &format!("deny a {{ {clauses} }}"));
        let texts = texts.each_ref().map(String::as_str);
        let mut checked = run(&texts, &Locks::default());
        // Not every rule is like all of them.
        checked.diagnostics.retain(|told| told.code != codes::UNUSED);
        let one = assert_one(&texts, &checked, code, places[0], &["twice"]);
        let found: Vec<&str> = (0..one.labels.len()).map(|at| text_at(&texts, &one, at)).collect();
        assert_eq!(found, places, "{one:?}");
        // What a template says is others' too.
        assert!(one.fixes.is_empty(), "{one:?}");
    };
    let (guest, web) = ("like t(who = acme.guest)", "like t(who = acme.web)");
    told(&format!("{guest}  {web}"), codes::SAID_TWICE, &[web, "from who", guest]);
    told(
        &format!("from acme.guest  {web}"),
        codes::SAID_TWICE,
        &[web, "from who", "from acme.guest"],
    );
    told(&format!("{web}  from acme.guest"), codes::SAID_TWICE, &["from acme.guest", web]);
    told(&format!("reject  {web}"), codes::REPEATED, &[web, "reject", "reject"]);
    told(
        "proto tcp port 80  like u",
        codes::REPEATED,
        &["like u", "proto tcp port 80", "proto tcp port 80"],
    );
    // The mistake is the template's own.
    told("like v", codes::SAID_TWICE, &["from acme.guest", "from acme.web", "like v"]);
}

/// Templates of package `shared`, which sees the partner's names, used by package `p`, which does
/// not.
fn across(templates: &str, items: &str) -> [String; 4] {
    let shared = in_shared(templates);
    let own = format!("package p\nuse acme.vocabulary\nuse shared\n{items}");
    [VOCABULARY.to_owned(), PARTNER.to_owned(), shared, own]
}

fn in_shared(items: &str) -> String {
    format!("package shared\nuse acme.vocabulary\nuse partner.vocabulary\n{items}")
}

#[test]
fn names_in_templates_are_those_of_their_file() {
    let templates = "private let ports = 443\nlet trusted = 10.1.0.0/16\n\
        zone inner = interface \"in*\"\n\
        template web { proto tcp port ports }\n\
        template near(more) { source trusted, more }\n\
        template partners { from partner.shop  operation shop.buy  where constraints has sealed }\n\
        template team(who) { from who.**  where ingress zone is inner }";
    let same = |like: &str, written: &str| {
        let own = format!(
            "let ports = 80  mine = 10.9.0.0/16\npolicy p {{ on ingress\npermit a {{ {like} }}\n\
             permit z {{ source mine  proto tcp port ports }} }}"
        );
        let written = in_shared(&format!("policy w {{ on ingress\npermit a {{ {written} }} }}"));
        let [a, b, c, d] = across(templates, &own);
        // Nothing is unused here, as templates use names whether or not they are used.
        let checked = assert_good(&[a, b, c, d, written]);
        let matches = |policy: &str| {
            let named = |rule: &&crate::checked::Rule| rule.policy == policy && rule.name == "a";
            format!("{:?}", checked.rules().iter().find(named).unwrap().matches)
        };
        assert_eq!(matches("p"), matches("w"), "{like}");
    };
    same("like web", "proto tcp port 443");
    same("like near(more = mine)", "source 10.1.0.0/16, 10.9.0.0/16");
    same("like near(more = 10.8.0.0/16)", "source trusted, 10.8.0.0/16");
    same("like partners", "from partner.shop  operation shop.buy  where constraints has sealed");
    same("like team(who = acme.payments)", "from acme.payments.**  where ingress zone is inner");
    same(
        "like web  where level >= internal from acme.**",
        "from acme.** proto tcp port 443 where level >= internal",
    );
}

#[test]
fn names_of_the_user_are_unknown_to_templates() {
    let policy = |like: &str| {
        format!(
            "let mine = 10.9.0.0/16\nzone own = interface \"o\"\npolicy p {{ on ingress\n\
             permit a {{ {like} }}\npermit z {{ source mine where ingress zone is own }} }}"
        )
    };
    let told = |template: &str, like: &str, code, at: &str, words: &[&str]| {
        assert_told(&across(template, &policy(like)), code, at, words)
    };
    let of_p = "belongs to package `p`";
    let code = codes::PACKAGE_NOT_USED;
    let circle = "`p` uses this package";
    let one = told("template t { source mine }", "like t", code, "mine", &[of_p, circle]);
    assert!(one.fixes.is_empty(), "{one:?}");
    told("template t { where ingress zone is own }", "like t", code, "own", &[of_p]);
    told("template t(x) { source x, mine }", "like t(x = mine)", code, "mine", &[of_p]);
    // Two domains are visible to the template, and it does not say which one it means.
    let level = "template t { where level >= internal }";
    told(level, "like t", codes::AMBIGUOUS, "internal", &["of domain `acme` and of domain"]);
    assert_good(&across(level, &policy("like t  from acme.web")));
    // Nobody has to be like it.
    let unused = "template t { source nowhere }\ntemplate u { proto tcp port web_ports }";
    told(unused, "like u", codes::UNKNOWN_SET, "nowhere", &["unknown set"]);
    // What a rule hands over is the rule's to know.
    let code = codes::UNKNOWN_SCOPE;
    told(
        "template t(x) { from x }",
        "like t(x = partner.shop)",
        codes::PACKAGE_NOT_USED,
        "partner",
        &["`partner.vocabulary`"],
    );
    told(
        "template t(x) { from x.shop }",
        "like t(x = acme.payments)",
        code,
        "shop",
        &["`acme.payments` has no scope `shop`"],
    );
}
