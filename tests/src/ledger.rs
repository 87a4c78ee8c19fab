//! One small policy that much is tried on: the API may read from the ledger.

use govc_abi::label::Label;

use crate::{
    Compiled, compile,
    frame::{Spec, Transport},
    policies::VOCABULARY,
    reference::Verifier,
};

/// Its text.
pub const LEDGER: &str = "package acme.k\nuse acme.vocabulary\n\
    zone lan = interface \"eth0\", \"lo\"\n\
    deliver on lan { object acme.payments.ledger }\n\
    policy p { on ingress to acme.payments.ledger\n\
      permit read { from acme.payments.api  operation ledger.read  proto tcp port 443  proto udp port 443 } }\n";

/// A packet that opens a connection.
pub const SYN: Transport = Transport::Tcp { syn: true, ack: false, sequence: 77 };
/// A packet of an established one.
pub const ACK: Transport = Transport::Tcp { syn: false, ack: true, sequence: 77 };

/// The policy, compiled.
pub fn compiled() -> Compiled {
    compile(&[("ledger.gov", LEDGER), ("vocabulary.gov", VOCABULARY)])
}

/// A label that it permits, good for `2^life` slots.
pub fn api_label(compiled: &Compiled, verifier: &Verifier, life: u8) -> Label {
    let domain = &compiled.policy.domains()[0];
    let api = domain.scopes.iter().find(|scope| scope.path == "payments.api").expect("a scope");
    Label::default()
        .with_version(1)
        .with_domain(domain.number)
        .with_epoch(verifier.epoch)
        .with_life(life)
        .with_slot(verifier.slot as u16)
        .with_subject(api.subjects.expect("a subject").0)
        .with_level(10)
        .with_operation(1)
}

/// A packet that it permits with such a label, where the transport has ports.
pub fn spec(v6: bool, transport: Transport) -> Spec {
    let (source, destination) = if v6 {
        ("[2001:db8::1]:40000", "[2001:db8::2]:443")
    } else {
        ("10.1.0.1:40000", "10.1.0.2:443")
    };
    let address = |text: &str| text.parse().expect("an address");
    Spec { source: address(source), destination: address(destination), transport, payload: 100 }
}
