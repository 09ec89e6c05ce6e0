//! Both checksums after a rewrite, by what the interface's sums are worth.

use lb_common::{
    Reason,
    abi::checksums::{COMPLETE, MAKE_WHOLE},
    cell::Phase::Established,
};

use crate::packets::{
    Case, Expect, Fact, Life, Segment, Sum,
    expect::{complained, to_backend, to_client},
    message::Trouble,
    scene::{A, BACK, CLIENT, TRUSTS, WEB_ID},
    segment::{ACK, PSH, client, datagram, server},
};

/// Lengths of data around the strides in which a sum is made, and the usual ones.
const LENGTHS: [usize; 24] =
    [0, 1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 15, 16, 31, 32, 43, 44, 45, 63, 536, 1447, 1459, 1460];

fn held() -> Fact {
    Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 0 }
}

/// Send it both ways; where a sum is made whole, that is counted.
fn both_ways(case: Case, make: impl Fn(Segment) -> Segment, whole: bool) -> Case {
    let counted =
        |expect: Expect| if whole { expect.counted(WEB_ID, Reason::ChecksumCompleted) } else { expect };
    case.given(held()).send(make(client(ACK | PSH)), counted(to_backend(A)), &[Established]).send(
        make(server(A, ACK | PSH)),
        counted(to_client(A)),
        &[Established],
    )
}

pub(super) fn cases() -> Vec<Case> {
    let table =
        TRUSTS.iter().flat_map(|(name, trust)| [by_trust(name, *trust), quoted(name, *trust)].concat());
    table.chain(edges()).collect()
}

/// Errors of ours that quote a packet whose sum may be completed on the way out, which their own sum covers.
fn quoted(name: &str, trust: u8) -> Vec<Case> {
    let case = |what: &str| Case::new(format!("{what} ({name})")).trust(trust);
    let too_big = || complained(Reason::TooBig, Trouble::TooBig(1_300));
    let sums = [("complete", Sum::Whole), ("partial", Sum::Partial), ("damaged", Sum::Raw(0x1234))];
    let table = sums.into_iter().flat_map(|(kind, sum)| {
        [
            case(&format!("an error about a packet whose sum is {kind}"))
                .given(held())
                .given(Fact::Mtu(BACK, 1_300))
                .send(client(ACK).data(1_400).sum(sum), too_big(), &[Established])
                .send(client(ACK).data(1_401).ip_options(&[1; 40]).sum(sum), too_big(), &[Established])
                .send(client(ACK).data(1_402).tag(0x8100, 7).sum(sum), too_big(), &[Established])
                .send(
                    client(ACK).data(20).ttl(1).sum(sum),
                    complained(Reason::TtlExceeded, Trouble::TimeExceeded),
                    &[Established],
                ),
            case(&format!("an error about a datagram whose sum is {kind}"))
                .udp()
                .given(Fact::Ring(WEB_ID, vec![]))
                .send(
                    datagram(21).sum(sum),
                    complained(Reason::NoBackendReset, Trouble::PortUnreachable),
                    &[],
                )
                .send(
                    datagram(300).sum(sum),
                    complained(Reason::NoBackendReset, Trouble::PortUnreachable),
                    &[],
                ),
        ]
    });
    table.collect()
}

fn by_trust(name: &str, trust: u8) -> Vec<Case> {
    let case = |what: &str| Case::new(format!("{what} ({name})")).trust(trust);
    let whole = trust == MAKE_WHOLE;
    let mut cases = vec![
        both_ways(case("complete sums stay right with any length of data"), |s| s, false),
        both_ways(
            case("a complete sum that looks partial follows as its interface's partial ones do"),
            |s| s.data(40).sum(Sum::LooksPartial),
            whole,
        ),
        both_ways(
            case("a sum that was damaged on the wire stays wrong"),
            |s| s.data(10).sum(Sum::Raw(0x1234)),
            false,
        ),
        both_ways(
            case("options of both headers belong to the sum"),
            |s| s.ip_options(&[1; 12]).tcp_options(&[1, 1, 8, 10, 9, 8, 7, 6, 5, 4, 3, 2]).data(21),
            false,
        ),
        both_ways(
            case("a partial sum of a packet with options of both headers"),
            |s| s.ip_options(&[1; 40]).tcp_options(&[1; 40]).data(21).sum(Sum::Partial),
            whole,
        ),
    ];
    for length in LENGTHS {
        cases.push(both_ways(
            case(&format!("a complete sum over {length} bytes")),
            |s| s.data(length),
            false,
        ));
        cases.push(both_ways(
            case(&format!("a partial sum over {length} bytes")),
            |s| s.data(length).sum(Sum::Partial),
            whole,
        ));
    }
    cases
}

/// Sums at the ends of the number range, where +0 and -0 are easily confused (RFC 1624, 3).
fn edges() -> Vec<Case> {
    TRUSTS
        .iter()
        .map(|(name, trust)| {
            both_ways(
                Case::new(format!("a complete sum of 0x0000 ({name})")).trust(*trust),
                |s| s.data(2).sum(Sum::Exactly(0)),
                false,
            )
        })
        .chain([both_ways(
            Case::new("a sum that is wrong by a whole turn, 0xffff for 0x0000, comes out right")
                .trust(COMPLETE),
            |s| s.data(2).sum(Sum::OtherZero),
            false,
        )])
        .collect()
}
