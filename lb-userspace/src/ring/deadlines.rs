//! A queue of turns by deadline, for deadlines that are slots of one ring.
//!
//! One list per slot and two levels of bits to find the first that is not empty: a ring of 65,537 slots makes as many
//! insertions and removals, and a binary heap would spend four times as long on them.

/// No entry.
const NONE: u32 = u32::MAX;
/// Bits of a word, as a shift.
const WORD: usize = 6;

/// First come, first served lists of backends, one for each slot. A backend waits in one list at a time.
pub(super) struct Lists {
    first: Vec<u32>,
    last: Vec<u32>,
}

impl Lists {
    pub(super) fn new(slots: usize) -> Self {
        Self { first: vec![NONE; slots], last: vec![NONE; slots] }
    }

    pub(super) fn push(&mut self, slot: usize, entry: u32, next: &mut [u32]) {
        next[entry as usize] = NONE;
        let last = std::mem::replace(&mut self.last[slot], entry);
        if self.first[slot] == NONE {
            self.first[slot] = entry;
        } else {
            next[last as usize] = entry;
        }
    }

    pub(super) fn pop(&mut self, slot: usize, next: &[u32]) -> Option<u32> {
        let entry = self.first[slot];
        if entry == NONE {
            return None;
        }
        self.first[slot] = next[entry as usize];
        Some(entry)
    }
}

/// The queue.
pub(super) struct Deadlines {
    lists: Lists,
    /// A bit for each slot whose list is not empty.
    slots: Vec<u64>,
    /// A bit for each word of `slots` that is not 0.
    words: Vec<u64>,
}

impl Deadlines {
    pub(super) fn new(slots: usize) -> Self {
        let words = (slots >> WORD) + 1;
        Self { lists: Lists::new(slots), slots: vec![0; words], words: vec![0; (words >> WORD) + 1] }
    }

    pub(super) fn push(&mut self, deadline: usize, entry: u32, next: &mut [u32]) {
        self.lists.push(deadline, entry, next);
        let word = deadline >> WORD;
        self.slots[word] |= 1 << (deadline & 63);
        self.words[word >> WORD] |= 1 << (word & 63);
    }

    /// Takes the entry with the earliest deadline; among equals the one that came first.
    pub(super) fn pop(&mut self, next: &[u32]) -> Option<u32> {
        let group = self.words.iter().position(|words| *words != 0)?;
        let word = (group << WORD) + self.words[group].trailing_zeros() as usize;
        let slot = (word << WORD) + self.slots[word].trailing_zeros() as usize;
        let entry = self.lists.pop(slot, next)?;
        if self.lists.first[slot] == NONE {
            self.slots[word] &= !(1 << (slot & 63));
            if self.slots[word] == 0 {
                self.words[group] &= !(1 << (word & 63));
            }
        }
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_comes_first_and_equals_in_the_order_of_arrival() {
        let mut queue = Deadlines::new(70_000);
        let mut next = vec![NONE; 6];
        for (deadline, entry) in [(69_999, 0), (63, 1), (64, 2), (63, 3), (4_096, 4), (0, 5)] {
            queue.push(deadline, entry, &mut next);
        }
        let order: Vec<u32> = std::iter::from_fn(|| queue.pop(&next)).collect();
        assert_eq!(order, [5, 1, 3, 2, 4, 0]);
        queue.push(7, 1, &mut next);
        assert_eq!((queue.pop(&next), queue.pop(&next)), (Some(1), None));
    }
}
