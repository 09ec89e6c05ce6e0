//! Stage 4: which backend takes a new connection?

use lb_common::abi::{Backend, Service, algorithm, backend_state};

use crate::{Tables, tables::Ring};

/// Slots of the ring that are looked at before nobody is found to serve. Slots name only backends that could serve
/// when the ring was published, so a miss lasts as long as a publication takes.
const TRIES: u32 = 8;

/// A backend that can take a new connection, with its id.
#[derive(Clone, Copy)]
pub struct Candidate {
    /// Id of the (service, backend) pair.
    pub id: u32,
    /// The backend.
    pub backend: Backend,
}

/// A drawn backend: as much of it as the choice needs. Id 0 is nobody's, so a draw that found nobody is a plain value:
/// an `Option` would leave words unset on the stack, which the verifier refuses to see spilled.
#[derive(Clone, Copy)]
struct Draw {
    id: u32,
    weight: u32,
}

const NOBODY: Draw = Draw { id: 0, weight: 0 };

/// Choose by the service's algorithm; `None`: nobody can serve.
#[inline(always)]
pub fn select<T: Tables>(service: &Service, tables: &T) -> Option<Candidate> {
    if service.ring_length == 0 {
        return None;
    }
    let id = tables.draw(Ring {
        service: service.id,
        offset: service.ring_offset,
        length: service.ring_length,
        algorithm: u32::from(service.algorithm),
    });
    if id == NOBODY.id {
        return None;
    }
    Some(Candidate { id, backend: tables.backend(id)? })
}

/// Draw a backend's id from a ring; 0: nobody.
///
/// In the kernel this is a global function, as [`search`](crate::claim::search) is and for the same reason.
#[inline(always)]
pub fn draw<T: Tables>(ring: Ring, tables: &T) -> u32 {
    if ring.length == 0 {
        return NOBODY.id;
    }
    if ring.algorithm == u32::from(algorithm::ROUND_ROBIN) {
        round_robin(ring, tables).id
    } else {
        least_load(ring, tables).id
    }
}

/// The ring is laid out in turns by weight, so walking it is weighted round robin.
#[inline(always)]
fn round_robin<T: Tables>(ring: Ring, tables: &T) -> Draw {
    for _ in 0..TRIES {
        let draw = at(ring, tables.ticket(ring.service), tables);
        if draw.id != NOBODY.id {
            return draw;
        }
    }
    NOBODY
}

/// The better of two different random candidates, each drawn in proportion to its weight (M. Mitzenmacher, "The Power
/// of Two Choices in Randomized Load Balancing", 2001), by live connections over weight.
#[inline(always)]
fn least_load<T: Tables>(ring: Ring, tables: &T) -> Draw {
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
    first
}

/// The candidate with the lower (live + 1) / weight. One is added so that an idle node with a small weight, which may
/// be recovering, does not win every draw.
#[inline(always)]
fn less_loaded<T: Tables>(a: Draw, b: Draw, tables: &T) -> Draw {
    let load = |of: Draw| tables.account(of.id).map_or(0, |account| account.live()) + 1;
    if load(a) * u64::from(b.weight) <= load(b) * u64::from(a.weight) { a } else { b }
}

#[inline(always)]
fn at<T: Tables>(ring: Ring, number: u32, tables: &T) -> Draw {
    let slot = tables.slot(ring.offset.wrapping_add(number % ring.length));
    let Some(id) = slot else { return NOBODY };
    match tables.backend(id) {
        // The map of services may hand out a value while it is replaced; a ring of another service is never followed.
        Some(backend) if backend.state == backend_state::ACTIVE && backend.service == ring.service => {
            Draw { id, weight: backend.weight }
        }
        _ => NOBODY,
    }
}
