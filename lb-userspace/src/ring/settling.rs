//! Settled slots: how a ring changes under connections that nobody recorded (`track = "on-change"`).
//!
//! A settled slot has one owner, who gets every packet; nothing is looked up or recorded. When another is wanted the
//! slot becomes unsettled: the flow table is asked; a packet that opens a connection goes to the new owner, `cur`, and
//! is recorded; any other without an entry belongs to a connection older than the change, goes to `prev` and is
//! recorded. Where recording fails even an opening packet goes to `prev`. So *unrecorded always means `prev`*, and
//! since it does, further changes leave `prev` as it is: one `prev` serves any number of them.
//!
//! - A→B→A leaves `prev` = `cur`, but the table knows connections of B, so the slot is not settled
//!   ([`lb_common::ring::SAME`]).
//! - Where `prev` is gone (down, or its connections are cut) nobody is left to keep unrecorded connections for, so
//!   `prev := cur`. The slot still asks the table, which knows connections of owners between.
//! - A slot settles when the service's idle time-out has passed since its last change and the table has no entry of it
//!   on another than `cur`. Whoever was on `prev` has by then spoken and been recorded, or expired: unless recording
//!   failed, so the time-out counts from the last failure too.
//! - The slots are pinned in the maps. An agent that starts reads them back and takes every unsettled one for changed
//!   at that moment: its last change cannot be later.
//! - The length never changes: a connection's slot is its hash modulo the length, so in a ring of another length no slot
//!   would have one `prev`. A service keeps the length of its first publication until it is taken off the wire
//!   ([`super::hashed_length`] leaves room: 12 times as many backends as it counts on have 8 slots each).
//!
//! Each change makes unsettled slots, whose packets cost a look-up, so the wanted ring must come from configured
//! weights and health alone, never from measured load; that is the caller's part.

use std::{collections::BTreeSet, time::Duration};

use super::words::{Slot, members};
use crate::health::Moment;

/// The least time between two changes of one service.
pub const PAUSE: Duration = Duration::from_secs(1);

/// Why a ring was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The last change is not long enough ago.
    #[error("changed less than {PAUSE:?} ago")]
    TooSoon {
        /// When to ask again.
        until: Moment,
    },
    /// Another length would give every connection another slot.
    #[error("a ring of {wanted} slots cannot follow one of {length}")]
    Length {
        /// Slots of the ring.
        length: usize,
        /// Slots of the one to follow.
        wanted: usize,
    },
}

/// The slots of one service's ring.
#[derive(Clone, Debug)]
pub struct Settling {
    slots: Vec<Slot>,
    /// When each slot was last changed; of no meaning where it is settled.
    changed: Vec<Moment>,
    /// The last change of the service.
    last_change: Option<Moment>,
    /// The moment from which every connection that spoke is recorded.
    last_failure: Moment,
    idle: Duration,
}

impl Settling {
    /// A service's first ring, all settled. `idle` is its idle time-out: how long a silent connection lives.
    pub fn new(ring: &[u16], idle: Duration) -> Self {
        Self {
            slots: ring.iter().copied().map(Slot::settled).collect(),
            changed: vec![Moment::START; ring.len()],
            last_change: None,
            last_failure: Moment::START,
            idle,
        }
    }

    /// The ring that an earlier agent left in the maps: `words` are its slots, without the member list.
    pub fn adopted(words: &[u32], idle: Duration, now: Moment) -> Self {
        Self {
            slots: words.iter().copied().map(Slot::read).collect(),
            changed: vec![now; words.len()],
            last_change: Some(now),
            last_failure: now,
            idle,
        }
    }

    /// Follows a new time-out. A connection may still be silent under a longer one, so no slot settles before that has
    /// passed from now.
    pub fn set_idle(&mut self, idle: Duration, now: Moment) {
        self.recording_failed(now + self.idle.saturating_sub(idle));
        self.idle = idle;
    }

    /// The number of slots.
    pub fn length(&self) -> usize {
        self.slots.len()
    }

    /// How many slots are not settled: their packets cost a look-up.
    pub fn unsettled(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.settled).count()
    }

    /// A slot; `None` beyond the ring.
    pub fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(index as usize).copied()
    }

    /// The words of the whole region: slots, then the member list of the owners.
    pub fn words(&self) -> Vec<u32> {
        let members = members(self.slots.iter().map(|slot| slot.cur));
        self.slots.iter().copied().chain(members.into_iter().map(Slot::settled)).map(Slot::word).collect()
    }

    /// The earliest moment at which [`Self::change`] is not too soon.
    pub fn next_change(&self) -> Moment {
        self.last_change.map_or(Moment::START, |last| last + PAUSE)
    }

    /// Follows a newly built ring; an empty one means that nobody takes new connections. `gone` tells the backends
    /// that keep no connections: down or cut, not those that drain.
    ///
    /// Says whether any word differs; then [`Self::words`] are to be published in a free region, as one change. What
    /// changes nothing is no change, and never too soon.
    pub fn change(
        &mut self,
        wanted: &[u16],
        gone: impl Fn(u16) -> bool,
        now: Moment,
    ) -> Result<bool, Refused> {
        if !wanted.is_empty() && wanted.len() != self.slots.len() {
            return Err(Refused::Length { length: self.slots.len(), wanted: wanted.len() });
        }
        let after = |index: usize, slot: Slot| {
            let cur = wanted.get(index).copied().unwrap_or(0);
            let prev = if slot.prev == 0 || gone(slot.prev) { cur } else { slot.prev };
            Slot { cur, prev, settled: slot.settled && cur == slot.cur }
        };
        let differs = |(index, slot): (usize, &Slot)| after(index, *slot) != *slot;
        if !self.slots.iter().enumerate().any(differs) {
            return Ok(false);
        }
        if now < self.next_change() {
            return Err(Refused::TooSoon { until: self.next_change() });
        }
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let after = after(index, *slot);
            if after != *slot {
                *slot = after;
                self.changed[index] = now;
            }
        }
        self.last_change = Some(now);
        Ok(true)
    }

    /// Learns that a connection of this service could not be recorded, or may not have been, up to `at`.
    pub fn recording_failed(&mut self, at: Moment) {
        self.last_failure = self.last_failure.max(at);
    }

    /// Whether a sweep that begins now could settle any slot: then it is worth listing the held ones.
    pub fn is_due(&self, now: Moment) -> bool {
        (0..self.slots.len()).any(|index| !self.slots[index].settled && self.has_rested(index, now))
    }

    /// Settles what can be, after a whole sweep of the table that `began` then and found in the slots `held` an entry
    /// on another backend than the slot's `cur`. Gives the slots whose words are to be written, in place.
    ///
    /// The caller calls [`Self::recording_failed`] first if recording failed meanwhile. A slot that changed while the
    /// sweep ran does not settle, for its time-out has not passed since.
    pub fn settle(&mut self, held: &BTreeSet<u32>, began: Moment) -> Vec<u32> {
        let mut settled = Vec::new();
        for index in 0..self.slots.len() {
            let number = index as u32;
            if !self.slots[index].settled && self.has_rested(index, began) && !held.contains(&number) {
                self.slots[index] = Slot::settled(self.slots[index].cur);
                settled.push(number);
            }
        }
        settled
    }

    fn has_rested(&self, index: usize, now: Moment) -> bool {
        self.changed[index].max(self.last_failure) + self.idle <= now
    }
}

#[cfg(test)]
mod tests;
