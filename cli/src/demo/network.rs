//! The demonstration's network, and its nodes with govc on them.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
};

use govc_grammar::span::FileId;
use govc_image::Image;
use govc_loader::{
    attach::HookChoice,
    events::Events,
    instance::Place,
    keyring::{DomainKeys, EPOCH_SHIFT_DEFAULT, KeyRing},
    publish,
};
use govc_netlab::{IpPrefix, Namespace, veth};

use crate::{
    events::describe::{Described, describe},
    failure::Failure,
};

/// Nodes that enforce, in the order of their places.
pub const WORKLOADS: [&str; 3] = ["api", "ledger", "guest"];

const VOCABULARY: (&str, &str) = (
    "examples/policies/acme/vocabulary.gov",
    include_str!("../../../examples/policies/acme/vocabulary.gov"),
);
const RULES: (&str, &str) =
    ("examples/policies/demo/rules.gov", include_str!("../../../examples/policies/demo/rules.gov"));
const NODES: [(&str, &str); 3] = [
    ("examples/policies/demo/api.gov", include_str!("../../../examples/policies/demo/api.gov")),
    (
        "examples/policies/demo/ledger.gov",
        include_str!("../../../examples/policies/demo/ledger.gov"),
    ),
    ("examples/policies/demo/guest.gov", include_str!("../../../examples/policies/demo/guest.gov")),
];
const LOCK: &str = include_str!("../../../examples/policies/acme/vocabulary.lock");

/// One host behind the router.
pub struct Host {
    pub name: &'static str,
    pub namespace: Namespace,
    pub v4: IpAddr,
    pub v6: IpAddr,
    /// Its instance; the stranger has none.
    pub place: Option<Place>,
}

pub struct Network {
    pub router: Namespace,
    pub api: Host,
    pub ledger: Host,
    pub guest: Host,
    pub stranger: Host,
    ring: KeyRing,
}

impl Network {
    /// Builds namespaces and links, then puts the policy in force on the three workloads.
    pub fn build(places: &[Place], keys: &Path) -> Result<Self, Failure> {
        let router = Namespace::create("router")?;
        router.enable_forwarding()?;
        let ring = KeyRing::new(keys);
        ring.write(&DomainKeys::generate("acme", 7, EPOCH_SHIFT_DEFAULT, 1)?)?;
        let mut hosts = ["api", "ledger", "guest", "stranger"]
            .into_iter()
            .zip(1_u8..)
            .map(|(name, subnet)| host(&router, name, subnet, places));
        let mut next = || hosts.next().unwrap_or_else(|| Err(no_host()));
        let network = Self {
            api: next()?,
            ledger: next()?,
            guest: next()?,
            stranger: next()?,
            router: router.clone(),
            ring,
        };
        for (host, source) in [&network.api, &network.ledger, &network.guest].into_iter().zip(NODES)
        {
            network.enforce(host, &compile(source)?)?;
        }
        Ok(network)
    }

    fn enforce(&self, host: &Host, image: &Image) -> Result<(), Failure> {
        let Some(place) = &host.place else { return Ok(()) };
        let interfaces = ["eth0".to_owned()];
        host.namespace.run(|| {
            publish::apply(&publish::Apply {
                place,
                image,
                interfaces: &interfaces,
                hook: HookChoice::Auto,
                keys: &self.ring,
                authority: None,
                set_mtu: true,
                dry_run: false,
            })
        })?;
        Ok(())
    }
}

impl Host {
    /// The address of one IP version.
    pub fn address(&self, v6: bool) -> IpAddr {
        if v6 { self.v6 } else { self.v4 }
    }

    /// Opens the host's event ring.
    pub fn events(&self) -> Result<HostEvents, Failure> {
        let place = self.place.as_ref().ok_or_else(no_host)?;
        Ok(HostEvents(Events::open(place)?))
    }
}

/// The events of one host, with names.
pub struct HostEvents(Events);

impl HostEvents {
    /// Everything that has come by now.
    pub fn drain(&mut self) -> Result<Vec<Described>, Failure> {
        let mut all = Vec::new();
        while let Some(event) = self.0.next(std::time::Duration::from_millis(20))? {
            all.push(describe(&event, self.0.image(event.generation)));
        }
        Ok(all)
    }
}

fn no_host() -> Failure {
    Failure::Machine { message: "the demonstration lacks a host".into(), help: None }
}

/// Network number `subnet`: hosts have address 2, the router has address 1.
fn addresses(subnet: u8, last: u8) -> (IpAddr, IpAddr) {
    let v4 = Ipv4Addr::new(10, 88, subnet, last);
    let v6 = Ipv6Addr::new(0xfd88, u16::from(subnet), 0, 0, 0, 0, 0, u16::from(last));
    (v4.into(), v6.into())
}

fn host(
    router: &Namespace,
    name: &'static str,
    subnet: u8,
    places: &[Place],
) -> Result<Host, Failure> {
    let namespace = Namespace::create(name)?;
    let to_host = format!("to_{name}");
    veth(&namespace, "eth0", router, &to_host, None)?;
    let (v4, v6) = addresses(subnet, 2);
    let (gateway4, gateway6) = addresses(subnet, 1);
    namespace.add_address("eth0", IpPrefix::new(v4, 24)?)?;
    namespace.add_address("eth0", IpPrefix::new(v6, 64)?)?;
    router.add_address(&to_host, IpPrefix::new(gateway4, 24)?)?;
    router.add_address(&to_host, IpPrefix::new(gateway6, 64)?)?;
    namespace.set_route(IpPrefix::DEFAULT_V4, Some(gateway4), "eth0")?;
    namespace.set_route(IpPrefix::DEFAULT_V6, Some(gateway6), "eth0")?;
    let position = WORKLOADS.iter().position(|workload| *workload == name);
    let place = position.and_then(|position| places.get(position).cloned());
    Ok(Host { name, namespace, v4, v6, place })
}

/// Compiles the policy of one node.
fn compile(node: (&str, &str)) -> Result<Image, Failure> {
    use govc_compiler::{lock::Locks, sources::Source};
    let sources: Vec<Source> = [VOCABULARY, RULES, node]
        .into_iter()
        .map(|(name, text)| Source { name: name.into(), text: text.into() })
        .collect();
    let files: Vec<_> = (0..)
        .zip(&sources)
        .map(|(id, source)| (FileId(id), govc_grammar::parse(FileId(id), &source.text).0))
        .collect();
    let mut locks = Locks::default();
    locks.insert_text("acme.vocabulary", LOCK);
    let checked = govc_compiler::check::check(&files, &locks);
    let wrong =
        || Failure::Machine { message: "the demonstration's policy is wrong".into(), help: None };
    let policy = checked.policy.ok_or_else(wrong)?;
    let (_, image) = govc_compiler::compile(&policy, &sources, "acme.demo").map_err(|_| wrong())?;
    Ok(image)
}
