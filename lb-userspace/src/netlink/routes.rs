//! By which interface and neighbour a backend is reached, and how large a packet may be, as the kernel's own route
//! lookup says.
//!
//! `RTM_GETROUTE` with a destination runs the lookup that a packet from this host would run: rules, tables, the choice
//! of a source address (RFC 6724 for IPv6), and path MTU exceptions that ICMP errors left behind.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rtnetlink::{
    RouteMessageBuilder,
    packet_route::route::{
        RouteAddress, RouteAttribute, RouteFlags, RouteLwEnCapType, RouteMessage, RouteMetric, RouteType,
        RouteVia,
    },
};

use super::{
    Interface, Neighbour, NeighbourKey, Netlink, NetlinkError, Prefix, addresses::is_link_local, collect,
    question_about,
};

/// How packets to a backend leave this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextHop {
    /// Index of the interface they leave by.
    pub interface: u32,
    /// The address that the kernel would send from; `None` while this host has none that could.
    pub source: Option<IpAddr>,
    /// The router, or `None` if the backend is on the link. An IPv6 router may be a link-local address, which means
    /// something on `interface` only; an IPv4 backend may have an IPv6 router (RFC 8950).
    pub gateway: Option<IpAddr>,
    /// The MAC of the router or of the backend; `None` while it is not resolved.
    pub mac: Option<[u8; 6]>,
    /// The largest IP packet in bytes: the route's `mtu` or what path MTU discovery found, if less than the interface's.
    pub mtu: u16,
    /// The subnet that the backend shares with this host, without host bits; `None` behind a router. What has an
    /// address in it is answered by the backend directly, not by way of this host.
    pub on_link: Option<Prefix>,
}

impl NextHop {
    /// The address whose MAC is needed: the router's, or the backend's own.
    pub fn neighbour_of(&self, backend: IpAddr) -> IpAddr {
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
    /// The route is there, and this host has no address of the family, or only tentative ones.
    NoSource,
    /// The route is there and the neighbour is being asked.
    Resolving,
    /// Nobody answers ARP or neighbour discovery.
    NoAnswer {
        /// Who was asked for: the router, or the backend itself.
        neighbour: IpAddr,
        /// Whether that is the router.
        router: bool,
    },
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local => f.write_str("is an address of this host"),
            Self::NoRoute(reason) => write!(f, "no route: {reason}"),
            Self::NoSource => f.write_str("this host has no address to send from there"),
            Self::Resolving => f.write_str("resolving"),
            Self::NoAnswer { neighbour, router: false } => {
                write!(f, "no answer to {}", question_about(*neighbour))
            }
            Self::NoAnswer { neighbour, router: true } => {
                write!(f, "no answer to {} by the router {neighbour}", question_about(*neighbour))
            }
        }
    }
}

/// What is known about the way to a backend: a hop with a MAC and no obstacle, a hop and what is in the way, or
/// no hop and the reason.
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

    fn no_route(reason: impl Into<String>) -> Self {
        Self::blocked(Obstacle::NoRoute(reason.into()))
    }

    /// The neighbour entry that the way needs.
    pub(super) fn key(&self, backend: IpAddr) -> Option<NeighbourKey> {
        self.hop.as_ref().map(|hop| (hop.interface, hop.neighbour_of(backend)))
    }

    /// The same with what the neighbour table says.
    pub(super) fn with(mut self, backend: IpAddr, neighbour: Option<&Neighbour>) -> Self {
        let Some(hop) = &mut self.hop else { return self };
        hop.mac = neighbour.and_then(|neighbour| neighbour.mac);
        self.obstacle = match neighbour {
            Some(neighbour) if neighbour.failed() => Some(Obstacle::NoAnswer {
                neighbour: hop.neighbour_of(backend),
                router: hop.gateway.is_some(),
            }),
            _ if hop.mac.is_none() => Some(Obstacle::Resolving),
            _ if hop.source.is_none() => Some(Obstacle::NoSource),
            _ => None,
        };
        self
    }
}

impl Netlink {
    /// The way to a backend as of now: the route, then the neighbour table. Does not resolve anything by
    /// itself; that is what [`Watcher`](super::Watcher) is for.
    pub async fn next_hop(&self, backend: IpAddr) -> Result<Resolution, NetlinkError> {
        let interfaces = self.interfaces().await?;
        let resolution = self.route(backend, &interfaces).await?;
        let Some(key) = resolution.key(backend) else { return Ok(resolution) };
        let neighbours = self.neighbours().await?;
        let neighbour = neighbours.iter().find(|(known, _)| *known == key).map(|(_, entry)| entry);
        Ok(resolution.with(backend, neighbour))
    }

    /// The subnets that backends share with this host, and who is in each; a backend behind a router is in none.
    ///
    /// A client in such a subnet sends by way of this host, and the backend answers it directly: where replies must come
    /// back through this host (`dnat`), that client never gets an answer.
    pub async fn shared_subnets(
        &self,
        backends: impl IntoIterator<Item = IpAddr>,
    ) -> Result<BTreeMap<Prefix, Vec<IpAddr>>, NetlinkError> {
        let interfaces = self.interfaces().await?;
        let mut subnets: BTreeMap<Prefix, Vec<IpAddr>> = BTreeMap::new();
        for backend in backends {
            let resolution = self.route(backend, &interfaces).await?;
            if let Some(subnet) = resolution.hop.and_then(|hop| hop.on_link) {
                subnets.entry(subnet).or_default().push(backend);
            }
        }
        Ok(subnets)
    }

    /// The route only: a hop comes without MAC and as resolving. That there is no route is an answer, not an
    /// error. `interfaces` are all that there are.
    pub(super) async fn route(
        &self,
        backend: IpAddr,
        interfaces: &[Interface],
    ) -> Result<Resolution, NetlinkError> {
        if is_link_local(backend) {
            return Ok(Resolution::no_route("a link-local address does not say which link"));
        }
        let answer = match self.ask_route(backend, RouteFlags::empty()).await? {
            Ok(answer) => answer,
            Err(reason) => return Ok(Resolution::no_route(reason)),
        };
        let way = match way_of(&answer) {
            Ok(way) => way,
            Err(obstacle) => return Ok(Resolution::blocked(obstacle)),
        };
        let Some(interface) = interfaces.iter().find(|known| known.index == way.interface) else {
            // It came after the list was made; its announcement brings the next look.
            return Ok(Resolution::no_route("its interface has only just appeared"));
        };
        let on_link = match way.gateway {
            Some(_) => None,
            None => Some(self.subnet_of(backend, interface).await?),
        };
        let fits = interface.mtu_for(backend).min(way.mtu.unwrap_or(u32::MAX));
        let hop = NextHop {
            interface: way.interface,
            source: way.source,
            gateway: way.gateway,
            mac: None,
            mtu: u16::try_from(fits).unwrap_or(u16::MAX),
            on_link,
        };
        Ok(Resolution { hop: Some(hop), obstacle: Some(Obstacle::Resolving) })
    }

    /// Whether the kernel takes packets to the address for its own.
    pub(super) async fn is_routed_here(&self, address: IpAddr) -> Result<bool, NetlinkError> {
        let answer = self.ask_route(address, RouteFlags::empty()).await?;
        Ok(answer.is_ok_and(|route| route.header.kind == RouteType::Local))
    }

    /// The subnet of an address on the link: of the interface's own addresses, as the backend most probably has it too;
    /// else what the route covers, as where the interface has a host address only.
    async fn subnet_of(&self, backend: IpAddr, interface: &Interface) -> Result<Prefix, NetlinkError> {
        let own = interface.addresses.iter().filter(|prefix| prefix.contains(backend));
        if let Some(own) = own.max_by_key(|prefix| prefix.length) {
            return Ok(own.network());
        }
        let (length, any): (u8, IpAddr) = match backend {
            IpAddr::V4(_) => (32, Ipv4Addr::UNSPECIFIED.into()),
            IpAddr::V6(_) => (128, Ipv6Addr::UNSPECIFIED.into()),
        };
        let Ok(route) = self.ask_route(backend, RouteFlags::FibMatch).await? else {
            return Ok(Prefix { address: backend, length });
        };
        let address = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(destination) => ip_of(destination),
            _ => None,
        });
        Ok(Prefix { address: address.unwrap_or(any), length: route.header.destination_prefix_length })
    }

    /// The kernel's lookup; the inner error is why there is no route, in its words.
    async fn ask_route(
        &self,
        destination: IpAddr,
        flags: RouteFlags,
    ) -> Result<Result<RouteMessage, String>, NetlinkError> {
        let mut question = match destination {
            IpAddr::V4(address) => {
                RouteMessageBuilder::<Ipv4Addr>::new().destination_prefix(address, 32).build()
            }
            IpAddr::V6(address) => {
                RouteMessageBuilder::<Ipv6Addr>::new().destination_prefix(address, 128).build()
            }
        };
        question.header.flags = flags;
        match collect("look up a route", self.handle.route().get(question).execute()).await {
            Ok(routes) => Ok(routes.into_iter().next().ok_or_else(|| "the kernel names none".to_owned())),
            Err(NetlinkError::Refused { source, .. }) if is_no_route(&source) => Ok(Err(source.to_string())),
            Err(error) => Err(error),
        }
    }
}

/// The errors by which `fib_lookup` says unreachable, host unreachable, prohibit and blackhole
/// (`net/ipv4/fib_semantics.c`, `fib_props`; `net/ipv6/route.c` uses the same), and those of a kernel without IPv6.
fn is_no_route(error: &std::io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::ENETUNREACH
                | libc::EHOSTUNREACH
                | libc::EACCES
                | libc::EINVAL
                | libc::ENETDOWN
                | libc::EAFNOSUPPORT
                | libc::EOPNOTSUPP
        )
    )
}

/// What the kernel's answer says by itself.
struct RouteWay {
    interface: u32,
    source: Option<IpAddr>,
    gateway: Option<IpAddr>,
    mtu: Option<u32>,
}

fn way_of(route: &RouteMessage) -> Result<RouteWay, Obstacle> {
    let no_route = |reason: &str| Err(Obstacle::NoRoute(reason.to_owned()));
    match route.header.kind {
        RouteType::Unicast => {}
        RouteType::Local => return Err(Obstacle::Local),
        kind => return no_route(&format!("the route is of type {kind:?}").to_lowercase()),
    }
    let mut way = RouteWay { interface: 0, source: None, gateway: None, mtu: None };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(index) => way.interface = *index,
            RouteAttribute::PrefSource(source) => way.source = ip_of(source),
            RouteAttribute::Gateway(gateway) => way.gateway = ip_of(gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => way.gateway = Some(IpAddr::V4(*gateway)),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => way.gateway = Some(IpAddr::V6(*gateway)),
            RouteAttribute::Via(_) => return no_route("its gateway is not an IP address"),
            RouteAttribute::EncapType(kind) if *kind != RouteLwEnCapType::None => {
                return no_route("the route encapsulates, which the data path does not");
            }
            RouteAttribute::Metrics(metrics) => way.mtu = metrics.iter().find_map(mtu_of),
            _ => {}
        }
    }
    if way.interface == 0 { no_route("the kernel names no interface") } else { Ok(way) }
}

fn mtu_of(metric: &RouteMetric) -> Option<u32> {
    match metric {
        RouteMetric::Mtu(mtu) if *mtu > 0 => Some(*mtu),
        _ => None,
    }
}

fn ip_of(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}
