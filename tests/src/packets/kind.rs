//! The two families, from one table: cases name IPv4 addresses, and each has one IPv6 address that stands for it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb_common::{Address, Be32, Be128};

/// An address type of the data path's tables that a case can be run with.
pub trait Kind: Address {
    /// The address that stands for one of a case's.
    fn of(address: Ipv4Addr) -> Self;
    /// As `std` has it.
    fn ip(self) -> IpAddr;
}

impl Kind for Be32 {
    fn of(address: Ipv4Addr) -> Self {
        address.into()
    }

    fn ip(self) -> IpAddr {
        Ipv4Addr::from(self).into()
    }
}

impl Kind for Be128 {
    fn of(address: Ipv4Addr) -> Self {
        ipv6(address).into()
    }

    fn ip(self) -> IpAddr {
        Ipv6Addr::from(self).into()
    }
}

/// The IPv6 address that stands for an IPv4 one: no word of it is like another.
pub fn ipv6(address: Ipv4Addr) -> Ipv6Addr {
    let [a, b, c, d] = address.octets().map(u16::from);
    Ipv6Addr::new(0x2001, 0x0db8, a << 8 | b, 0x8000 | d, 0xff00 ^ a, c << 8 | 0x11, 0x0700 | b, c << 8 | d)
}

/// The address that stands for one of a case's, in a family.
pub fn address(version: u8, address: Ipv4Addr) -> IpAddr {
    if version == 4 { address.into() } else { ipv6(address).into() }
}

/// Its bytes.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
