//! What policies look like.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::path::{Path, PathBuf};

use govc_format::{FormatError, format};

/// All policies of a folder of the repository, below it as well.
fn policies(folder: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder), &mut found);
    assert!(!found.is_empty(), "no policies in {folder}");
    found
}

fn collect(folder: &Path, found: &mut Vec<(PathBuf, String)>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "gov") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
}

#[test]
fn examples_are_laid_out_already() {
    for (path, text) in policies("examples/policies") {
        assert_eq!(format(&text).unwrap(), text, "{}", path.display());
    }
}

/// Everything in the repository that parses: examples, tests, pages of the manual.
fn texts() -> Vec<(String, String)> {
    let folders = ["examples/policies", "tests/ui"];
    let mut texts: Vec<(String, String)> = folders
        .iter()
        .flat_map(|folder| policies(folder))
        .map(|(path, text)| (path.display().to_string(), text))
        .collect();
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    for folder in [docs.clone(), docs.join("diagnostics")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") {
                let page = std::fs::read_to_string(&path).unwrap();
                texts.extend(fenced(&page).map(|text| (path.display().to_string(), text)));
            }
        }
    }
    texts
}

/// The blocks of a page, as a whole file each.
fn fenced(page: &str) -> impl Iterator<Item = String> {
    page.split("\n```").skip(1).step_by(2).map(|block| {
        let text = block.split_once('\n').map_or("", |(_, text)| text);
        if text.contains("package ") { text.to_owned() } else { format!("package t\n{text}") }
    })
}

#[test]
fn laying_out_twice_changes_nothing_further() {
    let mut laid_out = 0;
    for (name, text) in texts() {
        match format(&text) {
            Ok(once) => {
                assert_eq!(format(&once).as_deref(), Ok(once.as_str()), "{name}");
                laid_out += 1;
            }
            Err(FormatError::Syntax(_)) => {}
            Err(error) => panic!("{name}: {error}\n{text}"),
        }
    }
    assert!(laid_out > 200, "{laid_out} texts");
}

/// Changes the white space of a text where it means nothing: indentation, spaces, empty lines and
/// the breaks behind words that want a value.
fn mangle(text: &str, mut next: impl FnMut(usize) -> usize) -> String {
    let mut mangled = String::new();
    let mut from = 0;
    let mut before = "";
    for (_, range) in govc_grammar::tokens(text) {
        let gap = &text[from..range.start];
        from = range.end;
        if gap.contains("//") {
            mangled.push_str(gap);
        } else if gap.contains('\n') {
            let breaks = gap.matches('\n').count();
            mangled.push_str(&" ".repeat(next(3)));
            mangled.push_str(&"\n".repeat(if breaks > 1 { breaks + next(2) } else { 1 }));
            mangled.push_str(&"\t".repeat(next(3)));
        } else if ["from", "operation", "subject", "proto", "permit"].contains(&before)
            && next(4) == 0
        {
            mangled.push_str("\r\n ");
        } else if !gap.is_empty() {
            mangled.push_str(&" ".repeat(1 + next(4)));
        } else if [",", "{", "."].contains(&before) {
            mangled.push_str(&" ".repeat(next(2)));
        }
        before = &text[range.clone()];
        mangled.push_str(before);
    }
    mangled.push_str(&"\n".repeat(next(3)));
    mangled
}

/// Numbers below a bound that nobody chose.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    }
}

proptest::proptest! {
    #![proptest_config(proptest::test_runner::Config::with_cases(32))]

    #[test]
    fn white_space_means_nothing(seed in proptest::num::u64::ANY) {
        let mut next = numbers(seed);
        for (path, text) in policies("examples/policies") {
            let mangled = mangle(&text, &mut next);
            assert_eq!(format(&mangled).unwrap(), text, "{}:\n{mangled}", path.display());
        }
    }

    #[test]
    fn any_layout_of_any_tokens_is_final(seed in proptest::num::u64::ANY) {
        let mut next = numbers(seed);
        for (path, text) in policies("examples/policies") {
            // Breaks and comments anywhere.
            let mut wild = String::new();
            let mut from = 0;
            for (_, range) in govc_grammar::tokens(&text) {
                wild.push_str(&text[from..range.start]);
                if wild.ends_with([' ', '\n', '{']) {
                    match next(20) {
                        0 => wild.push('\n'),
                        1 => wild.push_str(" // why\n"),
                        2 => wild.push_str("\n\n    // why\n\n"),
                        _ => {}
                    }
                }
                from = range.end;
                wild.push_str(&text[range]);
            }
            let once = format(&wild).unwrap();
            assert_eq!(format(&once).unwrap(), once, "{}:\n{wild}", path.display());
        }
    }
}

fn check(source: &str, wanted: &str) {
    assert_eq!(format(source).unwrap(), wanted);
    assert_eq!(format(wanted).unwrap(), wanted);
}

#[test]
fn blocks_stay_on_one_line_or_have_a_line_for_each_part() {
    check(
        "package a\npolicy p{on ingress permit r{from anyone log}}",
        "package a\npolicy p { on ingress  permit r { from anyone  log } }\n",
    );
    check(
        "package a\npolicy p {\n on ingress to a.b, c.** permit r{from anyone log} deny s {\nlog from anyone}}",
        "package a\npolicy p {\n    on ingress to a.b, c.**\n    permit r { from anyone  log }\n    \
         deny s {\n        log\n        from anyone\n    }\n}\n",
    );
    let long = "x".repeat(140);
    check(
        &format!("package a\npolicy p {{ on ingress  permit {long} {{ log }} }}"),
        &format!(
            "package a\npolicy p {{\n    on ingress\n    permit {long} {{\n        log\n    }}\n}}\n"
        ),
    );
}

#[test]
fn the_author_breaks_lists_and_conditions() {
    check(
        "package a\nconstraint b,\n c,d\nlet x = 1,\n2 y = 3\n z = 4\n",
        "package a\nconstraint b,\n           c, d\nlet x = 1,\n        2  y = 3\n    z = 4\n",
    );
    check(
        "package a\npolicy p {\non ingress\npermit r {\nwhere level > a\nand(radius is node or\nnot level is b)\n}}",
        "package a\npolicy p {\n    on ingress\n    permit r {\n        where level > a\n            \
         and (radius is node or not level is b)\n    }\n}\n",
    );
}

#[test]
fn comments_stay_where_they_are() {
    check(
        "\n\n//! top\npackage a // one\nuse b   // and\nuse c.d.e // two\n\n\n// next\nlet x = // why\n1\n// end\n\n\n",
        "//! top\npackage a  // one\nuse b      // and\nuse c.d.e  // two\n\n// next\nlet x =  // why\n    1\n// end\n",
    );
    check(
        "package a\npolicy p { // here\n\n// first\non ingress permit r { from anyone // who\n log }\n\n// last\n}",
        "package a\npolicy p {  // here\n    // first\n    on ingress\n    permit r {\n        \
         from anyone  // who\n        log\n    }\n\n    // last\n}\n",
    );
}

#[test]
fn assertions_read_as_sentences() {
    check(
        "package a\nassert x { never permit  from b.** to c }\nassert y \"z\" {\non ingress on egress \
         always permit from b\noperation o.p unless where constraints has{q,r} unless log }",
        "package a\nassert x { never permit from b.** to c }\nassert y \"z\" {\n    on ingress on egress\n    \
         always permit from b\n    operation o.p\n    unless where constraints has {q, r}\n    unless log\n}\n",
    );
}

#[test]
fn vocabularies() {
    check(
        "package a\ndomain d=7{level{a<b}compartments{f,g}}\nscope d { p at b in{f}{ a[3] from to }\n q }\n\
         operation o{r w}x{y}\nresidency eu={de,fr}any\n zone a=interface \"x\",\"y\" encrypted b=interface\"z\"\n\
         tier a,b ordered",
        "package a\ndomain d = 7 { level { a < b }  compartments { f, g } }\n\
         scope d { p at b in {f} { a[3]  from  to }  q }\noperation o { r w }  x { y }\n\
         residency eu = {de, fr}  any\nzone a = interface \"x\", \"y\" encrypted  b = interface \"z\"\n\
         tier a, b ordered\n",
    );
}

#[test]
fn what_does_not_parse_is_left_alone() {
    let Err(FormatError::Syntax(diagnostics)) = format("package a\nlet x 1") else {
        panic!("laid out")
    };
    assert_eq!(diagnostics.len(), 1);
}

#[test]
fn modifiers_stand_before_their_item() {
    let text = "package t\n\n/// Floors.\nprivate let a = 10.0.0.0/8 except 10.1.0.0/16\n            b = 80\n\
                private zone c = interface \"x\"  d = interface \"y\"\n@deprecated \"use a\"\nlet e = a\n";
    assert_eq!(format(text).as_deref(), Ok(text));
    let wild = "package t\n\n/// Floors.\n  private\n let a=10.0.0.0/8   except 10.1.0.0/16\nb = 80\n\
                private zone c = interface \"x\" d = interface \"y\"\n@deprecated \"use a\" let e = a\n";
    assert_eq!(format(wild).as_deref(), Ok(text));
    let text = "package t\nscope d {\n    /// Guests.\n    @deprecated \"use web\"\n    guest\n    web\n}\n\
                operation o { @deprecated \"use w\" r  w }\n";
    let once = format(text).unwrap();
    assert_eq!(format(&once).as_deref(), Ok(once.as_str()));
    assert!(
        once.starts_with(
            "package t\nscope d {\n    /// Guests.\n    @deprecated \"use web\"\n    guest\n"
        ),
        "{once}"
    );
}

#[test]
fn translations_have_a_line_for_each_part() {
    check(
        "package a\ntranslate partner->acme on lan{\npartner.shop.**->acme.guest partner.cap -> acme.drop\ncap level public drop   \
         compartments drop constraints{sealed , counted}\nadd constraints {no_forward} level a->b,c->d readdress\noperation \
         shop.order->ledger.read,\nshop.browse->web.get}",
        "package a\ntranslate partner -> acme on lan {\n    partner.shop.** -> acme.guest\n    partner.cap -> acme.drop\n    \
         cap level public\n    drop compartments\n    drop constraints {sealed, counted}\n    add constraints \
         {no_forward}\n    level a -> b, c -> d\n    readdress\n    operation shop.order -> ledger.read,\n        \
         shop.browse -> web.get\n}\n",
    );
    check(
        "package a\ntranslate acme -> acme on lan { readdress cap level public }",
        "package a\ntranslate acme -> acme on lan { readdress  cap level public }\n",
    );
}
