//! Envelopes: what is read is written back as it was, and no changed payload is one that was signed.
#![no_main]

use std::sync::LazyLock;

use govc_authority::envelope::Envelope;
use libfuzzer_sys::fuzz_target;

mod signed;

const TYPE: &str = "application/x-fuzz";

static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut envelope = Envelope::unsigned(TYPE, b"{\"a\":1}".to_vec());
    for seed in [1, 2, 9] {
        envelope.sign(&signed::key(seed)).expect("room");
    }
    envelope.to_bytes().expect("short")
});

fuzz_target!(|data: &[u8]| {
    look_at(data);
    look_at(&signed::edited(&FILE, data));
});

fn look_at(bytes: &[u8]) {
    let Ok(envelope) = Envelope::read(bytes) else { return };
    assert_eq!(envelope.to_bytes().expect("it was read"), bytes);
    if let Ok((payload, _)) = envelope.verify(TYPE, &signed::root().signers) {
        assert_eq!(payload, b"{\"a\":1}");
    }
}
