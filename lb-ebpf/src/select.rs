//! Stage 4: which backend takes a new connection?

use lb_common::abi::{Backend, Service, algorithm, backend_state};

use crate::Tables;

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

/// Choose by the service's algorithm; `None`: nobody can serve.
#[inline(always)]
pub fn select<T: Tables>(service: &Service, tables: &T) -> Option<Candidate> {
    if service.ring_length == 0 {
        return None;
    }
    if service.algorithm == algorithm::ROUND_ROBIN {
        round_robin(service, tables)
    } else {
        least_load(service, tables)
    }
}

/// The ring is laid out in turns by weight, so walking it is weighted round robin.
#[inline(always)]
fn round_robin<T: Tables>(service: &Service, tables: &T) -> Option<Candidate> {
    for _ in 0..TRIES {
        let candidate = at(service, tables.ticket(service.id), tables);
        if candidate.is_some() {
            return candidate;
        }
    }
    None
}

/// The better of two different random candidates, each drawn in proportion to its weight (M. Mitzenmacher, "The Power
/// of Two Choices in Randomized Load Balancing", 2001), by live connections over weight.
#[inline(always)]
fn least_load<T: Tables>(service: &Service, tables: &T) -> Option<Candidate> {
    let mut first: Option<Candidate> = None;
    for _ in 0..TRIES {
        let Some(drawn) = at(service, tables.random(), tables) else { continue };
        match first {
            None => first = Some(drawn),
            Some(before) if before.id != drawn.id => return Some(less_loaded(before, drawn, tables)),
            Some(_) => {}
        }
    }
    first
}

/// The candidate with the lower (live + 1) / weight. One is added so that an idle node with a small weight, which may
/// be recovering, does not win every draw.
#[inline(always)]
fn less_loaded<T: Tables>(a: Candidate, b: Candidate, tables: &T) -> Candidate {
    let load = |of: &Candidate| tables.account(of.id).map_or(0, |account| account.live()) + 1;
    if load(&a) * u64::from(b.backend.weight) <= load(&b) * u64::from(a.backend.weight) { a } else { b }
}

#[inline(always)]
fn at<T: Tables>(service: &Service, number: u32, tables: &T) -> Option<Candidate> {
    let id = tables.slot(service.ring_offset.wrapping_add(number % service.ring_length))?;
    let backend = tables.backend(id)?;
    // The map of services may hand out a value while it is replaced; a ring of another service is never followed.
    if backend.state != backend_state::ACTIVE || backend.service != service.id {
        return None;
    }
    Some(Candidate { id, backend })
}
