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
    /// The pair that it goes to if its flow cannot be recorded; 0: whichever the ring names.
    pub otherwise: u16,
    /// Its connection begins with it; else it was met midway.
    pub begins: bool,
}

impl Parcel {
    /// The packet is refused.
    #[inline(always)]
    pub const fn refusal(service: u16, reason: Reason, complaint: Complaint) -> Self {
        Self { reason, complaint, ..Self::sending(service, 0, flow::Way(0)) }
    }

    /// The packet has a backend.
    #[inline(always)]
    pub const fn sending(service: u16, backend: u16, way: flow::Way) -> Self {
        Self {
            service,
            backend,
            reason: Reason::BackendGone,
            complaint: Complaint::NONE,
            way,
            otherwise: 0,
            begins: true,
        }
    }
}

/// What becomes of a packet ([`Verdict::kind`]).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Not ours: to the host, untouched and uncounted.
    Pass,
    /// Not for us to handle, but worth a count: to the host, untouched.
    Note,
    /// Dropped.
    Drop,
    /// Turned into an answer to its sender: out by the interface that it came in by.
    Answer,
    /// Rewritten.
    Forward,
    /// For another stage to decide or to complete: the packet is untouched so far.
    Continue,
}

/// The end of a packet's way through the data path, or of its way through one stage.
///
/// A plain struct, all of whose fields are always set: the fields of an enum's other variants are undefined to the
/// compiler, which spills such registers to the stack, and the verifier refuses to see a register stored that was never
/// written.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What becomes of it.
    pub kind: Kind,
    /// Why, for what is counted by a reason.
    pub reason: Reason,
    /// The service's id; 0: none.
    pub service: u16,
    /// `Forward`: the (service, backend) pair.
    pub backend: u16,
    /// `Forward`: id of the interface to leave by.
    pub interface: u16,
    /// `Forward`: bytes of IP as they came.
    pub bytes: u32,
    /// `Forward`: which way.
    pub way: Way,
    /// `Continue`: the stage.
    pub stage: Stage,
}

impl Verdict {
    /// Not ours: to the host, untouched and uncounted.
    pub const PASS: Self = Self {
        kind: Kind::Pass,
        reason: Reason::Malformed,
        service: 0,
        backend: 0,
        interface: 0,
        bytes: 0,
        way: Way::In,
        stage: Stage::Ipv6,
    };

    /// To the host, untouched, but counted.
    #[inline(always)]
    pub const fn note(service: u16, reason: Reason) -> Self {
        Self { kind: Kind::Note, service, reason, ..Self::PASS }
    }

    /// Dropped.
    #[inline(always)]
    pub const fn drop(service: u16, reason: Reason) -> Self {
        Self { kind: Kind::Drop, service, reason, ..Self::PASS }
    }

    /// Turned into an answer to its sender.
    #[inline(always)]
    pub const fn answer(service: u16, reason: Reason) -> Self {
        Self { kind: Kind::Answer, service, reason, ..Self::PASS }
    }

    /// Rewritten.
    #[inline(always)]
    pub const fn forward(backend: u16, interface: u16, bytes: u32, way: Way) -> Self {
        Self { kind: Kind::Forward, backend, interface, bytes, way, ..Self::PASS }
    }

    /// For another stage.
    #[inline(always)]
    pub const fn proceed(stage: Stage) -> Self {
        Self { kind: Kind::Continue, stage, ..Self::PASS }
    }
}
