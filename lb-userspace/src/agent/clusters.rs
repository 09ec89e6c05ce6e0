//! A cluster of database nodes, shared by all services that use it: one monitor a node, one election.

use std::{net::SocketAddr, time::Duration};

use crate::{
    api::Timestamp,
    cluster::{
        Cluster, Donor, Event, How, Incumbent, Node, Observation, Outcome, Policy, Readiness, RejectQueries,
        Seen, Signals,
    },
    config,
    health::{Admin, Moment},
    probe::{
        self, Failure, FailureKind,
        galera::{ClusterStatus, Sample},
    },
};

/// How long a planned switch lets the former writer's connections finish before they are cut.
const PLANNED_DRAIN: Duration = Duration::from_secs(10);

/// One node.
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Connections at most, as the configuration or the server itself says.
    pub max_connections: Option<u32>,
    /// What the operator says.
    pub admin: Admin,
    /// Its last sample.
    pub sample: Option<Sample>,
    /// When its readiness last changed.
    pub since: Timestamp,
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
                admin: if drained(&node.name) { Admin::Drain } else { Admin::Ready },
                sample: None,
                since: Timestamp::now(),
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
