//! Interfaces and routes, through netlink.

use std::net::{IpAddr, Ipv4Addr};

use futures_util::TryStreamExt as _;
use govc_abi::{
    label::BLOCK_LEN,
    tunnel::{OVERHEAD_V4, OVERHEAD_V6},
};
use govc_image::Names;
use netlink_packet_route::{
    address::{AddressAttribute, AddressMessage},
    link::{InfoKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage},
    route::{RouteAttribute, RouteMessage, RouteMetric},
};
use rtnetlink::{Handle, RouteMessageBuilder};
use serde::Serialize;

use crate::error::{LoadError, file, netlink};

/// Smallest IPv6 MTU (RFC 8200).
const V6_MTU_MIN: u32 = 1280;

/// What is known about an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Netdev {
    /// Its name.
    pub name: String,
    /// Its index.
    pub index: u32,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// Bytes before the IP header.
    pub l2_len: u16,
    /// `None` for hardware; the driver's kind for virtual devices.
    pub kind: Option<String>,
    /// Index of the interface that this one is on top of, such as a VLAN.
    #[serde(skip)]
    pub below: Option<u32>,
}

/// Runs netlink requests of this thread's network namespace to their end.
fn run<T>(work: impl AsyncFnOnce(Handle) -> Result<T, LoadError>) -> Result<T, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .map_err(netlink("cannot start a netlink runtime"))?;
    runtime.block_on(async {
        let (connection, handle, _) =
            rtnetlink::new_connection().map_err(netlink("cannot open a netlink socket"))?;
        let connection = tokio::spawn(connection);
        let result = work(handle).await;
        connection.abort();
        result
    })
}

/// The inode that identifies this thread's network namespace.
///
/// # Errors
/// /proc is not mounted.
pub fn namespace() -> Result<u64, LoadError> {
    const PATH: &str = "/proc/thread-self/ns/net";
    let stat = rustix::fs::stat(PATH).map_err(|e| file("cannot look at", PATH)(e.into()))?;
    Ok(stat.st_ino)
}

/// All interfaces of this network namespace, by index.
///
/// # Errors
/// Netlink refuses.
pub fn list() -> Result<Vec<Netdev>, LoadError> {
    run(async |handle| {
        let links = handle.link().get().execute();
        let links: Vec<LinkMessage> =
            links.try_collect().await.map_err(netlink("cannot list interfaces"))?;
        Ok(links.iter().filter_map(describe).collect())
    })
}

/// The addresses of all interfaces of this network namespace.
///
/// # Errors
/// Netlink refuses.
pub fn addresses() -> Result<Vec<IpAddr>, LoadError> {
    run(async |handle| {
        let addresses = handle.address().get().execute();
        let addresses: Vec<AddressMessage> =
            addresses.try_collect().await.map_err(netlink("cannot list addresses"))?;
        let told = |message: &AddressMessage| {
            message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            })
        };
        Ok(addresses.iter().filter_map(told).collect())
    })
}

/// One interface.
///
/// # Errors
/// There is none of that name, or netlink refuses.
pub fn find(name: &str) -> Result<Netdev, LoadError> {
    list()?
        .into_iter()
        .find(|device| device.name == name)
        .ok_or_else(|| LoadError::NoInterface(name.into()))
}

fn describe(link: &LinkMessage) -> Option<Netdev> {
    let mut device = Netdev {
        name: String::new(),
        index: link.header.index,
        mtu: 0,
        l2_len: match link.header.link_layer_type {
            LinkLayerType::Ether | LinkLayerType::Loopback => 14,
            _ => 0,
        },
        kind: None,
        below: None,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
            LinkAttribute::Link(below) => device.below = Some(*below),
            LinkAttribute::LinkInfo(infos) => {
                device.kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(InfoKind::Other(kind)) => Some(kind.clone()),
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    if link.header.link_layer_type == LinkLayerType::Loopback {
        device.kind = Some("loopback".into());
    }
    (!device.name.is_empty()).then_some(device)
}

/// Bytes that labels take of the packets of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overhead {
    /// Of IPv4.
    pub v4: u32,
    /// Of IPv6.
    pub v6: u32,
}

impl Overhead {
    /// Where all labels ride in options.
    pub const OPTION: Self = Self { v4: BLOCK_LEN as u32, v6: BLOCK_LEN as u32 };
    /// Where some ride in tunnels.
    pub const TUNNEL: Self = Self { v4: OVERHEAD_V4 as u32, v6: OVERHEAD_V6 as u32 };

    /// What the labels of an image take on an interface.
    #[must_use]
    pub fn of(names: &Names, device: &Netdev) -> Self {
        let zone = names.zone_of(&device.name).unwrap_or(0) as u32;
        if names.tunnels_from(zone) { Self::TUNNEL } else { Self::OPTION }
    }
}

/// Largest IPv4 packet that leaves room for a label.
///
/// # Errors
/// There is no room: IPv6 would fall below its least MTU.
pub fn inner_mtu(device: &Netdev, overhead: Overhead) -> Result<u32, LoadError> {
    if device.mtu.saturating_sub(overhead.v6) < V6_MTU_MIN {
        let (interface, mtu) = (device.name.clone(), device.mtu);
        return Err(LoadError::MtuTooSmall { interface, mtu, overhead: overhead.v6 });
    }
    Ok(device.mtu.saturating_sub(overhead.v4))
}

/// Makes the stack send packets that leave room for a label: routes over the interface, and over
/// those on top of it, get an MTU (IPv4), and their IPv6 MTU is lowered. Tells how many IPv4 routes
/// were changed.
///
/// # Errors
/// Netlink or /proc refuses.
pub fn lower_mtu(device: &Netdev, overhead: Overhead) -> Result<usize, LoadError> {
    with_stacked(device, |device| {
        let inner = inner_mtu(device, overhead)?;
        set_v6_mtu(device, device.mtu - overhead.v6);
        set_route_mtu(device.index, |mtu| match mtu {
            Some(mtu) if mtu == inner || mtu < inner && !is_ours(device, mtu) => None,
            _ => Some(Some(inner)),
        })
    })
}

/// Whether a route's MTU is one that an apply gives it.
fn is_ours(device: &Netdev, mtu: u32) -> bool {
    [Overhead::OPTION, Overhead::TUNNEL].iter().any(|one| device.mtu.saturating_sub(one.v4) == mtu)
}

/// Makes the routes of an interface that [`lower_mtu`] has changed fit another overhead.
///
/// # Errors
/// Netlink or /proc refuses.
pub fn adjust_mtu(device: &Netdev, overhead: Overhead) -> Result<usize, LoadError> {
    with_stacked(device, |device| {
        let inner = inner_mtu(device, overhead)?;
        if v6_mtu(device).is_some_and(|mtu| mtu < device.mtu) {
            set_v6_mtu(device, device.mtu - overhead.v6);
        }
        set_route_mtu(device.index, |mtu| {
            mtu.filter(|mtu| *mtu != inner && is_ours(device, *mtu)).map(|_| Some(inner))
        })
    })
}

/// Undoes [`lower_mtu`].
///
/// # Errors
/// Netlink or /proc refuses.
pub fn restore_mtu(device: &Netdev) -> Result<usize, LoadError> {
    with_stacked(device, |device| {
        set_v6_mtu(device, device.mtu);
        set_route_mtu(device.index, |mtu| mtu.filter(|mtu| is_ours(device, *mtu)).map(|_| None))
    })
}

/// Adds up what `change` gives for an interface and those on top of it, whose packets pass its
/// hooks.
fn with_stacked(
    device: &Netdev,
    change: impl Fn(&Netdev) -> Result<usize, LoadError>,
) -> Result<usize, LoadError> {
    const KINDS: [&str; 3] = ["vlan", "macvlan", "ipvlan"];
    let mut changed = change(device)?;
    for stacked in list()? {
        let kind = stacked.kind.as_deref().unwrap_or_default();
        // Of other kinds this is the index of the other end, perhaps in another namespace.
        if stacked.below == Some(device.index) && KINDS.contains(&kind) {
            changed += change(&stacked)?;
        }
    }
    Ok(changed)
}

/// IPv4 routes over an interface by which packets leave no room for a label.
///
/// # Errors
/// Netlink refuses.
pub fn roomless_routes(device: &Netdev, overhead: Overhead) -> Result<usize, LoadError> {
    let inner = inner_mtu(device, overhead)?;
    let mut count = 0;
    set_route_mtu(device.index, |mtu| {
        count += usize::from(mtu.is_none_or(|mtu| mtu > inner));
        None
    })?;
    Ok(count)
}

/// The IPv6 MTU of an interface; `None` where IPv6 is off.
#[must_use]
pub fn v6_mtu(device: &Netdev) -> Option<u32> {
    let path = format!("/proc/sys/net/ipv6/conf/{}/mtu", device.name);
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The IPv6 MTU of an interface is apart from its own. Where IPv6 is off, there is none.
fn set_v6_mtu(device: &Netdev, mtu: u32) {
    let path = format!("/proc/sys/net/ipv6/conf/{}/mtu", device.name);
    if let Err(error) = std::fs::write(&path, mtu.to_string()) {
        tracing::debug!(path, %error, "no IPv6 MTU to set");
    }
}

/// Changes the MTU metric of all IPv4 unicast routes over an interface: `change` gets the one
/// that a route has, and gives `None` to leave it or the new one.
fn set_route_mtu(
    index: u32,
    mut change: impl FnMut(Option<u32>) -> Option<Option<u32>>,
) -> Result<usize, LoadError> {
    run(async |handle| {
        let query = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes: Vec<RouteMessage> = handle
            .route()
            .get(query)
            .execute()
            .try_collect()
            .await
            .map_err(netlink("cannot list routes"))?;
        let mut changed = 0;
        for mut route in routes {
            if !leads_over(&route, index) {
                continue;
            }
            let Some(mtu) = change(route_mtu(&route)) else { continue };
            set_metric(&mut route, mtu);
            handle
                .route()
                .add(route)
                .replace()
                .execute()
                .await
                .map_err(netlink("cannot change the MTU of a route"))?;
            changed += 1;
        }
        Ok(changed)
    })
}

fn leads_over(route: &RouteMessage, index: u32) -> bool {
    use netlink_packet_route::route::RouteType;
    route.header.kind == RouteType::Unicast
        && route.attributes.iter().any(|a| matches!(a, RouteAttribute::Oif(oif) if *oif == index))
}

fn route_mtu(route: &RouteMessage) -> Option<u32> {
    route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|metric| match metric {
            RouteMetric::Mtu(mtu) => Some(*mtu),
            _ => None,
        }),
        _ => None,
    })
}

fn set_metric(route: &mut RouteMessage, mtu: Option<u32>) {
    let mut metrics = Vec::new();
    route.attributes.retain(|attribute| match attribute {
        RouteAttribute::Metrics(old) => {
            metrics.extend(old.iter().filter(|m| !matches!(m, RouteMetric::Mtu(_))).cloned());
            false
        }
        RouteAttribute::CacheInfo(_) => false,
        _ => true,
    });
    metrics.extend(mtu.map(RouteMetric::Mtu));
    if !metrics.is_empty() {
        route.attributes.push(RouteAttribute::Metrics(metrics));
    }
}
