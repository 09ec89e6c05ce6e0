//! Stage 4: which backend takes a new connection?

use lb_common::{
    Address,
    abi::{Backend, Service, algorithm, backend_state, server_account},
    flow::FlowKey,
    ring,
};

use crate::{Tables, tables::Ring};

/// Slots of the ring that are looked at before nobody is found to serve. Slots name only backends that could serve
/// when the ring was published, so a miss lasts as long as a publication takes, or as long as backends are full.
const TRIES: u32 = 8;

/// The largest pool whose every member is looked at for the least connections.
const SMALL: u32 = 16;

/// A backend that can take a new connection, with its id.
#[derive(Clone, Copy)]
pub struct Candidate<A> {
    /// Id of the (service, backend) pair.
    pub id: u16,
    /// The backend.
    pub backend: Backend<A>,
}

/// A drawn backend: as much of it as the choice needs. Id 0 is nobody's, so a draw that found nobody is a plain value:
/// an `Option` would leave words unset on the stack, which the verifier refuses to see spilled.
#[derive(Clone, Copy)]
struct Draw {
    id: u16,
    weight: u32,
}

const NOBODY: Draw = Draw { id: 0, weight: 0 };

/// Choose by the service's algorithm; `None`: nobody can serve.
#[inline(always)]
pub fn select<A: Address, T: Tables<A>>(
    service: &Service,
    key: &FlowKey<A>,
    tables: &T,
) -> Option<Candidate<A>> {
    choose(service, key, service.algorithm, tables)
}

/// Choose where the ring says, whatever the service's algorithm: for packets that nothing is recorded of. One that does
/// not begin a connection (`begins`) goes to its slot's owner even if that is full or takes no new ones.
#[inline(always)]
pub fn by_ring<A: Address, T: Tables<A>>(
    service: &Service,
    key: &FlowKey<A>,
    begins: bool,
    tables: &T,
) -> Option<Candidate<A>> {
    let by = if service.algorithm == algorithm::SOURCE_HASH { service.algorithm } else { algorithm::MAGLEV };
    choose(service, key, if begins { by } else { by | OLD }, tables)
}

/// Beside an algorithm by hash: for a connection that may be older than what the owner of its slot takes now.
const OLD: u8 = 0x80;

#[inline(always)]
fn choose<A: Address, T: Tables<A>>(
    service: &Service,
    key: &FlowKey<A>,
    by: u8,
    tables: &T,
) -> Option<Candidate<A>> {
    if service.ring_length == 0 {
        return None;
    }
    let id = tables.draw(Ring {
        service: service.id,
        algorithm: by,
        offset: service.ring_offset,
        length: service.ring_length,
        members: service.members,
        hash: match by & !OLD {
            algorithm::MAGLEV => ring::hash(key, service.ring_seed, false),
            algorithm::SOURCE_HASH => ring::hash(key, service.ring_seed, true),
            _ => 0,
        },
    });
    if id == NOBODY.id {
        return None;
    }
    Some(Candidate { id, backend: tables.backend(id)? })
}

/// Draw a backend's id from a ring; 0: nobody. In the kernel a function of its own, see [`tables`](crate::tables).
#[inline(always)]
pub fn draw<A: Address, T: Tables<A>>(ring: Ring, tables: &T) -> u16 {
    if ring.length == 0 {
        return NOBODY.id;
    }
    match ring.algorithm & !OLD {
        algorithm::ROUND_ROBIN => round_robin(ring, tables).id,
        algorithm::LEAST_CONN if u32::from(ring.members) <= SMALL => least_of_all(ring, tables).id,
        algorithm::MAGLEV | algorithm::SOURCE_HASH => hashed(ring, tables).id,
        _ => least_of_two(ring, tables).id,
    }
}

/// The ring is laid out in turns by weight, so walking it is weighted round robin.
#[inline(always)]
fn round_robin<A: Address, T: Tables<A>>(ring: Ring, tables: &T) -> Draw {
    for _ in 0..TRIES {
        let draw = at(ring, tables.ticket(ring.service), tables);
        if draw.id != NOBODY.id {
            return draw;
        }
    }
    NOBODY
}

/// The client's own slot; where its owner cannot serve at this moment, those that a further hash names.
#[inline(always)]
fn hashed<A: Address, T: Tables<A>>(ring: Ring, tables: &T) -> Draw {
    let mut number = ring.hash;
    for _ in 0..TRIES {
        let draw = at(ring, number, tables);
        if draw.id != NOBODY.id {
            return draw;
        }
        number = number.wrapping_mul(0x9e37_79b1).wrapping_add(0x7f4a_7c15);
    }
    NOBODY
}

/// The better of two different random candidates, each drawn in proportion to its weight (M. Mitzenmacher, "The Power
/// of Two Choices in Randomized Load Balancing", 2001), by live connections over weight.
#[inline(always)]
fn least_of_two<A: Address, T: Tables<A>>(ring: Ring, tables: &T) -> Draw {
    let mut first = NOBODY;
    for _ in 0..TRIES {
        let draw = at(ring, tables.random(), tables);
        if draw.id == NOBODY.id || draw.id == first.id {
            continue;
        }
        if first.id != NOBODY.id {
            return less_loaded(first, draw, tables);
        }
        first = draw;
    }
    if first.id == NOBODY.id { anybody(ring, tables) } else { first }
}

/// The least loaded of a small pool's members, all of which stand behind the ring's last slot. The first look is at a
/// random one, so that equals take turns.
#[inline(always)]
fn least_of_all<A: Address, T: Tables<A>>(ring: Ring, tables: &T) -> Draw {
    let members = Ring { offset: ring.offset.wrapping_add(ring.length), length: ring.members.into(), ..ring };
    if members.length == 0 {
        return NOBODY;
    }
    let start = tables.random() % members.length;
    let mut best = NOBODY;
    for step in 0..SMALL {
        if step >= members.length {
            break;
        }
        let draw = at(members, start + step, tables);
        if draw.id != NOBODY.id {
            best = if best.id == NOBODY.id { draw } else { less_loaded(best, draw, tables) };
        }
    }
    best
}

/// Where random draws met only backends that cannot serve, a small pool's members are asked one by one.
#[inline(always)]
fn anybody<A: Address, T: Tables<A>>(ring: Ring, tables: &T) -> Draw {
    if u32::from(ring.members) <= SMALL { least_of_all(ring, tables) } else { NOBODY }
}

/// The candidate with the lower (live + 1) / weight. One is added so that an idle node with a small weight, which may
/// be recovering, does not win every draw.
#[inline(always)]
fn less_loaded<A: Address, T: Tables<A>>(a: Draw, b: Draw, tables: &T) -> Draw {
    let load = |of: Draw| tables.account(of.id.into()).map_or(0, |account| account.live()) + 1;
    if load(a) * u64::from(b.weight) <= load(b) * u64::from(a.weight) { a } else { b }
}

#[inline(always)]
fn at<A: Address, T: Tables<A>>(ring: Ring, number: u32, tables: &T) -> Draw {
    let slot = tables.slot(ring.offset.wrapping_add(number % ring.length));
    let Some(id) = slot.map(|word| word as u16) else { return NOBODY };
    match tables.backend(id) {
        // The map of services may hand out a value while it is replaced; a ring of another service is never followed.
        Some(backend) if backend.service == ring.service && ring.algorithm & OLD != 0 => {
            let serves = matches!(backend.state, backend_state::ACTIVE | backend_state::CLOSED_TO_NEW);
            if serves { Draw { id, weight: backend.weight } } else { NOBODY }
        }
        Some(backend) if backend.state == backend_state::ACTIVE && backend.service == ring.service => {
            let full = backend.server != 0
                && tables.account(server_account(backend.server)).is_some_and(|account| account.is_full());
            if full { NOBODY } else { Draw { id, weight: backend.weight } }
        }
        _ => NOBODY,
    }
}
