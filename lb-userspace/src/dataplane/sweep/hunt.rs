//! The hunt: connections of backends that have just been cut are looked for at once. The next sweep may be a second
//! away, and looks at everything else too.

use std::{collections::BTreeSet, ops::Range, time::Instant};

use lb_common::{abi::mode, cell::Phase};

use super::{CUTS, STRIDE, Tally, moment, time_is_up};
use crate::{
    cut,
    dataplane::{
        Dataplane,
        common::Common,
        family::{Family, Ip},
    },
};

/// What is looked for in one family, and where.
#[derive(Debug, Default)]
pub(in crate::dataplane) struct Hunt {
    /// Backends that have been cut since the last slice.
    new: BTreeSet<u16>,
    backends: BTreeSet<u16>,
    /// Port cells still to be looked at.
    cells: Vec<Range<u32>>,
    /// Places of the flow table still to be looked at.
    flows: Range<u32>,
    /// Connections found. What is too many for the machine of cuts is left to the sweeps.
    found: usize,
}

impl Hunt {
    fn is_on(&self) -> bool {
        !self.new.is_empty() || !self.backends.is_empty()
    }

    /// Look for the connections of a backend.
    pub(in crate::dataplane) fn begin(&mut self, number: u16) {
        self.new.insert(number);
    }

    /// The next port cells.
    fn next_cells(&mut self) -> Option<Range<u32>> {
        let range = self.cells.last_mut()?;
        let stretch = take(range);
        if range.start == range.end {
            self.cells.pop();
        }
        Some(stretch)
    }

    /// The next places of the flow table.
    fn next_flows(&mut self) -> Option<Range<u32>> {
        (self.flows.start < self.flows.end).then(|| take(&mut self.flows))
    }
}

/// The first stretch of a range, which loses it.
fn take(range: &mut Range<u32>) -> Range<u32> {
    let end = range.end.min(range.start.saturating_add(STRIDE));
    let stretch = range.start..end;
    range.start = end;
    stretch
}

impl Dataplane {
    /// Whether there are connections to be looked for.
    pub fn is_hunting(&self) -> bool {
        self.v4.pass.hunt.is_on() || self.v6.pass.hunt.is_on()
    }

    /// Look for connections of backends that have just been cut, for at most two milliseconds. Those that were found are
    /// marked as cut now; their ends are to be told.
    pub fn hunt(&mut self) -> Vec<cut::Target> {
        let begun = Instant::now();
        let mut found = self.v4.hunt(&self.common, begun);
        if !self.v4.pass.hunt.is_on() {
            found.extend(self.v6.hunt(&self.common, begun));
        }
        found
    }
}

impl<A: Ip> Family<A> {
    /// Where the connections of backends that have just been cut may stand.
    fn spread(&mut self, common: &Common) {
        let hunt = &mut self.pass.hunt;
        for number in std::mem::take(&mut hunt.new) {
            let Some(backend) = self.backends.get(&number) else { continue };
            hunt.backends.insert(number);
            if backend.mode == mode::SNAT {
                let cells = u32::from(backend.sources) * common.layout.ports.count();
                hunt.cells.push(backend.cells..backend.cells + cells);
            } else {
                hunt.flows = 0..self.maps.flows.len();
            }
        }
    }

    fn hunt(&mut self, common: &Common, begun: Instant) -> Vec<cut::Target> {
        let mut tally = Tally::default();
        if !self.pass.hunt.is_on() {
            return tally.swept.cut;
        }
        self.spread(common);
        let terms = self.terms();
        loop {
            let now = moment();
            if self.pass.hunt.found + tally.swept.cut.len() >= CUTS {
                self.pass.hunt = Hunt::default();
                break;
            } else if let Some(cells) = self.pass.hunt.next_cells() {
                for cell in cells {
                    if self.pass.hunt.backends.contains(&self.maps.cells.backend(cell)) {
                        self.look_at_cell(common, &terms, cell, now, &mut tally);
                    }
                }
            } else if let Some(places) = self.pass.hunt.next_flows() {
                for (place, owner) in self.maps.flows.taken(places) {
                    if owner.phase() != Phase::Linked
                        && self.pass.hunt.backends.contains(&self.maps.flows.backend(place))
                    {
                        self.look_at_flow(common, &terms, (place, owner), now, &mut tally);
                    }
                }
            } else {
                self.pass.hunt = Hunt::default();
                break;
            }
            if time_is_up(begun) {
                self.pass.hunt.found += tally.swept.cut.len();
                break;
            }
        }
        tally.swept.cut
    }
}
