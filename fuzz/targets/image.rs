//! Images: bytes that nobody sealed are refused or harmless. Besides raw bytes, edits of a real
//! image under a digest that fits, or nothing would get past the digest.
#![no_main]

use std::sync::LazyLock;

use govc_abi::{
    attribute::Request,
    image::{self, program},
};
use govc_image::{Image, digest_of};
use govc_tests::{compile, random::Random, requests::Aim};
use libfuzzer_sys::fuzz_target;

const VOCABULARY: &str = include_str!("../../examples/policies/acme/vocabulary.gov");
const POLICY: &str = "package fuzz\nuse acme.vocabulary\n\
    zone lan = interface \"eth*\"\n\
    stamp on lan { subject acme.payments.ledger }\n\
    deliver on lan when address 10.1.0.0/16 { object acme.payments.ledger }\n\
    legacy from 10.2.0.0/16 on lan { subject acme.guest }\n\
    policy p { on ingress to acme.payments.ledger\n\
      permit a { from acme.payments.api  operation ledger.read  proto tcp port 443 }\n\
      observe deny b { source 10.0.0.0/8, 2001:db8::/32 }\n\
      permit c { from acme.web.**  where level >= internal } }\n";

struct Base {
    bytes: Vec<u8>,
    requests: Vec<Request>,
}

static BASE: LazyLock<Base> = LazyLock::new(|| {
    let compiled = compile(&[("fuzz.gov", POLICY), ("vocabulary.gov", VOCABULARY)]);
    let random = &mut Random::new(1);
    let aim = Aim::new(&compiled.table, program::INGRESS);
    let requests = (0..20).map(|_| aim.any(random)).collect();
    Base { bytes: compiled.image.bytes().to_vec(), requests }
});

fuzz_target!(|data: &[u8]| {
    look_at(Image::parse(data));
    let mut bytes = BASE.bytes.clone();
    for edit in data.chunks_exact(8) {
        let (at, value) = edit.split_at(4);
        let at = at.iter().fold(0, |at, byte| at << 8 | usize::from(*byte));
        let words = bytes.len() / 4;
        // Half of the edits go to the header, which everything else hangs on.
        let at = if at % 2 == 0 { at / 2 % image::HEADER_WORDS } else { at / 2 % words };
        bytes[4 * at..4 * at + 4].copy_from_slice(value);
    }
    if let [cut, ..] = data.chunks_exact(8).remainder() {
        bytes.truncate(bytes.len() - usize::from(*cut) % 64);
    }
    let digest = digest_of(&bytes);
    if let Some(place) =
        bytes.get_mut(4 * image::AT_DIGEST as usize..).and_then(|b| b.get_mut(..32))
    {
        place.copy_from_slice(&digest);
    }
    look_at(Image::parse(bytes));
});

/// Reads all that an image gives.
fn look_at<E>(image: Result<Image, E>) {
    let Ok(image) = image else { return };
    for number in 0..image.rules().len().min(100) as u32 {
        let _ = (image.rule(number), image.names().rule(number), image.names().rule_place(number));
        let _ = image.action_name(number);
    }
    for number in 0..100 {
        let _ = (image.label(number), image.object(number));
        let _ = (image.names().zone(number), image.names().subject(0, number));
    }
    let _ = image.domains().count();
    let _ = image.names().zone_of("eth0");
    for which in 0..program::COUNT as u32 {
        let _ = image.program(which);
        for request in &BASE.requests {
            let _ = image.decide(which, request);
        }
    }
}
