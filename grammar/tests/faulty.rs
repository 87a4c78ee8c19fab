//! Faulty texts: which diagnostics, at which places, and what is left of the tree.

use govc_grammar::ast::{File, Item, Rule};
use govc_grammar::diagnostic::{Applicability, Code, Diagnostic, Severity};
use govc_grammar::span::FileId;
use govc_grammar::{DIAGNOSTICS_MAX, FILE_BYTES_MAX, NESTING_MAX, codes, parse};

fn read(source: &str) -> (File, Vec<Diagnostic>) {
    let (file, diagnostics) = parse(FileId(3), source);
    for diagnostic in &diagnostics {
        check_style(diagnostic);
        for label in &diagnostic.labels {
            assert_eq!(label.span.file, FileId(3));
            let range = label.span.start as usize..label.span.end as usize;
            assert!(source.get(range).is_some(), "{diagnostic:?}");
        }
    }
    (file, diagnostics)
}

/// Lower case, no full stop, and always advice.
fn check_style(diagnostic: &Diagnostic) {
    let message = &diagnostic.message;
    assert!(!message.starts_with(char::is_uppercase), "{message}");
    assert!(!message.ends_with('.'), "{message}");
    assert!(diagnostic.help.as_ref().is_some_and(|help| !help.ends_with('.')), "{message}");
    assert!(codes::ALL.contains(&diagnostic.code), "{message}");
}

fn at<'s>(source: &'s str, diagnostic: &Diagnostic) -> &'s str {
    let place = diagnostic.span().map(|span| span.start as usize..span.end as usize);
    place.and_then(|range| source.get(range)).unwrap_or("no place")
}

/// Checks that a text has exactly these mistakes at exactly these places.
fn faults(source: &str, expected: &[(Code, &str)]) -> (File, Vec<Diagnostic>) {
    let (file, diagnostics) = read(source);
    let found: Vec<_> = diagnostics.iter().map(|d| (d.code, at(source, d))).collect();
    let messages: Vec<_> = diagnostics.iter().map(|d| &d.message).collect();
    assert_eq!(found, expected, "{messages:#?} in\n{source}");
    (file, diagnostics)
}

/// The same for the inside of a rule, with the message.
fn rule_fault(clauses: &str, code: Code, place: &str, message: &str) {
    let source = format!(
        "package p\npolicy a {{\n  permit x {{\n    from before\n    {clauses}\n    to behind\n  }}\n  \
         deny y {{ log }}\n}}\nlet z = 1\n"
    );
    let (file, diagnostics) = faults(&source, &[(code, place)]);
    assert_eq!(diagnostics.iter().map(|d| d.message.as_str()).collect::<Vec<_>>(), [message]);
    let rules = rules(&file);
    assert_eq!(rules.len(), 2, "the next rule is not lost");
    assert!(
        rules.iter().any(|rule| rule.clauses.len() >= 2),
        "the clauses around are not lost: {source}"
    );
    assert!(matches!(file.items.last(), Some(Item::Let(_))), "the next item is not lost");
}

/// The same for an item, behind which another one stands.
fn item_fault(item: &str, code: Code, place: &str, message: &str) {
    let source = format!("package p\nlet y = 1\n{item}\nlet z = 1\n");
    let (file, diagnostics) = faults(&source, &[(code, place)]);
    assert_eq!(diagnostics.iter().map(|d| d.message.as_str()).collect::<Vec<_>>(), [message]);
    assert!(file.items.len() >= 2, "{source}");
    assert!(matches!(file.items.last(), Some(Item::Let(_))), "the next item is not lost");
}

fn rules(file: &File) -> Vec<&Rule> {
    let policies = file.items.iter().filter_map(|item| match item {
        Item::Policy(policy) => Some(policy),
        _ => None,
    });
    policies.flat_map(|policy| &policy.rules).collect()
}

#[test]
fn lexical_errors() {
    for (text, code, place) in [
        ("let a = 1 ~", codes::UNKNOWN_CHARACTER, "~"),
        ("let a = €€€ 1", codes::UNKNOWN_CHARACTER, "€"),
        ("let a: = 1", codes::UNKNOWN_CHARACTER, ":"),
        ("let a =\u{a0}1", codes::UNKNOWN_CHARACTER, "\u{a0}"),
        ("let a = 18446744073709551616", codes::BAD_NUMBER, "18446744073709551616"),
        ("let a = 0xfg", codes::BAD_NUMBER, "0xfg"),
        ("let a = 80-90", codes::BAD_NUMBER, "80-90"),
        ("let a = 3com", codes::BAD_NAME, "3com"),
        ("let zürich = 1", codes::BAD_NAME, "zürich"),
        ("let a--b = 1", codes::BAD_NAME, "a--b"),
        ("let a = 10.0.0.0/333", codes::BAD_ADDRESS, "10.0.0.0/333"),
        ("let a = 10.0.0", codes::BAD_ADDRESS, "10.0.0"),
        ("let a = 10/8", codes::BAD_ADDRESS, "10/8"),
        ("let a = 2001:db8:::1", codes::BAD_ADDRESS, "2001:db8:::1"),
        ("let a = ::1/x", codes::BAD_ADDRESS, "::1/x"),
        ("let a = fe80::1%eth0", codes::BAD_ADDRESS, "fe80::1%eth0"),
        ("zone a = interface \"eth0", codes::UNTERMINATED_TEXT, "\"eth0"),
        ("zone a = interface \"e\\th\\0\"", codes::BAD_ESCAPE, "\\0"),
        ("zone a = interface 'eth0'", codes::WRONG_QUOTES, "'eth0'"),
        ("zone a = interface “eth0”", codes::WRONG_QUOTES, "“eth0”"),
        ("zone a = interface 'eth0", codes::WRONG_QUOTES, "'"),
        ("let a = :1 b = 2", codes::UNKNOWN_CHARACTER, ":"),
        ("let a = 1 # office", codes::FOREIGN_COMMENT, "# office"),
        ("let /* b\n */ a = 1", codes::FOREIGN_COMMENT, "/* b\n */"),
        ("let a = 1;", codes::SEMICOLON, ";"),
    ] {
        let (file, _) = faults(&format!("package p\n{text}\nlet z = 1\n"), &[(code, place)]);
        assert!(matches!(file.items.last(), Some(Item::Let(_))));
    }
}

#[test]
fn operators_of_other_languages() {
    for (clause, place) in [
        ("where level is a && radius is b", "&&"),
        ("where level is a || radius is b", "||"),
        ("where level is a | radius is b", "|"),
        ("where !(level is a)", "!"),
        ("where level => a", "=>"),
        ("where level <> a", "<>"),
    ] {
        let source = format!("package p policy a {{ permit x {{ {clause} }} }}");
        let (file, _) = faults(&source, &[(codes::FOREIGN_OPERATOR, place)]);
        assert_eq!(rules(&file)[0].clauses.len(), 1);
    }
    for (clause, place, words) in [
        ("from !b", "!", "`!` is written `except` in a list"),
        ("from a, !b", "!", "`!` is written `except` in a list"),
        ("from a && b", "&&", "`&&` is written `,` in a list"),
        ("proto tcp port 80 || 443", "||", "`||` is written `,` in a list"),
        ("where level is a, operation is b, !(level is c)", "!", "`!` is written `not` here"),
    ] {
        let source = format!("package p policy a {{ permit x {{ to b {clause} }} }}");
        let (_, told) = faults(&source, &[(codes::FOREIGN_OPERATOR, place)]);
        assert_eq!(told[0].message, words, "{clause}");
        let sure =
            told[0].fixes.iter().any(|f| f.applicability == Applicability::MachineApplicable);
        assert_eq!(sure, words.contains("not"), "{clause}");
    }
    let source = "package p policy a { permit x { where level = b } }";
    let (file, _) = faults(source, &[(codes::ASSIGNMENT_IN_CONDITION, "=")]);
    assert_eq!(rules(&file)[0].clauses.len(), 1);
}

/// Clause, code, place, message.
const WRONG_CLAUSES: &[(&str, Code, &str, &str)] = &[
    ("form b", codes::UNKNOWN_KEYWORD, "form", "unknown keyword `form`"),
    ("From b", codes::UNKNOWN_KEYWORD, "From", "unknown keyword `From`"),
    ("from a b", codes::MISSING_COMMA, "b", "missing `,` between `a` and `b`"),
    ("where compartments has {a b}", codes::MISSING_COMMA, "b", "missing `,` between `a` and `b`"),
    (
        "where level is a residency is b",
        codes::MISSING_COMMA,
        "residency",
        "missing `,` between `a` and `residency`",
    ),
    ("from a and b", codes::UNEXPECTED, "and", "`and` belongs to conditions, and this is a list"),
    ("from a or b.**", codes::UNEXPECTED, "or", "`or` belongs to conditions, and this is a list"),
    (
        "proto tcp port 80 and 443",
        codes::UNEXPECTED,
        "and",
        "`and` belongs to conditions, and this is a list",
    ),
    ("from not a", codes::UNEXPECTED, "not", "`not` belongs to conditions, and this is a list"),
    ("from a, not b", codes::UNEXPECTED, "not", "`not` belongs to conditions, and this is a list"),
    ("from a,", codes::UNEXPECTED, ",", "expected a name after `,`"),
    ("from", codes::UNEXPECTED, "from", "expected a name after `from`"),
    ("from a, to b", codes::UNEXPECTED, ",", "no `,` stands before the clause `to`"),
    ("from tier", codes::KEYWORD_AS_NAME, "tier", "`tier` is a keyword and cannot be a name here"),
    (
        "from zone pods",
        codes::KEYWORD_AS_NAME,
        "zone",
        "`zone` is a keyword and cannot be a name here",
    ),
    ("port 443", codes::PORT_WITHOUT_PROTO, "port", "ports belong to a protocol"),
    ("source port 443", codes::PORT_WITHOUT_PROTO, "source", "ports belong to a protocol"),
    ("tcp port 443", codes::PORT_WITHOUT_PROTO, "tcp", "`tcp` stands without `proto`"),
    ("proto tcp prot 443", codes::UNKNOWN_KEYWORD, "prot", "unknown keyword `prot`"),
    ("where (level is a", codes::UNCLOSED, "(", "this parenthesis is never closed"),
    (
        "where level",
        codes::UNEXPECTED,
        "level",
        "expected a comparison (`is`, `!=`, `<`, `<=`, `>`, `>=`, `within` or `includes`) after \
             `level`",
    ),
    ("where level is", codes::UNEXPECTED, "is", "expected a name or `{` after `is`"),
    ("where level is not b", codes::UNEXPECTED, "not", "expected a name or `{`, found `not`"),
    (
        "where zone is a",
        codes::UNEXPECTED,
        "zone",
        "expected a condition (such as `level >= internal`), found `zone`",
    ),
    (
        "mirror",
        codes::UNEXPECTED,
        "mirror",
        "expected a clause (`from`, `to`, `operation`, `where`, `proto`, `source`, \
             `destination`, `log` and so on), found `mirror`",
    ),
    ("from a.*.b", codes::UNEXPECTED, ".", "expected `,` or the next clause, found `.`"),
    (
        "destination 10.0.0.1..10.0.0.9",
        codes::UNEXPECTED,
        "..",
        "expected `,` or the next clause, found `..`",
    ),
    ("from \"a\"", codes::UNEXPECTED, "\"a\"", "expected a name, found the text `\"a\"`"),
];

#[test]
fn wrong_clauses_cost_one_diagnostic_each() {
    for (clause, code, place, message) in WRONG_CLAUSES {
        rule_fault(clause, *code, place, message);
    }
}

#[test]
fn wrong_rules_cost_one_diagnostic_each() {
    for (rule, code, place) in [
        ("allow x { from a }", codes::FOREIGN_ACTION, "allow"),
        ("observe drop x { from a }", codes::FOREIGN_ACTION, "drop"),
        ("pemrit x { from a }", codes::UNKNOWN_KEYWORD, "pemrit"),
        ("permit { from a }", codes::UNNAMED_RULE, "permit"),
        ("permit \"why\" { from a }", codes::UNNAMED_RULE, "permit"),
        ("permit use { from a }", codes::KEYWORD_AS_NAME, "use"),
        ("permit x y { from a }", codes::UNEXPECTED, "y"),
        ("rule x { from a }", codes::UNEXPECTED, "rule"),
        ("permit x", codes::UNEXPECTED, "x"),
        ("on igress", codes::UNKNOWN_KEYWORD, "igress"),
        ("on ingress, egress", codes::UNEXPECTED, ","),
        ("tier", codes::UNEXPECTED, "tier"),
    ] {
        let source = format!(
            "package p\npolicy a {{\n  deny y {{ log }}\n  {rule}\n  deny z {{ log }}\n}}\nlet b = 1"
        );
        let (file, diagnostics) = read(&source);
        let found: Vec<_> = diagnostics.iter().map(|d| (d.code, at(&source, d))).collect();
        assert_eq!(found, [(code, place)], "{:?} in\n{source}", diagnostics[0].message);
        assert!(rules(&file).iter().any(|rule| rule.name.text == "y"));
        assert!(matches!(file.items.last(), Some(Item::Let(_))), "the next item is not lost");
    }
}

/// Item, code, place, message.
const WRONG_ITEMS: &[(&str, Code, &str, &str)] = &[
    ("polcy a { permit b { from c } }", codes::UNKNOWN_KEYWORD, "polcy", "unknown keyword `polcy`"),
    ("import a.b", codes::UNKNOWN_KEYWORD, "import", "unknown keyword `import`"),
    (
        "policy tier { permit b { from c } }",
        codes::KEYWORD_AS_NAME,
        "tier",
        "`tier` is a keyword and cannot be a name here",
    ),
    (
        "constraint a, zone, c",
        codes::KEYWORD_AS_NAME,
        "zone",
        "`zone` is a keyword and cannot be a name here",
    ),
    (
        "operation a { b }  use { c }",
        codes::KEYWORD_AS_NAME,
        "use",
        "`use` is a keyword and cannot be a name here",
    ),
    (
        "zone test = interface \"a\"",
        codes::KEYWORD_AS_NAME,
        "test",
        "`test` is a keyword and cannot be a name here",
    ),
    ("let a = b c", codes::MISSING_COMMA, "c", "missing `,` between `b` and `c`"),
    (
        "zone a = interface \"b\" \"c\"",
        codes::MISSING_COMMA,
        "\"c\"",
        "missing `,` between `\"b\"` and `\"c\"`",
    ),
    ("let a == 1", codes::UNEXPECTED, "==", "expected `=`, found `==`"),
    ("let a =", codes::UNEXPECTED, "=", "expected an address, a number or a name after `=`"),
    ("constraint a,", codes::UNEXPECTED, ",", "expected a name after `,`"),
    ("scope a { b, c }", codes::UNEXPECTED, ",", "expected a name, `{` or `}`, found `,`"),
    ("use a.*", codes::UNEXPECTED, ".*", "expected the next item, found `.*`"),
    ("use", codes::UNEXPECTED, "use", "expected a name after `use`"),
    (
        "authority root { key a }",
        codes::RESERVED_KEYWORD,
        "authority",
        "`authority` is reserved for a later version",
    ),
    ("permit x { from a }", codes::RULE_OUTSIDE_POLICY, "permit", "a rule stands outside a policy"),
    ("block x { from a }", codes::RULE_OUTSIDE_POLICY, "block", "a rule stands outside a policy"),
    ("stamp on a { subjekt b }", codes::UNKNOWN_KEYWORD, "subjekt", "unknown keyword `subjekt`"),
    (
        "stamp on a when cgroup b { }",
        codes::UNEXPECTED,
        "b",
        "expected a text in double quotes, found `b`",
    ),
    (
        "test \"t\" { packet { from a tcp port 5 } expect deny }",
        codes::PORT_WITHOUT_PROTO,
        "tcp",
        "`tcp` stands without `proto`",
    ),
    (
        "test \"t\" { packet { from a } expect allow }",
        codes::FOREIGN_ACTION,
        "allow",
        "`allow` is no action, `permit` is",
    ),
    ("test \"t\" { packet { from a } }", codes::UNEXPECTED, "}", "expected `expect` after `}`"),
    ("test t { }", codes::UNEXPECTED, "t", "expected a text in double quotes, found `t`"),
];

#[test]
fn wrong_items_cost_one_diagnostic_each() {
    for (item, code, place, message) in WRONG_ITEMS {
        item_fault(item, *code, place, message);
    }
}

#[test]
fn reject_is_no_action() {
    for head in
        ["on ingress\n    reject x {", "on ingress reject x {", "on ingress\nreject x \"w\" {"]
    {
        let source =
            format!("package p\npolicy a {{\n    {head} from b }}\n    permit y {{ }}\n}}");
        let (file, told) = faults(&source, &[(codes::FOREIGN_ACTION, "reject")]);
        assert_eq!(told[0].help.as_deref(), Some("write `deny NAME { reject .. }`"));
        assert_eq!(told[0].fixes[0].edits.len(), 2);
        let Some(Item::Policy(policy)) = file.items.last() else { panic!("{file:?}") };
        assert_eq!((policy.hooks.len(), policy.rules.len(), policy.whole), (1, 2, true));
    }
    // It stays a name, and a clause.
    let source =
        "package p policy a { on ingress permit reject { } deny x { reject } tier reject }";
    faults(source, &[]);
}

#[test]
fn parts_of_policies_that_are_lost_are_remembered() {
    let source = "package p policy a { on ingres permit y { } }";
    let (file, told) = faults(source, &[(codes::UNKNOWN_KEYWORD, "ingres")]);
    assert_eq!(told[0].help.as_deref(), Some("write `ingress`"));
    let Some(Item::Policy(policy)) = file.items.last() else { panic!("{file:?}") };
    assert!(!policy.whole && policy.hooks.is_empty());
}

#[test]
fn clauses_behind_those_of_one_word_are_not_lost() {
    for clause in ["log", "reject", "fragments", "options"] {
        let source = format!(
            "package p policy a {{ deny x {{ from b {clause} operation c.d where level is }} }}"
        );
        let (file, _) = faults(&source, &[(codes::UNEXPECTED, "is")]);
        assert_eq!(rules(&file)[0].clauses.len(), 3, "{clause}");
    }
}

#[test]
fn several_items_on_one_line() {
    let source =
        "package p constraint a b operation x { y } let = 5 zone z = interface \"a\" route";
    faults(
        source,
        &[(codes::MISSING_COMMA, "b"), (codes::UNEXPECTED, "="), (codes::UNEXPECTED, "route")],
    );
}

#[test]
fn package_lines() {
    faults("", &[(codes::MISSING_PACKAGE, "")]);
    faults("// nothing\n", &[(codes::MISSING_PACKAGE, "")]);
    let (file, _) = faults("use a.b", &[(codes::MISSING_PACKAGE, "use")]);
    assert_eq!(file.items.len(), 1);
    let (file, _) = faults("use a.b\npackage c", &[(codes::MISPLACED_PACKAGE, "c")]);
    assert!(file.package.is_some());
    let (file, _) = faults("package a\npackage b.c", &[(codes::MISPLACED_PACKAGE, "b.c")]);
    assert_eq!(file.package.map(|path| path.segments.len()), Some(1));
    faults("package\nuse a", &[(codes::UNEXPECTED, "package")]);
    faults("pakage a\nuse a", &[(codes::UNKNOWN_KEYWORD, "pakage")]);
    faults("package a polcy b {}", &[(codes::UNKNOWN_KEYWORD, "polcy")]);
}

#[test]
fn an_unclosed_policy_does_not_swallow_the_next() {
    let source =
        "package p\npolicy a {\n  permit x { from a }\n\npolicy b {\n  deny y { log }\n}\n";
    let (file, diagnostics) = faults(source, &[(codes::UNCLOSED, "{")]);
    assert_eq!(diagnostics[0].span().unwrap().start, 19, "the brace of the first policy");
    assert_eq!(file.items.len(), 2);
    assert_eq!(rules(&file).len(), 2);
}

#[test]
fn an_unclosed_rule_does_not_swallow_the_next() {
    let source =
        "package p\npolicy a {\n  permit x {\n    from a\n  deny y { log }\n}\nlet b = 1\n";
    let (file, diagnostics) = faults(source, &[(codes::UNCLOSED, "{")]);
    assert_eq!(diagnostics[0].span().unwrap().start, 32, "the brace of the first rule");
    assert_eq!(diagnostics[0].labels.len(), 2);
    assert_eq!(rules(&file).len(), 2);
    assert_eq!(file.items.len(), 2);
}

#[test]
fn indentation_tells_which_brace_is_unclosed() {
    let source = "package p\npolicy a {\n  permit x {\n    from a\n}\npolicy b {\n}\n";
    let (file, diagnostics) = faults(source, &[(codes::UNCLOSED, "{")]);
    assert_eq!(diagnostics[0].span().unwrap().start, 32, "the brace of the rule");
    assert_eq!(file.items.len(), 2);
    let source = "package p\nscope a {\n  b {\n    c\n\n  d\n}\n\nlegacy from b on c { }\n";
    let (file, _) = faults(source, &[(codes::UNCLOSED, "{")]);
    assert!(matches!(file.items[..], [Item::Scope(_), Item::Legacy(_)]));
}

#[test]
fn braces_that_close_nothing() {
    let source = "package p\npolicy a { permit x { log } } }\npolicy b { }\n";
    let (file, _) = faults(source, &[(codes::UNOPENED, "}")]);
    assert_eq!(file.items.len(), 2);
    let source =
        "package p\npolicy a { permit x { log } } permit y { log } permit z { log } }\nlet a = 1";
    let (file, _) = faults(source, &[(codes::RULE_OUTSIDE_POLICY, "permit")]);
    assert!(matches!(file.items.last(), Some(Item::Let(_))));
}

#[test]
fn nesting_is_bounded() {
    let nested = |count: usize, open: &str, close: &str| {
        let (opens, closes) = (open.repeat(count), close.repeat(count));
        format!(
            "package p policy a {{ permit b {{ where {opens} level is c {closes} }} }} let x = 1"
        )
    };
    for (open, close) in [("(", ")"), ("not ", ""), ("not (", ")")] {
        let step = open.matches(['n', '(']).count();
        let free = (NESTING_MAX - 2) / step;
        faults(&nested(free, open, close), &[]);
        for count in [free + 1, 100_000] {
            let source = nested(count, open, close);
            let (file, diagnostics) = read(&source);
            assert_eq!(diagnostics.len(), 1);
            assert_eq!(diagnostics[0].code, codes::NESTED_TOO_DEEP);
            assert!(matches!(file.items[..], [Item::Error(_), Item::Let(_)]));
        }
    }
    let scope = |count| format!("package p scope a {}{}", "{ b ".repeat(count), "}".repeat(count));
    faults(&scope(NESTING_MAX), &[]);
    faults(&scope(NESTING_MAX + 1), &[(codes::NESTED_TOO_DEEP, "{")]);
    assert!(!read(&scope(100_000)).1.is_empty());
    for bomb in
        ["(", "{", "not ", "[", "policy a {", "policy a { permit b { where (", "scope a { b"]
    {
        assert!(!read(&bomb.repeat(100_000)).1.is_empty());
    }
}

#[test]
fn long_chains_are_no_deep_trees() {
    for word in ["and", "or"] {
        let chain = format!("level is a {word} ").repeat(100_000);
        faults(&format!("package p policy a {{ permit b {{ where {chain} level is a }} }}"), &[]);
    }
}

#[test]
fn diagnostics_are_bounded() {
    for text in ["let ", "~ ~", "permit x { } let", "policy a { permit { } }", "scope a {\n", "}"] {
        let (_, diagnostics) = read(&format!("package p\n{}", text.repeat(10_000)));
        assert!(!diagnostics.is_empty() && diagnostics.len() <= DIAGNOSTICS_MAX + 1, "{text}");
        assert!(diagnostics.iter().any(|d| d.severity() == Severity::Error));
    }
    let (_, diagnostics) = read(&format!("package p\n{}", "let\n".repeat(1000)));
    assert_eq!(diagnostics.len(), DIAGNOSTICS_MAX + 1);
    assert_eq!(diagnostics.last().unwrap().code, codes::MORE_ERRORS);
    let rules = "permit { }\n".repeat(1000);
    let (_, diagnostics) = read(&format!("package p policy a {{\n{rules} }}"));
    assert_eq!(diagnostics.last().unwrap().code, codes::MORE_ERRORS);
}

#[test]
fn large_files_are_refused() {
    let (file, diagnostics) = read(&" ".repeat(FILE_BYTES_MAX + 1));
    assert_eq!(diagnostics[0].code, codes::FILE_TOO_LARGE);
    assert!(file.items.is_empty());
}

#[test]
fn codes_are_in_order_and_found() {
    assert!(codes::ALL.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert_eq!(codes::find("gov0001"), Some(codes::UNEXPECTED));
    assert_eq!(codes::find("GOV9999"), None);
}

#[test]
fn marks_without_anything_to_speak_about() {
    let code = codes::MISPLACED_DOCUMENTATION;
    faults("package p\nlet a = 1 /// trailing\nlet b = 2", &[(code, "/// trailing")]);
    faults("package p\nlet a = 1\n//! late\nlet b = 2", &[(code, "//! late")]);
    faults("package p\nlet a = 1\n/// last\n/// of all", &[(code, "/// last\n/// of all")]);
    let inside = "policy a { on ingress\ndeny b {\n/// no clause\nlog } }";
    faults(&format!("package p\n{inside}"), &[(code, "/// no clause")]);
    let code = codes::USELESS_PRIVATE;
    faults("package p\nprivate policy a { }", &[(code, "private")]);
    faults("package p\nprivate observe policy a { }", &[(code, "private")]);
    let code = codes::MISPLACED_DEPRECATION;
    faults("package p\nlet a = 1\n@deprecated \"b\"", &[(code, "@deprecated \"b\"")]);
    let inside = "policy a { @deprecated \"b\" deny b { } }";
    faults(&format!("package p\n{inside}"), &[(code, "@deprecated \"b\"")]);
    faults("package p\n@deprecated\nlet a = 1", &[(codes::UNEXPECTED, "@deprecated")]);
}
