//! From one configuration to another: what is known of those that stay is kept.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    mem,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    departure::Leaving,
    merge::{Leaver, merge, with_discovered},
};
use crate::{
    agent::{
        clusters::{self, Galera},
        controller::Controller,
        descriptors,
        machine::addresses,
        probers::{BackendAt, NodeAt, Probers},
        services::{self, Backends},
        shares::Found,
        through::Beyond,
    },
    config::{self, Config, Role, Target},
    health::Moment,
    listen::Listen,
};

impl Controller {
    /// Run what the file says, whom discovery has found, and those that leave, but for those that are gone. `deadline`:
    /// when connections of those are cut that leave from now on.
    pub(in crate::agent) fn rebuild(&mut self, deadline: Option<Duration>, gone: &BTreeSet<Leaver>) {
        let now = self.now();
        let wanted = with_discovered(&self.file_says, &self.state.discovered);
        let (config, leavers) = merge(wanted, &self.config, gone);
        let before = mem::replace(&mut self.config, config);
        let mut known = mem::take(&mut self.leavers);
        self.leavers = leavers
            .into_iter()
            .map(|who| {
                let deadline = deadline.map(|within| now + within);
                let leaving = known.remove(&who).unwrap_or(Leaving { since: now, deadline });
                (who, leaving)
            })
            .collect();
        descriptors::allow(&self.config, &before);
        let active = self.active.clone();
        self.rebuild_services(&before, now);
        self.rebuild_clusters(&before, &active, now);
        self.forget_wishes();
        self.sources.follow(&self.file_says, &self.state.discovered, &self.events);
        self.watch_ways();
        for index in 0..self.services.len() {
            self.step(index, now);
        }
        self.publish();
    }

    fn rebuild_services(&mut self, before: &Config, now: Moment) {
        let states = mem::take(&mut self.services);
        let mut known: Vec<_> = before.services.iter().zip(states).collect();
        // What an earlier agent's data path served counts once, at the start.
        let active = mem::take(&mut self.active);
        for service in &self.config.services {
            let place = known.iter().position(|(old, _)| old.listen == service.listen);
            let (old, state) = place.map(|place| known.swap_remove(place)).unzip();
            let all = self.leavers.contains_key(&Leaver::Service(service.listen));
            let said = services::Said {
                wish: &|name| self.state.wish(&service.name, name),
                leaves: &|address| {
                    all || self.leavers.contains_key(&Leaver::Backend(service.listen, address))
                },
                served: &|address| active.contains(&(service.listen, address)),
            };
            let mut backends = match state.flatten() {
                Some(mut backends) => {
                    backends.reconfigure(service, &said, &mut self.keys, now);
                    Some(backends)
                }
                None => Backends::new(service, &said, &mut self.keys, now),
            };
            if let Some(backends) = &mut backends {
                let same = old.is_some_and(|old| asks_alike(old, service));
                ask(backends, service, same, &mut self.probers);
            }
            self.services.push(backends);
        }
    }

    fn rebuild_clusters(&mut self, before: &Config, active: &[(Listen, SocketAddr)], now: Moment) {
        let mut known: BTreeMap<String, Galera> = mem::take(&mut self.clusters)
            .into_iter()
            .map(|cluster| (cluster.name.clone(), cluster))
            .collect();
        for cluster in &self.config.clusters {
            let said = clusters::Said {
                admin: &|name| self.state.wish(&cluster.name, name).admin,
                leaves: &|address| self.leavers.contains_key(&Leaver::Node(cluster.name.clone(), address)),
            };
            let old = before.clusters.iter().find(|old| old.name == cluster.name);
            let mut galera = if let Some(mut galera) = known.remove(&cluster.name) {
                galera.reconfigure(cluster, &said, &mut self.keys, now);
                galera
            } else {
                let incumbent = self.state.writers.get(&cluster.name).cloned();
                let found = Found::of(&cluster.name, &self.config.services, active);
                let mut galera = Galera::new(cluster, incumbent, &found, &said, &mut self.keys, now);
                galera.election.freeze(self.state.frozen.contains(&cluster.name));
                galera
            };
            galera.election.expect_conflicts(any_writes(&self.config, &cluster.name));
            let same = old.is_some_and(|old| asked_alike(old, cluster));
            let key = galera.key;
            for (member, node) in galera.members.iter_mut().zip(&cluster.nodes) {
                if !same || member.monitor.is_none() {
                    let at = NodeAt { cluster: key, node: member.key };
                    let asked = self.probers.node(at, node, cluster);
                    member.monitor = Some(asked);
                }
            }
            self.clusters.push(galera);
        }
    }

    /// Wishes for those that the configuration does not know are dropped, so that nobody inherits them years later.
    fn forget_wishes(&mut self) {
        let config = &self.file_says;
        // Whom discovery has found comes and goes; a drain must not be forgotten over an answer that comes late.
        let discovered: HashSet<&String> = self.state.discovered.keys().collect();
        let is_known = |name: &str| {
            let (owner, member) = name.split_once('/').unwrap_or((name, ""));
            let service = config.services.iter().find(|service| service.name == owner);
            let backend = service.is_some_and(|service| match &service.target {
                Target::Backends { backends, .. } => {
                    discovered.contains(&service.name)
                        || backends.iter().any(|backend| backend.name == member)
                }
                Target::Cluster { .. } => false,
            });
            let cluster = config.clusters.iter().find(|cluster| cluster.name == owner);
            backend || cluster.is_some_and(|cluster| cluster.nodes.iter().any(|node| node.name == member))
        };
        let mut state = self.state.clone();
        let gone = state.forget(is_known);
        let services = |name: &String| config.services.iter().any(|service| service.name == *name);
        state.discovered.retain(|name, _| services(name));
        for name in &gone {
            log::info!(
                "{name}: the configuration knows it no more; what was set for it at run time is dropped"
            );
        }
        if state != self.state {
            self.state = state;
            self.store();
        }
    }

    /// Keep the ways to all backends known, and to nobody else.
    fn watch_ways(&mut self) {
        let services = self.config.services.iter();
        let servers: BTreeSet<IpAddr> = services
            .flat_map(|service| addresses(&self.config, &service.target))
            .map(|address: SocketAddr| address.ip())
            .collect();
        self.ways.retain(|address, _| servers.contains(address));
        self.probers.roads().keep(&servers);
        self.obstacles.retain(|address, _| servers.contains(address));
        self.watcher.watch(servers);
    }
}

/// Whether nodes are asked in the same way.
fn asked_alike(old: &config::Cluster, new: &config::Cluster) -> bool {
    let ports = |cluster: &config::Cluster| -> Vec<_> {
        cluster.nodes.iter().map(|node| (node.address, node.extra_port)).collect()
    };
    (&old.monitor, old.kind, ports(old)) == (&new.monitor, new.kind, ports(new))
}

/// Whether some service writes to all nodes of a cluster.
fn any_writes(config: &Config, name: &str) -> bool {
    config.services.iter().any(|service| {
        matches!(&service.target, Target::Cluster { cluster, role: Role::Any, .. } if cluster == name)
    })
}

/// Whether backends are asked in the same way.
fn asks_alike(old: &config::Service, new: &config::Service) -> bool {
    match (&old.target, &new.target) {
        (Target::Backends { check, load, .. }, Target::Backends { check: new_check, load: new_load, .. }) => {
            (old.mode, check, load) == (new.mode, new_check, new_load)
        }
        _ => false,
    }
}

/// Start those who ask, and end those who ask leavers or ask in another way. `same`: backends are asked as before.
fn ask(backends: &mut Backends, config: &config::Service, same: bool, probers: &mut Probers) {
    let Target::Backends { check, load, .. } = &config.target else { return };
    let service = backends.key;
    for member in &mut backends.members {
        if member.leaves {
            member.prober = None;
        } else if !same || member.prober.is_none() {
            let at = BackendAt { service, backend: member.key };
            let beyond = Beyond::new(config.listen, config.mode, member.address);
            member.prober = Some(probers.backend(at, member.address, check, load.as_ref(), beyond));
        }
    }
}
