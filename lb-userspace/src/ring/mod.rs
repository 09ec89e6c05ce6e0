//! Rings: the slots in which a service's backends stand, and the words that tell the kernel.
//!
//! Every service owns a ring. [`turns`] lays one out for a walk (`round-robin`), [`hashed`] for everybody who comes
//! with a hash or a random number (all other algorithms, and the fallback of full tables); both share the slots by
//! [`quota`]. [`words`] is what stands in the kernel's array, [`settling`] the life of slots that change hands under
//! connections that nobody recorded, and [`regions`] says where in the array a ring lies.
//!
//! All of it is pure: no clock, no I/O, no map.

mod deadlines;
pub mod hashed;
mod length;
mod quota;
mod regions;
pub mod settling;
pub mod turns;
pub mod words;

pub use length::{MAX_LENGTH, MIN_HASHED_LENGTH, MIN_LENGTH, hashed_length, length};
pub use regions::{Region, RegionError, Regions};
pub use settling::Settling;
use sha2::{Digest, Sha256};

/// A backend as a ring sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its id in the maps, from 1. Ids are given away by one instance, so no layout depends on them.
    pub id: u16,
    /// Who it is, the same on every balancer: see [`key`].
    pub key: u64,
    /// Its weight in any unit; 0 takes no slot.
    pub weight: u32,
}

/// The identity of a backend for [`Member::key`].
///
/// `secret` comes from the configuration (the service's name and address, or a configured secret): equal on all
/// balancers, and unknown to who would aim at one backend. `backend` is what the configuration says of the backend
/// whatever its order and health: the bytes of its address and port.
pub fn key(secret: &[u8], backend: &[u8]) -> u64 {
    let mut digest = Sha256::new();
    digest.update((secret.len() as u64).to_be_bytes());
    digest.update(secret);
    digest.update(backend);
    digest.finalize().iter().take(size_of::<u64>()).fold(0, |key, byte| key << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
