//! Locks: what a vocabulary's numbers do while it changes.

use smol_str::SmolStr;

use super::*;
use crate::checked::Scope;
use crate::lock::Lock;

/// Checks a vocabulary against the locks of its predecessor.
fn next(text: &str, locks: &Locks) -> Locks {
    let checked = run(&[text], locks);
    assert!(checked.diagnostics.is_empty(), "{:#?}", checked.diagnostics);
    // What is written is what is read.
    let lock = checked.locks.get("v").unwrap();
    assert_eq!(Lock::parse(&lock.to_text()).as_ref(), Ok(lock), "{}", lock.to_text());
    checked.locks
}

fn vocabulary(levels: &str, entries: &str) -> String {
    format!("package v\ndomain d = 7 {{ level {{ {levels} }} }}\nscope d {{ {entries} }}")
}

fn told(text: &str, locks: &Locks, code: Code, at: &str, words: &[&str]) -> Diagnostic {
    let checked = run(&[text], locks);
    assert_eq!(&checked.locks, locks);
    assert!(checked.locks_changed.is_empty());
    assert_one(&[text], &checked, code, at, words)
}

fn levels(locks: &Locks) -> Vec<(SmolStr, u16, bool)> {
    let levels = &locks.get("v").unwrap().levels;
    let mut levels: Vec<_> =
        levels.iter().map(|(name, one)| (name.clone(), one.number, one.retired)).collect();
    levels.sort_by_key(|level| level.1);
    levels
}

fn scope(text: &str, locks: &Locks, path: &str) -> Scope {
    let checked = run(&[text], locks);
    let policy = checked.policy.unwrap();
    policy.domains[0].scopes.iter().find(|scope| scope.path == path).unwrap().clone()
}

#[test]
fn an_unchanged_vocabulary_leaves_its_lock_alone() {
    let text = vocabulary("low < high", "a { b c[5] } e");
    let checked = run(&[&text], &Locks::default());
    assert_eq!(checked.locks_changed, ["v"]);
    let (file, _) = govc_grammar::parse(FileId(0), &text);
    let stale =
        |changed: &[SmolStr]| crate::check::stale_locks(&[(FileId(0), file.clone())], changed);
    let told = stale(&checked.locks_changed);
    let told = Checked { policy: None, diagnostics: told, ..run(&[&text], &checked.locks) };
    assert_one(&[&text], &told, codes::STALE_LOCK, "d", &["package `v` would have to change"]);
    assert!(stale(&[]).is_empty());
    let again = run(&[&text], &checked.locks);
    assert!(again.locks_changed.is_empty());
    assert_eq!(again.locks, checked.locks);
}

#[test]
fn levels_find_gaps() {
    let one = next(&vocabulary("a < b < c < d", ""), &Locks::default());
    let number = |locks: &Locks, name: &str| locks.get("v").unwrap().levels[name].number;
    assert_eq!(["a", "b", "c", "d"].map(|name| number(&one, name)), [0, 5, 10, 15]);
    let two = next(&vocabulary("a < x < b < y < z < c < d", ""), &one);
    assert_eq!(["a", "b", "c", "d"].map(|name| number(&two, name)), [0, 5, 10, 15]);
    assert_eq!(["x", "y", "z"].map(|name| number(&two, name)), [3, 7, 9]);
    let single = next(&vocabulary("a", ""), &Locks::default());
    assert_eq!(number(&single, "a"), 0);
    let three = next(&vocabulary("a < b", ""), &single);
    assert_eq!(["a", "b"].map(|name| number(&three, name)), [0, 8]);
}

#[test]
fn levels_without_gap() {
    let one = next(&vocabulary("a < b", ""), &Locks::default());
    let words = ["no number is left above `b` for level `c`", "packets carry them"];
    told(&vocabulary("a < b < c", ""), &one, codes::NO_LEVEL_GAP, "c", &words);
    let words = ["below `a`"];
    told(&vocabulary("c < a < b", ""), &one, codes::NO_LEVEL_GAP, "c", &words);
    let full = (1..=16).map(|n| format!("n{n}")).collect::<Vec<_>>();
    let sixteen = next(&vocabulary(&full.join(" < "), ""), &Locks::default());
    let text = vocabulary(&full.join(" < ").replace("n7", "new"), "");
    // The number of the retired level stays taken.
    let words = ["between `n6` and `n8`"];
    told(&text, &sixteen, codes::NO_LEVEL_GAP, "new", &words);
    let text = vocabulary("b < a", "");
    let words = ["level `a` was below `b` until now"];
    told(&text, &one, codes::LEVELS_REORDERED, "a", &words);
}

#[test]
fn names_retire_and_return() {
    let text = |body: &str| format!("package v\ndomain d = 7 {{ level {{ a < b }} {body}");
    let one = text(
        "compartments { x, y } }\nconstraint p, q\noperation g { r w }\nresidency eu, us\nroute s, t",
    );
    let first = next(&one, &Locks::default());
    let without = text(
        "compartments { y, z } }\nconstraint q\noperation g { w n }\nresidency us, uk\nroute t",
    );
    let second = next(&without, &first);
    let lock = second.get("v").unwrap();
    let numbers = |numbers: &crate::lock::Numbers| -> Vec<(String, u16, bool)> {
        numbers.iter().map(|(name, one)| (name.to_string(), one.number, one.retired)).collect()
    };
    let line = |name: &str, number, retired| (name.to_owned(), number, retired);
    assert_eq!(
        numbers(&lock.compartments),
        [line("x", 0, true), line("y", 1, false), line("z", 2, false)]
    );
    assert_eq!(numbers(&lock.constraints), [line("p", 0, true), line("q", 1, false)]);
    let operations = [line("g.n", 3, false), line("g.r", 1, true), line("g.w", 2, false)];
    assert_eq!(numbers(&lock.operations), operations);
    let residencies = [line("eu", 1, true), line("uk", 3, false), line("us", 2, false)];
    assert_eq!(numbers(&lock.residencies), residencies);
    assert_eq!(numbers(&lock.routes), [line("s", 1, true), line("t", 2, false)]);
    assert!(lock.to_text().contains("x = { number = 0, retired = true }"));
    // Back again, everybody has the old number.
    let third = next(&one, &second);
    let lock = third.get("v").unwrap();
    assert_eq!(numbers(&lock.constraints), [line("p", 0, false), line("q", 1, false)]);
    assert_eq!(lock.operations["g.r"].number, 1);
    assert!(lock.operations["g.n"].retired);
    let levels = levels(&next(&text("}").replace("a < b", "b"), &third));
    assert_eq!(levels, [("a".into(), 0, true), ("b".into(), 15, false)]);
}

#[test]
fn retired_names_fill_the_limit() {
    let text = |first: usize, last: usize| {
        let names: Vec<_> = (first..=last).map(|n| format!("n{n}")).collect();
        format!("package v\ndomain d = 7\nconstraint {}", names.join(", "))
    };
    let first = next(&text(1, 10), &Locks::default());
    let words = ["more than 16 constraints", "10 retired names keep their numbers"];
    told(&text(11, 17), &first, codes::TOO_MANY_CONSTRAINTS, "n17", &words);
}

#[test]
fn scopes_keep_their_numbers_and_grow() {
    let text = |entries: &str| vocabulary("low", entries);
    let small = text("web  shop { a b }");
    let first = next(&small, &Locks::default());
    let shop = scope(&small, &first, "shop");
    assert_eq!(shop.blocks, [(16, 31)]);
    assert_eq!(scope(&small, &first, "shop.a").subjects, Some((16, 16)));
    assert_eq!(scope(&small, &first, "web").subjects, Some((1, 1)));
    // Within its block there is room for 14 more.
    let more: Vec<String> = (0..14).map(|n| format!("n{n}")).collect();
    let fuller = text(&format!("new web shop {{ {} a b }}", more.join(" ")));
    let second = next(&fuller, &first);
    assert_eq!(scope(&fuller, &second, "shop").blocks, [(16, 31)]);
    assert_eq!(scope(&fuller, &second, "shop.a").subjects, Some((16, 16)));
    assert_eq!(scope(&fuller, &second, "new").subjects, Some((2, 2)));
    // The next one needs a further block, with slack, of the domain's.
    let overfull = text(&format!("new web shop {{ {} a b extra[3] one }}", more.join(" ")));
    let third = next(&overfull, &second);
    assert_eq!(scope(&overfull, &third, "shop").blocks, [(16, 47)]);
    assert_eq!(scope(&overfull, &third, "shop.extra").subjects, Some((32, 34)));
    assert_eq!(scope(&overfull, &third, "shop.one").subjects, Some((36, 36)));
    // Numbers of what is gone stay taken.
    let gone = text("shop { extra[3] last }");
    let fourth = next(&gone, &third);
    assert!(fourth.get("v").unwrap().scopes["shop.a"].retired);
    assert_eq!(scope(&gone, &fourth, "shop.last").subjects, Some((37, 37)));
    assert_eq!(scope(&gone, &fourth, "shop.extra").subjects, Some((32, 34)));
    let back = next(&small, &fourth);
    assert_eq!(scope(&small, &back, "shop.a").subjects, Some((16, 16)));
    assert_eq!(scope(&small, &back, "shop").blocks, [(16, 47)]);
}

#[test]
fn growth_reaches_up_the_tree() {
    let text = |inner: usize| {
        let names: Vec<String> = (0..inner).map(|n| format!("n{n}")).collect();
        vocabulary("low", &format!("a {{ b {{ c {{ {} }} }} }} z", names.join(" ")))
    };
    let first = next(&text(2), &Locks::default());
    let blocks = |text: &str, locks: &Locks| {
        ["a", "a.b", "a.b.c"].map(|path| scope(text, locks, path).blocks)
    };
    assert_eq!(blocks(&text(2), &first), [vec![(64, 127)], vec![(64, 95)], vec![(64, 79)]]);
    let second = next(&text(100), &first);
    let grown = blocks(&text(100), &second);
    assert_eq!(grown[2], [(64, 79), (1024, 1279)]);
    for pair in grown.windows(2) {
        for inner in &pair[1] {
            assert!(pair[0].iter().any(|outer| outer.0 <= inner.0 && inner.1 <= outer.1));
        }
    }
    for n in 0..2 {
        let path = format!("a.b.c.n{n}");
        let now = scope(&text(100), &second, &path).subjects;
        assert_eq!(now, scope(&text(2), &first, &path).subjects);
    }
}

#[test]
fn batches_grow_where_there_is_room() {
    let text = |entries: &str| vocabulary("low", entries);
    let first = next(&text("s { a[5] b[2] }"), &Locks::default());
    assert_eq!(scope(&text("s { a[5] b[2] }"), &first, "s.a").blocks, [(32, 39)]);
    // Within its own block.
    let second = next(&text("s { a[8] b[2] }"), &first);
    assert_eq!(scope(&text("s { a[8] b[2] }"), &second, "s.a").subjects, Some((32, 39)));
    // `b` sits behind it, and has room behind itself.
    let code = codes::BATCH_CANNOT_GROW;
    let words = ["`s.a` cannot grow from 8 to 9", "keep `a[8]` and add `a_more[1]`"];
    told(&text("s { a[9] b[2] }"), &second, code, "9", &words);
    let third = next(&text("s { a[8] b[11] }"), &second);
    let b = scope(&text("s { a[8] b[11] }"), &third, "s.b");
    assert_eq!((b.subjects, b.blocks), (Some((40, 50)), vec![(40, 50)]));
    // A batch that shrinks keeps its numbers for later.
    let fourth = next(&text("s { a[3] b[11] }"), &third);
    assert_eq!(scope(&text("s { a[3] b[11] }"), &fourth, "s.a").subjects, Some((32, 34)));
    assert_eq!(fourth.get("v").unwrap().scopes["s.a"].subjects, Some((32, 39)));
}

#[test]
fn leaves_become_groups_and_back() {
    let leaf = vocabulary("low", "a  b");
    let group = vocabulary("low", "a { x y }  b");
    let first = next(&leaf, &Locks::default());
    let second = next(&group, &first);
    let a = scope(&group, &second, "a");
    assert_eq!(a.subjects, None);
    // The subject that it had once still belongs to it.
    assert_eq!(a.blocks, [(1, 1), (16, 31)]);
    assert_eq!(scope(&group, &second, "a.x").subjects, Some((16, 16)));
    let third = next(&leaf, &second);
    assert_eq!(scope(&leaf, &third, "a").subjects, Some((1, 1)));
    let other = vocabulary("low", "g { x }");
    let first = next(&other, &Locks::default());
    let second = next(&vocabulary("low", "g[20]"), &first);
    let g = scope(&vocabulary("low", "g[20]"), &second, "g");
    assert_eq!(g.subjects, Some((32, 51)));
}

#[test]
fn locks_that_cannot_be_trusted() {
    let text = vocabulary("low", "a");
    let lock = next(&text, &Locks::default()).get("v").unwrap().to_text();
    for (from, to, words) in [
        ("version = 1", "version = 2", "version 2"),
        ("number = 7", "numbre = 7", "line 6: unknown field `numbre`"),
        ("low = { number = 0 }", "low = { number = 16 }", "outside of 0 to 15"),
        (
            "low = { number = 0 }",
            "low = { number = 0 }\nold = { number = 0 }",
            "both have number 0",
        ),
        ("a = { subjects = [1, 1] }", "a = { subjects = [0, 1] }", "lies outside of the numbers"),
        ("a = { subjects = [1, 1] }", "a = { subjects = [2, 1] }", "ends before it begins"),
        ("a = { subjects = [1, 1] }", "a = { retired = true }", "neither blocks nor subjects"),
        ("a = {", "\"b.c\" = {", "has no entry for its parent"),
        ("[1, 1] }", "[1, 4] }\nb = { subjects = [4, 5] }", "both claim number 4"),
    ] {
        let bad = lock.replace(from, to);
        assert_ne!(bad, lock);
        let mut locks = Locks::default();
        locks.insert_text("v", &bad);
        assert!(locks.get("v").is_none());
        let words = ["lock file of domain `d` cannot be trusted", words];
        told(&text, &locks, codes::BAD_LOCK, "d", &words);
    }
}

#[test]
fn domains_keep_their_number() {
    let text = vocabulary("low", "a");
    let locks = next(&text, &Locks::default());
    let text = text.replace("= 7", "= 8");
    let words = ["its lock file says 7", "write `domain d = 7`"];
    told(&text, &locks, codes::DOMAIN_RENUMBERED, "8", &words);
}

#[test]
fn errors_elsewhere_number_nothing() {
    let text =
        format!("{}\npolicy q {{ on ingress permit r {{ from d.b }} }}", vocabulary("low", "a"));
    let checked = run(&[&text], &Locks::default());
    assert!(checked.policy.is_none());
    assert_eq!(checked.locks, Locks::default());
}
