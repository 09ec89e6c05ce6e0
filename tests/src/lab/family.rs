//! IPv4 and IPv6, for tests that do everything twice.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A family of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// One after the other.
    pub const BOTH: [Self; 2] = [Self::V4, Self::V6];

    /// The lab's address itself, or the one beside it.
    pub const fn of(self, address: Ipv4Addr) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(address),
            Self::V6 => IpAddr::V6(beside(address)),
        }
    }

    /// The family of an address.
    pub const fn among(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The length of the IP header without options.
    pub const fn header(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The IPv6 address that goes with a lab's IPv4 address, with the same digits: 10.77.0.21 and
/// `fd00:77::21`, 10.78.1.2 and `fd00:78::1:2`.
pub const fn beside(address: Ipv4Addr) -> Ipv6Addr {
    let [_, b, c, d] = address.octets();
    Ipv6Addr::new(0xfd00, same_digits(b), 0, 0, 0, 0, same_digits(c), same_digits(d))
}

/// The number whose hexadecimal digits are the decimal ones of `byte`.
const fn same_digits(byte: u8) -> u16 {
    let byte = byte as u16;
    ((byte / 100) << 8) | ((byte / 10 % 10) << 4) | (byte % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_beside_another_has_the_same_digits() {
        for (four, six) in
            [("10.77.0.21", "fd00:77::21"), ("10.78.1.2", "fd00:78::1:2"), ("10.255.0.100", "fd00:255::100")]
        {
            assert_eq!(beside(four.parse().unwrap()), six.parse::<Ipv6Addr>().unwrap(), "{four}");
        }
    }
}
