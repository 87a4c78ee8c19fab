//! Highlighting in editors, held token by token against the lexer and the syntax tree; and the
//! commands that hooks and workflows for CI call.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use clap::{CommandFactory as _, Parser as _};
use govc::arguments::Arguments;
use govc_grammar::{Token, span::FileId};
use serde_json::Value;
use syntaxmate::{GrammarRegistry, Tokenizer, TokenizerOptions};

const GRAMMAR: &str = include_str!("../../editors/gov.tmLanguage.json");
const LEXER: &str = include_str!("../../grammar/src/lexer.rs");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn tokenizer() -> Tokenizer {
    let mut registry = GrammarRegistry::new();
    let grammar = registry.add_json(GRAMMAR).unwrap();
    registry.validate().unwrap();
    registry.validate_regexes().unwrap();
    Tokenizer::new(&registry, grammar, TokenizerOptions::default()).unwrap()
}

/// What an editor makes of a text: bytes with their scopes, the outermost first.
type Highlighted = Vec<(Range<usize>, Vec<String>)>;

fn highlight(tokenizer: &mut Tokenizer, source: &str) -> Highlighted {
    let document = tokenizer.tokenize(source).require_complete().unwrap();
    let mut highlighted = Vec::new();
    let mut start = 0;
    for (line, text) in document.lines().iter().zip(source.split_inclusive('\n')) {
        for token in line.tokens() {
            let range = token.range();
            let scopes = token.scopes().map(str::to_owned).collect();
            highlighted.push((start + range.start..start + range.end, scopes));
        }
        start += text.len();
    }
    assert_eq!(start, source.len());
    highlighted
}

/// The scopes of a byte.
fn scopes(highlighted: &Highlighted, byte: usize) -> &[String] {
    let at = highlighted.partition_point(|(token, _)| token.end <= byte);
    highlighted.get(at).map_or(&[], |(_, scopes)| scopes)
}

/// Whether a scope is one of these or below one.
fn starts(scope: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| scope.strip_prefix(prefix).is_some_and(|x| x.starts_with('.')))
}

fn policies() -> Vec<(String, String)> {
    let mut folders = vec![
        root().join("examples/policies"),
        root().join("tests/ui"),
        root().join("grammar/tests/data"),
    ];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "gov") {
                found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Where the names of a tree stand, and whether they are defined there.
fn names(tree: &Value, source: &str) -> HashMap<usize, bool> {
    fn walk(value: &Value, key: &str, source: &str, found: &mut HashMap<usize, bool>) {
        match value {
            Value::Array(values) => values.iter().for_each(|value| walk(value, key, source, found)),
            Value::Object(fields) => {
                let start = value.pointer("/span/start").and_then(Value::as_u64);
                if let (Some(_), Some(start)) = (fields.get("text"), start) {
                    let start = usize::try_from(start).unwrap();
                    // Texts in quotes have the same fields.
                    if !source[start..].starts_with('"') {
                        found.insert(start, matches!(key, "name" | "operations" | "levels"));
                    }
                }
                fields.iter().for_each(|(key, value)| walk(value, key, source, found));
            }
            _ => {}
        }
    }
    let mut found = HashMap::new();
    walk(tree, "", source, &mut found);
    found
}

/// The words that the lexer knows.
fn words() -> HashSet<&'static str> {
    let words: HashSet<_> = LEXER
        .split("#[token(\"")
        .filter_map(|text| text.split_once("\")]").map(|(word, _)| word))
        .filter(|word| word.chars().all(|c| c.is_ascii_alphanumeric()))
        .collect();
    assert!(words.len() > 70, "{words:?}");
    words
}

/// Whether a token of the lexer has the scope that belongs to it. `defined` says of a name whether
/// it is defined here; a word that is no name has a meaning.
fn is_right(token: Token, text: &str, defined: Option<bool>, scopes: &[String]) -> bool {
    let scope = scopes.last().map_or("", String::as_str);
    let built_in = [
        "default",
        "encrypted",
        "node",
        "cluster",
        "domain",
        "federation",
        "any",
        "option",
        "tunnel",
    ];
    match (token, defined) {
        (Token::Text, _) => scopes.iter().any(|scope| scope.starts_with("string.quoted.double")),
        (Token::Int | Token::Prefix, _) => starts(scope, &["constant.numeric"]),
        (_, Some(true)) => starts(scope, &["entity.name", "variable.parameter"]),
        // Names that govc itself gives.
        (_, Some(false)) if starts(scope, &["constant.language"]) => built_in.contains(&text),
        (_, Some(false)) => starts(scope, &["variable.other", "variable.parameter", "entity.name"]),
        (token, None) if token.is_word() => {
            starts(scope, &["keyword", "storage", "constant.language", "support.type"])
        }
        // Signs; wildcards and ranges are operators.
        _ => starts(scope, &["punctuation", "keyword.operator"]),
    }
}

/// What is coloured wrongly in a source; words that are keywords go into `seen`.
fn faults(
    source: &str,
    tree: &Value,
    highlighted: &Highlighted,
    seen: &mut HashSet<String>,
) -> Vec<String> {
    let names = names(tree, source);
    let mut faults = Vec::new();
    let mut check = |range: Range<usize>, right: &dyn Fn(&[String]) -> bool| {
        let (first, last) = (scopes(highlighted, range.start), scopes(highlighted, range.end - 1));
        let valid = !first.iter().any(|scope| scope.starts_with("invalid"));
        if !(valid && right(first) && right(last)) {
            let line = source[..range.start].matches('\n').count() + 1;
            faults.push(format!("{line}: `{}` is {first:?}, {last:?}", &source[range]));
        }
    };
    let mut outside = 0;
    let end = (Token::Unknown, source.len()..source.len());
    for (token, range) in govc_grammar::tokens(source).chain([end]) {
        // Comments are what the lexer leaves out.
        for (at, _) in source[outside..range.start].match_indices("//") {
            let start = outside + at;
            let length = source[start..].lines().next().map_or(0, str::len);
            check(start..start + length, &|scopes| {
                scopes.last().is_some_and(|scope| starts(scope, &["comment.line"]))
            });
        }
        outside = range.end;
        if range.is_empty() {
            break;
        }
        let text = &source[range.clone()];
        let defined = names.get(&range.start).copied();
        if defined.is_none() && token.is_word() {
            seen.insert(text.to_owned());
        }
        check(range, &|scopes| is_right(token, text, defined, scopes));
    }
    faults
}

#[test]
fn words_are_keywords_where_they_mean_something_and_names_elsewhere() {
    let mut tokenizer = tokenizer();
    let mut seen = HashSet::new();
    let mut held = 0;
    for (path, source) in policies() {
        let (tree, diagnostics) = govc_grammar::parse(FileId(0), &source);
        if diagnostics.is_empty() {
            held += 1;
            let tree = serde_json::to_value(&tree).unwrap();
            let highlighted = highlight(&mut tokenizer, &source);
            let faults = faults(&source, &tree, &highlighted, &mut seen);
            assert!(faults.is_empty(), "{path}:{}", faults.join("\n"));
        }
    }
    assert!(held >= 50, "only {held} files parse");
    // Words of later versions are in no policy yet.
    let reserved = HashSet::from(["authority"]);
    let missing: Vec<_> = words()
        .into_iter()
        .filter(|word| !seen.contains(*word) && !reserved.contains(word))
        .collect();
    assert!(missing.is_empty(), "no policy holds the highlighting of {missing:?}");
    for word in reserved {
        let highlighted = highlight(&mut tokenizer, word);
        let scope = scopes(&highlighted, 0).last().unwrap();
        assert!(starts(scope, &["storage.type"]), "{word}: {scope}");
    }
}

/// Also what no parser reads yet: half rules, and words of later versions. The extension's tests
/// hold the engine of Visual Studio Code to this snapshot.
#[test]
fn the_sample_in_full() {
    let source = fs::read_to_string(root().join("tests/editors/sample.gov")).unwrap();
    let highlighted = highlight(&mut tokenizer(), &source);
    let mut text = String::new();
    let mut line = usize::MAX;
    for (range, scopes) in highlighted {
        let token = source[range.clone()].trim_end_matches('\n');
        if token.trim().is_empty() {
            continue;
        }
        let number = source[..range.start].matches('\n').count();
        if number != line {
            let _ = writeln!(text, "{}", source.lines().nth(number).unwrap());
            line = number;
        }
        let scopes: Vec<_> =
            scopes[1..].iter().map(|scope| scope.strip_suffix(".gov").unwrap()).collect();
        let _ = writeln!(text, "  `{token}` {}", scopes.join(" "));
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(root().join("tests/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("editors-sample", text));
}

/// Every `govc ..` of the hooks and of the workflow is a command line that govc takes.
#[test]
fn hooks_and_workflows_call_what_there_is() {
    let known = Arguments::command();
    let mut held = 0;
    for file in [".pre-commit-hooks.yaml", "examples/ci/github.yml"] {
        let text = fs::read_to_string(root().join(file)).unwrap();
        for line in text.lines() {
            let line = line.trim().trim_start_matches("entry: ");
            let Some(line) = line.split('>').next().filter(|line| line.starts_with("govc ")) else {
                continue;
            };
            let line = line.replace('"', "").replace("$COVERAGE_MIN", "90");
            let mut words: Vec<&str> = line.split_whitespace().collect();
            if !line.contains("$POLICY") {
                // pre-commit adds the files.
                words.push("policy.gov");
            }
            assert!(known.find_subcommand(words[1]).is_some(), "{file}: {line}");
            if let Err(error) = Arguments::try_parse_from(&words) {
                panic!("{file}: {line}: {error}");
            }
            held += 1;
        }
    }
    assert!(held >= 7, "{held}");
}
