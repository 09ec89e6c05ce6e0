//! ICMP that comes in: echo requests, and errors that find their flow by the packet that they quote.

use std::net::{Ipv4Addr, SocketAddrV4};

use lb_common::{Reason, abi::mode, cell::Phase::Established};

use crate::packets::{
    Case, Fact, Life, Segment,
    expect::{
        complained, dropped, echoed, error_to_backend, error_to_client, to_backend, untouched, untunnelled,
    },
    message::{Complaint, Echo, Trouble, about_answer, about_forwarded, echo},
    scene::{A, B, CLIENT, MODES, OTHER, WEB, WEB_ID},
    segment::{ACK, client, datagram},
};

const TROUBLES: [Trouble; 4] =
    [Trouble::TooBig(1_300), Trouble::HostUnreachable, Trouble::TimeExceeded, Trouble::Parameter];

fn held() -> Fact {
    Fact::Connection { client: CLIENT, backend: A, place: 0, life: Life::Established, age: 0 }
}

pub(super) fn cases() -> Vec<Case> {
    [echoes(), outwards(), inwards(), tunnels(), foreign()].concat()
}

fn echoes() -> Vec<Case> {
    let host = Ipv4Addr::new(203, 0, 113, 1);
    let answering = |what: &str| Case::new(what).given(Fact::AnswersEcho);
    let tagged = Echo { tags: vec![[0x8100, 0x2007]], ..echo(9) };
    let reply = |kind| Echo { kind: Some(kind), ..echo(9) };
    let long = Echo { data: vec![0xa7; 1_400], ..echo(9) };
    let zeros = Echo { id: 0, seq: 0, data: vec![], ..echo(0) };
    vec![
        Case::new("an echo request to a service's address is the host's").send(echo(1), untouched(), &[]),
        answering("an echo request is answered where that is configured").send(echo(1), echoed(), &[]),
        answering("one for another address is the host's").send(
            Echo { to: host, ..echo(1) },
            untouched(),
            &[],
        ),
        answering("echo requests of any length are answered, none at all among them")
            .send(long, echoed(), &[])
            .send(zeros, echoed(), &[])
            .send(Echo { data: vec![1], ..echo(0xffff) }, echoed(), &[]),
        answering("one behind a tag is answered behind it").send(tagged, echoed(), &[]),
        answering("a reply begins a life of its own, however few hops its request had left")
            .send(Echo { ttl: 1, ..echo(1) }, echoed(), &[])
            .send(Echo { ttl: 255, ..echo(1) }, echoed(), &[]),
        answering("an echo reply is the host's").only(4).send(reply(0), untouched(), &[]),
        answering("an ICMPv6 echo reply and neighbour discovery are the host's")
            .only(6)
            .send(reply(129), untouched(), &[])
            .send(reply(135), untouched(), &[])
            .send(reply(136), untouched(), &[]),
        answering("a timestamp request is the host's").only(4).send(reply(13), untouched(), &[]),
    ]
}

/// Every error with a quote of eight bytes of transport, as RFC 792 has it, of a whole header, and of all.
fn quotes(make: impl Fn(Trouble, usize) -> Complaint) -> Vec<(String, Complaint)> {
    let lengths = [("eight bytes", 8), ("twenty bytes", 20), ("21 bytes", 21), ("all", usize::MAX)];
    let table = TROUBLES.iter().flat_map(|trouble| {
        lengths.map(|(name, bytes)| (format!("{trouble:?} with {name} quoted"), make(*trouble, bytes)))
    });
    table.collect()
}

fn said() -> Segment {
    client(ACK).data(700)
}

fn outwards() -> Vec<Case> {
    let modes = [("snat", mode::SNAT), ("dnat", mode::DNAT)];
    let table = modes.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode);
        let tcp = quotes(|trouble, bytes| about_forwarded(trouble, A, said()).bytes(bytes));
        let tcp = tcp.into_iter().map(move |(what, complaint)| {
            Case::new(format!("{name}: {what} of what we sent to a backend goes to the client"))
                .mode(*mode)
                .given(held())
                .send(complaint, error_to_client(A), &[Established])
        });
        let more = [
            case("an error about a datagram goes to its client")
                .udp()
                .given(held())
                .send(
                    about_forwarded(Trouble::PortUnreachable, A, datagram(90)).bytes(8),
                    error_to_client(A),
                    &[Established],
                )
                .send(
                    about_forwarded(Trouble::PortUnreachable, A, datagram(90)),
                    error_to_client(A),
                    &[Established],
                ),
            case("an error about a datagram without a checksum leaves it without")
                .only(4)
                .udp()
                .given(held())
                .send(
                    about_forwarded(Trouble::TooBig(900), A, datagram(90).sum(crate::packets::Sum::Raw(0))),
                    error_to_client(A),
                    &[Established],
                ),
            case("an error about a packet with options quotes them").given(held()).send(
                about_forwarded(Trouble::TooBig(900), A, said().ip_options(&[1; 12]).extensions(&[(60, 1)])),
                error_to_client(A),
                &[Established],
            ),
            case("an error behind a tag keeps it").given(held()).send(
                about_forwarded(Trouble::TooBig(900), A, said()).tag(0x8100, 77),
                error_to_client(A),
                &[Established],
            ),
            case("an error whose checksum is wrong stays wrong").given(held()).send(
                Complaint { damaged: true, ..about_forwarded(Trouble::TooBig(900), A, said()) },
                error_to_client(A),
                &[Established],
            ),
            case("an error with one hop left goes no further, for nobody answers an error with one")
                .given(held())
                .send(
                    about_forwarded(Trouble::TooBig(900), A, said()).ttl(1),
                    dropped(Reason::TtlExceeded),
                    &[Established],
                ),
        ];
        tcp.chain(more).collect::<Vec<_>>()
    });
    table.collect()
}

fn inwards() -> Vec<Case> {
    let table = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}: {what}")).mode(*mode);
        let tcp = quotes(|trouble, bytes| about_answer(trouble, said()).bytes(bytes));
        let tcp = tcp.into_iter().map(move |(what, complaint)| {
            Case::new(format!("{name}: {what} of an answer goes to the backend"))
                .mode(*mode)
                .given(held())
                .send(complaint, error_to_backend(A), &[Established])
        });
        let stranger = || about_answer(Trouble::TooBig(1_300), said()).of(OTHER);
        let unknown = if *mode == mode::SNAT {
            case("an error about an answer that has no flow is the host's, and counted").send(
                stranger(),
                untouched().counted(WEB_ID, Reason::ErrorUnmatched),
                &[],
            )
        } else {
            case("an error about an answer that has no flow goes where the ring says").send(
                about_answer(Trouble::TooBig(1_300), said()),
                error_to_backend(A),
                &[],
            )
        };
        let more = [
            case("an error about an answering datagram goes to its backend").udp().given(held()).send(
                about_answer(Trouble::PortUnreachable, datagram(33)).bytes(8),
                error_to_backend(A),
                &[Established],
            ),
            unknown,
            case("an error about an answer of a service whose backends are gone is the host's, and counted")
                .given(Fact::Ring(WEB_ID, vec![]))
                .send(stranger(), untouched().counted(WEB_ID, Reason::ErrorUnmatched), &[]),
        ];
        tcp.chain(more).collect::<Vec<_>>()
    });
    table.collect()
}

fn tunnels() -> Vec<Case> {
    let case = |what: &str| Case::new(format!("ipip: {what}")).mode(mode::IPIP);
    let fits = |version: u8| 1_400 - if version == 4 { 20 } else { 40 };
    let lengths = [("eight bytes", 8), ("a header", 20), ("all", usize::MAX)];
    let told = [4, 6].into_iter().flat_map(|version| {
        lengths.map(|(what, bytes)| {
            case(&format!("'too big' about the tunnel tells the client what fits inside: {what} quoted"))
                .only(version)
                .given(held())
                .send(
                    about_forwarded(Trouble::TooBig(1_400), A, said()).bytes(bytes),
                    untunnelled(A, fits(version)),
                    &[Established],
                )
                .send(
                    about_forwarded(Trouble::TooBig(1_400), A, said()).bytes(bytes).tag(0x8100, 9),
                    untunnelled(A, fits(version)),
                    &[Established],
                )
        })
    });
    let others = [
        case("'too big' that quotes only the tunnel's header is the host's, and counted").given(held()).send(
            about_forwarded(Trouble::TooBig(1_400), A, said()).bytes(7),
            untouched().counted(0, Reason::ErrorUnmatched),
            &[Established],
        ),
        case("another error about the tunnel is the host's").given(held()).send(
            about_forwarded(Trouble::HostUnreachable, A, said()),
            untouched(),
            &[Established],
        ),
        case("'too big' about somebody else's tunnel is the host's").given(held()).send(
            about_forwarded(Trouble::TooBig(1_400), A, said())
                .foreign(CLIENT, SocketAddrV4::new(*WEB.ip(), 22)),
            untouched(),
            &[Established],
        ),
    ];
    told.chain(others).chain(unrecorded()).collect()
}

/// "Too big" about the tunnel of a client that no flow knows: the tunnel's MTU is remembered.
fn unrecorded() -> Vec<Case> {
    let settled = |what: &str, version: u8| {
        Case::new(format!("ipip, not recorded: {what}"))
            .mode(mode::IPIP)
            .only(version)
            .given(Fact::Slots(WEB_ID, vec![(A, A)]))
    };
    let narrowed = || dropped(Reason::TunnelNarrowed);
    let unmatched = || untouched().counted(WEB_ID, Reason::ErrorUnmatched);
    let too_big = |mtu| complained(Reason::TooBig, Trouble::TooBig(mtu));
    let table = [4_u8, 6].into_iter().flat_map(|version| {
        let case = |what: &str| settled(what, version);
        let (over, headers, least) = if version == 4 { (20, 40, 576) } else { (40, 60, 1_280) };
        let about = |mtu| about_forwarded(Trouble::TooBig(mtu), A, said());
        let sized = move |mtu: u16| client(ACK).data(usize::from(mtu - over) - headers);
        [
            case("who sends more than fits is told by the way that it came, whoever it is")
                .send(client(ACK).data(1_360), to_backend(A), &[])
                .send(about(1_400).bytes(8), narrowed(), &[])
                .send(sized(1_400), to_backend(A), &[])
                .send(sized(1_401), too_big(1_400 - over), &[])
                .send(sized(1_401).of(OTHER), too_big(1_400 - over), &[]),
            case("an error only makes it less")
                .send(about(1_400), narrowed(), &[])
                .send(about(1_450), narrowed(), &[])
                .send(sized(1_401), too_big(1_400 - over), &[])
                .send(about(1_300), narrowed(), &[])
                .send(sized(1_301), too_big(1_300 - over), &[]),
            case("what is configured and less decides")
                .given(Fact::WayMtu(A, 1_350))
                .send(about(1_400), narrowed(), &[])
                .send(sized(1_351), too_big(1_350 - over), &[]),
            case("it is forgotten after ten minutes")
                .send(about(1_400), narrowed(), &[])
                .given(Fact::Pass(599_000))
                .send(sized(1_401), too_big(1_400 - over), &[])
                .given(Fact::Pass(2_000))
                .send(sized(1_401), to_backend(A), &[]),
            case("less than every path takes is not believed")
                .send(about(100), narrowed(), &[])
                .send(sized(least), to_backend(A), &[])
                .send(sized(least + 1), too_big(least - over), &[]),
            case("an error without an MTU is the host's, and counted").send(about(0), unmatched(), &[]),
            case(
                "an error about a tunnel to another backend than the slot's owner is the host's, and counted",
            )
            .given(Fact::Slots(WEB_ID, vec![(B, B)]))
            .send(about(1_400), unmatched(), &[]),
            case("in a slot that changes hands the former owner is meant")
                .given(Fact::Slots(WEB_ID, vec![(B, A)]))
                .send(about(1_400), narrowed(), &[]),
            case("a backend that has the same id later starts afresh")
                .send(about(1_400), narrowed(), &[])
                .given(Fact::Address(A, Ipv4Addr::new(10, 0, 7, 19)))
                .send(sized(1_401), to_backend(A), &[]),
        ]
    });
    let tracked = [
        Case::new("ipip: 'too big' about the tunnel of a client that no flow knows narrows the tunnel of the ring's owner")
            .mode(mode::IPIP)
            .send(about_forwarded(Trouble::TooBig(1_400), A, said()), narrowed(), &[]),
        Case::new("ipip: 'too big' about a tunnel of a service without backends is the host's, and counted")
            .mode(mode::IPIP)
            .given(Fact::Ring(WEB_ID, vec![]))
            .send(about_forwarded(Trouble::TooBig(1_400), A, said()), unmatched(), &[]),
    ];
    table.chain(tracked).collect()
}

fn foreign() -> Vec<Case> {
    let ours = SocketAddrV4::new(*WEB.ip(), 22);
    let about = || about_forwarded(Trouble::TooBig(900), A, said());
    vec![
        Case::new("an error about the host's own packet is the host's").given(held()).send(
            about().foreign(ours, CLIENT),
            untouched(),
            &[Established],
        ),
        Case::new("an error that quotes fewer than eight bytes is the host's").given(held()).send(
            about().bytes(7),
            untouched(),
            &[Established],
        ),
        Case::new("an error that quotes a later part is the host's").given(held()).send(
            about_forwarded(Trouble::TooBig(900), A, said().part(64, 64, true)),
            untouched(),
            &[Established],
        ),
    ]
}
