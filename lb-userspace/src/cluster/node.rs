//! What is remembered of one node.

use super::flow::Counted;
use super::share::QUEUE_SHORT;
use super::view::View;
use super::{Before, Judgement, Kind, Node, Policy, Readiness, Reason, Replication, Seen, Signals, classify};
use crate::health::Moment;

/// How far a node that is not Primary has got, if it says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LastCommitted(pub(super) Option<u64>);

/// One node's state.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "they vary independently of each other")]
pub struct NodeStatus {
    pub(super) node: Node,
    /// What the latest evidence from the node itself says.
    pub(super) own: Judgement,
    /// The same after comparison with the others.
    pub(super) verdict: Judgement,
    /// When it was last heard of.
    pub(super) last: Option<Moment>,
    /// There has been a result that says something.
    pub(super) seen: bool,
    /// The latest result was a failure that still has to be confirmed.
    pub(super) suspect: bool,
    pub(super) saturated: bool,
    /// A sample has said that it may be used for something, and none since that it may not.
    pub(super) proven: bool,
    /// It took connections when the last agent ended, and has not been heard since.
    pub(super) served: bool,
    /// The part of `max_connections` in use.
    pub(super) used: Option<f64>,
    /// How far its receive queue has filled, and whether that was to the end.
    pub(super) queue: Option<f64>,
    pub(super) queue_full: bool,
    pub(super) lagging: bool,
    /// Since when it could write and had a short queue.
    pub(super) good_since: Option<Moment>,
    pub(super) counted: Counted,
    /// What to grant to the monitor, if it may not ask about replication.
    pub(super) not_granted: Option<String>,
    /// Its view in the latest sample, if that was a Primary's.
    pub(super) view: Option<View>,
    /// Since when it shows that view, and when it showed it last.
    pub(super) shown: Option<(Moment, Moment)>,
    /// Nothing but doubt has come since that sample. A node that is saturated or denies the monitor may be silent
    /// about any number of views, so the one that it showed last is no longer compared with the others'.
    pub(super) fresh: bool,
    /// It answered, and not as Primary; with its `wsrep_last_committed`.
    pub(super) non_primary: Option<LastCommitted>,
    /// The monitor user is refused.
    pub(super) denied: Option<String>,
}

impl NodeStatus {
    pub(super) fn new(node: Node) -> Self {
        let unknown = Judgement::new(Readiness::Unknown, Reason::NeverSeen);
        Self {
            node,
            own: unknown.clone(),
            verdict: unknown,
            last: None,
            seen: false,
            suspect: false,
            saturated: false,
            proven: false,
            served: false,
            used: None,
            queue: None,
            queue_full: false,
            lagging: false,
            good_since: None,
            counted: Counted::default(),
            not_granted: None,
            view: None,
            shown: None,
            fresh: false,
            non_primary: None,
            denied: None,
        }
    }

    /// The node's configured name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// What the node may be used for, why, and whether its connections are to be cut.
    pub fn judgement(&self) -> &Judgement {
        &self.verdict
    }

    /// The latest probe failed in a way that still has to be confirmed: no new reader should be sent there.
    pub fn suspect(&self) -> bool {
        self.suspect
    }

    /// When it was last heard of, if ever.
    pub fn last_observed(&self) -> Option<Moment> {
        self.last
    }

    /// Its view, if it can be compared with the others'.
    pub(super) fn current_view(&self) -> Option<&View> {
        self.view.as_ref().filter(|_| self.fresh)
    }

    /// How many of its transactions have lost against another node's within the last minute.
    pub fn conflicts(&self, now: Moment) -> u64 {
        self.counted.conflicts(now)
    }

    /// Takes in what a probe saw. Doubt leaves the judgement as it is.
    pub(super) fn take(&mut self, seen: Seen, policy: &Policy, now: Moment) {
        let doubtful = match &seen {
            Seen::Refused { confirmed } => !confirmed,
            Seen::TimedOut { failed_in_a_row } => *failed_in_a_row < policy.fall,
            _ => false,
        };
        self.suspect = doubtful;
        if doubtful {
            return;
        }
        self.seen = true;
        self.fresh = matches!(seen, Seen::Sample(_));
        if !matches!(seen, Seen::MonitorDenied(_)) {
            self.denied = None;
        }
        match seen {
            Seen::Sample(signals) => self.sampled(&signals, policy, now),
            Seen::Saturated => self.is_full(),
            Seen::MonitorDenied(text) => {
                if self.own.readiness == Readiness::Unknown {
                    self.own.reason = Reason::MonitorDenied(text.clone());
                }
                self.denied = Some(text);
            }
            Seen::NotReady1047 => self.is_out(Reason::Error1047),
            Seen::Refused { .. } => self.is_out(Reason::Refused),
            Seen::TimedOut { failed_in_a_row } => self.is_out(Reason::Silent(failed_in_a_row)),
        }
    }

    fn sampled(&mut self, signals: &Signals, policy: &Policy, now: Moment) {
        let before = Before { saturated: self.saturated, lagging: self.lagging };
        self.own = classify(signals, policy, before);
        self.saturated = matches!(self.own.reason, Reason::Saturated | Reason::SaturatedReader);
        self.lagging = matches!(self.own.reason, Reason::Lags(_) | Reason::ReplicationStopped);
        self.proven = self.own.readiness != Readiness::Out;
        self.used = signals.connections_used();
        self.queue = signals.queue_filled();
        let ends = if self.queue_full { QUEUE_SHORT } else { 1.0 };
        self.queue_full = self.queue.is_some_and(|filled| filled >= ends);
        self.counted.take(signals, now);
        self.not_granted = match &signals.replication {
            Replication::Forbidden(text) => Some(text.clone()),
            _ => None,
        };
        if policy.kind == Kind::Galera {
            let view = View::of(signals);
            let same = view.as_ref().map(View::key) == self.view.as_ref().map(View::key);
            let since = self.shown.filter(|_| same).map_or(now, |(since, _)| since);
            self.shown = Some((since, now));
            self.view = view;
            self.non_primary =
                (signals.primary == Some(false)).then_some(LastCommitted(signals.last_committed));
        }
    }

    /// Error 1040 says nothing about the rest: what has been shown to be unfit stays so, and one that was only read from
    /// is no candidate for more.
    fn is_full(&mut self) {
        self.saturated = true;
        self.used = Some(1.0);
        let reads_only =
            self.own.readiness == Readiness::Reader || self.own.reason == Reason::SaturatedReader;
        let stays = match self.own.readiness {
            Readiness::Out => !matches!(self.own.reason, Reason::Refused | Reason::Silent(_)),
            Readiness::NoNew => true,
            Readiness::Unknown | Readiness::Reader | Readiness::Writer => false,
        };
        if !stays {
            let reason = if reads_only { Reason::SaturatedReader } else { Reason::Saturated };
            self.own = Judgement::new(Readiness::NoNew, reason);
        }
    }

    fn is_out(&mut self, reason: Reason) {
        self.own = Judgement::new(Readiness::Out, reason);
        self.saturated = false;
        self.proven = false;
        self.view = None;
        self.non_primary = None;
    }

    /// Judges again, knowing how its view compares with the others'.
    pub(super) fn compared(&mut self, place: Place, now: Moment) {
        self.verdict = match (self.own.readiness, place) {
            (Readiness::Out | Readiness::Unknown, _) | (_, Place::Inside) => self.own.clone(),
            (_, Place::Foreign) => Judgement::new(Readiness::Out, Reason::Foreign),
            (_, Place::Stale) => Judgement::new(Readiness::NoNew, Reason::Stale),
            (_, Place::OtherSide) => Judgement::new(Readiness::NoNew, Reason::OtherSide),
            (Readiness::NoNew, Place::Undecided) => self.own.clone(),
            (_, Place::Undecided) => Judgement::new(Readiness::Reader, Reason::Undecided),
        };
        // What the former agent knew stands in for what is not known yet, and for nothing else.
        self.served &= self.own.readiness == Readiness::Unknown;
        let short = self.queue.is_none_or(|filled| filled < QUEUE_SHORT);
        let good = self.verdict.readiness == Readiness::Writer && !self.suspect && short;
        self.good_since = if good { self.good_since.or(Some(now)) } else { None };
    }
}

/// Where a node stands among the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the component that is the cluster, or in none because it is out anyway.
    Inside,
    /// In another cluster.
    Foreign,
    /// In the past.
    Stale,
    /// In a split brain, not where the writer is.
    OtherSide,
    /// In a split brain of which nobody knows which side is the cluster.
    Undecided,
}
