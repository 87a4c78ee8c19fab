//! A stand-in for a decision of Cilium's shape: who owns the source address, by a trie over all
//! addresses; may that identity reach this port, by two lookups in a trie of policies. Key sizes,
//! map types and number of lookups are Cilium's, the code is not; connection tracking, the
//! counters and everything else are left out.

use aya_ebpf::{
    bindings::tcx_action_base::{TCX_DROP, TCX_NEXT},
    btf_maps::lpm_trie::Key,
    macros::classifier,
    programs::TcContext,
};

use crate::{
    maps::{ADDRESSES, POLICIES},
    shared::{ADDRESS_BITS, AddressKey, POLICY_BITS, PolicyKey, PolicyValue},
};

/// Identity of addresses that nobody owns.
const WORLD: u32 = 2;

/// Decides an unlabelled IPv4 packet.
#[classifier]
pub fn bench_tc_standin(ctx: TcContext) -> i32 {
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + 38 > end {
        return TCX_DROP;
    }
    // SAFETY: 38 bytes are there.
    let (protocol, source, destination_port) = unsafe {
        (
            core::ptr::read((data + 23) as *const u8),
            core::ptr::read_unaligned((data + 26) as *const u32),
            core::ptr::read_unaligned((data + 36) as *const u16),
        )
    };
    let address = AddressKey { cluster: 0, pad: 0, family: 1, address: [source, 0, 0, 0] };
    let identity =
        ADDRESSES.get(&Key::new(ADDRESS_BITS, address)).map_or(WORLD, |value| value.identity);
    let policy = PolicyKey { identity, egress: 0, protocol, destination_port };
    if allows(policy) { TCX_NEXT } else { TCX_DROP }
}

/// The entry of this identity and the entry of all: the one that takes precedence decides.
#[inline(always)]
fn allows(own: PolicyKey) -> bool {
    let any = PolicyKey { identity: 0, ..own };
    let own = POLICIES.get(&Key::new(POLICY_BITS, own));
    let any = POLICIES.get(&Key::new(POLICY_BITS, any));
    match (own, any) {
        (Some(own), Some(any)) if own.precedence >= any.precedence => permits(own),
        (_, Some(any)) => permits(any),
        (Some(own), None) => permits(own),
        (None, None) => false,
    }
}

#[inline(always)]
fn permits(value: &PolicyValue) -> bool {
    value.flags & 1 == 0
}
