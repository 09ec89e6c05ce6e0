//! What stands in the kernel's array of slots.
//!
//! A word is a slot: the low half its owner `cur`, the high half `prev`, the owner of connections that the flow table
//! does not know. Equal halves: the slot is settled, `cur` gets everything. A high half of [`SAME`]: `prev` is `cur`
//! too, but the table may know connections of others, so it is still asked. After a ring's slots stands its *member
//! list*: a word for each distinct backend, in the order of their ids, both halves its id.

use std::collections::BTreeSet;

/// The high half of an unsettled slot whose unrecorded connections belong to its owner. No backend has this id.
pub const SAME: u16 = u16::MAX;

const _: () = assert!(lb_common::MAX_BACKENDS < SAME as u32);

/// A slot as its word says it.
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
    pub const fn read(word: u32) -> Self {
        let (cur, high) = (word as u16, (word >> 16) as u16);
        Self { cur, prev: if high == SAME { cur } else { high }, settled: high == cur }
    }
}

/// The words of a ring's region where every slot is settled (all tracked services): its slots, then its member list.
pub fn settled(ring: &[u16]) -> Vec<u32> {
    let members = members(ring.iter().copied());
    ring.iter().copied().chain(members).map(|owner| Slot::settled(owner).word()).collect()
}

/// The distinct backends of a ring in the order of their ids; nobody is none of them.
pub fn members(ring: impl IntoIterator<Item = u16>) -> BTreeSet<u16> {
    ring.into_iter().filter(|owner| *owner != 0).collect()
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

    #[test]
    fn the_members_follow_the_slots_in_the_order_of_their_ids() {
        assert_eq!(settled(&[3, 1, 3, 0]), [0x3_0003, 0x1_0001, 0x3_0003, 0, 0x1_0001, 0x3_0003]);
        assert_eq!(settled(&[]), [0_u32; 0]);
    }
}
