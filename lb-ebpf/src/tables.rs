//! What the data path asks of the world beside the packet: maps, clock and chance.

use lb_common::{
    Reason, Ticks,
    abi::{
        Account, Backend, Endpoint, EndpointKey, Flow, FlowKey, Interface, ProgramConfig, Service, ServiceKey,
    },
    cell::{Owner, PortCell, Worth},
};

/// What a service's choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// The service's id.
    pub service: u32,
    /// First slot of its ring.
    pub offset: u32,
    /// Slots of its ring, at least one.
    pub length: u32,
    /// One of `lb_common::abi::algorithm`.
    pub algorithm: u32,
}

/// Where to look for a source port: a block of cells, and the place to begin at.
#[derive(Clone, Copy, Debug)]
pub struct Block {
    /// First cell of the block.
    pub cells: u32,
    /// Cells in the block.
    pub count: u32,
    /// Place of the first look, below `count`.
    pub start: u32,
}

/// A flow that was found: its value as it was, and a handle to write it by.
#[derive(Clone, Copy)]
pub struct Found<H> {
    /// The value, copied.
    pub flow: Flow,
    /// The entry.
    pub entry: H,
}

/// How the insertion of a flow ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is there, and it is ours.
    Done,
    /// Another CPU was first.
    Exists,
    /// The table is full.
    Full,
}

/// The maps, the clock and chance. Methods never fail: what an index does not name is absent.
pub trait Tables {
    /// A handle to an entry of the flow table, for writing.
    type Entry: Copy;

    /// The constants of this program.
    fn config(&self) -> ProgramConfig;
    /// The time.
    fn now(&self) -> Ticks;
    /// 32 random bits.
    fn random(&self) -> u32;

    /// The service at an address, if there is one.
    fn service(&self, key: &ServiceKey) -> Option<Service>;
    /// The next ticket of a service's round robin: each caller gets another one.
    fn ticket(&self, service: u32) -> u32;
    /// The backend at a slot of the rings.
    fn slot(&self, index: u32) -> Option<u32>;
    /// A backend by id.
    fn backend(&self, id: u32) -> Option<Backend>;
    /// An interface by id.
    fn interface(&self, id: u16) -> Option<Interface>;

    /// The endpoint that answers to one of our source addresses.
    fn endpoint(&self, key: &EndpointKey) -> Option<Endpoint>;
    /// Who holds a port cell, and since when it has been silent or closed.
    fn holder(&self, index: u32) -> Option<(Owner, Ticks)>;
    /// The id of a backend that takes a new connection, 0 for nobody: [`draw`](crate::select::draw), verified on its own.
    fn draw(&self, ring: Ring) -> u32;
    /// What a cell is worth to a newcomer: [`worth`](crate::claim::worth), verified on its own.
    fn worth(&self, index: u32, now: Ticks) -> Worth;
    /// The place of the most worthy cell of a block: [`search`](crate::claim::search), verified on its own.
    fn search(&self, block: Block, now: Ticks) -> Option<u32>;
    /// A port cell as it is now.
    fn cell(&self, index: u32) -> Option<PortCell>;
    /// Replace a cell's owner if it is still `before`; whether it was.
    fn swap_owner(&self, index: u32, before: Owner, after: Owner) -> bool;
    /// Write the body of a cell that the caller has made `busy`, then its owner.
    fn fill_cell(&self, index: u32, busy: Owner, cell: &PortCell);
    /// Stamp a cell.
    fn touch_cell(&self, index: u32, now: Ticks);
    /// Record the server's sequence number in a cell.
    fn answer_cell(&self, index: u32, server_isn: u32);

    /// A client's flow, if there is one.
    fn flow(&self, key: &FlowKey) -> Option<Found<Self::Entry>>;
    /// Add a flow that is not there.
    fn insert_flow(&self, key: &FlowKey, flow: &Flow) -> Inserted;
    /// Remove a flow.
    fn remove_flow(&self, key: &FlowKey);
    /// Stamp a flow and set its marks.
    fn touch_flow(&self, entry: Self::Entry, now: Ticks, marks: u16);

    /// The account of a backend.
    fn account(&self, backend: u32) -> Option<Account>;
    /// One more connection opened.
    fn open_account(&self, backend: u32);
    /// One more connection closed.
    fn close_account(&self, backend: u32);

    /// Count something that does not end the packet's way.
    fn count(&self, service: u32, reason: Reason);
}
