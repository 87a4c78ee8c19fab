//! TCP under labels with every combination of offloads.

use std::{env, thread, time::Duration};

use govc_netlab::{Namespace, Offloads, PacketSocket};
use govc_tests::{
    kernel_available,
    lab::{
        BOTH_VERSIONS, CALL_BACK, Lab, READ, all_labelled, nothing_was_denied, replayed, transfer,
    },
    wireshark::{Scratch, printed, tshark_available, whole, without_settings},
};

/// The program.
const GOVC: &str = env!("CARGO_BIN_EXE_govc-under-test");

/// Says how much to send each way over each IP version in each combination.
const BYTES: &str = "GOVC_TRANSFER_BYTES";
const BYTES_DEFAULT: u64 = 20_000_000;
/// Bytes of the part that is recorded and explained: reports take another way through the hooks.
const RECORDED: u64 = 200_000;
/// Frames of each combination whose checksums are looked at.
const FRAMES: usize = 200;

/// All that devices can be set to: segments are made by a device only where it sums them up too.
fn combinations() -> impl Iterator<Item = Offloads> {
    (0..16_u8).filter_map(|bits| {
        let [tso, gso, gro, tx_checksum] = [1, 2, 4, 8].map(|bit| bits & bit != 0);
        (tx_checksum || !tso).then_some(Offloads { tso, gso, gro, tx_checksum })
    })
}

/// The first frames that come by on a device.
fn sample(namespace: &Namespace, device: &str) -> Vec<Vec<u8>> {
    let wire = PacketSocket::open(namespace, device).unwrap();
    let mut frames = Vec::new();
    let wait = Duration::from_secs(1);
    while frames.len() < FRAMES {
        let Some(frame) = wire.capture(wait, |_| true).unwrap() else { break };
        frames.push(frame.bytes.clone());
    }
    frames
}

/// What tshark says of the checksums of frames: `[IPv4 bad, TCP bad, TCP good]`.
fn checksums(frames: &[Vec<u8>]) -> [usize; 3] {
    let scratch = Scratch::new();
    let file = scratch.write("sums.pcap", whole(frames));
    let count = |filter: &str| {
        let mut command = without_settings(&scratch);
        command.args(["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]);
        command.args(["-T", "fields", "-e", "frame.number", "-Y", filter, "-r"]).arg(&file);
        printed(command.output().unwrap()).lines().count()
    };
    [
        count("ip.checksum.status == \"Bad\""),
        count("tcp.checksum.status == \"Bad\""),
        count("tcp.checksum.status == \"Good\""),
    ]
}

#[test]
fn streams_arrive_whole_with_every_combination_of_offloads() {
    if !kernel_available() || !tshark_available() {
        return;
    }
    let bytes = env::var(BYTES).map_or(BYTES_DEFAULT, |bytes| bytes.parse().unwrap());
    for offloads in combinations() {
        let lab = Lab::governed();
        lab.set_offloads(|_| offloads);
        for v6 in BOTH_VERSIONS {
            let watches = lab.watch();
            let frames = thread::scope(|scope| {
                let sampled = scope.spawn(|| sample(&lab.router, "to_b"));
                transfer(lab.to_b(v6, READ), bytes);
                transfer(lab.to_a(v6, CALL_BACK), bytes);
                sampled.join().unwrap()
            });
            all_labelled(watches);
            let [ip_bad, tcp_bad, tcp_good] = checksums(&frames);
            assert_eq!(ip_bad, 0, "{offloads:?} v6 {v6}");
            // Otherwise the sums of TCP are left to a device that a virtual link does not have.
            if !offloads.tx_checksum {
                assert_eq!(tcp_bad, 0, "{offloads:?} v6 {v6}");
                assert!(tcp_good >= FRAMES / 2, "{offloads:?} v6 {v6}: {tcp_good}");
            }
            // What GRO makes one of is decided as one, and is several on the wire. One IP version of each
            // combination has to do: it takes its time.
            if !offloads.gro && v6 == offloads.gso {
                let recordings = lab.record();
                transfer(lab.to_b(v6, READ), RECORDED);
                transfer(lab.to_a(v6, CALL_BACK), RECORDED);
                replayed(recordings, GOVC);
            }
        }
        nothing_was_denied(&lab.a);
        nothing_was_denied(&lab.b);
    }
}
