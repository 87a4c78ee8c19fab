//! `govc run`: commands under a label, which know nothing of it.

use std::{
    net::SocketAddr,
    process::{Command, Output},
};

use govc_image::Image;
use govc_tests::{
    kernel_available,
    lab::{BOTH_VERSIONS, Lab, READ, RULES, replayed},
    node::{address, drain, image, receive, tcp_listener, udp_socket, wait_until, workload},
    replay::Recording,
    wireshark::Scratch,
};

const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// A's policy: nobody has a subject but who is run with one.
fn grants() -> Image {
    image(&["zone lan = interface \"eth0\"
             stamp on lan when cgroup \"/govc.run/acme.payments.api/*\" {
                 subject acme.payments.api  operation ledger.read or ledger.export  residency eu
             }
             stamp on lan when cgroup \"/govc.run/acme.web*\" {
                 subject acme.web.front  operation ledger.read
             }"])
}

/// B's policy: the API may export.
fn exports() -> Image {
    let rules = "policy ledger {
        on ingress to acme.payments.ledger
        permit export { from acme.payments.api  operation ledger.export  proto udp port 5432 }
    }";
    image(&[&workload("acme.payments.ledger", "read"), rules])
}

fn lab() -> Lab {
    let lab = Lab::bare();
    lab.a.apply(&grants(), &["eth0"]);
    lab.b.apply(&exports(), &["eth0"]);
    lab
}

fn run(lab: &Lab, options: &[&str], command: &[&str]) -> Output {
    let mut process = lab.a.govc(GOVC, &[&["run"], options].concat());
    process.arg("--").args(command);
    lab.a.namespace.run(|| process.output()).unwrap()
}

/// A command of a shell that sends a datagram to B.
fn datagram(text: &str, v6: bool) -> String {
    format!("printf '{text}' > /dev/udp/{}/{READ}", address(2, 2, v6))
}

const EXPORT: [&str; 4] = ["--subject", "acme.payments.api", "--operation", "ledger.export"];

#[test]
fn commands_get_the_label_that_was_asked_for() {
    if !kernel_available() {
        return;
    }
    let lab = lab();
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    for v6 in BOTH_VERSIONS {
        let server = udp_socket(&lab.b.namespace, address(2, 2, v6), READ);
        let output = run(&lab, &EXPORT, &["bash", "-c", &datagram("export", v6)]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(receive(&server, 1), [b"export"]);
        // What the command starts goes with it.
        let inner = datagram("below", v6);
        let output = run(&lab, &EXPORT, &["bash", "-c", "bash -c \"$0\"; true", &inner]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(receive(&server, 1), [b"below"]);
        // Without an operation the first one of the stamp rule: B lets nobody read.
        let denied = lab.b.count("ingress", "no_rule");
        run(&lab, &EXPORT[..2], &["bash", "-c", &datagram("read", v6)]);
        assert!(wait_until(|| lab.b.count("ingress", "no_rule") == denied + 1));
        // And outside nobody has a subject.
        let unknown = lab.a.count("egress", "no_subject");
        let to = SocketAddr::new(address(2, 2, v6), READ);
        let _ = udp_socket(&lab.a.namespace, address(1, 2, v6), 0).send_to(b"bare", to);
        assert!(wait_until(|| lab.a.count("egress", "no_subject") == unknown + 1));
        assert!(drain(&server).is_empty());
    }
    assert!(recording.replay(GOVC, &[]).len() >= 6);
}

#[test]
fn sockets_declare_no_other_operation_than_that_of_the_run() {
    if !kernel_available() {
        return;
    }
    let lab = lab();
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    let server = udp_socket(&lab.b.namespace, address(2, 2, false), READ);
    let script = format!(
        "import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
told = []
for name in sys.argv[1:]:
    try:
        sock.setsockopt(0x676F76, 1, name.encode())
        told.append('yes')
    except PermissionError:
        told.append('no')
sock.sendto(' '.join(told).encode(), ('{}', {READ}))",
        address(2, 2, false)
    );
    let names = ["ledger.read", "", "ledger.export"];
    let command: Vec<&str> = ["python3", "-c", &script].into_iter().chain(names).collect();
    let output = run(&lab, &EXPORT, &command);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(receive(&server, 1), [b"no no yes"]);
    // Where the run leaves it open, the socket chooses.
    let output = run(&lab, &EXPORT[..2], &command);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(receive(&server, 1), [b"yes yes yes"]);
    assert!(recording.replay(GOVC, &[]).len() >= 2);
}

#[test]
fn what_no_stamp_rule_grants_is_not_run() {
    if !kernel_available() {
        return;
    }
    let lab = lab();
    let scratch = Scratch::new();
    let started = scratch.0.join("started");
    let refusals: [(&[&str], &str); 4] = [
        (&["--subject", "acme.guest"], "speaks for the cgroup `/govc.run/acme.guest/"),
        (&["--subject", "acme.webs"], "another subject than `acme.webs`"),
        (
            &["--subject", "acme.payments.api", "--operation", "ledger.write"],
            "grants the operation `ledger.write`",
        ),
        (&["--subject", "../escape"], "is no subject"),
    ];
    for (options, said) in refusals {
        let output = run(&lab, options, &["touch", started.to_str().unwrap()]);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains(said), "{text}");
        assert!(matches!(output.status.code(), Some(2 | 3)), "{text}");
    }
    assert!(!started.exists());
    let root = govc_loader::cgroup::root().unwrap();
    for subject in ["acme.guest", "acme.webs"] {
        assert!(!root.join("govc.run").join(subject).exists());
    }
}

#[test]
fn a_run_ends_as_its_command_does_and_leaves_nothing() {
    if !kernel_available() {
        return;
    }
    let lab = lab();
    let code = |command: &[&str]| run(&lab, &EXPORT, command).status.code();
    assert_eq!(code(&["true"]), Some(0));
    assert_eq!(code(&["sh", "-c", "exit 7"]), Some(7));
    assert_eq!(code(&["sh", "-c", "kill -9 $$"]), Some(128 + 9));
    assert_eq!(code(&["/nowhere/govc-test"]), Some(127));
    assert_eq!(code(&["/etc/passwd"]), Some(126));
    // Signals for the tool are meant for the command.
    let mut process = lab.a.govc(GOVC, &[&["run"], &EXPORT[..]].concat());
    process.args(["--", "sh", "-c", "trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done"]);
    process.stdout(std::process::Stdio::piped());
    let mut child = lab.a.namespace.run(|| process.spawn()).unwrap();
    let mut line = String::new();
    let output = child.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    assert_eq!(line, "up\n");
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(9));
    let above = govc_loader::cgroup::root().unwrap().join("govc.run/acme.payments.api");
    assert!(!above.join(id).exists());
}

#[test]
fn cgroups_made_after_an_apply_have_their_label_at_once() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::bare();
    lab.b.apply(&image(&[&workload("acme.payments.ledger", "read"), RULES]), &["eth0"]);
    let name = format!("govc-late-{}", std::process::id());
    let stamp = format!(
        "zone lan = interface \"eth0\"
         stamp on lan when cgroup \"/{name}/other\" {{ subject acme.web.front }}
         stamp on lan when cgroup \"/{name}/a*-p*d\" {{
             subject acme.payments.api  operation ledger.read  residency eu
         }}"
    );
    lab.a.apply(&image(&[&stamp]), &["eth0"]);
    let root = govc_loader::cgroup::root().unwrap();
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    let server = udp_socket(&lab.b.namespace, address(2, 2, false), READ);
    // A star takes slashes too, and a pattern covers what lies below.
    for (path, has_subject) in [
        ("api-pod", true),
        ("api-pod/inner/most", true),
        ("a/b-p/d", true),
        ("a-pd-pdx", false),
        ("xapi-pod", false),
        ("api-pod-and-more-p", false),
        ("api-po", false),
    ] {
        let dir = root.join(&name).join(path);
        std::fs::create_dir_all(&dir).unwrap();
        let unknown = lab.a.count("egress", "no_subject");
        let order = format!("echo 0 > {}/cgroup.procs; {}", dir.display(), datagram(path, false));
        let sent = lab.a.namespace.run(|| Command::new("bash").args(["-c", &order]).status());
        assert!(sent.unwrap().success());
        if has_subject {
            assert_eq!(receive(&server, 1), [path.as_bytes()]);
        } else {
            assert!(wait_until(|| lab.a.count("egress", "no_subject") == unknown + 1), "{path}");
        }
        // The loader's own search, which the next apply asks, says the same.
        let patterns = [format!("/{name}/other"), format!("/{name}/a*-p*d")];
        let number = govc_loader::cgroup::number_of(&patterns, &format!("/{name}/{path}"));
        assert_eq!(number, if has_subject { 2 } else { 0 }, "{path}");
    }
    assert!(recording.replay(GOVC, &[]).len() >= 3);
    // What has gone takes no room.
    let held = lab.a.known_cgroups();
    assert!(held >= 3);
    let below = ["api-pod/inner/most", "api-pod/inner", "api-pod", "a/b-p/d", "a/b-p", "a"];
    for path in
        below.into_iter().chain(["a-pd-pdx", "xapi-pod", "api-pod-and-more-p", "api-po", ""])
    {
        std::fs::remove_dir(root.join(&name).join(path)).unwrap();
    }
    assert!(wait_until(|| lab.a.known_cgroups() == 0), "{held}: {}", lab.a.known_cgroups());
}

#[test]
fn accepted_sockets_take_over_what_the_listening_one_declared() {
    use std::{io::Write as _, os::fd::AsRawFd as _};
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let recordings = lab.record();
    for v6 in BOTH_VERSIONS {
        let to = SocketAddr::new(address(2, 2, v6), READ);
        let accept = |declared: &str| {
            let listener = tcp_listener(&lab.b.namespace, to);
            govc_client::declare(listener.as_raw_fd(), declared).unwrap();
            let client = lab.a.namespace.run(|| std::net::TcpStream::connect(to).unwrap());
            let (mut server, _) = listener.accept().unwrap();
            server.write_all(b"answer").unwrap();
            (client, server)
        };
        let refused = lab.b.count("egress", "operation_ungranted");
        let _granted = accept("ledger.read");
        assert_eq!(lab.b.count("egress", "operation_ungranted"), refused);
        let _ungranted = accept("ledger.export");
        assert!(wait_until(|| lab.b.count("egress", "operation_ungranted") > refused));
    }
    replayed(recordings, GOVC);
}
