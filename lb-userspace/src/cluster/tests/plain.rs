//! Servers without Galera: one is written to, the others replicate from it.

use super::*;

fn plain() -> Signals {
    Signals {
        max_connections: Some(100),
        threads_connected: Some(1),
        replication: Replication::Source,
        ..Signals::default()
    }
}

fn replica(lag: Option<u64>) -> Signals {
    Signals { replication: Replication::Replica { lag }, ..plain() }
}

fn reads_only() -> Signals {
    Signals { read_only: true, ..plain() }
}

fn policy() -> Policy {
    Policy { kind: Kind::Mysql, max_lag: Some(Duration::from_secs(10)), ..Policy::default() }
}

#[test]
fn every_signal_of_a_plain_server_has_its_readiness() {
    use Readiness::{NoNew, Out, Reader, Writer};
    let lagging = Before { lagging: true, ..Before::default() };
    let none = Before::default();
    for (signals, before, readiness, reason) in [
        (plain(), none, Writer, Reason::Writable),
        (reads_only(), none, Reader, Reason::ReadOnly),
        (replica(Some(0)), none, Reader, Reason::Replica),
        (Signals { read_only: true, ..replica(Some(0)) }, none, Reader, Reason::Replica),
        (replica(Some(10)), none, Reader, Reason::Replica),
        (replica(Some(11)), none, NoNew, Reason::Lags(11)),
        (replica(Some(6)), lagging, NoNew, Reason::Lags(6)),
        (replica(Some(5)), lagging, Reader, Reason::Replica),
        (replica(None), none, NoNew, Reason::ReplicationStopped),
        (Signals { maintenance: true, ..plain() }, none, NoNew, Reason::Maintenance),
        (Signals { threads_connected: Some(95), ..plain() }, none, NoNew, Reason::Saturated),
        (Signals { threads_connected: Some(95), ..replica(Some(0)) }, none, NoNew, Reason::SaturatedReader),
        (
            Signals { reject_queries: RejectQueries::All, ..plain() },
            none,
            Out,
            Reason::RejectsQueries(RejectQueries::All),
        ),
        // What belongs to Galera says nothing here.
        (Signals { primary: Some(false), local_state: Some(0), ..plain() }, none, Writer, Reason::Writable),
        (
            Signals { replication: Replication::Forbidden(String::new()), ..plain() },
            none,
            Writer,
            Reason::Writable,
        ),
    ] {
        let judged = classify(&signals, &policy(), before);
        assert_eq!((judged.readiness, judged.reason), (readiness, reason), "{signals:?}");
    }
    let whatever = Policy { max_lag: None, ..policy() };
    for lag in [Some(100_000), None] {
        assert_eq!(classify(&replica(lag), &whatever, none).readiness, Reader, "{lag:?}");
    }
}

#[test]
fn the_writer_is_the_one_that_can_be_written_to_and_follows_a_promotion() {
    let mut told = Told::new(policy(), three(), None, Moment::START);
    told.sees(0, 0, replica(Some(0)));
    told.sees(0, 1, plain());
    told.sees(0, 2, replica(Some(0)));
    assert_eq!(told.elections(), [(1, 1, How::First)]);
    assert_eq!(told.cluster.readers(WriterReads::LastResort), [1., 0., 1.]);
    // The source dies; nobody may write until a replica has been promoted.
    told.hears(1_000, 1, Seen::Refused { confirmed: true });
    assert_eq!(told.cluster.writer(), None);
    told.sees(5_000, 2, plain());
    assert_eq!(told.elections().last(), Some(&(2, 2, How::First)));
    // The former source is back and still thinks that it is one: the incumbent stays, and somebody is told.
    told.sees(6_000, 1, plain());
    assert_eq!(told.cluster.writer(), Some(2));
    let nodes = vec!["db2".to_owned(), "db3".to_owned()];
    assert_eq!(told.cluster.alarms(), [Alarm::SeveralWritable { nodes }]);
    told.sees(7_000, 1, reads_only());
    assert_eq!(told.cluster.alarms(), []);
    // A planned change: the incumbent becomes read_only, another one writable.
    told.sees(8_000, 2, reads_only());
    assert_eq!(told.cluster.writer(), None);
    told.sees(8_500, 0, plain());
    assert_eq!(told.elections().last(), Some(&(0, 3, How::First)));
}

#[test]
fn replicas_that_lag_are_read_from_only_if_nobody_else_is_left() {
    let mut told = Told::new(policy(), three(), None, Moment::START);
    told.sees(0, 0, plain());
    told.sees(0, 1, replica(Some(60)));
    told.sees(0, 2, replica(Some(1)));
    assert_eq!(told.cluster.readers(WriterReads::LastResort), [0., 0., 1.]);
    told.sees(1_000, 2, replica(None));
    assert_eq!(told.cluster.readers(WriterReads::LastResort), [1., 0., 0.]);
    assert_eq!(told.cluster.readers(WriterReads::Never), [0., 1., 1.]);
}

#[test]
fn a_monitor_that_may_not_ask_about_replication_is_told_what_to_type() {
    let mut told = Told::new(policy(), three(), None, Moment::START);
    let grant = "GRANT REPLICA MONITOR ON *.* TO 'lb'@'10.%'";
    told.sees(0, 0, Signals { replication: Replication::Forbidden(grant.to_owned()), ..plain() });
    let [alarm] = told.cluster.alarms() else { panic!("{:?}", told.cluster.alarms()) };
    assert!(alarm.to_string().contains(grant), "{alarm}");
}

#[test]
fn a_saturated_replica_is_no_candidate_and_a_saturated_writer_stays() {
    let mut told = Told::new(policy(), three(), None, Moment::START);
    told.sees(0, 0, plain());
    told.sees(0, 1, replica(Some(0)));
    told.hears(0, 2, Seen::Saturated);
    told.hears(1_000, 0, Seen::Saturated);
    told.hears(1_000, 1, Seen::Saturated);
    assert_eq!((told.cluster.writer(), told.elections().len()), (Some(0), 1));
    told.hears(2_000, 0, Seen::Refused { confirmed: true });
    assert_eq!(told.cluster.writer(), None);
}
