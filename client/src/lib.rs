//! Declares what a socket does: the name of an operation, one of those that the node's policy
//! grants to the sender. Packets that the socket sends from then on carry it in their labels. It
//! takes no privileges, and nothing but a socket option.
//!
//! ```no_run
//! use std::{net::TcpStream, os::fd::AsRawFd as _};
//!
//! let socket = TcpStream::connect("ledger.example:5432")?;
//! govc_client::declare(socket.as_raw_fd(), "ledger.export")?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To have the first packet labelled too, declare between `socket` and `connect`. Requests that
//! share a connection share its operation.
#![no_std]

use core::ffi::c_int;

use govc_abi::declare::{NAME_MAX, OPERATION, SOL_GOVC};
use thiserror::Error;

/// Why a socket could not declare its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DeclareError {
    /// No enforcement point listens on this host, or none that knows of operations.
    #[error("no enforcement point of govc listens to sockets on this host")]
    Unheard,
    /// The name is longer than 64 bytes.
    #[error("the operation's name is longer than {NAME_MAX} bytes")]
    TooLong,
    /// The kernel says no, with this error number.
    #[error("the kernel refuses: error {0}")]
    Refused(c_int),
}

/// Declares that `socket`, a file descriptor, is for `operation`, such as `ledger.read`. An empty
/// name withdraws what was declared. What the policy does not grant is noticed when a packet
/// leaves: it is dropped for the reason `operation_ungranted`.
///
/// # Errors
/// See [`DeclareError`].
pub fn declare(socket: c_int, operation: &str) -> Result<(), DeclareError> {
    if operation.len() > NAME_MAX {
        return Err(DeclareError::TooLong);
    }
    // SAFETY: pointer and length describe `operation`; the kernel only reads it.
    let done = unsafe {
        let (name, len) = (operation.as_ptr().cast(), operation.len() as libc::socklen_t);
        libc::setsockopt(socket, SOL_GOVC, OPERATION, name, len)
    };
    if done == 0 {
        return Ok(());
    }
    // SAFETY: the location is this thread's own.
    match unsafe { *libc::__errno_location() } {
        libc::ENOPROTOOPT | libc::EOPNOTSUPP => Err(DeclareError::Unheard),
        errno => Err(DeclareError::Refused(errno)),
    }
}
