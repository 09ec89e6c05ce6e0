//! Accounts against connections: counts that leak are defects of ours, and are said to be.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
};

use lb_common::abi::{Account, server_account, service_account};

use super::Tally;
use crate::{
    dataplane::{
        Dataplane,
        family::{Family, Ip},
    },
    listen::Listen,
};

/// An account that does not agree with the connections it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Of a (service, backend) pair.
    Pair {
        /// The service.
        service: Listen,
        /// The backend.
        backend: SocketAddr,
        /// Connections that it says there are, less those that there are.
        difference: i64,
    },
    /// Of a server, over all services.
    Server {
        /// The server.
        server: SocketAddr,
        /// The same.
        difference: i64,
    },
    /// Of a service.
    Service {
        /// The service.
        service: Listen,
        /// The same.
        difference: i64,
    },
}

/// An account that differs; counts that move meanwhile prove nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Suspect {
    difference: i64,
    account: Account,
}

/// What the last sweep suspected, by the account's row.
#[derive(Debug, Default)]
pub(crate) struct Audit(HashMap<u32, Suspect>);

impl Audit {
    /// Compare all accounts with what the sweep has counted.
    pub(super) fn compare(&mut self, dataplane: &Dataplane, tally: &Tally) -> Vec<Fault> {
        let live = |number: u16| i64::from(tally.live[usize::from(number)]);
        let mut counted: BTreeMap<u32, i64> = BTreeMap::new();
        let mut add = |number: u16, server: u16, service: u16| {
            *counted.entry(u32::from(number)).or_default() += live(number);
            if server != 0 {
                *counted.entry(server_account(server)).or_default() += live(number);
            }
            *counted.entry(service_account(service)).or_default() += live(number);
        };
        rows(&dataplane.v4, &mut add);
        rows(&dataplane.v6, &mut add);

        let mut suspects = HashMap::new();
        let mut faults = Vec::new();
        for (row, live) in counted {
            let account = dataplane.common.accounts.get(row);
            // Not `Account::live`, which hides what is less than nothing.
            let closed = account.closed.wrapping_add(account.closed_by_agent);
            let difference = (account.opened.wrapping_sub(closed) as i64).wrapping_sub(live);
            let suspect = Suspect { difference, account };
            let stands = self.0.get(&row) == Some(&suspect);
            if difference == 0 {
                continue;
            }
            if stands {
                faults.extend(dataplane.fault(row, difference));
            }
            suspects.insert(row, suspect);
        }
        self.0 = suspects;
        faults
    }
}

/// Every backend with its server and its service.
fn rows<A: Ip>(family: &Family<A>, add: &mut impl FnMut(u16, u16, u16)) {
    for (number, backend) in &family.backends {
        add(*number, backend.server, backend.service);
    }
}

impl Dataplane {
    /// Say whose account a row is.
    fn fault(&self, row: u32, difference: i64) -> Option<Fault> {
        if row < server_account(0) {
            let (service, backend) = self.name_of(row as u16)?;
            return Some(Fault::Pair { service, backend, difference });
        }
        if row < service_account(0) {
            let id = (row - server_account(0)) as u16;
            let (server, _) = self.common.servers.iter().find(|(_, known)| **known == id)?;
            return Some(Fault::Server { server: server.0, difference });
        }
        let service = self.service_name((row - service_account(0)) as u16)?;
        Some(Fault::Service { service, difference })
    }
}
