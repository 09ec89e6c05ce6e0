//! Each signal by itself: a healthy node with one thing changed.

use super::*;
use Readiness::{NoNew, Out, Reader, Writer};

/// What is changed, and what becomes of the node.
type Row = (&'static str, fn(&mut Signals), Readiness, Reason);

const ROWS: [Row; 25] = [
    ("healthy", |_| {}, Writer, Reason::Synced),
    ("not primary", |s| s.primary = Some(false), Out, Reason::NotPrimary),
    ("no wsrep", |s| s.primary = None, Out, Reason::NoWsrep),
    ("not ready", |s| s.ready = Some(false), Out, Reason::NotReady),
    ("ready unknown", |s| s.ready = None, Out, Reason::NotReady),
    ("not connected", |s| s.connected = Some(false), Out, Reason::Disconnected),
    ("undefined", |s| s.local_state = Some(0), Out, Reason::State(Some(0))),
    ("joining", |s| s.local_state = Some(1), Out, Reason::State(Some(1))),
    ("donor", |s| s.local_state = Some(2), NoNew, Reason::Donor),
    ("joined", |s| s.local_state = Some(3), NoNew, Reason::Joined),
    ("error", |s| s.local_state = Some(5), Out, Reason::State(Some(5))),
    ("no state", |s| s.local_state = None, Out, Reason::State(None)),
    ("desynced, still synced", |s| s.desync = true, NoNew, Reason::DesyncedByHand),
    ("desynced by hand", |s| (s.desync, s.local_state) = (true, Some(2)), NoNew, Reason::DesyncedByHand),
    ("rejects", |s| s.reject_queries = RejectQueries::All, Out, Reason::RejectsQueries(RejectQueries::All)),
    (
        "rejects and cuts",
        |s| s.reject_queries = RejectQueries::AllKill,
        Out,
        Reason::RejectsQueries(RejectQueries::AllKill),
    ),
    ("would reject as donor", |s| s.sst_donor_rejects = true, Writer, Reason::Synced),
    (
        "rejects as donor",
        |s| (s.sst_donor_rejects, s.local_state) = (true, Some(2)),
        NoNew,
        Reason::DonorRejects,
    ),
    ("read only", |s| s.read_only = true, Reader, Reason::ReadOnly),
    ("maintenance", |s| s.maintenance = true, NoNew, Reason::Maintenance),
    ("nearly saturated", |s| s.threads_connected = Some(94), Writer, Reason::Synced),
    ("saturated", |s| s.threads_connected = Some(95), NoNew, Reason::Saturated),
    ("connections unknown", |s| s.threads_connected = None, Writer, Reason::Synced),
    ("no limit", |s| s.max_connections = Some(0), Writer, Reason::Synced),
    ("long queue", |s| s.recv_queue = Some(10_000), Writer, Reason::Synced),
];

#[test]
fn every_signal_has_its_readiness() {
    for (name, change, readiness, reason) in ROWS {
        let mut signals = synced(3, &[0, 1, 2]);
        change(&mut signals);
        let judged = classify(&signals, &Policy::default(), Before::default());
        assert_eq!((judged.readiness, &judged.reason), (readiness, &reason), "{name}");
        let cuts = reason == Reason::RejectsQueries(RejectQueries::AllKill);
        assert_eq!(judged.cut, cuts, "{name}");
        assert!(!judged.reason.to_string().is_empty());
    }
}

#[test]
fn a_worse_signal_wins_over_a_better_one() {
    for (name, change, readiness, _) in ROWS {
        for (other_name, other_change, other, _) in ROWS {
            // What only counts in one state, or takes the sense from another signal, is no worse or better by itself.
            let dependent =
                |name: &str| ["donor", "unknown", "no limit"].iter().any(|word| name.contains(word));
            let mut signals = synced(3, &[0, 1, 2]);
            change(&mut signals);
            let once = signals.clone();
            other_change(&mut signals);
            let mut alone = synced(3, &[0, 1, 2]);
            other_change(&mut alone);
            let both_show = {
                let mut back = signals.clone();
                change(&mut back);
                back == signals && once != signals
            };
            if both_show && !dependent(name) && !dependent(other_name) {
                let judged = classify(&signals, &Policy::default(), Before::default()).readiness;
                assert_eq!(judged, readiness.max(other), "{name} and {other_name}");
            }
        }
    }
}

#[test]
fn donors_follow_the_policy() {
    let rejects = Signals { sst_donor_rejects: true, ..donor(3, &[0]) };
    for (policy, signals, readiness) in [
        (Donor::LastResort, donor(3, &[0]), NoNew),
        (Donor::Avoid, donor(3, &[0]), NoNew),
        (Donor::Allow, donor(3, &[0]), Writer),
        (Donor::Allow, rejects, NoNew),
        (Donor::Allow, Signals { read_only: true, ..donor(3, &[0]) }, Reader),
        (Donor::Allow, Signals { desync: true, ..donor(3, &[0]) }, NoNew),
    ] {
        let policy = Policy { donor: policy, ..Policy::default() };
        assert_eq!(
            classify(&signals, &policy, Before::default()).readiness,
            readiness,
            "{policy:?} {signals:?}"
        );
    }
}

#[test]
fn saturation_begins_at_95_and_ends_below_90() {
    let policy = Policy::default();
    for (connected, before, readiness) in
        [(94, false, Writer), (95, false, NoNew), (92, true, NoNew), (90, true, NoNew), (89, true, Writer)]
    {
        let signals = Signals { threads_connected: Some(connected), ..synced(3, &[0]) };
        assert_eq!(
            classify(&signals, &policy, Before { saturated: before, lagging: false }).readiness,
            readiness,
            "{connected} {before}"
        );
    }
}

#[test]
fn a_server_without_galera_is_judged_by_what_it_has() {
    let policy = Policy { kind: Kind::Mysql, ..Policy::default() };
    let plain = Signals { max_connections: Some(100), threads_connected: Some(1), ..Signals::default() };
    for (signals, readiness) in [
        (plain.clone(), Writer),
        (Signals { read_only: true, ..plain.clone() }, Reader),
        (Signals { maintenance: true, ..plain.clone() }, NoNew),
        (Signals { threads_connected: Some(99), ..plain }, NoNew),
    ] {
        assert_eq!(classify(&signals, &policy, Before::default()).readiness, readiness, "{signals:?}");
    }
}
