//! Network byte order as a type: a value in a packet or a map cannot be mistaken for a number.

/// A 16-bit value in network byte order, as a port or a checksum stands in a packet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Be16(u16);

/// A 32-bit value in network byte order, as an IPv4 address or a sequence number stands in a packet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Be32(u32);

impl Be16 {
    /// From a number in host order.
    #[inline(always)]
    pub const fn from_host(value: u16) -> Self {
        Self(value.to_be())
    }

    /// The number in host order.
    #[inline(always)]
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }

    /// From the two bytes as they stand in memory.
    #[inline(always)]
    pub const fn from_wire(raw: u16) -> Self {
        Self(raw)
    }

    /// The two bytes as they stand in memory, read as one word: for checksums, hashes and packing only.
    #[inline(always)]
    pub const fn wire(self) -> u16 {
        self.0
    }
}

impl Be32 {
    /// From a number in host order.
    #[inline(always)]
    pub const fn from_host(value: u32) -> Self {
        Self(value.to_be())
    }

    /// The number in host order.
    #[inline(always)]
    pub const fn host(self) -> u32 {
        u32::from_be(self.0)
    }

    /// From the four bytes in the order in which they stand in memory.
    #[inline(always)]
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        Self(u32::from_ne_bytes(bytes))
    }

    /// The four bytes in the order in which they stand in memory.
    #[inline(always)]
    pub const fn bytes(self) -> [u8; 4] {
        self.0.to_ne_bytes()
    }

    /// From the four bytes as one word.
    #[inline(always)]
    pub const fn from_wire(raw: u32) -> Self {
        Self(raw)
    }

    /// The four bytes as one word: for checksums, hashes and packing only.
    #[inline(always)]
    pub const fn wire(self) -> u32 {
        self.0
    }
}

impl From<core::net::Ipv4Addr> for Be32 {
    fn from(address: core::net::Ipv4Addr) -> Self {
        Self::from_bytes(address.octets())
    }
}

impl From<Be32> for core::net::Ipv4Addr {
    fn from(address: Be32) -> Self {
        Self::from(address.bytes())
    }
}

/// An IPv6 address as it stands in a packet.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Be128([u32; 4]);

impl Be128 {
    /// From the words as they stand in memory.
    #[inline(always)]
    pub const fn from_wire(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// The words as they stand in memory: for checksums, hashes and packing only.
    #[inline(always)]
    pub const fn wire(self) -> [u32; 4] {
        self.0
    }
}

impl From<core::net::Ipv6Addr> for Be128 {
    fn from(address: core::net::Ipv6Addr) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = address.octets();
        let word = u32::from_ne_bytes;
        Self([word([a, b, c, d]), word([e, f, g, h]), word([i, j, k, l]), word([m, n, o, p])])
    }
}

impl From<Be128> for core::net::Ipv6Addr {
    fn from(address: Be128) -> Self {
        let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = address.0.map(u32::to_ne_bytes);
        Self::from([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }
}
