//! From what is wanted to what stands in the maps: beside the old state, then one update for each service.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use lb_common::abi::{Service, ServiceKey, mode, no_backend, service_flag};

use super::{
    Dataplane, DataplaneError,
    common::{Common, Server},
    desired::{Desired, DesiredService},
    family::{BALANCED, Family, Ip},
    service::{KnownService, begin_alike},
};
use crate::listen::Listen;

impl Dataplane {
    /// Make the maps say what is wanted. What fails for one service does not hold up the others; all errors come back.
    ///
    /// A service of settled slots changes its ring once a second at most; what has to wait is published by
    /// [`tick`](Self::tick).
    pub fn publish(&mut self, desired: &Desired) -> Vec<DataplaneError> {
        let mut errors = Vec::new();
        let farewells = self.farewells(desired);
        let waits = if farewells.is_empty() {
            self.publish_all(desired, &mut errors)
        } else {
            let mut all = desired.clone();
            all.services.extend(farewells);
            self.publish_all(&all, &mut errors);
            // What has retired goes when its last connection has, with the publication after that.
            true
        };
        self.waiting = waits.then(|| desired.clone());
        errors
    }

    /// What becomes of services that an earlier agent published and this one's first publication does not name: nobody
    /// is told to end a connection because an agent started with another file. They take no new ones.
    fn farewells(&mut self, desired: &Desired) -> Vec<DesiredService> {
        let named: BTreeSet<Listen> = desired.services.iter().map(|service| service.listen).collect();
        let known = self.v4.services.keys().chain(self.v6.services.keys());
        let retired = self.retired.take().unwrap_or_else(|| {
            let retired: BTreeSet<Listen> = known.filter(|known| !named.contains(known)).copied().collect();
            for listen in &retired {
                log::info!("{listen} is configured no more: it takes no new connections, those that it has may finish");
            }
            retired
        });
        let farewells: Vec<DesiredService> = retired
            .into_iter()
            .filter(|listen| !named.contains(listen) && !named.iter().any(|named| begin_alike(named, listen)))
            .filter_map(|listen| self.v4.farewell(listen).or_else(|| self.v6.farewell(listen)))
            .collect();
        self.retired = Some(farewells.iter().map(|service| service.listen).collect());
        farewells
    }

    /// Whether something waits for a ring's next change.
    fn publish_all(&mut self, desired: &Desired, errors: &mut Vec<DataplaneError>) -> bool {
        self.common.free_rested();
        self.common.limits = limits(desired);
        self.common.keep_ports = keep_ports(desired);
        self.common.heartbeat.allow(desired.agent_lost_after);
        self.common.taken_services = self.v4.service_ids().chain(self.v6.service_ids()).collect();
        self.common.taken_backends =
            self.v4.backends.keys().chain(self.v6.backends.keys()).copied().collect();
        let mut waits = false;
        for service in &desired.services {
            waits |= match service.listen.address {
                IpAddr::V4(_) => self.v4.publish(&mut self.common, service, errors),
                IpAddr::V6(_) => self.v6.publish(&mut self.common, service, errors),
            };
        }
        let wanted: BTreeSet<Listen> = desired.services.iter().map(|service| service.listen).collect();
        self.v4.withdraw_others(&mut self.common, &wanted, errors);
        self.v6.withdraw_others(&mut self.common, &wanted, errors);
        self.v4.publish_addresses(desired, errors);
        self.v6.publish_addresses(desired, errors);
        waits
    }

    /// Publish what had to wait; call it once a second. `None`: nothing had to.
    pub fn tick(&mut self) -> Option<Vec<DataplaneError>> {
        let desired = self.waiting.take()?;
        Some(self.publish(&desired))
    }
}

/// The least of the limits that are stated for each server.
fn limits(desired: &Desired) -> HashMap<Server, u32> {
    let mut limits = HashMap::new();
    for service in &desired.services {
        for backend in &service.backends {
            if let Some(limit) = backend.max_connections {
                let server = (backend.address, service.listen.protocol.number());
                let least = limits.entry(server).or_insert(limit);
                *least = limit.min(*least);
            }
        }
    }
    limits
}

/// The servers that are reached in `snat` at the ports that clients connected to, with the protocol's number.
fn keep_ports(desired: &Desired) -> HashSet<(IpAddr, u8)> {
    let of_snat = desired.services.iter().filter(|service| service.mode == mode::SNAT);
    let servers = of_snat.flat_map(|service| {
        let protocol = service.listen.protocol.number();
        service.backends.iter().map(move |backend| (backend.address, protocol))
    });
    servers.filter(|(server, _)| server.port() == 0).map(|(server, number)| (server.ip(), number)).collect()
}

impl<A: Ip> Family<A> {
    fn publish(
        &mut self,
        common: &mut Common,
        service: &DesiredService,
        errors: &mut Vec<DataplaneError>,
    ) -> bool {
        if self.collides(&service.listen) {
            errors.push(DataplaneError::RangesCollide { service: service.listen });
            return false;
        }
        self.publish_service(common, service, errors)
    }

    /// A service as it stands in the maps, without backends to take new connections; `None` if it has none left.
    fn farewell(&self, listen: Listen) -> Option<DesiredService> {
        let KnownService { entry, timeouts, .. } = self.services.get(&listen)?;
        if !self.backends.values().any(|backend| backend.service == entry.id) {
            return None;
        }
        Some(DesiredService {
            listen,
            mode: entry.mode,
            algorithm: entry.algorithm,
            on_change: entry.flags & service_flag::ON_CHANGE != 0,
            no_backend: no_backend::RESET,
            hold: Duration::ZERO,
            timeouts: *timeouts,
            max_connections: None,
            rate: None,
            pass_lost: entry.flags & service_flag::PASS_LOST != 0,
            backends: Vec::new(),
        })
    }

    /// Ids of services that something means.
    fn service_ids(&self) -> impl Iterator<Item = u16> + '_ {
        let of_backends = self.backends.values().map(|backend| backend.service);
        self.services.values().map(|known| known.entry.id).chain(of_backends)
    }

    fn withdraw_others(
        &mut self,
        common: &mut Common,
        wanted: &BTreeSet<Listen>,
        errors: &mut Vec<DataplaneError>,
    ) {
        let gone: Vec<Listen> =
            self.services.keys().filter(|known| !wanted.contains(known)).copied().collect();
        errors.extend(gone.iter().filter_map(|listen| self.withdraw(common, listen).err()));
    }

    /// The addresses that are known by themselves: whose echo requests are answered, and which are balanced at all.
    fn publish_addresses(&mut self, desired: &Desired, errors: &mut Vec<DataplaneError>) {
        let echo = desired.echo.iter().map(|address| (*address, A::ECHO));
        let balanced = desired.services.iter().map(|service| (service.listen.address, BALANCED));
        let wanted: BTreeSet<_> =
            echo.chain(balanced).filter(|(address, _)| A::of(*address).is_some()).collect();
        for entry in wanted.symmetric_difference(&self.addresses.clone()) {
            let Some(address) = A::of(entry.0) else { continue };
            let key = A::ServiceKey::from(ServiceKey { address, protocol: entry.1, ..ServiceKey::default() });
            let written = if wanted.contains(entry) {
                self.addresses.insert(*entry);
                self.maps.services.insert(key, Service::default(), 0)
            } else {
                self.addresses.remove(entry);
                self.maps.services.remove(&key)
            };
            if let Err(error) = written {
                errors.push(DataplaneError::write(A::NAMES.services)(error));
            }
        }
    }
}
