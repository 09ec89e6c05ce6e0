//! Settled slots: services of which nothing is recorded while their ring stands still.

use lb_common::{
    Reason,
    abi::{backend_state, mode},
    cell::Phase::{self, Answered, Embryonic, Established},
    ring::SAME,
};

use crate::packets::{
    Case, Expect, Fact, Life,
    expect::{dropped, reset, to_backend, to_client},
    scene::{A, B, CLIENT, MODES, OTHER, WEB_ID},
    segment::{ACK, CLIENT_ISN, FIN, RST, SERVER_ISN, SYN, client, datagram, server},
};

fn slots(owner: u16, former: u16) -> Fact {
    Fact::Slots(WEB_ID, vec![(owner, former)])
}

fn crowd() -> Fact {
    Fact::Crowd(A, Life::Established, 0)
}

/// A full table.
const FULL: [Phase; 8] = [Established; 8];

fn unrecorded(opened: u16, to: u16) -> Expect {
    to_backend(to).opens(opened).closes(opened).counted(WEB_ID, Reason::NotRecorded)
}

pub(super) fn cases() -> Vec<Case> {
    let modes = MODES.iter().filter(|(_, mode)| mode::is_one_sided(*mode));
    let table = modes.flat_map(|(name, mode)| {
        let named = |what: &str| Case::new(format!("{name}, settled slots: {what}")).mode(*mode);
        // After a client's ACK right behind its SYN: where answers pass by, it says a little; else they say all.
        let heard = if mode::is_one_sided(*mode) { Answered } else { Embryonic };
        [settled(named), changing(named, heard), full(named)].concat()
    });
    table.chain(answers()).collect()
}

fn settled(case: impl Fn(&str) -> Case) -> Vec<Case> {
    vec![
        case("in a settled slot nothing is looked up and nothing recorded, whatever comes")
            .given(slots(A, A))
            .send(client(SYN), to_backend(A), &[])
            .send(client(ACK).data(100), to_backend(A), &[])
            .send(client(FIN | ACK), to_backend(A), &[])
            .send(client(RST), to_backend(A), &[])
            .send(client(ACK).of(OTHER), to_backend(A), &[]),
        case("datagrams of a settled slot are not recorded either")
            .udp()
            .given(slots(A, A))
            .send(datagram(30), to_backend(A), &[])
            .send(datagram(30), to_backend(A), &[]),
        case("a settled slot whose backend drains goes on")
            .given(slots(A, A))
            .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
            .send(client(ACK), to_backend(A), &[]),
        case("a settled slot whose backend is gone gives a RST that fits")
            .given(slots(A, A))
            .given(Fact::State(A, backend_state::ABSENT))
            .send(client(SYN), reset(Reason::BackendGone, 0, Some(CLIENT_ISN + 1)), &[])
            .send(client(ACK), reset(Reason::BackendGone, SERVER_ISN + 1, None), &[])
            .send(client(RST), dropped(Reason::BackendGone), &[]),
        case("an empty ring is refused as any other is").given(Fact::Slots(WEB_ID, vec![])).send(
            client(SYN),
            reset(Reason::NoBackendReset, 0, Some(CLIENT_ISN + 1)),
            &[],
        ),
    ]
}

fn changing(case: impl Fn(&str) -> Case, heard: Phase) -> Vec<Case> {
    vec![
        case("in a changing slot a SYN goes to the new owner, and is recorded")
            .given(slots(B, A))
            .send(client(SYN), to_backend(B).opens(B), &[Embryonic])
            .send(client(ACK), to_backend(B), &[heard])
            .given(slots(B, B))
            .send(client(ACK).data(5), to_backend(B), &[heard]),
        case("any other packet goes to the former owner, and is recorded")
            .given(slots(B, A))
            .send(client(ACK).data(5), to_backend(A).opens(A), &[Answered])
            .send(client(ACK).data(5), to_backend(A), &[Answered]),
        case("a sleeping connection finds its backend again over two swaps")
            .given(slots(A, A))
            .send(client(SYN), to_backend(A), &[])
            .given(slots(B, A))
            .given(slots(0, A))
            .given(slots(B, A))
            .send(client(ACK).data(5), to_backend(A).opens(A), &[Answered]),
        case("a slot that goes back to its former owner keeps what the one between has taken")
            .given(slots(B, A))
            .send(client(SYN), to_backend(B).opens(B), &[Embryonic])
            .given(slots(A, SAME))
            .send(client(ACK), to_backend(B), &[heard])
            .send(client(SYN).of(OTHER), to_backend(A).opens(A), &[heard, Embryonic])
            .given(slots(A, A))
            .send(client(ACK).of(OTHER), to_backend(A), &[heard, Embryonic]),
        case("a SYN on the record of a connection that has ended goes to the new owner")
            .given(Fact::Connection {
                client: CLIENT,
                backend: A,
                place: 0,
                life: Life::ClosedByClient,
                age: 20_000,
            })
            .given(slots(B, A))
            .send(client(SYN), to_backend(B).opens(B).counted(WEB_ID, Reason::SynOnOldFlow), &[Embryonic]),
        case("a SYN on the record of a backend that is gone goes to the new owner")
            .given(Fact::Connection {
                client: CLIENT,
                backend: A,
                place: 0,
                life: Life::Established,
                age: 20_000,
            })
            .given(Fact::State(A, backend_state::ABSENT))
            .given(slots(B, B))
            .given(slots(B, SAME))
            .send(
                client(SYN),
                to_backend(B).opens(B).closes(A).counted(WEB_ID, Reason::SynOnOldFlow),
                &[Embryonic],
            ),
        case("a datagram may be of an old conversation, so it goes to the former owner")
            .udp()
            .given(slots(B, A))
            .send(datagram(9), to_backend(A).opens(A), &[Answered])
            .given(slots(B, SAME))
            .send(datagram(9), to_backend(A), &[Answered])
            .send(datagram(9).of(OTHER), to_backend(B).opens(B), &[Answered, Answered]),
        case("a slot without an owner has no room").given(slots(0, A)).send(
            client(SYN),
            reset(Reason::NoBackendReset, 0, Some(CLIENT_ISN + 1)).counted(WEB_ID, Reason::BackendsFull),
            &[],
        ),
    ]
}

fn full(case: impl Fn(&str) -> Case) -> Vec<Case> {
    vec![
        case("a full table over a swap: what cannot be recorded goes to the former owner, a SYN too")
            .buckets(1)
            .given(crowd())
            .given(slots(B, A))
            .send(client(SYN), unrecorded(B, A), &FULL)
            .send(client(ACK), unrecorded(A, A), &FULL)
            .send(client(FIN | ACK), to_backend(A), &FULL),
        case("a full table in a slot that goes back: all of it belongs to the owner")
            .buckets(1)
            .given(crowd())
            .given(slots(A, SAME))
            .send(client(SYN), unrecorded(A, A), &FULL)
            .send(client(ACK), unrecorded(A, A), &FULL),
        case("a full table matters to no settled slot").buckets(1).given(crowd()).given(slots(A, A)).send(
            client(SYN),
            to_backend(A),
            &FULL,
        ),
    ]
}

/// In `dnat` the answers pass here too, and nothing is recorded of them in a settled slot.
fn answers() -> Vec<Case> {
    let case = |what: &str| Case::new(format!("dnat, settled slots: {what}")).mode(mode::DNAT);
    vec![
        case("the answer to a SYN of a changing slot goes back by its record")
            .given(slots(B, A))
            .send(client(SYN), to_backend(B).opens(B), &[Embryonic])
            .send(server(B, SYN | ACK), to_client(B), &[Answered]),
    ]
}
