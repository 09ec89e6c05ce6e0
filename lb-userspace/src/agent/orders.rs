//! `lb galera`: what operators order of a cluster.

use super::{controller::Controller, requests::refused};
use crate::{
    api::{Accept, Entry, Freeze, RefusalKind, Reply, Switch, Topic},
    cluster::{Outcome, Refused},
};

impl Controller {
    /// Hand the writer role over.
    pub(super) fn switch(&mut self, wanted: &Switch) -> Reply {
        let node = wanted.node.as_deref();
        let (cluster, node) = match self.cluster_and_node(&wanted.cluster, node) {
            Ok(found) => found,
            Err(reply) => return reply,
        };
        let now = self.now();
        let former = self.clusters[cluster].election.writer();
        let outcome = self.clusters[cluster].election.switch(node, now);
        self.ordered(cluster, former, outcome)
    }

    /// Freeze the writer role, or let it move again.
    pub(super) fn freeze(&mut self, wanted: &Freeze) -> Reply {
        let cluster = match self.cluster_and_node(&wanted.cluster, None) {
            Ok((cluster, _)) => cluster,
            Err(reply) => return reply,
        };
        self.clusters[cluster].election.freeze(wanted.frozen);
        let name = &wanted.cluster;
        let message = if wanted.frozen {
            self.state.frozen.insert(name.clone());
            format!("{name}: frozen; no other node becomes the writer until `lb galera freeze {name} --off`")
        } else {
            self.state.frozen.remove(name);
            format!("{name}: the writer role moves by itself again")
        };
        let what = message.split_once(": ").map_or(&*message, |(_, what)| what);
        self.journal.record(Entry::new(Topic::Operator, name, what));
        self.store();
        // What has waited for this happens now.
        let (former, now) = (self.clusters[cluster].election.writer(), self.now());
        let outcome = self.clusters[cluster].tick(now);
        self.elected(cluster, former, &outcome);
        Reply::Done { message }
    }

    /// Take one group of nodes for the cluster.
    pub(super) fn accept(&mut self, wanted: &Accept) -> Reply {
        let (cluster, node) = match self.cluster_and_node(&wanted.cluster, Some(&wanted.node)) {
            Ok((cluster, Some(node))) => (cluster, node),
            Ok((_, None)) => return refused(RefusalKind::BadInput, "no node is named", ""),
            Err(reply) => return reply,
        };
        let now = self.now();
        let former = self.clusters[cluster].election.writer();
        let outcome = self.clusters[cluster].election.accept(node, now);
        self.ordered(cluster, former, outcome)
    }

    /// Carry out what follows from an order, and say who writes now.
    fn ordered(&mut self, index: usize, former: Option<usize>, outcome: Result<Outcome, Refused>) -> Reply {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(refused_by) => {
                let hint = format!("`lb galera status {}` shows the nodes", self.clusters[index].name);
                return refused(RefusalKind::Conflict, &refused_by.to_string(), &hint);
            }
        };
        let now = self.now();
        self.clusters[index].note(&outcome, now);
        self.elected(index, former, &outcome);
        let cluster = &self.clusters[index];
        let epoch = cluster.election.incumbent().map_or(0, |incumbent| incumbent.epoch);
        let name = &cluster.name;
        let node = |index: usize| cluster.members[index].name.as_str();
        let message = match (cluster.election.writer(), cluster.leaving()) {
            (Some(writer), Some(leaving)) => format!(
                "{name}: writer {}, epoch {epoch}; connections to {} have ten seconds to finish",
                node(writer),
                node(leaving)
            ),
            (Some(writer), None) => format!("{name}: writer {}, epoch {epoch}", node(writer)),
            (None, _) => format!("{name}: no writer yet"),
        };
        Reply::Done { message }
    }

    fn cluster_and_node(&self, cluster: &str, node: Option<&str>) -> Result<(usize, Option<usize>), Reply> {
        let hint = "`lb galera status` shows what there is";
        let unknown = |what: String| refused(RefusalKind::NotFound, &what, hint);
        let index = self.clusters.iter().position(|known| known.name == cluster);
        let index = index.ok_or_else(|| unknown(format!("there is no cluster {cluster} here")))?;
        let place = |name: &str| {
            self.clusters[index].find(name).ok_or_else(|| unknown(format!("{cluster} has no node {name}")))
        };
        Ok((index, node.map(place).transpose()?))
    }
}
