//! What an operator may order: hand the role over, freeze it, take one side of a split brain for the cluster.

use super::candidate::Rank;
use super::election::Cluster;
use super::{How, Outcome, Reason};
use crate::health::Moment;

/// Why an order is not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has the role already.
    #[error("{node} is the writer already")]
    IsWriter {
        /// The node.
        node: String,
    },
    /// It cannot take the role.
    #[error("{node} cannot be the writer now: {why}")]
    CannotWrite {
        /// The node.
        node: String,
        /// Why.
        why: String,
    },
    /// There is no other candidate.
    #[error("no other node can be the writer now")]
    NobodyElse,
    /// Nothing is in doubt that an operator could decide.
    #[error("{node} is neither of another cluster nor in one of several groups that call themselves Primary")]
    NothingToAccept {
        /// The node.
        node: String,
    },
}

impl Cluster {
    /// Hands the role to `node`, or to the best other candidate; only to one that is as good as a writer can be. Frozen
    /// or not: this is what freezing is lifted for.
    pub fn switch(&mut self, node: Option<usize>, now: Moment) -> Result<Outcome, Refused> {
        let comparison = self.compared();
        let chosen = match node {
            Some(node) if self.writer == Some(node) => {
                return Err(Refused::IsWriter { node: self.name(node) });
            }
            Some(node) => {
                let stands =
                    self.stands(node, &comparison) && self.rank(&self.nodes[node]) == Some(Rank::Good);
                stands.then_some(node).ok_or_else(|| self.cannot_write(node))?
            }
            None => self.candidate(&comparison, self.writer, Rank::Good).ok_or(Refused::NobodyElse)?,
        };
        let mut outcome = Outcome::default();
        let how = if self.writer.is_some() { How::Planned } else { How::First };
        self.elect(chosen, how, "an operator wants it".to_owned(), &mut outcome);
        if let Some(incumbent) = &mut self.incumbent {
            incumbent.by_hand = true;
        }
        self.evaluate(now, &mut outcome);
        Ok(outcome)
    }

    fn name(&self, node: usize) -> String {
        self.nodes[node].name().to_owned()
    }

    fn cannot_write(&self, node: usize) -> Refused {
        let status = &self.nodes[node];
        let why = if status.node.priority < 0 {
            "its priority is negative".to_owned()
        } else if status.suspect {
            "its last probe failed".to_owned()
        } else {
            status.verdict.reason.to_string()
        };
        Refused::CannotWrite { node: self.name(node), why }
    }

    /// Whether the role moves by itself. Frozen, a writer that is out leaves it to nobody, and has it again when it is
    /// back.
    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// Whether the role is frozen.
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Takes the group that `node` is in for the cluster: in a split brain, or if it has another UUID. A writer that is
    /// not in it loses the role at once.
    pub fn accept(&mut self, node: usize, now: Moment) -> Result<Outcome, Refused> {
        let comparison = self.compared();
        if self.nodes[node].verdict.reason == Reason::Foreign {
            self.home = self.nodes[node].view.as_ref().and_then(|view| view.uuid.clone());
        } else if self.split_is_confirmed(&comparison) && comparison.component[node].is_some() {
            self.accepted = Some(node);
        } else {
            return Err(Refused::NothingToAccept { node: self.name(node) });
        }
        let mut outcome = Outcome::default();
        self.evaluate(now, &mut outcome);
        Ok(outcome)
    }
}
