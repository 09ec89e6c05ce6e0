//! What both families share: accounts, rings, interfaces, counters, and who has which number.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
};

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use lb_common::{
    MAX_BACKENDS, MAX_INTERFACES, MAX_SERVICES, RING_SLOTS, Ticks,
    abi::{ACCOUNTS, Hop, Interface, Layout, Service, Traffic, server_account},
};

use super::{
    DataplaneError, Pins,
    desired::Way,
    heartbeat::Heartbeat,
    now,
    shared::{Accounts, Slots},
};
use crate::{
    cut,
    ring::{Region, Regions},
};

/// How long a ring's old region is left alone after a publication: no CPU can still be walking it then.
const REST: Ticks = Ticks::from_millis(1_000);

/// Open a pinned map.
pub(super) fn open(pins: &Pins, name: &'static str) -> Result<MapData, DataplaneError> {
    MapData::from_pin(pins.map(name)).map_err(DataplaneError::write(name))
}

/// Open a pinned map as what it is.
pub(super) fn typed<T: TryFrom<Map, Error = MapError>>(
    pins: &Pins,
    name: &'static str,
) -> Result<T, DataplaneError> {
    Map::from_map_data(open(pins, name)?).and_then(T::try_from).map_err(DataplaneError::write(name))
}

/// A server: what a limit of connections is for, over all services that use it. Address and protocol.
pub(super) type Server = (SocketAddr, u8);

/// A ring's region that is to be freed.
struct Resting {
    region: Region,
    since: Ticks,
}

/// The maps and numbers that both families share.
pub(super) struct Common {
    pub(super) layout: Layout,
    pub(super) accounts: Accounts,
    pub(super) slots: Slots,
    pub(super) traffic: PerCpuArray<MapData, Traffic>,
    pub(super) reasons: PerCpuArray<MapData, u64>,
    pub(super) heartbeat: Heartbeat,
    interfaces_map: Array<MapData, Interface>,
    /// By id; the first is nobody's.
    pub(super) interfaces: Vec<Interface>,
    pub(super) regions: Regions,
    resting: Vec<Resting>,
    /// Ids of servers.
    pub(super) servers: HashMap<Server, u16>,
    /// Ids that a publication may not give away: counted anew at its start.
    pub(super) taken_services: BTreeSet<u16>,
    pub(super) taken_backends: BTreeSet<u16>,
    /// The backend's id given away last.
    pub(super) last_backend: u16,
    /// Connections at most, by server; as the publication says.
    pub(super) limits: HashMap<Server, u32>,
    /// Servers that are reached in `snat` at their clients' ports, with the protocol's number; as the publication says.
    pub(super) keep_ports: HashSet<(IpAddr, u8)>,
}

impl Common {
    /// Open the common maps.
    pub(super) fn adopt(pins: &Pins, layout: Layout) -> Result<Self, DataplaneError> {
        let (accounts, slots) = (open(pins, "ACCOUNTS")?, open(pins, "RING")?);
        let share = |name| move |source| DataplaneError::Share { name, source };
        let interfaces_map: Array<MapData, Interface> = typed(pins, "INTERFACES")?;
        let mut interfaces: Vec<Interface> =
            interfaces_map.iter().collect::<Result<_, _>>().map_err(DataplaneError::write("INTERFACES"))?;
        // Id 0 is nobody's. The others are used from 1 on; those of interfaces that went are gaps.
        let last = interfaces.iter().rposition(|interface| interface.index != 0);
        interfaces.truncate(1 + last.unwrap_or(0));
        Ok(Self {
            layout,
            accounts: Accounts::map(accounts.fd().as_fd(), ACCOUNTS).map_err(share("ACCOUNTS"))?,
            slots: Slots::map(slots.fd().as_fd(), RING_SLOTS).map_err(share("RING"))?,
            traffic: typed(pins, "TRAFFIC")?,
            reasons: typed(pins, "REASONS")?,
            heartbeat: Heartbeat::open(pins)?,
            interfaces_map,
            interfaces,
            regions: Regions::new(RING_SLOTS),
            resting: Vec::new(),
            servers: HashMap::new(),
            taken_services: BTreeSet::new(),
            taken_backends: BTreeSet::new(),
            last_backend: 0,
            limits: HashMap::new(),
            keep_ports: HashSet::new(),
        })
    }

    /// Leave a ring's region alone for a while, then free it.
    pub(super) fn rest(&mut self, entry: &Service) {
        if entry.ring_length > 0 {
            let length = entry.ring_length + u32::from(entry.members);
            self.resting.push(Resting { region: Region { offset: entry.ring_offset, length }, since: now() });
        }
    }

    /// Free the regions that have rested.
    pub(super) fn free_rested(&mut self) {
        let now = now();
        let regions = &mut self.regions;
        self.resting.retain(|resting| {
            let rested = now.since(resting.since).at_least(REST);
            if rested {
                // It is held, for it was allocated or claimed before it came to rest.
                let _ = regions.free(resting.region);
            }
            !rested
        });
    }

    /// An id for a new service. One whose backends still have connections to end is not free: flow keys name it.
    pub(super) fn new_service_id(&mut self) -> Result<u16, DataplaneError> {
        let free = (1..MAX_SERVICES as u16).find(|id| !self.taken_services.contains(id));
        let id = free.ok_or(DataplaneError::TooMany { what: "services" })?;
        self.taken_services.insert(id);
        Ok(id)
    }

    /// An id for a new backend, after the last one given away, so that a freed id rests as long as there are others: its
    /// counters go on.
    pub(super) fn new_backend_id(&mut self) -> Result<u16, DataplaneError> {
        let end = MAX_BACKENDS as u16;
        let mut after = (self.last_backend + 1..end).chain(1..end);
        let free = after.find(|number| !self.taken_backends.contains(number));
        let id = free.ok_or(DataplaneError::TooMany { what: "backends" })?;
        self.last_backend = id;
        self.taken_backends.insert(id);
        Ok(id)
    }

    /// The id of a server. Every backend has one, limited or not, so that a limit that is set later counts exactly.
    pub(super) fn server_id(&mut self, server: Server) -> Result<u16, DataplaneError> {
        let id = if let Some(id) = self.servers.get(&server) {
            *id
        } else {
            let taken: BTreeSet<u16> = self.servers.values().copied().collect();
            let free = (1..MAX_BACKENDS as u16).find(|id| !taken.contains(id));
            let id = free.ok_or(DataplaneError::TooMany { what: "servers" })?;
            self.servers.insert(server, id);
            id
        };
        let limit = self.limits.get(&server).copied().map_or(0, u64::from);
        self.accounts.limit(server_account(id), limit);
        Ok(id)
    }

    /// Take up a server's id that an earlier agent gave.
    pub(super) fn adopt_server(&mut self, address: SocketAddr, protocol: u8, id: u16) {
        if id != 0 {
            self.servers.insert((address, protocol), id);
        }
    }

    /// Forget servers that no backend names.
    pub(super) fn forget_servers(&mut self, named: &HashSet<u16>) {
        let accounts = &self.accounts;
        self.servers.retain(|_, id| {
            let keep = named.contains(id);
            if !keep {
                accounts.limit(server_account(*id), 0);
            }
            keep
        });
    }

    /// The id of the interface that a way leads out of, in the map of interfaces. `mtu`: the interface's own.
    pub(super) fn interface_id(&mut self, way: &Way, mtu: Option<u16>) -> Result<u16, DataplaneError> {
        let known = self.interfaces.iter().position(|known| known.index == way.interface);
        let before = known.and_then(|id| self.interfaces.get(id)).copied().unwrap_or_default();
        let entry = Interface {
            index: way.interface,
            mac: way.interface_mac,
            mtu: mtu.unwrap_or(before.mtu),
            exit: way.exit,
            pad: [0; 3],
        };
        let id = match known {
            Some(id) if before == entry => return Ok(id as u16),
            Some(id) => id,
            None if self.interfaces.len() < MAX_INTERFACES as usize => {
                self.interfaces.push(entry);
                self.interfaces.len() - 1
            }
            // Only now those of interfaces that went: flows may name them for as long as they last.
            None => {
                let free = self.interfaces.iter().skip(1).position(|known| known.index == 0);
                1 + free.ok_or(DataplaneError::TooMany { what: "interfaces" })?
            }
        };
        self.interfaces[id] = entry;
        self.interfaces_map.set(id as u32, entry, 0).map_err(DataplaneError::write("INTERFACES"))?;
        Ok(id as u16)
    }

    /// Forget the interfaces that are not among these any more: what would leave by one is dropped and counted.
    pub(super) fn keep_interfaces(&mut self, living: &BTreeSet<u32>) -> Result<(), DataplaneError> {
        for (id, known) in self.interfaces.iter_mut().enumerate() {
            if known.index != 0 && !living.contains(&known.index) {
                *known = Interface::default();
                self.interfaces_map.set(id as u32, *known, 0).map_err(DataplaneError::write("INTERFACES"))?;
            }
        }
        Ok(())
    }

    /// A next hop as a packet socket needs it.
    pub(super) fn frame_hop(&self, hop: Hop, vlan: u16) -> Option<cut::Hop> {
        let interface = self.interfaces.get(usize::from(hop.interface)).filter(|_| hop.is_resolved())?;
        Some(cut::Hop {
            interface: interface.index,
            source: interface.mac,
            destination: hop.mac,
            vlan: (vlan != 0).then_some(vlan),
            tunnel: None,
        })
    }
}
