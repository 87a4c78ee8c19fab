//! Two workloads with a link between them, governed or not.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use govc_image::Image;
use govc_loader::attach::HookChoice;
use govc_netlab::{IpPrefix, Namespace, ping, veth};

use crate::{
    error::BenchError,
    frames::Version,
    instance::{Instance, Keys, Site},
    policy::{self, DOMAIN},
};

/// The interface at both ends.
pub const DEVICE: &str = "eth0";
/// Port of bulk transfers.
pub const BULK: u16 = 5001;
/// Port of the service.
pub const SERVICE: u16 = 8080;
/// What requests to the service declare.
pub const OPERATION: &str = "http.get";

const PATIENCE: Duration = Duration::from_secs(5);

/// A client and a server.
pub struct Pair {
    /// Where the client runs.
    pub client: Namespace,
    /// Where the server runs.
    pub server: Namespace,
    instances: Vec<Instance>,
}

impl Pair {
    /// Joined by a link, without any policy.
    pub fn bare() -> Result<Self, BenchError> {
        let (client, server) = (Namespace::create("client")?, Namespace::create("server")?);
        veth(&client, DEVICE, &server, DEVICE, None)?;
        for version in [Version::V4, Version::V6] {
            client.add_address(DEVICE, prefix(version, 1)?)?;
            server.add_address(DEVICE, prefix(version, 2)?)?;
        }
        Ok(Self { client, server, instances: Vec::new() })
    }

    /// With a policy in force at each end; the hook is the server's for arriving packets.
    pub fn governed(hook: HookChoice) -> Result<Self, BenchError> {
        let mut pair = Self::bare()?;
        let keys = Keys::new()?;
        for (namespace, image, hook) in
            [(&pair.client, client()?, HookChoice::Tcx), (&pair.server, server()?, hook)]
        {
            let site = Site { namespace, interfaces: &[DEVICE], hook };
            pair.instances.push(Instance::at(site, &image, &keys)?);
        }
        Ok(pair)
    }

    /// Makes the server the client's way to networks that the server knows nothing of: what comes
    /// for them is dropped, and nobody is told.
    pub fn lead_away(&self) -> Result<(), BenchError> {
        for (version, everywhere) in
            [(Version::V4, IpPrefix::DEFAULT_V4), (Version::V6, IpPrefix::DEFAULT_V6)]
        {
            self.client.set_route(everywhere, Some(address(version, 2)), DEVICE)?;
            // Nobody shall wait for the neighbour later on.
            ping(&self.client, None, address(version, 2), 0, PATIENCE)?;
        }
        Ok(())
    }

    /// Checks that neither end has denied anything but what came without a label before both were
    /// in force: neighbours that look for each other.
    pub fn check(&self, case: &str) -> Result<(), BenchError> {
        for instance in &self.instances {
            let denied = instance.reasons()?.into_iter().filter(|one| one.permitted == Some(false));
            let mut denied = denied.filter(|one| one.reason != "label_missing");
            if let Some(one) = denied.next() {
                return Err(BenchError::Wrong {
                    case: case.to_owned(),
                    found: format!("{} packets end with `{}`", one.packets, one.reason),
                });
            }
        }
        Ok(())
    }

    /// Packets that rules or what they permitted have let in at the server.
    pub fn let_in(&self) -> Result<u64, BenchError> {
        let Some(server) = self.instances.last() else { return Ok(0) };
        server.count("ingress", "rule")
    }
}

/// Address of an end: 1 is the client's, 2 the server's.
pub fn address(version: Version, host: u8) -> IpAddr {
    match version {
        Version::V4 => Ipv4Addr::new(10, 80, 0, host).into(),
        Version::V6 => Ipv6Addr::new(0xfd80, 0, 0, 0, 0, 0, 0, host.into()).into(),
    }
}

/// Where the server listens.
pub fn server_at(version: Version, port: u16) -> SocketAddr {
    SocketAddr::new(address(version, 2), port)
}

fn prefix(version: Version, host: u8) -> Result<IpPrefix, BenchError> {
    let len = if version == Version::V4 { 24 } else { 64 };
    Ok(IpPrefix::new(address(version, host), len)?)
}

/// The vocabulary, and an interface with a workload behind it.
pub fn vocabulary(subject: &str, operations: &str) -> String {
    let calls: Vec<String> = (0..16).map(|number| format!("c{number}")).collect();
    format!(
        "package bench.pair\n\ndomain bench = {DOMAIN}\nscope bench {{ client  server }}\n\
         operation http {{ put  get }}\noperation call {{ {} }}\nzone link = interface \"{DEVICE}\"\n\
         stamp on link {{ subject bench.{subject}  operation {operations} }}\n\
         deliver on link {{ object bench.{subject} }}\n",
        calls.join("  ")
    )
}

/// What is sent has the operation that nobody permits unless its socket declares the other one.
fn client() -> Result<Image, BenchError> {
    policy::image(vocabulary("client", "http.put or http.get"))
}

fn server() -> Result<Image, BenchError> {
    let rules = format!(
        "policy server {{\n    on ingress to bench.server\n    permit bulk {{ from bench.client  \
         proto tcp port {BULK} }}\n    permit get {{ from bench.client  operation {OPERATION}  \
         proto tcp port {SERVICE} }}\n}}\n"
    );
    policy::image(vocabulary("server", "http.put") + &rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_right() {
        for image in [client(), server()] {
            assert!(image.is_ok_and(|image| !image.bytes().is_empty()));
        }
        let all: Vec<String> = (0..16).map(|number| format!("call.c{number}")).collect();
        assert!(policy::image(vocabulary("client", &all.join(" or "))).is_ok());
    }
}
