//! Flows that outlive policies.

use std::net::{SocketAddr, UdpSocket};

use govc_netlab::Namespace;

use crate::node::{address, drain, receive, udp_socket};

/// Two sockets of one flow, which has been used in both directions.
pub struct Live {
    /// Of the flow's sender.
    pub near: UdpSocket,
    /// Of whoever answers.
    pub far: UdpSocket,
    to: SocketAddr,
}

impl Live {
    /// A flow from address 2 of a network to a port of address 2 of another; it goes on.
    pub fn begin(
        (from, near): (&Namespace, u8),
        (at, far): (&Namespace, u8),
        port: u16,
        v6: bool,
    ) -> Self {
        Self::between((from, near, 2), (at, far, 2), port, v6)
    }

    /// Likewise between other addresses: the number of the network, and of the host in it.
    pub fn between(
        (from, net, host): (&Namespace, u8, u8),
        (at, far_net, far_host): (&Namespace, u8, u8),
        port: u16,
        v6: bool,
    ) -> Self {
        let near = udp_socket(from, address(net, host, v6), 0);
        let far = udp_socket(at, address(far_net, far_host, v6), port);
        let live = Self { to: far.local_addr().expect("address"), near, far };
        live.goes_on();
        live
    }

    /// Sends in the flow's own direction.
    pub fn send(&self) {
        self.near.send_to(b"there", self.to).expect("sent");
    }

    /// Answers, as far as the sender's host is asked.
    pub fn answer(&self) {
        let near = self.near.local_addr().expect("address");
        self.far.send_to(b"and back", near).expect("sent");
    }

    /// Both directions pass.
    pub fn goes_on(&self) {
        self.send();
        assert_eq!(receive(&self.far, 1).len(), 1, "there");
        self.is_answered();
    }

    /// An answer passes to which the sender has said nothing.
    pub fn is_answered(&self) {
        self.answer();
        assert_eq!(receive(&self.near, 1).len(), 1, "and back");
    }

    /// Nothing has come at either end.
    pub fn is_silent(&self) {
        assert!(drain(&self.near).is_empty() && drain(&self.far).is_empty());
    }
}
