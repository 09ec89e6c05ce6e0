//! Rings: which slot a client has, and what the word of a slot says.
//!
//! The low half of a word is the slot's owner, the high half the owner of connections that the flow table does not know.
//! Equal halves: the slot is settled, its owner gets everything. A high half of [`SAME`]: both are the owner, but the
//! table may know connections of others, so it is still asked.

use crate::{
    Address,
    abi::{Service, algorithm},
    flow::{FlowKey, mix},
};

/// The high half of an unsettled slot whose unrecorded connections belong to its owner. So it is where a ring goes back to
/// a former state while records of the state between still live. No backend has this id.
pub const SAME: u16 = u16::MAX;

const _: () = assert!(crate::MAX_BACKENDS < SAME as u32);

/// A slot as its word says it: ids of (service, backend) pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Who gets new connections; 0: nobody.
    pub cur: u16,
    /// Who gets connections that the table does not know; 0: nobody.
    pub prev: u16,
    /// Whether `cur` gets everything and the table is not asked.
    pub settled: bool,
}

impl Slot {
    /// A settled slot.
    pub const fn settled(owner: u16) -> Self {
        Self { cur: owner, prev: owner, settled: true }
    }

    /// Its word.
    pub const fn word(self) -> u32 {
        let high = match (self.settled, self.cur == self.prev) {
            (true, _) => self.cur,
            (false, true) => SAME,
            (false, false) => self.prev,
        };
        (high as u32) << 16 | self.cur as u32
    }

    /// The slot that a word says.
    #[inline(always)]
    pub const fn read(word: u32) -> Self {
        let (cur, high) = (word as u16, (word >> 16) as u16);
        Self { cur, prev: if high == SAME { cur } else { high }, settled: high == cur }
    }
}

/// The hash that finds a client's slot in a ring: the same on every balancer of the same configuration.
#[inline(always)]
pub fn hash<A: Address>(key: &FlowKey<A>, seed: u64, by_source: bool) -> u32 {
    let (a, b) = key.client.words();
    let mut x = mix(a ^ seed);
    if A::VERSION == 6 {
        x = mix(x ^ b);
    }
    if !by_source {
        let ports = (key.client_port.wire() as u64) << 16 | key.service_port.wire() as u64;
        x = mix(x ^ ports);
    }
    (x >> 32) as u32
}

impl Service {
    /// The place of a client's slot in its ring; `None`: the ring is empty.
    #[inline(always)]
    pub fn place_of<A: Address>(&self, key: &FlowKey<A>) -> Option<u32> {
        if self.ring_length == 0 {
            return None;
        }
        Some(hash(key, self.ring_seed, self.algorithm == algorithm::SOURCE_HASH) % self.ring_length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_says_who_owns_the_slot_and_whether_the_table_is_asked() {
        for (cur, prev, settled, word) in [
            (7, 7, true, 0x0007_0007),
            (7, 9, false, 0x0009_0007),
            (7, 7, false, 0xffff_0007),
            (0, 9, false, 0x0009_0000),
            (7, 0, false, 0x0000_0007),
            (0, 0, true, 0),
            (0, 0, false, 0xffff_0000),
        ] {
            let slot = Slot { cur, prev, settled };
            assert_eq!(slot.word(), word, "{slot:?}");
            assert_eq!(Slot::read(word), slot, "{word:#x}");
        }
    }
}
