//! The kernel's half as the agent holds it: programs, links, maps. Nothing else of the agent touches a BPF descriptor.
//!
//! Everything is pinned, so the data path runs on when the agent goes, and a later agent takes up what it finds: ids of
//! services, backends, interfaces and port blocks are read back from the maps, by the addresses that they stand for.

pub mod attach;
pub mod pins;
pub mod publish;
pub mod shared;
mod sweep;
pub mod task;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::AsFd as _,
    path::PathBuf,
};

use aya::{
    EbpfError,
    maps::{Array, HashMap as BpfHashMap, Map, MapData, MapError, PerCpuArray},
    programs::{ProgramError, links::LinkError},
};
use lb_common::{
    MAX_BACKENDS, RING_SLOTS, Reason,
    abi::{
        Account, Backend, Endpoint, EndpointKey, Flow, FlowKey, Interface, Layout, Service, ServiceKey,
        Traffic,
    },
};

pub use attach::{Attached, Kind, Mode, Port, now};
pub use pins::Pins;
pub use publish::{Desired, DesiredBackend, DesiredService, Timeouts, Way};
pub use sweep::Swept;

use crate::ring::{Region, Regions};
use publish::{KnownService, Resting, service_key};
use shared::{Accounts, Cells, Slots};
use sweep::Sweep;

/// What can go wrong between the agent and the kernel, each with what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The BPF file system is missing.
    #[error("there is no BPF file system at {path}: type `mount -t bpf bpf {path}`", path = path.display())]
    NoBpfFs {
        /// Where it should be.
        path: PathBuf,
    },
    /// Not root, or the capabilities are missing.
    #[error(
        "the kernel does not let this process load programs: run `lb` as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    )]
    NotPermitted,
    /// The kernel lacks something.
    #[error("this kernel refuses the program ({reason}); `lb` needs Linux 6.1 or newer")]
    Kernel {
        /// The end of what the verifier says.
        reason: String,
    },
    /// Another layout's pins are there.
    #[error(
        "an agent with another layout ({found}, this one has abi-{ours}) holds the data path: type `lb detach` with that version first, which ends its connections"
    )]
    OtherLayout {
        /// The folder that was found.
        found: String,
        /// Our version.
        ours: u32,
    },
    /// A pinned map is not what it should be.
    #[error(
        "the pinned map {name} is not ours: key, value and entries are {found:?}, wanted {wanted:?}; type `lb detach`, which ends its connections"
    )]
    Shape {
        /// The map.
        name: &'static str,
        /// What it is.
        found: (usize, usize, u32),
        /// What it should be.
        wanted: (usize, usize, u32),
    },
    /// Another program is attached.
    #[error(
        "{interface} already has an XDP program of somebody else: `ip link show {interface}` names it, `ip link set {interface} xdp off` removes it"
    )]
    Occupied {
        /// The interface.
        interface: String,
    },
    /// The MTU is too large for the driver's XDP.
    #[error(
        "the MTU of {interface} is too large for its driver's XDP: lower it with `ip link set {interface} mtu 3498`, or set `xdp-mode = \"generic\"`"
    )]
    Mtu {
        /// The interface.
        interface: String,
    },
    /// The driver has no native XDP.
    #[error("{interface} cannot run the program natively: {reason}")]
    Unsupported {
        /// The interface.
        interface: String,
        /// Why.
        reason: String,
    },
    /// The object in this binary is broken.
    #[error("the kernel object in this binary has no program {name}")]
    Object {
        /// What is missing.
        name: &'static str,
    },
    /// Loading failed otherwise.
    #[error("loading the kernel object: {0}")]
    Load(#[source] Box<EbpfError>),
    /// The kernel refused something about a program.
    #[error("the kernel refused the program: {0}")]
    Program(#[source] Box<ProgramError>),
    /// A pin could not be made or removed.
    #[error("{path}: {source}", path = path.display())]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A link could not be used.
    #[error("{path}: {source}", path = path.display())]
    Link {
        /// Where.
        path: PathBuf,
        /// Why.
        source: LinkError,
    },
    /// A map could not be read or written.
    #[error("map {name}: {source}")]
    Map {
        /// Which.
        name: &'static str,
        /// Why.
        source: MapError,
    },
    /// A map could not be mapped into memory.
    #[error("map {name} cannot be shared: {source}")]
    Share {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A limit of `lb-common`.
    #[error("too many {what} for one instance")]
    TooMany {
        /// Of what.
        what: &'static str,
    },
    /// No room for another ring.
    #[error("no room for another ring: too many backends in all")]
    RingsFull,
}

impl DataplaneError {
    fn write(name: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map { name, source }
    }

    fn from_load(error: EbpfError) -> Self {
        let code = std::error::Error::source(&error).and_then(os_code);
        if matches!(code, Some(libc::EPERM | libc::EACCES)) {
            Self::NotPermitted
        } else {
            Self::Load(Box::new(error))
        }
    }

    fn from_program(error: ProgramError) -> Self {
        match &error {
            ProgramError::LoadError { verifier_log, .. } => {
                let log = verifier_log.to_string();
                let lines: Vec<&str> = log.lines().rev().take(40).collect();
                Self::Kernel { reason: lines.into_iter().rev().collect::<Vec<_>>().join(" | ") }
            }
            _ => Self::Program(Box::new(error)),
        }
    }
}

/// The number of the system's error at the root of `error`.
fn os_code(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut error = Some(error);
    while let Some(current) = error {
        if let Some(code) = current.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        error = current.source();
    }
    None
}

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
    sweep: Sweep,
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
        ports: Vec<(Port, [u8; 6])>,
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
        let attached = ports
            .into_iter()
            .map(|(port, mac)| dataplane.attach(pins, port, mac))
            .collect::<Result<Vec<_>, _>>();
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
        for entry in maps.services.iter() {
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
        let mut endpoints = HashMap::new();
        for entry in maps.endpoints.iter() {
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
            sweep: Sweep::default(),
        })
    }

    fn attach(&mut self, pins: &Pins, mut port: Port, mac: [u8; 6]) -> Result<Attached, DataplaneError> {
        // The id must stand before the program runs; the exit is settled once the mode is known.
        let mut way = Way {
            mac,
            interface: port.index,
            interface_mac: mac,
            exit: lb_common::abi::exit::REDIRECT,
            source: std::net::Ipv4Addr::UNSPECIFIED,
        };
        let known = self.interfaces.iter().find(|known| known.index == port.index);
        way.exit = known.map_or(way.exit, |known| known.exit);
        port.id = self.interface_id(&way)?;
        let (_, attached) = attach::attach(pins, &self.layout, &port)?;
        way.exit = port.kind.exit(attached.mode);
        self.interface_id(&way)?;
        Ok(attached)
    }

    /// How packets leave an interface that this instance is attached to or has sent through; one of `abi::exit`.
    pub fn exit_of(&self, interface: u32) -> u8 {
        let known = self.interfaces.iter().find(|known| known.index == interface);
        known.map_or(lb_common::abi::exit::REDIRECT, |known| known.exit)
    }

    /// The layout in use: an adopted one may differ from the configuration.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The counters of a backend; zero before it was published.
    pub fn backend_counts(
        &self,
        service: std::net::SocketAddrV4,
        backend: std::net::SocketAddrV4,
    ) -> Result<BackendCounts, DataplaneError> {
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
    pub fn reasons(
        &self,
        service: Option<std::net::SocketAddrV4>,
    ) -> Result<Vec<(Reason, u64)>, DataplaneError> {
        let id = match service {
            None => 0,
            Some(address) => match self.services.get(&service_key(address)) {
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
    pub fn name_of(&self, number: u32) -> Option<(std::net::SocketAddrV4, std::net::SocketAddrV4)> {
        let backend = self.backends.get(&number)?;
        let service = self.service_by_id(backend.service)?;
        let address = |address: lb_common::Be32, port: lb_common::Be16| {
            std::net::SocketAddrV4::new(address.into(), port.host())
        };
        Some((address(service.address, service.port), address(backend.address, backend.port)))
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
