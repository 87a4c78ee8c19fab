//! Keys that change, grants that end and labels that prove nothing, under live traffic.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use govc_abi::{
    label::{Label, SLOT_NS},
    mac,
};
use govc_image::Image;
use govc_loader::{
    authority::{Authority, Held},
    keyring::{DomainKeys, EPOCHS_STAGED_MAX, KeyRing, slot_now},
    publish,
};
use govc_tests::{
    Compiled,
    frame::{Spec, Transport},
    kernel::{Hook, Kernel},
    kernel_available,
    ledger::{self, ACK, api_label, spec},
    node::{
        How, Keys, Node, OnDrop, address, connect, image, tcp_listener, udp_socket, wait_until,
    },
    random::Random,
    reference::Verifier,
};

/// The length of a run under load, in rotations.
const ROTATIONS: usize = 100;
/// Datagrams that are to be sent in a second.
const RATE_PER_S: u64 = 50_000;
/// Datagrams that may be under way.
const WINDOW: u64 = 20_000;

/// The policies of a node that sends datagrams and of one that takes them.
fn sends_datagrams() -> [Image; 2] {
    let lan = "zone lan = interface \"eth0\"\n";
    let stamp = "stamp on lan { subject acme.payments.api  operation ledger.read }\n\
                 policy sends { on egress permit all { proto udp port 5000 } }";
    let deliver = "deliver on lan { object acme.payments.ledger }\n\
                   policy takes { on ingress to acme.payments.ledger\n\
                   permit all { from acme.payments.api  proto udp port 5000 } }";
    [stamp, deliver].map(|rest| image(&[lan, rest]))
}

/// A sender and a receiver with epochs of one slot, and key rings of their own.
struct Pair {
    nodes: [Node; 2],
    rings: [KeyRing; 2],
    _keys: [Arc<Keys>; 2],
}

/// What a run under load has come to.
#[derive(Debug)]
struct Run {
    sent: u64,
    arrived: u64,
    /// Packets that were denied at either hook, by reason.
    denied: Vec<(&'static str, u64)>,
    seconds: f64,
    /// Epochs that ended meanwhile.
    epochs: u64,
}

impl Pair {
    fn new() -> Self {
        let keys = [Keys::new(), Keys::new()];
        let rings = [0, 1].map(|i: usize| keys[i].ring().clone());
        let pair = Self {
            nodes: [Node::new("sender", &keys[0]), Node::new("receiver", &keys[1])],
            rings,
            _keys: keys,
        };
        let [sender, receiver] = &pair.nodes;
        connect(1, [(&sender.namespace, "eth0"), (&receiver.namespace, "eth0")]);
        let keys = DomainKeys::generate("acme", 7, 0, EPOCHS_STAGED_MAX).unwrap();
        pair.rings.iter().for_each(|ring| ring.write(&keys).unwrap());
        for (node, image) in pair.nodes.iter().zip(sends_datagrams()) {
            node.apply(&image, &["eth0"]);
        }
        pair
    }

    /// Gives keys to one node.
    fn hand_over(&self, node: usize, keys: &DomainKeys) {
        self.rings[node].write(keys).unwrap();
        publish::refresh_keys(&self.nodes[node].place, &self.rings[node]).unwrap();
    }

    /// Sends datagrams at the rate while `work` goes on, which is told how many so far; when `whole`, not
    /// more than can be under way without loss.
    fn under_load(&self, whole: bool, work: impl FnOnce(&AtomicU64)) -> Run {
        let [sender, receiver] = &self.nodes;
        let before = self.denied();
        let (done, sent, arrived) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let from = udp_socket(&sender.namespace, address(1, 1, false), 0);
        let at = udp_socket(&receiver.namespace, address(1, 2, false), 5000);
        at.set_nonblocking(false).unwrap();
        at.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        make_room(&at);
        let to = at.local_addr().unwrap();
        let (first, began) = (slot_now(), Instant::now());
        thread::scope(|scope| {
            let _end = OnDrop(|| done.store(true, Ordering::Relaxed));
            scope.spawn(|| {
                pace(&from, to, (&done, &sent), || {
                    !whole
                        || sent.load(Ordering::Relaxed) < arrived.load(Ordering::Relaxed) + WINDOW
                })
            });
            scope.spawn(|| count(&at, &done, (&sent, &arrived)));
            work(&sent);
        });
        let seconds = began.elapsed().as_secs_f64();
        let denied = self.denied().into_iter().map(|(reason, packets)| {
            let earlier = before.iter().find(|(known, _)| *known == reason);
            (reason, packets - earlier.map_or(0, |(_, packets)| *packets))
        });
        Run {
            sent: sent.into_inner(),
            arrived: arrived.into_inner(),
            denied: denied.filter(|(_, packets)| *packets > 0).collect(),
            seconds,
            epochs: slot_now() - first,
        }
    }

    /// Packets that were denied at the hooks that the datagrams pass.
    fn denied(&self) -> Vec<(&'static str, u64)> {
        let at = |node: &Node, hook: &str| {
            let reasons = node.status().reasons.into_iter();
            let counts =
                reasons.filter(|count| count.hook == hook && count.permitted == Some(false));
            counts.map(|count| (count.reason, count.packets)).collect::<Vec<_>>()
        };
        let [sender, receiver] = &self.nodes;
        let mut denied = at(receiver, "ingress");
        for (reason, packets) in at(sender, "egress") {
            match denied.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, total)) => *total += packets,
                None => denied.push((reason, packets)),
            }
        }
        // What the stack itself has to say to nobody in particular.
        denied.retain(|(reason, _)| !matches!(*reason, "label_missing" | "no_subject" | "no_rule"));
        denied
    }
}

/// Room for what comes while the reader does not run.
fn make_room(socket: &UdpSocket) {
    const SOL_SOCKET: i32 = 1;
    const SO_RCVBUFFORCE: i32 = 33;
    unsafe extern "C" {
        fn setsockopt(fd: i32, level: i32, name: i32, value: *const i32, len: u32) -> i32;
    }
    let bytes = 64 << 20;
    // SAFETY: pointer and length describe `bytes`.
    let failed =
        unsafe { setsockopt(socket.as_raw_fd(), SOL_SOCKET, SO_RCVBUFFORCE, &raw const bytes, 4) };
    assert_eq!(failed, 0);
}

/// Sends numbered datagrams, as many in a second as are wanted.
fn pace(
    from: &UdpSocket,
    to: SocketAddr,
    (done, sent): (&AtomicBool, &AtomicU64),
    may: impl Fn() -> bool,
) {
    from.set_nonblocking(false).unwrap();
    let (mut due, mut last) = (0.0, Instant::now());
    while !done.load(Ordering::Relaxed) {
        due += last.elapsed().as_secs_f64() * RATE_PER_S as f64;
        last = Instant::now();
        // What could not be sent in time is not caught up with at once.
        due = f64::min(due, RATE_PER_S as f64 / 100.0);
        while due >= 1.0 && may() {
            let number = sent.load(Ordering::Relaxed);
            // What a hook drops comes back as an error; it is counted there.
            let _ = from.send_to(&number.to_be_bytes(), to);
            sent.store(number + 1, Ordering::Relaxed);
            due -= 1.0;
        }
        thread::sleep(Duration::from_micros(200));
    }
}

/// Counts datagrams until none come any more.
fn count(at: &UdpSocket, done: &AtomicBool, (sent, arrived): (&AtomicU64, &AtomicU64)) {
    let mut datagram = [0; 16];
    let mut quiet = Instant::now();
    loop {
        match at.recv(&mut datagram) {
            Ok(_) => {
                arrived.fetch_add(1, Ordering::Relaxed);
                quiet = Instant::now();
            }
            Err(_) if !done.load(Ordering::Relaxed) => {}
            Err(_) => {
                let all = arrived.load(Ordering::Relaxed) == sent.load(Ordering::Relaxed);
                if all || quiet.elapsed() > Duration::from_secs(1) {
                    return;
                }
            }
        }
    }
}

/// Waits until the present slot is at least so old, and younger than 1.4 seconds.
fn within_a_slot(at_least: Duration) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let phase = Duration::from_nanos(now.as_nanos() as u64 % SLOT_NS);
        if (at_least..Duration::from_millis(1400)).contains(&phase) {
            return;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_hundred_rotations_under_load_lose_nothing() {
    if !kernel_available() {
        return;
    }
    let pair = Pair::new();
    let run = pair.under_load(true, |sent| {
        for _ in 0..ROTATIONS {
            // Both nodes have the new keys before the epoch that they begin with.
            within_a_slot(Duration::from_millis(100));
            let mut keys = pair.rings[0].read(7).unwrap().unwrap();
            keys.rotate(slot_now(), EPOCHS_STAGED_MAX).unwrap();
            pair.hand_over(0, &keys);
            pair.hand_over(1, &keys);
            thread::sleep(Duration::from_millis(100));
        }
        // A slow machine takes its time for as many as show anything.
        assert!(wait_until(|| sent.load(Ordering::Relaxed) > 100_000));
    });
    eprintln!(
        "{ROTATIONS} rotations, {:.0} datagrams a second: {run:?}",
        run.sent as f64 / run.seconds
    );
    assert_eq!((run.arrived, run.denied.as_slice()), (run.sent, [].as_slice()), "{run:?}");
    assert!(run.epochs >= 5, "{run:?}");
}

/// The keys of one epoch only.
fn only(keys: &DomainKeys, epoch: u64) -> DomainKeys {
    let text = keys.to_text().unwrap();
    let mut ring: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let epochs = ring["epochs"].as_array_mut().unwrap();
    epochs.retain(|key| key["epoch"] == epoch);
    DomainKeys::from_text(&ring.to_string()).unwrap()
}

#[test]
fn a_verifier_with_room_for_one_key_loses_packets_at_each_rotation() {
    if !kernel_available() {
        return;
    }
    const CHANGES: u64 = 5;
    let pair = Pair::new();
    let keys = pair.rings[0].read(7).unwrap().unwrap();
    within_a_slot(Duration::from_millis(100));
    pair.hand_over(1, &only(&keys, slot_now()));
    let run = pair.under_load(false, |_| {
        for _ in 0..CHANGES {
            let before = slot_now();
            while slot_now() == before {
                thread::sleep(Duration::from_micros(100));
            }
            pair.hand_over(1, &only(&keys, slot_now()));
        }
        within_a_slot(Duration::from_millis(300));
    });
    eprintln!(
        "one key at a time, {:.0} datagrams a second: {run:?}",
        run.sent as f64 / run.seconds
    );
    let lost: u64 = run.denied.iter().map(|(_, packets)| packets).sum();
    let reasons = ["epoch_expired", "key_missing"];
    assert!(run.denied.iter().all(|(reason, _)| reasons.contains(reason)), "{run:?}");
    assert!(lost >= CHANGES && run.arrived <= run.sent - lost, "{run:?}");
}

/// A bundle's word on a policy whose labels are all stamped under one grant.
fn signed(serial: u16, revoked: &[u16], not_after: u64) -> Authority {
    let mut bitmap = vec![0_u64; 1024];
    for serial in revoked {
        bitmap[usize::from(*serial) / 64] |= 1 << (serial % 64);
    }
    let held = Held { serial, not_after: u64::MAX };
    let stamps = vec![(0, held)];
    let not_before = slot_now() * 2 - 100;
    Authority {
        domain: 7,
        stamps,
        transit: Vec::new(),
        revoked: bitmap,
        abroad: Vec::new(),
        not_before,
        not_after,
    }
}

/// Two clients under grants of their own, and servers on links of their own that both of them use.
struct Streams {
    clients: [Node; 2],
    server: Node,
    _keys: Arc<Keys>,
}

const SERVER: u16 = 900;
const CLIENTS: [u16; 2] = [11, 12];
const PORT: u16 = 5432;

fn client(subject: &str) -> Image {
    let text = "zone lan = interface \"eth0\"\n\
                policy calls { on egress permit all { proto tcp port 5432 } }\n";
    image(&[text, &format!("stamp on lan {{ subject {subject} }}\n")])
}

fn server() -> Image {
    image(&["zone lan = interface \"eth*\"\n\
             deliver on lan { object acme.payments.ledger }\n\
             stamp on lan { subject acme.payments.ledger }\n\
             policy serves { on ingress to acme.payments.ledger\n\
             permit one { from acme.payments.api  proto tcp port 5432 }\n\
             permit two { from acme.web.front  proto tcp port 5432 } }\n"])
}

impl Streams {
    fn new() -> Self {
        let keys = Keys::new();
        let [one, two, server] = ["one", "two", "server"].map(|name| Node::new(name, &keys));
        for (net, device, client) in [(1, "eth0", &one), (2, "eth1", &two)] {
            connect(net, [(&client.namespace, "eth0"), (&server.namespace, device)]);
        }
        let streams = Self { clients: [one, two], server, _keys: keys };
        let subjects = ["acme.payments.api", "acme.web.front"];
        for ((node, subject), serial) in streams.clients.iter().zip(subjects).zip(CLIENTS) {
            apply(node, &client(subject), &["eth0"], &signed(serial, &[], u64::MAX));
        }
        apply(&streams.server, &self::server(), &["eth0", "eth1"], &signed(SERVER, &[], u64::MAX));
        streams
    }

    /// Both clients write all the time while `work` goes on, which is told how much the server has
    /// read of each so far.
    fn under_load(&self, work: impl FnOnce(&[AtomicU64; 2])) {
        let (done, read) = (AtomicBool::new(false), [const { AtomicU64::new(0) }; 2]);
        thread::scope(|scope| {
            let _end = OnDrop(|| done.store(true, Ordering::Relaxed));
            for (i, client) in self.clients.iter().enumerate() {
                let to = SocketAddr::new(address(i as u8 + 1, 2, false), PORT);
                let listener = tcp_listener(&self.server.namespace, to);
                let mut writes = client.namespace.run(|| TcpStream::connect(to).unwrap());
                let (mut reads, _) = listener.accept().unwrap();
                let patience = Some(Duration::from_millis(50));
                writes.set_write_timeout(patience).unwrap();
                reads.set_read_timeout(patience).unwrap();
                let (done, read) = (&done, &read[i]);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let _ = writes.write(&[7; 10_000]);
                        thread::sleep(Duration::from_micros(500));
                    }
                });
                scope.spawn(move || {
                    let mut bytes = [0; 65_536];
                    while !done.load(Ordering::Relaxed) {
                        let len = reads.read(&mut bytes).unwrap_or(0);
                        read.fetch_add(len as u64, Ordering::Relaxed);
                    }
                });
            }
            for read in &read {
                assert!(wait_until(|| read.load(Ordering::Relaxed) > 1_000_000));
            }
            work(&read);
        });
    }
}

fn apply(node: &Node, image: &Image, interfaces: &[&str], authority: &Authority) {
    let how = How { authority: Some(authority), ..How::default() };
    node.try_apply(image, interfaces, how).unwrap();
}

/// Whether more is read of a stream than can have been under way.
fn goes_on(read: &AtomicU64) -> bool {
    let before = read.load(Ordering::Relaxed);
    wait_until(|| read.load(Ordering::Relaxed) > before + 100_000)
}

/// Whether nothing is read of a stream for a second.
fn stands_still(read: &AtomicU64) -> bool {
    let before = read.load(Ordering::Relaxed);
    thread::sleep(Duration::from_secs(1));
    read.load(Ordering::Relaxed) == before
}

#[test]
fn a_revocation_stops_a_stream_at_its_next_packet_and_no_other() {
    if !kernel_available() {
        return;
    }
    let streams = Streams::new();
    let server = &streams.server;
    streams.under_load(|read| {
        for revoked in [[500], [CLIENTS[0]]] {
            assert!(read.iter().all(goes_on));
            assert_eq!(server.count("ingress", "revoked"), 0);
            // The bundle of the client stays what it was: what counts is who verifies.
            apply(server, &self::server(), &[], &signed(SERVER, &revoked, u64::MAX));
        }
        assert!(wait_until(|| server.count("ingress", "revoked") > 0));
        // Whatever waited in the socket is read by now.
        thread::sleep(Duration::from_millis(100));
        let permitted = server.decided("serves.one");
        assert!(stands_still(&read[0]) && goes_on(&read[1]));
        assert_eq!(server.decided("serves.one"), permitted);
        assert!(server.decided("serves.two") > 0);
    });
    let denied: Vec<_> = server.reasons("ingress").into_iter().collect();
    let known = ["rule", "revoked", "link_control", "reply"];
    assert!(denied.iter().all(|(reason, _)| known.contains(reason)), "{denied:?}");
}

/// Whether a second is over, or is in a moment: the clock of hooks moves by ticks, and may be one ahead.
fn has_been(second: u64) -> bool {
    thread::sleep(Duration::from_millis(20));
    slot_now() * 2 > second
}

#[test]
fn a_grant_and_a_bundle_that_end_stop_a_stream() {
    if !kernel_available() {
        return;
    }
    let streams = Streams::new();
    let [one, _] = &streams.clients;
    streams.under_load(|read| {
        // The grant of the first client ends, and it knows.
        let ends = slot_now() * 2 + 9;
        let ending = Held { serial: CLIENTS[0], not_after: ends };
        let authority = Authority { stamps: vec![(0, ending)], ..signed(0, &[], u64::MAX) };
        apply(one, &client("acme.payments.api"), &[], &authority);
        assert!(goes_on(&read[0]), "until then it goes on");
        assert!(wait_until(|| one.count("egress", "grant_expired") > 0));
        assert!(has_been(ends));
        thread::sleep(Duration::from_millis(100));
        assert!(stands_still(&read[0]) && goes_on(&read[1]), "the other one goes on");
        // The bundle of the server ends: nothing passes any more, either way.
        let ends = slot_now() * 2 + 9;
        apply(&streams.server, &server(), &[], &signed(SERVER, &[], ends));
        assert!(goes_on(&read[1]), "until then it goes on");
        assert!(wait_until(|| streams.server.count("ingress", "policy_expired") > 0));
        assert!(has_been(ends));
        let decided = streams.server.decided("serves.two");
        thread::sleep(Duration::from_millis(100));
        assert!(stands_still(&read[1]));
        assert_eq!(streams.server.decided("serves.two"), decided, "not one packet more");
    });
}

/// Packets that must not pass, of one kind.
const ATTACKS: usize = 100_000;
/// After so many comes a good one.
const BATCH: usize = 500;

/// A label that passes, on the flow that it passes on.
struct Attack {
    compiled: Arc<Compiled>,
    verifier: Verifier,
    random: Random,
}

impl Attack {
    fn number(&mut self) -> u64 {
        (self.random.below(1 << 30) as u64) << 34
            ^ (self.random.below(1 << 30) as u64) << 17
            ^ self.random.below(1 << 30) as u64
    }

    fn label(&self) -> Label {
        api_label(&self.compiled, &self.verifier, 2).with_grant(CLIENTS[0])
    }

    fn good(&self) -> Vec<u8> {
        spec(false, ACK).labelled(&self.label(), self.verifier.key)
    }

    /// A good packet with another MAC.
    fn forged(&mut self) -> Vec<u8> {
        let mac = self.number();
        govc_tests::frame::insert(&spec(false, ACK).frame(), &self.label(), mac)
    }

    /// A label of another time, and its MAC.
    fn replayed_late(&mut self) -> Vec<u8> {
        // Older than its life of four slots, and not so old that it would be new again.
        let age = 5 + self.random.below(16_000) as u16;
        let label = self.label().with_slot((self.verifier.slot as u16).wrapping_sub(age));
        spec(false, ACK).labelled(&label, self.verifier.key)
    }

    /// A good label on another flow.
    fn replayed_elsewhere(&mut self) -> Vec<u8> {
        let own = spec(false, ACK);
        let (label, flow) = (self.label(), own.flow());
        let mac = mac::mac(self.verifier.key.0, self.verifier.key.1, &label, &flow);
        let port = 1024 + self.random.below(38_000) as u16;
        let other = match self.random.below(3) {
            0 => Spec { source: (own.source.ip(), port).into(), ..own },
            1 => {
                let host = [10, 2, self.random.below(256) as u8, self.random.below(256) as u8];
                Spec { source: (host, own.source.port()).into(), ..own }
            }
            _ => Spec { transport: Transport::Udp, source: (own.source.ip(), port).into(), ..own },
        };
        govc_tests::frame::insert(&other.frame(), &label, mac)
    }

    /// A label whose MAC was made with a key of somebody else.
    fn foreign(&mut self) -> Vec<u8> {
        let key = (self.number(), self.number());
        spec(false, ACK).labelled(&self.label(), key)
    }

    /// A label with a good MAC that names no grant.
    fn ungranted(&mut self) -> Vec<u8> {
        spec(self.random.one_in(2), ACK).labelled(&self.label().with_grant(0), self.verifier.key)
    }

    /// A label with a good MAC under a grant that was taken back.
    fn revoked(&mut self) -> Vec<u8> {
        let serial = 1000 + self.random.below(1000) as u16;
        spec(self.random.one_in(2), ACK)
            .labelled(&self.label().with_grant(serial), self.verifier.key)
    }
}

/// Makes a frame that must not be accepted.
type Forge = fn(&mut Attack) -> Vec<u8>;

#[test]
fn of_a_hundred_thousand_attacks_of_each_kind_none_is_accepted() {
    if !kernel_available() {
        return;
    }
    let compiled = Arc::new(ledger::compiled());
    let kernel = Kernel::new(&compiled.image);
    kernel.silence();
    let revoked: Vec<u16> = (1000..2000).collect();
    kernel.apply_signed(&compiled.image, &signed(0, &revoked, u64::MAX));
    let kinds: [(&str, Forge); 6] = [
        ("bad_mac", Attack::forged),
        ("slot_expired", Attack::replayed_late),
        ("bad_mac", Attack::replayed_elsewhere),
        ("bad_mac", Attack::foreign),
        ("ungranted", Attack::ungranted),
        ("revoked", Attack::revoked),
    ];
    for (seed, (reason, make)) in (0..).zip(kinds) {
        let before = kernel.counted("ingress", reason);
        let random = Random::new(seed);
        let verifier = kernel.verifier(7);
        let mut attack = Attack { compiled: compiled.clone(), verifier, random };
        let (mut accepted, mut good) = (0, 0);
        for round in 0..ATTACKS / BATCH {
            // Attacks have to be of this moment to fail for what they are.
            attack.verifier = kernel.verifier(7);
            good += kernel.passing(Hook::Ingress, &[attack.good()]);
            let frames: Vec<_> = (0..BATCH).map(|_| make(&mut attack)).collect();
            let hook = if round % 2 == 0 { Hook::Ingress } else { Hook::Xdp };
            accepted += kernel.passing(hook, &frames);
        }
        let counted = kernel.counted("ingress", reason) - before;
        eprintln!("{reason}: {accepted} of {ATTACKS} accepted, {good} good ones passed");
        assert_eq!((accepted, counted), (0, ATTACKS as u64), "{reason}");
        assert_eq!(good, ATTACKS / BATCH, "{reason}: the good ones pass");
    }
}
