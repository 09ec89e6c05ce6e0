//! The sweep over port cells: the connections of `snat`.

use std::{collections::BTreeSet, time::Instant};

use lb_common::{
    Ticks,
    cell::{Owner, Phase},
    flow::FlowKey,
};

use super::{
    ABANDONED, CUTS, STRIDE, Tally,
    judge::{Judgement, Terms, judge},
    moment, time_is_up,
};
use crate::dataplane::{
    common::Common,
    family::{Family, Ip},
};

impl<A: Ip> Family<A> {
    /// Look at the cells of all blocks in use until the slice ends; whether all have been seen.
    pub(super) fn sweep_cells(&mut self, common: &Common, tally: &mut Tally, begun: Instant) -> bool {
        let ports = common.layout.ports.count();
        let terms = self.terms();
        let mut blocks = if let Some(blocks) = self.pass.blocks.take() {
            blocks
        } else {
            self.pass.leaving = self.leaving();
            self.blocks_in_use()
        };
        while let Some(block) = blocks.last().copied() {
            let now = moment();
            let (first, end) = (self.pass.place, (self.pass.place + STRIDE).min(ports));
            let mut in_use = false;
            for cell in block + first..block + end {
                in_use |= self.look_at_cell(common, &terms, cell, now, tally);
            }
            if in_use {
                tally.blocks[A::INDEX].insert(block);
            }
            self.pass.place = end;
            if end == ports {
                self.pass.place = 0;
                blocks.pop();
            }
            if time_is_up(begun) && !blocks.is_empty() {
                self.pass.blocks = Some(blocks);
                return false;
            }
        }
        true
    }

    fn blocks_in_use(&self) -> Vec<u32> {
        let of_snat = self.endpoints.iter().filter(|(key, _)| key.source != A::default());
        // Endpoints of one server may share a block.
        let blocks: BTreeSet<u32> = of_snat.map(|(_, endpoint)| endpoint.cells).collect();
        blocks.into_iter().collect()
    }

    /// Look at one cell; whether it is held or changing hands.
    pub(super) fn look_at_cell(
        &mut self,
        common: &Common,
        terms: &[Option<Terms>],
        cell: u32,
        now: Ticks,
        tally: &mut Tally,
    ) -> bool {
        let owner = self.maps.cells.owner(cell);
        match owner.phase() {
            Phase::Free | Phase::Resting | Phase::Linked => return false,
            Phase::Busy => {
                // It changes hands within one run of the program, unless whoever held it died.
                if now.since(self.pass.cells.doubted_since(cell, owner, now)).at_least(ABANDONED) {
                    let number = self.maps.cells.backend(cell);
                    self.end_cell(common, cell, owner, number, None);
                }
                return true;
            }
            _ => {}
        }
        let number = self.maps.cells.backend(cell);
        let terms = terms.get(usize::from(number)).and_then(Option::as_ref);
        let handed = self.pass.cells.handed_at(cell, owner).map(|since| now.since(since));
        let judgement = judge(terms, owner, handed, None, |limit| {
            now.since(self.maps.cells.seen(cell)).at_least(limit)
                && !(owner.phase() == Phase::Established
                    && self.client_spoke(common, cell, owner, limit, now))
        });
        if owner.is_cut() && handed.is_some() {
            self.tell_of_cell(common, cell, owner, tally);
        }
        let mut stays = owner;
        match judgement {
            // Where there are cells the server is seen, and nobody is asked.
            Judgement::Keep | Judgement::Ask => {}
            Judgement::End => {
                self.end_cell(common, cell, owner, number, terms);
                return true;
            }
            Judgement::Cut if tally.swept.cut.len() >= CUTS => {}
            Judgement::Cut => stays = self.cut_cell(common, cell, owner, number, terms, now, tally),
        }
        tally.count(number, stays);
        true
    }

    /// Whether the client has spoken within `limit`: while the server is silent, only its flow knows.
    fn client_spoke(&self, common: &Common, cell: u32, owner: Owner, limit: Ticks, now: Ticks) -> bool {
        let flow = self.flow_of_cell(common, cell, owner);
        flow.is_some_and(|(place, _)| !now.since(self.maps.flows.seen(place)).at_least(limit))
    }

    /// The key of the flow that a cell belongs to.
    fn key_of_cell(&self, cell: u32, owner: Owner) -> FlowKey<A> {
        let number = self.maps.cells.backend(cell);
        FlowKey {
            client: self.maps.cells.client(cell, owner),
            client_port: owner.client_port(),
            service_port: self.maps.cells.service_port(cell),
            service: self.backends.get(&number).map_or(0, |backend| backend.service),
        }
    }

    /// The flow that is linked to a cell.
    pub(super) fn flow_of_cell(&self, common: &Common, cell: u32, owner: Owner) -> Option<(u32, Owner)> {
        let key = self.key_of_cell(cell, owner);
        let (place, flow) = self.maps.flows.find(&key, common.layout.seed)?;
        (flow.phase() == Phase::Linked && self.maps.flows.cell(place) == cell).then_some((place, flow))
    }

    /// Mark a cell and its flow as cut, and hand the connection out; the owner word that stands then.
    #[expect(clippy::too_many_arguments, reason = "one connection, as the sweep knows it")]
    fn cut_cell(
        &mut self,
        common: &Common,
        cell: u32,
        owner: Owner,
        number: u16,
        terms: Option<&Terms>,
        now: Ticks,
        tally: &mut Tally,
    ) -> Owner {
        let cut = owner.cut();
        if !owner.is_cut() {
            if !self.maps.cells.swap_owner(cell, owner, cut) {
                return owner;
            }
            if owner.is_live() {
                Self::close_accounts(common, number, terms);
            }
        }
        let flow = self.flow_of_cell(common, cell, owner);
        if let Some((place, linked)) = flow.filter(|(_, linked)| !linked.is_cut()) {
            // Who changes a linked flow meanwhile is its client, and will look at the cell from the next packet on.
            self.maps.flows.swap_owner(place, linked, linked.cut());
        }
        if let Some(target) = self.target_of_cell(common, cell, owner, flow.map(|(place, _)| place)) {
            tally.swept.cut.push(target);
        }
        self.pass.cells.handed.insert(cell, (cut, now));
        cut
    }

    /// End whatever holds a cell.
    fn end_cell(&mut self, common: &Common, cell: u32, owner: Owner, number: u16, terms: Option<&Terms>) {
        let busy = owner.with_phase(Phase::Busy);
        if owner.phase() != Phase::Busy && !self.maps.cells.swap_owner(cell, owner, busy) {
            return;
        }
        if owner.is_live() {
            Self::close_accounts(common, number, terms);
            self.maps.cells.stamp(cell, moment());
        }
        if let Some((place, flow)) = self.flow_of_cell(common, cell, owner) {
            self.maps.flows.free(place, flow);
        }
        // Nobody else moves a busy cell.
        self.maps.cells.swap_owner(cell, busy, busy.with_phase(Phase::Resting));
        self.pass.cells.doubtful.remove(&cell);
        self.pass.cells.handed.remove(&cell);
    }
}
