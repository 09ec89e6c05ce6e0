//! Keys and values of the maps. All `repr(C)`, integers only, padding explicit and zero, sizes asserted.
//!
//! What holds an address is generic over its family, and each family has maps of its own: an IPv4 packet never pays
//! for the length of an IPv6 address. Flows and port cells are in [`flow`](crate::flow) and [`cell`](crate::cell).
//!
//! A value has one writing side, named at each type; where both sides account, each has words of its own. Words of
//! eight bytes are the unit of what a reader sees whole: what must change together stands in one word.

mod account;
mod backend;
mod passing;
mod program;
mod service;

use crate::{Be32, Be128};

pub use account::{ACCOUNTS, Account, Traffic, server_account, service_account};
pub use backend::{Backend, ENDPOINT_SERVICES, Endpoint, EndpointKey, backend_state};
pub use passing::{BucketKey, Fragment, FragmentKey};
pub use program::{Layout, ProgramConfig, STATIONS, Stations, checksums, purpose};
pub use service::{
    RANGES, Ranges, RangesKey, Service, ServiceKey, algorithm, mode, no_backend, service_flag,
};

/// TCP's number in an IP header (RFC 9293).
pub const TCP: u8 = 6;

/// UDP's number in an IP header (RFC 768).
pub const UDP: u8 = 17;

/// ICMP's number in an IPv4 header (RFC 792).
pub const ICMP: u8 = 1;

/// ICMPv6's number in an IPv6 header (RFC 4443).
pub const ICMPV6: u8 = 58;

/// Where a packet goes next: one word, so that a reader never sees half of a new next hop.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// MAC address of the next hop; all zero: not resolved.
    pub mac: [u8; 6],
    /// Id of the interface to leave by, in the map of interfaces.
    pub interface: u16,
}

impl Hop {
    /// Whether the next hop's MAC address is known.
    #[inline(always)]
    pub const fn is_resolved(&self) -> bool {
        self.interface != 0
    }

    /// As one number, for packing only.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        let [a, b, c, d, e, f] = self.mac;
        let [g, h] = self.interface.to_ne_bytes();
        u64::from_ne_bytes([a, b, c, d, e, f, g, h])
    }

    /// From that number.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = word.to_ne_bytes();
        Self { mac: [a, b, c, d, e, f], interface: u16::from_ne_bytes([g, h]) }
    }
}

/// How packets leave an interface ([`Interface::exit`]).
pub mod exit {
    /// `bpf_redirect`, also back out of the interface they came in by: right on veth and in generic mode.
    pub const REDIRECT: u8 = 0;
    /// `XDP_TX` where they came in by the same interface: cheaper on physical drivers.
    pub const TX: u8 = 1;
    /// As skbs, by the kernel's stack: where nobody vouches that a redirected frame is taken, as by a veth without NAPI at
    /// its peer, or by a bridge, whose driver has no XDP at all.
    pub const STACK: u8 = 2;
    /// [`TX`] where they came in by the same interface, [`STACK`] from any other: a generic program's.
    pub const TX_OR_STACK: u8 = 3;
}

/// What an XDP program writes before a packet (`data_meta`) that it has rewritten and passes to the kernel, for the
/// classifier behind it to send out: see [`exit::STACK`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Onward {
    /// Half of the instance's seed: nobody else's metadata is taken for ours.
    pub key: u32,
    /// Index of the interface to leave by.
    pub interface: u32,
}

impl Onward {
    /// To leave by an interface, in words of the instance with this seed.
    pub const fn by(interface: u32, seed: u64) -> Self {
        Self { key: (seed >> 32) as u32, interface }
    }
}

/// An interface that packets leave by. Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its index; 0: no such interface.
    pub index: u32,
    /// Its own MAC address, the source of what leaves by it.
    pub mac: [u8; 6],
    /// Largest IP packet that leaves by it; 0: not known.
    pub mtu: u16,
    /// One of [`exit`].
    pub exit: u8,
    /// Zero.
    pub pad: [u8; 3],
}

const _: () = {
    assert!(size_of::<Hop>() == 8 && size_of::<Service>() == 40);
    assert!(size_of::<ServiceKey<Be32>>() == 8 && size_of::<ServiceKey<Be128>>() == 20);
    assert!(size_of::<RangesKey<Be32>>() == 8 && size_of::<RangesKey<Be128>>() == 20);
    assert!(size_of::<Backend<Be32>>() == 40 && size_of::<Backend<Be128>>() == 64);
    assert!(size_of::<Account>() == 32 && size_of::<Traffic>() == 32 && size_of::<Interface>() == 16);
    assert!(size_of::<EndpointKey<Be32>>() == 12 && size_of::<EndpointKey<Be128>>() == 36);
    assert!(size_of::<Endpoint>() == 20 && size_of::<Ranges>() == 32);
    assert!(size_of::<FragmentKey<Be32>>() == 16 && size_of::<FragmentKey<Be128>>() == 40);
    assert!(size_of::<Fragment<Be32>>() == 32 && size_of::<Fragment<Be128>>() == 56);
    assert!(size_of::<BucketKey<Be32>>() == 8 && size_of::<BucketKey<Be128>>() == 20);
    assert!(size_of::<ProgramConfig>() == 32 && size_of::<Layout>() == 32);
};
