//! Operations that sockets declare: one process, one port, as many verdicts as operations, and no
//! payload read.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::Path,
    process::Command,
    time::Duration,
};

use govc_client::{DeclareError, declare};
use govc_image::Image;
use govc_tests::{
    kernel_available,
    lab::{BOTH_VERSIONS, Lab, READ, replayed},
    node::{
        DENIED_WAIT, PATIENCE, address, drain, image, receive, tcp_listener, udp_socket,
        wait_until, workload,
    },
    replay::Recording,
};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// A's policy: what its workload may declare.
fn sender() -> Image {
    let grants = workload("acme.payments.api", "read")
        .replace("operation ledger.read", "operation ledger.read or ledger.export");
    assert!(grants.contains("or ledger.export"));
    image(&[&grants])
}

/// B's policy: one operation of the API's is let in.
fn receiver(operation: &str) -> Image {
    let rules = format!(
        "policy ledger {{
            on ingress to acme.payments.ledger
            permit chosen {{ from acme.payments.api  operation ledger.{operation}  proto udp port 5432  proto tcp port 5432 }}
        }}"
    );
    image(&[&workload("acme.payments.ledger", "read"), &rules])
}

fn lab(operation: &str) -> Lab {
    let lab = Lab::bare();
    lab.a.apply(&sender(), &["eth0"]);
    lab.b.apply(&receiver(operation), &["eth0"]);
    lab
}

/// Payloads of protocols that nobody wrote a parser for: nothing, a QUIC initial packet's first bytes,
/// a TLS record's, noise.
fn payloads() -> [Vec<u8>; 4] {
    let noise = (0..200_u32).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 13) as u8).collect();
    let quic = [&[0xc3, 0, 0, 0, 1, 8][..], &[7; 60]].concat();
    [Vec::new(), quic, vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3], noise]
}

#[test]
fn two_sockets_of_one_process_get_two_verdicts() {
    if !kernel_available() {
        return;
    }
    let lab = lab("export");
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    for v6 in BOTH_VERSIONS {
        let to = SocketAddr::new(address(2, 2, v6), READ);
        let server = udp_socket(&lab.b.namespace, to.ip(), READ);
        let (reads, exports) = (
            udp_socket(&lab.a.namespace, address(1, 2, v6), 0),
            udp_socket(&lab.a.namespace, address(1, 2, v6), 0),
        );
        declare(exports.as_raw_fd(), "ledger.export").unwrap();
        let denied = lab.b.count("ingress", "no_rule");
        for payload in payloads() {
            reads.send_to(&payload, to).unwrap();
            exports.send_to(&payload, to).unwrap();
            assert_eq!(receive(&server, 1), [payload], "v6 {v6}");
        }
        assert!(wait_until(|| lab.b.count("ingress", "no_rule") == denied + 4));
        // Only the operation makes the difference.
        lab.b.apply(&receiver("read"), &[]);
        reads.send_to(b"read", to).unwrap();
        exports.send_to(b"export", to).unwrap();
        assert_eq!(receive(&server, 1), [b"read"]);
        assert!(wait_until(|| lab.b.count("ingress", "no_rule") == denied + 5));
        // And what was declared can be declared otherwise, or no more.
        declare(exports.as_raw_fd(), "ledger.read").unwrap();
        exports.send_to(b"read too", to).unwrap();
        assert_eq!(receive(&server, 1), [b"read too"]);
        lab.b.apply(&receiver("export"), &[]);
        declare(reads.as_raw_fd(), "ledger.export").unwrap();
        reads.send_to(b"export", to).unwrap();
        assert_eq!(receive(&server, 1), [b"export"]);
        declare(reads.as_raw_fd(), "").unwrap();
        reads.send_to(b"read again", to).unwrap();
        assert!(wait_until(|| lab.b.count("ingress", "no_rule") == denied + 6));
        assert!(drain(&server).is_empty());
    }
    assert_eq!(lab.a.count("egress", "operation_ungranted"), 0);
    recording.replay(GOVC, &[]);
}

#[test]
fn connections_carry_what_they_declared_before_and_after_they_opened() {
    if !kernel_available() {
        return;
    }
    let lab = lab("read");
    let recordings = lab.record();
    for v6 in BOTH_VERSIONS {
        let to = SocketAddr::new(address(2, 2, v6), READ);
        let listener = tcp_listener(&lab.b.namespace, to);
        let mut client = lab.a.namespace.run(|| TcpStream::connect(to).unwrap());
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"read").unwrap();
        server.read_exact(&mut [0; 4]).unwrap();
        // The next packet of a live connection says what the socket says now.
        let denied = lab.b.count("ingress", "no_rule");
        declare(client.as_raw_fd(), "ledger.export").unwrap();
        client.write_all(b"export").unwrap();
        assert!(wait_until(|| lab.b.count("ingress", "no_rule") > denied));
        server.set_read_timeout(Some(DENIED_WAIT)).unwrap();
        assert!(server.read(&mut [0; 8]).is_err(), "nothing came");
        // TCP sends again what was lost, as what it is now.
        declare(client.as_raw_fd(), "ledger.read").unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        server.read_exact(&mut [0; 6]).unwrap();
    }
    replayed(recordings, GOVC);
}

#[test]
fn a_socket_can_only_choose_among_what_is_granted() {
    if !kernel_available() {
        return;
    }
    let lab = lab("write");
    let recordings = lab.record();
    for (tried, v6) in BOTH_VERSIONS.into_iter().enumerate() {
        let to = SocketAddr::new(address(2, 2, v6), READ);
        let server = udp_socket(&lab.b.namespace, to.ip(), READ);
        let socket = udp_socket(&lab.a.namespace, address(1, 2, v6), 0);
        let watches = lab.watch();
        for name in ["ledger.write", "ledger", "ledger.readx", "\0", &"x".repeat(64)] {
            declare(socket.as_raw_fd(), name).unwrap();
            let _ = socket.send_to(b"not granted", to);
        }
        let dropped = 5 * (tried as u64 + 1);
        assert!(wait_until(|| lab.a.count("egress", "operation_ungranted") == dropped));
        for watch in watches {
            let seen = watch.finish();
            assert_eq!((seen.labelled, seen.bare), (0, 0), "nothing left");
        }
        assert!(drain(&server).is_empty());
        assert_eq!(declare(socket.as_raw_fd(), &"x".repeat(65)), Err(DeclareError::TooLong));
    }
    replayed(recordings, GOVC);
}

#[test]
fn nobody_needs_privileges_and_any_language_will_do() {
    if !kernel_available() {
        return;
    }
    let lab = lab("export");
    let recordings = lab.record();
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../client/examples");
    let program = std::env::temp_dir().join(format!("govc-declare-{}", std::process::id()));
    let built = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(examples.join("declare.c"))
        .status()
        .unwrap();
    assert!(built.success());
    let script = std::env::temp_dir().join(format!("govc-declare-{}.py", std::process::id()));
    std::fs::copy(examples.join("declare.py"), &script).unwrap();
    let to = SocketAddr::new(address(2, 2, false), READ);
    let server = udp_socket(&lab.b.namespace, to.ip(), READ);
    let commands: [&[&Path]; 2] =
        [&[&program], &[Path::new("/usr/bin/env"), Path::new("python3"), &script]];
    for command in commands {
        let run = |operation: &str, text: &str| {
            lab.a.namespace.run(|| {
                Command::new(command[0])
                    .args(&command[1..])
                    .args([&to.ip().to_string(), &READ.to_string(), operation, text])
                    .uid(65534)
                    .gid(65534)
                    .current_dir("/")
                    .output()
                    .unwrap()
            })
        };
        let output = run("ledger.export", "from another language");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(receive(&server, 1), [b"from another language"]);
        run("ledger.read", "not let in");
        std::thread::sleep(Duration::from_millis(20));
        assert!(drain(&server).is_empty());
    }
    std::fs::remove_file(program).unwrap();
    std::fs::remove_file(script).unwrap();
    replayed(recordings, GOVC);
}
