//! Types that any bytes make a valid value of: what may be loaded from a packet, and what may stand in a map.
#![expect(
    unsafe_code,
    reason = "the markers below are promises about memory; this file is where they are made"
)]

/// A type that may be loaded from and stored into a packet as it stands in memory.
///
/// # Safety
/// Every sequence of `size_of::<Self>()` bytes must be a valid value, and the type must have no padding.
pub unsafe trait Plain: Copy {}

// SAFETY: integers without padding; every bit pattern is a value.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: transparent over an integer.
unsafe impl Plain for crate::Be16 {}
// SAFETY: transparent over an integer.
unsafe impl Plain for crate::Be32 {}
// SAFETY: transparent over an array of integers.
unsafe impl Plain for crate::Be128 {}
// SAFETY: an array of a plain type has no padding between its elements.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

#[cfg(feature = "agent")]
mod agent {
    //! `aya::Pod` for what stands in maps: all `repr(C)`, fixed-size integers only, padding explicit and zero.
    use crate::{Be32, Be128, abi, cell, event, flow, ports};

    macro_rules! pod {
        ($($name:ty),* $(,)?) => {$(
            // SAFETY: `repr(C)` over integers with explicit padding; sizes are asserted where they are declared.
            unsafe impl aya::Pod for $name {}
        )*};
    }
    macro_rules! pod_of_both_families {
        ($($($name:ident)::+),* $(,)?) => {
            pod!($($($name)::+<Be32>, $($name)::+<Be128>),*);
        };
    }
    pod!(
        Be32,
        Be128,
        abi::Service,
        abi::Ranges,
        abi::Account,
        abi::Traffic,
        abi::Interface,
        abi::Endpoint,
        abi::ProgramConfig,
        abi::Stations,
        abi::Layout,
        event::Event,
        event::Captured,
        event::Traced,
        ports::PortRanges,
    );
    pod_of_both_families!(
        abi::ServiceKey,
        abi::RangesKey,
        abi::Backend,
        abi::EndpointKey,
        abi::FragmentKey,
        abi::Fragment,
        abi::BucketKey,
        cell::PortCell,
        flow::Bucket,
    );
}
