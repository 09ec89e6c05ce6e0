//! What the agent is told of a connection's own packets.

use lb_common::{
    Reason,
    abi::{mode, no_backend},
    cell::Phase::{Answered, Closed, Embryonic, Established},
    event::kind,
};

use crate::packets::{
    Case, Fact,
    expect::{dropped, to_backend, to_client},
    scene::{A, FOUR_PORTS, MODES, OTHER},
    segment::{ACK, RST, SYN, client, server},
};

/// Where chance is the clock's: a tick that ends between two packets lets a second event be told.
const TRIES: u32 = 5;

pub(super) fn cases() -> Vec<Case> {
    let modes = [("snat", mode::SNAT), ("dnat", mode::DNAT)];
    let table = modes.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode).ports(FOUR_PORTS);
        let begun = |case: Case| case.send(client(SYN), to_backend(A).opens(A).tells_nothing(), &[Embryonic]);
        [
            begun(case("that a backend has answered a SYN is told, and nothing after it"))
                .send(server(A, SYN | ACK), to_client(A).tells(kind::ANSWERED, A), &[Answered])
                .send(client(ACK), to_backend(A).tells_nothing(), &[Established])
                .send(client(ACK).data(7), to_backend(A).tells_nothing(), &[Established]),
            case("of two answers within a tick one is told")
                .tries(TRIES)
                .send(client(SYN), to_backend(A).opens(A), &[Embryonic])
                .send(client(SYN).of(OTHER), to_backend(A).opens(A), &[Embryonic; 2])
                .send(server(A, SYN | ACK), to_client(A).tells(kind::ANSWERED, A), &[Embryonic, Answered])
                .send(server(A, SYN | ACK).of(OTHER), to_client(A).of(OTHER).tells_nothing(), &[Answered; 2]),
            begun(case("that a backend refuses is told")).send(
                server(A, RST | ACK).seq(0),
                to_client(A).closes(A).tells(kind::REFUSED, A),
                &[Closed],
            ),
            begun(
                case("that a backend refuses is told where its service holds, too")
                    .given(Fact::Refusals(A, no_backend::HOLD)),
            )
            .send(
                server(A, RST | ACK).seq(0),
                dropped(Reason::RefusalHeld).closes(A).tells(kind::REFUSED, A),
                &[Closed],
            ),
            begun(case("a RST after the handshake refuses nothing"))
                .send(server(A, SYN | ACK), to_client(A), &[Answered])
                .send(client(ACK), to_backend(A), &[Established])
                .send(server(A, RST), to_client(A).closes(A).tells_nothing(), &[Closed]),
        ]
    });
    table.chain(unanswered()).collect()
}

fn unanswered() -> Vec<Case> {
    let table = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode);
        let begun = |case: Case| case.send(client(SYN), to_backend(A).opens(A).tells_nothing(), &[Embryonic]);
        [
            begun(case("a SYN that comes again a second later says that nobody has answered"))
                .given(Fact::Pass(1_100))
                .send(client(SYN), to_backend(A).tells(kind::UNANSWERED, A), &[Embryonic]),
            begun(case("a SYN that comes again at once says nothing")).send(
                client(SYN),
                to_backend(A).tells_nothing(),
                &[Embryonic],
            ),
        ]
    });
    table.collect()
}
