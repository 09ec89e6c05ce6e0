//! Source ports: which one a connection gets, and what its former holder leaves behind.

use lb_common::{
    Reason,
    cell::Phase::{self, Answered, Busy, Closed, Embryonic, Established, Resting},
};

use crate::packets::{
    Case, Fact, Life,
    expect::{reset, reset_on, to_backend, to_client},
    scene::{
        A, A2, ADMIN, ADMIN_ID, B, CLIENT, EIGHT_PORTS, ELEVEN_PORTS, FOUR_PORTS, NO_PORTS, OTHER, THIRD,
        WEB_ID,
    },
    segment::{ACK, CLIENT_ISN, FIN, SERVER_ISN, SYN, client, server},
};

/// Another client's connection to the backend of `CLIENT`.
fn other(place: u32, life: Life, age: u64) -> Fact {
    Fact::Connection { client: OTHER, backend: A, place, life, age }
}

/// A third client's.
fn third(place: u32, life: Life, age: u64) -> Fact {
    Fact::Connection { client: THIRD, backend: A, place, life, age }
}

pub(super) fn cases() -> Vec<Case> {
    [exhausted(), order(), displaced(), shared()].concat()
}

fn exhausted() -> Vec<Case> {
    let refused = |reason| reset(reason, 0, Some(CLIENT_ISN + 1)).opens(A).closes(A);
    vec![
        Case::new("when all ports are held by living connections a SYN gets a RST, and they live on")
            .given(other(0, Life::Established, 7_200_000))
            .send(client(SYN), refused(Reason::PortsExhausted), &[Established])
            .send(client(ACK).of(OTHER), to_backend(A), &[Established]),
        Case::new("a program without ports refuses every connection").ports(NO_PORTS).send(
            client(SYN),
            refused(Reason::PortsExhausted),
            &[],
        ),
        Case::new("a full flow table refuses a connection and gives its port back")
            .ports(ELEVEN_PORTS)
            .buckets(1)
            .given(Fact::Crowd(A, Life::Established, 0))
            .send(
                client(SYN),
                refused(Reason::FlowTableFull).tells_pressure(A, Reason::FlowTableFull),
                &with(Established, Resting),
            )
            .send(client(ACK), reset(Reason::NoFlow, SERVER_ISN + 1, None), &with(Established, Resting)),
        Case::new("room in the flow table is there again once a port has changed hands")
            .ports(EIGHT_PORTS)
            .buckets(1)
            .given(Fact::Crowd(A, Life::ClosedByClient, 90_000))
            .send(client(SYN), to_backend(A).opens(A), &with(Closed, Embryonic)[1..]),
    ]
}

/// Eight of one phase and one of another.
fn with(eight: Phase, one: Phase) -> Vec<Phase> {
    [vec![eight; 8], vec![one]].concat()
}

fn order() -> Vec<Case> {
    let one_left = |left: Life, age| {
        Case::new(format!("of four ports the one that is {left:?} is taken"))
            .ports(FOUR_PORTS)
            .given(other(0, Life::Established, 0))
            .given(Fact::Connection {
                client: other_port(1),
                backend: A,
                place: 1,
                life: Life::Established,
                age: 0,
            })
            .given(Fact::Connection {
                client: other_port(2),
                backend: A,
                place: 2,
                life: Life::Established,
                age: 0,
            })
            .given(third(3, left, age))
            .send(client(SYN), to_backend(A).opens(A), &[Established, Established, Established, Embryonic])
    };
    vec![
        one_left(Life::Resting, 1_000),
        one_left(Life::ClosedByClient, 1_000),
        Case::new("a port that was never used comes before any other")
            .ports(FOUR_PORTS)
            .given(other(0, Life::Resting, 3_600_000))
            .given(third(2, Life::ClosedByClient, 3_600_000))
            .send(client(SYN), to_backend(A).opens(A), &[Resting, Closed, Embryonic]),
        Case::new("the port that was closed longest is taken, and its old flow is gone")
            .ports(FOUR_PORTS)
            .given(other(0, Life::ClosedByClient, 200_000))
            .given(third(1, Life::ClosedByClient, 100_000))
            .given(held(2))
            .given(held(3))
            .send(client(SYN), to_backend(A).opens(A), &[Closed, Established, Established, Embryonic])
            .send(
                client(ACK).of(OTHER),
                reset(Reason::NoFlow, SERVER_ISN + 1, None),
                &[Closed, Established, Established, Embryonic],
            )
            .send(client(ACK).of(THIRD), to_backend(A), &[Closed, Established, Established, Embryonic]),
        Case::new("a port that its server closed rests while another one is free")
            .ports(FOUR_PORTS)
            .given(other(0, Life::ClosedByServer, 50_000))
            .given(third(1, Life::ClosedByClient, 1_000))
            .given(held(2))
            .given(held(3))
            .send(client(SYN), to_backend(A).opens(A), &[Closed, Established, Established, Embryonic])
            .send(client(ACK).of(OTHER), to_backend(A), &[Closed, Established, Established, Embryonic]),
        Case::new("a port that its server closed a minute ago has rested enough")
            .given(other(0, Life::RestingByServer, 67_000))
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic]),
        Case::new(
            "a port that its server closed within the minute is taken if there is no other, and counted",
        )
        .given(other(0, Life::RestingByServer, 30_000))
        .send(
            client(SYN),
            to_backend(A).opens(A).counted(WEB_ID, Reason::PortReusedEarly),
            &[Embryonic],
        ),
        Case::new("so is one whose connection still has its flow, which goes")
            .given(other(0, Life::ClosedByServer, 30_000))
            .send(client(SYN), to_backend(A).opens(A).counted(WEB_ID, Reason::PortReusedEarly), &[Embryonic])
            .send(client(ACK).of(OTHER), reset(Reason::NoFlow, SERVER_ISN + 1, None), &[Embryonic]),
        Case::new(
            "so is one that both closed at once: the server acknowledges the client's FIN after its own",
        )
        .handshake()
        .send(client(FIN | ACK), to_backend(A), &[Established])
        .send(server(A, FIN | ACK), to_client(A).closes(A), &[Closed])
        .send(client(ACK), to_backend(A), &[Closed])
        .send(server(A, ACK), to_client(A), &[Closed])
        .send(
            client(SYN).of(OTHER),
            to_backend(A).opens(A).counted(WEB_ID, Reason::PortReusedEarly),
            &[Embryonic],
        ),
        Case::new("a busy port is passed over")
            .ports(FOUR_PORTS)
            .given(other(0, Life::Busy, 5_000))
            .given(held(1))
            .given(held(2))
            .given(third(3, Life::Resting, 5_000))
            .send(client(SYN), to_backend(A).opens(A), &[Busy, Established, Established, Embryonic]),
    ]
}

/// An established connection at a place.
fn held(place: u32) -> Fact {
    Fact::Connection { client: other_port(place), backend: A, place, life: Life::Established, age: 0 }
}

/// A client of its own for each place.
fn other_port(place: u32) -> std::net::SocketAddrV4 {
    std::net::SocketAddrV4::new(*OTHER.ip(), 50_000 + place as u16)
}

fn displaced() -> Vec<Case> {
    let refused = || reset(Reason::PortsExhausted, 0, Some(CLIENT_ISN + 1)).opens(A).closes(A);
    let displaces = || to_backend(A).opens(A).closes(A).counted(WEB_ID, Reason::EmbryoDisplaced);
    vec![
        Case::new("a handshake of less than a second is not displaced")
            .given(other(0, Life::Embryonic, 400))
            .send(client(SYN), refused(), &[Embryonic]),
        Case::new("one of more than a second yields: its flow is removed, its account closed")
            .given(other(0, Life::Embryonic, 1_300))
            .send(client(SYN), displaces(), &[Embryonic])
            .send(client(ACK).of(OTHER), reset(Reason::NoFlow, SERVER_ISN + 1, None), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered]),
        Case::new("so does one that was answered but never proven")
            .given(other(0, Life::Answered, 1_300))
            .send(client(SYN), displaces(), &[Embryonic]),
        Case::new("an established connection never yields")
            .given(other(0, Life::Established, 86_400_000))
            .send(client(SYN), refused(), &[Established]),
        Case::new("of two old handshakes the older one yields")
            .ports(FOUR_PORTS)
            .given(other(0, Life::Embryonic, 9_000))
            .given(third(1, Life::Embryonic, 5_000))
            .given(held(2))
            .given(held(3))
            .send(client(SYN), displaces(), &[Embryonic, Established, Established, Embryonic])
            .send(
                client(ACK).of(OTHER),
                reset(Reason::NoFlow, SERVER_ISN + 1, None),
                &[Embryonic, Established, Established, Embryonic],
            ),
        Case::new("a handshake of the other service on the same server yields too, on its own account")
            .given(Fact::Connection {
                client: OTHER,
                backend: A2,
                place: 0,
                life: Life::Embryonic,
                age: 2_000,
            })
            .send(
                client(SYN),
                to_backend(A).opens(A).closes(A2).counted(WEB_ID, Reason::EmbryoDisplaced),
                &[Embryonic],
            )
            .send(
                client(ACK).of(OTHER).to(ADMIN),
                reset_on(ADMIN_ID, Reason::NoFlow, SERVER_ISN + 1, None),
                &[Embryonic],
            ),
    ]
}

fn shared() -> Vec<Case> {
    vec![
        Case::new("two services on one server get two ports for one client")
            .ports(FOUR_PORTS)
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
            .send(client(SYN).to(ADMIN), to_backend(A2).opens(A2), &[Embryonic; 2])
            .send(server(A, SYN | ACK), to_client(A), &[Answered, Embryonic])
            .send(server(A2, SYN | ACK), to_client(A2), &[Answered; 2]),
        Case::new("a port that one service holds is not free for the other")
            .given(Fact::Connection {
                client: CLIENT,
                backend: A2,
                place: 0,
                life: Life::Established,
                age: 0,
            })
            .send(
                client(SYN),
                reset(Reason::PortsExhausted, 0, Some(CLIENT_ISN + 1)).opens(A).closes(A),
                &[Established],
            ),
        Case::new("another server has ports of its own")
            .given(other(0, Life::Established, 0))
            .given(Fact::Ring(WEB_ID, vec![B]))
            .send(client(SYN), to_backend(B).opens(B), &[Established, Embryonic]),
    ]
}
