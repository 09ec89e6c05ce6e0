//! The kernel's half as the agent holds it: programs, links, maps. Nothing else of the agent touches a BPF descriptor.
//!
//! Everything is pinned, so the data path runs on when the agent goes, and a later agent takes up what it finds: ids of
//! services, backends, interfaces and port blocks are read back from the maps, by the addresses that they stand for.

pub mod attach;
pub mod desired;
mod error;
pub mod pins;
pub mod publish;
pub mod shared;
mod sweep;
pub mod task;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::{SocketAddr, SocketAddrV4},
    os::fd::AsFd as _,
};

use aya::maps::{Array, HashMap as BpfHashMap, Map, MapData, MapError, PerCpuArray};
use aya_log::EbpfLogger;
use lb_common::{
    MAX_BACKENDS, RING_SLOTS, Reason,
    abi::{
        Account, Backend, Endpoint, EndpointKey, Flow, FlowKey, Interface, Layout, Service, ServiceKey,
        Traffic, backend_state,
    },
};

pub use attach::{Attached, Kind, Mode, Port, now};
pub use desired::{Desired, DesiredBackend, DesiredService, Fate, Rate, Timeouts, Way};
pub use error::DataplaneError;
pub use pins::Pins;
pub use sweep::Swept;

use crate::{
    listen::Listen,
    ring::{Region, Regions},
};
use publish::{KnownService, Resting, carried, carried_server, service_key};
use shared::{Accounts, Cells, Slots};
use sweep::Sweep;

/// Typed handles to the maps.
struct Maps {
    services: BpfHashMap<MapData, ServiceKey, Service>,
    backends: Array<MapData, Backend>,
    interfaces: Array<MapData, Interface>,
    endpoints: BpfHashMap<MapData, EndpointKey, Endpoint>,
    flows: BpfHashMap<MapData, FlowKey, Flow>,
    traffic: PerCpuArray<MapData, Traffic>,
    reasons: PerCpuArray<MapData, u64>,
    cells: Cells,
    accounts: Accounts,
    slots: Slots,
}

impl Maps {
    fn open(pins: &Pins, layout: &Layout) -> Result<Self, DataplaneError> {
        let cells = open(pins, "CELLS")?;
        let accounts = open(pins, "ACCOUNTS")?;
        let slots = open(pins, "RING")?;
        let share = |name| move |source| DataplaneError::Share { name, source };
        Ok(Self {
            services: typed(pins, "SERVICES")?,
            backends: typed(pins, "BACKENDS")?,
            interfaces: typed(pins, "INTERFACES")?,
            endpoints: typed(pins, "ENDPOINTS")?,
            flows: typed(pins, "FLOWS")?,
            traffic: typed(pins, "TRAFFIC")?,
            reasons: typed(pins, "REASONS")?,
            cells: Cells::map(cells.fd().as_fd(), layout.blocks * layout.ports.count())
                .map_err(share("CELLS"))?,
            accounts: Accounts::map(accounts.fd().as_fd(), MAX_BACKENDS).map_err(share("ACCOUNTS"))?,
            slots: Slots::map(slots.fd().as_fd(), RING_SLOTS).map_err(share("RING"))?,
        })
    }
}

fn open(pins: &Pins, name: &'static str) -> Result<MapData, DataplaneError> {
    MapData::from_pin(pins.map(name)).map_err(DataplaneError::write(name))
}

fn typed<T: TryFrom<Map, Error = MapError>>(pins: &Pins, name: &'static str) -> Result<T, DataplaneError> {
    Map::from_map_data(open(pins, name)?).and_then(T::try_from).map_err(DataplaneError::write(name))
}

/// The data path of one instance.
pub struct Dataplane {
    maps: Maps,
    layout: Layout,
    services: HashMap<ServiceKey, KnownService>,
    backends: BTreeMap<u32, Backend>,
    endpoints: HashMap<EndpointKey, u32>,
    interfaces: Vec<Interface>,
    regions: Regions,
    resting: Vec<Resting>,
    /// Backends that the last publication named; others are forgotten once they hold nothing.
    wanted: BTreeSet<u32>,
    /// The id given away last.
    last_backend: u32,
    sweep: Sweep,
    loggers: Vec<EbpfLogger<&'static dyn log::Log>>,
}

/// Counters of a (service, backend) pair at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounts {
    /// Connections.
    pub account: Account,
    /// Packets and bytes, over all CPUs.
    pub traffic: Traffic,
}

impl Dataplane {
    /// Take up what an earlier agent left under `pins`, or begin with `fresh`, and attach to `ports`.
    ///
    /// `ports` lists each interface with its MAC; their ids are given here. Returns what became of each, in order.
    pub fn open(
        pins: &Pins,
        fresh: Layout,
        ports: &[(Port, [u8; 6])],
    ) -> Result<(Self, Vec<Attached>), DataplaneError> {
        pins.prepare()?;
        let layout = adopted_layout(pins)?.unwrap_or(fresh);
        let adopting = pins.exist();
        if !adopting {
            // The first load creates and pins the maps; the layout is what says that they are complete.
            let Some((port, _)) = ports.first() else {
                return Err(DataplaneError::TooMany { what: "no interfaces" });
            };
            attach::load(pins, &layout, port, Mode::Generic)?;
            let mut map: Array<MapData, Layout> = typed(pins, "LAYOUT")?;
            map.set(0, layout, 0).map_err(DataplaneError::write("LAYOUT"))?;
        }
        pins.check(&layout)?;
        let mut dataplane = Self::adopt(pins, layout)?;
        let attached = dataplane.attach_all(pins, ports);
        match attached {
            Ok(attached) => Ok((dataplane, attached)),
            Err(error) => {
                // What was not there before shall not be there after a refusal.
                if !adopting {
                    let _ = pins.remove();
                }
                Err(error)
            }
        }
    }

    /// Read back what the maps hold.
    fn adopt(pins: &Pins, layout: Layout) -> Result<Self, DataplaneError> {
        let maps = Maps::open(pins, &layout)?;
        let mut services = HashMap::new();
        let mut regions = Regions::new(RING_SLOTS);
        for entry in &maps.services {
            let (key, service) = entry.map_err(DataplaneError::write("SERVICES"))?;
            if service.ring_length > 0 {
                // Two rings never overlap in the maps; one that did would be laid out anew at the first publication.
                let _ = regions.claim(Region { offset: service.ring_offset, length: service.ring_length });
            }
            services.insert(key, KnownService::adopted(service));
        }
        let mut backends = BTreeMap::new();
        for (number, entry) in maps.backends.iter().enumerate() {
            let backend = entry.map_err(DataplaneError::write("BACKENDS"))?;
            if backend.service != 0 {
                backends.insert(number as u32, backend);
            }
        }
        let last_backend = backends.keys().next_back().copied().unwrap_or(0);
        let mut endpoints = HashMap::new();
        for entry in &maps.endpoints {
            let (key, endpoint) = entry.map_err(DataplaneError::write("ENDPOINTS"))?;
            endpoints.insert(key, endpoint.cells);
        }
        let mut interfaces: Vec<Interface> =
            maps.interfaces.iter().collect::<Result<_, _>>().map_err(DataplaneError::write("INTERFACES"))?;
        // Id 0 is nobody's; the others are used from 1 on without gaps.
        let used = interfaces.iter().skip(1).take_while(|interface| interface.index != 0).count();
        interfaces.truncate(1 + used);
        Ok(Self {
            maps,
            layout,
            services,
            backends,
            endpoints,
            interfaces,
            regions,
            resting: Vec::new(),
            wanted: BTreeSet::new(),
            last_backend,
            sweep: Sweep::default(),
            loggers: Vec::new(),
        })
    }

    /// Attach to all, in one mode: a frame that came in natively cannot leave by an interface whose driver has no XDP, and
    /// would be lost in silence there (`ndo_xdp_xmit`).
    fn attach_all(
        &mut self,
        pins: &Pins,
        ports: &[(Port, [u8; 6])],
    ) -> Result<Vec<Attached>, DataplaneError> {
        let mut attached = Vec::with_capacity(ports.len());
        for (port, mac) in ports {
            attached.push(self.attach(pins, port.clone(), *mac)?);
        }
        let generic = |attached: &Attached| attached.mode == Mode::Generic;
        if attached.iter().any(generic) && !attached.iter().all(generic) {
            for ((port, mac), attached) in ports.iter().zip(&mut attached).filter(|(_, was)| !generic(was)) {
                let path = pins.link(&port.name);
                std::fs::remove_file(&path).map_err(|source| DataplaneError::Pin { path, source })?;
                let port = Port { mode: Some(Mode::Generic), running: None, ..port.clone() };
                let why = "another interface of this instance can only be generic, and frames must pass between them";
                *attached = Attached { fallback: Some(why.to_owned()), ..self.attach(pins, port, *mac)? };
            }
        }
        for name in pins.linked_interfaces() {
            if !ports.iter().any(|(port, _)| port.name == name) {
                let path = pins.link(&name);
                std::fs::remove_file(&path).map_err(|source| DataplaneError::Pin { path, source })?;
                log::info!("{name}: detached, for the configuration does not name it any more");
            }
        }
        Ok(attached)
    }

    fn attach(&mut self, pins: &Pins, mut port: Port, mac: [u8; 6]) -> Result<Attached, DataplaneError> {
        // The id must stand before the program runs; the exit is settled once the mode is known.
        let mut way = Way {
            mac,
            interface: port.index,
            interface_mac: mac,
            exit: lb_common::abi::exit::REDIRECT,
            mtu: 0,
            sources: Vec::new(),
        };
        let known = self.interfaces.iter().find(|known| known.index == port.index);
        way.exit = known.map_or(way.exit, |known| known.exit);
        port.id = self.interface_id(&way)?;
        let (mut object, attached) = attach::attach(pins, &self.layout, &port)?;
        match EbpfLogger::init(&mut object) {
            Ok(logger) => self.loggers.push(logger),
            Err(error) => log::warn!("{}: what the program logs will not be seen: {error}", port.name),
        }
        way.exit = port.kind.exit(attached.mode);
        self.interface_id(&way)?;
        Ok(attached)
    }

    /// What took new connections when it was taken up: (service, backend).
    pub fn active(&self) -> Vec<(Listen, SocketAddr)> {
        let active = self.backends.iter().filter(|(_, known)| known.state == backend_state::ACTIVE);
        active.filter_map(|(number, _)| self.name_of(*number)).collect()
    }

    /// How packets leave an interface that this instance is attached to or has sent through; one of `abi::exit`.
    pub fn exit_of(&self, interface: u32) -> u8 {
        let known = self.interfaces.iter().find(|known| known.index == interface);
        known.map_or(lb_common::abi::exit::REDIRECT, |known| known.exit)
    }

    /// Pass on what the programs have logged: rare diagnostics only.
    pub fn relay_logs(&mut self) {
        for logger in &mut self.loggers {
            logger.flush();
        }
    }

    /// The layout in use: an adopted one may differ from the configuration.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The counters of a backend; zero before it was published.
    pub fn backend_counts(
        &self,
        service: Listen,
        backend: SocketAddr,
    ) -> Result<BackendCounts, DataplaneError> {
        let (Some(service), Some(backend)) = (carried(&service), carried_server(backend)) else {
            return Ok(BackendCounts::default());
        };
        let id = self.services.get(&service_key(service)).map(|known| known.entry.id);
        let wanted = service_key(backend);
        let found = self.backends.iter().find(|(_, known)| {
            Some(known.service) == id && known.address == wanted.address && known.port == wanted.port
        });
        let Some((number, _)) = found else { return Ok(BackendCounts::default()) };
        let cpus = self.maps.traffic.get(number, 0).map_err(DataplaneError::write("TRAFFIC"))?;
        let traffic = cpus.iter().fold(Traffic::default(), |sum, cpu| Traffic {
            packets_in: sum.packets_in + cpu.packets_in,
            bytes_in: sum.bytes_in + cpu.bytes_in,
            packets_out: sum.packets_out + cpu.packets_out,
            bytes_out: sum.bytes_out + cpu.bytes_out,
        });
        Ok(BackendCounts { account: self.maps.accounts.get(*number), traffic })
    }

    /// The counters of a service's reasons, over all CPUs; `None`: packets without a service.
    pub fn reasons(&self, service: Option<Listen>) -> Result<Vec<(Reason, u64)>, DataplaneError> {
        let id = match service {
            None => 0,
            Some(listen) => match carried(&listen).and_then(|known| self.services.get(&service_key(known))) {
                Some(known) => known.entry.id,
                None => return Ok(Vec::new()),
            },
        };
        Reason::ALL
            .iter()
            .map(|reason| {
                let cpus = self
                    .maps
                    .reasons
                    .get(&reason.counter(id), 0)
                    .map_err(DataplaneError::write("REASONS"))?;
                Ok((*reason, cpus.iter().sum()))
            })
            .collect()
    }

    /// Name a backend (by id) by its service's and its own address, for messages.
    pub fn name_of(&self, number: u32) -> Option<(Listen, SocketAddr)> {
        let backend = self.backends.get(&number)?;
        let service = self.service_by_id(backend.service)?;
        let address = |address: lb_common::Be32, port: lb_common::Be16| {
            SocketAddr::V4(SocketAddrV4::new(address.into(), port.host()))
        };
        Some((Listen::tcp(address(service.address, service.port)), address(backend.address, backend.port)))
    }
}

/// The layout of pinned maps; what was left half made is removed.
fn adopted_layout(pins: &Pins) -> Result<Option<Layout>, DataplaneError> {
    if !pins.exist() {
        return Ok(None);
    }
    let map: Array<MapData, Layout> = typed(pins, "LAYOUT")?;
    let layout = map.get(&0, 0).map_err(DataplaneError::write("LAYOUT"))?;
    if layout.blocks != 0 {
        return Ok(Some(layout));
    }
    pins.remove().map_err(|source| DataplaneError::Pin { path: pins.map("LAYOUT"), source })?;
    pins.prepare()?;
    Ok(None)
}
