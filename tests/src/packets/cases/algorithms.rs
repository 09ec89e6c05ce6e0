//! Which backend a new connection goes to.

use lb_common::{
    Reason,
    abi::{algorithm, backend_state},
    cell::Phase::Embryonic,
};

use crate::packets::{
    Case, Expect, Fact,
    expect::{reset, to_backend, to_one_of},
    scene::{A, A2, ADMIN, B, CLIENT, FOUR_PORTS, OTHER, THIRD, WEB_ID},
    segment::{CLIENT_ISN, SYN, client},
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
