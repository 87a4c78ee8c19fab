//! Devices, addresses and routes, through rtnetlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::time::Duration;

use futures_util::TryStreamExt;
use rtnetlink::packet_route::address::{AddressHeaderFlags, AddressMessage};
use rtnetlink::packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage, MacVlanMode};
use rtnetlink::packet_route::route::RouteScope;
use rtnetlink::{
    AddressMessageBuilder, Handle, LinkMacVlan, LinkMessageBuilder, LinkUnspec, LinkVeth,
    RouteMessageBuilder,
};

use crate::socket::timed_out;
use crate::{IpPrefix, LabError, Namespace};

/// The limit of one exchange with the kernel; it normally takes less than a millisecond.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Counters of one device since its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Packets received.
    pub rx_packets: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Received packets that were dropped.
    pub rx_dropped: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets to be sent that were dropped.
    pub tx_dropped: u64,
}

/// Joins two namespaces by a pair of virtual Ethernet devices, each made where it belongs.
///
/// Both are up and pass packets when this returns. `mtu` is that of both ends, in bytes; `None`
/// leaves the usual 1500. The two namespaces may be the same one.
///
/// # Errors
///
/// [`LabError::Io`] when the kernel refuses, for example because a name is taken or longer than
/// 15 bytes, or when the link is not ready within five seconds.
pub fn veth(
    a: &Namespace,
    dev_a: &str,
    b: &Namespace,
    dev_b: &str,
    mtu: Option<u32>,
) -> Result<(), LabError> {
    let mut peer =
        LinkMessageBuilder::<LinkUnspec>::new().name(dev_b).setns_by_fd(b.fd().as_raw_fd());
    let mut link = LinkVeth::new(dev_a, dev_b);
    if let Some(mtu) = mtu {
        peer = peer.mtu(mtu);
        link = link.mtu(mtu);
    }
    let message = link.set_info_data(InfoData::Veth(InfoVeth::Peer(peer.build()))).build();

    let action = format!("create the link {:?} {dev_a} - {:?} {dev_b}", a.name(), b.name());
    a.netlink(&action, async |handle| handle.link().add(message).execute().await)?;
    a.set_link_up(dev_a)?;
    b.set_link_up(dev_b)?;
    for (namespace, device) in [(a, dev_a), (b, dev_b)] {
        namespace.wait_for_link(device)?;
        namespace.wait_for_ipv6(device)?;
    }
    Ok(())
}

/// Makes a device with an address of its own on top of another, up and ready.
///
/// # Errors
///
/// [`LabError::NoSuchDevice`] when there is no such device, [`LabError::Io`] when the kernel refuses.
pub fn macvlan(namespace: &Namespace, below: &str, name: &str) -> Result<(), LabError> {
    let below = namespace.ifindex(below)?;
    let message = LinkMacVlan::new(name, below, MacVlanMode::Bridge).build();
    let action = format!("create the device {:?} {name}", namespace.name());
    namespace.netlink(&action, async |handle| handle.link().add(message).execute().await)?;
    namespace.set_link_up(name)?;
    namespace.wait_for_link(name)?;
    namespace.wait_for_ipv6(name)
}

/// Devices. Each method fails with [`LabError::NoSuchDevice`] when the namespace has no device
/// of that name, and with [`LabError::Io`] when the kernel refuses the request.
impl Namespace {
    /// The index of a device.
    pub fn ifindex(&self, device: &str) -> Result<u32, LabError> {
        Ok(self.link(device)?.header.index)
    }

    /// The Ethernet address of a device; all zero if it has none.
    pub fn mac(&self, device: &str) -> Result<[u8; 6], LabError> {
        let found =
            self.link(device)?.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::Address(bytes) => bytes.try_into().ok(),
                _ => None,
            });
        Ok(found.unwrap_or_default())
    }

    /// Gives a device another Ethernet address.
    pub fn set_mac(&self, device: &str, mac: [u8; 6]) -> Result<(), LabError> {
        self.set_link(device, "address", |link| link.address(mac.to_vec()))
    }

    /// Sets the greatest packet size of a device in bytes, Ethernet header not counted.
    pub fn set_mtu(&self, device: &str, mtu: u32) -> Result<(), LabError> {
        self.set_link(device, "MTU", |link| link.mtu(mtu))
    }

    /// The counters of a device.
    pub fn link_stats(&self, device: &str) -> Result<LinkStats, LabError> {
        let found =
            self.link(device)?.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::Stats64(stats) => Some(LinkStats {
                    rx_packets: stats.rx_packets,
                    rx_bytes: stats.rx_bytes,
                    rx_dropped: stats.rx_dropped,
                    tx_packets: stats.tx_packets,
                    tx_bytes: stats.tx_bytes,
                    tx_dropped: stats.tx_dropped,
                }),
                _ => None,
            });
        Ok(found.unwrap_or_default())
    }

    pub(crate) fn set_link_up(&self, device: &str) -> Result<(), LabError> {
        self.set_link(device, "state", LinkMessageBuilder::up)
    }

    fn set_link(
        &self,
        device: &str,
        what: &str,
        change: impl FnOnce(LinkMessageBuilder<LinkUnspec>) -> LinkMessageBuilder<LinkUnspec>,
    ) -> Result<(), LabError> {
        let message = change(LinkUnspec::new_with_index(self.ifindex(device)?)).build();
        let action = format!("set the {what} of {device} in namespace {:?}", self.name());
        self.netlink(&action, async |handle| handle.link().set(message).execute().await)
    }

    pub(crate) fn link(&self, device: &str) -> Result<LinkMessage, LabError> {
        let action = format!("look up {device} in namespace {:?}", self.name());
        let found = self.netlink(&action, async |handle| {
            handle.link().get().match_name(device).execute().try_next().await
        });
        let missing = || LabError::NoSuchDevice {
            device: device.to_owned(),
            namespace: self.name().to_owned(),
        };
        match found {
            Err(LabError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENODEV) => {
                Err(missing())
            }
            found => found?.ok_or_else(missing),
        }
    }
}

/// Addresses and routes. The methods fail as those for devices do.
impl Namespace {
    /// Adds an address to a device, and with it the route to its network.
    ///
    /// IPv6 addresses skip duplicate address detection; they can be used when this returns.
    pub fn add_address(&self, device: &str, address: IpPrefix) -> Result<(), LabError> {
        let index = self.ifindex(device)?;
        let action = format!("add {address} to {device} in namespace {:?}", self.name());
        self.netlink(&action, async |handle| {
            let mut request = handle.address().add(index, address.addr(), address.prefix_len());
            if address.addr().is_ipv6() {
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            request.execute().await
        })?;
        if address.addr().is_ipv6() { self.wait_for_ipv6(device) } else { Ok(()) }
    }

    /// Removes an address from a device.
    pub fn remove_address(&self, device: &str, address: IpPrefix) -> Result<(), LabError> {
        let message = address_message(self.ifindex(device)?, address);
        let action = format!("remove {address} from {device} in namespace {:?}", self.name());
        self.netlink(&action, async |handle| handle.address().del(message).execute().await)
    }

    /// Sets the route to a destination through a device, by way of the gateway `via` or, without one, directly.
    ///
    /// The host bits of the destination are ignored. [`IpPrefix::DEFAULT_V4`] and
    /// [`IpPrefix::DEFAULT_V6`] make default routes.
    pub fn set_route(
        &self,
        destination: IpPrefix,
        via: Option<IpAddr>,
        device: &str,
    ) -> Result<(), LabError> {
        let action = format!(
            "set the route to {destination} through {device} in namespace {:?}",
            self.name()
        );
        let invalid = |e| LabError::io(&action, io::Error::new(io::ErrorKind::InvalidInput, e));
        let mut route = RouteMessageBuilder::<IpAddr>::new()
            .output_interface(self.ifindex(device)?)
            .destination_prefix(destination.network(), destination.prefix_len())
            .map_err(invalid)?;
        route = match via {
            Some(gateway) => route.gateway(gateway).map_err(invalid)?,
            None => route.scope(RouteScope::Link),
        };
        let message = route.build();
        self.netlink(&action, async |handle| handle.route().add(message).replace().execute().await)
    }

    /// Makes one rtnetlink request from a thread inside the namespace.
    fn netlink<T: Send>(
        &self,
        action: &str,
        request: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error> + Send,
    ) -> Result<T, LabError> {
        self.try_run(|| block_on(request))?.map_err(|e| LabError::io(action, e))
    }
}

fn block_on<T>(request: impl AsyncFnOnce(Handle) -> Result<T, rtnetlink::Error>) -> io::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let (connection, handle, _messages) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        match tokio::time::timeout(REQUEST_TIMEOUT, request(handle)).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(rtnetlink::Error::NetlinkError(message))) => Err(message.to_io()),
            Ok(Err(error)) => Err(io::Error::other(error)),
            Err(_) => Err(timed_out()),
        }
    })
}

fn address_message(index: u32, address: IpPrefix) -> AddressMessage {
    let len = address.prefix_len();
    match address.addr() {
        IpAddr::V4(addr) => {
            AddressMessageBuilder::<Ipv4Addr>::new().index(index).address(addr, len).build()
        }
        IpAddr::V6(addr) => {
            AddressMessageBuilder::<Ipv6Addr>::new().index(index).address(addr, len).build()
        }
    }
}
