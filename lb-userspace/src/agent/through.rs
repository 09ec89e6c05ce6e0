//! Probes that take the way of the service's own packets, in modes whose backends answer clients directly.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, SocketAddr},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use crate::{
    config::Mode,
    cut::{Hop, Tunnel},
    dataplane::Way,
    listen::{Listen, Ports, Protocol},
    probe::{
        Failure, FailureKind,
        handshake::{Handshakes, Path},
    },
};

/// How backends are reached at this moment: written by the controller, read by probes.
#[derive(Clone, Debug, Default)]
pub struct Roads(Arc<RwLock<HashMap<IpAddr, Way>>>);

impl Roads {
    /// The way to a backend; `None`: there is none.
    pub fn put(&self, backend: IpAddr, way: Option<Way>) {
        let mut roads = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match way {
            Some(way) => roads.insert(backend, way),
            None => roads.remove(&backend),
        };
    }

    /// Forget all but the ways to these.
    pub fn keep(&self, backends: &BTreeSet<IpAddr>) {
        let mut roads = self.0.write().unwrap_or_else(PoisonError::into_inner);
        roads.retain(|backend, _| backends.contains(backend));
    }

    fn get(&self, backend: IpAddr) -> Option<Way> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&backend).cloned()
    }
}

/// What must answer besides a backend's own address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// The service's address, and a port of it.
    pub service: SocketAddr,
    /// It is reached through a tunnel.
    pub tunnel: bool,
}

impl Beyond {
    /// For a service over TCP whose backends answer clients directly; its port is that of the backend where it has
    /// several.
    pub fn new(listen: Listen, mode: Mode, backend: SocketAddr) -> Option<Self> {
        let tunnel = match mode {
            Mode::Dsr => false,
            Mode::Ipip => true,
            Mode::Snat | Mode::Dnat => return None,
        };
        let port = match listen.ports {
            Ports::One(port) => port,
            _ => backend.port(),
        };
        let asked = listen.protocol == Protocol::Tcp && port != 0;
        asked.then_some(Self { service: SocketAddr::new(listen.address, port), tunnel })
    }
}

/// Asks one backend for the service's address.
#[derive(Clone, Debug)]
pub struct Through {
    /// Shared by all.
    pub handshakes: Handshakes,
    /// Where its way stands.
    pub roads: Roads,
    /// Which backend.
    pub backend: IpAddr,
    /// What for.
    pub beyond: Beyond,
}

impl Through {
    /// Asks once. Where nobody knows the way yet there is nothing to ask, and nothing against the backend.
    pub async fn ask(&self, timeout: Duration) -> Result<(), Failure> {
        let Some(path) = self.path() else { return Ok(()) };
        match self.handshakes.probe(&path, timeout).await {
            Ok(_) => Ok(()),
            Err(failure) if failure.kind == FailureKind::TimedOut => Err(Failure {
                detail: format!("{} {}: {}", self.backend, failure.detail, self.advice()),
                ..failure
            }),
            Err(failure) => {
                Err(Failure { detail: format!("{} {}", self.backend, failure.detail), ..failure })
            }
        }
    }

    fn path(&self) -> Option<Path> {
        let way = self.roads.get(self.backend)?;
        let Beyond { service, tunnel } = self.beyond;
        // What goes out from the service's own address is taken for the backend's.
        let source = way.sources.iter().copied().find(|source| *source != service.ip())?;
        let outer = *way.sources.first()?;
        let hop = Hop {
            interface: way.interface,
            source: way.interface_mac,
            destination: way.mac,
            vlan: None,
            tunnel: tunnel.then_some(Tunnel { from: outer, to: self.backend }),
        };
        Some(Path { hop, source, service })
    }

    /// What is probably missing at the backend, and what to type there.
    fn advice(&self) -> String {
        let address = self.beyond.service.ip();
        let (bits, old, new) =
            if address.is_ipv4() { (32, "tunl0", "ipip") } else { (128, "ip6tnl0", "ip6_tunnel") };
        if self.beyond.tunnel {
            format!(
                "does it take tunnels apart, and is the address on its loopback? There: modprobe {new}; ip link set {old} up; ip addr add {address}/{bits} dev lo"
            )
        } else {
            format!("is it on its loopback? There: ip addr add {address}/{bits} dev lo")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_backends_that_answer_clients_directly_over_tcp_are_asked_for_the_services_address() {
        let backend: SocketAddr = "10.0.0.11:8080".parse().unwrap();
        let one = Listen::tcp("203.0.113.10:80".parse().unwrap());
        let all = Listen { ports: Ports::All, ..one };
        let udp = Listen { protocol: Protocol::Udp, ..one };
        for (listen, mode, service, tunnel) in [
            (one, Mode::Dsr, Some("203.0.113.10:80"), false),
            (one, Mode::Ipip, Some("203.0.113.10:80"), true),
            (all, Mode::Dsr, Some("203.0.113.10:8080"), false),
            (udp, Mode::Dsr, None, false),
            (one, Mode::Snat, None, false),
            (one, Mode::Dnat, None, false),
        ] {
            let wanted = service.map(|service| Beyond { service: service.parse().unwrap(), tunnel });
            assert_eq!(Beyond::new(listen, mode, backend), wanted, "{listen:?} {mode}");
        }
        let portless = SocketAddr::new(backend.ip(), 0);
        assert_eq!(Beyond::new(all, Mode::Dsr, portless), None, "nobody knows which port");
    }
}
