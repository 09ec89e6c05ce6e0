//! The four modes over a connection's life: what is rewritten, what is seen, and what is counted.

use lb_common::{
    Reason,
    abi::{backend_state, mode},
    cell::Phase::{Answered, Closed, Embryonic, Established},
};

use crate::packets::{
    Case, Fact, Life, Sum,
    expect::{complained, dropped, reset, to_backend, to_client, untouched},
    message::Trouble,
    scene::{A, A2, ADMIN, B, CLIENT, FOUR_PORTS, MODES, OTHER, TRUSTS, WEB_ID},
    segment::{ACK, CLIENT_ISN, FIN, PSH, RST, SERVER_ISN, SYN, answer, client, datagram, server},
};

fn held(life: Life) -> Fact {
    Fact::Connection { client: CLIENT, backend: A, place: 0, life, age: 5_000 }
}

pub(super) fn cases() -> Vec<Case> {
    [every_mode(), dnat(), one_sided(), one_sided_ends(), sums(), hairpin()].concat()
}

/// What no mode does differently.
fn every_mode() -> Vec<Case> {
    let modes = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode);
        [
            case("a handshake, and data of any length after it")
                .handshake()
                .send(client(ACK | PSH).data(1), to_backend(A), &[Established])
                .send(client(ACK | PSH).data(1440), to_backend(A), &[Established]),
            case("an established connection stays where it is when its backend leaves the ring")
                .given(held(Life::Established))
                .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
                .given(Fact::Ring(WEB_ID, vec![B]))
                .send(client(ACK).data(10), to_backend(A), &[Established]),
            case("a SYN on a connection whose backend takes no new ones is judged afresh")
                .ports(FOUR_PORTS)
                .given(held(Life::ClosedByClient))
                .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
                .given(Fact::Ring(WEB_ID, vec![B]))
                .send(
                    client(SYN),
                    to_backend(B).opens(B).counted(WEB_ID, Reason::SynOnOldFlow),
                    if *mode == mode::SNAT {
                        &[lb_common::cell::Phase::Resting, Embryonic][..]
                    } else {
                        &[Embryonic]
                    },
                ),
            case("a packet for a backend that is gone gets a RST that fits")
                .given(held(Life::Established))
                .given(Fact::State(A, backend_state::ABSENT))
                .send(client(ACK), reset(Reason::BackendGone, SERVER_ISN + 1, None), &[Established])
                .send(client(RST), dropped(Reason::BackendGone), &[Established]),
            case("without backends a SYN gets a RST").given(Fact::Ring(WEB_ID, vec![])).send(
                client(SYN),
                reset(Reason::NoBackendReset, 0, Some(CLIENT_ISN + 1)),
                &[],
            ),
            case("a backend without a known next hop gets nothing")
                .given(held(Life::Established))
                .given(Fact::Unresolved(A))
                .send(client(ACK), dropped(Reason::NextHopUnresolved), &[Established]),
            case("a datagram finds a backend, and the next one follows it")
                .udp()
                .send(datagram(100), to_backend(A).opens(A), &[Embryonic])
                .given(Fact::Ring(WEB_ID, vec![B]))
                .send(
                    datagram(0),
                    to_backend(A),
                    if mode::is_one_sided(*mode) { &[Answered] } else { &[Embryonic] },
                ),
            case("a packet with options or extension headers keeps them")
                .given(held(Life::Established))
                .send(
                    client(ACK).ip_options(&[1; 24]).extensions(&[(0, 0), (60, 1)]).data(77),
                    to_backend(A),
                    &[Established],
                ),
            case("padding behind the packet stays where it is").given(held(Life::Established)).send(
                client(ACK).padding(6),
                to_backend(A),
                &[Established],
            ),
        ]
    });
    modes.collect()
}

fn dnat() -> Vec<Case> {
    let case = |what: &str| Case::new(format!("dnat: {what}")).mode(mode::DNAT);
    vec![
        case("the answer goes back to the client from the service's address").handshake().send(
            server(A, ACK | PSH).data(1000),
            to_client(A),
            &[Established],
        ),
        case("acknowledging another number proves nothing")
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered])
            .send(client(ACK).ack(SERVER_ISN), to_backend(A), &[Answered])
            .send(client(ACK), to_backend(A), &[Established]),
        case("both FINs close the account, in either order")
            .given(held(Life::Established))
            .send(server(A, FIN | ACK), to_client(A), &[Established])
            .send(client(FIN | ACK), to_backend(A).closes(A), &[Closed])
            .send(server(A, ACK), to_client(A), &[Closed]),
        case("a RST of the server closes for good")
            .given(held(Life::Established))
            .send(server(A, RST), to_client(A).closes(A), &[Closed])
            .send(client(ACK).data(3), to_backend(A), &[Closed]),
        case("data after a client's RST restores the connection")
            .given(held(Life::Established))
            .send(client(RST), to_backend(A).closes(A), &[Closed])
            .send(server(A, ACK | PSH).data(3), to_client(A).opens(A), &[Established]),
        case("a server's packet to a client that has no connection is its own business")
            .given(held(Life::Established))
            .send(server(A, ACK).of(OTHER), untouched(), &[Established]),
        case("a server that the client has left for another one is not heard any more")
            .given(held(Life::Established))
            .send(server(B, ACK).data(10), dropped(Reason::ReplyWithoutFlow), &[Established])
            .send(server(B, RST), dropped(Reason::ReplyWithoutFlow), &[Established])
            .send(server(A, ACK).data(10), to_client(A), &[Established]),
        case("a server that two services share answers from the address that its client asked")
            .given(Fact::Connection {
                client: CLIENT,
                backend: A2,
                place: 0,
                life: Life::Established,
                age: 0,
            })
            .send(server(A2, ACK).data(5), to_client(A2), &[Established])
            .send(client(ACK).to(ADMIN), to_backend(A2), &[Established]),
        case("an answer with TTL 1 is answered with time exceeded").given(held(Life::Established)).send(
            server(A, ACK).ttl(1),
            complained(Reason::TtlExceeded, Trouble::TimeExceeded),
            &[Established],
        ),
        case("a datagram's conversation is confirmed by its answer")
            .udp()
            .send(datagram(40), to_backend(A).opens(A), &[Embryonic])
            .send(answer(A, 512), to_client(A), &[Established])
            .send(datagram(40), to_backend(A), &[Established]),
        case("a backend that keeps the client's port is answered for by any port")
            .given(Fact::KeepsPort(A))
            .handshake()
            .send(server(A, ACK | PSH).data(3), to_client(A), &[Established]),
        case("a connection that was met midway is sent by the ring, recorded, and proven by an answer")
            .send(
                client(ACK).data(9),
                to_backend(A).opens(A).counted(WEB_ID, Reason::UnknownByRing),
                &[Answered],
            )
            .send(server(A, ACK), to_client(A), &[Established]),
        case("a FIN or a RST that nothing is known of is sent by the ring and not recorded")
            .send(client(FIN | ACK), to_backend(A).counted(WEB_ID, Reason::UnknownByRing), &[])
            .send(client(RST), to_backend(A).counted(WEB_ID, Reason::UnknownByRing), &[]),
    ]
}

fn one_sided() -> Vec<Case> {
    let modes = [("dsr", mode::DSR), ("ipip", mode::IPIP)];
    let table = modes.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode);
        [
            case("a client that speaks twice within a second is not believed yet")
                .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
                .send(client(ACK), to_backend(A), &[Answered])
                .send(client(ACK).data(5), to_backend(A), &[Answered]),
            case("a client that speaks again a second later stays")
                .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
                .send(client(ACK), to_backend(A), &[Answered])
                .given(Fact::Pass(1_200))
                .send(client(ACK).data(5), to_backend(A), &[Established]),
            case("a SYN sent again proves nothing, however late")
                .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
                .given(Fact::Pass(3_000))
                .send(client(SYN), to_backend(A), &[Embryonic]),
            case("a backend's answer passes by, and is nobody's business here")
                .given(held(Life::Established))
                .send(server(A, ACK).data(5), untouched(), &[Established]),
            case("datagrams confirm a conversation once a second has passed")
                .udp()
                .send(datagram(9), to_backend(A).opens(A), &[Embryonic])
                .send(datagram(9), to_backend(A), &[Answered])
                .given(Fact::Pass(1_200))
                .send(datagram(9), to_backend(A), &[Established]),
            case("an unknown ACK goes where the ring says, and is recorded")
                .send(
                    client(ACK).data(9),
                    to_backend(A).opens(A).counted(WEB_ID, Reason::UnknownByRing),
                    &[Answered],
                )
                .given(Fact::Pass(1_200))
                .send(client(ACK), to_backend(A), &[Established]),
        ]
    });
    table.collect()
}

fn one_sided_ends() -> Vec<Case> {
    let modes = [("dsr", mode::DSR), ("ipip", mode::IPIP)];
    let table = modes.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode);
        [
            case("a client's FIN closes the account, and goes on to the backend")
                .given(held(Life::Established))
                .send(client(FIN | ACK), to_backend(A).closes(A), &[Closed])
                .send(client(ACK), to_backend(A), &[Closed]),
            case("data after a FIN or a RST that somebody forged restores the connection")
                .given(held(Life::Established))
                .send(client(FIN | ACK), to_backend(A).closes(A), &[Closed])
                .send(client(ACK).data(20), to_backend(A).opens(A), &[Established])
                .send(client(RST), to_backend(A).closes(A), &[Closed])
                .send(client(ACK).data(20), to_backend(A).opens(A), &[Established]),
            case("a SYN after a FIN is judged afresh")
                .given(held(Life::Established))
                .send(client(FIN | ACK), to_backend(A).closes(A), &[Closed])
                .given(Fact::Ring(WEB_ID, vec![B]))
                .send(
                    client(SYN),
                    to_backend(B).opens(B).counted(WEB_ID, Reason::SynOnOldFlow),
                    &[Embryonic],
                ),
        ]
    });
    let hops = [
        Case::new("dsr: nothing is routed, so a packet with one hop left goes on as it is")
            .mode(mode::DSR)
            .given(held(Life::Established))
            .send(client(ACK).ttl(1), to_backend(A), &[Established]),
        Case::new("ipip: a packet with one hop left is answered with time exceeded")
            .mode(mode::IPIP)
            .given(held(Life::Established))
            .send(client(ACK).ttl(1), complained(Reason::TtlExceeded, Trouble::TimeExceeded), &[Established]),
        Case::new("ipip: the tunnel's header begins behind the tags")
            .mode(mode::IPIP)
            .given(held(Life::Established))
            .send(client(ACK).tag(0x8100, 0x2005).data(3), to_backend(A), &[Established])
            .send(
                client(ACK).tag(0x88a8, 0x0007).tag(0x8100, 0x2005).data(30),
                to_backend(A),
                &[Established],
            ),
    ];
    table.chain(hops).collect()
}

/// A checksum that was left to hardware, in modes that do not touch what it covers.
fn sums() -> Vec<Case> {
    let modes = [("dnat", mode::DNAT), ("dsr", mode::DSR), ("ipip", mode::IPIP)];
    let made = |trust| {
        let forwarded = to_backend(A);
        match trust {
            lb_common::abi::checksums::MAKE_WHOLE => forwarded.counted(WEB_ID, Reason::ChecksumCompleted),
            _ => forwarded,
        }
    };
    let table =
        modes.iter().flat_map(|(name, mode)| {
            TRUSTS.iter().flat_map(move |(trusted, trust)| {
                let case =
                    |what: &str| Case::new(format!("{name}: {what} ({trusted})")).mode(*mode).trust(*trust);
                [
                    case("a partial sum over TCP").given(held(Life::Established)).send(
                        client(ACK).data(701).sum(Sum::Partial),
                        made(*trust),
                        &[Established],
                    ),
                    case("a partial sum over a datagram").udp().given(held(Life::Established)).send(
                        datagram(33).sum(Sum::Partial),
                        made(*trust),
                        &[Established],
                    ),
                    case("a sum that was damaged on the wire stays wrong")
                        .given(held(Life::Established))
                        .send(client(ACK).data(7).sum(Sum::Raw(0x4321)), to_backend(A), &[Established]),
                ]
            })
        });
    table.collect()
}

fn hairpin() -> Vec<Case> {
    let same = std::net::SocketAddrV4::new(*CLIENT.ip(), 9000);
    let modes = MODES.iter().filter(|(_, mode)| *mode != mode::SNAT).map(|(name, mode)| {
        Case::new(format!("{name}: a backend that is its own client gets a RST"))
            .mode(*mode)
            .given(Fact::Address(A, *same.ip()))
            .send(client(SYN), reset(Reason::Hairpin, 0, Some(CLIENT_ISN + 1)), &[])
            .send(client(ACK), reset(Reason::Hairpin, SERVER_ISN + 1, None), &[])
    });
    let snat = Case::new("snat: a backend may be a client of its own service")
        .given(Fact::Address(A, *same.ip()))
        .send(client(SYN), to_backend(A).opens(A), &[Embryonic]);
    modes.chain([snat]).collect()
}
