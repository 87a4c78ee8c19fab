//! Correct texts and the trees that they become.

use std::net::IpAddr;

use govc_grammar::ast::{
    Action, Attribute, ClauseKind, Condition, ConditionKind, Covered, File, FromItem, Hook, Item,
    LabelField, MarkKind, Name, Operator, PacketField, Path, ProtoKind, Reach, SetMember,
    StampCondition, TranslateKind, Value,
};
use govc_grammar::span::FileId;
use govc_grammar::{Token, parse, tokens};

const EVERYTHING: &str = include_str!("data/everything.gov");

fn accept(source: &str) -> File {
    let (file, diagnostics) = parse(FileId(0), source);
    let messages: Vec<_> = diagnostics.iter().map(|d| (&d.message, d.span())).collect();
    assert!(messages.is_empty(), "{messages:?} in {source}");
    file
}

fn texts(names: &[Name]) -> Vec<&str> {
    names.iter().map(|name| name.text.as_str()).collect()
}

fn dotted(path: &Path) -> String {
    texts(&path.segments).join(".")
}

/// A condition with all its parentheses.
fn spelt(condition: &Condition) -> String {
    match &condition.kind {
        ConditionKind::And(left, right) => format!("({} and {})", spelt(left), spelt(right)),
        ConditionKind::Or(left, right) => format!("({} or {})", spelt(left), spelt(right)),
        ConditionKind::Not(inner) => format!("not {}", spelt(inner)),
        ConditionKind::Test { attribute, operator, value, .. } => match value {
            Value::Path(path) => format!("{attribute:?} {operator:?} {}", dotted(path)),
            Value::Set(names, _) => format!("{attribute:?} {operator:?} {:?}", texts(names)),
        },
        ConditionKind::Error => "error".to_owned(),
    }
}

#[test]
fn every_construct_is_accepted() {
    let file = accept(EVERYTHING);
    assert_eq!(file.package.as_ref().map(dotted).as_deref(), Some("acme.payments"));
    assert_eq!(file.items.len(), 27);
    assert!(!file.items.iter().any(|item| matches!(item, Item::Error(_))));
    let uses = file.items.iter().filter_map(|item| match item {
        Item::Use(path) => Some(dotted(path)),
        _ => None,
    });
    assert_eq!(uses.collect::<Vec<_>>(), ["acme.vocabulary", "other.policy.test.use"]);
}

#[test]
fn vocabulary() {
    let file = accept(EVERYTHING);
    let Item::Domain(domain) = &file.items[2] else { panic!() };
    assert_eq!(domain.number.value, 7);
    assert_eq!(texts(&domain.levels), ["public", "internal", "confidential", "secret"]);
    assert_eq!(texts(&domain.compartments), ["finance", "audit", "legacy"]);
    let Item::Domain(partner) = &file.items[3] else { panic!() };
    assert_eq!((partner.number.value, partner.levels.len()), (16, 0));

    let Item::Scope(root) = &file.items[5] else { panic!() };
    let names: Vec<_> = root.entries.iter().map(|entry| entry.name.text.as_str()).collect();
    let words = ["test", "dev", "default", "level", "tcp", "port", "log", "source", "port"];
    assert_eq!(names[..5], ["web", "payments", "audit", "guest", "cluster"]);
    assert_eq!(names[5..14], words);
    let payments = &root.entries[1];
    assert_eq!(payments.level.as_ref().unwrap().text, "confidential");
    assert_eq!(texts(payments.compartments.as_ref().unwrap()), ["finance"]);
    assert_eq!(payments.children[2].count.unwrap().value, 64);
    assert_eq!(root.entries[3].compartments, Some(vec![]));

    let Item::Operation(groups) = &file.items[7] else { panic!() };
    assert_eq!(texts(&groups[1].operations), ["get", "post"]);
    assert_eq!(texts(&groups[2].operations), ["test", "use"]);
    let Item::Residency(residencies) = &file.items[8] else { panic!() };
    assert_eq!(texts(residencies[0].jurisdictions.as_ref().unwrap()), ["de", "fr", "nl"]);
    assert!(residencies[2].jurisdictions.is_none());
    let Item::Zone(zones) = &file.items[10] else { panic!() };
    assert_eq!(zones[1].interfaces[1].text, "eth2");
    assert_eq!(zones.iter().map(|z| z.encrypted).collect::<Vec<_>>(), [false, false, true]);
    let Item::Tier(tiers) = &file.items[11] else { panic!() };
    assert_eq!(tiers.iter().map(|t| t.ordered).collect::<Vec<_>>(), [false, false, true, true]);
}

#[test]
fn sets() {
    let file = accept(EVERYTHING);
    let Item::Let(lets) = &file.items[12] else { panic!() };
    let SetMember::Prefix(prefix) = &lets[0].set.members[0] else { panic!() };
    assert_eq!((prefix.address, prefix.length), (IpAddr::from([10, 20, 0, 0]), Some(16)));
    let SetMember::Prefix(prefix) = &lets[0].set.members[1] else { panic!() };
    assert_eq!((prefix.address, prefix.length), ("2001:db8:20::".parse().unwrap(), Some(48)));
    let SetMember::Prefix(prefix) = &lets[0].set.members[2] else { panic!() };
    assert_eq!(prefix.length, None);
    assert!(matches!(&lets[0].set.members[3], SetMember::Name(name) if name.text == "home"));
    assert!(
        matches!(lets[1].set.members[2], SetMember::Range(a, b) if (a.value, b.value) == (8000, 8099))
    );
}

#[test]
fn sets_and_selections_are_narrowed() {
    let file = accept(EVERYTHING);
    let Item::Let(lets) = &file.items[14] else { panic!() };
    let names: Vec<_> = lets.iter().map(|set| set.name.text.as_str()).collect();
    assert_eq!(names, ["inside", "except", "within", "to"], "the words stay names");
    let shape = |at: usize| {
        let set = &lets[at].set;
        let narrowed = set.narrowed.as_ref().map(|by| (by.within.len(), by.except.len()));
        (set.members.len(), narrowed)
    };
    assert_eq!(shape(0), (2, Some((2, 2))));
    assert_eq!(shape(1), (1, Some((0, 1))));
    assert_eq!(shape(3), (1, None));
    let Item::Policy(policy) = &file.items[20] else { panic!() };
    assert_eq!(policy.hooks[2].to.except.len(), 1);
    let clauses = &policy.rules[2].clauses;
    let ClauseKind::From(from) = &clauses[0].kind else { panic!() };
    assert_eq!((from.list.len(), from.except.len()), (1, 2));
    let ClauseKind::Operation(operations) = &clauses[2].kind else { panic!() };
    assert_eq!(dotted(&operations.except[1].path), "except.within");
    let ClauseKind::Source(set) = &clauses[4].kind else { panic!() };
    assert_eq!(set.all().count(), 3);
}

#[test]
fn labels() {
    let file = accept(EVERYTHING);
    let Item::Stamp(stamp) = &file.items[16] else { panic!() };
    assert!(
        matches!(&stamp.conditions[0], StampCondition::Cgroup(t) if t.text == "/kube.slice/\"api\"*")
    );
    assert!(matches!(&stamp.conditions[1], StampCondition::Address(a) if a.members.len() == 2));
    assert!(matches!(&stamp.conditions[2], StampCondition::FromZone(zone) if zone.text == "wan"));
    assert_eq!(stamp.fields.len(), 9);
    assert!(matches!(&stamp.fields[0], LabelField::Subject(p) if p.index.unwrap().value == 3));
    assert!(matches!(&stamp.fields[8], LabelField::Life(life) if life.value == 2));
    let Item::Deliver(deliver) = &file.items[17] else { panic!() };
    assert_eq!((deliver.object.reach, &deliver.addresses), (Reach::Tree, &None));
    let Item::Legacy(legacy) = &file.items[19] else { panic!() };
    assert_eq!((legacy.addresses.members.len(), legacy.fields.len()), (2, 2));
    let Some(Item::Carriage(carriage)) = file.items.last() else { panic!() };
    assert_eq!((carriage.kind.text.as_str(), carriage.addresses.members.len()), ("tunnel", 2));
    assert_eq!(carriage.zone.text, "wan");
}

#[test]
fn policy() {
    let file = accept(EVERYTHING);
    let Item::Policy(policy) = &file.items[20] else { panic!() };
    assert_eq!(
        policy.hooks.iter().map(|h| h.hook).collect::<Vec<_>>(),
        [Hook::Ingress, Hook::Egress, Hook::Forward]
    );
    assert_eq!(policy.hooks[0].to.list[1].reach, Reach::Children);
    assert_eq!(policy.tier.as_ref().unwrap().text, "baseline");
    let rules: Vec<_> =
        policy.rules.iter().map(|r| (r.name.text.as_str(), r.action, r.observe)).collect();
    assert_eq!(
        rules,
        [
            ("read", Action::Permit, false),
            ("strangers", Action::Deny, true),
            ("others", Action::Deny, false),
            ("on", Action::Pass, false),
            ("tier_like", Action::Permit, false),
        ]
    );
    let read = &policy.rules[0];
    assert_eq!(read.description.as_ref().unwrap().text, "the API reads \\ balances");
    assert_eq!(read.clauses.len(), 10);
    let ClauseKind::Proto(proto) = &read.clauses[4].kind else { panic!() };
    assert_eq!(proto.kind, ProtoKind::Tcp);
    assert_eq!(proto.ports.as_ref().unwrap().members.len(), 3);
    assert_eq!(proto.source_ports.as_ref().unwrap().members.len(), 1);
    let ClauseKind::Proto(icmp) = &read.clauses[5].kind else { panic!() };
    assert!(icmp.icmp_types.is_some() && icmp.icmp_codes.is_some());
    assert!(matches!(&read.clauses[7].kind, ClauseKind::Source(set) if set.members.len() == 2));
    let ClauseKind::From(from) = &policy.rules[1].clauses[0].kind else { panic!() };
    assert!(matches!(
        from.list[..],
        [FromItem::Anyone(_), FromItem::Labelled(_), FromItem::Legacy(_), FromItem::Unlabelled(_)]
    ));
    let span = read.span;
    let text = &EVERYTHING[span.start as usize..span.end as usize];
    assert!(text.starts_with("permit read") && text.ends_with("log\n    }"));
}

#[test]
fn conditions() {
    let file = accept(EVERYTHING);
    let Item::Policy(policy) = &file.items[21] else { panic!() };
    assert!(policy.observe);
    let conditions = policy.rules.iter().flat_map(|rule| &rule.clauses);
    let spelt: Vec<_> = conditions
        .flat_map(|clause| match &clause.kind {
            ClauseKind::Where(conditions) => conditions.iter().map(spelt).collect(),
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(
        spelt,
        [
            "(((Level Is public and Level Is b) and (Level IsNot c and Level Below d)) or Level AtMost e)",
            "(not (Level Above f or Compartments Includes [\"finance\", \"audit\"]) and not not Route Is g)",
            "Radius Is h",
            "Operation Is ledger.read",
            "IngressZone Is pods",
            "EgressZone IsNot vpn",
            "(Constraints Includes confidential and not EgressZone Is encrypted)",
            "Residency Is []",
        ]
    );
}

#[test]
fn tests() {
    let file = accept(EVERYTHING);
    let Item::Test(test) = &file.items[23] else { panic!("{:?}", file.items[23]) };
    assert_eq!(test.title.text, "the API reads");
    let [read, stranger, empty] = &test.cases[..] else { panic!() };
    assert_eq!(read.fields.len(), 13);
    assert!(matches!(read.fields[0], PacketField::On(Hook::Ingress, _)));
    assert!(read.permit && !stranger.permit);
    assert_eq!(read.by.as_ref().map(dotted).as_deref(), Some("ledger.read"));
    assert_eq!(stranger.by.as_ref().map(dotted).as_deref(), Some("default"));
    assert_eq!(empty.by, None);
    let span = empty.expect_span;
    assert_eq!(&EVERYTHING[span.start as usize..span.end as usize], "expect deny");
}

#[test]
fn translations() {
    let file = accept(EVERYTHING);
    let translate = file.items.iter().find_map(|item| match item {
        Item::Translate(translate) => Some(translate),
        _ => None,
    });
    let translate = translate.unwrap();
    assert_eq!(texts(&[translate.from.clone(), translate.to.clone()]), ["partner", "acme"]);
    assert_eq!(translate.parts.len(), 17);
    assert_eq!(translate.parts[16].kind, TranslateKind::Readdress);
    let scope = |at: usize| match &translate.parts[at].kind {
        TranslateKind::Scope { from, to } => (dotted(&from.path), dotted(&to.path)),
        other => panic!("{other:?}"),
    };
    assert_eq!(scope(0), ("partner.shop".into(), "acme.guest".into()));
    assert_eq!(scope(1), ("partner.cap.level".into(), "acme.web.drop".into()));
    assert_eq!(scope(2), ("add.radius".into(), "life.route".into()));
    assert!(matches!(&translate.parts[3].kind, TranslateKind::Cap(name) if name.text == "public"));
    let TranslateKind::Level(pairs) = &translate.parts[4].kind else { panic!() };
    assert_eq!((pairs.len(), pairs[1].from.text.as_str()), (2, "level"));
    assert!(matches!(translate.parts[5].kind, TranslateKind::DropCompartments(None)));
    assert!(
        matches!(&translate.parts[6].kind, TranslateKind::DropCompartments(Some(names)) if names.len() == 2)
    );
    let TranslateKind::Operation(pairs) = &translate.parts[11].kind else { panic!() };
    assert_eq!(
        (dotted(&pairs[1].from), dotted(&pairs[1].to)),
        ("deny.on".into(), "web.get".into())
    );
    assert!(matches!(&translate.parts[15].kind, TranslateKind::Life(int) if int.value == 2));
}

/// All words of the language, as the lexer knows them.
const WORDS: &str = "package use domain scope constraint operation residency route zone tier let \
    stamp deliver legacy policy test assert translate authority carriage add address always and anyone \
    at by cap cgroup code compartments constraints deny destination drop egress encrypted expect forward from has \
    icmp icmpv6 in includes ingress interface is labelled level life log max never not object observe on \
    or ordered packet pass permit port proto radius readdress sctp source subject tcp to type udp unless \
    unlabelled when where within";

#[test]
fn every_word_is_a_path_segment_behind_a_dot() {
    for word in WORDS.split_whitespace() {
        let source = format!(
            "package a.{word}\nuse a.{word}.{word}\npolicy p {{ on ingress to a.{word} permit x \
             {{ from a.{word}.*, a.{word} to a.{word} operation a.{word} where operation is \
             a.{word} log }} }}\ntest \"t\" {{ packet {{ from a.{word} to a.{word} }} expect \
             permit by a.{word} }}"
        );
        accept(&source);
    }
}

#[test]
fn every_word_but_item_keywords_is_a_name() {
    for word in WORDS.split_whitespace() {
        let keyword = tokens(word).all(|(token, _)| token.is_keyword());
        if !keyword {
            accept(&format!(
                "package {word}\nuse {word}\ndomain {word} = 1 {{ level {{ {word} }} }}\nscope \
                 {word} {{ x at a }}\nconstraint {word}\noperation {word} {{ {word} }}\n\
                 residency {word} = {{{word}}}\nroute {word}, {word}\ntier {word}\nlet {word} = \
                 {word}\nlet a = 1 {word} = 2\nstamp on {word} {{ level {word} }}\npolicy {word} \
                 {{ tier {word} deny {word} {{ to {word} }} }}\ntest \"t\" {{ packet {{ to {word} }} \
                 expect deny by {word} }}"
            ));
        }
        if !matches!(word, "at" | "in") {
            accept(&format!("package p scope a {{ {word} x at a {word} {{ {word} }} }}"));
        }
        accept(&format!("package p operation a {{ x {word} y, {word} }} residency a = {{{word}}}"));
    }
}

#[test]
fn observe_is_a_name_where_one_belongs() {
    for before in ["use observe", "tier a, observe", "let a = observe", "use a.observe"] {
        let file = accept(&format!("package p\n{before}\npolicy p {{}}"));
        assert!(matches!(&file.items[1], Item::Policy(policy) if !policy.observe), "{before}");
    }
    let file = accept("package p use a.use observe policy p {}");
    assert!(matches!(&file.items[1], Item::Policy(policy) if policy.observe));
}

#[test]
fn layout_does_not_matter() {
    let (words, _) = EVERYTHING.split_at(EVERYTHING.len());
    let without_comments: Vec<_> =
        words.lines().map(|line| line.split("//").next().unwrap()).collect();
    let spread = |with: &str| {
        let source = without_comments.join("\n");
        tokens(&source).map(|(_, range)| &source[range]).collect::<Vec<_>>().join(with)
    };
    let items = accept(EVERYTHING).items.len();
    assert_eq!(accept(&spread("\n")).items.len(), items, "a token per line");
    assert_eq!(accept(&spread(" ")).items.len(), items, "everything on one line");
    assert_eq!(accept(&spread("\r\n// ;\r\n")).items.len(), items, "comments everywhere");
    assert_eq!(accept(&format!("\u{feff}{EVERYTHING}")).items.len(), items, "byte order mark");
}

#[test]
fn tokens_have_kinds_and_places() {
    let source = "package a.** // x\n 10.0.0.0/8 ::1 8000..8099 0x1f \"x\" a-b ~ == =";
    let kinds: Vec<_> = tokens(source).map(|(token, range)| (token, &source[range])).collect();
    assert_eq!(
        kinds,
        [
            (Token::Package, "package"),
            (Token::Word, "a"),
            (Token::DotStarStar, ".**"),
            (Token::Prefix, "10.0.0.0/8"),
            (Token::Prefix, "::1"),
            (Token::Int, "8000"),
            (Token::DotDot, ".."),
            (Token::Int, "8099"),
            (Token::Int, "0x1f"),
            (Token::Text, "\"x\""),
            (Token::Word, "a-b"),
            (Token::Unknown, "~"),
            (Token::EqualEqual, "=="),
            (Token::Equal, "="),
        ]
    );
    assert_eq!(Token::Package.to_string(), "word");
}

#[test]
fn operators_mean_the_same_in_both_spellings() {
    let file = accept("package p policy a { deny b { where level is x, level has x } }");
    let Item::Policy(policy) = &file.items[0] else { panic!() };
    let ClauseKind::Where(conditions) = &policy.rules[0].clauses[0].kind else { panic!() };
    let operators: Vec<_> = conditions
        .iter()
        .map(|condition| match &condition.kind {
            ConditionKind::Test { attribute: Attribute::Level, operator, .. } => *operator,
            _ => panic!(),
        })
        .collect();
    assert_eq!(operators, [Operator::Is, Operator::Includes]);
}

#[test]
fn assertions() {
    let file = accept(
        "package a\nassert no_guests \"stay out\" { on ingress on egress never permit from g.** to l \
         unless where level >= high unless proto tcp source port 1..9 }\n\
         assert unless { always permit }",
    );
    let [Item::Assert(first), Item::Assert(second)] = file.items.as_slice() else {
        panic!("{:#?}", file.items);
    };
    assert_eq!(first.description.as_ref().map(|text| text.text.as_str()), Some("stay out"));
    assert_eq!(
        first.hooks.iter().map(|(hook, _)| *hook).collect::<Vec<_>>(),
        [Hook::Ingress, Hook::Egress]
    );
    assert_eq!((first.always, first.clauses.len(), first.unless.len()), (false, 2, 2));
    assert!(second.always && second.hooks.is_empty() && second.clauses.is_empty());
    assert_eq!(second.name.text, "unless");
}

#[test]
fn marks_belong_to_what_stands_behind_them() {
    let file = accept(EVERYTHING);
    assert!(file.documentation.unwrap().starts_with("Every construct of the language"));
    let told: Vec<_> = file
        .marks
        .iter()
        .map(|mark| {
            let kind = match &mark.kind {
                MarkKind::Private => "private".to_owned(),
                MarkKind::Deprecated(text) => format!("instead: {}", text.text),
                MarkKind::Documentation(text) => text.to_string(),
            };
            let covers = &EVERYTHING[mark.covers.start as usize..mark.covers.end as usize];
            (kind, mark.covered, covers.split([' ', '\n']).next().unwrap())
        })
        .collect();
    let told: Vec<_> = told.iter().map(|(kind, at, first)| (kind.as_str(), *at, *first)).collect();
    assert_eq!(
        told,
        [
            ("Who is not known.", Covered::Entry, "guest"),
            ("instead: use web", Covered::Entry, "guest"),
            ("Obligations,\nin two lines.", Covered::Item, "constraint"),
            ("instead: use the new ones", Covered::Item, "constraint"),
            ("private", Covered::Item, "let"),
            ("Reads only.", Covered::Rule, "permit"),
        ]
    );
}

#[test]
fn private_is_a_name_where_one_belongs() {
    let names = ["constraint private", "let a = private", "use a.private", "tier b, private"];
    for before in names {
        let file = accept(&format!("package p\n{before}\nlet b = 1"));
        assert!(file.marks.is_empty(), "{before}");
    }
    let file = accept("package p let private = 1 private let b = 2 scope d { private }");
    assert_eq!(file.marks.len(), 1);
}
