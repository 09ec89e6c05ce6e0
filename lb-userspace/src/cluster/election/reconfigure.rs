//! Another configuration for a cluster that is being watched.

use super::{Cluster, Flow, Node, NodeStatus, Policy};

impl Cluster {
    /// Takes up other nodes and another policy; a node with a former place keeps what is known of it, whatever else of it
    /// has changed. The writer stays the writer if it stays at all: who removes one lets it hand over first.
    pub fn reconfigure(&mut self, policy: Policy, nodes: Vec<(Node, Option<usize>)>) {
        let mut before: Vec<Option<NodeStatus>> =
            std::mem::take(&mut self.nodes).into_iter().map(Some).collect();
        let writer = self.writer.take();
        for (place, (node, former)) in nodes.into_iter().enumerate() {
            let known = former.and_then(|former| before.get_mut(former)?.take());
            if known.is_some() && former == writer {
                self.writer = Some(place);
                // By its name the next agent finds it.
                if let Some(incumbent) = &mut self.incumbent {
                    incumbent.node.clone_from(&node.name);
                }
            }
            self.nodes.push(match known {
                Some(status) => NodeStatus { node, ..status },
                None => NodeStatus::new(node),
            });
        }
        if self.writer.is_none() && writer.is_some() {
            self.impaired = None;
            if let Some(incumbent) = &mut self.incumbent {
                incumbent.serving = false;
            }
        }
        // They name places.
        self.accepted = None;
        self.flow = Flow::default();
        self.policy = policy;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{Observation, Readiness, Seen, Signals},
        health::Moment,
    };

    fn node(name: &str, priority: i32) -> Node {
        Node { name: name.to_owned(), priority }
    }

    fn primary() -> Seen {
        Seen::Sample(Signals {
            primary: Some(true),
            ready: Some(true),
            connected: Some(true),
            local_state: Some(4),
            state_uuid: Some("a".to_owned()),
            conf_id: Some(7),
            cluster_size: Some(2),
            members: vec!["1".to_owned(), "2".to_owned()],
            ..Signals::default()
        })
    }

    #[test]
    fn the_writer_and_what_is_known_stay_with_their_nodes() {
        let nodes = vec![node("db1", 1), node("db2", 2)];
        let mut cluster = Cluster::new(Policy::default(), nodes, None, Moment::START);
        for place in 0..2 {
            cluster.observe(place, Observation { result: primary(), at: Moment::START });
        }
        assert_eq!(cluster.writer(), Some(0));
        let epoch = cluster.incumbent().map(|incumbent| incumbent.epoch);
        // Another one comes first, and the two change places and priorities.
        cluster.reconfigure(
            Policy::default(),
            vec![(node("db3", 0), None), (node("db2", 1), Some(1)), (node("db1", 9), Some(0))],
        );
        assert_eq!(cluster.writer(), Some(2));
        assert_eq!(cluster.incumbent().map(|incumbent| incumbent.epoch), epoch);
        let readiness: Vec<Readiness> =
            cluster.nodes().iter().map(|node| node.judgement().readiness).collect();
        assert_eq!(readiness, [Readiness::Unknown, Readiness::Writer, Readiness::Writer]);
        let outcome = cluster.tick(Moment::START);
        assert_eq!((outcome.events.len(), cluster.writer()), (0, Some(2)), "{:?}", outcome.events);
    }

    #[test]
    fn a_writer_that_is_gone_is_none_and_the_next_one_gets_a_new_epoch() {
        let nodes = vec![node("db1", 1), node("db2", 2)];
        let mut cluster = Cluster::new(Policy::default(), nodes, None, Moment::START);
        for place in 0..2 {
            cluster.observe(place, Observation { result: primary(), at: Moment::START });
        }
        cluster.reconfigure(Policy::default(), vec![(node("db2", 2), Some(1))]);
        assert_eq!(cluster.writer(), None);
        cluster.tick(Moment::START);
        assert_eq!(cluster.writer(), Some(0));
        assert_eq!(cluster.incumbent().map(|now| (&*now.node, now.epoch)), Some(("db2", 2)));
    }
}
