//! `govc observe` on real packets: every one is told or counted as lost, by the names of the
//! generation that decided.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Output},
};

use govc_loader::status;
use govc_netlab::DontFragment;
use govc_tests::{
    kernel_available,
    lab::{Lab, READ, RULES, TELNET, UNNAMED, api, ledger},
    node::{DENIED_WAIT, Node, address, image, udp_socket, wait_until, workload},
    wireshark::{SCRIPT, Scratch, tshark_available, without_settings},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// Ends an observer and gives what it printed.
fn stop(child: Child) -> Output {
    signal(&child, Signal::INT);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    output
}

/// Objects, one a line.
fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Those that are events.
fn events(output: &Output) -> Vec<Value> {
    lines(output).into_iter().filter(|value| value["verdict"].is_string()).collect()
}

fn summary(output: &Output) -> Value {
    lines(output).pop().unwrap()["summary"].clone()
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// An observer that has begun.
fn observe(node: &Node, arguments: &[&str]) -> Child {
    let child = node.start_govc(GOVC, &[&["observe"], arguments].concat());
    let permits = arguments.contains(&"--permits");
    assert!(wait_until(|| {
        let events = node.status().events;
        events.reader && (!permits || events.permits)
    }));
    child
}

/// A read, a read's reply, a telnet that a rule denies, and a port that none names.
fn traffic(lab: &Lab) {
    let exchange = |port, timeout| {
        let flow = govc_netlab::Flow { timeout, ..lab.to_b(false, port) };
        flow.udp_exchange(64, DontFragment::Want).unwrap()
    };
    assert!(exchange(READ, govc_tests::node::PATIENCE).is_delivered());
    for port in [TELNET, UNNAMED] {
        assert!(!exchange(port, DENIED_WAIT).is_delivered());
    }
}

/// Packets that hooks have decided so far: without link control, which comes when it likes, and
/// with it.
fn decided(node: &Node) -> [u64; 2] {
    let reasons = node.status().reasons;
    let all = reasons.iter().map(|count| count.packets).sum();
    let control = reasons.iter().filter(|count| count.reason == "link_control");
    [all - control.map(|count| count.packets).sum::<u64>(), all]
}

#[test]
fn every_packet_is_told_or_counted_as_lost() {
    if !kernel_available() {
        return;
    }
    // More than a CPU may publish while they are sent, however slowly that goes.
    const PACKETS: u64 = 40_000;
    const PER_SECOND: u32 = 100;
    let lab = Lab::governed();
    status::set_event_rate(&lab.b.place, PER_SECOND).unwrap();
    for arguments in [&["--permits", "--json"][..], &["--permits", "--json", "--aggregate"]] {
        let before = decided(&lab.b);
        let observer = observe(&lab.b, arguments);
        let socket = udp_socket(&lab.a.namespace, address(1, 2, false), 0);
        let to = SocketAddr::new(address(2, 2, false), READ);
        let mut sent = 0;
        while sent < PACKETS {
            sent += u64::from(socket.send_to(b"fast", to).is_ok());
        }
        assert!(wait_until(|| decided(&lab.b)[0] >= before[0] + PACKETS));
        let output = stop(observer);
        let summary = summary(&output);
        let number = |field: &str| summary["events"][field].as_u64().unwrap();
        let after = decided(&lab.b);
        let counted = number("counted");
        let possible = after[0] - before[0]..=after[1] - before[1];
        assert!(possible.contains(&counted), "{possible:?}: {summary}");
        let lost = number("lost_rate") + number("lost_full");
        assert!(lost > 0, "{summary}");
        assert_eq!(number("read") + number("waiting") + lost, counted, "{summary}");
        assert_eq!(summary["shown"], summary["events"]["read"]);
        let told: u64 =
            lines(&output).iter().map(|line| line["lost"]["rate"].as_u64().unwrap_or(0)).sum();
        assert!(told <= number("lost_rate"));
        let shown: u64 = if arguments.contains(&"--aggregate") {
            assert!(events(&output).is_empty());
            let seconds = lines(&output).into_iter().filter(|line| line["second"].is_object());
            seconds.map(|line| line["second"]["events"].as_u64().unwrap()).sum()
        } else {
            events(&output).len() as u64
        };
        assert_eq!(shown, number("read"));
        assert!(!lab.b.status().events.permits);
    }
}

#[test]
fn permits_are_reported_only_while_somebody_observes() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    for ending in [Signal::INT, Signal::TERM, Signal::HUP] {
        let observer = observe(&lab.b, &["--permits"]);
        signal(&observer, ending);
        let output = observer.wait_with_output().unwrap();
        assert!(output.status.success(), "{ending:?}: {output:?}");
        assert!(!lab.b.status().events.permits, "{ending:?}");
    }
    // Nobody can turn it off when it is killed hard: the next command tells, and the next
    // observer does.
    let mut observer = observe(&lab.b, &["--permits"]);
    observer.kill().unwrap();
    observer.wait().unwrap();
    let events = lab.b.status().events;
    assert!(events.permits && !events.reader, "{events:?}");
    let told = text(&lab.b.run_govc(GOVC, &["status"]));
    assert!(told.contains("killed") && told.contains("govc observe --count 0"), "{told}");
    assert!(lab.b.run_govc(GOVC, &["observe", "--count", "0"]).status.success());
    let events = lab.b.status().events;
    assert!(!events.permits && !events.reader, "{events:?}");
    assert!(!text(&lab.b.run_govc(GOVC, &["status"])).contains("killed"));
}

#[test]
fn one_reader_at_a_time() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let first = observe(&lab.b, &[]);
    let second = lab.b.run_govc(GOVC, &["observe"]);
    assert_eq!(second.status.code(), Some(3));
    let told = String::from_utf8(second.stderr).unwrap();
    assert!(told.contains("another govc is reading the events"), "{told}");
    stop(first);
}

#[test]
fn filters_choose_live_and_from_a_file() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let scratch = Scratch::new();
    let file = scratch.0.join("events");
    let file = file.to_str().unwrap();
    let observer = observe(&lab.b, &["--permits", "--json", "--write", file]);
    traffic(&lab);
    assert!(wait_until(|| lab.b.count("ingress", "no_rule") > 0));
    let output = stop(observer);
    let all = events(&output);
    let rule = |name: &str| all.iter().filter(|event| event["rule"] == name).count();
    assert!(rule("ledger.read") > 0 && rule("ledger.telnet") > 0, "{all:#?}");
    for event in &all {
        assert_eq!(event["named"], true);
        assert_eq!(event["interface"], "eth0");
        assert!(event["time"].as_str().unwrap().ends_with('Z'), "{event}");
    }
    let telnet = all.iter().find(|event| event["rule"] == "ledger.telnet").unwrap();
    assert_eq!(telnet["subject"], "acme.payments.api");
    assert_eq!(telnet["object"], "acme.payments.ledger");
    assert_eq!(telnet["operation"], "ledger.read");
    assert!(telnet["place"].as_str().unwrap().starts_with("e2e.gov:"), "{telnet}");

    // The same events from the file, without any kernel.
    let read = |arguments: &[&str]| {
        let command = ["observe", "--json", "--read", file];
        let output = Command::new(GOVC).args(command).args(arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        output
    };
    assert_eq!(events(&read(&[])), all);
    assert_eq!(summary(&read(&[]))["events"], summary(&output)["events"]);
    let chosen = |arguments: &[&str], holds: &dyn Fn(&Value) -> bool| {
        let wanted: Vec<_> = all.iter().filter(|event| holds(event)).cloned().collect();
        assert!(!wanted.is_empty() && wanted.len() < all.len(), "{arguments:?}");
        assert_eq!(events(&read(arguments)), wanted, "{arguments:?}");
    };
    let starts = |event: &Value, field: &str, with: &str| {
        event[field].as_str().is_some_and(|text| text.starts_with(with))
    };
    chosen(&["--from", "acme.payments.api"], &|e| e["subject"] == "acme.payments.api");
    chosen(&["--to", "acme.payments.ledger"], &|e| e["object"] == "acme.payments.ledger");
    chosen(&["--rule", "ledger.telnet"], &|e| e["rule"] == "ledger.telnet");
    chosen(&["--rule", "ledger.*"], &|e| starts(e, "rule", "ledger."));
    chosen(&["--reason", "no_rule"], &|e| e["reason"] == "no_rule");
    chosen(&["--reason", "no_rule", "--reason", "reply"], &|e| {
        e["reason"] == "no_rule" || e["reason"] == "reply"
    });
    chosen(&["--verdict", "deny"], &|e| e["verdict"] == "deny");
    chosen(&["--verdict", "permit"], &|e| e["verdict"] == "permit");
    chosen(&["--verdict", "deny", "--rule", "ledger.*"], &|e| e["rule"] == "ledger.telnet");
    let none: &[&[&str]] = &[
        &["--from", "acme.guest"],
        &["--operation", "ledger.write"],
        &["--verdict", "would-deny"],
        &["--address", "10.99.0.0/16"],
        &["--address", "::1"],
    ];
    for arguments in none {
        assert!(events(&read(arguments)).is_empty(), "{arguments:?}");
    }
    // Link control comes in between or not: it has no label, and perhaps other addresses.
    let many = |arguments: &[&str], holds: &dyn Fn(&Value) -> bool| {
        let wanted: Vec<_> = all.iter().filter(|event| holds(event)).cloned().collect();
        assert_eq!(events(&read(arguments)), wanted, "{arguments:?}");
    };
    let ends = |e: &Value, with: &str| starts(e, "source", with) || starts(e, "destination", with);
    many(&["--from", "unlabelled"], &|e| e["label"] == "absent");
    many(&["--from", "acme.payments.**"], &|e| starts(e, "subject", "acme.payments."));
    many(&["--operation", "ledger.*"], &|e| starts(e, "operation", "ledger."));
    many(&["--iface", "eth0"], &|_| true);
    many(&["--address", "10.77.0.0/16"], &|e| ends(e, "10.77."));
    many(&["--address", "10.77.2.2"], &|e| {
        ends(e, "10.77.2.2:") || e["source"] == "10.77.2.2" || e["destination"] == "10.77.2.2"
    });
    assert_eq!(events(&read(&["--count", "2"])).len(), 2);
    // For people: one line each, without colour in a pipe.
    let told = Command::new(GOVC).args(["observe", "--read", file]).output().unwrap();
    assert_eq!(text(&told).lines().count(), all.len());
    assert!(text(&told).contains("ledger.telnet e2e.gov:"), "{}", text(&told));
    assert!(!text(&told).contains('\u{1b}'));

    // A name that nobody knows would choose nothing for ever.
    for arguments in [["--from", "acme.nobody"], ["--rule", "ledger.nothing"], ["--iface", "eth1"]]
    {
        let output = lab.b.run_govc(GOVC, &[&["observe"], &arguments[..]].concat());
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let command = ["observe", "--read", file];
        let output = Command::new(GOVC).args(command).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{output:?}");
    }
    let observer = observe(&lab.b, &["--json", "--rule", "ledger.telnet", "--count", "1"]);
    traffic(&lab);
    let output = observer.wait_with_output().unwrap();
    assert_eq!(events(&output).len(), 1);
    assert_eq!(events(&output)[0]["rule"], "ledger.telnet");
}

#[test]
fn names_are_those_of_the_generation_that_decided() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let named = |name: &str| {
        let rules = format!("policy {name} {{ on ingress  deny telnet {{ proto udp port 23 }} }}");
        image(&[&workload("acme.payments.ledger", "read"), &rules])
    };
    let send = || {
        let flow = govc_netlab::Flow { timeout: DENIED_WAIT, ..lab.to_b(false, TELNET) };
        flow.udp_exchange(4, DontFragment::Want).unwrap();
    };
    // With a reader every policy is seen before it is overwritten.
    let observer = observe(&lab.b, &["--json", "--rule", "*.telnet"]);
    send();
    for name in ["one", "two", "three"] {
        lab.b.apply(&named(name), &["eth0"]);
        send();
    }
    let found = events(&stop(observer));
    let rules: Vec<_> = found.iter().map(|event| event["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["ledger.telnet", "one.telnet", "two.telnet", "three.telnet"]);
    // Without one the older names are gone, which is said.
    send();
    lab.b.apply(&named("four"), &["eth0"]);
    send();
    lab.b.apply(&named("five"), &["eth0"]);
    send();
    let observer = observe(&lab.b, &["--backlog", "--json", "--for", "1s"]);
    let found = events(&observer.wait_with_output().unwrap());
    let told: Vec<_> = found
        .iter()
        .map(|event| (event["rule"].as_str().unwrap(), event["named"].as_bool().unwrap()))
        .collect();
    assert_eq!(told, [("rule 0", false), ("four.telnet", true), ("five.telnet", true)]);
    let names = api();
    let mut scopes = names.names().domains[0].scopes.iter();
    let api = scopes.find(|scope| scope.path == "payments.api").unwrap();
    let subject = format!("domain 7 subject {}", api.subjects.unwrap().0);
    assert_eq!(found[0]["subject"], subject);
}

#[test]
fn events_name_what_decided_while_policies_change() {
    if !kernel_available() {
        return;
    }
    const APPLIES: usize = 200;
    let lab = Lab::governed();
    let policy = |name: &str| {
        let rules = format!("policy {name} {{ on ingress\n deny telnet {{ proto udp port 23 }} }}");
        image(&[&workload("acme.payments.ledger", "read"), &rules])
    };
    // The second one's rule stands a line lower.
    let policies = [policy("one"), policy("\ntwo")];
    let first = lab.b.apply(&policies[0], &["eth0"]).generation;
    // Into a file: a pipe that nobody reads holds the observer up, and names are lost. Only its own
    // count says that it is done: those of the node hold packets of the network's own as well.
    let sent = 2 * APPLIES as u64;
    let scratch = Scratch::new();
    let kept = scratch.0.join("events");
    let kept = kept.to_str().unwrap();
    let until = ["--count", &sent.to_string(), "--for", "120s"];
    let chosen = ["--quiet", "--write", kept, "--rule", "*.telnet"];
    let observer = observe(&lab.b, &[&chosen[..], &until[..]].concat());
    let socket = udp_socket(&lab.a.namespace, address(1, 2, false), 0);
    let to = SocketAddr::new(address(2, 2, false), TELNET);
    let mut generations = vec![(first, 0)];
    for number in 1..=APPLIES {
        let _ = socket.send_to(b"before", to);
        let which = number % 2;
        generations.push((lab.b.apply(&policies[which], &["eth0"]).generation, which));
        let _ = socket.send_to(b"after", to);
    }
    assert!(observer.wait_with_output().unwrap().status.success());
    let output = Command::new(GOVC).args(["observe", "--json", "--read", kept]).output().unwrap();
    let found = events(&output);
    assert_eq!(found.len() as u64, sent, "{}", summary(&output));
    let places: Vec<String> =
        policies.iter().map(|policy| policy.names().rule_place(0).unwrap()).collect();
    assert_ne!(places[0], places[1]);
    for event in &found {
        let generation = event["generation"].as_u64().unwrap();
        let (_, which) = generations.iter().find(|(number, _)| *number == generation).unwrap();
        assert_eq!(event["named"], true, "{event}");
        assert_eq!(event["rule"], ["one.telnet", "two.telnet"][*which], "{event}");
        assert_eq!(event["place"], places[*which], "{event}");
    }
    let told: std::collections::BTreeSet<u64> =
        found.iter().map(|event| event["generation"].as_u64().unwrap()).collect();
    assert!(told.len() > APPLIES / 2, "{} generations", told.len());
}

#[test]
fn what_rules_would_do_is_told() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    lab.a.apply(&api(), &["eth0"]);
    let rules = "policy soon { on ingress  permit all { proto udp port 5432 }\n\
                 observe deny later { proto udp port 5432 } }";
    lab.b.apply(&image(&[&workload("acme.payments.ledger", "read"), rules]), &["eth0"]);
    let exchange =
        || lab.to_b(false, READ).udp_exchange(4, DontFragment::Want).unwrap().is_delivered();
    let observer = observe(&lab.b, &["--json", "--verdict", "would-deny", "--count", "1"]);
    assert!(exchange());
    let output = observer.wait_with_output().unwrap();
    let found = events(&output);
    assert_eq!(found[0]["verdict"], "permit");
    assert_eq!(found[0]["would"], "deny");
    assert_eq!(found[0]["would_rule"], "soon.later");
    // What enforcing would break, in the end and for people.
    let would = summary(&output)["would"].as_array().unwrap().clone();
    assert_eq!(would.len(), 1, "{would:?}");
    assert_eq!((&would[0]["verdict"], &would[0]["would"]), (&"permit".into(), &"deny".into()));
    assert_eq!((&would[0]["events"], &would[0]["rule"]), (&1.into(), &"soon.all".into()));
    let observer = observe(&lab.b, &[]);
    assert!(exchange() && exchange());
    let output = stop(observer);
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(told.contains("enforcing would deny what was let through: 2 events"), "{told}");
    assert!(told.contains("acme.payments.api -> acme.payments.ledger"), "{told}");
    assert!(told.contains("soon.later e2e.gov:"), "{told}");
    assert!(text(&output).contains("would-deny"), "{}", text(&output));
}

#[test]
fn captures_carry_labels_and_verdicts() {
    if !kernel_available() || !tshark_available() {
        return;
    }
    let lab = Lab::governed();
    let scratch = Scratch::new();
    let capture = scratch.0.join("events.pcapng");
    let observer = observe(&lab.b, &["--permits", "--json", "--pcapng", capture.to_str().unwrap()]);
    traffic(&lab);
    for v6 in [false, true] {
        lab.to_b(v6, READ).tcp_exchange().unwrap();
    }
    assert!(wait_until(|| lab.b.count("ingress", "no_rule") > 0));
    let shown = events(&stop(observer));
    let fields = [
        "frame.comment",
        "ip.src",
        "ipv6.src",
        "udp.dstport",
        "tcp.dstport",
        "govc.subject",
        "govc.domain",
        "frame.time_epoch",
        "ip.checksum.status",
        "frame.interface_name",
        "_ws.malformed",
        "_ws.lua.error",
    ];
    let mut command = without_settings(&scratch);
    command.args(["-X", SCRIPT, "-n", "-o", "ip.check_checksum:TRUE", "-r"]).arg(&capture);
    command.args(["-T", "fields", "-E", "separator=|"]);
    command.args(fields.iter().flat_map(|field| ["-e", field]));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let printed = text(&output);
    let rows: Vec<Vec<&str>> = printed.lines().map(|line| line.split('|').collect()).collect();
    assert_eq!(rows.len(), shown.len());
    for (row, event) in rows.iter().zip(&shown) {
        let at = |field: &str| row[fields.iter().position(|name| *name == field).unwrap()];
        let comment = at("frame.comment");
        assert!(comment.starts_with(event["verdict"].as_str().unwrap()), "{comment}");
        if let Some(rule) = event["rule"].as_str() {
            let place = event["place"].as_str().unwrap();
            assert!(comment.contains(rule) && comment.contains(place), "{comment}");
        }
        let source = if at("ip.src").is_empty() { at("ipv6.src") } else { at("ip.src") };
        assert!(event["source"].as_str().unwrap().contains(source), "{event} {row:?}");
        let port = format!("{}{}", at("udp.dstport"), at("tcp.dstport"));
        if !port.is_empty() {
            assert!(event["destination"].as_str().unwrap().ends_with(&port), "{event} {row:?}");
        }
        assert_eq!(at("govc.subject").is_empty(), event["label"] == "absent", "{event} {row:?}");
        assert!(at("_ws.malformed").is_empty() && at("_ws.lua.error").is_empty(), "{row:?}");
        assert_eq!(at("frame.interface_name"), "eth0");
        assert!(["", "1"].contains(&at("ip.checksum.status")), "{row:?}");
    }
    assert!(rows.iter().any(|row| row[4] == "5432" && !row[2].is_empty()), "TCP over IPv6");
    assert!(fs::exists(Path::new(&capture)).unwrap());
}

#[test]
fn events_are_explained_by_their_ids() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    lab.a.apply(&api(), &["eth0"]);
    let scratch = Scratch::new();
    let at = |name: &str| scratch.0.join(name);
    let workload = workload("acme.payments.ledger", "read");
    let policy = format!("package acme.e2e\nuse acme.vocabulary\n{workload}{RULES}");
    fs::write(at("rules.gov"), &policy).unwrap();
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/policies");
    let run = |directory: &Path, arguments: &[&str]| {
        let mut command = lab.b.govc(GOVC, arguments);
        lab.b.namespace.run(|| command.current_dir(directory).output()).unwrap()
    };
    let output = run(&scratch.0, &["apply", "rules.gov", "-I", examples, "--iface", "eth0"]);
    assert!(output.status.success(), "{output:?}");
    let kept = at("events");
    let kept = kept.to_str().unwrap();
    let observer = observe(&lab.b, &["--permits", "--json", "--write", kept]);
    traffic(&lab);
    assert!(wait_until(|| lab.b.count("ingress", "no_rule") > 0));
    let all = events(&stop(observer));
    let explain = |directory: &Path, arguments: &[&str]| {
        let mut command = Command::new(GOVC);
        command.args(["explain", "--events", kept]).args(arguments).current_dir(directory);
        command.output().unwrap()
    };
    let ids: Vec<&str> = all.iter().map(|event| event["id"].as_str().unwrap()).collect();
    for (event, id) in all.iter().zip(&ids) {
        let output = explain(&scratch.0, &[id, "--json"]);
        assert!(output.status.success(), "{output:?}");
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(told["event"], *event);
        // Every verdict of a rule, or of none, is reproduced; policy and interpreter agree.
        let by_rules = ["rule", "no_rule"].contains(&event["reason"].as_str().unwrap());
        let again = if by_rules { Value::Bool(true) } else { Value::Null };
        assert_eq!(told["again"], again, "{told:#}");
        assert_eq!(told["explanation"].is_object(), by_rules, "{told:#}");
        if by_rules {
            assert_eq!(told["explanation"]["verdict"], event["verdict"]);
            assert_eq!(told["explanation"]["rule"], event["rule"]);
        }
    }
    let of = |reason: &str, rule: Option<&str>| {
        let found = all.iter().find(|event| {
            event["reason"] == reason
                && event["rule"].as_str() == rule
                && event["hook"] == "ingress"
        });
        found.unwrap()["id"].as_str().unwrap().to_owned()
    };
    let denied = of("rule", Some("ledger.telnet"));
    let output = explain(&scratch.0, &[&denied[..8]]);
    let told = text(&output);
    assert!(told.starts_with(&denied) && told.contains("ledger.telnet rules.gov:"), "{told}");
    assert!(told.contains("|     deny telnet { proto tcp port 23  proto udp port 23 }"), "{told}");
    let unnamed = of("no_rule", None);
    let told = text(&explain(&scratch.0, &[&unnamed]));
    assert!(told.contains("no rule permits it"), "{told}");
    assert!(told.contains("not ledger.read  rules.gov:"), "{told}");
    assert!(told.contains("not ledger.telnet  rules.gov:"), "{told}");
    // From elsewhere, without the sources, then told where they are.
    let elsewhere = Scratch::new();
    let told = text(&explain(&elsewhere.0, &[&denied]));
    assert!(told.contains("cannot be read"), "{told}");
    let told = text(&explain(&elsewhere.0, &[&unnamed]));
    assert!(told.contains("takes the policy") && !told.contains("not ledger.read"), "{told}");
    let sources = scratch.0.to_str().unwrap();
    let told = text(&explain(&elsewhere.0, &[&unnamed, "--sources", sources]));
    assert!(told.contains("not ledger.read"), "{told}");
    // Sources that have changed are not taken for those that decided.
    fs::write(at("rules.gov"), policy.replace("port 23 ", "port 24 ")).unwrap();
    let output = explain(&scratch.0, &[&denied]);
    let told = text(&output);
    assert!(output.status.success() && told.contains("has changed since"), "{output:?}");
    assert!(told.contains("are not those that decided"), "{told}");
    let output = explain(&scratch.0, &["rules.gov", &denied, "-I", examples]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert_eq!(explain(&scratch.0, &["ffffffffffff"]).status.code(), Some(1));
    assert_eq!(explain(&scratch.0, &[""]).status.code(), Some(2), "several begin so");
}

#[test]
fn claims_end_with_their_reader() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let output = lab.b.run_govc(GOVC, &["observe"]);
    assert_eq!(output.status.code(), Some(3));
    lab.b.apply(&ledger(), &["eth0"]);
    // The claim of a reader that was killed ends with it.
    let mut observer = observe(&lab.b, &[]);
    observer.kill().unwrap();
    observer.wait().unwrap();
    assert!(lab.b.run_govc(GOVC, &["observe", "--count", "0"]).status.success());
    lab.b.detach(&[]);
    assert!(!lab.b.place.dir().exists());
}

#[test]
fn interfaces_have_their_names_where_they_are() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    // The router has interfaces with indices of its own, which may be those of B's.
    let start = |arguments: &[&str]| {
        let mut command = lab.b.govc(GOVC, &[&["observe"], arguments].concat());
        lab.router.run(|| command.spawn()).unwrap()
    };
    let observer = start(&["--json", "--rule", "ledger.telnet", "--count", "1"]);
    assert!(wait_until(|| lab.b.status().events.reader));
    traffic(&lab);
    let found = events(&observer.wait_with_output().unwrap());
    assert_eq!(found[0]["interface"], Value::Null, "{}", found[0]);
    let index = lab.b.status().interfaces[0].attached.index;
    assert_eq!(found[0]["ifindex"], index);
    for name in ["to_a", "to_b", "eth0"] {
        let output = start(&["--iface", name, "--count", "0"]).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {output:?}");
    }
    let output =
        start(&["--iface", &index.to_string(), "--count", "0"]).wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn what_ends_an_observer_costs_no_summary() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let scratch = Scratch::new();
    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    // No room for the file.
    let kept = scratch.0.join("events");
    let inner =
        lab.b.govc(GOVC, &["observe", "--permits", "--json", "--write", kept.to_str().unwrap()]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let observer = lab.b.namespace.run(|| command.spawn()).unwrap();
    assert!(wait_until(|| lab.b.status().events.permits));
    traffic(&lab);
    let output = observer.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let end = summary(&output);
    assert!(end["shown"].as_u64().unwrap() > 0 && end["events"]["counted"].is_u64(), "{end}");
    assert!(end["ended"].as_str().unwrap().starts_with("cannot write `"), "{end}");
    assert!(told(&output).contains("help: "), "{}", told(&output));
    assert!(!lab.b.status().events.permits);
    // No instance any more.
    for arguments in [&["--json"][..], &[]] {
        lab.b.apply(&ledger(), &["eth0"]);
        let observer = observe(&lab.b, arguments);
        traffic(&lab);
        lab.b.detach(&[]);
        let output = observer.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let told = told(&output);
        assert!(told.contains("was detached meanwhile") && told.contains("help: "), "{told}");
        if arguments.is_empty() {
            assert!(told.contains(" counted = ") && told.contains("ended early: "), "{told}");
        } else {
            let end = summary(&output);
            let number = |field: &str| end["events"][field].as_u64().unwrap();
            assert_eq!(number("read") + number("waiting") + number("lost_rate"), number("counted"));
            assert_eq!((number("waiting"), number("read")), (0, end["shown"].as_u64().unwrap()));
            assert!(number("read") >= 2, "{end}");
        }
    }
}

#[test]
fn an_instance_that_is_made_anew_is_another_one() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let observer = observe(&lab.b, &["--json"]);
    traffic(&lab);
    lab.b.detach(&[]);
    let rules = "policy other { on ingress  deny else { proto udp port 23 } }";
    lab.b.apply(&image(&[&workload("acme.payments.ledger", "read"), rules]), &["eth0"]);
    // Its events are somebody else's, and so is whether permits are reported.
    status::report_permits(&lab.b.place, true).unwrap();
    let output = observer.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let end = summary(&output);
    assert!(end["ended"].as_str().unwrap().contains("was detached meanwhile"), "{end}");
    for event in events(&output) {
        assert_ne!(event["rule"], "other.else", "{event}");
    }
    assert!(lab.b.status().events.permits);
}
