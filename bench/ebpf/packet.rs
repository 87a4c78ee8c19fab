//! Reading a labelled IPv4 packet, as directly as it can be done.

use govc_abi::{
    label::{IHL_LABELLED, Label, PREFIX_V4},
    mac::{Flow, v4_mapped},
};

/// Ethernet, IPv4 with a label, ports.
pub const LEN: usize = 14 + 52 + 4;
const ETHERTYPE_V4: u16 = 0x0800_u16.to_be();

/// What the headers say.
#[derive(Clone, Copy)]
pub struct Labelled {
    /// The label.
    pub label: Label,
    /// The flow that it is bound to.
    pub flow: Flow,
    /// Its MAC.
    pub mac: u64,
}

#[inline(always)]
unsafe fn load<T: Copy>(at: usize) -> T {
    // SAFETY: the caller has compared `at` with the end of the packet.
    unsafe { core::ptr::read_unaligned(at as *const T) }
}

/// Parses the packet between `data` and `end`.
#[inline(always)]
pub fn parse(data: usize, end: usize) -> Option<Labelled> {
    if data + LEN > end {
        return None;
    }
    // SAFETY: 70 bytes are there.
    unsafe {
        let ethertype: u16 = load(data + 12);
        let first: u8 = load(data + 14);
        let prefix: u32 = load(data + 34);
        if ethertype != ETHERTYPE_V4
            || first != 0x40 | IHL_LABELLED
            || prefix != u32::from_ne_bytes(PREFIX_V4)
        {
            return None;
        }
        Some(Labelled {
            label: Label::from_wire_words(load(data + 38), load(data + 46), load(data + 54)),
            flow: Flow {
                source: v4_mapped(load(data + 26)),
                destination: v4_mapped(load(data + 30)),
                source_port: load(data + 66),
                destination_port: load(data + 68),
                opener: 0,
                protocol: load(data + 23),
                pad: [0; 7],
            },
            mac: load(data + 58),
        })
    }
}
