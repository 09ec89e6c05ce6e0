//! Stage 5, for a new connection in `dnat`, `dsr` and `ipip`: a slot of its own in the flow table.

use lb_common::{
    Address,
    abi::mode,
    cell::Phase,
    flow::{Record, Way},
};

use crate::{
    Tables,
    claim::Newcomer,
    flows::{NotAdded, insert},
};

/// Record which backend takes a connection. `begins`: its first packet is at hand; else it was met midway, and any
/// answer that is no RST proves it.
#[inline(always)]
pub fn record<A: Address, T: Tables<A>>(
    new: &Newcomer<A>,
    backend: u16,
    by: u8,
    begins: bool,
    tables: &T,
) -> Result<(), NotAdded> {
    let now = tables.now().raw();
    let record = Record {
        way: Way::hop(new.hop),
        seen: now,
        word: if mode::is_one_sided(by) { now } else { tables.micros() },
        backend,
        service: new.key.service,
        service_port: new.key.service_port,
        vlan: new.vlan,
        client: new.key.client.rest(),
    };
    let phase = if begins { Phase::Embryonic } else { Phase::Answered };
    insert(&new.key, &record, phase, tables).map(|_| ())
}
