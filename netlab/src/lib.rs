//! A laboratory of network namespaces: links between them, and traffic through those links.
//!
//! It calls no outside program; everything goes through netlink, ioctls and sockets. Namespaces
//! have no name in the file system: a [`Namespace`] is an open file, so all of a laboratory
//! disappears with the process that built it, however that process ends.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use govc_netlab::{DontFragment, Flow, LabError, Namespace, require_root, veth};
//!
//! fn main() -> Result<(), LabError> {
//!     require_root()?;
//!     let client = Namespace::create("client")?;
//!     let server = Namespace::create("server")?;
//!     veth(&client, "eth0", &server, "eth0", None)?;
//!     client.add_address("eth0", "10.0.0.1/24".parse()?)?;
//!     server.add_address("eth0", "10.0.0.2/24".parse()?)?;
//!
//!     let bind = ([10, 0, 0, 2], 7).into();
//!     let flow = Flow::new(&server, bind, &client, Duration::from_secs(1));
//!     println!("{}", flow.udp_exchange(1472, DontFragment::Do)?);
//!     println!("{}", flow.tcp_exchange()?);
//!     Ok(())
//! }
//! ```
//!
//! The interface is synchronous. Every wait has a limit: traffic takes a timeout from the caller,
//! and the requests to the kernel give up after a few seconds.

mod capabilities;
mod error;
mod link;
mod namespace;
mod offload;
mod packet;
mod prefix;
mod ready;
mod socket;
mod traffic;

pub use capabilities::require_root;
pub use error::LabError;
pub use link::{LinkStats, macvlan, veth};
pub use namespace::Namespace;
pub use offload::Offloads;
pub use packet::{Frame, PacketSocket, PacketType};
pub use prefix::IpPrefix;
pub use socket::{bind_to_device, when_free};
pub use traffic::{DontFragment, Flow, Outcome, TcpEnds, TcpReport, checksum, ping, udp_send_gso};
