//! Galera's signals as a table, the election as stories, and both against random histories.

mod any_order;
mod orders;
mod plain;
mod shares;
mod signals;
mod stories;
mod views;

use super::*;
use crate::health::Moment;

/// The UUID of the cluster in these tests.
const UUID: &str = "5e3a9b1e-0000-11ee-8000-000000000001";

fn at(millis: u64) -> Moment {
    Moment::at(Duration::from_millis(millis))
}

/// The address by which node `index` is known to its peers.
fn address(index: usize) -> String {
    format!("10.0.1.{}:3306", index + 1)
}

/// What a healthy node says in a view of these members.
fn synced(conf_id: u64, members: &[usize]) -> Signals {
    Signals {
        primary: Some(true),
        ready: Some(true),
        connected: Some(true),
        local_state: Some(4),
        threads_connected: Some(10),
        max_connections: Some(100),
        recv_queue: Some(0),
        fc_limit: Some(28.0),
        state_uuid: Some(UUID.to_owned()),
        conf_id: Some(conf_id),
        members: members.iter().map(|index| address(*index)).collect(),
        cluster_size: Some(members.len() as u32),
        last_committed: Some(1_000),
        ..Signals::default()
    }
}

/// What a node in a minority says.
fn isolated(last_committed: u64) -> Signals {
    Signals {
        primary: Some(false),
        ready: Some(false),
        local_state: Some(0),
        conf_id: None,
        members: Vec::new(),
        cluster_size: Some(1),
        last_committed: Some(last_committed),
        ..synced(0, &[])
    }
}

fn donor(conf_id: u64, members: &[usize]) -> Signals {
    Signals { local_state: Some(2), ..synced(conf_id, members) }
}

/// db1, db2 and db3, in this order of priority.
fn three() -> Vec<Node> {
    (1..=3).map(|number| Node { name: format!("db{number}"), priority: number }).collect()
}

/// A cluster with the helpers that stories are told with.
struct Told {
    cluster: Cluster,
    events: Vec<Event>,
    reprobe: Vec<Reprobe>,
}

impl Told {
    fn new(policy: Policy, nodes: Vec<Node>, restored: Option<Incumbent>, now: Moment) -> Self {
        Self { cluster: Cluster::new(policy, nodes, restored, now), events: Vec::new(), reprobe: Vec::new() }
    }

    /// Three nodes, all healthy at 0 s, so db1 is the writer.
    fn healthy() -> Self {
        let mut told = Self::new(Policy::default(), three(), None, Moment::START);
        (0..3).for_each(|node| told.sees(0, node, synced(3, &[0, 1, 2])));
        assert_eq!(told.elections(), [(0, 1, How::First)]);
        told
    }

    fn hears(&mut self, millis: u64, node: usize, result: Seen) {
        let outcome = self.cluster.observe(node, Observation { result, at: at(millis) });
        self.events.extend(outcome.events);
        self.reprobe = outcome.reprobe;
    }

    fn sees(&mut self, millis: u64, node: usize, signals: Signals) {
        self.hears(millis, node, Seen::Sample(signals));
    }

    fn ticks(&mut self, millis: u64) -> Option<Moment> {
        let outcome = self.cluster.tick(at(millis));
        self.events.extend(outcome.events);
        outcome.wake
    }

    /// All elections so far: node, epoch and how.
    fn elections(&self) -> Vec<(usize, u64, How)> {
        let election = |event: &Event| match event {
            Event::WriterElected { node, epoch, how, .. } => Some((*node, *epoch, *how)),
            _ => None,
        };
        self.events.iter().filter_map(election).collect()
    }

    fn readiness(&self, node: usize) -> Readiness {
        self.cluster.nodes()[node].judgement().readiness
    }

    fn reason(&self, node: usize) -> Reason {
        self.cluster.nodes()[node].judgement().reason.clone()
    }

    fn reprobes(&self) -> Vec<(usize, u128)> {
        self.reprobe.iter().map(|reprobe| (reprobe.node, reprobe.after.as_millis())).collect()
    }
}
