//! The hot path: a packet of a connection that goes on as it is. Whatever moves a connection on, begins one or ends
//! one is for the stages after this.

use lb_common::{
    abi::{Backend, Service, backend_state, service_flag},
    cell::{Owner, Phase},
};

use crate::{
    Tables, answer,
    family::Family,
    flows::{Found, find},
    lookup::{Direction, Held, look_up},
    parse::Packet,
    reply,
    request::{route, straight},
    rewrite::Route,
    select::Candidate,
    settled::slot_of,
};

/// Where a packet goes that changes nothing.
pub enum Steady<A> {
    /// Its way.
    Onward(Route<A>),
    /// A backend's, that may change something.
    Heard,
    /// A client's, that may change something.
    Turning,
    /// It is not ours.
    NotOurs,
    /// It would be, but may not be as it is.
    Malformed,
}

/// Find the way of a packet that changes nothing.
#[inline(always)]
pub fn steady<A: Family, T: Tables<A>>(packet: &Packet<A>, tables: &T) -> Steady<A> {
    let turns = packet.turns();
    let (route, otherwise) = match look_up(packet, tables) {
        Direction::Neither => return Steady::NotOurs,
        _ if packet.lacks_checksum() => return Steady::Malformed,
        Direction::Reply(_) | Direction::Answer(_) if turns => return Steady::Heard,
        Direction::Request(_) if turns => return Steady::Turning,
        Direction::Reply(held) => (reply_route(&held, tables), Steady::Heard),
        Direction::Answer(found) => (answer_route(packet, &found, tables), Steady::Heard),
        Direction::Request(service) => (request_route(packet, &service, tables), Steady::Turning),
    };
    match route {
        Some(route) => Steady::Onward(route),
        None => otherwise,
    }
}

/// The way of a backend's packet back to its client, whatever it says: it has been judged already.
#[inline(always)]
pub fn answered<A: Family, T: Tables<A>>(packet: &Packet<A>, tables: &T) -> Option<Route<A>> {
    match look_up(packet, tables) {
        Direction::Reply(held) => Some(reply::route(&held, &tables.backend(held.cell.backend)?)),
        Direction::Answer(found) => {
            Some(answer::route(packet, &found, &tables.backend(found.record.backend)?))
        }
        Direction::Request(_) | Direction::Neither => None,
    }
}

#[inline(always)]
const fn goes_on(owner: Owner) -> bool {
    matches!(owner.phase(), Phase::Established) && !owner.is_cut()
}

#[inline(always)]
const fn is_there<A: Family>(backend: &Backend<A>) -> bool {
    matches!(backend.state, backend_state::ACTIVE | backend_state::CLOSED_TO_NEW)
}

#[inline(always)]
fn reply_route<A: Family, T: Tables<A>>(held: &Held<A>, tables: &T) -> Option<Route<A>> {
    let backend = tables.backend(held.cell.backend)?;
    // An absent backend's answers still find their clients, until their connections are ended.
    if !goes_on(held.cell.owner) || backend.state == backend_state::CUT {
        return None;
    }
    let now = tables.now();
    if now != held.cell.seen() {
        tables.touch_cell(held.index, now);
    }
    Some(reply::route(held, &backend))
}

#[inline(always)]
fn answer_route<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    found: &Found<A>,
    tables: &T,
) -> Option<Route<A>> {
    let backend = tables.backend(found.record.backend)?;
    let its_own = backend.address == packet.source();
    if !its_own || !goes_on(found.owner) || backend.state == backend_state::CUT {
        return None;
    }
    touch(found, tables);
    Some(answer::route(packet, found, &backend))
}

#[inline(always)]
fn request_route<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    service: &Service,
    tables: &T,
) -> Option<Route<A>> {
    let key = packet.key(service.id);
    if service.flags & service_flag::ON_CHANGE != 0
        && let Some(slot) = slot_of(service, &key, tables)
        && slot.settled
    {
        let (candidate, way) = straight(slot.cur, &key, tables).ok()?;
        return route(packet, &candidate, way, tables);
    }
    let found = find(&key, tables)?;
    if !found.owner.is_steady_link() && !goes_on(found.owner) {
        return None;
    }
    let id = found.record.backend;
    let backend = tables.backend(id).filter(is_there)?;
    touch(&found, tables);
    route(packet, &Candidate { id, backend }, found.record.way, tables)
}

#[inline(always)]
fn touch<A: Family, T: Tables<A>>(found: &Found<A>, tables: &T) {
    let now = tables.now();
    if now != found.record.seen() {
        tables.touch_flow(found.slot, now);
    }
}
