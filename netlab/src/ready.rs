//! Waiting until the kernel, which works in the background, lets a new link pass packets.

use std::thread::sleep;
use std::time::Duration;
use std::{fs, io};

use rtnetlink::packet_route::link::{LinkAttribute, State};

use crate::socket::{Deadline, timed_out};
use crate::{LabError, Namespace};

/// The limit for a new link or address to be of use; it normally takes a few milliseconds.
const READY_TIMEOUT: Duration = Duration::from_secs(5);

const PAUSE: Duration = Duration::from_millis(1);

impl Namespace {
    /// Waits until the device has carrier and a queue that takes packets.
    pub(crate) fn wait_for_link(&self, device: &str) -> Result<(), LabError> {
        let deadline = Deadline::after(READY_TIMEOUT);
        while !self.link_is_up(device)? {
            if deadline.passed() {
                return Err(self.not_ready(device, timed_out()));
            }
            sleep(PAUSE);
        }
        Ok(())
    }

    /// Waits until the IPv6 addresses of the device, if it is up, can be used by others.
    ///
    /// Right after an address is added, the host does not yet listen to the solicitations of
    /// neighbours, who would repeat them only after a second. A link-local address, with which a
    /// router solicits, is not yet valid either.
    pub(crate) fn wait_for_ipv6(&self, device: &str) -> Result<(), LabError> {
        if !self.link_is_up(device)? {
            return Ok(());
        }
        let deadline = Deadline::after(READY_TIMEOUT);
        let wait = || {
            while !ipv6_is_ready(device)? {
                if deadline.passed() {
                    return Err(timed_out());
                }
                sleep(PAUSE);
            }
            Ok(())
        };
        self.try_run(wait)?.map_err(|error| self.not_ready(device, error))
    }

    fn link_is_up(&self, device: &str) -> Result<bool, LabError> {
        Ok(self.link(device)?.attributes.contains(&LinkAttribute::OperState(State::Up)))
    }

    fn not_ready(&self, device: &str, error: io::Error) -> LabError {
        LabError::io(format!("make {device} ready in namespace {:?}", self.name()), error)
    }
}

fn ipv6_is_ready(device: &str) -> io::Result<bool> {
    let read = |table: &str| match fs::read_to_string(format!("/proc/thread-self/net/{table}")) {
        // A kernel without IPv6 has no such table.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        result => result,
    };
    Ok(all_ready(device, &read("if_inet6")?, &read("igmp6")?))
}

/// Whether all addresses of the device are valid and their solicited-node groups joined.
fn all_ready(device: &str, addresses: &str, groups: &str) -> bool {
    let joined = |suffix: &str| {
        let group = format!("ff0200000000000000000001ff{suffix}");
        groups.lines().any(|line| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next() == Some(device) && fields.next() == Some(group.as_str())
        })
    };
    addresses.lines().all(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let [address, _index, _len, _scope, flags, name] = fields.as_slice() else { return true };
        let flags = u32::from_str_radix(flags, 16).unwrap_or(0);
        let tentative = flags & (libc::IFA_F_TENTATIVE | libc::IFA_F_DADFAILED);
        *name != device
            || tentative != libc::IFA_F_TENTATIVE && joined(address.get(26..).unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "fe80000000000000742d63fffe6eef1f 02 40 20 80     eth0\n";
    const TENTATIVE: &str = "fe80000000000000742d63fffe6eef1f 02 40 20 c0     eth0\n";
    const JOINED: &str = "2    eth0            ff0200000000000000000001ff6eef1f     1 00000004 0\n";

    #[test]
    fn an_address_needs_its_group_and_validity() {
        assert!(all_ready("eth0", VALID, JOINED));
        assert!(!all_ready("eth0", VALID, ""));
        assert!(!all_ready("eth0", VALID, &JOINED.replace("eth0", "eth1")));
        assert!(!all_ready("eth0", TENTATIVE, JOINED));
        assert!(all_ready("eth1", TENTATIVE, ""));
        assert!(all_ready("eth0", "", ""));
    }
}
