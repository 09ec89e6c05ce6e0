//! New connections per source address: a token bucket each.
//!
//! A bucket is one word, so that one compare-and-swap changes it: when it was last filled (ticks, high half) and what
//! is in it (1/1024 of a token, low half). A source that was never seen, or forgotten, has a full one.

use lb_common::{
    Address, Ticks,
    abi::{BucketKey, Service},
};

use crate::Tables;

/// Parts of a token.
const PARTS: u64 = 1024;

/// Parts that a rate of one a second adds in 1,000 ticks: 1,000 × 2^26 ns × 1024 / s.
const PARTS_PER_1000_TICKS: u64 = 68_719;

/// Tries when other CPUs spend from the same bucket.
const TRIES: u32 = 3;

/// Take a token of the client's; whether there was one.
#[inline(always)]
pub fn spend<A: Address, T: Tables<A>>(service: &Service, client: A, tables: &T) -> bool {
    let key = BucketKey { client, service: service.id.into() };
    let now = tables.now();
    for _ in 0..TRIES {
        let before = tables.tokens(&key);
        let Some(after) = taken(before, now, service.rate, service.burst) else { return false };
        if tables.swap_tokens(&key, before, after) {
            return true;
        }
    }
    // Whoever shares an address with so many others at this very moment is let in: the next packet counts again.
    true
}

/// A bucket's word after one token has been taken, if there is one. `rate` is tokens a second, `burst` its size.
#[inline(always)]
pub const fn taken(word: u64, now: Ticks, rate: u32, burst: u32) -> Option<u64> {
    let most = burst as u64 * PARTS;
    let parts = if word == 0 {
        most
    } else {
        let elapsed = now.since(Ticks::from_raw((word >> 32) as u32)).raw() as u64;
        // More than an hour fills any bucket.
        let elapsed = if elapsed > 0xffff { 0xffff } else { elapsed };
        let parts = (word & 0xffff_ffff) + elapsed * rate as u64 * PARTS_PER_1000_TICKS / 1000;
        if parts > most { most } else { parts }
    };
    if parts < PARTS {
        return None;
    }
    Some((now.raw() as u64) << 32 | (parts - PARTS))
}
