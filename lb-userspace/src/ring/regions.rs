//! The allocator of ring regions: which stretch of the one slot array belongs to which ring.
//!
//! A new ring is built in a free region while the old one is still being read, published by one update of the
//! service's entry, and the old region is freed when no packet can be reading it any more. So a service briefly
//! holds two regions, and nothing is ever overwritten in place.

use std::collections::BTreeMap;

/// A stretch of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Region {
    /// The first slot.
    pub offset: u32,
    /// How many slots, never 0.
    pub length: u32,
}

impl Region {
    fn end(self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }
}

/// Why a region could not be had or given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// No free stretch is long enough.
    #[error("no {length} free slots in a row ({free} of {capacity} free in all)")]
    Full {
        /// What was asked for.
        length: u32,
        /// Free slots in all.
        free: u32,
        /// Slots in all.
        capacity: u32,
    },
    /// A region of no slots.
    #[error("a ring needs at least one slot")]
    Empty,
    /// A region to claim reaches beyond the array or into another region.
    #[error("slots {offset} to {offset}+{length} are not free")]
    NotFree {
        /// First slot.
        offset: u32,
        /// Slots.
        length: u32,
    },
    /// A region to free is not held, or not in this size.
    #[error("no ring holds the slots {offset} to {offset}+{length}")]
    NotHeld {
        /// First slot.
        offset: u32,
        /// Slots.
        length: u32,
    },
}

/// Which slots of an array of fixed capacity are held. First fit; free neighbours grow together by themselves,
/// because only the held regions are recorded.
#[derive(Clone, Debug)]
pub struct Regions {
    capacity: u32,
    /// Length by offset.
    held: BTreeMap<u32, u32>,
}

impl Regions {
    /// An array of `capacity` slots, all free.
    pub fn new(capacity: u32) -> Self {
        Self { capacity, held: BTreeMap::new() }
    }

    /// Slots that no ring holds.
    pub fn free_slots(&self) -> u32 {
        self.capacity - self.held.values().sum::<u32>()
    }

    /// The regions held, by offset.
    pub fn held(&self) -> impl Iterator<Item = Region> + '_ {
        self.held.iter().map(|(&offset, &length)| Region { offset, length })
    }

    /// Takes the first free stretch of `length` slots.
    pub fn allocate(&mut self, length: u32) -> Result<Region, RegionError> {
        if length == 0 {
            return Err(RegionError::Empty);
        }
        let mut offset = 0_u64;
        for held in self.held() {
            if offset + u64::from(length) <= u64::from(held.offset) {
                break;
            }
            offset = held.end();
        }
        if offset + u64::from(length) > u64::from(self.capacity) {
            return Err(RegionError::Full { length, free: self.free_slots(), capacity: self.capacity });
        }
        let region = Region { offset: offset as u32, length };
        self.held.insert(region.offset, length);
        Ok(region)
    }

    /// Takes exactly this region: what a new agent does with the rings that it finds in adopted maps.
    pub fn claim(&mut self, region: Region) -> Result<(), RegionError> {
        if region.length == 0 {
            return Err(RegionError::Empty);
        }
        let overlaps =
            |held: Region| region.end() > u64::from(held.offset) && held.end() > u64::from(region.offset);
        if region.end() > u64::from(self.capacity) || self.held().any(overlaps) {
            return Err(RegionError::NotFree { offset: region.offset, length: region.length });
        }
        self.held.insert(region.offset, region.length);
        Ok(())
    }

    /// Gives a region back. The caller waits first until no packet can still be reading it.
    pub fn free(&mut self, region: Region) -> Result<(), RegionError> {
        if self.held.get(&region.offset) != Some(&region.length) {
            return Err(RegionError::NotHeld { offset: region.offset, length: region.length });
        }
        self.held.remove(&region.offset);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ring_is_replaced_beside_the_old_one_and_the_gap_is_used_again() {
        let mut regions = Regions::new(10);
        let old = regions.allocate(4).unwrap();
        let new = regions.allocate(4).unwrap();
        assert_eq!((old.offset, new.offset), (0, 4));
        assert_eq!(regions.allocate(4), Err(RegionError::Full { length: 4, free: 2, capacity: 10 }));
        regions.free(old).unwrap();
        assert_eq!(regions.allocate(3).unwrap(), Region { offset: 0, length: 3 });
        assert_eq!(regions.free(old), Err(RegionError::NotHeld { offset: 0, length: 4 }));
    }

    #[test]
    fn freed_neighbours_grow_together() {
        let mut regions = Regions::new(9);
        let thirds: Vec<Region> = (0..3).map(|_| regions.allocate(3).unwrap()).collect();
        for third in thirds {
            regions.free(third).unwrap();
        }
        assert_eq!(regions.allocate(9).unwrap(), Region { offset: 0, length: 9 });
    }

    #[test]
    fn an_adopted_ring_is_claimed_where_it_lies() {
        let mut regions = Regions::new(10);
        regions.claim(Region { offset: 2, length: 3 }).unwrap();
        for (offset, length) in [(0, 3), (2, 3), (4, 1), (1, 5), (8, 3), (u32::MAX, 2)] {
            let refused = regions.claim(Region { offset, length });
            assert_eq!(refused, Err(RegionError::NotFree { offset, length }), "{offset} {length}");
        }
        assert_eq!(regions.allocate(3).unwrap().offset, 5);
        assert_eq!(regions.allocate(2).unwrap().offset, 0);
        assert_eq!(regions.allocate(0), Err(RegionError::Empty));
    }

    proptest! {
        #[test]
        fn held_regions_never_overlap_and_never_leave_the_array(
            steps in proptest::collection::vec((any::<bool>(), 0_u32..40, 1_u32..40), 1..80)
        ) {
            let mut regions = Regions::new(100);
            let mut mine: Vec<Region> = Vec::new();
            for (free, which, length) in steps {
                if free && !mine.is_empty() {
                    let region = mine.swap_remove(which as usize % mine.len());
                    regions.free(region).unwrap();
                } else if let Ok(region) = regions.allocate(length) {
                    mine.push(region);
                }
                let mut owner = [false; 100];
                for region in &mine {
                    for slot in region.offset..region.offset + region.length {
                        prop_assert!(!std::mem::replace(&mut owner[slot as usize], true), "slot {} twice", slot);
                    }
                }
                let free_slots = owner.iter().filter(|taken| !**taken).count();
                prop_assert_eq!(regions.free_slots() as usize, free_slots);
                // First fit with growing gaps: what is refused does not exist.
                let longest = owner.split(|taken| *taken).map(<[bool]>::len).max().unwrap_or(0);
                prop_assert_eq!(regions.clone().allocate(longest as u32 + 1).is_err(), true);
                prop_assert!(longest == 0 || regions.clone().allocate(longest as u32).is_ok());
            }
        }
    }
}
