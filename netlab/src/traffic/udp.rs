//! UDP: an echo of one datagram, and segmentation offload on sending.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use rustix::net::{RecvFlags, SendFlags, SocketType, connect, recvfrom, send, sendto};

use super::{Flow, Outcome, corrupt, local_address, open, pattern, sent, settle};
use crate::socket::{Deadline, LARGEST_FRAME, retry, set_option};
use crate::{LabError, Namespace};

/// Whether datagrams may be fragmented, as `IP_MTU_DISCOVER` and `IPV6_MTU_DISCOVER` set it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DontFragment {
    /// Never: the DF flag is set, and a datagram larger than the path's MTU is not sent.
    Do,
    /// As routes say: DF is set on what fits the known MTU, and the host fragments the rest.
    Want,
    /// Anywhere: DF is not set, and IPv4 routers may fragment too.
    Dont,
}

impl Flow<'_> {
    /// Sends one datagram of `payload_len` bytes, which the server sends back.
    ///
    /// A payload fills the packet when it is 28 bytes (IPv4) or 48 bytes (IPv6) less than the MTU.
    /// Nothing is sent again when it gets lost.
    ///
    /// # Errors
    ///
    /// [`LabError::Io`] when a socket cannot be had or bound. What the network does to the
    /// packets is an [`Outcome`].
    pub fn udp_exchange(
        &self,
        payload_len: usize,
        dont_fragment: DontFragment,
    ) -> Result<Outcome, LabError> {
        let peer = self.bind.ip();
        let server = open(self.server, SocketType::DGRAM, None, peer, Some(self.bind))?;
        let client = open(self.client, SocketType::DGRAM, None, peer, self.source)?;
        for fd in [&server, &client] {
            set_dont_fragment(fd, peer, dont_fragment)
                .map_err(|e| LabError::io("set the fragmentation of datagrams", e))?;
        }
        let target = local_address(&server)?;
        let (start, deadline) = (Instant::now(), Deadline::after(self.timeout));
        let result = exchange(&server, target, &client, payload_len, deadline);
        settle(start, result, || format!("UDP exchange {self}"))
    }
}

/// Sends `count` datagrams of `segment` payload bytes each in one call, cut by the stack.
///
/// The datagrams travel as one large packet as far as the devices' offloads allow. `from` may have
/// port 0, for any. Returns the number of payload bytes.
///
/// # Errors
///
/// [`LabError::Io`] when the socket cannot be had, or when the kernel does not take the packet:
/// more than 64 KiB in all or too many segments, a segment above the MTU, no route.
pub fn udp_send_gso(
    namespace: &Namespace,
    from: SocketAddr,
    to: SocketAddr,
    segment: u16,
    count: u16,
) -> Result<usize, LabError> {
    let fd = open(namespace, SocketType::DGRAM, None, to.ip(), Some(from))?;
    let payload = pattern::bytes(0, usize::from(segment) * usize::from(count));
    let result = set_option(fd.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, segment.into())
        .and_then(|()| Ok(sendto(&fd, &payload, SendFlags::empty(), &to)?));
    result.map_err(|e| {
        let name = namespace.name();
        LabError::io(
            format!("send {count} UDP segments of {segment} bytes from {name:?} to {to}"),
            e,
        )
    })
}

fn exchange(
    server: &OwnedFd,
    target: SocketAddr,
    client: &OwnedFd,
    payload_len: usize,
    deadline: Deadline,
) -> io::Result<()> {
    let payload = pattern::bytes(0, payload_len);
    connect(client, &target)?;
    sent(retry(client.as_fd(), PollFlags::OUT, None, deadline, || {
        send(client, &payload, SendFlags::empty())
    }))?;
    let from = receive(server, client, &payload, deadline)?;
    sent(retry(server.as_fd(), PollFlags::OUT, None, deadline, || {
        sendto(server, &payload, SendFlags::empty(), &from)
    }))?;
    receive(client, server, &payload, deadline).map(|_| ())
}

/// Receives a datagram that must equal `payload`, and returns the sender's address.
fn receive(
    fd: &OwnedFd,
    other: &OwnedFd,
    payload: &[u8],
    deadline: Deadline,
) -> io::Result<SocketAddr> {
    let mut buffer = vec![0; LARGEST_FRAME];
    let (len, _, from) = retry(fd.as_fd(), PollFlags::IN, Some(other.as_fd()), deadline, || {
        recvfrom(fd, &mut buffer[..], RecvFlags::empty())
    })?;
    if buffer.get(..len) != Some(payload) {
        return Err(corrupt());
    }
    let from = from.ok_or_else(|| io::Error::other("a datagram without sender"))?;
    Ok(SocketAddr::try_from(from)?)
}

fn set_dont_fragment(fd: &OwnedFd, peer: IpAddr, value: DontFragment) -> rustix::io::Result<()> {
    match peer {
        IpAddr::V4(_) => set_ip_mtu_discover(
            fd,
            match value {
                DontFragment::Do => Ipv4PathMtuDiscovery::DO,
                DontFragment::Want => Ipv4PathMtuDiscovery::WANT,
                DontFragment::Dont => Ipv4PathMtuDiscovery::DONT,
            },
        ),
        IpAddr::V6(_) => set_ipv6_mtu_discover(
            fd,
            match value {
                DontFragment::Do => Ipv6PathMtuDiscovery::DO,
                DontFragment::Want => Ipv6PathMtuDiscovery::WANT,
                DontFragment::Dont => Ipv6PathMtuDiscovery::DONT,
            },
        ),
    }
}
