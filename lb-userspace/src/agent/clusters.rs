//! A cluster of database nodes, shared by all services that use it: one monitor a node, one election.

use std::{net::SocketAddr, time::Duration};

use super::handshakes::Handshakes;
use crate::{
    api::Timestamp,
    cluster::{
        Cluster, Donor, Event, How, Incumbent, Node, Observation, Outcome, Policy, Readiness, RejectQueries,
        Seen, Signals,
    },
    config,
    health::{Admin, Moment, Suspicion},
    probe::{
        self, Failure, FailureKind,
        galera::{ClusterStatus, Sample},
    },
};

/// How long a planned switch lets the former writer's connections finish before they are cut.
const PLANNED_DRAIN: Duration = Duration::from_secs(10);

/// Connections that a server keeps free of ours, for those that come between two looks at it.
const RESERVE: u64 = 5;

/// One node.
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections at most, as the configuration or else the server itself says.
    pub max_connections: Option<u32>,
    /// The configuration says it.
    limit_is_fixed: bool,
    /// Connections to the server that were not ours, when it was last asked.
    foreign: u64,
    /// What the operator says.
    pub admin: Admin,
    /// Its last sample.
    pub sample: Option<Sample>,
    /// When its readiness last changed.
    pub since: Timestamp,
    /// What its own traffic says of it; it only hastens the monitor, for the election decides.
    pub suspicion: Suspicion,
    /// How long its handshakes take.
    pub handshakes: Handshakes,
    failures: u32,
    refused: bool,
}

/// One cluster.
pub struct Galera {
    /// Its name.
    pub name: String,
    /// In the order of the configuration.
    pub members: Vec<Member>,
    /// The election.
    pub election: Cluster,
    /// When the writer was last chosen or lost.
    pub since: Timestamp,
    /// When the election wants to be looked at again.
    pub wake: Option<Moment>,
    /// The writer before this one, as long as its connections may finish.
    leaving: Option<(usize, Moment)>,
}

impl Galera {
    /// The cluster of the configuration; `incumbent` wrote when the last agent ended.
    pub fn new(
        config: &config::Cluster,
        incumbent: Option<Incumbent>,
        drained: impl Fn(&str) -> bool,
        now: Moment,
    ) -> Self {
        let donor = match config.donor {
            config::DonorPolicy::LastResort => Donor::LastResort,
            config::DonorPolicy::Avoid => Donor::Avoid,
            config::DonorPolicy::Allow => Donor::Allow,
        };
        let nodes = config
            .nodes
            .iter()
            .map(|node| Node { name: node.name.clone(), priority: node.priority })
            .collect();
        let members = config
            .nodes
            .iter()
            .map(|node| Member {
                name: node.name.clone(),
                address: node.address,
                max_connections: node.max_connections,
                limit_is_fixed: node.max_connections.is_some(),
                foreign: 0,
                admin: if drained(&node.name) { Admin::Drain } else { Admin::Ready },
                sample: None,
                since: Timestamp::now(),
                suspicion: Suspicion::new(config.monitor.interval, true),
                handshakes: Handshakes::default(),
                failures: 0,
                refused: false,
            })
            .collect();
        Self {
            name: config.name.clone(),
            members,
            election: Cluster::new(Policy { donor, ..Policy::default() }, nodes, incumbent, now),
            since: Timestamp::now(),
            wake: None,
            leaving: None,
        }
    }

    /// A node's answer.
    pub fn sampled(&mut self, index: usize, result: Result<Box<Sample>, Failure>, now: Moment) -> Outcome {
        let Some(member) = self.members.get_mut(index) else { return Outcome::default() };
        let seen = match result {
            Ok(sample) => {
                member.failures = 0;
                member.refused = false;
                let mut signals = signals(&sample);
                // A drained node is in maintenance by our own word.
                signals.maintenance |= member.admin == Admin::Drain;
                member.sample = Some(*sample);
                Seen::Sample(signals)
            }
            Err(failure) => member.failed(&failure),
        };
        let outcome = self.election.observe(index, Observation { result: seen, at: now });
        self.note(&outcome, now);
        outcome
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Moment) -> Outcome {
        let outcome = self.election.tick(now);
        self.note(&outcome, now);
        outcome
    }

    fn note(&mut self, outcome: &Outcome, now: Moment) {
        self.wake = outcome.wake;
        for event in &outcome.events {
            match event {
                Event::WriterElected { how, node, .. } => {
                    self.since = Timestamp::now();
                    if *how != How::Planned || self.leaving.is_some_and(|(leaving, _)| leaving == *node) {
                        self.leaving = None;
                    }
                }
                Event::WriterLost { .. } => {
                    self.since = Timestamp::now();
                    self.leaving = None;
                }
                Event::ReadinessChanged { node, .. } => self.members[*node].since = Timestamp::now(),
                Event::AlarmRaised(_) | Event::AlarmCleared(_) => {}
            }
        }
        if let Some((node, deadline)) = self.leaving {
            let out = self.election.nodes()[node].judgement().readiness == Readiness::Out;
            if out || now >= deadline {
                self.leaving = None;
            }
        }
    }

    /// Remember that `former` handed the role over by plan, so that its connections may finish.
    pub fn hand_over(&mut self, former: usize, now: Moment) {
        self.leaving = Some((former, now + PLANNED_DRAIN));
    }

    /// The former writer whose connections may still finish.
    pub fn leaving(&self) -> Option<usize> {
        self.leaving.map(|(node, _)| node)
    }

    /// The place of a node by name.
    pub fn find(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.name == name)
    }
}

impl Member {
    /// Learn from the last sample how many connections the server has room for, `ours` of them being there now. Whether
    /// that is another number than before.
    ///
    /// The two numbers are not of one moment, so of the last two differences the larger one counts. There is always room
    /// for one: a server that others have filled says so to it, which is more than silence.
    pub fn learn_limit(&mut self, ours: u64) -> bool {
        let Some(sample) = self.sample.as_ref().filter(|_| !self.limit_is_fixed) else { return false };
        let (Some(room), Some(connected)) = (sample.max_connections, sample.threads_connected) else {
            return false;
        };
        let foreign = connected.saturating_sub(ours);
        let taken = foreign.max(std::mem::replace(&mut self.foreign, foreign));
        let limit = u32::try_from(room.saturating_sub(taken + RESERVE).max(1)).unwrap_or(u32::MAX);
        self.max_connections.replace(limit) != Some(limit)
    }

    /// What a failure says about a node. Nothing here may turn the monitor's own trouble into an outage.
    fn failed(&mut self, failure: &Failure) -> Seen {
        let refused_before = std::mem::take(&mut self.refused);
        let silent_before = std::mem::take(&mut self.failures);
        match failure.kind {
            FailureKind::Refused | FailureKind::Unreachable => {
                self.refused = true;
                Seen::Refused { confirmed: refused_before }
            }
            FailureKind::Saturated => Seen::Saturated,
            FailureKind::NotReady => Seen::NotReady1047,
            // The server is in `offline_mode` (error 3032): maintenance, whatever else it said last.
            FailureKind::Offline => Seen::Sample(Signals {
                maintenance: true,
                ..self.sample.as_ref().map(signals).unwrap_or_default()
            }),
            FailureKind::MonitorDenied | FailureKind::Local | FailureKind::NoSample => {
                Seen::MonitorDenied(failure.to_string())
            }
            FailureKind::TimedOut
            | FailureKind::Closed
            | FailureKind::BadAnswer
            | FailureKind::TooLarge
            | FailureKind::BadStatus
            | FailureKind::Server(_) => {
                self.failures = silent_before + 1;
                Seen::TimedOut { failed_in_a_row: self.failures }
            }
        }
    }
}

/// A sample in the words of the election.
fn signals(sample: &Sample) -> Signals {
    Signals {
        primary: sample.cluster_status.as_ref().map(|status| *status == ClusterStatus::Primary),
        ready: sample.ready,
        connected: sample.connected,
        local_state: sample.local_state,
        desync: sample.desync.unwrap_or(false),
        reject_queries: match sample.reject_queries {
            Some(probe::galera::RejectQueries::All) => RejectQueries::All,
            Some(probe::galera::RejectQueries::AllKill) => RejectQueries::AllKill,
            _ => RejectQueries::None,
        },
        sst_donor_rejects: sample.sst_donor_rejects_queries.unwrap_or(false),
        read_only: sample.read_only,
        maintenance: sample.maintenance,
        threads_connected: sample.threads_connected,
        max_connections: sample.max_connections,
        recv_queue: sample.recv_queue,
        fc_limit: sample.queue_limit().map(|limit| limit as f64),
        state_uuid: sample.state_uuid.clone(),
        conf_id: sample.conf_id,
        members: sample.members().into_iter().map(str::to_owned).collect(),
        cluster_size: sample.cluster_size.map(|size| size as u32),
        last_committed: sample.last_committed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ClusterKind, DonorPolicy, Monitor, Node, Secret};

    fn member(limit: Option<u32>) -> Member {
        let seconds = Duration::from_secs(1);
        let monitor = Monitor {
            user: "lb".to_owned(),
            password: Secret::new("x"),
            tls: config::DatabaseTls::default(),
            interval: seconds,
            timeout: seconds,
        };
        let address = "10.0.1.1:3306".parse().unwrap();
        let node = Node { name: "db1".to_owned(), address, priority: 1, max_connections: limit };
        let config = config::Cluster {
            name: "db".to_owned(),
            kind: ClusterKind::Galera,
            monitor,
            donor: DonorPolicy::default(),
            nodes: vec![node],
        };
        Galera::new(&config, None, |_| false, Moment::START).members.remove(0)
    }

    fn sample(room: Option<u64>, connected: Option<u64>) -> Sample {
        Sample { max_connections: room, threads_connected: connected, ..Sample::default() }
    }

    #[test]
    fn a_server_takes_as_many_of_our_connections_as_others_and_the_reserve_leave_room_for() {
        let mut node = member(None);
        assert_eq!((node.learn_limit(0), node.max_connections), (false, None), "nothing is known yet");
        for (connected, ours, limit, changed) in [
            (1, 0, 54, true),
            (41, 40, 54, false),
            // Our connections are counted a moment after the server's.
            (41, 50, 54, false),
            (41, 41, 55, true),
            // Three others, and then none: the larger of two differences counts.
            (44, 41, 52, true),
            (41, 41, 52, false),
            (41, 41, 55, true),
            (70, 0, 1, true),
        ] {
            node.sample = Some(sample(Some(60), Some(connected)));
            assert_eq!(
                (node.learn_limit(ours), node.max_connections),
                (changed, Some(limit)),
                "{connected}, {ours}"
            );
        }
        node.sample = Some(sample(None, Some(1)));
        assert_eq!(
            (node.learn_limit(0), node.max_connections),
            (false, Some(1)),
            "what is not said changes nothing"
        );
    }

    #[test]
    fn a_configured_limit_stands_whatever_the_server_says() {
        let mut node = member(Some(7));
        node.sample = Some(sample(Some(60), Some(1)));
        assert_eq!((node.learn_limit(0), node.max_connections), (false, Some(7)));
    }
}
