//! The enforcement point's clock: who looks after it, and what a wrong one does.

use std::{net::SocketAddr, time::Duration};

use govc_loader::publish;
use govc_netlab::Flow;
use govc_tests::{
    domains::{brief, exchange},
    kernel_available,
    lab::{Lab, READ, delivered},
    node::{Node, address, udp_socket, wait_until},
};
use rustix::process::{Pid, Signal, kill_process};

const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");
/// By so much TAI leaps when a time service tells the kernel of leap seconds.
const LEAP: Duration = Duration::from_secs(37);

fn goes(flow: Flow<'_>) -> bool {
    exchange(brief(flow)).is_delivered()
}

fn says_ok(node: &Node, arguments: &[&str]) -> String {
    let output = node.run_govc(GOVC, arguments);
    assert!(output.status.success(), "{arguments:?} {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn whoever_looks_puts_the_clock_right() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let flow = lab.to_b(false, READ);
    delivered(exchange(flow), "at first");
    let looks: [&dyn Fn(); 5] = [
        &|| drop(says_ok(&lab.b, &["status"])),
        &|| drop(says_ok(&lab.b, &["status", "--json"])),
        &|| drop(says_ok(&lab.b, &["metrics"])),
        &|| drop(says_ok(&lab.b, &["observe", "--count", "0"])),
        // As `keys rotate`, `stage` and `import` do.
        &|| publish::refresh_keys(&lab.b.place, lab.b.keys().ring()).unwrap(),
    ];
    for (number, look) in looks.iter().enumerate() {
        lab.b.wait_as_if(LEAP);
        // Labels that are made now have ended long ago.
        let before = lab.b.count("ingress", "slot_expired");
        let sender = udp_socket(&lab.a.namespace, address(1, 2, false), 0);
        sender.send_to(b"late", SocketAddr::new(address(2, 2, false), READ)).unwrap();
        assert!(wait_until(|| lab.b.count("ingress", "slot_expired") > before), "{number}");
        look();
        assert!(wait_until(|| goes(flow)), "{number}");
    }
    // While somebody watches it is put right without being asked, maybe before the first packet.
    let watching = lab.b.start_govc(GOVC, &["observe", "--quiet"]);
    assert!(wait_until(|| lab.b.status().events.reader));
    lab.b.wait_as_if(LEAP);
    assert!(wait_until(|| goes(flow)));
    kill_process(Pid::from_child(&watching), Signal::INT).unwrap();
    assert!(watching.wait_with_output().unwrap().status.success());
    // Nobody looks: it stays wrong, and the doctor says so.
    lab.b.wait_as_if(LEAP);
    assert!(!goes(flow));
    let doctor = lab.b.run_govc(GOVC, &["doctor"]);
    let told = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(told.contains("at the last apply") && told.contains("govc status"), "{told}");
    assert!(!goes(flow));
}
