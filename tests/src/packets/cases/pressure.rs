//! A full flow table: who yields, who never does, and where a connection goes that nobody can record.

use lb_common::{
    Reason,
    abi::mode,
    cell::Phase::{self, Answered, Closed, Embryonic, Established, Resting},
};

use crate::packets::{
    Case, Expect, Fact, Life,
    expect::{complained, reset, to_backend},
    message::Trouble,
    scene::{A, B, ELEVEN_PORTS, MODES, OTHER, WEB_ID},
    segment::{ACK, CLIENT_ISN, FIN, SYN, client, datagram},
};

/// Eight of one phase and some more.
fn with(eight: Phase, more: &[Phase]) -> Vec<Phase> {
    [&[eight; 8][..], more].concat()
}

/// It goes where the ring says, and is not recorded.
fn by_ring() -> Expect {
    to_backend(A).opens(A).closes(A).counted(WEB_ID, Reason::NotRecorded)
}

pub(super) fn cases() -> Vec<Case> {
    let others = MODES.iter().filter(|(_, mode)| *mode != mode::SNAT);
    let table = others.flat_map(|(name, mode)| recorded(name, *mode));
    table.chain(snat()).collect()
}

fn recorded(name: &str, mode: u8) -> Vec<Case> {
    let case = |what: &str| Case::new(format!("{name}: {what}")).mode(mode).buckets(1);
    vec![
        case("where all room is established, a SYN and what follows go where the ring says")
            .given(Fact::Crowd(A, Life::Established, 86_400_000))
            .send(client(SYN), by_ring().tells_pressure(A, Reason::NotRecorded), &with(Established, &[]))
            .send(
                client(ACK).data(10),
                by_ring().counted(WEB_ID, Reason::UnknownByRing),
                &with(Established, &[]),
            )
            .send(
                client(FIN | ACK),
                to_backend(A).counted(WEB_ID, Reason::UnknownByRing),
                &with(Established, &[]),
            ),
        case("once there is room, a connection that was not recorded is")
            .given(Fact::Crowd(A, Life::ClosedByClient, 1_000))
            .send(
                client(ACK).data(10),
                to_backend(A).opens(A).counted(WEB_ID, Reason::UnknownByRing),
                &[Closed, Closed, Closed, Closed, Closed, Closed, Closed, Answered],
            ),
        case("handshakes of less than a second do not yield")
            .given(Fact::Crowd(A, Life::Embryonic, 300))
            .send(client(SYN), by_ring(), &with(Embryonic, &[])),
        case("an older handshake yields, and its account is closed")
            .given(Fact::Crowd(A, Life::Embryonic, 2_000))
            .send(
                client(SYN),
                to_backend(A).opens(A).closes(A).counted(WEB_ID, Reason::EmbryoDisplaced),
                &with(Embryonic, &[]),
            ),
        case("one that was answered but never proven yields too")
            .given(Fact::Crowd(A, Life::Answered, 2_000))
            .send(
                client(SYN),
                to_backend(A).opens(A).closes(A).counted(WEB_ID, Reason::EmbryoDisplaced),
                &[Answered, Answered, Answered, Answered, Answered, Answered, Answered, Embryonic],
            ),
        case("a flood of SYNs turns over handshakes and never touches an established connection")
            .given(Fact::Connection {
                client: OTHER,
                backend: A,
                place: 0,
                life: Life::Established,
                age: 9_000_000,
            })
            .given(Fact::Crowd(A, Life::Embryonic, 5_000))
            .send(
                client(SYN),
                to_backend(A).opens(A).closes(A).counted(WEB_ID, Reason::EmbryoDisplaced),
                &[&[Embryonic; 7][..], &[Established]].concat(),
            )
            .send(client(ACK).of(OTHER), to_backend(A), &[&[Embryonic; 7][..], &[Established]].concat()),
        case("a datagram that cannot be recorded goes where the ring says")
            .udp()
            .given(Fact::Crowd(A, Life::Established, 0))
            .send(datagram(10), by_ring(), &with(Established, &[]))
            .send(datagram(10), by_ring(), &with(Established, &[])),
        case("where the ring says is not where the weights would: the full table follows the ring alone")
            .given(Fact::Ring(WEB_ID, vec![B]))
            .given(Fact::Crowd(A, Life::Established, 0))
            .send(
                client(SYN),
                to_backend(B).opens(B).closes(B).counted(WEB_ID, Reason::NotRecorded),
                &with(Established, &[]),
            ),
    ]
}

fn snat() -> Vec<Case> {
    let case = |what: &str| Case::new(format!("snat: {what}")).buckets(1).ports(ELEVEN_PORTS);
    vec![
        case("a flow whose handshake never ended yields, and its port rests")
            .given(Fact::Crowd(A, Life::Embryonic, 3_000))
            .send(
                client(SYN),
                to_backend(A).opens(A).closes(A).counted(WEB_ID, Reason::EmbryoDisplaced),
                &[&[Embryonic; 8][..], &[Resting]].concat(),
            ),
        case("where nothing else is left, one of less than a second yields too")
            .given(Fact::Crowd(A, Life::Embryonic, 300))
            .send(
                client(SYN),
                to_backend(A).opens(A).closes(A).counted(WEB_ID, Reason::EmbryoDisplaced),
                &[&[Embryonic; 8][..], &[Resting]].concat(),
            ),
        case("a datagram that cannot be recorded is answered with an ICMP error")
            .udp()
            .given(Fact::Crowd(A, Life::Established, 0))
            .send(
                datagram(10),
                complained(Reason::FlowTableFull, Trouble::PortUnreachable).opens(A).closes(A),
                &with(Established, &[Resting]),
            ),
    ]
}
