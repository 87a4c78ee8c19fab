//! Events: one fixed record for each reported packet.

use crate::label::Label;

/// The places where packets are decided, as in counters and events.
pub mod hook {
    /// Arriving.
    pub const INGRESS: u8 = 0;
    /// Leaving.
    pub const EGRESS: u8 = 1;
    /// Passing through.
    pub const FORWARD: u8 = 2;
    /// Their names.
    pub const NAMES: [&str; 3] = ["ingress", "egress", "forward"];
}

/// What became of a packet.
pub mod verdict {
    /// Let through.
    pub const PERMIT: u8 = 1;
    /// Dropped.
    pub const DENY: u8 = 2;
}

/// Flags of an event.
pub mod flag {
    /// IPv6; IPv4 otherwise.
    pub const V6: u8 = 1;
    /// The label fields are those of a label whose MAC is right, or of the one that the packet
    /// was to be stamped with.
    pub const LABELLED: u8 = 2;
    /// The label fields come from a legacy rule.
    pub const LEGACY: u8 = 4;
    /// The label fields are what the packet claims; they were not verified.
    pub const CLAIMED: u8 = 8;
    /// From this bit on stands the packet's [`crate::attribute::shape`].
    pub const SHAPE_SHIFT: u8 = 4;
}

/// What is told about one packet: 112 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Boot time of the decision, nanoseconds.
    pub time_ns: u64,
    /// Generation that decided.
    pub generation: u64,
    /// Rule that decided; [`crate::node::LEAF_NONE`] for none.
    pub rule: u32,
    /// Rule in observe mode that would have decided otherwise; likewise.
    pub pending: u32,
    /// Interface.
    pub ifindex: u32,
    /// Length of the packet with its headers, bytes.
    pub len: u32,
    /// One of [`crate::reason`].
    pub reason: u8,
    /// One of [`verdict`].
    pub verdict: u8,
    /// One of [`hook`].
    pub hook: u8,
    /// Set of [`flag`].
    pub flags: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Number of the zone that the packet came in by; 0 for none, and for what this node has sent.
    pub from_zone: u8,
    /// ICMP type and code, `type << 8 | code`.
    pub icmp: u16,
    /// Host byte order.
    pub source_port: u16,
    /// Host byte order.
    pub destination_port: u16,
    /// Domain index and number of the local workload.
    pub object: u32,
    /// Source address in memory order, IPv4 mapped.
    pub source: [u64; 2],
    /// Destination address likewise.
    pub destination: [u64; 2],
    /// The label.
    pub label: Label,
    /// Id of the cgroup of the socket that has sent a leaving packet, its low half: see
    /// [`Event::cgroup`].
    pub cgroup_low: u32,
    /// The 16 bits above: the kernel counts ids up, and never comes near 2^48.
    pub cgroup_high: u16,
    /// Number of the zone that the packet leaves by; 0 for none, and for what is for this node.
    pub to_zone: u8,
    /// Zero.
    pub pad: u8,
}

impl Event {
    /// Id of the cgroup of the socket that has sent a leaving packet; 0 where none is known: what passes
    /// through, and what the kernel answers by itself, has no socket.
    #[must_use]
    pub const fn cgroup(&self) -> u64 {
        (self.cgroup_high as u64) << 32 | self.cgroup_low as u64
    }
}

const _: () = assert!(size_of::<Event>() == 112);
