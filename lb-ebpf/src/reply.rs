//! A backend's answer: its port cell knows the client, and nothing else is looked up.

use lb_common::{
    Reason,
    cell::{Phase, Side},
};

use crate::{
    Frame, Tables, Verdict,
    lookup::Held,
    parse::Packet,
    request::settle,
    rewrite::{Rewrite, rewrite},
    verdict::Way,
};

/// Send a backend's packet back to the client that holds the port.
#[inline(always)]
pub fn to_client<F: Frame, T: Tables>(frame: &mut F, packet: &Packet, held: Held, tables: &T) -> Verdict {
    let Held { index, cell } = held;
    let Some(backend) = tables.backend(cell.backend) else {
        return Verdict::Drop(0, Reason::ReplyWithoutFlow);
    };
    if cell.owner.phase() == Phase::Busy {
        return Verdict::Drop(backend.service, Reason::PortBusy);
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
    if after.is_live() && now != cell.seen() || after != cell.owner {
        tables.touch_cell(index, now);
    }
    let change = Rewrite {
        source: backend.service_address,
        source_port: cell.service_port,
        destination: cell.owner.client(),
        destination_port: cell.owner.client_port(),
        hop: cell.hop,
    };
    match rewrite(frame, packet, &change, backend.service, tables) {
        Ok(()) => Verdict::Forward {
            backend: cell.backend,
            interface: cell.hop.interface,
            bytes: packet.ip_length(),
            way: Way::Out,
        },
        Err(reason) => Verdict::Drop(backend.service, reason),
    }
}
