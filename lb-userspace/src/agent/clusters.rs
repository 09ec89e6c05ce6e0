//! A cluster of database nodes, shared by all services that use it: one monitor a node, one election.

use std::{net::SocketAddr, time::Duration};

use super::{
    handshakes::Handshakes,
    keys::{Key, Keys},
    probers::Hasten,
    shares::{Found, Loads},
};
use crate::{
    api::Timestamp,
    cluster::{
        Cluster, Donor, Event, How, Incumbent, Kind, Node, Observation, Outcome, Policy, Readiness,
        RejectQueries, Replication, Seen, Signals,
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

/// How long a preferred node must have been well before it takes the role back by itself.
const WELL: Duration = Duration::from_mins(1);

/// Connections that a server keeps free of ours, for those that come between two looks at it.
const RESERVE: u64 = 5;

/// One node.
pub struct Member {
    /// What its monitor calls it.
    pub key: Key,
    /// The configuration names it no more: it goes when it has handed its role over and its connections have ended.
    pub leaves: bool,
    /// Who asks it.
    pub monitor: Option<Hasten>,
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
    /// What its nodes' monitors call it.
    pub key: Key,
    /// Its name.
    pub name: String,
    /// In the order of the configuration.
    pub members: Vec<Member>,
    /// The election.
    pub election: Cluster,
    /// What its nodes weigh by their load.
    pub loads: Loads,
    /// When the writer was last chosen or lost.
    pub since: Timestamp,
    /// When the election wants to be looked at again.
    pub wake: Option<Moment>,
    /// The writer before this one, as long as its connections may finish.
    leaving: Option<(usize, Moment)>,
}

/// What is said of a cluster's nodes elsewhere than in the configuration.
pub struct Said<'a> {
    /// What the operator wants of a node, by its name.
    pub admin: &'a dyn Fn(&str) -> Admin,
    /// Which nodes, by their addresses, the configuration names no more.
    pub leaves: &'a dyn Fn(SocketAddr) -> bool,
}

impl Galera {
    /// The cluster of the configuration; `incumbent` wrote when the last agent ended. Where nothing was kept of that,
    /// what is `found` in an earlier agent's data path says it.
    pub fn new(
        config: &config::Cluster,
        incumbent: Option<Incumbent>,
        found: &Found,
        said: &Said<'_>,
        keys: &mut Keys,
        now: Moment,
    ) -> Self {
        let incumbent = incumbent.or_else(|| {
            let node = config.nodes.iter().find(|node| Some(node.address) == found.writer)?;
            Some(Incumbent { node: node.name.clone(), epoch: 0, serving: true, by_hand: false })
        });
        let nodes = config.nodes.iter().map(stands).collect();
        let mut cluster = Self {
            key: keys.next(),
            name: config.name.clone(),
            members: Vec::new(),
            election: Cluster::new(policy(config), nodes, incumbent, now),
            loads: Loads::default(),
            since: Timestamp::now(),
            wake: None,
            leaving: None,
        };
        cluster.members = config.nodes.iter().map(|node| Member::new(config, node, keys.next())).collect();
        for (index, node) in config.nodes.iter().enumerate() {
            if found.served.contains(&node.address) {
                cluster.election.served(index);
            }
        }
        cluster.listen_to(config, said, now);
        cluster
    }

    /// Take up another configuration. Nodes are who they were by their addresses: what is known of those that stay is
    /// kept, and the writer stays the writer.
    pub fn reconfigure(&mut self, config: &config::Cluster, said: &Said<'_>, keys: &mut Keys, now: Moment) {
        let mut before: Vec<Option<Member>> =
            std::mem::take(&mut self.members).into_iter().map(Some).collect();
        let former = |before: &[Option<Member>], address| {
            before.iter().position(|known| known.as_ref().is_some_and(|known| known.address == address))
        };
        let mut nodes = Vec::new();
        let leaving =
            self.leaving.and_then(|(node, until)| Some((before.get(node)?.as_ref()?.address, until)));
        for node in &config.nodes {
            let place = former(&before, node.address);
            let known = place.and_then(|place| before.get_mut(place)?.take());
            self.members.push(known.unwrap_or_else(|| Member::new(config, node, keys.next())));
            nodes.push((stands(node), place));
        }
        self.leaving = leaving.and_then(|(address, until)| {
            Some((self.members.iter().position(|member| member.address == address)?, until))
        });
        self.election.reconfigure(policy(config), nodes);
        self.listen_to(config, said, now);
    }

    /// Each node as the configuration and the operator want it now.
    fn listen_to(&mut self, config: &config::Cluster, said: &Said<'_>, now: Moment) {
        self.loads.set_members(self.members.iter().map(|member| member.key), now);
        let suspicion = Suspicion::new(config.monitor.interval, true);
        for (member, node) in self.members.iter_mut().zip(&config.nodes) {
            member.name.clone_from(&node.name);
            member.leaves = (said.leaves)(node.address);
            member.admin = if member.leaves { Admin::Drain } else { (said.admin)(&node.name) };
            if node.max_connections.is_some() || member.limit_is_fixed {
                member.max_connections = node.max_connections;
            }
            member.limit_is_fixed = node.max_connections.is_some();
            if !member.suspicion.is_like(&suspicion) {
                member.suspicion = suspicion.clone();
            }
        }
    }

    /// The place of a node by what its monitor calls it.
    pub fn place(&self, key: Key) -> Option<usize> {
        self.members.iter().position(|member| member.key == key)
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
                signals.maintenance |= !member.admin.takes_new();
                self.loads.sampled(member.key, &sample, now);
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

    /// Takes in what the election has decided.
    pub fn note(&mut self, outcome: &Outcome, now: Moment) {
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
                Event::ReadinessChanged { node, from, to, .. } => {
                    self.members[*node].since = Timestamp::now();
                    self.loads.judged(self.members[*node].key, *from, *to, now);
                    self.loads.step(now);
                }
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

/// A node as it stands for election.
fn stands(node: &config::Node) -> Node {
    Node { name: node.name.clone(), priority: node.priority }
}

impl Member {
    fn new(cluster: &config::Cluster, node: &config::Node, key: Key) -> Self {
        Self {
            key,
            leaves: false,
            monitor: None,
            name: node.name.clone(),
            address: node.address,
            max_connections: node.max_connections,
            limit_is_fixed: node.max_connections.is_some(),
            foreign: 0,
            admin: Admin::Ready,
            sample: None,
            since: Timestamp::now(),
            suspicion: Suspicion::new(cluster.monitor.interval, true),
            handshakes: Handshakes::default(),
            failures: 0,
            refused: false,
        }
    }

    /// Have it asked after `delay` at the latest.
    pub fn hasten(&self, delay: Duration) {
        if let Some(monitor) = &self.monitor {
            monitor.after(delay);
        }
    }

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

/// How a cluster is judged.
fn policy(config: &config::Cluster) -> Policy {
    Policy {
        kind: match config.kind {
            config::ClusterKind::Galera => Kind::Galera,
            config::ClusterKind::Mysql => Kind::Mysql,
        },
        donor: match config.donor {
            config::DonorPolicy::LastResort => Donor::LastResort,
            config::DonorPolicy::Avoid => Donor::Avoid,
            config::DonorPolicy::Allow => Donor::Allow,
        },
        max_lag: config.max_lag,
        fail_back: config.fail_back.then_some(WELL),
        ..Policy::default()
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
        paused_ns: sample.flow_control_paused_ns,
        pauses_sent: sample.flow_control_sent,
        conflicts: sample.cert_failures.zip(sample.bf_aborts).map(|(failures, aborts)| failures + aborts),
        replication: match &sample.replication {
            probe::galera::Replication::NotAsked => Replication::NotAsked,
            probe::galera::Replication::Source => Replication::Source,
            probe::galera::Replication::Replica { lag } => Replication::Replica { lag: *lag },
            probe::galera::Replication::Forbidden(what) => Replication::Forbidden(what.clone()),
        },
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
        let node =
            Node { name: "db1".to_owned(), address, priority: 1, max_connections: limit, extra_port: None };
        let config = config::Cluster {
            name: "db".to_owned(),
            kind: ClusterKind::Galera,
            monitor,
            donor: DonorPolicy::default(),
            fail_back: false,
            max_lag: None,
            nodes: vec![node],
        };
        let said = Said { admin: &|_| Admin::Ready, leaves: &|_| false };
        let found = Found::default();
        Galera::new(&config, None, &found, &said, &mut Keys::default(), Moment::START).members.remove(0)
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
