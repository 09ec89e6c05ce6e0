//! What the data path asks of the world beside the packet: maps, clock and chance.
//!
//! [`World`] is what both families share, [`Tables`] what each has of its own. Some methods are [`flows`](crate::flows),
//! [`claim`](crate::claim) and [`select`](crate::select) come back through the implementation: in the kernel they are
//! global functions, which the verifier looks at once. Inlined, each way that leads there would verify them again.

use lb_common::{
    Address, Reason, Ticks,
    abi::{
        Account, Backend, BucketKey, Endpoint, EndpointKey, Fragment, FragmentKey, Interface, ProgramConfig,
        Ranges, RangesKey, Service, ServiceKey, Stations,
    },
    cell::{Owner, PortCell, Rights, Side, Signs, Worth},
    event::Event,
    flow::{FlowKey, Record},
    program::Stage,
};

use crate::{
    deliver::by_stack,
    flows::Taken,
    verdict::{Parcel, Trouble, Verdict},
};

/// What a service's choice depends on.
#[derive(Clone, Copy, Debug)]
pub struct Ring {
    /// The service's id.
    pub service: u16,
    /// One of `lb_common::abi::algorithm`.
    pub algorithm: u8,
    /// First slot of its ring.
    pub offset: u32,
    /// Slots of its ring, at least one.
    pub length: u32,
    /// Backends in the list behind the ring.
    pub members: u16,
    /// The hash of the client, for algorithms that go by it.
    pub hash: u32,
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

/// A number that stands for nothing where an index is expected.
pub const NOWHERE: u32 = u32::MAX;

/// What both families share. Methods never fail: what an index does not name is absent.
pub trait World {
    /// The constants of this program.
    fn config(&self) -> ProgramConfig;
    /// Whom the interface takes frames for.
    fn stations(&self) -> Stations;
    /// The time.
    fn now(&self) -> Ticks;
    /// Until when the agent counts as there, by its last heartbeat.
    fn heard_until(&self) -> Ticks;
    /// Whether the agent has been silent for longer than it was allowed.
    #[inline(always)]
    fn agent_is_lost(&self) -> bool {
        self.now().since(self.heard_until()).raw() != 0
    }
    /// Microseconds of the precise clock, modulo 2^32; dear, for handshakes only.
    fn micros(&self) -> u32;
    /// 32 random bits.
    fn random(&self) -> u32;
    /// The same offset, at most 31, forgotten by the verifier: what is the same for a few values is verified once.
    fn vague(&self, offset: usize) -> usize;

    /// The next ticket of a service's round robin: each caller gets another one.
    fn ticket(&self, service: u16) -> u32;
    /// A slot of the rings: its owner's id in the low half, its former owner's in the high one.
    fn slot(&self, index: u32) -> Option<u32>;
    /// An interface by id.
    fn interface(&self, id: u16) -> Option<Interface>;
    /// Whether what leaves by an interface does so as an skb, by the kernel's stack.
    fn goes_by_stack(&self, id: u16) -> bool {
        self.interface(id).is_some_and(|interface| by_stack(interface.exit, id, &self.config()))
    }

    /// An account by its row.
    fn account(&self, row: u32) -> Option<Account>;
    /// One more connection opened.
    fn open_account(&self, row: u32);
    /// One more connection opened, if the limit leaves room; whether it did.
    fn try_open_account(&self, row: u32) -> bool;
    /// One more connection closed.
    fn close_account(&self, row: u32);

    /// Since when no backend of a service has had room; zero: the last new connection found room.
    fn full_since(&self, service: u16) -> Ticks;
    /// Note it.
    fn set_full_since(&self, service: u16, since: Ticks);

    /// What is remembered of the way to a backend: a word of [`tunnel`](crate::tunnel).
    fn narrowed(&self, backend: u16) -> u64;
    /// Replace it.
    fn narrow(&self, backend: u16, word: u64);

    /// The owner word after a segment: [`Owner::after`].
    fn after(&self, owner: Owner, side: Side, signs: Signs) -> Owner;

    /// Whether an ICMP error of this kind may be made now.
    fn spend_error(&self, trouble: Trouble) -> bool;
    /// Leave something for the next stage.
    fn hand_over(&self, parcel: &Parcel);
    /// What the stage before has handed over.
    fn handed_over(&self) -> Parcel;

    /// Count something that does not end the packet's way.
    fn count(&self, service: u16, reason: Reason);
    /// Whether an event of this kind may be told of a backend now: once a tick.
    fn gate(&self, backend: u16, kind: u8) -> bool;
    /// Tell the agent.
    fn report(&self, event: &Event);
}

/// The tables of one family.
pub trait Tables<A: Address>: World {
    /// The service at an address, if there is one.
    fn service(&self, key: &ServiceKey<A>) -> Option<Service>;
    /// The ranges of ports that services of an address name.
    fn ranges(&self, key: &RangesKey<A>) -> Option<Ranges>;
    /// A backend by id.
    fn backend(&self, id: u16) -> Option<Backend<A>>;
    /// A source address by number.
    fn source(&self, number: u16) -> Option<A>;
    /// The endpoint that answers.
    fn endpoint(&self, key: &EndpointKey<A>) -> Option<Endpoint>;

    /// Who holds a port cell, and since when it has been silent or closed.
    fn holder(&self, index: u32) -> Option<(Owner, Ticks)>;
    /// A port cell as it is now.
    fn cell(&self, index: u32) -> Option<PortCell<A>>;
    /// Replace a cell's owner if it is still `before`; whether it was.
    fn swap_owner(&self, index: u32, before: Owner, after: Owner) -> bool;
    /// Write the body of a cell that the caller has made `busy`, then its owner.
    fn fill_cell(&self, index: u32, busy: Owner, cell: &PortCell<A>);
    /// Stamp a cell.
    fn touch_cell(&self, index: u32, now: Ticks);
    /// Record the server's sequence number in a cell.
    fn answer_cell(&self, index: u32, server_isn: u32);

    /// Who stands in a slot of the flow table.
    fn flow_owner(&self, slot: u32) -> Option<Owner>;
    /// A slot's record as it is now.
    fn flow_record(&self, slot: u32) -> Option<Record<A>>;
    /// Replace a slot's owner if it is still `before`; whether it was.
    fn swap_flow(&self, slot: u32, before: Owner, after: Owner) -> bool;
    /// Write the record of a slot that the caller has made `busy`, then its owner.
    fn fill_flow(&self, slot: u32, busy: Owner, owner: Owner, record: &Record<A>);
    /// Stamp a flow.
    fn touch_flow(&self, slot: u32, now: Ticks);
    /// Record the server's sequence number, or when the flow began.
    fn answer_flow(&self, slot: u32, word: u32);

    /// The way of a fragmented packet.
    fn fragment(&self, key: &FragmentKey<A>) -> Option<Fragment<A>>;
    /// Remember it.
    fn keep_fragment(&self, key: &FragmentKey<A>, fragment: &Fragment<A>);
    /// A source address's tokens; 0: never seen.
    fn tokens(&self, key: &BucketKey<A>) -> u64;
    /// Replace them if they are still `before`; whether they were.
    fn swap_tokens(&self, key: &BucketKey<A>, before: u64, after: u64) -> bool;

    /// The id of a backend that takes a new connection, 0 for nobody: [`draw`](crate::select::draw).
    fn draw(&self, ring: Ring) -> u16;
    /// What a cell is worth to a newcomer: [`worth`](crate::claim::worth).
    fn worth(&self, index: u32, now: Ticks) -> Worth;
    /// The place of the most worthy cell of a block: [`search`](crate::claim::search).
    fn search(&self, block: Block, now: Ticks) -> Option<u32>;
    /// One more connection of a (service, backend) pair: [`open`](crate::seat::open).
    fn open(&self, backend: u16);
    /// One connection of a (service, backend) pair less: [`close`](crate::seat::close).
    fn close(&self, backend: u16);
    /// A bucket's room for a newcomer: [`room`](crate::flows::room).
    fn room(&self, bucket: u32, now: Ticks, by: Rights) -> u64;
    /// The slot of a flow other than `except`, or [`NOWHERE`]: [`find_slot`](crate::flows::find_slot).
    fn find_slot(&self, key: &FlowKey<A>, except: u32) -> u32;
    /// What a slot is worth to a newcomer: [`slot_worth`](crate::flows::slot_worth).
    fn slot_worth(&self, slot: u32, now: Ticks, by: Rights) -> Worth;
    /// Take a slot for a flow: [`take_slot`](crate::flows::take_slot).
    fn take_slot(&self, slot: u32, now: Ticks, by: Rights, key: &FlowKey<A>) -> Taken;
}

/// Have another stage complete a packet that is untouched so far.
#[inline(always)]
pub fn hand_over<T: World>(tables: &T, stage: Stage, parcel: Parcel) -> Verdict {
    tables.hand_over(&parcel);
    Verdict::proceed(stage)
}
