//! Settled slots: services of which nothing is recorded while their ring stands still.
//!
//! A slot of such a service's ring names two backends: the owner, and the owner when the slot was last settled. Where
//! they are the same, every packet goes there, and nothing is looked up. Where they differ, what is recorded follows
//! its record; a SYN goes to the owner and is recorded; any other packet goes to the former owner and is recorded; and
//! what cannot be recorded goes to the former owner, SYNs too. So what is not recorded always means the former owner,
//! and a full table is still consistent.

use lb_common::{Address, abi::Service, flow::FlowKey, ring::Slot};

use crate::Tables;

/// The slot of a client in its service's ring; `None`: the ring is empty.
#[inline(always)]
pub fn slot_of<A: Address, T: Tables<A>>(service: &Service, key: &FlowKey<A>, tables: &T) -> Option<Slot> {
    let place = service.place_of(key)?;
    tables.slot(service.ring_offset.wrapping_add(place)).map(Slot::read)
}
