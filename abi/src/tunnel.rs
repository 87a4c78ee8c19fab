//! The tunnel carriage: a label in front of the packet instead of inside its IP header, for paths
//! that drop options. The packet travels in UDP between its own two addresses, framed as Geneve
//! (RFC 8926) with one option, which holds the label.
//!
//! | bytes | what |
//! | --- | --- |
//! | 20 or 40 | IPv4 header without options, or IPv6 header |
//! | 8 | UDP: source port from the flow, destination port [`PORT`], checksum 0 |
//! | 8 | Geneve: [`HEADER`], with the inner packet's ethertype |
//! | 4 | option: [`OPTION`] |
//! | 28 | the label |
//! | | the packet as it was without a label |

use crate::{label::BODY_LEN, mac::Flow};

/// UDP destination port (RFC 8926).
pub const PORT: u16 = 6081;
/// First of the source ports: the dynamic ones (RFC 6335).
pub const SOURCE_PORT_FIRST: u16 = 49152;

/// Bytes of a UDP header.
pub const UDP_LEN: usize = 8;
/// Bytes of a Geneve header.
pub const GENEVE_LEN: usize = 8;
/// Bytes of an option's own header.
pub const OPTION_LEN: usize = 4;
/// Bytes from the UDP header to the inner packet.
pub const FRAME_LEN: usize = UDP_LEN + GENEVE_LEN + OPTION_LEN + BODY_LEN;
/// Where the label stands behind the start of the UDP header.
pub const BODY_AT: usize = UDP_LEN + GENEVE_LEN + OPTION_LEN;
/// Bytes that the carriage adds to an IPv4 packet.
pub const OVERHEAD_V4: usize = 20 + FRAME_LEN;
/// Bytes that it adds to an IPv6 packet.
pub const OVERHEAD_V6: usize = 40 + FRAME_LEN;

/// The first two bytes of the Geneve header: version 0, 8 words of options, one of them critical.
/// Two bytes with the ethertype of the inner packet follow, and a network identifier and a reserved
/// byte that are zero.
pub const HEADER: [u8; 2] = [0x08, 0x40];
/// The class of the option, one of those for experiments (RFC 8926, section 7).
pub const CLASS: [u8; 2] = [0xff, 0x9e];
/// The option: its class, type 0x1e with the critical bit, which is the number of the IPv4 option, and
/// 7 words of length.
pub const OPTION: [u8; 4] = [CLASS[0], CLASS[1], 0x9e, (BODY_LEN / 4) as u8];

/// Ethertypes, which Geneve has for protocols.
pub const ETHERTYPE_V4: u16 = 0x0800;
/// Likewise.
pub const ETHERTYPE_V6: u16 = 0x86dd;

/// The UDP source port for a flow, so that routers with several ways keep a flow on one of them.
#[inline(always)]
#[must_use]
pub const fn source_port(flow: &Flow) -> u16 {
    // Ends count alike in either direction; the multiplier spreads what differs in few bits.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let ends = flow.source[0] ^ flow.source[1].rotate_left(21);
    let other = flow.destination[0] ^ flow.destination[1].rotate_left(21);
    let ports = (flow.source_port ^ flow.destination_port) as u64;
    let mixed = (ends ^ other ^ ports ^ (flow.protocol as u64) << 48).wrapping_mul(SPREAD);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(SPREAD);
    SOURCE_PORT_FIRST | (mixed >> 50) as u16
}

/// The ECN bits of a packet that comes out of a tunnel, from those of its own header and of the
/// tunnel's (RFC 6040, figure 4); [`None`] for one that has to be dropped.
#[inline(always)]
#[must_use]
pub const fn ecn(inner: u8, outer: u8) -> Option<u8> {
    const ECT_0: u8 = 2;
    const ECT_1: u8 = 1;
    const CE: u8 = 3;
    match (inner & CE, outer & CE) {
        (0, CE) => None,
        (_, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        (inner, _) => Some(inner),
    }
}

const _: () = assert!(OVERHEAD_V4 == 68 && OVERHEAD_V6 == 88 && BODY_AT == 20);
const _: () = assert!(HEADER[0] as usize * 4 == OPTION_LEN + BODY_LEN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn source_ports_are_dynamic_ones_and_spread() {
        let mut seen = [false; 1 << 14];
        for port in 0..4096_u16 {
            let flow = Flow {
                source: [0, 0x0100_000a_ffff_0000],
                destination: [0, 0x0200_000a_ffff_0000],
                source_port: port.to_be(),
                destination_port: 443_u16.to_be(),
                protocol: 6,
                ..Flow::default()
            };
            let chosen = source_port(&flow);
            assert!(chosen >= SOURCE_PORT_FIRST);
            assert_eq!(chosen, source_port(&flow));
            if let Some(place) = seen.get_mut(usize::from(chosen - SOURCE_PORT_FIRST)) {
                *place = true;
            }
        }
        // By chance 3,624 of 4,096 are different ones.
        let different = seen.iter().filter(|seen| **seen).count();
        assert!(different > 3_300, "{different}");
    }

    #[test]
    fn congestion_is_never_lost_on_the_way() {
        assert_eq!(ecn(0, 3), None);
        assert_eq!([ecn(1, 3), ecn(2, 3), ecn(3, 3)], [Some(3); 3]);
        assert_eq!([ecn(3, 0), ecn(3, 1), ecn(3, 2)], [Some(3); 3]);
        assert_eq!([ecn(0, 0), ecn(0, 1), ecn(0, 2)], [Some(0); 3]);
        assert_eq!([ecn(2, 0), ecn(2, 1), ecn(2, 2)], [Some(2), Some(1), Some(2)]);
        assert_eq!([ecn(1, 0), ecn(1, 1), ecn(1, 2)], [Some(1); 3]);
    }
}
