//! What the targets for signed objects share: keys, and edits of a real file, without which nothing
//! would get past the form.

use govc_authority::{Domain, key::SigningKey, signers::SignerSet, trust::Root};

/// The key of a seed.
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// Domain 7, for which 2 of the keys 1 to 3 sign.
#[allow(dead_code, reason = "not every target asks for it")]
pub fn root() -> Root {
    let keys = [1, 2, 3].map(|seed| key(seed).public());
    let signers = SignerSet::new(keys, 2).expect("two of three");
    Root { domain: Domain { name: "acme".into(), number: 7 }, signers }
}

/// A file with changes that the input asks for, six bytes each: where, what is done, and with what.
pub fn edited(file: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = file.to_vec();
    for edit in data.chunks_exact(6) {
        let [a, b, c, what, value, more] = *edit else { continue };
        if bytes.is_empty() {
            break;
        }
        let at = (usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c)) % bytes.len();
        match what % 5 {
            0 => bytes[at] = value,
            1 => bytes[at] ^= value,
            2 => bytes.insert(at, value),
            3 => {
                let end = (at + usize::from(more)).min(bytes.len());
                bytes.drain(at..end);
            }
            // A piece of the file once more, elsewhere.
            _ => {
                let from = usize::from(value) << 3;
                let piece = bytes.get(from..from + usize::from(more)).map(<[u8]>::to_vec);
                bytes.splice(at..at, piece.unwrap_or_default());
            }
        }
    }
    bytes
}
