//! What is wanted of the data path, from what is known: the whole of it, each time.

use std::{net::SocketAddrV4, time::Duration};

use lb_common::{Ticks, abi};

use super::controller::Controller;
use crate::{
    config::{self, Algorithm, NoBackend, Target},
    dataplane::{Desired, DesiredBackend, DesiredService, Timeouts},
    health::{Moment, State},
};

/// Weight of a cluster's writer: it has no peers to be weighed against.
const WRITER_WEIGHT: u32 = 100 * 1024;

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
        let judged = self
            .services
            .iter()
            .flatten()
            .flat_map(|backends| &backends.members)
            .all(|backend| backend.health.state() != State::Unknown && self.way_known(backend.address));
        let elected = self.clusters.iter().all(|cluster| {
            cluster.election.writer().is_some()
                && cluster.members.iter().all(|member| self.way_known(member.address))
        });
        judged && elected || self.now().since(Moment::START) >= LEARNING
    }

    fn way_known(&self, address: SocketAddrV4) -> bool {
        self.ways.contains_key(address.ip()) || self.obstacles.contains_key(address.ip())
    }

    /// What the kernel's half is to do.
    fn desired(&self) -> Desired {
        let services = self.fixed.config.services.iter().zip(&self.services);
        Desired {
            services: services
                .map(|(config, backends)| {
                    let backends = match (&config.target, backends) {
                        (Target::Cluster { cluster, .. }, _) => self.writer_of(cluster),
                        (Target::Backends { .. }, Some(backends)) => backends
                            .members
                            .iter()
                            .map(|backend| self.desired_backend(backend.address, backend.weight))
                            .collect(),
                        (Target::Backends { .. }, None) => Vec::new(),
                    };
                    desired_service(config, backends)
                })
                .collect(),
        }
    }

    fn desired_backend(&self, address: SocketAddrV4, weight: u32) -> DesiredBackend {
        DesiredBackend { address, weight, out: false, way: self.ways.get(address.ip()).copied() }
    }

    /// The writer of a cluster, and the one before it while its connections may finish. Every other node is out of this
    /// service and loses its connections: a stale node must not keep writers.
    fn writer_of(&self, cluster: &str) -> Vec<DesiredBackend> {
        let Some(cluster) = self.clusters.iter().find(|known| known.name == cluster) else {
            return Vec::new();
        };
        let (writer, leaving) = (cluster.election.writer(), cluster.leaving());
        let members = cluster.members.iter().enumerate();
        members
            .map(|(index, member)| {
                let weight = if writer == Some(index) { WRITER_WEIGHT } else { 0 };
                let out = weight == 0 && leaving != Some(index);
                DesiredBackend { out, ..self.desired_backend(member.address, weight) }
            })
            .collect()
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
        address: config.address,
        algorithm: match config.algorithm {
            Algorithm::RoundRobin => abi::algorithm::ROUND_ROBIN,
            Algorithm::LeastLoad => abi::algorithm::LEAST_LOAD,
        },
        no_backend,
        hold,
        timeouts: Timeouts {
            established: ticks(config.timeouts.established),
            embryonic: ticks(config.timeouts.embryonic),
            closing: ticks(config.timeouts.closing),
        },
        backends,
    }
}
