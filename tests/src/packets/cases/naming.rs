//! What a service may name: one port, a range of ports, all ports. And what stands in front of its packets.

use std::net::SocketAddrV4;

use lb_common::{
    Reason,
    abi::mode,
    cell::Phase::{Answered, Embryonic, Established},
};

use crate::packets::{
    Case, Fact, Life, Segment,
    expect::{reset, to_backend, to_client, untouched},
    scene::{A, A2, ADMIN, CLIENT, FOUR_PORTS, MODES, WEB, WEB_ID},
    segment::{ACK, PSH, RST, SERVER_ISN, SYN, client, server},
};

/// A port of the service's address.
fn port(number: u16) -> SocketAddrV4 {
    SocketAddrV4::new(*WEB.ip(), number)
}

pub(super) fn cases() -> Vec<Case> {
    [ranges(), tags(), extensions()].concat()
}

fn ranges() -> Vec<Case> {
    let modes = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode).ports(FOUR_PORTS);
        [
            case("a range takes its first port, its last and those between, and no other")
                .given(Fact::Range(7000, 7003))
                .send(client(SYN).to(port(6999)), untouched(), &[])
                .send(client(SYN).to(port(7000)), to_backend(A).opens(A), &[Embryonic])
                .send(client(SYN).to(port(7004)), untouched(), &[Embryonic])
                .send(client(SYN).to(port(80)), untouched(), &[Embryonic]),
            case("a service that names the port goes before a range around it")
                .given(Fact::Range(1, 65_535))
                .send(client(SYN).to(ADMIN), to_backend(A2).opens(A2), &[Embryonic]),
            case("all ports are taken").given(Fact::Range(1, 65_535)).send(
                client(SYN).to(port(65_535)),
                to_backend(A).opens(A),
                &[Embryonic],
            ),
        ]
    });
    let kept = |mode, name| {
        Case::new(format!("{name}: a backend that keeps the port is asked at the one that was connected to"))
            .mode(mode)
            .given(Fact::Range(7000, 7100))
            .given(Fact::KeepsPort(A))
            .send(client(SYN).to(port(7050)), to_backend(A).opens(A), &[Embryonic])
            .send(server(A, SYN | ACK), to_client(A), &[Answered])
            .send(client(ACK).to(port(7050)), to_backend(A), &[Established])
            .send(server(A, PSH | ACK).data(50), to_client(A), &[Established])
    };
    modes.chain([kept(mode::SNAT, "snat"), kept(mode::DNAT, "dnat")]).collect()
}

fn held() -> Fact {
    Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 0 }
}

/// Tags are kept as they are, on whatever the packet becomes.
fn tags() -> Vec<Case> {
    let ways: [(&str, fn(Segment) -> Segment); 4] = [
        ("an 802.1Q tag", |segment| segment.tag(0x8100, 0x6005)),
        ("an 802.1Q tag of VLAN 0", |segment| segment.tag(0x8100, 0)),
        ("an 802.1ad tag", |segment| segment.tag(0x88a8, 0x1064)),
        ("an 802.1Q tag within an 802.1ad one", |segment| segment.tag(0x88a8, 0x1064).tag(0x8100, 5)),
    ];
    let modes = MODES.iter().flat_map(|(name, mode)| {
        ways.iter().flat_map(move |(what, tagged)| {
            let case = |then: &str| Case::new(format!("{name}: {then} behind {what}")).mode(*mode);
            let mut cases = vec![
                case("a SYN finds its backend").send(
                    tagged(client(SYN).tcp_options(&[1; 20])),
                    to_backend(A).opens(A),
                    &[Embryonic],
                ),
                case("data of a connection goes on").given(held()).send(
                    tagged(client(ACK | PSH).data(333)),
                    to_backend(A),
                    &[Established],
                ),
            ];
            if *mode == mode::SNAT {
                cases.push(case("a stranger's ACK gets a RST").send(
                    tagged(client(ACK)),
                    reset(Reason::NoFlow, SERVER_ISN + 1, None),
                    &[],
                ));
            }
            if !mode::is_one_sided(*mode) {
                cases.push(
                    case("an answer goes back")
                        .given(held())
                        .send(tagged(server(A, ACK).data(9)), to_client(A), &[Established])
                        .send(
                            tagged(server(A, RST)),
                            to_client(A).closes(A),
                            &[lb_common::cell::Phase::Closed],
                        ),
                );
            }
            cases
        })
    });
    let foreign = [
        Case::new("a tagged packet to nobody's port is the host's").send(
            client(SYN).to(port(22)).tag(0x8100, 5),
            untouched(),
            &[],
        ),
        Case::new("behind three tags nobody looks").send(
            client(SYN).tag(0x88a8, 1).tag(0x8100, 5).tag(0x8100, 6),
            untouched(),
            &[],
        ),
        Case::new("a tag that is cut off is the host's").send_frame(
            client(SYN).tag(0x8100, 5).frame()[..16].to_vec(),
            untouched(),
            &[],
        ),
        Case::new("a tagged packet that is shorter than it says is the host's, and counted").send_frame(
            client(SYN).tag(0x8100, 5).frame()[..50].to_vec(),
            untouched().counted(0, Reason::Malformed),
            &[],
        ),
        Case::new("a tagged packet of a service without backends is refused behind its tag")
            .given(Fact::Ring(WEB_ID, vec![]))
            .send(
                client(SYN).tag(0x8100, 5),
                reset(Reason::NoBackendReset, 0, Some(crate::packets::segment::CLIENT_ISN + 1)),
                &[],
            ),
    ];
    modes.chain(foreign).collect()
}

/// IPv6 puts between its header and TCP what IPv4 has as options.
fn extensions() -> Vec<Case> {
    let ways: [(&str, &[(u8, u8)]); 6] = [
        ("hop-by-hop options", &[(0, 0)]),
        ("destination options", &[(60, 3)]),
        ("a routing header", &[(43, 2)]),
        ("four headers", &[(0, 1), (60, 0), (43, 0), (60, 0)]),
        ("six headers", &[(0, 0), (60, 0), (43, 0), (60, 0), (60, 0), (60, 0)]),
        ("a long header", &[(60, 30)]),
    ];
    let forwarded = ways.iter().flat_map(|(what, extensions)| {
        [
            Case::new(format!("{what} are walked over"))
                .only(6)
                .send(client(SYN).extensions(extensions), to_backend(A).opens(A), &[Embryonic])
                .send(server(A, SYN | ACK).extensions(extensions), to_client(A), &[Answered])
                .send(client(ACK).extensions(extensions).data(5), to_backend(A), &[Established]),
            Case::new(format!("a RST to a packet with {what} has none")).only(6).send(
                client(ACK).extensions(extensions).data(5),
                reset(Reason::NoFlow, SERVER_ISN + 1, None),
                &[],
            ),
        ]
    });
    let seven = [(0, 0), (60, 0), (43, 0), (60, 0), (60, 0), (60, 0), (60, 0)];
    let not = [
        Case::new("seven headers are more than anybody sends: the packet is the host's").only(6).send(
            client(SYN).extensions(&seven),
            untouched(),
            &[],
        ),
        Case::new("a header that reaches over the packet's end is no header").only(6).send(
            client(SYN).extensions(&[(60, 0)]).edit(14 + 40 + 1, &[200]),
            untouched().counted(0, Reason::Malformed),
            &[],
        ),
        Case::new("an authentication header, ESP and what else there is are the host's").only(6).send(
            client(SYN).edit(14 + 6, &[51]),
            untouched(),
            &[],
        ),
    ];
    forwarded.chain(not).collect()
}
