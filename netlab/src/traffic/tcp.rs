//! TCP: a short exchange, and a bulk transfer that is checked byte by byte.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;
use rustix::net::{
    RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, accept_with, connect, listen, recv,
    send, shutdown,
};

use super::{Flow, Outcome, corrupt, local_address, open, pattern, settle};
use crate::LabError;
use crate::socket::{Deadline, get_option, retry, set_option, wait};

/// The size of a request and of an answer, in bytes.
const MESSAGE: usize = 64;

/// How much is sent or received by one call, in bytes.
const CHUNK: usize = 64 << 10;

/// A bulk transfer whose bytes all arrived as they were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpReport {
    /// How many bytes were sent and received.
    pub bytes: u64,
    /// The time from the first packet to the end of the stream at the server.
    pub elapsed: Duration,
}

/// Both ends of a connection, for traffic of the caller's own.
#[derive(Debug)]
pub struct TcpEnds {
    /// The end that connected.
    pub client: TcpStream,
    /// The end that was connected to.
    pub server: TcpStream,
    /// How many bytes of payload the client puts into a segment.
    pub mss: u32,
}

impl Flow<'_> {
    /// Connects, and leaves the talk to the caller. With `mss`, neither end sends or accepts segments
    /// with more bytes behind the fixed TCP header. Both ends block.
    ///
    /// # Errors
    ///
    /// [`LabError::Io`] when a socket cannot be had or bound, or does not connect.
    pub fn tcp_connect(&self, mss: Option<u16>) -> Result<TcpEnds, LabError> {
        let failed = |error| LabError::io(format!("connect {self}"), error);
        let sockets = Sockets::open(self)?;
        for fd in [&sockets.listener, &sockets.client] {
            let Some(mss) = mss else { break };
            set_option(fd.as_fd(), libc::IPPROTO_TCP, libc::TCP_MAXSEG, mss.into())
                .map_err(failed)?;
        }
        let server = sockets.connect(Deadline::after(self.timeout)).map_err(failed)?;
        let (client, server) = (TcpStream::from(sockets.client), TcpStream::from(server));
        for end in [&client, &server] {
            end.set_nonblocking(false).map_err(failed)?;
        }
        let mss = get_option(client.as_fd(), libc::IPPROTO_TCP, libc::TCP_MAXSEG);
        let mss = mss.map_err(failed)?.cast_unsigned();
        Ok(TcpEnds { client, server, mss })
    }

    /// Connects, sends a short request and waits for a short answer.
    ///
    /// # Errors
    ///
    /// [`LabError::Io`] when a socket cannot be had or bound. What the network does to the
    /// packets is an [`Outcome`].
    pub fn tcp_exchange(&self) -> Result<Outcome, LabError> {
        let sockets = Sockets::open(self)?;
        let (start, deadline) = (Instant::now(), Deadline::after(self.timeout));
        let result = sockets.connect(deadline).and_then(|server| {
            let client = sockets.client.as_fd();
            pass(client, server.as_fd(), 0, deadline)?;
            pass(server.as_fd(), client, MESSAGE as u64, deadline)
        });
        settle(start, result, || format!("TCP exchange {self}"))
    }

    /// Sends `bytes` bytes of a fixed pseudo-random stream from the client to the server, which
    /// compares each with what it should be.
    ///
    /// # Errors
    ///
    /// [`LabError::Undelivered`], with the [`Outcome`], when not all bytes arrive as they were
    /// sent before the timeout; [`LabError::Io`] when a socket cannot be had or bound.
    pub fn tcp_transfer(&self, bytes: u64) -> Result<TcpReport, LabError> {
        let sockets = Sockets::open(self)?;
        let (start, deadline) = (Instant::now(), Deadline::after(self.timeout));
        let mut received = 0;
        let result = sockets
            .connect(deadline)
            .and_then(|server| transfer(&sockets.client, server, bytes, deadline, &mut received));
        let what = || format!("TCP transfer {self}");
        match settle(start, result, what)? {
            Outcome::Delivered(elapsed) => Ok(TcpReport { bytes, elapsed }),
            outcome => Err(LabError::Undelivered { what: what(), outcome, received }),
        }
    }
}

/// A listening server and a client that is not yet connected.
struct Sockets {
    listener: OwnedFd,
    client: OwnedFd,
    target: SocketAddr,
}

impl Sockets {
    fn open(flow: &Flow<'_>) -> Result<Self, LabError> {
        let peer = flow.bind.ip();
        let listener = open(flow.server, SocketType::STREAM, None, peer, Some(flow.bind))?;
        listen(&listener, 1).map_err(|e| LabError::io(format!("listen at {}", flow.bind), e))?;
        let client = open(flow.client, SocketType::STREAM, None, peer, flow.source)?;
        let target = local_address(&listener)?;
        Ok(Self { listener, client, target })
    }

    /// Connects the client and returns the server's end of the connection.
    fn connect(&self, deadline: Deadline) -> io::Result<OwnedFd> {
        let client = self.client.as_fd();
        match connect(client, &self.target) {
            Err(Errno::INPROGRESS) => {
                wait(client, PollFlags::OUT, None, deadline)?;
                socket_error(client)??;
            }
            result => result?,
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        retry(self.listener.as_fd(), PollFlags::IN, Some(client), deadline, || {
            accept_with(&self.listener, flags)
        })
    }
}

/// Passes one message between the two ends of a connection.
fn pass(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    offset: u64,
    deadline: Deadline,
) -> io::Result<()> {
    let message = pattern::bytes(offset, MESSAGE);
    send_all(from, &message, deadline)?;
    let mut arrived = Vec::<u8>::with_capacity(MESSAGE);
    while arrived.len() < message.len() {
        let mut buffer = [0; MESSAGE];
        let len = receive(to, Some(from), &mut buffer, deadline)?;
        if len == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        arrived.extend(buffer.iter().take(len));
    }
    if arrived == message { Ok(()) } else { Err(corrupt()) }
}

/// Sends on one thread and receives on another; counts the good bytes in `received`.
fn transfer(
    client: &OwnedFd,
    server: OwnedFd,
    bytes: u64,
    deadline: Deadline,
    received: &mut u64,
) -> io::Result<()> {
    thread::scope(|scope| {
        let sender = thread::Builder::new()
            .spawn_scoped(scope, || send_stream(client.as_fd(), bytes, deadline))?;
        let result = receive_stream(server.as_fd(), bytes, deadline, received);
        // A sender that is still at it ends when it sees the connection closed.
        drop(server);
        let sending = sender.join().unwrap_or_else(|panic| resume_unwind(panic));
        match (result, sending) {
            (Err(error), Err(cause)) if error.kind() == io::ErrorKind::TimedOut => Err(cause),
            (result, _) => result,
        }
    })
}

fn send_stream(client: BorrowedFd<'_>, bytes: u64, deadline: Deadline) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut offset = 0;
    while offset < bytes {
        let len = usize::try_from(bytes - offset).unwrap_or(CHUNK).min(CHUNK);
        let (chunk, _) = buffer.split_at_mut(len);
        pattern::fill(offset, chunk);
        send_all(client, chunk, deadline)?;
        offset += len as u64;
    }
    Ok(shutdown(client, Shutdown::Write)?)
}

/// Receives until the end of the stream, which must come after exactly `bytes` good bytes.
fn receive_stream(
    server: BorrowedFd<'_>,
    bytes: u64,
    deadline: Deadline,
    received: &mut u64,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut expected = vec![0; CHUNK];
    loop {
        let len = receive(server, None, &mut buffer, deadline)?;
        if len == 0 {
            return if *received == bytes { Ok(()) } else { Err(corrupt()) };
        }
        pattern::fill(*received, &mut expected);
        let good = buffer.iter().zip(&expected).take(len).take_while(|(a, b)| a == b).count();
        *received += good as u64;
        if good < len || *received > bytes {
            return Err(corrupt());
        }
    }
}

fn send_all(fd: BorrowedFd<'_>, mut bytes: &[u8], deadline: Deadline) -> io::Result<()> {
    while !bytes.is_empty() {
        let len =
            retry(fd, PollFlags::OUT, None, deadline, || send(fd, bytes, SendFlags::NOSIGNAL))?;
        bytes = bytes.get(len..).unwrap_or_default();
    }
    Ok(())
}

/// Receives what there is, at least one byte; 0 is the end of the stream.
fn receive(
    fd: BorrowedFd<'_>,
    other: Option<BorrowedFd<'_>>,
    buffer: &mut [u8],
    deadline: Deadline,
) -> io::Result<usize> {
    let (len, _) =
        retry(fd, PollFlags::IN, other, deadline, || recv(fd, &mut *buffer, RecvFlags::empty()))?;
    Ok(len)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    use super::*;

    /// What the server makes of `sent` when it expects `bytes` bytes.
    fn received(sent: &[u8], bytes: u64) -> (u64, Option<io::ErrorKind>) {
        let (mut client, server) = UnixStream::pair().unwrap();
        server.set_nonblocking(true).unwrap();
        client.write_all(sent).unwrap();
        drop(client);
        let (mut count, deadline) = (0, Deadline::after(Duration::from_secs(5)));
        let result = receive_stream(server.as_fd(), bytes, deadline, &mut count);
        (count, result.err().map(|error| error.kind()))
    }

    #[test]
    fn damage_is_found_and_located() {
        let good = pattern::bytes(0, 1000);
        let mut flipped = good.clone();
        flipped[700] ^= 1;
        let missing = [&good[..100], &good[101..]].concat();
        let damaged = Some(io::ErrorKind::InvalidData);

        assert_eq!(received(&good, 1000), (1000, None));
        assert_eq!(received(&[], 0), (0, None));
        assert_eq!(received(&flipped, 1000), (700, damaged));
        assert_eq!(received(&missing, 1000), (100, damaged));
        assert_eq!(received(&good, 1001), (1000, damaged));
        assert_eq!(received(&good, 999), (1000, damaged));
    }
}
