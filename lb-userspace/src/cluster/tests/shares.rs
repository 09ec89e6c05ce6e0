//! Who takes readers' connections, and those of `any`: tables of states to weights.

use super::*;

const ALL: [usize; 3] = [0, 1, 2];

/// Nodes in these states, db1 the writer, and each one's part as a reader and as one of `any`.
fn parts(policy: Policy, writer: WriterReads, states: [Seen; 3]) -> (Vec<f64>, Vec<f64>) {
    let mut told = Told::new(policy, three(), None, Moment::START);
    (0..3).for_each(|node| told.sees(0, node, synced(3, &ALL)));
    for (node, seen) in states.into_iter().enumerate() {
        told.hears(1_000, node, seen);
    }
    (told.cluster.readers(writer), told.cluster.writers())
}

fn sample(change: fn(&mut Signals)) -> Seen {
    let mut signals = synced(3, &ALL);
    change(&mut signals);
    Seen::Sample(signals)
}

fn well() -> Seen {
    sample(|_| {})
}

fn used(connections: u64) -> Seen {
    Seen::Sample(Signals { threads_connected: Some(connections), ..synced(3, &ALL) })
}

fn donates() -> Seen {
    sample(|s| s.local_state = Some(2))
}

fn joins() -> Seen {
    sample(|s| s.local_state = Some(3))
}

fn desynced() -> Seen {
    sample(|s| (s.desync, s.local_state) = (true, Some(2)))
}

fn reads_only() -> Seen {
    sample(|s| s.read_only = true)
}

fn gone() -> Seen {
    Seen::Refused { confirmed: true }
}

#[test]
fn readers_are_all_that_are_as_good_as_each_other_and_the_writer_by_its_policy() {
    use WriterReads::{Always, LastResort, Never};
    for (writer, states, readers, any) in [
        (LastResort, [well(), well(), well()], [0., 1., 1.], [1., 1., 1.]),
        (Always, [well(), well(), well()], [1., 1., 1.], [1., 1., 1.]),
        (Never, [well(), gone(), gone()], [0., 0., 0.], [1., 0., 0.]),
        (LastResort, [well(), gone(), gone()], [1., 0., 0.], [1., 0., 0.]),
        (LastResort, [well(), reads_only(), gone()], [0., 1., 0.], [1., 0., 0.]),
        // The writer is Synced, so it comes before desynced nodes, donors and joined ones.
        (LastResort, [well(), desynced(), donates()], [1., 0., 0.], [1., 0., 0.]),
        (Never, [well(), desynced(), donates()], [0., 1., 0.], [1., 0., 0.]),
        (Never, [well(), gone(), donates()], [0., 0., 1.], [1., 0., 0.]),
        (Never, [well(), joins(), donates()], [0., 0., 1.], [1., 0., 0.]),
        (Never, [well(), joins(), gone()], [0., 1., 0.], [1., 0., 0.]),
        (Always, [desynced(), donates(), joins()], [1., 0., 0.], [1., 0., 0.]),
        (Always, [donates(), donates(), joins()], [1., 1., 0.], [1., 1., 0.]),
        (LastResort, [gone(), joins(), gone()], [0., 1., 0.], [0., 0., 0.]),
        (LastResort, [gone(), gone(), gone()], [0., 0., 0.], [0., 0., 0.]),
        // One probe without an answer: nobody new goes there while somebody else is well.
        (LastResort, [well(), Seen::TimedOut { failed_in_a_row: 1 }, well()], [0., 0., 1.], [1., 0., 1.]),
        (
            LastResort,
            [well(), Seen::TimedOut { failed_in_a_row: 1 }, Seen::Refused { confirmed: false }],
            [0., 1., 1.],
            [1., 0., 0.],
        ),
        (LastResort, [well(), Seen::MonitorDenied("1045".to_owned()), well()], [0., 1., 1.], [1., 1., 1.]),
    ] {
        let text = format!("{writer:?} {states:?}");
        let (reads, writes) = parts(Policy::default(), writer, states);
        assert_eq!((reads, writes), (readers.to_vec(), any.to_vec()), "{text}");
    }
}

#[test]
fn donors_are_readers_as_their_policy_says() {
    for (donor, states, readers) in [
        (Donor::Allow, [well(), donates(), well()], [0., 1., 1.]),
        (Donor::LastResort, [well(), donates(), well()], [0., 0., 1.]),
        (Donor::LastResort, [gone(), donates(), gone()], [0., 1., 0.]),
        (Donor::Avoid, [gone(), donates(), gone()], [0., 0., 0.]),
    ] {
        let policy = Policy { donor, ..Policy::default() };
        assert_eq!(parts(policy, WriterReads::LastResort, states).0, readers, "{donor:?}");
    }
}

#[test]
fn weights_fall_as_connections_and_queue_fill_and_saturation_pours_nothing_onto_the_writer() {
    let queue = |length: u64| Seen::Sample(Signals { recv_queue: Some(length), ..synced(3, &ALL) });
    for (states, readers) in [
        ([well(), used(85), well()], [0., 1., 1.]),
        ([well(), used(90), well()], [0., 0.5, 1.]),
        ([well(), used(94), well()], [0., 0.1, 1.]),
        ([well(), used(95), well()], [0., 0., 1.]),
        ([well(), Seen::Saturated, well()], [0., 0., 1.]),
        // All full: the limit that the data path keeps is enough, and the writer is spared.
        ([well(), used(95), Seen::Saturated], [0., 0.02, 0.02]),
        ([well(), used(99), gone()], [0., 1., 0.]),
        ([well(), queue(7), well()], [0., 1., 1.]),
        ([well(), queue(14), well()], [0., 0.65, 1.]),
        ([well(), queue(28), well()], [0., 0.02, 1.]),
        ([well(), queue(500), gone()], [0., 1., 0.]),
    ] {
        let text = format!("{states:?}");
        let (reads, _) = parts(Policy::default(), WriterReads::LastResort, states);
        let near = reads.iter().zip(readers).all(|(is, wanted)| (is - wanted).abs() < 1e-9);
        assert!(near, "{text}: {reads:?} instead of {readers:?}");
    }
}

#[test]
fn a_full_queue_counts_as_full_until_it_is_half_empty() {
    let mut told = Told::healthy();
    for (second, length, part) in [(1, 28, 0.02), (2, 15, 0.02), (3, 13, 0.7), (4, 15, 0.6), (5, 28, 0.02)] {
        told.sees(second * 1_000, 1, Signals { recv_queue: Some(length), ..synced(3, &ALL) });
        let reads = told.cluster.readers(WriterReads::LastResort);
        assert!((reads[1] - part).abs() < 1e-9, "{length}: {reads:?}");
    }
}

#[test]
fn what_served_before_a_restart_serves_until_it_is_heard() {
    let incumbent = Incumbent { node: "db1".to_owned(), epoch: 7, serving: true, by_hand: false };
    let mut told = Told::new(Policy::default(), three(), Some(incumbent), Moment::START);
    told.cluster.served(1);
    told.cluster.served(2);
    assert_eq!(told.cluster.readers(WriterReads::LastResort), [0., 1., 1.]);
    // A monitor that is not let in says nothing against them.
    (0..3).for_each(|node| told.hears(1, node, Seen::MonitorDenied("1045".to_owned())));
    told.ticks(9_000);
    assert_eq!(told.cluster.readers(WriterReads::LastResort), [0., 1., 1.]);
    told.hears(9_500, 1, gone());
    assert_eq!(told.cluster.readers(WriterReads::LastResort), [0., 0., 1.]);
}

#[test]
fn who_makes_the_cluster_wait_is_found_by_what_it_sends_and_loses_weight_only() {
    let mut told = Told::healthy();
    let mut now = 1_000;
    let mut second = |told: &mut Told, paused_ns: u64, sent: [u64; 3]| {
        now += 1_000;
        for (node, sent) in sent.into_iter().enumerate() {
            let counters = Signals {
                paused_ns: Some(paused_ns),
                pauses_sent: Some(sent),
                conflicts: Some(0),
                ..synced(3, &ALL)
            };
            told.sees(now, node, counters);
        }
    };
    let flow =
        |severe, culprit: Option<&str>| Alarm::FlowControl { severe, culprit: culprit.map(str::to_owned) };
    second(&mut told, 0, [0, 0, 0]);
    // One pause in ten seconds is nobody's fault.
    second(&mut told, 50_000_000, [0, 0, 1]);
    assert_eq!(told.cluster.alarms(), []);
    second(&mut told, 400_000_000, [1, 1, 9]);
    assert_eq!(told.cluster.alarms(), [flow(false, Some("db3"))]);
    assert_eq!(told.cluster.readers(WriterReads::LastResort), [0., 1., 0.02]);
    second(&mut told, 2_400_000_000, [20, 20, 21]);
    assert_eq!(told.cluster.alarms(), [flow(true, None)], "all of them together");
    assert_eq!(told.cluster.readers(WriterReads::LastResort), [0., 1., 1.]);
    assert_eq!((told.cluster.writer(), told.elections().len()), (Some(0), 1));
    (0..12).for_each(|_| second(&mut told, 2_400_000_000, [20, 20, 21]));
    assert_eq!(told.cluster.alarms(), []);
}

#[test]
fn conflicts_are_news_where_one_node_writes() {
    for (expected, alarms) in [(false, 1), (true, 0)] {
        let mut told = Told::healthy();
        told.cluster.expect_conflicts(expected);
        let counted = |conflicts| Signals {
            paused_ns: Some(0),
            pauses_sent: Some(0),
            conflicts: Some(conflicts),
            ..synced(3, &ALL)
        };
        told.sees(1_000, 1, counted(5));
        told.sees(2_000, 1, counted(5));
        assert_eq!(told.cluster.alarms(), []);
        told.sees(3_000, 1, counted(6));
        assert_eq!(told.cluster.alarms().len(), alarms);
        assert!(told.cluster.alarms().iter().all(Alarm::is_warning));
        told.sees(70_000, 1, counted(6));
        assert_eq!(told.cluster.alarms(), []);
    }
}
