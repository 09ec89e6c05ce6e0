//! The data path's clock.

/// A moment or a span in steps of 2^26 ns (67.1 ms) of `CLOCK_MONOTONIC`.
///
/// Coarse enough that a busy flow rewrites its time stamp 15 times a second rather than at each packet, fine enough
/// for the one second that decides about embryonic connections. 32 bits last nine years of uptime; differences are
/// taken modulo 2^32.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticks(u32);

impl Ticks {
    /// log2 of a tick's length in nanoseconds.
    pub const SHIFT: u32 = 26;

    /// From a reading of the monotonic clock in nanoseconds.
    #[inline(always)]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self((nanos >> Self::SHIFT) as u32)
    }

    /// A span, rounded up: a time-out never ends early.
    pub const fn from_millis(millis: u64) -> Self {
        Self((millis * 1_000_000).div_ceil(1 << Self::SHIFT) as u32)
    }

    /// The span in milliseconds, rounded down.
    pub const fn as_millis(self) -> u64 {
        ((self.0 as u64) << Self::SHIFT) / 1_000_000
    }

    /// From the number as it stands in a map.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// The number as it stands in a map.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// A moment that much later.
    #[inline(always)]
    pub const fn plus(self, span: Self) -> Self {
        Self(self.0.wrapping_add(span.0))
    }

    /// How long before `self` the moment `earlier` was; a moment that another CPU stamped just ahead counts as now.
    #[inline(always)]
    pub const fn since(self, earlier: Self) -> Self {
        let difference = self.0.wrapping_sub(earlier.0);
        Self(if difference > u32::MAX / 2 { 0 } else { difference })
    }

    /// Whether a span is at least as long as another one.
    #[inline(always)]
    pub const fn at_least(self, other: Self) -> bool {
        self.0 >= other.0
    }
}
