//! Times are milliseconds since an arbitrary start; a frame is told by the tuple it is for and its TCP flags.

use super::*;
use crate::cut::segment::Hop;

const HOP: Hop = Hop {
    interface: 3,
    source: [2, 0, 0, 0, 0, 1],
    destination: [2, 0, 0, 0, 0, 2],
    vlan: None,
    tunnel: None,
};

fn at(millis: u64) -> Moment {
    Moment::at(Duration::from_millis(millis))
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn connection(port: u16) -> Connection {
    Connection {
        client: SocketAddr::new([198, 51, 100, 7].into(), port),
        service: address("203.0.113.10:80"),
    }
}

fn snat(port: u16) -> Target {
    Target {
        connection: connection(port),
        client_hop: Some(HOP),
        backend: Towards {
            tuple: Tuple { from: SocketAddr::new([10, 0, 0, 1].into(), port), to: address("10.0.0.11:8080") },
            hop: Some(HOP),
        },
        order: Order::Both,
    }
}

fn dsr(port: u16) -> Target {
    let Connection { client, service } = connection(port);
    let backend = Towards { tuple: Tuple { from: client, to: service }, hop: Some(HOP) };
    Target { backend, order: Order::ClientFirst, ..snat(port) }
}

/// The frame that is expected for a side of a target.
fn frame(target: &Target, side: Side, segment: Segment) -> Frame {
    let Connection { client, service } = target.connection;
    let tuple = match side {
        Side::Client => Tuple { from: service, to: client },
        Side::Backend => target.backend.tuple,
    };
    Frame::new(&HOP, &tuple, segment).expect("a frame")
}

fn due(cuts: &mut Cuts, millis: u64) -> Vec<Frame> {
    let mut frames = Vec::new();
    cuts.due(at(millis), 1000, &mut frames);
    frames
}

fn ended(target: &Target, client: Outcome, backend: Outcome) -> Vec<Ended> {
    vec![Ended { connection: target.connection, client, backend }]
}

const SYN: Segment = Segment::Syn { sequence: ARBITRARY };
const SYN_ACK: Segment = Segment::SynAck { sequence: ARBITRARY, acknowledgement: ARBITRARY };
const NUMBERS: Numbers = Numbers { sequence: 1_000, acknowledgement: 2_000 };
const RST: Segment = Segment::Rst { sequence: 1_000 };

#[test]
fn both_sides_are_asked_at_once_and_it_ends_when_both_are_told() {
    let mut cuts = Cuts::new();
    let target = snat(40_000);
    assert!(cuts.begin(at(5), target));
    assert_eq!(cuts.next(), Some(at(5)));
    let both = [frame(&target, Side::Client, SYN_ACK), frame(&target, Side::Backend, SYN)];
    assert_eq!(due(&mut cuts, 5), both);
    assert_eq!(cuts.next(), Some(at(55)));
    cuts.told(at(100), &target.connection, Side::Client);
    assert_eq!(cuts.ended(), []);
    cuts.answered(at(101), &target.connection, Side::Backend, NUMBERS);
    assert_eq!(cuts.ended(), ended(&target, Outcome::Told, Outcome::Told));
    assert_eq!(due(&mut cuts, 10_000), []);
    assert_eq!((cuts.len(), cuts.next()), (0, None));
}

#[test]
fn a_silent_side_is_asked_again_at_once_then_600_ms_apart_and_then_given_up() {
    let mut cuts = Cuts::new();
    let target = snat(40_000);
    cuts.begin(at(0), target);
    assert_eq!(due(&mut cuts, 0).len(), 2);
    cuts.told(at(30), &target.connection, Side::Client);
    for moment in [50, 650, 1_250] {
        assert_eq!(due(&mut cuts, moment - 1), []);
        assert_eq!(due(&mut cuts, moment), [frame(&target, Side::Backend, SYN)]);
    }
    assert_eq!(due(&mut cuts, 1_849), []);
    assert_eq!(cuts.ended(), []);
    assert_eq!(due(&mut cuts, 1_850), []);
    assert_eq!(cuts.ended(), ended(&target, Outcome::Told, Outcome::Silent));
    assert!(cuts.is_empty());
}

#[test]
fn behind_direct_return_the_clients_number_becomes_the_backends_rst() {
    let mut cuts = Cuts::new();
    let target = dsr(40_000);
    cuts.begin(at(0), target);
    assert_eq!(due(&mut cuts, 0), [frame(&target, Side::Client, SYN_ACK)]);
    cuts.answered(at(1), &target.connection, Side::Client, NUMBERS);
    for (moment, segment) in [(1, RST), (51, RST), (651, RST), (1_251, SYN)] {
        assert_eq!(due(&mut cuts, moment), [frame(&target, Side::Backend, segment)]);
        // The mark that the next sweep finds changes nothing any more.
        cuts.told(at(moment), &target.connection, Side::Client);
        assert_eq!(due(&mut cuts, moment), []);
    }
    assert_eq!(due(&mut cuts, 1_851), []);
    assert_eq!(cuts.ended(), ended(&target, Outcome::Told, Outcome::Sent));
}

#[test]
fn behind_direct_return_newer_numbers_are_used_and_equal_ones_are_no_news() {
    let mut cuts = Cuts::new();
    let target = dsr(40_000);
    cuts.begin(at(0), target);
    cuts.answered(at(1), &target.connection, Side::Client, NUMBERS);
    assert_eq!(due(&mut cuts, 1).len(), 1, "the client has been told before its first turn");
    cuts.answered(at(2), &target.connection, Side::Client, NUMBERS);
    assert_eq!(due(&mut cuts, 2), []);
    let newer = Numbers { sequence: 1_001, ..NUMBERS };
    cuts.answered(at(3), &target.connection, Side::Client, newer);
    assert_eq!(due(&mut cuts, 3), [frame(&target, Side::Backend, Segment::Rst { sequence: 1_001 })]);
    cuts.told(at(4), &target.connection, Side::Backend);
    assert_eq!(cuts.ended(), ended(&target, Outcome::Told, Outcome::Told));
}

#[test]
fn behind_direct_return_a_lost_event_makes_the_backend_be_asked_instead() {
    let mut cuts = Cuts::new();
    let target = dsr(40_000);
    cuts.begin(at(0), target);
    due(&mut cuts, 0);
    cuts.told(at(40), &target.connection, Side::Client);
    assert_eq!(due(&mut cuts, 40), [frame(&target, Side::Backend, SYN)]);
    // The event was only late: its number is better than asking.
    cuts.answered(at(40), &target.connection, Side::Client, NUMBERS);
    for (moment, segment) in [(40, RST), (90, RST), (690, RST), (1_290, SYN)] {
        assert_eq!(due(&mut cuts, moment), [frame(&target, Side::Backend, segment)]);
    }
    cuts.answered(at(1_291), &target.connection, Side::Client, NUMBERS);
    assert_eq!((due(&mut cuts, 1_889), due(&mut cuts, 1_890)), (vec![], vec![]));
    assert_eq!(cuts.ended(), ended(&target, Outcome::Told, Outcome::Sent));
}

#[test]
fn behind_direct_return_a_silent_client_leaves_the_backend_silent() {
    let mut cuts = Cuts::new();
    let target = dsr(40_000);
    cuts.begin(at(0), target);
    for moment in [0, 50, 650, 1_250] {
        assert_eq!(due(&mut cuts, moment), [frame(&target, Side::Client, SYN_ACK)]);
    }
    assert_eq!(due(&mut cuts, 1_850), []);
    assert_eq!(cuts.ended(), ended(&target, Outcome::Silent, Outcome::Silent));
}

#[test]
fn a_side_without_a_way_is_not_asked_and_the_other_one_is() {
    let mut cuts = Cuts::new();
    let mut target = snat(40_000);
    target.backend.hop = None;
    cuts.begin(at(0), target);
    assert_eq!(due(&mut cuts, 0), [frame(&target, Side::Client, SYN_ACK)]);
    cuts.told(at(1), &target.connection, Side::Client);
    assert_eq!(cuts.ended(), ended(&target, Outcome::Told, Outcome::NoHop));
}

#[test]
fn what_is_being_cut_is_not_begun_twice_and_what_was_forgotten_leaves_no_turn() {
    let mut cuts = Cuts::new();
    let target = snat(40_000);
    assert!(cuts.begin(at(0), target));
    assert!(!cuts.begin(at(0), target));
    assert_eq!(due(&mut cuts, 0).len(), 2);
    cuts.forget(&target.connection);
    assert!(cuts.begin(at(50), target));
    assert_eq!(due(&mut cuts, 50).len(), 2, "the first one's second attempts are gone");
    assert_eq!(cuts.ended(), []);
    for (event, connection) in [(Side::Client, connection(1)), (Side::Backend, connection(2))] {
        cuts.told(at(51), &connection, event);
        cuts.answered(at(51), &connection, event, NUMBERS);
    }
    assert_eq!((cuts.len(), cuts.ended()), (1, vec![]));
}

#[test]
fn ten_thousand_cuts_go_out_in_batches_each_side_once_and_the_oldest_first() {
    let mut cuts = Cuts::new();
    let targets: Vec<Target> = (0..10_000).map(|n| snat(1_024 + n)).collect();
    for (n, target) in targets.iter().enumerate() {
        assert!(cuts.begin(at(n as u64 / 1_000), *target));
    }
    let mut sent = Vec::new();
    let mut batches = 0;
    while cuts.next().is_some_and(|next| next <= at(10)) {
        let before = sent.len();
        cuts.due(at(10), 256, &mut sent);
        assert!(sent.len() - before <= 256);
        batches += 1;
    }
    let expected: Vec<Frame> = targets
        .iter()
        .flat_map(|target| [frame(target, Side::Client, SYN_ACK), frame(target, Side::Backend, SYN)])
        .collect();
    assert!(sent == expected, "each side once, in order");
    assert_eq!(batches, 20_000_usize.div_ceil(256));
    for target in &targets {
        cuts.told(at(20), &target.connection, Side::Client);
        cuts.told(at(20), &target.connection, Side::Backend);
    }
    assert_eq!((cuts.ended().len(), cuts.len()), (10_000, 0));
}
