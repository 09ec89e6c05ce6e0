//! What happens to clusters, one story a test.

use super::*;

const ALL: [usize; 3] = [0, 1, 2];

#[test]
fn the_first_writer_is_elected_after_one_full_round() {
    let mut told = Told::new(Policy::default(), three(), None, Moment::START);
    told.sees(10, 2, synced(3, &ALL));
    told.sees(20, 1, synced(3, &ALL));
    assert_eq!(told.cluster.writer(), None);
    told.sees(30, 0, synced(3, &ALL));
    assert_eq!(told.elections(), [(0, 1, How::First)]);
    let incumbent = Incumbent { node: "db1".to_owned(), epoch: 1, serving: true, by_hand: false };
    assert_eq!(told.cluster.incumbent(), Some(&incumbent));
}

#[test]
fn or_after_two_seconds_among_those_that_answer() {
    let mut told = Told::new(Policy::default(), three(), None, Moment::START);
    told.sees(10, 2, synced(3, &ALL));
    told.hears(1_000, 0, Seen::TimedOut { failed_in_a_row: 1 });
    assert_eq!(told.ticks(1_999), Some(at(2_000)));
    assert_eq!(told.cluster.writer(), None);
    told.ticks(2_000);
    assert_eq!(told.elections(), [(2, 1, How::First)]);
    told.sees(2_100, 0, synced(3, &ALL));
    assert_eq!(told.cluster.writer(), Some(2), "a better one that comes late does not take over");
}

#[test]
fn priority_decides_then_the_order_of_the_configuration_and_negative_is_never() {
    for (priorities, writer) in [
        ([1, 2, 3], Some(0)),
        ([3, 2, 1], Some(2)),
        ([5, 5, 5], Some(0)),
        ([-1, 7, 7], Some(1)),
        ([-1; 3], None),
    ] {
        let nodes = three().into_iter().zip(priorities).map(|(node, priority)| Node { priority, ..node });
        let mut told = Told::new(Policy::default(), nodes.collect(), None, Moment::START);
        (0..3).for_each(|node| told.sees(0, node, synced(3, &ALL)));
        assert_eq!(told.cluster.writer(), writer, "{priorities:?}");
    }
}

#[test]
fn a_restart_moves_no_writer_and_says_nothing_of_it() {
    let incumbent = Incumbent { node: "db3".to_owned(), epoch: 7, serving: true, by_hand: false };
    let mut told = Told::new(Policy::default(), three(), Some(incumbent.clone()), Moment::START);
    assert_eq!(told.cluster.writer(), Some(2), "before the first probe");
    (0..3).for_each(|node| told.sees(0, node, synced(3, &ALL)));
    told.ticks(5_000);
    assert_eq!((told.cluster.writer(), told.elections()), (Some(2), vec![]));
    assert_eq!(told.cluster.incumbent(), Some(&incumbent));
}

#[test]
fn a_lost_or_removed_incumbent_hands_on_its_epoch_only() {
    for (node, serving) in [("db9", true), ("db3", false)] {
        let incumbent = Incumbent { node: node.to_owned(), epoch: 7, serving, by_hand: false };
        let mut told = Told::new(Policy::default(), three(), Some(incumbent), Moment::START);
        assert_eq!(told.cluster.writer(), None);
        (0..3).for_each(|node| told.sees(0, node, synced(3, &ALL)));
        let elected = if serving { 0 } else { 2 };
        assert_eq!(told.elections(), [(elected, 8, How::First)], "who was it last is asked first");
    }
}

#[test]
fn the_incumbent_is_read_back_as_it_was_written() {
    let incumbent = Incumbent { node: "db2".to_owned(), epoch: 4, serving: true, by_hand: false };
    let text = serde_json::to_string(&incumbent).unwrap();
    assert_eq!(serde_json::from_str::<Incumbent>(&text).unwrap(), incumbent);
    assert_eq!(serde_json::from_str::<Incumbent>(r#"{"node":"db2","epoch":4}"#).unwrap(), incumbent);
}

#[test]
fn a_killed_writer_is_replaced_once_and_does_not_come_back() {
    let mut told = Told::healthy();
    told.hears(1_000, 0, Seen::Refused { confirmed: false });
    assert_eq!((told.cluster.writer(), told.reprobes()), (Some(0), vec![(0, 250)]));
    told.hears(1_250, 0, Seen::Refused { confirmed: true });
    assert_eq!(told.elections().last(), Some(&(1, 2, How::Failover)));
    // The others notice, then the killed node comes back through a state transfer from db3.
    told.sees(3_000, 1, synced(4, &[1, 2]));
    assert_eq!(told.reprobes(), [(0, 0), (1, 0), (2, 0)], "a new view is worth a look at everybody");
    told.sees(3_010, 2, synced(4, &[1, 2]));
    assert_eq!(told.reprobes(), [], "but only once");
    told.sees(9_000, 2, donor(5, &ALL));
    told.sees(9_010, 1, synced(5, &ALL));
    told.sees(11_000, 2, synced(5, &ALL));
    told.sees(11_010, 0, synced(5, &ALL));
    told.ticks(100_000);
    assert_eq!(told.elections().len(), 2);
    assert_eq!(told.cluster.writer(), Some(1), "fail-back is manual");
}

#[test]
fn evidence_against_the_writer_replaces_it_at_once() {
    let rejects = Signals { reject_queries: RejectQueries::All, ..synced(3, &ALL) };
    for (seen, reason) in [
        (Seen::Sample(isolated(5)), "db1: wsrep_cluster_status is not Primary"),
        (Seen::NotReady1047, "db1: error 1047: not ready for queries"),
        (Seen::TimedOut { failed_in_a_row: 3 }, "db1: no answer to 3 probes in a row"),
        (Seen::Refused { confirmed: true }, "db1: connection refused"),
        (Seen::Sample(rejects), "db1: wsrep_reject_queries is ALL"),
        (Seen::Sample(Signals { read_only: true, ..synced(3, &ALL) }), "db1: read_only"),
    ] {
        let mut told = Told::healthy();
        told.hears(1_000, 0, seen);
        let expected =
            Event::WriterElected { node: 1, epoch: 2, how: How::Failover, reason: reason.to_owned() };
        assert_eq!(told.events.last(), Some(&expected));
    }
}

#[test]
fn doubt_about_the_writer_moves_nothing() {
    for seen in [
        Seen::Saturated,
        Seen::MonitorDenied("1045".to_owned()),
        Seen::Refused { confirmed: false },
        Seen::TimedOut { failed_in_a_row: 2 },
        Seen::Sample(Signals { threads_connected: Some(100), ..synced(3, &ALL) }),
    ] {
        let mut told = Told::healthy();
        for second in 1..20 {
            told.hears(second * 1_000, 0, seen.clone());
            told.ticks(second * 1_000 + 500);
        }
        assert_eq!((told.cluster.writer(), told.elections().len()), (Some(0), 1), "{seen:?}");
    }
}

#[test]
fn a_writer_too_full_to_answer_is_not_judged_by_the_view_it_showed_last() {
    for silent in [Seen::Saturated, Seen::MonitorDenied("1045".to_owned())] {
        let mut told = Told::healthy();
        for second in 1..20 {
            told.hears(second * 1_000, 0, silent.clone());
            told.sees(second * 1_000 + 1, 1, synced(4, &[0, 1]));
            told.hears(second * 1_000 + 2, 2, Seen::Refused { confirmed: true });
        }
        assert_eq!((told.cluster.writer(), told.elections().len()), (Some(0), 1), "{silent:?}");
    }
}

#[test]
fn a_stale_writer_has_three_seconds_to_catch_up_however_long_others_have_differed() {
    let mut told = Told::healthy();
    told.sees(1_000, 0, synced(4, &ALL));
    told.sees(10_000, 1, synced(5, &ALL));
    assert_eq!(told.reason(0), Reason::Synced, "it was asked before");
    told.sees(10_250, 0, synced(4, &ALL));
    assert_eq!((told.reason(0), told.cluster.writer()), (Reason::Stale, Some(0)));
    let mut late = Told { cluster: told.cluster.clone(), events: Vec::new(), reprobe: Vec::new() };
    told.sees(12_900, 0, synced(5, &ALL));
    told.ticks(20_000);
    assert_eq!(told.cluster.writer(), Some(0));
    assert_eq!(late.ticks(13_249), Some(at(13_250)));
    late.ticks(13_250);
    assert_eq!(late.elections(), [(1, 2, How::Planned)]);
}

#[test]
fn nothing_that_happens_to_another_node_moves_the_writer() {
    let mut told = Told::healthy();
    for round in 0..10 {
        let start = 1_000 + round * 10_000;
        told.hears(start, 1, Seen::Refused { confirmed: true });
        told.sees(start + 1, 2, isolated(9));
        told.sees(start + 2, 0, synced(4 + 2 * round, &[0]));
        told.sees(start + 5_000, 0, donor(5 + 2 * round, &ALL));
        told.sees(start + 7_000, 0, synced(5 + 2 * round, &ALL));
        told.sees(start + 7_001, 1, synced(5 + 2 * round, &ALL));
        told.sees(start + 7_002, 2, synced(5 + 2 * round, &ALL));
    }
    assert_eq!((told.cluster.writer(), told.elections().len()), (Some(0), 1));
}

#[test]
fn a_donor_keeps_the_role_for_five_seconds_and_then_hands_over_in_order() {
    let mut told = Told::healthy();
    told.sees(1_000, 0, donor(3, &ALL));
    told.sees(3_000, 0, Signals { local_state: Some(3), ..synced(3, &ALL) });
    assert_eq!(told.ticks(5_900), Some(at(6_000)));
    assert_eq!(told.cluster.writer(), Some(0));
    told.ticks(6_000);
    assert_eq!(told.elections().last(), Some(&(1, 2, How::Planned)));
}

#[test]
fn a_donor_that_is_done_in_time_stays_the_writer() {
    let mut told = Told::healthy();
    for start in [1_000, 7_000, 13_000] {
        told.sees(start, 0, donor(3, &ALL));
        told.sees(start + 4_900, 0, synced(3, &ALL));
        told.ticks(start + 5_500);
    }
    assert_eq!((told.cluster.writer(), told.elections().len()), (Some(0), 1));
}

#[test]
fn a_node_desynced_by_hand_hands_over_at_once() {
    let mut told = Told::healthy();
    told.sees(1_000, 0, Signals { desync: true, ..donor(3, &ALL) });
    assert_eq!(told.elections().last(), Some(&(1, 2, How::Planned)));
}

#[test]
fn optional_moves_wait_for_the_views_to_settle_but_not_for_ever() {
    let desynced = |conf_id| Signals { desync: true, ..donor(conf_id, &ALL) };
    let mut told = Told::healthy();
    told.sees(1_000, 1, synced(4, &ALL));
    told.sees(1_100, 2, synced(4, &ALL));
    told.sees(1_200, 0, desynced(3));
    assert_eq!(told.cluster.writer(), Some(0));
    let mut settles = Told { cluster: told.cluster.clone(), events: Vec::new(), reprobe: Vec::new() };
    settles.sees(1_500, 0, desynced(4));
    assert_eq!(settles.elections(), [(1, 2, How::Planned)]);
    assert_eq!(told.ticks(3_999), Some(at(4_000)));
    assert_eq!(told.cluster.writer(), Some(0));
    told.ticks(4_000);
    assert_eq!(told.elections().last(), Some(&(1, 2, How::Planned)));
}

#[test]
fn last_resorts_come_in_order() {
    let desynced = Signals { desync: true, ..donor(3, &ALL) };
    let joined = Signals { local_state: Some(3), ..synced(3, &ALL) };
    let saturated = Signals { threads_connected: Some(99), ..synced(3, &ALL) };
    for (second, third, donors, writer) in [
        (donor(3, &ALL), synced(3, &ALL), Donor::LastResort, Some(2)),
        (desynced.clone(), saturated, Donor::LastResort, Some(2)),
        (donor(3, &ALL), desynced, Donor::LastResort, Some(2)),
        (joined.clone(), donor(3, &ALL), Donor::LastResort, Some(2)),
        (joined, donor(3, &ALL), Donor::Avoid, None),
    ] {
        let policy = Policy { donor: donors, ..Policy::default() };
        let mut told = Told::new(policy, three(), None, Moment::START);
        (0..3).for_each(|node| told.sees(0, node, synced(3, &ALL)));
        told.sees(900, 1, second.clone());
        told.sees(901, 2, third.clone());
        told.hears(1_000, 0, Seen::Refused { confirmed: true });
        assert_eq!(told.cluster.writer(), writer, "{second:?} {third:?}");
    }
}

#[test]
fn a_writer_without_a_successor_is_lost_and_found_again() {
    let mut told = Told::healthy();
    told.sees(1_000, 1, isolated(900));
    told.sees(1_001, 2, isolated(1_200));
    told.sees(1_002, 0, isolated(1_000));
    let reason = "db1: wsrep_cluster_status is not Primary".to_owned();
    assert!(told.events.contains(&Event::WriterLost { node: 0, reason }));
    assert_eq!(told.cluster.incumbent().map(|incumbent| incumbent.serving), Some(false));
    let alarm = Alarm::NobodyPrimary { node: "db3".to_owned(), last_committed: Some(1_200) };
    assert_eq!(told.cluster.alarms(), std::slice::from_ref(&alarm));
    let text = alarm.to_string();
    assert!(text.contains("db3") && text.contains("1200"), "{text}");
    assert!(text.contains("pc.bootstrap=YES") && text.contains("Do not type it while"), "{text}");
    // The cluster is whole again; db2 answers first, but is one of several by then.
    told.sees(5_000, 1, Signals { ready: Some(false), ..synced(5, &ALL) });
    told.sees(5_001, 0, synced(5, &ALL));
    assert_eq!(told.elections().last(), Some(&(0, 2, How::First)));
    assert!(told.events.contains(&Event::AlarmCleared(alarm)));
}

#[test]
fn a_refused_monitor_keeps_what_was_known_and_otherwise_says_what_to_type() {
    let mut told = Told::new(Policy::default(), three(), None, Moment::START);
    (0..3).for_each(|node| told.hears(0, node, Seen::MonitorDenied("1045 access denied".to_owned())));
    told.ticks(10_000);
    assert!((0..3).all(|node| told.readiness(node) == Readiness::Unknown));
    assert_eq!((told.cluster.writer(), told.cluster.alarms().len()), (None, 3));
    let text = told.cluster.alarms()[0].to_string();
    assert!(text.contains("db1") && text.contains("1045 access denied"), "{text}");

    let mut told = Told::healthy();
    (0..3).for_each(|node| told.hears(1_000, node, Seen::MonitorDenied("1129 blocked".to_owned())));
    assert!((0..3).all(|node| told.readiness(node) == Readiness::Writer));
    assert_eq!(told.cluster.writer(), Some(0));
    told.sees(2_000, 0, synced(3, &ALL));
    assert_eq!(told.cluster.alarms().len(), 2);
}

#[test]
fn results_that_come_late_are_ignored() {
    let mut told = Told::healthy();
    told.sees(2_000, 0, synced(3, &ALL));
    told.sees(1_000, 0, isolated(0));
    told.hears(1_500, 0, Seen::Refused { confirmed: true });
    told.hears(3_000, 9, Seen::Refused { confirmed: true });
    assert_eq!((told.cluster.writer(), told.elections().len()), (Some(0), 1));
}

#[test]
fn plain_mysql_servers_have_one_writer_too() {
    let policy = Policy { kind: Kind::Mysql, ..Policy::default() };
    let mut told = Told::new(policy, three(), None, Moment::START);
    told.sees(0, 0, Signals { read_only: true, ..Signals::default() });
    told.sees(0, 1, Signals::default());
    told.sees(0, 2, Signals::default());
    assert_eq!(told.elections(), [(1, 1, How::First)]);
    told.hears(1_000, 1, Seen::Refused { confirmed: true });
    assert_eq!(told.elections().last(), Some(&(2, 2, How::Failover)));
    told.hears(2_000, 2, Seen::Refused { confirmed: true });
    assert_eq!((told.cluster.writer(), told.cluster.alarms()), (None, &[][..]));
}
