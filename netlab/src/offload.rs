//! Offloads of a device, through the ethtool ioctl.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::{LabError, Namespace};

/// Which work a device takes over from the network stack.
///
/// To change some and keep the others: `Offloads { tso: false, ..ns.offloads(device)? }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offloads {
    /// TCP segmentation: TCP hands over packets larger than the MTU. Needs `tx_checksum`.
    pub tso: bool,
    /// Generic segmentation: packets are cut just before the device, not in the protocol.
    pub gso: bool,
    /// Generic receive: packets are joined on arrival.
    pub gro: bool,
    /// Checksums of sent packets; on a veth they then stay unfilled.
    pub tx_checksum: bool,
}

/// The `ethtool` commands to read and to write one setting; not in libc.
#[derive(Clone, Copy)]
struct Setting {
    get: u32,
    set: u32,
}

const TX_CHECKSUM: Setting = Setting { get: 0x16, set: 0x17 };
const TSO: Setting = Setting { get: 0x1e, set: 0x1f };
const GSO: Setting = Setting { get: 0x23, set: 0x24 };
const GRO: Setting = Setting { get: 0x2b, set: 0x2c };

/// Offloads. Both methods fail with [`LabError::NoSuchDevice`] or [`LabError::Io`].
impl Namespace {
    /// The offloads of a device that are on.
    pub fn offloads(&self, device: &str) -> Result<Offloads, LabError> {
        let ethtool = Ethtool::open(self, device)?;
        Ok(Offloads {
            tso: ethtool.get(TSO)?,
            gso: ethtool.get(GSO)?,
            gro: ethtool.get(GRO)?,
            tx_checksum: ethtool.get(TX_CHECKSUM)?,
        })
    }

    /// Turns the offloads of a device on and off.
    ///
    /// The kernel silently leaves off what depends on another that is off;
    /// [`offloads`](Self::offloads) tells what came of it.
    pub fn set_offloads(&self, device: &str, offloads: Offloads) -> Result<(), LabError> {
        let ethtool = Ethtool::open(self, device)?;
        ethtool.set(TX_CHECKSUM, offloads.tx_checksum)?;
        ethtool.set(TSO, offloads.tso)?;
        ethtool.set(GSO, offloads.gso)?;
        ethtool.set(GRO, offloads.gro)
    }
}

/// A device to which ethtool commands go, with a socket of its namespace.
struct Ethtool<'a> {
    namespace: &'a Namespace,
    device: &'a str,
    socket: OwnedFd,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

impl<'a> Ethtool<'a> {
    fn open(namespace: &'a Namespace, device: &'a str) -> Result<Self, LabError> {
        let socket = namespace
            .try_run(|| {
                socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
            })?
            .map_err(|e| LabError::io("open a socket", e))?;
        Ok(Self { namespace, device, socket })
    }

    fn get(&self, setting: Setting) -> Result<bool, LabError> {
        let mut value = Value { command: setting.get, data: 0 };
        self.request(&mut value, "read")?;
        Ok(value.data != 0)
    }

    fn set(&self, setting: Setting, on: bool) -> Result<(), LabError> {
        self.request(&mut Value { command: setting.set, data: on.into() }, "set")
    }

    fn request(&self, value: &mut Value, verb: &str) -> Result<(), LabError> {
        let (device, namespace) = (self.device, self.namespace.name());
        self.ioctl(value).map_err(|error| match error.raw_os_error() {
            Some(libc::ENODEV) => {
                LabError::NoSuchDevice { device: device.into(), namespace: namespace.into() }
            }
            _ => LabError::io(
                format!("{verb} the offloads of {device} in namespace {namespace:?}"),
                error,
            ),
        })
    }

    fn ioctl(&self, value: &mut Value) -> io::Result<()> {
        let mut name = [0; libc::IFNAMSIZ];
        if self.device.len() >= name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in name.iter_mut().zip(self.device.bytes()) {
            *to = from.cast_signed();
        }
        let data = std::ptr::from_mut(value).cast();
        let mut request = libc::ifreq {
            ifr_name: name,
            ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: data },
        };
        // SAFETY: the request holds a terminated name and points to a live `ethtool_value`, which
        // is all that the commands used here read and write.
        let result =
            unsafe { libc::ioctl(self.socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
