//! Nodes that see different clusters: partitions, outdated answers, strangers.

use super::*;

const ALL: [usize; 3] = [0, 1, 2];

#[test]
fn a_node_of_another_cluster_is_out_with_an_alarm() {
    let mut told = Told::healthy();
    let foreign = Signals { state_uuid: Some("another".to_owned()), ..synced(9, &[2]) };
    told.sees(1_000, 2, foreign.clone());
    assert_eq!((told.readiness(2), told.reason(2)), (Readiness::Out, Reason::Foreign));
    assert_eq!(told.cluster.alarms(), [Alarm::ForeignCluster { node: "db3".to_owned() }]);
    // The writer's own node can be the foreign one: its role goes to where the cluster is.
    told.sees(2_000, 2, synced(3, &ALL));
    told.sees(3_000, 0, foreign);
    assert_eq!(told.elections().last(), Some(&(1, 2, How::Failover)));
}

#[test]
fn a_resumed_node_with_an_old_view_takes_nothing_new_and_is_watched() {
    let mut told = Told::healthy();
    told.sees(1_000, 0, synced(4, &[0, 1]));
    told.sees(1_001, 1, synced(4, &[0, 1]));
    told.hears(1_002, 2, Seen::TimedOut { failed_in_a_row: 3 });
    told.sees(5_000, 2, synced(3, &ALL));
    assert_eq!((told.readiness(2), told.reason(2)), (Readiness::NoNew, Reason::Stale));
    assert_eq!(told.reprobes(), [(2, 250)]);
    // Now the writer dies: a stale node is no candidate.
    told.hears(5_100, 1, Seen::Refused { confirmed: true });
    told.hears(5_200, 0, Seen::Refused { confirmed: true });
    assert_eq!(told.readiness(2), Readiness::Writer, "with the newer view gone nothing contradicts it");
    let mut fresh = Told::healthy();
    fresh.sees(1_000, 0, synced(4, &[0, 1]));
    fresh.sees(1_001, 1, synced(4, &[0, 1]));
    fresh.hears(1_100, 0, Seen::Refused { confirmed: true });
    assert_eq!(fresh.cluster.writer(), Some(1));
}

#[test]
fn who_comes_back_with_an_old_view_is_outdated_at_once() {
    let mut told = Told::healthy();
    told.hears(1_000, 2, Seen::TimedOut { failed_in_a_row: 3 });
    told.sees(2_000, 0, synced(4, &[0, 1]));
    told.sees(2_001, 2, synced(3, &ALL));
    assert_eq!((told.readiness(2), told.reason(2)), (Readiness::NoNew, Reason::Stale));
    assert_eq!(told.reason(1), Reason::Synced, "it was only asked before");
}

#[test]
fn members_that_say_auto_are_compared_by_configuration_number() {
    let auto = |conf_id| Signals { members: vec!["AUTO".to_owned(); 3], ..synced(conf_id, &ALL) };
    let mut told = Told::new(Policy::default(), three(), None, Moment::START);
    told.sees(0, 0, auto(4));
    told.sees(0, 1, auto(4));
    told.sees(0, 2, auto(3));
    assert_eq!((told.reason(0), told.reason(2)), (Reason::Synced, Reason::Synced));
    told.sees(249, 2, auto(3));
    assert_eq!(told.reason(2), Reason::Synced, "nodes are not asked at the same time");
    told.sees(250, 2, auto(3));
    assert_eq!((told.reason(0), told.reason(2)), (Reason::Synced, Reason::Stale));
    assert_eq!(told.cluster.writer(), Some(0));
    assert_eq!(told.cluster.alarms(), []);
}

#[test]
fn an_unknown_configuration_number_makes_nobody_stale() {
    let mut told = Told::healthy();
    told.sees(1_000, 1, Signals { conf_id: Some(u64::MAX), ..synced(0, &ALL) });
    told.sees(1_001, 2, Signals { conf_id: None, ..synced(0, &ALL) });
    assert!((0..3).all(|node| told.readiness(node) == Readiness::Writer));
}

#[test]
fn an_arbitrator_has_no_address_and_joins_no_components() {
    let with_arbitrator = |conf_id, members: &[usize]| {
        let mut signals = synced(conf_id, members);
        signals.members.push(String::new());
        signals
    };
    let mut told = Told::healthy();
    told.sees(1_000, 0, with_arbitrator(4, &[0]));
    told.sees(1_001, 1, with_arbitrator(4, &[1, 2]));
    told.sees(1_002, 2, with_arbitrator(4, &[1, 2]));
    told.sees(1_003, 0, with_arbitrator(4, &[0]));
    told.sees(1_004, 1, with_arbitrator(4, &[1, 2]));
    told.sees(1_005, 2, with_arbitrator(4, &[1, 2]));
    assert_eq!(told.cluster.alarms(), [Alarm::SplitBrain]);
}

#[test]
fn in_a_split_brain_the_writer_stays_on_its_side_and_nobody_is_elected_across() {
    let mut told = Told::healthy();
    told.sees(1_000, 0, synced(4, &[0]));
    told.sees(1_001, 1, synced(4, &[1, 2]));
    assert_eq!(told.reprobes(), [(0, 0), (1, 0), (2, 0)], "look again before believing it");
    told.sees(1_002, 2, synced(4, &[1, 2]));
    assert_eq!(told.cluster.alarms(), []);
    told.sees(1_010, 0, synced(4, &[0]));
    told.sees(1_011, 1, synced(4, &[1, 2]));
    assert_eq!(told.cluster.alarms(), [Alarm::SplitBrain]);
    assert_eq!(told.cluster.writer(), Some(0));
    // Even a reason to hand over is none across the split.
    told.sees(2_000, 0, Signals { desync: true, ..donor(4, &[0]) });
    told.ticks(60_000);
    assert_eq!((told.cluster.writer(), told.elections().len()), (Some(0), 1));
    told.sees(61_000, 0, synced(6, &ALL));
    told.sees(61_001, 1, synced(6, &ALL));
    told.sees(61_002, 2, synced(6, &ALL));
    assert_eq!(told.cluster.alarms(), []);
    assert_eq!((told.cluster.writer(), told.elections().len()), (Some(0), 1));
}

#[test]
fn in_a_split_brain_a_dead_writer_is_replaced_on_its_own_side() {
    let nodes: Vec<Node> = (1..=4).map(|n| Node { name: format!("db{n}"), priority: n }).collect();
    let mut told = Told::new(Policy::default(), nodes, None, Moment::START);
    (0..4).for_each(|node| told.sees(0, node, synced(3, &[0, 1, 2, 3])));
    for start in [1_000, 1_100] {
        for (offset, node) in (0..).zip([0, 2]) {
            told.sees(start + offset, node, synced(4, &[0, 2]));
            told.sees(start + offset + 2, node + 1, synced(4, &[1, 3]));
        }
    }
    assert_eq!(told.cluster.alarms(), [Alarm::SplitBrain]);
    told.hears(2_000, 0, Seen::Refused { confirmed: true });
    assert_eq!(told.elections().last(), Some(&(2, 2, How::Failover)), "db3, though db2 has priority");
}
