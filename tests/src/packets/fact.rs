//! What is different from the scene: before the first packet, or between two.

use std::net::SocketAddrV4;

use lb_common::{
    Address, Be16, Ticks,
    abi::{
        self, Backend, ENDPOINT_SERVICES, EndpointKey, Hop, RANGES, Ranges, RangesKey, Service, TCP,
        server_account, service_account, service_flag,
    },
};

use super::{
    connection::{Life, connection, crowd, cut},
    kind::Kind,
    scene::{self, RING, SOURCE, WEB},
    world::{HEARD_FOR, Store, age},
};

/// Something that is different from the scene, or that happens between two packets.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A backend's state, one of `abi::backend_state`.
    State(u16, u8),
    /// What becomes of a SYN that a backend refuses, one of `abi::no_backend`.
    Refusals(u16, u8),
    /// A backend's weight.
    Weight(u16, u32),
    /// A backend speaks UDP, whatever the others do: what stands in the tables of it are conversations.
    SpeaksUdp(u16),
    /// A backend speaks TCP.
    SpeaksTcp(u16),
    /// A backend's next hop is not known.
    Unresolved(u16),
    /// A backend's way takes IP packets of at most this length.
    WayMtu(u16, u16),
    /// A backend keeps the port that the client connected to, and answers from it.
    KeepsPort(u16),
    /// A backend has this address.
    Address(u16, std::net::Ipv4Addr),
    /// [`scene::B`] sees two source addresses, with a block of cells each.
    TwoSources(std::net::Ipv4Addr),
    /// A service's ring, and the list of its backends; an empty one has been empty since now.
    Ring(u16, Vec<u16>),
    /// A service's ring by owners and former owners: only packets of changing slots are recorded.
    Slots(u16, Vec<(u16, u16)>),
    /// A service became empty a tick ahead of the program's clock, which lags behind the agent's.
    EmptyAhead(u16),
    /// A service's algorithm, one of `abi::algorithm`.
    Algorithm(u16, u8),
    /// What a service without backends does, one of `abi::no_backend`.
    NoBackend(u16, u8),
    /// A service's new connections go to the host while the agent is lost.
    PassesLost(u16),
    /// The agent was heard for the last time so long ago that it has counted as lost for so many milliseconds.
    AgentLost(u64),
    /// The agent is heard again.
    AgentBack,
    /// New connections per second and source address, and at once.
    Rate(u16, u32, u32),
    /// Live connections of a server at most, over all services.
    ServerLimit(u16, u64),
    /// Live connections of a service at most.
    ServiceLimit(u16, u64),
    /// [`scene::WEB`] names a range of ports (first, last) instead.
    Range(u16, u16),
    /// [`scene::WEB`]'s address answers echo requests here.
    AnswersEcho,
    /// How packets leave an interface, one of `abi::exit`.
    Exit(u16, u8),
    /// The longest IP packet that leaves by an interface.
    Mtu(u16, u16),
    /// A connection of a client to a backend, at a place of its block where it has a port, with account as its life says.
    Connection {
        /// The client.
        client: SocketAddrV4,
        /// The backend.
        backend: u16,
        /// The place in the block.
        place: u32,
        /// How far it has come.
        life: Life,
        /// Milliseconds since it was last heard of.
        age: u64,
    },
    /// All room of the flow table is taken by strangers' connections to a backend.
    Crowd(u16, Life, u64),
    /// The connection of a client is cut by the agent.
    Cut(SocketAddrV4),
    /// So many connections more on a backend's accounts, none of them in the tables.
    Live(u16, u64),
    /// No token for ICMP errors is left.
    ErrorsSpent,
    /// Milliseconds pass.
    Pass(u64),
}

impl Fact {
    /// Make it so.
    pub fn apply<A: Kind>(&self, world: &mut impl Store<A>) {
        if !(self.of_backend(world) || self.of_service(world)) {
            self.of_world(world);
        }
    }

    fn of_backend<A: Kind>(&self, world: &mut impl Store<A>) -> bool {
        match self {
            Self::State(id, state) => edit_backend(world, *id, |backend| backend.state = *state),
            Self::Refusals(id, policy) => edit_backend(world, *id, |backend| backend.no_backend = *policy),
            Self::Weight(id, weight) => edit_backend(world, *id, |backend| backend.weight = *weight),
            Self::SpeaksUdp(id) => edit_backend(world, *id, |backend| backend.protocol = abi::UDP),
            Self::SpeaksTcp(id) => edit_backend(world, *id, |backend| backend.protocol = TCP),
            Self::Unresolved(id) => edit_backend(world, *id, |backend| backend.hop = Hop::default()),
            Self::WayMtu(id, mtu) => edit_backend(world, *id, |backend| backend.mtu = *mtu),
            Self::Address(id, address) => {
                edit_backend(world, *id, |backend| backend.address = A::of(*address));
            }
            Self::KeepsPort(id) => keep_port(world, *id),
            Self::TwoSources(second) => two_sources(world, *second),
            _ => return false,
        }
        true
    }

    fn of_service<A: Kind>(&self, world: &mut impl Store<A>) -> bool {
        match self {
            Self::Ring(id, ring) => {
                let slots: Vec<u32> = ring.iter().map(|id| u32::from(*id)).collect();
                set_ring(world, *id, &slots, ring, 0);
            }
            Self::Slots(id, slots) => {
                let words: Vec<u32> =
                    slots.iter().map(|(now, once)| u32::from(*once) << 16 | u32::from(*now)).collect();
                let owners: Vec<u16> = slots.iter().map(|(now, _)| *now).collect();
                set_ring(world, *id, &words, &owners, service_flag::ON_CHANGE);
            }
            Self::EmptyAhead(id) => {
                let ahead = world.now().raw() + 1;
                edit_service(world, *id, |service| service.empty_since = ahead);
            }
            Self::Algorithm(id, algorithm) => {
                edit_service(world, *id, |service| service.algorithm = *algorithm);
            }
            Self::NoBackend(id, policy) => edit_service(world, *id, |service| service.no_backend = *policy),
            Self::PassesLost(id) => {
                edit_service(world, *id, |service| service.flags |= service_flag::PASS_LOST);
            }
            Self::Rate(id, rate, burst) => edit_service(world, *id, |service| {
                (service.rate, service.burst) = (*rate, *burst);
                service.flags |= service_flag::RATE;
            }),
            Self::Range(first, last) => set_range(world, *first, *last),
            Self::AnswersEcho => {
                let protocol = if A::VERSION == 4 { abi::ICMP } else { abi::ICMPV6 };
                let key = abi::ServiceKey { protocol, ..scene::balanced_key(*WEB.ip()) };
                world.set_service(key, Service::default());
            }
            _ => return false,
        }
        true
    }

    fn of_world<A: Kind>(&self, world: &mut impl Store<A>) {
        match self {
            Self::ServerLimit(server, limit) => set_limit(world, server_account(*server), *limit),
            Self::ServiceLimit(service, limit) => set_limit(world, service_account(*service), *limit),
            Self::Exit(id, exit) => {
                let interface = world.interface_at(*id);
                world.set_interface(*id, abi::Interface { exit: *exit, ..interface });
            }
            Self::Mtu(id, mtu) => {
                let interface = world.interface_at(*id);
                world.set_interface(*id, abi::Interface { mtu: *mtu, ..interface });
            }
            Self::Connection { client, backend, place, life, age } => {
                connection(world, *client, *backend, *place, *life, Ticks::from_millis(*age));
            }
            Self::Crowd(backend, life, age) => crowd(world, *backend, *life, Ticks::from_millis(*age)),
            Self::Cut(client) => cut(world, *client),
            Self::Live(id, count) => {
                for row in rows_of(*id) {
                    let mut account = world.account_at(row);
                    account.opened += count;
                    world.set_account(row, account);
                }
            }
            Self::AgentLost(millis) => {
                let ended = world.now().raw().wrapping_sub(Ticks::from_millis(*millis).raw());
                world.set_heard_at(Ticks::from_raw(ended));
            }
            Self::AgentBack => world.set_heard_at(world.now().plus(HEARD_FOR)),
            // Filled a little later than now: the kernel's clock goes on, and nothing must come in meanwhile.
            Self::ErrorsSpent => world.set_errors([u64::from(world.now().raw() + 5) << 32; 3]),
            Self::Pass(millis) => age(world, Ticks::from_millis(*millis)),
            _ => unreachable!("{self:?} is handled above"),
        }
    }
}

/// The accounts that a connection of a backend stands on.
pub fn rows_of(backend: u16) -> [u32; 3] {
    let (service, _) = scene::service_of(backend);
    [backend.into(), server_account(scene::server_number(backend)), service_account(service)]
}

fn edit_backend<A: Address>(world: &mut impl Store<A>, id: u16, edit: impl FnOnce(&mut Backend<A>)) {
    let mut backend = world.backend_at(id);
    edit(&mut backend);
    world.set_backend(id, backend);
}

fn edit_service<A: Address>(world: &mut impl Store<A>, id: u16, edit: impl FnOnce(&mut Service)) {
    let found = world.services().into_iter().find(|(_, service)| service.id == id);
    let (key, mut service) = found.expect("the scene has no such service");
    edit(&mut service);
    world.set_service(key, service);
}

fn set_ring<A: Address>(world: &mut impl Store<A>, id: u16, slots: &[u32], owners: &[u16], flag: u8) {
    let mut members: Vec<u32> = owners.iter().map(|id| u32::from(*id)).collect();
    members.sort_unstable();
    members.dedup();
    let offset = u32::from(id) * RING;
    assert!(slots.len() + members.len() <= RING as usize, "the ring reaches into the next one");
    world.set_ring(offset, slots);
    world.set_ring(offset + slots.len() as u32, &members);
    let now = world.now().raw();
    edit_service(world, id, |service| {
        (service.ring_length, service.members) = (slots.len() as u32, members.len() as u16);
        service.flags |= flag;
        if slots.is_empty() {
            service.empty_since = now;
        }
    });
}

fn set_limit(world: &mut impl super::World, row: u32, limit: u64) {
    let account = world.account_at(row);
    world.set_account(row, abi::Account { limit, ..account });
}

fn keep_port<A: Kind>(world: &mut impl Store<A>, id: u16) {
    let mut backend = world.backend_at(id);
    backend.port = Be16::default();
    world.set_backend(id, backend);
    let snat = backend.mode == abi::mode::SNAT;
    let source = if snat { A::of(SOURCE) } else { A::default() };
    let mut endpoint =
        if snat { abi::Endpoint::default() } else { scene::answers(&[(backend.service, WEB)]) };
    endpoint.cells = backend.cells;
    endpoint.ports = [Be16::default(); ENDPOINT_SERVICES];
    let key = EndpointKey::of(backend.address, source, Be16::default(), backend.protocol);
    world.set_endpoint(key, endpoint);
}

fn two_sources<A: Kind>(world: &mut impl Store<A>, second: std::net::Ipv4Addr) {
    let count = world.config().ports.count();
    let backend = world.backend_at(scene::B);
    world.set_backend(scene::B, Backend { sources: 2, ..backend });
    world.set_source(2, A::of(second));
    let key = EndpointKey::of(backend.address, A::of(second), backend.port, backend.protocol);
    let cells = backend.cells + count;
    world.set_endpoint(key, abi::Endpoint { cells, ..abi::Endpoint::default() });
}

fn set_range<A: Kind>(world: &mut impl Store<A>, first: u16, last: u16) {
    let found = world.services().into_iter().find(|(_, service)| service.id == scene::WEB_ID);
    let (key, service) = found.expect("the scene has the service");
    world.remove_service(key);
    world.set_service(abi::ServiceKey { port: Be16::from_host(first), range: 1, ..key }, service);
    // What is not used: the first port of an empty range is greater than its last.
    let mut ranges = [[1, 0]; RANGES];
    ranges[0] = [first, last];
    let protocol = if key.protocol == 0 { TCP } else { key.protocol };
    world.set_ranges(RangesKey { address: key.address, protocol: protocol.into() }, Ranges { ranges });
}
