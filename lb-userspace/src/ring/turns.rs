//! Rings to be walked: weighted round robin.
//!
//! A ticket counter walks the ring, so every stretch of slots has to hold every backend's share. Quotas by largest
//! remainder make the shares exact, earliest deadline first spreads them: turn `k` of a backend with `q` of `L` slots
//! may come from slot `k·L/q` on and is due before `(k+1)·L/q`. Such a sequence always exists (R. Tijdeman, "The
//! chairman assignment problem", 1980), and taking the earliest deadline finds it; here with both ends rounded up to
//! whole slots.

use super::{
    Member,
    deadlines::{Deadlines, Lists},
    quota::{Quota, quotas},
};

/// Builds a ring of `length` slots, each holding a backend's id.
///
/// Every backend whose weight is not 0 gets a slot at least, the others share the rest exactly to one slot.
/// Neighbours differ, the last and the first slot included, as long as no backend owns more than half of the ring.
/// Should there be more backends than slots, the heaviest get one each. Without any weight the ring is empty.
/// The same members in any order give the same ring.
pub fn build(members: &[Member], length: u32) -> Vec<u16> {
    let turns = quotas(members, length);
    if turns.is_empty() {
        return Vec::new();
    }
    let mut ring = interleave(&turns, length);
    if turns.iter().all(|turn| u64::from(turn.slots) * 2 <= u64::from(length)) {
        part_neighbours(&mut ring);
    }
    ring.into_iter().map(|index| turns[index as usize].id).collect()
}

/// Lays the turns out by earliest deadline; the result holds indices into `turns`.
fn interleave(turns: &[Quota], length: u32) -> Vec<u32> {
    let slots = length as usize;
    // The first slot not before the given turn of a backend begins.
    let begins = |index: u32, turn: u64| {
        (turn * u64::from(length)).div_ceil(u64::from(turns[index as usize].slots)) as usize
    };
    let mut next = vec![0; turns.len()];
    let mut taken = vec![0_u64; turns.len()];
    let mut released = Lists::new(slots + 1);
    let mut ready = Deadlines::new(slots + 1);
    for index in 0..turns.len() as u32 {
        released.push(0, index, &mut next);
    }
    let mut ring = Vec::with_capacity(slots);
    for slot in 0..slots {
        while let Some(index) = released.pop(slot, &next) {
            ready.push(begins(index, taken[index as usize] + 1), index, &mut next);
        }
        // The turns released up to a slot always outnumber the slots before it, so there is always one.
        let Some(index) = ready.pop(&next) else { break };
        ring.push(index);
        let owner = index as usize;
        taken[owner] += 1;
        if taken[owner] < u64::from(turns[owner].slots) {
            released.push(begins(index, taken[owner]).max(slot + 1), index, &mut next);
        }
    }
    ring
}

/// Moves a slot that equals the one before it to the nearest place where it does not; there is one as long as
/// nobody owns more than half. Only whole
/// moves are made, so the order of all other slots stays as it was.
fn part_neighbours(ring: &mut [u32]) {
    let length = ring.len();
    if length < 3 {
        return;
    }
    // The pair of the last and the first slot is seen by turning the ring until its ends differ.
    if ring[0] == ring[length - 1]
        && let Some(at) = (1..length).find(|&at| ring[at] != ring[at - 1])
    {
        ring.rotate_left(at);
    }
    let mut at = 1;
    while at < length {
        if ring[at] == ring[at - 1] {
            let Some(gap) = nearest_gap(ring, at) else { return };
            if gap > at {
                ring[at..gap].rotate_left(1);
                continue; // Another slot stands at `at` now.
            }
            ring[gap..=at].rotate_right(1);
        }
        at += 1;
    }
}

/// The `gap` nearest to `at` such that neither `gap - 1` nor `gap` holds the same backend as `at`.
fn nearest_gap(ring: &[u32], at: usize) -> Option<usize> {
    let owner = ring[at];
    let fits = |gap: usize| ring[gap - 1] != owner && ring[gap] != owner;
    (1..ring.len()).find_map(|distance| {
        let after = at + distance;
        if after < ring.len() && fits(after) {
            return Some(after);
        }
        at.checked_sub(distance).filter(|&before| before > 0 && fits(before))
    })
}
