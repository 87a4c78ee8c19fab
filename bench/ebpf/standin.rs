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
const FAMILY_V4: u64 = 1;

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
    // Keys are built as whole words: the verifier wants them aligned on the stack, as the packed
    // type does not.
    let address = [ADDRESS_BITS as u64 | FAMILY_V4 << 56, source as u64, 0];
    // SAFETY: 24 bytes, every bit pattern is a key.
    let address = unsafe { &*address.as_ptr().cast::<Key<AddressKey>>() };
    let identity = ADDRESSES.get(address).map_or(WORLD, |value| value[0]);
    let port = (protocol as u32) << 8 | (destination_port as u32) << 16;
    if allows(policy(identity, port), policy(0, port)) { TCX_NEXT } else { TCX_DROP }
}

#[inline(always)]
fn policy(identity: u32, port: u32) -> Option<&'static PolicyValue> {
    let key = [POLICY_BITS as u64 | (identity as u64) << 32, port as u64];
    // SAFETY: 12 of 16 bytes, every bit pattern is a key.
    POLICIES.get(unsafe { &*key.as_ptr().cast::<Key<PolicyKey>>() })
}

/// The entry of this identity and the entry of all: the one that takes precedence decides.
#[inline(always)]
fn allows(own: Option<&PolicyValue>, any: Option<&PolicyValue>) -> bool {
    match (own, any) {
        (Some(own), Some(any)) if own[1] >= any[1] => own[0] & 1 == 0,
        (_, Some(any)) => any[0] & 1 == 0,
        (Some(own), None) => own[0] & 1 == 0,
        (None, None) => false,
    }
}
