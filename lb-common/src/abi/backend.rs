//! Backends, and who answers for them.

#[cfg(doc)]
use crate::ports::PortRanges;
use crate::{Address, Be16};

use super::Hop;

/// What a backend takes ([`Backend::state`]).
pub mod backend_state {
    /// No such backend (any more): its flows get a RST.
    pub const ABSENT: u8 = 0;
    /// New connections and old ones.
    pub const ACTIVE: u8 = 1;
    /// Old connections only: draining, or down by its probes.
    pub const CLOSED_TO_NEW: u8 = 2;
    /// Its connections end: each packet of theirs is answered with a RST.
    pub const CUT: u8 = 3;
}

/// One (service, backend) pair. Written by the agent; read by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend<A> {
    /// Its next hop.
    pub hop: Hop,
    /// Its address.
    pub address: A,
    /// The service's address: the source of what the client is answered.
    pub service_address: A,
    /// Effective weight in steps of 1/1024 of a configured one.
    pub weight: u32,
    /// First of its port cells (`snat`): a block for each of its sources, one after the other.
    pub cells: u32,
    /// Its port; 0: the one that the client connected to.
    pub port: Be16,
    /// The service's id.
    pub service: u16,
    /// First of the source addresses that it sees, in the map of sources.
    pub source: u16,
    /// How many sources it sees; at least 1.
    pub sources: u16,
    /// The server that it is, over all services: see [`server_account`]; 0: nobody counts it.
    pub server: u16,
    /// Largest IP packet that fits on the way to it; 0: not known.
    pub mtu: u16,
    /// One of [`backend_state`].
    pub state: u8,
    /// One of [`mode`]: its service's.
    pub mode: u8,
    /// One of [`no_backend`]: its service's policy, for SYNs that the backend itself refuses.
    pub no_backend: u8,
    /// Its protocol's number.
    pub protocol: u8,
}

/// Key of the map of endpoints: who answers, and to which of our addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointKey<A> {
    /// The backend's address.
    pub address: A,
    /// Our source address (`snat`), or all zero: it answers to the clients themselves (`dnat`).
    pub source: A,
    /// The backend's port; 0: any, where the client's port is kept.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// Services that one endpoint may have in `dnat`.
pub const ENDPOINT_SERVICES: usize = 4;

/// Who is behind a backend's answers, shared by all services that use it. Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// First of its port cells (`snat`); there is one for each port of [`PortRanges`].
    pub cells: u32,
    /// Services (ids) that its answers may belong to (`dnat`); 0: none.
    pub services: [u16; ENDPOINT_SERVICES],
    /// The port that clients of each connect to; 0: the endpoint's own.
    pub ports: [Be16; ENDPOINT_SERVICES],
}

impl<A: Address> EndpointKey<A> {
    /// Who answers to a source address of ours.
    #[inline(always)]
    pub const fn of(address: A, source: A, port: Be16, protocol: u8) -> Self {
        Self { address, source, port, protocol, pad: 0 }
    }
}
