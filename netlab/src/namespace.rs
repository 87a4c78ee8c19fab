//! Network namespaces, and threads that work inside them.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::{fs, io};

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::LabError;

/// A network namespace, kept alive by an open file.
///
/// The namespace ends, and its devices with it, when the last clone is dropped and no thread or
/// socket is left inside; the kernel takes some milliseconds over it. Nothing is mounted, so
/// nothing needs to be cleaned up after a process that was killed.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: Arc<str>,
    fd: Arc<OwnedFd>,
}

impl Namespace {
    /// Makes a new namespace with its loopback up.
    ///
    /// `name` is a label for error messages and threads only. Duplicate address detection is off
    /// for the devices made in it later, so that IPv6 works as soon as an address is there.
    ///
    /// # Errors
    ///
    /// [`LabError::Io`] when the kernel refuses, above all for want of `CAP_SYS_ADMIN`.
    pub fn create(name: &str) -> Result<Self, LabError> {
        let fd = in_thread(name, || {
            // SAFETY: only the network namespace is left; the table of files stays shared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
            namespace_of_thread()
        })
        .map_err(|e| LabError::io(format!("create the network namespace {name:?}"), e))?;
        let namespace = Self { name: name.into(), fd: Arc::new(fd) };
        namespace.set_sysctl("ipv6/conf/all/accept_dad", "0")?;
        namespace.set_sysctl("ipv6/conf/default/accept_dad", "0")?;
        namespace.set_link_up("lo")?;
        Ok(namespace)
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`LabError::Io`] when `/proc` cannot be read.
    pub fn current() -> Result<Self, LabError> {
        let fd = namespace_of_thread()
            .map_err(|e| LabError::io("open the current network namespace", e))?;
        Ok(Self { name: "current".into(), fd: Arc::new(fd) })
    }

    /// The label given at creation.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The open file of the namespace, as `setns` takes it.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Runs `f` on a fresh thread inside the namespace and returns its value.
    ///
    /// Sockets that `f` opens belong to the namespace wherever they are used later; threads and
    /// programs that it starts are inside too. A panic of `f` goes on in the caller.
    ///
    /// # Panics
    ///
    /// When the namespace cannot be entered; [`try_run`](Self::try_run) gives an error instead.
    #[expect(clippy::panic, reason = "a caller that may create namespaces may enter them")]
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
        self.try_run(f).unwrap_or_else(|error| panic!("{error:?}"))
    }

    /// As [`run`](Self::run), but gives an error when the namespace cannot be entered.
    ///
    /// # Errors
    ///
    /// [`LabError::Io`] when the kernel denies the thread or its way in, for want of
    /// `CAP_SYS_ADMIN`.
    pub fn try_run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, LabError> {
        in_thread(&self.name, || {
            move_into_link_name_space(self.fd(), Some(LinkNameSpaceType::Network))?;
            Ok(f())
        })
        .map_err(|e| LabError::io(format!("enter the network namespace {:?}", self.name), e))
    }

    /// Starts a background thread inside the namespace.
    ///
    /// # Panics
    ///
    /// As [`run`](Self::run), and when no thread can be had, as [`thread::spawn`].
    pub fn spawn<T: Send + 'static>(
        &self,
        f: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        // A thread starts in the namespace of the thread that spawns it.
        self.run(|| thread::spawn(f))
    }

    /// Makes the namespace a router: IPv4 and IPv6 packets are forwarded between its devices.
    ///
    /// # Errors
    ///
    /// [`LabError::Io`] when the settings cannot be written.
    pub fn enable_forwarding(&self) -> Result<(), LabError> {
        self.set_sysctl("ipv4/ip_forward", "1")?;
        self.set_sysctl("ipv6/conf/all/forwarding", "1")
    }

    /// Writes a setting below `/proc/sys/net`, which shows each thread its own namespace.
    fn set_sysctl(&self, key: &str, value: &str) -> Result<(), LabError> {
        self.try_run(|| fs::write(format!("/proc/sys/net/{key}"), value))?.map_err(|e| {
            LabError::io(format!("set net/{key} to {value} in namespace {:?}", self.name), e)
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

fn namespace_of_thread() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

fn in_thread<T: Send>(name: &str, f: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, f)?;
        thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}
