//! Stage 2: is it a backend's answer, or a client's packet to a service?

use lb_common::{
    Address, Be16,
    abi::{ENDPOINT_SERVICES, Endpoint, EndpointKey, RANGES, RangesKey, Service, ServiceKey},
    cell::{Phase, PortCell},
    flow::FlowKey,
};

use crate::{
    Tables,
    family::Family,
    flows::{Found, find},
    parse::Packet,
};

/// A cell with its place.
#[derive(Clone, Copy)]
pub struct Held<A: Address> {
    /// The cell's index.
    pub index: u32,
    /// The cell as it was found.
    pub cell: PortCell<A>,
}

/// Which way a packet goes.
pub enum Direction<A: Address> {
    /// From a backend to the client that holds the port (`snat`).
    Reply(Held<A>),
    /// From a backend to the client of a flow (`dnat`).
    Answer(Found<A>),
    /// From a client to a service.
    Request(Service),
    /// Not ours.
    Neither,
}

/// The ends of a packet: its sender's address and port, its receiver's, and the protocol.
#[derive(Clone, Copy)]
pub struct Tuple<A> {
    /// The sender.
    pub source: A,
    /// Its port.
    pub source_port: Be16,
    /// The receiver.
    pub destination: A,
    /// Its port.
    pub destination_port: Be16,
    /// IP protocol number.
    pub protocol: u8,
}

/// Find the port cell, the flow or the service that a packet is for.
///
/// Only tuples that somebody holds are taken from the wire as answers: a listener of the host in the same range of
/// ports stays reachable, from the backends too.
#[inline(always)]
pub fn look_up<A: Family, T: Tables<A>>(packet: &Packet<A>, tables: &T) -> Direction<A> {
    let tuple = Tuple {
        source: packet.source(),
        source_port: packet.source_port(),
        destination: packet.destination(),
        destination_port: packet.destination_port(),
        protocol: packet.protocol,
    };
    if let Some(held) = reply_cell(&tuple, tables) {
        return Direction::Reply(held);
    }
    if let Some(service) = service(tuple.destination, tuple.destination_port, tuple.protocol, tables) {
        return Direction::Request(service);
    }
    match answered_flow(&tuple, tables) {
        Some(found) => Direction::Answer(found),
        None => Direction::Neither,
    }
}

/// The cell that a backend's packet to a port of ours answers.
#[inline(always)]
pub fn reply_cell<A: Address, T: Tables<A>>(tuple: &Tuple<A>, tables: &T) -> Option<Held<A>> {
    let place = tables.config().ports.index(tuple.destination_port.host())?;
    let exact = EndpointKey::of(tuple.source, tuple.destination, tuple.source_port, tuple.protocol);
    let (endpoint, any) = match tables.endpoint(&exact) {
        Some(endpoint) => (endpoint, false),
        None => (tables.endpoint(&EndpointKey { port: Be16::default(), ..exact })?, true),
    };
    let index = endpoint.cells.wrapping_add(place);
    let cell = tables.cell(index)?;
    // A backend that keeps the client's port has one block for all its ports; the answer must come from the right one.
    if any && cell.service_port != tuple.source_port {
        return None;
    }
    match cell.owner.phase() {
        Phase::Free | Phase::Resting => None,
        _ => Some(Held { index, cell }),
    }
}

/// The flow that a backend's packet to a client answers.
#[inline(always)]
pub fn answered_flow<A: Address, T: Tables<A>>(tuple: &Tuple<A>, tables: &T) -> Option<Found<A>> {
    let nobody = A::default();
    let exact = EndpointKey::of(tuple.source, nobody, tuple.source_port, tuple.protocol);
    let endpoint = match tables.endpoint(&exact) {
        Some(endpoint) => endpoint,
        None => tables.endpoint(&EndpointKey { port: Be16::default(), ..exact })?,
    };
    flow_of(&endpoint, tuple, tables)
}

/// A client may use one port towards several services of a backend, one after the other: what the backend says is of
/// the connection that lives, and only where none does, of the one that has ended.
#[inline(always)]
fn flow_of<A: Address, T: Tables<A>>(endpoint: &Endpoint, tuple: &Tuple<A>, tables: &T) -> Option<Found<A>> {
    let key = |service, port: Be16| FlowKey {
        client: tuple.destination,
        client_port: tuple.destination_port,
        service_port: if port == Be16::default() { tuple.source_port } else { port },
        service,
    };
    let mut ended = (0, Be16::default());
    for index in 0..ENDPOINT_SERVICES {
        let (service, port) = (endpoint.services[index], endpoint.ports[index]);
        if service == 0 {
            break;
        }
        let found = find(&key(service, port), tables);
        if found.is_some_and(|found| found.owner.is_live()) {
            return found;
        }
        if found.is_some() {
            ended = (service, port);
        }
    }
    if ended.0 == 0 { None } else { find(&key(ended.0, ended.1), tables) }
}

/// The service that names an address and port, by itself or in a range.
#[inline(always)]
pub fn service<A: Address, T: Tables<A>>(
    address: A,
    port: Be16,
    protocol: u8,
    tables: &T,
) -> Option<Service> {
    let exact = ServiceKey { address, port, protocol, range: 0 };
    if let Some(service) = tables.service(&exact) {
        return Some(service);
    }
    let ranges = tables.ranges(&RangesKey { address, protocol: protocol.into() })?;
    for index in 0..RANGES {
        let [first, last] = ranges.ranges[index];
        if first <= port.host() && port.host() <= last {
            return tables.service(&ServiceKey { port: Be16::from_host(first), range: 1, ..exact });
        }
    }
    None
}
