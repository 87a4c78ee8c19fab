//! What a node decides about the packets of a wire, recorded, and held against what `explain` says
//! about a capture of them.

use std::{
    fs,
    io::Write as _,
    net::{IpAddr, Ipv6Addr},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use govc_abi::{
    attribute::shape,
    event::{Event, flag, hook, verdict},
    reason,
};
use govc_loader::{events::Events, status};
use govc_netlab::{Namespace, PacketSocket, PacketType};
use serde_json::Value;

use crate::{
    domains::VOCABULARIES,
    frame::ETH,
    node::{DENIED_WAIT, Node, protocol, source_of},
    reference,
    wireshark::Scratch,
};

/// A frame on a wire.
pub struct Taken {
    /// Unix time.
    pub time: Duration,
    /// From the Ethernet header on.
    pub bytes: Vec<u8>,
    /// Whether it has left by the device that was looked at.
    pub outgoing: bool,
}

/// Takes what passes a device, in both directions, on a thread of its own.
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(Vec<Taken>, Duration)>,
}

impl Capture {
    /// Begins; packets from now on are taken.
    pub fn start(namespace: &Namespace, device: &str) -> Self {
        const ROUND: Duration = Duration::from_millis(20);
        let wire = PacketSocket::open(namespace, device).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut taken = Vec::new();
            loop {
                // Asked first: what was sent before the stop is in the socket by then.
                let last = stopped.load(Ordering::SeqCst);
                let (before, began) = (taken.len(), boot_time());
                wire.capture(ROUND, |frame| {
                    let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
                    let outgoing = frame.packet_type == PacketType::Outgoing;
                    taken.push(Taken { time, bytes: frame.bytes.clone(), outgoing });
                    false
                })
                .unwrap();
                if last && taken.len() == before {
                    return (taken, began);
                }
            }
        });
        Self { stop, thread }
    }

    /// Ends when the wire is quiet: gives what was taken, and the boot time from which on nothing was.
    pub fn finish(self) -> (Vec<Taken>, Duration) {
        self.stop.store(true, Ordering::SeqCst);
        self.thread.join().unwrap()
    }
}

/// Time since boot, rounded up: the kernel tells it in hundredths of a second.
fn boot_time() -> Duration {
    let uptime = fs::read_to_string("/proc/uptime").unwrap();
    let seconds: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    Duration::from_secs_f64(seconds + 0.01)
}

/// What tells packets apart: addresses, protocol, ports or ICMP type and code, bytes. What was
/// dropped unread has neither ports nor type; of a packet that is no whole one even the protocol is known only where a
/// rule speaks of such, so that all of these have protocol 0 here.
pub type Packet = (Ipv6Addr, Ipv6Addr, u8, (u16, u16), usize);
/// A packet, its verdict, and what it is by: a rule, `default`, or a reason.
pub type Decided = (Packet, &'static str, String);

fn mapped(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// What tells a frame apart.
pub fn of_frame(frame: &[u8]) -> Packet {
    let octets = |at: usize| <[u8; 16]>::try_from(&frame[ETH + at..ETH + at + 16]).unwrap();
    let v4 = |at: usize| {
        let octets = <[u8; 4]>::try_from(&frame[ETH + at..ETH + at + 4]).unwrap();
        mapped(octets.into())
    };
    let (source, destination, next) = match frame[12..14] {
        [0x08, 0x00] => (v4(12), v4(16), frame[ETH + 9]),
        [0x86, 0xdd] => (octets(8).into(), octets(24).into(), frame[ETH + 6]),
        _ => (Ipv6Addr::UNSPECIFIED, Ipv6Addr::UNSPECIFIED, 0),
    };
    let read = reference::parse_through(frame).or_else(|| reference::parse(frame));
    let Some(read) = read else {
        return (source, destination, known(next), (0, 0), frame.len());
    };
    if read.shape != shape::WHOLE {
        return (source, destination, 0, (0, 0), frame.len());
    }
    let icmp = [protocol::ICMP, protocol::ICMPV6].contains(&read.protocol);
    let what = if icmp { (read.icmp.0.into(), read.icmp.1.into()) } else { read.ports };
    (source, destination, known(read.protocol), what, frame.len())
}

/// A protocol, if its number is not that of an extension header.
fn known(protocol: u8) -> u8 {
    if matches!(protocol, 43 | 44 | 51 | 60 | 135 | 139 | 140 | 253..) { 0 } else { protocol }
}

fn of_event(event: &Event) -> Packet {
    let address = |halves: [u64; 2]| {
        let octets: Vec<u8> = halves.into_iter().flat_map(u64::to_ne_bytes).collect();
        Ipv6Addr::from(<[u8; 16]>::try_from(octets).unwrap())
    };
    let shape = u32::from(event.flags >> flag::SHAPE_SHIFT) & shape::ALL;
    if shape != shape::WHOLE || [reason::FRAGMENT, reason::OPTIONS].contains(&event.reason) {
        let (source, destination) = (address(event.source), address(event.destination));
        return (source, destination, 0, (0, 0), event.len as usize);
    }
    let icmp = [protocol::ICMP, protocol::ICMPV6].contains(&event.protocol);
    let ports = (event.source_port, event.destination_port);
    let what = if icmp { (event.icmp >> 8, event.icmp & 0xff) } else { ports };
    let (source, destination) = (address(event.source), address(event.destination));
    (source, destination, known(event.protocol), what, event.len as usize)
}

/// What an event says, in the words of `explain`.
pub fn decided(event: &Event, events: &mut Events) -> Decided {
    let by = match event.reason {
        reason::RULE => {
            let image = events.image(event.generation).expect("the image that decided");
            image.names().rule(event.rule).unwrap()
        }
        reason::NO_RULE | reason::LABEL_MISSING => "default".to_owned(),
        other => reason::NAMES[usize::from(other)].to_owned(),
    };
    let verdict = if event.verdict == verdict::PERMIT { "permit" } else { "deny" };
    (of_event(event), verdict, by)
}

/// What `explain` says about each packet of a capture; `verdict` and what it is by.
pub fn explained(
    program: &str,
    (policy, keys): (&str, &Path),
    taken: &[Taken],
    more: &[&str],
) -> Vec<Decided> {
    let scratch = Scratch::new();
    let directory = &scratch.0;
    for (package, text) in VOCABULARIES {
        fs::create_dir(directory.join(package)).unwrap();
        scratch.write(&format!("{package}/vocabulary.gov"), text);
    }
    scratch.write("p.gov", policy);
    let mut file = fs::File::create(directory.join("c.pcap")).unwrap();
    // Nanoseconds, version 2.4, no longest packet to speak of, Ethernet.
    let header = [0xa1b2_3c4d, 0x0004_0002, 0, 0, 1 << 20, 1_u32];
    file.write_all(header.map(u32::to_le_bytes).as_flattened()).unwrap();
    for Taken { time, bytes, .. } in taken {
        let len = bytes.len() as u32;
        let head = [time.as_secs() as u32, time.subsec_nanos(), len, len];
        file.write_all(head.map(u32::to_le_bytes).as_flattened()).unwrap();
        file.write_all(bytes).unwrap();
    }
    drop(file);
    let mut command = Command::new(program);
    command.current_dir(directory).args(["explain", "p.gov", "c.pcap", "--json", "--complete"]);
    let output = command.arg("--keys").arg(keys).args(more).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(rows.len(), taken.len());
    let row = |(row, one): (&Value, &Taken)| {
        let verdict = match row["verdict"].as_str() {
            Some("permit") => "permit",
            Some("deny") => "deny",
            _ => "unknown",
        };
        (of_frame(&one.bytes), verdict, row["by"].as_str().unwrap().to_owned())
    };
    rows.iter().zip(taken).map(row).collect()
}

/// Takes out of `decided` what was explained, packet by packet. Packets of several flows may
/// overtake each other: each finds its own verdict.
pub fn agree(explained: impl IntoIterator<Item = Decided>, decided: &mut Vec<Decided>) {
    for one in explained {
        let found = decided.iter().position(|other| *other == one);
        let same = || decided.iter().filter(|other| other.0 == one.0).collect::<Vec<_>>();
        let found = found.unwrap_or_else(|| panic!("explained {one:?}, decided {:?}", same()));
        decided.remove(found);
    }
}

/// A node that is watched: what comes in by one interface, and what it decides about that.
pub struct Recording<'n> {
    node: &'n Node,
    device: String,
    ifindex: u32,
    capture: Capture,
    stop: Arc<AtomicBool>,
    events: JoinHandle<(Vec<Event>, Events)>,
    lost_before: u64,
}

impl<'n> Recording<'n> {
    /// Begins. `wire` is the device at the other end of the node's `device`. Nobody else may read
    /// the node's events.
    pub fn start(node: &'n Node, device: &str, wire: (&Namespace, &str)) -> Self {
        let mut events = node.report_everything();
        // What was told before is no part of it.
        while events.next(Duration::ZERO).unwrap().is_some() {}
        let lost_before = lost(node);
        let capture = Capture::start(wire.0, wire.1);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            let mut all = Vec::new();
            loop {
                let last = stopped.load(Ordering::SeqCst);
                match events.next(DENIED_WAIT).unwrap() {
                    Some(event) => all.push(event),
                    None if last => return (all, events),
                    None => {}
                }
            }
        });
        let ifindex = node.namespace.ifindex(device).unwrap();
        let device = device.to_owned();
        Self { node, device, ifindex, capture, stop, events: thread, lost_before }
    }

    /// Ends, and asks `explain` about every packet that came in: verdict, rule and reason have to be
    /// what the node decided. Gives the events of these packets.
    pub fn replay(self, program: &str, more: &[&str]) -> Vec<Event> {
        let (taken, quiet) = self.capture.finish();
        self.stop.store(true, Ordering::SeqCst);
        let (recorded, mut events) = self.events.join().unwrap();
        assert_eq!(lost(self.node), self.lost_before, "events were lost");
        // What comes next goes its usual way through the hooks again.
        status::report_permits(&self.node.place, false).unwrap();
        let arrived = |event: &&Event| {
            // What passes through is decided again where it leaves.
            let leaves = event.to_zone != 0 && event.hook == hook::FORWARD && {
                let image = events.image(event.generation).expect("an image");
                image.names().zone_of(&self.device) == Some(event.to_zone.into())
            };
            let in_time = u128::from(event.time_ns) < quiet.as_nanos();
            in_time && event.ifindex == self.ifindex && event.hook != hook::EGRESS && !leaves
        };
        let all = recorded;
        let recorded: Vec<Event> = all.iter().filter(arrived).copied().collect();
        let mut generations: Vec<u64> = recorded.iter().map(|event| event.generation).collect();
        generations.dedup();
        generations.sort_unstable();
        generations.dedup();
        let keys = self.node.keys().ring().dir().to_path_buf();
        let mut replays = Vec::new();
        for generation in generations {
            let image = events.image(generation).expect("an image");
            let text = source_of(&image.digest()).expect("these tests have compiled it");
            let names = image.names();
            let zone = names.zone_of(&self.device).and_then(|number| names.zone(number as u32));
            let zone = zone.map_or_else(Vec::new, |zone| vec!["--zone", zone]);
            let more = [&zone[..], more].concat();
            replays.push((generation, explained(program, (&text, &keys), &taken, &more)));
        }
        let mut left: Vec<(u64, Decided)> =
            recorded.iter().map(|event| (event.generation, decided(event, &mut events))).collect();
        refuse_where_it_leaves(self.ifindex, &all, &mut events, &mut left);
        for (at, one) in taken.iter().enumerate().filter(|(_, one)| one.outgoing) {
            let packet = of_frame(&one.bytes);
            let says = |generation: u64| {
                replays.iter().find(|replay| replay.0 == generation).map(|replay| &replay.1[at])
            };
            let found = left.iter().position(|(g, decided)| says(*g) == Some(decided));
            let found = found.unwrap_or_else(|| {
                let same: Vec<_> = left.iter().filter(|(_, other)| other.0 == packet).collect();
                let said: Vec<_> = replays.iter().map(|(g, rows)| (g, &rows[at])).collect();
                panic!("packet {at}: explained {said:?}, decided {same:?}")
            });
            left.remove(found);
        }
        // Before the capture began, neighbours may have looked for each other.
        left.retain(|(_, (_, _, by))| by != "link_control");
        assert!(left.is_empty(), "decided, and not in the capture: {left:?}");
        recorded
    }
}

/// What passes through is decided where it comes in, by `ifindex`, and may be refused where it would leave,
/// which is the verdict that `explain` tells.
fn refuse_where_it_leaves(
    ifindex: u32,
    all: &[Event],
    events: &mut Events,
    decisions: &mut [(u64, Decided)],
) {
    let elsewhere = |event: &&Event| {
        event.hook == hook::FORWARD && event.verdict == verdict::DENY && event.ifindex != ifindex
    };
    for event in all.iter().filter(elsewhere) {
        let refused = decided(event, events);
        let came = decisions.iter_mut().find(|(generation, (packet, verdict, _))| {
            (*generation, *packet, *verdict) == (event.generation, refused.0, "permit")
        });
        if let Some((_, came)) = came {
            *came = refused;
        }
    }
}

fn lost(node: &Node) -> u64 {
    let count = status::event_count(&node.place).unwrap();
    count.lost_full + count.lost_rate
}
