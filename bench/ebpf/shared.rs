//! What the eBPF programs and the benchmark agree on.

/// Bytes of every frame: a labelled IPv6 TCP packet and some payload.
pub const FRAME_LEN: usize = 128;
/// Prepared frames, a power of two. Two MB: more than a core's second-level cache here, less
/// than the flows that the enforcement point remembers.
pub const FRAMES_MAX: usize = 1 << 14;

/// One prepared frame.
pub type Frame = [u64; FRAME_LEN / 8];

/// Which frame comes next, and the key of the floor with a MAC.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Cursor {
    /// Counts frames.
    pub next: u32,
    /// How many of the prepared frames take turns, minus one; a power of two minus one.
    pub mask: u32,
    /// First half of the key.
    pub k0: u64,
    /// Second half.
    pub k1: u64,
    /// Frames that came through to the program which ends the live path.
    pub seen: u64,
}

/// Most addresses of the stand-in: what Cilium's `ipcache` takes.
pub const ADDRESSES_MAX: usize = 512_000;
/// Most entries of the stand-in's policy: what one of Cilium's policy maps takes.
pub const POLICIES_MAX: usize = 16_384;

/// What the stand-in's address trie is asked for: cluster (2), zero, family (1 for IPv4) and
/// address (16, IPv4 in the first four) in memory order. With its prefix length 24 bytes.
pub type AddressKey = [u8; 20];
/// Identity, then tunnel endpoint and flags, which nobody reads here.
pub type AddressValue = [u32; 6];
/// What the stand-in's policy trie is asked for: identity (4, 0 for any), direction (0 for
/// ingress), protocol, destination port (2) in memory order. With its prefix length 12 bytes.
pub type PolicyKey = [u8; 8];
/// Flags (1 to deny), precedence (the greater one wins), a cookie for logs.
pub type PolicyValue = [u32; 3];

/// Prefix length of a whole [`AddressKey`] for IPv4: cluster, family and one word.
pub const ADDRESS_BITS: u32 = 64;
/// Prefix length of a whole [`PolicyKey`].
pub const POLICY_BITS: u32 = 64;

const _: () = {
    assert!(size_of::<Frame>() == FRAME_LEN);
    assert!(size_of::<Cursor>() == 32);
};
