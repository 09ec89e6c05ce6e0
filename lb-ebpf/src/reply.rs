//! A backend's answer: its port cell knows the client, and nothing else is looked up.

use lb_common::{
    Reason,
    cell::{Phase, Side},
};

use crate::{
    Tables,
    lookup::Held,
    parse::Packet,
    request::settle,
    rewrite::{Route, Step},
    verdict::Way,
};

/// The way of a backend's packet back to the client that holds the port.
#[inline(always)]
pub fn to_client<T: Tables>(packet: &Packet, held: &Held, tables: &T) -> Step {
    let Held { index, cell } = *held;
    let Some(backend) = tables.backend(cell.backend) else { return Step::Drop(0, Reason::ReplyWithoutFlow) };
    if cell.owner.phase() == Phase::Busy {
        return Step::Drop(backend.service, Reason::PortBusy);
    }
    let signs = packet.signs(None);
    if cell.owner.phase() == Phase::Embryonic && signs.syn_ack {
        tables.answer_cell(index, packet.sequence());
    }
    let after = cell.owner.after(Side::Server, signs);
    if after != cell.owner && tables.swap_owner(index, cell.owner, after) {
        settle(cell.owner.is_live(), after.is_live(), cell.backend, tables);
    }
    let now = tables.now();
    if after != cell.owner || after.is_live() && now != cell.seen() {
        tables.touch_cell(index, now);
    }
    Step::Onward(Route {
        service: backend.service,
        backend: cell.backend,
        way: Way::Out,
        source: backend.service_address,
        source_port: cell.service_port,
        destination: cell.owner.client(),
        destination_port: cell.owner.client_port(),
        hop: cell.hop,
    })
}
