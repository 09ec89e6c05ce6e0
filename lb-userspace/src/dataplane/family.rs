//! What differs between IPv4 and IPv6, and the maps of one family with what the agent knows of them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
};

use aya::{
    Pod,
    maps::{Array, HashMap as BpfHashMap, MapData},
};
use lb_common::{
    Address, Be16, Be32, Be128, MAX_SOURCES,
    abi::{
        Backend, Endpoint, EndpointKey, ICMP, ICMPV6, Layout, Ranges, RangesKey, Service, ServiceKey, TCP,
        UDP,
    },
};

use super::{
    DataplaneError, Pins,
    common::{Common, open, typed},
    service::KnownService,
    shared::{Cells, Flows},
    sweep::Pass,
};
use crate::{
    listen::{Listen, Ports, Protocol},
    ring::Region,
};

/// Names of a family's maps.
pub struct Names {
    /// Where clients connect to.
    pub services: &'static str,
    /// Ranges of an address.
    pub ranges: &'static str,
    /// The (service, backend) pairs.
    pub backends: &'static str,
    /// Who answers.
    pub endpoints: &'static str,
    /// Source addresses.
    pub sources: &'static str,
    /// Port cells.
    pub cells: &'static str,
    /// Flows.
    pub flows: &'static str,
}

/// An address whose family has maps of its own.
///
/// The associated types are the map types of `lb_common::abi`, named here so that what holds for both families (they
/// may stand in maps) is known to generic code.
pub trait Ip: Address + Pod + Send + Sync + From<Self::Std> + 'static {
    /// The standard library's type.
    type Std: From<Self>;
    /// Key of a service.
    type ServiceKey: Pod + From<ServiceKey<Self>> + Into<ServiceKey<Self>>;
    /// Key of an address's ranges.
    type RangesKey: Pod + From<RangesKey<Self>> + Into<RangesKey<Self>>;
    /// A (service, backend) pair.
    type Backend: Pod + From<Backend<Self>> + Into<Backend<Self>>;
    /// Key of an endpoint.
    type EndpointKey: Pod + From<EndpointKey<Self>> + Into<EndpointKey<Self>>;

    /// The family's place in the layout's pairs.
    const INDEX: usize;
    /// The protocol of its echo requests.
    const ECHO: u8;
    /// The names of its maps.
    const NAMES: Names;

    /// An address of this family.
    fn of(address: IpAddr) -> Option<Self>;

    /// For the agent's other parts.
    fn ip(self) -> IpAddr;
}

impl Ip for Be32 {
    type Std = Ipv4Addr;
    type ServiceKey = ServiceKey<Self>;
    type RangesKey = RangesKey<Self>;
    type Backend = Backend<Self>;
    type EndpointKey = EndpointKey<Self>;

    const INDEX: usize = 0;
    const ECHO: u8 = ICMP;
    const NAMES: Names = Names {
        services: "SERVICES4",
        ranges: "RANGES4",
        backends: "BACKENDS4",
        endpoints: "ENDPOINTS4",
        sources: "SOURCES4",
        cells: "CELLS4",
        flows: "FLOWS4",
    };

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(address) => Some(address.into()),
            IpAddr::V6(_) => None,
        }
    }

    fn ip(self) -> IpAddr {
        IpAddr::V4(self.into())
    }
}

impl Ip for Be128 {
    type Std = Ipv6Addr;
    type ServiceKey = ServiceKey<Self>;
    type RangesKey = RangesKey<Self>;
    type Backend = Backend<Self>;
    type EndpointKey = EndpointKey<Self>;

    const INDEX: usize = 1;
    const ECHO: u8 = ICMPV6;
    const NAMES: Names = Names {
        services: "SERVICES6",
        ranges: "RANGES6",
        backends: "BACKENDS6",
        endpoints: "ENDPOINTS6",
        sources: "SOURCES6",
        cells: "CELLS6",
        flows: "FLOWS6",
    };

    fn of(address: IpAddr) -> Option<Self> {
        match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => Some(address.into()),
        }
    }

    fn ip(self) -> IpAddr {
        IpAddr::V6(self.into())
    }
}

/// Typed handles to a family's maps.
pub(super) struct Maps<A: Ip> {
    pub(super) services: BpfHashMap<MapData, A::ServiceKey, Service>,
    pub(super) ranges: BpfHashMap<MapData, A::RangesKey, Ranges>,
    pub(super) backends: Array<MapData, A::Backend>,
    pub(super) endpoints: BpfHashMap<MapData, A::EndpointKey, Endpoint>,
    pub(super) sources: Array<MapData, A>,
    pub(super) cells: Cells<A>,
    pub(super) flows: Flows<A>,
}

impl<A: Ip> Maps<A> {
    fn open(pins: &Pins, layout: &Layout) -> Result<Self, DataplaneError> {
        let (cells, flows) = (open(pins, A::NAMES.cells)?, open(pins, A::NAMES.flows)?);
        let share = |name| move |source| DataplaneError::Share { name, source };
        Ok(Self {
            services: typed(pins, A::NAMES.services)?,
            ranges: typed(pins, A::NAMES.ranges)?,
            backends: typed(pins, A::NAMES.backends)?,
            endpoints: typed(pins, A::NAMES.endpoints)?,
            sources: typed(pins, A::NAMES.sources)?,
            cells: Cells::map(cells.fd().as_fd(), layout.blocks[A::INDEX] * layout.ports.count())
                .map_err(share(A::NAMES.cells))?,
            flows: Flows::map(flows.fd().as_fd(), layout.buckets[A::INDEX]).map_err(share(A::NAMES.flows))?,
        })
    }
}

/// In place of a protocol: the key stands for an address that some service has.
pub(super) const BALANCED: u8 = 0;

/// One family: its maps, and what stands in them.
pub(super) struct Family<A: Ip> {
    pub(super) maps: Maps<A>,
    pub(super) services: BTreeMap<Listen, KnownService>,
    pub(super) ranges: HashMap<RangesKey<A>, Ranges>,
    /// Addresses by themselves: whose echo requests are answered, and which are balanced at all (protocol 0).
    pub(super) addresses: BTreeSet<(IpAddr, u8)>,
    pub(super) backends: BTreeMap<u16, Backend<A>>,
    pub(super) endpoints: HashMap<EndpointKey<A>, Endpoint>,
    /// By number; the first is nobody's.
    pub(super) sources: Vec<A>,
    /// Backends that the last publication named; others are forgotten once they hold nothing.
    pub(super) wanted: BTreeSet<u16>,
    /// Those that their service named once and does not any more; they go when nothing is held.
    pub(super) unnamed: BTreeSet<u16>,
    pub(super) pass: Pass,
}

impl<A: Ip> Family<A> {
    /// Read back what the maps hold.
    pub(super) fn adopt(pins: &Pins, common: &mut Common) -> Result<Self, DataplaneError> {
        let maps = Maps::<A>::open(pins, &common.layout)?;
        let mut ranges = HashMap::new();
        for entry in &maps.ranges {
            let (key, value) = entry.map_err(DataplaneError::write(A::NAMES.ranges))?;
            ranges.insert(key.into(), value);
        }
        let mut backends = BTreeMap::new();
        for (number, entry) in maps.backends.iter().enumerate() {
            let backend: Backend<A> = entry.map_err(DataplaneError::write(A::NAMES.backends))?.into();
            if backend.service != 0 {
                common.adopt_server(address_of(&backend), backend.protocol, backend.server);
                backends.insert(number as u16, backend);
            }
        }
        let mut endpoints = HashMap::new();
        for entry in &maps.endpoints {
            let (key, endpoint) = entry.map_err(DataplaneError::write(A::NAMES.endpoints))?;
            endpoints.insert(key.into(), endpoint);
        }
        let mut sources: Vec<A> =
            maps.sources.iter().collect::<Result<_, _>>().map_err(DataplaneError::write(A::NAMES.sources))?;
        sources.resize(MAX_SOURCES as usize, A::default());
        let mut family = Self {
            maps,
            services: BTreeMap::new(),
            ranges,
            addresses: BTreeSet::new(),
            backends,
            endpoints,
            sources,
            wanted: BTreeSet::new(),
            unnamed: BTreeSet::new(),
            pass: Pass::default(),
        };
        family.adopt_services(common)?;
        Ok(family)
    }

    fn adopt_services(&mut self, common: &mut Common) -> Result<(), DataplaneError> {
        let entries: Result<Vec<_>, _> = self.maps.services.iter().collect();
        for (key, service) in entries.map_err(DataplaneError::write(A::NAMES.services))? {
            let key: ServiceKey<A> = key.into();
            if key.protocol == A::ECHO || key.protocol == BALANCED {
                self.addresses.insert((key.address.ip(), key.protocol));
                continue;
            }
            let Some(listen) = self.listen_of(&key) else {
                // A range that was being published or withdrawn when its agent died; no packet finds it.
                self.maps.services.remove(&key.into()).map_err(DataplaneError::write(A::NAMES.services))?;
                continue;
            };
            if service.ring_length > 0 {
                let (offset, length) =
                    (service.ring_offset, service.ring_length + u32::from(service.members));
                // Two rings never overlap in the maps; one that did would be laid out anew at the first publication.
                let _ = common.regions.claim(Region { offset, length });
            }
            self.services.insert(listen, KnownService::adopted(service));
        }
        Ok(())
    }

    /// The address of a service by its key: the end of a range stands in the map of ranges.
    fn listen_of(&self, key: &ServiceKey<A>) -> Option<Listen> {
        let protocol = match key.protocol {
            TCP => Protocol::Tcp,
            UDP => Protocol::Udp,
            _ => return None,
        };
        let first = key.port.host();
        let ports = if key.range == 0 {
            Ports::One(first)
        } else {
            let ranges = self.ranges.get(&ranges_key(key.address, protocol))?;
            let [_, last] = ranges.ranges.into_iter().find(|[a, b]| *a == first && a <= b)?;
            if (first, last) == Ports::All.ends() { Ports::All } else { Ports::Range(first, last) }
        };
        Some(Listen { address: key.address.ip(), ports, protocol })
    }

    /// The service with an id.
    pub(super) fn service_by_id(&self, id: u16) -> Option<(&Listen, &KnownService)> {
        self.services.iter().find(|(_, known)| known.entry.id == id)
    }

    /// A service's name and a backend's address.
    pub(super) fn name_of(&self, number: u16) -> Option<(Listen, std::net::SocketAddr)> {
        let backend = self.backends.get(&number)?;
        Some((*self.service_by_id(backend.service)?.0, address_of(backend)))
    }
}

/// Where a backend listens.
pub(super) fn address_of<A: Ip>(backend: &Backend<A>) -> std::net::SocketAddr {
    std::net::SocketAddr::new(backend.address.ip(), backend.port.host())
}

/// Key of a service.
pub(super) fn service_key<A: Ip>(listen: &Listen) -> Option<ServiceKey<A>> {
    Some(ServiceKey {
        address: A::of(listen.address)?,
        port: Be16::from_host(listen.ports.ends().0),
        protocol: listen.protocol.number(),
        range: u8::from(!matches!(listen.ports, Ports::One(_))),
    })
}

/// Key of an address's ranges.
pub(super) fn ranges_key<A: Ip>(address: A, protocol: Protocol) -> RangesKey<A> {
    RangesKey { address, protocol: protocol.number().into() }
}
