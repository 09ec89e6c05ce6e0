//! What operators order, and what the role does by itself meanwhile.

use super::*;

const ALL: [usize; 3] = [0, 1, 2];

fn switch(told: &mut Told, millis: u64, node: Option<usize>) -> Result<(), Refused> {
    let outcome = told.cluster.switch(node, at(millis))?;
    told.events.extend(outcome.events);
    Ok(())
}

#[test]
fn a_switch_goes_to_the_named_or_to_the_best_other_node() {
    let mut told = Told::healthy();
    switch(&mut told, 1_000, Some(2)).unwrap();
    switch(&mut told, 2_000, None).unwrap();
    switch(&mut told, 3_000, None).unwrap();
    let elections = [(0, 1, How::First), (2, 2, How::Planned), (0, 3, How::Planned), (1, 4, How::Planned)];
    assert_eq!(told.elections(), elections);
}

#[test]
fn a_switch_to_a_node_that_cannot_write_is_refused_with_its_reason() {
    let mut told = Told::healthy();
    told.sees(1_000, 1, donor(3, &ALL));
    told.hears(1_001, 2, Seen::Refused { confirmed: false });
    for (node, text) in [
        (Some(0), "db1 is the writer already"),
        (Some(1), "db2 cannot be the writer now: donor"),
        (Some(2), "db3 cannot be the writer now: its last probe failed"),
        (None, "no other node can be the writer now"),
    ] {
        assert_eq!(switch(&mut told, 2_000, node).unwrap_err().to_string(), text);
    }
    assert_eq!(told.elections().len(), 1);
}

#[test]
fn a_frozen_role_stays_with_its_node_or_with_nobody() {
    let mut told = Told::healthy();
    told.cluster.freeze(true);
    told.sees(1_000, 0, Signals { desync: true, ..donor(3, &ALL) });
    told.ticks(20_000);
    assert_eq!(told.cluster.writer(), Some(0), "it had better not, but may");
    told.hears(21_000, 0, Seen::Refused { confirmed: true });
    assert_eq!((told.cluster.writer(), told.cluster.alarms()), (None, &[Alarm::Frozen][..]));
    told.ticks(40_000);
    assert_eq!(told.cluster.writer(), None);
    told.sees(41_000, 0, synced(3, &ALL));
    assert_eq!(told.elections(), [(0, 1, How::First), (0, 2, How::First)]);
    told.hears(42_000, 0, Seen::Refused { confirmed: true });
    told.cluster.freeze(false);
    told.ticks(43_000);
    assert_eq!(told.elections().last(), Some(&(1, 3, How::First)));
}

#[test]
fn an_order_moves_a_frozen_role_too() {
    let mut told = Told::healthy();
    told.cluster.freeze(true);
    switch(&mut told, 1_000, Some(1)).unwrap();
    assert_eq!(told.cluster.writer(), Some(1));
}

#[test]
fn the_role_goes_back_by_itself_only_where_that_is_wanted_and_after_a_minute_of_health() {
    for (fail_back, moves) in [(None, 0), (Some(Duration::from_mins(1)), 1)] {
        let mut told = Told::new(Policy { fail_back, ..Policy::default() }, three(), None, Moment::START);
        (0..3).for_each(|node| told.sees(0, node, synced(3, &ALL)));
        told.hears(1_000, 0, Seen::Refused { confirmed: true });
        assert_eq!(told.cluster.writer(), Some(1));
        told.sees(10_000, 0, synced(3, &ALL));
        told.sees(40_000, 0, Signals { recv_queue: Some(20), ..synced(3, &ALL) });
        told.sees(50_000, 0, synced(3, &ALL));
        told.ticks(109_999);
        assert_eq!(told.cluster.writer(), Some(1), "its queue was long a minute ago");
        told.ticks(110_000);
        assert_eq!(told.elections().len(), 2 + moves);
        assert_eq!(
            told.elections().last().map(|election| election.2),
            Some([How::Failover, How::Planned][moves])
        );
    }
}

#[test]
fn what_an_operator_has_chosen_does_not_go_back_by_itself() {
    let policy = Policy { fail_back: Some(Duration::from_mins(1)), ..Policy::default() };
    let mut told = Told::new(policy, three(), None, Moment::START);
    (0..3).for_each(|node| told.sees(0, node, synced(3, &ALL)));
    switch(&mut told, 100_000, Some(2)).unwrap();
    told.ticks(1_000_000);
    assert_eq!(told.cluster.writer(), Some(2));
    // Nor after a restart.
    let kept = told.cluster.incumbent().cloned();
    let mut told = Told::new(policy, three(), kept, Moment::START);
    (0..3).for_each(|node| told.sees(0, node, synced(3, &ALL)));
    told.ticks(1_000_000);
    assert_eq!((told.cluster.writer(), told.elections().len()), (Some(2), 0));
}

/// db1 and db2 on one side, db3 on the other, each side Primary; told twice, so that it counts.
fn split(told: &mut Told, millis: u64) {
    for start in [millis, millis + 100] {
        told.sees(start, 0, synced(4, &[0, 1]));
        told.sees(start + 1, 1, synced(4, &[0, 1]));
        told.sees(start + 2, 2, synced(4, &[2]));
    }
}

#[test]
fn in_a_split_brain_only_the_writers_side_serves_until_an_operator_accepts_the_other() {
    let mut told = Told::healthy();
    split(&mut told, 1_000);
    assert_eq!(told.cluster.alarms(), [Alarm::SplitBrain]);
    assert_eq!((told.readiness(2), told.reason(2)), (Readiness::NoNew, Reason::OtherSide));
    assert_eq!(told.cluster.readers(WriterReads::Always), [1., 1., 0.]);
    assert_eq!(told.cluster.writers(), [1., 1., 0.]);
    let outcome = told.cluster.accept(2, at(2_000)).unwrap();
    told.events.extend(outcome.events);
    assert_eq!(told.elections().last(), Some(&(2, 2, How::Failover)));
    assert_eq!(told.cluster.writers(), [0., 0., 1.]);
    // Once they are one again, there is nothing to accept.
    (0..3).for_each(|node| told.sees(3_000, node, synced(6, &ALL)));
    let refused = told.cluster.accept(0, at(3_001)).unwrap_err();
    assert_eq!(refused, Refused::NothingToAccept { node: "db1".to_owned() });
    assert_eq!(told.cluster.writers(), [1., 1., 1.]);
}

#[test]
fn in_a_split_brain_at_the_very_start_nobody_writes_and_all_may_be_read_from() {
    let mut told = Told::new(Policy::default(), three(), None, Moment::START);
    told.sees(0, 0, synced(4, &[0, 1]));
    told.sees(1, 1, synced(4, &[0, 1]));
    told.sees(2, 2, synced(4, &[2]));
    split(&mut told, 250);
    assert_eq!((told.cluster.writer(), told.cluster.writers()), (None, vec![0.; 3]));
    assert_eq!(told.cluster.readers(WriterReads::LastResort), [1., 1., 1.]);
    told.cluster.accept(1, at(1_000)).unwrap();
    assert_eq!(told.cluster.writer(), Some(0));
}

#[test]
fn a_cluster_made_anew_is_foreign_until_it_is_accepted() {
    let mut told = Told::healthy();
    let anew = || Signals { state_uuid: Some("another".to_owned()), ..synced(1, &[1]) };
    told.sees(1_000, 1, anew());
    assert_eq!((told.readiness(1), told.reason(1)), (Readiness::Out, Reason::Foreign));
    assert_eq!(told.cluster.alarms(), [Alarm::ForeignCluster { node: "db2".to_owned() }]);
    told.cluster.accept(1, at(2_000)).unwrap();
    assert_eq!((told.cluster.writer(), told.readiness(0)), (Some(1), Readiness::Out));
}
