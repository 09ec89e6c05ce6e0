//! Why a packet was not simply forwarded: one enum is the counter's index, the metric's label and the documentation.

/// The reasons, in the order of their counters: each with its name in `lb status`, metrics and documents, and its
/// meaning, which documents it here and there.
macro_rules! reasons {
    ($($reason:ident $name:literal $meaning:literal)*) => {
        /// A named outcome, counted by service (id 0 where no service is known).
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $reason,)*
        }

        impl Reason {
            /// All reasons, in the order of their counters.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$reason),*];

            /// The name in `lb status`, metrics and documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$reason => $name,)*
                }
            }

            /// The meaning, in a sentence.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$reason => $meaning,)*
                }
            }
        }
    };
}

reasons! {
    Malformed "malformed"
        "Shorter than its headers say, headers that contradict each other, or UDP over IPv6 without a checksum; \
         passed to the host."
    FragmentUnmatched "fragment-unmatched"
        "A later part of a fragmented packet to a balanced address, whose first part was not seen; passed to \
         the host."
    TtlExceeded "ttl-exceeded"
        "TTL 1 or 0 on a packet that would be routed; answered with ICMP \"time exceeded\"."
    NoFlow "no-flow"
        "TCP without a flow, no SYN; answered with a RST."
    RstWithoutFlow "rst-without-flow"
        "A RST without a flow; dropped, for a RST is never answered (RFC 9293, 3.10.7.1)."
    BackendGone "backend-gone"
        "A flow whose backend is gone; answered with a RST."
    NoBackendReset "no-backend-reset"
        "A new connection while no backend can serve; answered with a RST, or ICMP \"port unreachable\"."
    NoBackendHold "no-backend-hold"
        "A SYN while no backend can serve, within `hold`; dropped, for the client will retry."
    NoBackendDrop "no-backend-drop"
        "A SYN while no backend can serve, by policy; dropped."
    PortsExhausted "ports-exhausted"
        "No free source port among those probed; answered with a RST."
    FlowTableFull "flow-table-full"
        "The flow table is full; answered with a RST."
    NextHopUnresolved "next-hop-unresolved"
        "The backend's next hop has no MAC address yet; dropped."
    PortBusy "port-busy"
        "A packet whose port or flow is changing hands this very moment; dropped."
    ReplyWithoutFlow "reply-without-flow"
        "A backend's answer to a port that no connection has any more; dropped."
    RewriteFailed "rewrite-failed"
        "The packet could not be rewritten in place; dropped."
    PortReusedEarly "port-reused-early"
        "A source port given away before its TIME_WAIT at the backend had ended; forwarded."
    ChecksumCompleted "checksum-completed"
        "A checksum that its local sender had left to hardware, made whole; forwarded."
    SynOnOldFlow "syn-on-old-flow"
        "A SYN on the tuple of an older connection, judged afresh; forwarded."
    EmbryoDisplaced "embryo-displaced"
        "A handshake that had not ended gave its port or its place in the flow table to a new connection; forwarded."
    RefusalHeld "refusal-held"
        "A backend's RST to a SYN of a service that holds; dropped, for the client's next SYN may find \
         another backend."
    Hairpin "hairpin"
        "A backend that is a client of its own service, where the mode does not allow it; answered with a \
         RST."
    TooBig "too-big"
        "Longer than its way to the receiver allows; answered with ICMP \"packet too big\", a later part of an IPv4 packet dropped."
    ErrorHeldBack "error-held-back"
        "An ICMP error that was due, but beyond the rate of errors; the packet is dropped."
    ErrorTranslated "error-translated"
        "An ICMP error that found its flow by the packet it quotes; forwarded."
    ErrorUnmatched "error-unmatched"
        "An ICMP error to a balanced address whose quoted packet has no flow; passed to the host."
    EchoAnswered "echo-answered"
        "An echo request to an address that answers them; answered."
    NotRecorded "not-recorded"
        "A new connection that the flow table had no room for, sent where the ring says; forwarded."
    UnknownByRing "unknown-by-ring"
        "No SYN and no flow, in a mode that keeps the client's address: sent where the ring says; forwarded."
    BackendsFull "backends-full"
        "A new connection while all backends that could serve are at their limits; then as `no-backend` says."
    ServiceFull "service-full"
        "A new connection while its service is at its limit; then as `no-backend` says."
    RateLimited "rate-limited"
        "A new connection beyond the rate of its source address; dropped."
    Cut "cut"
        "A packet of a connection that is cut; answered with a RST."
    ConversationDisplaced "conversation-displaced"
        "An answered conversation in UDP gave its place in the flow table to a new connection, or to another \
         conversation after ten seconds of silence; forwarded."
    NotFragmented "not-fragmented"
        "Too long for its way, and allowed to be fragmented, which the data path cannot do; answered with ICMP \
         \"fragmentation needed\" as one that is not, so that its sender does it."
    TunnelNarrowed "tunnel-narrowed"
        "An ICMP error \"packet too big\" about the tunnel of a client that no flow knows: what fits is remembered for ten \
         minutes, and who sends more is told; taken."
    AgentLostPassed "agent-lost-passed"
        "A new connection while the agent is lost, to a service with `agent-lost = \"pass\"`; passed to the host."
    NoFlowPassed "no-flow-passed"
        "TCP without a flow, no SYN, to a service with `agent-lost = \"pass\"`: the host may have accepted its connection \
         while the agent was lost; passed to the host."
}

impl Reason {
    /// Counters that one service owns; a power of two, so that there is room for more without a new layout.
    pub const SLOTS: u32 = 64;

    /// The reason with that number; [`Malformed`](Self::Malformed) for one that none has.
    ///
    /// A table with as many places as a masked number has values: no comparison that the verifier would have to follow.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Self {
        Self::BY_NUMBER[(number % Self::SLOTS) as usize]
    }

    const BY_NUMBER: [Self; Self::SLOTS as usize] = {
        let mut table = [Self::Malformed; Self::SLOTS as usize];
        let mut number = 0;
        while number < Self::ALL.len() {
            table[number] = Self::ALL[number];
            number += 1;
        }
        table
    };

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
                | Self::ConversationDisplaced
                | Self::ErrorTranslated
                | Self::TunnelNarrowed
                | Self::ErrorUnmatched
                | Self::EchoAnswered
                | Self::NotRecorded
                | Self::UnknownByRing
                | Self::AgentLostPassed
                | Self::NoFlowPassed
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
