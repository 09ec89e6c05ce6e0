//! IP addresses of either family, as the tables and port cells hold them.

use crate::{Be32, Be128, plain::Plain};

/// An IP address of one family. The data path and its tables are generic over it.
pub trait Address: Plain + Eq + Default + core::fmt::Debug + core::hash::Hash {
    /// What [`tag`](Self::tag) does not hold of an address.
    type Rest: Plain + Eq + Default + core::fmt::Debug + core::hash::Hash;

    /// 4 or 6.
    const VERSION: u8;

    /// Length of the IP header without options or extensions.
    const HEADER: usize;

    /// 32 bits for an owner word: the whole of an IPv4 address, a digest of an IPv6 one.
    fn tag(self) -> u32;

    /// The rest.
    fn rest(self) -> Self::Rest;

    /// The address whose tag and rest these are.
    fn whole(tag: u32, rest: Self::Rest) -> Self;

    /// The ones' complement sum of its words (RFC 1071), not folded.
    fn sum(self) -> u32;

    /// All of it as two numbers, for hashes and for functions of numbers.
    fn words(self) -> (u64, u64);

    /// From those two.
    fn from_words(words: (u64, u64)) -> Self;
}

impl Address for Be32 {
    type Rest = [u32; 0];

    const VERSION: u8 = 4;
    const HEADER: usize = 20;

    #[inline(always)]
    fn tag(self) -> u32 {
        self.wire()
    }

    #[inline(always)]
    fn rest(self) -> [u32; 0] {
        []
    }

    #[inline(always)]
    fn whole(tag: u32, _: [u32; 0]) -> Self {
        Self::from_wire(tag)
    }

    #[inline(always)]
    fn sum(self) -> u32 {
        (self.wire() & 0xffff) + (self.wire() >> 16)
    }

    #[inline(always)]
    fn words(self) -> (u64, u64) {
        (self.wire() as u64, 0)
    }

    #[inline(always)]
    fn from_words((low, _): (u64, u64)) -> Self {
        Self::from_wire(low as u32)
    }
}

impl Address for Be128 {
    type Rest = Self;

    const VERSION: u8 = 6;
    const HEADER: usize = 40;

    #[inline(always)]
    fn tag(self) -> u32 {
        let (a, b) = self.words();
        let mixed = (a ^ b.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as u32
    }

    #[inline(always)]
    fn rest(self) -> Self {
        self
    }

    #[inline(always)]
    fn whole(_: u32, rest: Self) -> Self {
        rest
    }

    #[inline(always)]
    fn sum(self) -> u32 {
        let [a, b, c, d] = self.wire();
        (a & 0xffff)
            + (a >> 16)
            + (b & 0xffff)
            + (b >> 16)
            + (c & 0xffff)
            + (c >> 16)
            + (d & 0xffff)
            + (d >> 16)
    }

    #[inline(always)]
    fn words(self) -> (u64, u64) {
        let [a, b, c, d] = self.wire();
        ((b as u64) << 32 | a as u64, (d as u64) << 32 | c as u64)
    }

    #[inline(always)]
    fn from_words((low, high): (u64, u64)) -> Self {
        Self::from_wire([low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32])
    }
}
