//! The source ports that `snat` may use, and their places in an endpoint's block of cells.

/// Two ranges of ports that are not the host's own: by default what lies below and above its
/// `ip_local_port_range`. Cells of a block are numbered through the low range, then the high one.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortRanges {
    /// First port of the low range.
    pub low_first: u16,
    /// Ports in the low range.
    pub low_count: u16,
    /// First port of the high range.
    pub high_first: u16,
    /// Ports in the high range.
    pub high_count: u16,
}

impl PortRanges {
    /// Ports in both ranges: the cells of one block.
    #[inline(always)]
    pub const fn count(&self) -> u32 {
        self.low_count as u32 + self.high_count as u32
    }

    /// New connections a second that one block bears for good, when the server closes each of them first.
    pub const fn sustainable(&self) -> u32 {
        (self.count() as u64 * 1_000 / crate::TIME_WAIT.as_millis()) as u32
    }

    /// The place of `port` (host order) in a block, if it is in one of the ranges.
    #[inline(always)]
    pub const fn index(&self, port: u16) -> Option<u32> {
        let low = port.wrapping_sub(self.low_first);
        if low < self.low_count {
            return Some(low as u32);
        }
        let high = port.wrapping_sub(self.high_first);
        if high < self.high_count { Some(self.low_count as u32 + high as u32) } else { None }
    }

    /// The port (host order) at a place below [`count`](Self::count).
    #[inline(always)]
    pub const fn port(&self, index: u32) -> u16 {
        if index < self.low_count as u32 {
            self.low_first.wrapping_add(index as u16)
        } else {
            self.high_first.wrapping_add((index as u16).wrapping_sub(self.low_count))
        }
    }

    /// What is left of `first..=last` without `taken` (`first..=last`, inclusive), all in host order.
    pub const fn around(first: u16, last: u16, taken: (u16, u16)) -> Self {
        let low_end = if taken.0 > last { last as u32 + 1 } else { taken.0 as u32 };
        let high_start = if taken.1 < first { first as u32 } else { taken.1 as u32 + 1 };
        let low = low_end.saturating_sub(first as u32);
        let high = if taken.0 > last { 0 } else { (last as u32 + 1).saturating_sub(high_start) };
        Self {
            low_first: first,
            low_count: low as u16,
            high_first: if high == 0 { 0 } else { high_start as u16 },
            high_count: high as u16,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn index_and_port_are_inverse_over_the_whole_number_space() {
        for ranges in [
            PortRanges::around(1024, 65535, (32768, 60999)),
            PortRanges::around(1024, 65535, (1024, 40000)),
            PortRanges::around(1024, 65535, (40000, 65535)),
            PortRanges::around(2000, 3000, (32768, 60999)),
        ] {
            let mut found = 0;
            for port in 0..=u16::MAX {
                if let Some(index) = ranges.index(port) {
                    assert!(index < ranges.count());
                    assert_eq!(ranges.port(index), port, "{ranges:?}");
                    found += 1;
                }
            }
            assert_eq!(found, ranges.count(), "{ranges:?}");
        }
    }

    #[test]
    fn linux_defaults_leave_36_280_ports() {
        let ranges = PortRanges::around(1024, 65535, (32768, 60999));
        assert_eq!(
            ranges,
            PortRanges { low_first: 1024, low_count: 31744, high_first: 61000, high_count: 4536 }
        );
        assert_eq!(ranges.count(), 36_280);
    }
}
