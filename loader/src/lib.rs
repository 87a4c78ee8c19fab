//! The kernel side of govc in user space: loads the enforcement point, publishes policies,
//! attaches hooks, reads counters and events. It never reads policy source.
//!
//! Everything that enforcement needs is pinned under `<bpffs>/govc/v3/<instance>/`; no process
//! has to live for packets to be decided.

pub mod attach;
pub mod authority;
pub mod cgroup;
pub mod clock;
pub mod confirm;
mod counts;
mod datagrams;
pub mod error;
pub mod events;
pub mod instance;
pub mod kernel;
pub mod keyring;
pub mod link;
pub mod mapped;
pub mod netdev;
pub mod object;
pub mod publish;
mod ring;
pub mod run;
pub mod set;
pub mod status;

pub use error::LoadError;
