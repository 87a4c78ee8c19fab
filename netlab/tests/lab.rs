//! The laboratory at work: real namespaces, links and packets. Needs root.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "helpers of tests")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::thread::sleep;
use std::time::{Duration, Instant};

use govc_netlab::{
    DontFragment, Flow, Frame, IpPrefix, LabError, Namespace, Offloads, Outcome, PacketSocket,
    PacketType, ping, require_root, udp_send_gso, veth,
};

const TIMEOUT: Duration = Duration::from_secs(5);
/// For what must not arrive.
const SHORT: Duration = Duration::from_millis(200);

const CLIENT: [&str; 2] = ["10.1.0.2", "fd01::2"];
const SERVER: [&str; 2] = ["10.2.0.2", "fd02::2"];

/// A client and a server with a router between them.
struct Lab {
    client: Namespace,
    router: Namespace,
    server: Namespace,
}

impl Lab {
    /// `None`, with a message, when the machine does not let the test make namespaces.
    fn build() -> Option<Self> {
        privileged().then(|| Self::try_build().unwrap())
    }

    fn try_build() -> Result<Self, LabError> {
        let client = Namespace::create("client")?;
        let router = Namespace::create("router")?;
        let server = Namespace::create("server")?;
        router.enable_forwarding()?;
        for (host, device, addresses) in [
            (&client, "to_client", ["10.1.0.2/24", "10.1.0.1/24", "fd01::2/64", "fd01::1/64"]),
            (&server, "to_server", ["10.2.0.2/24", "10.2.0.1/24", "fd02::2/64", "fd02::1/64"]),
        ] {
            veth(host, "eth0", &router, device, None)?;
            for pair in addresses.chunks(2) {
                let gateway: IpPrefix = pair[1].parse()?;
                host.add_address("eth0", pair[0].parse()?)?;
                router.add_address(device, gateway)?;
                let default = match gateway.addr() {
                    IpAddr::V4(_) => IpPrefix::DEFAULT_V4,
                    IpAddr::V6(_) => IpPrefix::DEFAULT_V6,
                };
                host.set_route(default, Some(gateway.addr()), "eth0")?;
            }
        }
        Ok(Self { client, router, server })
    }

    fn flow(&self, server: &str, port: u16) -> Flow<'_> {
        Flow::new(&self.server, at(server, port), &self.client, TIMEOUT)
    }
}

fn privileged() -> bool {
    let Err(error) = require_root() else { return true };
    assert!(std::env::var_os("GOVC_REQUIRE_KERNEL").is_none(), "{error}");
    println!("skipped: needs root");
    false
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().unwrap(), port)
}

/// Whether the frame is an IPv4 packet of the protocol.
fn is_ipv4(frame: &Frame, protocol: u8) -> bool {
    frame.bytes[12..14] == [0x08, 0x00] && frame.bytes[23] == protocol
}

#[test]
fn ping_crosses_the_router() {
    let Some(lab) = Lab::build() else { return };
    for (client, server) in CLIENT.into_iter().zip(SERVER) {
        let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
        for len in [0, 56, 1400, 4001] {
            let outcome = ping(&lab.client, Some(client), server, len, TIMEOUT).unwrap();
            assert!(outcome.is_delivered(), "{server} {len}: {outcome}");
        }
        assert!(ping(&lab.server, None, client, 56, TIMEOUT).unwrap().is_delivered());
    }
}

#[test]
fn udp_fills_the_mtu_and_no_more() {
    let Some(lab) = Lab::build() else { return };
    for (server, headers) in SERVER.into_iter().zip([28, 48]) {
        let flow = lab.flow(server, 4000);
        for df in [DontFragment::Do, DontFragment::Want, DontFragment::Dont] {
            let outcome = flow.udp_exchange(1500 - headers, df).unwrap();
            assert!(outcome.is_delivered(), "{server} {df:?}: {outcome}");
        }
        let over = 1501 - headers;
        assert_eq!(flow.udp_exchange(over, DontFragment::Do).unwrap(), Outcome::TooBig);
        assert!(flow.udp_exchange(over, DontFragment::Dont).unwrap().is_delivered());
        assert!(flow.udp_exchange(0, DontFragment::Want).unwrap().is_delivered());
    }

    // A smaller MTU behind the router: its message says that the datagram is too big.
    lab.router.set_mtu("to_server", 1300).unwrap();
    for server in SERVER {
        let outcome = lab.flow(server, 4001).udp_exchange(1400, DontFragment::Do).unwrap();
        assert_eq!(outcome, Outcome::TooBig, "{server}");
    }
}

#[test]
fn tcp_carries_20_megabytes() {
    let Some(lab) = Lab::build() else { return };
    for (client, server) in CLIENT.into_iter().zip(SERVER) {
        let flow = lab.flow(server, 5000).from(at(client, 40_000));
        let outcome = flow.tcp_exchange().unwrap();
        assert!(outcome.is_delivered(), "{server}: {outcome}");

        let flow = Flow { timeout: Duration::from_secs(60), ..lab.flow(server, 5001) };
        let report = flow.tcp_transfer(20_000_000).unwrap();
        assert_eq!(report.bytes, 20_000_000);
        assert!(report.elapsed < flow.timeout);
    }
    let stats = lab.server.link_stats("eth0").unwrap();
    assert!(stats.rx_bytes > 40_000_000, "{stats:?}");
    assert!(stats.rx_packets > 0 && stats.tx_packets > 0 && stats.tx_bytes > 0, "{stats:?}");
}

#[test]
fn connections_keep_to_a_segment_size() {
    let Some(lab) = Lab::build() else { return };
    for server in SERVER {
        let whole = lab.flow(server, 5002).tcp_connect(None).unwrap();
        let mut ends = lab.flow(server, 5003).tcp_connect(Some(600)).unwrap();
        // Time stamps take twelve bytes.
        assert_eq!(ends.mss, 588, "{server}");
        assert!(whole.mss > 1400, "{server}: {}", whole.mss);
        ends.client.write_all(b"request").unwrap();
        let mut request = [0; 7];
        ends.server.read_exact(&mut request).unwrap();
        assert_eq!(&request, b"request");
    }
}

#[test]
fn ways_to_fail_are_told_apart() {
    let Some(lab) = Lab::build() else { return };
    // The same loopback address is another host's: nobody listens there.
    for loopback in ["127.0.0.1", "::1"] {
        let flow = lab.flow(loopback, 7);
        assert_eq!(flow.tcp_exchange().unwrap(), Outcome::Refused);
        assert_eq!(flow.udp_exchange(64, DontFragment::Want).unwrap(), Outcome::Refused);
    }
    // The router knows no way.
    for absent in ["192.0.2.1", "2001:db8::1"] {
        let outcome = ping(&lab.client, None, absent.parse().unwrap(), 56, TIMEOUT).unwrap();
        assert_eq!(outcome, Outcome::Unreachable, "{absent}");
    }
    // The client itself knows no way.
    let lonely = Namespace::create("lonely").unwrap();
    let nowhere = ping(&lonely, None, SERVER[0].parse().unwrap(), 56, TIMEOUT).unwrap();
    assert_eq!(nowhere, Outcome::Unreachable);

    // A router that does not forward drops without a word.
    let key = "/proc/sys/net/ipv4/ip_forward";
    lab.router.run(|| std::fs::write(key, "0")).unwrap();
    let flow = Flow { timeout: SHORT, ..lab.flow(SERVER[0], 7) };
    assert_eq!(flow.tcp_exchange().unwrap(), Outcome::TimedOut);
    assert_eq!(flow.udp_exchange(64, DontFragment::Want).unwrap(), Outcome::TimedOut);
    assert_eq!(ping(&lab.client, None, flow.bind.ip(), 56, SHORT).unwrap(), Outcome::TimedOut);
    assert_eq!(
        flow.from(at(CLIENT[0], 0)).tcp_transfer(1000).unwrap_err().to_string(),
        "TCP transfer from client (10.1.0.2:0) to server (10.2.0.2:7): timed out after 0 bytes"
    );

    // A socket that cannot be had is not an outcome.
    let flow = lab.flow("10.99.0.1", 7);
    assert!(matches!(flow.tcp_exchange(), Err(LabError::Io { .. })));
    assert!(matches!(flow.udp_exchange(1, DontFragment::Do), Err(LabError::Io { .. })));
}

#[test]
fn routes_without_gateway_lead_to_the_link() {
    let Some(lab) = Lab::build() else { return };
    for (near, far) in [("10.7.0.1/32", "10.7.0.2/32"), ("fd07::1/128", "fd07::2/128")] {
        let (near, far): (IpPrefix, IpPrefix) = (near.parse().unwrap(), far.parse().unwrap());
        lab.client.add_address("eth0", near).unwrap();
        lab.router.add_address("to_client", far).unwrap();
        lab.client.set_route(far, None, "eth0").unwrap();
        lab.router.set_route(near, None, "to_client").unwrap();
        let outcome = ping(&lab.client, Some(near.addr()), far.addr(), 56, TIMEOUT).unwrap();
        assert!(outcome.is_delivered(), "{far}: {outcome}");
    }
}

#[test]
fn capture_sees_frames_and_sends_others() {
    let Some(lab) = Lab::build() else { return };
    let sent = PacketSocket::open(&lab.client, "eth0").unwrap();
    let seen = PacketSocket::open(&lab.server, "eth0").unwrap();
    let received = PacketSocket::open_incoming(&lab.server, "eth0").unwrap();

    let server = SERVER[0].parse().unwrap();
    assert!(ping(&lab.client, None, server, 1000, TIMEOUT).unwrap().is_delivered());
    let request = |frame: &Frame| is_ipv4(frame, 1) && frame.bytes[34] == 8;
    let out = sent.capture(TIMEOUT, request).unwrap().unwrap();
    assert_eq!(out.packet_type, PacketType::Outgoing);
    assert_eq!(out.bytes.len(), 14 + 20 + 8 + 1000);
    let arrived = seen.capture(TIMEOUT, request).unwrap().unwrap();
    assert_eq!(arrived.packet_type, PacketType::Host);
    assert_eq!(arrived.bytes[..6], lab.server.mac("eth0").unwrap());
    assert_eq!(arrived.bytes[34..], out.bytes[34..]);

    let outgoing = |frame: &Frame| frame.packet_type == PacketType::Outgoing;
    assert!(seen.capture(TIMEOUT, outgoing).unwrap().is_some());
    assert_eq!(received.capture(SHORT, outgoing).unwrap(), None);

    // A broadcast of an experimental protocol, from the router to the server.
    let mut frame = vec![0xff; 60];
    frame[6..12].copy_from_slice(&lab.router.mac("to_server").unwrap());
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    PacketSocket::open(&lab.router, "to_server").unwrap().send(&frame).unwrap();
    let same = received.capture(TIMEOUT, |seen| seen.bytes == frame).unwrap().unwrap();
    assert_eq!(same.packet_type, PacketType::Broadcast);
}

#[test]
fn offloads_change_what_crosses_the_link() {
    let Some(lab) = Lab::build() else { return };
    let largest_tcp_frame = || {
        let socket = PacketSocket::open(&lab.client, "eth0").unwrap();
        lab.flow(SERVER[0], 6000).tcp_transfer(1_000_000).unwrap();
        let mut largest = 0;
        let all = |frame: &Frame| {
            largest = largest.max(if is_ipv4(frame, 6) { frame.bytes.len() } else { 0 });
            false
        };
        socket.capture(SHORT, all).unwrap();
        largest
    };
    assert!(lab.client.offloads("eth0").unwrap().tso);
    assert!(largest_tcp_frame() > 1514);

    let off = Offloads { tso: false, gso: false, gro: false, tx_checksum: false };
    lab.client.set_offloads("eth0", off).unwrap();
    assert_eq!(lab.client.offloads("eth0").unwrap(), off);
    assert_eq!(largest_tcp_frame(), 1514);

    let on = Offloads { tso: true, gso: true, gro: true, tx_checksum: true };
    lab.client.set_offloads("eth0", on).unwrap();
    assert_eq!(lab.client.offloads("eth0").unwrap(), on);
    assert!(matches!(lab.client.offloads("eth7"), Err(LabError::NoSuchDevice { .. })));
}

#[test]
fn udp_segments_travel_as_one_packet() {
    let Some(lab) = Lab::build() else { return };
    for (client, server) in CLIENT.into_iter().zip(SERVER) {
        let socket = PacketSocket::open(&lab.client, "eth0").unwrap();
        let sent = udp_send_gso(&lab.client, at(client, 0), at(server, 9), 1000, 40).unwrap();
        assert_eq!(sent, 40_000);
        let large = socket.capture(TIMEOUT, |frame| frame.bytes.len() > 40_000).unwrap();
        assert!(large.is_some(), "{server}");
    }
    let missing = udp_send_gso(&lab.client, at("10.1.0.77", 0), at(SERVER[0], 9), 1000, 2);
    assert!(matches!(missing, Err(LabError::Io { .. })));
}

#[test]
fn devices_can_be_changed() {
    let Some(lab) = Lab::build() else { return };
    let mac = [2, 0, 0, 0, 0, 7];
    lab.client.set_mac("eth0", mac).unwrap();
    assert_eq!(lab.client.mac("eth0").unwrap(), mac);
    assert!(lab.flow(SERVER[0], 7000).tcp_exchange().unwrap().is_delivered());

    for address in ["10.1.0.9/24", "fd01::9/64"] {
        let address: IpPrefix = address.parse().unwrap();
        lab.client.add_address("eth0", address).unwrap();
        let used = ping(&lab.server, None, address.addr(), 56, TIMEOUT).unwrap();
        assert!(used.is_delivered(), "{address}: {used}");
        lab.client.remove_address("eth0", address).unwrap();
        assert!(matches!(lab.client.remove_address("eth0", address), Err(LabError::Io { .. })));
    }

    let error = lab.client.ifindex("eth7").unwrap_err();
    assert_eq!(error.to_string(), "no device \"eth7\" in namespace \"client\"");
}

#[test]
fn threads_run_inside() {
    let Some(lab) = Lab::build() else { return };
    let devices = || std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    assert!(lab.router.run(devices).contains("to_server:"));
    assert!(lab.router.spawn(devices).join().unwrap().contains("to_server:"));
    assert!(!devices().contains("to_server:"));
    let here = Namespace::current().unwrap();
    assert_eq!(here.run(devices).lines().count(), devices().lines().count());
    // Forwarding is a setting of the router alone.
    let forwarding = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    assert_eq!(lab.router.run(forwarding), "1\n");
    assert_eq!(lab.client.run(forwarding), "0\n");

    let panic = std::panic::catch_unwind(|| lab.client.run(|| panic!("inside"))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"inside"));
}

#[test]
fn namespace_ends_when_dropped() {
    let Some(lab) = Lab::build() else { return };
    lab.router.ifindex("to_server").unwrap();
    drop(lab.server);
    let start = Instant::now();
    while lab.router.ifindex("to_server").is_ok() {
        assert!(start.elapsed() < TIMEOUT, "the link outlives its other end");
        sleep(Duration::from_millis(10));
    }
    assert!(matches!(lab.router.ifindex("to_server"), Err(LabError::NoSuchDevice { .. })));
}
