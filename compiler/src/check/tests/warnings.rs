//! GOV41xx.

use super::*;

#[test]
fn unused_definitions() {
    let policy = "policy q { on ingress deny r { } }";
    let code = codes::UNUSED;
    let texts = [format!("package p\nlet a = 80\n{policy}")];
    assert_told(&texts, code, "a", &["set `a` is never used"]);
    let texts = [format!("package p\nzone a = interface \"x\"\n{policy}")];
    assert_told(&texts, code, "a", &["zone `a` is never used"]);
    let texts = [format!("package p\ntier a, default\n{policy}")];
    assert_told(&texts, code, "a", &["tier `a` is never used"]);
    // A shared vocabulary is no false alarm, and neither is what another file uses.
    assert_good(&["package p\nlet a = 80\nzone z = interface \"x\"\ntier t"]);
    assert_good(&[
        format!("package p\nlet a = 80\n{policy}"),
        "package o\nuse p\npolicy o { on ingress permit r { proto tcp port a } }".to_owned(),
    ]);
    assert_good(&[format!("package p\nzone a = interface \"x\" encrypted\n{policy}")]);
}

#[test]
fn unreachable_edges() {
    let code = codes::UNREACHABLE_ITEM;
    let stamp = |first: &str, second: &str| {
        with_vocabulary(&format!(
            "stamp on pods {first} {{ subject acme.web }}\nstamp on pods {second} {{ subject acme.guest }}"
        ))
    };
    assert_told(
        &stamp("", "when cgroup \"/a\""),
        code,
        "stamp",
        &["this stamp rule never applies"],
    );
    assert_told(&stamp("when cgroup \"/a\"", "when cgroup \"/a\""), code, "stamp", &[]);
    let narrower = "when cgroup \"/a\" and address 10.0.0.0/8 and from zone wan";
    assert_told(&stamp("when from zone wan", narrower), code, "stamp", &[]);
    // What came in by a zone is not what the node itself sends, from whichever address.
    assert_good(&stamp("when address 10.0.0.0/8", narrower));
    let narrower_still = "when from zone wan and address 10.0.0.0/8";
    assert_told(&stamp(narrower_still, narrower), code, "stamp", &[]);
    assert_good(&stamp(narrower, ""));
    assert_good(&stamp("when cgroup \"/a\"", "when cgroup \"/b\""));
    let texts = with_vocabulary(
        "deliver on pods { object acme.web }\ndeliver on pods when address 10.0.0.1 { object acme.guest }",
    );
    assert_told(&texts, code, "deliver", &["this deliver rule"]);
    let texts = with_vocabulary(
        "legacy from office on wan { subject acme.web }\nlegacy from office on wan { subject acme.guest }",
    );
    assert_told(&texts, code, "legacy", &["this legacy rule"]);
}

#[test]
fn attributes_that_are_never_known() {
    let code = codes::NEVER_KNOWN;
    let policy = |on: &str, clauses: &str| {
        with_vocabulary(&format!("policy q {{ {on} deny r {{ {clauses} }} }}"))
    };
    let texts = policy("on ingress", "where egress zone is wan");
    assert_told(&texts, code, "egress zone", &["only known on egress and forward"]);
    let texts = policy("on egress", "to acme.web");
    assert_told(&texts, code, "to acme.web", &["only known on ingress"]);
    let texts = policy("on forward to acme.web", "");
    assert_told(&texts, code, "acme.web", &["on forward the object is not known"]);
    assert_good(&policy("on ingress on egress", "to acme.web where egress zone is wan"));
    assert_good(&policy("on forward", "where ingress zone is pods and egress zone is encrypted"));
}

#[test]
fn overlapping_members() {
    let code = codes::OVERLAP;
    let set = |members: &str| [format!("package p\nlet s = {members}")];
    let words = ["`10.20.0.0/16` lies within `10.0.0.0/8`"];
    assert_told(&set("10.20.0.0/16, 10.0.0.0/8"), code, "10.20.0.0/16", &words);
    assert_told(&set("80, 443, 80"), code, "80", &["`80` is named twice"]);
    assert_told(&set("80..90, 85..95"), code, "85..95", &["`85..95` overlaps `80..90`"]);
    assert_told(&rule("proto tcp port web_ports, 443"), code, "443", &["lies within `web_ports`"]);
    assert_told(&rule("source 10.20.3.0/24, office"), code, "10.20.3.0/24", &[]);
    assert_good(&set("80, 81, 82..90, 91"));
    assert_good(&set("10.0.0.0/9, 10.128.0.0/9, ::/0, 0.0.0.0/8"));
}

#[test]
fn policies() {
    let texts = ["package p\npolicy q { on ingress }"];
    assert_told(&texts, codes::EMPTY_POLICY, "q", &["policy `q` has no rules"]);
    let texts = with_vocabulary("policy q { on ingress tier baseline pass r { from acme.web } }");
    assert_told(&texts, codes::PASS_IN_LAST_TIER, "r", &["`r` passes in the last tier"]);
    // The implicit tier comes last.
    let texts = ["package p\npolicy q { on ingress pass r { } }"];
    assert_told(&texts, codes::PASS_IN_LAST_TIER, "r", &[]);
}

#[test]
fn repetitions() {
    let code = codes::REPEATED;
    assert_told(&rule("from acme.web log log"), code, "log", &["`log` is said twice"]);
    let texts = rule("proto tcp port 80 proto udp proto tcp port 80");
    assert_told(&texts, code, "proto tcp port 80", &["alternatives"]);
    let texts = [VOCABULARY, "package p\nuse acme.vocabulary\nuse acme.vocabulary"];
    assert_told(&texts, code, "acme.vocabulary", &["is used twice"]);
}

#[test]
fn conditions_that_never_hold() {
    let code = codes::NEVER_HOLDS;
    let words = ["no packet has a level beyond the lowest one"];
    assert_told(&rule("where level < public"), code, "level < public", &words);
    assert_told(&rule("where level > secret"), code, "level > secret", &["the highest"]);
    assert_told(&rule("where radius < node"), code, "radius < node", &[]);
}

#[test]
fn unfulfilled_expectations() {
    let said = |text: &str| {
        let (file, errors) = govc_grammar::parse(FileId(0), text);
        assert!(errors.is_empty(), "{errors:#?}");
        let files = [(FileId(0), file)];
        let checked = check(&files, &Locks::default());
        crate::expectations::settle(&files, checked.diagnostics, false)
    };
    let expected = "@expect GOV4104 \"from the contract\"";
    let overlap = "let a = 80, 80";
    assert!(said(&format!("package p\n{expected}\n{overlap}")).is_empty());
    // It speaks about the next item only, and about its code only.
    for text in [
        format!("package p\n{overlap}\n{expected}\nlet b = 1"),
        format!("package p\n@expect GOV4107 \"other\"\n{overlap}"),
    ] {
        let told = said(&text);
        let ids: Vec<_> = told.iter().map(|one| one.code).collect();
        let code = codes::UNFULFILLED;
        assert_eq!(ids, [codes::OVERLAP, code]);
        assert_style(&told[1]);
        let source = crate::sources::Source { name: String::new(), text: text.clone() };
        let fixed = crate::fixes::apply(&[source], crate::fixes::sure(&told));
        assert!(!fixed[&FileId(0)].contains("@expect"), "{fixed:?}");
    }
    // Rules have their own.
    let text = "package p\npolicy q { on ingress\n@expect GOV4106 \"last by design\" pass r { }\npass s { } }";
    let told = said(text);
    assert_eq!(told.len(), 1, "{told:#?}");
    assert_eq!((told[0].code, text_at(&[text], &told[0], 0)), (codes::PASS_IN_LAST_TIER, "s"));
    // Behind an error, warnings may be missing.
    let text = format!("package p\n{expected}\nlet b = 1\nlet c = 70000");
    assert_eq!(said(&text).len(), 1);
}

#[test]
fn exceptions_without_effect() {
    let code = codes::NO_EXCEPTION;
    let texts = ["package p\nlet a = 10.0.0.0/8 except 10.1.0.0/16, 11.0.0.0/8"];
    assert_told(&texts, code, "11.0.0.0/8", &["`11.0.0.0/8` takes nothing out"]);
    assert_told(&["package p\nlet a = 80 except 81"], code, "81", &[]);
    let texts = rule("from acme.payments.** except acme.guest");
    assert_told(&texts, code, "acme.guest", &["`acme.guest` takes nothing out"]);
    assert_told(&rule("operation ledger.* except web.*"), code, "web.*", &["`web.*`"]);
}

#[test]
fn deprecated_names() {
    let code = codes::DEPRECATED;
    let owner = "package a\n@deprecated \"use t\"\nlet s = 10.0.0.0/8\nlet t = 10.0.0.0/8\n\
                 domain d = 3 { level { l } }\nscope d { e  @deprecated \"use e\" f { g } }\n\
                 operation o { @deprecated \"use w\" r  w }";
    assert_good(&[owner]);
    for (clause, at, instead) in [
        ("source s", "s", "use t"),
        ("from d.f.**", "f", "use e"),
        ("from d.f.g", "f", "use e"),
        ("operation o.r", "r", "use w"),
    ] {
        let user = format!("package b\nuse a\npolicy q {{ on ingress\ndeny x {{ {clause} }} }}");
        assert_told(&[owner, &user], code, at, &["is deprecated", instead]);
    }
    assert_good(&[
        owner,
        "package b\nuse a\npolicy q { on ingress\ndeny x { from d.e operation o.w source t } }",
    ]);
}

#[test]
fn private_names_that_nothing_uses() {
    let code = codes::UNUSED;
    assert_told(&["package a\nprivate let s = 80"], code, "s", &["set `s` is never used"]);
    let texts = ["package a\ndomain d = 3 { level { l } }\nprivate operation o { r  w }\n\
                  policy q { on ingress deny x { operation o.r } }"];
    assert_told(&texts, code, "w", &["operation `o.w` is never used"]);
}

#[test]
fn tests_that_try_nothing() {
    let texts = with_vocabulary("test \"guests\" { }");
    assert_told(&texts, codes::EMPTY_TEST, "\"guests\"", &["test `guests` has no packets"]);
    // What it tries may be what could not be read.
    let text = "package a\ntest \"t\" { packet { } expct deny }";
    let (file, syntax) = govc_grammar::parse(FileId(0), text);
    let checked = crate::check::check_parsed(&[(FileId(0), file)], syntax, &Locks::default());
    assert!(checked.diagnostics.iter().all(|one| one.code != codes::EMPTY_TEST));
}

#[test]
fn marks_of_a_template_are_not_about_its_parameters() {
    for (mark, code) in
        [("@deprecated \"use u\"", codes::DEPRECATED), ("private", codes::PRIVATE_NAME)]
    {
        let owner = format!(
            "package a\n{mark} template t(who, over) {{ source who  proto tcp port over }}\n\
             policy own {{ on ingress\ndeny a {{ like t(who = 10.0.0.0/8  over = 80) }} }}"
        );
        let user = "package b\nuse a\npolicy q { on ingress\ndeny b { like t(who = 10.0.0.0/8  over = 80) } }";
        let told = run(&[&owner, user], &Locks::default()).diagnostics;
        assert!(told.iter().all(|one| one.code == code), "{told:#?}");
        assert!(told.iter().all(|one| one.message.starts_with("template `t`")), "{told:#?}");
        // Whoever uses it is told, and who keeps it to himself uses it freely.
        assert_eq!(told.len(), if mark == "private" { 1 } else { 2 }, "{told:#?}");
    }
    assert_told(
        &["package a\nprivate template t(who) { source who }"],
        codes::UNUSED,
        "t",
        &["template `t` is never used"],
    );
    let unused = "package a\n@deprecated \"use good\" template t(who, over) { source who  proto tcp port over }";
    assert_good(&[unused]);
}

#[test]
fn warnings_about_syntax_leave_the_others() {
    let text = "package a\nlet s = 80, 80 /// trailing";
    let (file, syntax) = govc_grammar::parse(FileId(0), text);
    let checked = crate::check::check_parsed(&[(FileId(0), file)], syntax, &Locks::default());
    let codes: Vec<_> = checked.diagnostics.iter().map(|told| told.code.id).collect();
    assert_eq!(codes, ["GOV0040", codes::OVERLAP.id]);
    assert!(checked.policy.is_some());
}

#[test]
fn names_of_vocabularies_that_nothing_uses() {
    let code = codes::UNUSED_HERE;
    let vocabulary = "package v\ndomain d = 3 { level { low < mid < high }  compartments { one, two, three } }\n\
        scope d { a at low in {one}  b at low }\nconstraint kept, lost\n\
        operation books { read write }  stock { count }  mail { send }\nresidency eu = {de}  us = {us}\n\
        route main, side\nzone lan = interface \"a\"  vpn = interface \"w\" encrypted  dmz = interface \"d\"\n\
        tier first, default, last\nlet inner = 10.0.0.0/8  outer = inner  port = 80\n\
        template t { source outer }\ntemplate u { where residency within eu }";
    let policy = "package p\nuse v\nlet own = 10.0.0.0/8\npolicy q { on ingress  tier first\n\
        deny r { operation books.write, stock.*  where constraints has kept, compartments includes two  like u }\n}\n\
        test \"x\" { packet { from d.a  operation mail.send  route main } expect deny }";
    let found = |texts: &[&str], files: std::ops::Range<u32>| {
        let trees: Vec<_> = (0..)
            .zip(texts)
            .map(|(id, text)| (FileId(id), govc_grammar::parse(FileId(id), text).0))
            .collect();
        let (checked, index) =
            crate::check::check_parsed_indexed(&trees, Vec::new(), &Locks::default());
        let asked = |file: FileId| files.contains(&file.0);
        let found = crate::unused::unused(&index, &checked.diagnostics, asked);
        assert!(found.iter().all(|one| one.code == code), "{found:?}");
        let names = found.iter().map(|one| text_at(texts, one, 0).to_owned());
        (checked, names.collect::<Vec<_>>())
    };
    let (checked, names) = found(&[vocabulary, policy], 0..2);
    // The set of the policy's own file is warned about.
    let told: Vec<_> = checked.diagnostics.iter().map(|one| one.message.as_str()).collect();
    assert_eq!(told, ["set `own` is never used"]);
    assert_eq!(
        names,
        ["three", "lost", "read", "us", "side", "lan", "dmz", "default", "last", "port", "t"]
    );
    assert_eq!(found(&[vocabulary, policy], 1..2).1, [""; 0]);
    let all = format!("{policy}\nassert a {{ never permit operation d.** source inner }}");
    let (_, names) = found(&[vocabulary, &all], 0..1);
    assert!(!names.contains(&"read".to_owned()), "{names:?}");
}
