//! `govc apply --confirm` on real packets: what nobody confirms goes back by itself, whoever is
//! killed meanwhile.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use govc_image::Image;
use govc_loader::confirm;
use govc_netlab::DontFragment;
use govc_tests::{
    kernel_available,
    lab::{Lab, READ, TELNET, ledger},
    node::{DENIED_WAIT, Node, image, wait_until, workload},
    replay::Recording,
    wireshark::Scratch,
};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// The ledger's policy, but for the telnet that it permits instead of reads.
fn telnet() -> Image {
    let rules =
        "policy other { on ingress  permit telnet { from acme.payments.api  proto udp port 23 } }";
    image(&[&workload("acme.payments.ledger", "read"), rules])
}

fn file(scratch: &Scratch, image: &Image) -> String {
    let path = scratch.0.join("policy.image");
    fs::write(&path, image.bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Puts a policy on trial on `eth0`.
fn try_out(node: &Node, image: &str, time: &str) -> std::process::Output {
    let arguments = ["apply", "--image", image, "--iface", "eth0", "--confirm", time];
    node.run_govc(GOVC, &arguments)
}

/// The process that ends the node's trial.
fn guard(node: &Node) -> Option<Pid> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut guards = processes.filter(|process| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        let words: Vec<&str> = line.split('\0').collect();
        words.contains(&"end-trial") && words.contains(&node.place.name())
    });
    let name = guards.next()?.file_name();
    Pid::from_raw(name.to_str()?.parse().ok()?)
}

/// Which of reads and telnets get through to B.
fn open(lab: &Lab) -> [bool; 2] {
    [READ, TELNET].map(|port| {
        let flow = govc_netlab::Flow { timeout: DENIED_WAIT, ..lab.to_b(false, port) };
        flow.udp_exchange(4, DontFragment::Want).unwrap().is_delivered()
    })
}

/// A's policy lets everything out that A sends.
fn lab() -> Lab {
    let lab = Lab::bare();
    lab.a.apply(&image(&[&workload("acme.payments.api", "read")]), &["eth0"]);
    lab
}

#[test]
fn what_nobody_confirms_goes_back() {
    if !kernel_available() {
        return;
    }
    let (lab, scratch) = (lab(), Scratch::new());
    lab.b.apply(&ledger(), &["eth0"]);
    assert_eq!(open(&lab), [true, false]);
    let before = lab.b.generation();
    let policy = file(&scratch, &telnet());
    let recording = Recording::start(&lab.b, "eth0", (&lab.router, "to_b"));
    // Everything that the terminal had is killed: the guard has left it.
    let started = Instant::now();
    let mut command = lab.b.govc(GOVC, &["apply", "--image", &policy, "--confirm", "6s"]);
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let child = lab.b.namespace.run(|| command.spawn()).unwrap();
    let group = Pid::from_child(&child);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(told.contains(&format!("generation {before} returns")), "{told}");
    let _ = kill_process_group(group, Signal::KILL);
    assert!(guard(&lab.b).is_some());
    assert_eq!(open(&lab), [false, true]);
    let pending = lab.b.status().pending.unwrap();
    assert_eq!(pending.before, before);
    // Nothing is put on top of a trial.
    let refused = lab.b.run_govc(GOVC, &["apply", "--image", &policy]);
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    let refused = try_out(&lab.b, &policy, "9s");
    assert_eq!(refused.status.code(), Some(3), "{refused:?}");
    assert!(wait_until(|| lab.b.generation() == before));
    assert!(started.elapsed() > Duration::from_secs(4), "{:?}", started.elapsed());
    assert_eq!(open(&lab), [true, false]);
    assert!(recording.replay(GOVC, &[]).len() >= 4);
    assert!(wait_until(|| guard(&lab.b).is_none()));
    assert!(lab.b.status().pending.is_none());
    let late = lab.b.run_govc(GOVC, &["confirm"]);
    assert_eq!(late.status.code(), Some(3), "{late:?}");
}

#[test]
fn what_is_confirmed_stays() {
    if !kernel_available() {
        return;
    }
    let (lab, scratch) = (lab(), Scratch::new());
    lab.b.apply(&ledger(), &["eth0"]);
    let policy = file(&scratch, &telnet());
    assert!(try_out(&lab.b, &policy, "3s").status.success());
    assert!(lab.b.run_govc(GOVC, &["confirm"]).status.success());
    assert!(wait_until(|| guard(&lab.b).is_none()), "nothing is left to wait for");
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(open(&lab), [false, true]);
    // The earlier policy is still there for who wants it.
    assert!(lab.b.run_govc(GOVC, &["rollback"]).status.success());
    assert_eq!(open(&lab), [true, false]);
}

#[test]
fn a_first_policy_and_new_interfaces_go_too() {
    if !kernel_available() {
        return;
    }
    let (lab, scratch) = (lab(), Scratch::new());
    let policy = file(&scratch, &telnet());
    let attached = |node: &Node| {
        let interfaces = node.status().interfaces.into_iter();
        interfaces.map(|one| one.attached.interface).collect::<Vec<_>>()
    };
    // Nothing was enforced before.
    assert!(try_out(&lab.b, &policy, "2s").status.success());
    assert_eq!(attached(&lab.b), ["eth0"]);
    assert!(wait_until(|| !lab.b.place.exists()));
    assert!(wait_until(|| guard(&lab.b).is_none()));
    // Another interface was.
    lab.b.apply(&ledger(), &["lo"]);
    let before = lab.b.generation();
    assert!(try_out(&lab.b, &policy, "2s").status.success());
    assert_eq!(attached(&lab.b).len(), 2);
    assert!(wait_until(|| lab.b.status().pending.is_none()));
    assert_eq!((lab.b.generation(), attached(&lab.b)), (before, vec!["lo".to_owned()]));
}

#[test]
fn an_apply_that_fails_leaves_no_trial() {
    if !kernel_available() {
        return;
    }
    let (lab, scratch) = (lab(), Scratch::new());
    lab.b.apply(&ledger(), &["eth0"]);
    let (before, policy) = (lab.b.generation(), file(&scratch, &telnet()));
    let arguments = ["apply", "--image", &policy, "--iface", "none", "--confirm", "60s"];
    let output = lab.b.run_govc(GOVC, &arguments);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(lab.b.status().pending.is_none());
    assert_eq!(lab.b.generation(), before);
    assert!(wait_until(|| guard(&lab.b).is_none()));
}

#[test]
fn a_guard_that_has_to_end_goes_back_first() {
    if !kernel_available() {
        return;
    }
    let (lab, scratch) = (lab(), Scratch::new());
    lab.b.apply(&ledger(), &["eth0"]);
    let (before, policy) = (lab.b.generation(), file(&scratch, &telnet()));
    assert!(try_out(&lab.b, &policy, "10m").status.success());
    assert_ne!(lab.b.generation(), before);
    kill_process(guard(&lab.b).unwrap(), Signal::TERM).unwrap();
    assert!(wait_until(|| lab.b.generation() == before));
    assert!(wait_until(|| lab.b.status().pending.is_none()));
}

/// A guard for a trial that is armed, as an apply starts it.
fn start_guard(node: &Node) -> Child {
    let mut command = node.govc(GOVC, &["end-trial"]);
    command.stdin(Stdio::piped());
    let mut child = node.namespace.run(|| command.spawn()).unwrap();
    let mut word = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut word).unwrap();
    assert_eq!(word, "ready\n");
    child
}

#[test]
fn an_apply_that_is_killed_on_the_way_goes_back() {
    if !kernel_available() {
        return;
    }
    let lab = lab();
    lab.b.apply(&ledger(), &["eth0"]);
    let before = lab.b.generation();
    confirm::arm(&lab.b.place, Duration::from_secs(600)).unwrap();
    let mut guard = start_guard(&lab.b);
    assert!(lab.b.apply(&telnet(), &[]).generation > before);
    // Nobody is there any more who could say that it is in force.
    drop(guard.stdin.take());
    assert!(wait_until(|| lab.b.generation() == before));
    assert!(guard.wait().unwrap().success());
    assert!(lab.b.status().pending.is_none());
}

#[test]
fn time_counts_from_when_it_is_in_force() {
    if !kernel_available() {
        return;
    }
    let lab = lab();
    let time = Duration::from_secs(2);
    confirm::arm(&lab.b.place, time).unwrap();
    let mut guard = start_guard(&lab.b);
    // An apply takes long on a busy machine.
    std::thread::sleep(time * 2);
    assert!(guard.try_wait().unwrap().is_none() && confirm::pending(&lab.b.place).is_some());
    assert!(confirm::confirm(&lab.b.place).is_err(), "there is nothing to confirm yet");
    lab.b.apply(&telnet(), &["eth0"]);
    let started = Instant::now();
    confirm::start(&lab.b.place, time).unwrap();
    guard.stdin.take().unwrap().write_all(b"started\n").unwrap();
    assert!(wait_until(|| !lab.b.place.exists()));
    assert!(started.elapsed() > time / 2, "{:?}", started.elapsed());
    assert!(guard.wait().unwrap().success());
}

/// The one thing that nobody can do anything about by themselves; it is told.
#[test]
fn a_guard_that_was_killed_is_missed() {
    if !kernel_available() {
        return;
    }
    let (lab, scratch) = (lab(), Scratch::new());
    lab.b.apply(&ledger(), &["eth0"]);
    let (before, policy) = (lab.b.generation(), file(&scratch, &telnet()));
    assert!(try_out(&lab.b, &policy, "5s").status.success());
    kill_process(guard(&lab.b).unwrap(), Signal::KILL).unwrap();
    assert!(wait_until(|| lab.b.status().pending.is_some_and(|pending| pending.left_s < 0)));
    let status = lab.b.run_govc(GOVC, &["status"]);
    let told = String::from_utf8(status.stdout).unwrap();
    assert!(told.contains("the time to confirm is over"), "{told}");
    assert_eq!(lab.b.run_govc(GOVC, &["doctor", "--iface", "eth0"]).status.code(), Some(3));
    assert!(lab.b.run_govc(GOVC, &["rollback"]).status.success());
    assert_eq!(lab.b.generation(), before);
    assert!(lab.b.status().pending.is_none());
    assert_eq!(open(&lab), [true, false]);
    let again = PathBuf::from(&policy);
    assert!(
        again.exists() && lab.b.run_govc(GOVC, &["apply", "--image", &policy]).status.success()
    );
}
