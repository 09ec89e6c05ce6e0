//! The election: one writer per cluster, sticky, moved by evidence only.

mod reconfigure;

use std::time::Duration;

use super::candidate::Rank;
use super::flow::{Counted, Flow};
use super::node::Place;
use super::view::{Comparison, View, compare};
use super::{
    Alarm, Event, How, Incumbent, Node, NodeStatus, Observation, Outcome, Policy, Readiness, Reason, Reprobe,
};
use crate::health::Moment;

/// A cluster's nodes and its one writer.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub(super) policy: Policy,
    pub(super) nodes: Vec<NodeStatus>,
    started: Moment,
    /// Every node has been heard of, or the first round has lasted long enough.
    pub(super) settled: bool,
    /// The cluster's state UUID.
    pub(super) home: Option<String>,
    pub(super) incumbent: Option<Incumbent>,
    pub(super) writer: Option<usize>,
    /// The role does not move by itself.
    pub(super) frozen: bool,
    /// In a split brain, a node of the group that an operator takes for the cluster.
    pub(super) accepted: Option<usize>,
    pub(super) flow: Flow,
    /// The last view in which the writer was Primary: where its component is looked for when it is gone.
    pub(super) writer_view: Option<View>,
    /// Since when the writer is in a state that passes by itself as a rule (donor, catching up, an outdated view),
    /// and until when it is given the time.
    impaired: Option<(Moment, Moment)>,
    /// Since when the nodes' views differ.
    differ_since: Option<Moment>,
    /// Since when there is more than one component.
    pub(super) split_since: Option<Moment>,
    pub(super) alarms: Vec<Alarm>,
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
            frozen: false,
            accepted: None,
            flow: Flow::default(),
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

    /// Says that a node took connections when the last agent ended: it goes on to until it is heard.
    pub fn served(&mut self, node: usize) {
        if let Some(status) = self.nodes.get_mut(node) {
            status.served = true;
        }
    }

    /// Says whether several nodes are written to, so that their conflicts are no news.
    pub fn expect_conflicts(&mut self, expected: bool) {
        self.policy.many_writers = expected;
    }

    /// Whether every node has been judged.
    pub fn knows_all(&self) -> bool {
        self.nodes.iter().all(|node| node.verdict.readiness != Readiness::Unknown)
    }

    /// The part of the last ten seconds that the cluster has waited for its slowest node, 0 to 1.
    pub fn paused(&self) -> f64 {
        self.flow.paused
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
        status.take(observation.result, &self.policy, now);
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
        let known = |now: &View| {
            let mut others = self.nodes.iter().enumerate().filter(|(other, _)| *other != node);
            others.any(|(_, status)| status.view.as_ref().is_some_and(|view| view.key() == now.key()))
        };
        now.is_none_or(|now| now.key() != before.key() && !known(now))
    }

    fn reprobe_all(&self, outcome: &mut Outcome) {
        outcome.reprobe = (0..self.nodes.len()).map(|node| Reprobe { node, after: Duration::ZERO }).collect();
    }

    pub(super) fn compared(&self) -> Comparison {
        let views: Vec<Option<&View>> = self.nodes.iter().map(NodeStatus::current_view).collect();
        // After a restart, the cluster is the one that its writer is in.
        let writer = self.writer.and_then(|writer| views[writer]).and_then(|view| view.uuid.as_deref());
        compare(&views, self.home.as_deref().or(writer))
    }

    pub(super) fn evaluate(&mut self, now: Moment, outcome: &mut Outcome) {
        self.settled |=
            self.nodes.iter().all(|node| node.seen) || now.since(self.started) >= self.policy.first_round;
        let comparison = self.compared();
        if self.settled {
            self.home.clone_from(&comparison.home);
        }
        self.watch_views(&comparison, now, outcome);
        self.judge(&comparison, now, outcome);
        let counted: Vec<&Counted> = self.nodes.iter().map(|node| &node.counted).collect();
        self.flow.look(&counted, now);
        self.decide(&comparison, now, outcome);
        self.raise_alarms(&comparison, now, outcome);
        for (node, status) in self.nodes.iter().enumerate() {
            let doubtful = status.suspect || comparison.stale[node];
            if doubtful && !outcome.reprobe.iter().any(|reprobe| reprobe.node == node) {
                outcome.reprobe.push(Reprobe { node, after: self.policy.quick });
            }
        }
        outcome.wake = self.wake(now);
    }

    /// Where each node stands. Until the nodes have been heard, nobody can say which cluster is ours.
    fn places(&self, comparison: &Comparison) -> Vec<Place> {
        let split = self.split_is_confirmed(comparison);
        let ours = self.electing_component(comparison);
        let place = |node: usize| match comparison.component[node] {
            _ if self.settled && comparison.foreign[node] => Place::Foreign,
            _ if comparison.stale[node] && self.is_outdated(node) => Place::Stale,
            Some(_) if split && ours.is_none() => Place::Undecided,
            Some(component) if split && ours != Some(component) => Place::OtherSide,
            _ => Place::Inside,
        };
        (0..self.nodes.len()).map(place).collect()
    }

    /// Whether a node still shows its view when another one has shown the next for a while. All nodes take a new view at
    /// about the same time, and are not asked at the same time. Who has been out gets no such benefit.
    fn is_outdated(&self, node: usize) -> bool {
        let status = &self.nodes[node];
        let (Some(mine), Some((_, last))) = (status.current_view(), status.shown) else { return false };
        let was_out = status.verdict.readiness == Readiness::Out;
        let patience = if was_out { Duration::ZERO } else { self.policy.quick };
        self.nodes.iter().any(|other| {
            let (Some(view), Some((since, _))) = (other.current_view(), other.shown) else { return false };
            mine.is_before(view) && last.since(since) >= patience
        })
    }

    fn judge(&mut self, comparison: &Comparison, now: Moment, outcome: &mut Outcome) {
        let places = self.places(comparison);
        for (node, (status, place)) in self.nodes.iter_mut().zip(places).enumerate() {
            let from = status.verdict.readiness;
            status.compared(place, now);
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
            self.accepted = None;
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
            let candidate = self.candidate(comparison, None, Rank::Donor);
            if let Some(node) = candidate.filter(|node| !self.frozen || self.had_the_role(*node)) {
                let reason = format!("the first candidate that stands ({})", self.nodes[node].verdict.reason);
                self.elect(node, How::First, reason, outcome);
            }
            return;
        };
        let waits = |since: Moment| now.since(since) < self.policy.view_change;
        let views_differ = self.differ_since.is_some_and(waits);
        match self.fate(writer, now) {
            Fate::Stays if views_differ || self.frozen => {}
            Fate::Stays => {
                if let Some(node) = self.better(comparison, writer, now) {
                    let reason =
                        format!("{} is preferred and has been well for a while", self.nodes[node].name());
                    self.elect(node, How::Planned, reason, outcome);
                }
            }
            Fate::Out(reason) if self.frozen => self.lose(writer, reason, outcome),
            Fate::Out(reason) => match self.candidate(comparison, Some(writer), Rank::Donor) {
                Some(node) => self.elect(node, How::Failover, reason, outcome),
                None => self.lose(writer, reason, outcome),
            },
            Fate::Optional(_) if views_differ || self.frozen => {}
            Fate::Optional(reason) => {
                if let Some(node) = self.candidate(comparison, Some(writer), Rank::Good) {
                    self.elect(node, How::Planned, reason, outcome);
                }
            }
        }
    }

    /// What the writer's own state asks for.
    fn fate(&mut self, writer: usize, now: Moment) -> Fate {
        let NodeStatus { verdict, node, fresh, .. } = &self.nodes[writer];
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
            // Full, or not to be asked: what it said before is no reason to move anything now.
            Readiness::NoNew if !*fresh => Fate::Stays,
            Readiness::NoNew
                if matches!(
                    verdict.reason,
                    Reason::SaturatedReader
                        | Reason::OtherSide
                        | Reason::Lags(_)
                        | Reason::ReplicationStopped
                ) =>
            {
                Fate::Out(reason)
            }
            Readiness::NoNew if verdict.reason == Reason::Saturated => Fate::Stays,
            Readiness::NoNew if self.impaired.is_none_or(|(_, until)| now >= until) => Fate::Optional(reason),
            Readiness::NoNew | Readiness::Unknown | Readiness::Writer => Fate::Stays,
        }
    }

    pub(super) fn elect(&mut self, node: usize, how: How, reason: String, outcome: &mut Outcome) {
        let epoch = self.incumbent.as_ref().map_or(0, |incumbent| incumbent.epoch) + 1;
        self.incumbent = Some(Incumbent {
            node: self.nodes[node].name().to_owned(),
            epoch,
            serving: true,
            by_hand: false,
        });
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

    fn wake(&self, now: Moment) -> Option<Moment> {
        let first = (!self.settled).then(|| self.started + self.policy.first_round);
        let grace = self.impaired.map(|(_, until)| until);
        let views = self.differ_since.map(|since| since + self.policy.view_change);
        let rested = self.policy.fail_back.and_then(|rest| {
            self.nodes.iter().filter_map(|node| Some(node.good_since? + rest)).filter(|at| *at > now).min()
        });
        [first, grace, views, rested].into_iter().flatten().filter(|at| *at > now).min()
    }
}
