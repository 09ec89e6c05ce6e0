//! Counters: read when somebody asks.

use std::net::{IpAddr, SocketAddr};

use lb_common::{
    Reason,
    abi::{Account, Traffic, server_account, service_account},
};

use super::{
    Dataplane, DataplaneError,
    common::Common,
    family::{Family, Ip, address_of},
};
use crate::listen::Listen;

/// Counters of a (service, backend) pair at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendCounts {
    /// Connections.
    pub account: Account,
    /// Connections of its server, over all services.
    pub server: Account,
    /// Packets and bytes, over all CPUs.
    pub traffic: Traffic,
}

impl Common {
    /// The counter of a reason, over all CPUs.
    pub(super) fn reason(&self, reason: Reason, service: u16) -> Result<u64, DataplaneError> {
        let cpus = self.reasons.get(&reason.counter(service), 0).map_err(DataplaneError::write("REASONS"))?;
        Ok(cpus.iter().sum())
    }

    fn counts(&self, number: u16, server: u16) -> Result<BackendCounts, DataplaneError> {
        let row = u32::from(number);
        let cpus = self.traffic.get(&row, 0).map_err(DataplaneError::write("TRAFFIC"))?;
        let traffic = cpus.iter().fold(Traffic::default(), |sum, cpu| Traffic {
            packets_in: sum.packets_in + cpu.packets_in,
            bytes_in: sum.bytes_in + cpu.bytes_in,
            packets_out: sum.packets_out + cpu.packets_out,
            bytes_out: sum.bytes_out + cpu.bytes_out,
        });
        let server = if server == 0 { Account::default() } else { self.accounts.get(server_account(server)) };
        Ok(BackendCounts { account: self.accounts.get(row), server, traffic })
    }
}

impl<A: Ip> Family<A> {
    /// The ids of a backend and of its server.
    fn ids_of(&self, service: &Listen, backend: SocketAddr) -> Option<(u16, u16)> {
        let known = self.services.get(service)?.entry;
        let mut of_service = self.backends.iter().filter(|(_, pair)| pair.service == known.id);
        // After a change of mode the old pair lives on while its connections end; the new one counts.
        let found = of_service.find(|(_, pair)| address_of(pair) == backend && pair.mode == known.mode);
        found.map(|(number, pair)| (*number, pair.server))
    }
}

impl Dataplane {
    /// The counters of a backend; zero before it was published.
    pub fn backend_counts(
        &self,
        service: Listen,
        backend: SocketAddr,
    ) -> Result<BackendCounts, DataplaneError> {
        let ids = match service.address {
            IpAddr::V4(_) => self.v4.ids_of(&service, backend),
            IpAddr::V6(_) => self.v6.ids_of(&service, backend),
        };
        ids.map_or(Ok(BackendCounts::default()), |(number, server)| self.common.counts(number, server))
    }

    /// The connections of a service; none before it was published.
    pub fn service_account(&self, service: Listen) -> Account {
        let known = self.known(&service);
        known.map_or_else(Account::default, |known| self.common.accounts.get(service_account(known.entry.id)))
    }

    /// The counters of a service's reasons, over all CPUs; `None`: packets without a service.
    pub fn reasons(&self, service: Option<Listen>) -> Result<Vec<(Reason, u64)>, DataplaneError> {
        let id = match service {
            None => 0,
            Some(listen) => match self.known(&listen) {
                Some(known) => known.entry.id,
                None => return Ok(Vec::new()),
            },
        };
        Reason::ALL.iter().map(|reason| Ok((*reason, self.common.reason(*reason, id)?))).collect()
    }

    /// Slots of a service's ring that are changing hands: packets of theirs cost a look-up.
    pub fn unsettled(&self, service: Listen) -> usize {
        let settling = self.known(&service).and_then(|known| known.settling.as_ref());
        settling.map_or(0, crate::ring::Settling::unsettled)
    }
}
