//! The contract between the kernel's half of `lb` and the agent: map keys and values, port cells, reasons, limits.
//!
//! Both halves compile this crate, so a constant or a layout stands here once. It does no I/O and knows nothing of
//! either half. Changing the layout of anything in [`abi`], [`cell`], [`event`] or [`flow`] means raising [`ABI_VERSION`]: pinned maps of
//! another version are never adopted.
#![no_std]
#![deny(unsafe_code)]

pub mod abi;
pub mod address;
pub mod cell;
pub mod endian;
pub mod event;
pub mod flow;
pub mod plain;
pub mod ports;
pub mod program;
pub mod reason;
pub mod ring;
pub mod time;

pub use address::Address;
pub use endian::{Be16, Be32, Be128};
pub use reason::Reason;
pub use time::Ticks;

/// The layout that both halves agree on. It names the folder of the pins, so two layouts never meet in one map.
pub const ABI_VERSION: u32 = 3;

/// Services that one instance holds at most. Id 0 is nobody's: counters of packets without a service stand there.
pub const MAX_SERVICES: u32 = 256;

/// (service, backend) pairs that one instance holds at most. Id 0 is nobody's.
pub const MAX_BACKENDS: u32 = 4096;

/// Interfaces that one instance is attached to or sends through at most. Id 0 is nobody's.
pub const MAX_INTERFACES: u32 = 256;

/// Distinct (backend address, source address) pairs of one family at most.
pub const MAX_ENDPOINTS: u32 = 4096;

/// Source addresses of one family at most. Number 0 is nobody's.
pub const MAX_SOURCES: u32 = 256;

/// Fragmented packets of one family that are under way at once.
pub const MAX_FRAGMENTS: u32 = 4096;

/// Source addresses of one family whose new connections are counted at once.
pub const MAX_BUCKETS: u32 = 65_536;

/// Slots of all rings together.
pub const RING_SLOTS: u32 = 1 << 20;

/// A port that its server closed first is still in TIME_WAIT there; it rests this long while others are free.
///
/// Linux says 60 s (`TCP_TIMEWAIT_LEN`, include/net/tcp.h), but its timers are rounded up to the granularity of their
/// level of the timer wheel (the tables in kernel/time/timer.c): 2.0 s with 250 ticks a second, 4.1 s with 1000, 5.1 s
/// with 100. A port given away after 60 s still met TIME_WAIT at the backend, whose answer costs the client a second.
pub const TIME_WAIT: Ticks = Ticks::from_millis(66_000);

/// An embryonic connection younger than this is never displaced by another one.
pub const EMBRYO_GRACE: Ticks = Ticks::from_millis(1_000);

/// A conversation in UDP that its server has answered is not displaced by another one while it was heard of so lately.
pub const CONVERSATION_GRACE: Ticks = Ticks::from_millis(10_000);
