//! Keys and values of the maps. All `repr(C)`, integers only, padding explicit and zero, sizes asserted.
//!
//! What holds an address is generic over its family, and each family has maps of its own: an IPv4 packet never pays
//! for the length of an IPv6 address. Flows and port cells are in [`flow`](crate::flow) and [`cell`](crate::cell).
//!
//! A value has one writing side, named at each type; where both sides account, each has words of its own. Words of
//! eight bytes are the unit of what a reader sees whole: what must change together stands in one word.

use crate::{Address, Be16, Be32, Be128, ports::PortRanges};

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

/// Connections of a (service, backend) pair, of a server or of a service.
/// Live = opened − closed − closed by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Connections that won a record. Written by the kernel.
    pub opened: u64,
    /// Connections whose end the kernel saw. Written by the kernel.
    pub closed: u64,
    /// Connections that the agent ended (expiry). Written by the agent.
    pub closed_by_agent: u64,
    /// Live connections at most; 0: no limit. Written by the agent.
    pub limit: u64,
}

impl Account {
    /// Connections alive. The words are read one after the other, so the difference may be behind by what happens
    /// meanwhile; it is never negative for long, and zero then.
    #[inline(always)]
    pub const fn live(&self) -> u64 {
        let live = self.opened.wrapping_sub(self.closed).wrapping_sub(self.closed_by_agent);
        if live > u64::MAX / 2 { 0 } else { live }
    }

    /// Whether it has a limit that leaves no room.
    #[inline(always)]
    pub const fn is_full(&self) -> bool {
        self.limit != 0 && self.live() >= self.limit
    }
}

/// Row of a server's account: connections over all services that use it.
#[inline(always)]
pub const fn server_account(server: u16) -> u32 {
    crate::MAX_BACKENDS + server as u32
}

/// Row of a service's account.
#[inline(always)]
pub const fn service_account(service: u16) -> u32 {
    2 * crate::MAX_BACKENDS + service as u32
}

/// Rows of the map of accounts.
pub const ACCOUNTS: u32 = 2 * crate::MAX_BACKENDS + crate::MAX_SERVICES;

/// Packets and bytes (of IP) of a (service, backend) pair, per CPU. Written by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets from clients.
    pub packets_in: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Packets to clients.
    pub packets_out: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}

/// How packets leave an interface ([`Interface::exit`]).
pub mod exit {
    /// `bpf_redirect`, also back out of the interface they came in by: right on veth and in generic mode.
    pub const REDIRECT: u8 = 0;
    /// `XDP_TX` where they came in by the same interface: cheaper on physical drivers.
    pub const TX: u8 = 1;
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

/// Key of the parts of a fragmented packet (RFC 791, 3.2; RFC 8200, 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FragmentKey<A> {
    /// Source address.
    pub source: A,
    /// Destination address.
    pub destination: A,
    /// The packet's identification, as it stands in memory.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u32,
}

/// The way of a fragmented packet's later parts: that of its first. Written by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fragment<A> {
    /// Next hop.
    pub hop: Hop,
    /// New source address.
    pub source: A,
    /// New destination address.
    pub destination: A,
    /// When the first part came, in [`Ticks`](crate::Ticks).
    pub seen: u32,
    /// The (service, backend) pair.
    pub backend: u16,
    /// The service.
    pub service: u16,
    /// Largest IP packet that fits on the way; 0: not known.
    pub mtu: u16,
    /// One of [`mode`].
    pub mode: u8,
    /// 1: from the backend to the client.
    pub outward: u8,
    /// Zero.
    pub pad: u32,
}

/// Key of a source address's token bucket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct BucketKey<A> {
    /// The client's address.
    pub client: A,
    /// The service.
    pub service: u32,
}

/// How much the checksums of an interface's ingress are worth ([`ProgramConfig::checksums`]).
pub mod checksums {
    /// Complete: a physical NIC. Updated incrementally, whatever they are.
    pub const COMPLETE: u8 = 0;
    /// A local sender may have left them to hardware, and the note of it is lost (native XDP on veth, tap, virtio):
    /// one that equals the pseudo-header's sum is made whole.
    pub const MAKE_WHOLE: u8 = 1;
    /// The same, but the packet stays an skb that still knows (generic XDP): one that equals the pseudo-header's
    /// sum stays partial.
    pub const KEEP_PARTIAL: u8 = 2;
}

/// What a loaded program does beside balancing ([`ProgramConfig::purpose`]).
pub mod purpose {
    /// Nothing.
    pub const SERVE: u8 = 0;
    /// It shows packets to the agent, in and out.
    pub const CAPTURE: u8 = 1;
    /// It answers what would become of a packet: it reads the tables and writes nothing.
    pub const TRACE: u8 = 2;
}

/// Constants of one loaded program, one per interface; the verifier prunes by them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramConfig {
    /// Key of the hashes, unknown to attackers.
    pub seed: u64,
    /// Source ports for `snat`.
    pub ports: PortRanges,
    /// Buckets of the flow tables of IPv4 and IPv6, powers of two, each less one.
    pub bucket_masks: [u32; 2],
    /// Id of the interface that the program is attached to.
    pub interface: u16,
    /// One of [`checksums`].
    pub checksums: u8,
    /// 1: packets may be longer than any MTU, for they were joined before they came here (generic XDP).
    pub joined: u8,
    /// One of [`purpose`].
    pub purpose: u8,
    /// Zero.
    pub pad: [u8; 3],
}

/// What must agree before a new agent adopts the pinned maps of an older one. Written by the agent that made them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Key of the hashes.
    pub seed: u64,
    /// Source ports: places in the blocks of cells.
    pub ports: PortRanges,
    /// Buckets of the flow tables of IPv4 and IPv6; each a power of two.
    pub buckets: [u32; 2],
    /// Blocks of port cells of IPv4 and IPv6; at least one each.
    pub blocks: [u32; 2],
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

impl<A: Address> EndpointKey<A> {
    /// Who answers to a source address of ours.
    #[inline(always)]
    pub const fn of(address: A, source: A, port: Be16, protocol: u8) -> Self {
        Self { address, source, port, protocol, pad: 0 }
    }
}
