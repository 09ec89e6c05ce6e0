//! How far a connection has come, by what its segments say.

use super::*;
use crate::{Be32, Ticks};

const CLIENT: Be32 = Be32::from_host(0x0a4d_0101);
const PORT: Be16 = Be16::from_host(40000);
const NOTHING: Signs =
    Signs { syn_ack: false, fin: false, rst: false, data: false, proves: false, datagram: false };
const SYN_ACK: Signs = Signs { syn_ack: true, ..NOTHING };
const PROOF: Signs = Signs { proves: true, ..NOTHING };
const DATA: Signs = Signs { data: true, ..NOTHING };
const FIN: Signs = Signs { fin: true, ..NOTHING };
const RST: Signs = Signs { rst: true, ..NOTHING };

fn embryo() -> Owner {
    Owner::next(Owner(0), CLIENT, PORT, Phase::Embryonic)
}

#[test]
fn phases_follow_the_segments() {
    use Side::{Client, Server};
    let table: &[(&str, &[(Side, Signs)], Phase, bool)] = &[
        ("a SYN alone", &[], Phase::Embryonic, false),
        ("an answer", &[(Server, SYN_ACK)], Phase::Answered, false),
        ("a proof without an answer", &[(Client, PROOF)], Phase::Embryonic, false),
        ("a handshake", &[(Server, SYN_ACK), (Client, PROOF)], Phase::Established, false),
        ("one FIN", &[(Server, SYN_ACK), (Client, PROOF), (Client, FIN)], Phase::Established, false),
        (
            "the server closes first",
            &[(Server, SYN_ACK), (Client, PROOF), (Server, FIN), (Client, FIN)],
            Phase::Closed,
            true,
        ),
        (
            "the client closes first",
            &[(Server, SYN_ACK), (Client, PROOF), (Client, FIN), (Server, FIN)],
            Phase::Closed,
            false,
        ),
        (
            "both close at once",
            &[(Server, SYN_ACK), (Client, PROOF), (Client, FIN), (Server, FIN), (Server, NOTHING)],
            Phase::Closed,
            true,
        ),
        (
            "the client closes first and the server's FIN comes again",
            &[(Server, SYN_ACK), (Client, PROOF), (Client, FIN), (Server, FIN), (Server, FIN)],
            Phase::Closed,
            false,
        ),
        ("a refusal", &[(Server, RST)], Phase::Closed, false),
        (
            "data after a client's RST",
            &[(Server, SYN_ACK), (Client, PROOF), (Client, RST), (Server, DATA)],
            Phase::Established,
            false,
        ),
        (
            "data after a server's RST",
            &[(Server, SYN_ACK), (Client, PROOF), (Server, RST), (Client, DATA)],
            Phase::Closed,
            false,
        ),
        (
            "data after a client's RST in the handshake",
            &[(Server, SYN_ACK), (Client, RST), (Client, DATA), (Server, DATA)],
            Phase::Closed,
            false,
        ),
        ("a SYN, a RST and data, all forged", &[(Client, RST), (Client, DATA)], Phase::Closed, false),
        (
            "late data after both FINs",
            &[(Server, SYN_ACK), (Client, PROOF), (Client, FIN), (Server, FIN), (Server, DATA)],
            Phase::Closed,
            true,
        ),
    ];
    for (what, segments, phase, server_waits) in table {
        let end = segments.iter().fold(embryo(), |owner, (side, signs)| owner.after(*side, *signs));
        assert_eq!(end.phase(), *phase, "{what}");
        assert_eq!(end.server_waits(), *server_waits, "{what}");
        assert!(end.has(CLIENT.tag(), PORT), "{what}");
        assert_eq!((end.tag(), end.client_port()), (CLIENT.wire(), PORT), "{what}");
    }
}

#[test]
fn a_segment_never_touches_a_cell_that_is_free_resting_or_busy() {
    for phase in [Phase::Free, Phase::Resting, Phase::Busy] {
        for side in [Side::Client, Side::Server] {
            for signs in [NOTHING, SYN_ACK, PROOF, DATA, FIN, RST] {
                let owner = embryo().with_phase(phase);
                assert_eq!(owner.after(side, signs), owner);
            }
        }
    }
}

#[test]
fn ports_are_taken_in_the_order_of_their_worth() {
    let closed = embryo().with_phase(Phase::Closed);
    let waiting = [(Side::Server, SYN_ACK), (Side::Client, PROOF), (Side::Server, FIN), (Side::Client, FIN)]
        .iter()
        .fold(embryo(), |owner, (side, signs)| owner.after(*side, *signs));
    let old = Ticks::from_millis(3_600_000);
    let order = [
        Worth::of(Owner(0), Ticks::from_raw(0)),
        Worth::of(closed.with_phase(Phase::Resting), old),
        Worth::of(waiting, Ticks::from_millis(67_000)),
        Worth::of(closed, Ticks::from_millis(1_000)),
        Worth::of(waiting, Ticks::from_millis(65_000)),
        Worth::of(waiting, Ticks::from_millis(1_000)),
        Worth::of(embryo(), Ticks::from_millis(9_000)),
        Worth::of(embryo(), Ticks::from_millis(2_000)),
        Worth::of(embryo(), Ticks::from_millis(500)),
    ];
    assert!(order.is_sorted_by(|a, b| a > b), "{order:?}");
    assert_eq!(order[8], Worth::NONE);
    assert_eq!(Worth::of(embryo().with_phase(Phase::Established), old), Worth::NONE);
    assert_eq!(Worth::of(embryo().with_phase(Phase::Busy), old), Worth::NONE);
    assert!(order.iter().filter(|worth| worth.is_early()).count() == 2);
}
