//! How backends are reached: what netlink says of next hops, as the data path wants it.

use std::net::IpAddr;

use super::{controller::Controller, machine::addresses};
use crate::{
    api::{Entry, Topic},
    config,
    dataplane::Way,
    netlink::{NextHop, NextHopChanged, Obstacle},
};

impl Controller {
    /// A backend's next hop has changed.
    pub(super) fn hop(&mut self, changed: &NextHopChanged) {
        let backend = changed.backend;
        self.remember_hop(changed);
        let way = changed.hop.as_ref().and_then(|hop| self.way(hop));
        if way.is_none() && changed.hop.as_ref().is_some_and(|hop| self.may_come_to_be_ours(hop.interface)) {
            return;
        }
        let obstacle = match (&way, &changed.obstacle, &changed.hop) {
            (Some(_), ..) => None,
            (None, Some(obstacle), _) => Some(obstacle.to_string()),
            (None, None, Some(hop)) if hop.mac.is_some() => Some(format!(
                "it is reached by interface {}, which is not one of `interfaces`",
                hop.interface
            )),
            (None, None, _) => Some("its MAC address is not known yet".to_owned()),
        };
        match (way, obstacle) {
            (Some(way), _) => {
                if self.ways.get(&backend) != Some(&way) {
                    log::debug!("{backend}: next hop {:02x?}", way.mac);
                    self.look_at_source(backend, changed.hop.as_ref().and_then(|hop| hop.source));
                    self.probers.roads().put(backend, Some(way.clone()));
                    self.ways.insert(backend, way);
                }
                let former = self.obstacles.remove(&backend);
                if former.is_some_and(|former| former != Obstacle::Resolving.to_string()) {
                    let what = "the way there is known again";
                    self.journal.record(Entry::new(Topic::Way, backend.to_string(), what));
                }
            }
            (None, Some(obstacle)) => {
                // While a neighbour is asked again, its last answer is the best guess.
                let resolving = matches!(changed.obstacle, Some(Obstacle::Resolving));
                if resolving && self.ways.contains_key(&backend) {
                    return;
                }
                self.ways.remove(&backend);
                self.probers.roads().put(backend, None);
                if self.obstacles.insert(backend, obstacle.clone()).as_ref() != Some(&obstacle) {
                    // Each address is asked for once at the start: that is no trouble yet.
                    if resolving {
                        log::debug!("{backend}: no way there: {obstacle}");
                    } else {
                        let entry = Entry::new(Topic::Way, backend.to_string(), "no way there");
                        self.journal.record(entry.because(obstacle).warning());
                    }
                }
            }
            (None, None) => {}
        }
        self.publish();
    }

    /// A hop by one of our interfaces whose MAC addresses are known.
    fn way(&self, hop: &NextHop) -> Option<Way> {
        let sources = sources(&self.config.sources, hop.source?);
        let Some((interface, _, exit)) =
            self.fixed.attached.iter().find(|(known, ..)| known.index == hop.interface)
        else {
            return self.way_by_bridge(hop, sources);
        };
        Some(Way {
            mac: hop.mac?,
            interface: hop.interface,
            interface_mac: interface.mac?,
            mtu: hop.mtu,
            exit: *exit,
            sources,
        })
    }

    /// Says so if this host sends to a backend from an address that the backend has too, for it would not be answered.
    fn look_at_source(&self, backend: IpAddr, source: Option<IpAddr>) {
        let config = &self.config;
        let Some(source) = source else { return };
        let shared = config.services.iter().any(|service| {
            matches!(service.mode, config::Mode::Dsr | config::Mode::Ipip)
                && service.listen.address == source
                && addresses(config, &service.target).iter().any(|server| server.ip() == backend)
        });
        if shared {
            let command = if source.is_ipv6() { "ip -6 addr change" } else { "ip addr change" };
            log::warn!(
                "{backend}: this host sends there from {source}, the service's own address, which the backend has too, so no probe of it is answered; `{command} {source}/PREFIX dev IFACE preferred_lft 0` makes it use another one"
            );
        }
    }

    /// Whether there is a way to an address, or a reason for none.
    pub(super) fn way_known(&self, address: IpAddr) -> bool {
        self.ways.contains_key(&address) || self.obstacles.contains_key(&address)
    }

    /// The next hop in the words of `lb status`.
    pub(super) fn next_hop(&self, address: IpAddr) -> String {
        match (self.ways.get(&address), self.obstacles.get(&address)) {
            (Some(way), _) => {
                let name = self.interface_name(way.interface);
                let mac: Vec<String> = way.mac.iter().map(|byte| format!("{byte:02x}")).collect();
                format!("{} via {name}", mac.join(":"))
            }
            (None, Some(obstacle)) => obstacle.clone(),
            (None, None) => "not looked up yet".to_owned(),
        }
    }
}

/// The configured addresses of the route's version of IP; where there are none, the route's own.
fn sources(configured: &[IpAddr], route: IpAddr) -> Vec<IpAddr> {
    let pool: Vec<IpAddr> =
        configured.iter().filter(|source| source.is_ipv4() == route.is_ipv4()).copied().collect();
    if pool.is_empty() { vec![route] } else { pool }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_see_the_configured_addresses_of_their_version_of_ip_or_the_routes_own() {
        let list = |text: &str| text.split_whitespace().map(|word| word.parse().unwrap()).collect::<Vec<_>>();
        for (configured, route, seen) in [
            ("", "10.0.0.1", "10.0.0.1"),
            ("10.0.0.2 10.0.0.3", "10.0.0.1", "10.0.0.2 10.0.0.3"),
            ("10.0.0.2 2001:db8::2", "10.0.0.1", "10.0.0.2"),
            ("10.0.0.2 2001:db8::2", "2001:db8::1", "2001:db8::2"),
            ("10.0.0.2", "2001:db8::1", "2001:db8::1"),
        ] {
            assert_eq!(sources(&list(configured), list(route)[0]), list(seen), "{configured}, {route}");
        }
    }
}
