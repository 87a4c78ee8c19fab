//! The peer in eBPF: a decision of Cilium's shape, see `ebpf/standin.rs`.

use std::net::Ipv4Addr;

use crate::{
    error::BenchError,
    frames::FrameSet,
    programs::Maps,
    random::Random,
    shared::{FRAMES_MAX, POLICIES_MAX},
};

/// How many identities there are, few and many.
pub const IDENTITIES: [u32; 2] = [1_000, 65_536];

const PORT: u16 = 8080;
const IDENTITY_FIRST: u32 = 20_000;
/// Some of the policy map is kept for other entries of a node.
const POLICIES_FILLED: u32 = POLICIES_MAX as u32 - 384;

/// Fills the maps: each identity has one address, and as many of them as the policy map holds may
/// reach the port.
pub fn fill(maps: &mut Maps, identities: u32) -> Result<(), BenchError> {
    for number in 0..identities {
        maps.add_address(address(number).octets(), IDENTITY_FIRST + number)?;
    }
    for number in 0..identities.min(POLICIES_FILLED) {
        maps.add_policy(IDENTITY_FIRST + scattered(number, identities), PORT)?;
    }
    Ok(())
}

/// Packets of identities that are let through.
pub fn frames(identities: u32) -> FrameSet {
    let random = &mut Random::new(u64::from(identities));
    let sources = (0..FRAMES_MAX).map(|_| {
        let number = random.below(identities.min(POLICIES_FILLED));
        address(scattered(number, identities))
    });
    FrameSet::tcp(PORT, sources)
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x0a01_0000 + number)
}

/// Another order of the numbers below `count`, with which the factor shares no divisor.
fn scattered(number: u32, count: u32) -> u32 {
    (u64::from(number) * 40_503 % u64::from(count)) as u32
}
