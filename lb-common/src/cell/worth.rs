//! What a port cell or a slot of the flow table is worth to a newcomer.

use super::{Owner, Phase};
use crate::Ticks;

/// What a cell is worth to a newcomer: the greatest is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worth(u32);

impl Worth {
    /// Held by a living connection, or changing hands.
    pub const NONE: Self = Self(0);
    /// Never used: nothing is better.
    pub const FREE: Self = Self(u32::MAX);

    const EMBRYO: u32 = 1;
    const EARLY: u32 = 1 << 29;
    const RESTED: u32 = 1 << 30;
    const SPAN: u32 = (1 << 28) - 1;

    /// Never used, then longest closed, then closed by a server whose TIME_WAIT lasts, then an embryo past its grace.
    #[inline(always)]
    pub const fn of(owner: Owner, age: Ticks) -> Self {
        let span = if age.raw() > Self::SPAN { Self::SPAN } else { age.raw() };
        match owner.phase() {
            Phase::Free => Self::FREE,
            Phase::Closed | Phase::Resting if owner.server_waits() && !age.at_least(crate::TIME_WAIT) => {
                Self(Self::EARLY + span)
            }
            Phase::Closed | Phase::Resting => Self(Self::RESTED + span),
            Phase::Embryonic | Phase::Answered if age.at_least(crate::EMBRYO_GRACE) => {
                Self(Self::EMBRYO + span)
            }
            Phase::Linked if !owner.is_proven_link() && age.at_least(crate::EMBRYO_GRACE) => {
                Self(Self::EMBRYO + span)
            }
            _ => Self::NONE,
        }
    }

    /// The number behind it, for a function that returns numbers.
    #[inline(always)]
    pub const fn raw(self) -> u32 {
        self.0
    }

    /// From such a number.
    #[inline(always)]
    pub const fn from_raw(raw: u32) -> Self {
        Self(raw)
    }

    /// Whether taking it may meet a TIME_WAIT at the server.
    #[inline(always)]
    pub const fn is_early(self) -> bool {
        self.0 >= Self::EARLY && self.0 < Self::RESTED
    }
}
