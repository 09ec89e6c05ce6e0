//! A connection as the machine of cuts needs it: how each end is spoken to.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    Be16,
    abi::{Backend, mode},
    cell::{Owner, Side},
    flow::Record,
};

use super::Tally;
use crate::{
    cut::{self, Connection, Order, Target, Towards, Tunnel, Tuple},
    dataplane::{
        common::Common,
        family::{Family, Ip},
    },
};

impl<A: Ip> Family<A> {
    /// The connection that holds a cell. `flow`: the place of its flow, which knows the source address.
    pub(super) fn target_of_cell(
        &self,
        common: &Common,
        cell: u32,
        owner: Owner,
        flow: Option<u32>,
    ) -> Option<Target> {
        let (connection, backend) = self.connection_of_cell(cell, owner)?;
        let (back, vlan) = self.maps.cells.back(cell);
        // Blocks follow each other as sources do; the flow is not needed to know the port.
        let ports = common.layout.ports;
        let offset = cell.checked_sub(backend.cells)?;
        let number = usize::from(backend.source) + (offset / ports.count()) as usize;
        let number = flow.map_or(number, |place| usize::from(self.maps.flows.record(place).way.source()));
        let source = self.sources.get(number).copied().filter(|source| *source != A::default())?;
        let from = SocketAddr::new(source.ip(), ports.port(offset % ports.count()));
        let to = towards(backend, connection.service.port());
        Some(Target {
            connection,
            client_hop: common.frame_hop(back, vlan),
            // Tags are kept on rewrite, so the backend's side of the connection carries the client's.
            backend: Towards { tuple: Tuple { from, to }, hop: common.frame_hop(backend.hop, vlan) },
            order: Order::Both,
        })
    }

    /// The connection of a flow without a cell.
    pub(super) fn target_of_flow(&self, common: &Common, place: u32, owner: Owner) -> Option<Target> {
        let record = self.maps.flows.record(place);
        let (connection, backend) = self.connection_of_flow(owner, &record)?;
        let mut hop = common.frame_hop(backend.hop, record.vlan);
        let one_sided = mode::is_one_sided(backend.mode);
        let to = if one_sided { connection.service } else { towards(backend, connection.service.port()) };
        if backend.mode == mode::IPIP
            && let Some(hop) = hop.as_mut()
        {
            let from: IpAddr = self.sources.get(usize::from(backend.source))?.ip();
            hop.tunnel = Some(Tunnel { from, to: backend.address.ip() });
        }
        Some(Target {
            connection,
            client_hop: common.frame_hop(record.way.back(), record.vlan),
            backend: Towards { tuple: Tuple { from: connection.client, to }, hop },
            order: if one_sided { Order::ClientFirst } else { Order::Both },
        })
    }

    /// Say which sides of a cut connection know.
    pub(super) fn tell_of_cell(&self, _: &Common, cell: u32, owner: Owner, tally: &mut Tally) {
        tell(owner, tally, || self.connection_of_cell(cell, owner).map(|(connection, _)| connection));
    }

    /// The same for a flow without a cell.
    pub(super) fn tell_of_flow(&self, _: &Common, place: u32, owner: Owner, tally: &mut Tally) {
        tell(owner, tally, || {
            let record = self.maps.flows.record(place);
            self.connection_of_flow(owner, &record).map(|(connection, _)| connection)
        });
    }

    fn connection_of_cell(&self, cell: u32, owner: Owner) -> Option<(Connection, &Backend<A>)> {
        let backend = self.backends.get(&self.maps.cells.backend(cell))?;
        let client = self.maps.cells.client(cell, owner);
        Some((connection(backend, client, owner.client_port(), self.maps.cells.service_port(cell)), backend))
    }

    fn connection_of_flow(&self, owner: Owner, record: &Record<A>) -> Option<(Connection, &Backend<A>)> {
        let backend = self.backends.get(&record.backend)?;
        let client = A::whole(owner.tag(), record.client);
        Some((connection(backend, client, owner.client_port(), record.service_port), backend))
    }
}

fn connection<A: Ip>(backend: &Backend<A>, client: A, port: Be16, service_port: Be16) -> Connection {
    Connection {
        client: SocketAddr::new(client.ip(), port.host()),
        service: SocketAddr::new(backend.service_address.ip(), service_port.host()),
    }
}

/// Where a backend gets packets whose client connected to `port`.
fn towards<A: Ip>(backend: &Backend<A>, port: u16) -> SocketAddr {
    let own = backend.port.host();
    SocketAddr::new(backend.address.ip(), if own == 0 { port } else { own })
}

fn tell(owner: Owner, tally: &mut Tally, connection: impl FnOnce() -> Option<Connection>) {
    let sides = [(Side::Client, cut::Side::Client), (Side::Server, cut::Side::Backend)];
    let knowing = sides.into_iter().filter(|(side, _)| owner.knows(*side));
    let mut knowing = knowing.map(|(_, side)| side).peekable();
    if knowing.peek().is_some()
        && let Some(connection) = connection()
    {
        tally.swept.told.extend(knowing.map(|side| (connection, side)));
    }
}
