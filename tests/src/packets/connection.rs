//! Connections that stand in the tables before the first packet.

use std::net::{Ipv4Addr, SocketAddrV4};

use lb_common::{
    Be16, Ticks,
    abi::{Hop, UDP, mode},
    cell::{Owner, Phase, PortCell, Side, Signs},
    flow::{Record, SLOTS, Way},
};

use super::{
    fact::rows_of,
    kind::Kind,
    scene::{self, FRONT, ROUTER_MAC, first_cell},
    segment::SERVER_ISN,
    world::{Store, add_slot, buckets, slots},
};

/// How far a connection has come before the first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Its SYN was forwarded.
    Embryonic,
    /// Its SYN was answered.
    Answered,
    /// It is established.
    Established,
    /// Both have sent a FIN, the client first.
    ClosedByClient,
    /// Both have sent a FIN, the server first.
    ClosedByServer,
    /// The client has sent a RST.
    ResetByClient,
    /// Its flow has been removed since.
    Resting,
    /// Its flow has been removed since; the server had closed first.
    RestingByServer,
    /// Its port is changing hands.
    Busy,
}

/// The owner word after a life.
fn owner<A: Kind>(client: SocketAddrV4, life: Life) -> Owner {
    use Side::{Client, Server};
    let nothing = Signs::default();
    let syn_ack = (Server, Signs { syn_ack: true, ..nothing });
    let proof = (Client, Signs { proves: true, ..nothing });
    let fin = |side| (side, Signs { fin: true, ..nothing });
    let rst = (Client, Signs { rst: true, ..nothing });
    let signs = match life {
        Life::Embryonic | Life::Busy => vec![],
        Life::Answered => vec![syn_ack],
        Life::Established => vec![syn_ack, proof],
        Life::ClosedByClient | Life::Resting => vec![syn_ack, proof, fin(Client), fin(Server)],
        Life::ClosedByServer | Life::RestingByServer => vec![syn_ack, proof, fin(Server), fin(Client)],
        Life::ResetByClient => vec![syn_ack, proof, rst],
    };
    let port = Be16::from_host(client.port());
    let embryo = Owner::next(Owner(0), A::of(*client.ip()), port, Phase::Embryonic);
    let owner = signs.into_iter().fold(embryo, |owner, (side, signs)| owner.after(side, signs));
    match life {
        Life::Resting | Life::RestingByServer => owner.with_phase(Phase::Resting),
        Life::Busy => owner.with_phase(Phase::Busy),
        _ => owner,
    }
}

/// Put a connection into the tables.
pub(super) fn connection<A: Kind>(
    world: &mut impl Store<A>,
    client: SocketAddrV4,
    backend: u16,
    place: u32,
    life: Life,
    age: Ticks,
) {
    let entry = world.backend_at(backend);
    let (service, address) = scene::service_of(backend);
    let datagrams = entry.protocol == UDP;
    let owner = owner::<A>(client, life).of_datagrams(datagrams);
    for row in rows_of(backend) {
        let mut account = world.account_at(row);
        account.opened += 1;
        account.closed += u64::from(!owner.is_live());
        world.set_account(row, account);
    }
    let seen = world.now().raw().wrapping_sub(age.raw());
    let isn = if life == Life::Embryonic { 0 } else { SERVER_ISN };
    let hop = Hop { mac: ROUTER_MAC, interface: FRONT };
    let record = Record {
        way: Way::hop(hop),
        seen,
        word: if mode::is_one_sided(entry.mode) { seen } else { isn },
        backend,
        service,
        service_port: Be16::from_host(address.port()),
        vlan: 0,
        client: A::of(*client.ip()).rest(),
    };
    if entry.mode != mode::SNAT {
        add_slot(world, owner, record);
        return;
    }
    let ranges = world.config().ports;
    let index = first_cell(backend, ranges) + place;
    let cell = PortCell {
        owner,
        hop,
        seen,
        word: isn,
        backend,
        service_port: record.service_port,
        vlan: 0,
        pad: 0,
        client: record.client,
    };
    world.set_cell(index, cell);
    if owner.is_live() || owner.phase() == Phase::Closed {
        let source_port = Be16::from_host(ranges.port(place));
        let way = Way::port(index, entry.source, source_port);
        let linked = Owner::next(Owner(0), A::of(*client.ip()), owner.client_port(), Phase::Linked);
        let proven = !matches!(life, Life::Embryonic | Life::Answered);
        let linked = linked.link_with(proven, owner.phase() == Phase::Closed).of_datagrams(datagrams);
        add_slot(world, linked, Record { way, word: 0, ..record });
    }
}

/// Take all room of the flow table by strangers' connections.
pub(super) fn crowd<A: Kind>(world: &mut impl Store<A>, backend: u16, life: Life, age: Ticks) {
    let room = buckets::<A>(&world.config()) as usize * SLOTS;
    assert_eq!(
        room, SLOTS,
        "a crowd wants one bucket, for a stranger's two may be full before the others are"
    );
    let taken = slots::<A>(world).len();
    for number in taken..room {
        let client = stranger(number as u32);
        connection(world, client, backend, number as u32, life, age);
    }
}

/// A client that nobody knows.
pub const fn stranger(number: u32) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(100, 64, 0, number as u8), 20_000 + number as u16)
}

/// Cut a client's connections, as the agent does.
pub(super) fn cut<A: Kind>(world: &mut impl Store<A>, client: SocketAddrV4) {
    let (tag, port) = (A::of(*client.ip()).tag(), Be16::from_host(client.port()));
    let mut ended = Vec::new();
    for index in 0..world.cell_count() {
        let mut cell = world.cell_at(index);
        if cell.owner.has(tag, port) && cell.owner.is_held() {
            if cell.owner.is_live() {
                ended.push(cell.backend);
            }
            cell.owner = cell.owner.cut();
            world.set_cell(index, cell);
        }
    }
    for index in 0..buckets::<A>(&world.config()) {
        let mut bucket = world.bucket_at(index);
        for place in 0..SLOTS {
            let owner = bucket.owners[place];
            if owner.has(tag, port) && owner.is_held() {
                if owner.is_live() {
                    ended.push(bucket.records[place].backend);
                }
                bucket.owners[place] = owner.cut();
            }
        }
        world.set_bucket(index, bucket);
    }
    for row in ended.into_iter().flat_map(rows_of) {
        let mut account = world.account_at(row);
        account.closed_by_agent += 1;
        world.set_account(row, account);
    }
}
