//! SipHash-2-4 (Aumasson and Bernstein, 2012) over exactly 64 bytes.

#[derive(Clone, Copy)]
struct State {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl State {
    #[inline(always)]
    const fn round(mut self) -> Self {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
        self
    }

    #[inline(always)]
    const fn absorb(mut self, word: u64) -> Self {
        self.v3 ^= word;
        self = self.round().round();
        self.v0 ^= word;
        self
    }
}

/// The tag of the 64 bytes that `m` holds in memory order, under the key `k0`, `k1`.
///
/// The loop over the words is written out: the eBPF verifier then sees straight-line code.
#[inline(always)]
#[must_use]
pub const fn siphash24_64(k0: u64, k1: u64, m: [u64; 8]) -> u64 {
    let mut s = State {
        v0: k0 ^ 0x736f_6d65_7073_6575,
        v1: k1 ^ 0x646f_7261_6e64_6f6d,
        v2: k0 ^ 0x6c79_6765_6e65_7261,
        v3: k1 ^ 0x7465_6462_7974_6573,
    };
    s = s.absorb(m[0]).absorb(m[1]).absorb(m[2]).absorb(m[3]);
    s = s.absorb(m[4]).absorb(m[5]).absorb(m[6]).absorb(m[7]);
    s = s.absorb(64 << 56);
    s.v2 ^= 0xff;
    s = s.round().round().round().round();
    s.v0 ^ s.v1 ^ s.v2 ^ s.v3
}

#[cfg(test)]
mod tests {
    use core::hash::Hasher;

    use super::*;

    #[test]
    fn agrees_with_the_siphasher_crate() {
        let mut x = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x
        };
        for _ in 0..1000 {
            let (k0, k1) = (next(), next());
            let m: [u64; 8] = core::array::from_fn(|_| next());
            let mut other = siphasher::sip::SipHasher24::new_with_keys(k0, k1);
            for word in m {
                other.write(&word.to_le_bytes());
            }
            assert_eq!(siphash24_64(k0, k1, m), other.finish());
        }
    }
}
