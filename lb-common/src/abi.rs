//! Keys and values of the maps. All `repr(C)`, integers only, padding explicit and zero, sizes asserted.
//!
//! A value has one writing side, named at each type; where both sides account, each has words of its own. Words of
//! eight bytes are the unit of what a reader sees whole: what must change together stands in one word.

use crate::{Be16, Be32, Ticks, ports::PortRanges};

/// TCP's number in the IPv4 header (RFC 9293).
pub const TCP: u8 = 6;

/// UDP's number in an IP header (RFC 768).
pub const UDP: u8 = 17;

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
}

/// Key of the map of services: where clients connect to.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// The service's address.
    pub address: Be32,
    /// The service's port.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// How a service chooses a backend ([`Service::algorithm`]).
pub mod algorithm {
    /// The better of two random candidates by (live + 1) / weight.
    pub const LEAST_LOAD: u8 = 0;
    /// The ring, slot by slot.
    pub const ROUND_ROBIN: u8 = 1;
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

/// A service. Written by the agent, one update for the whole; read by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its id: row of its counters, part of the flow keys. From 1.
    pub id: u32,
    /// First slot of its ring.
    pub ring_offset: u32,
    /// Slots of its ring; 0: nobody can serve.
    pub ring_length: u32,
    /// Since when nobody can serve, in [`Ticks`].
    pub empty_since: u32,
    /// How long a SYN is held back after that, in [`Ticks`].
    pub hold: u32,
    /// One of [`algorithm`].
    pub algorithm: u8,
    /// One of [`no_backend`].
    pub no_backend: u8,
    /// Zero: room for modes and tracking.
    pub pad: [u8; 2],
}

/// What a backend takes ([`Backend::state`]).
pub mod backend_state {
    /// No such backend (any more): its flows get a RST.
    pub const ABSENT: u8 = 0;
    /// New connections and old ones.
    pub const ACTIVE: u8 = 1;
    /// Old connections only: draining, or down by its probes.
    pub const CLOSED_TO_NEW: u8 = 2;
}

/// One (service, backend) pair. Written by the agent; read by the kernel.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Its address.
    pub address: Be32,
    /// Its port.
    pub port: Be16,
    /// One of [`backend_state`].
    pub state: u8,
    /// One of [`no_backend`]: its service's policy, for SYNs that the backend itself refuses.
    pub no_backend: u8,
    /// Its next hop.
    pub hop: Hop,
    /// The service's address: the source of what the client is answered.
    pub service_address: Be32,
    /// The service's id.
    pub service: u32,
    /// The source address that the backend sees (`snat`).
    pub source: Be32,
    /// First of its endpoint's port cells.
    pub cells: u32,
    /// Effective weight in steps of 1/1024 of a configured one.
    pub weight: u32,
    /// Zero.
    pub pad2: u32,
}

/// Connections of a (service, backend) pair. Live = opened − closed − closed by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// Connections that won a port. Written by the kernel.
    pub opened: u64,
    /// Connections whose end the kernel saw. Written by the kernel.
    pub closed: u64,
    /// Connections that the agent ended (expiry). Written by the agent.
    pub closed_by_agent: u64,
    /// Zero.
    pub pad: u64,
}

impl Account {
    /// Connections alive. The words are read one after the other, so the difference may be behind by what happens
    /// meanwhile; it is never negative for long, and zero then.
    #[inline(always)]
    pub const fn live(&self) -> u64 {
        let live = self.opened.wrapping_sub(self.closed).wrapping_sub(self.closed_by_agent);
        if live > u64::MAX / 2 { 0 } else { live }
    }
}

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
    /// One of [`exit`].
    pub exit: u8,
    /// Zero.
    pub pad: [u8; 5],
}

/// Key of the map of endpoints: who answers, and to which of our addresses.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndpointKey {
    /// The backend's address.
    pub address: Be32,
    /// Our source address.
    pub source: Be32,
    /// The backend's port.
    pub port: Be16,
    /// IP protocol number.
    pub protocol: u8,
    /// Zero.
    pub pad: u8,
}

/// A (backend address, source address) pair, shared by all services that use it. Written by the agent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// First of its port cells; there is one for each port of [`PortRanges`].
    pub cells: u32,
    /// Zero.
    pub pad: u32,
}

/// Key of a flow: a client's tuple as the client sees it, the service by id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// The client's address.
    pub client: Be32,
    /// The client's port.
    pub client_port: Be16,
    /// The port that the client connected to.
    pub service_port: Be16,
    /// The service's id.
    pub service: u32,
    /// Zero.
    pub pad: u32,
}

/// Marks of a flow ([`Flow::marks`]).
pub mod mark {
    /// The client has acknowledged the server's sequence number.
    pub const PROVEN: u16 = 1;
    /// The client has sent a FIN or a RST.
    pub const CLOSING: u16 = 2;
}

/// The way of a client's packets. Written by the kernel; removed by whoever moves its port cell on.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Id of the (service, backend) pair.
    pub backend: u32,
    /// Its port cell.
    pub cell: u32,
    /// The source address towards the backend.
    pub source: Be32,
    /// The source port towards the backend.
    pub source_port: Be16,
    /// Of [`mark`].
    pub marks: u16,
    /// When the client last sent something, in [`Ticks`].
    pub seen: u32,
    /// The client's address. An element of the kernel's hash map may be given to another key between the look-up and
    /// the copy; one that is not the client's own is not used.
    pub client: Be32,
    /// The client's port.
    pub client_port: Be16,
    /// Zero: room for a VLAN tag.
    pub pad: [u16; 3],
}

impl Flow {
    /// When the client last sent something.
    #[inline(always)]
    pub const fn seen(&self) -> Ticks {
        Ticks::from_raw(self.seen)
    }
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

/// Constants of one loaded program, one per interface; the verifier prunes by them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProgramConfig {
    /// Key of the hashes, unknown to attackers.
    pub seed: u64,
    /// Source ports for `snat`.
    pub ports: PortRanges,
    /// Id of the interface that the program is attached to.
    pub interface: u16,
    /// One of [`checksums`].
    pub checksums: u8,
    /// Zero.
    pub pad: [u8; 5],
}

/// What must agree before a new agent adopts the pinned maps of an older one. Written by the agent that made them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// Key of the hashes.
    pub seed: u64,
    /// Source ports: places in the blocks of cells.
    pub ports: PortRanges,
    /// Capacity of the flow table.
    pub flows: u32,
    /// Blocks of port cells.
    pub blocks: u32,
}

const _: () = {
    assert!(size_of::<Hop>() == 8);
    assert!(size_of::<ServiceKey>() == 8 && size_of::<Service>() == 24);
    assert!(size_of::<Backend>() == 40 && size_of::<Account>() == 32 && size_of::<Traffic>() == 32);
    assert!(size_of::<Interface>() == 16);
    assert!(size_of::<EndpointKey>() == 12 && size_of::<Endpoint>() == 8);
    // An element of the kernel's hash map is 48 bytes + key + value (each a multiple of 8), and 16 for its bucket.
    assert!(48 + size_of::<FlowKey>() + size_of::<Flow>() + 16 <= 128);
    assert!(size_of::<FlowKey>() == 16 && size_of::<Flow>() == 32);
    assert!(size_of::<ProgramConfig>() == 24 && size_of::<Layout>() == 24);
};
