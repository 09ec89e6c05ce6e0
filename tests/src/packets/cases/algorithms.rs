//! Which backend a new connection goes to.

use lb_common::{
    Reason,
    abi::{algorithm, backend_state},
    cell::Phase::{Answered, Embryonic},
};

use crate::packets::{
    Case, Expect, Fact,
    expect::{reset, to_backend, to_client, to_one_of},
    scene::{A, A2, ADMIN, B, CLIENT, FOUR_PORTS, OTHER, THIRD, WEB_ID},
    segment::{ACK, CLIENT_ISN, SYN, client, server},
};

/// Eight draws miss one of two backends once in 128 times; four times in a row once in 268 million.
const TRIES: u32 = 4;

fn round_robin() -> Fact {
    Fact::Algorithm(WEB_ID, algorithm::ROUND_ROBIN)
}

/// The ring names backends, and none of them can take it.
fn refused() -> Expect {
    reset(Reason::NoBackendReset, 0, Some(CLIENT_ISN + 1)).counted(WEB_ID, Reason::BackendsFull)
}

pub(super) fn cases() -> Vec<Case> {
    [in_turns_and_by_load(), by_connections(), by_hash(), by_sources()].concat()
}

fn in_turns_and_by_load() -> Vec<Case> {
    vec![
        Case::new("round robin walks the ring slot by slot")
            .ports(FOUR_PORTS)
            .given(round_robin())
            .given(Fact::Ring(WEB_ID, vec![A, B, A]))
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
            .send(client(SYN).of(OTHER), to_backend(B).opens(B), &[Embryonic; 2])
            .send(client(SYN).of(THIRD), to_backend(A).opens(A), &[Embryonic; 3]),
        Case::new("round robin passes over a backend that takes no new connections")
            .given(round_robin())
            .given(Fact::Ring(WEB_ID, vec![A, B]))
            .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
            .send(client(SYN), to_backend(B).opens(B), &[Embryonic]),
        Case::new("least load draws one of the backends").given(Fact::Ring(WEB_ID, vec![A, B])).send(
            client(SYN),
            to_one_of(&[A, B]).opens_it(),
            &[Embryonic],
        ),
        Case::new("least load takes the only backend that there is").given(Fact::Live(A, 1_000)).send(
            client(SYN),
            to_backend(A).opens(A),
            &[Embryonic],
        ),
        Case::new("least load avoids the one with more connections")
            .given(Fact::Ring(WEB_ID, vec![A, B]))
            .given(Fact::Live(A, 10))
            .send(client(SYN), to_backend(B).opens(B), &[Embryonic])
            .tries(TRIES),
        Case::new("least load measures connections by weight")
            .given(Fact::Ring(WEB_ID, vec![A, B]))
            .given(Fact::Live(A, 10))
            .given(Fact::Live(B, 4))
            .given(Fact::Weight(B, 100 * 1024 / 4))
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
            .tries(TRIES),
        Case::new("an idle backend with a small weight does not win every draw")
            .given(Fact::Ring(WEB_ID, vec![A, B]))
            .given(Fact::Live(A, 10))
            .given(Fact::Weight(B, 100 * 1024 / 20))
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
            .tries(TRIES),
        Case::new("least load passes over a backend that takes no new connections")
            .given(Fact::Ring(WEB_ID, vec![A, B]))
            .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
            .given(Fact::Live(B, 1_000))
            .send(client(SYN), to_backend(B).opens(B), &[Embryonic])
            .tries(TRIES),
        Case::new("a slot that names another service's backend is not followed")
            .given(Fact::Ring(WEB_ID, vec![A2]))
            .send(client(SYN), refused(), &[]),
        Case::new("a ring of backends that are all closed to new connections has no room: the SYN gets what the policy says")
            .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
            .send(client(SYN), refused(), &[])
            .given(round_robin())
            .send(client(SYN), refused(), &[]),
        Case::new("the other service on the same address has backends of its own").send(
            client(SYN).of(CLIENT).to(ADMIN),
            to_backend(A2).opens(A2),
            &[Embryonic],
        ),
    ]
}

/// A small pool is looked at whole, so what it answers is exact.
fn by_connections() -> Vec<Case> {
    let case = |what: &str| {
        Case::new(format!("least-conn: {what}"))
            .given(Fact::Algorithm(WEB_ID, algorithm::LEAST_CONN))
            .given(Fact::Ring(WEB_ID, vec![A, B]))
    };
    let to = |backend| to_backend(backend).opens(backend);
    vec![
        case("the backend with fewer connections takes the next one")
            .given(Fact::Live(A, 3))
            .given(Fact::Live(B, 4))
            .send(client(SYN), to(A), &[Embryonic]),
        case("one connection is a difference").given(Fact::Live(A, 1)).send(client(SYN), to(B), &[Embryonic]),
        case("the slots of the ring do not matter, the list behind it does")
            .given(Fact::Ring(WEB_ID, [vec![A; 30], vec![B]].concat()))
            .given(Fact::Live(A, 1))
            .send(client(SYN), to(B), &[Embryonic]),
        case("connections are measured by weight")
            .given(Fact::Live(A, 9))
            .given(Fact::Live(B, 4))
            .given(Fact::Weight(B, 100 * 1024 / 4))
            .send(client(SYN), to(A), &[Embryonic]),
        case("equals take turns by chance").send(client(SYN), to_one_of(&[A, B]).opens_it(), &[Embryonic]),
        case("who takes no new connections is passed over")
            .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
            .given(Fact::Live(B, 1_000))
            .send(client(SYN), to(B), &[Embryonic]),
        case("who is full is passed over")
            .given(Fact::ServerLimit(1, 1))
            .given(Fact::Live(A, 1))
            .given(Fact::Live(B, 1_000))
            .send(client(SYN), to(B), &[Embryonic]),
    ]
}

/// Every balancer of the same configuration must choose alike, now and after an upgrade: so the answers stand here.
fn by_hash() -> Vec<Case> {
    let known: [(u8, &str, u8, [u16; 6]); 4] = [
        (4, "maglev", algorithm::MAGLEV, MAGLEV_IPV4),
        (6, "maglev", algorithm::MAGLEV, MAGLEV_IPV6),
        (4, "source-hash", algorithm::SOURCE_HASH, SOURCE_IPV4),
        (6, "source-hash", algorithm::SOURCE_HASH, SOURCE_IPV6),
    ];
    let table = known.into_iter().map(|(version, name, algorithm, answers)| {
        let case = Case::new(format!("{name}: each client has the backend that it has on every balancer"))
            .only(version)
            .mode(lb_common::abi::mode::DNAT)
            .given(Fact::Algorithm(WEB_ID, algorithm))
            .given(Fact::Ring(WEB_ID, vec![A, B, A, B, B, A, A]));
        let clients = hashed_clients().into_iter().zip(answers).enumerate();
        clients.fold(case, |case, (number, (address, backend))| {
            case.send(
                client(SYN).of(address),
                to_backend(backend).opens(backend),
                &vec![Embryonic; number + 1],
            )
        })
    });
    let passed = Case::new("maglev: where the owner of a client's slot takes no new ones, another one does")
        .given(Fact::Algorithm(WEB_ID, algorithm::MAGLEV))
        .given(Fact::Ring(WEB_ID, vec![A, B]))
        .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
        .send(client(SYN), to_backend(B).opens(B), &[Embryonic])
        .tries(1);
    table.chain([passed]).collect()
}

/// Three addresses with two ports each.
fn hashed_clients() -> [std::net::SocketAddrV4; 6] {
    [CLIENT, OTHER, THIRD, CLIENT, OTHER, THIRD].map({
        let mut number = 0;
        move |address| {
            number += 1;
            std::net::SocketAddrV4::new(*address.ip(), 42_000 + number)
        }
    })
}

const MAGLEV_IPV4: [u16; 6] = [A, A, A, B, B, A];
const MAGLEV_IPV6: [u16; 6] = [A, B, A, A, A, A];
const SOURCE_IPV4: [u16; 6] = [B, B, A, B, B, A];
const SOURCE_IPV6: [u16; 6] = [A, A, B, A, A, B];

/// A backend that sees two source addresses has ports of both.
fn by_sources() -> Vec<Case> {
    let second = std::net::Ipv4Addr::new(10, 0, 0, 2);
    let case = Case::new("a backend that sees two sources answers to both, and each has ports of its own")
        .ports(FOUR_PORTS)
        .given(Fact::TwoSources(second))
        .given(Fact::Ring(WEB_ID, vec![B]));
    let each = hashed_clients().into_iter().enumerate().fold(case, |case, (number, address)| {
        let mut phases = vec![Answered; number];
        phases.push(Embryonic);
        let answered = vec![Answered; number + 1];
        case.send(client(SYN).of(address), to_backend(B).opens(B), &phases).send(
            server(B, SYN | ACK).of(address),
            to_client(B).of(address),
            &answered,
        )
    });
    vec![each]
}
