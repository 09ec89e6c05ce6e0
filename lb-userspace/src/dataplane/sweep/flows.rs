//! The sweep over the flow table: the connections of `dnat`, `dsr` and `ipip`, and flows whose cell is not theirs.

use std::time::Instant;

use lb_common::{
    Ticks,
    cell::{Owner, Phase},
};

use super::{
    ABANDONED, ASKS, CUTS, STRIDE, Tally,
    judge::{Judgement, Terms, judge},
    moment, time_is_up,
};
use crate::dataplane::{
    common::Common,
    family::{Family, Ip},
};

/// Time between two looks at a flow whose cell is not its client's: the kernel takes a cell before it writes the flow.
const SECOND_LOOK: Ticks = Ticks::from_millis(500);

impl<A: Ip> Family<A> {
    /// Look at flows until the slice ends; whether all have been seen.
    pub(super) fn sweep_flows(&mut self, common: &Common, tally: &mut Tally, begun: Instant) -> bool {
        let terms = self.terms();
        let len = self.maps.flows.len();
        while self.pass.place < len {
            let now = moment();
            let end = (self.pass.place + STRIDE).min(len);
            for taken in self.maps.flows.taken(self.pass.place..end) {
                self.look_at_flow(common, &terms, taken, now, tally);
            }
            self.pass.place = end;
            if time_is_up(begun) && end < len {
                return false;
            }
        }
        self.pass.place = 0;
        true
    }

    pub(super) fn look_at_flow(
        &mut self,
        common: &Common,
        terms: &[Option<Terms>],
        (place, owner): (u32, Owner),
        now: Ticks,
        tally: &mut Tally,
    ) {
        match owner.phase() {
            Phase::Linked => {
                if !self.has_its_cell(place, owner)
                    && now.since(self.pass.flows.doubted_since(place, owner, now)).at_least(SECOND_LOOK)
                {
                    self.maps.flows.free(place, owner);
                }
                return;
            }
            Phase::Busy | Phase::Resting => {
                if now.since(self.pass.flows.doubted_since(place, owner, now)).at_least(ABANDONED) {
                    self.maps.flows.free(place, owner);
                }
                return;
            }
            _ => {}
        }
        let number = self.maps.flows.backend(place);
        if !tally.settling.is_empty() {
            self.holds_slot((place, owner), tally);
        }
        let terms = terms.get(usize::from(number)).and_then(Option::as_ref);
        let handed = if owner.is_cut() { self.pass.flows.handed_at(place, owner) } else { None };
        let handed = handed.map(|since| now.since(since));
        let asked =
            if owner.phase() == Phase::Answered { self.pass.flows.asked_at(place, owner) } else { None };
        let asked = asked.map(|since| now.since(since));
        let silent = |limit| now.since(self.maps.flows.seen(place)).at_least(limit);
        let judgement = judge(terms, owner, handed, asked, silent);
        if handed.is_some() {
            self.tell_of_flow(common, place, owner, tally);
        }
        let mut stays = owner;
        match judgement {
            Judgement::Keep => {}
            Judgement::Ask => self.ask(common, (place, owner), now, tally),
            Judgement::End => {
                if self.maps.flows.free(place, owner) && owner.is_live() {
                    Self::close_accounts(common, number, terms);
                }
                return;
            }
            Judgement::Cut if tally.swept.cut.len() >= CUTS => {}
            Judgement::Cut => stays = self.cut_flow(common, (place, owner), number, terms, now, tally),
        }
        tally.count(number, stays);
    }

    /// Hand a connection out whose client is to be asked whether there is one; in the next sweep if these are too many.
    fn ask(&mut self, common: &Common, (place, owner): (u32, Owner), now: Ticks, tally: &mut Tally) {
        if tally.swept.ask.len() < ASKS
            && let Some(target) = self.target_of_flow(common, place, owner)
        {
            tally.swept.ask.push(target);
            self.pass.flows.asked.entry(place).or_insert((owner, now));
        }
    }

    /// Mark a flow as cut, and hand the connection out; the owner word that stands then.
    fn cut_flow(
        &mut self,
        common: &Common,
        (place, owner): (u32, Owner),
        number: u16,
        terms: Option<&Terms>,
        now: Ticks,
        tally: &mut Tally,
    ) -> Owner {
        let cut = owner.cut();
        if !owner.is_cut() {
            if !self.maps.flows.swap_owner(place, owner, cut) {
                return owner;
            }
            if owner.is_live() {
                Self::close_accounts(common, number, terms);
            }
        }
        if let Some(target) = self.target_of_flow(common, place, owner) {
            tally.swept.cut.push(target);
        }
        self.pass.flows.handed.insert(place, (cut, now));
        cut
    }

    /// Whether a linked flow's cell is its client's, or is changing hands this very moment.
    fn has_its_cell(&self, place: u32, owner: Owner) -> bool {
        let cell = self.maps.flows.cell(place);
        if cell >= self.maps.cells.len() {
            return false;
        }
        let holder = self.maps.cells.owner(cell);
        holder.phase() == Phase::Busy
            || holder.is_held()
                && holder.has(owner.tag(), owner.client_port())
                && self.maps.cells.backend(cell) == self.maps.flows.backend(place)
    }
}
