//! Kernel state other than tables: flows, interfaces, counters, control words.

use crate::{
    attribute::Request,
    label::Label,
    limits::{
        CGROUP_PATTERN_MAX, CGROUPS_WATCHED_MAX, EVENT_RATE_DEFAULT, EVENT_SHARES, HEADERS_LEN,
        INTERFACES_MAX,
    },
    reason,
};

/// A permitted flow, named by its first packet; replies are looked up with the ends exchanged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct FlowKey {
    /// Source address in memory order, IPv4 mapped.
    pub source: [u64; 2],
    /// Destination address likewise.
    pub destination: [u64; 2],
    /// Memory order.
    pub source_port: u16,
    /// Memory order.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// One of [`crate::event::hook`]: where the flow's own direction was permitted.
    pub hook: u8,
    /// 1 for a ticket: this node is about to tell the sender of the flow that its packet went nowhere.
    /// The answer takes the ticket. 0 for the flow itself. [`TICKET_LABEL`] for no flow at all: addresses are
    /// the label and its MAC, as they were verified where the packet came in.
    pub ticket: u16,
}

/// See [`FlowKey::ticket`].
pub const TICKET_LABEL: u16 = 2;

/// What is remembered of a flow: enough to decide again after the policy has changed.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FlowState {
    /// Generation that permitted it; in the upper eight bits, how many of its moments were past.
    pub generation: u64,
    /// Rule that permitted it.
    pub rule: u32,
    /// The slot in which one of its packets was last seen, in either direction, modulo 2^32.
    pub seen: u32,
    /// 1 when the flow's packets travel without a label: a legacy neighbour.
    pub bare: u8,
    /// One of [`phase`].
    pub phase: u8,
    /// Serial of the grant that its label was stamped under; 0 for none.
    pub grant: u16,
    /// Number of its label's domain; 0 for none.
    pub domain: u16,
    /// Zero.
    pub pad: u16,
    /// What the socket that sent it has declared; 0 for nothing.
    pub declared: u64,
    /// How it passes this node.
    pub way: Way,
    /// The request that was permitted. Domain indices, zones and patterns in it are numbers of the image that
    /// permitted it, and mean something else to another: what is beside it is what they are found anew by.
    pub request: Request,
}

/// How a packet passes this node, in numbers that no policy gives out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Way {
    /// Index of the interface that it came in by; 0 when it was sent on this node.
    pub entered: u32,
    /// Index of the interface that it leaves by; 0 when it is for this node.
    pub leaves: u32,
    /// Id of the cgroup of the socket that sent it; 0 for none.
    pub cgroup: u64,
}

/// How far a flow has come.
pub mod phase {
    /// Nothing has answered it.
    pub const OPENED: u8 = 0;
    /// TCP: something has, and the sender has not said yet that it heard that.
    pub const ANSWERED: u8 = 1;
    /// Both ends speak.
    pub const ESTABLISHED: u8 = 2;
    /// TCP: one end has said that it ends.
    pub const CLOSING: u8 = 3;
}

/// Slots after which a flow is forgotten if nothing of it is seen: TCP two hours and four minutes when
/// established and four minutes otherwise (RFC 5382), ICMP a minute (RFC 5508), all else five minutes
/// (RFC 4787).
#[inline(always)]
#[must_use]
pub const fn flow_slots(protocol: u8, phase: u8) -> u32 {
    match protocol {
        6 if phase == phase::ESTABLISHED => 3720,
        6 => 120,
        1 | 58 => 30,
        _ => 150,
    }
}

/// What the enforcement point knows about an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Interface {
    /// Its index; 0 marks a free slot.
    pub ifindex: u32,
    /// Largest IP packet that it sends, bytes.
    pub mtu: u32,
    /// Bytes before the IP header: 14, or 0 on devices without Ethernet headers.
    pub l2_len: u16,
    /// Zone by buffer; 0 for none.
    pub zones: [u8; 2],
    /// Largest TCP segment over IPv4 that leaves room for a label; 0 leaves segments alone.
    pub mss_v4: u16,
    /// Over IPv6.
    pub mss_v6: u16,
}

/// Where packets in quarantine go.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Detours {
    /// Index of an interface by zone; 0 for none.
    pub interfaces: [u32; 256],
}

/// Cgroup patterns of a generation, for cgroups that are made while it is in force.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Patterns {
    /// How many there are; 0 when the policy has more than fit.
    pub count: u32,
    /// Length of each, bytes.
    pub lens: [u32; CGROUPS_WATCHED_MAX],
    /// Their texts; pattern `i` has number `i + 1`.
    pub texts: [[u8; CGROUP_PATTERN_MAX]; CGROUPS_WATCHED_MAX],
}

impl Default for Patterns {
    fn default() -> Self {
        Self {
            count: 0,
            lens: [0; CGROUPS_WATCHED_MAX],
            texts: [[0; CGROUP_PATTERN_MAX]; CGROUPS_WATCHED_MAX],
        }
    }
}

/// Slot of the open hash of interfaces where the search for one starts.
#[inline(always)]
#[must_use]
pub const fn interface_slot(ifindex: u32) -> u32 {
    ifindex & (INTERFACES_MAX as u32 - 1)
}

/// Packets and bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Counter {
    /// Packets; a super-packet counts as one.
    pub packets: u64,
    /// Bytes with headers.
    pub bytes: u64,
}

/// Counters by reason come first, [`reason::COUNT`] for each of four hooks; then two for each
/// rule: decided, would have decided.
pub const COUNTERS_REASONS: u32 = 4 * reason::COUNT as u32;

/// Counter of a reason at a hook.
#[inline(always)]
#[must_use]
pub const fn reason_counter(hook: u8, reason: u8) -> u32 {
    (hook as u32 & 3) * reason::COUNT as u32 + (reason as u32 & (reason::COUNT as u32 - 1))
}

/// Counter of a rule; the next one counts what the rule would have decided.
#[inline(always)]
#[must_use]
pub const fn rule_counter(rule: u32) -> u32 {
    COUNTERS_REASONS.wrapping_add(rule.wrapping_mul(2))
}

/// A generation in one of the two buffers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Generation {
    /// Its number; 0 when the buffer holds none.
    pub number: u64,
    /// Unix time of publication, nanoseconds.
    pub published_ns: u64,
    /// Words of the image.
    pub words: u32,
    /// Rules of the image.
    pub rules: u32,
    /// SHA-256 of the image.
    pub digest: [u8; 32],
    /// First slot in which it is good, counted from the Unix epoch.
    pub not_before_slot: u64,
    /// First slot in which it is no longer good; all bits set for no end.
    pub not_after_slot: u64,
}

/// What all hooks of an instance read first: one record, mapped by the loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Control {
    /// Generation in force, `number << 1 | buffer`; 0 for none. The one word that an apply
    /// flips.
    pub active: u64,
    /// What to add to the kernel's TAI clock to get Unix time, nanoseconds.
    pub tai_offset_ns: i64,
    /// Slots before this one cannot be now: the last apply was later.
    pub slot_floor: u64,
    /// Events that one CPU may publish in a second.
    pub event_rate: u32,
    /// Set of [`control_flag`].
    pub flags: u32,
    /// What the buffers hold.
    pub generations: [Generation; 2],
    /// The value of `active` of which it is known that no packet is decided by an earlier one any
    /// more: only then may the idle buffer be filled.
    pub settled: u64,
}

/// Flags of [`Control`].
pub mod control_flag {
    /// Report permitted packets too, as if every rule said `log`.
    pub const REPORT_PERMITS: u32 = 1;
    /// Compute every MAC and walk for every packet: for tests and measurements.
    pub const NO_MEMO: u32 = 2;
}

impl Control {
    /// No generation in force.
    pub const EMPTY: Self = Self {
        active: 0,
        tai_offset_ns: 0,
        slot_floor: 0,
        event_rate: EVENT_RATE_DEFAULT,
        flags: 0,
        generations: [Generation {
            number: 0,
            published_ns: 0,
            words: 0,
            rules: 0,
            digest: [0; 32],
            not_before_slot: 0,
            not_after_slot: 0,
        }; 2],
        settled: 0,
    };
}

/// What a packet's headers say: working memory of the enforcement point. It lives in a map and
/// not on the stack because the kernel's verifier tracks what it knows about stack slots, and
/// then looks at everything behind the parser once for each way through the parser.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Packet {
    /// The flow, as the MAC covers it.
    pub flow: crate::mac::Flow,
    /// MAC of the label.
    pub mac: u64,
    /// IP version: 4 or 6.
    pub version: u8,
    /// How the packet carries a label, one of [`labelled`]; 0 when it carries none.
    pub labelled: u8,
    /// 1 for a TCP SYN, with or without ACK.
    pub syn: u8,
    /// ICMP type.
    pub icmp_type: u8,
    /// ICMP code.
    pub icmp_code: u8,
    /// 1 for a TCP RST.
    pub reset: u8,
    /// For an ICMP error whose quote was read, one of [`quote`]; 0 otherwise.
    pub error: u8,
    /// 1 for a bare ICMP error that quotes a label with the right MAC.
    pub vouched: u8,
    /// 1 for a TCP FIN.
    pub fin: u8,
    /// Length of the TCP header, words of 32 bits.
    pub tcp_words: u8,
    /// A set of [`crate::attribute::shape`].
    pub shape: u8,
    /// 1 for a TCP SYN without ACK: its sequence number, the flow's opener, may be 0.
    pub opens: u8,
    /// 1 for bare neighbour discovery to an address that routers pass packets on to.
    pub neighbour: u8,
    /// Zero.
    pub pad: [u8; 3],
    /// The flow that an ICMP error quotes; its destination port is type and code of a quoted echo.
    pub quoted: crate::mac::Flow,
}

/// How a packet carries its label.
pub mod labelled {
    /// In an IPv4 option or an IPv6 destination option.
    pub const OPTION: u8 = 1;
    /// In front of the packet, in a tunnel.
    pub const TUNNEL: u8 = 2;
}

/// What an ICMP error quotes.
pub mod quote {
    /// A packet without a label.
    pub const BARE: u8 = 1;
    /// A packet with one.
    pub const LABELLED: u8 = 2;
    /// A packet with one, in a tunnel.
    pub const TUNNEL: u8 = 3;
}

/// What one CPU keeps between packets, and its working memory while it handles one.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct CpuState {
    /// The kernel's tick count when the coarse clock was last read.
    pub tick: u64,
    /// What it said, nanoseconds; good for all of that tick.
    pub coarse_ns: u64,
    /// Coarse clock when the offset was last taken, nanoseconds.
    pub synced_ns: u64,
    /// Unix time minus coarse clock then.
    pub offset_ns: i64,
    /// Unix time at which the slot below began, nanoseconds.
    pub slot_began_ns: u64,
    /// The slot of the last packet.
    pub slot: u64,
    /// Coarse clock of the last refill of the event budget.
    pub refilled_ns: u64,
    /// Events that may still be published.
    pub event_budget: u64,
    /// Events that may be published besides, of each of [`EVENT_SHARES`] kinds.
    pub event_share: u64,
    /// Events published.
    pub events_delivered: u64,
    /// Events lost because the ring was full.
    pub events_lost_full: u64,
    /// Events lost to the rate limit.
    pub events_lost_rate: u64,
    /// Coarse clock of the last refill of the budget for answers.
    pub answers_refilled_ns: u64,
    /// Answers that may still be given.
    pub answer_budget: u64,
    /// Answers that were not given because there was no budget.
    pub answers_withheld: u64,
    /// Where the leaving packet under decision comes from, as [`crate::memory::stamped_origin`] gives it.
    pub origin: u64,
    /// What its socket has declared; 0 for nothing.
    pub declared: u64,
    /// What [`crate::memory::Arrivals`] had for its flow before the flow table was asked.
    pub arrival: u64,
    /// Flows that have come in.
    pub arrived: u64,
    /// How many of [`Self::event_share`] were, by kind.
    pub event_shares: [u32; EVENT_SHARES],
    /// How the packet under decision passes this node.
    pub way: Way,
    /// The request under decision.
    pub request: Request,
    /// The label under decision.
    pub label: Label,
    /// Class numbers of the walk.
    pub classes: crate::walk::Classes,
    /// The flow entry to be written.
    pub flow: FlowState,
    /// The packet under decision.
    pub packet: Packet,
    /// What becomes of the label where it is translated.
    pub translated: Label,
    /// First bytes of a packet whose headers are not where they usually are.
    pub headers: [u8; HEADERS_LEN],
    /// What the kernel is asked about a route, and its answer: `struct bpf_fib_lookup`.
    pub route: [u64; 8],
    /// A verdict on the packet under decision that is remembered.
    pub verdict: [u64; 2],
    /// What is known of the label under decision.
    pub checked: Checked,
}

/// What is known of a label before its MAC is.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Checked {
    /// Its slot, counted from the Unix epoch.
    pub slot: u64,
    /// [`crate::key::fingerprint`] of the key that it is to be verified with.
    pub key: u32,
    /// Slots that it is good for after its own.
    pub life: u16,
    /// Entry of that key in [`crate::key::KeyTable::entries`].
    pub key_index: u16,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 40);
    assert!(size_of::<FlowState>() == 24 + 24 + 112);
    assert!(size_of::<Interface>() == 16);
    assert!(size_of::<Generation>() == 72);
    assert!(size_of::<Control>() == 32 + 144 + 8);
    assert!(size_of::<Packet>() == 120);
    assert!(
        size_of::<CpuState>()
            == 168
                + 4 * EVENT_SHARES
                + 112
                + 24
                + 160
                + 128
                + 120
                + 24
                + HEADERS_LEN
                + 64
                + 16
                + 16
    );
};
