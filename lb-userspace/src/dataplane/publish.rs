//! From what is wanted to what stands in the maps: beside the old state, then one update.
//!
//! The order of writes is what makes a publication whole. A new backend and its endpoint are written before any ring
//! names them; a ring is laid out in a free region before its service points there; the service's entry is replaced by
//! one update; the old region is reused only after [`REST`], when no CPU can still be walking it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, SocketAddrV4},
};

use lb_common::{
    Be16, Be32, Ticks,
    abi::{
        Backend, Endpoint, EndpointKey, Hop, Interface, Service, ServiceKey, TCP, algorithm, backend_state,
    },
};

use super::{
    Dataplane, DataplaneError,
    desired::{Desired, DesiredBackend, DesiredService, Fate, Timeouts, Way},
    now,
};
use crate::{
    listen::{Listen, Ports, Protocol},
    ring::{self, Region},
};

/// How long a ring's old region is left alone after a publication.
const REST: Ticks = Ticks::from_millis(1_000);

/// What the agent knows of a service in the maps.
#[derive(Clone, Debug)]
pub(super) struct KnownService {
    pub(super) entry: Service,
    pub(super) timeouts: Timeouts,
    ring: Vec<(u32, u32)>,
}

impl KnownService {
    /// One that an earlier agent published; its ring is laid out anew at the first publication.
    pub(super) fn adopted(entry: Service) -> Self {
        let timeouts = Timeouts {
            established: Ticks::from_millis(9 * 3_600_000),
            embryonic: Ticks::from_millis(10_000),
            closing: Ticks::from_millis(60_000),
            udp: Ticks::from_millis(60_000),
        };
        Self { entry, timeouts, ring: Vec::new() }
    }
}

/// A ring's region that is to be freed.
pub(super) struct Resting {
    region: Region,
    since: Ticks,
}

impl Resting {
    fn of(entry: &Service) -> Self {
        Self { region: Region { offset: entry.ring_offset, length: entry.ring_length }, since: now() }
    }
}

/// Key of a service in the maps.
pub(super) fn service_key(address: SocketAddrV4) -> ServiceKey {
    ServiceKey {
        address: (*address.ip()).into(),
        port: Be16::from_host(address.port()),
        protocol: TCP,
        pad: 0,
    }
}

/// A service's address as the maps can hold it so far.
pub(super) fn carried(listen: &Listen) -> Option<SocketAddrV4> {
    match (listen.address, listen.ports, listen.protocol) {
        (IpAddr::V4(address), Ports::One(port), Protocol::Tcp) => Some(SocketAddrV4::new(address, port)),
        _ => None,
    }
}

/// An address of a server as the maps can hold it so far.
pub(super) fn carried_server(address: SocketAddr) -> Option<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) if address.port() != 0 => Some(address),
        _ => None,
    }
}

impl Dataplane {
    /// Make the maps say what is wanted. What fails for one service does not hold up the others; all errors come back.
    pub fn publish(&mut self, desired: &Desired) -> Vec<DataplaneError> {
        self.free_rested();
        let mut errors: Vec<DataplaneError> =
            desired.services.iter().filter_map(|service| self.publish_service(service).err()).collect();
        let wanted: Vec<ServiceKey> =
            desired.services.iter().filter_map(|service| carried(&service.listen)).map(service_key).collect();
        let gone: Vec<ServiceKey> =
            self.services.keys().filter(|key| !wanted.contains(key)).copied().collect();
        errors.extend(gone.into_iter().filter_map(|key| self.withdraw(key).err()));
        errors
    }

    /// What opens comes before the ring that names it, what closes after the ring that named it.
    fn publish_service(&mut self, wanted: &DesiredService) -> Result<(), DataplaneError> {
        let not_yet = || DataplaneError::NotYet { service: wanted.listen };
        let known = wanted.mode == 0 && wanted.algorithm <= algorithm::ROUND_ROBIN;
        let key = carried(&wanted.listen).filter(|_| known).map(service_key).ok_or_else(not_yet)?;
        let id = self.service_id(key)?;
        let mut ring = Vec::with_capacity(wanted.backends.len());
        for backend in wanted.backends.iter().filter(|backend| backend.is_open()) {
            ring.push((self.publish_backend(key, id, wanted.no_backend, backend)?, backend.weight));
        }
        let mut present: BTreeSet<u32> = ring.iter().map(|(number, _)| *number).collect();
        self.publish_ring(key, id, wanted, ring)?;
        for backend in wanted.backends.iter().filter(|backend| !backend.is_open()) {
            present.insert(self.publish_backend(key, id, wanted.no_backend, backend)?);
        }
        let gone: Vec<u32> = self
            .backends
            .iter()
            .filter(|(number, known)| known.service == id && !present.contains(number))
            .map(|(number, _)| *number)
            .collect();
        for number in gone {
            self.set_state(number, backend_state::ABSENT)?;
            self.wanted.remove(&number);
        }
        self.wanted.extend(present);
        Ok(())
    }

    fn publish_backend(
        &mut self,
        key: ServiceKey,
        service: u32,
        no_backend: u8,
        wanted: &DesiredBackend,
    ) -> Result<u32, DataplaneError> {
        let server =
            carried_server(wanted.address).ok_or(DataplaneError::TooMany { what: "IPv6 backends" })?;
        let address: Be32 = (*server.ip()).into();
        let port = Be16::from_host(server.port());
        let number = self.backend_id(service, address, port)?;
        let before = self.backends.get(&number).copied().unwrap_or_default();
        // While the way is unknown the last one stands: a next hop that is being resolved again is still the best guess.
        let (hop, source, cells) = match &wanted.way {
            Some(way) => {
                let interface = self.interface_id(way)?;
                let Some(IpAddr::V4(source)) = way.sources.first().copied() else {
                    return Err(DataplaneError::TooMany { what: "IPv6 sources" });
                };
                let source: Be32 = source.into();
                let cells = self.block(EndpointKey { address, source, port, protocol: TCP, pad: 0 })?;
                (Hop { mac: way.mac, interface }, source, cells)
            }
            None => (before.hop, before.source, before.cells),
        };
        let entry = Backend {
            address,
            port,
            state: match (wanted.fate, wanted.is_open()) {
                (Fate::Cut, _) => backend_state::ABSENT,
                (Fate::Keep, true) => backend_state::ACTIVE,
                (Fate::Keep, false) => backend_state::CLOSED_TO_NEW,
            },
            no_backend,
            hop,
            service_address: key.address,
            service,
            source,
            cells,
            weight: wanted.weight,
            pad2: 0,
        };
        if entry != before {
            self.maps.backends.set(number, entry, 0).map_err(DataplaneError::write("BACKENDS"))?;
            self.backends.insert(number, entry);
        }
        Ok(number)
    }

    fn publish_ring(
        &mut self,
        key: ServiceKey,
        id: u32,
        wanted: &DesiredService,
        ring: Vec<(u32, u32)>,
    ) -> Result<(), DataplaneError> {
        let before = self.services.get(&key).cloned();
        let old = before.as_ref().map_or_else(Service::default, |known| known.entry);
        let same_ring = before.as_ref().is_some_and(|known| known.ring == ring);
        let (ring_offset, ring_length) = if ring.is_empty() {
            (0, 0)
        } else if same_ring {
            (old.ring_offset, old.ring_length)
        } else {
            let length = ring::length(ring.len());
            let region = self.regions.allocate(length).map_err(|_| DataplaneError::RingsFull)?;
            self.maps.slots.write(region.offset, &ring::build(&ring, length));
            (region.offset, region.length)
        };
        let empty_since = if ring_length > 0 {
            0
        } else if old.ring_length == 0 && before.is_some() {
            old.empty_since
        } else {
            now().raw()
        };
        let entry = Service {
            id,
            ring_offset,
            ring_length,
            empty_since,
            hold: Ticks::from_millis(wanted.hold.as_millis() as u64).raw(),
            algorithm: wanted.algorithm,
            no_backend: wanted.no_backend,
            pad: [0; 2],
        };
        if (before.is_none() || entry != old)
            && let Err(error) = self.maps.services.insert(key, entry, 0)
        {
            if (ring_offset, ring_length) != (old.ring_offset, old.ring_length) && ring_length > 0 {
                self.resting.push(Resting::of(&entry));
            }
            return Err(DataplaneError::write("SERVICES")(error));
        }
        if old.ring_length > 0 && (old.ring_offset, old.ring_length) != (ring_offset, ring_length) {
            self.resting.push(Resting::of(&old));
        }
        self.services.insert(key, KnownService { entry, timeouts: wanted.timeouts, ring });
        Ok(())
    }

    /// Take a service off the wire; its connections end with the next sweep.
    fn withdraw(&mut self, key: ServiceKey) -> Result<(), DataplaneError> {
        self.maps.services.remove(&key).map_err(DataplaneError::write("SERVICES"))?;
        if let Some(known) = self.services.remove(&key) {
            if known.entry.ring_length > 0 {
                self.resting.push(Resting::of(&known.entry));
            }
            let orphans: Vec<u32> = self
                .backends
                .iter()
                .filter(|(_, backend)| backend.service == known.entry.id)
                .map(|(number, _)| *number)
                .collect();
            for number in orphans {
                self.set_state(number, backend_state::ABSENT)?;
                self.wanted.remove(&number);
            }
        }
        Ok(())
    }

    fn set_state(&mut self, number: u32, state: u8) -> Result<(), DataplaneError> {
        let Some(known) = self.backends.get_mut(&number) else { return Ok(()) };
        if known.state != state {
            known.state = state;
            self.maps.backends.set(number, *known, 0).map_err(DataplaneError::write("BACKENDS"))?;
        }
        Ok(())
    }

    fn free_rested(&mut self) {
        let now = now();
        let regions = &mut self.regions;
        self.resting.retain(|region| {
            let rested = now.since(region.since).at_least(REST);
            if rested {
                // It is held, for it was allocated or claimed before it came to rest.
                let _ = regions.free(region.region);
            }
            !rested
        });
    }

    fn service_id(&self, key: ServiceKey) -> Result<u32, DataplaneError> {
        if let Some(known) = self.services.get(&key) {
            return Ok(known.entry.id);
        }
        // An id whose backends still have connections to end is not free yet: flow keys name it.
        let taken = |id: u32| {
            self.services.values().any(|known| known.entry.id == id)
                || self.backends.values().any(|backend| backend.service == id)
        };
        (1..lb_common::MAX_SERVICES)
            .find(|id| !taken(*id))
            .ok_or(DataplaneError::TooMany { what: "services" })
    }

    fn backend_id(&mut self, service: u32, address: Be32, port: Be16) -> Result<u32, DataplaneError> {
        let known = self.backends.iter().find(|(_, backend)| {
            backend.service == service && backend.address == address && backend.port == port
        });
        if let Some((number, _)) = known {
            return Ok(*number);
        }
        // After the last one given away, so that a freed id rests as long as there are others: its counters go on.
        let mut after = (self.last_backend + 1..lb_common::MAX_BACKENDS).chain(1..lb_common::MAX_BACKENDS);
        let free = after.find(|number| !self.backends.contains_key(number));
        self.last_backend = free.unwrap_or(self.last_backend);
        free.ok_or(DataplaneError::TooMany { what: "backends" })
    }

    /// The id of the interface that a way leads out of, in the map of interfaces.
    pub(super) fn interface_id(&mut self, way: &Way) -> Result<u16, DataplaneError> {
        let entry = Interface { index: way.interface, mac: way.interface_mac, exit: way.exit, pad: [0; 5] };
        let known = self.interfaces.iter().position(|known| known.index == way.interface);
        let id = match known {
            Some(id) if self.interfaces[id] == entry => return Ok(id as u16),
            Some(id) => id,
            None if self.interfaces.len() < lb_common::MAX_INTERFACES as usize => {
                self.interfaces.push(entry);
                self.interfaces.len() - 1
            }
            None => return Err(DataplaneError::TooMany { what: "interfaces" }),
        };
        self.interfaces[id] = entry;
        self.maps.interfaces.set(id as u32, entry, 0).map_err(DataplaneError::write("INTERFACES"))?;
        Ok(id as u16)
    }

    /// The first cell of an endpoint's block; a block is taken at the first use.
    fn block(&mut self, key: EndpointKey) -> Result<u32, DataplaneError> {
        if let Some(cells) = self.endpoints.get(&key) {
            return Ok(*cells);
        }
        let ports = self.layout.ports.count();
        let cells = (0..self.layout.blocks)
            .map(|block| block * ports)
            .find(|cells| !self.endpoints.values().any(|taken| taken == cells))
            .ok_or(DataplaneError::TooMany {
                what: "endpoints (restart with `lb detach` and `lb run` for more)",
            })?;
        self.maps
            .endpoints
            .insert(key, Endpoint { cells, pad: 0 }, 0)
            .map_err(DataplaneError::write("ENDPOINTS"))?;
        self.endpoints.insert(key, cells);
        Ok(cells)
    }
}
