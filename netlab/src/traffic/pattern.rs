//! The bytes that all traffic carries: a fixed pseudo-random stream.

/// Fills `buffer` with the bytes of the stream from `offset` on.
pub(super) fn fill(offset: u64, buffer: &mut [u8]) {
    let mut word = offset / 8;
    let inside = (offset % 8) as usize;
    let (head, rest) = buffer.split_at_mut(((8 - inside) % 8).min(buffer.len()));
    if inside != 0 {
        for (byte, value) in head.iter_mut().zip(mix(word).into_iter().skip(inside)) {
            *byte = value;
        }
        word += 1;
    }
    let (words, tail) = rest.as_chunks_mut::<8>();
    for bytes in words {
        *bytes = mix(word);
        word += 1;
    }
    for (byte, value) in tail.iter_mut().zip(mix(word)) {
        *byte = value;
    }
}

/// `len` bytes of the stream from `offset` on.
pub(super) fn bytes(offset: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fill(offset, &mut bytes);
    bytes
}

/// Eight bytes of the stream, by the SplitMix64 generator.
fn mix(word: u64) -> [u8; 8] {
    let mut z = word.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_cut_gives_the_same_stream() {
        let whole = bytes(0, 64);
        for from in 0..40 {
            for len in 0..20 {
                assert_eq!(bytes(from as u64, len), whole[from..from + len], "{from} + {len}");
            }
        }
    }
}
