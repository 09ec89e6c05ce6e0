//! What the kernel's half is to do: the whole of it, each time. `publish` finds the differences.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::Ticks;

use crate::listen::Listen;

/// Everything that is wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    /// All services.
    pub services: Vec<DesiredService>,
    /// Addresses whose ICMP echo requests are answered here.
    pub echo: Vec<IpAddr>,
    /// How long the agent may be silent before it counts as lost.
    pub agent_lost_after: Duration,
}

impl Desired {
    /// Whom it names: (service, its backends).
    pub fn watched(&self) -> Vec<(Listen, Vec<SocketAddr>)> {
        let services = self.services.iter();
        services
            .map(|service| (service.listen, service.backends.iter().map(|backend| backend.address).collect()))
            .collect()
    }
}

/// A service as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredService {
    /// Where clients connect to.
    pub listen: Listen,
    /// One of `abi::mode`.
    pub mode: u8,
    /// One of `abi::algorithm`.
    pub algorithm: u8,
    /// Connections are looked up only while a ring is changing ("settled slots"); needs a ring algorithm, not `snat`.
    pub on_change: bool,
    /// One of `abi::no_backend`.
    pub no_backend: u8,
    /// How long SYNs are held back while nobody can serve.
    pub hold: Duration,
    /// New connections go to the host while the agent is lost; not with `on_change`.
    pub pass_lost: bool,
    /// Time-outs of its connections.
    pub timeouts: Timeouts,
    /// Connections at most; `None`: no limit.
    pub max_connections: Option<u32>,
    /// New connections per source address; `None`: no limit.
    pub rate: Option<Rate>,
    /// Its backends.
    pub backends: Vec<DesiredBackend>,
}

/// A token bucket for each source address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// New connections a second for good; at least 1.
    pub per_second: u32,
    /// New connections at once after a rest; at least 1.
    pub burst: u32,
}

/// How long a silent connection is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP after its handshake.
    pub established: Ticks,
    /// TCP before it, and UDP without a reply.
    pub embryonic: Ticks,
    /// TCP after one side's FIN.
    pub closing: Ticks,
    /// UDP.
    pub udp: Ticks,
}

/// A backend as it is to be.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredBackend {
    /// Where it listens; port 0: the port that the client connected to.
    pub address: SocketAddr,
    /// Effective weight in steps of 1/1024 of a configured one; 0: no new connections.
    pub weight: u32,
    /// What becomes of the connections it has.
    pub fate: Fate,
    /// Connections at most, over all services that share this server's address and port; `None`: no limit.
    pub max_connections: Option<u32>,
    /// Its next hop; `None`: not known.
    pub way: Option<Way>,
}

/// What becomes of a backend's existing connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// They go on.
    #[default]
    Keep,
    /// They end with a RST to both sides: at their next packet, and silent ones by a challenge. The backend stays known,
    /// with its id and counters.
    Cut,
}

impl DesiredBackend {
    /// Whether it takes new connections.
    pub const fn is_open(&self) -> bool {
        self.weight > 0 && self.way.is_some() && matches!(self.fate, Fate::Keep)
    }
}

/// How a backend is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// MAC of the next hop.
    pub mac: [u8; 6],
    /// Index of the interface.
    pub interface: u32,
    /// That interface's MAC.
    pub interface_mac: [u8; 6],
    /// The largest IP packet that fits on the way; 0: not known.
    pub mtu: u16,
    /// One of `abi::exit`.
    pub exit: u8,
    /// The addresses that the backend may see (`snat`: source; `ipip`: the first is the outer source). At least one.
    pub sources: Vec<IpAddr>,
}
