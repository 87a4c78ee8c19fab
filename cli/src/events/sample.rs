//! An event for tests to vary.

use govc_abi::{event::Event, label::Label, node::LEAF_NONE};

/// A datagram that no rule permits, without a label.
pub fn event() -> Event {
    Event {
        time_ns: 0,
        generation: 1,
        rule: LEAF_NONE,
        pending: LEAF_NONE,
        ifindex: 1,
        len: 100,
        reason: 0,
        verdict: 2,
        hook: 0,
        flags: 0,
        protocol: 17,
        from_zone: 0,
        icmp: 0,
        source_port: 1,
        destination_port: 1,
        object: 0,
        source: [0, 1],
        destination: [0, 1],
        label: Label::default(),
        cgroup_low: 0,
        cgroup_high: 0,
        to_zone: 0,
        pad: 0,
    }
}
