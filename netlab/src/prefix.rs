//! An address with the length of its network's prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::LabError;

/// An IPv4 or IPv6 address and a prefix length, written `10.0.0.1/24` or `fd00::1/64`.
///
/// It stands for a host's address in its network, or, as the destination of a route, for the
/// network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IpPrefix {
    addr: IpAddr,
    len: u8,
}

impl IpPrefix {
    /// The destination `0.0.0.0/0` of an IPv4 default route.
    pub const DEFAULT_V4: Self = Self { addr: IpAddr::V4(Ipv4Addr::UNSPECIFIED), len: 0 };
    /// The destination `::/0` of an IPv6 default route.
    pub const DEFAULT_V6: Self = Self { addr: IpAddr::V6(Ipv6Addr::UNSPECIFIED), len: 0 };

    /// Pairs an address with a prefix length, at most 32 for IPv4 and 128 for IPv6.
    ///
    /// # Errors
    ///
    /// [`LabError::InvalidPrefix`] when the length is too great.
    pub fn new(addr: IpAddr, len: u8) -> Result<Self, LabError> {
        let longest = if addr.is_ipv4() { 32 } else { 128 };
        if len > longest {
            return Err(LabError::InvalidPrefix { text: format!("{addr}/{len}") });
        }
        Ok(Self { addr, len })
    }

    /// The address, host bits included.
    pub fn addr(self) -> IpAddr {
        self.addr
    }

    /// The prefix length in bits.
    pub fn prefix_len(self) -> u8 {
        self.len
    }

    /// The network's address: the host bits are zero.
    pub fn network(self) -> IpAddr {
        let len = u32::from(self.len);
        match self.addr {
            IpAddr::V4(addr) => {
                let mask = u32::MAX.checked_shl(32 - len).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(addr.to_bits() & mask))
            }
            IpAddr::V6(addr) => {
                let mask = u128::MAX.checked_shl(128 - len).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(addr.to_bits() & mask))
            }
        }
    }
}

impl FromStr for IpPrefix {
    type Err = LabError;

    fn from_str(text: &str) -> Result<Self, LabError> {
        let pair = text
            .split_once('/')
            .and_then(|(addr, len)| Some((addr.parse::<IpAddr>().ok()?, len.parse::<u8>().ok()?)));
        let Some((addr, len)) = pair else {
            return Err(LabError::InvalidPrefix { text: text.to_owned() });
        };
        Self::new(addr, len)
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_its_text() {
        for text in ["10.0.0.1/24", "0.0.0.0/0", "fd00::1/64", "::/0", "1.2.3.4/32"] {
            assert_eq!(text.parse::<IpPrefix>().unwrap().to_string(), text);
        }
        for text in ["10.0.0.1", "10.0.0.1/33", "fd00::/129", "/8", "10.0.0/8", "10.0.0.1/-1"] {
            let error = text.parse::<IpPrefix>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("{text:?} is not")), "{error}");
        }
    }

    #[test]
    fn network_clears_the_host_bits() {
        for (text, network) in [
            ("10.1.2.3/8", "10.0.0.0"),
            ("10.1.2.3/32", "10.1.2.3"),
            ("10.1.2.3/0", "0.0.0.0"),
            ("fd00:1::2/32", "fd00:1::"),
            ("fd00::2/0", "::"),
            ("fd00::2/128", "fd00::2"),
        ] {
            assert_eq!(text.parse::<IpPrefix>().unwrap().network().to_string(), network);
        }
    }
}
