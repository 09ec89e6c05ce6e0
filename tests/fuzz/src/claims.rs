//! Who has held which source port, and until when: what the data path itself forgets.

use std::{
    collections::HashMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

use lb_common::{Address, cell::PortCell};

/// Who has held each port cell, by the moments at which they were given away.
#[derive(Debug, Default)]
pub struct Claims {
    moment: AtomicU64,
    given: Mutex<HashMap<(u8, u32), Vec<(u64, Holder)>>>,
}

/// Family's words of the client's address, its port, and the (service, backend) pair.
type Holder = ((u64, u64), u16, u16);

impl Claims {
    /// This moment; no other gets the same.
    pub fn moment(&self) -> u64 {
        self.moment.fetch_add(1, SeqCst)
    }

    /// A cell is given away: it has this body now.
    pub fn give<A: Address>(&self, index: u32, body: &PortCell<A>) {
        let holder = (body.client().words(), body.owner.client_port().host(), body.backend);
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.entry((A::VERSION, index)).or_default().push((self.moment(), holder));
    }

    /// Whether a client has held a cell at `moment` or later.
    pub fn held<A: Address>(&self, index: u32, client: A, port: u16, pair: u16, moment: u64) -> bool {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(holders) = given.get(&(A::VERSION, index)) else { return false };
        let last = holders.iter().rposition(|(_, holder)| *holder == (client.words(), port, pair));
        last.is_some_and(|place| holders.get(place + 1).is_none_or(|(until, _)| *until > moment))
    }
}
