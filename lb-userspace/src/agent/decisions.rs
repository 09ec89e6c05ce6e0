//! What an election decides, and what shows it, as entries of the journal.

use super::clusters::Galera;
use crate::{
    api::{Entry, Topic},
    cluster::{self, How},
    probe::galera::{ClusterStatus as Component, Replication, Sample},
};

/// An entry for each decision.
pub(super) fn elected(cluster: &Galera, event: &cluster::Event) -> Entry {
    let owner = &cluster.name;
    let name = |index: usize| cluster.members.get(index).map_or("?", |member| member.name.as_str());
    let shown = |index: usize| {
        cluster.members.get(index).and_then(|member| member.sample.as_ref()).map(seen).unwrap_or_default()
    };
    match event {
        cluster::Event::WriterElected { node, epoch, how, reason } => {
            let how = match how {
                How::First => "elected",
                How::Failover => "elected after a failure",
                How::Planned => "elected by plan",
            };
            let what = format!("writer {}, epoch {epoch}, {how}", name(*node));
            Entry::new(Topic::Writer, owner, what).because(reason).shown_by(shown(*node))
        }
        cluster::Event::WriterLost { node, reason } => {
            let what = format!("no writer: {} is out", name(*node));
            Entry::new(Topic::Writer, owner, what).because(reason).error()
        }
        cluster::Event::ReadinessChanged { node, from, to, reason } => {
            let what = format!("{from:?} → {to:?}");
            let entry = Entry::new(Topic::Node, format!("{owner}/{}", name(*node)), what);
            entry.because(reason).shown_by(shown(*node))
        }
        cluster::Event::AlarmRaised(alarm) if alarm.is_warning() => {
            Entry::new(Topic::Alarm, owner, alarm.to_string()).warning()
        }
        cluster::Event::AlarmRaised(alarm) => Entry::new(Topic::Alarm, owner, alarm.to_string()).error(),
        cluster::Event::AlarmCleared(alarm) => {
            Entry::new(Topic::Alarm, owner, "over").because(alarm.to_string())
        }
    }
}

/// What a sample shows, in the server's own words.
pub(super) fn seen(sample: &Sample) -> String {
    let mut words = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        words.extend(value.map(|value| format!("{name} {value}")));
    };
    let component = sample.cluster_status.map(|status| match status {
        Component::Primary => "Primary",
        Component::NonPrimary => "non-Primary",
        Component::Disconnected => "Disconnected",
    });
    let switch = |on: bool| if on { "ON" } else { "OFF" }.to_owned();
    add("wsrep_cluster_status", component.map(str::to_owned));
    add("wsrep_local_state", sample.local_state_comment.clone());
    add("wsrep_ready", sample.ready.map(switch));
    add("conf_id", sample.conf_id.map(|id| id.to_string()));
    add("recv_queue", sample.recv_queue.map(|queue| queue.to_string()));
    add("threads_connected", sample.threads_connected.map(|threads| threads.to_string()));
    add("read_only", sample.read_only.then(|| switch(true)));
    if let Replication::Replica { lag } = &sample.replication {
        // As the server says it while it does not replicate.
        let behind = lag.map_or("NULL".to_owned(), |seconds| seconds.to_string());
        add("Seconds_Behind_Master", Some(behind));
    }
    words.join(", ")
}
