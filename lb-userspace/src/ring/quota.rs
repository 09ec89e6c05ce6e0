//! How many slots each backend owns: largest remainder, after one slot each for those too light to earn one.

use std::cmp::Reverse;

use super::Member;

/// A backend's part of a ring.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quota {
    /// Its id.
    pub(super) id: u16,
    /// Its identity.
    pub(super) key: u64,
    /// Its weight, not 0.
    pub(super) weight: u32,
    /// Its slots, not 0.
    pub(super) slots: u32,
}

/// Shares `length` slots by weight, in the order of the members' keys.
///
/// Every member whose weight is not 0 gets a slot at least; the others share the rest exactly to one slot. Should
/// there be more members than slots, the heaviest get one each. The order of `members` makes no difference.
pub(super) fn quotas(members: &[Member], length: u32) -> Vec<Quota> {
    let mut by_weight: Vec<Quota> = members
        .iter()
        .filter(|member| member.weight > 0)
        .map(|&Member { id, key, weight }| Quota { id, key, weight, slots: 0 })
        .collect();
    by_weight.sort_unstable_by_key(|quota| (quota.weight, quota.key, quota.id));
    let dropped = by_weight.len().saturating_sub(length as usize);
    by_weight.drain(..dropped);

    let mut slots = u64::from(length);
    let mut total: u64 = by_weight.iter().map(|quota| u64::from(quota.weight)).sum();
    let mut light = 0;
    while let Some(quota) = by_weight.get_mut(light).filter(|quota| u64::from(quota.weight) * slots < total) {
        quota.slots = 1;
        slots -= 1;
        total -= u64::from(quota.weight);
        light += 1;
    }
    let heavy = &mut by_weight[light..];
    let mut left = slots;
    for quota in &mut *heavy {
        quota.slots = (u64::from(quota.weight) * slots / total) as u32;
        left -= u64::from(quota.slots);
    }
    heavy.sort_unstable_by_key(|quota| {
        (Reverse(u64::from(quota.weight) * slots % total), quota.key, quota.id)
    });
    for quota in heavy.iter_mut().take(left as usize) {
        quota.slots += 1;
    }
    by_weight.sort_unstable_by_key(|quota| (quota.key, quota.id));
    by_weight
}
