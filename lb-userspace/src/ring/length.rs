//! How many slots a ring has.
//!
//! A slot is found by a number modulo the length, so another length moves nearly everything. Where only shares
//! matter ([`length`]) it follows the backends with hysteresis. Where connections are found again by their hash
//! ([`hashed_length`]) it must be the same on balancers with different pasts, and long: a ring that knows nothing of
//! its past draws each backend's slots like a lot, and the shares are then made exact by moving what was drawn too
//! often. That costs about 0.5 / √length of the slots when a backend leaves and 0.2 / √length when a weight changes by
//! a tenth, whatever the construction: with 1,021 slots 1.6 % and 0.6 % on average over ten backends, with 32,749
//! slots 0.3 % and 0.1 % (see [`super::hashed`]).

/// The shortest ring, for services of few backends. A prime, like every length.
pub const MIN_LENGTH: u32 = 1_021;
/// The shortest ring for services whose connections are found again by their hash. A prime.
pub const MIN_HASHED_LENGTH: u32 = 32_749;
/// The longest ring. A prime.
pub const MAX_LENGTH: u32 = 65_537;
/// Slots per backend that keep a share within one per cent of its weight.
const SLOTS_PER_BACKEND: usize = 100;
/// How many times longer than needed a ring may stay.
const SLACK: u32 = 4;

/// The length of the ring of a service that draws from it or walks it.
///
/// The smallest prime of at least 100 × `backends`, within [`MIN_LENGTH`] and [`MAX_LENGTH`]; the `previous` length is
/// kept while it is long enough and not more than four times too long.
pub fn length(backends: usize, previous: Option<u32>) -> u32 {
    let needed = prime_from(backends.saturating_mul(SLOTS_PER_BACKEND));
    previous.filter(|length| (needed..=needed * SLACK).contains(length)).unwrap_or(needed)
}

/// The length of the ring of a `maglev` or `source-hash` service, by the number of its configured backends (whatever
/// their health): [`MIN_HASHED_LENGTH`] for as many as have 100 slots each there, otherwise [`MAX_LENGTH`].
///
/// A service of settled slots keeps the length of its first publication for life, see [`super::settling`].
pub fn hashed_length(configured: usize) -> u32 {
    if configured.saturating_mul(SLOTS_PER_BACKEND) <= MIN_HASHED_LENGTH as usize {
        MIN_HASHED_LENGTH
    } else {
        MAX_LENGTH
    }
}

fn prime_from(slots: usize) -> u32 {
    let slots = slots.clamp(MIN_LENGTH as usize, MAX_LENGTH as usize) as u32;
    (slots..=MAX_LENGTH).find(|candidate| is_prime(*candidate)).unwrap_or(MAX_LENGTH)
}

fn is_prime(number: u32) -> bool {
    number >= 2 && (2..=number.isqrt()).all(|divisor| !number.is_multiple_of(divisor))
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(length(backends, None), expected, "{backends} backends");
        }
    }

    #[test]
    fn the_length_stays_until_it_is_too_short_or_four_times_too_long() {
        for (backends, previous, expected) in [
            (11, 1_103, 1_103),
            (12, 1_103, 1_201),
            (11, 4_409, 4_409),
            (11, 4_421, 1_103),
            (1, 4_079, 4_079),
            (1, 4_091, 1_021),
            (1, 0, 1_021),
        ] {
            assert_eq!(length(backends, Some(previous)), expected, "{backends} backends after {previous}");
        }
    }

    #[test]
    fn hashed_rings_know_two_lengths_and_no_past() {
        for (configured, expected) in
            [(0, 32_749), (1, 32_749), (327, 32_749), (328, 65_537), (1_000, 65_537), (usize::MAX, 65_537)]
        {
            assert_eq!(hashed_length(configured), expected, "{configured} backends");
        }
        for length in [MIN_LENGTH, MIN_HASHED_LENGTH, MAX_LENGTH] {
            assert!(is_prime(length), "{length}");
        }
    }
}
