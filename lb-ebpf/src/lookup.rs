//! Stage 2: is it a backend's answer to one of our source ports, or a client's packet to a service?

use lb_common::{
    abi::{EndpointKey, Service, ServiceKey, TCP},
    cell::{Phase, PortCell},
};

use crate::{Tables, parse::Packet};

/// A cell with its place.
#[derive(Clone, Copy)]
pub struct Held {
    /// The cell's index.
    pub index: u32,
    /// The cell as it was found.
    pub cell: PortCell,
}

/// Which way a packet goes.
pub enum Direction {
    /// From a backend to the client that holds the port.
    Reply(Held),
    /// From a client to a service.
    Request(Service),
    /// Not ours.
    Neither,
}

/// Find the port cell or the service that a packet is for.
///
/// Only ports that somebody holds are taken from the wire: a listener of the host in the same range stays reachable,
/// from the backends too.
#[inline(always)]
pub fn look_up<T: Tables>(packet: &Packet, tables: &T) -> Direction {
    if let Some(held) = reply_cell(packet, tables) {
        return Direction::Reply(held);
    }
    let key =
        ServiceKey { address: packet.destination(), port: packet.destination_port(), protocol: TCP, pad: 0 };
    match tables.service(&key) {
        Some(service) => Direction::Request(service),
        None => Direction::Neither,
    }
}

#[inline(always)]
fn reply_cell<T: Tables>(packet: &Packet, tables: &T) -> Option<Held> {
    let place = tables.config().ports.index(packet.destination_port().host())?;
    let endpoint = tables.endpoint(&EndpointKey {
        address: packet.source(),
        source: packet.destination(),
        port: packet.source_port(),
        protocol: TCP,
        pad: 0,
    })?;
    let index = endpoint.cells.wrapping_add(place);
    let cell = tables.cell(index)?;
    match cell.owner.phase() {
        Phase::Free | Phase::Resting => None,
        _ => Some(Held { index, cell }),
    }
}
