//! What each node of a cluster gets of a service, by the service's role.

use std::{collections::BTreeMap, net::SocketAddr};

use super::{clusters::Galera, keys::Key};
use crate::{
    cluster::{Readiness, WriterReads},
    config::{self, OnOut, Role},
    health::Moment,
    probe::galera::Sample,
    weights::{Controller, Member, Tuning},
};

/// Weight of a node of which nothing else is known, in steps of 1/1024.
const WEIGHT: u32 = 100 * 1024;

/// Statements at a time that a server is taken to stand, besides the monitor's own.
const CAPACITY: f64 = 16.0;

/// A node's part of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// Its weight, in steps of 1/1024; 0: no new connections.
    pub weight: u32,
    /// Its connections end.
    pub cut: bool,
}

/// The weights of a cluster's nodes by their load, for services with more than one of them.
pub struct Loads {
    controller: Controller<Key>,
    weights: BTreeMap<Key, u32>,
}

impl Default for Loads {
    fn default() -> Self {
        Self { controller: Controller::new(Tuning::default()), weights: BTreeMap::new() }
    }
}

impl Loads {
    /// Says who the nodes are; those that stay keep what was learnt of them.
    pub fn set_members(&mut self, nodes: impl Iterator<Item = Key>, now: Moment) {
        let members: Vec<Member<Key>> = nodes.map(|key| Member { key, configured: WEIGHT / 1024 }).collect();
        self.controller.set_members(&members, now);
        self.weights.retain(|key, _| members.iter().any(|member| member.key == *key));
    }

    /// A node has said how many statements it runs, this one included.
    pub fn sampled(&mut self, node: Key, sample: &Sample, now: Moment) {
        if let Some(running) = sample.threads_running {
            self.controller.observe(node, running.saturating_sub(1) as f64 / CAPACITY, now);
        }
    }

    /// A node's readiness has changed. Who was out starts slowly; who only took no new connections is warm.
    pub fn judged(&mut self, node: Key, from: Readiness, to: Readiness, now: Moment) {
        let serves = |readiness| matches!(readiness, Readiness::Writer | Readiness::Reader);
        self.controller.health(node, serves(to), now, from != Readiness::Out);
    }

    /// Lets the controller step; whether any weight has changed.
    pub fn step(&mut self, now: Moment) -> bool {
        let changed = self.controller.step(now);
        self.weights.extend(changed.iter().copied());
        !changed.is_empty()
    }

    /// What a node weighs where it gets the whole of it. A last resort has no weight of its own.
    fn weight(&self, node: Key) -> u32 {
        self.weights.get(&node).copied().filter(|weight| *weight > 0).unwrap_or(WEIGHT)
    }
}

impl Galera {
    /// What each node gets of a service of this role.
    pub fn shares(&self, role: Role, on_out: OnOut) -> Vec<Share> {
        let parts = match role {
            Role::Writer => return self.writer_alone(),
            Role::Reader(writer) => self.election.readers(match writer {
                config::WriterReads::Never => WriterReads::Never,
                config::WriterReads::LastResort => WriterReads::LastResort,
                config::WriterReads::Always => WriterReads::Always,
            }),
            Role::Any => self.election.writers(),
        };
        let share = |(node, part): (usize, f64)| {
            let judgement = self.election.nodes()[node].judgement();
            let out = judgement.readiness == Readiness::Out && on_out == OnOut::Cut;
            let weight = (f64::from(self.loads.weight(self.members[node].key)) * part).ceil() as u32;
            Share { weight, cut: out || judgement.cut }
        };
        parts.into_iter().enumerate().map(share).collect()
    }

    /// The writer, and the one before it while its connections may finish. Every other node is out of this service and
    /// loses its connections: a stale node must not keep writers.
    fn writer_alone(&self) -> Vec<Share> {
        let (writer, leaving) = (self.election.writer(), self.leaving());
        let share = |node: usize| match Some(node) {
            this if this == writer => Share { weight: WEIGHT, cut: false },
            this => Share { weight: 0, cut: this != leaving },
        };
        (0..self.members.len()).map(share).collect()
    }
}

/// What an earlier agent's data path says of a cluster: who took new connections, and who of these was the writer.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By services of the writer.
    pub writer: Option<SocketAddr>,
    /// By other services.
    pub served: Vec<SocketAddr>,
}

impl Found {
    /// Of the cluster of this name; `active` are services and backends that took new connections.
    pub fn of(
        name: &str,
        services: &[config::Service],
        active: &[(crate::listen::Listen, SocketAddr)],
    ) -> Self {
        let mut found = Self::default();
        for service in services {
            let config::Target::Cluster { cluster, role, .. } = &service.target else { continue };
            let mut taking =
                active.iter().filter(|(listen, _)| *listen == service.listen).map(|(_, node)| *node);
            match role {
                _ if cluster != name => {}
                Role::Writer => found.writer = found.writer.or(taking.next()),
                Role::Reader(_) | Role::Any => found.served.extend(taking),
            }
        }
        found
    }
}
