//! Datagrams: their checksums, and how their conversations begin and go on.

use lb_common::{
    Reason,
    abi::{backend_state, mode, no_backend},
    cell::Phase::{Embryonic, Established, Resting},
};

use crate::packets::{
    Case, Fact, Life, Sum,
    expect::{complained, dropped, to_backend, to_client, untouched},
    message::Trouble,
    scene::{A, B, CLIENT, FOUR_PORTS, MODES, OTHER, SOURCE, WEB, WEB_ID},
    segment::{SYN, answer, client, datagram},
};

fn held(life: Life) -> Fact {
    Fact::Connection { client: CLIENT, backend: A, place: 0, life, age: 5_000 }
}

pub(super) fn cases() -> Vec<Case> {
    [sums(), without(), conversations(), refused()].concat()
}

fn sums() -> Vec<Case> {
    let modes = [("snat", mode::SNAT), ("dnat", mode::DNAT)];
    let table = modes.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode).udp();
        let both = |case: Case, sum: Sum, length: usize| {
            case.given(held(Life::Established))
                .send(datagram(length).sum(sum), to_backend(A), &[Established])
                .send(answer(A, length).sum(sum), to_client(A), &[Established])
        };
        [
            both(case("a datagram without a checksum has none afterwards"), Sum::Raw(0), 20).only(4),
            both(case("a datagram's right sum stays right"), Sum::Whole, 1201),
            both(case("a datagram's sum of 0xffff stays right"), Sum::Exactly(0xffff), 8),
            both(case("a damaged datagram stays damaged"), Sum::Raw(0x1111), 8),
            both(case("an empty datagram is one too"), Sum::Whole, 0),
        ]
    });
    // The sum that a packet leaves with is zero for one of the 65,536 words; each is tried in pieces of a case.
    let zeros = (0..8_u16).map(|seed| {
        let words: Vec<u16> = (0..=u16::MAX).filter(|word| word % 8 == seed && word % 64 < 8).collect();
        words.into_iter().fold(
            Case::new(format!(
                "no datagram leaves with a sum of zero, which would mean none: words of {seed}"
            ))
            .udp()
            .given(held(Life::Established)),
            |case, word| {
                let mut packet = datagram(2);
                packet.data = word.to_be_bytes().to_vec();
                case.send(packet, to_backend(A), &[Established])
            },
        )
    });
    table.chain(zeros.take(1)).collect()
}

/// In IPv6 a datagram must have a checksum (RFC 8200, 8.1): one that has none is never given one here.
fn without() -> Vec<Case> {
    let noted = || untouched().counted(0, Reason::Malformed);
    let none = |length| datagram(length).sum(Sum::Raw(0));
    let table = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode).udp().only(6);
        [
            case("a datagram of IPv6 without a checksum begins nothing")
                .send(none(20), noted(), &[])
                .send(none(20).tag(0x8100, 7), noted(), &[])
                .send(none(200).part(0, 64, true), noted(), &[]),
            case("a datagram of IPv6 without a checksum does not go on with its conversation")
                .given(held(Life::Established))
                .send(none(20), noted(), &[Established]),
        ]
    });
    let answers = [("snat", mode::SNAT), ("dnat", mode::DNAT)].map(|(name, mode)| {
        Case::new(format!("{name}: an answer of IPv6 without a checksum stays without"))
            .mode(mode)
            .udp()
            .only(6)
            .given(held(Life::Established))
            .send(answer(A, 20).sum(Sum::Raw(0)), noted(), &[Established])
    });
    let foreign = Case::new("a datagram of IPv6 without a checksum to another port is the host's")
        .udp()
        .only(6)
        .send(none(20).to(std::net::SocketAddrV4::new(*WEB.ip(), 4_789)), untouched(), &[]);
    table.chain(answers).chain([foreign]).collect()
}

fn conversations() -> Vec<Case> {
    let case = |what: &str| Case::new(format!("a datagram: {what}")).udp();
    vec![
        case("its answer goes back to the client, and confirms the conversation")
            .send(datagram(30), to_backend(A).opens(A), &[Embryonic])
            .send(answer(A, 400), to_client(A), &[Established])
            .send(datagram(30), to_backend(A), &[Established]),
        case("two clients are two conversations")
            .ports(FOUR_PORTS)
            .send(datagram(30), to_backend(A).opens(A), &[Embryonic])
            .send(datagram(30).of(OTHER), to_backend(A).opens(A), &[Embryonic; 2])
            .send(answer(A, 1).of(OTHER), to_client(A).of(OTHER), &[Embryonic, Established]),
        case("one of a conversation whose backend drains stays with it")
            .given(held(Life::Established))
            .given(Fact::State(A, backend_state::CLOSED_TO_NEW))
            .given(Fact::Ring(WEB_ID, vec![B]))
            .send(datagram(3), to_backend(A), &[Established]),
        case("one whose backend is gone begins a conversation elsewhere")
            .given(held(Life::Established))
            .given(Fact::State(A, backend_state::ABSENT))
            .given(Fact::Ring(WEB_ID, vec![B]))
            .send(
                datagram(3),
                to_backend(B).opens(B).closes(A).counted(WEB_ID, Reason::SynOnOldFlow),
                &[Resting, Embryonic],
            ),
        case("TCP to its service's port is the host's").send(client(SYN), untouched(), &[]),
        case("an answer to a port that nobody holds is the host's").only(4).send(
            answer(A, 9).to(std::net::SocketAddrV4::new(SOURCE, 2000)),
            untouched(),
            &[],
        ),
        case("a backend that keeps the client's port is asked at it")
            .given(Fact::KeepsPort(A))
            .send(datagram(30), to_backend(A).opens(A), &[Embryonic])
            .send(answer(A, 400), to_client(A), &[Established]),
    ]
}

fn refused() -> Vec<Case> {
    let unreachable = || complained(Reason::NoBackendReset, Trouble::PortUnreachable);
    let modes = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| {
            let empty = Fact::Ring(WEB_ID, vec![]);
            Case::new(format!("{name}: without backends a datagram {what}")).mode(*mode).udp().given(empty)
        };
        [
            case("gets an ICMP error that quotes it whole").send(datagram(20), unreachable(), &[]),
            case("gets an ICMP error that quotes its beginning").send(datagram(900), unreachable(), &[]),
            case("behind tags gets an ICMP error behind the same tags")
                .send(datagram(44).tag(0x8100, 7), unreachable(), &[])
                .send(datagram(44).tag(0x88a8, 9).tag(0x8100, 7), unreachable(), &[]),
            case("is held back within `hold`, and then refused")
                .given(Fact::NoBackend(WEB_ID, no_backend::HOLD))
                .send(datagram(20), dropped(Reason::NoBackendHold), &[])
                .given(Fact::Pass(3_200))
                .send(datagram(20), unreachable(), &[]),
            case("is dropped by policy").given(Fact::NoBackend(WEB_ID, no_backend::DROP)).send(
                datagram(20),
                dropped(Reason::NoBackendDrop),
                &[],
            ),
        ]
    });
    let rate = Case::new("ICMP errors beyond their rate are held back, and both are counted")
        .udp()
        .given(Fact::Ring(WEB_ID, vec![]))
        .given(Fact::ErrorsSpent)
        .send(datagram(20), dropped(Reason::ErrorHeldBack).counted(WEB_ID, Reason::NoBackendReset), &[])
        .given(Fact::Pass(1_000))
        .send(datagram(20), unreachable(), &[]);
    modes.chain([rate]).collect()
}
