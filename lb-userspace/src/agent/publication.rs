//! What is wanted of the data path, from what is known: the whole of it, each time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use lb_common::{Ticks, abi};

use super::{
    controller::Controller,
    reload::merge::Leaver,
    services::{Backend, Backends},
    shares::Share,
};
use crate::{
    config::{self, AgentLost, Algorithm, Mode, NoBackend, OnOut, Role, Target, Track},
    dataplane::{Desired, DesiredBackend, DesiredService, Fate, Rate, Timeouts},
    health::{Moment, State},
    listen::Protocol,
    weights::UNIT,
};

/// How long a new agent learns before it replaces what an earlier one published.
const LEARNING: Duration = Duration::from_secs(3);

impl Controller {
    /// Hand the whole desired state to the data path, if it differs from the last one.
    ///
    /// What an earlier agent published stands until this one knows enough to replace it: a backend that has not been
    /// probed yet is no reason to refuse its connections.
    pub(super) fn publish(&mut self) {
        if self.published.is_none() && self.fixed.adopted && !self.knows_enough() {
            return;
        }
        let desired = self.desired();
        if self.published.as_ref() != Some(&desired) {
            self.dataplane.publish(desired.clone());
            self.published = Some(desired);
        }
    }

    /// Whether every backend has been judged and has a way or a reason for none; true anyway after [`LEARNING`].
    fn knows_enough(&self) -> bool {
        let judged =
            self.services.iter().flatten().flat_map(|backends| &backends.members).all(|backend| {
                backend.health.state() != State::Unknown && self.way_known(backend.address.ip())
            });
        let elected = self.clusters.iter().all(|cluster| {
            cluster.election.writer().is_some()
                && cluster.election.knows_all()
                && cluster.members.iter().all(|member| self.way_known(member.address.ip()))
        });
        judged && elected || self.now().since(Moment::START) >= LEARNING
    }

    /// What the kernel's half is to do.
    fn desired(&self) -> Desired {
        let services = self.config.services.iter().zip(&self.services);
        let mut desired = Desired {
            services: services
                .map(|(config, backends)| {
                    let backends = match (&config.target, backends) {
                        (Target::Cluster { cluster, role, on_out }, _) => {
                            self.nodes_of(cluster, *role, *on_out)
                        }
                        (Target::Backends { .. }, Some(backends)) => self.desired_backends(config, backends),
                        (Target::Backends { .. }, None) => Vec::new(),
                    };
                    let mut service = desired_service(config, backends);
                    if self.leavers.contains_key(&Leaver::Service(config.listen)) {
                        self.close(&mut service);
                    }
                    service
                })
                .collect(),
            echo: self.echo(),
            agent_lost_after: self.config.agent_lost_after,
        };
        agree_on_limits(&mut desired.services);
        desired
    }

    /// The backends that a service has of its own.
    fn desired_backends(&self, config: &config::Service, backends: &Backends) -> Vec<DesiredBackend> {
        let offered = backends.members.iter().zip(backends.offered());
        let desired = |(backend, weight): (&Backend, u32)| {
            // A datagram has no connection to lose: who is down keeps no clients.
            let gone = config.listen.protocol == Protocol::Udp && backend.health.state() == State::Down;
            let leaver = Leaver::Backend(config.listen, backend.address);
            let fate = if gone || self.cuts_leaver(&leaver) {
                Fate::Cut
            } else {
                self.fate(&config.name, &backend.name)
            };
            self.desired_backend(backend.address, weight, fate, backend.limit())
        };
        let mut desired: Vec<DesiredBackend> = offered.map(desired).collect();
        // Those that came with the same reload have to be probed first.
        if !desired.iter().any(DesiredBackend::is_open) {
            for (desired, backend) in desired.iter_mut().zip(&backends.members) {
                let leaver = Leaver::Backend(config.listen, backend.address);
                if backend.stands_in
                    && self.leavers.get(&leaver).is_some_and(|leaving| leaving.stands_in(self.now()))
                {
                    desired.weight = u32::from(backend.asked()) * UNIT;
                }
            }
        }
        desired
    }

    /// A service that leaves takes no new connections, and whoever asks for one is told so at once.
    fn close(&self, service: &mut DesiredService) {
        let cut = self.cuts_leaver(&Leaver::Service(service.listen));
        (service.no_backend, service.hold) = (abi::no_backend::RESET, Duration::ZERO);
        for backend in &mut service.backends {
            backend.weight = 0;
            if cut {
                backend.fate = Fate::Cut;
            }
        }
    }

    /// Whether a leaver's connections are being cut.
    fn cuts_leaver(&self, who: &Leaver) -> bool {
        self.leavers.get(who).is_some_and(|leaving| leaving.cuts(self.now()))
    }

    /// The addresses of services that answer echo requests, each once.
    fn echo(&self) -> Vec<IpAddr> {
        let services = self.config.services.iter().filter(|service| service.echo);
        let addresses: BTreeSet<IpAddr> = services.map(|service| service.listen.address).collect();
        addresses.into_iter().collect()
    }

    fn fate(&self, owner: &str, member: &str) -> Fate {
        if self.is_cut(owner, member) { Fate::Cut } else { Fate::Keep }
    }

    fn desired_backend(
        &self,
        address: SocketAddr,
        weight: u32,
        fate: Fate,
        limit: Option<u32>,
    ) -> DesiredBackend {
        let way = self.ways.get(&address.ip()).cloned();
        DesiredBackend { address, weight, fate, max_connections: limit, way }
    }

    /// The nodes of a cluster, as a service of this role has them.
    fn nodes_of(&self, cluster: &str, role: Role, on_out: OnOut) -> Vec<DesiredBackend> {
        let Some(cluster) = self.clusters.iter().find(|known| known.name == cluster) else {
            return Vec::new();
        };
        let members = cluster.members.iter().zip(cluster.shares(role, on_out));
        members
            .map(|(member, Share { weight, cut })| {
                let fate = if cut { Fate::Cut } else { self.fate(&cluster.name, &member.name) };
                self.desired_backend(member.address, weight, fate, member.max_connections)
            })
            .collect()
    }
}

/// A server has one limit in all services that name it: the lowest, where an agent has ordered one of it in one of them.
fn agree_on_limits(services: &mut [DesiredService]) {
    let mut lowest: BTreeMap<SocketAddr, u32> = BTreeMap::new();
    let limited = services.iter().flat_map(|service| &service.backends);
    for (address, limit) in limited.filter_map(|backend| Some((backend.address, backend.max_connections?))) {
        lowest.entry(address).and_modify(|low| *low = limit.min(*low)).or_insert(limit);
    }
    for backend in services.iter_mut().flat_map(|service| &mut service.backends) {
        backend.max_connections = lowest.get(&backend.address).copied();
    }
}

fn desired_service(config: &config::Service, backends: Vec<DesiredBackend>) -> DesiredService {
    let (no_backend, hold) = match config.no_backend {
        NoBackend::Reset => (abi::no_backend::RESET, Duration::ZERO),
        NoBackend::Hold(hold) => (abi::no_backend::HOLD, hold),
        NoBackend::Drop => (abi::no_backend::DROP, Duration::ZERO),
    };
    let ticks = |duration: Duration| Ticks::from_millis(duration.as_millis() as u64);
    DesiredService {
        listen: config.listen,
        mode: match config.mode {
            Mode::Snat => abi::mode::SNAT,
            Mode::Dnat => abi::mode::DNAT,
            Mode::Dsr => abi::mode::DSR,
            Mode::Ipip => abi::mode::IPIP,
        },
        algorithm: match config.algorithm {
            Algorithm::RoundRobin => abi::algorithm::ROUND_ROBIN,
            Algorithm::LeastLoad => abi::algorithm::LEAST_LOAD,
            Algorithm::LeastConn => abi::algorithm::LEAST_CONN,
            Algorithm::Maglev => abi::algorithm::MAGLEV,
            Algorithm::SourceHash => abi::algorithm::SOURCE_HASH,
        },
        on_change: config.track == Track::OnChange,
        no_backend,
        hold,
        pass_lost: config.agent_lost == AgentLost::Pass,
        timeouts: Timeouts {
            established: ticks(config.timeouts.established),
            embryonic: ticks(config.timeouts.embryonic),
            closing: ticks(config.timeouts.closing),
            udp: ticks(config.timeouts.udp),
        },
        max_connections: config.max_connections,
        rate: config.rate_limit.map(|limit| Rate { per_second: limit.per_second, burst: limit.burst }),
        backends,
    }
}
