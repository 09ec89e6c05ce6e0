//! What is not for a service goes to the host as it came: its own traffic must never notice.

use std::net::{Ipv4Addr, SocketAddrV4};

use lb_common::{Reason, abi::mode, cell::Phase::Established};

use crate::packets::{
    Case, Expect, Fact, Life, Segment, Sum,
    expect::{to_backend, to_client, untouched},
    scene::{A, CLIENT, FOREIGN_MAC, MODES, SERVER_A, SOURCE, WEB},
    segment::{ACK, RST, SYN, client, server},
};

/// Offset of the IPv4 header.
const IP: usize = 14;

fn passes(what: &str, segments: impl IntoIterator<Item = Segment>) -> Case {
    passes_as(what, segments, &untouched())
}

/// Parts of a packet whose first one was not seen are the host's, and counted where their address is balanced.
fn fragments(what: &str, segments: impl IntoIterator<Item = Segment>) -> Case {
    passes_as(what, segments, &untouched().counted(0, Reason::FragmentUnmatched))
}

fn passes_as(what: &str, segments: impl IntoIterator<Item = Segment>, expect: &Expect) -> Case {
    let held = Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 0 };
    segments.into_iter().fold(Case::new(what).given(held), |case, segment| {
        case.send_frame(segment.frame(), expect.clone(), &[Established])
    })
}

/// Only the bytes after the Ethernet addresses.
fn frame(ether_type: u16, rest: &[u8]) -> Vec<u8> {
    let whole = client(SYN).frame();
    [&whole[..12], &ether_type.to_be_bytes(), rest].concat()
}

pub(super) fn cases() -> Vec<Case> {
    let ssh = SocketAddrV4::new(*WEB.ip(), 22);
    let host = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 80);
    let ours = SocketAddrV4::new(SOURCE, 2000);
    let hosts = vec![
        passes("another port of a service's address", [client(SYN).to(ssh), client(ACK).to(ssh).data(90)]),
        passes("the service's port of another address", [client(SYN).to(host)]),
        passes("a foreign packet with IP options", [client(SYN).to(ssh).ip_options(&[1; 24])]),
        passes("a foreign packet with TTL 1 and a wrong sum", [client(ACK).to(ssh).ttl(1).sum(Sum::Raw(1))]),
        passes("a fragment of UDP", [client(SYN).edit(IP + 9, &[17]).edit(IP + 6, &[0x20, 0])]),
        passes("UDP to a service's port", [client(SYN).edit(IP + 9, &[17])]),
        passes("ICMP to a service's address", [client(SYN).edit(IP + 9, &[1])]),
        passes(
            "GRE, SCTP and the rest of the protocols",
            (0..=255).filter(|p| *p != 6).map(|p| client(SYN).edit(IP + 9, &[p])),
        ),
        fragments(
            "a later fragment",
            [client(ACK).data(64).edit(IP + 6, &[0x20, 0xb9]), client(ACK).edit(IP + 6, &[0, 1])],
        ),
        passes(
            "a stranger's packet to a port that a connection holds",
            [
                client(ACK).of(CLIENT).to(ours),
                client(ACK).of(SocketAddrV4::new(*SERVER_A.ip(), 9001)).to(ours),
            ],
        ),
        passes(
            "a server's packet to another address of ours",
            [server(A, ACK).to(SocketAddrV4::new(*host.ip(), 2000))],
        ),
        passes(
            "a server's packet to another port of ours",
            [server(A, SYN).to(SocketAddrV4::new(SOURCE, 22))],
        ),
        Case::new("ARP").send_frame(frame(0x0806, &[0, 1, 8, 0, 6, 4, 0, 1]), untouched(), &[]),
        Case::new("IPv6").send_frame(frame(0x86dd, &[0x60; 60]), untouched(), &[]),
        Case::new("an Ethernet header alone").send_frame(frame(0x9000, &[]), untouched(), &[]),
        Case::new("LLDP, PPPoE and an IEEE 802.3 length")
            .send_frame(frame(0x88cc, &[2; 50]), untouched(), &[])
            .send_frame(frame(0x8864, &[2; 50]), untouched(), &[])
            .send_frame(frame(46, &[2; 46]), untouched(), &[]),
    ];
    [hosts, others()].concat()
}

/// Frames for other stations, which a switch has flooded or a bridge hands on, and for those that this host stands for.
fn others() -> Vec<Case> {
    let table = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode);
        let held = Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 0 };
        let flooded = |segment: Segment| Segment { receiver: FOREIGN_MAC, ..segment };
        let office = |kind, segment: Segment| Segment { receiver: [0, 0, 0x5e, 0, kind, 7], ..segment };
        [
            case("a frame for another station is left alone")
                .send(flooded(client(SYN)), untouched(), &[])
                .send(flooded(client(ACK).data(64).part(0, 32, true)), untouched(), &[])
                .send(flooded(client(SYN).tag(0x8100, 7)), untouched(), &[])
                .send(flooded(client(SYN).tag(0x88a8, 9).tag(0x8100, 7)), untouched(), &[]),
            case("a frame for another station does not go on with a connection, nor end it")
                .given(held.clone())
                .send(flooded(client(ACK).data(10)), untouched(), &[Established])
                .send(flooded(client(RST)), untouched(), &[Established])
                .send(flooded(client(ACK).ttl(1)), untouched(), &[Established])
                .send(client(ACK).data(10), to_backend(A), &[Established]),
            case("a frame for a virtual router is for whoever holds the office")
                .given(held)
                .send(office(1, client(ACK).data(10)), to_backend(A), &[Established])
                .send(office(2, client(ACK).data(10)), to_backend(A), &[Established])
                .send(office(3, client(ACK).data(10)), untouched(), &[Established]),
        ]
    });
    let answers = [("snat", mode::SNAT), ("dnat", mode::DNAT)].map(|(name, mode)| {
        let held = Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 0 };
        let flooded = Segment { receiver: FOREIGN_MAC, ..server(A, ACK).data(5) };
        Case::new(format!("{name}: an answer in a frame for another station is left alone"))
            .mode(mode)
            .given(held)
            .send(flooded, untouched(), &[Established])
            .send(server(A, ACK).data(5), to_client(A), &[Established])
    });
    table.chain(answers).collect()
}
