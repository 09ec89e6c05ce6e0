//! What is different from the scene: before the first packet, or between two.

use std::net::SocketAddrV4;

use lb_common::{
    Be16, Ticks,
    abi::{self, Flow, FlowKey, Hop, mark},
    cell::{Owner, Phase, PortCell, Side, Signs},
};

use super::{
    scene::{self, FRONT, ROUTER_MAC, SOURCE, first_cell},
    segment::SERVER_ISN,
    world::World,
};

/// Something that is different from the scene, or that happens between two packets.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A backend's state, one of `abi::backend_state`.
    State(u32, u8),
    /// What becomes of a SYN that a backend refuses, one of `abi::no_backend`.
    Refusals(u32, u8),
    /// A backend's weight.
    Weight(u32, u32),
    /// A backend's next hop is not known.
    Unresolved(u32),
    /// A service's ring; an empty one has been empty since now.
    Ring(u32, Vec<u32>),
    /// A service became empty a tick ahead of the program's clock, which lags behind the agent's.
    EmptyAhead(u32),
    /// A service's algorithm, one of `abi::algorithm`.
    Algorithm(u32, u8),
    /// What a service without backends does, one of `abi::no_backend`.
    NoBackend(u32, u8),
    /// How packets leave an interface, one of `abi::exit`.
    Exit(u16, u8),
    /// A connection of a client to a backend at a place of its block, with cell, flow and account as its life says.
    Connection {
        /// The client.
        client: SocketAddrV4,
        /// The backend.
        backend: u32,
        /// The place in the block.
        place: u32,
        /// How far it has come.
        life: Life,
        /// Milliseconds since it was last heard of.
        age: u64,
    },
    /// So many connections more on a backend's account, none of them in the tables.
    Live(u32, u64),
    /// Milliseconds pass.
    Pass(u64),
}

/// How far a connection has come before the first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its SYN was forwarded.
    Embryonic,
    /// Its SYN was answered.
    Answered,
    /// It is established.
    Established,
    /// Both have sent a FIN, the client first.
    ClosedByClient,
    /// Both have sent a FIN, the server first.
    ClosedByServer,
    /// The client has sent a RST.
    ResetByClient,
    /// Its flow has been removed since.
    Resting,
    /// Its flow has been removed since; the server had closed first.
    RestingByServer,
    /// Its port is changing hands.
    Busy,
}

impl Fact {
    /// Make it so.
    pub fn apply(&self, world: &mut dyn World) {
        match self {
            Self::State(id, state) => edit_backend(world, *id, |backend| backend.state = *state),
            Self::Refusals(id, policy) => edit_backend(world, *id, |backend| backend.no_backend = *policy),
            Self::Weight(id, weight) => edit_backend(world, *id, |backend| backend.weight = *weight),
            Self::Unresolved(id) => edit_backend(world, *id, |backend| backend.hop = Hop::default()),
            Self::Ring(id, ring) => {
                let now = world.now().raw();
                edit_service(world, *id, |service| {
                    service.ring_length = ring.len() as u32;
                    service.empty_since = now;
                });
                world.set_ring(scene::service(*id).ring_offset, ring);
            }
            Self::EmptyAhead(id) => {
                let ahead = world.now().raw() + 1;
                edit_service(world, *id, |service| service.empty_since = ahead);
            }
            Self::Algorithm(id, algorithm) => {
                edit_service(world, *id, |service| service.algorithm = *algorithm);
            }
            Self::NoBackend(id, policy) => edit_service(world, *id, |service| service.no_backend = *policy),
            Self::Exit(id, exit) => {
                let interface = world.interface_at(*id);
                world.set_interface(*id, abi::Interface { exit: *exit, ..interface });
            }
            Self::Connection { client, backend, place, life, age } => {
                connection(world, *client, *backend, *place, *life, Ticks::from_millis(*age));
            }
            Self::Live(id, count) => {
                let mut account = world.account_at(*id);
                account.opened += count;
                account.pad += count;
                world.set_account(*id, account);
            }
            Self::Pass(millis) => world.age(Ticks::from_millis(*millis)),
        }
    }
}

fn edit_backend(world: &mut dyn World, id: u32, edit: impl FnOnce(&mut abi::Backend)) {
    let mut backend = world.backend_at(id);
    edit(&mut backend);
    world.set_backend(id, backend);
}

fn edit_service(world: &mut dyn World, id: u32, edit: impl FnOnce(&mut abi::Service)) {
    let found = world.services().into_iter().find(|(_, service)| service.id == id);
    let (key, mut service) = found.expect("the scene has no such service");
    edit(&mut service);
    world.set_service(key, service);
}

/// The owner word after a life.
fn owner(client: SocketAddrV4, life: Life) -> Owner {
    use Side::{Client, Server};
    let nothing = Signs::default();
    let syn_ack = (Server, Signs { syn_ack: true, ..nothing });
    let proof = (Client, Signs { proves: true, ..nothing });
    let fin = |side| (side, Signs { fin: true, ..nothing });
    let rst = (Client, Signs { rst: true, ..nothing });
    let signs = match life {
        Life::Embryonic | Life::Busy => vec![],
        Life::Answered => vec![syn_ack],
        Life::Established => vec![syn_ack, proof],
        Life::ClosedByClient | Life::Resting => vec![syn_ack, proof, fin(Client), fin(Server)],
        Life::ClosedByServer | Life::RestingByServer => vec![syn_ack, proof, fin(Server), fin(Client)],
        Life::ResetByClient => vec![syn_ack, proof, rst],
    };
    let port = Be16::from_host(client.port());
    let embryo = Owner::next(Owner(0), (*client.ip()).into(), port, Phase::Embryonic);
    let owner = signs.into_iter().fold(embryo, |owner, (side, signs)| owner.after(side, signs));
    match life {
        Life::Resting | Life::RestingByServer => owner.with_phase(Phase::Resting),
        Life::Busy => owner.with_phase(Phase::Busy),
        _ => owner,
    }
}

fn connection(world: &mut dyn World, client: SocketAddrV4, backend: u32, place: u32, life: Life, age: Ticks) {
    let ranges = world.config().ports;
    let (service, address) = scene::service_of(backend);
    let owner = owner(client, life);
    let index = first_cell(backend, ranges) + place;
    let seen = world.now().raw().wrapping_sub(age.raw());
    let service_port = Be16::from_host(address.port());
    world.set_cell(
        index,
        PortCell {
            owner,
            hop: Hop { mac: ROUTER_MAC, interface: FRONT },
            backend,
            seen,
            server_isn: if life == Life::Embryonic { 0 } else { SERVER_ISN },
            service_port,
            pad: 0,
        },
    );
    let mut account = world.account_at(backend);
    account.opened += 1;
    account.closed += u64::from(!owner.is_live());
    world.set_account(backend, account);
    if !owner.is_live() && owner.phase() != Phase::Closed {
        return;
    }
    let key = FlowKey {
        client: (*client.ip()).into(),
        client_port: Be16::from_host(client.port()),
        service_port,
        service,
        pad: 0,
    };
    let marks = match life {
        Life::Embryonic | Life::Answered => 0,
        Life::Established => mark::PROVEN,
        _ => mark::PROVEN | mark::CLOSING,
    };
    let source_port = Be16::from_host(ranges.port(place));
    world.set_flow(
        key,
        Flow {
            backend,
            cell: index,
            source: SOURCE.into(),
            source_port,
            marks,
            seen,
            client: key.client,
            client_port: key.client_port,
            pad: [0; 3],
        },
    );
}
