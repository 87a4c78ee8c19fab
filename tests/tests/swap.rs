//! Policies that change under traffic: no packet is decided by a mix of two generations, none is
//! lost, and none is counted wrongly.

use std::{
    collections::BTreeMap,
    net::UdpSocket,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use govc_abi::{
    event::{Event, hook, verdict},
    reason,
};
use govc_image::Image;
use govc_loader::{events::Events, status};
use govc_tests::{
    kernel_available,
    node::{Keys, Node, OnDrop, PATIENCE, address, connect, drain, image, udp_socket, wait_until},
    random::Random,
};

/// A flow of datagrams: labels say `read` on the left interface and `write` on the right one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Stream {
    right: bool,
    port: u16,
}

const STREAMS: [Stream; 4] = [
    Stream { right: false, port: 1000 },
    Stream { right: false, port: 2000 },
    Stream { right: true, port: 1000 },
    Stream { right: true, port: 2000 },
];

/// One of two policies that disagree about every stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    Even,
    Odd,
}

impl Policy {
    fn other(self) -> Self {
        if self == Self::Even { Self::Odd } else { Self::Even }
    }

    fn permits(self, stream: Stream) -> bool {
        (stream.right == (stream.port == 2000)) == (self == Self::Even)
    }

    fn name(self) -> &'static str {
        if self == Self::Even { "even" } else { "odd" }
    }

    fn rule(self, stream: Stream) -> String {
        let verb = if stream.right { "write" } else { "read" };
        format!("{}.{verb}_{}", self.name(), stream.port)
    }

    /// The receiver's policy, with rules in front that move all numbers and tables.
    fn image(self, rules_in_front: usize) -> Image {
        let mut rules = String::new();
        for number in 0..rules_in_front {
            let port = 3000 + number;
            rules +=
                &format!("permit pad_{number} {{ from acme.web.front  proto tcp port {port} }}\n");
        }
        for stream in STREAMS {
            let action = if self.permits(stream) { "permit" } else { "deny" };
            let rule = self.rule(stream);
            let (_, name) = rule.split_once('.').unwrap();
            let (verb, port) = name.split_once('_').unwrap();
            rules +=
                &format!("{action} {name} {{ operation ledger.{verb}  proto udp port {port} }}\n");
        }
        let object = "deliver on left { object acme.payments.ledger }\n\
                      deliver on right { object acme.payments.ledger }\n";
        let policy = self.name();
        let to = "on ingress to acme.payments.ledger";
        image(&[ZONES, object, &format!("policy {policy} {{ {to}\n{rules} }}")])
    }
}

const ZONES: &str = "
zone left = interface \"eth0\"
     right = interface \"eth1\"
stamp on left { subject acme.payments.api  operation ledger.read }
stamp on right { subject acme.payments.api  operation ledger.write }
";

/// Generations with their policies, as they came into force.
type Generations = BTreeMap<u64, (Policy, Image)>;

/// A sender whose policy never changes, and a receiver with one instance on two interfaces: the
/// left link is used over IPv4, the right one over IPv6.
struct Rig {
    sender: Node,
    receiver: Node,
}

/// Datagrams of one stream that may be under way at a time.
const WINDOW: usize = 100;
/// A datagram is longer than the shortest by its number modulo this.
const LENGTHS: usize = 2 * WINDOW;
/// Bytes of the shortest datagram.
const SHORTEST: usize = 8;

impl Rig {
    fn new() -> Self {
        let keys = Keys::new();
        let (sender, receiver) = (Node::new("sender", &keys), Node::new("receiver", &keys));
        for (net, device) in [(1, "eth0"), (2, "eth1")] {
            connect(net, [(&sender.namespace, device), (&receiver.namespace, device)]);
        }
        sender.apply(&image(&[ZONES]), &["eth0", "eth1"]);
        Self { sender, receiver }
    }

    /// A socket at one end of a stream: port 0 at the sender.
    fn socket(&self, stream: Stream, receiving: bool) -> UdpSocket {
        let (node, host) = if receiving { (&self.receiver, 2) } else { (&self.sender, 1) };
        let net = if stream.right { 2 } else { 1 };
        let port = if receiving { stream.port } else { 0 };
        udp_socket(&node.namespace, address(net, host, stream.right), port)
    }

    /// The stream that a packet belongs to, if any.
    fn stream(&self, event: &Event, indices: [u32; 2]) -> Option<usize> {
        let right = *indices.get(1).unwrap() == event.ifindex;
        let udp = event.protocol == 17 && event.hook == hook::INGRESS;
        let at = |stream: &Stream| stream.right == right && stream.port == event.destination_port;
        STREAMS.iter().position(at).filter(|_| udp)
    }
}

/// What an instance has counted, read at a moment when nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Books {
    /// Packets at all hooks for all reasons.
    packets: u64,
    /// Packets that rules decided as they arrived.
    ruled: u64,
    delivered: u64,
    lost_full: u64,
    lost_rate: u64,
}

impl Books {
    fn of(node: &Node) -> Self {
        let read = || {
            let status = node.status();
            let ruled =
                |count: &&status::ReasonCount| count.hook == "ingress" && count.reason == "rule";
            let packets = status.reasons.iter().map(|count| count.packets);
            Self {
                packets: packets.sum(),
                ruled: status.reasons.iter().find(ruled).map_or(0, |count| count.packets),
                delivered: status.events.delivered,
                lost_full: status.events.lost_full,
                lost_rate: status.events.lost_rate,
            }
        };
        let mut last = read();
        assert!(wait_until(|| {
            let previous = std::mem::replace(&mut last, read());
            previous == last
        }));
        last
    }

    fn since(self, before: Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            ruled: self.ruled - before.ruled,
            delivered: self.delivered - before.delivered,
            lost_full: self.lost_full - before.lost_full,
            lost_rate: self.lost_rate - before.lost_rate,
        }
    }
}

/// How many packets of a stream one generation decided in one way.
type Tally = BTreeMap<(u64, Stream, u32, u8, u8), u64>;

/// What became of one stream's datagrams so far.
#[derive(Default)]
struct Ledger {
    /// Verdicts by number.
    permitted: Vec<Option<bool>>,
    /// All before this one are decided.
    low: usize,
    arrived: Vec<usize>,
}

impl Ledger {
    /// Finds the datagram by its length, which no other has that is under way, and notes the
    /// verdict.
    fn note(&mut self, payload: usize, permit: bool) {
        let number = self.low + (payload - SHORTEST + LENGTHS - self.low % LENGTHS) % LENGTHS;
        if self.permitted.len() <= number {
            self.permitted.resize(number + 1, None);
        }
        assert_eq!(self.permitted[number].replace(permit), None, "two verdicts about {number}");
        while self.permitted.get(self.low).is_some_and(Option::is_some) {
            self.low += 1;
        }
    }

    /// What was permitted has arrived, once each, and nothing else has.
    fn close(mut self, stream: Stream) {
        self.arrived.sort_unstable();
        let verdicts = self.permitted.iter().enumerate();
        let permitted: Vec<usize> =
            verdicts.filter(|(_, v)| **v == Some(true)).map(|(number, _)| number).collect();
        assert!(self.arrived == permitted, "{stream:?}: arrivals are not what was permitted");
    }
}

/// Sends on all streams while `work` changes policies, and follows every single datagram: it is
/// decided once, arrives when it was permitted, and is counted. Gives the tally of verdicts.
fn under_traffic(rig: &Rig, events: &mut Events, work: impl FnOnce() + Send) -> Tally {
    let before = Books::of(&rig.receiver);
    let (done, sent) = (AtomicBool::new(false), [const { AtomicUsize::new(0) }; 4]);
    let credit = [const { AtomicUsize::new(WINDOW) }; 4];
    let send = |right: bool| {
        let ends: Vec<_> = (0..4).filter(|&i| STREAMS[i].right == right).collect();
        let to = address(if right { 2 } else { 1 }, 2, right);
        let sockets = [0, 1].map(|i| rig.socket(STREAMS[ends[i]], false));
        let mut datagram = [0; SHORTEST + LENGTHS];
        while !done.load(Ordering::Relaxed) {
            let mut idle = true;
            for (&i, socket) in ends.iter().zip(&sockets) {
                let number = sent[i].load(Ordering::Relaxed);
                if number < credit[i].load(Ordering::Acquire) {
                    datagram[..SHORTEST].copy_from_slice(&(number as u64).to_be_bytes());
                    let len = SHORTEST + number % LENGTHS;
                    socket.send_to(&datagram[..len], (to, STREAMS[i].port)).unwrap();
                    sent[i].store(number + 1, Ordering::Release);
                    idle = false;
                }
            }
            if idle {
                thread::sleep(Duration::from_micros(20));
            }
        }
    };
    let mut ledgers = STREAMS.map(|_| Ledger::default());
    let mut tally = Tally::new();
    let mut read = 0;
    let indices = ["eth0", "eth1"].map(|d| rig.receiver.namespace.ifindex(d).unwrap());
    let sockets = STREAMS.map(|stream| rig.socket(stream, true));
    let mut settle = |ledgers: &mut [Ledger; 4]| {
        while let Some(event) = events.next(Duration::ZERO).unwrap() {
            read += 1;
            let Some(i) = rig.stream(&event, indices) else { continue };
            let headers = 14 + 32 + 8 + if STREAMS[i].right { 40 } else { 20 };
            ledgers[i].note(event.len as usize - headers, event.verdict == verdict::PERMIT);
            let key = (event.generation, STREAMS[i], event.rule, event.verdict, event.reason);
            *tally.entry(key).or_default() += 1;
        }
        for (ledger, socket) in ledgers.iter_mut().zip(&sockets) {
            let number = |datagram: Vec<u8>| {
                u64::from_be_bytes(datagram[..SHORTEST].try_into().unwrap()) as usize
            };
            ledger.arrived.extend(drain(socket).into_iter().map(number));
        }
        for (ledger, credit) in ledgers.iter().zip(&credit) {
            credit.store(ledger.low + WINDOW, Ordering::Release);
        }
    };
    thread::scope(|scope| {
        // However this ends, the senders do too.
        let _end = OnDrop(|| done.store(true, Ordering::Relaxed));
        let senders = [false, true].map(|right| scope.spawn(move || send(right)));
        let worker = scope.spawn(work);
        while !worker.is_finished() {
            settle(&mut ledgers);
            assert!(!senders.iter().any(|sender| sender.is_finished()), "a sender has failed");
        }
        worker.join().unwrap();
        drop(_end);
        for sender in senders {
            sender.join().unwrap();
        }
        let all_decided = |ledgers: &[Ledger; 4]| {
            ledgers
                .iter()
                .zip(&sent)
                .all(|(ledger, sent)| ledger.low == sent.load(Ordering::Acquire))
        };
        wait_until(|| {
            settle(&mut ledgers);
            all_decided(&ledgers)
        });
        let missing: Vec<_> = STREAMS.iter().zip(&ledgers).zip(&sent).collect();
        for ((stream, ledger), sent) in missing {
            let sent = sent.load(Ordering::Acquire);
            assert_eq!(ledger.low, sent, "{stream:?}: datagrams without a verdict");
        }
    });
    settle(&mut ledgers);
    let books = Books::of(&rig.receiver).since(before);
    settle(&mut ledgers);
    let sent: u64 = sent.iter().map(|sent| sent.load(Ordering::Relaxed) as u64).sum();
    assert_eq!(tally.values().sum::<u64>(), sent, "every datagram has one verdict");
    assert_eq!(books.ruled, sent, "every datagram is counted once");
    assert_eq!(books.packets, books.delivered + books.lost_full + books.lost_rate, "{books:?}");
    assert_eq!((books.lost_full, books.lost_rate), (0, 0));
    assert!(read >= books.delivered);
    for (ledger, stream) in ledgers.into_iter().zip(STREAMS) {
        ledger.close(stream);
    }
    tally
}

/// Each generation has decided every packet as its policy says: verdict, reason and rule.
fn agree(tally: &Tally, generations: &Generations) {
    for (&(generation, stream, rule, decided, why), packets) in tally {
        let seen = format!("{packets} packets of {stream:?} in generation {generation}");
        let (policy, image) = generations.get(&generation).unwrap_or_else(|| panic!("{seen}"));
        let wanted = if policy.permits(stream) { verdict::PERMIT } else { verdict::DENY };
        let name = image.names().rule(rule).unwrap_or_default();
        assert_eq!((decided, why), (wanted, reason::RULE), "{seen} under {policy:?}");
        assert_eq!(name, policy.rule(stream), "{seen}");
    }
}

/// Flips to the other policy, by an apply or by a rollback.
struct Flipper<'a> {
    node: &'a Node,
    images: [Image; 2],
    now: Policy,
    generations: Generations,
}

impl<'a> Flipper<'a> {
    /// Both policies have been in force; `Odd` is.
    fn new(node: &'a Node, images: [Image; 2]) -> Self {
        let mut flipper = Self { node, images, now: Policy::Odd, generations: BTreeMap::new() };
        flipper.apply(&["eth0", "eth1"]);
        flipper.apply(&[]);
        flipper
    }

    fn apply(&mut self, interfaces: &[&str]) -> u64 {
        self.now = self.now.other();
        let image = &self.images[self.now as usize];
        let generation = self.node.apply(image, interfaces).generation;
        let known = self.generations.insert(generation, (self.now, image.clone()));
        assert!(known.is_none(), "generation {generation} was there before");
        generation
    }

    /// The earlier generation is always one of the other policy.
    fn rollback(&mut self) -> u64 {
        self.now = self.now.other();
        let generation = self.node.rollback();
        let known = self.generations.get(&generation).map(|(policy, _)| *policy);
        assert_eq!(known, Some(self.now), "generation {generation}");
        generation
    }

    fn flip(&mut self, random: &mut Random) -> u64 {
        if random.one_in(2) { self.rollback() } else { self.apply(&[]) }
    }
}

#[test]
fn no_packet_is_decided_by_a_mix_of_generations() {
    if !kernel_available() {
        return;
    }
    const FLIPS: usize = 300;
    let rig = Rig::new();
    let images = [Policy::Even.image(0), Policy::Odd.image(60)];
    let flipper = Mutex::new(Flipper::new(&rig.receiver, images));
    let mut events = rig.receiver.report_everything();
    let tally = under_traffic(&rig, &mut events, || {
        let mut flipper = flipper.lock().unwrap();
        let mut random = Random::new(1);
        for _ in 0..FLIPS {
            flipper.flip(&mut random);
        }
    });
    let flipper = flipper.into_inner().unwrap();
    agree(&tally, &flipper.generations);
    let busy: std::collections::BTreeSet<u64> = tally.keys().map(|key| key.0).collect();
    // About half of the flips are applies; most of them see packets.
    assert!(busy.len() > FLIPS / 8, "only {} generations saw packets", busy.len());
}

#[test]
fn hundreds_of_flips_a_second_mix_nothing() {
    if !kernel_available() {
        return;
    }
    const FLIPS: u32 = 2000;
    let rig = Rig::new();
    let flipper = Flipper::new(&rig.receiver, [Policy::Even.image(0), Policy::Odd.image(60)]);
    let flipper = Mutex::new(flipper);
    let mut events = rig.receiver.report_everything();
    let tally = under_traffic(&rig, &mut events, || {
        let mut flipper = flipper.lock().unwrap();
        let start = std::time::Instant::now();
        for _ in 0..FLIPS {
            flipper.rollback();
            // Traffic gets a turn.
            thread::sleep(Duration::from_micros(200));
        }
        println!("{:.0} flips a second", f64::from(FLIPS) / start.elapsed().as_secs_f64());
    });
    let flipper = flipper.into_inner().unwrap();
    agree(&tally, &flipper.generations);
    let generations: std::collections::BTreeSet<u64> = tally.keys().map(|key| key.0).collect();
    assert_eq!(generations.len(), 2, "both generations decide");
}

#[test]
fn what_is_sent_after_a_flip_is_decided_by_the_new_generation() {
    if !kernel_available() {
        return;
    }
    let rig = Rig::new();
    let images = [Policy::Even.image(7), Policy::Odd.image(0)];
    let mut flipper = Flipper::new(&rig.receiver, images);
    let mut events = rig.receiver.report_everything();
    let mut random = Random::new(2);
    let indices = ["eth0", "eth1"].map(|d| rig.receiver.namespace.ifindex(d).unwrap());
    let _servers = STREAMS.map(|stream| rig.socket(stream, true));
    let clients = STREAMS.map(|stream| rig.socket(stream, false));
    for _ in 0..40 {
        let generation = flipper.flip(&mut random);
        let mut tally = Tally::new();
        for (stream, client) in STREAMS.into_iter().zip(&clients) {
            let to = address(if stream.right { 2 } else { 1 }, 2, stream.right);
            client.send_to(b"after the flip", (to, stream.port)).unwrap();
        }
        while tally.len() < STREAMS.len() {
            let event = events.next(PATIENCE).unwrap().expect("an event");
            let Some(i) = rig.stream(&event, indices) else { continue };
            assert_eq!(event.generation, generation);
            tally.insert((generation, STREAMS[i], event.rule, event.verdict, event.reason), 1);
        }
        agree(&tally, &flipper.generations);
    }
}

#[test]
fn buffers_grow_under_traffic() {
    if !kernel_available() {
        return;
    }
    let rig = Rig::new();
    let first = [Policy::Even.image(0), Policy::Odd.image(1)];
    let flipper = Mutex::new(Flipper::new(&rig.receiver, first));
    let mut events = rig.receiver.report_everything();
    let larger =
        [500, 1000, 2000].map(|rules| [Policy::Even.image(rules), Policy::Odd.image(rules + 1)]);
    let tally = under_traffic(&rig, &mut events, || {
        let mut flipper = flipper.lock().unwrap();
        for images in larger {
            flipper.images = images;
            flipper.apply(&[]);
            flipper.rollback();
            flipper.rollback();
            flipper.apply(&[]);
        }
    });
    let flipper = flipper.into_inner().unwrap();
    agree(&tally, &flipper.generations);
}

#[test]
fn programs_are_replaced_under_traffic() {
    if !kernel_available() {
        return;
    }
    let rig = Rig::new();
    let images = [Policy::Even.image(0), Policy::Odd.image(9)];
    let flipper = Mutex::new(Flipper::new(&rig.receiver, images));
    let mut events = rig.receiver.report_everything();
    let tally = under_traffic(&rig, &mut events, || {
        let mut flipper = flipper.lock().unwrap();
        for _ in 0..6 {
            // As if another version of the tool had loaded them.
            rig.receiver.forget_object();
            flipper.apply(&[]);
            flipper.rollback();
        }
    });
    agree(&tally, &flipper.into_inner().unwrap().generations);
}

#[test]
fn who_reads_events_knows_their_generations_when_buffers_have_grown() {
    if !kernel_available() {
        return;
    }
    let rig = Rig::new();
    let mut flipper = Flipper::new(&rig.receiver, [Policy::Even.image(0), Policy::Odd.image(0)]);
    let mut events = rig.receiver.report_everything();
    flipper.images = [Policy::Even.image(1000), Policy::Odd.image(1001)];
    for _ in 0..2 {
        let generation = flipper.apply(&[]);
        let (_, image) = &flipper.generations[&generation];
        let known = events.image(generation);
        assert!(known.is_some(), "nothing is known about generation {generation}");
        assert!(known == Some(image), "another image than that of generation {generation}");
    }
}

#[test]
fn lost_events_are_counted() {
    if !kernel_available() {
        return;
    }
    let rig = Rig::new();
    let flipper = Flipper::new(&rig.receiver, [Policy::Even.image(0), Policy::Odd.image(0)]);
    let _servers = STREAMS.map(|stream| rig.socket(stream, true));
    let clients = STREAMS.map(|stream| rig.socket(stream, false));
    let send = |packets: usize| {
        let before = Books::of(&rig.receiver);
        for i in 0..packets {
            let stream = STREAMS[i % 4];
            let to = address(if stream.right { 2 } else { 1 }, 2, stream.right);
            clients[i % 4].send_to(b"one of many", (to, stream.port)).unwrap();
        }
        let books = Books::of(&rig.receiver).since(before);
        assert_eq!(books.packets, books.delivered + books.lost_full + books.lost_rate, "{books:?}");
        books
    };
    let mut events = rig.receiver.report_everything();
    let mut read = 0;
    let mut read_all = || {
        assert!(wait_until(|| {
            read += std::iter::from_fn(|| events.next(Duration::ZERO).unwrap()).count() as u64;
            read == Books::of(&rig.receiver).delivered
        }));
    };
    let books = send(1000);
    assert_eq!((books.lost_full, books.lost_rate), (0, 0));
    read_all();
    // Nobody reads: the ring runs full.
    let books = send(20_000);
    assert!(books.lost_full > 0 && books.lost_rate == 0, "{books:?}");
    read_all();
    // Hardly any may be published.
    status::set_event_rate(&rig.receiver.place, 10).unwrap();
    // Each CPU goes on with what is left of its budget for a second.
    thread::sleep(Duration::from_millis(1100));
    let books = send(5_000);
    assert!(books.lost_rate > 0 && books.lost_full == 0, "{books:?}");
    read_all();
    drop(flipper);
}
