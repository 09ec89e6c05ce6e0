//! Who takes part in the cases: addresses, ids, and the tables as they stand before the first packet.

use std::net::{Ipv4Addr, SocketAddrV4};

use lb_common::{
    Be16,
    abi::{
        Backend, Endpoint, EndpointKey, Hop, Interface, ProgramConfig, Service, ServiceKey, Stations, TCP,
        algorithm, backend_state, checksums, exit, mode, no_backend,
    },
    ports::PortRanges,
};

use super::{kind::Kind, world::Store};

/// A client.
pub const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 40_000);
/// Another client.
pub const OTHER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 8), 40_001);
/// A third one.
pub const THIRD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 200), 1_024);
/// A router somewhere, that has something to say about a packet.
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The address that two services share.
pub const WEB: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 80);
/// The second service: its one backend, [`A2`], is the same server as [`A`].
pub const ADMIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 10), 8080);
/// Our address towards the backends.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The server of backends [`A`] and [`A2`].
pub const SERVER_A: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 11), 9000);
/// The server of backend [`B`].
pub const SERVER_B: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 12), 9000);

/// Id of the service at [`WEB`].
pub const WEB_ID: u16 = 1;
/// Id of the service at [`ADMIN`].
pub const ADMIN_ID: u16 = 2;
/// Backend of [`WEB`].
pub const A: u16 = 1;
/// Another backend of [`WEB`]; not in its ring unless a case puts it there.
pub const B: u16 = 2;
/// Backend of [`ADMIN`], on the server of [`A`].
pub const A2: u16 = 3;
/// Ids above this one are never used.
pub const LAST_ID: u16 = 3;
/// Numbers of servers above this one are never used.
pub const LAST_SERVER: u16 = 2;
/// Numbers of sources above this one are never used.
pub const SOURCES: u16 = 3;
/// Slots between the rings of two services.
pub const RING: u32 = 64;

/// MAC address of the router that clients come in by.
pub const ROUTER_MAC: [u8; 6] = [0x02, 0xc1, 0, 0, 0, 1];
/// Our MAC address towards the router.
pub const FRONT_MAC: [u8; 6] = [0x02, 0xf0, 0, 0, 0, 1];
/// Our MAC address towards the backends.
pub const BACK_MAC: [u8; 6] = [0x02, 0xba, 0, 0, 0, 1];
/// MAC address of [`SERVER_A`].
pub const SERVER_A_MAC: [u8; 6] = [0x02, 0x5e, 0, 0, 0, 0x0a];
/// MAC address of [`SERVER_B`].
pub const SERVER_B_MAC: [u8; 6] = [0x02, 0x5e, 0, 0, 0, 0x0b];

/// MAC address of another station, whose frames the interface happens to see.
pub const FOREIGN_MAC: [u8; 6] = [0x02, 0x0f, 0, 0, 0, 0x99];

/// Whom the interface takes frames for: it stands for both of ours.
pub fn stations() -> Stations {
    Stations::of(&[FRONT_MAC, BACK_MAC])
}

/// Id of the interface that the program runs on. Its index is the loopback's, for that is where a test-run's packets
/// come in by; so a packet that leaves by it is seen as `XDP_TX`, by any other as `XDP_REDIRECT`.
pub const FRONT: u16 = 1;
/// Id of the interface towards the backends.
pub const BACK: u16 = 2;

/// Blocks of port cells: one for each server, and one for a second source address of [`SERVER_B`].
pub const BLOCKS: u32 = 3;

/// One source port, so that every packet is known to the last bit.
pub const ONE_PORT: PortRanges = PortRanges { low_first: 2000, low_count: 1, high_first: 0, high_count: 0 };
/// Four, in both ranges.
pub const FOUR_PORTS: PortRanges =
    PortRanges { low_first: 2000, low_count: 3, high_first: 61_000, high_count: 1 };
/// Eight, as many as a bucket has slots.
pub const EIGHT_PORTS: PortRanges =
    PortRanges { low_first: 2000, low_count: 8, high_first: 0, high_count: 0 };
/// Eleven, more than a bucket has slots.
pub const ELEVEN_PORTS: PortRanges =
    PortRanges { low_first: 2000, low_count: 11, high_first: 0, high_count: 0 };
/// None at all.
pub const NO_PORTS: PortRanges = PortRanges { low_first: 0, low_count: 0, high_first: 0, high_count: 0 };

/// The three kinds of trust with their names.
pub const TRUSTS: [(&str, u8); 3] = [
    ("complete", checksums::COMPLETE),
    ("make whole", checksums::MAKE_WHOLE),
    ("keep partial", checksums::KEEP_PARTIAL),
];

/// The four modes with their names.
pub const MODES: [(&str, u8); 4] =
    [("snat", mode::SNAT), ("dnat", mode::DNAT), ("dsr", mode::DSR), ("ipip", mode::IPIP)];

/// What a scene is set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Setting {
    /// 4 or 6.
    pub version: u8,
    /// The services' mode, one of `abi::mode`.
    pub mode: u8,
    /// Their protocol.
    pub protocol: u8,
    /// The program's source ports.
    pub ports: (u16, u16, u16, u16),
    /// How much checksums are worth, one of `abi::checksums`.
    pub trust: u8,
    /// Buckets of the flow table; a power of two.
    pub buckets: u32,
    /// Packets may be longer than any MTU.
    pub joined: bool,
}

impl Setting {
    /// IPv4, TCP, `snat`, one source port, four buckets.
    pub const DEFAULT: Self = Self {
        version: 4,
        mode: mode::SNAT,
        protocol: TCP,
        ports: (2000, 1, 0, 0),
        trust: checksums::COMPLETE,
        buckets: 4,
        joined: false,
    };

    /// The source ports.
    pub const fn ports(&self) -> PortRanges {
        let (low_first, low_count, high_first, high_count) = self.ports;
        PortRanges { low_first, low_count, high_first, high_count }
    }

    /// With other source ports.
    pub const fn with_ports(self, ports: PortRanges) -> Self {
        let ports = (ports.low_first, ports.low_count, ports.high_first, ports.high_count);
        Self { ports, ..self }
    }

    /// The constants of the program.
    pub fn config(&self) -> ProgramConfig {
        ProgramConfig {
            seed: 0x5eed_0000_c0ff_ee11,
            ports: self.ports(),
            bucket_masks: [self.buckets - 1; 2],
            interface: FRONT,
            checksums: self.trust,
            joined: self.joined.into(),
            ..ProgramConfig::default()
        }
    }
}

/// The key of a service.
pub fn service_key<A: Kind>(service: SocketAddrV4, protocol: u8) -> ServiceKey<A> {
    ServiceKey { address: A::of(*service.ip()), port: Be16::from_host(service.port()), protocol, range: 0 }
}

/// The key that marks an address as balanced, for parts of packets that name no port.
pub fn balanced_key<A: Kind>(address: Ipv4Addr) -> ServiceKey<A> {
    ServiceKey { address: A::of(address), port: Be16::default(), protocol: 0, range: 0 }
}

/// A service as the scene has it.
pub fn service(id: u16, setting: &Setting) -> Service {
    Service {
        ring_seed: 0x0123_4567_89ab_cdef,
        ring_offset: u32::from(id) * RING,
        ring_length: 1,
        hold: 45,
        id,
        algorithm: algorithm::LEAST_LOAD,
        no_backend: no_backend::RESET,
        mode: setting.mode,
        ..Service::default()
    }
}

/// The service that a backend belongs to.
pub const fn service_of(backend: u16) -> (u16, SocketAddrV4) {
    if backend == A2 { (ADMIN_ID, ADMIN) } else { (WEB_ID, WEB) }
}

/// The server of a backend, with its MAC address.
pub const fn server_of(backend: u16) -> (SocketAddrV4, [u8; 6]) {
    if backend == B { (SERVER_B, SERVER_B_MAC) } else { (SERVER_A, SERVER_A_MAC) }
}

/// The number of a backend's server, over all services.
pub const fn server_number(backend: u16) -> u16 {
    if backend == B { 2 } else { 1 }
}

/// A backend as the scene has it.
pub fn backend<K: Kind>(id: u16, setting: &Setting) -> Backend<K> {
    let (server, mac) = server_of(id);
    let (service, address) = service_of(id);
    let port = if mode::is_one_sided(setting.mode) { 0 } else { server.port() };
    Backend {
        hop: Hop { mac, interface: BACK },
        address: K::of(*server.ip()),
        service_address: K::of(*address.ip()),
        weight: 100 * 1024,
        cells: first_cell(id, setting.ports()),
        port: Be16::from_host(port),
        service,
        source: 1,
        sources: 1,
        server: server_number(id),
        mtu: 0,
        state: backend_state::ACTIVE,
        mode: setting.mode,
        no_backend: no_backend::RESET,
        protocol: setting.protocol,
    }
}

/// The first port cell of a backend's endpoint.
pub const fn first_cell(backend: u16, ports: PortRanges) -> u32 {
    if backend == B { ports.count() } else { 0 }
}

/// Fill the tables of a family: two services, three backends on two servers, no connections.
pub fn set<K: Kind>(world: &mut impl Store<K>, setting: &Setting) {
    for (address, id, backend) in [(WEB, WEB_ID, A), (ADMIN, ADMIN_ID, A2)] {
        world.set_service(service_key(address, setting.protocol), service(id, setting));
        world.set_ring(service(id, setting).ring_offset, &[backend.into()]);
    }
    let balanced = Service { ring_length: 0, id: 0, ..service(0, setting) };
    world.set_service(balanced_key(*WEB.ip()), balanced);
    for id in [A, B, A2] {
        world.set_backend(id, backend(id, setting));
    }
    world.set_source(1, K::of(SOURCE));
    for id in [A, B] {
        let (server, _) = server_of(id);
        let (source, endpoint) = match setting.mode {
            mode::SNAT => {
                (K::of(SOURCE), Endpoint { cells: first_cell(id, setting.ports()), ..Endpoint::default() })
            }
            mode::DNAT if id == A => (K::default(), answers(&[(WEB_ID, WEB), (ADMIN_ID, ADMIN)])),
            mode::DNAT => (K::default(), answers(&[(WEB_ID, WEB)])),
            _ => continue,
        };
        let port = Be16::from_host(server.port());
        let key = EndpointKey::of(K::of(*server.ip()), source, port, setting.protocol);
        world.set_endpoint(key, endpoint);
    }
    let interface = |index, mac| Interface { index, mac, exit: exit::TX, ..Interface::default() };
    world.set_interface(FRONT, interface(1, FRONT_MAC));
    world.set_interface(BACK, interface(7, BACK_MAC));
}

/// The services that a server's answers may belong to.
pub fn answers(services: &[(u16, SocketAddrV4)]) -> Endpoint {
    let mut endpoint = Endpoint::default();
    for (place, (id, address)) in services.iter().enumerate() {
        endpoint.services[place] = *id;
        endpoint.ports[place] = Be16::from_host(address.port());
    }
    endpoint
}
