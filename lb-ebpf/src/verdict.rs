//! What becomes of a packet: decided once inside, translated and counted once at the edge.

use lb_common::{Reason, flow, program::Stage};

/// Which way a forwarded packet goes, for the counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the client to the backend.
    In,
    /// From the backend to the client.
    Out,
}

/// What an ICMP error complains of: the index into `Family::COMPLAINTS`.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The hops have run out.
    TimeExceeded = 0,
    /// Nobody serves that port.
    PortUnreachable = 1,
    /// It does not fit.
    TooBig = 2,
}

/// An ICMP error that is due to a packet's sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What is wrong.
    pub trouble: Trouble,
    /// The largest IP packet that would fit.
    pub mtu: u16,
}

impl Complaint {
    /// None: a RST says it all.
    pub const NONE: Self = Self::PORT_UNREACHABLE;
    /// The hops have run out.
    pub const TIME_EXCEEDED: Self = Self { trouble: Trouble::TimeExceeded, mtu: 0 };
    /// Nobody serves that port.
    pub const PORT_UNREACHABLE: Self = Self { trouble: Trouble::PortUnreachable, mtu: 0 };

    /// Nothing longer than `mtu` fits.
    #[inline(always)]
    pub const fn too_big(mtu: u16) -> Self {
        Self { trouble: Trouble::TooBig, mtu }
    }
}

/// What one stage tells the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The service's id.
    pub service: u16,
    /// The (service, backend) pair that was chosen.
    pub backend: u16,
    /// Why the packet is refused.
    pub reason: Reason,
    /// What its sender is told.
    pub complaint: Complaint,
    /// The way of its flow.
    pub way: flow::Way,
}

impl Parcel {
    /// The packet is refused.
    #[inline(always)]
    pub const fn refusal(service: u16, reason: Reason, complaint: Complaint) -> Self {
        Self { service, backend: 0, reason, complaint, way: flow::Way(0) }
    }

    /// The packet has a backend.
    #[inline(always)]
    pub const fn sending(service: u16, backend: u16, way: flow::Way) -> Self {
        Self { service, backend, reason: Reason::BackendGone, complaint: Complaint::NONE, way }
    }
}

/// The end of a packet's way through the data path, or of its way through one stage.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours: to the host, untouched and uncounted.
    Pass,
    /// Not for us to handle, but worth a count (service, reason): to the host, untouched.
    Note(u16, Reason),
    /// Dropped (service, reason).
    Drop(u16, Reason),
    /// Turned into an answer to its sender (service, reason): out by the interface that it came in by.
    Answer(u16, Reason),
    /// Rewritten.
    Forward {
        /// The (service, backend) pair.
        backend: u16,
        /// Id of the interface to leave by.
        interface: u16,
        /// Bytes of IP as they came.
        bytes: u32,
        /// Which way.
        way: Way,
    },
    /// For another stage to decide.
    Continue(Stage),
    /// For another stage to complete: the packet is untouched so far.
    HandOver(Stage, Parcel),
}
