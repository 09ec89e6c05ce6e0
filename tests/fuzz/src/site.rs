//! A site: services of every mode and protocol over a few servers, in tables so small that everybody meets everybody.

use std::sync::atomic::Ordering::SeqCst;

use lb_common::{
    Be16, Be32, Be128,
    abi::{
        Backend, ENDPOINT_SERVICES, Endpoint, EndpointKey, Hop, ICMP, ICMPV6, Interface, ProgramConfig,
        Ranges, RangesKey, Service, ServiceKey, TCP, UDP, algorithm, backend_state, mode, no_backend,
        service_flag,
    },
    ports::PortRanges,
    ring::SAME,
};

use crate::{
    packets::{End, Numbered, port},
    world::{Has, World},
};

/// A service as it is planned.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Its id.
    pub id: u16,
    /// One of `abi::mode`.
    pub mode: u8,
    /// Its protocol.
    pub protocol: u8,
    /// One of `abi::algorithm`.
    pub algorithm: u8,
    /// Of `abi::service_flag`.
    pub flags: u8,
    /// Its backends: ids of pairs, and of the servers behind them.
    pub backends: &'static [(u16, u16)],
}

const fn plan(id: u16, mode: u8, protocol: u8, algorithm: u8, backends: &'static [(u16, u16)]) -> Plan {
    Plan { id, mode, protocol, algorithm, flags: 0, backends }
}

/// The services. The first two share their servers' ports.
pub const PLANS: [Plan; 10] = [
    plan(1, mode::SNAT, TCP, algorithm::LEAST_LOAD, &[(1, 1), (2, 2), (3, 3)]),
    plan(2, mode::SNAT, TCP, algorithm::ROUND_ROBIN, &[(4, 1), (5, 2)]),
    plan(3, mode::SNAT, UDP, algorithm::LEAST_CONN, &[(6, 1), (7, 2)]),
    plan(4, mode::DNAT, TCP, algorithm::LEAST_CONN, &[(8, 4), (9, 5)]),
    plan(5, mode::DNAT, UDP, algorithm::ROUND_ROBIN, &[(10, 4), (11, 5)]),
    plan(6, mode::DSR, TCP, algorithm::LEAST_LOAD, &[(12, 6), (13, 7)]),
    plan(7, mode::IPIP, TCP, algorithm::SOURCE_HASH, &[(14, 6), (15, 7)]),
    plan(8, mode::DSR, UDP, algorithm::MAGLEV, &[(16, 6), (17, 7)]),
    plan(9, mode::IPIP, UDP, algorithm::LEAST_LOAD, &[(18, 6), (19, 7)]),
    Plan {
        flags: service_flag::ON_CHANGE,
        ..plan(10, mode::DNAT, TCP, algorithm::MAGLEV, &[(20, 4), (21, 5), (22, 8)])
    },
];

/// Servers, numbered from 1.
pub const SERVERS: u16 = 8;

/// Source addresses of ours, numbered from 1.
pub const SOURCES: u16 = 2;

/// The port that clients connect to.
pub const SERVICE_PORT: u16 = 80;

/// The port that servers listen on, where the mode translates.
pub const SERVER_PORT: u16 = 8080;

/// Slots of each service's ring.
pub const RING: u32 = 16;

/// Places of the map of rings that a service has: its slots, and the list of its members behind them.
pub const RING_ROOM: u32 = 32;

/// The interface of all traffic.
pub const INTERFACE: u16 = 1;

/// What differs from site to site.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Ports of each endpoint.
    pub ports: PortRanges,
    /// Buckets of each flow table, a power of two.
    pub buckets: u32,
    /// One of `abi::checksums`.
    pub checksums: u8,
    /// Seed of hashes and of chance.
    pub seed: u64,
}

impl Default for Site {
    fn default() -> Self {
        let ports = PortRanges { low_first: 2000, low_count: 3, high_first: 4000, high_count: 2 };
        Self { ports, buckets: 4, checksums: 0, seed: 1 }
    }
}

/// A client's address.
pub fn client<A: Numbered>(number: u32) -> A {
    A::numbered(0x4d_0000 + number)
}

/// A service's address.
pub fn virtual_address<A: Numbered>(service: u16) -> A {
    A::numbered(0x32_0000 + u32::from(service))
}

/// A server's address.
pub fn server<A: Numbered>(number: u16) -> A {
    A::numbered(0x3c_0000 + u32::from(number))
}

/// A source address of ours.
pub fn source<A: Numbered>(number: u16) -> A {
    A::numbered(0x32_0100 + u32::from(number))
}

/// The port from which a client speaks to a service. In `dnat` a server sees the client's own tuple, so one that two
/// services lead to cannot tell two connections of one tuple: clients of the last service use ports of their own.
pub fn client_port(service: u16, choice: u16) -> u16 {
    let of_its_own = if usize::from(service) == PLANS.len() { 100 } else { 0 };
    40_000 + of_its_own + choice
}

/// Where clients of a service connect to.
pub fn front<A: Numbered>(service: u16) -> End<A> {
    End { address: virtual_address(service), port: SERVICE_PORT }
}

/// The next hop to a server or a client.
pub const fn hop(last: u8) -> Hop {
    Hop { mac: [2, 0, 0, 0, 1, last], interface: INTERFACE }
}

/// The plan of a service.
pub fn plan_of(service: u16) -> &'static Plan {
    &PLANS[usize::from(service - 1)]
}

/// Place of the first port cell of a server's endpoint.
pub fn cells(server: u16, protocol: u8, ports: PortRanges) -> u32 {
    let block = 2 * u32::from(server - 1) + u32::from(protocol == UDP);
    block * u32::from(SOURCES) * ports.count()
}

impl Site {
    /// The world of this site.
    pub fn build(&self) -> World {
        let config = ProgramConfig {
            seed: self.seed,
            ports: self.ports,
            bucket_masks: [self.buckets - 1; 2],
            interface: INTERFACE,
            checksums: self.checksums,
            joined: 0,
            purpose: 0,
            pad: [0; 3],
        };
        let cells = 2 * u32::from(SERVERS) * u32::from(SOURCES) * self.ports.count();
        let world = World::new(config, cells as usize, PLANS.len() as u32 * RING_ROOM, self.seed);
        let interface = Interface { index: 7, mac: [2, 0, 0, 0, 0, 1], mtu: 1500, exit: 0, pad: [0; 3] };
        world.interfaces.put(INTERFACE, interface);
        for plan in &PLANS {
            publish_ring(&world, plan, &plan.backends.iter().map(|(id, _)| *id).collect::<Vec<_>>(), true);
        }
        self.settle::<Be32>(&world);
        self.settle::<Be128>(&world);
        world
    }

    fn settle<A: Numbered>(&self, world: &World)
    where
        World: Has<A>,
    {
        let half = Has::<A>::half(world);
        for number in 1..=SOURCES {
            half.sources.put(number, source(number));
        }
        let icmp = if A::VERSION == 4 { ICMP } else { ICMPV6 };
        let echo =
            ServiceKey { address: virtual_address(1), port: Be16::default(), protocol: icmp, range: 0 };
        half.services.put(echo, Service::default());
        for plan in &PLANS {
            self.open::<A>(world, plan);
        }
        // Service 1 answers on a range of ports too.
        let mut ranges = Ranges { ranges: [[1, 0]; 8] };
        ranges.ranges[0] = [9000, 9009];
        half.ranges.put(RangesKey { address: virtual_address(1), protocol: TCP.into() }, ranges);
        let key = ServiceKey { address: virtual_address(1), port: port(9000), protocol: TCP, range: 1 };
        half.services.put(key, Self::service(&PLANS[0]));
    }

    fn service(plan: &Plan) -> Service {
        Service {
            ring_seed: 77,
            ring_offset: u32::from(plan.id - 1) * RING_ROOM,
            ring_length: RING,
            id: plan.id,
            members: plan.backends.len() as u16,
            algorithm: plan.algorithm,
            no_backend: no_backend::RESET,
            mode: plan.mode,
            flags: plan.flags,
            ..Service::default()
        }
    }

    fn open<A: Numbered>(&self, world: &World, plan: &Plan)
    where
        World: Has<A>,
    {
        let half = Has::<A>::half(world);
        let front = front::<A>(plan.id);
        let key =
            ServiceKey { address: front.address, port: port(front.port), protocol: plan.protocol, range: 0 };
        half.services.put(key, Self::service(plan));
        let translated = plan.mode == mode::SNAT || plan.mode == mode::DNAT;
        for (id, number) in plan.backends {
            let address = server::<A>(*number);
            let first = cells(*number, plan.protocol, self.ports);
            let backend = Backend {
                hop: hop(*number as u8),
                address,
                service_address: front.address,
                weight: 1024,
                cells: first,
                port: if translated { port(SERVER_PORT) } else { Be16::default() },
                service: plan.id,
                source: 1,
                sources: SOURCES,
                server: *number,
                mtu: 0,
                state: backend_state::ACTIVE,
                mode: plan.mode,
                no_backend: no_backend::RESET,
                protocol: plan.protocol,
            };
            half.backends.put(*id, backend);
            if plan.mode == mode::SNAT {
                for place in 1..=SOURCES {
                    let key = EndpointKey::of(address, source(place), port(SERVER_PORT), plan.protocol);
                    let cells = first + u32::from(place - 1) * self.ports.count();
                    half.endpoints.put(key, Endpoint { cells, ..Endpoint::default() });
                }
            } else if plan.mode == mode::DNAT {
                answers_for(world, plan, address);
            }
        }
    }
}

/// A server in `dnat` answers for one more service.
fn answers_for<A: Numbered>(world: &World, plan: &Plan, address: A)
where
    World: Has<A>,
{
    let half = Has::<A>::half(world);
    let key = EndpointKey::of(address, A::default(), port(SERVER_PORT), plan.protocol);
    let mut endpoint = half.endpoints.get(&key).unwrap_or_default();
    let free = (0..ENDPOINT_SERVICES).find(|place| endpoint.services[*place] == 0);
    let place = free.expect("no server of the plan has more services than an endpoint holds");
    endpoint.services[place] = plan.id;
    endpoint.ports[place] = port(SERVICE_PORT);
    half.endpoints.put(key, endpoint);
}

/// Publish a service's ring: its slots in turns, its members behind them. A slot that is not settled keeps its former
/// owner, as the agent does it.
pub fn publish_ring(world: &World, plan: &Plan, active: &[u16], settled: bool) {
    let offset = u32::from(plan.id - 1) * RING_ROOM;
    for slot in 0..RING {
        let owner = active.get(slot as usize % active.len().max(1)).copied().unwrap_or(0);
        let word = &world.ring[(offset + slot) as usize];
        let before = word.load(SeqCst);
        let (current, previous) = (before as u16, (before >> 16) as u16);
        let of_the_unrecorded = if previous == SAME { current } else { previous };
        let former = match of_the_unrecorded {
            _ if settled => owner,
            same if same == owner && before != u32::from(owner) * 0x1_0001 => SAME,
            other => other,
        };
        word.store(u32::from(former) << 16 | u32::from(owner), SeqCst);
    }
    for (place, (id, _)) in plan.backends.iter().enumerate() {
        let id = if active.contains(id) { *id } else { 0 };
        world.ring[(offset + RING) as usize + place].store(u32::from(id), SeqCst);
    }
}
