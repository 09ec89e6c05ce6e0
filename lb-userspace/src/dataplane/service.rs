//! One service: its entry, its ring, its ranges.
//!
//! The order of writes is what makes a publication whole. A new backend and its endpoint are written before any ring
//! names them; a ring is laid out in a free region before its service points there; the service's entry is replaced by
//! one update; what closes is written after the ring that named it.

use std::{collections::BTreeSet, net::SocketAddr};

use lb_common::{
    Ticks,
    abi::{Backend, RANGES, Service, backend_state, service_account, service_flag},
    flow::mix,
};

use super::{
    DataplaneError,
    common::Common,
    desired::{DesiredBackend, DesiredService, Fate, Timeouts},
    family::{Family, Ip, address_of, ranges_key, service_key},
    now,
    rings::{Laid, Shares},
};
use crate::{
    listen::{Listen, Ports},
    ring::Settling,
};

/// What the agent knows of a service in the maps.
#[derive(Clone, Debug)]
pub(super) struct KnownService {
    pub(super) entry: Service,
    pub(super) timeouts: Timeouts,
    /// Whom its ring was laid out for; `None`: an earlier agent did.
    pub(super) shares: Option<Shares>,
    /// The life of its slots, where connections are looked up only in those that change hands.
    pub(super) settling: Option<Settling>,
    /// Its counter of connections that could not be recorded, as it was seen last.
    pub(super) unrecorded: u64,
}

impl KnownService {
    /// One that an earlier agent published; its ring is laid out anew at the first publication.
    pub(super) fn adopted(entry: Service) -> Self {
        Self { entry, timeouts: UNKNOWN, shares: None, settling: None, unrecorded: 0 }
    }
}

/// Time-outs of connections whose service is not known (any more).
pub(super) const UNKNOWN: Timeouts = Timeouts {
    established: Ticks::from_millis(9 * 3_600_000),
    embryonic: Ticks::from_millis(10_000),
    closing: Ticks::from_millis(60_000),
    udp: Ticks::from_millis(60_000),
};

/// The seed of a service's ring: the same wherever it listens at the same address (FNV-1a, then one round of mixing).
fn ring_seed(listen: &Listen) -> u64 {
    let text = listen.to_string();
    mix(text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

impl<A: Ip> Family<A> {
    /// Make the maps say what is wanted of one service. What fails for one backend does not hold up the others.
    /// Returns whether something waits for the ring's next change.
    pub(super) fn publish_service(
        &mut self,
        common: &mut Common,
        wanted: &DesiredService,
        errors: &mut Vec<DataplaneError>,
    ) -> bool {
        let id = match self.services.get(&wanted.listen) {
            Some(known) => known.entry.id,
            None => match common.new_service_id() {
                Ok(id) => id,
                Err(error) => {
                    errors.push(error);
                    return false;
                }
            },
        };
        let mut present = BTreeSet::new();
        let mut open = Vec::with_capacity(wanted.backends.len());
        for backend in wanted.backends.iter().filter(|backend| backend.is_open()) {
            if let Some(number) = self.publish_or_keep(common, id, wanted, backend, errors) {
                present.insert(number);
                open.push((number, backend.weight, backend.address));
            }
        }
        let waits = match self.publish_entry(common, id, wanted, &open) {
            Ok(waits) => waits,
            Err(error) => {
                errors.push(error);
                return false;
            }
        };
        errors.extend(self.publish_ranges(&wanted.listen).err());
        for backend in wanted.backends.iter().filter(|backend| !backend.is_open()) {
            present.extend(self.publish_or_keep(common, id, wanted, backend, errors));
        }
        self.leave(id, &present, errors);
        self.wanted.extend(present);
        waits
    }

    /// Publish a backend; its id. One that cannot be changed stays as it is, with its connections.
    fn publish_or_keep(
        &mut self,
        common: &mut Common,
        id: u16,
        of: &DesiredService,
        backend: &DesiredBackend,
        errors: &mut Vec<DataplaneError>,
    ) -> Option<u16> {
        match self.publish_backend(common, id, of, backend) {
            Ok(number) => Some(number),
            Err(error) => {
                errors.push(error);
                self.known_backend(id, of.mode, backend.address).map(|(number, _)| number)
            }
        }
    }

    /// Backends that a service does not name any more: they take no new connections, and are forgotten when those that
    /// they have are over. Among them are those that were reached in another mode before.
    fn leave(&mut self, id: u16, present: &BTreeSet<u16>, errors: &mut Vec<DataplaneError>) {
        for number in self.absent(id, present) {
            if self.backends.get(&number).is_some_and(|known| known.state != backend_state::CUT) {
                errors.extend(self.set_state(number, backend_state::CLOSED_TO_NEW).err());
            }
            self.unnamed.insert(number);
            self.wanted.remove(&number);
        }
        for number in present {
            self.unnamed.remove(number);
        }
    }

    fn absent(&self, id: u16, present: &BTreeSet<u16>) -> Vec<u16> {
        let of_service = self.backends.iter().filter(|(_, known)| known.service == id);
        of_service.map(|(number, _)| *number).filter(|number| !present.contains(number)).collect()
    }

    /// Backends of a service that is withdrawn: their connections end, on both sides.
    fn end(&mut self, id: u16, errors: &mut Vec<DataplaneError>) {
        for number in self.absent(id, &BTreeSet::new()) {
            errors.extend(self.set_state(number, backend_state::CUT).err());
            self.wanted.remove(&number);
        }
    }

    /// Lay out the ring where it has changed, and replace the entry by one update.
    fn publish_entry(
        &mut self,
        common: &mut Common,
        id: u16,
        wanted: &DesiredService,
        open: &[(u16, u32, SocketAddr)],
    ) -> Result<bool, DataplaneError> {
        let Some(key) = service_key::<A>(&wanted.listen) else {
            return Err(DataplaneError::Family { service: wanted.listen, address: wanted.listen.address });
        };
        let before = self.services.get(&wanted.listen).cloned();
        let old = before.as_ref().map_or_else(Service::default, |known| known.entry);
        let kept = self.kept(id, wanted);
        let shares = Shares::new(wanted, open);
        let laid = common.lay_out(before.as_ref(), wanted, shares, |number| !kept.contains(&number))?;
        let entry = entry(id, wanted, &laid, old);
        let limit = wanted.max_connections.map_or(0, u64::from);
        common.accounts.limit(service_account(id), limit);
        if (before.is_none() || entry != old)
            && let Err(error) = self.maps.services.insert(A::ServiceKey::from(key), entry, 0)
        {
            if laid.moved {
                common.rest(&entry);
            }
            return Err(DataplaneError::write(A::NAMES.services)(error));
        }
        if laid.moved {
            common.rest(&old);
        }
        let known = KnownService {
            entry,
            timeouts: wanted.timeouts,
            shares: Some(laid.shares),
            settling: laid.settling,
            unrecorded: before.map_or(0, |known| known.unrecorded),
        };
        self.services.insert(wanted.listen, known);
        Ok(laid.waits)
    }

    /// The backends of a service whose connections go on.
    fn kept(&self, id: u16, wanted: &DesiredService) -> BTreeSet<u16> {
        let goes_on = |known: &Backend<A>| {
            let mut named = wanted.backends.iter();
            match named.find(|backend| backend.address == address_of(known)) {
                Some(backend) => backend.fate == Fate::Keep,
                None => known.state != backend_state::CUT,
            }
        };
        let of_service = self.backends.iter().filter(|(_, known)| known.service == id && goes_on(known));
        of_service.map(|(number, _)| *number).collect()
    }

    /// Name a range where packets to its address look for it; narrow ones come first. No other service's is lost.
    fn publish_ranges(&mut self, listen: &Listen) -> Result<(), DataplaneError> {
        if matches!(listen.ports, Ports::One(_)) {
            return Ok(());
        }
        let of_address: Vec<[u16; 2]> = self
            .services
            .keys()
            .filter(|known| (known.address, known.protocol) == (listen.address, listen.protocol))
            .filter(|known| !matches!(known.ports, Ports::One(_)))
            .map(|known| <[u16; 2]>::from(known.ports.ends()))
            .collect();
        self.write_ranges(listen, of_address)
    }

    fn write_ranges(&mut self, listen: &Listen, mut ranges: Vec<[u16; 2]>) -> Result<(), DataplaneError> {
        let Some(address) = A::of(listen.address) else { return Ok(()) };
        if ranges.len() > RANGES {
            return Err(DataplaneError::TooMany { what: "ranges of ports of one address" });
        }
        ranges.sort_by_key(|[first, last]| (last - first, *first));
        let key = ranges_key(address, listen.protocol);
        let mut value = lb_common::abi::Ranges { ranges: [[1, 0]; RANGES] };
        value.ranges[..ranges.len()].copy_from_slice(&ranges);
        if ranges.is_empty() {
            if self.ranges.remove(&key).is_some() {
                let removed = self.maps.ranges.remove(&key.into());
                removed.map_err(DataplaneError::write(A::NAMES.ranges))?;
            }
        } else if self.ranges.get(&key) != Some(&value) {
            let written = self.maps.ranges.insert(A::RangesKey::from(key), value, 0);
            written.map_err(DataplaneError::write(A::NAMES.ranges))?;
            self.ranges.insert(key, value);
        }
        Ok(())
    }

    /// Whether another service's range begins at the same port, so that both cannot be told apart.
    pub(super) fn collides(&self, listen: &Listen) -> bool {
        self.services.keys().any(|known| begin_alike(known, listen))
    }

    /// Take a service off the wire; its connections are cut.
    pub(super) fn withdraw(&mut self, common: &mut Common, listen: &Listen) -> Result<(), DataplaneError> {
        let Some(key) = service_key::<A>(listen) else { return Ok(()) };
        if !matches!(listen.ports, Ports::One(_)) {
            let others = self.services.keys().filter(|known| {
                *known != listen
                    && (known.address, known.protocol) == (listen.address, listen.protocol)
                    && !matches!(known.ports, Ports::One(_))
            });
            let others = others.map(|known| <[u16; 2]>::from(known.ports.ends())).collect();
            self.write_ranges(listen, others)?;
        }
        self.maps.services.remove(&key.into()).map_err(DataplaneError::write(A::NAMES.services))?;
        if let Some(known) = self.services.remove(listen) {
            common.rest(&known.entry);
            let mut errors = Vec::new();
            self.end(known.entry.id, &mut errors);
            if let Some(error) = errors.pop() {
                return Err(error);
            }
        }
        Ok(())
    }

    pub(super) fn set_state(&mut self, number: u16, state: u8) -> Result<(), DataplaneError> {
        let Some(known) = self.backends.get_mut(&number) else { return Ok(()) };
        if known.state != state {
            known.state = state;
            let written = self.maps.backends.set(u32::from(number), A::Backend::from(*known), 0);
            written.map_err(DataplaneError::write(A::NAMES.backends))?;
            if state == backend_state::CUT {
                self.pass.hunt.begin(number);
            }
        }
        Ok(())
    }
}

/// Whether two services have ranges that begin at the same port of the same address.
pub(super) fn begin_alike(one: &Listen, other: &Listen) -> bool {
    let is_range = |listen: &Listen| !matches!(listen.ports, Ports::One(_));
    let begin = |listen: &Listen| (listen.address, listen.protocol, listen.ports.ends().0);
    one != other && is_range(one) && is_range(other) && begin(one) == begin(other)
}

/// A service's entry as it is to be.
fn entry(id: u16, wanted: &DesiredService, laid: &Laid, old: Service) -> Service {
    let empty_since = match (laid.empty, old.empty_since) {
        (false, _) => 0,
        // A service that begins without anybody is empty from now on.
        (true, 0) => now().raw().max(1),
        (true, since) => since,
    };
    let flag = |set, flag| if set { flag } else { 0 };
    Service {
        ring_seed: ring_seed(&wanted.listen),
        ring_offset: laid.offset,
        ring_length: laid.length,
        empty_since,
        hold: Ticks::from_millis(wanted.hold.as_millis() as u64).raw(),
        id,
        members: laid.members,
        algorithm: wanted.algorithm,
        no_backend: wanted.no_backend,
        mode: wanted.mode,
        flags: flag(wanted.on_change, service_flag::ON_CHANGE)
            | flag(wanted.rate.is_some(), service_flag::RATE)
            | flag(wanted.pass_lost, service_flag::PASS_LOST),
        rate: wanted.rate.map_or(0, |rate| rate.per_second),
        burst: wanted.rate.map_or(0, |rate| rate.burst),
    }
}
