//! Pinned links, beyond what aya offers: where one is attached, and detaching it at once.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use aya_obj::generated::bpf_attach_type;

/// Commands of bpf(2), from the kernel's `enum bpf_cmd`.
const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const PROG_ATTACH: libc::c_long = 8;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const LINK_DETACH: libc::c_long = 34;

/// The attributes of the commands above: layouts that fit into 24 bytes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    words: [u64; 3],
}

/// The beginning of `struct bpf_link_info` for links to interfaces.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    ifindex: u32,
    rest: [u32; 11],
}

fn bpf(command: libc::c_long, attributes: &mut Attributes) -> io::Result<libc::c_long> {
    // SAFETY: pointer and length describe `attributes`; pointers inside it live through the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<Attributes>(),
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Attaches a program to a cgroup for as long as that exists, beside those of others; no process and
/// no pin has to hold it.
///
/// # Errors
/// What bpf(2) says.
pub fn attach_to_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: bpf_attach_type,
) -> io::Result<()> {
    const ALLOW_MULTI: u32 = 2;
    let (program, cgroup) = (program.as_raw_fd() as u32, cgroup.as_raw_fd() as u32);
    let words = [halves(cgroup, program), halves(attach_type as u32, ALLOW_MULTI), 0];
    bpf(PROG_ATTACH, &mut Attributes { words }).map(drop)
}

/// Low and high half of a word of attributes.
fn halves(low: u32, high: u32) -> u64 {
    let [a, b, c, d] = low.to_ne_bytes();
    let [e, f, g, h] = high.to_ne_bytes();
    u64::from_ne_bytes([a, b, c, d, e, f, g, h])
}

/// A pinned link.
pub struct Link(OwnedFd);

impl Link {
    /// Opens a pin.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut attributes = Attributes { words: [path.as_ptr() as u64, 0, 0] };
        let fd = bpf(OBJ_GET, &mut attributes)?;
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }))
    }

    /// Attaches a program to a cgroup and all below, beside those of others.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn to_cgroup(
        program: BorrowedFd<'_>,
        cgroup: BorrowedFd<'_>,
        attach_type: bpf_attach_type,
    ) -> io::Result<Self> {
        let (program, cgroup) = (program.as_raw_fd() as u32, cgroup.as_raw_fd() as u32);
        let words = [halves(program, cgroup), halves(attach_type as u32, 0), 0];
        let fd = bpf(LINK_CREATE, &mut Attributes { words })?;
        // SAFETY: a new descriptor that nobody else owns.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) }))
    }

    /// Pins it.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn pin(&self, path: &Path) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let words = [path.as_ptr() as u64, halves(self.fd(), 0), 0];
        bpf(OBJ_PIN, &mut Attributes { words }).map(drop)
    }

    /// The interface that it holds a program at; 0 when that has gone.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn ifindex(&self) -> io::Result<u32> {
        let mut info = LinkInfo::default();
        let words = [
            halves(self.fd(), size_of::<LinkInfo>() as u32),
            std::ptr::from_mut(&mut info) as u64,
            0,
        ];
        bpf(OBJ_GET_INFO_BY_FD, &mut Attributes { words })?;
        Ok(info.ifindex)
    }

    /// Takes the program off its hook at once, whoever else has this link open.
    ///
    /// # Errors
    /// What bpf(2) says.
    pub fn detach(&self) -> io::Result<()> {
        bpf(LINK_DETACH, &mut Attributes { words: [halves(self.fd(), 0), 0, 0] }).map(drop)
    }

    fn fd(&self) -> u32 {
        self.0.as_raw_fd() as u32
    }
}
