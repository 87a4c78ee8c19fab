//! Two governed workloads with a router between them, and what tests ask of their traffic.

use std::{net::SocketAddr, sync::Arc};

use govc_image::Image;
use govc_netlab::{DontFragment, Flow, Namespace, Offloads, Outcome};

use crate::node::{
    DENIED_WAIT, Keys, Node, PATIENCE, Seen, Watch, address, connect, image, set_gateway,
    wait_until, workload,
};
use crate::replay::Recording;

/// The MTU of all links.
pub const MTU: usize = 1500;
/// Bytes that a label takes.
pub const LABEL: usize = 32;
/// Port that B serves and A may use.
pub const READ: u16 = 5432;
/// Port that A serves and B may use.
pub const CALL_BACK: u16 = 6000;
/// Port that no rule names.
pub const UNNAMED: u16 = 5433;
/// Port that a rule denies.
pub const TELNET: u16 = 23;
/// IPv4, and IPv6.
pub const BOTH_VERSIONS: [bool; 2] = [false, true];

/// What the nodes enforce.
pub const RULES: &str = "
policy ledger {
    on ingress to acme.payments.ledger
    permit read {
        from acme.payments.api
        operation ledger.read
        proto tcp port 5432
        proto udp port 5432
    }
    permit ping { from acme.payments.api  proto icmp type 8  proto icmpv6 type 128 }
    deny telnet { proto tcp port 23  proto udp port 23 }
}
policy api {
    on ingress to acme.payments.api
    permit call_back {
        from acme.payments.ledger
        proto tcp port 6000
        proto udp port 6000
    }
    permit ping { from acme.payments.ledger  proto icmp type 8  proto icmpv6 type 128 }
}
";

/// Workload A (network 1) and workload B (network 2) with a router between them that knows
/// nothing of labels.
pub struct Lab {
    /// Network 1.
    pub a: Node,
    /// Network 2.
    pub b: Node,
    /// Between them.
    pub router: Namespace,
    /// Of both.
    pub keys: Arc<Keys>,
}

/// The policy of the node where the API lives: A.
pub fn api() -> Image {
    image(&[&workload("acme.payments.api", "read"), RULES])
}

/// The policy of the node where the ledger lives: B.
pub fn ledger() -> Image {
    image(&[&workload("acme.payments.ledger", "read"), RULES])
}

impl Lab {
    /// The links, without any policy.
    pub fn bare() -> Self {
        let keys = Keys::new();
        let (a, b) = (Node::new("a", &keys), Node::new("b", &keys));
        let router = Namespace::create("router").unwrap();
        router.enable_forwarding().unwrap();
        for (net, device, node) in [(1, "to_a", &a), (2, "to_b", &b)] {
            connect(net, [(&router, device), (&node.namespace, "eth0")]);
            set_gateway(&node.namespace, "eth0", net);
        }
        Self { a, b, router, keys }
    }

    /// The links with A's and B's policies in force.
    pub fn governed() -> Self {
        let lab = Self::bare();
        lab.a.apply(&api(), &["eth0"]);
        lab.b.apply(&ledger(), &["eth0"]);
        lab
    }

    /// A flow from A to a port of B.
    pub fn to_b(&self, v6: bool, port: u16) -> Flow<'_> {
        let to = SocketAddr::new(address(2, 2, v6), port);
        Flow::new(&self.b.namespace, to, &self.a.namespace, PATIENCE)
    }

    /// A flow from B to a port of A.
    pub fn to_a(&self, v6: bool, port: u16) -> Flow<'_> {
        let to = SocketAddr::new(address(1, 2, v6), port);
        Flow::new(&self.a.namespace, to, &self.b.namespace, PATIENCE)
    }

    /// The four flows that rules permit: each way over each IP version.
    pub fn permitted(&self) -> [Flow<'_>; 4] {
        [
            self.to_b(false, READ),
            self.to_b(true, READ),
            self.to_a(false, CALL_BACK),
            self.to_a(true, CALL_BACK),
        ]
    }

    /// Records what arrives at both nodes and what they decide about it.
    pub fn record(&self) -> [Recording<'_>; 2] {
        [(&self.a, "to_a"), (&self.b, "to_b")]
            .map(|(node, wire)| Recording::start(node, "eth0", (&self.router, wire)))
    }

    /// Looks at both links from the router.
    pub fn watch(&self) -> [Watch; 2] {
        ["to_a", "to_b"].map(|device| Watch::start(&self.router, device))
    }

    /// Changes the offloads of all four ends.
    pub fn set_offloads(&self, change: impl Fn(Offloads) -> Offloads) {
        let ends = [
            (&self.a.namespace, "eth0"),
            (&self.b.namespace, "eth0"),
            (&self.router, "to_a"),
            (&self.router, "to_b"),
        ];
        for (namespace, device) in ends {
            let wanted = change(namespace.offloads(device).unwrap());
            namespace.set_offloads(device, wanted).unwrap();
            assert_eq!(namespace.offloads(device).unwrap(), wanted);
        }
    }
}

/// Headers of a UDP datagram.
pub fn headers(v6: bool) -> usize {
    if v6 { 48 } else { 28 }
}

/// Largest payload of a datagram that leaves room for a label.
pub fn full_payload(v6: bool) -> usize {
    MTU - LABEL - headers(v6)
}

/// Waits until unlabelled traffic gets through after a detach.
pub fn flows_again(flow: Flow<'_>) {
    let flow = Flow { timeout: DENIED_WAIT, ..flow };
    let small = || flow.udp_exchange(0, DontFragment::Want).unwrap();
    assert!(wait_until(|| small().is_delivered()), "{flow}");
}

/// Nothing came back.
pub fn denied(outcome: Outcome) {
    assert_eq!(outcome, Outcome::TimedOut);
}

/// What was sent arrived, and the answer too.
pub fn delivered(outcome: Outcome, what: &str) {
    assert!(outcome.is_delivered(), "{what}: {outcome}");
}

/// No packet was denied on the way in or out, for whatever reason: none arrived bare either.
pub fn nothing_was_denied(node: &Node) {
    let status = node.status();
    let unwanted: Vec<_> =
        status.reasons.iter().filter(|count| count.permitted == Some(false)).collect();
    assert!(unwanted.is_empty(), "{unwanted:?}");
    let unwanted: Vec<_> =
        status.rules.iter().filter(|count| count.action == "deny" && count.packets != 0).collect();
    assert!(unwanted.is_empty(), "{unwanted:?}");
}

/// Everything on these wires was labelled.
pub fn all_labelled(watches: [Watch; 2]) -> [Seen; 2] {
    watches.map(|watch| {
        let seen = watch.finish();
        assert!(seen.labelled > 0 && seen.bare == 0, "{seen:?}");
        seen
    })
}

/// Sends so many bytes over a connection.
pub fn transfer(flow: Flow<'_>, bytes: u64) {
    // The rules of patience are for packets; this many take a while on a busy machine.
    let flow = Flow { timeout: PATIENCE * 4, ..flow };
    let report = flow.tcp_transfer(bytes).unwrap_or_else(|error| panic!("{flow}: {error}"));
    assert_eq!(report.bytes, bytes);
}

/// What was recorded is explained as it was decided.
pub fn replayed(recordings: [Recording<'_>; 2], program: &str) {
    let events: Vec<_> =
        recordings.into_iter().map(|recording| recording.replay(program, &[]).len()).collect();
    assert_ne!(events, [0, 0], "nothing has arrived");
}
