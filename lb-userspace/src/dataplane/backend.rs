//! One backend of a service: its entry, the endpoint that its answers come from, the source addresses that it sees.

use std::{collections::BTreeSet, net::SocketAddr};

use lb_common::{
    Be16, MAX_SOURCES,
    abi::{Backend, ENDPOINT_SERVICES, Endpoint, EndpointKey, Hop, backend_state, mode},
};

use super::{
    DataplaneError,
    common::Common,
    desired::{DesiredBackend, DesiredService, Fate, Way},
    family::{Family, Ip, address_of},
};
use crate::listen::Ports;

impl<A: Ip> Family<A> {
    /// Make the maps say what is wanted of a backend; its id.
    pub(super) fn publish_backend(
        &mut self,
        common: &mut Common,
        service: u16,
        of: &DesiredService,
        wanted: &DesiredBackend,
    ) -> Result<u16, DataplaneError> {
        let foreign = || DataplaneError::Family { service: of.listen, address: wanted.address.ip() };
        let address = A::of(wanted.address.ip()).ok_or_else(foreign)?;
        let service_address = A::of(of.listen.address).ok_or_else(foreign)?;
        let port = Be16::from_host(wanted.address.port());
        let protocol = of.listen.protocol.number();
        let (number, before) = match self.known_backend(service, of.mode, wanted.address) {
            Some(known) => known,
            None => (common.new_backend_id()?, Backend::default()),
        };
        let mut entry = Backend {
            address,
            service_address,
            weight: wanted.weight,
            port,
            service,
            server: common.server_id((wanted.address, protocol))?,
            state: match (wanted.fate, wanted.is_open()) {
                (Fate::Cut, _) => backend_state::CUT,
                (Fate::Keep, true) => backend_state::ACTIVE,
                (Fate::Keep, false) => backend_state::CLOSED_TO_NEW,
            },
            mode: of.mode,
            no_backend: of.no_backend,
            protocol,
            // While the way is unknown the last one stands: a next hop that is being resolved again is still the best
            // guess.
            hop: before.hop,
            mtu: before.mtu,
            cells: before.cells,
            source: before.source,
            sources: before.sources.max(1),
        };
        if let Some(way) = &wanted.way {
            entry.hop = Hop { mac: way.mac, interface: common.interface_id(way, None)? };
            entry.mtu = way.mtu;
            self.assign_sources(common, &mut entry, wanted, of, way)?;
        }
        if of.mode == mode::DNAT {
            self.publish_answers(number, &entry, of)?;
        }
        if entry != before {
            let written = self.maps.backends.set(u32::from(number), A::Backend::from(entry), 0);
            written.map_err(DataplaneError::write(A::NAMES.backends))?;
            self.backends.insert(number, entry);
        }
        if entry.state == backend_state::CUT && before.service != 0 && before.state != backend_state::CUT {
            self.pass.hunt.begin(number);
        }
        Ok(number)
    }

    /// A backend as it stands in the maps. In another mode it is another one: its connections are of another kind.
    pub(super) fn known_backend(
        &self,
        service: u16,
        mode: u8,
        address: SocketAddr,
    ) -> Option<(u16, Backend<A>)> {
        let known = self.backends.iter().find(|(_, known)| {
            (known.service, known.mode) == (service, mode) && address_of(known) == address
        });
        known.map(|(number, known)| (*number, *known))
    }

    /// The sources that the backend sees, and with `snat` its blocks of port cells.
    fn assign_sources(
        &mut self,
        common: &Common,
        entry: &mut Backend<A>,
        wanted: &DesiredBackend,
        of: &DesiredService,
        way: &Way,
    ) -> Result<(), DataplaneError> {
        let used = match of.mode {
            mode::SNAT => way.sources.as_slice(),
            mode::IPIP => way.sources.get(..1).unwrap_or_default(),
            _ => {
                (entry.source, entry.sources, entry.cells) = (0, 1, 0);
                return Ok(());
            }
        };
        let sources: Option<Vec<A>> = used.iter().map(|source| A::of(*source)).collect();
        let sources = sources
            .filter(|sources| !sources.is_empty())
            .ok_or(DataplaneError::NoSource { backend: wanted.address })?;
        let cells = if of.mode == mode::SNAT { self.blocks(common, entry, &sources, wanted)? } else { 0 };
        entry.source = self.source_numbers(&sources)?;
        entry.sources = sources.len() as u16;
        entry.cells = cells;
        Ok(())
    }

    /// The first cell of an endpoint's blocks, one for each source, one after the other; taken at the first use, shared
    /// by all services that use the endpoint with these sources or some of them that follow each other. A server that some
    /// service reaches at its clients' ports has one block for all its ports: two would lend the same source port twice.
    fn blocks(
        &mut self,
        common: &Common,
        entry: &Backend<A>,
        sources: &[A],
        wanted: &DesiredBackend,
    ) -> Result<u32, DataplaneError> {
        let ports = common.layout.ports.count();
        let keys: Vec<EndpointKey<A>> = sources
            .iter()
            .map(|source| EndpointKey::of(entry.address, *source, entry.port, entry.protocol))
            .collect();
        let shares = common.keep_ports.contains(&(wanted.address.ip(), entry.protocol));
        let block = |key: &EndpointKey<A>| self.known_endpoint(key, shares).map(|known| known.cells / ports);
        let held: Vec<Option<u32>> = keys.iter().map(block).collect();
        let taken = self.taken_blocks(ports);
        let limit = common.layout.blocks[A::INDEX];
        // Where one block stands, the others must stand beside it.
        let first = match held.iter().enumerate().find_map(|(place, block)| Some((place, (*block)?))) {
            Some((place, block)) => block.checked_sub(place as u32),
            None => free_run(&taken, 0, limit, sources.len() as u32),
        };
        let moved = || DataplaneError::SourcesHeld { backend: wanted.address };
        let first = match first {
            Some(first) => first,
            None if held.iter().any(Option::is_some) => return Err(moved()),
            None => {
                let what = "endpoints (restart with `lb detach` and `lb run` for more)";
                return Err(DataplaneError::TooMany { what });
            }
        };
        let fits = (first..).zip(&held).all(|(block, held)| match held {
            Some(held) => *held == block,
            None => block < limit && !taken.contains(&block),
        });
        if !fits {
            return Err(moved());
        }
        for (block, key) in (first..).zip(keys) {
            let endpoint = Endpoint { cells: block * ports, ..Endpoint::default() };
            self.write_endpoint(key, endpoint)?;
        }
        Ok(first * ports)
    }

    /// An endpoint; where it `shares`, any of the same server and source.
    fn known_endpoint(&self, key: &EndpointKey<A>, shares: bool) -> Option<&Endpoint> {
        let of_server = || {
            let mut others = self.endpoints.iter().filter(|(other, _)| {
                (other.address, other.source, other.protocol) == (key.address, key.source, key.protocol)
            });
            others.next().map(|(_, endpoint)| endpoint)
        };
        self.endpoints.get(key).or_else(|| if shares { of_server() } else { None })
    }

    fn taken_blocks(&self, ports: u32) -> BTreeSet<u32> {
        let of_snat = self.endpoints.iter().filter(|(key, _)| key.source != A::default());
        of_snat.map(|(_, endpoint)| endpoint.cells / ports).collect()
    }

    /// The number of the first of these sources; the others follow.
    fn source_numbers(&mut self, sources: &[A]) -> Result<u16, DataplaneError> {
        if let Some(place) = self.sources[1..].windows(sources.len()).position(|window| window == sources) {
            return Ok(place as u16 + 1);
        }
        // A number that an endpoint or a backend may still mean is not free: flows name it.
        let taken: BTreeSet<u32> = (1..)
            .zip(&self.sources[1..])
            .filter(|(number, source)| **source != A::default() && self.means_source(*number, **source))
            .map(|(number, _)| number)
            .collect();
        let first = free_run(&taken, 1, MAX_SOURCES, sources.len() as u32)
            .ok_or(DataplaneError::TooMany { what: "source addresses" })?;
        for (number, source) in (first..).zip(sources) {
            let written = self.maps.sources.set(number, *source, 0);
            written.map_err(DataplaneError::write(A::NAMES.sources))?;
            self.sources[number as usize] = *source;
        }
        Ok(first as u16)
    }

    fn means_source(&self, number: u32, source: A) -> bool {
        self.endpoints.keys().any(|key| key.source == source)
            || self.backends.values().any(|backend| {
                let first = u32::from(backend.source);
                first != 0 && (first..first + u32::from(backend.sources)).contains(&number)
            })
    }

    /// Whom the answers of a `dnat` backend may belong to: it answers to the clients themselves, so the services are
    /// found by its address.
    fn publish_answers(
        &mut self,
        number: u16,
        entry: &Backend<A>,
        of: &DesiredService,
    ) -> Result<(), DataplaneError> {
        let port = match (of.listen.ports, entry.port == Be16::default()) {
            (_, true) => Be16::default(),
            (Ports::One(port), false) => Be16::from_host(port),
            (Ports::Range(..) | Ports::All, false) => {
                return Err(DataplaneError::ManyToOne { service: of.listen });
            }
        };
        let key = EndpointKey::of(entry.address, A::default(), entry.port, entry.protocol);
        let mut answers = self.answers(&key, Some(number));
        answers.insert((entry.service, port.wire()));
        self.write_answers(key, &answers)
    }

    /// The services that an endpoint answers for, with the ports of their clients, but for one backend.
    fn answers(&self, key: &EndpointKey<A>, without: Option<u16>) -> BTreeSet<(u16, u16)> {
        let of_endpoint = self.backends.iter().filter(|(number, known)| {
            Some(**number) != without
                && (known.mode, known.address, known.port, known.protocol)
                    == (mode::DNAT, key.address, key.port, key.protocol)
        });
        let known = self.endpoints.get(key).copied().unwrap_or_default();
        of_endpoint
            .filter_map(|(_, backend)| {
                // The client's port was written when the backend was published.
                let place = known.services.iter().position(|service| *service == backend.service)?;
                Some((backend.service, known.ports[place].wire()))
            })
            .collect()
    }

    fn write_answers(
        &mut self,
        key: EndpointKey<A>,
        answers: &BTreeSet<(u16, u16)>,
    ) -> Result<(), DataplaneError> {
        if answers.len() > ENDPOINT_SERVICES {
            return Err(DataplaneError::TooMany { what: "`dnat` services of one server" });
        }
        let mut endpoint = Endpoint::default();
        for (place, (service, port)) in answers.iter().enumerate() {
            endpoint.services[place] = *service;
            endpoint.ports[place] = Be16::from_wire(*port);
        }
        self.write_endpoint(key, endpoint)
    }

    fn write_endpoint(&mut self, key: EndpointKey<A>, endpoint: Endpoint) -> Result<(), DataplaneError> {
        if self.endpoints.get(&key) != Some(&endpoint) {
            let written = self.maps.endpoints.insert(A::EndpointKey::from(key), endpoint, 0);
            written.map_err(DataplaneError::write(A::NAMES.endpoints))?;
            self.endpoints.insert(key, endpoint);
        }
        Ok(())
    }

    /// Endpoints that no backend names, once no cell of theirs is held; and services that one answers for no more.
    pub(super) fn free_endpoints(
        &mut self,
        ports: u32,
        held_blocks: &BTreeSet<u32>,
    ) -> Result<(), DataplaneError> {
        let keys: Vec<EndpointKey<A>> = self.endpoints.keys().copied().collect();
        for key in keys {
            if key.source == A::default() {
                let answers = self.answers(&key, None);
                if !answers.is_empty() {
                    self.write_answers(key, &answers)?;
                    continue;
                }
            } else if self.names_block(&key, ports)
                || self.endpoints.get(&key).is_some_and(|known| held_blocks.contains(&known.cells))
            {
                continue;
            }
            let removed = self.maps.endpoints.remove(&key.into());
            removed.map_err(DataplaneError::write(A::NAMES.endpoints))?;
            self.endpoints.remove(&key);
        }
        Ok(())
    }

    /// Whether a backend uses an endpoint's block.
    fn names_block(&self, key: &EndpointKey<A>, ports: u32) -> bool {
        let Some(endpoint) = self.endpoints.get(key) else { return false };
        self.backends.values().any(|backend| {
            (backend.mode, backend.address, backend.port, backend.protocol)
                == (mode::SNAT, key.address, key.port, key.protocol)
                && backend.source != 0
                && (backend.cells..backend.cells + u32::from(backend.sources) * ports)
                    .contains(&endpoint.cells)
        })
    }
}

/// The first of `length` numbers in a row from `from` on, below `limit`, that are not taken.
fn free_run(taken: &BTreeSet<u32>, from: u32, limit: u32, length: u32) -> Option<u32> {
    let mut first = from;
    for number in taken.range(from..) {
        if *number >= first + length {
            break;
        }
        first = number + 1;
    }
    (first + length <= limit).then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_free_numbers_is_the_first_that_is_long_enough() {
        for (taken, from, limit, length, run) in [
            (vec![], 0, 4, 4, Some(0)),
            (vec![], 0, 4, 5, None),
            (vec![], 1, 4, 3, Some(1)),
            (vec![0], 0, 4, 3, Some(1)),
            (vec![1], 0, 4, 1, Some(0)),
            (vec![1], 0, 4, 2, Some(2)),
            (vec![1, 3], 0, 4, 2, None),
            (vec![0, 1, 2, 3], 0, 4, 1, None),
        ] {
            let taken: BTreeSet<u32> = taken.into_iter().collect();
            assert_eq!(free_run(&taken, from, limit, length), run, "{taken:?} {from} {limit} {length}");
        }
    }
}
