//! The table of flows that replies are looked up in: it is bounded, and forgets.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    ops::Range,
    time::Duration,
};

use etherparse::{TcpHeader, UdpHeader};
use govc_abi::limits::{FLOWS_MAX, OPENINGS_MAX};
use govc_tests::{
    kernel_available,
    lab::{BOTH_VERSIONS, Lab, READ},
    node::{DENIED_WAIT, PATIENCE, Tap, address, protocol, tcp_listener, udp_socket},
};
use rustix::net::{self, AddressFamily, SocketType};

/// Ports that SYNs come from: none that the stack gives to connections.
const SYN_PORTS: Range<u16> = 1024..32_000;
/// Ports that datagrams come from.
const DATAGRAM_PORTS: Range<u16> = 1024..64_000;
/// The port of a flow that was there before, and was answered.
const OWN_PORT: u16 = 65_000;

/// A connection from A to B over which both ends have spoken.
fn connection(lab: &Lab, listener: &TcpListener) -> [TcpStream; 2] {
    let to = listener.local_addr().unwrap();
    let client = lab.a.namespace.run(|| TcpStream::connect(to).unwrap());
    let [mut client, mut server] = accepted(client, listener);
    say(&mut client, &mut server);
    say(&mut server, &mut client);
    [client, server]
}

/// Both ends of a client's connection, which send at once what is said and wait for what they hear.
fn accepted(client: TcpStream, listener: &TcpListener) -> [TcpStream; 2] {
    let (server, _) = listener.accept().unwrap();
    for stream in [&client, &server] {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }
    [client, server]
}

fn say(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"word").unwrap();
    to.read_exact(&mut [0; 4]).unwrap();
}

/// Whether what `from` says does not arrive.
fn is_cut(from: &mut TcpStream, to: &mut TcpStream) -> bool {
    from.write_all(b"word").unwrap();
    to.set_read_timeout(Some(DENIED_WAIT)).unwrap();
    let heard = to.read(&mut [0; 4]);
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    heard.is_err()
}

fn checksummed_syn(port: u16, from: IpAddr, to: IpAddr) -> Vec<u8> {
    let mut header = TcpHeader::new(port, READ, u32::from(port), 64_000);
    header.syn = true;
    header.checksum = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            header.calc_checksum_ipv4_raw(from.octets(), to.octets(), &[])
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            header.calc_checksum_ipv6_raw(from.octets(), to.octets(), &[])
        }
        _ => panic!("two versions"),
    }
    .unwrap();
    header.to_bytes().to_vec()
}

/// A's datagrams to B, one from each port, past A's sockets.
fn flood_of_datagrams(lab: &Lab, v6: bool) {
    let raw = Tap::open(&lab.a.namespace, v6, protocol::UDP);
    for port in DATAGRAM_PORTS {
        let header = UdpHeader::without_ipv4_checksum(port, READ, 0).unwrap();
        send(&raw, &header.to_bytes(), address(2, 2, v6));
    }
}

fn send(raw: &Tap, packet: &[u8], to: IpAddr) {
    while raw.send_to(packet, to).is_err() {
        std::thread::yield_now();
    }
}

/// How many of B's datagrams to these ports of A pass B's hook as replies.
fn answered(lab: &Lab, server: &UdpSocket, ports: Range<u16>, v6: bool) -> u64 {
    let before = lab.b.count("egress", "reply");
    for port in ports {
        let _ = server.send_to(b"answer", SocketAddr::new(address(1, 2, v6), port));
    }
    lab.b.count("egress", "reply") - before
}

#[test]
fn a_flood_pushes_out_nothing_but_its_own() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    for v6 in BOTH_VERSIONS {
        let to = address(2, 2, v6);
        let listener = tcp_listener(&lab.b.namespace, SocketAddr::new(to, READ));
        let mut connections: Vec<_> = (0..20).map(|_| connection(&lab, &listener)).collect();
        let server = udp_socket(&lab.b.namespace, to, READ);
        let asker = udp_socket(&lab.a.namespace, address(1, 2, v6), OWN_PORT);
        asker.send_to(b"asked", SocketAddr::new(to, READ)).unwrap();
        assert_eq!(answered(&lab, &server, OWN_PORT..OWN_PORT + 1, v6), 1);

        // More SYNs and datagrams than all of the table holds. SYNs are answered, datagrams not.
        let raw = Tap::open(&lab.a.namespace, v6, protocol::TCP);
        let before = lab.b.decided("ledger.read");
        for port in SYN_PORTS {
            send(&raw, &checksummed_syn(port, address(1, 2, v6), to), to);
        }
        flood_of_datagrams(&lab, v6);
        let flood = lab.b.decided("ledger.read") - before;
        assert!(flood as usize > FLOWS_MAX + OPENINGS_MAX / 2, "{flood}");

        // B speaks first, which only replies may.
        for [client, server] in &mut connections {
            say(server, client);
        }
        assert_eq!(answered(&lab, &server, OWN_PORT..OWN_PORT + 1, v6), 1);
        // Of the flood itself the last ones are known; what is sent to the first ones opens flows
        // of B's own, which A lets nobody open.
        let last = DATAGRAM_PORTS.end;
        assert!(answered(&lab, &server, last - 100..last, v6) >= 90);
        let opened = lab.b.count("egress", "ungoverned");
        assert_eq!(answered(&lab, &server, 1024..1124, v6), 0);
        assert_eq!(lab.b.count("egress", "ungoverned") - opened, 100);
    }
}

#[test]
fn flows_are_forgotten_in_time() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    let wait = |seconds| {
        for node in [&lab.a, &lab.b] {
            node.wait_as_if(Duration::from_secs(seconds));
        }
    };
    let v6 = false;
    let to = address(2, 2, v6);
    // Datagrams: five minutes after the last one in either direction.
    let server = udp_socket(&lab.b.namespace, to, READ);
    let asker = udp_socket(&lab.a.namespace, address(1, 2, v6), 40_000);
    asker.send_to(b"asked", SocketAddr::new(to, READ)).unwrap();
    let reply = || answered(&lab, &server, 40_000..40_001, v6);
    for _ in 0..3 {
        wait(298);
        assert_eq!(reply(), 1);
    }
    wait(304);
    assert_eq!(reply(), 0);
    asker.send_to(b"asked again", SocketAddr::new(to, READ)).unwrap();
    assert_eq!(reply(), 1);

    // Connections: two hours and four minutes.
    let listener = tcp_listener(&lab.b.namespace, SocketAddr::new(to, READ));
    let [mut client, mut server] = connection(&lab, &listener);
    wait(7_438);
    say(&mut server, &mut client);
    wait(7_438);
    say(&mut server, &mut client);
    wait(7_444);
    assert!(is_cut(&mut server, &mut client));
    // Until their sender speaks.
    say(&mut client, &mut server);
    client.read_exact(&mut [0; 4]).unwrap();
    say(&mut server, &mut client);

    // Four minutes once one end has closed.
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(server.read(&mut [0; 4]).unwrap(), 0);
    wait(238);
    say(&mut server, &mut client);
    wait(244);
    assert!(is_cut(&mut server, &mut client));
}

/// A's connection to B from a port of A's that the next one may have at once.
fn connection_from(lab: &Lab, listener: &TcpListener, port: u16) -> [TcpStream; 2] {
    let to = listener.local_addr().unwrap();
    let from = SocketAddr::new(address(1, 2, to.is_ipv6()), port);
    let client = lab.a.namespace.run(|| {
        let family = if to.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
        let socket = net::socket(family, SocketType::STREAM, None).unwrap();
        net::sockopt::set_socket_reuseaddr(&socket, true).unwrap();
        // Closing resets the connection, and leaves nothing behind.
        net::sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
        net::bind(&socket, &from).unwrap();
        net::connect(&socket, &to).unwrap();
        TcpStream::from(socket)
    });
    accepted(client, listener)
}

#[test]
fn a_port_that_is_used_again_at_once_is_remembered_for_as_long() {
    if !kernel_available() {
        return;
    }
    let lab = Lab::governed();
    for v6 in BOTH_VERSIONS {
        let listener = tcp_listener(&lab.b.namespace, SocketAddr::new(address(2, 2, v6), READ));
        for _ in 0..2 {
            let [mut client, mut server] = connection_from(&lab, &listener, OWN_PORT);
            say(&mut client, &mut server);
            say(&mut server, &mut client);
            say(&mut client, &mut server);
            drop(client);
            // The reset has arrived.
            assert!(server.read(&mut [0; 4]).is_err());
        }
        let [mut client, mut server] = connection_from(&lab, &listener, OWN_PORT);
        say(&mut client, &mut server);
        for node in [&lab.a, &lab.b] {
            node.wait_as_if(Duration::from_secs(400));
        }
        say(&mut server, &mut client);
    }
}
