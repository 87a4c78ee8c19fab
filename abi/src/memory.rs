//! What one CPU remembers of packets that it has decided: others like them need no MAC and no walk.

use crate::{
    label::SLOT_NS,
    limits::{MEMORY_LEN_MAX, MEMORY_SHIFT_MAX, MEMORY_SHIFT_MIN},
    node::LEAF_NONE,
    reason,
};

/// A decision about a verified label, in one cache line.
///
/// What a hook decides about a labelled packet that arrives, or that passes through, is a function of the bytes
/// under the MAC, the zones, the generation, the key and the age of the label. All of them are compared, so a hit is exact but
/// for the key, of which 32 bits are, see [`crate::key::fingerprint`]: one that is exchanged within
/// its epoch is taken for the old one in one of 2^32 cases. Entries are written only after a good MAC, so
/// nobody without a key can push others out. Packets that open or end a connection and ICMP are not remembered.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Memo {
    /// The first 16 bytes of the label, as [`crate::label::Label::wire_words`] gives them.
    pub body: [u64; 2],
    /// The MAC.
    pub mac: u64,
    /// Source and destination of an IPv4 packet as they stand in it. Those of IPv6 are in
    /// [`AddressesV6`], and this is 0.
    pub addresses: u64,
    /// Four more bytes of the label.
    pub tail: u32,
    /// Both ports as they stand in the packet.
    pub ports: u32,
    /// The generation that decided and, for what passes through, the zone that it leaves by: see
    /// [`Self::decided`]. 0 in an empty entry.
    pub decided: u32,
    /// Fingerprint of the key that it was verified with.
    pub key: u32,
    /// The label's slot, counted from the Unix epoch, modulo 2^32.
    pub slot: u32,
    /// Rule that decided, and one of [`reason`] in the upper eight bits: see [`Self::numbered`].
    pub rule: u32,
    /// Rule in observe mode that would have decided otherwise, and a set of [`memo_flag`].
    pub pending: u32,
    /// The label is good for less than so many slots, counted from one before its own.
    pub slots: u8,
    /// Entry of the key in [`crate::key::KeyTable::entries`].
    pub key_index: u8,
    /// Zone of the interface that the packet came in by.
    pub zone: u8,
    /// What follows the label, a number of IP's.
    pub protocol: u8,
}

/// Flags of [`Memo::pending`].
pub mod memo_flag {
    /// Let the packet through.
    pub const PERMIT: u8 = 1;
    /// Packets decided so are reported while there is budget for events.
    pub const REPORTS: u8 = 2;
    /// An IPv6 packet.
    pub const V6: u8 = 4;
    /// Asked for since entries beside it were looked over for one to give up.
    pub const USED: u8 = 8;
    /// The packet passes through this node: its label stays.
    pub const TRANSIT: u8 = 16;
}

impl Memo {
    const NUMBER: u32 = 0x00ff_ffff;
    /// The generation in [`Self::decided`].
    const GENERATION: u32 = 0x00ff_ffff;
    /// Of a generation 23 bits are kept: no label lives for as long as 2^23 of them take.
    const GENERATIONS: u32 = 1 << 23;

    /// A generation, as a number that is never 0, and the zone that a packet leaves by above it.
    #[inline(always)]
    #[must_use]
    pub const fn decided(generation: u64, leaves_by: u32) -> u32 {
        generation as u32 & (Self::GENERATIONS - 1) | Self::GENERATIONS | leaves_by << 24
    }

    /// 0 if it was decided by the generation that [`Self::decided`] made `decided` of.
    #[inline(always)]
    #[must_use]
    pub const fn other_generation(&self, decided: u32) -> u32 {
        (self.decided ^ decided) & Self::GENERATION
    }

    /// The zone that the packet leaves by, if it passes through.
    #[inline(always)]
    #[must_use]
    pub const fn leaves_by(&self) -> u32 {
        self.decided >> 24
    }

    /// A rule, or [`LEAF_NONE`], in 24 bits, with eight others above them.
    #[inline(always)]
    #[must_use]
    pub const fn numbered(rule: u32, upper: u8) -> u32 {
        rule & Self::NUMBER | (upper as u32) << 24
    }

    #[inline(always)]
    const fn number(packed: u32) -> u32 {
        let number = packed & Self::NUMBER;
        if number == LEAF_NONE & Self::NUMBER { LEAF_NONE } else { number }
    }

    /// The rule that decided; [`LEAF_NONE`] for none.
    #[inline(always)]
    #[must_use]
    pub const fn rule(&self) -> u32 {
        Self::number(self.rule)
    }

    /// The rule in observe mode that would have decided otherwise; likewise.
    #[inline(always)]
    #[must_use]
    pub const fn pending(&self) -> u32 {
        Self::number(self.pending)
    }

    /// One of [`reason`].
    #[inline(always)]
    #[must_use]
    pub const fn reason(&self) -> u8 {
        (self.rule >> 24) as u8
    }

    /// A set of [`memo_flag`].
    #[inline(always)]
    #[must_use]
    pub const fn flags(&self) -> u8 {
        (self.pending >> 24) as u8
    }

    /// Notes whether it is asked for.
    #[inline(always)]
    pub const fn set_used(&mut self, used: bool) {
        const BIT: u32 = (memo_flag::USED as u32) << 24;
        self.pending = if used { self.pending | BIT } else { self.pending & !BIT };
    }

    /// Whether its label is young enough in a slot, and from one slot in the future at most.
    #[inline(always)]
    #[must_use]
    pub const fn is_young(&self, now: u64) -> bool {
        (now as u32).wrapping_sub(self.slot).wrapping_add(1) < self.slots as u32
    }
}

/// Source and destination of the IPv6 packet that a [`Memo`] is about, at the same place in a map of
/// their own: entries of IPv4 stay within one cache line.
pub type AddressesV6 = [u64; 4];

/// Entries of [`Memo`] among which a decision has its place.
pub const MEMO_WAYS: u32 = 4;

/// Another entry of [`Memo`] for what hashes to this one, for numbers below [`MEMO_WAYS`]: of four, few
/// flows push each other out.
#[inline(always)]
#[must_use]
pub const fn memo_way(slot: u32, number: u32) -> u32 {
    slot ^ number & (MEMO_WAYS - 1)
}

/// What entries of [`Memo`] are found by: the MAC is as good as random.
#[inline(always)]
#[must_use]
pub const fn memo_hash(mac: u64) -> u32 {
    mac as u32
}

/// What one CPU remembers of a flow that it has labelled.
///
/// What the egress hook does with a packet is a function of its flow, of where it was sent and what
/// its socket has declared, of the generation, the slot, the key, and what the flow table knows. The
/// last is why flows of which both ends speak are remembered, and replies, no longer than for the slot
/// in which the table has heard of them. One that nothing has answered may be pushed out of the table by others,
/// and comes back with its next packet: it is remembered for a [`moment`], unless the table has to hear of that
/// packet, as it has to of TCP's. What leaves becomes a reply when the other end opens the same flow: see
/// [`Arrivals`]. All else is compared, so a hit is exact. Packets that open or end a connection and ICMP
/// are not remembered.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Stamped {
    /// Source and destination as 16 bytes each, as [`crate::mac::Flow`] has them.
    pub addresses: [u64; 4],
    /// As [`stamped_ends`] gives it.
    pub ends: u64,
    /// What [`Arrivals`] had for the flow before it was decided.
    pub arrival: u64,
    /// The generation that decided, modulo 2^32.
    pub generation: u32,
    /// The slot of the label, counted from the Unix epoch, likewise.
    pub slot: u32,
    /// What the socket has declared; 0 for nothing.
    pub declared: u64,
    /// As [`stamped_origin`] gives it.
    pub origin: u64,
    /// The key that the MAC was made with, or that its own was made of.
    pub key: [u64; 2],
    /// [`crate::label::Label::head`].
    pub head: u64,
    /// [`crate::label::Label::mid`].
    pub mid: u64,
    /// [`crate::label::Label::tail`].
    pub tail: u32,
    /// Rule that decided; [`crate::node::LEAF_NONE`] for none.
    pub rule: u32,
    /// The label's MAC.
    pub mac: u64,
    /// Rule in observe mode that would have decided otherwise; likewise.
    pub pending: u32,
    /// One of [`reason`].
    pub reason: u8,
    /// Entry of the key in [`crate::key::KeyTable::entries`].
    pub key_index: u8,
    /// 1 when packets decided so are reported while there is budget for events.
    pub reports: u8,
    /// The [`moment`] that it is good for; 0 when it is good for all of the slot.
    pub moment: u8,
}

/// The last flow that came in, by [`arrivals_slot`] of its ends, as an [`arrival`]; 0 for none. As long as it is the same
/// one, nothing has come in that packets leaving the other way would answer.
pub type Arrivals = [u64; 1 << ARRIVALS_SHIFT];

/// 16 KiB: they fit the cache, and a flood leaves most of them alone for a while.
const ARRIVALS_SHIFT: u32 = 11;

/// The name of a flow that came in, as the `number`th on a CPU: no other has the same. Counting flows would take an
/// instruction that locks.
#[inline(always)]
#[must_use]
pub const fn arrival(cpu: u32, number: u64) -> u64 {
    number << 16 | cpu as u64 & 0xffff
}

/// Where [`Arrivals`] has flows between these ends, whichever is the source.
#[inline(always)]
#[must_use]
pub const fn arrivals_slot(addresses: [u64; 4], ports: u32, protocol: u8) -> usize {
    let [a, b, c, d] = addresses;
    let ends = (ports ^ ports >> 16) as u16 as u64 | (protocol as u64) << 16;
    let mixed = (a ^ c ^ (b ^ d).rotate_left(29) ^ ends.rotate_left(13))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> (u64::BITS - ARRIVALS_SHIFT)) as usize
}

/// How long a [`moment`] is: `1 << MOMENT_SHIFT` nanoseconds, 67 milliseconds.
const MOMENT_SHIFT: u32 = 26;

/// The number of a moment of the coarse clock, never 0; no two of one slot have the same.
#[inline(always)]
#[must_use]
pub const fn moment(coarse_ns: u64) -> u8 {
    (coarse_ns >> MOMENT_SHIFT) as u8 | 0x80
}

/// Ports as they stand in the packet, the source's first, protocol and IP version.
#[inline(always)]
#[must_use]
pub const fn stamped_ends(ports: u32, protocol: u8, version: u8) -> u64 {
    ports as u64 | (protocol as u64) << 32 | (version as u64) << 40
}

/// Where a packet comes from and leaves: the number of its cgroup's pattern, the zones that it came
/// in by and leaves by, and whether it was sent on this node.
#[inline(always)]
#[must_use]
pub const fn stamped_origin(pattern: u32, from_zone: u32, zone: u32, is_local: bool) -> u64 {
    let zones = (from_zone as u64 & 0xff) << 32 | (zone as u64 & 0xff) << 40;
    pattern as u64 | zones | (is_local as u64) << 48
}

/// What entries of [`Stamped`] are found by. Whoever chooses flows that share one makes them slower, no more.
#[inline(always)]
#[must_use]
pub const fn stamped_hash(addresses: [u64; 4], ends: u64) -> u32 {
    let [a, b, c, d] = addresses;
    let mixed = (a ^ b ^ (c ^ d).rotate_left(29) ^ ends.rotate_left(13))
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as u32
}

/// Entries of [`Memo`] and of [`Stamped`] that each of `cpus` CPUs has, as a power of two.
#[must_use]
pub const fn memory_shift(cpus: u32) -> u32 {
    let each =
        MEMORY_LEN_MAX / (size_of::<Memo>() + size_of::<AddressesV6>() + size_of::<Stamped>());
    let entries = each / if cpus == 0 { 1 } else { cpus as usize };
    let shift = if entries == 0 { 0 } else { entries.ilog2() };
    if shift < MEMORY_SHIFT_MIN {
        MEMORY_SHIFT_MIN
    } else if shift > MEMORY_SHIFT_MAX {
        MEMORY_SHIFT_MAX
    } else {
        shift
    }
}

/// Where a CPU keeps what hashes to `hash`, when each has `1 << shift` entries.
#[inline(always)]
#[must_use]
pub const fn memory_slot(cpu: u32, shift: u32, hash: u32) -> u32 {
    cpu << shift | hash & ((1 << shift) - 1)
}

const _: () = {
    assert!(size_of::<Memo>() == 64);
    assert!(size_of::<Stamped>() == 128);
    assert!(SLOT_NS < 0x80 << MOMENT_SHIFT);
    assert!(reason::COUNT <= 256);
    assert!(crate::limits::RULES_MAX < Memo::NUMBER as usize);
    assert!(MEMORY_SHIFT_MIN >= MEMO_WAYS.trailing_zeros());
};
