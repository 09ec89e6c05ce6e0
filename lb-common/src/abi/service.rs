//! Services: where clients connect to, and what is done with them.

#[cfg(doc)]
use super::{Backend, ICMP, ICMPV6};
use crate::Be16;

/// Key of the map of services: where clients connect to. Written by the agent.
///
/// The key of a range of ports holds the range's first port and 1 in `range`. The key (address, 0, [`ICMP`] or
/// [`ICMPV6`]) stands for an address whose echo requests are answered here, (address, 0, 0) for one that any service has.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceKey<A> {
    /// The service's address.
    pub address: A,
    /// The service's port, or the first of its range.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// 1 for a service that names a range.
    pub range: u8,
}

/// Key of the ranges of an address: what is asked where no service names the port itself.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct RangesKey<A> {
    /// The address.
    pub address: A,
    /// IP protocol number.
    pub protocol: u32,
}

/// Ranges of ports that services of one address name, narrow ones first. Written by the agent, one update for all.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    /// First and last port (host order) of each; first > last: none.
    pub ranges: [[u16; 2]; RANGES],
}

/// Ranges that one address and protocol may have.
pub const RANGES: usize = 8;

/// How a service rewrites packets ([`Service::mode`], [`Backend::mode`]).
pub mod mode {
    /// Source and destination; replies come back to a port of ours.
    pub const SNAT: u8 = 0;
    /// Destination only; the backend's route to its clients leads through us.
    pub const DNAT: u8 = 1;
    /// MAC addresses only; replies go straight to the client.
    pub const DSR: u8 = 2;
    /// 4-in-4 or 6-in-6; replies go straight to the client.
    pub const IPIP: u8 = 3;

    /// Whether replies go past the balancer.
    #[inline(always)]
    pub const fn is_one_sided(mode: u8) -> bool {
        mode >= DSR
    }
}

/// How a service chooses a backend ([`Service::algorithm`]).
pub mod algorithm {
    /// The better of two random candidates by (live + 1) / weight.
    pub const LEAST_LOAD: u8 = 0;
    /// The ring, slot by slot.
    pub const ROUND_ROBIN: u8 = 1;
    /// The lowest (live + 1) / weight: of all in a small pool, of two random candidates in a large one.
    pub const LEAST_CONN: u8 = 2;
    /// The ring, by a hash of client address, client port and service port.
    pub const MAGLEV: u8 = 3;
    /// The ring, by a hash of the client's address.
    pub const SOURCE_HASH: u8 = 4;
}

/// What a SYN gets while nobody can serve ([`Service::no_backend`]).
pub mod no_backend {
    /// A RST.
    pub const RESET: u8 = 0;
    /// Silence for the first `hold` ticks, then a RST.
    pub const HOLD: u8 = 1;
    /// Silence.
    pub const DROP: u8 = 2;
}

/// Marks of a service ([`Service::flags`]).
pub mod service_flag {
    /// Its ring's slots know their former owners, and only packets of unsettled slots are looked up or recorded.
    pub const ON_CHANGE: u8 = 1;
    /// New connections per source address are limited.
    pub const RATE: u8 = 2;
    /// While the agent is lost, the host gets what is new; in `snat` it always gets TCP segments without a flow.
    pub const PASS_LOST: u8 = 4;
}

/// A service. Written by the agent, one update for the whole; read by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Seed of the hash that finds a client's slot: the same on every balancer of the same configuration.
    pub ring_seed: u64,
    /// First slot of its ring.
    pub ring_offset: u32,
    /// Slots of its ring; 0: nobody can serve.
    pub ring_length: u32,
    /// Since when nobody can serve, in [`Ticks`](crate::Ticks).
    pub empty_since: u32,
    /// How long a SYN is held back after that, in [`Ticks`](crate::Ticks).
    pub hold: u32,
    /// Its id: row of its counters, part of the flow keys. From 1.
    pub id: u16,
    /// Backends in the list behind its ring's last slot.
    pub members: u16,
    /// One of [`algorithm`].
    pub algorithm: u8,
    /// One of [`no_backend`].
    pub no_backend: u8,
    /// One of [`mode`].
    pub mode: u8,
    /// Of [`service_flag`].
    pub flags: u8,
    /// New connections per second and source address.
    pub rate: u32,
    /// New connections at once of a source address that has rested.
    pub burst: u32,
}
