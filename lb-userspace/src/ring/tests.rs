//! What a ring promises: exact shares, smooth turns, unlike neighbours, and quickly.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn counts(ring: &[u32]) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    for id in ring {
        *counts.entry(*id).or_insert(0) += 1;
    }
    counts
}

#[test]
fn a_ring_is_the_smallest_prime_of_a_hundred_slots_a_backend() {
    for (backends, expected) in [
        (0, 1_021),
        (1, 1_021),
        (10, 1_021),
        (11, 1_103),
        (20, 2_003),
        (100, 10_007),
        (655, 65_519),
        (656, 65_537),
        (10_000, 65_537),
        (usize::MAX, 65_537),
    ] {
        assert_eq!(length(backends), expected, "{backends} backends");
    }
}

#[test]
fn turns_follow_the_weights() {
    for (weights, slots, expected) in [
        (vec![(1, 100), (2, 100), (3, 100)], 6, vec![1, 2, 3, 1, 2, 3]),
        (vec![(1, 200), (2, 100), (3, 100)], 4, vec![2, 1, 3, 1]),
        (vec![(1, 4), (2, 1), (3, 1), (4, 1), (5, 1)], 8, vec![2, 1, 3, 1, 4, 1, 5, 1]),
        (vec![(7, 1)], 3, vec![7, 7, 7]),
        (vec![(1, 1_000_000), (2, 1)], 4, vec![1, 2, 1, 1]),
        (vec![(1, 5), (2, 0)], 2, vec![1, 1]),
        (vec![(1, 1), (2, 3), (3, 2)], 2, vec![2, 3]),
        (vec![(1, 0)], 5, vec![]),
        (vec![], 5, vec![]),
        (vec![(1, 1)], 0, vec![]),
    ] {
        assert_eq!(build(&weights, slots), expected, "{weights:?} over {slots}");
    }
}

#[test]
fn a_thousand_backends_are_laid_out_in_five_milliseconds() {
    let weights: Vec<(u32, u32)> = (0..1_000).map(|id| (id, 1 + (id * 7_919) % 102_400)).collect();
    // The promise is the optimised build's; without optimisation the bound only catches a quadratic slip.
    let bound = if cfg!(debug_assertions) { Duration::from_secs(1) } else { Duration::from_millis(5) };
    let best = (0..5)
        .map(|_| {
            let started = Instant::now();
            assert_eq!(build(&weights, length(1_000)).len(), 65_537);
            started.elapsed()
        })
        .min()
        .unwrap();
    assert!(best <= bound, "{best:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn shares_are_exact_to_one_slot_where_nobody_is_too_light(
        weights in proptest::collection::vec(2_048_u32..204_800, 1..10)
    ) {
        let weights: Vec<(u32, u32)> = (0_u32..).zip(weights).collect();
        let slots = length(weights.len());
        let ring = build(&weights, slots);
        let total: u64 = weights.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let counts = counts(&ring);
        for (id, weight) in &weights {
            let exact = f64::from(*weight) * f64::from(slots) / total as f64;
            prop_assert!((counts[id] as f64 - exact).abs() < 1.0, "{} has {} of {}", id, counts[id], exact);
        }
    }

    #[test]
    fn every_weight_has_a_slot_and_no_slot_is_without_owner(
        weights in proptest::collection::vec(prop_oneof![Just(0_u32), 1..4_u32, 1..2_000_000_u32], 0..60)
    ) {
        let weights: Vec<(u32, u32)> = (0_u32..).zip(weights).collect();
        let ring = build(&weights, length(weights.len()));
        let counts = counts(&ring);
        for (id, weight) in &weights {
            prop_assert_eq!(counts.contains_key(id), *weight > 0);
        }
        let expected = if counts.is_empty() { 0 } else { length(weights.len()) as usize };
        prop_assert_eq!(ring.len(), expected);
    }

    #[test]
    fn neighbours_differ_unless_one_owns_more_than_half(
        weights in proptest::collection::vec(1_u32..2_000, 2..30), slots in 30_u32..400
    ) {
        let weights: Vec<(u32, u32)> = (0_u32..).zip(weights).collect();
        let ring = build(&weights, slots);
        let most = *counts(&ring).values().max().unwrap();
        if most * 2 <= u64::from(slots) {
            let alike = (0..ring.len()).filter(|at| ring[*at] == ring[(at + 1) % ring.len()]).count();
            prop_assert_eq!(alike, 0, "{:?}", ring);
        }
    }

    #[test]
    fn every_stretch_from_the_start_holds_every_share(weights in proptest::collection::vec(1_u32..2_000, 2..12)) {
        let weights: Vec<(u32, u32)> = (0_u32..).zip(weights).collect();
        let slots = length(weights.len());
        let ring = build(&weights, slots);
        let total = counts(&ring);
        let mut seen = BTreeMap::new();
        for (slot, id) in ring.iter().enumerate() {
            *seen.entry(*id).or_insert(0.0) += 1.0;
            for (id, quota) in &total {
                let due = (slot + 1) as f64 * *quota as f64 / f64::from(slots);
                let had: f64 = seen.get(id).copied().unwrap_or(0.0);
                // One for the order of turns, two for a neighbour moved and the ring turned.
                prop_assert!((had - due).abs() <= 3.0, "{} had {} of {} at {}", id, had, due, slot);
            }
        }
    }
}
