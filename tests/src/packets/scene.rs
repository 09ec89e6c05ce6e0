//! Who takes part in the cases: addresses, ids, and the tables as they stand before the first packet.

use std::net::{Ipv4Addr, SocketAddrV4};

use lb_common::{
    Be16, Be32,
    abi::{
        Backend, Endpoint, EndpointKey, Hop, Interface, ProgramConfig, Service, ServiceKey, TCP, algorithm,
        backend_state, checksums, exit, no_backend,
    },
    ports::PortRanges,
};

use super::world::World;

/// A client.
pub const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 40_000);
/// Another client.
pub const OTHER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 8), 40_001);
/// A third one.
pub const THIRD: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 200), 1_024);
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
pub const WEB_ID: u32 = 1;
/// Id of the service at [`ADMIN`].
pub const ADMIN_ID: u32 = 2;
/// Backend of [`WEB`].
pub const A: u32 = 1;
/// Another backend of [`WEB`]; not in its ring unless a case puts it there.
pub const B: u32 = 2;
/// Backend of [`ADMIN`], on the server of [`A`].
pub const A2: u32 = 3;
/// Ids above this one are never used.
pub const LAST_ID: u32 = 3;

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

/// Id of the interface that the program runs on. Its index is the loopback's, for that is where a test-run's packets
/// come in by; so a packet that leaves by it is seen as `XDP_TX`, by any other as `XDP_REDIRECT`.
pub const FRONT: u16 = 1;
/// Id of the interface towards the backends.
pub const BACK: u16 = 2;

/// Blocks of port cells: one for each server.
pub const BLOCKS: u32 = 2;

/// One source port, so that every packet is known to the last bit.
pub const ONE_PORT: PortRanges = PortRanges { low_first: 2000, low_count: 1, high_first: 0, high_count: 0 };
/// Four, in both ranges.
pub const FOUR_PORTS: PortRanges =
    PortRanges { low_first: 2000, low_count: 3, high_first: 61_000, high_count: 1 };
/// None at all.
pub const NO_PORTS: PortRanges = PortRanges { low_first: 0, low_count: 0, high_first: 0, high_count: 0 };

/// The constants of the program.
pub const fn config(ports: PortRanges, trust: u8) -> ProgramConfig {
    ProgramConfig { seed: 0x5eed_0000_c0ff_ee11, ports, interface: FRONT, checksums: trust, pad: [0; 5] }
}

/// The three kinds of trust with their names.
pub const TRUSTS: [(&str, u8); 3] = [
    ("complete", checksums::COMPLETE),
    ("make whole", checksums::MAKE_WHOLE),
    ("keep partial", checksums::KEEP_PARTIAL),
];

/// The key of a service.
pub fn service_key(service: SocketAddrV4) -> ServiceKey {
    ServiceKey {
        address: (*service.ip()).into(),
        port: Be16::from_host(service.port()),
        protocol: TCP,
        pad: 0,
    }
}

/// A service as the scene has it.
pub const fn service(id: u32) -> Service {
    Service {
        id,
        ring_offset: id * 16,
        ring_length: 1,
        empty_since: 0,
        hold: 45,
        algorithm: algorithm::LEAST_LOAD,
        no_backend: no_backend::RESET,
        pad: [0; 2],
    }
}

/// The service that a backend belongs to.
pub const fn service_of(backend: u32) -> (u32, SocketAddrV4) {
    if backend == A2 { (ADMIN_ID, ADMIN) } else { (WEB_ID, WEB) }
}

/// The server of a backend, with its MAC address.
pub const fn server_of(backend: u32) -> (SocketAddrV4, [u8; 6]) {
    if backend == B { (SERVER_B, SERVER_B_MAC) } else { (SERVER_A, SERVER_A_MAC) }
}

/// A backend as the scene has it.
pub fn backend(id: u32, ports: PortRanges) -> Backend {
    let (server, mac) = server_of(id);
    let (service, address) = service_of(id);
    Backend {
        address: (*server.ip()).into(),
        port: Be16::from_host(server.port()),
        state: backend_state::ACTIVE,
        no_backend: no_backend::RESET,
        hop: Hop { mac, interface: BACK },
        service_address: (*address.ip()).into(),
        service,
        source: SOURCE.into(),
        cells: first_cell(id, ports),
        weight: 100 * 1024,
        pad2: 0,
    }
}

/// The first port cell of a backend's endpoint.
pub const fn first_cell(backend: u32, ports: PortRanges) -> u32 {
    if backend == B { ports.count() } else { 0 }
}

/// Fill the tables of a world: two services, three backends on two servers, no connections.
pub fn set(world: &mut dyn World, ports: PortRanges) {
    for (address, id, backend) in [(WEB, WEB_ID, A), (ADMIN, ADMIN_ID, A2)] {
        world.set_service(service_key(address), service(id));
        world.set_ring(service(id).ring_offset, &[backend]);
    }
    for id in [A, B, A2] {
        world.set_backend(id, backend(id, ports));
    }
    for id in [A, B] {
        let (server, _) = server_of(id);
        let key = EndpointKey {
            address: (*server.ip()).into(),
            source: Be32::from(SOURCE),
            port: Be16::from_host(server.port()),
            protocol: TCP,
            pad: 0,
        };
        world.set_endpoint(key, Endpoint { cells: first_cell(id, ports), pad: 0 });
    }
    world.set_interface(FRONT, Interface { index: 1, mac: FRONT_MAC, exit: exit::TX, pad: [0; 5] });
    world.set_interface(BACK, Interface { index: 7, mac: BACK_MAC, exit: exit::TX, pad: [0; 5] });
}
