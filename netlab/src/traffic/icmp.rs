//! ICMP and ICMPv6 echo over raw sockets.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags, SocketType, connect, ipproto, recv, send};

use super::{Outcome, corrupt, open, pattern, sent, settle};
use crate::socket::{Deadline, LARGEST_FRAME, retry};
use crate::{LabError, Namespace};

/// The length of an echo message's header in bytes.
const HEADER: usize = 8;

/// Sends one echo request with `payload_len` bytes after the ICMP header, and waits for the reply.
///
/// Without a `source` the kernel chooses the address.
///
/// # Errors
///
/// [`LabError::Io`] when the socket cannot be had or bound. What the network does to the packets
/// is an [`Outcome`].
pub fn ping(
    namespace: &Namespace,
    source: Option<IpAddr>,
    to: IpAddr,
    payload_len: usize,
    timeout: Duration,
) -> Result<Outcome, LabError> {
    let protocol = if to.is_ipv4() { ipproto::ICMP } else { ipproto::ICMPV6 };
    let source = source.map(|address| SocketAddr::new(address, 0));
    let socket = open(namespace, SocketType::RAW, Some(protocol), to, source)?;
    let (start, deadline) = (Instant::now(), Deadline::after(timeout));
    let result = echo(&socket, to, payload_len, deadline);
    settle(start, result, || format!("ping from {} to {to}", namespace.name()))
}

fn echo(socket: &OwnedFd, to: IpAddr, payload_len: usize, deadline: Deadline) -> io::Result<()> {
    /// Tells the replies to this process apart; the process id to those to other processes.
    static SEQUENCE: AtomicU16 = AtomicU16::new(0);

    let (request, reply) = if to.is_ipv4() { (8, 0) } else { (128, 129) };
    let id = std::process::id() as u16;
    let sequence = SEQUENCE.fetch_add(1, Ordering::Relaxed);
    let payload = pattern::bytes(0, payload_len);
    let request = message(request, id, sequence, &payload);
    let expected = message(reply, id, sequence, &payload);

    connect(socket, &SocketAddr::new(to, 0))?;
    sent(retry(socket.as_fd(), PollFlags::OUT, None, deadline, || {
        send(socket, &request, SendFlags::empty())
    }))?;
    let mut buffer = vec![0; LARGEST_FRAME];
    loop {
        let (len, _) = retry(socket.as_fd(), PollFlags::IN, None, deadline, || {
            recv(socket, &mut buffer[..], RecvFlags::empty())
        })?;
        let packet = buffer.get(..len).unwrap_or_default();
        let packet = if to.is_ipv4() { after_ip_header(packet) } else { packet };
        let same = |from, to| packet.get(from..to) == expected.get(from..to);
        // Type and code, then identifier and sequence number; the kernel checks the checksum.
        if same(0, 2) && same(4, HEADER) {
            let intact = packet.get(HEADER..) == Some(&payload);
            return if intact { Ok(()) } else { Err(corrupt()) };
        }
    }
}

/// An echo message. The kernel replaces the checksum when it is ICMPv6.
fn message(kind: u8, id: u16, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let message = |checksum: u16| {
        let mut message = vec![kind, 0];
        for field in [checksum, id, sequence] {
            message.extend(field.to_be_bytes());
        }
        message.extend(payload);
        message
    };
    message(checksum(&message(0)))
}

/// The Internet checksum of RFC 1071.
#[must_use]
pub fn checksum(bytes: &[u8]) -> u16 {
    let (words, odd) = bytes.as_chunks::<2>();
    let last = odd.first().map_or(0, |byte| u32::from(*byte) << 8);
    let mut sum = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum::<u32>() + last;
    while let carry @ 1.. = sum >> 16 {
        sum = (sum & 0xffff) + carry;
    }
    !(sum as u16)
}

fn after_ip_header(packet: &[u8]) -> &[u8] {
    let header = packet.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
    packet.get(header..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_follows_rfc_1071() {
        // The example of section 3, whose sum is ddf2.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0xff]), !0xff00);
        assert_eq!(checksum(&message(8, 1, 2, b"odd")), 0);
    }
}
