//! Rings: the sequence of slots in which a service's backends take their turns.
//!
//! A ring serves two readers. A ticket counter that walks it is weighted round robin, so every stretch of slots has
//! to hold every backend's share; a random slot is a draw in proportion to the weights, so the shares have to be
//! exact. Quotas by largest remainder give the second, earliest deadline first gives the first: turn `k` of a backend
//! with `q` of `L` slots may come from slot `k·L/q` on and is due before `(k+1)·L/q`. Such a sequence always exists
//! (R. Tijdeman, "The chairman assignment problem", 1980), and taking the earliest deadline finds it;
//! here with both ends rounded up to whole slots.

mod deadlines;
mod regions;

use std::cmp::Reverse;

use deadlines::{Deadlines, Lists};
pub use regions::{Region, RegionError, Regions};

/// The shortest ring, for services of few backends. A prime, like every length.
pub const MIN_LENGTH: u32 = 1_021;
/// The longest ring. A prime.
pub const MAX_LENGTH: u32 = 65_537;
/// Slots per backend that keep a share within one per cent of its weight.
const SLOTS_PER_BACKEND: usize = 100;

/// The length of the ring for so many backends: the smallest prime of at least 100 × `backends`, within
/// [`MIN_LENGTH`] and [`MAX_LENGTH`].
pub fn length(backends: usize) -> u32 {
    let wanted = backends.saturating_mul(SLOTS_PER_BACKEND).clamp(MIN_LENGTH as usize, MAX_LENGTH as usize);
    (wanted as u32..=MAX_LENGTH).find(|candidate| is_prime(*candidate)).unwrap_or(MAX_LENGTH)
}

fn is_prime(number: u32) -> bool {
    number >= 2 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor))
}

/// Builds a ring of `length` slots, each holding a backend's id, from (id, weight) pairs.
///
/// Every backend whose weight is not 0 gets a slot at least, the others share the rest exactly to one slot.
/// Neighbours differ, the last and the first slot included, as long as no backend owns more than half of the ring.
/// Should there be more backends than slots, the heaviest get one each. Without any weight the ring is empty.
/// The same pairs in the same order always give the same ring.
pub fn build(weights: &[(u32, u32)], length: u32) -> Vec<u32> {
    let mut turns = quotas(weights, length);
    turns.retain(|turn| turn.quota > 0);
    if turns.is_empty() {
        return Vec::new();
    }
    let mut ring = interleave(&turns, length);
    if turns.iter().all(|turn| turn.quota * 2 <= u64::from(length)) {
        part_neighbours(&mut ring);
    }
    ring.into_iter().map(|index| turns[index as usize].id).collect()
}

/// How many slots of a ring a backend owns.
#[derive(Clone, Copy, Debug)]
struct Turns {
    id: u32,
    weight: u64,
    quota: u64,
}

/// Shares `length` slots by weight: one each for those too light to earn one, largest remainder for the rest.
fn quotas(weights: &[(u32, u32)], length: u32) -> Vec<Turns> {
    let mut turns: Vec<Turns> = weights
        .iter()
        .filter(|(_, weight)| *weight > 0)
        .map(|&(id, weight)| Turns { id, weight: u64::from(weight), quota: 0 })
        .collect();
    let mut by_weight: Vec<usize> = (0..turns.len()).collect();
    by_weight.sort_by_key(|&index| turns[index].weight);
    let dropped = by_weight.len().saturating_sub(length as usize);
    by_weight.drain(..dropped);

    let mut slots = u64::from(length);
    let mut total: u64 = by_weight.iter().map(|&index| turns[index].weight).sum();
    let light = by_weight.iter().take_while(|&&index| {
        let weight = turns[index].weight;
        let earns_none = weight * slots < total;
        if earns_none {
            slots -= 1;
            total -= weight;
        }
        earns_none
    });
    let light = light.count();
    for &index in &by_weight[..light] {
        turns[index].quota = 1;
    }
    let heavy = &mut by_weight[light..];
    let mut left = slots;
    for &mut index in &mut *heavy {
        turns[index].quota = turns[index].weight * slots / total;
        left -= turns[index].quota;
    }
    heavy.sort_by_key(|&index| (Reverse(turns[index].weight * slots % total), index));
    for &index in heavy.iter().take(left as usize) {
        turns[index].quota += 1;
    }
    turns
}

/// Lays the turns out by earliest deadline; the result holds indices into `turns`.
fn interleave(turns: &[Turns], length: u32) -> Vec<u32> {
    let slots = length as usize;
    // The first slot not before the given turn of a backend begins.
    let begins =
        |index: u32, turn: u64| (turn * u64::from(length)).div_ceil(turns[index as usize].quota) as usize;
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
        if taken[owner] < turns[owner].quota {
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

#[cfg(test)]
mod tests;
