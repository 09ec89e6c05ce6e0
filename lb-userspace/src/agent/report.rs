//! What `lb status` is told: the controller's knowledge beside the data path's counters.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use lb_common::abi::exit;

use super::{
    clusters::{Galera, Member},
    controller::Controller,
    handshakes::Handshakes,
    machine::addresses,
    reload::merge::Leaver,
    services::Backend,
    shares::Share,
};
use crate::{
    api::{
        AgentStatus, BackendState, BackendStatus, ClusterStatus, HandshakeMs, InterfaceStatus, NodeReadiness,
        NodeStatus, NodeUse, ServiceStatus, Status, Timestamp,
    },
    cluster::Readiness,
    config::{self, NoBackend, Target, Track},
    dataplane::{BackendCounts, Mode, task::Counts},
    health::{Admin, Moment, State},
    listen::{self, Listen},
    probe::galera::Replication,
};

/// The span over which shares and rates are taken.
const SPAN: Duration = Duration::from_secs(5);

/// Counters of the last seconds.
#[derive(Default)]
pub struct History(VecDeque<(Moment, Counts)>);

impl History {
    /// Remember counters; those older than the span are forgotten, but for one.
    pub fn push(&mut self, now: Moment, counts: Counts) {
        self.0.push_back((now, counts));
        while self.0.get(1).is_some_and(|(at, _)| now.since(*at) >= SPAN) {
            self.0.pop_front();
        }
    }

    /// The last counters of a backend.
    pub fn last(&self, service: Listen, backend: SocketAddr) -> Option<BackendCounts> {
        find(&self.0.back()?.1, service, backend)
    }

    /// Slots of a service's ring that were changing hands when it was looked at last.
    pub fn unsettled(&self, service: Listen) -> usize {
        let counts = self
            .0
            .back()
            .and_then(|(_, counts)| counts.services.iter().find(|known| known.listen == service));
        counts.map_or(0, |counts| counts.unsettled)
    }

    /// Connections that a backend was given over the span, and the span.
    fn given(&self, service: Listen, backend: SocketAddr) -> (u64, Duration) {
        let (Some((from, first)), Some((to, last))) = (self.0.front(), self.0.back()) else {
            return (0, Duration::ZERO);
        };
        let opened = |counts| find(counts, service, backend).map_or(0, |counts| counts.account.opened);
        (opened(last).saturating_sub(opened(first)), to.since(*from))
    }
}

fn find(counts: &Counts, service: Listen, backend: SocketAddr) -> Option<BackendCounts> {
    let service = counts.services.iter().find(|known| known.listen == service)?;
    service.backends.iter().find(|(address, _)| *address == backend).map(|(_, counts)| *counts)
}

impl Controller {
    /// Everything that is known now.
    pub(super) fn report(&self) -> Status {
        let fixed = &self.fixed;
        Status {
            agent: AgentStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                since: fixed.since,
                now: Timestamp::now(),
                instance: fixed.instance.clone(),
                confirm_deadline: self.confirm.map(|(_, deadline)| deadline),
                unloaded: self
                    .faults
                    .contains_key(super::reload::FAULT)
                    .then(|| "are refused, and not what runs".to_owned()),
            },
            alarms: self.alarms(),
            interfaces: fixed
                .attached
                .iter()
                .map(|(interface, attached, exit)| InterfaceStatus {
                    name: interface.name.clone(),
                    mode: match attached.mode {
                        Mode::Native => "native".to_owned(),
                        Mode::Generic => "generic".to_owned(),
                    },
                    exit: match *exit {
                        exit::TX | exit::TX_OR_STACK => "tx".to_owned(),
                        exit::STACK => "stack".to_owned(),
                        _ => "redirect".to_owned(),
                    },
                    program_id: attached.program,
                })
                .collect(),
            services: (0..self.config.services.len()).map(|index| self.service(index)).collect(),
            clusters: self.clusters.iter().map(cluster).collect(),
            counters: self.counters(),
        }
    }

    fn alarms(&self) -> Vec<String> {
        let elections = self.clusters.iter().flat_map(|cluster| {
            let alarms = cluster.election.alarms().iter().filter(|alarm| !alarm.is_warning());
            alarms.map(move |alarm| format!("{}: {alarm}", cluster.name))
        });
        self.faults.values().cloned().chain(elections).collect()
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        if let Some((_, counts)) = self.history.0.back() {
            let services = counts.services.iter().flat_map(|service| &service.reasons);
            for (reason, count) in services.chain(&counts.nobody) {
                *sums.entry(reason.name().to_owned()).or_default() += count;
            }
        }
        sums
    }

    fn service(&self, index: usize) -> ServiceStatus {
        let config = &self.config.services[index];
        let backends: Vec<BackendStatus> = match (&config.target, &self.services[index]) {
            (Target::Cluster { cluster, role, on_out }, _) => {
                let known = self.clusters.iter().find(|known| known.name == *cluster);
                known
                    .map(|known| self.nodes(config, known, &known.shares(*role, *on_out)))
                    .unwrap_or_default()
            }
            (_, Some(backends)) => {
                let peers = &backends.members;
                let offered = peers.iter().zip(backends.offered());
                offered.map(|offer| self.backend(config, offer, peers)).collect()
            }
            _ => Vec::new(),
        };
        let (cluster, role) = match &config.target {
            Target::Cluster { cluster, role, .. } => (Some(cluster.clone()), Some(role.name().to_owned())),
            Target::Backends { .. } => (None, None),
        };
        let per_second = |(given, span): (u64, Duration)| {
            if span.is_zero() { 0.0 } else { given as f64 / span.as_secs_f64() }
        };
        let addresses = addresses(&self.config, &config.target).into_iter();
        let new_per_second =
            addresses.map(|address| per_second(self.history.given(config.listen, address))).sum();
        ServiceStatus {
            name: config.name.clone(),
            address: config.listen.to_string(),
            mode: config.mode.to_string(),
            algorithm: config.algorithm.to_string(),
            track: match config.track {
                Track::Always => "always".to_owned(),
                Track::OnChange => "on-change".to_owned(),
            },
            no_backend: match config.no_backend {
                NoBackend::Reset => "reset".to_owned(),
                NoBackend::Hold(_) => "hold".to_owned(),
                NoBackend::Drop => "drop".to_owned(),
            },
            agent_lost: config.agent_lost.to_string(),
            cluster,
            role,
            state: self.sentence_about(config, index),
            live: backends.iter().map(|backend| backend.live).sum(),
            opened: backends.iter().map(|backend| backend.opened).sum(),
            new_per_second,
            drops: self.drops(config.listen),
            backends,
        }
    }

    /// What is to be said of a service as a whole.
    fn sentence_about(&self, config: &config::Service, index: usize) -> String {
        if self.leavers.contains_key(&Leaver::Service(config.listen)) {
            return "removed from the configuration: no new connections; it goes with the last one"
                .to_owned();
        }
        self.services[index].as_ref().map(|backends| backends.panic.clone()).unwrap_or_default()
    }

    fn drops(&self, service: Listen) -> BTreeMap<String, u64> {
        let counts = self.history.0.back().map(|(_, counts)| counts);
        let service = counts.and_then(|counts| counts.services.iter().find(|known| known.listen == service));
        let reasons = service.map(|service| service.reasons.as_slice()).unwrap_or_default();
        reasons
            .iter()
            .filter(|(reason, count)| reason.is_refusal() && *count > 0)
            .map(|(reason, count)| (reason.name().to_owned(), *count))
            .collect()
    }

    /// Connections of a backend: live, opened, share of the service's new ones.
    fn connections(
        &self,
        service: &config::Service,
        backend: SocketAddr,
        peers: &[SocketAddr],
    ) -> (u64, u64, f64) {
        let account = self.history.last(service.listen, backend).unwrap_or_default().account;
        let given = |address: SocketAddr| self.history.given(service.listen, address).0;
        let all: u64 = peers.iter().map(|peer| given(*peer)).sum();
        let share = if all == 0 { 0.0 } else { given(backend) as f64 / all as f64 };
        (account.live(), account.opened, share)
    }

    /// Why a backend is as it is; a cut and a departure come before what its probes say.
    fn reason(&self, owner: &str, member: &str, leaves: bool, probes: &str) -> String {
        if self.is_cut(owner, member) {
            "its connections are being cut".to_owned()
        } else if leaves {
            "removed from the configuration; it goes with its last connection".to_owned()
        } else {
            probes.to_owned()
        }
    }

    fn backend(
        &self,
        service: &config::Service,
        (backend, weight): (&Backend, u32),
        peers: &[Backend],
    ) -> BackendStatus {
        let peers: Vec<SocketAddr> = peers.iter().map(|peer| peer.address).collect();
        let (live, opened, share) = self.connections(service, backend.address, &peers);
        let state = match (backend.admin, backend.health.state()) {
            (Admin::Drain, _) => BackendState::Draining,
            (Admin::Maintenance, _) => BackendState::Maintenance,
            _ if !backend.orders.takes_new() => BackendState::Draining,
            _ if backend.orders.down().is_some() => BackendState::Down,
            (_, State::Up) => BackendState::Up,
            (_, State::Down) => BackendState::Down,
            (_, State::Unknown) => BackendState::Unknown,
        };
        BackendStatus {
            name: backend.name.clone(),
            address: listen::server(backend.address),
            state,
            reason: self.reason(&service.name, &backend.name, backend.leaves, &backend.reason()),
            since: backend.since,
            weight_configured: u32::from(backend.configured),
            weight_set: backend.set,
            weight_effective: f64::from(weight) / 1024.0,
            load: backend.load,
            handshake_ms: self.handshake(&backend.handshakes),
            live,
            opened,
            max_connections: backend.limit(),
            share,
            next_hop: self.next_hop(backend.address.ip()),
        }
    }

    fn handshake(&self, handshakes: &Handshakes) -> Option<HandshakeMs> {
        // The kernel's clock gives microseconds.
        let round = |millis: f64| (millis * 1_000.0).round() / 1_000.0;
        handshakes.millis(self.now()).map(|(mean, max)| HandshakeMs { mean: round(mean), max: round(max) })
    }

    fn nodes(&self, service: &config::Service, cluster: &Galera, shares: &[Share]) -> Vec<BackendStatus> {
        let peers: Vec<SocketAddr> = cluster.members.iter().map(|member| member.address).collect();
        let node = |(index, member): (usize, &Member)| {
            let (live, opened, share) = self.connections(service, member.address, &peers);
            let judgement = cluster.election.nodes()[index].judgement();
            let state = match (member.admin, judgement.readiness) {
                (Admin::Drain, _) => BackendState::Draining,
                (Admin::Maintenance, _) => BackendState::Maintenance,
                (_, Readiness::Out) => BackendState::Down,
                (_, Readiness::Unknown) => BackendState::Unknown,
                _ => BackendState::Up,
            };
            BackendStatus {
                name: member.name.clone(),
                address: member.address.to_string(),
                state,
                reason: self.reason(
                    &cluster.name,
                    &member.name,
                    member.leaves,
                    &judgement.reason.to_string(),
                ),
                since: member.since,
                weight_configured: 100,
                weight_set: None,
                weight_effective: f64::from(shares[index].weight) / 1024.0,
                load: None,
                handshake_ms: self.handshake(&member.handshakes),
                live,
                opened,
                max_connections: member.max_connections,
                share,
                next_hop: self.next_hop(member.address.ip()),
            }
        };
        cluster.members.iter().enumerate().map(node).collect()
    }
}

fn cluster(cluster: &Galera) -> ClusterStatus {
    let election = &cluster.election;
    let warnings = election.alarms().iter().filter(|alarm| alarm.is_warning());
    let nodes = cluster.members.iter().zip(election.nodes());
    ClusterStatus {
        name: cluster.name.clone(),
        writer: election.writer().map(|index| cluster.members[index].name.clone()),
        since: cluster.since,
        epoch: election.incumbent().map_or(0, |incumbent| incumbent.epoch),
        frozen: election.is_frozen(),
        paused_percent: (election.paused() * 100.0).round().clamp(0.0, 100.0) as u8,
        warnings: warnings.map(ToString::to_string).collect(),
        nodes: nodes.map(|(member, status)| node(member, status)).collect(),
    }
}

fn node(member: &Member, status: &crate::cluster::NodeStatus) -> NodeStatus {
    let readiness = status.judgement().readiness;
    let said = member.sample.clone().unwrap_or_default();
    NodeStatus {
        name: member.name.clone(),
        address: member.address.to_string(),
        readiness: match readiness {
            Readiness::Writer => NodeReadiness::Ready,
            Readiness::Reader => NodeReadiness::ReadOnly,
            Readiness::NoNew | Readiness::Out => NodeReadiness::NotReady,
            Readiness::Unknown => NodeReadiness::Unknown,
        },
        used: match readiness {
            Readiness::Writer => NodeUse::Write,
            Readiness::Reader => NodeUse::Read,
            Readiness::NoNew => NodeUse::NoNew,
            Readiness::Out => NodeUse::Out,
            Readiness::Unknown => NodeUse::Unknown,
        },
        queue_limit: said.queue_limit(),
        state_comment: said.local_state_comment,
        reason: status.judgement().reason.to_string(),
        conf_id: said.conf_id,
        recv_queue: said.recv_queue,
        last_committed: said.last_committed,
        cert_failures: said.cert_failures,
        bf_aborts: said.bf_aborts,
        lag_seconds: match said.replication {
            Replication::Replica { lag } => lag,
            _ => None,
        },
        threads_connected: said.threads_connected,
        threads_running: said.threads_running,
    }
}
