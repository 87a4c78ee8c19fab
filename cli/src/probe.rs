//! What a path lets through: sends what labels ride in towards an address, and listens for answers.

mod packet;

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, Instant},
};

use govc_abi::tunnel::PORT;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::{
        AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto,
        socket_with, sockopt,
    },
};
use serde::Serialize;

use packet::{Ends, ICMP, ICMPV6, Told};

/// Times that each is sent: one may be lost by chance.
const ATTEMPTS: u16 = 3;
/// Times that each size is tried.
const SIZE_ATTEMPTS: u16 = 2;
/// A port where nobody should listen.
const CLOSED_PORT: u16 = 47_653;
/// Least MTU of IPv6 (RFC 8200), and what every IPv4 host takes (RFC 791).
const MTU_MIN: [u32; 2] = [576, 1280];

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Found {
    /// Where the packets were sent from.
    pub source: IpAddr,
    /// Echoes without anything came back.
    pub bare: bool,
    /// Echoes in packets with the option that labels ride in came back.
    pub option: bool,
    /// Datagrams arrived: the host said that nobody listens.
    pub datagram: bool,
    /// Datagrams in the shape of tunnels arrived.
    pub tunnel: bool,
    /// The largest packet that came back, bytes; `None` where no bare echo did.
    pub path_mtu: Option<u32>,
}

/// Sends and listens.
struct Prober {
    ends: Ends,
    sender: OwnedFd,
    listener: OwnedFd,
    /// Largest packet that this node sends on the way.
    mtu: u32,
    timeout: Duration,
    id: u16,
    sequence: u16,
}

/// Finds out what comes through to an address.
///
/// # Errors
/// Sockets cannot be had, or there is no way to the address.
pub fn probe(to: IpAddr, interface: Option<&str>, timeout: Duration) -> io::Result<Found> {
    let mut prober = Prober::new(to, interface, timeout)?;
    let bare = prober.echoes(false)?;
    let option = prober.echoes(true)?;
    let datagram = prober.arrives(false)?;
    let tunnel = prober.arrives(true)?;
    let path_mtu = if bare { Some(prober.path_mtu()?) } else { None };
    Ok(Found { source: prober.ends.source, bare, option, datagram, tunnel, path_mtu })
}

impl Prober {
    fn new(to: IpAddr, interface: Option<&str>, timeout: Duration) -> io::Result<Self> {
        let (family, icmp) =
            if to.is_ipv4() { (AddressFamily::INET, ICMP) } else { (AddressFamily::INET6, ICMPV6) };
        let raw = |protocol: u8| {
            let protocol = std::num::NonZeroU32::new(protocol.into()).map(Protocol::from_raw);
            let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, protocol)?;
            if let Some(interface) = interface {
                govc_netlab::bind_to_device(socket.as_fd(), interface)?;
            }
            Ok::<OwnedFd, io::Error>(socket)
        };
        // What is sent here brings its own IP header.
        const RAW: u8 = 255;
        let (sender, listener) = (raw(RAW)?, raw(icmp)?);
        let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let way = UdpSocket::bind((any, 0))?;
        if let Some(interface) = interface {
            govc_netlab::bind_to_device(way.as_fd(), interface)?;
        }
        way.connect((to, PORT))?;
        let mtu = if to.is_ipv4() {
            sockopt::set_ip_mtu_discover(&sender, sockopt::Ipv4PathMtuDiscovery::PROBE)?;
            sockopt::ip_mtu(&way)?
        } else {
            sockopt::set_ipv6_mtu_discover(&sender, sockopt::Ipv6PathMtuDiscovery::PROBE)?;
            sockopt::ipv6_mtu(&way)?
        };
        let ends = Ends { source: way.local_addr()?.ip(), destination: to };
        let id = std::process::id() as u16;
        Ok(Self { ends, sender, listener, mtu, timeout, id, sequence: 0 })
    }

    /// Whether echoes come back.
    fn echoes(&mut self, with_option: bool) -> io::Result<bool> {
        Ok(self.echo(with_option, 0, ATTEMPTS)?.is_some_and(|told| matches!(told, Told::Echo(..))))
    }

    /// Sends echo requests of so many bytes until one is answered, or is told to be too big.
    fn echo(&mut self, with_option: bool, len: usize, attempts: u16) -> io::Result<Option<Told>> {
        for _ in 0..attempts {
            self.sequence = self.sequence.wrapping_add(1);
            let asked = (self.id, self.sequence);
            if !self.send(&packet::echo(self.ends, asked, with_option, len))? {
                return Ok(None);
            }
            let told = self.listen(|told| match told {
                Told::Echo(id, sequence) => (id, sequence) == asked,
                Told::TooBig(_) => len != 0,
                Told::PortClosed(_) => false,
            })?;
            if told.is_some() {
                return Ok(told);
            }
        }
        Ok(None)
    }

    /// Whether datagrams arrive, bare or in a tunnel.
    fn arrives(&mut self, in_tunnel: bool) -> io::Result<bool> {
        for attempt in 0..ATTEMPTS {
            let from = 50_000 + self.id % 8_000 + attempt * 16 + u16::from(in_tunnel);
            let sent = if in_tunnel {
                let payload = packet::tunnel(self.ends, (from, CLOSED_PORT));
                packet::datagram(self.ends, (from, PORT), &payload)
            } else {
                packet::datagram(self.ends, (from, CLOSED_PORT), b"govc probe")
            };
            if self.send(&sent)? && self.listen(|told| told == Told::PortClosed(from))?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The largest size of packets that come back. Errors of routers make it quick, and are not
    /// relied on.
    fn path_mtu(&mut self) -> io::Result<u32> {
        let [v4, v6] = MTU_MIN;
        let mut fits = if self.ends.is_v6() { v6 } else { v4 }.min(self.mtu);
        let mut too_big = self.mtu + 1;
        let mut next = self.mtu;
        while fits + 1 < too_big {
            match self.echo(false, next as usize, SIZE_ATTEMPTS)? {
                Some(Told::Echo(..)) => fits = next,
                Some(Told::TooBig(told)) if told > fits && told < next => {
                    too_big = next;
                    next = told;
                    continue;
                }
                _ => too_big = next,
            }
            next = fits.midpoint(too_big);
        }
        Ok(fits)
    }

    /// Sends a packet; `false` where this node does not let it leave.
    fn send(&self, packet: &[u8]) -> io::Result<bool> {
        use rustix::io::Errno;
        let to = SocketAddr::new(self.ends.destination, 0);
        match sendto(&self.sender, packet, SendFlags::empty(), &to) {
            Ok(_) => Ok(true),
            Err(Errno::MSGSIZE | Errno::PERM | Errno::NOBUFS) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for something that fits.
    fn listen(&self, fits: impl Fn(Told) -> bool) -> io::Result<Option<Told>> {
        let end = Instant::now() + self.timeout;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let wait = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut polled = [PollFd::new(&self.listener, PollFlags::IN)];
            if left.is_zero() || poll(&mut polled, Some(&wait))? == 0 {
                return Ok(None);
            }
            let (len, _) = recv(&self.listener, &mut buffer[..], RecvFlags::DONTWAIT)?;
            let mut message = buffer.get(..len).unwrap_or_default();
            if !self.ends.is_v6() {
                let header = message.first().map_or(0, |first| usize::from(first & 0xf) * 4);
                message = message.get(header..).unwrap_or_default();
            }
            if let Some(told) = packet::read(self.ends, message).filter(|told| fits(*told)) {
                return Ok(Some(told));
            }
        }
    }
}
