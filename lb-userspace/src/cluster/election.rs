//! The election: one writer per cluster, sticky, moved by evidence only.

mod reconfigure;

use std::time::Duration;

use super::node::LastCommitted;
use super::view::{Comparison, View, compare};
use super::{
    Alarm, Donor, Event, How, Incumbent, Kind, Node, NodeStatus, Observation, Outcome, Policy, Readiness,
    Reason, Reprobe,
};
use crate::health::Moment;

/// A cluster's nodes and its one writer.
#[derive(Clone, Debug)]
pub struct Cluster {
    policy: Policy,
    nodes: Vec<NodeStatus>,
    started: Moment,
    /// Every node has been heard of, or the first round has lasted long enough.
    settled: bool,
    /// The cluster's state UUID.
    home: Option<String>,
    incumbent: Option<Incumbent>,
    writer: Option<usize>,
    /// The last view in which the writer was Primary: where its component is looked for when it is gone.
    writer_view: Option<View>,
    /// Since when the writer is in a state that passes by itself as a rule (donor, catching up, an outdated view),
    /// and until when it is given the time.
    impaired: Option<(Moment, Moment)>,
    /// Since when the nodes' views differ.
    differ_since: Option<Moment>,
    /// Since when there is more than one component.
    split_since: Option<Moment>,
    alarms: Vec<Alarm>,
}

/// What is to become of the present writer.
enum Fate {
    Stays,
    /// It cannot write: any candidate is better.
    Out(String),
    /// It had better not write, once a good one stands and views have settled.
    Optional(String),
}

impl Cluster {
    /// A cluster of these nodes, with the writer that a former agent left. A writer that is no longer configured, or
    /// may no longer be one, is not taken over, but its epoch is.
    pub fn new(policy: Policy, nodes: Vec<Node>, restored: Option<Incumbent>, now: Moment) -> Self {
        let may_write = |incumbent: &Incumbent| {
            nodes
                .iter()
                .position(|node| node.name == incumbent.node && node.priority >= 0 && incumbent.serving)
        };
        let writer = restored.as_ref().and_then(may_write);
        Self {
            policy,
            nodes: nodes.into_iter().map(NodeStatus::new).collect(),
            started: now,
            settled: false,
            home: None,
            incumbent: restored,
            writer,
            writer_view: None,
            impaired: None,
            differ_since: None,
            split_since: None,
            alarms: Vec::new(),
        }
    }

    /// The nodes in the order of the configuration.
    pub fn nodes(&self) -> &[NodeStatus] {
        &self.nodes
    }

    /// The writer, by its place in the configuration.
    pub fn writer(&self) -> Option<usize> {
        self.writer
    }

    /// What to keep for the next agent.
    pub fn incumbent(&self) -> Option<&Incumbent> {
        self.incumbent.as_ref()
    }

    /// What needs a person now.
    pub fn alarms(&self) -> &[Alarm] {
        &self.alarms
    }

    /// Takes in what a probe of `node` saw. Unknown nodes and results older than the latest are ignored.
    pub fn observe(&mut self, node: usize, observation: Observation) -> Outcome {
        let Some(status) = self.nodes.get_mut(node) else { return Outcome::default() };
        if status.last.is_some_and(|last| observation.at < last) {
            return Outcome::default();
        }
        let now = observation.at;
        status.last = Some(now);
        let before = status.view.clone();
        status.take(observation.result, &self.policy);
        let mut outcome = Outcome::default();
        if self.view_is_news(node, before.as_ref()) {
            self.reprobe_all(&mut outcome);
        }
        self.evaluate(now, &mut outcome);
        outcome
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Moment) -> Outcome {
        let mut outcome = Outcome::default();
        self.evaluate(now, &mut outcome);
        outcome
    }

    /// Whether a node's view has changed to one that no other node has shown yet. The others follow within their
    /// next probes; without the last condition each of them would have everybody probed again.
    fn view_is_news(&self, node: usize, before: Option<&View>) -> bool {
        let Some(before) = before else { return false };
        let now = self.nodes[node].view.as_ref();
        let key = |view: &View| (view.uuid.clone(), view.conf_id);
        let known = |now: &View| {
            let mut others = self.nodes.iter().enumerate().filter(|(other, _)| *other != node);
            others.any(|(_, status)| status.view.as_ref().is_some_and(|view| key(view) == key(now)))
        };
        now.is_none_or(|now| key(now) != key(before) && !known(now))
    }

    fn reprobe_all(&self, outcome: &mut Outcome) {
        outcome.reprobe = (0..self.nodes.len()).map(|node| Reprobe { node, after: Duration::ZERO }).collect();
    }

    fn evaluate(&mut self, now: Moment, outcome: &mut Outcome) {
        self.settled |=
            self.nodes.iter().all(|node| node.seen) || now.since(self.started) >= self.policy.first_round;
        let views: Vec<Option<&View>> = self.nodes.iter().map(NodeStatus::current_view).collect();
        let comparison = compare(&views, self.home.as_deref());
        if self.settled {
            self.home.clone_from(&comparison.home);
        }
        self.judge(&comparison, outcome);
        self.watch_views(&comparison, now, outcome);
        self.decide(&comparison, now, outcome);
        self.raise_alarms(&comparison, outcome);
        for (node, status) in self.nodes.iter().enumerate() {
            let doubtful = status.suspect || status.verdict.reason == Reason::Stale;
            if doubtful && !outcome.reprobe.iter().any(|reprobe| reprobe.node == node) {
                outcome.reprobe.push(Reprobe { node, after: self.policy.quick });
            }
        }
        outcome.wake = self.wake(now);
    }

    fn judge(&mut self, comparison: &Comparison, outcome: &mut Outcome) {
        for (node, status) in self.nodes.iter_mut().enumerate() {
            let from = status.verdict.readiness;
            // Until the nodes have been heard, nobody can say which cluster is ours.
            status.compared(self.settled && comparison.foreign[node], comparison.stale[node]);
            let to = status.verdict.readiness;
            if from != to {
                let reason = status.verdict.reason.to_string();
                outcome.events.push(Event::ReadinessChanged { node, from, to, reason });
            }
        }
    }

    fn watch_views(&mut self, comparison: &Comparison, now: Moment, outcome: &mut Outcome) {
        self.differ_since = if comparison.agreed { None } else { self.differ_since.or(Some(now)) };
        if comparison.components < 2 {
            self.split_since = None;
        } else if self.split_since.is_none() {
            self.split_since = Some(now);
            self.reprobe_all(outcome);
        }
        let writer_view = self.writer.and_then(|writer| self.nodes[writer].view.as_ref());
        if let Some(view) = writer_view {
            self.writer_view = Some(view.clone());
        }
    }

    fn decide(&mut self, comparison: &Comparison, now: Moment, outcome: &mut Outcome) {
        let Some(writer) = self.writer else {
            if let Some(node) = self.candidate(comparison, None, Rank::Donor) {
                let reason = format!("the first candidate that stands ({})", self.nodes[node].verdict.reason);
                self.elect(node, How::First, reason, outcome);
            }
            return;
        };
        match self.fate(writer, now) {
            Fate::Stays => {}
            Fate::Out(reason) => match self.candidate(comparison, Some(writer), Rank::Donor) {
                Some(node) => self.elect(node, How::Failover, reason, outcome),
                None => self.lose(writer, reason, outcome),
            },
            Fate::Optional(reason) => {
                let waits = |since: Moment| now.since(since) < self.policy.view_change;
                if self.differ_since.is_some_and(waits) {
                    return;
                }
                if let Some(node) = self.candidate(comparison, Some(writer), Rank::Good) {
                    self.elect(node, How::Planned, reason, outcome);
                }
            }
        }
    }

    /// What the writer's own state asks for.
    fn fate(&mut self, writer: usize, now: Moment) -> Fate {
        let NodeStatus { verdict, node, .. } = &self.nodes[writer];
        let reason = format!("{}: {}", node.name, verdict.reason);
        let grace = match verdict.reason {
            Reason::Donor | Reason::DonorRejects | Reason::Joined => Some(self.policy.donor_grace),
            Reason::Stale => Some(self.policy.view_change),
            _ => None,
        };
        let since = self.impaired.map_or(now, |(since, _)| since);
        self.impaired =
            grace.filter(|_| verdict.readiness == Readiness::NoNew).map(|grace| (since, since + grace));
        match verdict.readiness {
            Readiness::Out | Readiness::Reader => Fate::Out(reason),
            Readiness::NoNew if verdict.reason == Reason::SaturatedReader => Fate::Out(reason),
            Readiness::NoNew if verdict.reason == Reason::Saturated => Fate::Stays,
            Readiness::NoNew if self.impaired.is_none_or(|(_, until)| now >= until) => Fate::Optional(reason),
            Readiness::NoNew | Readiness::Unknown | Readiness::Writer => Fate::Stays,
        }
    }

    /// The best node to become the writer, of at least this rank, within the component that may elect.
    fn candidate(&self, comparison: &Comparison, besides: Option<usize>, least: Rank) -> Option<usize> {
        if !self.settled {
            return None;
        }
        let component = self.electing_component(comparison);
        let stands = |node: usize| match self.policy.kind {
            Kind::Mysql => true,
            Kind::Galera => comparison.component[node].is_some() && comparison.component[node] == component,
        };
        let before = self.incumbent.as_ref().map(|incumbent| incumbent.node.as_str());
        (0..self.nodes.len())
            .filter(|node| Some(*node) != besides && stands(*node))
            .filter_map(|index| {
                let status = &self.nodes[index];
                let rank = self.rank(status).filter(|rank| *rank <= least)?;
                let moves = before != Some(status.name());
                Some((rank, moves, status.node.priority, index))
            })
            .min()
            .map(|(.., index)| index)
    }

    fn rank(&self, status: &NodeStatus) -> Option<Rank> {
        if status.suspect || status.node.priority < 0 {
            return None;
        }
        match (status.verdict.readiness, &status.verdict.reason) {
            (Readiness::Writer, _) => Some(Rank::Good),
            (Readiness::NoNew, Reason::Saturated) => Some(Rank::Saturated),
            (Readiness::NoNew, Reason::DesyncedByHand) => Some(Rank::Desynced),
            (Readiness::NoNew, Reason::Donor) if self.policy.donor == Donor::LastResort => Some(Rank::Donor),
            _ => None,
        }
    }

    /// The component whose nodes may become the writer: the only one, or in a split brain the one that the writer is
    /// in, or was in last. Where that cannot be told, none.
    fn electing_component(&self, comparison: &Comparison) -> Option<usize> {
        if comparison.components < 2 {
            return (comparison.components == 1).then_some(0);
        }
        if let Some(component) = self.writer.and_then(|writer| comparison.component[writer]) {
            return Some(component);
        }
        let was_in = self.writer_view.as_ref()?;
        let overlaps = |component: &usize| {
            let mut members =
                self.nodes.iter().zip(&comparison.component).filter(|(_, c)| *c == &Some(*component));
            members.any(|(node, _)| node.current_view().is_some_and(|view| view.overlaps(was_in)))
        };
        let mut same = (0..comparison.components).filter(overlaps);
        same.next().filter(|_| same.next().is_none())
    }

    fn elect(&mut self, node: usize, how: How, reason: String, outcome: &mut Outcome) {
        let epoch = self.incumbent.as_ref().map_or(0, |incumbent| incumbent.epoch) + 1;
        self.incumbent = Some(Incumbent { node: self.nodes[node].name().to_owned(), epoch, serving: true });
        self.writer = Some(node);
        self.writer_view.clone_from(&self.nodes[node].view);
        self.impaired = None;
        outcome.events.push(Event::WriterElected { node, epoch, how, reason });
    }

    fn lose(&mut self, node: usize, reason: String, outcome: &mut Outcome) {
        self.writer = None;
        self.impaired = None;
        if let Some(incumbent) = &mut self.incumbent {
            incumbent.serving = false;
        }
        outcome.events.push(Event::WriterLost { node, reason });
    }

    fn raise_alarms(&mut self, comparison: &Comparison, outcome: &mut Outcome) {
        let mut alarms = Vec::new();
        for status in &self.nodes {
            let node = status.name().to_owned();
            if let Some(text) = &status.denied {
                alarms.push(Alarm::MonitorDenied { node: node.clone(), text: text.clone() });
            }
            if status.verdict.reason == Reason::Foreign {
                alarms.push(Alarm::ForeignCluster { node });
            }
        }
        if self.split_is_confirmed(comparison) {
            alarms.push(Alarm::SplitBrain);
        }
        alarms.extend(self.nobody_is_primary());
        let raised = alarms.iter().filter(|alarm| !self.alarms.contains(alarm)).cloned();
        outcome.events.extend(raised.map(Event::AlarmRaised));
        let cleared = self.alarms.iter().filter(|alarm| !alarms.contains(alarm)).cloned();
        outcome.events.extend(cleared.map(Event::AlarmCleared));
        self.alarms = alarms;
    }

    /// A split counts once every node in it has been heard again since it was first seen.
    fn split_is_confirmed(&self, comparison: &Comparison) -> bool {
        let Some(since) = self.split_since else { return false };
        let again = |node: &NodeStatus| node.last.is_some_and(|last| last > since);
        self.nodes
            .iter()
            .zip(&comparison.component)
            .all(|(node, component)| component.is_none() || again(node))
    }

    fn nobody_is_primary(&self) -> Option<Alarm> {
        if !self.settled || self.nodes.iter().any(|node| node.view.is_some()) {
            return None;
        }
        let committed =
            |node: &NodeStatus| node.non_primary.map(|committed| (committed, node.name().to_owned()));
        // The first of the highest: `max_by_key` would return the last.
        let highest = self.nodes.iter().rev().filter_map(committed).max_by_key(|(committed, _)| *committed);
        highest.map(|(LastCommitted(last_committed), node)| Alarm::NobodyPrimary { node, last_committed })
    }

    fn wake(&self, now: Moment) -> Option<Moment> {
        let first = (!self.settled).then(|| self.started + self.policy.first_round);
        let grace = self.impaired.map(|(_, until)| until);
        let views = self.differ_since.map(|since| since + self.policy.view_change);
        [first, grace, views].into_iter().flatten().filter(|at| *at > now).min()
    }
}

/// How good a candidate is; the order of last resorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Good,
    Saturated,
    Desynced,
    Donor,
}
