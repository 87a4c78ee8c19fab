//! What the analysis says is compared with the interpreter, on policies that nobody chose.

use govc_abi::{
    attribute::{self, Attribute, Request, scope_key, state},
    event::hook,
    image::{self, program},
    node,
};
use govc_compiler::{
    analysis::{
        self,
        assertions::{self, Outcome},
        diff,
        rules::Finding,
        words,
    },
    checked::{Answer, Assertion, Policy},
    class::value_of,
    interpret,
    table::IntervalSet,
};
use govc_image::{Image, digest_of};
use govc_tests::{
    Compiled, compile,
    policies::{VOCABULARY, random_clauses, random_legacies, random_policy_at},
    random::Random,
    requests::Aim,
};

const HOOKS: [&str; 3] = ["ingress", "egress", "forward"];

fn compiled(text: &str) -> Compiled {
    compile(&[("random.gov", text), ("vocabulary.gov", VOCABULARY)])
}

/// The names of rules with a kind of finding.
fn found(text: &str) -> Vec<String> {
    let text = format!("package acme.t\nuse acme.vocabulary\n{text}");
    let compiled = compiled(&text);
    let report = analysis::analyse(&compiled.policy, &compiled.table, &|_| {});
    let name = |&position: &usize| analysis::rule_name(&compiled.policy, position);
    let told = report.rules.iter().map(|(position, finding)| {
        let list = |by: &[usize]| by.iter().map(name).collect::<Vec<_>>().join(" ");
        match finding {
            Finding::NeverMatches => format!("{} never", name(position)),
            Finding::Shadowed(by) => format!("{} shadowed by {}", name(position), list(by)),
            Finding::Redundant(by) => format!("{} redundant by {}", name(position), list(by)),
            Finding::Idle(others) => format!("{} idle beside {}", name(position), list(others)),
            Finding::Undecided => format!("{} undecided", name(position)),
        }
    });
    told.collect()
}

#[test]
fn findings_name_the_smallest_sets_of_rules() {
    let ingress = |rules: &str| found(&format!("policy p {{ on ingress\n{rules} }}"));
    assert_eq!(ingress("permit a { from acme.web.** }"), [""; 0]);
    assert_eq!(
        ingress("permit a { from acme.web.** } permit b { from acme.web.front }"),
        ["p.b redundant by p.a"]
    );
    assert_eq!(
        ingress(
            "permit a { from acme.web.front } deny b { from acme.** } permit c { from acme.ops.** }"
        ),
        ["p.a shadowed by p.b", "p.c shadowed by p.b"]
    );
    // Neither half alone covers it, and the third has nothing to do with it.
    assert_eq!(
        ingress(
            "deny low { where level < confidential } deny high { where level >= confidential }
             deny web { from acme.web.** proto tcp port 1 } permit all { from acme.** }"
        ),
        ["p.web redundant by p.low p.high", "p.all shadowed by p.low p.high"]
    );
    // What logs is not replaced by what does not.
    assert_eq!(
        ingress("permit a { from acme.web.** } permit b { from acme.web.front log }"),
        ["p.b redundant by p.a"]
    );
    assert_eq!(
        ingress("permit a { from acme.web.front log } permit b { from acme.web.** }"),
        [""; 0]
    );
    assert_eq!(
        ingress("permit a { from acme.web.front } permit b { from acme.web.** }"),
        ["p.a redundant by p.b"]
    );
    // Of twins only one can go.
    assert_eq!(
        ingress(
            "permit a { from acme.guest } permit b { from acme.guest } permit c { from acme.guest }"
        ),
        ["p.b redundant by p.a", "p.c redundant by p.a"]
    );
    // A deny rule that only confirms the default guards against later permits.
    assert_eq!(ingress("deny a { from acme.guest }"), [""; 0]);
    assert_eq!(
        ingress(
            "permit a { source 10.0.0.0/8 destination ::/0 } permit b { proto icmp where not level >= public }"
        ),
        ["p.a never", "p.b never"]
    );
}

#[test]
fn tiers_and_passes_are_followed() {
    assert_eq!(
        found(
            "policy g { on ingress tier guardrails
               pass web { from acme.web.** } deny rest { from acme.ops.** } }
             policy p { on ingress permit web { from acme.web.** } permit ops { from acme.ops.** } }"
        ),
        ["g.web idle beside ", "p.ops shadowed by g.rest"]
    );
    assert_eq!(
        found(
            "policy g { on ingress tier guardrails
               pass web { from acme.web.front } permit some { from acme.web.** } }
             policy p { on ingress deny web { from acme.web.front } }"
        ),
        [""; 0]
    );
    assert_eq!(
        found(
            "policy b { on ingress tier baseline
               permit first { from acme.web.** } deny second { from acme.web.front } }"
        ),
        ["b.second shadowed by b.first"]
    );
}

#[test]
fn rules_found_wanting_decide_nothing_and_can_all_be_removed() {
    let (mut findings, mut requests) = (0, 0);
    for seed in 0..40 {
        let random = &mut Random::new(20_000 + seed);
        let count = *random.pick(&[3, 8, 20, 40]);
        let text = random_policy_at(random, count, &HOOKS);
        let all = compiled(&text);
        let report = analysis::analyse(&all.policy, &all.table, &|_| {});
        assert_eq!(report.undecided(), 0, "seed {seed}");
        let mut rest = text.clone();
        for &(position, _) in report.rules.iter().rev() {
            let span = all.policy.rules()[position].span;
            let mut start = span.start as usize;
            if rest[..start].ends_with("observe ") {
                start -= "observe ".len();
            }
            rest.replace_range(start..span.end as usize, "");
        }
        let rest = compiled(&rest);
        for hook in 0..3 {
            let aim = Aim::new(&all.table, program::INGRESS + hook as u32);
            for _ in 0..300 {
                let request = aim.next(hook, random);
                let Some(request) = as_legacy_rules_say(&all.policy, hook, request) else {
                    continue;
                };
                let decision = interpret::decide(&all.policy, hook, &request);
                for (position, finding) in &report.rules {
                    let decides = decision.rule == Some(*position);
                    let may = matches!(finding, Finding::Redundant(_) | Finding::Idle(_));
                    assert!(!decides || may, "seed {seed}, {position}: {request:?}\n{text}");
                }
                let then = aim.under(rest.policy.times(), &request);
                let without = interpret::decide(&rest.policy, hook, &then);
                assert_eq!(decision.permit, without.permit, "seed {seed}: {request:?}\n{text}");
                requests += 1;
            }
        }
        findings += report.rules.len();
    }
    assert!(findings > 100 && requests > 20_000, "{findings} {requests}");
}

/// Whether an assertion does not hold for a packet, by the interpreter.
fn refutes(compiled: &Compiled, assertion: &Assertion, hook: usize, request: &Request) -> bool {
    interpret::matches(&compiled.policy, &assertion.matches, request)
        && !assertion
            .unless
            .iter()
            .any(|unless| interpret::matches(&compiled.policy, unless, request))
        && interpret::decide(&compiled.policy, hook, request).permit != assertion.always
}

/// A packet that can be, as far as legacy rules decide about it; nothing where none comes close. Which fields
/// follow from such a rule is said here again: the compiler's own list is under test.
fn as_legacy_rules_say(policy: &Policy, hook: usize, mut request: Request) -> Option<Request> {
    let place = |attribute: Attribute| usize::from(attribute);
    if request.scalars[place(attribute::STATE)] != state::LEGACY {
        return Some(request);
    }
    // What leaves has a label.
    if hook == usize::from(hook::EGRESS) {
        return None;
    }
    let zone = &mut request.scalars[place(attribute::INGRESS_ZONE)];
    if !policy.legacies().iter().any(|legacy| u32::from(legacy.zone) == *zone) {
        *zone = policy.legacies().first()?.zone.into();
    }
    let label = &policy.legacies()[interpret::legacy(policy, &request)?].label;
    for (attribute, value) in [
        (attribute::SUBJECT, scope_key(label.domain.0.into(), label.subject)),
        (attribute::LEVEL, label.level.into()),
        (attribute::RADIUS, label.radius.into()),
        (attribute::COMPARTMENTS, label.compartments.into()),
        (attribute::CONSTRAINTS, label.constraints.into()),
        (attribute::OPERATION, label.operation.into()),
        (attribute::RESIDENCY, label.residency.into()),
        (attribute::ROUTE, label.route.into()),
    ] {
        request.scalars[place(attribute)] = value;
    }
    Some(request)
}

#[test]
fn assertions_are_refuted_by_packets_and_proven_for_all() {
    let (mut proven, mut refuted, mut long) = (0, 0, 0);
    let (mut open, mut legacies) = (0, 0);
    for seed in 0..120 {
        let random = &mut Random::new(30_000 + seed);
        let count = *random.pick(&[2, 6, 15]);
        let hook = random.below(3);
        // Some assertions are about a hook that no policy governs.
        let governed = if random.one_in(5) { (hook + 1) % 3 } else { hook };
        open += usize::from(governed != hook);
        let mut policy = random_policy_at(random, count, &HOOKS[governed..=governed]);
        let neighbours = random_legacies(random);
        if !neighbours.is_empty() {
            // Carriage rules must not speak of neighbours that get no labels.
            policy = policy
                .split_inclusive('\n')
                .filter(|line| !line.starts_with("carriage "))
                .collect();
            policy.push_str(&neighbours);
        }
        let mut about = random_clauses(random, hook == 0);
        if hook == 0 && !neighbours.is_empty() && random.one_in(2) {
            about = about.split_inclusive('\n').filter(|line| !line.contains(" from ")).collect();
            about.insert_str(0, "    from legacy\n");
        }
        let claim = if random.one_in(4) { "always" } else { "never" };
        let unless = if random.one_in(2) {
            format!("unless {}", random_clauses(random, hook == 0))
        } else {
            String::new()
        };
        let at = HOOKS[hook];
        let text = format!("{policy}assert a {{ on {at} {claim} permit {about} {unless} }}\n");
        let compiled = compiled(&text);
        let outcomes = assertions::check(&compiled.policy, &compiled.table).unwrap();
        let assertion = &compiled.policy.assertions()[0];
        // Aimed at what the policy and the assertion tell apart.
        let aimed = self::compiled(&format!(
            "{policy}policy aimed {{ on {at} deny about {{ {about} }} {} }}\n",
            if unless.is_empty() {
                String::new()
            } else {
                unless.replacen("unless", "deny but {", 1) + "}"
            }
        ));
        let aim = Aim::new(&aimed.table, program::INGRESS + hook as u32);
        match &outcomes[0] {
            Outcome::Refuted(found) => {
                refuted += 1;
                let shown = || format!("seed {seed}: {found:?}\n{text}");
                assert!(refutes(&compiled, assertion, hook, &found.request), "{}", shown());
                let decision = interpret::decide(&compiled.policy, hook, &found.request);
                assert_eq!(decision.rule, found.rule, "{}", shown());
                let state = found.request.scalars[usize::from(attribute::STATE)];
                legacies += usize::from(state == state::LEGACY);
                if found.named {
                    // The packet can be pasted into a test, and is the same there.
                    let names = compiled.image.names();
                    let packet = words::packet(names, Some(&compiled.policy), hook, &found.request);
                    let verdict = if decision.permit { "permit" } else { "deny" };
                    let test = format!("{text}test \"t\" {{ {packet} expect {verdict} }}\n");
                    let again = self::compiled(&test);
                    let case = &again.policy.tests()[0].cases[0];
                    assert_eq!(
                        (case.hook, case.request),
                        (hook, found.request),
                        "{}\n{packet}",
                        shown()
                    );
                }
            }
            Outcome::Proven => {
                proven += 1;
                // Some are tried hard, the others in passing.
                let packets = if long < 3 { 100_000 } else { 1_000 };
                long += u32::from(packets == 100_000);
                for _ in 0..packets {
                    let request = aim.next(hook, random);
                    let request = as_legacy_rules_say(&compiled.policy, hook, request);
                    let Some(request) = request else { continue };
                    let fails = refutes(&compiled, assertion, hook, &request);
                    assert!(!fails, "seed {seed}: {request:?}\n{text}");
                }
            }
            Outcome::Undecided => panic!("seed {seed}\n{text}"),
        }
    }
    assert!(proven > 15 && refuted > 30, "{proven} {refuted}");
    assert!(open > 10 && legacies > 4, "{open} {legacies}");
}

/// A policy some of whose denials are carried out otherwise.
fn answered(text: &str, random: &mut Random) -> String {
    let mut answered = String::new();
    let (mut rest, start) = (text, "\n  deny r");
    while let Some(at) = rest.find(start) {
        let end = at + rest[at..].find('{').unwrap() + 1;
        answered.push_str(&rest[..end]);
        rest = &rest[end..];
        for answer in ["\n    reject", "\n    quarantine pen", "\n    quarantine lo"] {
            rest = rest.strip_prefix(answer).unwrap_or(rest);
        }
        let answers = ["", "", "\n    reject", "\n    quarantine pen", "\n    quarantine lo"];
        answered.push_str(random.pick::<&str>(&answers));
    }
    answered + rest
}

/// How a rule that denies does so, by the checked policy.
fn carried_out(policy: &Policy, rule: usize) -> Option<String> {
    match policy.rules()[rule].answer {
        Answer::Silence => None,
        Answer::Reject => Some("reject".into()),
        Answer::Quarantine(zone) => {
            Some(format!("quarantine {}", policy.zones()[usize::from(zone) - 1].name))
        }
    }
}

/// A policy that differs in one or a few rules.
fn changed(text: &str, random: &mut Random) -> String {
    let mut changed = text.to_owned();
    for _ in 0..1 + random.below(3) {
        let starts: Vec<usize> = ["  permit r", "  deny r", "  observe deny r"]
            .iter()
            .flat_map(|start| changed.match_indices(start).map(|(at, _)| at))
            .collect();
        if starts.is_empty() {
            break;
        }
        let start = *random.pick(&starts);
        let end = start + changed[start..].find("\n  }\n").unwrap();
        match random.below(5) {
            0 => changed.replace_range(start..end + "\n  }\n".len(), ""),
            4 => changed = answered(&changed, random),
            1 => {
                let clauses = random_clauses(random, false);
                changed.insert_str(
                    end + 1,
                    &clauses
                        .replace("from", "where level >= public from")
                        .lines()
                        .filter(|line| line.contains("where"))
                        .take(1)
                        .map(|line| line.split(" from").next().unwrap().to_owned() + "\n")
                        .collect::<String>(),
                );
            }
            2 => changed.insert_str(
                start,
                &format!("  deny extra{start} {{\n{}  }}\n", random_clauses(random, false)),
            ),
            _ => {
                // What denies says nothing of shapes.
                let Some(at) = changed.find("  permit r") else { continue };
                let end = at + changed[at..].find("\n  }\n").unwrap();
                let rule = changed[at..end].replacen("permit", "deny", 1);
                let rule = rule.replace("\n    fragments", "").replace("\n    options", "");
                changed.replace_range(at..end, &rule);
            }
        }
    }
    changed
}

#[test]
fn differences_are_what_the_interpreter_sees() {
    let (mut differing, mut equal, mut regions, mut folded) = (0, 0, 0, 0);
    let mut answers = 0;
    for seed in 0..60 {
        let random = &mut Random::new(40_000 + seed);
        let count = *random.pick(&[2, 6, 15, 30]);
        let zones = "zone pen = interface \"pen0\"\n";
        let old_text = answered(&(random_policy_at(random, count, &HOOKS) + zones), random);
        let new_text = changed(&old_text, random);
        let (old, new) = (compiled(&old_text), compiled(&new_text));
        let none = diff::diff(&old.image, &old.image).unwrap();
        assert!(none.changes.is_empty() && !none.incomplete, "seed {seed}");
        let diff = diff::diff(&old.image, &new.image).unwrap();
        // What only one of the two asks its rules about is not compared, and that is told.
        let shapes = old.policy.shapes() & new.policy.shapes();
        let same_shapes = old.policy.shapes() == new.policy.shapes();
        assert_eq!(diff.incomplete, !same_shapes, "seed {seed}");
        regions += diff.changes.len();
        answers += diff.changes.iter().filter(|change| change.kind == diff::Kind::Answered).count();
        folded += diff.changes.iter().filter(|change| !change.except.is_empty()).count();
        for hook in 0..3 {
            let which = program::INGRESS + hook as u32;
            let aims = [Aim::new(&old.table, which), Aim::new(&new.table, which)];
            for number in 0..300 {
                let aim = &aims[number % 2];
                let own = aim.next(hook, random);
                if own.scalars[usize::from(attribute::SHAPE)] & !shapes != 0 {
                    continue;
                }
                let request = aim.under(&diff.times, &own);
                let verdict = |compiled: &Compiled| {
                    let own = aim.under(compiled.policy.times(), &own);
                    let decision = interpret::decide(&compiled.policy, hook, &own);
                    let rule = decision.rule.map(|at| analysis::rule_name(&compiled.policy, at));
                    let answer = decision.rule.and_then(|rule| carried_out(&compiled.policy, rule));
                    diff::Verdict { permit: decision.permit, rule, answer }
                };
                let (before, now) = (verdict(&old), verdict(&new));
                let fits = |cells: &[(Attribute, IntervalSet)]| {
                    cells
                        .iter()
                        .all(|(attribute, set)| set.contains(value_of(&request, *attribute)))
                };
                let holds = |change: &&diff::Change| {
                    let out = !change.except.is_empty() && fits(&change.except);
                    change.hook == hook && fits(&change.cells) && !out
                };
                let told: Vec<_> = diff.changes.iter().filter(holds).collect();
                let place = || {
                    format!(
                        "seed {seed} hook {hook}: {request:?}\n{told:?}\n{old_text}\n\n{new_text}"
                    )
                };
                if before == now {
                    equal += 1;
                    assert!(told.is_empty(), "{}", place());
                } else {
                    differing += 1;
                    assert_eq!(told.len(), 1, "{}", place());
                    assert_eq!((&told[0].old, &told[0].new), (&before, &now), "{}", place());
                }
            }
        }
    }
    assert!(differing > 500 && equal > 20_000 && regions > 100, "{differing} {equal} {regions}");
    assert!(folded > 10 && answers > 10, "{folded} {answers}");
}

#[test]
fn names_are_matched_when_numbers_differ() {
    let rules = "policy p { on ingress permit a { from acme.web.front operation web.get where ingress zone is lan } }";
    let zones = |list: &str| format!("package acme.t\nuse acme.vocabulary\nzone {list}\n{rules}");
    let one = zones("lan = interface \"a\"  wan = interface \"b\"");
    let other = zones("wan = interface \"b\"  lan = interface \"a\"");
    let vocabulary = VOCABULARY.replace("web { get post }", "web { head get post }");
    assert_ne!(vocabulary, VOCABULARY);
    let old = compile(&[("t.gov", &one), ("vocabulary.gov", VOCABULARY)]);
    let new = compile(&[("t.gov", &other), ("vocabulary.gov", &vocabulary)]);
    assert_ne!(old.image.names().domains, new.image.names().domains);
    let diff = diff::diff(&old.image, &new.image).unwrap();
    assert_eq!(diff.changes, []);
}

/// The image with other words, sealed again; nothing where no image is left.
fn with_words(image: &Image, words: &[(u32, u32)]) -> Option<Image> {
    let mut bytes = image.bytes().to_vec();
    for &(at, word) in words {
        bytes[at as usize * 4..][..4].copy_from_slice(&word.to_le_bytes());
    }
    let digest = digest_of(&bytes);
    bytes[image::AT_DIGEST as usize * 4..][..32].copy_from_slice(&digest);
    Image::parse(bytes).ok()
}

#[test]
fn images_that_no_compiler_makes_are_not_compared() {
    let text = "package acme.t\nuse acme.vocabulary\npolicy p { on ingress\n\
        permit a { from acme.web.**  source 10.0.0.0/8, 2001:db8:1::/48 }\n\
        deny b { from acme.web.**  source 10.2.0.0/15, 10.7.0.0/16, 10.9.0.0/16 } }";
    let image = compiled(text).image;
    let word = |at: u32| image.word(at);
    let [v4, v6] = [image::AT_TRIES_V4, image::AT_TRIES_V6].map(word);
    let at = image::AT_PROGRAMS + program::INGRESS * image::PROGRAM_WORDS + image::PROGRAM_PART;
    let (root, base) = (word(at), (word(at) & 0x00ff_ffff) * node::BASE_UNIT);
    assert!(v4 & node::LEAF == 0 && root & node::LEAF == 0);
    assert_eq!([word(v4), word(v6)], [node::trie::KIND_CHAIN; 2]);
    let behind = word(v4 + 4);
    assert_eq!(word(behind), node::trie::KIND_SPARSE);
    for (what, words) in [
        ("no such node", vec![(v4, 7)]),
        ("a chain of no bytes", vec![(v6 + 1, 0)]),
        ("a chain of half a byte", vec![(v6 + 1, 12)]),
        ("a chain beyond its bits", vec![(v4 + 1, 40)]),
        ("a chain that leads to itself", vec![(v6 + 4, v6)]),
        ("a chain that leads two ways", vec![(v6 + 5, v4)]),
        ("a node that leads to itself", vec![(behind + node::trie::ENTRIES_AT, behind)]),
        ("a class that is none", vec![(v6 + 5, node::leaf(1 << 29))]),
        ("a row that leads to itself", (base..base + 2).map(|at| (at, root)).collect()),
        ("an attribute that is not tested", vec![(at, root & !(0x1f << 24) | 0x1e << 24)]),
    ] {
        let other = with_words(&image, &words).expect(what);
        for (old, new, which) in [(&image, &other, "new"), (&other, &image, "old")] {
            assert_eq!(diff::diff(old, new).err(), Some(diff::DiffError::Damaged(which)), "{what}");
        }
    }
}

#[test]
fn edited_images_are_compared_or_refused() {
    let text = "package acme.t\nuse acme.vocabulary\npolicy p { on ingress\n\
        permit a { from acme.web.**  source 10.0.0.0/8, 2001:db8:1::/48  proto tcp port 443 }\n\
        deny b { from acme.web.**  source 10.2.0.0/15, 10.7.0.0/16, 10.9.0.0/16 } }";
    let image = compiled(text).image;
    let words = image.bytes().len() as u32 / 4;
    let random = &mut Random::new(5);
    let (mut refused, mut compared) = (0, 0);
    for _ in 0..2000 {
        let edits: Vec<(u32, u32)> = (0..1 + random.below(3))
            .map(|_| {
                let header = random.one_in(2);
                let at = random.below(if header { 256 } else { words as usize }) as u32;
                let value = match random.below(5) {
                    0 => random.below(16) as u32,
                    1 => node::leaf(random.below(16) as u32),
                    2 => random.below(words as usize) as u32,
                    3 => image.word(random.below(words as usize) as u32),
                    _ => random.bits() as u32,
                };
                (at, value)
            })
            .collect();
        let Some(other) = with_words(&image, &edits) else { continue };
        match std::panic::catch_unwind(|| diff::diff(&image, &other).is_ok()) {
            Ok(true) => compared += 1,
            Ok(false) => refused += 1,
            Err(_) => panic!("{edits:?}"),
        }
    }
    assert!(refused > 10 && compared > 100, "{refused} {compared}");
}
