//! Stage 3: the flow table. Find a flow, make room for one, remove one.
//!
//! A flow stands in one of two buckets of eight slots, see [`lb_common::flow`]. There are no locks: who wins the
//! compare-and-swap of a slot's owner word has it. Two CPUs that add the same flow at once both announce it by a busy
//! slot before they look for the other; at least one of them sees the other and gives way.

use lb_common::{
    Address, Be16, Reason, Ticks,
    cell::{Owner, Phase, Rights, Worth},
    flow::{FlowKey, Record, SLOTS},
};

use crate::{
    Tables,
    seat::{SWAPS, Seat},
    tables::NOWHERE,
};

/// A flow that was found: as it was, and where.
#[derive(Clone, Copy)]
pub struct Found<A: Address> {
    /// Its slot.
    pub slot: u32,
    /// Its owner word.
    pub owner: Owner,
    /// Its record.
    pub record: Record<A>,
}

/// Why a flow was not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// Another CPU adds the same one.
    Exists,
    /// Both buckets are full of flows that nobody may displace.
    Full,
}

/// Tries when other CPUs win the same slot.
const TRIES: u32 = 3;

/// A client's flow, if there is one.
#[inline(always)]
pub fn find<A: Address, T: Tables<A>>(key: &FlowKey<A>, tables: &T) -> Option<Found<A>> {
    let slot = tables.find_slot(key, NOWHERE);
    if slot == NOWHERE {
        return None;
    }
    let owner = tables.flow_owner(slot)?;
    let record = tables.flow_record(slot)?;
    // Since the look at it the slot may have changed hands, and before all of the record was read it may do so: the
    // record of an IPv4 flow does not say whose it is.
    let ours = owner.is_held() && owner.has(key.client.tag(), key.client_port) && record.is_of(key);
    if ours && tables.flow_owner(slot)?.is_same_hold(owner) {
        Some(Found { slot, owner, record })
    } else {
        None
    }
}

/// The slot of a flow, or [`NOWHERE`].
///
/// With a slot that is not to count (`except`): whether the flow stands in another one, or somebody is about to write
/// it there.
#[inline(always)]
pub fn find_slot<A: Address, T: Tables<A>>(key: &FlowKey<A>, except: u32, tables: &T) -> u32 {
    let config = tables.config();
    let buckets = key.buckets(config.seed, bucket_mask::<A>(&config));
    let first = slot_in(buckets[0], key, except, tables);
    if first == NOWHERE { slot_in(buckets[1], key, except, tables) } else { first }
}

/// The mask of a family's buckets.
#[inline(always)]
pub const fn bucket_mask<A: Address>(config: &lb_common::abi::ProgramConfig) -> u32 {
    config.bucket_masks[if A::VERSION == 4 { 0 } else { 1 }]
}

#[inline(always)]
fn slot_in<A: Address, T: Tables<A>>(bucket: u32, key: &FlowKey<A>, except: u32, tables: &T) -> u32 {
    let tag = key.client.tag();
    for slot in 0..SLOTS as u32 {
        let slot = bucket * SLOTS as u32 + slot;
        let Some(owner) = tables.flow_owner(slot) else { return NOWHERE };
        if !owner.has(tag, key.client_port) || slot == except {
            continue;
        }
        if except != NOWHERE && owner.phase() == Phase::Busy {
            return slot;
        }
        if owner.is_held() && tables.flow_record(slot).is_some_and(|record| record.is_of(key)) {
            return slot;
        }
    }
    NOWHERE
}

/// The slot that a new flow is to take: a free one in the emptier of two buckets, else the most worthy; or [`NOWHERE`].
#[inline(always)]
pub fn place<A: Address, T: Tables<A>>(buckets: [u32; 2], now: Ticks, by: Rights, tables: &T) -> u32 {
    let [first, second] = buckets.map(|bucket| tables.room(bucket, now, by));
    // More free slots, else the more worthy one: the halves of the number, in that order.
    let (bucket, room) = if second > first { (buckets[1], second) } else { (buckets[0], first) };
    if room >> SCORE == 0 { NOWHERE } else { bucket * SLOTS as u32 + (room as u32 & PLACE) }
}

/// Bits of a bucket's room below the worth and the count.
const SCORE: u32 = 8;

/// Those that say the place in the bucket.
const PLACE: u32 = SLOTS as u32 - 1;

/// A bucket's room for a newcomer: how many slots are free, then what the most worthy one is worth, then its place; 0 but
/// for the place: none can be had. In the kernel a function of its own, see [`tables`](crate::tables).
#[inline(always)]
pub fn room<A: Address, T: Tables<A>>(bucket: u32, now: Ticks, by: Rights, tables: &T) -> u64 {
    let (mut best, mut free) = (0, 0);
    for place in 0..SLOTS as u32 {
        let worth = tables.slot_worth(bucket * SLOTS as u32 + place, now, by).raw();
        // Only a free slot's worth has the upper bit.
        free += u64::from(worth >> 31);
        let score = u64::from(worth) << SCORE | u64::from(place);
        if score > best {
            best = score;
        }
    }
    free << (32 + SCORE) | best
}

/// What a slot is worth to a newcomer.
#[inline(always)]
pub fn slot_worth<A: Address, T: Tables<A>>(slot: u32, now: Ticks, by: Rights, tables: &T) -> Worth {
    match (tables.flow_owner(slot), tables.flow_record(slot)) {
        (Some(owner), Some(record)) => Worth::in_table(owner, now.since(record.seen()), by),
        _ => Worth::NONE,
    }
}

/// Whether there is room for a flow only at the cost of an embryo in its first second, if at all.
#[inline(always)]
pub fn is_pressed<A: Address, T: Tables<A>>(key: &FlowKey<A>, by: Rights, tables: &T) -> bool {
    let config = tables.config();
    place(key.buckets(config.seed, bucket_mask::<A>(&config)), tables.now(), by, tables) == NOWHERE
}

/// Add a flow.
#[inline(always)]
pub fn insert<A: Address, T: Tables<A>>(
    key: &FlowKey<A>,
    record: &Record<A>,
    phase: Phase,
    by: Rights,
    tables: &T,
) -> Result<(), NotAdded> {
    let config = tables.config();
    let buckets = key.buckets(config.seed, bucket_mask::<A>(&config));
    let now = record.seen();
    for _ in 0..TRIES {
        let slot = place(buckets, now, by, tables);
        if slot == NOWHERE {
            return Err(NotAdded::Full);
        }
        match tables.take_slot(slot, now, by, key) {
            Taken::Not => continue,
            Taken::FromNobody => {}
            Taken::FromEmbryo => tables.count(key.service, Reason::EmbryoDisplaced),
            Taken::FromConversation => tables.count(key.service, Reason::ConversationDisplaced),
        }
        // Nobody else moves a busy slot.
        let Some(busy) = tables.flow_owner(slot) else { continue };
        if tables.find_slot(key, slot) != NOWHERE {
            tables.swap_flow(slot, busy, busy.with_phase(Phase::Free));
            return Err(NotAdded::Exists);
        }
        let owner = busy.with_phase(phase);
        tables.fill_flow(slot, busy, owner, record);
        return Ok(());
    }
    Err(NotAdded::Full)
}

/// From whom a slot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It was not: its holder stays, or somebody else was first.
    Not = 0,
    /// Nobody whose connection lived.
    FromNobody = 1,
    /// A connection whose handshake had not ended, which ends here.
    FromEmbryo = 2,
    /// A conversation in UDP, which ends here.
    FromConversation = 3,
}

impl Taken {
    /// From its number.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        match raw {
            1 => Self::FromNobody,
            2 => Self::FromEmbryo,
            3 => Self::FromConversation,
            _ => Self::Not,
        }
    }
}

/// Take a slot for the client with this tag and port, from a holder that is worth less; the slot is busy then. In the
/// kernel a function of its own: three tries of it in one program were more than Linux 6.1 verifies.
#[inline(always)]
pub fn take_slot<A: Address, T: Tables<A>>(
    slot: u32,
    now: Ticks,
    by: Rights,
    (tag, port): (u32, Be16),
    tables: &T,
) -> Taken {
    let (Some(former), Some(old)) = (tables.flow_owner(slot), tables.flow_record(slot)) else {
        return Taken::Not;
    };
    // Between the two looks the slot may have been taken. What changes from here on, the swap below sees.
    let worth = tables.slot_worth(slot, now, by);
    let held = if former.phase() == Phase::Linked { port_of(former, &old, tables) } else { Owner(0) };
    if held.phase() == Phase::Established && !former.is_proven_link() {
        // Its client has not spoken since the server has: it is no embryo, and the next look sees that.
        tables.swap_flow(slot, former, former.link_with(true, false));
        return Taken::Not;
    }
    let busy = Owner::next_of(former, tag, port, Phase::Busy).of_datagrams(by.is_of_datagrams());
    // A port that changes hands already is somebody else's to settle, and its flow with it.
    if worth == Worth::NONE
        || held.phase() == Phase::Busy
        || !seize(slot, former, busy, (old.way.cell(), held), tables)
    {
        return Taken::Not;
    }
    if !former.is_live() && !held.is_live() {
        return Taken::FromNobody;
    }
    tables.close(old.backend);
    if former.phase() == Phase::Established || held.phase() == Phase::Established {
        Taken::FromConversation
    } else {
        Taken::FromEmbryo
    }
}

/// Its client's hold on the port cell that a linked flow leads to; the word of a free one: none.
#[inline(always)]
fn port_of<A: Address, T: Tables<A>>(linked: Owner, record: &Record<A>, tables: &T) -> Owner {
    match tables.holder(record.way.cell()) {
        Some((owner, _)) if owner.has(linked.tag(), linked.client_port()) => owner,
        _ => Owner(0),
    }
}

/// Take a slot from its holder, and the port that it leads to: that first, so that no connection that is established
/// this very moment loses its flow. Whether both were still as they were seen.
#[inline(always)]
fn seize<A: Address, T: Tables<A>>(
    slot: u32,
    former: Owner,
    busy: Owner,
    (cell, port): (u32, Owner),
    tables: &T,
) -> bool {
    let changing = port.with_phase(Phase::Busy);
    if port.is_held() && !tables.swap_owner(cell, port, changing) {
        return false;
    }
    let taken = tables.swap_flow(slot, former, busy);
    if port.is_held() {
        // Nobody else moves a busy cell.
        if taken && port.is_live() {
            tables.touch_cell(cell, tables.now());
        }
        tables.swap_owner(cell, changing, if taken { port.with_phase(Phase::Resting) } else { port });
    }
    taken
}

/// Remove a linked flow, if it still leads to `cell`.
#[inline(always)]
pub fn unlink<A: Address, T: Tables<A>>(key: &FlowKey<A>, cell: u32, tables: &T) {
    for _ in 0..SWAPS {
        let Some(found) = find(key, tables) else { return };
        // Its client's packet on another CPU may mark it meanwhile; left standing, it would lead to somebody else's port.
        if found.owner.phase() != Phase::Linked
            || found.record.way.cell() != cell
            || free(found.slot, found.owner, tables)
        {
            return;
        }
    }
}

/// Free a slot that still has this owner; whether it had.
#[inline(always)]
pub fn free<A: Address, T: Tables<A>>(slot: u32, owner: Owner, tables: &T) -> bool {
    tables.swap_flow(slot, owner, owner.with_phase(Phase::Free))
}

/// End a flow that was found: its account, if it counted, and its slot. Whether it was still there.
#[inline(always)]
pub fn end<A: Address, T: Tables<A>>(found: &Found<A>, tables: &T) -> bool {
    let done = free(found.slot, found.owner, tables);
    if done && found.owner.is_live() {
        tables.close(found.record.backend);
    }
    done
}

impl<A: Address> Found<A> {
    /// Where the connection's phase is kept.
    #[inline(always)]
    pub fn seat(&self) -> Seat {
        if self.owner.phase() == Phase::Linked {
            Seat::Cell(self.record.way.cell())
        } else {
            Seat::Slot(self.slot)
        }
    }
}
