//! Events for the agent: what a connection's own packets show of its backend.

use lb_common::{
    Address, Be16,
    event::{Event, kind},
    flow::FlowKey,
};

use crate::{Tables, family::Family, parse::Packet};

/// An event about a connection.
#[inline(always)]
fn event<A: Address>(kind: u8, key: &FlowKey<A>, backend: u16, value: u32) -> Event {
    let (low, high) = key.client.words();
    Event {
        client: [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32],
        sequence: 0,
        acknowledgement: 0,
        value,
        backend,
        service: key.service,
        client_port: key.client_port,
        service_port: key.service_port,
        kind,
        version: A::VERSION,
        side: 0,
        pad: 0,
    }
}

/// Tell of a backend, at most once a tick for each kind.
#[inline(always)]
pub fn tell<A: Address, T: Tables<A>>(kind: u8, key: &FlowKey<A>, backend: u16, value: u32, tables: &T) {
    if tables.gate(backend, kind) {
        tables.report(&event(kind, key, backend, value));
    }
}

/// Tell that a side of a cut connection has spoken: all of them, for each is waited for.
#[inline(always)]
pub fn tell_cut<A: Family, T: Tables<A>>(
    packet: &Packet<A>,
    client: (A, Be16),
    service: (u16, Be16),
    backend: u16,
    side: u8,
    tables: &T,
) {
    let key =
        FlowKey { client: client.0, client_port: client.1, service_port: service.1, service: service.0 };
    let told = event(kind::CUT, &key, backend, 0);
    tables.report(&Event {
        sequence: packet.sequence(),
        acknowledgement: packet.acknowledgement(),
        side,
        ..told
    });
}
