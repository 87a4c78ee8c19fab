//! Whole frames at a device, through `AF_PACKET`.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::net::sockopt::set_socket_recv_buffer_size_force;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrAny, SocketFlags, SocketType, recvfrom, send,
    socket_with,
};

use crate::socket::{Deadline, LARGEST_FRAME, retry, set_option};
use crate::{LabError, Namespace};

/// Room for a burst of frames that nobody has read yet, in bytes.
const RECEIVE_BUFFER: usize = 64 << 20;

/// A raw socket that sees the frames of one device, in both directions, and can send others.
///
/// Frames are bare Ethernet frames: no virtio-net header (`PACKET_VNET_HDR` is off) stands before
/// them. They are what the stack hands to the device, so a frame can be far larger than the MTU
/// when the device has offloads, and the checksum of a frame that was sent on the same machine
/// can be unfilled; [`Namespace::set_offloads`] changes both.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    device: String,
}

/// A captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// To whom the frame goes, as the device sees it.
    pub packet_type: PacketType,
    /// The frame from the Ethernet header on, without frame check sequence.
    pub bytes: Vec<u8>,
}

/// The kernel's classification of a frame at a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketType {
    /// Received, to the device's own address.
    Host,
    /// Received, to all.
    Broadcast,
    /// Received, to a group.
    Multicast,
    /// Received, to the address of another device.
    OtherHost,
    /// Sent by this host.
    Outgoing,
}

impl PacketSocket {
    /// Opens a socket at a device; frames are kept from now on until they are read.
    ///
    /// # Errors
    ///
    /// [`LabError::NoSuchDevice`], or [`LabError::Io`] when the kernel refuses the socket.
    pub fn open(namespace: &Namespace, device: &str) -> Result<Self, LabError> {
        Self::with_directions(namespace, device, false)
    }

    /// As [`open`](Self::open), but leaves out the frames that this host sends
    /// (`PACKET_IGNORE_OUTGOING`).
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open).
    pub fn open_incoming(namespace: &Namespace, device: &str) -> Result<Self, LabError> {
        Self::with_directions(namespace, device, true)
    }

    fn with_directions(
        namespace: &Namespace,
        device: &str,
        ignore_outgoing: bool,
    ) -> Result<Self, LabError> {
        let index = namespace.ifindex(device)?.cast_signed();
        let fd = namespace.try_run(|| open_at(index, ignore_outgoing))?.map_err(|e| {
            let name = namespace.name();
            LabError::io(format!("open a packet socket at {device} in namespace {name:?}"), e)
        })?;
        Ok(Self { fd, device: device.to_owned() })
    }

    /// Reads frames until one passes the `filter`, and returns that one; the others are lost.
    ///
    /// `None` when the timeout ends first.
    ///
    /// # Errors
    ///
    /// [`LabError::Io`] when the device is gone or down.
    pub fn capture(
        &self,
        timeout: Duration,
        mut filter: impl FnMut(&Frame) -> bool,
    ) -> Result<Option<Frame>, LabError> {
        let deadline = Deadline::after(timeout);
        let mut buffer = vec![0; LARGEST_FRAME];
        loop {
            match self.receive(&mut buffer, deadline) {
                Ok(frame) if filter(&frame) => return Ok(Some(frame)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(None),
                Err(error) => {
                    return Err(LabError::io(format!("capture at {}", self.device), error));
                }
            }
        }
    }

    /// Sends a frame, which begins with its Ethernet header, through the device.
    ///
    /// # Errors
    ///
    /// [`LabError::Io`], for example when the frame is shorter than an Ethernet header or longer
    /// than the MTU allows.
    pub fn send(&self, frame: &[u8]) -> Result<(), LabError> {
        send(&self.fd, frame, SendFlags::empty()).map(|_| ()).map_err(|e| {
            LabError::io(format!("send a frame of {} bytes at {}", frame.len(), self.device), e)
        })
    }

    fn receive(&self, buffer: &mut [u8], deadline: Deadline) -> io::Result<Frame> {
        let (len, _, from) = retry(self.fd.as_fd(), PollFlags::IN, None, deadline, || {
            recvfrom(&self.fd, &mut *buffer, RecvFlags::DONTWAIT)
        })?;
        let bytes = buffer.get(..len).unwrap_or_default().to_vec();
        Ok(Frame { packet_type: packet_type(from.as_ref())?, bytes })
    }
}

fn open_at(index: i32, ignore_outgoing: bool) -> io::Result<OwnedFd> {
    // Without a protocol the socket receives nothing before it is bound to its device.
    let fd = socket_with(AddressFamily::PACKET, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    set_socket_recv_buffer_size_force(&fd, RECEIVE_BUFFER)?;
    set_option(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, ignore_outgoing.into())?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as u16,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer and the length describe `address`, which lives through the call.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

fn packet_type(from: Option<&SocketAddrAny>) -> io::Result<PacketType> {
    let from = from.filter(|from| {
        from.address_family() == AddressFamily::PACKET
            && from.addr_len() as usize >= size_of::<libc::sockaddr_ll>()
    });
    let from = from.ok_or_else(|| io::Error::other("a frame without link-layer address"))?;
    // SAFETY: family and length say that the pointer leads to a whole, initialised `sockaddr_ll`.
    let address = unsafe { from.as_ptr().cast::<libc::sockaddr_ll>().read_unaligned() };
    Ok(match address.sll_pkttype {
        libc::PACKET_BROADCAST => PacketType::Broadcast,
        libc::PACKET_MULTICAST => PacketType::Multicast,
        libc::PACKET_OTHERHOST => PacketType::OtherHost,
        libc::PACKET_OUTGOING => PacketType::Outgoing,
        _ => PacketType::Host,
    })
}
