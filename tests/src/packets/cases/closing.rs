//! How a connection ends, and what comes late.

use lb_common::{
    Reason,
    abi::{backend_state, no_backend},
    cell::Phase::{Answered, Busy, Closed, Embryonic, Established, Resting},
};

use crate::packets::{
    Case, Fact, Life,
    expect::{dropped, reset, to_backend, to_client, untouched},
    scene::{A, CLIENT, FOUR_PORTS, SOURCE, WEB_ID},
    segment::{ACK, CLIENT_ISN, FIN, PSH, RST, SERVER_ISN, SYN, client, server},
};
use std::net::SocketAddrV4;

fn connection(life: Life) -> Fact {
    Fact::Connection { client: CLIENT, backend: A, place: 0, life, age: 5_000 }
}

pub(super) fn cases() -> Vec<Case> {
    [fins(), resets(), late(), gone()].concat()
}

fn fins() -> Vec<Case> {
    vec![
        Case::new("the client closes first: the second FIN closes the account, the last ACK finds its way")
            .handshake()
            .send(client(FIN | ACK), to_backend(A), &[Established])
            .send(server(A, ACK), to_client(A), &[Established])
            .send(server(A, FIN | ACK), to_client(A).closes(A), &[Closed])
            .send(client(ACK), to_backend(A), &[Closed]),
        Case::new("the server closes first: the client's FIN closes the account")
            .handshake()
            .send(server(A, FIN | ACK), to_client(A), &[Established])
            .send(client(ACK), to_backend(A), &[Established])
            .send(client(FIN | ACK), to_backend(A).closes(A), &[Closed])
            .send(server(A, ACK), to_client(A), &[Closed]),
        Case::new("half closed: data goes on in the other direction")
            .handshake()
            .send(client(FIN | ACK), to_backend(A), &[Established])
            .send(server(A, ACK | PSH).data(1000), to_client(A), &[Established])
            .send(client(ACK), to_backend(A), &[Established]),
        Case::new("a FIN with the last data closes as any other")
            .handshake()
            .send(client(FIN | ACK | PSH).data(5), to_backend(A), &[Established])
            .send(server(A, FIN | ACK | PSH).data(9), to_client(A).closes(A), &[Closed]),
        Case::new("a FIN that is sent again closes nothing twice")
            .handshake()
            .send(client(FIN | ACK), to_backend(A), &[Established])
            .send(client(FIN | ACK), to_backend(A), &[Established])
            .send(server(A, FIN | ACK), to_client(A).closes(A), &[Closed])
            .send(server(A, FIN | ACK), to_client(A), &[Closed]),
        Case::new("a FIN before the proof counts too")
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered])
            .send(server(A, FIN | ACK), to_client(A), &[Answered])
            .send(client(FIN | ACK), to_backend(A).closes(A), &[Closed]),
    ]
}

fn resets() -> Vec<Case> {
    vec![
        Case::new("a server that refuses closes the account")
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, RST | ACK).seq(0), to_client(A).closes(A), &[Closed]),
        Case::new(
            "a server that refuses is not believed where the service holds: the next SYN is judged afresh",
        )
        .given(Fact::Refusals(A, no_backend::HOLD))
        .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
        .send(server(A, RST | ACK).seq(0), dropped(Reason::RefusalHeld).closes(A), &[Closed])
        .send(
            client(SYN),
            to_backend(A).opens(A).counted(WEB_ID, Reason::SynOnOldFlow),
            &[Embryonic],
        ),
        Case::new("a RST of the server after the handshake goes on to the client where the service holds")
            .given(Fact::Refusals(A, no_backend::HOLD))
            .handshake()
            .send(server(A, RST), to_client(A).closes(A), &[Closed]),
        Case::new("a RST of the server closes the account, and data after it does not open it again")
            .handshake()
            .send(server(A, RST), to_client(A).closes(A), &[Closed])
            .send(client(ACK).data(3), to_backend(A), &[Closed])
            .send(server(A, RST), to_client(A), &[Closed]),
        Case::new("a RST of the client closes the account and goes on to the server").handshake().send(
            client(RST),
            to_backend(A).closes(A),
            &[Closed],
        ),
        Case::new("a client's RST in the handshake closes the account")
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered])
            .send(client(RST), to_backend(A).closes(A), &[Closed]),
        Case::new(
            "data of the server after the client's RST restores the connection, for anyone can forge one",
        )
        .handshake()
        .send(client(RST), to_backend(A).closes(A), &[Closed])
        .send(server(A, ACK), to_client(A), &[Closed])
        .send(server(A, ACK | PSH).data(20), to_client(A).opens(A), &[Established])
        .send(client(ACK), to_backend(A), &[Established]),
        Case::new("data of the client after its own RST restores the connection")
            .handshake()
            .send(client(RST), to_backend(A).closes(A), &[Closed])
            .send(client(ACK).data(1), to_backend(A).opens(A), &[Established])
            .send(server(A, ACK), to_client(A), &[Established])
            .send(client(FIN | ACK), to_backend(A), &[Established])
            .send(server(A, FIN | ACK), to_client(A).closes(A), &[Closed]),
        Case::new("a RST with data restores nothing").given(connection(Life::ResetByClient)).send(
            client(RST | ACK).data(8),
            to_backend(A),
            &[Closed],
        ),
    ]
}

fn late() -> Vec<Case> {
    let port = SocketAddrV4::new(SOURCE, 2000);
    vec![
        Case::new("a FIN that the server sends again after the close still finds the client")
            .given(connection(Life::ClosedByClient))
            .given(Fact::Pass(20_000))
            .send(server(A, FIN | ACK), to_client(A), &[Closed])
            .send(client(ACK), to_backend(A), &[Closed]),
        Case::new("late data after both FINs goes on and opens nothing")
            .given(connection(Life::ClosedByClient))
            .send(server(A, ACK).data(4), to_client(A), &[Closed])
            .send(client(ACK).data(4), to_backend(A), &[Closed]),
        Case::new("an answer to a port that was never used is the host's")
            .send(server(A, ACK).to(port), untouched(), &[])
            .send(server(A, SYN | ACK).to(port), untouched(), &[]),
        Case::new("an answer to a port that rests is the host's").given(connection(Life::Resting)).send(
            server(A, ACK).to(port),
            untouched(),
            &[Resting],
        ),
        Case::new("an answer to a port that changes hands is dropped").given(connection(Life::Busy)).send(
            server(A, ACK).to(port),
            dropped(Reason::PortBusy),
            &[Busy],
        ),
        Case::new("a SYN takes a port that rests, and the old client has no flow any more")
            .given(connection(Life::Resting))
            .send(client(ACK), reset(Reason::NoFlow, SERVER_ISN + 1, None), &[Resting])
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic]),
        Case::new("a port that changes hands is not taken").given(connection(Life::Busy)).send(
            client(SYN),
            reset(Reason::PortsExhausted, 0, Some(CLIENT_ISN + 1)).opens(A).closes(A),
            &[Busy],
        ),
        Case::new("an answer to a port outside of the ranges is the host's")
            .ports(FOUR_PORTS)
            .given(connection(Life::Established))
            .send(server(A, ACK).to(SocketAddrV4::new(SOURCE, 2003)), untouched(), &[Established])
            .send(server(A, ACK).to(SocketAddrV4::new(SOURCE, 61_001)), untouched(), &[Established])
            .send(server(A, ACK).to(SocketAddrV4::new(SOURCE, 1999)), untouched(), &[Established]),
    ]
}

fn gone() -> Vec<Case> {
    vec![
        Case::new("a packet for a backend that is gone gets a RST that fits")
            .given(connection(Life::Established))
            .given(Fact::State(A, backend_state::ABSENT))
            .send(client(ACK).data(50), reset(Reason::BackendGone, SERVER_ISN + 1, None), &[Established]),
        Case::new("a packet of a closed connection to a backend that drains still goes there")
            .given(connection(Life::ClosedByServer))
            .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
            .given(Fact::Ring(WEB_ID, vec![]))
            .send(client(ACK), to_backend(A), &[Closed]),
    ]
}
