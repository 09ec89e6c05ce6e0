//! What `lb status` is told: the controller's knowledge beside the data path's counters.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use super::{
    clusters::{Galera, Member},
    controller::Controller,
    handshakes::Handshakes,
    machine::addresses,
    services::Backend,
};
use crate::{
    api::{
        AgentStatus, BackendState, BackendStatus, ClusterStatus, HandshakeMs, InterfaceStatus, NodeReadiness,
        NodeStatus, ServiceStatus, Status, Timestamp,
    },
    cluster::Readiness,
    config::{self, NoBackend, Target, Track},
    dataplane::{BackendCounts, Mode, task::Counts},
    health::{Admin, Moment, State},
    listen::{self, Listen},
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
                    exit: if *exit == lb_common::abi::exit::TX { "tx" } else { "redirect" }.to_owned(),
                    program_id: attached.program,
                })
                .collect(),
            services: (0..fixed.config.services.len()).map(|index| self.service(index)).collect(),
            clusters: self.clusters.iter().map(cluster).collect(),
            counters: self.counters(),
        }
    }

    fn alarms(&self) -> Vec<String> {
        let elections = self.clusters.iter().flat_map(|cluster| {
            cluster.election.alarms().iter().map(move |alarm| format!("{}: {alarm}", cluster.name))
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
        let config = &self.fixed.config.services[index];
        let backends: Vec<BackendStatus> = match (&config.target, &self.services[index]) {
            (Target::Cluster { cluster, .. }, _) => {
                let known = self.clusters.iter().find(|known| known.name == *cluster);
                known.map(|known| self.nodes(config, known)).unwrap_or_default()
            }
            (_, Some(backends)) => {
                let peers = &backends.members;
                let offered = peers.iter().zip(backends.offered());
                offered.map(|offer| self.backend(config, offer, peers)).collect()
            }
            _ => Vec::new(),
        };
        let (cluster, role) = match &config.target {
            Target::Cluster { cluster, role: config::Role::Writer } => {
                (Some(cluster.clone()), Some("writer".to_owned()))
            }
            Target::Backends { .. } => (None, None),
        };
        let per_second = |(given, span): (u64, Duration)| {
            if span.is_zero() { 0.0 } else { given as f64 / span.as_secs_f64() }
        };
        let addresses = addresses(&self.fixed.config, &config.target).into_iter();
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
            cluster,
            role,
            state: self.services[index].as_ref().map(|backends| backends.panic.clone()).unwrap_or_default(),
            live: backends.iter().map(|backend| backend.live).sum(),
            opened: backends.iter().map(|backend| backend.opened).sum(),
            new_per_second,
            drops: self.drops(config.listen),
            backends,
        }
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

    /// Why a backend is as it is; a cut comes before what its probes say.
    fn reason(&self, owner: &str, member: &str, probes: &str) -> String {
        if self.is_cut(owner, member) {
            "its connections are being cut".to_owned()
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
            reason: self.reason(&service.name, &backend.name, &backend.reason()),
            since: backend.since,
            weight_configured: u32::from(backend.configured),
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

    fn nodes(&self, service: &config::Service, cluster: &Galera) -> Vec<BackendStatus> {
        let peers: Vec<SocketAddr> = cluster.members.iter().map(|member| member.address).collect();
        let writer = cluster.election.writer();
        let node = |(index, member): (usize, &Member)| {
            let (live, opened, share) = self.connections(service, member.address, &peers);
            let judgement = cluster.election.nodes()[index].judgement();
            let state = match (member.admin, judgement.readiness) {
                (Admin::Drain, _) => BackendState::Draining,
                (_, Readiness::Out) => BackendState::Down,
                (_, Readiness::Unknown) => BackendState::Unknown,
                _ => BackendState::Up,
            };
            BackendStatus {
                name: member.name.clone(),
                address: member.address.to_string(),
                state,
                reason: self.reason(&cluster.name, &member.name, &judgement.reason.to_string()),
                since: member.since,
                weight_configured: 100,
                weight_effective: if writer == Some(index) { 100.0 } else { 0.0 },
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
    let writer = cluster.election.writer();
    ClusterStatus {
        name: cluster.name.clone(),
        writer: writer.map(|index| cluster.members[index].name.clone()),
        since: cluster.since,
        epoch: cluster.election.incumbent().map_or(0, |incumbent| incumbent.epoch),
        nodes: cluster
            .members
            .iter()
            .zip(cluster.election.nodes())
            .map(|(member, status)| NodeStatus {
                name: member.name.clone(),
                address: member.address.to_string(),
                readiness: match status.judgement().readiness {
                    Readiness::Writer => NodeReadiness::Ready,
                    Readiness::Reader => NodeReadiness::ReadOnly,
                    Readiness::NoNew | Readiness::Out => NodeReadiness::NotReady,
                    Readiness::Unknown => NodeReadiness::Unknown,
                },
                state_comment: member.sample.as_ref().and_then(|sample| sample.local_state_comment.clone()),
                reason: status.judgement().reason.to_string(),
                conf_id: member.sample.as_ref().and_then(|sample| sample.conf_id),
                recv_queue: member.sample.as_ref().and_then(|sample| sample.recv_queue),
            })
            .collect(),
    }
}
