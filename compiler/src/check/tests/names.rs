//! GOV1xxx.

use super::*;

#[test]
fn packages() {
    let texts = [
        VOCABULARY,
        "package p\nuse acme.vocabulray\npolicy q { on ingress permit r { from acme.web } }",
    ];
    let message = "did you mean `acme.vocabulary`?";
    assert_told(&texts, codes::UNKNOWN_PACKAGE, "acme.vocabulray", &[message]);
    let texts = ["package p\nuse far.away"];
    assert_told(&texts, codes::UNKNOWN_PACKAGE, "far.away", &["put `far/away.gov` on"]);
    // What is used already is not what was meant.
    let texts = [VOCABULARY, "package p\nuse acme.vocabulary\nuse acme.vocabluary"];
    let words = ["`acme.vocabulary` is visible here already", "remove this line"];
    let told = assert_told(&texts, codes::UNKNOWN_PACKAGE, "acme.vocabluary", &words);
    assert!(told.fixes.is_empty(), "{told:?}");
}

#[test]
fn numbers_that_have_names_elsewhere() {
    let told = |items: &str, clause: &str, at: &str, words: &[&str]| {
        let text = format!(
            "package p\n{items}\npolicy q {{ on ingress permit r {{ from anyone {clause} }} }}"
        );
        assert_told(&[&text], codes::UNKNOWN_SET, at, words);
    };
    let http = ["write its number, `port 80`, or declare it with `let http = 80`"];
    told("", "proto tcp port http", "http", &http);
    told("", "proto tcp port 443, http", "http", &http);
    told("template t { proto tcp port http }", "like t", "http", &http);
    told("", "proto udp source port dns", "dns", &["`source port 53`"]);
    told("", "proto icmp type echo-request", "echo-request", &["write its number, `type 8`"]);
    told("", "proto icmpv6 type echo_request", "echo_request", &["`type 128`"]);
    told("", "proto icmp type zzz", "zzz", &["such as `type 8`", "`let zzz = 8`"]);
    told("", "proto icmp code zzz", "zzz", &["such as `code 0`"]);
    told("", "proto tcp port zzz", "zzz", &["declare it with `let NAME = 80, 443`"]);
    told("", "source zzz", "zzz", &["declare it with `let NAME = 10.0.0.0/8`"]);
    // Sets of prefixes are not offered for ports.
    let sets = "let zzzy = 10.0.0.0/8\npolicy o { on ingress deny d { source zzzy } }";
    told(sets, "proto tcp port zzzz", "zzzz", &["declare it with `let NAME = 80, 443`"]);
}

#[test]
fn packages_are_not_transitive() {
    let texts = [
        VOCABULARY,
        "package middle\nuse acme.vocabulary",
        "package p\nuse middle\npolicy q { on ingress permit r { from acme.web } }",
    ];
    let words = ["belongs to package `acme.vocabulary`", "add `use acme.vocabulary`"];
    assert_told(&texts, codes::PACKAGE_NOT_USED, "acme", &words);
    let texts =
        [VOCABULARY, "package p\npolicy q { on ingress permit r { where level is secret } }"];
    assert_told(&texts, codes::PACKAGE_NOT_USED, "secret", &["level `secret` belongs to"]);
    let texts =
        [VOCABULARY, "package p\npolicy q { on forward deny r { where egress zone is wan } }"];
    assert_told(&texts, codes::PACKAGE_NOT_USED, "wan", &["zone `wan` belongs to"]);
    let texts = [VOCABULARY, "package p\npolicy q { on ingress deny r { source office } }"];
    assert_told(&texts, codes::PACKAGE_NOT_USED, "office", &["set `office` belongs to"]);
    let texts = [VOCABULARY, "package p\npolicy q { on ingress deny r { operation ledger.read } }"];
    assert_told(&texts, codes::PACKAGE_NOT_USED, "ledger.read", &["operation `ledger.read`"]);
    let texts = [VOCABULARY, "package p\npolicy q { on ingress tier baseline deny r { } }"];
    assert_told(&texts, codes::PACKAGE_NOT_USED, "baseline", &["tier `baseline`"]);
}

#[test]
fn several_files_share_a_package() {
    let texts = [
        "package a\ndomain acme = 7 { level { low < high } }\nscope acme { web }",
        "package a\nscope acme { db }\nconstraint sealed",
        "package a\npolicy q { on ingress permit r { from acme.db where constraints has sealed } }",
    ];
    assert_good(&texts);
}

#[test]
fn scopes() {
    let code = codes::UNKNOWN_SCOPE;
    let words = ["`acme.payments` has no scope `apii`", "did you mean `acme.payments.api`?"];
    assert_told(&rule("from acme.payments.apii"), code, "apii", &words);
    assert_told(&rule("from acme.api"), code, "api", &["did you mean `acme.payments.api`?"]);
    assert_told(&rule("from payments.ledgr"), code, "ledgr", &["`payments.ledger`?"]);
    assert_told(&rule("from acmee.web"), code, "acmee.web", &["did you mean `acme.web`?"]);
    let words = ["domain `acme` has no scope `zzz`", "below it are `web`, `payments`"];
    assert_told(&rule("from acme.zzz"), code, "zzz", &words);
    assert_told(&rule("to acme.web.x"), code, "x", &["`acme.web` has no scopes below it"]);
}

#[test]
fn vocabulary_names() {
    let code = codes::UNKNOWN_NAME;
    assert_told(&rule("where level >= intrenal"), code, "intrenal", &["did you mean `internal`?"]);
    let words = ["unknown compartment `x`", "`finance`, `audit` and `health`"];
    assert_told(&rule("where compartments includes {finance, x}"), code, "x", &words);
    assert_told(&rule("where constraints has no_forwrd"), code, "no_forwrd", &["`no_forward`?"]);
    assert_told(&rule("where residency within uk"), code, "uk", &["unknown residency `uk`"]);
    assert_told(&rule("where route is bakcbone_eu"), code, "bakcbone_eu", &["`backbone_eu`?"]);
    let words = ["domain `acme` has no level `intrnal`", "did you mean `acme.internal`?"];
    assert_told(&rule("where level is acme.intrnal"), code, "acme.intrnal", &words);
}

#[test]
fn operations() {
    let code = codes::UNKNOWN_OPERATION;
    assert_told(&rule("operation ledger.raed"), code, "ledger.raed", &["`ledger.read`?"]);
    assert_told(&rule("operation legder.*"), code, "legder", &["did you mean `ledger.*`?"]);
    assert_told(&rule("where operation is web.put"), code, "web.put", &["`web.get`?"]);
    let texts = rule("operation acme.ledger.wrote");
    assert_told(&texts, code, "acme.ledger.wrote", &["did you mean `acme.ledger.write`?"]);
    let words = ["is a group of operations", "write `ledger.*` for all of it"];
    assert_told(&rule("operation ledger"), codes::OPERATION_GROUP, "ledger", &words);
    let texts = rule("where operation is web");
    assert_told(&texts, codes::OPERATION_GROUP, "web", &["write one operation, such as `web.get`"]);
    let texts = rule("from acme.web operation ledger.read[3]");
    assert_told(&texts, codes::BAD_INDEX, "3", &["operations have no index"]);
}

#[test]
fn zones_tiers_sets_radii() {
    let texts = rule("where ingress zone is pds");
    assert_told(&texts, codes::UNKNOWN_ZONE, "pds", &["did you mean `pods`?"]);
    let texts = with_vocabulary("policy q { on ingress tier baselin deny r { } }");
    assert_told(&texts, codes::UNKNOWN_TIER, "baselin", &["did you mean `baseline`?"]);
    let texts = rule("source offce");
    assert_told(&texts, codes::UNKNOWN_SET, "offce", &["did you mean `office`?"]);
    let texts = with_vocabulary("policy q { on ingress deny r { source a } }\nlet a = offce");
    assert_told(&texts, codes::UNKNOWN_SET, "offce", &["did you mean `office`?"]);
    let texts = rule("where radius <= clusters");
    assert_told(&texts, codes::UNKNOWN_RADIUS, "clusters", &["did you mean `cluster`?"]);
    let texts = rule("where radius <= galaxy");
    assert_told(&texts, codes::UNKNOWN_RADIUS, "galaxy", &["`node`, `cluster`, `domain`"]);
    let texts = with_vocabulary("carriage tunel to office on wan");
    assert_told(&texts, codes::UNKNOWN_CARRIAGE, "tunel", &["did you mean `tunnel`?"]);
    let texts = with_vocabulary("carriage pigeon to office on wan");
    assert_told(&texts, codes::UNKNOWN_CARRIAGE, "pigeon", &["`option` and `tunnel`"]);
}

#[test]
fn names_of_another_kind() {
    let code = codes::WRONG_KIND;
    assert_told(
        &rule("from office"),
        code,
        "office",
        &["`office` is a set of prefixes, not a scope"],
    );
    assert_told(&rule("from acme.web source wan"), code, "wan", &["is a zone, not a set"]);
    let texts = with_vocabulary("stamp on web_ports { subject acme.web }");
    assert_told(&texts, code, "web_ports", &["is a set of ports, not a zone", "`pods`"]);
    let texts = with_vocabulary("stamp on pods { subject acme.web level finance }");
    assert_told(&texts, code, "finance", &["`finance` is a compartment, not a level"]);
    let texts = [
        "package a\ndomain acme = 1 { level { low } compartments { fin } }\nscope acme { web at fin }",
    ];
    assert_told(&texts, code, "fin", &["is a compartment, not a level"]);
}

#[test]
fn definitions() {
    let code = codes::DEFINED_TWICE;
    for (item, at) in [
        ("constraint a, b, a", "a"),
        ("operation g { x y } g { x }", "x"),
        ("residency eu = {de} eu = {fr}", "eu"),
        ("route a, a", "a"),
        ("scope d { x { y } x }", "x"),
        ("zone a = interface \"x\" a = interface \"y\"", "a"),
        ("tier a, b, a", "a"),
        ("let a = 1 let a = 2", "a"),
    ] {
        let text = format!("package a\ndomain d = 1 {{ level {{ low }} }}\n{item}");
        let told = assert_told(&[&text], code, at, &["is defined twice"]);
        assert_eq!(text_at(&[&text], &told, 1), at);
        assert!(told.labels[1].span < told.labels[0].span);
    }
    let text = "package a\ndomain d = 1 { level { low < low } compartments { a } }";
    assert_told(&[text], code, "low", &["level `low`"]);
    let text = "package a\ndomain d = 1 { compartments { a, a } }";
    assert_told(&[text], code, "a", &["compartment `a`"]);
    let texts = ["package a\ndomain d = 1", "package b\ndomain d = 2"];
    assert_told(&texts, code, "d", &["domain `d`"]);
    let texts = ["package a\nzone w = interface \"x\"", "package b\nzone w = interface \"x\""];
    assert_told(&texts, code, "w", &["zone `w`"]);
    let texts = rules("permit r { from acme.web } deny r { from acme.guest }");
    assert_told(&texts, code, "r", &["policy `q` has two rules named `r`"]);
    let texts =
        with_vocabulary("policy q { on ingress deny r { } } policy q { on ingress deny r { } }");
    assert_told(&texts, code, "q", &["policy `q` is defined twice"]);
}

#[test]
fn ambiguous_names() {
    let code = codes::AMBIGUOUS;
    let one = |clauses: &str| {
        with_vocabularies(&format!("policy q {{ on ingress permit r {{ {clauses} }} }}"))
    };
    let words =
        ["is a level of domain `acme` and of domain `partner`", "`acme.internal`", "from acme.**"];
    assert_told(&one("where level >= internal"), code, "internal", &words);
    let words = ["`acme.ledger.read`"];
    assert_told(&one("operation ledger.read"), code, "ledger.read", &words);
    let words = ["`acme.ledger.*`"];
    assert_told(&one("operation ledger.*"), code, "ledger", &words);
    let words = ["scope of domain `acme` and of domain `partner`", "`acme.web`", "`partner.web`"];
    assert_told(&one("from web"), code, "web", &words);
    // All of these say whose names they mean.
    for clauses in [
        "from acme.web where level >= internal",
        "from partner.** where level >= internal operation ledger.read",
        "operation acme.ledger.read where level >= internal",
        "where level >= internal, constraints has sealed",
        "where level >= partner.internal, residency within eu",
        "from shop",
    ] {
        assert_good(&one(clauses));
    }
    let texts = [
        "package a\nlet s = 1",
        "package b\nlet s = 2",
        "package c\nuse a\nuse b\npolicy q { on ingress permit r { proto tcp port s } }",
    ];
    assert_told(&texts, code, "s", &["is defined in `a` and in `b`"]);
}

#[test]
fn mixed_domains() {
    let code = codes::MIXED_DOMAINS;
    let one = |clauses: &str| {
        with_vocabularies(&format!("policy q {{ on ingress permit r {{ {clauses} }} }}"))
    };
    let texts = one("from acme.web where constraints has sealed");
    let words = ["constraint `sealed` belongs to domain `partner`", "names of domain `acme`"];
    let told = assert_told(&texts, code, "sealed", &words);
    let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
    assert_eq!(text_at(&borrowed, &told, 1), "acme.web");
    let texts = one("from acme.web, partner.shop where level is internal");
    let words = ["senders of two domains, `acme` and `partner`", "one rule for each domain"];
    assert_told(&texts, code, "internal", &words);
    let texts = one("where constraints has no_forward and constraints has sealed");
    assert_told(
        &texts,
        code,
        "sealed",
        &["`sealed` of domain `partner`", "`no_forward` of domain `acme`"],
    );
    let texts = with_vocabularies("stamp on pods { subject acme.web constraints {sealed} }");
    assert_told(&texts, code, "sealed", &["belongs to domain `partner`"]);
    // Two domains are fine as long as no name depends on one.
    let policy =
        assert_good(&one("from acme.web, partner.shop to acme.guest where radius <= domain"));
    assert_eq!(policy.rules[0].matches.domain, None);
}

#[test]
fn scope_patterns() {
    let words = ["`acme.payments` only groups other scopes", "write `acme.payments.**`"];
    assert_told(&rule("from acme.payments"), codes::GROUPING_SCOPE, "acme.payments", &words);
    let words = ["`acme` is a domain", "write `acme.**`"];
    assert_told(&rule("to acme"), codes::GROUPING_SCOPE, "acme", &words);
    let texts = rule("from acme.regions.*");
    let words = ["no scope directly below `acme.regions`", "write `acme.regions.**`"];
    assert_told(&texts, codes::NO_CHILD_SUBJECTS, "acme.regions.*", &words);
    let words = ["nothing lies below `acme.web`", "write `acme.web`"];
    assert_told(&rule("from acme.web.*"), codes::NO_CHILD_SUBJECTS, "acme.web.*", &words);
    let texts = rule("from acme.payments.batch[64]");
    let words = ["`acme.payments.batch[64]` is outside", "go from 0 to 63"];
    assert_told(&texts, codes::BAD_INDEX, "64", &words);
    assert_told(&rule("from acme.web[1]"), codes::BAD_INDEX, "1", &["it is one subject"]);
    assert_told(&rule("from acme.payments[0]"), codes::BAD_INDEX, "0", &["is no batch"]);
    assert_told(&rule("from acme[0]"), codes::BAD_INDEX, "0", &["`acme` is a domain"]);
}

#[test]
fn one_subject() {
    let code = codes::NOT_ONE_SUBJECT;
    let stamp = |subject: &str| with_vocabulary(&format!("stamp on pods {{ subject {subject} }}"));
    let words = ["names 64 subjects", "`acme.payments.batch[0]` to `acme.payments.batch[63]`"];
    assert_told(&stamp("acme.payments.batch"), code, "acme.payments.batch", &words);
    let words = ["only groups other scopes", "such as `acme.payments.api`"];
    assert_told(&stamp("acme.payments"), code, "acme.payments", &words);
    assert_told(&stamp("acme.**"), code, "acme.**", &["a star names many"]);
    let texts = with_vocabulary("deliver on pods { object acme.payments.batch }");
    assert_told(&texts, code, "acme.payments.batch", &["names 64 subjects"]);
    assert_good(&stamp("acme.payments.batch[63]"));
}

#[test]
fn cycles_of_sets() {
    let code = codes::SET_CYCLE;
    let texts = ["package p\nlet a = b, 1\nlet b = 2, c\nlet c = a"];
    let told =
        assert_told(&texts, code, "b", &["set `a` contains itself: `a` -> `b` -> `c` -> `a`"]);
    assert_eq!(text_at(&texts, &told, 1), "c");
    assert_eq!(text_at(&texts, &told, 2), "a");
    let texts = ["package p\nlet a = a"];
    assert_told(&texts, code, "a", &["`a` -> `a`"]);
}

#[test]
fn clauses_said_twice() {
    let code = codes::SAID_TWICE;
    for (clauses, at) in [
        ("from acme.web from acme.guest", "from acme.guest"),
        ("to acme.web to acme.guest", "to acme.guest"),
        ("operation web.get operation web.post", "operation web.post"),
        ("source office source 10.0.0.0/8", "source 10.0.0.0/8"),
        ("destination office destination 10.0.0.0/8", "destination 10.0.0.0/8"),
    ] {
        let told = assert_told(&rule(clauses), code, at, &["is said twice in one rule"]);
        assert!(told.labels[1].span < told.labels[0].span);
    }
    let texts =
        with_vocabulary("policy q { on ingress on forward on ingress to acme.web deny r { } }");
    assert_told(&texts, code, "on ingress to acme.web", &["`on ingress` is said twice"]);
    let texts = rule("proto tcp port 80 source port 7 port 443");
    assert_told(&texts, code, "port 443", &["`port` is said twice", "a second `proto`"]);
    let texts = rule("proto icmp type 1 code 2 code 3");
    assert_told(&texts, code, "code 3", &["`code` is said twice"]);
    let texts = with_vocabulary("policy q { on ingress tier guardrails deny r { } tier baseline }");
    assert_told(&texts, code, "baseline", &["`tier` is said twice"]);
    let texts = with_vocabulary("stamp on pods { subject acme.web life 1 life 2 }");
    assert_told(&texts, code, "2", &["`life` is said twice"]);
    let texts =
        with_vocabulary("stamp on pods when cgroup \"/a\" and cgroup \"/b\" { subject acme.web }");
    assert_told(&texts, code, "\"/b\"", &["`cgroup` is said twice"]);
    let texts = with_vocabulary(
        "test \"t\" { packet { from acme.web to acme.web to acme.guest } expect deny }",
    );
    assert_told(&texts, code, "acme.guest", &["`to` is said twice"]);
}

#[test]
fn one_mistake_one_diagnostic() {
    // The domain of the rule is unknown without its sender, and so are the other names.
    let texts = with_vocabularies(
        "policy q { on ingress permit r { from acme.wbe where level >= internal } }",
    );
    assert_told(&texts, codes::UNKNOWN_SCOPE, "wbe", &[]);
    // One wrong set, many uses.
    let texts = with_vocabulary(
        "let a = 10.0.0.1/8\npolicy q { on ingress deny r { source a } deny s { destination a } }",
    );
    assert_told(&texts, codes::HOST_BITS, "10.0.0.1/8", &[]);
    // Several mistakes in one rule are all told.
    let texts =
        rule("from acme.wbe to acme.gest where level >= secrt proto tcp port 70000 source off");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let checked = run(&texts, &Locks::default());
    let ids: Vec<&str> = checked.diagnostics.iter().map(|one| one.code.id).collect();
    assert_eq!(ids, ["GOV1002", "GOV1002", "GOV1003", "GOV2009", "GOV1007"]);
}

#[test]
fn names_of_broken_packages_are_no_news() {
    let (broken, errors) = govc_grammar::parse(FileId(0), "package v\ndomain = acme { ");
    assert!(!errors.is_empty());
    let (file, errors) = govc_grammar::parse(
        FileId(1),
        "package p\nuse v\npolicy q { on ingress permit r { from acme.web where level is high } }",
    );
    assert!(errors.is_empty());
    let checked = check(&[(FileId(0), broken), (FileId(1), file)], &Locks::default());
    assert!(checked.diagnostics.is_empty(), "{:#?}", checked.diagnostics);
    assert!(checked.policy.is_none());
}

#[test]
fn expectations() {
    let code = codes::UNKNOWN_CODE;
    let texts = ["package p\n@expect GOV4999 \"why\"\nlet a = 1"];
    assert_told(&texts, code, "GOV4999", &["unknown diagnostic code"]);
    let texts = ["package p\n@expect gov4104 \"why\"\nlet a = 1"];
    assert_told(&texts, code, "gov4104", &["did you mean `GOV4104`"]);
    let texts = ["package p\n@expect GOV1002 \"why\"\nlet a = 1"];
    assert_told(&texts, codes::EXPECTED_ERROR, "GOV1002", &["cannot be expected"]);
}

/// The sure fix of the only diagnostic, applied to the last text.
fn fixed(texts: &[String]) -> Option<String> {
    let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
    let checked = run(&borrowed, &Locks::default());
    let sources: Vec<_> = texts
        .iter()
        .map(|text| crate::sources::Source { name: String::new(), text: text.clone() })
        .collect();
    let fixes = crate::fixes::sure(&checked.diagnostics);
    let fixed = crate::fixes::apply(&sources, fixes).into_values().next()?;
    let after = run(&[VOCABULARY, PARTNER, &fixed], &Locks::default());
    assert!(after.diagnostics.is_empty(), "{fixed}: {:#?}", after.diagnostics);
    Some(fixed)
}

#[test]
fn sure_fixes() {
    for (wrong, right) in [
        ("from acme.payments.API", "from acme.payments.api"),
        ("where level is acme.Internal", "where level is acme.internal"),
        ("source OFFICE", "source office"),
        ("where radius <= clusters", "where radius <= cluster"),
        (
            "from acme.web where level is {public, secret}",
            "from acme.web where (level is public or level is secret)",
        ),
        (
            "from acme.web where level != {public, secret}",
            "from acme.web where (level != public and level != secret)",
        ),
        ("from acme.web where route is {default}", "from acme.web where route is default"),
        ("proto 6 port 80", "proto tcp port 80"),
        ("from acme.web log log", "from acme.web log"),
        ("proto udp proto tcp port 80 proto udp", "proto udp proto tcp port 80"),
    ] {
        let texts = |clauses: &str| {
            with_vocabularies(&format!("policy q {{ on ingress permit r {{ {clauses} }} }}"))
        };
        let [_, _, right] = texts(right);
        assert_eq!(fixed(&texts(wrong)), Some(right), "{wrong}");
    }
    // The package of a name that is found elsewhere.
    let texts = |uses: &str| {
        let text =
            format!("package p{uses}\npolicy q {{ on ingress permit r {{ from acme.web }} }}");
        [VOCABULARY.to_owned(), PARTNER.to_owned(), text]
    };
    let [_, _, right] = texts("\nuse acme.vocabulary");
    assert_eq!(fixed(&texts("")), Some(right));
    // Of two packages that have it, either may be meant.
    let texts = ["package a\nlet s = 1", "package b\nlet s = 2", "package p\nlet t = s"];
    assert_eq!(fixed(&texts.map(str::to_owned)), None);
    // Guesses are offered and not applied.
    let texts = |clauses: &str| {
        with_vocabularies(&format!("policy q {{ on ingress permit r {{ {clauses} }} }}"))
    };
    for clauses in [
        "from acme.payments",
        "from acme.web operation web",
        "from acme.api",
        // What is spelt like another name may not be declared yet.
        "from acme.payments.api2",
        "from acmee.web",
        "where level is acme.intrnal",
        "from acme.web operation ledger.raed",
        "where ingress zone is podss",
        "source offce",
    ] {
        assert_eq!(fixed(&texts(clauses)), None, "{clauses}");
        let texts = texts(clauses);
        let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(run(&borrowed, &Locks::default()).diagnostics[0].fixes.len(), 1, "{clauses}");
    }
}

#[test]
fn cycles_of_packages() {
    let code = codes::USE_CYCLE;
    let texts = ["package a\nuse b", "package b.x\nuse a", "package b\nuse b.x"];
    let words = ["package `a` uses itself: `a` -> `b` -> `b.x` -> `a`"];
    let told = assert_told(&texts, code, "b", &words);
    assert_eq!((text_at(&texts, &told, 1), text_at(&texts, &told, 2)), ("b.x", "a"));
    assert_told(&["package a\nuse a"], code, "a", &["`a` -> `a`"]);
    assert_good(&["package a\nuse b\nuse c", "package b\nuse c", "package c"]);
}

#[test]
fn private_names() {
    let code = codes::PRIVATE_NAME;
    let owner = "package a\nprivate let s = 10.0.0.0/8\nlet t = s\n\
                 private zone z = interface \"x\"\ndeliver on z { object d.e }\n\
                 domain d = 3 { level { l } }\nscope d { e }\nprivate constraint c\n\
                 stamp on z { subject d.e  constraints {c} }";
    assert_good(&[owner]);
    for (clause, at) in [
        ("source s", "s"),
        ("source t where ingress zone is z", "z"),
        ("where constraints has c", "c"),
    ] {
        let user = format!("package b\nuse a\npolicy q {{ on ingress\ndeny r {{ {clause} }} }}");
        let told = assert_told(&[owner, &user], code, at, &["is private to package `a`"]);
        assert_eq!(told.labels.len(), 2);
        // Files of the package itself see it.
        assert_good(&[owner, &user.replace("package b\nuse a", "package a")]);
    }
}

#[test]
fn private_names_are_not_offered() {
    let owner = "package a\ndomain d = 3 { level { low } }\nscope d { e }\n\
                 private let offices = 10.0.0.0/8\nprivate zone inside = interface \"x\"\n\
                 private constraint sealed\nprivate operation books { read }\n\
                 private template checked { source offices  where ingress zone is inside }\n\
                 policy own { on ingress deny r { like checked  operation books.read  where constraints has sealed } }";
    assert_good(&[owner]);
    let slips = [
        ("source ofices", codes::UNKNOWN_SET, "ofices"),
        ("where ingress zone is insde", codes::UNKNOWN_ZONE, "insde"),
        ("where constraints has seald", codes::UNKNOWN_NAME, "seald"),
        ("where constraints has d.seald", codes::UNKNOWN_NAME, "d.seald"),
        ("operation books.reed", codes::UNKNOWN_OPERATION, "books.reed"),
        ("like chekced", codes::UNKNOWN_TEMPLATE, "chekced"),
    ];
    for (clause, code, at) in slips {
        let user = format!("package b\nuse a\npolicy q {{ on ingress\ndeny r {{ {clause} }} }}");
        let told = |text: &str| {
            let checked = run(&[owner, text], &Locks::default());
            assert_eq!(checked.diagnostics.len(), 1, "{:?}", checked.diagnostics);
            checked.diagnostics[0].clone()
        };
        let (there, here) = (told(&user), told(&user.replace("package b\nuse a", "package a")));
        assert_eq!((there.code.id, here.code.id), (code.id, code.id), "{clause}");
        assert_eq!(text_at(&[owner, &user], &there, 0), at);
        let help = |one: &Diagnostic| one.help.clone().unwrap_or_default();
        assert!(there.fixes.is_empty() && !help(&there).contains("did you mean"), "{there:?}");
        assert!(help(&here).contains("did you mean"), "{here:?}");
        for name in ["offices", "inside", "sealed", "books.read", "checked"] {
            assert!(!help(&there).contains(name), "{there:?}");
        }
    }
    // Nor is the package, to whoever does not use it.
    let user = "package b\npolicy q { on ingress\ndeny r { source offices } }";
    assert_told(&[owner, user], codes::UNKNOWN_SET, "offices", &["unknown set `offices`"]);
    // What is private elsewhere is no rival of a name of one's own.
    let user = "package b\nuse a\nlet offices = 10.1.0.0/16\n\
                policy q { on ingress\ndeny r { source offices } }";
    assert_good(&[owner, user]);
}
