//! Who can become the writer.

use super::election::Cluster;
use super::view::Comparison;
use super::{Donor, Kind, NodeStatus, Readiness, Reason};
use crate::health::Moment;

impl Cluster {
    pub(super) fn had_the_role(&self, node: usize) -> bool {
        self.incumbent.as_ref().is_some_and(|incumbent| incumbent.node == self.nodes[node].name())
    }

    /// A node that has the role by preference, if it goes back by itself and the operator has not chosen otherwise.
    pub(super) fn better(&self, comparison: &Comparison, writer: usize, now: Moment) -> Option<usize> {
        let rest = self.policy.fail_back?;
        if self.incumbent.as_ref().is_none_or(|incumbent| incumbent.by_hand) {
            return None;
        }
        let preference = |node: usize| (self.nodes[node].node.priority, node);
        let rested = |node: &usize| {
            let status = &self.nodes[*node];
            self.rank(status) == Some(Rank::Good)
                && status.good_since.is_some_and(|since| now.since(since) >= rest)
        };
        (0..self.nodes.len())
            .filter(|node| preference(*node) < preference(writer) && self.stands(*node, comparison))
            .filter(rested)
            .min_by_key(|node| preference(*node))
    }

    /// Whether a node is in the component that may elect.
    pub(super) fn stands(&self, node: usize, comparison: &Comparison) -> bool {
        let component = comparison.component[node];
        match self.policy.kind {
            Kind::Mysql => true,
            Kind::Galera => component.is_some() && component == self.electing_component(comparison),
        }
    }

    /// The best node to become the writer, of at least this rank, within the component that may elect.
    pub(super) fn candidate(
        &self,
        comparison: &Comparison,
        besides: Option<usize>,
        least: Rank,
    ) -> Option<usize> {
        if !self.settled {
            return None;
        }
        (0..self.nodes.len())
            .filter(|node| Some(*node) != besides && self.stands(*node, comparison))
            .filter_map(|index| {
                let status = &self.nodes[index];
                let rank = self.rank(status).filter(|rank| *rank <= least)?;
                Some((rank, !self.had_the_role(index), status.node.priority, index))
            })
            .min()
            .map(|(.., index)| index)
    }

    pub(super) fn rank(&self, status: &NodeStatus) -> Option<Rank> {
        if status.suspect || status.node.priority < 0 {
            return None;
        }
        match (status.verdict.readiness, &status.verdict.reason) {
            (Readiness::Writer, _) => Some(Rank::Good),
            (Readiness::NoNew, Reason::Saturated) => status.proven.then_some(Rank::Saturated),
            (Readiness::NoNew, Reason::DesyncedByHand) => Some(Rank::Desynced),
            (Readiness::NoNew, Reason::Donor) if self.policy.donor == Donor::LastResort => Some(Rank::Donor),
            _ => None,
        }
    }

    /// The component whose nodes may become the writer: the only one, or in a split brain the one that the writer is
    /// in, or was in last. Where that cannot be told, none.
    pub(super) fn electing_component(&self, comparison: &Comparison) -> Option<usize> {
        if comparison.components < 2 {
            return (comparison.components == 1).then_some(0);
        }
        if let Some(component) = self.accepted.and_then(|node| comparison.component[node]) {
            return Some(component);
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
}

/// How good a candidate is; the order of last resorts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    Good,
    Saturated,
    Desynced,
    Donor,
}
