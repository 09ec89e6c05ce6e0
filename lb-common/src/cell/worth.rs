//! What a port cell or a slot of the flow table is worth to a newcomer.

use super::{Owner, Phase};
use crate::Ticks;

/// Who wants a slot of the flow table: what may be displaced depends on it. A number, for functions of numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rights(pub u32);

impl Rights {
    const DATAGRAMS: u32 = 1;
    const PRESSED: u32 = 2;

    /// Those of a connection, or of a conversation in UDP that nobody has confirmed yet.
    #[inline(always)]
    pub const fn of(datagrams: bool) -> Self {
        Self(if datagrams { Self::DATAGRAMS } else { 0 })
    }

    /// Where there may be no other room: embryos of its own kind yield in their first second too.
    #[inline(always)]
    pub const fn pressed(self, yes: bool) -> Self {
        Self(if yes { self.0 | Self::PRESSED } else { self.0 })
    }

    /// Whether it is a conversation in UDP.
    #[inline(always)]
    pub const fn is_of_datagrams(self) -> bool {
        self.0 & Self::DATAGRAMS != 0
    }

    const fn is_pressed(self) -> bool {
        self.0 & Self::PRESSED != 0
    }
}

/// What a cell or a slot is worth to a newcomer: the greatest is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Worth(u32);

impl Worth {
    /// Held by a living connection, or changing hands.
    pub const NONE: Self = Self(0);
    /// Never used: nothing is better.
    pub const FREE: Self = Self(u32::MAX);

    const CONVERSATION: u32 = 1;
    const EMBRYO: u32 = 1 << 28;
    const EARLY: u32 = 1 << 29;
    const RESTED: u32 = 1 << 30;
    const SPAN: u32 = (1 << 28) - 2;

    /// What a slot of the flow table is worth: as [`of`](Self::of), and then the conversation in UDP that has been silent
    /// for longest. A datagram's answer proves much less than a handshake does, so a connection displaces any such
    /// conversation, and another conversation does where nothing was heard of it for a while
    /// ([`CONVERSATION_GRACE`](crate::CONVERSATION_GRACE)).
    #[inline(always)]
    pub const fn in_table(owner: Owner, age: Ticks, by: Rights) -> Self {
        let span = if age.raw() > Self::SPAN { Self::SPAN } else { age.raw() };
        let (embryo, confirmed) = match owner.phase() {
            Phase::Embryonic | Phase::Answered => (true, false),
            Phase::Established => (false, true),
            Phase::Linked => (!owner.is_proven_link(), owner.is_proven_link()),
            _ => (false, false),
        };
        if confirmed
            && owner.is_of_datagrams()
            && (!by.is_of_datagrams() || age.at_least(crate::CONVERSATION_GRACE))
        {
            Self(Self::CONVERSATION + span)
        } else if embryo && by.is_pressed() && (!by.is_of_datagrams() || owner.is_of_datagrams()) {
            Self(Self::EMBRYO + span)
        } else {
            Self::of(owner, age)
        }
    }

    /// What a port cell is worth: never used, then longest closed, then closed by a server whose TIME_WAIT lasts, then an
    /// embryo past its grace.
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
