//! Non-blocking sockets with a deadline, for traffic and captures.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::socket_error;

/// Room for the largest packet of the stack, a GSO packet of 64 KiB, and its headers.
pub(crate) const LARGEST_FRAME: usize = 70_000;

/// The moment at which waiting ends.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(timeout: Duration) -> Self {
        /// Stands for all timeouts that the clock cannot hold.
        const LONGEST: Duration = Duration::from_secs(24 * 3600);
        Self(Instant::now() + timeout.min(LONGEST))
    }

    pub(crate) fn passed(self) -> bool {
        self.left().is_zero()
    }

    fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }
}

/// The error of every wait that reaches its deadline.
pub(crate) fn timed_out() -> io::Error {
    io::ErrorKind::TimedOut.into()
}

/// Repeats `bind` while its address is in use, ten seconds at most.
///
/// A socket that was closed keeps its address for as long as a child of the process that has just
/// been forked still has its copy, until the child runs its program.
///
/// # Errors
///
/// Those of `bind`.
pub fn when_free<T>(mut bind: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Deadline::after(Duration::from_secs(10));
    loop {
        match bind() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && !deadline.passed() => {
                thread::sleep(Duration::from_millis(5));
            }
            result => return result,
        }
    }
}

/// Repeats a non-blocking `operation` on `fd` until it succeeds, fails or the deadline passes.
///
/// Between the attempts it waits for `events` on `fd`. An error on `other`, the far end of the
/// same exchange, ends the wait too and is returned.
pub(crate) fn retry<T>(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    other: Option<BorrowedFd<'_>>,
    deadline: Deadline,
    mut operation: impl FnMut() -> Result<T, Errno>,
) -> io::Result<T> {
    while !deadline.passed() {
        match operation() {
            Err(Errno::AGAIN) => wait(fd, events, other, deadline)?,
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
    Err(timed_out())
}

/// Waits for `events` or an error on `fd`; an error on `other` is returned.
pub(crate) fn wait(
    fd: BorrowedFd<'_>,
    events: PollFlags,
    other: Option<BorrowedFd<'_>>,
    deadline: Deadline,
) -> io::Result<()> {
    let mut polled = vec![PollFd::from_borrowed_fd(fd, events)];
    polled.extend(other.map(|other| PollFd::from_borrowed_fd(other, PollFlags::empty())));
    loop {
        let left = Timespec::try_from(deadline.left()).map_err(io::Error::other)?;
        match poll(&mut polled, Some(&left)) {
            Ok(0) => return Err(timed_out()),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match (other, polled.get(1)) {
        (Some(other), Some(poll)) if poll.revents().contains(PollFlags::ERR) => {
            socket_error(other)??;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Makes a socket send and receive by one device only.
///
/// # Errors
///
/// There is no such device, or the kernel denies it.
pub fn bind_to_device(fd: BorrowedFd<'_>, device: &str) -> io::Result<()> {
    let (name, len) = (device.as_ptr().cast(), device.len() as libc::socklen_t);
    // SAFETY: pointer and length describe `device`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name, len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Sets a socket option whose value is an `int` and that rustix does not know.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointer and the length describe `value`, which lives through the call.
    let result =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), len) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Reads a socket option whose value is an `int` and that rustix does not know.
pub(crate) fn get_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the pointers lead to `value` and its length, which live through the call.
    let result = unsafe {
        libc::getsockopt(fd.as_raw_fd(), level, option, (&raw mut value).cast(), &raw mut len)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}
