//! Several domains: their vocabularies and keys, and the labels that pass between them.

use std::time::Duration;

use govc_abi::label::{BODY_LEN, Label};
use govc_image::Image;
use govc_loader::keyring::{DomainKeys, EPOCH_SHIFT_DEFAULT};
use govc_netlab::{DontFragment, Flow, Namespace, Outcome, PacketSocket};

use crate::{
    compile,
    node::{DENIED_WAIT, remember_source},
    policies::VOCABULARY,
};

/// The words of a neighbour.
pub const PARTNER: &str = include_str!("../../examples/policies/partner/vocabulary.gov");
/// The words of a third domain.
pub const THIRD: &str = "
package third.vocabulary
domain third = 11 { level { low < high } }
scope third { robot at high  guest at low  stranger at low  peer at low }
operation third { poll  carry  ask }
residency home = {de}
          union = {de, fr, nl}
";
/// The vocabularies by the packages that they are in.
pub const VOCABULARIES: [(&str, &str); 3] =
    [("acme", VOCABULARY), ("partner", PARTNER), ("third", THIRD)];

/// Compiles a policy that says itself which vocabularies it uses.
pub fn image(parts: &[&str]) -> Image {
    let text = format!("package acme.e2e\n{}", parts.join("\n"));
    // A node needs the keys of all domains that it knows; files are read in the order in which they are used.
    let used = |domain: &str| text.find(&format!("use {domain}.vocabulary"));
    let mut vocabularies: Vec<_> = VOCABULARIES
        .into_iter()
        .filter_map(|(domain, words)| Some((used(domain)?, domain, words)))
        .collect();
    vocabularies.sort_unstable();
    let mut files = vec![("e2e.gov", text.as_str())];
    files.extend(vocabularies.into_iter().map(|(_, domain, words)| (domain, words)));
    let image = compile(&files).image;
    remember_source(&image, &text);
    image
}

/// New keys of a domain.
pub fn keys(domain: &str, number: u16) -> DomainKeys {
    DomainKeys::generate(domain, number, EPOCH_SHIFT_DEFAULT, 2).unwrap()
}

/// A datagram, and its answer.
pub fn exchange(flow: Flow<'_>) -> Outcome {
    flow.udp_exchange(64, DontFragment::Want).unwrap()
}

/// A flow that nobody waits long for.
pub fn brief(flow: Flow<'_>) -> Flow<'_> {
    Flow { timeout: DENIED_WAIT, ..flow }
}

/// The label of a frame.
pub fn label(frame: &[u8]) -> Option<Label> {
    let ip = frame.get(14..)?;
    let at = match frame.get(12..14)? {
        [0x08, 0x00] if ip.get(20..24)? == [1, 1, 0x9e, 30] => 24,
        [0x86, 0xdd] if ip.get(6) == Some(&60) => 44,
        _ => return None,
    };
    let body: &[u8; BODY_LEN] = ip.get(at..at + BODY_LEN)?.try_into().ok()?;
    Some(Label::decode(body).0)
}

/// The labels that pass a device from now on, while `traffic` runs.
pub fn labels(gateway: &Namespace, device: &str, traffic: impl FnOnce()) -> Vec<Label> {
    const QUIET: Duration = Duration::from_millis(50);
    let wire = PacketSocket::open(gateway, device).unwrap();
    traffic();
    let mut seen = Vec::new();
    let mut keep = |frame: &govc_netlab::Frame| {
        seen.extend(label(&frame.bytes));
        false
    };
    assert!(wire.capture(QUIET, &mut keep).unwrap().is_none());
    seen
}

/// Number of a subject.
pub fn subject(image: &Image, domain: &str, path: &str) -> u32 {
    let domain = image.names().domains.iter().find(|known| known.name == domain).unwrap();
    domain.scopes.iter().find(|scope| scope.path == path).unwrap().subjects.unwrap().0
}
