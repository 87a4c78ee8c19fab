//! Sockets declare what they do: a socket option with the name of an operation. It chooses among the
//! operations that the stamp rule of the sender's traffic grants, and nothing else.

/// Level of the socket option: `gov`.
pub const SOL_GOVC: i32 = 0x67_6f76;
/// The option whose value is the operation's name, such as `ledger.read`; an empty one withdraws it.
pub const OPERATION: i32 = 1;
/// Longest name, bytes.
pub const NAME_MAX: usize = 64;

/// What is noted at a socket; sockets that a listening one accepts take it over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Declared {
    /// The hash of the operation's name; 0 for none.
    pub operation: u64,
    /// 1 when the socket was made under `govc run` with an operation, and may not declare another.
    pub fixed: u64,
}

/// The state of [`hash`] before the first byte.
pub const HASH_BEGIN: u64 = 0xcbf2_9ce4_8422_2325;

/// One more byte.
#[inline(always)]
#[must_use]
pub const fn hash_byte(state: u64, byte: u8) -> u64 {
    (state ^ byte as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

/// The number that stands for a name in labels' records and at sockets: 64-bit FNV-1a.
/// Who finds two names with one number gains nothing: both choose what the stamp rule grants.
#[must_use]
pub const fn hash(name: &[u8]) -> u64 {
    let mut state = HASH_BEGIN;
    let mut rest = name;
    while let [byte, behind @ ..] = rest {
        state = hash_byte(state, *byte);
        rest = behind;
    }
    state
}
