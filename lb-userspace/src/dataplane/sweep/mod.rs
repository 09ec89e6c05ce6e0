//! Expiry: connections that have been silent for too long, or whose backend is gone, are ended here.
//!
//! Port cells and flows are read as memory, so looking at a million of them costs no system call. What knows how far a
//! connection has come is judged (a port cell, or a flow of the modes without); a linked flow goes with its cell.
//! Every change is the compare-and-swap that the kernel's half makes too, in the order that `lb_common::cell` asks of
//! everybody: the cell `Busy`, then its flow, then the port at rest.
//!
//! An established TCP connection is never forgotten in silence: it is marked as cut and handed out, so that both ends
//! are asked for their numbers and get their RST, and freed when both know or have had their time.
//!
//! Where the server's packets are not seen (`dsr`, `ipip`), a client that has said nothing since its first second may be
//! a forged one. Before it is forgotten it is asked: a socket that has the connection answers a SYN with an ACK
//! (RFC 5961 section 4), which proves it to the data path as any other packet would.

mod audit;
mod cells;
mod flows;
mod hunt;
mod judge;
mod settle;
mod target;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::{Duration, Instant},
};

use lb_common::{
    MAX_BACKENDS, Ticks,
    abi::{Backend, backend_state, server_account, service_account},
    cell::Owner,
};

use super::{
    Dataplane, DataplaneError,
    common::Common,
    family::{Family, Ip},
    now, rings,
    service::UNKNOWN,
};
use crate::{cut, health::Moment};
pub(super) use audit::Audit;
pub use audit::Fault;
use hunt::Hunt;
use judge::Terms;
use settle::Unsettled;

/// How long one slice may take before others get their turn: two milliseconds, less a stretch and what comes around it.
const SLICE: Duration = Duration::from_micros(1_800);

/// Cells or flows between two looks at the clock.
const STRIDE: u32 = 1024;

/// Cuts that one sweep begins at most: what the machine of cuts does in a second.
const CUTS: usize = 4096;

/// Clients that one sweep has asked at most.
const ASKS: usize = 16_384;

/// A cell or flow that is still changing hands after this long was left so by somebody who died.
const ABANDONED: Ticks = Ticks::from_millis(10_000);

/// What one whole sweep has found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Swept {
    /// Accounts that, unmoved over two sweeps, differ from the connections they stand for: a defect of ours.
    pub faults: Vec<Fault>,
    /// Connections that are marked as cut now, whose ends are to be told; at most 4,096.
    pub cut: Vec<cut::Target>,
    /// Connections whose client is to be asked whether there is one; at most 16,384.
    pub ask: Vec<cut::Target>,
    /// Sides of cut connections that know.
    pub told: Vec<(cut::Connection, cut::Side)>,
}

/// Where the sweep over both families stands.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    stage: Stage,
    tally: Tally,
    audit: Audit,
}

/// What is being looked at. Cells come before flows, so that a flow whose cell has ended in the same sweep has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Cells4,
    Flows4,
    Cells6,
    Flows6,
    /// All has been seen; the conclusion gets a turn of its own.
    End,
}

/// What has been counted since the sweep began.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Connections held, and those that count as live, by backend.
    held: Vec<u32>,
    live: Vec<u32>,
    /// Blocks (first cells) that hold connections, by family.
    blocks: [BTreeSet<u32>; 2],
    /// When it began, as the rings' life counts time.
    began: Moment,
    /// Services whose slots could settle, and of those the slots with a connection on another backend than the owner.
    settling: BTreeMap<u16, Unsettled>,
    swept: Swept,
}

impl Tally {
    fn begin() -> Self {
        Self {
            held: vec![0; MAX_BACKENDS as usize],
            live: vec![0; MAX_BACKENDS as usize],
            began: rings::moment(),
            ..Self::default()
        }
    }

    fn count(&mut self, backend: u16, owner: Owner) {
        if let Some(held) = self.held.get_mut(usize::from(backend)) {
            *held += 1;
        }
        if owner.is_live()
            && let Some(live) = self.live.get_mut(usize::from(backend))
        {
            *live += 1;
        }
    }
}

/// Where the sweep of one family stands, and what it remembers from one to the next.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Blocks (first cells) still to be looked at, and the place in the last of them, or in the flow table.
    blocks: Option<Vec<u32>>,
    place: u32,
    /// Backends that nobody wanted when the pass began. What it finds nothing of is forgotten; a backend that takes
    /// connections until its midst may have some where it has looked already.
    leaving: BTreeSet<u16>,
    /// Connections that are looked for between the passes.
    pub(super) hunt: Hunt,
    cells: Memory,
    flows: Memory,
}

/// What is remembered of some places of a table.
#[derive(Debug, Default)]
struct Memory {
    /// Found changing hands, or without the cell they belong to: the owner word, and since when it stands.
    doubtful: HashMap<u32, (Owner, Ticks)>,
    /// Handed out to be cut: the hold, and when.
    handed: HashMap<u32, (Owner, Ticks)>,
    /// The client was asked whether there is a connection: the hold, and when first.
    asked: HashMap<u32, (Owner, Ticks)>,
}

impl Memory {
    /// Since when a place has this owner word, as far as was seen.
    fn doubted_since(&mut self, place: u32, owner: Owner, now: Ticks) -> Ticks {
        let (word, since) = self.doubtful.entry(place).or_insert((owner, now));
        if *word != owner {
            (*word, *since) = (owner, now);
        }
        *since
    }

    /// When this hold was handed out to be cut.
    fn handed_at(&self, place: u32, owner: Owner) -> Option<Ticks> {
        let (held, since) = self.handed.get(&place)?;
        held.is_same_hold(owner).then_some(*since)
    }

    /// When this hold's client was first asked.
    fn asked_at(&self, place: u32, owner: Owner) -> Option<Ticks> {
        let (held, since) = self.asked.get(&place)?;
        held.is_same_hold(owner).then_some(*since)
    }

    /// Forget places that have other owners now.
    fn tidy(&mut self, owner: impl Fn(u32) -> Owner) {
        self.doubtful.retain(|place, (word, _)| owner(*place) == *word);
        self.handed.retain(|place, (hold, _)| {
            let now = owner(*place);
            now.is_held() && now.is_same_hold(*hold)
        });
        // Who has answered is asked afresh if it is silent again.
        self.asked.retain(|place, (word, _)| owner(*place) == *word);
    }
}

impl Dataplane {
    /// Sweep for at most two milliseconds; `Some` when everything has been seen once more.
    pub fn sweep(&mut self) -> Result<Option<Swept>, DataplaneError> {
        let begun = Instant::now();
        let mut state = std::mem::take(&mut self.sweep);
        let swept = if state.stage == Stage::End {
            state.stage = Stage::default();
            self.conclude(&mut state).map(Some)
        } else {
            self.slice(&mut state, begun);
            Ok(None)
        };
        self.sweep = state;
        swept
    }

    fn slice(&mut self, state: &mut Sweep, begun: Instant) {
        if state.stage == Stage::Cells4 && state.tally.held.is_empty() {
            state.tally = Tally::begin();
            self.v4.find_unsettled(&mut state.tally);
            self.v6.find_unsettled(&mut state.tally);
        }
        let tally = &mut state.tally;
        loop {
            let (done, next) = match state.stage {
                Stage::Cells4 => (self.v4.sweep_cells(&self.common, tally, begun), Stage::Flows4),
                Stage::Flows4 => (self.v4.sweep_flows(&self.common, tally, begun), Stage::Cells6),
                Stage::Cells6 => (self.v6.sweep_cells(&self.common, tally, begun), Stage::Flows6),
                Stage::Flows6 => (self.v6.sweep_flows(&self.common, tally, begun), Stage::End),
                Stage::End => return,
            };
            if !done {
                return;
            }
            state.stage = next;
        }
    }

    /// After a whole sweep: free what nobody names or holds, and compare the accounts with the connections.
    fn conclude(&mut self, state: &mut Sweep) -> Result<Swept, DataplaneError> {
        let mut tally = std::mem::take(&mut state.tally);
        let mut swept = std::mem::take(&mut tally.swept);
        swept.faults = state.audit.compare(self, &tally);
        self.v4.settle(&self.common, &tally)?;
        self.v6.settle(&self.common, &tally)?;
        self.v4.tidy(&self.common, &tally)?;
        self.v6.tidy(&self.common, &tally)?;
        let named = self.v4.servers().chain(self.v6.servers()).collect();
        self.common.forget_servers(&named);
        Ok(swept)
    }
}

impl<A: Ip> Family<A> {
    /// What holds for the connections of each backend, by its id.
    fn terms(&self) -> Vec<Option<Terms>> {
        let mut terms = vec![None; MAX_BACKENDS as usize];
        for (number, backend) in &self.backends {
            let service = self.service_by_id(backend.service).map(|(_, known)| known);
            terms[usize::from(*number)] = Some(Terms {
                state: backend.state,
                mode: backend.mode,
                protocol: backend.protocol,
                timeouts: service.map_or(UNKNOWN, |known| known.timeouts),
                server: backend.server,
                service: backend.service,
            });
        }
        terms
    }

    /// A connection has left the live phases by our swap: all its accounts are closed, as the kernel does.
    fn close_accounts(common: &Common, backend: u16, terms: Option<&Terms>) {
        common.accounts.close(u32::from(backend));
        let Some(terms) = terms else { return };
        if terms.server != 0 {
            common.accounts.close(server_account(terms.server));
        }
        common.accounts.close(service_account(terms.service));
    }

    /// Backends that the last publication does not name. What an earlier agent published stays until this one's first.
    fn leaving(&self) -> BTreeSet<u16> {
        let gone = |number: &u16, backend: &Backend<A>| {
            matches!(backend.state, backend_state::ABSENT | backend_state::CUT)
                || self.unnamed.contains(number)
        };
        let of_nobody = self
            .backends
            .iter()
            .filter(|(number, known)| gone(number, known) && !self.wanted.contains(number));
        of_nobody.map(|(number, _)| *number).collect()
    }

    /// The servers that its backends name.
    fn servers(&self) -> impl Iterator<Item = u16> + '_ {
        self.backends.values().map(|backend| backend.server)
    }

    /// Forget what nobody names or holds, so that ids and blocks are free again; in the maps too, so that a later agent
    /// does not take it up.
    fn tidy(&mut self, common: &Common, tally: &Tally) -> Result<(), DataplaneError> {
        let cells = &self.maps.cells;
        self.pass.cells.tidy(|place| cells.owner(place));
        let flows = &self.maps.flows;
        self.pass.flows.tidy(|place| flows.owner(place));
        let leaving = std::mem::take(&mut self.pass.leaving);
        let nothing_held = |number: &u16| tally.held[usize::from(*number)] == 0;
        for number in leaving.into_iter().filter(nothing_held).filter(|number| !self.wanted.contains(number))
        {
            let empty = A::Backend::from(Backend::default());
            let written = self.maps.backends.set(u32::from(number), empty, 0);
            written.map_err(DataplaneError::write(A::NAMES.backends))?;
            self.backends.remove(&number);
            self.unnamed.remove(&number);
        }
        self.free_endpoints(common.layout.ports.count(), &tally.blocks[A::INDEX])
    }
}

/// Whether a slice has to end, and the moment that its next stretch is judged by.
fn time_is_up(begun: Instant) -> bool {
    begun.elapsed() >= SLICE
}

/// The moment of a slice.
fn moment() -> Ticks {
    now()
}
