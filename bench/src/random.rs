//! Numbers that look random and are the same every time.

/// A xorshift generator.
pub struct Random(u64);

impl Random {
    /// Starts from a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let upper = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((upper * u64::from(limit)) >> 32) as u32
    }
}
