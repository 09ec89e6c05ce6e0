//! Where clients connect to: an address, one or more of its ports, a protocol.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// A protocol that services speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its number in an IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => lb_common::abi::TCP,
            Self::Udp => lb_common::abi::UDP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Ports of one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ports {
    /// One port.
    One(u16),
    /// From the first to the last, both included; first < last.
    Range(u16, u16),
    /// All ports, 1 to 65535, that no other service of the address names.
    All,
}

impl Ports {
    /// The lowest and the highest port.
    pub const fn ends(self) -> (u16, u16) {
        match self {
            Self::One(port) => (port, port),
            Self::Range(first, last) => (first, last),
            Self::All => (1, u16::MAX),
        }
    }
}

/// The address of a service: what identifies it in the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Listen {
    /// The address.
    pub address: IpAddr,
    /// Its ports.
    pub ports: Ports,
    /// The protocol.
    pub protocol: Protocol,
}

impl Listen {
    /// One TCP port.
    pub const fn tcp(address: SocketAddr) -> Self {
        Self { address: address.ip(), ports: Ports::One(address.port()), protocol: Protocol::Tcp }
    }

    /// Whether a packet to `port` is for it, unless another service names the port more exactly.
    pub const fn contains(&self, port: u16) -> bool {
        let (first, last) = self.ports.ends();
        first <= port && port <= last
    }
}

/// As it is typed: `203.0.113.10:80/tcp`, `[2001:db8::10]:8000-8099/udp`, `203.0.113.10:*/tcp`.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            IpAddr::V4(address) => write!(f, "{address}:")?,
            IpAddr::V6(address) => write!(f, "[{address}]:")?,
        }
        match self.ports {
            Ports::One(port) => write!(f, "{port}")?,
            Ports::Range(first, last) => write!(f, "{first}-{last}")?,
            Ports::All => f.write_str("*")?,
        }
        write!(f, "/{}", self.protocol)
    }
}

/// A server's address as it is typed: without a port where that is the client's.
pub fn server(address: SocketAddr) -> String {
    if address.port() == 0 { address.ip().to_string() } else { address.to_string() }
}
