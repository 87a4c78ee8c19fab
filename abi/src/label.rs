//! The label: 28 bytes that say who sent a packet, under which constraints and by which routes,
//! and the 4 bytes before them that make it a legal IPv4 option or IPv6 destination option.
//!
//! Layout, network byte order (`docs/label.md`):
//!
//! | offset | bits | field |
//! | --- | --- | --- |
//! | 0 | 4 + 4 | version, flags |
//! | 1 | 4 + 4 | epoch, life |
//! | 2 | 16 | domain |
//! | 4 | 24 | subject |
//! | 7 | 4 + 4 | level, radius |
//! | 8 | 16 | compartments |
//! | 10 | 16 | constraints |
//! | 12 | 16 | operation |
//! | 14 | 8 + 8 | residency, route class |
//! | 16 | 16 | slot |
//! | 18 | 16 | grant |
//! | 20 | 64 | MAC |

/// Bytes of the label itself.
pub const BODY_LEN: usize = 28;
/// Bytes that a label adds to a packet, in every carriage.
pub const BLOCK_LEN: usize = 32;
/// The only version.
pub const VERSION: u8 = 1;

/// The packet answers a flow that its stamping node has verified.
pub const FLAG_REPLY: u8 = 0b0001;
/// The grant field is a sequence number within the slot.
pub const FLAG_SEQ: u8 = 0b0010;
/// Enforcement points report this packet.
pub const FLAG_TRACE: u8 = 0b0100;
/// Must be zero.
pub const FLAG_RESERVED: u8 = 0b1000;

/// IPv4: NOP, NOP, experimental option 30 with the copied bit (RFC 4727, RFC 791), length 30.
/// The two NOPs put the body on a 4-byte boundary and fill the header to 52 bytes.
pub const PREFIX_V4: [u8; 4] = [0x01, 0x01, 0x9e, 30];
/// Words of an IPv4 header that carries a label.
pub const IHL_LABELLED: u8 = 13;

/// IPv6: the header is 4 units of 8 bytes; the length field does not count the first (RFC 8200).
pub const V6_HDR_EXT_LEN: u8 = 3;
/// IPv6 option type: experimental, receivers that do not know it skip it (RFC 4727, RFC 8200).
pub const V6_OPTION_SKIP: u8 = 0x1e;
/// IPv6 option type: experimental, receivers that do not know it discard the packet.
pub const V6_OPTION_DISCARD: u8 = 0x5e;
/// IPv6 option length: the body.
pub const V6_OPTION_LEN: u8 = 28;

/// Length of a time slot; 16 bits of them wrap in 36 hours.
pub const SLOT_NS: u64 = 2_000_000_000;

/// The authenticated fields of a label, as the integers that the wire's bytes spell.
///
/// `head` holds bytes 0 to 7, `mid` bytes 8 to 15 and `tail` bytes 16 to 19, each read as a
/// big-endian number, so that every field is a shift and a mask away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Label {
    /// Version, flags, epoch, life, domain, subject, level, radius.
    pub head: u64,
    /// Compartments, constraints, operation, residency, route class.
    pub mid: u64,
    /// Slot and grant.
    pub tail: u32,
    /// Zero.
    pub pad: u32,
}

macro_rules! fields {
    ($($(#[$doc:meta])* $get:ident, $set:ident: $word:ident: $type:ident [$shift:expr; $bits:expr] as $kind:ty;)*) => {
        $(
            $(#[$doc])*
            #[inline(always)]
            #[must_use]
            pub const fn $get(&self) -> $kind {
                ((self.$word >> $shift) & ((1 << $bits) - 1)) as $kind
            }

            /// Sets the field; bits beyond its width are dropped.
            #[inline(always)]
            #[must_use]
            pub const fn $set(mut self, value: $kind) -> Self {
                let mask: $type = (1 << $bits) - 1;
                self.$word = self.$word & !(mask << $shift) | (value as $type & mask) << $shift;
                self
            }
        )*
    };
}

impl Label {
    fields! {
        /// Format version, 4 bits.
        version, with_version: head: u64[60; 4] as u8;
        /// [`FLAG_REPLY`] and its neighbours, 4 bits.
        flags, with_flags: head: u64[56; 4] as u8;
        /// Key epoch modulo 16.
        epoch, with_epoch: head: u64[52; 4] as u8;
        /// The label is good for 2^life slots.
        life, with_life: head: u64[48; 4] as u8;
        /// Owner of vocabulary and keys.
        domain, with_domain: head: u64[32; 16] as u16;
        /// The sending workload, 24 bits.
        subject, with_subject: head: u64[8; 24] as u32;
        /// Trust level, 0 to 15.
        level, with_level: head: u64[4; 4] as u8;
        /// How far the packet may travel; see [`radius`].
        radius, with_radius: head: u64[0; 4] as u8;
        /// Bitmap of compartments.
        compartments, with_compartments: mid: u64[48; 16] as u16;
        /// Bitmap of obligations.
        constraints, with_constraints: mid: u64[32; 16] as u16;
        /// Operation class; 0 when none was declared.
        operation, with_operation: mid: u64[16; 16] as u16;
        /// Index of an allowed-jurisdiction set; 0 when none was declared.
        residency, with_residency: mid: u64[8; 8] as u8;
        /// Index of an allowed route class; 0 when none was declared.
        route, with_route: mid: u64[0; 8] as u8;
        /// Time slot of stamping modulo 65536.
        slot, with_slot: tail: u32[16; 16] as u16;
        /// Serial of the grant, or a sequence number with [`FLAG_SEQ`].
        grant, with_grant: tail: u32[0; 16] as u16;
    }

    /// The first 20 bytes of the body as three words in memory order: what the MAC covers, and
    /// what is copied into a packet.
    #[inline(always)]
    #[must_use]
    pub const fn wire_words(&self) -> (u64, u64, u32) {
        (self.head.to_be(), self.mid.to_be(), self.tail.to_be())
    }

    /// The label that these words in memory order spell.
    #[inline(always)]
    #[must_use]
    pub const fn from_wire_words(w0: u64, w1: u64, w2: u32) -> Self {
        Self { head: u64::from_be(w0), mid: u64::from_be(w1), tail: u32::from_be(w2), pad: 0 }
    }

    /// The label and its MAC as they travel.
    #[must_use]
    pub const fn encode(&self, mac: u64) -> [u8; BODY_LEN] {
        let h = self.head.to_be_bytes();
        let m = self.mid.to_be_bytes();
        let t = self.tail.to_be_bytes();
        let a = mac.to_le_bytes();
        [
            h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7], m[0], m[1], m[2], m[3], m[4], m[5],
            m[6], m[7], t[0], t[1], t[2], t[3], a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7],
        ]
    }

    /// The label and the MAC that these bytes spell. Every 28 bytes spell one.
    #[must_use]
    pub const fn decode(b: &[u8; BODY_LEN]) -> (Self, u64) {
        let head = u64::from_be_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]);
        let mid = u64::from_be_bytes([b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]);
        let tail = u32::from_be_bytes([b[16], b[17], b[18], b[19]]);
        let mac = u64::from_le_bytes([b[20], b[21], b[22], b[23], b[24], b[25], b[26], b[27]]);
        (Self { head, mid, tail, pad: 0 }, mac)
    }
}

/// How far a packet may travel.
pub mod radius {
    /// Not beyond the node.
    pub const NODE: u8 = 0;
    /// Not beyond the cluster.
    pub const CLUSTER: u8 = 1;
    /// Not beyond the domain.
    pub const DOMAIN: u8 = 2;
    /// Not beyond federated domains.
    pub const FEDERATION: u8 = 3;
    /// Anywhere.
    pub const ANY: u8 = 4;
    /// Their names, by number.
    pub const NAMES: [&str; 5] = ["node", "cluster", "domain", "federation", "any"];
}

/// Age of a label in slots, by sequence arithmetic: negative when it lies in the future.
#[inline(always)]
#[must_use]
pub const fn age(now_slot: u64, label_slot: u16) -> i32 {
    (now_slot as u16).wrapping_sub(label_slot) as i16 as i32
}

const _: () = assert!(size_of::<Label>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_table_says() {
        let label = Label::default()
            .with_version(1)
            .with_flags(FLAG_REPLY)
            .with_epoch(0xe)
            .with_life(2)
            .with_domain(0x1234)
            .with_subject(0x00ab_cdef)
            .with_level(0xa)
            .with_radius(3)
            .with_compartments(0x0102)
            .with_constraints(0x0304)
            .with_operation(0x0506)
            .with_residency(7)
            .with_route(8)
            .with_slot(0x090a)
            .with_grant(0x0b0c);
        let bytes = label.encode(0x8877_6655_4433_2211);
        assert_eq!(
            bytes,
            [
                0x11, 0xe2, 0x12, 0x34, 0xab, 0xcd, 0xef, 0xa3, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11,
                12, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88
            ]
        );
        assert_eq!(Label::decode(&bytes), (label, 0x8877_6655_4433_2211));
        let (w0, w1, w2) = label.wire_words();
        assert_eq!(Label::from_wire_words(w0, w1, w2), label);
        assert_eq!(w0.to_ne_bytes(), bytes[0..8]);
    }

    #[test]
    fn setters_leave_their_neighbours_alone() {
        let full = Label { head: u64::MAX, mid: u64::MAX, tail: u32::MAX, pad: 0 };
        assert_eq!(full.with_subject(0).head, !0x0000_0000_ffff_ff00);
        assert_eq!(full.with_slot(0).tail, 0x0000_ffff);
        assert_eq!(Label::default().with_level(0x1f).head, 0xf0);
    }

    #[test]
    fn age_wraps() {
        assert_eq!(age(0x1_0000, 0xffff), 1);
        assert_eq!(age(0xffff, 0x0000), -1);
        assert_eq!(age(5, 5), 0);
    }
}
