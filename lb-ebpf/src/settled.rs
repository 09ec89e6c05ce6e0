//! Settled slots: services of which nothing is recorded while their ring stands still.
//!
//! A slot of such a service's ring names two backends: the owner, and the owner when the slot was last settled. Where
//! they are the same, every packet goes there, and nothing is looked up. Where they differ, what is recorded follows
//! its record; a SYN goes to the owner and is recorded; any other packet goes to the former owner and is recorded; and
//! what cannot be recorded goes to the former owner, SYNs too. So what is not recorded always means the former owner,
//! and a full table is still consistent.

use lb_common::{
    Address,
    abi::{Service, algorithm},
    flow::FlowKey,
};

use crate::{Tables, parse::ring_hash};

/// A slot: ids of (service, backend) pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// The owner.
    pub current: u16,
    /// The owner when the slot was last settled.
    pub previous: u16,
    /// Nothing is recorded of the slot's packets.
    pub settled: bool,
}

/// In place of a former owner: the slot is not settled, and what is not recorded belongs to the owner itself. So it is
/// where a ring goes back to a former state while records of the state between still live.
pub const SAME: u16 = 0xffff;

/// The slot of a client in its service's ring; `None`: the ring is empty.
#[inline(always)]
pub fn slot_of<A: Address, T: Tables<A>>(service: &Service, key: &FlowKey<A>, tables: &T) -> Option<Slot> {
    if service.ring_length == 0 {
        return None;
    }
    let hash = ring_hash(key, service.ring_seed, service.algorithm == algorithm::SOURCE_HASH);
    let word = tables.slot(service.ring_offset.wrapping_add(hash % service.ring_length))?;
    let (current, previous) = (word as u16, (word >> 16) as u16);
    Some(Slot {
        current,
        previous: if previous == SAME { current } else { previous },
        settled: previous == current,
    })
}
