//! The attributes of a request: what decisions are made of.

/// Number of an attribute: an index into [`Request::scalars`] and a bit of attribute masks.
pub type Attribute = u8;

/// Whether the packet is labelled; see [`state`].
pub const STATE: Attribute = 0;
/// Domain index and subject number: [`scope_key`].
pub const SUBJECT: Attribute = 1;
/// Trust level.
pub const LEVEL: Attribute = 2;
/// Radius.
pub const RADIUS: Attribute = 3;
/// Compartment bitmap.
pub const COMPARTMENTS: Attribute = 4;
/// Constraint bitmap.
pub const CONSTRAINTS: Attribute = 5;
/// Operation number.
pub const OPERATION: Attribute = 6;
/// Residency index.
pub const RESIDENCY: Attribute = 7;
/// Route class index.
pub const ROUTE: Attribute = 8;
/// Domain index and number of the local workload that the packet is for.
pub const OBJECT: Attribute = 9;
/// IP protocol number.
pub const PROTOCOL: Attribute = 10;
/// Source port, 0 for protocols without.
pub const SOURCE_PORT: Attribute = 11;
/// Destination port, 0 for protocols without.
pub const DESTINATION_PORT: Attribute = 12;
/// ICMP type and code, `type << 8 | code`; 0 for other protocols.
pub const ICMP: Attribute = 13;
/// Zone of the interface that the packet came in by; 0 for none.
pub const INGRESS_ZONE: Attribute = 14;
/// Zone of the interface that the packet leaves by; 0 for none.
pub const EGRESS_ZONE: Attribute = 15;
/// Number of the cgroup pattern that the sending socket's cgroup matches; 0 for none.
pub const CGROUP: Attribute = 16;
/// Whether the packet is more than one header and what it carries: a set of [`shape`].
pub const SHAPE: Attribute = 17;
/// How many of the moments in [`crate::image::AT_TIMES`] are past.
pub const TIME: Attribute = 18;
/// Source address, 128 bits, IPv4 mapped.
pub const SOURCE: Attribute = 19;
/// Destination address, 128 bits, IPv4 mapped.
pub const DESTINATION: Attribute = 20;
/// How many there are.
pub const COUNT: usize = 21;

/// The [`INGRESS_ZONE`] of what leaves after it came in by an interface that the instance enforces on and that
/// lies in no zone: it is not what the node sends itself, and no zone has this number.
pub const ZONE_UNNAMED: u32 = 255;
const _: () = assert!(crate::limits::ZONES_MAX < ZONE_UNNAMED as usize);

/// Width in bits, by attribute.
pub const BITS: [u8; COUNT] =
    [8, 32, 8, 8, 16, 16, 16, 8, 8, 32, 8, 16, 16, 16, 8, 8, 16, 8, 8, 128, 128];

/// Their names in dumps, by attribute.
pub const NAMES: [&str; COUNT] = [
    "state",
    "subject",
    "level",
    "radius",
    "compartments",
    "constraints",
    "operation",
    "residency",
    "route",
    "object",
    "protocol",
    "source_port",
    "destination_port",
    "icmp",
    "ingress_zone",
    "egress_zone",
    "cgroup",
    "shape",
    "time",
    "source",
    "destination",
];

/// Values of [`STATE`]. Labels that are wrong in any way never become a request.
pub mod state {
    /// No label, and no legacy rule speaks for the sender.
    pub const ABSENT: u32 = 0;
    /// No label; the other label attributes come from a legacy rule.
    pub const LEGACY: u32 = 1;
    /// A label whose MAC is right.
    pub const VALID: u32 = 2;
}

/// Bits of [`SHAPE`]. Packets with any of them are refused unread where no rule speaks of such.
pub mod shape {
    /// Neither of the others.
    pub const WHOLE: u32 = 0;
    /// A fragment: it shows no ports.
    pub const FRAGMENT: u32 = 1;
    /// It has IPv4 options or IPv6 extension headers other than a label and a fragment header.
    pub const OPTIONS: u32 = 2;
    /// All of them.
    pub const ALL: u32 = FRAGMENT | OPTIONS;
}

/// Value of [`SUBJECT`] and [`OBJECT`] that names nobody.
pub const SCOPE_NONE: u32 = 0x0fff_ffff;

/// Domain index (4 bits) and subject number (24 bits) in one number, so that a scope is an
/// interval.
#[inline(always)]
#[must_use]
pub const fn scope_key(domain_index: u32, subject: u32) -> u32 {
    (domain_index & 0xf) << 24 | (subject & 0x00ff_ffff)
}

/// What a decision is made about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Request {
    /// Values by attribute, for all that fit 32 bits; the rest of the slots is zero.
    pub scalars: [u32; 20],
    /// Source address as a big-endian number: upper and lower half.
    pub source: [u64; 2],
    /// Destination address likewise.
    pub destination: [u64; 2],
}

impl Request {
    /// A request about nobody and nothing.
    pub const EMPTY: Self = {
        let mut scalars = [0; 20];
        let [_, subject, _, _, _, _, _, _, _, object, ..] = &mut scalars;
        *subject = SCOPE_NONE;
        *object = SCOPE_NONE;
        Self { scalars, source: [0; 2], destination: [0; 2] }
    };
}

const _: () = assert!(size_of::<Request>() == 112);
const _: () = assert!(TIME < 20 && COUNT <= crate::limits::ATTRIBUTES_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_request_is_about_nobody() {
        assert_eq!(Request::EMPTY.scalars[usize::from(SUBJECT)], SCOPE_NONE);
        assert_eq!(Request::EMPTY.scalars[usize::from(OBJECT)], SCOPE_NONE);
        assert_eq!(Request::EMPTY.scalars.iter().filter(|&&value| value != 0).count(), 2);
    }
}
