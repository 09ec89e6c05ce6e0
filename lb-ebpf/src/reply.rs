//! A backend's answer in `snat`: its port cell knows the client, and nothing else is looked up.

use lb_common::{
    Reason,
    abi::{Backend, backend_state, no_backend},
    cell::{Owner, Phase, Side},
    event::kind,
    flow::FlowKey,
};

use crate::{
    Tables,
    family::Family,
    lookup::Held,
    parse::{Packet, flag},
    rewrite::Route,
    seat::{SWAPS, Seat, settle},
    step::Step,
    tell::{tell, tell_cut},
    verdict::Way,
};

/// The way of a backend's packet back to the client that holds the port.
#[inline(always)]
pub fn to_client<A: Family, T: Tables<A>>(packet: &Packet<A>, held: &Held<A>, tables: &T) -> Step {
    let Held { index, cell } = *held;
    let Some(backend) = tables.backend(cell.backend) else { return Step::drop(0, Reason::ReplyWithoutFlow) };
    if cell.owner.phase() == Phase::Busy {
        return Step::drop(backend.service, Reason::PortBusy);
    }
    let conversation = Conversation {
        seat: Seat::Cell(index),
        owner: cell.owner,
        id: cell.backend,
        since: cell.word,
        stale: tables.now() != cell.seen(),
        key: FlowKey {
            client: cell.client(),
            client_port: cell.owner.client_port(),
            service_port: cell.service_port,
            service: backend.service,
        },
    };
    if let Err(stopped) = hear(packet, &conversation, &backend, tables) {
        return stopped;
    }
    Step::back(backend.service)
}

/// The way of an answer to the client that holds a port.
#[inline(always)]
pub fn route<A: Family>(held: &Held<A>, backend: &Backend<A>) -> Route<A> {
    let cell = &held.cell;
    Route {
        service: backend.service,
        backend: cell.backend,
        way: Way::Out,
        mode: backend.mode,
        source: backend.service_address,
        source_port: cell.service_port,
        destination: cell.client(),
        destination_port: cell.owner.client_port(),
        hop: cell.hop,
        mtu: 0,
    }
}

/// A connection whose backend speaks.
#[derive(Clone, Copy)]
pub struct Conversation<A> {
    /// Where its phase is kept.
    pub seat: Seat,
    /// Its owner word as it was found.
    pub owner: Owner,
    /// Id of the (service, backend) pair.
    pub id: u16,
    /// When the SYN was forwarded, in microseconds, if nothing has answered it yet.
    pub since: u32,
    /// Whether its time stamp is older than now.
    pub stale: bool,
    /// The client.
    pub key: FlowKey<A>,
}

/// Move a connection's phase by its server's segment; `Err`: the segment goes no further.
#[inline(always)]
pub fn hear<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    of: &Conversation<A>,
    backend: &Backend<A>,
    tables: &T,
) -> Result<(), Step> {
    if of.owner.is_cut() || backend.state == backend_state::CUT {
        return Err(cut(packet, of, backend, tables));
    }
    let signs = packet.signs(None);
    let embryo = of.owner.phase() == Phase::Embryonic;
    if embryo && signs.syn_ack {
        tell(kind::ANSWERED, &of.key, of.id, tables.micros().wrapping_sub(of.since), tables);
        of.seat.answer(packet.sequence(), tables);
    }
    let mut owner = of.owner;
    for _ in 0..SWAPS {
        let after = tables.after(owner, Side::Server, signs);
        if after == owner {
            if after.is_live() && of.stale {
                of.seat.touch(tables.now(), tables);
            }
            break;
        }
        if of.seat.swap(owner, after, tables) {
            settle(owner, after, of.id, tables);
            of.seat.touch(tables.now(), tables);
            break;
        }
        // The client's packet on another CPU was first; unless the place went to somebody else, this sign follows.
        match of.seat.owner(tables) {
            Some(now) if now.is_same_hold(of.owner) => owner = now,
            _ => return Err(Step::drop(backend.service, Reason::PortBusy)),
        }
    }
    // A dead process's kernel refuses at once, before any probe has seen the death.
    if embryo && signs.rst {
        tell(kind::REFUSED, &of.key, of.id, 0, tables);
        if backend.no_backend == no_backend::HOLD {
            return Err(Step::drop(backend.service, Reason::RefusalHeld));
        }
    }
    Ok(())
}

/// A backend's packet of a connection that is cut: the backend is told by a RST.
#[inline(always)]
fn cut<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    of: &Conversation<A>,
    backend: &Backend<A>,
    tables: &T,
) -> Step {
    let after = of.owner.told(Side::Server);
    if after != of.owner && of.seat.swap(of.owner, after, tables) {
        settle(of.owner, after, of.id, tables);
        of.seat.touch(tables.now(), tables);
    }
    if packet.is_udp() || packet.flags() & flag::RST != 0 {
        return Step::drop(backend.service, Reason::Cut);
    }
    let client = (of.key.client, of.key.client_port);
    tell_cut(packet, client, (of.key.service, of.key.service_port), of.id, 1, tables);
    Step::reset(backend.service, Reason::Cut)
}
