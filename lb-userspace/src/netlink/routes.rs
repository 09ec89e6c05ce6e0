//! By which interface and neighbour a backend is reached, as the kernel's own route lookup says.

use std::{fmt, net::Ipv4Addr};

use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType, RouteVia},
};

use super::{Netlink, NetlinkError, collect};

/// How packets to a backend leave this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface they leave by.
    pub interface: u32,
    /// The address that the kernel would send from.
    pub source: Ipv4Addr,
    /// The router, or `None` if the backend is on the link.
    pub gateway: Option<Ipv4Addr>,
    /// The MAC of the router or of the backend; `None` while it is not resolved.
    pub mac: Option<[u8; 6]>,
}

impl NextHop {
    /// The address whose MAC is needed: the router's, or the backend's own.
    pub fn neighbour_of(&self, backend: Ipv4Addr) -> Ipv4Addr {
        self.gateway.unwrap_or(backend)
    }
}

/// Why packets cannot be forwarded to a backend by MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Obstacle {
    /// The backend's address is one of this host; its replies would never come in by an interface.
    Local,
    /// The kernel has no route, or one that does not forward; the kernel's words.
    NoRoute(String),
    /// The route is there and the neighbour is being asked.
    Resolving,
    /// The neighbour does not answer ARP.
    NoAnswer,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("is an address of this host"),
            Self::NoRoute(reason) => write!(f, "no route: {reason}"),
            Self::Resolving => f.write_str("resolving"),
            Self::NoAnswer => f.write_str("no answer to ARP"),
        }
    }
}

/// What is known about the way to a backend: a hop with a MAC and no obstacle, a hop without MAC and the
/// reason, or no hop and the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolution {
    /// The way there, if there is a route.
    pub hop: Option<NextHop>,
    /// What is in the way, if anything is.
    pub obstacle: Option<Obstacle>,
}

impl Resolution {
    fn blocked(obstacle: Obstacle) -> Self {
        Self { hop: None, obstacle: Some(obstacle) }
    }
}

impl Netlink {
    /// The way to a backend as of now: the route, then the neighbour table. Does not resolve anything by
    /// itself; that is what [`Watcher`](super::Watcher) is for.
    pub async fn next_hop(&self, backend: Ipv4Addr) -> Result<Resolution, NetlinkError> {
        let mut resolution = self.route(backend).await?;
        if let Some(hop) = &mut resolution.hop {
            let key = (hop.interface, hop.neighbour_of(backend));
            let neighbours = self.neighbours().await?;
            let neighbour = neighbours.iter().find(|(known, _)| *known == key).map(|(_, entry)| entry);
            hop.mac = neighbour.and_then(|neighbour| neighbour.mac);
            resolution.obstacle = obstacle_of(neighbour);
        }
        Ok(resolution)
    }

    /// The route only: a hop comes without MAC and as resolving. That there is no route is an answer, not an
    /// error.
    pub(super) async fn route(&self, backend: Ipv4Addr) -> Result<Resolution, NetlinkError> {
        let question = RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(backend, 32).build();
        let answer = collect("look up a route", self.handle.route().get(question).execute()).await;
        match answer {
            Ok(routes) => Ok(routes.first().map_or_else(
                || Resolution::blocked(Obstacle::NoRoute("the kernel names none".to_owned())),
                resolution_of,
            )),
            Err(NetlinkError::Refused { source, .. }) if is_no_route(&source) => {
                Ok(Resolution::blocked(Obstacle::NoRoute(source.to_string())))
            }
            Err(error) => Err(error),
        }
    }
}

/// What the neighbour table says about a hop's MAC.
pub(super) fn obstacle_of(neighbour: Option<&super::Neighbour>) -> Option<Obstacle> {
    match neighbour {
        Some(neighbour) if neighbour.mac.is_some() => None,
        Some(neighbour) if neighbour.failed() => Some(Obstacle::NoAnswer),
        _ => Some(Obstacle::Resolving),
    }
}

/// The errors by which `fib_lookup` says unreachable, host unreachable, prohibit and blackhole
/// (`net/ipv4/fib_semantics.c`, `fib_props`).
fn is_no_route(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL | libc::ENETDOWN)
    )
}

fn resolution_of(route: &RouteMessage) -> Resolution {
    match route.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Resolution::blocked(Obstacle::Local),
        kind => {
            let reason = format!("the route is of type {kind:?}").to_lowercase();
            return Resolution::blocked(Obstacle::NoRoute(reason));
        }
    }
    let mut interface = None;
    let mut hop = NextHop { interface: 0, source: Ipv4Addr::UNSPECIFIED, gateway: None, mac: None };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => interface = Some(*index),
            RouteAttribute::PrefSource(RouteAddress::Inet(source)) => hop.source = *source,
            RouteAttribute::Gateway(RouteAddress::Inet(gateway))
            | RouteAttribute::Via(RouteVia::Inet(gateway)) => hop.gateway = Some(*gateway),
            RouteAttribute::Via(_) => {
                let reason = "its gateway is not an IPv4 address".to_owned();
                return Resolution::blocked(Obstacle::NoRoute(reason));
            }
            _ => {}
        }
    }
    let Some(interface) = interface else {
        return Resolution::blocked(Obstacle::NoRoute("the kernel names no interface".to_owned()));
    };
    hop.interface = interface;
    Resolution { hop: Some(hop), obstacle: Some(Obstacle::Resolving) }
}
