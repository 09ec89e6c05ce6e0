//! A flow table full of conversations in UDP: what room TCP, and further conversations, find there.

use lb_common::{
    Reason,
    abi::mode,
    cell::Phase::{self, Embryonic, Established, Resting},
};

use crate::packets::{
    Case, Expect, Fact, Life,
    expect::{complained, to_backend},
    message::Trouble,
    scene::{A, B, ELEVEN_PORTS, MODES, OTHER, WEB_ID},
    segment::{SYN, client, datagram},
};

/// Phases of the flows, and of the ports of those that have yielded in `snat`.
fn left(by: u8, flows: &[(Phase, usize)], yielded: usize) -> Vec<Phase> {
    let ports = if by == mode::SNAT { yielded } else { 0 };
    flows.iter().chain(&[(Resting, ports)]).flat_map(|(phase, count)| vec![*phase; *count]).collect()
}

pub(super) fn cases() -> Vec<Case> {
    MODES.iter().flat_map(|(name, by)| [connections(name, *by), conversations(name, *by)].concat()).collect()
}

/// It takes the place of a conversation.
fn displaced() -> Expect {
    to_backend(A).opens(A).counted(WEB_ID, Reason::ConversationDisplaced)
}

fn connections(name: &str, by: u8) -> Vec<Case> {
    let case = |what: &str| Case::new(format!("{name}: {what}")).mode(by).buckets(1).ports(ELEVEN_PORTS);
    let crowd = |case: Case, age| {
        case.given(Fact::SpeaksUdp(B)).given(Fact::Crowd(B, Life::Established, age)).given(Fact::SpeaksTcp(A))
    };
    let other = |age| Fact::Connection { client: OTHER, backend: A, place: 9, life: Life::Established, age };
    let one = left(by, &[(Established, 7), (Embryonic, 1)], 1);
    vec![
        crowd(case("an answered conversation yields to a connection, however lately it spoke"), 0).send(
            client(SYN),
            displaced().closes(B),
            &one,
        ),
        crowd(
            case("the conversation that has been silent for longest yields")
                .given(Fact::SpeaksUdp(A))
                .given(other(3_000)),
            1_000,
        )
        .send(client(SYN), displaced().closes(A), &one),
        crowd(
            case("an established connection never yields, a conversation does").given(other(80_000_000)),
            0,
        )
        .send(client(SYN), displaced().closes(B), &one),
        crowd(case("a handshake in its first second does not yield where a conversation can"), 0)
            .send(client(SYN), displaced().closes(B), &one)
            .send(
                client(SYN).of(OTHER),
                displaced().closes(B),
                &left(by, &[(Established, 6), (Embryonic, 2)], 2),
            ),
    ]
}

fn conversations(name: &str, by: u8) -> Vec<Case> {
    let case = |what: &str| {
        let case = Case::new(format!("{name}: {what}")).mode(by).buckets(1).ports(ELEVEN_PORTS);
        case.udp()
    };
    let refused = || {
        let expect = if mode::is_one_sided(by) {
            to_backend(A).counted(WEB_ID, Reason::NotRecorded)
        } else {
            complained(Reason::FlowTableFull, Trouble::PortUnreachable)
        };
        expect.opens(A).closes(A)
    };
    let tcp = |case: Case, life, age| case.given(Fact::SpeaksTcp(B)).given(Fact::Crowd(B, life, age));
    vec![
        case("an answered conversation yields to another one after ten seconds of silence")
            .given(Fact::Crowd(B, Life::Established, 11_000))
            .send(datagram(8), displaced().closes(B), &left(by, &[(Established, 7), (Embryonic, 1)], 1)),
        case("before that it does not").given(Fact::Crowd(B, Life::Established, 8_000)).send(
            datagram(8),
            refused(),
            &left(by, &[(Established, 8)], 1),
        ),
        tcp(case("a datagram displaces no handshake in its first second"), Life::Embryonic, 300).send(
            datagram(8),
            refused(),
            &left(by, &[(Embryonic, 8)], 1),
        ),
        tcp(case("a datagram displaces no established connection"), Life::Established, 80_000_000).send(
            datagram(8),
            refused(),
            &left(by, &[(Established, 8)], 1),
        ),
    ]
}
