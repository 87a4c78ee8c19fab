//! Roots of trust, public keys and digests: one text for each value.
#![no_main]

use std::sync::LazyLock;

use govc_authority::{digest::Digest, key::PublicKey, trust::Root};
use libfuzzer_sys::fuzz_target;

mod signed;

static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| signed::root().to_bytes().expect("short"));

fuzz_target!(|data: &[u8]| {
    look_at(data);
    look_at(&signed::edited(&FILE, data));
    let key = signed::key(1).public().to_string();
    for bytes in [data, &signed::edited(key.as_bytes(), data)] {
        let Ok(text) = std::str::from_utf8(bytes) else { continue };
        if let Ok(key) = text.parse::<PublicKey>() {
            assert_eq!(key.to_string(), text);
        }
        if let Ok(digest) = text.parse::<Digest>() {
            assert_eq!(digest.to_string(), text);
        }
    }
});

fn look_at(bytes: &[u8]) {
    if let Ok(root) = Root::read(bytes) {
        assert_eq!(root.to_bytes().expect("it was read"), bytes);
    }
}
