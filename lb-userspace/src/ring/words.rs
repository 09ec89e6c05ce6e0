//! What stands in the kernel's array of slots: a ring's slots, each a word ([`Slot`]), and behind them its *member list*: a
//! word for each distinct backend, in the order of their ids, both halves its id.

use std::collections::BTreeSet;

pub use lb_common::ring::Slot;

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
    fn the_members_follow_the_slots_in_the_order_of_their_ids() {
        assert_eq!(settled(&[3, 1, 3, 0]), [0x3_0003, 0x1_0001, 0x3_0003, 0, 0x1_0001, 0x3_0003]);
        assert_eq!(settled(&[]), [0_u32; 0]);
    }
}
