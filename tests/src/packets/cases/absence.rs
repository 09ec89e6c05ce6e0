//! Services whose new connections are the host's while the agent is lost, and their connections that live.

use lb_common::{
    Reason,
    abi::{mode, no_backend},
    cell::Phase::{self, Answered, Closed, Embryonic, Established, Resting},
};

use crate::packets::{
    Case, Expect, Fact, Life,
    expect::{error_to_backend, reset, to_backend, to_client, untouched},
    message::{Trouble, about_answer},
    scene::{A, ADMIN_ID, CLIENT, MODES, OTHER, WEB_ID},
    segment::{ACK, CLIENT_ISN, FIN, PSH, RST, SERVER_ISN, SYN, client, datagram, server},
};

fn held(life: Life) -> Fact {
    Fact::Connection { client: CLIENT, backend: A, place: 0, life, age: 5_000 }
}

/// It begins something.
fn passed() -> Expect {
    untouched().counted(WEB_ID, Reason::AgentLostPassed)
}

/// Nothing is known of it.
fn stray() -> Expect {
    untouched().counted(WEB_ID, Reason::NoFlowPassed)
}

pub(super) fn cases() -> Vec<Case> {
    let table = MODES.iter().flat_map(|(name, mode)| {
        let case = |what: &str| Case::new(format!("{name}, the agent is lost: {what}")).mode(*mode);
        let passing = |what: &str| case(what).given(Fact::PassesLost(WEB_ID)).given(Fact::AgentLost(2_000));
        [new(passing), living(passing, *mode), datagrams(passing), otherwise(case), back(passing, *mode)]
            .concat()
    });
    table.collect()
}

fn new(passing: impl Fn(&str) -> Case) -> Vec<Case> {
    let nobody = |policy| {
        passing(&format!("a SYN is the host's where no backend is left, whatever policy {policy} says"))
            .given(Fact::Ring(WEB_ID, vec![]))
            .given(Fact::NoBackend(WEB_ID, policy))
            .send(client(SYN), passed(), &[])
            .send(client(ACK), stray(), &[])
    };
    let policies = [no_backend::RESET, no_backend::HOLD, no_backend::DROP].map(nobody);
    let mut cases = vec![
        passing("a SYN is the host's, and so is all that follows it")
            .send(client(SYN), passed(), &[])
            .send(client(SYN), passed(), &[])
            .send(client(ACK), stray(), &[])
            .send(client(ACK | PSH).data(100), stray(), &[])
            .send(client(FIN | ACK), stray(), &[])
            .send(client(RST), stray(), &[])
            .send(client(SYN | ACK), stray(), &[]),
        passing("a SYN behind tags, with options or with its last hop behind it is the host's")
            .send(client(SYN).tag(0x8100, 7), passed(), &[])
            .send(client(SYN).tag(0x88a8, 9).tag(0x8100, 7), passed(), &[])
            .send(client(SYN).ip_options(&[1; 8]).tcp_options(&[1; 4]), passed(), &[])
            .send(client(SYN).ttl(1), passed(), &[])
            .send(client(ACK).ttl(1), stray(), &[]),
        passing("limits and rates are for the backends, not for the host")
            .given(Fact::ServiceLimit(WEB_ID, 1))
            .given(Fact::Live(A, 1))
            .given(Fact::Rate(WEB_ID, 1, 1))
            .send(client(SYN), passed(), &[])
            .send(client(SYN).of(OTHER), passed(), &[])
            .send(client(SYN), passed(), &[]),
        passing("an ICMP error about the host's answer is the host's").send(
            about_answer(Trouble::TooBig(1_300), client(ACK).data(700)),
            untouched().counted(WEB_ID, Reason::ErrorUnmatched),
            &[],
        ),
    ];
    cases.extend(policies);
    cases
}

fn living(passing: impl Fn(&str) -> Case, mode: u8) -> Vec<Case> {
    // A port cell rests when its connection has gone; a slot is free.
    let gone: &[Phase] = if mode == mode::SNAT { &[Resting] } else { &[] };
    let mut cases = vec![
        passing("an established connection goes on")
            .given(held(Life::Established))
            .send(client(ACK | PSH).data(30), to_backend(A), &[Established])
            .send(client(SYN).of(OTHER), passed(), &[Established])
            .send(client(ACK), to_backend(A), &[Established]),
        passing("a SYN that comes again has its flow, and goes where the first one went")
            .given(held(Life::Embryonic))
            .send(client(SYN), to_backend(A), &[Embryonic]),
        passing("a SYN on the tuple of a connection that has ended is the host's, and so is what follows")
            .given(held(Life::ClosedByClient))
            .send(client(SYN), passed(), gone)
            .send(client(ACK), stray(), gone),
        passing("an ICMP error about an answer that has a flow goes to the backend")
            .given(held(Life::Established))
            .send(
                about_answer(Trouble::TooBig(1_300), client(ACK).data(700)),
                error_to_backend(A),
                &[Established],
            ),
        passing("a connection that is cut is cut")
            .given(held(Life::Established))
            .given(Fact::Cut(CLIENT))
            .send(
                client(ACK),
                reset(Reason::Cut, SERVER_ISN + 1, None).tells_cut(A, 0, CLIENT_ISN + 1, SERVER_ISN + 1),
                &[Closed],
            )
            .send(client(SYN), passed(), gone),
    ];
    if !mode::is_one_sided(mode) {
        cases.push(
            passing("a handshake that has begun comes to its end")
                .given(held(Life::Embryonic))
                .send(server(A, SYN | ACK), to_client(A), &[Answered])
                .send(client(ACK), to_backend(A), &[Established])
                .send(server(A, ACK).data(5), to_client(A), &[Established]),
        );
    }
    cases
}

fn datagrams(passing: impl Fn(&str) -> Case) -> Vec<Case> {
    let udp = |what: &str| passing(what).udp();
    let long = || datagram(3_000);
    vec![
        udp("a datagram without a conversation is the host's, each time it comes")
            .send(datagram(30), passed(), &[])
            .send(datagram(30), passed(), &[]),
        udp("a datagram without backends is the host's").given(Fact::Ring(WEB_ID, vec![])).send(
            datagram(30),
            passed(),
            &[],
        ),
        udp("a conversation goes on")
            .given(held(Life::Established))
            .send(datagram(30), to_backend(A), &[Established])
            .send(datagram(30).of(OTHER), passed(), &[Established]),
        udp("the parts of a datagram are the host's, the later ones as any whose first is")
            .send(long().part(0, 1_480, true), passed(), &[])
            .send(long().part(1_480, 1_480, true), untouched().counted(0, Reason::FragmentUnmatched), &[]),
    ]
}

/// What is no reason to leave anything to the host.
fn otherwise(case: impl Fn(&str) -> Case) -> Vec<Case> {
    vec![
        case("a service that keeps its backends takes new connections").given(Fact::AgentLost(2_000)).send(
            client(SYN),
            to_backend(A).opens(A),
            &[Embryonic],
        ),
        case("another service's wish is its own")
            .given(Fact::PassesLost(ADMIN_ID))
            .given(Fact::AgentLost(2_000))
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic]),
        case("not yet: its bound has not passed")
            .given(Fact::PassesLost(WEB_ID))
            .given(Fact::Pass(25_000))
            .send(client(SYN), to_backend(A).opens(A), &[Embryonic]),
        case("now: its bound has passed").given(Fact::PassesLost(WEB_ID)).given(Fact::Pass(31_000)).send(
            client(SYN),
            passed(),
            &[],
        ),
        case("for a year: it is lost as ever")
            .given(Fact::PassesLost(WEB_ID))
            .given(Fact::AgentLost(31_536_000_000))
            .send(client(SYN), passed(), &[]),
    ]
}

/// The agent is back, and connections are there that the host has accepted.
fn back(passing: impl Fn(&str) -> Case, mode: u8) -> Vec<Case> {
    let accepted = |what: &str| passing(what).send(client(SYN), passed(), &[]).given(Fact::AgentBack);
    let new = accepted("a new connection has a backend when the agent is back").send(
        client(SYN).of(OTHER),
        to_backend(A).opens(A),
        &[Embryonic],
    );
    let old = accepted("what the host has accepted, when the agent is back");
    let old = if mode == mode::SNAT {
        old.send(client(ACK | PSH).data(9), stray(), &[])
            .send(client(ACK).ttl(1), stray(), &[])
            .send(client(FIN | ACK), stray(), &[])
            .send(client(RST), stray(), &[])
    } else {
        old.send(
            client(ACK | PSH).data(9),
            to_backend(A).opens(A).counted(WEB_ID, Reason::UnknownByRing),
            &[Answered],
        )
    };
    vec![new, old]
}
