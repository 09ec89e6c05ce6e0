//! Packets that do not fit on the way to their receiver.

use lb_common::{
    Reason,
    abi::mode,
    cell::Phase::{Embryonic, Established},
};

use crate::packets::{
    Case, Expect, Fact, Life,
    expect::{complained, dropped, to_backend, to_client},
    message::Trouble,
    scene::{A, BACK, CLIENT, FRONT, MODES, WEB_ID},
    segment::{ACK, SYN, answer, client, datagram, server},
};

fn held() -> Fact {
    Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 0 }
}

fn too_big(mtu: u16) -> Expect {
    complained(Reason::TooBig, Trouble::TooBig(mtu))
}

/// Bytes of IP and TCP headers.
const fn headers(version: u8) -> usize {
    if version == 4 { 40 } else { 60 }
}

/// What a tunnel takes.
const fn tunnel(mode: u8, version: u8) -> u16 {
    match (mode, version) {
        (mode::IPIP, 4) => 20,
        (mode::IPIP, _) => 40,
        _ => 0,
    }
}

pub(super) fn cases() -> Vec<Case> {
    let modes = MODES.iter().flat_map(|(name, mode)| [4, 6].map(|version| in_mode(name, *mode, version)));
    let each: Vec<Case> = modes.flatten().collect();
    [each, backwards(), jumbo()].concat()
}

fn in_mode(name: &str, mode: u8, version: u8) -> Vec<Case> {
    let case = |what: &str| Case::new(format!("{name}: {what}")).mode(mode).only(version);
    let over = tunnel(mode, version);
    let fits = 1_400 - usize::from(over) - headers(version);
    vec![
        case("what is longer than the interface's MTU is answered with what fits")
            .given(held())
            .given(Fact::Mtu(BACK, 1_400))
            .send(client(ACK).data(fits), to_backend(A), &[Established])
            .send(client(ACK).data(fits + 1), too_big(1_400 - over), &[Established]),
        case("what is longer than the way to the backend takes is answered too")
            .given(held())
            .given(Fact::Mtu(BACK, 1_500))
            .given(Fact::WayMtu(A, 1_400))
            .send(client(ACK).data(fits), to_backend(A), &[Established])
            .send(client(ACK).data(fits + 1), too_big(1_400 - over), &[Established]),
        case("an interface that is narrower than the way beyond decides")
            .given(held())
            .given(Fact::Mtu(BACK, 1_400))
            .given(Fact::WayMtu(A, 9_000))
            .send(client(ACK).data(fits + 1), too_big(1_400 - over), &[Established]),
        case("packets that were joined before they came here do not pass to another interface")
            .joined()
            .given(held())
            .given(Fact::Mtu(BACK, 1_400))
            .send(client(ACK).data(1_460), too_big(1_400 - over), &[Established]),
        case("what may be cut into parts is answered too, for nobody here cuts it, and counted for itself")
            .given(held())
            .given(Fact::Mtu(BACK, 1_400))
            .send(client(ACK).data(fits).divisible(), to_backend(A), &[Established])
            .send(
                client(ACK).data(fits + 1).divisible(),
                complained(
                    if version == 4 { Reason::NotFragmented } else { Reason::TooBig },
                    Trouble::TooBig(1_400 - over),
                ),
                &[Established],
            ),
        case("a SYN that does not fit has begun a connection all the same")
            .given(Fact::Mtu(BACK, 1_400))
            .send(client(SYN).data(fits + 1), too_big(1_400 - over).opens(A), &[Embryonic]),
        case("beyond the rate of errors what does not fit is dropped, and both are counted")
            .given(held())
            .given(Fact::Mtu(BACK, 1_400))
            .given(Fact::ErrorsSpent)
            .send(
                client(ACK).data(fits + 1),
                dropped(Reason::ErrorHeldBack).counted(WEB_ID, Reason::TooBig),
                &[Established],
            ),
        case("a datagram that does not fit is answered behind its tags")
            .udp()
            .given(held())
            .given(Fact::Mtu(BACK, 1_400))
            .send(datagram(1_400).tag(0x88a8, 3).tag(0x8100, 4), too_big(1_400 - over), &[Established]),
    ]
}

/// What the client's interface does not take is the server's to know.
fn backwards() -> Vec<Case> {
    let modes = [("snat", mode::SNAT), ("dnat", mode::DNAT)];
    let table = modes.iter().flat_map(|(name, mode)| {
        let case =
            |what: &str| Case::new(format!("{name}: {what}")).mode(*mode).given(Fact::Mtu(FRONT, 1_300));
        [
            case("an answer that does not fit is answered with what does")
                .given(held())
                .send(server(A, ACK).data(1_300), too_big(1_300), &[Established])
                .send(server(A, ACK).data(1_000), to_client(A), &[Established]),
            case("so is an answering datagram").udp().given(held()).send(
                answer(A, 1_300),
                too_big(1_300),
                &[Established],
            ),
            case("answers that were joined before they came here are as long as they are")
                .joined()
                .given(held())
                .send(server(A, ACK).data(1_300), to_client(A), &[Established]),
        ]
    });
    table.collect()
}

fn jumbo() -> Vec<Case> {
    let table = MODES.iter().map(|(name, mode)| {
        Case::new(format!("{name}: a jumbo frame goes on whole"))
            .mode(*mode)
            .given(held())
            .given(Fact::Mtu(BACK, 9_100))
            .send(client(ACK).data(8_900), to_backend(A), &[Established])
    });
    table.collect()
}
