//! Labels by the cgroup of the sender.

use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use govc_tests::{
    kernel_available,
    lab::{BOTH_VERSIONS, Lab, READ, ledger},
    node::{Node, address, drain, image, receive, udp_socket, wait_until},
    replay::Recording,
    wireshark::Scratch,
};
use serde_json::{Value, json};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// Tells the child of [`the_cgroup_of_a_sender_chooses_its_label`] its cgroup's directory, and
/// where to send.
const SENDER: &str = "GOVC_TESTS_SENDER";

#[test]
fn the_child_sends_from_its_cgroup() {
    let Ok(order) = env::var(SENDER) else { return };
    let [dir, ip, port] = order.split(' ').collect::<Vec<_>>().try_into().unwrap();
    if !dir.is_empty() {
        fs::write(Path::new(dir).join("cgroup.procs"), "0").unwrap();
    }
    let to = SocketAddr::new(ip.parse().unwrap(), port.parse().unwrap());
    // A socket belongs to the cgroup in which it was made.
    let local: IpAddr =
        if to.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    UdpSocket::bind((local, 0)).unwrap().send_to(b"from a cgroup", to).unwrap();
}

/// Cgroups of this test, gone with it.
struct Cgroups(PathBuf);

impl Cgroups {
    fn new(test: &str) -> Self {
        let root = govc_loader::cgroup::root().expect("a cgroup2 hierarchy");
        Self(root.join(format!("govc-{test}-{}", std::process::id())))
    }

    fn path(&self) -> String {
        format!("/{}", self.0.file_name().unwrap().to_string_lossy())
    }

    fn make(&self, below: &str) -> PathBuf {
        let dir = self.0.join(below);
        fs::create_dir_all(&dir).unwrap();
        dir
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let _ = fs::remove_dir(self.0.join("api-1/inner"));
        for below in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            let _ = fs::remove_dir(below.path());
        }
        let _ = fs::remove_dir(&self.0);
    }
}

#[test]
fn the_cgroup_of_a_sender_chooses_its_label() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let cgroups = Cgroups::new("sender");
    let path = cgroups.path();
    let [inner, web, other] = ["api-1/inner", "web", "other"].map(|below| cgroups.make(below));
    lab.a.apply(
        &image(&[&format!(
            "zone lan = interface \"eth0\"\n\
             stamp on lan when cgroup \"{path}/api*\" {{ \
                 subject acme.payments.api  operation ledger.read  residency eu }}\n\
             stamp on lan when cgroup \"{path}/web\" {{ \
                 subject acme.web.front  operation ledger.read  residency eu }}\n"
        )]),
        &["eth0"],
    );
    lab.b.apply(&ledger(), &["eth0"]);
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    for v6 in BOTH_VERSIONS {
        let to = address(2, 2, v6);
        let server = udp_socket(&lab.b.namespace, to, READ);
        let send = |dir: &Path| send_from(&lab, dir, to);
        let count = |node: &Node, hook, reason| node.count(hook, reason);
        send(&inner);
        assert_eq!(receive(&server, 1).len(), 1, "below a cgroup that the pattern matches");
        let before = count(&lab.b, "ingress", "no_rule");
        send(&web);
        assert_eq!(count(&lab.b, "ingress", "no_rule"), before + 1, "another subject");
        let before = count(&lab.a, "egress", "no_subject");
        send(&other);
        send(Path::new(""));
        assert_eq!(count(&lab.a, "egress", "no_subject"), before + 2, "no stamp rule speaks");
        assert_eq!(drain(&server).len(), 0);
    }
    recording.replay(GOVC, &[]);
    told_with_its_cgroup(&lab, &inner, &format!("{path}/api-1/inner"));
}

#[test]
fn a_new_cgroup_that_takes_too_long_to_compare_is_nobody_until_the_next_apply() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    let cgroups = Cgroups::new("slow");
    let path = cgroups.path();
    let (run, end) = ("a".repeat(80), "b");
    let policy = image(&[&format!(
        "zone lan = interface \"eth0\"\n\
         stamp on lan when cgroup \"{path}/*{run}{end}\" {{ subject acme.web.front }}\n\
         stamp on lan when cgroup \"{path}/*\" {{ \
             subject acme.payments.api  operation ledger.read  residency eu }}\n"
    )]);
    lab.a.apply(&policy, &["eth0"]);
    lab.b.apply(&ledger(), &["eth0"]);
    let to = address(2, 2, false);
    let server = udp_socket(&lab.b.namespace, to, READ);
    // It begins like what follows the star of the first pattern again and again.
    let slow = cgroups.make(&format!("{}{end}", "a".repeat(200)));
    let quick = cgroups.make("other");
    send_from(&lab, &quick, to);
    assert_eq!(receive(&server, 1).len(), 1, "the second pattern");
    let before = lab.a.count("egress", "no_subject");
    send_from(&lab, &slow, to);
    assert_eq!(lab.a.count("egress", "no_subject"), before + 1, "neither pattern");
    lab.a.apply(&policy, &[]);
    let before = lab.b.count("ingress", "no_rule");
    send_from(&lab, &slow, to);
    assert_eq!(lab.b.count("ingress", "no_rule"), before + 1, "the first pattern");
    assert!(drain(&server).is_empty());
}

/// Sends a datagram from A, out of a cgroup.
fn send_from(lab: &Lab, dir: &Path, to: IpAddr) {
    let mut child = Command::new(env::current_exe().unwrap());
    child
        .args(["--exact", "the_child_sends_from_its_cgroup"])
        .env(SENDER, format!("{} {to} {READ}", dir.display()))
        .stdout(Stdio::null());
    assert!(lab.a.namespace.run(|| child.status()).unwrap().success());
}

/// Events of what leaves tell the cgroup of the sender, live and out of a file.
fn told_with_its_cgroup(lab: &Lab, dir: &Path, path: &str) {
    let to = address(2, 2, false);
    let scratch = Scratch::new();
    let file = scratch.0.join("events");
    let file = file.to_str().unwrap();
    let wanted = ["--address", &to.to_string(), "--count", "1", "--json"];
    let live = ["observe", "--permits", "--write", file];
    let child = lab.a.start_govc(GOVC, &[&live[..], &wanted[..]].concat());
    assert!(wait_until(|| lab.a.status().events.reader && lab.a.status().events.permits));
    send_from(lab, dir, to);
    let told = |output: Output| -> Value {
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        serde_json::from_str(text.lines().next().unwrap()).unwrap()
    };
    let event = told(child.wait_with_output().unwrap());
    assert_eq!((&event["hook"], &event["cgroup"]), (&json!("egress"), &json!(path)), "{event}");
    assert_eq!((&event["from_zone"], &event["to_zone"]), (&json!(null), &json!("lan")), "{event}");
    let again = told(lab.a.run_govc(GOVC, &["observe", "--read", file, "--json"]));
    assert_eq!(again, event);
    let id = event["id"].as_str().unwrap();
    let output = Command::new(GOVC).args(["explain", "--events", file, id, "--json"]).output();
    assert_eq!(told_whole(output.unwrap())["again"], json!(true));
}

fn told_whole(output: Output) -> Value {
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}
