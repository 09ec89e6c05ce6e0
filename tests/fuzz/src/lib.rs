//! The data path in a world of atomic words: the tables as they stand in the kernel's maps, on the host.
//!
//! [`World`] implements what the data path asks of the kernel, over `std`'s atomics and with the publication rules of
//! the kernel's maps: an owner word is changed by compare-and-swap, a body is written word by word while its owner is
//! busy. Threads stand for CPUs. Each access to a shared word passes [`pace::step`], where a test may let another CPU go
//! first: so interleavings that hardware shows once in a month are tried on purpose, and again by their seed.
//!
//! [`targets`] are the bodies of the fuzz targets; plain tests run them too.
#![deny(unsafe_code)]

pub mod agent;
pub mod bytes;
pub mod claims;
pub mod half;
pub mod inspect;
pub mod memory;
pub mod pace;
pub mod packets;
pub mod site;
pub mod sums;
mod tables;
pub mod targets;
pub mod traffic;
pub mod world;

pub use bytes::Bytes;
pub use site::Site;
pub use world::World;
