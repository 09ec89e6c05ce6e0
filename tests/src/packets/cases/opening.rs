//! How a connection begins and goes on.

use lb_common::{
    Reason,
    abi::{algorithm, backend_state, exit},
    cell::Phase::{Answered, Embryonic, Established, Resting},
};

use crate::packets::{
    Case, Expect, Fact, Life, Segment,
    expect::{complained, dropped, to_backend, to_client},
    message::Trouble,
    scene::{A, B, BACK, CLIENT, FOUR_PORTS, FRONT, OTHER, WEB_ID},
    segment::{ACK, CLIENT_ISN, PSH, SERVER_ISN, SYN, client, server},
};

/// A connection that stands for long.
fn established() -> Fact {
    Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 60_000 }
}

/// A SYN as Linux sends it.
fn syn() -> Segment {
    client(SYN).tcp_options(&[2, 4, 5, 0xb4, 4, 2, 8, 10, 0, 1, 2, 3, 0, 0, 0, 0, 1, 3, 3, 7])
}

pub(super) fn cases() -> Vec<Case> {
    [handshakes(), data(), again()].concat()
}

fn handshakes() -> Vec<Case> {
    vec![
        Case::new("a SYN gets a port and goes to a backend").send(
            syn(),
            to_backend(A).opens(A),
            &[Embryonic],
        ),
        Case::new("a SYN may carry data").send(client(SYN).data(33), to_backend(A).opens(A), &[Embryonic]),
        Case::new("a SYN with unusual flags is still a SYN").send(
            client(SYN | PSH | 0xe0),
            to_backend(A).opens(A),
            &[Embryonic],
        ),
        Case::new("the answer goes back to the client from the service's address")
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK).tcp_options(&[2, 4, 5, 0xb4]), to_client(A), &[Answered]),
        Case::new("acknowledging the server's number proves the client").handshake().send(
            client(ACK).data(100),
            to_backend(A),
            &[Established],
        ),
        Case::new("acknowledging another number proves nothing")
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered])
            .send(client(ACK).ack(SERVER_ISN), to_backend(A), &[Answered])
            .send(client(ACK).ack(SERVER_ISN.wrapping_add(2)), to_backend(A), &[Answered])
            .send(client(PSH), to_backend(A), &[Answered])
            .send(client(ACK), to_backend(A), &[Established]),
        Case::new("an ACK before any answer proves nothing, whatever its number")
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .send(client(ACK).ack(1), to_backend(A), &[Embryonic]),
        Case::new("a second answer with another number does not move the goal")
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered])
            .send(server(A, SYN | ACK).seq(77), to_client(A), &[Answered])
            .send(client(ACK).ack(78), to_backend(A), &[Answered])
            .send(client(ACK), to_backend(A), &[Established]),
        Case::new("the proof of a number at the end of the number space wraps")
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK).seq(u32::MAX), to_client(A), &[Answered])
            .send(client(ACK).ack(0), to_backend(A), &[Established]),
        Case::new("data may come with the proof")
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered])
            .send(client(ACK | PSH).data(512), to_backend(A), &[Established]),
        Case::new("a service's other backend answers from the same address")
            .given(Fact::Ring(WEB_ID, vec![B]))
            .send(syn(), to_backend(B).opens(B), &[Embryonic])
            .send(server(B, SYN | ACK), to_client(B), &[Answered])
            .send(client(ACK), to_backend(B), &[Established]),
    ]
}

fn expired() -> Expect {
    complained(Reason::TtlExceeded, Trouble::TimeExceeded)
}

fn data() -> Vec<Case> {
    let exit = Fact::Exit(FRONT, exit::REDIRECT);
    vec![
        Case::new("data goes both ways")
            .handshake()
            .send(client(ACK | PSH).data(1460), to_backend(A), &[Established])
            .send(server(A, ACK), to_client(A), &[Established])
            .send(server(A, ACK | PSH).data(1459), to_client(A), &[Established])
            .send(client(ACK), to_backend(A), &[Established]),
        Case::new("IP options in front of a service's packet move the TCP header along")
            .send(client(SYN).ip_options(&[0x94, 4, 0, 0]), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK).ip_options(&[1; 40]), to_client(A), &[Answered])
            .send(client(ACK).ip_options(&[1; 12]).data(7), to_backend(A), &[Established]),
        Case::new("an interface that wants redirects gets them on the way back too")
            .given(exit)
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered]),
        Case::new("an interface that takes no frames gets packets by the kernel's stack")
            .given(Fact::Exit(BACK, exit::STACK))
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered]),
        Case::new("so does a client behind one, on the way back too")
            .given(Fact::Exit(FRONT, exit::STACK))
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered]),
        Case::new("a generic program's interface sends out itself what came in by it")
            .given(Fact::Exit(FRONT, exit::TX_OR_STACK))
            .given(Fact::Exit(BACK, exit::TX_OR_STACK))
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered]),
        Case::new("two clients are two connections")
            .ports(FOUR_PORTS)
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .send(syn().of(OTHER), to_backend(A).opens(A), &[Embryonic, Embryonic])
            .send(server(A, SYN | ACK).of(OTHER), to_client(A).of(OTHER), &[Embryonic, Answered])
            .send(client(ACK).of(OTHER), to_backend(A), &[Embryonic, Established]),
        Case::new("a connection of an hour's silence goes on")
            .handshake()
            .given(Fact::Pass(3_600_000))
            .send(client(ACK).data(1), to_backend(A), &[Established])
            .send(server(A, ACK).data(1), to_client(A), &[Established]),
        Case::new("a packet with TTL 2 goes on with TTL 1").given(established()).send(
            client(ACK).ttl(2),
            to_backend(A),
            &[Established],
        ),
        Case::new("a packet with TTL 1 is answered with time exceeded in either direction, and the connection stays")
            .given(established())
            .send(client(ACK).ttl(1), expired(), &[Established])
            .send(client(ACK).ttl(0).data(400), expired(), &[Established])
            .send(server(A, ACK).ttl(1), expired(), &[Established])
            .send(client(ACK), to_backend(A), &[Established]),
        Case::new("a backend without a known next hop gets nothing, and its connections wait")
            .given(established())
            .given(Fact::Unresolved(A))
            .send(client(ACK), dropped(Reason::NextHopUnresolved), &[Established])
            .send(server(A, ACK), to_client(A), &[Established]),
    ]
}

fn again() -> Vec<Case> {
    vec![
        Case::new("a SYN sent again follows the first one")
            .ports(FOUR_PORTS)
            .send(syn(), to_backend(A).opens(A), &[Embryonic])
            .given(Fact::Pass(1_100))
            .given(Fact::Ring(WEB_ID, vec![B]))
            .send(syn(), to_backend(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered])
            .send(syn(), to_backend(A), &[Answered]),
        Case::new(
            "a SYN with another number on a living connection follows it: the server will say what it thinks",
        )
        .given(established())
        .send(client(SYN).seq(CLIENT_ISN + 99), to_backend(A), &[Established]),
        Case::new("a SYN on a closed connection is judged afresh and gets a new port")
            .ports(FOUR_PORTS)
            .given(Fact::Connection {
                client: CLIENT,
                backend: A,
                place: 1,
                life: Life::ClosedByServer,
                age: 10_000,
            })
            .given(Fact::Algorithm(WEB_ID, algorithm::ROUND_ROBIN))
            .send(
                client(SYN),
                to_backend(A).opens(A).counted(WEB_ID, Reason::SynOnOldFlow),
                &[Resting, Embryonic],
            ),
        elsewhere("drains", backend_state::CLOSED_TO_NEW, Life::Established),
        elsewhere("is absent", backend_state::ABSENT, Life::Established),
        elsewhere("went away in the handshake", backend_state::ABSENT, Life::Answered),
        Case::new(
            "a SYN that crossed its answer stays with a backend that takes no new connections meanwhile",
        )
        .ports(FOUR_PORTS)
        .send(syn(), to_backend(A).opens(A), &[Embryonic])
        .given(Fact::Pass(1_000))
        .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
        .given(Fact::Ring(WEB_ID, vec![B]))
        .send(server(A, SYN | ACK), to_client(A), &[Answered])
        .send(syn(), to_backend(A), &[Answered])
        .send(client(ACK), to_backend(A), &[Established]),
        Case::new(
            "a SYN on a closed connection of a backend that drains goes elsewhere, and closes nothing twice",
        )
        .ports(FOUR_PORTS)
        .given(Fact::Connection {
            client: CLIENT,
            backend: A,
            place: 0,
            life: Life::ClosedByClient,
            age: 10_000,
        })
        .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
        .given(Fact::Ring(WEB_ID, vec![B]))
        .send(
            client(SYN),
            to_backend(B).opens(B).counted(WEB_ID, Reason::SynOnOldFlow),
            &[Resting, Embryonic],
        ),
        Case::new("a backend that drains keeps its connections")
            .given(established())
            .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
            .given(Fact::Ring(WEB_ID, vec![B]))
            .send(client(ACK).data(10), to_backend(A), &[Established])
            .send(server(A, ACK).data(10), to_client(A), &[Established]),
    ]
}

fn elsewhere(what: &str, state: u8, life: Life) -> Case {
    Case::new(format!("a SYN on a connection whose backend {what} goes elsewhere at once"))
        .given(Fact::Connection { client: CLIENT, backend: A, place: 0, life, age: 60_000 })
        .given(Fact::State(A, state))
        .given(Fact::Ring(WEB_ID, vec![B]))
        .send(
            client(SYN),
            to_backend(B).opens(B).closes(A).counted(WEB_ID, Reason::SynOnOldFlow),
            &[Resting, Embryonic],
        )
        .send(server(B, SYN | ACK), to_client(B), &[Resting, Answered])
}
