//! Traffic between two namespaces, and what became of it.

mod icmp;
mod pattern;
mod tcp;
mod udp;

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType, bind, socket_with};

pub use icmp::{checksum, ping};
pub use tcp::{TcpEnds, TcpReport};
pub use udp::{DontFragment, udp_send_gso};

use crate::socket::{set_option, when_free};
use crate::{LabError, Namespace};

/// Who talks to whom: a server and a client, each in its namespace.
///
/// The methods [`tcp_exchange`](Self::tcp_exchange), [`tcp_transfer`](Self::tcp_transfer) and
/// [`udp_exchange`](Self::udp_exchange) open both sockets anew, so one flow can be tried often.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// Where the server listens.
    pub server: &'a Namespace,
    /// The server's address, which is also the one that the client talks to; port 0 means any.
    pub bind: SocketAddr,
    /// Where the client runs.
    pub client: &'a Namespace,
    /// The client's address; port 0 means any. Without one the kernel chooses both.
    pub source: Option<SocketAddr>,
    /// The limit of the whole attempt, from the first packet to the last.
    pub timeout: Duration,
}

impl<'a> Flow<'a> {
    /// A flow whose client address is left to the kernel.
    pub fn new(
        server: &'a Namespace,
        bind: SocketAddr,
        client: &'a Namespace,
        timeout: Duration,
    ) -> Self {
        Self { server, bind, client, source: None, timeout }
    }

    /// The same flow from a given client address; its port may be 0, for any.
    #[must_use]
    pub fn from(self, source: SocketAddr) -> Self {
        Self { source: Some(source), ..self }
    }
}

/// Server and client by name and address, as an error message names them.
impl fmt::Display for Flow<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {}", self.client.name())?;
        if let Some(source) = self.source {
            write!(f, " ({source})")?;
        }
        write!(f, " to {} ({})", self.server.name(), self.bind)
    }
}

/// What became of an exchange of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// Request and answer arrived intact, after this long.
    Delivered(Duration),
    /// Nothing came back before the timeout: some packet was dropped.
    TimedOut,
    /// The connection was refused, or the port reported unreachable.
    Refused,
    /// The connection was reset after it was made.
    Reset,
    /// There is no way to the network or host, by the routes or by a router's message.
    ///
    /// An IPv4 router that says "prohibited" is reported so too.
    Unreachable,
    /// The packet may not be sent, by a local filter or by the message of an IPv6 router.
    Prohibited,
    /// The packet is larger than the path takes and must not be fragmented.
    TooBig,
    /// What arrived is not what was sent.
    Corrupt,
}

impl Outcome {
    /// Whether request and answer arrived intact.
    pub fn is_delivered(self) -> bool {
        matches!(self, Self::Delivered(_))
    }

    /// The outcome that an error of a socket means, if it speaks of the network.
    fn of(error: &io::Error) -> Option<Self> {
        let Some(errno) = Errno::from_io_error(error) else {
            return match error.kind() {
                io::ErrorKind::TimedOut => Some(Self::TimedOut),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => Some(Self::Corrupt),
                _ => None,
            };
        };
        match errno {
            Errno::TIMEDOUT => Some(Self::TimedOut),
            Errno::CONNREFUSED => Some(Self::Refused),
            Errno::CONNRESET | Errno::CONNABORTED | Errno::PIPE => Some(Self::Reset),
            Errno::HOSTUNREACH | Errno::NETUNREACH | Errno::HOSTDOWN => Some(Self::Unreachable),
            Errno::ACCESS | Errno::PERM => Some(Self::Prohibited),
            Errno::MSGSIZE => Some(Self::TooBig),
            _ => None,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Delivered(elapsed) => return write!(f, "delivered in {elapsed:.1?}"),
            Self::TimedOut => "timed out",
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Unreachable => "unreachable",
            Self::Prohibited => "prohibited",
            Self::TooBig => "too big for the path",
            Self::Corrupt => "corrupt",
        };
        f.write_str(text)
    }
}

/// Turns the end of an exchange into its outcome; `what` names the exchange.
fn settle(
    start: Instant,
    result: io::Result<()>,
    what: impl FnOnce() -> String,
) -> Result<Outcome, LabError> {
    match result {
        Ok(()) => Ok(Outcome::Delivered(start.elapsed())),
        Err(error) => Outcome::of(&error)
            .ok_or_else(|| LabError::io(format!("complete the {}", what()), error)),
    }
}

/// A non-blocking socket of the `namespace` for talk with `peer`, bound to `local` if given.
fn open(
    namespace: &Namespace,
    kind: SocketType,
    protocol: Option<Protocol>,
    peer: IpAddr,
    local: Option<SocketAddr>,
) -> Result<OwnedFd, LabError> {
    let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let opened = namespace.try_run(|| -> io::Result<OwnedFd> {
        let fd = socket_with(family, kind, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC, protocol)?;
        if kind == SocketType::STREAM {
            set_socket_reuseaddr(&fd, true)?;
        } else {
            report_icmp_errors(fd.as_fd(), peer)?;
        }
        if let Some(local) = local {
            when_free(|| Ok(bind(&fd, &local)?))?;
        }
        Ok(fd)
    })?;
    opened.map_err(|error| {
        let at = local.map(|local| format!(" at {local}")).unwrap_or_default();
        LabError::io(format!("open a socket{at} in namespace {:?}", namespace.name()), error)
    })
}

/// Makes all ICMP errors arrive as errors of the socket, not only port unreachable.
fn report_icmp_errors(fd: BorrowedFd<'_>, peer: IpAddr) -> io::Result<()> {
    match peer {
        IpAddr::V4(_) => set_option(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1),
        IpAddr::V6(_) => set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1),
    }
}

/// The address to which an IP socket is bound.
fn local_address(fd: &OwnedFd) -> Result<SocketAddr, LabError> {
    rustix::net::getsockname(fd)
        .and_then(SocketAddr::try_from)
        .map_err(|e| LabError::io("read the address of a socket", e))
}

/// The error for bytes other than those that were sent.
fn corrupt() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// Takes a packet that the local stack dropped for one that the network lost.
fn sent(result: io::Result<usize>) -> io::Result<()> {
    match result {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOBUFS) => Ok(()),
        result => result.map(|_| ()),
    }
}
