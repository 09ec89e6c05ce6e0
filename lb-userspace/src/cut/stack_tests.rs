//! Against real TCP stacks. Nothing here forwards: the test itself answers the challenge ACK as the data path would.

use std::{
    io::{Read, Write},
    process::Command,
    time::{Duration, Instant},
};

use super::{
    testing::{Namespace, Reader, Rig, Silent, skipped},
    *,
};
use crate::health::Moment;

/// Sends what is due at the machine's moment `millis`.
fn send_due(rig: &mut Rig, cuts: &mut Cuts, millis: u64) {
    let mut frames = Vec::new();
    cuts.due(Moment::at(Duration::from_millis(millis)), 64, &mut frames);
    rig.send(&frames);
}

/// Cuts one side of a silent connection whose end is blocked in a read.
fn cut_one_side(rig: &mut Rig, server: &str, side: Side) {
    let silent = rig.connect(server);
    let reader = Reader::blocked(silent.end(side));
    let mut cuts = Cuts::new();
    let target = rig.target(&silent, &[side], Order::Both);
    cuts.begin(Moment::START, target);
    let begun = Instant::now();
    send_due(rig, &mut cuts, 0);
    let numbers = rig.spy.challenge_ack(silent.towards(side));
    assert_eq!(numbers, silent.stands(side), "{side:?} of {server}");
    rig.spoof(&silent, side, Segment::Rst { sequence: numbers.acknowledgement });
    reader.is_reset(begun);
    cuts.answered(Moment::START, &silent.connection, side, numbers);
    let (client, backend) = match side {
        Side::Client => (Outcome::Told, Outcome::NoHop),
        Side::Backend => (Outcome::NoHop, Outcome::Told),
    };
    assert_eq!(cuts.ended(), [Ended { connection: silent.connection, client, backend }]);
}

const SERVERS: [&str; 2] = ["10.9.0.3", "fd09::3"];

#[test]
fn either_end_blocked_in_a_read_learns_of_the_cut_within_100_ms() {
    if skipped("either_end_blocked_in_a_read_learns_of_the_cut_within_100_ms") {
        return;
    }
    let mut rig = Rig::new();
    for server in SERVERS {
        for side in [Side::Client, Side::Backend] {
            cut_one_side(&mut rig, server, side);
        }
    }
}

#[test]
fn hosts_that_drop_what_connection_tracking_calls_invalid_are_cut_too() {
    let test = "hosts_that_drop_what_connection_tracking_calls_invalid_are_cut_too";
    if skipped(test) {
        return;
    }
    if Command::new("nft").arg("--version").output().is_err() {
        return eprintln!("SKIPPED: {test}: nft is not installed");
    }
    let mut rig = Rig::new();
    rig.drop_invalid();
    let dropped = |host: &Namespace| {
        let rules = host.run("nft", &["list", "table", "inet", "t"]);
        let packets = rules.split("packets ").nth(1).and_then(|rest| rest.split(' ').next());
        packets.and_then(|packets| packets.parse::<u64>().ok()).expect("a counter")
    };
    for server in SERVERS {
        for side in [Side::Client, Side::Backend] {
            cut_one_side(&mut rig, server, side);
        }
    }
    assert_eq!((dropped(&rig.client), dropped(&rig.server)), (0, 0));

    // The other way round, each host drops it: the reason for there being two kinds.
    let silent = rig.connect(SERVERS[0]);
    rig.spoof(&silent, Side::Client, Segment::Syn { sequence: 0 });
    rig.spoof(&silent, Side::Backend, Segment::SynAck { sequence: 0, acknowledgement: 0 });
    let begun = Instant::now();
    while (dropped(&rig.client), dropped(&rig.server)) != (1, 1) {
        assert!(begun.elapsed() < Duration::from_secs(5), "not dropped");
    }
}

#[test]
fn behind_direct_return_the_clients_answer_alone_ends_both_blocked_reads() {
    if skipped("behind_direct_return_the_clients_answer_alone_ends_both_blocked_reads") {
        return;
    }
    let mut rig = Rig::new();
    for server in SERVERS {
        let silent = rig.connect(server);
        let readers = [Side::Client, Side::Backend].map(|side| Reader::blocked(silent.end(side)));
        let mut cuts = Cuts::new();
        let target = rig.target(&silent, &[Side::Client, Side::Backend], Order::ClientFirst);
        cuts.begin(Moment::START, target);
        let begun = Instant::now();
        send_due(&mut rig, &mut cuts, 0);
        let numbers = rig.spy.challenge_ack(silent.towards(Side::Client));
        rig.spoof(&silent, Side::Client, Segment::Rst { sequence: numbers.acknowledgement });
        cuts.answered(Moment::START, &silent.connection, Side::Client, numbers);
        send_due(&mut rig, &mut cuts, 0);
        for reader in readers {
            reader.is_reset(begun);
        }
    }
}

#[test]
fn behind_direct_return_a_lost_answer_is_made_up_for_by_the_clients_own_rst() {
    if skipped("behind_direct_return_a_lost_answer_is_made_up_for_by_the_clients_own_rst") {
        return;
    }
    let mut rig = Rig::new();
    let silent = rig.connect(SERVERS[0]);
    let reader = Reader::blocked(silent.end(Side::Backend));
    let mut cuts = Cuts::new();
    let target = rig.target(&silent, &[Side::Client, Side::Backend], Order::ClientFirst);
    cuts.begin(Moment::START, target);
    send_due(&mut rig, &mut cuts, 0);
    let numbers = rig.spy.challenge_ack(silent.towards(Side::Client));
    rig.spoof(&silent, Side::Client, Segment::Rst { sequence: numbers.acknowledgement });
    // The event is lost; the next sweep finds the mark. The bridge brings the backend's answer to the client.
    cuts.told(Moment::START, &silent.connection, Side::Client);
    let begun = Instant::now();
    send_due(&mut rig, &mut cuts, 0);
    reader.is_reset(begun);
}

#[test]
fn behind_direct_return_an_answer_with_an_old_number_is_made_up_for_by_the_last_attempt() {
    if skipped("behind_direct_return_an_answer_with_an_old_number_is_made_up_for_by_the_last_attempt") {
        return;
    }
    let mut rig = Rig::new();
    let silent = rig.connect(SERVERS[0]);
    let reader = Reader::blocked(silent.end(Side::Backend));
    let mut cuts = Cuts::new();
    let target = rig.target(&silent, &[Side::Client, Side::Backend], Order::ClientFirst);
    cuts.begin(Moment::START, target);
    send_due(&mut rig, &mut cuts, 0);
    let numbers = rig.spy.challenge_ack(silent.towards(Side::Client));
    rig.spoof(&silent, Side::Client, Segment::Rst { sequence: numbers.acknowledgement });
    // As if the client had sent its "hello" once more.
    let old = Numbers { sequence: numbers.sequence.wrapping_sub(5), ..numbers };
    cuts.answered(Moment::START, &silent.connection, Side::Client, old);
    send_due(&mut rig, &mut cuts, 0);
    send_due(&mut rig, &mut cuts, 50);
    send_due(&mut rig, &mut cuts, 650);
    assert!(reader.is_still_blocked());
    let begun = Instant::now();
    send_due(&mut rig, &mut cuts, 1_250);
    reader.is_reset(begun);
}

#[test]
fn a_rst_that_is_off_by_one_is_challenged_and_the_connection_lives_on() {
    if skipped("a_rst_that_is_off_by_one_is_challenged_and_the_connection_lives_on") {
        return;
    }
    let mut rig = Rig::new();
    for server in SERVERS {
        for side in [Side::Client, Side::Backend] {
            let mut silent = rig.connect(server);
            let stands = silent.stands(side);
            rig.spoof(&silent, side, Segment::Rst { sequence: stands.acknowledgement.wrapping_add(1) });
            // That it answers shows that it has seen the RST.
            assert_eq!(rig.spy.challenge_ack(silent.towards(side)), stands);
            let mut buffer = [0; 4];
            silent.server.write_all(b"more").expect("sent");
            silent.client.read_exact(&mut buffer).expect("received");
            silent.client.write_all(&buffer).expect("sent");
            silent.server.read_exact(&mut buffer).expect("received");
            assert_eq!(&buffer, b"more");
        }
    }
}

#[test]
fn a_socket_that_has_just_answered_somebody_else_answers_when_it_may_again() {
    if skipped("a_socket_that_has_just_answered_somebody_else_answers_when_it_may_again") {
        return;
    }
    let mut rig = Rig::new();
    let silent = rig.connect(SERVERS[0]);
    let stands = silent.stands(Side::Client);
    let reader = Reader::blocked(silent.end(Side::Client));
    rig.spoof(&silent, Side::Client, Segment::Rst { sequence: stands.acknowledgement.wrapping_add(1) });
    assert_eq!(rig.spy.challenge_ack(silent.towards(Side::Client)), stands);

    let start = Instant::now();
    let mut cuts = Cuts::new();
    let target = rig.target(&silent, &[Side::Client], Order::Both);
    cuts.begin(Moment::START, target);
    let mut asked = start;
    for _ in 0..3 {
        let next = cuts.next().expect("another attempt").since(Moment::START);
        std::thread::sleep(next.saturating_sub(start.elapsed()));
        asked = Instant::now();
        send_due(&mut rig, &mut cuts, next.as_millis() as u64);
    }
    let numbers = rig.spy.challenge_ack(silent.towards(Side::Client));
    assert_eq!(numbers, stands);
    rig.spoof(&silent, Side::Client, Segment::Rst { sequence: numbers.acknowledgement });
    reader.is_reset(asked);
    let counted = ["TCPSYNChallenge", "TCPACKSkippedChallenge"].map(|name| rig.client.counter(name));
    assert_eq!(counted, [3, 2], "of three attempts the first two were not answered");
}

#[test]
fn a_burst_of_cuts_ends_all_ends_of_all_connections_at_once() {
    if skipped("a_burst_of_cuts_ends_all_ends_of_all_connections_at_once") {
        return;
    }
    let mut rig = Rig::new();
    let silent: Vec<Silent> = (0..100).map(|n| rig.connect(SERVERS[n % 2])).collect();
    let mut cuts = Cuts::new();
    for silent in &silent {
        let target = rig.target(silent, &[Side::Client, Side::Backend], Order::Both);
        assert!(cuts.begin(Moment::START, target));
    }
    let begun = Instant::now();
    let mut batches = 0;
    while !cuts.is_empty() {
        // A batch, then its answers.
        let mut frames = Vec::new();
        cuts.due(Moment::START, 32, &mut frames);
        rig.send(&frames);
        batches += 1;
        for _ in frames {
            let (tuple, numbers) = rig.spy.any_challenge_ack();
            let answers = |silent: &&Silent| {
                [silent.connection.client, silent.connection.service].contains(&tuple.from)
                    && [silent.connection.client, silent.connection.service].contains(&tuple.to)
            };
            let of = silent.iter().find(answers).expect("one of the connections");
            let side = if tuple.from == of.connection.client { Side::Client } else { Side::Backend };
            rig.spoof(of, side, Segment::Rst { sequence: numbers.acknowledgement });
            cuts.answered(Moment::START, &of.connection, side, numbers);
        }
    }
    eprintln!("100 connections after {:?}", begun.elapsed());
    assert_eq!(batches, 200_usize.div_ceil(32));
    let told = |ended: &Ended| (ended.client, ended.backend) == (Outcome::Told, Outcome::Told);
    let ended = cuts.ended();
    assert!(ended.len() == 100 && ended.iter().all(told), "{ended:?}");
    for mut end in silent.iter().flat_map(|silent| [silent.end(Side::Client), silent.end(Side::Backend)]) {
        let outcome = end.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(outcome, Err(std::io::ErrorKind::ConnectionReset));
    }
}
