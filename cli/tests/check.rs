//! The command line as people and programs meet it: formats, levels, fixes, exit codes.

#![expect(clippy::unwrap_used, reason = "the helpers of tests may panic as tests do")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

const FAULTY: &str = "package a\n\
    // é😀\n\
    let ports = 80, 80\n\
    policy q {\n    on ingress\n    permit r { from anyone  proto tcp port prots, ports }\n}\n";
const WARNED: &str = "package a\nlet ports = 80, 80\n";

/// A directory with these files.
fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

fn govc(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_govc"))
        .current_dir(directory)
        .env_remove("NO_COLOR")
        .args(arguments)
        .output()
        .unwrap()
}

/// Exit code, standard output and standard error of `govc` on one file `a.gov`.
fn run(text: &str, arguments: &[&str]) -> (i32, String, String) {
    let directory = directory(&[("a.gov", text)]);
    told(&govc(directory.path(), arguments))
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn short_is_a_line_each() {
    let (code, out, err) = run(FAULTY, &["check", "a.gov", "--format", "short"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "a.gov:3:17: warning[GOV4104]: `80` is named twice\n\
         a.gov:6:44: error[GOV1007]: unknown set `prots`\n"
    );
}

#[test]
fn narrated_and_graphical_are_for_people() {
    let (_, out, err) = run(FAULTY, &["check", "a.gov", "--format", "narrated"]);
    assert!(out.is_empty() && err.contains("unknown set `prots`"), "{err}");
    assert!(err.contains("line 6"), "{err}");
    let (_, out, err) = run(FAULTY, &["check", "a.gov"]);
    assert!(out.is_empty() && err.contains("╰── not found"), "{err}");
    assert!(!err.contains('\u{1b}'), "no escapes in pipes: {err:?}");
    let (_, _, err) = run(FAULTY, &["check", "a.gov", "--color", "always"]);
    assert!(err.contains("\u{1b}["), "{err:?}");
}

#[test]
fn json_is_an_object_a_line() {
    for arguments in [&["check", "a.gov", "--json"][..], &["check", "a.gov", "--format", "json"]] {
        let (code, out, err) = run(FAULTY, arguments);
        assert_eq!((code, err.as_str()), (1, ""));
        let objects: Vec<Value> =
            out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects.len(), 2);
        let error = &objects[1];
        assert_eq!(error["code"], "GOV1007");
        assert_eq!(error["title"], "unknown set");
        assert_eq!(error["severity"], "error");
        assert_eq!(error["labels"][0]["file"], "a.gov");
        assert_eq!(error["labels"][0]["line"], 6);
        assert_eq!(error["labels"][0]["column"], 44);
        assert_eq!(error["labels"][0]["end_column"], 49);
        assert_eq!(error["fixes"][0]["applicability"], "maybe_incorrect");
        assert_eq!(error["fixes"][0]["edits"][0]["replacement"], "ports");
    }
}

fn sarif(text: &str) -> Value {
    let (_, out, err) = run(text, &["check", "a.gov", "--format", "sarif"]);
    assert_eq!(err, "");
    serde_json::from_str(&out).unwrap()
}

#[test]
fn sarif_is_valid() {
    let schema = include_str!("data/sarif-schema-2.1.0.json");
    // The published schema has a stray bracket in the pattern of languages, which is no regular
    // expression to the letter.
    let schema = schema.replace("{2}]?$", "{2}$");
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::options().should_validate_formats(true).build(&schema).unwrap();
    let across =
        "package a\nlet a = 1\nlet a = 2\nlet b = c\nlet c = b\npolicy p { }\nlet x = 10.0.0.1/8";
    for text in [FAULTY, WARNED, across, "package a", "", "package a\nlet"] {
        let document = sarif(text);
        let errors: Vec<String> = validator
            .iter_errors(&document)
            .map(|error| format!("{error} at {}", error.instance_path()))
            .collect();
        assert!(errors.is_empty(), "{errors:#?} in {document:#}");
    }
    // The schema does find mistakes.
    let mut wrong = sarif(FAULTY);
    wrong["runs"][0]["results"][0]["level"] = "grave".into();
    assert!(!validator.is_valid(&wrong));
}

#[test]
fn sarif_tells_everything() {
    let run = sarif("package a\nlet é = 1 let /* 😀 */ ports = 80, 80")["runs"][0].clone();
    assert_eq!(run["columnKind"], "utf16CodeUnits");
    let run_faulty = sarif(FAULTY)["runs"][0].clone();
    let results = run_faulty["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    for result in results {
        let index = result["ruleIndex"].as_u64().unwrap() as usize;
        let rule = &run_faulty["tool"]["driver"]["rules"][index];
        assert_eq!(rule["id"], result["ruleId"]);
        let id = rule["id"].as_str().unwrap();
        assert!(rule["help"]["markdown"].as_str().unwrap().starts_with(&format!("# {id}")));
    }
    assert_eq!(results[0]["level"], "warning");
    assert_eq!(results[0]["relatedLocations"][0]["physicalLocation"]["region"]["startLine"], 3);
    let region = &results[1]["locations"][0]["physicalLocation"]["region"];
    assert_eq!((&region["startLine"], &region["startColumn"]), (&6.into(), &44.into()));
    let replacement = &results[1]["fixes"][0]["artifactChanges"][0]["replacements"][0];
    assert_eq!(replacement["insertedContent"]["text"], "ports");
    assert_eq!(&replacement["deletedRegion"], region);
    // A character outside of the first plane counts twice.
    let comment = run["results"].as_array().unwrap().iter().find(|r| r["ruleId"] == "GOV0009");
    let region = &comment.unwrap()["locations"][0]["physicalLocation"]["region"];
    let width = region["endColumn"].as_u64().unwrap() - region["startColumn"].as_u64().unwrap();
    assert_eq!(width, "/* xx */".len() as u64);
}

#[test]
fn github_annotates() {
    let (code, out, err) = run(FAULTY, &["check", "a.gov", "--format", "github"]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert_eq!(
        out.lines().nth(1).unwrap(),
        "::error file=a.gov,line=6,endLine=6,col=44,endColumn=49,title=GOV1007%3A unknown set\
         ::unknown set `prots`%0Ahelp: did you mean `ports`?"
    );
}

#[test]
fn levels_change_what_counts() {
    let check = |more: &[&str]| {
        let (code, _, err) =
            run(WARNED, &[&["check", "a.gov", "--format", "short"], more].concat());
        (code, err)
    };
    let warning = "a.gov:2:17: warning[GOV4104]: `80` is named twice\n";
    assert_eq!(check(&[]), (0, warning.to_owned()));
    assert_eq!(check(&["--deny", "warnings"]), (1, warning.replace("warning", "error")));
    assert_eq!(check(&["--deny", "gov4104"]), (1, warning.replace("warning", "error")));
    assert_eq!(check(&["--deny", "warnings", "--warn", "4104"]), (0, warning.to_owned()));
    assert_eq!(check(&["--allow", "GOV4104"]), (0, String::new()));
    assert_eq!(check(&["--allow", "GOV1002"]).0, 2);
    assert_eq!(check(&["--allow", "GOV4104", "--deny", "GOV4104"]).0, 2);
    assert_eq!(check(&["--deny", "everything"]).0, 2);
    let expected = WARNED.replace("let", "@expect GOV4104 \"why\"\nlet");
    let (code, _, err) = run(&expected, &["check", "a.gov", "--deny", "warnings"]);
    assert_eq!((code, err.as_str()), (0, ""));
}

#[test]
fn the_number_of_diagnostics_is_limited() {
    let text = format!("package a\nlet s = {}80\n", "80, ".repeat(70));
    let (_, _, err) = run(&text, &["check", "a.gov", "--format", "short"]);
    assert_eq!(err.lines().count(), 51, "{err}");
    assert_eq!(err.lines().last(), Some("20 more diagnostics left out; --limit 0 shows all"));
    let (_, _, err) = run(&text, &["check", "a.gov", "--format", "short", "--limit", "0"]);
    assert_eq!(err.lines().count(), 70);
    let (_, out, err) = run(&text, &["check", "a.gov", "--json", "--limit", "3"]);
    assert_eq!((out.lines().count(), err.as_str()), (3, "67 more diagnostics left out\n"));
}

#[test]
fn sure_fixes_are_applied() {
    let wrong = "package a\n# ports\nlet web-ports = 80;\nlet a = 8000-8099\n\
        policy q {\n    on ingress\n    allow r { from anyone  tcp port Web-Ports, a  log  log }\n}\n";
    let right = "package a\n// ports\nlet web-ports = 80\nlet a = 8000..8099\n\
        policy q {\n    on ingress\n    permit r { from anyone  proto tcp port web-ports, a  log }\n}\n";
    let directory = directory(&[("a.gov", wrong)]);
    let file = directory.path().join("a.gov");
    let before = fs::metadata(&file).unwrap().permissions();

    let (code, out, _) =
        told(&govc(directory.path(), &["check", "a.gov", "--fix", "--diff", "--color", "never"]));
    assert_eq!(code, 1);
    assert!(out.contains("-    allow r { from anyone  tcp port Web-Ports, a  log  log }"), "{out}");
    assert!(
        out.contains("+    permit r { from anyone  proto tcp port web-ports, a  log }"),
        "{out}"
    );
    assert_eq!(fs::read_to_string(&file).unwrap(), wrong, "--diff writes nothing");

    let (code, out, err) = told(&govc(directory.path(), &["check", "a.gov", "--fix"]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.starts_with("1 file fixed\nok 1 rule"), "{out}");
    assert_eq!(fs::read_to_string(&file).unwrap(), right);
    assert_eq!(fs::metadata(&file).unwrap().permissions(), before);
    let names: Vec<_> = fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(names.len(), 1, "no temporary file is left");

    let (code, out, _) = told(&govc(directory.path(), &["check", "a.gov", "--fix", "--diff"]));
    assert_eq!((code, out.as_str()), (0, ""));
}

#[test]
fn guesses_are_not_applied() {
    let domain = "domain acme = 7 { level { low } }\nscope acme { api  web }\n\
        zone pods = interface \"a\"\n";
    for text in [
        "let n = 8099..8000\npolicy q { on ingress permit r { from anyone source node3 } }\n\
         let node1 = 10.0.0.1 node2 = 10.0.0.2\n",
        // Whoever is not declared yet is not somebody else.
        &format!("{domain}policy q {{ on ingress permit r {{ from acme.api2 }} }}\n"),
        &format!("{domain}stamp on pods {{ subject acme.api2 }}\n"),
        &format!("{domain}policy q {{ on ingress permit r {{ from !acme.web }} }}\n"),
        &format!("{domain}policy q {{ on ingress permit r {{ from acme.**, !acme.web }} }}\n"),
    ] {
        let text = format!("package a\n{text}");
        let directory = directory(&[("a.gov", text.as_str())]);
        let (code, ..) = told(&govc(directory.path(), &["check", "a.gov", "--fix"]));
        assert_eq!(code, 1);
        assert_eq!(fs::read_to_string(directory.path().join("a.gov")).unwrap(), text);
    }
}

#[test]
fn packages_that_are_only_used_are_not_fixed() {
    let directory = directory(&[
        ("a.gov", "package a\nuse b\npolicy q { on ingress deny r { source OFFICE } }\n"),
        ("b.gov", "package b\nlet office = 10.0.0.0/8;\n"),
    ]);
    let (code, ..) = told(&govc(directory.path(), &["check", "a.gov", "--fix"]));
    assert_eq!(code, 1);
    let text = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert!(text("a.gov").contains("source office"), "{}", text("a.gov"));
    assert!(text("b.gov").contains(';'));
}

const TESTED: &str = "package a\npolicy q { on ingress permit r { from anyone proto tcp port 80 } }\n\
    test \"web\" { packet { from unlabelled proto tcp port 80 } expect permit by q.r }\n\
    test \"<db>\" { packet { from unlabelled proto tcp port 81 } expect permit }\n";

#[test]
fn failed_tests_are_told_in_every_format() {
    let (code, out, err) = run(TESTED, &["test", "a.gov"]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert!(out.contains("ok   web\nFAIL <db>\n") && out.contains("GOV6012"), "{out}");
    assert!(out.ends_with("1 passed, 1 failed\n"), "{out}");
    let (code, out, _) = run(TESTED, &["test", "a.gov", "--json"]);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &object["code"]), (1, &"GOV6012".into()));
    let (code, out, _) = run(TESTED, &["test", "a.gov", "--format", "sarif"]);
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &document["runs"][0]["results"][0]["ruleId"]), (1, &"GOV6012".into()));
    let (code, out, _) = run(TESTED, &["test", "a.gov", "--format", "junit"]);
    assert_eq!(code, 1);
    assert!(out.contains("<testsuite name=\"a\" tests=\"2\""), "{out}");
    assert!(out.contains("failures=\"1\""), "{out}");
    assert!(out.contains("name=\"&lt;db&gt;\" classname=\"a.gov\""), "{out}");
    assert!(out.contains("type=\"GOV6012\""), "{out}");
    assert_eq!(run(WARNED, &["check", "a.gov", "--format", "junit"]).0, 2);
}

#[test]
fn explain_shows_pages() {
    let (code, out, _) = run("", &["explain", "gov2006"]);
    assert_eq!(code, 0);
    assert!(out.starts_with("GOV2006: host bits in a prefix\n"), "{out}");
    assert!(!out.contains('\u{1b}') && !out.contains("```"), "{out}");
    let (_, coloured, _) = run("", &["explain", "2006", "--color", "always"]);
    assert!(coloured.contains('\u{1b}'));
    let (_, out, _) = run("", &["explain", "GOV2006", "--json"]);
    let page: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&page["code"], &page["severity"]), (&"GOV2006".into(), &"error".into()));
    assert!(page["page"].as_str().unwrap().starts_with("# GOV2006"));
    let (code, _, err) = run("", &["explain", "GOV2O06"]);
    assert_eq!(code, 2);
    assert!(err.contains("Did you mean GOV2006"), "{err}");
    let (_, out, _) = run("", &["explain", "--list"]);
    assert!(out.lines().count() > 100 && out.contains("GOV4101  warning  defined and never used"));
    assert_eq!(run("", &["explain"]).0, 2);
}

#[test]
fn exit_codes_are_those_of_the_help() {
    assert_eq!(run(WARNED, &["check", "a.gov"]).0, 0);
    assert_eq!(run(FAULTY, &["check", "a.gov"]).0, 1);
    assert_eq!(run(FAULTY, &["check", "a.gov", "--format", "nice"]).0, 2);
    assert_eq!(run(FAULTY, &["check", "missing.gov"]).0, 3);
}

/// Exit code of `govc` when nobody reads what it prints.
fn unread(directory: &Path, arguments: &[&str]) -> i32 {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        writer
    };
    let mut command = Command::new(env!("CARGO_BIN_EXE_govc"));
    let command = command.current_dir(directory).args(arguments);
    command.stdout(closed()).stderr(closed()).status().unwrap().code().unwrap()
}

#[test]
fn exit_codes_are_the_same_when_nobody_reads() {
    let more = TESTED.replacen("port 80 }", "port 80..90 }", 1);
    let files = [("bad.gov", FAULTY), ("good.gov", TESTED), ("more.gov", more.as_str())];
    let directory = directory(&files);
    for arguments in [
        &["check", "--json", "bad.gov"][..],
        &["check", "bad.gov"],
        &["check", "--format", "sarif", "bad.gov"],
        &["check", "good.gov"],
        &["test", "good.gov"],
        &["test", "--coverage-min", "100", "--json", "good.gov"],
        &["diff", "good.gov", "more.gov"],
        &["diff", "more.gov", "good.gov"],
        &["fmt", "--check", "good.gov"],
        &["completions", "bash"],
        &["man"],
    ] {
        let read = told(&govc(directory.path(), arguments)).0;
        assert_eq!(unread(directory.path(), arguments), read, "{arguments:?}");
    }
    assert_eq!(unread(directory.path(), &["diff", "good.gov", "more.gov"]), 12);
}

#[test]
fn lock_files_do_not_change_when_they_are_locked() {
    let text = "package a\ndomain acme = 7 { level { low } }\nscope acme { web }\n";
    let directory = directory(&[("a.gov", text)]);
    let check = |more: &[&str]| {
        told(&govc(directory.path(), &[&["check", "a.gov", "--locked"], more].concat()))
    };
    let (code, out, err) = check(&["--format", "short"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(
        err,
        "a.gov:2:8: error[GOV3014]: the lock file of package `a` would have to change\n"
    );
    let (code, out, err) = check(&["--json"]);
    let object: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &object["code"], err.as_str()), (1, &"GOV3014".into(), ""));
    assert!(!directory.path().join("a.lock").exists());
    let other = told(&govc(directory.path(), &["build", "a.gov", "--locked", "-o", "a.img"])).0;
    assert_eq!((other, directory.path().join("a.img").exists()), (1, false));
    assert_eq!(told(&govc(directory.path(), &["check", "a.gov"])).0, 0);
    assert_eq!(check(&[]).0, 0);
}

#[test]
fn help_has_the_colour_that_was_asked_for() {
    let help = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_govc"));
        let command = command.env_remove("NO_COLOR").env("CLICOLOR_FORCE", "1").args(arguments);
        told(&command.output().unwrap()).1
    };
    assert!(help(&["--help"]).contains('\u{1b}'), "the test sees colours");
    for arguments in [
        &["--color", "never", "--help"][..],
        &["--color=never", "check", "--help"],
        &["check", "--color", "never", "-h"],
    ] {
        let told = help(arguments);
        assert!(told.contains("Usage") && !told.contains('\u{1b}'), "{arguments:?}: {told:?}");
    }
    let (code, out, _) = run("", &["--color", "always", "--help"]);
    assert!(code == 0 && out.contains('\u{1b}'));
}

#[test]
fn inspect_tells_vocabularies_by_number() {
    let text = "package a\n\
        domain acme = 7 { level { low < high }  compartments { red } }\n\
        scope acme { web at high  jobs at low { batch[4] } }\n\
        constraint quiet\noperation shop { buy }\nresidency eu = {de}\nroute direct\n\
        policy q {\n    on ingress to acme.web\n    permit r { from acme.jobs.batch }\n}\n";
    let directory = directory(&[("a.gov", text)]);
    let built = told(&govc(directory.path(), &["build", "a.gov", "-o", "a.image"]));
    assert_eq!(built.0, 0, "{built:?}");
    let (code, out, _) = told(&govc(directory.path(), &["inspect", "--json", "a.image"]));
    assert_eq!(code, 0);
    let report: Value = serde_json::from_str(&out).unwrap();
    // The dissector in `wireshark/` reads these.
    let domain = &report["domains"][0];
    let of = |kind: &str| {
        let entries = domain[kind].as_array().unwrap().iter();
        entries
            .map(|entry| (entry["name"].as_str().unwrap(), entry["number"].as_u64().unwrap()))
            .collect::<Vec<_>>()
    };
    assert_eq!((domain["name"].as_str(), domain["number"].as_u64()), (Some("acme"), Some(7)));
    assert_eq!(of("levels"), [("low", 0), ("high", 15)]);
    assert_eq!(of("compartments"), [("red", 0)]);
    assert_eq!(of("constraints"), [("quiet", 0)]);
    for (kind, name) in [("operations", "shop.buy"), ("residencies", "eu"), ("routes", "direct")] {
        assert_eq!(of(kind), [(name, 1)]);
    }
    let scopes = domain["scopes"].as_array().unwrap();
    let batch = scopes.iter().find(|scope| scope["path"] == "jobs.batch").unwrap();
    let bound = |pair: &Value, at: usize| pair[at].as_u64().unwrap();
    assert_eq!(bound(&batch["subjects"], 1) - bound(&batch["subjects"], 0), 3);
    assert!(bound(&batch["blocks"][0], 0) <= bound(&batch["subjects"], 0));
    let jobs = scopes.iter().find(|scope| scope["path"] == "jobs").unwrap();
    assert!(jobs["subjects"].is_null());
}

#[test]
fn a_reader_may_have_enough_of_completions() {
    use std::process::Stdio;
    let mut child = Command::new(env!("CARGO_BIN_EXE_govc"))
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let (code, _, told) = told(&child.wait_with_output().unwrap());
    assert_eq!((code, told.as_str()), (0, ""));
}

#[test]
fn trials_leave_time_to_confirm_them() {
    for time in ["0s", "500ms", "1s"] {
        let (code, _, told) = run(WARNED, &["apply", "a.gov", "--confirm", time]);
        assert!(code == 2 && told.contains("before anybody can confirm it"), "{time}: {told}");
    }
}
