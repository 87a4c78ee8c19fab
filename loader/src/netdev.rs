//! Interfaces and routes, through netlink.

use std::net::Ipv4Addr;

use futures_util::TryStreamExt as _;
use govc_abi::label::BLOCK_LEN;
use netlink_packet_route::{
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
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => device.mtu = *mtu,
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

/// Largest IP packet that leaves room for a label.
///
/// # Errors
/// There is no room: IPv6 would fall below its least MTU.
pub fn inner_mtu(device: &Netdev) -> Result<u32, LoadError> {
    let inner = device.mtu.saturating_sub(BLOCK_LEN as u32);
    if inner < V6_MTU_MIN {
        return Err(LoadError::MtuTooSmall { interface: device.name.clone(), mtu: device.mtu });
    }
    Ok(inner)
}

/// Makes the stack send packets that leave room for a label: routes over the interface get an
/// MTU (IPv4), and its IPv6 MTU is lowered. Tells how many IPv4 routes were changed.
///
/// # Errors
/// Netlink or /proc refuses.
pub fn lower_mtu(device: &Netdev) -> Result<usize, LoadError> {
    let inner = inner_mtu(device)?;
    set_v6_mtu(device, inner);
    set_route_mtu(device.index, |mtu| match mtu {
        Some(mtu) if mtu <= inner => None,
        _ => Some(Some(inner)),
    })
}

/// Undoes [`lower_mtu`].
///
/// # Errors
/// Netlink or /proc refuses.
pub fn restore_mtu(device: &Netdev) -> Result<usize, LoadError> {
    let inner = device.mtu.saturating_sub(BLOCK_LEN as u32);
    set_v6_mtu(device, device.mtu);
    set_route_mtu(device.index, |mtu| if mtu == Some(inner) { Some(None) } else { None })
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
    change: impl Fn(Option<u32>) -> Option<Option<u32>>,
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
