//! From what is wanted to what stands in the maps: beside the old state, then one update for each service.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::IpAddr,
};

use lb_common::abi::{Service, ServiceKey, mode};

use super::{
    Dataplane, DataplaneError,
    common::{Common, Server},
    desired::{Desired, DesiredService},
    family::{BALANCED, Family, Ip},
};
use crate::listen::Listen;

impl Dataplane {
    /// Make the maps say what is wanted. What fails for one service does not hold up the others; all errors come back.
    ///
    /// A service of settled slots changes its ring once a second at most; what has to wait is published by
    /// [`tick`](Self::tick).
    pub fn publish(&mut self, desired: &Desired) -> Vec<DataplaneError> {
        self.common.free_rested();
        self.common.limits = limits(desired);
        self.common.keep_ports = keep_ports(desired);
        self.common.heartbeat.allow(desired.agent_lost_after);
        self.common.taken_services = self.v4.service_ids().chain(self.v6.service_ids()).collect();
        self.common.taken_backends =
            self.v4.backends.keys().chain(self.v6.backends.keys()).copied().collect();
        let mut errors = Vec::new();
        let mut waits = false;
        for service in &desired.services {
            waits |= match service.listen.address {
                IpAddr::V4(_) => self.v4.publish(&mut self.common, service, &mut errors),
                IpAddr::V6(_) => self.v6.publish(&mut self.common, service, &mut errors),
            };
        }
        let wanted: BTreeSet<Listen> = desired.services.iter().map(|service| service.listen).collect();
        self.v4.withdraw_others(&mut self.common, &wanted, &mut errors);
        self.v6.withdraw_others(&mut self.common, &wanted, &mut errors);
        self.v4.publish_addresses(desired, &mut errors);
        self.v6.publish_addresses(desired, &mut errors);
        self.waiting = waits.then(|| desired.clone());
        errors
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
