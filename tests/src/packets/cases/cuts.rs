//! Connections that are cut: each side hears of it by a RST that fits, and the agent hears of each side.

use lb_common::{
    Reason,
    abi::{backend_state, mode},
    cell::Phase::{Closed, Embryonic, Resting},
};

use crate::packets::{
    Case, Expect, Fact, Life,
    expect::{dropped, reset, to_backend},
    scene::{A, B, CLIENT, FOUR_PORTS, MODES, WEB_ID},
    segment::{ACK, CLIENT_ISN, FIN, PSH, RST, SERVER_ISN, SYN, answer, client, datagram, server},
};

fn held() -> Fact {
    Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 5_000 }
}

/// The client hears of it, with the number that it expects.
fn client_told() -> Expect {
    reset(Reason::Cut, SERVER_ISN + 1, None).tells_cut(A, 0, CLIENT_ISN + 1, SERVER_ISN + 1)
}

/// The server does.
fn server_told() -> Expect {
    reset(Reason::Cut, CLIENT_ISN + 1, None).tells_cut(A, 1, SERVER_ISN + 1, CLIENT_ISN + 1)
}

pub(super) fn cases() -> Vec<Case> {
    let table = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| {
            Case::new(format!("{name}, cut: {what}")).mode(*mode).ports(FOUR_PORTS).given(held())
        };
        let sides = if mode::is_one_sided(*mode) { alone(case) } else { both(case) };
        [any(case, *mode), sides].concat()
    });
    table.collect()
}

fn any(case: impl Fn(&str) -> Case, mode: u8) -> Vec<Case> {
    let judged = || to_backend(B).opens(B).counted(WEB_ID, Reason::SynOnOldFlow);
    let afresh: &[_] = if mode == mode::SNAT { &[Resting, Embryonic] } else { &[Embryonic] };
    vec![
        case("the client of a connection that the agent has cut gets a RST at its own number, each time")
            .given(Fact::Cut(CLIENT))
            .send(client(ACK | PSH).data(30), client_told(), &[Closed])
            .send(client(ACK), client_told(), &[Closed])
            .send(client(FIN | ACK), client_told(), &[Closed]),
        case("the client of a backend that is cut gets a RST, and the account is closed once")
            .given(Fact::State(A, backend_state::CUT))
            .send(client(ACK).data(3), client_told().closes(A), &[Closed])
            .send(client(ACK).data(3), client_told(), &[Closed]),
        case("a SYN on a cut connection is judged afresh")
            .given(Fact::Cut(CLIENT))
            .given(Fact::Ring(WEB_ID, vec![B]))
            .send(client(SYN), judged(), afresh),
        case("a SYN on a connection of a backend that is cut goes elsewhere")
            .given(Fact::State(A, backend_state::CUT))
            .given(Fact::Ring(WEB_ID, vec![B]))
            .send(client(SYN), judged().closes(A), afresh),
        case("a datagram on a cut conversation begins another one")
            .udp()
            .given(Fact::Cut(CLIENT))
            .given(Fact::Ring(WEB_ID, vec![B]))
            .send(datagram(3), judged(), afresh),
    ]
}

fn both(case: impl Fn(&str) -> Case) -> Vec<Case> {
    vec![
        case("the server of a connection that the agent has cut gets a RST at its own number")
            .given(Fact::Cut(CLIENT))
            .send(server(A, ACK | PSH).data(30), server_told(), &[Closed])
            .send(client(ACK), client_told(), &[Closed])
            .send(server(A, ACK), server_told(), &[Closed]),
        case("the server of a backend that is cut gets a RST, and the account is closed once")
            .given(Fact::State(A, backend_state::CUT))
            .send(server(A, ACK).data(3), server_told().closes(A), &[Closed])
            .send(client(ACK).data(3), client_told(), &[Closed]),
        case("a RST of either side goes nowhere")
            .given(Fact::Cut(CLIENT))
            .send(client(RST), dropped(Reason::Cut).tells_nothing(), &[Closed])
            .send(server(A, RST), dropped(Reason::Cut).tells_nothing(), &[Closed]),
        case("data does not restore a cut connection, whoever has sent a RST")
            .given(Fact::Cut(CLIENT))
            .send(client(RST), dropped(Reason::Cut), &[Closed])
            .send(server(A, ACK).data(9), server_told(), &[Closed])
            .send(client(ACK).data(9), client_told(), &[Closed]),
        case("a server's datagram of a cut conversation goes nowhere").udp().given(Fact::Cut(CLIENT)).send(
            answer(A, 20),
            dropped(Reason::Cut).tells_nothing(),
            &[Closed],
        ),
    ]
}

/// Past us goes what the server says; it hears of the end from the client.
fn alone(case: impl Fn(&str) -> Case) -> Vec<Case> {
    vec![
        case("the RST of the client goes on to the backend, which nobody else would tell")
            .given(Fact::Cut(CLIENT))
            .send(client(ACK), client_told(), &[Closed])
            .send(client(RST), to_backend(A).tells_nothing(), &[Closed]),
        case("the RST of a client of a backend that is cut goes on to it, and closes the account")
            .given(Fact::State(A, backend_state::CUT))
            .send(client(RST), to_backend(A).closes(A).tells_nothing(), &[Closed]),
        case("data does not restore a cut connection")
            .given(Fact::Cut(CLIENT))
            .send(client(RST), to_backend(A), &[Closed])
            .send(client(ACK).data(9), client_told(), &[Closed]),
    ]
}
