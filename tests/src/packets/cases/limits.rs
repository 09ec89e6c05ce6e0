//! Limits: connections of a server over all services, of a service, and of a source address in a time.

use std::net::SocketAddrV4;

use lb_common::{
    Reason,
    abi::{mode, no_backend},
    cell::Phase::{Closed, Embryonic, Established},
};

use crate::packets::{
    Case, Expect, Fact, Life,
    expect::{complained, dropped, reset, to_backend},
    message::Trouble,
    scene::{A, A2, ADMIN, ADMIN_ID, B, CLIENT, FOUR_PORTS, MODES, OTHER, THIRD, WEB_ID},
    segment::{ACK, CLIENT_ISN, FIN, SYN, client, datagram},
};

fn refused(reason: Reason) -> Expect {
    reset(Reason::NoBackendReset, 0, Some(CLIENT_ISN + 1)).counted(WEB_ID, reason)
}

fn held_back(reason: Reason) -> Expect {
    dropped(Reason::NoBackendHold).counted(WEB_ID, reason)
}

pub(super) fn cases() -> Vec<Case> {
    [full(), room(), rates()].concat()
}

fn full() -> Vec<Case> {
    let table = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode).ports(FOUR_PORTS);
        [
            case("the last connection below a server's limit is taken, the next one is not")
                .given(Fact::ServerLimit(1, 5))
                .given(Fact::Live(A, 4))
                .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
                .send(client(SYN).of(OTHER), refused(Reason::BackendsFull), &[Embryonic]),
            case("a server's limit holds over all services that use it")
                .given(Fact::ServerLimit(1, 5))
                .given(Fact::Live(A2, 5))
                .send(client(SYN), refused(Reason::BackendsFull), &[]),
            case("a full server is no candidate: the other one is taken")
                .given(Fact::Ring(WEB_ID, vec![A, B]))
                .given(Fact::ServerLimit(1, 5))
                .given(Fact::Live(A, 5))
                .send(client(SYN), to_backend(B).opens(B), &[Embryonic]),
            case("the last connection below a service's limit is taken, the next one is not")
                .given(Fact::ServiceLimit(WEB_ID, 3))
                .given(Fact::Live(A, 2))
                .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
                .send(client(SYN).of(OTHER), refused(Reason::ServiceFull), &[Embryonic]),
            case("a service's limit is its own")
                .given(Fact::ServiceLimit(ADMIN_ID, 3))
                .given(Fact::Live(A2, 3))
                .send(client(SYN), to_backend(A).opens(A), &[Embryonic]),
            case("a full server keeps its connections")
                .given(Fact::Connection {
                    client: CLIENT,
                    backend: A,
                    place: 0,
                    life: Life::Established,
                    age: 0,
                })
                .given(Fact::ServerLimit(1, 1))
                .send(client(ACK).data(3), to_backend(A), &[Established])
                .send(client(SYN), to_backend(A), &[Established]),
            case("with `hold` the SYN waits for room for three seconds, then gets a RST")
                .given(Fact::ServerLimit(1, 5))
                .given(Fact::Live(A, 5))
                .given(Fact::NoBackend(WEB_ID, no_backend::HOLD))
                .send(client(SYN), held_back(Reason::BackendsFull), &[])
                .given(Fact::Pass(2_000))
                .send(client(SYN), held_back(Reason::BackendsFull), &[])
                .given(Fact::Pass(1_500))
                .send(client(SYN), refused(Reason::BackendsFull), &[]),
            case("with `drop` the SYN is dropped")
                .given(Fact::ServiceLimit(WEB_ID, 2))
                .given(Fact::Live(A, 2))
                .given(Fact::NoBackend(WEB_ID, no_backend::DROP))
                .send(client(SYN), dropped(Reason::NoBackendDrop).counted(WEB_ID, Reason::ServiceFull), &[]),
            case("a datagram beyond a limit is answered with an ICMP error")
                .udp()
                .given(Fact::ServerLimit(1, 5))
                .given(Fact::Live(A, 5))
                .send(
                    datagram(7),
                    complained(Reason::NoBackendReset, Trouble::PortUnreachable)
                        .counted(WEB_ID, Reason::BackendsFull),
                    &[],
                ),
        ]
    });
    table.collect()
}

fn room() -> Vec<Case> {
    let reopened = |mode, name| {
        Case::new(format!("{name}: a connection that ends makes room for the next, and `hold` begins anew"))
            .mode(mode)
            .ports(FOUR_PORTS)
            .given(Fact::Connection { client: OTHER, backend: A, place: 3, life: Life::Established, age: 0 })
            .given(Fact::ServerLimit(1, 1))
            .given(Fact::NoBackend(WEB_ID, no_backend::HOLD))
            .send(client(SYN), held_back(Reason::BackendsFull), &[Established])
            .send(client(FIN | ACK).of(OTHER), to_backend(A).closes(A), &[Closed])
            .send(client(SYN), to_backend(A).opens(A), &[Closed, Embryonic])
            .given(Fact::Pass(60_000))
            .send(client(SYN).of(THIRD), held_back(Reason::BackendsFull), &[Closed, Embryonic])
    };
    vec![reopened(mode::DSR, "dsr"), reopened(mode::IPIP, "ipip")]
}

/// The client's address with other ports.
fn again(number: u16) -> SocketAddrV4 {
    SocketAddrV4::new(*CLIENT.ip(), 41_000 + number)
}

fn rates() -> Vec<Case> {
    let table = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode).ports(FOUR_PORTS);
        [
            case("a source address that has used up its burst begins nothing more until its rate allows")
                .given(Fact::Rate(WEB_ID, 1, 2))
                .send(client(SYN).of(again(1)), to_backend(A).opens(A), &[Embryonic])
                .send(client(SYN).of(again(2)), to_backend(A).opens(A), &[Embryonic; 2])
                .send(client(SYN).of(again(3)), dropped(Reason::RateLimited), &[Embryonic; 2])
                .given(Fact::Pass(1_100))
                .send(client(SYN).of(again(3)), to_backend(A).opens(A), &[Embryonic; 3])
                .send(client(SYN).of(again(4)), dropped(Reason::RateLimited), &[Embryonic; 3]),
            case("another source address has tokens of its own")
                .given(Fact::Rate(WEB_ID, 1, 1))
                .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
                .send(client(SYN).of(OTHER), to_backend(A).opens(A), &[Embryonic; 2])
                .send(client(SYN).of(again(1)), dropped(Reason::RateLimited), &[Embryonic; 2]),
            case("packets of a connection that stands cost nothing")
                .given(Fact::Rate(WEB_ID, 1, 1))
                .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
                .send(client(SYN), to_backend(A), &[Embryonic]),
            case("another service has tokens of its own")
                .given(Fact::Rate(WEB_ID, 1, 1))
                .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
                .send(client(SYN).of(again(1)), dropped(Reason::RateLimited), &[Embryonic])
                .send(client(SYN).of(again(1)).to(ADMIN), to_backend(A2).opens(A2), &[Embryonic; 2]),
            case("a burst is never more than the service says, however long the rest")
                .given(Fact::Rate(WEB_ID, 1_000, 1))
                .send(client(SYN).of(again(1)), to_backend(A).opens(A), &[Embryonic])
                .given(Fact::Pass(3_600_000))
                .send(client(SYN).of(again(2)), to_backend(A).opens(A), &[Embryonic; 2])
                .send(client(SYN).of(again(3)), dropped(Reason::RateLimited), &[Embryonic; 2])
                .tries(3),
            case("datagrams that begin a conversation count too")
                .udp()
                .given(Fact::Rate(WEB_ID, 1, 1))
                .send(datagram(3).of(again(1)), to_backend(A).opens(A), &[Embryonic])
                .send(datagram(3).of(again(2)), dropped(Reason::RateLimited), &[Embryonic]),
        ]
    });
    table.collect()
}
