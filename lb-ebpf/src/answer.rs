//! A backend's answer in `dnat`: its flow was found by the client that it is for.

use lb_common::{Reason, abi::Backend, flow::FlowKey};

use crate::{
    Tables,
    family::Family,
    flows::Found,
    parse::Packet,
    reply::{Conversation, hear},
    rewrite::Route,
    seat::Seat,
    step::Step,
    verdict::Way,
};

/// The way of a backend's packet back to its client.
#[inline(always)]
pub fn to_client_of_flow<A: Family, T: Tables<A>>(packet: &Packet<A>, found: &Found<A>, tables: &T) -> Step {
    let record = found.record;
    let Some(backend) = tables.backend(record.backend) else {
        return Step::drop(record.service, Reason::ReplyWithoutFlow);
    };
    // The client has come to another backend since, and must not hear the one that it left.
    if backend.address != packet.source() {
        return Step::drop(record.service, Reason::ReplyWithoutFlow);
    }
    let conversation = Conversation {
        seat: Seat::Slot(found.slot),
        owner: found.owner,
        id: record.backend,
        since: record.word,
        stale: tables.now() != record.seen(),
        key: FlowKey {
            client: packet.destination(),
            client_port: packet.destination_port(),
            service_port: record.service_port,
            service: record.service,
        },
    };
    if let Err(stopped) = hear(packet, &conversation, &backend, tables) {
        return stopped;
    }
    Step::back(record.service)
}

/// The way of an answer to the client of a flow.
#[inline(always)]
pub fn route<A: Family>(packet: &Packet<A>, found: &Found<A>, backend: &Backend<A>) -> Route<A> {
    let record = &found.record;
    Route {
        service: record.service,
        backend: record.backend,
        way: Way::Out,
        mode: backend.mode,
        source: backend.service_address,
        source_port: record.service_port,
        destination: packet.destination(),
        destination_port: packet.destination_port(),
        hop: record.way.back(),
        mtu: 0,
    }
}
