//! Port cells: who holds a source port towards an endpoint, and how far that connection has come.
//!
//! A cell's first word, [`Owner`], packs the client's address and port, a generation and the connection's phase. Every
//! change of hands and every change of phase is one compare-and-swap of that word, by whichever CPU of the kernel or
//! by the agent, which maps the array into its memory. Hence the rules that hold the accounts together:
//!
//! * who wins the swap into a live phase opens the backend's account, who wins the swap out of one closes it;
//! * a flow entry that points at a cell exists only while the cell is its client's, live or closed. Who takes such a
//!   cell away first makes it [`Phase::Busy`], then removes the entry, then writes the cell's body, then the new owner;
//! * the body of a cell is valid in every phase but `Free` and `Busy`, and written only while `Busy`.

mod port;
mod worth;

use crate::{Address, Be16};

pub use port::PortCell;
pub use worth::{Rights, Worth};

/// How far the connection that holds a port has come.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Never used.
    Free = 0,
    /// The client's SYN was forwarded.
    Embryonic = 1,
    /// The server's SYN-ACK was seen; its sequence number stands in the body.
    Answered = 2,
    /// The client acknowledged it.
    Established = 3,
    /// Both have sent a FIN, or one a RST. Late packets still find their way.
    Closed = 4,
    /// No connection; remembers when the last one ended.
    Resting = 5,
    /// Changing hands.
    Busy = 6,
    /// A flow whose port cell knows how far it has come ([`flow`](crate::flow)); never the phase of a cell.
    Linked = 7,
}

/// The first word of a cell.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner(pub u64);

const PHASE: u64 = 0x07;
const CLIENT_FIN: u64 = 0x08;
const SERVER_FIN: u64 = 0x10;
const SERVER_FIRST: u64 = 0x20;
/// Of a conversation in UDP, where nobody sends a FIN: that bit alone.
const DATAGRAMS: u64 = SERVER_FIRST;
const RESET_BY_CLIENT: u64 = 0x40;
const RESET_BY_SERVER: u64 = 0x80;
const CUT: u64 = 0x8000;
const STATE: u64 = 0x80ff;
/// Of a linked flow: the client has acknowledged the server's sequence number.
const PROVEN: u64 = 0x08;
/// Of a linked flow: the client has sent a FIN or a RST.
const CLOSING: u64 = 0x10;
const GENERATION: u64 = 0x7f00;

/// Who sent a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The server.
    Server,
}

/// What a segment tells about its connection.
#[expect(clippy::struct_excessive_bools, reason = "they are the bits of one header")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Signs {
    /// SYN and ACK.
    pub syn_ack: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
    /// It carries data.
    pub data: bool,
    /// It acknowledges the server's SYN (a client's only).
    pub proves: bool,
    /// It is a datagram: any answer proves the way.
    pub datagram: bool,
}

impl Signs {
    /// As bits of one number, for a function of numbers.
    #[inline(always)]
    pub const fn bits(self) -> u32 {
        self.syn_ack as u32
            | (self.fin as u32) << 1
            | (self.rst as u32) << 2
            | (self.data as u32) << 3
            | (self.proves as u32) << 4
            | (self.datagram as u32) << 5
    }

    /// From those bits.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self {
            syn_ack: bits & 1 != 0,
            fin: bits & 2 != 0,
            rst: bits & 4 != 0,
            data: bits & 8 != 0,
            proves: bits & 16 != 0,
            datagram: bits & 32 != 0,
        }
    }
}

impl Owner {
    /// A client's hold on a port, in the given phase, one generation after `before`.
    #[inline(always)]
    pub fn next<A: Address>(before: Self, client: A, port: Be16, phase: Phase) -> Self {
        Self::next_of(before, client.tag(), port, phase)
    }

    /// The same by the tag of the client's address.
    #[inline(always)]
    pub const fn next_of(before: Self, tag: u32, port: Be16, phase: Phase) -> Self {
        let generation = before.0.wrapping_add(0x100) & GENERATION;
        Self((tag as u64) << 32 | (port.wire() as u64) << 16 | generation | phase as u64)
    }

    /// The phase.
    #[inline(always)]
    pub const fn phase(self) -> Phase {
        match self.0 & PHASE {
            0 => Phase::Free,
            1 => Phase::Embryonic,
            2 => Phase::Answered,
            3 => Phase::Established,
            4 => Phase::Closed,
            5 => Phase::Resting,
            6 => Phase::Busy,
            _ => Phase::Linked,
        }
    }

    /// The same hold in another phase.
    #[inline(always)]
    pub const fn with_phase(self, phase: Phase) -> Self {
        Self(self.0 & !PHASE | phase as u64)
    }

    /// The same hold, of a conversation in UDP or of a connection.
    #[inline(always)]
    pub const fn of_datagrams(self, yes: bool) -> Self {
        Self(if yes { self.0 | DATAGRAMS } else { self.0 })
    }

    /// Whether it is a conversation in UDP.
    #[inline(always)]
    pub const fn is_of_datagrams(self) -> bool {
        self.0 & (SERVER_FIN | SERVER_FIRST) == DATAGRAMS
    }

    /// The tag of the client's address ([`Address::tag`]).
    #[inline(always)]
    pub const fn tag(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The client's port.
    #[inline(always)]
    pub const fn client_port(self) -> Be16 {
        Be16::from_wire((self.0 >> 16) as u16)
    }

    /// Whether this is the hold of a client with that tag and port; its address must be compared in the body too.
    #[inline(always)]
    pub const fn has(self, tag: u32, port: Be16) -> bool {
        self.0 >> 16 == (tag as u64) << 16 | port.wire() as u64
    }

    /// Whether two words are the same client's hold of the same generation, whatever their phases.
    #[inline(always)]
    pub const fn is_same_hold(self, other: Self) -> bool {
        self.0 & !STATE == other.0 & !STATE
    }

    /// Whether a connection stands here, alive or closed.
    #[inline(always)]
    pub const fn is_held(self) -> bool {
        !matches!(self.phase(), Phase::Free | Phase::Resting | Phase::Busy)
    }

    /// A linked flow whose handshake is proven, so that its port cell need not be looked at.
    #[inline(always)]
    pub const fn is_proven_link(self) -> bool {
        self.0 & (PHASE | PROVEN | CUT) == Phase::Linked as u64 | PROVEN
    }

    /// A linked flow that a client's packet may follow without a look at its port cell: proven, and no FIN or RST since.
    /// After one, data must restore the connection in its cell.
    #[inline(always)]
    pub const fn is_steady_link(self) -> bool {
        self.0 & (PHASE | PROVEN | CLOSING | CUT) == Phase::Linked as u64 | PROVEN
    }

    /// Whether the connection is cut: each packet of it is answered with a RST.
    #[inline(always)]
    pub const fn is_cut(self) -> bool {
        self.0 & CUT != 0
    }

    /// The same hold, cut. A connection is closed by it; a linked flow stays linked.
    #[inline(always)]
    pub const fn cut(self) -> Self {
        let state = if matches!(self.phase(), Phase::Linked) {
            self.0
        } else {
            self.0 & !PHASE | Phase::Closed as u64
        };
        Self(state | CUT)
    }

    /// A linked flow's word with what the client's segment has shown.
    #[inline(always)]
    pub const fn link_with(self, proven: bool, closing: bool) -> Self {
        Self(self.0 | if proven { PROVEN } else { 0 } | if closing { CLOSING } else { 0 })
    }

    /// Whether the connection counts as live.
    #[inline(always)]
    pub const fn is_live(self) -> bool {
        matches!(self.phase(), Phase::Embryonic | Phase::Answered | Phase::Established)
    }

    /// Whether the handshake has not ended.
    #[inline(always)]
    pub const fn is_embryonic(self) -> bool {
        matches!(self.phase(), Phase::Embryonic | Phase::Answered)
    }

    /// Whether one side has said that it will close: the shorter time-out applies.
    #[inline(always)]
    pub const fn is_closing(self) -> bool {
        self.0 & (CLIENT_FIN | SERVER_FIN) != 0
    }

    /// Whether the server keeps the tuple in TIME_WAIT: it closed first, or both did at once.
    #[inline(always)]
    pub const fn server_waits(self) -> bool {
        self.0 & (SERVER_FIN | SERVER_FIRST) == SERVER_FIN | SERVER_FIRST
    }

    /// The owner word after a segment from `side`. Equal to `self` in the common case.
    ///
    /// A RST ends the connection, for nobody checks its window here; data after a client's RST, which anyone could
    /// have forged, restores it if it was established. A handshake that is reset stays so: data proves nothing of it.
    /// Once both sides have sent a FIN it stays closed. A server that then acknowledges has had the client's FIN after it
    /// sent its own, which crossed it: as if it had closed first, it keeps the tuple in TIME_WAIT (RFC 9293, 3.6, case 3).
    #[inline(always)]
    pub const fn after(self, side: Side, signs: Signs) -> Self {
        let phase = self.phase();
        let mut state = self.0 & STATE;
        if self.is_live() {
            if signs.rst {
                let by = match side {
                    _ if !matches!(phase, Phase::Established) => 0,
                    Side::Server => RESET_BY_SERVER,
                    Side::Client => RESET_BY_CLIENT,
                };
                state = state & !PHASE | Phase::Closed as u64 | by;
            } else if signs.fin {
                state |= match side {
                    Side::Client => CLIENT_FIN,
                    Side::Server if state & CLIENT_FIN == 0 => SERVER_FIN | SERVER_FIRST,
                    Side::Server => SERVER_FIN,
                };
                if state & (CLIENT_FIN | SERVER_FIN) == CLIENT_FIN | SERVER_FIN {
                    state = state & !PHASE | Phase::Closed as u64;
                }
            } else if matches!(phase, Phase::Embryonic) && signs.datagram && matches!(side, Side::Server) {
                state = state & !PHASE | Phase::Established as u64;
            } else if matches!(phase, Phase::Embryonic) && signs.syn_ack && matches!(side, Side::Server) {
                state = state & !PHASE | Phase::Answered as u64;
            } else if matches!(phase, Phase::Answered)
                && (signs.proves || matches!(side, Side::Server) && signs.data && !signs.syn_ack)
            {
                // A server sends data only where the client has acknowledged its SYN-ACK. A mere ACK of it proves nothing:
                // Linux answers a segment out of the window so while it waits (tcp_check_req, net/ipv4/tcp_minisocks.c).
                state = state & !PHASE | Phase::Established as u64;
            }
        } else if matches!(phase, Phase::Closed)
            && signs.data
            && !signs.rst
            && (state & (RESET_BY_CLIENT | CUT) == RESET_BY_CLIENT
                || matches!(side, Side::Server) && state & (RESET_BY_SERVER | CUT) == RESET_BY_SERVER)
        {
            state = state & !(PHASE | RESET_BY_CLIENT | RESET_BY_SERVER) | Phase::Established as u64;
        } else if matches!(phase, Phase::Closed)
            && matches!(side, Side::Server)
            && !(signs.fin || signs.rst || signs.syn_ack)
            && state & (CLIENT_FIN | SERVER_FIN) == CLIENT_FIN | SERVER_FIN
        {
            state |= SERVER_FIRST;
        }
        Self(self.0 & !STATE | state)
    }

    /// The owner word after a segment from the client, where the server's are not seen. `again`: this is no SYN;
    /// `later`: the flow began at least [`EMBRYO_GRACE`](crate::EMBRYO_GRACE) ago.
    ///
    /// Anybody can send a SYN and an ACK that nobody has asked for; who speaks again after a second stays. A FIN or a
    /// RST, which anybody could have forged too, closes; data restores what had stayed.
    #[inline(always)]
    pub const fn after_alone(self, signs: Signs, again: bool, later: bool) -> Self {
        let mut state = self.0 & STATE;
        let phase = self.phase();
        if self.is_live() && (signs.rst || signs.fin) {
            let by = match phase {
                Phase::Established if signs.rst => RESET_BY_CLIENT,
                Phase::Established => CLIENT_FIN,
                _ => 0,
            };
            state = state & !PHASE | Phase::Closed as u64 | by;
        } else if matches!(phase, Phase::Embryonic | Phase::Answered) && again {
            let next = if later { Phase::Established } else { Phase::Answered };
            state = state & !PHASE | next as u64;
        } else if matches!(phase, Phase::Closed)
            && !self.is_cut()
            && self.0 & (RESET_BY_CLIENT | CLIENT_FIN) != 0
            && signs.data
            && !signs.rst
            && !signs.fin
        {
            state = state & !(PHASE | RESET_BY_CLIENT | CLIENT_FIN) | Phase::Established as u64;
        }
        Self(self.0 & !STATE | state)
    }

    /// The same hold, cut, with the mark that one side has been answered with a RST.
    #[inline(always)]
    pub const fn told(self, side: Side) -> Self {
        let by = match side {
            Side::Client => RESET_BY_SERVER,
            Side::Server => RESET_BY_CLIENT,
        };
        Self(self.cut().0 | by)
    }

    /// Whether a side of a cut connection has been answered with a RST, or has sent one.
    #[inline(always)]
    pub const fn knows(self, side: Side) -> bool {
        let by = match side {
            Side::Client => RESET_BY_SERVER,
            Side::Server => RESET_BY_CLIENT,
        };
        self.0 & by != 0
    }
}

#[cfg(test)]
mod tests;
