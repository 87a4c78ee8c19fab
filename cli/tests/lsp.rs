//! A whole session of an editor with `govc lsp`, over standard input and output.

#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as tests do"
)]

use std::{
    collections::BTreeMap,
    fs,
    io::{BufReader, Write as _},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;

const VOCABULARY: &str = "package acme.vocabulary\n\
    domain acme = 7 {\n    level { public < internal }\n    compartments { finance }\n}\n\
    scope acme {\n    payments at internal in {finance} { api  ledger }\n    guest at public\n}\n\
    operation ledger { read write }\n";

const POLICY: &str = "package acme.payments\nuse acme.vocabulary\n\
    // é😀\n\
    let web = 80, 443\n\
    policy ledger {\n    on ingress to acme.payments.ledger\n\
    /* */    permit read { from acme.payments.api  operation ledger.read  proto tcp port web }\n}\n\
    test \"reads\" {\n    packet { from acme.payments.api  to acme.payments.ledger  operation ledger.read  proto tcp port 80 }\n    \
    expect permit by ledger.read\n}\n";

/// A patient client: anything that takes longer is broken.
const PATIENCE: Duration = Duration::from_secs(30);

struct Session {
    child: Child,
    input: Option<ChildStdin>,
    messages: Receiver<Value>,
    /// The newest diagnostics of each file.
    diagnostics: BTreeMap<String, Value>,
    folder: TempDir,
    next: u64,
}

impl Session {
    /// Starts the server on a folder with a vocabulary and a policy.
    fn start(capabilities: &Value) -> (Self, Value) {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("acme")).unwrap();
        fs::write(folder.path().join("acme/vocabulary.gov"), VOCABULARY).unwrap();
        fs::write(folder.path().join("ledger.gov"), policy()).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_govc"))
            .args(["lsp", "--stdio"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, messages) = channel();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            while let Some(message) = read(&mut output) {
                if sender.send(message).is_err() {
                    break;
                }
            }
        });
        let input = child.stdin.take();
        let diagnostics = BTreeMap::new();
        let mut session = Self { child, input, messages, diagnostics, folder, next: 0 };
        let root = session.uri("");
        let answer = session.ask(
            "initialize",
            json!({ "processId": null, "rootUri": root, "capabilities": capabilities }),
        );
        session.tell("initialized", json!({}));
        (session, answer["result"].clone())
    }

    fn uri(&self, name: &str) -> String {
        format!("file://{}/{name}", self.folder.path().display())
    }

    fn send(&mut self, message: &Value) {
        let text = message.to_string();
        let input = self.input.as_mut().unwrap();
        write!(input, "Content-Length: {}\r\n\r\n{text}", text.len()).unwrap();
        input.flush().unwrap();
    }

    fn tell(&mut self, method: &str, params: Value) {
        self.send(&json!({ "jsonrpc": "2.0", "method": method, "params": params }));
    }

    /// The answer to a request; diagnostics that come before it are kept.
    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let id = self.next;
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        loop {
            let message = self.receive();
            if message["id"] == id && message.get("method").is_none() {
                return message;
            }
        }
    }

    fn receive(&mut self) -> Value {
        let message = self.messages.recv_timeout(PATIENCE);
        let message =
            message.unwrap_or_else(|_| panic!("nothing comes after {:#?}", self.diagnostics));
        if message["method"] == "textDocument/publishDiagnostics" {
            let uri = message["params"]["uri"].as_str().unwrap().to_owned();
            self.diagnostics.insert(uri, message["params"].clone());
        }
        message
    }

    /// Waits until a file has just these codes.
    fn wait_for(&mut self, name: &str, codes: &[&str]) -> Vec<Value> {
        let uri = self.uri(name);
        loop {
            let known = self.diagnostics.get(&uri).map(|params| &params["diagnostics"]);
            if let Some(list) = known.and_then(Value::as_array) {
                let mut told: Vec<_> = list.iter().filter_map(|one| one["code"].as_str()).collect();
                told.sort_unstable();
                if told == codes {
                    return list.clone();
                }
            }
            self.receive();
        }
    }

    fn open(&mut self, name: &str, text: &str) {
        let document =
            json!({ "uri": self.uri(name), "languageId": "gov", "version": 1, "text": text });
        self.tell("textDocument/didOpen", json!({ "textDocument": document }));
    }

    /// Replaces the text between two positions.
    fn change(&mut self, name: &str, version: i32, from: (u32, u32), to: (u32, u32), text: &str) {
        let range = json!({ "start": position(from), "end": position(to) });
        self.tell(
            "textDocument/didChange",
            json!({
                "textDocument": { "uri": self.uri(name), "version": version },
                "contentChanges": [{ "range": range, "text": text }],
            }),
        );
    }

    /// The result of a request about a place.
    fn at(&mut self, method: &str, name: &str, place: (u32, u32), more: Value) -> Value {
        let mut params =
            json!({ "textDocument": { "uri": self.uri(name) }, "position": position(place) });
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ask(&format!("textDocument/{method}"), params)
    }

    fn end(mut self) {
        assert!(self.ask("shutdown", Value::Null)["result"].is_null());
        self.tell("exit", Value::Null);
        assert!(self.child.wait().unwrap().success());
    }
}

fn position((line, character): (u32, u32)) -> Value {
    json!({ "line": line, "character": character })
}

fn policy() -> String {
    POLICY.replace("/* */", "")
}

/// One message; `None` at the end.
fn read(output: &mut impl std::io::BufRead) -> Option<Value> {
    let mut length = 0;
    loop {
        let mut header = String::new();
        output.read_line(&mut header).ok().filter(|count| *count > 0)?;
        match header.trim_end().split_once(": ") {
            Some(("Content-Length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => break,
        }
    }
    let mut body = vec![0; length];
    output.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}

/// Line and column of the first occurrence of a text.
fn find(text: &str, part: &str) -> (u32, u32) {
    let at = text.find(part).unwrap();
    let line = text[..at].matches('\n').count();
    let column = at - text[..at].rfind('\n').map_or(0, |end| end + 1);
    (u32::try_from(line).unwrap(), u32::try_from(column).unwrap())
}

#[test]
fn diagnostics_come_and_go_with_edits() {
    let (mut session, _) = Session::start(&json!({}));
    session.wait_for("ledger.gov", &[]);
    session.wait_for("acme/vocabulary.gov", &[]);
    session.open("ledger.gov", &policy());
    let (line, column) = find(&policy(), "api  operation");
    session.change("ledger.gov", 2, (line, column), (line, column + 3), "appi");
    let told = session.wait_for("ledger.gov", &["GOV1002"]);
    assert_eq!(told[0]["range"]["start"], position((line, column)));
    assert_eq!(told[0]["range"]["end"], position((line, column + 4)));
    assert_eq!(told[0]["severity"], 1);
    assert_eq!(told[0]["source"], "govc");
    assert!(told[0]["message"].as_str().unwrap().contains("did you mean"), "{}", told[0]);

    // The fix, as a code action.
    let actions = session.ask(
        "textDocument/codeAction",
        json!({
            "textDocument": { "uri": session.uri("ledger.gov") },
            "range": told[0]["range"],
            "context": { "diagnostics": [told[0]] },
        }),
    );
    let action = &actions["result"][0];
    // Offered, and never done by itself: who has rights is not guessed.
    assert_eq!((&action["kind"], &action["isPreferred"]), (&"quickfix".into(), &false.into()));
    let edit = &action["edit"]["changes"][session.uri("ledger.gov")][0];
    assert_eq!((&edit["newText"], &edit["range"]), (&"api".into(), &told[0]["range"]));

    // A question that comes before the check does not keep diagnostics back.
    session.change("ledger.gov", 3, (line, column), (line, column + 4), "api");
    session.at("hover", "ledger.gov", (line, column), json!({}));
    session.wait_for("ledger.gov", &[]);

    // A vocabulary that changes is seen by what uses it.
    let changed = VOCABULARY.replace("api  ledger", "ledger");
    session.open("acme/vocabulary.gov", &changed);
    session.wait_for("ledger.gov", &["GOV1002", "GOV1002"]);
    session.tell(
        "textDocument/didClose",
        json!({ "textDocument": { "uri": session.uri("acme/vocabulary.gov") } }),
    );
    session.wait_for("ledger.gov", &[]);

    // The analysis comes when edits have come to rest.
    let end = (line + 1, 0);
    session.change(
        "ledger.gov",
        4,
        end,
        end,
        "    deny same { from acme.guest }\n    deny again { from acme.guest }\n",
    );
    session.wait_for("ledger.gov", &["GOV0102"]);
    session.end();
}

#[test]
fn files_for_different_nodes_are_not_mixed_up() {
    let (mut session, _) = Session::start(&json!({}));
    session.open("one.gov", "package nodes\npolicy p { on ingress  permit r { source office } }\n");
    session.open("two.gov", "package nodes\npolicy p { on ingress  deny r { source offce } }\n");
    session.wait_for("one.gov", &["GOV1007"]);
    session.open("sets.gov", "package nodes\nlet office = 10.0.0.0/8\n");
    session.wait_for("one.gov", &[]);
    session.wait_for("sets.gov", &[]);
    session.wait_for("two.gov", &["GOV1007"]);
    session.end();
}

#[test]
fn columns_are_those_that_were_agreed_on() {
    let text = "package odd\nzone z = interface \"é😀\" let b = 1, 1\n";
    for (encoding, width) in [("utf-16", 3), ("utf-8", 6)] {
        let offered = json!({ "general": { "positionEncodings": [encoding] } });
        let (mut session, answer) = Session::start(&offered);
        assert_eq!(answer["capabilities"]["positionEncoding"], encoding);
        session.open("odd.gov", text);
        let told = session.wait_for("odd.gov", &["GOV4104"]);
        let second = 33 + width;
        assert_eq!(told[0]["range"]["start"], position((1, second)), "{told:?}");
        // An edit behind characters that count differently.
        session.change("odd.gov", 2, (1, second), (1, second + 1), "2");
        session.wait_for("odd.gov", &[]);
        session.end();
    }
}

#[test]
fn names_are_told_found_and_renamed() {
    let (mut session, _) = Session::start(&json!({}));
    session.open("ledger.gov", &policy());
    let text = policy();
    let api = find(&text, "api  operation");

    let hover = session.at("hover", "ledger.gov", api, json!({}));
    let value = hover["result"]["contents"]["value"].as_str().unwrap().to_owned();
    for part in
        ["**scope** `acme.payments.api`", "level internal", "compartments finance", "subject 1"]
    {
        assert!(value.contains(part), "{part} in {value}");
    }
    let hover = session.at("hover", "ledger.gov", find(&text, "permit read"), json!({}));
    assert!(hover["result"]["contents"]["value"].as_str().unwrap().contains("let through"));
    let hover = session.at("hover", "ledger.gov", find(&text, "web }"), json!({}));
    assert!(hover["result"]["contents"]["value"].as_str().unwrap().contains("80, 443"));

    session.open("known.gov", "package known\n@expect GOV4104 \"both\" let a = 1, 1\n");
    let hover = session.at("hover", "known.gov", (1, 10), json!({}));
    assert!(hover["result"]["contents"]["value"].as_str().unwrap().starts_with("# GOV4104"));

    // What authors say about names, and what they hide.
    let said = "package said\n/// People in the *office*.\nlet office = 10.0.0.0/8\n\
        @deprecated \"use office instead\"\nlet bureau = 192.168.0.0/16\n\
        private let cellar = 172.16.0.0/12\n";
    session.open("said.gov", said);
    let saying = "package saying\nuse said\nuse acme.vocabulary\n\
        policy p { on ingress  permit r { from acme.guest  source office, bureau } }\n";
    session.open("saying.gov", saying);
    session.wait_for("saying.gov", &["GOV4121"]);
    let known = saying.replace("policy p", "@expect GOV4121 \"until spring\"\npolicy p");
    session.open("saying.gov", &known);
    session.wait_for("saying.gov", &[]);
    for (name, told) in [("office, b", "People in the *office*."), ("bureau }", "use office")] {
        let hover = session.at("hover", "saying.gov", find(&known, name), json!({}));
        let value = hover["result"]["contents"]["value"].as_str().unwrap();
        assert!(value.contains(told), "{value}");
    }
    let place = find(&known, "office, b");
    let proposed = session.at("completion", "saying.gov", place, json!({})).to_string();
    assert!(proposed.contains("office") && !proposed.contains("cellar"), "{proposed}");

    let definition = session.at("definition", "ledger.gov", api, json!({}));
    assert_eq!(definition["result"]["uri"], session.uri("acme/vocabulary.gov"));
    assert_eq!(definition["result"]["range"]["start"], position(find(VOCABULARY, "api")));
    let by = find(&text, "read\n}");
    let definition = session.at("definition", "ledger.gov", by, json!({}));
    assert_eq!(definition["result"]["range"]["start"], position(find(&text, "read {")));

    let with_declaration = json!({ "context": { "includeDeclaration": true } });
    let references = session.at("references", "ledger.gov", api, with_declaration);
    assert_eq!(references["result"].as_array().unwrap().len(), 3, "{references}");
    let highlights = session.at("documentHighlight", "ledger.gov", api, json!({}));
    assert_eq!(highlights["result"].as_array().unwrap().len(), 2);

    let prepared = session.at("prepareRename", "ledger.gov", api, json!({}));
    assert_eq!(prepared["result"]["placeholder"], "api");
    let renamed = session.at("rename", "ledger.gov", api, json!({ "newName": "gateway" }));
    let changes = &renamed["result"]["changes"];
    assert_eq!(changes[session.uri("ledger.gov")].as_array().unwrap().len(), 2, "{renamed}");
    assert_eq!(changes[session.uri("acme/vocabulary.gov")][0]["newText"], "gateway");
    for wrong in ["policy", "from", "a b", "9", "ledger", ""] {
        let refused = session.at("rename", "ledger.gov", api, json!({ "newName": wrong }));
        assert!(refused["error"]["message"].is_string(), "{wrong}: {refused}");
    }
    // Operations go by two names; each is its own.
    let group = find(&text, "ledger.read  proto");
    let renamed = session.at("rename", "ledger.gov", group, json!({ "newName": "books" }));
    let changes = &renamed["result"]["changes"];
    assert_eq!(changes[session.uri("ledger.gov")].as_array().unwrap().len(), 2, "{renamed}");

    // Templates and their parameters.
    let like = "package like\nuse acme.vocabulary\n\
        template served(who, ports) { from who  proto tcp port ports, 22 }\n\
        policy l { on ingress  permit r { like served(who = acme.guest  ports = 80) } }\n";
    session.open("like.gov", like);
    session.wait_for("like.gov", &[]);
    let used = find(like, "served(who = ");
    let definition = session.at("definition", "like.gov", used, json!({}));
    assert_eq!(definition["result"]["range"]["start"], position(find(like, "served(who, ")));
    let hover = session.at("hover", "like.gov", used, json!({}));
    let value = hover["result"]["contents"]["value"].as_str().unwrap();
    assert!(value.contains("**template**") && value.contains("served(who, ports)"), "{value}");
    let parameter = find(like, "ports = 80");
    let renamed = session.at("rename", "like.gov", parameter, json!({ "newName": "where_to" }));
    let changes = &renamed["result"]["changes"];
    assert_eq!(changes[session.uri("like.gov")].as_array().unwrap().len(), 3, "{renamed}");
    let proposed = session.at("completion", "like.gov", used, json!({})).to_string();
    assert!(proposed.contains("\"served\""), "{proposed}");

    let symbols = session.ask("workspace/symbol", json!({ "query": "payments.api" }));
    assert_eq!(symbols["result"][0]["name"], "acme.payments.api");
    let outline = session.at("documentSymbol", "ledger.gov", (0, 0), json!({}));
    let names: Vec<_> = outline["result"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["web", "ledger", "reads"]);
    assert_eq!(outline["result"][1]["children"][0]["name"], "read");
    let folds = session.at("foldingRange", "ledger.gov", (0, 0), json!({}));
    assert_eq!(folds["result"].as_array().unwrap().len(), 2, "{folds}");
    session.end();
}

#[test]
fn text_is_completed_coloured_and_laid_out() {
    let (mut session, answer) = Session::start(&json!({}));
    let wild = policy().replace("permit read { from", "permit   read{from");
    session.open("ledger.gov", &wild);

    let edits = session.at(
        "formatting",
        "ledger.gov",
        (0, 0),
        json!({
            "options": { "tabSize": 4, "insertSpaces": true },
        }),
    );
    let (line, _) = find(&wild, "permit   read");
    let edit = &edits["result"][0];
    assert_eq!(
        edit["range"],
        json!({ "start": position((line, 0)), "end": position((line + 1, 0)) })
    );
    assert!(edit["newText"].as_str().unwrap().starts_with("    permit read { from"), "{edit}");

    let tokens = session.at("semanticTokens/full", "ledger.gov", (0, 0), json!({}));
    let data = tokens["result"]["data"].as_array().unwrap().clone();
    let legend = &answer["capabilities"]["semanticTokensProvider"]["legend"]["tokenTypes"];
    let types: Vec<&str> = data
        .chunks(5)
        .map(|token| legend[token[3].as_u64().unwrap() as usize].as_str().unwrap())
        .collect();
    let start = [
        "keyword",
        "namespace",
        "namespace",
        "keyword",
        "namespace",
        "namespace",
        "comment",
        "keyword",
        "variable",
        "number",
    ];
    assert_eq!(types[..start.len()], start);

    for (typed, label) in [
        ("from acme.payments.|", "api"),
        ("from |", "acme.payments.api"),
        ("operation ledger.|", "write"),
        ("where level >= |", "internal"),
        ("proto tcp port |", "web"),
        ("|", "destination"),
    ] {
        let (typed, _) = typed.split_once('|').unwrap();
        let text = format!(
            "package acme.payments\nuse acme.vocabulary\npolicy p {{\n    on ingress\n    permit r {{ {typed}"
        );
        session.open("typing.gov", &text);
        let place = (4, 4 + "permit r { ".len() as u32 + typed.len() as u32);
        let proposed = session.at("completion", "typing.gov", place, json!({}));
        let labels: Vec<_> = proposed["result"]["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["label"].as_str().unwrap())
            .collect();
        assert!(labels.contains(&label), "{typed}: {labels:?}");
    }
    session.end();
}

#[test]
fn bad_input_breaks_nothing() {
    let (mut session, _) = Session::start(&json!({}));
    session.open("ledger.gov", &policy());
    let unknown = session.ask("textDocument/nothing", json!({}));
    assert_eq!(unknown["error"]["code"], -32601);
    let wrong = session.ask("textDocument/hover", json!({ "position": "here" }));
    assert_eq!(wrong["error"]["code"], -32602);
    session.tell("textDocument/didChange", json!({ "nothing": 1 }));
    session.tell("textDocument/nothing", json!([]));
    session.change("ledger.gov", 2, (99, 99), (7, 7), "}}}");
    session.change("ledger.gov", 3, (4, 9), (2, 1), "é");
    session.change("missing.gov", 1, (0, 0), (0, 0), "x");
    assert!(session.at("hover", "missing.gov", (0, 0), json!({}))["result"].is_null());
    assert!(session.at("hover", "ledger.gov", (9999, 9999), json!({}))["error"].is_null());
    // Every beginning of a policy, and every end.
    let text = policy();
    let mut version = 4;
    for at in (0..text.len()).step_by(7).filter(|at| text.is_char_boundary(*at)) {
        for part in [&text[..at], &text[at..]] {
            version += 1;
            let uri = session.uri("ledger.gov");
            let changes = json!([{ "text": part }]);
            session.tell(
                "textDocument/didChange",
                json!({ "textDocument": { "uri": uri, "version": version }, "contentChanges": changes }),
            );
            let (line, column) = (part.matches('\n').count() as u32, 3);
            for method in ["hover", "completion", "definition", "prepareRename"] {
                let answer = session.at(method, "ledger.gov", (line, column), json!({}));
                assert!(answer["error"].is_null(), "{method} {part:?}: {answer}");
            }
            let tokens = session.at("semanticTokens/full", "ledger.gov", (0, 0), json!({}));
            assert!(tokens["error"].is_null(), "{tokens}");
        }
    }
    session.open("untitled.gov", "");
    session.end();
}

#[test]
fn an_editor_that_is_gone_ends_the_server() {
    let (mut session, _) = Session::start(&json!({}));
    session.tell("exit", Value::Null);
    assert!(!session.child.wait().unwrap().success());
    let (mut session, _) = Session::start(&json!({}));
    session.input = None;
    assert!(!session.child.wait().unwrap().success());
}
