//! Why a packet was not simply forwarded: one enum is the counter's index, the metric's label and the documentation.

/// A named outcome, counted by service (id 0 where no service is known).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Shorter than its headers say, or headers that contradict each other; passed to the host.
    Malformed = 0,
    /// A later part of a fragmented packet to a balanced address, whose first part was not seen; passed to the host.
    FragmentUnmatched,
    /// TTL 1 or 0 on a packet that would be routed; answered with ICMP "time exceeded".
    TtlExceeded,
    /// TCP without a flow, no SYN; answered with a RST.
    NoFlow,
    /// A RST without a flow; dropped, for a RST is never answered (RFC 9293, 3.10.7.1).
    RstWithoutFlow,
    /// A flow whose backend is gone; answered with a RST.
    BackendGone,
    /// A new connection while no backend can serve; answered with a RST, or ICMP "port unreachable".
    NoBackendReset,
    /// A SYN while no backend can serve, within `hold`; dropped, for the client will retry.
    NoBackendHold,
    /// A SYN while no backend can serve, by policy; dropped.
    NoBackendDrop,
    /// No free source port among those probed; answered with a RST.
    PortsExhausted,
    /// The flow table is full; answered with a RST.
    FlowTableFull,
    /// The backend's next hop has no MAC address yet; dropped.
    NextHopUnresolved,
    /// A backend's answer to a port that is changing hands this very moment; dropped.
    PortBusy,
    /// A backend's answer to a port that no connection has any more; dropped.
    ReplyWithoutFlow,
    /// The packet could not be rewritten in place; dropped.
    RewriteFailed,
    /// A source port given away before its TIME_WAIT at the backend had ended; forwarded.
    PortReusedEarly,
    /// A checksum that its local sender had left to hardware, made whole; forwarded.
    ChecksumCompleted,
    /// A SYN on the tuple of an older connection, judged afresh; forwarded.
    SynOnOldFlow,
    /// A source port taken from a handshake that did not end in its first second; forwarded.
    EmbryoDisplaced,
    /// A backend's RST to a SYN of a service that holds; dropped, for the client's next SYN may find another backend.
    RefusalHeld,
    /// A backend that is a client of its own service, where the mode does not allow it; answered with a RST.
    Hairpin,
    /// Longer than its way to the receiver allows; answered with ICMP "packet too big".
    TooBig,
    /// An ICMP error that was due, but beyond the rate of errors; the packet is dropped.
    ErrorHeldBack,
    /// An ICMP error that found its flow by the packet it quotes; forwarded.
    ErrorTranslated,
    /// An ICMP error to a balanced address whose quoted packet has no flow; passed to the host.
    ErrorUnmatched,
    /// An echo request to an address that answers them; answered.
    EchoAnswered,
    /// A new connection that the flow table had no room for, sent where the ring says; forwarded.
    NotRecorded,
    /// No SYN and no flow, in a mode that keeps the client's address: sent where the ring says; forwarded.
    UnknownByRing,
    /// A new connection while all backends that could serve are at their limits; then as `no-backend` says.
    BackendsFull,
    /// A new connection while its service is at its limit; then as `no-backend` says.
    ServiceFull,
    /// A new connection beyond the rate of its source address; dropped.
    RateLimited,
    /// A packet of a connection that is cut; answered with a RST.
    Cut,
}

impl Reason {
    /// All reasons, in the order of their counters.
    pub const ALL: [Self; 32] = [
        Self::Malformed,
        Self::FragmentUnmatched,
        Self::TtlExceeded,
        Self::NoFlow,
        Self::RstWithoutFlow,
        Self::BackendGone,
        Self::NoBackendReset,
        Self::NoBackendHold,
        Self::NoBackendDrop,
        Self::PortsExhausted,
        Self::FlowTableFull,
        Self::NextHopUnresolved,
        Self::PortBusy,
        Self::ReplyWithoutFlow,
        Self::RewriteFailed,
        Self::PortReusedEarly,
        Self::ChecksumCompleted,
        Self::SynOnOldFlow,
        Self::EmbryoDisplaced,
        Self::RefusalHeld,
        Self::Hairpin,
        Self::TooBig,
        Self::ErrorHeldBack,
        Self::ErrorTranslated,
        Self::ErrorUnmatched,
        Self::EchoAnswered,
        Self::NotRecorded,
        Self::UnknownByRing,
        Self::BackendsFull,
        Self::ServiceFull,
        Self::RateLimited,
        Self::Cut,
    ];

    /// Counters that one service owns; a power of two, so that there is room for more without a new layout.
    pub const SLOTS: u32 = 64;

    /// The reason with that number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Self> {
        if number < Self::ALL.len() as u32 { Some(Self::ALL[number as usize]) } else { None }
    }

    /// The name in `lb status`, metrics and documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::FragmentUnmatched => "fragment-unmatched",
            Self::TtlExceeded => "ttl-exceeded",
            Self::NoFlow => "no-flow",
            Self::RstWithoutFlow => "rst-without-flow",
            Self::BackendGone => "backend-gone",
            Self::NoBackendReset => "no-backend-reset",
            Self::NoBackendHold => "no-backend-hold",
            Self::NoBackendDrop => "no-backend-drop",
            Self::PortsExhausted => "ports-exhausted",
            Self::FlowTableFull => "flow-table-full",
            Self::NextHopUnresolved => "next-hop-unresolved",
            Self::PortBusy => "port-busy",
            Self::ReplyWithoutFlow => "reply-without-flow",
            Self::RewriteFailed => "rewrite-failed",
            Self::PortReusedEarly => "port-reused-early",
            Self::ChecksumCompleted => "checksum-completed",
            Self::SynOnOldFlow => "syn-on-old-flow",
            Self::EmbryoDisplaced => "embryo-displaced",
            Self::RefusalHeld => "refusal-held",
            Self::Hairpin => "hairpin",
            Self::TooBig => "too-big",
            Self::ErrorHeldBack => "error-held-back",
            Self::ErrorTranslated => "error-translated",
            Self::ErrorUnmatched => "error-unmatched",
            Self::EchoAnswered => "echo-answered",
            Self::NotRecorded => "not-recorded",
            Self::UnknownByRing => "unknown-by-ring",
            Self::BackendsFull => "backends-full",
            Self::ServiceFull => "service-full",
            Self::RateLimited => "rate-limited",
            Self::Cut => "cut",
        }
    }

    /// Whether the packet did not go where its sender wanted: dropped, or answered with a RST.
    pub const fn is_refusal(self) -> bool {
        !matches!(
            self,
            Self::Malformed
                | Self::FragmentUnmatched
                | Self::PortReusedEarly
                | Self::ChecksumCompleted
                | Self::SynOnOldFlow
                | Self::EmbryoDisplaced
                | Self::ErrorTranslated
                | Self::ErrorUnmatched
                | Self::EchoAnswered
                | Self::NotRecorded
                | Self::UnknownByRing
        )
    }

    /// The place of this reason's counter for a service in the map of reasons.
    #[inline(always)]
    pub const fn counter(self, service: u16) -> u32 {
        service as u32 * Self::SLOTS + self as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_stands_at_its_own_index_under_its_own_name() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index);
            assert!(Reason::ALL.iter().filter(|other| other.name() == reason.name()).count() == 1);
        }
        assert!(Reason::ALL.len() <= Reason::SLOTS as usize);
    }
}
