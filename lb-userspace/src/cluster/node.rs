//! What is remembered of one node.

use super::view::View;
use super::{Judgement, Node, Policy, Readiness, Reason, Seen, classify};
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
    /// Its view in the latest sample, if that was a Primary's.
    pub(super) view: Option<View>,
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
            view: None,
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

    /// Takes in what a probe saw. Doubt leaves the judgement as it is.
    pub(super) fn take(&mut self, seen: Seen, policy: &Policy) {
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
            Seen::Sample(signals) => {
                self.own = classify(&signals, policy, self.saturated);
                self.saturated = matches!(self.own.reason, Reason::Saturated | Reason::SaturatedReader);
                self.view = View::of(&signals);
                self.non_primary =
                    (signals.primary == Some(false)).then_some(LastCommitted(signals.last_committed));
            }
            Seen::Saturated => {
                self.saturated = true;
                self.own = Judgement::new(Readiness::NoNew, Reason::Saturated);
            }
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

    fn is_out(&mut self, reason: Reason) {
        self.own = Judgement::new(Readiness::Out, reason);
        self.saturated = false;
        self.view = None;
        self.non_primary = None;
    }

    /// Judges again, knowing how its view compares with the others'.
    pub(super) fn compared(&mut self, foreign: bool, stale: bool) {
        self.verdict = match self.own.readiness {
            Readiness::Out | Readiness::Unknown => self.own.clone(),
            _ if foreign => Judgement::new(Readiness::Out, Reason::Foreign),
            _ if stale => Judgement::new(Readiness::NoNew, Reason::Stale),
            _ => self.own.clone(),
        };
    }
}
