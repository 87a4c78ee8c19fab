//! Events are accounted for exactly at any rate: what was decided is what was read, left in the
//! ring, or counted as lost.

use std::{
    process::{Command, Output, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use govc_abi::limits::EVENT_RATE_DEFAULT;
use govc_loader::status;
use govc_tests::{
    compile,
    kernel::{Kernel, stay_on_one_cpu},
    kernel_available,
    ledger::{ACK, LEDGER, api_label, compiled, spec},
    node::wait_until,
    policies::VOCABULARY,
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");
/// Packets are sent in bursts, so many a second.
const BURSTS_PER_S: u32 = 100;
/// How long each rate is kept up.
const BURSTS: u32 = 2 * BURSTS_PER_S;

/// An observer that has begun, and what it will have printed.
fn observe(kernel: &Kernel, arguments: &[&str]) -> (Pid, JoinHandle<Output>) {
    let mut command = Command::new(GOVC);
    command.args(["observe", "--json", "--permits", "--instance", kernel.place.name()]);
    command.args(arguments);
    command.stdout(Stdio::piped());
    let child = kernel.namespace.run(|| command.spawn()).unwrap();
    // The last thing that it does before it reads.
    assert!(wait_until(|| status::event_count(&kernel.place).unwrap().permits));
    // Read as it comes: an observer whose pipe is full reads no events.
    (Pid::from_child(&child), thread::spawn(|| child.wait_with_output().unwrap()))
}

/// Sends packets that are all denied at about this rate; how many, and how many a second it was.
fn send(kernel: &Kernel, frame: &[u8], rate: u32) -> (u64, u64) {
    let burst = rate / BURSTS_PER_S;
    let started = Instant::now();
    for number in 1..=BURSTS {
        kernel.repeat(frame, burst);
        let due = started + Duration::from_secs(1) * number / BURSTS_PER_S;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let sent = u64::from(burst) * u64::from(BURSTS);
    (sent, (sent as f64 / started.elapsed().as_secs_f64()) as u64)
}

#[test]
fn at_every_rate_nothing_is_missing() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let kernel = Kernel::new(&compiled.image);
    status::report_permits(&kernel.place, false).unwrap();
    // It carries no label.
    let frame = spec(false, ACK).frame();
    for limit in [EVENT_RATE_DEFAULT, u32::MAX] {
        status::set_event_rate(&kernel.place, limit).unwrap();
        for rate in [10_000, 100_000, 1_000_000, 2_000_000] {
            for how in ["--aggregate", "--every"] {
                let denied = || -> u64 {
                    let status = kernel.namespace.run(|| status::status(&kernel.place)).unwrap();
                    let reasons = status.reasons.iter();
                    reasons.filter(|one| one.reason == "label_missing").map(|one| one.packets).sum()
                };
                let before = denied();
                let (observer, output) = observe(&kernel, &[how]);
                let (sent, per_second) = send(&kernel, &frame, rate);
                kill_process(observer, Signal::INT).unwrap();
                let output = output.join().unwrap();
                assert!(output.status.success(), "{output:?}");
                let lines = std::str::from_utf8(&output.stdout).unwrap().lines();
                let lines: Vec<Value> = lines.map(|l| serde_json::from_str(l).unwrap()).collect();
                let summary = &lines.last().unwrap()["summary"];
                let number = |field: &str| summary["events"][field].as_u64().unwrap();
                let lost = number("lost_rate") + number("lost_full");
                println!(
                    "{how} limit {limit}, {rate} wanted, {per_second} a second: {sent} sent, {} read, \
                     {lost} lost",
                    number("read"),
                );
                assert_eq!(denied() - before, sent);
                assert_eq!(number("counted"), sent, "{summary}");
                assert_eq!(number("read") + number("waiting") + lost, sent, "{summary}");
                // Each event that was read is in the output, as a line or counted in one.
                let shown: u64 = lines
                    .iter()
                    .map(|line| match &line["second"]["events"] {
                        Value::Number(events) => events.as_u64().unwrap(),
                        _ => u64::from(line["verdict"] == "deny"),
                    })
                    .sum();
                assert_eq!(shown, number("read"), "{summary}");
            }
        }
    }
}

#[test]
fn a_low_limit_still_lets_events_through() {
    if !kernel_available() {
        return;
    }
    let compiled = compiled();
    let kernel = Kernel::new(&compiled.image);
    status::report_permits(&kernel.place, false).unwrap();
    let frame = spec(false, ACK).frame();
    // All of them are sent by one call, on one CPU.
    for limit in [0, 1, 3, 9, 10, 95, 999, 1000] {
        status::set_event_rate(&kernel.place, limit).unwrap();
        // Whatever is left of the budget of before ends with its second.
        thread::sleep(Duration::from_millis(1100));
        let before = status::event_count(&kernel.place).unwrap();
        let started = Instant::now();
        kernel.repeat(&frame, 2000);
        let took = started.elapsed();
        let after = status::event_count(&kernel.place).unwrap();
        let delivered = after.delivered - before.delivered;
        assert_eq!(delivered + after.lost_rate - before.lost_rate, 2000, "limit {limit}");
        // The call may run over the end of a second, or of a tenth, and of several on a busy machine.
        let (budget, every_ms) = if limit < 1000 { (u64::from(limit), 1000) } else { (100, 100) };
        let periods = 2 + took.as_millis() as u64 / every_ms;
        assert!((budget..=periods * budget).contains(&delivered), "limit {limit}: {delivered}");
    }
}

#[test]
fn a_flood_hides_no_other_reason() {
    if !kernel_available() {
        return;
    }
    const FLOOD: u32 = 20_000;
    let compiled = compiled();
    let kernel = Kernel::new(&compiled.image);
    stay_on_one_cpu();
    status::report_permits(&kernel.place, false).unwrap();
    status::set_event_rate(&kernel.place, EVENT_RATE_DEFAULT).unwrap();
    let (bare, other) = (spec(false, ACK).frame(), vec![0xff; 60]);
    // So few that the ring, which nobody reads, has room for all.
    for _ in 0..3 {
        let before = status::event_count(&kernel.place).unwrap();
        kernel.repeat(&bare, FLOOD);
        let between = status::event_count(&kernel.place).unwrap();
        kernel.repeat(&other, 1);
        let after = status::event_count(&kernel.place).unwrap();
        assert!(between.lost_rate > before.lost_rate);
        assert_eq!(after.delivered - between.delivered, 1);
        assert_eq!(after.lost_rate, between.lost_rate);
    }
}

#[test]
fn of_remembered_packets_a_sampled_rule_loses_no_more_than_it_samples() {
    if !kernel_available() {
        return;
    }
    const PACKETS: u32 = 100_000;
    let text = LEDGER.replace("permit read {", "deny read { log 1 in 100");
    let compiled = compile(&[("ledger.gov", &text), ("vocabulary.gov", VOCABULARY)]);
    let kernel = Kernel::new(&compiled.image);
    stay_on_one_cpu();
    kernel.silence();
    let verifier = kernel.verifier(7);
    let label = api_label(&compiled, &verifier, 4);
    let frame = spec(false, ACK).labelled(&label, verifier.key);
    let before = status::event_count(&kernel.place).unwrap();
    kernel.repeat(&frame, PACKETS);
    let after = status::event_count(&kernel.place).unwrap();
    assert_eq!(after.delivered, before.delivered);
    // A thousand are due, give or take: the deviation is 31, and this is 30 times as much.
    let lost = after.lost_rate - before.lost_rate;
    assert!((50..=1950).contains(&lost), "{lost}");
}
