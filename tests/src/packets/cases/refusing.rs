//! Who gets a RST, with which numbers, and who gets nothing (RFC 9293, 3.10.7.1).

use lb_common::{Reason, abi::no_backend, cell::Phase::Embryonic};

use crate::packets::{
    Case, Fact, Segment, Sum,
    expect::{dropped, reset, to_backend},
    scene::{A, TRUSTS, WEB_ID},
    segment::{ACK, CLIENT_ISN, FIN, PSH, RST, SYN, client},
};

pub(super) fn cases() -> Vec<Case> {
    [strangers(), nobody(), every_trust()].concat()
}

fn strangers() -> Vec<Case> {
    let stranger = |what: &str, segment: Segment, seq, ack| {
        Case::new(what).send(segment, reset(Reason::NoFlow, seq, ack), &[])
    };
    let next = CLIENT_ISN + 1;
    vec![
        stranger(
            "an ACK without a flow gets a RST at the number it acknowledges",
            client(ACK).ack(0x8000_0001),
            0x8000_0001,
            None,
        ),
        stranger(
            "so does one with data, which is not acknowledged",
            client(ACK | PSH).data(100).ack(7),
            7,
            None,
        ),
        stranger("so does a SYN-ACK", client(SYN | ACK).ack(9), 9, None),
        stranger("so does a FIN with an ACK", client(FIN | ACK).ack(11), 11, None),
        stranger(
            "a segment without ACK gets a RST that acknowledges its data",
            client(PSH).data(100),
            0,
            Some(next + 100),
        ),
        stranger("a FIN without ACK counts as one", client(FIN).data(10), 0, Some(next + 11)),
        stranger(
            "a segment without any flag gets a RST that acknowledges nothing more",
            client(0),
            0,
            Some(next),
        ),
        stranger("the numbers of a RST wrap", client(PSH).seq(u32::MAX - 1).data(10), 0, Some(8)),
        stranger(
            "options and padding are not data",
            client(FIN).tcp_options(&[1; 40]).ip_options(&[1; 8]).padding(9),
            0,
            Some(next + 1),
        ),
        stranger("a packet with TTL 1 is answered, for it has arrived", client(ACK).ack(3).ttl(1), 3, None),
        Case::new("a RST without a flow is never answered")
            .send(client(RST), dropped(Reason::RstWithoutFlow), &[])
            .send(client(RST | ACK).data(4), dropped(Reason::RstWithoutFlow), &[])
            .send(client(RST | SYN), dropped(Reason::RstWithoutFlow), &[]),
    ]
}

fn nobody() -> Vec<Case> {
    let refused = || reset(Reason::NoBackendReset, 0, Some(CLIENT_ISN + 1));
    let empty = Fact::Ring(WEB_ID, vec![]);
    vec![
        Case::new("without backends a SYN gets a RST").given(empty.clone()).send(client(SYN), refused(), &[]),
        Case::new("a refused SYN's data and FIN are acknowledged").given(empty.clone()).send(
            client(SYN | FIN).data(20),
            reset(Reason::NoBackendReset, 0, Some(CLIENT_ISN + 22)),
            &[],
        ),
        Case::new("with `hold` a SYN waits in silence for three seconds, then gets a RST")
            .given(empty.clone())
            .given(Fact::NoBackend(WEB_ID, no_backend::HOLD))
            .send(client(SYN), dropped(Reason::NoBackendHold), &[])
            .given(Fact::Pass(1_000))
            .send(client(SYN), dropped(Reason::NoBackendHold), &[])
            .given(Fact::Pass(2_500))
            .send(client(SYN), refused(), &[]),
        Case::new("with `hold` a SYN waits also where the agent's clock was a tick ahead of the program's")
            .given(empty.clone())
            .given(Fact::EmptyAhead(WEB_ID))
            .given(Fact::NoBackend(WEB_ID, no_backend::HOLD))
            .send(client(SYN), dropped(Reason::NoBackendHold), &[]),
        Case::new("with `hold` the retry finds the backend that came meanwhile")
            .given(empty.clone())
            .given(Fact::NoBackend(WEB_ID, no_backend::HOLD))
            .send(client(SYN), dropped(Reason::NoBackendHold), &[])
            .given(Fact::Ring(WEB_ID, vec![A]))
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic]),
        Case::new("with `hold` only SYNs are held")
            .given(empty.clone())
            .given(Fact::NoBackend(WEB_ID, no_backend::HOLD))
            .send(client(ACK).ack(5), reset(Reason::NoFlow, 5, None), &[]),
        Case::new("with `drop` a SYN is dropped, however long nobody has been there")
            .given(empty)
            .given(Fact::NoBackend(WEB_ID, no_backend::DROP))
            .given(Fact::Pass(60_000))
            .send(client(SYN), dropped(Reason::NoBackendDrop), &[]),
    ]
}

/// A RST is a packet of its own: its sum is right whatever the packet's was, but stays partial where the skb says so.
fn every_trust() -> Vec<Case> {
    let sums = [Sum::Whole, Sum::Partial, Sum::LooksPartial, Sum::Raw(0), Sum::Raw(0xffff)];
    TRUSTS
        .iter()
        .flat_map(|(name, trust)| {
            sums.map(|sum| {
                Case::new(format!(
                    "a RST to a packet whose sum is {sum:?} has the sum that it should ({name})"
                ))
                .trust(*trust)
                .send(
                    client(PSH).data(9).sum(sum),
                    reset(Reason::NoFlow, 0, Some(CLIENT_ISN + 10)),
                    &[],
                )
            })
        })
        .collect()
}
