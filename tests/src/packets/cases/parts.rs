//! Fragmented packets: the first part finds the way, the others follow it.

use lb_common::{
    Reason,
    abi::mode,
    cell::Phase::{Embryonic, Established},
};

use crate::packets::{
    Case, Expect, Fact, Life, Segment,
    expect::{complained, dropped, to_backend, to_client, untouched},
    message::Trouble,
    scene::{A, B, BACK, CLIENT, MODES, TRUSTS, WEB_ID},
    segment::{ACK, answer, client, datagram},
};

/// A datagram of three parts.
const LONG: usize = 3_000;

fn held() -> Fact {
    Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 0 }
}

fn first(segment: Segment) -> Segment {
    segment.part(0, 1_480, true)
}

fn second(segment: Segment) -> Segment {
    segment.part(1_480, 1_480, true)
}

fn last(segment: Segment) -> Segment {
    segment.part(2_960, 1_480, false)
}

fn unmatched() -> Expect {
    untouched().counted(0, Reason::FragmentUnmatched)
}

pub(super) fn cases() -> Vec<Case> {
    [in_modes(), others(), trusted()].concat()
}

fn in_modes() -> Vec<Case> {
    let table = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode).udp();
        let long = || datagram(LONG);
        let mut cases = vec![
            case("the parts of a datagram follow the first one, in any order")
                .send(first(long()), to_backend(A).opens(A), &[Embryonic])
                .send(last(long()), to_backend(A), &[Embryonic])
                .send(second(long()), to_backend(A), &[Embryonic]),
            case("the parts follow the first one even where the service has changed its mind")
                .given(held())
                .send(first(long()), to_backend(A), &[Established])
                .given(Fact::Ring(WEB_ID, vec![B]))
                .send(second(long()), to_backend(A), &[Established]),
            case("a part that comes before the first one is the host's, and counted")
                .given(held())
                .send(second(long()), unmatched(), &[Established])
                .send(first(long()), to_backend(A), &[Established])
                .send(second(long()), to_backend(A), &[Established]),
            case("a part of another packet is unmatched")
                .given(held())
                .send(first(long()), to_backend(A), &[Established])
                .send(second(long()).id(0x1234), unmatched(), &[Established]),
            case("a first part is remembered for thirty seconds")
                .given(held())
                .send(first(long()), to_backend(A), &[Established])
                .given(Fact::Pass(29_500))
                .send(second(long()), to_backend(A), &[Established])
                .given(Fact::Pass(1_000))
                .send(last(long()), unmatched(), &[Established]),
            case("parts behind tags, with options or extension headers")
                .given(held())
                .send(first(dressed(long())), to_backend(A), &[Established])
                .send(last(dressed(long())), to_backend(A), &[Established]),
            case("a part with padding behind it")
                .given(held())
                .send(first(long()).padding(3), to_backend(A), &[Established])
                .send(last(long()).padding(6), to_backend(A), &[Established]),
            case("a part whose way has gone is dropped")
                .given(held())
                .send(first(long()), to_backend(A), &[Established])
                .send(last(long()).claiming(8), untouched().counted(0, Reason::Malformed), &[Established]),
            does_not_fit(
                case("a later part that does not fit is dropped, for nobody may complain of one"),
                dropped(Reason::TooBig),
            )
            .only(4),
            does_not_fit(
                case("a later part that does not fit is complained of"),
                complained(Reason::TooBig, Trouble::TooBig(1_300 - if *mode == mode::IPIP { 40 } else { 0 })),
            )
            .only(6),
        ];
        if *mode != mode::DSR {
            cases.push(
                case("a later part with one hop left is dropped")
                    .given(held())
                    .send(first(long()), to_backend(A), &[Established])
                    .send(second(long()).ttl(1), dropped(Reason::TtlExceeded), &[Established]),
            );
        }
        if !mode::is_one_sided(*mode) {
            let reply = || answer(A, LONG);
            cases.push(
                case("the parts of an answer follow it back")
                    .given(held())
                    .send(first(reply()), to_client(A), &[Established])
                    .send(second(reply()), to_client(A), &[Established])
                    .send(last(reply()), to_client(A), &[Established]),
            );
        }
        cases
    });
    table.collect()
}

fn does_not_fit(case: Case, expect: Expect) -> Case {
    case.given(held())
        .send(first(datagram(LONG)), to_backend(A), &[Established])
        .given(Fact::Mtu(BACK, 1_300))
        .send(second(datagram(LONG)), expect, &[Established])
}

fn dressed(segment: Segment) -> Segment {
    segment.tag(0x8100, 5).ip_options(&[1; 8]).extensions(&[(60, 0)])
}

fn others() -> Vec<Case> {
    let connection = |what: &str| Case::new(what).given(held());
    let to_host = std::net::SocketAddrV4::new(std::net::Ipv4Addr::new(203, 0, 113, 1), 80);
    vec![
        connection("parts of TCP are balanced too")
            .send(client(ACK).data(2_000).part(0, 1_024, true), to_backend(A), &[Established])
            .send(client(ACK).data(2_000).part(1_024, 1_024, false), to_backend(A), &[Established]),
        connection("a part of TCP does not belong to a datagram of the same number")
            .send(client(ACK).data(2_000).part(0, 1_024, true), to_backend(A), &[Established])
            .send(datagram(2_000).part(1_024, 1_024, false), unmatched(), &[Established]),
        connection("a first part that ends within the TCP header is the host's").send(
            client(ACK).data(64).part(0, 16, true),
            untouched().counted(0, Reason::Malformed),
            &[Established],
        ),
        connection("a whole packet that says so by a fragment header is no part (RFC 6946)").send(
            client(ACK).data(64).part(0, 4_000, false),
            to_backend(A),
            &[Established],
        ),
        connection("parts that are for the host are untouched and uncounted")
            .send(datagram(LONG).to(to_host).part(0, 1_480, true), untouched(), &[Established])
            .send(datagram(LONG).to(to_host).part(1_480, 1_480, true), untouched(), &[Established]),
        connection(
            "parts of a packet to a port that no service names are the host's, the later ones counted",
        )
        .send(datagram(LONG).part(0, 1_480, true), untouched(), &[Established])
        .send(datagram(LONG).part(1_480, 1_480, true), unmatched(), &[Established]),
    ]
}

/// A part's checksum is never looked at: what it covers is not there.
fn trusted() -> Vec<Case> {
    let table = TRUSTS.iter().map(|(name, trust)| {
        Case::new(format!("a first part's checksum follows its ends ({name})"))
            .udp()
            .trust(*trust)
            .given(held())
            .send(first(datagram(LONG)), to_backend(A), &[Established])
            .send(first(answer(A, LONG)), to_client(A), &[Established])
    });
    table.collect()
}
