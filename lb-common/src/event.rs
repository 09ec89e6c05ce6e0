//! What the kernel tells the agent by itself: few, bounded, each worth acting on.

use crate::{Be16, Be32, Be128};

/// What happened ([`Event::kind`]).
pub mod kind {
    /// A backend answered a SYN with a RST.
    pub const REFUSED: u8 = 1;
    /// A client sent its SYN again, a second after the first: the backend has not answered.
    pub const UNANSWERED: u8 = 2;
    /// A backend answered a SYN; `value` is the time it took, in microseconds.
    pub const ANSWERED: u8 = 3;
    /// A table had no room for a connection; `value` is the [`Reason`](crate::Reason)'s number.
    pub const PRESSURE: u8 = 4;
    /// A side of a cut connection spoke and was answered with a RST; `sequence` and `acknowledgement` are its own.
    pub const CUT: u8 = 5;
    /// Kinds, and 0 that is none.
    pub const COUNT: u32 = 8;
}

/// One event, as it stands in the ring buffer. Written by the kernel.
///
/// All kinds but [`kind::CUT`] are sampled: at most one of a kind per backend and tick of the clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// The client's address; an IPv4 one in the first word.
    pub client: [u32; 4],
    /// Sequence number, host order.
    pub sequence: u32,
    /// Acknowledgement number, host order.
    pub acknowledgement: u32,
    /// See [`kind`].
    pub value: u32,
    /// Id of the (service, backend) pair; 0: none.
    pub backend: u16,
    /// The service's id.
    pub service: u16,
    /// The client's port.
    pub client_port: Be16,
    /// The port that the client connected to.
    pub service_port: Be16,
    /// One of [`kind`].
    pub kind: u8,
    /// 4 or 6.
    pub version: u8,
    /// [`kind::CUT`]: 0, the client spoke; 1, the server.
    pub side: u8,
    /// Zero.
    pub pad: u8,
}

/// Bytes of a captured packet that are kept.
pub const SNAP: usize = 192;

/// One packet as the program saw it, before or after its work. Written by the kernel, with [`SNAP`] bytes behind it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Captured {
    /// When, by `CLOCK_MONOTONIC`, in nanoseconds. Equal for the two looks at one packet.
    pub moment: u64,
    /// Bytes of the packet.
    pub length: u32,
    /// The CPU.
    pub cpu: u32,
    /// Id of the (service, backend) pair; 0: none.
    pub backend: u16,
    /// The service's id; 0: none.
    pub service: u16,
    /// Id of the interface that it came in by.
    pub interface: u16,
    /// Id of the interface that it leaves by; 0: none.
    pub leaving: u16,
    /// One of [`seen`].
    pub look: u8,
    /// One of [`outcome`].
    pub outcome: u8,
    /// The [`Reason`](crate::Reason)'s number, where there is one; [`NO_REASON`] else.
    pub reason: u8,
    /// Zero.
    pub pad: u8,
    /// Bytes kept in `bytes`.
    pub kept: u32,
    /// The packet's first bytes, from the Ethernet header on.
    pub bytes: [u8; SNAP],
}

/// [`Captured::reason`] where there is none.
pub const NO_REASON: u8 = u8::MAX;

/// Which look at a packet ([`Captured::look`]).
pub mod seen {
    /// As it came in; nothing is known of it yet.
    pub const IN: u8 = 0;
    /// After the program's work.
    pub const OUT: u8 = 1;
}

/// What became of a packet ([`Captured::outcome`], [`Traced::outcome`]).
pub mod outcome {
    /// To the host.
    pub const PASS: u8 = 0;
    /// Nowhere.
    pub const DROP: u8 = 1;
    /// Turned into an answer to its sender.
    pub const ANSWER: u8 = 2;
    /// On its way.
    pub const FORWARD: u8 = 3;
}

/// What a trace has found. Written by a program loaded for [`purpose::TRACE`](crate::abi::purpose::TRACE).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traced {
    /// Id of the (service, backend) pair; 0: none.
    pub backend: u16,
    /// The service's id; 0: none.
    pub service: u16,
    /// Id of the interface that it leaves by; 0: none.
    pub leaving: u16,
    /// One of [`outcome`].
    pub outcome: u8,
    /// The [`Reason`](crate::Reason)'s number, where there is one; [`NO_REASON`] else.
    pub reason: u8,
}

const _: () = {
    assert!(size_of::<Event>() == 40 && size_of::<Captured>() == 32 + SNAP && size_of::<Traced>() == 8);
    assert!(size_of::<Be32>() == 4 && size_of::<Be128>() == 16);
};
