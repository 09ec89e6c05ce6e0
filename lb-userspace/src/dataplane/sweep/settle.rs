//! Slots that settle: the flow table has no connection of theirs on another backend than their owner.

use std::collections::BTreeSet;

use lb_common::{Reason, abi::Service, cell::Owner, flow::FlowKey};

use super::Tally;
use crate::{
    dataplane::{
        DataplaneError,
        common::Common,
        family::{Family, Ip},
        rings::moment,
    },
    ring::words::Slot,
};

/// A service whose slots could settle.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// As it stood when the sweep began.
    entry: Service,
    slots: Vec<Slot>,
    /// Slots that cannot settle.
    held: BTreeSet<u32>,
}

impl<A: Ip> Family<A> {
    /// Note the services whose slots could settle, so that the sweep looks at whose flows it meets.
    pub(super) fn find_unsettled(&self, tally: &mut Tally) {
        for known in self.services.values() {
            let Some(settling) = known.settling.as_ref().filter(|settling| settling.is_due(tally.began))
            else {
                continue;
            };
            let slots = (0..).map_while(|index| settling.slot(index)).collect();
            let unsettled = Unsettled { entry: known.entry, slots, held: BTreeSet::new() };
            tally.settling.insert(known.entry.id, unsettled);
        }
    }

    /// Note the slot of a flow that another than the slot's owner has.
    pub(super) fn holds_slot(&self, (place, owner): (u32, Owner), tally: &mut Tally) {
        let record = self.maps.flows.record(place);
        let Some(unsettled) = tally.settling.get_mut(&record.service) else { return };
        let Some(index) = unsettled.entry.place_of(&FlowKey::of(owner, &record)) else { return };
        if unsettled.slots.get(index as usize).is_some_and(|slot| slot.cur != record.backend) {
            unsettled.held.insert(index);
        }
    }

    /// Settle what can be. A ring that has changed meanwhile is left alone, by the moments of its slots.
    pub(super) fn settle(&mut self, common: &Common, tally: &Tally) -> Result<(), DataplaneError> {
        for known in self.services.values_mut() {
            let Some(settling) = known.settling.as_mut() else { continue };
            let unrecorded = common.reason(Reason::NotRecorded, known.entry.id)?;
            if unrecorded != known.unrecorded {
                known.unrecorded = unrecorded;
                settling.recording_failed(moment());
            }
            let Some(unsettled) = tally.settling.get(&known.entry.id) else { continue };
            for index in settling.settle(&unsettled.held, tally.began) {
                if let Some(slot) = settling.slot(index) {
                    common.slots.write(known.entry.ring_offset + index, &[slot.word()]);
                }
            }
        }
        Ok(())
    }
}
