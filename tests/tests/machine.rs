//! `govc doctor` and `govc metrics` on a machine with an instance, and on one with troubles.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::process::CommandExt as _,
    process::Output,
};

use govc_loader::keyring::{DomainKeys, EPOCH_SHIFT_DEFAULT, KeyRing};
use govc_netlab::DontFragment;
use govc_tests::{
    kernel_available,
    lab::{Lab, READ, api, ledger},
    node::{How, Node},
};
use openmetrics_parser::openmetrics::parse_openmetrics;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// What was looked at, with states and messages.
fn findings(output: &Output) -> Vec<(String, String, String)> {
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
    let list = list.as_array().unwrap().iter();
    let found: Vec<_> = list
        .map(|one| {
            // Whatever is not well comes with advice.
            assert_eq!(one["help"].is_string(), one["state"] != "ok", "{one}");
            (text(one, "check"), text(one, "state"), text(one, "message"))
        })
        .collect();
    let is = |state: &str| found.iter().any(|(_, found, _)| found == state);
    let code = if is("fail") { 3 } else { i32::from(is("warn")) };
    assert_eq!(output.status.code(), Some(code), "{output:?}");
    found
}

fn doctor(node: &Node, arguments: &[&str]) -> Vec<(String, String, String)> {
    findings(&node.run_govc(GOVC, &[&["doctor", "--json"], arguments].concat()))
}

/// The state of a check whose message holds something.
fn state<'f>(found: &'f [(String, String, String)], check: &str, part: &str) -> &'f str {
    let is = |one: &&(String, String, String)| one.0 == check && one.2.contains(part);
    found.iter().find(is).map_or_else(|| panic!("no {check} `{part}`: {found:#?}"), |one| &one.1)
}

#[test]
fn doctor_finds_what_is_well() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let found = doctor(&lab.b, &[]);
    for (check, part) in [
        ("kernel", "Linux "),
        ("btf", "types"),
        ("cgroups", "as they are made"),
        ("privileges", "all"),
        ("tcx", "can be attached"),
        ("bpffs", "mounted"),
        ("interface", "eth0: veth, MTU 1500"),
        ("clock", "TAI"),
        ("instance", "generation 1 of"),
        ("routes", "eth0: room for labels"),
    ] {
        assert_eq!(state(&found, check, part), "ok", "{check}");
    }
    // Epochs of nine hours: two of them end within a day at any time of it, and six do not.
    let ring = KeyRing::new(std::env::temp_dir().join(format!("govc-keys-{}", std::process::id())));
    for (staged, wanted, part) in [(1, "warn", "acme: keys end in "), (6, "ok", "acme: keys for ")]
    {
        ring.write(&DomainKeys::generate("acme", 7, EPOCH_SHIFT_DEFAULT, staged).unwrap()).unwrap();
        let found = doctor(&lab.b, &["--keys", ring.dir().to_str().unwrap()]);
        assert_eq!(state(&found, "keys", part), wanted, "{staged}");
    }
    std::fs::remove_dir_all(ring.dir()).unwrap();
    // For people: a line each, and no colour in a pipe.
    let told = lab.b.run_govc(GOVC, &["doctor", "--iface", "eth0"]);
    let told = String::from_utf8(told.stdout).unwrap();
    assert!(told.lines().any(|line| line.starts_with("ok   kernel     Linux ")), "{told}");
    assert!(!told.contains('\u{1b}') && !told.contains("lo:"), "{told}");
}

#[test]
fn doctor_finds_what_is_wrong() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    assert_eq!(state(&doctor(&lab.b, &[]), "instance", "holds no policy"), "ok");
    assert_eq!(state(&doctor(&lab.b, &["--iface", "none"]), "interface", "`none`"), "warn");
    let empty = std::env::temp_dir().join(format!("govc-no-keys-{}", std::process::id()));
    let keys = ["--keys", empty.to_str().unwrap()];
    assert_eq!(state(&doctor(&lab.b, &keys), "keys", "no keys in"), "warn");
    // Packets that leave no room for a label.
    let how = How { set_mtu: false, ..How::default() };
    lab.b.try_apply(&ledger(), &["eth0"], how).unwrap();
    let found = doctor(&lab.b, &[]);
    assert_eq!(state(&found, "routes", "IPv4 routes without room"), "warn");
    assert_eq!(state(&found, "routes", "an IPv6 MTU of 1500"), "warn");
    lab.b.apply(&ledger(), &["eth0"]);
    assert_eq!(state(&doctor(&lab.b, &[]), "routes", "room for labels"), "ok");
    // An observer that was killed.
    govc_loader::status::report_permits(&lab.b.place, true).unwrap();
    assert_eq!(state(&doctor(&lab.b, &[]), "instance", "nobody reads"), "warn");
    // Somebody who may do nothing learns that, and nothing about keys.
    let mut command = lab.b.govc(GOVC, &["doctor", "--json"]);
    command.uid(65534).gid(65534);
    let found = findings(&lab.b.namespace.run(|| command.output()).unwrap());
    assert_eq!(state(&found, "privileges", "CAP_NET_ADMIN"), "warn");
    assert!(found.iter().all(|(check, _, message)| check != "keys" || !message.contains("acme")));
}

/// A directory that goes with its test.
struct Directory(std::path::PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("govc-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs a program that runs govc in other circumstances.
fn run_by(node: &Node, program: &[&str], arguments: &[&str]) -> Output {
    let [program, options @ ..] = program else { panic!("a program") };
    let inner = node.govc(GOVC, arguments);
    let mut command = std::process::Command::new(program);
    command.args(options).arg(inner.get_program()).args(inner.get_args());
    command.env("GOVC_KEYS", node.keys().ring().dir()).env_remove("GOVC_LOG");
    node.namespace.run(|| command.output()).unwrap()
}

#[test]
fn nothing_is_mounted_where_it_would_not_stay() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let files = Directory::new("mount");
    let image = files.0.join("policy.image");
    std::fs::write(&image, ledger().bytes()).unwrap();
    let empty = files.0.join("bpf");
    std::fs::create_dir(&empty).unwrap();
    let apply = |at: &std::path::Path| {
        let (image, at) = (image.to_str().unwrap(), at.to_str().unwrap());
        ["apply", "--image", image, "--iface", "eth0", "--bpffs", at].map(str::to_owned)
    };
    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    // As under `ip netns exec`: the pins would go with the command.
    let private = ["unshare", "--mount"];
    let arguments = apply(&empty);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let refused = run_by(&lab.b, &private, &arguments);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(told(&refused).contains("nsenter --net="), "{refused:?}");
    let look = ["doctor", "--json", "--bpffs", empty.to_str().unwrap()];
    let found = findings(&run_by(&lab.b, &private, &look));
    assert_eq!(state(&found, "bpffs", "ends with this mount namespace"), "fail");
    assert_eq!(state(&doctor(&lab.b, &look[2..]), "bpffs", "`apply` will mount it"), "ok");
    // Nor over what is there.
    let full = files.0.to_str().unwrap();
    assert_eq!(state(&doctor(&lab.b, &["--bpffs", full]), "bpffs", "no empty directory"), "fail");
    let arguments = apply(&files.0);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let refused = lab.b.run_govc(GOVC, &arguments);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(image.is_file() && !files.0.join("govc").exists());
    // What is mounted is there in such a namespace too, and stays.
    assert_eq!(
        state(&findings(&run_by(&lab.b, &private, &["doctor", "--json"])), "bpffs", "mounted"),
        "ok"
    );
}

#[test]
fn what_may_not_be_seen_is_not_taken_for_absent() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let commands: &[&[&str]] = &[
        &["status"],
        &["observe", "--count", "0"],
        &["serve", "--listen", "127.0.0.1:0"],
        &["metrics"],
        &["confirm"],
    ];
    for command in commands {
        let output = run_by(&lab.b, &nobody, command);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(3), "{command:?}: {told}");
        assert!(told.contains("missing privileges") && told.contains("help: "), "{told}");
    }
    // Whoever scrapes learns that nothing is known, not that there is no policy.
    let inner = lab.b.govc(GOVC, &["metrics", "--listen", "127.0.0.1:0"]);
    let mut command = std::process::Command::new("setpriv");
    command.args(&nobody[1..]).arg(inner.get_program()).args(inner.get_args());
    command.stdout(std::process::Stdio::piped());
    let mut child = lab.b.namespace.run(|| command.spawn()).unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().trim_start_matches("http://").trim_end_matches("/metrics");
    let mut stream = lab.b.namespace.run(|| TcpStream::connect(address)).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    assert!(answer.contains("missing privileges") && !answer.contains("govc_up"), "{answer}");
}

#[test]
fn capabilities_that_suffice_suffice_and_others_are_named() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let files = Directory::new("capabilities");
    let image = files.0.join("policy.image");
    std::fs::write(&image, ledger().bytes()).unwrap();
    let apply = ["apply", "--image", image.to_str().unwrap(), "--iface", "eth0"];
    let with = |set: &str| [format!("--bounding-set=-all,{set}"), "--inh-caps=-all".to_owned()];
    let by = |options: &[String; 2], arguments: &[&str]| {
        run_by(&lab.b, &["setpriv", &options[0], &options[1]], arguments)
    };
    let few = with("+bpf,+net_admin");
    let found = findings(&by(&few, &["doctor", "--json"]));
    assert_eq!(state(&found, "privileges", "CAP_PERFMON"), "warn");
    let output = by(&few, &apply);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(told.contains("missing privileges: CAP_PERFMON"), "{told}");
    assert!(told.contains("help: ") && told.lines().count() < 5, "{told}");
    let enough = with("+bpf,+net_admin,+perfmon");
    let found = findings(&by(&enough, &["doctor", "--json"]));
    assert_eq!(state(&found, "privileges", "all"), "ok");
    let output = by(&enough, &apply);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(lab.b.generation(), 1);
}

#[test]
fn how_many_events_there_may_be_is_said_and_told() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let files = Directory::new("rate");
    let image = files.0.join("policy.image");
    std::fs::write(&image, ledger().bytes()).unwrap();
    let apply = ["apply", "--image", image.to_str().unwrap()];
    assert_eq!(lab.b.status().events.rate, 10_000);
    let output = lab.b.run_govc(GOVC, &[&apply[..], &["--event-rate", "77"]].concat());
    assert!(output.status.success(), "{output:?}");
    // It is the instance's: another policy changes nothing about it.
    assert!(lab.b.run_govc(GOVC, &apply).status.success());
    assert_eq!(lab.b.status().events.rate, 77);
    let told = lab.b.run_govc(GOVC, &["status"]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("77 a second on each CPU"), "{told:?}");
    let none = lab.b.run_govc(GOVC, &[&apply[..], &["--event-rate", "0"]].concat());
    assert_eq!(none.status.code(), Some(2), "{none:?}");
}

/// Samples of an OpenMetrics text by name and labels.
fn samples(text: &str) -> BTreeMap<String, f64> {
    parse_openmetrics(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.rsplit_once(' '));
    pairs.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

#[test]
fn metrics_are_what_was_counted() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    lab.a.apply(&api(), &["eth0"]);
    let output = lab.b.run_govc(GOVC, &["metrics"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    lab.b.apply(&ledger(), &["eth0"]);
    for _ in 0..5 {
        let exchange = lab.to_b(false, READ).udp_exchange(4, DontFragment::Want).unwrap();
        assert!(exchange.is_delivered());
    }
    let output = lab.b.run_govc(GOVC, &["metrics"]);
    let printed = samples(&String::from_utf8(output.stdout).unwrap());
    let rule = |name: &str| {
        let wanted = format!("govc_rule_packets_total{{policy=\"ledger\",rule=\"{name}\"");
        printed.iter().find(|(sample, _)| sample.starts_with(&wanted)).map(|(_, value)| *value)
    };
    // Replies are counted with the rule that let the flow in.
    assert_eq!(rule("read"), Some(lab.b.decided("ledger.read") as f64), "{printed:#?}");
    assert_eq!(rule("read"), Some(10.0));
    assert_eq!(rule("telnet"), Some(0.0), "{printed:#?}");
    let decided = "govc_packets_total{hook=\"ingress\",reason=\"rule\",verdict=\"rule\"}";
    assert_eq!(printed[decided], lab.b.count("ingress", "rule") as f64);

    // Served, also when there is no policy any more.
    let mut child = lab.b.start_govc(GOVC, &["metrics", "--listen", "127.0.0.1:0"]);
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().trim_start_matches("http://").trim_end_matches("/metrics").to_owned();
    let scrape = || {
        let mut stream = lab.b.namespace.run(|| TcpStream::connect(&address)).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("application/openmetrics-text; version=1.0.0"), "{head}");
        samples(body)
    };
    let served = scrape();
    assert_eq!((served["govc_up"], served["govc_generation"]), (1.0, 1.0));
    let read = |(name, _): &(&String, &f64)| name.contains("rule=\"read\"");
    assert_eq!(served.iter().find(read), printed.iter().find(read));
    lab.b.detach(&[]);
    let served = scrape();
    assert_eq!(served["govc_up"], 0.0);
    assert!(!served.contains_key("govc_generation"));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(child.wait().unwrap().success());
}
