//! `govc top` in a pseudo terminal and `govc serve` in a browser, over real packets.

mod browser;
mod terminal;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use govc_tests::{
    kernel_available,
    lab::{Lab, READ, RULES, TELNET, UNNAMED, api},
    node::{address, udp_socket, wait_until, workload},
    wireshark::Scratch,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use browser::Browser;
use terminal::Terminal;

const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/policies");
/// Reads go on; a rule that only observes would end them.
const SOON: &str = "policy soon { on ingress to acme.payments.ledger\n\
                    observe deny later { proto udp port 5432 } }\n";

/// Shows six denials between the same two, and somebody who claims to be a third.
const MANY_EDGES: &str = "(() => {
    document.getElementById('pause').click();
    const like = { ...view.flows[0], to: 'acme.payments.ledger', verdict: 'deny', would: null, reason: 'rule' };
    const flows = [0, 1, 2, 3, 4, 5].map((n) => (
        { ...like, from: 'acme.payments.api', claimed: false, rule: `ledger.rule_number_${n}` }));
    const claim = 'claims acme.payments.department_of_long_names';
    view = { ...view, flows: [...flows, { ...like, from: claim, claimed: true, rule: 'ledger.other' }] };
    show();
})()";
/// How many edges there are; whether all of their names, and all of their lines, are in the picture; whether no
/// name lies on another.
const EDGES_LAID_OUT: &str = "(() => {
    const map = document.getElementById('map');
    const { width, height } = map.viewBox.baseVal;
    const boxes = (what) => [...map.querySelectorAll(what)].map((one) => one.getBBox());
    const inside = (box) => box.x >= 0 && box.y >= 0 && box.x + box.width <= width && box.y + box.height <= height;
    const apart = (a, b) => a.x + a.width <= b.x || b.x + b.width <= a.x || a.y + a.height <= b.y || b.y + b.height <= a.y;
    const names = boxes('.edge text');
    return [
        names.length, names.every(inside), boxes('.edge path').every(inside),
        names.every((a) => names.every((b) => a === b || apart(a, b))),
    ];
})()";

/// A lab whose ledger enforces what lies in a file, and traffic of all kinds.
struct Busy {
    lab: Lab,
    scratch: Scratch,
    stop: Arc<AtomicBool>,
    sender: Option<JoinHandle<()>>,
}

impl Busy {
    fn new() -> Self {
        let (lab, scratch) = (Lab::bare(), Scratch::new());
        lab.a.apply(&api(), &["eth0"]);
        let workload = workload("acme.payments.ledger", "read");
        let text = format!("package acme.e2e\nuse acme.vocabulary\n{workload}{RULES}{SOON}");
        fs::write(scratch.0.join("rules.gov"), text).unwrap();
        let mut apply =
            lab.b.govc(GOVC, &["apply", "rules.gov", "-I", EXAMPLES, "--iface", "eth0"]);
        apply.current_dir(&scratch.0);
        let output = lab.b.namespace.run(|| apply.output()).unwrap();
        assert!(output.status.success(), "{output:?}");
        let socket = udp_socket(&lab.a.namespace, address(1, 2, false), 0);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let sender = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                for port in [READ, READ, READ, TELNET, UNNAMED] {
                    // Nobody listens, which is told now and then.
                    let _ = socket.send_to(b"busy", SocketAddr::new(address(2, 2, false), port));
                }
                thread::sleep(Duration::from_millis(20));
            }
        });
        Self { lab, scratch, stop, sender: Some(sender) }
    }

    fn govc(&self, arguments: &[&str]) -> Command {
        let mut command = self.lab.b.govc(GOVC, arguments);
        command.current_dir(&self.scratch.0);
        command
    }

    /// Line of the rules file, from 1, where this is written.
    fn line(&self, what: &str) -> usize {
        let text = fs::read_to_string(self.scratch.0.join("rules.gov")).unwrap();
        text.lines().position(|line| line.contains(what)).unwrap() + 1
    }

    fn permits_are_reported(&self) -> bool {
        self.lab.b.status().events.permits
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = self.sender.take().unwrap().join();
    }
}

#[test]
fn top_shows_flows_rules_and_where_they_are_written() {
    if !kernel_available() {
        return;
    }
    let busy = Busy::new();
    // An editor that says what it was asked for.
    let editor = busy.scratch.0.join("editor");
    let asked = busy.scratch.0.join("asked");
    fs::write(
        &editor,
        format!("#!/bin/sh\necho \"$@\" > {}\necho editing\nread line\n", asked.display()),
    )
    .unwrap();
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = busy.govc(&["top"]);
    command.env("EDITOR", &editor).env_remove("VISUAL").env_remove("NO_COLOR");
    let mut top = Terminal::start(command, &busy.lab.b.namespace);
    top.shows("acme.payments.api");
    // What is enforced and what is pending, side by side in every list.
    assert!(wait_until(|| {
        let text = top.text();
        let row = text.lines().find(|line| line.contains("ledger.read"));
        row.is_some_and(|row| row.contains("permit  deny    ingress"))
    }));
    top.shows("no_rule");
    // The first row is chosen, and its rule is quoted.
    top.shows(&format!("{} |     permit read {{", busy.line("permit read")));
    assert!(top.text().contains("acme.e2e generation 1"), "{}", top.text());
    assert!(top.text().contains("/s denied"), "{}", top.text());
    assert!(busy.permits_are_reported());
    assert!(top.look(vt100::Screen::alternate_screen));
    if let Some(directory) = std::env::var_os("GOVC_SCREENSHOTS") {
        fs::write(std::path::Path::new(&directory).join("top.txt"), top.text()).unwrap();
    }
    // The rules with their places, the chosen one with its source.
    top.keys("3/telnet\r");
    top.shows("filter `telnet`");
    top.hides("soon.later");
    let line = busy.line("deny telnet");
    top.shows(&format!("rules.gov:{line}:5"));
    top.shows(&format!("{line} |     deny telnet {{ proto tcp port 23  proto udp port 23 }}"));
    // Enter leads there.
    top.keys("\r");
    top.shows("editing");
    assert!(!top.look(vt100::Screen::alternate_screen), "the editor has the terminal");
    top.keys("\n");
    assert!(wait_until(|| top.look(vt100::Screen::alternate_screen)));
    assert_eq!(fs::read_to_string(&asked).unwrap(), format!("+{line} rules.gov\n"));
    top.shows("filter `telnet`");
    // What is enforced and what is pending, side by side.
    top.keys("/\u{1b}");
    top.hides("filter `");
    top.keys("4");
    top.shows("ENFORCED");
    top.shows("soon.later");
    top.shows("observe deny later");
    let row = top.text().lines().find(|line| line.contains("soon.later")).unwrap().to_owned();
    assert!(row.contains(" permit ") && row.contains(" deny "), "{row}");
    top.keys("2");
    top.shows("no_rule: no rule permits it");
    // Nothing moves while it is paused.
    top.keys("p");
    top.shows("paused");
    let before = top.text();
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(top.text(), before);
    top.keys("q");
    assert!(top.end().success());
    let left = || !top.look(vt100::Screen::alternate_screen);
    assert!(wait_until(left), "the terminal is as it was");
    assert!(!busy.permits_are_reported());
}

#[test]
fn scopes_are_told_apart_in_a_small_terminal() {
    if !kernel_available() {
        return;
    }
    let busy = Busy::new();
    let command = busy.govc(&["top"]);
    let mut top = Terminal::sized(command, &busy.lab.b.namespace, (24, 80));
    top.shows("telnet");
    let text = top.text();
    let row = text.lines().find(|line| line.contains("telnet")).unwrap();
    assert!(row.contains(".api ") && row.contains(".ledger "), "{text}");
    if let Some(directory) = std::env::var_os("GOVC_SCREENSHOTS") {
        fs::write(std::path::Path::new(&directory).join("top-small.txt"), &text).unwrap();
    }
    top.keys("q");
    assert!(top.end().success());
}

#[test]
fn top_heeds_no_color_signals_and_what_is_no_terminal() {
    if !kernel_available() {
        return;
    }
    let busy = Busy::new();
    let colours = |screen: &vt100::Screen| {
        let (rows, columns) = (screen.size().0.get(), screen.size().1.get());
        let cells = (0..rows).flat_map(|row| (0..columns).map(move |column| (row, column)));
        cells
            .filter_map(|(row, column)| screen.cell(row, column))
            .filter(|cell| cell.fgcolor() != vt100::Color::Default)
            .count()
    };
    for (variable, coloured) in [("NO_COLOR", false), ("SOME_COLOR", true)] {
        let mut command = busy.govc(&["top", "--denials"]);
        command.env_remove("NO_COLOR").env(variable, "1");
        let mut top = Terminal::start(command, &busy.lab.b.namespace);
        top.shows("ledger.telnet");
        top.shows("permitted packets are not reported");
        assert!(!busy.permits_are_reported());
        assert_eq!(top.look(colours) > 0, coloured, "{variable}");
        kill_process(Pid::from_child(top.child()), Signal::TERM).unwrap();
        assert!(top.end().success());
        assert!(wait_until(|| !top.look(vt100::Screen::alternate_screen)));
    }
    let output = busy.lab.b.run_govc(GOVC, &["top"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn top_ends_with_its_terminal() {
    if !kernel_available() {
        return;
    }
    let busy = Busy::new();
    let mut top = Terminal::start(busy.govc(&["top"]), &busy.lab.b.namespace);
    top.shows("ledger.telnet");
    assert!(busy.permits_are_reported());
    top.go_away();
    assert!(top.end().success());
    let events = busy.lab.b.status().events;
    assert!(!events.permits && !events.reader, "{events:?}");
}

/// A server, which ends with its test however that ends.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server, and where it listens.
fn serve(busy: &Busy, arguments: &[&str]) -> (Server, SocketAddr) {
    let mut command = busy.govc(&[&["serve", "--listen", "127.0.0.1:0"], arguments].concat());
    let mut child = busy.lab.b.namespace.run(|| command.spawn()).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").and_then(|rest| rest.strip_suffix('/'));
    (Server(child), address.unwrap_or_else(|| panic!("{line}")).parse().unwrap())
}

/// Asks a server as a named host, and gives head and body of the answer.
fn get(busy: &Busy, address: SocketAddr, host: &str, path: &str) -> (String, String) {
    let mut stream = busy.lab.b.namespace.run(|| TcpStream::connect(address)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_lowercase(), body.to_owned())
}

#[test]
fn serve_is_for_this_machine() {
    if !kernel_available() {
        return;
    }
    let busy = Busy::new();
    let (mut server, address) = serve(&busy, &[]);
    let (head, page) = get(&busy, address, &address.to_string(), "/");
    assert!(head.starts_with("http/1.1 200") && page.contains("<title>govc</title>"), "{head}");
    assert!(head.contains("content-security-policy: default-src 'none'"), "{head}");
    for host in ["example.org", "10.77.2.2"] {
        let (head, page) = get(&busy, address, host, "/view");
        assert!(head.starts_with("http/1.1 403") && !page.contains("acme"), "{head}\n{page}");
    }
    let view =
        || -> Value { serde_json::from_str(&get(&busy, address, "localhost", "/view").1).unwrap() };
    assert!(wait_until(|| view()["flows"].as_array().unwrap().len() > 3), "{:#}", view());
    let shown = view();
    assert_eq!((&shown["generation"], &shown["permits"]), (&json!(1), &json!(true)));
    let rule = |name: &str| {
        let rules = shown["rules"].as_array().unwrap();
        rules
            .iter()
            .find(|rule| rule["rule"] == name)
            .unwrap_or_else(|| panic!("{shown:#}"))
            .clone()
    };
    assert!(rule("ledger.telnet")["packets"].as_u64().unwrap() > 0);
    assert!(rule("soon.later")["would"].as_u64().unwrap() > 0);
    let broken = shown["flows"].as_array().unwrap().iter();
    let broken: Vec<_> = broken.filter(|flow| flow["would"] == "deny").collect();
    assert_eq!(broken.len(), 1, "{shown:#}");
    assert_eq!(broken[0]["verdict"], "permit");
    assert_eq!(shown["others"], 0);
    let (number, image) = (&rule("ledger.telnet")["number"], shown["image"].as_str().unwrap());
    let (_, source) =
        get(&busy, address, "localhost", &format!("/source?image={image}&rule={number}"));
    let source: Value = serde_json::from_str(&source).unwrap();
    assert_eq!(
        (&source["file"], source["line"].as_u64()),
        (&json!("rules.gov"), Some(busy.line("deny telnet") as u64))
    );
    let no_rule = format!("/source?image={image}&rule=999");
    for path in [&no_rule, "/source?image=0123456789abcdef&rule=0", "/rules.gov"] {
        let (head, _) = get(&busy, address, "localhost", path);
        assert!(head.starts_with("http/1.1 404"), "{path}: {head}");
    }
    kill_process(Pid::from_child(&server.0), Signal::INT).unwrap();
    assert!(server.0.wait().unwrap().success());
    assert!(!busy.permits_are_reported());
    let elsewhere = busy.lab.b.run_govc(GOVC, &["serve", "--listen", "10.77.2.2:9401"]);
    assert_eq!(elsewhere.status.code(), Some(2), "{elsewhere:?}");
}

#[test]
fn serve_goes_on_with_an_instance_that_is_made_anew() {
    if !kernel_available() {
        return;
    }
    let busy = Busy::new();
    let (mut server, address) = serve(&busy, &[]);
    let view =
        || -> Value { serde_json::from_str(&get(&busy, address, "localhost", "/view").1).unwrap() };
    let telnet = |view: &Value| {
        let flows = view["flows"].as_array().unwrap().clone();
        flows.into_iter().find(|flow| flow["rule"] == "ledger.telnet")
    };
    assert!(wait_until(|| telnet(&view()).is_some()), "{:#}", view());
    let old = telnet(&view()).unwrap();
    busy.lab.b.detach(&[]);
    assert!(wait_until(|| view()["generation"] == 0));
    assert_eq!(view()["flows"], json!([]));
    // The same numbers mean other rules now, and generations are counted from 1 again.
    let rules = fs::read_to_string(busy.scratch.0.join("rules.gov")).unwrap();
    let moved =
        rules.replace("    permit ping", "\n\n    deny odd { proto tcp port 7 }\n    permit ping");
    fs::write(busy.scratch.0.join("rules.gov"), moved).unwrap();
    let mut apply = busy.govc(&["apply", "rules.gov", "-I", EXAMPLES, "--iface", "eth0"]);
    let output = busy.lab.b.namespace.run(|| apply.output()).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(wait_until(|| telnet(&view()).is_some()), "{:#}", view());
    let shown = view();
    let new = telnet(&shown).unwrap();
    assert_eq!(shown["generation"], 1);
    assert_ne!((&new["image"], &new["place"]), (&old["image"], &old["place"]));
    let line = busy.line("deny telnet");
    assert!(new["place"].as_str().unwrap().starts_with(&format!("rules.gov:{line}:")), "{new}");
    let source = |flow: &Value| {
        let image = flow["image"].as_str().unwrap();
        let path = format!("/source?image={image}&rule={}", flow["rule_number"]);
        get(&busy, address, "localhost", &path)
    };
    let quoted: Value = serde_json::from_str(&source(&new).1).unwrap();
    assert_eq!(quoted["line"].as_u64(), Some(line as u64), "{quoted}");
    assert!(
        source(&old).0.starts_with("http/1.1 404"),
        "whoever paused is not told of another rule"
    );
    // The accounts are those of the new ring.
    let number = |field: &str| shown["events"][field].as_u64().unwrap();
    let sum = number("read") + number("waiting") + number("lost_rate") + number("lost_full");
    assert_eq!(sum, number("counted"), "{:#}", shown["events"]);
    assert!(busy.permits_are_reported());
    kill_process(Pid::from_child(&server.0), Signal::INT).unwrap();
    assert!(server.0.wait().unwrap().success());
    assert!(!busy.permits_are_reported());
}

#[test]
fn the_page_is_seen_clicked_typed_at_and_read_out() {
    if !kernel_available() || !browser::available() {
        return;
    }
    let busy = Busy::new();
    let (mut server, address) = serve(&busy, &[]);
    let profile = busy.scratch.0.join("profile");
    let mut page = Browser::open(&busy.lab.b.namespace, &profile, &format!("http://{address}/"));
    let rows = "[...document.querySelectorAll('#flows tbody tr')]";
    let row = |name: &str| format!("{rows}.find((row) => row.innerText.includes('{name}'))");
    for name in ["ledger.telnet", "no_rule", "ledger.read"] {
        page.wait(&format!("!!{}", row(name)));
    }
    page.wait("document.getElementById('state').innerText === 'live'");
    page.wait("document.querySelectorAll('#map .edge').length >= 3");
    // Enforced and pending side by side.
    let read = page.value(&format!("{}.innerText", row("ledger.read")));
    assert!(read.as_str().unwrap().contains("permit\tdeny\tingress"), "{read}");
    // It lives: what is counted goes up.
    let count = format!("+{}.cells[1].innerText.replaceAll(',', '')", row("ledger.telnet"));
    let before = page.value(&count).as_u64().unwrap();
    page.wait(&format!("{count} > {before}"));
    page.picture("serve-light.png");

    // By mouse: from a flow to its rule.
    page.value(&format!("{}.querySelector('button').click()", row("ledger.telnet")));
    page.wait("document.getElementById('source').innerText.includes('deny telnet {')");
    let line = busy.line("deny telnet");
    page.wait(&format!("document.getElementById('source').innerText.includes('{line} ')"));
    page.wait("document.getElementById('why').innerText.includes('deny at ingress: acme.payments.api to acme.payments.ledger')");
    page.picture("serve-rule.png");

    // By keyboard alone: to an edge, which keeps the focus while the page goes on, and into it.
    page.value("document.activeElement.blur(); window.scrollTo(0, 0)");
    let edge = "document.activeElement.dataset.edge";
    page.value("document.getElementById('pause').focus()");
    page.press("Tab", 9);
    let first = page.value(edge);
    assert!(first.is_string(), "{}", page.value("document.activeElement.outerHTML"));
    let events = "+view.events.read";
    let before = page.value(events).as_u64().unwrap();
    page.wait(&format!("{events} > {before} + 100"));
    assert_eq!(page.value(edge), first);
    page.press("Enter", 13);
    page.wait("document.activeElement.id === 'detail'");
    page.wait("!document.getElementById('source').hidden");

    // What a screen reader is told.
    let tree = page.ask("Accessibility.getFullAXTree", json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let named = |role: &str, part: &str| {
        nodes.iter().any(|node| {
            node["role"]["value"] == role
                && node["name"]["value"].as_str().is_some_and(|name| name.contains(part))
        })
    };
    assert!(named("button", "acme.payments.api to acme.payments.ledger: denied"));
    assert!(named("button", "permitted, would be denied"));
    assert!(named("columnheader", "enforced") && named("columnheader", "pending"));
    assert!(named("searchbox", "Filter") && named("heading", "Flows"));
    assert!(nodes.iter().any(|node| node["role"]["value"] == "status"));
    // Nothing that can be reached is nameless.
    for node in
        nodes.iter().filter(|node| node["role"]["value"] == "button" && node["ignored"] == false)
    {
        assert_ne!(node["name"]["value"], "", "{node}");
    }

    // A filter, typed.
    page.value("document.getElementById('filter').focus()");
    page.ask("Input.insertText", json!({ "text": "telnet" }));
    page.wait(&format!("{rows}.length === 1 && {rows}[0].innerText.includes('ledger.telnet')"));
    page.value("document.getElementById('filter').value = ''");
    page.ask("Input.insertText", json!({ "text": " " }));
    page.wait(&format!("{rows}.length > 2"));
    // However many edges lead from one to the same other, they and their names stay in the picture and apart.
    page.value(MANY_EDGES);
    assert_eq!(page.value(EDGES_LAID_OUT), json!([7, true, true, true]));
    page.picture("serve-edges.png");
    let claimed = "document.querySelector('#map .node.claimed text').textContent";
    let claimed = page.value(claimed);
    assert!(claimed.as_str().unwrap().starts_with("claims …"), "{claimed}");
    page.value("document.getElementById('pause').click()");
    page.wait("document.querySelector('#map .node.claimed') === null");
    let dark = json!({ "features": [{ "name": "prefers-color-scheme", "value": "dark" }] });
    page.ask("Emulation.setEmulatedMedia", dark);
    page.picture("serve-dark.png");
    let narrow = json!({ "width": 420, "height": 900, "deviceScaleFactor": 1, "mobile": false });
    page.ask("Emulation.setDeviceMetricsOverride", narrow);
    page.wait("document.documentElement.scrollWidth <= 420");
    page.picture("serve-narrow.png");
    assert!(page.complaints.is_empty(), "{:#?}", page.complaints);

    // The server ends although a page is open, and the page says so.
    kill_process(Pid::from_child(&server.0), Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success());
    page.wait("document.getElementById('state').innerText.includes('does not answer')");
    assert!(!busy.permits_are_reported());
}
