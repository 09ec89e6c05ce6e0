//! A backend's answer: its port cell knows the client, and nothing else is looked up.

use lb_common::{
    Reason,
    abi::no_backend,
    cell::{Phase, Side},
};

use crate::{
    Tables,
    lookup::Held,
    parse::Packet,
    request::{SWAPS, settle},
    rewrite::{Route, Step},
    verdict::Way,
};

/// The way of a backend's packet back to the client that holds the port.
#[inline(always)]
pub fn to_client<T: Tables>(packet: &Packet, held: &Held, tables: &T) -> Step {
    let Held { index, mut cell } = *held;
    let Some(backend) = tables.backend(cell.backend) else { return Step::Drop(0, Reason::ReplyWithoutFlow) };
    if cell.owner.phase() == Phase::Busy {
        return Step::Drop(backend.service, Reason::PortBusy);
    }
    let signs = packet.signs(None);
    if cell.owner.phase() == Phase::Embryonic && signs.syn_ack {
        tables.answer_cell(index, packet.sequence());
    }
    let now = tables.now();
    for _ in 0..SWAPS {
        let after = cell.owner.after(Side::Server, signs);
        if after == cell.owner {
            if after.is_live() && now != cell.seen() {
                tables.touch_cell(index, now);
            }
            break;
        }
        if tables.swap_owner(index, cell.owner, after) {
            settle(cell.owner.is_live(), after.is_live(), cell.backend, tables);
            tables.touch_cell(index, now);
            break;
        }
        // The client's packet on another CPU was first; unless the port went to somebody else, this sign follows.
        match tables.holder(index) {
            Some((owner, _)) if owner.belongs_to(cell.owner.client(), cell.owner.client_port()) => {
                cell.owner = owner;
            }
            _ => return Step::Drop(backend.service, Reason::PortBusy),
        }
    }
    // A dead process's kernel refuses at once, before any probe has seen the death.
    if signs.rst && held.cell.owner.phase() == Phase::Embryonic && backend.no_backend == no_backend::HOLD {
        return Step::Drop(backend.service, Reason::RefusalHeld);
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
