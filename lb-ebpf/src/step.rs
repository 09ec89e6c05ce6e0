//! What is to be done with a packet of ours that is not rewritten at once: another stage does it, with a stack of its own.

use lb_common::{Reason, flow::Way};

use crate::{
    Complaint, Parcel, Verdict,
    family::Family,
    tables::{World, hand_over},
};

/// What is to be done ([`Step::to`]).
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// It begins a connection, or nothing is known of it.
    Connect,
    /// It needs a source port towards a backend, whose accounts are open.
    Claim,
    /// Its connection is to be recorded; the accounts of its backend are open.
    Record,
    /// It goes to a backend, by the way of its flow.
    Send,
    /// It goes back to its client.
    Back,
    /// Its sender gets a RST.
    Reset,
    /// Its sender gets an ICMP error.
    Explain,
    /// It is dropped.
    Drop,
    /// It is the host's.
    Host,
}

/// The next step of a packet's way. A plain struct, for the reason that [`Verdict`] gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What is to be done.
    pub to: To,
    /// What that needs to know.
    pub parcel: Parcel,
}

impl Step {
    const fn of(to: To, service: u16, backend: u16) -> Self {
        Self { to, parcel: Parcel::sending(service, backend, Way(0)) }
    }

    /// It begins a connection, or nothing is known of it.
    pub const CONNECT: Self = Self::of(To::Connect, 0, 0);

    /// It needs a source port towards a (service, backend) pair.
    #[inline(always)]
    pub const fn claim(service: u16, backend: u16) -> Self {
        Self::of(To::Claim, service, backend)
    }

    /// Its connection is to be recorded. `otherwise`: the pair that the packet goes to if it cannot be; 0: whichever
    /// the ring names. `begins`: the connection begins with it; else it was met midway.
    #[inline(always)]
    pub const fn record(service: u16, backend: u16, otherwise: u16, begins: bool) -> Self {
        let step = Self::of(To::Record, service, backend);
        Self { parcel: Parcel { otherwise, begins, ..step.parcel }, ..step }
    }

    /// It goes to a (service, backend) pair, by the way of its flow.
    #[inline(always)]
    pub const fn send(service: u16, backend: u16, way: Way) -> Self {
        Self { to: To::Send, parcel: Parcel::sending(service, backend, way) }
    }

    /// It goes back to its client.
    #[inline(always)]
    pub const fn back(service: u16) -> Self {
        Self::of(To::Back, service, 0)
    }

    /// Its sender gets a RST.
    #[inline(always)]
    pub const fn reset(service: u16, reason: Reason) -> Self {
        Self { to: To::Reset, parcel: Parcel::refusal(service, reason, Complaint::NONE) }
    }

    /// Its sender gets an ICMP error.
    #[inline(always)]
    pub const fn explain(service: u16, reason: Reason, complaint: Complaint) -> Self {
        Self { to: To::Explain, parcel: Parcel::refusal(service, reason, complaint) }
    }

    /// It is dropped.
    #[inline(always)]
    pub const fn drop(service: u16, reason: Reason) -> Self {
        Self { to: To::Drop, parcel: Parcel::refusal(service, reason, Complaint::NONE) }
    }

    /// It is the host's.
    #[inline(always)]
    pub const fn host(service: u16, reason: Reason) -> Self {
        Self { to: To::Host, parcel: Parcel::refusal(service, reason, Complaint::NONE) }
    }

    /// Have the stage that this step names do it.
    #[inline(always)]
    pub fn take<A: Family, T: World>(self, tables: &T) -> Verdict {
        let stages = A::STAGES;
        let stage = match self.to {
            To::Connect => stages.connect,
            To::Claim => stages.claim,
            To::Record => stages.record,
            To::Send => stages.send,
            To::Back => stages.back,
            To::Reset => stages.refuse,
            To::Explain => stages.explain,
            To::Drop => return Verdict::drop(self.parcel.service, self.parcel.reason),
            To::Host => return Verdict::note(self.parcel.service, self.parcel.reason),
        };
        hand_over(tables, stage, self.parcel)
    }
}
