//! Datagrams that one call sends as a super-packet. A veth hands those to its other end uncut, and
//! what comes out of a tunnel there still says that it is in one: the kernel does not know how to
//! take that back, and the stack loses such packets when it cuts them for a socket. So virtual
//! devices whose zone has tunnels let the kernel cut datagrams before they are sent.

use std::{fs, io, os::fd::AsRawFd as _, path::PathBuf};

use govc_image::Image;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use crate::{
    error::{LoadError, file},
    instance::Place,
    netdev::{self, Netdev},
};

/// The feature, by its name in the kernel.
const FEATURE: &[u8] = b"tx-udp-segmentation";
const GSTRINGS: u32 = 0x1b;
const GFEATURES: u32 = 0x3a;
const SFEATURES: u32 = 0x3b;
const SS_FEATURES: u32 = 4;
const STRING_LEN: usize = 32;
/// More than a kernel has.
const FEATURES_MAX: usize = 256;

/// Makes a device cut datagrams early where a policy wants it, and as it did before where not.
pub(crate) fn adjust(place: &Place, image: &Image, device: &Netdev) -> Result<(), LoadError> {
    let zone = image.names().zone_of(&device.name).unwrap_or(0) as u32;
    if device.kind.is_none() || !image.names().tunnels_from(zone) {
        return restore(place, device);
    }
    let note = note(place, device)?;
    match set(device, false) {
        Ok(false) => {}
        // What another has turned off stays off in the end.
        Ok(true) => fs::create_dir_all(&note).map_err(file("cannot make", &note))?,
        Err(error) => {
            tracing::warn!(interface = device.name, %error, "cannot have datagrams cut early");
        }
    }
    Ok(())
}

/// Undoes [`adjust`].
pub(crate) fn restore(place: &Place, device: &Netdev) -> Result<(), LoadError> {
    let note = note(place, device)?;
    if !note.is_dir() {
        return Ok(());
    }
    if let Err(error) = set(device, true) {
        tracing::warn!(interface = device.name, %error, "cannot undo that datagrams are cut early");
    }
    fs::remove_dir(&note).map_err(file("cannot remove", &note))
}

/// The directory that tells that an apply has changed the device.
fn note(place: &Place, device: &Netdev) -> Result<PathBuf, LoadError> {
    Ok(place.pin(&format!("datagrams-{}-{}", netdev::namespace()?, device.index)))
}

/// Turns the feature on or off; whether that has changed anything.
fn set(device: &Netdev, on: bool) -> io::Result<bool> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    let request = |buffer: &mut [u32]| ioctl(socket.as_raw_fd(), &device.name, buffer);
    let mut strings = command([GSTRINGS, SS_FEATURES], 1 + FEATURES_MAX * STRING_LEN / 4);
    request(&mut strings)?;
    let names: Vec<u8> = strings.iter().skip(3).flat_map(|word| word.to_ne_bytes()).collect();
    let is_it =
        |name: &[u8]| name.strip_prefix(FEATURE).is_some_and(|rest| rest.first() == Some(&0));
    let Some(bit) = names.chunks(STRING_LEN).position(is_it) else { return Ok(false) };
    let mut features = command([GFEATURES, FEATURES_MAX as u32 / 32], 4 * FEATURES_MAX / 32);
    request(&mut features)?;
    let blocks = features.get(1).copied().unwrap_or(0) as usize;
    let (block, mask) = (bit / 32, 1 << (bit % 32));
    let active = features.get(2 + 4 * block + 2).is_some_and(|word| word & mask != 0);
    if active == on || block >= blocks {
        return Ok(false);
    }
    let mut wanted = command([SFEATURES, blocks as u32], 2 * blocks);
    for (at, word) in [(0, mask), (1, if on { mask } else { 0 })] {
        if let Some(place) = wanted.get_mut(2 + 2 * block + at) {
            *place = word;
        }
    }
    request(&mut wanted)?;
    Ok(true)
}

/// The words of a command, and room for so many more.
fn command(begin: [u32; 2], room: usize) -> Vec<u32> {
    begin.into_iter().chain(std::iter::repeat_n(0, room)).collect()
}

/// Runs an ethtool command that reads and writes `buffer`.
fn ioctl(socket: i32, device: &str, buffer: &mut [u32]) -> io::Result<()> {
    let mut name = [0; libc::IFNAMSIZ];
    if device.len() >= name.len() {
        return Err(io::Error::from_raw_os_error(libc::ENODEV));
    }
    for (to, from) in name.iter_mut().zip(device.bytes()) {
        *to = from.cast_signed();
    }
    let mut request = libc::ifreq {
        ifr_name: name,
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_data: buffer.as_mut_ptr().cast() },
    };
    // SAFETY: the request holds a terminated name and points to a live buffer, longer than what the
    // commands used here read and write.
    let result = unsafe { libc::ioctl(socket, libc::SIOCETHTOOL, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
